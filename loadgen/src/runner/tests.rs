//! Whole runs, against a map in memory that can be told to misbehave.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use bytes::Bytes;
use ringmain::prng::Prng;

use crate::audit::InDoubt;
use crate::inject::{Act, Deed, Done};
use crate::key_names::KeyNames;
use crate::keys::{Keys, Popularity};
use crate::ledger::Consistency;
use crate::lifetimes::Lifetimes;
use crate::operation::Key;
use crate::profile::{Phases, Profile};
use crate::rate::Rate;
use crate::record::Phase;
use crate::schedule::{Arrivals, Schedule};
use crate::tally::{Latency, Percentile};
use crate::target::{Applied, Trouble};
use crate::workload::Workload;

use super::*;

/// A store of one thread. Behaviour is set before the run.
#[derive(Clone, Default)]
struct Map {
    values: Rc<RefCell<HashMap<Bytes, Bytes>>>,
    /// Every so many puts, one is acknowledged and forgotten.
    drop_every: Option<u64>,
    puts: Rc<Cell<u64>>,
    /// Answers come so late.
    delay: Duration,
    /// The first answer of all comes so late.
    stall: Duration,
    stalled: Rc<Cell<bool>>,
    /// From and until then, counted from the first request, nothing is answered.
    silent: Option<[Duration; 2]>,
    first: Rc<Cell<Option<Instant>>>,
    refuses: bool,
}

impl Map {
    async fn pause(&self) -> Result<(), Trouble> {
        if self.refuses {
            return Err(Trouble {
                failure: Failure::Overloaded,
                applied: Applied::No,
                code: String::new(),
                reason: "full".to_owned(),
            });
        }
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        let first = self.first.get().unwrap_or_else(Instant::now);
        self.first.set(Some(first));
        if let Some([from, until]) = self.silent
            && (from..until).contains(&first.elapsed())
        {
            tokio::time::sleep_until(first + until).await;
        }
        if !self.stalled.replace(true) {
            // Blocks the thread on purpose: a generator that waits with its server must not hide the stall.
            thread::sleep(self.stall);
        }
        Ok(())
    }
}

impl Target for Map {
    async fn get(&self, key: Bytes) -> Result<Option<Bytes>, Trouble> {
        self.pause().await?;
        Ok(self.values.borrow().get(&key).cloned())
    }

    async fn put(&self, key: Bytes, value: Bytes, _: Option<Duration>) -> Result<(), Trouble> {
        self.pause().await?;
        self.puts.set(self.puts.get() + 1);
        if self.drop_every.is_none_or(|every| !self.puts.get().is_multiple_of(every)) {
            self.values.borrow_mut().insert(key, value);
        }
        Ok(())
    }

    async fn delete(&self, key: Bytes) -> Result<(), Trouble> {
        self.pause().await?;
        self.values.borrow_mut().remove(&key);
        Ok(())
    }
}

const KEYS: u64 = 20;

fn workload(rate: &str, millis: u64, number_first: u64) -> Workload {
    let mut prng = Prng::from_seed(4);
    let rate: Rate = rate.parse().expect("a rate");
    Workload::new(
        Schedule::new(Profile::steady(rate, Duration::from_millis(millis)), Arrivals::Fixed, prng.split()),
        "read=50,write=45,delete=5".parse().expect("a mix"),
        Keys::new(KEYS, Popularity::Zipf, 0.99, 0),
        "100".parse().expect("sizes"),
        Lifetimes::default(),
        prng.split(),
        number_first,
    )
}

fn preloaded(key: u64) -> Preload {
    Preload { key: Key(key), value_len: 100, lifetime: None }
}

fn runner(map: Map) -> Runner<Map> {
    runner_with(map, Limits::IN_FLIGHT_DEFAULT)
}

fn runner_with(map: Map, in_flight_max: usize) -> Runner<Map> {
    let (consistency, timeout) = (Consistency::Strict, Duration::from_secs(1));
    let names = KeyNames::default();
    let rules = Rules {
        keys: 0..KEYS,
        names,
        length_min: 100,
        run_tag: 9,
        consistency,
        in_doubt: InDoubt::UpTo(timeout * 2),
        may_evict: false,
    };
    Runner::new(
        map,
        rules,
        Limits {
            in_flight_max,
            beyond: Beyond::Fail,
            spin: Pacer::SPIN_DEFAULT,
            interval_s: 1,
            unpaced: false,
        },
        Record::default(),
    )
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, future)
}

fn run(map: Map, rate: &str, millis: u64) -> Finished {
    let stop = Arc::new(AtomicBool::new(false));
    block_on(runner(map).run(workload(rate, millis, 0), Incidents::none(), stop, drop))
}

