//! The index: from a key to its state.

use std::collections::BTreeSet;

use bytes::Bytes;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;
use smallvec::SmallVec;

use super::digest::digest;
use super::eviction::{Seat, Seats};
use super::wheel::{Alarm, Step, Wheel};
use super::{Place, cost};
use crate::causality::{Content, Siblings};
use crate::id::PartitionId;
use crate::time::WallTime;

/// Everything this replica knows of one key.
#[derive(Debug)]
pub struct Entry {
    /// The key itself.
    pub key: Box<[u8]>,
    /// Its token, which is its hash.
    pub token: u64,
    /// Its versions and what was seen of them.
    pub state: Siblings<Bytes>,
    /// The log record that covers this state; 0 if there is no log.
    pub appended: u64,
    /// The last epoch that this replica had minted under when it came to know the key. What was minted under that or an
    /// earlier one was minted under another record of the key, which may have known more.
    pub since: u32,
    /// It began when what was known of it before may have been put out, and the others have not all been heard since: they may
    /// hold versions that this state has never seen.
    pub is_partial: bool,
    /// Set for when the first of its versions expires, if any does.
    alarm: Alarm,
    /// Taken while it may go, if the index may put keys out: more is left than what somebody has deleted.
    seat: Seat,
}

/// The list of changes keeps room for so many.
const CHANGES_KEPT: usize = 1024;
/// The smallest table has no more.
const TABLE_BYTES_LEAST: usize = 256;

/// The keys of one shard.
///
/// One hash table a partition: a table that grows moves some thousand entries, not all of the shard's, so no
/// request waits for ten million keys to be moved.
#[derive(Debug)]
pub struct Index {
    /// By partition; those of other shards stay empty.
    tables: Vec<HashTable<Box<Entry>>>,
    keys: usize,
    bytes: usize,
    /// What all entries cost, and all tables.
    entry_bytes: usize,
    table_bytes: usize,
    /// When versions expire.
    wheel: Wheel,
    /// Who goes when there is no room; none, if nobody ever does.
    seats: Option<Seats>,
    /// Partitions of which keys were put out, so that one may be absent that was never deleted.
    lacking: BTreeSet<PartitionId>,
    /// Since they were last taken.
    changes: Vec<Change>,
}

/// What [`Index::expire`] has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Expired {
    /// Steps that it took, of those that it might.
    pub steps: usize,
    /// Versions that became tombstones.
    pub versions: usize,
}

/// A key's state has become another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// The key's partition.
    pub partition: PartitionId,
    /// The key's token.
    pub token: u64,
    /// The digest of the state before; 0 if there was none.
    pub before: u64,
    /// The digest of the state after.
    pub after: u64,
}

impl Index {
    /// Room for `partitions` partitions, numbered from 0.
    pub fn new(partitions: u32) -> Self {
        let mut tables = Vec::new();
        tables.resize_with(partitions as usize, HashTable::new);
        let (wheel, lacking, changes) = (Wheel::new(), BTreeSet::new(), Vec::new());
        Self {
            tables,
            keys: 0,
            bytes: 0,
            entry_bytes: 0,
            table_bytes: 0,
            wheel,
            seats: None,
            lacking,
            changes,
        }
    }

    /// The same, and keys may be put out of it ([`Index::put_out`]).
    #[must_use]
    pub fn with_seats(mut self) -> Self {
        assert_eq!(self.keys, 0, "whoever has no seat could never go");
        self.seats = Some(Seats::default());
        self
    }

    /// Whoever has to go if there is no more room: what was known of it. Who has expired goes first, and nobody of whom nothing is left
    /// but a delete's tombstone.
    pub fn put_out(&mut self) -> Option<Box<Entry>> {
        let victim = self.seats.as_mut()?.put_out()?;
        let (partition, token) = (victim.partition, victim.token);
        let table = &mut self.tables[partition.0 as usize];
        let found = table.find_entry(spread(token), |entry| entry.seat == victim.seat);
        let (mut entry, _) = found.expect("whoever is forgotten gives its seat back").remove();
        entry.seat = Seat::default();
        self.on_put_out(partition, &mut entry);
        Some(entry)
    }

