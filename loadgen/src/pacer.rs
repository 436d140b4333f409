//! The thread that hands out each operation at its due moment, and knows how well it did.
//!
//! It sleeps with `clock_nanosleep` on an absolute time, its timer slack set to 1 ns, until shortly before the
//! due moment, and spins the rest. The spin is bounded and short, as generator and servers may share two cores;
//! measured on two busy virtual cores, sleeps end 25 us late (p50) and 100 us (p99), and 5 us of spin take 5 us
//! off. Overdue operations are handed out at once, one after the other, with their due moments as planned: a
//! late generator makes latencies longer, never shorter.
//!
//! Unless it is told to ([`Handed::HeldUp`]), it never waits for the sending side: what doesn't fit into the
//! queue is refused and counted. That queue is emptied without waiting for any server ([`crate::runner`] bounds
//! what is in flight by itself, and counts that against the servers), so a full queue means that this machine
//! couldn't keep up.
//!
//! **Could the generator offer the load?** [`Offered::shortfall`] says no when
//!
//! - more than 1% of the operations could not be handed out, or
//! - handing them out took longer than planned by more than 1% and 10 ms: the offered rate fell short, or
//! - its own lateness has a p99 beyond a bound: a tenth of the objective's tightest latency limit, but no
//!   less than 1 ms (what two cores shared with three servers can hold), and 10 ms without such a limit.
//!
//! The first two void the run. Lateness only makes a run harder to pass, since latency counts from the due
//! moment; so it voids a missed objective, and leaves a met one standing ([`Shortfall::voids_success`]).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::clock::{self, Moment};
use crate::duration::display_ns;
use crate::operation::Operation;
use crate::tally::{Percentile, latency_histogram, value_at};

/// Hands out operations from a start moment on.
#[derive(Clone, Copy, Debug)]
pub struct Pacer {
    /// When the operation with offset 0 is due.
    pub start: Moment,
    /// How long before a due moment to wake up and spin.
    pub spin: Duration,
}

/// The sending side's answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handed {
    /// It is in the queue.
    Taken,
    /// It is in the queue, after the sending side had to wait for the target.
    HeldUp,
    /// The queue is full.
    Full,
}

/// What was offered, and how punctually.
#[derive(Clone, Debug)]
pub struct Offered {
    /// Operations the sending side took.
    pub handed: u64,
    /// Operations that found the queue full.
    pub refused: u64,
    /// When the last operation was due, in nanoseconds from the start.
    pub due_last_ns: u64,
    /// When it was handed out or refused.
    pub elapsed_ns: u64,
    /// For how long the target held it up, in nanoseconds. This is no lateness of its own.
    pub held_up_ns: u64,
    /// The run was stopped before its end.
    pub interrupted: bool,
    /// There was no schedule to keep: neither lateness nor a planned rate means anything.
    pub unpaced: bool,
    /// How late each operation was handed out or refused, in nanoseconds.
    pub lateness: Histogram<u64>,
}

/// How the generator failed to offer the load.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum Shortfall {
    /// The queue to the sending side was full too often.
    #[error(
        "{refused} of {planned} operations could not be handed out: lower the rate, or use a larger machine"
    )]
    Refused {
        /// So many were not handed out.
        refused: u64,
        /// Of so many.
        planned: u64,
    },
    /// Handing out took too long.
    #[error("it offered only {percent:.1}% of the planned rate: lower the rate, or use a larger machine")]
    Slow {
        /// Achieved share of the planned rate.
        percent: f64,
    },
    /// Operations left too late.
    #[error("its own lateness has a p99 of {}, beyond {}: use an idle core, or a wider limit",
        display_ns(*p99_ns), display_ns(*bound_ns))]
    Late {
        /// 99% of the operations left no later than this.
        p99_ns: u64,
        /// They should have left no later than this.
        bound_ns: u64,
    },
}

const REFUSED_SHARE_MAX: f64 = 0.01;
const RATE_SHARE_MIN: f64 = 0.99;
const DELAY_NS_ALLOWED: u64 = 10_000_000;
const LATENESS_BOUND_MIN: Duration = Duration::from_millis(1);
const LATENESS_BOUND_DEFAULT: Duration = Duration::from_millis(10);
/// No single sleep is longer, so that a request to stop is heard.
const SLEEP_MAX: Duration = Duration::from_millis(100);

impl Pacer {
    /// A spin that costs at most 5% of a core at 10 000/s.
    pub const SPIN_DEFAULT: Duration = Duration::from_micros(5);

