//! Partitions' epochs in the log (docs/adr/0013).
//!
//! All that a shard knows of the epoch of one partition is in one record, the last one of which counts; so are the beginnings
//! that it has noted. What was forgotten in a raise leaves records behind the raise's own which say so: of each key
//! that was reaped, of each hint, and one of all copies if they were wiped. They are markers: a segment that holds one goes
//! when nothing older is left that it ends.
//!
//! A crash may leave the raise and lose these. Whoever reads the log finds what they were, since the raise names it, and
//! writes them anew: otherwise what they end would be back when the raise's own record has been compacted.

use std::collections::{BTreeMap, BTreeSet};

use ringmain_schema::departure::GivenUp;
use ringmain_schema::epoch::{Beginnings, Epoch};
use ringmain_schema::peer::ReplicateWriter;

use crate::failpoint::Failpoints;
use crate::id::{NodeId, PartitionId};
use crate::storage::log::Range;
use crate::time::Now;

use super::Shard;
use super::appends::Waiter;
use super::io::{Append, Output};

/// What a log that is being read has said is gone, by records that name it, and not yet by those that end it.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    keys: BTreeMap<Box<[u8]>, PartitionId>,
    hints: BTreeSet<(NodeId, Box<[u8]>)>,
    /// Of which actors without a version are forgotten.
    pruned: BTreeSet<Box<[u8]>>,
    /// In which epoch hints were kept that are still there.
    kept_in: BTreeMap<(NodeId, Box<[u8]>), u64>,
    /// Records are missing: what they had ended may be back. The log says so itself from then on, until the others were met: the
    /// damage is soon compacted.
    pub(super) is_doubtful: bool,
    /// The log doesn't say so yet.
    pub(super) is_doubt_news: bool,
}

impl Recovered {
    /// A record said how it is with this key from there on.
    pub(super) fn on_key(&mut self, key: &[u8]) {
        self.keys.remove(key);
        self.pruned.remove(key);
    }

    /// The same of a hint.
    pub(super) fn on_hint(&mut self, target: NodeId, key: &[u8]) {
        if !self.hints.is_empty() || !self.kept_in.is_empty() {
            let hint = (target, key.into());
            self.hints.remove(&hint);
            self.kept_in.remove(&hint);
        }
    }

    /// A hint was kept in this epoch.
    pub(super) fn note_hint(&mut self, target: NodeId, key: &[u8], epoch: u64) {
        self.kept_in.insert((target, key.into()), epoch);
    }

    /// No record before says what is held of this partition.
    pub(super) fn on_given_up(&mut self, partition: PartitionId) {
        self.keys.retain(|_, of| *of != partition);
    }
}

impl<F: Failpoints> Shard<F> {
    /// Write all that is known of a partition's epoch to the log, if there is one.
    pub(super) fn record_epoch(&mut self, partition: PartitionId, out: &mut Output) {
        let sequence = if self.options.durable { self.take_append() } else { 0 };
        let known = self.epochs.known_mut(partition);
        let before = std::mem::replace(&mut known.recorded, sequence);
        if sequence > 0 {
            let start = out.bytes.len();
            known.epoch.encode(&mut self.encoder, 0, &mut out.bytes);
            out.appends.push(Append { sequence, record: start..out.bytes.len(), is_marker: false });
            out.dead.extend(Some(before).filter(|before| *before != 0));
        }
        // It was so when it was written.
        known.epoch.wiped = false;
        self.epochs.note(partition);
    }

    /// Is the last record about a partition's epoch on stable storage?
    pub(super) fn is_recorded(&self, partition: PartitionId) -> bool {
        self.is_durable(self.epochs.known(partition).map_or(0, |known| known.recorded))
    }

    /// When the last record about a partition's epoch is on stable storage.
    pub(super) fn when_recorded(
        &mut self,
        now: Now,
        partition: PartitionId,
        waiter: Waiter,
        out: &mut Output,
    ) {
        let recorded = self.epochs.known(partition).map_or(0, |known| known.recorded);
        self.when_durable(now, recorded, waiter, out);
    }

    /// Write the beginnings that were noted to the log, if there is one.
    pub(super) fn record_beginnings(&mut self, out: &mut Output) {
        if !self.options.durable {
            return;
        }
        let sequence = self.take_append();
        let noted = self.epochs.beginnings.iter().map(|(node, beginning)| (node.0, *beginning));
        let noted = Beginnings { noted: noted.collect(), doubtful: self.epochs.recovered.is_doubtful };
        let start = out.bytes.len();
        noted.encode(&mut self.encoder, &mut out.bytes);
        out.appends.push(Append { sequence, record: start..out.bytes.len(), is_marker: false });
        let before = std::mem::replace(&mut self.epochs.beginnings_recorded, sequence);
        out.dead.extend(Some(before).filter(|before| *before != 0));
    }

