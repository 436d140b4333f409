//! Stopping a node: one word that every shard sees, and the agreement to leave.
//!
//! A shard leaves only when all are drained: until then a sibling may need its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::doorbell::Doorbell;

#[derive(Clone, Debug)]
pub(super) struct Stop {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    requested: AtomicBool,
    /// By shard.
    drained: Vec<AtomicBool>,
    doorbells: Vec<Doorbell>,
}

impl Stop {
    pub(super) fn new(doorbells: Vec<Doorbell>) -> Self {
        let drained = doorbells.iter().map(|_| AtomicBool::new(false)).collect();
        Self { shared: Arc::new(Shared { requested: AtomicBool::new(false), drained, doorbells }) }
    }

    /// Ask every shard to stop.
    pub(super) fn request(&self) {
        self.shared.requested.store(true, Ordering::Release);
        self.ring();
    }

    pub(super) fn is_requested(&self) -> bool {
        self.shared.requested.load(Ordering::Acquire)
    }

    /// Say whether this shard has answered all it accepted; true wakes the others, who may wait for it.
    pub(super) fn set_drained(&self, shard: usize, drained: bool) {
        let before = self.shared.drained[shard].swap(drained, Ordering::AcqRel);
        if drained && !before {
            self.ring();
        }
    }

    pub(super) fn all_drained(&self) -> bool {
        self.shared.drained.iter().all(|drained| drained.load(Ordering::Acquire))
    }

    fn ring(&self) {
        for doorbell in &self.shared.doorbells {
            doorbell.ring();
        }
    }
}
