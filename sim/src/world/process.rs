//! Nodes: their processes, their disks, and how they die and come back.

use std::collections::VecDeque;
use std::sync::Arc;

use ringmain::failpoint::{Failpoints, Rare};
use ringmain::id::ShardId;
use ringmain::membership::{Founder, Founders, Membership, MembershipOptions, Place, cluster_id};
use ringmain::prng::Prng;
use ringmain::ring::Partitions;
use ringmain::shard::{Input, Machine, Output, Record, Shard, ShardOptions};
use ringmain::storage::log::Geometry;
use ringmain::time::{Duration, Instant};
use ringmain_schema::peer::Gossip;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::carry::{FIRST_PORT, ORDINARY_PORT};
use super::once::Known;
use super::stable::Stable;
use super::{At, Event, NAMES, World};
use crate::checkers::{Promise, Violation};
use crate::deeds::{DiskFate, Ending};
use crate::disk::{DiskFaults, DiskImage, ShardLog};
use crate::history::Key;
use crate::meddler::Meddler;
use crate::network::End;
use crate::plan::{Plan, REPLICAS};

/// Primaries compare their hash trees so often.
pub(super) const COMPARE_EVERY: Duration = Duration::from_secs(1);
/// No request is given longer: its clients ask for less than two seconds.
const BUDGET_MAX: Duration = Duration::from_secs(3);
/// Each partition is looked at so often for what may be forgotten.
const REAP_EVERY: Duration = Duration::from_secs(1);
/// Q: few, since a run has few keys.
pub(super) const PARTITIONS: u32 = 16;
/// The founders' names come first.
const FOUNDERS_MAX: usize = 7;
/// Of a segment of a log: small, so that a run fills several.
const SEGMENT_BYTES: u32 = 512 << 10;
/// Room for a run's records many times over: a full disk is a deed of its own.
const SEGMENTS: u32 = 1 << 10;
/// A node's monotonic clock says this when its machine has just started.
const MONOTONIC_START: Duration = Duration::from_secs(1);

/// A machine with a disk, and sometimes a process.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: Arc<str>,
    /// Its address: its name, unless that is another's too.
    pub host: Arc<str>,
    /// How many shards it has.
    pub shards: u16,
    /// Counts its processes.
    pub life: u32,
    /// Its wall clock is so far from the true one.
    pub wall_offset_us: i64,
    /// Its disk takes nothing until then.
    pub full_until: Instant,
    /// One log a shard.
    pub logs: Vec<ShardLog<Meddler>>,
    /// It is of another cluster, or doesn't know this one's secret.
    pub is_stranger: bool,
    /// It finds the cluster by seeds, and holds nothing until the operator lets it join.
    pub is_guest: bool,
    /// It and its disk are lost to the cluster for good.
    pub is_gone: bool,
    /// Though it is, it has come back.
    pub(super) is_back: bool,
    /// Its disk as it was at each start, if the plan has a use for that.
    pub(super) images: Vec<Vec<DiskImage>>,
    /// What becomes of its disk before its next start.
    pub(super) next_disk: DiskFate,
    /// Some sectors of its disk were wrong once. Each start finds them, until they are written to; and an image has them still.
    pub(super) is_damaged: bool,
    /// Its disk is, or was, an older one: what was written to it since may be of an epoch that was over.
    pub(super) is_older: bool,
    /// Some record of its logs could not be read again while it served.
    pub(super) loses_reads: bool,
    /// How its process is about to end.
    pub(super) ending: Option<Ending>,
    /// Its machine is restarting too.
    pub(super) reboots: bool,
    running: Vec<Running>,
    paused_until: Option<Instant>,
    held: VecDeque<Event>,
    /// It went on after its last pause.
    pub(super) resumed: Instant,
    /// What its logs are certain to show after a crash.
    pub(super) stable: Stable,
    /// The writes that its process must recognise.
    pub(super) known: Known,
    /// When its machine started.
    origin: Instant,
}

/// A shard of a process.
#[derive(Debug)]
pub(super) struct Running {
    /// The very shard of the server.
    pub shard: Shard<Meddler>,
    /// Its log takes nothing, and it knows.
    pub refused: bool,
    /// A sync is under way.
    pub syncing: bool,
    /// The tick that was planned for it.
    pub tick_at: Option<Instant>,
}

