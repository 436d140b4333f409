//! Partitions' epochs: which copies and hints may still be taken in (docs/adr/0013).
//!
//! All that a shard holds of a partition, copies and hints alike, is of one epoch, and every message about copies
//! carries its sender's. What is of another is refused, and whoever is behind is told how the epoch was raised: a
//! primary that has confirmed that round follows it; any other copy may hold what was forgotten, and is wiped and
//! streamed again.
//!
//! The rounds that raise an epoch are in `rounds`, the way back of who has lost its records in `meeting`.

use std::collections::BTreeMap;

use ringmain_schema::epoch::{Binding, Epoch, Lives};
use ringmain_schema::peer::ReplicateWriter;

use crate::failpoint::{Bug, Failpoints, Rare};
use crate::id::{ConnectionId, NodeId, PartitionId, ShardId};
use crate::membership::{BORN, PartitionSet};
use crate::replica::Place;
use crate::storage::digest;
use crate::time::{Instant, Now};

use super::Shard;
use super::appends::Waiter;
use super::io::{Append, Output, SiblingMessage};
use super::links::LinkId;
use super::meeting::Meeting;
use super::rounds::Rounds;

/// Whatever counts up honestly stays below this.
pub(super) const EPOCH_MAX: u64 = 1 << 48;

/// What a shard knows of the epochs of its partitions.
#[derive(Debug, Default)]
pub(super) struct Epochs {
    /// Of partitions of which there is something to know.
    all: BTreeMap<PartitionId, Known>,
    /// Is this shard bound by any round, and is any partition to be streamed again? Asked at each turn.
    is_bound: bool,
    is_any_lost: bool,
    /// Lives of others that this shard has noted for good; at most one for each member.
    pub(super) lives: BTreeMap<NodeId, u64>,
    /// The log record that covers these.
    pub(super) lives_recorded: u64,
    /// Shard 0 was told of what is lost, and has shown no view since.
    is_loss_told: bool,
    pub(super) rounds: Rounds,
    pub(super) meeting: Meeting,
}

/// What it knows of one.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) epoch: Epoch,
    /// The log record that covers it; 0 if there is no log.
    recorded: u64,
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
        let all = self.all.iter().map(|(partition, known)| (*partition, known));
        all.filter(|(_, known)| !known.epoch.bindings.is_empty())
    }

    /// Is anything to be streamed again?
    pub(super) const fn has_lost(&self) -> bool {
        self.is_any_lost
    }

    /// Is there a round by which this shard is bound?
    pub(super) const fn is_bound(&self) -> bool {
        self.is_bound
    }

    /// Something has changed.
    fn note(&mut self) {
        self.is_bound = self.all.values().any(|known| !known.epoch.bindings.is_empty());
        self.is_any_lost = self.all.values().any(|known| known.epoch.lost);
    }

    /// What was wiped and has not been streamed again.
    fn is_lost(&self, partition: PartitionId) -> bool {
        self.known(partition).is_some_and(|known| known.epoch.lost)
    }
}

impl<F: Failpoints> Shard<F> {
    /// The epoch of all that this shard holds of a partition.
    pub(super) fn epoch(&self, partition: PartitionId) -> u64 {
        self.epochs.number(partition)
    }

    /// The epochs, to be looked at.
    pub fn partition_epoch(&self, partition: PartitionId) -> u64 {
        self.epoch(partition)
    }

    /// Another one each time that this node has lost its records.
    pub(super) fn life(&self) -> u64 {
        self.view.myself().oneself.life
    }

    /// Has nobody to fear a raise that rests on an earlier life of this node?
    pub(super) fn is_met(&self, partition: PartitionId) -> bool {
        let life = self.life();
        life <= BORN
            || self.epochs.known(partition).is_some_and(|known| known.epoch.met == life)
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
        self.tell_epoch(connection, request_id, partition, out);
        false
    }

