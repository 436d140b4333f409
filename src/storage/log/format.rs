//! Headers in bytes: of a segment, of a group, of a record.
//!
//! A group and a record begin alike, at a multiple of 16 from the segment's start:
//!
//! ```text
//! 0  check u64 | 8  kind u32 | 12 length u32 | 16 sequence u64 | 24 extra u64
//! ```

use crate::failpoint::Failpoints;

use super::stamp::{Identity, Stamp};
use super::{SECTOR_BYTES, SegmentId};

/// Of a header of a group or a record.
pub(super) const HEADER_BYTES: usize = 32;
/// Headers begin at multiples of this.
pub(super) const ALIGNMENT: usize = 16;
/// A record takes at most so many bytes more than its payload, its share of a group's header and padding apart.
pub const RECORD_BYTES_OVERHEAD: usize = HEADER_BYTES + ALIGNMENT - 1;

/// `b"RINGSEGM"`.
const SEGMENT_MAGIC: [u8; 8] = *b"RINGSEGM";
/// Of a segment's header; the rest of its sector is zeros.
const SEGMENT_HEADER_BYTES: usize = 64;
/// The one format that this build reads and writes.
pub(super) const FORMAT: u32 = 1;

/// What a header begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(super) enum Kind {
    /// A group: its length is that of its records, its sequence that of the first of them, its extra the highest sequence that
    /// was durable when it was written.
    Group = 1,
    /// A record: its length is that of its payload, its extra the payload's checksum.
    Record = 2,
}

/// What stands before a group or a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) kind: Kind,
    /// Of what follows it, in bytes, without padding.
    pub(super) length: u32,
    pub(super) sequence: u64,
    pub(super) extra: u64,
}

impl Header {
    /// Write it at the beginning of `into`, which stands at `at` in its segment.
    pub(super) fn encode<F: Failpoints>(&self, stamp: &Stamp<F>, at: usize, into: &mut [u8]) {
        into[8..12].copy_from_slice(&(self.kind as u32).to_le_bytes());
        into[12..16].copy_from_slice(&self.length.to_le_bytes());
        into[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        into[24..32].copy_from_slice(&self.extra.to_le_bytes());
        let check = stamp.check(at, &into[8..HEADER_BYTES]);
        into[..8].copy_from_slice(&check.to_le_bytes());
    }

    /// The header that stands at `at`, if there is one.
    #[inline]
    pub(super) fn decode<F: Failpoints>(segment: &[u8], stamp: &Stamp<F>, at: usize) -> Option<Self> {
        Self::decode_from(segment, 0, stamp, at)
    }

    /// The same, of a part of a segment that begins at `base`: `base <= at`.
    #[inline]
    pub(super) fn decode_from<F: Failpoints>(
        part: &[u8],
        base: usize,
        stamp: &Stamp<F>,
        at: usize,
    ) -> Option<Self> {
        let bytes: &[u8; HEADER_BYTES] = part.get(at - base..)?.first_chunk()?;
        // Most places hold no header: they are passed over before anything is hashed.
        let kind = match u32_at(bytes, 8) {
            1 => Kind::Group,
            2 => Kind::Record,
            _ => return None,
        };
        if stamp.check(at, &bytes[8..]) != u64_at(bytes, 0) {
            return None;
        }
        Some(Self { kind, length: u32_at(bytes, 12), sequence: u64_at(bytes, 16), extra: u64_at(bytes, 24) })
    }
}

/// A whole record: its header, its payload, and zeros up to the next header. `into` begins at `at` in the segment.
pub(super) fn encode_record<F: Failpoints>(
    stamp: &Stamp<F>,
    at: usize,
    sequence: u64,
    payload: &[u8],
    into: &mut [u8],
) {
    let length =
        u32::try_from(payload.len()).expect("a record fits a segment, and a segment is at most 1 GiB");
    let header = Header { kind: Kind::Record, length, sequence, extra: stamp.check(at, payload) };
    header.encode(stamp, at, into);
    let end = HEADER_BYTES + payload.len();
    into[HEADER_BYTES..end].copy_from_slice(payload);
    into[end..end.next_multiple_of(ALIGNMENT)].fill(0);
}

/// Of a record with its header and what aligns the next.
pub(super) const fn record_bytes(payload: usize) -> usize {
    (HEADER_BYTES + payload).next_multiple_of(ALIGNMENT)
}

/// What the first sector of a segment says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SegmentHeader {
    pub(super) segment: SegmentId,
    /// The sequence of its first record.
    pub(super) first: u64,
    /// The highest sequence that was durable when it was written.
    pub(super) durable: u64,
}

impl SegmentHeader {
    /// Fill the first sector.
    pub(super) fn encode<F: Failpoints>(&self, identity: &Identity, stamp: &Stamp<F>, sector: &mut [u8]) {
        sector[..SECTOR_BYTES].fill(0);
        sector[..8].copy_from_slice(&SEGMENT_MAGIC);
        sector[16..20].copy_from_slice(&FORMAT.to_le_bytes());
        sector[20..22].copy_from_slice(&identity.shard.0.to_le_bytes());
        sector[24..32].copy_from_slice(&identity.cluster.0.to_le_bytes());
        sector[32..40].copy_from_slice(&identity.node.0.to_le_bytes());
        sector[40..48].copy_from_slice(&self.segment.0.to_le_bytes());
        sector[48..56].copy_from_slice(&self.first.to_le_bytes());
        sector[56..64].copy_from_slice(&self.durable.to_le_bytes());
        let check = stamp.check(0, &sector[16..SEGMENT_HEADER_BYTES]);
        sector[8..16].copy_from_slice(&check.to_le_bytes());
    }

    /// What it says, if it is whole and of this segment.
    pub(super) fn decode<F: Failpoints>(segment: &[u8], stamp: &Stamp<F>) -> Option<Self> {
        let bytes: &[u8; SEGMENT_HEADER_BYTES] = segment.first_chunk()?;
        let is_whole = bytes[..8] == SEGMENT_MAGIC && stamp.check(0, &bytes[16..]) == u64_at(bytes, 8);
        is_whole.then(|| Self {
            segment: SegmentId(u64_at(bytes, 40)),
            first: u64_at(bytes, 48),
            durable: u64_at(bytes, 56),
        })
    }
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("a fixed offset lies within a fixed length"))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("a fixed offset lies within a fixed length"))
}
