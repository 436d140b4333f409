//! Restoring: the states of keys that backups hold become the log of the founder of a new cluster.
//!
//! What is restored is what the nodes held: the state of each key with its tombstones, its causality and its expiry. A copy
//! that was kept for another node is a copy like any other now. What a log says besides is of the cluster of old, and is
//! left out: members, names of replaced writes, whatever of them.
//!
//! Each file is read as a start reads a log: of the records of a key the last one counts, and one without anything says that it is
//! gone, as the word about a partition says it of all its copies. What the files say of a key is then merged, as replicas
//! merge. That takes the memory of what there is, so it is done for one range of tokens after the other, as large as the memory
//! allows, with all files read for each: more data takes more time, not more memory. First of all they are read to see that they
//! are whole.
//!
//! Dots stay as they were minted, and no new one can be the same: each start of a node draws an actor of its own.
//!
//! It is one log, of one shard: by which partitions keys are spread is the new cluster's to say, so its first start spreads
//! them ([`rehome`](crate::shell::log::rehome)).

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ringmain_schema::Encoder;
use ringmain_schema::peer::ReplicateWriter;
use ringmain_schema::token::{partition, token};

use super::description::Backup;
use super::records::{path_of, read};
use super::taking::{understood, verify_backup};
use super::{BackupError, of};
use crate::causality::Siblings;
use crate::config::{SEGMENT_BYTES_MAX, check_name, segment_bytes_unless_set};
use crate::id::{ClusterId, NodeId, ShardId};
use crate::membership::{cluster_id, node_id};
use crate::replica::{state_from_wire, state_writer};
use crate::shard::{BadRecord, Record};
use crate::shell::log::directory::{DataDirectory, RESTORING, sync_directory};
use crate::shell::log::recovery::LogIdentity;
use crate::shell::log::rehome::{BEING_WRITTEN, Rewriting, find_whole, name_of, replace};
use crate::storage::digest;

/// Of all slots of the new log, it is to fill not more than so many.
const SLOTS_FILLED_MAX: u64 = 2048;
/// Of what the files hold, at least so much is looked at in one pass,
const BYTES_PER_PASS_LEAST: u64 = 512 << 20;
/// or this part of the memory that is free: what one log says is held beside what all of them have said, and small states take
/// more room in memory than in a file.
const PART_OF_MEMORY: u64 = 4;

/// What to restore, and as whom.
#[derive(Clone, Copy, Debug)]
pub struct Restoration<'a> {
    /// At least one.
    pub backups: &'a [PathBuf],
    /// Empty, or not there.
    pub data: &'a Path,
    /// The new cluster's name.
    pub cluster: &'a str,
    /// Of the node that founds it.
    pub name: &'a str,
    /// Of what the backups hold, as many bytes are looked at in one pass; `None`: as the free memory allows.
    pub memory: Option<u64>,
    /// Even if the backups were taken while copies moved from node to node.
    pub incomplete: bool,
}

/// How far a restoration has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pass {
    /// This one begins, counted from 1,
    pub number: u64,
    /// of so many. In each of them all backups are read.
    pub of: u64,
}

/// A data directory that was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restored {
    /// Of this cluster,
    cluster: ClusterId,
    /// and this node.
    node: NodeId,
    backups: Vec<Backup>,
    keys: u64,
}

impl fmt::Display for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.backups.iter().try_for_each(|backup| writeln!(f, "restored {backup}"))?;
        let Self { cluster, node, keys, .. } = self;
        let most = self.backups.iter().map(|backup| backup.ring.members).max().unwrap_or(0);
        if self.backups.len() < most {
            let given = self.backups.len();
            writeln!(f, "of {most} nodes {given} had a backup: what only the others held is not restored")?;
        }
        if self.backups.iter().any(|backup| backup.ring != self.backups[0].ring) {
            writeln!(
                f,
                "the ring changed between the backups: what moved from one node to another may be in none"
            )?;
        }
        if self.backups.iter().any(|backup| backup.hints > 0) {
            f.write_str(
                "states that were kept for other nodes are restored like others; one that was handed over after the backup of its \
                 owner was taken, and before that of its keeper, is in neither\n",
            )?;
        }
        write!(f, "{keys} keys, deleted ones among them, are node {node}'s now, of the new cluster {cluster}")
    }
}