    /// The same with a key of one's choice: what was known of it.
    pub fn put_out_key(&mut self, place: Place<'_>) -> Option<Box<Entry>> {
        let Place { partition, token, key } = place;
        let table = &mut self.tables[partition.0 as usize];
        let found = table.find_entry(spread(token), |entry| entry.token == token && *entry.key == *key);
        let (mut entry, _) = found.ok()?.remove();
        self.on_put_out(partition, &mut entry);
        Some(entry)
    }

    fn on_put_out(&mut self, partition: PartitionId, entry: &mut Entry) {
        self.lacking.insert(partition);
        self.uncount(partition, entry);
        self.shrink(partition);
        let (token, before) = (entry.token, digest(entry.token, &entry.state));
        self.changes.push(Change { partition, token, before, after: 0 });
    }

    /// May a key of it be absent that was never deleted?
    pub fn lacks(&self, partition: PartitionId) -> bool {
        self.lacking.contains(&partition)
    }

    /// Keys of it are absent that were never deleted; or its copies are begun anew, so that none is.
    pub fn set_lacks(&mut self, partition: PartitionId, lacks: bool) {
        if lacks {
            self.lacking.insert(partition);
        } else {
            self.lacking.remove(&partition);
        }
    }

    /// All others were heard that hold the key: this state has seen what they have.
    pub fn set_whole(&mut self, place: Place<'_>) {
        if let Some(entry) = find_mut(&mut self.tables[place.partition.0 as usize], place.token, place.key) {
            entry.is_partial = false;
        }
    }

    /// A table in which nothing is left is given back.
    fn shrink(&mut self, partition: PartitionId) {
        let table = &mut self.tables[partition.0 as usize];
        if table.is_empty() {
            self.table_bytes -= cost::allocated(table.allocation_size());
            *table = HashTable::new();
        }
    }

    /// A key that stays while others are put out, until the next call with `is_held` false.
    pub fn hold(&mut self, place: Place<'_>, is_held: bool) {
        let Self { tables, seats: Some(seats), .. } = self else { return };
        let Some(entry) = find_mut(&mut tables[place.partition.0 as usize], place.token, place.key) else {
            return;
        };
        if is_held {
            seats.hold(&entry.seat);
        } else {
            seats.let_go(&entry.seat);
        }
    }

    /// What is known of `key`; `token` must be its token, and `partition` its partition.
    pub fn find(&self, partition: PartitionId, token: u64, key: &[u8]) -> Option<&Entry> {
        self.tables[partition.0 as usize]
            .find(spread(token), |entry| entry.token == token && *entry.key == *key)
            .map(|entry| &**entry)
    }

    /// What is known of `key` at this time: versions whose time has come are turned into tombstones first.
    pub fn find_current(
        &mut self,
        now: WallTime,
        partition: PartitionId,
        token: u64,
        key: &[u8],
    ) -> Option<&Entry> {
        let Self { tables, wheel, seats, bytes, entry_bytes, .. } = self;
        let entry = find_mut(&mut tables[partition.0 as usize], token, key)?;
        if expire(entry, now, bytes, entry_bytes) > 0 {
            set_alarm(wheel, partition, entry);
        }
        set_seat(seats.as_mut(), partition, entry);
        Some(entry)
    }

    /// The same, and nobody has used the key by it.
    pub fn look(&mut self, now: WallTime, partition: PartitionId, token: u64, key: &[u8]) -> Option<&Entry> {
        let Self { tables, wheel, seats, bytes, entry_bytes, .. } = self;
        let entry = find_mut(&mut tables[partition.0 as usize], token, key)?;
        if expire(entry, now, bytes, entry_bytes) > 0 {
            set_alarm(wheel, partition, entry);
            if let Some(seats) = seats {
                sit(seats, partition, entry);
            }
        }
        Some(entry)
    }

    /// Turn versions whose time has come into tombstones, in so many bounded steps at most. Their keys need not be read for
    /// it. It is no [`Change`]: the digest is the same.
    pub fn expire(&mut self, now: WallTime, steps: usize) -> Expired {
        let mut done = Expired::default();
        while done.steps < steps {
            match self.wheel.step(now) {
                Step::Idle => break,
                Step::Moved => {}
                Step::Due { alarm, partition, token } => {
                    done.versions += self.expire_one(now, &alarm, partition, token);
                }
            }
            done.steps += 1;
        }
        done
    }

