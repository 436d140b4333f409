//! A shard holds no more than its limit: who has to go, and what is not taken any more (docs/adr/0021).
//!
//! At the end of each turn keys are put out until a part of the limit is free again, some hundred in a turn at most, so that
//! whatever the next turn brings fits in. What would still pass the limit puts out a few more keys first, and is refused if
//! that doesn't help, or if it could not stay: a client's write is answered `Overloaded`, and a peer's is declined like one that a full log doesn't
//! take. Only what is nothing but a delete's tombstone can't be put out, nor what is kept for others and what is under way.
//!
//! What was put out is no delete. Nobody is told of it; the partition is marked from then on, and what it lacks is not brought
//! back: it takes no part in rounds of anti-entropy, and a repair of a key that isn't here is not stored. All that somebody
//! wrote is taken as ever: a coordinator's write, a hint, what is streamed, and what a former owner gives up.

use std::collections::BTreeSet;

use bytes::Bytes;
use ringmain_schema::Flags;
use ringmain_schema::message::{ErrorAnswer, ErrorCode};
use ringmain_schema::peer::Replicate;

use crate::causality::Siblings;
use crate::failpoint::{Bug, Choice, Failpoints, Rare};
use crate::hint::Keeping;
use crate::id::{ConnectionId, PartitionId};
use crate::pace::Claimant;
use crate::replica::Place;
use crate::storage::{Entry, cost};
use crate::time::{Duration, Instant, Now};

use super::Shard;
use super::io::Output;
use super::links::LinkId;
use super::operations::Operation;

/// Keys that are put out at the end of a turn, at most.
const VICTIMS_PER_TURN: usize = 1024;
/// Keys that are put out in a turn to take what it brings, at most: what would need more is refused.
const VICTIMS_FOR_WRITES: usize = 4096;
/// One part in so many of the limit is for deletes, half of that for requests under way, and as much is kept free for what a turn brings.
const RESERVE_SHARE: usize = 64;
/// But as much as a block of seats, of timers and some lists take, and no more than one part in so many.
const HEADROOM_LEAST: usize = 96 << 10;
const HEADROOM_SHARE_MOST: usize = 4;
/// When nothing was put out for so long, and no more than three quarters of what there may be is taken, the marks end.
const QUIET: Duration = Duration::from_secs(3600);
const SPARE: usize = 3;
const SPARE_OF: usize = 4;
/// Hints may take one part in so many.
const HINT_SHARE: usize = 4;
/// And connections too, before the largest are closed.
const BUFFER_SHARE: usize = 2;
/// What a request under way takes beside its slot and its states, at most: its key counts apart.
const REQUEST_BYTES: usize = 2048;
/// A few versions and actors more in a state.
const STATE_BYTES: usize = 1024;

/// Why a client's write is not taken.
const FULL: &str = "this node's memory is full of what can't be put out (deleted keys that are not forgotten yet, hints, \
                               hash trees, connections; status tells how much of each): nothing was written; retry later, raise \
                               --memory-max, or add nodes";

/// The same where a log has the values.
const FULL_OF_KEYS: &str = "this node's memory is full of keys, whose values are on the disk, or of values that the disk has not                             taken yet (status tells how much of each): nothing was written; retry later, raise --memory-max, or add                             nodes";

/// Why a client's write is not taken now.
const MAKING_ROOM: &str =
    "room is being made for it by putting out many small keys: nothing was written; retry at once";

/// Why a request is not taken.
pub(super) const UNDER_WAY: &str = "this node's memory is full, much of it of what is under way: retry later";

/// What was put out so far.
#[derive(Debug, Default)]
pub(super) struct Evictions {
    /// Partitions that are marked for it: they aren't compared.
    marked: BTreeSet<PartitionId>,
    /// The last time that something was.
    last: Instant,
    /// This turn.
    now: Instant,
    /// There is more to put out than one turn does.
    next: Option<Instant>,
    /// Keys that were put out in this turn to take what it brings.
    for_writes: usize,
}

impl Evictions {
    pub(super) fn partitions(&self) -> usize {
        self.marked.len()
    }

    fn mark(&mut self, partition: PartitionId) {
        self.marked.insert(partition);
        self.last = self.now;
    }
}

/// What room is asked for: each may go further than those after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Need {
    /// For a request under way, which ends by itself; for somebody who calls.
    Passing,
    /// To take a delete, or its tombstone.
    Delete,
    /// For whatever stays until somebody ends it.
    Other,
    /// For a value, which is to stay.
    Value,
}

impl<F: Failpoints> Shard<F> {
    /// Has anything of this partition been put out, so that it isn't to be made like others' copies?
    pub fn has_evicted(&self, partition: PartitionId) -> bool {
        self.evictions.marked.contains(&partition)
    }

