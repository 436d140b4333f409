//! A log on a disk of memory, driven by hand, that remembers every moment at which the power could have failed.

use std::collections::BTreeMap;
use std::rc::Rc;

use ringmain::id::{ClusterId, NodeId, ShardId};
use ringmain::storage::log::{
    Found, Geometry, Identity, Manifest, Opened, Opening, Purpose, Recovered, Recovery, Refusal, Refused,
    SECTOR_BYTES, Segment, SegmentTable, Slot, Step, Target, Write, Writer,
};

use crate::mutant::Mutant;

pub(crate) const SECTORS_OF_SEGMENT: usize = 8;
pub(crate) const SEGMENT_BYTES: usize = SECTORS_OF_SEGMENT * SECTOR_BYTES;
const SLOTS: usize = 5;
/// Both copies of the manifest, of one sector each, then the slots.
pub(crate) const SLOTS_BEGIN: usize = 2 * SECTOR_BYTES;
const DISK_BYTES: usize = SLOTS_BEGIN + SLOTS * SEGMENT_BYTES;
/// As many sectors go out in one write at most.
const BUFFER_BYTES: usize = SEGMENT_BYTES;

pub(crate) const OWNER: Identity =
    Identity { cluster: ClusterId(0xc1), node: NodeId(0x90de), shard: ShardId(3), home: 0x401e };
const SECRET: u64 = 0x5ec3_e700_1234_9876;

pub(crate) fn geometry() -> Geometry {
    let geometry = Geometry::new(SEGMENT_BYTES as u32, SLOTS as u32).unwrap();
    assert_eq!(geometry.manifest_bytes(), SECTOR_BYTES);
    geometry
}

/// Where a slot begins on the disk.
pub(crate) fn slot_at(slot: Slot) -> usize {
    SLOTS_BEGIN + slot.0 as usize * SEGMENT_BYTES
}

/// The bytes of a slot.
pub(crate) fn slot_of(image: &[u8], slot: Slot) -> &[u8] {
    &image[slot_at(slot)..slot_at(slot) + SEGMENT_BYTES]
}

/// A sector that was written and not synced.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) sector: usize,
    pub(crate) bytes: Vec<u8>,
}

/// What must be there after a crash, what may be, and what it must say.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    /// Payloads by sequence; that of sequence 0 is nothing.
    pub(crate) payloads: Rc<Vec<Vec<u8>>>,
    /// All up to here are released, and must not come back.
    pub(crate) released: u64,
    /// A release up to here is under way: those may be there or not.
    pub(crate) releasing: u64,
    /// All up to here were acknowledged: they must be there.
    pub(crate) acknowledged: u64,
}

/// A moment at which the power may fail.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    pub(crate) durable: Rc<Vec<u8>>,
    pub(crate) pending: Vec<Pending>,
    pub(crate) expected: Expected,
}

/// Where records, groups and the rest lie: what damage to a byte means.
#[derive(Clone, Debug, Default)]
pub(crate) struct Anatomy {
    pub(crate) records: Vec<Found>,
    /// Where on the disk something says what was durable: from, to, and what it says.
    pub(crate) witnesses: Vec<(usize, usize, u64)>,
}

#[derive(Debug)]
struct Disk {
    durable: Rc<Vec<u8>>,
    pending: Vec<(Target, Pending)>,
    /// All that each sector ever held.
    versions: BTreeMap<usize, Vec<Vec<u8>>>,
}

impl Disk {
    fn write(&mut self, write: Write, buffer: &[u8]) {
        let start = place(write.target) + write.offset as usize;
        for (number, sector) in buffer[..write.bytes].chunks(SECTOR_BYTES).enumerate() {
            let pending = Pending { sector: start / SECTOR_BYTES + number, bytes: sector.to_vec() };
            self.versions.entry(pending.sector).or_default().push(sector.to_vec());
            self.pending.push((write.target, pending));
        }
    }

    fn sync(&mut self, target: Target) {
        let durable = Rc::make_mut(&mut self.durable);
        for (_, pending) in self.pending.extract_if(.., |(of, _)| *of == target) {
            durable[pending.sector * SECTOR_BYTES..][..SECTOR_BYTES].copy_from_slice(&pending.bytes);
        }
    }
}

fn place(target: Target) -> usize {
    match target {
        Target::Manifest(copy) => usize::from(copy) * SECTOR_BYTES,
        Target::Segment(slot) => slot_at(slot),
    }
}

/// A running log.
#[derive(Debug)]
pub(crate) struct Rig {
    disk: Disk,
    table: SegmentTable<Mutant>,
    writer: Writer<Mutant>,
    pub(crate) expected: Expected,
    pub(crate) moments: Vec<Moment>,
    pub(crate) anatomy: Anatomy,
    /// Segments that hold something, the oldest first.
    live: Vec<Segment>,
    buffer: Vec<u8>,
    /// Makes the payloads of one life differ from those of another.
    life: u8,
}

