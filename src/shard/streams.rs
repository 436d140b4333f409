//! Streaming: how a node comes to hold what it owns and lacks (docs/adr/0011).
//!
//! A newcomer to a partition, and a node that lost its records, compares hash trees with each other owner in turn and
//! takes what differs, by the same exchange as anti-entropy, without its rests. When it has done so with all of
//! them since it came to lack the partition, it is complete for it: its silence about a key means something again.

use std::collections::{BTreeMap, VecDeque};

use smallvec::SmallVec;

use crate::failpoint::{Failpoints, Rare};
use crate::id::{Incarnation, NodeId, PartitionId, ShardId};
use crate::membership::{Health, Intent, PartitionSet, View, Works};
use crate::time::{Duration, Instant, Now};

use super::Shard;
use super::io::Output;
use super::links::LinkId;

/// Partitions of one exchange: when it breaks off they are compared anew, and those of the exchanges before are not. No
/// matter of pace.
const PARTITIONS_AT_ONCE: usize = 16;
/// After an exchange that broke off, or while nobody can be asked.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// What a shard tells shard 0 whenever it takes a view.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// The rings that it worked by.
    pub works: Works,
    /// What it has streamed from everybody since, and the view doesn't show yet.
    pub whole: PartitionSet,
    /// What was wiped, and the view shows as complete.
    pub lost: PartitionSet,
    /// Hints for others, or copies as a former owner, that nobody else may have; or requests under way, when the node is
    /// about to go. All of it would go with the node.
    pub would_lose: bool,
}

/// What one shard has streamed so far.
#[derive(Debug, Default)]
pub(super) struct Streams {
    since: (Works, Incarnation),
    /// Who has been asked about each partition that is lacked.
    asked: BTreeMap<PartitionId, SmallVec<[NodeId; 4]>>,
    /// Streamed from this node when the log's last record was this one: it counts when that is durable.
    waiting: VecDeque<(u64, NodeId, Vec<PartitionId>)>,
    whole: PartitionSet,
    next: Instant,
}

impl Streams {
    /// Forget what was streamed before the ring changed, or this node's records were lost.
    /// True if that was so.
    fn follow(&mut self, view: &View) -> bool {
        let since = (Works { step: self.since.0.step, ..view.works }, view.incarnation());
        let is_other = since != self.since;
        if is_other {
            *self = Self { since, ..Self::default() };
        }
        self.whole.retain(|partition| !view.is_complete_for(partition));
        is_other
    }

    /// What was streamed of this partition is gone.
    pub(super) fn forget(&mut self, partition: PartitionId) {
        self.asked.remove(&partition);
        self.whole.retain(|other| other != partition);
        self.waiting.iter_mut().for_each(|(.., partitions)| partitions.retain(|other| *other != partition));
    }

    /// Try again a little later.
    pub(super) fn rest(&mut self, now: Instant) {
        self.next = now + RETRY_AFTER;
    }
}

impl<F: Failpoints> Shard<F> {
    /// When to look for somebody to stream from; never, if nothing is lacking or its time has not come.
    pub(super) fn next_stream(&self) -> Option<Instant> {
        self.is_streaming().then_some(self.streams.next)
    }

    /// Nothing that was written before may be missed: all members must write to the new owners by now.
    fn is_streaming(&self) -> bool {
        !self.view.myself().oneself.lacking.is_empty()
            && self.view.is_serving()
            && self.view.change.as_ref().is_none_or(|change| change.is_known)
    }

    /// Whom to stream from next, and what.
    pub(super) fn next_source(&mut self, now: Now) -> Option<(LinkId, Vec<PartitionId>)> {
        if !self.is_streaming() || self.streams.next > now.monotonic {
            return None;
        }
        let mut chosen: Option<(LinkId, Vec<PartitionId>)> = None;
        let mut whole = Vec::new();
        for partition in self.lacked() {
            if chosen.as_ref().is_some_and(|(_, partitions)| partitions.len() == PARTITIONS_AT_ONCE) {
                break;
            }
            let missing: SmallVec<[NodeId; 4]> = self.missing_sources(partition).collect();
            if missing.is_empty() {
                whole.push(partition);
                continue;
            }
            let links = missing.into_iter().filter_map(|node| self.link_to(node, partition));
            let mut up = links.filter(|link| {
                self.links.connection(*link).is_some()
                    && self.detector.health(now.monotonic, link.node) == Health::Up
            });
            match &mut chosen {
                None => chosen = up.next().map(|link| (link, vec![partition])),
                Some((with, partitions)) => {
                    if up.any(|link| link == *with) {
                        partitions.push(partition);
                    }
                }
            }
        }
        whole.into_iter().for_each(|partition| self.streams.whole.insert(partition));
        if chosen.is_none() {
            self.streams.rest(now.monotonic);
        }
        chosen
    }

