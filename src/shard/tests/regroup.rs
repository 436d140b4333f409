//! The ring changes while requests are under way (`docs/adr/0011`).

use std::sync::Arc;

use ringmain_schema::message::{Get, Put};
use ringmain_schema::{Encoder, Flags};

use super::cluster::{Answer, Client, Cluster, get, put};
use crate::coordinator::Owners;
use crate::id::{NodeId, ShardId};
use crate::membership::{Change, Member, Step, View, Works};
use crate::ring::{Partitions, Ring};
use crate::shard::io::{Input, SiblingMessage};
use crate::time::Duration;

impl Cluster {
    pub(super) fn ring_of(&self, nodes: &[usize]) -> Arc<Ring> {
        let view = self.shards[&(0, 0)].view();
        let member = |node: &usize| {
            let id = self.shards[&(*node, 0)].view.me;
            view.member(id).unwrap().settled.ring_member(id)
        };
        let members: Vec<_> = nodes.iter().map(member).collect();
        Arc::new(Ring::new(Partitions::new(16).unwrap(), 3, &members))
    }

    /// All nodes that aren't paused work by the ring of `now`, and by the change to that of `next`, at once.
    pub(super) fn show(&mut self, now: &[usize], next: Option<(&[usize], bool)>) {
        let ring = self.ring_of(now);
        let change =
            next.map(|(nodes, is_read)| Change { next: self.ring_of(nodes), is_read, is_known: true });
        let all: Vec<_> = self.shards.keys().copied().collect();
        for at in all {
            let old = self.shards[&at].view().clone();
            let view = View::new(old.cluster, old.me, old.members.clone(), ring.clone());
            let message = SiblingMessage::View(Arc::new(view.with_change(old.works, change.clone(), None)));
            self.handle(at, Input::Sibling { from: ShardId(0), message });
        }
        self.run(Duration::from_millis(5));
    }

    /// All nodes know this of the members, and nothing else changes.
    pub(super) fn show_members(&mut self, change: impl Fn(&mut Vec<Member>)) {
        let all: Vec<_> = self.shards.keys().copied().collect();
        for at in all {
            let old = self.shards[&at].view().clone();
            let mut members = old.members.clone();
            change(&mut members);
            let view = View::new(old.cluster, old.me, members, old.ring.clone());
            let message =
                SiblingMessage::View(Arc::new(view.with_change(old.works, old.change.clone(), None)));
            self.handle(at, Input::Sibling { from: ShardId(0), message });
        }
    }

    /// All nodes have come so far in the change under way.
    pub(super) fn show_step(&mut self, step: Step) {
        let all: Vec<_> = self.shards.keys().copied().collect();
        for at in all {
            let old = self.shards[&at].view().clone();
            let view = View::new(old.cluster, old.me, old.members.clone(), old.ring.clone());
            let works = Works { step, ..old.works };
            let message = SiblingMessage::View(Arc::new(view.with_change(works, old.change.clone(), None)));
            self.handle(at, Input::Sibling { from: ShardId(0), message });
        }
    }

    pub(super) fn begin_put(&mut self, client: Client, put: Put<'_>) {
        let mut bytes = Vec::new();
        put.encode(&mut Encoder::default(), 7, Flags::NONE, &mut bytes);
        self.send(client, &bytes);
    }

    fn begin_get(&mut self, client: Client, get: Get<'_>) {
        let mut bytes = Vec::new();
        get.encode(&mut Encoder::default(), 7, Flags::NONE, &mut bytes);
        self.send(client, &bytes);
    }

    fn is_unanswered(&mut self, client: Client) -> bool {
        self.run(Duration::from_millis(5));
        self.receive(client).is_none()
    }

    pub(super) fn values_at(&self, node: usize, key: &[u8]) -> usize {
        let shard = &self.shards[&(node, 0)];
        let place = shard.place(key);
        let entry = shard.replica().index().find(place.partition, place.token, key);
        entry.map_or(0, |entry| entry.state.sibling_count())
    }

    pub(super) fn versions_at(&self, node: usize, key: &[u8]) -> usize {
        let shard = &self.shards[&(node, 0)];
        let place = shard.place(key);
        let entry = shard.replica().index().find(place.partition, place.token, key);
        entry.map_or(0, |entry| entry.state.versions().len())
    }

    pub(super) fn hints(&self) -> usize {
        self.shards.values().flat_map(|shard| shard.hints().backlog()).map(|(_, keys, _)| keys).sum()
    }

    pub(super) fn node(&self, id: NodeId) -> usize {
        self.shards.iter().find(|(_, shard)| shard.view.me == id).unwrap().0.0
    }
}

const BEFORE: &[usize] = &[0, 1, 2];
const AFTER: &[usize] = &[1, 2, 3];

/// Of these four the first three own all keys, and the last three will.
fn four() -> Cluster {
    let mut cluster = Cluster::with_options(4, 1, |options| options.durable = true);
    cluster.show(BEFORE, None);
    cluster
}

/// W among the owners in force would have been enough when the write began.
#[test]
fn a_write_under_way_when_the_ring_changes_is_on_both_sets() {
    let mut cluster = four();
    let client = cluster.client((0, 0));
    cluster.paused.extend([1, 2]);
    cluster.begin_put(client, put(b"k", b"milk"));
    cluster.show(BEFORE, Some((AFTER, false)));
    assert_eq!(cluster.values_at(3, b"k"), 1, "the newcomer was told");
    assert!(cluster.is_unanswered(client), "one of each set");
    cluster.paused.remove(&1);
    assert!(matches!(cluster.answer(client), Answer::Stored { nodes: 3, .. }));
    cluster.paused.clear();
    cluster.nobody_owes_an_answer();
}

