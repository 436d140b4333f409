//! A put or delete under way.

use smallvec::SmallVec;

use crate::id::NodeId;

use super::owners::{Owners, Sets, share};
use super::zones::{Stand, least_zones, span};
use super::{Basis, Role};

/// Counts the acknowledgements of one write.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PutQuorum {
    /// W, of each set of owners; 0 for a majority of each.
    needed: u8,
    /// Of these so many must be owners themselves.
    primaries_needed: u8,
    /// And in so many zones must copies be.
    zones_needed: u8,
    /// There are two sets of owners.
    is_changing: bool,
    /// Each owner; then those who stand in for one.
    replicas: SmallVec<[Replica; 4]>,
}

/// One who is told.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Replica {
    node: NodeId,
    /// For whom it holds the write: for itself, or for an owner that can't be reached.
    target: NodeId,
    /// The target's.
    sets: Sets,
    /// Where it stands; 0 if nobody asks.
    zone: u64,
    acknowledgement: Acknowledgement,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Acknowledgement {
    Awaited,
    Durable,
    Failed,
    /// It is there, and has no room for the write.
    Declined,
}

/// What is known of a write's outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PutVerdict {
    /// Wait on.
    Pending,
    /// W durable acknowledgements.
    Enough(Basis),
    /// W can't be reached any more; it may be applied all the same.
    Missed {
        /// Durable acknowledgements so far.
        acks: Basis,
    },
}

