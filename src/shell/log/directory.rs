//! A node's data directory: who may use it, and what is in it.
//!
//! ```text
//! DIR/lock                held while a process uses the directory
//! DIR/pinned              held while a backup reads: see `pin`
//! DIR/restoring           it is being restored from a backup, or that was interrupted
//! DIR/adopted             it was copied, or written anew with damage, and its node has not written yet that it lacks something
//! DIR/shard-0/manifest-0  the first copy of the manifest of shard 0's log
//! DIR/shard-0/manifest-1  the second
//! DIR/shard-0/segments    its slots, one after the other
//! DIR/shard-1/..
//! DIR/rehome/..           logs for another number of shards that are being written, and
//! DIR/rehomed-N/..        such that are whole: see `rehome`
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::disk::memory_file_system;
use super::pin::Pin;
use super::rehome::{find_whole, finish};
use crate::id::ShardId;
use crate::shard::BadRecord;
use crate::storage::log::{OpeningError, Refusal};

/// The file that says that a directory is not restored yet.
pub(super) const RESTORING: &str = "restoring";

/// Why a data directory can't be used.
#[derive(Debug, Error)]
pub enum DataError {
    /// It, or something in it, can't be opened, read or written.
    #[error("can't use {}: {source} (does it belong to the user who runs this node, and is there room?)", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else has it open.
    #[error("{} is in use by another process: stop that one, or give this node a directory of its own", directory.display())]
    Locked {
        /// Which.
        directory: PathBuf,
    },
    /// It is on a file system that is memory.
    #[error("{} is on {kind}, which is memory and keeps nothing: use a directory on a disk, or mode 'memory'", directory.display())]
    Memory {
        /// Which.
        directory: PathBuf,
        /// Of the file system.
        kind: &'static str,
    },
    /// Its file system can't do what the log is built on.
    #[error("the file system of {} has no direct access to its disk (O_DIRECT): use a directory on another, such as ext4 or XFS", path.display())]
    NoDirectAccess {
        /// What was tried.
        path: PathBuf,
    },
    /// It can't be written anew for another number of shards.
    #[error(
        "{} was written by {from} shard(s), and can't be written anew for {to}: {source}; nothing has changed: that takes as much \
         room again as it holds, or start it with --shards {from}", directory.display()
    )]
    Rehome {
        /// Which.
        directory: PathBuf,
        /// Shards that wrote it.
        from: usize,
        /// Shards that were to use it.
        to: usize,
        /// What the system said.
        source: io::Error,
    },
    /// That was interrupted, and nobody has gone on with it.
    #[error(
        "{} was being written anew for another number of shards: start its node, which goes on with that, and verify it then",
        directory.display()
    )]
    Interrupted {
        /// Which.
        directory: PathBuf,
    },
    /// It was to be made from backups, and isn't whole.
    #[error("{} is being restored from a backup, or that was interrupted: restore it once more", directory.display())]
    Unrestored {
        /// Which.
        directory: PathBuf,
    },
    /// Some of it is missing.
    #[error(
        "{} has no log, though the node has served from this directory before: restore it, or empty the whole data \
         directory and let the replicas fill it", directory.display()
    )]
    Missing {
        /// A shard's.
        directory: PathBuf,
    },
    /// The log is not this node's, or not readable.
    #[error("{}: {refusal}", directory.display())]
    Refused {
        /// A shard's.
        directory: PathBuf,
        /// Why.
        refusal: Refusal,
    },
    /// There is no room to open it.
    #[error("{}: {error}", directory.display())]
    Opening {
        /// A shard's.
        directory: PathBuf,
        /// Why.
        error: OpeningError,
    },
    /// A record is whole, and says nothing that this version understands.
    #[error("{}: record {sequence}: {error}", directory.display())]
    Record {
        /// A shard's.
        directory: PathBuf,
        /// Of the record.
        sequence: u64,
        /// Why.
        error: BadRecord,
    },
    /// Its segments are too small for what may be stored.
    #[error(
        "{} has segments of {found} bytes, and the largest record needs {needed}: lower value_bytes_max to what it was, or, if \
         replicas hold all of it too, empty the directory and let them fill it", directory.display()
    )]
    SegmentTooSmall {
        /// A shard's.
        directory: PathBuf,
        /// As it was created.
        found: usize,
        /// By the configuration.
        needed: usize,
    },
    /// Another shard of this node couldn't open its log, and says why.
    #[error("another shard of this node could not open its log")]
    Another,
}

