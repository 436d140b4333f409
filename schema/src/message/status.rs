//! How a shard is, for people.

use flatbuffers::{FlatBufferBuilder, Vector, WIPOffset};

use crate::encode::Encoder;
use crate::frame::{Flags, Frame, Kind};
use crate::generated::client as wire;
use crate::limits::MEMBERS_MAX;

use super::{Malformed, Tables, verified};

/// A count with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// `snake_case`, with its unit last where it isn't a plain count.
    pub name: String,
    /// Its value.
    pub value: u64,
}

/// A member as one shard sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its id.
    pub node: u64,
    /// Its name.
    pub name: String,
    /// Host and ordinary port.
    pub address: String,
    /// Its incarnation, as last heard.
    pub incarnation: u64,
    /// "self", "up", "suspected" or "not met".
    pub state: String,
    /// What the operator wants of it: "guest", "member", "leaving" or "removed". Empty from an older server.
    pub intent: String,
    /// Capacity; 100 is ordinary.
    pub weight: u32,
    /// Its data centre; may be empty.
    pub data_center: String,
    /// Its rack; may be empty.
    pub rack: String,
    /// How far it has come with the ring's change, as last heard: "writing", "whole" or "reading"; "not heard" if it works
    /// by other rings than whoever says so. Empty while nothing changes.
    pub step: String,
    /// Partitions that it owns, or will own, and isn't complete for, as last heard.
    pub lacking: u32,
}

/// How one shard is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its node.
    pub node: u64,
    /// Its node's name.
    pub name: String,
    /// Its cluster.
    pub cluster: u64,
    /// Which shard.
    pub shard: u16,
    /// Of how many.
    pub shards: u16,
    /// Of its topology.
    pub epoch: u64,
    /// Does it answer requests about keys?
    pub serving: bool,
    /// Name and version.
    pub software: String,
    /// In the order of their ids.
    pub members: Vec<MemberStatus>,
    /// In a fixed order.
    pub counters: Vec<Counter>,
    /// While the ring changes: how far that has come here, in a word. Empty while nothing changes.
    pub change: String,
    /// Why the node does not serve, and what to do about it. Empty if it serves, or just waits for others.
    pub trouble: String,
}

impl Status {
    /// From a frame of kind `STATUS_IS`.
    pub fn parse(frame: &Frame<'_>) -> Result<Self, Malformed> {
        let tables_max = MEMBERS_MAX + 1024;
        let status = verified::<wire::Status<'_>>(frame, "Status", tables_max)?;
        let members: Option<Tables<'_, wire::MemberStatus<'_>>> = status.members();
        Ok(Self {
            node: status.node(),
            name: status.name().unwrap_or_default().to_owned(),
            cluster: status.cluster(),
            shard: status.shard(),
            shards: status.shards(),
            epoch: status.epoch(),
            serving: status.serving(),
            software: status.software().unwrap_or_default().to_owned(),
            members: members.iter().flat_map(Vector::iter).map(read_member_status).collect(),
            counters: status
                .counters()
                .iter()
                .flat_map(Vector::iter)
                .map(|counter| Counter {
                    name: counter.name().unwrap_or_default().to_owned(),
                    value: counter.value(),
                })
                .collect(),
            change: status.change().unwrap_or_default().to_owned(),
            trouble: status.trouble().unwrap_or_default().to_owned(),
        })
    }

    /// Append as a frame.
    pub fn encode(&self, encoder: &mut Encoder, request_id: u64, out: &mut Vec<u8>) {
        encoder.frame(out, Kind::STATUS_IS, Flags::NONE, request_id, [], |builder| {
            let members: Vec<_> =
                self.members.iter().map(|member| write_member_status(builder, member)).collect();
            let counters: Vec<_> = self
                .counters
                .iter()
                .map(|counter| {
                    let name = Some(builder.create_string(&counter.name));
                    wire::Counter::create(builder, &wire::CounterArgs { name, value: counter.value })
                })
                .collect();
            let arguments = wire::StatusArgs {
                node: self.node,
                name: Some(builder.create_string(&self.name)),
                cluster: self.cluster,
                shard: self.shard,
                shards: self.shards,
                epoch: self.epoch,
                serving: self.serving,
                software: Some(builder.create_string(&self.software)),
                members: Some(builder.create_vector(&members)),
                counters: Some(builder.create_vector(&counters)),
                change: (!self.change.is_empty()).then(|| builder.create_string(&self.change)),
                trouble: (!self.trouble.is_empty()).then(|| builder.create_string(&self.trouble)),
            };
            wire::Status::create(builder, &arguments)
        });
    }
}

fn read_member_status(member: wire::MemberStatus<'_>) -> MemberStatus {
    MemberStatus {
        node: member.node(),
        name: member.name().unwrap_or_default().to_owned(),
        address: member.address().unwrap_or_default().to_owned(),
        incarnation: member.incarnation(),
        state: member.state().unwrap_or_default().to_owned(),
        intent: member.intent().unwrap_or_default().to_owned(),
        weight: member.weight(),
        data_center: member.data_center().unwrap_or_default().to_owned(),
        rack: member.rack().unwrap_or_default().to_owned(),
        step: member.step().unwrap_or_default().to_owned(),
        lacking: member.lacking(),
    }
}

fn write_member_status<'b>(
    builder: &mut FlatBufferBuilder<'b>,
    member: &MemberStatus,
) -> WIPOffset<wire::MemberStatus<'b>> {
    let arguments = wire::MemberStatusArgs {
        node: member.node,
        name: Some(builder.create_string(&member.name)),
        address: Some(builder.create_string(&member.address)),
        incarnation: member.incarnation,
        state: Some(builder.create_string(&member.state)),
        intent: Some(builder.create_string(&member.intent)),
        weight: member.weight,
        data_center: Some(builder.create_string(&member.data_center)),
        rack: Some(builder.create_string(&member.rack)),
        step: (!member.step.is_empty()).then(|| builder.create_string(&member.step)),
        lacking: member.lacking,
    };
    wire::MemberStatus::create(builder, &arguments)
}
