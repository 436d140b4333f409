//! Reaping tombstones by partition epoch: the protocol of `src/shard/{epochs,rounds,meeting}.rs`, written out for one key.
//!
//! A tombstone may be forgotten once nobody can bring back what it deleted. The partition's epoch says so: what
//! was sent or kept in an older one is refused. A round goes like this, each step on disk before it is told:
//!
//! 1. A primary that has nothing but tombstones **proposes**: it asks the other primaries to confirm the state that it
//!    has, and every other member for a promise, and names the **beginnings** of all members' records as it knows them.
//! 2. Whoever knows the same beginnings and has not lost its record is **bound** by the round: a primary confirms what it has, any
//!    other member promises, once it holds no hint, to keep nothing of this epoch any more.
//! 3. With all bound, and the beginnings still the same, the proposer **raises** the epoch and tells the others. Who is bound by
//!    that very round drops the state if it is still the one that all have confirmed (and keeps it if they differ:
//!    other keys of the partition may agree). Any other copy may be older than what was reaped: it is wiped.
//! 4. Or the round is **given up**: the proposer forgets it first and says so then, and whoever is bound by it is let go. A
//!    proposer that has died says the same of rounds that it doesn't remember.
//! 5. Who is behind is told how the epoch was raised by whoever is ahead.
//!
//! # What the search has found
//!
//! The protocol was first written down without three things, and without each of them a write is lost or comes back
//! (`mistakes.rs` and `stories.rs` plant their absence):
//!
//! - **A read under way is a message too.** A read that began in the old epoch holds states of it in memory; repairing
//!   with them after the raise brings back what was deleted (P5). So a raise ends the reads under way at its node, and
//!   writes under way are sent again in the new epoch.
//! - **Who has lost its record is bound by what it doesn't remember.** Its beginning changes with that, and it takes nothing, keeps
//!   nothing and acknowledges nothing until it was **met**: a member that is bound by nothing notes its new
//!   beginning, without which no round can end that rests on the old one. Or all others note it, and each has lost
//!   its record too or is bound: no round that rests on the old one can be raised any more, or it was and somebody says so. If it took in anything before, the raise
//!   that it knows nothing of would wipe what was counted (P1).
//! - **Whoever is bound itself can't meet anybody** (P1): the round that binds it may be the one that rests on the one before.
//!
//! One price stays: from its promise until the raise a fallback refuses hints, so a member that dies in between
//! makes the partition's quorums strict until the round is given up.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use ringmain::causality::Siblings;
use ringmain::shard::{Raised, decide};
use ringmain_schema::epoch::Word;

use super::actions::Action;
use super::scope::{Mistake, Scope};
use super::world::{Envelope, FALLBACK, Kind, Message, NODES, Operation, Request, World};

/// Messages of who has lost its record.
pub(crate) const MEETING: Request = Request(14);

/// How often each member has lost its record, the fallback last.
pub(crate) type Beginnings = [u8; NODES + 1];

/// A round: its proposer, and which of all rounds it is.
pub(crate) type Named = (u8, u8);

