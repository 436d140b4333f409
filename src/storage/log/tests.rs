//! The log over a disk of memory: what goes in comes out, and whatever bytes come instead, nothing worse than a report.

use proptest::prelude::*;

use crate::failpoint::NoFailpoints;
use crate::id::{ClusterId, NodeId, ShardId};

use super::format::{ALIGNMENT, HEADER_BYTES};
use super::scan::scan;
use super::stamp::Stamp;
use super::*;

const OWNER: Identity = Identity { cluster: ClusterId(1), node: NodeId(2), shard: ShardId(3), home: 4 };
const SECRET: u64 = 5;
const SEGMENT_BYTES: usize = 6 * SECTOR_BYTES;

fn geometry(slots_max: u32) -> Geometry {
    Geometry::new(SEGMENT_BYTES as u32, slots_max).unwrap()
}

/// A disk that loses nothing.
#[derive(Clone, Default)]
struct Disk {
    copies: [Vec<u8>; 2],
    slots: Vec<Vec<u8>>,
}

impl Disk {
    fn write(&mut self, write: Write, buffer: &[u8]) {
        let file = match write.target {
            Target::Manifest(copy) => &mut self.copies[usize::from(copy)],
            Target::Segment(slot) => {
                let slot = slot.0 as usize;
                self.slots.resize(self.slots.len().max(slot + 1), Vec::new());
                &mut self.slots[slot]
            }
        };
        let end = write.offset as usize + write.bytes;
        file.resize(file.len().max(end), 0);
        file[write.offset as usize..end].copy_from_slice(&buffer[..write.bytes]);
    }

    fn slot(&self, slot: Slot) -> &[u8] {
        self.slots.get(slot.0 as usize).map_or(&[], Vec::as_slice)
    }

    fn manifest(&self, slots_max: u32) -> Manifest {
        let copies = [&self.copies[0][..], &self.copies[1][..]];
        let chosen = Manifest::choose(copies, &OWNER, !self.slots.is_empty()).unwrap();
        chosen.unwrap_or_else(|| Manifest::new(OWNER, geometry(slots_max), SECRET))
    }

    fn recover(&self, slots_max: u32) -> (Vec<Found>, Recovered) {
        let mut recovery = Recovery::new(self.manifest(slots_max), NoFailpoints);
        let mut found = Vec::new();
        // In any order.
        for segment in recovery.segments().collect::<Vec<_>>().into_iter().rev() {
            recovery.feed(segment, self.slot(segment.slot), &mut found);
        }
        let recovered = recovery.settle(&mut found);
        (found, recovered)
    }

    fn open(&mut self, slots_max: u32) -> Opened {
        let before = self.clone();
        let mut opening = Opening::new(self.recover(slots_max).1, NoFailpoints);
        let mut buffer = vec![0; SEGMENT_BYTES.max(geometry(slots_max).manifest_bytes())];
        while let Some(step) = opening.next(|slot| before.slot(slot), &mut buffer).unwrap() {
            if let Step::Write(write) = step {
                self.write(write, &buffer);
            }
        }
        opening.finish()
    }

    /// A start that ends with this write of a copy of the manifest: the copy. `None` if it has fewer.
    fn start_until(&mut self, slots_max: u32, mut write: usize) -> Option<usize> {
        let before = self.clone();
        let mut opening = Opening::new(self.recover(slots_max).1, NoFailpoints);
        let mut buffer = vec![0; SEGMENT_BYTES.max(geometry(slots_max).manifest_bytes())];
        while let Some(step) = opening.next(|slot| before.slot(slot), &mut buffer).unwrap() {
            let Step::Write(to) = step else { continue };
            self.write(to, &buffer);
            if let Target::Manifest(copy) = to.target {
                if write == 0 {
                    return Some(usize::from(copy));
                }
                write -= 1;
            }
        }
        None
    }

