//! A fourth node joins three: `cargo bench --bench newcomer [-- KEYS PER_SECOND SECONDS RUNS]`.
//!
//! 300,000 keys in 1,024 partitions. First nobody asks for anything, and the time to join is told; then under a load of
//! 3,000/s, with 20 s of it before the newcomer comes, and it leaves again. Each three times, and the medians. PASS if
//! nothing was wrong or failed but doubts below 0.0005%, and the p99.9 at most tripled in the median run.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test or bench has threads and clocks of its own"
)]

#[path = "../../tests/cluster/mod.rs"]
mod cluster;
#[path = "../growth/course.rs"]
mod course;
#[path = "../../tests/offered/mod.rs"]
mod offered;

use std::process::ExitCode;
use std::time::Duration;

use cluster::Cluster;
use course::{Figures, Plan, change, grow_and_shrink, load};

/// Of the p99.9, while the ring changes.
const SLOWDOWN_MAX: f64 = 3.0;
const SETTINGS: &[&str] = &["--partitions=1024"];

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let plan = Plan {
        keys: numbers.next().unwrap_or(300_000),
        per_second: numbers.next().unwrap_or(3_000),
        newcomers: 1,
        settings: SETTINGS,
        calm: Duration::from_secs(numbers.next().unwrap_or(20)),
        tells: false,
    };
    let runs = numbers.next().unwrap_or(3).max(1) as usize;
    let idle: Vec<f64> = (0..runs).map(|_| join_at_rest(&plan).as_secs_f64()).collect();
    println!("{} keys, nobody asks for anything: a fourth node joins in {:.1} s", plan.keys, median(&idle));
    println!("  each run: {idle:.1?} s");
    let loaded: Vec<Figures> = (0..runs).map(|_| grow_and_shrink(&plan)).collect();
    loaded.iter().for_each(|figures| print!("{figures}"));
    let slowdowns: Vec<f64> = loaded.iter().map(Figures::slowdown).collect();
    let joins: Vec<f64> = loaded.iter().map(|figures| figures.steps[0].1.as_secs_f64()).collect();
    println!("under load: it joins in {:.1} s, each run {joins:.1?} s", median(&joins));
    println!("p99.9 is {:.2} times that before, each run {slowdowns:.2?}", median(&slowdowns));
    let mut shortcomings: Vec<String> = loaded.iter().flat_map(Figures::faults).collect();
    if median(&slowdowns).is_nan() || median(&slowdowns) > SLOWDOWN_MAX {
        shortcomings.push(format!("p99.9 more than {SLOWDOWN_MAX} times that before"));
    }
    offered::verdict(&shortcomings)
}

/// All keys are written, and then nothing but the change happens.
fn join_at_rest(plan: &Plan) -> Duration {
    let mut cluster = Cluster::start(3, 1, plan.settings);
    load(&cluster, plan).stop();
    let newcomer = cluster.join_with(1, plan.settings);
    change(&cluster, "join", newcomer).1
}

fn median(figures: &[f64]) -> f64 {
    let mut figures = figures.to_vec();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
