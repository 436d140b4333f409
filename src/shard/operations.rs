//! Requests that this shard coordinates: replicas told or asked, answers counted, one answer given.
//!
//! What reads and writes have in common lives here; `gets` and `puts` hold the rest of each.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::coordinator::{GetQuorum, Owners, PutQuorum};
use crate::failpoint::{Choice, Failpoints};
use crate::id::{ConnectionId, NodeId, OperationId, PartitionId};
use crate::membership::{Health, View};
use crate::replica::Place;
use crate::time::{Duration, Instant, Now, WallTime};

use super::Shard;
use super::answer::Origin;
use super::applying::WireOperations;
use super::deadlines::Due;
use super::fallbacks::{Missing, PATIENCE_SHARE};
use super::io::Output;
use super::links::LinkId;
use super::memory;
use super::puts::Asked;

/// A request under way.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) origin: Origin,
    pub(super) begun: Instant,
    pub(super) deadline: Instant,
    /// When it is looked at next: at its deadline, or before, to find fallbacks for the silent.
    pub(super) due: Instant,
    pub(super) key: Box<[u8]>,
    token: u64,
    pub(super) partition: PartitionId,
    /// The partition's, when what was told so far was told.
    pub(super) epoch: u64,
    pub(super) work: Work,
    /// What it keeps in memory beside its slot, at most.
    pub(super) cost: usize,
}

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a read keeps what each replica said; the table reuses its slots"
)]
pub(super) enum Work {
    Get {
        quorum: GetQuorum,
        latest: bool,
        answered: bool,
        /// A write that must know what the owners know of its key before it replaces all of that; nobody reads then.
        before: Option<Box<Pending>>,
    },
    /// `context` is what the answer will carry, `replaced` what a fallback is told too.
    Put {
        quorum: PutQuorum,
        context: Vec<u8>,
        replaced: WireOperations,
        /// This node is a fallback itself, and keeps the write for that primary.
        kept_for: Option<NodeId>,
    },
}

/// A write that has not been applied anywhere.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) asked: Asked,
    pub(super) value: Option<Bytes>,
    pub(super) expiry: Option<WallTime>,
    pub(super) operation: OperationId,
}

impl Operation {
    pub(super) fn place(&self) -> Place<'_> {
        Place { key: &self.key, token: self.token, partition: self.partition }
    }
}

/// Who owns a partition, as a view shows it.
pub(super) fn owners_of(view: &View, partition: PartitionId) -> Owners<'_> {
    Owners { primaries: view.primaries(partition), successors: view.successors(partition) }
}

/// A few nodes: the owners of a key.
pub(super) type Nodes = SmallVec<[NodeId; 4]>;

impl<F: Failpoints> Shard<F> {
    pub(super) fn begin(
        &mut self,
        origin: Origin,
        now: Instant,
        budget: Duration,
        place: Place<'_>,
        work: Work,
        out: &mut Output,
    ) -> Option<u64> {
        let Place { key, token, partition } = place;
        let is_before = matches!(work, Work::Get { before: Some(_), .. });
        let patience = if is_before { Duration(budget.0 / PATIENCE_SHARE) } else { self.patience(budget) };
        let (due, deadline) = (now + patience, now + budget);
        let (begun, epoch) = (now, self.epoch(partition));
        let (key, cost) = (key.into(), memory::of_request(key, &work));
        let operation = Operation { origin, begun, deadline, due, key, token, partition, epoch, work, cost };
        let Ok(key) = self.operations.insert(operation) else {
            self.refuse_overloaded(out, origin, "too many requests under way: retry later");
            return None;
        };
        self.memory.requests += cost;
        self.deadlines.add(due, Due::Operation(key));
        Some(key)
    }

