//! Meeting the others again: how a node that has lost its records comes to be trusted with an epoch.
//!
//! A raise rests on what all members have said: that they confirm, or keep nothing of the epoch. One that loses its
//! records no longer knows what it said, so it acknowledges, mints and keeps nothing of a partition until it is sure
//! that no raise rests on an earlier life of it: what it took in would be of an epoch that is over. It is sure when
//! a member that is bound by no round has noted its new life, since no round can end any more that rests on the
//! old one; or, if all have lost their records or are bound by its own rounds alone, when all have noted it. A healthy
//! cluster does that in one exchange. Newcomers begin in the same way.
//!
//! Whoever is bound by a round of a node that was removed asks in the same way. When all members work without that node, and
//! all others have told that their epoch is no later, no raise of its can arrive any more, and its rounds are over.

use std::collections::BTreeMap;

use ringmain_schema::epoch::{Binding, Lives, Lost, Met, Round, Standing};
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
use super::io::{Append, Output};
use super::links::LinkId;

/// Whoever has not answered is asked again after this time.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// A request id that no table gives out, and that no other question has.
const ASKED: u64 = u32::MAX as u64 - 1;

/// Whom this shard waits for.
#[derive(Debug, Default)]
pub(super) struct Meeting {
    /// It waits for somebody, in this life.
    awaited_in: Option<u64>,
    /// What members have told that alone doesn't suffice: all of them together do.
    told: BTreeMap<PartitionId, SmallVec<[(NodeId, u64); 4]>>,
    next: Instant,
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

