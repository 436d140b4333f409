//! Another number of shards than the last time: what the old logs hold is written into new ones, by partition.
//!
//! ```text
//! DIR/rehome/shard-0/..      new logs that are being written: worth nothing, and removed by the next start
//! DIR/rehomed-N/shard-0/..   all of them, whole and synced: the old ones are removed, and these take their places
//! ```
//!
//! The name of the second says how many there are. It is made by one rename, which is the moment at which the node has N shards:
//! a crash before that leaves the old logs as they were, one after it leaves work that the next start goes on with
//! ([`finish`]). The old logs are only read. It takes as much room again as they do, for as long as it lasts.
//!
//! Records of a key, a hint or a partition go to the shard that is to own it, in their order; what concerns a whole shard (the names
//! of replaced writes) to all of them, and what the node knew of the members to shard 0. Records that nothing needs any more are
//! written too: compaction finds them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ringmain_schema::Encoder;
use ringmain_schema::epoch::Beginnings;
use ringmain_schema::peer::Replicate;
use ringmain_schema::token::{shard_of, token};

use super::directory::{DataDirectory, DataError, of, sync_directory};
use super::disk::Buffer;
use super::read::read;
use super::recovery::{Files, LogIdentity, OpenLog, mark_adopted, open, read_manifest};
use crate::id::{PartitionId, ShardId};
use crate::ring::{Partitions, Token};
use crate::shard::{BadRecord, Record};
use crate::storage::log::{OpeningError, Purpose, Refused, SegmentTable, Writer};

/// Of a group, unless a single record is larger.
const GROUP_BYTES: usize = 1 << 20;
pub(super) const BEING_WRITTEN: &str = "rehome";
const WHOLE: &str = "rehomed-";

/// What changes.
#[derive(Clone, Debug)]
pub(in crate::shell) struct Rehoming {
    /// Shards that have a log.
    pub(in crate::shell) from: usize,
    /// Shards that are to have one.
    pub(in crate::shell) to: usize,
    /// Of the cluster.
    pub(in crate::shell) partitions: Partitions,
}

/// Write the logs anew, for another number of shards. `identity` says what the log of a shard is to be.
///
/// # Errors
///
/// [`DataError`]; the old logs are as they were.
pub(in crate::shell) fn rehome(
    directory: &DataDirectory,
    rehoming: &Rehoming,
    identity: impl Fn(ShardId) -> LogIdentity,
) -> Result<(), DataError> {
    replace(directory, rehoming.to, |scratch| {
        write_all(directory, scratch, rehoming, identity).map_err(|error| match error {
            // It may be the room for it that is missing.
            DataError::Io { source, .. } => {
                let (from, to) = (rehoming.from, rehoming.to);
                DataError::Rehome { directory: directory.path().to_owned(), from, to, source }
            }
            other => other,
        })
    })
}

/// Let so many logs that `write` makes in a directory of their own take the places of those that are there, if there are any.
///
/// # Errors
///
/// What `write` says, and [`DataError`]; the old logs are as they were.
pub(super) fn replace<T, E: From<DataError>>(
    directory: &DataDirectory,
    shards: usize,
    write: impl FnOnce(&Path) -> Result<T, E>,
) -> Result<T, E> {
    let scratch = directory.path().join(BEING_WRITTEN);
    let written = write(&scratch).inspect_err(|_| _ = fs::remove_dir_all(&scratch))?;
    let whole = directory.path().join(format!("{WHOLE}{shards}"));
    fs::rename(&scratch, &whole).map_err(of(&scratch))?;
    sync_directory(directory.path())?;
    finish(directory.path())?;
    Ok(written)
}

/// Logs that are whole take the places of the old ones; those that aren't go.
pub(super) fn finish(directory: &Path) -> Result<(), DataError> {
    let scratch = directory.join(BEING_WRITTEN);
    if scratch.exists() {
        fs::remove_dir_all(&scratch).map_err(of(&scratch))?;
    }
    let Some((whole, shards)) = find_whole(directory).map_err(of(directory))? else { return Ok(()) };
    let left = logs_in(&whole).map_err(of(&whole))?;
    if left.len() == shards {
        // None has moved yet, so all that are there are old.
        for (_, old) in logs_in(directory).map_err(of(directory))? {
            fs::remove_dir_all(&old).map_err(of(&old))?;
        }
        sync_directory(directory)?;
    }
    // The last one first: its number says how many there are.
    for (shard, log) in left.into_iter().rev() {
        fs::rename(&log, directory.join(name_of(shard))).map_err(of(&log))?;
        sync_directory(directory)?;
    }
    fs::remove_dir(&whole).map_err(of(&whole))?;
    sync_directory(directory)
}

