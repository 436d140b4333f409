//! How sure a figure of a run is, given that what happens in one second has to do with what happened in the one before.
//!
//! Latencies of neighbouring operations aren't independent: a pause, a full queue or a busy neighbour lasts. Intervals of
//! confidence that presume otherwise are far too narrow, and find differences between a build and itself. Here:
//!
//! 1. A run is cut into blocks of successive intervals ([`jackknife`]), long enough for most of what lasts to end within
//!    one. A percentile is that of the whole run; how it varies is seen by leaving out one block after the other.
//! 2. What still lasts from one block to the next shows as a correlation between neighbours, which widens the interval and
//!    takes degrees of freedom away.
//! 3. Several runs say more: then the spread from run to run counts. With as many runs on both sides, it is taken to be the
//!    same on both and estimated from both together, since a few runs of one side hardly know it; where one side's runs differ
//!    far more than the other's, that finds a difference too often, though seldom ([`Estimate::difference`]). With other
//!    counts it would be wrong again and again, so there each side has its own. Until there are enough runs, what each varies
//!    in itself counts instead if it leaves more open; then no more, as it is part of the spread. Within one run, nobody
//!    can see what differs from one start of a server to the next.
//! 4. Two sides are compared by the difference of the logarithms of a percentile, with Student's t after Welch
//!    ([`student`]).
//! 5. Several figures are looked at, and each may differ by chance: the chance that **any** of them does is held at 1%,
//!    by giving each an equal share of it (Bonferroni). It is less where seconds know nothing of each other (0.4%), and more
//!    where what lasts does so for seconds (2%): the correlation of so few blocks is not known well.

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
        let freedom = welch(runs.iter().map(|run| (run.variance, run.freedom))).max(FREEDOM_MIN);
        Self { value, variance, freedom }
    }

    /// The mean of several runs. At least one.
    pub fn mean(runs: &[Self]) -> f64 {
        Self::within(runs).value
    }

    /// How far the runs of the `right` side are from those of the `left`, with this confidence (such as 0.99). At least one
    /// of each.
    ///
    /// It presumes that runs vary about alike on both sides. Where all that varies is on one side, five of each are told apart
    /// by chance in 1% of all tries instead of 0.17%, and three of each in 2%. A side with a single run is taken to vary as
    /// the other does.
    pub fn difference(left: &[Self], right: &[Self], confidence: f64) -> Difference {
        let sides = [left, right].map(Self::within);
        let value = sides[1].value - sides[0].value;
        let within = || {
            let variance = sides[0].variance + sides[1].variance;
            let freedom = welch(sides.map(|side| (side.variance, side.freedom)));
            Difference::new(value, variance, freedom.max(FREEDOM_MIN), confidence)
        };
        if left.len() + right.len() == 2 {
            return within();
        }
        let (variance, freedom) = between(left, right);
        let between = Difference::new(value, variance, freedom, confidence);
        if runs_suffice(left.len(), right.len()) {
            return between;
        }
        let within = within();
        if between.margin > within.margin { between } else { within }
    }
}

/// Whether there are so many runs on both sides that their spread alone says how sure a difference is: 8 degrees of freedom
/// or more, before what the counts' being unequal costs. It holds whatever a run is made of: a stall in each of five
/// runs and in none of five others is chance in 2 of 1000 cases at most.
pub fn runs_suffice(left: usize, right: usize) -> bool {
    left.min(right) >= RUNS_ADVISED
}

/// The variance of the difference by the spread from run to run, and its degrees of freedom. More than one run on either side.
fn between(left: &[Estimate], right: &[Estimate]) -> (f64, f64) {
    let squares = |runs: &[Estimate]| {
        let mean = Estimate::mean(runs);
        runs.iter().map(|run| (run.value - mean).powi(2)).sum::<f64>()
    };
    let counts = [left.len() as f64, right.len() as f64];
    let squares = [squares(left), squares(right)];
    if counts[0] == counts[1] || left.len().min(right.len()) == 1 {
        let freedom = counts[0] + counts[1] - 2.0;
        let variance = (squares[0] + squares[1]) / freedom;
        return (variance / counts[0] + variance / counts[1], freedom);
    }
    let sides = [0, 1].map(|side| (squares[side] / (counts[side] - 1.0) / counts[side], counts[side] - 1.0));
    (sides[0].0 + sides[1].0, welch(sides))
}

impl Difference {
    fn new(value: f64, variance: f64, freedom: f64, confidence: f64) -> Self {
        let error = variance.sqrt();
        let margin = student::quantile(confidence, freedom) * error;
        // A difference as large as the margin is found in half of all tries: it takes more to find it mostly.
        let detectable = student::detectable(confidence, freedom) * error;
        Self { value, margin, detectable }
    }

    /// The same, where nothing finer than this can be told apart.
    #[must_use]
    pub fn no_finer_than(self, finest: f64) -> Self {
        Self { margin: self.margin.max(finest), detectable: self.detectable.max(finest), ..self }
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
    if weighted > 0.0 { (sum * sum / weighted).max(1.0) } else { FREEDOM_MIN }
}

#[cfg(test)]
mod tests;