/// What an image holds.
pub(crate) fn recover(image: &[u8], mutant: &Mutant, found: &mut Vec<Found>) -> Result<Recovered, Refusal> {
    recover_from(image, mutant, found, |slot| slot_of(image, slot))
}

/// The same, where segments may be shorter than they were.
pub(crate) fn recover_from<'a>(
    image: &'a [u8],
    mutant: &Mutant,
    found: &mut Vec<Found>,
    segment: impl Fn(Slot) -> &'a [u8],
) -> Result<Recovered, Refusal> {
    found.clear();
    let copies = [&image[..SECTOR_BYTES], &image[SECTOR_BYTES..SLOTS_BEGIN]];
    let has_segments = image[SLOTS_BEGIN..].iter().any(|byte| *byte != 0);
    let manifest = Manifest::choose(copies, &OWNER, has_segments)?;
    let manifest = manifest.unwrap_or_else(|| Manifest::new(OWNER, geometry(), SECRET));
    let mut recovery = Recovery::new(manifest, mutant.clone());
    let segments: smallvec::SmallVec<[Segment; 8]> = recovery.segments().collect();
    for of in segments {
        recovery.feed(of, segment(of.slot), found);
    }
    Ok(recovery.settle(found))
}

impl Rig {
    /// An empty disk, on which a log is created.
    pub(crate) fn create(mutant: &Mutant) -> Self {
        let payloads = Rc::new(vec![Vec::new()]);
        let expected = Expected { payloads, released: 0, releasing: 0, acknowledged: 0 };
        let blank = vec![0; DISK_BYTES];
        Self::open(&blank, &blank, expected, 1, mutant).unwrap()
    }

    /// A start from what a crash has left: `image` is what can be read, `durable` what outlives the next crash, which may be
    /// less if only the process died. `expected` is that of before; what was recovered is acknowledged from now on, and what
    /// was not never comes back.
    pub(crate) fn open(
        image: &[u8],
        durable: &[u8],
        expected: Expected,
        life: u8,
        mutant: &Mutant,
    ) -> Result<Self, String> {
        mutant.reboot();
        let mut found = Vec::new();
        let recovered = recover(image, mutant, &mut found).map_err(|refusal| refusal.to_string())?;
        let tail = recovered.tail.clone();
        let mut opening = Opening::new(recovered, mutant.clone());
        let mut disk =
            Disk { durable: Rc::new(durable.to_vec()), pending: Vec::new(), versions: BTreeMap::new() };
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut moments = Vec::new();
        while let Some(step) =
            opening.next(|slot| slot_of(image, slot), &mut buffer).map_err(|error| error.to_string())?
        {
            match step {
                Step::Write(write) => disk.write(write, &buffer),
                Step::Sync(target) => disk.sync(target),
            }
            let pending = disk.pending.iter().map(|(_, pending)| pending.clone()).collect();
            moments.push(Moment { durable: disk.durable.clone(), pending, expected: expected.clone() });
        }
        let Opened { table, writer, moved } = opening.finish();
        let mut rig = Self {
            disk,
            table,
            writer,
            expected,
            moments,
            anatomy: Anatomy::default(),
            live: Vec::new(),
            buffer,
            life,
        };
        rig.expected.acknowledged = rig.writer.durable();
        Rc::make_mut(&mut rig.expected.payloads).truncate(rig.writer.last() as usize + 1);
        let stands = found.iter().chain(&moved).copied();
        assert_eq!(tail.len(), moved.len(), "all of the tail is copied");
        rig.anatomy.records = stands.collect();
        for found in &rig.anatomy.records {
            if !rig.live.contains(&found.segment) {
                rig.live.push(found.segment);
            }
        }
        rig.moment();
        Ok(rig)
    }

    /// A turn: records of these lengths, in as few groups as they fit into.
    pub(crate) fn append(&mut self, lengths: &[usize]) -> Result<(), Refused> {
        let first = self.expected.payloads.len() as u64;
        for (sequence, length) in (first..).zip(lengths) {
            let payload = payload(self.life, sequence, *length);
            Rc::make_mut(&mut self.expected.payloads).push(payload);
        }
        let payloads = self.expected.payloads.clone();
        let mut left: Vec<&[u8]> = payloads[first as usize..].iter().map(Vec::as_slice).collect();
        while !left.is_empty() {
            if self.writer.wants_segment() {
                self.reserve();
            }
            let durable = self.writer.durable();
            let written = self.writer.append(&left, &mut self.buffer, &mut self.anatomy.records);
            let written = written.inspect_err(|_| {
                let appended = self.writer.last() as usize + 1;
                Rc::make_mut(&mut self.expected.payloads).truncate(appended);
            })?;
            left.drain(..written.records);
            let Found { segment, .. } = *self.anatomy.records.last().unwrap();
            if !self.live.contains(&segment) {
                self.live.push(segment);
            }
            let at = place(written.write.target) + written.write.offset as usize;
            if written.write.offset == 0 {
                self.anatomy.witnesses.push((at, at + 64, durable));
                self.anatomy.witnesses.push((at + SECTOR_BYTES, at + SECTOR_BYTES + 32, durable));
            } else {
                self.anatomy.witnesses.push((at, at + 32, durable));
            }
            self.write(written.write);
        }
        Ok(())
    }

