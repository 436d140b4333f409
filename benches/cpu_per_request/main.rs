//! What a request costs the server: user and system processor time, beside the echo floor, in one run.
//!
//! `cargo bench --bench cpu_per_request [-- ROUNDS [SECONDS]]`. Each server runs in its own process on core 0,
//! the client on core 1: 50 connections, 100-byte values, half gets and half puts, pipeline depths 1 and 16.
//! The rounds alternate, and medians are printed: on a shared machine only ratios within one run mean anything.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test or bench has threads and clocks of its own"
)]
#![allow(unsafe_code, reason = "pinning, epoll and /proc, for measuring")]

#[path = "../echo_floor/floor.rs"]
mod floor;
mod load;
mod server;

use std::time::Duration;

use load::Load;
use server::{Cost, Server};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONNECTIONS: usize = 50;
const VALUE_BYTES: usize = 100;
const DEPTHS: [usize; 2] = [1, 16];
const WARM_UP: Duration = Duration::from_millis(300);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.first().is_some_and(|argument| argument == server::FLOOR_ARGUMENT) {
        return server::serve_floor(VALUE_BYTES);
    }
    let number =
        |place: usize, default| arguments.get(place).and_then(|text| text.parse().ok()).unwrap_or(default);
    let (rounds, seconds) = (number(0, 5), number(1, 2));
    server::pin_to_core(1);
    let candidates = [("echo floor", Server::floor()), ("ringmain", Server::ringmain())];
    let servers: Vec<(&str, Server)> =
        candidates.into_iter().filter_map(|(name, server)| Some((name, server?))).collect();
    println!(
        "{:<12} {:>5} {:>12} {:>9} {:>9} {:>9} {:>7}",
        "server", "depth", "requests/s", "user µs", "sys µs", "both µs", "ratio"
    );
    for depth in DEPTHS {
        let mut costs: Vec<Vec<Cost>> = servers.iter().map(|_| Vec::new()).collect();
        for _ in 0..rounds {
            for ((_, server), costs) in servers.iter().zip(&mut costs) {
                costs.push(measure(server, depth, Duration::from_secs(seconds)));
            }
        }
        report(&servers, depth, &mut costs);
    }
}

fn measure(server: &Server, depth: usize, span: Duration) -> Cost {
    let mut load = Load::connect(server.port(), CONNECTIONS, depth, VALUE_BYTES);
    load.run(WARM_UP);
    let before = server.processor_time();
    let (requests, elapsed) = load.run(span);
    server.processor_time().since(before, requests, elapsed)
}

fn report(servers: &[(&str, Server)], depth: usize, costs: &mut [Vec<Cost>]) {
    let mut floor = None;
    for ((name, _), costs) in servers.iter().zip(costs) {
        costs.sort_by(|a, b| a.both_us().total_cmp(&b.both_us()));
        let median = &costs[costs.len() / 2];
        let floor_us = *floor.get_or_insert(median.both_us());
        let Cost { user_us, sys_us, requests_per_s } = median;
        let (both, ratio) = (median.both_us(), median.both_us() / floor_us);
        println!(
            "{name:<12} {depth:>5} {requests_per_s:>12.0} {user_us:>9.3} {sys_us:>9.3} {both:>9.3} {ratio:>7.2}"
        );
    }
}
