//! The replica: one shard's copies, and the only place where dots are minted.
//!
//! A replica takes a client's write as its coordinator ([`Replica::coordinate`]) or another replica's whole
//! state of a key ([`Replica::merge`]), and tells what it has ([`Replica::read`]).
//!
//! What it promises: a dot is minted only after this replica's own record of the key was read, by an actor
//! that no one else ever is or was (P6). An actor is (random id, epoch). The id is drawn at each start. A key
//! that has no record here, because it is new, or was lost or evicted, is minted under an epoch that has
//! never been used: counters seen elsewhere under an older one say nothing about it (riak_kv #679).
//!
//! A write that was applied before is recognised by its operation id while its version lives, and for some
//! time after it was replaced ([`Superseded`]); it isn't applied again.

mod minter;
mod superseded;
mod wire;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::causality::{Actor, InvalidState, Siblings, VersionVector};
use crate::failpoint::{Bug, Failpoints, NoFailpoints, Rare};
use crate::id::{OperationId, PartitionId};
use crate::storage::log::Range;
use crate::storage::{Change, Entry, Expired, Index, cost, digest};
use crate::time::{Now, WallTime};

pub use crate::storage::Place;
use minter::{Minter, Record};
pub use superseded::{SUPERSEDED_MAX, Superseded};
pub use wire::{state_from_wire, state_writer};

/// With a limit on memory, one name of a write is remembered for so many bytes of it, and its room is taken at the start: an
/// eightieth of the limit at most. But never fewer than so many.
const NAMES_SHARE: usize = 8192;
const NAMES_LEAST: usize = 1024;

/// A client's write, as its coordinator applies it.
#[derive(Debug)]
pub struct Write<'a> {
    /// `None` deletes.
    pub value: Option<&'a [u8]>,
    /// What the client had seen; what this covers is replaced.
    pub covered: Covered,
    /// When it expires.
    pub expiry: Option<WallTime>,
    /// Its name.
    pub operation: OperationId,
}

/// Which versions a write replaces.
#[derive(Debug)]
pub enum Covered {
    /// Those that its client had seen, and no other.
    Context(VersionVector),
    /// All that its coordinator has.
    Everything,
}

/// A write that was not applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The key has as many siblings as it may: somebody must merge them.
    TooManySiblings,
    /// The key's versions together would be larger than this many bytes.
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// It was applied here before, and what it left was lost since: others may have it, or nobody.
    Lost,
}

/// How a write came out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Applied {
    /// It was minted, and replaced what these writes had left. Other replicas must hear of them, so that they
    /// recognise their retries too.
    Now {
        /// Those that have a name.
        replaced: Replaced,
        /// Under whose name.
        actor: Actor,
    },
    /// It had been applied already: this is a retry.
    Before,
}

/// Writes that another has replaced.
pub type Replaced = SmallVec<[OperationId; 1]>;

/// One shard's copies.
#[derive(Debug)]
pub struct Replica<F = NoFailpoints> {
    index: Index,
    minter: Minter<F>,
    /// Records of the log that cover nothing any more, since they were last taken.
    dead: Vec<u64>,
}

impl Replica {
    /// An empty replica. `actor_id` must be random: never a core's number, never a time.
    pub fn new(partitions: u32, actor_id: u64, state_bytes_max: usize) -> Self {
        Self::with_failpoints(partitions, actor_id, state_bytes_max, NoFailpoints)
    }
}

impl<F: Failpoints> Replica<F> {
    /// The same, for the simulator.
    pub fn with_failpoints(partitions: u32, actor_id: u64, state_bytes_max: usize, failpoints: F) -> Self {
        let minter = Minter::new(actor_id, state_bytes_max, failpoints);
        Self { index: Index::new(partitions), minter, dead: Vec::new() }
    }

    /// Whoever runs this may put keys out of it ([`Replica::put_out`]), and so few names of writes are remembered that they are
    /// a small part of these bytes.
    #[must_use]
    pub fn within(mut self, memory_max: usize) -> Self {
        let names = (memory_max / NAMES_SHARE).clamp(NAMES_LEAST, SUPERSEDED_MAX);
        self.minter.remember_at_most(names);
        self.index = self.index.with_seats();
        self
    }