    /// The key's whose alarm has gone off.
    fn expire_one(&mut self, now: WallTime, alarm: &Alarm, partition: PartitionId, token: u64) -> usize {
        let Self { tables, wheel, seats, bytes, entry_bytes, .. } = self;
        let mut under = tables[partition.0 as usize].iter_hash_mut(spread(token));
        let entry =
            under.find(|entry| entry.alarm == *alarm).expect("whoever is forgotten takes its alarm back");
        entry.alarm = Alarm::default();
        let versions = expire(entry, now, bytes, entry_bytes);
        set_alarm(wheel, partition, entry);
        if let Some(seats) = seats {
            sit(seats, partition, entry);
        }
        versions
    }

    /// From when on [`Index::expire`] has something to do; at `now` or before, if it has already.
    pub fn next_expiry(&self, now: WallTime) -> Option<WallTime> {
        self.wheel.next(now)
    }

    /// Change what is known of `key`, from nothing if it isn't there. An entry left empty is not kept.
    pub fn update<T>(
        &mut self,
        partition: PartitionId,
        token: u64,
        key: &[u8],
        change: impl FnOnce(&mut Entry) -> T,
    ) -> T {
        let Self { tables, wheel, seats, lacking, .. } = self;
        let table = &mut tables[partition.0 as usize];
        let table_before = cost::allocated(table.allocation_size());
        let found = table.entry(
            spread(token),
            |entry| entry.token == token && *entry.key == *key,
            |entry| spread(entry.token),
        );
        let result = match found {
            Slot::Occupied(mut slot) => {
                let entry = slot.get_mut();
                let (bytes, before) = (value_bytes(&entry.state), digest(token, &entry.state));
                let cost = cost::of_entry(entry);
                let result = change(entry);
                self.bytes = self.bytes + value_bytes(&entry.state) - bytes;
                self.entry_bytes = self.entry_bytes + cost::of_entry(entry) - cost;
                set_alarm(wheel, partition, entry);
                set_seat(seats.as_mut(), partition, entry);
                let after = digest(token, &entry.state);
                if before != after {
                    self.changes.push(Change { partition, token, before, after });
                }
                result
            }
            Slot::Vacant(slot) => {
                let (state, alarm, seat) = (Siblings::new(), Alarm::default(), Seat::default());
                let is_partial = lacking.contains(&partition);
                let key = key.into();
                let mut entry =
                    Box::new(Entry { key, token, state, appended: 0, since: 0, is_partial, alarm, seat });
                let result = change(&mut entry);
                if !entry.state.is_empty() {
                    self.keys += 1;
                    self.bytes += entry.key.len() + value_bytes(&entry.state);
                    self.entry_bytes += cost::of_entry(&entry);
                    set_alarm(wheel, partition, &mut entry);
                    if let Some(seats) = seats {
                        sit(seats, partition, &mut entry);
                    }
                    let after = digest(token, &entry.state);
                    self.changes.push(Change { partition, token, before: 0, after });
                    slot.insert(entry);
                }
                result
            }
        };
        // It may have grown although the key was there: room for another is made before it is looked for.
        let table_after = cost::allocated(tables[partition.0 as usize].allocation_size());
        self.table_bytes = self.table_bytes + table_after - table_before;
        result
    }

    /// At most what a write to a key may cost beside its state, if it may be a new one.
    pub fn growth(&self, partition: PartitionId, key: &[u8]) -> usize {
        let blocks = self.wheel.growth() + self.seats.as_ref().map_or(0, Seats::growth);
        let entry = cost::ENTRY_BYTES + cost::allocated(key.len());
        self.table_growth(partition) + entry + blocks
    }

    /// The same of a write to a key that is here, and which leaves nothing that could be put out or expires.
    pub fn table_growth(&self, partition: PartitionId) -> usize {
        let table = &self.tables[partition.0 as usize];
        let size = table.allocation_size();
        let is_full = table.len() == table.capacity();
        let grown =
            if is_full { cost::allocated(2 * size + TABLE_BYTES_LEAST) - cost::allocated(size) } else { 0 };
        grown + cost::growth_of_list(&self.changes)
    }

