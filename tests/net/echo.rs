//! A machine for the tests, and a client of it that speaks bare frames.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use ringmain::id::{ConnectionId, ShardId};
use ringmain::shard::{
    ConnectionLimits, Dial, DialId, Input, Machine, Output, SIBLING_REQUESTS_MAX, SiblingMessage,
};
use ringmain::shell::{Placement, Server, ShardStart, ShellOptions, start};
use ringmain::time::{Duration, Instant, Now};
use ringmain_schema::frame::HEADER_BYTES;
use ringmain_schema::{Flags, Frame, Header, Kind};

/// Answered at once with the same bytes.
pub(crate) const ECHO: Kind = Kind::PING;
/// Answered after [`Config::delay`] with the same bytes.
pub(crate) const LATER: Kind = Kind::GET;
/// Answered with as many large values, by reference, as its first byte says, each behind one small byte.
pub(crate) const LARGE: Kind = Kind::MULTI_GET;
/// Answered by the sibling shard, with the same bytes.
pub(crate) const SIBLING: Kind = Kind::FORWARD;
/// A call to the address in its body; answered when that is decided, with one byte: 1 if reached.
pub(crate) const DIAL: Kind = Kind::GOSSIP;
/// Not answered: the connection is closed.
pub(crate) const CLOSE: Kind = Kind::DELETE;

#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) limits: ConnectionLimits,
    pub(crate) delay: Duration,
    pub(crate) large: Bytes,
    pub(crate) counts: Arc<Counts>,
}

/// What the machines of a node have seen.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) opened: AtomicU64,
    pub(crate) closed: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) garbled: AtomicU64,
    /// The most requests of one connection that were unanswered at a time.
    pub(crate) unanswered_max: AtomicU64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            limits: ConnectionLimits { frame_bytes_max: 1 << 20, requests_in_flight_max: 256 },
            delay: Duration::from_millis(30),
            large: Bytes::new(),
            counts: Arc::default(),
        }
    }
}

pub(crate) struct Echo {
    config: Config,
    shard: ShardId,
    now: Now,
    later: BTreeMap<(Instant, u64), (ConnectionId, Vec<u8>)>,
    /// Tickets at the sibling, and requests that have to wait for one.
    tickets: BTreeMap<u64, ConnectionId>,
    waiting: Vec<(ConnectionId, Vec<u8>)>,
    calls: BTreeMap<DialId, (ConnectionId, u64)>,
    unanswered: BTreeMap<ConnectionId, u64>,
    open: BTreeSet<ConnectionId>,
    next: u64,
}

/// A node of this machine on loopback, its shards wherever there is room.
pub(crate) fn serve(shards: usize, config: &Config) -> Server {
    serve_with(&options(shards), config)
}

pub(crate) fn options(shards: usize) -> ShellOptions {
    let mut options = ShellOptions::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), shards);
    options.placement = Placement::Unbound;
    options
}

pub(crate) fn serve_with(options: &ShellOptions, config: &Config) -> Server {
    let config = config.clone();
    start(options, move |seat| Echo::new(&config, &seat)).expect("a node starts")
}

impl Echo {
    pub(crate) fn new(config: &Config, seat: &ShardStart) -> Self {
        Self {
            config: config.clone(),
            shard: seat.shard,
            now: seat.now,
            later: BTreeMap::new(),
            tickets: BTreeMap::new(),
            waiting: Vec::new(),
            calls: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            open: BTreeSet::new(),
            next: 0,
        }
    }

