//! The bugs that can be planted, and how soon the simulator must find each.
//!
//! The first list is that of `PROMISES.md`: bugs that other stores have shipped. Where the mechanism that a bug
//! would sit in does not exist yet, the bug waits for it. The second list has one bug for each promise that the
//! first leaves untried, so that no checker is one that can't fail.

use ringmain::failpoint::Bug;

use crate::checkers::Promise;

/// A bug to be found.
#[derive(Clone, Copy, Debug)]
pub struct Planted {
    /// What `--planted` takes.
    pub name: &'static str,
    /// What it is.
    pub bug: Bug,
    /// Where it was shipped, or that it is our own.
    pub shipped: &'static str,
    /// Which promises it may be seen to break.
    pub breaks: &'static [Promise],
    /// It must be found within so many seeds: the median of five bases; one base within three times as many.
    pub seeds: u64,
}

/// A bug of the list that can't be planted yet.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    /// Its number in the list, and what it is.
    pub bug: &'static str,
    /// What it waits for.
    pub until: &'static str,
}

use Promise::{
    AlwaysWritable, AppliedOnce, Clocks, ConcurrentSiblings, Convergence, Durability, HonestContext,
    HonestOutcome, Membership, Memory, NoPhantoms, NoResurrection, Overlap, UniqueDots,
};

