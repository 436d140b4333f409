//! Who is in the cluster and where.

use flatbuffers::{FlatBufferBuilder, Vector, WIPOffset};

use crate::encode::Encoder;
use crate::frame::{Flags, Frame, Kind};
use crate::generated::client as wire;
use crate::limits::MEMBERS_MAX;

use super::{Malformed, verified};

/// A list of small numbers (ports, or places), read from a frame or about to be written to one.
#[derive(Clone, Copy, Debug)]
pub enum Ports<'a> {
    /// About to be written.
    Slice(&'a [u16]),
    /// Read from a frame.
    Wire(Vector<'a, u16>),
}

impl Default for Ports<'_> {
    fn default() -> Self {
        Self::Slice(&[])
    }
}

impl<'a> Ports<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Slice(slice) => slice.len(),
            Self::Wire(vector) => vector.len(),
        }
    }

    /// None at all?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// In order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = u16> + use<'a> {
        let list = *self;
        (0..list.len()).map(move |place| match list {
            Self::Slice(slice) => slice[place],
            Self::Wire(vector) => vector.get(place),
        })
    }

    pub(crate) fn write<'b>(
        &self,
        builder: &mut FlatBufferBuilder<'b>,
    ) -> Option<WIPOffset<Vector<'b, u16>>> {
        match self {
            Self::Slice([]) => None,
            Self::Slice(slice) => Some(builder.create_vector(slice)),
            Self::Wire(vector) => Some(builder.create_vector_from_iter(vector.iter())),
        }
    }
}

pub(crate) fn ports(vector: Option<Vector<'_, u16>>) -> Ports<'_> {
    vector.map_or_else(Ports::default, Ports::Wire)
}

/// One member, as clients need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub node: u64,
    /// Its name.
    pub name: String,
    /// Where its ports are.
    pub host: String,
    /// The port that its shards share.
    pub ordinary_port: u16,
    /// Each shard's own port; empty while nobody has heard from this member.
    pub shard_ports: Vec<u16>,
    /// Capacity; 100 is ordinary.
    pub weight: u32,
    /// Its data centre; may be empty.
    pub data_center: String,
    /// Its rack; may be empty.
    pub rack: String,
}

/// Who holds what. Owned, because whoever asks keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// A hash: equal for equal topologies, and in no order. Never 0.
    pub epoch: u64,
    /// The cluster.
    pub cluster: u64,
    /// N in force: at most the number of members, at least 1.
    pub replicas: u8,
    /// Q.
    pub partitions: u32,
    /// In the order of their ids.
    pub members: Vec<Member>,
    /// Partition `p`'s primaries, as places in `members`, at `p * replicas .. (p + 1) * replicas`.
    pub primaries: Vec<u16>,
}

impl Topology {
    /// From a frame of kind `TOPOLOGY_IS`. Every place in `primaries` is one in `members`.
    pub fn parse(frame: &Frame<'_>) -> Result<Self, Malformed> {
        let wire = verified::<wire::Topology<'_>>(frame, "Topology", MEMBERS_MAX + 1)?;
        let members: Vec<Member> = wire.members().iter().flat_map(Vector::iter).map(read_member).collect();
        let topology = Self {
            epoch: wire.epoch(),
            cluster: wire.cluster(),
            replicas: wire.replicas(),
            partitions: wire.partitions(),
            primaries: wire.primaries().iter().flat_map(Vector::iter).collect(),
            members,
        };
        topology.check()?;
        Ok(topology)
    }

    fn check(&self) -> Result<(), Malformed> {
        if !self.partitions.is_power_of_two() || self.replicas == 0 {
            return Err(Malformed::Field("a topology without partitions or replicas"));
        }
        if self.primaries.len() as u64 != u64::from(self.partitions) * u64::from(self.replicas) {
            return Err(Malformed::Field("a topology whose partition map has holes"));
        }
        if self.primaries.iter().any(|&place| usize::from(place) >= self.members.len()) {
            return Err(Malformed::Field("a topology whose partition map names a member that isn't there"));
        }
        Ok(())
    }

    /// The primaries of a partition, the first choice first.
    pub fn primaries_of(&self, partition: u32) -> impl Iterator<Item = &Member> {
        let replicas = usize::from(self.replicas);
        let start = partition as usize * replicas;
        self.primaries[start..start + replicas].iter().map(|&place| &self.members[usize::from(place)])
    }

    /// Append as a frame.
    pub fn encode(&self, encoder: &mut Encoder, request_id: u64, out: &mut Vec<u8>) {
        encoder.frame(out, Kind::TOPOLOGY_IS, Flags::NONE, request_id, [], |builder| {
            let members: Vec<_> = self.members.iter().map(|member| write_member(builder, member)).collect();
            let members = Some(builder.create_vector(&members));
            let primaries = Some(builder.create_vector(&self.primaries));
            let arguments = wire::TopologyArgs {
                epoch: self.epoch,
                cluster: self.cluster,
                replicas: self.replicas,
                partitions: self.partitions,
                members,
                primaries,
            };
            wire::Topology::create(builder, &arguments)
        });
    }
}

fn read_member(member: wire::Member<'_>) -> Member {
    Member {
        node: member.node(),
        name: member.name().unwrap_or_default().to_owned(),
        host: member.host().unwrap_or_default().to_owned(),
        ordinary_port: member.ordinary_port(),
        shard_ports: ports(member.shard_ports()).iter().collect(),
        weight: member.weight(),
        data_center: member.data_center().unwrap_or_default().to_owned(),
        rack: member.rack().unwrap_or_default().to_owned(),
    }
}

fn write_member<'b>(builder: &mut FlatBufferBuilder<'b>, member: &Member) -> WIPOffset<wire::Member<'b>> {
    let arguments = wire::MemberArgs {
        node: member.node,
        name: Some(builder.create_string(&member.name)),
        host: Some(builder.create_string(&member.host)),
        ordinary_port: member.ordinary_port,
        shard_ports: Some(builder.create_vector(&member.shard_ports)),
        weight: member.weight,
        data_center: Some(builder.create_string(&member.data_center)),
        rack: Some(builder.create_string(&member.rack)),
    };
    wire::Member::create(builder, &arguments)
}
