//! The log: what was synced is there, nothing is invented, and there is never a hole.

use proptest::prelude::*;
use ringmain::failpoint::{Failpoints, NoFailpoints};
use ringmain::prng::Prng;
use ringmain::storage::log::Geometry;

use super::{DiskFaults, LogError, SECTOR_BYTES, ShardLog};

const SEGMENT_BYTES: usize = 16 * SECTOR_BYTES;

/// What is left, without positions: they follow one another.
fn reopen<F: Failpoints>(log: &mut ShardLog<F>) -> Vec<Vec<u8>> {
    let records = log.reopen();
    assert!(records.is_sorted_by(|(one, _), (next, _)| one + 1 == *next));
    records.into_iter().map(|(_, record)| record).collect()
}

/// Open, and on a good disk so far.
fn log(slots: u32, faults: DiskFaults) -> ShardLog<NoFailpoints> {
    let geometry = Geometry::new(SEGMENT_BYTES as u32, slots).unwrap();
    let mut log = ShardLog::new(geometry, faults, Prng::from_seed(1), NoFailpoints);
    assert_eq!(reopen(&mut log), [b""; 0]);
    log
}

fn torn(torn: f64) -> DiskFaults {
    DiskFaults { torn, ..DiskFaults::default() }
}

fn sync_error() -> DiskFaults {
    DiskFaults { sync_error: 1.0, ..DiskFaults::default() }
}

#[test]
fn positions_count_from_1_and_a_sync_says_how_far() {
    let mut log = log(64, torn(1.0));
    assert_eq!(log.sync(), Ok(0));
    assert_eq!(log.append(b"first", false), Ok(1));
    assert_eq!(log.append(b"", false), Ok(2));
    assert_eq!((log.last(), log.durable()), (2, 0));
    assert_eq!(log.sync(), Ok(2));
    assert_eq!(log.append(b"third", false), Ok(3));
    assert_eq!((log.last(), log.durable()), (3, 2));
}

#[test]
fn a_crash_that_tears_everything_leaves_what_was_synced() {
    for seed in 0..200 {
        let mut log = log(64, torn(1.0));
        log.append(b"kept", false).unwrap();
        log.sync().unwrap();
        // It reaches into its sector's last atom, which a torn one lacks for certain.
        log.append(&[b'l'; SECTOR_BYTES - 100], false).unwrap();
        log.write_out().unwrap();
        log.crash(&mut Prng::from_seed(seed));
        assert_eq!(reopen(&mut log), [b"kept"]);
        assert!(log.report().is_clean(), "{}", log.report());
        assert_eq!(log.append(b"next", false), Ok(2));
    }
}

/// Three unsynced groups of a sector and more each: any number of them may survive.
#[test]
fn every_prefix_may_survive_a_crash() {
    let mut survived = [0; 4];
    for seed in 0..1000 {
        let mut log = log(64, torn(0.5));
        for record in 0..3 {
            log.append(&[record; SECTOR_BYTES], false).unwrap();
            log.write_out().unwrap();
        }
        log.crash(&mut Prng::from_seed(seed));
        survived[reopen(&mut log).len()] += 1;
        assert_eq!(log.durable(), log.last(), "all that survived is durable");
    }
    assert!(survived.iter().all(|&count| count > 20), "{survived:?}");
}

#[test]
fn a_failed_sync_poisons_the_log_until_it_is_reopened() {
    let mut log = log(64, DiskFaults::default());
    log.append(b"kept", false).unwrap();
    log.sync().unwrap();
    log.append(b"in doubt", false).unwrap();
    log.set_faults(sync_error());
    assert_eq!(log.sync(), Err(LogError::Sync));
    assert!(log.is_poisoned());
    log.set_faults(torn(1.0));
    assert_eq!(log.append(b"refused", false), Err(LogError::Poisoned));
    assert_eq!(log.sync(), Err(LogError::Poisoned), "a sync that would succeed says nothing");
    assert_eq!(log.durable(), 1);
    log.crash(&mut Prng::from_seed(1));
    assert_eq!(reopen(&mut log), [b"kept"]);
    assert_eq!(log.append(b"next", false), Ok(2));
}

/// The process restarts, the machine doesn't: what a failed sync gave up can be read, and no later sync covers it. So it
/// is written once more before it is believed.
#[test]
fn what_a_failed_sync_gave_up_is_written_again_at_the_next_start() {
    for seed in 0..100 {
        let mut log = log(64, DiskFaults::default());
        log.append(b"in doubt", false).unwrap();
        log.set_faults(sync_error());
        log.sync().unwrap_err();
        assert_eq!(reopen(&mut log), [b"in doubt"]);
        assert_eq!((log.last(), log.durable()), (1, 1));
        log.set_faults(torn(1.0));
        log.crash(&mut Prng::from_seed(seed));
        assert_eq!(reopen(&mut log), [b"in doubt"]);
    }
}

#[test]
fn a_full_log_refuses_and_loses_nothing() {
    let mut log = log(4, torn(1.0));
    // Two of four segments are for appends.
    for _ in 0..2 {
        log.append(&[1; SEGMENT_BYTES - SECTOR_BYTES - 100], false).unwrap();
        assert_eq!(log.write_out(), Ok(()));
    }
    log.append(&[2; SEGMENT_BYTES - SECTOR_BYTES - 100], false).unwrap();
    assert_eq!((log.write_out(), log.sync()), (Err(LogError::Full), Err(LogError::Full)));
    assert!(!log.is_poisoned());
    log.crash(&mut Prng::from_seed(1));
    reopen(&mut log);
    assert!(log.last() <= 2);
}

