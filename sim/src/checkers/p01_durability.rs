//! P1: a put acknowledged at W is on stable storage on W distinct nodes. While fewer than W of those copies
//! are destroyed, a read after convergence returns it, or a version reached from it through puts or deletes
//! whose clients had seen it.
//!
//! So at rest one of its dots stands at some primary, as a value or as a tombstone (a delete's, or what is
//! left of a value that expired), or did when the key was forgotten, or was replaced by a version of which that holds
//! in turn. A version that
//! stands nowhere and was replaced by nothing that stands is a dead end: an `Unknown` put that vanished took
//! nothing with it.

use std::collections::BTreeMap;

use super::dot_set::DotSet;
use super::graph::Graph;
use super::{Evidence, Promise, Violation};
use crate::history::{Key, Number};

/// Is everything there that was acknowledged, or something that replaced it?
pub fn check(evidence: &Evidence<'_>) -> Result<(), Violation> {
    let graphs = Graph::all(evidence);
    let found: BTreeMap<Key, DotSet> = graphs
        .iter()
        .map(|(key, graph)| (*key, graph.leading_to(&standing(evidence, *key, graph))))
        .collect();
    for (number, operation) in evidence.history.iter() {
        let Some(write) = operation.acknowledged() else { continue };
        if evidence.may_be_put_out(operation) {
            continue;
        }
        let destroyed = evidence.lost.get(&number).copied().unwrap_or(0);
        let (graph, found) = (&graphs[&operation.key], &found[&operation.key]);
        if destroyed >= write {
            continue;
        }
        if graph.of_operation(number).next().is_none() {
            let sentence = format!("#{} was acknowledged, and no node ever applied it", number.0);
            return Err(Violation::at(Promise::Durability, operation.key, [number], sentence));
        }
        let is_found = graph.of_operation(number).any(|at| found.contains(at));
        if !evidence.copies.is_empty() && !is_found {
            return Err(lost(evidence, operation.key, graph, number, write, destroyed));
        }
    }
    Ok(())
}

/// The dots that stand at any primary of a key, or stood when it was forgotten.
fn standing(evidence: &Evidence<'_>, key: Key, graph: &Graph<'_>) -> DotSet {
    let mut standing = graph.nothing();
    for copy in evidence.copies.iter().filter(|copy| copy.key == key && is_primary(evidence, key, copy.node))
    {
        let dots = copy.state.versions().iter().filter_map(|version| graph.find(version.dot));
        dots.for_each(|at| standing.insert(at));
    }
    let reaped = evidence.reaped.iter().filter(|reaped| reaped.key == key);
    let reaped = reaped.flat_map(|reaped| &reaped.stood).filter_map(|dot| graph.find(*dot));
    reaped.for_each(|at| standing.insert(at));
    standing
}

fn is_primary(evidence: &Evidence<'_>, key: Key, node: usize) -> bool {
    evidence.primaries.get(&key).is_some_and(|primaries| primaries.contains(&node))
}

/// Whether its clock covers a version that nobody has tells a version that was dropped from one that never
/// came.
fn lost(
    evidence: &Evidence<'_>,
    key: Key,
    graph: &Graph<'_>,
    number: Number,
    write: u8,
    destroyed: u8,
) -> Violation {
    let copies = evidence.copies.iter().filter(|copy| copy.key == key);
    let has_seen = |at| copies.clone().filter(move |copy| copy.state.context().covers(graph.dot(at))).count();
    let witnesses = graph.of_operation(number).map(has_seen).max().unwrap_or(0);
    let sentence = format!(
        "#{} was acknowledged with W = {write}, {destroyed} of its copies were destroyed, and it is lost: at rest \
         no primary of key {} has it or anything that replaced it, though {witnesses} of them have seen it",
        number.0, key.0
    );
    Violation::at(Promise::Durability, key, [number], sentence)
}

#[cfg(test)]
mod tests {
    use ringmain::time::Instant;

    use super::*;
    use crate::checkers::sample::{KEY, Sample};
    use crate::history::Outcome;

    fn lost_in(sample: &Sample) -> Option<Vec<Number>> {
        check(&sample.evidence()).err().map(|violation| violation.operations)
    }

    #[test]
    fn what_stands_or_was_replaced_by_what_stands_is_durable() {
        let mut sample = Sample::new();
        sample.stored(&[], (1, 1));
        sample.unknown(&[(1, 1)], (2, 1));
        sample.deleted(&[(2, 1)], (3, 1));
        sample.stored(&[], (1, 2));
        sample.put(&[], Outcome::Unknown);
        sample.copy(1, &[(1, 2), (2, 1), (3, 1)], &[(1, 2), (3, 1)]);
        assert_eq!(lost_in(&sample), None);
    }

