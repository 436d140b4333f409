//! What replaced what, at one key: the graph that the checkers ask.
//!
//! Its nodes are the dots that were minted, its edges lead from a version p to each q whose mint replaced it:
//! p's dot is in the context that q's client sent or, for an overwrite, in what q's coordinator had. A
//! context is a version vector, so each q knows all that it replaced, however long ago, and one edge is all
//! the causality that there is between two versions; but for actors of which nobody has a version any more, which are
//! pruned in the end, and with them the edges to what they minted.
//!
//! An operation may have several dots, twins: a retry under another coordinator that had not heard of the
//! first attempt. Whoever read the operation saw one value, under any of its dots or all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use ringmain::causality::{Actor, Dot, VersionVector};

use super::Evidence;
use super::dot_set::DotSet;
use crate::dots::{DotLog, Minted};
use crate::history::{Key, Number};

/// All dots of a key, and what each of them replaced. A dot goes by its position in ascending order.
#[derive(Debug)]
pub(super) struct Graph<'a> {
    dots: Vec<Dot>,
    minted: Vec<&'a Minted>,
    /// Each actor's dots, in ascending order of the actors.
    actors: Vec<(Actor, Range<usize>)>,
    /// Sorted, so that an operation's dots are neighbours.
    operations: Vec<(Number, usize)>,
    /// Of each dot.
    replaced: Vec<DotSet>,
}

impl<'a> Graph<'a> {
    /// Of a key.
    pub(super) fn of(log: &'a DotLog, key: Key) -> Self {
        let (dots, minted): (Vec<Dot>, Vec<&Minted>) = log.of_key(key).unzip();
        let mut actors: Vec<(Actor, Range<usize>)> = Vec::new();
        for (at, dot) in dots.iter().enumerate() {
            match actors.last_mut() {
                Some((actor, run)) if *actor == dot.actor => run.end = at + 1,
                _ => actors.push((dot.actor, at..at + 1)),
            }
        }
        let mut operations: Vec<(Number, usize)> =
            minted.iter().enumerate().map(|(at, minted)| (minted.operation, at)).collect();
        operations.sort_unstable();
        let mut graph = Self { dots, minted, actors, operations, replaced: Vec::new() };
        graph.replaced = graph.minted.iter().map(|minted| graph.covered_by(&minted.covered)).collect();
        graph
    }

    /// Of every key that was spoken of.
    pub(super) fn all(evidence: &Evidence<'a>) -> BTreeMap<Key, Self> {
        let mut keys: BTreeSet<Key> = evidence.history.iter().map(|(_, operation)| operation.key).collect();
        keys.extend(evidence.copies.iter().map(|copy| copy.key));
        keys.into_iter().map(|key| (key, Self::of(evidence.dots, key))).collect()
    }

    /// How many dots there are.
    pub(super) const fn len(&self) -> usize {
        self.dots.len()
    }

    /// No dots.
    pub(super) fn nothing(&self) -> DotSet {
        DotSet::new(self.len())
    }

    /// Where a dot is; `None` if it was never minted at this key.
    pub(super) fn find(&self, dot: Dot) -> Option<usize> {
        self.dots.binary_search(&dot).ok()
    }

    /// The dot at a position.
    pub(super) fn dot(&self, at: usize) -> Dot {
        self.dots[at]
    }

