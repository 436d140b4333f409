//! Hints whose target has left: who owns the key now takes them.

use ringmain_schema::message::Put;

use super::cluster::{Answer, Cluster, put};
use crate::membership::Intent;
use crate::time::Duration;

/// A key whose hint for its third owner is kept by a fallback, in a ring of all but the last node; and what its owners
/// are when the third has left and the last has joined.
fn hinted(is_heir: bool) -> (Cluster, Vec<u8>, usize, Vec<usize>) {
    let mut cluster = Cluster::with_options(6, 1, |options| options.durable = true);
    let before = cluster.ring_of(&[0, 1, 2, 3, 4]);
    let keys = (0..=255u8).map(|number| vec![b'k', number]);
    let found = keys.into_iter().find_map(|key| {
        let partition = cluster.shards[&(0, 0)].place(&key).partition;
        let list = before.preference_list(partition);
        let nodes: Vec<usize> = list.iter().map(|node| cluster.node(node)).collect();
        let staying: Vec<usize> = (0..6).filter(|node| *node != nodes[2]).collect();
        let heirs = cluster.ring_of(&staying).preference_list(partition).primaries.to_vec();
        let heirs: Vec<usize> = heirs.into_iter().map(|node| cluster.node(node)).collect();
        (heirs.contains(&nodes[3]) == is_heir).then_some((key, nodes, heirs))
    });
    let (key, nodes, heirs) = found.unwrap();
    cluster.show(&[0, 1, 2, 3, 4], None);
    for other in (0..6).filter(|other| *other != nodes[2]) {
        cluster.cut.extend([(nodes[2], other), (other, nodes[2])]);
    }
    cluster.run(Duration::from_secs(3));
    let client = cluster.client((nodes[0], 0));
    assert!(matches!(cluster.put(client, Put { write: 3, ..put(&key, b"milk") }), Answer::Stored { .. }));
    assert_eq!(cluster.shards[&(nodes[3], 0)].hints().backlog().count(), 1);
    (cluster, key, nodes[2], heirs)
}

/// scylla #24980: a hint was sent to its target for ever, or dropped, when another had come to own the key. It is at
/// home when all who own the key now hold it.
#[test]
fn a_hint_whose_target_owns_nothing_any_more_goes_to_who_does() {
    for is_heir in [false, true] {
        let (mut cluster, key, left, heirs) = hinted(is_heir);
        let staying: Vec<usize> = (0..6).filter(|node| *node != left).collect();
        let away = heirs[1];
        cluster.show(&staying, None);
        cluster.paused.insert(away);
        cluster.run(Duration::from_secs(5));
        assert_eq!(cluster.hints(), 1, "one of the owners hasn't got it");
        cluster.paused.clear();
        cluster.run(Duration::from_secs(5));
        assert_eq!(cluster.hints(), 0, "its keeper owns the key now: {is_heir}");
        assert!(heirs.iter().all(|&heir| cluster.values_at(heir, &key) == 1), "{heirs:?}");
        assert_eq!(cluster.values_at(left, &key), 0);
    }
}

/// While the ring changes the owners to be are owners: a hint for one that leaves stays its own until it has left.
#[test]
fn a_hint_for_who_is_leaving_waits_for_it() {
    let (mut cluster, key, left, _) = hinted(false);
    let staying: Vec<usize> = (0..6).filter(|node| *node != left).collect();
    cluster.show(&[0, 1, 2, 3, 4], Some((&staying, true)));
    cluster.run(Duration::from_secs(5));
    assert_eq!(cluster.hints(), 1);
    cluster.cut.clear();
    cluster.run(Duration::from_secs(5));
    assert_eq!((cluster.hints(), cluster.values_at(left, &key)), (0, 1));
}

/// A removed member stays in the ring until the change is settled, and takes nothing any more.
#[test]
fn a_hint_for_a_removed_member_goes_to_the_other_owners() {
    let (mut cluster, key, left, heirs) = hinted(false);
    let staying: Vec<usize> = (0..6).filter(|node| *node != left).collect();
    cluster.show(&[0, 1, 2, 3, 4], Some((&staying, false)));
    cluster.run(Duration::from_secs(1));
    assert_eq!(cluster.hints(), 1);
    let removed = cluster.shards[&(left, 0)].view().me;
    cluster.show_members(|members| {
        let removed = members.iter_mut().find(|member| member.node == removed).unwrap();
        removed.intent = Intent::Removed;
    });
    cluster.run(Duration::from_secs(5));
    assert_eq!((cluster.hints(), cluster.values_at(left, &key)), (0, 0));
    assert!(heirs.iter().all(|&heir| cluster.values_at(heir, &key) == 1), "{heirs:?}");
}
