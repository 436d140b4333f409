//! Do two results differ, where, and by how much? `loadgen compare A.json B.json`.
//!
//! For each percentile that enough operations lie beyond, and for the share of errors, an interval of confidence for the
//! difference ([`crate::statistics`]); all of them hold together with some 99%. What doesn't differ surely is "no difference",
//! and with it is said of which figures, and how large a one would have been found in four of five tries. Nothing is said of the
//! others: a side that stalls may have no tail to compare. Runs enough of each side have one, stalls and all.
//!
//! With one run of each side, that holds for these two runs alone: starts of one thing differ, and what differs from start
//! to start is then taken for a difference. The answer says so.
//!
//! A run that broke a promise or lost a node is no good news, however quick it was: then there is no success.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use crate::cause::Cause;
use crate::duration::display_ns;
use crate::encoded::{EncodedError, decode};
use crate::exit::Exit;
use crate::intervals::Interval;
use crate::merge::have_a_run_in_common;
use crate::objective::display_percent;
use crate::report::Report;
use crate::statistics::jackknife::{BEYOND_MIN, Blocks, INTERVALS_MIN, RESOLUTION, Sample, Tail};
use crate::statistics::{Estimate, RUNS_ADVISED, runs_suffice};
use crate::tally::{Percentile, latency_histogram};

/// What a comparison found.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Comparison {
    /// Any of the figures differs.
    pub differs: bool,
    /// Neither side has more than one run, so that nothing is known of how starts differ.
    pub is_of_one_run: bool,
    /// How many runs of each side broke a promise or lost a node.
    pub broken: [usize; 2],
    /// One for each figure that could be compared.
    pub figures: Vec<Figure>,
    /// The percentiles that could not.
    pub unknown: Vec<String>,
    /// What to know before believing them.
    pub notes: Vec<String>,
}

/// One figure of both sides.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Figure {
    /// `p99.9`, or `errors`.
    pub name: String,
    /// Of the left side: nanoseconds, or a share.
    pub left: f64,
    /// Of the right side.
    pub right: f64,
    /// Right against left: a ratio less 1 for latencies, a difference of shares for errors.
    pub change: f64,
    /// The lower end of the interval of confidence of the change.
    pub change_low: f64,
    /// Its upper end.
    pub change_high: f64,
    /// So large a change, upwards, would have been found in four of five tries.
    pub detectable: f64,
    /// No change is outside of the interval.
    pub differs: bool,
}

/// Why there is nothing to compare.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CompareError {
    /// A run that was too short, or that has no intervals.
    #[error(
        "{name} has {found} intervals, and it takes {INTERVALS_MIN}: compare runs of half a minute or more"
    )]
    Short {
        /// Which run.
        name: String,
        /// How many it has.
        found: usize,
    },
    /// An interval that can't be read.
    #[error("{name}: {source}")]
    Encoded {
        /// Which run.
        name: String,
        /// Why.
        source: EncodedError,
    },
    /// Two results have a run in common.
    #[error("{0} and {1} are results of the same run: it is no second one")]
    Twice(String, String),
    /// No percentile has enough operations beyond it.
    #[error(
        "there are too few operations to compare anything: it takes {BEYOND_MIN} beyond a percentile on both sides"
    )]
    Nothing,
}

/// The chance that any figure is said to differ though none does, as it is aimed at.
const WRONG_MAX: f64 = 0.01;
const ERRORS: &str = "errors";
/// In billionths: p50, p75, p90, p99, p99.9, p99.99.
const PERCENTILES: [u64; 6] = [500_000_000, 750_000_000, 900_000_000, 990_000_000, 999_000_000, 999_900_000];
/// Settings that may differ from run to run of one thing.
const NO_MATTER: [&str; 2] = ["servers", "cluster"];
/// A change of a half should not be missed.
const UNSTEADY: f64 = 0.5;
const NOTED_MAX: usize = 8;
const SAMPLES_MAX: usize = 240;

