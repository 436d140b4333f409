//! Backups of nodes that serve, and the clusters that are restored from them. Defends P1 (what was acknowledged before a backup
//! began is in it), P2 (nothing else is), P5 (what was deleted stays so) and the sentences with which a backup is refused.

#![allow(clippy::unwrap_used, reason = "a test that can't go on must stop")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "real processes live in real time")]

mod cluster;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cluster::{Cluster, Ended, Process, Wire, delete, get, put, run, wait_until};
use tempfile::TempDir;

/// Of one writer.
const KEYS: usize = 100;
const IN_FLIGHT: usize = 32;
const VALUE_BYTES: usize = 2_000;
/// Of the log, so that a run fills and compacts some.
const SEGMENT_BYTES: u64 = 2 << 20;
const SMALL: [&str; 2] = ["--value-bytes-max=16KiB", "--segment-bytes=2MiB"];

/// On a real disk: the system's directory for temporary files may be memory.
struct Root(TempDir);

impl Root {
    fn new() -> Self {
        Self(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap())
    }

    fn at(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn start(&self, nodes: usize, shards: usize, more: &[&str]) -> Cluster {
        let data = |node| Some(format!("--data={}", self.at(&format!("n{node}"))));
        Cluster::start_each(nodes, shards, &[&SMALL, more].concat(), data)
    }

    /// Back up a node's directory.
    fn backup(&self, node: usize, to: &str) {
        let ended = run(&["backup", &self.at(to), "--data", &self.at(&format!("n{node}"))]);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }

    /// Restore these backups into a cluster of one, and start it.
    fn restored(&self, backups: &[&str], data: &str, shards: usize) -> Cluster {
        let ended = self.restore(backups, data);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let data = format!("--data={}", self.at(data));
        let more = [&SMALL[..], &["--cluster=restored"]].concat();
        Cluster::start_each(1, shards, &more, |_| Some(data.clone()))
    }

    fn restore(&self, backups: &[&str], data: &str) -> Ended {
        let backups: Vec<String> = backups.iter().map(|backup| self.at(backup)).collect();
        let mut arguments = vec!["restore"];
        arguments.extend(backups.iter().map(String::as_str));
        let data = self.at(data);
        arguments.extend(["--data", &data, "--cluster", "restored", "--name", "n0"]);
        run(&arguments)
    }

    /// A backup that takes its time.
    fn begin_backup(&self, node: usize, to: &str, rate: &str) -> Process {
        let (to, data) = (self.at(to), self.at(&format!("n{node}")));
        let arguments = ["backup", &to, "--data", &data, "--rate", rate];
        let process = Process::start(&arguments.map(str::to_owned));
        wait_until("the backup has begun", || Path::new(&to).join("unfinished").exists());
        process
    }
}

fn refused(ended: &Ended, words: &str) {
    assert_eq!(ended.code, Some(1), "{words}: {ended:?}");
    assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
    assert_eq!(ended.stderr.trim_end().lines().count(), 1, "one sentence: {}", ended.stderr);
}

/// What one writer overwrites again and again, by key: the last number that was acknowledged, and the last that was sent.
struct Load {
    acknowledged: Vec<AtomicU64>,
    sent: Vec<AtomicU64>,
}

impl Load {
    fn new() -> Self {
        let zeros = || (0..KEYS).map(|_| AtomicU64::new(0)).collect();
        Self { acknowledged: zeros(), sent: zeros() }
    }

    fn write_until(&self, mut wire: Wire, stop: &AtomicBool) {
        let (mut under_way, mut number) = (0, self.total());
        while !stop.load(Ordering::Relaxed) {
            number += 1;
            let key = number as usize % KEYS;
            self.sent[key].store(number, Ordering::Release);
            if wire.try_send(&put(number, &name(key), &value(number))).is_err() {
                return;
            }
            under_way += 1;
            while under_way >= IN_FLIGHT {
                let Ok(Some(answer)) = wire.try_receive() else { return };
                under_way -= 1;
                if answer.code().is_none() {
                    self.acknowledged[answer.id() as usize % KEYS].fetch_max(answer.id(), Ordering::Release);
                }
            }
        }
    }

