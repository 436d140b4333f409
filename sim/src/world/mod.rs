//! The world: nodes, network, disks, clients and time, on one thread.
//!
//! It does for many shards what a shell does for one: hands them inputs, carries out their outputs. All that happens
//! is an [`Event`] at an instant of the virtual clock; what follows from it is planned as further events.
//! Nothing here asks the machine for time, chance or anything else, so a seed has one course only, and a
//! hash over all events tells whether two runs are the same.

mod answers;
mod calls;
mod carry;
mod clones;
mod deeds;
mod departures;
mod event;
mod once;
mod operator;
mod process;
mod rest;
mod stable;
mod watch;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ringmain::causality::ContextKey;
use ringmain::failpoint::Bug;
use ringmain::id::{ClusterId, ConnectionId, NodeId, ShardId};
use ringmain::membership::cluster_id;
use ringmain::prng::Prng;
use ringmain::shard::{Input, Machine, Output};
use ringmain::time::{Duration, Instant, Now, WallTime};
use ringmain_schema::message::ErrorAnswer;
use ringmain_schema::{Frame, Kind};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::checkers::{Reaped, Settled, Violation};
use crate::clients::Client;
use crate::dots::DotLog;
use crate::heap::Heap;
use crate::history::{History, Key, Number};
use crate::meddler::Meddler;
use crate::network::{End, Network, Side};
use crate::plan::Plan;

pub use event::{At, Event};
pub use process::Node;

/// When a run begins, by the wall clock: in 2026.
const WALL_START_US: u64 = 1_790_000_000_000_000;

/// Everything.
#[derive(Debug)]
pub struct World {
    /// What the seed decided.
    pub plan: Plan,
    /// The virtual clock.
    pub now: Instant,
    /// What the clients did and saw.
    pub history: History,
    /// What was minted.
    pub dots: DotLog,
    /// What the core hears and tells.
    pub meddler: Meddler,
    /// The first promise seen broken while the run went on.
    pub violation: Option<Violation>,
    /// A hash over all events.
    pub hash: u64,
    /// How many events there were.
    pub events: u64,
    heap: Heap<Event>,
    network: Network,
    nodes: Vec<Node>,
    clients: Vec<Client>,
    cluster: ClusterId,
    context_key: ContextKey,
    /// Nodes that were removed.
    removed: BTreeSet<NodeId>,
    /// Machines that the operator has told to leave, and when.
    leaving: BTreeMap<usize, Instant>,
    /// Nodes whose copies of a write were destroyed. Two processes under one name are one node.
    destroyed: BTreeMap<Number, BTreeSet<usize>>,
    /// Those of them that have their copies again, from the log of a process that had been fenced.
    returned: BTreeMap<Number, BTreeSet<usize>>,
    /// By key: acknowledged writes that no other acknowledged write has replaced.
    frontier: BTreeMap<Key, Vec<Number>>,
    /// Acknowledged deletes that have not settled yet.
    unsettled: Vec<Number>,
    settled: Vec<Settled>,
    /// When two processes that serve had one name.
    doubled: clones::Doubled,
    /// When the second of them waited with a copy of the first one's disk, and nobody told it that this one was there.
    copied: clones::Doubled,
    /// The second process of a name was started from a copy of the first one's disk.
    brings_copies: bool,
    /// The processes, by node and life, that were fenced.
    fenced: BTreeSet<(usize, u32)>,
    /// Processes that have served: what was counted as gone with one before it may be there again.
    back: BTreeSet<(usize, u32)>,
    /// What was forgotten.
    reaped: Vec<Reaped>,
    /// Keys that any node has put out, and when one did last.
    evicted: BTreeMap<Key, Instant>,
    /// When a shard had no room for something.
    declined: BTreeSet<Instant>,
    /// States that anti-entropy has moved since all had converged.
    moved: u64,
    unanswered: answers::Unanswered,
    prng: Prng,
    output: Output,
    /// The frame that was last held against the dot log, by where it is.
    witnessed: usize,
    trace: bool,
}

