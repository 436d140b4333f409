//! P9: with R + W > N, no fallbacks and stable membership, a read begun after an acknowledged put sees it or
//! a descendant: restarts, wipes and joins included, since an incomplete replica's not-found says nothing.
//!
//! What a read has seen is its context. So of each write that was acknowledged before the call, one dot at
//! least is covered by it, or one of something that replaced it, or was forgotten by then with its tombstones. The
//! reads of a key are gone through in the order of their calls, and the writes join as they are acknowledged.
//!
//! Membership isn't stable while a second process serves under a node's name (docs/adr/0015): the later one acknowledges
//! for the node, and the earlier one answers for it until it is fenced or dead. A read that overlaps such a time may miss
//! what the other has; any other read is judged, however soon after. Of a write that overlaps one, an acknowledgement may
//! be that of the process that is fenced later, whose copies are gone with it until it is started again: it counts one
//! fewer.

use std::collections::BTreeMap;

use ringmain::causality::VersionVector;
use ringmain::time::Instant;

use super::dot_set::DotSet;
use super::graph::Graph;
use super::readings::{Read, readings};
use super::{Evidence, Promise, Reaped, Violation};
use crate::history::{Key, Number, Operation};

/// A write that its client knows of.
struct Acknowledged {
    at: Instant,
    number: Number,
    /// W.
    write: u8,
}

/// The writes of one key that a read must have seen.
struct Required<'a> {
    graph: Graph<'a>,
    /// N.
    replicas: u8,
    /// In the order of their acknowledgements.
    writes: Vec<Acknowledged>,
    /// The first of these are in `single` and `twins`.
    taken: usize,
    /// The dots of the writes that have one, by their W.
    single: Vec<DotSet>,
    /// The writes that have several.
    twins: Vec<(u8, Number)>,
    /// What was forgotten of the key, in the order of time.
    reaped: Vec<&'a Reaped>,
}

/// Did every read see what was acknowledged before it?
pub fn check(evidence: &Evidence<'_>) -> Result<(), Violation> {
    let mut keys: BTreeMap<Key, Required<'_>> = Graph::all(evidence)
        .into_iter()
        .map(|(key, graph)| (key, Required::new(graph, evidence.replicas)))
        .collect();
    for reaped in evidence.reaped {
        if let Some(required) = keys.get_mut(&reaped.key) {
            required.reaped.push(reaped);
        }
    }
    for (number, operation) in evidence.history.iter() {
        if evidence.may_be_put_out(operation) {
            continue;
        }
        let acknowledged = acknowledged(evidence, number, operation);
        let required = keys.get_mut(&operation.key).zip(acknowledged);
        required.into_iter().for_each(|(required, write)| required.writes.push(write));
    }
    keys.values_mut().for_each(|required| required.writes.sort_by_key(|write| (write.at, write.number)));
    let speaks_of =
        |read: &Read<'_>| read.operation.fallbacks == 0 && !overlaps(evidence.doubled, read.operation);
    for read in readings(evidence.history).filter(speaks_of) {
        keys.get_mut(&read.operation.key).map_or(Ok(()), |required| required.check(&read))?;
    }
    Ok(())
}

/// Was it under way in any of these times?
fn overlaps(times: &[(Instant, Instant)], operation: &Operation) -> bool {
    times.iter().any(|&(from, until)| {
        operation.invoked <= until && operation.returned.is_none_or(|returned| from <= returned)
    })
}

/// A write that must be seen: it was acknowledged, and not all copies that this spoke of were destroyed.
fn acknowledged(evidence: &Evidence<'_>, number: Number, operation: &Operation) -> Option<Acknowledged> {
    let (write, at) = operation.acknowledged().zip(operation.returned)?;
    let destroyed = evidence.destroyed.get(&number).copied().unwrap_or(0);
    // One acknowledgement may be that of a process whose place another takes that lacks it.
    let is_doubtful = overlaps(evidence.doubled, operation) || overlaps(evidence.copied, operation);
    let counted = write.min(evidence.replicas).saturating_sub(u8::from(is_doubtful));
    // Fallbacks keep no overlap: who asks for it asks for primaries.
    let must_be_seen = destroyed < write && counted > 0 && operation.fallbacks == 0;
    must_be_seen.then_some(Acknowledged { at, number, write: counted })
}

impl<'a> Required<'a> {
    fn new(graph: Graph<'a>, replicas: u8) -> Self {
        let single = vec![graph.nothing(); usize::from(replicas) + 1];
        Self { graph, replicas, writes: Vec::new(), taken: 0, single, twins: Vec::new(), reaped: Vec::new() }
    }

