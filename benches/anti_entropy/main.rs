//! What anti-entropy costs: `cargo bench --bench anti_entropy [-- KEYS DIFFERING]`, a million of which 100 differ.
//!
//! Two real shards on one thread and in virtual time, so that nothing but anti-entropy repairs. PASS if the clocks of at
//! most 3% of the keys were sent, and each shard takes less than 1% of a core when nothing differs.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test or bench has threads and clocks of its own"
)]

mod course;
mod pair;

use std::process::ExitCode;

/// Of a core, when nothing differs.
const IDLE_SHARE_MAX: f64 = 0.01;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let (keys, differing) = (numbers.next().unwrap_or(1_000_000), numbers.next().unwrap_or(100));
    let figures = course::measure(keys, differing);
    print!("{figures}");
    let mut shortcomings = figures.faults();
    if figures.idle_share >= IDLE_SHARE_MAX {
        shortcomings.push(format!("{:.2}% of a core with nothing to repair", 100.0 * figures.idle_share));
    }
    if shortcomings.is_empty() {
        println!("PASS");
        return ExitCode::SUCCESS;
    }
    println!("FAIL: {}", shortcomings.join("; "));
    ExitCode::FAILURE
}