/// Odd, and of no other meaning.
const HASH_FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// The names of the nodes.
const NAMES: [&str; 9] = ["n0", "n1", "n2", "n3", "n4", "n5", "n6", "s0", "s1"];

impl World {
    /// A cluster about to start, with what the plan holds for it.
    pub fn new(plan: Plan, planted: Option<Bug>, trace: bool) -> Self {
        let mut prng = Prng::from_seed(plan.seed ^ 0x5eed);
        let cluster = cluster_id("simulated", NAMES[..plan.nodes].iter().copied());
        let meddler = Meddler::new(planted, plan.read_repair, plan.rare_choices, prng.split());
        let meddler = meddler.that_evicts(plan.evicts);
        let network = Network::new(plan.network, prng.split());
        let nodes = process::nodes(&plan, &mut prng, &meddler);
        let mut world = Self {
            now: Instant(0),
            history: History::default(),
            dots: DotLog::default(),
            meddler,
            violation: None,
            hash: plan.seed,
            events: 0,
            heap: Heap::new(),
            network,
            nodes,
            clients: Vec::new(),
            cluster,
            context_key: if plan.has_secret {
                ContextKey::from_secret(plan.secret())
            } else {
                ContextKey::from_cluster(cluster)
            },
            removed: BTreeSet::new(),
            leaving: BTreeMap::new(),
            destroyed: BTreeMap::new(),
            returned: BTreeMap::new(),
            frontier: BTreeMap::new(),
            unsettled: Vec::new(),
            settled: Vec::new(),
            doubled: clones::Doubled::default(),
            copied: clones::Doubled::default(),
            brings_copies: false,
            fenced: BTreeSet::new(),
            back: BTreeSet::new(),
            reaped: Vec::new(),
            evicted: BTreeMap::new(),
            declined: BTreeSet::new(),
            moved: 0,
            unanswered: answers::Unanswered::default(),
            prng,
            output: Output::default(),
            witnessed: 0,
            trace,
            plan,
        };
        let second = world.plan.clone_at();
        (0..world.nodes.len()).filter(|node| Some(*node) != second).for_each(|node| world.start(node));
        for number in 0..world.plan.clients {
            let client = Client::at_work(number, &world.plan, world.prng.split());
            world.add_client(client, Instant(0) + Duration::from_secs(3));
        }
        if let Some(number) = world.plan.intruder() {
            let client = Client::intruder(number, &world.plan, world.prng.split());
            world.add_client(client, Instant(0) + Duration::from_secs(3));
        }
        for (place, (_, at, _)) in world.plan.deeds.iter().enumerate() {
            world.heap.plan(*at, Event::Deed(place));
        }
        world.heap.plan(Instant(0), Event::Survey);
        world
    }

