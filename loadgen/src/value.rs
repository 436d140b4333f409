//! Values that prove themselves: each carries what wrote it, where it belongs, and a checksum over it all.
//!
//! ```text
//! length        bytes
//! 20 and more   | operation 8 | key hash 4 | filler ...            | checksum 8 |
//! 16 to 19      | operation 8 | filler 0-3                         | checksum 8 |
//! 12 to 15      | operation 8 |                             checksum, cut to 4-7 |
//!  1 to 11      |                                           checksum, cut to 1-11 |
//!  0            nothing
//! ```
//!
//! Numbers are little-endian. The checksum is xxh3 (128 bits where 8 bytes don't suffice) over everything
//! before it, seeded with key hash and length; so a value that belongs to another key, was cut, or was
//! changed is found out, at every length from 1 up, with a chance of 2^-8 per byte of checksum to be missed.
//! The key hash in longer values only names the culprit. Below [`LENGTH_WITH_OPERATION`] there is no room
//! to say which operation wrote a value: only its key and length are proved. Nothing is proved of an empty one.
//!
//! Filler is copied from a pattern made once, at a place the operation number decides: no byte is drawn.

use bytes::Bytes;
use ringmain::prng::Prng;
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

use crate::operation::Key;

/// From this length on, a value tells which operation wrote it.
pub const LENGTH_WITH_OPERATION: usize = 12;

/// Which operation wrote a value: unique over all runs against one cluster, with overwhelming likelihood.
///
/// The upper 24 bits are the run's tag, the lower 40 the operation's number in it: a run of a trillion
/// operations fits, and a value left over from an earlier run is recognized as such.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Writer(u64);

/// Makes and verifies values.
#[derive(Debug)]
pub struct Values {
    pattern: Vec<u8>,
    run: u32,
    length_min: usize,
}

/// What a value that passed proves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verified {
    /// Written by the operation of this number in this run.
    Written(u64),
    /// Written by another run: it says so, or this run writes none that is so short.
    OtherRun,
    /// A true value of this key, but too short to tell who wrote it.
    Anonymous,
}

/// A value that can't have been put on the key it was read from.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WrongValue {
    /// The checksum doesn't fit: changed, cut, or never a value of this load at all.
    #[error(
        "the value's {length} bytes don't match their checksum: it was damaged, or something else wrote it"
    )]
    Damaged {
        /// How long it is.
        length: usize,
    },
    /// It is whole, but another key's hash is in it.
    #[error("the value carries the hash of another key, {found:08x}")]
    OtherKey {
        /// Lower half of the hash of the key it belongs to.
        found: u32,
    },
    /// This run's, and yet shorter than any that it writes.
    #[error("the value has {length} bytes, fewer than any value written, and says that this run wrote it")]
    TooShort {
        /// How long it is.
        length: usize,
    },
}

const PATTERN_LEN: usize = 64 << 10;
const OPERATION: std::ops::Range<usize> = 0..8;
const KEY_HASH: std::ops::Range<usize> = 8..12;
const LENGTH_WITH_KEY_HASH: usize = 20;
const CHECKSUM_LEN: usize = 8;
const NUMBER_BITS: u32 = 40;
/// Both any numbers, but the same in every version: an earlier run's values must still verify.
const PATTERN_SEED: u64 = 0x7269_6e67;
const KEY_HASH_SEED: u64 = 0x6c6f_6164;

impl Values {
    /// For a run with a tag that differs from the tags of other runs against the same cluster, and values
    /// none of which is shorter than `length_min`.
    pub fn new(run_tag: u64, length_min: u32) -> Self {
        let mut prng = Prng::from_seed(PATTERN_SEED);
        let pattern = (0..PATTERN_LEN / 8).flat_map(|_| prng.next_u64().to_le_bytes()).collect();
        Self { pattern, run: (run_tag as u32) & 0xff_ffff, length_min: length_min as usize }
    }

    /// The value that operation `number` of this run writes to `key`.
    pub fn fill(&self, key: Key, number: u64, length: u32) -> Bytes {
        let length = length as usize;
        let key_hash = hash_of(key);
        let mut value = Vec::with_capacity(length);
        if length >= LENGTH_WITH_OPERATION {
            value.extend_from_slice(&Writer::new(self.run, number).0.to_le_bytes());
        }
        if length >= LENGTH_WITH_KEY_HASH {
            value.extend_from_slice(&(key_hash as u32).to_le_bytes());
        }
        self.extend_with_filler(&mut value, number, length - checksum_len(length));
        let checksum = checksum(key_hash, length, &value);
        value.extend_from_slice(&checksum[..length - value.len()]);
        Bytes::from(value)
    }

    /// Whether `value`, read from `key`, was written to `key`, and by whom.
    pub fn verify(&self, key: Key, value: &[u8]) -> Result<Verified, WrongValue> {
        let length = value.len();
        let key_hash = hash_of(key);
        let (body, found) = value.split_at(length - checksum_len(length));
        if checksum(key_hash, length, body)[..found.len()] != *found {
            return Err(blame(key_hash, value));
        }
        let is_short = length < self.length_min;
        if length < LENGTH_WITH_OPERATION {
            return Ok(if is_short { Verified::OtherRun } else { Verified::Anonymous });
        }
        let writer = Writer(u64::from_le_bytes(body[OPERATION].try_into().expect("eight bytes")));
        match (writer.run() == self.run, is_short) {
            (false, _) => Ok(Verified::OtherRun),
            (true, true) => Err(WrongValue::TooShort { length }),
            (true, false) => Ok(Verified::Written(writer.number())),
        }
    }