/// New logs that are whole and have not all taken their places, and how many there are to be.
pub(super) fn find_whole(directory: &Path) -> io::Result<Option<(PathBuf, usize)>> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let shards = name.to_str().and_then(|name| name.strip_prefix(WHOLE)?.parse().ok());
        if let Some(shards) = shards {
            return Ok(Some((entry.path(), shards)));
        }
    }
    Ok(None)
}

/// The directories of shards, in the order of their numbers.
pub(super) fn logs_in(directory: &Path) -> io::Result<Vec<(usize, PathBuf)>> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(|name| name.strip_prefix("shard-")?.parse().ok());
        logs.extend(number.map(|number| (number, entry.path())));
    }
    logs.sort_unstable();
    Ok(logs)
}

pub(super) fn name_of(shard: usize) -> String {
    format!("shard-{shard}")
}

fn write_all(
    directory: &DataDirectory,
    scratch: &Path,
    rehoming: &Rehoming,
    identity: impl Fn(ShardId) -> LogIdentity,
) -> Result<(), DataError> {
    let mut logs = Vec::new();
    for shard in 0..rehoming.to {
        let path = scratch.join(name_of(shard));
        fs::create_dir_all(&path).map_err(of(&path))?;
        logs.push(Rewriting::new(&LogIdentity { directory: path, ..identity(ShardId(shard as u16)) })?);
    }
    let (mut records, mut blank, mut beginnings) = (0, None, Beginnings::default());
    for shard in 0..rehoming.from {
        let shard = ShardId(shard as u16);
        let identity = LogIdentity { directory: directory.of_shard(shard), ..identity(shard) };
        match route(&identity, rehoming, &mut logs, &mut beginnings)? {
            Some(routed) => records += routed,
            None => blank = Some(identity.directory),
        }
    }
    // No shard appends anything before all have made their logs.
    if let Some(directory) = blank.filter(|_| records > 0) {
        return Err(DataError::Missing { directory });
    }
    if beginnings.doubtful || !beginnings.noted.is_empty() {
        // Each shard notes what it has heard; to have heard it from another does no harm.
        let mut record = Vec::new();
        beginnings.encode(&mut Encoder::default(), &mut record);
        logs.iter_mut().try_for_each(|log| log.append(&record))?;
    }
    logs.into_iter().try_for_each(Rewriting::finish)?;
    sync_directory(scratch)
}

/// Give all records of an old log to the new ones: how many there were; `None` if nothing was ever written to it.
fn route(
    identity: &LogIdentity,
    rehoming: &Rehoming,
    logs: &mut [Rewriting],
    beginnings: &mut Beginnings,
) -> Result<Option<u64>, DataError> {
    let mut files = Files::look_at(&identity.directory)?;
    let Some((manifest, owner)) = read_manifest(identity, &files)? else { return Ok(None) };
    let is_copy = manifest.identity.home != owner.home;
    files.geometry = manifest.geometry;
    let mut is_doubtful = false;
    let report = read(&files, manifest, |sequence, record| {
        let record_error = |error| RouteError::Record { sequence, error };
        let parsed = Record::parse(record).map_err(record_error)?;
        match home_of(&parsed, rehoming) {
            Home::Shard(shard) => logs[usize::from(shard)].append(record)?,
            Home::All => logs.iter_mut().try_for_each(|log| log.append(record))?,
            Home::Beginnings(told) => {
                is_doubtful = told.doubtful;
                note_all(&mut beginnings.noted, &told.noted);
            }
        }
        Ok(())
    });
    let report = report.map_err(|error: RouteError| error.at(&identity.directory))?;
    for damage in &report.damages {
        eprintln!("ringmain: {}: {damage}: the replicas repair it", identity.directory.display());
    }
    if report.missing() > 0 || is_copy || is_doubtful {
        // The new logs have no damage. As after `--adopt`, the node lacks something until its own records tell it; and each shard's say
        // at once that what is missing may have ended what is there.
        beginnings.doubtful = true;
        mark_adopted(&super::recovery::adopted_marker(identity))?;
    }
    Ok(Some(report.records))
}

/// Where a record goes.
enum Home<'a> {
    Shard(u16),
    All,
    /// Into one record, with those of other shards.
    Beginnings(&'a Beginnings),
}

