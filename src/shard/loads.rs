//! Values that are on the disk alone are read again, and whoever waits for them goes on (docs/adr/0022).
//!
//! A shard with a log and a limit on its memory keeps of each key all but the values, and those as long as there is room. The
//! record that covers a key ([`Entry::appended`]) holds its whole state, so to load a key is to read that
//! record: the shard asks for it by its sequence ([`Output::reads`]) and is told what it says ([`Input::Record`](super::Input)).
//! Nothing stands still meanwhile. Several who wait for one key cost one read.
//!
//! Between the question and its answer the key may have been written, forgotten, or appended anew by a compaction. So an answer
//! counts only if the record still covers the key; else it is asked again, if the values are not here by now. And it never says
//! anything but values: of each version that is on the disk alone, by its dot, which is one value for ever (P6).
//!
//! Who waits: a client's read, as one of the answers that it counts; a client's write that leaves some of the old versions, and
//! what a peer asks or sends, as frames that are looked at once more when the values are here; a write under way that somebody else
//! is to be told of; and background work, of which a bounded number is loaded at a time.

use std::collections::BTreeMap;

use bytes::Bytes;
use ringmain_schema::message::ErrorCode;
use ringmain_schema::peer::{Replicate, ReplicateWriter};
use ringmain_schema::{Flags, Frame};
use smallvec::SmallVec;

use crate::causality::Siblings;
use crate::coordinator::Role;
use crate::failpoint::{Bug, Failpoints, Rare};
use crate::id::{ConnectionId, NodeId, OperationId};
use crate::pace::Claimant;
use crate::replica::{Covered, Place, Write, state_from_wire, state_writer};
use crate::storage::{Entry, cost};
use crate::time::{Duration, Instant, Now};

use super::Shard;
use super::answer::Origin;
use super::deadlines::Due;
use super::eviction::{Need, UNDER_WAY};
use super::io::{Append, LogState, Output};
use super::links::LinkId;
use super::peers::replaced_by;
use super::recovery::Record;
use super::sessions::Session;

/// Records that are read at one time, or wait to be.
const LOADS_MAX: usize = 4096;
/// Of those so many may be for background work alone.
const BACKGROUND_MAX: usize = 64;
/// Frames that wait for values.
const PARKED_MAX: usize = 4096;
/// What a peer asks waits so long, at most: it has a deadline of its own that it doesn't tell.
const PEER_WAITS_MAX: Duration = Duration::from_secs(2);

/// To a client whose write waited in vain.
const TOO_LATE: &str = "the key's other versions could not be read from the disk by the deadline: nothing was written; retry later";
/// To a client whose write would leave versions that can't be read.
const UNREADABLE: &str = "the key's other versions can't be read from this node's disk: nothing was written; retry, the other replicas have them";

/// All records that are being read, and who waits for them.
#[derive(Debug, Default)]
pub(super) struct Loads {
    /// By the sequence of the record.
    under_way: BTreeMap<u64, Load>,
    /// Frames, by their tickets.
    parked: BTreeMap<u64, Parked>,
    tickets: u64,
    /// Of those under way, so many are for background work alone.
    background: usize,
    /// The log was not asked for so many yet.
    unasked: usize,
    /// So many are to be appended anew when they are here.
    anew: usize,
    /// Of all of this, in bytes; frames count as requests.
    cost: usize,
}

#[derive(Debug)]
struct Load {
    key: Box<[u8]>,
    waiters: SmallVec<[Waiter; 1]>,
    /// The log was asked for it: its record is on stable storage.
    is_asked: bool,
    is_background: bool,
}

/// Who waits for a key's values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Waiter {
    /// A read that this shard coordinates counts its own answer.
    Read(u64),
    /// A write under way is to be sent to these.
    Send { operation: u64, hint_for: Option<NodeId>, to: SmallVec<[(NodeId, ConnectionId); 4]> },
    /// A frame.
    Parked(u64),
    /// A compaction, or whoever else must have the key appended as it is now.
    Anew,
    /// Background work that comes again by itself.
    Again,
}

impl Waiter {
    const fn is_background(&self) -> bool {
        matches!(self, Self::Anew | Self::Again)
    }
}

/// A frame that waits.
#[derive(Debug)]
struct Parked {
    from: From,
    frame: Box<[u8]>,
    deadline: Instant,
    cost: usize,
}

/// Whose it is.
#[derive(Clone, Copy, Debug)]
pub(super) enum From {
    /// A client's request about a key.
    Request(Origin),
    /// A peer's.
    Peer { connection: ConnectionId, link: LinkId },
}

