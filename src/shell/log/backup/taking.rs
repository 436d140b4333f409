//! Taking a backup: the logs of a data directory are read while their node goes on writing them.
//!
//! For each shard in turn: the manifest is read, then all that its segments hold ([`read_while_written`]), then the manifest
//! again. If it still lists them all, none was used for anything else meanwhile, and what was read is one state of the log, as
//! a crash would have left it after the backup began. If not, which is looked at after each segment, all is read again. The pin keeps the node from letting segments
//! go, so that happens at most for one that was on its way out, or if the node's log is full.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::description::{Backup, ShardFile};
use super::noted::{Lacking, Noted, Said, said_of};
use super::place::Place;
use super::records::{Writing, path_of, read};
use super::{BackupError, of};
use crate::config::check_name;
use crate::id::{ClusterId, NodeId, ShardId};
use crate::ring::Partitions;
use crate::shard::Record;
use crate::shell::log::directory::{DataError, RESTORING};
use crate::shell::log::pin::Pinned;
use crate::shell::log::read::{Told, read_while_written};
use crate::shell::log::recovery::{ADOPTED, Files};
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

/// What to copy, and where.
#[derive(Clone, Copy, Debug)]
pub struct Taking<'a> {
    /// A node's data directory.
    pub data: &'a Path,
    /// Empty, or not there.
    pub into: &'a Path,
    /// Read at most so many bytes in a second.
    pub rate: Option<u64>,
    /// Even if the node lacks something.
    pub incomplete: bool,
}

/// Copy what a node's logs hold into a new directory.
///
/// # Errors
///
/// [`BackupError`]; nothing is left that could be taken for a backup.
pub fn backup(taking: &Taking<'_>) -> Result<Backup, BackupError> {
    let Taking { data, into, .. } = *taking;
    check_data(data)?;
    let taken = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if lies_in(into, data) {
        return Err(BackupError::Inside { path: into.to_owned() });
    }
    let _pinned = Pinned::take(data)?;
    let logs = Log::all_of(data)?;
    let place = Place::claim(into)?;
    let written = write(taking, &logs, &place, taken);
    if written.is_err() {
        place.clear(logs.len());
    }
    written
}

/// Is it a data directory, and all there?
fn check_data(data: &Path) -> Result<(), BackupError> {
    let has = |name: &str| {
        let path = data.join(name);
        path.try_exists().map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => BackupError::Forbidden { path: data.to_owned() },
            _ => of(&path)(error),
        })
    };
    if has(RESTORING)? {
        return Err(DataError::Unrestored { directory: data.to_owned() }.into());
    }
    if !has("lock")? {
        return Err(BackupError::NoDataDirectory { path: data.to_owned() });
    }
    Ok(())
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

fn write(taking: &Taking<'_>, logs: &[Log], place: &Place, taken: u64) -> Result<Backup, BackupError> {
    let Taking { data, rate, incomplete, .. } = *taking;
    let mut pace = Pace::new(rate);
    let was_adopted = is_adopted(data)?;
    let (mut shards, mut noted) = (Vec::new(), Vec::new());
    for (shard, log) in logs.iter().enumerate() {
        let (file, of_log) = log.copy(&path_of(&place.path, shard), &mut pace)?;
        shards.push(file);
        noted.push(of_log);
    }
    let Identity { cluster, node, .. } = logs[0].owner;
    // Shard 0's log says it.
    let Some(members) = noted[0].take_members() else {
        return Err(BackupError::Nothing { path: data.to_owned() });
    };
    let mut said = Said::of(&members, node);
    if logs.len() > 1 {
        // While the other logs were read it may have lacked something, or no more what it had lacked; and the ring as well.
        said = logs[0].said_since(shards[0].through, said, &mut pace)?;
    }
    let Said { mut lacking, ring } = said;
    if was_adopted || is_adopted(data)? {
        lacking = Lacking::Unknown;
    }
    if lacking != Lacking::NOTHING && !incomplete {
        let lacking = lacking.to_string();
        return Err(BackupError::Incomplete { path: data.to_owned(), lacking });
    }
    if !Log::are_still(logs, data)? {
        return Err(BackupError::Changing { path: data.to_owned() });
    }
    let partitions = Partitions::new(members.partitions).unwrap_or_default().count();
    let own = said_of(&members, node).map(|member| member.name.clone());
    let name = own.filter(|name| check_name(name, "node").is_ok()).unwrap_or_else(|| node.to_string());
    let segment_bytes = logs.iter().map(|log| log.files.geometry.segment_bytes() as u32).max().unwrap_or(0);
    let hints = noted.iter().map(|noted| noted.hints(partitions)).sum();
    let backup =
        Backup { cluster, node, name, partitions, segment_bytes, taken, ring, lacking, hints, shards };
    place.describe(&backup)?;
    Ok(backup)
}

