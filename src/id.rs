//! Names of things. Newtypes, so that a shard can't be passed where a node is wanted.

use std::fmt;

/// A cluster: the hash of its name and of its initial members (DESIGN section 7, "Birth").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClusterId(pub u64);

/// A node: the hash of its cluster id and its name. The same name in the same cluster is the same node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub u64);

/// How many times a node has begun anew, as its peers remember it. Starts at 1; 0 is "not yet known".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Incarnation(pub u64);

/// A shard of one node: one thread, one core. `0 <= shard < shards of the node`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ShardId(pub u16);

/// One of the Q equal parts of the token space. `0 <= partition < Q`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PartitionId(pub u32);

/// A connection of one shard, as its shell numbers them; never reused within a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u64);

/// One write as its client names it: a retry carries the same name, so that it applies once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct OperationId {
    /// Drawn at random by each client at its start; 0 with sequence 0 means "not retried".
    pub client: u64,
    /// Counted by that client.
    pub sequence: u64,
}

impl OperationId {
    /// The write has no name: it can't be told from another, and isn't remembered.
    pub const NONE: Self = Self { client: 0, sequence: 0 };
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}
