//! Rings and doorbells alone: no message is lost, none is left behind a sleeper, and order is kept.
//!
//! Two executors bounce bursts of numbered messages, sleeping whenever they have nothing to do, or spinning a
//! while first. `RINGMAIN_RING_MESSAGES` sets how many (2 million); `cargo bench --bench rings` does 100 million.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test or bench has threads and clocks of its own"
)]
#![allow(unsafe_code, reason = "an eventfd is given to its executor")]

#[path = "../benches/rings/bounce.rs"]
mod bounce;

use bounce::{Plan, bounce};
use std::time::Duration;

fn messages() -> u64 {
    std::env::var("RINGMAIN_RING_MESSAGES").ok().and_then(|text| text.parse().ok()).unwrap_or(2_000_000)
}

#[test]
fn sleepers_in_bursts_miss_nothing() {
    bounce(&Plan { messages: messages(), burst_max: 64, spin: Duration::ZERO });
}

#[test]
fn sleepers_one_by_one_miss_nothing() {
    bounce(&Plan { messages: messages() / 20, burst_max: 1, spin: Duration::ZERO });
}

#[test]
fn spinners_miss_nothing() {
    bounce(&Plan { messages: messages(), burst_max: 64, spin: Duration::from_micros(20) });
}
