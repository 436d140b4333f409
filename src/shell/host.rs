//! Between the machine and the world: inputs in, outputs carried out, nothing decided.

use std::net::{IpAddr, SocketAddr};

use super::log::Log;
use super::mesh::Mesh;
use super::names::Names;
use super::net::{Event, Filled, HandedIn, Net};
use crate::id::{ConnectionId, ShardId};
use crate::shard::{Dial, Input, LogState, Machine, Output, SiblingMessage};
use crate::storage::cost;
use crate::time::{Duration, Instant, Now};

/// Small requests can have large answers: with so many bytes of them waiting, they are carried out before the
/// next request is looked at, so that the connection's limit on unsent bytes can take effect.
const OUTPUT_BYTES_MAX: usize = 4 << 20;

/// Messages taken from one sibling in one turn.
const SIBLING_MESSAGES_PER_TURN: usize = 256;
/// The machine hears so often how long inputs waited, while there are any.
const WAITS_TOLD_EVERY: Duration = Duration::from_millis(5);
/// It hears so often what connections and buffers take, while it takes turns.
const BUFFERED_TOLD_EVERY: Duration = Duration::from_millis(5);
/// Connections whose memory is counted anew each time.
const CONNECTIONS_PER_COUNT: usize = 256;
/// Paused connections that go on in one turn.
const RELIEVED_PER_TURN: usize = 64;

pub(super) struct Host<M> {
    machine: M,
    output: Output,
    mesh: Mesh<SiblingMessage>,
    names: Names,
    /// Read once a turn.
    now: Now,
    /// The longest that inputs have waited since the machine was told, and when that was.
    longest_wait: Duration,
    waits_told: Instant,
    buffered_told: Instant,
    /// In durable mode.
    log: Option<Log>,
    /// What the machine was last told of it.
    log_state: LogState,
    /// The last append that the machine asked for and wasn't told of, if there is no log: then a record is as durable as it
    /// will get.
    appended: Option<u64>,
    /// Reused by [`Host::take_siblings`].
    messages: Vec<(ShardId, SiblingMessage)>,
}

impl<M: Machine> Host<M> {
    pub(super) fn new(machine: M, log: Option<Log>, mesh: Mesh<SiblingMessage>, names: Names) -> Self {
        Self {
            machine,
            output: Output::default(),
            mesh,
            names,
            now: Now::default(),
            longest_wait: Duration::ZERO,
            waits_told: Instant(0),
            buffered_told: Instant(0),
            log,
            log_state: LogState::Open,
            appended: None,
            messages: Vec::new(),
        }
    }

    /// A turn begins.
    pub(super) fn set_now(&mut self, now: Now) {
        self.now = now;
    }

    /// What this turn takes in has waited so long, at most.
    pub(super) fn tell_waits(&mut self, net: &mut Net, waited: Duration) {
        self.longest_wait = self.longest_wait.max(waited);
        if self.now.monotonic.since(self.waits_told) >= WAITS_TOLD_EVERY {
            self.waits_told = self.now.monotonic;
            let longest = std::mem::take(&mut self.longest_wait);
            self.take(net, Input::Waited { longest });
        }
    }

    /// The machine counts what its connections and what is on its way take in memory.
    pub(super) fn tell_buffered(&mut self, net: &mut Net) {
        if self.now.monotonic.since(self.buffered_told) >= BUFFERED_TOLD_EVERY {
            self.buffered_told = self.now.monotonic;
            let messages = self.messages.capacity() * size_of::<(ShardId, SiblingMessage)>();
            let log = self.log.as_ref().map_or(0, Log::memory);
            let own = self.output.memory() + cost::allocated(messages) + self.mesh.memory() + log;
            let bytes = own + net.memory(CONNECTIONS_PER_COUNT);
            self.take(net, Input::Buffered { bytes });
            if self.machine.is_crowded(net.connection_bytes()) {
                net.close_largest(|bytes| self.machine.is_crowded(bytes));
            }
        }
    }

    /// Pass one input to the machine, and carry out what follows.
    pub(super) fn take(&mut self, net: &mut Net, input: Input<'_>) {
        self.machine.handle(self.now, input, &mut self.output);
        self.carry_out(net);
    }

    /// Pass on everything that has happened on the network.
    pub(super) fn take_events(&mut self, net: &mut Net) {
        while let Some(event) = net.next_event() {
            match event {
                Event::Received { connection, filled } => self.read(net, connection, Some(filled)),
                Event::Opened { connection, dial } => self.take(net, Input::Opened { connection, dial }),
                Event::DialFailed { dial } => self.take(net, Input::DialFailed { dial }),
                Event::Closed { connection } => self.take(net, Input::Closed { connection }),
                Event::Disk { step, result } => {
                    self.log.as_mut().expect("only a log has steps").on_done(step, result);
                }
            }
        }
    }

    /// Pass on what siblings said; tells whether they said anything.
    pub(super) fn take_siblings(&mut self, net: &mut Net) -> bool {
        let mut messages = std::mem::take(&mut self.messages);
        let any =
            self.mesh.receive(SIBLING_MESSAGES_PER_TURN, |from, message| messages.push((from, message)));
        for (from, message) in messages.drain(..) {
            self.take(net, Input::Sibling { from, message });
        }
        self.messages = messages;
        any
    }

