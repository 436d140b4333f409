//! What the simulator knows and nobody inside does: every dot, every copy, and what was destroyed.

use std::collections::{BTreeMap, BTreeSet};

use ringmain::causality::{Actor, Dot, Siblings, VersionVector};
use ringmain::id::OperationId;
use ringmain::membership::View;
use ringmain::shard::Record;
use ringmain::time::{Duration, WallTime};
use ringmain_schema::peer::Replicate;
use ringmain_schema::{Frame, Kind, token};

use super::carry::whole_frame;
use super::departures::{partition_of, partition_of_name};
use super::{At, Event, World};
use crate::checkers::{Accounts, Copy, Opinion, Promise, Reaped, Settled, Violation};
use crate::deeds::DiskFate;
use crate::dots::{Clash, Minted, operation_of};
use crate::history::{Call, Key, Number, Outcome, Sent};

/// Deletes are looked at so often.
const SURVEY: Duration = Duration::from_secs(2);

/// What a node's replica had seen of a key.
type Seen = (Key, Vec<(Actor, u64)>);

impl World {
    /// Enter what the core has just minted into the dot log.
    pub(super) fn log_minted(&mut self, at: At) {
        for mint in self.meddler.take_minted() {
            self.check_not_fenced(at, "minted a version");
            let Some(key) = key_of(&mint.key) else { continue };
            let Some(operation) = operation_of(mint.operation, mint.value.as_deref()) else { continue };
            let tombstone = mint.value.is_none();
            let minted = Minted { covered: mint.covered, operation, tombstone, node: at.node, at: self.now };
            if mint.operation != OperationId::NONE {
                self.check_once(at, operation);
            }
            self.check_replaced(key, mint.dot, &minted);
            let logged = self.dots.mint(key, mint.dot, minted);
            self.check_clash(logged);
        }
    }

    /// Enter what the core has just forgotten.
    pub(super) fn log_reaped(&mut self) {
        for (key, state) in self.meddler.take_reaped() {
            let Some(key) = key_of(&key) else { continue };
            let stood = state.versions().iter().map(|version| version.dot).collect();
            let (gone, kept) = (state.context(), VersionVector::new());
            self.reaped.push(Reaped { key, at: self.now, gone, kept, stood });
        }
        for (key, mut state) in self.meddler.take_pruned() {
            let Some(key) = key_of(&key) else { continue };
            let seen = state.context();
            state.prune();
            let kept = state.context();
            let gone = seen.iter().filter(|(actor, _)| kept.get(*actor) == 0);
            let gone = VersionVector::try_from_sorted(gone).expect("what is left of a vector is one");
            self.reaped.push(Reaped { key, at: self.now, gone, kept, stood: Vec::new() });
        }
    }

    /// Note whom the core has just put out, and when it had no room for something even so. P5: a delete's tombstone stays.
    pub(super) fn log_evicted(&mut self, at: At) {
        if self.meddler.take_declined() {
            self.declined.insert(self.now);
        }
        for (key, was_deleted) in self.meddler.take_evicted() {
            let Some(key) = key_of(&key) else { continue };
            self.evicted.insert(key, self.now);
            if was_deleted {
                let sentence = format!("node {} put out the tombstone of a delete", at.node);
                let (promise, operations) = (Promise::NoResurrection, Vec::new());
                self.violation.get_or_insert(Violation { promise, key: Some(key), sentence, operations });
            }
        }
    }

    /// P11: whatever a shard was just told, it takes no more than it may.
    pub(super) fn check_memory(&mut self, at: At) {
        let limit = self.plan.memory_max;
        if limit == 0 {
            return;
        }
        let used = self.nodes[at.node].running(at.shard).shard.memory();
        if used.total() > limit {
            let Self { now, .. } = self;
            let sentence = format!(
                "shard {} of node {} takes {} bytes at {now:?}, and may take {limit}: {used:?}",
                at.shard,
                at.node,
                used.total()
            );
            let (promise, operations) = (Promise::Memory, Vec::new());
            self.violation.get_or_insert(Violation { promise, key: None, sentence, operations });
        }
    }

    /// Keys of partitions of which something was put out anywhere.
    pub(super) fn keys_beside_evicted(&self) -> BTreeSet<Key> {
        let partitions: BTreeSet<_> = self.evicted.keys().map(|key| partition_of(*key)).collect();
        let keys = (0..=self.plan.keys.len() as u8).map(Key);
        keys.filter(|key| partitions.contains(&partition_of(*key))).collect()
    }

