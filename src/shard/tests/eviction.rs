//! The limit on memory holds, and what was put out for it is neither a delete nor brought back (docs/adr/0021).

use ringmain_schema::message::{ErrorCode, Get, MultiWriter, Put};
use ringmain_schema::{Encoder, Flags, Kind};

use super::cluster::{Answer, Cluster, get, put};
use super::fallbacks::{holds, isolate, key_and_nodes};
use crate::shard::{Input, ShardOptions};
use crate::time::{Duration, Now};

const LIMIT: usize = 1 << 20;
const EVERY: Duration = Duration::from_millis(200);

fn bounded(options: &mut ShardOptions) {
    (options.memory_max, options.value_bytes_max) = (LIMIT, 16 << 10);
    (options.anti_entropy, options.reap) = (Some(EVERY), None);
}

fn reaping(options: &mut ShardOptions) {
    bounded(options);
    (options.reap, options.hint_bytes_max) = (Some(EVERY), 0);
}

fn counter(cluster: &Cluster, node: usize, name: &str) -> u64 {
    let status = cluster.shards[&(node, 0)].status(cluster.now.monotonic);
    status.counters.iter().find(|counter| counter.name == name).map(|counter| counter.value).unwrap()
}

/// Whatever else the node holds.
fn put_everything_out(cluster: &mut Cluster, node: usize) {
    cluster.act((node, 0), |shard, _, _| while shard.evict_one() {});
}

#[track_caller]
fn check_limit(cluster: &Cluster) {
    for (at, shard) in &cluster.shards {
        let memory = shard.memory();
        assert!(memory.total() <= LIMIT, "{at:?} takes {}: {memory:?}", memory.total());
    }
}

#[test]
fn the_limit_holds_and_what_is_used_stays() {
    let mut cluster = Cluster::with_options(1, 1, bounded);
    let client = cluster.client((0, 0));
    for number in 0..6000u32 {
        let stored = cluster.put(client, put(&number.to_le_bytes(), &[7; 200]));
        assert!(matches!(stored, Answer::Stored { .. }), "{number}: {stored:?}");
        cluster.get(client, get(&0u32.to_le_bytes()));
        check_limit(&cluster);
    }
    let keys = cluster.shards[&(0, 0)].replica().keys();
    let evictions = counter(&cluster, 0, "evictions");
    assert_eq!(evictions as usize + keys, 6000);
    let shard = &cluster.shards[&(0, 0)];
    let (total, at_rest) = (shard.memory().total(), shard.at_rest());
    assert!(
        total <= at_rest && at_rest - total < 2048,
        "{total} of {at_rest}: nobody was put out for nothing"
    );
    let (fixed, seated) = (shard.fixed(), shard.replica().index().seated());
    assert!(fixed < LIMIT / 8 * 5 && seated / keys < 500, "{keys} keys take {seated}, and all else {fixed}");
    assert_eq!(counter(&cluster, 0, "partitions_evicted"), 16);
    assert!(cluster.get(client, get(&0u32.to_le_bytes())).code().is_none(), "it was asked for all the time");
    let old = cluster.get(client, get(&1u32.to_le_bytes()));
    assert_eq!(old.code(), Some(ErrorCode::NotFound), "a miss is a miss");
    assert_eq!(counter(&cluster, 0, "overloaded"), 0);
}

/// What a coordinator looks at to pass a write on counts as no use: new keys, however many, don't drive out those that are read.
#[test]
fn a_scan_does_not_drive_out_what_is_read() {
    let mut cluster = Cluster::with_options(3, 1, bounded);
    let client = cluster.client((0, 0));
    let read: Vec<[u8; 4]> = (0..200u32).map(u32::to_le_bytes).collect();
    for _ in 0..3 {
        for key in &read {
            if cluster.get(client, get(key)).code().is_some() {
                cluster.put(client, put(key, &[7; 200]));
            }
        }
    }
    for number in 1000..8000u32 {
        cluster.put(client, put(&number.to_le_bytes(), &[7; 200]));
    }
    assert!(counter(&cluster, 0, "evictions") > 2000);
    let hits = read.iter().filter(|key| cluster.get(client, get(*key)).code().is_none()).count();
    // A victim costs 128 moves at most: of 200 in use the 129th had to go.
    assert_eq!(hits, 199);
}

/// Values as large as they may be, among small ones.
#[test]
fn large_values_fit_in_too() {
    let mut cluster = Cluster::with_options(1, 1, bounded);
    let client = cluster.client((0, 0));
    let mut refused = 0;
    for number in 0..2000u32 {
        let size = if number % 7 == 0 { 16 << 10 } else { 50 };
        let answer = cluster.put(client, put(&number.to_le_bytes(), &vec![7; size]));
        refused += usize::from(answer.code() == Some(ErrorCode::Overloaded));
        check_limit(&cluster);
    }
    assert_eq!(refused, 0, "there is always room for the largest");
}

