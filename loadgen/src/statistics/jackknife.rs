//! Percentiles and shares of a run, and how they vary, by leaving out one block of intervals after the other.
//!
//! Tukey's jackknife on blocks (H. Künsch, "The jackknife and the bootstrap for general stationary observations", Annals of
//! Statistics 17(3), 1989, without overlap): with `k` blocks and the figure `f`, block `i` has the pseudo-value
//! `k f - (k - 1) f_without_i`, and the variance of the figure is that of their mean. A single stall shows: it is in one
//! block, whose absence changes everything, so that the variance is as large as it should be.
//!
//! Where neighbouring pseudo-values still correlate by `r > 0`, the variance is multiplied by `(1 + r) / (1 - r)` and the
//! degrees of freedom divided by it. The estimate of `r` from so few blocks is `1/k` too low on average; that is added.

use hdrhistogram::Histogram;

use crate::tally::{Percentile, latency_histogram};

use super::{Estimate, FREEDOM_MIN};

/// What ended in an interval.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Latencies of the successes.
    pub due: Histogram<u64>,
    /// Failures, each slower than every success.
    pub errors: u64,
}

/// What lies beyond a percentile of a run.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Tail {
    operations: u64,
    beyond: u64,
    /// Of the operations beyond, by the interval they ended in: their sum, and that of their squares.
    sum: f64,
    squares: f64,
}

/// The blocks of a run.
#[derive(Debug)]
pub struct Blocks {
    samples: Vec<Sample>,
    blocks: Vec<Sample>,
    total: Sample,
}

/// With fewer intervals there are no blocks to speak of.
pub const INTERVALS_MIN: usize = 10;
/// A percentile has an uncertainty only if so many operations of the run lie beyond it.
pub const BEYOND_MIN: u64 = 10;

/// Up to the p90, so much lies beyond a percentile that no few events are all of it.
const TAIL_OF: u64 = 10;
/// Beyond that, in so many intervals. With 8 events on one side and none on the other, chance is at 1% (2^-7).
const SPREAD_MIN: f64 = 8.0;
const BLOCKS_MIN: usize = 8;
const BLOCKS_MAX: usize = 20;
/// A correlation above this can't be told from a drift: no more is believed.
const CORRELATION_MAX: f64 = 0.8;
/// Histograms are exact to three digits, and no difference below that is one.
pub const RESOLUTION: f64 = 0.001;
/// The deviation of an even spread over it.
const RESOLUTION_DEVIATION: f64 = RESOLUTION * 0.288_675;

impl Blocks {
    /// Cuts a run into blocks; `None` if it has too few intervals.
    pub fn cut(samples: Vec<Sample>) -> Option<Self> {
        if samples.len() < INTERVALS_MIN {
            return None;
        }
        let count = ((samples.len() as f64).sqrt() * 1.5).round() as usize;
        let count = count.clamp(BLOCKS_MIN, BLOCKS_MAX).min(samples.len());
        let bounds = |block: usize| block * samples.len() / count;
        let blocks = (0..count).map(|block| Sample::sum(&samples[bounds(block)..bounds(block + 1)]));
        let (blocks, total) = (blocks.collect(), Sample::sum(&samples));
        Some(Self { samples, blocks, total })
    }

    /// Operations of the run.
    pub fn operations(&self) -> u64 {
        self.total.operations()
    }

    /// What lies beyond a percentile; `None` if that falls among the failures.
    pub fn tail(&self, percentile: Percentile) -> Option<Tail> {
        let operations = self.operations();
        let latency_ns = self.total.logarithms(&[percentile]).pop()??.exp() as u64;
        let counts = self.samples.iter().map(|sample| sample.beyond(latency_ns) as f64);
        let (sum, squares) =
            counts.fold((0.0, 0.0), |(sum, squares), count| (sum + count, squares + count * count));
        Some(Tail { operations, beyond: operations - percentile.rank(operations), sum, squares })
    }

    /// The logarithm of each percentile in nanoseconds. `None` for those that fall among the failures, or would
    /// without one of the blocks.
    pub fn percentiles(&self, percentiles: &[Percentile]) -> Vec<Option<Estimate>> {
        let whole = self.total.logarithms(percentiles);
        let mut without: Vec<Vec<Option<f64>>> = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            without.push(self.total.less(block).logarithms(percentiles));
        }
        let of_one = |place: usize| {
            let without: Option<Vec<f64>> = without.iter().map(|figures| figures[place]).collect();
            let mut estimate = estimate(whole[place]?, &without?);
            estimate.variance += RESOLUTION_DEVIATION.powi(2);
            Some(estimate)
        };
        (0..percentiles.len()).map(of_one).collect()
    }

    /// Failures as a share of all operations.
    pub fn error_share(&self) -> Estimate {
        let without: Vec<f64> =
            self.blocks.iter().map(|block| self.total.less(block).error_share()).collect();
        estimate(self.total.error_share(), &without)
    }
}

