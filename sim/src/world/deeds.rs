//! What is done to the cluster, as far as the promises allow it.

use ringmain::id::NodeId;
use ringmain::membership::{Member, View};
use ringmain::shard::Machine;
use ringmain::time::{Duration, Instant};

use super::{At, Event, World};
use crate::deeds::{Deed, DiskFate, Ending};
use crate::disk::DiskFaults;

/// A node that was asked to stop is given so long.
const GRACE: Duration = Duration::from_secs(1);
/// A crash waits for a write to be in flight: so long between looks, and in one case of ten not at all.
const CRASH_AGAIN: Duration = Duration::from_millis(20);

impl World {
    pub(super) fn do_deed(&mut self, place: usize) {
        // One that waited for a write until the faults were over is not done any more.
        if self.now.since(Instant(0)) > self.plan.span {
            return;
        }
        let deed = self.plan.deeds[place].2.clone();
        match deed {
            Deed::Crash { node, .. } if self.waits_for_a_write(node) => {
                self.heap.plan(self.now + CRASH_AGAIN, Event::Deed(place));
            }
            Deed::Crash { node, ending } => self.crash(node, ending),
            Deed::Pause { node, lasts } => self.pause(node, lasts),
            Deed::Split { blocked } => self.network.split(&blocked),
            Deed::ClockJump { node, by_us } => self.nodes[node].wall_offset_us += by_us,
            Deed::SyncError { node } => self.set_sync_errors(node, 1.0),
            Deed::Word(word) => self.say(word),
            Deed::Clone { copied } => self.start_second(copied),
            Deed::DiskFull { node, lasts } => self.nodes[node].full_until = self.now + lasts,
        }
    }

    /// Crashes are ten times likelier while writes are in flight.
    fn waits_for_a_write(&mut self, node: usize) -> bool {
        let node = &self.nodes[node];
        let busy = node.all_running().iter().any(|running| running.syncing || !running.shard.is_drained());
        node.is_up() && !busy && self.prng.chance(0.9)
    }

    fn crash(&mut self, node: usize, end: Ending) {
        if !self.nodes[node].is_up() || self.nodes[node].ending.is_some() || self.nodes[node].is_gone {
            return;
        }
        let may_lose_all = self.may_destroy(node) && self.are_removals_known_without(node);
        if !self.plan.durable && !may_lose_all {
            // In memory mode every crash destroys copies: this one would be one too many.
            return self.pause(node, end.down);
        }
        let graceful = end.graceful && self.plan.durable && !self.nodes[node].is_paused();
        self.nodes[node].ending = Some(end);
        if graceful {
            self.stop(node);
            self.heap.plan(self.now + GRACE, Event::Kill(node, self.nodes[node].life));
        } else {
            self.end(node);
        }
    }

    /// Does somebody else who serves know who has been removed? A cluster that has forgotten all of it takes its founders'
    /// list for true, and only its operator could tell it better.
    fn are_removals_known_without(&self, node: usize) -> bool {
        let is_removed = |view: &View, id: NodeId| view.member(id).is_some_and(Member::is_removed);
        let known: Vec<NodeId> = self
            .removed
            .iter()
            .copied()
            .filter(|&id| self.views().any(|view| is_removed(view, id)))
            .collect();
        let others = self.present().into_iter().filter(|&other| other != node);
        let others = others.map(|other| &self.nodes[other]).filter(|other| other.ending.is_none());
        let views: Vec<_> = others.filter_map(|other| other.all_running().first()).collect();
        let mut views = views.iter().map(|running| running.shard.view()).filter(|view| view.is_serving());
        known.is_empty() || views.any(|view| known.iter().all(|&id| is_removed(view, id)))
    }

    /// The end of a process, and what becomes of its disk.
    pub(super) fn end(&mut self, node: usize) {
        let Some(ending) = self.nodes[node].ending.take() else { return };
        let mut fate = if self.plan.durable { ending.disk } else { DiskFate::Wiped };
        // An old disk shows what was deleted until somebody repairs it, and so does one that has lost its last records.
        let is_older = matches!(fate, DiskFate::OldImage | DiskFate::Damaged);
        let repairs = !is_older || self.plan.converges();
        if fate != DiskFate::Kept {
            // Of two that end at once in memory mode the first leaves the second.
            let is_known = !self.plan.durable || self.are_removals_known_without(node);
            if repairs && is_known && self.may_destroy(node) {
                self.count_destroyed(node);
                if fate == DiskFate::OldImage {
                    self.count_forgotten(node);
                }
            } else {
                debug_assert!(self.plan.durable, "nothing was minted since this was allowed");
                fate = DiskFate::Kept;
            }
        }
        self.nodes[node].next_disk = fate;
        self.nodes[node].reboots = ending.reboot;
        self.kill(node);
        self.set_sync_errors(node, 0.0);
        self.heap.plan(self.now + ending.down, Event::Start(node));
    }

    /// Ask a node to stop.
    fn stop(&mut self, node: usize) {
        for shard in 0..self.nodes[node].shards {
            let at = At { node, shard, life: self.nodes[node].life };
            self.handle(at, ringmain::shard::Input::Stop);
        }
    }

    pub(super) fn set_sync_errors(&mut self, node: usize, sync_error: f64) {
        let faults = DiskFaults { sync_error, torn: self.plan.torn, ..DiskFaults::default() };
        self.nodes[node].logs.iter_mut().for_each(|log| log.set_faults(faults));
    }
}