/// Make a data directory from backups. `on_pass` is told of each pass over them that begins.
///
/// # Errors
///
/// [`BackupError`]; nothing is restored then.
pub fn restore(restoration: &Restoration<'_>, on_pass: impl FnMut(Pass)) -> Result<Restored, BackupError> {
    let Restoration { backups, data, cluster, name, memory, incomplete } = *restoration;
    check_name(cluster, "cluster")?;
    check_name(name, "node")?;
    let described = describe(backups)?;
    if !incomplete {
        check_rings(backups, &described)?;
    }
    let cluster = cluster_id(cluster, [name].into_iter());
    if let Some(same) = described.iter().find(|backup| backup.cluster == cluster) {
        return Err(BackupError::SameCluster { cluster: same.cluster });
    }
    check_empty(data)?;
    for path in backups {
        verify_backup(path)?;
    }
    let node = node_id(cluster, name);
    let identity = LogIdentity {
        directory: PathBuf::new(),
        cluster,
        node,
        shard: ShardId(0),
        segment_bytes: segment_bytes(&described),
        record_bytes_max: 0,
        adopt: false,
        reads: false,
    };
    let directory = take_empty(data)?;
    let unfinished = Unfinished::begin(data)?;
    let files = Files { backups, described: &described };
    let keys = replace(&directory, 1, |scratch| {
        let path = scratch.join(name_of(0));
        fs::create_dir_all(&path).map_err(of(&path))?;
        let log = Rewriting::new(&LogIdentity { directory: path, ..identity })?;
        let keys = write(files, log, memory.unwrap_or_else(bytes_per_pass), on_pass)?;
        sync_directory(scratch)?;
        Ok::<_, BackupError>(keys)
    })?;
    unfinished.end()?;
    Ok(Restored { cluster, node, backups: described, keys })
}

/// How many keys it holds then.
fn write(
    files: Files<'_>,
    mut log: Rewriting,
    bytes_per_pass: u64,
    mut on_pass: impl FnMut(Pass),
) -> Result<u64, BackupError> {
    let mut keys = 0;
    let passes = files.bytes() / bytes_per_pass.max(1) + 1;
    for pass in 0..passes {
        on_pass(Pass { number: pass + 1, of: passes });
        let merged = files.merged(pass, passes)?;
        keys += merged.len() as u64;
        append(&merged, &mut log)?;
    }
    log.finish()?;
    Ok(keys)
}

/// As the system says now.
fn bytes_per_pass() -> u64 {
    let available = fs::read_to_string("/proc/meminfo").ok().and_then(|told| available_bytes(&told));
    available.map_or(0, |bytes| bytes / PART_OF_MEMORY).max(BYTES_PER_PASS_LEAST)
}

fn available_bytes(told: &str) -> Option<u64> {
    let kib = told.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.strip_suffix("kB"))?;
    Some(kib.trim().parse::<u64>().ok()? << 10)
}

/// Nobody else uses it from now on; and nobody has, since it was found empty, which is some time ago.
fn take_empty(data: &Path) -> Result<DataDirectory, BackupError> {
    let directory = DataDirectory::take(data)?;
    check_empty(data)?;
    Ok(directory)
}

/// A directory that is being restored: no node starts from it, whatever is there already.
struct Unfinished<'a> {
    data: &'a Path,
    marker: PathBuf,
}

impl<'a> Unfinished<'a> {
    /// Say so, and clear away what another restoration has left.
    fn begin(data: &'a Path) -> Result<Self, BackupError> {
        let marker = data.join(RESTORING);
        fs::write(&marker, b"").map_err(of(&marker))?;
        sync_directory(data)?;
        let whole = find_whole(data).map_err(of(data))?.map(|(path, _)| path);
        for path in [data.join(name_of(0)), data.join(BEING_WRITTEN)].into_iter().chain(whole) {
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(of(&path)(error)),
                _ => {}
            }
        }
        Ok(Self { data, marker })
    }

    /// All of it is there, and in its place.
    fn end(self) -> Result<(), BackupError> {
        fs::remove_file(&self.marker).map_err(of(&self.marker))?;
        Ok(sync_directory(self.data)?)
    }
}

