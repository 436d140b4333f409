//! When operations are due: an open-loop schedule, fixed before the run and deaf to the answers.
//!
//! A closed loop waits for an answer before it sends again, so a stalled server is simply asked less often
//! and its stall hides ("coordinated omission"). Here every operation has a due moment, and its latency
//! counts from there, sent or not: a stall of a second at 1000/s is charged to a thousand operations.
//!
//! A [`Schedule`] is a pure iterator of due offsets in nanoseconds from the start of the run, in order. The
//! schedule of a trace comes from [`crate::trace`] in the same form.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use ringmain::prng::Prng;

use crate::rate::Rate;

/// How operations follow each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Arrivals {
    /// Evenly: the same gap always.
    #[default]
    Fixed,
    /// As from many independent users: exponential gaps, so that queues form by chance as in life.
    Poisson,
}

/// An arrival process that is not known.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("'{0}' is no known kind of arrivals: write fixed or poisson")]
pub struct ArrivalsError(String);

/// Due offsets in nanoseconds from the start, never falling, all before the duration's end.
#[derive(Clone, Debug)]
pub struct Schedule {
    rate: Rate,
    gaps: Gaps,
    end_ns: u64,
}

#[derive(Clone, Debug)]
enum Gaps {
    Fixed { next_index: u64 },
    Poisson { offset_ns: f64, prng: Prng },
}

impl Schedule {
    /// A schedule of `duration` at `rate`. The same `prng` gives the same schedule.
    pub fn new(rate: Rate, arrivals: Arrivals, duration: Duration, prng: Prng) -> Self {
        let gaps = match arrivals {
            Arrivals::Fixed => Gaps::Fixed { next_index: 0 },
            Arrivals::Poisson => Gaps::Poisson { offset_ns: 0.0, prng },
        };
        Self { rate, gaps, end_ns: u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX) }
    }
}

impl Iterator for Schedule {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let due_ns = match &mut self.gaps {
            Gaps::Fixed { next_index } => {
                let due_ns = self.rate.due_ns(*next_index);
                *next_index += 1;
                due_ns
            }
            Gaps::Poisson { offset_ns, prng } => {
                // 1 - unit() lies in (0, 1], so the logarithm is finite.
                *offset_ns -= (1.0 - prng.unit()).ln() * self.rate.gap_ns();
                *offset_ns as u64
            }
        };
        (due_ns < self.end_ns).then_some(due_ns)
    }
}

impl FromStr for Arrivals {
    type Err = ArrivalsError;

    fn from_str(text: &str) -> Result<Self, ArrivalsError> {
        match text {
            "fixed" => Ok(Self::Fixed),
            "poisson" => Ok(Self::Poisson),
            _ => Err(ArrivalsError(text.to_owned())),
        }
    }
}

impl fmt::Display for Arrivals {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Fixed => "fixed",
            Self::Poisson => "poisson",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(rate: &str, arrivals: Arrivals, seconds: u64, seed: u64) -> Schedule {
        let rate = rate.parse().expect("a rate");
        Schedule::new(rate, arrivals, Duration::from_secs(seconds), Prng::from_seed(seed))
    }

    #[test]
    fn fixed_arrivals_are_even_and_complete() {
        let due: Vec<u64> = schedule("1000/s", Arrivals::Fixed, 2, 0).collect();
        assert_eq!(due.len(), 2000);
        assert!(due.iter().enumerate().all(|(index, &offset)| offset == index as u64 * 1_000_000));
        assert_eq!(schedule("50M/day", Arrivals::Fixed, 20, 0).count(), 11_575);
    }

    /// The count of a Poisson process has the deviation sqrt(n); its gaps have one as large as their mean.
    #[test]
    fn poisson_arrivals_have_the_right_mean_and_spread() {
        let due: Vec<u64> = schedule("10k/s", Arrivals::Poisson, 20, 7).collect();
        let expected = 200_000.0f64;
        assert!((due.len() as f64 - expected).abs() < 4.0 * expected.sqrt(), "{}", due.len());
        assert!(due.is_sorted());
        let gaps: Vec<f64> = due.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.02, "mean {mean}, deviation {}", variance.sqrt());
    }

    #[test]
    fn a_seed_replays_its_schedule() {
        let first: Vec<u64> = schedule("1k/s", Arrivals::Poisson, 1, 3).collect();
        assert_eq!(first, schedule("1k/s", Arrivals::Poisson, 1, 3).collect::<Vec<_>>());
        assert_ne!(first, schedule("1k/s", Arrivals::Poisson, 1, 4).collect::<Vec<_>>());
    }
}
