//! What goes into a shard and what comes out: the boundary between the core and whoever runs it.
//!
//! The shell turns completions of the kernel into [`Input`]s and carries out [`Output`]s; the simulator does
//! the same with a virtual network and clock. Neither side calls back into the other.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ringmain_schema::{Frame, FrameError};

use super::streams::Progress;
use crate::id::{ConnectionId, ShardId};
use crate::membership::{PartitionSet, View};
use crate::storage::cost;
use crate::storage::log::Range as Sequences;
use crate::time::{Duration, Instant, Now};

/// Requests that one shard may have unanswered at one sibling. A ring between two shards has room for this
/// many requests, as many answers to requests the other way, and [`SIBLING_NOTICES_MAX`]: so an answer
/// always fits, and nobody waits for a neighbour.
pub const SIBLING_REQUESTS_MAX: usize = 1024;

/// Views, their acknowledgements and what was wiped between two of them, that may be under way in one ring.
pub const SIBLING_NOTICES_MAX: usize = 4;

/// Slots of the ring between two shards.
pub const SIBLING_RING_SLOTS: usize = 2 * SIBLING_REQUESTS_MAX + SIBLING_NOTICES_MAX;

/// A machine without IO: inputs in, outputs out, and a time at which it wants to be ticked.
pub trait Machine {
    /// Take one input; append what follows from it to `output`.
    fn handle(&mut self, now: Now, input: Input<'_>, output: &mut Output);

    /// When to send the next [`Input::Tick`] at the latest; `None` for never.
    fn next_timeout(&self) -> Option<Instant>;

    /// Nothing accepted is left unanswered: after [`Input::Stop`], the time to leave.
    fn is_drained(&self) -> bool;

    /// Do so many bytes of connections alone, of those that were told ([`Input::Buffered`]), leave too little for the rest? Then
    /// those that take most are to be closed.
    fn is_crowded(&self, _connections: usize) -> bool {
        false
    }
}

/// A call to a peer that the core asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DialId(pub u64);

/// What happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// A connection is open: somebody called, or (with `dial`) was reached.
    Opened {
        /// Named by the shell, never reused.
        connection: ConnectionId,
        /// The call that led to it.
        dial: Option<DialId>,
    },
    /// Nobody was reached.
    DialFailed {
        /// The call.
        dial: DialId,
    },
    /// A whole frame arrived.
    Frame {
        /// From here.
        connection: ConnectionId,
        /// Borrowed from the receive buffer.
        frame: Frame<'a>,
    },
    /// What arrived can't be cut into frames. Nothing more will be read from this connection.
    Garbled {
        /// From here.
        connection: ConnectionId,
        /// Why.
        error: FrameError,
    },
    /// The connection is gone; what was not sent yet is lost.
    Closed {
        /// Which.
        connection: ConnectionId,
    },
    /// A sibling shard of this node spoke.
    Sibling {
        /// Which.
        from: ShardId,
        /// What it said.
        message: SiblingMessage,
    },
    /// An append asked for by [`Output::appends`] is on stable storage.
    Appended {
        /// The highest sequence that is, of those that were asked for; all before it are too.
        sequence: u64,
    },
    /// A record that [`Output::reads`] has asked for. They come in any order, each once.
    Record {
        /// Its number.
        sequence: u64,
        /// Its bytes, as they were appended; `None` if it can't be read.
        record: Option<&'a [u8]>,
    },
    /// What the log takes has changed.
    Log(LogState),
    /// Append anew what is still needed of these records: [`Output::compacted`] tells the end. One range after the other.
    Compact(Sequences),
    /// Of what came since the last of these, something waited so long for the shard's turn, and nothing longer. Whoever runs
    /// the shard says so now and then while there is work, and need not.
    Waited {
        /// The longest of all.
        longest: Duration,
    },
    /// Whoever runs the shard takes so many bytes for its connections and for what is on its way, all in all. It says so now
    /// and then, and need not.
    Buffered {
        /// As they are allocated.
        bytes: usize,
    },
    /// Time passed.
    Tick,
    /// Take no new requests; answer those accepted.
    Stop,
}

/// What a shard's log takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogState {
    /// Whatever comes.
    #[default]
    Open,
    /// There is no room: only what must be appended.
    Full,
    /// More waits to be written than may.
    Behind,
    /// Nothing any more, until the next start: a write or a sync has failed.
    Failed,
}

/// What shards of one node tell each other.
#[derive(Clone, Debug)]
pub enum SiblingMessage {
    /// A client's request (one whole frame) for a key of the receiver's.
    Request {
        /// The sender's name for it.
        ticket: u64,
        /// How often it was passed on between nodes.
        hops: u8,
        /// What is left of its deadline.
        budget: Duration,
        /// The frame.
        frame: Box<[u8]>,
    },
    /// The answer to a request, one whole frame.
    Answer {
        /// The requester's name for it.
        ticket: u64,
        /// The frame; its request id means nothing.
        frame: Box<[u8]>,
    },
    /// Who is in the cluster now.
    View(Arc<View>),
    /// The last view has arrived: the next may be sent.
    ViewTaken(Box<Progress>),
    /// These partitions were wiped: they are to be streamed again. Once between two views.
    Lost(Box<PartitionSet>),
}

impl SiblingMessage {
    /// What it keeps in memory that nobody counts while it is on its way: whoever sent a request counts that.
    pub fn kept(&self) -> usize {
        match self {
            Self::Answer { frame, .. } => cost::allocated(frame.len()),
            _ => 0,
        }
    }
}