#[test]
fn a_sound_store_passes_with_every_operation_counted() {
    let finished = run(Map::default(), "5k/s", 400);
    let total = finished.record.total();
    assert_eq!((total.operations(), total.errors()), (2000, 0), "{:?}", finished.complaints);
    assert_eq!((finished.offered.handed, finished.offered.refused), (2000, 0));
    assert!(!finished.record.has_after());
}

#[test]
fn a_store_that_drops_writes_is_found_out() {
    let finished = run(Map { drop_every: Some(10), ..Map::default() }, "5k/s", 400);
    let lost = finished.record.total().failed(Failure::Lost);
    assert!(lost > 10, "{lost} lost");
    assert!(!finished.complaints.is_empty());
}

#[test]
fn a_replay_waits_for_a_slow_store_and_loses_nothing() {
    let map = Map { delay: Duration::from_millis(20), ..Map::default() };
    let mut runner = runner_with(map, 4);
    runner.limits.beyond = Beyond::Wait;
    let stop = Arc::new(AtomicBool::new(false));
    let finished = block_on(runner.run(workload("2k/s", 200, 0), Incidents::none(), stop, drop));
    let total = finished.record.total();
    assert_eq!((total.operations(), total.errors(), finished.offered.refused), (400, 0, 0));
    assert!(finished.offered.held_up_ns > 0);
    assert_eq!(finished.offered.shortfall(None), None, "the store was slow, not the generator");
}

/// How many operations took this long or longer.
fn no_quicker(histogram: &hdrhistogram::Histogram<u64>, millis: u64) -> u64 {
    histogram.count_between(millis * 1_000_000, histogram.high())
}

/// The generator itself stands still for 100 ms, as its server blocks it. What was due meanwhile is sent when it is over, and
/// answered at once: from sending, one operation was slow; from the due moments, a hundred were.
#[test]
fn a_stall_is_charged_from_the_due_moment() {
    let finished = run(Map { stall: Duration::from_millis(100), ..Map::default() }, "1k/s", 400);
    let total = finished.record.total();
    let [due, service] = [total.due_histogram(), total.service_histogram()].map(|it| no_quicker(it, 50));
    assert!(due >= 45, "half of the hundred that were due waited 50 ms or more: {due} did");
    assert!(service <= 5, "few took so long from sending: {service} did");
}

/// A server that answers nothing for 300 ms holds up 300 operations, evenly by 0 to 300 ms. A closed loop would have
/// counted one.
#[test]
fn a_server_that_stalls_is_charged_for_all_that_was_due() {
    let silent = Some([300, 600].map(Duration::from_millis));
    let finished = run(Map { silent, ..Map::default() }, "1k/s", 1000);
    let due = finished.record.total().due_histogram().clone();
    for (millis, expected) in [(200, 100), (100, 200)] {
        let held_up = no_quicker(&due, millis);
        // Up to the stall, the others take no time, unless this machine itself has none.
        assert!((expected - 20..expected + 60).contains(&held_up), "{held_up} took {millis} ms or more");
    }
    assert!(due.max() >= 280_000_000, "{}", due.max());
}

#[test]
fn beyond_what_may_be_in_flight_nothing_is_sent() {
    let map = Map { delay: Duration::from_millis(50), ..Map::default() };
    let stop = Arc::new(AtomicBool::new(false));
    let run = runner_with(map, 16).run(workload("2k/s", 200, 0), Incidents::none(), stop, drop);
    let finished = block_on(run);
    let total = finished.record.total();
    assert_eq!(total.operations(), 400);
    assert!(total.failed(Failure::Unsent) > 200, "{}", total.failed(Failure::Unsent));
    assert_eq!(finished.offered.refused, 0, "the generator itself was not at fault");
}

#[test]
fn an_incident_begins_the_second_phase_and_lines_are_told() {
    let stop = Arc::new(AtomicBool::new(false));
    let incident = tokio::time::Duration::from_millis(600);
    let mut lines = 0;
    let finished = block_on(async {
        let deed = Deed { at: incident, act: Act::Kill, node: 1 };
        let incidents = Incidents::new(|done| async move {
            tokio::time::sleep(incident).await;
            done.send(Done { deed, at: Moment::now() }).expect("the run goes on");
        });
        runner(Map::default()).run(workload("1k/s", 1200, 0), incidents, stop, |_| lines += 1).await
    });
    assert_eq!(lines, 1);
    let [before, after] = Phase::ALL.map(|phase| finished.record.phase(phase).operations());
    assert_eq!(before + after, 1200);
    assert!((100..1100).contains(&before), "{before} before");
    assert_eq!(finished.marks.len(), 1);
    assert!((0.5..1.2).contains(&finished.marks[0].at_s), "{:?}", finished.marks);
}

