//! What recovery has to tell, in places and sequences.

use std::fmt;

use super::{Range, Segment};

/// What was found when a log was read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Records that stand.
    pub records: u64,
    /// All records up to this sequence were durable, as the log itself says.
    pub durable: u64,
    /// In the order of the log.
    pub damages: Vec<Damage>,
    /// How the log ended.
    pub tail: Tail,
}

/// Bytes that were durable once and can't be read, or read as something else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Damage {
    /// In this segment.
    pub segment: Segment,
    /// From this offset on.
    pub from: u32,
    /// Up to this one.
    pub to: u32,
    /// The records that are lost with them; `None` if they held none.
    pub missing: Option<Range>,
}

/// What came after all that is known to have been durable. Nobody was promised any of it, as far as the log can tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tail {
    /// Records that are whole and follow one another without a hole: they are kept.
    pub kept: u64,
    /// Whole records beyond a hole: they are dropped.
    pub dropped: u64,
    /// A group is not whole.
    pub is_torn: bool,
}

impl Report {
    /// Nothing is damaged?
    pub fn is_clean(&self) -> bool {
        self.damages.is_empty()
    }

    /// How many records are lost.
    pub fn missing(&self) -> u64 {
        self.damages.iter().filter_map(|damage| damage.missing).map(Range::count).sum()
    }
}

impl Range {
    /// How many records; at least 1.
    pub const fn count(self) -> u64 {
        self.last - self.first + 1
    }

    /// Is this one of them?
    pub const fn contains(self, sequence: u64) -> bool {
        self.first <= sequence && sequence <= self.last
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, from, to, missing } = self;
        write!(f, "slot {} (segment {}), bytes {from} to {to}: ", segment.slot.0, segment.id.0)?;
        match missing {
            Some(Range { first, last }) if first == last => write!(f, "record {first} is lost"),
            Some(Range { first, last }) => write!(f, "records {first} to {last} are lost"),
            None => f.write_str("damaged, no record is lost"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { records, durable, damages, tail } = self;
        write!(f, "{records} records stand, all up to {durable} were durable; ")?;
        write!(f, "beyond it {} were kept and {} dropped", tail.kept, tail.dropped)?;
        f.write_str(if tail.is_torn { ", and a group is torn" } else { "" })?;
        for damage in damages {
            write!(f, "\n{damage}: repair from the replicas")?;
        }
        Ok(())
    }
}
