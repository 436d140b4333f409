//! The first frame each way on every connection.

use crate::encode::Encoder;
use crate::frame::{Flags, Frame, Kind};
use crate::generated::client as wire;
use crate::generated::client::Role;

use super::topology::{Ports, ports};
use super::{Malformed, bytes, verified};

/// What the dialling end says first.
#[derive(Clone, Copy, Debug)]
pub struct Hello<'a> {
    /// Oldest version of the protocol that it speaks.
    pub protocol_min: u16,
    /// Newest version of the protocol that it speaks.
    pub protocol_max: u16,
    /// Client or peer.
    pub role: Role,
    /// The cluster it means to reach; 0 for any, which only a client may say.
    pub cluster: u64,
    /// The cluster's secret; empty if it has none.
    pub secret: &'a [u8],
    /// For people: name and version.
    pub software: &'a str,
    /// What a peer says besides.
    pub peer: PeerHello<'a>,
}

/// Who a peer is, and whom it believes to be calling. All zero from a client.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeerHello<'a> {
    /// The caller.
    pub node: u64,
    /// Of the caller; 0 while it doesn't know its own yet.
    pub incarnation: u64,
    /// Of the caller.
    pub shard: u16,
    /// How many shards the caller has.
    pub shards: u16,
    /// Whom it means to reach.
    pub target_node: u64,
    /// Which shard of it.
    pub target_shard: u16,
    /// The caller's own ports, shard by shard.
    pub shard_ports: Ports<'a>,
    /// The port that the caller's shards share.
    pub ordinary_port: u16,
    /// Drawn anew by each process; 0 from a version that doesn't say.
    pub life: u64,
    /// This process answers under its name by now, so it has to hear of any other that does.
    pub serving: bool,
}

impl<'a> Hello<'a> {
    /// From a frame of kind `HELLO`.
    pub fn parse(frame: &Frame<'a>) -> Result<Self, Malformed> {
        let hello = verified::<wire::Hello<'a>>(frame, "Hello", 1)?;
        Ok(Self {
            protocol_min: hello.protocol_min(),
            protocol_max: hello.protocol_max(),
            role: hello.role(),
            cluster: hello.cluster(),
            secret: bytes(hello.secret()),
            software: hello.software().unwrap_or_default(),
            peer: PeerHello {
                node: hello.node(),
                incarnation: hello.incarnation(),
                shard: hello.shard(),
                shards: hello.shards(),
                target_node: hello.target_node(),
                target_shard: hello.target_shard(),
                shard_ports: ports(hello.shard_ports()),
                ordinary_port: hello.ordinary_port(),
                life: hello.life(),
                serving: hello.serving(),
            },
        })
    }

    /// Append as a frame.
    pub fn encode(&self, encoder: &mut Encoder, request_id: u64, out: &mut Vec<u8>) {
        encoder.frame(out, Kind::HELLO, Flags::NONE, request_id, [], |builder| {
            let secret = (!self.secret.is_empty()).then(|| builder.create_vector(self.secret));
            let software = (!self.software.is_empty()).then(|| builder.create_string(self.software));
            let shard_ports = self.peer.shard_ports.write(builder);
            let arguments = wire::HelloArgs {
                protocol_min: self.protocol_min,
                protocol_max: self.protocol_max,
                role: self.role,
                cluster: self.cluster,
                secret,
                software,
                node: self.peer.node,
                incarnation: self.peer.incarnation,
                shard: self.peer.shard,
                shards: self.peer.shards,
                target_node: self.peer.target_node,
                target_shard: self.peer.target_shard,
                shard_ports,
                ordinary_port: self.peer.ordinary_port,
                life: self.peer.life,
                serving: self.peer.serving,
            };
            wire::Hello::create(builder, &arguments)
        });
    }
}

/// What the answering end says, when it takes the connection.
#[derive(Clone, Copy, Debug)]
pub struct Welcome<'a> {
    /// The version that both will speak: the newest that both know.
    pub protocol: u16,
    /// Its cluster.
    pub cluster: u64,
    /// Who answers.
    pub node: u64,
    /// Of the answering node; 0 while it doesn't know its own yet.
    pub incarnation: u64,
    /// The shard that answers: on the ordinary port it may be any.
    pub shard: u16,
    /// The node's own ports, shard by shard.
    pub shard_ports: Ports<'a>,
    /// Of its topology.
    pub epoch: u64,
    /// Limit on one value's bytes.
    pub value_bytes_max: u32,
    /// Limit on the bytes after the header of a request.
    pub frame_bytes_max: u32,
    /// Requests that one connection may have unanswered; more wait unread.
    pub requests_in_flight_max: u32,
    /// False until the cluster is born, or while the node is not ready.
    pub serving: bool,
    /// Q, as the cluster was founded with it; 0 if the server doesn't say.
    pub partitions: u32,
    /// N, likewise.
    pub replicas: u8,
    /// Of the answering process; 0 from a version that doesn't say.
    pub life: u64,
}

impl<'a> Welcome<'a> {
    /// From a frame of kind `WELCOME`.
    pub fn parse(frame: &Frame<'a>) -> Result<Self, Malformed> {
        let welcome = verified::<wire::Welcome<'a>>(frame, "Welcome", 1)?;
        Ok(Self {
            protocol: welcome.protocol(),
            cluster: welcome.cluster(),
            node: welcome.node(),
            incarnation: welcome.incarnation(),
            shard: welcome.shard(),
            shard_ports: ports(welcome.shard_ports()),
            epoch: welcome.epoch(),
            value_bytes_max: welcome.value_bytes_max(),
            frame_bytes_max: welcome.frame_bytes_max(),
            requests_in_flight_max: welcome.requests_in_flight_max(),
            serving: welcome.serving(),
            partitions: welcome.partitions(),
            replicas: welcome.replicas(),
            life: welcome.life(),
        })
    }

    /// Append as a frame.
    pub fn encode(&self, encoder: &mut Encoder, request_id: u64, out: &mut Vec<u8>) {
        encoder.frame(out, Kind::WELCOME, Flags::NONE, request_id, [], |builder| {
            let shard_ports = self.shard_ports.write(builder);
            let arguments = wire::WelcomeArgs {
                protocol: self.protocol,
                cluster: self.cluster,
                node: self.node,
                incarnation: self.incarnation,
                shard: self.shard,
                shard_ports,
                epoch: self.epoch,
                value_bytes_max: self.value_bytes_max,
                frame_bytes_max: self.frame_bytes_max,
                requests_in_flight_max: self.requests_in_flight_max,
                serving: self.serving,
                partitions: self.partitions,
                replicas: self.replicas,
                life: self.life,
            };
            wire::Welcome::create(builder, &arguments)
        });
    }
}
