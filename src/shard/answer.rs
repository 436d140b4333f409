//! Where an answer goes, and how it gets there.

use bytes::Bytes;
use ringmain_schema::message::{ErrorAnswer, ErrorCode, Got, VersionHead};
use ringmain_schema::{Encoder, Flags};

use crate::causality::{Content, Siblings, Version};
use crate::coordinator::Basis;
use crate::failpoint::{Bug, Failpoints};
use crate::id::{ConnectionId, ShardId};

use super::Shard;
use super::batch::full;
use super::eviction::{Need, UNDER_WAY};
use super::io::{Output, SiblingMessage};

/// From this size on a value is sent by reference: it stays where it is until the kernel has taken it. A smaller
/// one is copied into the answer, which is cheaper than to keep track of it.
pub(super) const SHARED_BYTES_MIN: usize = 16 * 1024;
/// What an answer says of a version beside its value, at most.
const VERSION_BYTES: usize = 64;

/// Who asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// A client of this shard.
    Client { connection: ConnectionId, request_id: u64 },
    /// A sibling shard, for a client of its own or one further away.
    Sibling { shard: ShardId, ticket: u64, hops: u8 },
    /// Another node, for a client of its own.
    Peer { connection: ConnectionId, request_id: u64, hops: u8 },
    /// A batch of this shard's, as one of its items.
    Item { batch: u64, request_id: u64, hops: u8 },
}

impl Origin {
    /// How often the request was passed on between nodes.
    pub(super) const fn hops(self) -> u8 {
        match self {
            Self::Client { .. } => 0,
            Self::Sibling { hops, .. } | Self::Peer { hops, .. } | Self::Item { hops, .. } => hops,
        }
    }
}

impl<F: Failpoints> Shard<F> {
    /// Send what `encode` writes (one whole frame, with the request id and flags it is given) to who asked.
    pub(super) fn answer(
        &mut self,
        out: &mut Output,
        origin: Origin,
        encode: impl FnOnce(&mut Encoder, u64, Flags, &mut Vec<u8>),
    ) {
        match origin {
            Origin::Client { connection, request_id } => {
                let encoder = &mut self.encoder;
                out.deliver(connection, true, |bytes| encode(encoder, request_id, Flags::NONE, bytes));
            }
            Origin::Peer { connection, request_id, .. } => {
                let encoder = &mut self.encoder;
                out.deliver(connection, true, |bytes| encode(encoder, request_id, Flags::CHECKSUM, bytes));
            }
            Origin::Sibling { shard, ticket, .. } => {
                let mut frame = Vec::new();
                encode(&mut self.encoder, 0, Flags::NONE, &mut frame);
                let message = SiblingMessage::Answer { ticket, frame: frame.into() };
                out.siblings.push((shard, message));
            }
            Origin::Item { batch, request_id, .. } => {
                let limit = self.options.peer_limits().frame_bytes_max;
                if let Some(batch) = self.batches.get_mut(batch) {
                    self.memory.requests -= batch.memory();
                    batch.add(&mut self.encoder, request_id, limit, encode);
                    self.memory.requests += batch.memory();
                }
                self.on_item_answered(out, batch);
            }
        }
    }

    /// Say why not.
    pub(super) fn answer_error(&mut self, out: &mut Output, origin: Origin, error: &ErrorAnswer<'_>) {
        self.counters.errors += 1;
        self.answer(out, origin, |encoder, id, flags, bytes| error.encode(encoder, id, flags, bytes));
    }

    /// Say why not, in a word and a sentence.
    pub(super) fn answer_code(&mut self, out: &mut Output, origin: Origin, code: ErrorCode, message: &str) {
        self.answer_error(out, origin, &ErrorAnswer::new(code, message));
    }

