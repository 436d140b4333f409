//! Many nodes: the ring is even and soon computed, a change moves little, and news reaches everybody in few rounds. In
//! small: `cargo bench --bench ring` takes a thousand nodes for gossip too.

#![allow(clippy::unwrap_used, reason = "a test that can't go on must stop")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "it times what the machines do")]

#[path = "../benches/ring/gossip.rs"]
mod gossip;
#[path = "../benches/ring/places.rs"]
mod places;

use std::time::Duration;

#[test]
fn thirty_unequal_nodes_hold_their_share_and_a_change_moves_little() {
    for partitions in [1024, 4096] {
        let balance = places::balance(partitions);
        println!("{balance:?}");
        assert!(balance.off_max <= 0.10, "{balance:?}");
        assert!(balance.join <= 1.25 && balance.leave <= 1.25, "{balance:?}");
    }
}

/// The bench judges by 50 ms: tests share their cores with others.
#[test]
fn a_thousand_nodes_have_a_ring_at_once() {
    let computed = places::time_to_compute(1000);
    println!("{computed:?}");
    assert!(computed < Duration::from_millis(500), "{computed:?}");
}

/// Ten times as many nodes need a few rounds more, not ten times as many.
#[test]
fn news_reaches_everybody_in_few_rounds() {
    for nodes in [16, 64, 256] {
        let figures = gossip::spread(nodes, 4);
        println!("{nodes} nodes: {:?} rounds, {} bytes a record", figures.rounds, figures.bytes_per_record());
        assert!(f64::from(figures.rounds_max()) <= 2.0 * (nodes as f64).log2(), "{:?}", figures.rounds);
        assert!(
            figures.bytes_per_record() < 300 && figures.resting_bytes < 1000,
            "{}",
            figures.resting_bytes
        );
        // A list of all versions each way at most, and the records that differ.
        assert!(figures.spreading_bytes < 40 * nodes + 2000, "{}", figures.spreading_bytes);
        assert!(figures.exchange < Duration::from_secs(1));
    }
}
