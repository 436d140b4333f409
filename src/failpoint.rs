//! Failpoints: where the simulator may meddle with the core, and what it is told there.
//!
//! A simulator that finds nothing proves nothing until it has found bugs that are known to be there. So the
//! core names a few places where a bug can be planted ([`Bug`]), where of two correct choices the rare one can
//! be forced ([`Choice`]), and where it tells that it has reached a rare state ([`Rare`]) or minted a dot. All
//! of it goes through a type parameter: in production that is [`NoFailpoints`], which has no size, and
//! whose answers are constants, so that nothing of this file is left in the program. It is never a feature of
//! the crate, which a build of the whole workspace would switch on in the server.

use std::fmt;

use bytes::Bytes;

use crate::causality::{Dot, Siblings, VersionVector};
use crate::id::OperationId;

/// What the simulator may do inside the core. Every default is what production does.
pub trait Failpoints: Clone + fmt::Debug {
    /// Is anybody there? What is computed for the simulator alone is computed only then.
    const WATCHED: bool = true;

    /// Is this bug planted?
    #[inline]
    fn planted(&self, _bug: Bug) -> bool {
        false
    }

    /// Make the rare one of two correct choices?
    #[inline]
    fn rare(&self, _choice: Choice) -> bool {
        false
    }

    /// A rare state was reached.
    #[inline]
    fn reached(&self, _state: Rare) {}

    /// A dot was minted.
    #[inline]
    fn minted(&self, _minted: &Minted<'_>) {}

    /// A former owner gave up its copy of a key.
    #[inline]
    fn gave_up(&self, _key: &[u8], _state: &Siblings<Bytes>) {}

    /// All that is known of a key was forgotten, in a raise of its partition's epoch.
    #[inline]
    fn reaped(&self, _key: &[u8], _state: &Siblings<Bytes>) {}

    /// Of a key that stays, actors without a version are about to be forgotten; this is what was known of it.
    #[inline]
    fn pruned(&self, _key: &[u8], _state: &Siblings<Bytes>) {}

    /// A key was put out, since there was no more room, with this state.
    #[inline]
    fn evicted(&self, _key: &[u8], _state: &Siblings<Bytes>) {}

    /// There was no room for something, and nobody left to put out for it.
    #[inline]
    fn declined(&self) {}

    /// A copy of an older epoch was wiped, with this state.
    #[inline]
    fn wiped(&self, _key: &[u8], _state: &Siblings<Bytes>) {}

    /// How a node numbers the incarnation that counting gives this number: for [`Bug::GenerationByClock`].
    #[inline]
    fn generation(&self, counted: u64) -> u64 {
        counted
    }

    /// How the log numbers the segment that counting gives this number: for [`Bug::SegmentIdByClock`].
    #[inline]
    fn segment_id(&self, counted: u64) -> u64 {
        counted
    }

    /// May a member have an incarnation of this number? For [`Bug::GenerationByClock`].
    #[inline]
    fn accepts_generation(&self, _incarnation: u64) -> bool {
        true
    }
}

/// Production: nobody meddles.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NoFailpoints;

impl Failpoints for NoFailpoints {
    const WATCHED: bool = false;
}

/// A version that has just been minted.
#[derive(Clone, Copy, Debug)]
pub struct Minted<'a> {
    /// Of this key.
    pub key: &'a [u8],
    /// Its name.
    pub dot: Dot,
    /// What it replaced: its client's context, or, for an overwrite, all that its coordinator had.
    pub covered: &'a VersionVector,
    /// `None` for a tombstone.
    pub value: Option<&'a [u8]>,
    /// The write.
    pub operation: OperationId,
}

