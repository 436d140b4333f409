//! Multi-get and multi-put: frames that carry frames.
//!
//! Each item is a whole frame with a request id of its own, its place in the batch. A server splits a batch
//! by shard and passes the items on as they are; their answers come back in one frame, in the same form,
//! in any order.

use crate::encode::Encoder;
use crate::frame::{Flags, Frame, Kind};
use crate::generated::client as wire;
use crate::limits::MULTI_ITEMS_MAX;

use super::{Malformed, verified};

/// A batch, or the answers to one.
#[derive(Clone, Copy, Debug)]
pub struct Multi<'a> {
    /// Items; at most [`MULTI_ITEMS_MAX`].
    pub count: u32,
    /// What is left of the deadline of the whole batch, in microseconds; 0 for the server's default.
    pub budget_us: u32,
    items: &'a [u8],
}

impl<'a> Multi<'a> {
    /// From a frame of kind `MULTI_GET`, `MULTI_PUT` or `MULTI_DONE`. Every item is a whole frame.
    pub fn parse(frame: &Frame<'a>) -> Result<Self, Malformed> {
        let multi = verified::<wire::Multi<'a>>(frame, "Multi", 1)?;
        let parsed = Self { count: multi.count(), budget_us: multi.budget_us(), items: frame.values };
        if parsed.count as usize > MULTI_ITEMS_MAX {
            return Err(Malformed::Field("a batch of more than 1,024 items: split it"));
        }
        let (mut found, mut rest) = (0, frame.values);
        while !rest.is_empty() {
            let Ok(Some(item)) = Frame::split(rest, rest.len()) else {
                return Err(Malformed::Field("a batch with an item that is not a whole frame"));
            };
            rest = &rest[item.length()..];
            found += 1;
        }
        if found != parsed.count {
            return Err(Malformed::Field("a batch whose count is not that of its items"));
        }
        Ok(parsed)
    }

    /// The items, in the order of the wire.
    pub fn items(&self) -> impl Iterator<Item = Frame<'a>> + use<'a> {
        let mut rest = self.items;
        std::iter::from_fn(move || {
            let item = Frame::split(rest, rest.len()).ok().flatten()?;
            rest = &rest[item.length()..];
            Some(item)
        })
    }
}

/// Gathers items, then writes them as one frame.
#[derive(Debug, Default)]
pub struct MultiWriter {
    /// Whole frames, one behind the other. Write each through an `encode` of this crate.
    pub items: Vec<u8>,
    /// How many there are.
    pub count: u32,
}

impl MultiWriter {
    /// Append as a frame of kind `MULTI_GET`, `MULTI_PUT` or `MULTI_DONE`.
    pub fn encode(
        &self,
        encoder: &mut Encoder,
        kind: Kind,
        flags: Flags,
        request_id: u64,
        budget_us: u32,
        out: &mut Vec<u8>,
    ) {
        encoder.frame(out, kind, flags, request_id, [&*self.items], |builder| {
            wire::Multi::create(builder, &wire::MultiArgs { count: self.count, budget_us })
        });
    }
}
