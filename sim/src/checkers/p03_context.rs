//! P3: a reply's context covers no dot that is neither returned nor superseded.
//!
//! A client that puts with such a context would replace what it never saw. A dot is accounted for if its
//! value was returned (under this dot or a twin's) or is the client's own, just stored; if there was nothing to
//! return (a delete's tombstone; a put that may have expired by the replica's wall clock); or if another dot that
//! the context covers had replaced it, or had replaced what replaced it, and so on.

use std::collections::BTreeMap;

use ringmain::causality::VersionVector;
use ringmain::time::Instant;

use super::dot_set::DotSet;
use super::graph::Graph;
use super::p05_expiry::{SKEW, expiry};
use super::{Evidence, Promise, Violation};
use crate::history::{Key, Number, Operation, Outcome, read_value};

/// What is asked of each context of one key.
struct Judge<'a> {
    graph: Graph<'a>,
    /// Dots without a value to be returned.
    valueless: DotSet,
    /// Dots that expire, and when they may have, by some clock.
    expiring: Vec<(usize, Instant)>,
    /// The dots, the newest first: nearly all that a context covers was replaced by the newest that it
    /// covers.
    newest: Vec<usize>,
}

/// Does every context cover only what its reader was shown?
pub fn check(evidence: &Evidence<'_>) -> Result<(), Violation> {
    let judges: BTreeMap<Key, Judge<'_>> =
        Graph::all(evidence).into_iter().map(|(key, graph)| (key, Judge::new(evidence, graph))).collect();
    for (number, operation) in evidence.history.iter() {
        let Some((context, shown)) = told(number, operation) else { continue };
        if let Some(unseen) = judges[&operation.key].unseen(number, operation, context, &shown) {
            return Err(unseen);
        }
    }
    Ok(())
}

/// The context of an answer, and the operations whose values its client knows.
fn told(number: Number, operation: &Operation) -> Option<(&VersionVector, Vec<Number>)> {
    match &operation.outcome {
        Outcome::Got(reading) => {
            let values = reading.values.iter().filter_map(|value| read_value(value));
            Some((reading.context.as_ref()?, values.map(|(number, ..)| number).collect()))
        }
        Outcome::Stored => Some((operation.receipt.as_ref()?.context.as_ref()?, vec![number])),
        Outcome::Failed(_) | Outcome::Unknown => None,
    }
}

impl<'a> Judge<'a> {
    fn new(evidence: &Evidence<'_>, graph: Graph<'a>) -> Self {
        let mut valueless = graph.nothing();
        let mut expiring = Vec::new();
        for at in 0..graph.len() {
            // A twin that has expired hides the others, which were minted later.
            let twins = graph.of_operation(graph.operation(at));
            match twins.filter_map(|twin| expiry(evidence.history, &graph, twin)).min() {
                Some(expiry) if evidence.steady_clocks => expiring.push((at, expiry)),
                // A clock that jumps may have reached it at any time.
                Some(_) => valueless.insert(at),
                None if graph.minted(at).tombstone => valueless.insert(at),
                None => {}
            }
        }
        let mut newest: Vec<usize> = (0..graph.len()).collect();
        newest.sort_by_key(|at| std::cmp::Reverse(graph.minted(*at).at));
        Self { graph, valueless, expiring, newest }
    }

