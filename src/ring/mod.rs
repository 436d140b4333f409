//! Who holds what: from the members to each partition's preference list.
//!
//! Consistent hashing with virtual nodes, after the third strategy of Dynamo's section 6.2: the token space is
//! cut into Q equal partitions for the life of the cluster, and what changes is only who holds them. A
//! partition ranks all nodes; the first N (spread over data centres, then racks, while there are others) are
//! its primaries, the rest its fallbacks in order. So what a dead node held falls to all others alike, and a
//! newcomer takes a little from each.
//!
//! [`Ring`] is a pure function of the members, Q and N. The same members give the same ring on every node and
//! every machine, to the bit, in whatever order they came: no leader, no history, nothing to agree on but
//! the list. [`Ring::hash`] tells two nodes in one word whether they speak of the same ring.
//!
//! Ranks come from weighted rendezvous hashing (`score`) times a price for each node (`price`) that evens the loads
//! to within 8% of the fair share (`fair`) at 30 nodes, and moves little that needn't move.
//!
//! The room never asks who is alive: suspicion doesn't change a ring. It doesn't hash keys either: server and
//! client share that, in the schema crate.

mod fair;
mod member;
mod placement;
mod plan;
mod price;
mod score;
#[cfg(test)]
mod tests;
mod token;

use std::fmt;

use xxhash_rust::xxh3::xxh3_64;

pub use member::{RingMember, WEIGHT_ORDINARY, Zone};
pub use plan::{Move, Plan};
pub use token::{InvalidPartitions, PARTITIONS_DEFAULT, PARTITIONS_MAX, Partitions, Token};

use crate::id::{NodeId, PartitionId};
use placement::Placement;
use score::Bid;

/// The most members of a ring. Their indices have 16 bits, and at the greatest Q this many fill half a gigabyte.
pub const MEMBERS_MAX: usize = 4096;

/// Goes into the hash: to be raised with any change that makes another ring of the same members.
const ALGORITHM_VERSION: u64 = 1;

/// Each partition's preference list.
#[derive(Clone)]
pub struct Ring {
    partitions: Partitions,
    /// The effective N: `replicas <= members.len()`.
    replicas: usize,
    /// In ascending order of their places.
    members: Vec<RingMember>,
    /// A row of `replicas` for each partition.
    primaries: Vec<NodeId>,
    /// A row of `members.len() - replicas` for each partition: indices of `members`, two bytes each, because with a
    /// thousand nodes there are a million of them.
    fallbacks: Vec<u16>,
    hash: u64,
}

/// All nodes in the order in which a partition prefers them.
#[derive(Clone, Copy, Debug)]
pub struct PreferenceList<'a> {
    /// The effective N nodes that own the partition, the most preferred first.
    pub primaries: &'a [NodeId],
    fallbacks: &'a [u16],
    members: &'a [RingMember],
}

impl Ring {
    /// The ring of these members, whatever their order. `replicas` is N, at least 1; with fewer members than
    /// that, each holds everything. Without members there is nobody to prefer, and all lists are empty.
    ///
    /// Panics if a node or a place comes twice or has no weight, or beyond [`MEMBERS_MAX`]: membership doesn't admit such.
    pub fn new(partitions: Partitions, replicas: u8, members: &[RingMember]) -> Self {
        assert!(replicas >= 1, "a key that is stored nowhere");
        assert!(members.len() <= MEMBERS_MAX, "{} members, at most {MEMBERS_MAX}", members.len());
        assert!(members.iter().all(|member| member.weight >= 1), "a member without weight");
        let mut members = members.to_vec();
        // In the order of their places, so that a ring in which one was replaced is the same ring.
        members.sort_unstable_by_key(|member| member.place);
        assert!(
            members.is_sorted_by(|left, right| left.place < right.place),
            "a member or a place comes twice"
        );

        let placement = Placement::new(partitions, usize::from(replicas), &members);
        let mut ring = Self {
            partitions,
            replicas: placement.replicas,
            primaries: Vec::with_capacity(partitions.count() as usize * placement.replicas),
            fallbacks: Vec::with_capacity(partitions.count() as usize * (members.len() - placement.replicas)),
            hash: fingerprint(partitions, replicas, &members),
            members,
        };
        if !ring.members.is_empty() {
            ring.rank(&placement);
        }
        ring
    }

    /// The partition that holds the keys at `token`.
    pub fn partition_of(&self, token: Token) -> PartitionId {
        self.partitions.of(token)
    }

