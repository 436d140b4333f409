//! One seed, from its plan to the verdict.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ringmain::failpoint::{Bug, Rare};
use ringmain::time::Duration;
use xxhash_rust::xxh3::Xxh3;

use crate::checkers::{Promise, Violation};
use crate::cut::{Cut, Fault};
use crate::history::{Call, History, Outcome};
use crate::plan::Plan;
use crate::world::World;

/// What a run is asked for beside its seed.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A bug to plant.
    pub planted: Option<Bug>,
    /// What to leave out.
    pub cut: Cut,
    /// Print each event.
    pub trace: bool,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// The promise that was broken, if one was.
    pub violation: Option<Violation>,
    /// The shortest history that shows it.
    pub story: String,
    /// Over all events: two runs with the same hash are the same run.
    pub hash: u64,
    /// Over what the clients were told, but for what may depend on wall clocks.
    pub told: u64,
    /// How many events there were.
    pub events: u64,
    /// How long it lasted by its own clock.
    pub lasted: Duration,
    /// How often each rare state was reached.
    pub reached: [u32; Rare::ALL.len()],
    /// How its clients' operations ended: answered reads, acknowledged writes, refusals, doubts.
    pub outcomes: [usize; 4],
}

/// One seed of a hundred is run twice, to see that it takes the same course.
const REPLAY_EVERY: u64 = 100;
/// One of so many, where clocks jump, is run again without the jumps.
const CLOCKS_EVERY: u64 = 20;

/// Run one seed and, for some, what else there is to check: that it replays to the bit, and P14. `number` counts the
/// seeds of a batch.
pub fn run_checked(seed: u64, number: u64, options: &Options) -> Report {
    let mut report = run(seed, options);
    if report.violation.is_none() && number.is_multiple_of(REPLAY_EVERY) {
        let again = run(seed, options);
        if (again.hash, again.events, &again.told) != (report.hash, report.events, &report.told) {
            report.violation = Some(plain(Promise::Replay, "the same seed took another course"));
        }
    }
    if report.violation.is_none() && number % CLOCKS_EVERY == 1 {
        report.violation = check_clocks(&report, options);
    }
    report
}

/// P14: wall clocks that jump change no outcome but expiry and the pick among concurrent versions.
fn check_clocks(report: &Report, options: &Options) -> Option<Violation> {
    if !Plan::draw(report.seed, &options.cut).compares_clocks() {
        return None;
    }
    let mut steady = options.clone();
    steady.cut.without.insert(Fault::ClockJump);
    let again = run(report.seed, &steady);
    (again.told != report.told)
        .then(|| plain(Promise::Clocks, "clients were told something else without the jumps of wall clocks"))
}

fn plain(promise: Promise, sentence: &str) -> Violation {
    Violation { promise, key: None, sentence: sentence.to_owned(), operations: Vec::new() }
}

/// Run one seed.
pub fn run(seed: u64, options: &Options) -> Report {
    let plan = Plan::draw(seed, &options.cut);
    let finished = catch_unwind(AssertUnwindSafe(|| run_plan(plan, options)));
    finished.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it did not say why");
        let violation = plain(Promise::NoPanic, &format!("something panicked: {said}"));
        Report {
            seed,
            violation: Some(violation),
            story: String::new(),
            hash: 0,
            told: 0,
            events: 0,
            lasted: Duration::ZERO,
            reached: [0; Rare::ALL.len()],
            outcomes: [0; 4],
        }
    })
}

fn run_plan(plan: Plan, options: &Options) -> Report {
    let seed = plan.seed;
    let mut world = World::new(plan, options.planted, options.trace);
    world.run();
    let violation = world.violation.take().or_else(|| world.check());
    Report {
        seed,
        story: violation.as_ref().map(|violation| world.story(violation)).unwrap_or_default(),
        violation,
        hash: world.hash,
        told: told(&world.history),
        events: world.events,
        lasted: Duration(world.now.0),
        reached: world.meddler.reached(),
        outcomes: outcomes(&world.history),
    }
}

/// A hash over what the clients were told. Which of several versions is the latest depends on clocks.
fn told(history: &History) -> u64 {
    let mut hasher = Xxh3::new();
    for (_, operation) in history.iter() {
        let latest = matches!(operation.call, Call::Get { latest: true, .. });
        match &operation.outcome {
            Outcome::Got(reading) if latest => hasher.update(&[0, u8::from(reading.values.is_empty())]),
            Outcome::Got(reading) => {
                hasher.update(&[1, reading.nodes]);
                reading.values.iter().for_each(|value| hasher.update(value));
            }
            Outcome::Stored => hasher.update(&[2]),
            Outcome::Failed(code) => hasher.update(&[3, code.0]),
            Outcome::Unknown => hasher.update(&[4]),
        }
    }
    hasher.digest()
}

fn outcomes(history: &History) -> [usize; 4] {
    let mut counts = [0; 4];
    for (_, operation) in history.iter() {
        counts[match operation.outcome {
            Outcome::Got(_) => 0,
            Outcome::Stored => 1,
            Outcome::Failed(_) => 2,
            Outcome::Unknown => 3,
        }] += 1;
    }
    counts
}
