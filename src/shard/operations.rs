//! Requests that this shard coordinates: replicas told or asked, answers counted, one answer given.

use std::collections::VecDeque;

use bytes::Bytes;
use ringmain_schema::message::{ErrorAnswer, ErrorCode, Stored};
use ringmain_schema::peer::{Operation as WireOperation, ReadState, ReplicateWriter};
use smallvec::SmallVec;

use crate::causality::{Siblings, VersionVector};
use crate::coordinator::{Basis, GetQuorum, GetVerdict, PutQuorum, PutVerdict};
use crate::id::{ConnectionId, NodeId, OperationId, PartitionId};
use crate::membership::Health;
use crate::replica::{Applied, Place, Refused, Replaced, Write, state_writer};
use crate::time::{Duration, Instant, Now};

use super::Shard;
use super::answer::Origin;
use super::deadlines::Due;
use super::io::{Append, Output};
use super::links::LinkId;

/// A read that is answered waits so long for the last replicas, to repair them.
const LINGER: Duration = Duration::from_millis(100);

/// A request under way.
#[derive(Debug)]
pub(super) struct Operation {
    origin: Origin,
    deadline: Instant,
    key: Box<[u8]>,
    token: u64,
    partition: PartitionId,
    work: Work,
}

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a read keeps what each replica said; the table reuses its slots"
)]
enum Work {
    Get {
        quorum: GetQuorum,
        latest: bool,
        answered: bool,
    },
    /// `context` is what the answer will carry.
    Put {
        quorum: PutQuorum,
        context: Vec<u8>,
    },
}

impl Operation {
    fn place(&self) -> Place<'_> {
        Place { key: &self.key, token: self.token, partition: self.partition }
    }
}

/// Records on their way to stable storage, and who waits for them.
#[derive(Debug, Default)]
pub(super) struct Appends {
    /// The last one asked for.
    last: u64,
    /// The last one known to be there.
    durable: u64,
    /// In the order of their records.
    waiting: VecDeque<(u64, Waiter)>,
}

/// Who waits for a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Waiter {
    /// A write that this shard coordinates.
    Operation(u64),
    /// A peer that sent a state.
    Peer { connection: ConnectionId, request_id: u64 },
}

type Nodes = SmallVec<[NodeId; 4]>;

