//! What a change of members moves: the ring before beside the ring after.

use std::collections::BTreeMap;

use super::fair::fair_shares;
use super::placement::Placement;
use super::{Partitions, Ring};
use crate::id::NodeId;

/// The way from one ring to another, of the same partitions.
#[derive(Clone, PartialEq, Debug)]
pub struct Plan {
    /// Q, as a type that can number its partitions.
    pub partitions: Partitions,
    /// The effective N of the ring after: how many primaries each partition will have.
    pub replicas: usize,
    /// One for each member of either ring, in ascending order of their ids.
    pub moves: Vec<Move>,
}

/// What changes for one member.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Move {
    /// The member.
    pub node: NodeId,
    /// Partitions that it is a primary of before.
    pub before: u32,
    /// And after: `before + gains - loses`.
    pub after: u32,
    /// Partitions that it comes to own: a copy of each has to be sent to it.
    pub gains: u32,
    /// Partitions that it owns no more.
    pub loses: u32,
    /// How many it would own after if load could be split without rest; 0 if it isn't in the ring then.
    pub fair: f64,
}

impl Plan {
    /// From the ring `before` to the ring `after`.
    ///
    /// Panics if they are cut into different partitions: those are fixed for the life of a cluster.
    pub fn between(before: &Ring, after: &Ring) -> Self {
        assert_eq!(before.partitions, after.partitions, "two rings of different clusters");
        let mut moves = BTreeMap::new();
        for member in before.members.iter().chain(&after.members) {
            let node = member.node;
            moves.insert(node, Move { node, before: 0, after: 0, gains: 0, loses: 0, fair: 0.0 });
        }
        let mut at = |node: &NodeId, act: fn(&mut Move)| act(moves.get_mut(node).expect("it is a member"));
        for partition in before.partitions.iter() {
            let old = before.preference_list(partition).primaries;
            let new = after.preference_list(partition).primaries;
            old.iter().for_each(|node| at(node, |moved| moved.before += 1));
            new.iter().for_each(|node| at(node, |moved| moved.after += 1));
            old.iter().filter(|node| !new.contains(node)).for_each(|node| at(node, |moved| moved.loses += 1));
            new.iter().filter(|node| !old.contains(node)).for_each(|node| at(node, |moved| moved.gains += 1));
        }
        let fair = fair_shares(&Placement::new(after.partitions, after.replicas, &after.members));
        for (member, fair) in after.members.iter().zip(fair) {
            moves.get_mut(&member.node).expect("it is a member").fair = fair;
        }
        Self { partitions: after.partitions, replicas: after.replicas, moves: moves.into_values().collect() }
    }

    /// How many copies of partitions have to be sent to somebody who had none.
    pub fn streamed(&self) -> u64 {
        self.moves.iter().map(|moved| u64::from(moved.gains)).sum()
    }

