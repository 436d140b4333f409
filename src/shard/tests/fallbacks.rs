//! Sloppy quorums and hinted handoff (paper §4.6).

use ringmain_schema::message::{ErrorCode, Get, Put};

use super::cluster::{Answer, Cluster, get, put};
use crate::hint::Keeping;
use crate::shard::ShardOptions;
use crate::time::Duration;

/// A key, its three primaries in order, and the two other nodes in the order of the preference list.
pub(super) fn key_and_nodes(cluster: &Cluster) -> (Vec<u8>, Vec<usize>) {
    let key = b"cart".to_vec();
    let nodes = nodes_of(cluster, &key);
    (key, nodes)
}

/// All nodes in the order in which a key prefers them.
pub(super) fn nodes_of(cluster: &Cluster, key: &[u8]) -> Vec<usize> {
    let shard = &cluster.shards[&(0, 0)];
    let list = shard.view.ring.preference_list(shard.place(key).partition);
    let number = |node| cluster.shards.iter().find(|(_, shard)| shard.view.me == node).unwrap().0.0;
    list.iter().map(number).collect()
}

/// Nobody hears anything of or from these nodes.
pub(super) fn isolate(cluster: &mut Cluster, gone: &[usize]) {
    for &node in gone {
        for other in (0..5).filter(|other| !gone.contains(other)) {
            cluster.cut.extend([(node, other), (other, node)]);
        }
    }
    cluster.run(Duration::from_secs(3));
}

pub(super) fn holds(cluster: &Cluster, node: usize, key: &[u8]) -> bool {
    let shard = &cluster.shards[&(node, 0)];
    let place = shard.place(key);
    shard.replica().index().find(place.partition, place.token, key).is_some()
}

pub(super) fn hints(cluster: &Cluster) -> usize {
    cluster.shards.values().flat_map(|shard| shard.hints().backlog()).map(|(_, keys, _)| keys).sum()
}

fn five(options: fn(&mut ShardOptions)) -> Cluster {
    Cluster::with_options(5, 1, options)
}

#[test]
fn fallbacks_take_a_write_for_primaries_that_are_away_and_bring_it_home() {
    let mut cluster = five(|options| options.durable = true);
    let (key, nodes) = key_and_nodes(&cluster);
    isolate(&mut cluster, &nodes[1..3]);
    let client = cluster.client((nodes[0], 0));
    let stored = cluster.put(client, Put { write: 3, ..put(&key, b"milk") });
    assert!(matches!(stored, Answer::Stored { nodes: 3, .. }), "{stored:?}");
    assert_eq!(hints(&cluster), 2);
    let strict = cluster.put(client, Put { write: 2, primaries: 2, ..put(&key, b"bread") });
    assert_eq!(strict.code(), Some(ErrorCode::Unavailable), "one primary is not two");
    assert_eq!(cluster.get(client, get(&key)).values(), [b"milk"], "a primary and a fallback that holds it");

    cluster.cut.clear();
    cluster.run(Duration::from_secs(15));
    assert!(nodes[..3].iter().all(|&node| holds(&cluster, node, &key)));
    assert!(!nodes[3..].iter().any(|&node| holds(&cluster, node, &key)), "fallbacks own nothing");
    assert_eq!(hints(&cluster), 0);
    cluster.nobody_owes_an_answer();
}

