//! Larger than memory: values that are on the disk alone (docs/adr/0022).

use ringmain_schema::message::{ErrorCode, Get, MultiWriter, Put};
use ringmain_schema::{Encoder, Flags, Kind};

use super::cluster::{Answer, Cluster, get, put};
use crate::causality::Content;
use crate::shard::{Input, Machine, ShardOptions};
use crate::storage::log::Range;
use crate::time::Duration;

const LIMIT: usize = 1 << 20;
const K: &[u8] = b"cart";

fn limited(options: &mut ShardOptions) {
    (options.memory_max, options.value_bytes_max) = (LIMIT, 16 << 10);
    (options.durable, options.anti_entropy, options.reap) = (true, None, None);
}

fn compared(options: &mut ShardOptions) {
    limited(options);
    options.anti_entropy = Some(Duration::from_millis(200));
}

fn counter(cluster: &Cluster, node: usize, name: &str) -> u64 {
    let status = cluster.shards[&(node, 0)].status(cluster.now.monotonic);
    status.counters.iter().find(|counter| counter.name == name).map(|counter| counter.value).unwrap()
}

/// All that is on the disk of this node is on the disk alone from now on.
fn cool(cluster: &mut Cluster, node: usize) {
    cluster.act((node, 0), |shard, _, _| while shard.evict_one() {});
}

fn is_cold(cluster: &Cluster, node: usize, key: &[u8]) -> bool {
    let shard = &cluster.shards[&(node, 0)];
    let place = shard.place(key);
    shard.replica().index().find(place.partition, place.token, key).unwrap().state.is_cold()
}

fn record_of(cluster: &Cluster, node: usize, key: &[u8]) -> u64 {
    let shard = &cluster.shards[&(node, 0)];
    shard.replica().appended(shard.place(key))
}

/// Nothing waits, and what is counted is what there is.
#[track_caller]
fn check_quiet(cluster: &mut Cluster) {
    cluster.run(Duration::from_secs(3));
    for (at, shard) in &cluster.shards {
        assert!(shard.is_drained(), "{at:?}");
        assert_eq!((shard.loads.len(), shard.loads.anew(), shard.loads.memory()), (0, 0, 0), "{at:?}");
        assert_eq!((shard.memory.requests, shard.deadlines.next()), (0, None), "{at:?}");
        let index = shard.replica().index();
        assert_eq!(index.counted(), index.recounted(), "{at:?}");
    }
    cluster.nobody_owes_an_answer();
}

#[track_caller]
fn check_limit(cluster: &Cluster) {
    for (at, shard) in &cluster.shards {
        let memory = shard.memory();
        assert!(memory.total() <= LIMIT, "{at:?} takes {}: {memory:?}", memory.total());
    }
}

fn value_of(number: u32) -> Vec<u8> {
    let mut value = vec![number as u8; 2100];
    value[..4].copy_from_slice(&number.to_le_bytes());
    value
}

/// Four times as much as there is memory for; all of it is there, before a restart and after it.
#[test]
fn more_is_held_than_memory_holds_and_nothing_is_lost() {
    let mut cluster = Cluster::with_options(1, 1, limited);
    let client = cluster.client((0, 0));
    for number in 0..2000u32 {
        let stored = cluster.put(client, put(&number.to_le_bytes(), &value_of(number)));
        assert!(matches!(stored, Answer::Stored { .. }), "{number}: {stored:?}");
        check_limit(&cluster);
    }
    for life in 0..2 {
        let shard = &cluster.shards[&(0, 0)];
        assert_eq!(shard.replica().keys(), 2000);
        assert!(shard.replica().bytes() > 3 * LIMIT && shard.replica().index().cold() > 1000, "life {life}");
        let client = cluster.client((0, 0));
        for number in (0..2000u32).step_by(7).chain((0..2000).step_by(11)) {
            let got = cluster.get(client, get(&number.to_le_bytes()));
            assert_eq!(got.values(), [value_of(number)], "{number} in life {life}: {got:?}");
            check_limit(&cluster);
        }
        assert!(counter(&cluster, 0, "cold_reads") > 300 && counter(&cluster, 0, "evictions") == 0);
        check_quiet(&mut cluster);
        cluster.kill(0);
        cluster.start(0);
        check_limit(&cluster);
        cluster.run(Duration::from_secs(5));
    }
}

