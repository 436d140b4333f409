//! Nodes with data directories, killed and restarted. Defends P1 (what is acknowledged outlives the processes), P9 (who came
//! back without its copies doesn't speak for them) and the sentences with which a directory is refused.
//!
//! `RINGMAIN_DURABLE_ROUNDS` says how often all nodes are killed at once; 20 by default.

#![allow(clippy::unwrap_used, reason = "a test that can't go on must stop")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "real processes live in real time")]

mod cluster;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cluster::{Cluster, Ended, Wire, encoded, get, put, run};
use ringmain_schema::Flags;
use ringmain_schema::message::{Get, Put};
use tempfile::TempDir;

const ROUNDS: usize = 20;
/// Each writer's own.
const KEYS: u64 = 100;
const IN_FLIGHT: usize = 32;
/// Small segments, so that a run fills some.
const SMALL: [&str; 2] = ["--value-bytes-max=16KiB", "--segment-bytes=2MiB"];

/// On a real disk: the system's directory for temporary files may be memory.
fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn data(root: &Path, node: usize) -> PathBuf {
    root.join(format!("n{node}"))
}

fn start(root: &Path, nodes: usize, shards: usize, more: &[&str]) -> Cluster {
    let more = [&SMALL, more].concat();
    Cluster::start_each(nodes, shards, &more, |node| Some(format!("--data={}", data(root, node).display())))
}

/// What one writer has written under its keys: the last number that was acknowledged, and the last that was sent.
#[derive(Default)]
struct Written {
    acknowledged: BTreeMap<u64, u64>,
    sent: BTreeMap<u64, u64>,
    next: u64,
}

impl Written {
    /// Put, many at once, until told to stop or the server is gone.
    fn write_until(&mut self, mut wire: Wire, writer: usize, stop: &AtomicBool) {
        let mut under_way = 0;
        while !stop.load(Ordering::Relaxed) {
            let number = self.next;
            self.next += 1;
            self.sent.insert(number % KEYS, number);
            if wire.try_send(&put(number, &key(writer, number % KEYS), &value(number))).is_err() {
                return;
            }
            under_way += 1;
            while under_way >= IN_FLIGHT {
                let Ok(Some(answer)) = wire.try_receive() else { return };
                under_way -= 1;
                if answer.code().is_none() {
                    let last = self.acknowledged.entry(answer.id() % KEYS).or_default();
                    *last = (*last).max(answer.id());
                }
            }
        }
    }

    /// Each key shows what was acknowledged last, or something that was sent later.
    fn check(&self, wire: &mut Wire, writer: usize) {
        for (key_number, acknowledged) in &self.acknowledged {
            let answer = wire.ask(&get(1, &key(writer, *key_number)));
            let found: Vec<u64> = answer.values().iter().map(|value| number_of(value)).collect();
            let sent = self.sent[key_number];
            assert!(
                found.iter().any(|found| (*acknowledged..=sent).contains(found)),
                "writer {writer}, key {key_number}: {acknowledged} was acknowledged and {found:?} is there ({:?})",
                answer.error()
            );
        }
    }
}

fn key(writer: usize, number: u64) -> Vec<u8> {
    format!("writer {writer}, key {number}").into_bytes()
}

fn value(number: u64) -> Vec<u8> {
    let mut value = number.to_le_bytes().to_vec();
    value.resize(100, b'.');
    value
}

fn number_of(value: &[u8]) -> u64 {
    u64::from_le_bytes(*value.first_chunk().unwrap())
}

