//! In how many zones a write is (racks, or data centres if there are several).
//!
//! An owner and its zone stay. What a fallback holds moves when it is handed over: from the zone where the fallback
//! stands to the zone of the owner. So a write is counted in the zones that it is in whatever is handed over first, or a
//! write that was acknowledged in two zones could come to be in one.

use smallvec::SmallVec;

/// Where a copy is, and where it will be; the same for an owner's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stand {
    pub(super) now: u64,
    pub(super) later: u64,
}

/// The zones that the copies are in at least, whichever of them have been handed over.
pub(super) fn least_zones(stands: impl Iterator<Item = Stand>) -> usize {
    let (stay, move_on): (Stands, Stands) = stands.partition(|stand| stand.now == stand.later);
    let mut zones = SmallVec::new();
    stay.iter().for_each(|stand| insert(&mut zones, stand.now));
    least(&zones, &move_on)
}

/// Distinct zones.
pub(super) fn span(zones: impl Iterator<Item = u64>) -> usize {
    let mut distinct = SmallVec::new();
    zones.for_each(|zone| insert(&mut distinct, zone));
    distinct.len()
}

type Zones = SmallVec<[u64; 8]>;
type Stands = SmallVec<[Stand; 8]>;

/// Each copy that moves is in a zone that counts already, or adds one of its two. They are few: at most one for each
/// owner that can't be reached.
fn least(zones: &Zones, moving: &[Stand]) -> usize {
    let is_new = |stand: &&Stand| !zones.contains(&stand.now) && !zones.contains(&stand.later);
    let Some(first) = moving.iter().position(|stand| is_new(&stand)) else { return zones.len() };
    let with = |zone| {
        let mut more = zones.clone();
        more.push(zone);
        least(&more, &moving[first + 1..])
    };
    with(moving[first].now).min(with(moving[first].later))
}

fn insert(zones: &mut Zones, zone: u64) {
    if !zones.contains(&zone) {
        zones.push(zone);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Owners, PutQuorum, PutVerdict};
    use super::*;
    use crate::id::NodeId;

    /// Node 17 stands in zone 1, the seventh there.
    fn zone(node: NodeId) -> u64 {
        node.0 / 10
    }

    const OWNERS: [NodeId; 3] = [NodeId(11), NodeId(12), NodeId(21)];

    fn put(needed: u8, zones: u8) -> PutQuorum {
        PutQuorum::new(needed, &OWNERS).with_zones(zones, zone)
    }

    fn is_enough(put: &PutQuorum) -> bool {
        matches!(put.verdict(), PutVerdict::Enough(_))
    }

    fn with_fallback(put: &mut PutQuorum, node: u64, target: u64) {
        put.on_failure(NodeId(target));
        put.add_fallback(NodeId(node), NodeId(target), zone(NodeId(node)));
        put.on_durable(NodeId(node));
    }

    #[test]
    fn copies_in_one_zone_are_not_copies_in_two() {
        for (zones, expected) in [(0, true), (1, true), (2, false)] {
            let mut put = put(2, zones);
            put.on_durable(OWNERS[0]);
            put.on_durable(OWNERS[1]);
            assert_eq!(is_enough(&put), expected, "{zones} zones");
            put.on_failure(OWNERS[2]);
            assert_eq!(matches!(put.verdict(), PutVerdict::Missed { .. }), !expected);
        }
        let mut put = put(1, 2);
        put.on_durable(OWNERS[0]);
        assert!(!is_enough(&put), "W is there, the second zone isn't");
        put.on_durable(OWNERS[2]);
        assert!(is_enough(&put));
    }

    #[test]
    fn a_fallback_counts_in_the_zone_that_its_copy_is_in_and_will_be_in() {
        let mut home = put(2, 2);
        home.on_durable(OWNERS[0]);
        with_fallback(&mut home, 22, 21);
        assert!(is_enough(&home), "it stands where the owner stands");

        let mut third = put(2, 2);
        third.on_durable(OWNERS[0]);
        with_fallback(&mut third, 31, 21);
        assert!(is_enough(&third), "in zone 3, then in zone 2");

        // Counted as a second zone, it would have gone home to the first.
        let mut away = put(2, 2);
        away.on_durable(OWNERS[0]);
        with_fallback(&mut away, 22, 12);
        assert!(!is_enough(&away));
        with_fallback(&mut away, 31, 21);
        assert!(is_enough(&away), "whatever is handed over first");
    }

    #[test]
    fn the_order_of_handing_over_does_not_matter() {
        let stand = |now, later| Stand { now, later };
        for (stands, zones) in [
            (&[stand(1, 1), stand(2, 2)][..], 2),
            (&[stand(1, 2), stand(2, 1)], 1),
            (&[stand(3, 2), stand(4, 3)], 1),
            (&[stand(1, 1), stand(3, 2), stand(5, 4)], 3),
            (&[stand(2, 3), stand(1, 1), stand(3, 2)], 2),
            (&[], 0),
        ] {
            assert_eq!(least_zones(stands.iter().copied()), zones, "{stands:?}");
        }
    }

    /// The owners move from zones 1, 1, 2 to 1, 2, 2.
    #[test]
    fn while_the_ring_changes_both_sets_span_the_zones() {
        let successors = [NodeId(11), NodeId(21), NodeId(22)];
        let moving = Owners { primaries: &OWNERS, successors: &successors };
        let mut put = PutQuorum::new(1, moving).with_zones(2, zone);
        put.on_durable(NodeId(12));
        put.on_durable(NodeId(22));
        assert!(!is_enough(&put), "each set has a copy, in one zone");
        put.on_durable(NodeId(21));
        assert!(!is_enough(&put), "of the owners to be none is in zone 1");
        put.on_durable(NodeId(11));
        assert!(is_enough(&put));
    }

    #[test]
    fn a_set_in_one_zone_is_not_asked_for_two() {
        let successors = [NodeId(11), NodeId(21)];
        let growing = Owners { primaries: &OWNERS[..2], successors: &successors };
        let mut put = PutQuorum::new(1, growing).with_zones(2, zone);
        put.on_durable(NodeId(11));
        assert!(!is_enough(&put));
        put.on_durable(NodeId(21));
        assert!(is_enough(&put));
        assert!(put.regroup(Owners::from(&successors), zone));
        assert!(is_enough(&put));
    }
}