    /// A key is forgotten.
    pub(super) fn append_gone(&mut self, key: &[u8], out: &mut Output) {
        if !self.options.durable {
            return;
        }
        let sequence = self.take_append();
        let record = ReplicateWriter { key, ..ReplicateWriter::default() };
        let start = out.bytes.len();
        record.encode(&mut self.encoder, 0, &mut out.bytes);
        out.appends.push(Append { sequence, record: start..out.bytes.len(), is_marker: true });
    }

    /// No record before this one says what is held of this partition. Its sequence; 0 if there is no log.
    pub(super) fn append_given_up(&mut self, partition: PartitionId, wiped: bool, out: &mut Output) -> u64 {
        if !self.options.durable {
            return 0;
        }
        let sequence = self.take_append();
        let start = out.bytes.len();
        GivenUp { partition: partition.0, wiped }.encode(&mut self.encoder, &mut out.bytes);
        out.appends.push(Append { sequence, record: start..out.bytes.len(), is_marker: true });
        sequence
    }

    /// These records are about to go: append anew what is needed of them. How many were.
    pub(super) fn append_epoch_anew(
        &mut self,
        partition: PartitionId,
        range: Range,
        out: &mut Output,
    ) -> usize {
        let is_needed = self.epochs.known(partition).is_some_and(|known| range.contains(known.recorded));
        if is_needed {
            self.record_epoch(partition, out);
        }
        usize::from(is_needed)
    }

    /// The same of the beginnings that were noted.
    pub(super) fn append_beginnings_anew(&mut self, range: Range, out: &mut Output) {
        if range.contains(self.epochs.beginnings_recorded) {
            self.record_beginnings(out);
        }
    }

    /// From the log, before the first input.
    pub(super) fn recover_epoch(&mut self, told: &Epoch, sequence: u64) {
        let partition = PartitionId(told.partition);
        if told.partition >= self.trees.partitions() || !self.is_mine(partition) {
            return self.replica.note_dead(sequence);
        }
        if told.wiped {
            self.recover_wiped(partition);
        } else if told.epoch > self.epoch(partition) {
            for (token, hash) in &told.reaped {
                let gone = self.replica.reap(partition, *token, *hash);
                self.epochs.recovered.keys.extend(gone.into_iter().map(|entry| (entry.key, partition)));
            }
            for (token, hash) in &told.pruned {
                let pruned = self.replica.prune(partition, *token, *hash);
                self.epochs.recovered.pruned.extend(pruned);
            }
            // No hint outlives a raise: the record that ended it is missing.
            self.recover_without_hints(partition, told.epoch);
        }
        self.keep_trees();
        let known = self.epochs.known_mut(partition);
        known.epoch = Epoch { wiped: false, ..told.clone() };
        let before = std::mem::replace(&mut known.recorded, sequence);
        self.replica.note_dead(before);
        self.epochs.note(partition);
    }

    fn recover_wiped(&mut self, partition: PartitionId) {
        let gone = self.replica.wipe(partition, false);
        self.epochs.recovered.keys.extend(gone.into_iter().map(|entry| (entry.key, partition)));
        self.recover_without_hints(partition, u64::MAX);
    }

    /// Hints of an epoch before this one are gone.
    fn recover_without_hints(&mut self, partition: PartitionId, epoch: u64) {
        for hint in self.hints.store.of_partition(partition) {
            if self.epochs.recovered.kept_in.get(&hint).is_some_and(|kept_in| *kept_in < epoch) {
                let (target, key) = &hint;
                self.remember_lost_hint(*target, key);
                self.hints.store.forget(*target, key);
                self.epochs.recovered.kept_in.remove(&hint);
                self.epochs.recovered.hints.insert(hint);
            }
        }
    }

    /// The same of beginnings that were noted.
    pub(super) fn recover_beginnings(&mut self, noted: &Beginnings, sequence: u64) {
        self.epochs.recovered.is_doubtful = noted.doubtful;
        for (node, beginning) in &noted.noted {
            let known = self.epochs.beginnings.entry(NodeId(*node)).or_default();
            *known = (*known).max(*beginning);
        }
        let before = std::mem::replace(&mut self.epochs.beginnings_recorded, sequence);
        self.replica.note_dead(before);
    }

    /// With the first input: what the log has said is gone must stay so when the record which says it is no more.
    pub(super) fn end_what_was_gone(&mut self, out: &mut Output) {
        if std::mem::take(&mut self.epochs.recovered.is_doubt_news) {
            self.record_beginnings(out);
        }
        for key in std::mem::take(&mut self.epochs.recovered.keys).into_keys() {
            self.append_gone(&key, out);
        }
        for key in std::mem::take(&mut self.epochs.recovered.pruned) {
            let place = self.place(&key);
            if self.replica.index().find(place.partition, place.token, place.key).is_some() {
                self.append_anew(place, out);
            }
        }
        self.epochs.recovered.kept_in.clear();
        for (target, key) in std::mem::take(&mut self.epochs.recovered.hints) {
            self.append_hint(target, self.place(&key), &[], out);
        }
    }
}