fn rounds() -> usize {
    std::env::var("RINGMAIN_DURABLE_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap())
}

/// Three nodes under load are killed at once, and started again: whatever was acknowledged is there.
#[test]
fn what_was_acknowledged_outlives_all_processes() {
    let root = directory();
    let mut cluster = start(root.path(), 3, 1, &[]);
    let mut all: Vec<Written> = (0..3).map(|_| Written::default()).collect();
    for round in 0..rounds() {
        let stop = AtomicBool::new(false);
        let wires: Vec<Wire> = (0..3).map(|node| cluster.greeted(node)).collect();
        let before: usize = all.iter().map(|written| written.next as usize).sum();
        std::thread::scope(|scope| {
            for ((writer, written), wire) in all.iter_mut().enumerate().zip(wires) {
                let stop = &stop;
                scope.spawn(move || written.write_until(wire, writer, stop));
            }
            std::thread::sleep(Duration::from_millis(150 + 37 * (round as u64 % 7)));
            cluster.kill_all();
            stop.store(true, Ordering::Relaxed);
        });
        let after: usize = all.iter().map(|written| written.next as usize).sum();
        assert!(after > before, "round {round} wrote nothing");
        cluster.restart_all();
        for (writer, written) in all.iter().enumerate() {
            // Whichever node is asked.
            written.check(&mut cluster.greeted((writer + round) % 3), writer);
        }
    }
    let acknowledged: usize = all.iter().map(|written| written.acknowledged.len()).sum();
    assert!(acknowledged as u64 > KEYS, "the load was too little: {acknowledged} keys");
}

/// A node that stands alone, with several shards, and is stopped in an orderly way: under each way to sync, nothing is lost.
#[test]
fn an_orderly_stop_keeps_everything() {
    for sync in ["always", "20ms", "never"] {
        let root = directory();
        let mut cluster = start(root.path(), 1, 2, &["--sync", sync]);
        let mut wire = cluster.greeted(0);
        for number in 0..500 {
            assert_eq!(wire.ask(&put(number, &key(0, number), &value(number))).code(), None, "sync {sync}");
        }
        assert_eq!(wire.ask(&cluster::delete(1, &key(0, 7))).code(), None);
        cluster.process(0).terminate();
        assert_eq!(cluster.process(0).wait().code(), Some(0), "{}", cluster.process(0).said());
        cluster.restart(0);
        let mut wire = cluster.greeted(0);
        for number in (0..500).filter(|number| *number != 7) {
            assert_eq!(
                wire.ask(&get(1, &key(0, number))).values(),
                [value(number)],
                "key {number}, sync {sync}"
            );
        }
        assert!(wire.ask(&get(1, &key(0, 7))).values().is_empty(), "what was deleted stays so");
    }
}

/// What a kill leaves is what was written, whether or not it was synced: the machine goes on, and so does its disk.
#[test]
fn a_kill_loses_nothing_that_was_written_without_a_sync() {
    let root = directory();
    let mut cluster = start(root.path(), 1, 1, &["--sync", "never"]);
    let mut written = Written::default();
    let stop = AtomicBool::new(false);
    let wire = cluster.greeted(0);
    std::thread::scope(|scope| {
        scope.spawn(|| written.write_until(wire, 0, &stop));
        std::thread::sleep(Duration::from_millis(300));
        cluster.kill_all();
        stop.store(true, Ordering::Relaxed);
    });
    cluster.restart_all();
    assert!(!written.acknowledged.is_empty());
    written.check(&mut cluster.greeted(0), 0);
}

/// A node whose directory was emptied, or holds an old copy of itself, must not say that what it lacks isn't there
/// (docs/adr/0007). It streams it, and has it in the end.
#[test]
fn a_wiped_or_outdated_node_does_not_speak_for_what_it_lost() {
    let root = directory();
    let mut cluster = start(root.path(), 3, 1, &[]);
    let directory = data(root.path(), 2);
    let old = root.path().join("old");
    for is_wiped in [true, false] {
        cluster.kill(2);
        copy(&directory, &old);
        cluster.restart(2);
        let mut wire = cluster.greeted(0);
        let id = u64::from(is_wiped);
        for number in 0..300 {
            assert_eq!(wire.ask(&put(id, &key(9, number), &value(number + id))).code(), None);
        }
        cluster.kill(2);
        if is_wiped {
            std::fs::remove_dir_all(&directory).unwrap();
        } else {
            // Into the same files: it is not told from the original by where it lies.
            copy(&old, &directory);
        }
        cluster.restart(2);
        let mut wire = cluster.greeted(2);
        for number in 0..300 {
            let key = key(9, number);
            let get = Get { key: &key, read: 2, ..Get::default() };
            let answer = wire.ask(&encoded(|encoder, out| get.encode(encoder, number, Flags::NONE, out)));
            assert_eq!(answer.values(), [value(number + id)], "key {number}, wiped: {is_wiped}");
        }
        let until = Instant::now() + Duration::from_secs(20);
        while cluster.counter(2, "keys") < 300 {
            assert!(Instant::now() < until, "it has {} keys", cluster.counter(2, "keys"));
            std::thread::sleep(Duration::from_millis(20));
        }
        std::fs::remove_dir_all(&old).unwrap();
    }
}

/// File by file, over what is there.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// One clear sentence each, and nothing is touched.
#[test]
fn a_directory_that_can_not_be_used_is_refused_in_one_sentence() {
    let root = directory();
    let mut cluster = start(root.path(), 1, 1, &[]);
    let put_one = |cluster: &Cluster| {
        assert_eq!(cluster.greeted(0).ask(&put(1, b"k", b"v")).code(), None);
    };
    put_one(&cluster);
    let directory = data(root.path(), 0);
    let free = cluster::Port::reserve();
    let listen = format!("--listen=127.0.0.1:{}", free.number());
    let serve = |name: &str, data: &Path, more: &[&str]| {
        let (name, data) = (format!("--name={name}"), format!("--data={}", data.display()));
        let arguments = ["serve", "--pin=false", &listen, &name, &data];
        let shards =
            if more.iter().any(|one| one.starts_with("--shards")) { &[][..] } else { &["--shards=1"] };
        let small = if more.iter().any(|one| one.starts_with("--value")) { &[][..] } else { &SMALL };
        run(&[&arguments[..], small, shards, more].concat())
    };
    let refused = |ended: Ended, words: &str| {
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
        assert_eq!(ended.stderr.trim_end().lines().count(), 1, "one sentence: {}", ended.stderr);
    };
    refused(serve("n0", &directory, &[]), "in use by another process");
    cluster.kill(0);
    // A node of its own name alone is another cluster's, so it is another node too.
    refused(serve("other", &directory, &[]), "belongs to shard 0 of node");
    refused(
        serve("n0", &directory, &["--value-bytes-max=1MiB", "--segment-bytes=16MiB"]),
        "lower value_bytes_max",
    );
    refused(serve("n0", Path::new("/dev/shm/ringmain"), &[]), "which is memory and keeps nothing");
    refused(serve("n0", Path::new("/proc/ringmain"), &[]), "can't use /proc/ringmain");
    let moved = root.path().join("moved");
    copy(&directory, &moved);
    refused(serve("n0", &moved, &[]), "a copy, or was moved");
    let manifest = moved.join("shard-0/manifest-0");
    let mut bytes = std::fs::read(&manifest).unwrap();
    std::fs::write(&manifest, b"nothing that was ever a manifest").unwrap();
    std::fs::write(moved.join("shard-0/manifest-1"), b"neither").unwrap();
    refused(serve("n0", &moved, &[]), "both copies of the log's manifest are damaged");
    // A format of the future is whole, and another.
    bytes[8] = 9;
    seal(&mut bytes);
    std::fs::write(&manifest, &bytes).unwrap();
    refused(serve("n0", &moved, &[]), "has format 9, and this build reads 1");

    cluster.restart_all();
    assert_eq!(cluster.greeted(0).ask(&get(1, b"k")).values(), [b"v"], "none of that has harmed it");
    cluster.kill(0);
    std::fs::rename(&directory, root.path().join("gone")).unwrap();
    copy(&root.path().join("gone"), &directory);
    cluster.restart_with(0, "--adopt");
    assert_eq!(cluster.greeted(0).ask(&get(1, b"k")).values(), [b"v"]);
    put_one(&cluster);
    assert!(
        !directory.join("adopted").exists(),
        "its own log says that it lacks what the original wrote later"
    );
    cluster.kill(0);
    cluster.restart_all();
    assert_eq!(cluster.greeted(0).ask(&get(1, b"k")).values(), [b"v"], "it was adopted for good");
}

/// The check of a manifest, as docs/storage.md draws it.
fn seal(bytes: &mut [u8]) {
    use xxhash_rust::xxh3::xxh3_64_with_seed;
    let length = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    let prefix = xxh3_64_with_seed(&bytes[..16], 0);
    let check = xxh3_64_with_seed(&bytes[24..length], prefix);
    bytes[16..24].copy_from_slice(&check.to_le_bytes());
}

/// What was written in the middle of a directory's first log is something else.
fn damage(directory: &Path) {
    let segments = directory.join("shard-0/segments");
    let mut bytes = std::fs::read(&segments).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[written / 2..written / 2 + 20_000].fill(0xaa);
    std::fs::write(&segments, bytes).unwrap();
}

/// Damage in the middle is told when the node starts, with its place; what lies beyond it is there, and what is lost comes back
/// from the others.
#[test]
fn damage_is_told_and_repaired() {
    let root = directory();
    let mut cluster = start(root.path(), 3, 1, &[]);
    let mut wire = cluster.greeted(0);
    for number in 0..400 {
        assert_eq!(wire.ask(&put(number, &key(0, number), &value(number))).code(), None);
    }
    // Give a mark the time to say what is durable.
    std::thread::sleep(Duration::from_millis(400));
    cluster.kill(1);
    damage(&data(root.path(), 1));
    cluster.restart(1);
    let said = cluster.process(1).said();
    assert!(said.contains("are lost: the replicas repair it") && said.contains("slot 0"), "{said}");
    let mut wire = cluster.greeted(1);
    for number in 0..400 {
        let key = key(0, number);
        let get = Get { key: &key, read: 2, ..Get::default() };
        let answer = wire.ask(&encoded(|encoder, out| get.encode(encoder, number, Flags::NONE, out)));
        assert_eq!(answer.values(), [value(number)], "key {number}");
    }
}

/// Puts, overwrites and deletes of keys that are told apart by their `round`.
fn fill(wire: &mut Wire, round: u64) {
    for number in 0..300 {
        let key = key(round as usize, number);
        assert_eq!(wire.ask(&put(number, &key, &value(number))).code(), None);
        if number % 3 == 0 {
            let later = value(number + 1);
            let overwrite = Put { key: &key, value: Some(&later), overwrite: true, ..Put::default() };
            let overwrite = encoded(|encoder, out| overwrite.encode(encoder, number, Flags::NONE, out));
            assert_eq!(wire.ask(&overwrite).code(), None);
        }
        if number % 10 == 0 {
            assert_eq!(wire.ask(&cluster::delete(number, &key)).code(), None);
        }
    }
}

fn check_filled(wire: &mut Wire, round: u64) {
    for number in 0..300 {
        let answer = wire.ask(&get(number, &key(round as usize, number)));
        let values = answer.values();
        match number {
            _ if number % 10 == 0 => assert!(values.is_empty(), "key {number} of round {round} was deleted"),
            _ if number % 3 == 0 => assert_eq!(values, [value(number + 1)], "key {number} of round {round}"),
            _ => assert_eq!(values, [value(number)], "key {number} of round {round}"),
        }
    }
}

#[test]
fn a_node_may_have_another_number_of_shards_at_each_start() {
    let root = directory();
    let mut cluster = start(root.path(), 1, 3, &[]);
    fill(&mut cluster.greeted(0), 0);
    for (round, shards) in [(1, 1), (2, 4), (3, 2)] {
        cluster.kill(0);
        cluster.set_shards(0, shards);
        cluster.restart(0);
        let mut wire = cluster.greeted(0);
        (0..round).for_each(|round| check_filled(&mut wire, round));
        fill(&mut wire, round);
    }
    cluster.restart(0);
    (0..4).for_each(|round| check_filled(&mut cluster.greeted(0), round));
    let names = std::fs::read_dir(data(root.path(), 0)).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["lock", "pinned", "shard-0", "shard-1"]);
}

