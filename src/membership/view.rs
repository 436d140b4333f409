//! What the shards of a node need to know of the cluster: one value, shared, never changed.

use std::sync::Arc;

use ringmain_schema::message::{Member as WireMember, Topology};
use xxhash_rust::xxh3::Xxh3;

use crate::id::{ClusterId, Incarnation, NodeId, PartitionId};
use crate::ring::Ring;

use super::zones::{Distance, Zones};
use super::{Intent, Member, PartitionSet, Step, Trouble, Works};

/// The ring that the operator wants, on the way to it.
#[derive(Clone, Debug)]
pub struct Change {
    /// The ring to be.
    pub next: Arc<Ring>,
    /// A read needs R among its owners too, not only among those of the ring in force.
    pub is_read: bool,
    /// All members write to both: what is streamed from now on will be all that there was before.
    pub is_known: bool,
}

/// The ring that was in force before the last change.
#[derive(Clone, Debug)]
pub struct Former {
    /// Who owned what.
    pub ring: Arc<Ring>,
    /// Partitions that this node was complete for.
    pub held: Arc<PartitionSet>,
}

/// Who is in the cluster, as one node sees it.
#[derive(Debug)]
pub struct View {
    /// The cluster.
    pub cluster: ClusterId,
    /// Whose view this is.
    pub me: NodeId,
    /// In the order of their ids; includes oneself.
    pub members: Vec<Member>,
    /// The ring in force. Empty of members until somebody holds partitions.
    pub ring: Arc<Ring>,
    /// While the ring changes: what it changes to, and how far that has come.
    pub change: Option<Change>,
    /// The ring that was in force before, while some members may still work by it.
    pub former: Option<Former>,
    /// What this node states when all of its shards work by this view.
    pub works: Works,
    /// Why this node doesn't serve, if it isn't just waiting for others.
    pub trouble: Option<Trouble>,
    /// A hash of what clients see: equal for equal topologies, and in no order. Never 0.
    pub epoch: u64,
    zones: Zones,
}

impl View {
    /// Of these members, sorted by id; `me` is one of them.
    pub fn new(cluster: ClusterId, me: NodeId, members: Vec<Member>, ring: Arc<Ring>) -> Self {
        debug_assert!(members.is_sorted_by(|left, right| left.node < right.node));
        let epoch = epoch(&members, &ring);
        let zones = Zones::new(&members, &ring);
        Self {
            cluster,
            me,
            members,
            ring,
            change: None,
            former: None,
            works: Works::default(),
            trouble: None,
            epoch,
            zones,
        }
    }

    /// The same, with a change of the ring, if there is one.
    pub fn with_change(self, works: Works, change: Option<Change>, former: Option<Former>) -> Self {
        Self { works, change, former, ..self }
    }

    /// The same, with what keeps the node from serving.
    pub fn with_trouble(self, trouble: Option<Trouble>) -> Self {
        Self { trouble, ..self }
    }

    /// Another process has taken this node's name over: this one has nothing to say to anybody any more.
    pub const fn is_fenced(&self) -> bool {
        matches!(self.trouble, Some(Trouble::Fenced { .. }))
    }

    /// Why requests are not answered now.
    pub fn why_not_serving(&self) -> String {
        self.trouble.as_ref().map_or_else(
            || "this node has not met the others yet, and does not serve: retry, or ask another".to_owned(),
            ToString::to_string,
        )
    }

    /// Has this node all that was ever acknowledged to it of this partition?
    pub fn is_complete_for(&self, partition: PartitionId) -> bool {
        if !self.owns(partition) {
            return self.owned(partition)
                && self.former.as_ref().is_some_and(|former| former.held.contains(partition));
        }
        self.myself().oneself.is_complete_for(partition)
    }

    /// Do all members work by the ring in force, and by none that was before?
    pub fn is_known_to_all(&self) -> bool {
        let hash = self.ring.hash();
        let mut members = self.members.iter().filter(|member| !member.is_removed());
        self.former.is_none() && members.all(|member| member.oneself.works.ring == hash)
    }

    /// Has this member handed over all that it had, and everybody all that they were to get? It takes no more requests
    /// then, so that it is asked nothing when it is removed.
    pub fn is_going(&self, node: NodeId) -> bool {
        if self.change.is_none() || self.works.step == Step::Writing {
            return false;
        }
        let leaver = self.member(node).filter(|member| member.intent == Intent::Leaving);
        leaver.is_some_and(|leaver| {
            // Who has come to read by the change is on its way out, even if a member has to begin anew since.
            let works = if node == self.me { self.works } else { leaver.oneself.works };
            works.is_of(self.works) && works.step == Step::Reading || self.are_all_whole()
        })
    }