/// Deletes can't be put out. When they are all there is, puts are refused, and what is here can still be deleted.
#[test]
fn tombstones_of_deletes_stay_until_nothing_else_is_left() {
    let mut cluster = Cluster::with_options(1, 1, bounded);
    let client = cluster.client((0, 0));
    let mut refused = None;
    for number in 0..20_000u32 {
        let key = number.to_le_bytes();
        let delete = Put { key: &key, value: None, overwrite: true, ..Put::default() };
        let stored = cluster.put(client, put(&key, b"v"));
        if stored.code() == Some(ErrorCode::Overloaded) {
            refused = Some(number);
            break;
        }
        assert!(matches!(stored, Answer::Stored { .. }), "{stored:?}");
        assert!(matches!(cluster.put(client, delete), Answer::Stored { .. }), "{number}");
        check_limit(&cluster);
    }
    let refused = refused.expect("tombstones count against the limit");
    assert!(refused > 1000, "{refused}");
    assert_eq!(cluster.shards[&(0, 0)].replica().keys(), refused as usize, "all of them");
    let first = 0u32.to_le_bytes();
    let again = Put { key: &first, value: None, overwrite: true, ..Put::default() };
    assert!(matches!(cluster.put(client, again), Answer::Stored { .. }), "it is here, so there is a reserve");
    check_limit(&cluster);
}

/// What has expired goes before what lives, and is no delete: it doesn't fill anything up.
#[test]
fn what_has_expired_goes_first() {
    let mut cluster = Cluster::with_options(1, 1, bounded);
    let client = cluster.client((0, 0));
    for number in 0..300u32 {
        cluster.put(client, put(&number.to_le_bytes(), b"lives"));
    }
    for number in 300..9000u32 {
        let key = number.to_le_bytes();
        let fleeting = Put { ttl_ms: 1, ..put(&key, b"fleeting") };
        assert!(matches!(cluster.put(client, fleeting), Answer::Stored { .. }), "{number}");
        if number % 100 == 0 {
            cluster.run(Duration::from_millis(70));
        }
        check_limit(&cluster);
    }
    let living = (0..300u32).filter(|number| holds(&cluster, 0, &number.to_le_bytes()));
    assert_eq!(living.count(), 300);
    assert!(counter(&cluster, 0, "evictions") > 1000);
}

/// Neither a read nor anti-entropy brings a key back to where it was put out, but a write does.
#[test]
fn what_was_put_out_is_not_brought_back() {
    let mut cluster = Cluster::with_options(3, 1, bounded);
    let client = cluster.client((0, 0));
    let all: Vec<[u8; 4]> = (0..100u32).map(u32::to_le_bytes).collect();
    for key in &all {
        assert!(matches!(cluster.put(client, Put { write: 3, ..put(key, b"v") }), Answer::Stored { .. }));
    }
    put_everything_out(&mut cluster, 2);
    for node in 0..3 {
        let client = cluster.client((node, 0));
        for key in &all {
            let read = cluster.get(client, Get { read: 2, ..get(key) });
            assert_eq!(read.values(), [b"v"], "node {node}");
        }
    }
    let rounds = counter(&cluster, 0, "anti_entropy_rounds");
    cluster.run(Duration::from_secs(5));
    assert!(counter(&cluster, 0, "anti_entropy_rounds") > rounds + 5);
    assert_eq!(cluster.shards[&(2, 0)].replica().keys(), 0);
    assert!(counter(&cluster, 2, "refills_declined") > 0);
    assert_eq!(counter(&cluster, 2, "anti_entropy_keys_repaired"), 0);
    for key in &all {
        assert!(matches!(cluster.put(client, Put { write: 3, ..put(key, b"w") }), Answer::Stored { .. }));
    }
    assert_eq!(cluster.shards[&(2, 0)].replica().keys(), 100, "what somebody writes is taken");
    cluster.nobody_owes_an_answer();
}

/// A partition that has put something out takes no part in rounds, and whoever lacks it still gets what is left from there.
#[test]
fn a_node_that_restarts_streams_what_is_left_elsewhere() {
    let mut cluster = Cluster::with_options(3, 1, bounded);
    let client = cluster.client((0, 0));
    for number in 0..100u32 {
        let stored = cluster.put(client, Put { write: 3, ..put(&number.to_le_bytes(), b"v") });
        assert!(matches!(stored, Answer::Stored { .. }));
    }
    for node in 0..2 {
        cluster.act((node, 0), |shard, _, _| (0..90).for_each(|_| assert!(shard.evict_one())));
    }
    let left: Vec<u32> = (0..100)
        .filter(|number: &u32| (0..2).any(|node| holds(&cluster, node, &number.to_le_bytes())))
        .collect();
    assert!(left.len() >= 10);
    cluster.kill(2);
    cluster.start(2);
    cluster.run(Duration::from_secs(10));
    assert!(left.iter().all(|number| holds(&cluster, 2, &number.to_le_bytes())));
    assert_eq!(cluster.shards[&(2, 0)].replica().keys(), left.len());
    assert!(cluster.shards[&(2, 0)].view().myself().oneself.lacking.is_empty(), "it counts for reads again");
    assert_eq!(counter(&cluster, 2, "partitions_evicted"), 0);
}

