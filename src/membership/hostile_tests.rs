//! Records that no honest member tells. P12: whatever arrives, a node goes on, and all who heard the same make the same
//! ring of it.

use ringmain_schema::limits::MEMBERS_MAX;
use ringmain_schema::peer::{Gossip, MemberRecord, SettledRecord};

use super::records::tests::{exchange, node};
use super::{Membership, Word, node_id};
use crate::id::NodeId;
use crate::prng::Prng;

const FOUNDERS: [&str; 3] = ["a", "b", "c"];

fn born() -> [Membership; 3] {
    let mut nodes = FOUNDERS.map(|name| node(name, &FOUNDERS, false));
    for _ in 0..4 {
        for (one, other) in [(0, 1), (1, 2), (0, 2)] {
            let [left, right] = nodes.get_disjoint_mut([one, other]).unwrap();
            exchange(left, right);
        }
    }
    assert!(nodes.iter().all(|node| node.view().is_serving()));
    nodes
}

fn id(of: &Membership, name: &str) -> u64 {
    node_id(of.view().cluster, name).0
}

/// A member in the ring, of this name, as it may tell of itself.
fn record(of: &Membership, name: &str) -> MemberRecord {
    MemberRecord {
        node: id(of, name),
        name: name.to_owned(),
        host: "h".to_owned(),
        ordinary_port: 1,
        shard_ports: vec![2],
        incarnation: 1,
        heartbeat: 1,
        weight: 100,
        data_center: String::new(),
        rack: String::new(),
        intent: 1,
        intent_version: 1,
        complete: true,
        serving: true,
        place: 0,
        settled: Some(SettledRecord { version: 1, in_ring: true, weight: 100, ..SettledRecord::default() }),
        ring: 0,
        change: 0,
        step: 0,
        lacking: vec![],
        life: 0,
        succeeds: 0,
        earlier: None,
        bound: None,
        line: vec![],
        beginning: 0,
    }
}

/// Whoever hears it lives on: it has a view, tells it, and plans with it.
fn hear(of: &mut Membership, members: Vec<MemberRecord>) {
    let from = NodeId(id(of, "b"));
    of.on_gossip(from, &Gossip { ring: 0, members, partitions: 0, replicas: 0 });
    let view = of.view();
    let mut owners: Vec<NodeId> = view.ring.members().iter().map(|member| member.node).collect();
    owners.sort_unstable();
    assert!(owners.is_sorted_by(|left, right| left < right), "each once");
    let _ = (view.topology(), of.gossip());
    let _ = of.consider(&Word::Leave { name: "a".to_owned() });
}

fn ring_of(of: &Membership) -> u64 {
    of.view().ring.hash()
}

#[test]
fn places_that_several_claim_are_given_to_one_of_them() {
    let [mut node, mut other, _] = born();
    let claim = |name: &str, place| MemberRecord {
        settled: Some(SettledRecord { place, ..record(&node, name).settled.unwrap() }),
        place,
        ..record(&node, name)
    };
    let (a, x, y) = (id(&node, "a"), id(&node, "x"), id(&node, "y"));
    let all = [("x", y), ("y", x), ("z", a), ("u", u64::MAX), ("v", u64::MAX), ("c", a)];
    let told: Vec<MemberRecord> = all.iter().map(|(name, place)| claim(name, *place)).collect();
    hear(&mut node, told.clone());
    told.into_iter().rev().for_each(|record| hear(&mut other, vec![record]));
    assert_eq!(node.view().ring.members().len(), 8);
    assert_eq!(ring_of(&node), ring_of(&other), "in whatever order it was told");
}

#[test]
fn weights_and_versions_beyond_all_sense_are_not_believed() {
    let [mut node, ..] = born();
    let before = ring_of(&node);
    let settled = |change: fn(&mut SettledRecord)| {
        let mut record = record(&node, "x");
        change(record.settled.as_mut().unwrap());
        record
    };
    let nonsense = [
        MemberRecord { weight: 0, ..record(&node, "x") },
        settled(|settled| settled.weight = 0),
        settled(|settled| settled.version = u64::MAX),
        MemberRecord { intent_version: u64::MAX, ..record(&node, "x") },
        MemberRecord { heartbeat: u64::MAX, ..record(&node, "x") },
        MemberRecord { lacking: vec![u64::MAX; 5000], ..record(&node, "x") },
        MemberRecord { node: 77, ..record(&node, "x") },
        // A later release may have more intents and steps.
        MemberRecord { intent: 5, ..record(&node, "x") },
        MemberRecord { step: 3, ..record(&node, "x") },
    ];
    let heaviest = MemberRecord { weight: u32::MAX, ..settled(|settled| settled.weight = u32::MAX) };
    for nonsense in nonsense {
        hear(&mut node, vec![nonsense.clone()]);
        assert_eq!((ring_of(&node), node.view().members.len()), (before, 3), "{nonsense:?}");
    }
    hear(&mut node, vec![heaviest]);
    assert_eq!(node.view().ring.members().len(), 4);
}

