//! A get under way.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::causality::{Siblings, VersionVector};
use crate::id::NodeId;

use super::Basis;

/// Merges the answers to one read and counts them.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct GetQuorum {
    /// R. `1 <= needed`.
    needed: u8,
    /// What the client wants included.
    at_least: VersionVector,
    replicas: SmallVec<[(NodeId, Answer); 4]>,
    merged: Siblings<Bytes>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Answer {
    Awaited,
    State { state: Siblings<Bytes>, complete: bool },
    Failed,
}

/// What is known of a read's outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GetVerdict {
    /// Wait on.
    Pending,
    /// The merged state is the answer.
    Enough(Basis),
    /// Too few replicas whose silence means something can answer any more.
    Unavailable,
    /// R have answered, but nobody who can be reached has what the client asked to be included.
    Stale,
}

impl GetQuorum {
    /// A read of which `replicas` (distinct nodes) are asked, and `needed` must answer.
    pub fn new(needed: u8, at_least: VersionVector, replicas: &[NodeId]) -> Self {
        assert!(needed > 0, "a read that waits for nobody knows nothing");
        let replicas = replicas.iter().map(|&node| (node, Answer::Awaited)).collect();
        Self { needed, at_least, replicas, merged: Siblings::new() }
    }

    /// What `node` has of the key; an answer that comes twice counts once.
    pub fn on_state(&mut self, node: NodeId, state: Siblings<Bytes>, complete: bool) {
        let found = self.replicas.iter_mut().find(|(replica, _)| *replica == node);
        if let Some((_, answer)) = found
            && !matches!(answer, Answer::State { .. })
        {
            self.merged.merge(&state);
            *answer = Answer::State { state, complete };
        }
    }

    /// `node` refused, or can't be reached.
    pub fn on_failure(&mut self, node: NodeId) {
        let found = self.replicas.iter_mut().find(|(replica, _)| *replica == node);
        if let Some((_, answer @ Answer::Awaited)) = found {
            *answer = Answer::Failed;
        }
    }

    /// All that the answers have, merged.
    pub const fn merged(&self) -> &Siblings<Bytes> {
        &self.merged
    }

    /// R.
    pub const fn needed(&self) -> u8 {
        self.needed
    }

    /// Nobody is waited for any more.
    pub fn is_settled(&self) -> bool {
        !self.replicas.iter().any(|(_, answer)| matches!(answer, Answer::Awaited))
    }

    /// Did replicas answer whose silence means nothing?
    pub fn counts_incomplete(&self) -> bool {
        self.replicas.iter().any(|(_, answer)| matches!(answer, Answer::State { complete: false, .. }))
    }

    /// Decide by what is known. `expired`: nothing more may be waited for.
    pub fn verdict(&self, expired: bool) -> GetVerdict {
        let count =
            |wanted: fn(&Answer) -> bool| self.replicas.iter().filter(|(_, answer)| wanted(answer)).count();
        let answered = count(|answer| matches!(answer, Answer::State { .. }));
        let complete = count(|answer| matches!(answer, Answer::State { complete: true, .. }));
        let awaited = if expired { 0 } else { count(|answer| matches!(answer, Answer::Awaited)) };
        let needed = usize::from(self.needed);
        let all = answered == self.replicas.len() && answered >= needed;
        let covered = self.merged.includes(&self.at_least);
        // What all complete replicas lack was never acknowledged; an incomplete one may have forgotten it.
        if all && (covered || complete == self.replicas.len()) {
            GetVerdict::Enough(Basis::primaries(answered as u8))
        } else if complete >= needed && covered {
            GetVerdict::Enough(Basis::primaries(complete as u8))
        } else if all {
            GetVerdict::Stale
        } else if awaited > 0 && complete + awaited >= needed {
            GetVerdict::Pending
        } else if complete >= needed {
            GetVerdict::Stale
        } else if awaited > 0 && answered + awaited == self.replicas.len() && answered + awaited >= needed {
            // Too few complete ones, but the union of all N will do.
            GetVerdict::Pending
        } else {
            GetVerdict::Unavailable
        }
    }