/// A delete that an owner missed is not brought by anti-entropy if that has put keys out, and a tombstone is forgotten only when
/// all have it: whoever has it sends it.
#[test]
fn a_delete_that_an_owner_missed_is_sent_to_it_and_forgotten() {
    for missing in 0..3 {
        let mut cluster = Cluster::with_options(3, 1, reaping);
        cluster.run(Duration::from_secs(1));
        let (key, nodes) = key_and_nodes(&cluster);
        let (away, there) = (nodes[missing], nodes[(missing + 1) % 3]);
        let client = cluster.client((there, 0));
        assert!(matches!(cluster.put(client, Put { write: 3, ..put(&key, b"v") }), Answer::Stored { .. }));
        put_everything_out(&mut cluster, away);
        isolate(&mut cluster, &[away]);
        let context = cluster.get(client, get(&key)).context().to_vec();
        let delete = Put { key: &key, value: None, context: &context, ..Put::default() };
        assert!(matches!(cluster.put(client, delete), Answer::Stored { .. }));
        assert!(!holds(&cluster, away, &key) && holds(&cluster, there, &key));
        cluster.cut.clear();
        cluster.run(Duration::from_secs(30));
        assert!(nodes[..3].iter().all(|node| !holds(&cluster, *node, &key)), "owner {missing} had missed it");
        let sent: u64 = (0..3).map(|node| counter(&cluster, node, "tombstones_pushed")).sum();
        assert!((1..=300).contains(&sent), "{sent}: no more than once a look");
        assert!(matches!(cluster.put(client, put(&key, b"w")), Answer::Stored { .. }));
    }
}

/// A retry of a write whose key was put out since is not stored a second time, and nobody says that it is stored.
#[test]
fn a_retry_of_what_was_put_out_is_in_doubt() {
    let mut cluster = Cluster::with_options(1, 1, bounded);
    let client = cluster.client((0, 0));
    let named = Put { operation_client: 5, operation_sequence: 1, ..put(b"k", b"v") };
    let replacing = Put { operation_client: 5, operation_sequence: 2, overwrite: true, ..put(b"k", b"w") };
    assert!(matches!(cluster.put(client, named), Answer::Stored { .. }));
    assert!(matches!(cluster.put(client, replacing), Answer::Stored { .. }));
    put_everything_out(&mut cluster, 0);
    assert_eq!(cluster.put(client, named).code(), Some(ErrorCode::MaybeApplied));
    assert_eq!(cluster.put(client, replacing).code(), Some(ErrorCode::MaybeApplied));
    assert_eq!(cluster.get(client, get(b"k")).code(), Some(ErrorCode::NotFound));
}

/// What is kept for others takes a part of the memory at most, and who is asked for more declines.
#[test]
fn hints_take_a_part_of_the_memory_at_most() {
    let mut cluster = Cluster::with_options(4, 1, |options| {
        bounded(options);
        options.write = 1;
    });
    let down = 3;
    isolate(&mut cluster, &[down]);
    cluster.run(Duration::from_secs(3));
    let client = cluster.client((0, 0));
    for number in 0..400u32 {
        let stored = cluster.put(client, put(&number.to_le_bytes(), &[1; 4000]));
        assert!(matches!(stored, Answer::Stored { .. }), "{stored:?}");
        check_limit(&cluster);
    }
    let kept: Vec<usize> = (0..3).map(|node| cluster.shards[&(node, 0)].hints().memory()).collect();
    assert!(
        kept.iter().all(|bytes| *bytes <= LIMIT / 4) && kept.iter().any(|bytes| *bytes > LIMIT / 8),
        "{kept:?}"
    );
    let declined: u64 = (0..3).map(|node| counter(&cluster, node, "hints_declined")).sum();
    assert!(declined > 0);
}

/// What connections take pushes keys out, and when nothing is left to push out, nobody else is let in.
#[test]
fn connections_push_keys_out_and_are_refused_in_the_end() {
    let mut cluster = Cluster::with_options(1, 1, bounded);
    let client = cluster.client((0, 0));
    for number in 0..1000u32 {
        cluster.put(client, put(&number.to_le_bytes(), &[7; 200]));
    }
    let keys = cluster.shards[&(0, 0)].replica().keys();
    cluster.handle((0, 0), crate::shard::Input::Buffered { bytes: LIMIT / 2 });
    assert!(cluster.shards[&(0, 0)].replica().keys() < keys);
    cluster.handle((0, 0), crate::shard::Input::Buffered { bytes: LIMIT });
    cluster.run(Duration::from_millis(20));
    assert_eq!(cluster.shards[&(0, 0)].replica().keys(), 0);
    assert_eq!(cluster.put(client, put(b"k", b"v")).code(), Some(ErrorCode::Overloaded));
    let before = cluster.shards[&(0, 0)].counters.frames_refused;
    let opened = crate::shard::Input::Opened { connection: crate::id::ConnectionId(u64::MAX), dial: None };
    cluster.handle((0, 0), opened);
    assert_eq!(cluster.shards[&(0, 0)].counters.frames_refused, before + 1);
    cluster.handle((0, 0), crate::shard::Input::Buffered { bytes: 0 });
    assert!(matches!(cluster.put(client, put(b"k", b"v")), Answer::Stored { .. }));
}

