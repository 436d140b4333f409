//! Taking a backup: the logs of a data directory are read while their node goes on writing them.
//!
//! For each shard in turn: the manifest is read, then all that its segments hold ([`read_while_written`]), then the manifest
//! again. If it still lists them all, none was used for anything else meanwhile, and what was read is one state of the log, as
//! a crash would have left it after the backup began. If not, all is read again. The pin keeps the node from letting segments
//! go, so that happens at most for one that was on its way out, or if the node's log is full.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringmain_schema::peer::Gossip;

use super::description::{Backup, NAME, ShardFile, UNFINISHED};
use super::records::{Writing, path_of, read};
use super::{BackupError, of};
use crate::config::check_name;
use crate::id::{ClusterId, NodeId, ShardId};
use crate::ring::Partitions;
use crate::shard::Record;
use crate::shell::log::directory::{DataError, sync_directory};
use crate::shell::log::pin::Pinned;
use crate::shell::log::read::read_while_written;
use crate::shell::log::recovery::Files;
use crate::shell::log::rehome::{find_whole, logs_in};
use crate::storage::log::{Damage, Identity, Manifest, Refusal, Report};

/// A log is read so often before it is given up: once is enough, once more if a segment was on its way out when it was pinned,
/// or if its node starts meanwhile.
const READS_MAX: usize = 5;
/// Both copies of the manifest may be caught while they are written. Each takes some milliseconds.
const MANIFEST_TRIES: usize = 200;
const MANIFEST_AGAIN: Duration = Duration::from_millis(10);
/// A pause that is worth making.
const PAUSE_LEAST: Duration = Duration::from_millis(5);

/// Copy what a node's logs hold into a new directory, at most so many bytes a second.
///
/// # Errors
///
/// [`BackupError`]; nothing is left that could be taken for a backup.
pub fn backup(data: &Path, into: &Path, rate: Option<u64>) -> Result<Backup, BackupError> {
    if !data.join("lock").exists() {
        return Err(BackupError::NoDataDirectory { path: data.to_owned() });
    }
    let taken = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if lies_in(into, data) {
        return Err(BackupError::Inside { path: into.to_owned() });
    }
    let _pinned = Pinned::take(data)?;
    let logs = Log::all_of(data)?;
    let place = Place::claim(into)?;
    let written = write(data, &logs, &place, taken, rate);
    if written.is_err() {
        place.clear(logs.len());
    }
    written
}

/// Whatever of the path is there already.
fn lies_in(path: &Path, directory: &Path) -> bool {
    let is_there = |path: &Path| {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        fs::canonicalize(path).ok()
    };
    let (path, directory) = (path.ancestors().find_map(is_there), is_there(directory));
    path.zip(directory).is_some_and(|(path, directory)| path.starts_with(directory))
}

/// Is a backup what its description says, and understood?
///
/// # Errors
///
/// [`BackupError`], if not.
pub fn verify_backup(path: &Path) -> Result<Backup, BackupError> {
    let backup = Backup::read(path)?;
    for (shard, file) in backup.shards.iter().enumerate() {
        let path = path_of(path, shard);
        read(&path, file, |sequence, record| understood(&path, sequence, record).map(drop))?;
    }
    Ok(backup)
}

/// A record as this version reads it.
pub(super) fn understood<'a>(
    path: &Path,
    sequence: u64,
    record: &'a [u8],
) -> Result<Record<'a>, BackupError> {
    Record::parse(record).map_err(|error| BackupError::Record { path: path.to_owned(), sequence, error })
}

