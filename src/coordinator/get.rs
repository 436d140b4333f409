//! A get under way.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::causality::{Siblings, VersionVector};
use crate::id::NodeId;

use super::owners::{Owners, Sets, share};
use super::{Basis, Role};

/// Merges the answers to one read and counts them.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct GetQuorum {
    /// R, of each set of owners that counts; 0 for a majority of each.
    needed: u8,
    /// Of these so many must be owners.
    primaries_needed: u8,
    /// R among each of these. The others are asked too, so that they can be repaired.
    counted: Sets,
    /// What the client wants included.
    at_least: VersionVector,
    /// Each owner, with the sets that it is in; then fallbacks, which are in none.
    replicas: SmallVec<[(NodeId, Sets, Answer); 4]>,
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
    /// A read of which the owners are asked, and `needed` of the primaries must answer: at most all of them, and a
    /// majority if that is 0.
    pub fn new<'a>(needed: u8, at_least: VersionVector, owners: impl Into<Owners<'a>>) -> Self {
        let owners = owners.into();
        let replicas = owners.iter().map(|node| (node, owners.sets(node), Answer::Awaited)).collect();
        let counted = Sets::PRIMARIES;
        Self { needed, primaries_needed: 0, counted, at_least, replicas, merged: Siblings::new() }
    }

    /// The same, but so many of those that count must be owners.
    #[must_use]
    pub fn with_primaries(mut self, primaries_needed: u8) -> Self {
        self.primaries_needed = primaries_needed;
        self
    }

    /// The same, but if `both`, as many of the successors must answer too.
    #[must_use]
    pub const fn with_successors(mut self, both: bool) -> Self {
        self.counted = if both { Sets::BOTH } else { Sets::PRIMARIES };
        self
    }

    /// Others own the key now, or (`both`) the successors count. What was told stays; owners that have told nothing,
    /// or spoke as fallbacks, must be asked. False if nothing has changed.
    pub fn regroup(&mut self, owners: Owners<'_>, both: bool) -> bool {
        let counted = if both { Sets::BOTH } else { Sets::PRIMARIES };
        let known = self.replicas.iter().filter(|(_, sets, _)| *sets != Sets::NONE);
        let known = known.map(|(node, sets, _)| (*node, *sets));
        if counted == self.counted && known.eq(owners.iter().map(|node| (node, owners.sets(node)))) {
            return false;
        }
        let mut before = std::mem::take(&mut self.replicas);
        before.retain(|(.., answer)| matches!(answer, Answer::State { .. }));
        for node in owners.iter() {
            let told = before.iter_mut().find(|(known, sets, _)| *known == node && *sets != Sets::NONE);
            let answer =
                told.map_or(Answer::Awaited, |(.., answer)| std::mem::replace(answer, Answer::Failed));
            self.replicas.push((node, owners.sets(node), answer));
        }
        before.retain(|(node, sets, _)| *sets == Sets::NONE && !owners.contains(*node));
        self.replicas.extend(before);
        self.counted = counted;
        true
    }

    /// Nothing that was told counts any more, since it was told of an epoch that is over: all owners must be asked anew.
    pub fn begin_again(&mut self) {
        self.replicas.retain(|(_, sets, _)| *sets != Sets::NONE);
        self.replicas.iter_mut().for_each(|(.., answer)| *answer = Answer::Awaited);
        self.merged = Siblings::new();
    }

    /// A fallback is asked too: it may hold something for a primary that can't be reached.
    pub fn add_fallback(&mut self, node: NodeId) {
        if self.replicas.iter().all(|(known, ..)| *known != node) {
            self.replicas.push((node, Sets::NONE, Answer::Awaited));
        }
    }

    /// The fallbacks that are asked, or have been.
    pub fn fallbacks(&self) -> impl Iterator<Item = NodeId> {
        self.replicas.iter().filter(|(_, sets, _)| *sets == Sets::NONE).map(|(node, ..)| *node)
    }

    /// Owners that were asked, and have neither answered nor failed.
    pub fn awaited(&self) -> impl Iterator<Item = NodeId> {
        let awaited = self
            .replicas
            .iter()
            .filter(|(_, sets, answer)| *sets != Sets::NONE && matches!(answer, Answer::Awaited));
        awaited.map(|(node, ..)| *node)
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

    /// R, of the set that needs more.
    pub fn needed(&self) -> u8 {
        self.counted_sets().map(|set| share(self.needed, self.members(set))).max().unwrap_or(1)
    }

    /// Nobody is waited for any more.
    pub fn is_settled(&self) -> bool {
        !self.replicas.iter().any(|(.., answer)| matches!(answer, Answer::Awaited))
    }

    /// Has every owner answered?
    pub fn has_heard_all(&self) -> bool {
        self.replicas.iter().all(|(_, sets, answer)| *sets == Sets::NONE || is_state(answer))
    }

    /// Did owners that count answer whose silence means nothing?
    pub fn counts_incomplete(&self) -> bool {
        let incomplete = |answer: &Answer| matches!(answer, Answer::State { complete: false, .. });
        self.owners(self.counted).any(incomplete)
    }

    /// Owners that count and have not answered: fallbacks may know what they missed.
    pub fn silent_primaries(&self) -> impl Iterator<Item = NodeId> {
        let silent =
            self.replicas.iter().filter(|(_, sets, answer)| sets.meets(self.counted) && !is_state(answer));
        silent.map(|(node, ..)| *node)
    }

    /// Decide by what is known. `expired`: nothing more may be waited for.
    pub fn verdict(&self, expired: bool) -> GetVerdict {
        let mut verdicts = self.counted_sets().map(|set| self.standing(set, expired));
        let first = verdicts.next().expect("the primaries always count");
        match verdicts.fold(first, Standing::worse) {
            Standing::Enough => GetVerdict::Enough(self.basis()),
            Standing::Stale => GetVerdict::Stale,
            Standing::Pending => GetVerdict::Pending,
            Standing::Unavailable => GetVerdict::Unavailable,
        }
    }

    /// How far one set of owners has come.
    fn standing(&self, set: Sets, expired: bool) -> Standing {
        let counted = self.count(set, counts);
        let awaited = self.count(set, |_, answer| !expired && matches!(answer, Answer::Awaited));
        let answered = self.count(set, |sets, answer| sets != Sets::NONE && is_state(answer));
        let (covered, owners) = (self.merged.includes(&self.at_least), self.members(set) as u8);
        let needed = share(self.needed, self.members(set));
        let primaries_needed = self.primaries_needed.min(needed);
        let suffices = |basis: Basis| basis.nodes >= needed && basis.primaries >= primaries_needed;
        if self.is_union(set) || suffices(counted) && covered {
            Standing::Enough
        } else if answered.primaries == owners {
            Standing::Stale
        } else if awaited.nodes > 0 && suffices(counted.plus(awaited)) {
            Standing::Pending
        } else if suffices(counted) {
            Standing::Stale
        } else if awaited.nodes > 0 && answered.primaries + awaited.primaries == owners {
            // Too few complete ones, but the union of all N will do.
            Standing::Pending
        } else {
            Standing::Unavailable
        }
    }

    /// Have all of a set answered, and is there nothing more to know? What all complete replicas lack was never
    /// acknowledged; an incomplete one may have forgotten it.
    fn is_union(&self, set: Sets) -> bool {
        let covered = self.merged.includes(&self.at_least);
        self.owners(set).all(is_state)
            && (covered
                || self.owners(set).all(|answer| matches!(answer, Answer::State { complete: true, .. })))
    }

    /// What an answer rests on that is given now.
    fn basis(&self) -> Basis {
        let unions = self.counted_sets().filter(|set| self.is_union(*set)).fold(Sets::NONE, Sets::and);
        let rests_on =
            |sets: Sets, answer: &Answer| counts(sets, answer) || unions.meets(sets) && is_state(answer);
        self.count(self.counted, rests_on)
    }

    /// Owners in these sets, and fallbacks.
    fn count(&self, sets: Sets, which: impl Fn(Sets, &Answer) -> bool) -> Basis {
        let concerns = |of: Sets| of == Sets::NONE || of.meets(sets);
        let counted = self.replicas.iter().filter(|(_, of, answer)| concerns(*of) && which(*of, answer));
        counted.fold(Basis::default(), |basis, (_, of, _)| basis.and(of.role()))
    }

    /// What the owners in these sets have answered.
    fn owners(&self, sets: Sets) -> impl Iterator<Item = &Answer> {
        self.replicas.iter().filter(move |(_, of, _)| of.meets(sets)).map(|(.., answer)| answer)
    }

    fn members(&self, set: Sets) -> usize {
        self.owners(set).count()
    }

    fn counted_sets(&self) -> impl Iterator<Item = Sets> {
        [Sets::PRIMARIES, Sets::SUCCESSORS].into_iter().filter(|set| set.meets(self.counted))
    }

    /// Owners that answered and lack something of the merged state. What a fallback lacks, it needn't have.
    pub fn stale_replicas(&self) -> impl Iterator<Item = NodeId> {
        self.replicas.iter().filter_map(|(node, sets, answer)| match answer {
            Answer::State { state, .. } if *sets != Sets::NONE && state.would_change(&self.merged) => {
                Some(*node)
            }
            _ => None,
        })
    }
}