fn delete(key: &[u8]) -> Put<'_> {
    Put { key, value: None, overwrite: true, ..Put::default() }
}

/// A coordinator that has put a key out asks the others what there is before it replaces all of that.
#[test]
fn a_delete_of_what_its_coordinator_put_out_deletes_it() {
    for value in [None, Some(&b"w"[..])] {
        for away in 0..3 {
            let mut cluster = Cluster::with_options(3, 1, reaping);
            let (key, nodes) = key_and_nodes(&cluster);
            let client = cluster.client((nodes[away], 0));
            assert!(matches!(
                cluster.put(client, Put { write: 3, ..put(&key, b"v") }),
                Answer::Stored { .. }
            ));
            put_everything_out(&mut cluster, nodes[away]);
            let write = Put { value, write: 3, ..delete(&key) };
            assert!(matches!(cluster.put(client, write), Answer::Stored { .. }));
            assert_eq!(counter(&cluster, nodes[away], "writes_that_asked"), 1);
            for node in 0..3 {
                let client = cluster.client((node, 0));
                let read = cluster.get(client, Get { read: 2, ..get(&key) });
                assert_eq!(read.values().first().copied(), value, "node {node}");
                assert!(read.values().len() <= 1);
            }
            cluster.run(Duration::from_secs(10));
            if value.is_none() {
                assert!((0..3).all(|node| !holds(&cluster, node, &key)), "and it is forgotten");
            }
            cluster.nobody_owes_an_answer();
        }
    }
}

/// A key came back to a node that had put it out, by a write that saw nothing of what the others hold: whoever replaces all of it there
/// asks them, once.
#[test]
fn an_overwrite_of_what_came_back_replaces_what_the_others_kept() {
    for value in [None, Some(&b"w"[..])] {
        let mut cluster = Cluster::with_options(3, 1, bounded);
        let (key, nodes) = key_and_nodes(&cluster);
        let client = cluster.client((nodes[0], 0));
        let blind = |value| Put { write: 3, ..put(&key, value) };
        assert!(matches!(cluster.put(client, blind(b"v1")), Answer::Stored { .. }));
        put_everything_out(&mut cluster, nodes[0]);
        assert!(matches!(cluster.put(client, blind(b"v2")), Answer::Stored { .. }));
        let write = Put { value, write: 3, ..delete(&key) };
        assert!(matches!(cluster.put(client, write), Answer::Stored { .. }));
        assert_eq!(counter(&cluster, nodes[0], "writes_that_asked"), 1);
        for node in 0..3 {
            let client = cluster.client((node, 0));
            let read = cluster.get(client, Get { read: 3, ..get(&key) });
            assert_eq!(read.values(), value.as_slice(), "node {node}");
        }
        let again = Put { value: Some(b"x"), write: 3, ..delete(&key) };
        assert!(matches!(cluster.put(client, again), Answer::Stored { .. }));
        assert_eq!(
            counter(&cluster, nodes[0], "writes_that_asked"),
            1,
            "all were heard, so nobody knows more"
        );
        cluster.nobody_owes_an_answer();
    }
}

/// The same if it was read meanwhile, and all were heard.
#[test]
fn a_read_that_hears_all_makes_what_came_back_whole() {
    let mut cluster = Cluster::with_options(3, 1, bounded);
    let (key, nodes) = key_and_nodes(&cluster);
    let client = cluster.client((nodes[0], 0));
    let blind = |value| Put { write: 3, ..put(&key, value) };
    assert!(matches!(cluster.put(client, blind(b"v1")), Answer::Stored { .. }));
    put_everything_out(&mut cluster, nodes[0]);
    assert!(matches!(cluster.put(client, blind(b"v2")), Answer::Stored { .. }));
    assert_eq!(cluster.get(client, Get { read: 3, ..get(&key) }).values().len(), 2);
    assert!(matches!(cluster.put(client, Put { write: 3, ..delete(&key) }), Answer::Stored { .. }));
    assert_eq!(counter(&cluster, nodes[0], "writes_that_asked"), 0);
    for node in 0..3 {
        let client = cluster.client((node, 0));
        assert!(cluster.get(client, get(&key)).values().is_empty(), "node {node}");
    }
}

/// Connections take so much of the node's memory that it has no room for a large value.
fn leave_little_room(cluster: &mut Cluster, node: usize) {
    let shard = &cluster.shards[&(node, 0)];
    let bytes = shard.at_rest() - shard.memory().total() - 8192;
    cluster.handle((node, 0), crate::shard::Input::Buffered { bytes });
}

