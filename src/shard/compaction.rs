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
/// Keys that are appended anew in one step,
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

/// A step of it.
#[derive(Clone, Copy, Debug)]
struct Done {
    /// The first partition that is not done.
    done: u32,
    /// So many keys were appended.
    keys: usize,
    /// Of that partition, others have to be read from the disk first.
    waits: bool,
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
        let (mut done, mut waits) = (partition, false);
        if may {
            let before = out.bytes.len();
            let keys = if partition < self.view.ring.partitions().count() {
                let step = self.append_partitions_anew(partition, range, out);
                (done, waits) = (step.done, step.waits);
                step.keys
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
            // What is read from the disk goes on by itself.
            (true, _) if waits => now.monotonic + BEHIND_PAUSE,
            (true, _) => now.monotonic,
            (false, true) => now.monotonic + BEHIND_PAUSE,
            (false, false) => self.ready_at(Claimant::Compaction, now),
        };
        self.compaction.under_way = Some(UnderWay { range, partition: done, next });
    }

    /// All that had to be read from the disk for a compaction is appended: go on.
    pub(super) fn wake_compaction(&mut self, now: Now) {
        if self.loads.anew() == 0
            && let Some(under_way) = &mut self.compaction.under_way
        {
            under_way.next = under_way.next.min(now.monotonic);
        }
    }

    /// From this partition on, as many as fit into a step.
    fn append_partitions_anew(&mut self, first: u32, range: Range, out: &mut Output) -> Done {
        let (mut keys, mut looks) = (0, 0);
        for partition in (first..self.view.ring.partitions().count()).map(PartitionId) {
            let before = keys;
            looks += self.replica.index().keys_of(partition).max(1);
            keys += self.append_epoch_anew(partition, range, out);
            let (appended, waits) = self.append_partition_anew(partition, range, out);
            keys += appended;
            if waits || keys - before >= STEP_KEYS {
                // There may be more of them, and there are if some have to be read first.
                return Done { done: partition.0, keys, waits };
            }
            if keys >= STEP_KEYS || looks >= STEP_LOOKS {
                return Done { done: partition.0 + 1, keys, waits: false };
            }
        }
        Done { done: self.view.ring.partitions().count(), keys, waits: false }
    }

    /// How many were, and whether others have to be read from the disk first.
    fn append_partition_anew(
        &mut self,
        partition: PartitionId,
        range: Range,
        out: &mut Output,
    ) -> (usize, bool) {
        let forgets = self.failpoints.planted(Bug::CompactionDropsTombstones);
        let entries = self.replica.index().partition(partition);
        let is_needed = |entry: &&crate::storage::Entry| {
            range.contains(entry.appended) && !(forgets && entry.state.values().next().is_none())
        };
        let keys: Vec<Box<[u8]>> =
            entries.filter(is_needed).take(STEP_KEYS).map(|entry| entry.key.clone()).collect();
        let (mut appended, mut waits) = (0, false);
        for key in &keys {
            let place = self.place(key);
            if self.is_cold(place) {
                // If too many are being read, it comes up again.
                self.append_anew(place, out);
                waits = true;
            } else {
                self.append_anew(place, out);
                appended += 1;
            }
        }
        (appended, waits)
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
