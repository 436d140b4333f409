//! Merged results against the result of one process that did all of it.

use std::time::{Duration, UNIX_EPOCH};

use crate::clock::Moment;
use crate::exit::Exit;
use crate::intervals::Intervals;
use crate::operation::Kind;
use crate::outcome::{Completion, Outcome};
use crate::record::Record;
use crate::runner::Finished;

use super::*;

/// Operations `from..upto`, each of as many microseconds as its number; every hundredth fails.
fn report(numbers: std::ops::Range<u64>, start_s: u64, lateness_ns: u64) -> Report {
    let mut record = Record::default();
    let mut intervals = Intervals::begin();
    for number in numbers.clone() {
        let kind = if number.is_multiple_of(3) { Kind::Read } else { Kind::Write };
        let outcome =
            if number.is_multiple_of(100) { Outcome::Failed(Failure::Timeout) } else { Outcome::Done };
        let (due, sent, done) = (Moment(0), Moment(500), Moment(number * 1000));
        let completion = Completion { kind, due, sent, done, outcome };
        record.record(0, &completion);
        intervals.record(&completion);
    }
    let handed = numbers.end - numbers.start;
    let mut offered =
        Offered { handed, due_last_ns: 10_000_000_000, elapsed_ns: 10_000_000_000, ..Offered::default() };
    offered.lateness.record_n(lateness_ns, handed).expect("in range");
    let objective: Objective = SLO.parse().expect("an objective");
    let verdict = Verdict::reach(&objective, &record, &offered, &[]);
    let (start, intervals) = (UNIX_EPOCH + Duration::from_secs(start_s), intervals.finish(1_000_000_000));
    let finished = Finished { record, offered, complaints: vec!["slow".to_owned()], start, intervals };
    let configuration = [("slo", SLO.to_owned()), ("seed", numbers.start.to_string())];
    Report::new(&finished, verdict, &[], configuration.into())
}

const SLO: &str = "p99<6ms,errors<2%";

fn named(reports: impl IntoIterator<Item = Report>) -> Vec<(String, Report)> {
    (1..).zip(reports).map(|(number, report)| (format!("{number}.json"), report)).collect()
}

#[test]
fn parts_add_up_to_the_whole() {
    let whole = report(1..4001, 1000, 1000);
    let parts = named([report(1..1001, 1000, 1000), report(1001..4001, 1000, 1000)]);
    let merged = merge(&parts, None).expect("results that add up");
    assert_eq!(merged.rows, whole.rows);
    assert_eq!(merged.intervals, whole.intervals);
    assert_eq!((merged.exit_code, merged.verdict.reasons.clone()), (0, whole.verdict.reasons.clone()));
    assert_eq!(merged.generator.handed, 4000);
    assert!((merged.generator.per_second - 400.0).abs() < 1e-6);
    assert_eq!(
        (merged.configuration["seed"].as_str(), merged.configuration["processes"].as_str()),
        ("1 | 1001", "2")
    );
    assert_eq!(merged.complaints, ["1.json: slow", "2.json: slow"]);
    let twice = merge(&named([merged, report(4001..5001, 1000, 1000)]), None).expect("a sum adds up too");
    assert_eq!(twice.rows.last().map(|row| row.count), Some(5000));
}

/// Percentiles of the sum are not those of the parts: of one all are quick, of the other none.
#[test]
fn the_objective_is_judged_anew() {
    let parts = named([report(1..1001, 1000, 1000), report(5001..6001, 1000, 1000)]);
    let merged = merge(&parts, Some("p40<2ms,errors<2%".parse().expect("an objective"))).expect("results");
    assert_eq!(merged.verdict.exit, Exit::Met, "{}", merged.verdict);
    let merged = merge(&parts, Some("p90<2ms".parse().expect("an objective"))).expect("results");
    assert_eq!(merged.verdict.exit, Exit::Missed, "{}", merged.verdict);
}

#[test]
fn one_generator_that_was_too_slow_voids_the_sum() {
    let mut slow = report(5001..6001, 1000, 1000);
    slow.generator.refused = 500;
    let merged = merge(&named([report(1..1001, 1000, 1000), slow]), None).expect("results");
    assert_eq!(merged.verdict.exit, Exit::NotOffered, "{}", merged.verdict);
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let later = report(1..1001, 1011, 1000);
    let error = merge(&named([report(1..1001, 1000, 1000), later]), None).expect_err("one after the other");
    assert_eq!(error.to_string(), "1.json ended before 2.json began: only what ran at the same time adds up");
    let mut other = report(1..1001, 1000, 1000);
    other.configuration.insert("slo".to_owned(), "p50<1s".to_owned());
    let parts = named([report(1..1001, 1000, 1000), other]);
    assert!(matches!(merge(&parts, None), Err(MergeError::Objectives(..))));
    assert!(merge(&parts, Some(SLO.parse().expect("an objective"))).is_ok());
    let mut torn = report(1..1001, 1000, 1000);
    torn.rows.clear();
    assert!(matches!(merge(&named([torn]), None), Err(MergeError::Whole(_))));
}

/// Second by second, by the wall clock: what one process did in its third second, another did in its first.
#[test]
fn intervals_are_laid_over_each_other() {
    let merged =
        merge(&named([report(1..11, 1000, 1000), report(11..31, 1002, 1000)]), None).expect("results");
    let seconds: Vec<(f64, u64)> =
        merged.intervals.iter().map(|interval| (interval.start_s, interval.operations)).collect();
    assert_eq!(seconds, [(0.0, 10), (2.0, 20)]);
    assert!(
        merged.complaints.iter().any(|complaint| complaint.contains("2.json began 2.00 s after")),
        "{:?}",
        merged.complaints
    );
}
