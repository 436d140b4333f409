//! Reads: ask all primaries, merge, answer at R, repair the stale.

use bytes::Bytes;
use ringmain_schema::message::{ErrorAnswer, ErrorCode};
use ringmain_schema::peer::{ReadState, ReplicateWriter};

use crate::causality::{Siblings, VersionVector};
use crate::coordinator::{Basis, GetQuorum, GetVerdict, Role, share};
use crate::failpoint::{Bug, Choice, Failpoints, Rare};
use crate::id::{ConnectionId, NodeId, PartitionId};
use crate::replica::{Place, Replica, state_writer};
use crate::time::{Duration, Now};

use super::Shard;
use super::answer::Origin;
use super::eviction::{Need, UNDER_WAY};
use super::fallbacks::Missing;
use super::io::Output;
use super::memory;
use super::operations::{Nodes, Operation, Work};

/// A read that is answered waits so long for the last replicas, to repair them.
const LINGER: Duration = Duration::from_millis(100);

impl<F: Failpoints> Shard<F> {
    /// Ask all owners, merge, answer at R.
    #[expect(clippy::too_many_arguments, reason = "a request's own settings, each used once")]
    pub(super) fn coordinate_get(
        &mut self,
        now: Now,
        origin: Origin,
        place: Place<'_>,
        [needed, primaries_needed]: [u8; 2],
        at_least: VersionVector,
        latest: bool,
        budget: Duration,
        out: &mut Output,
    ) {
        let owners: Nodes = self.owners(place.partition).iter().collect();
        let role = self.role(place.partition);
        self.note_standing_in(role);
        let is_cold = role == Role::Primary && self.is_cold(place);
        let mine = match role {
            Role::Primary if is_cold => Siblings::new(),
            Role::Primary => {
                readable(&mut self.replica, &self.failpoints, now, place).cloned().unwrap_or_default()
            }
            Role::Fallback => self.kept(now, place),
        };
        let complete = self.is_complete(place.partition);
        if role == Role::Primary && owners.len() == 1 && at_least.is_empty() && !is_cold {
            // Nobody else to ask: whatever is here is all there is.
            return self.answer_state(out, origin, place.key, &mine, latest, Basis::primaries(1));
        }
        if !self.make_room_for_request(place.key, memory::of_answer(&mine)) {
            return self.refuse_overloaded(out, origin, UNDER_WAY);
        }
        let mut quorum = GetQuorum::new(needed, at_least, self.owners(place.partition))
            .with_primaries(primaries_needed)
            .with_successors(self.reads_both());
        if role == Role::Fallback {
            quorum.add_fallback(self.view.me);
        }
        if !is_cold {
            quorum.on_state(self.view.me, mine, complete);
        }
        let mut asked = self.reachable(now.monotonic, place.partition, &owners);
        if self.failpoints.rare(Choice::SmallestQuorum) && !self.owners(place.partition).is_changing() {
            asked.truncate(usize::from(share(needed, owners.len())) - 1);
        }
        let me = self.view.me;
        let is_asked = |node: NodeId| node == me || asked.iter().any(|(asked, _)| *asked == node);
        owners.iter().filter(|&&node| !is_asked(node)).for_each(|&node| quorum.on_failure(node));
        let work = Work::Get { quorum, latest, answered: false, before: None };
        let Some(key) = self.begin(origin, now.monotonic, budget, place, work, out) else { return };
        self.send_reads(now, key, place.key, &asked, out);
        if is_cold {
            // The others answer meanwhile.
            self.count_own_state(now, key, place, out);
        }
        if asked.len() + 1 < owners.len() {
            self.stand_in(now, key, Missing::Lost, out);
        }
        self.progress(now, key, false, out);
    }

    /// Must a read rest on the owners to be too?
    pub(super) fn reads_both(&self) -> bool {
        self.view.change.as_ref().is_some_and(|change| change.is_read)
    }

    /// Ask these replicas for their state of a key, as one frame for all.
    pub(super) fn send_reads(
        &mut self,
        now: Now,
        operation: u64,
        key: &[u8],
        asked: &[(NodeId, ConnectionId)],
        out: &mut Output,
    ) {
        let partition_epoch = self.epoch(self.place(key).partition);
        let request = ReadState { key, ring: self.view.ring.hash(), partition_epoch };
        let encoder = &mut self.encoder;
        out.deliver_to_all(asked.iter().map(|(_, connection)| *connection), |bytes| {
            request.encode(encoder, operation, bytes);
        });
        asked.iter().for_each(|(node, _)| self.detector.on_asked(now.monotonic, *node));
    }

    /// Ask one more.
    pub(super) fn send_read(&mut self, operation: u64, key: &[u8], to: ConnectionId, out: &mut Output) {
        let partition_epoch = self.epoch(self.place(key).partition);
        let request = ReadState { key, ring: self.view.ring.hash(), partition_epoch };
        let encoder = &mut self.encoder;
        out.deliver(to, false, |bytes| request.encode(encoder, operation, bytes));
    }

    /// Does this replica's silence about a key mean that nothing was acknowledged to it?
    pub(super) fn is_complete(&self, partition: PartitionId) -> bool {
        self.holds_all(partition) || self.failpoints.planted(Bug::IncompleteCounts)
    }

