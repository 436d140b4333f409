//! Runs operations against a target: the pacer's thread hands them out, one task each carries them to the
//! target and back, and one loop owns all the books.
//!
//! ```text
//! pacer thread --bounded queue--> loop --a task for each operation--> target
//!                                 loop <-------- its answer ---------
//! ```
//!
//! What is in flight is bounded. Under an objective for latency an operation beyond is not sent and counts as
//! a failure, [`Failure::Unsent`], since it is the target that is so slow; the loop never waits for the target,
//! so the queue fills only if this thread lacks the processor. A replay waits instead ([`Beyond::Wait`]): it
//! asks for every operation, in the end, and not for latencies. Everything runs on the caller's thread, within
//! a `LocalSet`.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::audit::{Answer, Audit, Pending, Request, Rules};
use crate::clock::Moment;
use crate::inject::{Incidents, Mark};
use crate::intervals::{Interval, Intervals};
use crate::operation::{Kind, Operation};
use crate::outcome::{Completion, Failure, Outcome};
use crate::pacer::{Handed, Offered, Pacer};
use crate::progress::Progress;
use crate::record::Record;
use crate::target::Target;
use crate::workload::Preload;

/// Bounds of a run that are the sending side's own.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// So many operations may be in flight; more are not sent. More than the queue holds, or a moment without
    /// the processor on this side would be counted against the target.
    pub in_flight_max: usize,
    /// What happens to an operation that is one too many.
    pub beyond: Beyond,
    /// How long the pacer spins before a due moment.
    pub spin: Duration,
    /// How long an interval of the record is, in whole seconds: `1 <= interval_s`.
    pub interval_s: u64,
    /// There is no schedule: operations go as fast as answers come, and latencies count from sending.
    pub unpaced: bool,
}

/// What to do while as much is in flight as may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Beyond {
    /// Fail what is due.
    Fail,
    /// Hold it up, and what comes after it. Latencies still count from the due moments.
    Wait,
}

/// A run against one target. Operation numbers must rise from preload to measured run.
#[derive(Debug)]
pub struct Runner<T> {
    target: T,
    limits: Limits,
    audit: Audit,
    record: Record,
    intervals: Intervals,
}

/// Keys could not be written before the run.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{failed} of {writes} preloading writes failed: is the cluster healthy? {reason}")]
pub struct PreloadError {
    failed: u64,
    writes: u64,
    reason: String,
}

/// What came of a run.
#[derive(Debug)]
pub struct Finished {
    /// The latencies and failures.
    pub record: Record,
    /// What the generator offered.
    pub offered: Offered,
    /// The first broken promises, and the first failure of each kind, in words.
    pub complaints: Vec<String>,
    /// Reads that found nothing where something was acknowledged, if the target may evict.
    pub evicted: u64,
    /// What was done to nodes meanwhile, in order.
    pub marks: Vec<Mark>,
    /// When it began.
    pub start: SystemTime,
    /// What ended in each interval.
    pub intervals: Vec<Interval>,
}

/// A task's product.
type Returned = (Pending, Answer, Moment);

const QUEUE_LEN: usize = 8192;
/// No more than a `LocalSet` polls in a turn, which are 61.
const BATCH_LEN: usize = 48;
const SECOND_NS: u64 = 1_000_000_000;
const PRELOAD_IN_FLIGHT: usize = 64;
/// From the call to the first due moment: time for the pacer's thread to start.
pub const LEAD: Duration = Duration::from_millis(20);

impl Limits {
    /// What five seconds bring at a billion operations a day.
    pub const IN_FLIGHT_DEFAULT: usize = 65_536;
    /// Enough to keep a cluster busy; more would only wait there, and longer.
    pub const IN_FLIGHT_REPLAY: usize = 256;
}

impl<T: Target> Runner<T> {
    /// A runner with empty books, and a record with the stages of what it will offer.
    pub fn new(target: T, rules: Rules, limits: Limits, record: Record) -> Self {
        Self { target, limits, audit: Audit::new(rules), record, intervals: Intervals::begin() }
    }

