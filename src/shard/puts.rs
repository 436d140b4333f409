//! Writes: mint, append, send the whole state to the other primaries, answer at W.

use bytes::Bytes;
use ringmain_schema::message::{ErrorAnswer, ErrorCode, Stored};
use ringmain_schema::peer::ReplicateWriter;
use smallvec::SmallVec;

use crate::causality::{Siblings, VersionVector};
use crate::coordinator::{Basis, GetQuorum, GetVerdict, PutQuorum, PutVerdict, Role, share};
use crate::failpoint::{Bug, Choice, Failpoints, Rare};
use crate::hint::Keeping;
use crate::id::{ConnectionId, NodeId, OperationId, PartitionId};
use crate::replica::{Covered, Place, Refused, Write, state_writer};
use crate::time::{Duration, Now};

use super::Shard;
use super::answer::Origin;
use super::fallbacks::Missing;
use super::io::Output;
use super::loads::Waiter;
use super::operations::{Nodes, Operation, Pending, Work};

/// What must hold a write before it is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Asked {
    /// W, of each set of owners; 0 for a majority of each.
    pub(super) write: u8,
    /// Of these, so many owners.
    pub(super) primaries: u8,
    /// In so many zones; 0 for wherever they are.
    pub(super) zones: u8,
}

impl<F: Failpoints> Shard<F> {
    /// Mint, append, send the whole state to the other owners, answer at W. A node that is none of them
    /// coordinates if none can be reached: it keeps the write as a hint.
    pub(super) fn coordinate_put(
        &mut self,
        now: Now,
        origin: Origin,
        place: Place<'_>,
        asked: Asked,
        write: Write<'_>,
        budget: Duration,
        out: &mut Output,
    ) {
        if let Some(message) = self.log_refusal() {
            return self.answer_code(out, origin, ErrorCode::Unavailable, message);
        }
        let owners: Nodes = self.owners(place.partition).iter().collect();
        let role = self.role(place.partition);
        self.note_standing_in(role);
        let mut told = self.reachable(now.monotonic, place.partition, &owners);
        let wanted = [asked.write, asked.primaries];
        if let Some((needed, healthy)) = self.shortfall(now.monotonic, place.partition, &told, wanted) {
            self.failpoints.reached(Rare::TooFewReachable);
            return self.refuse_unavailable(out, origin, needed, healthy);
        }
        if self.failpoints.rare(Choice::SmallestQuorum) && !self.owners(place.partition).is_changing() {
            told.truncate(usize::from(share(asked.write, owners.len())) - 1);
        }
        let kept_for = (role == Role::Fallback).then(|| owners[0]);
        if !self.reaches_zones(now, asked, place.partition, &told, kept_for) {
            let message = "too few zones can be reached for what was asked: nothing was written; retry later";
            let error =
                ErrorAnswer { needed: asked.zones, ..ErrorAnswer::new(ErrorCode::Unavailable, message) };
            return self.answer_error(out, origin, &error);
        }
        if self.operations.is_full() {
            return self.refuse_overloaded(out, origin, "too many requests under way: retry later");
        }
        if kept_for.is_none() && !self.make_room_to_write(place, write.value) {
            return self.refuse_overloaded(out, origin, self.why_full());
        }
        if kept_for.is_none() && self.must_ask_before(place, &write) {
            return self.ask_before(now, origin, place, asked, &write, &told, budget, out);
        }
        let operation = write.operation;
        let applied = match kept_for {
            None => self.apply_here(now, place, write, out),
            Some(target) => {
                let keeping = Keeping { target, key: place.key, partition: place.partition };
                let known = self.known_of(now, place, operation);
                let more = write.value.map_or(0, <[u8]>::len);
                if self.is_about_to_leave()
                    || !self.hints.store.has_room(keeping, &known, more)
                    || !self.make_room_to_keep(keeping, &known, more)
                {
                    let message = "this node keeps no more for others: retry at another";
                    return self.refuse_overloaded(out, origin, message);
                }
                self.apply_for_another(now, keeping, known, write, out)
            }
        };
        let (replaced, only) = match applied {
            Ok(Some(replaced)) => (replaced, None),
            Ok(None) => {
                self.counters.retries_recognised += 1;
                (SmallVec::new(), Some(operation))
            }
            Err(refused) => return self.refuse_write(out, origin, refused),
        };
        if only.is_some() && kept_for.is_none() && self.was_reaped(place) {
            if self.may_lack_keys(place.partition) {
                // Or it was put out since, and nobody knows how many have it.
                return self.refuse_write(out, origin, Refused::Lost);
            }
            return self.answer_stored(out, origin, &[], Basis::primaries(owners.len() as u8));
        }
        if only.is_some_and(|write| kept_for.is_some() && !self.accounts_for(place, write)) {
            // The owners have what replaced it, and it isn't kept here any more: what is sent now would be something else.
            return self.refuse_write(out, origin, Refused::Lost);
        }
        let context = match kept_for {
            None => self.context_of_only_version(now, place, only),
            Some(_) => Vec::new(),
        };
        if kept_for.is_none() && owners.len() == 1 && !self.options.durable {
            return self.answer_stored(out, origin, &context, Basis::primaries(1));
        }
        let quorum = self.quorum_of(asked, place.partition, &told, kept_for);
        let work = Work::Put { quorum, context, replaced, kept_for };
        let Some(key) = self.begin(origin, now.monotonic, budget, place, work, out) else { return };
        self.send_write(now, key, None, &told, out);
        let record = match kept_for {
            None => self.replica.appended(place),
            Some(target) => self.hint_record(target, place),
        };
        if told.len() + 1 < owners.len() || kept_for.is_some() {
            self.stand_in(now, key, Missing::Lost, out);
        }
        self.await_own_record(record, key);
        self.progress(now, key, false, out);
    }

