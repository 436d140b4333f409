//! What a node has on stable storage, held against every acknowledgement.
//!
//! P1 begins with a fact that no client can see: at the moment when its client is told so, a write is on stable
//! storage on W nodes. Whether a crash shows the lie is a matter of luck; so each acknowledgement is looked at when it
//! is given.

use std::collections::{BTreeMap, BTreeSet};

use ringmain::causality::{Actor, VersionVector};
use ringmain::id::PartitionId;
use ringmain::membership::View;
use ringmain::shard::Record;
use ringmain_schema::peer::Replicate;

use super::World;
use super::departures::partition_of;
use super::watch::key_of;
use crate::checkers::{Promise, Violation};
use crate::history::{Key, Number};

/// What the records of one node's logs have seen of each key.
#[derive(Debug, Default)]
pub(super) struct Stable {
    seen: BTreeMap<Key, VersionVector>,
    /// Not covered by a sync yet, in the order of their appends.
    waiting: Vec<Waiting>,
}

/// A record on its way to stable storage.
#[derive(Debug)]
struct Waiting {
    shard: u16,
    /// In its shard's log.
    position: u64,
    key: Key,
    clock: VersionVector,
}

impl Stable {
    /// What is certain to be seen of a key after a crash.
    pub(super) fn seen_of(&self, key: Key) -> Option<&VersionVector> {
        self.seen.get(&key)
    }

    /// This partition's copies were given up. They may come back until that is on stable storage too; nobody may count on it.
    fn forget(&mut self, partition: PartitionId) {
        self.seen.retain(|key, _| partition_of(*key) != partition);
        self.waiting.retain(|waiting| partition_of(waiting.key) != partition);
    }

    /// All that the logs hold, when a process starts.
    pub(super) fn of<'a>(records: impl Iterator<Item = &'a Vec<u8>>) -> Self {
        let mut stable = Self::default();
        for record in records {
            match Record::parse(record) {
                Ok(Record::GivenUp(given_up)) => stable.forget(PartitionId(given_up.partition)),
                Ok(Record::Key(state)) => {
                    if let Some(key) = key_of(state.key) {
                        stable.seen.entry(key).or_default().merge(&seen_by(&state));
                    }
                }
                _ => {}
            }
        }
        stable
    }

    /// A record was appended to a shard's log.
    pub(super) fn on_append(&mut self, shard: u16, position: u64, record: &[u8]) {
        match Record::parse(record) {
            Ok(Record::GivenUp(given_up)) => self.forget(PartitionId(given_up.partition)),
            Ok(Record::Key(state)) => {
                if let Some(key) = key_of(state.key) {
                    self.waiting.push(Waiting { shard, position, key, clock: seen_by(&state) });
                }
            }
            _ => {}
        }
    }

    /// A shard's log is on stable storage up to here.
    pub(super) fn on_sync(&mut self, shard: u16, durable: u64) {
        let is_covered = |waiting: &mut Waiting| waiting.shard == shard && waiting.position <= durable;
        for Waiting { key, clock, .. } in self.waiting.extract_if(.., is_covered) {
            self.seen.entry(key).or_default().merge(&clock);
        }
    }
}

impl World {
    /// P1: what is acknowledged at W is on stable storage on W nodes, and in as many zones as were asked for, but for copies
    /// that were destroyed since, and keys that were put out.
    pub(super) fn check_stable(&mut self, number: Number) {
        let operation = self.history.get(number);
        let Some(write) = operation.acknowledged() else { return };
        let key = operation.key;
        if self.evicted.get(&key).is_some_and(|last| operation.invoked <= *last) {
            return;
        }
        // Fallbacks count too: what they keep for a primary is on their own disks.
        // So does a second process under a node's name, where that has taken it over.
        let machines = (0..self.plan.machines()).chain(self.plan.clone_at());
        let here = machines.filter(|&node| !self.nodes[node].is_gone && self.has_stable(node, number));
        let mut nodes: BTreeSet<usize> = here.map(|node| self.node_of(node)).collect();
        let holders = nodes.len();
        nodes.extend(self.destroyed_of(number));
        let zones = operation.zones;
        // A machine that takes another's place counts in that one's rack, wherever it stands; who has heard of it knows.
        let span = |view: &View| {
            nodes.iter().map(|&node| view.zone(self.id_of(node))).collect::<BTreeSet<_>>().len()
        };
        // By the view that knows of most; if nobody is up, nobody can tell.
        let spanned = self.views().map(|view| span(view)).max().unwrap_or(usize::MAX);
        let missed = if nodes.len() < usize::from(write) {
            Some(format!("W = {write} while {holders} nodes had it on stable storage"))
        } else if zones > 1 && spanned < usize::from(zones) {
            Some(format!("{zones} zones while it was on stable storage in {spanned}"))
        } else {
            None
        };
        if let Some(missed) = missed {
            let sentence = format!("#{} was acknowledged with {missed}", number.0);
            let (promise, operations) = (Promise::Durability, vec![number]);
            self.violation.get_or_insert(Violation { promise, key: Some(key), sentence, operations });
        }
    }

    /// Has this node the write, or what replaced it, where a crash leaves it? Without a log, memory is all there is.
    pub(super) fn has_stable(&self, node: usize, number: Number) -> bool {
        let key = self.history.get(number).key;
        let dots = self.dots.of_operation(number);
        if self.plan.durable {
            let seen = self.nodes[node].stable.seen.get(&key);
            let is_seen = seen.is_some_and(|seen| dots.iter().any(|dot| seen.covers(*dot)));
            return is_seen || self.was_reaped(key, dots);
        }
        let known = self.known_at(node, key).context();
        dots.iter().any(|dot| known.covers(*dot)) || self.was_reaped(key, dots)
    }
}

fn seen_by(state: &Replicate<'_>) -> VersionVector {
    let clock = state.state.clock();
    let entries = clock.map(|seen| (Actor { id: seen.id(), epoch: seen.epoch() }, seen.counter()));
    VersionVector::try_from_sorted(entries).expect("the core sorts its clocks")
}
