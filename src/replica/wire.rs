//! A key's state to and from the frames of peers.

use bytes::Bytes;
use ringmain_schema::peer::{Seen, StateWriter, Version as WireVersion, WireState};

use crate::causality::{Actor, Content, Dot, InvalidState, Siblings, Version};
use crate::id::OperationId;
use crate::time::WallTime;

/// From a peer's frame. Each value is copied once, into its place in the store.
pub fn state_from_wire(wire: &WireState<'_>) -> Result<Siblings<Bytes>, InvalidState> {
    let clock = wire.clock().map(|seen| (Actor { id: seen.id(), epoch: seen.epoch() }, seen.counter()));
    let versions = wire.versions().map(|(version, value)| Version {
        dot: Dot { actor: Actor { id: version.id(), epoch: version.epoch() }, counter: version.counter() },
        content: match (version.tombstone(), version.expired()) {
            (false, _) => Content::Value(Bytes::copy_from_slice(value)),
            (true, false) => Content::Tombstone,
            (true, true) => Content::Expired,
        },
        expiry: (version.expiry_us() != 0).then_some(WallTime(version.expiry_us())),
        operation: OperationId { client: version.operation_client(), sequence: version.operation_sequence() },
        timestamp: WallTime(version.timestamp_us()),
    });
    Siblings::from_parts(clock, versions)
}

/// For a frame to a peer; values are borrowed until the frame is written.
///
/// # Panics
///
/// If values are on the disk alone: nothing may take their place.
pub fn state_writer(state: &Siblings<Bytes>) -> StateWriter<'_> {
    let clock = state.clock().iter().map(|(actor, counter)| Seen::new(actor.id, *counter, actor.epoch));
    let mut writer = StateWriter { clock: clock.collect(), ..StateWriter::default() };
    for version in state.versions() {
        let value: &[u8] = match &version.content {
            Content::Value(value) => value,
            Content::Cold { .. } => unreachable!("what is on the disk is read before it is sent"),
            Content::Tombstone | Content::Expired => &[],
        };
        writer.versions.push(WireVersion::new(
            version.dot.actor.id,
            version.dot.counter,
            version.operation.client,
            version.operation.sequence,
            version.timestamp.0,
            version.expiry.map_or(0, |expiry| expiry.0),
            version.dot.actor.epoch,
            value.len() as u32,
            !version.content.is_value(),
            matches!(version.content, Content::Expired),
        ));
        writer.values.push(value);
    }
    writer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causality::VersionVector;
    use ringmain_schema::peer::State;
    use ringmain_schema::{Encoder, Frame};

    #[test]
    fn a_state_survives_the_wire() {
        let mut state = Siblings::new();
        let actor = |epoch| Actor { id: 7, epoch };
        let operation = OperationId { client: 1, sequence: 2 };
        let value = Content::Value(Bytes::from_static(b"milk"));
        let seen = VersionVector::new();
        state.put(actor(1), &seen, value, Some(WallTime(99)), operation, WallTime(3));
        state.put(actor(2), &seen, Content::Tombstone, None, OperationId::NONE, WallTime(4));
        let mut out = Vec::new();
        let mut expired = state.clone();
        assert_eq!((state.expire(WallTime(98)), expired.expire(WallTime(99))), (0, 1));
        for state in [state, expired] {
            State::encode(&mut Encoder::default(), 1, &state_writer(&state), true, 0, &mut out);
            let frame = Frame::split(&out, out.len()).unwrap().unwrap();
            let read = State::parse(&frame).unwrap();
            assert!(read.complete);
            assert_eq!(state_from_wire(&read.state).unwrap(), state);
            out.clear();
        }
    }
}
