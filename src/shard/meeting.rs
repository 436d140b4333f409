//! Meeting the others again: how a node that has lost its records comes to be trusted with an epoch.
//!
//! A raise rests on what all members have said: that they confirm, or keep nothing of the epoch. One that loses its
//! records no longer knows what it said, so it acknowledges, mints and keeps nothing of a partition until it is sure
//! that no raise rests on that: what it took in would be of an epoch that is over. Its records begin anew, and that has a
//! number (its **beginning**). It is sure when a member that is bound by no round has noted the new one, since no round can end
//! any more that rests on the one before; or when all have noted it, however many have lost their records too or are bound:
//! no proposer among them can raise a round that rests on the one before, and one that has says so. Then the epoch is the latest
//! that anybody knows who has not lost its records; of what is left of lost records, if all have lost theirs. A healthy cluster does that in two exchanges. Newcomers begin in the same way.
//!
//! It takes no epoch of which it hasn't heard how it was raised: others may still be bound by that round, and it may be
//! this node that they ask.
//!
//! Whoever is bound by a round of a node that was removed asks in the same way. When all members work without that node, and
//! all others have told that their epoch is no later, no raise of its can arrive any more, and its rounds are over.
//!
//! And so does whoever starts from a log: it may be a copy of a disk whose process ran on for a while, under the same name
//! (docs/adr/0015). Until all others have told that their epoch is no later it says nothing of what it was bound to, nor that rounds
//! of an earlier process are over.

use std::collections::{BTreeMap, BTreeSet};

use ringmain_schema::epoch::{Binding, Epoch, Lost, Met, Round, Standing};
use ringmain_schema::limits::TREE_PARTITIONS_MAX;
use ringmain_schema::message::{ErrorAnswer, ErrorCode};
use ringmain_schema::{Frame, Kind};
use smallvec::SmallVec;

use crate::failpoint::{Failpoints, Rare};
use crate::id::{ConnectionId, NodeId, PartitionId};
use crate::membership::{BORN, Member};
use crate::time::{Duration, Instant, Now};

use super::Shard;
use super::epochs::EPOCH_MAX;
use super::io::Output;
use super::links::LinkId;

/// Whoever has not answered is asked again after this time.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// A request id that no table gives out, and that no other question has.
const ASKED: u64 = u32::MAX as u64 - 1;

/// Whom this shard waits for.
#[derive(Debug, Default)]
pub(super) struct Meeting {
    /// It waits for somebody, with this beginning.
    awaited_in: Option<u64>,
    /// What members have told that alone doesn't suffice: all of them together do.
    told: BTreeMap<PartitionId, SmallVec<[Told; 4]>>,
    /// Who knows the epoch, and is asked how it was raised.
    knows: BTreeMap<PartitionId, (NodeId, u64)>,
    /// Partitions of a log of which not all others have told that their epoch is no later.
    unheard: BTreeSet<PartitionId>,
    next: Instant,
}

/// What a member has told of a partition's epoch.
#[derive(Clone, Copy, Debug)]
struct Told {
    by: NodeId,
    epoch: u64,
    /// By what is left of its records.
    has_lost: bool,
}

impl<F: Failpoints> Shard<F> {
    pub(super) fn next_meeting(&self) -> Option<Instant> {
        self.epochs.meeting.awaited_in.map(|_| self.epochs.meeting.next)
    }

