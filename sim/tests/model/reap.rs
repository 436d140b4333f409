//! Reaping tombstones by partition epoch: the protocol, written out for one key.
//!
//! A tombstone may be forgotten once nobody can bring back what it deleted. The partition's epoch says so: what
//! was sent or kept in an older one is refused. A round goes like this, each step on disk before it is told:
//!
//! 1. A primary that has nothing but tombstones **proposes**: it confirms its own state, and asks the other primaries to
//!    confirm theirs and every other member for a promise. What is confirmed is (key, state hash) and the
//!    **lives** of all members as the confirming primary knows them.
//! 2. A member **promises** once it holds no hint: it will keep nothing of this epoch any more.
//! 3. With all confirmations and promises, and all naming the same lives, the proposer **raises** the epoch, and
//!    tells the others. Each primary drops the state if it is still the one that all have confirmed (and keeps it
//!    if they differ: other keys of the partition may agree), and raises its epoch in the same record.
//! 4. A primary that hears of a newer epoch takes nothing more from its neighbours until it has **caught up**: whoever is
//!    ahead tells it how the epoch was raised. If the raise names the life that it is in, it confirmed, and does as
//!    in 3. If not, its copy may be older than what was reaped: it is wiped and streamed again.
//!
//! # What the search has found
//!
//! The protocol was first written down without three things, and without each of them a write is lost or comes back
//! (`mistakes.rs` and `stories.rs` plant their absence):
//!
//! - **A read under way is a message too.** A read that began in the old epoch holds states of it in memory; repairing
//!   with them after the raise brings back what was deleted (P5). So a raise ends the reads under way at its node, and
//!   writes under way are sent again in the new epoch.
//! - **A raise names lives.** A life is a number that changes when the record is lost. A primary that lost its record
//!   after it confirmed is not one that lags: what it has taken in since may be what was deleted. It must not catch
//!   up, even if it has confirmed again in a later round (P5).
//! - **"Wiped and streamed again" destroys copies that were counted** (P1). A primary that lost its record after it
//!   confirmed, or a fallback after it promised, takes new writes in the old epoch, counts towards W, and then
//!   loses them by the raise that it knows nothing of. So whoever has lost its record acknowledges nothing of a partition
//!   until it was **met**: a primary that has not confirmed notes its new life, without which no round can end
//!   that rests on the old one; or one that has raised tells it the new epoch. A healthy cluster does this in one
//!   exchange; only a node that comes back empty in the middle of a round must wait for it.
//!
//! One price stays: from its promise until the raise a fallback refuses hints, so a member that dies in between
//! makes the partition's quorums strict until it is back or removed. Who proposes should first see that all are up.

use std::sync::Arc;

use bytes::Bytes;
use ringmain::causality::Siblings;

use super::actions::Action;
use super::scope::{Mistake, Scope};
use super::world::{Envelope, FALLBACK, Kind, Message, NODES, Operation, Request, World};

/// All messages of a round, and of who has lost its record.
pub(crate) const ROUND: Request = Request(14);

/// How often each member has lost its record, the fallback last.
pub(crate) type Lives = [u8; NODES + 1];

/// What a primary knows of the epoch. On disk, but for the round.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Reaping {
    pub(crate) epoch: u8,
    /// The lives of others as it has heard of them, and its own.
    pub(crate) lives: Lives,
    /// It has confirmed in this epoch.
    pub(crate) confirmed: bool,
    /// It has lost its record, and nobody has noted that yet.
    pub(crate) unmet: bool,
    /// How the epoch was raised.
    pub(crate) raised: Option<Raise>,
    /// What it proposed, and who has answered.
    pub(crate) round: Option<Round>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Round {
    confirmed: Confirmed,
    answers: [bool; NODES + 1],
    /// All have confirmed the same state.
    agree: bool,
}

/// In truth a hash.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Confirmed {
    pub(crate) state: Arc<Siblings<Bytes>>,
    pub(crate) lives: Lives,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Raise {
    /// What all primaries have confirmed, if that was one state.
    pub(crate) drop: Option<Arc<Siblings<Bytes>>>,
    pub(crate) lives: Lives,
}

pub(crate) fn possible(world: &World, actions: &mut Vec<Action>) {
    if world.reaps_left > 0 {
        let can = |node: &usize| {
            let node = &world.nodes[*node];
            let is_deleted = !node.copy.is_empty() && node.copy.values().next().is_none();
            is_deleted && node.reaping.epoch == 0 && node.reaping.round.is_none()
        };
        actions.extend((0..NODES).filter(can).map(|node| Action::Propose { node }));
    }
}

impl World {
    pub(crate) fn propose(&mut self, scope: &Scope, node: usize) {
        self.reaps_left -= 1;
        let confirmed = self.confirm(node);
        let mut answers = [false; NODES + 1];
        (answers[node], answers[FALLBACK]) = (true, scope.hints == 0);
        self.nodes[node].reaping.round = Some(Round { confirmed, answers, agree: true });
        self.send_to_others(node, ROUND, &Message::Propose);
        if scope.hints > 0 {
            self.send(node, FALLBACK, ROUND, Message::Propose);
        }
    }

    fn confirm(&mut self, node: usize) -> Confirmed {
        let node = &mut self.nodes[node];
        node.reaping.confirmed = true;
        Confirmed { state: Arc::new(node.copy.clone()), lives: node.reaping.lives }
    }