    fn persist(&mut self, opened: &mut Opened) {
        let mut image = vec![0; opened.table.geometry().manifest_bytes()];
        opened.table.begin_persist(opened.writer.durable(), &mut image);
        for step in opened.table.persist_steps() {
            if let Step::Write(write) = step {
                self.write(write, &image);
            }
        }
        opened.table.on_persisted();
    }

    fn append(&mut self, opened: &mut Opened, mut records: &[&[u8]]) -> Result<(), Refused> {
        let mut buffer = vec![0xee; SEGMENT_BYTES];
        while !records.is_empty() {
            if opened.writer.wants_segment()
                && let Ok(segment) = opened.table.reserve(Purpose::Append)
            {
                opened.table.list(segment);
                self.persist(opened);
                opened.writer.add_segment(&opened.table, segment);
            }
            let written = opened.writer.append(records, &mut buffer, &mut Vec::new())?;
            self.write(written.write, &buffer);
            records = &records[written.records..];
        }
        Ok(())
    }

    fn payloads(&self, found: &[Found]) -> Vec<Vec<u8>> {
        found.iter().map(|found| self.slot(found.segment.slot)[found.payload()].to_vec()).collect()
    }
}

fn sync(opened: &mut Opened) {
    if opened.writer.begin_sync().is_some() {
        opened.writer.on_synced();
    }
}

