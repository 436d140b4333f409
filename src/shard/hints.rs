//! Hinted handoff: keeping what other nodes could not take, and handing it over when they are back.

use ringmain_schema::Flags;
use ringmain_schema::message::{ErrorAnswer, ErrorCode};
use ringmain_schema::peer::{Operation as WireOperation, Replicate, ReplicateWriter};
use smallvec::SmallVec;

use crate::causality::Siblings;
use crate::failpoint::{Bug, Failpoints, Rare};
use crate::hint::{Full, HintStore, Keeping};
use crate::id::{ConnectionId, NodeId, OperationId, PartitionId};
use crate::membership::{Health, Intent, Step};
use crate::pace::Claimant;
use crate::replica::{Place, state_from_wire, state_writer};
use crate::time::{Duration, Instant, Now};

use super::Shard;
use super::appends::Waiter;
use super::io::{Append, Output};
use super::operations::Nodes;
use super::peers::replaced_by;
use super::table::{Table, Tag};

/// Look again so long after nobody could be handed anything, unless an acknowledgement comes before.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Hints of one shard that are sent and not acknowledged: whoever is slow to take them slows their holder down.
const UNDER_WAY_MAX: usize = 32;
/// An acknowledgement that takes longer is not waited for: the hint is sent again.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(2);

/// All hints of a shard, and those on their way.
#[derive(Debug)]
pub(super) struct Hints {
    pub(super) store: HintStore,
    under_way: Table<HandingOver>,
    next: Instant,
    /// Counts hand-overs: each begins with another target.
    turns: usize,
}

/// A hint that was sent.
#[derive(Debug)]
struct HandingOver {
    /// For whom it is kept.
    target: NodeId,
    /// The target; if that owns the key no more, somebody who does.
    to: NodeId,
    key: Box<[u8]>,
    version: u64,
    since: Instant,
}

impl Hints {
    pub(super) const fn new(bytes_max: usize) -> Self {
        let under_way = Table::new(UNDER_WAY_MAX, Tag::Hints);
        Self { store: HintStore::new(bytes_max), under_way, next: Instant(0), turns: 0 }
    }

    /// Was this hint sent there, and is not acknowledged yet?
    fn is_under_way(&mut self, target: NodeId, to: NodeId, key: &[u8]) -> bool {
        let tickets: SmallVec<[u64; UNDER_WAY_MAX]> = self.under_way.keys().collect();
        let is_same = |sent: &mut HandingOver| sent.target == target && sent.to == to && *sent.key == *key;
        tickets.into_iter().any(|ticket| self.under_way.get_mut(ticket).is_some_and(is_same))
    }

    /// When to hand over the next; never, if there are none.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        (!self.store.is_empty()).then_some(self.next)
    }
}

impl<F: Failpoints> Shard<F> {
    /// A coordinator asks this node to keep a write for another.
    pub(super) fn on_hint(
        &mut self,
        connection: ConnectionId,
        request_id: u64,
        place: Place<'_>,
        replicate: &Replicate<'_>,
        out: &mut Output,
    ) {
        let target = NodeId(replicate.hint_for);
        let state = state_from_wire(&replicate.state);
        let (Ok(state), true) = (state, self.view.is_serving() && self.is_mine(place.partition)) else {
            return self.refuse_peer(connection, request_id, out);
        };
        if !self.takes_hints(place.partition) || self.view.member(target).is_none() {
            return self.refuse_peer(connection, request_id, out);
        }
        match self.keep_hint(target, place, &state, replicate, out) {
            Ok(()) => {
                self.counters.replicated_in += 1;
                self.failpoints.reached(Rare::HintKept);
                let sequence = self.hint_record(target, place);
                if self.is_durable(sequence) {
                    self.send_replicated(connection, request_id, out);
                } else {
                    let (partition, epoch) = (place.partition, replicate.partition_epoch);
                    let waiter = Waiter::Peer { connection, request_id, partition, epoch };
                    self.wait_for_record(sequence, waiter);
                }
            }
            Err(Full) => {
                self.failpoints.reached(Rare::HintDeclined);
                self.counters.hints_declined += 1;
                let message = "this node keeps as much for others as it may: ask another";
                let error = ErrorAnswer::new(ErrorCode::Overloaded, message);
                let encoder = &mut self.encoder;
                out.deliver(connection, true, |bytes| {
                    error.encode(encoder, request_id, Flags::NONE, bytes);
                });
            }
        }
    }

