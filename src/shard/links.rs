//! Links: one connection to each shard of another node that shares a partition with this one.
//!
//! Of two nodes the one with the lesser id calls; the other waits for that, and calls too when it has waited for long: the
//! first may have forgotten it, since records live in memory if nothing else does. A guest calls its seeds, which may not
//! know it yet. A call that failed is repeated with growing pauses. A node's shards are called at their own ports once these are
//! known, else at the ordinary port, whose welcome tells them.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringmain_schema::limits::{PROTOCOL_MAX, PROTOCOL_MIN};
use ringmain_schema::message::{Hello, PeerHello, Ping, Ports, Role, Welcome};
use ringmain_schema::{Frame, Kind};

use crate::failpoint::{Bug, Failpoints, Rare};
use crate::id::{ConnectionId, NodeId, ShardId};
use crate::membership::{Intent, Member, PROBE_AFTER};
use crate::time::{Duration, Instant, Now};

use super::Shard;
use super::io::{Dial, DialId, Output};
use super::sessions::Session;

/// Links are looked after so often: calls repeated, the silent asked whether they are there.
const TEND_EVERY: Duration = PROBE_AFTER;
/// Heartbeats: each link is pinged so often, whatever else it carries. That is two pings and two pongs a second and
/// direction, of about 40 bytes each. While an answer is overdue it is pinged at each look, five times as often; what
/// a stopped peer doesn't read is a hundred pings at most until `SILENCE_MAX`.
const PING_EVERY: Duration = Duration::from_millis(500);
/// A link that has owed an answer for so long is given up and called anew.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// A call must be welcomed within this time.
const GREETING_MAX: Duration = Duration::from_secs(2);
/// Whoever should have called by then may not know that there is somebody to call.
const CALLED_WITHIN: Duration = Duration::from_secs(5);
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// A shard of another node. Of a seed only the address is known: its node is `NodeId(0)` and its shard the
/// place in the list of seeds, until it has welcomed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct LinkId {
    pub(super) node: NodeId,
    pub(super) shard: ShardId,
}

/// All links of one shard.
#[derive(Debug)]
pub(super) struct Links {
    all: BTreeMap<LinkId, Link>,
    dials: BTreeMap<DialId, LinkId>,
    next_dial: u64,
    next_tend: Option<Instant>,
    seeds: Vec<(Arc<str>, u16)>,
}

#[derive(Debug)]
struct Link {
    state: State,
    backoff: Duration,
    /// By this connection, if it has been.
    pinged_at: Option<Instant>,
    /// Learned from a welcome at the ordinary port.
    port: Option<u16>,
    /// The last call to the shard's own port failed: it may have another now.
    try_ordinary: bool,
    /// The process at the other end when it came up: its incarnation and its life, 0 if it didn't say.
    process: (u64, u64),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// The other end calls; waited for since then, from the next look on.
    Awaiting(Option<Instant>),
    /// Call then.
    Pausing(Instant),
    Calling(DialId),
    /// Reached, and not yet welcomed.
    Greeting {
        connection: ConnectionId,
        since: Instant,
    },
    Up(ConnectionId),
}

impl Links {
    pub(super) fn new(seeds: &[(Arc<str>, u16)]) -> Self {
        let mut all = BTreeMap::new();
        for seed in 0..seeds.len() {
            let link = LinkId { node: NodeId(0), shard: ShardId(seed as u16) };
            all.insert(link, Link::new(State::Pausing(Instant(0))));
        }
        Self { all, dials: BTreeMap::new(), next_dial: 0, next_tend: Some(Instant(0)), seeds: seeds.to_vec() }
    }

    /// The connection of a link that is up.
    pub(super) fn connection(&self, link: LinkId) -> Option<ConnectionId> {
        match self.all.get(&link)?.state {
            State::Up(connection) => Some(connection),
            _ => None,
        }
    }

    /// Nodes with a link that is up to this shard of theirs.
    pub(super) fn up_on(&self, shard: ShardId) -> Vec<(NodeId, ConnectionId)> {
        let up = self.all.iter().filter(|(link, _)| link.shard == shard && link.node != NodeId(0));
        up.filter_map(|(link, _)| Some((link.node, self.connection(*link)?))).collect()
    }

    /// All links that are up, in order; not those to seeds.
    pub(super) fn all_up(&self) -> impl Iterator<Item = LinkId> {
        let links = self.all.iter().filter(|(link, _)| link.node != NodeId(0));
        links.filter(|(_, link)| matches!(link.state, State::Up(_))).map(|(link, _)| *link)
    }

