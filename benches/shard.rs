//! What a request costs the core, without any IO: frames in, frames out, one node, 100-byte values.
//!
//! `cargo bench --bench shard`. For instruction counts, which no other load on the machine disturbs:
//! `valgrind --tool=callgrind target/release/deps/shard-* --bench --profile-time 1`.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringmain::anti_entropy::{Listing, Selection, Trees};
use ringmain::causality::{Actor, Content, VersionVector};
use ringmain::id::{ConnectionId, OperationId, PartitionId};
use ringmain::membership::{Founders, Membership, MembershipOptions, Place, cluster_id};
use ringmain::prng::Prng;
use ringmain::ring::Partitions;
use ringmain::shard::{Input, Machine, Output, Shard, ShardOptions};
use ringmain::storage::Index;
use ringmain::time::{Instant, Now, WallTime};
use ringmain_schema::message::{Get, Hello, PeerHello, Put, Role};
use ringmain_schema::{Encoder, Flags, Frame};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NOW: Now = Now { monotonic: Instant(1), wall: WallTime(1) };
const CONNECTION: ConnectionId = ConnectionId(1);

fn shard() -> Shard {
    let name: Arc<str> = "n1".into();
    let place = Place {
        host: "127.0.0.1".into(),
        ordinary_port: 7400,
        shard_ports: [7401].into(),
        weight: 100,
        data_center: "".into(),
        rack: "".into(),
    };
    let partitions = Partitions::new(1024).expect("a power of two");
    let options = MembershipOptions { partitions, replicas: 3 };
    let cluster = cluster_id("bench", ["n1"].into_iter());
    let membership = Membership::new(cluster, &name, place, &Founders::default(), false, options);
    Shard::new(ShardOptions::single("bench"), membership, &[], Prng::from_seed(1))
}

fn feed(shard: &mut Shard, bytes: &[u8], output: &mut Output) {
    let frame = Frame::split(bytes, bytes.len()).expect("a frame").expect("a whole one");
    shard.handle(NOW, Input::Frame { connection: CONNECTION, frame }, output);
}

/// A shard with a client and so many keys, and the frames that read and overwrite each of them.
fn prepare(keys: u64) -> (Shard, Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let (mut shard, mut output, mut encoder) = (shard(), Output::default(), Encoder::default());
    shard.handle(NOW, Input::Opened { connection: CONNECTION, dial: None }, &mut output);
    let hello = Hello {
        protocol_min: 1,
        protocol_max: 1,
        role: Role::Client,
        cluster: 0,
        secret: b"",
        software: "bench",
        peer: PeerHello::default(),
    };
    let mut bytes = Vec::new();
    hello.encode(&mut encoder, 0, &mut bytes);
    feed(&mut shard, &bytes, &mut output);
    let (mut gets, mut puts) = (Vec::new(), Vec::new());
    for number in 0..keys {
        let key = format!("key:{number:010}");
        let mut get = Vec::new();
        Get { key: key.as_bytes(), ..Get::default() }.encode(&mut encoder, number, Flags::NONE, &mut get);
        let mut put = Vec::new();
        let request = Put { key: key.as_bytes(), value: Some(&[7; 100]), overwrite: true, ..Put::default() };
        request.encode(&mut encoder, number, Flags::NONE, &mut put);
        output.clear();
        feed(&mut shard, &put, &mut output);
        gets.push(get);
        puts.push(put);
    }
    (shard, gets, puts)
}

fn requests(criterion: &mut Criterion) {
    for keys in [10_000, 1_000_000] {
        let (mut shard, gets, puts) = prepare(keys);
        let mut group = criterion.benchmark_group(format!("{keys} keys"));
        group.throughput(Throughput::Elements(1));
        for (name, frames) in [("get", &gets), ("overwrite", &puts)] {
            let (mut output, mut prng) = (Output::default(), Prng::from_seed(2));
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    output.clear();
                    let frame = &frames[prng.below(keys) as usize];
                    feed(&mut shard, black_box(frame), &mut output);
                    black_box(output.bytes.len())
                });
            });
        }
        group.finish();
    }
}

/// What one list of anti-entropy costs: every key of the partition is looked at.
fn lists(criterion: &mut Criterion) {
    let (mut index, mut trees) = (Index::new(1024), Trees::new(1024));
    let mut prng = Prng::from_seed(3);
    for number in 0..10_000_000u64 / 1024 {
        let (token, partition) = (prng.next_u64() >> 10, PartitionId(0));
        index.update(partition, token, &number.to_le_bytes(), |entry| {
            let (actor, content) = (Actor { id: 1, epoch: number as u32 }, Content::Tombstone);
            let seen = VersionVector::new();
            entry.state.put(actor, &seen, content, None, OperationId::NONE, WallTime(0));
        });
    }
    let changes: Vec<_> = index.take_changes().collect();
    criterion.bench_function("hash tree, per write", |bencher| {
        let mut at = 0;
        bencher.iter(|| {
            at = (at + 1) % changes.len();
            trees.apply(black_box(&changes[at]));
        });
    });
    let selection = Selection { partition: PartitionId(0), branch: 7, leaves: u32::MAX, from: 0 };
    criterion.bench_function("list one branch of 10,000 keys", |bencher| {
        bencher.iter(|| Listing::take(&index, &trees, black_box(&selection), 1024).keys.len());
    });
}

criterion_group!(benches, requests, lists);
criterion_main!(benches);