    /// Who owns a partition, as this node sees it.
    pub(super) fn owners(&self, partition: PartitionId) -> Owners<'_> {
        owners_of(&self.view, partition)
    }

    /// Of these owners the others that are up, with the connection to the right shard of each. Nothing is sent to a
    /// suspected one: what it doesn't read would pile up here.
    pub(super) fn reachable(
        &self,
        now: Instant,
        partition: PartitionId,
        owners: &[NodeId],
    ) -> SmallVec<[(NodeId, ConnectionId); 4]> {
        let others = owners.iter().filter(|&&node| node != self.view.me);
        let up = others.filter(|&&node| self.detector.health(now, node) == Health::Up);
        let up = up.filter(|_| !self.failpoints.rare(Choice::SuspectedEarly));
        up.filter_map(|&node| Some((node, self.links.connection(self.link_to(node, partition)?)?))).collect()
    }

    /// `node` refused this operation, or is gone.
    pub(super) fn count_failure(&mut self, key: u64, node: NodeId) {
        match self.operations.get_mut(key).map(|operation| &mut operation.work) {
            Some(Work::Get { quorum, .. }) => quorum.on_failure(node),
            Some(Work::Put { quorum, .. }) => quorum.on_failure(node),
            None => {}
        }
    }

    /// `node` has no room for what it was sent.
    pub(super) fn count_declined(&mut self, key: u64, node: NodeId) {
        match self.operations.get_mut(key).map(|operation| &mut operation.work) {
            Some(Work::Get { quorum, .. }) => quorum.on_failure(node),
            Some(Work::Put { quorum, .. }) => quorum.on_declined(node),
            None => {}
        }
    }

    /// A link is gone, and with it the answers that were to come over it.
    pub(super) fn fail_operations(&mut self, now: Now, link: LinkId, out: &mut Output) {
        let under_way: Vec<u64> = self.operations.keys().collect();
        for key in under_way {
            let Some(partition) = self.operations.get_mut(key).map(|operation| operation.partition) else {
                continue;
            };
            if self.link_to(link.node, partition) == Some(link) {
                self.count_failure(key, link.node);
                self.stand_in(now, key, Missing::Lost, out);
                self.progress(now, key, false, out);
            }
        }
    }

    /// The deadline has come, or the time to find somebody for the silent.
    pub(super) fn on_operation_due(&mut self, now: Now, key: u64, out: &mut Output) {
        let Some(operation) = self.operations.get_mut(key) else { return };
        let expired = operation.deadline <= now.monotonic;
        if !expired {
            operation.due = operation.deadline;
            self.deadlines.add(operation.deadline, Due::Operation(key));
            self.stand_in(now, key, Missing::Silent, out);
        }
        self.progress(now, key, expired, out);
    }

    /// Look at an operation at this time instead.
    pub(super) fn end_at(&mut self, key: u64, deadline: Instant) {
        let Some(operation) = self.operations.get_mut(key) else { return };
        operation.deadline = deadline;
        let before = std::mem::replace(&mut operation.due, deadline);
        self.deadlines.remove(before, Due::Operation(key));
        self.deadlines.add(deadline, Due::Operation(key));
    }

    /// Decide by what is known, and answer if it is time. `expired`: this is the last chance.
    pub(super) fn progress(&mut self, now: Now, key: u64, expired: bool, out: &mut Output) {
        match self.operations.get_mut(key).map(|operation| &operation.work) {
            Some(Work::Get { quorum, answered: false, .. }) => {
                let verdict = quorum.verdict(expired);
                self.progress_get(now, key, verdict, expired, out);
            }
            Some(Work::Get { quorum, answered: true, .. }) if expired || quorum.is_settled() => {
                self.counters.operations_lingering -= 1;
                self.end_get(now, key, out);
            }
            Some(Work::Put { quorum, .. }) => {
                let verdict = quorum.verdict();
                self.progress_put(key, verdict, expired, out);
            }
            Some(Work::Get { answered: true, .. }) | None => {}
        }
    }

    /// Put the operation under another key: answers to what was asked under this one come too late.
    pub(super) fn rekey(&mut self, key: u64) -> Option<u64> {
        let operation = self.take_operation(key)?;
        self.memory.requests += operation.cost;
        let due = operation.due;
        let key = self.operations.insert(operation).expect("one has just left");
        self.deadlines.add(due, Due::Operation(key));
        Some(key)
    }

    pub(super) fn take_operation(&mut self, key: u64) -> Option<Operation> {
        let operation = self.operations.remove(key)?;
        self.memory.requests -= operation.cost;
        self.deadlines.remove(operation.due, Due::Operation(key));
        Some(operation)
    }
}