    /// What a primary does with a message of a round.
    pub(crate) fn on_round(&mut self, scope: &Scope, envelope: Envelope, message: Message) {
        let Envelope { to, from, .. } = envelope;
        match message {
            Message::Propose => {
                self.network.remove(&envelope);
                if self.nodes[to].reaping.epoch == 0 {
                    let confirmed = self.confirm(to);
                    self.send(to, from, ROUND, Message::Confirm(confirmed));
                }
            }
            Message::Confirm(theirs) => {
                self.network.remove(&envelope);
                self.on_confirmed(scope, to, from, &theirs);
            }
            Message::Promise { life } => {
                self.network.remove(&envelope);
                let Some(round) = &mut self.nodes[to].reaping.round else { return };
                if round.confirmed.lives[FALLBACK] == life || is_blind_to_lives(scope) {
                    round.answers[FALLBACK] = true;
                    self.finish_round(scope, to);
                }
            }
            Message::Raise(raise) => self.raise(scope, to, raise),
            Message::Lost { life } => self.on_lost(envelope, life),
            Message::Met { .. } => self.nodes[to].reaping.unmet = false,
            _ => unreachable!("not of a round"),
        }
    }

    fn on_confirmed(&mut self, scope: &Scope, node: usize, from: usize, theirs: &Confirmed) {
        let Some(round) = &mut self.nodes[node].reaping.round else { return };
        if round.confirmed.lives == theirs.lives || is_blind_to_lives(scope) {
            round.answers[from] = true;
            round.agree &= round.confirmed.state == theirs.state;
            self.finish_round(scope, node);
        }
    }

    fn finish_round(&mut self, scope: &Scope, node: usize) {
        let Some(round) = self.nodes[node].reaping.round.take_if(|round| round.answers == [true; NODES + 1])
        else {
            return;
        };
        let Confirmed { state, lives } = round.confirmed;
        let raise = Raise { drop: round.agree.then_some(state), lives };
        self.raise(scope, node, raise.clone());
        self.send_to_others(node, ROUND, &Message::Raise(raise));
    }

    /// One record: the drop and the epoch.
    pub(crate) fn raise(&mut self, scope: &Scope, index: usize, raise: Raise) {
        let node = &mut self.nodes[index];
        if node.reaping.epoch > 0 {
            return;
        }
        let is_named = raise.lives[index] == node.reaping.lives[index];
        if !is_named && scope.mistake != Some(Mistake::CatchesUpWithoutARecord) {
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
        node.reaping =
            Reaping { epoch: 1, lives: node.reaping.lives, raised: Some(raise), ..Reaping::default() };
        self.begin_again(scope, index);
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

    /// Is a message of the epoch that its receiver is in? If not, whoever is behind hears how it was raised.
    pub(crate) fn is_current(&mut self, scope: &Scope, envelope: Envelope) -> bool {
        let Envelope { to, from, epoch, kind, .. } = envelope;
        let is_of_a_copy = matches!(
            kind,
            Kind::Replicate | Kind::ReadState | Kind::State | Kind::Repair | Kind::Keep | Kind::HandOver
        );
        if !is_of_a_copy || scope.mistake == Some(Mistake::TakesAnyEpoch) {
            return true;
        }
        if to == FALLBACK {
            return epoch >= self.fallback.epoch;
        }
        let mine = self.nodes[to].reaping.epoch;
        if epoch < mine {
            self.teach(from, to);
        } else if epoch > mine {
            self.teach(to, from);
        }
        epoch == mine
    }

    fn teach(&mut self, behind: usize, ahead: usize) {
        if behind == FALLBACK || ahead == FALLBACK || self.nodes[behind].reaping.epoch > 0 {
            return;
        }
        if let Some(raise) = self.nodes[ahead].reaping.raised.clone() {
            self.send(ahead, behind, ROUND, Message::Raise(raise));
        }
    }

    /// The fallback's part.
    pub(crate) fn on_proposed_to_fallback(&mut self, scope: &Scope, envelope: Envelope) {
        let holds = self.fallback.hints.iter().any(Option::is_some);
        if holds && scope.mistake != Some(Mistake::IgnoresPendingHints) {
            return;
        }
        self.network.remove(&envelope);
        self.fallback.epoch = 1;
        self.send(FALLBACK, envelope.from, ROUND, Message::Promise { life: self.fallback.life });
    }

    /// A node has lost its record: it says so, in a new life.
    pub(crate) fn lose_record(&mut self, scope: &Scope, node: usize) {
        // Where nothing is ever reaped, no round can rest on a life that is over.
        let unmet = scope.reaps > 0 && !is_blind_to_lives(scope);
        let life = match self.nodes.get_mut(node) {
            Some(primary) => {
                let mut lives = primary.reaping.lives;
                lives[node] += 1;
                primary.reaping = Reaping { lives, unmet, ..Reaping::default() };
                lives[node]
            }
            None => {
                let life = self.fallback.life + 1;
                self.fallback = super::fallback::Fallback { life, unmet, ..Default::default() };
                life
            }
        };
        if unmet {
            self.send_to_others(node, ROUND, &Message::Lost { life });
        }
    }

    fn on_lost(&mut self, envelope: Envelope, life: u8) {
        let Envelope { to, from, .. } = envelope;
        let reaping = &mut self.nodes[to].reaping;
        reaping.lives[from] = life;
        let epoch = reaping.epoch;
        // Who has confirmed may have done so with the life that is lost.
        if reaping.unmet || (epoch == 0 && reaping.confirmed) {
            return;
        }
        self.network.remove(&envelope);
        if epoch > 0 && from != FALLBACK {
            self.teach(from, to);
        } else {
            self.send(to, from, ROUND, Message::Met { epoch });
        }
    }
}

/// The mistake [`Mistake::AcknowledgesUnmet`].
fn is_blind_to_lives(scope: &Scope) -> bool {
    scope.mistake == Some(Mistake::AcknowledgesUnmet)
}