/// An owner that has no room for a value doesn't keep the one that it replaces: others put the new one out in their time, and the old
/// one would be the newest then.
#[test]
fn who_has_no_room_for_the_newer_keeps_no_older() {
    let mut cluster = Cluster::with_options(3, 1, bounded);
    let (key, nodes) = key_and_nodes(&cluster);
    let client = cluster.client((nodes[0], 0));
    assert!(matches!(cluster.put(client, Put { write: 3, ..put(&key, b"v") }), Answer::Stored { .. }));
    leave_little_room(&mut cluster, nodes[2]);
    assert!(holds(&cluster, nodes[2], &key));
    let large = [7; 16 << 10];
    let newer = Put { value: Some(&large), write: 2, ..delete(&key) };
    assert!(matches!(cluster.put(client, newer), Answer::Stored { .. }));
    assert!(!holds(&cluster, nodes[2], &key));
    nodes[..2].iter().for_each(|node| put_everything_out(&mut cluster, *node));
    assert_eq!(cluster.get(client, Get { read: 3, ..get(&key) }).code(), Some(ErrorCode::NotFound));
}

/// But what is declined and replaces nothing here drives nothing out.
#[test]
fn who_has_no_room_for_a_sibling_keeps_what_it_has() {
    let mut cluster = Cluster::with_options(3, 1, bounded);
    let (key, nodes) = key_and_nodes(&cluster);
    let client = cluster.client((nodes[0], 0));
    assert!(matches!(cluster.put(client, Put { write: 2, ..put(&key, b"v") }), Answer::Stored { .. }));
    leave_little_room(&mut cluster, nodes[2]);
    let large = [7; 16 << 10];
    assert!(matches!(cluster.put(client, Put { write: 2, ..put(&key, &large) }), Answer::Stored { .. }));
    let versions = |node: usize| {
        let shard = &cluster.shards[&(nodes[node], 0)];
        let place = shard.place(&key);
        let entry = shard.replica().index().find(place.partition, place.token, place.key);
        entry.map(|entry| entry.state.sibling_count())
    };
    assert_eq!([0, 1, 2].map(versions), [Some(2), Some(2), Some(1)]);
}

/// While others don't answer, such a write waits for a part of its time, and is refused if too few could say.
#[test]
fn an_overwrite_of_what_was_put_out_needs_others() {
    let mut cluster = Cluster::with_options(3, 1, |options| {
        bounded(options);
        options.hint_bytes_max = 0;
    });
    let (key, nodes) = key_and_nodes(&cluster);
    let client = cluster.client((nodes[0], 0));
    assert!(matches!(cluster.put(client, Put { write: 3, ..put(&key, b"v") }), Answer::Stored { .. }));
    put_everything_out(&mut cluster, nodes[0]);
    // One is silent: the other says enough.
    cluster.paused.insert(nodes[1]);
    let stored = cluster.put(client, Put { budget_us: 400_000, ..delete(&key) });
    assert!(matches!(stored, Answer::Stored { nodes: 2, .. }), "{stored:?}");
    put_everything_out(&mut cluster, nodes[0]);
    let place = cluster.shards[&(0, 0)].place(&key).partition;
    let sibling = (0..10_000u32).map(u32::to_le_bytes);
    let sibling =
        sibling.into_iter().find(|key| cluster.shards[&(0, 0)].place(key).partition == place).unwrap();
    cluster.paused.insert(nodes[2]);
    let refused = cluster.put(client, Put { budget_us: 300_000, ..delete(&sibling) });
    assert_eq!(refused.code(), Some(ErrorCode::Unavailable));
    assert!(!holds(&cluster, nodes[0], &sibling), "nothing was written");
}

/// Whoever is about to be written is not put out for it.
#[test]
fn what_is_written_is_not_put_out_to_make_room_for_it() {
    let mut cluster = Cluster::with_options(1, 1, bounded);
    cluster.act((0, 0), |shard, _, _| {
        let place = shard.place(b"k");
        shard.replica.hold(place, true);
        shard.replica.hold(place, false);
    });
    let client = cluster.client((0, 0));
    assert!(matches!(cluster.put(client, put(b"k", b"v")), Answer::Stored { .. }));
    cluster.put(client, put(b"other", b"v"));
    cluster.act((0, 0), |shard, _, _| {
        let place = shard.place(b"k");
        shard.replica.hold(place, true);
        assert!(shard.evict_one() && !shard.evict_one());
        shard.replica.hold(place, false);
        assert!(shard.evict_one());
    });
}

