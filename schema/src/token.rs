//! From a key to its place on the ring. Every client and every server must agree on this.

use xxhash_rust::xxh3::xxh3_64;

/// A key's position in the 64-bit token space: XXH3-64 of its bytes, seed 0.
pub fn token(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// The partition that a token lies in: its top log2(Q) bits.
///
/// `partitions` is Q, a power of two.
pub fn partition(token: u64, partitions: u32) -> u32 {
    debug_assert!(partitions.is_power_of_two(), "Q is a power of two");
    if partitions == 1 {
        return 0;
    }
    (token >> (u64::BITS - partitions.trailing_zeros())) as u32
}

/// The shard of a node that holds a partition.
pub fn shard_of(partition: u32, shards: u16) -> u16 {
    debug_assert!(shards > 0, "a node has at least one shard");
    (partition % u32::from(shards)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers, so that no change of library moves every key of every cluster.
    #[test]
    fn tokens_never_change() {
        assert_eq!(token(b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(token(b"cart:42"), 0x0ff9_1598_ee1a_4dbc);
        assert_eq!(partition(0, 1024), 0);
        assert_eq!(partition(u64::MAX, 1024), 1023);
        assert_eq!(partition(1 << 54, 1024), 1);
        assert_eq!(partition(u64::MAX, 1), 0);
    }
}