    /// Tell how the epoch was raised, once that can't be undone any more.
    pub(super) fn tell_epoch(
        &mut self,
        connection: ConnectionId,
        request_id: u64,
        partition: PartitionId,
        out: &mut Output,
    ) {
        let known = self.epochs.known_mut(partition);
        let recorded = known.recorded;
        let Epoch { partition: number, epoch, proposer, round, .. } = known.epoch;
        let (reaped, pruned) = (known.epoch.reaped.clone(), known.epoch.pruned.clone());
        if !self.is_durable(recorded) && !self.failpoints.planted(Bug::RaiseToldTooEarly) {
            if request_id != 0 {
                self.refuse_peer(connection, request_id, out);
            }
            return;
        }
        let told = Epoch { partition: number, epoch, proposer, round, reaped, pruned, ..Epoch::default() };
        let encoder = &mut self.encoder;
        out.deliver(connection, request_id != 0, |bytes| told.encode(encoder, request_id, bytes));
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
        if !is_ours || !self.is_met(partition) || told.epoch > EPOCH_MAX {
            return;
        }
        if told.epoch > self.epoch(partition) {
            let is_next = told.epoch == self.epoch(partition) + 1;
            let mut bindings = self.epochs.bindings(partition).iter();
            let is_bound =
                bindings.any(|bound| (bound.proposer(), bound.round()) == (told.proposer, told.round));
            // Whoever hears it as an answer has missed it before.
            if is_next && is_bound && request_id != 0 && self.view.owns(partition) {
                self.failpoints.reached(Rare::CaughtUp);
            }
            self.raise(now, told, is_next && is_bound, out);
        } else if told.epoch < self.epoch(partition) {
            self.tell_epoch(connection, 0, partition, out);
            self.send_again(now, request_id, link.node, out);
        }
        self.on_not_handed_over(request_id);
        self.on_exchange_over(now, link, request_id);
    }

    /// The epoch is another from here on. Whoever is bound by the round that raised it forgets what all have confirmed,
    /// where it is still the same; a copy of anybody else is wiped.
    pub(super) fn raise(&mut self, now: Now, told: &Epoch, is_bound: bool, out: &mut Output) {
        let partition = PartitionId(told.partition);
        let is_owner = self.view.owns(partition) || self.view.owned(partition);
        self.replica.retire(partition);
        let (mut gone, mut wiped) = (Vec::new(), Vec::new());
        if is_bound {
            let reaped = told.reaped.iter();
            gone.extend(reaped.flat_map(|(token, hash)| self.replica.reap(partition, *token, *hash)));
        } else {
            wiped = self.replica.wipe(partition);
            self.streams.forget(partition);
        }
        let known = self.epochs.known_mut(partition);
        let (met, lost) = (known.epoch.met, known.epoch.lost || (!is_bound && is_owner));
        let (bindings, is_wiped) = (Vec::new(), !is_bound);
        known.is_loss_known &= is_bound;
        known.epoch = Epoch { bindings, met, lost, wiped: is_wiped, ..told.clone() };
        self.record_epoch(partition, out);
        for entry in gone.iter().chain(&wiped) {
            self.append_gone(&entry.key, out);
        }
        for entry in &gone {
            self.failpoints.reaped(&entry.key, &entry.state);
            self.failpoints.reached(Rare::Reaped);
            self.counters.keys_reaped += 1;
        }
        if is_bound {
            told.pruned.iter().for_each(|(token, hash)| self.prune(partition, *token, *hash, out));
        }
        let hints = self.drop_hints(partition, out);
        if !wiped.is_empty() || (!is_bound && hints > 0) {
            self.failpoints.reached(Rare::OlderCopyWiped);
            self.counters.keys_wiped += wiped.len() as u64;
        }
        self.exchanges.forget(partition);
        self.keep_trees();
        self.begin_again(now, partition, !is_bound, out);
    }

    fn prune(&mut self, partition: PartitionId, token: u64, hash: u64, out: &mut Output) {
        let next = self.next_append();
        if F::WATCHED {
            let under = self.replica.index().under(partition, token);
            let same = under.filter(|entry| digest(token, &entry.state) == hash);
            same.for_each(|entry| self.failpoints.pruned(&entry.key, &entry.state));
        }
        for key in self.replica.prune(partition, token, hash, next) {
            self.append(Place { key: &key, token, partition }, &[], out);
            self.failpoints.reached(Rare::Pruned);
            self.counters.keys_pruned += 1;
        }
    }