/// An owner that was cut off deletes a key blindly that it had put out: it hears what the others have, and doesn't propose it for ever.
#[test]
fn whoever_proposes_less_than_there_is_hears_of_the_rest() {
    let mut cluster = Cluster::with_options(3, 1, reaping);
    let (key, nodes) = key_and_nodes(&cluster);
    let client = cluster.client((nodes[0], 0));
    assert!(matches!(cluster.put(client, Put { write: 3, ..put(&key, b"v") }), Answer::Stored { .. }));
    put_everything_out(&mut cluster, nodes[0]);
    isolate(&mut cluster, &[nodes[0]]);
    cluster.run(Duration::from_secs(3));
    let stored = cluster.put(client, Put { write: 1, ..delete(&key) });
    assert!(matches!(stored, Answer::Stored { .. }), "{stored:?}");
    cluster.cut.clear();
    cluster.run(Duration::from_secs(20));
    let states: Vec<_> = (0..3)
        .map(|node| {
            let shard = &cluster.shards[&(node, 0)];
            let place = shard.place(&key);
            shard
                .replica()
                .index()
                .find(place.partition, place.token, &key)
                .map(|entry| entry.state.versions().len())
        })
        .collect();
    assert!(states.iter().all(|state| *state == states[0]), "{states:?}");
}

/// Whoever puts blindly and deletes what was there before leaves a value beside a tombstone: it goes like any other.
#[test]
fn a_value_beside_a_tombstone_can_be_put_out() {
    let mut cluster = Cluster::with_options(3, 1, bounded);
    let (key, nodes) = key_and_nodes(&cluster);
    let client = cluster.client((nodes[0], 0));
    assert!(matches!(cluster.put(client, Put { write: 3, ..put(&key, b"v") }), Answer::Stored { .. }));
    let context = cluster.get(client, get(&key)).context().to_vec();
    assert!(matches!(cluster.put(client, Put { write: 3, ..put(&key, b"w") }), Answer::Stored { .. }));
    let delete = Put { key: &key, value: None, context: &context, write: 3, ..Put::default() };
    assert!(matches!(cluster.put(client, delete), Answer::Stored { .. }));
    assert_eq!(cluster.get(client, get(&key)).values(), [b"w"]);
    put_everything_out(&mut cluster, nodes[0]);
    assert!(!holds(&cluster, nodes[0], &key));
    for _ in 0..3 {
        assert_eq!(cluster.get(client, Get { read: 2, ..get(&key) }).values(), [b"w"], "others have it");
        cluster.run(Duration::from_millis(200));
    }
    assert!(!holds(&cluster, nodes[0], &key), "and no repair brings it back");
}

/// More tombstones than a round takes are forgotten at the look at which they may be.
#[test]
fn reaping_keeps_up_with_deletes() {
    let mut cluster = Cluster::with_options(3, 1, |options| {
        bounded(options);
        (options.memory_max, options.reap) = (64 << 20, Some(Duration::from_secs(4)));
    });
    let client = cluster.client((0, 0));
    let per_partition = 400;
    for number in 0..16 * per_partition as u32 {
        let deleted = cluster.put(client, delete(&number.to_le_bytes()));
        assert!(matches!(deleted, Answer::Stored { .. }));
    }
    cluster.run(Duration::from_secs(15));
    for node in 0..3 {
        assert_eq!(cluster.shards[&(node, 0)].replica().keys(), 0, "node {node}");
        assert_eq!(cluster.shards[&(node, 0)].memory.candidates, 0);
    }
}

/// Where tombstones fill the memory, nobody waits until they are old.
#[test]
fn tombstones_that_fill_the_memory_are_forgotten_at_once() {
    for nodes in [1, 3] {
        let mut cluster = Cluster::with_options(nodes, 1, |options| {
            bounded(options);
            options.reap = Some(Duration::from_secs(3600));
        });
        let client = cluster.client((0, 0));
        let mut refused = 0;
        for number in 0..10_000u32 {
            refused += usize::from(cluster.put(client, delete(&number.to_le_bytes())).code().is_some());
            check_limit(&cluster);
        }
        cluster.run(Duration::from_secs(5));
        for node in 0..nodes {
            let left = cluster.shards[&(node, 0)].replica().keys();
            assert!(left < 1000, "{left} of {refused} at node {node}");
        }
        assert!(matches!(cluster.put(client, put(b"k", b"v")), Answer::Stored { .. }));
    }
}

/// A key that is written between the raises of its partition's epoch has one actor still.
#[test]
fn a_raise_costs_a_busy_key_no_actor() {
    let mut cluster = Cluster::with_options(3, 1, reaping);
    let (key, nodes) = key_and_nodes(&cluster);
    let client = cluster.client((nodes[0], 0));
    let partition = cluster.shards[&(0, 0)].place(&key).partition;
    let keys = (0..10_000u32).map(u32::to_le_bytes);
    let beside: Vec<[u8; 4]> =
        keys.filter(|other| cluster.shards[&(0, 0)].place(other).partition == partition).take(6).collect();
    for other in &beside {
        let write = Put { overwrite: true, ..put(&key, b"v") };
        assert!(matches!(cluster.put(client, write), Answer::Stored { .. }));
        assert!(matches!(cluster.put(client, delete(other)), Answer::Stored { .. }));
        cluster.run(Duration::from_secs(2));
        assert!(!holds(&cluster, nodes[0], other), "it was reaped");
    }
    let shard = &cluster.shards[&(nodes[0], 0)];
    let place = shard.place(&key);
    let entry = shard.replica().index().find(place.partition, place.token, &key).unwrap();
    assert_eq!(entry.state.clock().len(), 1);
}