fn turns() -> impl Strategy<Value = Vec<(Vec<Vec<u8>>, bool)>> {
    let record = prop::collection::vec(any::<u8>(), 0..6000);
    prop::collection::vec((prop::collection::vec(record, 1..8), any::<bool>()), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever was appended is recovered, in order, byte for byte, twice the same, and again after the log was opened.
    #[test]
    fn what_goes_in_comes_out(turns in turns()) {
        let mut disk = Disk::default();
        let mut opened = disk.open(64);
        let mut expected = Vec::new();
        for (records, is_synced) in &turns {
            let slices: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
            disk.append(&mut opened, &slices).unwrap();
            expected.extend_from_slice(records);
            if *is_synced {
                sync(&mut opened);
            }
        }
        for _ in 0..2 {
            let (mut found, recovered) = disk.recover(64);
            found.extend(&recovered.tail);
            prop_assert!(recovered.report.is_clean(), "{}", recovered.report);
            prop_assert_eq!(disk.payloads(&found), expected.clone());
            let sequences: Vec<u64> = found.iter().map(|found| found.sequence).collect();
            prop_assert_eq!(sequences, (1..=expected.len() as u64).collect::<Vec<_>>());
            disk.open(64);
        }
    }

    /// No bytes do more than be damaged, whether they are noise or a log with noise in it.
    #[test]
    fn any_bytes_end_in_a_report(
        noise in prop::collection::vec(any::<u8>(), 0..3 * SEGMENT_BYTES),
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..40),
    ) {
        let mut disk = Disk::default();
        let mut opened = disk.open(8);
        disk.append(&mut opened, &[&[1; 3000], &[2; 5], &[3; 9000], &[4; 100]]).unwrap();
        sync(&mut opened);
        disk.append(&mut opened, &[&[5; 3000]]).unwrap();
        for (place, byte) in &places {
            let slot = place.index(disk.slots.len());
            let at = place.index(disk.slots[slot].len());
            disk.slots[slot][at] = *byte;
        }
        let (found, recovered) = disk.recover(8);
        prop_assert!(found.len() + recovered.tail.len() <= 5);
        disk.open(8);
        disk.slots = noise.chunks(SEGMENT_BYTES).map(<[u8]>::to_vec).collect();
        disk.recover(8);
        let copies = noise.split_at(noise.len() / 2);
        prop_assert!(Manifest::choose([copies.0, copies.1], &OWNER, true).is_err());
    }

    /// What is kept of a segment is bounded by its length, not by what it claims.
    #[test]
    fn a_scan_is_no_larger_than_what_it_read(noise in prop::collection::vec(0..3_u8, 0..SEGMENT_BYTES)) {
        let stamp = Stamp::new(&OWNER, SECRET, SegmentId(1), NoFailpoints);
        let scan = scan(&noise, SegmentId(1), SEGMENT_BYTES, &stamp);
        prop_assert!(scan.items.len() <= noise.len() / ALIGNMENT + 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever was appended is found by its sequence and read back, from where it was written and from where a recovery found it; and
    /// what is damaged is read as nothing, not as something else.
    #[test]
    fn each_record_is_read_again(turns in turns(), places in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        let mut disk = Disk::default();
        let mut opened = disk.open(64);
        let (mut expected, mut buffer) = (Vec::new(), vec![0xee; SEGMENT_BYTES]);
        let mut offsets = Offsets::default();
        for (records, _) in &turns {
            expected.extend_from_slice(records);
            let mut left: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
            while !left.is_empty() {
                if opened.writer.wants_segment() && let Ok(segment) = opened.table.reserve(Purpose::Append) {
                    opened.table.list(segment);
                    disk.persist(&mut opened);
                    opened.writer.add_segment(&opened.table, segment);
                }
                let mut placed = Vec::new();
                let written = opened.writer.append(&left, &mut buffer, &mut placed).unwrap();
                disk.write(written.write, &buffer);
                placed.iter().for_each(|found| offsets.on_record(found));
                left.drain(..written.records);
            }
        }
        let (found, recovered) = disk.recover(64);
        let mut recovered_offsets = Offsets::default();
        found.iter().chain(&recovered.tail).for_each(|found| recovered_offsets.on_record(found));
        let read = |disk: &Disk, offsets: &Offsets, sequence: u64| {
            let chunk = offsets.find(sequence)?;
            let (slot, sectors) = (disk.slot(chunk.segment.slot), chunk.sectors());
            let sectors = &slot[sectors.start.min(slot.len())..sectors.end.min(slot.len())];
            opened.table.payload_in(&chunk, sectors, sequence).map(<[u8]>::to_vec)
        };
        for (sequence, record) in (1..).zip(&expected) {
            for offsets in [&offsets, &recovered_offsets] {
                let read = read(&disk, offsets, sequence);
                prop_assert_eq!(read.as_ref(), Some(record));
            }
        }
        prop_assert_eq!(read(&disk, &offsets, expected.len() as u64 + 1), None);
        for place in &places {
            let slot = place.index(disk.slots.len().max(1));
            if let Some(bytes) = disk.slots.get_mut(slot).filter(|bytes| !bytes.is_empty()) {
                let at = place.index(bytes.len());
                bytes[at] ^= 1;
            }
        }
        for (sequence, record) in (1..).zip(&expected) {
            let read = read(&disk, &offsets, sequence);
            prop_assert!(read.is_none_or(|read| read == *record));
        }
    }
}

/// A client that knows the format stores a value that is a record, where its own record will be damaged. It lacks the secret.
#[test]
fn a_record_inside_a_value_is_no_record() {
    let mut forger = Disk::default();
    let mut opened = {
        let manifest = Manifest::new(OWNER, geometry(8), SECRET + 1);
        let mut opening =
            Opening::new(Recovery::new(manifest, NoFailpoints).settle(&mut Vec::new()), NoFailpoints);
        let mut buffer = vec![0; SEGMENT_BYTES];
        while opening.next(|_| &[], &mut buffer).unwrap().is_some() {}
        opening.finish()
    };
    forger.append(&mut opened, &[b"as long a value as the other", b"forged"]).unwrap();
    let forged = forger.slots[0][SECTOR_BYTES..2 * SECTOR_BYTES].to_vec();

    let mut disk = Disk::default();
    let mut opened = disk.open(8);
    disk.append(&mut opened, &[&forged[HEADER_BYTES..], b"next"]).unwrap();
    sync(&mut opened);
    opened.writer.mark(&mut vec![0; SECTOR_BYTES]).map(|write| write.offset).unwrap();
    // The header of the record, and so its length, is gone.
    disk.slots[0][SECTOR_BYTES + HEADER_BYTES] ^= 1;
    let (found, recovered) = disk.recover(8);
    assert_eq!((found.len(), recovered.tail.len()), (0, 0), "{}", recovered.report);
    assert_eq!(recovered.report.tail.dropped, 1, "only what follows it is seen");
}

/// Damage in the middle: what, where, how much, and all that lies beyond.
#[test]
fn damage_is_told_with_its_place_and_what_lies_beyond_is_there() {
    let mut disk = Disk::default();
    let mut opened = disk.open(8);
    for record in [&b"one"[..], b"two", b"three", b"four"] {
        disk.append(&mut opened, &[record]).unwrap();
        sync(&mut opened);
    }
    disk.slots[0][2 * SECTOR_BYTES..4 * SECTOR_BYTES].fill(0xa5);
    let (found, recovered) = disk.recover(8);
    let stands: Vec<u64> = found.iter().chain(&recovered.tail).map(|found| found.sequence).collect();
    assert_eq!(stands, [1, 4]);
    let sentence = recovered.report.to_string();
    assert_eq!(
        sentence,
        "2 records stand, all up to 3 were durable; beyond it 1 were kept and 0 dropped\n\
         slot 0 (segment 1), bytes 4176 to 16416: records 2 to 3 are lost: repair from the replicas"
    );
    // It is told again until the segment is compacted, which comes first.
    let opened = disk.open(8);
    assert_eq!(disk.recover(8).1.report.missing(), 2);
    let mut liveness = Liveness::default();
    found.iter().for_each(|one| liveness.on_record(one, false));
    let chosen = liveness.choose(&opened.table, false).map(|(segment, _)| segment);
    assert_eq!(chosen, Some(found[0].segment));
}

/// Of a log that must not be opened: one sentence, and nothing changed.
#[test]
fn a_newer_a_foreign_and_a_cloned_log_are_refused() {
    let mut disk = Disk::default();
    disk.open(8);
    let choose = |owner: Identity, copies: &[Vec<u8>; 2]| {
        Manifest::choose([&copies[0], &copies[1]], &owner, true).unwrap_err().to_string()
    };
    assert!(
        choose(Identity { node: NodeId(9), ..OWNER }, &disk.copies).starts_with("the log belongs to shard 3")
    );
    assert!(choose(Identity { home: 9, ..OWNER }, &disk.copies).starts_with("the log is a copy"));

    let mut newer = disk.copies.clone();
    newer[0][8] = 2;
    assert!(
        choose(OWNER, &[newer[0].clone(), Vec::new()]).starts_with("both copies"),
        "only its format is damaged"
    );
    let mut later = disk.manifest(8);
    later.version = 100;
    later.encode(&mut newer[0]);
    newer[0][8] = 2;
    let check =
        manifest::check(&newer[0][..u32::from_le_bytes(*newer[0][12..].first_chunk().unwrap()) as usize]);
    newer[0][16..24].copy_from_slice(&check.to_le_bytes());
    assert!(choose(OWNER, &newer).starts_with("the log has format 2, and this build reads 1"));
    assert!(choose(OWNER, &[vec![1; 9], vec![0; 9]]).starts_with("both copies"), "there are segments");
    assert_eq!(Manifest::choose([&[1; 9], &[0; 9]], &OWNER, false), Ok(None), "its creation was interrupted");
}

/// A slot holds the records of its old segment until no durable manifest lists that.
#[test]
fn a_slot_is_free_once_a_durable_manifest_says_so() {
    let mut disk = Disk::default();
    let mut opened = disk.open(4);
    disk.append(&mut opened, &[&[7; 15_000], &[8; 15_000]]).unwrap();
    sync(&mut opened);
    let (first, range) = opened.writer.take_sealed().unwrap();
    assert_eq!(range, Range { first: 1, last: 1 });
    opened.table.seal(first, range, false);
    assert_eq!(opened.table.reserve(Purpose::Append), Err(NoRoom { slots_max: 4 }), "two slots are kept");
    opened.table.release(first);
    let other = opened.table.reserve(Purpose::Compact).unwrap();
    assert_ne!(other.slot, first.slot);
    disk.persist(&mut opened);
    let again = opened.table.reserve(Purpose::Compact).unwrap();
    assert_eq!((again.slot, again.id), (first.slot, SegmentId(other.id.0 + 1)));
    assert!(!opened.table.is_granted(again), "it is reserved, and no manifest lists it");
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_appended() {
    let mut disk = Disk::default();
    let mut opened = disk.open(4);
    let too_large = vec![0; SEGMENT_BYTES];
    let refused = disk.append(&mut opened, &[&too_large]);
    assert_eq!(refused, Err(Refused::TooLarge { bytes: SEGMENT_BYTES }));
    let refused = opened.writer.append(&[b"short"], &mut vec![0; SECTOR_BYTES], &mut Vec::new());
    assert_eq!(refused, Err(Refused::BufferTooSmall { needed: 2 * SECTOR_BYTES }));
    assert_eq!(opened.writer.last(), 0);
    let records: Vec<&[u8]> = vec![&too_large[..15_000]; 9];
    assert_eq!(disk.append(&mut opened, &records), Err(Refused::NoSegment));
    assert_eq!(opened.writer.last(), 2, "two segments are full");
}

/// A record that is larger than the rest of a segment, of which less than half is used, asks for the next one.
#[test]
fn a_record_that_finds_no_segment_asks_for_one() {
    let mut disk = Disk::default();
    let mut opened = disk.open(8);
    disk.append(&mut opened, &[b"short"]).unwrap();
    assert!(!opened.writer.wants_segment());
    let large: &[&[u8]] = &[&[1; 18_000]];
    assert_eq!(disk.append(&mut opened, large), Err(Refused::NoSegment));
    assert!(opened.writer.wants_segment());
    disk.append(&mut opened, large).unwrap();
    assert_eq!(opened.writer.last(), 2);
}

/// A buffer is used up to its last whole sector.
#[test]
fn a_buffer_need_not_be_whole_sectors() {
    let mut disk = Disk::default();
    let mut opened = disk.open(8);
    let mut buffer = vec![0; 2 * SECTOR_BYTES + 100];
    let written = opened.writer.append(&[&[1; 4000], &[2; 10]], &mut buffer, &mut Vec::new()).unwrap();
    assert_eq!((written.records, written.write.bytes), (1, 2 * SECTOR_BYTES));
}

/// The power fails during a start, and again during the next: one copy of the manifest is whole each time.
#[test]
fn starts_that_fail_one_after_the_other_leave_a_manifest() {
    let mut disk = Disk::default();
    let mut opened = disk.open(64);
    disk.append(&mut opened, &[b"kept"]).unwrap();
    for [first, second, third] in
        [[0, 0, 0], [0, 1, 0], [1, 0, 1], [1, 1, 0], [1, 0, 0], [2, 0, 1], [3, 0, 0], [3, 1, 0]]
    {
        let mut disk = disk.clone();
        for write in [first, second, third] {
            let copy = disk.start_until(64, write).unwrap();
            disk.copies[copy][..512].fill(0xa5);
            let (found, recovered) = disk.recover(64);
            assert_eq!(found.len() + recovered.tail.len(), 1);
        }
        disk.open(64);
    }
}

/// A process dies before a copy is synced, and the next start reads it all the same; then the power fails, and tears both that
/// copy and the one that this start has begun to write. They are the same one.
#[test]
fn a_copy_that_was_read_and_never_synced_is_not_relied_on() {
    for has_log in [false, true] {
        for write in 0..4 {
            let mut disk = Disk::default();
            if has_log {
                let mut opened = disk.open(64);
                disk.append(&mut opened, &[b"kept"]).unwrap();
            }
            let Some(unsynced) = disk.start_until(64, write) else { continue };
            let torn = disk.start_until(64, 0).unwrap();
            for copy in [unsynced, torn] {
                disk.copies[copy][..512].fill(0xa5);
            }
            let (found, recovered) = disk.recover(64);
            assert_eq!(found.len() + recovered.tail.len(), usize::from(has_log));
        }
    }
}

/// PROMISES: a failed sync ends all acknowledgements, and a later one that succeeds proves nothing.
#[test]
fn a_failed_sync_ends_all_acknowledgements() {
    let mut disk = Disk::default();
    let mut opened = disk.open(8);
    disk.append(&mut opened, &[b"kept"]).unwrap();
    sync(&mut opened);
    disk.append(&mut opened, &[b"in doubt"]).unwrap();
    assert_eq!(opened.writer.begin_sync().map(|sync| sync.through), Some(2));
    opened.writer.on_failed();
    assert_eq!(disk.append(&mut opened, &[b"more"]), Err(Refused::Poisoned));
    assert_eq!((opened.writer.begin_sync(), opened.writer.durable()), (None, 1));
    assert_eq!(opened.writer.mark(&mut vec![0; SECTOR_BYTES]), None);
}

/// A segment is read twice while it is written, and each read shows any of the sectors that were being written meanwhile: up to
/// where the first look says, the second shows all that was written before, without a hole. One look alone would show holes below
/// what it says is durable.
#[test]
fn a_segment_that_is_being_written_is_believed_as_far_as_a_look_at_it_says() {
    let mut disk = Disk::default();
    let mut opened = disk.open(8);
    // Sectors 0 and 1 (with the segment's header), 2 and 3, 4, 5.
    let records: [&[u8]; 4] = [&[1; 100], &[2; 6000], &[3; 100], &[4; 100]];
    let ends = [2, 4, 5, 6];
    let write_of = |sector: usize| ends.iter().position(|end| sector < *end).unwrap();
    disk.append(&mut opened, &records[..1]).unwrap();
    let manifest = disk.manifest(8);
    for record in &records[1..] {
        sync(&mut opened);
        disk.append(&mut opened, &[record]).unwrap();
    }
    let segment = manifest.entries.iter().find(|entry| entry.sealed.is_none()).unwrap().segment;
    let whole = disk.slot(segment.slot);
    assert_eq!(whole.len(), SEGMENT_BYTES);
    let shown = |sectors: u32| {
        let mut bytes = whole.to_vec();
        for sector in (0..6).filter(|sector| sectors & (1 << sector) == 0) {
            bytes[sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES].fill(0);
        }
        bytes
    };
    let recovered = |manifest: Manifest, bytes: &[u8]| {
        let (mut recovery, mut found) = (Recovery::new(manifest, NoFailpoints), Vec::new());
        recovery.feed(segment, bytes, &mut found);
        let recovered = recovery.settle(&mut found);
        (found.into_iter().chain(recovered.tail).collect::<Vec<_>>(), recovered.report)
    };
    let mut holes = 0;
    for before in 0..=4 {
        let written = ends[..before].last().map_or(0, |end| (1_u32 << end) - 1);
        for first in (0..64).filter(|first| first & written == written) {
            let look = shown(first);
            holes += usize::from(recovered(manifest.clone(), &look).1.missing() > 0);
            let extent = manifest.extent_of(segment, &look);
            // If anything of a group was there, all before it was, and what was there stays.
            let last = (0..6).rev().find(|sector| first & (1 << sector) != 0).map_or(0, write_of);
            let complete = ends[..last].last().map_or(0, |end| (1_u32 << end) - 1);
            for second in (0..64).filter(|second| second & (first | complete) == first | complete) {
                let manifest = Manifest { durable: manifest.durable.max(extent.durable), ..manifest.clone() };
                let (found, report) = recovered(manifest, &shown(second)[..extent.bytes]);
                assert_eq!(report.missing(), 0, "{before} writes, {first:06b}, then {second:06b}");
                assert!(found.len() >= before, "{before} writes, {first:06b}, then {second:06b}");
                assert_eq!(disk.payloads(&found), records[..found.len()]);
            }
        }
    }
    assert!(holes > 0, "one look would do");
}