    /// Hands out all operations, or stops soon after `stop` is raised. Run it on a thread of its own.
    pub fn run(
        &self,
        operations: impl Iterator<Item = Operation>,
        stop: &AtomicBool,
        mut hand: impl FnMut(Operation) -> Handed,
    ) -> Offered {
        clock::tighten_timer_slack();
        let mut offered = Offered::default();
        let mut free = self.start;
        for operation in operations {
            let due = self.start + Duration::from_nanos(operation.due_ns);
            let Some(now) = self.wait_until(due, stop) else {
                offered.interrupted = true;
                break;
            };
            offered.lateness.saturating_record(now.since_ns(due.max(free)));
            match hand(operation) {
                Handed::Taken => offered.handed += 1,
                Handed::HeldUp => {
                    offered.handed += 1;
                    free = Moment::now();
                    offered.held_up_ns += free.since_ns(now);
                }
                Handed::Full => offered.refused += 1,
            }
            offered.due_last_ns = operation.due_ns;
            offered.elapsed_ns = now.since_ns(self.start);
        }
        offered
    }

    /// The moment it woke, or `None` if it was told to stop.
    fn wait_until(&self, due: Moment, stop: &AtomicBool) -> Option<Moment> {
        loop {
            if stop.load(Ordering::Relaxed) {
                return None;
            }
            let now = Moment::now();
            let wake = due - self.spin;
            if now >= due {
                return Some(now);
            } else if now < wake {
                clock::sleep_until(wake.min(now + SLEEP_MAX));
            } else {
                std::hint::spin_loop();
            }
        }
    }
}

impl Offered {
    /// The first of the criteria above that was missed.
    pub fn shortfall(&self, latency_limit_min: Option<Duration>) -> Option<Shortfall> {
        let planned = self.handed + self.refused;
        if self.refused as f64 > planned as f64 * REFUSED_SHARE_MAX {
            return Some(Shortfall::Refused { refused: self.refused, planned });
        }
        if self.unpaced {
            return None;
        }
        let own_ns = self.elapsed_ns.saturating_sub(self.held_up_ns);
        let share = self.due_last_ns as f64 / own_ns.max(1) as f64;
        if share < RATE_SHARE_MIN && own_ns > self.due_last_ns + DELAY_NS_ALLOWED {
            return Some(Shortfall::Slow { percent: share * 100.0 });
        }
        let bound = latency_limit_min.map_or(LATENESS_BOUND_DEFAULT, |limit| limit / 10);
        let bound_ns = bound.max(LATENESS_BOUND_MIN).as_nanos() as u64;
        let p99_ns = self.lateness(Percentile::P99);
        (p99_ns > bound_ns).then_some(Shortfall::Late { p99_ns, bound_ns })
    }

    /// How late operations were handed out, in nanoseconds.
    pub fn lateness(&self, percentile: Percentile) -> u64 {
        value_at(&self.lateness, percentile)
    }

    /// The latest of all, in nanoseconds.
    pub fn lateness_max(&self) -> u64 {
        self.lateness.max()
    }

    /// Operations a second, as achieved.
    pub fn per_second(&self) -> f64 {
        self.handed as f64 * 1e9 / self.elapsed_ns.max(1) as f64
    }
}

impl Default for Offered {
    fn default() -> Self {
        Self {
            handed: 0,
            refused: 0,
            due_last_ns: 0,
            elapsed_ns: 0,
            held_up_ns: 0,
            interrupted: false,
            unpaced: false,
            lateness: latency_histogram(),
        }
    }
}

impl Shortfall {
    /// Whether even a met objective means nothing.
    pub fn voids_success(&self) -> bool {
        !matches!(self, Self::Late { .. })
    }
}

#[cfg(test)]
mod tests {
    use ringmain::prng::Prng;

    use crate::operation::{Key, Kind};
    use crate::profile::Profile;
    use crate::schedule::{Arrivals, Schedule};

    use super::*;

    fn operations(rate: &str, millis: u64) -> impl Iterator<Item = Operation> {
        let rate = rate.parse().expect("a rate");
        let duration = Duration::from_millis(millis);
        Schedule::new(Profile::steady(rate, duration), Arrivals::Fixed, Prng::from_seed(1)).zip(0..).map(
            |(due_ns, number)| {
                let (kind, key) = (Kind::Read, Key(0));
                Operation { number, kind, key, value_len: 0, lifetime: None, due_ns }
            },
        )
    }

