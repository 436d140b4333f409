//! When operations are due: an open-loop schedule, fixed before the run and deaf to the answers.
//!
//! A closed loop waits for an answer before it sends again, so a stalled server is simply asked less often
//! and its stall hides ("coordinated omission"). Here every operation has a due moment, and its latency
//! counts from there, sent or not: a stall of a second at 1000/s is charged to a thousand operations.
//!
//! A [`Schedule`] is a pure iterator of due offsets in nanoseconds from the start of the run, in order: what a
//! [`Profile`] makes of its rates. The schedule of a trace comes from [`crate::trace`] in the same form.

use std::fmt;
use std::str::FromStr;

use ringmain::prng::Prng;

use crate::profile::Profile;
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

/// Due offsets in nanoseconds from the start, never falling, all before the profile's end.
#[derive(Clone, Debug)]
pub struct Schedule {
    profile: Profile,
    /// The stage of the next operation, and when it starts.
    stage: usize,
    stage_start_ns: u64,
    /// The first operation of the stage is due when the integral of the rate over it reaches this, `0 <= first`.
    first: f64,
    gaps: Gaps,
    /// One rate all the time, evenly: then whole numbers make due moments exact for ever.
    even: Option<Rate>,
}

/// An operation that is due at the end of a stage, but for a float's rounding, is the first of the next: a millionth of one.
const EDGE: f64 = 1e-6;

/// Between operations, as integrals of the rate.
#[derive(Clone, Debug)]
enum Gaps {
    /// One always. So many operations of this stage have been.
    Fixed { index: u64 },
    /// Exponential, with the mean one. Those of this stage so far add up to this.
    Poisson { sum: f64, prng: Prng },
}

impl Schedule {
    /// The same `prng` gives the same schedule.
    pub fn new(profile: Profile, arrivals: Arrivals, mut prng: Prng) -> Self {
        let (gaps, first) = match arrivals {
            Arrivals::Fixed => (Gaps::Fixed { index: 0 }, 0.0),
            Arrivals::Poisson => {
                let first = exponential(&mut prng);
                (Gaps::Poisson { sum: 0.0, prng }, first)
            }
        };
        let even = profile.even_rate().filter(|_| arrivals == Arrivals::Fixed);
        Self { profile, stage: 0, stage_start_ns: 0, first, gaps, even }
    }

    /// Where the next operation is, as an integral of the rate over its stage.
    fn reached(&self) -> f64 {
        self.first
            + match &self.gaps {
                Gaps::Fixed { index } => *index as f64,
                Gaps::Poisson { sum, .. } => *sum,
            }
    }

    fn advance(&mut self) {
        match &mut self.gaps {
            Gaps::Fixed { index } => *index += 1,
            Gaps::Poisson { sum, prng } => *sum += exponential(prng),
        }
    }

    /// What is left of the way to the next operation is carried into the next stage.
    fn begin_next_stage(&mut self, left: f64) {
        self.stage_start_ns += self.profile.stages()[self.stage].duration.as_nanos() as u64;
        self.stage += 1;
        self.first = left;
        match &mut self.gaps {
            Gaps::Fixed { index } => *index = 0,
            Gaps::Poisson { sum, .. } => *sum = 0.0,
        }
    }
}

impl Iterator for Schedule {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        loop {
            let stage = self.profile.stages().get(self.stage)?;
            let (count, operations) = (self.reached(), stage.operations());
            let due_ns = match (&self.gaps, self.even) {
                (Gaps::Fixed { index }, Some(rate)) => {
                    let due_ns = rate.due_ns(*index);
                    (u128::from(due_ns) < stage.duration.as_nanos()).then_some(due_ns)
                }
                _ => (count < operations - EDGE).then(|| stage.due_ns(count)),
            };
            if let Some(due_ns) = due_ns {
                self.advance();
                return Some(self.stage_start_ns + due_ns);
            }
            self.begin_next_stage((count - operations).max(0.0));
        }
    }
}

/// 1 - unit() lies in (0, 1], so the logarithm is finite.
fn exponential(prng: &mut Prng) -> f64 {
    -(1.0 - prng.unit()).ln()
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
    use std::time::Duration;

    use super::*;

    fn schedule(rate: &str, arrivals: Arrivals, seconds: u64, seed: u64) -> Schedule {
        let rate = rate.parse().expect("a rate");
        let profile = Profile::steady(rate, Duration::from_secs(seconds));
        Schedule::new(profile, arrivals, Prng::from_seed(seed))
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
