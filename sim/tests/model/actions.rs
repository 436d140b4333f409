//! What can happen next.

use super::scope::{Ask, Scope};
use super::world::{CLIENTS, Envelope, FALLBACK, NODES, Request, World};
use super::{fallback, reap};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// A client asks a node, which coordinates.
    Ask {
        client: usize,
        ask: Ask,
        node: usize,
    },
    Deliver(Envelope),
    /// A coordinator waits no longer.
    GiveUp {
        node: usize,
        request: Request,
    },
    /// The fallback is to keep a write for a primary that is silent.
    StandIn {
        node: usize,
        request: Request,
        target: usize,
    },
    /// A read asks the fallback what it keeps.
    AskFallback {
        node: usize,
        request: Request,
    },
    /// A primary that has only tombstones would forget them.
    Propose {
        node: usize,
    },
    /// It waits no longer for those whom it has asked.
    GiveUpRound {
        node: usize,
    },
    /// A process is killed and starts again with what it had.
    Crash {
        node: usize,
    },
    /// A process is killed and starts again with nothing.
    Wipe {
        node: usize,
    },
}

/// All that can happen in this world.
pub(crate) fn possible(scope: &Scope, world: &World, actions: &mut Vec<Action>) {
    for client in 0..CLIENTS {
        possible_asks(scope, world, client, actions);
    }
    actions.extend(world.network.keys().map(|&envelope| Action::Deliver(envelope)));
    for (node, state) in world.nodes.iter().enumerate() {
        actions.extend(state.operations.keys().map(|&request| Action::GiveUp { node, request }));
    }
    if scope.hints > 0 {
        fallback::possible(world, actions);
    }
    reap::possible(world, actions);
    possible_deaths(scope, world, actions);
}

fn possible_deaths(scope: &Scope, world: &World, actions: &mut Vec<Action>) {
    // Before the first write nobody has anything to lose. What is lost before a reap is lost in other scopes.
    let has_something = |node: &usize| {
        let reaping = world.reaping(*node);
        let takes_part = !reaping.bindings.is_empty() || reaping.epoch > 0;
        !world.history.events.is_empty() && (scope.reaps == 0 || takes_part)
    };
    let nodes = if scope.hints > 0 { FALLBACK + 1 } else { NODES };
    if world.crashes_left > 0 {
        actions.extend((0..nodes).filter(has_something).map(|node| Action::Crash { node }));
    }
    if world.wipes_left > 0 {
        actions.extend((0..nodes).filter(has_something).map(|node| Action::Wipe { node }));
    }
}

fn possible_asks(scope: &Scope, world: &World, client: usize, actions: &mut Vec<Action>) {
    let state = &world.clients[client];
    let Some(menu) = scope.steps[client].get(state.steps_begun).filter(|_| !state.waits) else { return };
    // Nodes are alike, so the one that the first client asks first may be called 0, and the one that the second
    // client asks first may be called 1, if it is another.
    let nodes = if state.steps_begun == 0 { client + 1 } else { NODES };
    for &ask in *menu {
        let can = match ask {
            Ask::Put | Ask::Delete => state.holds.is_some(),
            Ask::Retry => state.unsure_of.is_some(),
            Ask::Read | Ask::BlindPut | Ask::Overwrite => true,
        };
        let nodes = if can { 0..nodes } else { 0..0 };
        // Who has lost its record coordinates nothing before it was met.
        let takes = |node: &usize| !world.nodes[*node].reaping.unmet;
        actions.extend(nodes.filter(takes).map(|node| Action::Ask { client, ask, node }));
    }
}
