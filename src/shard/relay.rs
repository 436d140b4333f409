//! Requests that another shard must coordinate: passed on as they are, and their answers back.
//!
//! Between shards of a node a request takes a slot that was reserved for its answer in the ring back, so an
//! answer always fits. Between nodes it travels inside a `FORWARD` frame.

use ringmain_schema::message::{ErrorAnswer, ErrorCode, Stored};
use ringmain_schema::peer::Forward;
use ringmain_schema::{Flags, Frame, Kind, token};

use crate::coordinator::Basis;
use crate::failpoint::{Failpoints, Rare};
use crate::id::{ConnectionId, NodeId, PartitionId, ShardId};
use crate::membership::Health;
use crate::storage::cost;
use crate::time::{Duration, Instant, Now};

use super::Shard;
use super::answer::Origin;
use super::deadlines::Due;
use super::eviction::UNDER_WAY;
use super::io::{Output, SIBLING_REQUESTS_MAX, SiblingMessage};
use super::links::LinkId;
use super::lives::TAKEN_OVER;
use super::operations::Nodes;

/// Between nodes a request is passed on at most so often: more means that they disagree about the ring.
pub(super) const HOPS_MAX: u8 = 3;

/// The coordinator's own answer at the deadline may take so long to come back.
const GRACE: Duration = Duration::from_millis(20);

/// A request that was passed on.
#[derive(Debug)]
pub(super) struct Relay {
    origin: Origin,
    via: Via,
    deadline: Instant,
    /// It may be applied although no answer came.
    is_write: bool,
    /// Its copy on the way to a sibling.
    cost: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Via {
    Sibling(ShardId),
    Peer(LinkId),
}

/// Who coordinates a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Nearest {
    /// This node.
    Here,
    /// Another, over this connection to its right shard.
    Peer(LinkId, ConnectionId),
}

impl<F: Failpoints> Shard<F> {
    /// Pass a request on towards the owner of `partition`: first to the right shard of this node, which has
    /// connections to the right shards of the others.
    pub(super) fn relay(
        &mut self,
        now: Now,
        origin: Origin,
        frame: &Frame<'_>,
        partition: PartitionId,
        budget: Duration,
        out: &mut Output,
    ) {
        if self.is_mine(partition) {
            self.relay_to_peer(now, origin, frame, partition, budget, out);
        } else {
            let shard = ShardId(token::shard_of(partition.0, self.options.shards));
            self.relay_to_sibling(now, origin, frame, shard, budget, out);
        }
    }

    pub(super) fn relay_to_sibling(
        &mut self,
        now: Now,
        origin: Origin,
        frame: &Frame<'_>,
        shard: ShardId,
        budget: Duration,
        out: &mut Output,
    ) {
        let under_way = self.relays_to[usize::from(shard.0)];
        if under_way >= SIBLING_REQUESTS_MAX {
            return self.refuse_overloaded(out, origin, "the owning shard is busy: retry later");
        }
        let Some(ticket) = self.remember_relay(now, origin, Via::Sibling(shard), frame, budget, out) else {
            return;
        };
        self.relays_to[usize::from(shard.0)] += 1;
        self.counters.forwarded_to_siblings += 1;
        let mut copy = Vec::with_capacity(frame.length());
        frame.relay(0, Flags::NONE, &mut copy);
        let message = SiblingMessage::Request { ticket, hops: origin.hops(), budget, frame: copy.into() };
        out.siblings.push((shard, message));
    }

    fn relay_to_peer(
        &mut self,
        now: Now,
        origin: Origin,
        frame: &Frame<'_>,
        partition: PartitionId,
        budget: Duration,
        out: &mut Output,
    ) {
        let hops = origin.hops().saturating_add(1);
        if hops > HOPS_MAX {
            let message = "the nodes disagree about who owns this key: retry when they have talked";
            return self.answer_code(out, origin, ErrorCode::Unavailable, message);
        }
        let is_read = frame.header.kind == Kind::GET;
        let nearest = if self.is_held_up(partition, !is_read) {
            self.next_in_line(now.monotonic, partition)
        } else {
            self.nearest(now.monotonic, partition, is_read)
        };
        let Some(Nearest::Peer(link, connection)) = nearest else {
            let message = "no replica of this key can be reached: retry later";
            return self.answer_code(out, origin, ErrorCode::Unavailable, message);
        };
        let Some(ticket) = self.remember_relay(now, origin, Via::Peer(link), frame, budget, out) else {
            return;
        };
        self.counters.forwarded_to_peers += 1;
        self.detector.on_asked(now.monotonic, link.node);
        let budget_us = u32::try_from(budget.as_micros()).unwrap_or(u32::MAX);
        let mut inner = Vec::with_capacity(frame.length());
        frame.relay(0, Flags::NONE, &mut inner);
        let encoder = &mut self.encoder;
        out.deliver(connection, false, |bytes| {
            Forward::encode(encoder, ticket, hops, budget_us, &inner, bytes);
        });
    }