    /// No way to these shares sends fewer copies: who owns more than before has to be sent the difference.
    pub fn least(&self) -> u64 {
        self.moves.iter().map(|moved| u64::from(moved.after.saturating_sub(moved.before))).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prng::Prng;
    use crate::ring::{RingMember, WEIGHT_ORDINARY, Zone};
    use proptest::prelude::*;

    fn ring(replicas: u8, members: &[RingMember]) -> Ring {
        Ring::new(Partitions::new(64).expect("a power of two"), replicas, members)
    }

    fn members(count: usize) -> Vec<RingMember> {
        let mut prng = Prng::from_seed(7);
        let mut member = || RingMember::new(NodeId(prng.next_u64()), WEIGHT_ORDINARY, Zone::default());
        (0..count).map(|_| member()).collect()
    }

    #[test]
    fn a_fourth_member_takes_its_share_from_the_others_alone() {
        let four = members(4);
        let newcomer = four[3].node;
        let plan = Plan::between(&ring(3, &four[..3]), &ring(3, &four));
        for moved in &plan.moves {
            let (has_before, only_loses) = if moved.node == newcomer { (0, false) } else { (64, true) };
            assert_eq!((moved.before, moved.gains == 0, moved.fair), (has_before, only_loses, 48.0));
        }
        let newcomers = plan.moves.iter().find(|moved| moved.node == newcomer).expect("it is in the plan");
        assert_eq!((plan.streamed(), plan.least()), (newcomers.gains.into(), newcomers.after.into()));
    }

    #[test]
    fn below_n_everybody_holds_everything() {
        let three = members(3);
        let plan = Plan::between(&ring(3, &three), &ring(3, &three[..2]));
        assert_eq!((plan.replicas, plan.streamed(), plan.least()), (2, 0, 0));
        let gone = plan.moves.iter().find(|moved| moved.node == three[2].node).expect("it is in the plan");
        assert_eq!((gone.before, gone.after, gone.loses, gone.fair), (64, 0, 64, 0.0));
        let back = Plan::between(&ring(3, &three[..2]), &ring(3, &three));
        assert_eq!((back.streamed(), back.least()), (64, 64));
    }

    #[test]
    fn who_takes_a_place_takes_all_of_it_and_nothing_else_moves() {
        let five = members(5);
        let (old, new) = (five[0].node, NodeId(1));
        let mut replaced = five.clone();
        replaced[0].node = new;
        let plan = Plan::between(&ring(3, &five), &ring(3, &replaced));
        for moved in &plan.moves {
            let (gains, loses) = (moved.node == new, moved.node == old);
            assert_eq!((moved.gains > 0, moved.loses > 0), (gains, loses), "{moved:?}");
        }
        assert_eq!(plan.streamed(), plan.least());
    }

    #[test]
    fn the_first_member_is_sent_everything_there_is() {
        let plan = Plan::between(&ring(3, &[]), &ring(3, &members(1)));
        assert_eq!((plan.replicas, plan.streamed(), plan.moves[0].fair), (1, 64, 64.0));
    }

    /// Up to twelve members of every weight in a few places, of which the first and last few are in one of the rings only.
    fn two_rings() -> impl Strategy<Value = (Ring, Ring)> {
        let weight = prop_oneof![Just(WEIGHT_ORDINARY), 1..10_000u32];
        let member = (weight, 0..3u32, any::<bool>());
        let members = prop::collection::btree_map(any::<u64>(), member, 1..12);
        (members, 0..4usize, 0..4usize, 1..5u8).prop_map(|(members, only_after, only_before, replicas)| {
            let member = |(id, (weight, center, _))| {
                RingMember::new(NodeId(id), weight, Zone::new(&format!("{center}"), ""))
            };
            let before: Vec<_> = members.iter().map(|(&id, &place)| member((id, place))).collect();
            let mut after = before.clone();
            // Some weigh double afterwards.
            let heavier = |member: &mut RingMember| {
                member.weight *= 1 + u32::from(members[&member.node.0].2);
            };
            after.iter_mut().for_each(heavier);
            let (from, to) = (only_after.min(before.len()), after.len().saturating_sub(only_before));
            (ring(replicas, &before[from..]), ring(replicas, &after[..to]))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

        #[test]
        fn the_sums_are_right((before, after) in two_rings()) {
            let plan = Plan::between(&before, &after);
            let sum = |count: fn(&Move) -> u32| plan.moves.iter().map(|moved| u64::from(count(moved))).sum::<u64>();
            for moved in &plan.moves {
                prop_assert_eq!(moved.before + moved.gains, moved.after + moved.loses);
                prop_assert!(moved.gains <= moved.after && moved.loses <= moved.before);
            }
            prop_assert_eq!(sum(|moved| moved.before), 64 * before.replicas() as u64);
            prop_assert_eq!(sum(|moved| moved.after), 64 * after.replicas() as u64);
            prop_assert!(plan.least() <= plan.streamed());
            let fair: f64 = plan.moves.iter().map(|moved| moved.fair).sum();
            prop_assert!((fair - 64.0 * after.replicas() as f64).abs() < 1e-6);
        }

        #[test]
        fn the_way_back_gains_what_the_way_lost((before, after) in two_rings()) {
            let (way, back) = (Plan::between(&before, &after), Plan::between(&after, &before));
            for (there, here) in way.moves.iter().zip(&back.moves) {
                prop_assert_eq!((there.node, there.gains, there.loses), (here.node, here.loses, here.gains));
            }
            let stay = Plan::between(&after, &after);
            prop_assert_eq!((stay.streamed(), stay.least()), (0, 0));
        }
    }
}
