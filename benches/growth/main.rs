//! A cluster that grows and shrinks under load: `cargo bench --bench growth [-- PER_SECOND KEYS SECONDS]`.
//!
//! Three nodes become five and three again; the load is 4,000/s on 20,000 keys in 128 partitions, with 20 s of it before
//! the change. How long a change takes is told and not judged.
//! PASS if nothing was wrong or failed but doubts below 0.0005%, and the p99.9 at most tripled. Needs idle cores.

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
use std::time::Duration;

use course::{Plan, grow_and_shrink};

/// Of the p99.9, while the ring changes.
const SLOWDOWN_MAX: f64 = 3.0;

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let plan = Plan {
        per_second: numbers.next().unwrap_or(4_000),
        keys: numbers.next().unwrap_or(20_000),
        newcomers: 2,
        settings: &["--partitions=128"],
        calm: Duration::from_secs(numbers.next().unwrap_or(20)),
        tells: true,
    };
    let figures = grow_and_shrink(&plan);
    print!("{figures}");
    let mut shortcomings = figures.faults();
    if figures.slowdown().is_nan() || figures.slowdown() > SLOWDOWN_MAX {
        shortcomings
            .push(format!("p99.9 is {:.2} times that before, beyond {SLOWDOWN_MAX}", figures.slowdown()));
    }
    offered::verdict(&shortcomings)
}
