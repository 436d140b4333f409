//! What was written to each key, and so what a read may answer.
//!
//! The generator is the only writer, so it can judge every read. A write is an interval: from the moment it
//! was issued until its **end**, the moment after which it can no longer take effect:
//!
//! - acknowledged: the moment of the acknowledgement;
//! - in flight: never, so far;
//! - unknown (a timeout, `MaybeApplied`): a moment the caller states, its deadline with a margin;
//! - unknown to servers without deadlines: never;
//! - refused (certainly not applied): it has no interval, and its value must never be seen;
//! - dropped (not applied, but its key may be empty): the moment of that answer, as a delete that may have been.
//!
//! A delete is a write of "not found". What was there before the run (nothing, or an earlier run's value)
//! is a write that ended before all others.
//!
//! **The rule.** A read that was issued at `r` may answer with write `w` unless some write `v` was issued
//! after `w` had ended, and was acknowledged before `r`. Then `w` < `v` < read in real time, and `w` is
//! **behind**. Writes that overlap each other may have taken effect in either order (the last writer wins
//! as coordinators see it), and a write that overlaps the read may be seen or not; so both are allowed. A
//! linearizable register is never blamed, and an acknowledged write that is dropped shows at the next read
//! that overlaps nothing (both tested). The order in which two reads see overlapping writes is not judged:
//! this is a regular register, not an atomic one, as quorums without write-back promise no more.
//!
//! The rule needs one figure per read, its **barrier**: the latest issue moment among all writes to the key
//! acknowledged before `r`. Write `w` is allowed if and only if it ended at or after the barrier.
//!
//! A value with a lifetime is gone some time after its write was issued and that lifetime has passed, by servers'
//! clocks that may be a second ahead: from then on, "not found" is as right an answer as the value. That an
//! expired value isn't served any longer is not judged.
//!
//! It presumes R + W > N, and servers' clocks that differ by less than the time between an acknowledgement
//! and the next write of the key, because the server picks among concurrent versions by timestamp. Where
//! that doesn't hold, a read that is behind is no fault: [`Consistency`] says which of the two it is.
//!
//! Memory: 32 bytes for each key, made for 4096 neighbours when the first of them is touched: keys that a growing load could
//! insert, and doesn't, take none. While operations of a key are in flight, some 100 more and 32 for each write that may still
//! be answered. What is behind every barrier is forgotten.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use crate::clock::Moment;
use crate::operation::Key;
use crate::value::Verified;

mod history;

use history::History;

/// All keys' histories. Operation numbers must rise from one write of a key to the next.
#[derive(Debug)]
pub struct Ledger {
    numbers: Range<u64>,
    /// By the number of the first key of each; as long as it has to be, and no copy of it is large.
    blocks: Vec<Option<Box<[History]>>>,
}

/// Keys of a block: so few that making one doesn't hold up what is due.
const BLOCK_LEN: u64 = 4096;

/// What a write leaves behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// The key has the operation's value.
    Value,
    /// The key has the operation's value, and is not found after so many tenths of a second.
    Expiring(u32),
    /// The key is not found.
    Absent,
}

/// Held while a read is in flight; it must be given back to [`Ledger::read_answered`] or
/// [`Ledger::read_failed`].
#[must_use = "a read that is never given back keeps the key's history from being forgotten"]
#[derive(Debug)]
pub struct ReadTicket {
    key: Key,
    barrier: Moment,
}

/// What a read brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// Nothing.
    NotFound,
    /// A value that passed verification.
    Value(Verified),
}

/// The judgement on a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Allowed.
    Right,
    /// A write acknowledged before the read was issued is missing from the answer.
    Behind,
    /// The value of a write that was reported as refused, or of a delete.
    Phantom,
}

/// What a read that is behind means.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Consistency {
    /// R + W > N: the write is lost, which is an error.
    #[default]
    Strict,
    /// Otherwise: the answer is stale, which is counted but no error.
    Eventual,
}

/// A consistency that is not known.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "'{0}' is no known consistency: write strict (a read behind a write is an error) or eventual (counted)"
)]
pub struct ConsistencyError(String);

impl Ledger {
    /// For these keys, and no others.
    pub fn new(numbers: Range<u64>) -> Self {
        Self { numbers, blocks: Vec::new() }
    }

    /// A write is about to be sent.
    pub fn write_issued(&mut self, key: Key, number: u64, effect: Effect, at: Moment) {
        self.history(key).issue(number, effect, at);
    }

    /// A write is acknowledged: from now on, reads must see it or something no older.
    pub fn write_acknowledged(&mut self, key: Key, number: u64, at: Moment) {
        self.history(key).acknowledge(number, at);
    }

    /// A write was certainly not applied.
    pub fn write_refused(&mut self, key: Key, number: u64, at: Moment) {
        self.history(key).refuse(number, at);
    }

    /// Nobody knows about a write; it may take effect up to `until`, and not after.
    pub fn write_unknown(&mut self, key: Key, number: u64, until: Moment) {
        self.history(key).give_up(number, until);
    }

    /// A write was certainly not applied, but what the key had before may be gone since.
    pub fn write_dropped(&mut self, key: Key, number: u64, at: Moment) {
        self.history(key).empty(number, at);
    }

    /// A read is about to be sent.
    pub fn read_issued(&mut self, key: Key) -> ReadTicket {
        ReadTicket { key, barrier: self.history(key).issue_read() }
    }

    /// Judges a read's answer, which arrived at this moment.
    #[expect(clippy::needless_pass_by_value, reason = "a ticket is given back once")]
    pub fn read_answered(&mut self, ticket: ReadTicket, seen: Seen, at: Moment) -> Verdict {
        let history = self.history(ticket.key);
        let verdict = history.judge(ticket.barrier, seen, at);
        history.end_read(ticket.barrier);
        verdict
    }

    /// A read brought no answer, and is not judged.
    #[expect(clippy::needless_pass_by_value, reason = "a ticket is given back once")]
    pub fn read_failed(&mut self, ticket: ReadTicket) {
        self.history(ticket.key).end_read(ticket.barrier);
    }

    fn history(&mut self, key: Key) -> &mut History {
        assert!(self.numbers.contains(&key.0), "{key:?} is none of {:?}", self.numbers);
        let place = key.0 - self.numbers.start;
        let (block, place) = ((place / BLOCK_LEN) as usize, (place % BLOCK_LEN) as usize);
        if block >= self.blocks.len() {
            self.blocks.resize_with(block + 1, || None);
        }
        let keys = (self.numbers.end - self.numbers.start - block as u64 * BLOCK_LEN).min(BLOCK_LEN);
        let histories = || std::iter::repeat_with(History::default).take(keys as usize).collect();
        &mut self.blocks[block].get_or_insert_with(histories)[place]
    }
}

impl Effect {
    /// What a write with this lifetime leaves behind. What lives longer than 13 years lives for ever.
    pub fn of_value(lifetime: Option<Duration>) -> Self {
        let tenths = lifetime.map(|lifetime| lifetime.as_millis() / 100);
        tenths.and_then(|tenths| u32::try_from(tenths).ok()).map_or(Self::Value, Self::Expiring)
    }
}

impl FromStr for Consistency {
    type Err = ConsistencyError;

    fn from_str(text: &str) -> Result<Self, ConsistencyError> {
        match text {
            "strict" => Ok(Self::Strict),
            "eventual" => Ok(Self::Eventual),
            _ => Err(ConsistencyError(text.to_owned())),
        }
    }
}

impl fmt::Display for Consistency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Strict => "strict",
            Self::Eventual => "eventual",
        })
    }
}

#[cfg(test)]
mod tests;
