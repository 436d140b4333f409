//! Fallbacks: who stands in for primaries that can't be reached (paper §4.6).
//!
//! A primary that is suspected or lost is passed over at once, one that is merely silent after a quarter of the
//! request's time. In its place the next healthy node of the preference list takes the write as a hint, or is asked
//! whether it holds one.

use smallvec::SmallVec;

use crate::coordinator::{PutQuorum, PutVerdict, Role, share};
use crate::failpoint::{Failpoints, Rare};
use crate::id::{ConnectionId, NodeId, PartitionId};
use crate::membership::Health;
use crate::time::{Duration, Instant, Now};

use super::Shard;
use super::io::Output;
use super::operations::{Nodes, Operation, Work};

/// A silent primary is waited for, alone, for this share of a request's time.
pub(super) const PATIENCE_SHARE: u64 = 4;

/// So many fallbacks are looked at for one in a good zone: enough to meet every zone, and few in a cluster of a thousand.
const FALLBACKS_WEIGHED: usize = 32;

/// Somebody who can be asked, over the connection to its right shard, to stand in for an owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct StandIn {
    target: NodeId,
    node: NodeId,
    connection: ConnectionId,
}

/// Which primaries need somebody to stand in for them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Missing {
    /// Those that can't be reached, or refused.
    Lost,
    /// Those that have not answered yet, too.
    Silent,
}

impl<F: Failpoints> Shard<F> {
    /// May fallbacks stand in for primaries?
    pub(super) const fn is_sloppy(&self) -> bool {
        self.options.hint_bytes_max > 0
    }

    /// How long a request waits for silent primaries alone.
    pub(super) const fn patience(&self, budget: Duration) -> Duration {
        if self.is_sloppy() { Duration(budget.0 / PATIENCE_SHARE) } else { budget }
    }

    /// Does this node own the partition, now or when the ring has changed, or does it stand in for who does?
    pub(super) fn role(&self, partition: PartitionId) -> Role {
        if self.view.owns(partition) { Role::Primary } else { Role::Fallback }
    }

    /// The healthy fallbacks of a partition in the order of the preference list, each with the connection to its
    /// right shard. While the ring changes, those who will be in it: who leaves shouldn't keep anything.
    pub(super) fn fallbacks(
        &self,
        now: Instant,
        partition: PartitionId,
    ) -> impl Iterator<Item = (NodeId, ConnectionId)> {
        let ring = self.view.change.as_ref().map_or(&self.view.ring, |change| &change.next);
        let owners = self.owners(partition);
        let all = ring.preference_list(partition).iter().filter(move |&node| !owners.contains(node));
        let others = all.filter(move |&node| self.is_sloppy() && node != self.view.me);
        let up = others.filter(move |&node| self.detector.health(now, node) == Health::Up);
        up.filter_map(move |node| Some((node, self.links.connection(self.link_to(node, partition)?)?)))
    }

    /// Find somebody for each missing primary that nobody stands in for yet.
    pub(super) fn stand_in(&mut self, now: Now, key: u64, missing: Missing, out: &mut Output) {
        if !self.is_sloppy() {
            return;
        }
        match self.operations.get_mut(key).map(|operation| &operation.work) {
            Some(Work::Put { .. }) => self.stand_in_for_put(now, key, missing, out),
            Some(Work::Get { answered: false, .. }) => self.ask_fallbacks(now, key, out),
            _ => {}
        }
    }

    fn stand_in_for_put(&mut self, now: Now, key: u64, missing: Missing, out: &mut Output) {
        let Some(operation) = self.operations.get(key) else { return };
        let Work::Put { quorum, .. } = &operation.work else { return };
        let chosen = self.stand_ins(now.monotonic, operation.partition, quorum, missing);
        for StandIn { target, node, connection } in chosen {
            self.send_write(now, key, Some(target), &[(node, connection)], out);
            let zone = self.view.zone(node);
            if let Some(Operation { work: Work::Put { quorum, .. }, .. }) = self.operations.get_mut(key) {
                quorum.add_fallback(node, target, zone);
            }
        }
    }

    /// Who is to stand in for the missing owners of a write.
    pub(super) fn stand_ins(
        &self,
        now: Instant,
        partition: PartitionId,
        quorum: &PutQuorum,
        missing: Missing,
    ) -> SmallVec<[StandIn; 4]> {
        let targets: Nodes = quorum.unattended(missing == Missing::Silent).collect();
        if targets.is_empty() {
            return SmallVec::new();
        }
        let known: Nodes = quorum.nodes().collect();
        let used: Nodes = quorum.hopeful().filter(|node| !targets.contains(node)).collect();
        self.choose_stand_ins(now, partition, targets, &used, &known)
    }