fn write(
    data: &Path,
    logs: &[Log],
    place: &Place,
    taken: u64,
    rate: Option<u64>,
) -> Result<Backup, BackupError> {
    let (mut members, mut pace) = (None, Pace::new(rate));
    let mut segment_bytes = 0;
    let mut shards = Vec::new();
    for (shard, log) in logs.iter().enumerate() {
        shards.push(log.copy(&path_of(&place.path, shard), &mut members, &mut pace)?);
        segment_bytes = segment_bytes.max(log.files.geometry.segment_bytes() as u32);
    }
    if !Log::are_still(logs, data)? {
        return Err(BackupError::Changing { path: data.to_owned() });
    }
    let Some(members) = members else { return Err(BackupError::Nothing { path: data.to_owned() }) };
    let Identity { cluster, node, .. } = logs[0].owner;
    let own = members.members.into_iter().find(|member| member.node == node.0);
    let partitions = Partitions::new(members.partitions).unwrap_or_default().count();
    let name = own.map(|member| member.name).filter(|name| check_name(name, "node").is_ok());
    let name = name.unwrap_or_else(|| node.to_string());
    let backup = Backup { cluster, node, name, partitions, segment_bytes, taken, shards };
    place.describe(&backup)?;
    Ok(backup)
}

/// The log of one shard.
struct Log {
    directory: PathBuf,
    files: Files,
    owner: Identity,
}

impl Log {
    /// All are opened before any is read: what is removed later can be read all the same.
    fn all_of(data: &Path) -> Result<Vec<Self>, BackupError> {
        let found = logs_in(data).map_err(of(data))?;
        let is_changing = find_whole(data).map_err(of(data))?.is_some()
            || found.iter().enumerate().any(|(place, (number, _))| place != *number);
        if is_changing {
            return Err(BackupError::Changing { path: data.to_owned() });
        }
        let logs = found.into_iter().map(|(shard, directory)| Self::open(data, shard, directory));
        let logs = logs.collect::<Result<Vec<_>, _>>()?;
        let nothing = || BackupError::Nothing { path: data.to_owned() };
        let first = logs.first().ok_or_else(nothing)?.owner;
        let is_foreign = |log: &&Self| (log.owner.cluster, log.owner.node) != (first.cluster, first.node);
        match logs.iter().find(is_foreign) {
            Some(log) => {
                let refusal = Refusal::Foreign { found: log.owner };
                Err(DataError::Refused { directory: log.directory.clone(), refusal }.into())
            }
            None => Ok(logs),
        }
    }

    fn open(data: &Path, shard: usize, directory: PathBuf) -> Result<Self, BackupError> {
        let nobody = Identity { cluster: ClusterId(0), node: NodeId(0), shard: ShardId(0), home: 0 };
        let mut log = Self { files: Files::look_at(&directory)?, directory, owner: nobody };
        let Some(manifest) = log.manifest()? else {
            return Err(BackupError::Nothing { path: data.to_owned() });
        };
        log.owner = manifest.identity;
        log.files.geometry = manifest.geometry;
        if usize::from(log.owner.shard.0) != shard {
            let refusal = Refusal::Foreign { found: log.owner };
            return Err(DataError::Refused { directory: log.directory, refusal }.into());
        }
        Ok(log)
    }

    /// As it is now.
    fn manifest(&self) -> Result<Option<Manifest>, BackupError> {
        let mut tries = 0;
        loop {
            let (copies, has_segments) = self.files.read_manifests().map_err(of(&self.directory))?;
            let copies = [&copies[0][..], &copies[1][..]];
            let owner = Manifest::owner(copies).unwrap_or(self.owner);
            match Manifest::choose(copies, &owner, has_segments) {
                Ok(manifest) => return Ok(manifest),
                Err(Refusal::Damaged) if tries < MANIFEST_TRIES => {
                    tries += 1;
                    std::thread::sleep(MANIFEST_AGAIN);
                }
                Err(refusal) => {
                    return Err(DataError::Refused { directory: self.directory.clone(), refusal }.into());
                }
            }
        }
    }

