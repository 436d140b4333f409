//! The images: which states there are.

use ringmain::storage::log::{SECTOR_BYTES, Segment};

use crate::mutant::Mutant;
use crate::oracle::{Oracle, Truth, Verdict};
use crate::rig::{Moment, Rig, SECTORS_OF_SEGMENT, SEGMENT_BYTES, SLOTS_BEGIN, slot_at};

/// Of so many unsynced sectors every subset is tried.
const UNSYNCED_MAX: usize = 12;
/// What a device writes whole or not at all.
const ATOM_BYTES: usize = 512;

type Exploration = fn(&mut Oracle, &Mutant) -> Verdict;

/// All explorations, the cheap ones first.
pub(crate) fn all() -> [(&'static str, Exploration); 6] {
    [
        ("failed sync", by_failed_sync),
        ("damaged sectors", by_sector),
        ("unsynced sectors", by_crash),
        ("truncation", by_truncation),
        ("crash in recovery", by_recovery),
        ("flipped bit", by_bit),
    ]
}

/// Two segments, the second of which lies where an earlier one was: turns of several records, of one, of one that takes
/// several sectors, and one that leaves 12 sectors unsynced in both segments.
fn script(mutant: &Mutant, variant: usize) -> Result<Rig, String> {
    let mut rig = Rig::create(mutant);
    let shift = 37 * variant;
    let turn = |rig: &mut Rig, lengths: &[usize]| {
        let lengths: Vec<usize> = lengths.iter().map(|length| length + shift).collect();
        rig.append(&lengths).map_err(|refused| refused.to_string())
    };
    // The first segment, to be released: 7 sectors of groups.
    turn(&mut rig, &[60, 5000, 300])?;
    rig.sync();
    turn(&mut rig, &[40])?;
    turn(&mut rig, &[7000, 90])?;
    rig.sync();
    rig.mark();
    turn(&mut rig, &[3000])?;
    rig.sync();
    // The second one, and the first slot again.
    turn(&mut rig, &[50, 60, 70])?;
    turn(&mut rig, &[9000])?;
    rig.sync();
    rig.release_oldest();
    turn(&mut rig, &[100, 200])?;
    rig.sync();
    rig.mark();
    Ok(rig)
}

/// Turns that fill what is left of the second segment and most of the reused one, unsynced.
fn long_tail(rig: &mut Rig, variant: usize) -> Verdict {
    let tails: [&[&[usize]]; 4] = [
        &[&[3000, 900], &[500; 5], &[7900], &[12_000], &[30], &[2000, 2000]],
        &[&[100], &[100], &[100], &[100], &[100], &[100], &[100], &[100], &[100], &[100]],
        &[&[20_000], &[300, 300, 300], &[6000]],
        &[&[1000; 20], &[50], &[4000], &[4000, 9]],
    ];
    for lengths in tails[variant % tails.len()] {
        let lengths: Vec<usize> = lengths.iter().map(|length| length + 11 * variant).collect();
        // The log may be full: that is one more state to crash in.
        if rig.append(&lengths).is_err() {
            break;
        }
    }
    Ok(())
}

/// Every subset of the sectors that weren't synced, at every moment; and sectors torn between atoms.
fn by_crash(oracle: &mut Oracle, mutant: &Mutant) -> Verdict {
    for variant in 0..24 {
        let mut rig = script(mutant, variant)?;
        long_tail(&mut rig, variant)?;
        rig.sync();
        rig.mark();
        moments(oracle, &rig.moments, mutant)?;
    }
    Ok(())
}

fn moments(oracle: &mut Oracle, moments: &[Moment], mutant: &Mutant) -> Verdict {
    for (at, moment) in moments.iter().enumerate() {
        if moments.get(at + 1).is_none_or(|next| !is_part_of(moment, next)) {
            subsets(oracle, moment, mutant)?;
            torn_atoms(oracle, moment, mutant)?;
        }
    }
    Ok(())
}

/// Are all crashes of this moment crashes of the next too?
fn is_part_of(moment: &Moment, next: &Moment) -> bool {
    let same = |at: usize| {
        let (before, after) = (&moment.pending[at], &next.pending[at]);
        before.sector == after.sector && before.bytes == after.bytes
    };
    std::rc::Rc::ptr_eq(&moment.durable, &next.durable)
        && moment.expected.acknowledged == next.expected.acknowledged
        && moment.expected.released == next.expected.released
        && moment.pending.len() <= next.pending.len()
        && (0..moment.pending.len()).all(same)
}

/// The sectors of a moment on a disk: which of the pending ones arrived is a bit each.
struct Sectors<'a> {
    moment: &'a Moment,
    image: Vec<u8>,
    arrived: u32,
}

