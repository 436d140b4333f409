//! Whole clusters of shards on one thread.

mod anti_entropy;
mod changes;
mod cluster;
mod cold;
mod departed;
mod eviction;
mod expiry;
mod fallbacks;
mod full;
mod heirs;
mod lives;
mod reaping;
mod regroup;
mod stories;
mod suspicion;
mod versions;
mod zones;

use ringmain_schema::message::{ErrorCode, Get, Multi, MultiWriter, Put};
use ringmain_schema::{Encoder, Flags, Frame, Kind};

use crate::shard::io::Machine;
use crate::time::Duration;
use cluster::{Answer, Cluster, get, put, read_answer};

#[test]
fn a_cluster_of_one_serves_at_once() {
    let mut cluster = Cluster::new(1, 1);
    let client = cluster.client((0, 0));
    assert_eq!(cluster.get(client, get(b"k")).code(), Some(ErrorCode::NotFound));
    let stored = cluster.put(client, put(b"k", b"v"));
    assert!(matches!(stored, Answer::Stored { nodes: 1, .. }));
    assert_eq!(cluster.get(client, get(b"k")).values(), [b"v"]);
}

#[test]
fn three_nodes_meet_and_a_put_is_on_a_majority() {
    let mut cluster = Cluster::new(3, 1);
    let client = cluster.client((0, 0));
    let stored = cluster.put(client, put(b"k", b"v"));
    assert!(matches!(stored, Answer::Stored { nodes: 2.., .. }), "{stored:?}");
    for node in 0..3 {
        let client = cluster.client((node, 0));
        assert_eq!(cluster.get(client, Get { read: 3, ..get(b"k") }).values(), [b"v"]);
    }
}

/// Every shard of every node leads to the owner, also through the ordinary port that led astray.
#[test]
fn any_shard_answers_for_any_key() {
    let mut cluster = Cluster::new(5, 3);
    for number in 0..60u8 {
        let key = [b'k', number];
        let writer = cluster.client((usize::from(number) % 5, u16::from(number) % 3));
        assert!(matches!(cluster.put(writer, put(&key, &key)), Answer::Stored { .. }), "key {number}");
        let reader = cluster.client((usize::from(number + 1) % 5, u16::from(number / 5) % 3));
        let answer = cluster.get(reader, get(&key));
        assert_eq!(answer.values(), [key], "key {number}: {answer:?}");
    }
}

#[test]
fn a_direct_request_to_the_wrong_shard_is_told_so() {
    let mut cluster = Cluster::new(1, 2);
    let wrong = 1 - cluster.owner_at(0, b"k").1;
    let client = cluster.client((0, wrong));
    let mut bytes = Vec::new();
    get(b"k").encode(&mut Encoder::default(), 7, Flags::DIRECT, &mut bytes);
    cluster.send(client, &bytes);
    assert_eq!(cluster.answer(client).code(), Some(ErrorCode::WrongShard));
    let forwarded = cluster.put(client, put(b"k", b"v"));
    assert!(matches!(forwarded, Answer::Stored { .. }));
    assert!(matches!(cluster.get(client, get(b"k")), Answer::Got { forwarded: true, .. }));
}

/// The paper's §4.4: a put that reached A and B, another that reached B and C; A and C know both.
#[test]
fn two_coordinators_make_siblings_and_a_merge_leaves_one() {
    let mut cluster = Cluster::new(3, 1);
    let [a, b, c] = [0, 1, 2].map(|node| cluster.client((node, 0)));
    cluster.cut.extend([(0, 2), (2, 0)]);
    assert!(matches!(cluster.put(a, put(b"cart", b"milk")), Answer::Stored { nodes: 2, .. }));
    assert!(matches!(cluster.put(c, put(b"cart", b"bread")), Answer::Stored { nodes: 2, .. }));
    cluster.cut.clear();
    let both = cluster.get(a, Get { read: 3, ..get(b"cart") });
    let mut values = both.values();
    values.sort_unstable();
    assert_eq!(values, [&b"bread"[..], b"milk"]);
    let merged = Put { context: both.context(), ..put(b"cart", b"bread, milk") };
    assert!(matches!(cluster.put(b, merged), Answer::Stored { .. }));
    for client in [a, b, c] {
        assert_eq!(cluster.get(client, get(b"cart")).values(), [b"bread, milk"]);
    }
}

#[test]
fn what_a_delete_saw_does_not_come_back_and_what_it_did_not_see_stays() {
    let mut cluster = Cluster::new(3, 1);
    let client = cluster.client((0, 0));
    cluster.put(client, put(b"k", b"old"));
    let seen = cluster.get(client, get(b"k"));
    cluster.put(client, put(b"k", b"new"));
    let delete = Put { value: None, context: seen.context(), ..put(b"k", b"") };
    assert!(matches!(cluster.put(client, delete), Answer::Stored { .. }));
    assert_eq!(cluster.get(client, get(b"k")).values(), [b"new"]);
    let delete = Put { value: None, overwrite: true, ..put(b"k", b"") };
    cluster.put(client, delete);
    let gone = cluster.get(client, Get { read: 3, ..get(b"k") });
    assert_eq!(gone.code(), Some(ErrorCode::NotFound));
    assert!(!gone.context().is_empty(), "a put after a delete can say what it replaces");
}