    /// Of which partitions it asks the others.
    fn asked_about(&self) -> impl Iterator<Item = PartitionId> + '_ {
        let bound = self.epochs.bound().map(|(partition, _)| partition);
        let left = bound.filter(move |&partition| self.is_bound_by_removed(partition));
        let has_lost = self.life() > BORN;
        self.unmet().take_while(move |_| has_lost).chain(left)
    }

    /// A view was taken, or somebody was met.
    pub(super) fn look_whom_to_meet(&mut self) {
        let awaited_in = self.asked_about().next().is_some().then_some(self.life());
        let meeting = &mut self.epochs.meeting;
        if meeting.awaited_in != awaited_in {
            *meeting = Meeting { awaited_in, ..Meeting::default() };
        }
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
            for node in self.others() {
                if let Some(link) = self.link_to(node, partition) {
                    asked.entry(link).or_default().push(partition.0);
                }
            }
            if self.others().is_empty() {
                match self.is_met(partition) {
                    true => self.let_go_of_removed(partition, out),
                    false => self.on_met(now, partition, self.epoch(partition), out),
                }
            }
        }
        let life = self.life();
        for (link, partitions) in asked {
            let Some(connection) = self.links.connection(link) else { continue };
            for partitions in partitions.chunks(TREE_PARTITIONS_MAX) {
                let lost = Lost { life, partitions: partitions.to_vec() };
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

    /// Another node has lost its records. It hears nothing before its new life is noted for good: it asks again.
    pub(super) fn on_lost(
        &mut self,
        connection: ConnectionId,
        link: LinkId,
        request_id: u64,
        lost: &Lost,
        out: &mut Output,
    ) {
        if !self.view.is_serving() || self.view.member(link.node).is_none() {
            return self.refuse_peer(connection, request_id, out);
        }
        self.note_life(link.node, lost.life, out);
        if !self.is_durable(self.epochs.lives_recorded) {
            return self.refuse_peer(connection, request_id, out);
        }
        let mine = lost.partitions.iter().map(|partition| PartitionId(*partition));
        let mine = mine.filter(|&partition| partition.0 < self.trees.partitions() && self.is_mine(partition));
        let partitions = mine
            .map(|partition| (partition.0, self.epoch(partition), self.standing(link.node, partition)))
            .collect();
        let met = Met { life: lost.life, partitions };
        let encoder = &mut self.encoder;
        out.deliver(connection, true, |bytes| met.encode(encoder, request_id, bytes));
    }

    fn note_life(&mut self, node: NodeId, life: u64, out: &mut Output) {
        let noted = self.epochs.lives.entry(node).or_default();
        if *noted >= life {
            return;
        }
        *noted = life;
        if self.options.durable {
            let sequence = self.take_append();
            let lives = Lives(self.epochs.lives.iter().map(|(node, life)| (node.0, *life)).collect());
            let start = out.bytes.len();
            lives.encode(&mut self.encoder, &mut out.bytes);
            out.appends.push(Append { sequence, record: start..out.bytes.len() });
            self.epochs.lives_recorded = sequence;
        }
    }

    /// What speaks against that no raise rests on an earlier life of this node?
    fn standing(&self, node: NodeId, partition: PartitionId) -> Standing {
        let bindings = self.epochs.bindings(partition);
        if bindings.iter().any(|bound| bound.proposer() != node.0) {
            Standing::InDoubt
        } else if self.is_met(partition) && !self.view.has_met_all {
            // It may have come back from an older disk.
            Standing::InDoubt
        } else if bindings.is_empty() && self.is_met(partition) {
            Standing::Known
        } else {
            Standing::Unknown
        }
    }

    /// Somebody has noted this node's life.
    pub(super) fn on_life_noted(&mut self, now: Now, from: NodeId, met: &Met, out: &mut Output) {
        if met.life != self.life() {
            return;
        }
        let others = self.others();
        for &(partition, epoch, standing) in &met.partitions {
            let partition = PartitionId(partition);
            let is_ours = partition.0 < self.trees.partitions() && self.is_mine(partition);
            if !is_ours || epoch > EPOCH_MAX {
                continue;
            }
            if self.is_met(partition) {
                self.on_told_epoch(from, partition, epoch, &others, out);
                continue;
            }
            let told = self.epochs.meeting.told.entry(partition).or_default();
            told.retain(|(node, _)| *node != from);
            match standing {
                Standing::Known => self.on_met(now, partition, epoch, out),
                Standing::InDoubt => {}
                Standing::Unknown => {
                    told.push((from, epoch));
                    let have_all = others.iter().all(|node| told.iter().any(|(told, _)| told == node));
                    let latest = told.iter().map(|(_, epoch)| *epoch).max().unwrap_or(0);
                    if have_all {
                        self.on_met(now, partition, latest, out);
                    }
                }
            }
        }
        self.look_whom_to_meet();
    }

    /// Somebody has told its epoch to a shard that is bound by a round of a node that is gone for good.
    fn on_told_epoch(
        &mut self,
        from: NodeId,
        partition: PartitionId,
        epoch: u64,
        others: &[NodeId],
        out: &mut Output,
    ) {
        if !self.is_bound_by_removed(partition) {
            return;
        }
        let mine = self.epoch(partition);
        if epoch > mine {
            // Asked in an epoch that is over, it tells how that was raised.
            let link = self.link_to(from, partition).and_then(|link| self.links.connection(link));
            if let Some(connection) = link {
                let round = Round { partition: partition.0, epoch: mine, round: 0 };
                let encoder = &mut self.encoder;
                out.deliver(connection, false, |bytes| round.encode(encoder, Kind::ROUND, 0, bytes));
            }
            return;
        }
        let told = self.epochs.meeting.told.entry(partition).or_default();
        told.retain(|(node, _)| *node != from);
        told.push((from, epoch));
        if others.iter().all(|node| told.iter().any(|(told, _)| told == node)) {
            self.let_go_of_removed(partition, out);
        }
    }

    /// Rounds of who is gone for good are over.
    fn let_go_of_removed(&mut self, partition: PartitionId, out: &mut Output) {
        let bindings = self.epochs.bindings(partition).iter();
        let left: Vec<Binding> = bindings.filter(|bound| !self.is_of_removed(bound)).copied().collect();
        self.epochs.known_mut(partition).epoch.bindings = left;
        self.epochs.meeting.told.remove(&partition);
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
            met.into_iter().for_each(|partition| self.on_met(now, partition, 0, out));
            self.look_whom_to_meet();
        }
    }

    /// No raise rests on an earlier life: this is the epoch.
    fn on_met(&mut self, now: Now, partition: PartitionId, epoch: u64, out: &mut Output) {
        self.failpoints.reached(Rare::LifeNoted);
        let life = self.life();
        let known = self.epochs.known_mut(partition);
        known.epoch.met = life;
        known.epoch.bindings.clear();
        self.epochs.meeting.told.remove(&partition);
        if epoch > self.epoch(partition) {
            let told = ringmain_schema::epoch::Epoch { partition: partition.0, epoch, ..Default::default() };
            self.raise(now, &told, false, out);
        } else {
            self.record_epoch(partition, out);
        }
    }
}
