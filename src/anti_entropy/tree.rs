//! Hash trees: 1,024 leaves under 32 branches, for each partition that holds a key.
//!
//! A node is the sum of the digests of all keys below it, so that a write is an addition, in whatever order writes
//! come, and inner nodes need no hashing of their own. A digest is 64 bits of XXH3 over states that nobody
//! can choose (they hold random actors), so two different sets of keys have the same sum once in 2^64.
//!
//! Memory: 8 bytes a leaf, allocated 32 at a time when the first key falls under their branch, and given back when the last
//! one is gone; 8.25 KiB for a whole
//! tree. At Q = 1024 and a node that holds every partition that is at most 8.3 MiB; with 10 million keys on it there
//! are ten keys to a leaf, so that one key astray makes two replicas list ten, 160 bytes.

use crate::id::PartitionId;
use crate::storage::{Change, cost};

/// Children of an inner node.
pub const FAN_OUT: usize = ringmain_schema::limits::TREE_FAN_OUT;

const FAN_OUT_BITS: u32 = FAN_OUT.trailing_zeros();

/// A leaf's place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Leaf {
    /// `0 <= branch < FAN_OUT`
    pub branch: u8,
    /// Its place in that branch. `0 <= leaf < FAN_OUT`
    pub leaf: u8,
}

/// The hash tree of one partition, but for its root. The leaves are kept up; the branches are added up when they are
/// asked for, since a write should touch no more memory than it must.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HashTree {
    leaves: [Option<Box<[u64; FAN_OUT]>>; FAN_OUT],
}

impl HashTree {
    /// A key at this leaf had the digest `before` and has `after` now; 0 stands for no key.
    pub fn replace(&mut self, at: Leaf, before: u64, after: u64) {
        let branch = &mut self.leaves[usize::from(at.branch)];
        let leaves = branch.get_or_insert_default();
        let leaf = &mut leaves[usize::from(at.leaf)];
        replace(leaf, before, after);
        if *leaf == 0 && leaves.iter().all(|leaf| *leaf == 0) {
            *branch = None;
        }
    }

    /// Is nothing below it?
    fn is_empty(&self) -> bool {
        self.leaves.iter().all(Option::is_none)
    }

    const fn has_branch(&self, branch: u8) -> bool {
        self.leaves[branch as usize].is_some()
    }

    /// What it costs in memory, as the allocator gives it out.
    fn memory(&self) -> usize {
        let branches = self.leaves.iter().flatten().count();
        cost::allocated(size_of::<Self>()) + branches * cost::allocated(size_of::<[u64; FAN_OUT]>())
    }

    /// All branches.
    pub fn branches(&self) -> [u64; FAN_OUT] {
        std::array::from_fn(|branch| self.leaves(branch as u8).iter().copied().fold(0, u64::wrapping_add))
    }

    /// All leaves of a branch.
    pub fn leaves(&self, branch: u8) -> &[u64; FAN_OUT] {
        self.leaves[usize::from(branch)].as_deref().unwrap_or(&[0; FAN_OUT])
    }

    /// Is nothing behind this leaf?
    pub fn is_last(&self, at: Leaf) -> bool {
        let (branch, leaf) = (usize::from(at.branch), usize::from(at.leaf));
        let behind = |nodes: &[u64], place: usize| nodes[place + 1..].iter().any(|node| *node != 0);
        !behind(&self.branches(), branch) && !behind(self.leaves(at.branch), leaf)
    }
}

/// What a branch costs, and the tree that it is the first of.
const fn growth(is_first: bool) -> usize {
    let tree = if is_first { cost::allocated(size_of::<HashTree>()) } else { 0 };
    tree + cost::allocated(size_of::<[u64; FAN_OUT]>())
}

const fn replace(node: &mut u64, before: u64, after: u64) {
    *node = node.wrapping_sub(before).wrapping_add(after);
}

/// The hash trees of one shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trees {
    /// By partition; none where there is no key.
    all: Vec<Option<Box<HashTree>>>,
    /// By partition: eight bytes each, so that those of a whole round stay near.
    roots: Vec<u64>,
    /// What all trees cost.
    tree_bytes: usize,
}

impl Trees {
    /// Empty trees for `partitions` partitions, a power of two.
    pub fn new(partitions: u32) -> Self {
        debug_assert!(partitions.is_power_of_two());
        Self { all: vec![None; partitions as usize], roots: vec![0; partitions as usize], tree_bytes: 0 }
    }

    /// How many partitions there are.
    pub const fn partitions(&self) -> u32 {
        self.all.len() as u32
    }

    /// A key's state has changed.
    pub fn apply(&mut self, change: &Change) {
        let at = self.leaf_of(change.token);
        let slot = &mut self.all[change.partition.0 as usize];
        let has_branch =
            |tree: &Option<Box<HashTree>>| tree.as_ref().is_some_and(|tree| tree.has_branch(at.branch));
        let had_branch = has_branch(slot);
        if !had_branch {
            self.tree_bytes += growth(slot.is_none());
        }
        let tree = slot.get_or_insert_default();
        tree.replace(at, change.before, change.after);
        if !tree.has_branch(at.branch) {
            let is_last = tree.is_empty();
            self.tree_bytes -= growth(is_last);
            if is_last {
                *slot = None;
            }
        }
        replace(&mut self.roots[change.partition.0 as usize], change.before, change.after);
    }

    /// Nothing is held of this partition any more.
    pub fn clear(&mut self, partition: PartitionId) {
        if let Some(tree) = self.all[partition.0 as usize].take() {
            self.tree_bytes -= tree.memory();
        }
        self.roots[partition.0 as usize] = 0;
    }

