//! The log is compacted under load: nothing fails, and every read is held against what was written. Defends P1 (durability)
//! and P10 (always writable).
//!
//! The latencies are told and not judged: tests share their cores with others. `cargo bench --bench compaction` judges.

#![allow(clippy::unwrap_used, reason = "a test that can't go on must stop")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "real processes live in real time")]
#![allow(unsafe_code, reason = "a support of benches that need it")]

mod cluster;
#[path = "../benches/compaction/course.rs"]
mod course;
#[path = "../benches/side_by_side/disk.rs"]
#[allow(unreachable_pub, reason = "a support of many benches")]
mod disk;
#[path = "../benches/side_by_side/figures.rs"]
#[allow(dead_code, unreachable_pub, reason = "a support of many benches, of which each uses a part")]
mod figures;
mod offered;

use std::time::Duration;

use course::{Plan, compare};

#[test]
fn compaction_fails_nobody() {
    let directory = disk::scratch(None).unwrap();
    let figures = compare(&Plan {
        keys: 2_000,
        per_second: 1_000,
        warm_up: Duration::from_secs(1),
        span: Duration::from_secs(5),
        rounds: 1,
        directory: directory.path(),
        tells: false,
    });
    println!("{figures}judged by the bench: {:?}", figures.shortcomings());
    assert_eq!(figures.faults(), Vec::<String>::new(), "{figures}");
}
