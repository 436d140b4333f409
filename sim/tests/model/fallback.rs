//! The fourth node: it stands in for a primary that is silent, and keeps what that should have (paper §4.6).
//!
//! The turns follow `src/shard/{fallbacks,hints}.rs`. What is kept, what a late acknowledgement may drop and what a
//! reader is told is decided by the server's [`HintStore`], built anew around the record for each turn, as in
//! `replica.rs`; who counts towards W by `PutQuorum`. A hint is named after the request that last added to it:
//! the acknowledgement of an older one drops nothing.
//!
//! Not here: a fallback that coordinates, a second one, and one that is full.

use std::sync::Arc;

use bytes::Bytes;
use ringmain::causality::Siblings;
use ringmain::hint::{HintStore, Keeping};
use ringmain::id::{NodeId, PartitionId};

use super::actions::Action;
use super::reap::Reaping;
use super::scope::{Mistake, Scope};
use super::world::{Envelope, FALLBACK, Message, NODE_IDS, NODES, Operation, Request, World, node_id};

const KEY: &[u8] = b"k";
const BYTES_MAX: usize = 1 << 20;

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Fallback {
    /// What it keeps for each primary. On disk.
    pub(crate) hints: [Option<Hint>; NODES],
    pub(crate) reaping: Reaping,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Hint {
    pub(crate) state: Arc<Siblings<Bytes>>,
    /// The request that last added to it.
    pub(crate) added_by: Request,
    /// In which it was sent here.
    pub(crate) epoch: u8,
}

impl Fallback {
    fn store(&self) -> HintStore {
        let mut store = HintStore::new(BYTES_MAX);
        for (target, hint) in self.hints.iter().enumerate() {
            if let Some(hint) = hint {
                store.replace(keeping(target), (*hint.state).clone(), 0).expect("there is room");
            }
        }
        store
    }

    fn keep(&mut self, target: usize, theirs: &Siblings<Bytes>, added_by: Request, epoch: u8) {
        let mut store = self.store();
        if store.keep(keeping(target), theirs, 0).expect("there is room") {
            let kept = store.find(NODE_IDS[target], KEY).expect("it was just kept");
            self.hints[target] = Some(Hint { state: Arc::new(kept.state.clone()), added_by, epoch });
        }
    }

    /// Its target holds what was `sent`: true if that is all.
    fn is_done(&self, target: usize, sent: &Siblings<Bytes>) -> bool {
        let Some(hint) = &self.hints[target] else { return false };
        let mut store = HintStore::new(BYTES_MAX);
        store.replace(keeping(target), sent.clone(), 0).expect("there is room");
        let version = store.find(NODE_IDS[target], KEY).expect("it was just kept").version;
        store.keep(keeping(target), &hint.state, 0).expect("there is room");
        store.held(NODE_IDS[target], KEY, version, NODE_IDS[target]).is_some()
    }
}

fn keeping(target: usize) -> Keeping<'static> {
    Keeping { target: NODE_IDS[target], key: KEY, partition: PartitionId(0) }
}

/// For whom may the fallback stand in, and who may ask it?
pub(crate) fn possible(world: &World, actions: &mut Vec<Action>) {
    for (node, state) in world.nodes.iter().enumerate() {
        for (&request, operation) in &state.operations {
            match &**operation {
                Operation::Put { quorum, .. }
                    if world.hints_left > 0
 && !state.copy.is_empty() && quorum.nodes().all(|told| told != node_id(FALLBACK)) =>
                {
                    let silent: Vec<NodeId> = quorum.unattended(true).collect();
                    let targets = (0..NODES).filter(|target| silent.contains(&NODE_IDS[*target]));
                    actions.extend(targets.map(|target| Action::StandIn { node, request, target }));
                }
                Operation::Get { quorum, answered: false, .. }
                    // Of its silence nobody learns anything.
                    if world.fallback.hints.iter().any(Option::is_some)
                        && quorum.fallbacks().next().is_none()
                        && quorum.silent_primaries().count() > 0 =>
                {
                    actions.push(Action::AskFallback { node, request });
                }
                Operation::Put { .. } | Operation::Get { .. } => {}
            }
        }
    }
}