    /// Writes these keys as fast as answers come, 64 at a time, numbered from 0. Returns the number after the last.
    pub async fn preload(&mut self, writes: impl IntoIterator<Item = Preload>) -> Result<u64, PreloadError> {
        let mut tasks = JoinSet::new();
        let (mut number, mut failed) = (0, 0);
        let mut writes = writes.into_iter();
        loop {
            while tasks.len() < PRELOAD_IN_FLIGHT {
                let Some(Preload { key, value_len, lifetime }) = writes.next() else { break };
                let kind = Kind::Write;
                self.send(&mut tasks, Operation { number, kind, key, value_len, lifetime, due_ns: 0 });
                number += 1;
            }
            let Some(returned) = tasks.join_next().await else { break };
            let (pending, answer, done) = returned.unwrap_or_else(propagate_panic);
            failed += u64::from(matches!(self.audit.settle(pending, answer, done), Outcome::Failed(_)));
        }
        if failed == 0 {
            return Ok(number);
        }
        let reason = self.audit.reasons().collect::<Vec<_>>().join("; ");
        Err(PreloadError { failed, writes: number, reason })
    }

    /// Offers all operations and waits for their answers, or for those that were sent when `stop` was raised.
    /// `incidents` are done meanwhile; with the first that is done (such as the kill of a node) the second phase of the record
    /// begins. `line` is given one line of progress a second.
    pub async fn run(
        mut self,
        operations: impl Iterator<Item = Operation> + Send + 'static,
        incidents: Incidents<impl Future<Output = ()>>,
        stop: Arc<AtomicBool>,
        mut line: impl FnMut(String),
    ) -> Finished {
        let (start, start_wall) = (Moment::now() + LEAD, SystemTime::now() + LEAD);
        let (mut queue, pacer) =
            spawn_pacer(Pacer { start, spin: self.limits.spin }, operations, self.limits.beyond, stop);
        let mut tasks = JoinSet::new();
        let mut batch = Vec::with_capacity(BATCH_LEN);
        let mut progress = Progress::default();
        let second = Duration::from_secs(1);
        let mut seconds = interval_at(Instant::now() + LEAD + second, second);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let Incidents { course, mut done } = incidents;
        let mut course = pin!(course);
        let (mut marks, mut under_course, mut offering) = (Vec::new(), true, true);

        while offering || !tasks.is_empty() {
            let room = self.room(tasks.len());
            tokio::select! {
                biased;
                _ = seconds.tick() => {
                    let elapsed_ns = Moment::now().since_ns(start);
                    let seconds = (elapsed_ns + SECOND_NS / 2) / SECOND_NS;
                    if seconds.is_multiple_of(self.limits.interval_s) {
                        self.intervals.cut(elapsed_ns);
                    }
                    line(progress.line(elapsed_ns / SECOND_NS, tasks.len()));
                }
                () = &mut course, if under_course => under_course = false,
                Some(done) = done.recv() => {
                    self.record.begin_after();
                    marks.push(done.mark(start));
                }
                // Answers go before new operations: a task that has ended still counts as in flight.
                Some(returned) = tasks.join_next() => {
                    let (pending, answer, done) = returned.unwrap_or_else(propagate_panic);
                    self.settle(pending, answer, done, start, &mut progress);
                }
                received = queue.recv_many(&mut batch, room), if offering && room > 0 => {
                    offering = received > 0;
                    for operation in batch.drain(..) {
                        self.send_or_drop(&mut tasks, operation, start, &mut progress);
                    }
                    // Lets this batch's tasks leave before the next is taken.
                    tokio::task::yield_now().await;
                }
            }
        }
        marks.extend(std::iter::from_fn(|| done.try_recv().ok()).map(|done| done.mark(start)));
        let mut offered = pacer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        offered.unpaced = self.limits.unpaced;
        let complaints = self.audit.complaints().iter().cloned().chain(self.audit.reasons()).collect();
        let intervals = self.intervals.finish(Moment::now().since_ns(start));
        let evicted = self.audit.evicted();
        Finished { record: self.record, offered, complaints, evicted, marks, start: start_wall, intervals }
    }

