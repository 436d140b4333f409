//! One thing that grows when clients wait: its 95th percentile in a window, and what that usually is.

use super::seconds;
use crate::time::{Duration, Instant};

/// A window has so many samples, or is this old and has any.
const SAMPLES_MIN: u32 = 20;
const WINDOW_MAX: Duration = Duration::from_secs(1);
/// Fewer tell what is usual, and blame nobody.
const SAMPLES_FEW: u32 = 4;
/// High is so many times the usual.
const HIGH: f64 = 2.0;
/// Less than this is never high: nanoseconds.
const LEAST: f64 = 1e6;
/// The usual comes down to what is seen in so many seconds, and doubles in no fewer.
const DOWN: f64 = 1.0;
const UP: f64 = 10.0;

/// Four to an octave, from 2^10 to 2^38 ns.
const BUCKETS: usize = 28 * 4;
const FIRST_OCTAVE: u32 = 10;

/// What a window shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Too few samples yet.
    Unknown,
    Fine,
    High,
}

#[derive(Debug)]
pub(super) struct Signal {
    buckets: [u32; BUCKETS],
    count: u32,
    /// When the window began.
    since: Instant,
    /// The last whole window's 95th percentile, in nanoseconds.
    last: f64,
    usual: Option<f64>,
}

impl Default for Signal {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], count: 0, since: Instant(0), last: 0.0, usual: None }
    }
}

impl Signal {
    pub(super) fn add(&mut self, span: Duration) {
        self.buckets[bucket(span)] += 1;
        self.count += 1;
    }

    /// What was seen says nothing any more.
    pub(super) fn forget_window(&mut self, now: Instant) {
        if self.count > 0 {
            self.buckets.fill(0);
        }
        (self.count, self.since) = (0, now);
    }

    /// Look at the window, if it is whole. `allowed` stands for what is usual; while `is_undisturbed`, what is seen is
    /// not background work's doing. Where nobody knows what is usual, whatever is seen beside background work is high:
    /// else its own doing would be learned as usual, and never be high again.
    pub(super) fn judge(&mut self, now: Instant, allowed: Option<Duration>, is_undisturbed: bool) -> Verdict {
        let age = now.since(self.since);
        if self.count < SAMPLES_MIN && (age < WINDOW_MAX || self.count == 0) {
            if age >= WINDOW_MAX {
                self.since = now;
            }
            return Verdict::Unknown;
        }
        let (seen, are_few) = (self.percentile(), self.count < SAMPLES_FEW);
        self.last = seen;
        self.forget_window(now);
        if self.usual.is_none() && !is_undisturbed && allowed.is_none() {
            return Verdict::High;
        }
        let usual = *self.usual.get_or_insert(seen);
        let limit = allowed.map_or((usual * HIGH).max(LEAST), |allowed| allowed.0 as f64);
        let span = seconds(age.min(WINDOW_MAX));
        if seen < usual {
            self.usual = Some(usual + (seen - usual) * (span / DOWN));
        } else if is_undisturbed {
            self.usual = Some(usual * (1.0 + (seen / usual - 1.0).min(1.0) * (span / UP)));
        }
        if seen > limit && !are_few { Verdict::High } else { Verdict::Fine }
    }

    /// Is there something to be seen, and nobody knows yet what is usual?
    pub(super) const fn is_unknown(&self) -> bool {
        self.usual.is_none() && self.count > 0
    }

    /// The last window's, and what is usual.
    pub(super) fn reading(&self) -> [Duration; 2] {
        [self.last, self.usual.unwrap_or_default()].map(|nanoseconds| Duration(nanoseconds as u64))
    }

    /// Of nineteen in twenty, the longest.
    fn percentile(&self) -> f64 {
        let mut beyond = self.count / 20;
        for (at, &count) in self.buckets.iter().enumerate().rev() {
            if count > beyond {
                return longest(at);
            }
            beyond -= count;
        }
        0.0
    }
}

fn bucket(span: Duration) -> usize {
    let octave = span.0.max(1 << FIRST_OCTAVE).ilog2();
    let quarter = (span.0 >> (octave - 2)) & 3;
    let at = (octave - FIRST_OCTAVE) as usize * 4 + quarter as usize;
    at.min(BUCKETS - 1)
}

/// What falls into this bucket is shorter, in nanoseconds.
fn longest(at: usize) -> f64 {
    let octave = (1u64 << (at / 4 + FIRST_OCTAVE as usize)) as f64;
    octave * (1.0 + (at % 4 + 1) as f64 / 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_at_most_a_quarter_above_what_was_seen() {
        for millis in [1, 3, 17, 900, 60_000] {
            let mut signal = Signal::default();
            (0..19).for_each(|_| signal.add(Duration::from_millis(millis)));
            signal.add(Duration::from_millis(millis * 3));
            let seen = signal.percentile() / 1e6;
            assert!(
                (millis as f64..=millis as f64 * 1.25).contains(&seen),
                "{millis} ms is taken for {seen} ms"
            );
        }
        let mut signal = Signal::default();
        signal.add(Duration::ZERO);
        signal.add(Duration(u64::MAX));
        assert_eq!(signal.count, 2);
    }

    #[test]
    fn few_samples_are_waited_for() {
        let mut signal = Signal::default();
        signal.add(Duration::from_millis(1));
        assert_eq!(signal.judge(Instant(0) + Duration::from_millis(900), None, true), Verdict::Unknown);
        assert_eq!(signal.judge(Instant(0) + Duration::from_secs(1), None, true), Verdict::Fine);
        assert_eq!(signal.judge(Instant(0) + Duration::from_secs(9), None, true), Verdict::Unknown);
        signal.add(Duration::from_secs(1));
        let verdict = signal.judge(Instant(0) + Duration::from_secs(10), None, false);
        assert_eq!(verdict, Verdict::Fine, "one of one is nobody's fault");
    }

    #[test]
    fn what_background_work_does_is_never_taken_as_usual() {
        let mut signal = Signal::default();
        for round in 1..50 {
            (0..SAMPLES_MIN).for_each(|_| signal.add(Duration::from_millis(500)));
            let now = Instant(0) + Duration::from_millis(50 * round);
            assert_eq!(signal.judge(now, None, false), Verdict::High);
        }
        assert_eq!(signal.usual, None);
    }
}
