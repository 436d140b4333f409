//! The network of one shard: a second io_uring beside the executor's own.
//!
//! Completions become [`Event`]s, one at a time; what the machine wants sent, dialled and closed is queued as
//! operations; one `enter` a turn hands all of them to the kernel, with at most one send for each connection,
//! however many answers it carries.
//!
//! - [`ring`]: the io_uring itself, and its one timer;
//! - [`buffers`]: receive buffers shared by all connections;
//! - [`token`], [`table`]: names of operations and connections, which are never mistaken for later ones;
//! - [`connection`], [`incoming`], [`outgoing`]: one connection and its two directions;
//! - [`listener`], [`dialling`], [`traffic`], [`closing`]: a connection's life, in that order.
//!
//! What it promises: a peer can make a connection hold no more than the bytes that it really sent and
//! that were under way when it passed its limits; a connection past its limits isn't read; one that takes no
//! answers isn't read either, and is cut off when it is closed; none of this is noticed by other connections.

mod buffers;
mod closing;
mod connection;
mod dialling;
mod incoming;
mod listener;
mod outgoing;
mod ring;
mod table;
mod token;
mod traffic;

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::OwnedFd;

use io_uring::squeue;

use self::buffers::BufferPool;
use self::listener::Listener;
use self::ring::{Completion, Ring};
use self::table::Table;
use self::token::{Operation, loose_token};
use super::doorbell::Doorbell;
use crate::id::ConnectionId;
use crate::shard::DialId;
use crate::time::{Duration, Instant};

pub(super) use self::buffers::Filled;
pub(super) use self::traffic::HandedIn;

/// Completions taken in one turn: what arrived is answered before more is looked at.
const COMPLETIONS_PER_TURN: usize = 256;

/// While everything is being closed: how often to look at the time,
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// and how long to wait for the kernel to give operations back that were cancelled.
const GIVE_UP: Duration = Duration::from_secs(2);

/// What happened on the network.
#[derive(Debug)]
pub(super) enum Event {
    /// A connection is open.
    Opened { connection: ConnectionId, dial: Option<DialId> },
    /// Nobody was reached.
    DialFailed { dial: DialId },
    /// Bytes arrived: to be passed to [`Net::hand_in`], then given back.
    Received { connection: ConnectionId, filled: Filled },
    /// A connection that was opened is gone; no event of it follows.
    Closed { connection: ConnectionId },
    /// A step of the log has ended: bytes, or an error number if negative.
    Disk { step: usize, result: i32 },
}

pub(super) struct Net {
    /// Dropped first: the kernel lets go of everything below.
    ring: Ring,
    buffers: BufferPool,
    table: Table,
    listeners: Vec<Listener>,
    events: VecDeque<Event>,
    /// Connections with something new to send.
    dirty: Vec<ConnectionId>,
    /// Connections that were paused and may go on.
    relieved: VecDeque<ConnectionId>,
    deadlines: BTreeSet<(Instant, ConnectionId)>,
    unsent_bytes_max: usize,
    /// The time of this turn.
    now: Instant,
    /// Reused by [`Net::poll`].
    completions: Vec<Completion>,
}

impl Net {
    /// On the thread that will use it. `unsent_bytes_max`: past it, whoever called isn't read.
    pub(super) fn new(
        doorbell: &Doorbell,
        listeners: Vec<OwnedFd>,
        unsent_bytes_max: usize,
    ) -> io::Result<Self> {
        let ring = Ring::new(doorbell)?;
        Ok(Self {
            buffers: BufferPool::register(&ring)?,
            ring,
            table: Table::default(),
            listeners: listeners.into_iter().map(Listener::new).collect(),
            events: VecDeque::new(),
            dirty: Vec::new(),
            relieved: VecDeque::new(),
            deadlines: BTreeSet::new(),
            unsent_bytes_max,
            now: Instant::default(),
            completions: Vec::with_capacity(COMPLETIONS_PER_TURN),
        })
    }

