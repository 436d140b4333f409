//! Many seeds, on as many threads as are asked for. This file and `main` alone know threads and the machine's clock.

#![allow(clippy::disallowed_methods, reason = "to say how fast the runs were")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ringmain::failpoint::Rare;

use crate::run::{Options, Report, run_checked};

/// Which seeds to run.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The first seed.
    pub first: u64,
    /// How many at most.
    pub seeds: u64,
    /// When to begin no more.
    pub until: Option<Instant>,
    /// Threads.
    pub jobs: usize,
    /// Stop at the first violation.
    pub stop_at_violation: bool,
}

/// What came of many seeds.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Seeds that were run.
    pub seeds: u64,
    /// Those that broke a promise.
    pub violations: u64,
    /// The first of them, in the order of their seeds: at most [`FAILED_MAX`].
    pub failed: Vec<Report>,
    /// Time that passed for the machine.
    pub real: Duration,
    /// Time that passed in the runs, in nanoseconds.
    pub virtual_ns: u64,
    /// In how many seeds each rare state was reached, in the order of [`Rare::ALL`].
    pub reached: [u64; Rare::ALL.len()],
    /// Operations, by how they ended.
    pub outcomes: [usize; 4],
    /// All events.
    pub events: u64,
}

/// Failed reports that are kept: more say nothing new.
pub const FAILED_MAX: usize = 100;

/// Run them.
pub fn run_batch(batch: &Batch, options: &Options) -> Tally {
    let started = Instant::now();
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let (sender, receiver) = mpsc::channel();
    let mut tally = Tally::new();
    std::thread::scope(|scope| {
        for _ in 0..batch.jobs.max(1) {
            let (sender, next, stop) = (sender.clone(), &next, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) && batch.until.is_none_or(|until| Instant::now() < until)
                {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= batch.seeds {
                        return;
                    }
                    let report = run_checked(batch.first + number, number, options);
                    if batch.stop_at_violation && report.violation.is_some() {
                        stop.store(true, Ordering::Relaxed);
                    }
                    if sender.send(report).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for report in receiver {
            tally.add(report);
        }
    });
    tally.real = started.elapsed();
    tally
}

impl Tally {
    const fn new() -> Self {
        Self {
            seeds: 0,
            violations: 0,
            failed: Vec::new(),
            real: Duration::ZERO,
            virtual_ns: 0,
            reached: [0; Rare::ALL.len()],
            outcomes: [0; 4],
            events: 0,
        }
    }

    fn add(&mut self, report: Report) {
        self.seeds += 1;
        self.virtual_ns += report.lasted.0;
        self.events += report.events;
        for (sum, reached) in self.reached.iter_mut().zip(report.reached) {
            *sum += u64::from(reached > 0);
        }
        for (sum, outcomes) in self.outcomes.iter_mut().zip(report.outcomes) {
            *sum += outcomes;
        }
        if report.violation.is_some() {
            self.violations += 1;
            // Threads are done in any order.
            let place = self.failed.partition_point(|before| before.seed < report.seed);
            self.failed.insert(place, report);
            self.failed.truncate(FAILED_MAX);
        }
    }

    /// Seeds in an hour at this speed.
    pub fn seeds_an_hour(&self) -> f64 {
        self.seeds as f64 / self.real.as_secs_f64() * 3600.0
    }

    /// How much faster than the clock.
    pub fn speed(&self) -> f64 {
        self.virtual_ns as f64 / self.real.as_nanos() as f64
    }

    /// Rare states that were reached in less than one seed of a thousand.
    pub fn too_rare(&self) -> Vec<Rare> {
        let pairs = Rare::ALL.iter().zip(self.reached);
        pairs.filter(|(_, seeds)| seeds * 1000 < self.seeds).map(|(state, _)| *state).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::{Promise, Violation};

    #[test]
    fn every_violation_is_counted_and_the_first_are_kept() {
        let failed = |seed| Report {
            seed,
            violation: Some(Violation {
                promise: Promise::NoPanic,
                key: None,
                sentence: String::new(),
                operations: Vec::new(),
            }),
            story: String::new(),
            hash: 0,
            told: 0,
            events: 0,
            lasted: ringmain::time::Duration::ZERO,
            reached: [0; Rare::ALL.len()],
            outcomes: [0; 4],
        };
        let mut tally = Tally::new();
        (0..=2 * FAILED_MAX as u64).rev().for_each(|seed| tally.add(failed(seed)));
        assert_eq!(tally.violations, 2 * FAILED_MAX as u64 + 1);
        let kept: Vec<u64> = tally.failed.iter().map(|report| report.seed).collect();
        assert_eq!(kept, (0..FAILED_MAX as u64).collect::<Vec<_>>());
    }
}
