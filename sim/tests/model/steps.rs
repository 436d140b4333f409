//! What follows: a client asks, a message arrives, somebody gives up, a process dies.
//!
//! The turns of a coordinator follow `src/shard/{gets,puts,peers}.rs`, without frames, links and deadlines: a
//! deadline may come at any time. What a node appends is durable at once; the log has checks of its own.

use std::sync::Arc;

use bytes::Bytes;
use ringmain::causality::{Siblings, Version, VersionVector};
use ringmain::coordinator::{GetQuorum, GetVerdict, PutQuorum, PutVerdict};

use super::actions::Action;
use super::replica;
use super::scope::{Ask, Mistake, Scope};
use super::world::{
    Envelope, Event, Events, FALLBACK, Kind, Message, NODE_IDS, NODES, Operation, Reply, Request, World,
    Write, node_id,
};

impl World {
    pub(crate) fn new(scope: &Scope) -> Self {
        Self {
            nodes: Default::default(),
            fallback: Default::default(),
            clients: Default::default(),
            network: Default::default(),
            history: Default::default(),
            hints_left: scope.hints,
            reaps_left: scope.reaps,
            overs_left: scope.overs,
            crashes_left: scope.crashes,
            wipes_left: scope.wipes,
        }
    }

    /// The first steps are taken and told. What was sent may arrive once more.
    pub(crate) fn begun(scope: &Scope) -> Self {
        let mut world = Self::new(scope);
        for menu in &scope.steps[0][..scope.played] {
            world.apply(scope, Action::Ask { client: 0, ask: menu[0], node: 0 });
            for kind in [Kind::Replicate, Kind::Replicated] {
                let sent: Vec<_> = world
                    .network
                    .keys()
                    .copied()
                    .filter(|sent| sent.kind == kind && sent.to < scope.told)
                    .collect();
                for envelope in sent {
                    if world.network.contains_key(&envelope) {
                        world.apply(scope, Action::Deliver(envelope));
                    }
                }
            }
        }
        world
    }

    pub(crate) fn apply(&mut self, scope: &Scope, action: Action) {
        match action {
            Action::Ask { client, ask, node } => self.ask(scope, client, ask, node),
            Action::Deliver(envelope) => self.deliver(scope, envelope),
            Action::GiveUp { node, request } => self.progress(scope, node, request, true),
            Action::StandIn { node, request, target } => self.stand_in(scope, node, request, target),
            Action::Propose { node } => self.propose(scope, node),
            Action::GiveUpRound { node } => self.give_up_round(scope, node),
            Action::AskFallback { node, request } => self.ask_fallback(node, request),
            Action::Crash { node } => {
                self.crashes_left -= 1;
                self.restart(scope, node);
            }
            Action::Wipe { node } => {
                self.wipes_left -= 1;
                self.destroy(node);
                self.lose_record(scope, node);
                self.restart(scope, node);
            }
        }
        self.note_converged_deletes();
    }

    fn ask(&mut self, scope: &Scope, client: usize, ask: Ask, node: usize) {
        let request = Request::new(client, self.clients[client].steps_begun);
        self.clients[client].steps_begun += 1;
        self.clients[client].waits = true;
        if ask == Ask::Read {
            self.clients[client].unsure_of = None;
            self.begin_get(scope, node, request, scope.read);
        } else {
            let write = self.write_of(request, ask);
            self.clients[client].unsure_of = scope.has(Ask::Retry).then(|| write.clone());
            self.begin_put(scope, node, request, &write);
        }
    }

    fn write_of(&self, request: Request, ask: Ask) -> Write {
        let client = &self.clients[request.client()];
        let seen = match ask {
            Ask::Retry => return client.unsure_of.clone().expect("only who is unsure retries"),
            Ask::Overwrite => None,
            Ask::Put | Ask::Delete => client.holds.as_ref().map(|reply| (reply.context.clone(), reply.past)),
            Ask::Read | Ask::BlindPut => Some((VersionVector::new(), Events::default())),
        };
        Write { name: request, delete: ask == Ask::Delete, seen }
    }

