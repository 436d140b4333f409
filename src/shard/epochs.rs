//! Partitions' epochs: which copies and hints may still be taken in (docs/adr/0013).
//!
//! All that a shard holds of a partition, copies and hints alike, is of one epoch, and every message about copies
//! carries its sender's. What is of another is refused, and whoever is behind is told how the epoch was raised: a
//! primary that has confirmed that round follows it; any other copy may hold what was forgotten, and is wiped and
//! streamed again.
//!
//! The rounds that raise an epoch are in `rounds`, the way back of who has lost its records in `meeting`, what the log keeps
//! of all this in `epoch_log`.

use std::collections::{BTreeMap, BTreeSet};

use ringmain_schema::epoch::{Binding, Epoch};

use crate::failpoint::{Bug, Failpoints, Rare};
use crate::id::{ConnectionId, NodeId, PartitionId, ShardId};
use crate::membership::{BORN, PartitionSet};
use crate::storage::digest;
use crate::time::{Instant, Now};

use super::Shard;
use super::appends::Waiter;
use super::epoch_log::Recovered;
use super::io::{LogState, Output, SiblingMessage};
use super::links::LinkId;
use super::meeting::Meeting;
use super::rounds::Rounds;

/// Whatever counts up honestly stays below this.
pub(super) const EPOCH_MAX: u64 = 1 << 48;
/// So many may wait for an epoch that can't be told yet; more are refused.
const ASKED_WAITING_MAX: usize = 1024;
/// Nobody who has kept its records is behind by more: each raise waits for all members, and takes milliseconds at least.
const BEHIND_MAX: u64 = 1 << 20;

/// What a shard knows of the epochs of its partitions.
#[derive(Debug, Default)]
pub(super) struct Epochs {
    /// Of partitions of which there is something to know.
    all: BTreeMap<PartitionId, Known>,
    /// Those with rounds by which this shard is bound, and those that are to be streamed again: asked for at each turn.
    bound: BTreeSet<PartitionId>,
    lost: BTreeSet<PartitionId>,
    /// Beginnings of others that this shard has noted for good; at most one for each member.
    pub(super) beginnings: BTreeMap<NodeId, u64>,
    /// The log record that covers these.
    pub(super) beginnings_recorded: u64,
    /// Shard 0 was told of what is lost, and has shown no view since.
    is_loss_told: bool,
    pub(super) rounds: Rounds,
    pub(super) meeting: Meeting,
    pub(super) recovered: Recovered,
}

/// What a shard holds of a partition whose epoch is raised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Held {
    /// It is bound by the round of that raise: what was forgotten is listed.
    Confirmed,
    /// It may be older than what was forgotten.
    Older,
    /// The same, in a shard in memory that took itself for newly born until now: the founders had lost their memory, and another
    /// hadn't. What it has minted alone since it was started may have been acknowledged, and nobody has forgotten any of that.
    Reborn,
}

/// What it knows of one.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) epoch: Epoch,
    /// The log record that covers it; 0 if there is no log.
    pub(super) recorded: u64,
    /// The log record with which the last raise can't be undone any more; 0 if it never can. Only who has proposed a raise
    /// can undo it, by a crash; whoever else knows of it was told when it could not.
    pub(super) certain_with: u64,
    /// Shard 0 knows that this partition is lost, and the others hear of it.
    is_loss_known: bool,
}

impl Epochs {
    pub(super) fn known(&self, partition: PartitionId) -> Option<&Known> {
        self.all.get(&partition)
    }

    pub(super) fn known_mut(&mut self, partition: PartitionId) -> &mut Known {
        let known = self.all.entry(partition).or_default();
        known.epoch.partition = partition.0;
        known
    }

    pub(super) fn number(&self, partition: PartitionId) -> u64 {
        self.known(partition).map_or(0, |known| known.epoch.epoch)
    }

    pub(super) fn bindings(&self, partition: PartitionId) -> &[Binding] {
        self.known(partition).map_or(&[], |known| &known.epoch.bindings)
    }

    /// Partitions with rounds by which this shard is bound.
    pub(super) fn bound(&self) -> impl Iterator<Item = (PartitionId, &Known)> {
        self.bound.iter().filter_map(|partition| Some((*partition, self.all.get(partition)?)))
    }

    /// Is anything to be streamed again?
    pub(super) fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Is there a round by which this shard is bound?
    pub(super) fn is_bound(&self) -> bool {
        !self.bound.is_empty()
    }

    /// Something has changed.
    pub(super) fn note(&mut self, partition: PartitionId) {
        let epoch = self.all.get(&partition).map(|known| &known.epoch);
        note_in(&mut self.bound, partition, epoch.is_some_and(|epoch| !epoch.bindings.is_empty()));
        note_in(&mut self.lost, partition, epoch.is_some_and(|epoch| epoch.lost));
    }

