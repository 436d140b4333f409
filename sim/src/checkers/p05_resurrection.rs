//! P5: after an acknowledged delete with context C has converged, no replica ever shows a dot in C again: not
//! after tombstone reaping, hint replay, restart, or the return of a node.
//!
//! A copy shows dots. A value that a read returns is back from the dead if all its dots were deleted: a twin
//! outside C is a version that the delete's client never saw. If the delete itself has twins, C is what all
//! of them replaced: one that was minted later, as an overwrite, may have replaced what was put after the
//! other had settled.
//!
//! A read that rests on fallbacks alone shows no replica: a hint may have come to a fallback long after its
//! write, and says nothing new until it is handed over. What becomes of it then, the primaries show.

use std::collections::BTreeMap;

use super::dot_set::DotSet;
use super::graph::Graph;
use super::readings::{Read, readings};
use super::{Copy, Evidence, Promise, Settled, Violation};
use crate::history::{Key, Number};

/// What was deleted of one key.
struct Grave<'a> {
    key: Key,
    graph: Graph<'a>,
    /// In the order in which they settled.
    deletes: Vec<&'a Settled>,
    /// The first of these have gone into `gone`.
    buried: usize,
    gone: DotSet,
}

/// Does what was deleted stay so?
pub fn check(evidence: &Evidence<'_>) -> Result<(), Violation> {
    if evidence.settled.is_empty() {
        return Ok(());
    }
    let mut graves: BTreeMap<Key, Grave<'_>> = Graph::all(evidence)
        .into_iter()
        .map(|(key, graph)| (key, Grave::new(evidence, key, graph)))
        .collect();
    for read in readings(evidence.history) {
        graves.get_mut(&read.operation.key).map_or(Ok(()), |grave| grave.check_reading(&read))?;
    }
    graves.values_mut().for_each(|grave| grave.bury(|_| true));
    evidence.copies.iter().try_for_each(|copy| graves[&copy.key].check_copy(copy))
}

impl<'a> Grave<'a> {
    fn new(evidence: &Evidence<'a>, key: Key, graph: Graph<'a>) -> Self {
        // Of what was put out nobody remembers that it had been replaced, unless the delete has settled since.
        let last = evidence.evicted.get(&key);
        let of_key = |settled: &&Settled| {
            evidence.history.get(settled.delete).key == key && last.is_none_or(|last| settled.at > *last)
        };
        let mut deletes: Vec<&Settled> = evidence.settled.iter().filter(of_key).collect();
        deletes.sort_by_key(|settled| settled.at);
        let gone = graph.nothing();
        Self { key, graph, deletes, buried: 0, gone }
    }

    /// Take in the next deletes, as long as they are wanted.
    fn bury(&mut self, wanted: impl Fn(&Settled) -> bool) {
        while let Some(settled) = self.deletes.get(self.buried).filter(|settled| wanted(settled)) {
            self.gone.add(&self.graph.replaced_by_all(settled.delete));
            self.buried += 1;
        }
    }

    /// To be called in the order of the reads' calls.
    fn check_reading(&mut self, read: &Read<'_>) -> Result<(), Violation> {
        self.bury(|settled| settled.at <= read.operation.invoked);
        if read.operation.fallbacks >= read.reading.nodes {
            return Ok(());
        }
        let back = read.returned().find(|number| {
            let mut dots = self.graph.of_operation(*number).peekable();
            dots.peek().is_some() && dots.all(|at| self.gone.contains(at))
        });
        back.map_or(Ok(()), |value| {
            let dots = self.graph.of_operation(value);
            Err(self.violation(dots, value, Some(read.number), &format!("#{} returned", read.number.0)))
        })
    }

    /// To be called when all are buried.
    fn check_copy(&self, copy: &Copy) -> Result<(), Violation> {
        let values = copy.state.versions().iter().filter(|version| version.content.is_value());
        let back =
            values.filter_map(|version| self.graph.find(version.dot)).find(|at| self.gone.contains(*at));
        back.map_or(Ok(()), |at| {
            let value = self.graph.operation(at);
            Err(self.violation(std::iter::once(at), value, None, &format!("node {} shows", copy.node)))
        })
    }

    fn violation(
        &self,
        mut dots: impl Iterator<Item = usize>,
        value: Number,
        read: Option<Number>,
        who: &str,
    ) -> Violation {
        let at = dots.next();
        let of_value = |settled: &&&Settled| {
            at.is_some_and(|at| self.graph.replaced_by_all(settled.delete).contains(at))
        };
        let delete = self.deletes[..self.buried].iter().find(of_value).map(|settled| settled.delete);
        let deleted_by = delete.map_or_else(String::new, |delete| format!(" by #{}", delete.0));
        let sentence = format!(
            "{who} #{} after it had been deleted{deleted_by}, and the delete had reached all primaries",
            value.0
        );
        let operations = [value].into_iter().chain(delete).chain(read);
        Violation::at(Promise::NoResurrection, self.key, operations, sentence)
    }
}

#[cfg(test)]
mod tests {
    use ringmain::time::Instant;

    use super::*;
    use crate::checkers::sample::{KEY, Sample};

    fn risen(sample: &Sample) -> Option<Vec<Number>> {
        check(&sample.evidence()).err().map(|violation| violation.operations)
    }

