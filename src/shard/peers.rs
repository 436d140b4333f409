//! What other nodes ask of this shard, and what they answer.

use ringmain_schema::epoch::{Bound, Epoch, Lost, Met, Propose, Round};
use ringmain_schema::message::{ErrorAnswer, ErrorCode, Ping};
use ringmain_schema::peer::{Forward, Gossip, ReadState, Replicate, Replicated, State};
use ringmain_schema::{Flags, Frame, Kind, Malformed};
use smallvec::SmallVec;

use crate::failpoint::{Bug, Failpoints, Rare};
use crate::id::{ConnectionId, OperationId, ShardId};
use crate::membership::Member;
use crate::pace::Claimant;
use crate::replica::{Place, state_from_wire, state_writer};
use crate::time::{Duration, Now};

use super::Shard;
use super::answer::Origin;
use super::appends::Waiter;
use super::fallbacks::Missing;
use super::gets::readable;
use super::io::{Output, SiblingMessage};
use super::links::LinkId;

impl<F: Failpoints> Shard<F> {
    /// A frame from a shard of another node.
    pub(super) fn on_peer_frame(
        &mut self,
        now: Now,
        connection: ConnectionId,
        link: LinkId,
        frame: &Frame<'_>,
        out: &mut Output,
    ) {
        // Only an answer shows that it hears us: over a link cut in one direction it may well speak.
        if frame.header.kind.is_answer() {
            self.detector.on_answered(now.monotonic, link.node);
        }
        if let Err(error) = self.try_peer_frame(now, connection, link, frame, out) {
            // A peer of the same protocol never sends this: whatever else it says can't be trusted either.
            let message = error.to_string();
            let why = ErrorAnswer::new(ErrorCode::BadRequest, &message);
            self.hang_up(now, connection, frame.header.request_id, &why, out);
        }
    }

