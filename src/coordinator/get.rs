//! A get under way.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::causality::{Siblings, VersionVector};
use crate::id::NodeId;

use super::{Basis, Role};

/// Merges the answers to one read and counts them.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct GetQuorum {
    /// R. `1 <= needed`.
    needed: u8,
    /// Of these so many must be primaries. `primaries_needed <= needed`
    primaries_needed: u8,
    /// What the client wants included.
    at_least: VersionVector,
    replicas: SmallVec<[(NodeId, Role, Answer); 4]>,
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
    /// A read of which `primaries` (distinct nodes) are asked, and `needed` must answer.
    pub fn new(needed: u8, at_least: VersionVector, primaries: &[NodeId]) -> Self {
        assert!(needed > 0, "a read that waits for nobody knows nothing");
        let replicas = primaries.iter().map(|&node| (node, Role::Primary, Answer::Awaited)).collect();
        Self { needed, primaries_needed: 0, at_least, replicas, merged: Siblings::new() }
    }

    /// The same, but so many of those that count must be primaries.
    #[must_use]
    pub fn with_primaries(mut self, primaries_needed: u8) -> Self {
        assert!(primaries_needed <= self.needed, "more primaries than replicas can't be waited for");
        self.primaries_needed = primaries_needed;
        self
    }

    /// A fallback is asked too: it may hold something for a primary that can't be reached.
    pub fn add_fallback(&mut self, node: NodeId) {
        if self.replicas.iter().all(|(known, ..)| *known != node) {
            self.replicas.push((node, Role::Fallback, Answer::Awaited));
        }
    }

    /// The fallbacks that are asked, or have been.
    pub fn fallbacks(&self) -> impl Iterator<Item = NodeId> {
        self.replicas.iter().filter(|(_, role, _)| *role == Role::Fallback).map(|(node, ..)| *node)
    }

    /// What `node` has of the key; an answer that comes twice counts once.
    pub fn on_state(&mut self, node: NodeId, state: Siblings<Bytes>, complete: bool) {
        let found = self.replicas.iter_mut().find(|(replica, ..)| *replica == node);
        if let Some((.., answer)) = found
            && !matches!(answer, Answer::State { .. })
        {
            self.merged.merge(&state);
            *answer = Answer::State { state, complete };
        }
    }

    /// `node` refused, or can't be reached.
    pub fn on_failure(&mut self, node: NodeId) {
        let found = self.replicas.iter_mut().find(|(replica, ..)| *replica == node);
        if let Some((.., answer @ Answer::Awaited)) = found {
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
        !self.replicas.iter().any(|(.., answer)| matches!(answer, Answer::Awaited))
    }

    /// Did primaries answer whose silence means nothing?
    pub fn counts_incomplete(&self) -> bool {
        let mut primaries = self.replicas.iter().filter(|(_, role, _)| *role == Role::Primary);
        primaries.any(|(.., answer)| matches!(answer, Answer::State { complete: false, .. }))
    }

    /// How many primaries have not answered: fallbacks may know what they missed.
    pub fn silent_primaries(&self) -> usize {
        let primaries = self.replicas.iter().filter(|(_, role, _)| *role == Role::Primary);
        primaries.filter(|(.., answer)| !matches!(answer, Answer::State { .. })).count()
    }

    /// Decide by what is known. `expired`: nothing more may be waited for.
    pub fn verdict(&self, expired: bool) -> GetVerdict {
        let answered =
            self.count(|role, answer| role == Role::Primary && matches!(answer, Answer::State { .. }));
        let counted = self.count(counts);
        let awaits = |_, answer: &Answer| !expired && matches!(answer, Answer::Awaited);
        let awaited = self.count(awaits);
        let (covered, primaries) = (self.merged.includes(&self.at_least), self.primaries());
        let needed = usize::from(self.needed);
        let all = usize::from(answered.primaries) == primaries && primaries >= needed;
        let suffices =
            |basis: Basis| usize::from(basis.nodes) >= needed && basis.primaries >= self.primaries_needed;
        // What all complete replicas lack was never acknowledged; an incomplete one may have forgotten it.
        if all && (covered || usize::from(counted.primaries) == primaries) {
            GetVerdict::Enough(Basis { primaries: answered.primaries, ..counted }.summed())
        } else if suffices(counted) && covered {
            GetVerdict::Enough(counted)
        } else if all {
            GetVerdict::Stale
        } else if awaited.nodes > 0 && suffices(counted.plus(awaited)) {
            GetVerdict::Pending
        } else if suffices(counted) {
            GetVerdict::Stale
        } else if awaited.nodes > 0
            && usize::from(answered.primaries + awaited.primaries) == primaries
            && primaries >= needed
        {
            // Too few complete ones, but the union of all N will do.
            GetVerdict::Pending
        } else {
            GetVerdict::Unavailable
        }
    }

    fn count(&self, which: impl Fn(Role, &Answer) -> bool) -> Basis {
        let counted = self.replicas.iter().filter(|(_, role, answer)| which(*role, answer));
        counted.fold(Basis::default(), |basis, (_, role, _)| basis.and(*role))
    }

    fn primaries(&self) -> usize {
        self.replicas.iter().filter(|(_, role, _)| *role == Role::Primary).count()
    }

    /// Primaries that answered and lack something of the merged state. What a fallback lacks, it needn't have.
    pub fn stale_replicas(&self) -> impl Iterator<Item = NodeId> {
        self.replicas.iter().filter_map(|(node, role, answer)| match answer {
            Answer::State { state, .. } if *role == Role::Primary && state.would_change(&self.merged) => {
                Some(*node)
            }
            _ => None,
        })
    }
}

/// Does this answer count towards R? A primary's, if its silence about a key means something; a fallback's, if it
/// holds something.
fn counts(role: Role, answer: &Answer) -> bool {
    match (role, answer) {
        (Role::Primary, Answer::State { complete, .. }) => *complete,
        (Role::Fallback, Answer::State { state, .. }) => !state.is_empty(),
        _ => false,
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

    /// Paper §4.6: what a fallback holds for a primary that can't be reached is as good as the primary's own; what it
    /// doesn't hold says nothing.
    #[test]
    fn a_fallback_counts_if_it_holds_something() {
        let fallback = NodeId(4);
        for (held, primaries_needed, expected) in [
            (state(7), 0, GetVerdict::Enough(Basis { primaries: 1, fallbacks: 1, nodes: 2 })),
            (Siblings::new(), 0, GetVerdict::Unavailable),
            (state(7), 2, GetVerdict::Unavailable),
        ] {
            let mut get = get(2).with_primaries(primaries_needed);
            get.on_state(NODES[0], Siblings::new(), true);
            get.on_failure(NODES[1]);
            get.on_failure(NODES[2]);
            get.add_fallback(fallback);
            get.on_state(fallback, held, false);
            assert_eq!(get.verdict(false), expected);
            assert!(get.stale_replicas().all(|node| node != fallback), "fallbacks are not repaired");
        }
    }
}
