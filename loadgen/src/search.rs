//! The highest rate that meets an objective: bracketed, halved, and confirmed.
//!
//! 1. **Bracket.** From the first rate on, twice as much while the objective is met, or half while it is missed, until one
//!    rate meets it and one doesn't.
//! 2. **Halve** the bracket, by the geometric mean, until its ends are near enough.
//! 3. **Confirm.** One run may be lucky. Both ends are run several times more, in shuffled order, so that what changes over
//!    time doesn't favour one of them. The lower must meet the objective every time, and so must the sum of those runs,
//!    or the bracket moves down by a step; if the upper does every time too, it moves up.
//!
//! Each outcome but these two has its own consequence:
//!
//! - A rate that the **generator** could not offer bounds the bracket, but it shows nothing of the servers: if the answer
//!   rests on such alone, it is a lower bound, or none at all, and says so. One run that was offered and missed says more
//!   than one that was not offered.
//! - A run of **too few** operations shows nothing either way. Below such a rate nothing can be found, so the search goes up
//!   from it, and never down to it.
//! - A **broken** cluster (a lost value, a node that is gone) has no highest rate. The search stops there and then.
//!
//! This is a machine without a clock or a process: it is told what came of a rate, and says what to try next.

use ringmain::prng::Prng;
use serde::Serialize;

/// What came of a run at some rate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It met the objective, and enough operations show it.
    Met,
    /// It didn't: servers were too slow, or refused too much.
    Missed,
    /// The generator could not offer the load.
    NotOffered,
    /// Too few operations were performed to tell.
    TooFew,
    /// The cluster is broken, and not just slow.
    Broken,
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
    /// The highest rate that has too few operations, below both.
    floor: Option<f64>,
    /// The lowest rate that met the objective in every confirming run, and not in their sum.
    lucky: Option<f64>,
    /// The lowest rate that was offered and missed the objective.
    missed: Option<f64>,
    stage: Stage,
    moves: u32,
}

#[derive(Debug)]
enum Stage {
    Narrow,
    Confirm { left: Vec<End>, low: Seen, high: Seen },
    Sum { high: Seen },
    Ended(Answer),
}

/// What came of the runs that confirm an end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Seen {
    met: u32,
    missed: u32,
    not_offered: u32,
}

/// An end of the bracket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The rate that meets the objective.
    Low,
    /// The rate that doesn't.
    High,
}

