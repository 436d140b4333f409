//! One shard's log as the simulator keeps it: what a crash may do to a good log, and nothing else.

use std::error::Error;
use std::fmt;

use ringmain::prng::Prng;

use super::{Disk, DiskFaults, DiskImage, Injected, frame};

/// An append-only log of one shard on a disk of its own, which loses, tears and refuses but doesn't corrupt.
///
/// Records have positions, counted from 1 without a hole. A record is durable once a sync has covered it. After
/// a crash, a wipe or a restore the log is closed until [`IdealLog::reopen`] says what is left.
///
/// One thing makes it ideal: reopening erases what follows the last whole record at once and for ever. A
/// generation in the checksum wouldn't be enough: a record written over a cut one may be lost in its first sector
/// and kept in its second, and if the two agree there, the cut one is whole again. A real log has to overwrite
/// and sync the tail before it appends, and that sync may fail too.
#[derive(Clone, Debug)]
pub struct IdealLog {
    disk: Disk,
    /// Where on the disk each record ends.
    ends: Vec<usize>,
    /// So many records are covered by a sync: `0..=ends.len()`.
    durable: usize,
    state: State,
    /// Kept for its memory.
    frame: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Open,
    /// A sync failed.
    Poisoned,
    /// What the disk holds isn't known.
    Closed,
}

/// Why the log refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogError {
    /// No room for the record; the log is as it was, and a shorter one or a later try may succeed.
    Full,
    /// The sync failed: what it should have covered may or may not outlive a crash. The log is poisoned.
    Sync,
    /// An earlier sync failed, and the log hasn't been reopened since.
    Poisoned,
}

impl IdealLog {
    /// An empty log, open, on a disk of `capacity` bytes.
    ///
    /// # Panics
    ///
    /// If the faults corrupt: this log doesn't look for damage among what it has synced.
    pub fn new(capacity: usize, faults: DiskFaults, prng: Prng) -> Self {
        assert!(!faults.corrupts(), "an ideal log's disk doesn't corrupt");
        let disk = Disk::new(capacity, faults, prng);
        Self { disk, ends: Vec::new(), durable: 0, state: State::Open, frame: Vec::new() }
    }

    /// Add a record, not yet durable; its position.
    ///
    /// # Errors
    ///
    /// [`LogError::Full`], or [`LogError::Poisoned`]. The record isn't in the log.
    ///
    /// # Panics
    ///
    /// If the log is closed, or the record has 4 GiB.
    pub fn append(&mut self, record: &[u8]) -> Result<u64, LogError> {
        self.check_open()?;
        let position = self.last() + 1;
        frame::encode(&mut self.frame, position, record);
        let end = self.end();
        self.disk.write(end as u64, &self.frame).map_err(|_full| LogError::Full)?;
        self.ends.push(end + self.frame.len());
        Ok(position)
    }

    /// Make all records durable; the highest durable position, 0 if there is none.
    ///
    /// # Errors
    ///
    /// [`LogError::Sync`] if it fails now, [`LogError::Poisoned`] if one failed before. No record became durable.
    ///
    /// # Panics
    ///
    /// If the log is closed.
    pub fn sync(&mut self) -> Result<u64, LogError> {
        self.check_open()?;
        if self.disk.sync().is_err() {
            self.state = State::Poisoned;
            return Err(LogError::Sync);
        }
        self.durable = self.ends.len();
        Ok(self.durable())
    }

    /// The power fails: of the records that aren't durable a prefix may survive. Closes the log.
    pub fn crash(&mut self, prng: &mut Prng) {
        self.disk.crash(prng);
        self.ends.truncate(self.durable);
        self.state = State::Closed;
    }

    /// Find out what is left, cut the tail there, and open the log; the records in order.
    ///
    /// After a crash, a wipe or a restore all of them are durable. If only the process was restarted, none was
    /// lost, and those that weren't durable still aren't: the next sync covers them, even if it was a failed one
    /// that poisoned the log.
    pub fn reopen(&mut self) -> impl ExactSizeIterator<Item = &[u8]> {
        if self.disk.is_synced() {
            let promised = self.durable;
            self.load();
            assert!(self.durable >= promised, "a durable record is gone");
            self.disk.erase_from(self.end());
        } else {
            self.disk.write_again();
        }
        self.state = State::Open;
        self.first(self.ends.len())
    }

    /// The durable records, in order: that at position 1 first.
    pub fn records(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.first(self.durable)
    }

    /// Does the record at this position outlive a crash for certain?
    pub fn is_durable(&self, position: u64) -> bool {
        (1..=self.durable()).contains(&position)
    }

    /// The highest durable position, 0 if there is none.
    pub fn durable(&self) -> u64 {
        self.durable as u64
    }

    /// The highest position, durable or not, 0 if there is none.
    pub fn last(&self) -> u64 {
        self.ends.len() as u64
    }

    /// Bytes of the disk in use.
    pub fn bytes(&self) -> usize {
        self.end()
    }

    /// Refuses appends and syncs until it is reopened, because a sync failed?
    pub fn is_poisoned(&self) -> bool {
        self.state == State::Poisoned
    }

    /// A new disk in place of the old, empty. Closes the log.
    pub fn wipe(&mut self) {
        self.disk.wipe();
        self.load();
        self.state = State::Closed;
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
        self.load();
        self.state = State::Closed;
    }

    /// Other rates of faults from now on.
    ///
    /// # Panics
    ///
    /// If they corrupt.
    pub fn set_faults(&mut self, faults: DiskFaults) {
        assert!(!faults.corrupts(), "an ideal log's disk doesn't corrupt");
        self.disk.set_faults(faults);
    }

    /// The faults that happened since this was last asked, in order.
    pub fn take_injected(&mut self) -> Vec<Injected> {
        self.disk.take_injected()
    }

    fn check_open(&self) -> Result<(), LogError> {
        assert!(self.state != State::Closed, "a log is reopened after a crash, a wipe or a restore");
        if self.is_poisoned() { Err(LogError::Poisoned) } else { Ok(()) }
    }

    /// Take all that a synced disk holds for durable.
    fn load(&mut self) {
        self.ends = frame::scan(self.disk.contents());
        self.durable = self.ends.len();
    }

    fn end(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    fn first(&self, count: usize) -> impl ExactSizeIterator<Item = &[u8]> {
        let disk = self.disk.contents();
        let mut start = 0;
        self.ends[..count].iter().map(move |&end| {
            let record = &disk[start + frame::HEADER_BYTES..end];
            start = end;
            record
        })
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Full => "no room in the log: delete something, or write less",
            Self::Sync => "the log failed to sync: restart the shard",
            Self::Poisoned => "an earlier sync of the log failed: restart the shard",
        })
    }
}

impl Error for LogError {}