    /// How many operations may be taken from the queue now; 0 to wait for answers.
    fn room(&self, in_flight: usize) -> usize {
        match self.limits.beyond {
            Beyond::Fail => BATCH_LEN,
            Beyond::Wait => self.limits.in_flight_max.saturating_sub(in_flight).min(BATCH_LEN),
        }
    }

    fn send_or_drop(
        &mut self,
        tasks: &mut JoinSet<Returned>,
        operation: Operation,
        start: Moment,
        progress: &mut Progress,
    ) {
        if tasks.len() < self.limits.in_flight_max {
            self.send(tasks, operation);
            return;
        }
        let now = Moment::now();
        let due = start + Duration::from_nanos(operation.due_ns);
        let outcome = Outcome::Failed(Failure::Unsent);
        let completion = Completion { kind: operation.kind, due, sent: now, done: now, outcome };
        self.enter(operation.due_ns, &completion, progress);
    }

    fn send(&mut self, tasks: &mut JoinSet<Returned>, operation: Operation) {
        let (request, pending) = self.audit.issue(operation, Moment::now());
        let target = self.target.clone();
        tasks.spawn_local(async move {
            let answer = perform(&target, request).await;
            (pending, answer, Moment::now())
        });
    }

    fn settle(
        &mut self,
        pending: Pending,
        answer: Answer,
        done: Moment,
        start: Moment,
        progress: &mut Progress,
    ) {
        let (Operation { kind, due_ns, .. }, sent) = (*pending.operation(), pending.sent());
        let planned = start + Duration::from_nanos(due_ns);
        let due = if self.limits.unpaced { sent } else { planned };
        let outcome = self.audit.settle(pending, answer, done);
        let completion = Completion { kind, due, sent, done, outcome };
        self.enter(due_ns, &completion, progress);
    }

    fn enter(&mut self, due_ns: u64, completion: &Completion, progress: &mut Progress) {
        self.record.record(due_ns, completion);
        progress.record(completion);
        if self.record.is_judged(due_ns) {
            self.intervals.record(completion);
        }
    }
}

async fn perform<T: Target>(target: &T, request: Request) -> Answer {
    match request {
        Request::Get(key) => target.get(key).await,
        Request::Put(key, value, lifetime) => target.put(key, value, lifetime).await.map(|()| None),
        Request::Delete(key) => target.delete(key).await.map(|()| None),
    }
}

fn spawn_pacer(
    pacer: Pacer,
    operations: impl Iterator<Item = Operation> + Send + 'static,
    beyond: Beyond,
    stop: Arc<AtomicBool>,
) -> (mpsc::Receiver<Operation>, thread::JoinHandle<Offered>) {
    let length = if beyond == Beyond::Fail { QUEUE_LEN } else { BATCH_LEN };
    let (sender, receiver) = mpsc::channel(length);
    let stopped = Arc::clone(&stop);
    let hand = move |operation| match sender.try_send(operation) {
        Ok(()) => Handed::Taken,
        Err(mpsc::error::TrySendError::Full(operation)) => match beyond {
            Beyond::Fail => Handed::Full,
            Beyond::Wait if sender.blocking_send(operation).is_ok() => Handed::HeldUp,
            Beyond::Wait => {
                stop.store(true, Ordering::Relaxed);
                Handed::Full
            }
        },
        Err(mpsc::error::TrySendError::Closed(_)) => {
            // The run is gone, so this thread shall go too.
            stop.store(true, Ordering::Relaxed);
            Handed::Full
        }
    };
    let thread = thread::Builder::new().name("pacer".to_owned());
    let handle = thread.spawn(move || pacer.run(operations, &stopped, hand));
    (receiver, handle.expect("a process that runs can start one more thread"))
}

fn propagate_panic<R>(error: tokio::task::JoinError) -> R {
    std::panic::resume_unwind(error.into_panic())
}

#[cfg(test)]
mod tests;
