//! How soon a node is back: `cargo bench --bench recovery [-- --check]`, a million keys; `--keys 10000000` for ten.
//!
//! The log is filled over the wire. Then the node is started, which reads all of it before its ports open, and timed until it
//! welcomes a client; in each round beside a plain sequential read of the same files, past the kernel's cache as well, a
//! mebibyte at a time, by one thread. A median of the rounds each. The target: a third of the rate of the plain read.

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

use clap::Parser;

use course::{Plan, measure};
use side_by_side::{conclude, scratch};

#[derive(Parser)]
struct Arguments {
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1000..))]
    keys: u64,
    /// Starts, each after a plain read
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// [default: one per core]
    #[arg(long, value_name = "N")]
    shards: Option<usize>,
    /// Where the log is written: on a disk [default: where cargo builds]
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
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let plan = Plan {
        keys: arguments.keys,
        shards: arguments.shards.unwrap_or(cores),
        rounds: arguments.rounds as usize,
        directory: scratch.path(),
    };
    let figures = measure(&plan)?;
    print!("{figures}");
    Ok(figures.shortcomings())
}
