//! The disk: each fault happens at rate 1 and never at 0, and a crash leaves what it may and no less.

use std::collections::BTreeSet;

use proptest::prelude::*;
use ringmain::prng::Prng;

use super::{ATOM_BYTES, Disk, DiskError, DiskFaults, Injected, SECTOR_BYTES};

const SECTORS: usize = 16;
const NONE: DiskFaults = DiskFaults {
    torn: 0.0,
    read_corrupt: 0.0,
    write_corrupt: 0.0,
    misdirected_write: 0.0,
    sync_error: 0.0,
    full: 0.0,
};

fn disk(faults: DiskFaults, seed: u64) -> Disk {
    Disk::new(SECTORS * SECTOR_BYTES, faults, Prng::from_seed(seed))
}

fn read(disk: &mut Disk, offset: usize, len: usize) -> Vec<u8> {
    let mut into = vec![0xee; len];
    disk.read(offset as u64, &mut into);
    into
}

fn sector(byte: u8) -> Vec<u8> {
    vec![byte; SECTOR_BYTES]
}

/// A disk whose first `sectors` sectors hold 1s, synced, with 2s over them, unsynced.
fn written_over(faults: DiskFaults, seed: u64, sectors: usize) -> Disk {
    let mut disk = disk(NONE, seed);
    disk.write(0, &vec![1; sectors * SECTOR_BYTES]).unwrap();
    disk.sync().unwrap();
    disk.write(0, &vec![2; sectors * SECTOR_BYTES]).unwrap();
    disk.set_faults(faults);
    disk
}

#[test]
fn no_fault_is_on_unless_asked_for() {
    assert_eq!(DiskFaults::default(), NONE);
    let mut disk = disk(NONE, 1);
    let mut expected = vec![0; SECTORS * SECTOR_BYTES];
    let mut prng = Prng::from_seed(2);
    for round in 0..2000 {
        let len = prng.below(3 * SECTOR_BYTES as u64) as usize;
        let at = prng.below((expected.len() - len) as u64 + 1) as usize;
        let byte = prng.next_u64() as u8;
        disk.write(at as u64, &vec![byte; len]).unwrap();
        expected[at..at + len].fill(byte);
        match round % 7 {
            0 => disk.sync().unwrap(),
            1 => disk.crash(&mut prng),
            _ => {}
        }
        assert_eq!(read(&mut disk, 0, expected.len()), expected);
    }
    assert_eq!(disk.take_injected(), []);
}

#[test]
fn what_was_never_written_is_zeros() {
    let mut disk = disk(NONE, 1);
    assert_eq!(read(&mut disk, 0, 3), [0; 3]);
    disk.write(SECTOR_BYTES as u64 - 1, &[7]).unwrap();
    assert_eq!(read(&mut disk, SECTOR_BYTES - 2, 4), [0, 7, 0, 0]);
    assert_eq!(disk.contents().len(), SECTOR_BYTES, "sectors not in use take no memory");
}

#[test]
#[should_panic = "a read ends within the capacity"]
fn a_read_beyond_the_end_is_a_mistake() {
    read(&mut disk(NONE, 1), SECTORS * SECTOR_BYTES - 1, 2);
}

#[test]
fn a_write_beyond_the_capacity_is_refused_whole() {
    let mut disk = Disk::new(2 * SECTOR_BYTES + 5, NONE, Prng::from_seed(1));
    assert_eq!(disk.capacity(), 2 * SECTOR_BYTES, "whole sectors");
    assert_eq!(disk.write(SECTOR_BYTES as u64 + 1, &sector(3)), Err(DiskError::Full));
    assert_eq!(disk.write(u64::MAX, &[3]), Err(DiskError::Full));
    assert_eq!(read(&mut disk, 0, 2 * SECTOR_BYTES), vec![0; 2 * SECTOR_BYTES]);
    disk.write(SECTOR_BYTES as u64, &sector(3)).unwrap();
    assert_eq!(disk.take_injected(), [], "a full disk is no fault");
}

#[test]
fn a_write_refused_by_a_fault_leaves_nothing() {
    let mut disk = disk(DiskFaults { full: 1.0, ..NONE }, 1);
    for _ in 0..100 {
        assert_eq!(disk.write(0, &[1]), Err(DiskError::Full));
        assert_eq!(disk.take_injected(), [Injected::Full]);
    }
    assert_eq!(disk.contents(), []);
}

