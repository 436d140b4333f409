//! The whole state of one key: what has been seen, and the versions that stand.
//!
//! # A retry under two dots
//!
//! A client that got no answer repeats its put elsewhere. If the second coordinator has not heard of the
//! first attempt, the same operation lands under two dots: twins. Whoever reads must see one value. The
//! obvious rule, dropping the greater dot as soon as twins meet, is convergent but not associative. Take the
//! twins a and b, and a put c by a client that had read a alone: (a + b) + c drops b when the twins meet, and
//! leaves c; (a + c) + b leaves c and b. What remains would depend on the order of messages.
//!
//! So twins collapse where they are shown, not where they are stored: `versions` keeps both, `values` and
//! `latest` show an operation once, under its least dot that still stands, and a context covers both, so the
//! next put or delete that has read the value supersedes both. `merge` stays a plain union, with all its
//! laws. The price is a second copy of a value until then, after a retry that overtook its own replication.
//! The limit: if a client has read one twin before the other arrived, and replaces it, the other stays, as a
//! sibling, as a concurrent put of the same value would. A value is shown too often there, never lost.

use bytes::Bytes;
use smallvec::SmallVec;

use super::clock::{self, Entry};
use super::{ACTORS_MAX, Actor, COUNTER_MAX, Dot, InvalidState, VersionVector};
use crate::id::OperationId;
use crate::time::WallTime;

/// From this many siblings on the user should hear of it: nobody merges them.
pub const SIBLINGS_WARN: usize = 25;
/// At this many siblings a blind put is refused; one with a context reduces them and is welcome.
pub const SIBLINGS_MAX: usize = 100;
/// The most actors a put may leave behind. Four replicas that never met can each fill up to here, and their
/// merged state still fits [`ACTORS_MAX`].
pub const ACTORS_PUT_MAX: usize = ACTORS_MAX / 4;
/// The most versions, tombstones included, in a state from outside.
pub const VERSIONS_MAX: usize = 1024;
/// The most versions, tombstones included, that a put may leave behind; a quarter, as for the actors.
pub const VERSIONS_PUT_MAX: usize = VERSIONS_MAX / 4;

/// What a version says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Content<V> {
    /// This is the value.
    Value(V),
    /// There is a value, of so many bytes, and it is not in memory: whoever keeps the state can read it again. No such state ever
    /// leaves its keeper.
    Cold {
        /// Of the value.
        bytes: u32,
    },
    /// There is no value: somebody deleted it.
    Tombstone,
    /// There is no value any more, since its time had come: nobody asked for that, and whoever has the value comes to it by
    /// itself.
    Expired,
}

impl<V> Content<V> {
    /// Is there a value, here or on the disk?
    pub const fn is_value(&self) -> bool {
        matches!(self, Self::Value(_) | Self::Cold { .. })
    }

    /// Is it on the disk alone?
    pub const fn is_cold(&self) -> bool {
        matches!(self, Self::Cold { .. })
    }

    /// Of one dot, what says more wins.
    const fn finality(&self) -> u8 {
        match self {
            Self::Value(_) | Self::Cold { .. } => 0,
            Self::Expired => 1,
            // An older release doesn't tell what has expired from what was deleted.
            Self::Tombstone => 2,
        }
    }
}

/// One version of a key. One dot is one version, for ever (P6), but that a value may expire.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Version<V> {
    /// Its name.
    pub dot: Dot,
    /// What it says.
    pub content: Content<V>,
    /// When its value turns into a tombstone; never for a tombstone.
    pub expiry: Option<WallTime>,
    /// The write as its client named it.
    pub operation: OperationId,
    /// The coordinator's wall clock. It picks among siblings (`latest`) and never discards.
    pub timestamp: WallTime,
}

/// The dotted version vector set of one key. A key with one version by one actor needs no heap.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Siblings<V> {
    /// What has been seen. Sorted by actor, each once; `1 <= counter <= COUNTER_MAX`.
    clock: SmallVec<[Entry; 1]>,
    /// What stands. Sorted by dot, each once and covered by `clock`.
    versions: SmallVec<[Version<V>; 1]>,
}