/// Of one cluster, and each of another node.
fn describe(backups: &[PathBuf]) -> Result<Vec<Backup>, BackupError> {
    let mut described: Vec<Backup> = Vec::new();
    for path in backups {
        let backup = Backup::read(path)?;
        if let Some(first) = described.first().filter(|first| first.cluster != backup.cluster) {
            let (found, first) = (backup.cluster, first.cluster);
            return Err(BackupError::OtherCluster { path: path.clone(), found, first });
        }
        if described.iter().any(|other| other.node == backup.node) {
            return Err(BackupError::Twice { path: path.clone(), node: backup.node });
        }
        described.push(backup);
    }
    Ok(described)
}

/// Copies may move from node to node only while the ring changes: then one may be in no backup at all.
fn check_rings(backups: &[PathBuf], described: &[Backup]) -> Result<(), BackupError> {
    for (path, backup) in backups.iter().zip(described) {
        let path = path.clone();
        if backup.ring.is_changing() {
            return Err(BackupError::RingChanging { path });
        }
        if backup.ring.hash != described[0].ring.hash {
            return Err(BackupError::OtherRing { path });
        }
    }
    Ok(())
}

/// Nothing is there but what a restoration that was interrupted has left.
fn check_empty(data: &Path) -> Result<(), BackupError> {
    let is_there = |path: &Path| path.try_exists().map_err(of(path));
    if !is_there(data)? {
        return Ok(());
    }
    let was_interrupted = is_there(&data.join(RESTORING))?;
    for entry in fs::read_dir(data).map_err(of(data))? {
        let name = entry.map_err(of(data))?.file_name();
        if name != "lock" && !was_interrupted {
            return Err(BackupError::NotEmpty { path: data.to_owned() });
        }
    }
    Ok(())
}

/// As large as they were, so that each record fits and the node takes values as large as before; and at least as a node needs them
/// that is configured to nothing else, or it would refuse them; larger, if one log could not hold it all.
fn segment_bytes(backups: &[Backup]) -> u32 {
    let files = || backups.iter().flat_map(|backup| &backup.shards);
    // With its header, and what aligns it.
    let bytes: u64 = files().map(|file| file.bytes + 64 * file.records).sum();
    let least = backups.iter().map(|backup| backup.segment_bytes).fold(segment_bytes_unless_set(), u32::max);
    let needed = (bytes / SLOTS_FILLED_MAX).next_power_of_two().min(SEGMENT_BYTES_MAX.into());
    least.max(needed as u32)
}

/// What is known of keys, by key.
type States = BTreeMap<Box<[u8]>, Siblings<Bytes>>;

/// What one log holds, by partition, the node for which it is kept (0 for the log's own), and key.
type Held = BTreeMap<u32, BTreeMap<(u64, Box<[u8]>), Siblings<Bytes>>>;

/// The files of all backups.
#[derive(Clone, Copy)]
struct Files<'a> {
    backups: &'a [PathBuf],
    /// In the same order.
    described: &'a [Backup],
}

impl Files<'_> {
    fn bytes(&self) -> u64 {
        self.described.iter().flat_map(|backup| &backup.shards).map(|file| file.bytes).sum()
    }

    /// What all of them say of the keys in one of so many ranges of tokens.
    fn merged(&self, pass: u64, passes: u64) -> Result<States, BackupError> {
        let mut states = States::new();
        for (path, backup) in self.backups.iter().zip(self.described) {
            for shard in 0..backup.shards.len() {
                let held = held_by(path, backup, shard, |token| range_of(token, passes) == pass)?;
                for ((_, key), state) in held.into_values().flatten() {
                    states.entry(key).or_default().merge(&state);
                }
            }
        }
        Ok(states)
    }
}

/// Which of so many ranges a token lies in.
fn range_of(token: u64, ranges: u64) -> u64 {
    ((u128::from(token) * u128::from(ranges)) >> 64) as u64
}