    /// The first node of the preference list that can be reached and isn't about to go: a primary, or an owner to be, or,
    /// if quorums are sloppy, a fallback, which may be this node.
    ///
    /// A read goes to a primary of this node's rack if there is one, else of its data centre. Writes go where all others
    /// send theirs: what is written through one coordinator grows fewer siblings.
    pub(super) fn nearest(&self, now: Instant, partition: PartitionId, is_read: bool) -> Option<Nearest> {
        let list = self.view.ring.preference_list(partition);
        let fallbacks = list.fallbacks().filter(|_| self.is_sloppy());
        let mut owners: Nodes = self.owners(partition).iter().collect();
        if is_read {
            owners[..list.primaries.len()].sort_by_key(|&node| self.view.distance(node));
        }
        let mut all = owners.into_iter().chain(fallbacks).filter(|node| !self.view.is_going(*node));
        all.find_map(|node| {
            if node == self.view.me { Some(Nearest::Here) } else { self.nearest_at(now, node, partition) }
        })
    }

    /// For a node that may not coordinate now: the first that can be reached of those after it in the preference list, round to it
    /// again. If that one may not either it goes on from there, and not back.
    pub(super) fn next_in_line(&self, now: Instant, partition: PartitionId) -> Option<Nearest> {
        let fallbacks = self.view.ring.preference_list(partition).fallbacks().filter(|_| self.is_sloppy());
        let mut all: Nodes = self.owners(partition).iter().chain(fallbacks).collect();
        if let Some(at) = all.iter().position(|node| *node == self.view.me) {
            all.rotate_left(at);
            all.remove(0);
        }
        let mut others = all.into_iter().filter(|node| !self.view.is_going(*node));
        others.find_map(|node| self.nearest_at(now, node, partition))
    }

    fn nearest_at(&self, now: Instant, node: NodeId, partition: PartitionId) -> Option<Nearest> {
        let link = self.link_to(node, partition)?;
        let connection = self.links.connection(link)?;
        let is_up = self.detector.health(now, node) == Health::Up;
        is_up.then_some(Nearest::Peer(link, connection))
    }

    /// The shard of `node` that holds `partition`; `None` while its shards are not known.
    pub(super) fn link_to(&self, node: NodeId, partition: PartitionId) -> Option<LinkId> {
        let shards = self.view.member(node)?.oneself.shard_ports.len() as u16;
        (shards > 0).then(|| LinkId { node, shard: ShardId(token::shard_of(partition.0, shards)) })
    }

    fn remember_relay(
        &mut self,
        now: Now,
        origin: Origin,
        via: Via,
        frame: &Frame<'_>,
        budget: Duration,
        out: &mut Output,
    ) -> Option<u64> {
        let deadline = now.monotonic + budget + GRACE;
        let is_write = matches!(frame.header.kind, Kind::PUT | Kind::DELETE | Kind::MULTI_PUT | Kind::CHANGE);
        let cost = match via {
            Via::Sibling(_) => cost::allocated(frame.length()),
            Via::Peer(_) => 0,
        };
        if !self.make_room_to_relay(cost) {
            self.refuse_overloaded(out, origin, UNDER_WAY);
            return None;
        }
        if let Ok(ticket) = self.relays.insert(Relay { origin, via, deadline, is_write, cost }) {
            self.memory.requests += cost;
            self.deadlines.add(deadline, Due::Relay(ticket));
            return Some(ticket);
        }
        self.refuse_overloaded(out, origin, "too many requests are being passed on: retry later");
        None
    }

    pub(super) fn refuse_overloaded(&mut self, out: &mut Output, origin: Origin, message: &str) {
        self.failpoints.reached(Rare::TableFull);
        self.counters.overloaded += 1;
        self.answer_code(out, origin, ErrorCode::Overloaded, message);
    }

    /// A peer's answer to something that was passed on to it. Too late, unknown, or not its to answer: nobody
    /// waits for it.
    pub(super) fn on_peer_answered(
        &mut self,
        link: LinkId,
        ticket: u64,
        frame: &Frame<'_>,
        out: &mut Output,
    ) {
        self.on_relayed(Via::Peer(link), ticket, frame, out);
    }

