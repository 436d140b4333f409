//! Multi-get and multi-put: one frame, many keys, each answered as if it had come alone.

use ringmain_schema::limits::MULTI_ITEMS_MAX;
use ringmain_schema::message::{ErrorAnswer, ErrorCode, Multi, MultiWriter};
use ringmain_schema::{Encoder, Flags, Frame, Kind};

use crate::failpoint::Failpoints;
use crate::storage::cost;
use crate::time::{Duration, Now};

use super::Shard;
use super::answer::Origin;
use super::eviction::{Need, UNDER_WAY};
use super::io::Output;

/// A batch whose items are under way. Each ends by itself at its own deadline, and so the batch does.
#[derive(Debug)]
pub(super) struct Batch {
    origin: Origin,
    /// Items without an answer yet, and one for the loop that still hands items out.
    awaited: u32,
    answers: MultiWriter,
}

/// Of an answer without a value or a context, at most.
const SMALL_ANSWER_BYTES: usize = 320;
/// What is left free in the answer to a batch, for errors of the items that no longer fit.
const RESERVE_BYTES: usize = MULTI_ITEMS_MAX * SMALL_ANSWER_BYTES;

impl Batch {
    /// Of so many items. There is room for all their answers, unless they hold values: a refusal takes no more memory.
    fn new(origin: Origin, items: u32) -> Self {
        let answers = Vec::with_capacity(small_answers(items + 1));
        Self { origin, awaited: items + 1, answers: MultiWriter { items: answers, count: 0 } }
    }

    /// Is an answer with so many bytes of values certain to be refused?
    pub(super) fn is_full_for(&self, value_bytes: usize, limit: usize) -> bool {
        self.answers.items.len() + value_bytes > limit - RESERVE_BYTES
    }

    /// What there must be room for before an answer with so many bytes of values is added, if its list has to grow: the answers so far
    /// may have to move.
    pub(super) fn growth(&self, value_bytes: usize) -> usize {
        let held = self.answers.items.capacity();
        let needed = self.answers.items.len() + value_bytes + small_answers(self.awaited);
        if needed <= held { 0 } else { cost::allocated(needed.max(2 * held)) }
    }

    /// Take that room.
    pub(super) fn reserve(&mut self, value_bytes: usize) {
        self.answers.items.reserve(value_bytes + small_answers(self.awaited));
    }

    /// What the answers that wait for others take in memory.
    pub(super) const fn memory(&self) -> usize {
        cost::allocated(self.answers.items.capacity())
    }

    /// Add an item's answer; values with which the whole would be too large for its reader become `TooLarge`.
    pub(super) fn add(
        &mut self,
        encoder: &mut Encoder,
        request_id: u64,
        limit: usize,
        encode: impl FnOnce(&mut Encoder, u64, Flags, &mut Vec<u8>),
    ) {
        let items = &mut self.answers.items;
        let start = items.len();
        encode(encoder, request_id, Flags::NONE, items);
        let is_got = |item: &[u8]| item.get(8) == Some(&Kind::GOT.0);
        if items.len() > limit - RESERVE_BYTES && is_got(&items[start..]) {
            items.truncate(start);
            full(limit).encode(encoder, request_id, Flags::NONE, items);
        }
        self.answers.count += 1;
    }
}

const fn small_answers(items: u32) -> usize {
    items as usize * SMALL_ANSWER_BYTES
}

/// To an item whose answer doesn't fit.
pub(super) const fn full(limit: usize) -> ErrorAnswer<'static> {
    let message = "the answer to this batch is full: ask for this item in another";
    ErrorAnswer { limit: limit as u64, ..ErrorAnswer::new(ErrorCode::TooLarge, message) }
}

