//! Replicas that differ become equal without anybody reading.

use super::cluster::{Answer, Cluster, put};
use crate::id::PartitionId;
use crate::shard::{Input, ShardOptions};
use crate::time::Duration;

const EVERY: Duration = Duration::from_millis(200);
/// Two cycles of two peers each, a tenth late, and time to move what differs.
const TWO_CYCLES: Duration = Duration::from_secs(2);

fn cluster(shards_each: u16) -> Cluster {
    Cluster::with_options(3, shards_each, |options: &mut ShardOptions| options.anti_entropy = Some(EVERY))
}

fn write(cluster: &mut Cluster, keys: std::ops::Range<u32>) {
    let client = cluster.client((0, 0));
    for number in keys {
        let stored = cluster.put(client, put(&number.to_le_bytes(), b"v"));
        assert!(matches!(stored, Answer::Stored { .. }), "{stored:?}");
    }
}

/// By node: the roots of all partitions, whichever shard keeps each, and its keys.
fn held(cluster: &Cluster) -> Vec<(Vec<u64>, usize)> {
    let of = |node: usize| {
        let mine = || cluster.shards.iter().filter(move |(at, _)| at.0 == node).map(|(_, shard)| shard);
        let root = |partition| mine().map(|shard| shard.trees().root(PartitionId(partition))).sum();
        ((0..16).map(root).collect(), mine().map(|shard| shard.replica().keys()).sum())
    };
    (0..3).map(of).collect()
}

fn repaired(cluster: &Cluster) -> u64 {
    cluster.shards.values().map(crate::shard::Shard::keys_repaired).sum()
}

/// In `memory` mode a node that restarts has nothing. The others have it all, and nobody reads.
#[test]
fn a_node_that_lost_everything_gets_it_back() {
    let mut cluster = cluster(2);
    write(&mut cluster, 0..500);
    cluster.run(Duration::from_millis(100));
    cluster.kill(2);
    cluster.start(2);
    cluster.run(Duration::from_secs(3) + TWO_CYCLES);
    let held = held(&cluster);
    assert!(held.iter().all(|node| *node == held[0]), "{held:?}");
    assert_eq!(held[2].1, 500);
    assert!((500..=1000).contains(&repaired(&cluster)), "each key is news once, or twice if both sent it");
}

/// Both sides wrote while they could not reach each other.
#[test]
fn writes_of_both_sides_of_a_cut_meet() {
    let mut cluster = Cluster::with_options(3, 1, |options| {
        (options.anti_entropy, options.write) = (Some(EVERY), 1);
    });
    cluster.cut = [(0, 2), (2, 0), (1, 2), (2, 1)].into();
    cluster.run(Duration::from_secs(2));
    write(&mut cluster, 0..100);
    let other = cluster.client((2, 0));
    for number in 50..150u32 {
        let stored = cluster.put(other, put(&number.to_le_bytes(), b"w"));
        assert!(matches!(stored, Answer::Stored { .. }), "{stored:?}");
    }
    assert_ne!(held(&cluster)[0].0, held(&cluster)[2].0);
    cluster.cut.clear();
    cluster.run(Duration::from_secs(15) + TWO_CYCLES);
    let held = held(&cluster);
    assert!(held.iter().all(|node| *node == held[0]), "{held:?}");
    assert_eq!(held[0].1, 150);
}

#[test]
fn what_is_equal_is_left_alone() {
    let mut cluster = cluster(1);
    write(&mut cluster, 0..100);
    cluster.run(TWO_CYCLES);
    let before = repaired(&cluster);
    cluster.run(Duration::from_secs(10));
    assert_eq!(repaired(&cluster), before);
}

/// An answer that never comes holds nothing up: a later round finds what differs.
#[test]
fn a_peer_that_falls_silent_is_given_up() {
    let mut cluster = cluster(1);
    write(&mut cluster, 0..20);
    cluster.cut = [(1, 0), (2, 0)].into();
    cluster.run(Duration::from_secs(3));
    write_at(&mut cluster, 1, 20..40);
    cluster.cut.clear();
    cluster.run(Duration::from_secs(15) + TWO_CYCLES);
    let held = held(&cluster);
    assert!(held.iter().all(|node| *node == held[0]), "{held:?}");
}

fn write_at(cluster: &mut Cluster, node: usize, keys: std::ops::Range<u32>) {
    let client = cluster.client((node, 0));
    for number in keys {
        cluster.put(client, put(&number.to_le_bytes(), b"v"));
    }
}

/// Turns are long all the while, and clients are there: what is left to background work under any load is enough (P7).
#[test]
fn a_node_that_lost_everything_gets_it_back_under_steady_overload() {
    let mut cluster = cluster(1);
    write(&mut cluster, 0..500);
    overload(&mut cluster, 50, Duration::from_millis(1));
    cluster.kill(2);
    cluster.start(2);
    overload(&mut cluster, 600, Duration::from_millis(100));
    let held = held(&cluster);
    assert!(held.iter().all(|node| *node == held[0]), "{held:?}");
    assert_eq!(held[2].1, 500);
    let halvings = cluster.shards.values().map(|shard| shard.pace.reading().halvings[1]);
    assert!(halvings.sum::<u64>() > 0, "it was held back for the waits");
}

/// So many times ten milliseconds, with a write in each, and turns so long.
fn overload(cluster: &mut Cluster, rounds: u32, longest: Duration) {
    let client = cluster.client((0, 0));
    for round in 0..rounds {
        let shards: Vec<_> = cluster.shards.keys().copied().collect();
        for at in shards {
            cluster.handle(at, Input::Waited { longest });
        }
        cluster.put(client, put(&(round % 500).to_le_bytes(), b"w"));
        cluster.run(Duration::from_millis(10));
    }
}
