//! Carrying out what a shard wants done.

use bytes::Bytes;
use ringmain::id::ConnectionId;
use ringmain::shard::{Append, Dial, Input, LogState, Output, Piece};
use ringmain::time::{Duration, Instant};
use ringmain_schema::Frame;
use ringmain_schema::frame::Header;

use super::{At, Event, World};
use crate::disk::LogError;
use crate::network::{End, Side};

/// A message between shards of a node takes so long.
const BETWEEN_SHARDS: Duration = Duration::from_micros(10);
/// A group of records takes so long to stable storage, and up to as much again.
const SYNC: Duration = Duration::from_micros(300);
/// A record is read again in so long, and up to four times as long; one in 16 takes up to [`SLOW_READ`] more,
const READ: Duration = Duration::from_micros(100);
/// which is longer than most requests may take.
const SLOW_READ: Duration = Duration::from_secs(1);
/// A full disk is tried again so often.
const FULL_AGAIN: Duration = Duration::from_millis(100);
/// The port that all shards of a node share, and the first of their own.
pub(super) const ORDINARY_PORT: u16 = 1;
pub(super) const FIRST_PORT: u16 = 100;

impl World {
    pub(super) fn carry_out(&mut self, at: At, out: &mut Output) {
        if !out.deliveries.is_empty() {
            let arena = Bytes::copy_from_slice(&out.bytes);
            // Where the last output's frame lay, there may be another by now.
            self.witnessed = 0;
            for delivery in out.deliveries.drain(..) {
                let bytes = match delivery.piece {
                    Piece::Copied(range) => arena.slice(range),
                    Piece::Shared(bytes) => bytes,
                };
                if delivery.answers {
                    self.on_answer(at, Side::of(delivery.to), &bytes);
                }
                self.transmit(Side::of(delivery.to), &bytes);
            }
        }
        for (shard, message) in out.siblings.drain(..) {
            let to = At { shard: shard.0, ..at };
            self.heap.plan(self.now + BETWEEN_SHARDS, Event::Sibling(to, at.shard, message));
        }
        for dial in out.dials.drain(..) {
            self.dial(at, &dial);
        }
        if !out.appends.is_empty() {
            for append in out.appends.drain(..) {
                self.append(at, &append, &out.bytes);
            }
            // What doesn't fit now, or can't be written any more, is for the sync to see.
            let _ = self.nodes[at.node].logs[usize::from(at.shard)].write_out();
        }
        for sequence in out.reads.drain(..) {
            let has_faults = self.now.since(Instant(0)) < self.plan.span;
            let slow =
                if has_faults && self.prng.chance(1.0 / 16.0) { self.prng.below(SLOW_READ.0) } else { 0 };
            let takes = READ + Duration(self.prng.below(3 * READ.0) + slow);
            self.heap.plan(self.now + takes, Event::Read(at, sequence));
        }
        let log = &mut self.nodes[at.node].logs[usize::from(at.shard)];
        log.on_dead(out.dead.drain(..));
        if let Some(compacted) = out.compacted.take() {
            log.on_compacted(compacted.through);
        }
        for connection in out.closes.drain(..) {
            self.close(at, connection);
        }
    }

    /// Send bytes from this side: whole frames leave one by one, as they are complete.
    pub(super) fn transmit(&mut self, from: Side, bytes: &Bytes) {
        if !self.network.is_open(from) {
            return;
        }
        let partial = self.network.partial(from);
        if partial.is_empty() && is_whole(bytes) {
            return self.transmit_frame(from, bytes);
        }
        partial.extend_from_slice(bytes);
        while let Some(length) = first_frame(self.network.partial(from)) {
            let rest = self.network.partial(from).split_off(length);
            let frame = std::mem::replace(self.network.partial(from), rest);
            self.transmit_frame(from, &frame.into());
        }
    }

    fn transmit_frame(&mut self, from: Side, frame: &Bytes) {
        let Ok(Some(header)) = Header::read(frame) else { return };
        self.witness_frame(frame);
        for at in self.network.send(self.now, from, header.kind).into_iter().flatten() {
            self.heap.plan(at, Event::Frame(from.other(), frame.clone()));
        }
    }