    /// Has everybody come to this step of the change, or on?
    fn are_all_whole(&self) -> bool {
        let mut members = self.members.iter().filter(|member| !member.is_removed());
        members.all(|member| {
            let works = member.oneself.works;
            works.is_of(self.works) && works.step != Step::Writing
        })
    }

    /// A member's record.
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.place(node).map(|at| &self.members[at])
    }

    fn place(&self, node: NodeId) -> Option<usize> {
        self.members.binary_search_by_key(&node, |member| member.node).ok()
    }

    /// Equal for nodes that may fail together: of one data centre if the ring has members in several, else of one
    /// rack. 0 for a node that isn't known.
    pub fn zone(&self, node: NodeId) -> u64 {
        self.place(node).map_or(0, |at| self.zones.zone(at))
    }

    /// How far a node is from this one.
    pub fn distance(&self, node: NodeId) -> Distance {
        let both = self.place(self.me).zip(self.place(node));
        both.map_or(Distance::Elsewhere, |(me, other)| self.zones.distance(me, other))
    }

    /// One's own record.
    pub fn myself(&self) -> &Member {
        self.member(self.me).expect("a node is in its own view")
    }

    /// May requests about keys be answered?
    pub fn is_serving(&self) -> bool {
        self.myself().oneself.serving
    }

    /// One's own incarnation; 0 if not known yet.
    pub fn incarnation(&self) -> Incarnation {
        self.myself().oneself.incarnation
    }

    /// The nodes that own a partition, the first choice first.
    pub fn primaries(&self, partition: PartitionId) -> &[NodeId] {
        self.ring.preference_list(partition).primaries
    }

    /// The nodes that will own a partition when the ring has changed: a write needs W among them too. The same as the
    /// primaries while nothing changes.
    pub fn successors(&self, partition: PartitionId) -> &[NodeId] {
        self.change.as_ref().map_or_else(
            || self.primaries(partition),
            |change| change.next.preference_list(partition).primaries,
        )
    }

    /// Does this node own the partition, now or when the ring has changed?
    pub fn owns(&self, partition: PartitionId) -> bool {
        self.primaries(partition).contains(&self.me) || self.successors(partition).contains(&self.me)
    }

    /// Did this node own the partition until a change that some members may not have heard of? Then it answers them as
    /// before: they ask the new owners too.
    pub fn owned(&self, partition: PartitionId) -> bool {
        self.former.as_ref().is_some_and(|former| former.ring.is_primary(self.me, partition))
    }

    /// For clients.
    pub fn topology(&self) -> Topology {
        let place = |node: &NodeId| {
            self.members.binary_search_by_key(node, |member| member.node).expect("the ring is of the members")
                as u16
        };
        let partitions = self.ring.partitions();
        let primaries = partitions.iter().flat_map(|partition| self.primaries(partition).iter().map(place));
        Topology {
            epoch: self.epoch,
            cluster: self.cluster.0,
            replicas: self.ring.replicas() as u8,
            partitions: partitions.count(),
            primaries: primaries.collect(),
            members: self.members.iter().map(wire_member).collect(),
        }
    }
}

fn wire_member(member: &Member) -> WireMember {
    WireMember {
        node: member.node.0,
        name: member.name.to_string(),
        host: member.oneself.host.to_string(),
        ordinary_port: member.oneself.ordinary_port,
        shard_ports: member.oneself.shard_ports.to_vec(),
        weight: member.weight,
        data_center: member.data_center.to_string(),
        rack: member.rack.to_string(),
    }
}

fn epoch(members: &[Member], ring: &Ring) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(&ring.hash().to_le_bytes());
    for member in members {
        hasher.update(&member.node.0.to_le_bytes());
        hasher.update(&(member.oneself.host.len() as u64).to_le_bytes());
        hasher.update(member.oneself.host.as_bytes());
        hasher.update(&member.oneself.ordinary_port.to_le_bytes());
        hasher.update(&(member.oneself.shard_ports.len() as u64).to_le_bytes());
        for port in member.oneself.shard_ports.iter() {
            hasher.update(&port.to_le_bytes());
        }
    }
    hasher.digest().max(1)
}