    /// When to look after the links again; never, if there are none.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.next_tend.filter(|_| !self.all.is_empty())
    }

    /// The process at the other end when the link came up: its incarnation and its life, 0 if it didn't say.
    pub(super) fn process(&self, link: LinkId) -> (u64, u64) {
        self.all.get(&link).map_or((0, 0), |link| link.process)
    }

    /// Is a link to this process of this node up?
    pub(super) fn is_up_with(&self, node: NodeId, life: u64) -> bool {
        let mut links = self.all.iter().filter(|(link, _)| link.node == node);
        links.any(|(_, link)| link.process.1 == life && matches!(link.state, State::Up(_)))
    }

    /// Is any link to this node up?
    fn is_up(&self, node: NodeId) -> bool {
        self.all.iter().any(|(link, state)| link.node == node && matches!(state.state, State::Up(_)))
    }
}

impl Link {
    const fn new(state: State) -> Self {
        Self {
            state,
            backoff: BACKOFF_MIN,
            pinged_at: None,
            port: None,
            try_ordinary: false,
            process: (0, 0),
        }
    }
}

impl<F: Failpoints> Shard<F> {
    /// Have a link for each shard of another node that shares a partition with this one, and no other.
    pub(super) fn want_links(&mut self) {
        let mut wanted = Vec::new();
        for member in self.view.members.iter().filter(|member| member.node != self.view.me) {
            if member.intent == Intent::Removed {
                continue;
            }
            let theirs = member.oneself.shard_ports.len() as u16;
            let shares =
                |shard: u16| shares_a_partition(self.options.shard.0, self.options.shards, shard, theirs);
            let shards = (0..theirs).filter(|&shard| shares(shard));
            wanted.extend(shards.map(|shard| LinkId { node: member.node, shard: ShardId(shard) }));
            if theirs == 0 && self.options.shard == ShardId(0) {
                wanted.push(LinkId { node: member.node, shard: ShardId(0) });
            }
        }
        let me = self.view.me;
        for link in &wanted {
            let state = if me < link.node { State::Pausing(Instant(0)) } else { State::Awaiting(None) };
            self.links.all.entry(*link).or_insert_with(|| Link::new(state));
        }
        self.links.all.retain(|link, state| {
            let idle = matches!(state.state, State::Awaiting(_) | State::Pausing(_));
            link.node == NodeId(0) || wanted.contains(link) || !idle
        });
    }

    /// Call whom it is time to call; ask the silent; give up the dead.
    pub(super) fn tend_links(&mut self, now: Now, out: &mut Output) {
        if self.links.next_timeout().is_none_or(|at| at > now.monotonic) {
            return;
        }
        self.links.next_tend = Some(now.monotonic + TEND_EVERY);
        let all: Vec<(LinkId, State, Option<Instant>)> =
            self.links.all.iter().map(|(id, link)| (*id, link.state, link.pinged_at)).collect();
        let calls = !self.stopping && !self.view.is_fenced();
        for (id, state, pinged_at) in all {
            let beats = pinged_at.is_none_or(|at| now.monotonic.since(at) >= PING_EVERY);
            match state {
                State::Pausing(until) if until <= now.monotonic && calls => self.call(id, out),
                State::Awaiting(None) => self.await_call(now, id),
                State::Awaiting(Some(since)) if now.monotonic.since(since) > CALLED_WITHIN && calls => {
                    self.failpoints.reached(Rare::CalledByTheGreater);
                    self.call(id, out);
                }
                State::Greeting { connection, since } if now.monotonic.since(since) > GREETING_MAX => {
                    self.close(now, connection, out);
                }
                State::Up(connection) if self.detector.silence(now.monotonic, id.node) > SILENCE_MAX => {
                    self.close(now, connection, out);
                }
                State::Up(connection) if beats || self.detector.wants_probe(now.monotonic, id.node) => {
                    self.ping(now, id, connection, out);
                }
                _ => {}
            }
        }
    }

    fn await_call(&mut self, now: Now, id: LinkId) {
        if let Some(link) = self.links.all.get_mut(&id) {
            link.state = State::Awaiting(Some(now.monotonic));
        }
    }

    fn ping(&mut self, now: Now, id: LinkId, connection: ConnectionId, out: &mut Output) {
        let Some(link) = self.links.all.get_mut(&id) else { return };
        link.pinged_at = Some(now.monotonic);
        let number = self.detector.on_ping(now.monotonic, id.node);
        let encoder = &mut self.encoder;
        out.deliver(connection, false, |bytes| Ping.encode(encoder, Kind::PING, number, bytes));
    }

