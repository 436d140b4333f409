//! The network: connections between shards and clients, and what befalls the frames on them.
//!
//! A connection is kinder than a real one in one way and harsher in another. The handshake is neither lost nor
//! overtaken. But behind it single frames may be lost, doubled and overtaken although the connection stands,
//! which TCP never does: the core is to owe nothing to the order and reliability of a stream but what it states.

use ringmain::id::ConnectionId;
use ringmain::prng::Prng;
use ringmain::time::{Duration, Instant};
use ringmain_schema::Kind;

use crate::plan::NetworkFaults;

/// One end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// A shard in one of its node's lives.
    Shard {
        /// The node.
        node: usize,
        /// Its shard.
        shard: u16,
        /// Which life.
        life: u32,
    },
    /// A client.
    Client(usize),
}

/// A side of a wire: who called is side 0, who was called side 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Side {
    /// Which wire.
    pub wire: usize,
    /// Which side of it.
    pub side: usize,
}

impl Side {
    /// The other side.
    pub const fn other(self) -> Self {
        Self { wire: self.wire, side: 1 - self.side }
    }

    /// The name by which a shard knows it.
    pub const fn connection(self) -> ConnectionId {
        ConnectionId((self.wire * 2 + self.side) as u64)
    }

    /// For the hash over all events.
    pub const fn mark(self) -> u64 {
        self.connection().0
    }

    /// The side that a shard knows by this name.
    pub const fn of(connection: ConnectionId) -> Self {
        Self { wire: connection.0 as usize / 2, side: connection.0 as usize % 2 }
    }
}

#[derive(Debug)]
struct Wire {
    ends: [End; 2],
    /// This side has not closed it.
    is_open: [bool; 2],
    /// Nothing arrives at this side before: the handshake is not overtaken.
    not_before: [Instant; 2],
    /// Bytes from this side that are not a whole frame yet.
    partial: [Vec<u8>; 2],
}

/// Nodes that a network has room for: seven, two spares, a clone and a stranger.
const NODES_MAX: usize = 11;

/// All wires.
#[derive(Debug)]
pub struct Network {
    wires: Vec<Wire>,
    faults: NetworkFaults,
    blocked: [[bool; NODES_MAX]; NODES_MAX],
    clogged: [[Instant; NODES_MAX]; NODES_MAX],
    prng: Prng,
}

/// When copies of a message arrive: none, one or two.
pub type Arrivals = [Option<Instant>; 2];

/// A quick network takes so long, and up to as much again.
const LATENCY: Duration = Duration::from_micros(100);
const CLOG_MAX: Duration = Duration::from_secs(5);

impl Network {
    /// With these faults.
    pub const fn new(faults: NetworkFaults, prng: Prng) -> Self {
        Self {
            wires: Vec::new(),
            faults,
            blocked: [[false; NODES_MAX]; NODES_MAX],
            clogged: [[Instant(0); NODES_MAX]; NODES_MAX],
            prng,
        }
    }

    /// The faults are over.
    pub fn calm(&mut self) {
        self.faults = NetworkFaults::default();
        self.blocked = Default::default();
        self.clogged = Default::default();
    }

    /// Nothing passes between these pairs from now on, and between all others.
    pub fn split(&mut self, blocked: &[(usize, usize)]) {
        self.blocked = Default::default();
        blocked.iter().for_each(|&(from, to)| self.blocked[from][to] = true);
    }

    /// Somebody calls somebody, who hears of it at `opened`: no frame arrives there before.
    pub fn connect(&mut self, caller: End, called: End, opened: Instant) -> Side {
        self.wires.push(Wire {
            ends: [caller, called],
            is_open: [true; 2],
            not_before: [Instant(0), opened],
            partial: Default::default(),
        });
        Side { wire: self.wires.len() - 1, side: 0 }
    }

    /// Who is at this side.
    pub fn end(&self, at: Side) -> End {
        self.wires[at.wire].ends[at.side]
    }

