//! States that a search must come to, or it has checked less than it says.

use std::sync::Arc;

use ringmain::causality::Content;
use ringmain::coordinator::GetVerdict;
use stateright::Property;

use super::Search;
use super::promises::shows_deleted;
use super::reap::Named;
use super::world::{
    Envelope, Events, FALLBACK, Kind, Message, NODE_IDS, NODES, Node, Operation, Request, World,
};

pub(crate) const SIBLINGS_READ: &str = "siblings are read";
pub(crate) const REPAIR: &str = "a read repairs a replica";
pub(crate) const UNACKNOWLEDGED_READ: &str = "a write is read that its client has given up";
pub(crate) const TOMBSTONE_BESIDE_PUT: &str = "a tombstone stands beside a concurrent put";
pub(crate) const OLD_COPY_LATE: &str = "an old copy is under way after its delete has converged";
pub(crate) const INCOMPLETE_WAITS: &str = "an answer doesn't end a read because its node is incomplete";
pub(crate) const WIPED_MINTS: &str = "a node mints after it was wiped";
pub(crate) const FALLBACK_COUNTED: &str = "a write is acknowledged that its fallback counts for";
pub(crate) const FALLBACK_READ: &str = "a read is answered by its coordinator and the fallback alone";
pub(crate) const HINT_GREW: &str = "an acknowledgement of a hint comes when that has grown";
pub(crate) const HINT_FOR_NOTHING: &str = "a hint waits whose target has it already";
pub(crate) const OLD_HINT_LATE: &str = "a hint waits after its delete has converged";
pub(crate) const ONLY_HINT: &str = "an acknowledged write is on no primary, and in a hint";
pub(crate) const OLD_REFUSED: &str = "what was deleted is under way to a node that has reaped it";
pub(crate) const HINT_REFUSED: &str = "a hint is handed over to a node that has reaped the key";
pub(crate) const REAP_WAITS: &str = "a fallback doesn't promise while it holds a hint";
pub(crate) const LAGS: &str = "a primary is sent something of an epoch that it has yet to hear of";
pub(crate) const CAUGHT_UP: &str = "a primary hears of a raise from one that didn't propose it";
pub(crate) const SECOND_ROUND: &str = "the epoch is raised by a round after one that was given up";
pub(crate) const STILL_BOUND: &str = "a primary is bound by a round that was given up, and by the next";
pub(crate) const KEPT_BESIDE: &str = "one primary has reaped what another still knows in the new epoch";
pub(crate) const DISAGREED: &str = "the epoch is raised and the key is kept";
pub(crate) const PUT_AGAIN: &str = "a reaped key is put again, without its past";
pub(crate) const OLD_LIFE: &str = "the copy of a node that lost its record is wiped by a raise";
pub(crate) const UNMET: &str = "a member has lost its record while primaries are bound";
pub(crate) const SECOND_DOT: &str = "a retry lands under a second dot";
pub(crate) const TWINS_READ: &str = "twins are read";
/// The limit that `src/causality/siblings.rs` tells of: a replica that learnt from a context, not from the
/// write itself, that it was replaced doesn't know its name.
pub(crate) const APPLIED_AGAIN: &str = "a retry is applied where its write's first dot is known as replaced";
pub(crate) const RETRY_KNOWN: &str = "a retry is recognised where its write was replaced";

pub(crate) fn states() -> Vec<Property<Search>> {
    let mut states = of_reaping();
    states.extend(of_quorums());
    states
}