    /// To be called in the order of the reads' calls.
    fn check(&mut self, read: &Read<'_>) -> Result<(), Violation> {
        self.take_until(read.operation.invoked);
        let mut context = match &read.reading.context {
            Some(context) => context.clone(),
            None if read.reading.values.is_empty() => VersionVector::new(),
            // The latest of several, which says nothing of the others.
            None => return Ok(()),
        };
        let returned = read.operation.returned.unwrap_or(read.operation.invoked);
        let reaped = self.reaped.iter().rev().filter(|reaped| reaped.at <= returned);
        reaped.for_each(|reaped| reaped.add_to(&mut context));
        let seen = self.graph.covered_by(&context);
        // R + W > N
        let least = (self.replicas + 1).saturating_sub(read.needed);
        self.unseen(&seen, least).map_or(Ok(()), |number| {
            let sentence = format!(
                "#{} was called after #{} had been acknowledged, read {} of {} replicas, and saw neither it nor \
                 anything that replaced it",
                read.number.0, number.0, read.needed, self.replicas
            );
            Err(Violation::at(Promise::Overlap, read.operation.key, [number, read.number], sentence))
        })
    }

    /// Take in what was acknowledged before a read was called.
    fn take_until(&mut self, call: Instant) {
        while let Some(&Acknowledged { number, write, .. }) =
            self.writes.get(self.taken).filter(|write| write.at < call)
        {
            let mut dots = self.graph.of_operation(number);
            match (dots.next(), dots.next()) {
                // P1 speaks of what was acknowledged and never applied.
                (None, _) => {}
                (Some(at), None) => self.single[usize::from(write)].insert(at),
                (Some(_), Some(_)) => self.twins.push((write, number)),
            }
            self.taken += 1;
        }
    }

    /// A write with this W at least, of which nothing was seen.
    fn unseen(&self, seen: &DotSet, least: u8) -> Option<Number> {
        let mut missing = self.graph.nothing();
        self.single.iter().skip(usize::from(least)).for_each(|dots| missing.add(dots));
        missing.subtract(seen);
        let twins = self.twins.iter().filter(|(write, _)| *write >= least).map(|(_, number)| *number);
        let mut twins =
            twins.filter(|number| !self.graph.of_operation(*number).any(|at| seen.contains(at))).peekable();
        if missing.is_empty() && twins.peek().is_none() {
            return None;
        }
        let replaced = self.graph.leading_to(seen);
        missing.subtract(&replaced);
        let single = missing.iter().map(|at| self.graph.operation(at));
        let twins = twins.filter(|number| !self.graph.of_operation(*number).any(|at| replaced.contains(at)));
        // The last one called is the one that most should have been seen.
        single.chain(twins).max()
    }
}

#[cfg(test)]
mod tests {
    use ringmain::time::Duration;

    use super::*;
    use crate::checkers::sample::Sample;
    use crate::history::{Call, Outcome};

    fn missed(sample: &Sample) -> Option<Vec<Number>> {
        check(&sample.evidence()).err().map(|violation| violation.operations)
    }

    #[test]
    fn a_read_sees_what_was_acknowledged_or_what_replaced_it() {
        let mut sample = Sample::new();
        sample.got(&[], &[]);
        let milk = sample.stored(&[], (1, 1));
        sample.got(&[milk], &[(1, 1)]);
        let eggs = sample.unknown(&[(1, 1)], (2, 1));
        sample.got(&[eggs], &[(1, 1), (2, 1)]);
        sample.got(&[eggs], &[(2, 1)]);
        assert_eq!(missed(&sample), None);
    }

    #[test]
    fn a_read_sees_what_was_pruned_behind_what_it_has_seen_and_no_more() {
        let mut sample = Sample::new();
        sample.stored(&[], (1, 1));
        sample.stored(&[(1, 1)], (2, 1));
        sample.prune(&[(1, 1)], &[(2, 1)]);
        let bread = sample.stored(&[(2, 1)], (3, 1));
        sample.prune(&[(2, 1)], &[(3, 1)]);
        sample.got(&[bread], &[(3, 1)]);
        assert_eq!(missed(&sample), None);
        let read = sample.got(&[], &[]);
        assert_eq!(missed(&sample), Some(vec![bread, read]), "that some key was pruned excuses nobody");
    }

    #[test]
    fn a_read_that_misses_it_is_a_violation() {
        let mut sample = Sample::new();
        sample.stored(&[], (1, 1));
        let eggs = sample.stored(&[], (2, 1));
        let read = sample.got(&[], &[(1, 1)]);
        assert_eq!(missed(&sample), Some(vec![eggs, read]));
    }

    #[test]
    fn a_read_that_finds_nothing_is_a_violation() {
        let mut sample = Sample::new();
        let milk = sample.stored(&[], (1, 1));
        let read = sample.got(&[], &[]);
        assert_eq!(missed(&sample), Some(vec![milk, read]));
        sample.reading(read).context = None;
        assert_eq!(missed(&sample), Some(vec![milk, read]));
        let value = sample.value_of(milk);
        sample.reading(read).values.push(value);
        assert_eq!(missed(&sample), None, "the latest of several");
    }

