//! Who seems to be away, as one shard sees it: phi accrual (Hayashibara, Défago, Yared and Katayama, SRDS 2004).
//!
//! A peer *owes an answer* from the first question that it was sent since it last answered anything. How long a
//! healthy peer takes is learned from heartbeats, whatever requests do meanwhile: pings go out regularly, and
//! again every [`PROBE_AFTER`] while an answer is owed, so that a peer which is slow with one request is heard
//! all the same. From the mean and the deviation of those times follows the *patience* with this peer: the time
//! after which only one healthy peer in 10^[`PHI_SUSPECTED`] would still be silent. It is reckoned when a
//! heartbeat is answered, so that asking how a peer is costs one comparison.
//!
//! It is purely local: it expels nobody, and believes nobody else's suspicions (paper §4.8.3). Requests pass a
//! suspected peer over at once, pings go on, and any answer clears it. It has no clock: time is handed in.
//!
//! `docs/adr/0009-suspicion-accrues.md` has the arithmetic.

mod patience;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::id::NodeId;
use crate::time::{Duration, Instant};

use patience::Patience;
pub use patience::{PATIENCE_MAX, PATIENCE_MIN, PHI_SUSPECTED};

/// Who has owed an answer for so long is pinged, and again as often.
pub const PROBE_AFTER: Duration = Duration::from_millis(100);

/// A shard takes a turn at least every 100 ms while it has peers. One that took none for so long was stopped or
/// starved itself, and the time is not held against its peers: their answers may lie in its sockets. Cassandra
/// does the same (`MAX_LOCAL_PAUSE`, 5 s).
const STALL_MIN: Duration = Duration::from_millis(200);

/// What a shard thinks of a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Health {
    /// There is a connection, and it answers.
    Up,
    /// No connection, or no answer: requests avoid it.
    Suspected,
}

/// Watches the peers that this shard talks to. It keeps a few numbers for each, however long they live.
#[derive(Debug, Default)]
pub struct FailureDetector {
    peers: BTreeMap<NodeId, Watch>,
    /// The last turn that this shard took.
    turn_at: Instant,
    suspicions_answered: u64,
}

#[derive(Clone, Copy, Debug)]
struct Watch {
    connected: bool,
    /// When it was first asked something since it last answered.
    asked_at: Option<Instant>,
    /// `asked_at` and the patience then; never, while it owes nothing.
    suspect_at: Instant,
    /// The last ping's number.
    pings: u64,
    /// The first ping that it has not answered.
    open: Option<Ping>,
    patience: Patience,
}

#[derive(Clone, Copy, Debug)]
struct Ping {
    number: u64,
    at: Instant,
}

const NEVER: Instant = Instant(u64::MAX);

impl FailureDetector {
    /// A connection to `node` stands. What was learned of it over earlier ones holds until it shows otherwise.
    pub fn on_connected(&mut self, node: NodeId) {
        let watch = self.peers.entry(node).or_default();
        (watch.connected, watch.asked_at, watch.suspect_at, watch.open) = (true, None, NEVER, None);
    }

    /// The connection to `node` is gone: suspected at once.
    pub fn on_disconnected(&mut self, node: NodeId) {
        self.peers.entry(node).or_default().connected = false;
    }

    /// `node` was sent something that it must answer.
    pub fn on_asked(&mut self, now: Instant, node: NodeId) {
        let watch = self.peers.entry(node).or_default();
        if watch.asked_at.is_none() {
            watch.asked_at = Some(now);
            watch.suspect_at = now + watch.patience.span();
        }
    }

    /// `node` answered something, whatever it was.
    pub fn on_answered(&mut self, now: Instant, node: NodeId) {
        let watch = self.peers.entry(node).or_default();
        self.suspicions_answered += u64::from(watch.connected && now >= watch.suspect_at);
        (watch.asked_at, watch.suspect_at) = (None, NEVER);
    }

    /// `node` is about to be sent a ping: the number that it should carry, and the pong will.
    pub fn on_ping(&mut self, now: Instant, node: NodeId) -> u64 {
        self.on_asked(now, node);
        let watch = self.peers.entry(node).or_default();
        watch.pings += 1;
        let ping = Ping { number: watch.pings, at: now };
        watch.open.get_or_insert(ping);
        watch.pings
    }

    /// `node` answered the ping of that `number`. One from before the first unanswered ping tells nothing about
    /// it: it was late, and has been reckoned.
    pub fn on_pong(&mut self, now: Instant, node: NodeId, number: u64) {
        let Some(watch) = self.peers.get_mut(&node) else { return };
        if let Some(ping) = watch.open.take_if(|ping| ping.number <= number) {
            watch.patience.learn(now.since(ping.at));
        }
    }

    /// The shard takes a turn. Call it first in each.
    pub fn on_turn(&mut self, now: Instant) {
        let since = now.since(self.turn_at);
        self.turn_at = now;
        if since > STALL_MIN {
            self.peers.values_mut().for_each(|watch| watch.postpone(since));
        }
    }

    /// Nobody asks about `node` any more.
    pub fn forget(&mut self, node: NodeId) {
        self.peers.remove(&node);
    }

    /// How `node` seems to be.
    pub fn health(&self, now: Instant, node: NodeId) -> Health {
        match self.peers.get(&node) {
            Some(watch) if watch.connected && now < watch.suspect_at => Health::Up,
            _ => Health::Suspected,
        }
    }

    /// For how long `node` has owed an answer.
    pub fn silence(&self, now: Instant, node: NodeId) -> Duration {
        let asked_at = self.peers.get(&node).and_then(|watch| watch.asked_at);
        asked_at.map_or(Duration::ZERO, |asked_at| now.since(asked_at))
    }

    /// Should `node` be pinged now, since an answer or a pong is overdue?
    pub fn wants_probe(&self, now: Instant, node: NodeId) -> bool {
        let Some(watch) = self.peers.get(&node) else { return false };
        let owed = [watch.asked_at, watch.open.map(|ping| ping.at)].into_iter().flatten().min();
        owed.is_some_and(|owed| now.since(owed) >= PROBE_AFTER)
    }

    /// How unlikely this silence of `node` would be if it were healthy: one in 10^phi. For people. Zero while it
    /// owes nothing, infinite without a connection. [`PATIENCE_MIN`] and [`PATIENCE_MAX`] cut the patience, so a
    /// peer may be suspected a little before or after [`PHI_SUSPECTED`].
    pub fn phi(&self, now: Instant, node: NodeId) -> f64 {
        match self.peers.get(&node) {
            Some(Watch { connected: true, asked_at: None, .. }) => 0.0,
            Some(Watch { connected: true, asked_at: Some(asked_at), patience, .. }) => {
                patience.phi(now.since(*asked_at))
            }
            _ => f64::INFINITY,
        }
    }

    /// How often a suspected peer answered after all over the same connection: it had been stopped or cut off,
    /// or was suspected wrongly.
    pub const fn suspicions_answered(&self) -> u64 {
        self.suspicions_answered
    }
}

impl Watch {
    /// Take back that so much time has passed.
    fn postpone(&mut self, span: Duration) {
        self.suspect_at = self.suspect_at + span;
        self.asked_at = self.asked_at.map(|at| at + span);
        self.open = self.open.map(|ping| Ping { at: ping.at + span, ..ping });
    }
}

impl Default for Watch {
    fn default() -> Self {
        let patience = Patience::default();
        Self { connected: false, asked_at: None, suspect_at: NEVER, pings: 0, open: None, patience }
    }
}
