//! What a round of reaping may forget of a partition (`rounds`): keys of which nothing but tombstones is left, and keys that tell of
//! many actors without a version.
//!
//! A key is ripe when it was the same at two looks. A look is a pass over a partition, and finds as many as several rounds take; it
//! begins behind the last key that was proposed. Where tombstones fill the memory, one look is enough, and so it is for many actors where
//! keys may be put out: how old a key is, is never what makes it safe to forget it.

use std::collections::BinaryHeap;

use ringmain_schema::epoch::Keys;
use ringmain_schema::limits::REAPED_KEYS_MAX;

use crate::causality::Siblings;
use crate::failpoint::Failpoints;
use crate::id::PartitionId;
use crate::pace::Claimant;
use crate::storage::{cost, digest, value_bytes};
use crate::time::{Now, WallTime};

use super::Shard;

/// Actors without a version of which a key may tell before it is worth a round.
const PRUNED_FROM: usize = 8;
/// Of the keys of a round so many may be ones to be pruned, however many wait to be reaped.
const PRUNED_PLACES: usize = 32;
/// Where there is a limit on memory, so many candidates of a partition are kept for the rounds to come; and of all partitions as many
/// as one part in so many of the limit holds.
const CANDIDATES_MAX: usize = 1024;
const CANDIDATE_SHARE: usize = 128;
/// A limit of which tombstones take one part in so many is in need of rounds.
const TOMBSTONE_SHARE: usize = 8;
/// Bytes' worth of looking at a key.
const LOOK_BYTES: usize = 4;
/// Bytes of values of the keys that are pruned in one round, beyond the first: each is written to the log anew, in one turn.
const PRUNED_BYTES_MAX: usize = 256 * 1024;

/// What might be forgotten of a partition: keys that are nothing but tombstones, and keys that tell of many actors.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// As they were when the partition was last looked at.
    seen: [Keys; 2],
    /// Those that had been so before, and have not been proposed since.
    pub(super) ripe: [Keys; 2],
    /// The next look begins at this token, round to it again: nobody stands in the way of all others for good.
    from: u64,
}

impl Candidates {
    /// The first that are ripe, as many as a round takes: a part of the places is for those that are pruned.
    pub(super) fn take_ripe(&mut self) -> [Keys; 2] {
        let [reaped, pruned] = &mut self.ripe;
        let places = REAPED_KEYS_MAX - pruned.len().min(PRUNED_PLACES);
        let reaped: Keys = reaped.drain(..reaped.len().min(places)).collect();
        let pruned: Keys = pruned.drain(..pruned.len().min(REAPED_KEYS_MAX - reaped.len())).collect();
        if let Some((last, _)) = reaped.last() {
            self.from = last.wrapping_add(1);
        }
        [reaped, pruned]
    }

    fn is_empty(&self) -> bool {
        self.seen.iter().chain(&self.ripe).all(Vec::is_empty)
    }

    fn memory(&self) -> usize {
        let keys = self.seen.iter().chain(&self.ripe);
        keys.map(|keys| cost::allocated(keys.capacity() * size_of::<(u64, u64)>())).sum()
    }
}

impl<F: Failpoints> Shard<F> {
    /// Do tombstones take so much of the memory that they should go as soon as they can? How old they are is of no account then.
    pub(super) fn is_pressed(&self) -> bool {
        let is_much = self.puts_keys_out() && self.pinned() > self.options.memory_max / TOMBSTONE_SHARE;
        self.is_bounded() && (is_much || self.is_above_rest())
    }

    /// Look what could be forgotten by now, and what of that was so at the last look already.
    pub(super) fn find_ripe(&mut self, now: Now, partition: PartitionId, is_early: bool) {
        let before = self.take_candidates(partition);
        let seen = self.forgettable(now, partition, is_early, before.from);
        let is_hurried = is_early || self.is_pressed();
        let mut ripe =
            if is_hurried { seen.clone() } else { seen.clone().map(|keys| same(keys, &before.seen)) };
        if self.puts_keys_out() {
            // Each time that a key is put out and written again it has one actor more, and it may never rest between two looks.
            ripe[1].clone_from(&seen[1]);
        }
        self.keep_candidates(partition, Candidates { seen, ripe, from: before.from });
    }