    /// The same, and a log has all that is here: keys stay, and whoever runs this may let values go ([`Replica::cool`]).
    #[must_use]
    pub fn within_and_on_disk(mut self, memory_max: usize) -> Self {
        let names = (memory_max / NAMES_SHARE).clamp(NAMES_LEAST, SUPERSEDED_MAX);
        self.minter.remember_at_most(names);
        self.index = self.index.with_values_on_disk();
        self
    }

    /// Somebody's values have to go, of a key whose record is on stable storage, as all up to `durable` are; false if there is
    /// nobody.
    pub fn cool(&mut self, durable: u64) -> bool {
        self.index.cool(durable)
    }

    /// The values of a key that are on the disk alone were read: `from` has them. False if some are missing still.
    pub fn warm(&mut self, place: Place<'_>, from: &Siblings<Bytes>) -> bool {
        self.index.warm(place, from)
    }

    /// What [`Bug::LateLoadWins`] makes of a load: the key is as it was then.
    pub fn put_back(&mut self, place: Place<'_>, state: &Siblings<Bytes>) {
        self.index.update(place.partition, place.token, place.key, |entry| {
            if !entry.state.is_empty() {
                entry.state.clone_from(state);
            }
        });
    }

    /// The record of a key can't be read, and its values are lost here: forget it. Retries of its writes are known as lost, and so
    /// are those of all that was replaced: what had replaced them may be this.
    pub fn lose(&mut self, place: Place<'_>) -> SmallVec<[Box<Entry>; 1]> {
        let Place { key, token, partition } = place;
        let Some(entry) = self.index.find(partition, token, key) else { return SmallVec::new() };
        let gone = self.index.forget(partition, token, digest(token, &entry.state));
        self.minter.doubt_replaced();
        for entry in &gone {
            self.minter.lost.remember_all(&entry.state, entry.appended);
            self.note_dead(entry.appended);
        }
        gone
    }

    /// Somebody has to go: forget a key, whatever is known of it, unless a delete's tombstone stands. What was known of it.
    /// Retries of its writes are known as lost.
    pub fn put_out(&mut self) -> Option<Box<Entry>> {
        let gone = self.index.put_out()?;
        self.note_put_out(&gone);
        Some(gone)
    }

    /// The same with a key of one's choice.
    pub fn put_out_key(&mut self, place: Place<'_>) -> Option<Box<Entry>> {
        let gone = self.index.put_out_key(place)?;
        self.note_put_out(&gone);
        Some(gone)
    }

    fn note_put_out(&mut self, gone: &Entry) {
        self.minter.lost.remember_all(&gone.state, gone.appended);
        self.note_dead(gone.appended);
    }

    /// A key is about to be written: nobody puts it out (`is_held`) until that is over.
    pub fn hold(&mut self, place: Place<'_>, is_held: bool) {
        self.index.hold(place, is_held);
    }

    /// What is known of a key, expired versions turned into tombstones; `None` if nothing ever was.
    pub fn read(&mut self, now: Now, place: Place<'_>) -> Option<&Entry> {
        self.index.find_current(now.wall, place.partition, place.token, place.key)
    }

    /// The same for this node's own purposes: it doesn't count as a use of the key.
    pub fn look(&mut self, now: Now, place: Place<'_>) -> Option<&Entry> {
        self.index.look(now.wall, place.partition, place.token, place.key)
    }

    /// Turn versions whose time has come into tombstones, whether anybody reads them or not, in so many bounded steps at
    /// most. Nothing is appended: the record that covers a key tells when its versions expire.
    pub fn expire(&mut self, now: Now, steps: usize) -> Expired {
        let expired = self.index.expire(now.wall, steps);
        if expired.versions > 0 {
            self.minter.failpoints.reached(Rare::ExpiredUnread);
        }
        expired
    }

    /// From when on there is something to expire; at `now` or before, if there is already.
    pub fn next_expiry(&self, now: Now) -> Option<WallTime> {
        self.index.next_expiry(now.wall)
    }