    fn begin_put(&mut self, scope: &Scope, node: usize, request: Request, write: &Write) {
        let all = self.history.past(self.history.standing(&self.nodes[node].copy));
        let seen = write.seen.as_ref().map_or(all, |(_, seen)| *seen);
        let minted = replica::mint(scope, node, &mut self.nodes[node], write);
        let name = write.name;
        if let Some((dot, _)) = minted {
            let past = seen.union(Events::only(request));
            self.history.events.insert(request, Event { dot, write: name, delete: write.delete, past });
        }
        let copy = self.nodes[node].copy.clone();
        // With siblings, the context would cover versions that the client has not been shown. Of a retry that
        // was recognised, the one version may be another's, that came after it.
        let is_own = minted.is_some() || copy.versions().iter().all(|v| v.operation == name.operation());
        let tells = copy.versions().len() == 1 && is_own;
        let tells = tells || scope.mistake == Some(Mistake::TellsTheUnshown);
        let reply = tells.then(|| self.reply_to_put(&copy, name));
        let mut quorum = PutQuorum::new(scope.write, &NODE_IDS);
        quorum.on_durable(NODE_IDS[node]);
        if scope.mistake == Some(Mistake::AcknowledgesUnheard) {
            NODE_IDS.iter().for_each(|&told| quorum.on_durable(told));
        }
        let operation = Operation::Put { quorum, write: name, reply };
        self.nodes[node].operations.insert(request, Arc::new(operation));
        let replaced = minted.map(|(_, replaced)| replaced).filter(|_| scope.has(Ask::Retry));
        let replaced = replaced.unwrap_or_default();
        self.send_to_others(node, request, &Message::Replicate { state: Arc::new(copy), replaced });
        self.progress(scope, node, request, false);
    }

    /// Tells a client its own version's context.
    fn reply_to_put(&self, copy: &Siblings<Bytes>, write: Request) -> Reply {
        let is_own = |request: &Request| self.history.events[request].write == write;
        let returned = self.history.standing(copy).iter().filter(is_own).collect();
        let past = self.history.past(returned);
        let (missed, invented, repeats) = (Events::default(), false, false);
        Reply { context: copy.context(), returned, past, missed, invented, repeats }
    }

    pub(crate) fn begin_get(&mut self, scope: &Scope, node: usize, request: Request, needed: u8) {
        let mut quorum = GetQuorum::new(needed, VersionVector::new(), &NODE_IDS);
        let coordinator = &mut self.nodes[node];
        let complete = counts_as_complete(scope, coordinator.incomplete);
        quorum.on_state(NODE_IDS[node], coordinator.copy.clone(), complete);
        let acknowledged = self.history.acknowledged;
        let operation = Operation::Get { quorum, answered: false, acknowledged };
        coordinator.operations.insert(request, Arc::new(operation));
        self.send_to_others(node, request, &Message::ReadState);
        self.progress(scope, node, request, false);
    }

    pub(crate) fn deliver(&mut self, scope: &Scope, envelope: Envelope) {
        let Envelope { to, from, request, kind, .. } = envelope;
        // A question is taken off: asked again it would get another answer, and only the first one counts.
        let message = match kind {
            Kind::ReadState => self.network.remove(&envelope),
            _ => self.network.get(&envelope).cloned(),
        };
        let message = message.expect("only what is there arrives");
        if !self.is_current(scope, envelope) {
            return;
        }
        if to == FALLBACK {
            return self.on_fallback(scope, envelope, message);
        }
        match message {
            Message::Replicate { state, replaced } => {
                replica::merge(scope, to, &mut self.nodes[to], &state, replaced);
                if self.nodes[from].operations.contains_key(&request) {
                    self.send(to, from, request, Message::Replicated);
                }
            }
            Message::Repair(state) => {
                replica::merge(scope, to, &mut self.nodes[to], &state, Events::default());
            }
            Message::HandOver(state) => {
                replica::merge(scope, to, &mut self.nodes[to], &state, Events::default());
                self.acknowledge_hint(to, request, state);
            }
            Message::ReadState => {
                let complete = counts_as_complete(scope, self.nodes[to].incomplete);
                let state = Arc::new(self.nodes[to].copy.clone());
                self.send(to, from, request, Message::State { state, complete });
            }
            Message::Replicated => {
                if let Some(Operation::Put { quorum, .. }) = self.nodes[to].operation_mut(request) {
                    quorum.on_durable(node_id(from));
                }
                self.progress(scope, to, request, false);
            }
            Message::State { state, complete } => {
                if let Some(Operation::Get { quorum, .. }) = self.nodes[to].operation_mut(request) {
                    quorum.on_state(node_id(from), (*state).clone(), complete);
                }
                self.progress(scope, to, request, false);
            }
            message => self.on_round(scope, envelope, message),
        }
    }

