//! Requests about keys, and the small ones.

use crate::encode::Encoder;
use crate::frame::{Flags, Frame, Kind};
use crate::generated::client as wire;

use super::{Malformed, bytes, verified};

/// Read a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Get<'a> {
    /// 1 to [`KEY_BYTES_MAX`](crate::limits::KEY_BYTES_MAX) bytes; the receiver checks.
    pub key: &'a [u8],
    /// R: replicas whose answers are waited for; 0 for the server's default.
    pub read: u8,
    /// What is left of the deadline, in microseconds; 0 for the server's default.
    pub budget_us: u32,
    /// Give only the version with the highest timestamp.
    pub latest: bool,
    /// A context that the answer must include, or be `Stale`; empty for none.
    pub at_least: &'a [u8],
    /// The topology by which the client routed; 0 if it has none.
    pub epoch: u64,
    /// Of the replicas that are waited for, so many must be primaries; 0 if none need be.
    pub primaries: u8,
}

impl<'a> Get<'a> {
    /// From a frame of kind `GET`.
    pub fn parse(frame: &Frame<'a>) -> Result<Self, Malformed> {
        let get = verified::<wire::Get<'a>>(frame, "Get", 1)?;
        no_values(frame)?;
        Ok(Self {
            key: bytes(get.key()),
            read: get.read(),
            budget_us: get.budget_us(),
            latest: get.latest(),
            at_least: bytes(get.at_least()),
            epoch: get.epoch(),
            primaries: get.primaries(),
        })
    }

    /// Append as a frame.
    pub fn encode(&self, encoder: &mut Encoder, request_id: u64, flags: Flags, out: &mut Vec<u8>) {
        encoder.frame(out, Kind::GET, flags, request_id, [], |builder| {
            let key = Some(builder.create_vector(self.key));
            let at_least = (!self.at_least.is_empty()).then(|| builder.create_vector(self.at_least));
            let arguments = wire::GetArgs {
                key,
                read: self.read,
                budget_us: self.budget_us,
                latest: self.latest,
                at_least,
                epoch: self.epoch,
                primaries: self.primaries,
            };
            wire::Get::create(builder, &arguments)
        });
    }
}

/// Write a key, or delete it: the frame's kind tells which.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Put<'a> {
    /// 1 to [`KEY_BYTES_MAX`](crate::limits::KEY_BYTES_MAX) bytes; the receiver checks.
    pub key: &'a [u8],
    /// `None` deletes.
    pub value: Option<&'a [u8]>,
    /// W: durable acknowledgements that are waited for; 0 for the server's default.
    pub write: u8,
    /// What is left of the deadline, in microseconds; 0 for the server's default.
    pub budget_us: u32,
    /// From an earlier answer for this key: exactly what it covers is replaced. Empty for none.
    pub context: &'a [u8],
    /// Replace whatever the coordinator has.
    pub overwrite: bool,
    /// Time to live in milliseconds; 0 for ever.
    pub ttl_ms: u64,
    /// The write's name, so that a retry applies once: its client's random number. 0 for none.
    pub operation_client: u64,
    /// The write's name: counted by that client.
    pub operation_sequence: u64,
    /// The topology by which the client routed; 0 if it has none.
    pub epoch: u64,
    /// Of the replicas that are waited for, so many must be primaries; 0 if none need be.
    pub primaries: u8,
    /// In so many distinct zones must there be copies before the write is acknowledged; 0 for wherever they are.
    pub zones: u8,
}

impl<'a> Put<'a> {
    /// From a frame of kind `PUT` or `DELETE`.
    pub fn parse(frame: &Frame<'a>) -> Result<Self, Malformed> {
        let put = verified::<wire::Put<'a>>(frame, "Put", 1)?;
        let value = if frame.header.kind == Kind::DELETE {
            no_values(frame)?;
            None
        } else {
            Some(frame.values)
        };
        Ok(Self {
            key: bytes(put.key()),
            value,
            write: put.write(),
            budget_us: put.budget_us(),
            context: bytes(put.context()),
            overwrite: put.overwrite(),
            ttl_ms: put.ttl_ms(),
            operation_client: put.operation_client(),
            operation_sequence: put.operation_sequence(),
            epoch: put.epoch(),
            primaries: put.primaries(),
            zones: put.zones(),
        })
    }

