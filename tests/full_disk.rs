//! A small file system of the test's own that fills up under a node, and others that can't hold a log. Defends P1 (nothing that
//! was acknowledged is lost), P8 (what was refused was never written) and P10 (the other nodes go on).
//!
//! It needs root, `mkfs.ext4` and loop devices; without, it says so and passes.

#![allow(clippy::unwrap_used, reason = "a test that can't go on must stop")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "real processes live in real time")]

mod cluster;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cluster::{Cluster, Port, Process, Wire, encoded, get, put, run};
use ringmain_schema::Flags;
use ringmain_schema::message::{ErrorCode, Put};
use tempfile::TempDir;

const SMALL: [&str; 2] = ["--value-bytes-max=16KiB", "--segment-bytes=2MiB"];
const DISK_BYTES: u64 = 64 << 20;

/// A file system that lives in a file, or in memory, until the test ends.
struct Disk {
    root: TempDir,
}

impl Disk {
    /// `None`, and a line that says so, where the test may not mount anything.
    fn ext4() -> Option<Self> {
        let disk = Self::unmounted();
        let image = disk.root.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(DISK_BYTES).unwrap();
        let image = image.to_str().unwrap();
        let made = disk.does("mkfs.ext4", &["-q", "-F", image])
            && disk.does("mount", &["-o", "loop", image, disk.path().to_str().unwrap()]);
        disk.said(made)
    }

    fn ramfs() -> Option<Self> {
        let disk = Self::unmounted();
        let mounted = disk.does("mount", &["-t", "ramfs", "ramfs", disk.path().to_str().unwrap()]);
        disk.said(mounted)
    }

    /// The directory for temporary files may be memory itself.
    fn unmounted() -> Self {
        let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let disk = Self { root };
        std::fs::create_dir(disk.path()).unwrap();
        disk
    }

    #[allow(clippy::explicit_write, reason = "what eprintln! prints is hidden while tests pass")]
    fn said(self, is_mounted: bool) -> Option<Self> {
        if !is_mounted {
            writeln!(std::io::stderr(), "skipped: it takes root, mkfs.ext4 and loop devices").unwrap();
        }
        is_mounted.then_some(self)
    }

    fn does(&self, program: &str, arguments: &[&str]) -> bool {
        let quiet =
            Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
        quiet.is_ok_and(|status| status.success())
    }

    fn path(&self) -> PathBuf {
        self.root.path().join("disk")
    }

    fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// The log of each of so many shards has room for its next start: one of them takes all that is left before the others want any.
    fn wait_for_spare_segments(&self, shards: usize) {
        let segments = |shard: usize| self.data().join(format!("shard-{shard}/segments"));
        let length = |shard| segments(shard).metadata().map_or(0, |metadata| metadata.len());
        cluster::wait_until("there is a spare segment", || (0..shards).all(|shard| length(shard) >= 4 << 20));
    }

    /// Fill it up but for so many bytes: what is removed to have room again.
    fn fill(&self, but: u64) -> PathBuf {
        let ballast = self.path().join("ballast");
        let mut file = std::fs::File::create(&ballast).unwrap();
        let chunk = vec![7; 1 << 16];
        while file.write_all(&chunk).is_ok() {}
        file.sync_all().ok();
        let length = file.metadata().unwrap().len();
        file.set_len(length.saturating_sub(but)).unwrap();
        file.sync_all().unwrap();
        ballast
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.does("umount", &["-l", self.path().to_str().unwrap()]);
    }
}

fn key(number: u64) -> Vec<u8> {
    format!("key {number}").into_bytes()
}

fn value(number: u64) -> Vec<u8> {
    (0..10_000).map(|at| (number as u8).wrapping_mul(31).wrapping_add(at as u8)).collect()
}

/// Puts until one is refused: how many were acknowledged.
fn put_until_refused(wire: &mut Wire, from: u64) -> u64 {
    for number in from..from + 10_000 {
        let answer = wire.ask(&put(number, &key(number), &value(number)));
        match answer.code() {
            None => {}
            Some(ErrorCode::Unavailable) => return number,
            other => panic!("{other:?}"),
        }
    }
    panic!("the disk never filled up");
}

fn check(wire: &mut Wire, through: u64) {
    for number in 0..through {
        assert_eq!(wire.ask(&get(number, &key(number))).values(), [value(number)], "key {number}");
    }
}

