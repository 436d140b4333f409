//! Whole comparisons, of reports made by hand.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use ringmain::prng::Prng;

use crate::clock::Moment;
use crate::encoded::encode;
use crate::intervals::Interval;
use crate::objective::Objective;
use crate::operation::Kind;
use crate::outcome::{Completion, Outcome};
use crate::pacer::Offered;
use crate::record::Record;
use crate::runner::Finished;
use crate::tally::latency_histogram;
use crate::verdict::Verdict;

use super::*;

/// A run of 40 seconds with 600 operations each, of a millisecond and an exponential tail, times `slower`; some fail.
fn report(slower: f64, errors: u64, seed: u64) -> Report {
    let mut prng = Prng::from_seed(seed);
    let intervals = (0..40u64).map(|second| {
        let mut due = latency_histogram();
        for _ in 0..600 {
            due.saturating_record((1e6 * slower * (1.0 - 0.2 * (1.0 - prng.unit()).ln())) as u64);
        }
        let (operations, max_ns, due_histogram) = (600 + errors, due.max(), encode(&due));
        Interval {
            start_s: second as f64,
            length_s: 1.0,
            operations,
            errors,
            reads: 0,
            stale: 0,
            max_ns,
            due_histogram,
        }
    });
    let mut record = Record::default();
    let (due, sent, done) = (Moment(0), Moment(0), Moment(1_000_000));
    record.record(0, &Completion { kind: Kind::Write, due, sent, done, outcome: Outcome::Done });
    let offered = Offered { handed: 1, due_last_ns: 1, elapsed_ns: 1, ..Offered::default() };
    let verdict = Verdict::reach(&Objective::default(), &record, &offered, &[]);
    let intervals = intervals.collect();
    let finished = Finished { record, offered, complaints: Vec::new(), start: UNIX_EPOCH, intervals };
    Report::new(&finished, verdict, &[], BTreeMap::from([("rate", "600/s".to_owned())]))
}

fn named(report: Report) -> Vec<(String, Report)> {
    vec![("run.json".to_owned(), report)]
}

#[test]
fn two_runs_of_one_thing_do_not_differ() {
    let comparison = compare(&named(report(1.0, 0, 1)), &named(report(1.0, 0, 2))).expect("enough");
    assert!(!comparison.differs, "{comparison}");
    let names: Vec<&str> = comparison.figures.iter().map(|figure| figure.name.as_str()).collect();
    assert_eq!(
        names,
        ["p50", "p75", "p90", "p99", "p99.9"],
        "24 operations lie beyond p99.9, two beyond p99.99"
    );
    let text = comparison.to_string();
    let last = text.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("NO DIFFERENCE; one of ")
            && last.ends_with("at p50 would have been found in four of five tries"),
        "{text}"
    );
    assert!(text.contains("\np99.99: not compared"), "{text}");
    assert!(text.contains("\none run of each side: "), "{text}");
}

#[test]
fn a_slower_run_is_told_with_how_much_where() {
    let comparison = compare(&named(report(1.0, 0, 1)), &named(report(1.05, 0, 2))).expect("enough");
    let median = &comparison.figures[0];
    assert!(median.differs && (0.03..0.07).contains(&median.change), "{comparison}");
    assert!(median.change_low > 0.0 && median.change_high < 0.1, "{comparison}");
    let text = comparison.to_string();
    assert!(
        text.lines().last().is_some_and(|line| line.starts_with("DIFFERENT: B has p50 slower by 5.")),
        "{text}"
    );
    assert!(
        text.ends_with(", if starts don't differ by themselves") && text.contains("run each 5 times"),
        "{text}"
    );
}

/// Three starts of each side that differ by some percent: one of each finds a difference, all of them don't.
#[test]
fn several_runs_of_each_side_know_how_starts_differ() {
    let side = |slower: [f64; 3], seed: u64| {
        let runs = slower.iter().zip(seed..).map(|(&slower, seed)| report(slower, 0, seed));
        runs.map(|report| ("run.json".to_owned(), report)).collect::<Vec<_>>()
    };
    let (left, right) = (side([1.0, 1.03, 0.97], 1), side([1.04, 0.98, 1.02], 11));
    let one = compare(&left[..1], &right[..1]).expect("enough");
    assert!(one.differs && one.is_of_one_run, "{one}");
    let all = compare(&left, &right).expect("enough");
    assert!(!all.differs && !all.is_of_one_run, "{all}");
    assert!(all.to_string().contains("\n3 and 3 runs: 5 of each"), "{all}");
    let slower = compare(&side([1.0, 1.003, 0.997], 1), &side([1.1, 1.097, 1.103], 11)).expect("enough");
    let text = slower.to_string();
    assert!(slower.differs && text.contains("slower by 10.") && !text.contains("by themselves"), "{text}");
}

#[test]
fn errors_are_compared_and_hide_percentiles() {
    let comparison = compare(&named(report(1.0, 0, 1)), &named(report(1.0, 3, 2))).expect("enough");
    let errors = comparison.figures.last().expect("figures");
    assert_eq!((errors.name.as_str(), errors.differs, errors.word()), ("errors", true, "more"));
    assert!(comparison.to_string().contains("p99.9, p99.99: not compared"), "{comparison}");
}

/// Where nearly nothing could be seen, that nothing was seen is no good news.
#[test]
fn unsteady_runs_are_said_to_be_so() {
    let figure = Figure {
        name: "p50".to_owned(),
        left: 1e6,
        right: 9e5,
        change: -0.1,
        change_low: -1.0,
        change_high: 5e37,
        detectable: 7e37,
        differs: false,
    };
    let text = Comparison { differs: false, is_of_one_run: false, figures: vec![figure], notes: Vec::new() }
        .to_string();
    assert!(text.contains(" below -99% and over +1000% ") && text.contains("too unsteady to tell"), "{text}");
}

#[test]
fn other_settings_are_told() {
    let mut other = report(1.0, 0, 2);
    other.configuration.insert("rate".to_owned(), "900/s".to_owned());
    other.generator.interrupted = true;
    let text = compare(&named(report(1.0, 0, 1)), &named(other)).expect("enough").to_string();
    assert!(
        text.contains("\nrate: 600/s against 900/s\n") && text.contains("stopped before its end"),
        "{text}"
    );
}

#[test]
fn a_short_run_or_rubbish_is_refused() {
    let whole = named(report(1.0, 0, 1));
    let mut short = report(1.0, 0, 2);
    short.intervals.truncate(7);
    let error = compare(&whole, &named(short)).expect_err("too short").to_string();
    assert!(error.contains("run.json has 7 intervals"), "{error}");
    let mut rubbish = report(1.0, 0, 2);
    rubbish.intervals[3].due_histogram = "rubbish".to_owned();
    assert!(matches!(compare(&named(rubbish), &whole), Err(CompareError::Encoded { .. })));
}