    /// Does a write replace whatever there is, and this node doesn't know what that is, since it may have put it out?
    fn must_ask_before(&self, place: Place<'_>, write: &Write<'_>) -> bool {
        matches!(write.covered, Covered::Everything)
            && self.may_lack(place)
            && self.owners(place.partition).iter().nth(1).is_some()
    }

    /// Ask the owners what they know of the key. All that can be reached are waited for; while one is silent, so many must answer as
    /// must hold the write, a majority at most.
    #[expect(clippy::too_many_arguments, reason = "a request's own settings, each used once")]
    fn ask_before(
        &mut self,
        now: Now,
        origin: Origin,
        place: Place<'_>,
        asked: Asked,
        write: &Write<'_>,
        told: &[(NodeId, ConnectionId)],
        budget: Duration,
        out: &mut Output,
    ) {
        self.failpoints.reached(Rare::AskedBeforeWrite);
        self.counters.writes_that_asked += 1;
        let owners: Nodes = self.owners(place.partition).iter().collect();
        let needed = asked.write.min(share(0, owners.len()));
        let mut quorum = GetQuorum::new(needed, VersionVector::new(), self.owners(place.partition))
            .with_successors(self.reads_both());
        quorum.on_state(self.view.me, Siblings::new(), self.is_complete(place.partition));
        let is_asked = |node: NodeId| told.iter().any(|(told, _)| *told == node);
        owners.iter().filter(|&&node| !is_asked(node)).for_each(|&node| quorum.on_failure(node));
        let Write { expiry, operation, value, .. } = *write;
        let value = value.map(Bytes::copy_from_slice);
        let before = Some(Box::new(Pending { asked, value, expiry, operation }));
        let work = Work::Get { quorum, latest: false, answered: false, before };
        let Some(key) = self.begin(origin, now.monotonic, budget, place, work, out) else { return };
        self.send_reads(now, key, place.key, told, out);
        if told.len() + 1 < owners.len() {
            self.stand_in(now, key, Missing::Lost, out);
        }
        self.progress(now, key, false, out);
    }