/// All nodes of a plan, none of them started; the stranger comes last.
pub(super) fn nodes(plan: &Plan, prng: &mut Prng, meddler: &Meddler) -> Vec<Node> {
    let faults = DiskFaults { torn: plan.torn, ..DiskFaults::default() };
    let geometry = Geometry::new(SEGMENT_BYTES, SEGMENTS).expect("both are within their limits");
    let mut node = |name: &str, shards: u16, is_stranger, is_guest| Node {
        name: name.into(),
        host: name.into(),
        shards,
        life: 0,
        wall_offset_us: prng.below(100_000) as i64 - 50_000,
        full_until: Instant(0),
        logs: (0..shards).map(|_| ShardLog::new(geometry, faults, prng.split(), meddler.clone())).collect(),
        is_stranger,
        is_guest,
        is_gone: false,
        is_back: false,
        images: Vec::new(),
        next_disk: DiskFate::Kept,
        is_damaged: false,
        is_older: false,
        loses_reads: false,
        ending: None,
        reboots: false,
        running: Vec::new(),
        paused_until: None,
        held: VecDeque::new(),
        resumed: Instant(0),
        stable: Stable::default(),
        known: Known::default(),
        origin: Instant(0),
    };
    let mut nodes: Vec<Node> =
        NAMES[..plan.nodes].iter().map(|name| node(name, plan.shards, false, false)).collect();
    let spares = NAMES[FOUNDERS_MAX..].iter().take(plan.spares);
    nodes.extend(spares.map(|name| node(name, plan.shards, false, true)));
    if let Some(of) = plan.clone {
        nodes.push(Node { host: "second".into(), ..node(NAMES[of], plan.shards, false, false) });
    }
    if plan.stranger {
        nodes.push(node("stranger", 1, true, true));
    }
    nodes
}

impl Node {
    pub(super) fn is_up(&self) -> bool {
        !self.running.is_empty()
    }

    pub(super) const fn is_paused(&self) -> bool {
        self.paused_until.is_some()
    }

    /// A shard of the process, which is up.
    pub(super) fn running(&mut self, shard: u16) -> &mut Running {
        &mut self.running[usize::from(shard)]
    }

    pub(super) fn all_running(&self) -> &[Running] {
        &self.running
    }

    /// Keep an event until the process goes on.
    pub(super) fn hold(&mut self, event: Event) {
        self.held.push_back(event);
    }

    pub(super) fn monotonic(&self, now: Instant) -> Instant {
        Instant(0) + MONOTONIC_START + now.since(self.origin)
    }

    pub(super) fn to_global(&self, monotonic: Instant) -> Instant {
        self.origin + monotonic.since(Instant(0) + MONOTONIC_START)
    }

    /// All that its shards have appended is on stable storage.
    pub(super) fn is_synced(&self) -> bool {
        self.logs.iter().all(|log| !log.is_poisoned() && log.durable() == log.last())
    }

    pub(super) fn is_poisoned(&self) -> bool {
        self.logs.iter().any(ShardLog::is_poisoned)
    }
}

impl World {
    /// The name of a key on the wire.
    pub(crate) fn key_name(key: Key) -> [u8; 2] {
        [b'k', b'0' + key.0]
    }

    fn founders(&self, node: usize) -> Founders {
        let me = &self.nodes[node].name;
        if self.nodes[node].is_guest {
            return Founders::default();
        }
        let list = self.nodes[..self.plan.nodes].iter();
        let list = list.map(|other| Founder {
            name: other.name.clone(),
            host: other.host.clone(),
            port: ORDINARY_PORT,
        });
        Founders::new(list.collect(), me).expect("names and addresses differ")
    }

    fn membership(&self, node: usize, remembered: Option<&Gossip>) -> Membership<Meddler> {
        let Node { name, host, shards, is_stranger, is_guest, life, .. } = &self.nodes[node];
        let rack = self.plan.rack(node).filter(|_| !is_stranger);
        let place = Place {
            host: host.clone(),
            ordinary_port: ORDINARY_PORT,
            shard_ports: (0..*shards).map(|shard| FIRST_PORT + shard).collect(),
            weight: ringmain::ring::WEIGHT_ORDINARY,
            data_center: "".into(),
            rack: rack.map_or_else(String::new, |rack| format!("r{rack}")).into(),
        };
        let founders = self.founders(node);
        let cluster = if *is_stranger && !self.plan.has_secret {
            cluster_id("another", NAMES[..self.plan.nodes].iter().copied())
        } else {
            self.cluster
        };
        let options = MembershipOptions { partitions: partitions(), replicas: REPLICAS };
        let meddler = self.meddler.clone();
        let mut membership =
            Membership::with_failpoints(cluster, name, place, &founders, *is_guest, options, meddler);
        // As good as drawn: never the same for two processes, and in no order.
        let drawn = xxh3_64_with_seed(&life.to_le_bytes(), node as u64 ^ self.plan.seed).max(1);
        membership = membership.with_life(drawn);
        if let Some(remembered) = remembered {
            membership.recover(remembered);
        }
        membership
    }

