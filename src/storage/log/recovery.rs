//! What a crash has left: which records stand, what is damaged, and where the log ends.
//!
//! Three things decide. A segment that is sealed was durable to its last record: what is missing there is damage. Every group
//! says what was durable when it was written, and so do the manifest and each segment's header: what is missing up to the
//! highest of these is damage too. What comes after that was promised to nobody, as far as the disk can tell: its records
//! are kept up to the first hole, and no further.

use crate::failpoint::{Bug, Failpoints, NoFailpoints};

use super::format::{HEADER_BYTES, record_bytes};
use super::manifest::{Entry, Manifest};
use super::report::{Damage, Report};
use super::scan::{Item, Scan, scan};
use super::stamp::Stamp;
use super::{Range, SECTOR_BYTES, Segment};

/// A record, and where it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Found {
    /// Counted over the whole log, from 1.
    pub sequence: u64,
    /// In this segment.
    pub segment: Segment,
    /// Of its header, in bytes from the segment's start.
    pub offset: u32,
    /// Of its payload, in bytes.
    pub length: u32,
}

impl Found {
    /// Where its payload lies in its segment.
    pub const fn payload(&self) -> std::ops::Range<usize> {
        let start = self.offset as usize + HEADER_BYTES;
        start..start + self.length as usize
    }
}

/// Reads segments in any order, and then says what stands.
#[derive(Clone, Debug)]
pub struct Recovery<F = NoFailpoints> {
    manifest: Manifest,
    /// In the order of the log: the sealed ones by what they hold, then the others by number.
    entries: Vec<Entry>,
    fed: Vec<bool>,
    /// What was read of the segments that aren't sealed, in the order of `entries`.
    open: Vec<Option<Scan>>,
    witness: u64,
    /// With the place of its segment in `entries`.
    damages: Vec<(usize, Damage)>,
    failpoints: F,
}

/// The verdict. Nothing was written yet: [`Opening`](super::Opening) does that.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// What there is to tell.
    pub report: Report,
    /// Records that nothing says were durable, in order. They are given to the shard like the others, and written once
    /// more: the disk may hold them today and not tomorrow.
    pub tail: Vec<Found>,
    pub(super) manifest: Manifest,
    /// What becomes of the segments that weren't sealed.
    pub(super) closed: Vec<Closed>,
}

/// A segment to which nothing will be written any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Closed {
    pub(super) segment: Segment,
    /// What it holds, or held; `None` if it may be used for something else.
    pub(super) range: Option<Range>,
    pub(super) is_damaged: bool,
}

impl<F: Failpoints> Recovery<F> {
    /// Of the log that a manifest describes.
    pub fn new(manifest: Manifest, failpoints: F) -> Self {
        let mut entries = manifest.entries.clone();
        entries.sort_by_key(|entry| match entry.sealed {
            Some(range) => (false, range.first),
            None => (true, entry.segment.id.0),
        });
        let sealed = entries.iter().filter_map(|entry| entry.sealed).map(|range| range.last).max();
        let witness = manifest.durable.max(sealed.unwrap_or(0));
        let open = entries.iter().filter(|entry| entry.sealed.is_none()).map(|_| None).collect();
        let fed = vec![false; entries.len()];
        Self { manifest, entries, fed, open, witness, damages: Vec::new(), failpoints }
    }

    /// What to read, in the order of the log.
    pub fn segments(&self) -> impl Iterator<Item = Segment> {
        self.entries.iter().map(|entry| entry.segment)
    }

    /// Segments whose bytes must be kept until the log is open: they may hold the tail.
    pub fn open_segments(&self) -> impl Iterator<Item = Segment> {
        self.entries.iter().filter(|entry| entry.sealed.is_none()).map(|entry| entry.segment)
    }

    /// Here is a segment, as much of it as could be read; none of it if its file is gone. The records of a sealed one
    /// are appended to `found` at once, those of the others when all is settled.
    ///
    /// # Panics
    ///
    /// If the segment isn't one of [`Recovery::segments`], or was fed before.
    pub fn feed(&mut self, segment: Segment, bytes: &[u8], found: &mut Vec<Found>) {
        let at = self.entries.iter().position(|entry| entry.segment == segment);
        let at = at.expect("what is fed was asked for");
        assert!(!std::mem::replace(&mut self.fed[at], true), "a segment is fed once");
        let segment_bytes = self.manifest.geometry.segment_bytes();
        let bytes = &bytes[..bytes.len().min(segment_bytes)];
        let stamp =
            Stamp::new(&self.manifest.identity, self.manifest.secret, segment.id, self.failpoints.clone());
        let scan = scan(bytes, segment.id, segment_bytes, &stamp);
        self.witness = self.witness.max(scan.witness);
        match self.entries[at].sealed {
            Some(range) => self.read_sealed(at, range, &scan, found),
            None => {
                let sealed = self.entries.len() - self.open.len();
                self.open[at - sealed] = Some(scan);
            }
        }
    }

