//! One shard's log: the machines of the product, over a simulated disk.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;

use ringmain::failpoint::Failpoints;
use ringmain::id::{ClusterId, NodeId, ShardId};
use ringmain::prng::Prng;
use ringmain::storage::log::{
    Found, Geometry, Identity, Liveness, Manifest, Offsets, Opened, Opening, Purpose, Range, Recovered,
    Recovery, Refusal, Refused, Report, Segment, Slot, Step, Target, Write,
};

use super::{Disk, DiskFaults, DiskImage, Injected};

/// The log doesn't care whose it is: nobody swaps the disks of two nodes here.
const OWNER: Identity = Identity { cluster: ClusterId(0), node: NodeId(0), shard: ShardId(0), home: 0 };

/// An append-only log of one shard on a disk of its own.
///
/// Records have positions, counted from 1 without a hole. They go out in groups ([`ShardLog::write_out`]) and are
/// durable once a sync has covered them. After a crash, a wipe or a restore the log is closed until
/// [`ShardLog::reopen`] says what is left.
#[derive(Clone, Debug)]
pub struct ShardLog<F> {
    disk: Disk,
    geometry: Geometry,
    /// `None` while it is closed.
    opened: Option<Opened<F>>,
    /// Appended, and in no group yet; some are markers.
    waiting: Vec<(Vec<u8>, bool)>,
    /// What of each segment is needed.
    liveness: Liveness,
    /// Where each record lies.
    offsets: Offsets,
    /// What the last opening found, and nobody has said yet what it is.
    found: VecDeque<Found>,
    /// Covered by records that may not be written out yet.
    dead: Vec<u64>,
    /// A segment that is being compacted, and the record up to which its copies go, once they are there.
    compacting: Option<(Segment, Option<u64>)>,
    /// What the last opening found.
    report: Report,
    /// Why the last opening emptied the disk.
    refusal: Option<Refusal>,
    failpoints: F,
    /// Draws the log's secret.
    prng: Prng,
    /// Kept for their memory.
    buffer: Vec<u8>,
    image: Vec<u8>,
}

/// Why the log refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogError {
    /// No room for the record; the log is as it was, and a later try may succeed.
    Full,
    /// A write or a sync failed: what it should have covered may or may not outlive a crash. The log is poisoned.
    Sync,
    /// An earlier one failed, and the log hasn't been reopened since.
    Poisoned,
}

impl<F: Failpoints> ShardLog<F> {
    /// A log that was never opened, on an empty disk that holds what this geometry asks for.
    pub fn new(geometry: Geometry, faults: DiskFaults, mut prng: Prng, failpoints: F) -> Self {
        let slots = geometry.slots_max() as usize * geometry.segment_bytes();
        let disk = Disk::new(2 * geometry.manifest_bytes() + slots, faults, prng.split());
        let buffer = vec![0; geometry.segment_bytes().max(geometry.manifest_bytes())];
        let image = vec![0; geometry.manifest_bytes()];
        let (waiting, report) = (Vec::new(), Report::default());
        let refusal = None;
        Self {
            disk,
            geometry,
            opened: None,
            waiting,
            liveness: Liveness::default(),
            offsets: Offsets::default(),
            found: VecDeque::new(),
            dead: Vec::new(),
            compacting: None,
            report,
            refusal,
            failpoints,
            prng,
            buffer,
            image,
        }
    }

    /// Add a record, to go out with the next group; its position. A marker says that something is gone.
    ///
    /// # Errors
    ///
    /// [`LogError::Poisoned`]. The record isn't in the log.
    ///
    /// # Panics
    ///
    /// If the log is closed.
    pub fn append(&mut self, record: &[u8], is_marker: bool) -> Result<u64, LogError> {
        if self.opened().writer.is_poisoned() {
            return Err(LogError::Poisoned);
        }
        self.waiting.push((record.to_vec(), is_marker));
        Ok(self.last())
    }