    /// What they cost in memory, as the allocator gives it out.
    pub const fn memory(&self) -> usize {
        let all = cost::allocated(self.all.capacity() * size_of::<Option<Box<HashTree>>>());
        self.tree_bytes + all + cost::allocated(self.roots.capacity() * size_of::<u64>())
    }

    /// What a change costs of a key that wasn't there, at most.
    pub fn growth(&self, partition: PartitionId, token: u64) -> usize {
        match self.get(partition) {
            Some(tree) if tree.has_branch(self.leaf_of(token).branch) => 0,
            tree => growth(tree.is_none()),
        }
    }

    /// Where a token lies in its partition's tree: the ten bits behind those that name the partition.
    pub const fn leaf_of(&self, token: u64) -> Leaf {
        let below = token << self.all.len().trailing_zeros();
        let place = (below >> (u64::BITS - 2 * FAN_OUT_BITS)) as usize;
        Leaf { branch: (place / FAN_OUT) as u8, leaf: (place % FAN_OUT) as u8 }
    }

    /// A partition's tree; `None` if it holds no key.
    pub fn get(&self, partition: PartitionId) -> Option<&HashTree> {
        self.all[partition.0 as usize].as_deref()
    }

    /// A partition's root: the whole of it in one number.
    pub fn root(&self, partition: PartitionId) -> u64 {
        self.roots[partition.0 as usize]
    }

    /// A partition's branches.
    pub fn branches(&self, partition: PartitionId) -> [u64; FAN_OUT] {
        self.get(partition).map_or([0; FAN_OUT], HashTree::branches)
    }

    /// The leaves of one of its branches.
    pub fn leaves(&self, partition: PartitionId, branch: u8) -> [u64; FAN_OUT] {
        self.get(partition).map_or([0; FAN_OUT], |tree| *tree.leaves(branch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: PartitionId = PartitionId(3);

    fn change(token: u64, before: u64, after: u64) -> Change {
        Change { partition: P, token, before, after }
    }

    /// A token of partition 3 of 8, at this leaf.
    fn token(branch: u64, leaf: u64) -> u64 {
        3 << 61 | branch << 56 | leaf << 51 | 7
    }

    #[test]
    fn the_order_of_writes_does_not_matter() {
        let (mut left, mut right) = (Trees::new(8), Trees::new(8));
        let changes = [change(token(0, 1), 0, 5), change(token(0, 1), 5, 6), change(token(31, 31), 0, 9)];
        changes.iter().for_each(|change| left.apply(change));
        changes.iter().rev().for_each(|change| right.apply(change));
        assert_eq!(left, right);
        assert_eq!((left.root(P), left.branches(P)[31], left.leaves(P, 0)[1]), (15, 9, 6));
        assert_eq!(left.get(PartitionId(4)), None);
    }

    /// `riak_core` PR 830: a tree whose last segment was not rehashed after a delete. Nothing is special about it.
    #[test]
    fn a_change_in_the_last_leaf_is_a_change() {
        let mut trees = Trees::new(8);
        trees.apply(&change(token(31, 30), 0, 4));
        trees.apply(&change(token(31, 31), 0, 5));
        let before = trees.clone();
        trees.apply(&change(token(31, 31), 5, 6));
        assert_ne!(trees.root(P), before.root(P));
        assert_ne!(trees.branches(P)[31], before.branches(P)[31]);
        assert_ne!(trees.leaves(P, 31)[31], before.leaves(P, 31)[31]);
    }

    #[test]
    fn the_last_leaf_is_the_one_with_nothing_behind() {
        let mut trees = Trees::new(8);
        [token(2, 5), token(2, 7)].iter().for_each(|&token| trees.apply(&change(token, 0, 1)));
        let is_last = |token| trees.get(P).unwrap().is_last(trees.leaf_of(token));
        assert_eq!((is_last(token(2, 5)), is_last(token(2, 7)), is_last(token(1, 9))), (false, true, false));
    }

    #[test]
    fn what_trees_cost_is_counted_as_they_grow_and_go() {
        let mut trees = Trees::new(8);
        let empty = trees.memory();
        [token(2, 5), token(2, 7), token(3, 7)].iter().for_each(|&token| trees.apply(&change(token, 0, 1)));
        assert_eq!(trees.memory() - empty, size_of::<HashTree>() + 2 * 256);
        trees.apply(&change(token(2, 5), 1, 0));
        assert_eq!(
            trees.memory() - empty,
            size_of::<HashTree>() + 2 * 256,
            "another key is under that branch"
        );
        assert_eq!(trees.growth(P, token(2, 5)), 0);
        trees.apply(&change(token(2, 7), 1, 0));
        assert_eq!(
            trees.memory() - empty,
            size_of::<HashTree>() + 256,
            "who is put out takes its branch along"
        );
        assert_eq!(trees.growth(P, token(2, 5)), 256);
        trees.apply(&change(token(3, 7), 1, 0));
        assert_eq!((trees.memory(), trees.get(P)), (empty, None), "and the last one the tree");
        assert_eq!(trees.growth(P, token(2, 5)), size_of::<HashTree>() + 256);
        trees.apply(&change(token(2, 5), 0, 1));
        trees.clear(P);
        assert_eq!(trees.memory(), empty);
    }

    #[test]
    fn a_tree_costs_what_its_essay_says() {
        let branch = size_of::<[u64; FAN_OUT]>();
        let whole = size_of::<HashTree>() + FAN_OUT * branch;
        assert_eq!((branch, whole), (256, 256 + 32 * 256));
    }
}
