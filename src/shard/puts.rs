//! Writes: mint, append, send the whole state to the other primaries, answer at W.

use ringmain_schema::message::{ErrorAnswer, ErrorCode, Stored};
use ringmain_schema::peer::{Operation as WireOperation, ReplicateWriter};
use smallvec::SmallVec;

use crate::coordinator::{Basis, PutQuorum, PutVerdict};
use crate::failpoint::{Bug, Choice, Failpoints, Rare};
use crate::id::{ConnectionId, NodeId, OperationId};
use crate::replica::{Applied, Place, Refused, Replaced, Write, state_writer};
use crate::time::{Duration, Now};

use super::Shard;
use super::answer::Origin;
use super::io::Output;
use super::operations::{Nodes, Operation, Work};

impl<F: Failpoints> Shard<F> {
    /// Mint, append, send the whole state to the other primaries, answer at W.
    pub(super) fn coordinate_put(
        &mut self,
        now: Now,
        origin: Origin,
        place: Place<'_>,
        needed: u8,
        write: Write<'_>,
        budget: Duration,
        out: &mut Output,
    ) {
        let primaries: Nodes = self.view.primaries(place.partition).into();
        let mut told = self.reachable(now.monotonic, place.partition, &primaries);
        let healthy = told.len() + 1;
        if healthy < usize::from(needed) {
            self.failpoints.reached(Rare::TooFewReachable);
            return self.refuse_unavailable(out, origin, needed, healthy);
        }
        if self.failpoints.rare(Choice::SmallestQuorum) {
            told.truncate(usize::from(needed) - 1);
        }
        if self.operations.is_full() {
            return self.refuse_overloaded(out, origin, "too many requests under way: retry later");
        }
        let appended = self.next_append();
        let operation = write.operation;
        let (replaced, only) = match self.replica.coordinate(now, place, write, appended) {
            Ok(Applied::Now { replaced }) => {
                let replaced = on_the_wire(&replaced);
                self.append(place, &replaced, out);
                (replaced, None)
            }
            Ok(Applied::Before) => {
                self.counters.retries_recognised += 1;
                (SmallVec::new(), Some(operation))
            }
            Err(refused) => return self.refuse_write(out, origin, refused),
        };
        let context = self.context_of_only_version(now, place, only);
        if primaries.len() == 1 && !self.options.durable {
            return self.answer_stored(out, origin, &context, Basis::primaries(1));
        }
        let mut quorum = PutQuorum::new(needed, &primaries);
        let me = self.view.me;
        let is_told = |node: NodeId| node == me || told.iter().any(|(told, _)| *told == node);
        primaries.iter().filter(|&&node| !is_told(node)).for_each(|&node| quorum.on_failure(node));
        let work = Work::Put { quorum, context };
        let Some(key) = self.begin(origin, now.monotonic + budget, place, work, out) else { return };
        self.send_state(now, place, key, &replaced, &told, out);
        self.await_own_record(place, key);
        self.progress(now, key, false, out);
    }

    /// Send a key's whole state after a write, as one frame for all.
    fn send_state(
        &mut self,
        now: Now,
        place: Place<'_>,
        operation: u64,
        replaced: &[WireOperation],
        to: &[(NodeId, ConnectionId)],
        out: &mut Output,
    ) {
        let Some(entry) = self.replica.read(now, place) else { return };
        let replicate = ReplicateWriter {
            key: place.key,
            state: state_writer(&entry.state),
            ring: self.view.ring.hash(),
            partition_epoch: 0,
            repair: false,
            exchange: false,
            replaced,
        };
        let encoder = &mut self.encoder;
        out.deliver_to_all(to.iter().map(|(_, connection)| *connection), |bytes| {
            replicate.encode(encoder, operation, bytes);
        });
        to.iter().for_each(|(node, _)| self.detector.on_asked(now.monotonic, *node));
    }