    /// What was wiped and has not been streamed again.
    fn is_lost(&self, partition: PartitionId) -> bool {
        self.known(partition).is_some_and(|known| known.epoch.lost)
    }
}

impl<F: Failpoints> Shard<F> {
    /// The epoch of all that this shard holds of a partition.
    pub fn epoch(&self, partition: PartitionId) -> u64 {
        self.epochs.number(partition)
    }

    /// Another one, and greater, each time that this node has lost its records.
    pub(super) fn beginning(&self) -> u64 {
        self.view.myself().oneself.beginning
    }

    /// Need nobody fear a raise that rests on what this node has said before it lost its records?
    pub(super) fn is_met(&self, partition: PartitionId) -> bool {
        let beginning = self.beginning();
        beginning <= BORN
            || self.epochs.known(partition).is_some_and(|known| known.epoch.met == beginning)
            || self.failpoints.planted(Bug::AcknowledgesUnmet)
    }

    /// Has this shard promised to keep nothing of this epoch?
    pub(super) fn has_promised(&self, partition: PartitionId) -> bool {
        self.epochs.bindings(partition).iter().any(Binding::promised)
    }

    /// May this shard take copies of this partition as one of its owners?
    pub(super) fn takes_copies(&self, partition: PartitionId) -> bool {
        self.is_met(partition) && !self.has_promised(partition)
    }

    /// May it keep hints? Whoever confirms says that it holds none, like whoever promises.
    pub(super) fn takes_hints(&self, partition: PartitionId) -> bool {
        self.is_met(partition) && self.epochs.bindings(partition).is_empty()
    }

    /// Does this node hold all that was ever acknowledged to it?
    pub(super) fn holds_all(&self, partition: PartitionId) -> bool {
        self.view.is_complete_for(partition) && !self.epochs.is_lost(partition)
    }

    /// Is what was said in this epoch of now? If not, it's answered with the epoch of now.
    pub(super) fn is_current(
        &mut self,
        connection: ConnectionId,
        request_id: u64,
        partition: PartitionId,
        theirs: u64,
        out: &mut Output,
    ) -> bool {
        if !self.is_mine(partition) || !self.is_met(partition) {
            self.refuse_peer(connection, request_id, out);
            return false;
        }
        if theirs == self.epoch(partition) || self.failpoints.planted(Bug::AnyEpochIsTaken) {
            return true;
        }
        if theirs < self.epoch(partition) {
            self.failpoints.reached(Rare::OlderRefused);
        }
        self.answer_epoch(connection, request_id, partition, out);
        false
    }

    /// Can the last raise not be undone any more, by a crash of who has proposed it?
    pub(super) fn is_certain(&self, partition: PartitionId) -> bool {
        self.uncertain_until(partition).is_none()
    }

    /// The record with which it can't, if that is not on stable storage yet.
    fn uncertain_until(&self, partition: PartitionId) -> Option<u64> {
        let certain_with = self.epochs.known(partition).map_or(0, |known| known.certain_with);
        (!self.is_durable(certain_with)).then_some(certain_with)
    }

    /// Answer a question with how the epoch was raised: when that can't be undone any more.
    pub(super) fn answer_epoch(
        &mut self,
        connection: ConnectionId,
        request_id: u64,
        partition: PartitionId,
        out: &mut Output,
    ) {
        if !self.is_met(partition) {
            return self.refuse_peer(connection, request_id, out);
        }
        if let Some(certain_with) = self.uncertain_until(partition) {
            // A log that takes nothing may never have that record.
            if self.log_state() != LogState::Open || self.asked_waiting() >= ASKED_WAITING_MAX {
                return self.refuse_peer(connection, request_id, out);
            }
            let waiter = Waiter::Asked { connection, request_id, partition };
            return self.wait_for_record(certain_with, waiter);
        }
        let told = self.epoch_to_tell(partition);
        let encoder = &mut self.encoder;
        out.deliver(connection, true, |bytes| told.encode(encoder, request_id, bytes));
    }

    /// Tell, unasked, how the epoch was raised; false if that can still be undone or isn't known.
    pub(super) fn tell_epoch(
        &mut self,
        connection: ConnectionId,
        partition: PartitionId,
        out: &mut Output,
    ) -> bool {
        let may_tell = self.is_certain(partition) && self.is_met(partition);
        if may_tell {
            let told = self.epoch_to_tell(partition);
            let encoder = &mut self.encoder;
            out.deliver(connection, false, |bytes| told.encode(encoder, 0, bytes));
        }
        may_tell
    }

