//! Several processes' results as one: `loadgen merge a.json b.json`.
//!
//! Histograms add up; percentiles don't. So what is merged are the histograms that each result carries, and everything
//! else is computed anew: the rows, the intervals second by second, the verdict. The processes must have loaded one cluster
//! at the same time, or their sum is a load that nobody was under; and each must have offered its own share, or nothing was
//! shown. What would make a wrong sum is refused; what somebody may want (other machines, a background load without phases,
//! a late start) is told.

use std::collections::{BTreeMap, BTreeSet};

use crate::duration::display_ns;
use crate::encoded::{EncodedError, decode, encode};
use crate::intervals::Interval;
use crate::objective::{Objective, ObjectiveError};
use crate::pacer::Offered;
use crate::report::{FORMAT, Generator, Report, RestoreError, Row};
use crate::tally::Tally;
use crate::verdict::Verdict;

/// Why results can't be merged.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum MergeError {
    /// Each was judged by another objective.
    #[error("the results have different objectives, '{0}' and '{1}': give one for all with --slo")]
    Objectives(String, String),
    /// An objective in a result that this version doesn't understand.
    #[error("the results' objective isn't understood: {0}")]
    Objective(#[from] ObjectiveError),
    /// A result whose figures can't be had back.
    #[error("{name}: {source}")]
    Restore {
        /// Its file.
        name: String,
        /// Why.
        source: RestoreError,
    },
    /// They ran one after the other, or nearly so.
    #[error(
        "{early} and {late} ran at the same time for {together} of {whole}: only what ran together adds up"
    )]
    Apart {
        /// The one that ended first.
        early: String,
        /// The one that began last.
        late: String,
        /// How long all ran.
        together: String,
        /// How long the longest of them ran.
        whole: String,
    },
    /// Two results have a run in common.
    #[error("{0} and {1} are results of the same run: it would be counted twice")]
    Twice(String, String),
    /// They loaded different things.
    #[error("{0} and {1} are of different clusters: their sum is a load that neither was under")]
    Clusters(String, String),
    /// They measured differently, perhaps.
    #[error("{0} is of loadgen {2} and {1} of {3}: run all with one version")]
    Versions(String, String, String, String),
    /// Rows of one name that aren't the same part of the load.
    #[error("{0} has the phases '{2}' and {1} has '{3}': run all through the same")]
    Phases(String, String, String, String),
}

/// Of the longest run, all must have been under way for this share: else most of the sum is of fewer.
const TOGETHER_MIN: f64 = 0.5;
/// Below this it is told.
const TOGETHER_TOLD: f64 = 0.9;
/// A start is never earlier than its second, but for what rounding takes away.
const CUT_EARLY_MAX_S: f64 = 0.001;
/// No more are kept.
const COMPLAINTS_MAX: usize = 40;
const ALL: &str = "all";

/// Adds up results, each with the name of its file; at least one. `slo` is for the sum; without it, all must have
/// had the same.
pub fn merge(parts: &[(String, Report)], slo: Option<Objective>) -> Result<Report, MergeError> {
    refuse_what_does_not_belong_together(parts)?;
    let objective = objective(parts, slo)?;
    let sums = sums(parts)?;
    let total = sums.iter().find(|sum| sum.phase == ALL && sum.operation == ALL);
    let total = total.map(|sum| sum.tally.clone()).unwrap_or_default();
    let whole = whole(parts)?;
    let offered = parts.iter().map(|(name, part)| of(name, part.generator.restore().map_err(Into::into)));
    let offered: Vec<Offered> = offered.collect::<Result<_, _>>()?;
    let faults: Vec<String> = parts.iter().flat_map(|(_, part)| part.faults.clone()).collect();
    let verdicts =
        offered.iter().map(|offered| Verdict::of_tallies(&objective, &total, &whole, offered, &faults));
    // What one generator failed to offer, the others' share doesn't show.
    let verdict = verdicts.max_by_key(|verdict| verdict.exit).expect("there is a part");
    let first = &parts[0].1;
    Ok(Report {
        format: FORMAT,
        result: if verdict.passed() { "PASS" } else { "FAIL" }.to_owned(),
        exit_code: verdict.exit.code(),
        verdict,
        rows: sums.iter().map(|sum| Row::of(&sum.phase, &sum.operation, &sum.tally)).collect(),
        generator: generator(&offered),
        complaints: complaints(parts),
        marks: parts.iter().flat_map(|(_, part)| part.marks.clone()).collect(),
        notes: distinct(parts.iter().flat_map(|(_, part)| &part.notes)),
        faults,
        gone: distinct(parts.iter().flat_map(|(_, part)| &part.gone)),
        silent: distinct(parts.iter().flat_map(|(_, part)| &part.silent)),
        runs: parts.iter().flat_map(|(_, part)| part.runs.clone()).collect(),
        configuration: configuration(parts, &objective),
        environment: first.environment.clone(),
        start_unix_s: start_of(parts),
        intervals: intervals(parts)?,
    })
}

