//! A verdict made durable: what is written before a recovered log takes anything new.
//!
//! 1. The number of a new segment is taken: a manifest says so. A crash later finds the number used, and takes another.
//! 2. The tail is written into that segment, and synced: it counts for nothing yet, and the old one still stands.
//! 3. A manifest lists the new segment and seals the old ones where the tail began. This is the moment at which the new life of
//!    the log begins, and what lay beyond the cut is gone for good.
//!
//! Without a tail the first two have nothing to do. Whatever step a crash interrupts, the next start finds the log of
//! before or of after, and does the same again.

use std::collections::VecDeque;

use thiserror::Error;

use crate::failpoint::{Failpoints, NoFailpoints};

use super::recovery::{Closed, Found, Recovered};
use super::table::{NoRoom, Purpose, SegmentTable};
use super::writer::{Refused, Writer};
use super::{Segment, Slot, Step, Target};

/// Says step by step what to write and what to sync.
#[derive(Clone, Debug)]
pub struct Opening<F = NoFailpoints> {
    table: SegmentTable<F>,
    writer: Writer<F>,
    closed: Vec<Closed>,
    /// Records to be written once more, `copied` of them are.
    tail: Vec<Found>,
    copied: usize,
    moved: Vec<Found>,
    fresh: Vec<Segment>,
    /// The manifest that is being written.
    image: Vec<u8>,
    steps: VecDeque<Step>,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Reserve,
    Reserved,
    Copy,
    Synced,
    Commit,
    Committed,
    Done,
}

/// A log that takes records.
#[derive(Clone, Debug)]
pub struct Opened<F = NoFailpoints> {
    /// Its segments.
    pub table: SegmentTable<F>,
    /// Goes on after all that was recovered.
    pub writer: Writer<F>,
    /// Where the records of the tail are now.
    pub moved: Vec<Found>,
}

/// Why the log can't be opened. What it held is still there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum OpeningError {
    /// No slot is left.
    #[error("the log can't be opened: {0}")]
    NoRoom(#[from] NoRoom),
    /// The buffer is too short, or a record is larger than the log's geometry allows.
    #[error("the log can't be opened: {0}")]
    Refused(#[from] Refused),
}

impl<F: Failpoints> Opening<F> {
    /// From what was found; for a new log from a recovery of [`Manifest::new`](super::Manifest::new).
    pub fn new(recovered: Recovered, failpoints: F) -> Self {
        let Recovered { report, tail, manifest, closed } = recovered;
        let table = SegmentTable::of(&manifest, failpoints);
        let writer = Writer::new(&table, report.durable);
        let image = vec![0; manifest.geometry.manifest_bytes()];
        Self {
            table,
            writer,
            closed,
            tail,
            copied: 0,
            moved: Vec::new(),
            fresh: Vec::new(),
            image,
            steps: VecDeque::new(),
            stage: Stage::Reserve,
        }
    }

    /// The next thing to do; `None` when the log is open. The last one has succeeded: if it failed, drop all of this and
    /// start again from what the disk holds. `segment` gives the bytes of a slot that isn't sealed, as they were fed.
    /// `into` holds at least [`Geometry::manifest_bytes`](super::Geometry::manifest_bytes), and a segment's largest group.
    ///
    /// # Errors
    ///
    /// [`OpeningError`].
    pub fn next<'a>(
        &mut self,
        segment: impl Fn(Slot) -> &'a [u8],
        into: &mut [u8],
    ) -> Result<Option<Step>, OpeningError> {
        loop {
            if let Some(step) = self.steps.pop_front() {
                if matches!(step, Step::Write(write) if matches!(write.target, Target::Manifest(_))) {
                    into[..self.image.len()].copy_from_slice(&self.image);
                }
                return Ok(Some(step));
            }
            match self.stage {
                Stage::Reserve => self.reserve()?,
                Stage::Reserved => {
                    self.table.on_persisted();
                    let fresh = *self.fresh.last().expect("one was reserved");
                    self.writer.add_reserved(&self.table, fresh);
                    self.stage = Stage::Copy;
                }
                Stage::Copy => {
                    if let Some(step) = self.copy(&segment, into)? {
                        return Ok(Some(step));
                    }
                }
                Stage::Synced => {
                    self.writer.on_synced();
                    self.stage = Stage::Commit;
                }
                Stage::Commit => self.commit(),
                Stage::Committed => {
                    self.table.on_persisted();
                    if self.tail.is_empty() {
                        self.writer.add_segment(&self.table, self.fresh[0]);
                    }
                    self.stage = Stage::Done;
                }
                Stage::Done => return Ok(None),
            }
        }
    }

    /// The open log.
    ///
    /// # Panics
    ///
    /// If something is left to do.
    pub fn finish(self) -> Opened<F> {
        assert_eq!(self.stage, Stage::Done, "all steps were done");
        Opened { table: self.table, writer: self.writer, moved: self.moved }
    }

    fn reserve(&mut self) -> Result<(), NoRoom> {
        self.fresh.push(self.table.reserve(Purpose::Open)?);
        if self.tail.is_empty() {
            self.stage = Stage::Commit;
        } else {
            self.persist();
            self.stage = Stage::Reserved;
        }
        Ok(())
    }

    /// The next group of the tail, or a sync when all of it is written.
    fn copy<'a>(
        &mut self,
        segment: impl Fn(Slot) -> &'a [u8],
        into: &mut [u8],
    ) -> Result<Option<Step>, Refused> {
        let left = &self.tail[self.copied..];
        if left.is_empty() {
            let sync = self.writer.begin_sync().expect("the tail was written");
            self.steps.extend(sync.slots.iter().map(|slot| Step::Sync(Target::Segment(*slot))));
            self.stage = Stage::Synced;
            return Ok(None);
        }
        let payloads: Vec<&[u8]> =
            left.iter().map(|found| &segment(found.segment.slot)[found.payload()]).collect();
        match self.writer.append(&payloads, into, &mut self.moved) {
            Ok(written) => {
                self.copied += written.records;
                Ok(Some(Step::Write(written.write)))
            }
            Err(Refused::NoSegment) => {
                self.stage = Stage::Reserve;
                Ok(None)
            }
            Err(refused) => Err(refused),
        }
    }

    fn commit(&mut self) {
        for closed in &self.closed {
            match closed.range {
                Some(range) => self.table.seal(closed.segment, range, closed.is_damaged),
                None => self.table.release(closed.segment),
            }
        }
        for fresh in &self.fresh {
            self.table.list(*fresh);
        }
        self.persist();
        self.stage = Stage::Committed;
    }

    fn persist(&mut self) {
        self.table.begin_persist(self.writer.durable(), &mut self.image);
        self.steps.extend(self.table.persist_steps());
    }
}
