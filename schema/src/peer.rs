//! Borrowed views of the frames between nodes. All of them carry a checksum.

use flatbuffers::{FlatBufferBuilder, Vector, WIPOffset};

use crate::encode::Encoder;
use crate::frame::{Flags, Frame, Kind};
use crate::generated::peer as wire;
use crate::limits::MEMBERS_MAX;
use crate::message::{Malformed, Ports, bytes, ports, verified};

pub use wire::{Operation, Seen, Version};

/// The state of a key as a frame carries it: how far each actor has been seen, and the live versions with
/// their values. Whether it makes sense as a dotted version vector set is for its reader.
#[derive(Clone, Copy, Debug, Default)]
pub struct WireState<'a> {
    clock: Option<Vector<'a, Seen>>,
    versions: Option<Vector<'a, Version>>,
    values: &'a [u8],
}

impl<'a> WireState<'a> {
    fn new(
        clock: Option<Vector<'a, Seen>>,
        versions: Option<Vector<'a, Version>>,
        values: &'a [u8],
    ) -> Result<Self, Malformed> {
        let lengths = versions.iter().flat_map(Vector::iter).map(|version| u64::from(version.length()));
        let claimed = lengths.sum();
        if claimed != values.len() as u64 {
            return Err(Malformed::Values { claimed, actual: values.len() });
        }
        Ok(Self { clock, versions, values })
    }

    /// The clock, in the order of the wire.
    pub fn clock(&self) -> impl Iterator<Item = &'a Seen> + use<'a> {
        self.clock.into_iter().flat_map(|clock| clock.iter())
    }

    /// The versions, each with its value, in the order of the wire.
    pub fn versions(&self) -> impl Iterator<Item = (&'a Version, &'a [u8])> + use<'a> {
        let mut rest = self.values;
        self.versions.into_iter().flat_map(|versions| versions.iter()).map(move |version| {
            let (value, after) = rest.split_at(version.length() as usize);
            rest = after;
            (version, value)
        })
    }
}

/// The same, about to be written: structs in the wire's own form, and the values in the versions' order.
#[derive(Debug, Default)]
pub struct StateWriter<'a> {
    /// Sorted by (id, epoch).
    pub clock: Vec<Seen>,
    /// Sorted by dot; `length` is that of the value at the same place.
    pub versions: Vec<Version>,
    /// One for each version, empty for a tombstone.
    pub values: Vec<&'a [u8]>,
}

type Offsets<'b> = (Option<WIPOffset<Vector<'b, Seen>>>, Option<WIPOffset<Vector<'b, Version>>>);

impl StateWriter<'_> {
    fn write<'b>(&self, builder: &mut FlatBufferBuilder<'b>) -> Offsets<'b> {
        debug_assert_eq!(self.versions.len(), self.values.len());
        let clock = (!self.clock.is_empty()).then(|| builder.create_vector(&self.clock));
        let versions = (!self.versions.is_empty()).then(|| builder.create_vector(&self.versions));
        (clock, versions)
    }
}

/// Take this state of a key.
#[derive(Clone, Copy, Debug)]
pub struct Replicate<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Its whole state.
    pub state: WireState<'a>,
    /// The hash of the sender's ring.
    pub ring: u64,
    /// The epoch of the key's partition at the sender.
    pub partition_epoch: u64,
    /// From read repair: nobody waits for the answer.
    pub repair: bool,
    /// The node for which the receiver is to keep this; 0 if it is for the receiver's own copy.
    pub hint_for: u64,
    /// From anti-entropy.
    pub exchange: bool,
    replaced: Option<Vector<'a, Operation>>,
}

impl<'a> Replicate<'a> {
    /// From a frame of kind `REPLICATE`.
    pub fn parse(frame: &Frame<'a>) -> Result<Self, Malformed> {
        let wire = verified::<wire::Replicate<'a>>(frame, "Replicate", 1)?;
        Ok(Self {
            key: bytes(wire.key()),
            state: WireState::new(wire.clock(), wire.versions(), frame.values)?,
            ring: wire.ring(),
            partition_epoch: wire.partition_epoch(),
            repair: wire.repair(),
            hint_for: wire.hint_for(),
            exchange: wire.exchange(),
            replaced: wire.replaced(),
        })
    }

    /// Writes that this one has just replaced: a retry of theirs must not bring them back.
    pub fn replaced(&self) -> impl Iterator<Item = &'a Operation> + use<'a> {
        self.replaced.into_iter().flat_map(|replaced| replaced.iter())
    }
}

