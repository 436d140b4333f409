//! Each request that a shard takes from a client ends in exactly one answer, by its deadline.
//!
//! The core promises it in these words, and clients can't hold it to them: one that hears nothing blames the network,
//! and one that hears twice has long asked something else. So it is looked at where answers leave.

use std::collections::BTreeMap;

use ringmain::shard::Machine;
use ringmain::time::{Duration, Instant};
use ringmain_schema::frame::Header;
use ringmain_schema::message::{Get, Put};
use ringmain_schema::{Frame, Kind};

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

#[derive(Clone, Copy, Debug)]
struct Request {
    taken: Instant,
    due: Instant,
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
        let budget_us = match frame.header.kind {
            Kind::GET => Get::parse(frame).map(|get| get.budget_us),
            Kind::PUT | Kind::DELETE => Put::parse(frame).map(|put| put.budget_us),
            _ => return,
        };
        let budget = Duration::from_micros(budget_us.expect("clients write whole requests").into());
        let request = Request { taken: self.now, due: self.now + budget + GRACE };
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

const fn one_answer(sentence: String) -> Violation {
    Violation { promise: Promise::OneAnswer, key: None, sentence, operations: Vec::new() }
}