    /// Apply the write, if it is known by now what the owners know of its key.
    pub(super) fn progress_to_write(
        &mut self,
        now: Now,
        key: u64,
        verdict: GetVerdict,
        expired: bool,
        out: &mut Output,
    ) {
        let Some(operation) = self.operations.get_mut(key) else { return };
        let Work::Get { quorum, .. } = &operation.work else { return };
        let (is_patient, is_settled) = (operation.due < operation.deadline, quorum.is_settled());
        if !expired && !is_settled && (is_patient || verdict == GetVerdict::Pending) {
            return;
        }
        let (needed, Some(operation)) = (quorum.needed(), self.take_operation(key)) else { return };
        let (place, origin) = (operation.place(), operation.origin);
        let Work::Get { quorum, before: Some(write), .. } = &operation.work else { return };
        let is_known = matches!(verdict, GetVerdict::Enough(_)) && !expired;
        if !is_known {
            let message =
                "too few replicas could say what the write would replace: nothing was written; retry later";
            let error = ErrorAnswer { needed, ..ErrorAnswer::new(ErrorCode::Unavailable, message) };
            return self.answer_error(out, origin, &error);
        }
        if self.is_held_up(place.partition, true) {
            let message =
                "this node may take no writes to the key now: nothing was written; retry, or ask another";
            return self.answer_code(out, origin, ErrorCode::NotServing, message);
        }
        let (mut covered, has_heard_all) =
            (quorum.merged().context(), quorum.has_heard_all() && !self.has_put_out_since(&operation));
        // Somebody may have written it here meanwhile.
        if let Some(entry) = self.replica.look(now, place) {
            covered.merge(&entry.state.context());
        }
        let Pending { asked, value, expiry, operation: name } = &**write;
        let write = Write {
            value: value.as_deref(),
            covered: Covered::Context(covered.clone()),
            expiry: *expiry,
            operation: *name,
        };
        let budget = operation.deadline.since(now.monotonic);
        self.coordinate_put(now, origin, place, *asked, write, budget, out);
        if has_heard_all {
            self.replica.note_heard(place, &covered);
        }
    }

    /// Of a key whose writes are remembered nothing is left: all primaries had the last of them, and have confirmed it. Unless the
    /// copies here were wiped.
    fn was_reaped(&self, place: Place<'_>) -> bool {
        let is_there = self.replica.index().find(place.partition, place.token, place.key).is_some();
        !is_there && self.holds_all(place.partition)
    }

    /// Could a write be in as many zones as it asks for, by all who can be reached?
    fn reaches_zones(
        &self,
        now: Now,
        asked: Asked,
        partition: PartitionId,
        told: &[(NodeId, ConnectionId)],
        kept_for: Option<NodeId>,
    ) -> bool {
        let quorum = || self.quorum_of(asked, partition, told, kept_for);
        asked.zones <= 1 || self.can_be_wide(now.monotonic, partition, quorum())
    }

    /// A write that these owners are about to be told, and this node, which keeps it for one that can't be reached if it
    /// owns nothing of it.
    fn quorum_of(
        &self,
        asked: Asked,
        partition: PartitionId,
        told: &[(NodeId, ConnectionId)],
        kept_for: Option<NodeId>,
    ) -> PutQuorum {
        let (me, owners) = (self.view.me, self.owners(partition));
        let mut quorum = PutQuorum::new(asked.write, owners).with_primaries(asked.primaries);
        if asked.zones > 1 {
            quorum = quorum.with_zones(asked.zones, |node| self.view.zone(node));
        }
        let is_told = |node: NodeId| node == me || told.iter().any(|(told, _)| *told == node);
        owners.iter().filter(|&node| !is_told(node)).for_each(|node| quorum.on_failure(node));
        if let Some(target) = kept_for {
            quorum.add_fallback(me, target, self.view.zone(me));
        }
        quorum
    }

