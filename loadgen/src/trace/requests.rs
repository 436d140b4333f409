//! Traces of requests to a store: columns `time,op,key` and perhaps `size` and `ttl`, in the order of their header.

use std::num::NonZeroU32;

use xxhash_rust::xxh3::xxh3_128;

use crate::operation::Kind;

use super::{Row, SECOND_NS, TraceError, number, size};

/// Where each column stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Columns {
    count: usize,
    time: usize,
    operation: usize,
    key: usize,
    size: Option<usize>,
    ttl: Option<usize>,
}

const COUNT_MAX: usize = 16;
const DECIMALS: usize = 9;

impl Columns {
    /// `None` if it is no such header: a column is missing, or there twice. Columns with other names are ignored.
    pub(super) fn of(header: &str) -> Option<Self> {
        let names: Vec<&str> = header.split(',').map(str::trim).collect();
        let place = |name: &str| names.iter().position(|&known| known == name);
        let is_clear = ["time", "op", "key", "size", "ttl"]
            .iter()
            .all(|name| names.iter().filter(|&known| known == name).count() <= 1);
        if !is_clear || names.len() > COUNT_MAX {
            return None;
        }
        Some(Self {
            count: names.len(),
            time: place("time")?,
            operation: place("op")?,
            key: place("key")?,
            size: place("size"),
            ttl: place("ttl"),
        })
    }

    pub(super) fn parse(&self, line: u64, text: &str) -> Result<Row, TraceError> {
        let found = text.split(',').count();
        if found != self.count {
            return Err(TraceError::Columns { line, found, expected: self.count });
        }
        let mut cells = [""; COUNT_MAX];
        cells.iter_mut().zip(text.split(',')).for_each(|(cell, text)| *cell = text.trim());
        let optional = |place: Option<usize>| place.map_or("", |place| cells[place]);
        let kind = kind_of(cells[self.operation])
            .ok_or_else(|| TraceError::Word { line, text: cells[self.operation].to_owned() })?;
        if cells[self.key].is_empty() {
            return Err(TraceError::Key { line });
        }
        let length = match optional(self.size) {
            "" if kind != Kind::Write => 0,
            length => size(line, length)?,
        };
        let (time_ns, is_precise) = parse_time(cells[self.time])
            .ok_or_else(|| TraceError::Time { line, text: cells[self.time].to_owned() })?;
        let object = xxh3_128(cells[self.key].as_bytes());
        let lifetime_s = parse_ttl(line, optional(self.ttl))?;
        Ok(Row { time_ns, is_precise, kind, size: length, lifetime_s, object })
    }
}

fn kind_of(word: &str) -> Option<Kind> {
    match word {
        "read" | "get" | "gets" => Some(Kind::Read),
        "write" | "put" | "set" | "add" | "cas" | "replace" | "append" | "prepend" | "incr" | "decr" => {
            Some(Kind::Write)
        }
        "delete" => Some(Kind::Delete),
        _ => None,
    }
}

/// Digit by digit: a float would lose nanoseconds of times that count from 1970. Also, whether there are decimals.
fn parse_time(text: &str) -> Option<(u64, bool)> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(decimals) || decimals.len() > DECIMALS {
        return None;
    }
    let whole_ns = whole.parse::<u64>().ok()?.checked_mul(SECOND_NS)?;
    let decimals_ns: u64 = format!("{decimals:0<DECIMALS$}").parse().ok()?;
    Some((whole_ns.checked_add(decimals_ns)?, !decimals.is_empty()))
}

/// What lives longer than a `u32` of seconds, 136 years, lives for ever.
fn parse_ttl(line: u64, text: &str) -> Result<Option<NonZeroU32>, TraceError> {
    if text.is_empty() {
        return Ok(None);
    }
    let seconds = number(line, "ttl", text, 10)?;
    Ok(u32::try_from(seconds).ok().and_then(NonZeroU32::new))
}
