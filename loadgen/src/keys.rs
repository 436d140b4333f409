//! Which key an operation touches: uniform, Zipf (scrambled), Zipf as YCSB scatters it, latest, or growing.
//!
//! Zipf's popular ranks are scattered over the key space by a permutation, so that neighbours in popularity
//! are no neighbours in key order. YCSB scatters with a hash modulo the count, which lets ranks collide:
//! about a third of all keys are then never drawn and others carry two ranks. A permutation keeps the
//! distribution exact. `ycsb-zipf` is YCSB's own way, for figures that stand beside those of YCSB: ranks of ten
//! billion, whatever the count, each hashed (FNV) onto a key. Its hottest of 1000 keys gets 4% of the operations,
//! where exact Zipf gives it 13%.
//!
//! Latest writes the keys in turn, round and round, and reads those written most recently: the distance
//! behind the newest is Zipf. Growing does the same, but each write brings a new key, up to a limit.

use std::fmt;
use std::str::FromStr;

use ringmain::prng::Prng;

use crate::operation::{Key, Kind};
use crate::zipf::Zipf;

/// How keys are chosen, as the user named it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Popularity {
    /// All keys alike.
    Uniform,
    /// A few keys most of the time.
    #[default]
    Zipf,
    /// A few keys most of the time, as YCSB chooses them.
    YcsbZipf,
    /// What was written last, most of the time.
    Latest,
    /// What was inserted last, most of the time; writes insert new keys.
    Growing,
}

/// A popularity that is not known.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("'{0}' is no known popularity of keys: write uniform, zipf, ycsb-zipf, latest or growing")]
pub struct PopularityError(String);

/// Chooses keys below a limit.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The number of the first.
    first: u64,
    count: u64,
    /// `count <= limit`; the count grows up to here.
    limit: u64,
    chooser: Chooser,
}

#[derive(Clone, Debug)]
enum Chooser {
    Uniform,
    Zipf { ranks: Zipf, scramble: Scramble },
    YcsbZipf { ranks: Zipf },
    Latest { distances: Zipf, newest: u64 },
    Growing { distances: Zipf, exponent: f64 },
}

/// YCSB's ScrambledZipfianGenerator draws from so many, and always with this exponent unless it is told otherwise.
const YCSB_RANKS: u64 = 10_000_000_000;

impl Keys {
    /// `count` keys, from 1 to [`Key::COUNT_MAX`]; `exponent` is Zipf's, and is not used when uniform. No more than
    /// `inserts_max` are inserted while they grow; a write beyond that goes to the newest.
    pub fn new(count: u64, popularity: Popularity, exponent: f64, inserts_max: u64) -> Self {
        let limit = if popularity == Popularity::Growing { count.saturating_add(inserts_max) } else { count };
        assert!(count >= 1 && limit <= Key::COUNT_MAX, "{count} to {limit} keys can't be named");
        let chooser = match popularity {
            Popularity::Uniform => Chooser::Uniform,
            Popularity::Zipf => {
                Chooser::Zipf { ranks: Zipf::new(count, exponent), scramble: Scramble::new(count) }
            }
            Popularity::YcsbZipf => Chooser::YcsbZipf { ranks: Zipf::new(YCSB_RANKS, exponent) },
            Popularity::Latest => {
                Chooser::Latest { distances: Zipf::new(count, exponent), newest: count - 1 }
            }
            Popularity::Growing => Chooser::Growing { distances: Zipf::new(count, exponent), exponent },
        };
        Self { first: 0, count, limit, chooser }
    }

    /// How many there are, with all that may be inserted.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// With numbers from `first` on instead of 0.
    #[must_use]
    pub fn numbered_from(self, first: u64) -> Self {
        assert!(self.limit <= Key::COUNT_MAX - first, "{} keys from {first} on can't be named", self.limit);
        Self { first, ..self }
    }

