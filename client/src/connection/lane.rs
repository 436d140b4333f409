//! The part of a connection that callers and its driver share: outbox, slots and phase, under one lock.

use std::task::Waker;

use ringmain_schema::Encoder;
use ringmain_schema::frame::{HEADER_BYTES, Header};
use tokio::time::Instant;

use super::slots::{RequestId, Slots};
use super::{NotSent, Outcome};
use crate::error::Error;

/// Where a connection is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// No connection, and no call before this.
    Closed { retry_at: Instant },
    /// A driver calls. Requests gather in the outbox.
    Dialling,
    /// The handshake is over.
    Up,
}

/// May a connection still be used?
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Retirement {
    /// Yes.
    InUse,
    /// It takes nothing new, and closes when nobody waits any longer.
    Draining,
    /// It closes now.
    Cut,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) phase: Phase,
    pub(super) retirement: Retirement,
    pub(super) slots: Slots,
    /// Frames that the driver has not taken yet.
    outbox: Vec<u8>,
    encoder: Encoder,
    /// Bytes of frames queued on this connection since it was opened, those in the outbox included.
    queued_bytes: u64,
    /// Requests that the server has not answered, whether or not anybody still waits for them; without
    /// subscriptions, which are answered any number of times.
    unanswered: usize,
    /// The server's limit on that; it reads no further past it.
    unanswered_max: usize,
    /// The driver sleeps until somebody writes to the outbox.
    pub(super) driver_waits: bool,
    pub(super) driver: Option<Waker>,
    /// When the driver will look at deadlines next. An earlier one must wake it.
    pub(super) alarm: Instant,
    /// Calls and connections lost since the last answer.
    pub(super) failures: u32,
    /// Why the last one ended.
    pub(super) failure: Option<Error>,
}

impl Lane {
    pub(super) fn new(origin: Instant) -> Self {
        Self {
            phase: Phase::Closed { retry_at: origin },
            retirement: Retirement::InUse,
            slots: Slots::default(),
            outbox: Vec::new(),
            encoder: Encoder::default(),
            queued_bytes: 0,
            unanswered: 0,
            unanswered_max: usize::MAX,
            driver_waits: false,
            driver: None,
            alarm: origin,
            failures: 0,
            failure: None,
        }
    }

    /// Queue a frame. Returns its id, and whom to wake once the lock is released.
    pub(super) fn send(
        &mut self,
        deadline: Option<Instant>,
        frame_bytes_max: usize,
        encode: impl FnOnce(&mut Encoder, u64, &mut Vec<u8>),
    ) -> Result<(RequestId, Option<Waker>), NotSent> {
        let is_open = matches!(self.phase, Phase::Up | Phase::Dialling);
        if !is_open || self.retirement != Retirement::InUse {
            return Err(NotSent::Away);
        }
        if self.unanswered >= self.unanswered_max {
            return Err(NotSent::Full);
        }
        let id = self.slots.insert(deadline);
        let start = self.outbox.len();
        encode(&mut self.encoder, id.0, &mut self.outbox);
        let length = self.outbox.len() - start;
        if length - HEADER_BYTES > frame_bytes_max {
            self.outbox.truncate(start);
            self.slots.release(id);
            return Err(NotSent::TooLarge(frame_bytes_max as u64));
        }
        self.queued_bytes += length as u64;
        self.slots.set_frame_end(id, self.queued_bytes);
        self.unanswered += usize::from(deadline.is_some());
        Ok((id, self.waker_for(deadline)))
    }

    /// Queue a frame that nobody waits for. Only the driver does this, and it writes next.
    pub(super) fn send_unheard(&mut self, encode: impl FnOnce(&mut Encoder, &mut Vec<u8>)) {
        let start = self.outbox.len();
        encode(&mut self.encoder, &mut self.outbox);
        self.queued_bytes += (self.outbox.len() - start) as u64;
    }

