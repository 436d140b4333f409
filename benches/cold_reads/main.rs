//! Reads of values that are in memory, and of such that are on the disk alone: `cargo bench --bench cold_reads [-- KEYS READS]`.
//!
//! One node of one shard with a log and 64 MiB of memory, and 256 MiB of values of 4 KiB. One connection asks for one key after the other:
//! first ever the same hundred, then any. Whether a read was hot or cold is told by how far the node's count of cold reads has
//! come, so the second kind has some of the first among them: the share is told. Then the same with 64 at a time.
//! `CARGO_TARGET_TMPDIR` should be on the disk that is to be measured.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "a test or bench has threads and clocks of its own"
)]

#[path = "../../tests/cluster/mod.rs"]
mod cluster;

use std::time::{Duration, Instant};

use cluster::{Cluster, Wire, get, put};

const VALUE_BYTES: usize = 4 << 10;
/// Keys that are asked for again and again.
const HOT: u64 = 100;
/// Requests of one connection that wait for their answers, in the second part.
const IN_FLIGHT: usize = 64;

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let keys = numbers.next().unwrap_or(64_000);
    let reads = numbers.next().unwrap_or(50_000);
    let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let more = ["--memory-max=64MiB", "--value-bytes-max=64KiB", "--partitions=64"];
    let cluster =
        Cluster::start_each(1, 1, &more, |_| Some(format!("--data={}", data.path().join("n0").display())));
    let mut wire = cluster.greeted(0);
    for number in 0..keys {
        assert_eq!(wire.ask(&put(number, &key(number), &vec![number as u8; VALUE_BYTES])).code(), None);
    }
    let any = |at: u64| at.wrapping_mul(0x9e37_79b9_7f4a_7c15) % keys;
    println!("{keys} keys of {VALUE_BYTES} bytes; {} of them cold", cluster.counter(0, "values_cold"));
    for (name, in_flight, of) in [
        ("hot, one at a time", 1, HOT),
        ("any, one at a time", 1, keys),
        ("hot, 64 at a time", IN_FLIGHT, HOT),
        ("any, 64 at a time", IN_FLIGHT, keys),
    ] {
        let before = cluster.counter(0, "cold_reads");
        let begun = Instant::now();
        let mut took = read(&mut wire, reads, in_flight, |at| any(at) % of);
        let lasted = begun.elapsed();
        let cold = cluster.counter(0, "cold_reads") - before;
        took.sort_unstable();
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_micros();
        println!(
            "{name}: p50 {} us, p99.9 {} us, {:.0} a second, {:.1}% cold",
            at(0.5),
            at(0.999),
            reads as f64 / lasted.as_secs_f64(),
            cold as f64 * 100.0 / reads as f64
        );
    }
    assert_eq!(cluster.counter(0, "cold_read_errors"), 0);
}

fn key(number: u64) -> Vec<u8> {
    format!("key:{number:012}").into_bytes()
}

/// How long each took.
fn read(wire: &mut Wire, reads: u64, in_flight: usize, number_of: impl Fn(u64) -> u64) -> Vec<Duration> {
    let mut sent = std::collections::BTreeMap::new();
    let mut took = Vec::with_capacity(reads as usize);
    let mut take = |wire: &mut Wire, sent: &mut std::collections::BTreeMap<u64, Instant>| {
        let answer = wire.receive().expect("the node goes on");
        assert_eq!(answer.code(), None);
        took.push(sent.remove(&answer.id()).expect("it was asked").elapsed());
    };
    for at in 0..reads {
        if sent.len() == in_flight {
            take(wire, &mut sent);
        }
        sent.insert(at, Instant::now());
        wire.send(&get(at, &key(number_of(at))));
    }
    while !sent.is_empty() {
        take(wire, &mut sent);
    }
    took
}
