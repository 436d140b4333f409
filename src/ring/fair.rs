//! The fair share: how many partitions each node would be a primary of if load could be split without rest.
//!
//! In proportion to weight, within what placement allows. A node holds a partition at most once. While there
//! are at least N data centres, each holds a partition at most once; with fewer, each holds every partition at
//! least once, and the same goes for racks. These limits nest, so the fairest shares are found by filling
//! from the top: one water level for all, and a level of its own inside each group that a limit holds back.

use super::placement::Placement;

/// Enough halvings to exhaust the precision of a level.
const HALVINGS: usize = 64;

/// A node, or a group of nodes with limits to their sum.
enum Vessel {
    Node { index: usize, weight: f64, at_most: f64 },
    Group { at_least: f64, at_most: f64, members: Vec<Vessel> },
}

/// For each node its fair number of partitions; the sum is Q * N. Every node's `weight >= 1`.
pub(super) fn fair_shares(placement: &Placement) -> Vec<f64> {
    let mut shares = vec![0.0; placement.nodes()];
    let root = vessels(placement);
    root.pour(f64::from(placement.partitions) * placement.replicas as f64, &mut shares);
    shares
}

fn vessels(placement: &Placement) -> Vessel {
    let once = f64::from(placement.partitions);
    let everywhere = once * placement.replicas as f64;
    // Fewer groups than replicas: one replica at least in each. Otherwise: one at most in each.
    let limits = |groups: usize| {
        if groups < placement.replicas { (once, everywhere) } else { (0.0, once) }
    };
    let mut centers: Vec<Vec<Vec<Vessel>>> = vec![];
    centers.resize_with(placement.data_center_count, Vec::new);
    let mut rack_place = vec![None; placement.rack_count];
    for index in 0..placement.nodes() {
        let racks = &mut centers[usize::from(placement.data_center[index])];
        let place = *rack_place[usize::from(placement.rack[index])].get_or_insert_with(|| {
            racks.push(vec![]);
            racks.len() - 1
        });
        racks[place].push(Vessel::Node { index, weight: placement.weight[index], at_most: once });
    }
    let group = |(at_least, at_most), members| Vessel::Group { at_least, at_most, members };
    let rack_limits = limits(placement.rack_count);
    let center = |racks: Vec<Vec<Vessel>>| {
        let racks = racks.into_iter().map(|nodes| group(rack_limits, nodes)).collect();
        group(limits(placement.data_center_count), racks)
    };
    group((0.0, everywhere), centers.into_iter().map(center).collect())
}

impl Vessel {
    /// What it holds if the water stands at `level`. Grows with the level.
    fn at(&self, level: f64) -> f64 {
        match self {
            Self::Node { weight, at_most, .. } => (weight * level).min(*at_most),
            Self::Group { at_least, at_most, members } => {
                let sum: f64 = members.iter().map(|member| member.at(level)).sum();
                sum.max(*at_least).min(*at_most)
            }
        }
    }

    /// Distributes `amount` over the nodes within.
    fn pour(&self, amount: f64, shares: &mut [f64]) {
        match self {
            Self::Node { index, .. } => shares[*index] = amount,
            Self::Group { members, .. } => {
                let level = level_for(members, amount);
                for member in members {
                    member.pour(member.at(level), shares);
                }
            }
        }
    }
}

/// The level at which `members` together hold `amount`, or the highest that matters if they can't.
fn level_for(members: &[Vessel], amount: f64) -> f64 {
    // A node's weight is at least 1, so at this level all of them are full.
    let (mut low, mut high) = (0.0, amount);
    for _ in 0..HALVINGS {
        let middle = low + (high - low) / 2.0;
        let sum: f64 = members.iter().map(|member| member.at(middle)).sum();
        if sum < amount {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;
    use crate::ring::{Partitions, RingMember, Zone};

    /// Shares of nodes given as (weight, data centre, rack), for Q = 64.
    fn shares(replicas: usize, nodes: &[(u32, &str, &str)]) -> Vec<f64> {
        let member = |(id, &(weight, center, rack)): (u64, &(u32, &str, &str))| {
            RingMember::new(NodeId(id), weight, Zone::new(center, rack))
        };
        let members: Vec<RingMember> = (0..).zip(nodes).map(member).collect();
        let partitions = Partitions::new(64).expect("a power of two");
        fair_shares(&Placement::new(partitions, replicas, &members))
    }

    fn assert_near(shares: &[f64], expected: &[f64]) {
        assert_eq!(shares.len(), expected.len());
        let near = shares.iter().zip(expected).all(|(share, expected)| (share - expected).abs() < 1e-6);
        assert!(near, "{shares:?}, expected {expected:?}");
    }

    #[test]
    fn in_proportion_to_weight_but_never_twice_on_a_node() {
        assert_near(&shares(1, &[(300, "", ""), (100, "", "")]), &[48.0, 16.0]);
        let rest = 128.0 / 3.0;
        let strong = [(900, "", ""), (100, "", ""), (100, "", ""), (100, "", "")];
        assert_near(&shares(3, &strong), &[64.0, rest, rest, rest]);
    }

    #[test]
    fn a_large_data_center_holds_each_partition_once_while_there_are_others() {
        let nodes = [
            (1, "a", ""),
            (1, "b", ""),
            (1, "b", ""),
            (1, "c", ""),
            (1, "c", ""),
            (1, "c", ""),
            (1, "c", ""),
        ];
        let third = 64.0 / 3.0;
        assert_near(&shares(2, &nodes), &[third, third, third, 16.0, 16.0, 16.0, 16.0]);
    }

    #[test]
    fn a_small_data_center_holds_every_partition_when_there_are_too_few() {
        let nodes = [(1, "a", ""), (1, "b", "1"), (1, "b", "2"), (1, "b", "3"), (1, "b", "3")];
        // Of the three copies one is at "a"; the other two are in two of the three racks at "b".
        assert_near(&shares(3, &nodes), &[64.0, 32.0, 32.0, 32.0, 32.0]);
    }
}
