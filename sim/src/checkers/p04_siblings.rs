//! P4: siblings are concurrent: no sibling's dot lies in another sibling's context.
//!
//! A copy at rest shows dots, so there it is that simple. A read shows values. An operation that was applied
//! several times may stand under any of its dots, so a value is known to be replaced by another only if all
//! dots of the one were replaced by each dot of the other.

use ringmain::causality::Version;

use super::dot_set::DotSet;
use super::graph::Graph;
use super::readings::{Read, readings};
use super::{Evidence, Promise, Violation};
use crate::history::Number;

/// Are versions that are shown together concurrent?
pub fn check(evidence: &Evidence<'_>) -> Result<(), Violation> {
    let graphs = Graph::all(evidence);
    for read in readings(evidence.history) {
        let key = read.operation.key;
        if let Some((old, new)) = replaced_value(&graphs[&key], &read) {
            let sentence = format!("#{} returned {}", read.number.0, both(old, new));
            return Err(Violation::at(Promise::ConcurrentSiblings, key, [old, new, read.number], sentence));
        }
    }
    for copy in evidence.copies {
        if let Some((old, new)) = replaced_version(&graphs[&copy.key], copy.state.versions()) {
            let sentence = format!("node {} holds {}", copy.node, both(old, new));
            return Err(Violation::at(Promise::ConcurrentSiblings, copy.key, [old, new], sentence));
        }
    }
    Ok(())
}

fn both(old: Number, new: Number) -> String {
    format!("both #{} and #{}, which replaced it", old.0, new.0)
}

/// A returned value that another one of the same reading had replaced, and that other.
fn replaced_value(graph: &Graph<'_>, read: &Read<'_>) -> Option<(Number, Number)> {
    if read.reading.values.len() < 2 {
        return None;
    }
    let mut shown = graph.nothing();
    read.returned().flat_map(|number| graph.of_operation(number)).for_each(|at| shown.insert(at));
    let replaces_any = |new: &Number| {
        let mut dots = graph.of_operation(*new);
        dots.next().is_some_and(|at| graph.replaced(at).meets(&shown))
    };
    // Of a hundred siblings hardly one is a suspect, so the pairs are few.
    read.returned().filter(replaces_any).find_map(|new| {
        let replaced = graph.replaced_by_all(new);
        let old = read.returned().find(|old| *old != new && is_within(graph, *old, &replaced))?;
        Some((old, new))
    })
}

/// Are all dots of an operation in a set?
fn is_within(graph: &Graph<'_>, operation: Number, set: &DotSet) -> bool {
    let mut dots = graph.of_operation(operation).peekable();
    dots.peek().is_some() && dots.all(|at| set.contains(at))
}

/// Of the versions of a state one that another had replaced, and that other.
fn replaced_version<V>(graph: &Graph<'_>, versions: &[Version<V>]) -> Option<(Number, Number)> {
    let mut standing = graph.nothing();
    versions.iter().filter_map(|version| graph.find(version.dot)).for_each(|at| standing.insert(at));
    standing.iter().find_map(|new| {
        let mut replaced = graph.replaced(new).clone();
        replaced.keep(&standing);
        let old = replaced.iter().next()?;
        Some((graph.operation(old), graph.operation(new)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::sample::Sample;

    fn ordered(sample: &Sample) -> Option<Vec<Number>> {
        check(&sample.evidence()).err().map(|violation| violation.operations)
    }

    #[test]
    fn values_that_know_nothing_of_one_another_are_siblings() {
        let mut sample = Sample::new();
        let base = sample.stored(&[], (1, 1));
        let milk = sample.stored(&[(1, 1)], (1, 2));
        let eggs = sample.stored(&[(1, 1)], (2, 1));
        sample.got(&[base], &[(1, 1)]);
        sample.got(&[milk, eggs], &[(1, 2), (2, 1)]);
        sample.at_rest(&[(1, 2), (2, 1)], &[(1, 2), (2, 1)]);
        assert_eq!(ordered(&sample), None);
    }

    #[test]
    fn a_value_is_not_returned_with_what_replaced_it() {
        let mut sample = Sample::new();
        let milk = sample.stored(&[], (1, 1));
        let eggs = sample.stored(&[(1, 1)], (2, 1));
        let read = sample.got(&[milk, eggs], &[(1, 1), (2, 1)]);
        assert_eq!(ordered(&sample), Some(vec![milk, eggs, read]));
        sample.reading(read).context = None;
        assert_eq!(ordered(&sample), Some(vec![milk, eggs, read]), "context or not");
    }

    #[test]
    fn a_copy_does_not_hold_what_it_has_seen_replaced() {
        let mut sample = Sample::new();
        let milk = sample.stored(&[], (1, 1));
        let delete = sample.deleted(&[(1, 1)], (2, 1));
        sample.copy(2, &[(1, 1), (2, 1)], &[(1, 1), (2, 1)]);
        assert_eq!(ordered(&sample), Some(vec![milk, delete]));
    }

    #[test]
    fn a_twin_that_was_not_seen_is_a_sibling() {
        let mut sample = Sample::new();
        let milk = sample.stored(&[], (1, 1));
        let eggs = sample.stored(&[(1, 1)], (2, 1));
        sample.mint(milk, (3, 1), &[]);
        sample.got(&[milk, eggs], &[(1, 1), (2, 1), (3, 1)]);
        sample.at_rest(&[(1, 1), (2, 1), (3, 1)], &[(2, 1), (3, 1)]);
        assert_eq!(ordered(&sample), None);
        sample.copies.clear();
        sample.at_rest(&[(1, 1), (2, 1), (3, 1)], &[(1, 1), (2, 1), (3, 1)]);
        assert_eq!(ordered(&sample), Some(vec![milk, eggs]), "a copy shows under which dot");
    }

    #[test]
    fn a_twin_that_replaced_nothing_may_be_the_one_that_stands() {
        let mut sample = Sample::new();
        let milk = sample.stored(&[], (1, 1));
        let eggs = sample.stored(&[(1, 1)], (2, 1));
        sample.mint(eggs, (3, 1), &[]);
        sample.got(&[milk, eggs], &[(1, 1), (3, 1)]);
        assert_eq!(ordered(&sample), None);
    }

    #[test]
    fn twins_that_were_both_replaced_are_no_siblings() {
        let mut sample = Sample::new();
        let milk = sample.stored(&[], (1, 1));
        sample.mint(milk, (2, 1), &[]);
        let eggs = sample.stored(&[(1, 1), (2, 1)], (3, 1));
        let read = sample.got(&[milk, eggs], &[(1, 1), (2, 1), (3, 1)]);
        assert_eq!(ordered(&sample), Some(vec![milk, eggs, read]));
    }
}
