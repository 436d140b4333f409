//! Frames: how a byte stream is cut.
//!
//! ```text
//!  0        4        8    9    10   12        16                24
//!  | length | meta   |kind|flag| 0  | checksum | request id      | meta bytes | value bytes |
//! ```
//!
//! All numbers are little-endian. `length` counts what follows the header, `meta` the part of it that is the
//! flatbuffer. Nothing is ever allocated by a claimed length: bytes are kept as they arrive.

use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

/// Bytes of the fixed header.
pub const HEADER_BYTES: usize = 24;

/// What a frame is. Requests are below 128, answers from 128 up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Kind(pub u8);

#[allow(missing_docs, reason = "each is described by its table in the schema")]
impl Kind {
    pub const HELLO: Self = Self(1);
    pub const GET: Self = Self(2);
    pub const PUT: Self = Self(3);
    pub const DELETE: Self = Self(4);
    pub const MULTI_GET: Self = Self(5);
    pub const MULTI_PUT: Self = Self(6);
    pub const TOPOLOGY: Self = Self(7);
    pub const STATUS: Self = Self(8);
    pub const PING: Self = Self(9);
    pub const CHANGE: Self = Self(10);

    pub const REPLICATE: Self = Self(32);
    pub const READ_STATE: Self = Self(33);
    pub const GOSSIP: Self = Self(34);
    pub const FORWARD: Self = Self(35);
    pub const TREE_REQUEST: Self = Self(40);
    pub const KEYS_REQUEST: Self = Self(41);
    pub const PULL_REQUEST: Self = Self(42);
    pub const HELD_REQUEST: Self = Self(44);
    pub const PROPOSE: Self = Self(48);
    pub const ROUND: Self = Self(49);
    pub const LOST: Self = Self(50);

    /// Of records that are never sent.
    pub const GIVEN_UP: Self = Self(64);
    pub const BEGINNINGS: Self = Self(65);

    pub const WELCOME: Self = Self(129);
    pub const GOT: Self = Self(130);
    pub const STORED: Self = Self(131);
    pub const MULTI_DONE: Self = Self(132);
    pub const TOPOLOGY_IS: Self = Self(133);
    pub const STATUS_IS: Self = Self(134);
    pub const PONG: Self = Self(135);
    pub const CHANGED: Self = Self(136);

    pub const REPLICATED: Self = Self(160);
    pub const STATE: Self = Self(161);
    pub const GOSSIPED: Self = Self(162);
    pub const TREE: Self = Self(168);
    pub const KEYS: Self = Self(169);
    pub const PULLED: Self = Self(170);
    pub const HELD: Self = Self(172);
    pub const EPOCH: Self = Self(176);
    pub const BOUND: Self = Self(177);
    pub const ROUND_OVER: Self = Self(178);
    pub const MET: Self = Self(179);

    pub const ERROR: Self = Self(255);

    /// Is this an answer, which carries the request id of what it answers?
    pub const fn is_answer(self) -> bool {
        self.0 >= 128
    }
}

/// Bits of a frame's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// Nothing set.
    pub const NONE: Self = Self(0);
    /// The checksum field holds the low 32 bits of XXH3-64 of all that follows the header.
    pub const CHECKSUM: Self = Self(1);
    /// On a request: answer `WrongShard` rather than pass it on to the owner.
    pub const DIRECT: Self = Self(2);
    /// On an answer: it took a hop, so the sender's topology is old, or it has none.
    pub const FORWARDED: Self = Self(4);

    const KNOWN: u8 = 7;

    /// Are all the bits of `other` set?
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These bits and those.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The fixed header of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Bytes after the header. `meta_length <= length`.
    pub length: u32,
    /// Bytes of the flatbuffer, which comes first.
    pub meta_length: u32,
    /// What the frame is.
    pub kind: Kind,
    /// Bits.
    pub flags: Flags,
    /// See [`Flags::CHECKSUM`]; else 0.
    pub checksum: u32,
    /// Chosen by the requester; its answers carry the same.
    pub request_id: u64,
}

/// Why a byte stream can't be cut into frames any further. The connection is closed after saying so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum FrameError {
    /// Longer than the receiver takes.
    #[error("a frame of {length} bytes is over the limit of {limit}: send smaller values or batches")]
    TooLong {
        /// As claimed by its header.
        length: u32,
        /// Of this connection.
        limit: usize,
    },
    /// The flatbuffer would not fit in the frame, or is over its own limit.
    #[error("a frame of {length} bytes claims {meta_length} bytes of metadata")]
    MetaTooLong {
        /// As claimed.
        meta_length: u32,
        /// As claimed.
        length: u32,
    },
    /// Bits that no version of the protocol gives a meaning to.
    #[error("the frame's reserved bits are set: is the other end speaking this protocol?")]
    Reserved,
    /// The bytes changed on their way.
    #[error("the frame's checksum doesn't match its bytes")]
    Checksum,
}

/// One whole frame, borrowed from the bytes it arrived in.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Its header.
    pub header: Header,
    /// The flatbuffer, not yet verified.
    pub meta: &'a [u8],
    /// Raw value bytes.
    pub values: &'a [u8],
}

