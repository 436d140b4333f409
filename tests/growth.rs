//! A cluster grows from three nodes to five and shrinks to three again, while it is loaded: nothing fails, and every
//! read sees what was acknowledged. Defends P9 (overlap) and P10 (always writable) through changes of the ring.
//!
//! The latencies are told and not judged: tests share their cores with others. `cargo bench --bench growth` judges.

#![allow(clippy::unwrap_used, reason = "a test that can't go on must stop")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "real processes live in real time")]

mod cluster;
#[path = "../benches/growth/course.rs"]
mod course;
mod offered;

use std::time::Duration;

use course::{Plan, grow_and_shrink};

#[test]
fn nothing_fails_while_three_nodes_become_five_and_three_again() {
    let settings = &["--partitions=64"];
    let calm = Duration::from_secs(2);
    let plan = Plan { per_second: 500, keys: 400, newcomers: 2, settings, calm, tells: false };
    let figures = grow_and_shrink(&plan);
    println!("{figures}");
    assert_eq!(figures.faults(), Vec::<String>::new(), "{figures}");
    assert!(figures.slowdown() > 0.0, "{figures}");
}
