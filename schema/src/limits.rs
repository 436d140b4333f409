//! Limits that both ends of a connection know.

/// Versions of the protocol that this crate speaks, first and last.
pub const PROTOCOL_MIN: u16 = 1;
/// The newest version of the protocol that this crate speaks.
pub const PROTOCOL_MAX: u16 = 1;

/// Bytes of a key: 1 to 64 KiB.
pub const KEY_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a value, unless the server is configured otherwise.
pub const VALUE_BYTES_MAX_DEFAULT: u32 = 8 * 1024 * 1024;

/// Bytes of a frame's flatbuffer.
pub const META_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of a frame before the handshake is over, so that strangers can't make a server hold much.
pub const HANDSHAKE_BYTES_MAX: usize = 4 * 1024;

/// Items of one multi-get or multi-put.
pub const MULTI_ITEMS_MAX: usize = 1024;

/// Members of one cluster, as a topology or gossip frame can carry them.
pub const MEMBERS_MAX: usize = 4096;

/// The greatest weight that an operator may give a member; the least is 1, and 100 is ordinary.
pub const WEIGHT_MAX: u32 = 10_000;

/// Bytes after the header of a request, for a given limit on values: two of the largest values, and the
/// metadata.
pub const fn request_bytes_max(value_bytes_max: u32) -> usize {
    2 * value_bytes_max as usize + META_BYTES_MAX
}

/// Bytes after the header of an answer or of a frame between peers. A coordinator refuses to let a key grow
/// past two of the largest values; three coordinators that do so at the same time make six, which merge.
pub const fn state_bytes_max(value_bytes_max: u32) -> usize {
    8 * value_bytes_max as usize + META_BYTES_MAX
}

/// Children of a node of a hash tree: the root has so many branches, and a branch so many leaves.
pub const TREE_FAN_OUT: usize = 32;

/// Partitions whose roots one frame asks for.
pub const TREE_PARTITIONS_MAX: usize = 1024;

/// Tokens with their hashes that one frame lists.
pub const EXCHANGE_KEYS_MAX: usize = 1024;

/// Tokens whose states one frame asks for.
pub const PULL_TOKENS_MAX: usize = 64;

/// Keys that one round of reaping is about: a bit of 128 each.
pub const REAPED_KEYS_MAX: usize = 128;

/// Rounds by which a shard may be bound at once, of one partition.
pub const ROUNDS_BOUND_MAX: usize = 4;
/// Partitions of which a node is asked at once what it knows of their epochs.
pub const WORDS_MAX: usize = 256;
