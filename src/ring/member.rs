//! What the ring knows of a node: its name, how much it takes, and what it may lose together with others.

use xxhash_rust::xxh3::xxh3_64;

use crate::id::NodeId;

/// The weight of an ordinary node; another's is in proportion.
pub const WEIGHT_ORDINARY: u32 = 100;

/// A node as the ring sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RingMember {
    /// Its name.
    pub node: NodeId,
    /// Its capacity: its share of the load is in proportion. `weight >= 1`; see [`WEIGHT_ORDINARY`].
    pub weight: u32,
    /// Where it stands.
    pub zone: Zone,
    /// Whose place it has taken: partitions prefer it as they preferred that node. Usually its own.
    pub place: NodeId,
}

impl RingMember {
    /// A node in a place of its own.
    pub const fn new(node: NodeId, weight: u32, zone: Zone) -> Self {
        Self { node, weight, zone, place: node }
    }
}

/// Where a node stands: two nodes of one rack, or of one data centre, may fail together. Holds the hashes of the
/// names; nodes that name none stand together in one nameless place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Zone {
    data_center: u64,
    /// Covers the data centre's name too, so that "rack 1" here and there are two.
    rack: u64,
}

impl Zone {
    /// From the operator's names; an empty one is a name like another.
    pub fn new(data_center: &str, rack: &str) -> Self {
        let place = xxh3_64(data_center.as_bytes());
        Self { data_center: place, rack: xxh3_64(rack.as_bytes()) ^ place.rotate_left(32) }
    }

    /// The same for all racks of one data centre.
    pub fn data_center(self) -> u64 {
        self.data_center
    }

    /// The same for all nodes of one rack of one data centre.
    pub fn rack(self) -> u64 {
        self.rack
    }
}