impl Header {
    /// Read a header; `None` until all its bytes are there.
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, FrameError> {
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if header[9] & !Flags::KNOWN != 0 || header[10] != 0 || header[11] != 0 {
            return Err(FrameError::Reserved);
        }
        Ok(Some(Self {
            length: word(0),
            meta_length: word(4),
            kind: Kind(header[8]),
            flags: Flags(header[9]),
            checksum: word(12),
            request_id: u64::from(word(16)) | u64::from(word(20)) << 32,
        }))
    }

    /// The header's bytes.
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.meta_length.to_le_bytes());
        bytes[8] = self.kind.0;
        bytes[9] = self.flags.0;
        bytes[12..16].copy_from_slice(&self.checksum.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.request_id.to_le_bytes());
        bytes
    }

    /// Bytes of the frame, header included.
    pub const fn frame_length(&self) -> usize {
        HEADER_BYTES + self.length as usize
    }

    fn check(&self, limit: usize) -> Result<(), FrameError> {
        if self.length as usize > limit {
            return Err(FrameError::TooLong { length: self.length, limit });
        }
        if self.meta_length > self.length || self.meta_length as usize > crate::limits::META_BYTES_MAX {
            return Err(FrameError::MetaTooLong { meta_length: self.meta_length, length: self.length });
        }
        Ok(())
    }
}

impl<'a> Frame<'a> {
    /// Cut the first frame from `bytes`: `None` until it is there whole. `limit` bounds its length.
    ///
    /// An error is told as soon as the header shows it, before the rest is waited for.
    pub fn split(bytes: &'a [u8], limit: usize) -> Result<Option<Self>, FrameError> {
        let Some(header) = Header::read(bytes)? else { return Ok(None) };
        header.check(limit)?;
        let Some(body) = bytes.get(HEADER_BYTES..header.frame_length()) else { return Ok(None) };
        if header.flags.contains(Flags::CHECKSUM) && header.checksum != checksum(body) {
            return Err(FrameError::Checksum);
        }
        let (meta, values) = body.split_at(header.meta_length as usize);
        Ok(Some(Self { header, meta, values }))
    }

    /// Bytes of the frame, header included.
    pub const fn length(&self) -> usize {
        self.header.frame_length()
    }

    /// Append this frame to `out` under another request id and with more flags, its body as it is.
    pub fn relay(&self, request_id: u64, more: Flags, out: &mut Vec<u8>) {
        let header = Header { request_id, flags: self.header.flags.with(more), ..self.header };
        out.extend_from_slice(&header.to_bytes());
        out.extend_from_slice(self.meta);
        out.extend_from_slice(self.values);
    }
}

/// The checksum of a frame's body: the low 32 bits of XXH3-64.
pub fn checksum(body: &[u8]) -> u32 {
    xxh3_64(body) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(meta: &[u8], values: &[u8], flags: Flags) -> Vec<u8> {
        let body = [meta, values].concat();
        let header = Header {
            length: body.len() as u32,
            meta_length: meta.len() as u32,
            kind: Kind::GET,
            flags,
            checksum: if flags.contains(Flags::CHECKSUM) { checksum(&body) } else { 0 },
            request_id: 0x0123_4567_89ab_cdef,
        };
        [&header.to_bytes()[..], &body].concat()
    }

    #[test]
    fn a_frame_is_cut_once_it_is_whole() {
        let bytes = frame(b"meta", b"values", Flags::CHECKSUM);
        for end in 0..bytes.len() {
            assert!(Frame::split(&bytes[..end], 100).unwrap().is_none(), "{end} bytes are not a frame");
        }
        let cut = Frame::split(&bytes, 100).unwrap().unwrap();
        assert_eq!((cut.meta, cut.values), (&b"meta"[..], &b"values"[..]));
        assert_eq!(cut.header.request_id, 0x0123_4567_89ab_cdef);
        assert_eq!(cut.length(), bytes.len());
    }

    #[test]
    fn every_flipped_bit_of_a_checked_body_is_seen() {
        let bytes = frame(b"meta", b"values", Flags::CHECKSUM);
        for bit in HEADER_BYTES * 8..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Frame::split(&flipped, 100).unwrap_err(), FrameError::Checksum);
        }
    }

    #[test]
    fn lengths_at_and_over_the_limit() {
        let bytes = frame(b"", &[7; 100], Flags::NONE);
        assert!(Frame::split(&bytes, 100).unwrap().is_some());
        assert_eq!(Frame::split(&bytes, 99).unwrap_err(), FrameError::TooLong { length: 100, limit: 99 });
        let mut huge = bytes.clone();
        huge[0..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(Frame::split(&huge, 100), Err(FrameError::TooLong { length: u32::MAX, .. })));
        let mut meta = bytes;
        meta[4..8].copy_from_slice(&101u32.to_le_bytes());
        assert!(matches!(Frame::split(&meta, 100), Err(FrameError::MetaTooLong { meta_length: 101, .. })));
    }

    proptest! {
        /// P12: no bytes make the splitter panic or read past what is there.
        #[test]
        fn any_bytes_are_cut_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Some(frame)) = Frame::split(&bytes, 100) {
                prop_assert!(frame.length() <= bytes.len());
            }
        }
    }
}