/// A bug that can be planted. The first group was shipped elsewhere; the second is one for each promise that
/// the first leaves untried.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Bug {
    /// `riak_kv` #679: a key that isn't found is minted under the old actor, its counter at 1.
    OldActorFromOne,
    /// The same, at the shard's own counter: what others hold of that actor seems to have been seen.
    OldActorAtShardCounter,
    /// CASSANDRA-10969, scylla #5164: incarnations are times, and one more than a year ahead is refused.
    GenerationByClock,
    /// scylla PR 5801: an old record with the highest heartbeat beats a new incarnation.
    HeartbeatBeatsIncarnation,
    /// consul #843: the cluster's id is not checked.
    AnyClusterIsMine,
    /// `riak_core` PR 830: a delete in the last segment of a hash tree that holds anything is not rehashed.
    LastSegmentNotRehashed,
    /// Aerospike 3.99 (Jepsen): a write that timed out is reported as failed.
    TimeoutIsFailure,
    /// `riak_core` #154: what is kept for others is forgotten when its keeper restarts.
    HintsForgottenAtRestart,
    /// scylla #24415: a hint is dropped when it is sent, whether it arrives or not.
    FailedReplayIsDone,
    /// scylla #24980: what is kept for a node that owns the key no more is dropped.
    HintsDrainedBeforeMove,
    /// `riak_kv` PR 1094, the doomstone: a tombstone is reaped with all that is known of who wrote the key, so that the
    /// next write starts from the first dot.
    ReapedWithItsActor,
    /// scylla #23712: a member promises to keep nothing old while it holds a hint, and hands it over later.
    ReapIgnoresHints,
    /// scylla #11217: a removed node that starts again is taken for a member.
    RemovedReadmitted,

    /// bitcask #82: what compaction finds deleted is dropped, though older values of it lie elsewhere.
    CompactionDropsTombstones,

    /// scylla #4700: the checksum of a record knows nothing of the segment's number.
    NoGenerationInChecksum,
    /// scylla #3847: what is damaged is skipped, and nobody hears of it.
    BadChunksSkipped,
    /// CASSANDRA-4782: segments are numbered by a clock that a reboot sets back.
    SegmentIdByClock,
    /// tigerbeetle PR 2345: at most one torn record ends a log; more of them count as damage.
    OneTornRecordAssumed,
    /// tigerbeetle PR 2711: what was written to a wrong place is believed there.
    MisdirectedTrusted,

    /// A write is acknowledged before its record is on stable storage.
    AcknowledgedTooEarly,
    /// The value with the greatest timestamp wins, and concurrent ones are dropped.
    LastWriterWins,
    /// Values lose their last byte.
    ValueTruncated,
    /// A reader of the latest of several versions gets a context that covers them all.
    ContextOfTheUnseen,
    /// A put keeps the versions that it replaces.
    ReplacedIsKept,
    /// A key is forgotten as soon as all its versions are tombstones.
    TombstoneForgotten,
    /// Stale replicas are found and not repaired.
    NobodyRepaired,
    /// A replica that restarted empty counts in reads as if it were complete.
    IncompleteCounts,
    /// A newcomer counts in reads before it has streamed what it owns.
    NewcomerCountsAtOnce,
    /// A former owner drops its copies as soon as all work by the new ring, whoever else has them.
    DepartedDropsAtOnce,
    /// Two processes under one name are both taken for the node.
    CloneAccepted,
    /// Background work that was once held back for clients is held back for ever.
    BackgroundStarves,
    /// Nobody looks at the epoch of a copy.
    AnyEpochIsTaken,
    /// A read that began before a raise repairs after it.
    OldReadRepairs,
    /// A node that lost its records acknowledges writes before anybody has noted that.
    AcknowledgesUnmet,
    /// A put is refused while the coordinator's clock is behind a version's timestamp.
    ClockMustAdvance,
    /// Nothing is put out or refused, whatever the limit on memory.
    LimitIgnored,
    /// A key that was put out and has come back is minted under the actor that it had.
    EvictedMintsOn,
    /// Values that were read from the disk are put back with all that was known of their key then, though it was written since.
    LateLoadWins,
}

