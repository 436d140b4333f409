//! Where a record lies, for whoever wants to read it again while the log is written.
//!
//! A segment holds an unbroken range of sequences, and within it the records lie in their order. So it is enough to know
//! where some of them begin: the table has an anchor for the first record of each *chunk*, a run of records of
//! [`CHUNK_BYTES`] at most, or a single one that is longer. To find a record its chunk is read, and the headers in it are
//! followed. An anchor takes eight bytes, and two chunks in a row are longer than [`CHUNK_BYTES`]: so the table takes at most
//! four bytes for each KiB of the log, whatever the size of the records; with small ones, two.
//!
//! What is read is checked like what a recovery reads: by its sequence and by both checksums, which know the log's secret, the
//! segment's number and the place. What fails is never handed on.

use std::collections::BTreeMap;
use std::ops::Range;

use super::format::{ALIGNMENT, HEADER_BYTES, Header, Kind, record_bytes};
use super::recovery::Found;
use super::table::SegmentTable;
use super::{SECTOR_BYTES, Segment};
use crate::failpoint::Failpoints;
use crate::storage::cost;

/// Records up to here share an anchor.
pub const CHUNK_BYTES: usize = 4096;
/// A segment's list grows by so many anchors: it would waste half of what it has by doubling.
const ANCHORS_MORE: usize = 128;

/// Of all segments that hold records.
#[derive(Clone, Debug, Default)]
pub struct Offsets {
    /// By the sequence of the first record.
    segments: BTreeMap<u64, Anchors>,
}

#[derive(Clone, Debug)]
struct Anchors {
    segment: Segment,
    last: u64,
    /// Where the last record ends.
    end: u32,
    /// Ascending: how many records of the segment come before the chunk, and where it begins.
    chunks: Vec<(u32, u32)>,
}

/// Where to read for a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chunk {
    /// In this segment,
    pub segment: Segment,
    /// from this byte on: the header of a record stands here,
    pub from: u32,
    /// up to this one.
    pub to: u32,
}

impl Chunk {
    /// The whole sectors that hold it.
    pub const fn sectors(&self) -> Range<usize> {
        let from = self.from as usize / SECTOR_BYTES * SECTOR_BYTES;
        from..(self.to as usize).next_multiple_of(SECTOR_BYTES)
    }
}

impl Offsets {
    /// A record was appended there, or found there: the next in order.
    pub fn on_record(&mut self, found: &Found) {
        let Found { sequence, segment, offset, length } = *found;
        let end = offset + record_bytes(length as usize) as u32;
        let last = self.segments.last_entry().filter(|last| last.get().segment == segment);
        let Some(mut last) = last else {
            let chunks = Vec::new();
            let anchors =
                self.segments.entry(sequence).or_insert(Anchors { segment, last: sequence, end, chunks });
            anchors.begin(0, offset);
            return;
        };
        let first = *last.key();
        let anchors = last.get_mut();
        let (_, from) = anchors.chunks.last().copied().expect("a segment that is listed has a record");
        if (end - from) as usize > CHUNK_BYTES {
            anchors.begin((sequence - first) as u32, offset);
        }
        (anchors.last, anchors.end) = (sequence, end);
    }

    /// Its records are gone.
    pub fn on_released(&mut self, segment: Segment) {
        self.segments.retain(|_, anchors| anchors.segment != segment);
    }

    /// Where a record lies; `None` if its segment is gone, or was never here.
    pub fn find(&self, sequence: u64) -> Option<Chunk> {
        let (first, anchors) = self.segments.range(..=sequence).next_back()?;
        if sequence > anchors.last {
            return None;
        }
        let before = (sequence - first) as u32;
        let after = anchors.chunks.partition_point(|(records, _)| *records <= before);
        let (_, from) = anchors.chunks[after - 1];
        let to = anchors.chunks.get(after).map_or(anchors.end, |(_, from)| *from);
        Some(Chunk { segment: anchors.segment, from, to })
    }

    /// Bytes, as the allocator gives them out.
    pub fn memory(&self) -> usize {
        let lists = self
            .segments
            .values()
            .map(|anchors| cost::allocated(anchors.chunks.capacity() * size_of::<(u32, u32)>()));
        lists.sum::<usize>() + self.segments.len() * cost::map_slot(size_of::<(u64, Anchors)>())
    }
}