fn put_until_stored(wire: &mut Wire, number: u64) {
    let until = Instant::now() + Duration::from_secs(20);
    while wire.ask(&put(number, &key(number), &value(number))).code().is_some() {
        assert!(Instant::now() < until, "there is room, and it takes no writes");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn on(disk: &Path) -> impl Fn(usize) -> Option<String> {
    let argument = format!("--data={}", disk.display());
    move |node| (node == 0).then(|| argument.clone())
}

/// A write into room that had only been set aside failed as well, and nothing was acknowledged until a restart.
#[test]
fn a_full_disk_refuses_writes_reads_on_and_takes_writes_again() {
    let Some(disk) = Disk::ext4() else { return };
    let mut cluster = Cluster::start_each(1, 2, &SMALL, on(&disk.data()));
    let mut wire = cluster.greeted(0);
    assert_eq!(wire.ask(&put(0, &key(0), &value(0))).code(), None);
    disk.wait_for_spare_segments(2);
    let ballast = disk.fill(8 << 20);
    let acknowledged = put_until_refused(&mut wire, 1);
    let refused = wire.ask(&put(acknowledged, &key(acknowledged), &value(acknowledged)));
    assert_eq!(refused.code(), Some(ErrorCode::Unavailable));
    check(&mut wire, acknowledged);
    assert!(wire.ask(&get(0, &key(acknowledged))).values().is_empty(), "what was refused was not written");
    let said = cluster.process(0).said();
    assert!(said.contains("there is no room"), "{said}");

    // It can be started again while the disk is full.
    cluster.kill(0);
    cluster.restart_all();
    let mut wire = cluster.greeted(0);
    check(&mut wire, acknowledged);

    std::fs::remove_file(ballast).unwrap();
    put_until_stored(&mut wire, acknowledged);
    cluster.kill(0);
    cluster.restart_all();
    check(&mut cluster.greeted(0), acknowledged + 1);
}

/// Another shard of it, or another program, has taken all the room before this log wanted any.
#[test]
fn a_log_that_was_hardly_written_to_starts_on_a_full_disk() {
    let Some(disk) = Disk::ext4() else { return };
    let mut cluster = Cluster::start_each(1, 2, &SMALL, on(&disk.data()));
    assert_eq!(cluster.greeted(0).ask(&put(0, &key(0), &value(0))).code(), None);
    disk.wait_for_spare_segments(2);
    let ballast = disk.fill(256 << 10);
    cluster.kill(0);
    cluster.restart_all();
    let mut wire = cluster.greeted(0);
    check(&mut wire, 1);
    std::fs::remove_file(ballast).unwrap();
    put_until_stored(&mut wire, 1);
}

/// While a backup reads, compacted segments are kept for it, unless the log has no room. A node was said to have none, and refused
/// writes, when it could have let go of them.
#[test]
fn a_backup_that_reads_costs_no_writes_when_the_disk_is_full() {
    let Some(disk) = Disk::ext4() else { return };
    let cluster = Cluster::start_each(1, 1, &[&SMALL[..], &["--partitions=4096"]].concat(), on(&disk.data()));
    let mut wire = cluster.greeted(0);
    let write = |wire: &mut Wire, number: u64| {
        let key = key(number % 50);
        let overwrite = Put { key: &key, value: Some(&value(number)), overwrite: true, ..Put::default() };
        let overwrite = encoded(|encoder, out| overwrite.encode(encoder, number, Flags::NONE, out));
        assert_eq!(wire.ask(&overwrite).code(), None, "write {number}");
    };
    // Enough for it to compact.
    (0..2_000).for_each(|number| write(&mut wire, number));
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (to, data) = (root.path().join("backup"), disk.data());
    let arguments = ["backup", to.to_str().unwrap(), "--data", data.to_str().unwrap(), "--rate", "64KiB"];
    let mut backup = Process::start(&arguments.map(str::to_owned));
    cluster::wait_until("the backup has begun", || to.join("unfinished").exists());
    disk.fill(3 << 20);
    let compactions = cluster.counter(0, "compactions");
    (2_000..4_000).for_each(|number| write(&mut wire, number));
    assert!(backup.is_running(), "{}", backup.said());
    assert!(cluster.counter(0, "compactions") > compactions + 3);
    backup.kill();
}

/// A backup changes nothing, so it needs no right to.
#[test]
fn a_node_on_a_disk_that_can_only_be_read_is_backed_up() {
    let Some(disk) = Disk::ext4() else { return };
    let mut cluster = Cluster::start_each(1, 1, &SMALL, on(&disk.data()));
    assert_eq!(cluster.greeted(0).ask(&put(0, &key(0), &value(0))).code(), None);
    cluster.kill(0);
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (to, data, path) = (root.path().join("backup"), disk.data(), disk.path());
    for has_pin in [true, false] {
        assert!(disk.does("mount", &["-o", "remount,ro", path.to_str().unwrap()]));
        let ended = run(&["backup", to.to_str().unwrap(), "--data", data.to_str().unwrap()]);
        assert_eq!(ended.code, Some(0), "{has_pin}: {ended:?}");
        assert!(disk.does("mount", &["-o", "remount,rw", path.to_str().unwrap()]));
        std::fs::remove_dir_all(&to).unwrap();
        if has_pin {
            std::fs::remove_file(data.join("pinned")).unwrap();
        }
    }
}

#[test]
fn the_others_take_writes_while_the_disk_of_one_is_full() {
    let Some(disk) = Disk::ext4() else { return };
    let roots = [
        tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(),
        tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(),
    ];
    let others = |node: usize| format!("--data={}", roots[node - 1].path().join("data").display());
    let data = disk.data();
    let own = on(&data);
    let cluster = Cluster::start_each(3, 1, &SMALL, |node| own(node).or_else(|| Some(others(node))));
    let ballast = disk.fill(6 << 20);
    // Six times what is left: the full node is a replica of each.
    let mut wire = cluster.greeted(1);
    let all = 1_000;
    for number in 0..all {
        assert_eq!(wire.ask(&put(number, &key(number), &value(number))).code(), None, "key {number}");
    }
    check(&mut wire, all);
    assert!(cluster.counter(0, "keys") < all, "its disk was full");
    std::fs::remove_file(ballast).unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while cluster.counter(0, "keys") < all {
        assert!(Instant::now() < until, "it has {} keys of {all}", cluster.counter(0, "keys"));
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// One clear sentence, and nothing is touched.
fn refused(data: &Path, shards: usize, words: &[&str]) {
    let free = Port::reserve();
    let listen = format!("--listen=127.0.0.1:{}", free.number());
    let (data, shards) = (format!("--data={}", data.display()), format!("--shards={shards}"));
    let ended = run(&[&["serve", "--pin=false", "--name=n0", &listen, &data, &shards], &SMALL[..]].concat());
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(ended.stderr.trim_end().lines().count(), 1, "one sentence: {}", ended.stderr);
    words.iter().for_each(|words| assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr));
}

#[test]
fn a_disk_without_room_for_a_log_is_refused_and_keeps_what_it_has() {
    let Some(disk) = Disk::ext4() else { return };
    let ballast = disk.fill(0);
    refused(&disk.data(), 1, &["No space left", "is there room?"]);
    std::fs::remove_file(ballast).unwrap();

    let mut cluster = Cluster::start_each(1, 1, &SMALL, on(&disk.data()));
    let mut wire = cluster.greeted(0);
    for number in 0..1_000 {
        assert_eq!(wire.ask(&put(number, &key(number), &value(number))).code(), None);
    }
    let ballast = disk.fill(4 << 20);
    cluster.kill(0);
    // Another number of shards takes as much room again.
    cluster.set_shards(0, 2);
    let arguments: Vec<String> = cluster.arguments(0).into_iter().map(str::to_owned).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = run(&arguments);
    assert!(ended.code == Some(1) && ended.stderr.contains("nothing has changed"), "{ended:?}");
    cluster.set_shards(0, 1);
    cluster.restart_all();
    check(&mut cluster.greeted(0), 1_000);
    std::fs::remove_file(ballast).unwrap();
    cluster.kill(0);
    cluster.set_shards(0, 2);
    cluster.restart_all();
    check(&mut cluster.greeted(0), 1_000);
}

#[test]
fn a_file_system_without_direct_access_is_refused() {
    let Some(memory) = Disk::ramfs() else { return };
    refused(&memory.data(), 1, &["is on ramfs, which is memory and keeps nothing"]);
}
