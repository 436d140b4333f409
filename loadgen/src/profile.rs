//! How the rate goes over a run: `warmup 10s, ramp 1k..20k 30s, step 1k..5k 5 50s, sine 1k..2k 20s 1m, spike 1k..9k 1s 10s`.
//!
//! A phase is a word, what it needs, and, last, how long it takes in all:
//!
//! | phase | what the rate does |
//! | --- | --- |
//! | `warmup [RATE] TIME` | stays; nothing of it is judged, but a broken promise |
//! | `steady [RATE] TIME` | stays |
//! | `ramp FROM..TO TIME` | goes evenly from one rate to the other |
//! | `step FROM..TO COUNT TIME` | takes so many levels, evenly spaced, each as long |
//! | `sine LOW..HIGH PERIOD TIME` | swings, starting from below |
//! | `spike LOW..HIGH WIDTH TIME` | stays low, but for so long in the middle |
//!
//! Without a RATE, it is that of `--rate`. A step is as many stages as it has levels, a spike is three (before, during and
//! after it), all else is one; each [`Stage`] has its own line in the report, and an operation belongs to the stage in which
//! it was due.
//!
//! **No drift.** The number of operations due up to a moment is the integral of the rate, and an operation is due when
//! that reaches its number: every due moment is computed from the operation's place in its stage, and never from the
//! moment of the one before. What is left of an operation at the end of a stage is carried into the next.

use std::f64::consts::TAU;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::duration::{self, DurationError, LONGEST};
use crate::near::did_you_mean;
use crate::rate::{Rate, RateError};

/// Phases as they were written: rates may still be open.
#[derive(Clone, PartialEq, Debug)]
pub struct Phases {
    text: String,
    parts: Vec<Part>,
}

/// What the rate does, from the first operation to the last.
#[derive(Clone, PartialEq, Debug)]
pub struct Profile {
    stages: Vec<Stage>,
    /// The rate as it was given, if there is but one.
    even: Option<Rate>,
}

/// A part of a run with a line of its own in the report.
#[derive(Clone, PartialEq, Debug)]
pub struct Stage {
    /// Its number among the phases and its word, such as `2 ramp`.
    pub name: String,
    /// It counts for the objective.
    pub is_judged: bool,
    /// How long it takes.
    pub duration: Duration,
    course: Course,
}

/// What the rate does within a stage. Rates are in operations a nanosecond, and above 0.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Course {
    Steady { rate: f64 },
    Ramp { from: f64, to: f64 },
    Sine { low: f64, high: f64, period_ns: f64 },
}

/// A phase as it was written.
#[derive(Clone, PartialEq, Debug)]
struct Part {
    shape: Shape,
    duration: Duration,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Shape {
    Warmup { rate: Option<Rate> },
    Steady { rate: Option<Rate> },
    Ramp { from: Rate, to: Rate },
    Step { from: Rate, to: Rate, count: u32 },
    Sine { low: Rate, high: Rate, period: Duration },
    Spike { low: Rate, high: Rate, width: Duration },
}

/// Why phases were not understood.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum PhasesError {
    /// No known word.
    #[error("'{word}' is no phase{hint}: write warmup, steady, ramp, step, sine or spike")]
    Word {
        /// What stands there.
        word: String,
        /// Near words.
        hint: String,
    },
    /// Too few or too many words after it.
    #[error("'{phase}' is not of the form '{form}'")]
    Form {
        /// The phase.
        phase: String,
        /// How it is written.
        form: &'static str,
    },
    /// A rate that can't be read.
    #[error("in '{phase}': {source}")]
    Rate {
        /// The phase.
        phase: String,
        /// What is wrong.
        source: RateError,
    },
    /// A time that can't be read.
    #[error("in '{phase}': {source}")]
    Time {
        /// The phase.
        phase: String,
        /// What is wrong.
        source: DurationError,
    },
    /// A number of levels that makes no steps.
    #[error("in '{phase}': '{count}' is no number of levels: write a whole number from 2 to 64")]
    Count {
        /// The phase.
        phase: String,
        /// What stands there.
        count: String,
    },
    /// A spike as long as its phase.
    #[error("in '{0}': the spike leaves no time before and after it: make it shorter, or the phase longer")]
    Width(String),
    /// More stages than a report has lines for.
    #[error(
        "there are {0} stages (each level of a step is one, a spike is three), and 64 at most: write fewer"
    )]
    TooMany(usize),
    /// Longer than any run.
    #[error("the phases take longer than 1000 hours: make them shorter")]
    TooLong,
    /// Warm-up only.
    #[error("there is nothing to judge: write a phase that is no warmup")]
    Unjudged,
}

