//! What a shard keeps in memory, and how much that is.
//!
//! Everything that grows with what others do is counted as it changes, by what the allocator gives out for it
//! ([`cost`]): the index with its keys and values, hash trees, hints, writes that are remembered for their retries, requests
//! under way, connections. What whoever runs the shard keeps for it (buffers, sockets, what of a log waits or is read) it says itself
//! ([`Input::Buffered`](super::Input::Buffered)). Not counted is what doesn't grow with keys, requests or
//! connections: the program, its threads' stacks, records of members, what is known of partitions' epochs and of the one exchange
//! under way.

use bytes::Bytes;
use ringmain_schema::peer::Operation as WireOperation;

use crate::causality::Siblings;
use crate::failpoint::Failpoints;
use crate::id::ConnectionId;
use crate::storage::cost;

use super::Shard;
use super::operations::{Pending, Work};
use super::sessions::Session;

/// What is counted elsewhere.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Of whoever runs the shard, as it last said.
    buffers: usize,
    /// Keys, states, contexts, frames and answers of requests under way, beside the tables' slots.
    pub(super) requests: usize,
    /// Keys that rounds of reaping may forget.
    pub(super) candidates: usize,
}

impl Memory {
    /// What connections take, and what is on its way, as whoever runs the shard last said.
    pub(super) const fn buffers(&self) -> usize {
        self.buffers
    }

    pub(super) const fn on_buffered(&mut self, bytes: usize) {
        self.buffers = bytes;
    }
}

/// A shard's memory, for people; in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemoryUse {
    /// Keys, values, clocks, tombstones, tables, and timers for what expires.
    pub index: usize,
    /// Hash trees of anti-entropy.
    pub trees: usize,
    /// Writes that are remembered for their retries.
    pub remembered: usize,
    /// What is kept for nodes that can't be reached.
    pub hints: usize,
    /// Requests under way, batches of them, and what rounds of reaping may forget.
    pub requests: usize,
    /// Connections, and what waits to be sent or is not whole yet.
    pub buffers: usize,
}

impl MemoryUse {
    /// All of it.
    pub const fn total(&self) -> usize {
        self.index + self.trees + self.remembered + self.hints + self.requests + self.buffers
    }
}

impl<F: Failpoints> Shard<F> {
    /// How much memory this shard takes now, as it counts it.
    pub fn memory(&self) -> MemoryUse {
        let [index, remembered] = self.replica.memory();
        let tables = self.operations.memory() + self.relays.memory() + self.batches.memory();
        let session = size_of::<(ConnectionId, Session)>();
        let sessions = self.sessions.len() * cost::map_slot(session) + cost::map_root(session);
        MemoryUse {
            index,
            trees: self.trees.memory(),
            remembered,
            hints: self.hints.store.memory(),
            requests: tables
                + self.loads.memory()
                + self.deadlines.memory()
                + self.memory.requests
                + self.memory.candidates,
            buffers: sessions + self.memory.buffers(),
        }
    }

    /// The same, as status shows it.
    pub(super) fn memory_gauges(&self) -> [(&'static str, u64); 10] {
        let memory = self.memory();
        [
            ("memory_bytes", memory.total()),
            ("memory_limit_bytes", self.options.memory_max),
            ("memory_index_bytes", memory.index),
            ("memory_tree_bytes", memory.trees),
            ("memory_remembered_bytes", memory.remembered),
            ("memory_hint_bytes", memory.hints),
            ("memory_request_bytes", memory.requests),
            ("memory_buffer_bytes", memory.buffers),
            ("memory_tombstone_bytes", if self.puts_keys_out() { self.pinned() } else { 0 }),
            ("memory_value_bytes", if self.puts_keys_out() { 0 } else { self.replica.index().seated() }),
        ]
        .map(|(name, bytes)| (name, bytes as u64))
    }
}

/// At most what a request under way keeps of its own when it begins, beside its slot. The values of this node's own copy count
/// here too: they may outlive their place in the index.
pub(super) fn of_request(key: &[u8], work: &Work) -> usize {
    let kept = match work {
        Work::Get { quorum, before, .. } => {
            let value = before.as_ref().and_then(|write| write.value.as_ref()).map_or(0, Bytes::len);
            let write = if before.is_some() { cost::allocated(size_of::<Pending>()) } else { 0 };
            of_answer(quorum.merged()) + write + cost::of_value(value)
        }
        Work::Put { context, replaced, .. } => {
            cost::allocated(context.capacity()) + cost::allocated(replaced.len() * size_of::<WireOperation>())
        }
    };
    cost::allocated(key.len()) + kept
}

/// What another replica's state of a key costs a read: it is kept, and merged with the others.
pub(super) fn of_answer(state: &Siblings<Bytes>) -> usize {
    let merged = state.allocations().map(cost::allocated);
    cost::of_state(state) + merged.iter().sum::<usize>()
}
