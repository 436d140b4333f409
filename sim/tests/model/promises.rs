//! The promises of a key, each a property of a state of the search.
//!
//! They are held against [`History`], which the system under search has no part in. Where a promise speaks of
//! convergence, all that is in flight is lost and one full read with repair follows ([`World::settled`]).

use bytes::Bytes;
use ringmain::causality::{Dot, Siblings};
use stateright::Property;

use super::Search;
use super::world::{Events, FALLBACK, History, Message, NODES, Reply, Request, World};

pub(crate) const P1: &str =
    "P1 every acknowledged write stands or was replaced by one whose client had seen it";
pub(crate) const P1_COPIES: &str =
    "P1 an acknowledged write is on W distinct nodes, less what wipes have destroyed";
pub(crate) const P2: &str = "P2 no phantoms: what is returned was written, byte for byte";
pub(crate) const P3: &str = "P3 a context covers nothing but what was returned, and what that had replaced";
pub(crate) const P4: &str = "P4 siblings are concurrent";
pub(crate) const P5: &str = "P5 nothing is seen again once its delete has converged";
pub(crate) const P6: &str = "P6 one dot, one value, for ever";
pub(crate) const P7: &str = "P7 after a full read with repair all replicas are equal";
pub(crate) const P9: &str = "P9 a read begun after an acknowledged write sees it or a descendant";
pub(crate) const ONCE: &str = "a write is shown once, however often it was sent";

/// The request of a read that no client asked for.
const SETTLING: Request = Request(15);

pub(crate) fn promises() -> Vec<Property<Search>> {
    vec![
        Property::always(P1, |_, world: &World| {
            let past = world.history.past(world.history.standing(&world.union()));
            let past = past.union(world.history.reaped);
            world.history.acknowledged_beyond(past).is_empty()
        }),
        Property::always(P1_COPIES, |search: &Search, world: &World| {
            let History { acknowledged, reaped, .. } = &world.history;
            acknowledged.without(*reaped).iter().all(|write| world.copies(write) >= search.scope.write)
        }),
        Property::always(P2, |_, world: &World| world.replies().all(|reply| !reply.invented)),
        Property::always(P3, |_, world: &World| {
            world.replies().all(|reply| world.history.covered(&reply.context).without(reply.past).is_empty())
        }),
        Property::always(P4, |_, world: &World| {
            let mut shown =
                world.states().map(|s| world.history.standing(s)).chain(world.replies().map(|r| r.returned));
            !shown.any(|standing| world.history.has_replaced(standing))
        }),
        Property::always(P5, |search: &Search, world: &World| {
            let History { events, acknowledged, converged_deletes, .. } = &world.history;
            let deletes = acknowledged.iter().filter(|write| events[write].delete).collect();
            let shows = |world: &World, deletes| {
                // A hint may find its target with nothing at all; what that has says nothing until it is repaired.
                let mut nodes = world
                    .nodes
                    .iter()
                    .filter(|node| !node.incomplete || search.scope.hints + search.scope.reaps == 0);
                nodes.any(|node| shows_deleted(&world.history, &node.copy, deletes))
            };
            !shows(world, *converged_deletes)
                && world.settled(search).all(|settled| !shows(&settled, deletes))
        }),
        Property::always(P6, |_, world: &World| {
            let mut dots: Vec<_> = world.history.events.values().map(|event| event.dot).collect();
            dots.sort_unstable();
            dots.is_sorted_by(|left, right| left < right)
                && world.states().flat_map(Siblings::versions).all(|v| world.history.author(v).is_some())
        }),
        Property::always(P7, |search: &Search, world: &World| {
            let is_even = |world: World| world.nodes.iter().all(|node| node.copy == world.nodes[0].copy);
            world.settled(search).all(is_even)
        }),
        // Not promised while fallbacks count.
        Property::always(P9, |search: &Search, world: &World| {
            search.scope.hints > 0 || world.replies().all(|reply| reply.missed.is_empty())
        }),
        Property::always(ONCE, |_, world: &World| world.replies().all(|reply| !reply.repeats)),
    ]
}