#[test]
fn a_read_waits_for_the_disk_and_others_do_not() {
    let mut cluster = Cluster::with_options(1, 1, limited);
    let [client, other] = [0, 1].map(|_| cluster.client((0, 0)));
    cluster.put(client, put(K, b"milk"));
    cool(&mut cluster, 0);
    cluster.put(client, put(b"hot", b"here"));
    cluster.slow.insert(0);
    let mut bytes = Vec::new();
    get(K).encode(&mut Encoder::default(), 7, Flags::NONE, &mut bytes);
    cluster.send(client, &bytes);
    cluster.send(other, &bytes);
    assert_eq!((cluster.asked.len(), cluster.receive(client)), (1, None), "two who wait cost one read");
    assert_eq!(cluster.get(other, get(b"hot")).values(), [b"here"], "nobody stands still for it");
    cluster.read();
    assert_eq!(cluster.answer(client).values(), [b"milk"]);
    assert_eq!(cluster.answer(other).values(), [b"milk"]);
    assert!(!is_cold(&cluster, 0, K));
    assert_eq!(cluster.get(client, get(K)).values(), [b"milk"]);
    assert_eq!(counter(&cluster, 0, "cold_reads"), 1);
    check_quiet(&mut cluster);
}

#[test]
fn a_read_whose_disk_takes_too_long_times_out() {
    let mut cluster = Cluster::with_options(1, 1, limited);
    let client = cluster.client((0, 0));
    cluster.put(client, put(K, b"milk"));
    cool(&mut cluster, 0);
    cluster.slow.insert(0);
    assert_eq!(cluster.get(client, get(K)).code(), Some(ErrorCode::Timeout));
    let blind = Put { budget_us: 10_000, ..put(K, b"bread") };
    let late = cluster.put(client, blind);
    assert_eq!(
        late.code(),
        Some(ErrorCode::Unavailable),
        "a sibling is to stay, which can't be read in time"
    );
    cluster.slow.clear();
    cluster.read();
    assert_eq!(cluster.get(client, get(K)).values(), [b"milk"], "what came too late was not written");
    check_quiet(&mut cluster);
}

#[test]
fn what_replaces_all_needs_no_read_and_what_leaves_some_does() {
    let mut cluster = Cluster::with_options(1, 1, limited);
    let client = cluster.client((0, 0));
    cluster.put(client, put(K, b"milk"));
    let seen = cluster.get(client, get(K));
    cool(&mut cluster, 0);
    assert!(matches!(
        cluster.put(client, Put { context: seen.context(), ..put(K, b"bread") }),
        Answer::Stored { .. }
    ));
    cool(&mut cluster, 0);
    assert!(matches!(cluster.put(client, Put { overwrite: true, ..put(K, b"eggs") }), Answer::Stored { .. }));
    assert_eq!(counter(&cluster, 0, "cold_reads"), 0);
    cool(&mut cluster, 0);
    assert!(matches!(cluster.put(client, put(K, b"salt")), Answer::Stored { .. }));
    assert_eq!(counter(&cluster, 0, "cold_reads"), 1);
    cool(&mut cluster, 0);
    let both = cluster.get(client, get(K));
    let mut values = both.values();
    values.sort_unstable();
    assert_eq!(values, [&b"eggs"[..], b"salt"]);
    cool(&mut cluster, 0);
    let delete = Put { value: None, context: both.context(), ..put(K, b"") };
    assert!(matches!(cluster.put(client, delete), Answer::Stored { .. }));
    assert_eq!((counter(&cluster, 0, "cold_reads"), counter(&cluster, 0, "values_cold")), (2, 0));
    assert_eq!(cluster.get(client, get(K)).code(), Some(ErrorCode::NotFound));
    check_quiet(&mut cluster);
}

/// P8: the write is known although its value is not here.
#[test]
fn a_retry_of_what_is_cold_is_recognised() {
    let mut cluster = Cluster::with_options(3, 1, limited);
    let client = cluster.client((0, 0));
    let named = Put { operation_client: 5, operation_sequence: 1, write: 3, ..put(K, b"milk") };
    for _ in 0..3 {
        assert!(matches!(cluster.put(client, named), Answer::Stored { .. }));
        (0..3).for_each(|node| cool(&mut cluster, node));
    }
    assert_eq!(cluster.get(client, Get { read: 3, ..get(K) }).values(), [b"milk"]);
    check_quiet(&mut cluster);
}

