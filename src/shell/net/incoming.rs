//! Cutting frames from what arrives, without copying when it can be avoided.
//!
//! Frames that lie whole in the kernel's buffer are handed over from there. Only a partial tail is kept, and
//! bytes that arrived while the connection wasn't to be read. What is kept grows with the bytes that arrive,
//! never by a length that somebody claims.

use ringmain_schema::frame::HEADER_BYTES;
use ringmain_schema::{Frame, FrameError, Header};

use crate::storage::cost;

/// Memory that an idle connection may keep for its next partial frame.
const KEPT_BYTES_MAX: usize = 16 * 1024;

/// The bytes of one connection that were not handed over yet.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    held: Vec<u8>,
    /// Those before were handed over. `start <= held.len()`
    start: usize,
}

/// Why [`Incoming::cut`] stopped.
#[derive(Debug)]
pub(super) enum Cut {
    /// What is left, if anything, is a partial frame.
    Hungry,
    /// The taker wanted no more; the bytes of `fresh` from here on were not looked at.
    Blocked { rest: usize },
    /// What follows can't be cut.
    Garbled(FrameError),
}

impl Incoming {
    /// Hand over every whole frame of what is held and then of `fresh`, while `ready` says so.
    ///
    /// `on_frame` returns whether it takes another.
    pub(super) fn cut(
        &mut self,
        fresh: &[u8],
        frame_bytes_max: usize,
        mut ready: bool,
        mut on_frame: impl FnMut(Frame<'_>) -> bool,
    ) -> Cut {
        let mut at = 0;
        loop {
            if !ready {
                return Cut::Blocked { rest: at };
            }
            let holding = self.start < self.held.len();
            let bytes = if holding { &self.held[self.start..] } else { &fresh[at..] };
            match Frame::split(bytes, frame_bytes_max) {
                Err(error) => return Cut::Garbled(error),
                Ok(Some(frame)) => {
                    let length = frame.length();
                    ready = on_frame(frame);
                    if holding { self.consume(length) } else { at += length }
                }
                Ok(None) if at == fresh.len() => return Cut::Hungry,
                Ok(None) => {
                    // Complete the first frame, no more: the next is cut where it lies.
                    let missing = missing(bytes).min(fresh.len() - at);
                    let missing = if holding { missing } else { fresh.len() - at };
                    self.hold(&fresh[at..at + missing]);
                    at += missing;
                }
            }
        }
    }

    /// Keep bytes for later.
    pub(super) fn hold(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.held.drain(..self.start);
            self.start = 0;
        }
        self.held.extend_from_slice(bytes);
    }

    /// Forget everything.
    pub(super) fn discard(&mut self) {
        *self = Self::default();
    }

    /// What is kept for later, as it is allocated.
    pub(super) fn memory(&self) -> usize {
        cost::allocated(self.held.capacity())
    }

    /// Is anything kept?
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.held.len()
    }

    fn consume(&mut self, length: usize) {
        self.start += length;
        if self.start < self.held.len() {
            return;
        }
        self.start = 0;
        if self.held.capacity() > KEPT_BYTES_MAX { self.held = Vec::new() } else { self.held.clear() }
    }
}

/// How many bytes a partial frame lacks, or lacks to know that.
fn missing(partial: &[u8]) -> usize {
    match Header::read(partial) {
        Ok(Some(header)) => header.frame_length() - partial.len(),
        _ => HEADER_BYTES - partial.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmain_schema::{Flags, Kind};

    fn frame(id: u64, body: usize) -> Vec<u8> {
        let header = Header {
            length: body as u32,
            meta_length: 0,
            kind: Kind::PUT,
            flags: Flags::NONE,
            checksum: 0,
            request_id: id,
        };
        let mut bytes = header.to_bytes().to_vec();
        bytes.resize(HEADER_BYTES + body, id as u8);
        bytes
    }

    fn stream() -> Vec<u8> {
        [frame(1, 5), frame(2, 0), frame(3, 40), frame(4, 1)].concat()
    }

    #[test]
    fn frames_come_out_whole_however_the_bytes_arrive() {
        let stream = stream();
        for first in 0..=stream.len() {
            for second in first..=stream.len() {
                let mut incoming = Incoming::default();
                let mut seen = Vec::new();
                for part in [&stream[..first], &stream[first..second], &stream[second..]] {
                    let cut = incoming.cut(part, 100, true, |frame| {
                        assert!(frame.values.iter().all(|&byte| u64::from(byte) == frame.header.request_id));
                        seen.push(frame.header.request_id);
                        true
                    });
                    assert!(matches!(cut, Cut::Hungry));
                }
                assert_eq!(seen, [1, 2, 3, 4], "split at {first} and {second}");
                assert!(incoming.is_empty());
            }
        }
    }

    #[test]
    fn a_taker_that_wants_no_more_loses_nothing() {
        let stream = stream();
        for split in 0..=stream.len() {
            let mut incoming = Incoming::default();
            let mut seen = Vec::new();
            for part in [&stream[..split], &stream[split..]] {
                let cut = incoming.cut(part, 100, seen.is_empty(), |frame| {
                    seen.push(frame.header.request_id);
                    false
                });
                if let Cut::Blocked { rest } = cut {
                    incoming.hold(&part[rest..]);
                }
            }
            assert_eq!(seen, [1]);
            while !incoming.is_empty() {
                incoming.cut(&[], 100, true, |frame| {
                    seen.push(frame.header.request_id);
                    false
                });
            }
            assert_eq!(seen, [1, 2, 3, 4]);
        }
    }

    #[test]
    fn memory_follows_what_arrived_and_is_given_back() {
        let big = frame(1, 1 << 20);
        let mut incoming = Incoming::default();
        assert!(matches!(incoming.cut(&big[..HEADER_BYTES + 10], 1 << 20, true, |_| true), Cut::Hungry));
        assert!(incoming.held.capacity() < 100, "a claimed length allocates nothing");
        let mut whole = 0;
        incoming.cut(&big[HEADER_BYTES + 10..], 1 << 20, true, |_| {
            whole += 1;
            true
        });
        assert_eq!((whole, incoming.held.capacity()), (1, 0));
    }
}
