//! How an operation ended, and when.

use std::fmt;

use serde::Serialize;

use crate::clock::Moment;
use crate::operation::Kind;

/// Why an operation counts as an error.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// No answer within the deadline.
    Timeout,
    /// A write missed its quorum and may or may not be applied.
    MaybeApplied,
    /// The cluster said it has too much to do.
    Overloaded,
    /// No node could be reached, or all connections were lost.
    Unreachable,
    /// The cluster refused the request for another reason.
    Refused,
    /// The read misses a write that was acknowledged before it was issued.
    Lost,
    /// The read brought a value that was never put on that key.
    Wrong,
    /// Not sent: so many operations were in flight that one more would only measure the generator.
    Unsent,
}

/// How an operation ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Acknowledged, or found and verified.
    Done,
    /// Rightly not found.
    NotFound,
    /// Answered with something behind an acknowledged write, where that is allowed.
    Stale,
    /// An error.
    Failed(Failure),
}

/// An operation that has ended. `due <= sent <= done`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Completion {
    /// What it did.
    pub kind: Kind,
    /// When it was due.
    pub due: Moment,
    /// When it was sent.
    pub sent: Moment,
    /// When its answer had arrived.
    pub done: Moment,
    /// How it ended.
    pub outcome: Outcome,
}

impl Failure {
    /// All failures, in the order of every table.
    pub const ALL: [Self; 8] = [
        Self::Timeout,
        Self::MaybeApplied,
        Self::Overloaded,
        Self::Unreachable,
        Self::Refused,
        Self::Lost,
        Self::Wrong,
        Self::Unsent,
    ];

    /// The failure's place in [`Failure::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// A promise about stored values was broken: no objective can make up for it.
    pub fn breaks_promise(self) -> bool {
        matches!(self, Self::Lost | Self::Wrong)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Timeout => "timeout",
            Self::MaybeApplied => "maybe applied",
            Self::Overloaded => "overloaded",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::Lost => "lost",
            Self::Wrong => "wrong",
            Self::Unsent => "unsent",
        })
    }
}

impl Completion {
    /// What the user of an open system waits: from the moment the operation was due.
    pub fn due_latency_ns(&self) -> u64 {
        self.done.since_ns(self.due)
    }

    /// What the server and the way to it took.
    pub fn service_latency_ns(&self) -> u64 {
        self.done.since_ns(self.sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_know_their_place() {
        assert!(Failure::ALL.iter().enumerate().all(|(place, failure)| failure.index() == place));
    }
}