fn home_of<'a>(record: &'a Record<'_>, rehoming: &Rehoming) -> Home<'a> {
    let home = |partition: PartitionId| Home::Shard(shard_of(partition.0, rehoming.to as u16));
    match record {
        Record::Members(_) => Home::Shard(0),
        Record::Key(Replicate { key: [], .. }) => Home::All,
        Record::Key(key) => home(rehoming.partitions.of(Token(token(key.key)))),
        Record::GivenUp(given_up) => home(PartitionId(given_up.partition)),
        Record::Epoch(epoch) => home(PartitionId(epoch.partition)),
        Record::Beginnings(beginnings) => Home::Beginnings(beginnings),
    }
}

/// Of each node the greatest counts.
fn note_all(noted: &mut Vec<(u64, u64)>, told: &[(u64, u64)]) {
    for &(node, beginning) in told {
        match noted.iter_mut().find(|(of, _)| *of == node) {
            Some((_, known)) => *known = (*known).max(beginning),
            None => noted.push((node, beginning)),
        }
    }
}

/// Why an old log could not be given to the new ones.
enum RouteError {
    Read(io::Error),
    Record { sequence: u64, error: BadRecord },
    Write(DataError),
}

impl From<io::Error> for RouteError {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

impl From<DataError> for RouteError {
    fn from(error: DataError) -> Self {
        Self::Write(error)
    }
}

impl RouteError {
    fn at(self, directory: &Path) -> DataError {
        let directory = directory.to_owned();
        match self {
            Self::Read(source) => DataError::Io { path: directory, source },
            Self::Record { sequence, error } => DataError::Record { directory, sequence, error },
            Self::Write(error) => error,
        }
    }
}

/// A new log while it is filled.
pub(super) struct Rewriting {
    directory: PathBuf,
    files: Files,
    table: SegmentTable,
    writer: Writer,
    /// Records that no group holds yet.
    waiting: Vec<Vec<u8>>,
    waiting_bytes: usize,
    group: Buffer,
    image: Buffer,
}

impl Rewriting {
    pub(super) fn new(identity: &LogIdentity) -> Result<Self, DataError> {
        let OpenLog { files, opened, .. } = open(identity, |_, _, _| Ok(false))?;
        let image = Buffer::new(files.geometry.manifest_bytes());
        Ok(Self {
            directory: identity.directory.clone(),
            files,
            table: opened.table,
            writer: opened.writer,
            waiting: Vec::new(),
            waiting_bytes: 0,
            group: Buffer::new(GROUP_BYTES),
            image,
        })
    }

    pub(super) fn append(&mut self, record: &[u8]) -> Result<(), DataError> {
        self.waiting.push(record.to_vec());
        self.waiting_bytes += record.len();
        if self.waiting_bytes >= GROUP_BYTES { self.write() } else { Ok(()) }
    }

    /// Write all that waits.
    pub(super) fn write(&mut self) -> Result<(), DataError> {
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        let records: Vec<&[u8]> = waiting.iter().map(Vec::as_slice).collect();
        let mut left = &records[..];
        while !left.is_empty() {
            match self.writer.append(left, &mut self.group, &mut Vec::new()) {
                Ok(written) => {
                    left = &left[written.records..];
                    let carried = self.files.write(written.write, &self.group);
                    carried.map_err(of(&self.directory))?;
                }
                Err(Refused::NoSegment) => self.take_segment()?,
                Err(Refused::BufferTooSmall { needed }) => self.group = Buffer::new(needed),
                Err(refused) => return Err(self.opening(refused)),
            }
        }
        Ok(())
    }

    fn opening(&self, error: impl Into<OpeningError>) -> DataError {
        DataError::Opening { directory: self.directory.clone(), error: error.into() }
    }

    fn take_segment(&mut self) -> Result<(), DataError> {
        let segment = self.table.reserve(Purpose::Append).map_err(|error| self.opening(error))?;
        self.table.list(segment);
        self.persist()?;
        self.writer.add_segment(&self.table, segment);
        Ok(())
    }

    /// Make durable what was written, and have the manifest say so.
    fn persist(&mut self) -> Result<(), DataError> {
        if self.writer.begin_sync().is_some() {
            self.files.segments.sync().map_err(of(&self.directory))?;
            self.writer.on_synced();
        }
        while let Some((segment, range)) = self.writer.take_sealed() {
            self.table.seal(segment, range, false);
        }
        self.table.begin_persist(self.writer.durable(), &mut self.image);
        for step in self.table.persist_steps() {
            self.files.carry_out(step, &self.image).map_err(of(&self.directory))?;
        }
        self.table.on_persisted();
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<(), DataError> {
        self.write()?;
        self.persist()?;
        sync_directory(&self.directory)
    }
}
