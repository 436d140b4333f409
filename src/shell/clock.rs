//! The two clocks, and the source of seeds: all the accident that the core is handed.

use crate::time::{Instant, Now, WallTime};

/// Both clocks. The monotonic one is the kernel's `CLOCK_MONOTONIC`, by which the ring's timers count too.
pub(super) fn now() -> Now {
    let monotonic = read(libc::CLOCK_MONOTONIC);
    let wall = read(libc::CLOCK_REALTIME);
    Now { monotonic: Instant(monotonic), wall: WallTime(wall / 1_000) }
}

/// The monotonic clock alone.
pub(super) fn monotonic() -> Instant {
    Instant(read(libc::CLOCK_MONOTONIC))
}

/// A random number from the kernel.
pub(super) fn seed() -> u64 {
    let mut seed = 0u64;
    // SAFETY: `seed` is eight writable bytes. Reads of up to 256 bytes are never cut short.
    let read = unsafe { libc::getrandom((&raw mut seed).cast(), size_of::<u64>(), 0) };
    assert_eq!(read, 8, "the kernel has no randomness to give");
    seed
}

/// Nanoseconds.
fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is writable. Both clocks exist on every Linux, so the call can't fail.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
