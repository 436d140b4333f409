//! A node with a limit on its memory, and keys that pour in: it stays below the limit all the while, and goes on serving.
//! Defends P11.
//!
//! The long run holds a process of 1 GiB in a memory cgroup of 1.2 GiB (v1 or v2, whichever has the controller) for ten minutes. It
//! needs root:
//!
//! ```sh
//! cargo test --release --test memory_limit -- --ignored --nocapture  # RINGMAIN_MEMORY_SECONDS=60 for less
//! ```

#![allow(clippy::unwrap_used, reason = "a test that can't go on must stop")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "real processes live in real time")]

mod cluster;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cluster::{Cluster, encoded, get, put};
use ringmain_schema::Flags;
use ringmain_schema::message::{ErrorCode, Put};

/// Requests of one connection that wait for their answers.
const IN_FLIGHT: u64 = 64;
/// What is counted as connections' and is there without any: the pool.
const FIXED: u64 = 6 << 20;
/// The key that is read again and again.
const HOT: &[u8] = b"hot";

/// Mixes the bits of a number.
const fn mix(number: u64) -> u64 {
    let mixed = (number ^ (number >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

/// A write that replaces nothing.
fn blind_put(id: u64, key: &[u8], value: &[u8]) -> Vec<u8> {
    let put = Put { key, value: Some(value), ..Put::default() };
    encoded(|encoder, out| put.encode(encoder, id, Flags::NONE, out))
}

fn key(number: u64) -> Vec<u8> {
    format!("key:{number:012}").into_bytes()
}

/// From some bytes to 4 KiB, most of them small; one in a thousand has 200 KiB.
fn value(number: u64) -> Vec<u8> {
    let drawn = mix(number);
    let length = if drawn.is_multiple_of(1000) { 200 << 10 } else { 1 << (drawn % 13) };
    vec![number as u8; length]
}

/// What a run has seen.
struct Seen {
    written: u64,
    refused: u64,
    counted_most: u64,
    resident_most: usize,
}

/// Write ever new keys, and read the hot one now and then, until it is time; the node is looked at all the while.
fn pour(cluster: &mut Cluster, limit: u64, lasts: Duration) -> Seen {
    let (is_over, refused) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut wire = cluster.greeted(0);
    let (mut counted_most, mut resident_most) = (0, 0);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let (mut sent, mut received) = (0, 0);
            while !is_over.load(Ordering::Relaxed) || received < sent {
                while sent - received < IN_FLIGHT && !is_over.load(Ordering::Relaxed) {
                    let request = match sent % 16 {
                        0 => put(sent, HOT, b"still here"),
                        8 => get(sent, HOT),
                        _ => put(sent, &key(sent), &value(sent)),
                    };
                    wire.send(&request);
                    sent += 1;
                }
                let answer = wire.receive().expect("the node goes on");
                received += 1;
                match answer.code() {
                    None => {}
                    Some(ErrorCode::Overloaded) => _ = refused.fetch_add(1, Ordering::Relaxed),
                    Some(code) => panic!("request {}: {code:?}", answer.id()),
                }
            }
            sent
        });
        let until = Instant::now() + lasts;
        while Instant::now() < until && !writer.is_finished() {
            let counted = cluster.counter(0, "memory_bytes");
            assert!(counted <= limit, "{counted} bytes are counted, and {limit} is the limit");
            counted_most = counted_most.max(counted);
            resident_most = resident_most.max(cluster.process(0).resident_bytes());
            std::thread::sleep(Duration::from_millis(20));
        }
        is_over.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    Seen { written, refused: refused.into_inner(), counted_most, resident_most }
}

/// How many of these keys are there.
fn hits(cluster: &Cluster, numbers: impl Iterator<Item = u64>) -> usize {
    let mut wire = cluster.greeted(0);
    let is_hit = |number: &u64| {
        let answer = wire.ask(&get(*number, &key(*number)));
        if answer.code().is_none() {
            assert_eq!(answer.values(), [value(*number)], "what is there is what was written");
        }
        answer.code().is_none()
    };
    numbers.filter(is_hit).count()
}

fn is_plain(number: &u64) -> bool {
    !number.is_multiple_of(8)
}

#[test]
fn the_limit_holds_while_keys_pour_in() {
    let limit = 64 << 20;
    let mut cluster = Cluster::start(1, 1, &["--memory-max=64MiB", "--value-bytes-max=256KiB"]);
    let seen = pour(&mut cluster, limit, Duration::from_secs(8));
    let [evictions, keys, declined] =
        ["evictions", "keys", "memory_declined"].map(|name| cluster.counter(0, name));
    println!(
        "{} requests, {keys} keys left, {evictions} put out, {} refused; {} MiB counted at most, of {}, and {} MiB resident",
        seen.written,
        seen.refused,
        seen.counted_most >> 20,
        limit >> 20,
        seen.resident_most >> 20
    );
    assert!(evictions > 1000, "{evictions}");
    assert_eq!((seen.refused, declined), (0, 0), "there was always something to put out");
    let last = hits(&cluster, (0..seen.written).rev().filter(is_plain).take(500));
    let first = hits(&cluster, (0..seen.written).filter(is_plain).take(500));
    assert!(last > 400, "{last} of the last 500 keys are there");
    assert!(first < 250, "{first} of the first 500 keys are there");
    assert!(cluster.greeted(0).ask(&get(1, HOT)).code().is_none(), "it was asked for all the time");
    assert!(seen.resident_most < 2 * limit as usize, "{} bytes resident", seen.resident_most);
}

/// Callers that begin a large frame each and don't end it take no more than their part, and whoever comes after them is served.
#[test]
fn half_sent_frames_do_not_fill_the_memory() {
    const CALLERS: usize = 400;
    let limit = 64 << 20;
    let cluster = Cluster::start(1, 1, &["--memory-max=64MiB", "--value-bytes-max=256KiB"]);
    let whole = put(1, b"key", &vec![7; 240 << 10]);
    let mut callers: Vec<_> = (0..CALLERS).map(|_| cluster.greeted(0)).collect();
    let mut counted_most = 0;
    for caller in &mut callers {
        // It may be closed already.
        let _ = caller.try_send(&whole[..whole.len() - 1]);
        counted_most = counted_most.max(cluster.counter(0, "memory_bytes"));
    }
    assert!(counted_most <= limit, "{counted_most} bytes are counted, and {limit} is the limit");
    let mut wire = cluster.greeted(0);
    assert_eq!(wire.ask(&put(2, b"key", b"value")).code(), None);
    assert_eq!(wire.ask(&get(3, b"key")).values(), [b"value"]);
    let most = limit / 2 + FIXED;
    cluster::wait_until("the largest are closed", || cluster.counter(0, "memory_buffer_bytes") <= most);
    println!(
        "{} MiB counted at most, {} connections left",
        counted_most >> 20,
        cluster.counter(0, "connections")
    );
    assert!(cluster.counter(0, "connections") < CALLERS as u64);
}

/// A peer that takes nothing more, while others write: what waits for it is given up, and nobody else is closed for it.
#[test]
fn a_stopped_peer_costs_no_caller_its_connection() {
    const WRITERS: u64 = 4;
    let limit = 16 << 20;
    let more = ["--memory-max=16MiB", "--value-bytes-max=64KiB", "--partitions=64"];
    let mut cluster = Cluster::start(3, 1, &more);
    // Who has the least id has called the others.
    let mut nodes = [0, 1, 2];
    nodes.sort_by_key(|&node| cluster.greeted(node).welcome().node);
    let [caller, stopped, _] = nodes;
    let mut idle: Vec<_> = (0..100).map(|_| cluster.greeted(caller)).collect();
    let is_over = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let write = |writer: u64| {
            let (mut wire, value) = (cluster.greeted(caller), vec![7; 60 << 10]);
            let is_over = &is_over;
            scope.spawn(move || {
                let (mut sent, mut received) = (0, 0);
                while !is_over.load(Ordering::Relaxed) {
                    while sent - received < 2 * IN_FLIGHT {
                        wire.try_send(&blind_put(sent, &key(sent * WRITERS + writer), &value)).ok()?;
                        sent += 1;
                    }
                    wire.try_receive().ok()??;
                    received += 1;
                }
                Some(received)
            })
        };
        let writers: Vec<_> = (0..WRITERS).map(write).collect();
        std::thread::sleep(Duration::from_secs(1));
        cluster.process(stopped).pause();
        std::thread::sleep(Duration::from_secs(4));
        is_over.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
    });
    println!("{written:?} writes, {} bytes of connections", cluster.counter(caller, "memory_buffer_bytes"));
    assert!(cluster.counter(caller, "memory_buffer_bytes") <= limit / 2 + FIXED);
    assert!(written.iter().all(Option::is_some), "a writer was closed: {written:?}");
    idle.iter_mut().for_each(cluster::Wire::ping);
    cluster.process(stopped).resume();
}