    /// Fallbacks in the order of the preference list, but first those in zones that are not `used` yet: in the missing
    /// owner's own, since what is kept there stays in its zone when it is handed over; else in any other.
    fn choose_stand_ins(
        &self,
        now: Instant,
        partition: PartitionId,
        mut targets: Nodes,
        used: &[NodeId],
        known: &[NodeId],
    ) -> SmallVec<[StandIn; 4]> {
        let zone = |node: NodeId| self.view.zone(node);
        let mut used: SmallVec<[u64; 8]> = used.iter().map(|&node| zone(node)).collect();
        let free = self.fallbacks(now, partition).filter(|(node, _)| !known.contains(node));
        let mut free: SmallVec<[(NodeId, ConnectionId); 8]> =
            free.take(FALLBACKS_WEIGHED.max(targets.len())).collect();
        let mut chosen = SmallVec::new();
        let mut choose = |target, at: usize, free: &mut SmallVec<[(NodeId, ConnectionId); 8]>| {
            let (node, connection) = free.remove(at);
            chosen.push(StandIn { target, node, connection });
            zone(node)
        };
        targets.retain(|target| {
            let own = zone(*target);
            let at = free.iter().position(|(node, _)| zone(*node) == own).filter(|_| !used.contains(&own));
            at.map(|at| used.push(choose(*target, at, &mut free))).is_none()
        });
        for target in targets {
            let at = free.iter().position(|(node, _)| !used.contains(&zone(*node))).unwrap_or(0);
            if at < free.len() {
                used.push(choose(target, at, &mut free));
            }
        }
        chosen
    }

    /// Can a write about to begin still be acknowledged, with all who would stand in?
    pub(super) fn can_be_wide(&self, now: Instant, partition: PartitionId, mut quorum: PutQuorum) -> bool {
        for StandIn { target, node, .. } in self.stand_ins(now, partition, &quorum, Missing::Lost) {
            quorum.add_fallback(node, target, self.view.zone(node));
        }
        !matches!(quorum.verdict(), PutVerdict::Missed { .. })
    }

    /// Ask as many fallbacks as there are primaries that don't answer: those who would have been told of a write.
    fn ask_fallbacks(&mut self, now: Now, key: u64, out: &mut Output) {
        let Some(operation) = self.operations.get_mut(key) else { return };
        let Work::Get { quorum, .. } = &operation.work else { return };
        let (partition, wire_key) = (operation.partition, operation.key.clone());
        let silent: Nodes = quorum.silent_primaries().collect();
        let (known, wanted): (Nodes, usize) = (quorum.fallbacks().collect(), silent.len());
        let used: Nodes = self.owners(partition).iter().filter(|node| !silent.contains(node)).collect();
        let chosen = self.choose_stand_ins(now.monotonic, partition, silent, &used, &[]);
        let free = chosen.into_iter().filter(|chosen| !known.contains(&chosen.node));
        for StandIn { node, connection, .. } in free.take(wanted.saturating_sub(known.len())) {
            self.send_read(key, &wire_key, connection, out);
            self.detector.on_asked(now.monotonic, node);
            if let Some(Operation { work: Work::Get { quorum, .. }, .. }) = self.operations.get_mut(key) {
                quorum.add_fallback(node);
            }
        }
    }

    /// A set of owners of which too few can hold a write by now, themselves or by who would stand in: how many must,
    /// and how many can.
    pub(super) fn shortfall(
        &self,
        now: Instant,
        partition: PartitionId,
        told: &[(NodeId, ConnectionId)],
        [needed, primaries_needed]: [u8; 2],
    ) -> Option<(u8, usize)> {
        let owners = self.owners(partition);
        let is_here = usize::from(self.role(partition) == Role::Fallback);
        let stand_ins = || is_here + self.fallbacks(now, partition).take(owners.iter().count()).count();
        let reached = |node: &&NodeId| **node == self.view.me || told.iter().any(|(told, _)| told == *node);
        let mut short = owners.each().filter_map(|set| {
            let (needed, reached) = (share(needed, set.len()), set.iter().filter(reached).count());
            let missing = set.len() - reached;
            let can = if missing == 0 { reached } else { reached + missing.min(stand_ins()) };
            let suffices = can >= usize::from(needed) && reached >= usize::from(primaries_needed.min(needed));
            (!suffices).then_some((needed, can))
        });
        short.next()
    }

    /// This node coordinates although it is none of the primaries: none of them can be reached.
    pub(super) fn note_standing_in(&self, role: Role) {
        if role == Role::Fallback {
            self.failpoints.reached(Rare::FallbackCoordinated);
        }
    }
}