    /// All is read: what stands, what doesn't. `found` gets the rest, and is put into order.
    pub fn settle(mut self, found: &mut Vec<Found>) -> Recovered {
        for at in 0..self.entries.len() {
            if !self.fed[at] {
                self.feed(self.entries[at].segment, &[], found);
            }
        }
        let mut ending = Ending::new(&self);
        for scan in &self.open {
            ending.segment(scan.as_ref().expect("all were fed"), found);
        }
        ending.end();
        let Ending { damages, closed, tail, mut report, .. } = ending;
        self.damages.extend(damages);
        self.damages.sort_by_key(|(at, damage)| (*at, damage.from));
        if !self.failpoints.planted(Bug::BadChunksSkipped) {
            report.damages = self.damages.iter().map(|(_, damage)| *damage).collect();
        }
        if !found.is_sorted() {
            found.sort_unstable();
        }
        report.records = (found.len() + tail.len()) as u64;
        Recovered { report, tail, manifest: self.manifest, closed }
    }

    /// All that a sealed segment holds was durable.
    fn read_sealed(&mut self, at: usize, range: Range, scan: &Scan, found: &mut Vec<Found>) {
        let segment = self.entries[at].segment;
        let segment_bytes = self.manifest.geometry.segment_bytes() as u32;
        let mut place = Place::new(segment, range.first);
        let damages = &mut self.damages;
        for item in &scan.items {
            match *item {
                Item::Gap { from, to } => place.unreadable(from, to),
                // An earlier recovery has cut it off.
                Item::Record { sequence, .. } if sequence > range.last => {}
                // Nothing that this log has written.
                Item::Record { at: offset, length, sequence } if sequence < place.expected => {
                    place.unreadable(offset, offset + record_bytes(length as usize) as u32);
                }
                Item::Record { at: offset, length, sequence } => {
                    damages.extend(place.before(offset, sequence).map(|damage| (at, damage)));
                    found.push(place.record(offset, length));
                }
            }
        }
        damages.extend(place.end(segment_bytes, range.last).map(|damage| (at, damage)));
        if scan.header.is_none() && place.has_records {
            damages.push((at, place.header()));
        }
    }
}

/// Where one is in a segment, and in the log.
#[derive(Clone, Copy, Debug)]
struct Place {
    segment: Segment,
    /// The sequence of the next record.
    expected: u64,
    /// All up to here was read, or is known to be damaged.
    read: u32,
    /// The first bytes since then that can't be read.
    gap: Option<(u32, u32)>,
    has_records: bool,
}

impl Place {
    const fn new(segment: Segment, expected: u64) -> Self {
        Self { segment, expected, read: SECTOR_BYTES as u32, gap: None, has_records: false }
    }

    fn unreadable(&mut self, from: u32, to: u32) {
        let first = self.gap.map_or(from, |(first, _)| first);
        self.gap = Some((first, to));
    }

    /// The damage before the record of this sequence, which was read at `offset`; the records up to it are lost.
    fn before(&mut self, offset: u32, sequence: u64) -> Option<Damage> {
        let lost = self.lost_up_to(offset, sequence - 1);
        let gap = self.gap.take();
        // Or only something between the records is damaged.
        lost.or_else(|| gap.map(|(from, to)| Damage { segment: self.segment, from, to, missing: None }))
    }

    /// The records up to `last` should stand before `offset`, and don't.
    fn lost_up_to(&mut self, offset: u32, last: u64) -> Option<Damage> {
        if self.expected > last {
            return None;
        }
        let missing = Some(Range { first: self.expected, last });
        let (segment, from, to) = (self.segment, self.read, offset);
        self.expected = last + 1;
        self.read = offset;
        self.gap = None;
        Some(Damage { segment, from, to, missing })
    }

    /// The next record was read.
    fn record(&mut self, offset: u32, length: u32) -> Found {
        let found = Found { sequence: self.expected, segment: self.segment, offset, length };
        self.expected += 1;
        self.read = offset + record_bytes(length as usize) as u32;
        self.has_records = true;
        found
    }

    /// Nothing more can be read; there should be records up to `last`.
    fn end(&mut self, segment_bytes: u32, last: u64) -> Option<Damage> {
        self.lost_up_to(segment_bytes, last)
    }

    /// The segment's first sector is damaged. Nothing in it is needed.
    const fn header(&self) -> Damage {
        Damage { segment: self.segment, from: 0, to: SECTOR_BYTES as u32, missing: None }
    }
}

/// The segments that aren't sealed, one after the other: the end of the log.
struct Ending {
    entries: Vec<Entry>,
    /// Of the first of them among all.
    base: usize,
    segment_bytes: u32,
    /// All up to here was durable.
    durable: u64,
    /// There was a hole beyond `durable`: what follows is dropped.
    is_cut: bool,
    /// The one that was read last, with anything in it.
    place: Option<(usize, Place)>,
    next: usize,
    expected: u64,
    damages: Vec<(usize, Damage)>,
    closed: Vec<Closed>,
    tail: Vec<Found>,
    report: Report,
    assumes_one_torn: bool,
}

