//! Who becomes a primary, given bids: the cheapest nodes, spread over data centres and racks.

use std::collections::BTreeMap;

use super::score::Bid;
use super::{Partitions, RingMember};

/// The members as the algorithm sees them: by index in ascending order of their ids.
pub(super) struct Placement {
    pub(super) partitions: u32,
    /// The effective N: at most the number of nodes.
    pub(super) replicas: usize,
    /// Each at least 1.
    pub(super) weight: Vec<f64>,
    /// `0 <= data_center < data_center_count`, by node
    pub(super) data_center: Vec<u16>,
    /// `0 <= rack < rack_count`, by node; racks of different data centres differ.
    pub(super) rack: Vec<u16>,
    pub(super) data_center_count: usize,
    pub(super) rack_count: usize,
}

impl Placement {
    pub(super) fn new(partitions: Partitions, replicas: usize, members: &[RingMember]) -> Self {
        let (data_center, data_center_count) = numbered(members.iter().map(|m| m.zone.data_center()));
        let (rack, rack_count) = numbered(members.iter().map(|m| m.zone.rack()));
        Self {
            partitions: partitions.count(),
            replicas: replicas.min(members.len()),
            weight: members.iter().map(|member| f64::from(member.weight)).collect(),
            data_center,
            rack,
            data_center_count,
            rack_count,
        }
    }

    pub(super) fn nodes(&self) -> usize {
        self.weight.len()
    }

    /// Fills `chosen` with the primaries' priced bids: first the cheapest node of each of the cheapest data
    /// centres, then, if there are fewer of these than replicas, of racks not yet taken, then any nodes.
    ///
    /// `bids` are in ascending order without prices, so the search ends as soon as not even the lowest price
    /// could make a later one matter.
    pub(super) fn choose(&self, bids: &[Bid], prices: &Prices, chosen: &mut Vec<Bid>) {
        chosen.clear();
        self.choose_distinct(
            |node| usize::from(self.data_center[node]),
            self.data_center_count,
            bids,
            prices,
            chosen,
        );
        self.choose_distinct(|node| usize::from(self.rack[node]), self.rack_count, bids, prices, chosen);
        self.choose_distinct(|node| node, self.nodes(), bids, prices, chosen);
        debug_assert_eq!(chosen.len(), self.replicas);
    }

    /// Adds the cheapest nodes of groups that have none yet, one for each group, until there are enough
    /// replicas or no more groups.
    fn choose_distinct(
        &self,
        group_of: impl Fn(usize) -> usize,
        group_count: usize,
        bids: &[Bid],
        prices: &Prices,
        chosen: &mut Vec<Bid>,
    ) {
        let settled = chosen.len();
        // All settled ones lie in different groups: the coarser groups they were chosen by contain these.
        let full = self.replicas.min(group_count);
        if settled >= full {
            return;
        }
        for &bid in bids {
            if chosen.len() == full && bid.cost() * prices.least > chosen[full - 1].cost() {
                return;
            }
            let group = group_of(bid.node());
            if chosen[..settled].iter().any(|taken| group_of(taken.node()) == group) {
                continue;
            }
            let priced = prices.apply(bid);
            match chosen[settled..].iter().position(|rival| group_of(rival.node()) == group) {
                Some(at) if chosen[settled + at] < priced => continue,
                Some(at) => drop(chosen.remove(settled + at)),
                None if chosen.len() < full => {}
                None if chosen[full - 1] < priced => continue,
                None => chosen.truncate(full - 1),
            }
            let at = settled + chosen[settled..].partition_point(|rival| *rival < priced);
            chosen.insert(at, priced);
        }
    }
}

/// One price for each node: by what its bids are multiplied.
pub(super) struct Prices {
    /// By node; each greater than 0.
    prices: Vec<f64>,
    /// None is lower.
    least: f64,
}

impl Prices {
    /// The bids as they are.
    pub(super) fn even(nodes: usize) -> Self {
        Self { prices: vec![1.0; nodes], least: 1.0 }
    }

    /// Multiplies each price by its own factor.
    pub(super) fn adjust(&mut self, factors: impl Iterator<Item = f64>) {
        for (price, factor) in self.prices.iter_mut().zip(factors) {
            debug_assert!(factor > 0.0);
            *price *= factor;
        }
        self.least = self.prices.iter().copied().fold(f64::INFINITY, f64::min);
    }

    pub(super) fn apply(&self, bid: Bid) -> Bid {
        Bid::new(bid.cost() * self.prices[bid.node()], bid.node())
    }
}

/// Numbers equal names alike from 0, in ascending order of the names; and how many there are.
fn numbered(names: impl Iterator<Item = u64> + Clone) -> (Vec<u16>, usize) {
    let mut numbers: BTreeMap<u64, u16> = names.clone().map(|name| (name, 0)).collect();
    for (number, place) in (0..).zip(numbers.values_mut()) {
        *place = number;
    }
    (names.map(|name| numbers[&name]).collect(), numbers.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;
    use crate::prng::Prng;
    use crate::ring::Zone;

    /// Step by step and without an early end: the cheapest node in a new data centre, else in a new rack, else any.
    fn choose_plainly(placement: &Placement, bids: &[Bid], prices: &Prices) -> Vec<Bid> {
        let mut rest: Vec<Bid> = bids.iter().map(|bid| prices.apply(*bid)).collect();
        rest.sort_unstable();
        let mut chosen: Vec<Bid> = vec![];
        while chosen.len() < placement.replicas {
            let is_new = |place: &[u16], bid: &Bid| {
                chosen.iter().all(|taken| place[taken.node()] != place[bid.node()])
            };
            let by_center = rest.iter().position(|bid| is_new(&placement.data_center, bid));
            let by_rack = || rest.iter().position(|bid| is_new(&placement.rack, bid));
            let next = by_center.or_else(by_rack).unwrap_or(0);
            chosen.push(rest.remove(next));
        }
        chosen
    }

    #[test]
    fn the_short_search_chooses_as_the_plain_one() {
        let mut prng = Prng::from_seed(11);
        for _ in 0..2_000 {
            let nodes = 1 + prng.below(40);
            let (centers, racks, replicas) =
                (1 + prng.below(5), 1 + prng.below(4), 1 + prng.below(6) as usize);
            let mut member = |id| {
                let (center, rack) = (prng.below(centers).to_string(), prng.below(racks).to_string());
                RingMember::new(NodeId(id), 100, Zone::new(&center, &rack))
            };
            let members: Vec<RingMember> = (0..nodes).map(&mut member).collect();
            let placement = Placement::new(Partitions::default(), replicas, &members);
            let mut bids: Vec<Bid> = (0..placement.nodes()).map(|node| Bid::new(prng.unit(), node)).collect();
            bids.sort_unstable();
            let mut prices = Prices::even(placement.nodes());
            prices.adjust((0..nodes).map(|_| 0.5 + prng.unit()));
            let mut chosen = vec![];
            placement.choose(&bids, &prices, &mut chosen);
            assert_eq!(chosen, choose_plainly(&placement, &bids, &prices));
        }
    }
}