    fn epoch_to_tell(&self, partition: PartitionId) -> Epoch {
        let known = self.epochs.known(partition).map(|known| known.epoch.clone()).unwrap_or_default();
        Epoch {
            partition: partition.0,
            epoch: known.epoch,
            proposer: known.proposer,
            round: known.round,
            reaped: known.reaped,
            pruned: known.pruned,
            ..Epoch::default()
        }
    }

    /// Another node told its epoch: by itself, or as the answer to something that it refused.
    pub(super) fn on_epoch(
        &mut self,
        now: Now,
        connection: ConnectionId,
        link: LinkId,
        request_id: u64,
        told: &Epoch,
        out: &mut Output,
    ) {
        let partition = PartitionId(told.partition);
        let is_ours = told.partition < self.trees.partitions() && self.is_mine(partition);
        // Nobody tells what it doesn't know itself, and no member is told by who is none.
        let is_whole = told.epoch == 0 || told.proposer != 0;
        let is_member = self.view.member(link.node).is_some();
        // Who has lost its records takes only what follows from all words.
        let most = if self.is_met(partition) { self.epoch(partition) + BEHIND_MAX } else { EPOCH_MAX };
        let is_credible = told.epoch <= EPOCH_MAX.min(most);
        if is_ours && is_whole && is_member && is_credible {
            if !self.is_met(partition) {
                self.on_told_how(now, told, out);
            } else if told.epoch > self.epoch(partition) {
                self.follow(now, request_id, told, out);
            } else if told.epoch < self.epoch(partition) {
                // If it can't be told yet, all is sent again when it can.
                if self.tell_epoch(connection, partition, out) {
                    self.send_again(now, request_id, link.node, out);
                }
            } else if request_id != 0 {
                // It refused what was sent in the epoch before.
                self.send_again(now, request_id, link.node, out);
            }
        }
        self.on_not_handed_over(request_id);
        self.on_exchange_over(now, link, request_id);
    }

    /// The epoch was raised elsewhere.
    fn follow(&mut self, now: Now, request_id: u64, told: &Epoch, out: &mut Output) {
        let partition = PartitionId(told.partition);
        let is_next = told.epoch == self.epoch(partition) + 1;
        let mut bindings = self.epochs.bindings(partition).iter();
        let is_bound = bindings.any(|bound| (bound.proposer(), bound.round()) == (told.proposer, told.round));
        // Whoever hears it as an answer has missed it before.
        if is_next && is_bound && request_id != 0 && self.view.owns(partition) {
            self.failpoints.reached(Rare::CaughtUp);
        }
        let held = if is_next && is_bound { Held::Confirmed } else { Held::Older };
        self.raise(now, told, held, out);
    }

    /// The epoch is another from here on. Whoever is bound by the round that raised it forgets what all have confirmed,
    /// where it is still the same; a copy of anybody else is wiped.
    pub(super) fn raise(&mut self, now: Now, told: &Epoch, held: Held, out: &mut Output) {
        let partition = PartitionId(told.partition);
        let is_owner = self.view.owns(partition);
        let is_bound = held == Held::Confirmed;
        let (mut gone, mut wiped) = (Vec::new(), Vec::new());
        if is_bound {
            let reaped = told.reaped.iter();
            gone.extend(reaped.flat_map(|(token, hash)| self.replica.reap(partition, *token, *hash)));
        } else {
            wiped = self.replica.wipe(partition, held == Held::Reborn);
            self.streams.forget(partition);
            self.forget_evictions(partition);
        }
        self.epochs.meeting.on_raised(partition);
        let known = self.epochs.known_mut(partition);
        let (met, lost) = (known.epoch.met, known.epoch.lost || (!is_bound && is_owner));
        let (bindings, is_wiped) = (Vec::new(), !is_bound);
        known.is_loss_known &= is_bound;
        known.certain_with = 0;
        known.epoch = Epoch { bindings, met, lost, wiped: is_wiped, ..told.clone() };
        self.record_epoch(partition, out);
        if is_wiped {
            self.append_given_up(partition, true, out);
        }
        for entry in &gone {
            self.append_gone(&entry.key, out);
            self.failpoints.reaped(&entry.key, &entry.state);
            self.failpoints.reached(Rare::Reaped);
            self.counters.keys_reaped += 1;
        }
        if is_bound {
            told.pruned.iter().for_each(|(token, hash)| self.prune(partition, *token, *hash, out));
        }
        wiped.iter().for_each(|entry| self.failpoints.wiped(&entry.key, &entry.state));
        let hints = self.drop_hints(partition, held == Held::Reborn, out);
        if !wiped.is_empty() || (!is_bound && hints > 0) {
            self.failpoints.reached(Rare::OlderCopyWiped);
            self.counters.keys_wiped += wiped.len() as u64;
        }
        self.exchanges.forget(partition);
        self.keep_trees();
        self.begin_again(now, partition, !is_bound, out);
    }

