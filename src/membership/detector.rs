//! Who seems to be away, as one shard sees it.

use std::collections::BTreeMap;

use crate::id::NodeId;
use crate::time::{Duration, Instant};

/// A peer that was asked something and has been silent for so long is suspected.
pub const SUSPECT_AFTER: Duration = Duration::from_secs(1);

/// What a shard thinks of a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Health {
    /// There is a connection, and it answers.
    Up,
    /// No connection, or no answer: requests avoid it.
    Suspected,
}

/// Watches the peers that this shard talks to. Purely local: it expels nobody, and believes nobody else's
/// suspicions (paper §4.8.3). Any answer of the peer clears it.
#[derive(Debug, Default)]
pub struct FailureDetector {
    peers: BTreeMap<NodeId, Watch>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Watch {
    connected: bool,
    /// When it was first asked something since it last answered.
    asked_at: Option<Instant>,
}

impl FailureDetector {
    /// A connection to `node` stands.
    pub fn on_connected(&mut self, node: NodeId) {
        self.peers.insert(node, Watch { connected: true, asked_at: None });
    }

    /// The connection to `node` is gone.
    pub fn on_disconnected(&mut self, node: NodeId) {
        self.peers.entry(node).or_default().connected = false;
    }

    /// `node` was sent something that it must answer.
    pub fn on_asked(&mut self, now: Instant, node: NodeId) {
        self.peers.entry(node).or_default().asked_at.get_or_insert(now);
    }

    /// `node` answered something, whatever it was.
    pub fn on_answered(&mut self, node: NodeId) {
        self.peers.entry(node).or_default().asked_at = None;
    }

    /// Nobody asks about `node` any more.
    pub fn forget(&mut self, node: NodeId) {
        self.peers.remove(&node);
    }

    /// How `node` seems to be.
    pub fn health(&self, now: Instant, node: NodeId) -> Health {
        match self.peers.get(&node) {
            Some(watch) if watch.connected && self.silence(now, node) < SUSPECT_AFTER => Health::Up,
            _ => Health::Suspected,
        }
    }

    /// For how long `node` has owed an answer.
    pub fn silence(&self, now: Instant, node: NodeId) -> Duration {
        let asked_at = self.peers.get(&node).and_then(|watch| watch.asked_at);
        asked_at.map_or(Duration::ZERO, |asked_at| now.since(asked_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_suspected_and_any_answer_clears_it() {
        let (mut detector, node) = (FailureDetector::default(), NodeId(1));
        let at = |millis| Instant(0) + Duration::from_millis(millis);
        assert_eq!(detector.health(at(0), node), Health::Suspected);
        detector.on_connected(node);
        assert_eq!(detector.health(at(60_000), node), Health::Up, "nobody asked it anything");
        detector.on_asked(at(60_000), node);
        detector.on_asked(at(60_900), node);
        assert_eq!(detector.health(at(60_999), node), Health::Up);
        assert_eq!(detector.health(at(61_000), node), Health::Suspected);
        detector.on_answered(node);
        assert_eq!(detector.health(at(61_000), node), Health::Up);
        detector.on_disconnected(node);
        assert_eq!(detector.health(at(61_000), node), Health::Suspected);
    }
}