    fn shard_options(&self, node: usize, shard: u16) -> ShardOptions {
        let mut options = ShardOptions::single("simulated");
        (options.shard, options.shards) = (ShardId(shard), self.nodes[node].shards);
        (options.read, options.write) = (self.plan.read, self.plan.write);
        let is_stranger = self.nodes[node].is_stranger;
        options.secret = if is_stranger { self.plan.guess() } else { self.plan.secret() }.into();
        options.durable = self.plan.durable;
        options.budget_max = BUDGET_MAX;
        options.anti_entropy = self.plan.anti_entropy.then_some(COMPARE_EVERY);
        options.reap = self.plan.reaping.then_some(REAP_EVERY);
        options.hint_bytes_max = self.plan.hint_bytes_max;
        options.memory_max = self.plan.memory_max;
        if self.plan.small_tables {
            options.operations_max = 3;
        }
        options
    }

    /// A node's process starts from what its disk holds.
    pub(super) fn start(&mut self, node: usize) {
        let machine = &self.nodes[node];
        if machine.is_up() || (machine.is_gone && !machine.is_back) {
            return;
        }
        let fate = self.prepare_disk(node);
        self.nodes[node].life += 1;
        if std::mem::take(&mut self.nodes[node].reboots) {
            self.nodes[node].origin = self.now;
        }
        let wall = self.clocks(node).wall;
        self.meddler.set_wall(wall);
        let mut logs = std::mem::take(&mut self.nodes[node].logs);
        if self.plan.restores_images() {
            let image = logs.iter().map(ShardLog::image).collect();
            self.nodes[node].images.push(image);
        }
        let mut records: Vec<Vec<(u64, Vec<u8>)>> = logs.iter_mut().map(ShardLog::reopen).collect();
        let has_lost = self.has_lost(node, &logs);
        let damaged: Vec<bool> = logs.iter().map(|log| !log.report().is_clean()).collect();
        if logs.iter().any(|log| log.refusal().is_some()) {
            // A node doesn't start from a log that it can't read: the operator empties its directory.
            logs.iter_mut().for_each(ShardLog::wipe);
            records = logs.iter_mut().map(ShardLog::reopen).collect();
        }
        let all = || records.iter().flatten().map(|(_, record)| record);
        self.nodes[node].stable = Stable::of(all());
        let kept = fate == DiskFate::Kept && self.plan.durable;
        self.nodes[node].known.restart(kept, all());
        let remembered = records[0].iter().rev().find_map(|(_, record)| match Record::parse(record) {
            Ok(Record::Members(members)) => Some(members),
            _ => None,
        });
        for (shard, records) in (0..).zip(&records) {
            let membership = self.membership(node, None);
            let options = self.shard_options(node, shard);
            let (prng, meddler) = (self.prng.split(), self.meddler.clone());
            // The stranger takes this cluster's addresses for its own cluster's.
            let seeds: Vec<_> = if self.nodes[node].is_guest {
                self.nodes[..self.plan.nodes].iter().map(|seed| (seed.name.clone(), ORDINARY_PORT)).collect()
            } else {
                Vec::new()
            };
            let mut started = Shard::with_failpoints(options, membership, &seeds, prng, meddler);
            for (sequence, record) in records {
                let record = Record::parse(record).expect("a log keeps what it was given");
                started.recover_record(&record, *sequence).expect("a log keeps what it was given");
                logs[usize::from(shard)].on_recovered(record.is_marker(), started.take_dead());
            }
            if damaged[usize::from(shard)] {
                started.doubt_copies();
            }
            started.recovered_through(logs[usize::from(shard)].last());
            if remembered.is_some() || has_lost {
                let mut membership = self.membership(node, remembered.as_ref());
                if has_lost {
                    membership.lose_records();
                }
                started.remember(membership);
            }
            let running = Running { shard: started, refused: false, syncing: false, tick_at: None };
            self.nodes[node].running.push(running);
        }
        self.nodes[node].logs = logs;
        self.open_ports(node);
    }

