//! The ring and the gossip of a large cluster: `cargo bench --bench ring [-- NODES]`, a thousand by default.
//!
//! PASS if thirty nodes of unequal weight are within 10% of their fair share, a change moves at most 1.25 times the least
//! possible (mean of 20), the ring takes less than 50 ms to compute, and news reaches everybody within 2 log2(n) rounds.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test or bench has threads and clocks of its own"
)]

mod gossip;
mod places;

use std::process::ExitCode;
use std::time::Duration;

const OFF_MAX: f64 = 0.10;
const MOVED_MAX: f64 = 1.25;
const COMPUTE_MAX: Duration = Duration::from_millis(50);
/// Times log2(n).
const ROUNDS_MAX: f64 = 2.0;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<usize>().ok());
    let nodes = numbers.next().unwrap_or(1000);
    let mut shortcomings = Vec::new();
    let mut judge = |what: &str, figure: f64, most: f64| {
        if figure.is_nan() || figure > most {
            shortcomings.push(format!("{what} is {figure:.3}, beyond {most:.3}"));
        }
    };
    for partitions in [1024, 4096] {
        let places::Balance { off_max, join, leave } = places::balance(partitions);
        println!(
            "30 nodes, unequal weights, Q = {partitions}: {:.1}% off the fair share at most; of the least possible, a join \
             moves {join:.3} times and a leave {leave:.3} times",
            100.0 * off_max
        );
        judge("imbalance", off_max, OFF_MAX);
        judge("a join", join, MOVED_MAX);
        judge("a leave", leave, MOVED_MAX);
    }
    let computed = places::time_to_compute(nodes);
    println!("{nodes} nodes: the ring takes {computed:.1?} to compute");
    judge("seconds to compute the ring", computed.as_secs_f64(), COMPUTE_MAX.as_secs_f64());

    let gossip = gossip::spread(nodes, 3);
    println!("{nodes} nodes: everybody has heard after {:?} rounds, a round a second", gossip.rounds);
    println!(
        "each node sends {} bytes a second at rest, and {} in the busiest second of a word's way ({} bytes a record, {} bytes \
         all of them); an exchange takes {:.1?} of a core, both sides together",
        gossip.resting_bytes,
        gossip.spreading_bytes,
        gossip.bytes_per_record(),
        gossip.frame_bytes,
        gossip.exchange
    );
    judge("rounds", f64::from(gossip.rounds_max()), ROUNDS_MAX * (nodes as f64).log2());
    if shortcomings.is_empty() {
        println!("PASS");
        return ExitCode::SUCCESS;
    }
    println!("FAIL: {}", shortcomings.join("; "));
    ExitCode::FAILURE
}