/// No primary on this side of the cut: a fallback coordinates, and what was written is merged when all meet.
#[test]
fn a_side_without_primaries_takes_writes_and_reads_them() {
    let mut cluster = five(|options| options.durable = true);
    let (key, nodes) = key_and_nodes(&cluster);
    let there = cluster.client((nodes[0], 0));
    assert!(matches!(cluster.put(there, put(&key, b"milk")), Answer::Stored { .. }));
    isolate(&mut cluster, &nodes[3..]);
    let here = cluster.client((nodes[4], 0));
    assert!(matches!(cluster.put(here, put(&key, b"bread")), Answer::Stored { nodes: 2, .. }));
    assert_eq!(cluster.get(here, get(&key)).values(), [b"bread"]);
    assert_eq!(cluster.get(there, get(&key)).values(), [b"milk"]);
    cluster.cut.clear();
    cluster.run(Duration::from_secs(15));
    let both = cluster.get(there, Get { read: 3, ..get(&key) });
    let mut values = both.values();
    values.sort_unstable();
    assert_eq!(values, [&b"bread"[..], b"milk"]);
    assert_eq!(hints(&cluster), 0);
}

/// What a fallback doesn't hold says nothing: it must not make a read miss.
#[test]
fn a_fallback_that_knows_nothing_does_not_count() {
    let mut cluster = five(|_| ());
    let (key, nodes) = key_and_nodes(&cluster);
    isolate(&mut cluster, &nodes[1..3]);
    let client = cluster.client((nodes[0], 0));
    assert_eq!(cluster.get(client, get(&key)).code(), Some(ErrorCode::Unavailable));
    assert_eq!(cluster.get(client, Get { read: 1, ..get(&key) }).code(), Some(ErrorCode::NotFound));
}

#[test]
fn a_full_fallback_declines_and_the_next_one_is_asked() {
    let mut cluster = five(|options| options.hint_bytes_max = 300);
    let (key, nodes) = key_and_nodes(&cluster);
    isolate(&mut cluster, &nodes[2..3]);
    let client = cluster.client((nodes[0], 0));
    let put = |value| Put { write: 3, overwrite: true, ..put(&key, value) };
    assert!(matches!(cluster.put(client, put(&[1; 50])), Answer::Stored { nodes: 3, .. }));
    assert_eq!(hints(&cluster), 1);
    // Too much for the first fallback beside nothing, and for the second too: the write still has two primaries.
    let too_large = [2; 200];
    let answer = cluster.put(client, Put { budget_us: 200_000, ..put(&too_large) });
    assert_eq!(answer.code(), Some(ErrorCode::MaybeApplied));
    let answer = cluster.put(client, Put { write: 2, ..put(&too_large) });
    assert!(
        matches!(answer, Answer::Stored { nodes: 2, .. }),
        "a full fallback refuses no write: {answer:?}"
    );
}

/// A hint was counted towards W: it must outlive its holder, and be handed over by it.
#[test]
fn a_hint_survives_its_holders_restart() {
    let mut cluster = five(|options| options.durable = true);
    let (key, nodes) = key_and_nodes(&cluster);
    isolate(&mut cluster, &nodes[2..3]);
    let client = cluster.client((nodes[0], 0));
    assert!(matches!(cluster.put(client, Put { write: 3, ..put(&key, b"milk") }), Answer::Stored { .. }));
    let holder = nodes[3];
    cluster.kill(holder);
    cluster.start(holder);
    cluster.run(Duration::from_secs(3));
    assert_eq!(hints(&cluster), 1);
    cluster.cut.clear();
    cluster.run(Duration::from_secs(15));
    assert!(holds(&cluster, nodes[2], &key));
    cluster.kill(holder);
    cluster.start(holder);
    cluster.run(Duration::from_secs(3));
    assert_eq!(hints(&cluster), 0, "what was handed over is not remembered for ever");
}

#[test]
fn strict_quorums_know_no_fallbacks() {
    let mut cluster = five(|options| options.hint_bytes_max = 0);
    let (key, nodes) = key_and_nodes(&cluster);
    isolate(&mut cluster, &nodes[1..3]);
    let client = cluster.client((nodes[0], 0));
    assert_eq!(cluster.put(client, put(&key, b"milk")).code(), Some(ErrorCode::Unavailable));
}

