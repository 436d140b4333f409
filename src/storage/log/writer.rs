//! Records on their way to the disk: groups of whole sectors, and the syncs that make them durable.

use std::collections::VecDeque;

use smallvec::SmallVec;
use thiserror::Error;

use crate::failpoint::{Failpoints, NoFailpoints};

use super::format::{HEADER_BYTES, Header, Kind, SegmentHeader, encode_record, record_bytes};
use super::recovery::Found;
use super::stamp::{Identity, Stamp};
use super::table::SegmentTable;
use super::{Range, SECTOR_BYTES, Segment, Slot, Target, Write};

/// Appends to the segments that it was given, and knows what is durable.
///
/// Whoever runs it finishes every write before a sync that should cover it begins, and a mark before the next group.
#[derive(Clone, Debug)]
pub struct Writer<F = NoFailpoints> {
    identity: Identity,
    segment_bytes: usize,
    active: Option<Active<F>>,
    /// Granted, and not begun.
    next: VecDeque<(Segment, Stamp<F>)>,
    /// Full, and not all of it durable: with what they hold.
    closed: VecDeque<(Segment, Range)>,
    /// The highest sequence that was appended, and that is durable: `durable <= last`.
    last: u64,
    durable: u64,
    /// What the last mark, or group, says was durable.
    witnessed: u64,
    /// Written to since the last sync began.
    unsynced: SmallVec<[Slot; 2]>,
    /// The sync that is under way covers all up to here.
    syncing: Option<u64>,
    /// A record didn't fit into the rest of the active segment, and there was no next one.
    lacks_segment: bool,
    is_poisoned: bool,
}

/// The segment that is written to.
#[derive(Clone, Debug)]
struct Active<F> {
    segment: Segment,
    stamp: Stamp<F>,
    /// Where the next group begins: whole sectors; 0 before the segment has a header.
    at: usize,
    /// The sequence of its first record.
    first: u64,
}

/// A group to write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written {
    /// Where it goes.
    pub write: Write,
    /// So many of the records are in it; at least one.
    pub records: usize,
}

/// A sync to begin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupSync {
    /// Of these slots.
    pub slots: SmallVec<[Slot; 2]>,
    /// It makes all up to this sequence durable.
    pub through: u64,
}

/// Why nothing was appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Refused {
    /// A write or a sync failed: nothing of this log is acknowledged any more.
    #[error("the log failed to write or to sync: restart the shard, and look at its disk")]
    Poisoned,
    /// The segment is full, and no other was added.
    #[error("the log has no free segment: delete something and wait for compaction, or give it room")]
    NoSegment,
    /// The record is larger than a segment.
    #[error("a record of {bytes} bytes doesn't fit a segment: create the log with larger segments")]
    TooLarge {
        /// Of its payload.
        bytes: usize,
    },
    /// The buffer is too short for the first record.
    #[error("the buffer must hold at least {needed} bytes")]
    BufferTooSmall {
        /// So much it takes.
        needed: usize,
    },
}

impl<F: Failpoints> Writer<F> {
    /// Goes on after `durable`, all of which is in earlier segments.
    pub(super) fn new(table: &SegmentTable<F>, durable: u64) -> Self {
        Self {
            identity: *table.identity(),
            segment_bytes: table.geometry().segment_bytes(),
            active: None,
            next: VecDeque::new(),
            closed: VecDeque::new(),
            last: durable,
            durable,
            witnessed: durable,
            unsynced: SmallVec::new(),
            syncing: None,
            lacks_segment: false,
            is_poisoned: false,
        }
    }

    /// Here is another segment, to be written to when the last one is full.
    ///
    /// # Panics
    ///
    /// If no durable manifest lists it.
    pub fn add_segment(&mut self, table: &SegmentTable<F>, segment: Segment) {
        assert!(table.is_granted(segment), "a segment is written once a durable manifest lists it");
        self.add_reserved(table, segment);
    }

    /// The same while the log is being opened: what is written counts only once the segment is listed.
    pub(super) fn add_reserved(&mut self, table: &SegmentTable<F>, segment: Segment) {
        let before = self.next.back().map(|(segment, _)| segment.id);
        let before = before.or(self.active.as_ref().map(|active| active.segment.id));
        assert!(
            !table.counts_numbers() || before.is_none_or(|before| before < segment.id),
            "segments are written in the order of their numbers"
        );
        self.next.push_back((segment, table.stamp(segment.id)));
        self.lacks_segment = false;
    }

    /// Is it time to reserve the next segment? So that it is there when the one that is written to is full; at the latest
    /// when [`Refused::NoSegment`] was answered.
    pub fn wants_segment(&self) -> bool {
        let is_half_full = self.active.as_ref().is_none_or(|active| active.at > self.segment_bytes / 2);
        self.next.is_empty() && (is_half_full || self.lacks_segment)
    }