/// What is known of a run.
struct Known {
    /// In the order of [`PERCENTILES`]; `None` for one among the failures.
    latencies: Vec<Option<(Estimate, Tail)>>,
    error_share: Estimate,
}

/// Compares the runs of two sides, each a name and a report. At least one of each.
pub fn compare(left: &[(String, Report)], right: &[(String, Report)]) -> Result<Comparison, CompareError> {
    refuse_twice(left, right)?;
    let sides = [known_of(left)?, known_of(right)?];
    let shares = sides.each_ref().map(|runs| runs.iter().map(|run| run.error_share).collect::<Vec<_>>());
    let suffice = runs_suffice(left.len(), right.len());
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for (place, percentile) in percentiles().into_iter().enumerate() {
        match sides.each_ref().map(|runs| latencies_of(runs, place, suffice)) {
            [Some(left), Some(right)] => known.push((percentile, left, right)),
            _ => unknown.push(name_of(percentile)),
        }
    }
    let has_errors = shares.iter().flatten().any(|share| share.value > 0.0);
    let family = known.len() + usize::from(has_errors);
    if family == 0 {
        return Err(CompareError::Nothing);
    }
    let confidence = 1.0 - WRONG_MAX / family as f64;
    let mut figures: Vec<Figure> = known
        .iter()
        .map(|(percentile, left, right)| Figure::of_latency(*percentile, left, right, confidence))
        .collect();
    if has_errors {
        figures.push(Figure::of_share(&shares[0], &shares[1], confidence));
    }
    let differs = figures.iter().any(|figure| figure.differs);
    let is_of_one_run = left.len() + right.len() == 2;
    let broken = [left, right].map(|side| side.iter().filter(|(_, report)| is_broken(report)).count());
    let notes = notes(left, right, &figures, &unknown);
    Ok(Comparison { differs, is_of_one_run, broken, figures, unknown, notes })
}

/// A run that counts twice makes the spread between runs too small.
fn refuse_twice(left: &[(String, Report)], right: &[(String, Report)]) -> Result<(), CompareError> {
    let all: Vec<&(String, Report)> = left.iter().chain(right).collect();
    for (place, (first_name, first)) in all.iter().enumerate() {
        let same = all[place + 1..].iter().find(|(_, second)| have_a_run_in_common(first, second));
        if let Some((second_name, _)) = same {
            return Err(CompareError::Twice(first_name.clone(), second_name.clone()));
        }
    }
    Ok(())
}

/// A percentile of all runs of a side; `None` where too little is known of it. Where runs suffice, each is one event, and it
/// doesn't matter how many events it is made of.
fn latencies_of(runs: &[Known], place: usize, suffice: bool) -> Option<Vec<Estimate>> {
    let latencies: Vec<(Estimate, Tail)> =
        runs.iter().map(|run| run.latencies[place]).collect::<Option<_>>()?;
    let (estimates, tails): (Vec<Estimate>, Vec<Tail>) = latencies.into_iter().unzip();
    let is_known = if suffice { tails.iter().all(Tail::is_long) } else { Tail::are_spread(&tails) };
    is_known.then_some(estimates)
}

/// Whether nobody should take it for a success, whatever its latencies.
fn is_broken(report: &Report) -> bool {
    let is_broken = matches!(report.verdict.cause, Some(Cause::BrokenPromise | Cause::NodeEnded));
    is_broken || !report.faults.is_empty() || !report.gone.is_empty()
}

fn name_of(percentile: Percentile) -> String {
    format!("p{}", percentile.percent())
}

fn percentiles() -> [Percentile; PERCENTILES.len()] {
    PERCENTILES.map(|billionths| Percentile::from_billionths(billionths).expect("below all"))
}