    pub(super) fn take_candidates(&mut self, partition: PartitionId) -> Candidates {
        let candidates = self.epochs.rounds.candidates.remove(&partition).unwrap_or_default();
        self.memory.candidates -= candidates.memory();
        candidates
    }

    pub(super) fn keep_candidates(&mut self, partition: PartitionId, candidates: Candidates) {
        self.take_candidates(partition);
        if !candidates.is_empty() {
            self.memory.candidates += candidates.memory();
            self.epochs.rounds.candidates.insert(partition, candidates);
        }
    }

    /// How many candidates of a partition are kept.
    fn candidates_max(&self) -> usize {
        let room = self.options.memory_max / CANDIDATE_SHARE;
        let left = room.saturating_sub(self.memory.candidates) / (2 * size_of::<(u64, u64)>());
        left.clamp(REAPED_KEYS_MAX, CANDIDATES_MAX.max(REAPED_KEYS_MAX))
    }

    /// Keys of which only tombstones are left, the first ones from a token on, and keys that tell of actors without a version. Where
    /// keys may be put out, so may those that have only expired: others may not have them any more.
    fn forgettable(&mut self, now: Now, partition: PartitionId, is_early: bool, from: u64) -> [Keys; 2] {
        let spare = if is_early { 1 } else { PRUNED_FROM };
        let most = self.candidates_max();
        let mut first: BinaryHeap<(u64, u64)> = BinaryHeap::new();
        let mut pruned = Keys::new();
        let mut bytes = 0;
        for entry in self.replica.index().partition(partition) {
            if !self.is_durable(entry.appended) {
                continue;
            }
            let (clock, versions) = (entry.state.clock(), entry.state.versions());
            if is_dead(&entry.state, now.wall) {
                if self.puts_keys_out() && !entry.state.is_deleted() {
                    continue;
                }
                let behind = entry.token.wrapping_sub(from);
                if first.len() < most || first.peek().is_some_and(|last| behind < last.0) {
                    first.push((behind, digest(entry.token, &entry.state)));
                }
                if first.len() > most {
                    first.pop();
                }
            } else if pruned.len() < REAPED_KEYS_MAX
                && clock.len() >= versions.len() + spare
                && entry.state.is_prunable()
            {
                bytes += value_bytes(&entry.state);
                if pruned.is_empty() || bytes <= PRUNED_BYTES_MAX {
                    pruned.push((entry.token, digest(entry.token, &entry.state)));
                }
            }
        }
        let looked_at = self.replica.index().keys_of(partition);
        self.pace.spent(Claimant::AntiEntropy, looked_at * LOOK_BYTES, 0);
        let first = first.into_sorted_vec().into_iter();
        [first.map(|(behind, hash)| (from.wrapping_add(behind), hash)).collect(), pruned]
    }
}

/// Is nothing left of a key but tombstones, by now?
pub(super) fn is_dead(state: &Siblings<bytes::Bytes>, now: WallTime) -> bool {
    let is_over = |expiry: Option<WallTime>| expiry.is_some_and(|expiry| expiry <= now);
    let mut versions = state.versions().iter();
    versions.all(|version| !version.content.is_value() || is_over(version.expiry))
}

/// Those of these keys that have been as they are since they were last looked at.
fn same(keys: Keys, before: &[Keys; 2]) -> Keys {
    let mut before = before.concat();
    before.sort_unstable();
    keys.into_iter().filter(|key| before.binary_search(key).is_ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_to_be_pruned_have_places_beside_those_to_be_reaped() {
        let many = |first: u64| (first..first + 200).map(|token| (token, 1)).collect::<Keys>();
        let mut candidates = Candidates { ripe: [many(0), many(1000)], ..Candidates::default() };
        let [reaped, pruned] = candidates.take_ripe();
        assert_eq!((reaped.len(), pruned.len()), (96, 32));
        assert_eq!(candidates.from, 96, "the next look begins behind whom nobody may agree with");
        let [reaped, pruned] = candidates.take_ripe();
        assert_eq!((reaped.first(), pruned.first()), (Some(&(96, 1)), Some(&(1032, 1))));
        candidates.ripe = [many(0), Keys::new()];
        assert_eq!(candidates.take_ripe().map(|keys| keys.len()), [128, 0]);
        candidates.ripe = [Keys::new(), many(0)];
        assert_eq!(candidates.take_ripe().map(|keys| keys.len()), [0, 128]);
    }
}
