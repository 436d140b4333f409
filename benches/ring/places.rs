//! How evenly the ring places partitions, how little a change moves, and what it takes to compute.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ringmain::id::NodeId;
use ringmain::prng::Prng;
use ringmain::ring::{Partitions, Plan, Ring, RingMember, Zone};

const REPLICAS: u8 = 3;
const NODES: usize = 30;
const RUNS: u64 = 20;

/// Of thirty nodes whose weights run from half to twice the ordinary.
#[derive(Debug)]
pub(crate) struct Balance {
    /// The greatest distance from a fair share, in proportion to that, over all runs.
    pub(crate) off_max: f64,
    /// Copies that move when a thirty-first joins, as a multiple of the least possible: mean over all runs.
    pub(crate) join: f64,
    /// When it leaves.
    pub(crate) leave: f64,
}

pub(crate) fn balance(partitions: u32) -> Balance {
    let mut balance = Balance { off_max: 0.0, join: 0.0, leave: 0.0 };
    for seed in 0..RUNS {
        let all = members(NODES + 1, seed);
        let [before, after] = [&all[..NODES], &all].map(|members| ring(partitions, members));
        balance.off_max = balance.off_max.max(imbalance(&before));
        // What the newcomer holds has to come to it, what the leaver held to others.
        let held = loads(&after)[&all[NODES].node];
        balance.join += Plan::between(&before, &after).streamed() as f64 / held / RUNS as f64;
        balance.leave += Plan::between(&after, &before).streamed() as f64 / held / RUNS as f64;
    }
    balance
}

/// Of so many nodes: the least of some runs, as what another load takes away is none of the ring's.
pub(crate) fn time_to_compute(nodes: usize) -> Duration {
    let times = [(); 9].map(|()| {
        let all = members(nodes, 1);
        let begun = Instant::now();
        std::hint::black_box(ring(1024, std::hint::black_box(&all)));
        begun.elapsed()
    });
    times.into_iter().min().expect("nine runs")
}

fn ring(partitions: u32, members: &[RingMember]) -> Ring {
    Ring::new(Partitions::new(partitions).expect("a power of two"), REPLICAS, members)
}

/// With names of chance.
fn members(count: usize, seed: u64) -> Vec<RingMember> {
    let mut prng = Prng::from_seed(seed);
    let weight = |index: usize| 50 + 50 * (index as u32 % 4);
    let member = |index| RingMember::new(NodeId(prng.next_u64()), weight(index), Zone::default());
    (0..count).map(member).collect()
}

fn loads(ring: &Ring) -> BTreeMap<NodeId, f64> {
    let mut loads: BTreeMap<_, _> = ring.members().iter().map(|member| (member.node, 0.0)).collect();
    for partition in ring.partitions().iter() {
        for node in ring.preference_list(partition).primaries {
            *loads.get_mut(node).expect("a primary is a member") += 1.0;
        }
    }
    loads
}

fn imbalance(ring: &Ring) -> f64 {
    let all: f64 = ring.members().iter().map(|member| f64::from(member.weight)).sum();
    let copies = f64::from(ring.partitions().count()) * f64::from(REPLICAS);
    let loads = loads(ring);
    let off = ring.members().iter().map(|member| {
        let fair = copies * f64::from(member.weight) / all;
        (loads[&member.node] - fair).abs() / fair
    });
    off.fold(0.0, f64::max)
}