#[test]
fn a_corrupt_read_is_one_bit_off_and_heals() {
    let mut disk = disk(NONE, 1);
    disk.write(100, &[0; 64]).unwrap();
    disk.set_faults(DiskFaults { read_corrupt: 1.0, ..NONE });
    for _ in 0..100 {
        let answer = read(&mut disk, 100, 64);
        assert_eq!(answer.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
        let wrong = answer.iter().position(|&byte| byte != 0).unwrap();
        assert_eq!(disk.take_injected(), [Injected::ReadCorrupt { offset: 100 + wrong as u64 }]);
    }
    disk.set_faults(NONE);
    assert_eq!(read(&mut disk, 100, 64), [0; 64]);
}

#[test]
fn a_corrupt_write_is_one_bit_off_for_ever() {
    for seed in 0..100 {
        let mut disk = disk(DiskFaults { write_corrupt: 1.0, ..NONE }, seed);
        disk.write(100, &[0; 64]).unwrap();
        let wrong = disk.contents().iter().position(|&byte| byte != 0).unwrap();
        assert_eq!(disk.contents().iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
        assert!((100..164).contains(&wrong), "only what was written can be wrong, not byte {wrong}");
        assert_eq!(disk.take_injected(), [Injected::WriteCorrupt { offset: wrong as u64 }]);
        disk.sync().unwrap();
        disk.crash(&mut Prng::from_seed(seed));
        assert_ne!(disk.contents()[wrong], 0);
    }
}

#[test]
fn a_misdirected_write_lands_whole_sectors_away() {
    let mut landed_at = [0; SECTORS];
    for seed in 0..500 {
        let mut disk = disk(NONE, seed);
        disk.write(0, &vec![1; 5 * SECTOR_BYTES]).unwrap();
        disk.set_faults(DiskFaults { misdirected_write: 1.0, ..NONE });
        let intended = 2 * SECTOR_BYTES + 10;
        disk.write(intended as u64, &vec![2; SECTOR_BYTES]).unwrap();
        let injected = disk.take_injected();
        let [Injected::MisdirectedWrite { intended: 8202, landed, bytes: 4096 }] = injected[..] else {
            panic!("{injected:?}");
        };
        let landed = landed as usize;
        assert!(landed != intended && landed % SECTOR_BYTES == 10);
        let mut expected = vec![1; 5 * SECTOR_BYTES];
        expected.resize(disk.contents().len(), 0);
        expected[landed..landed + SECTOR_BYTES].fill(2);
        assert!(disk.contents() == expected, "seed {seed}: its own place is stale, the other overwritten");
        landed_at[landed / SECTOR_BYTES] += 1;
    }
    // Sectors 0 to 4 are in use and 5 is the next; the write takes two of them and was meant for 2 and 3.
    assert!([0, 1, 3, 4].iter().all(|&first| landed_at[first] > 50), "{landed_at:?}");
    assert_eq!(landed_at.iter().sum::<u32>() - landed_at[2], 500);
}

#[test]
fn a_write_as_large_as_the_disk_cannot_go_astray() {
    let mut disk = Disk::new(SECTOR_BYTES, DiskFaults { misdirected_write: 1.0, ..NONE }, Prng::from_seed(1));
    disk.write(3, &[5]).unwrap();
    assert_eq!(disk.take_injected(), []);
    assert_eq!(disk.contents()[3], 5);
}

#[test]
fn after_a_failed_sync_a_later_one_promises_nothing() {
    let mut outcomes = [0; 2];
    for seed in 0..200 {
        let mut disk = written_over(DiskFaults { sync_error: 1.0, ..NONE }, seed, 1);
        assert_eq!(disk.sync(), Err(DiskError::Sync));
        assert_eq!(disk.take_injected(), [Injected::SyncError]);
        disk.set_faults(NONE);
        disk.write(3 * SECTOR_BYTES as u64, &sector(3)).unwrap();
        disk.sync().unwrap();
        assert_eq!(read(&mut disk, 0, SECTOR_BYTES), sector(2), "the cache still holds it");
        assert_eq!(disk.image().bytes()[..SECTOR_BYTES], sector(1), "but it isn't synced");
        disk.crash(&mut Prng::from_seed(seed));
        assert_eq!(read(&mut disk, 3 * SECTOR_BYTES, SECTOR_BYTES), sector(3), "written since, and synced");
        outcomes[usize::from(disk.contents()[..SECTOR_BYTES] == sector(2))] += 1;
    }
    assert!(outcomes.iter().all(|&count| count > 50), "there or not: {outcomes:?}");
}

#[test]
fn a_sector_written_again_after_a_failed_sync_is_synced_by_the_next() {
    for seed in 0..100 {
        let mut disk = written_over(DiskFaults { sync_error: 1.0, ..NONE }, seed, 2);
        disk.sync().unwrap_err();
        disk.set_faults(DiskFaults { torn: 1.0, ..NONE });
        disk.write(0, &[3; 10]).unwrap();
        disk.sync().unwrap();
        disk.crash(&mut Prng::from_seed(seed));
        assert_eq!(disk.contents()[..10], [3; 10]);
        assert_eq!(disk.contents()[10..SECTOR_BYTES], sector(2)[10..], "a cache writes whole sectors");
        assert_ne!(disk.contents()[SECTOR_BYTES..], sector(2));
    }
}

#[test]
fn a_crash_loses_nothing_at_rate_0_and_of_every_sector_something_at_rate_1() {
    for seed in 0..200 {
        let mut whole = written_over(NONE, seed, 4);
        whole.crash(&mut Prng::from_seed(seed));
        assert_eq!(whole.contents(), vec![2; 4 * SECTOR_BYTES]);
        let mut torn = written_over(DiskFaults { torn: 1.0, ..NONE }, seed, 4);
        torn.crash(&mut Prng::from_seed(seed));
        assert!(torn.is_synced());
        assert_eq!(torn.take_injected().len(), 4);
        for sector in torn.contents().chunks(SECTOR_BYTES) {
            let new = sector.iter().take_while(|&&byte| byte == 2).count();
            assert!(new < SECTOR_BYTES && new % ATOM_BYTES == 0, "{new} bytes are new");
            assert!(sector[new..].iter().all(|&byte| byte == 1), "a new prefix, an old rest");
        }
    }
}

/// Two sectors, each written over three times: whatever the one is, the other may be anything.
#[test]
fn a_crash_may_leave_every_mixture_of_two_versions_in_a_row() {
    let mut seen = BTreeSet::new();
    let kind = |sector: &[u8]| {
        assert!(sector[0] - sector[SECTOR_BYTES - 1] <= 1, "a version is torn by the next");
        [1, 2, 3, 4].map(|wanted| sector.iter().filter(|&&byte| byte == wanted).count() / ATOM_BYTES)
    };
    let mut prng = Prng::from_seed(1);
    for seed in 0..40_000 {
        let mut disk = written_over(DiskFaults { torn: 0.9, ..NONE }, seed, 2);
        disk.write(0, &[3; 2 * SECTOR_BYTES]).unwrap();
        disk.write(0, &[4; 2 * SECTOR_BYTES]).unwrap();
        disk.crash(&mut prng);
        let (first, second) = disk.contents().split_at(SECTOR_BYTES);
        seen.insert((kind(first), kind(second)));
    }
    // One of the four versions throughout, or one of seven tears of a version by the next.
    let kinds = 4 + 3 * 7;
    assert_eq!(seen.len(), kinds * kinds);
}

#[test]
fn a_crash_reports_what_is_missing() {
    let (mut lost, mut torn) = (0, 0);
    for seed in 0..200 {
        let mut disk = written_over(DiskFaults { torn: 0.5, ..NONE }, seed, 2);
        disk.crash(&mut Prng::from_seed(seed));
        let injected = disk.take_injected();
        for (number, sector) in disk.contents().chunks(SECTOR_BYTES).enumerate() {
            let reported = injected.iter().find(|fault| match fault {
                Injected::Lost { sector } | Injected::Torn { sector } => *sector == number as u64,
                _ => false,
            });
            match (sector[0], sector[SECTOR_BYTES - 1]) {
                (2, 2) => assert_eq!(reported, None),
                (1, 1) => lost += u32::from(matches!(reported, Some(Injected::Lost { .. }))),
                (2, 1) => torn += u32::from(matches!(reported, Some(Injected::Torn { .. }))),
                ends => panic!("{ends:?}"),
            }
        }
        let missing = disk.contents().chunks(SECTOR_BYTES).filter(|sector| sector[SECTOR_BYTES - 1] == 1);
        assert_eq!(missing.count(), injected.len());
    }
    assert!(lost > 50 && torn > 50, "{lost} lost, {torn} torn");
}

#[test]
fn an_image_holds_what_is_synced_and_restores_it() {
    let mut disk = written_over(NONE, 1, 2);
    let image = disk.image();
    assert_eq!(image.bytes(), vec![1; 2 * SECTOR_BYTES]);
    assert_eq!(disk.contents(), vec![2; 2 * SECTOR_BYTES], "the disk itself goes on");
    disk.sync().unwrap();
    assert_eq!(disk.image().bytes(), vec![2; 2 * SECTOR_BYTES]);
    disk.write(5 * SECTOR_BYTES as u64, &[9]).unwrap();
    disk.restore(&image);
    assert!(disk.is_synced());
    assert_eq!(disk.contents(), image.bytes());
    assert_eq!(disk.image(), image);
}

#[test]
fn a_wiped_disk_is_empty_and_as_large() {
    let mut disk = written_over(DiskFaults { torn: 1.0, ..NONE }, 1, 2);
    disk.wipe();
    disk.crash(&mut Prng::from_seed(1));
    assert_eq!(read(&mut disk, 0, 2 * SECTOR_BYTES), vec![0; 2 * SECTOR_BYTES], "nothing comes back");
    assert_eq!(disk.capacity(), SECTORS * SECTOR_BYTES);
}

#[derive(Clone, Debug)]
enum Step {
    Write { at: usize, len: usize, byte: u8 },
    Sync,
    Crash,
    Image,
    Restore,
}

fn step() -> impl Strategy<Value = Step> {
    let at = 0..SECTORS * SECTOR_BYTES;
    prop_oneof![
        6 => (at, 0..2 * SECTOR_BYTES, 1..=255u8).prop_map(|(at, len, byte)| Step::Write { at, len, byte }),
        2 => Just(Step::Sync),
        2 => Just(Step::Crash),
        1 => Just(Step::Image),
        1 => Just(Step::Restore),
    ]
}

/// For each byte of the disk, the synced one and all that were written over it since.
struct Allowed(Vec<Vec<u8>>);

impl Allowed {
    fn settle(&mut self, disk: &[u8]) {
        for (allowed, byte) in self.0.iter_mut().zip(disk.iter().chain(std::iter::repeat(&0))) {
            assert!(allowed.contains(byte), "{byte} is none of {allowed:?}");
            *allowed = vec![*byte];
        }
    }

    fn synced(&self) -> Vec<u8> {
        self.0.iter().map(|allowed| allowed[0]).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

    #[test]
    fn a_crash_keeps_synced_bytes_and_invents_none(
        steps in proptest::collection::vec(step(), 1..40),
        seed: u64,
        torn in 0.0..=1.0,
    ) {
        let mut disk = disk(DiskFaults { torn, ..NONE }, seed);
        let mut prng = Prng::from_seed(seed);
        let mut allowed = Allowed(vec![vec![0]; SECTORS * SECTOR_BYTES]);
        let (mut image, mut imaged) = (disk.image(), allowed.synced());
        for step in steps {
            match step {
                Step::Write { at, len, byte } => match disk.write(at as u64, &vec![byte; len]) {
                    Ok(()) => allowed.0[at..at + len].iter_mut().for_each(|allowed| allowed.push(byte)),
                    Err(_) => prop_assert!(at + len > SECTORS * SECTOR_BYTES),
                },
                Step::Sync => {
                    disk.sync().unwrap();
                    allowed.0.iter_mut().for_each(|allowed| *allowed = vec![allowed[allowed.len() - 1]]);
                }
                Step::Crash => {
                    disk.crash(&mut prng);
                    allowed.settle(disk.contents());
                }
                Step::Image => (image, imaged) = (disk.image(), allowed.synced()),
                Step::Restore => {
                    disk.restore(&image);
                    allowed.0 = imaged.iter().map(|&byte| vec![byte]).collect();
                }
            }
            let newest: Vec<u8> = allowed.0.iter().map(|allowed| allowed[allowed.len() - 1]).collect();
            prop_assert!(read(&mut disk, 0, newest.len()) == newest, "a read sees the last write");
            let (synced, stored) = (allowed.synced(), disk.image());
            let (used, unused) = synced.split_at(stored.bytes().len());
            prop_assert!(stored.bytes() == used && unused.iter().all(|&byte| byte == 0), "an image holds the synced");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes(steps in proptest::collection::vec(step(), 1..40), seed: u64) {
        let run = || {
            let faults = DiskFaults {
                torn: 0.9, read_corrupt: 0.3, write_corrupt: 0.3, misdirected_write: 0.3, sync_error: 0.3, full: 0.3,
            };
            let (mut disk, mut prng) = (disk(faults, seed), Prng::from_seed(seed + 1));
            let mut image = disk.image();
            let mut answers = Vec::new();
            for step in &steps {
                match step {
                    Step::Write { at, len, byte } => _ = disk.write(*at as u64, &vec![*byte; *len]),
                    Step::Sync => _ = disk.sync(),
                    Step::Crash => disk.crash(&mut prng),
                    Step::Image => image = disk.image(),
                    Step::Restore => disk.restore(&image),
                }
                answers.push(read(&mut disk, 0, SECTOR_BYTES));
            }
            (answers, disk.contents().to_vec(), disk.take_injected())
        };
        prop_assert!(run() == run());
    }
}