impl Shard {
    /// Ask all primaries, merge, answer at R.
    #[expect(clippy::too_many_arguments, reason = "a request's own settings, each used once")]
    pub(super) fn coordinate_get(
        &mut self,
        now: Now,
        origin: Origin,
        place: Place<'_>,
        needed: u8,
        at_least: VersionVector,
        latest: bool,
        budget: Duration,
        out: &mut Output,
    ) {
        let primaries: Nodes = self.view.primaries(place.partition).into();
        let mine = self.replica.read(now, place).map(|entry| entry.state.clone()).unwrap_or_default();
        let complete = self.view.myself().oneself.complete;
        if primaries.len() == 1 {
            // Nobody else to ask: whatever is here is all there is.
            return self.answer_state(out, origin, place.key, &mine, latest, Basis::primaries(1));
        }
        let mut quorum = GetQuorum::new(needed, at_least, &primaries);
        quorum.on_state(self.view.me, mine, complete);
        let asked = self.reachable(now.monotonic, place.partition, &primaries);
        let me = self.view.me;
        let is_asked = |node: NodeId| node == me || asked.iter().any(|(asked, _)| *asked == node);
        primaries.iter().filter(|&&node| !is_asked(node)).for_each(|&node| quorum.on_failure(node));
        let deadline = now.monotonic + budget;
        let work = Work::Get { quorum, latest, answered: false };
        let Some(key) = self.begin(origin, deadline, place, work, out) else { return };
        let request = ReadState { key: place.key, ring: self.view.ring.hash(), partition_epoch: 0 };
        let encoder = &mut self.encoder;
        out.deliver_to_all(asked.iter().map(|(_, connection)| *connection), |bytes| {
            request.encode(encoder, key, bytes);
        });
        for (node, _) in asked {
            self.detector.on_asked(now.monotonic, node);
        }
        self.progress(now, key, false, out);
    }

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
        let told = self.reachable(now.monotonic, place.partition, &primaries);
        let healthy = told.len() + 1;
        if healthy < usize::from(needed) {
            return self.refuse_unavailable(out, origin, needed, healthy);
        }
        if self.operations.is_full() {
            return self.refuse_overloaded(out, origin, "too many requests under way: retry later");
        }
        let appended = if self.options.durable { self.appends.last + 1 } else { 0 };
        let operation = write.operation;
        let (replaced, only) = match self.replica.coordinate(now, place, write, appended) {
            Ok(Applied::Now { replaced }) => {
                self.append(place, out);
                (replaced, None)
            }
            Ok(Applied::Before) => {
                self.counters.retries_recognised += 1;
                (Replaced::new(), Some(operation))
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

    fn begin(
        &mut self,
        origin: Origin,
        deadline: Instant,
        place: Place<'_>,
        work: Work,
        out: &mut Output,
    ) -> Option<u64> {
        let Place { key, token, partition } = place;
        let operation = Operation { origin, deadline, key: key.into(), token, partition, work };
        let Ok(key) = self.operations.insert(operation) else {
            self.refuse_overloaded(out, origin, "too many requests under way: retry later");
            return None;
        };
        self.deadlines.add(deadline, Due::Operation(key));
        Some(key)
    }

    /// The other primaries that are up, with the connection to the right shard of each. Nothing is sent to a
    /// suspected one: what it doesn't read would pile up here.
    fn reachable(
        &self,
        now: Instant,
        partition: PartitionId,
        primaries: &[NodeId],
    ) -> SmallVec<[(NodeId, ConnectionId); 4]> {
        let others = primaries.iter().filter(|&&node| node != self.view.me);
        let up = others.filter(|&&node| self.detector.health(now, node) == Health::Up);
        up.filter_map(|&node| Some((node, self.links.connection(self.link_to(node, partition)?)?))).collect()
    }

    /// Send a key's whole state after a write, as one frame for all.
    fn send_state(
        &mut self,
        now: Now,
        place: Place<'_>,
        operation: u64,
        replaced: &[OperationId],
        to: &[(NodeId, ConnectionId)],
        out: &mut Output,
    ) {
        let replaced = replaced.iter().map(|write| WireOperation::new(write.client, write.sequence));
        let replaced: SmallVec<[_; 1]> = replaced.collect();
        let Some(entry) = self.replica.read(now, place) else { return };
        let replicate = ReplicateWriter {
            key: place.key,
            state: state_writer(&entry.state),
            ring: self.view.ring.hash(),
            partition_epoch: 0,
            repair: false,
            replaced: &replaced,
        };
        let encoder = &mut self.encoder;
        out.deliver_to_all(to.iter().map(|(_, connection)| *connection), |bytes| {
            replicate.encode(encoder, operation, bytes);
        });
        to.iter().for_each(|(node, _)| self.detector.on_asked(now.monotonic, *node));
    }

    /// Send a key's whole state to replicas that lack some of it. Nobody waits for their answers.
    fn send_repair(&mut self, now: Now, place: Place<'_>, to: &[(NodeId, ConnectionId)], out: &mut Output) {
        let Some(entry) = self.replica.read(now, place) else { return };
        let replicate = ReplicateWriter {
            key: place.key,
            state: state_writer(&entry.state),
            ring: self.view.ring.hash(),
            partition_epoch: 0,
            repair: true,
            replaced: &[],
        };
        let encoder = &mut self.encoder;
        out.deliver_to_all(to.iter().map(|(_, connection)| *connection), |bytes| {
            replicate.encode(encoder, 0, bytes);
        });
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

    /// Write the key's state to the log, if there is one.
    pub(super) fn append(&mut self, place: Place<'_>, out: &mut Output) {
        if !self.options.durable {
            return;
        }
        self.appends.last += 1;
        let index = self.replica.index();
        let entry = index.find(place.partition, place.token, place.key).expect("what was written is there");
        debug_assert_eq!(entry.appended, self.appends.last);
        let record = ReplicateWriter {
            key: place.key,
            state: state_writer(&entry.state),
            ring: 0,
            partition_epoch: 0,
            repair: false,
            replaced: &[],
        };
        let start = out.bytes.len();
        record.encode(&mut self.encoder, 0, &mut out.bytes);
        out.appends.push(Append { sequence: self.appends.last, record: start..out.bytes.len() });
    }

    /// The log record that the next append will be.
    pub(super) const fn next_append(&self) -> u64 {
        if self.options.durable { self.appends.last + 1 } else { 0 }
    }

    fn await_own_record(&mut self, place: Place<'_>, key: u64) {
        if self.is_on_record(place) {
            self.count_durable(key, self.view.me);
        } else {
            let appended = self.replica.appended(place);
            self.wait_for_record(appended, Waiter::Operation(key));
        }
    }

    /// Is the record that covers a key's state on stable storage? Without a log, memory is all there is.
    pub(super) fn is_on_record(&self, place: Place<'_>) -> bool {
        !self.options.durable || self.replica.appended(place) <= self.appends.durable
    }

    /// Tell `waiter` when the record `sequence` is on stable storage.
    pub(super) fn wait_for_record(&mut self, sequence: u64, waiter: Waiter) {
        let at = self.appends.waiting.partition_point(|(earlier, _)| *earlier <= sequence);
        self.appends.waiting.insert(at, (sequence, waiter));
    }

    /// Records up to `sequence` are on stable storage.
    pub(super) fn on_appended(&mut self, now: Now, sequence: u64, out: &mut Output) {
        assert!(sequence <= self.appends.last, "nobody asked for record {sequence}");
        self.appends.durable = self.appends.durable.max(sequence);
        while let Some((_, waiter)) =
            self.appends.waiting.pop_front_if(|(record, _)| *record <= self.appends.durable)
        {
            match waiter {
                Waiter::Operation(key) => {
                    self.count_durable(key, self.view.me);
                    self.progress(now, key, false, out);
                }
                Waiter::Peer { connection, request_id } => self.send_replicated(connection, request_id, out),
            }
        }
    }

    /// `node` holds the write of this operation durably.
    pub(super) fn count_durable(&mut self, key: u64, node: NodeId) {
        if let Some(Operation { work: Work::Put { quorum, .. }, .. }) = self.operations.get_mut(key) {
            quorum.on_durable(node);
        }
    }

    /// `node` told what it has for this operation.
    pub(super) fn count_state(&mut self, key: u64, node: NodeId, state: Siblings<Bytes>, complete: bool) {
        if let Some(Operation { work: Work::Get { quorum, .. }, .. }) = self.operations.get_mut(key) {
            quorum.on_state(node, state, complete);
        }
    }

    /// `node` refused this operation, or is gone.
    pub(super) fn count_failure(&mut self, key: u64, node: NodeId) {
        match self.operations.get_mut(key).map(|operation| &mut operation.work) {
            Some(Work::Get { quorum, .. }) => quorum.on_failure(node),
            Some(Work::Put { quorum, .. }) => quorum.on_failure(node),
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
                self.progress(now, key, false, out);
            }
        }
    }

    /// The deadline has come.
    pub(super) fn on_operation_due(&mut self, now: Now, key: u64, out: &mut Output) {
        self.progress(now, key, true, out);
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

    fn progress_get(&mut self, now: Now, key: u64, verdict: GetVerdict, expired: bool, out: &mut Output) {
        let Some(operation) = self.operations.get_mut(key) else { return };
        let Work::Get { quorum, latest, answered } = &mut operation.work else { return };
        let origin = operation.origin;
        let needed = quorum.needed();
        match verdict {
            GetVerdict::Pending => {
                debug_assert!(!expired, "who has expired waits for nobody");
                return;
            }
            GetVerdict::Enough(basis) => {
                *answered = true;
                let (merged, latest) = (quorum.merged().clone(), *latest);
                let (settled, wire_key) = (quorum.is_settled(), operation.key.clone());
                self.answer_state(out, origin, &wire_key, &merged, latest, basis);
                if !settled && !expired {
                    return self.linger(now, key);
                }
            }
            GetVerdict::Stale => {
                let message = "no replica that can be reached has seen what at_least asks for: retry later";
                self.answer_error(
                    out,
                    origin,
                    &ErrorAnswer { needed, ..ErrorAnswer::new(ErrorCode::Stale, message) },
                );
            }
            GetVerdict::Unavailable if expired => {
                self.counters.timeouts += 1;
                let message = "too few replicas answered by the deadline: retry, or ask for fewer";
                let error = ErrorAnswer { needed, ..ErrorAnswer::new(ErrorCode::Timeout, message) };
                self.answer_error(out, origin, &error);
            }
            GetVerdict::Unavailable => {
                let message = "too few complete replicas can be reached: retry later, or ask for fewer";
                let error = ErrorAnswer { needed, ..ErrorAnswer::new(ErrorCode::Unavailable, message) };
                self.answer_error(out, origin, &error);
            }
        }
        self.end_get(now, key, out);
    }

    /// Wait a little for the last replicas, so that they can be repaired.
    fn linger(&mut self, now: Now, key: u64) {
        let Some(operation) = self.operations.get_mut(key) else { return };
        let sooner = operation.deadline.min(now.monotonic + LINGER);
        let before = std::mem::replace(&mut operation.deadline, sooner);
        self.deadlines.remove(before, Due::Operation(key));
        self.deadlines.add(sooner, Due::Operation(key));
        self.counters.operations_lingering += 1;
    }

    /// Nobody is waited for any more: repair whoever lacks something, oneself included.
    fn end_get(&mut self, now: Now, key: u64, out: &mut Output) {
        let Some(operation) = self.take_operation(key) else { return };
        let Work::Get { quorum, .. } = &operation.work else { return };
        let stale: Nodes = quorum.stale_replicas().collect();
        if stale.is_empty() {
            return;
        }
        let place = operation.place();
        if self.replica.merge(place, quorum.merged(), self.next_append()) {
            self.append(place, out);
        }
        let told = self.reachable(now.monotonic, operation.partition, &stale);
        self.counters.repairs_sent += told.len() as u64;
        self.send_repair(now, place, &told, out);
    }

    fn progress_put(&mut self, key: u64, verdict: PutVerdict, expired: bool, out: &mut Output) {
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

    fn take_operation(&mut self, key: u64) -> Option<Operation> {
        let operation = self.operations.remove(key)?;
        self.deadlines.remove(operation.deadline, Due::Operation(key));
        Some(operation)
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
