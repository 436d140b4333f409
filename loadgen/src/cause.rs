//! Why a run is no PASS, in one word: what whoever goes on from it must know.
//!
//! A reason is for people; a search, a sweep or a script must tell a server at its limit from a broken one, and either
//! from a run that shows nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What stood in the way of a PASS. Where several things did, the first in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A read missed an acknowledged write, or brought a value never put on its key.
    BrokenPromise,
    /// A node ended by itself, or didn't end when it was asked to.
    NodeEnded,
    /// The run was stopped before its end.
    Stopped,
    /// The generator itself could not offer the load.
    GeneratorLimited,
    /// More than half of the operations reached no server.
    Unreachable,
    /// Too large a share of the operations failed.
    Errors,
    /// Too large a share of the reads missed an acknowledged write.
    Stale,
    /// A latency was beyond its limit.
    Latency,
    /// There were too few operations to tell.
    TooFew,
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::BrokenPromise => "broken promise",
            Self::NodeEnded => "node ended",
            Self::Stopped => "stopped",
            Self::GeneratorLimited => "generator limited",
            Self::Unreachable => "unreachable",
            Self::Errors => "errors",
            Self::Stale => "stale",
            Self::Latency => "latency",
            Self::TooFew => "too few",
        })
    }
}
