//! Redis and memcached as targets: some connections, each pipelined, whose answers are matched in order.
//!
//! ```text
//! a task for each operation --ask--> the lane with the least under way --its task--> one connection
//! ```
//!
//! It promises what the seam asks for: every request ends by its deadline, and what is said of a failed write holds. A write
//! that never left is not applied; one that did, and has no answer, is in doubt for good, because these servers know no
//! deadlines: what stands in a socket's buffer may be carried out whenever they come to it.
//!
//! Nothing is tried twice. While no connection is open, requests fail at once.

use std::cell::Cell;
use std::rc::Rc;
use std::str::FromStr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, timeout};

use crate::outcome::Failure;

use super::peer::{Make, Peer};
use super::{Applied, Target, Trouble};

mod lane;
mod memcached;
mod redis;
#[cfg(test)]
mod tests;

use lane::Lane;
pub use memcached::KEY_BYTES_MAX as MEMCACHED_KEY_BYTES_MAX;
pub use redis::Wait;

/// How a server is loaded.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which it is.
    pub peer: Peer,
    /// How many connections share the load; at least 1.
    pub connections: u8,
    /// Each request's deadline.
    pub timeout: Duration,
    /// So many replicas must have a write for it to count as stored; Redis only.
    pub replicas: Option<u8>,
}

/// A server, and the connections to it. They are served on the thread that opened them, in its `LocalSet`.
#[derive(Clone, Debug)]
pub struct WireTarget {
    shared: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    lanes: Vec<Lane>,
    /// The lane to look at first.
    turn: Cell<usize>,
    timeout: Duration,
}

/// There is no server to load.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{peer}: {reason}")]
pub struct ConnectError {
    peer: String,
    reason: String,
}

/// What is asked of a server.
#[derive(Debug)]
enum Ask {
    /// Its version, which shows that it speaks the protocol.
    Hello,
    Get(Bytes),
    Put(Bytes, Bytes, Option<Duration>),
    Delete(Bytes),
}

/// What an answer is the answer to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verb {
    Hello,
    Get,
    Put,
    Delete,
}

/// A value, nothing (not found, or done), or why not.
type Answer = Result<Option<Bytes>, Trouble>;

/// How a server is spoken to.
#[derive(Clone, Copy, Debug)]
enum Protocol {
    Redis(Option<Wait>),
    Memcached,
}

/// What came is no answer to what was asked, so nobody knows any longer which answer belongs to what.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Garbled {
    /// As in [`Trouble`].
    code: String,
    reason: String,
}

/// To connect, and to say hello.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// A server's words are cut to so many characters.
const WORDS_MAX: usize = 200;
/// Of a line that isn't a value. Both servers' longest errors are far shorter.
const LINE_BYTES_MAX: usize = 8192;

impl WireTarget {
    /// Opens the connections, and returns the server's version with them.
    pub async fn connect(settings: &Settings) -> Result<(Self, String), ConnectError> {
        let error = |reason| ConnectError { peer: settings.peer.to_string(), reason };
        let opened = timeout(CONNECT_WITHIN, Self::open(settings)).await;
        let target = opened
            .unwrap_or_else(|_| Err(format!("no connection after {CONNECT_WITHIN:?}")))
            .map_err(error)?;
        let version = target.greet(CONNECT_WITHIN).await.map_err(|trouble| error(trouble.reason))?;
        Ok((target, version))
    }

    async fn open(settings: &Settings) -> Result<Self, String> {
        let protocol = settings.protocol();
        let mut lanes = Vec::new();
        for _ in 0..settings.connections {
            lanes.push(Lane::open(&settings.peer, protocol, settings.timeout).await?);
        }
        let shared = Shared { lanes, turn: Cell::new(0), timeout: settings.timeout };
        Ok(Self { shared: Rc::new(shared) })
    }

    /// Asks for the server's version.
    pub async fn greet(&self, within: Duration) -> Result<String, Trouble> {
        let version = self.ask_within(Ask::Hello, within).await?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&version).into_owned())
    }

    async fn ask(&self, ask: Ask) -> Answer {
        self.ask_within(ask, self.shared.timeout).await
    }

    async fn ask_within(&self, ask: Ask, within: Duration) -> Answer {
        let deadline = Instant::now() + within;
        match self.lane() {
            Some(lane) => lane.ask(ask, deadline).await,
            None => Err(Trouble {
                failure: Failure::Unreachable,
                applied: Applied::No,
                code: String::new(),
                reason: self.shared.lanes[0].why_closed(),
            }),
        }
    }

    /// The one with the least under way; of equals, each in turn.
    fn lane(&self) -> Option<&Lane> {
        let Shared { lanes, turn, .. } = &*self.shared;
        let first = turn.get();
        turn.set((first + 1) % lanes.len());
        let in_turn = lanes[first..].iter().chain(&lanes[..first]);
        in_turn.filter(|lane| lane.is_open()).min_by_key(|lane| lane.under_way())
    }
}

