//! The end of a run: faults stop, the cluster comes to rest, and somebody looks at what is left.

use std::collections::{BTreeSet, VecDeque};

use ringmain::time::{Duration, Instant};

use super::process::COMPARE_EVERY;
use super::{Event, World};
use crate::checkers::{self, Evidence, Violation};
use crate::clients::{Client, Intent};
use crate::history::{Key, Number};

/// After the faults the cluster is given so long until it must serve again: a link that was lost in one direction is
/// given up after ten seconds, and called anew after two.
const RECOVERY: Duration = Duration::from_secs(20);
/// A change of the ring that is under way comes to its end in this time too: four steps of some seconds, and streaming.
const RECOVERY_OF_RING: Duration = Duration::from_secs(45);
/// Reads and writes of everybody take no longer.
///
/// Together with the recovery that is enough for anti-entropy alone. Links stand 12 s after the faults. A shard compares
/// itself with one peer in 1.1 s, so with all six of the largest cluster in 7 s, and it takes a second more to move what
/// differs. After one such cycle of everybody each primary has what any other had, or was sent it in the next: two
/// cycles, 16 s.
const INSPECTION: Duration = Duration::from_secs(12);
/// A raise has reached all in this time.
const RAISE_MAX: Duration = Duration::from_secs(5);
/// Cycles of anti-entropy that must move nothing when all has converged.
const QUIET_CYCLES: u64 = 3;
/// Between two reads of one key: a read that found somebody stale repairs it within a tenth of a second.
const REPAIR: Duration = Duration::from_millis(250);

impl World {
    /// The whole run: work under faults, recovery, inspection.
    pub fn run(&mut self) {
        let end = Instant(0) + self.plan.span;
        self.run_until(end);
        self.stop_faults();
        let rested = end + if self.plan.spares > 0 { RECOVERY_OF_RING } else { RECOVERY };
        self.run_until(rested);
        let rested = self.settle_names(rested);
        self.note_removed();
        self.check_removed_are_out();
        self.inspect();
        self.run_until(rested + INSPECTION);
        if self.plan.anti_entropy {
            self.watch_silence();
        }
        // Somebody may just be raising an epoch.
        let end = self.now + RAISE_MAX;
        while self.now < end && self.is_raising() {
            self.run_until(self.now + Duration::from_millis(10));
        }
    }

    /// All has converged, and nobody writes: anti-entropy must find nothing any more.
    fn watch_silence(&mut self) {
        let before = self.repaired();
        // A round is up to a tenth late.
        let round = Duration(COMPARE_EVERY.0 / 10 * 11);
        let cycle = round.0 * (self.plan.machines() as u64 - 1);
        self.run_until(self.now + Duration(QUIET_CYCLES * cycle));
        self.moved = self.repaired() - before;
    }

    /// Is the epoch of some key's partition not the same on all its primaries?
    fn is_raising(&self) -> bool {
        let epochs = self.epochs(&self.owners());
        epochs.values().any(|epochs| epochs.iter().any(|(_, epoch)| *epoch != epochs[0].1))
    }

    /// States that anti-entropy has moved, by all counts.
    fn repaired(&self) -> u64 {
        let shards = self.nodes.iter().flat_map(super::Node::all_running);
        shards.map(|running| running.shard.keys_repaired()).sum()
    }

    /// Nothing goes wrong from here on; what is down comes back.
    fn stop_faults(&mut self) {
        self.network.calm();
        self.meddler.calm();
        for node in 0..self.nodes.len() {
            self.nodes[node].full_until = self.now;
            self.set_sync_errors(node, 0.0);
            self.resume_now(node);
        }
        if self.plan.power_loss {
            (0..self.plan.machines()).for_each(|node| self.lose_power(node));
        }
        for node in 0..self.plan.machines() {
            // One that was asked to stop would come back when it likes; one that can't sync, never.
            if self.nodes[node].ending.is_some() || self.nodes[node].is_poisoned() {
                self.lose_power(node);
            }
            if !self.nodes[node].is_up() {
                // Not all in one instant.
                let after = Duration(self.prng.below(Duration::from_secs(1).0));
                self.heap.plan(self.now + after, Event::Start(node));
            }
        }
    }

