//! Which slot holds which segment: the one page of the log that is believed before anything else is read.
//!
//! It is written twice, one copy after the other, each followed by a sync, and used only when both are durable. So a crash
//! tears at most one of them, and if one is damaged later the other says the same. The number of a version says which
//! copy is written first ([`first_copy`]). A start numbers its first version such that this is the copy in doubt, not
//! the one that surely is on the disk: so a crash during that version leaves a whole copy too, however often starts fail.

use std::collections::BTreeSet;

use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::id::{ClusterId, NodeId, ShardId};

use super::format::{FORMAT, u32_at, u64_at};
use super::stamp::Identity;
use super::{Geometry, Range, Segment, SegmentId, Slot};

/// Before the entries.
pub(super) const FIXED_BYTES: usize = 128;
pub(super) const ENTRY_BYTES: usize = 32;
/// `b"RINGLOG\0"`.
const MAGIC: [u8; 8] = *b"RINGLOG\0";
/// What stands before the checksum, and will in every format: magic, format, length.
const PREFIX_BYTES: usize = 16;
const SEALED: u32 = 1;
const DAMAGED: u32 = 2;

/// What the log is made of. Which of its segments hold what no sync has covered isn't known here: they are not sealed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    /// Whose log.
    pub identity: Identity,
    /// Drawn when the log was created; part of every checksum.
    pub secret: u64,
    /// How large it is.
    pub geometry: Geometry,
    /// Counts up with every version that is written. A start may leave one number out.
    pub version: u64,
    /// The number of the next segment: none has had it yet.
    pub next_segment: u64,
    /// The highest sequence that a sealed segment ever held.
    pub sealed_through: u64,
    /// The highest sequence that was durable when this version was written.
    pub durable: u64,
    /// Segments that hold records, or may: `0..=slots_max`.
    pub entries: Vec<Entry>,
}

/// A segment of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Which.
    pub segment: Segment,
    /// What it holds, all of it durable; `None` while records are still written to it.
    pub sealed: Option<Range>,
    /// Some of that was damaged when the log was opened.
    pub is_damaged: bool,
}

/// Why a log is not opened. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Refusal {
    /// A later build has written it.
    #[error(
        "the log has format {format}, and this build reads {FORMAT}: start the version that wrote it, or a later one"
    )]
    Newer {
        /// Its format.
        format: u32,
    },
    /// It belongs to somebody else.
    #[error(
        "the log belongs to shard {} of node {} in cluster {}: point this node to its own directory, or to an empty one",
        .found.shard.0, .found.node, .found.cluster
    )]
    Foreign {
        /// Its owner.
        found: Identity,
    },
    /// It is this node's, but lies elsewhere than it was created.
    #[error(
        "the log is a copy, or was moved: if the original is gone for good, adopt the copy; if not, restore it under a new identity"
    )]
    Cloned {
        /// Where it was created.
        home: u64,
    },
    /// Neither copy of the manifest can be read.
    #[error(
        "both copies of the log's manifest are damaged: restore a backup, or empty the directory and let the replicas fill it"
    )]
    Damaged,
}

impl Manifest {
    /// A log that has nothing yet. `secret` is drawn at random.
    pub fn new(identity: Identity, geometry: Geometry, secret: u64) -> Self {
        let (version, next_segment, sealed_through, durable) = (0, 1, 0, 0);
        let entries = Vec::new();
        Self { identity, secret, geometry, version, next_segment, sealed_through, durable, entries }
    }

