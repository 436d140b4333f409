//! What the epoch of a partition is, by what all members know of it (docs/adr/0013).

use ringmain_schema::epoch::{Epoch, Word};

/// An epoch by the round that raised it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Raised {
    /// The epoch; 0 if it never was raised.
    pub epoch: u64,
    /// The node that raised it.
    pub proposer: u64,
    /// In which of its rounds.
    pub round: u64,
}

impl From<&Word> for Raised {
    fn from(word: &Word) -> Self {
        Self { epoch: word.epoch, proposer: word.proposer, round: word.round }
    }
}

impl From<&Epoch> for Raised {
    fn from(epoch: &Epoch) -> Self {
        Self { epoch: epoch.epoch, proposer: epoch.proposer, round: epoch.round }
    }
}

/// What the epoch is, by the words of members that have all noted the beginning of who asks; `are_all` if nobody's is missing.
///
/// - Who is trusted and bound by nothing would have to be bound by any raise beyond its epoch: its word suffices, unless
///   another who is trusted tells of a later one. Then its disk is an older one.
/// - Else all must have spoken, and nobody who is trusted may be bound by a round whose proposer can still raise it. The epoch is
///   the latest of those who are trusted; or the next one, if somebody who has lost its records still tells of a raise by whose
///   round all of these are bound. A raise by another round is of a process that was taken over from: nobody follows it.
/// - If all have lost their records, the latest of what is left of them.
pub fn decide<'a>(words: impl Iterator<Item = &'a Word> + Clone, are_all: bool) -> Option<Raised> {
    let trusted = words.clone().filter(|word| word.trusted);
    let latest = trusted.clone().map(Raised::from).max();
    let is_free = |word: &Word| word.bound.is_empty() && Some(Raised::from(word)) == latest;
    if trusted.clone().any(is_free) {
        return latest;
    }
    if !are_all {
        return None;
    }
    let Some(latest) = latest else { return words.map(Raised::from).max() };
    let at_it = trusted.filter(|word| word.epoch == latest.epoch);
    if at_it.clone().any(|word| word.bound.iter().any(|(.., is_dead)| !is_dead)) {
        return None;
    }
    let is_followed = |raised: &Raised| {
        let by_it = |word: &Word| {
            word.bound
                .iter()
                .any(|&(proposer, round, _)| (proposer, round) == (raised.proposer, raised.round))
        };
        raised.epoch == latest.epoch + 1 && at_it.clone().all(by_it)
    };
    let next = words.filter(|word| !word.trusted).map(Raised::from).filter(is_followed).max();
    Some(next.unwrap_or(latest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted(epoch: u64, bound: &[(u64, u64, bool)]) -> Word {
        Word { trusted: true, epoch, proposer: epoch, round: epoch, bound: bound.to_vec() }
    }

    fn lost(epoch: u64, by: (u64, u64)) -> Word {
        Word { trusted: false, epoch, proposer: by.0, round: by.1, bound: Vec::new() }
    }

    fn epoch(words: &[Word], are_all: bool) -> Option<u64> {
        decide(words.iter(), are_all).map(|raised| raised.epoch)
    }

    #[test]
    fn who_is_trusted_and_free_suffices() {
        assert_eq!(epoch(&[lost(5, (1, 1)), trusted(3, &[])], false), Some(3));
        assert_eq!(epoch(&[trusted(3, &[]), trusted(3, &[(1, 1, false)])], false), Some(3));
        assert_eq!(epoch(&[trusted(3, &[]), trusted(4, &[(1, 1, false)])], false), None, "its disk is older");
        assert_eq!(epoch(&[lost(5, (1, 1))], false), None);
    }

    #[test]
    fn who_is_bound_counts_when_all_have_spoken_and_its_proposer_can_raise_no_more() {
        let bound = |is_dead| trusted(3, &[(1, 7, is_dead)]);
        assert_eq!(epoch(&[bound(true), lost(0, (0, 0))], false), None);
        assert_eq!(epoch(&[bound(false), lost(0, (0, 0))], true), None, "it may still come");
        assert_eq!(epoch(&[bound(true), lost(0, (0, 0))], true), Some(3));
        assert_eq!(epoch(&[bound(true), trusted(4, &[(9, 9, true)])], true), Some(4), "one is behind");
    }

    /// The review's: two that had raised the epoch, and acknowledged in it, restarted with their records in doubt. The third had
    /// missed the raise; by its word both wiped what they had acknowledged.
    #[test]
    fn a_raise_that_is_left_in_lost_records_stands_if_all_others_are_bound_by_its_round() {
        let behind = trusted(3, &[(1, 7, true)]);
        assert_eq!(epoch(&[behind.clone(), lost(4, (1, 7)), lost(4, (1, 7))], true), Some(4));
        assert_eq!(
            epoch(&[behind.clone(), lost(4, (1, 8))], true),
            Some(3),
            "of a process that was taken over from"
        );
        assert_eq!(epoch(&[behind, trusted(3, &[(2, 1, true)]), lost(4, (1, 7))], true), Some(3));
    }

    #[test]
    fn what_is_left_counts_if_all_have_lost_their_records() {
        assert_eq!(epoch(&[lost(4, (1, 7)), lost(0, (0, 0))], true), Some(4));
        assert_eq!(epoch(&[lost(0, (0, 0))], true), Some(0));
    }
}