    /// Keys held of one partition, deleted ones included.
    pub fn keys_of(&self, partition: PartitionId) -> usize {
        self.tables[partition.0 as usize].len()
    }

    /// The sum of the digests of one partition's states: the root of its hash tree, reckoned anew.
    pub fn digest_of(&self, partition: PartitionId) -> u64 {
        let entries = self.tables[partition.0 as usize].iter();
        entries.fold(0, |sum, entry| sum.wrapping_add(digest(entry.token, &entry.state)))
    }

    /// Forget one partition. Its changes are not told one by one: whoever keeps anything by them forgets it too.
    pub fn clear(&mut self, partition: PartitionId) {
        let mut table = std::mem::take(&mut self.tables[partition.0 as usize]);
        self.table_bytes -= cost::allocated(table.allocation_size());
        table.iter_mut().for_each(|entry| self.uncount(partition, entry));
        debug_assert!(self.changes.iter().all(|change| change.partition != partition), "take them first");
    }

    /// Forget the keys under this token of whose state this is the digest: what was known of them.
    pub fn forget(&mut self, partition: PartitionId, token: u64, hash: u64) -> SmallVec<[Box<Entry>; 1]> {
        let is_it = |entry: &Entry| entry.token == token && digest(token, &entry.state) == hash;
        let mut gone = SmallVec::new();
        while let Ok(found) =
            self.tables[partition.0 as usize].find_entry(spread(token), |entry| is_it(entry))
        {
            let (mut entry, _) = found.remove();
            self.uncount(partition, &mut entry);
            self.changes.push(Change { partition, token, before: hash, after: 0 });
            gone.push(entry);
        }
        self.shrink(partition);
        gone
    }

    /// Forget all keys of a partition but those that are to be kept: what was known of them.
    pub fn forget_all(
        &mut self,
        partition: PartitionId,
        is_kept: impl Fn(&Entry) -> bool,
    ) -> Vec<Box<Entry>> {
        let mut gone: Vec<Box<Entry>> =
            self.tables[partition.0 as usize].extract_if(|entry| !is_kept(entry)).collect();
        for entry in &mut gone {
            self.uncount(partition, entry);
            let before = digest(entry.token, &entry.state);
            self.changes.push(Change { partition, token: entry.token, before, after: 0 });
        }
        self.shrink(partition);
        gone
    }

    /// An entry has left: it counts no more, and its alarm is taken back.
    fn uncount(&mut self, partition: PartitionId, entry: &mut Entry) {
        self.keys -= 1;
        self.bytes -= entry.key.len() + value_bytes(&entry.state);
        self.entry_bytes -= cost::of_entry(entry);
        self.wheel.set(&mut entry.alarm, None, partition, entry.token);
        if let Some(seats) = &mut self.seats {
            seats.give_back(&mut entry.seat);
        }
    }

    /// What all of it costs, as the allocator gives it out.
    pub fn memory(&self) -> usize {
        let list = cost::allocated(self.tables.capacity() * size_of::<HashTable<Box<Entry>>>());
        let changes = cost::allocated(self.changes.capacity() * size_of::<Change>());
        let seats = self.seats.as_ref().map_or(0, Seats::memory);
        self.entry_bytes + self.table_bytes + list + changes + self.wheel.memory() + seats
    }

    /// What entries cost that can't be put out.
    pub fn pinned(&self) -> usize {
        if self.seats.is_some() { self.entry_bytes - self.seated() } else { 0 }
    }

    /// What those entries cost that can.
    pub fn seated(&self) -> usize {
        self.seats.as_ref().map_or(0, |seats| seats.bytes() as usize)
    }

    /// What is counted as it changes: keys, bytes of keys and values, what entries and tables cost, and timers of keys that
    /// expire.
    pub const fn counted(&self) -> [usize; 4] {
        [self.keys, self.bytes, self.entry_bytes + self.table_bytes, self.wheel.timers()]
    }

    /// The same, counted anew.
    pub fn recounted(&self) -> [usize; 4] {
        let tables = self.tables.iter().map(|table| cost::allocated(table.allocation_size()));
        let mut sums = [0, 0, tables.sum(), 0];
        for entry in self.tables.iter().flatten() {
            let expires = entry.state.versions().iter().any(|version| version.expiry.is_some());
            let bytes = entry.key.len() + value_bytes(&entry.state);
            let own = [1, bytes, cost::of_entry(entry), usize::from(expires)];
            sums.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
        }
        sums
    }