/// The rows of one name.
struct Sum {
    phase: String,
    operation: String,
    tally: Tally,
}

fn sums(parts: &[(String, Report)]) -> Result<Vec<Sum>, MergeError> {
    let mut sums: Vec<Sum> = Vec::new();
    for (name, part) in parts {
        of(name, part.total())?;
        for row in &part.rows {
            let tally = of(name, row.restore())?;
            let known = sums.iter_mut().find(|sum| sum.phase == row.phase && sum.operation == row.operation);
            match known {
                Some(sum) => sum.tally.merge(&tally),
                None => {
                    let (phase, operation) = (row.phase.clone(), row.operation.clone());
                    sums.push(Sum { phase, operation, tally });
                }
            }
        }
    }
    // The sum of all stands last, whatever kinds only a later part had.
    sums.sort_by_key(|sum| sum.phase == ALL && sum.operation == ALL);
    Ok(sums)
}

/// All that happened, part by part: that of one with phases is the sum of its phases, warm-up among them; another has but
/// its own sum.
fn whole(parts: &[(String, Report)]) -> Result<Tally, MergeError> {
    let mut whole = Tally::default();
    for (name, part) in parts {
        let mut stages = part.rows.iter().filter(|row| is_stage(&row.phase)).peekable();
        if stages.peek().is_none() {
            whole.merge(&of(name, part.total())?);
        }
        for row in stages {
            whole.merge(&of(name, row.restore())?);
        }
    }
    Ok(whole)
}

fn is_stage(phase: &str) -> bool {
    !["before", "after", ALL].contains(&phase)
}

/// The names of a part's phases, in order; empty if it has but one.
fn stages(part: &Report) -> Vec<&str> {
    part.rows.iter().map(|row| row.phase.as_str()).filter(|phase| is_stage(phase)).collect()
}

fn of<T>(name: &str, restored: Result<T, RestoreError>) -> Result<T, MergeError> {
    restored.map_err(|source| MergeError::Restore { name: name.to_owned(), source })
}

fn objective(parts: &[(String, Report)], slo: Option<Objective>) -> Result<Objective, MergeError> {
    if let Some(slo) = slo {
        return Ok(slo);
    }
    let slo_of = |part: &Report| part.configuration.get("slo").cloned().unwrap_or_default();
    let first = slo_of(&parts[0].1);
    match parts.iter().map(|(_, part)| slo_of(part)).find(|other| *other != first) {
        Some(other) => Err(MergeError::Objectives(first, other)),
        None => Ok(first.parse()?),
    }
}

fn end_of(part: &Report) -> f64 {
    part.start_unix_s + part.generator.elapsed_ns as f64 / 1e9
}

