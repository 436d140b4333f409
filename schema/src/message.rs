//! Borrowed views of the frames between clients and servers.
//!
//! `X::parse(&frame)` verifies the flatbuffer once and gives a plain struct that borrows from the frame;
//! `x.encode(..)` appends the same struct to a byte vector as a frame. Nobody else touches generated code.
//! A view holds what the wire says, checked only for what the wire itself promises (lengths that add up,
//! counts under their limits); what a request means is for its receiver.

mod answers;
mod change;
mod handshake;
mod multi;
mod requests;
mod status;
mod topology;

use flatbuffers::{ForwardsUOffset, InvalidFlatbuffer, Verifiable, VerifierOptions};
use thiserror::Error;

use crate::frame::Frame;
use crate::generated::client as wire;
use crate::limits::META_BYTES_MAX;

pub use answers::{ErrorAnswer, Got, Stored, VersionHead, Versions};
pub use change::{Change, Changed, Move, What};
pub use handshake::{Hello, PeerHello, Welcome};
pub use multi::{Multi, MultiWriter};
pub use requests::{Get, Ping, Put, StatusRequest, TopologyRequest};
pub use status::{Counter, MemberStatus, Status};
pub(crate) use topology::ports;
pub use topology::{Member, Ports, Topology};
pub use wire::{ErrorCode, Role};

/// A frame whose metadata isn't what its kind says.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Malformed {
    /// The flatbuffer failed verification.
    #[error("the frame's metadata is not a valid {table}: {reason}")]
    Flatbuffer {
        /// The table that was expected.
        table: &'static str,
        /// What the verifier found.
        reason: String,
    },
    /// Lengths in the metadata and the bytes that follow it don't agree.
    #[error("the frame has {actual} bytes of values, but its metadata speaks of {claimed}")]
    Values {
        /// Sum of the lengths named.
        claimed: u64,
        /// Bytes that follow the metadata.
        actual: usize,
    },
    /// A field has a value that no version of the protocol gives a meaning to, or breaks a limit.
    #[error("{0}")]
    Field(&'static str),
}

/// Verify a frame's metadata as table `T` of at most `tables_max` tables, and give its root.
pub(crate) fn verified<'a, T>(
    frame: &Frame<'a>,
    table: &'static str,
    tables_max: usize,
) -> Result<T::Inner, Malformed>
where
    T: flatbuffers::Follow<'a> + Verifiable + 'a,
{
    let options = VerifierOptions {
        max_depth: 3,
        max_tables: tables_max,
        max_apparent_size: 2 * META_BYTES_MAX,
        ignore_missing_null_terminator: false,
    };
    flatbuffers::root_with_opts::<T>(&options, frame.meta).map_err(|error| malformed(table, &error))
}

#[cold]
fn malformed(table: &'static str, error: &InvalidFlatbuffer) -> Malformed {
    let reason = error.to_string();
    Malformed::Flatbuffer { table, reason: reason.lines().next().unwrap_or_default().to_owned() }
}

/// The bytes of an optional vector: empty when it was not given.
pub(crate) fn bytes<'a>(vector: Option<flatbuffers::Vector<'a, u8>>) -> &'a [u8] {
    vector.map_or(&[], |vector| vector.bytes())
}