    /// Has this side not closed?
    pub fn is_open(&self, at: Side) -> bool {
        self.wires[at.wire].is_open[at.side]
    }

    /// This side is gone.
    pub fn close(&mut self, at: Side) {
        let wire = &mut self.wires[at.wire];
        wire.is_open[at.side] = false;
        wire.partial[at.side] = Vec::new();
    }

    /// Bytes from this side that are not a whole frame yet.
    pub fn partial(&mut self, from: Side) -> &mut Vec<u8> {
        &mut self.wires[from.wire].partial[from.side]
    }

    /// All sides that are open at an end of this kind.
    pub fn open_sides(&self, is_wanted: impl Fn(End) -> bool) -> Vec<Side> {
        let all = self.wires.iter().enumerate();
        let sides = all.flat_map(|(number, wire)| {
            [0, 1].map(|side| (Side { wire: number, side }, wire.is_open[side], wire.ends[side]))
        });
        sides.filter(|(_, is_open, end)| *is_open && is_wanted(*end)).map(|(side, ..)| side).collect()
    }

    /// Is the way from one end to the other blocked?
    pub fn is_blocked(&self, from: End, to: End) -> bool {
        match (from, to) {
            (End::Shard { node: from, .. }, End::Shard { node: to, .. }) => self.blocked[from][to],
            _ => false,
        }
    }

    /// How long a signal without a frame takes, such as that a connection is gone.
    pub fn latency(&mut self) -> Duration {
        LATENCY + Duration(self.prng.below(LATENCY.0))
    }

    /// This side hangs up: when does the other hear of it? Not before what was sent in order.
    pub fn hang_up(&mut self, now: Instant, from: Side) -> Instant {
        let at = now + self.latency();
        at.max(self.wires[from.wire].not_before[1 - from.side])
    }

    /// A frame leaves this side: when does it arrive at the other?
    pub fn send(&mut self, now: Instant, from: Side, kind: Kind) -> Arrivals {
        let (mine, theirs) = (self.end(from), self.end(from.other()));
        let is_handshake = matches!(kind, Kind::HELLO | Kind::WELCOME);
        if self.is_blocked(mine, theirs) {
            return [None, None];
        }
        if !is_handshake && self.prng.chance(self.faults.loss) {
            return [None, None];
        }
        let first = self.arrival(now, from, mine, theirs);
        if is_handshake || self.faults.delay == Duration::ZERO {
            self.wires[from.wire].not_before[1 - from.side] = first;
        }
        let doubled = may_be_doubled(kind) && self.prng.chance(self.faults.duplication);
        [Some(first), doubled.then(|| self.arrival(now, from, mine, theirs))]
    }

    fn arrival(&mut self, now: Instant, from: Side, mine: End, theirs: End) -> Instant {
        let mut delay = self.latency();
        if self.faults.delay > Duration::ZERO {
            delay = delay + self.exponential(self.faults.delay);
        }
        let mut at = now + delay;
        if let (End::Shard { node: mine, .. }, End::Shard { node: theirs, .. }) = (mine, theirs) {
            if self.prng.chance(self.faults.clog) {
                self.clogged[mine][theirs] = now + Duration(self.prng.below(CLOG_MAX.0));
            }
            at = at.max(self.clogged[mine][theirs]);
        }
        at.max(self.wires[from.wire].not_before[1 - from.side])
    }

    fn exponential(&mut self, mean: Duration) -> Duration {
        Duration((-(1.0 - self.prng.unit()).ln() * mean.0 as f64) as u64)
    }
}

