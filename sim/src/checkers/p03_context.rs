//! P3: a reply's context covers no dot that is neither returned nor superseded.
//!
//! A client that puts with such a context would replace what it never saw. A dot is accounted for if its
//! value was returned (under this dot or a twin's), if there was nothing to return (a delete's tombstone; a
//! put that expires, which may have done so by the replica's wall clock), or if another dot that the context
//! covers had replaced it.

use std::collections::BTreeMap;

use super::dot_set::DotSet;
use super::graph::Graph;
use super::readings::{Read, readings};
use super::{Evidence, Promise, Violation};
use crate::history::{Call, History, Key};

/// What is asked of each context of one key.
struct Judge<'a> {
    graph: Graph<'a>,
    /// Dots without a value to be returned, always or after a while.
    valueless: DotSet,
    /// The dots, the newest first: nearly all that a context covers was replaced by the newest that it
    /// covers.
    newest: Vec<usize>,
}

/// Does every context cover only what its reader was shown?
pub fn check(evidence: &Evidence<'_>) -> Result<(), Violation> {
    let judges: BTreeMap<Key, Judge<'_>> = Graph::all(evidence)
        .into_iter()
        .map(|(key, graph)| (key, Judge::new(evidence.history, graph)))
        .collect();
    for read in readings(evidence.history) {
        if let Some(unseen) = judges[&read.operation.key].unseen(&read) {
            return Err(unseen);
        }
    }
    Ok(())
}

impl<'a> Judge<'a> {
    fn new(history: &History, graph: Graph<'a>) -> Self {
        let mut valueless = graph.nothing();
        for at in 0..graph.len() {
            let operation = graph.operation(at);
            let expires = operation < history.next()
                && matches!(history.get(operation).call, Call::Put { time_to_live: Some(_), .. });
            if graph.minted(at).tombstone || expires {
                valueless.insert(at);
            }
        }
        let mut newest: Vec<usize> = (0..graph.len()).collect();
        newest.sort_by_key(|at| std::cmp::Reverse(graph.minted(*at).at));
        Self { graph, valueless, newest }
    }

    /// A dot that the context covers and that nothing accounts for.
    fn unseen(&self, read: &Read<'_>) -> Option<Violation> {
        let context = read.reading.context.as_ref()?;
        let covered = self.graph.covered_by(context);
        let mut unexplained = covered.clone();
        unexplained.subtract(&self.valueless);
        let mut returned = self.graph.nothing();
        let dots = read.returned().flat_map(|number| self.graph.of_operation(number));
        dots.for_each(|at| returned.insert(at));
        unexplained.subtract(&returned);
        for at in self.newest.iter().filter(|at| covered.contains(**at)) {
            if unexplained.is_empty() {
                return None;
            }
            unexplained.subtract(self.graph.replaced(*at));
        }
        let unseen = self.graph.operation(unexplained.iter().next()?);
        let sentence = format!(
            "#{0} returned a context that covers #{1}, without its value: whoever puts with that context replaces \
             #{1} unseen",
            read.number.0, unseen.0
        );
        Some(Violation::at(Promise::HonestContext, read.operation.key, [unseen, read.number], sentence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::sample::Sample;
    use crate::history::Number;

    fn dishonest(sample: &Sample) -> Option<Vec<Number>> {
        check(&sample.evidence()).err().map(|violation| violation.operations)
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
    fn a_value_that_expires_may_be_covered_and_gone() {
        let mut sample = Sample::new();
        sample.expiring(&[], (1, 1));
        sample.got(&[], &[(1, 1)]);
        assert_eq!(dishonest(&sample), None);
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
