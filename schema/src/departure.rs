//! What a former owner asks those who own a partition now, and what its log says when it has given its copies up.

use crate::encode::Encoder;
use crate::exchange::numbers;
use crate::frame::{Flags, Frame, Kind};
use crate::generated::peer as wire;
use crate::limits::TREE_PARTITIONS_MAX;
use crate::message::{Malformed, verified};

/// Do you own these partitions, complete, and is all that you hold of them by now on stable storage?
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldRequest {
    /// The hash of the sender's ring.
    pub ring: u64,
    /// 1 to [`TREE_PARTITIONS_MAX`].
    pub partitions: Vec<u32>,
}

impl HeldRequest {
    /// From a frame of kind `HELD_REQUEST`.
    pub fn parse(frame: &Frame<'_>) -> Result<Self, Malformed> {
        let wire = verified::<wire::HeldRequest<'_>>(frame, "HeldRequest", 1)?;
        let partitions = numbers(wire.partitions(), TREE_PARTITIONS_MAX)?;
        if partitions.is_empty() {
            return Err(Malformed::Field("a question about no partition"));
        }
        Ok(Self { ring: wire.ring(), partitions })
    }

    /// Append as a frame.
    pub fn encode(&self, encoder: &mut Encoder, request_id: u64, out: &mut Vec<u8>) {
        encoder.frame(out, Kind::HELD_REQUEST, Flags::CHECKSUM, request_id, [], |builder| {
            let partitions = Some(builder.create_vector(&self.partitions));
            wire::HeldRequest::create(builder, &wire::HeldRequestArgs { ring: self.ring, partitions })
        });
    }
}

/// Yes, all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held;

impl Held {
    /// From a frame of kind `HELD`.
    pub fn parse(frame: &Frame<'_>) -> Result<Self, Malformed> {
        verified::<wire::Held<'_>>(frame, "Held", 1)?;
        Ok(Self)
    }

    /// Append as a frame.
    pub fn encode(self, encoder: &mut Encoder, request_id: u64, out: &mut Vec<u8>) {
        encoder.frame(out, Kind::HELD, Flags::CHECKSUM, request_id, [], |builder| {
            wire::Held::create(builder, &wire::HeldArgs {})
        });
    }
}

/// A record of a log: whatever it says of a partition's keys before this is no copy any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GivenUp {
    /// Which.
    pub partition: u32,
    /// They may have been older than what others have forgotten; or else others have them all.
    pub wiped: bool,
}

impl GivenUp {
    /// From a frame of kind `GIVEN_UP`.
    pub fn parse(frame: &Frame<'_>) -> Result<Self, Malformed> {
        let wire = verified::<wire::GivenUp<'_>>(frame, "GivenUp", 1)?;
        Ok(Self { partition: wire.partition(), wiped: wire.wiped() })
    }

    /// Append as a frame.
    pub fn encode(self, encoder: &mut Encoder, out: &mut Vec<u8>) {
        encoder.frame(out, Kind::GIVEN_UP, Flags::CHECKSUM, 0, [], |builder| {
            let Self { partition, wiped } = self;
            wire::GivenUp::create(builder, &wire::GivenUpArgs { partition, wiped })
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Encoder, &mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut Encoder::default(), &mut out);
        out
    }

    fn frame(bytes: &[u8]) -> Frame<'_> {
        Frame::split(bytes, bytes.len()).unwrap().unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let request = HeldRequest { ring: 5, partitions: vec![3, 1] };
        let bytes = written(|encoder, out| request.encode(encoder, 1, out));
        assert_eq!(HeldRequest::parse(&frame(&bytes)), Ok(request));
        let bytes = written(|encoder, out| Held.encode(encoder, 1, out));
        assert_eq!(Held::parse(&frame(&bytes)), Ok(Held));
        assert!(frame(&bytes).header.kind.is_answer());
        let record = GivenUp { partition: 77, wiped: true };
        let bytes = written(|encoder, out| record.encode(encoder, out));
        assert_eq!(GivenUp::parse(&frame(&bytes)), Ok(record));
    }

    #[test]
    fn a_question_names_some_partitions_and_not_too_many() {
        for count in [0, TREE_PARTITIONS_MAX + 1] {
            let request = HeldRequest { ring: 5, partitions: vec![0; count] };
            let bytes = written(|encoder, out| request.encode(encoder, 1, out));
            assert!(HeldRequest::parse(&frame(&bytes)).is_err(), "{count}");
        }
    }
}