impl<'a> Sectors<'a> {
    fn new(moment: &'a Moment) -> Self {
        Self { moment, image: moment.durable.to_vec(), arrived: 0 }
    }

    fn toggle(&mut self, bit: usize) {
        self.arrived ^= 1 << bit;
        let sector = self.moment.pending[bit].sector;
        let of_it = |(at, pending): &(usize, &crate::rig::Pending)| {
            pending.sector == sector && self.arrived & (1 << at) != 0
        };
        let last = self.moment.pending.iter().enumerate().rev().find(of_it);
        let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
        let bytes = last.map_or(&self.moment.durable[range.clone()], |(_, pending)| &pending.bytes);
        self.image[range].copy_from_slice(bytes);
    }

    fn set(&mut self, arrived: u32) {
        for bit in 0..self.moment.pending.len() {
            if (self.arrived ^ arrived) & (1 << bit) != 0 {
                self.toggle(bit);
            }
        }
    }
}

/// Beyond the last so many unsynced sectors, the earlier ones have all arrived, or none has.
fn subsets(oracle: &mut Oracle, moment: &Moment, mutant: &Mutant) -> Verdict {
    let count = moment.pending.len();
    let early = count.saturating_sub(UNSYNCED_MAX);
    let arrivals = [0, (1_u32 << early) - 1];
    let mut sectors = Sectors::new(moment);
    for arrived in &arrivals[usize::from(early == 0)..] {
        sectors.set(*arrived);
        oracle.crashed(&sectors.image, &moment.expected, mutant)?;
        for number in 1..1_u32 << (count - early) {
            // A Gray code: one sector more or less each time.
            sectors.toggle(early + number.trailing_zeros() as usize);
            oracle.crashed(&sectors.image, &moment.expected, mutant)?;
        }
    }
    Ok(())
}

fn torn_atoms(oracle: &mut Oracle, moment: &Moment, mutant: &Mutant) -> Verdict {
    let count = moment.pending.len();
    let mut sectors = Sectors::new(moment);
    for all_others in [0, (1_u32 << count) - 1] {
        for torn in 0..count {
            for atoms in 1..SECTOR_BYTES / ATOM_BYTES {
                sectors.set(all_others & !(1 << torn));
                let pending = &moment.pending[torn];
                let (at, kept) = (pending.sector * SECTOR_BYTES, atoms * ATOM_BYTES);
                let before = sectors.image[at..at + kept].to_vec();
                sectors.image[at..at + kept].copy_from_slice(&pending.bytes[..kept]);
                oracle.crashed(&sectors.image, &moment.expected, mutant)?;
                sectors.image[at..at + kept].copy_from_slice(&before);
            }
        }
    }
    Ok(())
}

/// A crash at each step of recovery, another in the recovery after it, and new records where old ones were cut off.
fn by_recovery(oracle: &mut Oracle, mutant: &Mutant) -> Verdict {
    for variant in 0..2 {
        let mut rig = script(mutant, variant)?;
        long_tail(&mut rig, variant)?;
        let moment = rig.moments.last().unwrap().clone();
        let all = (1_u32 << moment.pending.len()) - 1;
        let mut sectors = Sectors::new(&moment);
        // Tails with one hole at each place, with only one sector left, and with all of it.
        let holes = (0..moment.pending.len()).flat_map(|bit| [all & !(1 << bit), 1 << bit]);
        for arrived in holes.chain([all, 0, 0b1010_1010_1010 & all]) {
            sectors.set(arrived);
            let image = &sectors.image;
            let first = Rig::open(image, image, moment.expected.clone(), 2, mutant)?;
            moments(oracle, &first.moments, mutant)?;
            for moment in &first.moments {
                again(oracle, moment, mutant)?;
            }
        }
    }
    Ok(())
}

