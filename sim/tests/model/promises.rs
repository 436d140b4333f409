//! The promises of a key, each a property of a state of the search, and the rare states that must be reached.
//!
//! They are held against [`History`], which the system under search has no part in. Where a promise speaks of
//! convergence, all that is in flight is lost and one full read with repair follows ([`World::settled`]).

use std::sync::Arc;

use bytes::Bytes;
use ringmain::causality::{Content, Siblings};
use ringmain::coordinator::GetVerdict;
use stateright::Property;

use super::Search;
use super::world::{Events, History, Kind, Message, NODE_IDS, NODES, Node, Operation, Reply, Request, World};

pub(crate) const P1: &str =
    "P1 every acknowledged write stands or was replaced by one whose client had seen it";
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
            world.history.acknowledged_beyond(past).is_empty()
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
            let History { events, acknowledged, converged_deletes } = &world.history;
            let deletes = acknowledged.iter().filter(|write| events[write].delete).collect();
            let shows = |world: &World, deletes| {
                world.nodes.iter().any(|node| shows_deleted(&world.history, &node.copy, deletes))
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
        Property::always(P9, |_, world: &World| world.replies().all(|reply| reply.missed.is_empty())),
        Property::always(ONCE, |_, world: &World| world.replies().all(|reply| !reply.repeats)),
    ]
}

/// Whether a state shows something that one of these deletes had seen.
fn shows_deleted(history: &History, state: &Siblings<Bytes>, deletes: Events) -> bool {
    let standing = history.standing(state);
    deletes.iter().any(|delete| {
        let deleted = history.events[&delete].past.without(Events::only(delete));
        deleted.iter().any(|write| standing.contains(write))
    })
}

/// States that a search must come to, or it has checked less than it says.
pub(crate) mod rare {
    pub(crate) const SIBLINGS_READ: &str = "siblings are read";
    pub(crate) const REPAIR: &str = "a read repairs a replica";
    pub(crate) const UNACKNOWLEDGED_READ: &str = "a write is read that its client has given up";
    pub(crate) const TOMBSTONE_BESIDE_PUT: &str = "a tombstone stands beside a concurrent put";
    pub(crate) const OLD_COPY_LATE: &str = "an old copy is under way after its delete has converged";
    pub(crate) const INCOMPLETE_WAITS: &str = "an answer doesn't end a read because its node is incomplete";
    pub(crate) const WIPED_MINTS: &str = "a node mints after it was wiped";
    pub(crate) const SECOND_DOT: &str = "a retry lands under a second dot";
    pub(crate) const TWINS_READ: &str = "twins are read";
    /// The limit that `src/causality/siblings.rs` tells of: a replica that learnt from a context, not from the
    /// write itself, that it was replaced doesn't know its name.
    pub(crate) const APPLIED_AGAIN: &str =
        "a retry is applied where its write's first dot is known as replaced";
    pub(crate) const RETRY_KNOWN: &str = "a retry is recognised where its write was replaced";
}