/// How a wait has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// The values are here, or are needed no more.
    Here,
    /// There is no room for them.
    NoRoom,
    /// They can't be read, and the key is forgotten.
    Unreadable,
}

impl Loads {
    /// Records that are being read.
    pub(super) fn len(&self) -> usize {
        self.under_way.len()
    }

    /// No frame waits for values?
    pub(super) fn has_answered_all(&self) -> bool {
        self.parked.is_empty()
    }

    /// Keys that wait to be appended anew.
    pub(super) const fn anew(&self) -> usize {
        self.anew
    }

    /// What it costs in memory, beside frames.
    pub(super) fn memory(&self) -> usize {
        let slot = cost::map_slot(size_of::<(u64, Load)>());
        let parked = cost::map_slot(size_of::<(u64, Parked)>());
        self.cost + self.under_way.len() * slot + self.parked.len() * parked
    }
}

fn waiter_bytes(waiters: &SmallVec<[Waiter; 1]>) -> usize {
    if waiters.spilled() { cost::allocated(waiters.capacity() * size_of::<Waiter>()) } else { 0 }
}

impl<F: Failpoints> Shard<F> {
    /// Are values of this key on the disk alone?
    pub(super) fn is_cold(&self, place: Place<'_>) -> bool {
        self.cold_entry(place).is_some()
    }

    fn cold_entry(&self, place: Place<'_>) -> Option<&Entry> {
        let index = self.replica.index();
        if index.cold() == 0 {
            return None;
        }
        index.find(place.partition, place.token, place.key).filter(|entry| entry.state.is_cold())
    }

    /// Have the values of this key read for `waiter`; they are on the disk alone. False if too much is being read.
    pub(super) fn load(&mut self, place: Place<'_>, waiter: Waiter, out: &mut Output) -> bool {
        let sequence = self.replica.appended(place);
        let is_on_disk = sequence <= self.appends.durable;
        if !is_on_disk && self.log_state() == LogState::Failed {
            // It never will be.
            return false;
        }
        let is_background = waiter.is_background();
        let loads = &mut self.loads;
        loads.anew += usize::from(waiter == Waiter::Anew);
        if let Some(load) = loads.under_way.get_mut(&sequence) {
            loads.cost -= waiter_bytes(&load.waiters);
            if is_background && load.waiters.contains(&waiter) {
                loads.anew -= usize::from(waiter == Waiter::Anew);
            } else {
                load.waiters.push(waiter);
            }
            loads.cost += waiter_bytes(&load.waiters);
            if load.is_background && !is_background {
                load.is_background = false;
                loads.background -= 1;
            }
            self.failpoints.reached(Rare::ColdReadShared);
            return true;
        }
        let is_full =
            loads.under_way.len() >= LOADS_MAX || is_background && loads.background >= BACKGROUND_MAX;
        if is_full {
            loads.anew -= usize::from(waiter == Waiter::Anew);
            return false;
        }
        loads.background += usize::from(is_background);
        loads.cost += cost::allocated(place.key.len());
        let waiters = SmallVec::from_iter([waiter]);
        let load = Load { key: place.key.into(), waiters, is_asked: is_on_disk, is_background };
        loads.under_way.insert(sequence, load);
        loads.unasked += usize::from(!is_on_disk);
        if is_on_disk {
            self.ask_log(sequence, out);
        }
        true
    }

    fn ask_log(&mut self, sequence: u64, out: &mut Output) {
        self.counters.cold_reads += 1;
        self.failpoints.reached(Rare::ColdRead);
        out.reads.push(sequence);
    }

    /// Records up to here are on stable storage: those of them that somebody waits to read can be read.
    pub(super) fn ask_for_what_is_durable(&mut self, out: &mut Output) {
        if self.loads.unasked == 0 {
            return;
        }
        let durable = self.appends.durable;
        let due: SmallVec<[u64; 8]> = self
            .loads
            .under_way
            .range(..=durable)
            .filter(|(_, load)| !load.is_asked)
            .map(|(at, _)| *at)
            .collect();
        for sequence in due {
            if let Some(load) = self.loads.under_way.get_mut(&sequence) {
                load.is_asked = true;
                self.loads.unasked -= 1;
            }
            self.ask_log(sequence, out);
        }
    }

    /// The log takes nothing any more: what it hasn't got will never be read.
    pub(super) fn give_up_loads(&mut self, now: Now, out: &mut Output) {
        let never: Vec<u64> =
            self.loads.under_way.iter().filter(|(_, load)| !load.is_asked).map(|(at, _)| *at).collect();
        for sequence in never {
            if let Some(load) = self.take_load(sequence) {
                self.end_waits(now, load.waiters, End::NoRoom, out);
            }
        }
    }