/// Until the node's own records say that it lacks something, this says it.
fn is_adopted(data: &Path) -> Result<bool, BackupError> {
    let marker = data.join(ADOPTED);
    marker.try_exists().map_err(of(&marker))
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

    /// Does its manifest still list all segments of this one?
    fn lists_all_of(&self, before: &Manifest) -> Result<bool, BackupError> {
        Ok(self.manifest()?.is_some_and(|after| after.lists_all_of(before)))
    }

    fn overtaken(&self) -> BackupError {
        BackupError::Overtaken { directory: self.directory.clone() }
    }

    /// Write all that it holds to a file.
    fn copy(&self, path: &Path, pace: &mut Pace) -> Result<(ShardFile, Noted), BackupError> {
        for _ in 0..READS_MAX {
            let before = self.manifest()?.ok_or_else(|| self.overtaken())?;
            if let Some(copied) = self.copy_once(path, &before, pace)? {
                return Ok(copied);
            }
        }
        Err(self.overtaken())
    }

    /// `None` if a segment was let go meanwhile.
    fn copy_once(
        &self,
        path: &Path,
        before: &Manifest,
        pace: &mut Pace,
    ) -> Result<Option<(ShardFile, Noted)>, BackupError> {
        let unwritten = |source| BackupError::Unwritten { path: path.to_owned(), source };
        let mut file = Writing::begin(path).map_err(unwritten)?;
        let mut noted = Noted::default();
        let report = self.read(before, 0, pace, |sequence, record| {
            noted.on_record(understood(&self.directory, sequence, record)?);
            file.add(sequence, record).map_err(unwritten)
        })?;
        match report {
            None => Ok(None),
            Some(report) => match lost(&report) {
                Some(damage) => Err(BackupError::Lacking { directory: self.directory.clone(), damage }),
                None => Ok(Some((file.finish().map_err(unwritten)?, noted))),
            },
        }
    }

    /// What the node has said, and says in any record after this one.
    fn said_since(&self, since: u64, before: Said, pace: &mut Pace) -> Result<Said, BackupError> {
        for _ in 0..READS_MAX {
            let manifest = self.manifest()?.ok_or_else(|| self.overtaken())?;
            let mut said = before;
            let report = self.read(&manifest, since, pace, |sequence, record| {
                if let Record::Members(members) = understood(&self.directory, sequence, record)?
                    && sequence > since
                {
                    said = said.and(Said::of(&members, self.owner.node));
                }
                Ok(())
            })?;
            if report.is_some() {
                return Ok(said);
            }
        }
        Err(self.overtaken())
    }

    /// Give `each` all records in segments that hold anything after `since`. `None` if a segment was let go meanwhile: that is
    /// noticed when the next one is read.
    fn read(
        &self,
        before: &Manifest,
        since: u64,
        pace: &mut Pace,
        mut each: impl FnMut(u64, &[u8]) -> Result<(), BackupError>,
    ) -> Result<Option<Report>, BackupError> {
        let read = read_while_written(&self.files, before.clone(), since, |told| match told {
            Told::Record(sequence, record) => Ok(each(sequence, record)?),
            Told::Piece(bytes) => {
                pace.spend(bytes);
                Ok(())
            }
            Told::Segment if self.lists_all_of(before)? => Ok(()),
            Told::Segment => Err(Interrupted::Overtaken),
        });
        match read {
            Ok(report) => Ok(self.lists_all_of(before)?.then_some(report)),
            Err(Interrupted::Overtaken) => Ok(None),
            Err(Interrupted::Read(source)) => Err(of(&self.directory)(source)),
            Err(Interrupted::Other(error)) => Err(error),
        }
    }
}

