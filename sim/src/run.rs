//! One seed, from its plan to the verdict.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ringmain::failpoint::{Bug, Rare};
use ringmain::time::Duration;

use crate::checkers::{Promise, Violation};
use crate::cut::Cut;
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
    /// How many there were.
    pub events: u64,
    /// How long it lasted by its own clock.
    pub lasted: Duration,
    /// How often each rare state was reached.
    pub reached: [u32; Rare::ALL.len()],
    /// Operations of its clients.
    pub operations: usize,
}

/// Run one seed.
pub fn run(seed: u64, options: &Options) -> Report {
    let plan = Plan::draw(seed, &options.cut);
    let finished = catch_unwind(AssertUnwindSafe(|| run_plan(plan, options)));
    finished.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it did not say why");
        let violation = Violation {
            promise: Promise::NoPanic,
            key: None,
            sentence: format!("something panicked: {said}"),
            operations: Vec::new(),
        };
        Report {
            seed,
            violation: Some(violation),
            story: String::new(),
            hash: 0,
            events: 0,
            lasted: Duration::ZERO,
            reached: [0; Rare::ALL.len()],
            operations: 0,
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
        events: world.events,
        lasted: Duration(world.now.0),
        reached: world.meddler.reached(),
        operations: world.history.iter().len(),
    }
}