const STAGES_MAX: usize = 64;
const WORDS: [&str; 6] = ["warmup", "steady", "ramp", "step", "sine", "spike"];

impl Phases {
    /// What the rate does where `rate` stands for those that were left open.
    pub fn profile(&self, rate: Rate) -> Profile {
        let numbered = (1..).zip(&self.parts);
        let stages = numbered.flat_map(|(number, part)| part.stages(number, rate)).collect();
        Profile { stages, even: None }
    }

    /// Whether anything of what is judged goes at the rate that was left open: else, that rate changes nothing.
    pub fn is_open(&self) -> bool {
        self.parts.iter().any(|part| matches!(part.shape, Shape::Steady { rate: None }))
    }
}

impl Profile {
    /// One rate all the time.
    pub fn steady(rate: Rate, duration: Duration) -> Self {
        let course = Course::Steady { rate: per_ns(rate) };
        let stage = Stage { name: "all".to_owned(), is_judged: true, duration, course };
        Self { stages: vec![stage], even: Some(rate) }
    }

    /// The rate, if it never changes.
    pub fn even_rate(&self) -> Option<Rate> {
        self.even
    }

    /// The stages in order; at least one.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// How long it all takes.
    pub fn duration(&self) -> Duration {
        self.stages.iter().map(|stage| stage.duration).sum()
    }

    /// How many operations are due in all, but for a fraction of one.
    pub fn operations(&self) -> f64 {
        self.stages.iter().map(Stage::operations).sum()
    }
}

impl Stage {
    /// The integral of the rate over the whole stage.
    pub fn operations(&self) -> f64 {
        self.course.count(self.duration.as_nanos() as f64, self.duration.as_nanos() as f64)
    }

    /// When the integral of the rate reaches `count`, in nanoseconds from the stage's start.
    /// `0 <= count < operations()`
    pub fn due_ns(&self, count: f64) -> u64 {
        let duration_ns = self.duration.as_nanos() as f64;
        // Rounding must not move an operation into the next stage.
        (self.course.moment(count, duration_ns) as u64).min(self.duration.as_nanos() as u64 - 1)
    }
}

impl Course {
    /// The operations due up to `at` in a stage that takes `whole`, both in nanoseconds.
    fn count(self, at: f64, whole: f64) -> f64 {
        match self {
            Self::Steady { rate } => rate * at,
            Self::Ramp { from, to } => from * at + (to - from) * at * at / (2.0 * whole),
            Self::Sine { low, high, period_ns } => {
                let (mean, half) = (f64::midpoint(low, high), (high - low) / 2.0);
                mean * at - half * period_ns / TAU * (TAU * (at / period_ns).fract()).sin()
            }
        }
    }

    fn rate(self, at: f64, whole: f64) -> f64 {
        match self {
            Self::Steady { rate } => rate,
            Self::Ramp { from, to } => from + (to - from) * at / whole,
            Self::Sine { low, high, period_ns } => {
                f64::midpoint(low, high) - (high - low) / 2.0 * (TAU * (at / period_ns).fract()).cos()
            }
        }
    }