fn refuse_what_does_not_belong_together(parts: &[(String, Report)]) -> Result<(), MergeError> {
    for (place, (left, first)) in parts.iter().enumerate() {
        for (right, second) in &parts[place + 1..] {
            let names = || (left.clone(), right.clone());
            if have_a_run_in_common(first, second) {
                let (left, right) = names();
                return Err(MergeError::Twice(left, right));
            }
            let cluster = |part: &Report| part.configuration.get("cluster").cloned();
            if cluster(first).zip(cluster(second)).is_some_and(|(first, second)| first != second) {
                let (left, right) = names();
                return Err(MergeError::Clusters(left, right));
            }
            let version = |part: &Report| part.environment.version.clone();
            if version(first) != version(second) {
                let (left, right) = names();
                return Err(MergeError::Versions(left, right, version(first), version(second)));
            }
            let (here, there) = (stages(first), stages(second));
            if !here.is_empty() && !there.is_empty() && here != there {
                let (left, right) = names();
                return Err(MergeError::Phases(left, right, here.join(", "), there.join(", ")));
            }
        }
    }
    refuse_apart(parts)
}

/// Whether these are results of the same run, or of several of which one is the same: a file and its copy, a sum and a part.
pub fn have_a_run_in_common(first: &Report, second: &Report) -> bool {
    first == second || first.runs.iter().any(|run| second.runs.contains(run))
}

fn refuse_apart(parts: &[(String, Report)]) -> Result<(), MergeError> {
    if together(parts) >= TOGETHER_MIN {
        return Ok(());
    }
    let early = parts.iter().min_by(|(_, left), (_, right)| end_of(left).total_cmp(&end_of(right)));
    let late = parts.iter().max_by(|(_, left), (_, right)| left.start_unix_s.total_cmp(&right.start_unix_s));
    let ((early, _), (late, _)) = early.zip(late).expect("there is a part");
    let shown = |seconds: f64| display_ns((seconds * 1e9) as u64);
    Err(MergeError::Apart {
        early: early.clone(),
        late: late.clone(),
        together: shown(overlap_s(parts)),
        whole: shown(longest_s(parts)),
    })
}

/// For what share of the longest run all were under way.
fn together(parts: &[(String, Report)]) -> f64 {
    let longest_s = longest_s(parts);
    if longest_s > 0.0 { overlap_s(parts) / longest_s } else { 1.0 }
}

fn overlap_s(parts: &[(String, Report)]) -> f64 {
    let ended_first = parts.iter().map(|(_, part)| end_of(part)).fold(f64::INFINITY, f64::min);
    let began_last = parts.iter().map(|(_, part)| part.start_unix_s).fold(f64::NEG_INFINITY, f64::max);
    (ended_first - began_last).max(0.0)
}

fn longest_s(parts: &[(String, Report)]) -> f64 {
    parts.iter().map(|(_, part)| end_of(part) - part.start_unix_s).fold(0.0, f64::max)
}

fn distinct<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<String> {
    texts.cloned().collect::<BTreeSet<String>>().into_iter().collect()
}

fn start_of(parts: &[(String, Report)]) -> f64 {
    parts.iter().map(|(_, part)| part.start_unix_s).fold(f64::INFINITY, f64::min)
}

fn generator(offered: &[Offered]) -> Generator {
    let mut sum = Offered::default();
    for part in offered {
        sum.handed += part.handed;
        sum.refused += part.refused;
        sum.held_up_ns += part.held_up_ns;
        sum.due_last_ns = sum.due_last_ns.max(part.due_last_ns);
        sum.elapsed_ns = sum.elapsed_ns.max(part.elapsed_ns);
        sum.interrupted |= part.interrupted;
        sum.unpaced |= part.unpaced;
        sum.lateness.add(&part.lateness).expect("all histograms have the same bounds");
    }
    Generator::of(&sum)
}