impl<V> Default for Siblings<V> {
    fn default() -> Self {
        Self { clock: SmallVec::new(), versions: SmallVec::new() }
    }
}

impl<V: Clone> Siblings<V> {
    /// A key of which nothing has been seen.
    pub fn new() -> Self {
        Self::default()
    }

    /// From the wire or the disk, if every rule of the state holds.
    pub fn from_parts(
        clock: impl IntoIterator<Item = (Actor, u64)>,
        versions: impl IntoIterator<Item = Version<V>>,
    ) -> Result<Self, InvalidState> {
        let clock = clock::checked(clock)?;
        let mut checked = SmallVec::<[Version<V>; 1]>::new();
        for version in versions {
            if checked.len() == VERSIONS_MAX {
                return Err(InvalidState::TooManyVersions);
            }
            if version.dot.counter == 0 {
                return Err(InvalidState::CounterOutOfRange);
            }
            if checked.last().is_some_and(|before| before.dot >= version.dot) {
                return Err(InvalidState::VersionsUnsorted);
            }
            if !clock::covers(&clock, version.dot) {
                return Err(InvalidState::DotNotSeen);
            }
            if !version.content.is_value() && version.expiry.is_some() {
                return Err(InvalidState::TombstoneExpires);
            }
            checked.push(version);
        }
        Ok(Self { clock, versions: checked })
    }

    /// For each actor the counter up to which all its dots were seen, in ascending order of the actors.
    pub fn clock(&self) -> &[(Actor, u64)] {
        &self.clock
    }

    /// All that stands, tombstones and twins included, in ascending order of the dots.
    pub fn versions(&self) -> &[Version<V>] {
        &self.versions
    }

    /// What a reader sees: no tombstones, each operation once, in ascending order of the dots.
    pub fn values(&self) -> impl Iterator<Item = &Version<V>> {
        self.versions.iter().enumerate().filter_map(|(at, version)| {
            let shown = version.content.is_value() && !self.has_lesser_twin(at);
            shown.then_some(version)
        })
    }

    /// How many values a reader sees: the number that [`SIBLINGS_WARN`] and [`SIBLINGS_MAX`] speak of.
    pub fn sibling_count(&self) -> usize {
        self.values().count()
    }

    /// The value with the greatest (timestamp, dot): a pick for clients that want one, which discards nothing.
    pub fn latest(&self) -> Option<&Version<V>> {
        self.values().max_by_key(|version| (version.timestamp, version.dot))
    }

    /// Is nothing left here but tombstones, and one at least a delete's?
    pub fn is_deleted(&self) -> bool {
        let mut versions = self.versions.iter();
        versions.all(|version| !version.content.is_value())
            && self.versions.iter().any(|version| matches!(version.content, Content::Tombstone))
    }

    /// Whether nothing has ever been seen of this key. A deleted key is not empty.
    pub fn is_empty(&self) -> bool {
        self.clock.is_empty()
    }

    /// All that has been seen: what a reader's next put replaces.
    pub fn context(&self) -> VersionVector {
        VersionVector::from_clock(&self.clock)
    }

    /// The counter up to which `actor` has been seen, 0 if never.
    pub fn seen(&self, actor: Actor) -> u64 {
        clock::seen(&self.clock, actor)
    }

    /// Whether all of `context` has been seen here: a read may answer `at_least(context)` from this state.
    pub fn includes(&self, context: &VersionVector) -> bool {
        clock::includes(&self.clock, context.as_slice())
    }

    /// The least dot under which `operation` stands. A superseded operation is not remembered here.
    pub fn contains_operation(&self, operation: OperationId) -> Option<Dot> {
        if operation == OperationId::NONE {
            return None;
        }
        self.versions.iter().find(|version| version.operation == operation).map(|version| version.dot)
    }