    /// Begin a turn: hand the kernel what was queued, let it work, and take note of what is done. `on_event` is
    /// to take all events each time it is called. Tells whether anything was done.
    pub(super) fn poll(&mut self, now: Instant, mut on_events: impl FnMut(&mut Self)) -> bool {
        self.now = now;
        self.buffers.publish();
        self.ring.enter();
        let mut completions = std::mem::take(&mut self.completions);
        self.ring.completions(COMPLETIONS_PER_TURN, &mut completions);
        let any = !completions.is_empty();
        for completion in completions.drain(..) {
            self.on_completion(completion);
            on_events(self);
        }
        self.completions = completions;
        if self.next_deadline().is_some_and(|at| at <= now) {
            self.expire();
            self.retry_accepts();
            on_events(self);
        }
        any
    }

    /// What connections and buffers take in memory; those of so many connections are counted anew, all in turn.
    pub(super) fn memory(&mut self, connections: usize) -> usize {
        self.buffers.memory() + self.table.recount(connections)
    }

    /// What connections alone take, as last counted.
    pub(super) const fn connection_bytes(&self) -> usize {
        self.table.counted()
    }

    /// Queue a step of the shard's log; [`Event::Disk`] tells its end.
    ///
    /// # Safety
    ///
    /// What `entry` points to, and the file, stay as they are until then.
    pub(super) unsafe fn push_disk(&mut self, entry: squeue::Entry, step: usize) {
        // SAFETY: as this function's own contract.
        unsafe { self.ring.push(&entry.user_data(loose_token(Operation::Disk, step))) };
    }

    /// Hand the kernel what is queued, and wait until something ends.
    pub(super) fn wait(&mut self) {
        self.ring.enter_and_wait();
    }

    /// The next event.
    pub(super) fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Have the doorbell ring at `machine` or when the network itself wants to go on, whichever is earlier.
    pub(super) fn wake_at(&mut self, machine: Option<Instant>) {
        if let Some(when) = machine.into_iter().chain(self.next_deadline()).min() {
            self.ring.wake_at(when);
        }
    }

    /// Nothing is queued that the kernel or the machine hasn't been told of, and the kernel has nothing to do.
    pub(super) fn is_idle(&mut self) -> bool {
        self.events.is_empty() && self.dirty.is_empty() && self.relieved.is_empty() && !self.ring.has_work()
    }

    /// Everything that was delivered has left.
    pub(super) fn is_flushed(&self) -> bool {
        self.table.iter().all(connection::Connection::is_flushed)
    }

    fn on_completion(&mut self, completion: Completion) {
        let Some((operation, connection)) = token::parse(completion.user_data) else {
            unreachable!("the kernel returns the tokens it was given")
        };
        match operation {
            Operation::Receive => self.on_receive(connection, completion),
            Operation::Send => self.on_send(connection, completion),
            Operation::Accept => self.on_accept(connection.0 as usize, completion),
            Operation::Connect => self.on_connect(connection, completion),
            Operation::Timer => self.ring.timer_fired(),
            Operation::Aside => {}
            Operation::Disk => {
                let (step, result) = (connection.0 as usize, completion.result);
                self.events.push_back(Event::Disk { step, result });
            }
        }
    }

    /// Close everything, and return when the kernel holds nothing of ours any more. Blocks.
    ///
    /// Connections first get until `until` to take their last answers and to close from their end.
    pub(super) fn shut(mut self, until: Instant) {
        self.stop_accepting();
        self.finish_all();
        self.flush();
        while self.table.len() > 0 || self.is_accepting() {
            let now = super::clock::monotonic();
            if now >= until {
                self.tear_down_all();
            }
            if now >= until + GIVE_UP {
                // Rather leak than free what the kernel might still use. The process is about to end.
                return std::mem::forget(self);
            }
            self.ring.wake_at(now + LOOK_AGAIN);
            self.ring.enter_and_wait();
            self.poll(now, |net| {
                while let Some(event) = net.next_event() {
                    if let Event::Received { filled, .. } = event {
                        net.give_back(filled);
                    }
                }
            });
            self.flush();
        }
    }
}