/// The strings of tables are optional on the wire.
pub(crate) type Tables<'a, T> = flatbuffers::Vector<'a, ForwardsUOffset<T>>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::Encoder;
    use crate::frame::{Flags, HEADER_BYTES, Kind};
    use proptest::prelude::*;

    fn only(bytes: &[u8]) -> Frame<'_> {
        let frame = Frame::split(bytes, bytes.len()).unwrap().unwrap();
        assert_eq!(frame.length(), bytes.len());
        frame
    }

    fn put() -> Put<'static> {
        Put {
            key: b"cart:42",
            value: Some(b"milk"),
            write: 2,
            budget_us: 50_000,
            context: b"seen",
            overwrite: true,
            ttl_ms: 1,
            operation_client: 2,
            operation_sequence: 3,
            epoch: 4,
            primaries: 1,
            zones: 2,
        }
    }

    #[test]
    fn requests_survive_the_wire() {
        let (mut encoder, mut out) = (Encoder::default(), Vec::new());
        put().encode(&mut encoder, 9, Flags::DIRECT, &mut out);
        assert_eq!(Put::parse(&only(&out)).unwrap(), put());
        let get =
            Get { key: b"k", read: 3, budget_us: 7, latest: true, at_least: b"x", epoch: 5, primaries: 2 };
        out.clear();
        get.encode(&mut encoder, 10, Flags::NONE, &mut out);
        assert_eq!(Get::parse(&only(&out)).unwrap(), get);
        out.clear();
        Put { value: None, ..put() }.encode(&mut encoder, 11, Flags::NONE, &mut out);
        assert_eq!(only(&out).header.kind, Kind::DELETE);
        assert_eq!(Put::parse(&only(&out)).unwrap().value, None);
    }

    #[test]
    fn an_answer_with_siblings_survives_the_wire() {
        let (mut encoder, mut out) = (Encoder::default(), Vec::new());
        let heads = [3u32, 0, 2].map(|length| VersionHead { timestamp_us: 8, expiry_us: 9, length });
        Got::encode_head(&mut encoder, 1, Flags::NONE, b"context", heads.into_iter(), [2, 0, 2], &mut out);
        out.extend_from_slice(b"abcde");
        let got = Got::parse(&only(&out)).unwrap();
        let values: Vec<_> = got.versions.iter().map(|(head, value)| (head.length, value)).collect();
        assert_eq!(values, [(3, &b"abc"[..]), (0, b""), (2, b"de")]);
        assert_eq!((got.context, got.primaries, got.nodes), (&b"context"[..], 2, 2));
    }

    #[test]
    fn a_length_that_lies_is_refused() {
        let (mut encoder, mut out) = (Encoder::default(), Vec::new());
        let heads = [VersionHead { timestamp_us: 0, expiry_us: 0, length: u32::MAX }];
        let mut honest = Vec::new();
        Got::encode_head(
            &mut encoder,
            1,
            Flags::NONE,
            b"",
            heads.map(|head| VersionHead { length: 2, ..head }).into_iter(),
            [0; 3],
            &mut honest,
        );
        honest.extend_from_slice(b"ab");
        assert!(Got::parse(&only(&honest)).is_ok());
        encoder.frame(&mut out, Kind::GOT, Flags::NONE, 1, [&b"ab"[..]], |builder| {
            let versions = heads.map(|head| wire::VersionHead::new(0, 0, head.length));
            let versions = Some(builder.create_vector(&versions));
            wire::Got::create(builder, &wire::GotArgs { versions, ..Default::default() })
        });
        let refused = Got::parse(&only(&out)).unwrap_err();
        assert_eq!(refused, Malformed::Values { claimed: u64::from(u32::MAX), actual: 2 });
    }

    #[test]
    fn a_batch_carries_whole_frames_only() {
        let mut encoder = Encoder::default();
        let mut writer = MultiWriter::default();
        for id in 0..3 {
            put().encode(&mut encoder, id, Flags::NONE, &mut writer.items);
            writer.count += 1;
        }
        let mut out = Vec::new();
        writer.encode(&mut encoder, Kind::MULTI_PUT, Flags::NONE, 1, 0, &mut out);
        let batch = Multi::parse(&only(&out)).unwrap();
        assert_eq!(batch.items().map(|item| item.header.request_id).collect::<Vec<_>>(), [0, 1, 2]);
        writer.items.pop();
        out.clear();
        writer.encode(&mut encoder, Kind::MULTI_PUT, Flags::NONE, 1, 0, &mut out);
        assert!(matches!(Multi::parse(&only(&out)), Err(Malformed::Field(_))));
    }

    #[test]
    fn a_topology_with_a_hole_is_refused() {
        let (mut encoder, mut out) = (Encoder::default(), Vec::new());
        let member = Member {
            node: 1,
            name: "n1".into(),
            host: "127.0.0.1".into(),
            ordinary_port: 7400,
            shard_ports: vec![1, 2],
            weight: 100,
            data_center: String::new(),
            rack: String::new(),
        };
        let mut topology = Topology {
            epoch: 1,
            cluster: 2,
            replicas: 1,
            partitions: 2,
            members: vec![member],
            primaries: vec![0, 0],
        };
        topology.encode(&mut encoder, 1, &mut out);
        assert_eq!(Topology::parse(&only(&out)).unwrap(), topology);
        topology.primaries[1] = 1;
        out.clear();
        topology.encode(&mut encoder, 1, &mut out);
        assert!(matches!(Topology::parse(&only(&out)), Err(Malformed::Field(_))));
    }

    proptest! {
        /// P12: flipping bytes of a valid frame never makes a view panic.
        #[test]
        fn damaged_metadata_is_read_or_refused(
            damage in proptest::collection::vec((HEADER_BYTES..200usize, any::<u8>()), 1..8)
        ) {
            let (mut encoder, mut out) = (Encoder::default(), Vec::new());
            put().encode(&mut encoder, 9, Flags::NONE, &mut out);
            for (at, byte) in damage {
                let at = at.min(out.len() - 1);
                out[at] = byte;
            }
            let frame = only(&out);
            if let Ok(put) = Put::parse(&frame) {
                prop_assert!(put.key.len() <= out.len());
            }
            let _ = Got::parse(&frame).map(|got| got.versions.iter().map(|(_, value)| value.len()).sum::<usize>());
            let _ = Topology::parse(&frame);
            let _ = Hello::parse(&frame).map(|hello| hello.peer.shard_ports.iter().count());
            let _ = crate::peer::Replicate::parse(&frame).map(|replicate| replicate.state.versions().count());
        }
    }
}