    /// Hints of an epoch that is over: whoever is bound has none.
    fn drop_hints(&mut self, partition: PartitionId, out: &mut Output) -> usize {
        if self.failpoints.planted(Bug::ReapIgnoresHints) || !self.hints.store.keeps(partition) {
            return 0;
        }
        let hints = self.hints.store.of_partition(partition);
        for (target, key) in &hints {
            let place = self.place(key);
            self.forget_hint(*target, place, out);
        }
        hints.len()
    }

    /// Write all that is known of a partition's epoch to the log, if there is one.
    pub(super) fn record_epoch(&mut self, partition: PartitionId, out: &mut Output) {
        let sequence = if self.options.durable { self.take_append() } else { 0 };
        let known = self.epochs.known_mut(partition);
        known.recorded = sequence;
        if sequence > 0 {
            let start = out.bytes.len();
            known.epoch.encode(&mut self.encoder, 0, &mut out.bytes);
            out.appends.push(Append { sequence, record: start..out.bytes.len() });
        }
        // It was so when it was written.
        known.epoch.wiped = false;
        self.epochs.note();
    }

    /// When the last record about a partition's epoch is on stable storage.
    pub(super) fn when_recorded(
        &mut self,
        now: Now,
        partition: PartitionId,
        waiter: Waiter,
        out: &mut Output,
    ) {
        let recorded = self.epochs.known(partition).map_or(0, |known| known.recorded);
        self.when_durable(now, recorded, waiter, out);
    }

    /// A key is forgotten: for a log that keeps the last record of each.
    fn append_gone(&mut self, key: &[u8], out: &mut Output) {
        if !self.options.durable {
            return;
        }
        let sequence = self.take_append();
        let record = ReplicateWriter { key, ..ReplicateWriter::default() };
        let start = out.bytes.len();
        record.encode(&mut self.encoder, 0, &mut out.bytes);
        out.appends.push(Append { sequence, record: start..out.bytes.len() });
    }

    /// From the log, before the first input.
    pub(super) fn recover_epoch(&mut self, told: &Epoch) {
        let partition = PartitionId(told.partition);
        if told.partition >= self.trees.partitions() || !self.is_mine(partition) {
            return;
        }
        if told.wiped {
            self.replica.wipe(partition);
            for (target, key) in self.hints.store.of_partition(partition) {
                self.hints.store.forget(target, &key);
            }
        } else if told.epoch > self.epoch(partition) {
            for (token, hash) in &told.reaped {
                self.replica.reap(partition, *token, *hash);
            }
            for (token, hash) in &told.pruned {
                self.replica.prune(partition, *token, *hash, 0);
            }
        }
        self.keep_trees();
        let known = self.epochs.known_mut(partition);
        known.epoch = Epoch { wiped: false, ..told.clone() };
        self.epochs.note();
    }

    /// The same of lives that were noted.
    pub(super) fn recover_lives(&mut self, lives: &Lives) {
        for (node, life) in &lives.0 {
            let noted = self.epochs.lives.entry(NodeId(*node)).or_default();
            *noted = (*noted).max(*life);
        }
    }

    /// Partitions that were wiped, and of which shard 0 doesn't know it yet.
    pub(super) fn lost_partitions(&self) -> PartitionSet {
        if !self.epochs.has_lost() {
            return PartitionSet::default();
        }
        let lost = self.epochs.all.iter().filter(|(_, known)| known.epoch.lost && !known.is_loss_known);
        lost.map(|(partition, _)| *partition).collect()
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
        self.look_whom_to_meet();
        if !self.epochs.has_lost() {
            return;
        }
        let lost: Vec<PartitionId> =
            self.epochs.all.iter().filter(|(_, known)| known.epoch.lost).map(|(at, _)| *at).collect();
        for partition in lost {
            let is_complete = self.view.is_complete_for(partition);
            let known = self.epochs.known_mut(partition);
            if !is_complete {
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