/// It is told to the new owners, and what their coordinator holds itself counts no more.
#[test]
fn a_write_ends_at_the_new_owners_though_its_coordinator_is_none() {
    let mut cluster = four();
    let client = cluster.client((0, 0));
    cluster.paused.extend([1, 2]);
    cluster.begin_put(client, put(b"k", b"milk"));
    cluster.show(AFTER, None);
    assert!(cluster.is_unanswered(client), "of the new owners one has it");
    cluster.paused.remove(&1);
    assert!(matches!(cluster.answer(client), Answer::Stored { nodes: 2, .. }));
    assert_eq!([1, 3].map(|node| cluster.values_at(node, b"k")), [1, 1]);
    cluster.paused.clear();
}

#[test]
fn a_write_that_misses_one_set_may_be_applied() {
    let mut cluster = four();
    let client = cluster.client((0, 0));
    cluster.paused.extend([2, 3]);
    cluster.show(BEFORE, Some((AFTER, false)));
    let missed = cluster.put(client, Put { budget_us: 200_000, ..put(b"k", b"milk") });
    assert!(matches!(missed, Answer::Error { acks: 2, .. }), "{missed:?}");
    cluster.paused.clear();
    cluster.nobody_owes_an_answer();
}

#[test]
fn a_read_under_way_when_it_is_time_rests_on_both_sets() {
    let mut cluster = four();
    let client = cluster.client((0, 0));
    assert!(matches!(cluster.put(client, Put { write: 3, ..put(b"k", b"milk") }), Answer::Stored { .. }));
    cluster.paused.extend([1, 2]);
    cluster.begin_get(client, get(b"k"));
    cluster.show(BEFORE, Some((AFTER, true)));
    assert!(cluster.is_unanswered(client), "one of each set");
    cluster.paused.remove(&1);
    let answer = cluster.answer(client);
    assert!(matches!(answer, Answer::Got { nodes: 3, .. }), "{answer:?}");
    cluster.paused.clear();
    cluster.run(Duration::from_secs(1));
    assert_eq!(cluster.values_at(3, b"k"), 1, "the newcomer was repaired");
}

/// What a newcomer holds itself counts among the owners to be only, also where it coordinates.
#[test]
fn a_newcomer_coordinates_and_reads_what_the_others_have() {
    let mut cluster = four();
    let there = cluster.client((0, 0));
    assert!(matches!(cluster.put(there, put(b"k", b"milk")), Answer::Stored { .. }));
    cluster.show(BEFORE, Some((AFTER, false)));
    let here = cluster.client((3, 0));
    let answer = cluster.get(here, get(b"k"));
    assert!(matches!(answer, Answer::Got { nodes: 2, forwarded: false, .. }), "{answer:?}");
    assert_eq!(answer.values(), [b"milk"]);
    let stored = cluster.put(here, Put { overwrite: true, ..put(b"k", b"bread") });
    assert!(matches!(stored, Answer::Stored { nodes: 2.., .. }), "{stored:?}");
    assert_eq!(cluster.get(there, get(b"k")).values(), [b"bread"]);
}

/// Whoever works by another pair is told so by its own coordinator's answer alone: a view that changes nothing here asks
/// nobody twice.
#[test]
fn a_view_that_changes_no_owner_asks_nobody_anew() {
    let mut cluster = four();
    let client = cluster.client((0, 0));
    cluster.paused.extend([1, 2]);
    cluster.begin_put(client, put(b"k", b"milk"));
    cluster.show(BEFORE, Some((BEFORE, true)));
    assert!(cluster.is_unanswered(client));
    cluster.paused.clear();
    cluster.run(Duration::from_secs(1));
    let taken = |node| cluster.shards[&(node, 0)].states_taken();
    assert_eq!([taken(1), taken(2)], [1, 1]);
}

/// A fallback coordinates, and comes to own the key before it has answered: what it kept is its own copy then.
#[test]
fn a_fallback_that_comes_to_own_the_key_counts_by_its_own_copy() {
    let mut cluster = Cluster::with_options(5, 1, |options| options.durable = true);
    let partition = cluster.shards[&(0, 0)].place(b"k").partition;
    let list = cluster.ring_of(&[0, 1, 2, 3, 4]);
    let nodes: Vec<usize> = list.preference_list(partition).iter().map(|node| cluster.node(node)).collect();
    let (here, other) = (nodes[3], nodes[4]);
    for away in &nodes[..3] {
        cluster.cut.extend([(*away, here), (here, *away), (*away, other), (other, *away)]);
    }
    cluster.run(Duration::from_secs(3));
    let client = cluster.client((here, 0));
    cluster.paused.insert(other);
    cluster.begin_put(client, put(b"k", b"milk"));
    assert_eq!((cluster.hints(), cluster.values_at(here, b"k")), (1, 0));
    cluster.show(&[here, other, nodes[0]], None);
    assert_eq!(cluster.values_at(here, b"k"), 1);
    assert!(cluster.is_unanswered(client));
    cluster.paused.clear();
    cluster.show(&[here, other, nodes[0]], None);
    let answer = cluster.answer(client);
    assert!(matches!(answer, Answer::Stored { nodes: 2, .. }), "{answer:?}");
    assert_eq!(cluster.values_at(other, b"k"), 1);
}

#[test]
fn owners_come_once_each() {
    let nodes = [1, 2, 3, 4].map(NodeId);
    let moving = Owners { primaries: &nodes[..3], successors: &nodes[1..] };
    assert!(moving.iter().eq(nodes) && moving.is_changing());
    assert!(!Owners::from(&nodes).is_changing());
}
