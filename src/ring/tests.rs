//! What the ring promises, measured: balance, movement, distinct places, one ring for all.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::prng::Prng;

const REPLICAS: u8 = 3;

fn partitions(count: u32) -> Partitions {
    Partitions::new(count).expect("a power of two")
}

/// Members with names of chance, in one place.
fn members(count: usize, weight: fn(usize) -> u32, seed: u64) -> Vec<RingMember> {
    let mut prng = Prng::from_seed(seed);
    let member = |index| RingMember::new(NodeId(prng.next_u64()), weight(index), Zone::default());
    (0..count).map(member).collect()
}

fn uniform(_: usize) -> u32 {
    WEIGHT_ORDINARY
}

/// From half to twice the ordinary.
fn unequal(index: usize) -> u32 {
    50 + 50 * (index as u32 % 4)
}

fn loads(ring: &Ring) -> BTreeMap<NodeId, f64> {
    let mut loads: BTreeMap<_, _> = ring.members().iter().map(|member| (member.node, 0.0)).collect();
    for node in &ring.primaries {
        *loads.get_mut(node).expect("a primary is a member") += 1.0;
    }
    loads
}

/// The greatest distance of a node's load from its fair share, in proportion to that.
fn imbalance(ring: &Ring) -> f64 {
    let fair = fair::fair_shares(&Placement::new(ring.partitions, ring.replicas, &ring.members));
    let loads = loads(ring);
    let off = loads.values().zip(fair).map(|(load, fair)| (load - fair).abs() / fair);
    off.fold(0.0, f64::max)
}

/// How many copies of partitions have to be sent to someone who had none.
fn moved(from: &Ring, to: &Ring) -> f64 {
    let newly = |partition| {
        let list = to.preference_list(partition);
        list.primaries.iter().filter(|node| !from.is_primary(**node, partition)).count()
    };
    from.partitions().iter().map(newly).sum::<usize>() as f64
}

#[test]
fn thirty_nodes_hold_their_fair_share_and_a_change_moves_little_more_than_it_must() {
    const RUNS: u64 = 20;
    for (count, weight, name) in [
        (1024, uniform as fn(usize) -> u32, "equal weights"),
        (1024, unequal, "unequal weights"),
        (4096, uniform, "equal weights"),
        (4096, unequal, "unequal weights"),
    ] {
        let (mut worst, mut join, mut leave): (f64, f64, f64) = (0.0, 0.0, 0.0);
        for seed in 0..RUNS {
            let all = members(31, weight, seed);
            let after = Ring::new(partitions(count), REPLICAS, &all);
            let before = Ring::new(partitions(count), REPLICAS, &all[..30]);
            worst = worst.max(imbalance(&before));
            // What the newcomer holds has to come to it, what the leaver held to others.
            let least = loads(&after)[&all[30].node];
            join += moved(&before, &after) / least / RUNS as f64;
            leave += moved(&after, &before) / least / RUNS as f64;
        }
        println!("Q = {count}, {name}: {worst:.3} off, join {join:.3}, leave {leave:.3} of the least");
        assert!(worst <= 0.10, "a node {worst} off its fair share");
        assert!(join <= 1.25 && leave <= 1.25, "moved {join} and {leave} times the least possible");
    }
}

#[test]
fn a_thousand_nodes_are_even_too() {
    let ring = Ring::new(Partitions::default(), REPLICAS, &members(1000, uniform, 1));
    let loads = loads(&ring);
    // A fair share of 3.07: the band is that and one more or less, after rounding.
    assert!(loads.values().all(|load| (2.0..=4.0).contains(load)));
}

#[test]
fn data_centers_then_racks_are_distinct_while_there_are_others() {
    // (racks of each data centre, N, distinct data centres, distinct racks)
    for (centers, replicas, distinct_centers, distinct_racks) in [
        (&[3, 3, 3][..], 3, 3, 3),
        (&[1, 1, 4], 3, 3, 3),
        (&[2, 2], 3, 2, 3),
        (&[1, 1], 3, 2, 2),
        (&[4], 3, 1, 3),
        (&[2, 1], 5, 2, 3),
    ] {
        let mut all = members(24, unequal, 5);
        let racks =
            || centers.iter().enumerate().flat_map(|(center, &racks)| (0..racks).map(move |r| (center, r)));
        for (member, (center, rack)) in all.iter_mut().zip(racks().cycle()) {
            member.zone = Zone::new(&format!("center {center}"), &format!("rack {rack}"));
        }
        let zones: BTreeMap<NodeId, Zone> = all.iter().map(|member| (member.node, member.zone)).collect();
        let ring = Ring::new(partitions(4096), replicas, &all);
        for partition in ring.partitions().iter() {
            let owners = ring.preference_list(partition).primaries;
            let centers: BTreeSet<u64> = owners.iter().map(|node| zones[node].data_center()).collect();
            let racks: BTreeSet<u64> = owners.iter().map(|node| zones[node].rack()).collect();
            assert_eq!((centers.len(), racks.len()), (distinct_centers, distinct_racks));
        }
        let off = imbalance(&ring);
        println!("{centers:?} N = {replicas}: {off:.3} off");
        assert!(off <= 0.10, "{centers:?} N = {replicas}: a node {off} off its fair share");
    }
}