    /// Are the files that were opened still those of the directory?
    fn are_still(logs: &[Self], data: &Path) -> Result<bool, BackupError> {
        let found = logs_in(data).map_err(of(data))?;
        if found.len() != logs.len() || find_whole(data).map_err(of(data))?.is_some() {
            return Ok(false);
        }
        for log in logs {
            let path = log.directory.join("segments");
            let is_there = fs::metadata(&path).map_err(of(&path))?.ino();
            if is_there != log.files.segments.inode().map_err(of(&path))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Write all that it holds to a file.
    fn copy(
        &self,
        path: &Path,
        members: &mut Option<Gossip>,
        pace: &mut Pace,
    ) -> Result<ShardFile, BackupError> {
        let unwritten = |source| BackupError::Unwritten { path: path.to_owned(), source };
        let overtaken = || BackupError::Overtaken { directory: self.directory.clone() };
        for _ in 0..READS_MAX {
            let before = self.manifest()?.ok_or_else(overtaken)?;
            let mut file = Writing::begin(path).map_err(unwritten)?;
            let report = read_while_written(&self.files, before.clone(), |sequence, record| {
                if let Record::Members(told) = understood(&self.directory, sequence, record)? {
                    *members = Some(told);
                }
                file.add(sequence, record).map_err(unwritten)?;
                pace.spend(record.len());
                Ok(())
            });
            let report = report.map_err(|error: Interrupted| error.at(&self.directory))?;
            let is_settled = self.manifest()?.is_some_and(|after| after.lists_all_of(&before));
            match lost(&report) {
                _ if !is_settled => {}
                Some(damage) => {
                    return Err(BackupError::Lacking { directory: self.directory.clone(), damage });
                }
                None => return file.finish().map_err(unwritten),
            }
        }
        Err(overtaken())
    }
}

/// The first damage that has cost a record.
fn lost(report: &Report) -> Option<Damage> {
    report.damages.iter().find(|damage| damage.missing.is_some()).copied()
}

/// Why a log was not read to its end.
enum Interrupted {
    Read(io::Error),
    Other(BackupError),
}

impl From<io::Error> for Interrupted {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

impl From<BackupError> for Interrupted {
    fn from(error: BackupError) -> Self {
        Self::Other(error)
    }
}

impl Interrupted {
    fn at(self, directory: &Path) -> BackupError {
        match self {
            Self::Read(source) => of(directory)(source),
            Self::Other(error) => error,
        }
    }
}

/// Where the backup goes.
struct Place {
    path: PathBuf,
    /// It wasn't there before.
    is_new: bool,
}

impl Place {
    /// It is empty, and nobody else begins a backup there.
    fn claim(path: &Path) -> Result<Self, BackupError> {
        let not_empty = || BackupError::NotEmpty { path: path.to_owned() };
        let is_new = !path.exists();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(of(path))?;
        if fs::read_dir(path).map_err(of(path))?.next().is_some() {
            return Err(not_empty());
        }
        let unfinished = path.join(UNFINISHED);
        match fs::OpenOptions::new().write(true).create_new(true).open(&unfinished) {
            Ok(_) => Ok(Self { path: path.to_owned(), is_new }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(not_empty()),
            Err(error) => Err(of(&unfinished)(error)),
        }
    }

    /// All files are there: say so. This makes it a backup.
    fn describe(&self, backup: &Backup) -> Result<(), BackupError> {
        let (unfinished, whole) = (self.path.join(UNFINISHED), self.path.join(NAME));
        let unwritten = |source| BackupError::Unwritten { path: whole.clone(), source };
        fs::write(&unfinished, backup.encode()).map_err(unwritten)?;
        fs::File::open(&unfinished).and_then(|file| file.sync_all()).map_err(unwritten)?;
        // The names of the files come before that of the description.
        sync_directory(&self.path)?;
        fs::rename(&unfinished, &whole).map_err(unwritten)?;
        sync_directory(&self.path)?;
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        Ok(sync_directory(parent.unwrap_or(Path::new(".")))?)
    }

    /// What was begun is worth nothing. Whatever can't be removed isn't taken for a backup either.
    fn clear(&self, shards: usize) {
        _ = fs::remove_file(self.path.join(NAME));
        (0..shards).for_each(|shard| _ = fs::remove_file(path_of(&self.path, shard)));
        _ = fs::remove_file(self.path.join(UNFINISHED));
        if self.is_new {
            _ = fs::remove_dir(&self.path);
        }
    }
}

/// So many bytes a second, on the whole.
struct Pace {
    rate: Option<u64>,
    begun: Instant,
    bytes: u64,
}

impl Pace {
    fn new(rate: Option<u64>) -> Self {
        Self { rate, begun: Instant::now(), bytes: 0 }
    }

    fn spend(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        let Some(rate) = self.rate else { return };
        let due = Duration::from_secs_f64(self.bytes as f64 / rate as f64);
        let ahead = due.saturating_sub(self.begun.elapsed());
        if ahead >= PAUSE_LEAST {
            std::thread::sleep(ahead);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use ringmain_schema::Encoder;
    use ringmain_schema::departure::GivenUp;

    use super::*;
    use crate::shell::log::recovery::LogIdentity;
    use crate::shell::log::rehome::Rewriting;
    use crate::storage::log::SECTOR_BYTES;

    const RECORDS: u32 = 5_000;

    fn record(number: u32) -> Vec<u8> {
        let mut record = Vec::new();
        GivenUp { partition: number, wiped: false }.encode(&mut Encoder::default(), &mut record);
        record
    }

    /// Its segments are small, so that it goes from one to the next all the time.
    fn log_in(directory: &Path) -> Rewriting {
        let identity = LogIdentity {
            directory: directory.to_owned(),
            cluster: ClusterId(1),
            node: NodeId(2),
            shard: ShardId(0),
            segment_bytes: 16 * SECTOR_BYTES as u32,
            record_bytes_max: 0,
            adopt: false,
        };
        Rewriting::new(&identity).unwrap()
    }

    /// However a look at the log falls together with its writing: all that was written before is there, in order, and what is
    /// only half there is neither shown nor taken for damage.
    #[test]
    fn a_log_is_read_while_it_is_written() {
        let root = tempfile::tempdir_in(".").unwrap();
        let directory = root.path().join("shard-0");
        fs::create_dir(&directory).unwrap();
        let written = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut log = log_in(&directory);
                for number in 1..=RECORDS {
                    log.append(&record(number)).unwrap();
                    if number % 7 == 0 || number == RECORDS {
                        log.write().unwrap();
                        written.store(number.into(), Ordering::Release);
                    }
                }
            });
            while written.load(Ordering::Acquire) == 0 && !writer.is_finished() {
                std::thread::yield_now();
            }
            let source = Log::open(root.path(), 0, directory.clone()).unwrap();
            let copy = root.path().join("copy");
            let mut reads = 0;
            let mut is_over = false;
            while !is_over {
                is_over = writer.is_finished();
                let before = written.load(Ordering::Acquire);
                let file = source.copy(&copy, &mut None, &mut Pace::new(None)).unwrap();
                assert!(file.records >= before, "{before} were written, and {} are there", file.records);
                let mut expected = 0;
                let in_order = read(&copy, &file, |sequence, found| {
                    expected += 1;
                    assert_eq!((sequence, found), (expected, &record(expected as u32)[..]));
                    Ok(())
                });
                in_order.unwrap();
                reads += 1;
            }
            assert_eq!(written.load(Ordering::Acquire), u64::from(RECORDS));
            assert!(reads > 2, "it was read {reads} times only");
        });
    }

    /// A reader that didn't look at the manifest again would take the noise for damage, or for the end of the log.
    #[test]
    fn a_segment_that_is_gone_is_noticed() {
        let root = tempfile::tempdir_in(".").unwrap();
        let directory = root.path().join("shard-0");
        fs::create_dir(&directory).unwrap();
        let mut log = log_in(&directory);
        for number in 1..=RECORDS {
            log.append(&record(number)).unwrap();
        }
        log.finish().unwrap();
        let source = Log::open(root.path(), 0, directory.clone()).unwrap();
        let before = source.manifest().unwrap().unwrap();
        let mut after = before.clone();
        assert!(after.lists_all_of(&before));
        let mut entry = after.entries.remove(0);
        assert!(!after.lists_all_of(&before));
        entry.segment.id.0 += 1_000;
        after.entries.push(entry);
        assert!(!after.lists_all_of(&before), "its slot is another segment's");
    }
}