    /// Partitions of this shard in which it is not trusted yet.
    fn unmet(&self) -> impl Iterator<Item = PartitionId> + '_ {
        let all = self.view.ring.partitions().iter();
        all.filter(|&partition| self.is_mine(partition) && !self.is_met(partition))
    }

    /// Is this shard bound by rounds of nodes that are gone for good, as all members know?
    fn is_bound_by_removed(&self, partition: PartitionId) -> bool {
        let is_known = self.view.change.as_ref().is_none_or(|change| change.is_known);
        let mut bindings = self.epochs.bindings(partition).iter();
        is_known && self.is_met(partition) && bindings.any(|bound| self.is_of_removed(bound))
    }

    fn is_of_removed(&self, bound: &Binding) -> bool {
        self.view.member(NodeId(bound.proposer())).is_some_and(Member::is_removed)
    }

    /// Before the first input: there is a log.
    pub(super) fn doubt_epochs(&mut self) {
        let mine = self.view.ring.partitions().iter().filter(|&partition| self.is_mine(partition));
        self.epochs.meeting.unheard = mine.collect();
        self.look_whom_to_meet();
    }

    /// Is what the log says of this partition's epoch the last word?
    pub(super) fn has_heard_all(&self, partition: PartitionId) -> bool {
        !self.epochs.meeting.unheard.contains(&partition)
    }

    /// Of which partitions it asks the others.
    fn asked_about(&self) -> impl Iterator<Item = PartitionId> + '_ {
        let bound = self.epochs.bound().map(|(partition, _)| partition);
        let left = bound
            .filter(move |&partition| self.has_heard_all(partition) && self.is_bound_by_removed(partition));
        let unheard = self.epochs.meeting.unheard.iter().copied();
        let left = left.chain(unheard.filter(|&partition| self.view.has_met_all && self.is_met(partition)));
        let has_lost = self.beginning() > BORN;
        self.unmet().take_while(move |_| has_lost).chain(left)
    }

    /// Partitions of which no more is known than the number of the epoch.
    fn unexplained(&self) -> impl Iterator<Item = PartitionId> + '_ {
        let all = self.epochs.iter().map(|(partition, _)| partition);
        all.filter(|&partition| self.is_met(partition) && !self.knows_how(partition))
    }

    /// A view was taken, or somebody was met.
    pub(super) fn look_whom_to_meet(&mut self) {
        let waits = self.asked_about().next().is_some() || self.unexplained().next().is_some();
        let awaited_in = waits.then_some(self.beginning());
        let meeting = &mut self.epochs.meeting;
        if meeting.awaited_in != awaited_in {
            let unheard = std::mem::take(&mut meeting.unheard);
            *meeting = Meeting { awaited_in, unheard, ..Meeting::default() };
        }
    }

    /// A view was taken: who told its epoch before it knew of a removal has to tell it again.
    pub(super) fn forget_what_was_told(&mut self) {
        let mut told = std::mem::take(&mut self.epochs.meeting.told);
        told.retain(|partition, _| !self.has_heard_all(*partition) || !self.is_met(*partition));
        self.epochs.meeting.told = told;
    }

    pub(super) fn tend_meeting(&mut self, now: Now, out: &mut Output) {
        if self.next_meeting().is_none_or(|at| at > now.monotonic) {
            return;
        }
        self.look_whom_to_meet();
        if self.epochs.meeting.awaited_in.is_none() {
            return;
        }
        self.epochs.meeting.next = now.monotonic + ASK_EVERY;
        let mut asked: BTreeMap<LinkId, Vec<u32>> = BTreeMap::new();
        for partition in self.asked_about().collect::<Vec<_>>() {
            let told = self.epochs.meeting.told.get(&partition);
            let has_told = |node: NodeId| told.is_some_and(|told| told.iter().any(|told| told.by == node));
            let suffices = self.is_met(partition) && !self.has_heard_all(partition);
            for node in self.others().into_iter().filter(|&node| !(suffices && has_told(node))) {
                if let Some(link) = self.link_to(node, partition) {
                    asked.entry(link).or_default().push(partition.0);
                }
            }
            if self.others().is_empty() {
                match self.is_met(partition) {
                    true => self.on_no_later_epoch(partition, out),
                    false => self.on_all_told(now, partition, out),
                }
            }
        }
        for partition in self.unexplained().collect::<Vec<_>>() {
            for node in self.others() {
                self.ask_how(node, partition, self.epoch(partition), out);
            }
        }
        let beginning = self.beginning();
        for (link, partitions) in asked {
            let Some(connection) = self.links.connection(link) else { continue };
            for partitions in partitions.chunks(TREE_PARTITIONS_MAX) {
                let lost = Lost { beginning, partitions: partitions.to_vec() };
                let encoder = &mut self.encoder;
                out.deliver(connection, false, |bytes| lost.encode(encoder, ASKED, bytes));
            }
            self.detector.on_asked(now.monotonic, link.node);
        }
    }

    /// All other members that are not gone for good.
    pub(super) fn others(&self) -> Vec<NodeId> {
        let others =
            self.view.members.iter().filter(|member| member.node != self.view.me && !member.is_removed());
        others.map(|member| member.node).collect()
    }

    /// Another node has lost its records. It hears nothing before its new beginning is noted for good: it asks again.
    pub(super) fn on_lost(
        &mut self,
        connection: ConnectionId,
        link: LinkId,
        request_id: u64,
        lost: &Lost,
        out: &mut Output,
    ) {
        let known = self.view.member(link.node).map(|member| member.oneself.beginning);
        // What gossip has not told yet is heard when it is asked again.
        if !self.view.is_serving() || known != Some(lost.beginning) {
            return self.refuse_peer(connection, request_id, out);
        }
        self.note_beginning(link.node, lost.beginning, out);
        if !self.is_durable(self.epochs.beginnings_recorded) {
            return self.refuse_peer(connection, request_id, out);
        }
        let mine = lost.partitions.iter().map(|partition| PartitionId(*partition));
        let mine = mine.filter(|&partition| partition.0 < self.trees.partitions() && self.is_mine(partition));
        let partitions =
            mine.map(|partition| (partition.0, self.epoch(partition), self.standing(partition))).collect();
        let met = Met { beginning: lost.beginning, partitions };
        let encoder = &mut self.encoder;
        out.deliver(connection, true, |bytes| met.encode(encoder, request_id, bytes));
    }

    fn note_beginning(&mut self, node: NodeId, beginning: u64, out: &mut Output) {
        let noted = self.epochs.beginnings.entry(node).or_default();
        if *noted >= beginning {
            return;
        }
        *noted = beginning;
        self.record_beginnings(out);
    }

    /// What can this shard say to one who has lost its records? Who is bound may be so by a round that rests on them.
    fn standing(&self, partition: PartitionId) -> Standing {
        if !self.is_met(partition) {
            Standing::Lost
        } else if !self.has_the_last_word(partition) {
            Standing::InDoubt
        } else if self.epochs.bindings(partition).is_empty() {
            Standing::Known
        } else {
            Standing::Bound
        }
    }

    /// Is what this shard knows of the epoch all that this node has ever known? If not, it may have come back from an older
    /// disk, or a crash may undo a raise.
    pub(super) fn has_the_last_word(&self, partition: PartitionId) -> bool {
        self.view.has_met_all && self.has_heard_all(partition) && self.is_certain(partition)
    }

    /// Somebody has noted this node's beginning.
    pub(super) fn on_beginning_noted(&mut self, now: Now, from: NodeId, met: &Met, out: &mut Output) {
        if met.beginning != self.beginning() {
            return;
        }
        let others = self.others();
        for &(partition, epoch, standing) in &met.partitions {
            let partition = PartitionId(partition);
            let is_ours = partition.0 < self.trees.partitions() && self.is_mine(partition);
            if !is_ours || epoch > EPOCH_MAX {
                continue;
            }
            let has_lost = standing == Standing::Lost;
            let told = Told { by: from, epoch, has_lost };
            if self.is_met(partition) {
                self.on_told_epoch(told, partition, &others, out);
                continue;
            }
            let all_told = self.epochs.meeting.told.entry(partition).or_default();
            all_told.retain(|told| told.by != from);
            match standing {
                Standing::Known if epoch == 0 => {
                    let never = Epoch { partition: partition.0, ..Epoch::default() };
                    self.on_met(now, &never, self.may_be_streamed_from(from, partition), out);
                }
                Standing::Known => {
                    self.epochs.meeting.knows.insert(partition, (from, epoch));
                    self.ask_how(from, partition, epoch, out);
                }
                Standing::InDoubt => {}
                Standing::Bound | Standing::Lost => {
                    all_told.push(told);
                    if have_all_told(&others, all_told) {
                        self.on_all_told(now, partition, out);
                    }
                }
            }
        }
        self.look_whom_to_meet();
    }

    /// Somebody has told its epoch to a shard that starts from a log, or is bound by a round of a node that is gone for good.
    fn on_told_epoch(&mut self, told: Told, partition: PartitionId, others: &[NodeId], out: &mut Output) {
        // Nobody listens any more to a process that this one has taken over from.
        let is_starting = !self.has_heard_all(partition) && self.view.has_met_all;
        if !is_starting && !self.is_bound_by_removed(partition) {
            return;
        }
        // Whoever has lost its records takes its epoch from this one, and not the other way round.
        if told.epoch > self.epoch(partition) && !told.has_lost {
            return self.ask_how(told.by, partition, told.epoch, out);
        }
        let all_told = self.epochs.meeting.told.entry(partition).or_default();
        all_told.retain(|before| before.by != told.by);
        all_told.push(told);
        if have_all_told(others, all_told) {
            self.on_no_later_epoch(partition, out);
        }
    }

    fn on_no_later_epoch(&mut self, partition: PartitionId, out: &mut Output) {
        self.epochs.meeting.told.remove(&partition);
        self.epochs.meeting.unheard.remove(&partition);
        if self.is_bound_by_removed(partition) {
            self.let_go_of_removed(partition, out);
        }
    }

    /// Ask how this epoch was raised: whoever is asked about a round of an epoch that is over tells that.
    fn ask_how(&mut self, node: NodeId, partition: PartitionId, epoch: u64, out: &mut Output) {
        let link = self.link_to(node, partition).and_then(|link| self.links.connection(link));
        if let (Some(connection), Some(before)) = (link, epoch.checked_sub(1)) {
            let round = Round { partition: partition.0, epoch: before, round: 0 };
            let encoder = &mut self.encoder;
            out.deliver(connection, false, |bytes| round.encode(encoder, Kind::ROUND, 0, bytes));
        }
    }

    /// A member tells how the epoch was raised to a shard that it has not met yet.
    pub(super) fn on_told_how(&mut self, now: Now, from: NodeId, told: &Epoch, out: &mut Output) {
        let partition = PartitionId(told.partition);
        if self.epochs.meeting.knows.get(&partition) == Some(&(from, told.epoch)) {
            self.on_met(now, told, self.may_be_streamed_from(from, partition), out);
            self.look_whom_to_meet();
        }
    }

    /// Has this member all that this node would lose with its copies?
    fn may_be_streamed_from(&self, node: NodeId, partition: PartitionId) -> bool {
        let is_complete =
            |member: &Member| member.oneself.serving && member.oneself.is_complete_for(partition);
        self.view.primaries(partition).contains(&node) && self.view.member(node).is_some_and(is_complete)
    }

    /// Rounds of who is gone for good are over.
    fn let_go_of_removed(&mut self, partition: PartitionId, out: &mut Output) {
        let bindings = self.epochs.bindings(partition).iter();
        let left: Vec<Binding> = bindings.filter(|bound| !self.is_of_removed(bound)).copied().collect();
        self.epochs.known_mut(partition).epoch.bindings = left;
        self.failpoints.reached(Rare::RoundOfRemovedEnded);
        self.record_epoch(partition, out);
    }

    /// A node of an older version never promises anything: while it is a member no round can end.
    pub(super) fn on_refused_to_meet(&mut self, now: Now, link: LinkId, frame: &Frame<'_>, out: &mut Output) {
        if frame.header.request_id != ASKED || frame.header.kind != Kind::ERROR {
            return;
        }
        let is_old = ErrorAnswer::parse(frame).is_ok_and(|error| error.code == ErrorCode::Unsupported);
        if is_old {
            let met: Vec<PartitionId> =
                self.unmet().filter(|&partition| self.link_to(link.node, partition) == Some(link)).collect();
            for partition in met {
                self.on_met_in(now, partition, self.epoch(partition), false, out);
            }
            self.look_whom_to_meet();
        }
    }

    /// All have noted this node's beginning, so no raise rests on what was lost. The epoch is the latest by records that were
    /// kept; if all have lost some, the latest by what is left of them, which may be this shard's own.
    fn on_all_told(&mut self, now: Now, partition: PartitionId, out: &mut Output) {
        let told = self.epochs.meeting.told.remove(&partition).unwrap_or_default();
        let kept = || told.iter().filter(|told| !told.has_lost);
        let left = || told.iter().map(|told| told.epoch).max().unwrap_or(0).max(self.epoch(partition));
        let epoch = kept().map(|told| told.epoch).max().unwrap_or_else(left);
        let is_elsewhere = kept().any(|told| self.may_be_streamed_from(told.by, partition));
        self.on_met_in(now, partition, epoch, is_elsewhere, out);
    }

    /// No raise rests on what was lost: this is the number of the epoch.
    fn on_met_in(
        &mut self,
        now: Now,
        partition: PartitionId,
        epoch: u64,
        is_elsewhere: bool,
        out: &mut Output,
    ) {
        let known = self.epochs.known(partition).filter(|known| known.epoch.epoch == epoch);
        let told = known.map(|known| known.epoch.clone());
        let told = told.unwrap_or(Epoch { partition: partition.0, epoch, ..Epoch::default() });
        self.on_met(now, &told, is_elsewhere, out);
    }

    /// No raise rests on what was lost: this is the epoch. An epoch of this shard's own that is later was never raised, as far
    /// as the others are concerned.
    fn on_met(&mut self, now: Now, told: &Epoch, is_elsewhere: bool, out: &mut Output) {
        self.failpoints.reached(Rare::NodeMet);
        let partition = PartitionId(told.partition);
        let beginning = self.beginning();
        let known = self.epochs.known_mut(partition);
        known.epoch.met = beginning;
        known.epoch.bindings.clear();
        let is_other = told.epoch != known.epoch.epoch;
        self.epochs.meeting.told.remove(&partition);
        self.epochs.meeting.knows.remove(&partition);
        self.epochs.meeting.unheard.remove(&partition);
        // Records are missing, and what they had ended may be back; unless nothing was ever forgotten, or nobody else has all.
        let is_doubtful = self.epochs.recovered.is_doubtful && told.epoch > 0 && is_elsewhere;
        if is_other || is_doubtful {
            self.raise(now, told, false, out);
        } else {
            self.record_epoch(partition, out);
        }
    }
}

fn have_all_told(others: &[NodeId], told: &[Told]) -> bool {
    others.iter().all(|node| told.iter().any(|told| told.by == *node))
}
