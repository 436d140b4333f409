//! `cargo run --release -p ringmain-sim -- --seeds 1000`: run seeds, replay one, or look for planted bugs.

#![allow(
    clippy::disallowed_methods,
    reason = "to say how fast the runs were, and to begin a soak somewhere new"
)]

mod verdict;

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use mimalloc::MiMalloc;
use ringmain_sim::cut::Cut;
use ringmain_sim::jobs::{Batch, run_batch};
use ringmain_sim::planted::{PLANTED, Planted, WAITING, by_name};
use ringmain_sim::run::{Options, run_checked};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// A whole cluster on one thread, under every fault, thousands of times over.
///
/// Exits with 0 if every promise held (or every planted bug was found), with 1 if not.
#[derive(Debug, Parser)]
#[command(name = "ringmain-sim", version)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// Where to begin: seeds of one base follow one another, those of two bases are far apart.
    #[arg(long, default_value_t = 0)]
    base: u64,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Run this seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Print every event of the seed.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Leave things out of each run, such as "loss,crash;operations=120;deeds=3,7".
    #[arg(long, default_value = "")]
    cut: Cut,
    /// Plant a bug by its name, or all in turn, and look how soon it is found. "list" lists them.
    #[arg(long)]
    planted: Option<String>,
    /// Look for a planted bug from so many bases, and take the median.
    #[arg(long, default_value_t = 1)]
    bases: u64,
    /// Run new seeds for so many minutes instead.
    #[arg(long)]
    minutes: Option<u64>,
    /// Don't look for a smaller run that fails.
    #[arg(long)]
    no_shrink: bool,
}

/// Seeds of one base.
const BASE: u64 = 1_000_000_000;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // A panic in a run is a finding, told with its seed; not a word in between.
    std::panic::set_hook(Box::new(|_| ()));
    let is_good = match (&arguments.planted, arguments.seed) {
        (Some(name), None) => look_for(name, &arguments),
        (planted, Some(seed)) => replay(seed, planted.as_deref(), &arguments),
        (None, None) => run_seeds(&arguments),
    };
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_seeds(arguments: &Arguments) -> bool {
    let options = Options { cut: arguments.cut.clone(), ..Options::default() };
    let mut batch = Batch {
        first: arguments.base * BASE,
        seeds: arguments.seeds,
        until: None,
        jobs: arguments.jobs,
        stop_at_violation: false,
    };
    if let Some(minutes) = arguments.minutes {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        batch.first = since.as_secs() * BASE;
        (batch.seeds, batch.until) = (u64::MAX, Some(Instant::now() + Duration::from_secs(60 * minutes)));
        println!("from seed {}", batch.first);
    }
    let tally = run_batch(&batch, &options);
    verdict::tell_failures(&tally, &options, !arguments.no_shrink);
    verdict::tell_tally(&tally);
    tally.violations == 0
}

fn replay(seed: u64, planted: Option<&str>, arguments: &Arguments) -> bool {
    let bug = planted.map(|name| by_name(name).map(|planted| planted.bug));
    if bug == Some(None) {
        return unknown(planted.unwrap_or_default());
    }
    let options = Options { planted: bug.flatten(), cut: arguments.cut.clone(), trace: arguments.trace };
    // The first of a batch is one of those that are run twice, the second one of those compared without jumps.
    let first = run_checked(seed, 0, &options);
    let report =
        if first.violation.is_some() || options.trace { first } else { run_checked(seed, 1, &options) };
    verdict::tell_report(&report, &options);
    report.violation.is_none()
}

fn look_for(name: &str, arguments: &Arguments) -> bool {
    match name {
        "list" => {
            PLANTED.iter().for_each(verdict::tell_planted);
            WAITING.iter().for_each(|waiting| println!("{}: waits for {}", waiting.bug, waiting.until));
            true
        }
        "all" => {
            let found: Vec<bool> =
                PLANTED.iter().map(|planted| look_for_one(planted, arguments, false)).collect();
            WAITING.iter().for_each(|waiting| println!("{}: waits for {}", waiting.bug, waiting.until));
            let count = found.iter().filter(|found| **found).count();
            println!("planted {}, found in time {count}", found.len());
            count == found.len()
        }
        name => match by_name(name) {
            Some(planted) => look_for_one(planted, arguments, !arguments.no_shrink),
            None => unknown(name),
        },
    }
}

fn unknown(name: &str) -> bool {
    println!("no bug is called '{name}'; `--planted list` lists them");
    false
}

/// Median over bases at most the stated number, or, from one base, within three times as many. `tells`: also the least of
/// the first run that fails, and how to see it again.
fn look_for_one(planted: &Planted, arguments: &Arguments, tells: bool) -> bool {
    let options = Options { planted: Some(planted.bug), cut: arguments.cut.clone(), trace: false };
    let most = 3 * planted.seeds;
    let mut counts = Vec::new();
    for base in arguments.base..arguments.base + arguments.bases {
        // One thread: the first seed that fails counts, not the first to be done.
        let first = base * BASE;
        let batch = Batch { first, seeds: most, until: None, jobs: 1, stop_at_violation: true };
        let tally = run_batch(&batch, &options);
        let found = tally.failed.first();
        verdict::tell_search(planted, found, tally.seeds, &options);
        if let Some(report) = found.filter(|_| tells && base == arguments.base) {
            verdict::tell_shrunk(report, &options);
        }
        let expected = found.and_then(|report| report.violation.as_ref());
        let is_found = expected.is_some_and(|violation| planted.breaks.contains(&violation.promise));
        counts.push(if is_found { tally.seeds } else { u64::MAX });
    }
    counts.sort_unstable();
    let median = counts[counts.len() / 2];
    let limit = if arguments.bases > 1 { planted.seeds } else { most };
    let is_good = median <= limit;
    if arguments.bases > 1 {
        let median = if median == u64::MAX { "not found".to_owned() } else { median.to_string() };
        println!(
            "{}: median {median} of {} seeds: {}",
            planted.name,
            planted.seeds,
            if is_good { "met" } else { "missed" }
        );
    }
    is_good
}