    /// All that was written becomes durable, and is acknowledged.
    pub(crate) fn sync(&mut self) {
        let Some(sync) = self.writer.begin_sync() else { return };
        for slot in &sync.slots {
            self.disk.sync(Target::Segment(*slot));
            self.moment();
        }
        self.expected.acknowledged = self.writer.on_synced();
        while let Some((segment, range)) = self.writer.take_sealed() {
            self.table.seal(segment, range, false);
        }
        self.moment();
    }

    /// The sync fails: nothing is acknowledged any more.
    pub(crate) fn fail_sync(&mut self) -> bool {
        let began = self.writer.begin_sync().is_some();
        self.writer.on_failed();
        self.moment();
        began
    }

    /// Say what is durable.
    pub(crate) fn mark(&mut self) {
        let durable = self.writer.durable();
        if let Some(write) = self.writer.mark(&mut self.buffer) {
            let at = place(write.target) + write.offset as usize;
            self.anatomy.witnesses.push((at, at + 32, durable));
            self.write(write);
        }
    }

    /// Nothing in the oldest segment is needed any more.
    pub(crate) fn release_oldest(&mut self) {
        let oldest = self.live.remove(0);
        let of_it = |found: &&Found| found.segment == oldest;
        let last = self.anatomy.records.iter().filter(of_it).map(|found| found.sequence).max().unwrap();
        self.table.release(oldest);
        self.expected.releasing = last;
        self.persist();
        self.expected.released = last;
        self.anatomy.records.retain(|found| found.segment != oldest);
        let from = slot_at(oldest.slot);
        self.anatomy.witnesses.retain(|(at, ..)| *at < from || *at >= from + SEGMENT_BYTES);
        self.moment();
    }

    /// Another segment, where there is room for one.
    pub(crate) fn reserve(&mut self) {
        let Ok(segment) = self.table.reserve(Purpose::Append) else { return };
        self.table.list(segment);
        self.persist();
        self.writer.add_segment(&self.table, segment);
    }

    /// All that was written, synced or not.
    pub(crate) fn image(&self) -> Vec<u8> {
        let mut image = self.disk.durable.to_vec();
        for (_, Pending { sector, bytes }) in &self.disk.pending {
            image[sector * SECTOR_BYTES..][..SECTOR_BYTES].copy_from_slice(bytes);
        }
        image
    }

    /// Segments that hold something.
    pub(crate) fn live(&self) -> &[Segment] {
        &self.live
    }

    /// What outlives a crash for certain.
    pub(crate) fn durable(&self) -> &[u8] {
        &self.disk.durable
    }

    /// All that a sector ever held, in this life of the log.
    pub(crate) fn versions(&self, sector: usize) -> &[Vec<u8>] {
        self.disk.versions.get(&sector).map_or(&[], Vec::as_slice)
    }

    /// What the manifest says was durable, and what its sealed segments were.
    pub(crate) fn manifest(&self) -> Manifest {
        let durable = &self.disk.durable;
        let copies = [&durable[..SECTOR_BYTES], &durable[SECTOR_BYTES..SLOTS_BEGIN]];
        Manifest::choose(copies, &OWNER, true).unwrap().unwrap()
    }

    fn persist(&mut self) {
        let mut image = vec![0; geometry().manifest_bytes()];
        self.table.begin_persist(self.writer.durable(), &mut image);
        for step in self.table.persist_steps() {
            match step {
                Step::Write(write) => self.disk.write(write, &image),
                Step::Sync(target) => self.disk.sync(target),
            }
            self.moment();
        }
        self.table.on_persisted();
    }

    fn write(&mut self, write: Write) {
        self.disk.write(write, &self.buffer);
        self.moment();
    }

    fn moment(&mut self) {
        let pending = self.disk.pending.iter().map(|(_, pending)| pending.clone()).collect();
        let (durable, expected) = (self.disk.durable.clone(), self.expected.clone());
        self.moments.push(Moment { durable, pending, expected });
    }
}

/// No two records have the same, and none looks like another's part.
fn payload(life: u8, sequence: u64, length: usize) -> Vec<u8> {
    let mut payload = format!("life {life}, record {sequence}: ").into_bytes();
    let mut state = sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(life);
    while payload.len() < length {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        payload.push((state >> 56) as u8);
    }
    payload.truncate(length.max(1));
    payload
}
