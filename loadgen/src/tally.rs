//! The figures of a set of operations: two latency histograms, and what became of each.
//!
//! Percentiles are over **all** operations, and a failed one counts as slower than every success: a store
//! that refuses a hundredth of its requests at once has no p99.9. So histograms hold successes only, and a
//! percentile may answer [`Latency::Failed`].

use hdrhistogram::Histogram;

use crate::operation::Kind;
use crate::outcome::{Completion, Failure, Outcome};

/// A share of the operations in parts per billion, exact where a float is not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Percentile {
    /// `0 < billionths < ONE`.
    billionths: u64,
}

/// The latency below which a share of the operations lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Latency {
    /// There are no operations.
    None,
    /// In nanoseconds, exact to three significant digits.
    Ns(u64),
    /// That share isn't reached by the operations that succeeded.
    Failed,
}

/// What became of some operations. Tallies of threads, kinds and phases add up.
#[derive(Clone, Debug)]
pub struct Tally {
    due: Histogram<u64>,
    service: Histogram<u64>,
    counts: Counts,
}

/// What is counted beside the latencies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Reads that were answered.
    pub reads: u64,
    /// Reads that rightly found nothing.
    pub not_found: u64,
    /// Reads that were behind a write, where that is allowed.
    pub stale: u64,
    /// Operations that failed, in the order of [`Failure::ALL`].
    pub failures: [u64; Failure::ALL.len()],
}

/// Longer latencies are recorded as this: one hour.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;
const ONE: u64 = 1_000_000_000;

/// An empty histogram of nanoseconds up to an hour: 270 KB.
pub fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, SIGNIFICANT_DIGITS).expect("bounds are constants that fit")
}

impl Percentile {
    /// The median.
    pub const P50: Self = Self { billionths: 500_000_000 };
    /// So many operations beyond a percentile show where it is.
    const BEYOND_SHOWN: u64 = 10;
    /// Nine of ten.
    pub const P90: Self = Self { billionths: 900_000_000 };
    /// 99 of 100.
    pub const P99: Self = Self { billionths: 990_000_000 };
    /// 999 of 1000: Dynamo's measure.
    pub const P999: Self = Self { billionths: 999_000_000 };

    /// From a number of billionths, strictly between none and all.
    pub fn from_billionths(billionths: u64) -> Option<Self> {
        (0 < billionths && billionths < ONE).then_some(Self { billionths })
    }

    /// The percentile as a number between 0 and 100.
    pub fn percent(self) -> f64 {
        self.billionths as f64 / 1e7
    }

    /// The least number of operations of which at least one lies beyond: 1000 for p99.9.
    pub fn operations_min(self) -> u64 {
        ONE.div_ceil(ONE - self.billionths)
    }

    /// The least number of operations of which so many lie beyond that the percentile can be relied on: 10,000 for
    /// p99.9. With a thousand, a store of which 0.15% take longer passes in more than half of all runs.
    pub fn operations_shown(self) -> u64 {
        (Self::BEYOND_SHOWN * ONE).div_ceil(ONE - self.billionths)
    }

    /// How many of `count` operations lie at or below it; at least 1 if there are any.
    pub(crate) fn rank(self, count: u64) -> u64 {
        let product = u128::from(count) * u128::from(self.billionths);
        product.div_ceil(u128::from(ONE)) as u64
    }
}

impl Tally {
    /// From what was kept of one. Histograms must have the bounds of [`latency_histogram`].
    pub fn restore(due: Histogram<u64>, service: Histogram<u64>, counts: Counts) -> Self {
        Self { due, service, counts }
    }

    /// Counts an operation.
    pub fn record(&mut self, completion: &Completion) {
        match completion.outcome {
            Outcome::Failed(failure) => {
                self.counts.failures[failure.index()] += 1;
                return;
            }
            Outcome::Done => {}
            Outcome::NotFound => self.counts.not_found += 1,
            Outcome::Stale => self.counts.stale += 1,
        }
        self.counts.reads += u64::from(completion.kind == Kind::Read);
        self.due.saturating_record(completion.due_latency_ns());
        self.service.saturating_record(completion.service_latency_ns());
    }

    /// Adds another tally's figures.
    pub fn merge(&mut self, other: &Self) {
        self.due.add(&other.due).expect("all tallies have the same bounds");
        self.service.add(&other.service).expect("all tallies have the same bounds");
        self.counts.reads += other.counts.reads;
        self.counts.not_found += other.counts.not_found;
        self.counts.stale += other.counts.stale;
        for (mine, theirs) in self.counts.failures.iter_mut().zip(other.counts.failures) {
            *mine += theirs;
        }
    }

    /// All operations.
    pub fn operations(&self) -> u64 {
        self.due.len() + self.errors()
    }

    /// Operations that failed.
    pub fn errors(&self) -> u64 {
        self.counts.failures.iter().sum()
    }

    /// How often operations failed in this way.
    pub fn failed(&self, failure: Failure) -> u64 {
        self.counts.failures[failure.index()]
    }

    /// Reads that were answered, rightly or not quite up to date.
    pub fn reads(&self) -> u64 {
        self.counts.reads
    }

    /// Reads that rightly found nothing.
    pub fn not_found(&self) -> u64 {
        self.counts.not_found
    }

    /// Reads that were behind a write, where that is allowed.
    pub fn stale(&self) -> u64 {
        self.counts.stale
    }