    #[test]
    fn a_delete_must_be_seen_too() {
        let mut sample = Sample::new();
        let milk = sample.stored(&[], (1, 1));
        let delete = sample.deleted(&[(1, 1)], (2, 1));
        let read = sample.got(&[milk], &[(1, 1)]);
        assert_eq!(missed(&sample), Some(vec![delete, read]));
    }

    #[test]
    fn what_is_not_known_to_be_stored_may_be_missed() {
        let mut sample = Sample::new();
        let milk = sample.unknown(&[], (1, 1));
        sample.got(&[], &[]);
        assert_eq!(missed(&sample), None);
        sample.history.get_mut(milk).outcome = Outcome::Stored;
        assert!(missed(&sample).is_some());
        sample.history.get_mut(milk).returned = Some(Instant(2_000_000));
        assert_eq!(missed(&sample), None, "acknowledged when the read was called, not before");
    }

    #[test]
    fn quorums_that_do_not_overlap_promise_nothing() {
        let mut sample = Sample::new();
        let milk = sample.stored(&[], (1, 1));
        let read = sample.got(&[], &[]);
        let quorums = |sample: &mut Sample, r: u8, w: u8| {
            if let Call::Put { write, .. } = &mut sample.history.get_mut(milk).call {
                *write = w;
            }
            sample.history.get_mut(read).call = Call::Get { read: r, latest: false };
            missed(sample).is_some()
        };
        for (r, w, overlap) in [(1, 1, false), (1, 2, false), (2, 1, false), (1, 3, true), (3, 1, true)] {
            assert_eq!(quorums(&mut sample, r, w), overlap, "R = {r}, W = {w}");
        }
    }

    #[test]
    fn what_was_destroyed_may_be_missed() {
        let mut sample = Sample::new();
        let milk = sample.stored(&[], (1, 1));
        sample.got(&[], &[]);
        sample.destroyed.insert(milk, 1);
        assert!(missed(&sample).is_some());
        sample.destroyed.insert(milk, 2);
        assert_eq!(missed(&sample), None);
    }

    #[test]
    fn a_read_while_two_processes_serve_under_one_name_may_miss_it() {
        let mut sample = Sample::new();
        let milk = sample.stored(&[], (1, 1));
        let read = sample.got(&[], &[]);
        let (invoked, returned) = {
            let read = sample.history.get(read);
            (read.invoked, read.returned.unwrap())
        };
        let shortly = Duration(1);
        let inside = Instant(invoked.0 + 1);
        for (from, until) in [
            (Instant(0), invoked),
            (returned, returned + shortly),
            (inside, inside + shortly),
            (Instant(0), returned + shortly),
        ] {
            sample.doubled = vec![(from, until)];
            assert_eq!(missed(&sample), None, "{from:?} to {until:?}");
        }
        let written = sample.history.get(milk).returned.unwrap();
        for (from, until) in [
            (written + shortly, Instant(invoked.0 - 1)),
            (returned + shortly, returned + Duration::from_secs(1)),
        ] {
            sample.doubled = vec![(from, until)];
            assert_eq!(missed(&sample), Some(vec![milk, read]), "{from:?} to {until:?}");
        }
    }

    #[test]
    fn what_was_acknowledged_while_two_processes_had_one_name_counts_one_fewer() {
        let mut sample = Sample::new();
        let milk = sample.stored(&[], (1, 1));
        sample.doubled = vec![(Instant(0), sample.history.get(milk).returned.unwrap())];
        let read = sample.got(&[], &[]);
        assert_eq!(
            missed(&sample),
            None,
            "one of two copies may be on the one that is fenced, and two of three were read"
        );
        if let Call::Get { read, .. } = &mut sample.history.get_mut(read).call {
            *read = 3;
        }
        assert_eq!(missed(&sample), Some(vec![milk, read]), "all three were read");
    }

    #[test]
    fn one_of_two_twins_is_enough() {
        let mut sample = Sample::new();
        let milk = sample.stored(&[], (1, 1));
        sample.mint(milk, (2, 1), &[]);
        sample.got(&[milk], &[(2, 1)]);
        sample.stored(&[(1, 1)], (3, 1));
        sample.got(&[milk], &[(2, 1), (3, 1)]);
        sample.got(&[], &[(3, 1)]);
        assert_eq!(missed(&sample), None, "seen, or replaced by what was seen");
        let eggs = sample.stored(&[], (1, 2));
        sample.mint(eggs, (2, 2), &[]);
        let read = sample.got(&[], &[(1, 1), (3, 1)]);
        assert_eq!(missed(&sample), Some(vec![eggs, read]));
    }
}