    fn try_peer_frame(
        &mut self,
        now: Now,
        connection: ConnectionId,
        link: LinkId,
        frame: &Frame<'_>,
        out: &mut Output,
    ) -> Result<(), Malformed> {
        let node = link.node;
        let request_id = frame.header.request_id;
        let speaks_of_members = matches!(frame.header.kind, Kind::GOSSIP | Kind::GOSSIPED);
        let is_removed = self.view.member(node).is_some_and(Member::is_removed);
        if !speaks_of_members && (is_removed || self.is_succeeded(link)) {
            if is_removed {
                self.refuse_removed(connection, frame, out);
            } else {
                self.refuse_succeeded(connection, frame, out);
            }
            // What it answers counts for nothing, and somebody else is asked at once. Pings are numbered on their own.
            if frame.header.kind.is_answer() && frame.header.kind != Kind::PONG {
                self.on_refusal(now, link, frame, out);
                self.on_relay_refused(link, request_id, out);
            }
            return Ok(());
        }
        match frame.header.kind {
            Kind::REPLICATE => {
                let replicate = Replicate::parse(frame)?;
                let place = self.place(replicate.key);
                if self.replicate_needs_values(place, &replicate) {
                    self.park_for_peer(now, (connection, link), place, frame, out);
                    return Ok(());
                }
                if replicate.exchange {
                    self.pace.spent(self.claimant_of_states(link), frame.length(), 1);
                } else if replicate.repair {
                    self.pace.spent(Claimant::Serving, frame.length(), 1);
                } else {
                    self.pace.on_foreground();
                }
                let is_held = self.on_replicate(connection, link, request_id, &replicate, out);
                if is_held && replicate.exchange {
                    self.on_state_held(now, link, self.place(replicate.key).token);
                }
            }
            Kind::READ_STATE => {
                self.pace.on_foreground();
                let asked = ReadState::parse(frame)?;
                let place = self.place(asked.key);
                if self.is_cold(place) && self.holds(place) {
                    self.park_for_peer(now, (connection, link), place, frame, out);
                    return Ok(());
                }
                self.on_read_state(now, connection, request_id, &asked, out);
            }
            Kind::FORWARD => {
                let forward = Forward::parse(frame)?;
                let origin = Origin::Peer { connection, request_id, hops: forward.hops };
                let cap = Duration::from_micros(forward.budget_us.into());
                self.on_request(now, origin, &forward.frame, Some(cap), out);
            }
            Kind::REPLICATED => {
                if Replicated::parse(frame)?.durable {
                    self.count_durable(request_id, node);
                    self.on_handed_over(request_id, node, out);
                    self.progress(now, request_id, false, out);
                    self.on_pushed(now, link, request_id);
                }
            }
            Kind::STATE => {
                let answer = State::parse(frame)?;
                let epoch =
                    self.operations.get(request_id).map_or(0, |operation| self.epoch(operation.partition));
                let is_of_now =
                    answer.partition_epoch == epoch || self.failpoints.planted(Bug::AnyEpochIsTaken);
                match state_from_wire(&answer.state) {
                    Ok(state) if is_of_now => {
                        let counts = self.failpoints.planted(Bug::IncompleteCounts);
                        self.count_state(request_id, node, state, answer.complete || counts);
                    }
                    Ok(_) | Err(_) => self.count_failure(request_id, node),
                }
                self.progress(now, request_id, false, out);
            }
            Kind::GOSSIP | Kind::GOSSIPED => {
                let gossip = Gossip::parse(frame)?;
                self.on_gossip(connection, node, frame, &gossip, out);
            }
            Kind::PING => {
                let encoder = &mut self.encoder;
                out.deliver(connection, true, |bytes| Ping.encode(encoder, Kind::PONG, request_id, bytes));
            }
            Kind::EPOCH => self.on_epoch(now, connection, link, request_id, &Epoch::parse(frame)?, out),
            Kind::PROPOSE => self.on_propose(now, connection, link, request_id, &Propose::parse(frame)?, out),
            Kind::BOUND => self.on_bound(now, node, &Bound::parse(frame)?, out),
            Kind::ROUND => self.on_round_question(connection, request_id, &Round::parse(frame)?, out),
            Kind::ROUND_OVER => self.on_round_over(node, &Round::parse(frame)?, out),
            Kind::LOST => self.on_lost(connection, link, request_id, &Lost::parse(frame)?, out),
            Kind::MET => self.on_words(now, node, Met::parse(frame)?, out),
            Kind::PONG => self.detector.on_pong(now.monotonic, node, request_id),
            Kind::TREE_REQUEST
            | Kind::KEYS_REQUEST
            | Kind::PULL_REQUEST
            | Kind::HELD_REQUEST
            | Kind::TREE
            | Kind::KEYS
            | Kind::PULLED
            | Kind::HELD => self.on_tree_frame(now, connection, link, frame, out)?,
            kind if kind.is_answer() => {
                // An error may answer a replication or a read; anything else, something that was passed on.
                self.on_refusal(now, link, frame, out);
                self.on_peer_answered(link, request_id, frame, out);
            }
            kind => {
                let message = format!("this version doesn't know frames of kind {}", kind.0);
                let error = ErrorAnswer::new(ErrorCode::Unsupported, &message);
                let encoder = &mut self.encoder;
                out.deliver(connection, true, |bytes| error.encode(encoder, request_id, Flags::NONE, bytes));
            }
        }
        Ok(())
    }

    /// What this node had asked of a peer itself was refused.
    fn on_refusal(&mut self, now: Now, link: LinkId, frame: &Frame<'_>, out: &mut Output) {
        let request_id = frame.header.request_id;
        let is_error = frame.header.kind == Kind::ERROR;
        if is_error && ErrorAnswer::parse(frame).is_ok_and(|error| error.code == ErrorCode::Overloaded) {
            self.count_declined(request_id, link.node);
        } else {
            self.count_failure(request_id, link.node);
        }
        self.on_not_handed_over(request_id);
        self.stand_in(now, request_id, Missing::Lost, out);
        self.progress(now, request_id, false, out);
        self.on_exchange_refused(now, link, frame);
        self.on_refused_to_meet(now, link, frame, out);
    }

