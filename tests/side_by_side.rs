//! The benches that set this server beside others, in small and alone: `cargo bench --bench recovery` and its like take
//! millions of keys and judge by time, which tests can't, as they share their cores.

#![allow(clippy::unwrap_used, reason = "a test that can't go on must stop")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "real processes live in real time")]
#![allow(unsafe_code, reason = "epoll, and what a process does before it starts")]

#[path = "../benches/memory_per_key/course.rs"]
mod memory_per_key;
#[path = "../benches/recovery/course.rs"]
mod recovery;
#[path = "../benches/side_by_side/mod.rs"]
mod side_by_side;

use std::path::Path;

use side_by_side::{Server, scratch};

/// Fewer keys than these make the weight of a server's beginnings theirs.
const KEYS: u64 = 400_000;

/// So that it doesn't grow unseen: the target is far below, and judged by the bench.
const BEYOND_MAX: f64 = 300.0;

#[test]
fn a_key_costs_no_more_than_it_did() {
    let plan = memory_per_key::Plan { keys: KEYS, memcached: None, valkey: None, directory: Path::new(".") };
    let weights = memory_per_key::weigh_all(&plan).unwrap();
    let [weight] = &weights[..] else { panic!("only this server was asked for") };
    println!(
        "{}\n{weight}\njudged by the bench: {:?}",
        memory_per_key::Weight::head(KEYS),
        weight.shortcomings()
    );
    assert!(weight.beyond() < BEYOND_MAX, "{weight}");
}

/// That all keys are back is asserted on the way.
#[test]
fn a_filled_log_is_recovered_by_each_start() {
    let directory = scratch(None).unwrap();
    let plan = recovery::Plan { keys: 50_000, shards: 2, rounds: 2, directory: directory.path() };
    let figures = recovery::measure(&plan).unwrap();
    println!("{figures}judged by the bench: {:?}", figures.shortcomings());
    assert!(figures.bytes > 50_000 * recovery::VALUE_BYTES, "{figures}");
}

/// Where a sync costs nothing, nothing is measured.
#[test]
fn a_log_is_not_measured_in_memory() {
    let refused = scratch(Some(Path::new("/dev/shm"))).unwrap_err();
    assert!(refused.contains("tmpfs") && refused.contains("--directory"), "{refused}");
}

#[test]
fn a_server_that_is_missing_is_named_with_its_package() {
    let nowhere = Path::new("no/such/program");
    let directory = Path::new(".");
    for (package, missing) in [
        ("redis-server", Server::redis("redis", nowhere, None, directory, &[])),
        ("memcached", Server::memcached("memcached", nowhere, None, 64)),
    ] {
        let sentence = missing.err().expect("there is none");
        assert!(sentence.contains("no/such/program") && sentence.contains(package), "{sentence}");
    }
}
