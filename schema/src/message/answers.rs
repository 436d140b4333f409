//! Answers about keys.

use flatbuffers::{FlatBufferBuilder, WIPOffset};

use crate::encode::Encoder;
use crate::frame::{Flags, Frame, Kind};
use crate::generated::client as wire;
use crate::generated::client::ErrorCode;

use super::{Malformed, bytes, verified};

/// What a get found.
#[derive(Clone, Copy, Debug)]
pub struct Got<'a> {
    /// To be sent with the put that replaces these versions; empty where a put with it could destroy a
    /// version that this answer doesn't show.
    pub context: &'a [u8],
    /// At least one.
    pub versions: Versions<'a>,
    /// Primary replicas that this answer rests on.
    pub primaries: u8,
    /// Fallback replicas that this answer rests on.
    pub fallbacks: u8,
    /// Distinct nodes that this answer rests on.
    pub nodes: u8,
}

/// What is known of a version besides its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VersionHead {
    /// The coordinator's wall clock when it was put, in microseconds since 1970.
    pub timestamp_us: u64,
    /// When it expires, in microseconds since 1970; 0 for never.
    pub expiry_us: u64,
    /// Bytes of the value.
    pub length: u32,
}

/// The versions of an answer, each with its value.
#[derive(Clone, Copy, Debug)]
pub struct Versions<'a> {
    heads: flatbuffers::Vector<'a, wire::VersionHead>,
    values: &'a [u8],
}

impl<'a> Versions<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// Never, in an answer that was parsed.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// In the order of the wire.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (VersionHead, &'a [u8])> + use<'a> {
        let mut rest = self.values;
        let heads = self.heads;
        (0..heads.len()).map(move |place| {
            let head = heads.get(place);
            let (value, after) = rest.split_at(head.length() as usize);
            rest = after;
            let head = VersionHead {
                timestamp_us: head.timestamp_us(),
                expiry_us: head.expiry_us(),
                length: head.length(),
            };
            (head, value)
        })
    }
}

impl<'a> Got<'a> {
    /// From a frame of kind `GOT`.
    pub fn parse(frame: &Frame<'a>) -> Result<Self, Malformed> {
        let got = verified::<wire::Got<'a>>(frame, "Got", 1)?;
        let heads = got.versions().ok_or(Malformed::Field("an answer to a get without versions"))?;
        let claimed = heads.iter().map(|head| u64::from(head.length())).sum();
        if claimed != frame.values.len() as u64 {
            return Err(Malformed::Values { claimed, actual: frame.values.len() });
        }
        Ok(Self {
            context: bytes(got.context()),
            versions: Versions { heads, values: frame.values },
            primaries: got.primaries(),
            fallbacks: got.fallbacks(),
            nodes: got.nodes(),
        })
    }

    /// Append the header and metadata of a frame; the values' bytes must follow it, in the same order. It has
    /// no checksum.
    pub fn encode_head(
        encoder: &mut Encoder,
        request_id: u64,
        flags: Flags,
        context: &[u8],
        heads: impl ExactSizeIterator<Item = VersionHead> + DoubleEndedIterator + Clone,
        basis: [u8; 3],
        out: &mut Vec<u8>,
    ) {
        let values_length = heads.clone().map(|head| head.length as usize).sum();
        encoder.open_frame(out, Kind::GOT, flags, request_id, values_length, |builder| {
            Self::build(builder, context, heads, basis)
        });
    }

    /// Append as a whole frame. `basis` counts primaries, fallbacks and distinct nodes.
    pub fn encode<'v>(
        encoder: &mut Encoder,
        request_id: u64,
        flags: Flags,
        context: &[u8],
        heads: impl ExactSizeIterator<Item = VersionHead> + DoubleEndedIterator + Clone,
        values: impl Iterator<Item = &'v [u8]> + Clone,
        basis: [u8; 3],
        out: &mut Vec<u8>,
    ) {
        encoder.frame(out, Kind::GOT, flags, request_id, values, |builder| {
            Self::build(builder, context, heads, basis)
        });
    }

    fn build(
        builder: &mut FlatBufferBuilder<'static>,
        context: &[u8],
        heads: impl ExactSizeIterator<Item = VersionHead> + DoubleEndedIterator,
        [primaries, fallbacks, nodes]: [u8; 3],
    ) -> WIPOffset<wire::Got<'static>> {
        let context = (!context.is_empty()).then(|| builder.create_vector(context));
        let count = heads.len();
        builder.start_vector::<wire::VersionHead>(count);
        for head in heads.rev() {
            builder.push(wire::VersionHead::new(head.timestamp_us, head.expiry_us, head.length));
        }
        let versions = Some(builder.end_vector(count));
        wire::Got::create(builder, &wire::GotArgs { context, versions, primaries, fallbacks, nodes })
    }
}

