//! Meeting the others again: how a node that has lost its records comes to be trusted with an epoch.
//!
//! A raise rests on what all members have said: that they confirm, or keep nothing of the epoch. One that loses its
//! records no longer knows what it said, so it acknowledges, mints and keeps nothing of a partition until it is sure
//! that no raise rests on that: what it took in would be of an epoch that is over. Its records begin anew, and that has a
//! number (its **beginning**). It asks all others for their **word**: the epoch as each knows it, how that was raised, by
//! which rounds it is bound, and whether it is to be trusted itself. Whoever answers has noted the new beginning for good, and
//! is bound by no round any more that rests on the one before. What follows from the words is in [`decide`]; a healthy
//! cluster does all this in two exchanges. Newcomers begin in the same way.
//!
//! It takes no epoch of which it hasn't heard how it was raised: others may still be bound by that round, and it may be
//! this node that they ask.
//!
//! Whoever is bound by a round whose proposer has lost its records since, or is gone for good, asks in the same way: nobody
//! is left to say how it ended. Its own word counts with the others'.

use std::collections::{BTreeMap, BTreeSet};

use ringmain_schema::epoch::{Binding, Epoch, Lost, Met, Round, Word};
use ringmain_schema::limits::WORDS_MAX;
use ringmain_schema::message::{ErrorAnswer, ErrorCode};
use ringmain_schema::{Frame, Kind};

use crate::failpoint::{Failpoints, Rare};
use crate::id::{ConnectionId, NodeId, PartitionId};
use crate::membership::{BORN, Member};
use crate::time::{Duration, Instant, Now};

use super::Shard;
use super::epochs::{EPOCH_MAX, Held};
use super::io::Output;
use super::links::LinkId;
use super::words::{Raised, decide};

/// Whoever is asked is asked again after this time: its word may be another by then.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// A request id that no table gives out, and that no other question has.
const ASKED: u64 = u32::MAX as u64 - 1;

/// Whom this shard waits for.
#[derive(Debug, Default)]
pub(super) struct Meeting {
    /// It waits for somebody, with this beginning.
    awaited_in: Option<u64>,
    /// The last words of other members.
    words: BTreeMap<PartitionId, BTreeMap<NodeId, Word>>,
    /// What follows from these: an epoch, and how it was raised must still be told.
    decided: BTreeMap<PartitionId, Raised>,
    next: Instant,
}

impl Meeting {
    /// The epoch of this partition is another now.
    pub(super) fn on_raised(&mut self, partition: PartitionId) {
        self.words.remove(&partition);
        self.decided.remove(&partition);
    }
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

    /// How many these are.
    pub(super) fn partitions_unmet(&self) -> usize {
        if self.beginning() > BORN { self.unmet().count() } else { 0 }
    }

    /// Who has not given its word yet, and of how many partitions.
    pub(super) fn meeting_waits_for(&self) -> BTreeMap<NodeId, usize> {
        let mut missing = BTreeMap::new();
        if self.epochs.meeting.awaited_in.is_some() {
            let (others, none) = (self.others(), BTreeMap::new());
            for partition in self.asked_about() {
                let told = self.epochs.meeting.words.get(&partition).unwrap_or(&none);
                let silent = others.iter().filter(|node| !told.contains_key(node));
                silent.for_each(|node| *missing.entry(*node).or_default() += 1);
            }
        }
        missing
    }

    /// Has the proposer lost its records since this shard was bound, so that it will not raise that round any more, and can't
    /// say whether it did? Or is it gone for good, as all members know? Then nobody listens to the process that had proposed.
    fn is_dead(&self, bound: &Binding) -> bool {
        let Some(proposer) = self.view.member(NodeId(bound.proposer())) else { return false };
        let is_known = self.view.change.as_ref().is_none_or(|change| change.is_known);
        let is_gone = is_known && proposer.is_removed();
        is_gone || self.known_beginning(proposer) > bound.beginning()
    }

    /// A member's beginning, as gossip and it itself have told it.
    pub(super) fn known_beginning(&self, member: &Member) -> u64 {
        let noted = self.epochs.beginnings.get(&member.node).copied().unwrap_or(0);
        member.oneself.beginning.max(noted)
    }

