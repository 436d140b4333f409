//! Puts that a power cut leaves, beside Redis': `cargo bench --bench durable_puts [-- --check]`.
//!
//! One node, N = 1, one shard, `--sync always`, and a Redis with `appendonly yes`, `appendfsync always` and `save ""`, their logs
//! on the same disk; and this server without a log. Values of 100 bytes under 100,000 keys, closed loop: 500 and 50 connections
//! at depth 1, 50 at depth 16. All servers on core 0, the generator on core 1; everything else of either is as it is by default,
//! compaction and rewriting of logs too. The rounds go A B C C B A; each figure is the median of the rounds, each ratio the
//! median of the ratios in one round.
//!
//! The targets: 1.1, 1.5 and 2 times the throughput of Redis, a p99.9 that is no worse, and 80% of the throughput without a log.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test or bench has threads and clocks of its own"
)]
#![allow(unsafe_code, reason = "epoll, and what a process does before it starts")]

mod course;
#[path = "../side_by_side/mod.rs"]
mod side_by_side;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use course::{Figures, Plan, compare};
use side_by_side::{conclude, scratch};

#[derive(Parser)]
struct Arguments {
    /// Of each measurement
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Measurements of each server under each load
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Where the logs are written: on a disk [default: where cargo builds]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    #[arg(long, value_name = "PATH", default_value = "redis-server")]
    redis: PathBuf,
    /// Another build of this server's program, to be measured as well: how much faster has it become?
    #[arg(long, value_name = "PATH")]
    before: Option<PathBuf>,
    /// Exit with 1 if a target is missed
    #[arg(long)]
    check: bool,
    /// What cargo says to each bench
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(shortcomings) => conclude(arguments.check, &shortcomings),
        Err(sentence) => {
            eprintln!("{sentence}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<Vec<String>, String> {
    let scratch = scratch(arguments.directory.as_deref())?;
    let plan = Plan {
        redis: &arguments.redis,
        before: arguments.before.as_deref(),
        directory: scratch.path(),
        span: Duration::from_secs(arguments.seconds),
        rounds: arguments.rounds as usize,
    };
    let figures = compare(&plan, |figures| println!("{figures}"))?;
    Ok(figures.iter().flat_map(Figures::shortcomings).collect())
}
