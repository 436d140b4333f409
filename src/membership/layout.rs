//! Which ring is in force, which one the operator wants, and how far the cluster has come from one to the other
//! (docs/adr/0011).
//!
//! A machine of its own inside [`super::Membership`]: it reads the records, takes the next step when all members
//! have stated the one before, and marks in the records what a finished change has settled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use crate::failpoint::{Bug, Failpoints, Rare};
use crate::id::{NodeId, PartitionId};
use crate::ring::{Plan, Ring, RingMember};

use super::member::{Intent, Member, Settled, Step, Works};
use super::partition_set::PartitionSet;
use super::records::MembershipOptions;
use super::view::{Change, Former};

pub(super) type Members = BTreeMap<NodeId, Member>;

/// One node's place in a ring that may be changing.
#[derive(Debug)]
pub(super) struct Layout {
    options: MembershipOptions,
    me: NodeId,
    ring: Arc<Ring>,
    /// The same as `ring` while nothing changes.
    next: Arc<Ring>,
    /// Before the last change: some may still work by it.
    former: Option<Former>,
    works: Works,
    /// All members are known to write to both rings.
    is_known: bool,
    /// What will be settled when this change is finished.
    intended: Vec<(NodeId, Settled)>,
    /// Partitions that this node is complete for.
    held: PartitionSet,
    /// What it keeps for others has to be handed over before it may leave. True until its shards, working by these rings,
    /// have said otherwise: they may have found hints in their logs.
    would_lose: bool,
}

impl Layout {
    /// Without any members. Whoever is `born` with the cluster is complete for all that it will own.
    pub(super) fn new(options: MembershipOptions, me: NodeId, born: bool) -> Self {
        let ring = Arc::new(Ring::new(options.partitions, options.replicas, &[]));
        let held =
            if born { PartitionSet::first(options.partitions.count()) } else { PartitionSet::default() };
        Self {
            options,
            me,
            next: ring.clone(),
            works: Works { ring: ring.hash(), change: ring.hash(), step: Step::Reading },
            ring,
            former: None,
            is_known: true,
            intended: Vec::new(),
            held,
            would_lose: true,
        }
    }

    /// The ring in force.
    pub(super) const fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// What changes from the ring in force to the one that these records want.
    pub(super) fn plan(&self, members: &Members) -> Plan {
        let intended: Vec<_> = members.values().map(|member| (member.node, member.intended())).collect();
        let wanted = intended.iter().map(|(node, settled)| (*node, settled));
        let wanted = ring_members(wanted.filter(|(_, settled)| settled.in_ring));
        Plan::between(&self.ring, &self.make(&wanted))
    }

    /// What this node is to work by; it states it when all of its shards do.
    pub(super) const fn works(&self) -> Works {
        self.works
    }

    /// The ring that was in force before, while some may still work by it.
    pub(super) const fn former(&self) -> Option<&Former> {
        self.former.as_ref()
    }

    /// For a view.
    pub(super) fn change(&self) -> Option<Change> {
        self.is_changing().then(|| Change {
            next: self.next.clone(),
            is_read: self.works.step == Step::Reading,
            is_known: self.is_known,
        })
    }

    /// Partitions that this node owns, or will own, and isn't complete for.
    pub(super) fn lacking(&self) -> PartitionSet {
        let partitions = self.options.partitions.iter();
        partitions.filter(|&partition| self.owns(partition) && !self.held.contains(partition)).collect()
    }

    /// This node's records are gone, or older than others remember.
    pub(super) fn lose_all(&mut self) {
        self.held = PartitionSet::default();
    }

    /// These partitions are to be streamed again.
    pub(super) fn lose(&mut self, lost: &PartitionSet) {
        if !lost.is_empty() {
            self.held.retain(|partition| !lost.contains(partition));
        }
    }

    /// This node stated so in an earlier life, and its copies were complete but for these partitions. To be called
    /// when it follows the records of that time.
    pub(super) fn recover(&mut self, works: Works, lacking: &[u64]) {
        self.remember(works);
        // What it had streamed for another change doesn't count, as ever.
        let is_same_change = works.is_of(self.works);
        let had = |partition| {
            if is_same_change { self.owns(partition) } else { self.ring.is_primary(self.me, partition) }
        };
        let partitions = self.options.partitions;
        self.held = PartitionSet::from_words(lacking, partitions.count())
            .map(|lacking| {
                partitions
                    .iter()
                    .filter(|&partition| had(partition) && !lacking.contains(partition))
                    .collect()
            })
            .unwrap_or_default();
    }

