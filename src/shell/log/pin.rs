//! Segments that a backup reads stay where they are: whoever reads holds a lock, and whoever compacts looks at it.
//!
//! The lock is the kernel's, on the file `DIR/pinned`: it ends with the process that holds it, however that ends, so there is no
//! lease to be renewed and nothing to be tidied up. Readers share it. It is a courtesy and not the proof: a log without room
//! releases its segments all the same, and a reader checks afterwards that all it has read was still listed.
//!
//! The node makes the file. A reader only opens it, so that it needs no right to write to the directory, and leaves nothing there
//! that the node can't open.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use super::directory::{DataError, of};

const NAME: &str = "pinned";
/// The node itself looks at the lock for a moment only, so a reader that is not let in tries again,
const AGAIN_AFTER: Duration = Duration::from_millis(1);
/// so often.
const TRIES_MAX: usize = 10_000;

/// What a shard looks at before it lets a segment go.
#[derive(Debug)]
pub(in crate::shell) struct Pin(File);

/// What a reader holds.
#[derive(Debug)]
pub(super) struct Pinned {
    _lock: File,
}

impl Pin {
    /// Of a data directory.
    pub(super) fn of(directory: &Path) -> Result<Self, DataError> {
        let path = directory.join(NAME);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.open(&path).map(Self).map_err(of(&path))
    }

    /// Does anybody read?
    pub(super) fn is_held(&self) -> bool {
        match self.0.try_lock() {
            // Nobody. The next reader is not kept out; what can't be unlocked would keep all out, and is as good as held.
            Ok(()) => self.0.unlock().is_err(),
            Err(TryLockError::WouldBlock) => true,
            // A file system without locks: the reader finds out by itself what was let go.
            Err(TryLockError::Error(_)) => false,
        }
    }
}

impl Pinned {
    /// Hold the segments of a data directory. `None` if nobody would look at that: no node that looks has served from it, or its
    /// file system has no locks.
    pub(super) fn take(directory: &Path) -> Result<Option<Self>, DataError> {
        let path = directory.join(NAME);
        let lock = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(of(&path))?,
        };
        for _ in 0..TRIES_MAX {
            match lock.try_lock_shared() {
                Ok(()) => return Ok(Some(Self { _lock: lock })),
                Err(TryLockError::WouldBlock) => std::thread::sleep(AGAIN_AFTER),
                Err(TryLockError::Error(_)) => return Ok(None),
            }
        }
        Err(of(&path)(io::ErrorKind::WouldBlock.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_held_as_long_as_anybody_reads() {
        let directory = tempfile::tempdir_in(".").unwrap();
        let pin = Pin::of(directory.path()).unwrap();
        assert!(!pin.is_held());
        let take = || Pinned::take(directory.path()).unwrap().unwrap();
        let (one, other) = (take(), take());
        assert!(pin.is_held());
        drop(one);
        assert!(pin.is_held());
        drop(other);
        assert!(!pin.is_held());
    }
    /// A backup that was taken by root left a lock behind that its node couldn't open, and so the node didn't start.
    #[test]
    fn a_reader_leaves_nothing_behind() {
        let directory = tempfile::tempdir_in(".").unwrap();
        assert!(Pinned::take(directory.path()).unwrap().is_none());
        assert!(std::fs::read_dir(directory.path()).unwrap().next().is_none());
    }
}