    fn take_load(&mut self, sequence: u64) -> Option<Load> {
        let load = self.loads.under_way.remove(&sequence)?;
        self.loads.unasked -= usize::from(!load.is_asked);
        self.loads.background -= usize::from(load.is_background);
        self.loads.anew -= load.waiters.iter().filter(|waiter| **waiter == Waiter::Anew).count();
        self.loads.cost -= cost::allocated(load.key.len()) + waiter_bytes(&load.waiters);
        Some(load)
    }

    /// Keep a frame until the values of its key are here.
    pub(super) fn park(
        &mut self,
        now: Now,
        from: From,
        place: Place<'_>,
        frame: &Frame<'_>,
        budget: Duration,
        out: &mut Output,
    ) {
        let bytes = cost::allocated(frame.length());
        let is_full = self.loads.parked.len() >= PARKED_MAX;
        if is_full || !self.make_room(bytes + 2 * cost::map_slot(size_of::<(u64, Parked)>()), Need::Passing) {
            return self.refuse_parked(from, frame.header.request_id, ErrorCode::Overloaded, UNDER_WAY, out);
        }
        self.loads.tickets += 1;
        let ticket = self.loads.tickets;
        if !self.load(place, Waiter::Parked(ticket), out) {
            return self.refuse_parked(from, frame.header.request_id, ErrorCode::Overloaded, UNDER_WAY, out);
        }
        let mut copy = Vec::with_capacity(frame.length());
        frame.relay(frame.header.request_id, Flags::NONE, &mut copy);
        let deadline = now.monotonic + budget;
        self.loads.parked.insert(ticket, Parked { from, frame: copy.into(), deadline, cost: bytes });
        self.memory.requests += bytes;
        self.deadlines.add(deadline, Due::Parked(ticket));
    }

    /// The same for a frame of a peer, which tells no deadline.
    pub(super) fn park_for_peer(
        &mut self,
        now: Now,
        (connection, link): (ConnectionId, LinkId),
        place: Place<'_>,
        frame: &Frame<'_>,
        out: &mut Output,
    ) {
        let budget = self.options.budget_max.min(PEER_WAITS_MAX);
        self.park(now, From::Peer { connection, link }, place, frame, budget, out);
    }

    fn take_parked(&mut self, ticket: u64) -> Option<Parked> {
        let parked = self.loads.parked.remove(&ticket)?;
        self.memory.requests -= parked.cost;
        self.deadlines.remove(parked.deadline, Due::Parked(ticket));
        Some(parked)
    }

    /// It has waited long enough. Nothing of it was done.
    pub(super) fn on_parked_due(&mut self, ticket: u64, out: &mut Output) {
        let Some(parked) = self.take_parked(ticket) else { return };
        self.counters.timeouts += 1;
        self.failpoints.reached(Rare::ColdReadTooLate);
        let request_id = whole(&parked.frame).header.request_id;
        self.refuse_parked(parked.from, request_id, ErrorCode::Unavailable, TOO_LATE, out);
    }

    fn refuse_parked(
        &mut self,
        from: From,
        request_id: u64,
        code: ErrorCode,
        message: &str,
        out: &mut Output,
    ) {
        match from {
            From::Request(origin) if code == ErrorCode::Overloaded => {
                self.refuse_overloaded(out, origin, message);
            }
            From::Request(origin) => self.answer_code(out, origin, code, message),
            From::Peer { connection, .. } => self.refuse_busily(connection, request_id, out),
        }
    }

