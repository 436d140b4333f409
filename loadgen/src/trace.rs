//! Traces of real requests, replayed. Two forms of CSV are understood, told apart by their first line.
//!
//! **Requests** ([`requests`]): a header names the columns, in any order. `time`, `op` and `key` must be there; `size` and
//! `ttl` may.
//!
//! ```text
//! time,op,key,size,ttl
//! 0.000,write,user:7,120,3600
//! 0.250,read,user:7,,
//! ```
//!
//! `time` is in seconds, with up to nine decimals, from any start; `op` is `read`, `write` or `delete`, or one of memcached's
//! words; `key` is any text without a comma; `size` is the value's length in bytes, which a write must have; `ttl` is in
//! whole seconds, empty or 0 for ever.
//!
//! **Blocks** ([`blocks`]): `version,time,op,size,lbn`, as libCacheSim ships the CloudPhysics block traces (Waldspurger et al.,
//! FAST 2015).
//!
//! Keys are numbered by first appearance, and called by their numbers in the store; sizes of one key may change. If no time of
//! a trace has decimals, the requests of a second are spread evenly over it. Keys are told apart by a hash of 128 bits.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, BufRead, Read};
use std::num::{NonZeroU32, ParseIntError};
use std::str::FromStr;
use std::time::Duration;

use crate::duration::LONGEST;
use crate::operation::{Key, Kind, Operation};
use crate::sizes::Sizes;
use crate::workload::Preload;

mod blocks;
mod requests;

/// A trace in memory: 32 bytes a request, and while it is read some 32 for each key.
#[derive(Debug)]
pub struct Trace {
    requests: Vec<Request>,
    objects: u64,
    length_min: u32,
    length_max: u32,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    /// From the trace's first request.
    due_ns: u64,
    key: Key,
    size: u32,
    lifetime_s: Option<NonZeroU32>,
    kind: Kind,
}

/// How fast a trace is replayed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Speed {
    /// So many times as fast as it was recorded; 1 is its own speed.
    Times(f64),
    /// As fast as answers come.
    Max,
}

/// A speed that was not understood.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "write a number from 0.001 to 1000000 such as 1x (as recorded) or 10x, or max (as fast as answers come)"
)]
pub struct SpeedError;

/// Why a trace can't be replayed. Lines count from 1, the header's.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file can't be read.
    #[error("line {line}: {source}")]
    Read {
        /// Where.
        line: u64,
        /// Why.
        source: io::Error,
    },
    /// No text at all.
    #[error(
        "the trace is compressed by {program}: decompress it first, as in `{program} -dc FILE > trace.csv`"
    )]
    Compressed {
        /// What compressed it.
        program: &'static str,
    },
    /// A line that no request has.
    #[error("line {line}: it is longer than {LINE_LEN_MAX} bytes")]
    Line {
        /// Where.
        line: u64,
    },
    /// Longer than a run may be, at this speed.
    #[error(
        "at {speed} the trace takes {hours:.0} hours, and a run 1000 at most: choose a higher --trace-speed"
    )]
    Long {
        /// How fast.
        speed: Speed,
        /// How long it would take.
        hours: f64,
    },
    /// Not this format.
    #[error("line 1: '{0}' is no header of a trace: write time,op,key,size,ttl or version,time,op,size,lbn")]
    Header(String),
    /// Too few or too many columns.
    #[error("line {line}: {found} columns, where the header has {expected}")]
    Columns {
        /// Where.
        line: u64,
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// A moment that can't be read.
    #[error("line {line}: time '{text}' is no number of seconds with up to nine decimals")]
    Time {
        /// Where.
        line: u64,
        /// What stands there.
        text: String,
    },
    /// An operation that is none.
    #[error(
        "line {line}: op '{text}' is no operation: write read, write or delete, or a word of memcached's"
    )]
    Word {
        /// Where.
        line: u64,
        /// What stands there.
        text: String,
    },
    /// A request without a key.
    #[error("line {line}: the key is empty")]
    Key {
        /// Where.
        line: u64,
    },
    /// A column that is no number.
    #[error("line {line}: {column} '{text}' is no number: {source}")]
    Number {
        /// Where.
        line: u64,
        /// The column's name.
        column: &'static str,
        /// What stands there.
        text: String,
        /// Why it is none.
        source: ParseIntError,
    },
    /// Another version than 1.
    #[error("line {line}: version {found}, where only version 1 is known")]
    Version {
        /// Where.
        line: u64,
        /// The version found.
        found: u64,
    },
    /// An operation code that is neither a read, nor a write, nor an unmap.
    #[error(
        "line {line}: operation code {code:x} is no read (08, 28, a8, 88), write (0a, 2a, aa, 8a) or unmap (42)"
    )]
    Operation {
        /// Where.
        line: u64,
        /// The code found.
        code: u64,
    },
    /// A value no server takes.
    #[error("line {line}: {size} bytes are beyond the longest value, 8388608 bytes")]
    Size {
        /// Where.
        line: u64,
        /// The size found.
        size: u64,
    },
    /// Time runs backwards.
    #[error("line {line}: second {found} comes after second {before}: sort the trace by time")]
    Order {
        /// Where.
        line: u64,
        /// Its time in seconds.
        found: f64,
        /// The time of the line before.
        before: f64,
    },
    /// Nothing but a header, or not even that.
    #[error("the trace has no requests")]
    Empty,
}