/// What is known of one set of owners, the better first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Enough,
    Stale,
    Pending,
    Unavailable,
}

impl Standing {
    fn worse(self, other: Self) -> Self {
        self.max(other)
    }
}

const fn is_state(answer: &Answer) -> bool {
    matches!(answer, Answer::State { .. })
}

/// Does this answer count towards R? An owner's, if its silence about a key means something; a fallback's, if it
/// holds something.
fn counts(sets: Sets, answer: &Answer) -> bool {
    match (sets.role(), answer) {
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

    /// The owners move from 1, 2, 3 to 2, 3, 4.
    const MOVING: Owners<'static> =
        Owners { primaries: &NODES, successors: &[NodeId(2), NodeId(3), NodeId(4)] };

    fn moving(both: bool, answered: &[u64]) -> GetQuorum {
        let mut get = GetQuorum::new(2, VersionVector::new(), MOVING).with_successors(both);
        answered.iter().for_each(|&node| get.on_state(NodeId(node), state(node), true));
        get
    }

    /// ADR 11: R among the owners in force, and from the step `Reading` on R among those to be.
    #[test]
    fn while_the_ring_changes_the_owners_to_be_count_when_it_is_time() {
        for (both, answered, enough) in [
            (false, &[1, 4][..], None),
            (false, &[1, 2], Some(2)),
            (false, &[1, 2, 4], Some(2)),
            (true, &[1, 2], None),
            (true, &[1, 2, 4], Some(3)),
            (true, &[2, 3], Some(2)),
            (true, &[3, 4], None),
        ] {
            let get = moving(both, answered);
            let expected =
                enough.map_or(GetVerdict::Pending, |nodes| GetVerdict::Enough(Basis::primaries(nodes)));
            assert_eq!(get.verdict(false), expected, "{answered:?}");
            assert_eq!(get.stale_replicas().count(), answered.len(), "all owners are repaired");
        }
    }

    #[test]
    fn a_read_of_both_sets_is_given_up_when_one_must_be() {
        let mut get = moving(true, &[1, 2]);
        get.on_failure(NodeId(4));
        assert_eq!(get.verdict(false), GetVerdict::Pending);
        get.on_state(NodeId(3), Siblings::new(), false);
        assert_eq!(
            get.verdict(false),
            GetVerdict::Unavailable,
            "a newcomer that isn't complete doesn't count"
        );
        assert_eq!((get.silent_primaries().count(), get.counts_incomplete()), (1, true));
    }

    #[test]
    fn regrouped_it_keeps_what_was_told_and_asks_the_rest() {
        let mut get = get(2);
        get.on_state(NODES[0], state(1), true);
        get.on_state(NODES[1], state(2), true);
        get.add_fallback(NodeId(4));
        get.on_state(NodeId(4), state(4), false);
        assert!(!get.regroup(Owners::from(&NODES), false));
        assert!(get.regroup(MOVING, true));
        assert_eq!(get.awaited().collect::<Vec<_>>(), [NODES[2], NodeId(4)], "it spoke as a fallback");
        assert_eq!(get.verdict(false), GetVerdict::Pending);
        get.on_state(NodeId(4), Siblings::new(), true);
        assert_eq!(get.verdict(false), GetVerdict::Enough(Basis::primaries(3)));
        assert_eq!(get.merged().values().count(), 3, "what the fallback told is not forgotten");
        assert!(get.regroup(Owners::from(MOVING.successors), false));
        assert_eq!(get.verdict(false), GetVerdict::Enough(Basis::primaries(2)));
    }
}