    /// Who answered and lacks something of the merged state.
    pub fn stale_replicas(&self) -> impl Iterator<Item = NodeId> {
        self.replicas.iter().filter_map(|(node, answer)| match answer {
            Answer::State { state, .. } if state.would_change(&self.merged) => Some(*node),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causality::{Actor, Content};
    use crate::id::OperationId;
    use crate::time::WallTime;

    const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

    fn state(id: u64) -> Siblings<Bytes> {
        let mut state = Siblings::new();
        let value = Content::Value(Bytes::from_static(b"v"));
        let actor = Actor { id, epoch: 1 };
        state.put(actor, &VersionVector::new(), value, None, OperationId::NONE, WallTime(1));
        state
    }

    fn get(needed: u8) -> GetQuorum {
        GetQuorum::new(needed, VersionVector::new(), &NODES)
    }

    /// The conflict of the paper's §4.4: put on A and B, put on B and C, read from A and C.
    #[test]
    fn answers_merge_into_siblings_and_the_stale_are_named() {
        let mut get = get(2);
        get.on_state(NODES[0], state(7), true);
        assert_eq!(get.verdict(false), GetVerdict::Pending);
        get.on_state(NODES[2], state(8), true);
        assert_eq!(get.verdict(false), GetVerdict::Enough(Basis::primaries(2)));
        assert_eq!(get.merged().values().count(), 2);
        assert_eq!(get.stale_replicas().collect::<Vec<_>>(), [NODES[0], NODES[2]]);
    }

    /// P9: a replica that restarted empty doesn't make a read miss.
    #[test]
    fn an_incomplete_replica_is_not_counted_unless_all_have_answered() {
        let mut get = get(2);
        get.on_state(NODES[0], Siblings::new(), false);
        get.on_state(NODES[1], Siblings::new(), true);
        assert_eq!(get.verdict(false), GetVerdict::Pending);
        assert_eq!(get.verdict(true), GetVerdict::Unavailable);
        get.on_state(NODES[2], state(7), true);
        assert_eq!(get.verdict(false), GetVerdict::Enough(Basis::primaries(3)));
    }

    #[test]
    fn the_union_of_all_replicas_is_an_answer_however_incomplete() {
        let mut get = get(2);
        for node in NODES {
            assert_eq!(get.verdict(false), GetVerdict::Pending);
            get.on_state(node, Siblings::new(), false);
        }
        assert_eq!(get.verdict(false), GetVerdict::Enough(Basis::primaries(3)));
    }

    #[test]
    fn a_read_is_given_up_as_soon_as_it_must_be() {
        let mut get = get(3);
        get.on_failure(NODES[0]);
        assert_eq!(get.verdict(false), GetVerdict::Unavailable);
    }

    #[test]
    fn at_least_waits_for_more_than_r() {
        let mut get = GetQuorum::new(1, state(8).context(), &NODES);
        get.on_state(NODES[0], state(7), true);
        assert_eq!(get.verdict(false), GetVerdict::Pending);
        assert_eq!(get.verdict(true), GetVerdict::Stale);
        get.on_state(NODES[1], state(8), true);
        assert_eq!(get.verdict(false), GetVerdict::Enough(Basis::primaries(2)));
    }

    /// The one that had seen it may be the one that restarted empty.
    #[test]
    fn at_least_does_not_go_back_in_time_because_a_replica_forgot() {
        let mut get = GetQuorum::new(2, state(9).context(), &NODES);
        get.on_state(NODES[0], Siblings::new(), false);
        get.on_state(NODES[1], state(7), true);
        get.on_state(NODES[2], state(7), true);
        assert_eq!(get.verdict(false), GetVerdict::Stale);
    }

    /// A context from a write that reached nobody else: when all complete replicas agree, that is the answer.
    #[test]
    fn at_least_ends_when_all_have_answered() {
        let mut get = GetQuorum::new(1, state(9).context(), &NODES);
        NODES.into_iter().for_each(|node| get.on_state(node, state(7), true));
        assert_eq!(get.verdict(false), GetVerdict::Enough(Basis::primaries(3)));
    }
}