    fn call(&mut self, id: LinkId, out: &mut Output) {
        let Some((host, port)) = self.address(id) else { return };
        let Some(link) = self.links.all.get_mut(&id) else { return };
        self.links.next_dial += 1;
        let dial = DialId(self.links.next_dial);
        link.state = State::Calling(dial);
        self.links.dials.insert(dial, id);
        out.dials.push(Dial { id: dial, host, port });
    }

    /// Where to call. `None` for a seed that isn't needed, since its node has been reached.
    pub(super) fn address(&self, id: LinkId) -> Option<(Arc<str>, u16)> {
        if id.node == NodeId(0) {
            let reached = self
                .links
                .all
                .iter()
                .any(|(link, state)| link.node != NodeId(0) && matches!(state.state, State::Up(_)));
            let (host, port) = self.links.seeds[usize::from(id.shard.0)].clone();
            let taught = self.links.all.get(&id).and_then(|link| link.port);
            return (!reached).then(|| (host, taught.unwrap_or(port)));
        }
        let oneself = &self.view.member(id.node)?.oneself;
        let link = self.links.all.get(&id)?;
        let own = link.port.or_else(|| oneself.shard_ports.get(usize::from(id.shard.0)).copied());
        let port = own.filter(|_| !link.try_ordinary).unwrap_or(oneself.ordinary_port);
        Some((oneself.host.clone(), port))
    }

