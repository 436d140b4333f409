//! The one clock of a run: `CLOCK_MONOTONIC`, read and slept on by all threads alike.
//!
//! `std::time::Instant` is the same clock, but can't be turned into the absolute time that
//! `clock_nanosleep` needs, and only an absolute sleep neither drifts nor loses the time between
//! reading the clock and falling asleep. The crate `rustix` offers these calls without `unsafe`.

use std::num::NonZeroU64;
use std::ops::{Add, Sub};
use std::time::Duration;

use rustix::thread::ClockId;
use rustix::time::Timespec;

/// A point on the monotonic clock, in nanoseconds since some start that means nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Moment(pub u64);

impl Moment {
    /// Before anything a run does.
    pub const FIRST: Self = Self(0);
    /// After anything a run does.
    pub const NEVER: Self = Self(u64::MAX);

    /// Reads the clock: about 20 ns, through the vDSO.
    pub fn now() -> Self {
        let time = rustix::time::clock_gettime(ClockId::Monotonic);
        // The monotonic clock starts at 0 with the machine, so both parts are never negative.
        Self(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
    }

    /// Nanoseconds since `earlier`, 0 if that is later.
    pub fn since_ns(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Sleeps until the given moment, or a little longer; returns earlier if a signal arrives. A moment that
/// has passed costs no sleep.
pub fn sleep_until(moment: Moment) {
    let request = Timespec {
        tv_sec: i64::try_from(moment.0 / 1_000_000_000).unwrap_or(i64::MAX),
        tv_nsec: i64::from((moment.0 % 1_000_000_000) as u32),
    };
    // The only error left for a valid clock and time is EINTR, and then the caller looks at the clock again.
    let _interrupted = rustix::thread::clock_nanosleep_absolute(ClockId::Monotonic, &request);
}

/// Asks the kernel not to delay this thread's sleeps: by default it may add 50 us, to batch wake-ups.
pub fn tighten_timer_slack() {
    // Old or locked-down kernels may refuse; then sleeps are coarser, and the measured lateness tells.
    let _refused = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeps_until_not_before() {
        let wake = Moment::now() + Duration::from_millis(2);
        while Moment::now() < wake {
            sleep_until(wake);
        }
        assert!(Moment::now() >= wake);
        sleep_until(Moment::FIRST);
    }
}
