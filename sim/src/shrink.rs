//! From a seed that fails to the least of it that still does.
//!
//! A run is shrunk by leaving things out and looking whether the same promise is still broken: first whole kinds of faults,
//! then the operations that come last, then single deeds. What is left is not the least there could be, but
//! nothing of it can be left out alone.

use std::collections::BTreeSet;

use crate::cut::{Cut, Fault};
use crate::plan::Plan;
use crate::run::{Options, Report, run};

/// Runs that shrinking may take.
const RUNS_MAX: usize = 400;

/// What shrinking found.
#[derive(Debug)]
pub struct Shrunk {
    /// What can be left out.
    pub cut: Cut,
    /// The run without it.
    pub report: Report,
    /// How many runs it took.
    pub runs: usize,
}

/// Shrink a run that broke a promise.
pub fn shrink(failed: &Report, options: &Options) -> Shrunk {
    let mut search = Search { options, failed, best: options.cut.clone(), report: failed.clone(), runs: 0 };
    search.leave_out_faults();
    search.leave_out_operations();
    search.leave_out_deeds();
    Shrunk { cut: search.best, report: search.report, runs: search.runs }
}

struct Search<'a> {
    options: &'a Options,
    failed: &'a Report,
    best: Cut,
    report: Report,
    runs: usize,
}

impl Search<'_> {
    /// Does it still fail in the same way with this cut? Then go on from there.
    fn try_cut(&mut self, cut: Cut) -> bool {
        if self.runs >= RUNS_MAX {
            return false;
        }
        self.runs += 1;
        let report =
            run(self.failed.seed, &Options { cut: cut.clone(), trace: false, ..self.options.clone() });
        let promise = |report: &Report| report.violation.as_ref().map(|violation| violation.promise);
        if promise(&report) != promise(self.failed) {
            return false;
        }
        (self.best, self.report) = (cut, report);
        true
    }

    fn leave_out_faults(&mut self) {
        for (fault, _) in Fault::ALL {
            let mut cut = self.best.clone();
            if cut.without.insert(fault) {
                self.try_cut(cut);
            }
        }
    }

    /// Bisect: the least number of operations that still fails, as if failing were monotonic, which it is nearly.
    fn leave_out_operations(&mut self) {
        let (mut too_few, mut enough) = (0, self.report.outcomes.iter().sum::<usize>() as u32);
        while enough - too_few > 1 + enough / 50 {
            let middle = too_few + (enough - too_few) / 2;
            if self.try_cut(Cut { operations: Some(middle), ..self.best.clone() }) {
                enough = middle;
            } else {
                too_few = middle;
            }
        }
    }

    /// Leave out halves, then quarters, down to single deeds.
    fn leave_out_deeds(&mut self) {
        let all = Plan::draw(self.failed.seed, &Cut { deeds: BTreeSet::new(), ..self.best.clone() });
        let mut kept: Vec<usize> = all.deeds.iter().map(|(number, ..)| *number).collect();
        let mut size = kept.len().div_ceil(2);
        while size > 0 {
            let mut at = 0;
            while at < kept.len() {
                let end = (at + size).min(kept.len());
                let mut cut = self.best.clone();
                cut.deeds.extend(&kept[at..end]);
                if self.try_cut(cut) {
                    kept.drain(at..end);
                } else {
                    at = end;
                }
            }
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
    }
}

#[cfg(test)]
mod tests {
    use ringmain::failpoint::Bug;

    use super::*;

    #[test]
    fn what_is_left_of_a_run_is_less_and_fails_in_the_same_way() {
        let options = Options { planted: Some(Bug::ValueTruncated), ..Options::default() };
        // The first seed with something to leave out.
        let deeds = |seed, cut: &Cut| Plan::draw(seed, cut).deeds.len();
        let seed = (0..).find(|&seed| deeds(seed, &Cut::default()) > 3).unwrap();
        let failed = run(seed, &options);
        let promise = |report: &Report| report.violation.as_ref().map(|violation| violation.promise);
        assert!(promise(&failed).is_some());

        let shrunk = shrink(&failed, &options);
        assert_eq!(promise(&shrunk.report), promise(&failed));
        assert!(shrunk.runs <= RUNS_MAX);
        assert_eq!(deeds(seed, &shrunk.cut), 0, "no deed is needed for a value to be cut short");
        assert!(shrunk.cut.without.len() > Fault::ALL.len() / 2, "{}", shrunk.cut);
        let operations = |report: &Report| report.outcomes.iter().sum::<usize>();
        assert!(shrunk.cut.operations.is_some() && operations(&shrunk.report) < operations(&failed));
        assert!(shrunk.report.events < failed.events);

        // What is told is what its cut gives.
        let again = run(seed, &Options { cut: shrunk.cut, ..options });
        assert_eq!((again.hash, promise(&again)), (shrunk.report.hash, promise(&failed)));
    }
}