    fn dial(&mut self, from: At, dial: &Dial) {
        let Some(node) = self.nodes.iter().position(|node| *node.host == *dial.host) else {
            return self.heap.plan(self.now, Event::DialFailed(from, dial.id));
        };
        let caller = End::Shard { node: from.node, shard: from.shard, life: from.life };
        // The kernel picks a shard for a call to the ordinary port.
        let shard = if dial.port == ORDINARY_PORT {
            self.prng.below(u64::from(self.nodes[node].shards)) as u16
        } else {
            dial.port - FIRST_PORT
        };
        let called = End::Shard { node, shard, life: self.nodes[node].life };
        let lost = self.network.is_blocked(caller, called) || self.network.is_blocked(called, caller);
        let is_up = self.nodes[node].is_up() && shard < self.nodes[node].shards;
        if lost || !is_up {
            // Nobody answers for a second, or somebody says at once that nobody listens there.
            let after = if lost { Duration::from_secs(1) } else { self.network.latency() };
            return self.heap.plan(self.now + after, Event::DialFailed(from, dial.id));
        }
        let opened = self.now + self.network.latency();
        let side = self.network.connect(caller, called, opened);
        self.heap.plan(opened, Event::Called(side.other()));
        let reached = opened + self.network.latency();
        self.heap.plan(reached, Event::Reached(side, dial.id));
    }

    fn append(&mut self, at: At, append: &Append, bytes: &[u8]) {
        let record = &bytes[append.record.clone()];
        self.witness_record(record);
        let node = &mut self.nodes[at.node];
        let Ok(position) = node.logs[usize::from(at.shard)].append(record, append.is_marker) else {
            // A log that could not sync takes nothing more until the node restarts.
            return;
        };
        node.stable.on_append(at.shard, position, record);
        let running = node.running(at.shard);
        if !running.syncing {
            running.syncing = true;
            self.plan_sync(at);
        }
    }

    fn plan_sync(&mut self, at: At) {
        let full_until = self.nodes[at.node].full_until;
        let takes = SYNC + Duration(self.prng.below(SYNC.0));
        // A full disk is tried again and again: there may be room sooner.
        let again = full_until.min(self.now + FULL_AGAIN).max(self.now);
        self.heap.plan(again + takes, Event::Sync(at));
    }

    /// All that was appended so far goes to stable storage in one sync.
    pub(super) fn sync(&mut self, at: At) {
        let is_full = self.nodes[at.node].full_until > self.now;
        let node = &mut self.nodes[at.node];
        let synced = if is_full { Err(LogError::Full) } else { node.logs[usize::from(at.shard)].sync() };
        if synced == Err(LogError::Full) {
            self.plan_sync(at);
            return self.refuse(at, LogState::Full);
        }
        node.running(at.shard).syncing = false;
        // After a failed sync nothing is acknowledged until the node restarts.
        let Ok(sequence) = synced else { return self.refuse(at, LogState::Failed) };
        node.stable.on_sync(at.shard, sequence);
        node.known.on_sync(at.shard, sequence);
        if std::mem::take(&mut node.running(at.shard).refused) {
            self.handle(at, Input::Log(LogState::Open));
        }
        self.handle(at, Input::Appended { sequence });
        if let Some(range) = self.nodes[at.node].logs[usize::from(at.shard)].begin_compaction() {
            self.handle(at, Input::Compact(range));
        }
    }

    /// A record has been read again, or can't be: then this copy of its key is lost.
    pub(super) fn read_again(&mut self, at: At, sequence: u64) {
        let has_faults = self.now.since(Instant(0)) < self.plan.span;
        let fails = has_faults && self.plan.read_errors > 0.0 && self.prng.chance(self.plan.read_errors);
        let record = if fails && self.may_destroy(at.node) {
            self.nodes[at.node].loses_reads = true;
            None
        } else {
            // Its segment may be gone, if its key was appended anew since.
            self.nodes[at.node].logs[usize::from(at.shard)].read_record(sequence)
        };
        self.handle(at, Input::Record { sequence, record: record.as_deref() });
    }

    /// The log takes nothing now: its shard hears it once.
    fn refuse(&mut self, at: At, state: LogState) {
        if !std::mem::replace(&mut self.nodes[at.node].running(at.shard).refused, true) {
            self.handle(at, Input::Log(state));
        }
    }

    /// A shard closes a connection once what it delivered has left.
    fn close(&mut self, at: At, connection: ConnectionId) {
        let side = Side::of(connection);
        if !self.network.is_open(side) {
            return;
        }
        self.unanswered.forget(side);
        self.reset(side);
        self.heap.plan(self.now, Event::Closed(side));
        debug_assert!(matches!(self.network.end(side), End::Shard { node, .. } if node == at.node));
    }
}

fn is_whole(bytes: &[u8]) -> bool {
    first_frame(bytes) == Some(bytes.len())
}

/// The length of the first frame, if it is all there.
fn first_frame(bytes: &[u8]) -> Option<usize> {
    let header = Header::read(bytes).ok().flatten()?;
    Some(header.frame_length()).filter(|length| *length <= bytes.len())
}

/// One whole frame from its bytes.
pub(super) fn whole_frame(bytes: &[u8]) -> Option<Frame<'_>> {
    Frame::split(bytes, bytes.len()).ok().flatten()
}