#[test]
fn a_small_cluster_holds_everything_everywhere() {
    for count in 0..=3 {
        let all = members(count, unequal, 3);
        let ring = Ring::new(partitions(64), REPLICAS, &all);
        assert_eq!(ring.replicas(), count);
        for partition in ring.partitions().iter() {
            let list = ring.preference_list(partition);
            assert_eq!((list.primaries.len(), list.fallbacks().len()), (count, 0));
            assert!(all.iter().all(|member| ring.is_primary(member.node, partition)));
        }
    }
}

#[test]
fn the_dead_are_replaced_by_all_others_alike() {
    let ring = Ring::new(partitions(4096), REPLICAS, &members(10, uniform, 8));
    let dead = ring.members()[0].node;
    let mut stand_ins = BTreeMap::<NodeId, u32>::new();
    for partition in ring.partitions().iter().filter(|partition| ring.is_primary(dead, *partition)) {
        let first = ring.preference_list(partition).fallbacks().next().expect("seven of them");
        *stand_ins.entry(first).or_default() += 1;
    }
    let mean = stand_ins.values().sum::<u32>() / 9;
    assert_eq!(stand_ins.len(), 9);
    assert!(stand_ins.values().all(|&count| count.abs_diff(mean) * 4 < mean), "{stand_ins:?}, mean {mean}");
}

#[test]
fn the_hash_tells_every_difference() {
    let all = members(5, uniform, 4);
    let hash = |count, replicas, all: &[RingMember]| Ring::new(partitions(count), replicas, all).hash();
    let mut hashes =
        BTreeSet::from([hash(64, 3, &all), hash(128, 3, &all), hash(64, 2, &all), hash(64, 3, &all[1..])]);
    let changes: [fn(&mut RingMember); 3] = [
        |member| member.weight += 1,
        |member| member.zone = Zone::new("here", ""),
        |member| member.zone = Zone::new("", "here"),
    ];
    for change in changes {
        let mut changed = all.clone();
        change(&mut changed[2]);
        hashes.insert(hash(64, 3, &changed));
    }
    assert_eq!(hashes.len(), 7);
}

/// Another ring of the same members would need a new `ALGORITHM_VERSION`.
#[test]
fn the_ring_is_the_same_on_every_machine_for_ever() {
    let ring = Ring::new(partitions(1024), REPLICAS, &members(30, unequal, 6));
    let bytes: Vec<u8> = ring
        .partitions()
        .iter()
        .flat_map(|partition| ring.preference_list(partition).iter())
        .flat_map(|node| node.0.to_le_bytes())
        .collect();
    assert_eq!((ring.hash(), xxh3_64(&bytes)), (7_455_854_649_328_928_777, 13_250_227_387_695_121_716));
}

