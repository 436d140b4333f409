//! Racks and data centres: writes that must be in several, reads that stay near.

use ringmain_schema::message::{ErrorCode, Get, Put};

use super::cluster::{Answer, Cluster, get, put};
use super::fallbacks::{hints, holds, isolate, key_and_nodes};
use crate::shard::relay::Nearest;
use crate::time::Duration;

/// Racks of these names, a node in each, all in one data centre.
fn racks(racks: &[&str]) -> Cluster {
    Cluster::with_places(racks.len(), 1, |options| options.durable = true, move |node| ("", racks[node]))
}

fn zones(key: &[u8], write: u8, zones: u8) -> Put<'_> {
    Put { write, zones, budget_us: 400_000, ..put(key, b"v") }
}

/// The owners of the key, and the others, in the order of the preference list, which stand in a rack other than or
/// the same as the first owner's.
fn of_rack<'a>(nodes: &'a [usize], racks: &'a [&str], rack: &'a str) -> impl Iterator<Item = usize> + 'a {
    nodes.iter().copied().filter(move |&node| racks[node] == rack)
}

/// P1: an acknowledgement says where the copies are. A zone that is cut off can't be counted.
#[test]
fn a_write_in_two_zones_waits_for_the_second() {
    const RACKS: [&str; 5] = ["a", "a", "a", "b", "b"];
    let mut cluster = racks(&RACKS);
    let (key, _) = key_and_nodes(&cluster);
    let client = cluster.client((0, 0));
    assert!(matches!(cluster.put(client, zones(&key, 1, 2)), Answer::Stored { nodes: 2.., .. }));
    for other in [3, 4] {
        (0..3).for_each(|node| cluster.cut.extend([(node, other), (other, node)]));
    }
    // Nobody has noticed yet.
    let doubt = cluster.put(client, zones(&key, 1, 2));
    assert_eq!(doubt.code(), Some(ErrorCode::MaybeApplied), "{doubt:?}");
    isolate(&mut cluster, &[3, 4]);
    let refused = cluster.put(client, zones(&key, 1, 2));
    assert_eq!(refused.code(), Some(ErrorCode::Unavailable), "{refused:?}");
    for fewer in [0, 1] {
        let stored = cluster.put(client, zones(&key, 2, fewer));
        assert!(matches!(stored, Answer::Stored { nodes: 2, .. }), "{fewer}: {stored:?}");
    }
}

/// What it is for: either zone may go, and the write is still there.
#[test]
fn a_write_in_two_zones_outlives_either() {
    const RACKS: [&str; 4] = ["a", "a", "b", "b"];
    for gone in ["a", "b"] {
        let mut cluster = racks(&RACKS);
        let (key, _) = key_and_nodes(&cluster);
        let client = cluster.client((0, 0));
        let stored = cluster.put(client, zones(&key, 1, 2));
        assert!(matches!(stored, Answer::Stored { .. }), "{stored:?}");
        let survivors: Vec<_> = (0..4).filter(|&node| RACKS[node] != gone).collect();
        (0..4).filter(|node| !survivors.contains(node)).for_each(|node| cluster.kill(node));
        cluster.run(Duration::from_secs(3));
        for &node in &survivors {
            let client = cluster.client((node, 0));
            assert_eq!(cluster.get(client, Get { read: 1, ..get(&key) }).values(), [b"v"], "at n{node}");
        }
    }
}

#[test]
fn more_zones_than_there_are_is_refused_and_says_why() {
    for (racks_of, most) in [(&["", "", ""][..], 1), (&["a", "b", "b"], 2), (&["a", "b", "c", "d"], 3)] {
        let mut cluster = racks(racks_of);
        let client = cluster.client((0, 0));
        assert!(matches!(cluster.put(client, zones(b"k", 1, most)), Answer::Stored { .. }));
        let refused = cluster.put(client, zones(b"k", 1, most + 1));
        assert_eq!(refused.code(), Some(ErrorCode::BadRequest), "{racks_of:?}: {refused:?}");
    }
}