    /// The turn is over: its records go to the disk, in one group if they fit.
    ///
    /// # Errors
    ///
    /// [`LogError::Full`], if no segment is left: the rest waits for the next try. [`LogError::Sync`] or
    /// [`LogError::Poisoned`], if the log is lost.
    pub fn write_out(&mut self) -> Result<(), LogError> {
        while !self.waiting.is_empty() {
            if self.is_poisoned() {
                return Err(LogError::Poisoned);
            }
            self.reserve()?;
            let opened = self.opened.as_mut().expect("a log is reopened after a crash, a wipe or a restore");
            let records: Vec<&[u8]> = self.waiting.iter().map(|(record, _)| record.as_slice()).collect();
            let mut placed = Vec::new();
            let written = match opened.writer.append(&records, &mut self.buffer, &mut placed) {
                Ok(written) => written,
                Err(Refused::Poisoned) => return Err(LogError::Poisoned),
                Err(_) => return Err(LogError::Full),
            };
            if write(&mut self.disk, self.geometry, written.write, &self.buffer).is_err() {
                opened.writer.on_failed();
                return Err(LogError::Sync);
            }
            for (found, (_, is_marker)) in placed.iter().zip(self.waiting.drain(..written.records)) {
                self.liveness.on_record(found, is_marker);
                self.offsets.on_record(found);
            }
        }
        self.bury();
        Ok(())
    }

    /// Make all records durable; the highest durable position, 0 if there is none.
    ///
    /// # Errors
    ///
    /// As [`ShardLog::write_out`]. No record became durable.
    ///
    /// # Panics
    ///
    /// If the log is closed.
    pub fn sync(&mut self) -> Result<u64, LogError> {
        self.write_out()?;
        let opened = self.opened.as_mut().expect("it was open before");
        if opened.writer.is_poisoned() {
            return Err(LogError::Poisoned);
        }
        if opened.writer.begin_sync().is_some() {
            if self.disk.sync().is_err() {
                opened.writer.on_failed();
                return Err(LogError::Sync);
            }
            opened.writer.on_synced();
        }
        while let Some((segment, range)) = opened.writer.take_sealed() {
            opened.table.seal(segment, range, false);
        }
        self.release()?;
        let opened = self.opened.as_mut().expect("it was open before");
        // Nothing else is to be written now.
        if let Some(mark) = opened.writer.mark(&mut self.buffer) {
            // A mark that can't be written says nothing, and that is all.
            let _ = write(&mut self.disk, self.geometry, mark, &self.buffer);
        }
        Ok(self.durable())
    }

    /// The power fails. Closes the log.
    pub fn crash(&mut self, prng: &mut Prng) {
        self.disk.crash(prng);
        self.close();
    }

    /// Find out what is left and open the log; the records, in order, with their positions. All of them are durable.
    ///
    /// A disk on which neither manifest can be read is emptied, as an operator would: see [`ShardLog::refusal`].
    ///
    /// # Panics
    ///
    /// If there is no room to open it.
    pub fn reopen(&mut self) -> Vec<(u64, Vec<u8>)> {
        self.close();
        self.refusal = None;
        let bytes = self.read();
        let (found, recovered) = match self.recover(&bytes) {
            Ok(recovered) => recovered,
            Err(refusal) => {
                self.wipe();
                let nothing = self.reopen();
                self.refusal = Some(refusal);
                return nothing;
            }
        };
        let stands = found.iter().chain(&recovered.tail);
        let records = stands
            .map(|found| (found.sequence, self.slot(&bytes, found.segment.slot)[found.payload()].to_vec()))
            .collect();
        self.report = recovered.report.clone();
        // A start that fails is made again: what comes of it is a matter for the crash images.
        let faults = self.disk.faults();
        self.disk.set_faults(DiskFaults { sync_error: 0.0, full: 0.0, ..faults });
        let mut opening = Opening::new(recovered, self.failpoints.clone());
        loop {
            let (geometry, manifests) = (self.geometry, 2 * self.geometry.manifest_bytes());
            let slot = |slot: Slot| of_slot(&bytes, manifests, geometry, slot);
            match opening.next(slot, &mut self.buffer).expect("the disk has room to open the log") {
                Some(Step::Write(to)) => {
                    write(&mut self.disk, geometry, to, &self.buffer).expect("it lies within the disk");
                }
                Some(Step::Sync(_)) => self.disk.sync().expect("it can't fail now"),
                None => break,
            }
        }
        self.disk.set_faults(faults);
        let opened = opening.finish();
        self.offsets = Offsets::default();
        found.iter().chain(&opened.moved).for_each(|found| self.offsets.on_record(found));
        self.found = found.into_iter().chain(opened.moved.iter().copied()).collect();
        self.opened = Some(opened);
        records
    }

    /// The next record that the last opening found is a marker or not, and covers these.
    pub fn on_recovered(&mut self, is_marker: bool, covered: impl Iterator<Item = u64>) {
        let found = self.found.pop_front().expect("one was found for each record");
        self.liveness.on_record(&found, is_marker);
        covered.for_each(|position| self.liveness.on_dead(position));
    }

