//! A data centre dies: `cargo bench --bench tornado [-- PER_SECOND KEYS SECONDS]`.
//!
//! Six nodes in three data centres, N = 3, R = W = 2, under 2,000/s on 20,000 keys and under clients that keep registers,
//! carts and counters. Both nodes of one are killed at once, and what they held is gone; after a while newcomers take their
//! places. PASS if nothing failed once the dead were noticed, nothing acknowledged was lost, and both were rebuilt.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "a test or bench has threads and clocks of its own"
)]

#[path = "../../tests/clients/mod.rs"]
mod clients;
#[path = "../../tests/cluster/mod.rs"]
mod cluster;
mod course;
#[path = "../../tests/offered/mod.rs"]
mod offered;

use std::process::ExitCode;
use std::time::Duration;

use course::{Plan, tornado};

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let plan = Plan {
        per_second: numbers.next().unwrap_or(2_000),
        keys: numbers.next().unwrap_or(20_000),
        settings: &["--partitions=128"],
        calm: Duration::from_secs(numbers.next().unwrap_or(20)),
        tells: true,
    };
    let figures = tornado(&plan);
    print!("{figures}");
    offered::verdict(&figures.faults())
}
