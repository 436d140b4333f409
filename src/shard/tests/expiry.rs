//! What nobody reads expires too, on every node, whatever the clocks do.

use ringmain_schema::message::{ErrorCode, Put};

use super::cluster::{Answer, Cluster, get, put};
use crate::shard::ShardOptions;
use crate::shard::io::Machine;
use crate::time::{Duration, Instant};

const DAY_US: u64 = 86_400_000_000;

fn put_for(cluster: &mut Cluster, keys: std::ops::Range<u64>, ttl_ms: u64) {
    let client = cluster.client((0, 0));
    for key in keys {
        let key = key.to_be_bytes();
        let stored = cluster.put(client, Put { ttl_ms, write: 3, ..put(&key, b"fleeting") });
        assert!(matches!(stored, Answer::Stored { nodes: 3, .. }), "{stored:?}");
    }
}

/// Bytes of keys and values on each node; of a key that has expired there are those of the key.
fn bytes(cluster: &Cluster) -> Vec<usize> {
    cluster.shards.values().map(|shard| shard.replica().bytes()).collect()
}

#[test]
fn what_nobody_reads_is_gone_from_every_replica() {
    let mut cluster = Cluster::new(3, 1);
    put_for(&mut cluster, 0..100, 2000);
    assert_eq!(bytes(&cluster), [16 * 100; 3]);
    let roots = |cluster: &Cluster| -> Vec<_> {
        cluster.shards.values().map(|shard| shard.trees().clone()).collect()
    };
    let before = roots(&cluster);
    cluster.run(Duration::from_secs(3));
    assert_eq!(bytes(&cluster), [8 * 100; 3], "the keys of tombstones are left, and no value");
    assert_eq!(roots(&cluster), before, "nothing to be exchanged for it");
    let expired: u64 = cluster.shards.values().map(|shard| shard.counters.versions_expired).sum();
    assert_eq!(expired, 300);
    assert!(cluster.shards.values().all(|shard| shard.next_expiry().is_none()));
    let client = cluster.client((1, 0));
    let gone = cluster.get(client, get(&5u64.to_be_bytes()));
    assert_eq!((gone.code(), gone.context().is_empty()), (Some(ErrorCode::NotFound), false));
}

/// P14: a jump of the wall clock expires what its time has come for, and holds nobody up. What is put after a jump back expires
/// by the clock of then.
#[test]
fn a_wall_clock_that_jumps_holds_nobody_up() {
    let mut cluster = Cluster::new(3, 1);
    put_for(&mut cluster, 0..300, 30 * 86_400_000);
    put_for(&mut cluster, 300..310, 900 * 86_400_000);
    cluster.now.wall.0 += 400 * DAY_US;
    // It is noticed within a second, though nothing was to happen for a month.
    cluster.run(Duration::from_secs(3));
    assert_eq!(bytes(&cluster), [8 * 300 + 16 * 10; 3]);
    cluster.now.wall.0 -= 400 * DAY_US;
    put_for(&mut cluster, 400..410, 1000);
    cluster.run(Duration::from_secs(3));
    assert_eq!(bytes(&cluster), [8 * 310 + 16 * 10; 3], "a second is a second again");
    cluster.now.wall.0 += 901 * DAY_US;
    cluster.run(Duration::from_secs(3));
    assert_eq!(bytes(&cluster), [8 * 320; 3]);
}

/// Many keys of one time: each turn takes its steps, and clients are answered between.
#[test]
fn many_at_once_go_step_by_step() {
    let mut cluster = Cluster::new(1, 1);
    put_for_one(&mut cluster, 2000, 3_600_000);
    let shard = cluster.shards.get_mut(&(0, 0)).unwrap();
    let mut now = cluster.now;
    now.wall.0 += 10 * DAY_US;
    let mut turns = 0;
    while shard.next_expiry().is_some() {
        now.monotonic = now.monotonic.max(shard.next_expiry().unwrap_or(Instant(0)));
        let before = shard.counters.versions_expired;
        shard.tend_expiry(now);
        assert!(shard.counters.versions_expired - before <= 32, "more than a turn may");
        turns += 1;
        assert!(turns < 20_000, "it ends");
    }
    assert_eq!((shard.counters.versions_expired, shard.replica().bytes()), (2000, 8 * 2000));
    assert!(turns >= 2000 / 32);
}

fn put_for_one(cluster: &mut Cluster, keys: u64, ttl_ms: u64) {
    let client = cluster.client((0, 0));
    for key in 0..keys {
        let stored = cluster.put(client, Put { ttl_ms, ..put(&key.to_be_bytes(), b"fleeting") });
        assert!(matches!(stored, Answer::Stored { .. }), "{stored:?}");
    }
}

/// Nothing is appended for it: the record of the key says when it expires, and a restart reckons it anew.
#[test]
fn what_has_expired_is_expired_after_a_restart() {
    let durable = |options: &mut ShardOptions| options.durable = true;
    let mut cluster = Cluster::with_options(1, 1, durable);
    put_for_one(&mut cluster, 10, 1000);
    let records = cluster.logs[&(0, 0)].len();
    cluster.run(Duration::from_secs(2));
    assert_eq!(bytes(&cluster), [8 * 10]);
    assert_eq!(cluster.logs[&(0, 0)].len(), records, "nothing was appended");
    cluster.kill(0);
    cluster.start(0);
    cluster.run(Duration::from_secs(2));
    assert_eq!(bytes(&cluster), [8 * 10]);
    assert!(cluster.shards.values().all(Machine::is_drained));
}

/// What status tells of memory goes up with what is put, and down with what expires.
#[test]
fn memory_follows_what_is_held() {
    let mut cluster = Cluster::new(1, 1);
    let memory = |cluster: &Cluster| cluster.shards[&(0, 0)].memory();
    let empty = memory(&cluster);
    let client = cluster.client((0, 0));
    let value = vec![1; 100_000];
    for key in 0..20u64 {
        cluster.put(client, Put { ttl_ms: 1000, ..put(&key.to_be_bytes(), &value) });
    }
    let full = memory(&cluster);
    assert!(full.index >= empty.index + 20 * 100_000, "{full:?}");
    assert!(full.total() >= full.index + full.trees + full.buffers);
    cluster.run(Duration::from_secs(2));
    let after = memory(&cluster);
    assert!(after.index < empty.index + 64 * 1024, "{after:?}");
    assert_eq!(cluster.shards[&(0, 0)].memory.requests, 0, "nobody waits for anything");
    cluster.handle((0, 0), crate::shard::Input::Buffered { bytes: 12_345 });
    assert_eq!(memory(&cluster).buffers, after.buffers + 12_345);
}