impl Ending {
    fn new<F: Failpoints>(recovery: &Recovery<F>) -> Self {
        let base = recovery.entries.len() - recovery.open.len();
        Self {
            entries: recovery.entries[base..].to_vec(),
            base,
            segment_bytes: recovery.manifest.geometry.segment_bytes() as u32,
            durable: recovery.witness,
            is_cut: false,
            place: None,
            next: 0,
            expected: recovery.manifest.sealed_through + 1,
            damages: Vec::new(),
            closed: Vec::new(),
            tail: Vec::new(),
            report: Report { durable: recovery.witness, ..Report::default() },
            assumes_one_torn: recovery.failpoints.planted(Bug::OneTornRecordAssumed),
        }
    }

    fn segment(&mut self, scan: &Scan, found: &mut Vec<Found>) {
        let at = self.next;
        self.next += 1;
        let segment = self.entries[at].segment;
        self.closed.push(Closed { segment, range: None, is_damaged: false });
        if let Some(first) = scan.first {
            self.begins_with(at, first);
        }
        let mut place = Place::new(segment, self.expected);
        let known = found.len();
        for item in &scan.items {
            match *item {
                Item::Gap { from, to } => place.unreadable(from, to),
                Item::Record { at: offset, length, sequence } => {
                    self.record(at, &mut place, (offset, length, sequence), found);
                }
            }
        }
        if scan.header.is_none() && found.len() > known {
            self.damage(at, place.header());
        }
        self.report.tail.is_torn |= place.gap.is_some();
        self.expected = place.expected;
        if scan.header.is_some() || !scan.items.is_empty() {
            self.place = Some((at, place));
        }
    }

    /// The next segment says what it begins with: what is missing up to there is lost with the end of the one
    /// before. If nobody was promised all of that, the log ends there.
    fn begins_with(&mut self, at: usize, first: u64) {
        let before = |at: usize| (at, Place::new(self.entries[at].segment, self.expected));
        if let Some((at, mut place)) = self.place.or_else(|| at.checked_sub(1).map(before)) {
            let lost = place.end(self.segment_bytes, self.durable.min(first.saturating_sub(1)));
            self.expected = place.expected;
            if let Some(damage) = lost {
                self.damage(at, damage);
            }
            self.is_cut |= first > self.expected;
        }
    }

    fn record(
        &mut self,
        at: usize,
        place: &mut Place,
        (offset, length, sequence): (u32, u32, u64),
        found: &mut Vec<Found>,
    ) {
        if sequence < place.expected {
            // Nothing that this log has written: as good as unreadable.
            return place.unreadable(offset, offset + record_bytes(length as usize) as u32);
        }
        if self.is_cut {
            self.report.tail.dropped += 1;
            return;
        }
        if sequence <= self.durable {
            if let Some(damage) = place.before(offset, sequence) {
                self.damage(at, damage);
            }
            self.closed[at].range = Some(Range { first: self.first_of(at, place.expected), last: sequence });
            found.push(place.record(offset, length));
            return;
        }
        if let Some(damage) = place.lost_up_to(offset, self.durable) {
            self.damage(at, damage);
        }
        if sequence == place.expected {
            self.tail.push(place.record(offset, length));
            self.report.tail.kept += 1;
            return;
        }
        if self.assumes_one_torn && sequence - place.expected > 1 {
            let missing = Some(Range { first: place.expected, last: sequence - 1 });
            self.damages.push((
                self.base + at,
                Damage { segment: place.segment, from: place.read, to: offset, missing },
            ));
        }
        self.is_cut = true;
        self.report.tail.dropped += 1;
        self.report.tail.is_torn = true;
    }

    /// Nothing follows. What is missing of what was durable is lost with the end of the last segment that has anything, or
    /// with the one after it, if that one was full.
    fn end(&mut self) {
        if self.expected > self.durable || self.entries.is_empty() {
            return;
        }
        let last = self.entries.len() - 1;
        let (at, mut place) = match self.place {
            Some((at, place))
                if place.read as usize + SECTOR_BYTES <= self.segment_bytes as usize || at == last =>
            {
                (at, place)
            }
            Some((at, place)) => (at + 1, Place::new(self.entries[at + 1].segment, place.expected)),
            None => (0, Place::new(self.entries[0].segment, self.expected)),
        };
        place.expected = self.expected;
        if let Some(damage) = place.end(self.segment_bytes, self.durable) {
            self.damage(at, damage);
        }
    }

    /// A segment that has lost records keeps its claim to them, until it is compacted: a later start reports it again.
    fn damage(&mut self, at: usize, damage: Damage) {
        self.damages.push((self.base + at, damage));
        self.closed[at].is_damaged = true;
        if let Some(missing) = damage.missing {
            let first = self.first_of(at, missing.first);
            self.closed[at].range = Some(Range { first, last: missing.last });
        }
    }

    /// Where the range of a segment begins that goes on with `sequence`.
    fn first_of(&self, at: usize, sequence: u64) -> u64 {
        self.closed[at].range.map_or(sequence, |range| range.first)
    }
}
