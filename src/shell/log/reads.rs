//! Records that are read again while the log is written, for a shard that keeps more than its memory holds (docs/adr/0022).
//!
//! The shard asks by sequence; the log knows in which chunk of which segment that lies ([`Offsets`]), and reads its sectors
//! through the shard's own ring, past the kernel's cache, into buffers of a small pool. A bounded number is on its way, of
//! bounded bytes; the others wait in their order. What comes back is checked before it is handed on: what fails is told as
//! unreadable, never as something else.
//!
//! A segment isn't let go while a read of it is on its way ([`Reads::touches`]).

use std::collections::VecDeque;

use super::disk::Buffer;
use super::recovery::Files;
use crate::storage::log::{Chunk, Offsets, SECTOR_BYTES, SegmentTable};

/// So many are on their way at once,
pub(super) const READS_MAX: usize = 64;
/// of so many bytes, but for one that is larger alone.
const READ_BYTES_MAX: usize = 2 << 20;
/// A buffer of up to so many bytes is kept for the next read: what a chunk of small records takes, wherever it begins.
const KEPT_BYTES: usize = 2 * SECTOR_BYTES;

/// All buffers, but for one that is larger.
pub(super) const BUFFERS_MAX: usize = READS_MAX * KEPT_BYTES + READ_BYTES_MAX;

/// What the shard has asked for.
pub(super) struct Reads {
    offsets: Offsets,
    waiting: VecDeque<u64>,
    slots: Vec<Slot>,
    /// Of all that are on their way.
    bytes: usize,
    /// Slots whose read has ended, with how many bytes came or what the system said; and sequences that lie nowhere.
    done: VecDeque<Done>,
}

struct Slot {
    buffer: Buffer,
    under_way: Option<UnderWay>,
}

#[derive(Clone, Copy)]
struct UnderWay {
    sequence: u64,
    chunk: Chunk,
}

#[derive(Clone, Copy)]
enum Done {
    /// In this slot, with this result.
    Read(usize, i32),
    /// The log has no such record.
    Nowhere(u64),
}

/// A read to begin.
pub(super) struct Begin {
    pub(super) slot: usize,
    pub(super) entry: io_uring::squeue::Entry,
}

/// What came of a read.
pub(super) struct Read<'a> {
    pub(super) sequence: u64,
    /// `None` if it can't be read.
    pub(super) record: Option<&'a [u8]>,
    /// Why not.
    pub(super) why: Option<String>,
}

impl Reads {
    /// Of a log with records at these places.
    pub(super) fn new(offsets: Offsets) -> Self {
        let (waiting, slots, done) = (VecDeque::new(), Vec::new(), VecDeque::new());
        Self { offsets, waiting, slots, bytes: 0, done }
    }

    pub(super) const fn offsets(&mut self) -> &mut Offsets {
        &mut self.offsets
    }

    /// The shard asks for a record.
    pub(super) fn ask(&mut self, sequence: u64) {
        self.waiting.push_back(sequence);
    }

    /// The next that can begin. Its buffer stays as it is until [`Reads::on_done`].
    pub(super) fn next(&mut self, files: &Files) -> Option<Begin> {
        while let Some(sequence) = self.waiting.front().copied() {
            let Some(chunk) = self.offsets.find(sequence) else {
                self.waiting.pop_front();
                self.done.push_back(Done::Nowhere(sequence));
                continue;
            };
            let sectors = chunk.sectors();
            let bytes = sectors.len();
            if self.bytes > 0 && self.bytes + bytes > READ_BYTES_MAX {
                return None;
            }
            let slot = self.free_slot()?;
            self.waiting.pop_front();
            self.bytes += bytes;
            let Slot { buffer, under_way } = &mut self.slots[slot];
            if buffer.len() < bytes {
                *buffer = Buffer::new(bytes);
            }
            *under_way = Some(UnderWay { sequence, chunk });
            let at = files.start_of(chunk.segment.slot) + sectors.start as u64;
            return Some(Begin { slot, entry: files.segments.read_entry(&mut buffer[..bytes], at) });
        }
        None
    }

    fn free_slot(&mut self) -> Option<usize> {
        if let Some(free) = self.slots.iter().position(|slot| slot.under_way.is_none()) {
            return Some(free);
        }
        if self.slots.len() == READS_MAX {
            return None;
        }
        self.slots.push(Slot { buffer: Buffer::new(KEPT_BYTES), under_way: None });
        Some(self.slots.len() - 1)
    }

    /// A read has ended.
    pub(super) fn on_done(&mut self, slot: usize, result: i32) {
        assert!(self.slots[slot].under_way.is_some(), "the kernel ends what was begun, once");
        self.done.push_back(Done::Read(slot, result));
    }

    /// What came of the next one that has ended. The slot is free again with the next call.
    pub(super) fn take(&mut self, table: &SegmentTable) -> Option<Read<'_>> {
        self.slots.iter_mut().filter(|slot| slot.under_way.is_none()).for_each(|slot| {
            if slot.buffer.len() > KEPT_BYTES {
                slot.buffer = Buffer::new(KEPT_BYTES);
            }
        });
        match self.done.pop_front()? {
            Done::Nowhere(sequence) => {
                let why = Some("the log has no such record".to_owned());
                Some(Read { sequence, record: None, why })
            }
            Done::Read(at, result) => {
                let Slot { buffer, under_way } = &mut self.slots[at];
                let UnderWay { sequence, chunk } = under_way.take()?;
                self.bytes -= chunk.sectors().len();
                let read = usize::try_from(result);
                let record = read.ok().and_then(|bytes| table.payload_in(&chunk, &buffer[..bytes], sequence));
                let why = match (record, result) {
                    (Some(_), _) => None,
                    (None, 0..) => Some("it is damaged".to_owned()),
                    (None, error) => Some(std::io::Error::from_raw_os_error(-error).to_string()),
                };
                Some(Read { sequence, record, why })
            }
        }
    }

    /// Is a read of this segment on its way?
    pub(super) fn touches(&self, segment: crate::storage::log::Segment) -> bool {
        let mut under_way = self.slots.iter().filter_map(|slot| slot.under_way);
        under_way.any(|read| read.chunk.segment == segment)
    }

    /// Something has ended, and is not told yet.
    pub(super) fn has_ended(&self) -> bool {
        !self.done.is_empty()
    }

    /// The kernel holds buffers of it.
    pub(super) fn is_under_way(&self) -> bool {
        let begun = self.slots.iter().filter(|slot| slot.under_way.is_some()).count();
        let ended = self.done.iter().filter(|done| matches!(done, Done::Read(..))).count();
        begun > ended
    }

    /// Something was asked for and is not told yet.
    pub(super) fn is_busy(&self) -> bool {
        !self.waiting.is_empty() || !self.done.is_empty() || self.is_under_way()
    }

    /// Bytes of its buffers and of the table of offsets.
    pub(super) fn memory(&self) -> usize {
        let buffers = self.slots.iter().map(|slot| slot.buffer.len());
        buffers.sum::<usize>() + self.offsets.memory()
    }
}