/// One run after the other, since each takes tens of megabytes while it is looked at.
fn known_of(runs: &[(String, Report)]) -> Result<Vec<Known>, CompareError> {
    runs.iter()
        .map(|(name, report)| {
            let samples = samples_of(&report.intervals);
            let samples = samples.map_err(|source| CompareError::Encoded { name: name.clone(), source })?;
            let found = samples.len();
            let blocks =
                Blocks::cut(samples).ok_or_else(|| CompareError::Short { name: name.clone(), found })?;
            let percentiles = percentiles();
            let tails = percentiles.map(|percentile| blocks.tail(percentile));
            let estimates = blocks.percentiles(&percentiles).into_iter().zip(tails);
            let latencies = estimates.map(|(estimate, tail)| estimate.zip(tail)).collect();
            Ok(Known { latencies, error_share: blocks.error_share() })
        })
        .collect()
}

/// A histogram takes a third of a megabyte, so those of a long run are added up by neighbours.
fn samples_of(intervals: &[Interval]) -> Result<Vec<Sample>, EncodedError> {
    let together = intervals.len().div_ceil(SAMPLES_MAX).max(1);
    let chunks = intervals.chunks(together).map(|chunk| {
        let mut sum = Sample { due: latency_histogram(), errors: 0 };
        for interval in chunk {
            sum.due.add(&decode(&interval.due_histogram)?).expect("all histograms have the same bounds");
            sum.errors += interval.errors;
        }
        Ok(sum)
    });
    chunks.collect()
}

impl Comparison {
    /// What the process exits with: a success only if nothing differs, and nothing was broken.
    pub fn exit(&self) -> Exit {
        if self.differs || self.is_broken() { Exit::Missed } else { Exit::Met }
    }

    fn is_broken(&self) -> bool {
        self.broken.iter().any(|&runs| runs > 0)
    }

    /// That nothing was found says something only with where one looked, and how much would have been found there.
    fn unseen(&self) -> String {
        let names: Vec<&str> = self.figures.iter().map(|figure| figure.name.as_str()).collect();
        let (names, unknown) = (names.join(", "), self.unknown_clause());
        let latencies: Vec<&Figure> = self.figures.iter().filter(|figure| figure.is_latency()).collect();
        let ends: Vec<&Figure> = match latencies[..] {
            [] => self.figures.iter().collect(),
            [only] => vec![only],
            [first, .., last] => vec![first, last],
        };
        let found: Vec<String> = ends.iter().map(|figure| figure.findable()).collect();
        let found = found.join(" and ");
        let unsteady = ends.first().is_some_and(|figure| figure.is_unsteady());
        let but = if unsteady { "but too short or too unsteady to tell: " } else { "" };
        format!("NO DIFFERENCE in {names}{unknown}; {but}{found} would have been found in four of five tries")
    }

    /// What was not looked at; empty if all was.
    fn unknown_clause(&self) -> String {
        match &self.unknown[..] {
            [] => String::new(),
            [only] => format!("; {only}: not known"),
            [first, ..] if self.is_unknown_from(first) => format!("; {first} and beyond: not known"),
            several => format!("; {}: not known", several.join(", ")),
        }
    }

    /// Whether every percentile from this one on is unknown.
    fn is_unknown_from(&self, first: &str) -> bool {
        percentiles()
            .map(name_of)
            .iter()
            .skip_while(|name| *name != first)
            .all(|name| self.unknown.contains(name))
    }

    fn told(&self) -> String {
        let told: Vec<String> =
            self.figures.iter().filter(|figure| figure.differs).map(Figure::told).collect();
        let told = told.join(", ");
        let beware = if self.is_of_one_run { ", if starts don't differ by themselves" } else { "" };
        format!("DIFFERENT: B has {told}{beware}{}", self.unknown_clause())
    }
}

/// A change as people read it: beyond a factor of ten or a hundredth, the figure itself says nothing.
fn percent(change: f64) -> String {
    match change {
        10.0.. => "over +1000%".to_owned(),
        ..-0.99 => "below -99%".to_owned(),
        _ => format!("{:+.2}%", change * 100.0),
    }
}

