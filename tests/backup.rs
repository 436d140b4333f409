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
/// A user who is not root.
const NOBODY: u32 = 65_534;
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
        self.restore_with(backups, data, &[])
    }

    fn restore_with(&self, backups: &[&str], data: &str, more: &[&str]) -> Ended {
        let backups: Vec<String> = backups.iter().map(|backup| self.at(backup)).collect();
        let mut arguments = vec!["restore"];
        arguments.extend(backups.iter().map(String::as_str));
        let data = self.at(data);
        arguments.extend(["--data", &data, "--cluster", "restored", "--name", "n0"]);
        arguments.extend(more);
        run(&arguments)
    }

    /// All that is here belongs to somebody who isn't root, if this is root.
    fn is_nobodys(&self) {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let mut paths = vec![self.0.path().to_owned()];
        while let Some(path) = paths.pop() {
            std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
            if path.is_dir() {
                paths.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
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
    let ended = root.restore(&["b0", "b1", "b2"], "told");
    assert!(!ended.stdout.contains("had a backup"), "{}", ended.stdout);
    let ended = root.restore(&["b0", "b1"], "two");
    assert!(ended.stdout.contains("of 3 nodes 2 had a backup"), "{}", ended.stdout);
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

/// What a node keeps for another is restored like any copy, and told: had it been handed over between two backups, it might be in
/// neither.
#[test]
fn hints_are_restored_and_told() {
    let root = Root::new();
    let mut cluster = root.start(4, 1, &[]);
    wait_until("its log says that it has begun", || {
        run(&["backup", &root.at("early"), "--data", &root.at("n3")]).code == Some(0)
    });
    cluster.kill(3);
    let mut wire = cluster.greeted(0);
    for key in 0..KEYS {
        acknowledged(&mut wire, &put(1, &name(key), &value(key as u64)));
    }
    let hints = |cluster: &Cluster| (0..3).map(|node| cluster.counter(node, "hints")).sum::<u64>();
    wait_until("all are kept that the missing node owns", || hints(&cluster) > 0);
    (0..4).for_each(|node| root.backup(node, &format!("b{node}")));
    drop(cluster);
    let ended = root.restore(&["b0", "b1", "b2", "b3"], "told");
    assert!(ended.stdout.contains("kept for "), "{}", ended.stdout);
    assert!(ended.stdout.contains("one that was handed over after"), "{}", ended.stdout);
    assert!(!run(&["verify", &root.at("b3")]).stdout.contains("kept for "), "it kept nothing");
    let restored = root.restored(&["b0", "b1", "b2", "b3"], "r", 1);
    let mut wire = restored.greeted(0);
    (0..KEYS).for_each(|key| assert_eq!(wire.ask(&get(1, &name(key))).values(), [value(key as u64)]));
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
    refused(&run(&["verify", &root.at("backup")]), "is being made, or was interrupted");
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
    // Two segments at least: the restarts are over before it is.
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
    refused(&root.restore(&["b1"], "r"), "is no backup");
    assert!(!Path::new(&into).exists(), "nothing was made");

    // A log that lacks something must not be taken for all there was.
    cluster.process(0).terminate();
    assert_eq!(cluster.process(0).wait().code(), Some(0));
    damage(&Path::new(&root.at("n0")).join("shard-0/segments"));
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
    refused(&run(&["backup", &root.at("b"), "--data", &data]), "restore it once more");
    let restored = root.restored(&["backup"], "r", 1);
    assert_eq!(restored.greeted(0).ask(&get(1, b"k")).values(), [b"v"]);
    assert!(!Path::new(&data).join("restoring").exists());
    drop(restored);
    refused(&root.restore(&["backup"], "r"), "is not empty");
}

/// What a node's own records say that it lacks is told to nobody by its log: after damage, what was damaged is compacted away, and a
/// node that came back empty has a log without any fault. Their backups passed for whole ones.
#[test]
fn a_node_that_lacks_something_is_not_backed_up_unless_asked_to() {
    let root = Root::new();
    let mut cluster = root.start(3, 2, &[]);
    let mut wire = cluster.greeted(0);
    for key in 0..KEYS {
        acknowledged(&mut wire, &put(1, &name(key), &value(key as u64)));
    }
    // While one owner is away nobody knows whether the other has everything.
    cluster.kill(0);
    let lacking = |cluster: &Cluster, node: usize| {
        let status = cluster.statuses(node).unwrap().remove(0);
        status.members.into_iter().find(|member| member.name == format!("n{node}")).unwrap().lacking
    };
    cluster.process(1).terminate();
    assert_eq!(cluster.process(1).wait().code(), Some(0));
    damage(&Path::new(&root.at("n1")).join("shard-1/segments"));
    cluster.restart(1);
    wait_until("the damage is compacted away", || cluster.counter(1, "compactions") > 0);
    cluster.kill(2);
    std::fs::remove_dir_all(root.at("n2")).unwrap();
    cluster.restart(2);
    for node in [1, 2] {
        assert!(lacking(&cluster, node) > 0);
        let (to, data) = (root.at(&format!("b{node}")), root.at(&format!("n{node}")));
        refused(&run(&["backup", &to, "--data", &data]), "partitions, and so would its backup");
        assert!(!Path::new(&to).exists());
        let ended = run(&["backup", &to, "--data", &data, "--incomplete"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let verified = run(&["verify", &to]);
        assert_eq!(verified.code, Some(0), "{verified:?}");
        assert!(verified.stdout.contains("incomplete: the node lacked"), "{}", verified.stdout);
        let restored = root.restore(&[&format!("b{node}")], &format!("r{node}"));
        assert!(restored.stdout.contains("incomplete: the node lacked"), "{restored:?}");
    }
    cluster.restart(0);
    wait_until("nobody lacks anything", || (1..3).all(|node| lacking(&cluster, node) == 0));
    // A record of that is on its way to the disk.
    wait_until("its log says so", || {
        let to = root.at("whole");
        run(&["backup", &to, "--data", &root.at("n2")]).code == Some(0)
    });
    assert!(!run(&["verify", &root.at("whole")]).stdout.contains("incomplete"));
    // What a copy, or a change of the number of shards after damage, leaves until the node's own records say it.
    cluster.kill(1);
    std::fs::write(Path::new(&root.at("n1")).join("adopted"), b"").unwrap();
    let (to, data) = (root.at("adopted"), root.at("n1"));
    refused(&run(&["backup", &to, "--data", &data]), "lacks some of what it held");
    let ended = run(&["backup", &to, "--data", &data, "--incomplete"]);
    assert!(ended.stdout.contains("incomplete: the node lacked some of what it held"), "{ended:?}");
}

fn damage(segments: &Path) {
    let mut bytes = std::fs::read(segments).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[written / 2..written / 2 + 20_000].fill(0xaa);
    std::fs::write(segments, bytes).unwrap();
}

/// Copies that move from one node to another between their backups may be in neither.
#[test]
fn backups_of_a_ring_that_changes_are_not_restored_together() {
    let root = Root::new();
    let mut cluster = root.start(3, 1, &[]);
    let mut wire = cluster.greeted(0);
    (0..10).for_each(|key| acknowledged(&mut wire, &put(1, &name(key), b"v")));
    root.backup(0, "before");
    let server = cluster.address(0).to_string();
    let data = format!("--data={}", root.at("n3"));
    cluster.join_with(1, &[&SMALL[..], &[data.as_str()]].concat());
    let changed = |arguments: &[&str]| {
        let ended = run(&[arguments, &["--server", &server]].concat());
        assert_eq!(ended.code, Some(0), "{ended:?}");
    };
    changed(&["join", "n3", "--wait", "20s"]);
    wait_until("all have settled on the ring", || {
        (0..4).all(|node| cluster.statuses(node).unwrap().iter().all(|status| status.change.is_empty()))
    });
    wait_until("its log says so", || {
        let ended = run(&["backup", &root.at("after"), "--data", &root.at("n1"), "--incomplete"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let is_over = !ended.stdout.contains("the ring was changing");
        if !is_over {
            std::fs::remove_dir_all(root.at("after")).unwrap();
        }
        is_over
    });
    refused(&root.restore(&["before", "after"], "r"), "when another ring was in force");
    assert!(!Path::new(&root.at("r")).exists());

    // A change that waits for somebody.
    cluster.kill(2);
    changed(&["weight", "n1", "200"]);
    wait_until("its log says so", || {
        let ended = run(&["backup", &root.at("amid"), "--data", &root.at("n1"), "--incomplete"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let is_begun = ended.stdout.contains("the ring was changing");
        if !is_begun {
            std::fs::remove_dir_all(root.at("amid")).unwrap();
        }
        is_begun
    });
    refused(&root.restore(&["amid"], "r"), "was taken while the ring was changing");
    let ended = root.restore_with(&["amid", "before"], "r", &["--incomplete"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("the ring was changing"), "{ended:?}");
    assert!(ended.stdout.contains("the ring changed between the backups"), "{ended:?}");
}

/// A backup needs to read the node's files and no more, and leaves nothing there: one that was taken by root made a file that
/// the node couldn't open, and it didn't start any more.
#[test]
fn a_backup_changes_nothing_in_the_data_directory() {
    let root = Root::new();
    let mut cluster = root.start(1, 1, &[]);
    acknowledged(&mut cluster.greeted(0), &put(1, b"k", b"v"));
    cluster.kill(0);
    // As an older build left it.
    std::fs::remove_file(Path::new(&root.at("n0")).join("pinned")).unwrap();
    root.backup(0, "backup");
    let names = std::fs::read_dir(root.at("n0")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["lock", "shard-0"]);
    cluster.restart(0);
    assert_eq!(cluster.greeted(0).ask(&get(1, b"k")).values(), [b"v"]);
}

/// A backup that was whole was removed because its parent could be written to, and not be opened.
#[test]
fn a_backup_beside_which_nothing_can_be_read_is_kept() {
    let root = Root::new();
    let mut cluster = root.start(1, 1, &[]);
    acknowledged(&mut cluster.greeted(0), &put(1, b"k", b"v"));
    cluster.kill(0);
    let parent = PathBuf::from(root.at("parent"));
    std::fs::create_dir_all(parent.join("there")).unwrap();
    root.is_nobodys();
    let allow = |path: &Path, mode| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    allow(&parent, 0o300);
    let data = root.at("n0");
    let backup = |to: &str| run_as_nobody(&["backup", &root.at(to), "--data", &data]);
    let ended = backup("parent/there");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    refused(&backup("parent/new"), "can't use");
    allow(&parent, 0o700);
    assert!(!parent.join("new").exists());
    assert_eq!(run(&["verify", &root.at("parent/there")]).code, Some(0));
    // A directory that can't be looked into was said to be none.
    allow(Path::new(&data), 0o000);
    refused(&backup("other"), "can't be read by this user");
    allow(Path::new(&data), 0o700);
}

/// Root may do everything.
fn run_as_nobody(arguments: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmain"));
    if rustix::process::geteuid().is_root() {
        std::os::unix::process::CommandExt::uid(&mut command, NOBODY);
        std::os::unix::process::CommandExt::gid(&mut command, NOBODY);
    }
    let output = command.args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Less memory takes more passes, and each is told.
#[test]
fn a_restoration_goes_over_the_backups_as_often_as_the_memory_asks_for() {
    let root = Root::new();
    let cluster = root.start(1, 2, &[]);
    let mut wire = cluster.greeted(0);
    for key in 0..KEYS {
        acknowledged(&mut wire, &put(1, &name(key), &value(key as u64)));
    }
    root.backup(0, "backup");
    drop(cluster);
    let ended = root.restore_with(&["backup"], "r", &["--memory", "64KiB"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let passes = ended.stderr.lines().count();
    assert!(passes > 3, "{} bytes in pieces of 64 KiB: {}", KEYS * VALUE_BYTES, ended.stderr);
    let last = format!("pass {passes} of {passes} over all backups");
    assert!(ended.stderr.contains("pass 1 of ") && ended.stderr.contains(&last), "{}", ended.stderr);
    assert!(ended.stdout.contains(&format!("{KEYS} keys")), "{}", ended.stdout);
    assert_eq!(root.restore_with(&["backup"], "all", &[]).stderr, "");
}

/// The rate is that of reading: a segment in which little is needed was read as fast as the disk gave it.
#[test]
fn the_rate_bounds_what_is_read() {
    let root = Root::new();
    let cluster = root.start(1, 1, &[]);
    acknowledged(&mut cluster.greeted(0), &put(1, b"k", b"v"));
    let begun = std::time::Instant::now();
    let ended = run(&["backup", &root.at("b"), "--data", &root.at("n0"), "--rate", "1MiB"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let least = std::time::Duration::from_secs(SEGMENT_BYTES >> 20);
    assert!(begun.elapsed() >= least, "{SEGMENT_BYTES} bytes in {:?}", begun.elapsed());
}

/// The command that a restoration prints was refused if the old nodes had small segments, with the advice to empty the
/// directory.
#[test]
fn what_was_restored_starts_as_is_said() {
    let root = Root::new();
    let cluster = root.start(1, 1, &[]);
    acknowledged(&mut cluster.greeted(0), &put(1, b"k", b"v"));
    root.backup(0, "backup");
    drop(cluster);
    let ended = root.restore(&["backup"], "r");
    let words = format!("start it: ringmain serve --data {} --cluster restored --name n0", root.at("r"));
    assert!(ended.stdout.contains(&words), "{}", ended.stdout);
    let data = format!("--data={}", root.at("r"));
    let restored = Cluster::start_each(1, 1, &["--cluster=restored"], |_| Some(data.clone()));
    assert_eq!(restored.greeted(0).ask(&get(1, b"k")).values(), [b"v"]);
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
