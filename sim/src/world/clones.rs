//! Machines that should not be there: a second process under a node's name, and removed machines that come back.
//!
//! P13: a removed or cloned identity is fenced. Which of two processes is the node is decided by the core; the operator
//! stops the second one when the faults are over, and starts the first again if that was fenced.

use ringmain::id::NodeId;
use ringmain::membership::Member;
use ringmain::time::{Duration, Instant};

use super::watch::key_of;
use super::{At, Event, World};
use crate::checkers::{Promise, Violation};
use crate::disk::ShardLog;
use crate::history::Number;

/// When nothing befalls anybody any more, a name stays with one process for so long.
const STILL: Duration = Duration::from_secs(5);
/// The first process has so long until it serves again.
const RECOVERY: Duration = Duration::from_secs(20);
/// A removed machine comes back within this time.
const RETURN_WITHIN: Duration = Duration::from_secs(20);
/// Or looks again whether it may.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// When a second process served under the name of a node that had not given it up.
#[derive(Debug, Default)]
pub(super) struct Doubled {
    since: Option<Instant>,
    over: Vec<(Instant, Instant)>,
}

impl Doubled {
    fn note(&mut self, now: Instant, is_doubled: bool) {
        if is_doubled {
            self.since.get_or_insert(now);
        } else if let Some(since) = self.since.take() {
            self.over.push((since, now));
        }
    }

    /// It has come to nothing.
    fn forget(&mut self) {
        self.since = None;
    }

    /// Each time of it until now: from when, until when.
    pub(super) fn until(&self, now: Instant) -> Vec<(Instant, Instant)> {
        let lasts = self.since.map(|since| (since, now));
        self.over.iter().copied().chain(lasts).collect()
    }
}

impl World {
    /// This node's process has changed: does a second one serve under its name now? One that was turned away never does,
    /// and one that is fenced does no more.
    pub(super) fn watch_names(&mut self, node: usize) {
        let Some((first, second)) = self.plan.clone.zip(self.plan.clone_at()) else { return };
        if ![first, second].contains(&node) {
            return;
        }
        let serves = |node: usize| {
            let mut shards = self.nodes[node].all_running().iter().map(|running| running.shard.view());
            shards.any(|view| view.is_serving() && !view.is_fenced())
        };
        // The first may hold what the second lacks as long as it runs, whether it serves already or not.
        let is_doubled = serves(second) && self.nodes[first].is_up() && !self.is_fenced(first);
        self.doubled.note(self.now, is_doubled);
        let is_up = |node: usize| self.nodes[node].is_up() && !self.is_fenced(node);
        if self.is_outdated(second) {
            self.copied.forget();
        } else {
            self.copied.note(self.now, self.brings_copies && is_up(first) && is_up(second));
        }
        if self.is_fenced(node) {
            self.count_gone(node);
        } else if serves(node) && self.back.insert((node, self.nodes[node].life)) {
            self.count_back(node);
        }
    }

    /// Does this process count what it has for nothing?
    fn is_outdated(&self, node: usize) -> bool {
        let first = self.nodes[node].all_running().first();
        first.is_some_and(|running| !running.shard.view().myself().oneself.complete)
    }

    /// The node that this machine's process is, or would be.
    pub(super) fn node_of(&self, machine: usize) -> usize {
        self.plan.clone.filter(|_| self.plan.clone_at() == Some(machine)).unwrap_or(machine)
    }

    /// Is it undecided who the node is, and whose copies count? A second process that brings old copies may be it at any time;
    /// one with nothing is another matter only when it serves.
    pub(super) fn is_name_open(&self) -> bool {
        let Some((first, second)) = self.plan.clone.zip(self.plan.clone_at()) else { return false };
        let is_second_up = self.nodes[second].is_up();
        is_second_up && (self.doubled.since.is_some() || self.brings_copies || self.is_fenced(first))
    }

    fn is_fenced(&self, node: usize) -> bool {
        self.nodes[node].all_running().iter().any(|running| running.shard.view().is_fenced())
    }

    /// What a process has whose place another takes is gone with it until it is started again, if that ever happens.
    fn count_gone(&mut self, node: usize) {
        if self.fenced.insert((node, self.nodes[node].life)) {
            self.count_destroyed(node);
        }
    }

    /// Copies of an older epoch were wiped. That happens to who was never trusted with the epoch since it began, and has kept
    /// nothing; to an older disk, and to one of two processes of a name: what they have taken in before they heard so is
    /// lost (docs/adr/0013).
    pub(super) fn count_wiped(&mut self, at: At) {
        let is_one_of_two =
            self.plan.clone.zip(self.plan.clone_at()).is_some_and(|(a, b)| [a, b].contains(&at.node));
        let machine = &self.nodes[at.node];
        let is_allowed = is_one_of_two || machine.is_older || machine.loses_reads;
        for (name, seen) in self.meddler.take_wiped() {
            if let Some(key) = key_of(&name).filter(|_| is_allowed) {
                self.count_lost(at.node, key, |dot| seen.covers(dot));
            }
        }
    }

    /// What this node had when its process was fenced, or died beside another, is there again, from its log, now that it serves:
    /// one that finds another in its place may never do so, if that one leaves.
    fn count_back(&mut self, node: usize) {
        let was_fenced = self.fenced.iter().any(|(fenced, _)| *fenced == node);
        // A machine that was removed is not the node again, whatever it brings.
        if !was_fenced || self.nodes[node].is_gone {
            return;
        }
        let of_node = self.destroyed.iter().filter(|(_, nodes)| nodes.contains(&node));
        let numbers: Vec<Number> = of_node.map(|(number, _)| *number).collect();
        for number in numbers {
            // What all have forgotten meanwhile, or may have, is wiped.
            let is_of_now = self.has_newest_epoch(node, self.history.get(number).key);
            if is_of_now && self.has_stable(node, number) {
                self.returned.entry(number).or_default().insert(node);
            }
        }
    }

