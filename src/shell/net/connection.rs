//! One connection: what it is at, and which of its operations the kernel holds.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use super::incoming::Incoming;
use super::outgoing::Outgoing;
use crate::shard::{ConnectionLimits, DialId};
use crate::shell::sockets::RawAddress;
use crate::storage::cost;
use crate::time::Instant;

/// What a connection is at.
pub(super) enum Phase {
    /// Not there yet.
    Dialling(Dialling),
    /// Frames go both ways.
    Open,
    /// It sent what can't be cut; the core has been told and will close it. What it sends is thrown away.
    Garbled,
    /// The core is done with it: flush, say so (`FIN`), and throw away what still arrives until the other end
    /// is done too. Closing with bytes unread would reset the connection, and our last answer with it.
    Finishing { fin_sent: bool },
    /// The machine knows that it is gone. Waiting for the kernel to give back its operations.
    Closing,
}

/// A call under way.
pub(super) struct Dialling {
    pub(super) dial: DialId,
    /// To be tried next, last one first.
    pub(super) others: Vec<SocketAddr>,
}

/// Whether the kernel reads for this connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Receiving {
    No,
    Yes,
    /// A cancellation is under way; more may have arrived before it.
    Stopping,
}

pub(super) struct Connection {
    pub(super) socket: OwnedFd,
    pub(super) phase: Phase,
    pub(super) limits: ConnectionLimits,
    pub(super) incoming: Incoming,
    pub(super) outgoing: Outgoing,
    /// Requests handed in that were not answered.
    pub(super) requests_in_flight: usize,
    /// We called. Such a connection is read however much waits to be sent on it: if both ends stopped
    /// reading until the other does, they would do so for ever.
    pub(super) dialled: bool,
    /// Past its limits: not read until it is below half of them.
    pub(super) paused: bool,
    /// The other end sends no more.
    pub(super) peer_finished: bool,
    /// Bytes thrown away since it was garbled or finished.
    pub(super) discarded: usize,
    /// When it is torn down, if it is still in its phase.
    pub(super) deadline: Option<Instant>,
    /// In the list of those with something new to send.
    pub(super) dirty: bool,
    /// In the list of those that may go on.
    pub(super) relieved: bool,
    pub(super) receiving: Receiving,
    pub(super) sending: bool,
    /// The address being called, boxed because the kernel may read it until the operation completes.
    pub(super) connecting: Option<Box<RawAddress>>,
}

impl Connection {
    pub(super) fn new(socket: OwnedFd, phase: Phase) -> Self {
        Self {
            socket,
            dialled: matches!(phase, Phase::Dialling(_)),
            phase,
            limits: ConnectionLimits::STRANGER,
            incoming: Incoming::default(),
            outgoing: Outgoing::default(),
            requests_in_flight: 0,
            paused: false,
            peer_finished: false,
            discarded: 0,
            deadline: None,
            dirty: false,
            relieved: false,
            receiving: Receiving::No,
            sending: false,
            connecting: None,
        }
    }

    /// Does the kernel hold an operation of this connection, and with it pointers to its memory?
    pub(super) fn is_in_kernel(&self) -> bool {
        self.receiving != Receiving::No || self.sending || self.connecting.is_some()
    }

    /// What it takes in memory beside itself.
    pub(super) fn memory(&self) -> usize {
        let address = self.connecting.as_deref().map_or(0, |address| cost::allocated(size_of_val(address)));
        self.incoming.memory() + self.outgoing.memory() + address
    }

    /// Would it give back more if it were ended now? What is being ended already does so by itself.
    pub(super) const fn can_be_closed(&self) -> bool {
        !matches!(self.phase, Phase::Dialling(_) | Phase::Closing)
    }

    /// May another frame be handed in?
    pub(super) fn is_within_limits(&self, unsent_bytes_max: usize) -> bool {
        self.requests_in_flight < self.limits.requests_in_flight_max
            && (self.dialled || self.outgoing.unsent() <= unsent_bytes_max)
    }

    /// Below half of what it was paused for?
    pub(super) fn is_relieved(&self, unsent_bytes_max: usize) -> bool {
        self.requests_in_flight <= self.limits.requests_in_flight_max.saturating_sub(1) / 2
            && (self.dialled || self.outgoing.unsent() <= unsent_bytes_max / 2)
    }

    /// Should the kernel read for it?
    pub(super) fn wants_bytes(&self) -> bool {
        let phase = match self.phase {
            Phase::Open => !self.paused,
            Phase::Garbled | Phase::Finishing { .. } => true,
            Phase::Dialling(_) | Phase::Closing => false,
        };
        phase && !self.peer_finished
    }

    /// The other end sends no more, and has nothing to wait for.
    pub(super) fn is_answered_after_end(&self) -> bool {
        self.peer_finished && !self.paused && (self.dialled || self.requests_in_flight == 0)
    }

    /// Has everything that was queued left?
    pub(super) fn is_flushed(&self) -> bool {
        !self.sending && self.outgoing.is_empty()
    }
}