    /// Was this write forgotten, with what had replaced it?
    pub(super) fn was_reaped(&self, key: Key, dots: &[Dot]) -> bool {
        let mut reaped = self.reaped.iter().filter(|reaped| reaped.key == key);
        reaped.any(|reaped| dots.iter().any(|dot| reaped.gone.covers(*dot)))
    }

    /// The epochs of each key's partition at its primaries.
    pub(super) fn epochs(&self, primaries: &BTreeMap<Key, Vec<usize>>) -> BTreeMap<Key, Vec<(usize, u64)>> {
        let of = |key: Key, node: usize| (node, self.epoch_at(node, key).unwrap_or(0));
        let all = primaries.iter();
        all.map(|(key, nodes)| (*key, nodes.iter().map(|node| of(*key, *node)).collect())).collect()
    }

    /// The epoch of a key's partition at a node that is up.
    fn epoch_at(&self, node: usize, key: Key) -> Option<u64> {
        let partition = partition_of(key);
        let shard = usize::from(token::shard_of(partition.0, self.nodes[node].shards));
        let running = self.nodes[node].all_running().get(shard)?;
        Some(running.shard.epoch(partition))
    }

    /// Does nobody know a later epoch of this key's partition than this node?
    pub(super) fn has_newest_epoch(&self, node: usize, key: Key) -> bool {
        let newest = (0..self.plan.machines()).filter_map(|node| self.epoch_at(node, key)).max();
        self.epoch_at(node, key) >= newest
    }

    /// P13: a copy of another epoch than the receiver's was taken.
    pub(super) fn check_epoch(&mut self, at: At, frame: &Frame<'_>, before: Option<u64>, was_taken: bool) {
        let (Some(before), true) = (before, was_taken) else { return };
        let Ok(replicate) = Replicate::parse(frame) else { return };
        if replicate.partition_epoch != before {
            let sentence = format!(
                "node {} took a copy of partition epoch {}, and was in epoch {before}",
                at.node, replicate.partition_epoch
            );
            let promise = Promise::Membership;
            let key = key_of(replicate.key);
            self.violation.get_or_insert(Violation { promise, key, sentence, operations: Vec::new() });
        }
    }

    /// The epoch in which a shard takes the copy that it is about to be sent.
    pub(super) fn epoch_for(&mut self, at: At, frame: &Frame<'_>) -> Option<u64> {
        if frame.header.kind != Kind::REPLICATE {
            return None;
        }
        let replicate = Replicate::parse(frame).ok()?;
        let partition = partition_of_name(replicate.key);
        Some(self.nodes[at.node].running(at.shard).shard.epoch(partition))
    }

    /// A write replaces exactly what its client had seen (P1, P4) or, if it overwrites, all that its coordinator had.
    fn check_replaced(&mut self, key: Key, dot: Dot, minted: &Minted) {
        if minted.operation >= self.history.next() {
            return;
        }
        let (Call::Put { sent, .. } | Call::Delete { sent, .. }) = &self.history.get(minted.operation).call
        else {
            return;
        };
        let problem = match sent {
            Sent::Context(seen) if !seen.includes(&minted.covered) => {
                Some((Promise::Durability, "replaced what its client had not seen"))
            }
            Sent::Context(seen) if !minted.covered.includes(seen) => {
                Some((Promise::ConcurrentSiblings, "did not replace all that its client had seen"))
            }
            // A fallback overwrites what it keeps for others, whatever it has of its own from when it was an owner.
            // What its retry has left elsewhere may have come in the same moment: it is the same write.
            Sent::Overwrite => self
                .state_at(minted.node, key)
                .filter(|_| self.owns(minted.node, key))
                .is_some_and(|state| {
                    state.versions().iter().any(|version| {
                        // Of a batch, what the same turn has minted since is not logged yet.
                        version.dot != dot
                            && self.dots.get(key, version.dot).is_some()
                            && operation_of(version.operation, None) != Some(minted.operation)
                    })
                })
                .then_some((Promise::ConcurrentSiblings, "was to replace all there was, and did not")),
            Sent::Context(_) => None,
        };
        if let Some((promise, what)) = problem {
            let sentence = format!("#{} {what}", minted.operation.0);
            let operations = vec![minted.operation];
            self.violation.get_or_insert(Violation { promise, key: Some(key), sentence, operations });
        }
    }