    /// The key of the next operation of this kind.
    pub fn choose(&mut self, kind: Kind, prng: &mut Prng) -> Key {
        let first = self.first;
        Key(first
            + match &mut self.chooser {
                Chooser::Uniform => prng.below(self.count),
                Chooser::Zipf { ranks, scramble } => scramble.apply(ranks.draw(prng) - 1),
                Chooser::YcsbZipf { ranks } => fnv(ranks.draw(prng) - 1) % self.count,
                Chooser::Latest { newest, .. } if kind == Kind::Write => {
                    *newest = (*newest + 1) % self.count;
                    *newest
                }
                Chooser::Latest { distances, newest } => {
                    let distance = distances.draw(prng) - 1;
                    (*newest + self.count - distance) % self.count
                }
                Chooser::Growing { distances, exponent } if kind == Kind::Write => {
                    if self.count < self.limit {
                        self.count += 1;
                        *distances = Zipf::new(self.count, *exponent);
                    }
                    self.count - 1
                }
                Chooser::Growing { distances, .. } => self.count - distances.draw(prng),
            })
    }
}

/// FNV-1a of 64 bits over the number's bytes, the lowest first.
fn fnv(number: u64) -> u64 {
    number
        .to_le_bytes()
        .into_iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl FromStr for Popularity {
    type Err = PopularityError;

    fn from_str(text: &str) -> Result<Self, PopularityError> {
        match text {
            "uniform" => Ok(Self::Uniform),
            "zipf" => Ok(Self::Zipf),
            "ycsb-zipf" => Ok(Self::YcsbZipf),
            "latest" => Ok(Self::Latest),
            "growing" => Ok(Self::Growing),
            _ => Err(PopularityError(text.to_owned())),
        }
    }
}

impl fmt::Display for Popularity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Uniform => "uniform",
            Self::Zipf => "zipf",
            Self::YcsbZipf => "ycsb-zipf",
            Self::Latest => "latest",
            Self::Growing => "growing",
        })
    }
}

/// A fixed permutation of `0..count`.
///
/// It permutes the next larger power of two by steps that can each be undone (multiply by an odd number,
/// fold the upper half onto the lower), and walks on until it lands below `count`: at most two steps on average.
#[derive(Clone, Debug)]
struct Scramble {
    count: u64,
    mask: u64,
    fold: u32,
}

impl Scramble {
    fn new(count: u64) -> Self {
        let bits = u64::BITS - (count - 1).leading_zeros();
        let mask = if bits == 0 { 0 } else { u64::MAX >> (u64::BITS - bits) };
        Self { count, mask, fold: bits.div_ceil(2).max(1) }
    }

    fn apply(&self, rank: u64) -> u64 {
        let mut place = rank;
        loop {
            place = self.permute(place);
            if place < self.count {
                return place;
            }
        }
    }