impl Figure {
    fn of_latency(percentile: Percentile, left: &[Estimate], right: &[Estimate], confidence: f64) -> Self {
        let difference = Estimate::difference(left, right, confidence).no_finer_than(RESOLUTION);
        Self {
            name: name_of(percentile),
            left: Estimate::mean(left).exp(),
            right: Estimate::mean(right).exp(),
            change: difference.value.exp_m1(),
            change_low: (difference.value - difference.margin).exp_m1(),
            change_high: (difference.value + difference.margin).exp_m1(),
            detectable: difference.detectable.exp_m1(),
            differs: difference.is_real(),
        }
    }

    fn of_share(left: &[Estimate], right: &[Estimate], confidence: f64) -> Self {
        let difference = Estimate::difference(left, right, confidence);
        Self {
            name: ERRORS.to_owned(),
            left: Estimate::mean(left),
            right: Estimate::mean(right),
            change: difference.value,
            change_low: difference.value - difference.margin,
            change_high: difference.value + difference.margin,
            detectable: difference.detectable,
            differs: difference.is_real(),
        }
    }

    fn is_latency(&self) -> bool {
        self.name != ERRORS
    }

    fn shown(&self, value: f64) -> String {
        if self.is_latency() { display_ns(value.round() as u64) } else { display_percent(value) }
    }

    /// A change of it, where that of errors is one in points of a percent.
    fn shown_change(&self, change: f64) -> String {
        match (self.is_latency(), change >= 0.0) {
            (true, _) => percent(change),
            (false, true) => format!("+{}", display_percent(change)),
            (false, false) => display_percent(change),
        }
    }

    fn is_unsteady(&self) -> bool {
        self.is_latency() && self.detectable >= UNSTEADY
    }

    /// How large a difference would mostly have been found.
    fn findable(&self) -> String {
        let Self { name, detectable, .. } = self;
        match (self.is_latency(), self.is_unsteady()) {
            (true, false) => format!("one of {:.1}% at {name}", detectable * 100.0),
            (true, true) => format!("only one of {} at {name}", percent(*detectable)),
            (false, _) => format!("{} more or fewer {name}", display_percent(*detectable)),
        }
    }

    /// By how much it differs. Of errors, the shares themselves: those of a sound cluster are tiny, and so is what they differ by.
    fn told(&self) -> String {
        let (name, word) = (&self.name, self.word());
        if self.is_latency() {
            format!("{name} {word} by {:.1}%", self.change.abs() * 100.0)
        } else {
            let (left, right) = (self.shown(self.left), self.shown(self.right));
            format!("{word} {name} ({right} against {left})")
        }
    }

    fn word(&self) -> &'static str {
        match (self.differs, self.change > 0.0, self.is_latency()) {
            (false, ..) => "no difference",
            (true, true, true) => "slower",
            (true, false, true) => "faster",
            (true, true, false) => "more",
            (true, false, false) => "fewer",
        }
    }
}

/// What the reader must know beside the figures.
fn notes(
    left: &[(String, Report)],
    right: &[(String, Report)],
    figures: &[Figure],
    unknown: &[String],
) -> Vec<String> {
    let mut notes = Vec::new();
    if !unknown.is_empty() {
        let names = unknown.join(", ");
        notes.push(format!(
            "{names}: not compared, since it takes {BEYOND_MIN} operations beyond, in different seconds, and no failure within; \
             or {RUNS_ADVISED} runs of each"
        ));
    }
    notes.extend(note_on_runs(left.len(), right.len(), figures));
    for (name, report) in left.iter().chain(right) {
        let verdict = &report.verdict;
        if !verdict.passed() {
            let cause = verdict.cause.map_or_else(|| "FAIL".to_owned(), |cause| cause.to_string());
            notes.push(format!("{name}: {cause}: {}", verdict.reasons.join("; ")));
        } else if report.generator.interrupted {
            notes.push(format!("{name} was stopped before its end"));
        }
        notes.extend(report.gone.iter().map(|gone| format!("{name}: {gone}")));
        if report.environment.build != "release" {
            notes.push(format!("{name} is of a {} build", report.environment.build));
        }
    }
    notes.extend(differing_settings(left, right));
    notes
}