/// All that can be planted.
pub const PLANTED: [Planted; 32] = [
    Planted {
        name: "limit-ignored",
        bug: Bug::LimitIgnored,
        shipped: "our own",
        breaks: &[Memory],
        seeds: 500,
    },
    Planted {
        name: "late-load-wins",
        bug: Bug::LateLoadWins,
        shipped: "our own",
        breaks: &[
            UniqueDots,
            Durability,
            Overlap,
            HonestContext,
            ConcurrentSiblings,
            NoResurrection,
            Convergence,
        ],
        seeds: 1_000,
    },
    Planted {
        name: "evicted-mints-on",
        bug: Bug::EvictedMintsOn,
        shipped: "our own",
        breaks: &[UniqueDots, HonestContext, ConcurrentSiblings, Durability],
        seeds: 5_000,
    },
    Planted {
        name: "reaped-with-its-actor",
        bug: Bug::ReapedWithItsActor,
        shipped: "2: riak_kv PR 1094",
        breaks: &[UniqueDots, Durability, HonestContext, ConcurrentSiblings],
        seeds: 5_000,
    },
    Planted {
        name: "reap-ignores-hints",
        bug: Bug::ReapIgnoresHints,
        shipped: "5: scylla #23712",
        breaks: &[NoResurrection, ConcurrentSiblings, Durability, UniqueDots],
        seeds: 5_000,
    },
    Planted {
        name: "any-epoch-is-taken",
        bug: Bug::AnyEpochIsTaken,
        shipped: "our own",
        breaks: &[Membership, NoResurrection],
        seeds: 500,
    },
    Planted {
        name: "acknowledges-unmet",
        bug: Bug::AcknowledgesUnmet,
        shipped: "our own",
        breaks: &[Durability, NoResurrection, Overlap, Membership],
        seeds: 5_000,
    },
    Planted {
        name: "hints-drained-before-move",
        bug: Bug::HintsDrainedBeforeMove,
        shipped: "6: scylla #24980",
        breaks: &[Durability, Convergence, Overlap],
        seeds: 2_000,
    },
    Planted {
        name: "compaction-drops-tombstones",
        bug: Bug::CompactionDropsTombstones,
        shipped: "3: bitcask #82",
        breaks: &[NoResurrection, Durability, HonestContext, Overlap],
        seeds: 1_000,
    },
    Planted {
        name: "hints-forgotten-at-restart",
        bug: Bug::HintsForgottenAtRestart,
        shipped: "4: riak_core #154, riak_kv #847",
        breaks: &[Durability, Convergence, Overlap],
        seeds: 500,
    },
    Planted {
        name: "failed-replay-is-done",
        bug: Bug::FailedReplayIsDone,
        shipped: "5, in part: scylla #24415",
        breaks: &[Durability, Convergence, Overlap, NoResurrection],
        seeds: 5_000,
    },
    Planted {
        name: "old-actor-from-one",
        bug: Bug::OldActorFromOne,
        shipped: "1: riak_kv #679",
        breaks: &[UniqueDots, Durability, HonestContext, ConcurrentSiblings],
        seeds: 500,
    },
    Planted {
        name: "old-actor-at-shard-counter",
        bug: Bug::OldActorAtShardCounter,
        shipped: "1: riak_kv #679, apart",
        breaks: &[UniqueDots, Durability, HonestContext, ConcurrentSiblings, Overlap],
        seeds: 500,
    },
    Planted {
        name: "generation-by-clock",
        bug: Bug::GenerationByClock,
        shipped: "9: CASSANDRA-10969, scylla #5164",
        breaks: &[AlwaysWritable, Clocks],
        seeds: 2_000,
    },
    Planted {
        name: "heartbeat-beats-incarnation",
        bug: Bug::HeartbeatBeatsIncarnation,
        shipped: "10: scylla PR 5801",
        breaks: &[AlwaysWritable],
        seeds: 2_000,
    },
    Planted {
        name: "last-segment-not-rehashed",
        bug: Bug::LastSegmentNotRehashed,
        shipped: "12: riak_core PR 830",
        // A former owner goes by the trees too when it gives up its copies.
        breaks: &[Convergence, Durability],
        seeds: 2_000,
    },
    Planted {
        name: "any-cluster-is-mine",
        bug: Bug::AnyClusterIsMine,
        shipped: "13: consul #843",
        breaks: &[Membership, AlwaysWritable, Convergence],
        seeds: 1_000,
    },
    Planted {
        name: "removed-readmitted",
        bug: Bug::RemovedReadmitted,
        shipped: "13, in part: scylla #11217",
        // Who is back counts towards W, and what it holds is nobody's copy.
        breaks: &[Membership, Durability],
        seeds: 1_000,
    },
    Planted {
        name: "timeout-is-failure",
        bug: Bug::TimeoutIsFailure,
        shipped: "15: Aerospike 3.99",
        breaks: &[HonestOutcome, AppliedOnce],
        seeds: 200,
    },
    Planted {
        name: "acknowledged-too-early",
        bug: Bug::AcknowledgedTooEarly,
        shipped: "our own",
        breaks: &[Durability, Overlap, UniqueDots],
        seeds: 500,
    },
    Planted {
        name: "last-writer-wins",
        bug: Bug::LastWriterWins,
        shipped: "our own",
        breaks: &[Durability, HonestContext, Convergence, Clocks],
        seeds: 50,
    },
    Planted {
        name: "value-truncated",
        bug: Bug::ValueTruncated,
        shipped: "our own",
        breaks: &[NoPhantoms, UniqueDots],
        seeds: 50,
    },
    Planted {
        name: "context-of-the-unseen",
        bug: Bug::ContextOfTheUnseen,
        shipped: "our own",
        breaks: &[HonestContext],
        seeds: 50,
    },
    Planted {
        name: "replaced-is-kept",
        bug: Bug::ReplacedIsKept,
        shipped: "our own",
        breaks: &[ConcurrentSiblings, NoResurrection],
        seeds: 50,
    },
    Planted {
        name: "tombstone-forgotten",
        bug: Bug::TombstoneForgotten,
        shipped: "our own",
        breaks: &[NoResurrection, Overlap, Durability, HonestContext],
        seeds: 200,
    },
    Planted {
        name: "nobody-repaired",
        bug: Bug::NobodyRepaired,
        shipped: "our own",
        breaks: &[Convergence],
        seeds: 50,
    },
    Planted {
        name: "incomplete-counts",
        bug: Bug::IncompleteCounts,
        shipped: "our own",
        breaks: &[Overlap],
        seeds: 500,
    },
    Planted {
        name: "newcomer-counts-at-once",
        bug: Bug::NewcomerCountsAtOnce,
        shipped: "our own",
        breaks: &[Overlap, Durability, Convergence],
        seeds: 500,
    },
    Planted {
        name: "clone-accepted",
        bug: Bug::CloneAccepted,
        shipped: "our own",
        breaks: &[Membership],
        seeds: 1_000,
    },
    Planted {
        name: "background-starves",
        bug: Bug::BackgroundStarves,
        shipped: "our own",
        // A node that lost its records and never streams them again leaves reads without a quorum, too.
        breaks: &[Convergence, AlwaysWritable],
        seeds: 500,
    },
    Planted {
        name: "departed-drops-at-once",
        bug: Bug::DepartedDropsAtOnce,
        shipped: "our own",
        breaks: &[Durability, AppliedOnce],
        seeds: 500,
    },
    Planted {
        name: "clock-must-advance",
        bug: Bug::ClockMustAdvance,
        shipped: "our own",
        breaks: &[AlwaysWritable, Clocks],
        seeds: 500,
    },
];

/// What waits, and for what.
pub const WAITING: [Waiting; 5] = [
    Waiting {
        bug: "8: segment ids from the monotonic clock (the crash images find it, in every run)",
        until: "records whose order matters: here states merge, whichever comes first",
    },
    Waiting {
        bug: "11: one torn tail record is assumed, a misdirected one is trusted (the crash images find both, in every run)",
        until: "reads while a node serves: here a disk is read at starts alone",
    },
    Waiting {
        bug: "7: no generation in the check of a record, bad ones skipped silently (the crash images find both, in every run)",
        until: "nothing: it is about bytes, not about clusters",
    },
    Waiting {
        bug: "14: an assertion on an opcode after a yield, allocation by claimed length",
        until: "fuzzing",
    },
    Waiting {
        bug: "our own: a read that began before a raise repairs after it",
        until: "a search long enough",
    },
];

/// The bug of this name.
pub fn by_name(name: &str) -> Option<&'static Planted> {
    PLANTED.iter().find(|planted| planted.name == name)
}