    /// A call went through: say who calls.
    pub(super) fn on_reached(&mut self, now: Now, connection: ConnectionId, dial: DialId, out: &mut Output) {
        let Some(id) = self.links.dials.remove(&dial) else { return out.closes.push(connection) };
        let Some(link) = self.links.all.get_mut(&id) else { return out.closes.push(connection) };
        if link.state != State::Calling(dial) {
            // The other end called in the meantime.
            return out.closes.push(connection);
        }
        link.state = State::Greeting { connection, since: now.monotonic };
        self.sessions.insert(connection, Session::Called(id));
        out.limits.push((connection, self.options.peer_limits()));
        let oneself = &self.view.myself().oneself;
        let hello = Hello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            role: Role::Peer,
            cluster: self.view.cluster.0,
            secret: &self.options.secret,
            software: &self.options.software,
            peer: PeerHello {
                node: self.view.me.0,
                incarnation: oneself.incarnation.0,
                shard: self.options.shard.0,
                shards: self.options.shards,
                target_node: id.node.0,
                target_shard: if id.node == NodeId(0) { 0 } else { id.shard.0 },
                shard_ports: Ports::Slice(&oneself.shard_ports),
                ordinary_port: oneself.ordinary_port,
                life: oneself.life,
                serving: oneself.serving,
            },
        };
        let encoder = &mut self.encoder;
        out.deliver(connection, false, |bytes| hello.encode(encoder, 0, bytes));
    }

    /// Nobody was there.
    pub(super) fn on_dial_failed(&mut self, now: Now, dial: DialId) {
        if let Some(id) = self.links.dials.remove(&dial) {
            self.pause(now, id, |state| state == State::Calling(dial));
        }
    }

    /// Call again later, if the link is still in the state that failed.
    fn pause(&mut self, now: Now, id: LinkId, is_the_failed: impl FnOnce(State) -> bool) {
        let Some(link) = self.links.all.get_mut(&id) else { return };
        if !is_the_failed(link.state) {
            return;
        }
        if self.view.member(id.node).is_some_and(Member::is_removed) {
            // Nobody to be called any more.
            self.links.all.remove(&id);
            return;
        }
        // Between half and all of it, so that nodes which lost one another don't call in chorus.
        let pause = link.backoff.0 / 2 + self.prng.below(link.backoff.0 / 2 + 1);
        link.state = if id.node == NodeId(0) || self.view.me < id.node {
            State::Pausing(now.monotonic + Duration(pause))
        } else {
            State::Awaiting(Some(now.monotonic + Duration(pause)))
        };
        link.backoff = link.backoff.doubled_up_to(BACKOFF_MAX);
        link.port = None;
        link.try_ordinary = !link.try_ordinary;
    }

    /// Whoever was called answers.
    pub(super) fn on_welcome(
        &mut self,
        now: Now,
        connection: ConnectionId,
        called: LinkId,
        frame: &Frame<'_>,
        out: &mut Output,
    ) {
        let welcome = (frame.header.kind == Kind::WELCOME).then(|| Welcome::parse(frame).ok()).flatten();
        let Some(welcome) = welcome else {
            // A refusal: wrong cluster, wrong secret, not the node that was meant. Call again later.
            self.counters.frames_refused += 1;
            self.on_refused(called, frame, out);
            return self.close(now, connection, out);
        };
        let node = NodeId(welcome.node);
        let meant = called.node == NodeId(0) || called.node == node;
        let foreign =
            welcome.cluster != self.view.cluster.0 && !self.failpoints.planted(Bug::AnyClusterIsMine);
        let speaks = (PROTOCOL_MIN..=PROTOCOL_MAX).contains(&welcome.protocol);
        if foreign || !meant || !speaks || node == self.view.me {
            self.counters.frames_refused += 1;
            return self.close(now, connection, out);
        }
        let target = if called.node == NodeId(0) { ShardId(0) } else { called.shard };
        if welcome.shard != target.0 {
            // The ordinary port led to another shard; now the right one's own port is known.
            if let Some(link) = self.links.all.get_mut(&called) {
                link.port = welcome.shard_ports.iter().nth(usize::from(target.0));
                link.state = State::Pausing(now.monotonic);
                link.try_ordinary = false;
            }
            self.sessions.insert(connection, Session::Leaving);
            return out.closes.push(connection);
        }
        if called.node == NodeId(0)
            && let Some(seed) = self.links.all.get_mut(&called)
        {
            // From now on this is a link like the others; the seed is called again if all are lost.
            seed.state = State::Pausing(now.monotonic + BACKOFF_MAX);
        }
        let link = LinkId { node, shard: target };
        self.sessions.insert(connection, Session::Peer(link));
        self.on_link_up(now, link, connection, (welcome.incarnation, welcome.life), out);
    }

    /// A link stands, whoever called. The newest connection is the link.
    pub(super) fn on_link_up(
        &mut self,
        now: Now,
        id: LinkId,
        connection: ConnectionId,
        process: (u64, u64),
        out: &mut Output,
    ) {
        let link = self.links.all.entry(id).or_insert_with(|| Link::new(State::Awaiting(None)));
        let before = std::mem::replace(&mut link.state, State::Up(connection));
        link.process = process;
        link.backoff = BACKOFF_MIN;
        link.pinged_at = None;
        link.try_ordinary = false;
        if let State::Up(older) | State::Greeting { connection: older, .. } = before
            && older != connection
        {
            self.failpoints.reached(Rare::LinkReplaced);
            self.sessions.insert(older, Session::Leaving);
            out.closes.push(older);
            self.fail_all_over(now, id, out);
        }
        self.detector.on_connected(id.node);
        if self.membership.is_some() && id.shard == ShardId(0) {
            self.send_gossip(connection, Kind::GOSSIP, 0, out);
        }
    }

    /// A link's connection is gone: nothing that was asked over it will be answered.
    pub(super) fn on_link_lost(&mut self, now: Now, id: LinkId, connection: ConnectionId, out: &mut Output) {
        let was_up = self.links.connection(id) == Some(connection);
        self.pause(now, id, |state| match state {
            State::Up(current) | State::Greeting { connection: current, .. } => current == connection,
            State::Awaiting(_) | State::Pausing(_) | State::Calling(_) => false,
        });
        if !self.links.is_up(id.node) {
            self.detector.on_disconnected(id.node);
        }
        if was_up {
            self.fail_all_over(now, id, out);
        }
        if id.node != NodeId(0) && self.view.member(id.node).is_none() {
            // Nobody that this node knows: whoever it was may introduce itself again.
            self.links.all.remove(&id);
            self.detector.forget(id.node);
        }
    }

    /// What was asked over this link will not be answered.
    fn fail_all_over(&mut self, now: Now, link: LinkId, out: &mut Output) {
        self.fail_operations(now, link, out);
        self.fail_relays(link, out);
    }
}

/// Does some partition belong to shard `mine` of `my_shards` here and to shard `theirs` of `their_shards` there?
/// Partitions are dealt out by remainders, so it is a question of the greatest common divisor.
const fn shares_a_partition(mine: u16, my_shards: u16, theirs: u16, their_shards: u16) -> bool {
    let (mut a, mut b) = (my_shards, their_shards);
    while b > 0 {
        (a, b) = (b, a % b);
    }
    mine % a == theirs % a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_that_share_a_partition_are_found() {
        for (my_shards, their_shards) in [(1, 1), (2, 2), (2, 3), (4, 6), (3, 1)] {
            for mine in 0..my_shards {
                for theirs in 0..their_shards {
                    let shared = (0..1024).any(|p| p % my_shards == mine && p % their_shards == theirs);
                    let computed = shares_a_partition(mine, my_shards, theirs, their_shards);
                    assert_eq!(computed, shared, "{mine}/{my_shards} and {theirs}/{their_shards}");
                }
            }
        }
    }
}