    fn pacer() -> Pacer {
        Pacer { start: Moment::now() + Duration::from_millis(1), spin: Pacer::SPIN_DEFAULT }
    }

    fn offered(lateness_ns: u64) -> Offered {
        let mut offered = Offered {
            handed: 1000,
            due_last_ns: 1_000_000_000,
            elapsed_ns: 1_000_000_000,
            ..Offered::default()
        };
        (0..1000).for_each(|_| offered.lateness.saturating_record(lateness_ns));
        offered
    }

    #[test]
    fn nothing_is_handed_out_before_it_is_due() {
        let pacer = pacer();
        let mut handed = 0;
        let offered = pacer.run(operations("5k/s", 100), &AtomicBool::new(false), |operation| {
            assert!(Moment::now() >= pacer.start + Duration::from_nanos(operation.due_ns));
            handed += 1;
            Handed::Taken
        });
        assert_eq!((offered.handed, offered.refused, handed), (500, 0, 500));
        assert!(!offered.interrupted);
    }

    #[test]
    fn a_full_queue_is_refused_and_not_waited_for() {
        let mut taken = 0;
        let offered = pacer().run(operations("10k/s", 50), &AtomicBool::new(false), |_| {
            taken += 1;
            if taken <= 480 { Handed::Taken } else { Handed::Full }
        });
        assert_eq!((offered.handed, offered.refused), (480, 20));
        assert_eq!(offered.shortfall(None), Some(Shortfall::Refused { refused: 20, planned: 500 }));
    }

    /// A target that holds up a replay is no fault of the generator.
    #[test]
    fn being_held_up_is_no_lateness() {
        let offered = pacer().run(operations("1k/s", 100), &AtomicBool::new(false), |_| {
            std::thread::sleep(Duration::from_millis(2));
            Handed::HeldUp
        });
        assert_eq!((offered.handed, offered.refused), (100, 0));
        assert!(offered.held_up_ns >= 200_000_000, "{}", offered.held_up_ns);
        assert_eq!(offered.shortfall(None), None);
    }

    #[test]
    fn a_slow_sending_side_shows_as_a_missed_rate() {
        let offered = pacer().run(operations("1k/s", 100), &AtomicBool::new(false), |_| {
            std::thread::sleep(Duration::from_millis(2));
            Handed::Taken
        });
        assert!(matches!(offered.shortfall(None), Some(Shortfall::Slow { percent }) if percent < 60.0));
    }

    #[test]
    fn a_raised_stop_ends_the_run() {
        let stop = AtomicBool::new(false);
        let offered = pacer().run(operations("1/s", 60_000), &stop, |_| {
            stop.store(true, Ordering::Relaxed);
            Handed::Taken
        });
        assert!(offered.interrupted);
        assert_eq!(offered.handed, 1);
    }

    #[test]
    fn lateness_is_held_against_the_tightest_limit() {
        let limit = |millis| Some(Duration::from_millis(millis));
        assert_eq!(offered(5_000_000).shortfall(limit(300)), None);
        assert_eq!(offered(500_000).shortfall(limit(1)), None, "the bound is never below 1 ms");
        let late = offered(5_000_000).shortfall(limit(20)).expect("5 ms are beyond a tenth of 20 ms");
        assert!(matches!(late, Shortfall::Late { bound_ns: 2_000_000, .. }), "{late:?}");
        assert!(!late.voids_success());
        assert!(Shortfall::Slow { percent: 50.0 }.voids_success());
        assert!(offered(11_000_000).shortfall(None).is_some());
    }

    /// Not a promise but a measurement: `cargo test -p loadgen lateness_by_spin -- --ignored --nocapture`.
    #[test]
    #[ignore = "measures this machine for half a minute: cargo test --release -p loadgen -- --ignored"]
    fn lateness_by_spin() {
        for rate in ["579/s", "11574/s", "50k/s"] {
            for spin_us in [0, 5, 20, 60] {
                let start = Moment::now() + Duration::from_millis(1);
                let pacer = Pacer { start, spin: Duration::from_micros(spin_us) };
                let offered = pacer.run(operations(rate, 2000), &AtomicBool::new(false), |_| Handed::Taken);
                println!(
                    "{rate:>8}, spin {spin_us:>2} us: lateness p50 {}, p99 {}, p99.9 {}, max {}",
                    display_ns(offered.lateness(Percentile::P50)),
                    display_ns(offered.lateness(Percentile::P99)),
                    display_ns(offered.lateness(Percentile::P999)),
                    display_ns(offered.lateness_max()),
                );
            }
        }
    }
}
