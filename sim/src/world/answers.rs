//! Each request that a shard takes from a client ends in exactly one answer, by its deadline.
//!
//! The core promises it in these words, and clients can't hold it to them: one that hears nothing blames the network,
//! and one that hears twice has long asked something else. So it is looked at where answers leave. The answer to a batch has
//! one to each of its items.

use std::collections::BTreeMap;

use ringmain::shard::Machine;
use ringmain::time::{Duration, Instant};
use ringmain_schema::frame::Header;
use ringmain_schema::message::{Get, Multi, Put};
use ringmain_schema::{Frame, Kind};

use super::carry::whole_frame;
use super::{At, World};
use crate::checkers::{Promise, Violation};
use crate::network::{End, Side};

/// A request that was passed on has so much longer, for the coordinator's own answer to come back; and a timer is a
/// little late.
const GRACE: Duration = Duration::from_millis(21);

/// Requests without an answer, by the shard's side of the connection and their ids.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    all: BTreeMap<(Side, u64), Request>,
}

#[derive(Clone, Debug)]
struct Request {
    taken: Instant,
    due: Instant,
    /// The ids of a batch's items, in their order.
    items: Option<Vec<u64>>,
}

impl Unanswered {
    /// Who asked over this side will hear no more.
    pub(super) fn forget(&mut self, side: Side) {
        self.all.retain(|(other, _), _| *other != side);
    }
}

impl World {
    /// A shard is about to take this frame.
    pub(super) fn expect_answer(&mut self, side: Side, frame: &Frame<'_>) {
        if !matches!(self.network.end(side.other()), End::Client(_)) {
            return;
        }
        let Some(budget_us) = budget_us_of(frame) else { return };
        let budget = Duration::from_micros(budget_us.into());
        let items = is_batch(frame).then(|| items_of(frame));
        let request = Request { taken: self.now, due: self.now + budget + GRACE, items };
        self.unanswered.all.insert((side, frame.header.request_id), request);
    }

    /// A shard answers something that was asked over this side of a connection.
    pub(super) fn on_answer(&mut self, at: At, side: Side, bytes: &[u8]) {
        let kind = Header::read(bytes).ok().flatten().map(|header| header.kind);
        if matches!(kind, Some(Kind::STORED | Kind::REPLICATED)) {
            self.check_not_fenced(at, "acknowledged a write");
        }
        if !matches!(self.network.end(side.other()), End::Client(_)) || !self.network.is_open(side) {
            return;
        }
        let Ok(Some(header)) = Header::read(bytes) else { return };
        if header.request_id == 0 {
            // The handshake's.
            return;
        }
        let Some(request) = self.unanswered.all.remove(&(side, header.request_id)) else {
            return self.answered_wrongly(
                at,
                header.request_id,
                "answered a request that it didn't owe an answer",
            );
        };
        if let (Some(asked), Some(Kind::MULTI_DONE)) = (&request.items, kind)
            && whole_frame(bytes).is_none_or(|frame| items_of(&frame) != *asked)
        {
            self.answered_wrongly(at, header.request_id, "answered other items than it was asked");
        }
        // Who stood still could not know the time.
        if self.now > request.due && self.nodes[at.node].resumed < request.taken {
            self.answered_wrongly(at, header.request_id, "answered long after the deadline");
        }
    }

    /// At rest nothing is under way, and nobody waits.
    pub(super) fn check_drained(&self) -> Option<Violation> {
        let late = self.unanswered.all.iter().find(|(_, request)| request.due < self.now);
        if let Some(((side, id), _)) = late {
            let who = self.network.end(*side);
            return Some(one_answer(format!("{who:?} never answered request {id} of its connection")));
        }
        let all = self.nodes.iter().enumerate().flat_map(|(number, node)| {
            node.all_running().iter().enumerate().map(move |(shard, running)| (number, shard, running))
        });
        let (node, shard, _) = all.into_iter().find(|(.., running)| !running.shard.is_drained())?;
        Some(one_answer(format!("shard {shard} of node {node} is at rest, and has something under way")))
    }

    fn answered_wrongly(&mut self, at: At, id: u64, what: &str) {
        let sentence = format!("shard {} of node {} {what}: request {id}", at.shard, at.node);
        self.violation.get_or_insert(one_answer(sentence));
    }
}

fn is_batch(frame: &Frame<'_>) -> bool {
    matches!(frame.header.kind, Kind::MULTI_GET | Kind::MULTI_PUT)
}

/// The ids of a batch's items, or of the answers to them, in their order. A batch that can't be read has none.
fn items_of(frame: &Frame<'_>) -> Vec<u64> {
    let multi = Multi::parse(frame).ok();
    let mut ids: Vec<u64> = multi.iter().flat_map(Multi::items).map(|item| item.header.request_id).collect();
    ids.sort_unstable();
    ids
}

/// How long a request may take: a batch as long as the slowest of its items, and not longer than is given to it
/// as a whole.
fn budget_us_of(frame: &Frame<'_>) -> Option<u32> {
    const WHOLE: &str = "clients write whole requests";
    match frame.header.kind {
        Kind::GET => Some(Get::parse(frame).expect(WHOLE).budget_us),
        Kind::PUT | Kind::DELETE => Some(Put::parse(frame).expect(WHOLE).budget_us),
        Kind::MULTI_GET | Kind::MULTI_PUT => {
            let multi = Multi::parse(frame).expect(WHOLE);
            let longest = multi.items().filter_map(|item| budget_us_of(&item)).max().filter(|most| *most > 0);
            let whole = Some(multi.budget_us).filter(|whole| *whole > 0);
            longest.into_iter().chain(whole).min()
        }
        // It is answered in the same turn.
        Kind::TOPOLOGY => Some(0),
        _ => None,
    }
}

const fn one_answer(sentence: String) -> Violation {
    Violation { promise: Promise::OneAnswer, key: None, sentence, operations: Vec::new() }
}
