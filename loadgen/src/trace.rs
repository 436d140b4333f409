//! Traces of real requests, replayed: CSV with the columns `version,time,op,size,lbn`.
//!
//! The format is that of the CloudPhysics block traces (Waldspurger et al., FAST 2015) as libCacheSim ships
//! them: `time` in whole seconds, `op` a SCSI operation code in hexadecimal, `size` in bytes, and `lbn`, the
//! object. Objects become keys numbered by first appearance; sizes of one object may change. Since times
//! are whole seconds, the requests of a second are spread evenly over it.

use std::collections::HashMap;
use std::io::{self, BufRead};
use std::num::ParseIntError;

use crate::operation::{Key, Kind, Operation};
use crate::sizes::Sizes;
use crate::workload::Preload;

/// A trace in memory: 24 bytes a request.
#[derive(Debug)]
pub struct Trace {
    requests: Vec<Request>,
    objects: u64,
    length_min: u32,
    length_max: u32,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    /// From the trace's first second.
    due_ns: u64,
    key: Key,
    size: u32,
    kind: Kind,
}

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
    /// Not this format.
    #[error("line 1: '{0}' is not the header version,time,op,size,lbn: is this a trace?")]
    Header(String),
    /// Too few or too many columns.
    #[error("line {line}: {found} columns, where version,time,op,size,lbn are five")]
    Columns {
        /// Where.
        line: u64,
        /// How many there are.
        found: usize,
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
        /// Its time.
        found: u64,
        /// The time of the line before.
        before: u64,
    },
    /// Nothing but a header, or not even that.
    #[error("the trace has no requests")]
    Empty,
}

const HEADER: &str = "version,time,op,size,lbn";
const COLUMNS: [&str; 5] = ["version", "time", "op", "size", "lbn"];
const SECOND_NS: u64 = 1_000_000_000;

impl Trace {
    /// Reads a whole trace.
    pub fn read(source: impl BufRead) -> Result<Self, TraceError> {
        let mut reader = Reader::default();
        for (line, text) in (1u64..).zip(source.lines()) {
            let text = text.map_err(|source| TraceError::Read { line, source })?;
            match line {
                1 if text.trim_end() == HEADER => {}
                1 => return Err(TraceError::Header(text)),
                _ => reader.take(Row::parse(line, text.trim_end())?)?,
            }
        }
        reader.finish()
    }

    /// The requests as operations, `speed` times as fast as they came, numbered from `number_first`.
    pub fn into_operations(self, speed: f64, number_first: u64) -> impl Iterator<Item = Operation> + Send {
        assert!(speed.is_finite() && speed > 0.0, "a speed of {speed} leads nowhere");
        (number_first..).zip(self.requests).map(move |(number, request)| Operation {
            number,
            kind: request.kind,
            key: request.key,
            value_len: if request.kind == Kind::Write { request.size } else { 0 },
            lifetime: None,
            due_ns: (request.due_ns as f64 / speed) as u64,
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

/// One line, understood.
#[derive(Clone, Copy, Debug)]
struct Row {
    line: u64,
    second: u64,
    kind: Kind,
    size: u32,
    object: u64,
}

impl Row {
    fn parse(line: u64, text: &str) -> Result<Self, TraceError> {
        let mut columns = [""; COLUMNS.len()];
        let found = text.split(',').count();
        if found != columns.len() {
            return Err(TraceError::Columns { line, found });
        }
        columns.iter_mut().zip(text.split(',')).for_each(|(column, text)| *column = text.trim());
        let number = |place: usize, radix: u32| {
            u64::from_str_radix(columns[place], radix).map_err(|source| TraceError::Number {
                line,
                column: COLUMNS[place],
                text: columns[place].to_owned(),
                source,
            })
        };
        let found = number(0, 10)?;
        if found != 1 {
            return Err(TraceError::Version { line, found });
        }
        let code = number(2, 16)?;
        let kind = kind_of(code).ok_or(TraceError::Operation { line, code })?;
        let size = number(3, 10)?;
        if size > u64::from(Sizes::MAX) {
            return Err(TraceError::Size { line, size });
        }
        Ok(Self { line, second: number(1, 10)?, kind, size: size as u32, object: number(4, 10)? })
    }
}

/// SCSI block commands: READ and WRITE of 6, 10, 12 and 16 bytes, and UNMAP.
fn kind_of(code: u64) -> Option<Kind> {
    match code {
        0x08 | 0x28 | 0xa8 | 0x88 => Some(Kind::Read),
        0x0a | 0x2a | 0xaa | 0x8a => Some(Kind::Write),
        0x42 => Some(Kind::Delete),
        _ => None,
    }
}

#[derive(Debug, Default)]
struct Reader {
    requests: Vec<Request>,
    keys: HashMap<u64, Key>,
    /// The first second of the trace, the current one, and where its requests begin.
    second_first: u64,
    second: u64,
    second_begin: usize,
}

impl Reader {
    fn take(&mut self, row: Row) -> Result<(), TraceError> {
        if self.requests.is_empty() {
            (self.second_first, self.second) = (row.second, row.second);
        }
        if row.second < self.second {
            return Err(TraceError::Order { line: row.line, found: row.second, before: self.second });
        }
        if row.second > self.second {
            self.spread();
            (self.second, self.second_begin) = (row.second, self.requests.len());
        }
        let next = Key(self.keys.len() as u64);
        let key = *self.keys.entry(row.object).or_insert(next);
        self.requests.push(Request { due_ns: 0, key, size: row.size, kind: row.kind });
        Ok(())
    }

    /// Spreads the current second's requests over it.
    fn spread(&mut self) {
        let start_ns = (self.second - self.second_first).saturating_mul(SECOND_NS);
        let requests = &mut self.requests[self.second_begin..];
        let count = requests.len() as u64;
        for (place, request) in (0..count).zip(requests) {
            request.due_ns = start_ns.saturating_add(place * SECOND_NS / count);
        }
    }

    fn finish(mut self) -> Result<Trace, TraceError> {
        self.spread();
        let sizes = || self.requests.iter().map(|request| request.size);
        let (Some(length_min), Some(length_max)) = (sizes().min(), sizes().max()) else {
            return Err(TraceError::Empty);
        };
        Ok(Trace { objects: self.keys.len() as u64, length_min, length_max, requests: self.requests })
    }
}

#[cfg(test)]
mod tests;