    /// Decide by what is known, and answer if it is time.
    pub(crate) fn progress(&mut self, scope: &Scope, node: usize, request: Request, expired: bool) {
        match self.nodes[node].operations.get(&request).map(Arc::as_ref) {
            Some(Operation::Put { quorum, write, reply }) => match quorum.verdict() {
                PutVerdict::Enough(_) => {
                    let reply = reply.clone();
                    self.history.acknowledged = self.history.acknowledged.union(Events::only(*write));
                    self.clients[request.client()].unsure_of = None;
                    self.answer(request, reply);
                    self.end(node, request);
                }
                PutVerdict::Pending if !expired => {}
                PutVerdict::Pending | PutVerdict::Missed { .. } => {
                    self.answer(request, None);
                    self.end(node, request);
                }
            },
            Some(Operation::Get { quorum, answered: false, acknowledged }) => match quorum.verdict(expired) {
                GetVerdict::Pending => assert!(!expired, "who has expired waits for nobody"),
                GetVerdict::Enough(_) => {
                    let reply = self.reply_to_get(scope, quorum, *acknowledged);
                    let settled = quorum.is_settled();
                    self.answer(request, Some(reply));
                    if settled || expired {
                        return self.end_get(scope, node, request);
                    }
                    let lingering = self.nodes[node].operation_mut(request);
                    if let Some(Operation::Get { answered, acknowledged, .. }) = lingering {
                        (*answered, *acknowledged) = (true, Events::default());
                    }
                }
                GetVerdict::Unavailable | GetVerdict::Stale => {
                    self.answer(request, None);
                    self.end_get(scope, node, request);
                }
            },
            Some(Operation::Get { quorum, answered: true, .. }) if expired || quorum.is_settled() => {
                self.end_get(scope, node, request);
            }
            Some(Operation::Get { .. }) | None => {}
        }
    }

    /// Nobody is waited for any more: repair whoever lacks something, oneself included.
    fn end_get(&mut self, scope: &Scope, node: usize, request: Request) {
        let Some(ended) = self.nodes[node].operations.get(&request).cloned() else { return };
        let Operation::Get { quorum, .. } = &*ended else { return };
        self.end(node, request);
        let stale: Vec<_> = quorum.stale_replicas().collect();
        if stale.is_empty() || scope.mistake == Some(Mistake::RepairsNobody) {
            return;
        }
        replica::merge(scope, node, &mut self.nodes[node], quorum.merged(), Events::default());
        let copy = Arc::new(self.nodes[node].copy.clone());
        for to in (0..NODES).filter(|&to| to != node && stale.contains(&NODE_IDS[to])) {
            self.send(node, to, request, Message::Repair(Arc::clone(&copy)));
        }
    }

    /// The coordinator forgets a request; answers that come later tell nobody anything.
    pub(crate) fn end(&mut self, node: usize, request: Request) {
        self.nodes[node].operations.remove(&request);
        self.network.retain(|envelope, _| {
            envelope.request != request
                || !matches!(envelope.kind, Kind::Replicated | Kind::ReadState | Kind::State)
        });
    }

    pub(crate) fn answer(&mut self, request: Request, reply: Option<Reply>) {
        // Nobody asked for the read that settles a world.
        let Some(client) = self.clients.get_mut(request.client()) else { return };
        client.waits = false;
        if reply.is_some() {
            client.holds = reply;
        }
    }