/// Whether a state shows something that one of these deletes had seen.
pub(crate) fn shows_deleted(history: &History, state: &Siblings<Bytes>, deletes: Events) -> bool {
    let standing = history.standing(state);
    deletes.iter().any(|delete| {
        let deleted = history.events[&delete].past.without(Events::only(delete));
        deleted.iter().any(|write| standing.contains(write))
    })
}

impl World {
    pub(crate) fn replies(&self) -> impl Iterator<Item = &Reply> {
        self.clients.iter().filter_map(|client| client.holds.as_ref())
    }

    /// Every state on a node or under way between two.
    pub(crate) fn states(&self) -> impl Iterator<Item = &Siblings<Bytes>> {
        let under_way = self.network.values().filter_map(Message::state);
        self.nodes.iter().map(|node| &node.copy).chain(self.hints()).chain(under_way)
    }

    pub(crate) fn hints(&self) -> impl Iterator<Item = &Siblings<Bytes>> {
        self.fallback.hints.iter().flatten().map(|hint| &*hint.state)
    }

    /// Hints that their targets don't refuse.
    fn welcome_hints(&self) -> impl Iterator<Item = &Siblings<Bytes>> {
        let pairs = self.fallback.hints.iter().zip(&self.nodes);
        let welcome =
            pairs.filter_map(|(hint, node)| hint.as_ref().filter(|hint| hint.epoch >= node.reaping.epoch));
        welcome.map(|hint| &*hint.state)
    }

    /// Does this node have the write of this dot, or something that replaced it?
    pub(crate) fn holds(&self, node: usize, dot: Dot) -> bool {
        match self.nodes.get(node) {
            Some(primary) => primary.copy.context().covers(dot),
            None => self.welcome_hints().any(|hint| hint.context().covers(dot)),
        }
    }

    /// On how many nodes a write is, under any of its dots, and was before they were wiped.
    fn copies(&self, write: Request) -> u8 {
        let History { events, destroyed, .. } = &self.history;
        let dots = || events.iter().filter(|(_, event)| event.write == write);
        let standing = (0..=FALLBACK).filter(|&node| dots().any(|(_, event)| self.holds(node, event.dot)));
        standing.count() as u8 + dots().filter_map(|(request, _)| destroyed.get(request)).sum::<u8>()
    }

    /// What all nodes have together.
    fn union(&self) -> Siblings<Bytes> {
        let mut union = Siblings::new();
        for node in &self.nodes {
            union.merge(&node.copy);
        }
        for hint in self.welcome_hints() {
            union.merge(hint);
        }
        union
    }

    fn is_at_rest(&self) -> bool {
        self.nodes.iter().all(|node| node.operations.is_empty())
    }

    /// What becomes of this world, if it is at rest, when all that is in flight is lost, hints are handed over and
    /// somebody reads from all nodes: once for each node that may coordinate.
    fn settled<'a>(&'a self, search: &'a Search) -> impl Iterator<Item = World> + 'a {
        let coordinators = if self.is_at_rest() { 0..NODES } else { 0..0 };
        coordinators.map(|coordinator| {
            let mut world = self.clone();
            world.network.clear();
            world.catch_up(search);
            world.network.clear();
            (0..NODES).for_each(|target| world.hand_over(&search.scope, target));
            world.arrive(search);
            world.begin_get(&search.scope, coordinator, SETTLING, NODES as u8);
            world.arrive(search);
            world
        })
    }

    /// Whoever has lost its record is met, and whoever lags behind hears of the raise.
    fn catch_up(&mut self, search: &Search) {
        let raised = self.nodes.iter().find_map(|node| node.reaping.raised.clone());
        let unmet: Vec<usize> = (0..=FALLBACK).filter(|&member| self.reaping(member).unmet).collect();
        unmet.into_iter().for_each(|member| self.meet(&search.scope, member, None));
        if let Some(raise) = raised {
            (0..=FALLBACK).for_each(|member| self.raise(&search.scope, member, raise.clone()));
        }
    }

    /// All that is under way arrives, once.
    fn arrive(&mut self, search: &Search) {
        while let Some(&envelope) = self.network.keys().next() {
            self.deliver(&search.scope, envelope);
            self.network.remove(&envelope);
        }
    }
}
