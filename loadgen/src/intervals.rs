//! A run second by second: the latencies of what ended in each interval, for logs, and for comparing runs by how much
//! they vary in themselves.
//!
//! The loop that sends only counts into one histogram, and swaps it for an empty one at the end of an interval. A thread of
//! its own encodes what was swapped out, so that the loop isn't held up.
//!
//! A run whose length is known has intervals of a length that keeps them few ([`length_s`]). One that takes longer, as a replay
//! that waits for its servers may, gets longer ones: when there are too many, neighbours are joined, and from then on each
//! is twice as long.

use std::sync::mpsc;
use std::thread;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::encoded::{decode, encode};
use crate::operation::Kind;
use crate::outcome::{Completion, Outcome};
use crate::tally::latency_histogram;

/// What ended in a part of the run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Interval {
    /// When it began, in seconds from the start of the run.
    pub start_s: f64,
    /// How long it was, in seconds.
    pub length_s: f64,
    /// Operations that ended.
    pub operations: u64,
    /// How many of those failed.
    pub errors: u64,
    /// How many were reads that were answered.
    pub reads: u64,
    /// How many of those were behind a write.
    pub stale: u64,
    /// The longest latency in nanoseconds, among the successes.
    pub max_ns: u64,
    /// Latencies of the successes from the due moment in nanoseconds: an HDR histogram, V2, deflated, in base 64.
    pub due_histogram: String,
}

/// Counts what ends, interval by interval.
#[derive(Debug)]
pub struct Intervals {
    open: Open,
    start_ns: u64,
    /// As many as the encoder has.
    closed: usize,
    /// An interval is as long as so many cuts, of which this is the latest.
    stride: u32,
    cuts: u32,
    sender: mpsc::Sender<(Open, u64, u64)>,
    encoder: thread::JoinHandle<Vec<Interval>>,
}

/// An interval under way.
#[derive(Debug)]
struct Open {
    due: Histogram<u64>,
    errors: u64,
    reads: u64,
    stale: u64,
}

/// No run has so many. At some kilobytes each, some ten megabytes.
const INTERVALS_MAX: usize = 4000;

/// The length of intervals in whole seconds, so that a run of so many seconds has no more than it may.
pub fn length_s(run_s: f64) -> u64 {
    (run_s / 3600.0).ceil().max(1.0) as u64
}

impl Intervals {
    /// From the start of the run on.
    pub fn begin() -> Self {
        let (sender, receiver) = mpsc::channel::<(Open, u64, u64)>();
        let encode_all = move || {
            let mut intervals = Vec::new();
            for (open, from, upto) in receiver {
                intervals.push(open.close(from, upto));
                if intervals.len() == INTERVALS_MAX {
                    intervals = intervals.chunks(2).map(Interval::joined).collect();
                }
            }
            intervals
        };
        let encoder = thread::Builder::new().name("intervals".to_owned()).spawn(encode_all);
        let encoder = encoder.expect("a process that runs can start one more thread");
        Self { open: Open::new(), start_ns: 0, closed: 0, stride: 1, cuts: 0, sender, encoder }
    }

    /// Counts an operation that has ended.
    pub fn record(&mut self, completion: &Completion) {
        self.open.record(completion);
    }

    /// Ends an interval, so long after the start of the run; or not yet, if they are longer than that by now.
    pub fn cut(&mut self, now_ns: u64) {
        self.cuts += 1;
        if self.cuts >= self.stride && now_ns > self.start_ns {
            self.cuts = 0;
            self.close(now_ns);
        }
    }

    /// Ends the last interval. Empty ones at both ends are left out: a warm-up, and the wait for what never came.
    pub fn finish(mut self, now_ns: u64) -> Vec<Interval> {
        self.close(now_ns.max(self.start_ns + 1));
        drop(self.sender);
        let mut intervals = self.encoder.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let is_empty = |interval: &Interval| interval.operations == 0;
        while intervals.last().is_some_and(is_empty) {
            intervals.pop();
        }
        let leading = intervals.iter().take_while(|interval| is_empty(interval)).count();
        intervals.drain(..leading);
        intervals
    }

    fn close(&mut self, now_ns: u64) {
        let open = std::mem::replace(&mut self.open, Open::new());
        self.sender
            .send((open, self.start_ns, now_ns))
            .expect("the encoder listens as long as there is a sender");
        self.start_ns = now_ns;
        self.closed += 1;
        if self.closed == INTERVALS_MAX {
            self.closed /= 2;
            self.stride *= 2;
        }
    }
}