#[test]
fn an_older_image_takes_the_log_back() {
    let mut log = log(64, torn(1.0));
    log.append(b"old", false).unwrap();
    log.sync().unwrap();
    log.append(b"unsynced", false).unwrap();
    log.write_out().unwrap();
    let image = log.image();
    log.append(b"new", false).unwrap();
    log.sync().unwrap();
    log.restore(&image);
    assert_eq!(reopen(&mut log), [b"old"]);
    assert_eq!(log.append(b"other", false), Ok(2));
    log.sync().unwrap();
    log.crash(&mut Prng::from_seed(1));
    log.wipe();
    assert_eq!(log.durable(), 0);
    assert_eq!(reopen(&mut log), [b""; 0]);
    assert_eq!(log.append(b"fresh", false), Ok(1));
}

#[test]
#[should_panic = "reopened after a crash"]
fn a_crashed_log_is_reopened_first() {
    let mut log = log(64, DiskFaults::default());
    log.crash(&mut Prng::from_seed(1));
    let _ = log.append(b"too soon", false);
}

#[derive(Clone, Debug)]
enum Step {
    Append { len: usize, byte: u8 },
    WriteOut,
    Sync,
    Crash,
    Restart,
    Image,
    Restore,
    Wipe,
}

/// Few lengths and bytes, so that what is written often equals what was cut.
fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![Just(0), Just(300), Just(SECTOR_BYTES - 64), Just(5000), 0..9000usize];
    prop_oneof![
        12 => (len, 0..2u8).prop_map(|(len, byte)| Step::Append { len, byte }),
        6 => Just(Step::WriteOut),
        4 => Just(Step::Sync),
        4 => Just(Step::Crash),
        2 => Just(Step::Restart),
        1 => Just(Step::Image),
        1 => Just(Step::Restore),
        1 => Just(Step::Wipe),
    ]
}

/// A list of records, and how many of them are promised.
#[derive(Clone, Debug, Default)]
struct Model {
    records: Vec<Vec<u8>>,
    durable: usize,
}

impl Model {
    /// `survivors` are a prefix of the records that holds all that were promised.
    fn recover(&mut self, survivors: &[Vec<u8>]) {
        assert!(survivors.len() >= self.durable, "a synced record is gone");
        assert!(self.records.starts_with(survivors), "a hole, or something invented");
        self.records.truncate(survivors.len());
        self.durable = survivors.len();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_log_agrees_with_a_list(
        steps in proptest::collection::vec(step(), 1..80),
        seed: u64,
        torn in 0.0..=1.0,
        sync_error in prop_oneof![Just(0.0), 0.0..0.5],
    ) {
        let mut prng = Prng::from_seed(seed);
        let mut log = log(1024, DiskFaults { torn, sync_error, ..DiskFaults::default() });
        let mut model = Model::default();
        let (mut image, mut imaged) = (log.image(), Model::default());
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Append { len, byte } => {
                    // Its first byte is its own, so that none is taken for another.
                    let mut record = vec![byte; len];
                    record.iter_mut().take(1).for_each(|first| *first = number as u8);
                    match log.append(&record, false) {
                        Ok(position) => {
                            model.records.push(record);
                            prop_assert_eq!(position, model.records.len() as u64);
                        }
                        Err(error) => prop_assert!(error == LogError::Poisoned && log.is_poisoned()),
                    }
                }
                Step::WriteOut => prop_assert!(log.write_out().is_ok() || log.is_poisoned()),
                Step::Sync => match log.sync() {
                    Ok(durable) => {
                        model.durable = model.records.len();
                        prop_assert_eq!(durable, model.durable as u64);
                    }
                    Err(_) => prop_assert!(sync_error > 0.0 && log.is_poisoned()),
                },
                Step::Crash => {
                    log.crash(&mut prng);
                    model.recover(&reopen(&mut log));
                    prop_assert!(log.report().is_clean(), "{}", log.report());
                }
                Step::Restart => model.recover(&reopen(&mut log)),
                Step::Image => {
                    // An image holds what a sync of another's has made durable too.
                    image = log.image();
                    imaged = model.clone();
                }
                Step::Restore => {
                    log.restore(&image);
                    model = imaged.clone();
                    model.recover(&reopen(&mut log));
                    (image, imaged) = (log.image(), model.clone());
                }
                Step::Wipe => {
                    log.wipe();
                    model = Model::default();
                    prop_assert_eq!(reopen(&mut log).len(), 0);
                }
            }
            prop_assert_eq!(log.durable(), model.durable as u64);
            prop_assert_eq!(log.last(), model.records.len() as u64);
        }
    }
}

/// Before a crash and after it, from sealed segments and from the one that is written.
#[test]
fn each_record_is_read_again_by_its_position() {
    let mut log = log(64, torn(1.0));
    let record = |position: u64| vec![position as u8; (position * 97 % 5000) as usize];
    for position in 1..=100 {
        log.append(&record(position), false).unwrap();
        if position % 3 == 0 {
            log.sync().unwrap();
        }
    }
    log.sync().unwrap();
    let check = |log: &ShardLog<NoFailpoints>| {
        (1..=100)
            .for_each(|position| assert_eq!(log.read_record(position), Some(record(position)), "{position}"));
        assert_eq!((log.read_record(0), log.read_record(101)), (None, None));
    };
    check(&log);
    log.crash(&mut Prng::from_seed(1));
    reopen(&mut log);
    check(&log);
}