/// The same, about to be written.
#[derive(Debug, Default)]
pub struct ReplicateWriter<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Its whole state.
    pub state: StateWriter<'a>,
    /// The hash of the sender's ring.
    pub ring: u64,
    /// The epoch of the key's partition at the sender.
    pub partition_epoch: u64,
    /// From read repair: nobody waits for the answer.
    pub repair: bool,
    /// Writes that this one has just replaced.
    pub replaced: &'a [Operation],
    /// The node for which the receiver is to keep this; 0 if it is for the receiver's own copy.
    pub hint_for: u64,
    /// From anti-entropy.
    pub exchange: bool,
}

impl ReplicateWriter<'_> {
    /// Append as a frame of kind `REPLICATE`.
    pub fn encode(&self, encoder: &mut Encoder, request_id: u64, out: &mut Vec<u8>) {
        let values = self.state.values.iter().copied();
        encoder.frame(out, Kind::REPLICATE, Flags::CHECKSUM, request_id, values, |builder| {
            let (clock, versions) = self.state.write(builder);
            let replaced = (!self.replaced.is_empty()).then(|| builder.create_vector(self.replaced));
            let arguments = wire::ReplicateArgs {
                key: Some(builder.create_vector(self.key)),
                clock,
                versions,
                ring: self.ring,
                partition_epoch: self.partition_epoch,
                repair: self.repair,
                replaced,
                hint_for: self.hint_for,
                exchange: self.exchange,
            };
            wire::Replicate::create(builder, &arguments)
        });
    }
}

/// The state is merged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Replicated {
    /// On this node's stable storage; in `memory` mode, in its memory.
    pub durable: bool,
}

impl Replicated {
    /// From a frame of kind `REPLICATED`.
    pub fn parse(frame: &Frame<'_>) -> Result<Self, Malformed> {
        let wire = verified::<wire::Replicated<'_>>(frame, "Replicated", 1)?;
        Ok(Self { durable: wire.durable() })
    }

    /// Append as a frame.
    pub fn encode(&self, encoder: &mut Encoder, request_id: u64, out: &mut Vec<u8>) {
        encoder.frame(out, Kind::REPLICATED, Flags::CHECKSUM, request_id, [], |builder| {
            wire::Replicated::create(builder, &wire::ReplicatedArgs { durable: self.durable })
        });
    }
}

/// Tell me your state of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadState<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The hash of the sender's ring.
    pub ring: u64,
    /// The epoch of the key's partition at the sender.
    pub partition_epoch: u64,
}

impl<'a> ReadState<'a> {
    /// From a frame of kind `READ_STATE`.
    pub fn parse(frame: &Frame<'a>) -> Result<Self, Malformed> {
        let wire = verified::<wire::ReadState<'a>>(frame, "ReadState", 1)?;
        Ok(Self { key: bytes(wire.key()), ring: wire.ring(), partition_epoch: wire.partition_epoch() })
    }

    /// Append as a frame.
    pub fn encode(&self, encoder: &mut Encoder, request_id: u64, out: &mut Vec<u8>) {
        encoder.frame(out, Kind::READ_STATE, Flags::CHECKSUM, request_id, [], |builder| {
            let key = Some(builder.create_vector(self.key));
            let arguments =
                wire::ReadStateArgs { key, ring: self.ring, partition_epoch: self.partition_epoch };
            wire::ReadState::create(builder, &arguments)
        });
    }
}

/// A replica's state of a key; empty if it has none.
#[derive(Clone, Copy, Debug)]
pub struct State<'a> {
    /// The state.
    pub state: WireState<'a>,
    /// Does its silence about a key mean that nothing was acknowledged to it?
    pub complete: bool,
    /// The epoch of the key's partition at the sender.
    pub partition_epoch: u64,
}

impl<'a> State<'a> {
    /// From a frame of kind `STATE`.
    pub fn parse(frame: &Frame<'a>) -> Result<Self, Malformed> {
        let wire = verified::<wire::State<'a>>(frame, "State", 1)?;
        let state = WireState::new(wire.clock(), wire.versions(), frame.values)?;
        Ok(Self { state, complete: wire.complete(), partition_epoch: wire.partition_epoch() })
    }

    /// Append as a frame.
    pub fn encode(
        encoder: &mut Encoder,
        request_id: u64,
        state: &StateWriter<'_>,
        complete: bool,
        partition_epoch: u64,
        out: &mut Vec<u8>,
    ) {
        encoder.frame(
            out,
            Kind::STATE,
            Flags::CHECKSUM,
            request_id,
            state.values.iter().copied(),
            |builder| {
                let (clock, versions) = state.write(builder);
                let arguments = wire::StateArgs { clock, versions, complete, partition_epoch };
                wire::State::create(builder, &arguments)
            },
        );
    }
}

/// A client's request passed on; its answer comes back under this frame's request id.
#[derive(Clone, Copy, Debug)]
pub struct Forward<'a> {
    /// How often it was passed on between nodes, this time included.
    pub hops: u8,
    /// What is left of its deadline, in microseconds.
    pub budget_us: u32,
    /// The request.
    pub frame: Frame<'a>,
}