impl PutQuorum {
    /// A write of which the owners are told, and `needed` of each set must hold it durably: at most all of the set, and
    /// a majority if that is 0.
    pub fn new<'a>(needed: u8, owners: impl Into<Owners<'a>>) -> Self {
        let owners = owners.into();
        let awaited = |node| Replica::owner(node, owners, Acknowledgement::Awaited);
        let replicas = owners.iter().map(awaited).collect();
        let is_changing = owners.is_changing();
        Self { needed, primaries_needed: 0, zones_needed: 0, is_changing, replicas }
    }

    /// The same, but so many of the acknowledgements must be the owners' own.
    #[must_use]
    pub fn with_primaries(mut self, primaries_needed: u8) -> Self {
        self.primaries_needed = primaries_needed;
        self
    }

    /// The same, but there must be copies in so many zones, and stay there whatever is handed over. `zone` tells where a
    /// node stands.
    #[must_use]
    pub fn with_zones(mut self, zones_needed: u8, zone: impl Fn(NodeId) -> u64) -> Self {
        self.zones_needed = zones_needed;
        self.replicas.iter_mut().for_each(|replica| replica.zone = zone(replica.node));
        self
    }

    /// Others own the key now. Who acknowledged has it still; all other owners must be told, those too that were told
    /// before. False if nothing has changed.
    pub fn regroup(&mut self, owners: Owners<'_>, zone: impl Fn(NodeId) -> u64) -> bool {
        let known = self.owners().map(|replica| (replica.node, replica.sets));
        if known.eq(owners.iter().map(|node| (node, owners.sets(node)))) {
            return false;
        }
        let before = std::mem::take(&mut self.replicas);
        let is_durable = |replica: &&Replica| replica.acknowledgement == Acknowledgement::Durable;
        let durable = || before.iter().filter(is_durable);
        let carried_over = |node| {
            let held = durable().any(|replica| replica.node == node && replica.is_owner());
            let acknowledgement = if held { Acknowledgement::Durable } else { Acknowledgement::Awaited };
            Replica::owner(node, owners, acknowledgement)
        };
        let stand_ins = durable().filter(|replica| !replica.is_owner() && owners.contains(replica.target));
        let stand_ins = stand_ins.map(|replica| Replica { sets: owners.sets(replica.target), ..*replica });
        self.replicas = owners.iter().map(carried_over).chain(stand_ins).collect();
        self.replicas.iter_mut().for_each(|replica| replica.zone = zone(replica.node));
        self.is_changing = owners.is_changing();
        true
    }

    /// A fallback in `zone` was told to keep the write for an owner that can't be reached. A node that is told already
    /// is told once.
    pub fn add_fallback(&mut self, node: NodeId, target: NodeId, zone: u64) {
        let owner = self.owners().find(|owner| owner.node == target).copied();
        if let Some(owner) = owner
            && self.nodes().all(|known| known != node)
        {
            let acknowledgement = Acknowledgement::Awaited;
            self.replicas.push(Replica { node, zone, acknowledgement, ..owner });
        }
    }

    /// `node` holds the write on stable storage. Twice is once.
    pub fn on_durable(&mut self, node: NodeId) {
        self.set(node, Acknowledgement::Durable);
    }

    /// `node` refused, or can't be reached. An acknowledgement that came before stands.
    pub fn on_failure(&mut self, node: NodeId) {
        self.set(node, Acknowledgement::Failed);
    }

    /// `node` can be reached, and its memory is full: nobody keeps the write for it, since it will have no more room for that either.
    pub fn on_declined(&mut self, node: NodeId) {
        let is_owner = self.owners().any(|owner| owner.node == node);
        self.set(node, if is_owner { Acknowledgement::Declined } else { Acknowledgement::Failed });
    }

    /// One who stood in for another before it came to own the key itself is here twice, and has acknowledged the first.
    fn set(&mut self, node: NodeId, to: Acknowledgement) {
        let mut open = self.replicas.iter_mut().filter(|replica| !replica.is_durable());
        if let Some(replica) = open.find(|replica| replica.node == node) {
            replica.acknowledgement = to;
        }
    }

    /// Durable acknowledgements so far, of distinct nodes. An owner and who stands in for it count as one: a fallback
    /// drops what it kept as soon as the owner has it. While the ring changes, who owns the key by one set may stand in for
    /// an owner of the other, by which readers go: it counts as what it is for either.
    pub fn acks(&self) -> Basis {
        let all = basis(&self.held(Sets::BOTH, Replica::is_durable));
        if !self.is_changing {
            return all;
        }
        let of_set = |set| basis(&self.held(set, Replica::is_durable)).fallbacks;
        let fallbacks = of_set(Sets::PRIMARIES).max(of_set(Sets::SUCCESSORS)).max(all.fallbacks);
        Basis { primaries: all.nodes - fallbacks, fallbacks, nodes: all.nodes }
    }

    /// W, of the set that needs more.
    pub fn needed(&self) -> u8 {
        share(self.needed, self.members(Sets::PRIMARIES))
            .max(share(self.needed, self.members(Sets::SUCCESSORS)))
    }

    /// Who has acknowledged, or still may.
    pub fn hopeful(&self) -> impl Iterator<Item = NodeId> {
        self.replicas.iter().filter(|replica| !replica.has_failed()).map(|replica| replica.node)
    }

    /// All who are told, or have been.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.replicas.iter().map(|replica| replica.node)
    }

    /// Owners that were told, and have neither acknowledged nor failed.
    pub fn awaited(&self) -> impl Iterator<Item = NodeId> {
        let awaited = self.owners().filter(|owner| owner.acknowledgement == Acknowledgement::Awaited);
        awaited.map(|owner| owner.node)
    }

    /// Owners that need somebody to stand in for them and have nobody: those that failed, and with `silent` all that
    /// have not acknowledged.
    pub fn unattended(&self, silent: bool) -> impl Iterator<Item = NodeId> {
        let missing = move |owner: &&Replica| {
            owner.acknowledgement != Acknowledgement::Declined
                && (owner.has_failed() || silent && !owner.is_durable())
        };
        let alone = |owner: &&Replica| !self.stand_ins_of(owner.node).any(|replica| !replica.has_failed());
        self.owners().filter(missing).filter(alone).map(|owner| owner.node)
    }

    /// Decide by what is known.
    pub fn verdict(&self) -> PutVerdict {
        if self.suffices(Replica::is_durable) {
            PutVerdict::Enough(self.acks())
        } else if self.suffices(|replica| !replica.has_failed()) {
            PutVerdict::Pending
        } else {
            PutVerdict::Missed { acks: self.acks() }
        }
    }

    /// Are these enough: W of each set, in as many zones as the set can be, and together as many distinct nodes?
    fn suffices(&self, which: impl Fn(&Replica) -> bool + Copy) -> bool {
        let enough = |set: Sets, held: &Held<'_>| {
            let (basis, needed) = (basis(held), share(self.needed, self.members(set)));
            basis.nodes >= needed
                && basis.primaries >= self.primaries_needed.min(needed)
                && self.is_wide(held, || self.span(set))
        };
        let all = self.held(Sets::BOTH, which);
        if !self.is_changing {
            return enough(Sets::PRIMARIES, &all) && self.is_wide(&all, || usize::MAX);
        }
        let each = [Sets::PRIMARIES, Sets::SUCCESSORS];
        each.into_iter().all(|set| enough(set, &self.held(set, which)))
            && basis(&all).nodes >= self.needed()
            && self.is_wide(&all, || usize::MAX)
    }

    /// Are these in as many zones as were asked for, or in `most`?
    fn is_wide(&self, held: &Held<'_>, most: impl Fn() -> usize) -> bool {
        let stand = |[owner, holder]: &[&Replica; 2]| Stand { now: holder.zone, later: owner.zone };
        // Whatever is held at all is in one.
        self.zones_needed <= 1
            || least_zones(held.iter().map(stand)) >= usize::from(self.zones_needed).min(most())
    }

    /// For each owner in these sets, itself or one of those who stand in for it; each node once.
    fn held(&self, sets: Sets, which: impl Fn(&Replica) -> bool) -> Held<'_> {
        let owners = || self.owners().filter(|owner| owner.sets.meets(sets));
        let mut held: Held<'_> = owners().filter(|owner| which(owner)).map(|owner| [owner, owner]).collect();
        for owner in owners().filter(|owner| !which(owner)) {
            let mut stand_ins = self.stand_ins_of(owner.node).filter(|replica| which(replica));
            let is_new = |replica: &&Replica| !held.iter().any(|[_, holder]| holder.node == replica.node);
            if let Some(stand_in) = stand_ins.find(is_new) {
                held.push([owner, stand_in]);
            }
        }
        held
    }

    /// How many zones the owners of a set stand in.
    fn span(&self, set: Sets) -> usize {
        span(self.owners().filter(|owner| owner.sets.meets(set)).map(|owner| owner.zone))
    }

    fn owners(&self) -> impl Iterator<Item = &Replica> {
        self.replicas.iter().filter(|replica| replica.is_owner())
    }

    fn stand_ins_of(&self, owner: NodeId) -> impl Iterator<Item = &Replica> {
        self.replicas.iter().filter(move |replica| replica.target == owner && !replica.is_owner())
    }

    fn members(&self, set: Sets) -> usize {
        self.owners().filter(|owner| owner.sets.meets(set)).count()
    }
}