/// The power has failed during a recovery: the next one, and a turn after it.
fn again(oracle: &mut Oracle, moment: &Moment, mutant: &Mutant) -> Verdict {
    let all = (1_u32 << moment.pending.len()) - 1;
    let mut sectors = Sectors::new(moment);
    for arrived in [all, 0, all & 0b0101_0101_0101, all & 0b1010_1010_1010] {
        sectors.set(arrived);
        let image = &sectors.image;
        let mut second = Rig::open(image, image, moment.expected.clone(), 3, mutant)?;
        // Sequences that were cut off are given to other records now.
        for lengths in [&[400, 4100][..], &[80], &[2000]] {
            if second.append(lengths).is_err() {
                break;
            }
        }
        moments(oracle, &second.moments, mutant)?;
    }
    Ok(())
}

/// Each sync fails once. Nothing is acknowledged after it; then the power fails too, or the process starts again over a
/// disk that forgets what the sync gave up.
fn by_failed_sync(oracle: &mut Oracle, mutant: &Mutant) -> Verdict {
    let turns: [&[usize]; 6] = [&[60, 5000], &[40], &[7000], &[3000, 20], &[9000], &[100]];
    for failing in 0..turns.len() {
        let mut rig = Rig::create(mutant);
        for (turn, lengths) in turns.iter().enumerate() {
            rig.append(lengths).map_err(|refused| refused.to_string())?;
            if turn == failing {
                assert!(rig.fail_sync(), "there was something to sync");
                break;
            }
            rig.sync();
        }
        let acknowledged = rig.expected.acknowledged;
        if rig.append(&[10]).is_ok() {
            return Err("a record was appended after a failed sync".to_owned());
        }
        rig.sync();
        if rig.expected.acknowledged != acknowledged {
            return Err("a record was acknowledged after a failed sync".to_owned());
        }
        moments(oracle, &rig.moments, mutant)?;
        let mut next = Rig::open(&rig.image(), rig.durable(), rig.expected.clone(), 2, mutant)?;
        next.append(&[700, 70]).map_err(|refused| refused.to_string())?;
        moments(oracle, &next.moments, mutant)?;
    }
    Ok(())
}

/// A log all of which was acknowledged, in two segments; with a mark after the last group or not.
fn at_rest(mutant: &Mutant, is_marked: bool) -> Result<Rig, String> {
    let mut rig = script(mutant, 0)?;
    let turns: [&[&[usize]]; 2] = [&[&[3000, 900]], &[&[500, 12_000], &[500; 5]]];
    for groups in turns {
        for lengths in groups {
            rig.append(lengths).map_err(|refused| refused.to_string())?;
        }
        rig.sync();
    }
    if is_marked {
        rig.mark();
    }
    assert_eq!(rig.live().len(), 2, "two segments");
    Ok(rig)
}

fn by_sector(oracle: &mut Oracle, mutant: &Mutant) -> Verdict {
    sectors_damaged(oracle, &at_rest(mutant, true)?, mutant)?;
    sectors_damaged(oracle, &at_rest(mutant, false)?, mutant)
}

fn by_truncation(oracle: &mut Oracle, mutant: &Mutant) -> Verdict {
    truncations(oracle, &at_rest(mutant, true)?, mutant)?;
    truncations(oracle, &at_rest(mutant, false)?, mutant)
}

