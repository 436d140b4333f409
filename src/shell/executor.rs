//! The loop of one shard: turn after turn while there is something to do, then sleep.
//!
//! A turn takes a bounded amount of everything that waits, and ends with one send for each connection and one
//! ring for each neighbour that got something. Load makes batches; but for the groups of the log nothing waits for one.
//!
//! **Going to sleep**, in exactly this order: a turn that found nothing to do, so that everything is submitted
//! and an `enter` has yielded no completion and left no work; raise `asleep`; fence; look at every inbox; sleep.
//! The sleep is one read of the doorbell's eventfd through the executor: always awaited to its end, never dropped,
//! never under a timeout. A dropped read would take the next ring with it. Timers wake the shard through the network
//! ring, which rings the doorbell. A shard that has work never yields: it is alone in its executor.

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

use glommio::io::BufferedFile;

use super::clock;
use super::doorbell::Doorbell;
use super::host::Host;
use super::net::Net;
use super::stop::Stop;
use crate::id::ShardId;
use crate::shard::{Input, Machine};
use crate::time::{Duration, Instant};

/// For other ends to take their last answers and close, when all else is done.
const LINGER: Duration = Duration::from_millis(200);

pub(super) struct ShardLoop<M> {
    pub(super) shard: ShardId,
    pub(super) doorbell: Doorbell,
    /// The executor's own descriptor of the doorbell, until it runs.
    pub(super) bell: Option<OwnedFd>,
    pub(super) net: Net,
    pub(super) host: Host<M>,
    pub(super) stop: Stop,
    /// How long to look for work before going to sleep.
    pub(super) spin: Duration,
    /// How long accepted requests may take to be answered after a stop.
    pub(super) grace: Duration,
    /// When the grace is over; `None` until the stop.
    pub(super) leave_by: Option<Instant>,
    /// When there was last something to do.
    pub(super) busy_at: Instant,
    /// When the last turn began, unless the shard has slept since.
    pub(super) turned_at: Option<Instant>,
}

impl<M: Machine> ShardLoop<M> {
    /// Serve until stopped.
    pub(super) async fn run(mut self) {
        let bell = self.bell.take().expect("a shard runs once").into_raw_fd();
        // SAFETY: the executor's file owns the descriptor from here on, and closes it.
        let bell = unsafe { BufferedFile::from_raw_fd(bell) };
        // Dropped first, so that a panic ends the process before anything that the kernel uses is dropped.
        let _whole = WholeOrNothing(self.shard);
        self.begin();
        // The machine hears of the time once, so that it can start what needs no cause. What it appends is on stable storage
        // before anybody is let in.
        self.host.take(&mut self.net, Input::Tick);
        self.host.settle_log();
        self.finish_log();
        self.net.accept();
        while !self.is_over() {
            if !self.turn() && !self.spins() && self.may_sleep() {
                bell.read_at(0, 8).await.expect("an eventfd can always be read");
                self.turned_at = None;
                self.doorbell.wake_up();
            }
        }
        self.host.stop_log();
        self.host.settle_log();
        self.finish_log();
        self.net.shut(clock::monotonic() + LINGER);
    }

    /// Go on until the log has nothing on its way.
    fn finish_log(&mut self) {
        self.host.write_log(&mut self.net);
        while self.host.is_logging() {
            self.net.wake_at(self.host.next_timeout());
            self.net.wait();
            self.turn();
        }
    }

    /// One turn. Tells whether there was anything to do.
    fn turn(&mut self) -> bool {
        let now = self.begin();
        let Self { net, host, .. } = self;
        // What this turn takes in may have come right after the last one began, and has waited for its end.
        if let Some(before) = self.turned_at.replace(now) {
            host.tell_waits(net, now.since(before));
        }
        host.tell_buffered(net);
        let mut any = net.poll(now, |net| host.take_events(net));
        any |= host.take_siblings(net);
        any |= host.take_the_rest(net);
        any |= host.write_log(net);
        host.ring_siblings();
        net.flush();
        self.take_stop();
        if any {
            self.busy_at = now;
        }
        any
    }

    fn begin(&mut self) -> Instant {
        let now = clock::now();
        self.host.set_now(now);
        now.monotonic
    }

    /// Look for work a while longer?
    fn spins(&self) -> bool {
        if self.spin == Duration::ZERO || clock::monotonic() - self.busy_at >= self.spin {
            return false;
        }
        std::hint::spin_loop();
        true
    }

    /// Prepare to sleep, and tell whether to go on with it.
    fn may_sleep(&mut self) -> bool {
        let timeout = self.host.next_timeout().into_iter().chain(self.leave_by).min();
        self.net.wake_at(timeout);
        if !self.net.is_idle() {
            return false;
        }
        self.doorbell.fall_asleep();
        let stop_unseen = self.stop.is_requested() && self.leave_by.is_none();
        if self.host.is_idle() && !stop_unseen && !self.is_over() {
            return true;
        }
        self.doorbell.wake_up();
        false
    }

    /// See to a stop: the first time, pass it on; then, tell the siblings how far we are.
    fn take_stop(&mut self) {
        if !self.stop.is_requested() {
            return;
        }
        if self.leave_by.is_none() {
            self.leave_by = Some(clock::monotonic() + self.grace);
            self.net.stop_accepting();
            self.host.take(&mut self.net, Input::Stop);
            self.host.ring_siblings();
            self.net.flush();
        }
        let drained = self.host.is_drained() && self.host.is_idle() && self.net.is_flushed();
        self.stop.set_drained(usize::from(self.shard.0), drained);
    }

    /// All is answered, or the grace is over.
    fn is_over(&self) -> bool {
        self.leave_by.is_some_and(|leave_by| self.stop.all_drained() || clock::monotonic() >= leave_by)
    }
}

/// A node with a dead shard would look alive and answer for nobody: a panic ends the whole process.
pub(super) struct WholeOrNothing(pub(super) ShardId);

impl Drop for WholeOrNothing {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("ringmain: shard {} failed (see above), so the node stops", self.0.0);
            std::process::abort();
        }
    }
}