    /// Apply a client's write and mint its dot. `appended` is the log record that will cover it.
    pub fn coordinate(
        &mut self,
        now: Now,
        place: Place<'_>,
        write: Write<'_>,
        appended: u64,
    ) -> Result<Applied, Refused> {
        let Self { minter, dead, .. } = self;
        self.index.update(place.partition, place.token, place.key, |entry| {
            begin(entry, minter.epoch());
            // What is beyond the last epoch was minted by an actor before this one.
            let is_of_now = entry.since <= minter.epoch() && !minter.failpoints.planted(Bug::EvictedMintsOn);
            let since = if is_of_now { entry.since } else { 0 };
            let record = Record::Own { since };
            let applied = minter.apply(now, place.key, &mut entry.state, write, record, appended)?;
            if applied != Applied::Before {
                cover(entry, appended, dead);
            }
            Ok(applied)
        })
    }

    /// Apply a client's write to a state that isn't this replica's own: what is kept for a primary that can't be
    /// reached. Several such states of one key may be here, and go one by one, so each write opens an epoch of its own; but for
    /// the actor of the last one, if all that was minted under it is in this state.
    pub fn coordinate_for_another(
        &mut self,
        now: Now,
        key: &[u8],
        state: &mut Siblings<Bytes>,
        last: Option<Actor>,
        write: Write<'_>,
        appended: u64,
    ) -> Result<Applied, Refused> {
        self.minter.apply(now, key, state, write, Record::Anothers(last), appended)
    }

    /// Was this write applied here, or elsewhere as far as is known, and replaced since?
    pub fn has_replaced(&self, operation: OperationId) -> bool {
        self.minter.superseded.contains(operation)
    }

    /// Another replica has replaced what these writes had left; true if that was news. `record` is that of the log which
    /// says so, or will.
    pub fn remember_replaced(&mut self, replaced: impl Iterator<Item = OperationId>, record: u64) -> bool {
        self.minter.superseded.remember(replaced, record)
    }

    /// Take in what another replica knows of a key; true if that was news. `appended` is the log record that
    /// will cover it, if so.
    pub fn merge(&mut self, place: Place<'_>, theirs: &Siblings<Bytes>, appended: u64) -> bool {
        let epoch = self.minter.epoch();
        let (Minter { superseded, failpoints, .. }, dead) = (&mut self.minter, &mut self.dead);
        self.index.update(place.partition, place.token, place.key, |entry| {
            if !entry.state.would_change(theirs) {
                return false;
            }
            begin(entry, epoch);
            if F::WATCHED && expires_by(&entry.state, theirs) {
                failpoints.reached(Rare::ExpiredElsewhere);
            }
            // The record of before has the versions, and this one lacks them.
            let gone = entry.state.replaced_in(theirs).map(|version| version.operation);
            superseded.remember(gone, entry.appended);
            entry.state.merge(theirs);
            if F::WATCHED {
                watch_merge(&mut entry.state, theirs, &*failpoints);
            }
            cover(entry, appended, dead);
            true
        })
    }

    /// The log says that this was the whole state of the key then. What an earlier record said beyond that was forgotten.
    pub fn recover(&mut self, place: Place<'_>, state: &Siblings<Bytes>, record: u64) {
        let (superseded, dead) = (&mut self.minter.superseded, &mut self.dead);
        self.index.update(place.partition, place.token, place.key, |entry| {
            let gone = entry.state.replaced_in(state).map(|version| version.operation);
            superseded.remember(gone, entry.appended);
            entry.state.clone_from(state);
            cover(entry, record, dead);
        });
    }

    /// Another log record is about to cover a key's state, with more than the last one; false if there is no state.
    pub fn cover(&mut self, place: Place<'_>, appended: u64) -> bool {
        let dead = &mut self.dead;
        self.index.update(place.partition, place.token, place.key, |entry| {
            cover(entry, appended, dead);
            !entry.state.is_empty()
        })
    }

    /// The log record that covers a key's state; 0 if there is none.
    pub fn appended(&self, place: Place<'_>) -> u64 {
        self.index.find(place.partition, place.token, place.key).map_or(0, |entry| entry.appended)
    }

    /// These copies are the owners' now, and none is here any more. Should they come back, others may not know all that was
    /// minted here.
    pub fn give_up(&mut self, partition: PartitionId) {
        let records = self.index.partition(partition).map(|entry| entry.appended);
        self.dead.extend(records.filter(|record| *record != 0));
        self.index.clear(partition);
    }