    fn waker_for(&mut self, deadline: Option<Instant>) -> Option<Waker> {
        let is_earlier = deadline.is_some_and(|deadline| deadline < self.alarm);
        if !self.driver_waits && !is_earlier {
            return None;
        }
        self.driver_waits = false;
        self.driver.clone()
    }

    /// The driver is about to rest until `alarm`, or until it is woken.
    pub(super) fn driver_rests(&mut self, waker: &Waker, alarm: Instant) {
        match &mut self.driver {
            Some(driver) => driver.clone_from(waker),
            None => self.driver = Some(waker.clone()),
        }
        self.alarm = alarm;
    }

    /// Give the driver what has gathered, in exchange for an empty vector.
    pub(super) fn take_outbox(&mut self, empty: &mut Vec<u8>) {
        debug_assert!(empty.is_empty());
        std::mem::swap(&mut self.outbox, empty);
    }

    /// An answer came. Returns whom to wake.
    pub(super) fn answered(&mut self, id: u64, answer: Outcome) -> Option<Waker> {
        self.failures = 0;
        let id = RequestId(id);
        let counts = !self.slots.is_subscription(id);
        self.unanswered = self.unanswered.saturating_sub(usize::from(counts));
        self.slots.settle(id, answer)
    }

    /// Settle those whose deadline has passed. A frame that is still in the outbox of an open connection
    /// counts as sent, because it will be; while a call lasts it doesn't, because [`Self::came_up`] drops it.
    pub(super) fn expire(&mut self, now: Instant, woken: &mut Vec<Waker>) {
        if self.slots.earliest().is_none_or(|earliest| now < earliest) {
            return;
        }
        let sent = self.phase != Phase::Dialling;
        self.slots.expire(now, sent, woken);
    }

    /// The handshake is over. Requests whose waiters went while it lasted are taken out of the outbox, so
    /// that what was reported as not sent is never sent.
    pub(super) fn came_up(&mut self, unanswered_max: u32) {
        let before = std::mem::take(&mut self.outbox);
        let mut rest = &before[..];
        self.queued_bytes = 0;
        self.unanswered = 0;
        self.unanswered_max = if unanswered_max == 0 { usize::MAX } else { unanswered_max as usize };
        while let Ok(Some(header)) = Header::read(rest) {
            let (frame, after) = rest.split_at(header.frame_length());
            rest = after;
            let id = RequestId(header.request_id);
            if !self.slots.is_waiting(id) {
                continue;
            }
            self.outbox.extend_from_slice(frame);
            self.queued_bytes += frame.len() as u64;
            self.slots.set_frame_end(id, self.queued_bytes);
            self.unanswered += usize::from(!self.slots.is_subscription(id));
        }
        debug_assert!(rest.is_empty(), "the outbox holds whole frames");
        self.phase = Phase::Up;
    }

    /// The connection or the call has ended, after `written` bytes of frames had been given to the kernel.
    pub(super) fn fell(&mut self, failure: Error, written: u64, retry_at: Instant, woken: &mut Vec<Waker>) {
        // No server can have read a frame whose last byte hasn't left.
        self.slots.fail_all(|frame_end| Outcome::Lost { sent: frame_end <= written }, woken);
        self.outbox = Vec::new();
        self.queued_bytes = 0;
        self.unanswered = 0;
        self.driver_waits = false;
        self.driver = None;
        self.failure = Some(failure);
        self.phase = Phase::Closed { retry_at };
    }

    /// Take nothing more. Returns the driver, to be woken.
    pub(super) fn retire(&mut self, how: Retirement) -> Option<Waker> {
        self.retirement = self.retirement.max(how);
        self.driver.clone()
    }

    /// Is a retired connection done?
    pub(super) fn is_over(&self) -> bool {
        match self.retirement {
            Retirement::InUse => false,
            Retirement::Draining => self.slots.waiting() == 0,
            Retirement::Cut => true,
        }
    }
}
