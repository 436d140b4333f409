//! The shard's second io_uring, for the network alone.
//!
//! `SINGLE_ISSUER | DEFER_TASKRUN`: the kernel queues its work and does it only when this thread enters, so a
//! busy shard is never interrupted. The shard's doorbell is registered with the ring: the kernel rings it
//! whenever it queues work while there was none. Those notifications are never switched off.
//!
//! One `enter` may do only part of the work that is queued (newer kernels stop after 20 pieces), and the doorbell isn't rung
//! for the rest; nor has each piece a completion. So before sleeping a shard enters until that yields nothing more, and
//! the kernel says that it has no work left ([`Ring::has_work`], `TASKRUN_FLAG`).

use std::io;
use std::os::fd::AsRawFd;

use io_uring::types::{TimeoutFlags, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use super::token::{Operation, loose_token};
use crate::shell::doorbell::Doorbell;
use crate::time::Instant;

/// Operations that can be queued for one `enter`; with [`COMPLETIONS`] about 136 KiB of locked memory.
const SUBMISSIONS: u32 = 1024;
/// Completions that can wait to be read; past it the kernel keeps them itself.
const COMPLETIONS: u32 = 4096;

const ENTER_GETEVENTS: u32 = 1;

/// One finished step of an operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    pub(super) user_data: u64,
    /// Bytes or a descriptor; an error number if negative.
    pub(super) result: i32,
    /// More will follow from the same operation.
    pub(super) more: bool,
    /// The provided buffer that was filled.
    pub(super) buffer: Option<u16>,
}

pub(super) struct Ring {
    ring: IoUring,
    timer: Timer,
}

/// The one timer of the ring.
#[derive(Default)]
struct Timer {
    armed: Option<Instant>,
    /// Read by the kernel when the operation is submitted; boxed so that it stays where it is.
    when: Box<Timespec>,
}

impl Ring {
    /// Must be called by the thread that will use it.
    pub(super) fn new(doorbell: &Doorbell) -> io::Result<Self> {
        let ring: IoUring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)?;
        ring.submitter().register_eventfd(doorbell.eventfd().as_raw_fd())?;
        Ok(Self { ring, timer: Timer::default() })
    }

    /// For registering buffers.
    pub(super) fn submitter(&self) -> io_uring::Submitter<'_> {
        self.ring.submitter()
    }

    /// Queue an operation; it starts at the next [`Ring::enter`].
    ///
    /// # Safety
    ///
    /// Whatever memory `entry` points to stays valid, and if the kernel writes there or sends from there
    /// untouched, until the operation's last completion.
    pub(super) unsafe fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: as this function's own contract.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return;
            }
            // Full: hand over what is queued. Its completions wait in the ring.
            self.enter_for(0);
        }
    }

    /// Cancel the operation with this user data, if it still runs; it then completes with `ECANCELED`.
    pub(super) fn cancel(&mut self, user_data: u64) {
        let entry = opcode::AsyncCancel::new(user_data).build().user_data(loose_token(Operation::Aside, 0));
        // SAFETY: a cancellation points to no memory.
        unsafe { self.push(&entry) };
    }

    /// Submit what is queued and let the kernel do the work that it deferred. Never waits.
    pub(super) fn enter(&mut self) {
        self.enter_for(0);
    }

    /// The same, but wait for at least one completion.
    pub(super) fn enter_and_wait(&mut self) {
        self.enter_for(1);
    }

    fn enter_for(&mut self, completions_min: u32) {
        let queued = self.ring.submission().len() as u32;
        // SAFETY: no argument is passed, and the operations submitted satisfied the contract of `push`.
        let entered = unsafe {
            self.ring.submitter().enter::<libc::sigset_t>(queued, completions_min, ENTER_GETEVENTS, None)
        };
        let Err(error) = entered else { return };
        // Interrupted, short of memory, or too many completions unread: what is queued stays queued, and the
        // next turn tries again after reading completions.
        let passing = [libc::EINTR, libc::EAGAIN, libc::EBUSY];
        assert!(error.raw_os_error().is_some_and(|code| passing.contains(&code)), "io_uring_enter: {error}");
    }

    /// Move up to `limit` completions to `into`.
    pub(super) fn completions(&mut self, limit: usize, into: &mut Vec<Completion>) {
        into.extend(self.ring.completion().take(limit).map(|entry| Completion {
            user_data: entry.user_data(),
            result: entry.result(),
            more: cqueue::more(entry.flags()),
            buffer: cqueue::buffer_select(entry.flags()),
        }));
    }

    /// Is anything queued that the kernel hasn't been told of, or has it work that an `enter` would do?
    pub(super) fn has_work(&mut self) -> bool {
        let submission = self.ring.submission();
        !submission.is_empty() || submission.taskrun()
    }

    /// Have a completion arrive at `when` at the latest. It may come early: a timer that is no longer wanted
    /// is left to fire.
    pub(super) fn wake_at(&mut self, when: Instant) {
        if self.timer.armed.is_some_and(|armed| armed <= when) {
            return;
        }
        *self.timer.when = Timespec::new().sec(when.0 / 1_000_000_000).nsec((when.0 % 1_000_000_000) as u32);
        let (time, token) = (&raw const *self.timer.when, loose_token(Operation::Timer, 0));
        let entry = if self.timer.armed.is_none() {
            opcode::Timeout::new(time).flags(TimeoutFlags::ABS).build().user_data(token)
        } else {
            // If it has fired meanwhile, there is nothing to change, and the wake-up is under way.
            let change = opcode::TimeoutUpdate::new(token, time).flags(TimeoutFlags::ABS);
            change.build().user_data(loose_token(Operation::Aside, 0))
        };
        self.timer.armed = Some(when);
        // SAFETY: the kernel copies the time when the operation is submitted. Until then the box stays, and
        // may at most be overwritten with an earlier time, which is then what is wanted.
        unsafe { self.push(&entry) };
    }

    /// The timer's completion was read.
    pub(super) fn timer_fired(&mut self) {
        self.timer.armed = None;
    }
}