    /// Look at all that the run has left.
    pub fn check(&self) -> Option<Violation> {
        let mut members = self.members();
        members.retain(|member| !self.is_forgotten(*member));
        let primaries = self.owners();
        let removed: Vec<_> = self.removed.iter().copied().collect();
        let epochs = self.epochs(&primaries);
        let (copies, opinions) = (self.copies(&primaries), self.opinions());
        let strays = self.strays();
        let (settled, replicas) = (self.settled(), self.plan.replicas());
        let doubled = self.doubled.until(self.now);
        let destroyed = self.destroyed.iter().map(|(number, nodes)| (*number, nodes.len() as u8)).collect();
        let none = BTreeSet::new();
        let lost = |(number, nodes): (&Number, &BTreeSet<usize>)| {
            let returned = self.returned.get(number).unwrap_or(&none);
            (*number, nodes.difference(returned).count() as u8)
        };
        let lost = self.destroyed.iter().map(lost).collect();
        let copied = self.copied.until(self.now);
        let (roots, accounts) = (self.roots(&primaries), self.accounts());
        let beside_evicted = self.keys_beside_evicted();
        let evidence = Evidence {
            history: &self.history,
            dots: &self.dots,
            primaries: &primaries,
            copies: &copies,
            opinions: &opinions,
            members: &members,
            removed: &removed,
            intruder: self.plan.intruder(),
            destroyed: &destroyed,
            lost: &lost,
            doubled: &doubled,
            copied: &copied,
            roots: &roots,
            accounts: &accounts,
            settled: &settled,
            reaped: &self.reaped,
            evicted: &self.evicted,
            beside_evicted: &beside_evicted,
            declined: &self.declined,
            epochs: &epochs,
            applications: &self.plan.keys,
            replicas,
            converges: self.plan.converges(),
            moved: self.moved,
            strays: &strays,
            steady_clocks: !self.plan.jumps_clocks(),
        };
        checkers::check_all(&evidence).or_else(|| self.check_drained())
    }

    /// The shortest history that shows a violation.
    pub fn story(&self, violation: &Violation) -> String {
        checkers::story::tell(&self.history, &self.dots, violation)
    }

    /// Whatever was to become of the disk becomes of it, and no more.
    fn lose_power(&mut self, node: usize) {
        self.nodes[node].ending = None;
        self.kill(node);
    }

    /// Every node is asked to write something and every key is written, then everything is read until nobody can be
    /// stale.
    fn inspect(&mut self) {
        let (keys, present) = (self.plan.keys.len(), self.present());
        let nodes = present.len();
        let replicas = self.plan.replicas();
        let mut scripts: Vec<VecDeque<(Duration, Intent)>> = vec![VecDeque::new(); nodes];
        let untouched = Key(keys as u8);
        scripts
            .iter_mut()
            .for_each(|script| script.push_back((REPAIR, Intent::read_all(untouched, replicas, true))));
        // Half of the keys are only read from here on: nothing but repair makes their replicas equal.
        for key in (0..keys).filter(|key| key % 2 == 0) {
            scripts[key % nodes].push_back((REPAIR, Intent::read_all(Key(key as u8), replicas, true)));
        }
        for (node, script) in scripts.into_iter().enumerate() {
            self.add_inspector(present[node], script, self.now);
        }
        let reads = (0..2 * keys).map(|turn| Intent::read_all(Key((turn % keys) as u8), replicas, false));
        let script = reads.map(|read| (REPAIR, read)).collect();
        let last = present[self.prng.below(nodes as u64) as usize];
        self.add_inspector(last, script, self.now + Duration(INSPECTION.0 / 2));
    }

    fn add_inspector(&mut self, node: usize, script: VecDeque<(Duration, Intent)>, at: Instant) {
        let number = self.clients.len() as u32;
        let prng = self.prng.split();
        let inspector = Client::with_script(number, &self.plan, prng, node, script);
        self.add_client(inspector, at);
    }
}