/// The key is written, deleted, or cold again under another record, while it is read.
#[test]
fn an_answer_that_comes_too_late_changes_nothing() {
    let mut cluster = Cluster::with_options(1, 1, limited);
    let [client, other] = [0, 1].map(|_| cluster.client((0, 0)));
    cluster.put(client, put(K, b"milk"));
    cool(&mut cluster, 0);
    cluster.slow.insert(0);
    let mut bytes = Vec::new();
    get(K).encode(&mut Encoder::default(), 7, Flags::NONE, &mut bytes);
    cluster.send(client, &bytes);
    assert!(matches!(cluster.put(other, Put { overwrite: true, ..put(K, b"bread") }), Answer::Stored { .. }));
    cluster.read();
    assert_eq!(cluster.answer(client).values(), [b"bread"]);
    cool(&mut cluster, 0);
    cluster.send(client, &bytes);
    cluster.put(other, Put { overwrite: true, ..put(K, b"eggs") });
    cool(&mut cluster, 0);
    cluster.read();
    assert_eq!((cluster.receive(client), cluster.asked.len()), (None, 1), "another record has it now");
    cluster.read();
    assert_eq!(cluster.answer(client).values(), [b"eggs"]);
    cool(&mut cluster, 0);
    cluster.send(client, &bytes);
    cluster.put(other, Put { value: None, overwrite: true, ..put(K, b"") });
    cluster.read();
    assert_eq!(cluster.answer(client).code(), Some(ErrorCode::NotFound));
    check_quiet(&mut cluster);
}

/// Others' states meet cold ones: the values that stay are read, and no others.
#[test]
fn siblings_meet_though_one_is_cold() {
    let mut cluster = Cluster::with_options(3, 1, limited);
    let [a, b, c] = [0, 1, 2].map(|node| cluster.client((node, 0)));
    cluster.cut.extend([(0, 2), (2, 0)]);
    assert!(matches!(cluster.put(a, put(K, b"milk")), Answer::Stored { nodes: 2, .. }));
    cool(&mut cluster, 1);
    assert!(matches!(cluster.put(c, put(K, b"bread")), Answer::Stored { nodes: 2, .. }));
    assert_eq!(counter(&cluster, 1, "cold_reads"), 1);
    cluster.cut.clear();
    (0..3).for_each(|node| cool(&mut cluster, node));
    let both = cluster.get(a, Get { read: 3, ..get(K) });
    let mut values = both.values();
    values.sort_unstable();
    assert_eq!(values, [&b"bread"[..], b"milk"]);
    cluster.run(Duration::from_secs(1));
    (0..3).for_each(|node| cool(&mut cluster, node));
    let before: u64 = (0..3).map(|node| counter(&cluster, node, "cold_reads")).sum();
    let merged = Put { context: both.context(), write: 3, ..put(K, b"bread, milk") };
    assert!(matches!(cluster.put(b, merged), Answer::Stored { nodes: 3, .. }));
    let after: u64 = (0..3).map(|node| counter(&cluster, node, "cold_reads")).sum();
    assert_eq!(before, after, "what replaces all is merged at once");
    for client in [a, b, c] {
        assert_eq!(cluster.get(client, get(K)).values(), [b"bread, milk"]);
    }
    check_quiet(&mut cluster);
}

/// One node missed what the others have, and have on their disks alone.
#[test]
fn what_is_cold_is_exchanged_and_repaired() {
    let mut cluster = Cluster::with_options(3, 1, compared);
    let client = cluster.client((0, 0));
    cluster.cut.extend([(0, 2), (2, 0), (1, 2), (2, 1)]);
    for number in 0..300u32 {
        assert!(matches!(
            cluster.put(client, put(&number.to_le_bytes(), &value_of(number))),
            Answer::Stored { .. }
        ));
    }
    [0, 1].into_iter().for_each(|node| cool(&mut cluster, node));
    cluster.cut.clear();
    cluster.run(Duration::from_secs(8));
    let keys = |node| cluster.shards[&(node, 0)].replica().keys();
    assert_eq!([0, 1, 2].map(keys), [300; 3]);
    let roots = |node| -> Vec<u64> {
        (0..16).map(|at| cluster.shards[&(node, 0)].trees().root(crate::id::PartitionId(at))).collect()
    };
    assert_eq!((roots(0), roots(1)), (roots(2), roots(2)));
    assert!(counter(&cluster, 0, "cold_reads") + counter(&cluster, 1, "cold_reads") >= 300);
}

