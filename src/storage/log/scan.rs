//! What can be read in one segment, wherever it stands.

use crate::failpoint::Failpoints;

use super::format::{ALIGNMENT, HEADER_BYTES, Header, Kind, SegmentHeader, record_bytes};
use super::stamp::Stamp;
use super::{SECTOR_BYTES, SegmentId};

/// A segment as it was read. Its size is bounded by the bytes that were read: an item for at least 16 of them.
#[derive(Clone, Debug)]
pub(super) struct Scan {
    /// The first sector, if it is whole and of this segment.
    pub(super) header: Option<SegmentHeader>,
    /// The sequence of the first record, as the header says, or else the first group.
    pub(super) first: Option<u64>,
    /// The highest sequence that anything here says was durable; 0 if nothing does.
    pub(super) witness: u64,
    /// In the order of their places.
    pub(super) items: Vec<Item>,
    /// Where the last thing ends that can be read: a record, or the header of a group.
    pub(super) end: usize,
}

/// Something in a segment, or its lack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Item {
    /// A whole record; its header stands at `at`.
    Record { at: u32, length: u32, sequence: u64 },
    /// Bytes that can't be read, though something was written there: they lie in a group, or something whole follows.
    Gap { from: u32, to: u32 },
}

/// Read what there is of a segment; `segment` may be shorter than it was written.
pub(super) fn scan<F: Failpoints>(
    segment: &[u8],
    id: SegmentId,
    segment_bytes: usize,
    stamp: &Stamp<F>,
) -> Scan {
    let header = SegmentHeader::decode(segment, stamp).filter(|header| header.segment == id);
    let witness = header.map_or(0, |header| header.durable);
    let first = header.map(|header| header.first);
    let scan = Scan { header, first, witness, items: Vec::new(), end: 0 };
    let mut walk = Walk { segment, segment_bytes, stamp, gap: None, scan };
    walk.run();
    walk.scan
}

struct Walk<'a, F> {
    segment: &'a [u8],
    segment_bytes: usize,
    stamp: &'a Stamp<F>,
    /// Where bytes begin that can't be read; the walk is behind them.
    gap: Option<usize>,
    scan: Scan,
}

impl<F: Failpoints> Walk<'_, F> {
    fn run(&mut self) {
        let mut at = SECTOR_BYTES;
        // Of the last group that said how long it is.
        let mut group_end = 0;
        while at + HEADER_BYTES <= self.segment.len() {
            let Some(header) = self.header(at) else {
                if self.gap.is_none() && at >= group_end && !at.is_multiple_of(SECTOR_BYTES) {
                    // What follows a group in its last sector is padding.
                    at = at.next_multiple_of(SECTOR_BYTES);
                } else {
                    self.gap.get_or_insert(at);
                    at += ALIGNMENT;
                }
                continue;
            };
            match header.kind {
                Kind::Group => {
                    self.close_gap(at);
                    self.scan.witness = self.scan.witness.max(header.extra);
                    if at == SECTOR_BYTES {
                        self.scan.first.get_or_insert(header.sequence);
                    }
                    at += HEADER_BYTES;
                    self.scan.end = at;
                    group_end = at + header.length as usize;
                }
                Kind::Record => {
                    self.record(at, &header);
                    at += record_bytes(header.length as usize);
                }
            }
        }
        if let Some(from) = self.gap.or(Some(at)).filter(|from| *from < group_end) {
            self.gap = Some(from);
            self.close_gap(group_end);
        }
    }

    /// A header that may stand here.
    #[inline]
    fn header(&self, at: usize) -> Option<Header> {
        let header = Header::decode(self.segment, self.stamp, at)?;
        let fits = at + HEADER_BYTES + header.length as usize <= self.segment_bytes;
        let is_in_place = header.kind == Kind::Record || at.is_multiple_of(SECTOR_BYTES);
        (fits && is_in_place).then_some(header)
    }

    /// A record whose header is whole: its length can be trusted, whatever has become of its payload.
    fn record(&mut self, at: usize, header: &Header) {
        let payload = self.segment.get(at + HEADER_BYTES..at + HEADER_BYTES + header.length as usize);
        if payload.is_some_and(|payload| self.stamp.check(at, payload) == header.extra) {
            self.close_gap(at);
            let (at, length, sequence) = (at as u32, header.length, header.sequence);
            self.scan.items.push(Item::Record { at, length, sequence });
            self.scan.end = at as usize + record_bytes(length as usize);
        } else {
            self.gap.get_or_insert(at);
        }
    }

    /// Something can be read here again.
    fn close_gap(&mut self, to: usize) {
        if let Some(from) = self.gap.take() {
            self.scan.items.push(Item::Gap { from: from as u32, to: to as u32 });
        }
    }
}
