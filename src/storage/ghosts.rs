//! Who was put out lately, by the hashes of keys: the oldest are forgotten first.
//!
//! It grows just when there is no room, so by small steps: the order is kept in blocks, and the hashes in many tables.

use std::collections::VecDeque;

use hashbrown::HashTable;

use super::cost;

/// Tables, by the last bits of a token.
const TABLES: usize = 64;
/// Tokens of a block.
const BLOCK: usize = 512;

/// Those that are remembered.
#[derive(Debug)]
pub(super) struct Ghosts {
    known: Box<[HashTable<u64>]>,
    /// What the tables cost.
    table_bytes: usize,
    order: Order,
}

impl Default for Ghosts {
    fn default() -> Self {
        let known = (0..TABLES).map(|_| HashTable::new()).collect();
        Self { known, table_bytes: 0, order: Order::default() }
    }
}

impl Ghosts {
    /// At most `limit` of them.
    pub(super) fn remember(&mut self, token: u64, limit: usize) {
        // Two for one that comes: when the limit has fallen far, it is reached step by step.
        for _ in 0..2 {
            if self.order.len < limit.max(1) {
                break;
            }
            let Some(oldest) = self.order.pop() else { break };
            self.forget(oldest);
        }
        let table = &mut self.known[table_of(token)];
        if table.find(spread(token), |known| *known == token).is_none() {
            let before = cost::allocated(table.allocation_size());
            table.insert_unique(spread(token), token, |token| spread(*token));
            self.table_bytes += cost::allocated(table.allocation_size()) - before;
            self.order.push(token);
        }
    }

    /// Was it known? In the order it stays, and goes in its turn.
    pub(super) fn forget(&mut self, token: u64) -> bool {
        let found = self.known[table_of(token)].find_entry(spread(token), |known| *known == token);
        found.map(hashbrown::hash_table::OccupiedEntry::remove).is_ok()
    }

    /// What it costs to keep all this, as the allocator gives it out.
    pub(super) fn memory(&self) -> usize {
        cost::allocated(TABLES * size_of::<HashTable<u64>>()) + self.table_bytes + self.order.memory()
    }
}

const fn table_of(token: u64) -> usize {
    token as usize % TABLES
}

/// Tokens are hashes; those of a shard share their top bits, from which a table takes its tags, and those of a table their
/// last ones.
const fn spread(token: u64) -> u64 {
    token.rotate_left(32)
}

/// Tokens in the order in which they came.
#[derive(Debug, Default)]
struct Order {
    blocks: VecDeque<Box<[u64; BLOCK]>>,
    /// Where the oldest is in the first block.
    first: usize,
    len: usize,
}

impl Order {
    fn push(&mut self, token: u64) {
        let at = self.first + self.len;
        if at == self.blocks.len() * BLOCK {
            self.blocks.push_back(Box::new([0; BLOCK]));
        }
        self.blocks[at / BLOCK][at % BLOCK] = token;
        self.len += 1;
    }

    fn pop(&mut self) -> Option<u64> {
        self.len = self.len.checked_sub(1)?;
        let token = self.blocks[0][self.first];
        self.first += 1;
        if self.first == BLOCK {
            self.first = 0;
            self.blocks.pop_front();
        }
        Some(token)
    }

    fn memory(&self) -> usize {
        let list = cost::allocated(self.blocks.capacity() * size_of::<Box<[u64; BLOCK]>>());
        list + self.blocks.len() * cost::allocated(BLOCK * size_of::<u64>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten_first() {
        let mut ghosts = Ghosts::default();
        (0..5000).for_each(|token| ghosts.remember(token, 2000));
        assert!(!ghosts.forget(2999) && ghosts.forget(3000) && ghosts.forget(4999));
        assert!(!ghosts.forget(3000), "once only");
        (0..10_000).for_each(|token| ghosts.remember(token, 10));
        assert_eq!((0..10_000).filter(|token| ghosts.forget(*token)).count(), 10);
        assert_eq!(ghosts.order.len, 10);
    }

    /// A step of growth is a small part of the whole.
    #[test]
    fn it_grows_by_small_steps() {
        let mut ghosts = Ghosts::default();
        let mut largest = 0;
        for token in 0..200_000u64 {
            let before = ghosts.memory();
            ghosts.remember(token.wrapping_mul(0x9e37_79b9_7f4a_7c15), usize::MAX);
            largest = largest.max(ghosts.memory() - before);
        }
        assert!(largest * 20 < ghosts.memory(), "{largest} of {}", ghosts.memory());
    }
}
