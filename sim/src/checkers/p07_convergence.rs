//! P7: within a stated time of the last fault, replica sets, live dots and hash-tree roots are equal, and
//! anti-entropy then moves nothing for three cycles.
//!
//! Asked only of runs in which something makes replicas equal and was given the time. The whole states are
//! compared, clocks and versions, and each root with what the copies under it say it should be: roots that follow their
//! copies can't differ if these don't. A primary without a copy has an empty state, and a ring is its hash. Nobody but the
//! owners holds a copy any more.

use std::collections::BTreeMap;

use bytes::Bytes;
use ringmain::causality::Siblings;

use super::dot_set::DotSet;
use super::graph::Graph;
use super::{Evidence, Opinion, Promise, Violation};
use crate::history::Key;

/// Are all replicas of a key the same, and all rings?
pub fn check(evidence: &Evidence<'_>) -> Result<(), Violation> {
    if !evidence.converges {
        return Ok(());
    }
    check_rings(evidence)?;
    check_strays(evidence)?;
    check_epochs(evidence)?;
    let states: BTreeMap<(Key, usize), &Siblings<Bytes>> =
        evidence.copies.iter().map(|copy| ((copy.key, copy.node), &copy.state)).collect();
    let empty = Siblings::new();
    for (key, primaries) in evidence.primaries {
        if evidence.beside_evicted.contains(key) {
            continue;
        }
        let state = |node: usize| *states.get(&(*key, node)).unwrap_or(&&empty);
        let Some((&first, others)) = primaries.split_first() else { continue };
        if let Some(&other) = others.iter().find(|other| state(first) != state(**other)) {
            let graph = Graph::of(evidence.dots, *key);
            return Err(difference(&graph, *key, (first, state(first)), (other, state(other))));
        }
    }
    check_roots(evidence)?;
    check_silence(evidence)
}

/// A tree that doesn't follow its copies compares what isn't there.
fn check_roots(evidence: &Evidence<'_>) -> Result<(), Violation> {
    let drifted = evidence.roots.iter().find(|(_, [is, should_be])| is != should_be);
    drifted.map_or(Ok(()), |((key, node), _)| {
        let sentence = format!("node {node} keeps a hash tree whose root is not that of its copies");
        let (promise, key) = (Promise::Convergence, Some(*key));
        Err(Violation { promise, key, sentence, operations: Vec::new() })
    })
}

/// What is equal is left alone. A state that moved although all are equal now was not, when it had to be.
fn check_silence(evidence: &Evidence<'_>) -> Result<(), Violation> {
    if evidence.moved == 0 {
        return Ok(());
    }
    let sentence =
        format!("anti-entropy moved {} states that were news, after all had converged", evidence.moved);
    Err(Violation { promise: Promise::Convergence, key: None, sentence, operations: Vec::new() })
}

/// Former owners have given up what they had.
fn check_strays(evidence: &Evidence<'_>) -> Result<(), Violation> {
    evidence.strays.first().map_or(Ok(()), |(node, key)| {
        let sentence = format!("node {node} is at rest and still keeps key {}, which it doesn't own", key.0);
        let (promise, key) = (Promise::Convergence, Some(*key));
        Err(Violation { promise, key, sentence, operations: Vec::new() })
    })
}

fn check_rings(evidence: &Evidence<'_>) -> Result<(), Violation> {
    let changing = |opinion: &Opinion| Some((opinion.node, opinion.change.clone()?));
    if let Some((node, change)) = evidence.opinions.iter().find_map(changing) {
        let sentence = format!("node {node} is at rest, and its ring is still changing: {change}");
        return Err(Violation { promise: Promise::Convergence, key: None, sentence, operations: Vec::new() });
    }
    let Some((first, others)) = evidence.opinions.split_first() else { return Ok(()) };
    others.iter().find(|other| other.ring != first.ring).map_or(Ok(()), |other| {
        let sentence =
            format!("nodes {} and {} are at rest and place keys by different rings", first.node, other.node);
        Err(Violation { promise: Promise::Convergence, key: None, sentence, operations: Vec::new() })
    })
}

/// Copies of two epochs are never merged: they must be of one.
fn check_epochs(evidence: &Evidence<'_>) -> Result<(), Violation> {
    for (key, epochs) in evidence.epochs {
        let Some((&(first, epoch), others)) = epochs.split_first() else { continue };
        if let Some((other, theirs)) = others.iter().find(|(_, theirs)| *theirs != epoch) {
            let sentence = format!(
                "nodes {first} and {other} are at rest, and the partition of key {} is in epoch {epoch} on one and in \
                 {theirs} on the other",
                key.0
            );
            return Err(Violation::at(Promise::Convergence, *key, [], sentence));
        }
    }
    Ok(())
}

/// A node's state of the key.
type Held<'a> = (usize, &'a Siblings<Bytes>);

/// The first dot that two states disagree on says the most: seen or not, standing or not, then its content.
fn difference(graph: &Graph<'_>, key: Key, left: Held<'_>, right: Held<'_>) -> Violation {
    let seen = |held: Held<'_>| graph.covered_by(&held.1.context());
    let stands = |held: Held<'_>| {
        let mut dots = graph.nothing();
        held.1.versions().iter().filter_map(|v| graph.find(v.dot)).for_each(|at| dots.insert(at));
        dots
    };
    let (at, who) = if let Some((at, who)) = only_one(&seen(left), &seen(right), left.0, right.0) {
        (Some(at), format!("only node {who} has seen"))
    } else if let Some((at, who)) = only_one(&stands(left), &stands(right), left.0, right.0) {
        (Some(at), format!("both have seen, and only node {who} still has"))
    } else {
        let mut versions = left.1.versions().iter().zip(right.1.versions());
        let differing = versions.find(|(ours, theirs)| ours != theirs).map(|(ours, _)| ours.dot);
        (differing.and_then(|dot| graph.find(dot)), "they differ in the version of".to_owned())
    };
    let operation = at.map(|at| graph.operation(at));
    let what =
        operation.map_or_else(|| "a dot that was never minted".to_owned(), |put| format!("#{}", put.0));
    let sentence =
        format!("nodes {} and {} are at rest and differ at key {}: {who} {what}", left.0, right.0, key.0);
    Violation::at(Promise::Convergence, key, operation, sentence)
}