    /// Read a record again, as far as the disk has it whole.
    pub fn read_record(&self, position: u64) -> Option<Vec<u8>> {
        let chunk = self.offsets.find(position)?;
        let start = 2 * self.geometry.manifest_bytes()
            + chunk.segment.slot.0 as usize * self.geometry.segment_bytes();
        let sectors = chunk.sectors();
        let stored = self.disk.contents();
        let stored =
            &stored[(start + sectors.start).min(stored.len())..(start + sectors.end).min(stored.len())];
        self.opened.as_ref()?.table.payload_in(&chunk, stored, position).map(<[u8]>::to_vec)
    }

    /// Later records cover these.
    pub fn on_dead(&mut self, positions: impl Iterator<Item = u64>) {
        self.dead.extend(positions);
        self.bury();
    }

    /// What is worth a compaction now, if anything: then it is under way until [`ShardLog::on_compacted`].
    pub fn begin_compaction(&mut self) -> Option<Range> {
        let opened = self.opened.as_ref().filter(|_| self.compacting.is_none())?;
        let (segment, range) = self.liveness.choose(&opened.table, false)?;
        self.compacting = Some((segment, None));
        Some(range)
    }

    /// All that was needed of it is appended anew: once the records up to this position are durable, it goes.
    pub fn on_compacted(&mut self, through: u64) {
        if let Some((_, copied)) = &mut self.compacting {
            *copied = Some(through);
        }
    }

    /// Let a compacted segment go, when its copies are durable.
    fn release(&mut self) -> Result<(), LogError> {
        let Some((segment, Some(through))) = self.compacting else { return Ok(()) };
        if self.durable() < through {
            return Ok(());
        }
        self.compacting = None;
        self.liveness.on_released(segment);
        self.offsets.on_released(segment);
        self.opened.as_mut().expect("what is durable is open").table.release(segment);
        self.persist()
    }

    fn bury(&mut self) {
        let written = self.opened.as_ref().map_or(0, |opened| opened.writer.last());
        let dead = self.dead.extract_if(.., |position| *position <= written);
        dead.for_each(|position| self.liveness.on_dead(position));
    }

    /// The highest durable position, 0 if there is none.
    pub fn durable(&self) -> u64 {
        self.opened.as_ref().map_or(0, |opened| opened.writer.durable())
    }

    /// The highest position, durable or not, 0 if there is none.
    pub fn last(&self) -> u64 {
        self.opened.as_ref().map_or(0, |opened| opened.writer.last()) + self.waiting.len() as u64
    }

    /// Refuses appends and syncs until it is reopened?
    pub fn is_poisoned(&self) -> bool {
        self.opened.as_ref().is_some_and(|opened| opened.writer.is_poisoned())
    }