    /// Forget the keys under this token of whose state this is the digest: what was known of them. Their writes are
    /// remembered for a while, as if they had been replaced.
    pub fn reap(&mut self, partition: PartitionId, token: u64, hash: u64) -> SmallVec<[Box<Entry>; 1]> {
        let gone = self.index.forget(partition, token, hash);
        self.note_forgotten(&gone);
        gone
    }

    /// Retries of their writes are still known, by the same records of the log.
    fn note_forgotten(&mut self, gone: &[Box<Entry>]) {
        for entry in gone {
            self.minter.superseded.remember_all(&entry.state, entry.appended);
            self.dead.extend(Some(entry.appended).filter(|record| *record != 0));
        }
    }

    /// Forget how far actors were seen that no version is by, of the keys under this token of whose state this is the
    /// digest: those keys. The records that cover them say too much from now on. One of these actors may be this replica's, and a
    /// context may tell of it still, and too little: what is minted from now on is minted by somebody new.
    pub fn prune(&mut self, partition: PartitionId, token: u64, hash: u64) -> Vec<Box<[u8]>> {
        let is_it = |entry: &&Entry| digest(token, &entry.state) == hash && entry.state.is_prunable();
        let keys: Vec<Box<[u8]>> =
            self.index.under(partition, token).filter(is_it).map(|entry| entry.key.clone()).collect();
        for key in &keys {
            let epoch = self.minter.epoch();
            self.index.update(partition, token, key, |entry| {
                entry.state.prune();
                entry.since = epoch;
            });
        }
        keys
    }

    /// Forget all keys of a partition, since others have them all; their writes are remembered, as above.
    pub fn forget_all(&mut self, partition: PartitionId) {
        let gone = self.index.forget_all(partition, |_| false);
        self.note_forgotten(&gone);
    }

    /// Forget all keys of a partition, since they may be older than what others have forgotten; `but_own` keeps those that
    /// nobody but this replica has ever written, since it was started. Retries of their writes are known as lost.
    pub fn wipe(&mut self, partition: PartitionId, but_own: bool) -> Vec<Box<Entry>> {
        let Self { index, minter, .. } = self;
        let gone = index.forget_all(partition, |entry| but_own && minter.is_own(&entry.state));
        // What had replaced a write may be among this: what was replaced is in as much doubt.
        self.minter.doubt_replaced();
        for entry in &gone {
            self.minter.lost.remember_all(&entry.state, entry.appended);
            self.note_dead(entry.appended);
        }
        gone
    }

    /// Has nobody but this replica ever written this, since it was started?
    pub fn is_own(&self, state: &Siblings<Bytes>) -> bool {
        self.minter.is_own(state)
    }

    /// What these writes had left is lost here. `record` is that of the log which says so, or will.
    pub fn remember_lost(&mut self, writes: impl Iterator<Item = OperationId>, record: u64) {
        self.minter.lost.remember(writes, record);
    }

    /// Forget a key, whatever is known of it.
    pub fn forget(&mut self, place: Place<'_>) {
        let Place { key, token, partition } = place;
        if let Some(entry) = self.index.find(partition, token, key) {
            let hash = digest(token, &entry.state);
            self.reap(partition, token, hash);
        }
    }

    /// Keys of a partition are absent that were never deleted; or its copies are begun anew, so that none is.
    pub fn set_lacks(&mut self, partition: PartitionId, lacks: bool) {
        self.index.set_lacks(partition, lacks);
    }

    /// Some of what was known of this key was put out, and what is here is less.
    pub fn set_partial(&mut self, place: Place<'_>) {
        self.index.set_partial(place, true);
    }

    /// All others that hold the key were heard, and together they had seen this much: if this replica has seen it too, nobody
    /// knows more.
    pub fn note_heard(&mut self, place: Place<'_>, seen: &VersionVector) {
        let entry = self.index.find(place.partition, place.token, place.key);
        if entry.is_some_and(|entry| entry.is_partial && entry.state.includes(seen)) {
            self.index.set_partial(place, false);
        }
    }

    /// Keys held, deleted ones included.
    pub const fn keys(&self) -> usize {
        self.index.keys()
    }

    /// Bytes of keys and values.
    pub const fn bytes(&self) -> usize {
        self.index.bytes()
    }