    /// Keys held, deleted ones included.
    pub const fn keys(&self) -> usize {
        self.keys
    }

    /// Bytes of keys and values, without what it costs to keep them.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// What has changed since the last call, in order. To be asked for after each input, lest it pile up.
    pub fn take_changes(&mut self) -> impl Iterator<Item = Change> + '_ {
        if self.changes.is_empty() && self.changes.capacity() > CHANGES_KEPT {
            self.changes = Vec::new();
        }
        self.changes.drain(..)
    }

    /// The entries under one token: one, but for a collision.
    pub fn under(&self, partition: PartitionId, token: u64) -> impl Iterator<Item = &Entry> {
        let table = &self.tables[partition.0 as usize];
        table.iter_hash(spread(token)).map(|entry| &**entry).filter(move |entry| entry.token == token)
    }

    /// The entries of one partition, in an order that depends on nothing but what was done to it.
    pub fn partition(&self, partition: PartitionId) -> impl Iterator<Item = &Entry> {
        self.tables[partition.0 as usize].iter().map(|entry| &**entry)
    }
}

fn find_mut<'a>(table: &'a mut HashTable<Box<Entry>>, token: u64, key: &[u8]) -> Option<&'a mut Entry> {
    let found = table.find_mut(spread(token), |entry| entry.token == token && *entry.key == *key);
    found.map(|entry| &mut **entry)
}

/// Versions whose time has come become tombstones: how many. What the entry costs changes with them.
fn expire(entry: &mut Entry, now: WallTime, bytes: &mut usize, cost: &mut usize) -> usize {
    let is_overdue = |expiry: Option<WallTime>| expiry.is_some_and(|expiry| expiry <= now);
    if !entry.state.versions().iter().any(|version| is_overdue(version.expiry)) {
        return 0;
    }
    let before = [value_bytes(&entry.state), cost::of_entry(entry)];
    let versions = entry.state.expire(now);
    *bytes = *bytes + value_bytes(&entry.state) - before[0];
    *cost = *cost + cost::of_entry(entry) - before[1];
    versions
}

/// Have the alarm go off when the first of its versions expires.
fn set_alarm(wheel: &mut Wheel, partition: PartitionId, entry: &mut Entry) {
    let first = entry.state.versions().iter().filter_map(|version| version.expiry).min();
    wheel.set(&mut entry.alarm, first, partition, entry.token);
}

/// The key was used: it has a seat while it may go.
fn set_seat(seats: Option<&mut Seats>, partition: PartitionId, entry: &mut Entry) {
    if let Some(seats) = seats {
        sit(seats, partition, entry);
        seats.touch(&entry.seat);
    }
}

fn sit(seats: &mut Seats, partition: PartitionId, entry: &mut Entry) {
    match (!entry.state.is_deleted(), entry.seat.is_none()) {
        (true, true) => entry.seat = seats.take(partition, entry.token, cost::of_entry(entry)),
        (true, false) => seats.resize(&entry.seat, cost::of_entry(entry)),
        (false, _) => return seats.give_back(&mut entry.seat),
    }
    let has_value = entry.state.versions().iter().any(|version| matches!(version.content, Content::Value(_)));
    seats.give_up(&entry.seat, !has_value);
}

/// Bytes of all live values of a key.
pub(crate) fn value_bytes(state: &Siblings<Bytes>) -> usize {
    let length = |content: &Content<Bytes>| match content {
        Content::Value(value) => value.len(),
        Content::Tombstone | Content::Expired => 0,
    };
    state.versions().iter().map(|version| length(&version.content)).sum()
}

