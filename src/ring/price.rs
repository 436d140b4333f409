//! Prices: what makes a random placement an even one.
//!
//! Rendezvous hashing alone gives each node its share only on average; of 30 nodes the unluckiest would hold
//! 20% too much. So each node gets a price by which its bids are multiplied, found by rounds of "count what each
//! would hold; who holds too much becomes dearer, who holds too little cheaper". Everybody computes the same
//! rounds from the same members, so no price is ever sent or stored.
//!
//! A price answers a node's own luck, which a newcomer hardly changes; so prices stay nearly as they were when
//! members come and go, and little moves that needn't. Two things keep it so: a node near its fair
//! share is let alone, and one that isn't is only brought near. (Evening out to the last partition moved 1.34 times
//! the least possible on a join at 30 nodes and Q = 1024; this moves 1.15 times.)

use super::placement::{Placement, Prices};
use super::score::Bid;

/// Good enough: within 7% of the fair share, give or take one partition.
const BAND: f64 = 0.07;
/// To where a round steers those outside: a little inside, so that the end is reached and not only approached.
const TARGET: f64 = 0.8 * BAND;
/// Shares are whole partitions, so one more or less is no fault whatever its proportion.
const PARTITIONS_OFF: f64 = 1.0;
/// How much of the excess a round takes off the price. The load answers a price about in proportion, so 1 would
/// be right for one node alone; half of it doesn't overshoot when all move at once.
const STEP: f64 = 0.5;
/// Far more than needed (around ten). It bounds prices too: a round multiplies one by 0.75 to 1.5.
const ROUNDS_MAX: usize = 64;

/// The prices under which each node's load is within the band around its fair share, or nearly.
/// `bids`: one row for each partition, in ascending order.
pub(super) fn even_out(placement: &Placement, fair: &[f64], bids: &[Bid]) -> Prices {
    let mut prices = Prices::even(placement.nodes());
    for _ in 0..ROUNDS_MAX {
        let loads = loads(placement, &prices, bids);
        let excesses = || loads.iter().zip(fair).map(|(&load, &fair)| f64::from(load) - fair).zip(fair);
        if excesses().all(|(excess, fair)| excess.abs() <= BAND * fair + PARTITIONS_OFF) {
            break;
        }
        prices.adjust(excesses().map(|(excess, fair)| {
            let beyond = (excess.abs() - TARGET * fair - PARTITIONS_OFF).max(0.0).copysign(excess) / fair;
            1.0 + STEP * beyond.clamp(-0.5, 1.0)
        }));
    }
    prices
}

/// Of how many partitions each node is a primary.
fn loads(placement: &Placement, prices: &Prices, bids: &[Bid]) -> Vec<u32> {
    let mut loads = vec![0; placement.nodes()];
    let mut chosen = Vec::with_capacity(placement.replicas);
    for row in bids.chunks_exact(placement.nodes()) {
        placement.choose(row, prices, &mut chosen);
        for bid in &chosen {
            loads[bid.node()] += 1;
        }
    }
    loads
}
