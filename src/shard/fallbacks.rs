//! Fallbacks: who stands in for primaries that can't be reached (paper §4.6).
//!
//! A primary that is suspected or lost is passed over at once, one that is merely silent after a quarter of the
//! request's time. In its place the next healthy node of the preference list takes the write as a hint, or is asked
//! whether it holds one.

use smallvec::SmallVec;

use crate::coordinator::{Role, share};
use crate::failpoint::{Failpoints, Rare};
use crate::id::{ConnectionId, NodeId, PartitionId};
use crate::membership::Health;
use crate::time::{Duration, Instant, Now};

use super::Shard;
use super::io::Output;
use super::operations::{Nodes, Operation, Work};

/// A silent primary is waited for, alone, for this share of a request's time.
const PATIENCE_SHARE: u64 = 4;

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
        let Some(operation) = self.operations.get_mut(key) else { return };
        let partition = operation.partition;
        let Work::Put { quorum, .. } = &operation.work else { return };
        let targets: Nodes = quorum.unattended(missing == Missing::Silent).collect();
        if targets.is_empty() {
            return;
        }
        let known: Nodes = quorum.nodes().collect();
        let free = self.fallbacks(now.monotonic, partition).filter(|(node, _)| !known.contains(node));
        let chosen: SmallVec<[(NodeId, ConnectionId); 4]> = free.take(targets.len()).collect();
        for (target, (node, connection)) in targets.into_iter().zip(chosen) {
            self.send_write(now, key, Some(target), &[(node, connection)], out);
            if let Some(Operation { work: Work::Put { quorum, .. }, .. }) = self.operations.get_mut(key) {
                quorum.add_fallback(node, target);
            }
        }
    }

    /// Ask as many fallbacks as there are primaries that don't answer.
    fn ask_fallbacks(&mut self, now: Now, key: u64, out: &mut Output) {
        let Some(operation) = self.operations.get_mut(key) else { return };
        let Work::Get { quorum, .. } = &operation.work else { return };
        let (partition, wire_key) = (operation.partition, operation.key.clone());
        let (wanted, known) = (quorum.silent_primaries(), quorum.fallbacks());
        let known: Nodes = known.collect();
        let free = self.fallbacks(now.monotonic, partition).filter(|(node, _)| !known.contains(node));
        let chosen: SmallVec<[(NodeId, ConnectionId); 4]> =
            free.take(wanted.saturating_sub(known.len())).collect();
        for (node, connection) in chosen {
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
