//! The objective a run is judged by: `p99.9<300ms,p50<1ms,errors<0.001%,stale<0.1%`.
//!
//! Every clause bounds one figure over all operations of the run: a percentile, `max` or `mean` of the
//! latency from the due moment, the share of `errors`, or that of `stale` answers among the reads that were
//! answered. All clauses must hold.
//!
//! A percentile needs enough operations for at least one to lie beyond it: `1 / (1 - p)`, so 1000 for p99.9
//! and 100 for p99. With fewer, the clause is not met: nothing was shown. A percentile that falls among the
//! failed operations is not met either ([`crate::tally`]). `max` and `mean` are those of the successes.
//!
//! That is the least; a clause that holds is **shown** to hold by more: ten times as many for a percentile, and for a
//! share below a limit, as many as three divided by it (300,000 for `errors<0.001%`): if it were at its limit, so many without
//! a failure would be seen in one of twenty runs. Below that, the clause holds for what was seen, and its reason says what it
//! takes. A search believes only what was shown.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cause::Cause;
use crate::duration::{self, DurationError, display_ns};
use crate::near::did_you_mean;
use crate::tally::{Latency, Percentile, Tally};

/// Clauses that must all hold. Without any, every run meets it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Objective {
    clauses: Vec<Clause>,
}

/// An upper bound of one figure.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Clause {
    /// Of the latency from the due moment.
    Latency(Measure, Bound<Duration>),
    /// Of the share of failed operations, 0 to 1.
    Errors(Bound<f64>),
    /// Of the share of answered reads that were behind a write, 0 to 1. Where that isn't allowed, each is an error.
    Stale(Bound<f64>),
}

/// What of the latencies is bounded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Measure {
    /// The latency below which this share of all operations lies.
    Percentile(Percentile),
    /// The longest.
    Max,
    /// The mean.
    Mean,
}

/// `<` or `<=` a limit.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Bound<T> {
    limit: T,
    inclusive: bool,
}

/// Whether one clause holds, and why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// The clause as it is written.
    pub clause: String,
    /// Whether it holds.
    pub met: bool,
    /// It bounds a latency, which a late generator lengthens.
    pub about_latency: bool,
    /// Why it doesn't hold, if it doesn't.
    #[serde(default)]
    pub cause: Option<Cause>,
    /// There were operations enough to rely on it.
    #[serde(default)]
    pub shown: bool,
    /// One sentence with the figure.
    pub reason: String,
}

/// Why an objective was not understood.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum ObjectiveError {
    /// No `<` in a clause.
    #[error("'{0}' bounds nothing: write a figure, < and a limit, such as p99.9<300ms or errors<0.001%")]
    Clause(String),
    /// No known figure.
    #[error(
        "'{figure}' is no figure{hint}: write p and a number between 0 and 100 such as p99.9, max, mean, errors or stale"
    )]
    Figure {
        /// What stands before the limit.
        figure: String,
        /// Near figures.
        hint: String,
    },
    /// A latency that can't be read.
    #[error("in '{clause}': {source}")]
    Limit {
        /// The clause.
        clause: String,
        /// What is wrong with its limit.
        source: DurationError,
    },
    /// A share that can't be read.
    #[error("'{0}' is no share: write a percentage such as 0.001% or a fraction such as 0.00001")]
    Share(String),
}

/// Those that are words; and a percentile as an example.
const FIGURES: [&str; 5] = ["max", "mean", "errors", "stale", "p99.9"];

impl Objective {
    /// One finding for each clause, in order.
    pub fn judge(&self, total: &Tally) -> Vec<Finding> {
        self.clauses.iter().map(|clause| clause.judge(total)).collect()
    }

    /// Whether all clauses hold, and are shown to.
    pub fn is_shown(&self, total: &Tally) -> bool {
        self.judge(total).iter().all(|finding| finding.met && finding.shown)
    }

    /// The tightest limit on a latency, if there is any.
    pub fn latency_limit_min(&self) -> Option<Duration> {
        let limits = self.clauses.iter().filter_map(|clause| match clause {
            Clause::Latency(_, bound) => Some(bound.limit),
            Clause::Errors(_) | Clause::Stale(_) => None,
        });
        limits.min()
    }

