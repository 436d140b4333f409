//! The log: what was synced is there, nothing is invented, and there is never a hole.

use proptest::prelude::*;
use ringmain::prng::Prng;

use super::{DiskFaults, IdealLog, Injected, LogError, SECTOR_BYTES};

const CAPACITY: usize = 64 * SECTOR_BYTES;

fn log(faults: DiskFaults) -> IdealLog {
    IdealLog::new(CAPACITY, faults, Prng::from_seed(1))
}

fn torn(torn: f64) -> DiskFaults {
    DiskFaults { torn, ..DiskFaults::default() }
}

fn sync_error() -> DiskFaults {
    DiskFaults { sync_error: 1.0, ..DiskFaults::default() }
}

fn reopen(log: &mut IdealLog) -> Vec<Vec<u8>> {
    log.reopen().map(<[u8]>::to_vec).collect()
}

fn records(log: &IdealLog) -> Vec<Vec<u8>> {
    log.records().map(<[u8]>::to_vec).collect()
}

#[test]
fn positions_count_from_1_and_a_sync_says_how_far() {
    let mut log = log(torn(1.0));
    assert_eq!(log.sync(), Ok(0));
    assert_eq!(log.append(b"first"), Ok(1));
    assert_eq!(log.append(b""), Ok(2));
    assert_eq!((log.last(), log.durable(), log.records().len()), (2, 0, 0));
    assert_eq!(log.sync(), Ok(2));
    assert_eq!(log.append(b"third"), Ok(3));
    assert_eq!(records(&log), [b"first".to_vec(), b"".to_vec()], "only durable ones");
    assert_eq!([0, 1, 2, 3].map(|position| log.is_durable(position)), [false, true, true, false]);
    assert_eq!(log.bytes(), 3 * 12 + 10);
}

#[test]
fn a_crash_that_tears_everything_leaves_what_was_synced() {
    for seed in 0..200 {
        let mut log = log(torn(1.0));
        log.append(b"kept").unwrap();
        log.sync().unwrap();
        log.append(b"lost").unwrap();
        log.crash(&mut Prng::from_seed(seed));
        assert_eq!(records(&log), [b"kept"], "checkers may look before it is reopened");
        assert_eq!(reopen(&mut log), [b"kept"]);
        assert_eq!(log.append(b"next"), Ok(2));
        assert_eq!(log.take_injected(), [Injected::Lost { sector: 0 }]);
    }
}

/// Three unsynced records of a sector and more each: any number of them may survive.
#[test]
fn every_prefix_may_survive_a_crash() {
    let mut survived = [0; 4];
    for seed in 0..1000 {
        let mut log = log(torn(0.5));
        (0..3).for_each(|record| assert!(log.append(&[record; SECTOR_BYTES]).is_ok()));
        log.crash(&mut Prng::from_seed(seed));
        survived[log.reopen().len()] += 1;
        assert_eq!(log.durable(), log.last(), "all that survived is durable");
    }
    assert!(survived.iter().all(|&count| count > 20), "{survived:?}");
}

#[test]
fn a_failed_sync_poisons_the_log_until_it_is_reopened() {
    let mut log = log(DiskFaults::default());
    log.append(b"kept").unwrap();
    log.sync().unwrap();
    log.append(b"in doubt").unwrap();
    log.set_faults(sync_error());
    assert_eq!(log.sync(), Err(LogError::Sync));
    assert!(log.is_poisoned());
    log.set_faults(torn(1.0));
    assert_eq!(log.append(b"refused"), Err(LogError::Poisoned));
    assert_eq!(log.sync(), Err(LogError::Poisoned), "a sync that would succeed says nothing");
    assert_eq!(records(&log), [b"kept"]);
    log.crash(&mut Prng::from_seed(1));
    assert_eq!(reopen(&mut log), [b"kept"]);
    assert_eq!(log.append(b"next"), Ok(2));
}

/// The process restarts, the machine doesn't: a record that a failed sync gave up is durable after the next one
/// that succeeds, not before.
#[test]
fn a_log_reopened_without_a_crash_has_everything_and_promises_no_more() {
    for seed in 0..100 {
        let mut log = log(DiskFaults::default());
        log.append(b"in doubt").unwrap();
        log.set_faults(sync_error());
        log.sync().unwrap_err();
        assert_eq!(reopen(&mut log), [b"in doubt"]);
        assert_eq!((log.last(), log.durable()), (1, 0));
        log.set_faults(torn(1.0));
        let mut synced = log.clone();
        log.crash(&mut Prng::from_seed(seed));
        assert_eq!(reopen(&mut log), [b""; 0]);
        assert_eq!(synced.sync(), Ok(1));
        synced.crash(&mut Prng::from_seed(seed));
        assert_eq!(reopen(&mut synced), [b"in doubt"]);
    }
}

#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    let mut log = IdealLog::new(SECTOR_BYTES, torn(1.0), Prng::from_seed(1));
    assert_eq!(log.append(&[1; SECTOR_BYTES]), Err(LogError::Full));
    assert_eq!(log.append(&[1; SECTOR_BYTES - 24]), Ok(1));
    assert_eq!(log.append(b"x"), Err(LogError::Full));
    assert_eq!(log.append(b""), Ok(2), "exactly full");
    assert_eq!(log.sync(), Ok(2));
    log.crash(&mut Prng::from_seed(1));
    assert_eq!(log.reopen().len(), 2);
    log.wipe();
    assert_eq!(log.reopen().len(), 0);
    log.set_faults(DiskFaults { full: 1.0, ..DiskFaults::default() });
    assert_eq!(log.append(b"x"), Err(LogError::Full));
    assert_eq!((log.last(), log.take_injected()), (0, vec![Injected::Full]));
}