    /// What the log knows of a dot.
    pub(super) fn minted(&self, at: usize) -> &'a Minted {
        self.minted[at]
    }

    /// Whose a dot is.
    pub(super) fn operation(&self, at: usize) -> Number {
        self.minted[at].operation
    }

    /// What the mint of a dot replaced.
    pub(super) fn replaced(&self, at: usize) -> &DotSet {
        &self.replaced[at]
    }

    /// The dots of an operation: none if it was never applied here, several for twins.
    pub(super) fn of_operation(&self, operation: Number) -> impl Iterator<Item = usize> + Clone + '_ {
        let start = self.operations.partition_point(|(other, _)| *other < operation);
        self.operations[start..].iter().take_while(move |(other, _)| *other == operation).map(|(_, at)| *at)
    }

    /// What all dots of an operation replaced; nothing if it has none. Less than that may be all that ever
    /// spread: of twins that overwrote, one knows nothing of what the other found.
    pub(super) fn replaced_by_all(&self, operation: Number) -> DotSet {
        let mut twins = self.of_operation(operation).map(|at| self.replaced(at));
        let mut common = twins.next().cloned().unwrap_or_else(|| self.nothing());
        twins.for_each(|replaced| common.keep(replaced));
        common
    }

    /// The dots that a vector covers.
    pub(super) fn covered_by(&self, vector: &VersionVector) -> DotSet {
        let mut covered = self.nothing();
        let mut entries = vector.iter().peekable();
        for (actor, run) in &self.actors {
            while entries.next_if(|(other, _)| other < actor).is_some() {}
            if let Some((_, counter)) = entries.next_if(|(other, _)| other == actor) {
                let count = self.dots[run.clone()].partition_point(|dot| dot.counter <= counter);
                covered.insert_run(run.start..run.start + count);
            }
        }
        covered
    }

    /// What these had replaced, and what that had replaced in its turn, and so on.
    pub(super) fn replaced_on_the_way_to(&self, goals: &DotSet) -> DotSet {
        let mut replaced = self.nothing();
        let mut waiting: Vec<usize> = goals.iter().collect();
        while let Some(at) = waiting.pop() {
            let mut news = self.replaced(at).clone();
            news.subtract(&replaced);
            replaced.add(&news);
            waiting.extend(news.iter());
        }
        replaced
    }

    /// Those of `goals`, and all dots that were replaced by one that leads to them.
    pub(super) fn leading_to(&self, goals: &DotSet) -> DotSet {
        let mut reached = self.replaced_on_the_way_to(goals);
        reached.add(goals);
        reached
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::sample::{KEY, Sample, dot, vector};

    fn positions(graph: &Graph<'_>, dots: &[(u64, u64)]) -> Vec<usize> {
        dots.iter().map(|(actor, counter)| graph.find(dot(*actor, *counter)).unwrap()).collect()
    }

    #[test]
    fn a_vector_covers_a_run_of_each_actor() {
        let mut sample = Sample::new();
        for (actor, counter) in [(1, 1), (1, 2), (1, 4), (3, 1), (3, 2), (5, 1)] {
            sample.stored(&[], (actor, counter));
        }
        let graph = Graph::of(&sample.dots, KEY);
        let covered = |entries| graph.covered_by(&vector(entries)).iter().collect::<Vec<_>>();
        assert_eq!(covered(&[]), []);
        assert_eq!(covered(&[(1, 3), (2, 9), (5, 7)]), positions(&graph, &[(1, 1), (1, 2), (5, 1)]));
        assert_eq!(covered(&[(0, 1), (1, 4), (3, 1), (9, 9)]), [0, 1, 2, 3]);
    }

    #[test]
    fn what_leads_somewhere_was_replaced_on_the_way() {
        let mut sample = Sample::new();
        sample.stored(&[], (1, 1));
        sample.stored(&[(1, 1)], (2, 1));
        sample.stored(&[(2, 1)], (3, 1));
        sample.stored(&[(1, 1)], (4, 1));
        let graph = Graph::of(&sample.dots, KEY);
        let mut goals = graph.nothing();
        goals.insert(graph.find(dot(3, 1)).unwrap());
        let leading: Vec<_> = graph.leading_to(&goals).iter().collect();
        assert_eq!(leading, positions(&graph, &[(1, 1), (2, 1), (3, 1)]));
    }

    #[test]
    fn twins_are_dots_of_one_operation() {
        let mut sample = Sample::new();
        let twins = sample.stored(&[], (1, 1));
        sample.stored(&[], (2, 1));
        sample.mint(twins, (3, 1), &[(2, 1)]);
        let graph = Graph::of(&sample.dots, KEY);
        assert_eq!(graph.of_operation(twins).collect::<Vec<_>>(), positions(&graph, &[(1, 1), (3, 1)]));
        assert!(graph.replaced_by_all(twins).is_empty(), "only one of them replaced anything");
        assert_eq!(graph.of_operation(Number(9)).count(), 0);
        assert!(graph.replaced_by_all(Number(9)).is_empty());
    }
}