    fn extend_with_filler(&self, value: &mut Vec<u8>, number: u64, upto: usize) {
        // An odd stride of cache lines: successive operations start at different places.
        let mut at = (number as usize).wrapping_mul(67 * 64) % PATTERN_LEN;
        while value.len() < upto {
            let piece = (upto - value.len()).min(PATTERN_LEN - at);
            value.extend_from_slice(&self.pattern[at..at + piece]);
            at = 0;
        }
    }
}

impl Writer {
    fn new(run: u32, number: u64) -> Self {
        assert!(number < 1 << NUMBER_BITS, "operation {number} is beyond what a value can carry");
        Self(u64::from(run) << NUMBER_BITS | number)
    }

    fn run(self) -> u32 {
        (self.0 >> NUMBER_BITS) as u32
    }

    fn number(self) -> u64 {
        self.0 & ((1 << NUMBER_BITS) - 1)
    }
}

/// How many bytes of checksum a value of this length ends with.
fn checksum_len(length: usize) -> usize {
    match length {
        0..LENGTH_WITH_OPERATION => length,
        _ => (length - OPERATION.end).min(CHECKSUM_LEN),
    }
}

/// Sixteen bytes, of which the first ones are used.
fn checksum(key_hash: u64, length: usize, body: &[u8]) -> [u8; 16] {
    let seed = key_hash ^ (length as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    if checksum_len(length) <= CHECKSUM_LEN {
        let mut wide = [0; 16];
        wide[..8].copy_from_slice(&xxh3_64_with_seed(body, seed).to_le_bytes());
        wide
    } else {
        xxh3_128_with_seed(body, seed).to_le_bytes()
    }
}

fn hash_of(key: Key) -> u64 {
    xxh3_64_with_seed(&key.0.to_le_bytes(), KEY_HASH_SEED)
}

fn blame(key_hash: u64, value: &[u8]) -> WrongValue {
    if value.len() >= LENGTH_WITH_KEY_HASH {
        let found = u32::from_le_bytes(value[KEY_HASH].try_into().expect("four bytes"));
        if found != key_hash as u32 {
            return WrongValue::OtherKey { found };
        }
    }
    WrongValue::Damaged { length: value.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTHS: [u32; 17] =
        [1, 2, 7, 8, 9, 11, 12, 13, 15, 16, 19, 20, 21, 100, 4096, 65_536 + 24, (1 << 20) + 3];

    fn values() -> Values {
        Values::new(5, 0)
    }

    #[test]
    fn every_length_verifies() {
        for length in LENGTHS.into_iter().chain(0..64) {
            let value = values().fill(Key(9), 1234, length);
            assert_eq!(value.len(), length as usize);
            let expected = if length >= 12 { Verified::Written(1234) } else { Verified::Anonymous };
            assert_eq!(values().verify(Key(9), &value), Ok(expected), "length {length}");
        }
    }

    /// Longer than 8 bytes of checksum nothing may slip through; the shortest can't promise that.
    #[test]
    fn another_key_a_flipped_bit_or_a_cut_is_found() {
        for length in LENGTHS.into_iter().filter(|&length| length >= 7) {
            let value = values().fill(Key(9), 1234, length);
            assert!(values().verify(Key(10), &value).is_err(), "length {length}: another key");
            for at in [0, value.len() / 2, value.len() - 1] {
                let mut flipped = value.to_vec();
                flipped[at] ^= 0x10;
                assert!(values().verify(Key(9), &flipped).is_err(), "length {length}: flipped at {at}");
            }
            let cut = &value[..value.len() - 1];
            assert!(values().verify(Key(9), cut).is_err(), "length {length}: cut");
        }
    }

    #[test]
    fn the_other_key_is_named() {
        let value = values().fill(Key(9), 1, 100);
        let found = hash_of(Key(9)) as u32;
        assert_eq!(values().verify(Key(8), &value), Err(WrongValue::OtherKey { found }));
    }

    /// A run may write longer values than one before it did: what is left over from that one is sound.
    #[test]
    fn a_short_value_is_wrong_only_if_this_run_wrote_it() {
        let strict = Values::new(5, 100);
        for length in [12, 20, 99] {
            let earlier = Values::new(6, 0).fill(Key(1), 7, length);
            assert_eq!(strict.verify(Key(1), &earlier), Ok(Verified::OtherRun), "length {length}");
            let own = strict.fill(Key(1), 7, length);
            let length = length as usize;
            assert_eq!(strict.verify(Key(1), &own), Err(WrongValue::TooShort { length }));
            assert!(strict.verify(Key(1), &earlier[1..]).is_err(), "length {length}: cut, whoever wrote it");
        }
        for length in [0, 1, 11] {
            let nameless = Values::new(6, 0).fill(Key(1), 7, length);
            assert_eq!(strict.verify(Key(1), &nameless), Ok(Verified::OtherRun), "length {length}");
        }
    }

    #[test]
    fn other_runs_are_told_apart() {
        let value = Values::new(6, 0).fill(Key(3), 8, 40);
        assert_eq!(values().verify(Key(3), &value), Ok(Verified::OtherRun));
    }

    #[test]
    fn operations_differ_and_repeat() {
        let values = values();
        assert_ne!(values.fill(Key(1), 1, 64)[12..56], values.fill(Key(1), 2, 64)[12..56]);
        assert_eq!(values.fill(Key(1), 1, 64), values.fill(Key(1), 1, 64));
    }
}