/// A put or delete was applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stored<'a> {
    /// Of the new version, where it is the only one; else empty.
    pub context: &'a [u8],
    /// Primary replicas that hold it durably.
    pub primaries: u8,
    /// Fallback replicas that hold it durably.
    pub fallbacks: u8,
    /// Distinct nodes that hold it durably.
    pub nodes: u8,
}

impl<'a> Stored<'a> {
    /// From a frame of kind `STORED`.
    pub fn parse(frame: &Frame<'a>) -> Result<Self, Malformed> {
        let stored = verified::<wire::Stored<'a>>(frame, "Stored", 1)?;
        Ok(Self {
            context: bytes(stored.context()),
            primaries: stored.primaries(),
            fallbacks: stored.fallbacks(),
            nodes: stored.nodes(),
        })
    }

    /// Append as a frame.
    pub fn encode(&self, encoder: &mut Encoder, request_id: u64, flags: Flags, out: &mut Vec<u8>) {
        encoder.frame(out, Kind::STORED, flags, request_id, [], |builder| {
            let context = (!self.context.is_empty()).then(|| builder.create_vector(self.context));
            let arguments = wire::StoredArgs {
                context,
                primaries: self.primaries,
                fallbacks: self.fallbacks,
                nodes: self.nodes,
            };
            wire::Stored::create(builder, &arguments)
        });
    }
}

/// Why a request didn't succeed, and what to do about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ErrorAnswer<'a> {
    /// What happened.
    pub code: ErrorCode,
    /// For people.
    pub message: &'a str,
    /// `MaybeApplied`: durable acknowledgements counted.
    pub acks: u8,
    /// Answers or acknowledgements that the request asked for.
    pub needed: u8,
    /// `TooLarge`, `TooManySiblings`: the limit, in bytes or siblings.
    pub limit: u64,
    /// `WrongShard`: the topology's epoch here.
    pub epoch: u64,
    /// `NotFound`: what a put must cover to replace what was deleted; empty if nothing was.
    pub context: &'a [u8],
    /// Primary replicas that this answer rests on.
    pub primaries: u8,
    /// Fallback replicas that this answer rests on.
    pub fallbacks: u8,
    /// Distinct nodes that this answer rests on.
    pub nodes: u8,
}

impl<'a> ErrorAnswer<'a> {
    /// With nothing but a code and a message.
    pub const fn new(code: ErrorCode, message: &'a str) -> Self {
        let none: &[u8] = &[];
        Self {
            code,
            message,
            acks: 0,
            needed: 0,
            limit: 0,
            epoch: 0,
            context: none,
            primaries: 0,
            fallbacks: 0,
            nodes: 0,
        }
    }

    /// From a frame of kind `ERROR`.
    pub fn parse(frame: &Frame<'a>) -> Result<Self, Malformed> {
        let error = verified::<wire::Error<'a>>(frame, "Error", 1)?;
        Ok(Self {
            code: error.code(),
            message: error.message().unwrap_or_default(),
            acks: error.acks(),
            needed: error.needed(),
            limit: error.limit(),
            epoch: error.epoch(),
            context: bytes(error.context()),
            primaries: error.primaries(),
            fallbacks: error.fallbacks(),
            nodes: error.nodes(),
        })
    }

    /// Append as a frame.
    pub fn encode(&self, encoder: &mut Encoder, request_id: u64, flags: Flags, out: &mut Vec<u8>) {
        encoder.frame(out, Kind::ERROR, flags, request_id, [], |builder| {
            let message = (!self.message.is_empty()).then(|| builder.create_string(self.message));
            let context = (!self.context.is_empty()).then(|| builder.create_vector(self.context));
            let arguments = wire::ErrorArgs {
                code: self.code,
                message,
                acks: self.acks,
                needed: self.needed,
                limit: self.limit,
                epoch: self.epoch,
                context,
                primaries: self.primaries,
                fallbacks: self.fallbacks,
                nodes: self.nodes,
            };
            wire::Error::create(builder, &arguments)
        });
    }
}