    /// The manifest that two copies hold, each as much of it as could be read; `None` if the log was never created.
    ///
    /// `has_segments` says whether anything was found in the slots: they are written only after both copies are durable,
    /// so without any the creation was interrupted, and can begin again.
    ///
    /// Its version is one higher than was read if the next one would otherwise go first over the copy that is surely on
    /// the disk.
    ///
    /// # Errors
    ///
    /// [`Refusal`], if it isn't one that `owner` may open.
    pub fn choose(copies: [&[u8]; 2], owner: &Identity, has_segments: bool) -> Result<Option<Self>, Refusal> {
        let [first, second] = copies.map(Self::decode);
        let doubtful = in_doubt([&first, &second], has_segments);
        let mut chosen = match (first, second) {
            (Copy::Newer(format), _) | (_, Copy::Newer(format)) => return Err(Refusal::Newer { format }),
            (Copy::Whole(first), Copy::Whole(second)) if second.version > first.version => second,
            (Copy::Whole(chosen), _) | (_, Copy::Whole(chosen)) => chosen,
            (Copy::Blank, Copy::Blank) if !has_segments => return Ok(None),
            (Copy::Damaged, Copy::Blank) if !has_segments => return Ok(None),
            _ => return Err(Refusal::Damaged),
        };
        let found = chosen.identity;
        if (found.cluster, found.node, found.shard) != (owner.cluster, owner.node, owner.shard) {
            return Err(Refusal::Foreign { found });
        }
        if found.home != owner.home {
            return Err(Refusal::Cloned { home: found.home });
        }
        if first_copy(chosen.version + 1) != doubtful {
            chosen.version += 1;
        }
        Ok(Some(*chosen))
    }

    /// Whose log the copies are of, as far as either can be read. Whoever may open it knows that already; this is for who only
    /// looks at it.
    pub fn owner(copies: [&[u8]; 2]) -> Option<Identity> {
        copies.into_iter().find_map(|copy| match Self::decode(copy) {
            Copy::Whole(manifest) => Some(manifest.identity),
            _ => None,
        })
    }