#[test]
fn preloaded_keys_are_found() {
    let finished = block_on(async {
        let mut runner = runner(Map::default());
        let number = runner.preload((0..KEYS).map(preloaded)).await.expect("a healthy store");
        assert_eq!(number, KEYS);
        let reads =
            workload("2k/s", 100, number).map(|operation| Operation { kind: Kind::Read, ..operation });
        runner.run(reads, Incidents::none(), Arc::new(AtomicBool::new(false)), drop).await
    });
    let reads = finished.record.kind(Kind::Read);
    assert_eq!((reads.operations(), reads.not_found(), reads.errors()), (200, 0, 0));
}

#[test]
fn a_refusing_store_fails_the_preload() {
    let mut runner = runner(Map { refuses: true, ..Map::default() });
    let error = block_on(runner.preload([preloaded(1)])).expect_err("all puts are refused");
    assert_eq!(
        error.to_string(),
        "1 of 1 preloading writes failed: is the cluster healthy? overloaded, the first time: full"
    );
}

/// With everything due at once, a due moment means nothing: latencies count from sending, and the generator isn't late.
#[test]
fn an_unpaced_run_goes_as_fast_as_answers_come() {
    let finished = block_on(async {
        let mut runner = runner_with(Map { delay: Duration::from_millis(2), ..Map::default() }, 16);
        (runner.limits.beyond, runner.limits.unpaced) = (Beyond::Wait, true);
        let at_once = workload("2k/s", 400, 0).map(|operation| Operation { due_ns: 0, ..operation });
        runner.run(at_once, Incidents::none(), Arc::new(AtomicBool::new(false)), drop).await
    });
    let total = finished.record.total();
    assert_eq!((total.operations(), total.errors()), (800, 0), "{:?}", finished.complaints);
    assert_eq!(finished.offered.shortfall(None), None);
    let Latency::Ns(median_ns) = total.due(Percentile::P50) else { panic!("there are successes") };
    // 800 operations, 16 at a time, take 50 rounds of 2 ms: from the start, the median would be 50 ms.
    assert!((2_000_000..25_000_000).contains(&median_ns), "{median_ns}");
}

/// The intervals hold what the record holds, but for warm-up.
#[test]
fn a_run_is_recorded_second_by_second() {
    let phases: Phases = "warmup 1k 300ms, steady 1k 1900ms".parse().expect("phases");
    let profile = phases.profile("1/s".parse().expect("a rate"));
    let finished = block_on(async {
        let mut runner = runner(Map::default());
        runner.record = Record::new(&profile);
        let stop = Arc::new(AtomicBool::new(false));
        runner.run(workload("1k/s", 2200, 0), Incidents::none(), stop, drop).await
    });
    let counted: u64 = finished.intervals.iter().map(|interval| interval.operations).sum();
    assert_eq!((counted, finished.record.total().operations()), (1900, 1900));
    assert_eq!(finished.record.whole().operations(), 2200);
    let lengths: Vec<f64> = finished.intervals.iter().map(|interval| interval.length_s).collect();
    assert!(lengths.len() == 3 && (0.9..1.1).contains(&lengths[1]), "{lengths:?}");
}

#[test]
fn a_raised_stop_ends_the_run_early() {
    let finished = block_on(async {
        let stop = Arc::new(AtomicBool::new(false));
        let raiser = Arc::clone(&stop);
        let incidents = Incidents::new(|_| async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            raiser.store(true, Ordering::Relaxed);
        });
        runner(Map::default()).run(workload("1k/s", 60_000, 0), incidents, stop, drop).await
    });
    assert!(finished.offered.interrupted);
    assert!(finished.record.total().operations() < 1000);
}

/// Not a promise but a measurement: `cargo test --release -p loadgen adds -- --ignored --nocapture`.
#[test]
#[ignore = "measures this machine for some seconds: cargo test --release -p loadgen -- --ignored"]
fn what_the_generator_itself_adds() {
    for rate in ["579/s", "11574/s", "100k/s", "400k/s"] {
        let finished = run(Map::default(), rate, 3000);
        let total = finished.record.total();
        let [p50, p99, p999] =
            [Percentile::P50, Percentile::P99, Percentile::P999].map(|percentile| total.due(percentile));
        let late = [Percentile::P50, Percentile::P99].map(|percentile| finished.offered.lateness(percentile));
        let (offered, shortfall) = (finished.offered.per_second(), finished.offered.shortfall(None));
        println!(
            "{rate}: {offered:.0}/s offered, due p50 {p50:?} p99 {p99:?} p99.9 {p999:?}, late {late:?} {shortfall:?}"
        );
    }
}