/// P5: what a fallback keeps expires like everything else. It was shown until it had come home.
#[test]
fn what_a_fallback_keeps_expires_too() {
    let mut cluster = five(|_| ());
    let (key, nodes) = key_and_nodes(&cluster);
    isolate(&mut cluster, &nodes[3..]);
    let client = cluster.client((nodes[3], 0));
    let fleeting = Put { ttl_ms: 1_000, ..put(&key, b"milk") };
    assert!(matches!(cluster.put(client, fleeting), Answer::Stored { nodes: 2, .. }));
    assert_eq!(cluster.get(client, get(&key)).values(), [b"milk"]);
    cluster.run(Duration::from_secs(2));
    assert_eq!(cluster.get(client, get(&key)).code(), Some(ErrorCode::NotFound));
}

/// A fallback that had handed its hint over took the retry of that write for a new one.
#[test]
fn a_retry_at_a_fallback_that_has_handed_over_applies_once() {
    let mut cluster = five(|options| options.durable = true);
    let (key, nodes) = key_and_nodes(&cluster);
    isolate(&mut cluster, &nodes[3..]);
    let here = cluster.client((nodes[3], 0));
    let named = Put { operation_client: 5, operation_sequence: 1, ..put(&key, b"old") };
    assert!(matches!(cluster.put(here, named), Answer::Stored { .. }));
    cluster.cut.clear();
    cluster.run(Duration::from_secs(15));
    assert_eq!(hints(&cluster), 0);
    let there = cluster.client((nodes[0], 0));
    let newer = Put { overwrite: true, write: 3, ..put(&key, b"new") };
    assert!(matches!(cluster.put(there, newer), Answer::Stored { .. }));
    for restarts in [false, true] {
        if restarts {
            cluster.kill(nodes[3]);
            cluster.start(nodes[3]);
        }
        isolate(&mut cluster, &nodes[3..]);
        let here = cluster.client((nodes[3], 0));
        cluster.put(here, named);
        cluster.cut.clear();
        cluster.run(Duration::from_secs(15));
        let there = cluster.client((nodes[0], 0));
        let answer = cluster.get(there, Get { read: 3, ..get(&key) });
        assert_eq!(answer.values(), [b"new"], "after a restart: {restarts}");
    }
}

/// A fallback that was told what a hint had replaced took a retry of that for a new write.
#[test]
fn a_retry_at_a_fallback_that_keeps_what_replaced_it_applies_once() {
    let mut cluster = five(|options| options.durable = true);
    let (key, nodes) = key_and_nodes(&cluster);
    isolate(&mut cluster, &[nodes[0], nodes[3], nodes[4]]);
    let here = cluster.client((nodes[0], 0));
    let named = Put { operation_client: 5, operation_sequence: 1, write: 1, ..put(&key, b"old") };
    assert!(matches!(cluster.put(here, named), Answer::Stored { .. }));
    let newer = Put { overwrite: true, write: 3, ..put(&key, b"new") };
    assert!(matches!(cluster.put(here, newer), Answer::Stored { nodes: 3, .. }));
    for restarts in [false, true] {
        if restarts {
            cluster.kill(nodes[3]);
            cluster.start(nodes[3]);
        }
        isolate(&mut cluster, &nodes[3..]);
        let there = cluster.client((nodes[3], 0));
        assert!(matches!(cluster.put(there, named), Answer::Stored { .. }));
        assert_eq!(cluster.get(there, get(&key)).values(), [b"new"], "after a restart: {restarts}");
    }
    cluster.cut.clear();
    cluster.run(Duration::from_secs(15));
    let here = cluster.client((nodes[0], 0));
    assert_eq!(cluster.get(here, Get { read: 3, ..get(&key) }).values(), [b"new"]);
}