/// What a compaction finds cold it reads and appends, and leaves as it was.
#[test]
fn a_compaction_reads_what_is_cold_and_lets_it_go_again() {
    let mut cluster = Cluster::with_options(1, 1, limited);
    let client = cluster.client((0, 0));
    for number in 0..200u32 {
        cluster.put(client, put(&number.to_le_bytes(), &value_of(number)));
    }
    cool(&mut cluster, 0);
    let last = cluster.logs[&(0, 0)].len() as u64;
    cluster.slow.insert(0);
    let range = Range { first: 1, last };
    cluster.handle((0, 0), Input::Compact(range));
    assert!(!cluster.asked.is_empty() && cluster.asked.len() <= 64, "{} at a time", cluster.asked.len());
    // While one of them is read it is written.
    let written = (0..200u32).find(|number| {
        cluster.asked.iter().any(|(_, at)| *at == record_of(&cluster, 0, &number.to_le_bytes()))
    });
    let written = written.unwrap();
    let key = written.to_le_bytes();
    let anew = Put { overwrite: true, ..put(&key, b"new") };
    assert!(matches!(cluster.put(client, anew), Answer::Stored { .. }));
    let mut reads = 0;
    for _ in 0..200 {
        reads += cluster.asked.len();
        cluster.read();
        cluster.run(Duration::from_millis(12));
    }
    assert_eq!((counter(&cluster, 0, "compactions"), reads), (1, 200));
    for number in 0..200u32 {
        let key = number.to_le_bytes();
        assert!(!range.contains(record_of(&cluster, 0, &key)), "{number}");
        assert_eq!(is_cold(&cluster, 0, &key), number != written, "{number}");
    }
    cluster.slow.clear();
    for number in 0..200u32 {
        let got = cluster.get(client, get(&number.to_le_bytes()));
        let expected = if number == written { b"new".to_vec() } else { value_of(number) };
        assert_eq!(got.values(), [expected], "{number}");
    }
    check_quiet(&mut cluster);
    cluster.kill(0);
    cluster.start(0);
    cluster.run(Duration::from_secs(5));
    let client = cluster.client((0, 0));
    assert_eq!(cluster.get(client, get(&3u32.to_le_bytes())).values().len(), 1);
}

/// What was appended anew by a compaction, and let go, is read when it is on the disk, and not before.
#[test]
fn what_is_not_on_the_disk_yet_is_not_read() {
    let mut cluster = Cluster::with_options(1, 1, limited);
    let client = cluster.client((0, 0));
    cluster.put(client, put(K, b"milk"));
    cool(&mut cluster, 0);
    let last = cluster.logs[&(0, 0)].len() as u64;
    cluster.unsynced.insert(0);
    cluster.handle((0, 0), Input::Compact(Range { first: 1, last }));
    cluster.run(Duration::from_millis(20));
    assert!(record_of(&cluster, 0, K) > last && is_cold(&cluster, 0, K));
    let mut bytes = Vec::new();
    get(K).encode(&mut Encoder::default(), 7, Flags::NONE, &mut bytes);
    cluster.send(client, &bytes);
    cluster.run(Duration::from_millis(20));
    assert_eq!((cluster.receive(client), counter(&cluster, 0, "cold_reads_waiting")), (None, 1));
    cluster.sync(0);
    assert_eq!(cluster.answer(client).values(), [b"milk"]);
    // And what is not on the disk is not let go.
    cluster.unsynced.insert(0);
    cluster.send_put(client, Put { overwrite: true, ..put(K, b"bread") });
    cool(&mut cluster, 0);
    assert!(!is_cold(&cluster, 0, K));
    cluster.sync(0);
    assert!(matches!(cluster.answer(client), Answer::Stored { .. }));
}

/// A record is damaged: its key is forgotten here, and comes back from the others.
#[test]
fn what_can_not_be_read_comes_back_from_the_others() {
    let mut cluster = Cluster::with_options(3, 1, compared);
    let client = cluster.client((0, 0));
    for number in 0..20u32 {
        cluster.put(client, Put { write: 3, ..put(&number.to_le_bytes(), &value_of(number)) });
    }
    cool(&mut cluster, 0);
    let key = 7u32.to_le_bytes();
    cluster.unreadable.insert(((0, 0), record_of(&cluster, 0, &key)));
    let got = cluster.get(client, Get { read: 2, ..get(&key) });
    assert_eq!(got.values(), [value_of(7)], "the others have it: {got:?}");
    assert_eq!(counter(&cluster, 0, "cold_read_errors"), 1);
    assert!(
        cluster.notes.iter().any(|(node, note)| *node == 0 && note.contains("can't be read")),
        "{:?}",
        cluster.notes
    );
    cluster.run(Duration::from_secs(8));
    let shard = &cluster.shards[&(0, 0)];
    let place = shard.place(&key);
    let entry =
        shard.replica().index().find(place.partition, place.token, &key).expect("it was streamed again");
    assert!(
        entry
            .state
            .versions()
            .iter()
            .all(|version| matches!(&version.content, Content::Value(value) if **value == *value_of(7)))
    );
    assert!(shard.holds_all(place.partition));
    let got = cluster.get(client, Get { read: 3, ..get(&key) });
    assert_eq!(got.values(), [value_of(7)]);
    // The record that was damaged says nothing after a restart.
    cluster.kill(0);
    cluster.start(0);
    cluster.run(Duration::from_secs(5));
    assert_eq!(cluster.shards[&(0, 0)].replica().keys(), 20);
}

