//! What was measured, and what is made of it.

use std::process::ExitCode;
use std::time::Duration;

/// How long answers took, each of them.
#[derive(Default)]
pub struct Latencies {
    /// Longer ones than four seconds count as that.
    ns: Vec<u32>,
}

impl Latencies {
    pub fn add(&mut self, latency: Duration, answers: usize) {
        let ns = u32::try_from(latency.as_nanos()).unwrap_or(u32::MAX);
        self.ns.resize(self.ns.len() + answers, ns);
    }

    /// In milliseconds: the least that so many of a thousand don't exceed.
    pub fn per_mille(&mut self, share: usize) -> f64 {
        assert!(!self.ns.is_empty(), "something was answered");
        let rank = (self.ns.len() * share).div_ceil(1000).saturating_sub(1);
        f64::from(*self.ns.select_nth_unstable(rank).1) / 1e6
    }
}

/// Of an even number of them, the mean of the two in the middle.
pub fn median(figures: &[f64]) -> f64 {
    let mut figures = figures.to_vec();
    figures.sort_by(f64::total_cmp);
    f64::midpoint(figures[(figures.len() - 1) / 2], figures[figures.len() / 2])
}

/// Say what missed its target; that is a failure only if it was asked for.
pub fn conclude(is_checked: bool, shortcomings: &[String]) -> ExitCode {
    match (shortcomings, is_checked) {
        ([], true) => println!("PASS"),
        ([], false) => println!("all targets are met"),
        (some, true) => {
            println!("FAIL: {}", some.join("; "));
            return ExitCode::FAILURE;
        }
        (some, false) => println!("short of its target: {}", some.join("; ")),
    }
    ExitCode::SUCCESS
}
