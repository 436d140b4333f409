//! How far a segment is written, when it is read while its log goes on: by a backup, beside the node that serves.
//!
//! Groups are written one after the other, so if anything of one can be read, all before it were whole already. But one
//! read isn't one moment: its end may show what was written after its beginning was read. So such a segment is read
//! twice. The first time says how far to believe it; all before that is whole when it is read again.

use crate::failpoint::NoFailpoints;

use super::scan::scan;
use super::stamp::Stamp;
use super::{Manifest, Segment};

/// What a first look at a segment says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Up to the end of the last record, or header of a group, that can be read; 0 if there is none.
    pub bytes: usize,
    /// All up to this sequence was durable before the segment was looked at; 0 if it says nothing.
    pub durable: u64,
}

impl Manifest {
    /// Look at what was read of one of its segments.
    pub fn extent_of(&self, segment: Segment, bytes: &[u8]) -> Extent {
        let segment_bytes = self.geometry.segment_bytes();
        let bytes = &bytes[..bytes.len().min(segment_bytes)];
        let stamp = Stamp::new(&self.identity, self.secret, segment.id, NoFailpoints);
        let scan = scan(bytes, segment.id, segment_bytes, &stamp);
        Extent { bytes: scan.end.min(bytes.len()), durable: scan.witness }
    }

    /// Does it list the segments that another version listed? Then what was read of them before this version was is theirs.
    pub fn lists_all_of(&self, before: &Self) -> bool {
        let lists = |segment| self.entries.iter().any(|entry| entry.segment == segment);
        before.entries.iter().all(|entry| lists(entry.segment))
    }
}
