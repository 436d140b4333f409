//! Compaction: what is still needed of old records is appended anew, so that their segment can be used again.
//!
//! Whoever runs the log names a range of sequences. All that this shard holds says which record covers it last
//! (`appended`); what is covered by a record of the range is appended again, as it is now, under a new sequence. When all was
//! looked at, the range is told as compacted, and may go once the last of the new records is durable. A tombstone is a
//! state like another. What says that something is gone is not copied: its segment goes only when nothing older is left
//! ([`Liveness`](crate::storage::log::Liveness)). Names of replaced writes are written once more if a restart would have learned
//! them from a record of the range.
//!
//! A crash at any moment leaves the old records, or both: the last one counts, so it does no harm that they are there twice.

use ringmain_schema::peer::{Operation as WireOperation, ReplicateWriter};

use crate::failpoint::{Bug, Failpoints, Rare};
use crate::id::{NodeId, OperationId, PartitionId};
use crate::pace::Claimant;
use crate::storage::log::Range;
use crate::time::{Duration, Instant, Now};

use super::Shard;
use super::io::{Append, Compacted, LogState, Output};

/// Look again so long after the log was found behind.
const BEHIND_PAUSE: Duration = Duration::from_millis(10);
/// Keys that are appended anew in one step: as many of one partition, and of those before it fewer,
const STEP_KEYS: usize = 64;
/// and that are looked at, unless one partition has more of them. A partition that has none counts as one.
const STEP_LOOKS: usize = 1024;
/// Names of replaced writes in one record.
const NAMES_PER_RECORD: usize = 512;

/// A range of the log that is being compacted.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    under_way: Option<UnderWay>,
}

#[derive(Debug)]
struct UnderWay {
    range: Range,
    /// All before it are done.
    partition: u32,
    /// Ask for the budget again then.
    next: Instant,
}

impl<F: Failpoints> Shard<F> {
    /// Append anew what is still needed of these records.
    ///
    /// # Panics
    ///
    /// If the last range was not told as compacted.
    pub(super) fn on_compact(&mut self, now: Now, range: Range) {
        assert!(self.compaction.under_way.is_none(), "one range after the other");
        self.compaction.under_way = Some(UnderWay { range, partition: 0, next: now.monotonic });
    }

    /// When to go on.
    pub(super) fn next_compaction(&self) -> Option<Instant> {
        let under_way = self.compaction.under_way.as_ref().filter(|_| self.log_state() != LogState::Failed);
        under_way.map(|under_way| under_way.next)
    }

    /// Go on, as far as the budget goes: one step a turn.
    pub(super) fn tend_compaction(&mut self, now: Now, out: &mut Output) {
        let Some(under_way) = &self.compaction.under_way else { return };
        if under_way.next > now.monotonic || self.log_state() == LogState::Failed {
            return;
        }
        let (range, partition) = (under_way.range, under_way.partition);
        let is_behind = self.log_state() == LogState::Behind;
        let may = !is_behind && self.may_spend(Claimant::Compaction, now);
        let mut done = partition;
        if may {
            let before = out.bytes.len();
            let keys = if partition < self.view.ring.partitions().count() {
                let (first, keys) = self.append_partitions_anew(partition, range, out);
                done = first;
                keys
            } else {
                let keys = self.append_hints_anew(range, out);
                if keys < STEP_KEYS {
                    return self.end_compaction(range, out);
                }
                keys
            };
            self.pace.spent(Claimant::Compaction, out.bytes.len() - before, keys);
        }
        let next = match (may, is_behind) {
            (true, _) => now.monotonic,
            (false, true) => now.monotonic + BEHIND_PAUSE,
            (false, false) => self.ready_at(Claimant::Compaction, now),
        };
        self.compaction.under_way = Some(UnderWay { range, partition: done, next });
    }

    /// From this partition on, as many as fit into a step: the first that is not done, and how many keys were appended.
    fn append_partitions_anew(&mut self, first: u32, range: Range, out: &mut Output) -> (u32, usize) {
        let (mut keys, mut looks) = (0, 0);
        for partition in (first..self.view.ring.partitions().count()).map(PartitionId) {
            let before = keys;
            looks += self.replica.index().keys_of(partition).max(1);
            keys += self.append_epoch_anew(partition, range, out);
            keys += self.append_partition_anew(partition, range, out);
            if keys - before >= STEP_KEYS {
                // There may be more of them.
                return (partition.0, keys);
            }
            if keys >= STEP_KEYS || looks >= STEP_LOOKS {
                return (partition.0 + 1, keys);
            }
        }
        (self.view.ring.partitions().count(), keys)
    }

    /// How many were.
    fn append_partition_anew(&mut self, partition: PartitionId, range: Range, out: &mut Output) -> usize {
        let forgets = self.failpoints.planted(Bug::CompactionDropsTombstones);
        let entries = self.replica.index().partition(partition);
        let is_needed = |entry: &&crate::storage::Entry| {
            range.contains(entry.appended) && !(forgets && entry.state.values().next().is_none())
        };
        let keys: Vec<Box<[u8]>> =
            entries.filter(is_needed).take(STEP_KEYS).map(|entry| entry.key.clone()).collect();
        for key in &keys {
            let place = self.place(key);
            self.replica.cover(place, self.next_append());
            self.append(place, &[], out);
        }
        keys.len()
    }

    fn append_hints_anew(&mut self, range: Range, out: &mut Output) -> usize {
        let hints: Vec<(NodeId, Box<[u8]>)> =
            self.hints.store.covered_by(range.first, range.last).take(STEP_KEYS).collect();
        for (target, key) in &hints {
            self.hints.store.cover(*target, key, self.next_append());
            self.append_hint(*target, self.place(key), &[], out);
        }
        hints.len()
    }

    /// What is neither a key nor a hint, and the word that all is done.
    fn end_compaction(&mut self, range: Range, out: &mut Output) {
        if range.contains(self.appends.members) {
            self.append_members(out);
        }
        self.append_beginnings_anew(range, out);
        // All in one turn: their records are the next, and no other comes between.
        let replaced = self.replica.move_replaced(self.next_append(), NAMES_PER_RECORD, range);
        self.append_names(&replaced, false, out);
        let lost = self.replica.move_lost(self.next_append(), NAMES_PER_RECORD, range);
        self.append_names(&lost, true, out);
        self.failpoints.reached(Rare::Compacted);
        self.counters.compactions += 1;
        self.compaction.under_way = None;
        out.compacted = Some(Compacted { range, through: self.last_append() });
    }

    /// Names of writes that were replaced, or of which what they had left is lost.
    fn append_names(&mut self, names: &[OperationId], are_lost: bool, out: &mut Output) {
        for names in names.chunks(NAMES_PER_RECORD) {
            let names: Vec<WireOperation> =
                names.iter().map(|name| WireOperation::new(name.client, name.sequence)).collect();
            let sequence = self.take_append();
            let record = ReplicateWriter { repair: are_lost, replaced: &names, ..ReplicateWriter::default() };
            let start = out.bytes.len();
            record.encode(&mut self.encoder, 0, &mut out.bytes);
            out.appends.push(Append { sequence, record: start..out.bytes.len(), is_marker: false });
            // No key's, and not counted: they are few.
            out.dead.push(sequence);
        }
    }
}