/// The first damage that has cost a record.
fn lost(report: &Report) -> Option<Damage> {
    report.damages.iter().find(|damage| damage.missing.is_some()).copied()
}

/// Why a log was not read to its end.
enum Interrupted {
    /// A segment was let go.
    Overtaken,
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

    use ringmain_schema::departure::GivenUp;
    use ringmain_schema::peer::{Gossip, MemberRecord};
    use ringmain_schema::{Encoder, Kind};

    use super::super::noted::tests::record as own;
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
            reads: false,
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
                let file = source.copy(&copy, &mut Pace::new(None)).unwrap().0;
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

    /// A log of which a segment is gone was read to its end before that was noticed, and then all over again.
    #[test]
    fn what_is_overtaken_is_not_read_to_its_end() {
        let root = tempfile::tempdir_in(".").unwrap();
        let directory = root.path().join("shard-0");
        fs::create_dir(&directory).unwrap();
        let mut log = log_in(&directory);
        (1..=RECORDS).for_each(|number| log.append(&record(number)).unwrap());
        log.finish().unwrap();
        let source = Log::open(root.path(), 0, directory.clone()).unwrap();
        let mut before = source.manifest().unwrap().unwrap();
        let (copy, segment_bytes) = (root.path().join("copy"), 16 * SECTOR_BYTES as u64);
        let mut pace = Pace::new(None);
        assert!(source.copy_once(&copy, &before, &mut pace).unwrap().is_some());
        assert!(pace.bytes > 3 * segment_bytes, "{} bytes", pace.bytes);
        before.entries[0].segment.id.0 += 1_000;
        let mut pace = Pace::new(None);
        assert!(source.copy_once(&copy, &before, &mut pace).unwrap().is_none());
        assert!(pace.bytes <= 2 * segment_bytes, "{} bytes", pace.bytes);
    }

    /// Each shard's log is read at another time. A partition that had not all of its copies when one of them was read may have them
    /// when the last one is.
    #[test]
    fn what_was_lacking_meanwhile_is_found() {
        let root = tempfile::tempdir_in(".").unwrap();
        let directory = root.path().join("shard-0");
        fs::create_dir(&directory).unwrap();
        let mut log = log_in(&directory);
        let members = |lacking: &[u64]| {
            let own =
                MemberRecord { node: 2, complete: lacking.is_empty(), lacking: lacking.to_vec(), ..own() };
            let gossip = Gossip { ring: 0, members: vec![own], partitions: 1024, replicas: 3 };
            let mut out = Vec::new();
            gossip.encode(&mut Encoder::default(), Kind::GOSSIP, 0, &mut out);
            out
        };
        log.append(&members(&[7])).unwrap();
        log.append(&members(&[])).unwrap();
        (1..=RECORDS).for_each(|number| log.append(&record(number)).unwrap());
        log.append(&members(&[1])).unwrap();
        log.append(&members(&[])).unwrap();
        log.write().unwrap();
        let source = Log::open(root.path(), 0, directory.clone()).unwrap();
        let last = u64::from(RECORDS) + 4;
        let nothing = Gossip { ring: 0, members: vec![own()], partitions: 1024, replicas: 3 };
        let nothing = Said::of(&nothing, NodeId(own().node));
        let lacked = |since| {
            let mut pace = Pace::new(None);
            (source.said_since(since, nothing, &mut pace).unwrap().lacking, pace.bytes)
        };
        let (all, all_bytes) = lacked(0);
        assert_eq!(all, Lacking::Partitions(3));
        assert_eq!(lacked(2).0, Lacking::Partitions(1));
        let (none, bytes) = lacked(last);
        assert_eq!(none, Lacking::NOTHING);
        assert!(bytes < all_bytes / 2, "{bytes} of {all_bytes} bytes: what was known is not read again");
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