    fn reply_to_get(&self, scope: &Scope, quorum: &GetQuorum, acknowledged: Events) -> Reply {
        let merged = quorum.merged();
        let returned = self.history.standing(merged);
        let past = self.history.past(returned);
        let is_shown = |version: &&Version<Bytes>| {
            let with_twins = scope.mistake == Some(Mistake::ShowsTwins);
            with_twins || merged.values().any(|value| value.dot == version.dot)
        };
        let shown: Vec<_> =
            merged.versions().iter().filter(is_shown).map(|version| version.operation).collect();
        Reply {
            context: merged.context(),
            returned,
            past,
            missed: self
                .history
                .acknowledged_beyond(past.union(self.history.reaped))
                .without(self.history.acknowledged.without(acknowledged)),
            invented: merged.versions().iter().any(|version| self.history.author(version).is_none()),
            repeats: (1..shown.len()).any(|at| shown[..at].contains(&shown[at])),
        }
    }

    /// All that a node holds is lost.
    fn destroy(&mut self, node: usize) {
        for (&request, event) in &self.history.events {
            if self.holds(node, event.dot) {
                *self.history.destroyed.entry(request).or_default() += 1;
            }
        }
        match self.nodes.get_mut(node) {
            Some(primary) => (primary.copy, primary.incomplete) = (Siblings::default(), true),
            None => self.fallback.hints = Default::default(),
        }
    }

    /// A process dies and another takes its place: its requests are lost, and so is what was sent to it.
    fn restart(&mut self, scope: &Scope, node: usize) {
        if node == FALLBACK {
            self.network.retain(|envelope, _| envelope.to != node);
            if scope.mistake == Some(Mistake::PromisesBeforeDurable) {
                self.fallback.reaping.bindings.clear();
            }
            return self.hear_of_death(scope, node);
        }
        let restarted = &mut self.nodes[node];
        restarted.life += 1;
        restarted.replaced = Events::default();
        restarted.reaping.round = None;
        let lost = std::mem::take(&mut restarted.operations);
        for request in lost.into_keys() {
            self.answer(request, None);
            self.end(node, request);
        }
        self.network.retain(|envelope, _| envelope.to != node);
        self.hear_of_death(scope, node);
        self.end_rounds_of(scope, node);
        self.hand_over_again(scope, node);
    }

    /// Whoever waited for an answer of this node waits no longer.
    fn hear_of_death(&mut self, scope: &Scope, dead: usize) {
        for node in (0..NODES).filter(|&node| node != dead) {
            let waiting: Vec<Request> = self.nodes[node].operations.keys().copied().collect();
            for request in waiting {
                match self.nodes[node].operation_mut(request) {
                    Some(Operation::Put { quorum, .. }) => quorum.on_failure(node_id(dead)),
                    Some(Operation::Get { quorum, .. }) => quorum.on_failure(node_id(dead)),
                    None => {}
                }
                self.progress(scope, node, request, false);
            }
        }
    }

    fn note_converged_deletes(&mut self) {
        let known = |event: &Event| self.nodes.iter().all(|node| node.copy.context().covers(event.dot));
        let converged = self.history.events.iter().filter(|(_, event)| event.delete && known(event));
        let converged: Events = converged.map(|(request, _)| *request).collect();
        self.history.converged_deletes = self.history.converged_deletes.union(converged);
    }

    pub(crate) fn send_to_others(&mut self, from: usize, request: Request, message: &Message) {
        for to in (0..NODES).filter(|&to| to != from) {
            self.send(from, to, request, message.clone());
        }
    }

    pub(crate) fn send(&mut self, from: usize, to: usize, request: Request, message: Message) {
        let epoch = self.reaping(from).epoch;
        self.send_in(epoch, from, to, request, message);
    }

    pub(crate) fn send_in(&mut self, epoch: u8, from: usize, to: usize, request: Request, message: Message) {
        self.network.insert(Envelope { to, from, request, kind: message.kind(), epoch }, message);
    }
}

fn counts_as_complete(scope: &Scope, incomplete: bool) -> bool {
    !incomplete || scope.mistake == Some(Mistake::CountsTheEmpty)
}
