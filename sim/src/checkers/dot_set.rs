//! A set of the dots of one key, by their positions in its graph: one bit each.
//!
//! A version vector covers a run of each actor's dots, so it turns into such a set in a few steps, and what
//! the checkers ask of thousands of contexts is then a word's work for 64 dots.

use std::ops::Range;

/// Positions below the length that it was made for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct DotSet {
    words: Vec<u64>,
}

impl DotSet {
    /// Nothing, of `dots` positions.
    pub(super) fn new(dots: usize) -> Self {
        Self { words: vec![0; dots.div_ceil(64)] }
    }

    /// Add one.
    pub(super) fn insert(&mut self, at: usize) {
        self.words[at / 64] |= 1 << (at % 64);
    }

    /// Add a run of them.
    pub(super) fn insert_run(&mut self, run: Range<usize>) {
        let Range { mut start, end } = run;
        while start < end {
            let stop = end.min((start / 64 + 1) * 64);
            let ones = u64::MAX >> (64 - (stop - start));
            self.words[start / 64] |= ones << (start % 64);
            start = stop;
        }
    }

    /// Is it in?
    pub(super) fn contains(&self, at: usize) -> bool {
        self.words[at / 64] >> (at % 64) & 1 == 1
    }

    /// Add all of another.
    pub(super) fn add(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(ours, theirs)| *ours |= theirs);
    }

    /// Take away all of another.
    pub(super) fn subtract(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(ours, theirs)| *ours &= !theirs);
    }

    /// Keep what is in another too.
    pub(super) fn keep(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(ours, theirs)| *ours &= theirs);
    }

    /// Have they anything in common?
    pub(super) fn meets(&self, other: &Self) -> bool {
        self.words.iter().zip(&other.words).any(|(ours, theirs)| ours & theirs != 0)
    }

    /// Is nothing in?
    pub(super) fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Those that are in, in ascending order.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        self.words.iter().enumerate().flat_map(|(word, bits)| {
            let mut rest = *bits;
            std::iter::from_fn(move || {
                let bit = rest.checked_ilog2().map(|_| rest.trailing_zeros())?;
                rest &= rest - 1;
                Some(word * 64 + bit as usize)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_all_between_its_ends() {
        for (start, end) in [(0, 0), (0, 1), (3, 64), (64, 128), (1, 199), (63, 65), (0, 200)] {
            let mut set = DotSet::new(200);
            set.insert_run(start..end);
            assert_eq!(set.iter().collect::<Vec<_>>(), (start..end).collect::<Vec<_>>());
            assert!((0..200).all(|at| set.contains(at) == (start..end).contains(&at)));
            assert_eq!(set.is_empty(), start == end);
        }
    }

    #[test]
    fn sets_do_what_sets_do() {
        let of = |members: &[usize]| {
            let mut set = DotSet::new(100);
            members.iter().for_each(|at| set.insert(*at));
            set
        };
        let (mut added, mut subtracted, mut kept) = (of(&[1, 70]), of(&[1, 70]), of(&[1, 70]));
        let other = of(&[70, 99]);
        added.add(&other);
        subtracted.subtract(&other);
        kept.keep(&other);
        assert_eq!((added, subtracted, kept), (of(&[1, 70, 99]), of(&[1]), of(&[70])));
        assert!(other.meets(&of(&[99])) && !other.meets(&of(&[1, 35])));
    }
}
