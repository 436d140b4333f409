//! Rounds: how the primaries of a partition agree to forget, and the others to keep nothing old (docs/adr/0013).
//!
//! The first primary of a partition proposes the keys of which nothing but tombstones is left, and those that tell of
//! many actors without a version, a bounded batch of them. The other primaries confirm those of which they
//! have the same state, on stable storage; every other member promises to keep nothing of this epoch. Both are bound by
//! the round from then on, durably, until they hear that the epoch was raised or that the round has ended without.
//! When all are bound the proposer raises the epoch, and tells it when that can't be undone.
//!
//! When to try is a matter of age (a key is the same at two looks, unless tombstones fill the memory) and health; whether it is safe
//! never is. A shard has one
//! round of its own under way, and is bound by [`ROUNDS_BOUND_MAX`] at most for a partition.

use std::collections::BTreeMap;

use ringmain_schema::Kind;
use ringmain_schema::epoch::{Binding, Bound, Epoch, Keys, Propose, Round};
use ringmain_schema::limits::{REAPED_KEYS_MAX, ROUNDS_BOUND_MAX};
use xxhash_rust::xxh3::xxh3_64;

use crate::failpoint::{Bug, Choice, Failpoints, Rare};
use crate::id::{ConnectionId, NodeId, PartitionId};
use crate::membership::{Health, Member};
use crate::pace::Claimant;
use crate::storage::{Entry, digest, value_bytes};
use crate::time::{Duration, Instant, Now};

use super::Shard;
use super::appends::Waiter;
use super::candidates::{Candidates, is_dead};
use super::epochs::Held;
use super::io::Output;
use super::links::LinkId;

/// A round in which not everybody is bound by then is given up.
const ROUND_MAX: Duration = Duration::from_secs(2);
/// Whoever has not answered is asked again after this time.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// Whoever is bound asks the proposer so often whether its round has ended.
const QUESTION_EVERY: Duration = Duration::from_secs(1);
/// Proposers asked at once.
const QUESTIONS_MAX: usize = 64;
/// Between two partitions that are looked at, at least.
const STEP_MIN: Duration = Duration::from_millis(10);
/// Bytes of values of a state that is sent to whoever proposes to forget the key, at most.
const SHOWN_BYTES_MAX: usize = 16 * 1024;

/// The rounds of one shard.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    under_way: Option<UnderWay>,
    /// Opened by this process: how many, and what the numbers of all of them begin with.
    opened: u32,
    process: Option<u32>,
    /// The partition that is looked at next.
    cursor: u32,
    next_step: Option<Instant>,
    /// When one may be looked at before its turn.
    next_hurried: Instant,
    next_question: Instant,
    /// Asked so far.
    questions: usize,
    /// What might be forgotten of each partition.
    pub(super) candidates: BTreeMap<PartitionId, Candidates>,
    /// A partition of which a raise has left something to be forgotten.
    again: Option<PartitionId>,
    /// Partitions with something to forget, and for which node each waits.
    pub(super) waiting: BTreeMap<PartitionId, NodeId>,
}

#[derive(Debug)]
struct UnderWay {
    proposal: Propose,
    /// Members that have not answered.
    waits_for: Vec<NodeId>,
    /// This shard's own binding is on stable storage.
    is_recorded: bool,
    agreed: u128,
    until: Instant,
    ask_again: Instant,
}

impl<F: Failpoints> Shard<F> {
    pub(super) fn next_in_rounds(&self) -> Option<Instant> {
        let rounds = &self.epochs.rounds;
        let under_way = rounds.under_way.as_ref().map(|round| round.until.min(round.ask_again));
        let step = self.options.reap.and(Some(self.next_look_for_rounds()));
        let step = step.filter(|_| rounds.under_way.is_none());
        let question = self.epochs.is_bound().then_some(rounds.next_question);
        [under_way, step, question].into_iter().flatten().min()
    }

    /// When the next partition is looked at: soon, if tombstones take too much of the memory.
    fn next_look_for_rounds(&self) -> Instant {
        let rounds = &self.epochs.rounds;
        let next = rounds.next_step.unwrap_or_default();
        if rounds.next_step.is_some() && self.is_pressed() { next.min(rounds.next_hurried) } else { next }
    }

