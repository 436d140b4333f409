//! A put or delete under way.

use smallvec::SmallVec;

use crate::id::NodeId;

use super::Basis;

/// Counts the acknowledgements of one write.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PutQuorum {
    /// W. `1 <= needed`; more than there are replicas can't be met.
    needed: u8,
    replicas: SmallVec<[(NodeId, Acknowledgement); 4]>,
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
        acks: u8,
    },
}

impl PutQuorum {
    /// A write of which `replicas` (distinct nodes) are told, and `needed` must hold it durably.
    pub fn new(needed: u8, replicas: &[NodeId]) -> Self {
        assert!(needed > 0, "a write that waits for nobody can't be acknowledged");
        Self { needed, replicas: replicas.iter().map(|&node| (node, Acknowledgement::Awaited)).collect() }
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
        let found = self.replicas.iter_mut().find(|(replica, _)| *replica == node);
        if let Some((_, acknowledgement)) = found
            && *acknowledgement != Acknowledgement::Durable
        {
            *acknowledgement = to;
        }
    }

    /// Durable acknowledgements so far, of distinct nodes.
    pub fn acks(&self) -> u8 {
        self.count(Acknowledgement::Durable)
    }

    /// W.
    pub const fn needed(&self) -> u8 {
        self.needed
    }

    /// Decide by what is known.
    pub fn verdict(&self) -> PutVerdict {
        let acks = self.acks();
        if acks >= self.needed {
            PutVerdict::Enough(Basis::primaries(acks))
        } else if acks + self.count(Acknowledgement::Awaited) < self.needed {
            PutVerdict::Missed { acks }
        } else {
            PutVerdict::Pending
        }
    }

    fn count(&self, which: Acknowledgement) -> u8 {
        self.replicas.iter().filter(|(_, acknowledgement)| *acknowledgement == which).count() as u8
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
        assert_eq!(put.verdict(), PutVerdict::Missed { acks: 1 });
    }

    #[test]
    fn a_late_acknowledgement_outweighs_a_failure() {
        let mut put = PutQuorum::new(3, &NODES);
        NODES.into_iter().for_each(|node| put.on_failure(node));
        NODES.into_iter().for_each(|node| put.on_durable(node));
        assert_eq!(put.verdict(), PutVerdict::Enough(Basis::primaries(3)));
    }
}
