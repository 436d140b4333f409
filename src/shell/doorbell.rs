//! How a sleeping shard is woken: an eventfd, and a flag that says whether anybody needs to write to it.
//!
//! A sender publishes its message first and then calls [`Doorbell::ring`]; a receiver about to sleep calls
//! [`Doorbell::fall_asleep`] first and then looks at its inboxes once more. Both put a sequentially consistent
//! fence between their write and their read, so at least one of them sees the other (Dekker's argument): no
//! message is left behind a sleeper. A receiver that is awake costs its senders no system call.
//!
//! The kernel rings the same eventfd when the shard's network ring has work. It doesn't look at the flag, so a
//! shard may wake to find nothing; it never sleeps through something.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// A shard's doorbell. Every sender has a clone; the descriptor lives until the last of them is gone, so a
/// sender can't ring a descriptor that something else reuses.
#[derive(Clone, Debug)]
pub struct Doorbell {
    bell: Arc<Bell>,
}

#[derive(Debug)]
struct Bell {
    eventfd: OwnedFd,
    asleep: AtomicBool,
}

impl Doorbell {
    /// A doorbell whose owner is awake.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers are passed.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above opened this descriptor, and nobody else knows it.
        let eventfd = unsafe { OwnedFd::from_raw_fd(descriptor) };
        Ok(Self { bell: Arc::new(Bell { eventfd, asleep: AtomicBool::new(false) }) })
    }

    /// Wake the owner if it sleeps. Whatever it is to find must have been published before.
    pub fn ring(&self) {
        // Pairs with the fence in `fall_asleep`.
        fence(Ordering::SeqCst);
        // The load keeps the line shared while the owner is awake; of several senders one wins the swap.
        if self.bell.asleep.load(Ordering::Relaxed) && self.bell.asleep.swap(false, Ordering::AcqRel) {
            self.write();
        }
    }

    /// The owner is about to sleep: it must look at its inboxes between this call and sleeping.
    pub fn fall_asleep(&self) {
        self.bell.asleep.store(true, Ordering::Relaxed);
        // Pairs with the fence in `ring`.
        fence(Ordering::SeqCst);
    }

    /// The owner is awake, whatever woke it.
    pub fn wake_up(&self) {
        self.bell.asleep.store(false, Ordering::Relaxed);
    }

    /// The eventfd, for registering it with a ring.
    pub fn eventfd(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.bell.eventfd)
    }

    /// A second descriptor of the same eventfd, for someone who closes what it is given.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.bell.eventfd.try_clone()
    }

    fn write(&self) {
        let one = 1u64;
        // SAFETY: `one` is eight readable bytes, and the descriptor is open as long as `self` is.
        let written = unsafe { libc::write(self.bell.eventfd.as_raw_fd(), (&raw const one).cast(), 8) };
        // It fails only when the counter is about to pass 2^64 - 2, which takes centuries.
        debug_assert_eq!(written, 8);
    }
}
