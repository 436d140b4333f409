//! A former owner gives its copies up (docs/adr/0012).
//!
//! When the ring has changed, a node may hold copies of a partition that it owns no more. They are shown to nobody, and
//! nothing is added to them; but something may be in them that some owner lacks. So the node compares hash trees
//! with each owner, by the same exchange as anti-entropy, sends what differs and asks for nothing. When that is done it
//! asks whether all that the owner holds by now is on stable storage, since a tree covers what isn't. Whoever has said so
//! holds all that is here, as long as it lives: the copies here don't change. When all owners have, they are given up.
//!
//! Nothing goes by age: an owner that is away, incomplete, busy or too old to understand is waited for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use ringmain_schema::Frame;
use ringmain_schema::departure::{Held, HeldRequest};
use smallvec::SmallVec;

use crate::failpoint::{Bug, Failpoints, Rare};
use crate::id::{ConnectionId, Incarnation, NodeId, PartitionId};
use crate::membership::{Health, Step, Works};
use crate::time::{Duration, Instant, Now};

use super::Shard;
use super::appends::Waiter;
use super::exchanges::Purpose;
use super::io::Output;
use super::links::LinkId;

/// Partitions of one exchange: what was compared before it broke off doesn't count.
const PARTITIONS_AT_ONCE: usize = 64;
/// After an exchange that broke off, or while nobody can be asked, or something still rests on the copies.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Between two partitions that are given up: memory is freed in small portions.
const GIVE_UP_PAUSE: Duration = Duration::from_millis(10);
/// Questions over one connection that wait for the log. A shard asks one at a time, but may give up waiting.
const FORMERS_WAITING_MAX: usize = 4;

/// An owner in one of its lives, which holds all that is here.
type Heir = (NodeId, Incarnation);

/// The copies of one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Kept {
    /// The root of their tree. They don't change; if they ever did, what was heard of them would be void.
    root: u64,
    /// Who is known to hold what they do.
    held_by: SmallVec<[Heir; 4]>,
}

/// The copies of a former owner, and who is known to hold what they do.
#[derive(Debug, Default)]
pub(super) struct Departures {
    since: (Works, Incarnation),
    /// Partitions of which this shard has copies and its node owns none.
    kept: BTreeMap<PartitionId, Kept>,
    /// All members work by the ring in force.
    is_time: bool,
    /// When this shard first looked at these copies, and the log's last record then.
    began: Option<(Instant, u64)>,
    /// The partition and the link that were last asked about.
    cursor: Option<PartitionId>,
    last: Option<LinkId>,
    next_question: Instant,
    next_look: Instant,
    /// Given up in this record of the log: until it is durable, a crash brings the copies back.
    on_record: VecDeque<(u64, PartitionId)>,
}

impl Departures {
    /// Ask somebody else, a little later.
    pub(super) fn rest(&mut self, now: Instant) {
        self.next_question = now + RETRY_AFTER;
    }
}

impl<F: Failpoints> Shard<F> {
    /// Does this shard hold copies of this partition from when its node was an owner, or would a crash bring some back?
    /// As long as any node does, no tombstone of the partition may be forgotten.
    pub fn keeps_departed(&self, partition: PartitionId) -> bool {
        let is_on_its_way =
            |(record, given_up): &(u64, PartitionId)| *given_up == partition && !self.is_durable(*record);
        !self.view.owns(partition) && self.replica.index().keys_of(partition) > 0
            || self.departures.on_record.iter().any(is_on_its_way)
    }

    /// How many partitions, and keys of them, are kept as a former owner.
    pub fn departed(&self) -> (usize, usize) {
        let keys = self.departures.kept.keys().map(|&partition| self.replica.index().keys_of(partition));
        (self.departures.kept.len(), keys.sum())
    }

    /// A view was taken: find what this node owns no more. What the owners of another ring were found to hold, or what was
    /// found in another life, says nothing.
    pub(super) fn follow_with_departures(&mut self) {
        let view = &self.view;
        let since = (Works { step: Step::default(), ..view.works }, view.incarnation());
        let departures = &mut self.departures;
        let is_other = since != departures.since;
        let before = std::mem::take(&mut departures.kept);
        departures.since = since;
        departures.is_time = view.is_serving() && view.is_known_to_all();
        departures.began.take_if(|_| is_other);
        let partitions = view.ring.partitions().iter();
        let kept = partitions.filter(|&partition| {
            self.is_mine(partition) && !view.owns(partition) && self.replica.index().keys_of(partition) > 0
        });
        let known = |partition: PartitionId| {
            let known = before.get(&partition).filter(|_| !is_other).cloned();
            let root = self.trees.root(partition);
            known.unwrap_or(Kept { root, held_by: SmallVec::new() })
        };
        self.departures.kept = kept.map(|partition| (partition, known(partition))).collect();
        if is_other || self.departing().iter().any(|partition| !self.departures.kept.contains_key(partition))
        {
            self.abandon_departure();
        }
    }

