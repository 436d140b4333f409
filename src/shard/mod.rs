//! The shard: everything a core of a node does, without IO.

mod io;

pub use io::{
    Append, ConnectionLimits, Delivery, Dial, DialId, Input, Machine, Output, Piece, SIBLING_NOTICES_MAX,
    SIBLING_REQUESTS_MAX, SIBLING_RING_SLOTS, SiblingMessage,
};