impl Interval {
    /// Neighbours as one interval; at least one.
    fn joined(neighbours: &[Self]) -> Self {
        let (first, rest) = neighbours.split_first().expect("at least one");
        let mut joined = first.clone();
        let decode = |text: &str| decode(text).expect("it was encoded here");
        let mut due = decode(&first.due_histogram);
        for next in rest {
            joined.length_s = next.start_s + next.length_s - joined.start_s;
            joined.operations += next.operations;
            joined.errors += next.errors;
            joined.reads += next.reads;
            joined.stale += next.stale;
            joined.max_ns = joined.max_ns.max(next.max_ns);
            due.add(decode(&next.due_histogram)).expect("all histograms have the same bounds");
        }
        joined.due_histogram = encode(&due);
        joined
    }
}

impl Open {
    fn new() -> Self {
        Self { due: latency_histogram(), errors: 0, reads: 0, stale: 0 }
    }

    fn record(&mut self, completion: &Completion) {
        match completion.outcome {
            Outcome::Failed(_) => {
                self.errors += 1;
                return;
            }
            Outcome::Stale => self.stale += 1,
            Outcome::Done | Outcome::NotFound => {}
        }
        self.reads += u64::from(completion.kind == Kind::Read);
        self.due.saturating_record(completion.due_latency_ns());
    }

    fn close(self, from_ns: u64, upto_ns: u64) -> Interval {
        Interval {
            start_s: from_ns as f64 / 1e9,
            length_s: (upto_ns - from_ns) as f64 / 1e9,
            operations: self.due.len() + self.errors,
            errors: self.errors,
            reads: self.reads,
            stale: self.stale,
            max_ns: self.due.max(),
            due_histogram: encode(&self.due),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::clock::Moment;
    use crate::outcome::Failure;

    use super::*;

    fn ended(latency_ns: u64, outcome: Outcome) -> Completion {
        Completion { kind: Kind::Read, due: Moment(0), sent: Moment(0), done: Moment(latency_ns), outcome }
    }

    #[test]
    fn what_ends_stands_in_its_interval() {
        let mut intervals = Intervals::begin();
        intervals.cut(1_000_000_000);
        intervals.record(&ended(1000, Outcome::Done));
        intervals.record(&ended(3000, Outcome::Stale));
        intervals.record(&ended(1, Outcome::Failed(Failure::Timeout)));
        intervals.cut(2_500_000_000);
        intervals.cut(3_000_000_000);
        intervals.record(&ended(7000, Outcome::NotFound));
        intervals.cut(4_000_000_000);
        let all = intervals.finish(4_100_000_000);
        let starts: Vec<f64> = all.iter().map(|interval| interval.start_s).collect();
        assert_eq!(starts, [1.0, 2.5, 3.0], "empty ones are left out at the ends, and only there");
        let first = &all[0];
        assert_eq!((first.operations, first.errors, first.reads, first.stale), (3, 1, 2, 1));
        assert!(first.length_s == 1.5 && (3000..3006).contains(&first.max_ns), "{first:?}");
        assert_eq!(decode(&first.due_histogram).expect("a histogram").len(), 2);
    }

    #[test]
    fn a_long_run_has_few_intervals() {
        assert_eq!((length_s(20.0), length_s(3600.0), length_s(3601.0), length_s(86_400.0)), (1, 1, 2, 24));
    }

    /// Nobody knew how long the run would be: all of it is seen, and not all but one interval of the first hour.
    #[test]
    fn a_run_longer_than_planned_is_seen_to_its_end() {
        const SECONDS: u64 = 3 * INTERVALS_MAX as u64 + 51;
        let mut intervals = Intervals::begin();
        for second in 1..=SECONDS {
            intervals.record(&ended(second, Outcome::Done));
            intervals.cut(second * 1_000_000_000);
        }
        let all = intervals.finish(SECONDS * 1_000_000_000 + 1);
        assert!((INTERVALS_MAX / 2..INTERVALS_MAX).contains(&all.len()), "{}", all.len());
        assert_eq!(all.iter().map(|interval| interval.operations).sum::<u64>(), SECONDS);
        for (place, pair) in all.windows(2).enumerate() {
            let [left, right] = pair else { unreachable!("windows of two") };
            assert!(
                (left.start_s + left.length_s - right.start_s).abs() < 1e-6,
                "{place}: {left:?} {right:?}"
            );
            assert_eq!((left.length_s, left.operations), (4.0, 4), "{place}");
        }
        assert_eq!(decode(&all[9].due_histogram).map(|due| (due.len(), due.max())), Ok((4, 40)));
    }
}