const SECOND_NS: u64 = 1_000_000_000;
/// Servers count lifetimes in these.
const LIFETIME_MIN: Duration = Duration::from_millis(1);
/// What lives shorter may be gone at once: servers' clocks may be a second ahead, and the ledger counts lifetimes in tenths
/// ([`crate::ledger`]).
const FORGIVEN_BELOW: Duration = Duration::from_millis(1100);
/// More than a key of the longest that servers take, and all else.
const LINE_LEN_MAX: usize = 128 << 10;
const _: () = assert!(size_of::<Request>() <= 32, "the page says how much memory a request takes");

impl Trace {
    /// Reads a whole trace.
    pub fn read(source: impl BufRead) -> Result<Self, TraceError> {
        let mut lines = Lines { source, line: 0 };
        let header = lines.next().ok_or(TraceError::Empty)??;
        let format = Format::of(header.trim_start_matches('\u{feff}').trim_end())?;
        let mut reader = Reader::default();
        while let Some(text) = lines.next() {
            let text = text?;
            reader.take(lines.line, format.parse(lines.line, text.trim_end())?)?;
        }
        reader.finish()
    }

    /// Whether a replay at this speed would take longer than any run may.
    pub fn refuse_too_long(&self, speed: Speed) -> Result<(), TraceError> {
        match speed.seconds(self.span_ns()) {
            Some(seconds) if seconds > LONGEST.as_secs_f64() => {
                Err(TraceError::Long { speed, hours: seconds / 3600.0 })
            }
            _ => Ok(()),
        }
    }

    /// How many values live so short at this speed that nobody can tell their loss from their end, and how many are written.
    pub fn forgiven(&self, speed: Speed) -> (u64, u64) {
        let writes = || self.requests.iter().filter(|request| request.kind == Kind::Write);
        let is_forgiven = |request: &&Request| {
            request.lifetime().is_some_and(|lifetime| speed.scaled(lifetime) < FORGIVEN_BELOW)
        };
        (writes().filter(is_forgiven).count() as u64, writes().count() as u64)
    }

    /// The requests as operations, numbered from `number_first`. Lifetimes are scaled as the trace's time is: what expired
    /// between two requests still does. At [`Speed::Max`] all are due at once, and lifetimes are as recorded.
    pub fn into_operations(self, speed: Speed, number_first: u64) -> impl Iterator<Item = Operation> + Send {
        let due_ns = move |recorded_ns: u64| match speed {
            Speed::Times(times) => (recorded_ns as f64 / times) as u64,
            Speed::Max => 0,
        };
        (number_first..).zip(self.requests).map(move |(number, request)| {
            let is_write = request.kind == Kind::Write;
            Operation {
                number,
                kind: request.kind,
                key: request.key,
                value_len: if is_write { request.size } else { 0 },
                lifetime: request.lifetime().filter(|_| is_write).map(|lifetime| speed.scaled(lifetime)),
                due_ns: due_ns(request.due_ns),
            }
        })
    }