/// One record with the greatest version there can be ended all operators' words: none is later, and whoever counted on
/// was not believed by anybody.
#[test]
fn a_version_that_leaves_no_room_does_not_stop_later_words() {
    for counter in [(1 << 48) - 1, 1 << 48, 1 << 40] {
        let [mut node, mut other, _] = born();
        for intent_version in [counter, counter - 1] {
            let settled = Some(SettledRecord { version: counter, ..record(&node, "c").settled.unwrap() });
            let told = [
                MemberRecord { intent_version, ..record(&node, "c") },
                MemberRecord { settled, ..record(&node, "c") },
                MemberRecord { incarnation: counter, ..record(&node, "a") },
            ];
            told.into_iter().for_each(|record| hear(&mut node, vec![record]));
        }
        let said = node.change(&Word::Weight { name: "c".to_owned(), weight: 7 }).unwrap();
        assert_eq!(said.changed.len(), 1);
        (0..3).for_each(|_| exchange(&mut node, &mut other));
        let weight = |of: &Membership| of.view().member(NodeId(id(of, "c"))).unwrap().weight;
        assert_eq!((weight(&node), weight(&other)), (7, 7));
        assert!(node.view().is_serving() && node.oneself().complete);
    }
}

/// A newcomer that hears of a cluster with a long past believes it, if not in the first second.
#[test]
fn many_words_that_were_said_in_truth_are_believed() {
    let [mut node, mut other, _] = born();
    let many = MemberRecord { intent_version: 300_000, weight: 7, ..record(&node, "c") };
    (0..20).for_each(|_| node.beat());
    hear(&mut node, vec![many]);
    let weight = |of: &Membership| of.view().member(NodeId(id(of, "c"))).unwrap().weight;
    assert_eq!(weight(&node), 7);
    for _ in 0..20 {
        exchange(&mut node, &mut other);
        other.beat();
    }
    assert_eq!(weight(&other), 7);
}

/// What is not understood of one member costs nothing that is told of another, or was known of the same one.
#[test]
fn a_record_of_a_later_release_leaves_the_others_as_they_are() {
    let [mut node, ..] = born();
    let known = node.view().member(NodeId(id(&node, "c"))).cloned();
    let later = MemberRecord { intent: 9, intent_version: 7, heartbeat: 99, ..record(&node, "c") };
    let guest = MemberRecord { intent: 4, settled: None, ..record(&node, "x") };
    hear(&mut node, vec![later, guest]);
    assert_eq!(node.view().member(NodeId(id(&node, "c"))).cloned(), known);
    assert!(node.view().member(NodeId(id(&node, "x"))).is_some());
}

#[test]
fn more_members_than_there_can_be_are_not_taken_in() {
    let [mut node, ..] = born();
    let many: Vec<MemberRecord> = (0..MEMBERS_MAX + 10).map(|x| record(&node, &format!("x{x}"))).collect();
    hear(&mut node, many);
    assert_eq!(node.view().members.len(), MEMBERS_MAX);
}

/// Records at random, told to two nodes in two orders.
#[test]
fn whatever_is_told_in_whatever_order_makes_one_ring() {
    let names = ["a", "b", "c", "x", "y", "z"];
    for seed in 0..150 {
        let mut prng = Prng::from_seed(seed);
        let [mut node, mut other, _] = born();
        let mut pick = |from: &[u64]| from[prng.below(from.len() as u64) as usize];
        let mut ids: Vec<u64> = names.iter().map(|name| id(&node, name)).collect();
        ids.extend([0, 1, u64::MAX]);
        let mut told = Vec::new();
        for round in 0..6 {
            let mut next = record(&node, names[3 + round % 3]);
            let settled = next.settled.as_mut().unwrap();
            (settled.in_ring, settled.place) = (pick(&[0, 1]) == 1, pick(&ids));
            (settled.version, settled.weight) =
                (pick(&[0, 1, 2, 1 << 48]), pick(&[1, 100, u64::from(u32::MAX)]) as u32);
            (next.intent, next.place) = (pick(&[1, 2, 3, 4]) as u8, pick(&ids));
            (next.intent_version, next.step) = (pick(&[0, 1, 2, 1 << 47]), pick(&[0, 1, 2]) as u8);
            told.push(next);
        }
        told.iter().for_each(|record| hear(&mut node, vec![record.clone()]));
        told.iter().rev().for_each(|record| hear(&mut other, vec![record.clone()]));
        exchange(&mut node, &mut other);
        exchange(&mut node, &mut other);
        assert_eq!(ring_of(&node), ring_of(&other), "seed {seed}");
    }
}