/// What so few runs don't know.
fn note_on_runs(left: usize, right: usize, figures: &[Figure]) -> Option<String> {
    match (left, right) {
        (1, 1) => {
            let first = figures.first().filter(|figure| figure.is_latency());
            let apart = first.map_or_else(String::new, |figure| {
                let Figure { name, change, change_high, .. } = figure;
                let margin = percent((1.0 + change_high) / (1.0 + change) - 1.0);
                format!(" two starts of one thing that are {margin} apart at {name} are called different here half the time;")
            });
            Some(format!(
                "one run of each side:{apart} the longer and steadier runs are, the less it takes, and in long ones starts nearly \
                 always differ: run each {RUNS_ADVISED} times, by turns"
            ))
        }
        _ if left.min(right) == 1 => Some(format!(
            "{left} and {right} runs: starts of both sides are taken to differ alike, as one run can't say; run each \
             {RUNS_ADVISED} times, by turns"
        )),
        _ if !runs_suffice(left, right) => Some(format!(
            "{left} and {right} runs: {RUNS_ADVISED} of each, run by turns, would find much smaller differences"
        )),
        _ => None,
    }
}

fn differing_settings(left: &[(String, Report)], right: &[(String, Report)]) -> Vec<String> {
    let [left, right] = [left, right].map(|side| {
        let mut values: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (_, report) in side {
            let Report { configuration, environment, .. } = report;
            let mut add = |name: &str, value: &str| {
                values.entry(name.to_owned()).or_default().insert(value.to_owned());
            };
            configuration.iter().for_each(|(name, value)| add(name, value));
            add("kernel", &environment.kernel);
            add("processor", &environment.processor);
            add("cores", &environment.cores.to_string());
        }
        values
    });
    let shown = |values: Option<&BTreeSet<String>>| {
        values.map_or_else(
            || "nothing".to_owned(),
            |values| values.iter().cloned().collect::<Vec<_>>().join(", "),
        )
    };
    let names: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let differing = names.into_iter().filter(|name| !NO_MATTER.contains(&name.as_str()));
    let differing = differing.filter(|&name| left.get(name) != right.get(name));
    differing
        .take(NOTED_MAX)
        .map(|name| format!("{name}: {} against {}", shown(left.get(name)), shown(right.get(name))))
        .collect()
}

impl fmt::Display for Comparison {
    /// A table, the notes, and the answer as the last line.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{:<8}{:>12}{:>12}{:>12}  {:<28}",
            "", "A", "B", "change", "between (all at 99%)"
        )?;
        for figure in &self.figures {
            let Figure { name, left, right, change, change_low, change_high, .. } = figure;
            let (left, right) = (figure.shown(*left), figure.shown(*right));
            let [change, change_low, change_high] =
                [change, change_low, change_high].map(|change| figure.shown_change(*change));
            let (between, word) = (format!("{change_low} and {change_high}"), figure.word());
            writeln!(formatter, "{name:<8}{left:>12}{right:>12}{change:>12}  {between:<28}  {word}")?;
        }
        for note in &self.notes {
            writeln!(formatter, "{note}")?;
        }
        if self.is_broken() {
            let [left, right] = self.broken;
            write!(
                formatter,
                "BROKEN: a promise was broken or a node lost in {left} runs of A and {right} of B; "
            )?;
        }
        formatter.write_str(&if self.differs { self.told() } else { self.unseen() })
    }
}

#[cfg(test)]
mod tests;