    /// What the copies cost in memory, as the allocator gives it out, and what is remembered of writes that are gone.
    pub fn memory(&self) -> [usize; 2] {
        let Minter { superseded, lost, .. } = &self.minter;
        let dead = cost::allocated(self.dead.capacity() * size_of::<u64>());
        [self.index.memory(), superseded.memory() + lost.memory() + dead]
    }

    /// What has changed since the last call.
    pub fn take_changes(&mut self) -> impl Iterator<Item = Change> + '_ {
        self.index.take_changes()
    }

    /// Writes that others have replaced, as far as only these records of the log say so, the oldest first: from now on the
    /// one of this sequence does, the next `per_record` of them are in the one after that, and so on.
    pub fn move_replaced(&mut self, record: u64, per_record: usize, from: Range) -> Vec<OperationId> {
        self.minter.superseded.move_to(record, per_record, from)
    }

    /// The same of writes that were lost.
    pub fn move_lost(&mut self, record: u64, per_record: usize, from: Range) -> Vec<OperationId> {
        self.minter.lost.move_to(record, per_record, from)
    }

    /// This record of the log covers no key.
    pub fn note_dead(&mut self, record: u64) {
        self.dead.extend(Some(record).filter(|record| *record != 0));
    }

    /// Records of the log that cover no key any more, since the last call.
    pub fn take_dead(&mut self) -> impl Iterator<Item = u64> + '_ {
        self.dead.drain(..)
    }

    /// The copies themselves, to be looked at.
    pub const fn index(&self) -> &Index {
        &self.index
    }
}

/// If nothing is known of the key yet, whatever was minted under its name before is another record's.
fn begin(entry: &mut Entry, epoch: u32) {
    if entry.state.is_empty() {
        entry.since = epoch;
    }
}

/// This record covers the entry from now on, and the one before it nothing.
fn cover(entry: &mut Entry, appended: u64, dead: &mut Vec<u64>) {
    let before = std::mem::replace(&mut entry.appended, appended);
    if before != 0 {
        dead.push(before);
    }
}

/// Is a value here a tombstone there?
fn expires_by(state: &Siblings<Bytes>, theirs: &Siblings<Bytes>) -> bool {
    let mine = state.versions().iter().filter(|mine| mine.content.is_value());
    mine.into_iter()
        .any(|mine| theirs.versions().iter().any(|one| one.dot == mine.dot && !one.content.is_value()))
}

/// What a merge has led to, for the simulator alone.
fn watch_merge(state: &mut Siblings<Bytes>, theirs: &Siblings<Bytes>, failpoints: &impl Failpoints) {
    let is_value = |version: &&crate::causality::Version<Bytes>| version.content.is_value();
    let values = state.versions().iter().filter(is_value).count();
    if values > state.sibling_count() {
        failpoints.reached(Rare::TwinsMet);
    }
    if values > 0 && values < state.versions().len() {
        failpoints.reached(Rare::TombstoneBesideValue);
    }
    if failpoints.planted(Bug::LastWriterWins)
        && let Some(latest) = state.latest().cloned()
    {
        let clock = state.clock().to_vec();
        *state = Siblings::from_parts(clock, [latest]).expect("less than a state is a state");
    }
    debug_assert!(!state.would_change(theirs), "what was merged is news no more");
}

