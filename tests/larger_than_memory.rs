//! A node with a log that holds four times as much as it has memory for: all of it can be read, while it is written, when it is
//! compacted, and after a kill. Defends P1, P2 and P11 (docs/adr/0022).

#![allow(clippy::unwrap_used, reason = "a test that can't go on must stop")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "real processes live in real time")]

mod cluster;

use cluster::{Cluster, Wire, get, put};
use tempfile::TempDir;

const LIMIT: u64 = 32 << 20;
/// Of 4 KiB on average: 131 MiB.
const KEYS: u64 = 33_000;
/// Requests of one connection that wait for their answers.
const IN_FLIGHT: u64 = 64;

/// On a real disk: the system's directory for temporary files may be memory.
fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn start(data: &TempDir) -> Cluster {
    let more = ["--memory-max=32MiB", "--value-bytes-max=64KiB", "--segment-bytes=8MiB", "--partitions=64"];
    Cluster::start_each(1, 1, &more, |_| Some(format!("--data={}", data.path().join("n0").display())))
}

fn key(number: u64) -> Vec<u8> {
    format!("key:{number:012}").into_bytes()
}

/// Which write of the key it is, in bytes that nothing else has: 100 of them, of some 8 KiB, of few 40 KiB.
fn value(number: u64, version: u64) -> Vec<u8> {
    let length = match number % 16 {
        0 => 40 << 10,
        1..4 => 8 << 10,
        _ => 100,
    };
    let mut value = vec![(number ^ version) as u8; length];
    value[..8].copy_from_slice(&number.to_le_bytes());
    value[8..16].copy_from_slice(&version.to_le_bytes());
    value
}

/// All of it once more in another order: no two neighbours are near.
fn shuffled(count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(move |at| at * 7919 % count)
}

/// Send all of these, many at once, and hand each answer to `check` with its number.
fn pipeline(
    wire: &mut Wire,
    numbers: impl Iterator<Item = u64>,
    request: impl Fn(u64) -> Vec<u8>,
    mut check: impl FnMut(u64, &cluster::Answer),
) {
    let mut under_way = 0;
    let mut receive = |wire: &mut Wire| {
        let answer = wire.receive().expect("the node goes on");
        check(answer.id(), &answer);
    };
    for number in numbers {
        if under_way == IN_FLIGHT {
            receive(wire);
            under_way -= 1;
        }
        wire.send(&request(number));
        under_way += 1;
    }
    (0..under_way).for_each(|_| receive(wire));
}

fn write_all(cluster: &Cluster, numbers: impl Iterator<Item = u64>, version: u64) {
    let mut wire = cluster.greeted(0);
    let request = |number| put(number, &key(number), &value(number, version));
    pipeline(&mut wire, numbers, request, |number, answer| {
        assert_eq!(answer.code(), None, "put {number}");
    });
}

/// Each key has its last value.
fn read_all(cluster: &Cluster, version_of: impl Fn(u64) -> u64) {
    let mut wire = cluster.greeted(0);
    pipeline(
        &mut wire,
        shuffled(KEYS),
        |number| get(number, &key(number)),
        |number, answer| {
            assert_eq!(answer.code(), None, "get {number}");
            assert!(answer.values() == [value(number, version_of(number))], "key {number} has another value");
        },
    );
    let counted = cluster.counter(0, "memory_bytes");
    assert!(counted <= LIMIT, "{counted} bytes are counted, and {LIMIT} is the limit");
}

#[test]
fn four_times_as_much_as_memory_holds_is_read_back() {
    let data = directory();
    let mut cluster = start(&data);
    write_all(&cluster, 0..KEYS, 1);
    let [keys, bytes, cold] =
        ["keys", "key_and_value_bytes", "values_cold"].map(|name| cluster.counter(0, name));
    assert!(keys == KEYS && bytes > 4 * LIMIT && cold > 0, "{keys} keys of {bytes} bytes, {cold} cold");
    read_all(&cluster, |_| 1);
    // Overwrite until segments are worth a compaction: cold records move.
    for round in 2..5 {
        write_all(&cluster, shuffled(KEYS).filter(|number| number % 3 != 0), round);
    }
    let version_of = |number: u64| if number % 3 == 0 { 1 } else { 4 };
    read_all(&cluster, version_of);
    let [reads, errors, compactions] =
        ["cold_reads", "cold_read_errors", "compactions"].map(|name| cluster.counter(0, name));
    let resident = cluster.process(0).resident_bytes() as u64;
    println!(
        "{bytes} bytes held; {reads} cold reads, {compactions} compactions, {} MiB resident",
        resident >> 20
    );
    assert!(reads > KEYS && compactions > 0 && errors == 0, "{reads}, {compactions}, {errors}");
    assert!(resident < 3 * LIMIT, "{resident} bytes resident");
    cluster.kill(0);
    cluster.restart(0);
    let counted = cluster.counter(0, "memory_bytes");
    assert!(counted <= LIMIT, "{counted} bytes are counted after a start");
    read_all(&cluster, version_of);
    assert_eq!((cluster.counter(0, "keys"), cluster.counter(0, "cold_read_errors")), (KEYS, 0));
}