    /// Append as a frame.
    pub fn encode(&self, encoder: &mut Encoder, request_id: u64, flags: Flags, out: &mut Vec<u8>) {
        let kind = if self.value.is_some() { Kind::PUT } else { Kind::DELETE };
        encoder.frame(out, kind, flags, request_id, [self.value.unwrap_or_default()], |builder| {
            let key = Some(builder.create_vector(self.key));
            let context = (!self.context.is_empty()).then(|| builder.create_vector(self.context));
            let arguments = wire::PutArgs {
                key,
                write: self.write,
                budget_us: self.budget_us,
                context,
                overwrite: self.overwrite,
                ttl_ms: self.ttl_ms,
                operation_client: self.operation_client,
                operation_sequence: self.operation_sequence,
                epoch: self.epoch,
                primaries: self.primaries,
                zones: self.zones,
            };
            wire::Put::create(builder, &arguments)
        });
    }
}

/// Ask for the topology.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TopologyRequest {
    /// Also send each later topology, under the same request id.
    pub subscribe: bool,
}

impl TopologyRequest {
    /// From a frame of kind `TOPOLOGY`.
    pub fn parse(frame: &Frame<'_>) -> Result<Self, Malformed> {
        let request = verified::<wire::TopologyRequest<'_>>(frame, "TopologyRequest", 1)?;
        no_values(frame)?;
        Ok(Self { subscribe: request.subscribe() })
    }

    /// Append as a frame.
    pub fn encode(&self, encoder: &mut Encoder, request_id: u64, out: &mut Vec<u8>) {
        encoder.frame(out, Kind::TOPOLOGY, Flags::NONE, request_id, [], |builder| {
            wire::TopologyRequest::create(builder, &wire::TopologyRequestArgs { subscribe: self.subscribe })
        });
    }
}

/// Ask a shard how it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StatusRequest;

impl StatusRequest {
    /// From a frame of kind `STATUS`.
    pub fn parse(frame: &Frame<'_>) -> Result<Self, Malformed> {
        verified::<wire::StatusRequest<'_>>(frame, "StatusRequest", 1)?;
        no_values(frame).map(|()| Self)
    }

    /// Append as a frame.
    pub fn encode(&self, encoder: &mut Encoder, request_id: u64, out: &mut Vec<u8>) {
        encoder.frame(out, Kind::STATUS, Flags::NONE, request_id, [], |builder| {
            wire::StatusRequest::create(builder, &wire::StatusRequestArgs {})
        });
    }
}

/// Are you there? Also its own answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ping;

impl Ping {
    /// From a frame of kind `PING` or `PONG`.
    pub fn parse(frame: &Frame<'_>) -> Result<Self, Malformed> {
        verified::<wire::Ping<'_>>(frame, "Ping", 1)?;
        no_values(frame).map(|()| Self)
    }

    /// Append as a frame of kind `PING` or `PONG`.
    pub fn encode(&self, encoder: &mut Encoder, kind: Kind, request_id: u64, out: &mut Vec<u8>) {
        debug_assert!(kind == Kind::PING || kind == Kind::PONG);
        encoder.frame(out, kind, Flags::NONE, request_id, [], |builder| {
            wire::Ping::create(builder, &wire::PingArgs {})
        });
    }
}

pub(super) fn no_values(frame: &Frame<'_>) -> Result<(), Malformed> {
    if frame.values.is_empty() {
        return Ok(());
    }
    Err(Malformed::Values { claimed: 0, actual: frame.values.len() })
}