    /// A dot that the context covers and that nothing accounts for.
    fn unseen(
        &self,
        number: Number,
        operation: &Operation,
        context: &VersionVector,
        shown: &[Number],
    ) -> Option<Violation> {
        let covered = self.graph.covered_by(context);
        let mut unexplained = covered.clone();
        unexplained.subtract(&self.valueless);
        let mut accounted = self.graph.nothing();
        let dots = shown.iter().flat_map(|number| self.graph.of_operation(*number));
        dots.for_each(|at| accounted.insert(at));
        let is_over = |expiry: Instant| operation.returned.is_none_or(|returned| returned + SKEW > expiry);
        self.expiring.iter().filter(|(_, expiry)| is_over(*expiry)).for_each(|(at, _)| accounted.insert(*at));
        unexplained.subtract(&accounted);
        for at in self.newest.iter().filter(|at| covered.contains(**at)) {
            if unexplained.is_empty() {
                return None;
            }
            unexplained.subtract(self.graph.replaced(*at));
        }
        // An actor between them may be forgotten, once nobody has a version by it: what replaced this was itself replaced.
        unexplained.subtract(&self.graph.replaced_on_the_way_to(&covered));
        let unseen = self.graph.operation(unexplained.iter().next()?);
        let sentence = format!(
            "#{0} returned a context that covers #{1}, without its value: whoever puts with that context replaces \
             #{1} unseen",
            number.0, unseen.0
        );
        Some(Violation::at(Promise::HonestContext, operation.key, [unseen, number], sentence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::sample::{Sample, vector};
    use crate::history::Receipt;

    fn dishonest(sample: &Sample) -> Option<Vec<Number>> {
        check(&sample.evidence()).err().map(|violation| violation.operations)
    }

    /// Seed 2237 at the time: what had replaced a version was replaced too, and its actor pruned. A later version by the actor of the
    /// first one brought that back into contexts.
    #[test]
    fn what_replaced_it_may_have_been_replaced_and_pruned() {
        let mut sample = Sample::new();
        sample.stored(&[], (1, 1));
        sample.stored(&[(1, 1)], (2, 1));
        let last = sample.stored(&[(2, 1)], (3, 1));
        let beside = sample.stored(&[], (1, 2));
        sample.got(&[last, beside], &[(1, 2), (3, 1)]);
        assert_eq!(dishonest(&sample), None);
        // Without the one that was replaced last nobody has seen what came of the first.
        sample.got(&[beside], &[(1, 2)]);
        assert!(dishonest(&sample).is_some());
    }

    #[test]
    fn a_context_covers_what_was_returned_or_replaced() {
        let mut sample = Sample::new();
        sample.stored(&[], (1, 1));
        let second = sample.unknown(&[(1, 1)], (2, 1));
        let sibling = sample.stored(&[], (1, 2));
        sample.stored(&[(1, 2)], (3, 5));
        sample.got(&[second, sibling], &[(1, 2), (2, 1), (3, 4)]);
        sample.got(&[], &[]);
        assert_eq!(dishonest(&sample), None);
    }

    #[test]
    fn a_sibling_that_is_not_shown_is_not_covered() {
        let mut sample = Sample::new();
        let milk = sample.stored(&[], (1, 1));
        let eggs = sample.stored(&[], (2, 1));
        let read = sample.got(&[eggs], &[(1, 1), (2, 1)]);
        assert_eq!(dishonest(&sample), Some(vec![milk, read]));
        sample.reading(read).context = None;
        assert_eq!(dishonest(&sample), None, "no context, no lie");
    }

    #[test]
    fn who_replaced_it_must_be_covered_too() {
        let mut sample = Sample::new();
        let milk = sample.stored(&[], (1, 1));
        sample.stored(&[(1, 1)], (2, 1));
        let read = sample.got(&[], &[(1, 1)]);
        assert_eq!(dishonest(&sample), Some(vec![milk, read]));
    }

    /// riak_kv #679: a counter that stood for something else is covered by an old clock.
    #[test]
    fn a_dot_below_the_counter_of_another_is_covered_too() {
        let mut sample = Sample::new();
        let milk = sample.stored(&[], (1, 1));
        let eggs = sample.stored(&[], (1, 2));
        let read = sample.got(&[eggs], &[(1, 2)]);
        assert_eq!(dishonest(&sample), Some(vec![milk, read]));
    }

    #[test]
    fn a_tombstone_has_no_value_to_show_and_hides_nothing_else() {
        let mut sample = Sample::new();
        sample.stored(&[], (1, 1));
        sample.deleted(&[(1, 1)], (2, 1));
        sample.got(&[], &[(1, 1), (2, 1)]);
        assert_eq!(dishonest(&sample), None);
        let eggs = sample.stored(&[], (1, 2));
        let read = sample.got(&[], &[(1, 2), (2, 1)]);
        assert_eq!(dishonest(&sample), Some(vec![eggs, read]));
    }

    #[test]
    fn a_value_that_expires_may_be_covered_and_gone_when_its_time_has_come() {
        let mut sample = Sample::new();
        let milk = sample.expiring(&[], (1, 1));
        let read = sample.got(&[], &[(1, 1)]);
        assert_eq!(dishonest(&sample), Some(vec![milk, read]));
        sample.steady_clocks = false;
        assert_eq!(dishonest(&sample), None);
        sample.steady_clocks = true;
        sample.history.get_mut(read).returned = Some(Instant(900_000_000));
        assert_eq!(dishonest(&sample), None);
    }

    #[test]
    fn of_twins_the_first_to_expire_ends_both() {
        let mut sample = Sample::new();
        let milk = sample.expiring(&[], (1, 1));
        let read = sample.got(&[], &[(1, 1), (2, 1)]);
        sample.history.get_mut(read).returned = Some(Instant(1_100_000_000));
        sample.history.get_mut(milk).invoked = Instant(900_000_000);
        sample.mint(milk, (2, 1), &[]);
        assert_eq!(dishonest(&sample), None);
    }

    #[test]
    fn what_a_write_is_told_covers_only_its_own_and_what_that_replaced() {
        let mut sample = Sample::new();
        let milk = sample.stored(&[], (1, 1));
        let eggs = sample.stored(&[], (2, 1));
        let receipt = |entries: &[(u64, u64)]| Some(Receipt { context: Some(vector(entries)), nodes: 2 });
        sample.history.get_mut(eggs).receipt = receipt(&[(2, 1)]);
        assert_eq!(dishonest(&sample), None);
        sample.history.get_mut(eggs).receipt = receipt(&[(1, 1), (2, 1)]);
        assert_eq!(dishonest(&sample), Some(vec![milk, eggs]));
    }

    #[test]
    fn a_twin_is_shown_by_the_other() {
        let mut sample = Sample::new();
        let milk = sample.stored(&[], (1, 1));
        sample.mint(milk, (2, 1), &[]);
        sample.got(&[milk], &[(1, 1), (2, 1)]);
        assert_eq!(dishonest(&sample), None);
        let read = sample.got(&[], &[(2, 1)]);
        assert_eq!(dishonest(&sample), Some(vec![milk, read]));
    }
}