    /// Latency from the due moment.
    pub fn due(&self, percentile: Percentile) -> Latency {
        self.latency(&self.due, percentile)
    }

    /// Latency from the moment the operation was sent.
    pub fn service(&self, percentile: Percentile) -> Latency {
        self.latency(&self.service, percentile)
    }

    /// The longest latency from the due moment, among the successes.
    pub fn due_max(&self) -> Latency {
        if self.due.is_empty() { self.without_success() } else { Latency::Ns(self.due.max()) }
    }

    /// The mean latency from the due moment, among the successes.
    pub fn due_mean(&self) -> Latency {
        if self.due.is_empty() { self.without_success() } else { Latency::Ns(self.due.mean() as u64) }
    }

    /// Latencies of the successes from the due moment.
    pub fn due_histogram(&self) -> &Histogram<u64> {
        &self.due
    }

    /// Latencies of the successes from the moment of sending.
    pub fn service_histogram(&self) -> &Histogram<u64> {
        &self.service
    }

    fn without_success(&self) -> Latency {
        if self.errors() == 0 { Latency::None } else { Latency::Failed }
    }

    fn latency(&self, successes: &Histogram<u64>, percentile: Percentile) -> Latency {
        let rank = percentile.rank(self.operations());
        if rank == 0 {
            return Latency::None;
        }
        value_at_rank(successes, rank).map_or(Latency::Failed, Latency::Ns)
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self { due: latency_histogram(), service: latency_histogram(), counts: Counts::default() }
    }
}

/// The value at a place in the sorted recordings, from 1; `None` beyond the last. The histogram's own
/// quantiles take a float, which can miss the rank by one.
pub fn value_at_rank(histogram: &Histogram<u64>, rank: u64) -> Option<u64> {
    let mut upto = 0;
    histogram
        .iter_recorded()
        .find(|step| {
            upto += step.count_since_last_iteration();
            upto >= rank
        })
        .map(|step| step.value_iterated_to().min(histogram.max()))
}

/// The value below which a share of the recordings lies; 0 if there are none.
pub fn value_at(histogram: &Histogram<u64>, percentile: Percentile) -> u64 {
    value_at_rank(histogram, percentile.rank(histogram.len())).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Moment;

    fn completion(latency_us: u64, outcome: Outcome) -> Completion {
        let due = Moment(1_000_000);
        let (sent, done) = (Moment(due.0 + 500), Moment(due.0 + latency_us * 1000));
        Completion { kind: Kind::Read, due, sent, done, outcome }
    }

    fn close(latency: Latency, expected_ns: u64) -> bool {
        matches!(latency, Latency::Ns(ns) if ns.abs_diff(expected_ns) <= expected_ns / 500)
    }

    #[test]
    fn percentiles_take_the_exact_rank() {
        let mut tally = Tally::default();
        for latency_us in 1..=1000 {
            tally.record(&completion(latency_us, Outcome::Done));
        }
        assert!(close(tally.due(Percentile::P50), 500_000), "{:?}", tally.due(Percentile::P50));
        assert!(close(tally.due(Percentile::P99), 990_000), "{:?}", tally.due(Percentile::P99));
        assert!(close(tally.due(Percentile::P999), 999_000), "{:?}", tally.due(Percentile::P999));
        assert!(close(tally.due_max(), 1_000_000), "{:?}", tally.due_max());
        assert!(close(tally.service(Percentile::P50), 499_500));
        assert_eq!(Percentile::P999.operations_min(), 1000);
        assert_eq!(Percentile::P50.operations_min(), 2);
    }

    #[test]
    fn a_failure_is_slower_than_every_success() {
        let mut tally = Tally::default();
        for _ in 0..990 {
            tally.record(&completion(100, Outcome::Done));
        }
        for _ in 0..10 {
            tally.record(&completion(1, Outcome::Failed(Failure::Overloaded)));
        }
        assert!(close(tally.due(Percentile::P99), 100_000));
        assert_eq!(tally.due(Percentile::P999), Latency::Failed);
        assert_eq!((tally.operations(), tally.errors()), (1000, 10));
    }

    #[test]
    fn nothing_has_no_latency() {
        let mut tally = Tally::default();
        assert_eq!(tally.due(Percentile::P50), Latency::None);
        assert_eq!(tally.due_max(), Latency::None);
        tally.record(&completion(1, Outcome::Failed(Failure::Timeout)));
        assert_eq!(tally.due(Percentile::P50), Latency::Failed);
        assert_eq!(tally.due_max(), Latency::Failed);
    }

    #[test]
    fn merged_tallies_are_the_tally_of_all() {
        let outcomes = [Outcome::Done, Outcome::NotFound, Outcome::Stale, Outcome::Failed(Failure::Lost)];
        let (mut left, mut right, mut all) = (Tally::default(), Tally::default(), Tally::default());
        for latency_us in 1..=100 {
            let completion = completion(latency_us, outcomes[latency_us as usize % 4]);
            if latency_us % 3 == 0 { &mut left } else { &mut right }.record(&completion);
            all.record(&completion);
        }
        left.merge(&right);
        assert_eq!(left.operations(), all.operations());
        assert_eq!(left.due(Percentile::P50), all.due(Percentile::P50));
        assert_eq!(left.reads(), 75, "a failed read is none that was answered");
        assert_eq!((left.stale(), left.not_found(), left.failed(Failure::Lost)), (25, 25, 25));
    }
}
