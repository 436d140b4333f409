//! How sure a figure of a run is, given that what happens in one second has to do with what happened in the one before.
//!
//! Latencies of neighbouring operations aren't independent: a pause, a full queue or a busy neighbour lasts. Intervals of
//! confidence that presume otherwise are far too narrow, and find differences between a build and itself. Here:
//!
//! 1. A run is cut into blocks of successive intervals ([`jackknife`]), long enough for most of what lasts to end within
//!    one. A percentile is that of the whole run; how it varies is seen by leaving out one block after the other.
//! 2. What still lasts from one block to the next shows as a correlation between neighbours, which widens the interval and
//!    takes degrees of freedom away.
//! 3. Several runs say more: then the spread from run to run counts, if it leaves more open. It is taken to be the same on
//!    both sides and estimated from both together, since a few runs of one side hardly know it. Within one run, nobody can
//!    see what differs from one start of a server to the next.
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
    /// So large a difference would have been found in four of five tries.
    pub detectable: f64,
}

/// Below this, Student's t is so wide that nothing is ever found; the correction for what lasts, which takes degrees
/// of freedom away, has widened the variance already.
pub const FREEDOM_MIN: f64 = 2.0;

/// So many runs of each side find a difference of 5% in 97% of all tries where runs differ by 1% from each other; three
/// of each do in 3 of 10.
pub const RUNS_ADVISED: usize = 5;

impl Estimate {
    /// The figure of several runs of one thing, from that of each, by how each varies in itself. At least one.
    fn within(runs: &[Self]) -> Self {
        let count = runs.len() as f64;
        let value = runs.iter().map(|run| run.value).sum::<f64>() / count;
        let variance = runs.iter().map(|run| run.variance).sum::<f64>() / (count * count);
        let freedom = welch(runs.iter().map(|run| (run.variance, run.freedom)));
        Self { value, variance, freedom }
    }

    /// The mean of several runs. At least one.
    pub fn mean(runs: &[Self]) -> f64 {
        Self::within(runs).value
    }

    /// How far the runs of the `right` side are from those of the `left`, with this confidence (such as 0.99). At least one
    /// of each.
    pub fn difference(left: &[Self], right: &[Self], confidence: f64) -> Difference {
        let sides = [left, right].map(Self::within);
        let variance = sides[0].variance + sides[1].variance;
        let freedom = welch(sides.map(|side| (side.variance, side.freedom)));
        let value = sides[1].value - sides[0].value;
        let within = Difference::new(value, variance, freedom, confidence);
        let freedom = left.len() + right.len() - 2;
        if freedom == 0 {
            return within;
        }
        let squares =
            |runs: &[Self], mean: f64| runs.iter().map(|run| (run.value - mean).powi(2)).sum::<f64>();
        let squares = squares(left, sides[0].value) + squares(right, sides[1].value);
        let freedom = freedom as f64;
        let variance = squares / freedom * (1.0 / left.len() as f64 + 1.0 / right.len() as f64);
        let between = Difference::new(value, variance, freedom, confidence);
        if between.margin > within.margin { between } else { within }
    }
}

impl Difference {
    fn new(value: f64, variance: f64, freedom: f64, confidence: f64) -> Self {
        let error = variance.sqrt();
        let margin = student::quantile(confidence, freedom) * error;
        // A difference as large as the margin is found in half of all tries: it takes more to find it mostly.
        let detectable = student::detectable(confidence, freedom) * error;
        Self { value, margin, detectable }
    }

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
