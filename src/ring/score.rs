//! The cost of putting a partition on a node, before prices: weighted rendezvous hashing, in floating point that
//! gives the same bits on every machine.
//!
//! Rust's own `ln` may differ in the last bit between platforms, and one bit can swap two nodes. Here only
//! `+ - * /` are used, in a fixed order; IEEE 754 defines them to the bit, and Rust never fuses them.

use crate::id::{NodeId, PartitionId};

/// The lower bits of a cost hold the node's index; the upper 48 (sign, exponent, 36 bits of fraction) remain.
const INDEX_BITS: u32 = 16;
const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;

/// A cost and the node it belongs to in one number: positive floats sort as their bits do, and the index
/// settles ties.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Bid(u64);

impl Bid {
    pub(super) fn new(cost: f64, node: usize) -> Self {
        debug_assert!(cost >= 0.0 && cost.is_finite());
        debug_assert!(node <= INDEX_MASK as usize);
        Self(cost.to_bits() & !INDEX_MASK | node as u64)
    }

    pub(super) fn cost(self) -> f64 {
        f64::from_bits(self.0 & !INDEX_MASK)
    }

    pub(super) fn node(self) -> usize {
        (self.0 & INDEX_MASK) as usize
    }
}

/// Exponentially distributed with mean 1, drawn anew for each pair. Divided by the weights, the least of
/// several such numbers falls on each node with a probability in proportion to its weight, and whether it
/// does between two nodes doesn't depend on a third: so one that joins or leaves moves nothing between others.
pub(super) fn draw(node: NodeId, partition: PartitionId) -> f64 {
    let mixed = mix(node.0 ^ mix(u64::from(partition.0).wrapping_add(0x9e37_79b9_7f4a_7c15)));
    // The middle of one of 2^52 equal parts of (0, 1): never 0, never 1.
    let uniform = ((mixed >> 12) as f64 + 0.5) / (1u64 << 52) as f64;
    negative_logarithm(uniform)
}

/// The finalizer of SplitMix64: every input bit flips each output bit with probability one half.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// `-ln(x)` for normal `0 < x < 1`, within 1e-8 of it in proportion.
///
/// With x = m * 2^-k and m in [1/2, 1) it's k ln 2 + 2 artanh((1 - m) / (1 + m)); the second argument is at most
/// 1/3, where the series converges fast, and no term is negative, so nothing cancels.
fn negative_logarithm(x: f64) -> f64 {
    const EXPONENT_OF_HALF: u64 = 1022;
    let bits = x.to_bits();
    let halvings = EXPONENT_OF_HALF - (bits >> 52);
    let mantissa = f64::from_bits(bits & ((1 << 52) - 1) | EXPONENT_OF_HALF << 52);
    let s = (1.0 - mantissa) / (1.0 + mantissa);
    let square = s * s;
    let mut series = 1.0 / 15.0;
    for odd in [13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        series = series * square + 1.0 / odd;
    }
    halvings as f64 * std::f64::consts::LN_2 + 2.0 * s * series
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prng::Prng;

    #[test]
    fn the_logarithm_is_one() {
        let mut prng = Prng::from_seed(1);
        let edges = [f64::MIN_POSITIVE, 0.25, 0.5, 0.5 - f64::EPSILON / 4.0, 1.0 - f64::EPSILON / 2.0];
        let inside = (0..10_000).map(|_| prng.unit().max(1e-300));
        for x in inside.chain(edges) {
            let expected = -x.ln();
            assert!((negative_logarithm(x) - expected).abs() <= 1e-8 * expected, "-ln({x})");
        }
    }

    /// These bits decide who owns what, on every machine and in every later version.
    #[test]
    fn draws_are_the_same_for_ever() {
        let drawn =
            [(1, 0), (1, 1), (2, 0)].map(|(node, partition)| draw(NodeId(node), PartitionId(partition)));
        assert_eq!(
            drawn.map(f64::to_bits),
            [4_602_364_439_135_449_299, 4_607_271_959_266_996_621, 4_609_077_073_769_819_796]
        );
    }

    #[test]
    fn bids_sort_by_cost_then_node() {
        let mut bids = [Bid::new(2.0, 0), Bid::new(1.0, 7), Bid::new(1.0, 3), Bid::new(1e-9, 9)];
        bids.sort_unstable();
        assert_eq!(bids.map(Bid::node), [9, 3, 7, 0]);
        assert_eq!(bids[3].cost(), 2.0);
    }
}