    pub(super) fn tend_rounds(&mut self, now: Now, out: &mut Output) {
        self.ask_how_rounds_ended(now, out);
        match &self.epochs.rounds.under_way {
            Some(round) if round.until <= now.monotonic || !self.stands(&round.proposal) => {
                self.give_up_round(out);
            }
            Some(round) if round.ask_again <= now.monotonic => self.propose(now, out),
            Some(_) => {}
            None => self.look_at_next(now, out),
        }
    }

    /// Look whether the next partition has something to forget, and begin a round.
    fn look_at_next(&mut self, now: Now, out: &mut Output) {
        let Some(every) = self.options.reap else { return };
        if self.next_look_for_rounds() > now.monotonic {
            return;
        }
        self.epochs.rounds.next_hurried = now.monotonic + STEP_MIN;
        let partitions = self.trees.partitions();
        let mine = u64::from((partitions / u32::from(self.options.shards)).max(1));
        let pause = Duration(every.0 / mine).max(STEP_MIN);
        let jitter = Duration(self.prng.below(pause.0 / 5 + 1));
        let is_first = self.epochs.rounds.next_step.is_none();
        self.epochs.rounds.next_step = Some(now.monotonic + Duration(pause.0 / 10 * 9) + jitter);
        if is_first || self.stopping {
            return;
        }
        if !self.may_spend(Claimant::AntiEntropy, now) {
            let ready = self.ready_at(Claimant::AntiEntropy, now).max(now.monotonic + STEP_MIN);
            self.epochs.rounds.next_hurried = ready;
            if self.epochs.rounds.again.is_some() {
                self.epochs.rounds.next_step = Some(ready);
            }
            return;
        }
        if let Some(partition) = self.epochs.rounds.again.take() {
            return self.look_again(now, partition, out);
        }
        for _ in 0..partitions {
            let partition = PartitionId(self.epochs.rounds.cursor % partitions);
            self.epochs.rounds.cursor = (partition.0 + 1) % partitions;
            if self.is_mine(partition) {
                return self.look_at(now, partition, out);
            }
        }
    }

    fn look_at(&mut self, now: Now, partition: PartitionId, out: &mut Output) {
        self.epochs.rounds.waiting.remove(&partition);
        let is_early = self.failpoints.rare(Choice::EarlyReap);
        let primaries = self.view.primaries(partition);
        let is_proposer = if is_early {
            primaries.contains(&self.view.me)
        } else {
            primaries.first() == Some(&self.view.me)
        };
        if !is_proposer {
            if self.puts_keys_out() && primaries.contains(&self.view.me) {
                self.push_to_proposer(now, partition, out);
            } else {
                self.keep_candidates(partition, Candidates::default());
            }
            return;
        }
        if self.is_pressed()
            && let Err(node) = self.ready(now, partition, is_early)
        {
            self.epochs.rounds.waiting.insert(partition, node);
            return;
        }
        self.find_ripe(now, partition, is_early);
        self.propose_ripe(now, partition, is_early, out);
    }

    /// A raise has just ended: go on with what is ripe. If there is no more of that, find what may be so at the next look.
    fn look_again(&mut self, now: Now, partition: PartitionId, out: &mut Output) {
        if self.view.primaries(partition).first() != Some(&self.view.me) {
            return;
        }
        if self.propose_ripe(now, partition, false, out) {
            return;
        }
        self.find_ripe(now, partition, false);
        let is_pressed = self.is_pressed();
        let Some(candidates) = self.epochs.rounds.candidates.get_mut(&partition) else { return };
        // Other partitions have their turn while only a few are ripe here.
        if is_pressed && candidates.ripe[0].len() >= REAPED_KEYS_MAX / 2 {
            self.propose_ripe(now, partition, false, out);
        } else {
            candidates.ripe.iter_mut().for_each(Keys::clear);
        }
    }

    /// Begin a round of what is ripe, if there is anything and it can begin. False if there is nothing.
    fn propose_ripe(&mut self, now: Now, partition: PartitionId, is_early: bool, out: &mut Output) -> bool {
        let Some(candidates) = self.epochs.rounds.candidates.get(&partition) else { return false };
        if candidates.ripe.iter().all(Vec::is_empty) {
            return false;
        }
        match self.ready(now, partition, is_early) {
            Err(node) => _ = self.epochs.rounds.waiting.insert(partition, node),
            Ok(beginnings) => {
                let mut candidates = self.take_candidates(partition);
                let [reaped, pruned] = candidates.take_ripe();
                self.keep_candidates(partition, candidates);
                let (epoch, ring) = (self.epoch(partition), self.view.ring.hash());
                let round = self.name_round();
                let (partition, incarnation) = (partition.0, self.view.incarnation().0);
                let proposal =
                    Propose { partition, epoch, round, ring, beginnings, incarnation, reaped, pruned };
                self.open_round(now, proposal, out);
            }
        }
        true
    }