    /// Whom to ask for the keys of `partition`, in order.
    pub fn preference_list(&self, partition: PartitionId) -> PreferenceList<'_> {
        PreferenceList {
            primaries: row(&self.primaries, partition, self.replicas),
            fallbacks: row(&self.fallbacks, partition, self.members.len() - self.replicas),
            members: &self.members,
        }
    }

    /// Whether `node` owns a copy of `partition`.
    pub fn is_primary(&self, node: NodeId, partition: PartitionId) -> bool {
        row(&self.primaries, partition, self.replicas).contains(&node)
    }

    /// The effective N: how many primaries each partition has, N or all members if they are fewer.
    pub fn replicas(&self) -> usize {
        self.replicas
    }

    /// Q, as a type that can number its partitions.
    pub fn partitions(&self) -> Partitions {
        self.partitions
    }

    /// In ascending order of their places.
    pub fn members(&self) -> &[RingMember] {
        &self.members
    }

    /// Equal for equal members, Q and N, and for nothing else (in 64 bits; it guards against stale views, not
    /// against an adversary).
    pub fn hash(&self) -> u64 {
        self.hash
    }

    fn rank(&mut self, placement: &Placement) {
        let nodes = self.members.len();
        let mut bids = bids(self.partitions, &self.members);
        let prices = price::even_out(placement, &fair::fair_shares(placement), &bids);
        let mut chosen = Vec::with_capacity(self.replicas);
        for bids in bids.chunks_exact_mut(nodes) {
            placement.choose(bids, &prices, &mut chosen);
            for bid in &mut *bids {
                *bid = prices.apply(*bid);
            }
            bids.sort_unstable();
            self.primaries.extend(chosen.iter().map(|bid| self.members[bid.node()].node));
            let rest = bids.iter().filter(|bid| !chosen.contains(bid));
            self.fallbacks.extend(rest.map(|bid| bid.node() as u16));
        }
        assert_eq!(self.primaries.len(), self.partitions.count() as usize * self.replicas);
        assert_eq!(self.fallbacks.len() + self.primaries.len(), self.partitions.count() as usize * nodes);
    }
}

impl<'a> PreferenceList<'a> {
    /// The nodes that stand in when primaries don't answer, the most preferred first.
    pub fn fallbacks(self) -> impl ExactSizeIterator<Item = NodeId> + Clone + 'a {
        self.fallbacks.iter().map(move |&index| self.members[usize::from(index)].node)
    }

    /// The primaries, then the fallbacks: every member once.
    pub fn iter(self) -> impl Iterator<Item = NodeId> + Clone + 'a {
        self.primaries.iter().copied().chain(self.fallbacks())
    }
}

/// Without the tables, which would fill pages.
impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("partitions", &self.partitions.count())
            .field("replicas", &self.replicas)
            .field("members", &self.members)
            .field("hash", &format_args!("{:016x}", self.hash))
            .finish_non_exhaustive()
    }
}

fn row<T>(table: &[T], partition: PartitionId, width: usize) -> &[T] {
    let start = partition.0 as usize * width;
    &table[start..start + width]
}

/// What each partition would cost on each node, before prices: a row for each partition, in ascending order.
fn bids(partitions: Partitions, members: &[RingMember]) -> Vec<Bid> {
    let mut bids = Vec::with_capacity(partitions.count() as usize * members.len());
    for partition in partitions.iter() {
        let start = bids.len();
        bids.extend(members.iter().enumerate().map(|(index, member)| {
            Bid::new(score::draw(member.place, partition) / f64::from(member.weight), index)
        }));
        bids[start..].sort_unstable();
    }
    bids
}

/// Over all that the ring is a function of. `members` in ascending order of their places.
fn fingerprint(partitions: Partitions, replicas: u8, members: &[RingMember]) -> u64 {
    let head = [ALGORITHM_VERSION, u64::from(partitions.count()), u64::from(replicas)];
    let each = members.iter().flat_map(|member| {
        [member.node.0, u64::from(member.weight), member.zone.data_center(), member.zone.rack()]
    });
    let replaced = members.iter().filter(|member| member.place != member.node);
    let each = each.chain(replaced.flat_map(|member| [member.node.0, member.place.0]));
    let bytes: Vec<u8> = head.into_iter().chain(each).flat_map(u64::to_le_bytes).collect();
    xxh3_64(&bytes)
}
