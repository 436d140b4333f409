//! Writing frames: one reused flatbuffer builder, and a header patched when the sizes are known.

use flatbuffers::{FlatBufferBuilder, WIPOffset};

use crate::frame::{Flags, HEADER_BYTES, Header, Kind, checksum};

/// Writes frames to the end of byte vectors. One per thread; it keeps its scratch space between frames.
pub struct Encoder {
    builder: FlatBufferBuilder<'static>,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encoder")
    }
}

impl Default for Encoder {
    fn default() -> Self {
        Self { builder: FlatBufferBuilder::with_capacity(1024) }
    }
}

impl Encoder {
    /// A frame whose values are copied in behind its metadata.
    pub(crate) fn frame<'v, T>(
        &mut self,
        out: &mut Vec<u8>,
        kind: Kind,
        flags: Flags,
        request_id: u64,
        values: impl IntoIterator<Item = &'v [u8], IntoIter: Clone>,
        build: impl FnOnce(&mut FlatBufferBuilder<'static>) -> WIPOffset<T>,
    ) {
        let values = values.into_iter();
        let values_length = values.clone().map(<[u8]>::len).sum();
        let start = self.open_frame(out, kind, flags, request_id, values_length, build);
        for value in values {
            out.extend_from_slice(value);
        }
        if flags.contains(Flags::CHECKSUM) {
            seal(out, start);
        }
    }

    /// The header and metadata of a frame; the caller sends `values_length` bytes of values right behind.
    /// Returns where in `out` the frame starts. Can't carry a checksum unless [`seal`] is called at its end.
    pub(crate) fn open_frame<T>(
        &mut self,
        out: &mut Vec<u8>,
        kind: Kind,
        flags: Flags,
        request_id: u64,
        values_length: usize,
        build: impl FnOnce(&mut FlatBufferBuilder<'static>) -> WIPOffset<T>,
    ) -> usize {
        self.builder.reset();
        let root = build(&mut self.builder);
        self.builder.finish_minimal(root);
        let meta = self.builder.finished_data();
        let start = out.len();
        let header = Header {
            length: u32::try_from(meta.len() + values_length).expect("limits keep frames below 4 GiB"),
            meta_length: meta.len() as u32,
            kind,
            flags,
            checksum: 0,
            request_id,
        };
        out.reserve(HEADER_BYTES + meta.len() + values_length.min(64 * 1024));
        out.extend_from_slice(&header.to_bytes());
        out.extend_from_slice(meta);
        start
    }
}

/// Fill in the checksum of the frame that starts at `start` and ends where `out` does.
fn seal(out: &mut [u8], start: usize) {
    let sum = checksum(&out[start + HEADER_BYTES..]);
    out[start + 12..start + 16].copy_from_slice(&sum.to_le_bytes());
}