/// A fallback kept a write for one node, and for another what had replaced it, and took a retry for a new write: in both
/// together the write isn't there any more (the simulator's seed 9102000000312).
#[test]
fn a_retry_at_a_fallback_that_keeps_it_for_one_and_what_replaced_it_for_another_applies_once() {
    let named = Put { operation_client: 5, operation_sequence: 1, write: 1, ..put(b"cart", b"old") };
    let alone = || {
        let mut cluster = five(|options| options.durable = true);
        let (key, nodes) = key_and_nodes(&cluster);
        isolate(&mut cluster, &nodes[3..4]);
        let client = cluster.client((nodes[3], 0));
        assert!(matches!(cluster.put(client, named), Answer::Stored { .. }));
        (cluster, client, key, nodes)
    };
    let replaced = {
        let (mut cluster, client, key, nodes) = alone();
        let newer = Put { overwrite: true, write: 1, ..put(&key, b"new") };
        assert!(matches!(cluster.put(client, newer), Answer::Stored { .. }));
        cluster.shards[&(nodes[3], 0)].hints().known(&key)
    };
    let (mut cluster, client, key, nodes) = alone();
    let second = cluster.shards[&(nodes[1], 0)].view.me;
    let keeper = cluster.shards.get_mut(&(nodes[3], 0)).unwrap();
    let partition = keeper.place(&key).partition;
    let keeping = Keeping { target: second, key: &key, partition };
    keeper.hints.store.keep(keeping, &replaced, 0).unwrap();
    assert!(matches!(cluster.put(client, named), Answer::Stored { .. }));
    let known = cluster.shards[&(nodes[3], 0)].hints().known(&key);
    assert_eq!(known.versions(), replaced.versions(), "it was applied again");
}

/// A fallback had handed over what had replaced a write. It acknowledged a retry of that write, though nothing of it was kept any more,
/// neither here nor at those who were told (the simulator's seed 12933352178432868617).
#[test]
fn a_retry_at_a_fallback_that_keeps_nothing_of_it_is_in_doubt() {
    let mut cluster = five(|options| options.durable = true);
    let (key, nodes) = key_and_nodes(&cluster);
    let named = Put { operation_client: 5, operation_sequence: 1, ..put(&key, b"old") };
    for newer_before in [true, false] {
        isolate(&mut cluster, &nodes[3..]);
        let there = cluster.client((nodes[3], 0));
        if newer_before {
            assert!(matches!(cluster.put(there, named), Answer::Stored { nodes: 2, .. }));
            let newer = Put { overwrite: true, ..put(&key, b"new") };
            assert!(matches!(cluster.put(there, newer), Answer::Stored { nodes: 2, .. }));
            assert!(
                matches!(cluster.put(there, named), Answer::Stored { nodes: 2, .. }),
                "it is accounted for"
            );
        } else {
            assert_eq!(cluster.put(there, named).code(), Some(ErrorCode::MaybeApplied));
        }
        cluster.cut.clear();
        cluster.run(Duration::from_secs(15));
        assert_eq!(hints(&cluster), 0);
    }
}

/// Each write that a fallback took was minted under a name of its own, until there were too many for anybody to take.
#[test]
fn a_fallback_takes_any_number_of_writes_to_one_key() {
    let mut cluster = five(|options| options.durable = true);
    let (key, nodes) = key_and_nodes(&cluster);
    isolate(&mut cluster, &nodes[3..]);
    let there = cluster.client((nodes[3], 0));
    for number in 0..600_u32 {
        let value = number.to_le_bytes();
        let newer = Put { overwrite: true, write: 1, ..put(&key, &value) };
        let answer = cluster.put(there, newer);
        assert!(matches!(answer, Answer::Stored { .. }), "{number}: {answer:?}");
    }
    cluster.cut.clear();
    cluster.run(Duration::from_secs(15));
    assert_eq!(hints(&cluster), 0);
    let here = cluster.client((nodes[0], 0));
    assert_eq!(cluster.get(here, Get { read: 3, ..get(&key) }).values(), [599_u32.to_le_bytes()]);
    assert!(matches!(cluster.put(here, put(&key, b"on")), Answer::Stored { .. }));
}
