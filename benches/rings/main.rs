//! The long stress of rings and doorbells: `cargo bench --bench rings [-- MILLIONS]`, 100 by default.
//!
//! Every message is counted and checked for order; a watchdog reports a wake-up that got lost.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test or bench has threads and clocks of its own"
)]
#![allow(unsafe_code, reason = "an eventfd is given to its executor")]

mod bounce;

use std::time::{Duration, Instant};

use bounce::{Plan, bounce};

fn main() {
    let millions = std::env::args().skip(1).find_map(|argument| argument.parse::<u64>().ok()).unwrap_or(100);
    let plans = [
        ("sleeping, bursts of up to 64", millions * 6 / 10, 64, Duration::ZERO),
        ("sleeping, bursts of up to 8", millions / 10, 8, Duration::ZERO),
        ("spinning 20 µs, bursts of up to 64", millions * 3 / 10, 64, Duration::from_micros(20)),
    ];
    for (name, millions, burst_max, spin) in plans {
        let start = Instant::now();
        let messages = millions.max(1) * 1_000_000;
        let sleeps = bounce(&Plan { messages, burst_max, spin });
        let took = start.elapsed();
        let each = took.as_nanos() as f64 / messages as f64;
        println!("{name}: {messages} messages, {sleeps} sleeps, none lost, {took:.1?} ({each:.0} ns each)");
    }
}