/// What a crash can leave of a change of the number of shards: the next start goes back, or goes on.
#[test]
fn a_change_of_the_number_of_shards_may_be_interrupted_anywhere() {
    let root = directory();
    let mut cluster = start(root.path(), 1, 2, &[]);
    fill(&mut cluster.greeted(0), 0);
    cluster.kill(0);
    let (directory, old) = (data(root.path(), 0), root.path().join("old"));
    copy(&directory, &old);
    let shard = |number: usize| directory.join(format!("shard-{number}"));
    // A log that was lost is not taken for one that was never written.
    for name in ["manifest-0", "manifest-1", "segments"] {
        std::fs::write(shard(1).join(name), b"").unwrap();
    }
    cluster.set_shards(0, 3);
    let refused = run(&cluster.arguments(0));
    assert!(refused.code == Some(1) && refused.stderr.contains("has no log, though"), "{refused:?}");
    copy(&old, &directory);
    // While the new logs were written.
    copy(&shard(0), &directory.join("rehome/shard-0"));
    cluster.set_shards(0, 3);
    cluster.restart(0);
    check_filled(&mut cluster.greeted(0), 0);
    // They are whole, and so many of the old ones are left, and so many of the new ones have moved.
    for (old_left, moved) in [(2, 0), (1, 0), (0, 0), (0, 1), (0, 2), (0, 3)] {
        cluster.kill(0);
        let whole = directory.join("rehomed-3");
        std::fs::create_dir(&whole).unwrap();
        for number in 0..3 - moved {
            std::fs::rename(shard(number), whole.join(format!("shard-{number}"))).unwrap();
        }
        for number in 0..old_left {
            let name = format!("shard-{number}");
            copy(&old.join(&name), &directory.join(&name));
        }
        let verified = run(&["verify", directory.to_str().unwrap()]);
        assert!(verified.stderr.contains("start its node"), "{verified:?}");
        cluster.restart(0);
        check_filled(&mut cluster.greeted(0), 0);
        assert!(!whole.exists());
    }
}

/// The new logs are whole, and don't tell that a record was lost: the node does.
#[test]
fn damage_is_not_forgotten_with_the_logs_that_had_it() {
    let root = directory();
    let mut cluster = start(root.path(), 3, 1, &[]);
    fill(&mut cluster.greeted(0), 0);
    // Give a mark the time to say what is durable.
    std::thread::sleep(Duration::from_millis(400));
    cluster.kill(1);
    damage(&data(root.path(), 1));
    cluster.set_shards(1, 2);
    cluster.restart(1);
    let said = cluster.process(1).said();
    assert!(said.contains("are lost: the replicas repair it"), "{said}");
    let mut wire = cluster.greeted(1);
    for number in (0..300).filter(|number| number % 10 != 0) {
        let key = key(0, number);
        let get = Get { key: &key, read: 2, ..Get::default() };
        let answer = wire.ask(&encoded(|encoder, out| get.encode(encoder, number, Flags::NONE, out)));
        assert_eq!(answer.values(), [value(number + u64::from(number % 3 == 0))], "key {number}");
    }
}
