//! What makes a checksum one of this log, this segment and this place.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::failpoint::{Bug, Failpoints};
use crate::id::{ClusterId, NodeId, ShardId};

use super::SegmentId;

/// Whose log it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Of this cluster.
    pub cluster: ClusterId,
    /// Of this node.
    pub node: NodeId,
    /// Of this shard, as it was numbered when the log was created.
    pub shard: ShardId,
    /// By which its shell knows the directory again, such as a hash of the numbers of its file system and inode: a
    /// copy of the directory has another.
    pub home: u64,
}

/// The seed of the checksums of one segment. It is made of the log's secret too, which no client knows: so no value can
/// hold bytes that recovery would take for a record.
#[derive(Clone, Debug)]
pub(super) struct Stamp<F> {
    seed: u64,
    failpoints: F,
}

impl<F: Failpoints> Stamp<F> {
    pub(super) fn new(identity: &Identity, secret: u64, segment: SegmentId, failpoints: F) -> Self {
        let mut bytes = [0; 26];
        bytes[..8].copy_from_slice(&identity.cluster.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&identity.node.0.to_le_bytes());
        bytes[16..18].copy_from_slice(&identity.shard.0.to_le_bytes());
        if !failpoints.planted(Bug::NoGenerationInChecksum) {
            bytes[18..].copy_from_slice(&segment.0.to_le_bytes());
        }
        Self { seed: xxh3_64_with_seed(&bytes, secret), failpoints }
    }

    /// The checksum of bytes that belong to what stands at `at` in the segment.
    pub(super) fn check(&self, at: usize, bytes: &[u8]) -> u64 {
        let place = if self.failpoints.planted(Bug::MisdirectedTrusted) { 0 } else { at as u64 };
        xxh3_64_with_seed(bytes, self.seed.wrapping_add(place))
    }
}