    fn keep_hint(
        &mut self,
        target: NodeId,
        place: Place<'_>,
        state: &Siblings<bytes::Bytes>,
        replicate: &Replicate<'_>,
        out: &mut Output,
    ) -> Result<(), Full> {
        if self.is_about_to_leave() || self.log_refusal().is_some() {
            return Err(Full);
        }
        let keeping = Keeping { target, key: place.key, partition: place.partition };
        if !self.make_room_to_keep(keeping, state, 0) {
            return Err(Full);
        }
        let known = self.hints.store.find(target, place.key);
        let gone: SmallVec<[OperationId; 1]> = known
            .into_iter()
            .flat_map(|hint| hint.state.replaced_in(state))
            .map(|gone| gone.operation)
            .collect();
        let is_news = self.hints.store.keep(keeping, state, self.next_append())?;
        self.hints.store.note_replaced(target, place.key, replaced_by(replicate));
        // A retry of what this state has replaced may come here while no primary can be reached.
        let are_news = self
            .replica
            .remember_replaced(gone.into_iter().chain(replaced_by(replicate)), self.next_append());
        if is_news {
            self.counters.hints_kept += 1;
        }
        if is_news || are_news {
            let replaced: SmallVec<[WireOperation; 1]> = replicate.replaced().copied().collect();
            self.append_hint(target, place, &replaced, out);
        }
        Ok(())
    }

    /// This node has stated that it keeps nothing for others, so that it can go: it must stay so.
    pub(super) fn is_about_to_leave(&self) -> bool {
        let is_stated = self.view.change.is_some() && self.view.works.step != Step::Writing;
        is_stated && self.view.myself().intent == Intent::Leaving
    }

    /// What is kept of a key for whomever, expired versions turned into tombstones.
    pub(super) fn kept(&self, now: Now, place: Place<'_>) -> Siblings<bytes::Bytes> {
        let mut known = self.hints.store.known(place.key);
        known.expire(now.wall);
        known
    }

    /// What is kept of a key for this target has left, or has been gone since before a restart. Its writes were applied
    /// here all the same: a retry of one is not a new write.
    fn remember_writes(&mut self, target: NodeId, key: &[u8]) {
        if let Some(hint) = self.hints.store.find(target, key) {
            let writes = hint.state.versions().iter().map(|version| version.operation);
            self.replica.remember_replaced(writes, hint.appended);
        }
    }

    /// The log record that covers what is kept of a key for this target; 0 if there is no log.
    pub(super) fn hint_record(&self, target: NodeId, place: Place<'_>) -> u64 {
        self.hints.store.find(target, place.key).map_or(0, |hint| hint.appended)
    }

    /// Write a hint to the log, if there is one; a hint that is gone leaves an empty state.
    pub(super) fn append_hint(
        &mut self,
        target: NodeId,
        place: Place<'_>,
        replaced: &[WireOperation],
        out: &mut Output,
    ) {
        self.append_hint_as(target, place, replaced, false, out);
    }

    /// The same; a hint that is gone may be lost.
    fn append_hint_as(
        &mut self,
        target: NodeId,
        place: Place<'_>,
        replaced: &[WireOperation],
        is_lost: bool,
        out: &mut Output,
    ) {
        if !self.options.durable {
            return;
        }
        let sequence = self.take_append();
        let kept = self.hints.store.find(target, place.key);
        let record = ReplicateWriter {
            key: place.key,
            state: kept.map(|hint| state_writer(&hint.state)).unwrap_or_default(),
            ring: 0,
            partition_epoch: self.epochs.number(place.partition),
            repair: is_lost,
            replaced,
            hint_for: target.0,
            exchange: false,
        };
        let start = out.bytes.len();
        record.encode(&mut self.encoder, 0, &mut out.bytes);
        let is_marker = self.hints.store.find(target, place.key).is_none();
        out.appends.push(Append { sequence, record: start..out.bytes.len(), is_marker });
    }

    /// Hand over what waits, as far as the budget goes: to each who should have it and can be reached, in turn.
    pub(super) fn hand_over(&mut self, now: Now, out: &mut Output) {
        if self.hints.next_timeout().is_none_or(|at| at > now.monotonic) {
            return;
        }
        self.hints.next = now.monotonic + LOOK_AGAIN_AFTER;
        self.give_up_unacknowledged(now.monotonic);
        let mut backlog: Vec<(NodeId, usize)> =
            self.hints.store.backlog().map(|(target, keys, _)| (target, keys)).collect();
        self.hints.turns = self.hints.turns.wrapping_add(1);
        let first = self.hints.turns % backlog.len().max(1);
        backlog.rotate_left(first);
        for round in 0..UNDER_WAY_MAX {
            for &(target, _) in backlog.iter().filter(|(_, keys)| *keys > round) {
                if self.hints.under_way.is_full() {
                    return;
                }
                if !self.may_spend(Claimant::Handoff, now) {
                    self.hints.next = self.ready_at(Claimant::Handoff, now);
                    return;
                }
                self.hand_over_next(now, target, out);
            }
        }
    }

