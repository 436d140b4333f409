//! Lists of keys at the bottom of a tree, and what two of them don't have in common.

use std::cmp::Ordering;

use super::tree::Trees;
use crate::id::PartitionId;
use crate::storage::{Index, digest};

/// Some leaves of one branch of a partition's tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Selection {
    /// The partition.
    pub partition: PartitionId,
    /// The branch.
    pub branch: u8,
    /// A bit for each leaf.
    pub leaves: u32,
    /// No token below this.
    pub from: u64,
}

impl Selection {
    /// Is a token of this partition among what is selected?
    pub const fn contains(&self, trees: &Trees, token: u64) -> bool {
        let at = trees.leaf_of(token);
        at.branch == self.branch && self.leaves >> at.leaf & 1 == 1 && token >= self.from
    }
}

/// Tokens with the hash of all that is held under them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Listing {
    /// Sorted by token, each once.
    pub keys: Vec<(u64, u64)>,
    /// There are more behind the last.
    pub more: bool,
}

impl Listing {
    /// What is held here: the first `limit` tokens of a selection. It looks at every key of the partition once.
    pub fn take(index: &Index, trees: &Trees, selection: &Selection, limit: usize) -> Self {
        let selected =
            index.partition(selection.partition).filter(|entry| selection.contains(trees, entry.token));
        let mut keys: Vec<_> =
            selected.map(|entry| (entry.token, digest(entry.token, &entry.state))).collect();
        keys.sort_unstable();
        keys.dedup_by(|later, first| {
            let same = later.0 == first.0;
            if same {
                first.1 = first.1.wrapping_add(later.1);
            }
            same
        });
        let more = keys.len() > limit;
        keys.truncate(limit);
        Self { keys, more }
    }

    /// The last token up to which this list tells all; `None` if that is all there is.
    fn end(&self) -> Option<u64> {
        self.keys.last().filter(|_| self.more).map(|(token, _)| *token)
    }
}

/// What two lists don't have in common.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Differences {
    /// There is something there that isn't, or isn't the same, here. Sorted.
    pub theirs: Vec<u64>,
    /// There is something here that isn't, or isn't the same, there. Sorted.
    pub mine: Vec<u64>,
    /// The lists were compared up to this token, and go on behind it; `None` if they are done.
    pub until: Option<u64>,
}

/// Compare two lists of the same selection, as far as both reach.
pub fn differences(mine: &Listing, theirs: &Listing) -> Differences {
    let until = [mine.end(), theirs.end()].into_iter().flatten().min();
    let reach = |listing: &Listing| {
        let beyond = |until| listing.keys.partition_point(|(token, _)| *token <= until);
        until.map_or(listing.keys.len(), beyond)
    };
    let (mut left, mut right) = (&mine.keys[..reach(mine)], &theirs.keys[..reach(theirs)]);
    let mut found = Differences { until, ..Differences::default() };
    loop {
        let order = match (left.first(), right.first()) {
            (None, None) => return found,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(mine), Some(theirs)) => mine.0.cmp(&theirs.0),
        };
        match order {
            Ordering::Less => found.mine.push(left[0].0),
            Ordering::Greater => found.theirs.push(right[0].0),
            Ordering::Equal if left[0].1 != right[0].1 => {
                found.mine.push(left[0].0);
                found.theirs.push(right[0].0);
            }
            Ordering::Equal => {}
        }
        left = &left[usize::from(order.is_le())..];
        right = &right[usize::from(order.is_ge())..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(keys: &[(u64, u64)], more: bool) -> Listing {
        Listing { keys: keys.to_vec(), more }
    }

    #[test]
    fn each_side_has_what_the_other_lacks() {
        let found = differences(
            &listing(&[(1, 1), (2, 2), (4, 4)], false),
            &listing(&[(2, 3), (3, 3), (4, 4)], false),
        );
        assert_eq!(found, Differences { theirs: vec![2, 3], mine: vec![1, 2], until: None });
    }

    /// Behind the end of a list that goes on nothing is known.
    #[test]
    fn lists_are_compared_as_far_as_both_reach() {
        let found = differences(&listing(&[(1, 1), (2, 2)], true), &listing(&[(3, 3)], false));
        assert_eq!(found, Differences { theirs: vec![], mine: vec![1, 2], until: Some(2) });
        let found = differences(&listing(&[(1, 1), (9, 9)], true), &listing(&[(3, 3)], true));
        assert_eq!(found, Differences { theirs: vec![3], mine: vec![1], until: Some(3) });
        let found = differences(&listing(&[], false), &listing(&[(3, 3)], true));
        assert_eq!(found, Differences { theirs: vec![3], mine: vec![], until: Some(3) });
    }
}