    /// Show a state's values, or only the latest; a state without values is `NotFound`.
    pub(super) fn answer_state(
        &mut self,
        out: &mut Output,
        origin: Origin,
        key: &[u8],
        state: &Siblings<Bytes>,
        latest: bool,
        basis: Basis,
    ) {
        let mut context = std::mem::take(&mut self.context_scratch);
        context.clear();
        let shown = state.sibling_count();
        let covers_the_unseen = self.failpoints.planted(Bug::ContextOfTheUnseen);
        if !state.is_empty() && (shown <= 1 || !latest || covers_the_unseen) {
            self.context_key.seal_clock(key, state.clock(), &mut context);
        }
        if shown == 0 && self.has_room_to_answer(out, origin, context.len()) {
            self.answer_error(
                out,
                origin,
                &ErrorAnswer {
                    context: &context,
                    primaries: basis.primaries,
                    fallbacks: basis.fallbacks,
                    nodes: basis.nodes,
                    ..ErrorAnswer::new(ErrorCode::NotFound, "")
                },
            );
            // Absence is an answer, not a failure.
            self.counters.errors -= 1;
            self.counters.not_found += 1;
        } else if shown == 0 {
            // It has been refused.
        } else if latest {
            let version = state.latest().expect("a state with values has a latest one");
            self.answer_versions(out, origin, &context, &[version], basis);
        } else if shown == 1 {
            let version = state.values().next().expect("there is one");
            self.answer_versions(out, origin, &context, &[version], basis);
        } else {
            let versions: Vec<_> = state.values().collect();
            self.answer_versions(out, origin, &context, &versions, basis);
        }
        self.context_scratch = context;
    }

    /// Does an answer of so many bytes fit into its batch, and into the memory? Else its item is refused.
    fn has_room_in_batch(&mut self, out: &mut Output, origin: Origin, batch: u64, bytes: usize) -> bool {
        let limit = self.options.peer_limits().frame_bytes_max;
        let Some(answers) = self.batches.get(batch) else { return true };
        let growth = answers.growth(bytes);
        if answers.is_full_for(bytes, limit) {
            self.answer_error(out, origin, &full(limit));
            return false;
        }
        if !self.make_room(growth, Need::Passing) {
            self.refuse_overloaded(out, origin, UNDER_WAY);
            return false;
        }
        if let Some(answers) = self.batches.get_mut(batch) {
            self.memory.requests -= answers.memory();
            answers.reserve(bytes);
            self.memory.requests += answers.memory();
        }
        true
    }

    /// The same of an answer of any origin; `bytes` are those of values and contexts, or of all of it.
    pub(super) fn has_room_to_answer(&mut self, out: &mut Output, origin: Origin, bytes: usize) -> bool {
        let Origin::Item { batch, .. } = origin else { return true };
        self.has_room_in_batch(out, origin, batch, bytes)
    }

    fn answer_versions(
        &mut self,
        out: &mut Output,
        origin: Origin,
        context: &[u8],
        versions: &[&Version<Bytes>],
        basis: Basis,
    ) {
        // Before anything is copied: a small batch may name large values a thousand times.
        let values: usize = versions.iter().map(|version| VERSION_BYTES + value(version).len()).sum();
        if !self.has_room_to_answer(out, origin, context.len() + values) {
            return;
        }
        let heads = versions.iter().map(|version| head(version));
        let basis = [basis.primaries, basis.fallbacks, basis.nodes];
        let large = versions.iter().any(|version| value(version).len() >= SHARED_BYTES_MIN);
        match origin {
            Origin::Client { connection, request_id } if large => {
                let encoder = &mut self.encoder;
                out.deliver(connection, true, |bytes| {
                    Got::encode_head(encoder, request_id, Flags::NONE, context, heads, basis, bytes);
                });
                for version in versions {
                    out.deliver_shared(connection, value(version).clone());
                }
            }
            _ => self.answer(out, origin, |encoder, id, flags, bytes| {
                let values = versions.iter().map(|version| &**value(version));
                Got::encode(encoder, id, flags, context, heads, values, basis, bytes);
            }),
        }
    }
}

fn value(version: &Version<Bytes>) -> &Bytes {
    match &version.content {
        Content::Value(value) => value,
        Content::Cold { .. } => unreachable!("what is on the disk is read before it is shown"),
        Content::Tombstone | Content::Expired => unreachable!("tombstones are not shown"),
    }
}

fn head(version: &Version<Bytes>) -> VersionHead {
    VersionHead {
        timestamp_us: version.timestamp.0,
        expiry_us: version.expiry.map_or(0, |expiry| expiry.0),
        length: value(version).len() as u32,
    }
}