    /// How many states other nodes have sent that this one took.
    pub const fn states_taken(&self) -> u64 {
        self.counters.replicated_in
    }

    /// Merge what a coordinator sent, and say so when it is durable. False if it was refused, or is kept for another.
    fn on_replicate(
        &mut self,
        connection: ConnectionId,
        link: LinkId,
        request_id: u64,
        replicate: &Replicate<'_>,
        out: &mut Output,
    ) -> bool {
        let place = self.place(replicate.key);
        let theirs = replicate.partition_epoch;
        if !self.is_current(connection, request_id, place.partition, theirs, out) {
            return false;
        }
        if replicate.hint_for != 0 && replicate.hint_for != self.view.me.0 {
            self.on_hint(connection, request_id, place, replicate, out);
            return false;
        }
        if !self.holds(place) || self.has_promised(place.partition) {
            self.refuse_peer(connection, request_id, out);
            return false;
        }
        if let Some(message) = self.log_refusal() {
            let error = ErrorAnswer::new(ErrorCode::Unavailable, message);
            let encoder = &mut self.encoder;
            out.deliver(connection, true, |bytes| error.encode(encoder, request_id, Flags::NONE, bytes));
            return false;
        }
        let Ok(state) = state_from_wire(&replicate.state) else {
            self.refuse_peer(connection, request_id, out);
            return false;
        };
        if self.brings_back(place, link, request_id, replicate, &state) {
            self.failpoints.reached(Rare::RefillDeclined);
            self.counters.refills_declined += 1;
            self.send_replicated(connection, request_id, out);
            return true;
        }
        if !self.make_room_to_merge(place, &state) {
            if replicate.repair && self.put_out_at_once(place, &state) {
                self.send_replicated(connection, request_id, out);
                return true;
            }
            self.put_out_older(place, &state);
            self.decline(connection, request_id, out);
            return false;
        }
        self.counters.replicated_in += 1;
        // A repair may have brought the state before its write did: then the names are news by themselves.
        let are_news = self.replica.remember_replaced(replaced_by(replicate), self.next_append());
        let is_news = self.replica.merge(place, &state, self.next_append());
        if is_news || (are_news && self.replica.cover(place, self.next_append())) {
            let replaced: SmallVec<[_; 1]> = replicate.replaced().copied().collect();
            self.append(place, &replaced, out);
            self.counters.anti_entropy_keys_repaired += u64::from(is_news && replicate.exchange);
        }
        // A repair too: nobody waits for this, but a connection with unanswered requests is not let go.
        if self.is_on_record(place) {
            self.send_replicated(connection, request_id, out);
        } else {
            if !is_news {
                self.failpoints.reached(Rare::NoNewsWaitedForRecord);
            }
            let sequence = self.replica.appended(place);
            let (partition, epoch) = (place.partition, theirs);
            self.wait_for_record(sequence, Waiter::Peer { connection, request_id, partition, epoch });
        }
        true
    }

    pub(super) fn send_replicated(&mut self, connection: ConnectionId, request_id: u64, out: &mut Output) {
        let encoder = &mut self.encoder;
        out.deliver(connection, true, |bytes| {
            Replicated { durable: true }.encode(encoder, request_id, bytes);
        });
    }

    fn on_read_state(
        &mut self,
        now: Now,
        connection: ConnectionId,
        request_id: u64,
        request: &ReadState<'_>,
        out: &mut Output,
    ) {
        let place = self.place(request.key);
        if !self.is_current(connection, request_id, place.partition, request.partition_epoch, out) {
            return;
        }
        if !self.holds(place) {
            return self.tell_hints(now, connection, request_id, place, out);
        }
        self.counters.states_read_by_peers += 1;
        let (complete, epoch) = (self.holds_all(place.partition), request.partition_epoch);
        let state = readable(&mut self.replica, &self.failpoints, now, place);
        let state = state.map(state_writer).unwrap_or_default();
        let encoder = &mut self.encoder;
        out.deliver(connection, true, |bytes| {
            State::encode(encoder, request_id, &state, complete, epoch, bytes);
        });
    }