/// Two racks of one data centre fail together with it.
#[test]
fn with_several_data_centres_racks_are_no_zones() {
    let place = |node: usize| [("x", "1"), ("x", "2"), ("y", "1")][node];
    let mut cluster = Cluster::with_places(3, 1, |_| (), place);
    let client = cluster.client((0, 0));
    assert_eq!(cluster.put(client, zones(b"k", 1, 3)).code(), Some(ErrorCode::BadRequest));
    isolate_of(&mut cluster, 3, &[2]);
    assert_eq!(cluster.put(client, zones(b"k", 2, 2)).code(), Some(ErrorCode::Unavailable));
    assert!(matches!(cluster.put(client, zones(b"k", 2, 1)), Answer::Stored { nodes: 2, .. }));
}

fn isolate_of(cluster: &mut Cluster, nodes: usize, gone: &[usize]) {
    for &node in gone {
        for other in (0..nodes).filter(|other| !gone.contains(other)) {
            cluster.cut.extend([(node, other), (other, node)]);
        }
    }
    cluster.run(Duration::from_secs(3));
}

/// The owner in rack b is away; of the two others the one in b takes its place, whichever comes first in the list.
#[test]
fn a_stand_in_is_sought_in_the_zone_that_is_missing() {
    const RACKS: [&str; 6] = ["a", "a", "a", "a", "b", "b"];
    let mut cluster = racks(&RACKS);
    // A key of which the next in the list is in a, the other node of b behind it.
    let found = (0..200u32).map(|number| number.to_le_bytes().to_vec()).find_map(|key| {
        let nodes = super::fallbacks::nodes_of(&cluster, &key);
        let owner = of_rack(&nodes[..3], &RACKS, "b").next()?;
        let is_so = of_rack(&nodes[..3], &RACKS, "b").count() == 1 && RACKS[nodes[3]] == "a";
        is_so.then(|| (key, nodes[..3].to_vec(), owner))
    });
    let (key, owners, away) = found.unwrap();
    let other = (4..6).find(|&node| node != away).unwrap();
    isolate_of(&mut cluster, 6, &[away]);
    let coordinator = owners.into_iter().find(|&node| node != away).unwrap();
    let client = cluster.client((coordinator, 0));
    let stored = cluster.put(client, zones(&key, 3, 2));
    assert!(matches!(stored, Answer::Stored { nodes: 3, .. }), "{stored:?}");
    assert_eq!(cluster.shards[&(other, 0)].hints().backlog().count(), 1, "the hint is in rack b");
    assert_eq!(
        cluster.get(client, Get { read: 3, ..get(&key) }).values(),
        [b"v"],
        "a read asks the same one"
    );
    cluster.cut.clear();
    cluster.run(Duration::from_secs(15));
    assert!(holds(&cluster, away, &key) && hints(&cluster) == 0);
}

/// Whoever has to pass a read on asks in its own rack, then in its own data centre; a write goes where all go.
#[test]
fn a_read_is_passed_on_to_the_nearest() {
    const PLACES: [(&str, &str); 6] =
        [("x", "1"), ("y", "1"), ("z", "1"), ("x", "2"), ("y", "1"), ("z", "2")];
    let cluster = Cluster::with_places(6, 1, |_| (), |node| PLACES[node]);
    for (node, stands) in PLACES.iter().enumerate() {
        let shard = &cluster.shards[&(node, 0)];
        for partition in shard.view.ring.partitions().iter() {
            let owners = shard.view.primaries(partition);
            if owners.contains(&shard.view.me) {
                continue;
            }
            let to = |is_read| match shard.nearest(cluster.now.monotonic, partition, is_read) {
                Some(Nearest::Peer(link, _)) => link.node,
                other => panic!("{other:?}"),
            };
            assert_eq!(to(false), owners[0]);
            let place =
                |id| PLACES[cluster.shards.iter().find(|(_, other)| other.view.me == id).unwrap().0.0];
            assert_eq!(place(to(true)).0, stands.0, "each data centre has a copy");
        }
    }
}
