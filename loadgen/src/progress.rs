//! One line a second while a run goes on.

use hdrhistogram::Histogram;

use crate::duration::display_ns;
use crate::outcome::{Completion, Outcome};
use crate::tally::{Percentile, value_at};

/// What ended since the last line.
#[derive(Debug)]
pub struct Progress {
    due: Histogram<u64>,
    errors: u64,
}

impl Progress {
    /// Counts an operation that has ended.
    pub fn record(&mut self, completion: &Completion) {
        match completion.outcome {
            Outcome::Failed(_) => self.errors += 1,
            _ => self.due.saturating_record(completion.due_latency_ns()),
        }
    }

    /// The line for what ended since the last one, which begins anew.
    pub fn line(&mut self, elapsed_s: u64, in_flight: usize) -> String {
        let line = format!(
            "{elapsed_s:>5} s  {:>7} ops  p50 {:>8}  p99 {:>8}  max {:>8}  errors {:>5}  in flight {in_flight}",
            self.due.len() + self.errors,
            display_ns(value_at(&self.due, Percentile::P50)),
            display_ns(value_at(&self.due, Percentile::P99)),
            display_ns(self.due.max()),
            self.errors,
        );
        self.due.reset();
        self.errors = 0;
        line
    }
}

impl Default for Progress {
    fn default() -> Self {
        // From a microsecond to an hour with two digits: walking and clearing it holds up the loop that sends.
        let due =
            Histogram::new_with_bounds(1000, 3_600_000_000_000, 2).expect("bounds are constants that fit");
        Self { due, errors: 0 }
    }
}

#[cfg(test)]
mod tests {
    use crate::clock::Moment;
    use crate::operation::Kind;
    use crate::outcome::Failure;

    use super::*;

    #[test]
    fn a_line_tells_its_second_only() {
        let mut progress = Progress::default();
        for outcome in [Outcome::Done, Outcome::Failed(Failure::Timeout)] {
            let (due, sent, done) = (Moment(0), Moment(0), Moment(2_000_000));
            progress.record(&Completion { kind: Kind::Read, due, sent, done, outcome });
        }
        let line = progress.line(3, 7);
        assert!(line.contains("3 s        2 ops  p50  2.0"), "{line}");
        assert!(line.ends_with("errors     1  in flight 7"), "{line}");
        assert!(progress.line(4, 0).contains(" 0 ops"), "the next second begins anew");
    }
}
