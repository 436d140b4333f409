//! Entries (actor, seen up to), sorted by actor: the rules that a clock and a version vector share.

use smallvec::{Array, SmallVec};
use thiserror::Error;

use super::{Actor, COUNTER_MAX, Dot};

/// The most actors in a state or a context from outside. Puts stop long before, so that states merged from
/// replicas that never met still fit.
pub const ACTORS_MAX: usize = 1024;

/// An actor, and the counter up to which every one of its dots has been seen. `1 <= counter <= COUNTER_MAX`
pub(super) type Entry = (Actor, u64);

/// Why a state from the wire or the disk is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum InvalidState {
    /// An actor comes twice or before a smaller one.
    #[error("the actors are not in strictly ascending order")]
    ActorsUnsorted,
    /// More actors than [`ACTORS_MAX`].
    #[error("more than {ACTORS_MAX} actors")]
    TooManyActors,
    /// A counter is 0 or above [`COUNTER_MAX`].
    #[error("a counter is outside 1 to {COUNTER_MAX}")]
    CounterOutOfRange,
    /// A dot comes twice or before a smaller one.
    #[error("the versions are not in strictly ascending order of their dots")]
    VersionsUnsorted,
    /// More versions than [`super::VERSIONS_MAX`].
    #[error("more than {} versions", super::VERSIONS_MAX)]
    TooManyVersions,
    /// A version's dot is beyond what the clock has seen of its actor.
    #[error("a version's dot is not covered by its own clock")]
    DotNotSeen,
    /// Deleted is deleted for good.
    #[error("a tombstone carries an expiry")]
    TombstoneExpires,
}

/// The counter up to which `actor` has been seen, 0 if never.
pub(super) fn seen(entries: &[Entry], actor: Actor) -> u64 {
    entries.binary_search_by_key(&actor, |entry| entry.0).map_or(0, |at| entries[at].1)
}

pub(super) fn covers(entries: &[Entry], dot: Dot) -> bool {
    seen(entries, dot.actor) >= dot.counter
}

/// Whether `entries` has seen all that `other` has.
pub(super) fn includes(entries: &[Entry], other: &[Entry]) -> bool {
    other.iter().all(|&(actor, counter)| seen(entries, actor) >= counter)
}

/// Raises `entries` to the least upper bound of both.
pub(super) fn join<A: Array<Item = Entry>>(entries: &mut SmallVec<A>, other: &[Entry]) {
    let known = entries.len();
    for &(actor, counter) in other {
        match entries[..known].binary_search_by_key(&actor, |entry| entry.0) {
            Ok(at) => entries[at].1 = entries[at].1.max(counter),
            Err(_) => entries.push((actor, counter)),
        }
    }
    if entries.len() > known {
        entries.sort_unstable_by_key(|entry| entry.0);
    }
}

/// Entries from outside, if they keep the rules.
pub(super) fn checked<A: Array<Item = Entry>>(
    foreign: impl IntoIterator<Item = Entry>,
) -> Result<SmallVec<A>, InvalidState> {
    let mut entries = SmallVec::<A>::new();
    for (actor, counter) in foreign {
        if entries.len() == ACTORS_MAX {
            return Err(InvalidState::TooManyActors);
        }
        if !(1..=COUNTER_MAX).contains(&counter) {
            return Err(InvalidState::CounterOutOfRange);
        }
        if entries.last().is_some_and(|&(before, _)| before >= actor) {
            return Err(InvalidState::ActorsUnsorted);
        }
        entries.push((actor, counter));
    }
    Ok(entries)
}