    /// P6: hold every version in a message against the dot log.
    pub(super) fn witness_frame(&mut self, bytes: &[u8]) {
        // One frame for all replicas lies at one place.
        if std::mem::replace(&mut self.witnessed, bytes.as_ptr() as usize) == bytes.as_ptr() as usize {
            return;
        }
        let Some(frame) = whole_frame(bytes).filter(|frame| frame.header.kind == Kind::REPLICATE) else {
            return;
        };
        if let Ok(replicate) = Replicate::parse(&frame) {
            self.witness(&replicate);
        }
    }

    /// The same for a record.
    pub(super) fn witness_record(&mut self, bytes: &[u8]) {
        if let Ok(Record::Key(key)) = Record::parse(bytes) {
            self.witness(&key);
        }
    }

    fn witness(&mut self, state: &Replicate<'_>) {
        let Some(key) = key_of(state.key) else { return };
        for (version, value) in state.state.versions() {
            let actor = Actor { id: version.id(), epoch: version.epoch() };
            let dot = Dot { actor, counter: version.counter() };
            let name =
                OperationId { client: version.operation_client(), sequence: version.operation_sequence() };
            let value = (!version.tombstone()).then_some(value);
            // A value without a name that has expired can't be told any more.
            let Some(operation) = operation_of(name, value) else { continue };
            let seen = self.dots.witness(key, dot, operation);
            self.check_clash(seen);
            // Its name says whose it is, and so does the value itself.
            if let Some(told) = operation_of(OperationId::NONE, value) {
                let seen = self.dots.witness(key, dot, told);
                self.check_clash(seen);
            }
        }
    }

    fn check_clash(&mut self, checked: Result<(), Clash>) {
        if let Err(Clash { key, sentence, operations }) = checked {
            let promise = Promise::UniqueDots;
            self.violation.get_or_insert(Violation { promise, key, sentence, operations });
        }
    }

    /// A client was told that its write is stored.
    pub(crate) fn on_acknowledged(&mut self, number: Number) {
        self.check_stable(number);
        let key = self.history.get(number).key;
        let mut frontier = self.frontier.remove(&key).unwrap_or_default();
        frontier.retain(|&before| !self.replaces(number, before));
        frontier.push(number);
        self.frontier.insert(key, frontier);
        if matches!(self.history.get(number).call, Call::Delete { .. }) {
            self.unsettled.push(number);
        }
    }

    /// Does every version of `later` replace every version of `before`?
    fn replaces(&self, later: Number, before: Number) -> bool {
        let key = self.history.get(later).key;
        let covers = |dot: &Dot| {
            let mut laters = self.dots.of_operation(later).iter();
            laters.all(|&later| self.dots.get(key, later).is_some_and(|later| later.covered.covers(*dot)))
        };
        self.dots.of_operation(before).iter().all(covers)
    }

    /// What this node's copies and hints have seen of each key.
    fn seen_at(&self, node: usize) -> Vec<Seen> {
        let keys = (0..=self.plan.keys.len() as u8).map(Key);
        let known = keys.map(|key| (key, self.known_at(node, key)));
        known
            .filter(|(_, known)| !known.is_empty())
            .map(|(key, known)| {
                // A copy that has forgotten whom it replaced has replaced it all the same.
                let mut seen = known.context();
                let reaped = self.reaped.iter().rev().filter(|reaped| reaped.key == key);
                let pruned = reaped.filter(|reaped| !reaped.is_whole());
                pruned.for_each(|pruned| pruned.add_to(&mut seen));
                (key, seen.iter().collect())
            })
            .collect()
    }

    /// A node's own copy of a key, and what it keeps of it for others.
    pub(super) fn known_at(&self, node: usize, key: Key) -> Siblings<bytes::Bytes> {
        let mut known = self.state_at(node, key).cloned().unwrap_or_default();
        for running in self.nodes[node].all_running() {
            known.merge(&running.shard.hints().known(&Self::key_name(key)));
        }
        known
    }

    /// The copy of a key on a node that is up.
    pub(super) fn state_at(&self, node: usize, key: Key) -> Option<&Siblings<bytes::Bytes>> {
        let name = Self::key_name(key);
        let token = token::token(&name);
        self.nodes[node].all_running().iter().find_map(|running| {
            let index = running.shard.replica().index();
            index.find(partition_of_name(&name), token, &name).map(|entry| &entry.state)
        })
    }

