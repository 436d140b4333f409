//! Bytes in, bytes out, and when a connection isn't read.

use std::ops::Range;
use std::os::fd::AsRawFd;

use io_uring::opcode;
use io_uring::types::Fd;
use ringmain_schema::Frame;

use super::buffers::{Filled, GROUP};
use super::connection::{Phase, Receiving};
use super::incoming::Cut;
use super::ring::Completion;
use super::token::{Operation, token};
use super::{Event, Net};
use crate::id::ConnectionId;
use crate::shard::{ConnectionLimits, Input, Piece};

/// How far [`Net::hand_in`] got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::shell) enum HandedIn {
    /// Every whole frame.
    All,
    /// Up to this many of the bytes received: the connection is at its limits.
    Until(usize),
}

impl Net {
    /// Have the kernel read for this connection, unless it does already or shouldn't.
    pub(super) fn receive(&mut self, id: ConnectionId) {
        let Some(connection) = self.table.find(id) else { return };
        if connection.receiving != Receiving::No || !connection.wants_bytes() {
            return;
        }
        connection.receiving = Receiving::Yes;
        let receive = opcode::RecvMulti::new(Fd(connection.socket.as_raw_fd()), GROUP).build();
        // SAFETY: the bytes go to the registered buffers, which outlive the ring.
        unsafe { self.ring.push(&receive.user_data(token(Operation::Receive, id))) };
    }

    pub(super) fn on_receive(&mut self, id: ConnectionId, completion: Completion) {
        let bytes = usize::try_from(completion.result).unwrap_or(0);
        let filled = completion.buffer.map(|buffer| self.buffers.filled(buffer, bytes));
        let Some(connection) = self.table.find(id) else {
            unreachable!("its slot is kept until it completes")
        };
        if !completion.more {
            connection.receiving = Receiving::No;
        }
        match (filled, &connection.phase) {
            (Some(filled), Phase::Open) if bytes > 0 => {
                self.events.push_back(Event::Received { connection: id, filled });
            }
            (Some(filled), _) => {
                self.buffers.give_back(filled);
                self.on_discarded(id, bytes);
            }
            (None, _) => {}
        }
        match -completion.result {
            0 => self.on_peer_finished(id),
            // No buffer was free, or it was cancelled: perhaps not for good.
            libc::ENOBUFS | libc::ECANCELED => {}
            error if error > 0 => self.tear_down(id),
            _ => {}
        }
        if !completion.more {
            self.receive(id);
            self.release_if_idle(id);
        }
    }

    /// Cut frames from what the connection holds and from `filled`, of which the first `from` bytes were
    /// handed in before, and pass them to `take`, up to the connection's limits, or until `take` says that it
    /// has enough for now.
    pub(in crate::shell) fn hand_in(
        &mut self,
        id: ConnectionId,
        filled: Option<&Filled>,
        from: usize,
        mut take: impl FnMut(Input<'_>) -> bool,
    ) -> HandedIn {
        let Some(connection) = self.table.find(id) else { return HandedIn::All };
        if !matches!(connection.phase, Phase::Open) {
            return HandedIn::All;
        }
        let fresh = filled.map_or(&[][..], |filled| &self.buffers.bytes(filled)[from..]);
        let limits = connection.limits;
        let ready = connection.is_within_limits(self.unsent_bytes_max);
        let in_flight = &mut connection.requests_in_flight;
        let on_frame = |frame: Frame<'_>| {
            *in_flight += usize::from(!frame.header.kind.is_answer());
            let goes_on = take(Input::Frame { connection: id, frame });
            goes_on && *in_flight < limits.requests_in_flight_max
        };
        match connection.incoming.cut(fresh, limits.frame_bytes_max, ready, on_frame) {
            Cut::Hungry => HandedIn::All,
            Cut::Blocked { rest } => HandedIn::Until(from + rest),
            Cut::Garbled(error) => {
                connection.phase = Phase::Garbled;
                connection.incoming.discard();
                take(Input::Garbled { connection: id, error });
                HandedIn::All
            }
        }
    }

    /// Would [`Net::hand_in`] get further now?
    pub(in crate::shell) fn is_within_limits(&mut self, id: ConnectionId) -> bool {
        let unsent_bytes_max = self.unsent_bytes_max;
        self.table.find(id).is_some_and(|connection| connection.is_within_limits(unsent_bytes_max))
    }