    /// Not a primary: tell what is kept of the key for those who are.
    fn tell_hints(
        &mut self,
        now: Now,
        connection: ConnectionId,
        request_id: u64,
        place: Place<'_>,
        out: &mut Output,
    ) {
        if !self.view.is_serving() || !self.is_mine(place.partition) {
            return self.refuse_peer(connection, request_id, out);
        }
        let (known, epoch) = (self.kept(now, place), self.epoch(place.partition));
        let encoder = &mut self.encoder;
        out.deliver(connection, true, |bytes| {
            State::encode(encoder, request_id, &state_writer(&known), false, epoch, bytes);
        });
    }

    /// Is this shard's copy of the key one of the owners', and worth something?
    fn holds(&self, place: Place<'_>) -> bool {
        let (view, partition) = (&self.view, place.partition);
        view.is_serving() && self.is_mine(partition) && (view.owns(partition) || view.owned(partition))
    }

    /// Whoever was removed may hear of it, and do nothing else.
    fn refuse_removed(&mut self, connection: ConnectionId, frame: &Frame<'_>, out: &mut Output) {
        self.failpoints.reached(Rare::RemovedRefused);
        self.refuse_data(connection, frame, "this node was removed from the cluster for good", out);
    }

    /// Says why, unless it is an answer, which nobody counts.
    pub(super) fn refuse_data(
        &mut self,
        connection: ConnectionId,
        frame: &Frame<'_>,
        message: &str,
        out: &mut Output,
    ) {
        self.counters.frames_refused += 1;
        if !frame.header.kind.is_answer() {
            let error = ErrorAnswer::new(ErrorCode::NotServing, message);
            let (encoder, request_id) = (&mut self.encoder, frame.header.request_id);
            out.deliver(connection, true, |bytes| error.encode(encoder, request_id, Flags::NONE, bytes));
        }
    }

    pub(super) fn refuse_peer(&mut self, connection: ConnectionId, request_id: u64, out: &mut Output) {
        let message = "this shard does not hold the key, or does not serve yet";
        let epoch = self.view.epoch;
        let error = ErrorAnswer { epoch, ..ErrorAnswer::new(ErrorCode::WrongShard, message) };
        let encoder = &mut self.encoder;
        out.deliver(connection, true, |bytes| error.encode(encoder, request_id, Flags::NONE, bytes));
    }

    /// What a sibling shard said.
    pub(super) fn on_sibling(&mut self, now: Now, from: ShardId, message: SiblingMessage, out: &mut Output) {
        match message {
            SiblingMessage::Request { ticket, hops, budget, frame } => {
                let frame = Frame::split(&frame, frame.len()).ok().flatten();
                let frame = frame.expect("siblings pass on whole frames");
                let origin = Origin::Sibling { shard: from, ticket, hops };
                self.on_request(now, origin, &frame, Some(budget), out);
            }
            SiblingMessage::Answer { ticket, frame } => self.on_sibling_answered(from, ticket, &frame, out),
            SiblingMessage::View(view) => {
                self.take_view(view, out);
                let progress = Box::new(self.progress_of_streams());
                out.siblings.push((from, SiblingMessage::ViewTaken(progress)));
            }
            SiblingMessage::ViewTaken(progress) => self.on_view_taken(from, &progress, out),
            SiblingMessage::Lost(lost) => self.on_sibling_lost(&lost, out),
        }
    }
}

/// The writes that this state has replaced, as the replica knows them.
pub(super) fn replaced_by<'a>(replicate: &Replicate<'a>) -> impl Iterator<Item = OperationId> + use<'a> {
    let replaced = replicate.replaced();
    replaced.map(|write| OperationId { client: write.client(), sequence: write.sequence() })
}