    /// The same, with the values that are on the disk alone.
    fn whole_state_at(&self, node: usize, key: Key) -> Option<Siblings<bytes::Bytes>> {
        let mut state = self.state_at(node, key)?.clone();
        if state.is_cold() {
            let name = Self::key_name(key);
            let partition = partition_of_name(&name);
            let shard = usize::from(token::shard_of(partition.0, self.nodes[node].shards));
            let index = self.nodes[node].all_running()[shard].shard.replica().index();
            let appended = index.find(partition, token::token(&name), &name)?.appended;
            // What can't be read is compared as it is, and differs.
            let record = self.nodes[node].logs[shard].read_record(appended);
            if let Some(Ok(Record::Key(told))) = record.as_deref().map(Record::parse)
                && let Ok(told) = ringmain::replica::state_from_wire(&told.state)
            {
                state.warm(&told);
            }
        }
        Some(state)
    }

    /// Writes of which this node holds a copy, and whose W the promise speaks of: those that may still be
    /// acknowledged, and those that no other acknowledged write has replaced.
    fn held_at(&self, node: usize, seen: &[Seen]) -> Vec<Number> {
        let pending = self.clients.iter().flat_map(crate::clients::Client::pending_writes);
        let frontier = self.frontier.values().flatten().copied();
        let is_held = |number: &Number| {
            let key = self.history.get(*number).key;
            let clock = seen.iter().find(|(seen, _)| *seen == key).map_or(&[][..], |(_, clock)| clock);
            self.dots.of_operation(*number).iter().any(|dot| is_covered(clock, *dot))
        };
        debug_assert!(node < self.nodes.len());
        pending.chain(frontier).filter(is_held).collect()
    }

    /// May this node's copies be destroyed without any write losing W of them?
    pub(super) fn may_destroy(&self, node: usize) -> bool {
        if !self.plan.limited {
            return true;
        }
        let seen = self.seen_at(node);
        self.held_at(node, &seen).into_iter().all(|number| {
            let (Call::Put { write, .. } | Call::Delete { write, .. }) = &self.history.get(number).call
            else {
                return true;
            };
            let others = self.destroyed_of(number).filter(|lost| *lost != self.node_of(node)).count();
            others + 1 < usize::from(*write)
        })
    }

    /// This node's copies are gone.
    pub(super) fn count_destroyed(&mut self, node: usize) {
        for (key, clock) in self.seen_at(node) {
            self.count_lost(node, key, |dot| is_covered(&clock, dot));
        }
        if self.plan.replicas() == 1 {
            // Nobody else knows of an epoch by which an older disk would be told from the last one.
            for Reaped { key, gone, .. } in self.reaped.clone() {
                self.count_lost(node, key, |dot| gone.covers(dot));
            }
        }
    }

    /// What this node had of these versions of a key is gone.
    pub(super) fn count_lost(&mut self, node: usize, key: Key, is_seen: impl Fn(Dot) -> bool) {
        let seen = self.dots.of_key(key).filter(|(dot, _)| is_seen(*dot));
        let lost: BTreeSet<Number> = seen.map(|(_, minted)| minted.operation).collect();
        let node = self.node_of(node);
        for number in lost {
            self.destroyed.entry(number).or_default().insert(node);
            self.returned.entry(number).and_modify(|nodes| _ = nodes.remove(&node));
        }
    }

