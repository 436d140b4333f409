//! The index: from a key to its state.

use std::collections::BTreeMap;

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
    /// Of all entries.
    sums: Sums,
    /// What all tables cost.
    table_bytes: usize,
    /// When versions expire.
    wheel: Wheel,
    /// Who goes when there is no room; none, if nobody ever does.
    seats: Option<Seats>,
    /// A log has the values: they go when there is no room, and what else is known of their keys stays.
    keeps_keys: bool,
    /// Partitions of which keys were put out, so that one may be absent that was never deleted; and how many were.
    lacking: BTreeMap<PartitionId, u64>,
    /// Since they were last taken.
    changes: Vec<Change>,
}

/// What entries come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Sums {
    /// Of keys and values, be they here or on the disk.
    bytes: usize,
    /// What they cost in memory.
    cost: usize,
    /// Those whose values are on the disk alone.
    cold: usize,
}

impl Sums {
    fn of(entry: &Entry) -> Self {
        let bytes = entry.key.len() + value_bytes(&entry.state);
        Self { bytes, cost: cost::of_entry(entry), cold: usize::from(entry.state.is_cold()) }
    }

    fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.cost += other.cost;
        self.cold += other.cold;
    }

    fn take(&mut self, other: Self) {
        self.bytes -= other.bytes;
        self.cost -= other.cost;
        self.cold -= other.cold;
    }
}