    /// Of which partitions it asks the others.
    fn asked_about(&self) -> impl Iterator<Item = PartitionId> + '_ {
        let is_bound_for_ever = |bindings: &[Binding]| bindings.iter().any(|bound| self.is_dead(bound));
        let bound = self.epochs.bound().filter(move |(_, known)| is_bound_for_ever(&known.epoch.bindings));
        let bound = bound.map(|(partition, _)| partition).filter(|&partition| self.is_met(partition));
        let has_lost = self.beginning() > BORN;
        self.unmet().take_while(move |_| has_lost).chain(bound)
    }

    /// A view was taken, or somebody was met.
    pub(super) fn look_whom_to_meet(&mut self) {
        let awaited_in = self.asked_about().next().map(|_| self.beginning());
        if self.epochs.meeting.awaited_in != awaited_in {
            self.epochs.meeting = Meeting { awaited_in, ..Meeting::default() };
        }
    }

    /// A view was taken: what was told by another ring's members, or of other beginnings, has to be told again.
    pub(super) fn forget_what_was_told(&mut self) {
        self.epochs.meeting.words.clear();
        self.epochs.meeting.decided.clear();
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
        let asked: Vec<PartitionId> = self.asked_about().collect();
        let others = self.others();
        let mut questions: BTreeMap<LinkId, Vec<u32>> = BTreeMap::new();
        for &partition in &asked {
            let links = others.iter().filter_map(|&node| self.link_to(node, partition));
            links.for_each(|link| questions.entry(link).or_default().push(partition.0));
        }
        if others.is_empty() {
            asked.iter().for_each(|&partition| self.settle(now, partition, out));
        }
        let decided: Vec<(PartitionId, Raised)> =
            self.epochs.meeting.decided.iter().map(|(partition, raised)| (*partition, *raised)).collect();
        for (partition, raised) in decided {
            others.iter().for_each(|&node| self.ask_how(node, partition, raised.epoch, out));
        }
        let beginning = self.beginning();
        for (link, partitions) in questions {
            let Some(connection) = self.links.connection(link) else { continue };
            for partitions in partitions.chunks(WORDS_MAX) {
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

    /// Another node asks. It hears nothing before its beginning is noted for good: it asks again.
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
        let words = mine.filter_map(|partition| Some((partition.0, self.word(partition)?))).collect();
        let met = Met { beginning: lost.beginning, beginnings: self.hash_of_beginnings(), words };
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

    /// What this shard knows of a partition's epoch. Nothing, while a crash could undo a raise.
    fn word(&self, partition: PartitionId) -> Option<Word> {
        let none = Epoch::default();
        let known = self.epochs.known(partition).map_or(&none, |known| &known.epoch);
        let bound = known.bindings.iter().map(|bound| (bound.proposer(), bound.round(), self.is_dead(bound)));
        let word = Word {
            trusted: self.is_met(partition),
            epoch: known.epoch,
            proposer: known.proposer,
            round: known.round,
            bound: bound.collect(),
        };
        self.is_certain(partition).then_some(word)
    }

    /// Somebody has noted this node's beginning, and told what it knows.
    pub(super) fn on_words(&mut self, now: Now, from: NodeId, met: Met, out: &mut Output) {
        if met.beginning != self.beginning() || !self.others().contains(&from) {
            return;
        }
        let asked: BTreeSet<PartitionId> = self.asked_about().collect();
        // Who doesn't know yet that a proposer has lost its records may still come to be bound by its round.
        let knows_as_much = met.beginnings == self.hash_of_beginnings();
        for (partition, word) in met.words {
            let partition = PartitionId(partition);
            let counts = knows_as_much || !self.is_met(partition);
            if counts && asked.contains(&partition) && word.epoch <= EPOCH_MAX {
                self.epochs.meeting.words.entry(partition).or_default().insert(from, word);
                self.settle(now, partition, out);
            }
        }
        self.look_whom_to_meet();
    }

    /// What follows from what was told of this partition?
    fn settle(&mut self, now: Now, partition: PartitionId, out: &mut Output) {
        let Some(mine) = self.word(partition) else { return };
        let told = self.epochs.meeting.words.get(&partition).cloned().unwrap_or_default();
        let are_all = self.others().iter().all(|node| told.contains_key(node));
        let Some(raised) = decide(told.values().chain([&mine]), are_all) else { return };
        if self.is_met(partition) {
            // Who is bound by that round hears from its proposer, or from who has met it.
            return match raised.epoch.cmp(&mine.epoch) {
                std::cmp::Ordering::Greater => self.ask_all_how(partition, raised, out),
                _ => self.let_go_of_dead(partition, out),
            };
        }
        if self.awaits_primaries(partition, raised) {
            return;
        }
        if raised == Raised::from(&mine) || raised.epoch == 0 {
            let known = self.epochs.known(partition).map(|known| known.epoch.clone());
            let known = known.filter(|_| raised.epoch > 0);
            let known = known.unwrap_or(Epoch { partition: partition.0, ..Epoch::default() });
            return self.on_met(now, &known, out);
        }
        self.ask_all_how(partition, raised, out);
    }

    fn ask_all_how(&mut self, partition: PartitionId, raised: Raised, out: &mut Output) {
        if self.epochs.meeting.decided.insert(partition, raised) != Some(raised) {
            self.others().into_iter().for_each(|node| self.ask_how(node, partition, raised.epoch, out));
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
    pub(super) fn on_told_how(&mut self, now: Now, told: &Epoch, out: &mut Output) {
        let partition = PartitionId(told.partition);
        if self.epochs.meeting.decided.get(&partition) == Some(&Raised::from(told)) {
            self.on_met(now, told, out);
            self.look_whom_to_meet();
        }
    }

    /// Must another primary speak before it is known whether doubtful copies may be wiped?
    fn awaits_primaries(&self, partition: PartitionId, raised: Raised) -> bool {
        let told = self.epochs.meeting.words.get(&partition);
        let has_spoken = |node: &NodeId| told.is_some_and(|told| told.contains_key(node));
        let primaries = self.view.primaries(partition);
        let speaks = self.others();
        let mut others = primaries.iter().filter(|node| speaks.contains(node));
        self.epochs.recovered.is_doubtful
            && raised.epoch > 0
            && !self.may_be_streamed(partition)
            && !others.all(has_spoken)
    }

    /// Have the others all that this node would lose with its copies? All other primaries must have said in this meeting that they are
    /// to be trusted, and be complete; what gossip tells of one that is away may be of before it lost its disk.
    fn may_be_streamed(&self, partition: PartitionId) -> bool {
        let primaries = self.view.primaries(partition);
        let mut others = primaries.iter().filter(|node| **node != self.view.me).peekable();
        let told = self.epochs.meeting.words.get(&partition);
        let is_trusted =
            |node: &NodeId| told.and_then(|told| told.get(node)).is_some_and(|word| word.trusted);
        let is_complete = |member: &Member| {
            let is_of_now = self.known_beginning(member) == member.oneself.beginning;
            is_of_now && member.oneself.serving && member.oneself.is_complete_for(partition)
        };
        let has_all = |node: &NodeId| is_trusted(node) && self.view.member(*node).is_some_and(is_complete);
        others.peek().is_some() && others.all(has_all)
    }

    /// Rounds whose proposers can't tell how they ended are over.
    fn let_go_of_dead(&mut self, partition: PartitionId, out: &mut Output) {
        let bindings = self.epochs.bindings(partition).iter();
        let left: Vec<Binding> = bindings.filter(|bound| !self.is_dead(bound)).copied().collect();
        self.epochs.known_mut(partition).epoch.bindings = left;
        self.epochs.meeting.words.remove(&partition);
        self.failpoints.reached(Rare::DeadRoundEnded);
        self.record_epoch(partition, out);
    }

    /// A node of an older version never promises anything: while it is a member no round can end.
    pub(super) fn on_refused_to_meet(&mut self, now: Now, link: LinkId, frame: &Frame<'_>, out: &mut Output) {
        if frame.header.request_id != ASKED || frame.header.kind != Kind::ERROR {
            return;
        }
        let is_old = ErrorAnswer::parse(frame).is_ok_and(|error| error.code == ErrorCode::Unsupported)
            && self.view.member(link.node).is_some_and(|member| self.known_beginning(member) == 0);
        if is_old {
            let met: Vec<PartitionId> =
                self.unmet().filter(|&partition| self.link_to(link.node, partition) == Some(link)).collect();
            for partition in met {
                let known = self.epochs.known(partition).map(|known| known.epoch.clone());
                let known = known.unwrap_or(Epoch { partition: partition.0, ..Epoch::default() });
                self.on_met(now, &known, out);
            }
            self.look_whom_to_meet();
        }
    }

    /// No raise rests on what was lost: this is the epoch. One of this shard's own that is later was never raised, as far
    /// as the others are concerned.
    fn on_met(&mut self, now: Now, told: &Epoch, out: &mut Output) {
        self.failpoints.reached(Rare::NodeMet);
        let partition = PartitionId(told.partition);
        let beginning = self.beginning();
        // Records are missing, and what they had ended may be back; unless nothing was ever forgotten, or nobody else has all.
        let is_doubtful =
            self.epochs.recovered.is_doubtful && told.epoch > 0 && self.may_be_streamed(partition);
        self.epochs.meeting.on_raised(partition);
        let known = self.epochs.known_mut(partition);
        let is_other = Raised::from(told) != Raised::from(&known.epoch);
        let mut bindings = std::mem::take(&mut known.epoch.bindings).into_iter();
        let is_bound = known.epoch.epoch + 1 == told.epoch
            && bindings.any(|bound| (bound.proposer(), bound.round()) == (told.proposer, told.round));
        let is_reborn = !self.options.durable && (known.epoch.epoch, known.epoch.met) == (0, 0);
        known.epoch.met = beginning;
        if is_other || is_doubtful {
            let held = match () {
                () if is_bound && !is_doubtful => Held::Confirmed,
                () if is_reborn => Held::Reborn,
                () => Held::Older,
            };
            self.raise(now, told, held, out);
        } else {
            self.record_epoch(partition, out);
        }
        if self.epochs.recovered.is_doubtful && self.unmet().next().is_none() {
            self.epochs.recovered.is_doubtful = false;
            self.record_beginnings(out);
        }
    }
}
