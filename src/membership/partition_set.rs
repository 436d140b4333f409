//! A set of partitions, a bit each.

use std::sync::Arc;

use crate::id::PartitionId;

/// Some of a ring's partitions. The same set is the same words: none of them is 0 at the end.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PartitionSet(Vec<u64>);

impl PartitionSet {
    /// The first `count` partitions.
    pub fn first(count: u32) -> Self {
        (0..count).map(PartitionId).collect()
    }

    /// From the words of a record; `None` if they name a partition beyond `count`.
    pub fn from_words(words: &[u64], count: u32) -> Option<Self> {
        let mut set = Self(words.to_vec());
        set.trim();
        set.iter().last().is_none_or(|last| last.0 < count).then_some(set)
    }

    /// For a record.
    pub fn to_words(&self) -> Arc<[u64]> {
        self.0.as_slice().into()
    }

    /// Is this partition in it?
    pub fn contains(&self, partition: PartitionId) -> bool {
        let (word, bit) = place(partition);
        self.0.get(word).is_some_and(|bits| bits & bit != 0)
    }

    /// Put it in.
    pub fn insert(&mut self, partition: PartitionId) {
        let (word, bit) = place(partition);
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= bit;
    }

    /// Keep those that are wanted.
    pub fn retain(&mut self, mut wanted: impl FnMut(PartitionId) -> bool) {
        for partition in self.iter().collect::<Vec<_>>() {
            if !wanted(partition) {
                let (word, bit) = place(partition);
                self.0[word] &= !bit;
            }
        }
        self.trim();
    }

    /// In ascending order.
    pub fn iter(&self) -> impl Iterator<Item = PartitionId> + '_ {
        let bits = |word: u64| (0..64).filter(move |bit| word >> bit & 1 == 1);
        let words = self.0.iter().zip(0u32..);
        words.flat_map(move |(word, at)| bits(*word).map(move |bit| PartitionId(at * 64 + bit)))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// None at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }
}

impl FromIterator<PartitionId> for PartitionSet {
    fn from_iter<I: IntoIterator<Item = PartitionId>>(partitions: I) -> Self {
        let mut set = Self::default();
        partitions.into_iter().for_each(|partition| set.insert(partition));
        set
    }
}

const fn place(partition: PartitionId) -> (usize, u64) {
    (partition.0 as usize / 64, 1 << (partition.0 % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sets_are_equal_words() {
        let mut set: PartitionSet = [3, 64, 200].into_iter().map(PartitionId).collect();
        assert_eq!(set.iter().map(|partition| partition.0).collect::<Vec<_>>(), [3, 64, 200]);
        set.retain(|partition| partition.0 < 64);
        assert_eq!((set.len(), set.to_words().len()), (1, 1));
        assert!(set.contains(PartitionId(3)) && !set.contains(PartitionId(200)));
        assert_eq!(PartitionSet::from_words(&[8, 0, 0], 64), Some(set.clone()));
        assert_eq!(PartitionSet::from_words(&[8], 3), None, "a ring of three partitions has no fourth");
        set.retain(|_| false);
        assert!(set.is_empty() && set == PartitionSet::default());
        assert_eq!(PartitionSet::first(65).len(), 65);
    }
}