    fn departs(&self) -> bool {
        self.departures.is_time && !self.departures.kept.is_empty() && !self.stopping
    }

    /// When to ask an owner; never, if there is nothing to give up or its time has not come.
    pub(super) fn next_departure(&self) -> Option<Instant> {
        self.departs().then_some(self.departures.next_question)
    }

    /// When to look whether something can be given up.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.departs().then_some(self.departures.next_look)
    }

    /// Whom to compare with next, and about what.
    pub(super) fn next_heir(&mut self, now: Now) -> Option<(LinkId, Vec<PartitionId>, Purpose)> {
        if self.next_departure().is_none_or(|at| at > now.monotonic) {
            return None;
        }
        let kept = &self.departures.kept;
        let after = self.departures.cursor.map_or(Bound::Unbounded, Bound::Excluded);
        let in_turn = kept.range((after, Bound::Unbounded)).chain(kept);
        let mut with: Option<LinkId> = None;
        let mut partitions = BTreeSet::new();
        for (&partition, kept) in in_turn {
            let up = self.to_be_asked(now.monotonic, partition, &kept.held_by);
            with = with.or_else(|| {
                let after_last = up.iter().copied().find(|link| Some(*link) > self.departures.last);
                after_last.or_else(|| up.first().copied())
            });
            if with.is_some_and(|with| up.contains(&with)) {
                partitions.insert(partition);
                self.departures.cursor = Some(partition);
            }
            if partitions.len() == PARTITIONS_AT_ONCE {
                break;
            }
        }
        let found = with.and_then(|with| {
            let heir = self.view.member(with.node)?.oneself.incarnation;
            Some((with, heir, self.links.connection(with)?))
        });
        let Some((with, heir, over)) = found else {
            self.departures.rest(now.monotonic);
            return None;
        };
        self.departures.last = Some(with);
        let partitions: Vec<PartitionId> = partitions.into_iter().collect();
        Some((with, partitions.clone(), Purpose::Departure { partitions, heir, over }))
    }

    /// The right shards of those owners of a partition who can be asked and have not said that they hold it, in order.
    fn to_be_asked(&self, now: Instant, partition: PartitionId, held_by: &[Heir]) -> SmallVec<[LinkId; 4]> {
        let owners = self.heirs_of(partition).filter(|(heir, is_ready)| *is_ready && !held_by.contains(heir));
        let links = owners.filter_map(|((node, _), _)| self.link_to(node, partition));
        let mut up: SmallVec<[LinkId; 4]> = links
            .filter(|link| {
                self.links.connection(*link).is_some() && self.detector.health(now, link.node) == Health::Up
            })
            .collect();
        up.sort_unstable();
        up
    }

    /// Who owns a partition, now or when the ring has changed, but for the removed; and whether it serves, complete.
    fn heirs_of(&self, partition: PartitionId) -> impl Iterator<Item = (Heir, bool)> + '_ {
        self.owners(partition).iter().filter_map(move |node| {
            let member = self.view.member(node).filter(|member| !member.is_removed())?;
            let oneself = &member.oneself;
            Some(((node, oneself.incarnation), oneself.serving && oneself.is_complete_for(partition)))
        })
    }

    /// All is compared, and what differed is there: is it on stable storage, with all that was there before?
    pub(super) fn ask_if_held(&mut self, to: ConnectionId, id: u64, out: &mut Output) {
        let partitions = self.departing().iter().map(|partition| partition.0).collect();
        let request = HeldRequest { ring: self.view.ring.hash(), partitions };
        let encoder = &mut self.encoder;
        out.deliver(to, false, |bytes| request.encode(encoder, id, bytes));
    }

    /// A former owner asks. It is told when all that was appended by now is durable: a part of it may be its own.
    pub(super) fn on_held_request(
        &mut self,
        connection: ConnectionId,
        frame: &Frame<'_>,
        request: &HeldRequest,
        out: &mut Output,
    ) {
        let request_id = frame.header.request_id;
        let holds = |partition: &u32| {
            self.compares(request.ring, *partition) && self.view.is_complete_for(PartitionId(*partition))
        };
        if !request.partitions.iter().all(holds) {
            return self.refuse_peer(connection, request_id, out);
        }
        let record = self.last_append();
        if self.is_durable(record) {
            self.send_held(connection, request_id, out);
        } else if self.formers_waiting(connection) < FORMERS_WAITING_MAX {
            self.wait_for_record(record, Waiter::Former { connection, request_id });
        } else {
            self.refuse_busily(connection, request_id, out);
        }
    }

    pub(super) fn send_held(&mut self, connection: ConnectionId, request_id: u64, out: &mut Output) {
        let encoder = &mut self.encoder;
        out.deliver(connection, true, |bytes| Held.encode(encoder, request_id, bytes));
    }

    /// An owner, in this life of its, holds all that is here of these partitions.
    pub(super) fn on_held(&mut self, now: Now, node: NodeId, heir: Incarnation, partitions: &[PartitionId]) {
        self.departures.next_question = now.monotonic;
        for partition in partitions {
            if let Some(kept) = self.departures.kept.get_mut(partition) {
                kept.held_by.retain(|(known, _)| *known != node);
                kept.held_by.push((node, heir));
            }
        }
        self.departures.next_look = now.monotonic;
    }

    /// Give up a partition, if there is one that may be, and it is time to look.
    pub(super) fn tend_departures(&mut self, now: Now, out: &mut Output) {
        while let Some((record, _)) = self.departures.on_record.front()
            && self.is_durable(*record)
        {
            self.departures.on_record.pop_front();
        }
        if self.next_look().is_none_or(|at| at > now.monotonic) {
            return;
        }
        let last = self.last_append();
        self.departures.began.get_or_insert((now.monotonic, last));
        self.departures.next_look = now.monotonic + RETRY_AFTER;
        self.forget_what_was_heard_of_others();
        if let Some(partition) = self.next_to_give_up(now.monotonic) {
            self.departures.next_look = now.monotonic + GIVE_UP_PAUSE;
            self.give_up_copies(partition, out);
        }
    }

    /// Whoever holds what was here before a copy changed may not hold what is here now.
    fn forget_what_was_heard_of_others(&mut self) {
        let Self { departures, trees, .. } = self;
        let changed =
            departures.kept.iter_mut().filter(|(partition, kept)| trees.root(**partition) != kept.root);
        let changed = changed.map(|(partition, kept)| {
            *kept = Kept { root: trees.root(*partition), held_by: SmallVec::new() };
        });
        if changed.count() > 0 {
            self.abandon_departure();
        }
    }

    /// One of these copies was put out: whoever holds what was here holds what is here.
    pub(super) fn follow_eviction(&mut self, partition: PartitionId) {
        let before = self.trees.root(partition);
        self.keep_trees();
        let after = self.trees.root(partition);
        if let Some(kept) = self.departures.kept.get_mut(&partition).filter(|kept| kept.root == before) {
            kept.root = after;
        }
    }

    fn next_to_give_up(&self, now: Instant) -> Option<PartitionId> {
        let mut kept = self.departures.kept.iter();
        if self.failpoints.planted(Bug::DepartedDropsAtOnce) {
            return kept.next().map(|(partition, _)| *partition);
        }
        // A retry of a write that was applied here finds its version until nobody retries it any more; and whatever was
        // acknowledged of these copies is on stable storage before the record that ends them.
        let (began, last) = self.departures.began?;
        if self.log_refusal().is_some() || now < began + self.options.budget_max || !self.is_durable(last) {
            return None;
        }
        let mut held = kept.filter(|(partition, kept)| self.is_held(**partition, &kept.held_by)).peekable();
        held.peek()?;
        let in_use = self.partitions_in_use();
        held.map(|(partition, _)| *partition).find(|partition| !in_use.contains(partition))
    }

    /// Do all owners hold what is here, each in the life that it lives?
    fn is_held(&self, partition: PartitionId, held_by: &[Heir]) -> bool {
        let mut heirs = self.heirs_of(partition).peekable();
        heirs.peek().is_some() && heirs.all(|(heir, is_ready)| is_ready && held_by.contains(&heir))
    }

    /// Requests under way may send their state on from here; and a hint is handed over before its copies go.
    fn partitions_in_use(&self) -> BTreeSet<PartitionId> {
        let operations = self.operations.keys().filter_map(|key| self.operations.get(key));
        operations.map(|operation| operation.partition).chain(self.hints.store.partitions()).collect()
    }

    fn give_up_copies(&mut self, partition: PartitionId, out: &mut Output) {
        if F::WATCHED {
            let copies = self.replica.index().partition(partition);
            copies.for_each(|entry| self.failpoints.gave_up(&entry.key, &entry.state));
        }
        self.failpoints.reached(Rare::CopiesGivenUp);
        self.counters.partitions_given_up += 1;
        self.departures.kept.remove(&partition);
        self.forget_copies(partition);
        if self.options.durable {
            let sequence = self.append_given_up(partition, false, out);
            self.departures.on_record.push_back((sequence, partition));
        }
    }

    /// Nothing is held of this partition any more.
    fn forget_copies(&mut self, partition: PartitionId) {
        self.keep_trees();
        self.replica.give_up(partition);
        self.trees.clear(partition);
        self.forget_evictions(partition);
    }
}