    /// `node` told what it has for this operation.
    pub(super) fn count_state(&mut self, key: u64, node: NodeId, state: Siblings<Bytes>, complete: bool) {
        if !self.operations.get(key).is_some_and(|operation| matches!(operation.work, Work::Get { .. })) {
            return;
        }
        let added = memory::of_answer(&state);
        if !self.make_room(added, Need::Passing) {
            return self.count_failure(key, node);
        }
        if let Some(Operation { work: Work::Get { quorum, .. }, cost, .. }) = self.operations.get_mut(key) {
            *cost += added;
            self.memory.requests += added;
            quorum.on_state(node, state, complete);
        }
    }

    pub(super) fn progress_get(
        &mut self,
        now: Now,
        key: u64,
        verdict: GetVerdict,
        expired: bool,
        out: &mut Output,
    ) {
        let Some(operation) = self.operations.get_mut(key) else { return };
        let Work::Get { quorum, latest, answered, before } = &mut operation.work else { return };
        if before.is_some() {
            return self.progress_to_write(now, key, verdict, expired, out);
        }
        let origin = operation.origin;
        let needed = quorum.needed();
        if verdict != GetVerdict::Pending {
            self.pace.on_answered(operation.begun);
        }
        match verdict {
            GetVerdict::Pending => {
                debug_assert!(!expired, "who has expired waits for nobody");
                return;
            }
            GetVerdict::Enough(basis) => {
                *answered = true;
                if quorum.counts_incomplete() {
                    self.failpoints.reached(Rare::UnionOfAll);
                }
                if basis.fallbacks > 0 {
                    self.failpoints.reached(Rare::FallbackRead);
                }
                let (merged, latest) = (quorum.merged().clone(), *latest);
                let (settled, wire_key) = (quorum.is_settled(), operation.key.clone());
                self.answer_state(out, origin, &wire_key, &merged, latest, basis);
                if !settled && !expired && !self.failpoints.rare(Choice::NoLinger) {
                    return self.linger(now, key);
                }
            }
            GetVerdict::Stale => {
                self.failpoints.reached(Rare::StaleRead);
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
        self.end_at(key, sooner);
        self.counters.operations_lingering += 1;
    }

    /// Nobody is waited for any more: repair whoever lacks something, oneself included.
    pub(super) fn end_get(&mut self, now: Now, key: u64, out: &mut Output) {
        let Some(operation) = self.take_operation(key) else { return };
        let Work::Get { quorum, .. } = &operation.work else { return };
        let stale: Nodes = quorum.stale_replicas().collect();
        let has_heard_all = quorum.has_heard_all() && !self.has_put_out_since(&operation);
        if has_heard_all && stale.is_empty() {
            self.replica.note_heard(operation.place(), &quorum.merged().context());
        }
        if stale.is_empty() || self.failpoints.planted(Bug::NobodyRepaired) {
            return;
        }
        let place = operation.place();
        let is_old = operation.epoch != self.epoch(place.partition);
        if !self.takes_copies(place.partition) || (is_old && !self.failpoints.planted(Bug::OldReadRepairs)) {
            return;
        }
        if self.role(place.partition) == Role::Primary
            && self.log_refusal().is_none()
            && !self.is_refill(place, quorum.merged())
            && self.can_merge(place, quorum.merged(), out)
            && self.make_room_to_merge(place, quorum.merged())
            && self.merge_here(place, quorum.merged(), out)
        {
            self.failpoints.reached(Rare::CoordinatorRepaired);
        }
        if has_heard_all {
            self.replica.note_heard(place, &quorum.merged().context());
        }
        let told = self.reachable(now.monotonic, operation.partition, &stale);
        self.counters.repairs_sent += told.len() as u64;
        self.send_repair(now, place, quorum.merged(), &told, out);
    }

    /// Take a state into this node's own copy; true if it was news.
    pub(super) fn merge_here(&mut self, place: Place<'_>, state: &Siblings<Bytes>, out: &mut Output) -> bool {
        let is_news = self.replica.merge(place, state, self.next_append());
        if is_news {
            self.append(place, &[], out);
        }
        is_news
    }

    /// Send a key's whole state to replicas that lack some of it, or what was heard of it if its values are on the disk. Nobody
    /// waits for their answers.
    fn send_repair(
        &mut self,
        now: Now,
        place: Place<'_>,
        heard: &Siblings<Bytes>,
        to: &[(NodeId, ConnectionId)],
        out: &mut Output,
    ) {
        let Some(entry) = self.replica.look(now, place) else { return };
        let state = if entry.state.is_cold() { heard } else { &entry.state };
        let replicate = ReplicateWriter {
            key: place.key,
            state: state_writer(state),
            ring: self.view.ring.hash(),
            partition_epoch: self.epochs.number(place.partition),
            repair: true,
            replaced: &[],
            hint_for: 0,
            exchange: false,
        };
        let encoder = &mut self.encoder;
        out.deliver_to_all(to.iter().map(|(_, connection)| *connection), |bytes| {
            replicate.encode(encoder, 0, bytes);
        });
    }
}

/// What a reader may see of a key.
pub(super) fn readable<'a, F: Failpoints>(
    replica: &'a mut Replica<F>,
    failpoints: &F,
    now: Now,
    place: Place<'_>,
) -> Option<&'a Siblings<Bytes>> {
    let forgets = failpoints.planted(Bug::TombstoneForgotten);
    let entry = replica.read(now, place)?;
    Some(&entry.state).filter(|state| !forgets || state.sibling_count() > 0)
}
