//! What ends by itself, and when.

use std::collections::BTreeSet;

use crate::id::ConnectionId;
use crate::storage::cost;
use crate::time::Instant;

/// Something with a deadline.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Due {
    /// An operation that this shard coordinates, by its key.
    Operation(u64),
    /// A request that was passed on, by its ticket.
    Relay(u64),
    /// An operator's word whose record is on its way to stable storage, by its number.
    Word(u64),
    /// A frame that waits for values from the disk, by its ticket.
    Parked(u64),
    /// The handshake of somebody who called.
    Hello(ConnectionId),
}

/// All deadlines, the nearest first.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    all: BTreeSet<(Instant, Due)>,
}

impl Deadlines {
    /// End `due` at `at`.
    pub(super) fn add(&mut self, at: Instant, due: Due) {
        self.all.insert((at, due));
    }

    /// It ended before.
    pub(super) fn remove(&mut self, at: Instant, due: Due) {
        self.all.remove(&(at, due));
    }

    /// The nearest one.
    pub(super) fn next(&self) -> Option<Instant> {
        self.all.first().map(|(at, _)| *at)
    }

    /// At most what they cost in memory.
    pub(super) fn memory(&self) -> usize {
        self.all.len() * cost::map_slot(size_of::<(Instant, Due)>())
    }

    /// The nearest one, if it has come.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Due> {
        self.all.first().filter(|(at, _)| *at <= now)?;
        self.all.pop_first().map(|(_, due)| due)
    }
}
