//! Which slots are free, and which segments hold what.
//!
//! What is durable decides: a segment is written only after a manifest that lists it is, and a slot is used again only
//! after one that doesn't list its old segment is. [`SegmentTable::begin_persist`] and [`SegmentTable::on_persisted`] stand
//! before and after the two writes and two syncs of a version.

use thiserror::Error;

use crate::failpoint::{Bug, Failpoints, NoFailpoints};

use super::manifest::{Entry, Manifest, first_copy};
use super::stamp::{Identity, Stamp};
use super::{Geometry, Range, Segment, SegmentId, Slot, Step, Target, Write};

/// Slots that appends leave to compaction and to the next start, so that a full log can be made smaller, and opened.
const KEPT_SLOTS: u32 = 2;

/// All segments of a log.
#[derive(Clone, Debug)]
pub struct SegmentTable<F = NoFailpoints> {
    identity: Identity,
    secret: u64,
    geometry: Geometry,
    /// Of the last manifest that was begun.
    version: u64,
    next_segment: u64,
    sealed_through: u64,
    /// Indexed by slot; those beyond the end are free and were never used.
    slots: Vec<State>,
    /// A version is being written.
    is_persisting: bool,
    failpoints: F,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Free,
    /// Its number is taken, but no manifest lists it yet: what is written to it counts for nothing.
    Reserved(SegmentId),
    /// Listed by the manifest of this version and later ones.
    Listed {
        entry: Entry,
        since: u64,
    },
    /// Not listed any more from this version on; free when that is durable.
    Leaving {
        since: u64,
    },
}

/// What a segment is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// New records.
    Append,
    /// Copies of records from segments that will be released.
    Compact,
    /// The first segment of a start.
    Open,
}

impl Purpose {
    /// Slots that must stay free.
    pub const fn kept(self) -> u32 {
        match self {
            Self::Append => KEPT_SLOTS,
            Self::Compact => KEPT_SLOTS - 1,
            Self::Open => 0,
        }
    }
}

/// No slot is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error(
    "all {slots_max} segments of the log are in use: delete something and wait for compaction, or allow more segments"
)]
pub struct NoRoom {
    /// How many there may be.
    pub slots_max: u32,
}

impl<F: Failpoints> SegmentTable<F> {
    /// As a manifest has it.
    pub(super) fn of(manifest: &Manifest, failpoints: F) -> Self {
        let slots = manifest.entries.iter().map(|entry| entry.segment.slot.0 + 1).max().unwrap_or(0);
        let mut table = Self {
            identity: manifest.identity,
            secret: manifest.secret,
            geometry: manifest.geometry,
            version: manifest.version,
            next_segment: manifest.next_segment,
            sealed_through: manifest.sealed_through,
            slots: vec![State::Free; slots as usize],
            is_persisting: false,
            failpoints,
        };
        for entry in &manifest.entries {
            let listed = State::Listed { entry: *entry, since: manifest.version };
            table.slots[entry.segment.slot.0 as usize] = listed;
        }
        table
    }

    /// Take a free slot and the next number. It may be written to once a manifest is durable, and counts for something
    /// once one lists it.
    ///
    /// # Errors
    ///
    /// [`NoRoom`], if no slot is left for this purpose.
    pub fn reserve(&mut self, purpose: Purpose) -> Result<Segment, NoRoom> {
        let slots_max = self.geometry.slots_max();
        if self.taken() + purpose.kept() >= slots_max {
            return Err(NoRoom { slots_max });
        }
        let free = self.slots.iter().position(|state| matches!(state, State::Free));
        let slot = free.unwrap_or(self.slots.len());
        if free.is_none() {
            self.slots.push(State::Free);
        }
        let id = SegmentId(self.failpoints.segment_id(self.next_segment));
        self.next_segment += 1;
        self.slots[slot] = State::Reserved(id);
        Ok(Segment { id, slot: Slot(slot as u32) })
    }

    /// List a reserved segment from the next version on.
    ///
    /// # Panics
    ///
    /// If it isn't reserved.
    pub fn list(&mut self, segment: Segment) {
        let since = self.next_version();
        let state = &mut self.slots[segment.slot.0 as usize];
        assert!(
            matches!(state, State::Reserved(id) if *id == segment.id),
            "only a reserved segment is listed"
        );
        let entry = Entry { segment, sealed: None, is_damaged: false };
        *state = State::Listed { entry, since };
    }

    /// All that a segment holds is durable, and nothing more will be written to it.
    ///
    /// # Panics
    ///
    /// If it isn't listed.
    pub fn seal(&mut self, segment: Segment, range: Range, is_damaged: bool) {
        self.sealed_through = self.sealed_through.max(range.last);
        let entry = self.entry(segment).expect("what is sealed is listed");
        entry.sealed = Some(range);
        entry.is_damaged |= is_damaged;
    }