impl World {
    /// A coordinator waits no longer for this primary alone.
    pub(crate) fn stand_in(&mut self, scope: &Scope, node: usize, request: Request, target: usize) {
        // Whoever counts for another than it keeps the hint for counts beside its target.
        let third = NODES - node - target;
        let counts_for = if scope.mistake == Some(Mistake::CountsTwice) { third } else { target };
        if let Some(Operation::Put { quorum, .. }) = self.nodes[node].operation_mut(request) {
            quorum.add_fallback(node_id(FALLBACK), node_id(counts_for), 0);
        }
        self.hints_left -= 1;
        let state = Arc::new(self.nodes[node].copy.clone());
        self.send(node, FALLBACK, request, Message::Keep { target, state });
    }

    pub(crate) fn ask_fallback(&mut self, node: usize, request: Request) {
        if let Some(Operation::Get { quorum, .. }) = self.nodes[node].operation_mut(request) {
            quorum.add_fallback(node_id(FALLBACK));
        }
        self.send(node, FALLBACK, request, Message::ReadState);
    }

    /// Sent as often as it likes, which is once here: what is under way arrives whenever it likes.
    pub(crate) fn hand_over(&mut self, scope: &Scope, target: usize) {
        let Some(Hint { state, added_by, epoch }) = self.fallback.hints[target].clone() else { return };
        self.send_in(epoch, FALLBACK, target, added_by, Message::HandOver(state));
        if scope.mistake == Some(Mistake::DropsBeforeTheAnswer) {
            self.fallback.hints[target] = None;
        }
    }

    /// What the fallback does with a message.
    pub(crate) fn on_fallback(&mut self, scope: &Scope, envelope: Envelope, message: Message) {
        let Envelope { from, request, epoch, .. } = envelope;
        match message {
            Message::Keep { target, state } => {
                // What it keeps for one node in two epochs it could not hand over as one.
                let in_another = |hint: &Hint| hint.epoch != epoch;
                let is_bound = !self.fallback.reaping.bindings.is_empty();
                if is_bound || self.fallback.hints[target].as_ref().is_some_and(in_another) {
                    return;
                }
                self.fallback.keep(target, &state, request, epoch);
                self.hand_over(scope, target);
                if self.nodes[from].operations.contains_key(&request) {
                    self.send(FALLBACK, from, request, Message::Replicated);
                }
            }
            Message::HandedOver(sent) => {
                self.network.remove(&envelope);
                if self.fallback.is_done(from, &sent) {
                    self.fallback.hints[from] = None;
                }
            }
            Message::ReadState => {
                let mut current = self.fallback.clone();
                current
                    .hints
                    .iter_mut()
                    .for_each(|hint| *hint = hint.take().filter(|hint| hint.epoch == epoch));
                let state = Arc::new(current.store().known(KEY));
                self.send_in(epoch, FALLBACK, from, request, Message::State { state, complete: false });
            }
            message => self.on_round(scope, envelope, message),
        }
    }

    /// A primary has merged what was kept for it, and says so.
    pub(crate) fn acknowledge_hint(&mut self, target: usize, request: Request, sent: Arc<Siblings<Bytes>>) {
        let is_kept = |hint: &Hint| hint.added_by == request;
        if self.fallback.hints[target].as_ref().is_some_and(is_kept) {
            self.send_in(0, target, FALLBACK, request, Message::HandedOver(sent));
        }
    }

    /// The primary died while something was on its way to it: it is sent again.
    pub(crate) fn hand_over_again(&mut self, scope: &Scope, target: usize) {
        if scope.mistake == Some(Mistake::FailedReplayIsDone) {
            self.fallback.hints[target] = None;
        }
        self.hand_over(scope, target);
    }
}