/// Owners, each with who holds the write for it.
type Held<'a> = SmallVec<[[&'a Replica; 2]; 4]>;

fn basis(held: &Held<'_>) -> Basis {
    held.iter().fold(Basis::default(), |basis, [_, holder]| {
        basis.and(if holder.is_owner() { Role::Primary } else { Role::Fallback })
    })
}

impl Replica {
    fn owner(node: NodeId, owners: Owners<'_>, acknowledgement: Acknowledgement) -> Self {
        Self { node, target: node, sets: owners.sets(node), zone: 0, acknowledgement }
    }

    fn is_owner(&self) -> bool {
        self.node == self.target
    }

    fn is_durable(&self) -> bool {
        self.acknowledgement == Acknowledgement::Durable
    }

    fn has_failed(&self) -> bool {
        matches!(self.acknowledgement, Acknowledgement::Failed | Acknowledgement::Declined)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

    #[test]
    fn distinct_durable_nodes_count() {
        let mut put = PutQuorum::new(2, &NODES);
        put.on_durable(NODES[0]);
        put.on_durable(NODES[0]);
        put.on_durable(NodeId(9));
        assert_eq!(put.verdict(), PutVerdict::Pending);
        put.on_durable(NODES[2]);
        assert_eq!(put.verdict(), PutVerdict::Enough(Basis::primaries(2)));
    }

    #[test]
    fn a_write_is_missed_as_soon_as_it_must_be() {
        let mut put = PutQuorum::new(2, &NODES);
        put.on_durable(NODES[0]);
        put.on_failure(NODES[1]);
        assert_eq!(put.verdict(), PutVerdict::Pending);
        put.on_failure(NODES[0]);
        put.on_failure(NODES[2]);
        assert_eq!(put.verdict(), PutVerdict::Missed { acks: Basis::primaries(1) });
    }

    #[test]
    fn a_late_acknowledgement_outweighs_a_failure() {
        let mut put = PutQuorum::new(3, &NODES);
        NODES.into_iter().for_each(|node| put.on_failure(node));
        NODES.into_iter().for_each(|node| put.on_durable(node));
        assert_eq!(put.verdict(), PutVerdict::Enough(Basis::primaries(3)));
    }

    /// Who is there and has no room for a write gets no hint of it; for who stood in for another somebody else does.
    #[test]
    fn nobody_stands_in_for_an_owner_that_is_full() {
        let mut put = PutQuorum::new(2, &NODES);
        put.on_declined(NODES[1]);
        put.on_failure(NODES[2]);
        assert_eq!(put.unattended(true).collect::<Vec<_>>(), [NODES[0], NODES[2]]);
        put.add_fallback(NodeId(9), NODES[2], 0);
        assert_eq!(put.unattended(false).collect::<Vec<_>>(), []);
        put.on_declined(NodeId(9));
        assert_eq!(put.unattended(false).collect::<Vec<_>>(), [NODES[2]]);
        put.on_durable(NODES[0]);
        assert_eq!(put.verdict(), PutVerdict::Missed { acks: Basis::primaries(1) });
    }

    /// The paper's sloppy quorum (§4.6): a fallback counts like a primary, unless the request wants primaries.
    #[test]
    fn a_fallback_stands_in_for_a_primary() {
        for (primaries_needed, expected) in [(1, true), (2, false)] {
            let mut put = PutQuorum::new(2, &NODES).with_primaries(primaries_needed);
            put.on_durable(NODES[0]);
            put.on_failure(NODES[1]);
            put.on_failure(NODES[2]);
            put.add_fallback(NodeId(4), NODES[1], 0);
            assert_eq!(put.verdict() == PutVerdict::Pending, expected);
            put.on_durable(NodeId(4));
            let basis = Basis { primaries: 1, fallbacks: 1, nodes: 2 };
            let verdict =
                if expected { PutVerdict::Enough(basis) } else { PutVerdict::Missed { acks: basis } };
            assert_eq!(put.verdict(), verdict);
        }
    }

    /// The fallback's copy came home and was dropped while the primary's own acknowledgement was on its way: both had
    /// been counted, and the write was on one node fewer than was said.
    #[test]
    fn a_primary_and_its_fallback_count_once() {
        let mut put = PutQuorum::new(3, &NODES);
        put.on_durable(NODES[0]);
        put.add_fallback(NodeId(4), NODES[1], 0);
        put.on_durable(NodeId(4));
        put.on_durable(NODES[1]);
        assert_eq!(put.verdict(), PutVerdict::Pending);
        put.on_durable(NODES[2]);
        assert_eq!(put.verdict(), PutVerdict::Enough(Basis::primaries(3)));
    }

    /// The owners move from 1, 2, 3 to 2, 3, 4.
    const MOVING: Owners<'static> =
        Owners { primaries: &NODES, successors: &[NodeId(2), NodeId(3), NodeId(4)] };

    fn put(needed: u8, durable: &[u64]) -> PutQuorum {
        let mut put = PutQuorum::new(needed, MOVING);
        durable.iter().for_each(|&node| put.on_durable(NodeId(node)));
        put
    }

    /// ADR 11: W among the owners in force and W among those to be.
    #[test]
    fn while_the_ring_changes_both_sets_must_hold_a_write() {
        for (needed, durable, enough) in [
            (2, &[1, 2][..], false),
            (2, &[1, 4], false),
            (2, &[3, 4], false),
            (2, &[1, 2, 4], true),
            (2, &[2, 3], true),
            (0, &[2, 3], true),
            (3, &[1, 2, 3], false),
            (3, &[1, 2, 3, 4], true),
        ] {
            let verdict = put(needed, durable).verdict();
            let basis = Basis::primaries(durable.len() as u8);
            let expected = if enough { PutVerdict::Enough(basis) } else { PutVerdict::Pending };
            assert_eq!(verdict, expected, "{needed} by {durable:?}");
        }
    }

    #[test]
    fn a_write_is_missed_when_one_set_must_be() {
        let mut put = put(2, &[1, 2]);
        put.on_failure(NodeId(4));
        assert_eq!(put.verdict(), PutVerdict::Pending);
        put.on_failure(NodeId(3));
        assert_eq!(put.verdict(), PutVerdict::Missed { acks: Basis::primaries(2) });
        put.add_fallback(NodeId(9), NodeId(3), 0);
        assert_eq!(put.verdict(), PutVerdict::Pending);
        put.on_durable(NodeId(9));
        let both = Basis { primaries: 2, fallbacks: 1, nodes: 3 };
        assert_eq!(put.verdict(), PutVerdict::Enough(both), "it counts for its owner in either set");
        let put = put.with_primaries(2);
        assert_eq!(put.verdict(), PutVerdict::Missed { acks: both }, "of the owners to be only one has it");
    }

    /// A cluster that grows from one node: W = 1 would leave a majority of three that knows nothing of the write.
    #[test]
    fn a_majority_is_one_of_each_set() {
        let growing = Owners { primaries: &NODES[..1], successors: &NODES };
        let mut put = PutQuorum::new(0, growing);
        put.on_durable(NODES[0]);
        assert_eq!(put.verdict(), PutVerdict::Pending);
        put.on_durable(NODES[2]);
        assert_eq!(put.verdict(), PutVerdict::Enough(Basis::primaries(2)));
        let mut put = PutQuorum::new(3, growing);
        NODES.into_iter().for_each(|node| put.on_durable(node));
        assert_eq!(
            put.verdict(),
            PutVerdict::Enough(Basis::primaries(3)),
            "of one owner no three can be asked for"
        );
    }

    #[test]
    fn regrouped_it_keeps_what_was_acknowledged_and_asks_the_rest() {
        let mut put = PutQuorum::new(2, &NODES);
        put.on_durable(NODES[0]);
        put.on_failure(NODES[1]);
        put.add_fallback(NodeId(4), NODES[1], 0);
        put.add_fallback(NodeId(5), NODES[2], 0);
        put.on_durable(NodeId(4));
        assert!(!put.regroup(Owners::from(&NODES), |_| 0));
        assert!(put.regroup(MOVING, |_| 0));
        assert_eq!(put.awaited().collect::<Vec<_>>(), [2, 3, 4].map(NodeId), "told again, the new one too");
        assert_eq!(put.nodes().collect::<Vec<_>>(), [1, 2, 3, 4, 4].map(NodeId));
        assert_eq!(put.verdict(), PutVerdict::Pending, "of the owners to be one has a hint");
        put.on_durable(NodeId(4));
        assert_eq!(put.verdict(), PutVerdict::Pending, "the hint and the copy are on one node");
        put.on_durable(NodeId(3));
        let basis = Basis { primaries: 2, fallbacks: 1, nodes: 3 };
        assert_eq!(put.verdict(), PutVerdict::Enough(basis), "a copy for one set, a hint for the other");
    }

    /// P9: a read of the owners that don't own the key any more soon missed a write that none of them but one had failed to
    /// take, though the writer was told that no fallback had stood in.
    #[test]
    fn an_owner_to_be_that_stands_in_for_one_who_goes_is_told_as_a_fallback() {
        let mut put = put(3, &[2, 3]);
        put.on_failure(NodeId(1));
        put.add_fallback(NodeId(4), NodeId(1), 0);
        assert_eq!(put.acks(), Basis::primaries(2), "told for itself alone");
        let mut put = PutQuorum::new(3, &NODES);
        [2, 3].into_iter().for_each(|node| put.on_durable(NodeId(node)));
        put.on_failure(NodeId(1));
        put.add_fallback(NodeId(4), NodeId(1), 0);
        put.on_durable(NodeId(4));
        assert!(put.regroup(MOVING, |_| 0));
        put.on_durable(NodeId(4));
        assert_eq!(put.verdict(), PutVerdict::Enough(Basis { primaries: 2, fallbacks: 1, nodes: 3 }));
    }

    #[test]
    fn an_owner_no_more_does_not_count() {
        let mut put = PutQuorum::new(2, &NODES);
        put.on_durable(NODES[0]);
        put.add_fallback(NodeId(9), NODES[0], 0);
        assert!(put.regroup(Owners::from(MOVING.successors), |_| 0));
        put.on_durable(NodeId(2));
        assert_eq!(put.verdict(), PutVerdict::Pending);
        put.on_durable(NodeId(4));
        assert_eq!(put.verdict(), PutVerdict::Enough(Basis::primaries(2)));
    }
}
