//! The highest rate that meets an objective: bracketed, halved, and confirmed.
//!
//! 1. **Bracket.** From the first rate on, twice as much while the objective is met, or half while it is missed, until one
//!    rate meets it and one doesn't.
//! 2. **Halve** the bracket, by the geometric mean, until its ends are near enough.
//! 3. **Confirm.** One run may be lucky. Both ends are run several times more, in shuffled order, so that what changes over
//!    time doesn't favour one of them. The lower must meet the objective every time, or the bracket moves down by
//!    a step; if the upper does every time too, it moves up.
//!
//! A rate that the generator could not offer bounds the bracket, but it shows nothing of the servers: if the answer rests on
//! one, it is a lower bound, and says so. This is a machine without a clock or a process: it is told what came of a
//! rate, and says which to try next.

use ringmain::prng::Prng;
use serde::Serialize;

/// What came of a run at some rate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It met the objective.
    Met,
    /// It didn't.
    Missed,
    /// The generator could not offer the load.
    NotOffered,
}

/// How to search.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Plan {
    /// The first rate, in operations a second.
    pub from: f64,
    /// The upper end of the bracket is at most so much above the lower, as a share of it.
    pub precision: f64,
    /// Runs of each end that confirm it.
    pub confirm: u32,
}

/// A search under way.
#[derive(Debug)]
pub struct Search {
    plan: Plan,
    prng: Prng,
    /// The highest rate known to meet the objective.
    low: Option<f64>,
    /// The lowest known not to, and why.
    high: Option<(f64, Outcome)>,
    stage: Stage,
    moves: u32,
}

#[derive(Debug)]
enum Stage {
    Narrow,
    Confirm { left: Vec<End>, low_met: u32, high_met: u32, high_not_offered: bool },
    Ended(Answer),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Low,
    High,
}

/// What the search found.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The highest rate that met the objective in every confirming run.
    Highest {
        /// In operations a second.
        rate: f64,
        /// The next rate that was tried.
        beyond: f64,
        /// In so many of the confirming runs it met the objective too: near its limit, chance decides.
        beyond_met: u32,
        /// Of so many.
        confirm: u32,
    },
    /// The objective was met as far as the generator reached: the servers' limit is higher.
    AtLeast {
        /// The highest rate that met it in every confirming run.
        rate: f64,
        /// The lowest that the generator could not offer; `None` where there is no higher rate at all.
        not_offered: Option<f64>,
    },
    /// Even the lowest rate missed the objective, or could not be offered.
    None {
        /// The lowest that was tried.
        lowest: f64,
    },
    /// The ends changed places too often: what is measured changes more than the rate does.
    Unsettled {
        /// The lower end by now.
        low: f64,
    },
}

/// Slower is no load.
const RATE_MIN: f64 = 1.0;
/// Faster is offered by no generator.
pub const RATE_MAX: f64 = 10_000_000.0;
/// The bracket moves no more often while it is confirmed.
const MOVES_MAX: u32 = 8;

impl Search {
    /// A search that has seen nothing. The same seed shuffles alike.
    pub fn new(plan: Plan, seed: u64) -> Self {
        assert!(plan.precision > 0.0 && plan.confirm > 0 && plan.from > 0.0, "{plan:?} leads nowhere");
        let prng = Prng::from_seed(seed);
        Self { plan, prng, low: None, high: None, stage: Stage::Narrow, moves: 0 }
    }

    /// The rate to try next, in operations a second; or the answer.
    pub fn next(&self) -> Result<f64, Answer> {
        match &self.stage {
            Stage::Ended(answer) => Err(*answer),
            Stage::Confirm { left, .. } => {
                let end = *left.last().expect("a stage without runs has ended");
                Ok(self.rate_of(end))
            }
            Stage::Narrow => Ok(rounded(match (self.low, self.high) {
                (None, None) => self.plan.from,
                (Some(low), None) => (low * 2.0).min(RATE_MAX),
                (None, Some((high, _))) => (high / 2.0).max(RATE_MIN),
                (Some(low), Some((high, _))) => (low * high).sqrt(),
            })),
        }
    }