    /// Nothing in a segment is needed any more: the copies of what was live in it are durable. Its slot is free once the
    /// next version is.
    ///
    /// # Panics
    ///
    /// If it isn't listed.
    pub fn release(&mut self, segment: Segment) {
        let since = self.next_version();
        assert!(self.listed(segment).is_some(), "what is released is listed");
        self.slots[segment.slot.0 as usize] = State::Leaving { since };
    }

    /// Write the next version of the manifest to `into`; it says that all up to `durable` is durable. What to do with
    /// it, in this order: [`SegmentTable::persist_steps`]. `into` holds at least [`Geometry::manifest_bytes`].
    ///
    /// # Panics
    ///
    /// If a version is being written already.
    pub fn begin_persist(&mut self, durable: u64, into: &mut [u8]) {
        assert!(!self.is_persisting, "one version after the other");
        self.version += 1;
        self.is_persisting = true;
        self.manifest(durable).encode(into);
    }

    /// Both copies, each made durable before anything else is done. After a start the copy that may not be on the disk
    /// comes first, later they alternate.
    pub fn persist_steps(&self) -> [Step; 4] {
        let bytes = self.geometry.manifest_bytes();
        let write = |target| Step::Write(Write { target, offset: 0, bytes });
        let copy = first_copy(self.version);
        let [first, second] = [Target::Manifest(copy), Target::Manifest(1 - copy)];
        [write(first), Step::Sync(first), write(second), Step::Sync(second)]
    }

    /// Both copies of the version are durable. The slots of released segments are free.
    ///
    /// # Panics
    ///
    /// If no version is being written.
    pub fn on_persisted(&mut self) {
        assert!(self.is_persisting, "what is durable was begun");
        self.is_persisting = false;
        let durable = self.version;
        for state in &mut self.slots {
            if matches!(state, State::Leaving { since } if *since <= durable) {
                *state = State::Free;
            }
        }
    }

    /// May records be written to this segment? A manifest that lists it must be durable.
    pub fn is_granted(&self, segment: Segment) -> bool {
        let durable = if self.is_persisting { self.version - 1 } else { self.version };
        let state = self.slots.get(segment.slot.0 as usize);
        matches!(state, Some(State::Listed { entry, since }) if entry.segment == segment && *since <= durable)
    }

    /// Is all that it holds durable, and nothing more written to it?
    pub fn is_sealed(&self, segment: Segment) -> bool {
        self.listed(segment).is_some_and(|entry| entry.sealed.is_some())
    }

    /// Was some of it damaged when the log was opened?
    pub fn is_damaged(&self, segment: Segment) -> bool {
        self.listed(segment).is_some_and(|entry| entry.is_damaged)
    }

    /// Slots that are in use, or about to be, or not free yet.
    pub fn taken(&self) -> u32 {
        self.slots.iter().filter(|state| !matches!(state, State::Free)).count() as u32
    }

    /// How large it is.
    pub const fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Segments that are listed.
    pub fn len(&self) -> usize {
        self.entries().count()
    }

    /// No segment is listed?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Later segments have higher numbers, unless a mistake is planted.
    pub(super) fn counts_numbers(&self) -> bool {
        !self.failpoints.planted(Bug::SegmentIdByClock)
    }

    /// What seeds the checksums of a segment.
    pub(super) fn stamp(&self, segment: SegmentId) -> Stamp<F> {
        Stamp::new(&self.identity, self.secret, segment, self.failpoints.clone())
    }

    pub(super) const fn identity(&self) -> &Identity {
        &self.identity
    }

    fn manifest(&self, durable: u64) -> Manifest {
        Manifest {
            identity: self.identity,
            secret: self.secret,
            geometry: self.geometry,
            version: self.version,
            next_segment: self.next_segment,
            sealed_through: self.sealed_through,
            durable,
            entries: self.entries().copied().collect(),
        }
    }

    /// What a change belongs to from now on.
    const fn next_version(&self) -> u64 {
        self.version + 1
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.slots.iter().filter_map(|state| match state {
            State::Listed { entry, .. } => Some(entry),
            _ => None,
        })
    }

    fn listed(&self, segment: Segment) -> Option<&Entry> {
        match self.slots.get(segment.slot.0 as usize)? {
            State::Listed { entry, .. } if entry.segment == segment => Some(entry),
            _ => None,
        }
    }

    fn entry(&mut self, segment: Segment) -> Option<&mut Entry> {
        match self.slots.get_mut(segment.slot.0 as usize)? {
            State::Listed { entry, .. } if entry.segment == segment => Some(entry),
            _ => None,
        }
    }
}
