//! One connection: requests go out as they come, in one write where several are there, and answers come back in their order.
//!
//! A task of its own carries it, and redials when it breaks. What breaks it: the peer closes it, or says what is no answer,
//! or says nothing for twice the deadline while something waits. Then every request that was under way fails; a write of which
//! a byte may have left is in doubt.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};

use crate::outcome::Failure;
use crate::target::peer::Peer;
use crate::target::{Applied, Trouble};

use super::{Answer, Ask, Garbled, Protocol, Verb, words};

/// A handle to a connection. Its task ends with it.
#[derive(Debug)]
pub(super) struct Lane {
    queue: mpsc::UnboundedSender<Asked>,
    state: Rc<State>,
}

/// What handle and task know of each other. Counts only rise.
#[derive(Debug, Default)]
struct State {
    is_open: Cell<bool>,
    /// Requests that went into the queue.
    asked: Cell<u64>,
    /// Of those, how many left it, in order: `taken <= asked`.
    taken: Cell<u64>,
    /// Of those, how many are over: `ended <= asked`.
    ended: Cell<u64>,
    why_closed: RefCell<String>,
}

#[derive(Debug)]
struct Asked {
    ask: Ask,
    reply: oneshot::Sender<Answer>,
}

/// A request that is on the wire, or about to be.
#[derive(Debug)]
struct Waiting {
    verb: Verb,
    /// Of all bytes that were ever to be written, the place of its first.
    start: u64,
    reply: oneshot::Sender<Answer>,
}

/// What is under way over an open connection.
#[derive(Debug)]
struct Traffic {
    waiting: VecDeque<Waiting>,
    out: BytesMut,
    inbox: BytesMut,
    /// Bytes that the kernel took.
    written: u64,
    answers: u64,
    /// When something came last, or was first waited for.
    heard: Instant,
}

/// Carries a connection, and the next one when it breaks.
struct Carrier {
    peer: Peer,
    protocol: Protocol,
    silence_max: Duration,
    queue: mpsc::UnboundedReceiver<Asked>,
    state: Rc<State>,
}

/// Why a connection is of no use any longer.
struct Broken(String);

/// Requests that wait for their answer on one connection, at most; more wait in the queue.
const WAITING_MAX: usize = 4096;
/// As long as so many bytes wait for the kernel to take them, no request is added.
const OUT_BYTES_MAX: usize = 1 << 20;
const READ_BYTES: usize = 64 << 10;
const DIAL_WITHIN: Duration = Duration::from_secs(1);
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

impl Lane {
    /// Dials, and serves from then on.
    pub(super) async fn open(peer: &Peer, protocol: Protocol, deadline: Duration) -> Result<Self, String> {
        let stream = dial(peer).await?;
        let (sender, queue) = mpsc::unbounded_channel();
        let state = Rc::new(State::default());
        state.is_open.set(true);
        let silence_max = deadline * 2;
        let carrier = Carrier { peer: peer.clone(), protocol, silence_max, queue, state: Rc::clone(&state) };
        // It ends when the handle is gone.
        let _detached = tokio::task::spawn_local(carrier.run(stream));
        Ok(Self { queue: sender, state })
    }

    pub(super) fn is_open(&self) -> bool {
        self.state.is_open.get()
    }

    /// Requests that are neither answered nor given up.
    pub(super) fn under_way(&self) -> u64 {
        self.state.asked.get() - self.state.ended.get()
    }

    pub(super) fn why_closed(&self) -> String {
        self.state.why_closed.borrow().clone()
    }

    /// Asks, and waits for the answer up to a moment.
    pub(super) async fn ask(&self, ask: Ask, deadline: Instant) -> Answer {
        let verb = ask.verb();
        let (reply, answer) = oneshot::channel();
        let place = self.state.asked.get();
        self.state.asked.set(place + 1);
        if self.queue.send(Asked { ask, reply }).is_err() {
            return Err(lost(verb, false, "the run is over".to_owned()));
        }
        match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_dropped)) => Err(lost(verb, true, "the run is over".to_owned())),
            // Whatever has not left the queue by now never will: its receiver is dropped with this future.
            Err(_elapsed) => Err(timed_out(verb, place < self.state.taken.get())),
        }
    }
}

