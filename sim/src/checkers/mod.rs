//! The checkers: one promise, one file, one invariant.
//!
//! Each looks at the same [`Evidence`] after a run and says nothing, or which promise was broken and by which
//! operations. P6 is held against every message and record while the run goes on; P14 needs a second run.

mod dot_set;
mod graph;
pub mod p01_applications;
pub mod p01_durability;
pub mod p02_phantoms;
pub mod p03_context;
pub mod p04_siblings;
pub mod p05_expiry;
pub mod p05_resurrection;
pub mod p07_convergence;
pub mod p08_outcome;
pub mod p09_basis;
pub mod p09_overlap;
pub mod p10_writable;
pub mod p11_memory;
pub mod p13_membership;
mod readings;
#[cfg(test)]
mod sample;
pub mod story;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use ringmain::causality::{Dot, Siblings, VersionVector};
use ringmain::id::NodeId;
use ringmain::time::Instant;

use crate::dots::DotLog;
use crate::history::{History, Key, Number, Operation};
use crate::plan::Application;

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
    /// P11
    Memory,
    /// P13
    Membership,
    /// P14
    Clocks,
    /// Not in the list, and what retries rest on: a write is never applied twice by who knows that it was applied.
    AppliedOnce,
    /// Not in the list, and what a shard says of itself: each request accepted ends in exactly one answer, by its
    /// deadline.
    OneAnswer,
    /// Not in the list, and what the protocol says of routing: who is asked directly passes nothing on, and nobody else is
    /// told `WrongShard`.
    Routing,
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

/// What shards count, by node and shard: as they know it, and counted anew.
pub type Accounts = BTreeMap<(usize, usize), [[usize; 5]; 2]>;

/// What a node thinks of the cluster when all had come to rest.
#[derive(Clone, Debug)]
pub struct Opinion {
    /// Whose.
    pub node: usize,
    /// All whom it knows, in the order of their ids.
    pub members: Vec<NodeId>,
    /// Who holds a share of its ring.
    pub in_ring: Vec<NodeId>,
    /// The hash of its ring.
    pub ring: u64,
    /// How far everybody seems to be with a change of the ring that is under way.
    pub change: Option<String>,
}

/// A delete that had reached all primaries of its key, and when that was first seen.
#[derive(Clone, Copy, Debug)]
pub struct Settled {
    /// The delete.
    pub delete: Number,
    /// No replica may show what it replaced from here on.
    pub at: Instant,
}

/// A key that a node has forgotten, or actors without a version that it has forgotten of one.
#[derive(Clone, Debug)]
pub struct Reaped {
    /// The key.
    pub key: Key,
    /// When.
    pub at: Instant,
    /// What had been seen of it and is forgotten.
    pub gone: VersionVector,
    /// What is still known to have been seen: nothing if the whole key is forgotten.
    pub kept: VersionVector,
    /// The tombstones that stood.
    pub stood: Vec<Dot>,
}

impl Reaped {
    /// Is the whole key forgotten?
    pub fn is_whole(&self) -> bool {
        self.kept.is_empty()
    }