/// A dot that is in one of two sets, and the node whose set that is.
fn only_one(left: &DotSet, right: &DotSet, left_node: usize, right_node: usize) -> Option<(usize, usize)> {
    let in_left = left.iter().find(|at| !right.contains(*at)).map(|at| (at, left_node));
    in_left.or_else(|| right.iter().find(|at| !left.contains(*at)).map(|at| (at, right_node)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::sample::{KEY, Sample};
    use crate::history::Number;

    fn differs(sample: &Sample) -> Option<(Vec<Number>, String)> {
        check(&sample.evidence()).err().map(|violation| (violation.operations, violation.sentence))
    }

    fn two_puts() -> Sample {
        let mut sample = Sample::new();
        sample.stored(&[], (1, 1));
        sample.expiring(&[(1, 1)], (2, 1));
        sample.copy(0, &[(1, 1), (2, 1)], &[(2, 1)]);
        sample.copy(2, &[(1, 1), (2, 1)], &[(2, 1)]);
        sample
    }

    #[test]
    fn a_root_follows_its_copies() {
        let mut sample = two_puts();
        sample.copy(1, &[(1, 1), (2, 1)], &[(2, 1)]);
        sample.roots.insert((KEY, 1), [7, 7]);
        assert_eq!(differs(&sample), None);
        sample.roots.insert((KEY, 2), [7, 8]);
        let (_, sentence) = differs(&sample).unwrap();
        assert!(sentence.starts_with("node 2 keeps a hash tree"), "{sentence}");
    }

    #[test]
    fn equal_copies_have_converged() {
        let mut sample = two_puts();
        sample.copy(1, &[(1, 1), (2, 1)], &[(2, 1)]);
        sample.copy(4, &[], &[]);
        assert_eq!(differs(&sample), None, "and node 4 is no primary");
        assert_eq!(differs(&Sample::new()), None, "nor do keys without copies differ");
    }

    #[test]
    fn a_primary_without_a_copy_has_not_converged() {
        let mut sample = two_puts();
        let (operations, sentence) = differs(&sample).unwrap();
        assert_eq!(operations, [Number(0)]);
        assert!(sentence.contains("only node 0 has seen #0"), "{sentence}");
        sample.converges = false;
        assert_eq!(differs(&sample), None, "if it was not given the time");
    }

    #[test]
    fn a_copy_that_lacks_a_put_has_not_converged() {
        let mut sample = two_puts();
        sample.copy(1, &[(1, 1)], &[(1, 1)]);
        let (operations, sentence) = differs(&sample).unwrap();
        assert_eq!(operations, [Number(1)]);
        assert!(sentence.contains("only node 0 has seen #1"), "{sentence}");
    }

    #[test]
    fn a_version_dropped_by_one_is_a_difference() {
        let mut sample = two_puts();
        sample.copy(1, &[(1, 1), (2, 1)], &[]);
        let (operations, sentence) = differs(&sample).unwrap();
        assert_eq!(operations, [Number(1)]);
        assert!(sentence.contains("only node 0 still has #1"), "{sentence}");
    }

    #[test]
    fn a_version_that_expired_at_one_is_a_difference() {
        let mut sample = two_puts();
        sample.copy(1, &[(1, 1), (2, 1)], &[(2, 1)]);
        sample.copies[1].state.expire(ringmain::time::WallTime(u64::MAX));
        let (operations, sentence) = differs(&sample).unwrap();
        assert_eq!(operations, [Number(1)]);
        assert!(sentence.contains("differ in the version of #1"), "{sentence}");
    }

    #[test]
    fn a_clock_of_what_was_never_minted_is_a_difference() {
        let mut sample = two_puts();
        sample.copy(1, &[(1, 1), (2, 1), (9, 9)], &[(2, 1)]);
        let (operations, sentence) = differs(&sample).unwrap();
        assert!(operations.is_empty());
        assert!(sentence.contains("never minted"), "{sentence}");
    }

    #[test]
    fn whoever_still_moves_states_has_not_converged() {
        let mut sample = Sample::new();
        sample.moved = 2;
        let (operations, sentence) = differs(&sample).unwrap();
        assert!(operations.is_empty() && sentence.contains("moved 2 states"), "{sentence}");
    }

    #[test]
    fn a_former_owner_that_keeps_its_copy_has_not_converged() {
        let mut sample = two_puts();
        sample.copy(1, &[(1, 1), (2, 1)], &[(2, 1)]);
        sample.strays.push((4, KEY));
        let (operations, sentence) = differs(&sample).unwrap();
        assert!(
            operations.is_empty() && sentence.contains("node 4 is at rest and still keeps"),
            "{sentence}"
        );
    }

    #[test]
    fn rings_that_differ_have_not_converged() {
        let mut sample = Sample::new();
        sample.primaries.insert(KEY, Vec::new());
        sample.opinions[2].ring = 8;
        let (operations, sentence) = differs(&sample).unwrap();
        assert!(operations.is_empty() && sentence.starts_with("nodes 0 and 2"), "{sentence}");
        sample.converges = false;
        assert_eq!(differs(&sample), None);
    }
}
