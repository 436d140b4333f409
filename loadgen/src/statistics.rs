//! How sure a figure of a run is, given that what happens in one second has to do with what happened in the one before.
//!
//! Latencies of neighbouring operations aren't independent: a pause, a full queue or a busy neighbour lasts. Intervals of
//! confidence that presume otherwise are far too narrow, and find differences between a build and itself. Here:
//!
//! 1. A run is cut into blocks of successive intervals ([`jackknife`]), long enough for most of what lasts to end within
//!    one. A percentile is that of the whole run; how it varies is seen by leaving out one block after the other.
//! 2. What still lasts from one block to the next shows as a correlation between neighbours, which widens the interval and
//!    takes degrees of freedom away.
//! 3. Several runs of each side say more: then the spread between runs counts, if it is the larger. Within one run,
//!    nobody can see what differs from one start of a server to the next.
//! 4. Two sides are compared by the difference of the logarithms of a percentile, with Student's t after Welch
//!    ([`student`]).
//! 5. Several figures are looked at, and each may differ by chance: the chance that **any** of them does is held below 1%,
//!    by giving each an equal share of it (Bonferroni).

pub mod jackknife;
pub mod student;

/// A figure with its uncertainty.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Estimate {
    /// The figure itself: the logarithm of nanoseconds, or a share.
    pub value: f64,
    /// The variance of the figure, not of what it was computed from; never negative.
    pub variance: f64,
    /// How many degrees of freedom the variance has, at least [`FREEDOM_MIN`].
    pub freedom: f64,
}

/// By how much two figures differ: right minus left.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Difference {
    /// The difference.
    pub value: f64,
    /// It lies within this much of it, with the confidence asked for.
    pub margin: f64,
}

/// Below this, Student's t is so wide that nothing is ever found; the correction for what lasts, which takes degrees
/// of freedom away, has widened the variance already.
pub const FREEDOM_MIN: f64 = 2.0;

/// So many runs of a side show how much runs differ from each other.
pub const RUNS_MIN: usize = 3;

impl Estimate {
    /// The figure of several runs of one thing, from that of each. At least one.
    pub fn of_runs(runs: &[Self]) -> Self {
        let count = runs.len() as f64;
        let value = runs.iter().map(|run| run.value).sum::<f64>() / count;
        let variance = runs.iter().map(|run| run.variance).sum::<f64>() / (count * count);
        let freedom = welch(runs.iter().map(|run| (run.variance, run.freedom)));
        let within = Self { value, variance, freedom };
        if runs.len() < RUNS_MIN {
            return within;
        }
        let squares: f64 = runs.iter().map(|run| (run.value - value).powi(2)).sum();
        let between = Self { value, variance: squares / (count - 1.0) / count, freedom: count - 1.0 };
        if between.variance > within.variance { between } else { within }
    }

    /// How far `right` is from `left`, with this confidence (such as 0.99).
    pub fn difference(left: &Self, right: &Self, confidence: f64) -> Difference {
        let variance = left.variance + right.variance;
        let freedom = welch([(left.variance, left.freedom), (right.variance, right.freedom)]);
        let margin = student::quantile(confidence, freedom) * variance.sqrt();
        Difference { value: right.value - left.value, margin }
    }
}

impl Difference {
    /// Whether 0 is out of reach.
    pub fn is_real(&self) -> bool {
        self.value.abs() > self.margin
    }
}

/// The degrees of freedom of a sum of variances (Welch, 1947, and Satterthwaite).
fn welch(variances: impl IntoIterator<Item = (f64, f64)>) -> f64 {
    let (mut sum, mut weighted) = (0.0, 0.0);
    for (variance, freedom) in variances {
        sum += variance;
        weighted += variance * variance / freedom;
    }
    if weighted > 0.0 { (sum * sum / weighted).max(FREEDOM_MIN) } else { FREEDOM_MIN }
}

#[cfg(test)]
mod tests;