/// After a mark no single bit can do what nothing tells of.
fn by_bit(oracle: &mut Oracle, mutant: &Mutant) -> Verdict {
    let before = oracle.undetectable;
    flipped_bits(oracle, &at_rest(mutant, true)?, mutant)?;
    match oracle.undetectable - before {
        0 => Ok(()),
        lost => Err(format!("{lost} bits lose a record, and nobody can tell")),
    }
}

fn truth(rig: &Rig) -> Truth<'_> {
    let manifest = rig.manifest();
    let proven = manifest.durable.max(manifest.sealed_through);
    Truth { anatomy: &rig.anatomy, expected: &rig.expected, proven }
}

fn flipped_bits(oracle: &mut Oracle, rig: &Rig, mutant: &Mutant) -> Verdict {
    let (mut image, truth) = (rig.image(), truth(rig));
    for at in (0..SLOTS_BEGIN).chain(rig.live().iter().flat_map(bytes_of)) {
        for bit in 0..8 {
            image[at] ^= 1 << bit;
            let touches = |from: usize, to: usize| from <= at && at < to;
            oracle
                .damaged(&image, &truth, touches, mutant)
                .map_err(|broken| format!("bit {bit} of byte {at} flipped: {broken}"))?;
            image[at] ^= 1 << bit;
        }
    }
    Ok(())
}

fn bytes_of(segment: &Segment) -> std::ops::Range<usize> {
    let start = slot_at(segment.slot);
    start..start + SEGMENT_BYTES
}

/// Each sector zeroed, swapped with each other one, left as it was in each earlier use, and each one's last write gone
/// astray to each other place.
fn sectors_damaged(oracle: &mut Oracle, rig: &Rig, mutant: &Mutant) -> Verdict {
    let (whole, truth) = (rig.image(), truth(rig));
    let of_segment = |segment: &Segment| {
        let first = slot_at(segment.slot) / SECTOR_BYTES;
        first..first + SECTORS_OF_SEGMENT
    };
    let sectors: Vec<usize> =
        (0..SLOTS_BEGIN / SECTOR_BYTES).chain(rig.live().iter().flat_map(of_segment)).collect();
    let mut judge = |what: &str, changes: &[(usize, &[u8])]| {
        let mut image = whole.clone();
        for (sector, bytes) in changes {
            image[sector * SECTOR_BYTES..][..SECTOR_BYTES].copy_from_slice(bytes);
        }
        let touches = |from: usize, to: usize| image[from..to] != whole[from..to];
        let places: Vec<usize> = changes.iter().map(|(sector, _)| *sector).collect();
        oracle
            .damaged(&image, &truth, touches, mutant)
            .map_err(|broken| format!("sectors {places:?} {what}: {broken}"))
    };
    let of = |sector: usize| &whole[sector * SECTOR_BYTES..][..SECTOR_BYTES];
    for &one in &sectors {
        judge("zeroed", &[(one, &[0; SECTOR_BYTES])])?;
        let mut earlier = vec![vec![0; SECTOR_BYTES]];
        earlier.extend_from_slice(rig.versions(one));
        for version in &earlier {
            judge("left as they were", &[(one, version)])?;
        }
        for &other in sectors.iter().filter(|other| **other != one) {
            judge("swapped", &[(one, of(other)), (other, of(one))])?;
            for version in &earlier {
                // Both copies of the manifest are one fault more than it promises to bear.
                if one.max(other) >= SLOTS_BEGIN / SECTOR_BYTES {
                    judge("misdirected", &[(one, version), (other, of(one))])?;
                }
            }
        }
    }
    Ok(())
}

/// Each segment cut at every byte.
fn truncations(oracle: &mut Oracle, rig: &Rig, mutant: &Mutant) -> Verdict {
    let (image, truth) = (rig.image(), truth(rig));
    for segment in rig.live() {
        for len in 0..SEGMENT_BYTES {
            oracle
                .truncated(&image, &truth, (segment.slot, len), mutant)
                .map_err(|broken| format!("slot {} ends at {len}: {broken}", segment.slot.0))?;
        }
    }
    Ok(())
}