/// What one log held at its end, of the keys whose tokens are asked for.
fn held_by(
    backup: &Path,
    described: &Backup,
    shard: usize,
    is_asked: impl Fn(u64) -> bool,
) -> Result<Held, BackupError> {
    let path = path_of(backup, shard);
    let mut held = Held::new();
    read(&path, &described.shards[shard], |sequence, record| {
        match understood(&path, sequence, record)? {
            // Only names of writes.
            Record::Key(key) if key.key.is_empty() => {}
            Record::Key(key) => {
                let token = token(key.key);
                if is_asked(token) {
                    let state = state_from_wire(&key.state);
                    let state = state.map_err(|error| BackupError::Record {
                        path: path.clone(),
                        sequence,
                        error: BadRecord::Malformed(error.to_string()),
                    })?;
                    let held = held.entry(partition(token, described.partitions)).or_default();
                    let key = (key.hint_for, key.key.into());
                    _ = if state.is_empty() { held.remove(&key) } else { held.insert(key, state) };
                }
            }
            Record::GivenUp(given_up) => {
                if let Some(held) = held.get_mut(&given_up.partition) {
                    held.retain(|(hint_for, _), _| *hint_for != 0);
                }
            }
            // The records that end what a raise has forgotten come after it; a crash may have left it alone.
            Record::Epoch(epoch) if epoch.wiped => _ = held.remove(&epoch.partition),
            Record::Epoch(epoch) => {
                if let Some(held) = held.get_mut(&epoch.partition) {
                    held.retain(|(hint_for, key), state| {
                        let token = token(key);
                        *hint_for != 0 || !epoch.reaped.contains(&(token, digest(token, state)))
                    });
                }
            }
            Record::Members(_) | Record::Beginnings(_) => {}
        }
        Ok(())
    })?;
    Ok(held)
}

