//! The log: how a shard's records lie on a disk, and what is left of them after a crash.
//!
//! One shard has one log: segments of one size, preallocated, reused, in numbered slots, and a [`Manifest`] that says
//! which slot holds which segment. The records of a turn go out as one group of whole sectors, and one sync makes
//! them durable ([`Writer`]). After a crash [`Recovery`] reads the segments and says which records stand, where
//! something is damaged, and where the log was cut; [`Opening`] makes that verdict durable before anything new is
//! written. [`SegmentTable`] knows which slots are free, [`Liveness`] which segments are worth
//! compacting, and [`Offsets`] where a record lies that is to be read again. `docs/storage.md`
//! draws all of it in bytes, and says what can't be told from what.
//!
//! What the room promises: what a sync covered is there after any crash. A torn tail is cut, however many records
//! are torn. Damage before it is reported, with its place and the sequences that are missing, and what lies beyond it is
//! recovered. Nothing is invented: a checksum is seeded with the log's secret, the number of the segment, which is
//! never used twice, and the place, so that no record of an earlier use of the slot, of another log, or of another
//! place is taken for one of this. A failed sync ends all acknowledgements until the next start.
//!
//! What it never does: touch a file, allocate what a length on the disk claims, read a clock, or draw chance. Its
//! machines say what to write where; whoever runs them hands in buffers, aligned as the device wants them.

mod extent;
mod format;
mod liveness;
mod manifest;
mod offsets;
mod opening;
mod recovery;
mod report;
mod scan;
mod stamp;
mod table;
#[cfg(test)]
mod tests;
mod writer;

pub use extent::Extent;
pub use format::RECORD_BYTES_OVERHEAD;
pub use liveness::Liveness;
pub use manifest::{Entry, Manifest, Refusal};
pub use offsets::{CHUNK_BYTES, Chunk, Offsets};
pub use opening::{Opened, Opening, OpeningError};
pub use recovery::{Found, Recovered, Recovery};
pub use report::{Damage, Report, Tail};
pub use stamp::Identity;
pub use table::{NoRoom, Purpose, SegmentTable};
pub use writer::{GroupSync, Refused, Writer, Written};

/// What is written as one, and the alignment of offsets, lengths and memory: a page of the kernel, which O_DIRECT
/// accepts on every device. A device may tear it at multiples of 512.
pub const SECTOR_BYTES: usize = 4096;

/// A place for a segment: a file, or a part of a device. `0 <= slot < slots_max`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Slot(pub u32);

/// The number of a segment: counted up, made durable before it is used, and never used twice in one log. It is the
/// generation of all that is written into its slot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SegmentId(pub u64);

/// A segment, and where it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Segment {
    /// Its number.
    pub id: SegmentId,
    /// Its place.
    pub slot: Slot,
}

/// Records by their sequences, `1 <= first <= last`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// The first one.
    pub first: u64,
    /// The last one, itself included.
    pub last: u64,
}

/// How large a log is. It is fixed when the log is created.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Of a segment: whole sectors, at least two, at most [`Geometry::SEGMENT_BYTES_MAX`]. The largest record must fit
    /// into one.
    segment_bytes: u32,
    /// `1..=SLOTS_MAX`.
    slots_max: u32,
}

/// Where bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// The first or the second copy of the manifest: `0..2`.
    Manifest(u8),
    /// A segment's slot.
    Segment(Slot),
}

/// Write the first `bytes` bytes of the buffer that was handed in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Write {
    /// Where to.
    pub target: Target,
    /// From here on, in bytes; a multiple of [`SECTOR_BYTES`].
    pub offset: u64,
    /// So many; a multiple of [`SECTOR_BYTES`].
    pub bytes: usize,
}

/// One thing to do, to be finished before the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Write.
    Write(Write),
    /// Make all that was written there durable.
    Sync(Target),
}

impl Geometry {
    /// The largest segment, 1 GiB: offsets within one are 32 bits.
    pub const SEGMENT_BYTES_MAX: u32 = 1 << 30;
    /// The most slots: a manifest of half a megabyte.
    pub const SLOTS_MAX: u32 = 1 << 14;

    /// `None` if a number is out of its range.
    pub const fn new(segment_bytes: u32, slots_max: u32) -> Option<Self> {
        let is_whole =
            segment_bytes.is_multiple_of(SECTOR_BYTES as u32) && segment_bytes >= 2 * SECTOR_BYTES as u32;
        if is_whole
            && segment_bytes <= Self::SEGMENT_BYTES_MAX
            && slots_max >= 1
            && slots_max <= Self::SLOTS_MAX
        {
            Some(Self { segment_bytes, slots_max })
        } else {
            None
        }
    }

    /// Of a segment.
    pub const fn segment_bytes(self) -> usize {
        self.segment_bytes as usize
    }

    /// How many segments the log may have.
    pub const fn slots_max(self) -> u32 {
        self.slots_max
    }

    /// Of one copy of the manifest, whatever it says: whole sectors.
    pub const fn manifest_bytes(self) -> usize {
        (manifest::FIXED_BYTES + self.slots_max as usize * manifest::ENTRY_BYTES)
            .next_multiple_of(SECTOR_BYTES)
    }
}
