//! Records on their way to the log, and who waits for them.
//!
//! Sequences are the log's own: they go on from one life to the next. What the log can't take now ([`LogState`]) is
//! refused before anything is changed: clients are told so, and peers look for somebody else. Reads go on. What the
//! shard must append all the same (who the members are, hints that are gone) is little, and waits.

use std::collections::VecDeque;

use ringmain_schema::Kind;
use ringmain_schema::epoch::Bound;
use ringmain_schema::peer::{Operation as WireOperation, ReplicateWriter};

use crate::failpoint::{Bug, Failpoints, Rare};
use crate::id::{ConnectionId, PartitionId};
use crate::replica::{Place, state_writer};
use crate::time::Now;

use super::Shard;
use super::io::{Append, LogState, Output};

/// Records on their way to stable storage, and who waits for them.
#[derive(Debug, Default)]
pub(super) struct Appends {
    /// The last one asked for.
    last: u64,
    /// The last one known to be there.
    pub(super) durable: u64,
    /// In the order of their records.
    waiting: VecDeque<(u64, Waiter)>,
    log: LogState,
    /// The last record about members; 0 if there is none.
    pub(super) members: u64,
}

impl Appends {
    /// All up to here was there before this life.
    pub(super) const fn begin_after(&mut self, sequence: u64) {
        self.last = sequence;
        self.durable = sequence;
    }
}

/// Who waits for a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Waiter {
    /// A write that this shard coordinates.
    Operation(u64),
    /// A peer that sent a state of this epoch.
    Peer { connection: ConnectionId, request_id: u64, partition: PartitionId, epoch: u64 },
    /// A peer that said something of another epoch than this partition's.
    Asked { connection: ConnectionId, request_id: u64, partition: PartitionId },
    /// A former owner that asks whether all it had is here.
    Former { connection: ConnectionId, request_id: u64 },
    /// A proposer to which this shard is bound by its round.
    Bound { connection: ConnectionId, request_id: u64, partition: u32, epoch: u64, round: u64, agreed: u128 },
    /// A round that this shard proposes.
    Proposed { round: u64 },
    /// A raise of this partition's epoch that this shard has proposed.
    Raised { partition: PartitionId },
}

impl<F: Failpoints> Shard<F> {
    /// Write the key's state to the log, if there is one, and which writes it has just replaced: their retries
    /// are to be recognised after a restart too.
    pub(super) fn append(&mut self, place: Place<'_>, replaced: &[WireOperation], out: &mut Output) {
        if !self.options.durable {
            return;
        }
        self.appends.last += 1;
        let index = self.replica.index();
        let entry = index.find(place.partition, place.token, place.key).expect("what was written is there");
        debug_assert_eq!(entry.appended, self.appends.last);
        let record = ReplicateWriter {
            key: place.key,
            state: state_writer(&entry.state),
            ring: 0,
            partition_epoch: self.epoch(place.partition),
            repair: false,
            replaced,
            hint_for: 0,
            exchange: false,
        };
        let start = out.bytes.len();
        record.encode(&mut self.encoder, 0, &mut out.bytes);
        out.appends.push(Append {
            sequence: self.appends.last,
            record: start..out.bytes.len(),
            is_marker: false,
        });
    }

    /// Write what this node knows of the members to the log, if there is one: who it was, and who they are.
    pub(super) fn append_members(&mut self, out: &mut Output) {
        let Some(membership) = self.membership.as_ref().filter(|_| self.options.durable) else { return };
        let start = out.bytes.len();
        self.appends.last += 1;
        membership.to_log().encode(&mut self.encoder, Kind::GOSSIP, 0, &mut out.bytes);
        let sequence = self.appends.last;
        out.appends.push(Append { sequence, record: start..out.bytes.len(), is_marker: false });
        let before = std::mem::replace(&mut self.appends.members, sequence);
        out.dead.extend(Some(before).filter(|before| *before != 0));
    }

    /// The log takes records, or takes none for now.
    pub(super) fn on_log(&mut self, now: Now, state: LogState, out: &mut Output) {
        self.appends.log = state;
        if state != LogState::Open {
            self.failpoints.reached(Rare::LogRefuses);
        }
        if state == LogState::Failed {
            for (record, waiter) in std::mem::take(&mut self.appends.waiting) {
                if let Waiter::Asked { connection, request_id, .. } = waiter {
                    self.refuse_peer(connection, request_id, out);
                } else {
                    self.appends.waiting.push_back((record, waiter));
                }
            }
            self.give_up_loads(now, out);
        }
    }

    /// Peers that wait for an epoch that can't be told yet.
    pub(super) fn asked_waiting(&self) -> usize {
        self.appends.waiting.iter().filter(|(_, waiter)| matches!(waiter, Waiter::Asked { .. })).count()
    }

    /// What the log takes.
    pub(super) const fn log_state(&self) -> LogState {
        self.appends.log
    }