impl<F: Failpoints> Shard<F> {
    /// Hand out the items of a batch. Those of other shards and nodes travel alone, but leave in the same turn
    /// and so in the same send.
    pub(super) fn on_multi(
        &mut self,
        now: Now,
        origin: Origin,
        frame: &Frame<'_>,
        cap: Option<Duration>,
        out: &mut Output,
    ) {
        let multi = match Multi::parse(frame) {
            Ok(multi) => multi,
            Err(error) => return self.answer_code(out, origin, ErrorCode::BadRequest, &error.to_string()),
        };
        let gets = frame.header.kind == Kind::MULTI_GET;
        let fits = |kind| if gets { kind == Kind::GET } else { kind == Kind::PUT || kind == Kind::DELETE };
        if !multi.items().all(|item| fits(item.header.kind)) {
            let message = "a multi-get holds gets, a multi-put puts and deletes, and nothing else";
            return self.answer_code(out, origin, ErrorCode::BadRequest, message);
        }
        if !self
            .make_room(self.batches.growth() + cost::allocated(small_answers(multi.count + 1)), Need::Passing)
        {
            return self.answer_code(out, origin, ErrorCode::Overloaded, UNDER_WAY);
        }
        let batch = Batch::new(origin, multi.count);
        let memory = batch.memory();
        let Ok(key) = self.batches.insert(batch) else {
            return self.answer_code(
                out,
                origin,
                ErrorCode::Overloaded,
                "too many batches under way: retry later",
            );
        };
        self.memory.requests += memory;
        let own = (multi.budget_us > 0).then(|| Duration::from_micros(multi.budget_us.into()));
        let cap = own.into_iter().chain(cap).min();
        let hops = origin.hops();
        for item in multi.items() {
            let item_origin = Origin::Item { batch: key, request_id: item.header.request_id, hops };
            self.on_key_request(now, item_origin, &item, cap, out);
        }
        self.on_item_answered(out, key);
    }

    /// One item fewer to wait for; the last one sends the answer.
    pub(super) fn on_item_answered(&mut self, out: &mut Output, key: u64) {
        let Some(batch) = self.batches.get_mut(key) else { return };
        batch.awaited -= 1;
        if batch.awaited > 0 {
            return;
        }
        let batch = self.batches.remove(key).expect("it was there a moment ago");
        self.memory.requests -= batch.memory();
        self.answer(out, batch.origin, |encoder, id, flags, bytes| {
            batch.answers.encode(encoder, Kind::MULTI_DONE, flags, id, 0, bytes);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ConnectionId;
    use crate::shard::eviction::{FULL, MAKING_ROOM};

    /// The list doubled for a refusal, after it had been found that there was no room for the value (the simulator's seed
    /// 12380096252142420323).
    #[test]
    fn a_refusal_takes_no_more_memory() {
        let mut encoder = Encoder::default();
        let mut batch = Batch::new(Origin::Client { connection: ConnectionId(1), request_id: 1 }, 8);
        let mut add = |batch: &mut Batch, code, context: &[u8]| {
            let error = ErrorAnswer { context, ..ErrorAnswer::new(code, UNDER_WAY) };
            batch.add(&mut encoder, 1, usize::MAX, |encoder, id, flags, bytes| {
                error.encode(encoder, id, flags, bytes);
            });
            batch.awaited -= 1;
        };
        let large = [7; 17_000];
        let needed = batch.growth(large.len());
        assert!(needed >= large.len());
        batch.reserve(large.len());
        assert!(batch.memory() <= needed);
        let held = batch.memory();
        add(&mut batch, ErrorCode::NotFound, &large);
        for _ in 0..7 {
            add(&mut batch, ErrorCode::Overloaded, &[]);
        }
        assert_eq!((batch.memory(), batch.awaited), (held, 1));
    }

    #[test]
    fn a_small_answer_is_small() {
        for message in [FULL, MAKING_ROOM, UNDER_WAY] {
            let mut bytes = Vec::new();
            let error = ErrorAnswer::new(ErrorCode::Overloaded, message);
            error.encode(&mut Encoder::default(), u64::MAX, Flags::NONE, &mut bytes);
            assert!(bytes.len() <= SMALL_ANSWER_BYTES, "{} bytes: {message}", bytes.len());
        }
    }
}