    /// The inverse of [`Self::count`].
    fn moment(self, count: f64, whole: f64) -> f64 {
        match self {
            Self::Steady { rate } => count / rate,
            // The root of a quadratic, in the form that loses no digits where the ramp is flat.
            Self::Ramp { from, to } => {
                let slope = (to - from) / whole;
                2.0 * count / (from + (from * from + 2.0 * slope * count).max(0.0).sqrt())
            }
            Self::Sine { low, high, .. } => {
                let (slow, fast) = (low.min(high), low.max(high));
                self.search(count, whole, count / fast, (count / slow).min(whole))
            }
        }
    }

    /// Newton's steps, as long as they stay within the bracket and each is at most half as long as the one before; else the
    /// bracket is halved. So it always ends: alone, Newton's steps can go round between the ends for ever.
    fn search(self, count: f64, whole: f64, mut early: f64, mut late: f64) -> f64 {
        const STEPS_MAX: usize = 100;
        const NEAR_ENOUGH_NS: f64 = 0.01;
        let mut at = f64::midpoint(early, late);
        let mut step_before = late - early;
        for _ in 0..STEPS_MAX {
            let missing = count - self.count(at, whole);
            if missing > 0.0 {
                early = at;
            } else {
                late = at;
            }
            let step = missing / self.rate(at, whole);
            let is_inside = (early..=late).contains(&(at + step));
            let is_shorter = 2.0 * step.abs() <= step_before;
            let moved = if is_inside && is_shorter { at + step } else { f64::midpoint(early, late) };
            step_before = (moved - at).abs();
            let is_near = step_before < NEAR_ENOUGH_NS;
            at = moved;
            if is_near {
                break;
            }
        }
        at
    }
}

impl Part {
    fn stages(&self, number: usize, rate: Rate) -> Vec<Stage> {
        let stage = |name: &str, duration, course| Stage {
            name: format!("{number} {name}"),
            is_judged: !matches!(self.shape, Shape::Warmup { .. }),
            duration,
            course,
        };
        let whole = self.duration;
        match self.shape {
            Shape::Warmup { rate: given } => {
                vec![stage("warmup", whole, Course::Steady { rate: per_ns(given.unwrap_or(rate)) })]
            }
            Shape::Steady { rate: given } => {
                vec![stage("steady", whole, Course::Steady { rate: per_ns(given.unwrap_or(rate)) })]
            }
            Shape::Ramp { from, to } => {
                vec![stage("ramp", whole, Course::Ramp { from: per_ns(from), to: per_ns(to) })]
            }
            Shape::Sine { low, high, period } => {
                let period_ns = period.as_nanos() as f64;
                vec![stage("sine", whole, Course::Sine { low: per_ns(low), high: per_ns(high), period_ns })]
            }
            Shape::Spike { low, high, width } => {
                let before = (whole - width) / 2;
                let [low, high] = [low, high].map(|rate| Course::Steady { rate: per_ns(rate) });
                let after = whole - width - before;
                vec![stage("before", before, low), stage("spike", width, high), stage("after", after, low)]
            }
            Shape::Step { from, to, count } => {
                let level = |place: u32| {
                    let share = f64::from(place) / f64::from(count - 1);
                    let rate = per_ns(from) + (per_ns(to) - per_ns(from)) * share;
                    // Whole nanoseconds, none of which is lost.
                    let until = |place: u32| whole.as_nanos() * u128::from(place) / u128::from(count);
                    let duration = Duration::from_nanos((until(place + 1) - until(place)) as u64);
                    stage(&format!("{:.0}/s", rate * 1e9), duration, Course::Steady { rate })
                };
                (0..count).map(level).collect()
            }
        }
    }

    fn stages_count(&self) -> usize {
        match self.shape {
            Shape::Step { count, .. } => count as usize,
            Shape::Spike { .. } => 3,
            _ => 1,
        }
    }
}

fn per_ns(rate: Rate) -> f64 {
    rate.per_second() / 1e9
}

impl FromStr for Phases {
    type Err = PhasesError;