    fn permute(&self, place: u64) -> u64 {
        // Odd constants of SplitMix64 and of its predecessors; a sum first, so that 0 doesn't stay 0.
        let mut mixed = place.wrapping_add(0x9e37_79b9_7f4a_7c15) & self.mask;
        for odd in [0xbf58_476d_1ce4_e5b9u64, 0x94d0_49bb_1331_11eb, 0xff51_afd7_ed55_8ccd] {
            mixed = mixed.wrapping_mul(odd) & self.mask;
            mixed ^= mixed >> self.fold;
        }
        mixed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(keys: &mut Keys, kind: Kind, draws: u32) -> Vec<u32> {
        let mut prng = Prng::from_seed(23);
        let mut seen = vec![0u32; keys.limit() as usize];
        for _ in 0..draws {
            seen[keys.choose(kind, &mut prng).0 as usize] += 1;
        }
        seen
    }

    #[test]
    fn uniform_keys_are_even() {
        let seen = counts(&mut Keys::new(50, Popularity::Uniform, 0.0, 0), Kind::Read, 100_000);
        // 2000 expected, deviation 44: five of them on either side.
        assert!(seen.iter().all(|&count| (1780..2220).contains(&count)), "{seen:?}");
    }

    /// Sorted by popularity, the scrambled keys show Zipf's own weights: nothing was folded together.
    #[test]
    fn scrambled_zipf_keeps_its_weights() {
        let mut seen = counts(&mut Keys::new(1000, Popularity::Zipf, 0.99, 0), Kind::Read, 1_000_000);
        let hottest = seen.iter().enumerate().max_by_key(|&(_, count)| count).expect("keys").0;
        assert_ne!(hottest, 0, "the most popular key must not be the first");
        seen.sort_unstable_by(|a, b| b.cmp(a));
        let total: f64 = (1..=1000).map(|rank| f64::from(rank).powf(-0.99)).sum();
        for rank in [1u32, 2, 5, 20] {
            let expected = 1e6 * f64::from(rank).powf(-0.99) / total;
            let observed = f64::from(seen[rank as usize - 1]);
            assert!((observed / expected - 1.0).abs() < 0.05, "rank {rank}: {observed}, expected {expected}");
        }
        assert!(seen[999] > 0, "every key has its turn");
    }

    #[test]
    fn the_scramble_is_a_permutation() {
        for count in [1u64, 2, 3, 7, 64, 1000, 65_537] {
            let scramble = Scramble::new(count);
            let mut seen = vec![false; count as usize];
            for rank in 0..count {
                let place = scramble.apply(rank) as usize;
                assert!(!std::mem::replace(&mut seen[place], true), "{place} twice of {count}");
            }
        }
    }

    #[test]
    fn latest_reads_follow_the_writes() {
        let mut keys = Keys::new(1000, Popularity::Latest, 0.99, 0);
        let mut prng = Prng::from_seed(2);
        let written: Vec<u64> = (0..1500).map(|_| keys.choose(Kind::Write, &mut prng).0).collect();
        assert_eq!(written[..3], [0, 1, 2]);
        assert_eq!(written[1000], 0, "the keys come round again");
        let newest = written[1499];
        let reads: Vec<u64> = (0..10_000).map(|_| keys.choose(Kind::Read, &mut prng).0).collect();
        let near = reads.iter().filter(|&&key| (newest + 1000 - key) % 1000 < 10).count();
        assert!(near > 3_500, "{near} of 10000 reads touch the ten newest keys");
    }

    /// Ten billion ranks folded onto a thousand keys: the first rank has 1/ζ(10^10, 0.99) = 3.8%, the rest is shared out.
    #[test]
    fn ycsb_zipf_is_flatter_than_zipf() {
        let mut seen = counts(&mut Keys::new(1000, Popularity::YcsbZipf, 0.99, 0), Kind::Read, 500_000);
        seen.sort_unstable_by(|a, b| b.cmp(a));
        let hottest = f64::from(seen[0]) / 500_000.0;
        assert!((0.037..0.042).contains(&hottest), "{hottest}");
        assert!(seen[999] > 150, "a third of all operations is spread over all keys: {}", seen[999]);
    }

    /// Several generators share a cluster if each has keys of its own.
    #[test]
    fn numbers_may_begin_anywhere() {
        let choose = |first| {
            let mut keys = Keys::new(100, Popularity::Zipf, 0.99, 0).numbered_from(first);
            let mut prng = Prng::from_seed(8);
            (0..50).map(|_| keys.choose(Kind::Read, &mut prng).0 - first).collect::<Vec<_>>()
        };
        assert_eq!(choose(0), choose(5000));
    }

    #[test]
    fn growing_keys_are_read_soon_after_they_are_inserted() {
        let mut keys = Keys::new(10, Popularity::Growing, 0.99, 20);
        let mut prng = Prng::from_seed(2);
        let inserted: Vec<u64> = (0..22).map(|_| keys.choose(Kind::Write, &mut prng).0).collect();
        let expected: Vec<u64> = (10..30).chain([29, 29]).collect();
        assert_eq!((inserted, keys.limit()), (expected, 30));
        let mut seen = [0u32; 30];
        (0..30_000).for_each(|_| seen[keys.choose(Kind::Read, &mut prng).0 as usize] += 1);
        assert!(seen[29] > 6000 && seen[29] > seen[28] && seen.iter().all(|&count| count > 100), "{seen:?}");
    }
}