    /// What the last opening found.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Why the last opening could not read what was there, and emptied the disk; never, unless something was corrupted.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref()
    }

    /// A new disk in place of the old, empty. Closes the log.
    pub fn wipe(&mut self) {
        self.disk.wipe();
        self.close();
    }

    /// A copy of what is durable.
    pub fn image(&self) -> DiskImage {
        self.disk.image()
    }

    /// Put back what was durable when the image was made. Closes the log.
    ///
    /// # Panics
    ///
    /// If the image is of a larger disk and doesn't fit.
    pub fn restore(&mut self, image: &DiskImage) {
        self.disk.restore(image);
        self.close();
    }

    /// The log is closed, and its disk has been damaged meanwhile: bits have flipped, sectors were written over others. Damage
    /// that nobody could tell from a crash, to the last group before anything says that it was durable, is not done.
    pub fn damage(&mut self, prng: &mut Prng) {
        let before = self.disk.image();
        let durable = self.last_readable();
        for _ in 0..=prng.below(8) {
            self.disk.damage(prng);
        }
        let bytes = self.read();
        let is_told = self.recover(&bytes).map_or(true, |(found, recovered)| {
            let last = found.iter().chain(&recovered.tail).map(|found| found.sequence).max().unwrap_or(0);
            !recovered.report.is_clean() || last >= durable
        });
        if !is_told {
            self.disk.restore(&before);
        }
    }

    /// The last record that an opening would find.
    fn last_readable(&mut self) -> u64 {
        let bytes = self.read();
        self.recover(&bytes).map_or(0, |(found, recovered)| {
            found.iter().chain(&recovered.tail).map(|found| found.sequence).max().unwrap_or(0)
        })
    }

    /// Other rates of faults from now on.
    pub fn set_faults(&mut self, faults: DiskFaults) {
        self.disk.set_faults(faults);
    }

    /// The faults that happened since this was last asked, in order.
    pub fn take_injected(&mut self) -> Vec<Injected> {
        self.disk.take_injected()
    }

    fn opened(&self) -> &Opened<F> {
        self.opened.as_ref().expect("a log is reopened after a crash, a wipe or a restore")
    }

    fn close(&mut self) {
        self.opened = None;
        self.waiting.clear();
        self.liveness = Liveness::default();
        self.found.clear();
        self.dead.clear();
        self.compacting = None;
    }

    /// The next segment, when it is time. A full log gets none.
    fn reserve(&mut self) -> Result<(), LogError> {
        let opened = self.opened.as_mut().expect("a log is reopened after a crash, a wipe or a restore");
        if !opened.writer.wants_segment() {
            return Ok(());
        }
        let purpose = if self.compacting.is_some() { Purpose::Compact } else { Purpose::Append };
        let Ok(segment) = opened.table.reserve(purpose) else { return Ok(()) };
        opened.table.list(segment);
        self.persist()?;
        let opened = self.opened.as_mut().expect("it was open before");
        opened.writer.add_segment(&opened.table, segment);
        Ok(())
    }

    /// Write the next version of the manifest.
    fn persist(&mut self) -> Result<(), LogError> {
        let opened = self.opened.as_mut().expect("a log is reopened after a crash, a wipe or a restore");
        opened.table.begin_persist(opened.writer.durable(), &mut self.image);
        for step in opened.table.persist_steps() {
            let done = match step {
                Step::Write(to) => write(&mut self.disk, self.geometry, to, &self.image),
                Step::Sync(_) => self.disk.sync(),
            };
            if done.is_err() {
                opened.writer.on_failed();
                return Err(LogError::Sync);
            }
        }
        opened.table.on_persisted();
        Ok(())
    }

    /// All that the disk holds.
    fn read(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; self.disk.contents().len().max(2 * self.geometry.manifest_bytes())];
        self.disk.read(0, &mut bytes);
        bytes
    }

    fn recover(&mut self, bytes: &[u8]) -> Result<(Vec<Found>, Recovered), Refusal> {
        let manifest_bytes = self.geometry.manifest_bytes();
        let (copies, slots) = bytes.split_at(2 * manifest_bytes);
        let (first, second) = copies.split_at(manifest_bytes);
        let has_segments = slots.iter().any(|byte| *byte != 0);
        let manifest = Manifest::choose([first, second], &OWNER, has_segments)?;
        let manifest = manifest.unwrap_or_else(|| Manifest::new(OWNER, self.geometry, self.prng.next_u64()));
        let mut recovery = Recovery::new(manifest, self.failpoints.clone());
        let mut found = Vec::new();
        for segment in recovery.segments().collect::<Vec<_>>() {
            recovery.feed(segment, self.slot(bytes, segment.slot), &mut found);
        }
        let recovered = recovery.settle(&mut found);
        Ok((found, recovered))
    }

    fn slot<'a>(&self, bytes: &'a [u8], slot: Slot) -> &'a [u8] {
        of_slot(bytes, 2 * self.geometry.manifest_bytes(), self.geometry, slot)
    }
}

/// As much of a slot as the disk holds.
fn of_slot(bytes: &[u8], manifests: usize, geometry: Geometry, slot: Slot) -> &[u8] {
    let start = manifests + slot.0 as usize * geometry.segment_bytes();
    let stored = bytes.get(start..).unwrap_or_default();
    &stored[..stored.len().min(geometry.segment_bytes())]
}

fn write(disk: &mut Disk, geometry: Geometry, to: Write, buffer: &[u8]) -> Result<(), super::DiskError> {
    let start = match to.target {
        Target::Manifest(copy) => usize::from(copy) * geometry.manifest_bytes(),
        Target::Segment(slot) => 2 * geometry.manifest_bytes() + slot.0 as usize * geometry.segment_bytes(),
    };
    disk.write(start as u64 + to.offset, &buffer[..to.bytes])
}

impl fmt::Display for LogError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Full => "no room in the log: delete something, or write less",
            Self::Sync => "the log failed to write or to sync: restart the shard",
            Self::Poisoned => "an earlier write or sync of the log failed: restart the shard",
        })
    }
}

impl Error for LogError {}