/// Alone there is nobody to ask: a write that would leave what can't be read is refused, and the node says so.
#[test]
fn alone_what_can_not_be_read_is_lost_and_that_is_said() {
    let mut cluster = Cluster::with_options(1, 1, limited);
    let client = cluster.client((0, 0));
    cluster.put(client, put(K, b"milk"));
    cool(&mut cluster, 0);
    cluster.unreadable.insert(((0, 0), record_of(&cluster, 0, K)));
    let refused = cluster.put(client, put(K, b"bread"));
    assert_eq!(refused.code(), Some(ErrorCode::Unavailable), "nothing was written: {refused:?}");
    assert_eq!(counter(&cluster, 0, "cold_read_errors"), 1);
    assert!(matches!(cluster.put(client, put(K, b"bread")), Answer::Stored { .. }), "it may be written anew");
}

/// Keys and clocks stay in memory: when they fill it, new ones are refused, and what is here can be read, written and deleted.
#[test]
fn keys_that_fill_the_memory_are_refused_clearly() {
    let mut cluster = Cluster::with_options(1, 1, limited);
    let client = cluster.client((0, 0));
    let mut refused = None;
    for number in 0..20_000u32 {
        let answer = cluster.put(client, put(&number.to_le_bytes(), b"some value"));
        check_limit(&cluster);
        if answer.code() == Some(ErrorCode::Overloaded) {
            refused = Some(number);
            break;
        }
    }
    let refused = refused.expect("they don't fit");
    assert!(refused > 1000, "{refused}");
    assert_eq!(cluster.get(client, get(&5u32.to_le_bytes())).values(), [b"some value"]);
    let delete = Put { value: None, overwrite: true, ..put(b"", b"") };
    let key = 5u32.to_le_bytes();
    assert!(matches!(cluster.put(client, Put { key: &key, ..delete }), Answer::Stored { .. }));
    check_limit(&cluster);
}

/// Many large values in one batch, none of which is here.
#[test]
fn a_batch_of_cold_values_is_answered_item_by_item() {
    let mut cluster = Cluster::with_options(1, 1, limited);
    let client = cluster.client((0, 0));
    let mut writer = MultiWriter::default();
    for number in 0..30u32 {
        cluster.put(client, put(&number.to_le_bytes(), &value_of(number)));
        get(&number.to_le_bytes()).encode(
            &mut Encoder::default(),
            number.into(),
            Flags::NONE,
            &mut writer.items,
        );
        writer.count += 1;
    }
    cool(&mut cluster, 0);
    let mut bytes = Vec::new();
    writer.encode(&mut Encoder::default(), Kind::MULTI_GET, Flags::NONE, 9, 0, &mut bytes);
    cluster.send(client, &bytes);
    cluster.run(Duration::from_millis(5));
    let answer = cluster.receive(client).unwrap();
    let frame = ringmain_schema::Frame::split(&answer, answer.len()).unwrap().unwrap();
    let items = ringmain_schema::message::Multi::parse(&frame).unwrap();
    let mut found = 0;
    for item in items.items() {
        assert_eq!(super::read_answer(&item).values(), [value_of(item.header.request_id as u32)]);
        found += 1;
    }
    assert_eq!(found, 30);
    check_quiet(&mut cluster);
}

/// A write under way whose key was let go is still sent to who stands in.
#[test]
fn a_write_is_sent_on_though_its_value_was_let_go() {
    let mut cluster = Cluster::with_options(5, 1, limited);
    let client = cluster.client((0, 0));
    let (key, nodes) = super::fallbacks::key_and_nodes(&cluster);
    let first = nodes[0];
    let client = if first == 0 { client } else { cluster.client((first, 0)) };
    for other in &nodes[1..3] {
        cluster.cut.insert((first, *other));
    }
    cluster.send_put(client, Put { budget_us: 4_000_000, ..put(&key, b"milk") });
    cool(&mut cluster, first);
    assert!(is_cold(&cluster, first, &key));
    let stored = cluster.answer(client);
    assert!(matches!(stored, Answer::Stored { .. }), "somebody stood in: {stored:?}");
    assert!(counter(&cluster, first, "cold_reads") >= 1);
}