fn complaints(parts: &[(String, Report)]) -> Vec<String> {
    let start = start_of(parts);
    let mut complaints: Vec<String> = parts
        .iter()
        .flat_map(|(name, part)| part.complaints.iter().map(move |complaint| format!("{name}: {complaint}")))
        .collect();
    let own = complaints.len();
    for (name, part) in parts {
        let late_s = part.start_unix_s - start;
        if late_s > 1.0 {
            complaints.push(format!("{name} began {} after the first", display_ns((late_s * 1e9) as u64)));
        }
        let (there, here) = (&part.environment, &parts[0].1.environment);
        if there.processor != here.processor || there.kernel != here.kernel {
            complaints.push(format!("{name} is of another machine than {}: {}", parts[0].0, there.processor));
        }
        if there.build != here.build {
            complaints.push(format!("{name} is of a {} build, and {} is not", there.build, parts[0].0));
        }
        if stages(part) != stages(&parts[0].1) {
            complaints.push(format!(
                "only one of {name} and {} has phases: lines of phases are of that one alone",
                parts[0].0
            ));
        }
    }
    let together = together(parts);
    if together < TOGETHER_TOLD {
        complaints.push(format!("all ran together for only {:.0}% of the longest run", together * 100.0));
    }
    // What is told of the parts themselves comes first, lest it be cut off.
    complaints.rotate_left(own);
    complaints.truncate(COMPLAINTS_MAX);
    complaints
}

/// What all have in common, and the different values of the rest.
fn configuration(parts: &[(String, Report)], objective: &Objective) -> BTreeMap<String, String> {
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (_, part) in parts {
        for (name, value) in &part.configuration {
            let known = values.entry(name.clone()).or_default();
            if !known.contains(value) {
                known.push(value.clone());
            }
        }
    }
    let mut joined: BTreeMap<String, String> =
        values.into_iter().map(|(name, values)| (name, values.join(" | "))).collect();
    joined.insert("slo".to_owned(), objective.to_string());
    joined.insert("processes".to_owned(), parts.len().to_string());
    joined
}

/// By the second in which they began, counted from the first process's start. Each is cut a little late, never early, so the
/// second of its own process is what its start is rounded down to; how much later that process began is rounded for itself.
/// Rounded together, a late cut and the next would fall into one second.
fn intervals(parts: &[(String, Report)]) -> Result<Vec<Interval>, MergeError> {
    let start = start_of(parts);
    let mut merged: BTreeMap<u64, Interval> = BTreeMap::new();
    for (name, part) in parts {
        let late_s = part.start_unix_s - start;
        let mut place_before = None;
        for interval in &part.intervals {
            let start_s = late_s + interval.start_s;
            let place = (late_s.round() + (interval.start_s + CUT_EARLY_MAX_S).floor()).max(0.0) as u64;
            let is_of_one_part = place_before.replace(place) == Some(place);
            match merged.get_mut(&place) {
                None => {
                    merged.insert(place, Interval { start_s, ..interval.clone() });
                }
                Some(known) => {
                    let decode = |text: &str| of(name, decode(text).map_err(RestoreError::from));
                    let mut due = decode(&known.due_histogram)?;
                    due.add(&decode(&interval.due_histogram)?).expect("all histograms have the same bounds");
                    known.length_s = if is_of_one_part {
                        known.length_s + interval.length_s
                    } else {
                        known.length_s.max(interval.length_s)
                    };
                    known.operations += interval.operations;
                    known.errors += interval.errors;
                    known.reads += interval.reads;
                    known.stale += interval.stale;
                    known.max_ns = known.max_ns.max(interval.max_ns);
                    known.due_histogram = encode(&due);
                }
            }
        }
    }
    Ok(merged.into_values().collect())
}

impl Generator {
    fn restore(&self) -> Result<Offered, EncodedError> {
        let Self { handed, refused, held_up_ns, due_last_ns, elapsed_ns, interrupted, unpaced, .. } = *self;
        let lateness = decode(&self.lateness_histogram)?;
        Ok(Offered { handed, refused, due_last_ns, elapsed_ns, held_up_ns, interrupted, unpaced, lateness })
    }
}

#[cfg(test)]
mod tests;