#[test]
fn a_dead_node_costs_what_its_quorum_says() {
    let mut cluster = Cluster::new(3, 1);
    let client = cluster.client((0, 0));
    cluster.put(client, Put { write: 3, ..put(b"k", b"v") });
    cluster.kill(2);
    assert!(matches!(cluster.put(client, put(b"k", b"w")), Answer::Stored { nodes: 2, .. }));
    assert_eq!(cluster.put(client, Put { write: 3, ..put(b"k", b"x") }).code(), Some(ErrorCode::Unavailable));
    assert_eq!(cluster.get(client, Get { read: 3, ..get(b"k") }).code(), Some(ErrorCode::Unavailable));
    assert_eq!(cluster.get(client, Get { read: 2, ..get(b"k") }).values().len(), 2);
}

/// P8: the write reached its coordinator and nobody else; that it failed would be a lie.
#[test]
fn a_silent_replica_makes_a_write_maybe_applied_and_then_suspected() {
    let mut cluster = Cluster::new(3, 1);
    let client = cluster.client((0, 0));
    cluster.cut.extend([(0, 1), (0, 2)]);
    let maybe = cluster.put(client, Put { budget_us: 100_000, ..put(b"k", b"v") });
    assert_eq!(maybe, Answer::Error { code: ErrorCode::MaybeApplied, acks: 1, context: vec![] });
    cluster.run(Duration::from_secs(2));
    assert_eq!(cluster.put(client, put(b"k", b"w")).code(), Some(ErrorCode::Unavailable));
    cluster.cut.clear();
    cluster.run(Duration::from_secs(2));
    assert!(matches!(cluster.put(client, put(b"k", b"x")), Answer::Stored { nodes: 2, .. }));
}

/// P9: the copies on a node that restarted are gone; its silence must not be taken for absence.
#[test]
fn a_node_that_restarted_empty_does_not_say_not_found() {
    let mut cluster = Cluster::new(3, 1);
    let client = cluster.client((1, 0));
    cluster.cut.extend([(1, 2)]);
    assert!(matches!(cluster.put(client, put(b"k", b"v")), Answer::Stored { nodes: 2, .. }));
    cluster.kill(0);
    cluster.cut.clear();
    cluster.run(Duration::from_secs(1));
    cluster.start(0);
    cluster.run(Duration::from_secs(5));
    for node in 0..3 {
        let client = cluster.client((node, 0));
        let answer = cluster.get(client, get(b"k"));
        assert_eq!(answer.values(), [b"v"], "node {node}");
    }
}

#[test]
fn a_read_repairs_who_missed_the_write() {
    let mut cluster = Cluster::new(3, 1);
    let client = cluster.client((0, 0));
    cluster.cut.insert((0, 2));
    cluster.put(client, put(b"k", b"v"));
    cluster.cut.clear();
    cluster.get(client, get(b"k"));
    cluster.run(Duration::from_millis(200));
    assert_eq!(cluster.shards[&(2, 0)].replica().keys(), 1);
    // A repair that was never answered kept its connection from being let go.
    cluster.nobody_owes_an_answer();
}

/// A retry at another coordinator carries the same name: one value, not two.
#[test]
fn a_retry_applies_once() {
    let mut cluster = Cluster::new(3, 1);
    let named = Put { operation_client: 5, operation_sequence: 1, ..put(b"k", b"v") };
    for node in [0, 0, 1, 2] {
        let client = cluster.client((node, 0));
        assert!(matches!(cluster.put(client, named), Answer::Stored { .. }));
    }
    let client = cluster.client((0, 0));
    assert_eq!(cluster.get(client, Get { read: 3, ..get(b"k") }).values(), [b"v"]);
}

#[test]
fn a_batch_is_answered_item_by_item_from_all_shards() {
    let mut cluster = Cluster::new(4, 2);
    let client = cluster.client((0, 0));
    let batch = |kind, write: &dyn Fn(&mut Encoder, u64, &mut Vec<u8>)| {
        let mut writer = MultiWriter::default();
        for number in 0..50 {
            write(&mut Encoder::default(), number, &mut writer.items);
            writer.count += 1;
        }
        let mut bytes = Vec::new();
        writer.encode(&mut Encoder::default(), kind, Flags::NONE, 9, 0, &mut bytes);
        bytes
    };
    let key = |number: u64| format!("key {number}");
    let puts = batch(Kind::MULTI_PUT, &|encoder, number, out| {
        put(key(number).as_bytes(), b"v").encode(encoder, number, Flags::NONE, out);
    });
    let gets = batch(Kind::MULTI_GET, &|encoder, number, out| {
        get(key(number).as_bytes()).encode(encoder, number, Flags::NONE, out);
    });
    for (request, expected) in [(puts, Kind::STORED), (gets, Kind::GOT)] {
        cluster.send(client, &request);
        cluster.run(Duration::from_millis(5));
        let answer = cluster.receive(client).unwrap();
        let frame = Frame::split(&answer, answer.len()).unwrap().unwrap();
        assert_eq!((frame.header.kind, frame.header.request_id), (Kind::MULTI_DONE, 9));
        let multi = Multi::parse(&frame).unwrap();
        let mut ids: Vec<u64> = multi.items().map(|item| item.header.request_id).collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..50).collect::<Vec<_>>());
        assert!(multi.items().all(|item| item.header.kind == expected));
    }
    let mixed = batch(Kind::MULTI_GET, &|encoder, number, out| {
        put(key(number).as_bytes(), b"v").encode(encoder, number, Flags::NONE, out);
    });
    cluster.send(client, &mixed);
    let answer = cluster.receive(client).unwrap();
    let refused = read_answer(&Frame::split(&answer, answer.len()).unwrap().unwrap());
    assert_eq!(refused.code(), Some(ErrorCode::BadRequest));
}