    /// What the change that this node reads by will settle, whatever is wanted by now.
    pub(super) fn bound(&self) -> &[(NodeId, Settled)] {
        let is_bound = self.is_changing() && self.works.step == Step::Reading;
        if is_bound { &self.intended } else { &[] }
    }

    /// This node read by such a change in an earlier life, and goes on with it. To be called before it follows the records of
    /// that time. What they don't lead to is none of this ring's.
    pub(super) fn rebind(&mut self, members: &Members, works: Works, bound: Vec<(NodeId, Settled)>) {
        let in_force = members.values().map(|member| (member.node, &member.settled));
        let ring = self.make(&ring_members(in_force.filter(|(_, settled)| settled.in_ring)));
        let settled = bound.iter().map(|(node, settled)| (*node, settled));
        let next = self.make(&ring_members(settled.filter(|(_, settled)| settled.in_ring)));
        if works.step == Step::Reading
            && (works.ring, works.change) == (ring.hash(), change_id(&next, &bound))
        {
            (self.ring, self.next, self.works, self.intended) = (ring, next, works, bound);
            self.is_known = false;
        }
    }

    /// Others remember that this node had come so far.
    pub(super) fn remember(&mut self, works: Works) {
        if works.is_of(self.works) {
            self.works.step = self.works.step.max(works.step);
        }
    }

    /// This node has streamed partitions from all their other owners, working by these rings; if they are old ones,
    /// that is of no use.
    pub(super) fn on_progress(&mut self, works: Works, whole: &PartitionSet, would_lose: bool) {
        if works == self.works {
            self.would_lose = would_lose;
        }
        if works.is_of(self.works) {
            let owned: Vec<_> = whole.iter().filter(|&partition| self.owns(partition)).collect();
            owned.into_iter().for_each(|partition| self.held.insert(partition));
        }
    }

    /// Follow the records as far as they lead by now. `is_serving`: this node has been born, and knows its ring.
    pub(super) fn follow(&mut self, members: &mut Members, is_serving: bool, failpoints: &impl Failpoints) {
        loop {
            members.values_mut().for_each(Member::outdo_settled);
            self.find_rings(members, is_serving);
            if !self.is_changing() {
                return retire_leavers(members);
            }
            let slowest = self.slowest(members);
            self.is_known = slowest.is_some();
            if members[&self.me].oneself.works != self.works {
                // Not all shards work by this yet.
                return;
            }
            match (self.works.step, slowest) {
                (Step::Writing, Some(_))
                    if self.is_whole(members) || failpoints.planted(Bug::NewcomerCountsAtOnce) =>
                {
                    self.works.step = Step::Whole;
                    // A hint may have come before all shards knew of this step; they say so at it, too.
                    self.would_lose = true;
                }
                (Step::Whole, Some(Step::Whole | Step::Reading)) if self.may_go(members) => {
                    self.works.step = Step::Reading;
                }
                (Step::Reading, Some(Step::Reading)) => {
                    failpoints.reached(Rare::RingChanged);
                    self.settle(members);
                }
                _ => return,
            }
        }
    }

    const fn is_changing(&self) -> bool {
        self.works.ring != self.works.change
    }

    fn owns(&self, partition: PartitionId) -> bool {
        self.ring.is_primary(self.me, partition) || self.next.is_primary(self.me, partition)
    }

    /// Complete for all that it will own, and rid of what it keeps for others if it leaves.
    fn is_whole(&self, members: &Members) -> bool {
        if !self.may_go(members) {
            return false;
        }
        let mut owned =
            self.options.partitions.iter().filter(|&partition| self.next.is_primary(self.me, partition));
        owned.all(|partition| self.held.contains(partition))
    }

    /// Only who leaves has to wait until nothing would be lost with it.
    fn may_go(&self, members: &Members) -> bool {
        !self.would_lose || members[&self.me].intent != Intent::Leaving
    }

    /// The least step of this change that any member has stated; `None` while not all have stated one.
    fn slowest(&self, members: &Members) -> Option<Step> {
        let mut slowest = Step::Reading;
        for member in confirming(members) {
            let works = member.oneself.works;
            if !works.is_of(self.works) {
                return None;
            }
            slowest = slowest.min(works.step);
        }
        Some(slowest)
    }