impl Tail {
    /// Whether so many operations of the run lie beyond that its percentile is one.
    pub fn is_long(&self) -> bool {
        self.beyond >= BEYOND_MIN
    }

    /// Whether enough is known of a percentile of these runs of one side to say how it varies within them: enough operations
    /// of each lie beyond it, and in the tail, they are of enough different intervals. Three stalls are three events, however
    /// many operations each of them holds up, and a run that happened to have none is no other build.
    pub fn are_spread(tails: &[Self]) -> bool {
        let is_tail = tails.iter().any(|tail| tail.beyond * TAIL_OF < tail.operations);
        tails.iter().all(Self::is_long) && (!is_tail || Self::spread(tails) >= SPREAD_MIN)
    }

    /// Over how many intervals what is slower is spread, each counted by its share: `(sum n)^2 / sum n^2`.
    fn spread(tails: &[Self]) -> f64 {
        let sum: f64 = tails.iter().map(|tail| tail.sum).sum();
        let squares: f64 = tails.iter().map(|tail| tail.squares).sum();
        if squares > 0.0 { sum * sum / squares } else { 0.0 }
    }
}

/// A figure, from its value and its values without each of the blocks.
pub(super) fn estimate(whole: f64, without: &[f64]) -> Estimate {
    let count = without.len() as f64;
    let pseudo: Vec<f64> = without.iter().map(|figure| count * whole - (count - 1.0) * figure).collect();
    let mean = pseudo.iter().sum::<f64>() / count;
    let squares: f64 = pseudo.iter().map(|value| (value - mean).powi(2)).sum();
    let products: f64 = pseudo.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean)).sum();
    let correlation = if squares > 0.0 { products / squares + 1.0 / count } else { 0.0 };
    let correlation = correlation.clamp(0.0, CORRELATION_MAX);
    let inflation = (1.0 + correlation) / (1.0 - correlation);
    Estimate {
        value: whole,
        variance: squares / (count - 1.0) / count * inflation,
        freedom: ((count - 1.0) / inflation).max(FREEDOM_MIN),
    }
}

impl Sample {
    fn sum<'a>(samples: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut sum = Self { due: latency_histogram(), errors: 0 };
        for sample in samples {
            sum.due.add(&sample.due).expect("all histograms have the same bounds");
            sum.errors += sample.errors;
        }
        sum
    }

    fn less(&self, part: &Self) -> Self {
        let mut due = self.due.clone();
        due.subtract(&part.due).expect("a part of the whole");
        Self { due, errors: self.errors - part.errors }
    }

    /// Operations that took longer, failures among them.
    fn beyond(&self, latency_ns: u64) -> u64 {
        let above = self.due.highest_equivalent(latency_ns) + 1;
        if above > self.due.max() {
            self.errors
        } else {
            self.due.count_between(above, self.due.max()) + self.errors
        }
    }

    fn operations(&self) -> u64 {
        self.due.len() + self.errors
    }

    fn error_share(&self) -> f64 {
        if self.operations() == 0 { 0.0 } else { self.errors as f64 / self.operations() as f64 }
    }

    /// The logarithm of each percentile, between the bounds of the histogram's bucket in proportion; `None` among the
    /// failures. Percentiles must rise.
    fn logarithms(&self, percentiles: &[Percentile]) -> Vec<Option<f64>> {
        let operations = self.operations();
        let ranks: Vec<u64> = percentiles.iter().map(|percentile| percentile.rank(operations)).collect();
        assert!(ranks.is_sorted(), "one walk finds them all if they rise");
        let mut found = Vec::with_capacity(ranks.len());
        let mut before = 0;
        for step in self.due.iter_recorded() {
            let here = step.count_since_last_iteration();
            while let Some(&rank) = ranks.get(found.len()).filter(|&&rank| rank <= before + here) {
                let low = self.due.lowest_equivalent(step.value_iterated_to()) as f64;
                let width = self.due.equivalent_range(step.value_iterated_to()) as f64;
                let place = (rank.saturating_sub(before) as f64 - 0.5).max(0.0) / here as f64;
                found.push(Some((low + width * place).max(1.0).ln()));
            }
            before += here;
        }
        found.resize(ranks.len(), None);
        found
    }
}
