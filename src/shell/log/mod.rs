//! A shard's log on the disk: the machines of [`storage::log`](crate::storage::log), run over files.
//!
//! The records of a turn go out as one group, and while it is on its way the next turns' records gather for the next one:
//! load makes groups, nothing waits for one. With `sync = always` the write of a group and the sync that covers it are two
//! linked operations of the shard's own ring (docs/adr/0018), so a group costs no more turns than it has to, and the shard
//! never blocks. Beside it run one change of the manifest at a time, which takes the next segment before the last is
//! full, and the allocation of new slots.
//!
//! What it promises: [`Log::take_acknowledged`] tells of a record when it is what `sync` says, never before. A write or a sync
//! that fails ends all acknowledgements until the next start, loudly. A full disk, or a full log, is found while there is
//! half a segment left; then, unless a compacted segment is about to be let go, it says [`LogState::Full`] and tries again
//! every second. More than `backlog_max` waiting is [`LogState::Behind`].
//!
//! What it never does: wait, decide what is written, or trust what it reads ([`recovery`]).

mod backup;
mod directory;
mod disk;
mod pin;
mod read;
mod reads;
mod recovery;
mod rehome;
mod room;
mod verify;

use std::collections::VecDeque;
use std::ops::Range;
use std::path::PathBuf;

use super::net::Net;
use crate::config::{LOG_BYTES, Sync};
use crate::id::ShardId;
use crate::shard::{Append, Compacted, LogState};
use crate::storage::log::{
    Liveness, Opened, Range as Sequences, Refused, SECTOR_BYTES, Segment, SegmentTable, Step, Writer,
};
use crate::time::{Duration, Instant};

pub use backup::{
    Backup, BackupError, Pass, Restoration, Restored, Taking, backup, is_backup, restore, verify_backup,
};
pub(super) use directory::DataDirectory;
pub use directory::DataError;
use disk::{Buffer, FILL_BYTES};
use pin::Pin;
use reads::{BUFFERS_MAX, READS_MAX, Reads};
use recovery::{Files, MANIFEST_BYTES, forget_adopted};
pub(super) use recovery::{LogIdentity, OpenLog, open};
pub(super) use rehome::{Rehoming, rehome};
pub use verify::{Verdict, verify};

/// Records that wait to be written, in bytes, before the shard is asked to take nothing new; it goes on at half of that.
const BACKLOG_BYTES_MAX: usize = 64 << 20;
/// Where a shard's memory has a limit, they are one part in so many of it at most.
const BACKLOG_SHARE: usize = 16;
/// The list of them keeps room for so many bytes.
const BACKLOG_KEPT: usize = 1 << 20;
/// Of a group, unless a single record is larger.
const GROUP_BYTES: usize = 1 << 20;
/// A full disk is tried again so often.
const ROOM_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Whether a segment is worth a compaction is asked when one was sealed or let go, and so often: what is needed becomes less by
/// itself. Whether a backup has ended is asked so often, while one reads.
const CHOOSE_EVERY: Duration = Duration::from_millis(100);
/// So long after the last group nothing else is about to be written, and a mark says what is durable.
const MARK_AFTER: Duration = Duration::from_millis(100);

/// Where memory has a limit, the least is reckoned with this.
const _: () = assert!(LOG_BYTES as usize >= GROUP_BYTES + FILL_BYTES + MANIFEST_BYTES + BUFFERS_MAX);

/// Reads are numbered from here on.
const FIRST_READ: usize = 5;

/// The steps that may be on their way, by the number that comes back with them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
enum Way {
    Group = 0,
    Sync = 1,
    Mark = 2,
    Manifest = 3,
    Allocation = 4,
}