    /// Go on with calls whose host's name has been looked up, with connections that were paused, with appends
    /// that are done, and with time. Tells whether there was any.
    pub(super) fn take_the_rest(&mut self, net: &mut Net) -> bool {
        let mut any = false;
        while let Some(resolved) = self.names.take() {
            net.dial(resolved.dial, resolved.addresses);
            any = true;
        }
        for _ in 0..RELIEVED_PER_TURN {
            let Some(connection) = net.next_relieved() else { break };
            self.read(net, connection, None);
            any = true;
        }
        any |= self.take_reads(net);
        while let Some(sequence) = self.take_appended() {
            self.take(net, Input::Appended { sequence });
            any = true;
        }
        if self.machine.next_timeout().is_some_and(|at| at <= self.now.monotonic) {
            self.take(net, Input::Tick);
            any = true;
        }
        self.take_events(net);
        any
    }

    /// Pass on the records that were read. Tells whether there was any.
    fn take_reads(&mut self, net: &mut Net) -> bool {
        let mut any = false;
        loop {
            let Self { machine, output, now, log, .. } = self;
            let Some((sequence, record)) = log.as_mut().and_then(Log::take_read) else { return any };
            machine.handle(*now, Input::Record { sequence, record }, output);
            self.carry_out(net);
            any = true;
        }
    }

    fn take_appended(&mut self) -> Option<u64> {
        self.log.as_mut().map_or_else(|| self.appended.take(), Log::take_acknowledged)
    }

    /// The turn's records go to the log. Tells whether the machine was told of anything.
    pub(super) fn write_log(&mut self, net: &mut Net) -> bool {
        let Some(log) = &mut self.log else { return false };
        log.work(self.now.monotonic, net);
        let (state, compaction) = (log.state(), log.take_compaction());
        let is_news = std::mem::replace(&mut self.log_state, state) != state;
        if is_news {
            self.take(net, Input::Log(state));
        }
        if let Some(range) = compaction {
            self.take(net, Input::Compact(range));
        }
        is_news || compaction.is_some() || self.log.as_ref().is_some_and(Log::has_read)
    }

    /// Records are on their way to the log, or about to be.
    pub(super) fn is_logging(&self) -> bool {
        self.log.as_ref().is_some_and(Log::is_busy)
    }

    /// The log begins nothing more that can wait for the next start.
    pub(super) fn stop_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.stop();
        }
    }

    /// Have all records synced.
    pub(super) fn settle_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.settle();
        }
    }

    /// Wake the siblings that were sent something.
    pub(super) fn ring_siblings(&mut self) {
        self.mesh.ring();
    }

    /// No message from another thread waits.
    pub(super) fn is_idle(&self) -> bool {
        self.mesh.is_idle() && self.names.is_idle()
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.machine.next_timeout().into_iter().chain(self.log.as_ref().and_then(Log::next_timeout)).min()
    }

    pub(super) fn is_drained(&self) -> bool {
        self.machine.is_drained()
    }

    /// Hand in what arrived, as far as the connection's limits go; what the machine answers at once makes room
    /// for more.
    fn read(&mut self, net: &mut Net, connection: ConnectionId, filled: Option<Filled>) {
        let mut from = 0;
        loop {
            let Self { machine, output, now, .. } = self;
            let handed_in = net.hand_in(connection, filled.as_ref(), from, |input| {
                machine.handle(*now, input, output);
                output.bytes.len() < OUTPUT_BYTES_MAX
            });
            self.carry_out(net);
            match handed_in {
                HandedIn::All => {
                    net.resume(connection);
                    break;
                }
                HandedIn::Until(at) if net.is_within_limits(connection) => from = at,
                HandedIn::Until(at) => {
                    net.pause(connection, filled.as_ref(), at);
                    break;
                }
            }
        }
        if let Some(filled) = filled {
            net.give_back(filled);
        }
    }

    fn carry_out(&mut self, net: &mut Net) {
        let output = &mut self.output;
        for delivery in output.deliveries.drain(..) {
            net.deliver(delivery.to, delivery.piece, &output.bytes, delivery.answers);
        }
        for (to, message) in output.siblings.drain(..) {
            let kept = message.kept();
            self.mesh.send(to, message, kept);
        }
        for (connection, limits) in output.limits.drain(..) {
            net.set_limits(connection, limits);
        }
        for connection in output.closes.drain(..) {
            net.finish(connection);
        }
        for call in output.dials.drain(..) {
            dial(&mut self.names, net, call);
        }
        for note in output.notes.drain(..) {
            eprintln!("ringmain: {note}");
        }
        match &mut self.log {
            Some(log) => {
                for append in output.appends.drain(..) {
                    log.append(&append, &output.bytes[append.record.clone()]);
                }
                output.reads.drain(..).for_each(|sequence| log.read(sequence));
                log.on_dead(&mut output.dead);
                if let Some(compacted) = output.compacted.take() {
                    log.on_compacted(compacted);
                }
            }
            None => self.appended = output.appends.last().map(|append| append.sequence).or(self.appended),
        }
        output.clear();
    }
}

/// Call at once if the host is an address, else look it up first.
fn dial(names: &mut Names, net: &mut Net, call: Dial) {
    let dial = call.id;
    if let Ok(address) = call.host.parse::<IpAddr>() {
        net.dial(dial, vec![SocketAddr::new(address, call.port)]);
    } else if !names.ask(call) {
        // Calling nobody fails, in due order.
        net.dial(dial, Vec::new());
    }
}