/// Why a peer's state of a key was refused.
pub type RefusedState = InvalidState;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causality::{Content, SIBLINGS_MAX};
    use crate::time::Instant;

    const KEY: Place<'_> = Place { key: b"k", token: 5, partition: PartitionId(0) };

    fn now(wall: u64) -> Now {
        Now { monotonic: Instant(0), wall: WallTime(wall) }
    }

    fn write(value: &'static [u8], covered: Covered, sequence: u64) -> Write<'static> {
        let operation = OperationId { client: 9, sequence };
        Write { value: Some(value), covered, expiry: None, operation }
    }

    fn blind() -> Covered {
        Covered::Context(VersionVector::new())
    }

    fn values(replica: &mut Replica, wall: u64) -> Vec<Vec<u8>> {
        let Some(entry) = replica.read(now(wall), KEY) else { return Vec::new() };
        let values = entry.state.values().map(|version| match &version.content {
            Content::Value(value) => value.to_vec(),
            _ => unreachable!("values are shown, tombstones are not"),
        });
        values.collect()
    }

    /// After two billion new keys in one process an actor is somebody else, and goes on like the one before.
    #[test]
    fn an_actor_that_has_used_up_its_epochs_is_followed_by_one_that_keeps_its_own() {
        let mut replica = Replica::new(1, 1, 1 << 20);
        replica.minter.begin_after((1 << 31) - 3);
        for key in 0..6u8 {
            let place = Place { key: &[key], ..KEY };
            replica.coordinate(now(1), place, write(b"v", blind(), u64::from(key)), 0).unwrap();
        }
        for key in 0..6u8 {
            let place = Place { key: &[key], ..KEY };
            for overwrite in 0..300 {
                let name = 1000 * (u64::from(key) + 1) + overwrite;
                replica.coordinate(now(1), place, write(b"w", Covered::Everything, name), 0).unwrap();
            }
            let actors = replica.read(now(1), place).unwrap().state.clock().len();
            assert!(actors <= 2, "key {key} tells of {actors} actors");
        }
    }

    #[test]
    fn blind_puts_make_siblings_and_an_overwrite_leaves_one() {
        let mut replica = Replica::new(1, 77, 1 << 20);
        for (sequence, value) in [(1, &b"a"[..]), (2, b"b")] {
            assert!(matches!(
                replica.coordinate(now(1), KEY, write(value, blind(), sequence), 0),
                Ok(Applied::Now { .. })
            ));
        }
        assert_eq!(values(&mut replica, 1), [b"a", b"b"]);
        let overwrite = write(b"c", Covered::Everything, 3);
        assert!(matches!(replica.coordinate(now(1), KEY, overwrite, 0), Ok(Applied::Now { .. })));
        assert_eq!(values(&mut replica, 1), [b"c"]);
        assert_eq!((replica.keys(), replica.bytes()), (1, 2));
    }

    /// P8 and the client's retries: neither while its version lives nor after it was replaced.
    #[test]
    fn a_retry_is_not_applied_twice() {
        let mut replica = Replica::new(1, 77, 1 << 20);
        replica.coordinate(now(1), KEY, write(b"a", Covered::Everything, 1), 0).unwrap();
        let retry = replica.coordinate(now(1), KEY, write(b"a", Covered::Everything, 1), 0);
        assert_eq!(retry, Ok(Applied::Before));
        replica.coordinate(now(1), KEY, write(b"b", Covered::Everything, 2), 0).unwrap();
        let retry = replica.coordinate(now(1), KEY, write(b"a", Covered::Everything, 1), 0);
        assert_eq!(retry, Ok(Applied::Before));
        assert_eq!(values(&mut replica, 1), [b"b"]);
    }

    /// riak_kv #679: a key that was lost here is minted under an actor that nobody has seen, so that a
    /// replica which still has it keeps both versions.
    #[test]
    fn a_key_without_a_record_is_minted_under_a_fresh_epoch() {
        let mut replica = Replica::new(1, 77, 1 << 20);
        replica.coordinate(now(1), KEY, write(b"a", blind(), 1), 0).unwrap();
        let elsewhere = replica.read(now(1), KEY).unwrap().state.clone();
        // The record is lost, but not the process.
        replica.index = Index::new(1);
        replica.coordinate(now(1), KEY, write(b"b", blind(), 2), 0).unwrap();
        assert!(replica.merge(KEY, &elsewhere, 0));
        assert_eq!(values(&mut replica, 1), [b"a", b"b"]);
    }

    /// P6. A key was put out, with a version that nobody else had; it came back from another replica with the one before, and the
    /// next one was minted under the dot of the one that was lost.
    #[test]
    fn a_key_that_was_put_out_and_came_back_is_minted_under_a_fresh_epoch() {
        let mut replica = Replica::new(1, 77, 1 << 20).within(1 << 20);
        let dot = |replica: &mut Replica| replica.read(now(1), KEY).unwrap().state.latest().unwrap().dot;
        replica.coordinate(now(1), KEY, write(b"a", Covered::Everything, 1), 0).unwrap();
        let elsewhere = replica.read(now(1), KEY).unwrap().state.clone();
        replica.coordinate(now(1), KEY, write(b"b", Covered::Everything, 2), 0).unwrap();
        let lost = dot(&mut replica);
        assert!(replica.put_out().is_some() && replica.read(now(1), KEY).is_none());
        assert!(replica.merge(KEY, &elsewhere, 0));
        replica.coordinate(now(1), KEY, write(b"c", Covered::Everything, 3), 0).unwrap();
        let minted = dot(&mut replica);
        assert_eq!((minted.actor.id, minted.actor == lost.actor), (lost.actor.id, false));
        replica.coordinate(now(1), KEY, write(b"d", Covered::Everything, 4), 0).unwrap();
        assert_eq!(dot(&mut replica).actor, minted.actor, "once is enough");
        assert_eq!(values(&mut replica, 1), [b"d"]);
    }

    /// A retry of a write whose key was put out isn't a new write, and nobody says that it is stored.
    #[test]
    fn a_retry_of_what_was_put_out_is_in_doubt() {
        let mut replica = Replica::new(1, 77, 1 << 20).within(1 << 20);
        replica.coordinate(now(1), KEY, write(b"a", blind(), 1), 0).unwrap();
        assert!(replica.put_out().is_some());
        let retry = replica.coordinate(now(1), KEY, write(b"a", blind(), 1), 0);
        assert_eq!(retry, Err(Refused::Lost));
        assert_eq!((replica.keys(), replica.put_out().is_none()), (0, true));
    }

    #[test]
    fn an_expired_version_is_gone_but_remembered() {
        let mut replica = Replica::new(1, 77, 1 << 20);
        let mut fleeting = write(b"a", blind(), 1);
        fleeting.expiry = Some(WallTime(10));
        replica.coordinate(now(1), KEY, fleeting, 0).unwrap();
        assert_eq!(values(&mut replica, 9).len(), 1);
        assert_eq!(values(&mut replica, 10).len(), 0);
        assert_eq!(replica.read(now(10), KEY).unwrap().state.context().iter().count(), 1);
    }

    /// What was forgotten of a clock between two records came back with the earlier one.
    #[test]
    fn a_keys_last_record_is_the_whole_of_it() {
        let mut replica = Replica::new(1, 77, 1 << 20);
        replica.coordinate(now(1), KEY, write(b"a", blind(), 1), 0).unwrap();
        let mut elsewhere = Replica::new(1, 78, 1 << 20);
        let seen = Covered::Context(replica.read(now(1), KEY).unwrap().state.context());
        elsewhere.coordinate(now(1), KEY, write(b"b", seen, 2), 0).unwrap();
        let before = elsewhere.read(now(1), KEY).unwrap().state.clone();
        assert_eq!((before.clock().len(), before.is_prunable()), (2, true));
        let mut after = before.clone();
        after.prune();
        let mut recovered = Replica::new(1, 79, 1 << 20);
        recovered.recover(KEY, &before, 3);
        recovered.recover(KEY, &after, 4);
        assert_eq!(recovered.read(now(1), KEY).unwrap().state, after);
        assert_eq!((recovered.appended(KEY), recovered.take_dead().collect::<Vec<_>>()), (4, vec![3]));
    }

    #[test]
    fn siblings_are_bounded_in_number_and_bytes() {
        let mut replica = Replica::new(1, 77, 1 << 20);
        for sequence in 1..=SIBLINGS_MAX as u64 {
            replica.coordinate(now(1), KEY, write(b"a", blind(), sequence), 0).unwrap();
        }
        let one_more = replica.coordinate(now(1), KEY, write(b"a", blind(), 1000), 0);
        assert_eq!(one_more, Err(Refused::TooManySiblings));
        let overwrite = write(b"a", Covered::Everything, 1001);
        assert!(matches!(replica.coordinate(now(1), KEY, overwrite, 0), Ok(Applied::Now { .. })));

        let mut replica = Replica::new(1, 77, 3);
        replica.coordinate(now(1), KEY, write(b"aa", blind(), 1), 0).unwrap();
        let too_large = replica.coordinate(now(1), KEY, write(b"aa", blind(), 2), 0);
        assert_eq!(too_large, Err(Refused::TooLarge { limit: 3 }));
        assert_eq!(values(&mut replica, 1), [b"aa"], "a refused write leaves nothing behind");
    }
}