    /// The objects that are read before they are written, each with the size of that first read: what must
    /// be there before the replay, so that its reads find something.
    pub fn preload(&self) -> Vec<Preload> {
        let mut next = 0;
        let mut preload = Vec::new();
        for request in &self.requests {
            // Keys are numbered by first appearance, so a first access has the next number.
            if request.key.0 == next {
                next += 1;
                if request.kind == Kind::Read {
                    preload.push(Preload { key: request.key, value_len: request.size, lifetime: None });
                }
            }
        }
        preload
    }

    /// How many requests there are, at least 1.
    pub fn requests(&self) -> u64 {
        self.requests.len() as u64
    }

    /// How many different objects there are: keys are numbered below this.
    pub fn objects(&self) -> u64 {
        self.objects
    }

    /// The smallest size in the trace, in bytes.
    pub fn length_min(&self) -> u32 {
        self.length_min
    }

    /// The largest size in the trace, in bytes: the servers' value limit must not be below.
    pub fn length_max(&self) -> u32 {
        self.length_max
    }

    /// When the last request is due at speed 1, in nanoseconds from the start.
    pub fn span_ns(&self) -> u64 {
        self.requests.last().map_or(0, |last| last.due_ns)
    }
}

impl Request {
    fn lifetime(&self) -> Option<Duration> {
        self.lifetime_s.map(|lifetime_s| Duration::from_secs(u64::from(lifetime_s.get())))
    }
}

impl Speed {
    /// How long a recorded lifetime is in the replay: a millisecond at least, as none would be for ever.
    fn scaled(self, lifetime: Duration) -> Duration {
        match self {
            Self::Times(times) => lifetime.div_f64(times).max(LIFETIME_MIN),
            Self::Max => lifetime,
        }
    }

    /// Seconds that a span of the trace takes in the replay; `None` if nobody knows.
    pub fn seconds(self, span_ns: u64) -> Option<f64> {
        match self {
            Self::Times(times) => Some(span_ns as f64 / SECOND_NS as f64 / times),
            Self::Max => None,
        }
    }
}

impl FromStr for Speed {
    type Err = SpeedError;

    fn from_str(text: &str) -> Result<Self, SpeedError> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.strip_suffix('x').unwrap_or(text).parse::<f64>() {
            Ok(times) if (1e-3..=1e6).contains(&times) => Ok(Self::Times(times)),
            _ => Err(SpeedError),
        }
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Times(times) => write!(formatter, "{times}x"),
            Self::Max => formatter.write_str("max"),
        }
    }
}

/// Lines of text, none longer than [`LINE_LEN_MAX`]: a file of another kind may be one line as long as itself.
struct Lines<R> {
    source: R,
    /// Of the last that was read, from 1.
    line: u64,
}

impl<R: BufRead> Lines<R> {
    fn next(&mut self) -> Option<Result<String, TraceError>> {
        self.line += 1;
        let line = self.line;
        let mut bytes = Vec::new();
        let mut limited = (&mut self.source).take(LINE_LEN_MAX as u64 + 1);
        if let Err(source) = limited.read_until(b'\n', &mut bytes) {
            return Some(Err(TraceError::Read { line, source }));
        }
        if bytes.is_empty() {
            return None;
        }
        let program = COMPRESSED.iter().find(|(magic, _)| line == 1 && bytes.starts_with(magic));
        if let Some(&(_, program)) = program {
            return Some(Err(TraceError::Compressed { program }));
        }
        if bytes.len() > LINE_LEN_MAX {
            return Some(Err(TraceError::Line { line }));
        }
        let text = String::from_utf8(bytes);
        let source = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        Some(text.map_err(|error| TraceError::Read { line, source: source(error) }))
    }
}

