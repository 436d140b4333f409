//! The one place where the search meets the server's replica.
//!
//! A [`Replica`] can't be compared or copied, so the search keeps a node's record and builds a replica around it
//! for each turn. Such a replica is as good as the one that was there all along: of a single key that it never
//! loses while it lives, it mints under the first epoch of its id, however often it is built.

use bytes::Bytes;
use ringmain::causality::{Content, Dot, Siblings};
use ringmain::id::PartitionId;
use ringmain::replica::{Applied, Covered, Place, Refused, Replica};
use ringmain::time::Now;

use super::scope::{Ask, Mistake, Scope};
use super::world::{Events, Node, Request, Write};

const STATE_BYTES_MAX: usize = 1 << 20;
const KEY: Place<'_> = Place { key: b"k", token: 0, partition: PartitionId(0) };

/// Mints a write on a node's record: its dot and what it replaced there, or nothing if this is a retry.
pub(crate) fn mint(scope: &Scope, index: usize, node: &mut Node, write: &Write) -> Option<(Dot, Events)> {
    let id = match scope.mistake {
        Some(Mistake::KeepsItsName) => Node::default().actor_id(index),
        _ => node.actor_id(index),
    };
    let covered = match &write.seen {
        Some((context, _)) if scope.mistake != Some(Mistake::ReplacesTheUnseen) => {
            Covered::Context(context.clone())
        }
        _ => Covered::Everything,
    };
    let operation = write.name.operation();
    let applied = turn(scope, id, node, |replica| coordinate(replica, write, covered));
    let Applied::Now { replaced, .. } = applied.expect("a write within every limit") else { return None };
    let version = node.copy.versions().iter().rev().find(|version| version.operation == operation);
    let version = version.expect("what was minted stands").clone();
    if scope.mistake == Some(Mistake::DropsTheClock) && write.delete {
        let clock = [(version.dot.actor, version.dot.counter)];
        node.copy = Siblings::from_parts(clock, [version.clone()]).expect("a state of one version");
    }
    Some((version.dot, replaced.into_iter().map(Request::named).collect()))
}

fn coordinate(replica: &mut Replica, write: &Write, covered: Covered) -> Result<Applied, Refused> {
    let value = [write.name.0];
    let write = ringmain::replica::Write {
        value: (!write.delete).then_some(&value[..]),
        covered,
        expiry: None,
        operation: write.name.operation(),
    };
    replica.coordinate(Now::default(), KEY, write, 0)
}

/// A node takes in what another knows, and which writes that says have been replaced.
pub(crate) fn merge(
    scope: &Scope,
    index: usize,
    node: &mut Node,
    theirs: &Siblings<Bytes>,
    replaced: Events,
) {
    match scope.mistake {
        Some(Mistake::LastMessageWins) => node.copy.clone_from(theirs),
        Some(Mistake::MergesByUnion) => node.copy = union(&node.copy, theirs),
        _ => {
            turn(scope, node.actor_id(index), node, |replica| replica.merge(KEY, theirs, 0));
        }
    }
    if scope.has(Ask::Retry) {
        node.replaced = node.replaced.union(replaced);
    }
    if scope.mistake == Some(Mistake::SwapsValues) {
        swap_values(&mut node.copy);
    }
}

/// Builds a replica around a node's record, lets it act, and keeps what it then has.
fn turn<T>(scope: &Scope, id: u64, node: &mut Node, act: impl FnOnce(&mut Replica) -> T) -> T {
    let mut replica = Replica::new(1, id, STATE_BYTES_MAX);
    replica.merge(KEY, &node.copy, 0);
    replica.remember_replaced(node.replaced.iter().map(Request::operation), 0);
    let result = act(&mut replica);
    let copy = replica.read(Now::default(), KEY).map(|entry| entry.state.clone()).unwrap_or_default();
    if scope.has(Ask::Retry) {
        // As the replica did itself, which is about to be forgotten.
        node.replaced = node.replaced.union(writes(&node.copy).without(writes(&copy)));
    }
    node.copy = copy;
    result
}

fn writes(state: &Siblings<Bytes>) -> Events {
    state.versions().iter().map(|version| Request::named(version.operation)).collect()
}

/// The mistake [`Mistake::MergesByUnion`].
fn union(ours: &Siblings<Bytes>, theirs: &Siblings<Bytes>) -> Siblings<Bytes> {
    let mut seen = ours.context();
    seen.merge(&theirs.context());
    let mut versions: Vec<_> = ours.versions().iter().chain(theirs.versions()).cloned().collect();
    versions.sort_by_key(|version| version.dot);
    versions.dedup_by_key(|version| version.dot);
    Siblings::from_parts(seen.iter(), versions).expect("sorted and covered")
}

/// The mistake [`Mistake::SwapsValues`].
fn swap_values(state: &mut Siblings<Bytes>) {
    let mut versions = state.versions().to_vec();
    if let [first, .., last] = &mut versions[..]
        && matches!((&first.content, &last.content), (Content::Value(_), Content::Value(_)))
    {
        std::mem::swap(&mut first.content, &mut last.content);
        *state = Siblings::from_parts(state.clock().to_vec(), versions).expect("the same dots");
    }
}
