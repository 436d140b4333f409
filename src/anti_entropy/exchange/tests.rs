//! The exchange against plain maps: what it finds is what they don't have in common.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::causality::{Actor, Content, Siblings, VersionVector};
use crate::id::OperationId;
use crate::storage::{Change, Index, digest};
use crate::time::WallTime;

const PARTITIONS: u32 = 4;

/// A replica as far as anti-entropy is concerned.
#[derive(Debug)]
struct Side {
    index: Index,
    trees: Trees,
    actor: Actor,
}

/// A write: which partition, branch and leaf, which key there, and what becomes of it.
#[derive(Clone, Copy, Debug)]
struct Write {
    token: u64,
    deletes: bool,
    at_both: bool,
    by_other: bool,
}

fn partition_of(token: u64) -> PartitionId {
    PartitionId((token >> 62) as u32)
}

impl Side {
    fn new(id: u64) -> Self {
        Self { index: Index::new(PARTITIONS), trees: Trees::new(PARTITIONS), actor: Actor { id, epoch: 1 } }
    }

    /// Two keys share each token: its unit is the token, not the key.
    fn update(&mut self, token: u64, key: &[u8], change: impl FnOnce(&mut Siblings<Bytes>)) {
        self.index.update(partition_of(token), token, key, |entry| change(&mut entry.state));
        let Self { index, trees, .. } = self;
        index.take_changes().for_each(|change| trees.apply(&change));
    }

    fn write(&mut self, token: u64, key: &[u8], deletes: bool) -> Siblings<Bytes> {
        let actor = self.actor;
        let mut written = Siblings::new();
        self.update(token, key, |state| {
            let content = if deletes { Content::Tombstone } else { Content::Value(Bytes::from_static(b"v")) };
            let covered = if deletes { state.context() } else { VersionVector::new() };
            state.put(actor, &covered, content, None, OperationId::NONE, WallTime(0));
            written = state.clone();
        });
        written
    }

    fn all(&self) -> BTreeMap<u64, BTreeMap<Vec<u8>, Siblings<Bytes>>> {
        let mut all = BTreeMap::<u64, BTreeMap<_, _>>::new();
        for entry in (0..PARTITIONS).flat_map(|partition| self.index.partition(PartitionId(partition))) {
            all.entry(entry.token).or_default().insert(entry.key.to_vec(), entry.state.clone());
        }
        all
    }

    /// The trees made anew from what is held.
    fn rebuilt(&self) -> Trees {
        let mut trees = Trees::new(PARTITIONS);
        for entry in (0..PARTITIONS).flat_map(|partition| self.index.partition(PartitionId(partition))) {
            let (token, after) = (entry.token, digest(entry.token, &entry.state));
            trees.apply(&Change { partition: partition_of(token), token, before: 0, after });
        }
        trees
    }

    fn take(&mut self, other: &Self, tokens: &[u64]) {
        for &token in tokens {
            let entries: Vec<_> = other.index.under(partition_of(token), token).collect();
            for entry in entries {
                self.update(token, &entry.key, |state| {
                    state.merge(&entry.state);
                });
            }
        }
    }
}

fn sides(writes: &[Write]) -> (Side, Side) {
    let (mut left, mut right) = (Side::new(1), Side::new(2));
    for write in writes {
        let key: &[u8] = if write.token % 2 == 0 { b"a" } else { b"b" };
        let token = write.token & !1;
        let (writer, other) = if write.by_other { (&mut right, &mut left) } else { (&mut left, &mut right) };
        let written = writer.write(token, key, write.deletes);
        if write.at_both {
            other.update(token, key, |state| {
                state.merge(&written);
            });
        }
    }
    (left, right)
}

/// Walk from `left` to the end; the tokens that were found to differ. Lists hold `limit` tokens.
fn walk(left: &mut Side, right: &mut Side, limit: usize) -> Vec<u64> {
    let mut exchange = Exchange::new((0..PARTITIONS).map(PartitionId));
    let mut moved = Vec::new();
    for _ in 0..10_000 {
        let fits = match exchange.step() {
            Step::Done => {
                assert_eq!(exchange.stage, Stage::Done);
                moved.sort_unstable();
                moved.dedup();
                return moved;
            }
            Step::Roots(partitions) => {
                let roots: Vec<u64> =
                    partitions.iter().map(|partition| right.trees.root(*partition)).collect();
                exchange.on_nodes(&left.trees, &roots)
            }
            Step::Branches(partition) => exchange.on_nodes(&left.trees, &right.trees.branches(partition)),
            Step::Leaves(partition, branch) => {
                exchange.on_nodes(&left.trees, &right.trees.leaves(partition, branch))
            }
            Step::List(selection) => {
                let mine = Listing::take(&left.index, &left.trees, &selection, limit);
                let theirs = Listing::take(&right.index, &right.trees, &selection, limit);
                exchange.on_keys(&left.trees, &mine, &theirs)
            }
            Step::Pull(_, tokens) => {
                let served = &tokens[..tokens.len().min(2)];
                left.take(right, served);
                moved.extend_from_slice(served);
                exchange.on_pulled(served.len())
            }
            Step::Push(_, tokens) => {
                let served = &tokens[..tokens.len().min(2)];
                right.take(left, served);
                moved.extend_from_slice(served);
                exchange.on_pushed(served.len())
            }
        };
        assert_eq!(fits, Ok(()));
    }
    panic!("the walk has no end");
}