    fn acknowledged(&self) -> Vec<u64> {
        self.acknowledged.iter().map(|number| number.load(Ordering::Acquire)).collect()
    }

    fn sent(&self) -> Vec<u64> {
        self.sent.iter().map(|number| number.load(Ordering::Acquire)).collect()
    }

    /// The last number that was sent.
    fn total(&self) -> u64 {
        self.sent().into_iter().max().unwrap()
    }
}

/// Each key has one value, which was put there, byte for byte: what was acknowledged at least, and nothing later than what was
/// sent.
fn check(wire: &mut Wire, acknowledged: &[u64], sent: &[u64]) {
    for (key, (acknowledged, sent)) in acknowledged.iter().zip(sent).enumerate() {
        let answer = wire.ask(&get(1, &name(key)));
        let values = answer.values();
        if values.is_empty() && *acknowledged == 0 {
            continue;
        }
        let [found] = values[..] else { panic!("key {key} has {} values", values.len()) };
        let number = u64::from_le_bytes(*found.first_chunk().unwrap());
        assert_eq!(found, value(number), "key {key}");
        assert_eq!(number as usize % KEYS, key, "it was put under another key");
        assert!(
            (*acknowledged..=*sent).contains(&number),
            "key {key}: {acknowledged} was acknowledged before the backup began, {sent} was sent last, {number} is there"
        );
    }
}

fn name(key: usize) -> Vec<u8> {
    format!("key {key}").into_bytes()
}

fn value(number: u64) -> Vec<u8> {
    let mut value = number.to_le_bytes().to_vec();
    value.resize(VALUE_BYTES, number as u8);
    value
}

fn acknowledged(wire: &mut Wire, frame: &[u8]) {
    assert_eq!(wire.ask(frame).code(), None);
}

/// The node overwrites and compacts all the time while it is backed up: nothing that was acknowledged is missing, nothing else
/// is there, and what was deleted stays so. The restored node may have another number of shards.
#[test]
fn a_backup_under_load_has_all_that_was_acknowledged() {
    let root = Root::new();
    let cluster = root.start(1, 2, &[]);
    let mut wire = cluster.greeted(0);
    for number in 0..50 {
        acknowledged(&mut wire, &put(1, format!("gone {number}").as_bytes(), b"v"));
        acknowledged(&mut wire, &delete(1, format!("gone {number}").as_bytes()));
    }
    let (load, stop) = (Load::new(), AtomicBool::new(false));
    let mut rounds = Vec::new();
    std::thread::scope(|scope| {
        let wire = cluster.greeted(0);
        scope.spawn(|| load.write_until(wire, &stop));
        wait_until("it compacts", || cluster.counter(0, "compactions") >= 2);
        for round in 0..4 {
            let before = load.acknowledged();
            root.backup(0, &format!("backup-{round}"));
            rounds.push((before, load.sent()));
        }
        stop.store(true, Ordering::Relaxed);
    });
    drop(cluster);
    assert!(rounds[0].1 < rounds[3].0, "nothing was written meanwhile");
    for (round, (before, sent)) in rounds.iter().enumerate() {
        let (backup, data) = (format!("backup-{round}"), format!("restored-{round}"));
        let verified = run(&["verify", &root.at(&backup)]);
        assert_eq!(verified.code, Some(0), "{verified:?}");
        assert!(verified.stdout.contains("backup of n0 (node"), "{}", verified.stdout);
        let restored = root.restored(&[&backup], &data, 1 + round % 3);
        let mut wire = restored.greeted(0);
        check(&mut wire, before, sent);
        for number in 0..50 {
            let answer = wire.ask(&get(1, format!("gone {number}").as_bytes()));
            assert!(answer.values().is_empty(), "what was deleted stays so");
        }
        acknowledged(&mut wire, &put(1, &name(0), b"it takes writes"));
        assert_eq!(wire.ask(&get(1, &name(0))).values(), [b"it takes writes"]);
    }
}

/// No node has everything that a cluster acknowledged, and one of them was away. All of their backups together have it, in any
/// order, and what was deleted at some of them is deleted.
#[test]
fn backups_of_all_nodes_are_restored_together() {
    let root = Root::new();
    let mut cluster = root.start(3, 1, &[]);
    let mut wire = cluster.greeted(0);
    for key in 0..KEYS {
        acknowledged(&mut wire, &put(1, &name(key), &value(key as u64)));
    }
    cluster.kill(2);
    for key in 0..KEYS / 2 {
        if key % 2 == 0 {
            acknowledged(&mut wire, &delete(1, &name(key)));
        } else {
            acknowledged(&mut wire, &put(1, &name(key), &value((KEYS + key) as u64)));
        }
    }
    // One of a node that stands still, two of nodes that serve.
    (0..3).for_each(|node| root.backup(node, &format!("b{node}")));
    drop(cluster);
    for order in [["b0", "b1", "b2"], ["b2", "b1", "b0"]] {
        let restored = root.restored(&order, &format!("restored-{}", order[0]), 2);
        let mut wire = restored.greeted(0);
        for key in 0..KEYS {
            let answer = wire.ask(&get(1, &name(key)));
            match key {
                _ if key >= KEYS / 2 => assert_eq!(answer.values(), [value(key as u64)], "key {key}"),
                _ if key % 2 == 0 => assert!(answer.values().is_empty(), "key {key} was deleted"),
                _ => assert_eq!(answer.values(), [value((KEYS + key) as u64)], "key {key}"),
            }
        }
    }
}

/// Siblings stay siblings, a context still replaces what it covers, and what was to expire expires when it was to.
#[test]
fn causality_and_expiry_are_restored() {
    let root = Root::new();
    let cluster = root.start(1, 1, &[]);
    let at = |cluster: &Cluster| cluster.address(0).to_string();
    let done = |arguments: &[&str]| {
        let ended = run(arguments);
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
        ended.stdout
    };
    let server = at(&cluster);
    done(&["put", "cart", "milk", "--server", &server]);
    done(&["put", "cart", "eggs", "--beside", "--server", &server]);
    done(&["put", "brief", "v", "--ttl", "1h", "--server", &server]);
    let shown = |server: &str| done(&["get", "brief", "--json", "--server", server]);
    let versions = |text: &str| {
        let json: serde_json::Value = serde_json::from_str(text).unwrap();
        json["versions"].clone()
    };
    let before = versions(&shown(&server));
    assert!(before[0]["expiry_us"].as_u64().is_some_and(|expiry| expiry > 0), "{before}");
    root.backup(0, "backup");
    let restored = root.restored(&["backup"], "restored", 1);
    let server = at(&restored);
    assert_eq!(versions(&shown(&server)), before, "its expiry and its timestamp are what they were");
    let mut values: Vec<Vec<u8>> =
        restored.greeted(0).ask(&get(1, b"cart")).values().into_iter().map(<[u8]>::to_vec).collect();
    values.sort();
    assert_eq!(values, [b"eggs", b"milk"]);
    done(&["put", "cart", "both", "--server", &server]);
    assert_eq!(restored.greeted(0).ask(&get(1, b"cart")).values(), [b"both"]);
}

/// While a backup reads, no segment is let go, or it would have to begin again and again; when its process is killed, compaction
/// goes on, and what it leaves isn't taken for a backup.
#[test]
fn a_backup_holds_compaction_back_and_no_longer_than_it_lives() {
    let root = Root::new();
    let cluster = root.start(1, 1, &["--sync=20ms"]);
    let (load, stop) = (Load::new(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let wire = cluster.greeted(0);
        scope.spawn(|| load.write_until(wire, &stop));
        wait_until("it compacts", || cluster.counter(0, "compactions") >= 2);
        let mut backup = root.begin_backup(0, "backup", "64KiB");
        let (compactions, written) = (cluster.counter(0, "compactions"), load.total());
        // Enough for several.
        let enough = written + 6 * SEGMENT_BYTES / VALUE_BYTES as u64;
        wait_until("segments are filled", || load.total() >= enough);
        let held = cluster.counter(0, "compactions");
        assert!(backup.is_running(), "{}", backup.said());
        assert!(held <= compactions + 1, "{} compactions while a backup reads", held - compactions);
        backup.kill();
        wait_until("compaction goes on", || cluster.counter(0, "compactions") >= held + 2);
        stop.store(true, Ordering::Relaxed);
    });
    refused(&root.restore(&["backup"], "restored"), "was interrupted while it was made");
    refused(&run(&["verify", &root.at("backup")]), "was interrupted while it was made");
    refused(&run(&["backup", &root.at("backup"), "--data", &root.at("n0")]), "is not empty");
    assert!(!Path::new(&root.at("restored")).exists());
}

/// The node dies and starts again while it is backed up: its log goes on in another segment, and the backup has all of what was
/// acknowledged before it began.
#[test]
fn a_node_may_restart_while_it_is_backed_up() {
    let root = Root::new();
    let mut cluster = root.start(1, 1, &[]);
    let (load, stop) = (Load::new(), AtomicBool::new(false));
    let write = |cluster: &Cluster, until: u64| {
        std::thread::scope(|scope| {
            let wire = cluster.greeted(0);
            scope.spawn(|| load.write_until(wire, &stop));
            wait_until("enough is written", || load.total() >= until);
            stop.store(true, Ordering::Relaxed);
        });
        stop.store(false, Ordering::Relaxed);
    };
    write(&cluster, 1_000);
    let before = load.acknowledged();
    // 2 MB at least: the restart is over before it is.
    let mut backup = root.begin_backup(0, "backup", "512KiB");
    for _ in 0..2 {
        cluster.kill(0);
        cluster.restart(0);
        assert!(backup.is_running(), "{}", backup.said());
        write(&cluster, load.total() + 100);
    }
    let ended = backup.wait();
    assert_eq!(ended.code(), Some(0), "{}", backup.said());
    let restored = root.restored(&["backup"], "restored", 1);
    check(&mut restored.greeted(0), &before, &load.sent());
}

/// One clear sentence each, and nothing is made.
#[test]
fn what_is_no_whole_backup_of_another_cluster_is_refused() {
    let root = Root::new();
    let mut cluster = root.start(2, 1, &[]);
    let mut wire = cluster.greeted(0);
    for key in 0..KEYS {
        acknowledged(&mut wire, &put(1, &name(key), &value(key as u64)));
    }
    let backup = |to: &str, data: &str| run(&["backup", &root.at(to), "--data", &root.at(data)]);
    root.backup(0, "b0");
    root.backup(0, "again");
    root.backup(1, "b1");
    refused(&backup("b0", "n0"), "is not empty");
    refused(&backup("nothing", "elsewhere"), "is no data directory");
    refused(&backup("n0/here", "n0"), "lies in the node's data directory");
    refused(&root.restore(&["b0", "again"], "r"), "of which another is given");
    refused(&root.restore(&["elsewhere"], "r"), "is no backup");
    refused(&root.restore(&["b0"], "n1"), "is not empty");
    let as_it_was = ["--cluster", "ringmain", "--name", "n0"];
    let alone = Root::new();
    let single = alone.start(1, 1, &[]);
    alone.backup(0, "b");
    drop(single);
    let (from, into) = (alone.at("b"), alone.at("r"));
    let same = run(&[&["restore", &from, "--data", &into][..], &as_it_was].concat());
    refused(&same, "these names make the same");
    let into = root.at("r");
    let two = run(&["restore", &root.at("b0"), &from, "--data", &into, "--cluster", "c", "--name", "n"]);
    refused(&two, "restore each cluster on its own");
    let named = run(&["restore", &from, "--data", &into, "--cluster", "a=b", "--name", "n"]);
    assert_eq!(named.code, Some(2), "{named:?}");

    // Whatever is changed in it, or missing.
    let records = PathBuf::from(root.at("b1")).join("shard-0.records");
    let whole = std::fs::read(&records).unwrap();
    let mut bytes = whole.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&records, &bytes).unwrap();
    refused(&root.restore(&["b0", "b1"], "r"), "shard-0.records is damaged");
    refused(&run(&["verify", &root.at("b1")]), "shard-0.records is damaged");
    std::fs::write(&records, &whole[..middle]).unwrap();
    refused(&root.restore(&["b1"], "r"), "shard-0.records is damaged");
    std::fs::remove_file(&records).unwrap();
    refused(&root.restore(&["b1"], "r"), "No such file");
    std::fs::write(&records, &whole).unwrap();
    let description = PathBuf::from(root.at("b1")).join("description");
    let text = std::fs::read_to_string(&description).unwrap();
    std::fs::write(&description, text.replace("partitions 1024", "partitions 2048")).unwrap();
    refused(&root.restore(&["b1"], "r"), "description is damaged");
    std::fs::write(&description, text.replace("ringmain-backup 1", "ringmain-backup 2")).unwrap();
    refused(&root.restore(&["b1"], "r"), "is a backup of format 2, and this build reads 1");
    std::fs::remove_file(&description).unwrap();
    refused(&root.restore(&["b1"], "r"), "was interrupted while it was made");
    assert!(!Path::new(&into).exists(), "nothing was made");