impl<'a> Forward<'a> {
    /// From a frame of kind `FORWARD`.
    pub fn parse(frame: &Frame<'a>) -> Result<Self, Malformed> {
        let wire = verified::<wire::Forward<'a>>(frame, "Forward", 1)?;
        match Frame::split(frame.values, frame.values.len()) {
            Ok(Some(inner)) if inner.length() == frame.values.len() => {
                Ok(Self { hops: wire.hops(), budget_us: wire.budget_us(), frame: inner })
            }
            _ => Err(Malformed::Field("a forward that doesn't hold exactly one frame")),
        }
    }

    /// Append as a frame around `inner`, which is one whole frame.
    pub fn encode(
        encoder: &mut Encoder,
        request_id: u64,
        hops: u8,
        budget_us: u32,
        inner: &[u8],
        out: &mut Vec<u8>,
    ) {
        encoder.frame(out, Kind::FORWARD, Flags::CHECKSUM, request_id, [inner], |builder| {
            wire::Forward::create(builder, &wire::ForwardArgs { hops, budget_us })
        });
    }
}

/// What a node knows of a member. Owned, because the receiver keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRecord {
    /// Its id.
    pub node: u64,
    /// Its name.
    pub name: String,
    /// Where its ports are.
    pub host: String,
    /// The port that its shards share.
    pub ordinary_port: u16,
    /// Each shard's own.
    pub shard_ports: Vec<u16>,
    /// Counted up by the member itself.
    pub incarnation: u64,
    /// Counted up by the member itself within an incarnation.
    pub heartbeat: u64,
    /// Capacity; 100 is ordinary.
    pub weight: u32,
    /// Its data centre; may be empty.
    pub data_center: String,
    /// Its rack; may be empty.
    pub rack: String,
    /// What the operator wants of it: 1 member, 2 leaving, 3 removed, 4 guest.
    pub intent: u8,
    /// Of the operator's word, apart from the member's own incarnation.
    pub intent_version: u64,
    /// Its replicas hold all that was ever acknowledged to them.
    pub complete: bool,
    /// It answers requests about keys.
    pub serving: bool,
    /// Whose place in the ring it takes; 0 for its own.
    pub place: u64,
    /// What is in force of it; `None` from a version that doesn't say.
    pub settled: Option<SettledRecord>,
    /// The ring in force that it works by.
    pub ring: u64,
    /// The change under way that it works by; `ring` if there is none.
    pub change: u64,
    /// How far that has come: 0 writing, 1 whole, 2 reading.
    pub step: u8,
    /// A bit for each partition that it owns and isn't complete for.
    pub lacking: Vec<u64>,
    /// Drawn anew by each process that starts under its name; 0 from a version that doesn't say.
    pub life: u64,
    /// The life that this one has heard of and taken over from; 0 for none.
    pub succeeds: u64,
    /// The latest life that was heard of and is neither this one nor the one that it succeeds.
    pub earlier: Option<Life>,
    /// In logs alone: what the change that the node reads by will make of it.
    pub bound: Option<SettledRecord>,
    /// In the node's own log alone: the lives that its records have gone through, the oldest first.
    pub line: Vec<Life>,
    /// Another one, and greater, each time that it has lost its records; 0 if it doesn't reap.
    pub beginning: u64,
}

/// A process under a node's name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Life {
    /// Which of its node's.
    pub incarnation: u64,
    /// What it had drawn.
    pub life: u64,
}

/// What the ring makes of a member, as the last finished change left it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SettledRecord {
    /// The operator's word that it comes from.
    pub version: u64,
    /// Does it hold a share?
    pub in_ring: bool,
    /// Capacity; 100 is ordinary.
    pub weight: u32,
    /// Its data centre; may be empty.
    pub data_center: String,
    /// Its rack; may be empty.
    pub rack: String,
    /// Whose place it takes; 0 for its own.
    pub place: u64,
}

/// Member records, sent once a second to one random member, and sent back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gossip {
    /// The hash of the sender's ring.
    pub ring: u64,
    /// In the order of their ids.
    pub members: Vec<MemberRecord>,
    /// Q, as the cluster was founded with it; 0 if the sender doesn't say.
    pub partitions: u32,
    /// N, likewise.
    pub replicas: u8,
}

impl Gossip {
    /// From a frame of kind `GOSSIP` or `GOSSIPED`.
    pub fn parse(frame: &Frame<'_>) -> Result<Self, Malformed> {
        let tables_max = 3 * MEMBERS_MAX + 1;
        let gossip = verified::<wire::Gossip<'_>>(frame, "Gossip", tables_max)?;
        let members = gossip.members();
        Ok(Self {
            ring: gossip.ring(),
            members: members.iter().flat_map(Vector::iter).map(read_record).collect(),
            partitions: gossip.partitions(),
            replicas: gossip.replicas(),
        })
    }