/// A torn record, then a shorter log over it: the old record's second sector must not complete the new one's
/// first, nor may the old one reappear behind a new one of the same bytes.
#[test]
fn what_was_cut_never_comes_back() {
    for seed in 0..3000 {
        let mut prng = Prng::from_seed(seed);
        let mut log = log(torn(0.5));
        let mut lineage = 0;
        for round in 0..4 {
            // Only the first bytes say which round wrote it: the rest would complete any other round's.
            let mut record = vec![b'x'; SECTOR_BYTES / 2];
            record[0] = round;
            let before = log.last();
            (0..4).for_each(|_| assert!(log.append(&record).is_ok()));
            log.crash(&mut prng);
            let survivors = reopen(&mut log);
            let rounds: Vec<u8> = survivors.iter().map(|record| record[0]).collect();
            assert!(
                survivors.len() >= lineage && survivors.len() as u64 <= before + 4,
                "seed {seed}: {rounds:?}"
            );
            assert!(rounds[before as usize..].iter().all(|&wrote| wrote == round), "seed {seed}: {rounds:?}");
            lineage = survivors.len();
        }
    }
}

#[test]
fn an_older_image_takes_the_log_back() {
    let mut log = log(torn(1.0));
    log.append(b"old").unwrap();
    log.sync().unwrap();
    log.append(b"unsynced").unwrap();
    let image = log.image();
    log.append(b"new").unwrap();
    log.sync().unwrap();
    log.restore(&image);
    assert_eq!((log.durable(), records(&log)), (1, vec![b"old".to_vec()]));
    assert_eq!(reopen(&mut log), [b"old"]);
    assert_eq!(log.append(b"other"), Ok(2));
    log.sync().unwrap();
    log.crash(&mut Prng::from_seed(1));
    log.wipe();
    assert_eq!((log.durable(), log.bytes()), (0, 0));
    assert_eq!(reopen(&mut log), [b""; 0]);
    assert_eq!(log.append(b"fresh"), Ok(1));
}

#[test]
#[should_panic = "reopened after a crash"]
fn a_crashed_log_is_reopened_first() {
    let mut log = log(DiskFaults::default());
    log.crash(&mut Prng::from_seed(1));
    let _ = log.append(b"too soon");
}

#[test]
#[should_panic = "doesn't corrupt"]
fn corruption_is_not_for_this_log() {
    log(DiskFaults { write_corrupt: 0.1, ..DiskFaults::default() });
}

#[derive(Clone, Debug)]
enum Step {
    Append { len: usize, byte: u8 },
    Sync,
    Crash,
    Restart,
    Image,
    Restore,
    Wipe,
}

/// Few lengths and bytes, so that what is written often equals what was cut.
fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![Just(0), Just(300), Just(SECTOR_BYTES - 12), Just(5000), 0..9000usize];
    prop_oneof![
        12 => (len, 0..2u8).prop_map(|(len, byte)| Step::Append { len, byte }),
        4 => Just(Step::Sync),
        4 => Just(Step::Crash),
        1 => Just(Step::Restart),
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
    #[test]
    fn the_log_agrees_with_a_list(
        steps in proptest::collection::vec(step(), 1..80),
        seed: u64,
        torn in 0.0..=1.0,
        sync_error in prop_oneof![Just(0.0), 0.0..0.5],
        full in prop_oneof![Just(0.0), 0.0..0.5],
    ) {
        let mut prng = Prng::from_seed(seed);
        let faults = DiskFaults { torn, sync_error, full, ..DiskFaults::default() };
        let mut log = IdealLog::new(CAPACITY, faults, prng.split());
        let mut model = Model::default();
        let (mut image, mut imaged) = (log.image(), Model::default());
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Append { len, byte } => {
                    // Its first byte is its own, so that none is taken for another.
                    let mut record = vec![byte; len];
                    record.iter_mut().take(1).for_each(|first| *first = number as u8);
                    match log.append(&record) {
                        Ok(position) => {
                            model.records.push(record);
                            prop_assert_eq!(position, model.records.len() as u64);
                        }
                        Err(LogError::Full) => prop_assert!(full > 0.0 || log.bytes() + len + 12 > CAPACITY),
                        Err(error) => prop_assert!(error == LogError::Poisoned && log.is_poisoned()),
                    }
                }
                Step::Sync => match log.sync() {
                    Ok(durable) => {
                        model.durable = model.records.len();
                        prop_assert_eq!(durable, model.durable as u64);
                    }
                    Err(_) => prop_assert!(sync_error > 0.0 && log.is_poisoned()),
                },
                Step::Crash => {
                    log.crash(&mut prng);
                    prop_assert_eq!(records(&log), &model.records[..model.durable]);
                    model.recover(&reopen(&mut log));
                }
                Step::Restart => prop_assert_eq!(reopen(&mut log), &model.records[..]),
                Step::Image => {
                    image = log.image();
                    imaged = Model { records: model.records[..model.durable].to_vec(), durable: model.durable };
                }
                Step::Restore => {
                    log.restore(&image);
                    model = imaged.clone();
                    prop_assert_eq!(reopen(&mut log), &model.records[..]);
                }
                Step::Wipe => {
                    log.wipe();
                    model = Model::default();
                    prop_assert_eq!(reopen(&mut log).len(), 0);
                }
            }
            prop_assert_eq!(records(&log), &model.records[..model.durable]);
            prop_assert_eq!(log.last(), model.records.len() as u64);
        }
    }
}
