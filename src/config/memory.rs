//! The least limit on memory that leaves a node room to work.
//!
//! A shard takes much before it holds anything, and more as the cluster is used, that no putting out of keys gives back: buffers,
//! rings to the other shards, hash trees, names of writes. That may be half of its part at most; the rest is for keys. The rooms
//! that take it are not to be seen from here: a test of the shell holds these numbers against what a shard counts
//! (`src/shell/node.rs`).

const KIB: u64 = 1 << 10;

/// The pool that a shard receives into, with its entries.
const POOL_BYTES: u64 = 4100 * KIB;
/// What it keeps of its last output for the next.
const OUTPUT_BYTES: u64 = 1088 * KIB;
/// Timers, lists that have a least size, names of the fewest writes that are remembered.
const TABLES_BYTES: u64 = 512 * KIB;
/// With a log: what a group is written from and a slot filled with, the manifest, and the buffers of what is read again.
pub const LOG_BYTES: u64 = 4 * KIB * KIB;
/// Its inbox from another shard of the node, and what it remembers of those that it sends there.
const SIBLING_BYTES: u64 = 116 * KIB;
/// A partition's places in the lists, whoever has it.
const PARTITION_BYTES: u64 = 48;
/// The hash tree of a partition that a shard has, with all its leaves.
const TREE_BYTES: u64 = 33 * 256;
/// Of a shard's part, one in so many is for names of writes, at most.
const NAMES_SHARE: u64 = 40;
/// So many of the largest values may be on their way, in the half beside the keys.
const VALUES: u64 = 4;
/// The result is in whole units of this.
const UNIT: u64 = KIB * KIB;

/// What a node of so many shards needs, with a log or without, in a cluster of so many partitions, all of which it may come to hold.
/// In bytes. What of a log waits to be written, and where its records lie, counts against the half for keys.
pub const fn memory_least(shards: u16, partitions: u32, value_bytes_max: u32, is_durable: bool) -> u64 {
    let (shards, partitions) = (shards as u64, partitions as u64);
    let siblings = SIBLING_BYTES * shards.saturating_sub(1);
    let ring = PARTITION_BYTES * partitions + TREE_BYTES * partitions.div_ceil(shards);
    let values = VALUES * value_bytes_max as u64;
    let log = if is_durable { LOG_BYTES } else { 0 };
    let fixed = log + POOL_BYTES + OUTPUT_BYTES + TABLES_BYTES + siblings + ring + values;
    // Half of the part is for all of this and the names.
    let part = (fixed * NAMES_SHARE).div_ceil(NAMES_SHARE / 2 - 1);
    (part * shards).next_multiple_of(UNIT)
}