    /// Is something of what was durable lost? A crash tears what was not synced, and a log tells that from damage.
    fn has_lost(&mut self, node: usize, logs: &[ShardLog<Meddler>]) -> bool {
        let refused = logs.iter().find_map(ShardLog::refusal).map(ToString::to_string);
        let damaged = || logs.iter().find(|log| !log.report().is_clean()).map(|log| log.report().to_string());
        let Some(told) = refused.or_else(damaged) else { return false };
        if self.nodes[node].is_damaged {
            Failpoints::reached(&self.meddler, Rare::DamageFound);
            return true;
        }
        let sentence = format!("node {node} was told of damage where there was none: {told}");
        let (promise, operations) = (Promise::Durability, Vec::new());
        self.violation.get_or_insert(Violation { promise, key: None, sentence, operations });
        true
    }

    /// The first tick of each shard: what it appends is on stable storage before anybody is let in.
    fn open_ports(&mut self, node: usize) {
        let now = self.clocks(node);
        for shard in 0..self.nodes[node].shards {
            let at = At { node, shard, life: self.nodes[node].life };
            let mut out = Output::default();
            let running = self.nodes[node].running(shard);
            running.shard.handle(now, Input::Tick, &mut out);
            // Nothing else is under way: the sync happens now.
            running.syncing = true;
            self.carry_out(at, &mut out);
            let log = &mut self.nodes[node].logs[usize::from(shard)];
            if log.last() > log.durable() {
                self.sync(at);
            }
            self.nodes[node].running(shard).syncing = false;
            self.plan_tick(at);
        }
    }

    /// What happened to the disk while the node was down, as far as the promises allow it.
    fn prepare_disk(&mut self, node: usize) -> DiskFate {
        let fate = std::mem::replace(&mut self.nodes[node].next_disk, DiskFate::Kept);
        let node = &mut self.nodes[node];
        match fate {
            DiskFate::Kept => {}
            DiskFate::Wiped => {
                node.logs.iter_mut().for_each(ShardLog::wipe);
                node.is_older = false;
            }
            DiskFate::Damaged => {
                let log = self.prng.below(node.logs.len() as u64) as usize;
                node.logs[log].damage(&mut self.prng);
                node.is_damaged = true;
            }
            DiskFate::OldImage => {
                // Any of them: that of the last start is of a life whose number the next one takes again, for all
                // that the disk knows.
                let drawn = self.prng.below(node.images.len() as u64) as usize;
                node.is_older = true;
                if let Some(images) = node.images.get(drawn) {
                    node.logs.iter_mut().zip(images).for_each(|(log, image)| log.restore(image));
                }
            }
        }
        fate
    }

    /// A process dies, and its machine with it or not; connections break.
    pub(super) fn kill(&mut self, node: usize) {
        if !self.nodes[node].is_up() {
            return;
        }
        self.count_if_doubled(node);
        let life = self.nodes[node].life;
        self.nodes[node].running.clear();
        self.nodes[node].held.clear();
        self.nodes[node].paused_until = None;
        self.watch_names(node);
        let mut prng = self.prng.split();
        self.nodes[node].logs.iter_mut().for_each(|log| log.crash(&mut prng));
        let is_mine = |end: End| matches!(end, End::Shard { node: n, life: l, .. } if (n, l) == (node, life));
        for side in self.network.open_sides(is_mine) {
            self.network.close(side);
            self.unanswered.forget(side);
            self.reset(side);
        }
    }

    pub(super) fn pause(&mut self, node: usize, lasts: Duration) {
        let until = self.now + lasts;
        if self.nodes[node].is_up() && self.nodes[node].paused_until.is_none_or(|at| at < until) {
            self.nodes[node].paused_until = Some(until);
            self.heap.plan(until, Event::Resume(node));
        }
    }

    pub(super) fn resume(&mut self, node: usize) {
        if self.nodes[node].paused_until.is_none_or(|until| until > self.now) {
            return;
        }
        self.nodes[node].paused_until = None;
        self.nodes[node].resumed = self.now;
        for event in std::mem::take(&mut self.nodes[node].held) {
            self.heap.plan(self.now, event);
        }
        for shard in 0..self.nodes[node].shards {
            let at = At { node, shard, life: self.nodes[node].life };
            self.nodes[node].running(shard).tick_at = Some(self.now);
            self.heap.plan(self.now, Event::Tick(at));
        }
    }

    /// The pause is over, whenever it was to end.
    pub(super) fn resume_now(&mut self, node: usize) {
        if let Some(until) = &mut self.nodes[node].paused_until {
            *until = self.now;
            self.resume(node);
        }
    }
}

fn partitions() -> Partitions {
    Partitions::new(PARTITIONS).expect("a power of two")
}