    /// Write it to the beginning of `into`, with zeros up to a whole copy's end.
    ///
    /// # Panics
    ///
    /// If `into` is shorter than [`Geometry::manifest_bytes`].
    pub fn encode(&self, into: &mut [u8]) {
        let into = &mut into[..self.geometry.manifest_bytes()];
        into.fill(0);
        let bytes = FIXED_BYTES + self.entries.len() * ENTRY_BYTES;
        into[..8].copy_from_slice(&MAGIC);
        into[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        into[12..16].copy_from_slice(&(bytes as u32).to_le_bytes());
        let Identity { cluster, node, shard, home } = self.identity;
        let words = [self.version, cluster.0, node.0, home, self.secret];
        for (at, word) in (24..).step_by(8).zip(words) {
            into[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        into[64..66].copy_from_slice(&shard.0.to_le_bytes());
        into[68..72].copy_from_slice(&(self.entries.len() as u32).to_le_bytes());
        into[72..76].copy_from_slice(&(self.geometry.segment_bytes() as u32).to_le_bytes());
        into[76..80].copy_from_slice(&self.geometry.slots_max().to_le_bytes());
        for (at, word) in (80..).step_by(8).zip([self.next_segment, self.sealed_through, self.durable]) {
            into[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        for (entry, into) in self.entries.iter().zip(into[FIXED_BYTES..].chunks_exact_mut(ENTRY_BYTES)) {
            entry.encode(into);
        }
        let check = check(&into[..bytes]);
        into[16..24].copy_from_slice(&check.to_le_bytes());
    }

    fn decode(copy: &[u8]) -> Copy {
        if copy.iter().all(|byte| *byte == 0) {
            return Copy::Blank;
        }
        if copy.len() < FIXED_BYTES || copy[..8] != MAGIC {
            return Copy::Damaged;
        }
        let bytes = u32_at(copy, 12) as usize;
        if bytes < FIXED_BYTES || bytes > copy.len() || check(&copy[..bytes]) != u64_at(copy, 16) {
            return Copy::Damaged;
        }
        match u32_at(copy, 8) {
            FORMAT => {
                Self::parse(&copy[..bytes]).map_or(Copy::Damaged, |manifest| Copy::Whole(Box::new(manifest)))
            }
            format => Copy::Newer(format),
        }
    }

    /// From bytes whose checksum is right. They are looked at all the same: a build with a mistake may have written them.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let manifest = Self {
            identity: Identity {
                cluster: ClusterId(u64_at(bytes, 32)),
                node: NodeId(u64_at(bytes, 40)),
                shard: ShardId(u16::from_le_bytes([bytes[64], bytes[65]])),
                home: u64_at(bytes, 48),
            },
            secret: u64_at(bytes, 56),
            geometry: Geometry::new(u32_at(bytes, 72), u32_at(bytes, 76))?,
            version: u64_at(bytes, 24),
            next_segment: u64_at(bytes, 80),
            sealed_through: u64_at(bytes, 88),
            durable: u64_at(bytes, 96),
            entries: bytes[FIXED_BYTES..].chunks_exact(ENTRY_BYTES).map(Entry::decode).collect(),
        };
        let is_whole = bytes.len() == FIXED_BYTES + u32_at(bytes, 68) as usize * ENTRY_BYTES;
        (is_whole && manifest.is_consistent()).then_some(manifest)
    }

    /// No slot and no number twice, nothing beyond its limit, and a place for all that is said to be durable.
    fn is_consistent(&self) -> bool {
        let (mut slots, mut numbers) = (BTreeSet::new(), BTreeSet::new());
        let has_open = self.entries.iter().any(|entry| entry.sealed.is_none());
        let is_placed = self.durable <= self.sealed_through || has_open;
        let is_counted = self.durable.max(self.sealed_through) < u64::MAX;
        is_placed
            && is_counted
            && self.entries.iter().all(|entry| {
                let Segment { id, slot } = entry.segment;
                let is_in_range = entry.sealed.is_none_or(|sealed| {
                    1 <= sealed.first && sealed.first <= sealed.last && sealed.last <= self.sealed_through
                });
                let is_placed = slot.0 < self.geometry.slots_max() && slots.insert(slot);
                let is_numbered = id.0 < self.next_segment;
                is_in_range && is_placed && is_numbered && numbers.insert(id)
            })
    }
}

/// What one copy is.
enum Copy {
    Whole(Box<Manifest>),
    /// Of another format, and whole.
    Newer(u32),
    Blank,
    Damaged,
}

impl Entry {
    fn encode(&self, into: &mut [u8]) {
        let Range { first, last } = self.sealed.unwrap_or(Range { first: 0, last: 0 });
        let sealed = if self.sealed.is_some() { SEALED } else { 0 };
        let flags = sealed | if self.is_damaged { DAMAGED } else { 0 };
        into[..8].copy_from_slice(&self.segment.id.0.to_le_bytes());
        into[8..16].copy_from_slice(&first.to_le_bytes());
        into[16..24].copy_from_slice(&last.to_le_bytes());
        into[24..28].copy_from_slice(&self.segment.slot.0.to_le_bytes());
        into[28..32].copy_from_slice(&flags.to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> Self {
        let flags = u32_at(bytes, 28);
        let range = Range { first: u64_at(bytes, 8), last: u64_at(bytes, 16) };
        Self {
            segment: Segment { id: SegmentId(u64_at(bytes, 0)), slot: Slot(u32_at(bytes, 24)) },
            sealed: (flags & SEALED != 0).then_some(range),
            is_damaged: flags & DAMAGED != 0,
        }
    }
}

/// The copy to which a version is written first.
pub(super) const fn first_copy(version: u64) -> u8 {
    if version.is_multiple_of(2) { 1 } else { 0 }
}

/// The copy that may not be on the disk as it was read, or that isn't whole; the other one is durable.
fn in_doubt(copies: [&Copy; 2], has_segments: bool) -> u8 {
    match copies {
        // The second of the same version was begun when the first was durable.
        [Copy::Whole(first), Copy::Whole(second)] if first.version == second.version => {
            1 - first_copy(first.version)
        }
        // The newer one was begun when the older one was durable, and isn't in use.
        [Copy::Whole(first), Copy::Whole(second)] => u8::from(second.version > first.version),
        // The very first version: nothing depends on it yet.
        [Copy::Whole(_), Copy::Blank] if !has_segments => 0,
        [Copy::Whole(_), _] => 1,
        _ => 0,
    }
}

/// Over all but itself. The prefix is the seed, so that it is covered too.
pub(super) fn check(bytes: &[u8]) -> u64 {
    let prefix = xxh3_64_with_seed(&bytes[..PREFIX_BYTES], 0);
    xxh3_64_with_seed(&bytes[PREFIX_BYTES + 8..], prefix)
}
