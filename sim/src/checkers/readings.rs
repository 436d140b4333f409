//! The reads that were answered, as the checkers look at them.

use crate::history::{Call, History, Number, Operation, Outcome, Reading, read_value};

/// A read that was answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read<'a> {
    /// Which.
    pub(super) number: Number,
    /// The call.
    pub(super) operation: &'a Operation,
    /// R.
    pub(super) needed: u8,
    /// The answer.
    pub(super) reading: &'a Reading,
}

/// All of them, in the order of their calls.
pub(super) fn readings(history: &History) -> impl Iterator<Item = Read<'_>> {
    history.iter().filter_map(|(number, operation)| match (&operation.call, &operation.outcome) {
        (Call::Get { read, .. }, Outcome::Got(reading)) => {
            Some(Read { number, operation, needed: *read, reading })
        }
        _ => None,
    })
}

impl Read<'_> {
    /// The operations whose values were returned. One that can't be read is P2's.
    pub(super) fn returned(&self) -> impl Iterator<Item = Number> + Clone + '_ {
        self.reading.values.iter().filter_map(|value| read_value(value)).map(|(number, ..)| number)
    }
}