    fn from_str(text: &str) -> Result<Self, PhasesError> {
        let parts = text.split(',').map(|phase| parse_part(phase.trim())).collect::<Result<Vec<_>, _>>()?;
        let stages = parts.iter().map(Part::stages_count).sum();
        if stages > STAGES_MAX {
            return Err(PhasesError::TooMany(stages));
        }
        if parts.iter().map(|part| part.duration).sum::<Duration>() > LONGEST {
            return Err(PhasesError::TooLong);
        }
        if parts.iter().all(|part| matches!(part.shape, Shape::Warmup { .. })) {
            return Err(PhasesError::Unjudged);
        }
        Ok(Self { text: text.trim().to_owned(), parts })
    }
}

impl fmt::Display for Phases {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

fn parse_part(phase: &str) -> Result<Part, PhasesError> {
    let words: Vec<&str> = phase.split_whitespace().collect();
    let time = |text: &str| {
        duration::parse_positive(text).map_err(|source| PhasesError::Time { phase: phase.to_owned(), source })
    };
    let rate = |text: &str| {
        text.parse::<Rate>().map_err(|source| PhasesError::Rate { phase: phase.to_owned(), source })
    };
    let form = |form| PhasesError::Form { phase: phase.to_owned(), form };
    let range = |text: &str, whole| {
        let (from, to) = text.split_once("..").ok_or_else(|| form(whole))?;
        Ok((rate(from)?, rate(to)?))
    };
    let (shape, last) = match words[..] {
        ["warmup", last] => (Shape::Warmup { rate: None }, last),
        ["warmup", given, last] => (Shape::Warmup { rate: Some(rate(given)?) }, last),
        ["warmup", ..] => return Err(form("warmup [RATE] TIME")),
        ["steady", last] => (Shape::Steady { rate: None }, last),
        ["steady", given, last] => (Shape::Steady { rate: Some(rate(given)?) }, last),
        ["steady", ..] => return Err(form("steady [RATE] TIME")),
        ["ramp", rates, last] => {
            let (from, to) = range(rates, "ramp FROM..TO TIME")?;
            (Shape::Ramp { from, to }, last)
        }
        ["ramp", ..] => return Err(form("ramp FROM..TO TIME")),
        ["step", rates, count, last] => {
            let (from, to) = range(rates, "step FROM..TO COUNT TIME")?;
            let wrong = || PhasesError::Count { phase: phase.to_owned(), count: count.to_owned() };
            let levels: u32 = count.parse().map_err(|_| wrong())?;
            if !(2..=STAGES_MAX as u32).contains(&levels) {
                return Err(wrong());
            }
            (Shape::Step { from, to, count: levels }, last)
        }
        ["step", ..] => return Err(form("step FROM..TO COUNT TIME")),
        ["sine", rates, period, last] => {
            let (low, high) = range(rates, "sine LOW..HIGH PERIOD TIME")?;
            (Shape::Sine { low, high, period: time(period)? }, last)
        }
        ["sine", ..] => return Err(form("sine LOW..HIGH PERIOD TIME")),
        ["spike", rates, width, last] => {
            let (low, high) = range(rates, "spike LOW..HIGH WIDTH TIME")?;
            (Shape::Spike { low, high, width: time(width)? }, last)
        }
        ["spike", ..] => return Err(form("spike LOW..HIGH WIDTH TIME")),
        _ => {
            let word = words.first().copied().unwrap_or_default();
            return Err(PhasesError::Word { word: word.to_owned(), hint: did_you_mean(word, WORDS) });
        }
    };
    let duration = time(last)?;
    let is_too_wide = |width: Duration| width + Duration::from_nanos(2) > duration;
    if matches!(shape, Shape::Spike { width, .. } if is_too_wide(width)) {
        return Err(PhasesError::Width(phase.to_owned()));
    }
    if matches!(shape, Shape::Step { count, .. } if duration.as_nanos() < u128::from(count)) {
        return Err(form("step FROM..TO COUNT TIME"));
    }
    Ok(Part { shape, duration })
}

#[cfg(test)]
mod tests;
