//! One operation of a run: what to do to which key, and when it is due.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

/// The kinds of operation, in the order of every table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A get, whose answer is verified.
    Read,
    /// A put that overwrites.
    Write,
    /// A delete that overwrites.
    Delete,
}

/// The number of a key, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key(pub u64);

/// One operation, as the pacer hands it to the sending side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Operation {
    /// Its place in the run, from 0. Values carry it.
    pub number: u64,
    /// What to do.
    pub kind: Kind,
    /// To which key.
    pub key: Key,
    /// For a write, the length of the value in bytes; else 0.
    pub value_len: u32,
    /// For a write, how long the value lives; `None` for ever.
    pub lifetime: Option<Duration>,
    /// When it is due, in nanoseconds from the start of the run.
    pub due_ns: u64,
}

impl Kind {
    /// All kinds, in the order of every table.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Delete];

    /// The kind's place in [`Kind::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Delete => "delete",
        })
    }
}

impl Key {
    /// How many keys have a text of fixed width.
    pub const COUNT_MAX: u64 = 10_000_000_000;

    /// The key as the store sees it, such as `key:0000000123`: the same length for all, so that key sizes
    /// add no noise to what is measured.
    pub fn text(self) -> Bytes {
        debug_assert!(self.0 < Self::COUNT_MAX, "key {} doesn't fit its text", self.0);
        Bytes::from(format!("key:{:010}", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_texts_have_one_width() {
        assert_eq!(Key(123).text(), "key:0000000123");
        assert_eq!(Key(Key::COUNT_MAX - 1).text(), "key:9999999999");
    }

    #[test]
    fn kinds_know_their_place() {
        assert!(Kind::ALL.iter().enumerate().all(|(place, kind)| kind.index() == place));
    }
}