    /// Whoever has seen all that was kept has come by it, and with it by what had been replaced on the way. To be asked
    /// from the last one to the first: what was kept then may be what is gone now.
    pub fn add_to(&self, seen: &mut VersionVector) {
        if seen.includes(&self.kept) {
            seen.merge(&self.gone);
        }
    }
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
    /// Those of them that were removed.
    pub removed: &'a [NodeId],
    /// A client that didn't know the cluster's secret.
    pub intruder: Option<u32>,
    /// Nodes whose copy of a write was destroyed at some time: wiped, or replaced by an older image.
    pub destroyed: &'a BTreeMap<Number, u8>,
    /// Those of them that did not get it back since, from a log that had been put aside.
    pub lost: &'a BTreeMap<Number, u8>,
    /// When two processes that serve had one name: from when the later one served until one of them was fenced or dead.
    pub doubled: &'a [(Instant, Instant)],
    /// When a process waited with a copy of the disk of another, which went on writing, and nobody told it of that.
    pub copied: &'a [(Instant, Instant)],
    /// Of each primary's partition of a key: the root of its hash tree as it is, and as its copies say it should be.
    pub roots: &'a BTreeMap<(Key, usize), [u64; 2]>,
    /// Of each shard, by node: what it has counted as it changed, and the same counted anew.
    pub accounts: &'a Accounts,
    /// Deletes that had settled.
    pub settled: &'a [Settled],
    /// What was forgotten, in the order of time.
    pub reaped: &'a [Reaped],
    /// Keys that some node has put out, since it had no more room, and when one did last: of what was written before, nothing is
    /// promised but what a read may not show.
    pub evicted: &'a BTreeMap<Key, Instant>,
    /// All keys of partitions of which something was put out: no anti-entropy makes their copies alike.
    pub beside_evicted: &'a BTreeSet<Key>,
    /// When some shard had no room in its memory for something.
    pub declined: &'a BTreeSet<Instant>,
    /// The epochs of each key's partition at its primaries.
    pub epochs: &'a BTreeMap<Key, Vec<(usize, u64)>>,
    /// What each key was used for.
    pub applications: &'a [Application],
    /// N.
    pub replicas: u8,
    /// Is there something at work that makes replicas equal, and was it given the time?
    pub converges: bool,
    /// States that anti-entropy has moved since.
    pub moved: u64,
    /// Who held a copy at rest of a key that it doesn't own.
    pub strays: &'a [(usize, Key)],
    /// No wall clock jumped.
    pub steady_clocks: bool,
}

impl Evidence<'_> {
    /// May a write have been put out anywhere since it began?
    pub fn may_be_put_out(&self, operation: &Operation) -> bool {
        self.evicted.get(&operation.key).is_some_and(|last| operation.invoked <= *last)
    }

    /// Had any shard no room for something while it was under way?
    pub fn met_full_memory(&self, operation: &Operation) -> bool {
        let returned = operation.returned.unwrap_or(operation.invoked);
        self.declined.range(operation.invoked..=returned).next().is_some()
    }
}

/// One invariant.
type Checker = fn(&Evidence<'_>) -> Result<(), Violation>;

/// Those that say most about the cause come first: a lie to one client (P8, P2), nodes that disagree on who
/// they are (P13), one wrong version (P3, P4, P5); then what follows from such a thing.
const CHECKERS: [Checker; 14] = [
    p08_outcome::check,
    p02_phantoms::check,
    p13_membership::check,
    p03_context::check,
    p04_siblings::check,
    p05_resurrection::check,
    p05_expiry::check,
    p01_durability::check,
    p01_applications::check,
    p09_basis::check,
    p09_overlap::check,
    p10_writable::check,
    p11_memory::check,
    p07_convergence::check,
];

/// Is any promise broken? Of several, the one that says most about the cause.
pub fn check_all(evidence: &Evidence<'_>) -> Option<Violation> {
    CHECKERS.iter().find_map(|check| check(evidence).err())
}

impl Violation {
    /// Of a promise, at a key, shown by these operations.
    fn at(
        promise: Promise,
        key: Key,
        operations: impl IntoIterator<Item = Number>,
        sentence: String,
    ) -> Self {
        // The history numbers operations in the order of their calls.
        let mut operations: Vec<Number> = operations.into_iter().collect();
        operations.sort_unstable();
        operations.dedup();
        Self { promise, key: Some(key), sentence, operations }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Durability => "P1 Durability",
            Self::NoPhantoms => "P2 No phantoms",
            Self::HonestContext => "P3 Honest context",
            Self::ConcurrentSiblings => "P4 Siblings are concurrent",
            Self::NoResurrection => "P5 No resurrection",
            Self::UniqueDots => "P6 Dots are unique",
            Self::Convergence => "P7 Convergence",
            Self::HonestOutcome => "P8 Honest outcome",
            Self::Overlap => "P9 Overlap",
            Self::AlwaysWritable => "P10 Always writable",
            Self::Memory => "P11 Memory",
            Self::Membership => "P13 Membership",
            Self::Clocks => "P14 Clocks",
            Self::AppliedOnce => "Applied once",
            Self::OneAnswer => "One answer",
            Self::Routing => "Routing",
            Self::NoPanic => "Nothing panics",
            Self::Replay => "Replay",
        })
    }
}

#[cfg(test)]
mod tests;