/// A shard's log while it serves.
pub(super) struct Log {
    shard: ShardId,
    sync: Sync,
    files: Files,
    table: SegmentTable,
    writer: Writer,
    waiting: Waiting,
    /// What the group on its way is written from, or the mark.
    group: Buffer,
    /// What the manifest on its way is written from.
    image: Buffer,
    /// By [`Way`]: it is on its way, and so many bytes are to be written.
    under_way: [Option<usize>; 5],
    change: Option<Change>,
    liveness: Liveness,
    /// Records that are read again, where the shard's memory has a limit.
    reads: Option<Reads>,
    /// Covered by later records; these may not be in a group yet.
    dead: Vec<u64>,
    compaction: Option<Compaction>,
    choose_at: Instant,
    /// A backup reads: no segment is let go, as long as there is room.
    pin: Pin,
    ask_pin_at: Instant,
    /// Slots that the file has room for, filled: to write to them takes none.
    allocated: u32,
    /// Of the next one so many bytes are there already.
    filled: usize,
    /// Room for all of it is set aside.
    is_set_aside: bool,
    /// What it is filled with.
    zeros: Buffer,
    /// The last record that was told to be what `sync` says.
    acknowledged: u64,
    told: u64,
    sync_by: Option<Instant>,
    mark_by: Option<Instant>,
    room_again: Option<Instant>,
    /// What the system said then.
    room_error: i32,
    has_room: bool,
    backlog_max: usize,
    is_behind: bool,
    is_stopping: bool,
    /// Goes when shard 0's first record is durable: it says what its node lacks.
    adopted: Option<(PathBuf, u64)>,
    now: Instant,
}

/// A version of the manifest on its way.
struct Change {
    steps: VecDeque<Step>,
    granted: Option<Segment>,
}

/// How far the compaction of a segment is.
#[derive(Clone, Copy)]
enum Compaction {
    /// The shard is to append anew what is needed of it,
    Chosen(Segment, Sequences),
    /// and does,
    Copying(Segment),
    /// and has: all of it is in records up to this one.
    Copied(Segment, u64),
}

/// Records that no group holds yet.
#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    records: VecDeque<Range<usize>>,
    /// By record.
    markers: VecDeque<bool>,
}

impl Log {
    /// `memory_max` is the shard's limit: what waits to be written is a small part of it.
    pub(super) fn new(
        shard: ShardId,
        sync: Sync,
        log: OpenLog,
        pin: Pin,
        memory_max: Option<usize>,
    ) -> std::io::Result<Self> {
        let OpenLog { files, opened, liveness, offsets, adopted, .. } = log;
        let Opened { table, writer, .. } = opened;
        let segment_bytes = files.geometry.segment_bytes() as u64;
        let length = files.segments.len()?;
        let allocated = (length / segment_bytes) as u32;
        // A file that was cut off may hold the first part of a segment.
        let filled = ((length % segment_bytes) as usize).next_multiple_of(SECTOR_BYTES);
        let durable = writer.durable();
        Ok(Self {
            shard,
            sync,
            group: Buffer::new(GROUP_BYTES),
            image: Buffer::new(files.geometry.manifest_bytes()),
            files,
            table,
            writer,
            waiting: Waiting::default(),
            under_way: [None; 5],
            change: None,
            liveness,
            reads: offsets.map(Reads::new),
            dead: Vec::new(),
            compaction: None,
            choose_at: Instant(0),
            pin,
            ask_pin_at: Instant(0),
            allocated,
            filled,
            is_set_aside: false,
            zeros: Buffer::new(FILL_BYTES),
            acknowledged: durable,
            told: durable,
            sync_by: None,
            mark_by: None,
            room_again: None,
            room_error: 0,
            has_room: true,
            backlog_max: memory_max
                .map_or(BACKLOG_BYTES_MAX, |most| BACKLOG_BYTES_MAX.min(most / BACKLOG_SHARE)),
            is_behind: false,
            is_stopping: false,
            adopted: adopted.filter(|_| shard == ShardId(0)).map(|marker| (marker, durable)),
            now: Instant(0),
        })
    }