    fn prune(&mut self, partition: PartitionId, token: u64, hash: u64, out: &mut Output) {
        if F::WATCHED {
            let under = self.replica.index().under(partition, token);
            let same = under.filter(|entry| digest(token, &entry.state) == hash);
            same.for_each(|entry| self.failpoints.pruned(&entry.key, &entry.state));
        }
        for key in self.replica.prune(partition, token, hash) {
            // If too much is being read, a crash brings back what was pruned, as it may before the record is durable.
            self.append_anew(self.place(&key), out);
            self.failpoints.reached(Rare::Pruned);
            self.counters.keys_pruned += 1;
        }
    }

    /// Hints of an epoch that is over: whoever is bound has none.
    fn drop_hints(&mut self, partition: PartitionId, but_own: bool, out: &mut Output) -> usize {
        if self.failpoints.planted(Bug::ReapIgnoresHints) || !self.hints.store.keeps(partition) {
            return 0;
        }
        let mut hints = self.hints.store.of_partition(partition);
        let is_own = |(target, key): &(NodeId, Box<[u8]>)| {
            self.hints.store.find(*target, key).is_some_and(|hint| self.replica.is_own(&hint.state))
        };
        hints.retain(|hint| !(but_own && is_own(hint)));
        for (target, key) in &hints {
            let place = self.place(key);
            self.lose_hint(*target, place, out);
        }
        hints.len()
    }

    /// Some of this partition is lost here: it is streamed again.
    pub(super) fn mark_lost(&mut self, partition: PartitionId, out: &mut Output) {
        if self.view.owns(partition) {
            let known = self.epochs.known_mut(partition);
            known.epoch.lost = true;
            known.is_loss_known = false;
            self.record_epoch(partition, out);
        }
    }

    /// Partitions that were wiped, and of which shard 0 doesn't know it yet.
    pub(super) fn lost_partitions(&self) -> PartitionSet {
        if !self.epochs.has_lost() {
            return PartitionSet::default();
        }
        let is_loss_known = |partition| self.epochs.known(partition).is_some_and(|known| known.is_loss_known);
        self.epochs.lost.iter().copied().filter(|partition| !is_loss_known(*partition)).collect()
    }

    /// Shard 0 hears of what was wiped: at once, and once between two views.
    pub(super) fn tell_loss(&mut self, out: &mut Output) {
        if self.membership.is_some() || self.epochs.is_loss_told || !self.epochs.has_lost() {
            return;
        }
        let lost = self.lost_partitions();
        if !lost.is_empty() {
            self.epochs.is_loss_told = true;
            out.siblings.push((ShardId(0), SiblingMessage::Lost(Box::new(lost))));
        }
    }

    /// A view was taken: does it show what is lost here, or that it has been streamed again?
    pub(super) fn follow_with_epochs(&mut self, out: &mut Output) {
        self.epochs.is_loss_told = false;
        self.forget_what_was_told();
        self.look_whom_to_meet();
        if !self.epochs.has_lost() {
            return;
        }
        for partition in self.epochs.lost.clone() {
            let is_complete = self.view.is_complete_for(partition);
            let is_owner = self.view.owns(partition);
            let known = self.epochs.known_mut(partition);
            if !is_owner {
                // Nobody streams it again to who doesn't own it.
                known.epoch.lost = false;
                self.record_epoch(partition, out);
            } else if !is_complete {
                known.is_loss_known = true;
            } else if known.is_loss_known {
                known.epoch.lost = false;
                self.record_epoch(partition, out);
            }
        }
    }

    /// When something about epochs is due.
    pub(super) fn next_epochs(&self) -> Option<Instant> {
        let all = [self.next_meeting(), self.next_in_rounds()].into_iter().flatten();
        // A node that doesn't serve waits for others, who will wake it.
        all.min().filter(|_| self.view.is_serving())
    }

    pub(super) fn tend_epochs(&mut self, now: Now, out: &mut Output) {
        if self.next_epochs().is_some_and(|at| at <= now.monotonic) {
            self.tend_meeting(now, out);
            self.tend_rounds(now, out);
        }
    }
}

fn note_in(set: &mut BTreeSet<PartitionId>, partition: PartitionId, is_in: bool) {
    if is_in {
        set.insert(partition);
    } else {
        set.remove(&partition);
    }
}