    /// Who must hold what is kept for `target`: the target while it owns the partition, else all who do. A member that was
    /// removed takes nothing any more. While the ring changes, the owners to be may have streamed from the target before it
    /// is handed this: then it comes to them too, to all of them if the target is to own the partition no more.
    fn heirs(&self, target: NodeId, partition: PartitionId) -> Nodes {
        let is_here =
            |node: &NodeId| self.view.member(*node).is_some_and(|member| member.intent != Intent::Removed);
        let owners = self.owners(partition);
        if owners.contains(target) && is_here(&target) {
            let stays = owners.successors.contains(&target);
            let lacks_it = |node: &&NodeId| !stays || !owners.primaries.contains(node);
            let to_be = owners.successors.iter().filter(lacks_it).filter(|node| is_here(node)).copied();
            std::iter::once(target).chain(to_be.filter(|node| *node != target)).collect()
        } else if self.failpoints.planted(Bug::HintsDrainedBeforeMove) {
            Nodes::new()
        } else {
            owners.iter().filter(is_here).collect()
        }
    }

    fn give_up_unacknowledged(&mut self, now: Instant) {
        let under_way: Vec<u64> = self.hints.under_way.keys().collect();
        for ticket in under_way {
            let late = |sent: &mut HandingOver| now.since(sent.since) > ACKNOWLEDGED_WITHIN;
            if self.hints.under_way.get_mut(ticket).is_some_and(late) {
                self.hints.under_way.remove(ticket);
            }
        }
    }

    /// Send the next hint to those who should have it and don't; take it over if this node is one of them.
    fn hand_over_next(&mut self, now: Now, target: NodeId, out: &mut Output) {
        let Some((key, hint)) = self.hints.store.next(target) else { return };
        let (key, version, held_by): (Box<[u8]>, _, _) = (key.into(), hint.version, hint.held_by.clone());
        let place = self.place(&key);
        // A hint that it had lost the end of would come back, with the epoch of now.
        if !self.is_met(place.partition) {
            return;
        }
        let heirs = self.heirs(target, place.partition);
        let is_given_up = heirs.is_empty() && self.failpoints.planted(Bug::HintsDrainedBeforeMove);
        if is_home(&heirs, &held_by) || is_given_up {
            // There was one more who should have it, and it has left.
            return self.drop_held(target, place, out);
        }
        for heir in heirs.into_iter().filter(|heir| !held_by.contains(heir)) {
            if heir == self.view.me {
                self.take_over(target, place, version, out);
            } else if self.detector.health(now.monotonic, heir) == Health::Up
                && !self.hints.is_under_way(target, heir, &key)
            {
                let handing =
                    HandingOver { target, to: heir, key: key.clone(), version, since: now.monotonic };
                self.send_handing_over(now, handing, out);
            }
        }
    }

    /// What is kept for another is this node's own to hold now.
    fn take_over(&mut self, target: NodeId, place: Place<'_>, version: u64, out: &mut Output) {
        if self.log_refusal().is_some() || !self.takes_copies(place.partition) {
            return;
        }
        let Some(state) = self.hints.store.find(target, place.key).map(|hint| hint.state.clone()) else {
            return;
        };
        if !self.can_merge(place, &state, out) {
            // It is looked at again before long.
            return;
        }
        if self.make_room_to_merge(place, &state) {
            self.merge_here(place, &state, out);
        } else if !self.put_out_at_once(place, &state) {
            return;
        }
        if self.is_on_record(place) {
            self.count_held(target, place, version, self.view.me, out);
        }
    }