impl Target for WireTarget {
    async fn get(&self, key: Bytes) -> Answer {
        self.ask(Ask::Get(key)).await
    }

    async fn put(&self, key: Bytes, value: Bytes, lifetime: Option<Duration>) -> Result<(), Trouble> {
        self.ask(Ask::Put(key, value, lifetime)).await.map(drop)
    }

    async fn delete(&self, key: Bytes) -> Result<(), Trouble> {
        self.ask(Ask::Delete(key)).await.map(drop)
    }
}

impl Settings {
    /// A write's replicas are waited for half as long as its answer, so that an answer that tells of too few comes in time.
    fn protocol(&self) -> Protocol {
        let wait = |replicas| Wait { replicas, at_most: self.timeout / 2 };
        match self.peer.make {
            Make::Redis => Protocol::Redis(self.replicas.map(wait)),
            Make::Memcached => Protocol::Memcached,
        }
    }
}

impl Protocol {
    /// Appends a request.
    fn encode(self, ask: &Ask, out: &mut BytesMut) {
        match self {
            Self::Redis(wait) => redis::encode(ask, wait, out),
            Self::Memcached => memcached::encode(ask, out),
        }
    }

    /// Takes the answer to such a request off the front; `None`, and nothing is taken, until all of it is there.
    fn decode(self, verb: Verb, bytes: &mut BytesMut) -> Result<Option<Answer>, Garbled> {
        match self {
            Self::Redis(wait) => redis::decode(verb, wait, bytes),
            Self::Memcached => memcached::decode(verb, bytes),
        }
    }
}

impl Ask {
    fn verb(&self) -> Verb {
        match self {
            Self::Hello => Verb::Hello,
            Self::Get(_) => Verb::Get,
            Self::Put(..) => Verb::Put,
            Self::Delete(_) => Verb::Delete,
        }
    }
}

impl Verb {
    fn is_write(self) -> bool {
        matches!(self, Self::Put | Self::Delete)
    }
}

impl Garbled {
    /// With the server's words.
    fn of(said: &[u8]) -> Self {
        let words = words(said);
        Self { code: code(&words), reason: format!("no answer to what was asked: '{words}'") }
    }

    fn because(reason: String) -> Self {
        Self { code: String::new(), reason }
    }
}

/// A request that the server refused in these words.
fn refused(said: &[u8], applied: Applied) -> Trouble {
    let reason = words(said);
    Trouble { failure: Failure::Refused, applied, code: code(&reason), reason }
}

/// The first line, as far as it is worth telling.
fn words(said: &[u8]) -> String {
    let said = &said[..said.len().min(4 * WORDS_MAX)];
    let line = said.split(|&byte| byte == b'\r' || byte == b'\n').next().unwrap_or_default();
    let printable = |it: char| if it.is_control() { '.' } else { it };
    String::from_utf8_lossy(line).chars().take(WORDS_MAX).map(printable).collect()
}

/// The word in capitals with which both servers' errors begin.
fn code(words: &str) -> String {
    let first = words.split(' ').next().unwrap_or_default().trim_start_matches('-');
    let is_code = |it: char| it.is_ascii_uppercase() || it == '_';
    if first.len() <= 24 && first.chars().all(is_code) { first.to_owned() } else { String::new() }
}

/// Where the line that begins at `at` ends; `None` if it doesn't yet.
fn line_end(bytes: &[u8], at: usize) -> Result<Option<usize>, Garbled> {
    let rest = bytes.get(at..).unwrap_or_default();
    let looked_at = &rest[..rest.len().min(LINE_BYTES_MAX)];
    match looked_at.windows(2).position(|pair| pair == b"\r\n") {
        Some(place) => Ok(Some(at + place)),
        None if rest.len() < LINE_BYTES_MAX => Ok(None),
        None => Err(Garbled::because(format!("a line of more than {LINE_BYTES_MAX} bytes"))),
    }
}

/// Digits and nothing else.
fn decimal<N: FromStr>(digits: &[u8]) -> Option<N> {
    let are_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(digits).ok().filter(|_| are_digits)?;
    text.parse().ok()
}
