//! What someone has seen of a key, without the values.

use smallvec::SmallVec;

use super::clock::{self, Entry};
use super::{Actor, Dot, InvalidState};

/// A version vector: a client's context once opened. For each actor, every dot up to the counter was seen.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct VersionVector {
    /// Sorted by actor, each once; `counter >= 1`.
    entries: SmallVec<[Entry; 2]>,
}

impl VersionVector {
    /// Nothing seen: the context of a blind put.
    pub fn new() -> Self {
        Self::default()
    }

    /// From outside: strictly ascending actors, counters in range, at most [`super::ACTORS_MAX`] entries.
    pub fn try_from_sorted(entries: impl IntoIterator<Item = (Actor, u64)>) -> Result<Self, InvalidState> {
        Ok(Self { entries: clock::checked(entries)? })
    }

    /// The counter up to which `actor` was seen, 0 if never.
    pub fn get(&self, actor: Actor) -> u64 {
        clock::seen(&self.entries, actor)
    }

    /// Whether `dot` was seen.
    pub fn covers(&self, dot: Dot) -> bool {
        clock::covers(&self.entries, dot)
    }

    /// Whether all that `other` has seen was seen here too.
    pub fn includes(&self, other: &Self) -> bool {
        clock::includes(&self.entries, &other.entries)
    }

    /// Adds all that `other` has seen.
    pub fn merge(&mut self, other: &Self) {
        clock::join(&mut self.entries, &other.entries);
    }

    /// Whether nothing was seen.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// In ascending order of the actors.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Actor, u64)> + '_ {
        self.entries.iter().copied()
    }

    /// In ascending order of the actors.
    pub fn as_slice(&self) -> &[(Actor, u64)] {
        &self.entries
    }

    /// From a clock, which keeps the same rules.
    pub(super) fn from_clock(entries: &[Entry]) -> Self {
        Self { entries: SmallVec::from_slice(entries) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causality::{ACTORS_MAX, COUNTER_MAX};

    const A: Actor = Actor { id: 1, epoch: 0 };
    const A_AGAIN: Actor = Actor { id: 1, epoch: 1 };
    const B: Actor = Actor { id: 2, epoch: 0 };

    fn vector(entries: &[Entry]) -> VersionVector {
        VersionVector::try_from_sorted(entries.iter().copied()).expect("sorted")
    }

    #[test]
    fn an_epoch_is_an_actor_of_its_own() {
        let seen = vector(&[(A, 3), (B, 1)]);
        assert_eq!((seen.get(A), seen.get(A_AGAIN), seen.get(B)), (3, 0, 1));
        assert!(seen.covers(Dot { actor: A, counter: 3 }));
        assert!(!seen.covers(Dot { actor: A, counter: 4 }));
        assert!(!seen.covers(Dot { actor: A_AGAIN, counter: 1 }));
    }

    #[test]
    fn merge_is_the_least_upper_bound() {
        let mut left = vector(&[(A, 3), (B, 1)]);
        let right = vector(&[(A, 2), (A_AGAIN, 1), (B, 4)]);
        assert!(!left.includes(&right) && !right.includes(&left));
        left.merge(&right);
        assert_eq!(left, vector(&[(A, 3), (A_AGAIN, 1), (B, 4)]));
        assert!(left.includes(&right) && left.includes(&VersionVector::new()));
    }

    #[test]
    fn foreign_entries_that_break_a_rule_are_refused() {
        let refusal = |entries: &[Entry]| VersionVector::try_from_sorted(entries.iter().copied()).err();
        assert_eq!(refusal(&[(B, 1), (A, 1)]), Some(InvalidState::ActorsUnsorted));
        assert_eq!(refusal(&[(A, 1), (A, 1)]), Some(InvalidState::ActorsUnsorted));
        assert_eq!(refusal(&[(A, 0)]), Some(InvalidState::CounterOutOfRange));
        assert_eq!(refusal(&[(A, COUNTER_MAX + 1)]), Some(InvalidState::CounterOutOfRange));
        let endless = (0..).map(|id| (Actor { id, epoch: 0 }, 1));
        assert_eq!(VersionVector::try_from_sorted(endless.clone()).err(), Some(InvalidState::TooManyActors));
        assert!(VersionVector::try_from_sorted(endless.take(ACTORS_MAX)).is_ok());
    }
}