/// A choice between two correct ways, of which production takes the first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Choice {
    /// Tell all primaries, or just as many as the quorum needs.
    SmallestQuorum,
    /// Wait a little for the last replicas of a read, or not at all.
    NoLinger,
    /// Mint on under the actor in the record, or open a new epoch.
    FreshEpoch,
    /// Suspect a silent peer when its time has come, or now.
    SuspectedEarly,
    /// Reap what was deleted when it was last looked at too, or at once.
    EarlyReap,
    /// Put a key out when there is no more room, or now; asked where there is a limit alone.
    EvictEarly,
}

/// A state that is seldom reached, and where bugs are at home.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Rare {
    /// A retry found the version that it had left before.
    RetryFoundItsVersion,
    /// A retry came after its version had been replaced.
    RetryFoundItselfReplaced,
    /// One operation stands under two dots.
    TwinsMet,
    /// A tombstone stands beside a concurrent value.
    TombstoneBesideValue,
    /// Of one dot, the value here met the tombstone of a replica where it had expired.
    ExpiredElsewhere,
    /// A put was refused since the key had as many siblings as it may.
    SiblingsFull,
    /// A read counted all N, since too few of them were complete.
    UnionOfAll,
    /// A read could not show what its client had seen.
    StaleRead,
    /// A read repaired its own coordinator.
    CoordinatorRepaired,
    /// A put ended without W acknowledgements.
    QuorumMissed,
    /// A put was refused before it began, since too few replicas could be reached.
    TooFewReachable,
    /// A state that was no news waited for the record that covers it.
    NoNewsWaitedForRecord,
    /// A relayed write lost its coordinator.
    RelayLost,
    /// A link was replaced by a newer connection.
    LinkReplaced,
    /// A node waited in vain for another to call it, and called.
    CalledByTheGreater,
    /// A table was full.
    TableFull,
    /// Two hash trees differed in one leaf alone of a branch.
    DifferenceInOneLeaf,
    /// An exchange of anti-entropy was given up.
    ExchangeAbandoned,
    /// A node came back with less than others remember of it.
    CameBackOlder,
    /// A node came back with all that it had acknowledged.
    CameBackWhole,
    /// A node came back without its disk.
    CameBackEmpty,
    /// A node that is no primary of a key coordinated a request for it.
    FallbackCoordinated,
    /// A write was acknowledged with a fallback's help.
    FallbackCounted,
    /// A read rested on what a fallback keeps.
    FallbackRead,
    /// A write was kept for a primary that could not be reached.
    HintKept,
    /// A fallback had no room for a hint.
    HintDeclined,
    /// A hint arrived where it belongs.
    HintHandedOver,
    /// A hint outlived its keeper's restart.
    HintRecovered,
    /// A node had streamed partitions that it lacked from another owner.
    Streamed,
    /// All members had confirmed the last step of a change of the ring.
    RingChanged,
    /// A former owner had found that all owners hold what it did, and gave its copies up.
    CopiesGivenUp,
    /// A removed node heard of it, and stopped serving.
    Fenced,
    /// A removed node asked for something before it had heard of it.
    RemovedRefused,
    /// A process heard that another had taken its name over, and stopped serving.
    CloneFenced,
    /// A process was turned away, since another under its name was there.
    CloneTurnedAway,
    /// A log was damaged, and said so.
    DamageFound,
    /// A node wrote under an actor that it had not used before, though it had others.
    ActorRenewed,
    /// A process that was turned away had records, which may be a copy of the other one's.
    CopyTurnedAway,
    /// Two processes under one name both served, and the one that the others had not known was let in to hear of it.
    ServingCloneLetIn,
    /// A peer had no budget for what it was asked.
    ExchangeRefused,
    /// Background work had to wait, since its budget had been cut for clients.
    BackgroundHeldBack,
    /// A shard's log took nothing new for a while.
    LogRefuses,
    /// What was needed of old records of a log was appended anew.
    Compacted,
    /// A key that was deleted was forgotten.
    Reaped,
    /// Counters of actors without a version were forgotten.
    Pruned,
    /// A node was told something of an epoch that is over there.
    OlderRefused,
    /// A copy of an epoch that is over was wiped.
    OlderCopyWiped,
    /// A primary that had missed a raise followed it.
    CaughtUp,
    /// A round was given up.
    RoundGivenUp,
    /// A round that was given up let go of who was bound by it.
    RoundLetGo,
    /// A round of a node that was removed let go of who was bound by it.
    DeadRoundEnded,
    /// A read began again, since its partition's epoch was raised.
    ReadBeganAgain,
    /// A node that had lost its records was met.
    NodeMet,
    /// A version expired that nobody had asked for.
    ExpiredUnread,
    /// A key was put out.
    Evicted,
    /// Something was not taken, since nothing more could be put out for it.
    MemoryFull,
    /// A repair of a key that was put out was not stored.
    RefillDeclined,
    /// A write had to ask the owners what it would replace.
    AskedBeforeWrite,
    /// A tombstone was sent to an owner that did not confirm it.
    TombstonePushed,
    /// The values of a key were let go, since the disk has them.
    ValueCooled,
    /// Values were read from the disk.
    ColdRead,
    /// Several waited for one read.
    ColdReadShared,
    /// A key had changed when its values were read.
    ColdReadOvertaken,
    /// Whoever waited for a read waited no more.
    ColdReadTooLate,
    /// Values could not be read.
    ColdReadFailed,
    /// A key whose values are on the disk alone was appended anew.
    ColdCompacted,
}