    /// This shard's partitions that the node lacks, and that it has not streamed yet.
    fn lacked(&self) -> impl Iterator<Item = PartitionId> + '_ {
        let all = self.view.ring.partitions().iter();
        all.filter(|&partition| {
            self.is_mine(partition)
                && self.view.owns(partition)
                && !self.view.is_complete_for(partition)
                && !self.streams.whole.contains(partition)
                && self.takes_copies(partition)
        })
    }

    /// The owners in force that have not been asked about this partition. A removed one can't be.
    fn missing_sources(&self, partition: PartitionId) -> impl Iterator<Item = NodeId> + '_ {
        let asked = self.streams.asked.get(&partition);
        let owners = self.view.primaries(partition).iter().copied();
        owners.filter(move |&node| {
            node != self.view.me
                && !asked.is_some_and(|asked| asked.contains(&node))
                && self.view.member(node).is_some_and(|member| !member.is_removed())
        })
    }

    /// All that this node has of these partitions is here too. It counts when it is on stable storage.
    pub(super) fn on_streamed(&mut self, now: Now, from: NodeId, partitions: Vec<PartitionId>) {
        self.failpoints.reached(Rare::Streamed);
        self.streams.next = now.monotonic;
        let last = self.next_append().saturating_sub(1);
        self.streams.waiting.push_back((last, from, partitions));
        self.count_streamed();
    }

    fn count_streamed(&mut self) {
        while let Some((last, ..)) = self.streams.waiting.front()
            && self.is_durable(*last)
            && let Some((_, from, partitions)) = self.streams.waiting.pop_front()
        {
            for partition in partitions {
                self.streams.asked.entry(partition).or_default().push(from);
                if self.missing_sources(partition).next().is_none() {
                    self.streams.whole.insert(partition);
                }
            }
        }
    }

    /// A view was taken: what was streamed for another ring doesn't count.
    pub(super) fn follow_with_streams(&mut self) {
        if self.streams.follow(&self.view) {
            self.abandon_stream();
        }
    }

    /// For shard 0.
    pub(super) fn progress_of_streams(&mut self) -> Progress {
        self.count_streamed();
        Progress {
            works: self.view.works,
            whole: self.streams.whole.clone(),
            lost: self.lost_partitions(),
            would_lose: !self.hints().is_empty() || self.departed().0 > 0 || self.is_at_work(),
        }
    }

    /// Once everybody has what this node had, it may not go before it has answered all that it was asked.
    fn is_at_work(&self) -> bool {
        self.is_about_to_leave() && !(self.view.is_going(self.view.me) && self.has_answered_all())
    }

    /// Does the rest of the cluster, or this node, wait for what the shards have to say?
    pub(super) fn is_awaited(&self) -> bool {
        let myself = self.view.myself();
        self.view.change.is_some()
            || !myself.oneself.lacking.is_empty()
            || myself.intent == Intent::Leaving
            || self.epochs.has_lost()
    }

    /// Shard 0 hears what a shard has streamed, itself included.
    pub(super) fn on_progress(&mut self, from: ShardId, progress: &Progress, out: &mut Output) {
        let Some(membership) = &mut self.membership else { return };
        let before = membership.oneself().clone();
        self.notices.loses_nothing[usize::from(from.0)] = (!progress.would_lose).then_some(progress.works);
        let would_lose = self.notices.loses_nothing.iter().any(|works| *works != Some(progress.works));
        if membership.on_progress(progress.works, &progress.whole, &progress.lost, would_lose) {
            self.on_membership_changed(&before, out);
        }
    }

    /// Shard 0 hears what a sibling has wiped, and shows a view in any case.
    pub(super) fn on_sibling_lost(&mut self, lost: &PartitionSet, out: &mut Output) {
        let Some(membership) = &mut self.membership else { return };
        let before = membership.oneself().clone();
        if membership.on_lost(lost) {
            self.on_membership_changed(&before, out);
        } else {
            self.show_view(&self.view.clone(), out);
        }
    }

    /// On shard 0, which has nobody to show a view to itself.
    pub(super) fn tell_own_progress(&mut self, out: &mut Output) {
        if self.membership.is_some() && self.is_awaited() {
            let progress = self.progress_of_streams();
            let is_news = !progress.whole.is_empty() || !progress.lost.is_empty();
            if is_news || self.view.myself().intent == Intent::Leaving {
                self.on_progress(ShardId(0), &progress, out);
            }
        }
    }
}
