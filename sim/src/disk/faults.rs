//! What may go wrong with a disk, how often, and the account of what did.

use std::error::Error;
use std::fmt;

/// How often each fault happens: probabilities, `0.0..=1.0`, all 0 by default.
///
/// They may change during a run: a simulator that must keep a record whole on some node sets the rates of that
/// node's disk to 0.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct DiskFaults {
    /// Of a sector with unsynced writes, at a crash: some of them are lost, all of them, or the last one to
    /// arrive is torn. Otherwise the sector is as it was last written.
    pub torn: f64,
    /// Of a read: one bit of the answer is flipped, on its way; the sectors are unharmed.
    pub read_corrupt: f64,
    /// Of a write: one bit is flipped in what is stored.
    pub write_corrupt: f64,
    /// Of a write: it lands some sectors away, over what is there, and leaves its own place as it was.
    pub misdirected_write: f64,
    /// Of a sync: it fails.
    pub sync_error: f64,
    /// Of a write: it is refused, though there is room.
    pub full: f64,
}

impl DiskFaults {
    /// Can a byte that was synced, or is read, ever differ from what was written?
    pub fn corrupts(&self) -> bool {
        self.read_corrupt > 0.0 || self.write_corrupt > 0.0 || self.misdirected_write > 0.0
    }
}

/// A fault that happened. Offsets are in bytes, sectors count from 0.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Injected {
    /// A crash left nothing of a sector's unsynced writes.
    Lost {
        /// Which.
        sector: u64,
    },
    /// A crash left some of a sector's unsynced writes, or a part of one, but not all.
    Torn {
        /// Which.
        sector: u64,
    },
    /// A read answered one bit wrong.
    ReadCorrupt {
        /// Of the byte that holds the bit.
        offset: u64,
    },
    /// A write stored one bit wrong.
    WriteCorrupt {
        /// Of the byte that holds the bit: where it was stored, not where it was meant to be.
        offset: u64,
    },
    /// A write went astray: as many bytes are wrong (or stale) at either place.
    MisdirectedWrite {
        /// Where it was meant to be.
        intended: u64,
        /// Where it is.
        landed: u64,
        /// Its length.
        bytes: u64,
    },
    /// A sync failed.
    SyncError,
    /// A write was refused, though there was room.
    Full,
}

/// Why the disk refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskError {
    /// A write found no room; nothing of it was stored.
    Full,
    /// A sync failed. What was unsynced may or may not outlive a crash, and a later sync that succeeds says
    /// nothing about it: write no more, restart, and trust only what is read back then.
    Sync,
}

impl fmt::Display for DiskError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Full => "the disk is full: delete something, or write less",
            Self::Sync => "the disk failed to sync: restart, and trust only what is read back",
        })
    }
}

impl Error for DiskError {}