/// An open data directory. Nobody else opens it while this lives.
#[derive(Debug)]
pub(in crate::shell) struct DataDirectory {
    path: PathBuf,
    /// Locked.
    _lock: File,
}

impl DataDirectory {
    /// Take it; a change of the number of shards that was interrupted is ended.
    pub(in crate::shell) fn open(path: &Path) -> Result<Self, DataError> {
        let directory = Self::take(path)?;
        directory.check_restored()?;
        finish(path)?;
        Ok(directory)
    }

    /// Take it, whatever is in it.
    pub(super) fn take(path: &Path) -> Result<Self, DataError> {
        fs::create_dir_all(path).map_err(of(path))?;
        if let Some(kind) = memory_file_system(path).map_err(of(path))? {
            return Err(DataError::Memory { directory: path.to_owned(), kind });
        }
        let lock_path = path.join("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path);
        Self::locked(path, lock.map_err(of(&lock_path))?)
    }

    fn check_restored(&self) -> Result<(), DataError> {
        let marker = self.path.join(RESTORING);
        if marker.try_exists().map_err(of(&marker))? {
            return Err(DataError::Unrestored { directory: self.path.clone() });
        }
        Ok(())
    }

    /// Make what isn't there yet for so many shards.
    pub(in crate::shell) fn make(&self, shards: usize) -> Result<(), DataError> {
        // The last one first: its number says how many there are.
        for shard in (0..shards).rev() {
            let of_shard = self.of_shard(ShardId(shard as u16));
            fs::create_dir_all(&of_shard).map_err(of(&of_shard))?;
        }
        sync_directory(&self.path)
    }

    /// Take one that is there, only to look at it.
    pub(super) fn look_at(path: &Path) -> Result<Self, DataError> {
        let lock_path = path.join("lock");
        let lock = OpenOptions::new().write(true).open(&lock_path).map_err(of(&lock_path))?;
        let directory = Self::locked(path, lock)?;
        directory.check_restored()?;
        if find_whole(path).map_err(of(path))?.is_some() {
            return Err(DataError::Interrupted { directory: path.to_owned() });
        }
        Ok(directory)
    }

    fn locked(path: &Path, lock: File) -> Result<Self, DataError> {
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataError::Locked { directory: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(DataError::Io { path: path.join("lock"), source }),
        }
    }

    /// By which a shard knows whether a backup reads its log.
    pub(in crate::shell) fn pin(&self) -> Result<Pin, DataError> {
        Pin::of(&self.path)
    }

    /// Where a shard's log is.
    pub(in crate::shell) fn of_shard(&self, shard: ShardId) -> PathBuf {
        self.path.join(format!("shard-{}", shard.0))
    }

    /// One more than the highest that has a directory here.
    pub(in crate::shell) fn shards_found(&self) -> Result<usize, DataError> {
        self.count_shards().map_err(of(&self.path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn count_shards(&self) -> io::Result<usize> {
        let mut found = 0;
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("shard-")?.parse::<usize>().ok());
            found = found.max(number.map_or(0, |number| number + 1));
        }
        Ok(found)
    }
}

/// Names in a directory outlive a power cut once it is synced.
pub(super) fn sync_directory(path: &Path) -> Result<(), DataError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(of(path))
}

/// Something went wrong there.
pub(super) fn of(path: &Path) -> impl Fn(io::Error) -> DataError + use<> {
    let path = path.to_owned();
    move |source| DataError::Io { path: path.clone(), source }
}
