//! Several processes' results as one: `loadgen merge a.json b.json`.
//!
//! Histograms add up; percentiles don't. So what is merged are the histograms that each result carries, and everything
//! else is computed anew: the rows, the intervals second by second, the verdict. The processes must have run at the
//! same time, or their sum is a load that nobody was under; and each must have offered its own share, or nothing was
//! shown.

use std::collections::BTreeMap;

use crate::duration::display_ns;
use crate::encoded::{EncodedError, decode, encode};
use crate::intervals::Interval;
use crate::objective::{Objective, ObjectiveError};
use crate::outcome::Failure;
use crate::pacer::Offered;
use crate::report::{FORMAT, Generator, Report, Row};
use crate::tally::{Counts, Tally};
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
    /// A histogram that can't be read.
    #[error(transparent)]
    Encoded(#[from] EncodedError),
    /// A result that is not whole.
    #[error("{0} has no line for all operations: it was not written by loadgen")]
    Whole(String),
    /// They ran one after the other.
    #[error("{0} ended before {1} began: only what ran at the same time adds up")]
    Apart(String, String),
}

/// No more are kept.
const COMPLAINTS_MAX: usize = 40;
const ALL: &str = "all";

/// Adds up results, each with the name of its file; at least one. `slo` is for the sum; without it, all must have
/// had the same.
pub fn merge(parts: &[(String, Report)], slo: Option<Objective>) -> Result<Report, MergeError> {
    refuse_apart(parts)?;
    let objective = objective(parts, slo)?;
    let sums = sums(parts)?;
    let sum_of = |phase: &str| sums.iter().find(|sum| sum.phase == phase && sum.operation == ALL);
    let total = sum_of(ALL).map(|sum| sum.tally.clone()).unwrap_or_default();
    let mut whole = Tally::default();
    let is_stage = |sum: &&Sum| !["before", "after", ALL].contains(&sum.phase.as_str());
    sums.iter().filter(is_stage).for_each(|sum| whole.merge(&sum.tally));
    if whole.operations() == 0 {
        whole = total.clone();
    }
    let offered: Vec<Offered> =
        parts.iter().map(|(_, part)| part.generator.restore()).collect::<Result<_, _>>()?;
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
        faults,
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
        if !part.rows.iter().any(|row| row.phase == ALL && row.operation == ALL) {
            return Err(MergeError::Whole(name.clone()));
        }
        for row in &part.rows {
            let tally = row.restore()?;
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

fn refuse_apart(parts: &[(String, Report)]) -> Result<(), MergeError> {
    let ended_first = parts.iter().min_by(|(_, left), (_, right)| end_of(left).total_cmp(&end_of(right)));
    let began_last =
        parts.iter().max_by(|(_, left), (_, right)| left.start_unix_s.total_cmp(&right.start_unix_s));
    match ended_first.zip(began_last) {
        Some(((early, first), (late, last))) if end_of(first) < last.start_unix_s => {
            Err(MergeError::Apart(early.clone(), late.clone()))
        }
        _ => Ok(()),
    }
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
    for (name, part) in parts {
        let late_s = part.start_unix_s - start;
        if late_s > 1.0 {
            complaints.push(format!("{name} began {} after the first", display_ns((late_s * 1e9) as u64)));
        }
        if part.environment != parts[0].1.environment {
            let (there, here) = (&part.environment.processor, &parts[0].1.environment.processor);
            if there != here || part.environment.kernel != parts[0].1.environment.kernel {
                complaints.push(format!("{name} is of another machine than {}: {there}", parts[0].0));
            }
        }
    }
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

/// By the second in which they began, counted from the first process's start.
fn intervals(parts: &[(String, Report)]) -> Result<Vec<Interval>, MergeError> {
    let start = start_of(parts);
    let mut merged: BTreeMap<u64, Interval> = BTreeMap::new();
    for (_, part) in parts {
        for interval in &part.intervals {
            let start_s = part.start_unix_s - start + interval.start_s;
            let place = start_s.round().max(0.0) as u64;
            match merged.get_mut(&place) {
                None => {
                    merged.insert(place, Interval { start_s, ..interval.clone() });
                }
                Some(known) => {
                    let mut due = decode(&known.due_histogram)?;
                    due.add(&decode(&interval.due_histogram)?).expect("all histograms have the same bounds");
                    known.length_s = known.length_s.max(interval.length_s);
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

impl Row {
    fn restore(&self) -> Result<Tally, EncodedError> {
        let failed = |failure: Failure| self.failures.get(&failure.to_string()).copied().unwrap_or(0);
        let Self { reads, not_found, stale, .. } = *self;
        let counts = Counts { reads, not_found, stale, failures: Failure::ALL.map(failed) };
        Ok(Tally::restore(decode(&self.due_histogram)?, decode(&self.service_histogram)?, counts))
    }
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