    /// Append as a frame of kind `GOSSIP` or `GOSSIPED`.
    pub fn encode(&self, encoder: &mut Encoder, kind: Kind, request_id: u64, out: &mut Vec<u8>) {
        debug_assert!(kind == Kind::GOSSIP || kind == Kind::GOSSIPED);
        encoder.frame(out, kind, Flags::CHECKSUM, request_id, [], |builder| {
            let members: Vec<_> = self.members.iter().map(|member| write_record(builder, member)).collect();
            let members = Some(builder.create_vector(&members));
            let (partitions, replicas) = (self.partitions, self.replicas);
            let arguments = wire::GossipArgs { ring: self.ring, members, partitions, replicas };
            wire::Gossip::create(builder, &arguments)
        });
    }
}

fn read_record(member: wire::MemberRecord<'_>) -> MemberRecord {
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    MemberRecord {
        node: member.node(),
        name: text(member.name()),
        host: text(member.host()),
        ordinary_port: member.ordinary_port(),
        shard_ports: ports(member.shard_ports()).iter().collect(),
        incarnation: member.incarnation(),
        heartbeat: member.heartbeat(),
        weight: member.weight(),
        data_center: text(member.data_center()),
        rack: text(member.rack()),
        intent: member.intent(),
        intent_version: member.intent_version(),
        complete: member.complete(),
        serving: member.serving(),
        place: member.place(),
        settled: member.settled().map(read_settled),
        ring: member.ring(),
        change: member.change(),
        step: member.step(),
        lacking: member.lacking().map(|words| words.iter().collect()).unwrap_or_default(),
        life: member.life(),
        succeeds: member.succeeds(),
        earlier: member.earlier().map(read_life),
        bound: member.bound().map(read_settled),
        line: member.line().map(|line| line.iter().map(read_life).collect()).unwrap_or_default(),
        beginning: member.beginning(),
    }
}

fn read_life(life: &wire::Life) -> Life {
    Life { incarnation: life.incarnation(), life: life.life() }
}

fn read_settled(settled: wire::Settled<'_>) -> SettledRecord {
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    SettledRecord {
        version: settled.version(),
        in_ring: settled.in_ring(),
        weight: settled.weight(),
        data_center: text(settled.data_center()),
        rack: text(settled.rack()),
        place: settled.place(),
    }
}

fn write_record<'b>(
    builder: &mut FlatBufferBuilder<'b>,
    member: &MemberRecord,
) -> WIPOffset<wire::MemberRecord<'b>> {
    let [settled, bound] = [&member.settled, &member.bound]
        .map(|settled| settled.as_ref().map(|settled| write_settled(builder, settled)));
    let write_life = |life: &Life| wire::Life::new(life.incarnation, life.life);
    let earlier = member.earlier.as_ref().map(write_life);
    let line: Vec<_> = member.line.iter().map(write_life).collect();
    let line = (!line.is_empty()).then(|| builder.create_vector(&line));
    let lacking = (!member.lacking.is_empty()).then(|| builder.create_vector(&member.lacking));
    let arguments = wire::MemberRecordArgs {
        node: member.node,
        name: Some(builder.create_string(&member.name)),
        host: Some(builder.create_string(&member.host)),
        ordinary_port: member.ordinary_port,
        shard_ports: Ports::Slice(&member.shard_ports).write(builder),
        incarnation: member.incarnation,
        heartbeat: member.heartbeat,
        weight: member.weight,
        data_center: Some(builder.create_string(&member.data_center)),
        rack: Some(builder.create_string(&member.rack)),
        intent: member.intent,
        intent_version: member.intent_version,
        complete: member.complete,
        serving: member.serving,
        place: member.place,
        settled,
        ring: member.ring,
        change: member.change,
        step: member.step,
        lacking,
        life: member.life,
        succeeds: member.succeeds,
        earlier: earlier.as_ref(),
        bound,
        line,
        beginning: member.beginning,
    };
    wire::MemberRecord::create(builder, &arguments)
}

fn write_settled<'b>(
    builder: &mut FlatBufferBuilder<'b>,
    settled: &SettledRecord,
) -> WIPOffset<wire::Settled<'b>> {
    let arguments = wire::SettledArgs {
        version: settled.version,
        in_ring: settled.in_ring,
        weight: settled.weight,
        data_center: Some(builder.create_string(&settled.data_center)),
        rack: Some(builder.create_string(&settled.rack)),
        place: settled.place,
    };
    wire::Settled::create(builder, &arguments)
}