    /// Send a write under way, as the key's whole state in one frame for all: to owners, or to who is to keep it for
    /// `hint_for`.
    pub(super) fn send_write(
        &mut self,
        now: Now,
        key: u64,
        hint_for: Option<NodeId>,
        to: &[(NodeId, ConnectionId)],
        out: &mut Output,
    ) {
        let Some(operation) = self.operations.get_mut(key) else { return };
        let Work::Put { kept_for, replaced, .. } = &operation.work else { return };
        let place = operation.place();
        let state = match kept_for {
            Some(other) => self.hints.store.find(*other, place.key).map(|hint| &hint.state),
            None => self.replica.look(now, place).map(|entry| &entry.state),
        };
        let Some(state) = state else { return };
        if state.is_cold() {
            // The write is on the disk here by now, and somebody else is to have it.
            let wire_key = operation.key.clone();
            let waiter = Waiter::Send { operation: key, hint_for, to: to.iter().copied().collect() };
            if !self.load(self.place(&wire_key), waiter, out) {
                to.iter().for_each(|(node, _)| self.count_failure(key, *node));
            }
            return;
        }
        let replicate = ReplicateWriter {
            key: place.key,
            state: state_writer(state),
            ring: self.view.ring.hash(),
            partition_epoch: self.epochs.number(place.partition),
            repair: false,
            replaced,
            hint_for: hint_for.map_or(0, |target| target.0),
            exchange: false,
        };
        let encoder = &mut self.encoder;
        out.deliver_to_all(to.iter().map(|(_, connection)| *connection), |bytes| {
            replicate.encode(encoder, key, bytes);
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
        if let Some(entry) = self.replica.look(now, place)
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
                if basis.fallbacks > 0 {
                    self.failpoints.reached(Rare::FallbackCounted);
                }
                let Some(operation) = self.take_operation(key) else { return };
                let Work::Put { context, .. } = operation.work else { return };
                self.pace.on_answered(operation.begun);
                return self.answer_stored(out, operation.origin, &context, basis);
            }
            PutVerdict::Pending if !expired => return,
            PutVerdict::Missed { acks } => acks,
            PutVerdict::Pending => self.acks_of(key),
        };
        let Some(operation) = self.take_operation(key) else { return };
        let Work::Put { quorum, .. } = &operation.work else { return };
        self.pace.on_answered(operation.begun);
        self.failpoints.reached(Rare::QuorumMissed);
        if self.failpoints.planted(Bug::TimeoutIsFailure) && expired {
            return self.refuse_unavailable(out, operation.origin, quorum.needed(), usize::from(acks.nodes));
        }
        self.counters.maybe_applied += 1;
        let message =
            "fewer replicas, or in fewer zones, than asked for have acknowledged: read it back, or retry";
        let error = ErrorAnswer {
            acks: acks.nodes,
            needed: quorum.needed(),
            primaries: acks.primaries,
            fallbacks: acks.fallbacks,
            nodes: acks.nodes,
            ..ErrorAnswer::new(ErrorCode::MaybeApplied, message)
        };
        self.answer_error(out, operation.origin, &error);
    }

    fn acks_of(&mut self, key: u64) -> Basis {
        match self.operations.get_mut(key).map(|operation| &operation.work) {
            Some(Work::Put { quorum, .. }) => quorum.acks(),
            _ => Basis::default(),
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
        if refused != Refused::Lost {
            self.failpoints.reached(Rare::SiblingsFull);
        }
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
            Refused::Lost => (
                ErrorCode::MaybeApplied,
                0,
                "this node had applied the write before, and has lost what it left: read it back, or write anew",
            ),
        };
        self.answer_error(out, origin, &ErrorAnswer { limit, ..ErrorAnswer::new(code, message) });
    }
}