    fn send_handing_over(&mut self, now: Now, handing: HandingOver, out: &mut Output) {
        let (target, to, key) = (handing.target, handing.to, handing.key.clone());
        let partition = self.place(&key).partition;
        let link = self.link_to(to, partition).and_then(|link| self.links.connection(link));
        let Some(connection) = link else { return };
        let Ok(ticket) = self.hints.under_way.insert(handing) else { return };
        let Some(hint) = self.hints.store.find(target, &key) else { return };
        let replicate = ReplicateWriter {
            key: &key,
            state: state_writer(&hint.state),
            ring: self.view.ring.hash(),
            partition_epoch: self.epochs.number(partition),
            repair: true,
            replaced: &[],
            hint_for: 0,
            exchange: false,
        };
        let (encoder, before) = (&mut self.encoder, out.bytes.len());
        out.deliver(connection, false, |bytes| replicate.encode(encoder, ticket, bytes));
        self.pace.spent(Claimant::Handoff, out.bytes.len() - before, 1);
        self.detector.on_asked(now.monotonic, to);
        if self.failpoints.planted(Bug::FailedReplayIsDone) {
            self.on_handed_over(ticket, to, out);
        }
    }

    /// `from` holds the hint on stable storage.
    pub(super) fn on_handed_over(&mut self, ticket: u64, from: NodeId, out: &mut Output) {
        if self.hints.under_way.get_mut(ticket).is_none_or(|sent| sent.to != from) {
            return;
        }
        let Some(sent) = self.hints.under_way.remove(ticket) else { return };
        // There is room for the next.
        self.hints.next = Instant(0);
        let place = self.place(&sent.key);
        self.count_held(sent.target, place, sent.version, from, out);
    }

    /// `node` holds this version of a hint; if all do who should, it is dropped, and not before.
    fn count_held(&mut self, target: NodeId, place: Place<'_>, version: u64, node: NodeId, out: &mut Output) {
        let heirs = self.heirs(target, place.partition);
        let held_by = self.hints.store.held(target, place.key, version, node);
        if held_by.is_some_and(|held_by| is_home(&heirs, held_by)) {
            self.drop_held(target, place, out);
        }
    }

    fn drop_held(&mut self, target: NodeId, place: Place<'_>, out: &mut Output) {
        self.counters.hints_handed_over += 1;
        self.failpoints.reached(Rare::HintHandedOver);
        self.forget_hint(target, place, out);
    }

    /// Nothing is kept of this key for this target any more.
    pub(super) fn forget_hint(&mut self, target: NodeId, place: Place<'_>, out: &mut Output) {
        self.remember_writes(target, place.key);
        self.hints.store.forget(target, place.key);
        self.append_hint(target, place, &[], out);
    }

    /// The same, of what may be older than what others have forgotten.
    pub(super) fn lose_hint(&mut self, target: NodeId, place: Place<'_>, out: &mut Output) {
        self.remember_lost_hint(target, place.key);
        self.hints.store.forget(target, place.key);
        self.append_hint_as(target, place, &[], true, out);
    }

    pub(super) fn remember_lost_hint(&mut self, target: NodeId, key: &[u8]) {
        if let Some(hint) = self.hints.store.find(target, key) {
            let writes = hint.state.versions().iter().map(|version| version.operation);
            self.replica.remember_lost(writes, hint.appended);
        }
    }

    /// Who was to take it refused, or is gone: it will be sent again.
    pub(super) fn on_not_handed_over(&mut self, ticket: u64) {
        self.hints.under_way.remove(ticket);
    }

    /// From the log, before the first input.
    pub(super) fn recover_hint(
        &mut self,
        place: Place<'_>,
        target: NodeId,
        state: &Siblings<bytes::Bytes>,
        told: &Replicate<'_>,
        sequence: u64,
    ) {
        if self.failpoints.planted(Bug::HintsForgottenAtRestart) {
            return;
        }
        let is_lost = told.repair;
        self.epochs.recovered.on_hint(target, place.key);
        let keeping = Keeping { target, key: place.key, partition: place.partition };
        if state.is_empty() {
            if is_lost {
                self.remember_lost_hint(target, place.key);
            } else {
                self.remember_writes(target, place.key);
            }
            self.hints.store.forget(target, place.key);
        } else {
            self.hints.store.recover(keeping, state.clone(), sequence);
            self.hints.store.note_replaced(target, place.key, replaced_by(told));
            self.epochs.recovered.note_hint(target, place.key, told.partition_epoch);
            self.failpoints.reached(Rare::HintRecovered);
        }
    }

    /// What this shard keeps for others.
    pub const fn hints(&self) -> &HintStore {
        &self.hints.store
    }
}

/// Do all hold a hint who should?
fn is_home(heirs: &[NodeId], held_by: &[NodeId]) -> bool {
    !heirs.is_empty() && heirs.iter().all(|heir| held_by.contains(heir))
}