    /// May a key of it be absent here that was never deleted? That may be so when it isn't marked any more.
    pub(super) fn may_lack_keys(&self, partition: PartitionId) -> bool {
        self.replica.index().lacks(partition)
    }

    /// May others hold versions of it that this node had, and put out? Of one that is here, too, if it came after that.
    pub(super) fn may_lack(&self, place: Place<'_>) -> bool {
        let entry = self.replica.index().find(place.partition, place.token, place.key);
        entry.map_or_else(|| self.may_lack_keys(place.partition), |entry| entry.is_partial)
    }

    /// What was heard since this operation began may be less than was known here meanwhile, and put out.
    pub(super) fn has_put_out_since(&self, operation: &Operation) -> bool {
        self.replica.index().put_out_of(operation.partition) != operation.put_out
    }

    /// The copies of this partition are gone: it is streamed anew, or never held again.
    pub(super) fn forget_evictions(&mut self, partition: PartitionId) {
        self.replica.set_lacks(partition, false);
        self.evictions.marked.remove(&partition);
    }

    /// Is there a limit?
    pub(super) const fn is_bounded(&self) -> bool {
        self.options.memory_max > 0
    }

    /// May whole keys be put out? Where a log has the values, only those are let go, and nothing is lost by it.
    pub(super) const fn puts_keys_out(&self) -> bool {
        self.is_bounded() && !self.options.durable
    }

    pub(super) const fn next_eviction(&self) -> Option<Instant> {
        self.evictions.next
    }

    /// How much connections may take before the largest are closed.
    pub(super) const fn most_for_buffers(&self) -> usize {
        self.options.memory_max / BUFFER_SHARE
    }

    /// How much may be held.
    const fn most(&self, need: Need) -> usize {
        let limit = self.options.memory_max;
        match need {
            Need::Passing => limit,
            Need::Delete => limit - limit / RESERVE_SHARE / 2,
            Need::Other | Need::Value => limit - limit / RESERVE_SHARE,
        }
    }

    /// How much there may be at the end of a turn, if enough can be put out.
    pub(super) fn at_rest(&self) -> usize {
        let limit = self.options.memory_max;
        let largest = 2 * self.options.value_bytes_max as usize;
        let headroom =
            largest.max(limit / RESERVE_SHARE).max(HEADROOM_LEAST).min(limit / HEADROOM_SHARE_MOST);
        self.most(Need::Other) - headroom
    }

    /// What can't be put out of the index: tombstones of deletes.
    pub(super) fn pinned(&self) -> usize {
        self.replica.index().pinned()
    }

    /// Is there more than there may be at the end of a turn?
    pub(super) fn is_above_rest(&self) -> bool {
        self.memory().total() > self.at_rest()
    }

    /// The turn ends: put out what is too much, as far as a turn goes.
    pub(super) fn tend_memory(&mut self, now: Now) {
        if self.ignores_limit() {
            return;
        }
        self.evictions.now = now.monotonic;
        self.evictions.for_writes = 0;
        if self.failpoints.rare(Choice::EvictEarly) {
            self.evict_one();
        }
        let at_rest = self.at_rest();
        let mut victims = 0;
        let mut goes_on = self.memory().total() > at_rest;
        while goes_on && victims < VICTIMS_PER_TURN {
            goes_on = self.evict_one() && self.memory().total() > at_rest;
            victims += 1;
        }
        self.evictions.next = goes_on.then_some(now.monotonic);
        self.end_marks(now);
    }

    /// There has been room to spare for long: what marked partitions lack is looked for again.
    fn end_marks(&mut self, now: Now) {
        let Evictions { marked, last, .. } = &self.evictions;
        let is_quiet = now.monotonic.since(*last) >= QUIET && !marked.is_empty();
        if is_quiet && self.memory().total() <= self.at_rest() / SPARE_OF * SPARE {
            self.evictions.marked.clear();
        }
    }

    /// Is there room for so many bytes more, if a few keys are put out for it?
    pub(super) fn make_room(&mut self, bytes: usize, need: Need) -> bool {
        if self.ignores_limit() {
            return true;
        }
        while !self.has_room(bytes, need) {
            if self.evictions.for_writes == VICTIMS_FOR_WRITES || !self.evict_one() {
                return self.decline_for_memory();
            }
            self.evictions.for_writes += 1;
        }
        true
    }

    fn has_room(&self, bytes: usize, need: Need) -> bool {
        self.memory().total() + bytes <= self.most(need)
    }

    fn decline_for_memory(&mut self) -> bool {
        self.failpoints.reached(Rare::MemoryFull);
        self.failpoints.declined();
        self.counters.memory_declined += 1;
        false
    }