    /// A put, read and deleted for good.
    fn deleted() -> (Sample, Number, Number) {
        let mut sample = Sample::new();
        let milk = sample.stored(&[], (1, 1));
        sample.got(&[milk], &[(1, 1)]);
        let delete = sample.deleted(&[(1, 1)], (2, 1));
        (sample, milk, delete)
    }

    fn settle(sample: &mut Sample, delete: Number) {
        let at = sample.now();
        sample.settled.push(Settled { delete, at });
    }

    #[test]
    fn what_is_put_after_a_delete_is_no_ghost() {
        let (mut sample, milk, delete) = deleted();
        sample.got(&[milk], &[(1, 1)]);
        settle(&mut sample, delete);
        let eggs = sample.stored(&[], (1, 2));
        sample.got(&[eggs], &[(1, 2), (2, 1)]);
        sample.at_rest(&[(1, 2), (2, 1)], &[(1, 2), (2, 1)]);
        assert_eq!(risen(&sample), None);
    }

    #[test]
    fn a_read_after_a_delete_has_settled_does_not_return_the_deleted() {
        let (mut sample, milk, delete) = deleted();
        settle(&mut sample, delete);
        let read = sample.got(&[milk], &[(1, 1)]);
        assert_eq!(risen(&sample), Some(vec![milk, delete, read]));
        sample.settled[0].at.0 += 1;
        assert_eq!(risen(&sample), None, "it was called before");
        sample.settled.clear();
        assert_eq!(risen(&sample), None);
    }

    #[test]
    fn a_delete_that_has_settled_after_the_key_was_put_out_counts() {
        let (mut sample, milk, delete) = deleted();
        let before = sample.now();
        settle(&mut sample, delete);
        let read = sample.got(&[milk], &[(1, 1)]);
        sample.evicted.insert(KEY, Instant(before.0 - 1));
        assert_eq!(risen(&sample), Some(vec![milk, delete, read]));
        let settled = sample.settled[0].at;
        sample.evicted.insert(KEY, settled);
        assert_eq!(risen(&sample), None);
    }

    #[test]
    fn a_late_hint_that_only_a_fallback_shows_is_no_ghost() {
        let (mut sample, milk, delete) = deleted();
        settle(&mut sample, delete);
        let read = sample.got(&[milk], &[(1, 1)]);
        sample.reading(read).nodes = 2;
        sample.history.get_mut(read).fallbacks = 1;
        assert_eq!(risen(&sample), Some(vec![milk, delete, read]), "a primary showed it");
        sample.history.get_mut(read).fallbacks = 2;
        assert_eq!(risen(&sample), None);
    }

    #[test]
    fn a_copy_at_rest_does_not_show_the_deleted() {
        let (mut sample, milk, delete) = deleted();
        sample.copy(0, &[(1, 1), (2, 1)], &[(2, 1)]);
        sample.copy(1, &[(1, 1)], &[(1, 1)]);
        assert_eq!(risen(&sample), None);
        settle(&mut sample, delete);
        assert_eq!(risen(&sample), Some(vec![milk, delete]));
        sample.copies.clear();
        sample.copy(1, &[(1, 1)], &[]);
        assert_eq!(risen(&sample), None, "nothing is shown");
    }

    #[test]
    fn a_twin_that_the_delete_never_saw_lives() {
        let (mut sample, milk, delete) = deleted();
        sample.mint(milk, (3, 1), &[]);
        settle(&mut sample, delete);
        sample.got(&[milk], &[(1, 1), (2, 1), (3, 1)]);
        sample.at_rest(&[(1, 1), (2, 1), (3, 1)], &[(2, 1), (3, 1)]);
        assert_eq!(risen(&sample), None);
        let again = sample.deleted(&[(1, 1), (3, 1)], (2, 2));
        settle(&mut sample, again);
        let read = sample.got(&[milk], &[(3, 1)]);
        assert_eq!(risen(&sample), Some(vec![milk, delete, read]), "both twins were deleted");
    }

    #[test]
    fn a_copy_does_not_show_the_twin_that_was_deleted() {
        let (mut sample, milk, delete) = deleted();
        sample.mint(milk, (3, 1), &[]);
        settle(&mut sample, delete);
        sample.copy(0, &[(1, 1), (2, 1), (3, 1)], &[(1, 1), (3, 1)]);
        assert_eq!(risen(&sample), Some(vec![milk, delete]));
    }

    #[test]
    fn what_only_one_twin_of_a_delete_replaced_may_live() {
        let (mut sample, _, delete) = deleted();
        settle(&mut sample, delete);
        let eggs = sample.stored(&[], (1, 2));
        sample.got(&[eggs], &[(1, 2), (2, 1)]);
        sample.mint(delete, (3, 1), &[(1, 2)]);
        assert_eq!(risen(&sample), None);
    }

    #[test]
    fn an_expired_value_shows_nothing() {
        let mut sample = Sample::new();
        sample.expiring(&[], (1, 1));
        let delete = sample.deleted(&[(1, 1)], (2, 1));
        settle(&mut sample, delete);
        sample.copy(0, &[(1, 1)], &[(1, 1)]);
        assert!(risen(&sample).is_some());
        sample.expire();
        assert_eq!(risen(&sample), None);
    }
}