    /// Make a group of the first of these records, as many as fit into `into` and the segment, and number them on from
    /// [`Writer::last`]. `placed` gets where each will be. Call again for the rest.
    ///
    /// # Errors
    ///
    /// [`Refused`]. Nothing was appended.
    ///
    /// # Panics
    ///
    /// If there is no record.
    pub fn append(
        &mut self,
        records: &[&[u8]],
        into: &mut [u8],
        placed: &mut Vec<Found>,
    ) -> Result<Written, Refused> {
        assert!(!records.is_empty(), "a group has a record");
        if self.is_poisoned {
            return Err(Refused::Poisoned);
        }
        self.choose_segment(records[0].len(), into.len())?;
        let (first, durable) = (self.last + 1, self.durable);
        let Self { active, identity, segment_bytes, .. } = self;
        let active = active.as_mut().expect("a segment was chosen");
        let start = active.at;
        let prefix = if start == 0 { SECTOR_BYTES } else { 0 };
        // Of whole sectors: the last one is filled up.
        let room = into.len().min(*segment_bytes - start) / SECTOR_BYTES * SECTOR_BYTES;
        if prefix > 0 {
            let header = SegmentHeader { segment: active.segment.id, first, durable };
            header.encode(identity, &active.stamp, into);
        }
        let mut at = prefix + HEADER_BYTES;
        let mut sequence = first;
        for record in records {
            if at + record_bytes(record.len()) > room {
                break;
            }
            encode_record(&active.stamp, start + at, sequence, record, &mut into[at..]);
            let (segment, offset, length) = (active.segment, (start + at) as u32, record.len() as u32);
            placed.push(Found { sequence, segment, offset, length });
            at += record_bytes(record.len());
            sequence += 1;
        }
        let length = (at - prefix - HEADER_BYTES) as u32;
        let header = Header { kind: Kind::Group, length, sequence: first, extra: durable };
        header.encode(&active.stamp, start + prefix, &mut into[prefix..]);
        let bytes = at.next_multiple_of(SECTOR_BYTES);
        into[at..bytes].fill(0);
        active.at += bytes;
        let slot = active.segment.slot;
        self.last = sequence - 1;
        self.witnessed = durable;
        if !self.unsynced.contains(&slot) {
            self.unsynced.push(slot);
        }
        let write = Write { target: Target::Segment(slot), offset: start as u64, bytes };
        Ok(Written { write, records: (sequence - first) as usize })
    }

    /// Begin to make durable what was written, if anything was and no other sync is under way. End it with
    /// [`Writer::on_synced`] or [`Writer::on_failed`].
    pub fn begin_sync(&mut self) -> Option<GroupSync> {
        if self.is_poisoned || self.syncing.is_some() || self.unsynced.is_empty() {
            return None;
        }
        self.syncing = Some(self.last);
        Some(GroupSync { slots: std::mem::take(&mut self.unsynced), through: self.last })
    }

    /// The sync succeeded: the highest durable sequence.
    ///
    /// # Panics
    ///
    /// If none is under way.
    pub fn on_synced(&mut self) -> u64 {
        let through = self.syncing.take().expect("a sync that ends has begun");
        if !self.is_poisoned {
            self.durable = through;
        }
        self.durable
    }

    /// A write or a sync failed. What it should have covered may be on the disk or not, and no later sync says anything about
    /// it: nothing becomes durable any more until the log is opened again.
    pub fn on_failed(&mut self) {
        self.is_poisoned = true;
        self.syncing = None;
    }

    /// When there is nothing else to write: a sector that says what is durable, so that damage to the last group is told from a
    /// torn one. It needs no sync, and stands where the next group will be written over it. `None` if nothing is to be said, or
    /// no sector is left.
    pub fn mark(&mut self, into: &mut [u8]) -> Option<Write> {
        let active = self.active.as_ref()?;
        let is_settled = self.durable == self.last && self.witnessed < self.durable && !self.is_poisoned;
        let has_room = active.at > 0 && active.at < self.segment_bytes;
        if !is_settled || !has_room {
            return None;
        }
        self.witnessed = self.durable;
        let into = &mut into[..SECTOR_BYTES];
        into.fill(0);
        let header = Header { kind: Kind::Group, length: 0, sequence: self.last + 1, extra: self.durable };
        header.encode(&active.stamp, active.at, into);
        let target = Target::Segment(active.segment.slot);
        Some(Write { target, offset: active.at as u64, bytes: SECTOR_BYTES })
    }

    /// Segments that are full and durable, with what they hold: to be sealed.
    pub fn take_sealed(&mut self) -> Option<(Segment, Range)> {
        let durable = self.durable;
        self.closed.pop_front_if(|(_, range)| range.last <= durable)
    }

    /// The highest sequence that was appended.
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// The highest sequence that is durable.
    pub const fn durable(&self) -> u64 {
        self.durable
    }

    /// Has a write or a sync failed?
    pub const fn is_poisoned(&self) -> bool {
        self.is_poisoned
    }

    /// A sync is under way?
    pub const fn is_syncing(&self) -> bool {
        self.syncing.is_some()
    }

    /// A record of so many bytes goes to the active segment, or to the next if that is too full.
    fn choose_segment(&mut self, payload: usize, buffer: usize) -> Result<(), Refused> {
        let group = (HEADER_BYTES + record_bytes(payload)).next_multiple_of(SECTOR_BYTES);
        if SECTOR_BYTES + group > self.segment_bytes {
            return Err(Refused::TooLarge { bytes: payload });
        }
        let stays = self.active.as_ref().is_some_and(|active| active.at + group <= self.segment_bytes);
        let needed = if stays { group } else { SECTOR_BYTES + group };
        if needed > buffer {
            return Err(Refused::BufferTooSmall { needed });
        }
        if !stays {
            let Some((segment, stamp)) = self.next.pop_front() else {
                self.lacks_segment = true;
                return Err(Refused::NoSegment);
            };
            self.close_active();
            self.active = Some(Active { segment, stamp, at: 0, first: self.last + 1 });
        }
        Ok(())
    }

    fn close_active(&mut self) {
        if let Some(Active { segment, first, .. }) = self.active.take()
            && first <= self.last
        {
            self.closed.push_back((segment, Range { first, last: self.last }));
        }
    }
}
