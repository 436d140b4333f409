//! How connections end.
//!
//! Two rules. Nothing that the kernel may still use is freed: a connection keeps its slot, its descriptor and
//! its buffers until every operation on it has completed. And a last answer isn't lost: before a socket is
//! closed, what the other end still sends is read and thrown away until it is done too, or a time limit passes.

use super::connection::{Phase, Receiving};
use super::token::{Operation, token};
use super::{Event, Net};
use crate::id::ConnectionId;
use crate::shell::sockets;
use crate::time::{Duration, Instant};

/// For a peer to take what was sent to it, and to close.
const FINISH_TIME: Duration = Duration::from_secs(5);

/// For the answers to somebody who sends no more, but may be listening.
const HALF_CLOSED_TIME: Duration = Duration::from_secs(30);

/// Bytes thrown away for a connection that is done, before it is cut off.
const DISCARDED_BYTES_MAX: usize = 64 << 20;

impl Net {
    /// Close a connection when everything queued has left. [`Event::Closed`] follows.
    pub(in crate::shell) fn finish(&mut self, id: ConnectionId) {
        let Some(connection) = self.table.find(id) else { return };
        if !matches!(connection.phase, Phase::Open | Phase::Garbled) {
            return;
        }
        connection.phase = Phase::Finishing { fin_sent: false };
        connection.paused = false;
        connection.incoming.discard();
        self.set_deadline(id, FINISH_TIME);
        self.settle(id);
    }

    /// Close all, and give up what isn't open yet.
    pub(super) fn finish_all(&mut self) {
        for id in self.table.names() {
            let dialling = self.table.find(id).is_some_and(|one| matches!(one.phase, Phase::Dialling(_)));
            if dialling { self.tear_down(id) } else { self.finish(id) }
        }
    }

    /// End all now.
    pub(super) fn tear_down_all(&mut self) {
        for id in self.table.names() {
            self.tear_down(id);
        }
    }

    /// End those that take most memory, whoever has called, while what the others take is still too much. Nobody is ended for what that
    /// can't change: pools, rings, and connections that are about to end.
    pub(in crate::shell) fn close_largest(&mut self, is_too_much: impl Fn(usize) -> bool) {
        let mut closable: Vec<_> = self.table.closable().collect();
        closable.sort_unstable();
        let mut left: usize = closable.iter().map(|(bytes, _)| *bytes).sum();
        while is_too_much(left)
            && let Some((bytes, id)) = closable.pop()
        {
            left -= bytes;
            self.tear_down(id);
        }
    }

    /// Take the next step towards the end, if something that was waited for has happened.
    pub(super) fn settle(&mut self, id: ConnectionId) {
        let Some(connection) = self.table.find(id) else { return };
        if !connection.is_flushed() {
            return;
        }
        match connection.phase {
            Phase::Finishing { fin_sent: false } => {
                sockets::finish_sending(&connection.socket);
                connection.phase = Phase::Finishing { fin_sent: true };
                if connection.peer_finished { self.tear_down(id) } else { self.receive(id) }
            }
            Phase::Finishing { fin_sent: true } if connection.peer_finished => self.tear_down(id),
            Phase::Open if connection.is_answered_after_end() => self.tear_down(id),
            _ => {}
        }
    }

    /// The other end sends no more. Somebody who called may still be waiting for answers; somebody whom we
    /// called won't answer us any more.
    pub(super) fn on_peer_finished(&mut self, id: ConnectionId) {
        let Some(connection) = self.table.find(id) else { return };
        connection.peer_finished = true;
        if connection.dialled {
            return self.tear_down(id);
        }
        if matches!(connection.phase, Phase::Open) {
            self.set_deadline(id, HALF_CLOSED_TIME);
        }
        self.settle(id);
    }

    /// Count what was thrown away.
    pub(super) fn on_discarded(&mut self, id: ConnectionId, bytes: usize) {
        let Some(connection) = self.table.find(id) else { return };
        connection.discarded += bytes;
        if connection.discarded > DISCARDED_BYTES_MAX {
            self.tear_down(id);
        }
    }

    /// End it now: tell the machine, take the operations back, and close once the kernel has let go.
    pub(super) fn tear_down(&mut self, id: ConnectionId) {
        let Some(connection) = self.table.find(id) else { return };
        let event = match &connection.phase {
            Phase::Closing => return,
            Phase::Dialling(dialling) => Event::DialFailed { dial: dialling.dial },
            Phase::Open | Phase::Garbled | Phase::Finishing { .. } => Event::Closed { connection: id },
        };
        self.events.push_back(event);
        connection.phase = Phase::Closing;
        connection.incoming.discard();
        connection.outgoing.discard();
        // Ends whatever waits for the other end, even where the kernel misses the cancellation.
        sockets::cut_off(&connection.socket);
        let operations = [
            (connection.receiving != Receiving::No, Operation::Receive),
            (connection.sending, Operation::Send),
            (connection.connecting.is_some(), Operation::Connect),
        ];
        for (_, operation) in operations.into_iter().filter(|(held, _)| *held) {
            self.ring.cancel(token(operation, id));
        }
        self.clear_deadline(id);
        self.release_if_idle(id);
    }

    /// Free the slot and close the descriptor, if the connection is over and the kernel holds nothing of it.
    pub(super) fn release_if_idle(&mut self, id: ConnectionId) {
        let Some(connection) = self.table.find(id) else { return };
        if matches!(connection.phase, Phase::Closing) && !connection.is_in_kernel() {
            self.table.remove(id);
        }
    }

    pub(super) fn set_deadline(&mut self, id: ConnectionId, span: Duration) {
        self.clear_deadline(id);
        let deadline = self.now + span;
        if let Some(connection) = self.table.find(id) {
            connection.deadline = Some(deadline);
            self.deadlines.insert((deadline, id));
        }
    }

    pub(super) fn clear_deadline(&mut self, id: ConnectionId) {
        if let Some(deadline) = self.table.find(id).and_then(|connection| connection.deadline.take()) {
            self.deadlines.remove(&(deadline, id));
        }
    }

    /// Tear down those whose time is over.
    pub(super) fn expire(&mut self) {
        while let Some(&(deadline, id)) = self.deadlines.first().filter(|(at, _)| *at <= self.now) {
            self.deadlines.remove(&(deadline, id));
            let Some(connection) = self.table.find(id) else { continue };
            connection.deadline = None;
            if matches!(connection.phase, Phase::Dialling(_)) {
                self.give_up_address(id);
            } else {
                self.tear_down(id);
            }
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let retries = self.listeners.iter().filter_map(|listener| listener.retry_at);
        retries.chain(self.deadlines.first().map(|(at, _)| *at)).min()
    }
}