    /// Add a record, the next of the shard's; it leaves at the end of the turn, if nothing else is on its way.
    pub(super) fn append(&mut self, append: &Append, record: &[u8]) {
        if self.writer.is_poisoned() {
            return;
        }
        self.waiting.push(record, append.is_marker);
        debug_assert_eq!(append.sequence, self.writer.last() + self.waiting.records.len() as u64);
    }

    /// The shard asks for a record that was told as acknowledged: what comes of it is told by [`Log::take_read`].
    pub(super) fn read(&mut self, sequence: u64) {
        self.reads.as_mut().expect("only a shard with a limit reads").ask(sequence);
    }

    /// Records were read, and are not told yet.
    pub(super) fn has_read(&self) -> bool {
        self.reads.as_ref().is_some_and(Reads::has_ended)
    }

    /// The next record that was read, or can't be.
    pub(super) fn take_read(&mut self) -> Option<(u64, Option<&[u8]>)> {
        let Self { reads, table, shard, .. } = self;
        let read = reads.as_mut()?.take(table)?;
        if let Some(why) = &read.why {
            eprintln!(
                "ringmain: the log of shard {}: record {} can't be read: {why}",
                shard.0, read.sequence
            );
        }
        Some((read.sequence, read.record))
    }

    /// Later records cover these.
    pub(super) fn on_dead(&mut self, dead: &mut Vec<u64>) {
        self.dead.append(dead);
    }

    /// What is to be compacted now.
    pub(super) fn take_compaction(&mut self) -> Option<Sequences> {
        let Some(Compaction::Chosen(segment, range)) = self.compaction else { return None };
        self.compaction = Some(Compaction::Copying(segment));
        Some(range)
    }

    /// What was to be compacted is appended anew.
    pub(super) fn on_compacted(&mut self, compacted: Compacted) {
        if let Some(Compaction::Copying(segment)) = self.compaction {
            self.compaction = Some(Compaction::Copied(segment, compacted.through));
        }
    }

    /// The last record that is what `sync` says, if that is news.
    pub(super) fn take_acknowledged(&mut self) -> Option<u64> {
        (self.acknowledged > self.told).then(|| {
            self.told = self.acknowledged;
            self.told
        })
    }

    /// What the shard may append.
    pub(super) fn state(&self) -> LogState {
        if self.writer.is_poisoned() {
            LogState::Failed
        } else if !self.has_room {
            LogState::Full
        } else if self.is_behind {
            LogState::Behind
        } else {
            LogState::Open
        }
    }

    /// Something is on its way, or about to be.
    pub(super) fn is_busy(&self) -> bool {
        let waits = !self.waiting.records.is_empty() && self.has_room && !self.writer.is_poisoned();
        waits || self.is_writing() || self.reads.as_ref().is_some_and(Reads::is_busy)
    }

    /// The kernel holds something that is written.
    fn is_writing(&self) -> bool {
        self.under_way.iter().any(Option::is_some)
    }

    /// The kernel holds something of it.
    fn is_under_way(&self) -> bool {
        self.is_writing() || self.reads.as_ref().is_some_and(Reads::is_under_way)
    }

    /// Bytes of what it keeps, as far as that grows: what waits to be written, what is read, and where records lie.
    pub(super) fn memory(&self) -> usize {
        let Waiting { bytes, records, markers } = &self.waiting;
        let waiting = bytes.capacity() + records.capacity() * size_of::<Range<usize>>() + markers.capacity();
        let own = self.group.len() + self.image.len() + self.zeros.len();
        waiting + own + self.reads.as_ref().map_or(0, Reads::memory)
    }

