//! What an operation carries through the kernel and back: what it was, and for which life of which slot.
//!
//! Never a bare descriptor: a descriptor, or a slot, may mean something else by the time a completion is read.
//!
//! ```text
//!  63                            28 27           4 3         0
//!  | generation of the slot        | slot         | operation |
//!  |<------------- ConnectionId ----------------->|
//! ```

use crate::id::ConnectionId;

const SLOT_BITS: u32 = 24;
const OPERATION_BITS: u32 = 4;

/// Slots that a table can have.
pub(super) const SLOTS_MAX: usize = 1 << SLOT_BITS;

/// What was asked of the kernel. Fits in four bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Operation {
    /// On the listener whose number takes the slot's place.
    Accept = 0,
    Receive = 1,
    Send = 2,
    Connect = 3,
    /// The one timer.
    Timer = 4,
    /// A cancellation, or a change of the timer: its own outcome doesn't matter.
    Aside = 5,
    /// On the shard's log; the step's number takes the slot's place.
    Disk = 6,
}

/// User data of an operation.
pub(super) fn token(operation: Operation, connection: ConnectionId) -> u64 {
    connection.0 << OPERATION_BITS | operation as u64
}

/// User data of an operation that belongs to no connection.
pub(super) fn loose_token(operation: Operation, number: usize) -> u64 {
    token(operation, ConnectionId(number as u64))
}

/// The reverse of [`token`]. `None` for what this module never made.
pub(super) fn parse(user_data: u64) -> Option<(Operation, ConnectionId)> {
    let operation = match user_data & ((1 << OPERATION_BITS) - 1) {
        0 => Operation::Accept,
        1 => Operation::Receive,
        2 => Operation::Send,
        3 => Operation::Connect,
        4 => Operation::Timer,
        5 => Operation::Aside,
        6 => Operation::Disk,
        _ => return None,
    };
    Some((operation, ConnectionId(user_data >> OPERATION_BITS)))
}

/// A connection's name: its slot, and how many have lived there before.
pub(super) fn connection_id(slot: usize, generation: u64) -> ConnectionId {
    debug_assert!(slot < SLOTS_MAX);
    ConnectionId(generation << SLOT_BITS | slot as u64)
}

/// Slot and generation of a connection.
pub(super) fn slot_of(connection: ConnectionId) -> (usize, u64) {
    ((connection.0 & (SLOTS_MAX as u64 - 1)) as usize, connection.0 >> SLOT_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_as_it_went() {
        let connection = connection_id(SLOTS_MAX - 1, (1 << 36) - 1);
        assert_eq!(slot_of(connection), (SLOTS_MAX - 1, (1 << 36) - 1));
        let operations = [Operation::Accept, Operation::Receive, Operation::Send, Operation::Connect];
        for operation in operations.into_iter().chain([Operation::Timer, Operation::Aside, Operation::Disk]) {
            assert_eq!(parse(token(operation, connection)), Some((operation, connection)));
        }
        assert_eq!(parse(15), None);
    }
}