    /// Let everything happen that is planned up to `until`.
    pub fn run_until(&mut self, until: Instant) {
        while self.violation.is_none()
            && let Some((at, event)) = self.heap.pop(until)
        {
            debug_assert!(at >= self.now, "time does not run backwards");
            self.now = at;
            self.events += 1;
            let [kind, number] = event.mark();
            self.hash = (self.hash.rotate_left(7) ^ at.0 ^ (kind << 56) ^ number).wrapping_mul(HASH_FACTOR);
            if self.trace {
                self.tell(&event);
            }
            self.happen(event);
        }
        self.now = until;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick(at) => self.on_tick(at),
            Event::Frame(side, bytes) => self.on_frame(side, &bytes),
            Event::Called(side) => self.on_called(side),
            Event::Reached(side, dial) => {
                // Whoever was called may have died before its answer was here: a call ends, one way or the other.
                if let (End::Shard { node, shard, life }, false) =
                    (self.network.end(side), self.network.is_open(side))
                {
                    return self.happen(Event::DialFailed(At { node, shard, life }, dial));
                }
                self.for_shard(side, Event::Reached(side, dial), |world, at, connection| {
                    world.handle(at, Input::Opened { connection, dial: Some(dial) });
                });
            }
            Event::DialFailed(at, dial) => {
                if self.is_awake(at, || Event::DialFailed(at, dial)) {
                    self.handle(at, Input::DialFailed { dial });
                }
            }
            Event::Closed(side) => self.on_closed(side),
            Event::Sibling(at, from, message) => {
                if self.is_alive(at) {
                    if self.nodes[at.node].is_paused() {
                        self.nodes[at.node].hold(Event::Sibling(at, from, message));
                    } else {
                        self.handle(at, Input::Sibling { from: ShardId(from), message });
                    }
                }
            }
            Event::Read(at, sequence) => {
                if self.is_awake(at, || Event::Read(at, sequence)) {
                    self.read_again(at, sequence);
                }
            }
            Event::Sync(at) => {
                if self.is_awake(at, || Event::Sync(at)) {
                    self.sync(at);
                }
            }
            Event::Client(number, plan) => self.wake_client(number, plan),
            Event::Deed(number) => self.do_deed(number),
            Event::Word(word) => self.say(word),
            Event::Start(node) => self.start(node),
            Event::Return(node) => self.come_back(node),
            Event::Kill(node, life) => {
                if self.nodes[node].life == life {
                    self.end(node);
                }
            }
            Event::Resume(node) => self.resume(node),
            Event::Survey => self.survey(),
        }
    }

    /// Is this shard up in this life?
    fn is_alive(&self, at: At) -> bool {
        let node = &self.nodes[at.node];
        node.life == at.life && node.is_up()
    }

    /// Is this shard up in this life, and not paused? If it is paused, the event is held for it.
    fn is_awake(&mut self, at: At, again: impl FnOnce() -> Event) -> bool {
        if !self.is_alive(at) {
            return false;
        }
        let node = &mut self.nodes[at.node];
        if node.is_paused() {
            node.hold(again());
            return false;
        }
        true
    }

    /// Let the shard at this side of an open wire take an input, unless it is paused or gone.
    fn for_shard(&mut self, side: Side, event: Event, take: impl FnOnce(&mut Self, At, ConnectionId)) {
        let End::Shard { node, shard, life } = self.network.end(side) else { return };
        let at = At { node, shard, life };
        if self.network.is_open(side) && self.is_awake(at, || event) {
            take(self, at, side.connection());
        }
    }

    fn on_tick(&mut self, at: At) {
        // A paused shard is ticked when it goes on.
        if self.is_alive(at)
            && !self.nodes[at.node].is_paused()
            && self.nodes[at.node].running(at.shard).tick_at == Some(self.now)
        {
            self.nodes[at.node].running(at.shard).tick_at = None;
            self.handle(at, Input::Tick);
        }
    }

    fn on_frame(&mut self, side: Side, bytes: &Bytes) {
        self.hash = xxh3_64_with_seed(bytes, self.hash ^ self.now.0);
        match self.network.end(side) {
            End::Client(number) if self.network.is_open(side) => self.client_hears(number, side, bytes),
            End::Client(_) => {}
            End::Shard { node, shard, life } => {
                let at = At { node, shard, life };
                if !self.is_alive(at) || !self.network.is_open(side) {
                    return self.reset(side);
                }
                if self.is_awake(at, || Event::Frame(side, bytes.clone()))
                    && let Ok(Some(frame)) = Frame::split(bytes, bytes.len())
                {
                    self.expect_answer(side, &frame);
                    if self.plan.waits {
                        self.let_wait(at);
                    }
                    let (before, epoch) = (self.heard(at), self.epoch_for(at, &frame));
                    self.handle(at, Input::Frame { connection: side.connection(), frame });
                    let was_taken = self.learn_replaced(at, &frame, before);
                    self.check_epoch(at, &frame, epoch, was_taken);
                }
            }
        }
    }

    /// Nobody is there any more: whoever still thinks so is told, if a word gets through.
    fn reset(&mut self, side: Side) {
        let (here, there) = (self.network.end(side), self.network.end(side.other()));
        if self.network.is_open(side.other()) && !self.network.is_blocked(here, there) {
            let at = self.network.hang_up(self.now, side);
            self.heap.plan(at, Event::Closed(side.other()));
        }
    }

    fn on_called(&mut self, side: Side) {
        let End::Shard { node, shard, life } = self.network.end(side) else { return };
        let at = At { node, shard, life };
        if !self.is_alive(at) {
            self.network.close(side);
            return self.reset(side);
        }
        if self.network.is_open(side) && self.is_awake(at, || Event::Called(side)) {
            self.handle(at, Input::Opened { connection: side.connection(), dial: None });
        }
    }

    fn on_closed(&mut self, side: Side) {
        if !self.network.is_open(side) {
            return;
        }
        match self.network.end(side) {
            End::Client(number) => {
                self.network.close(side);
                self.client_lost(number, side);
            }
            End::Shard { node, shard, life } => {
                let at = At { node, shard, life };
                if self.is_awake(at, || Event::Closed(side)) {
                    self.network.close(side);
                    self.unanswered.forget(side);
                    self.handle(at, Input::Closed { connection: side.connection() });
                }
            }
        }
    }

    /// Hand a shard an input, and carry out what follows.
    fn handle(&mut self, at: At, input: Input<'_>) {
        let now = self.clocks(at.node);
        self.meddler.set_wall(now.wall);
        let mut out = std::mem::take(&mut self.output);
        self.nodes[at.node].running(at.shard).shard.handle(now, input, &mut out);
        self.log_minted(at);
        self.log_evicted(at);
        self.check_memory(at);
        self.check_given_up(at);
        self.log_reaped();
        self.count_wiped(at);
        self.carry_out(at, &mut out);
        out.clear();
        self.output = out;
        self.watch_names(at.node);
        self.plan_tick(at);
    }

    /// Every other second a shard has much to do, the shards of a node by turns.
    fn let_wait(&mut self, at: At) {
        let is_busy = (self.now.0 / Duration::from_secs(1).0 + u64::from(at.shard)).is_multiple_of(2);
        let most = if is_busy { Duration::from_millis(50) } else { Duration::from_millis(1) };
        let longest = Duration(self.prng.below(most.0));
        self.handle(at, Input::Waited { longest });
    }

    /// Both clocks of a node.
    fn clocks(&self, node: usize) -> Now {
        let node = &self.nodes[node];
        let wall = (WALL_START_US + self.now.0 / 1000) as i64 + node.wall_offset_us;
        Now { monotonic: node.monotonic(self.now), wall: WallTime(wall as u64) }
    }

    fn plan_tick(&mut self, at: At) {
        if !self.is_alive(at) {
            return;
        }
        let node = &mut self.nodes[at.node];
        let Some(due) = node.running(at.shard).shard.next_timeout() else { return };
        let due = node.to_global(due).max(self.now + Duration::from_micros(1));
        let running = node.running(at.shard);
        if running.tick_at.is_none_or(|planned| planned <= self.now || due < planned) {
            running.tick_at = Some(due);
            self.heap.plan(due, Event::Tick(at));
        }
    }

    fn tell(&self, event: &Event) {
        let told = match event {
            Event::Tick(_) | Event::Sync(_) | Event::Read(..) | Event::Survey => return,
            Event::Frame(side, bytes) => {
                let frame = Frame::split(bytes, bytes.len()).ok().flatten();
                let header = frame.as_ref().map(|frame| frame.header);
                let error = frame.as_ref().filter(|frame| frame.header.kind == Kind::ERROR);
                let said =
                    error.map_or_else(String::new, |frame| format!(" {:?}", ErrorAnswer::parse(frame)));
                let (from, to) = (self.network.end(side.other()), self.network.end(*side));
                format!("{from:?} -> {to:?}: {header:?}{said}")
            }
            Event::Deed(place) => format!("deed {:?}", self.plan.deeds[*place]),
            other => format!("{other:?}"),
        };
        println!("{:>11.6} {told}", self.now.0 as f64 / 1e9);
    }
}