    /// Keep what follows the first `from` bytes of `filled` for later, and don't read the connection until it
    /// is below half its limits.
    pub(in crate::shell) fn pause(&mut self, id: ConnectionId, filled: Option<&Filled>, from: usize) {
        let Some(connection) = self.table.find(id) else { return };
        if !matches!(connection.phase, Phase::Open) {
            return;
        }
        if let Some(filled) = filled {
            connection.incoming.hold(&self.buffers.bytes(filled)[from..]);
        }
        if connection.incoming.is_empty() {
            return;
        }
        connection.paused = true;
        // Each time, for the kernel may miss a cancellation while it is about to go on by itself. If nothing
        // more arrives, it doesn't matter that it did.
        if connection.receiving != Receiving::No {
            connection.receiving = Receiving::Stopping;
            self.ring.cancel(token(Operation::Receive, id));
        }
    }

    /// A paused connection that may go on: its bytes are to be handed in, then it is to be passed to
    /// [`Net::resume`] or [`Net::pause`].
    pub(in crate::shell) fn next_relieved(&mut self) -> Option<ConnectionId> {
        let id = self.relieved.pop_front()?;
        if let Some(connection) = self.table.find(id) {
            connection.relieved = false;
        }
        Some(id)
    }

    /// All that had arrived has been handed in: if it was paused, read it again.
    pub(in crate::shell) fn resume(&mut self, id: ConnectionId) {
        if let Some(connection) = self.table.find(id).filter(|connection| connection.paused) {
            connection.paused = false;
            self.receive(id);
            self.settle(id);
        }
    }

    /// The bytes of a buffer were used.
    pub(in crate::shell) fn give_back(&mut self, filled: Filled) {
        self.buffers.give_back(filled);
    }

    /// Change what a connection may do.
    pub(in crate::shell) fn set_limits(&mut self, id: ConnectionId, limits: ConnectionLimits) {
        if let Some(connection) = self.table.find(id) {
            connection.limits = limits;
            self.relieve(id);
        }
    }

    /// Queue a piece; `copied` is what [`Piece::Copied`] points into. What goes to a connection that is gone,
    /// or about to go, is dropped.
    pub(in crate::shell) fn deliver(&mut self, id: ConnectionId, piece: Piece, copied: &[u8], answers: bool) {
        let Some(connection) = self.table.find(id) else { return };
        if !matches!(connection.phase, Phase::Open | Phase::Garbled) {
            return;
        }
        match piece {
            Piece::Copied(Range { start, end }) => connection.outgoing.copy(&copied[start..end]),
            Piece::Shared(bytes) => connection.outgoing.share(bytes),
        }
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push(id);
        }
        if answers {
            connection.requests_in_flight = connection.requests_in_flight.saturating_sub(1);
            if connection.paused {
                self.relieve(id);
            }
        }
    }

    /// Queue one send for every connection with something new to send.
    pub(in crate::shell) fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for id in dirty.drain(..) {
            self.send(id);
        }
        self.dirty = dirty;
    }

    fn send(&mut self, id: ConnectionId) {
        let Some(connection) = self.table.find(id) else { return };
        connection.dirty = false;
        if connection.sending || matches!(connection.phase, Phase::Closing) {
            return;
        }
        let Some(entry) = connection.outgoing.next_send(connection.socket.as_raw_fd()) else { return };
        connection.sending = true;
        // SAFETY: what the entry points to stays where it is, unchanged, until `advance` is called, and exists
        // until the connection is removed; both happen only after this operation has completed.
        unsafe { self.ring.push(&entry.user_data(token(Operation::Send, id))) };
    }

    pub(super) fn on_send(&mut self, id: ConnectionId, completion: Completion) {
        let Some(connection) = self.table.find(id) else {
            unreachable!("its slot is kept until it completes")
        };
        connection.sending = false;
        if matches!(connection.phase, Phase::Closing) {
            return self.release_if_idle(id);
        }
        match usize::try_from(completion.result) {
            Ok(bytes) => connection.outgoing.advance(bytes),
            // Interrupted, or the kernel was short of memory: the same bytes again.
            Err(_) if [libc::EINTR, libc::EAGAIN, libc::ENOBUFS].contains(&-completion.result) => {}
            Err(_) => return self.tear_down(id),
        }
        let (paused, empty) = (connection.paused, connection.outgoing.is_empty());
        // What was queued meanwhile, or didn't leave.
        self.send(id);
        if paused {
            self.relieve(id);
        }
        if empty {
            self.settle(id);
        }
    }

    /// If a paused connection is below half its limits, let it go on.
    fn relieve(&mut self, id: ConnectionId) {
        let unsent_bytes_max = self.unsent_bytes_max;
        let Some(connection) = self.table.find(id) else { return };
        if connection.paused && connection.is_relieved(unsent_bytes_max) && !connection.relieved {
            connection.relieved = true;
            self.relieved.push_back(id);
        }
    }
}