fn any_members() -> impl Strategy<Value = Vec<RingMember>> {
    let weight = prop_oneof![Just(WEIGHT_ORDINARY), 1..1000u32, Just(u32::MAX)];
    let zone =
        (0..4u32, 0..3u32).prop_map(|(center, rack)| Zone::new(&center.to_string(), &rack.to_string()));
    prop::collection::btree_map(any::<u64>(), (weight, zone), 1..20).prop_map(|members| {
        let member = |(id, (weight, zone))| RingMember::new(NodeId(id), weight, zone);
        members.into_iter().map(member).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

    #[test]
    fn every_list_names_every_member_once_in_any_order_of_input(
        all in any_members(), replicas in 1..6u8, shuffle in any::<u64>(),
    ) {
        let ring = Ring::new(partitions(64), replicas, &all);
        let mut shuffled = all.clone();
        let mut prng = Prng::from_seed(shuffle);
        shuffled.sort_by_cached_key(|_| prng.next_u64());
        let other = Ring::new(partitions(64), replicas, &shuffled);
        prop_assert_eq!(ring.hash(), other.hash());
        let everyone: BTreeSet<NodeId> = all.iter().map(|member| member.node).collect();
        for partition in ring.partitions().iter() {
            let list: Vec<NodeId> = ring.preference_list(partition).iter().collect();
            prop_assert_eq!(list.len(), all.len());
            prop_assert_eq!(&list.iter().copied().collect::<BTreeSet<_>>(), &everyone);
            prop_assert_eq!(list, other.preference_list(partition).iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn primaries_are_distinct_and_in_distinct_places_while_there_are_others(
        all in any_members(), replicas in 1..6u8,
    ) {
        let zones: BTreeMap<NodeId, Zone> = all.iter().map(|member| (member.node, member.zone)).collect();
        let distinct = |nodes: &[NodeId]| {
            let centers: BTreeSet<u64> = nodes.iter().map(|node| zones[node].data_center()).collect();
            let racks: BTreeSet<u64> = nodes.iter().map(|node| zones[node].rack()).collect();
            let nodes: BTreeSet<NodeId> = nodes.iter().copied().collect();
            [nodes.len(), centers.len(), racks.len()]
        };
        let everywhere: Vec<NodeId> = zones.keys().copied().collect();
        let most = distinct(&everywhere).map(|there_are| there_are.min(usize::from(replicas)));
        let ring = Ring::new(partitions(64), replicas, &all);
        for partition in ring.partitions().iter() {
            let primaries = ring.preference_list(partition).primaries;
            prop_assert_eq!(primaries.len(), ring.replicas());
            prop_assert_eq!(distinct(primaries), most);
        }
    }

    #[test]
    fn fair_shares_fill_the_ring_and_no_node_beyond_one_copy(all in any_members(), replicas in 1..6usize) {
        let placement = Placement::new(partitions(64), replicas, &all);
        let fair = fair::fair_shares(&placement);
        prop_assert!((fair.iter().sum::<f64>() - 64.0 * placement.replicas as f64).abs() < 1e-6);
        prop_assert!(fair.iter().all(|&share| share > 0.0 && share <= 64.0 + 1e-6), "{:?}", fair);
    }
}

/// Thirty nodes and one more, of every weight from half to twice the ordinary, in places of chance.
fn scattered_members() -> impl Strategy<Value = Vec<RingMember>> {
    (1..6u64, 1..4u64, any::<u64>()).prop_map(|(centers, racks, seed)| {
        let mut prng = Prng::from_seed(seed);
        let mut scattered = members(31, uniform, seed);
        for member in &mut scattered {
            member.weight = 50 + prng.below(151) as u32;
            let (center, rack) = (prng.below(centers).to_string(), prng.below(racks).to_string());
            member.zone = Zone::new(&center, &rack);
        }
        scattered
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

    /// A place that is short of nodes gives each of them more than its weight says, and `fair` knows that. One
    /// partition more or less is rounding, which is much where a fair share is small.
    #[test]
    fn scattered_nodes_hold_their_fair_share_before_and_after_a_change(all in scattered_members()) {
        for members in [&all[..30], &all[..]] {
            let ring = Ring::new(partitions(1024), REPLICAS, members);
            let fair = fair::fair_shares(&Placement::new(ring.partitions, ring.replicas, &ring.members));
            for (load, fair) in loads(&ring).values().zip(fair) {
                prop_assert!((load - fair).abs() <= 0.10 * fair + 1.0, "{} of {}", load, fair);
            }
        }
    }
}

/// The promise of 1.25 says nothing of places. It is kept with places too, but with one or two data centres more
/// than replicas: there the mean of 20 was 1.33 (four) and 1.26 (five) when measured. It must not get worse.
#[test]
fn a_change_moves_little_more_than_it_must_wherever_nodes_stand() {
    const RUNS: u64 = 20;
    for (centers, most) in [(1, 1.25), (2, 1.25), (3, 1.25), (4, 1.35), (5, 1.30), (6, 1.25), (10, 1.25)] {
        let mut ratio = 0.0;
        for seed in 0..RUNS {
            let mut all = members(31, uniform, seed);
            for (index, member) in all.iter_mut().enumerate() {
                member.zone = Zone::new(&(index % centers).to_string(), "");
            }
            let after = Ring::new(partitions(1024), REPLICAS, &all);
            let before = Ring::new(partitions(1024), REPLICAS, &all[..30]);
            ratio += moved(&before, &after) / loads(&after)[&all[30].node] / RUNS as f64;
        }
        println!("{centers} data centers: {ratio:.3} of the least");
        assert!(ratio <= most, "{centers} data centers: moved {ratio} times the least possible");
    }
}