pub(crate) fn rare_states() -> Vec<Property<Search>> {
    vec![
        Property::sometimes(rare::SIBLINGS_READ, |_, world: &World| {
            let is_value = |write: &Request| !world.history.events[write].delete;
            world.replies().any(|reply| reply.returned.iter().filter(is_value).count() > 1)
        }),
        Property::sometimes(rare::REPAIR, |_, world: &World| {
            world.network.keys().any(|envelope| envelope.kind == Kind::Repair)
        }),
        Property::sometimes(rare::UNACKNOWLEDGED_READ, |_, world: &World| {
            let given_up = |write: Request| !world.clients[write.client()].waits;
            let seen = world.replies().flat_map(|reply| reply.returned.iter());
            seen.filter(|&write| !world.history.acknowledged.contains(write)).any(given_up)
        }),
        Property::sometimes(rare::TOMBSTONE_BESIDE_PUT, |_, world: &World| {
            world.nodes.iter().any(|node| {
                let versions = node.copy.versions();
                let buried = versions.iter().filter(|version| matches!(version.content, Content::Tombstone));
                (1..versions.len()).contains(&buried.count())
            })
        }),
        Property::sometimes(rare::OLD_COPY_LATE, |_, world: &World| {
            let old = |state| shows_deleted(&world.history, state, world.history.converged_deletes);
            let mut writes = world.network.iter().filter(|(envelope, _)| envelope.kind == Kind::Replicate);
            writes.any(|(_, message)| message.state().is_some_and(old))
        }),
        Property::sometimes(rare::INCOMPLETE_WAITS, |_, world: &World| {
            world.nodes.iter().any(|node| node.incomplete) && awaits_the_complete(world)
        }),
        Property::sometimes(rare::WIPED_MINTS, |_, world: &World| {
            (0..NODES).any(|index| {
                let (node, id) = (&world.nodes[index], world.nodes[index].actor_id(index));
                node.incomplete && world.history.events.values().any(|event| event.dot.actor.id == id)
            })
        }),
        Property::sometimes(rare::SECOND_DOT, |_, world: &World| {
            world.history.events.iter().any(|(request, event)| event.write != *request)
        }),
        Property::sometimes(rare::TWINS_READ, |_, world: &World| {
            world.replies().any(|reply| {
                let writes: Events = reply.returned.iter().map(|r| world.history.events[&r].write).collect();
                writes.iter().count() < reply.returned.iter().count()
            })
        }),
        Property::sometimes(rare::APPLIED_AGAIN, |_, world: &World| {
            let mut writes = world.network.iter().filter(|(envelope, _)| envelope.kind == Kind::Replicate);
            writes.any(|(envelope, message)| {
                let (events, state) = (&world.history.events, message.state());
                let Some((event, state)) = events.get(&envelope.request).zip(state) else { return false };
                let first = events[&event.write].dot;
                let is_replaced = state.versions().iter().all(|version| version.dot != first);
                event.write != envelope.request && state.context().covers(first) && is_replaced
            })
        }),
        Property::sometimes(rare::RETRY_KNOWN, |_, world: &World| {
            let recognised = |node: &Node, request: &Request, operation: &Operation| {
                matches!(operation, Operation::Put { write, .. } if node.replaced.contains(*write))
                    && !world.history.events.contains_key(request)
            };
            let nodes = world.nodes.iter();
            nodes
                .flat_map(|node| node.operations.iter().map(move |(r, o)| (node, r, o)))
                .any(|(n, r, o)| recognised(n, r, o))
        }),
    ]
}

/// Whether there is an answer of an incomplete replica that would end a read if it came from a complete one.
fn awaits_the_complete(world: &World) -> bool {
    world.network.iter().any(|(envelope, message)| {
        let Message::State { state, complete: false } = message else { return false };
        let asked = world.nodes[envelope.to].operations.get(&envelope.request).map(Arc::as_ref);
        let Some(Operation::Get { quorum, answered: false, .. }) = asked else { return false };
        let verdict = |complete| {
            let mut quorum = quorum.clone();
            quorum.on_state(NODE_IDS[envelope.from], (**state).clone(), complete);
            quorum.verdict(false)
        };
        verdict(false) == GetVerdict::Pending && matches!(verdict(true), GetVerdict::Enough(_))
    })
}

impl World {
    fn replies(&self) -> impl Iterator<Item = &Reply> {
        self.clients.iter().filter_map(|client| client.holds.as_ref())
    }

    /// Every state on a node or under way between two.
    fn states(&self) -> impl Iterator<Item = &Siblings<Bytes>> {
        let under_way = self.network.values().filter_map(Message::state);
        self.nodes.iter().map(|node| &node.copy).chain(under_way)
    }

    /// What all nodes have together.
    fn union(&self) -> Siblings<Bytes> {
        let mut union = Siblings::new();
        for node in &self.nodes {
            union.merge(&node.copy);
        }
        union
    }

    fn is_at_rest(&self) -> bool {
        self.nodes.iter().all(|node| node.operations.is_empty())
    }

    /// What becomes of this world, if it is at rest, when all that is in flight is lost and somebody reads from
    /// all nodes: once for each node that may coordinate.
    fn settled<'a>(&'a self, search: &'a Search) -> impl Iterator<Item = World> + 'a {
        let coordinators = if self.is_at_rest() { 0..NODES } else { 0..0 };
        coordinators.map(|coordinator| {
            let mut world = self.clone();
            world.network.clear();
            world.begin_get(&search.scope, coordinator, SETTLING, NODES as u8);
            while let Some(&envelope) = world.network.keys().next() {
                world.deliver(&search.scope, envelope);
                world.network.remove(&envelope);
            }
            world
        })
    }
}
