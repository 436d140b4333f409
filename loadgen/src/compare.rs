//! Do two results differ, where, and by how much? `loadgen compare A.json B.json`.
//!
//! For each percentile that enough operations lie beyond, and for the share of errors, an interval of confidence for the
//! difference ([`crate::statistics`]); all of them hold together with 99%. What doesn't differ surely is "no difference",
//! and with it is said how large a one would have been found in four of five tries.
//!
//! With one run of each side, that holds for these two runs alone: starts of one thing differ, and what differs from start
//! to start is then taken for a difference. The answer says so.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fmt::Write as _;

use serde::Serialize;

use crate::duration::display_ns;
use crate::encoded::{EncodedError, decode};
use crate::intervals::Interval;
use crate::report::Report;
use crate::statistics::jackknife::{BEYOND_MIN, Blocks, INTERVALS_MIN, Sample};
use crate::statistics::{Estimate, RUNS_ADVISED};
use crate::tally::{Percentile, latency_histogram};

/// What a comparison found.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Comparison {
    /// Any of the figures differs.
    pub differs: bool,
    /// Neither side has more than one run, so that nothing is known of how starts differ.
    pub is_of_one_run: bool,
    /// One for each figure that could be compared.
    pub figures: Vec<Figure>,
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
    /// No percentile has enough operations beyond it.
    #[error(
        "there are too few operations to compare anything: it takes {BEYOND_MIN} beyond a percentile on both sides"
    )]
    Nothing,
}

/// The chance that any figure is said to differ though none does.
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
    /// In the order of [`PERCENTILES`]; `None` where too little is known.
    latencies: Vec<Option<Estimate>>,
    error_share: Estimate,
}

/// Compares the runs of two sides, each a name and a report. At least one of each.
pub fn compare(left: &[(String, Report)], right: &[(String, Report)]) -> Result<Comparison, CompareError> {
    let sides = [known_of(left)?, known_of(right)?];
    let shares = sides.each_ref().map(|runs| runs.iter().map(|run| run.error_share).collect::<Vec<_>>());
    let latency = |runs: &[Known], place: usize| {
        runs.iter().map(|run| run.latencies[place]).collect::<Option<Vec<Estimate>>>()
    };
    let (mut known, mut few) = (Vec::new(), Vec::new());
    for (place, percentile) in percentiles().into_iter().enumerate() {
        match (latency(&sides[0], place), latency(&sides[1], place)) {
            (Some(left), Some(right)) => known.push((percentile, left, right)),
            _ => few.push(percentile),
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
    Ok(Comparison { differs, is_of_one_run, figures, notes: notes(left, right, &few) })
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
            let has = percentiles.map(|percentile| blocks.has(percentile));
            let estimates = blocks.percentiles(&percentiles).into_iter().zip(has);
            let latencies = estimates.map(|(estimate, has)| estimate.filter(|_| has)).collect();
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
    /// That nothing was found says something only with how much would have been.
    fn unseen(&self) -> String {
        let Some(figure) = self.figures.first().filter(|figure| figure.is_latency()) else {
            return "NO DIFFERENCE".to_owned();
        };
        let Figure { name, detectable, .. } = figure;
        if *detectable < UNSTEADY {
            let detectable = detectable * 100.0;
            return format!(
                "NO DIFFERENCE; one of {detectable:.1}% at {name} would have been found in four of five tries"
            );
        }
        let detectable = percent(*detectable);
        format!(
            "NO DIFFERENCE, but too short or too unsteady to tell: only one of {detectable} at {name} would have been \
             found in four of five tries"
        )
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
        let difference = Estimate::difference(left, right, confidence);
        Self {
            name: format!("p{}", percentile.percent()),
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
        if self.is_latency() { display_ns(value.round() as u64) } else { format!("{:.4}%", value * 100.0) }
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
fn notes(left: &[(String, Report)], right: &[(String, Report)], few: &[Percentile]) -> Vec<String> {
    let mut notes = Vec::new();
    if !few.is_empty() {
        let names: Vec<String> = few.iter().map(|percentile| format!("p{}", percentile.percent())).collect();
        let names = names.join(", ");
        notes.push(format!(
            "{names}: not compared, since it takes {BEYOND_MIN} operations beyond, in different seconds, and no failure within"
        ));
    }
    if left.len() + right.len() == 2 {
        notes.push(format!(
            "one run of each side: if starts of one thing differ by 0.5%, 3% of such comparisons find a difference that isn't \
             there, and half of them if starts differ by 2%; run each {RUNS_ADVISED} times, by turns"
        ));
    } else if left.len().min(right.len()) < RUNS_ADVISED {
        notes.push(format!(
            "{} and {} runs: {RUNS_ADVISED} of each, run by turns, would find much smaller differences",
            left.len(),
            right.len()
        ));
    }
    for (name, report) in left.iter().chain(right) {
        if report.generator.interrupted {
            notes.push(format!("{name} was stopped before its end"));
        }
        if report.exit_code == 3 {
            notes.push(format!("{name}: the generator itself could not offer the load"));
        }
        if report.environment.build != "release" {
            notes.push(format!("{name} is of a {} build", report.environment.build));
        }
    }
    notes.extend(differing_settings(left, right));
    notes
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
            let between = format!("{} and {}", percent(*change_low), percent(*change_high));
            let (change, word) = (percent(*change), figure.word());
            writeln!(formatter, "{name:<8}{left:>12}{right:>12}{change:>12}  {between:<28}  {word}")?;
        }
        for note in &self.notes {
            writeln!(formatter, "{note}")?;
        }
        let mut told = String::new();
        for figure in self.figures.iter().filter(|figure| figure.differs) {
            let separator = if told.is_empty() { "" } else { ", " };
            let _ = write!(
                told,
                "{separator}{} {} by {:.1}%",
                figure.name,
                figure.word(),
                figure.change.abs() * 100.0
            );
        }
        if self.differs {
            let beware = if self.is_of_one_run { ", if starts don't differ by themselves" } else { "" };
            write!(formatter, "DIFFERENT: B has {told}{beware}")
        } else {
            formatter.write_str(&self.unseen())
        }
    }
}

#[cfg(test)]
mod tests;