/// An output keeps so much memory for its next use.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// What the core wants done, in order. Owned by the caller and reused.
#[derive(Debug, Default)]
pub struct Output {
    /// The bytes that [`Piece::Copied`] points into.
    pub bytes: Vec<u8>,
    /// Bytes for connections. Those for one connection leave in this order.
    pub deliveries: Vec<Delivery>,
    /// Messages for sibling shards. They always fit in the ring (see [`SIBLING_REQUESTS_MAX`]).
    pub siblings: Vec<(ShardId, SiblingMessage)>,
    /// Calls to make.
    pub dials: Vec<Dial>,
    /// Connections whose limits change.
    pub limits: Vec<(ConnectionId, ConnectionLimits)>,
    /// Connections to close, once what was delivered to them has left.
    pub closes: Vec<ConnectionId>,
    /// Records for the log.
    pub appends: Vec<Append>,
    /// Records to be read again, by their sequences: all were told as appended, and later ones may cover them. Only a shard
    /// with a log and a limit on its memory asks.
    pub reads: Vec<u64>,
    /// Sentences for whoever runs the node.
    pub notes: Vec<String>,
    /// Records of the log that later ones cover, by their sequences; some may be among `appends`.
    pub dead: Vec<u64>,
    /// What [`Input::Compact`] asked for is appended.
    pub compacted: Option<Compacted>,
}

/// Some bytes for a connection.
#[derive(Debug)]
pub struct Delivery {
    /// Where to.
    pub to: ConnectionId,
    /// What.
    pub piece: Piece,
    /// This begins the answer to a request of that connection: one fewer is in flight.
    pub answers: bool,
}

/// Bytes by copy or by reference.
#[derive(Debug)]
pub enum Piece {
    /// Small: a range of [`Output::bytes`].
    Copied(Range<usize>),
    /// Large: never copied again.
    Shared(Bytes),
}

/// Call a peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dial {
    /// Comes back in [`Input::Opened`] or [`Input::DialFailed`].
    pub id: DialId,
    /// A name or an address.
    pub host: Arc<str>,
    /// A port.
    pub port: u16,
}

/// What a connection may do. A new one may send a handshake and wait for its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnectionLimits {
    /// Bytes after the header of a frame that it sends.
    pub frame_bytes_max: usize,
    /// Requests unanswered; past this it isn't read.
    pub requests_in_flight_max: usize,
}

impl ConnectionLimits {
    /// Before the handshake.
    pub const STRANGER: Self =
        Self { frame_bytes_max: ringmain_schema::limits::HANDSHAKE_BYTES_MAX, requests_in_flight_max: 1 };
}

/// A record for the log: the whole state of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Append {
    /// Counts up by one.
    pub sequence: u64,
    /// A range of [`Output::bytes`] that holds the record.
    pub record: Range<usize>,
    /// It says that something is gone, which earlier records told: it is needed while any of these is there.
    pub is_marker: bool,
}

/// Nothing of these records is needed any more,
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Compacted {
    /// which were named;
    pub range: Sequences,
    /// once all up to this one are durable.
    pub through: u64,
}

impl Output {
    /// Everything was carried out: make room, keep the memory.
    pub fn clear(&mut self) {
        if self.bytes.capacity() > KEPT_BYTES_MAX {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.deliveries.clear();
        self.siblings.clear();
        self.dials.clear();
        self.limits.clear();
        self.closes.clear();
        self.appends.clear();
        self.reads.clear();
        self.notes.clear();
        self.dead.clear();
        self.compacted = None;
    }

    /// Bytes that are kept for the next use, or hold what is to be done.
    pub fn memory(&self) -> usize {
        let Self {
            bytes,
            deliveries,
            siblings,
            dials,
            limits,
            closes,
            appends,
            reads,
            notes,
            dead,
            compacted: _,
        } = self;
        let lists = [
            bytes.capacity(),
            deliveries.capacity() * size_of::<Delivery>(),
            siblings.capacity() * size_of::<(ShardId, SiblingMessage)>(),
            dials.capacity() * size_of::<Dial>(),
            limits.capacity() * size_of::<(ConnectionId, ConnectionLimits)>(),
            closes.capacity() * size_of::<ConnectionId>(),
            appends.capacity() * size_of::<Append>(),
            reads.capacity() * size_of::<u64>(),
            notes.capacity() * size_of::<String>(),
            dead.capacity() * size_of::<u64>(),
        ];
        lists.map(cost::allocated).iter().sum()
    }

    /// Nothing to do?
    pub fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
            && self.siblings.is_empty()
            && self.dials.is_empty()
            && self.limits.is_empty()
            && self.closes.is_empty()
            && self.appends.is_empty()
            && self.reads.is_empty()
            && self.notes.is_empty()
            && self.dead.is_empty()
            && self.compacted.is_none()
    }

    /// Deliver what `write` appends to the arena.
    pub fn deliver(&mut self, to: ConnectionId, answers: bool, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        write(&mut self.bytes);
        let piece = Piece::Copied(start..self.bytes.len());
        self.deliveries.push(Delivery { to, piece, answers });
    }

    /// Deliver what `write` appends to the arena to each of `to`.
    pub fn deliver_to_all(
        &mut self,
        to: impl ExactSizeIterator<Item = ConnectionId>,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        if to.len() == 0 {
            return;
        }
        let start = self.bytes.len();
        write(&mut self.bytes);
        for to in to {
            let piece = Piece::Copied(start..self.bytes.len());
            self.deliveries.push(Delivery { to, piece, answers: false });
        }
    }

    /// Deliver large bytes by reference, behind what was delivered before.
    pub fn deliver_shared(&mut self, to: ConnectionId, bytes: Bytes) {
        self.deliveries.push(Delivery { to, piece: Piece::Shared(bytes), answers: false });
    }
}
