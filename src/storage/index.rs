//! The index: from a key to its state.

use bytes::Bytes;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;
use smallvec::SmallVec;

use super::digest::digest;
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
}

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
    /// Since they were last taken.
    changes: Vec<Change>,
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
        Self { tables, keys: 0, bytes: 0, changes: Vec::new() }
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
        let entry = self.tables[partition.0 as usize]
            .find_mut(spread(token), |entry| entry.token == token && *entry.key == *key)?;
        let is_overdue = |expiry: Option<WallTime>| expiry.is_some_and(|expiry| expiry <= now);
        if entry.state.versions().iter().any(|version| is_overdue(version.expiry)) {
            self.bytes -= value_bytes(&entry.state);
            entry.state.expire(now);
            self.bytes += value_bytes(&entry.state);
        }
        Some(entry)
    }

    /// Change what is known of `key`, from nothing if it isn't there. An entry left empty is not kept.
    pub fn update<T>(
        &mut self,
        partition: PartitionId,
        token: u64,
        key: &[u8],
        change: impl FnOnce(&mut Entry) -> T,
    ) -> T {
        let table = &mut self.tables[partition.0 as usize];
        let found = table.entry(
            spread(token),
            |entry| entry.token == token && *entry.key == *key,
            |entry| spread(entry.token),
        );
        match found {
            Slot::Occupied(mut slot) => {
                let entry = slot.get_mut();
                let (bytes, before) = (value_bytes(&entry.state), digest(token, &entry.state));
                let result = change(entry);
                self.bytes = self.bytes + value_bytes(&entry.state) - bytes;
                let after = digest(token, &entry.state);
                if before != after {
                    self.changes.push(Change { partition, token, before, after });
                }
                result
            }
            Slot::Vacant(slot) => {
                let mut entry =
                    Box::new(Entry { key: key.into(), token, state: Siblings::new(), appended: 0 });
                let result = change(&mut entry);
                if !entry.state.is_empty() {
                    self.keys += 1;
                    self.bytes += key.len() + value_bytes(&entry.state);
                    let after = digest(token, &entry.state);
                    self.changes.push(Change { partition, token, before: 0, after });
                    slot.insert(entry);
                }
                result
            }
        }
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
        let table = std::mem::take(&mut self.tables[partition.0 as usize]);
        self.keys -= table.len();
        self.bytes -= table.iter().map(|entry| entry.key.len() + value_bytes(&entry.state)).sum::<usize>();
        debug_assert!(self.changes.iter().all(|change| change.partition != partition), "take them first");
    }

    /// Forget the keys under this token of whose state this is the digest: what was known of them.
    pub fn forget(&mut self, partition: PartitionId, token: u64, hash: u64) -> SmallVec<[Box<Entry>; 1]> {
        let table = &mut self.tables[partition.0 as usize];
        let mut gone = SmallVec::new();
        while let Ok(found) = table
            .find_entry(spread(token), |entry| entry.token == token && digest(token, &entry.state) == hash)
        {
            let (entry, _) = found.remove();
            self.keys -= 1;
            self.bytes -= entry.key.len() + value_bytes(&entry.state);
            self.changes.push(Change { partition, token, before: hash, after: 0 });
            gone.push(entry);
        }
        gone
    }

    /// Forget all keys of a partition but those that are to be kept: what was known of them.
    pub fn forget_all(
        &mut self,
        partition: PartitionId,
        is_kept: impl Fn(&Entry) -> bool,
    ) -> Vec<Box<Entry>> {
        let gone: Vec<Box<Entry>> =
            self.tables[partition.0 as usize].extract_if(|entry| !is_kept(entry)).collect();
        for entry in &gone {
            self.keys -= 1;
            self.bytes -= entry.key.len() + value_bytes(&entry.state);
            let before = digest(entry.token, &entry.state);
            self.changes.push(Change { partition, token: entry.token, before, after: 0 });
        }
        gone
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

/// Bytes of all live values of a key.
pub(crate) fn value_bytes(state: &Siblings<Bytes>) -> usize {
    let length = |content: &Content<Bytes>| match content {
        Content::Value(value) => value.len(),
        Content::Tombstone => 0,
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
        index.update(P, token, key, |entry| {
            let covered = entry.state.context();
            let actor = Actor { id: 1, epoch: 1 };
            let content = Content::Value(Bytes::from_static(value));
            entry.state.put(actor, &covered, content, None, OperationId::NONE, WallTime(1));
        });
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

    #[test]
    fn what_stays_empty_is_not_kept() {
        let mut index = Index::new(8);
        index.update(P, 7, b"a", |_| ());
        assert!(index.find(P, 7, b"a").is_none());
        assert_eq!((index.keys(), index.partition(P).count()), (0, 0));
    }
}