/// A source that puts keys out while they are streamed from it says which are gone: nobody waits for them.
#[test]
fn a_stream_from_a_node_that_evicts_ends() {
    let mut cluster = Cluster::with_options(3, 1, bounded);
    let client = cluster.client((0, 0));
    for number in 0..150u32 {
        let stored = cluster.put(client, Put { write: 3, ..put(&number.to_le_bytes(), &[7; 4000]) });
        assert!(matches!(stored, Answer::Stored { .. }));
    }
    cluster.kill(2);
    cluster.start(2);
    // Before it hears what of its list is asked for, the source puts all of it out.
    cluster.pauses_at = Some(Kind::PULL_REQUEST);
    cluster.run(Duration::from_secs(1));
    let source = *cluster.paused.first().expect("it was asked for its copies");
    put_everything_out(&mut cluster, source);
    cluster.paused.clear();
    cluster.run(Duration::from_millis(900));
    assert!(cluster.shards[&(2, 0)].view().myself().oneself.lacking.is_empty(), "it counts for reads again");
    assert!(counter(&cluster, source, "evictions") > 100);
    let left = cluster.shards[&(1 - source, 0)].replica().keys();
    assert_eq!(cluster.shards[&(2, 0)].replica().keys(), left, "the other source has them still");
}

/// What could not stay beside what can't be put out is refused, and not acknowledged and put out in one turn.
#[test]
fn nothing_is_acknowledged_that_could_not_stay() {
    let mut cluster = Cluster::with_options(1, 1, bounded);
    let client = cluster.client((0, 0));
    let (mut stored, mut refused) = (0, 0);
    for step in 0..100 {
        cluster.handle((0, 0), Input::Buffered { bytes: LIMIT / 100 * step });
        for number in 0..5u32 {
            let key = (step as u32 * 100 + number).to_le_bytes();
            match cluster.put(client, put(&key, &[7; 200])) {
                Answer::Stored { .. } => {
                    stored += 1;
                    assert_eq!(cluster.get(client, get(&key)).values(), [[7; 200]], "{step}");
                }
                answer => {
                    refused += 1;
                    assert_eq!(answer.code(), Some(ErrorCode::Overloaded));
                }
            }
        }
    }
    assert!(stored > 200 && refused > 20, "{stored} {refused}");
}

/// Values that wait in batches for others are within the limit, wherever they come from.
#[test]
fn what_batches_are_answered_by_other_nodes_is_within_the_limit() {
    let mut cluster = Cluster::with_options(5, 1, |options| {
        bounded(options);
        options.hint_bytes_max = 0;
    });
    let client = cluster.client((0, 0));
    let keys = (0..200u32).map(u32::to_le_bytes);
    let far: Vec<[u8; 4]> = keys
        .filter(|key| !cluster.shards[&(0, 0)].view().owns(cluster.shards[&(0, 0)].place(key).partition))
        .collect();
    let far = &far[..20];
    for key in far {
        assert!(matches!(cluster.put(client, put(key, &[7; 16 << 10])), Answer::Stored { .. }));
    }
    let place = |cluster: &Cluster, key: &[u8]| cluster.shards[&(0, 0)].place(key).partition;
    let owner =
        |cluster: &Cluster, key: &[u8]| cluster.shards[&(0, 0)].view().primaries(place(cluster, key))[0];
    // Each batch ends with a key whose coordinator is silent.
    let silent = owner(&cluster, &far[0]);
    let node = (0..5).find(|node| cluster.shards[&(*node, 0)].view().me == silent).unwrap();
    cluster.paused.insert(node);
    let answered: Vec<[u8; 4]> = far.iter().copied().filter(|key| owner(&cluster, key) != silent).collect();
    for number in 0..40 {
        let mut writer = MultiWriter::default();
        for key in answered.iter().cycle().skip(number).take(7).chain([&far[0]]) {
            get(key).encode(&mut Encoder::default(), u64::from(writer.count), Flags::NONE, &mut writer.items);
            writer.count += 1;
        }
        let mut bytes = Vec::new();
        writer.encode(&mut Encoder::default(), Kind::MULTI_GET, Flags::NONE, 9, 0, &mut bytes);
        cluster.send(client, &bytes);
        check_limit(&cluster);
    }
    let held = cluster.shards[&(0, 0)].memory().requests;
    assert!(held > LIMIT / 4, "{held}");
}

