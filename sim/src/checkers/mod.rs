//! The checkers: one promise, one file, one invariant.
//!
//! Each looks at the same [`Evidence`] after a run and says nothing, or which promise was broken and by which
//! operations. P6 is held against every message and record while the run goes on; P14 needs a second run.

use std::collections::BTreeMap;

use bytes::Bytes;
use ringmain::causality::Siblings;
use ringmain::id::NodeId;
use ringmain::time::Instant;

use crate::dots::DotLog;
use crate::history::{History, Key, Number};

/// A promise of `PROMISES.md`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Promise {
    /// P1
    Durability,
    /// P2
    NoPhantoms,
    /// P3
    HonestContext,
    /// P4
    ConcurrentSiblings,
    /// P5
    NoResurrection,
    /// P6
    UniqueDots,
    /// P7
    Convergence,
    /// P8
    HonestOutcome,
    /// P9
    Overlap,
    /// P10
    AlwaysWritable,
    /// P13
    Membership,
    /// P14
    Clocks,
    /// Not in the list, since it goes without saying: nothing panics.
    NoPanic,
    /// The simulator's own promise: a seed has one course.
    Replay,
}

/// A promise that was broken, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which.
    pub promise: Promise,
    /// At which key, if it was one's.
    pub key: Option<Key>,
    /// What happened, in a sentence.
    pub sentence: String,
    /// The operations that show it, in the order of their calls.
    pub operations: Vec<Number>,
}

/// The copy of a key on a node when all had come to rest.
#[derive(Clone, Debug)]
pub struct Copy {
    /// Where.
    pub node: usize,
    /// Of what.
    pub key: Key,
    /// All of it.
    pub state: Siblings<Bytes>,
}

/// What a node thinks of the cluster when all had come to rest.
#[derive(Clone, Debug)]
pub struct Opinion {
    /// Whose.
    pub node: usize,
    /// All whom it knows, in the order of their ids.
    pub members: Vec<NodeId>,
    /// The hash of its ring.
    pub ring: u64,
}

/// A delete that had reached all primaries of its key, and when that was first seen.
#[derive(Clone, Copy, Debug)]
pub struct Settled {
    /// The delete.
    pub delete: Number,
    /// No replica may show what it replaced from here on.
    pub at: Instant,
}

/// All that a run has left for the checkers.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// What the clients did and saw.
    pub history: &'a History,
    /// What was minted.
    pub dots: &'a DotLog,
    /// The primaries of each key: their numbers.
    pub primaries: &'a BTreeMap<Key, Vec<usize>>,
    /// The primaries' copies at rest.
    pub copies: &'a [Copy],
    /// Every node's opinion at rest.
    pub opinions: &'a [Opinion],
    /// The members that the cluster has, in the order of their ids.
    pub members: &'a [NodeId],
    /// Copies of each write that were destroyed: wiped, or replaced by an older image.
    pub destroyed: &'a BTreeMap<Number, u8>,
    /// Deletes that had settled.
    pub settled: &'a [Settled],
    /// N.
    pub replicas: u8,
    /// Is there something at work that makes replicas equal, and was it given the time?
    pub converges: bool,
}

pub fn check_all(_: &Evidence<'_>) -> Option<Violation> {
    None
}
pub fn tell(_: &History, _: &DotLog, violation: &Violation) -> String {
    violation.sentence.clone()
}