    /// Whether a put by `actor` with this context keeps the state within what any peer accepts. To be asked
    /// before each put; if not, the put is refused.
    pub fn has_room_for(&self, actor: Actor, covered: &VersionVector) -> bool {
        let kept = self.versions.iter().filter(|version| !covered.covers(version.dot)).count();
        let newcomers = covered.iter().filter(|&(other, _)| other != actor && self.seen(other) == 0).count();
        let actors = self.clock.len() + newcomers + usize::from(self.seen(actor) == 0);
        // An update of known actors never grows the clock, so it's welcome however large the clock has become.
        let grows = actors > self.clock.len();
        kept < VERSIONS_PUT_MAX
            && (!grows || actors <= ACTORS_PUT_MAX)
            && self.seen(actor).max(covered.get(actor)) < COUNTER_MAX
    }

    /// Does it tell how far actors were seen that no version is by?
    pub fn is_prunable(&self) -> bool {
        !self.versions.is_empty() && self.clock.iter().any(|(actor, _)| !self.is_author(*actor))
    }

    /// Forget how far actors were seen that no version is by. Only for who knows that nobody can come with their
    /// versions any more.
    pub fn prune(&mut self) {
        let Self { clock, versions } = self;
        clock.retain(|(actor, _)| versions.iter().any(|version| version.dot.actor == *actor));
    }

    fn is_author(&self, actor: Actor) -> bool {
        self.versions.iter().any(|version| version.dot.actor == actor)
    }

    /// Mints a version that replaces exactly what `covered` covers. The actor must be the caller's own, and this
    /// state the caller's own record, read under the same turn: see the room's essay. A context may name
    /// dots unknown here; they count as seen and superseded.
    pub fn put(
        &mut self,
        actor: Actor,
        covered: &VersionVector,
        content: Content<V>,
        expiry: Option<WallTime>,
        operation: OperationId,
        timestamp: WallTime,
    ) -> Dot {
        assert!(expiry.is_none() || content.is_value(), "a tombstone doesn't expire");
        let seen = self.seen(actor).max(covered.get(actor));
        assert!(seen < COUNTER_MAX, "{actor:?} has no counter left");
        let dot = Dot { actor, counter: seen + 1 };
        assert!(!clock::covers(&self.clock, dot) && !covered.covers(dot), "{dot:?} was minted before");

        self.versions.retain(|version| !covered.covers(version.dot));
        clock::join(&mut self.clock, covered.as_slice());
        clock::join(&mut self.clock, &[(actor, dot.counter)]);
        let at = self.versions.partition_point(|version| version.dot < dot);
        self.versions.insert(at, Version { dot, content, expiry, operation, timestamp });
        debug_assert!(self.is_sound());
        dot
    }

    /// Takes in all that `other` has seen; true if this state changed. A version stands if it stands in both,
    /// or in one and the other hasn't seen its dot. Of one dot, a tombstone wins over a value (it expired), and a value over one
    /// that is on the disk. Nothing of `other` may be.
    pub fn merge(&mut self, other: &Self) -> bool {
        debug_assert!(!other.is_cold(), "what is on the disk is read before it is merged");
        if !self.would_change(other) {
            return false;
        }
        self.versions.retain(|version| match other.find(version.dot) {
            Some(theirs) => {
                if is_buried(version, theirs) || version.content.is_cold() {
                    version.clone_from(theirs);
                }
                true
            }
            None => !clock::covers(&other.clock, version.dot),
        });
        let news = other.versions.iter().filter(|theirs| !clock::covers(&self.clock, theirs.dot));
        self.versions.extend(news.cloned());
        self.versions.sort_unstable_by_key(|version| version.dot);
        clock::join(&mut self.clock, &other.clock);
        debug_assert!(self.is_sound());
        true
    }

    /// Whether `merge` would change this state: whether `other` has seen, replaced or buried something that
    /// this state hasn't.
    pub fn would_change(&self, other: &Self) -> bool {
        // A version that stands only there has a dot unseen here, so the clocks tell.
        !clock::includes(&self.clock, &other.clock)
            || self.versions.iter().any(|version| match other.find(version.dot) {
                Some(theirs) => is_buried(version, theirs),
                None => clock::covers(&other.clock, version.dot),
            })
    }