    /// Whether a limit on a percentile is missed by more than a late generator can explain: beyond it lies even
    /// the time from sending, less the generator's own lateness, at that percentile or a lower one.
    pub fn is_surely_missed(&self, total: &Tally, lateness: impl Fn(Percentile) -> u64) -> bool {
        const PROBES: [Percentile; 3] = [Percentile::P50, Percentile::P99, Percentile::P999];
        let beyond = |percentile, bound: Bound<Duration>| match total.service(percentile) {
            Latency::None => false,
            Latency::Failed => true,
            Latency::Ns(service_ns) => {
                !bound.holds(Duration::from_nanos(service_ns.saturating_sub(lateness(percentile))))
            }
        };
        self.clauses.iter().any(|clause| match *clause {
            Clause::Latency(Measure::Percentile(percentile), bound) => {
                PROBES.into_iter().filter(|&probe| probe <= percentile).any(|probe| beyond(probe, bound))
            }
            Clause::Latency(Measure::Max, bound) => PROBES.into_iter().any(|probe| beyond(probe, bound)),
            Clause::Latency(Measure::Mean, _) | Clause::Errors(_) | Clause::Stale(_) => false,
        })
    }
}

impl Clause {
    fn judge(&self, total: &Tally) -> Finding {
        let judged = match self {
            Self::Errors(bound) => {
                let (failed, all) = (total.errors(), total.operations());
                judge_share(*bound, "errors", Cause::Errors, failed, "operations", all)
            }
            Self::Stale(bound) => {
                let (stale, reads) = (total.stale(), total.reads());
                judge_share(*bound, "stale", Cause::Stale, stale, "answered reads", reads)
            }
            Self::Latency(measure, bound) => judge_latency(*measure, *bound, total),
        };
        let Judged { cause, operations, needed, of_what, mut reason } = judged;
        let (met, shown) = (cause.is_none(), operations >= needed);
        if met && !shown {
            reason.push_str(&format!(" (to rely on it takes {needed} {of_what})"));
        }
        let about_latency = matches!(self, Self::Latency(..));
        Finding { clause: self.to_string(), met, about_latency, cause, shown, reason }
    }
}

/// What was found out about a clause.
struct Judged {
    /// Why it doesn't hold.
    cause: Option<Cause>,
    /// Of so many operations.
    operations: u64,
    /// So many show that it holds.
    needed: u64,
    of_what: &'static str,
    reason: String,
}

/// What is expected to fail of so many that none of them failing is chance in one of twenty cases: `exp(-3)` is 5%.
const SURE: f64 = 3.0;

fn judge_share(
    bound: Bound<f64>,
    name: &str,
    beyond: Cause,
    part: u64,
    of_what: &'static str,
    whole: u64,
) -> Judged {
    let judged = |cause, reason| {
        // None at all is a statement about what was seen, and not about a share of what will be.
        let needed = if bound.limit > 0.0 { (SURE / bound.limit - 1e-6).ceil() as u64 } else { 1 };
        Judged { cause, operations: whole, needed, of_what, reason }
    };
    if whole == 0 {
        return judged(Some(Cause::TooFew), format!("{name} is unknown: there were no {of_what}"));
    }
    let share = part as f64 / whole as f64;
    let met = bound.holds(share);
    let relation = bound.relation(met);
    let figure = format!("{name} {} ({part} of {whole})", display_percent(share));
    judged((!met).then_some(beyond), format!("{figure} {relation} {}", display_limit(bound.limit)))
}

fn judge_latency(measure: Measure, bound: Bound<Duration>, total: &Tally) -> Judged {
    let (limit, operations) = (display_ns(bound.limit.as_nanos() as u64), total.operations());
    let needed = match measure {
        Measure::Percentile(percentile) => percentile.operations_shown(),
        Measure::Max | Measure::Mean => 1,
    };
    let judged = |cause, reason| Judged { cause, operations, needed, of_what: "operations", reason };
    let latency = match measure {
        Measure::Max => total.due_max(),
        Measure::Mean => total.due_mean(),
        Measure::Percentile(percentile) => {
            let least = percentile.operations_min();
            if operations < least {
                let few = format!("{operations} operations are too few, it takes {least}");
                return judged(Some(Cause::TooFew), format!("{measure} is unknown: {few}"));
            }
            total.due(percentile)
        }
    };
    match latency {
        Latency::None => judged(Some(Cause::TooFew), format!("{measure} is unknown: there was no operation")),
        Latency::Failed => {
            let failed = total.errors();
            let reason = format!("{measure} falls among the {failed} failed operations, not < {limit}");
            judged(Some(Cause::Errors), reason)
        }
        Latency::Ns(latency_ns) => {
            let met = bound.holds(Duration::from_nanos(latency_ns));
            let reason = format!("{measure} {} {} {limit}", display_ns(latency_ns), bound.relation(met));
            judged((!met).then_some(Cause::Latency), reason)
        }
    }
}

