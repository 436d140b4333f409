//! One thing that grows when clients wait: its 95th percentile in a window, and what that usually is.
//!
//! The percentile of some hundred samples is noisy, and noise must not look like harm: so it is held against the usual
//! and its usual deviation, as TCP holds a round trip (RFC 6298), and two windows in a row must be beyond.

use super::seconds;
use crate::time::{Duration, Instant};

/// Whatever has a window is this old, if it has any samples at all.
const WINDOW_MAX: Duration = Duration::from_secs(1);
/// Fewer tell what is usual, and blame nobody.
const SAMPLES_FEW: u32 = 4;
/// High is so many times the usual, and so many times the usual deviation beyond it.
const HIGH: f64 = 2.0;
const DEVIATIONS: f64 = 4.0;
/// Less than this is never high: nanoseconds.
const LEAST: f64 = 1e6;
/// In so many seconds most of what is seen has been learned. No window counts for more than twice the usual.
const LEARNED_IN: f64 = 5.0;

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
    /// A window of so many samples is whole.
    whole: u32,
    /// When the window began.
    since: Instant,
    /// The last whole window's 95th percentile, in nanoseconds.
    last: f64,
    usual: Option<Usual>,
    /// Windows that were beyond the limit, one after the other up to now.
    beyond: u32,
}

/// Learned while background work hardly moves.
#[derive(Clone, Copy, Debug)]
struct Usual {
    /// Nanoseconds.
    mean: f64,
    /// The mean distance from that, whichever way; at most the mean itself.
    deviation: f64,
}

impl Usual {
    fn first(seen: f64) -> Self {
        Self { mean: seen, deviation: seen / 2.0 }
    }

    fn learn(&mut self, seen: f64, span: Duration) {
        let share = (seconds(span) / LEARNED_IN).min(1.0);
        let distance = (seen - self.mean).clamp(-self.mean, self.mean);
        self.deviation += (distance.abs() - self.deviation) * share;
        self.mean += distance * share;
    }

    fn limit(&self) -> f64 {
        (self.mean * HIGH).max(self.mean + self.deviation * DEVIATIONS).max(LEAST)
    }
}

impl Signal {
    /// A window has so many samples, or is [`WINDOW_MAX`] old and has any.
    pub(super) const fn new(whole: u32) -> Self {
        let since = Instant(0);
        Self { buckets: [0; BUCKETS], count: 0, whole, since, last: 0.0, usual: None, beyond: 0 }
    }

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
        if self.count < self.whole && (age < WINDOW_MAX || self.count == 0) {
            if age >= WINDOW_MAX {
                // Nobody is there whom it could hurt.
                (self.since, self.beyond) = (now, 0);
            }
            return Verdict::Unknown;
        }
        let (seen, are_few) = (self.percentile(), self.count < SAMPLES_FEW);
        self.last = seen;
        self.forget_window(now);
        let limit = match (allowed, &self.usual) {
            (Some(allowed), _) => allowed.0 as f64,
            (None, Some(usual)) => usual.limit(),
            (None, None) if is_undisturbed => f64::INFINITY,
            (None, None) => return if are_few { Verdict::Unknown } else { Verdict::High },
        };
        match &mut self.usual {
            Some(usual) if is_undisturbed => usual.learn(seen, age.min(WINDOW_MAX)),
            None if is_undisturbed => self.usual = Some(Usual::first(seen)),
            _ => {}
        }
        let is_beyond = seen > limit && !are_few;
        self.beyond = if is_beyond { self.beyond + 1 } else { 0 };
        if self.beyond >= 2 { Verdict::High } else { Verdict::Fine }
    }

    /// Was the last window beyond the limit, and none since within it?
    pub(super) const fn is_beyond(&self) -> bool {
        self.beyond > 0
    }

    /// Is there something to be seen, and nobody knows yet what is usual?
    pub(super) const fn is_unknown(&self) -> bool {
        self.usual.is_none() && self.count > 0
    }

    /// The last window's, and what is usual.
    pub(super) fn reading(&self) -> [Duration; 2] {
        [self.last, self.usual.map_or(0.0, |usual| usual.mean)]
            .map(|nanoseconds| Duration(nanoseconds as u64))
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

    const SAMPLES: u32 = 20;

    #[test]
    fn a_percentile_is_at_most_a_quarter_above_what_was_seen() {
        for millis in [1, 3, 17, 900, 60_000] {
            let mut signal = Signal::new(SAMPLES);
            (0..19).for_each(|_| signal.add(Duration::from_millis(millis)));
            signal.add(Duration::from_millis(millis * 3));
            let seen = signal.percentile() / 1e6;
            assert!(
                (millis as f64..=millis as f64 * 1.25).contains(&seen),
                "{millis} ms is taken for {seen} ms"
            );
        }
        let mut signal = Signal::new(SAMPLES);
        signal.add(Duration::ZERO);
        signal.add(Duration(u64::MAX));
        assert_eq!(signal.count, 2);
    }

    #[test]
    fn few_samples_are_waited_for() {
        let mut signal = Signal::new(SAMPLES);
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
        let mut signal = Signal::new(SAMPLES);
        for round in 1..50 {
            (0..SAMPLES).for_each(|_| signal.add(Duration::from_millis(500)));
            let now = Instant(0) + Duration::from_millis(50 * round);
            assert_eq!(signal.judge(now, None, false), Verdict::High);
        }
        assert!(signal.usual.is_none());
    }

    #[test]
    fn an_objective_holds_from_the_first_window() {
        let mut signal = Signal::new(SAMPLES);
        let mut verdicts = (1..=3).map(|round| {
            (0..SAMPLES).for_each(|_| signal.add(Duration::from_millis(500)));
            let now = Instant(0) + Duration::from_millis(50 * round);
            signal.judge(now, Some(Duration::from_millis(20)), false)
        });
        assert_eq!(verdicts.next(), Some(Verdict::Fine), "one window may be noise");
        assert!(verdicts.all(|verdict| verdict == Verdict::High));
    }

    /// A shard that streamed nothing halved its budget three times a second, since one of its windows in six was beyond
    /// twice the usual; whoever streamed never left the floor.
    #[test]
    fn noise_is_not_harm() {
        let mut prng = crate::prng::Prng::from_seed(1);
        let mut signal = Signal::new(100);
        let mut now = Instant(0);
        let mut window = |signal: &mut Signal, slower: u64, is_undisturbed| {
            // One in ten takes three to seven times as long as the others.
            for _ in 0..100 {
                let rare = if prng.chance(0.1) { 3 + prng.below(5) } else { 1 };
                signal.add(Duration::from_micros(slower * rare * (500 + prng.below(200))));
            }
            now = now + Duration::from_millis(50);
            signal.judge(now, None, is_undisturbed)
        };
        for _ in 0..200 {
            window(&mut signal, 1, true);
        }
        let high = (0..1000).filter(|_| window(&mut signal, 1, false) == Verdict::High).count();
        assert!(high < 10, "{high} of 1,000 windows, and nothing was the matter");
        let high = (0..100).filter(|_| window(&mut signal, 5, false) == Verdict::High).count();
        assert!(high > 90, "{high} of 100 windows in which all took five times as long");
    }
}
