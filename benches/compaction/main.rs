//! What compaction costs whoever writes meanwhile: `cargo bench --bench compaction [-- --check]`.
//!
//! One node, N = 1, one shard, `--sync always`, under `loadgen`'s own load: open loop, half reads and half overwrites, after Zipf,
//! 100-byte values. The log has segments of 2 MiB, so that there is always one to compact; beside it the same load on a log with
//! one segment that doesn't get full. The rounds go A B B A, each on a fresh node. The target: a p99.9 that is at most 1.5 times
//! that without compaction, which is charged with taking, filling and sealing segments too. Needs idle cores.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test or bench has threads and clocks of its own"
)]
#![allow(unsafe_code, reason = "a support of benches that need it")]

#[path = "../../tests/cluster/mod.rs"]
mod cluster;
mod course;
#[path = "../side_by_side/disk.rs"]
#[allow(unreachable_pub, reason = "a support of many benches")]
mod disk;
#[path = "../side_by_side/figures.rs"]
#[allow(dead_code, unreachable_pub, reason = "a support of many benches, of which each uses a part")]
mod figures;
#[path = "../../tests/offered/mod.rs"]
mod offered;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use course::{Plan, compare};
use disk::scratch;
use figures::conclude;

#[derive(Parser)]
struct Arguments {
    /// Of each measurement
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Measurements of each
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Operations a second
    #[arg(long, value_name = "N", default_value_t = 8_000, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1000..))]
    keys: u64,
    /// Where the logs are written: on a disk [default: where cargo builds]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Exit with 1 if the target is missed
    #[arg(long)]
    check: bool,
    /// What cargo says to each bench
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let scratch = match scratch(arguments.directory.as_deref()) {
        Ok(scratch) => scratch,
        Err(sentence) => {
            eprintln!("{sentence}");
            return ExitCode::from(2);
        }
    };
    let figures = compare(&Plan {
        keys: arguments.keys,
        per_second: arguments.rate,
        warm_up: Duration::from_secs(2),
        span: Duration::from_secs(arguments.seconds),
        rounds: arguments.rounds as usize,
        directory: scratch.path(),
        tells: false,
    });
    print!("{figures}");
    conclude(arguments.check, &figures.shortcomings())
}
