//! Writes that were applied and then replaced: a late retry of one must not bring it back.

use std::collections::VecDeque;

use bytes::Bytes;
use hashbrown::HashTable;

use crate::causality::Siblings;
use crate::id::OperationId;
use crate::storage::cost;
use crate::storage::log::Range;

/// Replaced writes that a shard remembers, the newest ones. Clients retry within a request's deadline, so
/// at ten thousand overwrites a second a shard remembers six times the longest default deadline.
pub const SUPERSEDED_MAX: usize = 64 * 1024;

/// The operation ids of versions that were replaced, up to a fixed number, oldest forgotten first.
#[derive(Debug)]
pub struct Superseded {
    known: HashTable<OperationId>,
    /// With the record of the log from which a restart would learn it; 0 if there is no log.
    order: VecDeque<(OperationId, u64)>,
    limit: usize,
}

impl Superseded {
    /// Remember at most `limit`.
    pub const fn new(limit: usize) -> Self {
        Self { known: HashTable::new(), order: VecDeque::new(), limit }
    }

    /// The same, with all the room that it may ever need: what is removed leaves marks in the table, so that it may double once.
    pub fn with_room(limit: usize) -> Self {
        Self { known: HashTable::with_capacity(2 * limit), order: VecDeque::with_capacity(limit), limit }
    }

    /// Was this write applied and replaced? Never true for a write without a name.
    pub fn contains(&self, operation: OperationId) -> bool {
        operation != OperationId::NONE
            && self.known.find(hash(operation), |known| *known == operation).is_some()
    }

    /// What it costs in memory, as the allocator gives it out.
    pub(super) fn memory(&self) -> usize {
        let order = self.order.capacity() * size_of::<(OperationId, u64)>();
        cost::allocated(self.known.allocation_size()) + cost::allocated(order)
    }

    /// Those that a restart would learn from these records, the oldest first: from now on it will from the one of this
    /// sequence, the next `per_record` of them from the one after that, and so on.
    pub fn move_to(&mut self, record: u64, per_record: usize, from: Range) -> Vec<OperationId> {
        let mut moved = Vec::new();
        for (operation, home) in self.order.iter_mut().filter(|(_, home)| from.contains(*home)) {
            *home = record + (moved.len() / per_record) as u64;
            moved.push(*operation);
        }
        moved
    }

    /// All that are remembered, the oldest first, each with its record of the log.
    pub(super) fn into_names(self) -> impl Iterator<Item = (OperationId, u64)> {
        self.order.into_iter()
    }

    /// These versions are about to be replaced, here or at whoever told of it, and a restart will learn it from this record
    /// of the log. True if any of them was news.
    pub fn remember(&mut self, gone: impl Iterator<Item = OperationId>, record: u64) -> bool {
        let mut is_news = false;
        for operation in gone {
            if operation != OperationId::NONE && !self.contains(operation) {
                self.add(operation, record);
                is_news = true;
            }
        }
        is_news
    }

    /// The key is forgotten, and all its versions with it: this record of the log says so, or will.
    pub(super) fn remember_all(&mut self, state: &Siblings<Bytes>, record: u64) {
        self.remember(state.versions().iter().map(|version| version.operation), record);
    }

    fn add(&mut self, operation: OperationId, record: u64) {
        if self.order.len() == self.limit
            && let Some((oldest, _)) = self.order.pop_front()
            && let Ok(slot) = self.known.find_entry(hash(oldest), |known| *known == oldest)
        {
            slot.remove();
        }
        self.known.insert_unique(hash(operation), operation, |known| hash(*known));
        self.order.push_back((operation, record));
    }
}

/// Sequences count up and clients are random: one multiplication spreads them over the table.
const fn hash(operation: OperationId) -> u64 {
    (operation.client ^ operation.sequence).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let operation = |sequence| OperationId { client: 1, sequence };
        let mut superseded = Superseded::new(3);
        (1..=4).for_each(|sequence| superseded.add(operation(sequence), sequence));
        let known: Vec<_> = (1..=4).filter(|&sequence| superseded.contains(operation(sequence))).collect();
        assert_eq!(known, [2, 3, 4]);
        assert!(!superseded.contains(OperationId::NONE));
    }

    #[test]
    fn what_is_moved_is_at_home_in_the_new_record() {
        let operation = |sequence| OperationId { client: 1, sequence };
        let mut superseded = Superseded::new(3);
        (1..=3).for_each(|sequence| superseded.add(operation(sequence), 10 * sequence));
        assert_eq!(superseded.move_to(40, 1, Range { first: 15, last: 25 }), [operation(2)]);
        assert_eq!(superseded.move_to(50, 1, Range { first: 15, last: 25 }), []);
        assert_eq!(superseded.move_to(50, 1, Range { first: 30, last: 40 }), [operation(2), operation(3)]);
        assert_eq!(
            superseded.move_to(60, 1, Range { first: 51, last: 51 }),
            [operation(3)],
            "it was in the second"
        );
    }
}