impl Rare {
    /// All of them.
    pub const ALL: [Self; 66] = [
        Self::RetryFoundItsVersion,
        Self::RetryFoundItselfReplaced,
        Self::TwinsMet,
        Self::TombstoneBesideValue,
        Self::ExpiredElsewhere,
        Self::SiblingsFull,
        Self::UnionOfAll,
        Self::StaleRead,
        Self::CoordinatorRepaired,
        Self::QuorumMissed,
        Self::TooFewReachable,
        Self::NoNewsWaitedForRecord,
        Self::RelayLost,
        Self::LinkReplaced,
        Self::CalledByTheGreater,
        Self::TableFull,
        Self::DifferenceInOneLeaf,
        Self::ExchangeAbandoned,
        Self::CameBackOlder,
        Self::CameBackWhole,
        Self::CameBackEmpty,
        Self::FallbackCoordinated,
        Self::FallbackCounted,
        Self::FallbackRead,
        Self::HintKept,
        Self::HintDeclined,
        Self::HintHandedOver,
        Self::HintRecovered,
        Self::Streamed,
        Self::RingChanged,
        Self::CopiesGivenUp,
        Self::Fenced,
        Self::RemovedRefused,
        Self::CloneFenced,
        Self::CloneTurnedAway,
        Self::DamageFound,
        Self::ActorRenewed,
        Self::CopyTurnedAway,
        Self::ServingCloneLetIn,
        Self::ExchangeRefused,
        Self::BackgroundHeldBack,
        Self::LogRefuses,
        Self::Compacted,
        Self::Reaped,
        Self::Pruned,
        Self::OlderRefused,
        Self::OlderCopyWiped,
        Self::CaughtUp,
        Self::RoundGivenUp,
        Self::RoundLetGo,
        Self::DeadRoundEnded,
        Self::ReadBeganAgain,
        Self::NodeMet,
        Self::ExpiredUnread,
        Self::Evicted,
        Self::MemoryFull,
        Self::RefillDeclined,
        Self::AskedBeforeWrite,
        Self::TombstonePushed,
        Self::ValueCooled,
        Self::ColdRead,
        Self::ColdReadShared,
        Self::ColdReadOvertaken,
        Self::ColdReadTooLate,
        Self::ColdReadFailed,
        Self::ColdCompacted,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is promised of production: no size, and every answer the plain one.
    #[test]
    fn nothing_is_left_in_production() {
        assert_eq!(size_of::<NoFailpoints>(), 0);
        assert!(!NoFailpoints.planted(Bug::OldActorFromOne) && !NoFailpoints.rare(Choice::SmallestQuorum));
        assert_eq!((NoFailpoints.generation(7), NoFailpoints.accepts_generation(u64::MAX)), (7, true));
        assert!(Rare::ALL.is_sorted());
    }
}