    /// Why nothing new may be written now.
    pub(super) const fn log_refusal(&self) -> Option<&'static str> {
        match self.appends.log {
            LogState::Open => None,
            LogState::Full => Some(
                "this node's disk, or its log, is full: nothing was written; free some room, or ask another node",
            ),
            LogState::Behind => Some(
                "this node's disk does not keep up: nothing was written; retry later, or ask another node",
            ),
            LogState::Failed => Some(
                "this node's log has failed to write or to sync: nothing was written; look at its disk and restart it",
            ),
        }
    }

    /// The next append has begun: its number.
    pub(super) const fn take_append(&mut self) -> u64 {
        self.appends.last += 1;
        self.appends.last
    }

    /// The log record that the next append will be.
    pub(super) const fn next_append(&self) -> u64 {
        if self.options.durable { self.appends.last + 1 } else { 0 }
    }

    /// This node's own acknowledgement of a write counts when `record` is on stable storage.
    pub(super) fn await_own_record(&mut self, record: u64, key: u64) {
        if self.is_durable(record) {
            self.count_durable(key, self.view.me);
        } else {
            self.wait_for_record(record, Waiter::Operation(key));
        }
    }

    /// Is the record that covers a key's state on stable storage? Without a log, memory is all there is.
    pub(super) fn is_on_record(&self, place: Place<'_>) -> bool {
        !self.options.durable || self.is_durable(self.replica.appended(place))
    }

    /// Is this record on stable storage?
    pub(super) fn is_durable(&self, sequence: u64) -> bool {
        sequence <= self.appends.durable || self.failpoints.planted(Bug::AcknowledgedTooEarly)
    }

    /// Tell `waiter` when the record `sequence` is on stable storage.
    pub(super) fn wait_for_record(&mut self, sequence: u64, waiter: Waiter) {
        let at = self.appends.waiting.partition_point(|(earlier, _)| *earlier <= sequence);
        self.appends.waiting.insert(at, (sequence, waiter));
    }

    /// Questions of former owners over one connection that wait for the log.
    pub(super) fn formers_waiting(&self, over: ConnectionId) -> usize {
        let waiting = self.appends.waiting.iter();
        waiting
            .filter(|(_, waiter)| matches!(waiter, Waiter::Former { connection, .. } if *connection == over))
            .count()
    }

    /// The last record asked for so far; 0 if there is none.
    pub(super) const fn last_append(&self) -> u64 {
        self.appends.last
    }

    /// Records up to `sequence` are on stable storage.
    pub(super) fn on_appended(&mut self, now: Now, sequence: u64, out: &mut Output) {
        assert!(sequence <= self.appends.last, "nobody asked for record {sequence}");
        self.appends.durable = self.appends.durable.max(sequence);
        self.answer_words(out);
        self.ask_for_what_is_durable(out);
        while let Some((_, waiter)) =
            self.appends.waiting.pop_front_if(|(record, _)| *record <= self.appends.durable)
        {
            self.fulfil(now, waiter, out);
        }
    }

    /// The same, at once if it is there already.
    pub(super) fn when_durable(&mut self, now: Now, sequence: u64, waiter: Waiter, out: &mut Output) {
        if self.is_durable(sequence) {
            self.fulfil(now, waiter, out);
        } else {
            self.wait_for_record(sequence, waiter);
        }
    }

    fn fulfil(&mut self, now: Now, waiter: Waiter, out: &mut Output) {
        match waiter {
            Waiter::Peer { connection, request_id, .. } | Waiter::Asked { connection, request_id, .. }
                if self.view.is_fenced() =>
            {
                self.refuse_as_fenced(connection, request_id, out);
            }
            // This process's copy is not the node's any more: neither its own write nor a peer's counts it, and nobody is
            // told what it is bound to.
            _ if self.view.is_fenced() => {}
            Waiter::Operation(key) => {
                self.count_durable(key, self.view.me);
                self.progress(now, key, false, out);
            }
            // It may have been wiped since with all that was of that epoch.
            Waiter::Peer { connection, request_id, partition, epoch } if epoch != self.epoch(partition) => {
                self.answer_epoch(connection, request_id, partition, out);
            }
            Waiter::Peer { connection, request_id, .. } => {
                self.send_replicated(connection, request_id, out);
            }
            Waiter::Asked { connection, request_id, partition } => {
                self.answer_epoch(connection, request_id, partition, out);
            }
            Waiter::Former { connection, request_id } => self.send_held(connection, request_id, out),
            Waiter::Bound { connection, request_id, partition, epoch, round, agreed } => {
                let bound = Bound { partition, epoch, round, bound: true, agreed, evicted: false };
                self.send_bound(connection, request_id, bound, out);
            }
            Waiter::Proposed { round } => self.on_proposed(now, round, out),
            Waiter::Raised { partition } => self.tell_raised(now, partition, out),
        }
    }
}