    /// The first process is about to die beside a second one, which may take its place then: as if it came back with
    /// another disk.
    pub(super) fn count_if_doubled(&mut self, node: usize) {
        if let Some((first, second)) = self.plan.clone.zip(self.plan.clone_at())
            && node == first
            && self.nodes[second].is_up()
        {
            self.count_gone(first);
        }
    }

    /// A second process starts under the name of a node that is up.
    pub(super) fn start_second(&mut self, copied: bool) {
        let Some((first, second)) = self.plan.clone.zip(self.plan.clone_at()) else { return };
        // An old disk shows what was deleted until somebody repairs it.
        let is_allowed = (!copied || self.plan.converges()) && self.may_destroy(first);
        // A machine that is down is replaced under its name by its crash: with another disk, or with an old one.
        if !self.nodes[first].is_up() || self.nodes[second].is_up() || !is_allowed {
            return;
        }
        self.brings_copies |= copied;
        self.nodes[second].is_damaged |= copied && self.nodes[first].is_damaged;
        if copied {
            // As it was when the first one started, or as it is now.
            let before = self.nodes[first].images.last().filter(|_| self.prng.chance(0.5)).cloned();
            let images =
                before.unwrap_or_else(|| self.nodes[first].logs.iter().map(ShardLog::image).collect());
            self.nodes[second].logs.iter_mut().zip(&images).for_each(|(log, image)| log.restore(image));
        }
        self.start(second);
    }

    /// The faults are over, and some time has passed: a name has one process that serves under it. Then the operator
    /// stops the second one for good, and starts the first again if that is fenced. Returns when all is at rest.
    pub(super) fn settle_names(&mut self, rested: Instant) -> Instant {
        let Some((first, second)) = self.plan.clone.zip(self.plan.clone_at()) else { return rested };
        if !self.nodes[second].is_up() || self.violation.is_some() {
            return rested;
        }
        let before = self.incarnation_of(first);
        self.run_until(rested + STILL);
        if self.violation.is_some() {
            return self.now;
        }
        let serve = [first, second].into_iter().filter(|&node| self.serves(node)).count();
        let id = self.id_of(first);
        let is_removed = self.views().filter_map(|view| view.member(id)).any(Member::is_removed);
        if serve != usize::from(!is_removed) || self.incarnation_of(first) != before {
            let name = &self.nodes[first].name;
            self.break_membership(format!(
                "of two processes under the name {name} {serve} serve, or they take the node from one another"
            ));
            return self.now;
        }
        self.count_gone(second);
        self.kill(second);
        if self.is_fenced(first) {
            self.kill(first);
            self.start(first);
        }
        self.run_until(self.now + RECOVERY);
        self.now
    }

    /// The greatest incarnation that anybody knows of a node.
    fn incarnation_of(&self, node: usize) -> u64 {
        let id = self.id_of(node);
        let members = self.views().filter_map(|view| view.member(id));
        members.map(|member| member.oneself.incarnation.0).max().unwrap_or(0)
    }

    fn serves(&self, node: usize) -> bool {
        self.nodes[node].all_running().first().is_some_and(|running| running.shard.view().is_serving())
    }

    /// Whoever has heard that another took its name over says nothing in that name any more.
    pub(super) fn check_not_fenced(&mut self, at: At, deed: &str) {
        if self.nodes[at.node].running(at.shard).shard.view().is_fenced() {
            let name = &self.nodes[at.node].name;
            self.break_membership(format!("a process of the name {name} that was fenced {deed}"));
        }
    }

    /// A machine that the operator has removed comes back some time: with its disk, or with another one.
    pub(super) fn plan_return(&mut self, node: usize) {
        if !self.plan.returns {
            return;
        }
        if self.prng.chance(0.5) {
            self.nodes[node].logs.iter_mut().for_each(ShardLog::wipe);
        }
        let after = Duration(self.prng.below(RETURN_WITHIN.0));
        self.heap.plan(self.now + after, Event::Return(node));
    }

    /// Not before all who are up have heard that it was removed: until then it would be a member like any other. Nor where all
    /// have forgotten that there was such a machine.
    pub(super) fn come_back(&mut self, node: usize) {
        let id = self.id_of(node);
        let counts = |member: &Member| !member.is_removed();
        let is_known = self.views().all(|view| !view.member(id).is_some_and(counts));
        let is_remembered = self.views().any(|view| view.member(id).is_some_and(Member::is_removed));
        if is_known && is_remembered && self.removal_is_settled(id) {
            self.nodes[node].is_back = true;
            self.start(node);
        } else if self.now.since(Instant(0)) < self.plan.span {
            self.heap.plan(self.now + LOOK_AGAIN, Event::Return(node));
        }
    }

    /// Somebody who serves works by a ring without it.
    fn removal_is_settled(&self, id: NodeId) -> bool {
        self.views()
            .any(|view| view.is_serving() && view.ring.members().iter().all(|member| member.node != id))
    }

    /// At rest no machine that was removed serves, however it came back.
    pub(super) fn check_removed_are_out(&mut self) {
        for node in 0..self.plan.machines() {
            if self.nodes[node].is_back && self.serves(node) {
                let name = &self.nodes[node].name;
                self.break_membership(format!("{name} was removed, came back, and serves"));
            }
        }
    }

    fn break_membership(&mut self, sentence: String) {
        let (promise, operations) = (Promise::Membership, Vec::new());
        self.violation.get_or_insert(Violation { promise, key: None, sentence, operations });
    }
}