    /// A number that no other round of this node has.
    fn name_round(&mut self) -> u64 {
        let rounds = &mut self.epochs.rounds;
        let process = *rounds.process.get_or_insert_with(|| (self.prng.next_u64() >> 32) as u32);
        rounds.opened += 1;
        u64::from(process) << 32 | u64::from(rounds.opened)
    }

    /// Is this round of this node's over, unless it has led to a raise? That would be on record, whichever process of this node
    /// had opened it.
    fn is_over(&self, partition: PartitionId, round: u64) -> bool {
        self.is_met(partition) && self.is_certain(partition) && !self.is_under_way(round)
    }

    /// Can a round begin? The hash of all beginnings, or for whom it waits.
    fn ready(&self, now: Now, partition: PartitionId, is_early: bool) -> Result<u64, NodeId> {
        let me = self.view.me;
        let is_changing = self.view.change.is_some() || self.view.former.is_some();
        let holds_all = self.holds_all(partition) && self.is_met(partition);
        if is_changing
            || !holds_all
            || self.log_refusal().is_some()
            || (self.hints.store.keeps(partition) && !self.ignores_hints())
        {
            return Err(me);
        }
        // The round of a proposer that is gone for good ends with the next raise.
        let is_here = |node: &NodeId| self.view.member(*node).is_some_and(|member| !member.is_removed());
        let mut proposers = self.epochs.bindings(partition).iter().map(|bound| NodeId(bound.proposer()));
        if let Some(bound) = proposers.find(is_here) {
            return Err(bound);
        }
        for node in self.others() {
            let Some(member) = self.view.member(node) else { return Err(node) };
            let owns = self.view.primaries(partition).contains(&node);
            let lacks = owns && !member.oneself.is_complete_for(partition);
            let link = self.link_to(node, partition).and_then(|link| self.links.connection(link));
            let is_up = is_early || self.detector.health(now.monotonic, node) == Health::Up;
            if !member.oneself.serving || lacks || link.is_none() || !is_up {
                return Err(node);
            }
        }
        self.beginnings()
    }

    /// A hash of all members, their beginnings and their processes, as this shard knows them; a member that doesn't reap, if
    /// there is one. What a process has said doesn't bind another that starts from a copy of its disk.
    fn beginnings(&self) -> Result<u64, NodeId> {
        let reaps = |member: &&Member| member.is_removed() || self.known_beginning(member) > 0;
        match self.view.members.iter().find(|member| !reaps(member)) {
            Some(member) => Err(member.node),
            None => Ok(self.hash_of_beginnings()),
        }
    }