fn of_quorums() -> Vec<Property<Search>> {
    vec![
        Property::sometimes(SIBLINGS_READ, |_, world: &World| {
            let is_value = |write: &Request| !world.history.events[write].delete;
            world.replies().any(|reply| reply.returned.iter().filter(is_value).count() > 1)
        }),
        Property::sometimes(REPAIR, |_, world: &World| {
            world.network.keys().any(|envelope| envelope.kind == Kind::Repair)
        }),
        Property::sometimes(UNACKNOWLEDGED_READ, |_, world: &World| {
            let given_up = |write: Request| !world.clients[write.client()].waits;
            let seen = world.replies().flat_map(|reply| reply.returned.iter());
            seen.filter(|&write| !world.history.acknowledged.contains(write)).any(given_up)
        }),
        Property::sometimes(TOMBSTONE_BESIDE_PUT, |_, world: &World| {
            world.nodes.iter().any(|node| {
                let versions = node.copy.versions();
                let buried = versions.iter().filter(|version| !matches!(version.content, Content::Value(_)));
                (1..versions.len()).contains(&buried.count())
            })
        }),
        Property::sometimes(OLD_COPY_LATE, |_, world: &World| {
            let old = |state| shows_deleted(&world.history, state, world.history.converged_deletes);
            let mut writes = world.network.iter().filter(|(envelope, _)| envelope.kind == Kind::Replicate);
            writes.any(|(_, message)| message.state().is_some_and(old))
        }),
        Property::sometimes(INCOMPLETE_WAITS, |_, world: &World| {
            world.nodes.iter().any(|node| node.incomplete) && awaits_the_complete(world)
        }),
        Property::sometimes(WIPED_MINTS, |_, world: &World| {
            (0..NODES).any(|index| {
                let (node, id) = (&world.nodes[index], world.nodes[index].actor_id(index));
                node.incomplete && world.history.events.values().any(|event| event.dot.actor.id == id)
            })
        }),
        Property::sometimes(FALLBACK_COUNTED, |search: &Search, world: &World| {
            let short = |write| world.primaries_with(write) < usize::from(search.scope.write);
            world.history.acknowledged.iter().any(short)
        }),
        Property::sometimes(FALLBACK_READ, |_, world: &World| {
            let operations = world.nodes.iter().flat_map(|node| node.operations.values());
            operations.map(Arc::as_ref).any(|operation| match operation {
                Operation::Get { quorum, answered, .. } => {
                    *answered && quorum.silent_primaries().count() == NODES - 1
                }
                Operation::Put { .. } => false,
            })
        }),
        Property::sometimes(HINT_GREW, |_, world: &World| {
            let mut answers = world.network.keys().filter(|envelope| envelope.kind == Kind::HandedOver);
            answers.any(|envelope| {
                let hint = world.fallback.hints[envelope.from].as_ref();
                hint.is_some_and(|hint| hint.added_by != envelope.request)
            })
        }),
        Property::sometimes(HINT_FOR_NOTHING, |_, world: &World| {
            let mut pairs = world.fallback.hints.iter().zip(&world.nodes);
            pairs.any(|(hint, node)| hint.as_ref().is_some_and(|hint| !node.copy.would_change(&hint.state)))
        }),
        Property::sometimes(OLD_HINT_LATE, |_, world: &World| {
            world.hints().any(|hint| shows_deleted(&world.history, hint, world.history.converged_deletes))
        }),
        Property::sometimes(ONLY_HINT, |_, world: &World| {
            world.history.acknowledged.iter().any(|write| world.primaries_with(write) == 0)
        }),
        Property::sometimes(SECOND_DOT, |_, world: &World| {
            world.history.events.iter().any(|(request, event)| event.write != *request)
        }),
        Property::sometimes(TWINS_READ, |_, world: &World| {
            world.replies().any(|reply| {
                let writes: Events = reply.returned.iter().map(|r| world.history.events[&r].write).collect();
                writes.iter().count() < reply.returned.iter().count()
            })
        }),
        Property::sometimes(APPLIED_AGAIN, |_, world: &World| {
            let mut writes = world.network.iter().filter(|(envelope, _)| envelope.kind == Kind::Replicate);
            writes.any(|(envelope, message)| {
                let (events, state) = (&world.history.events, message.state());
                let Some((event, state)) = events.get(&envelope.request).zip(state) else { return false };
                let first = events[&event.write].dot;
                let is_replaced = state.versions().iter().all(|version| version.dot != first);
                event.write != envelope.request && state.context().covers(first) && is_replaced
            })
        }),
        Property::sometimes(RETRY_KNOWN, |_, world: &World| {
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

fn of_reaping() -> Vec<Property<Search>> {
    vec![
        Property::sometimes(OLD_REFUSED, |_, world: &World| {
            let deleted = |state| shows_deleted(&world.history, state, world.history.reaped_deletes());
            world.refused(Kind::Replicate).any(|message| message.state().is_some_and(deleted))
        }),
        Property::sometimes(HINT_REFUSED, |_, world: &World| {
            !world.history.reaped.is_empty() && world.refused(Kind::HandOver).next().is_some()
        }),
        Property::sometimes(REAP_WAITS, |_, world: &World| {
            let waits = |envelope: &Envelope| envelope.to == FALLBACK && envelope.kind == Kind::Propose;
            world.network.keys().any(waits) && world.hints().next().is_some()
        }),
        Property::sometimes(LAGS, |_, world: &World| {
            let epoch = |node: usize| world.nodes.get(node).map_or(u8::MAX, |node| node.reaping.epoch);
            let is_of_a_copy = |kind| matches!(kind, Kind::Replicate | Kind::State | Kind::ReadState);
            let mut envelopes = world.network.keys().filter(|envelope| is_of_a_copy(envelope.kind));
            envelopes.any(|envelope| envelope.epoch > epoch(envelope.to))
        }),
        Property::sometimes(CAUGHT_UP, |_, world: &World| {
            let mut raises = world.network.keys().filter(|envelope| envelope.kind == Kind::Raise);
            let first = raises.next().map(|envelope| envelope.from);
            raises.any(|envelope| Some(envelope.from) != first)
        }),
        Property::sometimes(KEPT_BESIDE, |_, world: &World| {
            let knows = |node: &Node| {
                let dots = world.history.reaped.iter().map(|write| world.history.events[&write].dot);
                dots.into_iter().any(|dot| node.copy.context().covers(dot))
            };
            let mut raised = world.nodes.iter().filter(|node| node.reaping.epoch > 0);
            raised.any(knows)
        }),
        Property::sometimes(DISAGREED, |_, world: &World| {
            let mut raises = world.nodes.iter().filter_map(|node| node.reaping.raised.as_ref());
            raises.any(|raise| raise.drop.is_none())
        }),
        Property::sometimes(PUT_AGAIN, |_, world: &World| {
            let standing = |node: &Node| world.history.standing(&node.copy);
            let mut raised = world.nodes.iter().filter(|node| node.reaping.epoch > 0);
            raised.any(|node| {
                let past = world.history.past(standing(node));
                !past.is_empty()
                    && !node.incomplete
                    && past.without(world.history.reaped) == past
                    && world.history.reaped.iter().next().is_some()
            })
        }),
        Property::sometimes(OLD_LIFE, |_, world: &World| {
            world.nodes.iter().any(|node| node.incomplete && node.reaping.raised.is_some())
        }),
        Property::sometimes(SECOND_ROUND, |_, world: &World| {
            let mut raises = world.nodes.iter().filter_map(|node| node.reaping.raised.as_ref());
            raises.any(|raise| raise.round.1 > 0)
        }),
        Property::sometimes(STILL_BOUND, |_, world: &World| {
            let is_over = |(name, _): &(Named, u8)| name.1 == 0 && world.overs_left == 0;
            let mut behind = world.nodes.iter().filter(|node| node.reaping.epoch == 0);
            behind.any(|node| node.reaping.bindings.len() > 1 && node.reaping.bindings.iter().any(is_over))
        }),
        Property::sometimes(UNMET, |_, world: &World| {
            let mut members = 0..=NODES;
            let bound = world.nodes.iter().filter(|node| !node.reaping.bindings.is_empty());
            members.any(|member| world.reaping(member).unmet) && bound.count() > 1
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
    /// Messages of this kind, of an epoch that is over where they would arrive.
    fn refused(&self, kind: Kind) -> impl Iterator<Item = &Message> {
        let over = move |envelope: &Envelope| {
            let epoch = self.nodes.get(envelope.to).map_or(0, |node| node.reaping.epoch);
            envelope.kind == kind && envelope.epoch < epoch
        };
        self.network.iter().filter(move |(envelope, _)| over(envelope)).map(|(_, message)| message)
    }

    /// How many primaries have this write, or something that replaced it.
    fn primaries_with(&self, write: Request) -> usize {
        let event = &self.history.events[&write];
        (0..NODES).filter(|&node| self.holds(node, event.dot)).count()
    }
}