/// What the search wants.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Step {
    /// A run at this rate, in operations a second.
    Run(f64),
    /// One that confirms an end of the bracket.
    Confirm(f64, End),
    /// To know whether the sum of the runs that confirmed the lower end, this rate, meets the objective.
    Sum(f64),
    /// Nothing more.
    End(Answer),
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
    /// Even the lowest rate missed the objective.
    None {
        /// The lowest that was offered.
        lowest: f64,
    },
    /// The generator could offer nothing, down to the lowest rate, so nothing is known of the servers.
    NotOffered {
        /// The lowest that was tried.
        lowest: f64,
    },
    /// Where the limit may be, runs have too few operations to tell.
    TooFew {
        /// The highest rate with too few.
        rate: f64,
        /// The lowest that surely didn't meet the objective, or could not be offered.
        missed: Option<f64>,
    },
    /// The cluster broke, and the search stopped.
    Broken {
        /// At this rate.
        rate: f64,
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
        Self {
            plan,
            prng,
            low: None,
            high: None,
            floor: None,
            lucky: None,
            missed: None,
            stage: Stage::Narrow,
            moves: 0,
        }
    }

    /// What to do next.
    pub fn next(&self) -> Step {
        match &self.stage {
            Stage::Ended(answer) => Step::End(*answer),
            Stage::Sum { .. } => Step::Sum(self.rate_of(End::Low)),
            Stage::Confirm { left, .. } => {
                let end = *left.last().expect("a stage without runs has ended");
                Step::Confirm(self.rate_of(end), end)
            }
            Stage::Narrow => Step::Run(rounded(match (self.low.or(self.floor), self.high) {
                (None, None) => self.plan.from,
                (Some(low), None) => (low * 2.0).min(RATE_MAX),
                (None, Some((high, _))) => (high / 2.0).max(RATE_MIN),
                (Some(low), Some((high, _))) => (low * high).sqrt(),
            })),
        }
    }

    /// What came of the run that was asked for.
    pub fn observe(&mut self, outcome: Outcome) {
        let step = self.next();
        if let (Step::Run(rate) | Step::Confirm(rate, _), Outcome::Missed) = (step, outcome) {
            self.missed = Some(self.missed.map_or(rate, |missed| missed.min(rate)));
        }
        match (step, outcome) {
            (Step::Run(rate) | Step::Confirm(rate, _), Outcome::Broken) => self.end(Answer::Broken { rate }),
            (Step::Confirm(rate, End::Low), Outcome::TooFew) => self.end_with_too_few(rate),
            (Step::Run(rate), outcome) => {
                match outcome {
                    Outcome::Met => self.low = Some(rate),
                    Outcome::TooFew => self.floor = Some(rate),
                    Outcome::Missed | Outcome::NotOffered | Outcome::Broken => {
                        self.high = Some((rate, outcome));
                    }
                }
                self.narrow();
            }
            (Step::Confirm(_, end), outcome) => self.confirm(end, outcome),
            (Step::Sum(_) | Step::End(_), _) => panic!("the search asked for no run"),
        }
    }

    /// Whether the sum that was asked for meets the objective.
    pub fn observe_sum(&mut self, is_met: bool) {
        let Stage::Sum { high } = self.stage else { panic!("the search asked for no sum") };
        if is_met {
            return self.decide(high);
        }
        let low = self.rate_of(End::Low);
        self.missed = Some(self.missed.map_or(low, |missed| missed.min(low)));
        self.lucky = Some(self.lucky.map_or(low, |lucky| lucky.min(low)));
        self.move_down(Outcome::Missed);
    }

    fn rate_of(&self, end: End) -> f64 {
        match end {
            End::Low => self.low.expect("what is confirmed has a lower end"),
            End::High => self.high.expect("an upper end is confirmed only if there is one").0,
        }
    }

    fn narrow(&mut self) {
        match (self.low, self.floor, self.high) {
            (None, None, Some((high, _))) if high <= RATE_MIN => self.end_with_none(high),
            (None, Some(floor), None) if floor >= RATE_MAX => self.end_with_too_few(floor),
            (None, Some(floor), Some((high, _))) if self.is_near(floor, high) => self.end_with_too_few(floor),
            (Some(low), _, None) if low >= RATE_MAX => self.begin_confirming(),
            (Some(low), _, Some((high, _))) if self.is_near(low, high) => self.begin_confirming(),
            // A higher rate has more operations; here it had not, and nothing follows.
            (Some(low), Some(floor), _) if floor >= low => self.end_with_too_few(floor),
            _ => {}
        }
    }

    fn end_with_too_few(&mut self, rate: f64) {
        let missed = self.high.map(|(high, _)| high).filter(|&high| high > rate);
        self.end(Answer::TooFew { rate, missed });
    }

    /// A rate that was not offered is none that the servers missed.
    fn end_with_none(&mut self, lowest: f64) {
        self.end(match self.missed {
            Some(lowest) => Answer::None { lowest },
            None => Answer::NotOffered { lowest },
        });
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
        self.stage = Stage::Confirm { left, low: Seen::default(), high: Seen::default() };
    }

    fn confirm(&mut self, end: End, outcome: Outcome) {
        let Stage::Confirm { left, low, high } = &mut self.stage else {
            unreachable!("only what is confirmed asks for it")
        };
        left.pop();
        let seen = match end {
            End::Low => &mut *low,
            End::High => &mut *high,
        };
        match outcome {
            Outcome::Met => seen.met += 1,
            Outcome::Missed => seen.missed += 1,
            Outcome::NotOffered => seen.not_offered += 1,
            Outcome::TooFew | Outcome::Broken => {}
        }
        if !left.is_empty() {
            return;
        }
        let (low, high) = (*low, *high);
        if low.met == self.plan.confirm {
            self.stage = Stage::Sum { high };
        } else {
            self.move_down(if low.missed > 0 { Outcome::Missed } else { Outcome::NotOffered });
        }
    }

    /// The lower end didn't stand.
    fn move_down(&mut self, why: Outcome) {
        let low = self.rate_of(End::Low);
        if low <= RATE_MIN {
            return self.end_with_none(low);
        }
        let lower = rounded(low / (1.0 + self.plan.precision)).min(low - 1.0).max(RATE_MIN);
        self.move_to(lower, Some((low, why)));
    }

    /// The lower end stands.
    fn decide(&mut self, seen: Seen) {
        let (low, confirm) = (self.rate_of(End::Low), self.plan.confirm);
        match self.high {
            None => self.end(Answer::AtLeast { rate: low, not_offered: None }),
            Some((high, _)) if seen.met == confirm && self.lucky.is_none_or(|lucky| high < lucky) => {
                let higher = rounded(high * (1.0 + self.plan.precision)).max(high + 1.0);
                let higher = (higher <= RATE_MAX).then_some((higher, Outcome::Missed));
                self.move_to(high, higher);
            }
            // Offered and missed: that is the servers' limit, whatever became of the other runs.
            Some((high, why)) if seen.missed == 0 && (why == Outcome::NotOffered || seen.not_offered > 0) => {
                self.end(Answer::AtLeast { rate: low, not_offered: Some(high) });
            }
            Some((high, _)) => {
                let beyond_met = seen.met;
                self.end(Answer::Highest { rate: low, beyond: high, beyond_met, confirm });
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
