//! The long stress of traffic across shards: `cargo bench --bench wrong_shard [-- MILLIONS]`, 10 by default, half of
//! them within a node and half between two.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test or bench has threads and clocks of its own"
)]

mod astray;
#[path = "../../tests/cluster/mod.rs"]
mod cluster;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use astray::{Wrong, send_astray};

fn main() {
    let millions = std::env::args().skip(1).find_map(|argument| argument.parse::<u64>().ok()).unwrap_or(10);
    for (name, wrong) in [("the other shard", Wrong::Shard), ("another node", Wrong::Node)] {
        let requests = millions * 500_000;
        let figures = with_progress(name, requests, |answered| send_astray(wrong, requests, answered));
        let rate = figures.requests as f64 / figures.took.as_secs_f64();
        println!(
            "{name}: {} requests in {:.1?} ({rate:.0}/s), none lost or stuck, all values right; \
             {} passed to siblings, {} to peers",
            figures.requests, figures.took, figures.to_siblings, figures.to_peers
        );
    }
}

/// Say once a second how far it is.
fn with_progress<T>(name: &str, requests: u64, run: impl FnOnce(&AtomicU64) -> T) -> T {
    let (answered, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut before = 0;
            while !is_over.load(Ordering::Relaxed) {
                std::thread::park_timeout(Duration::from_secs(1));
                let now = answered.load(Ordering::Relaxed);
                eprintln!("{name}: {now} of {requests}, {}/s", now - before);
                before = now;
            }
        });
        // Whoever fails in there must not leave the watcher behind.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&answered)));
        is_over.store(true, Ordering::Relaxed);
        watcher.thread().unpark();
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
