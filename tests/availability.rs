//! One node of three is killed and brought back under load: it is avoided within five seconds, and then nothing fails.
//! Defends P9 (overlap) and P10 (always writable).
//!
//! The latencies are told and not judged: tests share their cores with others. `cargo bench --bench availability` judges,
//! over a million requests.

#![allow(clippy::unwrap_used, reason = "a test that can't go on must stop")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "real processes live in real time")]

mod cluster;
#[path = "../benches/availability/course.rs"]
mod course;
mod offered;

use course::{Death, Plan, kill_and_bring_back};

fn expect_success(death: Death) {
    let plan = Plan { death, requests: 10_000, per_second: 1_000, keys: 2_000, tells: false };
    let figures = kill_and_bring_back(&plan);
    println!("{figures}");
    assert_eq!(figures.faults(), Vec::<String>::new(), "{figures}");
}

#[test]
fn a_killed_node_is_avoided_and_then_nothing_fails() {
    expect_success(Death::OfTheProcess);
}

#[test]
fn a_silent_node_is_avoided_and_then_nothing_fails() {
    expect_success(Death::OfTheMachine);
}
