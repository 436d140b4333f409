//! One multiplexed connection to one server shard.
//!
//! Many callers share it. A caller encodes its frame straight into the outbox, under a lock held for as long
//! as that takes, and waits for a slot to be settled. One task per connection ([`driver`]) does the rest:
//! it writes all that has gathered in one call, reads as much as there is, settles slots, watches deadlines
//! and the other end's silence. So a request costs no task, no timer and no channel of its own; load makes
//! batches, and nothing waits for one.
//!
//! A connection is opened when somebody wants to send over it, and again, after a back-off, when it was lost.
//! Whatever happens, each waiter gets one outcome, and the outcome says whether the request may have left.

mod clock;
mod driver;
mod handshake;
mod lane;
mod silence;
mod slots;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use ringmain_schema::{Encoder, Flags, Frame};
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::address::Address;
use crate::error::Error;
use driver::Duty;
use lane::{Lane, Phase, Retirement};
use slots::RequestId;

/// Phases, for readers without the lock.
const CLOSED: u8 = 0;
const DIALLING: u8 = 1;
const UP: u8 = 2;

/// What all connections of a client have in common.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) secret: Vec<u8>,
    /// The cluster that all servers must belong to; 0 until the first has told, if it was not given.
    pub(crate) cluster: AtomicU64,
    /// For a call and its handshake.
    pub(crate) dial_timeout: Duration,
    /// A connection with waiters that stays silent this long is given up. It is pinged after half of it.
    pub(crate) hung_after: Duration,
    /// Limit on one value, as the latest server told.
    pub(crate) value_bytes_max: AtomicU32,
    /// Limit on what follows a request's header, as the latest server told.
    pub(crate) frame_bytes_max: AtomicU32,
    /// Where drivers run.
    pub(crate) runtime: Handle,
    /// Zero of the times that are kept in atomics.
    pub(crate) origin: Instant,
}

/// How likely a connection is to take a request now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Availability {
    /// Open, and its server serves.
    Ready,
    /// Its server said lately that it can't serve.
    Resting,
    /// Being opened for the first time, or again after it worked; worth waiting for.
    Opening,
    /// Not to be reached at present.
    Away,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Distinct within a client.
    pub(crate) number: u32,
    pub(crate) address: Address,
    settings: Arc<Settings>,
    /// Mirrors the lane's phase.
    phase: AtomicU8,
    /// Until when the server is left alone, in microseconds since the origin.
    rest_until_us: AtomicU64,
    /// Until when a call may still succeed at once, in microseconds since the origin.
    hope_until_us: AtomicU64,
    lane: Mutex<Lane>,
}

/// Why nothing was queued. The request was certainly not applied.
#[derive(Debug)]
pub(crate) enum NotSent {
    /// No connection; a call is under way or will be made later.
    Away,
    /// The server's limit on unanswered requests is reached.
    Full,
    /// The whole frame is over the server's limit, in bytes.
    TooLarge(u64),
}

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// One whole frame, verified as such.
    Answer(Bytes),
    /// The connection is gone. Unless `sent`, no server can have read the request.
    Lost { sent: bool },
    /// The deadline has passed. Unless `sent`, no server has read the request, nor will.
    TimedOut { sent: bool },
}

/// The frame of an answer.
pub(crate) fn frame(bytes: &Bytes) -> Frame<'_> {
    Frame::split(bytes, bytes.len()).ok().flatten().expect("the driver cuts whole frames")
}

/// Did the answer take a hop?
pub(crate) fn was_forwarded(frame: &Frame<'_>) -> bool {
    frame.header.flags.contains(Flags::FORWARDED)
}

impl Connection {
    /// Not opened yet.
    pub(crate) fn new(number: u32, address: Address, settings: Arc<Settings>) -> Self {
        Self {
            number,
            address,
            phase: AtomicU8::new(CLOSED),
            rest_until_us: AtomicU64::new(0),
            hope_until_us: AtomicU64::new(u64::MAX),
            lane: Mutex::new(Lane::new(settings.origin)),
            settings,
        }
    }