    /// A context that covers the new version, if it is the only one: else it would cover versions that the
    /// client has not seen. To a retry, the new version is the one that it had left (`retried`), if that stands.
    fn context_of_only_version(
        &mut self,
        now: Now,
        place: Place<'_>,
        retried: Option<OperationId>,
    ) -> Vec<u8> {
        let mut context = Vec::new();
        if let Some(entry) = self.replica.read(now, place)
            && let [only] = entry.state.versions()
            && retried.is_none_or(|operation| only.operation == operation)
        {
            self.context_key.seal_clock(place.key, entry.state.clock(), &mut context);
        }
        context
    }

    /// `node` holds the write of this operation durably.
    pub(super) fn count_durable(&mut self, key: u64, node: NodeId) {
        if let Some(Operation { work: Work::Put { quorum, .. }, .. }) = self.operations.get_mut(key) {
            quorum.on_durable(node);
        }
    }

    pub(super) fn progress_put(&mut self, key: u64, verdict: PutVerdict, expired: bool, out: &mut Output) {
        let acks = match verdict {
            PutVerdict::Enough(basis) => {
                let Some(operation) = self.take_operation(key) else { return };
                let Work::Put { context, .. } = operation.work else { return };
                return self.answer_stored(out, operation.origin, &context, basis);
            }
            PutVerdict::Pending if !expired => return,
            PutVerdict::Missed { acks } => acks,
            PutVerdict::Pending => self.acks_of(key),
        };
        let Some(operation) = self.take_operation(key) else { return };
        let Work::Put { quorum, .. } = &operation.work else { return };
        self.failpoints.reached(Rare::QuorumMissed);
        if self.failpoints.planted(Bug::TimeoutIsFailure) && expired {
            return self.refuse_unavailable(out, operation.origin, quorum.needed(), usize::from(acks));
        }
        self.counters.maybe_applied += 1;
        let message = "fewer replicas than asked for have acknowledged: read it back, or retry";
        let error = ErrorAnswer {
            acks,
            needed: quorum.needed(),
            primaries: acks,
            nodes: acks,
            ..ErrorAnswer::new(ErrorCode::MaybeApplied, message)
        };
        self.answer_error(out, operation.origin, &error);
    }

    fn acks_of(&mut self, key: u64) -> u8 {
        match self.operations.get_mut(key).map(|operation| &operation.work) {
            Some(Work::Put { quorum, .. }) => quorum.acks(),
            _ => 0,
        }
    }

    fn answer_stored(&mut self, out: &mut Output, origin: Origin, context: &[u8], basis: Basis) {
        let stored =
            Stored { context, primaries: basis.primaries, fallbacks: basis.fallbacks, nodes: basis.nodes };
        self.answer(out, origin, |encoder, id, flags, bytes| stored.encode(encoder, id, flags, bytes));
    }

    fn refuse_unavailable(&mut self, out: &mut Output, origin: Origin, needed: u8, healthy: usize) {
        let message = format!(
            "{needed} replicas must hold the write, and {healthy} can be reached: nothing was written"
        );
        let error = ErrorAnswer { needed, ..ErrorAnswer::new(ErrorCode::Unavailable, &message) };
        self.answer_error(out, origin, &error);
    }

    fn refuse_write(&mut self, out: &mut Output, origin: Origin, refused: Refused) {
        self.failpoints.reached(Rare::SiblingsFull);
        let (code, limit, message) = match refused {
            Refused::TooManySiblings => (
                ErrorCode::TooManySiblings,
                crate::causality::SIBLINGS_MAX as u64,
                "the key has as many concurrent versions as it may: read it, merge them, and put the result with \
                 the read's context",
            ),
            Refused::TooLarge { limit } => (
                ErrorCode::TooLarge,
                limit as u64,
                "the key's concurrent versions together are too large: read it, merge them, and put the result \
                 with the read's context",
            ),
        };
        self.answer_error(out, origin, &ErrorAnswer { limit, ..ErrorAnswer::new(code, message) });
    }
}

fn on_the_wire(replaced: &Replaced) -> SmallVec<[WireOperation; 1]> {
    replaced.iter().map(|write| WireOperation::new(write.client, write.sequence)).collect()
}