/// Let the log hold them as a node's own.
fn append(states: &States, log: &mut Rewriting) -> Result<(), BackupError> {
    let (mut encoder, mut record) = (Encoder::default(), Vec::new());
    for (key, state) in states {
        record.clear();
        let own = ReplicateWriter {
            key,
            state: state_writer(state),
            ring: 0,
            partition_epoch: 0,
            repair: false,
            replaced: &[],
            hint_for: 0,
            exchange: false,
        };
        own.encode(&mut encoder, 0, &mut record);
        log.append(&record)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::description::ShardFile;
    use super::super::noted::{Lacking, RingInForce};
    use super::super::records::Writing;
    use super::*;
    use crate::causality::{Actor, Content, VersionVector};
    use crate::id::OperationId;
    use crate::time::WallTime;
    use ringmain_schema::departure::GivenUp;

    const PARTITIONS: u32 = 64;

    /// The state of a key at a node that has written it so often.
    fn state(node: u64, writes: u32) -> Siblings<Bytes> {
        let (mut state, actor) = (Siblings::new(), Actor { id: node, epoch: 1 });
        for write in 1..=writes {
            let seen: VersionVector = state.context();
            let value = Content::Value(Bytes::from(format!("{node}.{write}")));
            state.put(actor, &seen, value, None, OperationId::NONE, WallTime(write.into()));
        }
        state
    }

    fn key(key: &[u8], hint_for: u64, state: &Siblings<Bytes>) -> Vec<u8> {
        let record = ReplicateWriter {
            key,
            state: state_writer(state),
            ring: 5,
            partition_epoch: 0,
            repair: false,
            replaced: &[],
            hint_for,
            exchange: false,
        };
        let mut out = Vec::new();
        record.encode(&mut Encoder::default(), 0, &mut out);
        out
    }

    fn given_up(key: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let partition = partition(token(key), PARTITIONS);
        GivenUp { partition, wiped: false }.encode(&mut Encoder::default(), &mut out);
        out
    }

    fn backup(path: &Path, node: u64, records: &[Vec<u8>]) -> Backup {
        fs::create_dir(path).unwrap();
        let mut writing = Writing::begin(&path_of(path, 0)).unwrap();
        for (sequence, record) in records.iter().enumerate() {
            writing.add(sequence as u64 + 1, record).unwrap();
        }
        described(node, 1 << 21, writing.finish().unwrap())
    }

    fn described(node: u64, segment_bytes: u32, file: ShardFile) -> Backup {
        Backup {
            cluster: ClusterId(1),
            node: NodeId(node),
            name: "n".to_owned(),
            partitions: PARTITIONS,
            segment_bytes,
            taken: 0,
            ring: RingInForce { hash: 1, change: 1, members: 2 },
            lacking: Lacking::NOTHING,
            hints: 0,
            shards: vec![file],
        }
    }

    /// Of one log the last record counts, whatever it says; logs are merged. A hint that was handed over, and the copies of a
    /// partition that was given up, don't come back: what became of the keys elsewhere isn't known here.
    #[test]
    fn the_last_record_counts_and_logs_are_merged() {
        let root = tempfile::tempdir().unwrap();
        let nothing = Siblings::new();
        let other = (0_u8..)
            .find(|key| partition(token(&[*key]), PARTITIONS) != partition(token(b"given up"), PARTITIONS));
        let other = [other.unwrap()];
        let first = [
            key(b"both", 0, &state(1, 1)),
            key(b"both", 0, &state(1, 2)),
            key(b"given up", 0, &state(1, 1)),
            key(b"given up", 9, &state(3, 1)),
            key(&other, 0, &state(1, 1)),
            given_up(b"given up"),
            key(b"handed over", 9, &state(1, 1)),
            key(b"handed over", 9, &nothing),
            key(b"kept", 9, &state(1, 1)),
            key(b"", 0, &nothing),
        ];
        let second = [key(b"both", 0, &state(2, 1)), key(b"both", 9, &state(1, 1))];
        let paths = [root.path().join("a"), root.path().join("b")];
        let described = [backup(&paths[0], 1, &first), backup(&paths[1], 2, &second)];
        let files = Files { backups: &paths, described: &described };
        let mut both = state(1, 2);
        both.merge(&state(2, 1));
        let expected: States =
            [(&b"both"[..], both), (b"given up", state(3, 1)), (&other, state(1, 1)), (b"kept", state(1, 1))]
                .into_iter()
                .map(|(key, state)| (key.into(), state))
                .collect();
        assert_eq!(files.merged(0, 1).unwrap(), expected);
        // However many passes there are, each key is in one of them.
        for passes in [2, 3, 64] {
            let mut all = States::new();
            for pass in 0..passes {
                let merged = files.merged(pass, passes).unwrap();
                let before = all.len() + merged.len();
                all.extend(merged);
                assert_eq!(all.len(), before, "a key was in two of {passes} passes");
            }
            assert_eq!(all, expected, "{passes} passes");
        }
        assert_eq!((range_of(0, 7), range_of(u64::MAX, 7)), (0, 6));
    }

    #[test]
    fn segments_are_as_large_as_they_were_and_larger_if_there_is_much() {
        let backup =
            |segment_bytes, bytes| described(2, segment_bytes, ShardFile { bytes, ..ShardFile::default() });
        let least = segment_bytes_unless_set();
        assert_eq!(segment_bytes(&[backup(1 << 21, 1000), backup(1 << 28, 0)]), 1 << 28);
        assert_eq!(segment_bytes(&[backup(1 << 21, 1 << 34)]), least, "or it is refused when it is started");
        assert_eq!(segment_bytes(&[backup(1 << 21, 1 << 38)]), 1 << 27);
        assert_eq!(segment_bytes(&[backup(1 << 21, 1 << 60)]), SEGMENT_BYTES_MAX);
    }

    /// It takes long to read all backups once; a node that was started meanwhile in the same place lost what it had taken.
    #[test]
    fn a_directory_that_was_filled_meanwhile_is_not_touched() {
        let root = tempfile::tempdir_in(".").unwrap();
        check_empty(root.path()).unwrap();
        fs::create_dir(root.path().join("shard-0")).unwrap();
        assert!(matches!(take_empty(root.path()), Err(BackupError::NotEmpty { .. })));
    }

    #[test]
    fn what_is_available_is_read_from_what_the_system_tells() {
        let told = "MemTotal:       16384000 kB\nMemFree:         1000 kB\nMemAvailable:    8192000 kB\nBuffers: 1 kB\n";
        assert_eq!(available_bytes(told), Some(8_192_000 << 10));
        assert_eq!(available_bytes("MemTotal: 1 kB\n"), None);
        assert_eq!(available_bytes("MemAvailable: many kB\n"), None);
        assert!(bytes_per_pass() >= BYTES_PER_PASS_LEAST);
    }
}