    /// How likely it is to take a request. Opens it if it is closed and its back-off is over.
    pub(crate) fn availability(self: &Arc<Self>, now: Instant) -> Availability {
        let now_us = self.micros(now);
        if self.phase.load(Ordering::Acquire) == CLOSED && !self.open(now) {
            return Availability::Away;
        }
        if self.phase.load(Ordering::Acquire) != UP {
            let is_hopeful = now_us < self.hope_until_us.load(Ordering::Relaxed);
            return if is_hopeful { Availability::Opening } else { Availability::Away };
        }
        let is_resting = now_us < self.rest_until_us.load(Ordering::Relaxed);
        if is_resting { Availability::Resting } else { Availability::Ready }
    }

    /// Leave the server alone for a while, if there are others: it said that it doesn't serve.
    pub(crate) fn rest(&self, now: Instant, pause: Duration) {
        self.rest_until_us.store(self.micros(now + pause), Ordering::Relaxed);
    }

    /// Queue a request. `encode` appends one whole frame under the given request id. Without a deadline it
    /// is a subscription, whose further answers come under the same id.
    pub(crate) fn send(
        self: &Arc<Self>,
        deadline: Option<Instant>,
        encode: impl FnOnce(&mut Encoder, u64, &mut Vec<u8>),
    ) -> Result<Pending, NotSent> {
        let frame_bytes_max = self.settings.frame_bytes_max.load(Ordering::Relaxed) as usize;
        let (id, wake) = self.lane().send(deadline, frame_bytes_max, encode)?;
        if let Some(waker) = wake {
            waker.wake();
        }
        Ok(Pending { connection: Arc::clone(self), id, is_settled: false })
    }

    /// Why the last call failed or the last connection ended; empty if neither happened.
    pub(crate) fn last_failure(&self) -> Option<Error> {
        self.lane().failure.clone()
    }

    /// Use it no more. It closes when its last waiter has its answer; with `at_once`, now.
    pub(crate) fn retire(&self, at_once: bool) {
        self.phase.store(CLOSED, Ordering::Release);
        let how = if at_once { Retirement::Cut } else { Retirement::Draining };
        let driver = self.lane().retire(how);
        if let Some(waker) = driver {
            waker.wake();
        }
    }

    /// Start a call, unless it is too early or the connection is retired. True if one is under way or done.
    fn open(self: &Arc<Self>, now: Instant) -> bool {
        let mut lane = self.lane();
        match lane.phase {
            _ if lane.retirement != Retirement::InUse => return false,
            Phase::Dialling | Phase::Up => return true,
            Phase::Closed { retry_at } if now < retry_at => return false,
            Phase::Closed { .. } => {}
        }
        lane.phase = Phase::Dialling;
        // A server that failed before is not waited for. On a healthy network a call takes far less.
        let hope = if lane.failures == 0 { self.settings.dial_timeout.min(HOPE) } else { Duration::ZERO };
        self.hope_until_us.store(self.micros(now + hope), Ordering::Relaxed);
        self.phase.store(DIALLING, Ordering::Release);
        drop(lane);
        self.settings.runtime.spawn(driver::run(Duty::new(Arc::clone(self))));
        true
    }

    fn micros(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.settings.origin).as_micros() as u64
    }

    fn lane(&self) -> MutexGuard<'_, Lane> {
        self.lane.lock().expect("nothing panics while it holds the lane")
    }
}

/// How long a first call is waited for before others are asked to forward.
const HOPE: Duration = Duration::from_millis(100);

/// Waits for the outcome of a request. Dropping it frees the slot; an answer that comes later is dropped.
#[derive(Debug)]
#[must_use = "a request whose waiter is dropped is forgotten"]
pub(crate) struct Pending {
    connection: Arc<Connection>,
    id: RequestId,
    is_settled: bool,
}

impl Pending {
    /// Of a subscription: the next answer.
    pub(crate) async fn next(&mut self) -> Outcome {
        std::future::poll_fn(|context| self.connection.lane().slots.poll(self.id, context)).await
    }
}

impl Future for Pending {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let outcome = self.connection.lane().slots.poll(self.id, context);
        self.is_settled = outcome.is_ready();
        outcome
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.is_settled {
            self.connection.lane().slots.release(self.id);
        }
    }
}