/// A stream doubles nothing. What peers tell each other is doubled all the same, because saying it twice must do no harm; a
/// client's request is not, passed on or not, since one without a name can't be told from a second one.
fn may_be_doubled(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::REPLICATE
            | Kind::REPLICATED
            | Kind::READ_STATE
            | Kind::STATE
            | Kind::GOSSIP
            | Kind::GOSSIPED
            | Kind::PING
            | Kind::PONG
            | Kind::TREE_REQUEST
            | Kind::TREE
            | Kind::KEYS_REQUEST
            | Kind::KEYS
            | Kind::PULL_REQUEST
            | Kind::PULLED
            | Kind::HELD_REQUEST
            | Kind::HELD
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> [End; 2] {
        [0, 1].map(|node| End::Shard { node, shard: 0, life: 1 })
    }

    fn arrivals(faults: NetworkFaults, kind: Kind) -> Vec<Arrivals> {
        let mut network = Network::new(faults, Prng::from_seed(1));
        let [a, b] = ends();
        let side = network.connect(a, b, Instant(0));
        (0..1000).map(|at| network.send(Instant(at * 1000), side, kind)).collect()
    }

    #[test]
    fn a_quick_network_loses_nothing_and_keeps_the_order() {
        let arrived: Vec<Instant> =
            arrivals(NetworkFaults::default(), Kind::GOSSIP).into_iter().map(|at| at[0].unwrap()).collect();
        assert!(arrived.is_sorted());
    }

    #[test]
    fn each_fault_happens_as_often_as_it_should() {
        let lost = arrivals(NetworkFaults { loss: 0.3, ..Default::default() }, Kind::GOSSIP);
        assert!((250..350).contains(&lost.iter().filter(|at| at[0].is_none()).count()));
        let doubled = arrivals(NetworkFaults { duplication: 0.5, ..Default::default() }, Kind::GOSSIP);
        assert!((450..550).contains(&doubled.iter().filter(|at| at[1].is_some()).count()));
        let late = NetworkFaults { delay: Duration::from_millis(50), ..Default::default() };
        let late: Vec<_> = arrivals(late, Kind::GOSSIP).into_iter().map(|at| at[0].unwrap()).collect();
        assert!(!late.is_sorted());
        let clogged = arrivals(NetworkFaults { clog: 0.02, ..Default::default() }, Kind::GOSSIP);
        assert!(clogged.iter().any(|at| at[0].unwrap() > Instant(0) + Duration::from_millis(500)));
    }

    #[test]
    fn a_handshake_arrives_once_and_before_what_follows() {
        let faults =
            NetworkFaults { loss: 1.0, duplication: 1.0, delay: Duration::from_millis(50), clog: 0.0 };
        let mut network = Network::new(faults, Prng::from_seed(1));
        let [a, b] = ends();
        let side = network.connect(a, b, Instant(0));
        let hello = network.send(Instant(0), side, Kind::HELLO)[0].unwrap();
        network.faults.loss = 0.0;
        let after = (0..100).flat_map(|_| network.send(Instant(1), side, Kind::GOSSIP)).flatten().min();
        assert!(after.unwrap() >= hello);
    }

    /// A shard that was called in place of another says where that one is, and hangs up: whoever had called heard the second
    /// first, and never found it.
    #[test]
    fn whoever_hangs_up_is_heard_out() {
        let mut network = Network::new(NetworkFaults::default(), Prng::from_seed(1));
        let [a, b] = ends();
        for at in (0..1000).map(Instant) {
            let side = network.connect(a, b, at);
            let welcome = network.send(at, side.other(), Kind::WELCOME)[0].unwrap();
            assert!(network.hang_up(at, side.other()) >= welcome);
        }
    }

    #[test]
    fn nothing_passes_a_blocked_link_in_its_direction() {
        let mut network = Network::new(NetworkFaults::default(), Prng::from_seed(1));
        let [a, b] = ends();
        let side = network.connect(a, b, Instant(0));
        network.split(&[(0, 1)]);
        assert_eq!(network.send(Instant(0), side, Kind::PING), [None, None]);
        assert!(network.send(Instant(0), side.other(), Kind::PING)[0].is_some());
        network.calm();
        assert!(network.send(Instant(0), side, Kind::PING)[0].is_some());
    }
}