    /// What the log holds under this sequence; `None` if that can't be read.
    pub(super) fn on_record(&mut self, now: Now, sequence: u64, record: Option<&[u8]>, out: &mut Output) {
        let Some(Load { key, waiters, .. }) = self.take_load(sequence) else { return };
        let place = self.place(&key);
        let index = self.replica.index();
        let entry = index.find(place.partition, place.token, place.key).filter(|entry| entry.state.is_cold());
        let found = record.and_then(|record| state_of(record, &key));
        let Some(entry) = entry else {
            // It was written over, or forgotten.
            self.failpoints.reached(Rare::ColdReadOvertaken);
            if self.failpoints.planted(Bug::LateLoadWins)
                && let Some(state) = found
            {
                self.replica.put_back(place, &state);
            }
            return self.end_waits(now, waiters, End::Here, out);
        };
        if entry.appended != sequence {
            self.failpoints.reached(Rare::ColdReadOvertaken);
            return self.ask_again(now, place, waiters, out);
        }
        let mut state = entry.state.clone();
        if !found.is_some_and(|found| state.warm(&found)) {
            self.lose_key(place, sequence, out);
            return self.end_waits(now, waiters, End::Unreadable, out);
        }
        let (anew, others): (SmallVec<[Waiter; 1]>, SmallVec<[Waiter; 1]>) =
            waiters.into_iter().partition(|waiter| *waiter == Waiter::Anew);
        if !anew.is_empty() {
            self.append_loaded(place, &state, out);
            self.wake_compaction(now);
        }
        if others.is_empty() {
            return;
        }
        if !self.make_room(cost::of_values(&state), Need::Passing) {
            return self.end_waits(now, others, End::NoRoom, out);
        }
        let is_warm = self.replica.warm(place, &state);
        debug_assert!(is_warm, "all that was missing was read");
        // Whoever makes room for itself doesn't make it here.
        self.replica.hold(place, true);
        self.end_waits(now, others, End::Here, out);
        self.replica.hold(place, false);
    }

    /// Another record covers the key by now.
    fn ask_again(&mut self, now: Now, place: Place<'_>, waiters: SmallVec<[Waiter; 1]>, out: &mut Output) {
        let mut refused = SmallVec::new();
        for waiter in waiters {
            // Whoever wanted it appended anew has what it wanted.
            if waiter != Waiter::Anew && !self.load(place, waiter.clone(), out) {
                refused.push(waiter);
            }
        }
        self.end_waits(now, refused, End::NoRoom, out);
    }

    fn end_waits(&mut self, now: Now, waiters: SmallVec<[Waiter; 1]>, end: End, out: &mut Output) {
        for waiter in waiters {
            match waiter {
                Waiter::Read(operation) => self.end_read(now, operation, end, out),
                Waiter::Send { operation, hint_for, to } if end != End::NoRoom => {
                    self.send_write(now, operation, hint_for, &to, out);
                }
                Waiter::Send { operation, to, .. } => {
                    to.iter().for_each(|(node, _)| self.count_failure(operation, *node));
                    self.progress(now, operation, false, out);
                }
                Waiter::Parked(ticket) => self.end_parked(now, ticket, end, out),
                Waiter::Anew | Waiter::Again => {}
            }
        }
    }

    /// A read hears this node's own answer.
    fn end_read(&mut self, now: Now, operation: u64, end: End, out: &mut Output) {
        let Some(key) = self.operations.get(operation).map(|operation| operation.key.clone()) else { return };
        let place = self.place(&key);
        if end == End::NoRoom {
            self.count_failure(operation, self.view.me);
        } else {
            self.count_own_state(now, operation, place, out);
        }
        self.progress(now, operation, false, out);
    }

    /// A read that this shard coordinates gets its own answer, now or when the values are read.
    pub(super) fn count_own_state(&mut self, now: Now, operation: u64, place: Place<'_>, out: &mut Output) {
        if self.is_cold(place) {
            if !self.load(place, Waiter::Read(operation), out) {
                self.count_failure(operation, self.view.me);
            }
            return;
        }
        let mine = super::gets::readable(&mut self.replica, &self.failpoints, now, place).cloned();
        let is_complete = self.is_complete(place.partition);
        self.count_state(operation, self.view.me, mine.unwrap_or_default(), is_complete);
    }

    fn end_parked(&mut self, now: Now, ticket: u64, end: End, out: &mut Output) {
        let Some(parked) = self.take_parked(ticket) else { return };
        let frame = whole(&parked.frame);
        match (end, parked.from) {
            (End::NoRoom, from) => {
                self.refuse_parked(from, frame.header.request_id, ErrorCode::Overloaded, UNDER_WAY, out);
            }
            (End::Unreadable, From::Request(origin)) => {
                self.answer_code(out, origin, ErrorCode::Unavailable, UNREADABLE);
            }
            (End::Here, From::Request(origin)) => {
                let left = parked.deadline.since(now.monotonic);
                self.on_key_request(now, origin, &frame, Some(left), out);
            }
            (_, From::Peer { connection, link }) => {
                let is_there =
                    matches!(self.sessions.get(&connection), Some(Session::Peer(peer)) if *peer == link);
                if is_there {
                    self.on_peer_frame(now, connection, link, &frame, out);
                }
            }
        }
    }