    /// The hash alone.
    pub(super) fn hash_of_beginnings(&self) -> u64 {
        let mut bytes = Vec::new();
        for member in self.view.members.iter().filter(|member| !member.is_removed()) {
            let beginning = self.known_beginning(member);
            for number in [member.node.0, beginning, member.oneself.incarnation.0] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        xxh3_64(&bytes)
    }

    /// Are members, beginnings and ring still those that this proposal names?
    fn stands(&self, proposal: &Propose) -> bool {
        self.view.is_serving()
            && self.view.change.is_none()
            && self.view.former.is_none()
            && self.view.ring.hash() == proposal.ring
            && self.beginnings() == Ok(proposal.beginnings)
    }

    fn ignores_hints(&self) -> bool {
        self.failpoints.planted(Bug::ReapIgnoresHints)
    }

    fn open_round(&mut self, now: Now, proposal: Propose, out: &mut Output) {
        self.counters.reap_rounds += 1;
        let (partition, round) = (PartitionId(proposal.partition), proposal.round);
        let under_way = UnderWay {
            proposal,
            waits_for: self.others(),
            is_recorded: false,
            agreed: u128::MAX,
            until: now.monotonic + ROUND_MAX,
            ask_again: now.monotonic,
        };
        self.epochs.rounds.under_way = Some(under_way);
        self.bind(partition, self.view.me, round, false, out);
        self.propose(now, out);
        self.when_recorded(now, partition, Waiter::Proposed { round }, out);
    }

    /// Ask whoever has not answered.
    fn propose(&mut self, now: Now, out: &mut Output) {
        let Some(round) = &mut self.epochs.rounds.under_way else { return };
        round.ask_again = now.monotonic + ASK_EVERY;
        let (partition, asked) = (PartitionId(round.proposal.partition), round.waits_for.clone());
        let links = asked.into_iter().filter_map(|node| self.link_to(node, partition));
        let links: Vec<ConnectionId> = links.filter_map(|link| self.links.connection(link)).collect();
        let Some(round) = &self.epochs.rounds.under_way else { return };
        let encoder = &mut self.encoder;
        out.deliver_to_all(links.into_iter(), |bytes| round.proposal.encode(encoder, 0, bytes));
    }

    /// Be bound by a round.
    fn bind(
        &mut self,
        partition: PartitionId,
        proposer: NodeId,
        round: u64,
        promised: bool,
        out: &mut Output,
    ) {
        let beginning = self.view.member(proposer).map_or(0, |member| self.known_beginning(member));
        let bindings = &mut self.epochs.known_mut(partition).epoch.bindings;
        debug_assert!(bindings.iter().all(|bound| bound.proposer() != proposer.0), "one of each proposer");
        bindings.push(Binding::new(proposer.0, round, beginning, promised));
        self.record_epoch(partition, out);
    }

    /// Another node proposes.
    pub(super) fn on_propose(
        &mut self,
        now: Now,
        connection: ConnectionId,
        link: LinkId,
        request_id: u64,
        proposal: &Propose,
        out: &mut Output,
    ) {
        let partition = PartitionId(proposal.partition);
        let Propose { epoch, round, .. } = *proposal;
        if proposal.partition >= self.trees.partitions()
            || !self.is_mine(partition)
            || !self.is_met(partition)
        {
            return self.refuse_proposal(connection, request_id, proposal, out);
        }
        if epoch != self.epoch(partition) {
            return self.answer_epoch(connection, request_id, partition, out);
        }
        self.show_what_differs(now, link.node, partition, proposal, out);
        let agreed = self.agree(now, link.node, partition, proposal);
        let Some((agreed, promised)) = agreed else {
            return self.refuse_proposal(connection, request_id, proposal, out);
        };
        let bindings = self.epochs.bindings(partition);
        if !bindings.iter().any(|bound| (bound.proposer(), bound.round()) == (link.node.0, round)) {
            // Else whoever is bound again and again would never ask how those before have ended.
            if !self.epochs.is_bound() {
                self.epochs.rounds.next_question = now.monotonic + QUESTION_EVERY;
            }
            self.bind(partition, link.node, round, promised, out);
        } else if !self.is_recorded(partition) {
            // Asked again before the first answer could be given, it will ask once more.
            return;
        }
        let waiter =
            Waiter::Bound { connection, request_id, partition: proposal.partition, epoch, round, agreed };
        self.when_recorded(now, partition, waiter, out);
    }

    /// With which keys this shard agrees, and whether that is a promise; none if it doesn't.
    fn agree(
        &self,
        now: Now,
        proposer: NodeId,
        partition: PartitionId,
        proposal: &Propose,
    ) -> Option<(u128, bool)> {
        let bindings = self.epochs.bindings(partition);
        let (its, others): (Vec<&Binding>, Vec<&Binding>) =
            bindings.iter().partition(|bound| bound.proposer() == proposer.0);
        // A proposal may come late: taken in place of the one that binds, it would let go of a round that can still end.
        let is_bound_by_another = its.iter().any(|bound| bound.round() != proposal.round);
        // Two that are bound by each other could raise one epoch in two ways.
        let proposes = self
            .epochs
            .rounds
            .under_way
            .as_ref()
            .is_some_and(|round| round.proposal.partition == partition.0);
        // Whoever is bound remembers a beginning of the proposer that has told of itself: if that comes back from an older
        // disk, it hears so before it has met all.
        let is_of_now = self.view.member(proposer).is_some_and(|member| {
            member.oneself.serving && member.oneself.incarnation.0 == proposal.incarnation
        });
        if !is_of_now
            || !self.stands(proposal)
            || self.log_refusal().is_some()
            || proposes
            || is_bound_by_another
            || others.len() >= ROUNDS_BOUND_MAX
            || (self.hints.store.keeps(partition) && !self.ignores_hints())
        {
            return None;
        }
        if !self.view.primaries(partition).contains(&self.view.me) {
            return (!self.keeps_departed(partition)).then_some((u128::MAX, true));
        }
        if !self.holds_all(partition) {
            return None;
        }
        let same = |(token, hash): &(u64, u64)| {
            let mut under = self.replica.index().under(partition, *token);
            under.find(|entry| digest(*token, &entry.state) == *hash && self.is_durable(entry.appended))
        };
        let is_dead = |entry: &Entry| is_dead(&entry.state, now.wall);
        let reaped = proposal.reaped.iter().map(|key| same(key).is_some_and(is_dead));
        let pruned = proposal.pruned.iter().map(|key| same(key).is_some());
        let bits = reaped.chain(pruned).zip(0..).map(|(agreed, at)| u128::from(agreed) << at);
        let agreed = bits.fold(0, |all, bit| all | bit);
        (agreed != 0).then_some((agreed, false))
    }

    fn refuse_proposal(
        &mut self,
        connection: ConnectionId,
        request_id: u64,
        proposal: &Propose,
        out: &mut Output,
    ) {
        let Propose { partition, epoch, round, .. } = *proposal;
        let refusal = Bound { partition, epoch, round, bound: false, agreed: 0, evicted: false };
        self.send_bound(connection, request_id, refusal, out);
    }

    /// This shard is bound for good, or refuses to be.
    pub(super) fn send_bound(
        &mut self,
        connection: ConnectionId,
        request_id: u64,
        bound: Bound,
        out: &mut Output,
    ) {
        let bound = Bound { evicted: self.has_evicted(PartitionId(bound.partition)), ..bound };
        let encoder = &mut self.encoder;
        out.deliver(connection, true, |bytes| bound.encode(encoder, request_id, bytes));
    }

    /// The proposer is bound for good itself.
    pub(super) fn on_proposed(&mut self, now: Now, number: u64, out: &mut Output) {
        if let Some(round) = &mut self.epochs.rounds.under_way
            && round.proposal.round == number
        {
            round.is_recorded = true;
            self.finish_round(now, out);
        }
    }

    /// A member is bound, or refuses.
    pub(super) fn on_bound(&mut self, now: Now, from: NodeId, bound: &Bound, out: &mut Output) {
        let Some(round) = &mut self.epochs.rounds.under_way else { return };
        let Propose { partition, epoch, round: number, .. } = round.proposal;
        if (bound.partition, bound.epoch, bound.round) != (partition, epoch, number) {
            return;
        }
        if bound.evicted || self.has_evicted(PartitionId(partition)) {
            self.push_unconfirmed(now, from, bound, out);
        }
        let Some(round) = &mut self.epochs.rounds.under_way else { return };
        if !bound.bound {
            self.epochs.rounds.waiting.insert(PartitionId(partition), from);
            return self.give_up_round(out);
        }
        if round.waits_for.contains(&from) {
            round.waits_for.retain(|node| *node != from);
            round.agreed &= bound.agreed;
        }
        self.finish_round(now, out);
    }

    /// An owner lacks some of the tombstones, and no round of anti-entropy may bring them: send it those. It confirms them in a later
    /// round.
    fn push_unconfirmed(&mut self, now: Now, to: NodeId, bound: &Bound, out: &mut Output) {
        let Some(round) = &self.epochs.rounds.under_way else { return };
        let partition = PartitionId(bound.partition);
        let agreed = if bound.bound { bound.agreed } else { 0 };
        let keys = round.proposal.reaped.iter().zip(0..).filter(|(_, at)| agreed >> at & 1 == 0);
        let tokens: Vec<u64> = keys.map(|((token, _), _)| *token).collect();
        self.push_tombstones(now, to, partition, &tokens, out);
    }

    /// The proposer holds less than there is here of a key that it would forget, and no round of anti-entropy may bring it the rest: it
    /// would propose the key for ever. Send it what is here, if that is small.
    fn show_what_differs(
        &mut self,
        now: Now,
        proposer: NodeId,
        partition: PartitionId,
        proposal: &Propose,
        out: &mut Output,
    ) {
        if !self.puts_keys_out() || !self.view.owns(partition) || !self.takes_copies(partition) {
            return;
        }
        let differs = |(token, hash): &&(u64, u64)| {
            let mut under = self.replica.index().under(partition, *token).peekable();
            under.peek().is_some()
                && under.all(|entry| {
                    digest(*token, &entry.state) != *hash && value_bytes(&entry.state) <= SHOWN_BYTES_MAX
                })
        };
        let tokens: Vec<u64> = proposal.reaped.iter().filter(differs).map(|(token, _)| *token).collect();
        self.push_tombstones(now, proposer, partition, &tokens, out);
    }

    /// Send another owner what is held under these tokens, as far as the budget goes.
    fn push_tombstones(
        &mut self,
        now: Now,
        to: NodeId,
        partition: PartitionId,
        tokens: &[u64],
        out: &mut Output,
    ) {
        let owns = self.view.primaries(partition).contains(&to) && to != self.view.me;
        if tokens.is_empty() || !owns || !self.may_spend(Claimant::AntiEntropy, now) {
            return;
        }
        let link = self.link_to(to, partition).and_then(|link| self.links.connection(link));
        let Some(connection) = link else { return };
        let before = out.bytes.len();
        let (_, states) = self.send_states(connection, partition, tokens, |_| 0, out);
        self.pace.spent(Claimant::AntiEntropy, out.bytes.len() - before, states);
        self.counters.tombstones_pushed += states as u64;
        self.failpoints.reached(Rare::TombstonePushed);
    }

    /// Whoever proposes may lack a tombstone itself. Where keys may be put out, the other owners send it what they would propose.
    fn push_to_proposer(&mut self, now: Now, partition: PartitionId, out: &mut Output) {
        let Some(&proposer) = self.view.primaries(partition).first() else { return };
        self.find_ripe(now, partition, false);
        let mut candidates = self.take_candidates(partition);
        candidates.ripe[1].clear();
        let [ripe, _] = candidates.take_ripe();
        candidates.ripe = <[Keys; 2]>::default();
        let tokens: Vec<u64> = ripe.iter().map(|(token, _)| *token).collect();
        self.keep_candidates(partition, candidates);
        self.push_tombstones(now, proposer, partition, &tokens, out);
    }

    /// All are bound: raise the epoch.
    fn finish_round(&mut self, now: Now, out: &mut Output) {
        let is_finished = |round: &mut UnderWay| round.is_recorded && round.waits_for.is_empty();
        let Some(round) = self.epochs.rounds.under_way.take_if(is_finished) else { return };
        let partition = PartitionId(round.proposal.partition);
        let Propose { epoch, round: number, reaped, pruned, .. } = &round.proposal;
        let mut agreed = (0..).map(|at: u32| round.agreed >> at & 1 == 1);
        let mut chosen = |keys: &[(u64, u64)]| -> Vec<(u64, u64)> {
            keys.iter().copied().filter(|_| agreed.next() == Some(true)).collect()
        };
        let (reaped, pruned) = (chosen(reaped), chosen(pruned));
        let is_idle = reaped.is_empty() && pruned.is_empty();
        let keeps_hints = self.hints.store.keeps(partition) && !self.ignores_hints();
        // A process that stood still may have been taken over from, and others have let go since.
        let is_late = round.until <= now.monotonic;
        let is_other = *epoch != self.epoch(partition) || !self.stands(&round.proposal);
        if is_idle || keeps_hints || is_late || is_other {
            self.epochs.rounds.under_way = Some(round);
            return self.give_up_round(out);
        }
        let raised = Epoch {
            partition: partition.0,
            epoch: epoch + 1,
            proposer: self.view.me.0,
            round: *number,
            reaped,
            pruned,
            ..Epoch::default()
        };
        self.raise(now, &raised, Held::Confirmed, out);
        let known = self.epochs.known_mut(partition);
        known.certain_with = known.recorded;
        self.when_recorded(now, partition, Waiter::Raised { partition }, out);
    }

    /// The raise can't be undone any more: all may hear of it. What they have refused in the meantime is sent again.
    pub(super) fn tell_raised(&mut self, now: Now, partition: PartitionId, out: &mut Output) {
        for connection in self.all_linked(partition) {
            self.tell_epoch(connection, partition, out);
        }
        self.begin_again(now, partition, false, out);
        self.epochs.rounds.again = Some(partition);
        self.epochs.rounds.next_step = Some(now.monotonic);
    }

    fn all_linked(&self, partition: PartitionId) -> Vec<ConnectionId> {
        let links = self.others().into_iter().filter_map(|node| self.link_to(node, partition));
        links.filter_map(|link| self.links.connection(link)).collect()
    }

    /// The round ends without a raise, and lets go of whoever is bound by it.
    fn give_up_round(&mut self, out: &mut Output) {
        let Some(round) = self.epochs.rounds.under_way.take() else { return };
        self.failpoints.reached(Rare::RoundGivenUp);
        self.counters.reap_rounds_given_up += 1;
        let Propose { partition, epoch, round: number, .. } = round.proposal;
        if let Some(node) = round.waits_for.first() {
            self.epochs.rounds.waiting.entry(PartitionId(partition)).or_insert(*node);
        }
        let over = Round { partition, epoch, round: number };
        let partition = PartitionId(partition);
        self.let_go(partition, self.view.me, number, out);
        let linked = self.all_linked(partition);
        let encoder = &mut self.encoder;
        out.deliver_to_all(linked.into_iter(), |bytes| over.encode(encoder, Kind::ROUND_OVER, 0, bytes));
    }

    fn let_go(&mut self, partition: PartitionId, proposer: NodeId, round: u64, out: &mut Output) -> bool {
        let bindings = &mut self.epochs.known_mut(partition).epoch.bindings;
        let before = bindings.len();
        bindings.retain(|bound| (bound.proposer(), bound.round()) != (proposer.0, round));
        let is_free = bindings.len() < before;
        if is_free {
            self.record_epoch(partition, out);
        }
        is_free
    }

    /// A round of that node has ended without a raise.
    pub(super) fn on_round_over(&mut self, from: NodeId, over: &Round, out: &mut Output) {
        let partition = PartitionId(over.partition);
        if over.partition < self.trees.partitions()
            && self.is_mine(partition)
            && self.epoch(partition) == over.epoch
            && self.let_go(partition, from, over.round, out)
        {
            self.failpoints.reached(Rare::RoundLetGo);
        }
    }

    /// Has this round of ours ended? Only who is trusted with the epoch can say; a raise says it all.
    pub(super) fn on_round_question(
        &mut self,
        connection: ConnectionId,
        request_id: u64,
        asked: &Round,
        out: &mut Output,
    ) {
        let partition = PartitionId(asked.partition);
        let is_mine = asked.partition < self.trees.partitions() && self.is_mine(partition);
        if !is_mine || !self.is_met(partition) || !self.view.is_serving() {
            return self.refuse_peer(connection, request_id, out);
        }
        if self.epoch(partition) != asked.epoch {
            return self.answer_epoch(connection, request_id, partition, out);
        }
        if !self.is_over(partition, asked.round) {
            return self.refuse_peer(connection, request_id, out);
        }
        let encoder = &mut self.encoder;
        out.deliver(connection, true, |bytes| asked.encode(encoder, Kind::ROUND_OVER, request_id, bytes));
    }

    fn is_under_way(&self, round: u64) -> bool {
        self.epochs.rounds.under_way.as_ref().is_some_and(|under_way| under_way.proposal.round == round)
    }

    /// Whoever is bound asks how the round has ended. A round of this shard's own that it has forgotten is over: its
    /// raise would be on record.
    fn ask_how_rounds_ended(&mut self, now: Now, out: &mut Output) {
        if !self.epochs.is_bound() || self.epochs.rounds.next_question > now.monotonic {
            return;
        }
        self.epochs.rounds.next_question = now.monotonic + QUESTION_EVERY;
        let me = self.view.me;
        let mut asked: Vec<(NodeId, Round)> = Vec::new();
        for (partition, known) in self.epochs.bound() {
            for bound in &known.epoch.bindings {
                let round = Round { partition: partition.0, epoch: known.epoch.epoch, round: bound.round() };
                asked.push((NodeId(bound.proposer()), round));
            }
        }
        // All in turn: some may not answer for long.
        let first = self.epochs.rounds.questions % asked.len().max(1);
        self.epochs.rounds.questions = first + QUESTIONS_MAX;
        asked.rotate_left(first);
        asked.truncate(QUESTIONS_MAX);
        for (proposer, round) in asked {
            let partition = PartitionId(round.partition);
            if proposer == me {
                if self.is_over(partition, round.round) {
                    self.let_go(partition, me, round.round, out);
                }
            } else if let Some(link) = self.link_to(proposer, partition)
                && let Some(connection) = self.links.connection(link)
            {
                self.detector.on_asked(now.monotonic, proposer);
                let encoder = &mut self.encoder;
                out.deliver(connection, false, |bytes| round.encode(encoder, Kind::ROUND, 0, bytes));
            }
        }
    }
}
