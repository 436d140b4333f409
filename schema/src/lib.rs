//! The wire protocol of Ringmain: frames, their flatbuffers schema, and borrowed views of both.
//!
//! A frame is `[header | flatbuffer | raw value bytes]`. The header is fixed; the flatbuffer carries the
//! metadata and is verified once, with tight limits, when a frame is parsed into a view of [`message`];
//! values lie outside it, so they need no verification and no copy. `docs/protocol.md` describes the bytes.
//!
//! What server and client must agree on besides frames lives here too: how a key becomes a token.

pub mod departure;
pub mod encode;
pub mod epoch;
pub mod exchange;
pub mod frame;
mod generated;
pub mod limits;
pub mod message;
pub mod peer;
pub mod token;

pub use encode::Encoder;
pub use frame::{Flags, Frame, FrameError, Header, Kind};
pub use message::{ErrorCode, Malformed, Role};