/// By their first bytes: traces are handed on compressed.
const COMPRESSED: [(&[u8], &str); 3] =
    [(&[0x28, 0xb5, 0x2f, 0xfd], "zstd"), (&[0x1f, 0x8b], "gzip"), (&[0xfd, b'7', b'z', b'X', b'Z'], "xz")];

/// A trace's form.
#[derive(Clone, Copy, Debug)]
enum Format {
    Blocks,
    Requests(requests::Columns),
}

/// One line, understood.
#[derive(Clone, Copy, Debug)]
struct Row {
    /// As it stands there.
    time_ns: u64,
    /// It has decimals.
    is_precise: bool,
    kind: Kind,
    size: u32,
    lifetime_s: Option<NonZeroU32>,
    object: u128,
}

impl Format {
    fn of(header: &str) -> Result<Self, TraceError> {
        if header == blocks::HEADER {
            return Ok(Self::Blocks);
        }
        let columns = requests::Columns::of(header).ok_or_else(|| TraceError::Header(header.to_owned()))?;
        Ok(Self::Requests(columns))
    }

    fn parse(&self, line: u64, text: &str) -> Result<Row, TraceError> {
        match self {
            Self::Blocks => blocks::parse(line, text),
            Self::Requests(columns) => columns.parse(line, text),
        }
    }
}

/// A whole number in one of the columns.
fn number(line: u64, column: &'static str, text: &str, radix: u32) -> Result<u64, TraceError> {
    u64::from_str_radix(text, radix).map_err(|source| TraceError::Number {
        line,
        column,
        text: text.to_owned(),
        source,
    })
}

fn size(line: u64, text: &str) -> Result<u32, TraceError> {
    let size = number(line, "size", text, 10)?;
    u32::try_from(size).ok().filter(|&size| size <= Sizes::MAX).ok_or(TraceError::Size { line, size })
}

#[derive(Debug, Default)]
struct Reader {
    requests: Vec<Request>,
    keys: HashMap<u128, Key>,
    time_first_ns: u64,
    is_precise: bool,
}

impl Reader {
    fn take(&mut self, line: u64, row: Row) -> Result<(), TraceError> {
        let before_ns = self.requests.last().map(|last| last.due_ns + self.time_first_ns);
        self.time_first_ns = before_ns.map_or(row.time_ns, |_| self.time_first_ns);
        if before_ns.is_some_and(|before_ns| row.time_ns < before_ns) {
            let seconds = |time_ns: u64| time_ns as f64 / SECOND_NS as f64;
            let (found, before) = (seconds(row.time_ns), seconds(before_ns.unwrap_or(0)));
            return Err(TraceError::Order { line, found, before });
        }
        self.is_precise |= row.is_precise;
        let next = Key(self.keys.len() as u64);
        let key = *self.keys.entry(row.object).or_insert(next);
        let due_ns = row.time_ns - self.time_first_ns;
        let Row { kind, size, lifetime_s, .. } = row;
        self.requests.push(Request { due_ns, key, size, lifetime_s, kind });
        Ok(())
    }

    /// Spreads the requests of each second over it.
    fn spread(&mut self) {
        for requests in self.requests.chunk_by_mut(|left, right| left.due_ns == right.due_ns) {
            let count = requests.len() as u64;
            // What would overflow is longer than any run, and refused before it begins.
            (0..count).zip(requests).for_each(|(place, request)| {
                let share = u128::from(place) * u128::from(SECOND_NS) / u128::from(count);
                request.due_ns = request.due_ns.saturating_add(share as u64);
            });
        }
    }

    fn finish(mut self) -> Result<Trace, TraceError> {
        if !self.is_precise {
            self.spread();
        }
        // A read's size matters only if it may be written before the run.
        let sizes = || self.requests.iter().map(|request| request.size);
        let (Some(length_min), Some(length_max)) = (sizes().min(), sizes().max()) else {
            return Err(TraceError::Empty);
        };
        Ok(Trace { objects: self.keys.len() as u64, length_min, length_max, requests: self.requests })
    }
}

#[cfg(test)]
mod tests;