/// A batch whose values don't fit in one answer gets some of them, from wherever they come, and advice for the rest.
#[test]
fn a_batch_gets_as_much_as_one_answer_holds() {
    const VALUE: usize = 256 << 10;
    let mut cluster = Cluster::with_options(4, 2, |options| options.value_bytes_max = VALUE as u32);
    let client = cluster.client((0, 0));
    let mut writer = MultiWriter::default();
    for number in 0..20 {
        let key = [b'k', number];
        assert!(matches!(cluster.put(client, put(&key, &[number; VALUE])), Answer::Stored { .. }));
        get(&key).encode(&mut Encoder::default(), number.into(), Flags::NONE, &mut writer.items);
        writer.count += 1;
    }
    let mut bytes = Vec::new();
    writer.encode(&mut Encoder::default(), Kind::MULTI_GET, Flags::NONE, 9, 0, &mut bytes);
    cluster.send(client, &bytes);
    cluster.run(Duration::from_millis(5));
    let answer = cluster.receive(client).unwrap();
    let limit = ringmain_schema::limits::state_bytes_max(VALUE as u32);
    let frame = Frame::split(&answer, limit).unwrap().unwrap();
    let answers: Vec<Answer> = Multi::parse(&frame).unwrap().items().map(|item| read_answer(&item)).collect();
    assert_eq!(answers.len(), 20);
    let refused = answers.iter().filter(|answer| answer.code() == Some(ErrorCode::TooLarge)).count();
    let whole =
        answers.iter().filter(|answer| answer.values().first().is_some_and(|v| v.len() == VALUE)).count();
    assert_eq!((whole, refused), (10, 10));
}

/// With a log, nothing is acknowledged before its record is on stable storage, here or there.
#[test]
fn a_durable_put_waits_for_its_records() {
    let mut cluster = Cluster::with_options(3, 1, |options| options.durable = true);
    let client = cluster.client((0, 0));
    let stored = cluster.put(client, Put { write: 3, ..put(b"k", b"v") });
    assert!(matches!(stored, Answer::Stored { nodes: 3, .. }), "{stored:?}");
    assert_eq!(cluster.get(client, get(b"k")).values(), [b"v"]);
}

#[test]
fn contexts_are_the_clusters_own_and_for_one_key() {
    let mut cluster = Cluster::new(1, 1);
    let client = cluster.client((0, 0));
    cluster.put(client, put(b"k", b"v"));
    let context = cluster.get(client, get(b"k")).context().to_vec();
    let foreign = cluster.put(client, Put { context: &context, ..put(b"other", b"w") });
    assert_eq!(foreign.code(), Some(ErrorCode::BadContext));
    let mut forged = context.clone();
    *forged.last_mut().unwrap() ^= 1;
    let forged = cluster.put(client, Put { context: &forged, ..put(b"k", b"w") });
    assert_eq!(forged.code(), Some(ErrorCode::BadContext));
    assert!(matches!(
        cluster.put(client, Put { context: &context, ..put(b"k", b"w") }),
        Answer::Stored { .. }
    ));
}

/// Every node is quiet again after a storm of requests: no operation, relay or batch is left behind.
#[test]
fn nothing_is_left_behind() {
    let mut cluster = Cluster::new(5, 2);
    for number in 0..200u8 {
        let client = cluster.client((usize::from(number) % 4, u16::from(number) % 2));
        match number % 3 {
            0 => drop(cluster.put(client, put(&[number % 7], b"v"))),
            1 => drop(cluster.get(client, get(&[number % 7]))),
            _ => drop(cluster.put(client, Put { overwrite: true, ..put(&[number % 7], b"w") })),
        }
        if number == 100 {
            cluster.kill(4);
        }
    }
    cluster.run(Duration::from_secs(1));
    for (at, shard) in &cluster.shards {
        assert!(shard.is_drained(), "{at:?}");
        assert!(shard.operations.is_empty() && shard.relays.is_empty() && shard.batches.is_empty());
        assert!(shard.deadlines.next().is_none(), "{at:?}");
        assert_eq!(shard.memory.requests, 0, "{at:?}");
        assert!(shard.relays_to.iter().all(|&under_way| under_way == 0));
    }
    cluster.owed.retain(|(at, _), _| at.0 != 4);
    cluster.nobody_owes_an_answer();
}
