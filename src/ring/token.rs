//! Where a key lies, and which of the Q equal parts that is.

use thiserror::Error;

use crate::id::PartitionId;

/// Q of a new cluster unless told otherwise.
pub const PARTITIONS_DEFAULT: u32 = 1024;
/// The greatest Q: the ring's table has Q rows of two bytes a node.
pub const PARTITIONS_MAX: u32 = 1 << 16;

/// The position of a key in the 64-bit token space: the hash of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Token(pub u64);

/// Q: how many equal parts the token space is cut into. A power of two, fixed for the life of a cluster.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Partitions {
    /// `1 <= count <= PARTITIONS_MAX`, a power of two
    count: u32,
}

/// The number can't be a number of partitions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("{0} partitions: it must be a power of two from 1 to {PARTITIONS_MAX}")]
pub struct InvalidPartitions(pub u32);

impl Partitions {
    /// A power of two, at most [`PARTITIONS_MAX`].
    pub fn new(count: u32) -> Result<Self, InvalidPartitions> {
        let valid = count.is_power_of_two() && count <= PARTITIONS_MAX;
        if valid { Ok(Self { count }) } else { Err(InvalidPartitions(count)) }
    }

    /// Q itself.
    pub const fn count(self) -> u32 {
        self.count
    }

    /// The partition is the token's highest bits, so each is one unbroken range of tokens.
    pub fn of(self, token: Token) -> PartitionId {
        PartitionId(((u128::from(token.0) * u128::from(self.count)) >> 64) as u32)
    }

    /// All of them, in order.
    pub fn iter(self) -> impl ExactSizeIterator<Item = PartitionId> {
        (0..self.count).map(PartitionId)
    }
}

impl Default for Partitions {
    fn default() -> Self {
        Self { count: PARTITIONS_DEFAULT }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_the_highest_bits_of_the_token() {
        let all = Partitions::default();
        let of = |token| all.of(Token(token)).0;
        assert_eq!((of(0), of((1 << 54) - 1), of(1 << 54), of(u64::MAX)), (0, 0, 1, 1023));
        let one = Partitions::new(1).expect("one is a power of two");
        assert_eq!(one.of(Token(u64::MAX)), PartitionId(0));
    }

    #[test]
    fn only_powers_of_two_within_the_limit_are_numbers_of_partitions() {
        for valid in [1, 2, 1024, PARTITIONS_MAX] {
            assert_eq!(Partitions::new(valid).map(Partitions::count), Ok(valid));
        }
        for invalid in [0, 3, 1000, PARTITIONS_MAX * 2, u32::MAX] {
            assert_eq!(Partitions::new(invalid), Err(InvalidPartitions(invalid)));
        }
    }
}
