//! Dynamo's 99.9995%: `cargo bench --bench availability [-- MILLIONS [PER_SECOND]]`, a million requests by default, at
//! 11,574/s (a billion a day).
//!
//! One node of three is killed after a quarter of the run, and brought back after half; then the same again, but it falls
//! silent, as if its machine had died. PASS if the others avoid it within 5 s, 99.9995% of the requests sent after that
//! succeed, and p99.9 of the whole run is under 50 ms. The last is judged only where its process is killed: half a second
//! until silence is noticed is more than a thousandth of a short run. Needs idle cores.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test or bench has threads and clocks of its own"
)]

#[path = "../../tests/cluster/mod.rs"]
mod cluster;
mod course;
#[path = "../../tests/offered/mod.rs"]
mod offered;

use std::process::ExitCode;

use course::{Death, Plan, kill_and_bring_back};
use loadgen::tally::Percentile;

/// In milliseconds, over the whole run.
const P999_MAX_MS: f64 = 50.0;

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let requests = numbers.next().unwrap_or(1) * 1_000_000;
    let per_second = numbers.next().unwrap_or(11_574);
    let mut shortcomings = Vec::new();
    for (name, death) in [("killed", Death::OfTheProcess), ("fallen silent", Death::OfTheMachine)] {
        let plan = Plan { death, requests, per_second, keys: 10_000, tells: true };
        let figures = kill_and_bring_back(&plan);
        println!("{name}\n{figures}");
        let mut faults = figures.faults();
        let p999_ms = offered::milliseconds(&figures.total, Percentile::P999);
        if death == Death::OfTheProcess && p999_ms >= P999_MAX_MS {
            faults.push(format!("p99.9 of the whole run is {p999_ms:.1} ms, not < {P999_MAX_MS} ms"));
        }
        shortcomings.extend(faults.into_iter().map(|fault| format!("{name}: {fault}")));
    }
    offered::verdict(&shortcomings)
}
