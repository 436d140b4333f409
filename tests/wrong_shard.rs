//! Every request sent to the wrong shard on purpose: none is lost or stuck, and every value is right.
//!
//! `RINGMAIN_ASTRAY_REQUESTS` sets how many (200,000); `cargo bench --bench wrong_shard` sends 10 million.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test or bench has threads and clocks of its own"
)]

#[path = "../benches/wrong_shard/astray.rs"]
mod astray;
mod cluster;

use std::sync::atomic::AtomicU64;

use astray::{Figures, Wrong, send_astray};

fn requests() -> u64 {
    std::env::var("RINGMAIN_ASTRAY_REQUESTS").ok().and_then(|text| text.parse().ok()).unwrap_or(200_000)
}

fn half_of_them(wrong: Wrong) -> Figures {
    let figures = send_astray(wrong, requests() / 2, &AtomicU64::new(0));
    println!("{} requests in {:.1?}", figures.requests, figures.took);
    assert!(figures.requests >= requests() / 2);
    figures
}

#[test]
fn the_other_shard_of_the_node_passes_on() {
    let figures = half_of_them(Wrong::Shard);
    assert_eq!((figures.to_siblings, figures.to_peers), (figures.requests, 0));
}

#[test]
fn the_wrong_shard_of_another_node_passes_on() {
    let figures = half_of_them(Wrong::Node);
    assert_eq!((figures.to_siblings, figures.to_peers), (figures.requests, figures.requests));
}
