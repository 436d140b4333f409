//! A put or delete under way.

use smallvec::SmallVec;

use crate::id::NodeId;

use super::{Basis, Role};

/// Counts the acknowledgements of one write.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PutQuorum {
    /// W. `1 <= needed`; more than there are replicas can't be met.
    needed: u8,
    /// Of these so many must be primaries'. `primaries_needed <= needed`
    primaries_needed: u8,
    /// Who is told, and for which primary: itself, or one that it stands in for.
    replicas: SmallVec<[(NodeId, NodeId, Acknowledgement); 4]>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Acknowledgement {
    Awaited,
    Durable,
    Failed,
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
    /// A write of which `primaries` (distinct nodes) are told, and `needed` must hold it durably.
    pub fn new(needed: u8, primaries: &[NodeId]) -> Self {
        assert!(needed > 0, "a write that waits for nobody can't be acknowledged");
        let awaited = |&node| (node, node, Acknowledgement::Awaited);
        Self { needed, primaries_needed: 0, replicas: primaries.iter().map(awaited).collect() }
    }

    /// The same, but so many of the acknowledgements must be primaries'.
    #[must_use]
    pub fn with_primaries(mut self, primaries_needed: u8) -> Self {
        assert!(primaries_needed <= self.needed, "more primaries than replicas can't be waited for");
        self.primaries_needed = primaries_needed;
        self
    }

    /// A fallback was told to keep the write for a primary that can't be reached. A node that is told already
    /// is told once.
    pub fn add_fallback(&mut self, node: NodeId, primary: NodeId) {
        if self.nodes().all(|known| known != node) {
            self.replicas.push((node, primary, Acknowledgement::Awaited));
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

    fn set(&mut self, node: NodeId, to: Acknowledgement) {
        let found = self.replicas.iter_mut().find(|(replica, ..)| *replica == node);
        if let Some((.., acknowledgement)) = found
            && *acknowledgement != Acknowledgement::Durable
        {
            *acknowledgement = to;
        }
    }

    /// Durable acknowledgements so far, of distinct nodes. A primary and who stands in for it count as one: a fallback
    /// drops what it kept as soon as the primary has it.
    pub fn acks(&self) -> Basis {
        self.count(|acknowledgement| acknowledgement == Acknowledgement::Durable)
    }

    /// W.
    pub const fn needed(&self) -> u8 {
        self.needed
    }

    /// Has this node refused, or is it gone?
    pub fn has_failed(&self, node: NodeId) -> bool {
        let mut all = self.replicas.iter();
        all.any(|(replica, _, acknowledgement)| {
            *replica == node && *acknowledgement == Acknowledgement::Failed
        })
    }

    /// All who are told, or have been.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.replicas.iter().map(|(node, ..)| *node)
    }

    /// Primaries that have not acknowledged: they may need somebody to stand in for them.
    pub fn silent_primaries(&self) -> impl Iterator<Item = NodeId> {
        let silent = self.replicas.iter().filter(|(node, primary, acknowledgement)| {
            node == primary && *acknowledgement != Acknowledgement::Durable
        });
        silent.map(|(node, ..)| *node)
    }

    /// Decide by what is known.
    pub fn verdict(&self) -> PutVerdict {
        let acks = self.acks();
        let possible = self.count(|acknowledgement| acknowledgement != Acknowledgement::Failed);
        let suffices = |basis: Basis| basis.nodes >= self.needed && basis.primaries >= self.primaries_needed;
        if suffices(acks) {
            PutVerdict::Enough(acks)
        } else if suffices(possible) {
            PutVerdict::Pending
        } else {
            PutVerdict::Missed { acks }
        }
    }

    /// For each primary, itself or one of those who stand in for it.
    fn count(&self, which: impl Fn(Acknowledgement) -> bool) -> Basis {
        let primaries = self.replicas.iter().filter(|(node, primary, _)| node == primary);
        primaries.fold(Basis::default(), |basis, (primary, _, own)| {
            let stands_in = |(node, of, acknowledgement): &(NodeId, NodeId, Acknowledgement)| {
                of == primary && node != primary && which(*acknowledgement)
            };
            if which(*own) {
                basis.and(Role::Primary)
            } else if self.replicas.iter().any(stands_in) {
                basis.and(Role::Fallback)
            } else {
                basis
            }
        })
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

    /// The paper's sloppy quorum (§4.6): a fallback counts like a primary, unless the request wants primaries.
    #[test]
    fn a_fallback_stands_in_for_a_primary() {
        for (primaries_needed, expected) in [(1, true), (2, false)] {
            let mut put = PutQuorum::new(2, &NODES).with_primaries(primaries_needed);
            put.on_durable(NODES[0]);
            put.on_failure(NODES[1]);
            put.on_failure(NODES[2]);
            put.add_fallback(NodeId(4), NODES[1]);
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
        put.add_fallback(NodeId(4), NODES[1]);
        put.on_durable(NodeId(4));
        put.on_durable(NODES[1]);
        assert_eq!(put.verdict(), PutVerdict::Pending);
        put.on_durable(NODES[2]);
        assert_eq!(put.verdict(), PutVerdict::Enough(Basis::primaries(3)));
    }
}