    /// When it wants to go on by itself.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        // What is on its way wakes the shard when it ends.
        let all = [self.sync_by, self.mark_by, self.room_again];
        all.into_iter().flatten().filter(|_| !self.is_writing()).min()
    }

    /// The end of a turn: begin what can be begun.
    pub(super) fn work(&mut self, now: Instant, net: &mut Net) {
        self.now = now;
        let backlog = self.waiting.bytes.len();
        self.is_behind = backlog > if self.is_behind { self.backlog_max / 2 } else { self.backlog_max };
        self.read_on(net);
        if self.writer.is_poisoned() {
            return;
        }
        self.compact();
        self.make_room(net);
        self.write_group(net);
        self.sync_by_time(net);
        self.write_mark(net);
    }

    /// Begin the reads that were asked for.
    fn read_on(&mut self, net: &mut Net) {
        let Some(reads) = &mut self.reads else { return };
        while let Some(read) = reads.next(&self.files) {
            debug_assert!(read.slot < READS_MAX);
            // SAFETY: the file and the read's buffer live as long as this, nobody touches the buffer while it is under way, and
            // this is dropped only when nothing is, or never.
            unsafe { net.push_disk(read.entry, FIRST_READ + read.slot) };
        }
    }

    /// The end is near: begin nothing that can wait for the next start.
    pub(super) fn stop(&mut self) {
        self.is_stopping = true;
        self.mark_by = self.mark_by.map(|_| self.now);
    }

    /// Have all that was appended synced, whatever `sync` says.
    pub(super) fn settle(&mut self) {
        if self.writer.durable() < self.writer.last() || !self.waiting.records.is_empty() {
            self.sync_by = Some(self.now);
        }
    }

    /// A step has ended.
    pub(super) fn on_done(&mut self, step: usize, result: i32) {
        if let Some(slot) = step.checked_sub(FIRST_READ) {
            return self.reads.as_mut().expect("a read has begun").on_done(slot, result);
        }
        let Some(expected) = self.under_way.get_mut(step).and_then(Option::take) else {
            unreachable!("the kernel ends what was begun, once")
        };
        let written = usize::try_from(result).is_ok_and(|bytes| bytes == expected);
        match step {
            _ if step == Way::Allocation as usize => self.on_allocated(expected, result),
            // It says nothing if it isn't there, and that is all.
            _ if step == Way::Mark as usize => {}
            _ if !written => self.fail(step, result),
            _ if step == Way::Group as usize => self.on_written(),
            _ if step == Way::Sync as usize => self.on_synced(),
            _ => self.on_changed(),
        }
    }

    fn write_group(&mut self, net: &mut Net) {
        let is_free = |way: Way| self.under_way[way as usize].is_none();
        let follows_sync = self.sync == Sync::Always && !is_free(Way::Sync);
        if self.waiting.records.is_empty() || !is_free(Way::Group) || !is_free(Way::Mark) || follows_sync {
            return;
        }
        let records = self.waiting.slices(GROUP_BYTES);
        let mut placed = Vec::new();
        let written = match self.writer.append(&records, &mut self.group, &mut placed) {
            Ok(written) => written,
            Err(Refused::NoSegment) => return,
            Err(Refused::BufferTooSmall { needed }) => {
                drop(records);
                self.group = Buffer::new(needed);
                return self.write_group(net);
            }
            Err(refused @ (Refused::TooLarge { .. } | Refused::Poisoned)) => {
                self.writer.on_failed();
                return self.say(&refused.to_string());
            }
        };
        for (found, is_marker) in placed.iter().zip(self.waiting.take(written.records)) {
            self.liveness.on_record(found, is_marker);
            self.reads.iter_mut().for_each(|reads| reads.offsets().on_record(found));
        }
        self.bury();
        let (file, offset) = self.files.place(written.write);
        let entry = file.write_entry(&self.group[..written.write.bytes], offset);
        self.mark_by = None;
        if self.sync == Sync::Always && self.writer.begin_sync().is_some() {
            self.under_way[Way::Group as usize] = Some(written.write.bytes);
            self.under_way[Way::Sync as usize] = Some(0);
            let both = [entry, self.files.segments.sync_entry()];
            // SAFETY: as in `begin`.
            unsafe { net.push_disk_pair(both, [Way::Group as usize, Way::Sync as usize]) };
        } else {
            self.begin(net, entry, Way::Group, written.write.bytes);
        }
    }

    /// Count what is dead, of what a group holds.
    fn bury(&mut self) {
        let last = self.writer.last();
        self.dead
            .extract_if(.., |sequence| *sequence <= last)
            .for_each(|sequence| self.liveness.on_dead(sequence));
    }

    /// Go on with a compaction, or look for one that is worth it.
    fn compact(&mut self) {
        match self.compaction {
            _ if self.is_stopping => {}
            None if self.choose_at <= self.now => {
                self.choose_at = self.now + CHOOSE_EVERY;
                let chosen = self.liveness.choose(&self.table, self.is_short_of_room());
                self.compaction = chosen.map(|(segment, range)| Compaction::Chosen(segment, range));
            }
            Some(Compaction::Copied(segment, through))
                if self.writer.durable() >= through && self.change.is_none() =>
            {
                let is_read = self.reads.as_ref().is_some_and(|reads| reads.touches(segment));
                if is_read || !self.may_release() {
                    return;
                }
                (self.compaction, self.choose_at) = (None, self.now);
                self.liveness.on_released(segment);
                self.reads.iter_mut().for_each(|reads| reads.offsets().on_released(segment));
                self.table.release(segment);
                self.persist(None);
            }
            // What was copied must be durable, whatever is said to be enough otherwise.
            Some(Compaction::Copied(_, through))
                if self.sync == Sync::Never && self.writer.durable() < through =>
            {
                self.sync_by = Some(self.now);
            }
            _ => {}
        }
    }

    /// Writes go before a backup: one that reads a segment which a log without room needs finds it gone, and begins again.
    fn may_release(&mut self) -> bool {
        if self.is_short_of_room() {
            return true;
        }
        if self.ask_pin_at > self.now {
            return false;
        }
        let is_held = self.pin.is_held();
        if is_held {
            self.ask_pin_at = self.now + CHOOSE_EVERY;
        }
        !is_held
    }

    fn on_written(&mut self) {
        if self.sync == Sync::Always {
            return;
        }
        self.acknowledged = self.writer.last();
        if let Sync::Interval(interval) = self.sync {
            self.sync_by.get_or_insert(self.now + interval);
        }
    }

    /// Sync what was written, if it is time.
    fn sync_by_time(&mut self, net: &mut Net) {
        let is_idle = [Way::Group, Way::Sync].iter().all(|way| self.under_way[*way as usize].is_none());
        if !is_idle || self.sync_by.is_none_or(|at| at > self.now) {
            return;
        }
        self.sync_by = None;
        if self.writer.begin_sync().is_some() {
            let sync = self.files.segments.sync_entry();
            self.begin(net, sync, Way::Sync, 0);
        }
    }

    fn on_synced(&mut self) {
        let durable = self.writer.on_synced();
        self.acknowledged = self.acknowledged.max(durable);
        while let Some((segment, range)) = self.writer.take_sealed() {
            self.table.seal(segment, range, false);
            self.choose_at = self.now;
        }
        self.mark_by = Some(self.now + MARK_AFTER);
        if let Some((marker, _)) = self.adopted.take_if(|(_, before)| durable > *before)
            && let Err(error) = forget_adopted(&marker)
        {
            self.say(&format!("{error}: the next start compares all copies with their other owners again"));
        }
    }

    fn write_mark(&mut self, net: &mut Net) {
        let is_idle = !self.is_writing() && self.waiting.records.is_empty();
        if !is_idle || self.mark_by.is_none_or(|at| at > self.now) {
            return;
        }
        self.mark_by = None;
        if let Some(write) = self.writer.mark(&mut self.group) {
            let (file, offset) = self.files.place(write);
            let entry = file.write_entry(&self.group[..write.bytes], offset);
            self.begin(net, entry, Way::Mark, write.bytes);
        }
    }

    /// Begin the next version of the manifest.
    fn persist(&mut self, granted: Option<Segment>) {
        self.table.begin_persist(self.writer.durable(), &mut self.image);
        let steps = self.table.persist_steps().into();
        self.change = Some(Change { steps, granted });
    }

    fn next_step(&mut self, net: &mut Net) {
        let Some(step) = self.change.as_mut().and_then(|change| change.steps.pop_front()) else { return };
        match step {
            Step::Write(write) => {
                let (file, offset) = self.files.place(write);
                let entry = file.write_entry(&self.image[..write.bytes], offset);
                self.begin(net, entry, Way::Manifest, write.bytes);
            }
            Step::Sync(target) => {
                let entry = self.files.file(target).sync_entry();
                self.begin(net, entry, Way::Manifest, 0);
            }
        }
    }

    /// A step of the manifest's change is done.
    fn on_changed(&mut self) {
        let Some(change) = &self.change else { unreachable!("a change was under way") };
        if !change.steps.is_empty() {
            return;
        }
        self.table.on_persisted();
        if let Some(segment) = self.change.take().and_then(|change| change.granted) {
            self.writer.add_segment(&self.table, segment);
            if self.sync == Sync::Never {
                // The segment before it can be sealed only when it is durable.
                self.sync_by = Some(self.now);
            }
        }
    }

    fn begin(&mut self, net: &mut Net, entry: io_uring::squeue::Entry, way: Way, bytes: usize) {
        self.under_way[way as usize] = Some(bytes);
        // SAFETY: the files and the buffers of each way live as long as this, are not touched while it is under way, and
        // this is dropped only when nothing is, or never.
        unsafe { net.push_disk(entry, way as usize) };
    }

    /// A write or a sync failed: nobody is told of anything any more.
    fn fail(&mut self, step: usize, result: i32) {
        if self.writer.is_poisoned() {
            return;
        }
        self.writer.on_failed();
        let what = if step == Way::Sync as usize { "sync" } else { "write" };
        let why = match result {
            0.. => "only a part was written".to_owned(),
            error => std::io::Error::from_raw_os_error(-error).to_string(),
        };
        self.say(&format!(
            "it failed to {what} ({why}): nothing is acknowledged until the node is restarted"
        ));
    }

    fn say(&self, what: &str) {
        eprintln!("ringmain: the log of shard {}: {what}", self.shard.0);
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        assert!(!self.is_under_way() || std::thread::panicking(), "the kernel holds nothing of it");
    }
}

impl Waiting {
    fn push(&mut self, record: &[u8], is_marker: bool) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(record);
        self.records.push_back(start..self.bytes.len());
        self.markers.push_back(is_marker);
    }

    /// The first records, so many bytes of them, and one more.
    fn slices(&self, bytes_max: usize) -> Vec<&[u8]> {
        let start = self.records.front().map_or(0, |first| first.start);
        let records = self.records.iter().take_while(|record| record.start - start <= bytes_max);
        records.map(|record| &self.bytes[record.clone()]).collect()
    }

    /// These are in a group now; which of them are markers?
    fn take(&mut self, records: usize) -> Vec<bool> {
        self.records.drain(..records);
        match self.records.front() {
            None if self.bytes.capacity() > BACKLOG_KEPT => self.bytes = Vec::new(),
            None => self.bytes.clear(),
            // What was taken goes when it is most of what there is: so each byte is moved once at most.
            Some(first) if first.start > self.bytes.len() / 2 => {
                let gone = first.start;
                self.bytes.drain(..gone);
                self.records.iter_mut().for_each(|record| *record = record.start - gone..record.end - gone);
            }
            Some(_) => {}
        }
        self.markers.drain(..records).collect()
    }
}