    // A log that lacks something must not be taken for all there was.
    cluster.process(0).terminate();
    assert_eq!(cluster.process(0).wait().code(), Some(0));
    let segments = PathBuf::from(root.at("n0")).join("shard-0/segments");
    let mut bytes = std::fs::read(&segments).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[written / 2..written / 2 + 20_000].fill(0xaa);
    std::fs::write(&segments, bytes).unwrap();
    refused(&backup("lacking", "n0"), "a backup would lack something");
    assert!(!Path::new(&root.at("lacking")).exists());
    cluster.kill(0);
}

/// A restoration that ends in the middle leaves no directory from which a node would start, as if it had everything, or
/// nothing; the next one begins again.
#[test]
fn an_interrupted_restoration_is_not_taken_for_a_whole_one() {
    let root = Root::new();
    let cluster = root.start(1, 1, &[]);
    acknowledged(&mut cluster.greeted(0), &put(1, b"k", b"v"));
    root.backup(0, "backup");
    drop(cluster);
    assert_eq!(root.restore(&["backup"], "r").code, Some(0));
    // As it is just before its end, and with what it may leave earlier.
    let data = root.at("r");
    std::fs::write(Path::new(&data).join("restoring"), b"").unwrap();
    std::fs::create_dir_all(Path::new(&data).join("rehome/shard-0")).unwrap();
    let serve =
        ["serve", "--pin=false", "--shards=1", "--listen=127.0.0.1:0", "--name=n0", "--cluster=restored"];
    let started = run(&[&serve[..], &SMALL, &["--data", &data]].concat());
    refused(&started, "is being restored from a backup, or that was interrupted");
    refused(&run(&["verify", &data]), "is being restored from a backup, or that was interrupted");
    let restored = root.restored(&["backup"], "r", 1);
    assert_eq!(restored.greeted(0).ask(&get(1, b"k")).values(), [b"v"]);
    assert!(!Path::new(&data).join("restoring").exists());
    drop(restored);
    refused(&root.restore(&["backup"], "r"), "is not empty");
}

/// The disk that a backup goes to is full: the sentence says so, and nothing is left on it.
#[test]
fn a_backup_without_room_leaves_nothing() {
    let root = Root::new();
    let cluster = root.start(1, 1, &[]);
    let mut wire = cluster.greeted(0);
    for key in 0..KEYS {
        acknowledged(&mut wire, &put(1, &name(key), &value(key as u64)));
    }
    // A file may have 8 KiB, and the process is told so as it would be told of a full disk.
    let limited = "trap '' XFSZ; ulimit -f 16; exec \"$0\" \"$@\"";
    let program = env!("CARGO_BIN_EXE_ringmain");
    let into = root.at("backup");
    let output = Command::new("sh")
        .args(["-c", limited, program, "backup", &into, "--data", &root.at("n0")])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("nothing is left of this backup"), "{said}");
    assert!(!Path::new(&into).exists());
    root.backup(0, "backup");
}
