//! What a key is called in the store: of one length for all, or as long as a distribution says.
//!
//! Unless sizes are asked for, keys have one length, so that they add no noise to what is measured
//! ([`Key::text`]). With sizes, the number of the key comes first, in as many digits of base 64 as the highest
//! number needs, and `.`, which is no digit, fills the rest; so no two keys have one name, whatever their lengths,
//! and a key has the same name in every operation. A size that has no room for the digits is as long as they are.

use bytes::Bytes;
use ringmain::prng::Prng;

use crate::operation::Key;
use crate::sizes::Sizes;

/// How keys are named. Every run with the same settings names them alike.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct KeyNames {
    /// `None`: all of one length.
    sized: Option<Sized>,
}

#[derive(Clone, PartialEq, Debug)]
struct Sized {
    sizes: Sizes,
    /// `1 <= digits`
    digits: usize,
}

/// The servers take no longer ones, in bytes.
const LENGTH_MAX: usize = 65_536;
const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";
const DIGIT_BITS: u32 = 6;
const FILL: u8 = b'.';
/// Any number, but the same in every version: an earlier run's keys must be found again.
const SIZE_SEED: u64 = 0x6b65_7973;

impl KeyNames {
    /// Lengths in bytes from `sizes`, for keys below `count`; all of one length without.
    pub fn new(sizes: Option<Sizes>, count: u64) -> Self {
        let bits = u64::BITS - count.saturating_sub(1).leading_zeros();
        let digits = bits.div_ceil(DIGIT_BITS).max(1) as usize;
        Self { sized: sizes.map(|sizes| Sized { sizes, digits }) }
    }

    /// The key as the store sees it.
    pub fn text(&self, key: Key) -> Bytes {
        self.sized.as_ref().map_or_else(|| key.text(), |sized| Bytes::from(sized.text(key)))
    }
}

impl Sized {
    fn text(&self, key: Key) -> Vec<u8> {
        let drawn = self.sizes.draw(&mut Prng::from_seed(key.0 ^ SIZE_SEED)) as usize;
        let mut text = Vec::with_capacity(drawn.clamp(self.digits, LENGTH_MAX));
        for place in (0..self.digits as u32).rev() {
            text.push(DIGITS[(key.0 >> (place * DIGIT_BITS)) as usize % DIGITS.len()]);
        }
        text.resize(drawn.clamp(self.digits, LENGTH_MAX), FILL);
        text
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn names(sizes: &str, count: u64) -> Vec<Bytes> {
        let names = KeyNames::new(Some(sizes.parse().expect("sizes")), count);
        (0..count).map(|key| names.text(Key(key))).collect()
    }

    #[test]
    fn names_are_as_long_as_they_should_be_and_all_different() {
        for (sizes, count) in
            [("44", 10_000), ("1..9", 5000), ("etc-key", 5000), ("1", 1), ("1", 64), ("0", 65)]
        {
            let names = names(sizes, count);
            let different: HashSet<&Bytes> = names.iter().collect();
            assert_eq!(different.len() as u64, count, "{sizes}");
        }
        assert!(names("44", 1000).iter().all(|name| name.len() == 44));
        let drawn: HashSet<usize> = names("10..20", 1000).iter().map(Bytes::len).collect();
        assert_eq!(drawn.len(), 11, "every length occurs: {drawn:?}");
    }

    #[test]
    fn a_name_is_told_apart_from_those_of_another_run() {
        let (few, many): (HashSet<Bytes>, HashSet<Bytes>) =
            (names("1..4", 60).into_iter().collect(), names("1..4", 5000).into_iter().collect());
        assert!(few.is_disjoint(&many), "one name must never stand for two keys");
    }

    #[test]
    fn without_sizes_names_have_one_length() {
        assert_eq!(KeyNames::default().text(Key(7)), Key(7).text());
        assert_eq!(KeyNames::new(None, 9).text(Key(7)), "key:0000000007");
    }
}