impl<T: PartialOrd + Copy> Bound<T> {
    fn holds(&self, figure: T) -> bool {
        figure < self.limit || (self.inclusive && figure == self.limit)
    }

    fn relation(&self, met: bool) -> &'static str {
        match (met, self.inclusive) {
            (true, false) => "<",
            (true, true) => "<=",
            (false, false) => "is not <",
            (false, true) => "is not <=",
        }
    }
}

impl FromStr for Objective {
    type Err = ObjectiveError;

    fn from_str(text: &str) -> Result<Self, ObjectiveError> {
        let clauses: Result<Vec<Clause>, ObjectiveError> = text.split(',').map(parse_clause).collect();
        Ok(Self { clauses: clauses? })
    }
}

fn parse_clause(text: &str) -> Result<Clause, ObjectiveError> {
    let (figure, limit) = text.split_once('<').ok_or_else(|| ObjectiveError::Clause(text.to_owned()))?;
    let (limit, inclusive) = limit.strip_prefix('=').map_or((limit, false), |limit| (limit, true));
    let figure = figure.trim();
    match figure {
        "errors" => return Ok(Clause::Errors(Bound { limit: parse_share(limit)?, inclusive })),
        "stale" => return Ok(Clause::Stale(Bound { limit: parse_share(limit)?, inclusive })),
        _ => {}
    }
    let measure = parse_measure(figure)?;
    let limit = duration::parse(limit)
        .map_err(|source| ObjectiveError::Limit { clause: text.trim().to_owned(), source })?;
    Ok(Clause::Latency(measure, Bound { limit, inclusive }))
}

fn parse_measure(figure: &str) -> Result<Measure, ObjectiveError> {
    match figure {
        "max" => Ok(Measure::Max),
        "mean" => Ok(Measure::Mean),
        _ => figure.strip_prefix('p').and_then(parse_percentile).map(Measure::Percentile).ok_or_else(|| {
            let hint = did_you_mean(figure, FIGURES);
            ObjectiveError::Figure { figure: figure.to_owned(), hint }
        }),
    }
}

/// Digit by digit: as a float, 99.9% of 1000 operations would be 999.0000000000001 of them.
fn parse_percentile(text: &str) -> Option<Percentile> {
    const DECIMALS: usize = 7;
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(decimals) || whole.is_empty() || decimals.len() > DECIMALS {
        return None;
    }
    let billionths = format!("{whole}{decimals:0<DECIMALS$}").parse().ok()?;
    Percentile::from_billionths(billionths)
}

fn parse_share(text: &str) -> Result<f64, ObjectiveError> {
    let text = text.trim();
    let (number, whole) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
    match number.trim_end().parse::<f64>() {
        Ok(share) if (0.0..=whole).contains(&share) => Ok(share / whole),
        _ => Err(ObjectiveError::Share(text.to_owned())),
    }
}

/// Percent without the zeros and the noise of a float's last digits: six decimals at most.
pub fn display_percent(share: f64) -> String {
    percent_with(share, DECIMALS_SHOWN)
}

const DECIMALS_SHOWN: usize = 6;

fn percent_with(share: f64, decimals: usize) -> String {
    let fixed = format!("{:.decimals$}", share * 100.0);
    let number = if fixed.contains('.') { fixed.trim_end_matches('0').trim_end_matches('.') } else { &fixed };
    format!("{number}%")
}

/// A share as it is typed, so that it is read back as itself: a search hands its objective on to its runs.
fn display_limit(share: f64) -> String {
    const DECIMALS_MAX: usize = 20;
    let is_same = |text: &String| parse_share(text).is_ok_and(|read| read == share);
    let mut percents = (DECIMALS_SHOWN..=DECIMALS_MAX).map(|decimals| percent_with(share, decimals));
    percents.find(is_same).unwrap_or_else(|| share.to_string())
}

impl fmt::Display for Measure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percentile(percentile) => write!(formatter, "p{}", percentile.percent()),
            Self::Max => formatter.write_str("max"),
            Self::Mean => formatter.write_str("mean"),
        }
    }
}

impl fmt::Display for Clause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latency(measure, bound) => {
                write!(formatter, "{measure}{}{:?}", bound.relation(true), bound.limit)
            }
            Self::Errors(bound) => {
                write!(formatter, "errors{}{}", bound.relation(true), display_limit(bound.limit))
            }
            Self::Stale(bound) => {
                write!(formatter, "stale{}{}", bound.relation(true), display_limit(bound.limit))
            }
        }
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clauses: Vec<String> = self.clauses.iter().map(ToString::to_string).collect();
        formatter.write_str(&clauses.join(","))
    }
}

#[cfg(test)]
mod tests;