    fn find_rings(&mut self, members: &Members, is_serving: bool) {
        let in_force = members.values().map(|member| (member.node, &member.settled));
        let in_force = ring_members(in_force.filter(|(_, settled)| settled.in_ring));
        if self.ring.members() != in_force {
            let made = self.make(&in_force);
            let ring = std::mem::replace(&mut self.ring, made);
            self.former = is_serving.then(|| Former { ring, held: Arc::new(self.held.clone()) });
        }
        let hash = self.ring.hash();
        if confirming(members).all(|member| member.oneself.works.ring == hash) {
            self.former = None;
        }
        if self.works.ring == hash && !self.is_settled(members) && self.is_bound(members) {
            return;
        }
        let intended: Vec<_> = members.values().map(|member| (member.node, member.intended())).collect();
        let wanted = intended.iter().map(|(node, settled)| (*node, settled));
        let wanted = ring_members(wanted.filter(|(_, settled)| settled.in_ring));
        let is_change = wanted != in_force || members.values().any(is_unsettled);
        if wanted == in_force {
            self.next = self.ring.clone();
        } else if self.next.members() != wanted {
            self.next = self.make(&wanted);
        }
        let change = if is_change { change_id(&self.next, &intended) } else { self.ring.hash() };
        if (self.works.ring, self.works.change) != (self.ring.hash(), change) {
            let step = if is_change { Step::Writing } else { Step::Reading };
            self.works = Works { ring: self.ring.hash(), change, step };
            self.intended = intended;
            self.is_known = !is_change;
            self.would_lose = true;
            if is_serving {
                let (ring, me) = (&self.ring, self.me);
                self.held.retain(|partition| ring.is_primary(me, partition));
            }
        }
    }

    /// This node reads by the change, so others may have finished it: it goes on with that one, whatever the operator
    /// has wanted since. Unless a member has left for another change before it read by this one: then nobody has.
    fn is_bound(&self, members: &Members) -> bool {
        let has_left = |member: &Member| {
            let works = member.oneself.works;
            works.ring == self.works.ring && ![self.works.change, works.ring].contains(&works.change)
        };
        self.is_changing() && self.works.step == Step::Reading && !confirming(members).any(has_left)
    }

    /// Is all in force that this change was to bring? It may have brought no other ring.
    fn is_settled(&self, members: &Members) -> bool {
        let is_in_force = |(node, intended): &(NodeId, Settled)| {
            members.get(node).is_none_or(|member| member.settled >= *intended)
        };
        self.is_changing() && self.intended.iter().all(is_in_force)
    }

    fn settle(&self, members: &mut Members) {
        for (node, intended) in &self.intended {
            if let Some(member) = members.get_mut(node)
                && member.settled < *intended
            {
                member.settled = intended.clone();
            }
        }
    }

    fn make(&self, members: &[RingMember]) -> Arc<Ring> {
        Arc::new(Ring::new(self.options.partitions, self.options.replicas, members))
    }
}

/// Those whose word a step waits for.
fn confirming(members: &Members) -> impl Iterator<Item = &Member> {
    members.values().filter(|member| !member.is_removed())
}

/// What the operator has last said of it is not in force. That takes a change, even if the ring is the same after it: what was
/// said before may have led to another one, by which some have begun to work, and only a change that all confirm says that
/// nobody does any more.
fn is_unsettled(member: &Member) -> bool {
    member.settled < member.intended()
}

/// Whoever was leaving and holds nothing any more is gone for good. Nobody has to confirm that.
fn retire_leavers(members: &mut Members) {
    for member in members.values_mut() {
        if member.intent == Intent::Leaving && !member.settled.in_ring && !is_unsettled(member) {
            member.intent = Intent::Removed;
            member.intent_version += 1;
            member.settled = member.intended();
        }
    }
}

/// As the ring sees them, in the order of their places. A place that two claim, or whose node is there itself, is
/// taken by the first claimant or by that node; the others stand in places of their own.
fn ring_members<'a>(members: impl Iterator<Item = (NodeId, &'a Settled)>) -> Vec<RingMember> {
    let members: Vec<_> = members.collect();
    let mut taken: BTreeSet<NodeId> = members.iter().map(|(node, _)| *node).collect();
    let mut placed: Vec<RingMember> = members
        .into_iter()
        .map(|(node, settled)| {
            let member = settled.ring_member(node);
            let is_free = member.place == node || taken.insert(member.place);
            RingMember { place: if is_free { member.place } else { node }, ..member }
        })
        .collect();
    placed.sort_unstable_by_key(|member| member.place);
    placed
}

/// Never the same for two changes, even if they lead to the same ring: words are counted.
fn change_id(next: &Ring, intended: &[(NodeId, Settled)]) -> u64 {
    let words = intended.iter().flat_map(|(node, settled)| [node.0, settled.version]);
    let bytes: Vec<u8> = std::iter::once(next.hash()).chain(words).flat_map(u64::to_le_bytes).collect();
    xxh3_64(&bytes)
}