/// All tokens of a partition share their top bits, and the hash table takes its tags from the top: turn
/// them round, so that the tags tell keys apart.
const fn spread(token: u64) -> u64 {
    token.rotate_left(32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causality::Actor;
    use crate::id::OperationId;

    const P: PartitionId = PartitionId(3);

    fn put(index: &mut Index, token: u64, key: &[u8], value: &'static [u8]) {
        put_until(index, token, key, value, None);
    }

    fn put_until(index: &mut Index, token: u64, key: &[u8], value: &'static [u8], expiry: Option<u64>) {
        index.update(P, token, key, |entry| {
            let covered = entry.state.context();
            let actor = Actor { id: 1, epoch: 1 };
            let content = Content::Value(Bytes::from_static(value));
            let expiry = expiry.map(WallTime);
            entry.state.put(actor, &covered, content, expiry, OperationId::NONE, WallTime(1));
        });
    }

    fn delete(index: &mut Index, token: u64, key: &[u8]) {
        index.update(P, token, key, |entry| {
            let seen = entry.state.context();
            let actor = Actor { id: 1, epoch: 1 };
            entry.state.put(actor, &seen, Content::Tombstone, None, OperationId::NONE, WallTime(1));
        });
    }

    /// Nobody reads them: how many versions expired.
    fn expire_all(index: &mut Index, now: u64) -> usize {
        index.expire(WallTime(now), usize::MAX).versions
    }

    /// Whatever was counted as it changed, counted anew.
    #[track_caller]
    fn check_sums(index: &Index) {
        assert_eq!(index.counted(), index.recounted());
    }

    #[test]
    fn keys_with_the_same_token_are_told_apart() {
        let mut index = Index::new(8);
        put(&mut index, 7, b"a", b"one");
        put(&mut index, 7, b"b", b"two");
        let value = |key| index.find(P, 7, key).map(|entry| entry.state.values().count());
        assert_eq!((value(b"a"), value(b"b"), value(b"c")), (Some(1), Some(1), None));
        assert_eq!((index.keys(), index.bytes()), (2, 8));
    }

    #[test]
    fn bytes_follow_overwrites() {
        let mut index = Index::new(8);
        put(&mut index, 7, b"a", b"one");
        put(&mut index, 7, b"a", b"three");
        assert_eq!((index.keys(), index.bytes()), (1, 6));
    }

    #[test]
    fn changes_follow_the_states() {
        let mut index = Index::new(8);
        put(&mut index, 7, b"a", b"one");
        put(&mut index, 7, b"a", b"two");
        index.update(P, 7, b"a", |_| ());
        let changes: Vec<_> = index.take_changes().collect();
        let [first, second] = changes[..] else { panic!("two writes and no more: {changes:?}") };
        let now = digest(7, &index.find(P, 7, b"a").unwrap().state);
        assert_eq!((first.before, first.after, second.after), (0, second.before, now));
        assert_eq!(index.take_changes().count(), 0);
        assert_eq!((index.under(P, 7).count(), index.under(P, 8).count()), (1, 0));
    }

    #[test]
    fn a_partition_that_is_cleared_counts_no_more() {
        let mut index = Index::new(8);
        put(&mut index, 7, b"a", b"one");
        put(&mut index, 8, b"b", b"two");
        index.update(PartitionId(4), 9, b"c", |entry| {
            let seen = entry.state.context();
            let content = Content::Value(Bytes::from_static(b"three"));
            entry.state.put(Actor { id: 1, epoch: 1 }, &seen, content, None, OperationId::NONE, WallTime(1));
        });
        index.take_changes().for_each(drop);
        index.clear(P);
        assert_eq!((index.keys(), index.bytes(), index.keys_of(P)), (1, 6, 0));
        assert!(index.find(P, 7, b"a").is_none());
        put(&mut index, 7, b"a", b"one");
        assert_eq!((index.keys(), index.keys_of(P)), (2, 1), "and it may be held again");
    }

    #[test]
    fn what_is_forgotten_leaves_nothing_but_the_change() {
        let mut index = Index::new(8);
        put(&mut index, 7, b"a", b"one");
        put(&mut index, 8, b"b", b"two");
        index.take_changes().for_each(drop);
        let hash = digest(7, &index.find(P, 7, b"a").unwrap().state);
        assert!(index.forget(P, 7, hash + 1).is_empty(), "it is another by now");
        assert_eq!(index.forget(P, 7, hash).len(), 1);
        assert_eq!((index.keys(), index.bytes()), (1, 4));
        assert_eq!(index.forget_all(P, |_| false).len(), 1);
        assert_eq!((index.keys(), index.bytes()), (0, 0));
        let changes: Vec<_> = index.take_changes().collect();
        assert!(changes.iter().all(|change| change.after == 0 && change.before != 0) && changes.len() == 2);
    }

    const SECOND: u64 = 1_000_000;

    #[test]
    fn what_nobody_reads_expires_all_the_same() {
        let mut index = Index::new(8);
        put_until(&mut index, 7, b"a", b"one", Some(5 * SECOND));
        put_until(&mut index, 7, b"b", b"two", Some(9 * SECOND));
        put(&mut index, 8, b"c", b"three");
        let digests: Vec<u64> = index.partition(P).map(|entry| digest(entry.token, &entry.state)).collect();
        index.take_changes().for_each(drop);
        assert_eq!(expire_all(&mut index, 4 * SECOND), 0);
        assert!(index.next_expiry(WallTime(4 * SECOND)).is_some_and(|at| at > WallTime(4 * SECOND)));
        assert_eq!(expire_all(&mut index, 6 * SECOND), 1);
        let values = |key| index.find(P, 7, key).map(|entry| entry.state.sibling_count());
        assert_eq!((values(b"a"), values(b"b")), (Some(0), Some(1)));
        assert_eq!((index.keys(), index.bytes()), (3, 11), "a tombstone stays");
        check_sums(&index);
        assert_eq!(expire_all(&mut index, 400 * 86_400 * SECOND), 1);
        assert_eq!(index.next_expiry(WallTime(0)), None);
        let after: Vec<u64> = index.partition(P).map(|entry| digest(entry.token, &entry.state)).collect();
        assert_eq!((after, index.take_changes().count()), (digests, 0), "the trees need not hear of it");
    }

    /// An alarm belongs to a key: whatever becomes of the key, there is one if a version expires, and else none.
    #[test]
    fn an_alarm_follows_its_key() {
        let mut index = Index::new(8);
        put_until(&mut index, 7, b"a", b"one", Some(5 * SECOND));
        put_until(&mut index, 7, b"a", b"two", Some(9 * SECOND));
        assert_eq!(expire_all(&mut index, 6 * SECOND), 0, "what was replaced has no time");
        put(&mut index, 7, b"a", b"three");
        assert_eq!(index.next_expiry(WallTime(0)), None);
        put_until(&mut index, 7, b"a", b"four", Some(20 * SECOND));
        let entry = index.find_current(WallTime(30 * SECOND), P, 7, b"a").unwrap();
        assert_eq!(entry.state.sibling_count(), 0);
        assert_eq!(index.next_expiry(WallTime(0)), None, "a reader came first");
        for forgets in [
            |index: &mut Index| index.clear(P),
            |index: &mut Index| drop(index.forget_all(P, |_| false)),
            |index: &mut Index| {
                let hash = digest(7, &index.find(P, 7, b"a").unwrap().state);
                drop(index.forget(P, 7, hash));
            },
        ] {
            put_until(&mut index, 7, b"a", b"five", Some(40 * SECOND));
            index.take_changes().for_each(drop);
            forgets(&mut index);
            assert_eq!((index.next_expiry(WallTime(0)), expire_all(&mut index, 50 * SECOND)), (None, 0));
            check_sums(&index);
        }
    }

    /// Two versions of one key, each with its own time.
    #[test]
    fn siblings_expire_each_in_their_time() {
        let mut index = Index::new(8);
        index.update(P, 7, b"a", |entry| {
            for (id, expiry) in [(1, Some(5 * SECOND)), (2, Some(9 * SECOND)), (3, None)] {
                let (actor, expiry) = (Actor { id, epoch: 1 }, expiry.map(WallTime));
                let blind = crate::causality::VersionVector::new();
                let content = Content::Value(Bytes::from_static(b"v"));
                entry.state.put(actor, &blind, content, expiry, OperationId::NONE, WallTime(1));
            }
        });
        check_sums(&index);
        let mut at = |now| {
            let versions = expire_all(&mut index, now);
            (versions, index.find(P, 7, b"a").unwrap().state.sibling_count())
        };
        assert_eq!([at(6 * SECOND), at(8 * SECOND), at(10 * SECOND)], [(1, 2), (0, 2), (1, 1)]);
        assert_eq!(index.next_expiry(WallTime(0)), None);
    }

    #[test]
    fn a_turn_takes_no_more_steps_than_it_may() {
        let mut index = Index::new(8);
        let keys: Vec<[u8; 8]> = (0..1000u64).map(u64::to_be_bytes).collect();
        keys.iter()
            .zip(1..)
            .for_each(|(key, token)| put_until(&mut index, token, key, b"v", Some(token * SECOND)));
        let (mut turns, mut versions) = (0, 0);
        while index.next_expiry(WallTime(2000 * SECOND)).is_some() {
            let Expired { steps, versions: more } = index.expire(WallTime(2000 * SECOND), 16);
            assert!((1..=16).contains(&steps) && more <= steps);
            (turns, versions) = (turns + 1, versions + more);
        }
        assert_eq!((versions, index.bytes()), (1000, 8 * 1000));
        assert!(turns >= 1000 / 16);
        check_sums(&index);
    }

    #[test]
    fn who_is_put_out_leaves_nothing_and_tombstones_stay() {
        let mut index = Index::new(8).with_seats();
        put(&mut index, 7, b"used", b"one");
        put_until(&mut index, 8, b"fleeting", b"two", Some(5 * SECOND));
        delete(&mut index, 9, b"deleted");
        (10..30).for_each(|token| put(&mut index, token, b"cold", b"three"));
        (0..2).for_each(|_| assert!(index.find_current(WallTime(1), P, 7, b"used").is_some()));
        assert_eq!(expire_all(&mut index, 6 * SECOND), 1);
        index.take_changes().for_each(drop);
        assert_eq!(
            index.put_out().map(|entry| entry.key),
            Some(b"fleeting"[..].into()),
            "what expired goes first"
        );
        let gone: Vec<_> = (0..19).map(|_| index.put_out().unwrap()).collect();
        assert!(gone.iter().all(|entry| *entry.key == *b"cold"));
        assert!(index.take_changes().all(|change| change.before != 0 && change.after == 0));
        check_sums(&index);
        // The last one that came is not put out at once.
        let last = [(); 2].map(|()| index.put_out().unwrap().key);
        assert_eq!(last, [b"used"[..].into(), b"cold"[..].into()]);
        assert!(index.put_out().is_none(), "a delete's tombstone stays");
        assert_eq!((index.keys(), index.bytes()), (1, 7));
        // What replaces the tombstone has a seat again, and what is forgotten has none.
        put(&mut index, 9, b"deleted", b"anew");
        assert!(index.seats.as_ref().is_some_and(|seats| seats.len() == 1));
        drop(index.forget_all(P, |_| false));
        assert!(index.put_out().is_none() && index.seats.as_ref().is_some_and(Seats::is_empty));
        check_sums(&index);
    }

    /// A table makes room for one more key before it looks whether the key is there. It grew, and what it cost then was counted
    /// for good as what it had cost before.
    #[test]
    fn a_table_that_grows_for_a_key_that_it_has_is_counted() {
        let mut index = Index::new(8);
        for token in 0..200 {
            put(&mut index, token, &token.to_be_bytes(), b"v");
            put(&mut index, token, &token.to_be_bytes(), b"w");
            check_sums(&index);
        }
    }

    /// What a write may cost is known before.
    #[test]
    fn a_new_key_costs_no_more_than_was_foretold() {
        let mut index = Index::new(8).with_seats();
        for token in 0..5000u64 {
            let (key, value) = (token.to_be_bytes(), b"some value");
            let foretold = index.growth(P, &key) + cost::of_value(value.len());
            let before = index.memory();
            put_until(&mut index, token, &key, value, Some(SECOND));
            index.take_changes().for_each(drop);
            assert!(
                index.memory() - before <= foretold,
                "{token}: {} of {foretold}",
                index.memory() - before
            );
            if token % 3 == 0 {
                index.put_out();
                index.take_changes().for_each(drop);
            }
        }
    }

    #[test]
    fn what_stays_empty_is_not_kept() {
        let mut index = Index::new(8);
        index.update(P, 7, b"a", |_| ());
        assert!(index.find(P, 7, b"a").is_none());
        assert_eq!((index.keys(), index.partition(P).count()), (0, 0));
    }
}