    /// Append a key as it is now, or as soon as its values are read, unless too much is.
    pub(super) fn append_anew(&mut self, place: Place<'_>, out: &mut Output) {
        if self.is_cold(place) {
            self.load(place, Waiter::Anew, out);
        } else {
            self.replica.cover(place, self.next_append());
            self.append(place, &[], out);
        }
    }

    /// The same of a key whose values were read for that alone: they are let go again.
    fn append_loaded(&mut self, place: Place<'_>, state: &Siblings<Bytes>, out: &mut Output) {
        let before = out.bytes.len();
        let sequence = self.next_append();
        self.replica.cover(place, sequence);
        let taken = self.take_append();
        debug_assert_eq!(sequence, taken);
        let partition_epoch = self.epoch(place.partition);
        let record = ReplicateWriter {
            key: place.key,
            state: state_writer(state),
            partition_epoch,
            ..ReplicateWriter::default()
        };
        record.encode(&mut self.encoder, 0, &mut out.bytes);
        out.appends.push(Append { sequence, record: before..out.bytes.len(), is_marker: false });
        self.failpoints.reached(Rare::ColdCompacted);
        self.pace.spent(Claimant::Compaction, out.bytes.len() - before, 1);
    }

    /// May this be merged into the copy here without reading what is on the disk? If not, that is read, for who comes again.
    pub(super) fn can_merge(&mut self, place: Place<'_>, theirs: &Siblings<Bytes>, out: &mut Output) -> bool {
        let needs = self
            .cold_entry(place)
            .is_some_and(|entry| entry.state.stays_cold(theirs) && entry.state.would_change(theirs));
        if needs {
            self.load(place, Waiter::Again, out);
        }
        !needs
    }

    /// Does a write need versions that are on the disk alone: since some of them stay, or since it was applied before?
    pub(super) fn write_needs_values(&self, place: Place<'_>, write: &Write<'_>) -> bool {
        let Some(entry) = self.cold_entry(place) else { return false };
        let stays = match &write.covered {
            Covered::Everything => false,
            Covered::Context(context) => entry.state.stays_cold_beside(context),
        };
        stays
            || self.role(place.partition) == Role::Fallback
            || self.failpoints.planted(Bug::ReplacedIsKept)
            || entry.state.contains_operation(write.operation).is_some()
            || self.replica.has_replaced(write.operation)
            || self.hints.store.record_of(place.key, write.operation).is_some()
    }

    /// The same of what a peer has sent to be merged.
    pub(super) fn replicate_needs_values(&self, place: Place<'_>, replicate: &Replicate<'_>) -> bool {
        if replicate.hint_for != 0 && replicate.hint_for != self.view.me.0 {
            return false;
        }
        let Some(entry) = self.cold_entry(place) else { return false };
        let Ok(theirs) = state_from_wire(&replicate.state) else { return false };
        if entry.state.would_change(&theirs) {
            return entry.state.stays_cold(&theirs);
        }
        // It is appended all the same, if it tells of writes that were replaced.
        let is_news = |write: OperationId| write != OperationId::NONE && !self.replica.has_replaced(write);
        replaced_by(replicate).any(is_news)
    }

    /// The record that covers a key can't be read: what is here of it is worth nothing without its values. The key is forgotten, as
    /// one that a damaged log has lost, and its partition is streamed again from the others.
    fn lose_key(&mut self, place: Place<'_>, sequence: u64, out: &mut Output) {
        let partition = place.partition;
        for gone in self.replica.lose(place) {
            self.failpoints.wiped(&gone.key, &gone.state);
            self.append_gone(&gone.key, out);
        }
        self.failpoints.reached(Rare::ColdReadFailed);
        self.counters.cold_read_errors += 1;
        self.replica.set_lacks(partition, true);
        self.streams.forget(partition);
        self.mark_lost(partition, out);
        self.keep_trees();
        out.notes.push(format!(
            "record {sequence} of the log of shard {} can't be read: its key is forgotten here, and partition {} is streamed \
             again from the other replicas; look at the disk",
            self.options.shard.0, partition.0
        ));
    }
}

/// One whole frame, as it was parked.
fn whole(bytes: &[u8]) -> Frame<'_> {
    Frame::split(bytes, bytes.len()).ok().flatten().expect("a whole frame was parked")
}

/// What a record says of this key; nothing if it is another's.
fn state_of(record: &[u8], key: &[u8]) -> Option<Siblings<Bytes>> {
    match Record::parse(record) {
        Ok(Record::Key(told)) if told.key == key && told.hint_for == 0 => state_from_wire(&told.state).ok(),
        _ => None,
    }
}