/// So many entries are passed over, since the records that cover them are not on stable storage yet, before it is given up to look for
/// one whose values may go.
const PASSED_OVER_MAX: usize = 64;

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
        let (wheel, lacking, changes) = (Wheel::new(), BTreeMap::new(), Vec::new());
        Self {
            tables,
            keys: 0,
            sums: Sums::default(),
            table_bytes: 0,
            wheel,
            seats: None,
            keeps_keys: false,
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

    /// The same, and only values may go: a log has them ([`Index::cool`]).
    #[must_use]
    pub fn with_values_on_disk(mut self) -> Self {
        self.keeps_keys = true;
        self.with_seats()
    }

    /// Somebody's values have to go, since there is no more room: those of an entry whose record is on stable storage, as all up to
    /// `durable` are. False if there is nobody.
    pub fn cool(&mut self, durable: u64) -> bool {
        assert!(self.keeps_keys, "what no log has is not let go");
        let Self { tables, seats: Some(seats), sums, .. } = self else { return false };
        for _ in 0..PASSED_OVER_MAX {
            let Some(victim) = seats.put_out() else { return false };
            let (partition, token) = (victim.partition, victim.token);
            let found =
                tables[partition.0 as usize].find_mut(spread(token), |entry| entry.seat == victim.seat);
            let entry = found.expect("whoever is forgotten gives its seat back");
            entry.seat = Seat::default();
            if entry.appended > durable {
                entry.seat = seats.take(partition, token, cost::of_values(&entry.state));
                continue;
            }
            sums.take(Sums::of(entry));
            entry.state.cool();
            sums.add(Sums::of(entry));
            return true;
        }
        false
    }

    /// The values of a key that are on the disk alone were read: `from` has them. False if some are missing still.
    pub fn warm(&mut self, place: Place<'_>, from: &Siblings<Bytes>) -> bool {
        let Self { tables, seats, sums, keeps_keys, .. } = self;
        let Some(entry) = find_mut(&mut tables[place.partition.0 as usize], place.token, place.key) else {
            return false;
        };
        sums.take(Sums::of(entry));
        let is_warm = entry.state.warm(from);
        sums.add(Sums::of(entry));
        set_seat(seats.as_mut(), *keeps_keys, place.partition, entry);
        is_warm
    }

    /// Entries whose values are on the disk alone.
    pub const fn cold(&self) -> usize {
        self.sums.cold
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
        self.set_lacks(partition, true);
        self.uncount(partition, entry);
        self.shrink(partition);
        let (token, before) = (entry.token, digest(entry.token, &entry.state));
        self.changes.push(Change { partition, token, before, after: 0 });
    }

    /// May a key of it be absent that was never deleted?
    pub fn lacks(&self, partition: PartitionId) -> bool {
        self.lacking.contains_key(&partition)
    }

    /// How many keys of it were put out, since its copies were begun.
    pub fn put_out_of(&self, partition: PartitionId) -> u64 {
        self.lacking.get(&partition).copied().unwrap_or(0)
    }

    /// Keys of it are absent that were never deleted; or its copies are begun anew, so that none is.
    pub fn set_lacks(&mut self, partition: PartitionId, lacks: bool) {
        if lacks {
            *self.lacking.entry(partition).or_default() += 1;
        } else {
            self.lacking.remove(&partition);
        }
    }

    /// May others know of versions of this key that were here and were put out? No more once all of them were heard.
    pub fn set_partial(&mut self, place: Place<'_>, is_partial: bool) {
        if let Some(entry) = find_mut(&mut self.tables[place.partition.0 as usize], place.token, place.key) {
            entry.is_partial = is_partial;
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
        let Self { tables, wheel, seats, sums, keeps_keys, .. } = self;
        let entry = find_mut(&mut tables[partition.0 as usize], token, key)?;
        if expire(entry, now, sums) > 0 {
            set_alarm(wheel, partition, entry);
        }
        set_seat(seats.as_mut(), *keeps_keys, partition, entry);
        Some(entry)
    }

    /// The same, and nobody has used the key by it.
    pub fn look(&mut self, now: WallTime, partition: PartitionId, token: u64, key: &[u8]) -> Option<&Entry> {
        let Self { tables, wheel, seats, sums, keeps_keys, .. } = self;
        let entry = find_mut(&mut tables[partition.0 as usize], token, key)?;
        if expire(entry, now, sums) > 0 {
            set_alarm(wheel, partition, entry);
            if let Some(seats) = seats {
                sit(seats, *keeps_keys, partition, entry);
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
        let Self { tables, wheel, seats, sums, keeps_keys, .. } = self;
        let mut under = tables[partition.0 as usize].iter_hash_mut(spread(token));
        let entry =
            under.find(|entry| entry.alarm == *alarm).expect("whoever is forgotten takes its alarm back");
        entry.alarm = Alarm::default();
        let versions = expire(entry, now, sums);
        set_alarm(wheel, partition, entry);
        if let Some(seats) = seats {
            sit(seats, *keeps_keys, partition, entry);
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
        let Self { tables, wheel, seats, lacking, sums, keeps_keys, .. } = self;
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
                let before = digest(token, &entry.state);
                sums.take(Sums::of(entry));
                let result = change(entry);
                sums.add(Sums::of(entry));
                set_alarm(wheel, partition, entry);
                set_seat(seats.as_mut(), *keeps_keys, partition, entry);
                let after = digest(token, &entry.state);
                if before != after {
                    self.changes.push(Change { partition, token, before, after });
                }
                result
            }
            Slot::Vacant(slot) => {
                let (state, alarm, seat) = (Siblings::new(), Alarm::default(), Seat::default());
                let is_partial = lacking.contains_key(&partition);
                let key = key.into();
                let mut entry =
                    Box::new(Entry { key, token, state, appended: 0, since: 0, is_partial, alarm, seat });
                let result = change(&mut entry);
                if !entry.state.is_empty() {
                    self.keys += 1;
                    sums.add(Sums::of(&entry));
                    set_alarm(wheel, partition, &mut entry);
                    if let Some(seats) = seats {
                        sit(seats, *keeps_keys, partition, &mut entry);
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
        self.sums.take(Sums::of(entry));
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
        self.sums.cost + self.table_bytes + list + changes + self.wheel.memory() + seats
    }

    /// What entries cost that can't be put out, or what is left of them without their values.
    pub fn pinned(&self) -> usize {
        if self.seats.is_some() { self.sums.cost - self.seated() } else { 0 }
    }

    /// What those entries cost that can, or their values.
    pub fn seated(&self) -> usize {
        self.seats.as_ref().map_or(0, |seats| seats.bytes() as usize)
    }

    /// What is counted as it changes: keys, bytes of keys and values, what entries and tables cost, and timers of keys that
    /// expire, and entries whose values are on the disk alone.
    pub const fn counted(&self) -> [usize; 5] {
        let Sums { bytes, cost, cold } = self.sums;
        [self.keys, bytes, cost + self.table_bytes, self.wheel.timers(), cold]
    }

    /// The same, counted anew.
    pub fn recounted(&self) -> [usize; 5] {
        let tables = self.tables.iter().map(|table| cost::allocated(table.allocation_size()));
        let mut sums = [0, 0, tables.sum(), 0, 0];
        for entry in self.tables.iter().flatten() {
            let expires = entry.state.versions().iter().any(|version| version.expiry.is_some());
            let Sums { bytes, cost, cold } = Sums::of(entry);
            let own = [1, bytes, cost, usize::from(expires), cold];
            sums.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
        }
        sums
    }

    /// Keys held, deleted ones included.
    pub const fn keys(&self) -> usize {
        self.keys
    }

    /// Bytes of keys and values, be they here or on the disk, without what it costs to keep them.
    pub const fn bytes(&self) -> usize {
        self.sums.bytes
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
fn expire(entry: &mut Entry, now: WallTime, sums: &mut Sums) -> usize {
    let is_overdue = |expiry: Option<WallTime>| expiry.is_some_and(|expiry| expiry <= now);
    if !entry.state.versions().iter().any(|version| is_overdue(version.expiry)) {
        return 0;
    }
    sums.take(Sums::of(entry));
    let versions = entry.state.expire(now);
    sums.add(Sums::of(entry));
    versions
}

/// Have the alarm go off when the first of its versions expires.
fn set_alarm(wheel: &mut Wheel, partition: PartitionId, entry: &mut Entry) {
    let first = entry.state.versions().iter().filter_map(|version| version.expiry).min();
    wheel.set(&mut entry.alarm, first, partition, entry.token);
}

/// The key was used: it has a seat while it may go.
fn set_seat(seats: Option<&mut Seats>, keeps_keys: bool, partition: PartitionId, entry: &mut Entry) {
    if let Some(seats) = seats {
        sit(seats, keeps_keys, partition, entry);
        seats.touch(&entry.seat);
    }
}

/// It sits while it may go: with all that is known of it, or (`keeps_keys`) with its values, while they are here.
fn sit(seats: &mut Seats, keeps_keys: bool, partition: PartitionId, entry: &mut Entry) {
    let bytes = if keeps_keys { cost::of_values(&entry.state) } else { cost::of_entry(entry) };
    let may_go = if keeps_keys { bytes > 0 } else { !entry.state.is_deleted() };
    match (may_go, entry.seat.is_none()) {
        (true, true) => entry.seat = seats.take(partition, entry.token, bytes),
        (true, false) => seats.resize(&entry.seat, bytes),
        (false, _) => return seats.give_back(&mut entry.seat),
    }
    let has_value = entry.state.versions().iter().any(|version| version.content.is_value());
    seats.give_up(&entry.seat, !has_value);
}

/// Bytes of all live values of a key.
pub(crate) fn value_bytes(state: &Siblings<Bytes>) -> usize {
    let length = |content: &Content<Bytes>| match content {
        Content::Value(value) => value.len(),
        Content::Cold { bytes } => *bytes as usize,
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
mod tests;