    /// The versions that `other` has seen and no longer has: `merge` would drop them.
    pub fn replaced_in<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a Version<V>> + 'a {
        self.versions
            .iter()
            .filter(|version| clock::covers(&other.clock, version.dot) && other.find(version.dot).is_none())
    }

    /// Turns each value whose time has come (`expiry <= now`) into a tombstone with the same dot, and tells how
    /// many. Replicas may do so at different times: the tombstone wins when they meet.
    pub fn expire(&mut self, now: WallTime) -> usize {
        let mut buried = 0;
        for version in &mut self.versions {
            if version.expiry.is_some_and(|expiry| expiry <= now) {
                version.content = Content::Expired;
                version.expiry = None;
                buried += 1;
            }
        }
        buried
    }

    /// Are values of it on the disk alone? It is hot or cold as a whole, but for what has no bytes.
    pub fn is_cold(&self) -> bool {
        self.versions.iter().any(|version| version.content.is_cold())
    }

    /// Would values of it still be on the disk alone after this was merged?
    pub fn stays_cold(&self, theirs: &Self) -> bool {
        let mut cold = self.versions.iter().filter(|version| version.content.is_cold());
        cold.any(|version| theirs.find(version.dot).is_none() && !clock::covers(&theirs.clock, version.dot))
    }

    /// Would they after a put that replaces what this covers?
    pub fn stays_cold_beside(&self, covered: &VersionVector) -> bool {
        self.versions.iter().any(|version| version.content.is_cold() && !covered.covers(version.dot))
    }

    /// Take values that are on the disk from a state that has them: of the same dots, and so the same values. False if some are
    /// still missing.
    pub fn warm(&mut self, from: &Self) -> bool {
        for version in self.versions.iter_mut().filter(|version| version.content.is_cold()) {
            // A value that has expired there has not here, if that was read by an earlier clock; it doesn't happen.
            if let Some(found) = from.find(version.dot).filter(|found| found.content.is_value()) {
                version.content = found.content.clone();
            }
        }
        !self.is_cold()
    }

    /// Bytes of its two allocations, the clock's and the versions', values apart: 0 for what fits into the state itself.
    pub fn allocations(&self) -> [usize; 2] {
        let bytes_of = |is_spilled, bytes| if is_spilled { bytes } else { 0 };
        [
            bytes_of(self.clock.spilled(), self.clock.capacity() * size_of::<Entry>()),
            bytes_of(self.versions.spilled(), self.versions.capacity() * size_of::<Version<V>>()),
        ]
    }

    /// Whether the operation of the version at this index already stands under a lesser dot.
    fn has_lesser_twin(&self, at: usize) -> bool {
        let operation = self.versions[at].operation;
        operation != OperationId::NONE && self.versions[..at].iter().any(|twin| twin.operation == operation)
    }

    fn find(&self, dot: Dot) -> Option<&Version<V>> {
        let at = self.versions.binary_search_by_key(&dot, |version| version.dot).ok()?;
        Some(&self.versions[at])
    }

    fn is_sound(&self) -> bool {
        self.clock.is_sorted_by(|left, right| left.0 < right.0)
            && self.versions.is_sorted_by(|left, right| left.dot < right.dot)
            && self.versions.iter().all(|version| clock::covers(&self.clock, version.dot))
    }
}

impl Siblings<Bytes> {
    /// Let go of the values: they can be read again. True if there were any.
    pub fn cool(&mut self) -> bool {
        let mut any = false;
        for version in &mut self.versions {
            if let Content::Value(value) = &version.content
                && !value.is_empty()
            {
                version.content = Content::Cold { bytes: value.len() as u32 };
                any = true;
            }
        }
        any
    }
}

/// Whether `theirs`, of the same dot, is a tombstone where `ours` is still a value.
fn is_buried<V>(ours: &Version<V>, theirs: &Version<V>) -> bool {
    debug_assert_eq!(ours.dot, theirs.dot);
    ours.content.finality() < theirs.content.finality()
}

#[cfg(test)]
mod tests;