    #[test]
    fn what_stands_nowhere_is_lost() {
        let mut sample = Sample::new();
        let milk = sample.stored(&[], (1, 1));
        sample.stored(&[], (2, 1));
        sample.at_rest(&[(1, 1), (2, 1)], &[(2, 1)]);
        assert_eq!(lost_in(&sample), Some(vec![milk]));
        assert!(check(&sample.evidence()).unwrap_err().sentence.contains("3 of them have seen it"));
    }

    #[test]
    fn a_put_that_vanished_took_nothing_with_it() {
        let mut sample = Sample::new();
        let milk = sample.stored(&[], (1, 1));
        sample.unknown(&[(1, 1)], (2, 1));
        sample.at_rest(&[(1, 1)], &[(1, 1)]);
        assert_eq!(lost_in(&sample), None);
        sample.copies.clear();
        sample.at_rest(&[(1, 1), (2, 1)], &[]);
        assert_eq!(lost_in(&sample), Some(vec![milk]), "replaced by what nobody has");
    }

    #[test]
    fn one_of_two_twins_is_enough() {
        let mut sample = Sample::new();
        let milk = sample.stored(&[], (1, 1));
        sample.mint(milk, (2, 1), &[]);
        sample.at_rest(&[(2, 1)], &[(2, 1)]);
        assert_eq!(lost_in(&sample), None);
        sample.copies.clear();
        sample.at_rest(&[(2, 1)], &[]);
        assert_eq!(lost_in(&sample), Some(vec![milk]));
    }

    #[test]
    fn what_has_expired_was_not_lost() {
        let mut sample = Sample::new();
        let milk = sample.expiring(&[], (1, 1));
        sample.at_rest(&[(1, 1)], &[(1, 1)]);
        sample.expire();
        assert_eq!(lost_in(&sample), None);
        sample.copies.clear();
        sample.at_rest(&[(1, 1)], &[]);
        assert_eq!(lost_in(&sample), Some(vec![milk]), "an expiry leaves a tombstone");
    }

    #[test]
    fn what_led_to_a_tombstone_that_was_reaped_was_not_lost() {
        let mut sample = Sample::new();
        let milk = sample.stored(&[], (1, 1));
        sample.deleted(&[(1, 1)], (2, 1));
        let eggs = sample.stored(&[], (3, 1));
        sample.reap(&[(1, 1), (2, 1)], &[(2, 1)]);
        sample.at_rest(&[(3, 1)], &[(3, 1)]);
        assert_eq!(lost_in(&sample), None);
        sample.copies.clear();
        sample.at_rest(&[], &[]);
        assert_eq!(lost_in(&sample), Some(vec![eggs]), "that was another's tombstone");
        sample.reaped.clear();
        assert_eq!(lost_in(&sample), Some(vec![milk]));
    }

    #[test]
    fn only_w_destroyed_copies_excuse() {
        let mut sample = Sample::new();
        let milk = sample.stored(&[], (1, 1));
        sample.at_rest(&[], &[]);
        sample.destroyed.insert(milk, 1);
        assert_eq!(lost_in(&sample), Some(vec![milk]));
        sample.destroyed.insert(milk, 2);
        assert_eq!(lost_in(&sample), None);
    }

    #[test]
    fn what_was_put_out_may_be_lost() {
        let mut sample = Sample::new();
        sample.got(&[], &[]);
        let milk = sample.stored(&[], (1, 1));
        sample.at_rest(&[], &[]);
        assert_eq!(lost_in(&sample), Some(vec![milk]));
        let invoked = sample.history.get(milk).invoked;
        sample.evicted.insert(KEY, invoked);
        assert_eq!(lost_in(&sample), None);
        sample.evicted.insert(KEY, Instant(invoked.0 - 1));
        assert_eq!(lost_in(&sample), Some(vec![milk]), "it was written later");
    }

    #[test]
    fn a_stranger_is_no_primary() {
        let mut sample = Sample::new();
        let milk = sample.stored(&[], (1, 1));
        sample.copy(0, &[], &[]);
        sample.copy(4, &[(1, 1)], &[(1, 1)]);
        assert_eq!(lost_in(&sample), Some(vec![milk]));
        sample.primaries.insert(KEY, vec![0, 4]);
        assert_eq!(lost_in(&sample), None);
    }

    #[test]
    fn what_was_acknowledged_was_applied() {
        let mut sample = Sample::new();
        let milk = sample.put(&[], Outcome::Stored);
        assert_eq!(lost_in(&sample), Some(vec![milk]), "copies or not");
    }

    #[test]
    fn without_copies_nothing_is_known() {
        let mut sample = Sample::new();
        sample.stored(&[], (1, 1));
        assert_eq!(lost_in(&sample), None);
    }
}
