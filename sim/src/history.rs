//! What the clients did and saw: one record for each operation, from its call to its outcome.
//!
//! A history knows nothing of nodes. It is what an application could have written down itself, plus the contexts,
//! opened: the simulator holds the cluster's key. The checkers read it after the run.

use ringmain::causality::VersionVector;
use ringmain::time::{Duration, Instant};
use ringmain_schema::message::ErrorCode;

/// A key, by its number in the run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key(pub u8);

/// An operation, by its number in the history.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Number(pub u32);

/// One operation of one client, however often it was tried.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Who.
    pub client: u32,
    /// On what.
    pub key: Key,
    /// When the client called.
    pub invoked: Instant,
    /// When it knew the outcome; `None` if it never did.
    pub returned: Option<Instant>,
    /// What it asked for.
    pub call: Call,
    /// What it was told.
    pub outcome: Outcome,
    /// Of the nodes that the outcome rests on, so many were fallbacks.
    pub fallbacks: u8,
    /// The copies of an acknowledged write were to be in so many zones; 0 if anywhere.
    pub zones: u8,
    /// What the answer to a read was asked to include.
    pub at_least: VersionVector,
    /// What the acknowledgement of a write said beside that.
    pub receipt: Option<Receipt>,
    /// Requests sent for it, the first one included.
    pub attempts: u32,
    /// What the first attempt came to, if there was another: a refusal, or `MaybeApplied` for any doubt.
    pub setback: Option<ErrorCode>,
    /// Called after the faults had stopped and the cluster had had time to recover: it must succeed.
    pub after_faults: bool,
}

/// What was asked for.
#[derive(Clone, Debug)]
pub enum Call {
    /// A read.
    Get {
        /// R, as asked for or by default, cut to N.
        read: u8,
        /// Only the version with the greatest timestamp.
        latest: bool,
    },
    /// A write of a value.
    Put {
        /// All of it; unique in the run.
        value: Vec<u8>,
        /// What it replaces.
        sent: Sent,
        /// W, as asked for or by default, cut to N.
        write: u8,
        /// When it expires after the put, if it does.
        time_to_live: Option<Duration>,
    },
    /// A delete.
    Delete {
        /// What it deletes.
        sent: Sent,
        /// W, as asked for or by default, cut to N.
        write: u8,
    },
}

/// What a write said that it replaces.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sent {
    /// This context, as the client sent it; empty for a blind put.
    Context(VersionVector),
    /// Whatever the coordinator has: what that was is in the dot log.
    Overwrite,
}

/// How an operation ended, over all its attempts.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// A read was answered.
    Got(Reading),
    /// A write was acknowledged.
    Stored,
    /// It was refused with this code, at each attempt with a code that says so: it was never applied.
    Failed(ErrorCode),
    /// Nobody knows: at least one attempt may have been applied.
    Unknown,
}

/// What a read was told.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The values, in the order of the reply; none if nothing was found.
    pub values: Vec<Vec<u8>>,
    /// The reply's context; `None` if there was none, as for the latest of several.
    pub context: Option<VersionVector>,
    /// How many distinct nodes the answer rests on.
    pub nodes: u8,
}

/// What a client was told of its write.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// What the next write may replace; `None` if there are versions that its client has not seen.
    pub context: Option<VersionVector>,
    /// How many distinct nodes hold it.
    pub nodes: u8,
}

/// All operations of a run, in the order of their calls.
#[derive(Clone, Debug, Default)]
pub struct History {
    operations: Vec<Operation>,
}

impl History {
    /// The number of the next operation.
    pub fn next(&self) -> Number {
        Number(self.operations.len() as u32)
    }

    /// A client called. The outcome is unknown until it is told.
    pub fn invoke(&mut self, operation: Operation) -> Number {
        let number = self.next();
        self.operations.push(operation);
        number
    }

    /// An operation.
    pub fn get(&self, number: Number) -> &Operation {
        &self.operations[number.0 as usize]
    }

    /// An operation, to be completed.
    pub fn get_mut(&mut self, number: Number) -> &mut Operation {
        &mut self.operations[number.0 as usize]
    }

    /// All of them, with their numbers.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Number, &Operation)> {
        self.operations.iter().enumerate().map(|(at, operation)| (Number(at as u32), operation))
    }
}

impl Operation {
    /// W of a write that was acknowledged.
    pub fn acknowledged(&self) -> Option<u8> {
        match (&self.outcome, &self.call) {
            (Outcome::Stored, Call::Put { write, .. } | Call::Delete { write, .. }) => Some(*write),
            _ => None,
        }
    }

    /// Is it a put or a delete?
    pub const fn is_write(&self) -> bool {
        matches!(self.call, Call::Put { .. } | Call::Delete { .. })
    }
}

/// Bytes that begin every value: the operation (4) and the key (1).
const PREFIX: usize = 5;

/// A value that no other operation writes: its operation and key, `payload`, and a hash of all that.
pub fn value(number: Number, key: Key, payload: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(PREFIX + payload.len() + 8);
    value.extend_from_slice(&number.0.to_le_bytes());
    value.push(key.0);
    value.extend_from_slice(payload);
    let hash = xxhash_rust::xxh3::xxh3_64(&value);
    value.extend_from_slice(&hash.to_le_bytes());
    value
}

/// The operation, key and payload of a value, if its hash is right.
pub fn read_value(value: &[u8]) -> Option<(Number, Key, &[u8])> {
    let (body, hash) = value.split_last_chunk::<8>()?;
    if xxhash_rust::xxh3::xxh3_64(body) != u64::from_le_bytes(*hash) {
        return None;
    }
    let (prefix, payload) = body.split_first_chunk::<PREFIX>()?;
    let [a, b, c, d, key] = *prefix;
    Some((Number(u32::from_le_bytes([a, b, c, d])), Key(key), payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_says_whose_it_is_and_shows_a_changed_byte() {
        let value = value(Number(7), Key(3), b"milk");
        assert_eq!(read_value(&value), Some((Number(7), Key(3), &b"milk"[..])));
        for at in 0..value.len() {
            let mut changed = value.clone();
            changed[at] ^= 1;
            assert_eq!(read_value(&changed), None, "byte {at}");
            assert_eq!(read_value(&value[..at]), None, "{at} bytes");
        }
    }
}