    /// Nodes whose copies of this write were destroyed.
    pub(super) fn destroyed_of(&self, number: Number) -> impl Iterator<Item = usize> + '_ {
        self.destroyed.get(&number).into_iter().flatten().copied()
    }

    /// Which acknowledged deletes have reached all primaries by now?
    pub(super) fn survey(&mut self) {
        self.note_removed();
        let unsettled = std::mem::take(&mut self.unsettled);
        for delete in unsettled {
            if self.has_settled(delete) {
                self.settled.push(Settled { delete, at: self.now });
            } else {
                self.unsettled.push(delete);
            }
        }
        self.heap.plan(self.now + SURVEY, Event::Survey);
    }

    /// All primaries have seen the delete on stable storage, and nobody keeps a hint that has not.
    fn has_settled(&self, delete: Number) -> bool {
        if self.is_name_open() {
            return false;
        }
        let key = self.history.get(delete).key;
        let dots = self.dots.of_operation(delete);
        // What was forgotten must not come back from anywhere.
        if self.was_reaped(key, dots) {
            return true;
        }
        let covers = |state: &Siblings<bytes::Bytes>| dots.iter().any(|dot| is_covered(state.clock(), *dot));
        let holds = |node: usize| self.state_at(node, key).is_some_and(covers);
        let owners = self.owners_of(key);
        !owners.is_empty()
            && owners.iter().all(|&node| holds(node))
            && self.nodes[..self.plan.machines()].iter().filter(|node| !node.is_gone).all(|node| {
                // What is in memory alone, or on a disk that is about to come back older, may yet be gone.
                let is_stable = node.is_up() && node.next_disk == DiskFate::Kept && node.is_synced();
                let hints = node.all_running().iter().map(|running| running.shard.hints());
                is_stable
                    && hints
                        .map(|hints| hints.known(&Self::key_name(key)))
                        .all(|kept| kept.is_empty() || covers(&kept))
            })
    }

    /// All copies on the primaries.
    pub(super) fn copies(&self, primaries: &BTreeMap<Key, Vec<usize>>) -> Vec<Copy> {
        let holders = primaries.iter().flat_map(|(key, nodes)| nodes.iter().map(move |node| (*key, *node)));
        let copies = holders.filter_map(|(key, node)| {
            let mut state = self.whole_state_at(node, key)?;
            // Replicas may turn a value into a tombstone at different times.
            state.expire(WallTime(u64::MAX));
            Some(Copy { node, key, state })
        });
        copies.collect()
    }

    /// The root of each primary's partition of a key, as its hash tree has it and as its copies do.
    pub(super) fn roots(&self, primaries: &BTreeMap<Key, Vec<usize>>) -> BTreeMap<(Key, usize), [u64; 2]> {
        let holders = primaries.iter().flat_map(|(key, nodes)| nodes.iter().map(move |node| (*key, *node)));
        let roots = holders.filter_map(|(key, node)| {
            let partition = partition_of(key);
            let running = self.nodes[node].all_running();
            let shards = self.nodes[node].shards;
            let shard = &running.get(usize::from(token::shard_of(partition.0, shards)))?.shard;
            let both = [shard.trees().root(partition), shard.replica().index().digest_of(partition)];
            Some(((key, node), both))
        });
        roots.collect()
    }

    /// What each shard counts.
    pub(super) fn accounts(&self) -> Accounts {
        let all = self.nodes.iter().enumerate().flat_map(|(node, process)| {
            process.all_running().iter().enumerate().map(move |(shard, running)| {
                let index = running.shard.replica().index();
                ((node, shard), [index.counted(), index.recounted()])
            })
        });
        all.collect()
    }

    /// What each node thinks of the cluster.
    pub(super) fn opinions(&self) -> Vec<Opinion> {
        let all = self.present().into_iter().flat_map(|number| {
            self.nodes[number].all_running().iter().map(move |running| {
                let view = running.shard.view();
                let members = view.members.iter().map(|member| member.node).collect();
                let in_ring = view.ring.members().iter().map(|member| member.node).collect();
                Opinion {
                    node: number,
                    members,
                    in_ring,
                    ring: view.ring.hash(),
                    change: view.change.as_ref().map(|_| progress(view)),
                }
            })
        });
        all.collect()
    }

    /// Deletes whose copies were not destroyed W times over since.
    pub(super) fn settled(&self) -> Vec<Settled> {
        let stands = |settled: &&Settled| {
            let delete = self.history.get(settled.delete);
            let destroyed = self.destroyed_of(settled.delete).count();
            matches!(delete.outcome, Outcome::Stored)
                && delete.acknowledged().is_some_and(|w| destroyed < usize::from(w))
        };
        self.settled.iter().filter(stands).copied().collect()
    }
}

fn is_covered(clock: &[(Actor, u64)], dot: Dot) -> bool {
    clock.iter().any(|(actor, counter)| *actor == dot.actor && *counter >= dot.counter)
}

/// What each member seems to work by.
fn progress(view: &View) -> String {
    let each = view.members.iter().map(|member| {
        let works = member.oneself.works;
        let is_same = (works.ring, works.change) == (view.works.ring, view.works.change);
        let step = if is_same { format!("{:?}", works.step) } else { "elsewhere".to_owned() };
        let lacking = member.oneself.lacking.len();
        format!("{} {:?} {step} {lacking}", member.name, member.intent)
    });
    each.collect::<Vec<_>>().join(", ")
}

/// The key of a name on the wire; none for another cluster's.
pub(super) fn key_of(name: &[u8]) -> Option<Key> {
    match name {
        [b'k', digit @ b'0'..=b'9'] => Some(Key(digit - b'0')),
        _ => None,
    }
}