/// Reads and what is passed on go on where memory is full of what can't be put out.
#[test]
fn a_full_node_reads_still() {
    let mut cluster = Cluster::with_options(5, 1, |options| {
        bounded(options);
        options.hint_bytes_max = 0;
    });
    let client = cluster.client((0, 0));
    for number in 0..20u32 {
        assert!(matches!(cluster.put(client, put(&number.to_le_bytes(), b"v")), Answer::Stored { .. }));
    }
    for node in 0..5 {
        put_everything_out(&mut cluster, node);
        let shard = &cluster.shards[&(node, 0)];
        let others = shard.memory().total() - shard.memory.buffers();
        cluster.handle((node, 0), Input::Buffered { bytes: LIMIT - LIMIT / 64 + 1024 - others });
    }
    for number in 0..200u32 {
        let read = cluster.get(client, get(&number.to_le_bytes()));
        assert_eq!(read.code(), Some(ErrorCode::NotFound), "{number}");
        check_limit(&cluster);
    }
    assert_eq!(cluster.put(client, put(b"k", b"v")).code(), Some(ErrorCode::Overloaded));
}

/// A cache of small keys takes large values: as many keys go as need to.
#[test]
fn large_values_drive_out_as_many_small_ones_as_they_need() {
    let mut cluster = Cluster::with_options(1, 1, |options| {
        bounded(options);
        (options.memory_max, options.value_bytes_max) = (8 << 20, 256 << 10);
    });
    let client = cluster.client((0, 0));
    for number in 0..40_000u32 {
        assert!(matches!(cluster.put(client, put(&number.to_le_bytes(), b"v")), Answer::Stored { .. }));
    }
    assert!(counter(&cluster, 0, "evictions") > 1000);
    for number in 0..20u32 {
        let stored = cluster.put(client, put(&[b'l', number as u8], &vec![7; 256 << 10]));
        assert!(matches!(stored, Answer::Stored { .. }), "{number}: {stored:?}");
    }
}

/// Who is full of what can't be put out takes no values, and nobody keeps them for it: else no tombstone could be forgotten, and it
/// would stay full.
#[test]
fn hints_for_a_full_node_do_not_keep_it_full() {
    let mut cluster = Cluster::with_options(5, 1, |options| {
        bounded(options);
        options.reap = Some(EVERY);
    });
    let (key, nodes) = key_and_nodes(&cluster);
    let partition = cluster.shards[&(0, 0)].place(&key).partition;
    let keys = (0..10_000u32).map(u32::to_le_bytes);
    let beside: Vec<[u8; 4]> =
        keys.filter(|other| cluster.shards[&(0, 0)].place(other).partition == partition).take(40).collect();
    let client = cluster.client((nodes[0], 0));
    let full = nodes[2];
    // Before that it was cut off, and hints are kept for it.
    isolate(&mut cluster, &[full]);
    cluster.run(Duration::from_secs(3));
    for key in &beside[..10] {
        assert!(matches!(
            cluster.put(client, Put { write: 3, ..put(key, &[7; 2000]) }),
            Answer::Stored { .. }
        ));
    }
    assert!(cluster.shards.values().any(|shard| !shard.hints().is_empty()));
    let shard = &cluster.shards[&(full, 0)];
    let (others, at_rest) = (shard.memory().total() - shard.memory.buffers(), shard.at_rest());
    cluster.handle((full, 0), Input::Buffered { bytes: at_rest + (8 << 10) - others });
    cluster.cut.clear();
    cluster.run(Duration::from_secs(5));
    for key in &beside[10..30] {
        let stored = cluster.put(client, put(key, &[7; 2000]));
        assert!(matches!(stored, Answer::Stored { .. }), "two of three have room: {stored:?}");
    }
    for key in &beside[30..] {
        assert!(matches!(cluster.put(client, delete(key)), Answer::Stored { .. }));
    }
    cluster.run(Duration::from_secs(10));
    assert!(counter(&cluster, full, "memory_declined") > 0);
    let kept: usize = cluster.shards.values().map(|shard| usize::from(!shard.hints().is_empty())).sum();
    assert_eq!(kept, 0, "nothing is kept for who is there");
    for key in &beside[30..] {
        assert!((0..5).all(|node| !holds(&cluster, node, key)), "it was reaped");
    }
    cluster.nobody_owes_an_answer();
}

/// A burst that is over doesn't keep a node's copies apart from the others' for good.
#[test]
fn a_mark_ends_when_there_has_been_room_for_long() {
    let mut cluster = Cluster::with_options(3, 1, bounded);
    let client = cluster.client((0, 0));
    assert!(matches!(cluster.put(client, Put { write: 3, ..put(b"k", b"v") }), Answer::Stored { .. }));
    put_everything_out(&mut cluster, 2);
    cluster.run(Duration::from_secs(5));
    assert!(!holds(&cluster, 2, b"k") && counter(&cluster, 2, "partitions_evicted") == 1);
    cluster.act((2, 0), |shard, now, _| {
        let later = Now { monotonic: now.monotonic + Duration::from_secs(3590), ..now };
        shard.tend_memory(later);
        assert_eq!(shard.evictions.partitions(), 1);
        let later = Now { monotonic: now.monotonic + Duration::from_secs(3601), ..now };
        shard.tend_memory(later);
    });
    cluster.run(Duration::from_secs(5));
    assert!(holds(&cluster, 2, b"k"), "anti-entropy finds what it lacks");
}
