//! What is told at the end.

use ringmain::failpoint::Rare;
use ringmain_sim::checkers::Promise;
use ringmain_sim::cut::Cut;
use ringmain_sim::jobs::Tally;
use ringmain_sim::planted::{PLANTED, Planted};
use ringmain_sim::run::{Options, Report};
use ringmain_sim::shrink::shrink;

/// Failures that are told one by one.
const TOLD_MAX: usize = 10;

/// Each failure, the first of them shrunk.
pub(crate) fn tell_failures(tally: &Tally, options: &Options, shrinks: bool) {
    for (number, report) in tally.failed.iter().take(TOLD_MAX).enumerate() {
        if number == 0 && shrinks {
            tell_shrunk(report, options);
        } else {
            tell_report(report, options);
        }
    }
}

/// The least of a run that breaks the same promise.
pub(crate) fn tell_shrunk(report: &Report, options: &Options) {
    if !report.violation.as_ref().is_some_and(|violation| is_shrinkable(violation.promise)) {
        return tell_report(report, options);
    }
    let shrunk = shrink(report, options);
    println!("seed {}: shrunk in {} runs", report.seed, shrunk.runs);
    tell_report(&shrunk.report, &Options { cut: shrunk.cut, ..options.clone() });
}

/// A second run is what shows these.
fn is_shrinkable(promise: Promise) -> bool {
    !matches!(promise, Promise::Replay | Promise::Clocks)
}

/// The promise that was broken, the history that shows it, and how to see it again.
pub(crate) fn tell_report(report: &Report, options: &Options) {
    match &report.violation {
        None => println!("seed {}: every promise held; hash {:016x}", report.seed, report.hash),
        Some(violation) => {
            println!("seed {}: {} is broken: {}", report.seed, violation.promise, violation.sentence);
            if !report.story.is_empty() {
                println!("{}", report.story);
            }
            println!("replay: {}", command(report.seed, options));
        }
    }
}

fn command(seed: u64, options: &Options) -> String {
    let cut = &options.cut;
    let cut = if *cut == Cut::default() { String::new() } else { format!(" --cut '{cut}'") };
    let planted = PLANTED.iter().find(|planted| options.planted == Some(planted.bug));
    let planted = planted.map_or_else(String::new, |planted| format!(" --planted {}", planted.name));
    format!("cargo run --release -p ringmain-sim -- --seed {seed}{planted}{cut} --trace")
}

/// Rare states that were not reached often enough, and the one line that sums it all up.
pub(crate) fn tell_tally(tally: &Tally) {
    let [read, stored, failed, unknown] = tally.outcomes;
    println!(
        "operations: {read} reads answered, {stored} writes acknowledged, {failed} refused, {unknown} in doubt; {} events",
        tally.events
    );
    for (state, seeds) in Rare::ALL.iter().zip(tally.reached) {
        println!("reached in {:5.1}% of seeds: {state:?}", 100.0 * seeds as f64 / tally.seeds.max(1) as f64);
    }
    for state in tally.too_rare() {
        println!("NOT reached in 0.1% of seeds: {state:?}");
    }
    println!(
        "seeds {}, violations {}, seeds/h {:.0}, virtual/real {:.0}",
        tally.seeds,
        tally.violations,
        tally.seeds_an_hour(),
        tally.speed()
    );
}

/// A planted bug in a line.
pub(crate) fn tell_planted(planted: &Planted) {
    let breaks: Vec<_> = planted.breaks.iter().map(ToString::to_string).collect();
    println!(
        "{} ({}): within {} seeds, seen by {}",
        planted.name,
        planted.shipped,
        planted.seeds,
        breaks.join(", ")
    );
}

/// How the search for a planted bug from one base ended.
pub(crate) fn tell_search(planted: &Planted, found: Option<&Report>, seeds: u64, options: &Options) {
    match found.and_then(|report| Some((report, report.violation.as_ref()?))) {
        Some((report, violation)) => println!(
            "{}: found after {seeds} of {} seeds, by {} at seed {}: {}{}",
            planted.name,
            planted.seeds,
            violation.promise,
            report.seed,
            violation.sentence,
            if planted.breaks.contains(&violation.promise) { "" } else { " (NOT what it should break)" },
        ),
        None => println!("{}: NOT found in {seeds} seeds", planted.name),
    }
    debug_assert!(options.planted == Some(planted.bug));
}