impl Carrier {
    async fn run(mut self, stream: TcpStream) {
        let (mut next, mut pause) = (Some(stream), PAUSE_MIN);
        while !self.queue.is_closed() {
            let stream = match next.take() {
                Some(stream) => Ok(stream),
                None => dial(&self.peer).await,
            };
            let reason = match stream {
                Err(reason) => reason,
                Ok(stream) => {
                    self.state.is_open.set(true);
                    let mut traffic = Traffic::new();
                    let Err(Broken(reason)) = self.carry(&mut traffic, stream).await else { return };
                    if traffic.answers > 0 {
                        pause = PAUSE_MIN;
                    }
                    self.close(traffic, &reason);
                    reason
                }
            };
            *self.state.why_closed.borrow_mut() = reason;
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Until it breaks; ends well only if nobody is left to ask.
    async fn carry(&mut self, traffic: &mut Traffic, stream: TcpStream) -> Result<(), Broken> {
        let (mut reader, mut writer) = stream.into_split();
        let mut looks = interval(self.silence_max / 4);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            traffic.inbox.reserve(READ_BYTES);
            tokio::select! {
                biased;
                read = reader.read_buf(&mut traffic.inbox) => {
                    if read.map_err(|error| Broken(error.to_string()))? == 0 {
                        return Err(Broken(traffic.how_it_ended()));
                    }
                    self.answer(traffic)?;
                }
                written = writer.write_buf(&mut traffic.out), if !traffic.out.is_empty() => {
                    traffic.written += written.map_err(|error| Broken(error.to_string()))? as u64;
                }
                asked = self.queue.recv(), if traffic.has_room() => {
                    let Some(asked) = asked else { return Ok(()) };
                    self.take(traffic, asked);
                    // What else is there leaves in the same write.
                    while traffic.has_room() && let Ok(asked) = self.queue.try_recv() {
                        self.take(traffic, asked);
                    }
                }
                _ = looks.tick() => traffic.refuse_silence(self.silence_max)?,
            }
        }
    }

    /// A request leaves the queue: onto the wire, unless its time is over.
    fn take(&self, traffic: &mut Traffic, Asked { ask, reply }: Asked) {
        rise(&self.state.taken);
        if reply.is_closed() {
            rise(&self.state.ended);
            return;
        }
        if traffic.waiting.is_empty() {
            traffic.heard = Instant::now();
        }
        let start = traffic.written + traffic.out.len() as u64;
        self.protocol.encode(&ask, &mut traffic.out);
        traffic.waiting.push_back(Waiting { verb: ask.verb(), start, reply });
    }

    /// Something came: every answer that is whole goes to whoever waits for it.
    fn answer(&self, traffic: &mut Traffic) -> Result<(), Broken> {
        traffic.heard = Instant::now();
        while let Some(first) = traffic.waiting.front() {
            let answer = match self.protocol.decode(first.verb, &mut traffic.inbox) {
                Ok(None) => return Ok(()),
                Ok(Some(answer)) => answer,
                Err(garbled) => {
                    let reason = garbled.reason.clone();
                    self.end(traffic, Err(misunderstood(garbled)));
                    return Err(Broken(reason));
                }
            };
            self.end(traffic, answer);
            traffic.answers += 1;
        }
        match traffic.inbox.is_empty() {
            true => Ok(()),
            false => Err(Broken(format!("it said, unasked: '{}'", words(&traffic.inbox)))),
        }
    }

    /// Gives the first of those that wait its answer.
    fn end(&self, traffic: &mut Traffic, answer: Answer) {
        if let Some(Waiting { reply, .. }) = traffic.waiting.pop_front() {
            rise(&self.state.ended);
            // Whoever asked may have given up.
            let _late = reply.send(answer);
        }
    }

    /// Fails everything that was under way, or was to be.
    fn close(&mut self, traffic: Traffic, reason: &str) {
        self.state.is_open.set(false);
        let reason = format!("the connection broke: {reason}");
        for Waiting { verb, start, reply } in traffic.waiting {
            rise(&self.state.ended);
            let _late = reply.send(Err(lost(verb, start < traffic.written, reason.clone())));
        }
        while let Ok(Asked { ask, reply }) = self.queue.try_recv() {
            rise(&self.state.taken);
            rise(&self.state.ended);
            let _late = reply.send(Err(lost(ask.verb(), false, reason.clone())));
        }
    }
}

impl Traffic {
    fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            out: BytesMut::new(),
            inbox: BytesMut::new(),
            written: 0,
            answers: 0,
            heard: Instant::now(),
        }
    }

    /// Whether one more request may be taken from the queue.
    fn has_room(&self) -> bool {
        self.out.len() < OUT_BYTES_MAX && self.waiting.len() < WAITING_MAX
    }

    fn how_it_ended(&self) -> String {
        match (self.inbox.is_empty(), self.waiting.is_empty()) {
            (false, _) => format!("it was closed within an answer: '{}'", words(&self.inbox)),
            (true, false) => "it was closed before an answer".to_owned(),
            (true, true) => "it was closed".to_owned(),
        }
    }

    fn refuse_silence(&self, silence_max: Duration) -> Result<(), Broken> {
        let is_silent = !self.waiting.is_empty() && self.heard.elapsed() >= silence_max;
        if is_silent { Err(Broken(format!("nothing came for {silence_max:?}"))) } else { Ok(()) }
    }
}

async fn dial(peer: &Peer) -> Result<TcpStream, String> {
    let dialled = timeout(DIAL_WITHIN, TcpStream::connect((peer.host.as_str(), peer.port))).await;
    let stream = match dialled {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_elapsed) => return Err(format!("no connection after {DIAL_WITHIN:?}")),
    };
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    Ok(stream)
}

fn rise(count: &Cell<u64>) {
    count.set(count.get() + 1);
}

/// The connection broke. `sent` if a byte of the request may have left.
fn lost(verb: Verb, sent: bool, reason: String) -> Trouble {
    match verb.is_write() && sent {
        true => in_doubt(reason),
        false => Trouble { failure: Failure::Unreachable, applied: Applied::No, code: String::new(), reason },
    }
}

fn timed_out(verb: Verb, sent: bool) -> Trouble {
    let reason = "no answer within the deadline".to_owned();
    match verb.is_write() && sent {
        true => in_doubt(reason),
        false => Trouble { failure: Failure::Timeout, applied: Applied::No, code: String::new(), reason },
    }
}

fn in_doubt(reason: String) -> Trouble {
    Trouble { failure: Failure::MaybeApplied, applied: Applied::Maybe, code: String::new(), reason }
}

fn misunderstood(Garbled { code, reason }: Garbled) -> Trouble {
    Trouble { failure: Failure::Refused, applied: Applied::Maybe, code, reason }
}