/// Few branches, leaves and keys, so that they meet: the first and the last of each among them.
fn token() -> impl Strategy<Value = u64> {
    let place = || prop_oneof![Just(0u64), Just(1), Just(30), Just(31)];
    (0..4u64, place(), place(), 0..4u64)
        .prop_map(|(partition, branch, leaf, key)| partition << 62 | branch << 57 | leaf << 52 | key)
}

fn write() -> impl Strategy<Value = Write> {
    (token(), any::<bool>(), any::<bool>(), any::<bool>())
        .prop_map(|(token, deletes, at_both, by_other)| Write { token, deletes, at_both, by_other })
}

proptest! {
    /// What is found to differ is the difference of two maps, and then there is none.
    #[test]
    fn the_exchange_finds_the_set_difference(writes in vec(write(), 0..60), limit in 1usize..8) {
        let (mut left, mut right) = sides(&writes);
        let (mine, theirs) = (left.all(), right.all());
        let tokens = mine.keys().chain(theirs.keys());
        let mut expected: Vec<u64> = tokens.filter(|token| mine.get(token) != theirs.get(token)).copied().collect();
        expected.sort_unstable();
        expected.dedup();
        prop_assert_eq!(walk(&mut left, &mut right, limit), expected);
        prop_assert_eq!(left.all(), right.all());
        for partition in (0..PARTITIONS).map(PartitionId) {
            prop_assert_eq!(left.trees.root(partition), right.trees.root(partition));
        }
        prop_assert_eq!(walk(&mut left, &mut right, limit), [0u64; 0], "and nothing moves any more");
    }

    /// Kept up write by write, a tree is what it would be if it were made anew.
    #[test]
    fn a_tree_kept_is_a_tree_rebuilt(writes in vec(write(), 0..60)) {
        let (left, right) = sides(&writes);
        for side in [left, right] {
            let rebuilt = side.rebuilt();
            for partition in (0..PARTITIONS).map(PartitionId) {
                prop_assert_eq!(side.trees.get(partition), rebuilt.get(partition));
            }
        }
    }

    /// P12: whatever a peer answers, the walk refuses it or goes on, and keeps no more than two lists hold.
    #[test]
    fn any_answer_is_taken_or_refused(
        writes in vec(write(), 1..20),
        answers in vec((0u8..4, vec((token(), any::<u64>()), 0..40), any::<bool>()), 0..40),
    ) {
        let (left, _) = sides(&writes);
        let mut exchange = Exchange::new((0..PARTITIONS).map(PartitionId));
        for (kind, mut keys, more) in answers {
            let nodes: Vec<u64> = keys.iter().map(|(_, hash)| *hash).cycle().take(keys.len().min(1) * 32).collect();
            keys.sort_unstable();
            keys.dedup_by_key(|(token, _)| *token);
            let mine = match exchange.step() {
                Step::List(selection) => Listing::take(&left.index, &left.trees, &selection, 3),
                _ => Listing::default(),
            };
            let count = keys.len();
            let theirs = Listing { more: more && count > 0, keys };
            let _ = match kind {
                0 => exchange.on_nodes(&left.trees, &nodes),
                1 => exchange.on_keys(&left.trees, &mine, &theirs),
                2 => exchange.on_pulled(count),
                _ => exchange.on_pushed(count),
            };
            prop_assert!(exchange.pull.len() <= 40 && exchange.push.len() <= 3);
        }
    }
}

#[test]
fn an_answer_to_another_question_is_refused() {
    let trees = Trees::new(PARTITIONS);
    let mut exchange = Exchange::new((0..2).map(PartitionId));
    assert_eq!(exchange.on_nodes(&trees, &[0; 3]), Err(Unexpected), "three roots for two");
    assert_eq!(exchange.on_pulled(1), Err(Unexpected));
    assert_eq!(exchange.on_keys(&trees, &Listing::default(), &Listing::default()), Err(Unexpected));
    assert_eq!(exchange.on_nodes(&trees, &[0, 9]), Ok(()));
    assert_eq!(exchange.step(), Step::Branches(PartitionId(1)));
    assert_eq!(exchange.on_nodes(&trees, &[0; 31]), Err(Unexpected));
    assert_eq!(exchange.on_nodes(&trees, &[0; FAN_OUT]), Ok(()), "it was a write on its way");
    assert_eq!(exchange.step(), Step::Done);
}
