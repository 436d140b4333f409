//! Segments that a backup reads stay where they are: whoever reads holds a lock, and whoever compacts looks at it.
//!
//! The lock is the kernel's, on the file `DIR/pinned`: it ends with the process that holds it, however that ends, so there is no
//! lease to be renewed and nothing to be tidied up. Readers share it. It is a courtesy and not the proof: a log without room
//! releases its segments all the same, and a reader checks afterwards that all it has read was still listed.

use std::fs::{File, OpenOptions, TryLockError};
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
        open(directory).map(Self)
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
    /// Hold the segments of a data directory.
    pub(super) fn take(directory: &Path) -> Result<Self, DataError> {
        let lock = open(directory)?;
        let failed = of(&directory.join(NAME));
        for _ in 0..TRIES_MAX {
            match lock.try_lock_shared() {
                Ok(()) => return Ok(Self { _lock: lock }),
                Err(TryLockError::WouldBlock) => std::thread::sleep(AGAIN_AFTER),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        Err(failed(std::io::ErrorKind::WouldBlock.into()))
    }
}

fn open(directory: &Path) -> Result<File, DataError> {
    let path = directory.join(NAME);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(&path).map_err(of(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_held_as_long_as_anybody_reads() {
        let directory = tempfile::tempdir_in(".").unwrap();
        let pin = Pin::of(directory.path()).unwrap();
        assert!(!pin.is_held());
        let one = Pinned::take(directory.path()).unwrap();
        let other = Pinned::take(directory.path()).unwrap();
        assert!(pin.is_held());
        drop(one);
        assert!(pin.is_held());
        drop(other);
        assert!(!pin.is_held());
    }
}