    /// What came of the rate that was to be tried.
    pub fn observe(&mut self, outcome: Outcome) {
        let Ok(rate) = self.next() else { panic!("the search has ended") };
        match &mut self.stage {
            Stage::Ended(_) => unreachable!("it has no next rate"),
            Stage::Narrow => {
                if outcome == Outcome::Met {
                    self.low = Some(rate);
                } else {
                    self.high = Some((rate, outcome));
                }
                self.narrow();
            }
            Stage::Confirm { left, low_met, high_met, high_not_offered } => {
                let met = u32::from(outcome == Outcome::Met);
                match left.pop().expect("a stage without runs has ended") {
                    End::Low => *low_met += met,
                    End::High => {
                        *high_met += met;
                        *high_not_offered |= outcome == Outcome::NotOffered;
                    }
                }
                if left.is_empty() {
                    let (low_met, high_met, not_offered) = (*low_met, *high_met, *high_not_offered);
                    self.decide(low_met, high_met, not_offered);
                }
            }
        }
    }

    fn rate_of(&self, end: End) -> f64 {
        match end {
            End::Low => self.low.expect("what is confirmed has a lower end"),
            End::High => self.high.expect("an upper end is confirmed only if there is one").0,
        }
    }

    fn narrow(&mut self) {
        match (self.low, self.high) {
            (None, Some((high, _))) if high <= RATE_MIN => self.end(Answer::None { lowest: high }),
            (Some(low), None) if low >= RATE_MAX => self.begin_confirming(),
            (Some(low), Some((high, _))) if self.is_near(low, high) => self.begin_confirming(),
            _ => {}
        }
    }

    /// Rounding to three digits may leave no rate between the two.
    fn is_near(&self, low: f64, high: f64) -> bool {
        let middle = rounded((low * high).sqrt());
        high <= low * (1.0 + self.plan.precision) || middle <= low || middle >= high
    }

    fn begin_confirming(&mut self) {
        let confirm = self.plan.confirm as usize;
        let mut left = vec![End::Low; confirm];
        if self.high.is_some() {
            left.extend(std::iter::repeat_n(End::High, confirm));
        }
        // Fisher and Yates.
        for place in (1..left.len()).rev() {
            left.swap(place, self.prng.below(place as u64 + 1) as usize);
        }
        self.stage = Stage::Confirm { left, low_met: 0, high_met: 0, high_not_offered: false };
    }

    fn decide(&mut self, low_met: u32, high_met: u32, high_not_offered: bool) {
        let (low, confirm) = (self.rate_of(End::Low), self.plan.confirm);
        let step = 1.0 + self.plan.precision;
        if low_met < confirm {
            let lower = rounded(low / step).min(low - 1.0);
            if lower < RATE_MIN {
                return self.end(Answer::None { lowest: low });
            }
            return self.move_to(lower, Some((low, Outcome::Missed)));
        }
        match self.high {
            None => self.end(Answer::AtLeast { rate: low, not_offered: None }),
            Some((high, _)) if high_met == confirm => {
                let higher = rounded(high * step).max(high + 1.0);
                let higher = (higher <= RATE_MAX).then_some((higher, Outcome::Missed));
                self.move_to(high, higher);
            }
            Some((high, Outcome::NotOffered)) => {
                self.end(Answer::AtLeast { rate: low, not_offered: Some(high) });
            }
            Some((high, _)) if high_not_offered => {
                self.end(Answer::AtLeast { rate: low, not_offered: Some(high) });
            }
            Some((high, _)) => {
                self.end(Answer::Highest { rate: low, beyond: high, beyond_met: high_met, confirm });
            }
        }
    }

    fn move_to(&mut self, low: f64, high: Option<(f64, Outcome)>) {
        self.moves += 1;
        (self.low, self.high) = (Some(low), high);
        if self.moves > MOVES_MAX {
            return self.end(Answer::Unsettled { low });
        }
        self.begin_confirming();
    }

    fn end(&mut self, answer: Answer) {
        self.stage = Stage::Ended(answer);
    }
}

/// To three significant digits: nobody offers 12,345.678/s on purpose.
fn rounded(rate: f64) -> f64 {
    let unit = 10f64.powf(rate.log10().floor() - 2.0).max(0.01);
    ((rate / unit).round() * unit).clamp(RATE_MIN, RATE_MAX)
}

#[cfg(test)]
mod tests;