    fn next(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn answer(&mut self, to: ConnectionId, request: &[u8], output: &mut Output) {
        *self.unanswered.entry(to).or_default() -= 1;
        output.deliver(to, true, |bytes| {
            let start = bytes.len();
            bytes.extend_from_slice(request);
            bytes[start + 8] = Kind::PONG.0;
        });
    }

    fn answer_large(&mut self, to: ConnectionId, frame: &Frame<'_>, output: &mut Output) {
        *self.unanswered.entry(to).or_default() -= 1;
        let count = usize::from(frame.values[0]);
        let large = self.config.large.clone();
        let header = header(Kind::PONG, frame.header.request_id, count * (large.len() + 1));
        output.deliver(to, true, |bytes| bytes.extend_from_slice(&header.to_bytes()));
        for number in 0..count {
            output.deliver(to, false, |bytes| bytes.push(number as u8));
            output.deliver_shared(to, large.clone());
        }
    }

    fn on_frame(&mut self, connection: ConnectionId, frame: &Frame<'_>, output: &mut Output) {
        let counts = &self.config.counts;
        counts.requests.fetch_add(1, Ordering::Relaxed);
        let unanswered = self.unanswered.entry(connection).or_default();
        *unanswered += 1;
        counts.unanswered_max.fetch_max(*unanswered, Ordering::Relaxed);
        let mut whole = Vec::new();
        frame.relay(frame.header.request_id, Flags::NONE, &mut whole);
        match frame.header.kind {
            ECHO => self.answer(connection, &whole, output),
            LATER => {
                let due = (self.now.monotonic + self.config.delay, self.next());
                self.later.insert(due, (connection, whole));
            }
            LARGE => self.answer_large(connection, frame, output),
            SIBLING => {
                self.waiting.push((connection, whole));
                self.ask_sibling(output);
            }
            DIAL => {
                let (host, port) = std::str::from_utf8(frame.values).unwrap().rsplit_once(' ').unwrap();
                let id = DialId(self.next());
                self.calls.insert(id, (connection, frame.header.request_id));
                output.dials.push(Dial { id, host: host.into(), port: port.parse().unwrap() });
            }
            CLOSE => output.closes.push(connection),
            other => panic!("no test sends {other:?}"),
        }
    }

    fn ask_sibling(&mut self, output: &mut Output) {
        while self.tickets.len() < SIBLING_REQUESTS_MAX {
            let Some((connection, frame)) = self.waiting.pop() else { return };
            let ticket = self.next();
            self.tickets.insert(ticket, connection);
            let message = SiblingMessage::Request {
                ticket,
                hops: 0,
                budget: ringmain::time::Duration::ZERO,
                frame: frame.into(),
            };
            output.siblings.push((ShardId(1 - self.shard.0), message));
        }
    }

    fn on_sibling(&mut self, from: ShardId, message: SiblingMessage, output: &mut Output) {
        match message {
            SiblingMessage::Request { ticket, frame, .. } => {
                output.siblings.push((from, SiblingMessage::Answer { ticket, frame }));
            }
            SiblingMessage::Answer { ticket, frame } => {
                let connection = self.tickets.remove(&ticket).expect("an answer to a request");
                self.answer(connection, &frame, output);
                self.ask_sibling(output);
            }
            other => panic!("no test sends {other:?}"),
        }
    }

    fn on_call_decided(&mut self, dial: DialId, reached: bool, output: &mut Output) {
        let (connection, id) = self.calls.remove(&dial).expect("a call is decided once");
        let bytes = frame(ECHO, id, &[u8::from(reached)]);
        self.answer(connection, &bytes, output);
    }
}

impl Machine for Echo {
    fn handle(&mut self, now: Now, input: Input<'_>, output: &mut Output) {
        self.now = now;
        let counts = self.config.counts.clone();
        match input {
            Input::Opened { connection, dial } => {
                assert!(self.open.insert(connection), "a name is never reused");
                counts.opened.fetch_add(1, Ordering::Relaxed);
                output.limits.push((connection, self.config.limits));
                if let Some(dial) = dial {
                    self.on_call_decided(dial, true, output);
                    output.closes.push(connection);
                }
            }
            Input::DialFailed { dial } => self.on_call_decided(dial, false, output),
            Input::Frame { connection, frame } => {
                assert!(self.open.contains(&connection), "frames come from open connections");
                self.on_frame(connection, &frame, output);
            }
            Input::Log(_) | Input::Compact(_) => {}
            Input::Garbled { connection, error } => {
                counts.garbled.fetch_add(1, Ordering::Relaxed);
                let text = frame(Kind::ERROR, 0, error.to_string().as_bytes());
                output.deliver(connection, false, |bytes| bytes.extend_from_slice(&text));
                output.closes.push(connection);
            }
            Input::Closed { connection } => {
                assert!(self.open.remove(&connection), "what was opened is closed, once");
                counts.closed.fetch_add(1, Ordering::Relaxed);
                self.unanswered.remove(&connection);
                self.later.retain(|_, (to, _)| *to != connection);
            }
            Input::Sibling { from, message } => self.on_sibling(from, message, output),
            Input::Tick => {
                while self.later.first_key_value().is_some_and(|(key, _)| key.0 <= now.monotonic) {
                    let (_, (connection, frame)) = self.later.pop_first().unwrap();
                    self.answer(connection, &frame, output);
                }
            }
            Input::Appended { .. } | Input::Waited { .. } | Input::Buffered { .. } | Input::Stop => {}
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.later.keys().next().map(|key| key.0)
    }

    fn is_drained(&self) -> bool {
        self.later.is_empty() && self.tickets.is_empty() && self.waiting.is_empty()
    }
}

fn header(kind: Kind, request_id: u64, body: usize) -> Header {
    Header { length: body as u32, meta_length: 0, kind, flags: Flags::NONE, checksum: 0, request_id }
}

/// A frame without metadata.
pub(crate) fn frame(kind: Kind, request_id: u64, body: &[u8]) -> Vec<u8> {
    [&header(kind, request_id, body.len()).to_bytes()[..], body].concat()
}

/// A connection to the ordinary port, which fails a test that waits too long.
pub(crate) fn connect(server: &Server) -> TcpStream {
    connect_to(server.ports().ordinary)
}

pub(crate) fn connect_to(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the node takes calls");
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    stream
}

/// The next frame; `None` at the end of the stream.
pub(crate) fn read_frame(stream: &mut TcpStream) -> Option<(Header, Vec<u8>)> {
    let mut header = [0; HEADER_BYTES];
    match stream.read(&mut header[..1]).expect("an answer or an orderly end") {
        0 => return None,
        _ => stream.read_exact(&mut header[1..]).expect("a whole header"),
    }
    let header = Header::read(&header).unwrap().unwrap();
    let mut body = vec![0; header.length as usize];
    stream.read_exact(&mut body).expect("a whole frame");
    Some((header, body))
}

/// Send a frame and wait for its answer.
pub(crate) fn ask(stream: &mut TcpStream, kind: Kind, body: &[u8]) -> Vec<u8> {
    stream.write_all(&frame(kind, 77, body)).unwrap();
    let (header, body) = read_frame(stream).expect("an answer");
    assert_eq!(header.request_id, 77);
    body
}

/// Wait for something that is to happen soon.
pub(crate) fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let give_up = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !happened() {
        assert!(std::time::Instant::now() < give_up, "{what}");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}