    /// Why a write was not taken.
    pub(super) fn why_full(&self) -> &'static str {
        match self.is_above_rest() && self.fixed() < self.at_rest() {
            true if self.puts_keys_out() => MAKING_ROOM,
            false if self.puts_keys_out() => FULL,
            _ => FULL_OF_KEYS,
        }
    }

    fn ignores_limit(&self) -> bool {
        !self.is_bounded() || self.failpoints.planted(Bug::LimitIgnored)
    }

    /// All that there is, but for what can be put out.
    pub(super) fn fixed(&self) -> usize {
        self.memory().total() - self.replica.index().seated()
    }

    /// The same for a change of this key, which is not put out for it.
    fn make_room_beside(&mut self, place: Place<'_>, bytes: usize, need: Need) -> bool {
        // What would have to be put out at the end of this very turn isn't taken.
        if need == Need::Value && self.fixed() + bytes > self.at_rest() && !self.ignores_limit() {
            return self.decline_for_memory();
        }
        if self.has_room(bytes, need) {
            return true;
        }
        self.replica.hold(place, true);
        let has_room = self.make_room(bytes, need);
        self.replica.hold(place, false);
        has_room
    }

    /// Put out whoever is next; false if there is nobody.
    pub(super) fn evict_one(&mut self) -> bool {
        if self.options.durable {
            return self.cool_one(self.appends.durable);
        }
        let Some(gone) = self.replica.put_out() else { return false };
        let partition = self.place(&gone.key).partition;
        self.on_put_out(&gone, partition);
        true
    }

    /// Let go of the values of whoever is next; the log has them, as all up to `durable`. False if there is nobody.
    fn cool_one(&mut self, durable: u64) -> bool {
        let is_cooled = self.replica.cool(durable);
        if is_cooled {
            self.counters.values_cooled += 1;
            self.failpoints.reached(Rare::ValueCooled);
        }
        is_cooled
    }

    /// Before the first input: what is too much of what was recovered is let go as it comes. All of it is in the log.
    pub(super) fn tend_memory_while_recovering(&mut self) {
        if self.is_bounded() && self.options.durable && !self.ignores_limit() {
            while self.is_above_rest() && self.cool_one(u64::MAX) {}
        }
    }

    fn on_put_out(&mut self, gone: &Entry, partition: PartitionId) {
        self.evictions.mark(partition);
        self.counters.evictions += 1;
        self.failpoints.reached(Rare::Evicted);
        self.failpoints.evicted(&gone.key, &gone.state);
        if !self.view.owns(partition) {
            self.follow_eviction(partition);
        }
    }

    /// There is no room for what somebody gives up or would have here too: a hint, a stream, what a former owner has, a repair. Were it to
    /// be kept elsewhere until there is, no tombstone could go meanwhile, and so there never would be; were it refused, it would be sent
    /// again and again. So the key is put out as soon as it comes, with what is here of it; but no delete is, whether it comes or is here.
    pub(super) fn put_out_at_once(&mut self, place: Place<'_>, state: &Siblings<Bytes>) -> bool {
        if state.is_deleted() || !self.puts_keys_out() {
            return false;
        }
        let here = self.replica.index().find(place.partition, place.token, place.key);
        match here.map(|entry| entry.state.is_deleted()) {
            Some(true) => self.replica.set_partial(place),
            Some(false) => _ = self.put_out_key(place),
            None => {}
        }
        self.replica.remember_lost(state.versions().iter().map(|version| version.operation), 0);
        self.replica.set_lacks(place.partition, true);
        self.evictions.mark(place.partition);
        self.counters.evictions += 1;
        self.failpoints.reached(Rare::Evicted);
        self.failpoints.evicted(place.key, state);
        true
    }

    fn put_out_key(&mut self, place: Place<'_>) -> bool {
        let gone = self.replica.put_out_key(place);
        gone.inspect(|gone| self.on_put_out(gone, place.partition)).is_some()
    }

    /// There is no room for what replaces some of a key that is here. Others take it, and may put it out in their time: what is here
    /// would be the newest then. So it goes too, unless it is a delete; and not for what is news and replaces nothing.
    pub(super) fn put_out_older(&mut self, place: Place<'_>, newer: &Siblings<Bytes>) {
        if !self.puts_keys_out() {
            return;
        }
        let Some(entry) = self.replica.index().find(place.partition, place.token, place.key) else { return };
        let is_older = !entry.state.is_deleted() && entry.state.replaced_in(newer).next().is_some();
        if is_older {
            self.put_out_key(place);
        }
    }

    /// Room for a request that is passed on.
    pub(super) fn make_room_to_relay(&mut self, bytes: usize) -> bool {
        self.make_room(self.relays.growth() + cost::allocated(bytes) + REQUEST_BYTES, Need::Passing)
    }

    /// Room for another request under way that keeps so much of its own.
    pub(super) fn make_room_for_request(&mut self, key: &[u8], bytes: usize) -> bool {
        self.make_room(
            bytes + self.operations.growth() + cost::allocated(key.len()) + REQUEST_BYTES,
            Need::Passing,
        )
    }

    fn index_growth(&self, place: Place<'_>, need: Need) -> usize {
        let index = self.replica.index();
        let is_here = index.find(place.partition, place.token, place.key).is_some();
        let tree = self.trees.growth(place.partition, place.token);
        let entry = if is_here && need == Need::Delete {
            index.table_growth(place.partition)
        } else {
            index.growth(place.partition, place.key)
        };
        tree + entry
    }

    /// Room for a client's write to this node's own copy, and for its request.
    pub(super) fn make_room_to_write(&mut self, place: Place<'_>, value: Option<&[u8]>) -> bool {
        if !self.is_bounded() {
            return true;
        }
        let index = self.replica.index();
        let here = index.find(place.partition, place.token, place.key).map(|entry| &entry.state);
        let need = match value {
            Some(_) => Need::Value,
            None if here.is_some() => Need::Delete,
            None => Need::Other,
        };
        let state = here.map_or(0, grown) + cost::of_value(value.map_or(0, <[u8]>::len));
        let tables = self.operations.growth() + cost::allocated(place.key.len()) + REQUEST_BYTES;
        self.make_room_beside(place, self.index_growth(place, need) + state + STATE_BYTES + tables, need)
    }

    /// Room to merge a state into this node's own copy.
    pub(super) fn make_room_to_merge(&mut self, place: Place<'_>, theirs: &Siblings<Bytes>) -> bool {
        let index = self.replica.index();
        let here = index.find(place.partition, place.token, place.key).map(|entry| &entry.state);
        if !self.is_bounded() || here.is_some_and(|here| !here.would_change(theirs)) {
            return true;
        }
        let need = match theirs.sibling_count() {
            0 if theirs.is_deleted() => Need::Delete,
            0 => Need::Other,
            _ => Need::Value,
        };
        let state = here.map_or(0, grown) + grown(theirs) + cost::of_state(theirs);
        self.make_room_beside(place, self.index_growth(place, need) + state + STATE_BYTES, need)
    }

    /// Room to keep a state, with a value of so many bytes more, for another: hints take a part of the memory at most.
    pub(super) fn make_room_to_keep(
        &mut self,
        keeping: Keeping<'_>,
        state: &Siblings<Bytes>,
        more: usize,
    ) -> bool {
        if !self.is_bounded() {
            return true;
        }
        let key = cost::allocated(keeping.key.len());
        let bytes = 2 * key + grown(state) + cost::of_state(state) + cost::of_value(more) + 2 * STATE_BYTES;
        let is_too_much = self.hints.store.memory() + bytes > self.options.memory_max / HINT_SHARE;
        !is_too_much && self.make_room(bytes, Need::Other)
    }

    /// Would this bring back what was put out here? Only what somebody asks for by itself: a repair, or a state from a round of
    /// anti-entropy. A delete is news whatever was here.
    pub(super) fn is_refill(&self, place: Place<'_>, state: &Siblings<Bytes>) -> bool {
        self.has_evicted(place.partition)
            && !state.is_deleted()
            && self.replica.index().find(place.partition, place.token, place.key).is_none()
    }

    /// The same of what another node sent. What is streamed, or given up by a former owner, is all that there may be of it.
    pub(super) fn brings_back(
        &self,
        place: Place<'_>,
        link: LinkId,
        request_id: u64,
        replicate: &Replicate<'_>,
        state: &Siblings<Bytes>,
    ) -> bool {
        let is_round = replicate.exchange
            && self.both_hold(link.node, place.partition)
            && self.claimant_of_states(link) != Claimant::Streaming;
        // A hint that is handed over waits for its answer; read repair doesn't.
        let is_read_repair = replicate.repair && !replicate.exchange && request_id == 0;
        (is_round || is_read_repair) && self.is_refill(place, state)
    }

    /// Whoever sent it counts on the others: nobody keeps for this node what it has no room for.
    pub(super) fn decline(&mut self, connection: ConnectionId, request_id: u64, out: &mut Output) {
        let why = if self.puts_keys_out() { FULL } else { FULL_OF_KEYS };
        let error = ErrorAnswer::new(ErrorCode::Overloaded, why);
        let encoder = &mut self.encoder;
        out.deliver(connection, true, |bytes| error.encode(encoder, request_id, Flags::NONE, bytes));
    }
}

/// What the lists of a state may have become when something is added to them: they grow by doubling.
fn grown(state: &Siblings<Bytes>) -> usize {
    2 * state.allocations().map(cost::allocated).iter().sum::<usize>()
}