impl Anchors {
    fn begin(&mut self, records: u32, offset: u32) {
        if self.chunks.len() == self.chunks.capacity() {
            self.chunks.reserve_exact(ANCHORS_MORE);
        }
        self.chunks.push((records, offset));
    }
}

impl<F: Failpoints> SegmentTable<F> {
    /// The payload of a record in what was read of its chunk: `sectors` are those of [`Chunk::sectors`], or fewer if the file
    /// ends. `None` if it isn't there, whole: then something is damaged.
    pub fn payload_in<'a>(&self, chunk: &Chunk, sectors: &'a [u8], sequence: u64) -> Option<&'a [u8]> {
        let (stamp, base) = (self.stamp(chunk.segment.id), chunk.sectors().start);
        let mut at = chunk.from as usize;
        while at < chunk.to as usize {
            let Some(header) = Header::decode_from(sectors, base, &stamp, at) else {
                // Padding behind a group, or damage to what somebody else may want.
                at += ALIGNMENT;
                continue;
            };
            let start = at + HEADER_BYTES;
            match header.kind {
                Kind::Group => at = start,
                Kind::Record if header.sequence == sequence => {
                    let payload = sectors.get(start - base..start - base + header.length as usize)?;
                    return (stamp.check(at, payload) == header.extra).then_some(payload);
                }
                Kind::Record => at += record_bytes(header.length as usize),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::log::{SegmentId, Slot};

    fn segment(number: u64) -> Segment {
        Segment { id: SegmentId(number), slot: Slot(number as u32) }
    }

    /// Records of these lengths, one behind the other.
    fn fill(offsets: &mut Offsets, number: u64, first: u64, lengths: &[u32]) -> Vec<Found> {
        let mut offset = SECTOR_BYTES as u32;
        let place = |(sequence, length): (u64, &u32)| {
            let found = Found { sequence, segment: segment(number), offset, length: *length };
            offset += record_bytes(*length as usize) as u32;
            found
        };
        let found: Vec<Found> = (first..).zip(lengths).map(place).collect();
        found.iter().for_each(|found| offsets.on_record(found));
        found
    }

    #[test]
    fn each_record_lies_in_its_chunk_and_a_chunk_is_short() {
        let mut offsets = Offsets::default();
        let lengths: Vec<u32> =
            (0..2000).map(|number| (number * 37 % 300) + if number % 50 == 0 { 9000 } else { 0 }).collect();
        let mut found = fill(&mut offsets, 1, 1, &lengths[..1000]);
        found.extend(fill(&mut offsets, 2, 1001, &lengths[1000..]));
        for one in &found {
            let chunk = offsets.find(one.sequence).expect("it is there");
            let end = one.offset + record_bytes(one.length as usize) as u32;
            assert_eq!(chunk.segment, one.segment);
            assert!(chunk.from <= one.offset && end <= chunk.to, "{one:?} in {chunk:?}");
            let is_short = (chunk.to - chunk.from) as usize <= CHUNK_BYTES;
            assert!(is_short || (chunk.from, chunk.to) == (one.offset, end), "{one:?} in {chunk:?}");
        }
        assert_eq!((offsets.find(0), offsets.find(2001)), (None, None));
        let bytes: usize = lengths.iter().map(|length| record_bytes(*length as usize)).sum();
        let anchors: usize = offsets.segments.values().map(|anchors| anchors.chunks.len()).sum();
        assert!(anchors * 8 <= bytes / 1024 * 4 + 16, "{anchors} anchors for {bytes} bytes");
        assert!(offsets.memory() >= anchors * 8);
    }

    #[test]
    fn what_was_released_is_found_no_more() {
        let mut offsets = Offsets::default();
        fill(&mut offsets, 1, 1, &[100; 10]);
        fill(&mut offsets, 2, 11, &[100; 10]);
        offsets.on_released(segment(1));
        assert_eq!((offsets.find(5), offsets.find(11).map(|chunk| chunk.segment)), (None, Some(segment(2))));
    }
}