/// What a member knows of the epoch. On disk, but for the round and who has noted its beginning.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Reaping {
    pub(crate) epoch: u8,
    /// The beginnings of others as it has heard of them, and its own.
    pub(crate) beginnings: Beginnings,
    /// The rounds by which it is bound in this epoch, each with its proposer's beginning.
    pub(crate) bindings: BTreeSet<(Named, u8)>,
    /// It has lost its record, and is not met yet.
    pub(crate) unmet: bool,
    /// What the others have told it since.
    pub(crate) words: [Option<Word>; NODES + 1],
    /// How the epoch was raised.
    pub(crate) raised: Option<Raise>,
    /// What it proposed, and who has answered.
    pub(crate) round: Option<Round>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Round {
    name: Named,
    state: Arc<Siblings<Bytes>>,
    beginnings: Beginnings,
    answers: [bool; NODES + 1],
    /// All have confirmed the same state.
    agree: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Raise {
    /// What all primaries have confirmed, if that was one state. In truth a hash.
    pub(crate) drop: Option<Arc<Siblings<Bytes>>>,
    pub(crate) round: Named,
}

/// Messages of this round.
pub(crate) const fn of_round((proposer, number): Named) -> Request {
    Request(8 + number * NODES as u8 + proposer)
}

pub(crate) fn possible(world: &World, actions: &mut Vec<Action>) {
    if world.reaps_left > 0 {
        let can = |node: &usize| {
            let node = &world.nodes[*node];
            let is_deleted = !node.copy.is_empty() && node.copy.values().next().is_none();
            let reaping = &node.reaping;
            is_deleted && !node.incomplete && reaping.epoch == 0 && reaping.round.is_none() && !reaping.unmet
        };
        actions.extend((0..NODES).filter(can).map(|node| Action::Propose { node }));
    }
    if world.overs_left > 0 {
        let proposes = |node: &usize| world.nodes[*node].reaping.round.is_some();
        actions.extend((0..NODES).filter(proposes).map(|node| Action::GiveUpRound { node }));
    }
}

impl World {
    pub(crate) fn reaping(&self, member: usize) -> &Reaping {
        self.nodes.get(member).map_or(&self.fallback.reaping, |node| &node.reaping)
    }

    fn reaping_mut(&mut self, member: usize) -> &mut Reaping {
        match self.nodes.get_mut(member) {
            Some(node) => &mut node.reaping,
            None => &mut self.fallback.reaping,
        }
    }

    /// To all other members: in a scope without hints the fallback is none.
    fn tell_others(&mut self, scope: &Scope, from: usize, request: Request, message: &Message) {
        let members = if scope.hints > 0 { NODES + 1 } else { NODES };
        for to in (0..members).filter(|&to| to != from) {
            self.send(from, to, request, message.clone());
        }
    }

    pub(crate) fn propose(&mut self, scope: &Scope, node: usize) {
        let name = (node as u8, scope.reaps - self.reaps_left);
        self.reaps_left -= 1;
        let state = Arc::new(self.nodes[node].copy.clone());
        let reaping = &mut self.nodes[node].reaping;
        let beginnings = reaping.beginnings;
        reaping.bindings.retain(|((proposer, _), _)| *proposer != name.0);
        reaping.bindings.insert((name, beginnings[node]));
        let mut answers = [false; NODES + 1];
        (answers[node], answers[FALLBACK]) = (true, scope.hints == 0);
        reaping.round = Some(Round { name, state, beginnings, answers, agree: true });
        self.tell_others(scope, node, of_round(name), &Message::Propose { round: name, beginnings });
    }

    /// The proposer forgets its round, and then says that it is over.
    pub(crate) fn give_up_round(&mut self, scope: &Scope, node: usize) {
        self.overs_left -= 1;
        self.nodes[node].reaping.round = None;
        self.end_rounds_of(scope, node);
    }

    /// Whoever is bound asks, and the proposer doesn't remember: no raise rests on a round that is not under way.
    pub(crate) fn end_rounds_of(&mut self, scope: &Scope, proposer: usize) {
        if self.nodes[proposer].reaping.epoch > 0 || self.nodes[proposer].reaping.unmet {
            return;
        }
        let is_its = |name: &Named| usize::from(name.0) == proposer;
        let all = (0..=NODES).flat_map(|member| self.reaping(member).bindings.iter().map(|(name, _)| *name));
        let bound: BTreeSet<Named> = all.filter(is_its).collect();
        self.nodes[proposer].reaping.bindings.retain(|(name, _)| !is_its(name));
        for round in bound {
            self.tell_others(scope, proposer, of_round(round), &Message::Over { round });
        }
    }

    /// What a member does with a message about epochs.
    pub(crate) fn on_round(&mut self, scope: &Scope, envelope: Envelope, message: Message) {
        let Envelope { to, from, .. } = envelope;
        match message {
            Message::Propose { round, beginnings } => self.on_proposed(scope, envelope, round, beginnings),
            Message::Confirm { round, state } => {
                self.network.remove(&envelope);
                self.on_bound(scope, to, from, round, state.as_deref());
            }
            Message::Over { round } => {
                self.network.remove(&envelope);
                let reaping = self.reaping_mut(to);
                if reaping.epoch == 0 {
                    reaping.bindings.retain(|(name, _)| *name != round);
                }
            }
            Message::Raise(raise) => self.raise(scope, to, raise),
            Message::Lost { beginning } => self.on_lost(scope, envelope, beginning),
            Message::Met { beginning, word, raised } => {
                self.network.remove(&envelope);
                self.on_word(scope, to, from, beginning, word, raised);
            }
            _ => unreachable!("not of a round"),
        }
    }

    fn on_proposed(&mut self, scope: &Scope, envelope: Envelope, round: Named, beginnings: Beginnings) {
        let Envelope { to, from, .. } = envelope;
        let reaping = self.reaping(to);
        let stands = reaping.beginnings == beginnings || is_blind_to_beginnings(scope);
        if reaping.epoch > 0 || reaping.unmet || !stands {
            return;
        }
        let state = match self.nodes.get(to) {
            Some(node) if node.incomplete => return,
            Some(node) => Some(Arc::new(node.copy.clone())),
            None if self.fallback.hints.iter().any(Option::is_some)
                && scope.mistake != Some(Mistake::IgnoresPendingHints) =>
            {
                return;
            }
            None => None,
        };
        // In a round that is given up, a proposal may come late.
        if scope.overs == 0 {
            self.network.remove(&envelope);
        }
        let reaping = self.reaping_mut(to);
        reaping.bindings.insert((round, reaping.beginnings[from]));
        self.send(to, from, of_round(round), Message::Confirm { round, state });
    }

    /// A member is bound. One that promises has no state.
    fn on_bound(
        &mut self,
        scope: &Scope,
        node: usize,
        from: usize,
        name: Named,
        state: Option<&Siblings<Bytes>>,
    ) {
        let Some(round) = &mut self.nodes[node].reaping.round else { return };
        if round.name == name {
            round.answers[from] = true;
            round.agree &= state.is_none_or(|state| *state == *round.state);
            self.finish_round(scope, node);
        }
    }

    fn finish_round(&mut self, scope: &Scope, node: usize) {
        let reaping = &mut self.nodes[node].reaping;
        let beginnings = reaping.beginnings;
        let is_finished = |round: &mut Round| {
            round.answers == [true; NODES + 1]
                && (round.beginnings == beginnings || is_blind_to_beginnings(scope))
        };
        let Some(round) = reaping.round.take_if(is_finished) else { return };
        let raise = Raise { drop: round.agree.then_some(round.state), round: round.name };
        self.raise(scope, node, raise.clone());
        self.tell_others(scope, node, of_round(round.name), &Message::Raise(raise));
    }

    /// One record: the drop and the epoch.
    pub(crate) fn raise(&mut self, scope: &Scope, member: usize, raise: Raise) {
        let reaping = self.reaping(member);
        if reaping.epoch > 0 || reaping.unmet {
            return;
        }
        let is_bound = reaping.bindings.iter().any(|(name, _)| *name == raise.round);
        let raised = Reaping { epoch: 1, beginnings: reaping.beginnings, ..Reaping::default() };
        let Some(node) = self.nodes.get_mut(member) else {
            // Whoever is bound has no hints, unless by mistake.
            self.fallback.reaping = Reaping { raised: Some(raise), ..raised };
            if scope.mistake != Some(Mistake::IgnoresPendingHints) {
                self.fallback.hints = Default::default();
            }
            return;
        };
        if !is_bound {
            (node.copy, node.incomplete) = (Siblings::default(), true);
            node.life += 1;
        } else if raise.drop.as_deref() == Some(&node.copy) {
            let reaped = self.history.past(self.history.standing(&node.copy));
            self.history.reaped = self.history.reaped.union(reaped);
            node.copy = Siblings::default();
            // The next write is minted under an epoch that no one has seen, as if by somebody new.
            if scope.mistake != Some(Mistake::ReapsTheEpochToo) {
                node.life += 1;
            }
        }
        node.reaping = Reaping { raised: Some(raise), ..raised };
        self.begin_again(scope, member);
    }

    /// What is under way began in an older epoch.
    fn begin_again(&mut self, scope: &Scope, node: usize) {
        let operations: Vec<_> =
            self.nodes[node].operations.iter().map(|(request, o)| (*request, Arc::clone(o))).collect();
        for (request, operation) in operations {
            match &*operation {
                Operation::Put { .. } if self.nodes[node].copy.is_empty() => {}
                Operation::Put { .. } => {
                    let state = Arc::new(self.nodes[node].copy.clone());
                    let again = Message::Replicate { state, replaced: Default::default() };
                    self.send_to_others(node, request, &again);
                }
                Operation::Get { .. } if scope.mistake == Some(Mistake::RepairsWithAnOldRead) => {}
                Operation::Get { answered, .. } => {
                    if !answered {
                        self.answer(request, None);
                    }
                    self.end(node, request);
                }
            }
        }
    }

    /// Is a message of the epoch that its receiver is in, and does that take anything? If not, whoever is behind hears how
    /// it was raised.
    pub(crate) fn is_current(&mut self, scope: &Scope, envelope: Envelope) -> bool {
        let Envelope { to, from, epoch, kind, .. } = envelope;
        let is_of_a_copy = matches!(
            kind,
            Kind::Replicate | Kind::ReadState | Kind::State | Kind::Repair | Kind::Keep | Kind::HandOver
        );
        if !is_of_a_copy {
            return true;
        }
        if self.reaping(to).unmet {
            return false;
        }
        let mine = self.reaping(to).epoch;
        if epoch < mine {
            self.teach(from, to);
        } else if epoch > mine {
            self.teach(to, from);
        }
        epoch == mine || scope.mistake == Some(Mistake::TakesAnyEpoch)
    }

    fn teach(&mut self, behind: usize, ahead: usize) {
        if self.reaping(behind).epoch == 0
            && let Some(raise) = self.reaping(ahead).raised.clone()
        {
            self.send(ahead, behind, of_round(raise.round), Message::Raise(raise));
        }
    }

    /// A node has lost its record: it says so, with a new beginning.
    pub(crate) fn lose_record(&mut self, scope: &Scope, node: usize) {
        // Where nothing is ever reaped, no round can rest on a beginning that is over.
        let unmet = scope.reaps > 0 && !is_blind_to_beginnings(scope);
        let mut beginnings = self.reaping(node).beginnings;
        beginnings[node] += 1;
        *self.reaping_mut(node) = Reaping { beginnings, unmet, ..Reaping::default() };
        if unmet {
            self.tell_others(scope, node, MEETING, &Message::Lost { beginning: beginnings[node] });
        }
    }

    /// It asks until it is met.
    fn on_lost(&mut self, scope: &Scope, envelope: Envelope, beginning: u8) {
        let Envelope { to, from, .. } = envelope;
        // Nobody listens any more to the process that this one has taken over from, however late its words come.
        let is_of_now = |kind: Kind| matches!(kind, Kind::Lost | Kind::Met);
        self.network.retain(|sent, _| (sent.from, sent.to) != (from, to) || is_of_now(sent.kind));
        self.reaping_mut(to).beginnings[from] = beginning;
        if let Some(node) = self.nodes.get_mut(to)
            && node.reaping.round.take_if(|round| round.beginnings != node.reaping.beginnings).is_some()
        {
            // It can't end any more.
            self.end_rounds_of(scope, to);
        }
        let reaping = self.reaping(to);
        let is_dead = |name: &Named, bound: u8| reaping.beginnings[usize::from(name.0)] > bound;
        let bound = reaping
            .bindings
            .iter()
            .map(|(name, beginning)| (u64::from(name.0) + 1, u64::from(name.1), is_dead(name, *beginning)));
        // By mistake it says nothing of what binds it.
        let bound = bound.filter(|_| scope.mistake != Some(Mistake::MeetsWhileBound)).collect();
        let by = reaping
            .raised
            .as_ref()
            .map_or((0, 0), |raise| (u64::from(raise.round.0) + 1, u64::from(raise.round.1)));
        let word = Word {
            trusted: !reaping.unmet,
            epoch: u64::from(reaping.epoch),
            proposer: by.0,
            round: by.1,
            bound,
        };
        let raised = reaping.raised.clone();
        self.send(to, from, MEETING, Message::Met { beginning, word, raised });
    }

    fn on_word(
        &mut self,
        scope: &Scope,
        node: usize,
        from: usize,
        beginning: u8,
        word: Word,
        raised: Option<Raise>,
    ) {
        let reaping = self.reaping_mut(node);
        if !reaping.unmet || reaping.beginnings[node] != beginning {
            return;
        }
        reaping.words[from] = Some(word);
        let has_told =
            |member: usize| reaping.words[member].is_some() || (member == FALLBACK && scope.hints == 0);
        let are_all = (0..=NODES).all(|member| member == node || has_told(member));
        let decided = decide(reaping.words.iter().flatten(), are_all);
        match decided {
            Some(Raised { epoch: 0, .. }) => self.meet(scope, node, None),
            Some(_) if raised.is_some() => self.meet(scope, node, raised),
            _ => {}
        }
    }

    /// No round can end that rests on what this member has lost.
    pub(crate) fn meet(&mut self, scope: &Scope, node: usize, raised: Option<Raise>) {
        let reaping = self.reaping_mut(node);
        (reaping.unmet, reaping.words) = (false, Default::default());
        reaping.bindings.clear();
        self.network.retain(|envelope, _| envelope.from != node || envelope.kind != Kind::Lost);
        if let Some(raise) = raised {
            self.raise(scope, node, raise);
        }
        if node < NODES {
            self.end_rounds_of(scope, node);
        }
    }
}

/// The mistake [`Mistake::AcknowledgesUnmet`].
fn is_blind_to_beginnings(scope: &Scope) -> bool {
    scope.mistake == Some(Mistake::AcknowledgesUnmet)
}