/// A memory cgroup of this test's own; it goes when this is dropped.
struct Cgroup {
    path: PathBuf,
    is_second: bool,
}

impl Cgroup {
    /// The controller's directory, of the first version or of the second.
    fn new(limit: u64) -> std::io::Result<Self> {
        let (root, is_second) = match Path::new("/sys/fs/cgroup/memory").is_dir() {
            true => ("/sys/fs/cgroup/memory", false),
            false => ("/sys/fs/cgroup", true),
        };
        let path = Path::new(root).join(format!("ringmain-test-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        let cgroup = Self { path, is_second };
        let file = if is_second { "memory.max" } else { "memory.limit_in_bytes" };
        std::fs::write(cgroup.path.join(file), limit.to_string())?;
        Ok(cgroup)
    }

    fn take(&self, process: u32) {
        std::fs::write(self.path.join("cgroup.procs"), process.to_string()).unwrap();
    }

    /// The most that it has held.
    fn peak(&self) -> u64 {
        let file = if self.is_second { "memory.peak" } else { "memory.max_usage_in_bytes" };
        std::fs::read_to_string(self.path.join(file)).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.path);
    }
}

#[test]
#[ignore = "ten minutes, and root: cargo test --release --test memory_limit -- --ignored --nocapture"]
fn the_process_lives_in_a_cgroup_a_little_larger_than_its_limit() {
    let limit = 1 << 30;
    let seconds = std::env::var("RINGMAIN_MEMORY_SECONDS").map_or(600, |text| text.parse().unwrap());
    let cgroup = match Cgroup::new(limit / 10 * 12) {
        Ok(cgroup) => cgroup,
        Err(error) => return println!("no memory cgroup here, skipped: {error}"),
    };
    let mut cluster = Cluster::start(1, 1, &["--memory-max=1GiB", "--value-bytes-max=1MiB"]);
    cgroup.take(cluster.process(0).id());
    let seen = pour(&mut cluster, limit, Duration::from_secs(seconds));
    println!(
        "{seconds} s, {} requests, {} put out, {} refused; {} MiB counted at most, {} MiB resident, the cgroup held {} MiB at most",
        seen.written,
        cluster.counter(0, "evictions"),
        seen.refused,
        seen.counted_most >> 20,
        seen.resident_most >> 20,
        cgroup.peak() >> 20
    );
    assert!(cluster.process(0).is_running(), "{}", cluster.process(0).said());
    assert!(cluster.counter(0, "evictions") > 1000);
    assert_eq!(seen.refused, 0);
    cluster.kill(0);
    drop(cluster);
}