    fn on_relayed(&mut self, via: Via, ticket: u64, frame: &Frame<'_>, out: &mut Output) {
        if self.relays.get_mut(ticket).is_none_or(|relay| relay.via != via) {
            return;
        }
        let Some(relay) = self.take_relay(ticket) else { return };
        self.deadlines.remove(relay.deadline, Due::Relay(ticket));
        if self.view.is_fenced() {
            // The sibling had not heard of it yet.
            return self.give_up(out, &relay, ErrorCode::NotServing, TAKEN_OVER);
        }
        if is_of_read(frame) && !self.has_room_to_answer(out, relay.origin, frame.length()) {
            return;
        }
        if let Some(Stored { context, primaries, fallbacks, nodes }) = stored(frame)
            && !self.reserve_answer(relay.origin, context.len())
        {
            return self.answer_stored(out, relay.origin, &[], Basis { primaries, fallbacks, nodes });
        }
        self.answer(out, relay.origin, |_, id, _, bytes| frame.relay(id, Flags::FORWARDED, bytes));
    }

    fn take_relay(&mut self, ticket: u64) -> Option<Relay> {
        let relay = self.relays.remove(ticket)?;
        self.memory.requests -= relay.cost;
        Some(relay)
    }

    /// A sibling's answer frees its slot of the ring, even if nobody waits for it any more.
    pub(super) fn on_sibling_answered(&mut self, from: ShardId, ticket: u64, frame: &[u8], out: &mut Output) {
        self.relays_to[usize::from(from.0)] -= 1;
        let frame = Frame::split(frame, frame.len()).ok().flatten().expect("siblings answer in whole frames");
        self.on_relayed(Via::Sibling(from), ticket, &frame, out);
    }

    /// No answer came in time.
    pub(super) fn on_relay_due(&mut self, ticket: u64, out: &mut Output) {
        let Some(relay) = self.take_relay(ticket) else { return };
        self.counters.timeouts += 1;
        self.give_up(out, &relay, ErrorCode::Timeout, "the coordinator did not answer by the deadline");
    }

    /// A link is gone, and with it the answers that were to come over it.
    pub(super) fn fail_relays(&mut self, link: LinkId, out: &mut Output) {
        let lost: Vec<u64> = self.relays.keys().collect();
        lost.into_iter().for_each(|ticket| self.on_relay_refused(link, ticket, out));
    }

    /// Whoever it was passed on to counts for nothing any more.
    pub(super) fn on_relay_refused(&mut self, link: LinkId, ticket: u64, out: &mut Output) {
        if self.relays.get_mut(ticket).is_some_and(|relay| relay.via == Via::Peer(link))
            && let Some(relay) = self.take_relay(ticket)
        {
            self.deadlines.remove(relay.deadline, Due::Relay(ticket));
            self.give_up(out, &relay, ErrorCode::Unavailable, "the coordinator was lost: retry");
        }
    }

    fn give_up(&mut self, out: &mut Output, relay: &Relay, code: ErrorCode, message: &str) {
        if relay.is_write {
            self.failpoints.reached(Rare::RelayLost);
            self.counters.maybe_applied += 1;
            let message = "the coordinator did not answer: the write may be applied; read it back, or retry";
            self.answer_error(out, relay.origin, &ErrorAnswer::new(ErrorCode::MaybeApplied, message));
        } else {
            self.answer_code(out, relay.origin, code, message);
        }
    }
}

/// May it be taken back? What was written, or may be, is told as it is.
fn is_of_read(frame: &Frame<'_>) -> bool {
    let is_absent = || ErrorAnswer::parse(frame).is_ok_and(|error| error.code == ErrorCode::NotFound);
    frame.header.kind == Kind::GOT || frame.header.kind == Kind::ERROR && is_absent()
}

fn stored<'a>(frame: &Frame<'a>) -> Option<Stored<'a>> {
    (frame.header.kind == Kind::STORED).then(|| Stored::parse(frame).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmain_schema::Encoder;

    /// Where a batch had no room for it, what might have been written was told as refused.
    #[test]
    fn only_what_was_read_may_be_taken_back() {
        let frame = |encode: &dyn Fn(&mut Encoder, &mut Vec<u8>)| {
            let mut bytes = Vec::new();
            encode(&mut Encoder::default(), &mut bytes);
            let frame = Frame::split(&bytes, bytes.len()).unwrap().unwrap();
            (is_of_read(&frame), stored(&frame).is_some())
        };
        let error =
            |code| frame(&|encoder, bytes| ErrorAnswer::new(code, "").encode(encoder, 1, Flags::NONE, bytes));
        assert_eq!(error(ErrorCode::NotFound), (true, false));
        assert_eq!(error(ErrorCode::MaybeApplied), (false, false));
        assert_eq!(error(ErrorCode::Unavailable), (false, false));
        let stored = Stored { context: &[7; 900], primaries: 2, fallbacks: 0, nodes: 2 };
        let told = frame(&|encoder, bytes| stored.encode(encoder, 1, Flags::NONE, bytes));
        assert_eq!(told, (false, true));
    }
}
