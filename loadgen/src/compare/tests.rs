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
    let (complaints, start) = (Vec::new(), UNIX_EPOCH);
    let finished = Finished { record, offered, complaints, evicted: 0, marks: Vec::new(), start, intervals };
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
        last.starts_with("NO DIFFERENCE in p50, p75, p90, p99, p99.9; p99.99: not known; one of ")
            && last.contains("% at p50 and one of ")
            && last.ends_with("% at p99.9 would have been found in four of five tries"),
        "{text}"
    );
    assert_eq!((comparison.exit(), comparison.unknown), (Exit::Met, vec!["p99.99".to_owned()]));
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
        text.ends_with(", if starts don't differ by themselves; p99.99: not known")
            && text.contains("run each 5 times"),
        "{text}"
    );
    // What is said of starts is by this comparison's own margin.
    let apart = text.split("two starts of one thing that are +").nth(1).and_then(|it| it.split('%').next());
    let apart: f64 = apart.and_then(|it| it.parse().ok()).expect("a margin");
    let margin = (1.0 + median.change_high) / (1.0 + median.change) - 1.0;
    assert!((apart - margin * 100.0).abs() < 0.01 && apart > 0.1, "{text}");
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
    let text = comparison.to_string();
    assert!(text.contains("p99.9, p99.99: not compared"), "{text}");
    // A difference of half a percent of all operations, and not one "by 0.5%".
    assert!(text.contains("more errors (0.497512% against 0%)"), "{text}");
    assert!(text.ends_with("; p99.9 and beyond: not known"), "{text}");
}

/// So many runs, of which each has so many seconds in which a tenth of the operations take a second.
fn stalling(count: u64, seconds: usize, seed: u64) -> Vec<(String, Report)> {
    let runs = (seed..seed + count).map(|seed| {
        let mut report = report(1.0, 0, seed);
        for interval in report.intervals.iter_mut().skip(seed as usize % 30).take(seconds) {
            let mut due = decode(&interval.due_histogram).expect("a histogram");
            due.record_n(1_000_000_000, 60).expect("in range");
            interval.due_histogram = encode(&due);
        }
        (format!("{seed}.json"), report)
    });
    runs.collect()
}

/// One run of each can't tell three stalls from chance, and must not say that there is no difference where it didn't look.
#[test]
fn what_was_not_looked_at_is_no_equality() {
    let comparison = compare(&stalling(1, 0, 1), &stalling(1, 3, 11)).expect("enough");
    let text = comparison.to_string();
    assert!(!comparison.differs && comparison.unknown == ["p99", "p99.9", "p99.99"], "{text}");
    let last = text.lines().last().unwrap_or_default();
    assert!(last.starts_with("NO DIFFERENCE in p50, p75, p90; p99 and beyond: not known; one of "), "{text}");
    assert!(last.ends_with("% at p90 would have been found in four of five tries"), "{text}");
}

/// A second of each is too few to say anything within one, but five runs that stall and five that don't are no chance.
#[test]
fn a_stall_in_every_run_of_b_is_a_difference() {
    let comparison = compare(&stalling(5, 0, 1), &stalling(5, 1, 11)).expect("enough");
    let slower: Vec<&str> = comparison
        .figures
        .iter()
        .filter(|figure| figure.differs)
        .map(|figure| figure.name.as_str())
        .collect();
    assert!(slower.contains(&"p99.9") && !slower.contains(&"p50"), "{comparison}");
    assert_eq!(comparison.exit(), Exit::Missed);
    // In one run of five, it is chance.
    let one = [stalling(1, 1, 11), stalling(4, 0, 12)].concat();
    let comparison = compare(&stalling(5, 0, 1), &one).expect("enough");
    assert!(!comparison.differs, "{comparison}");
    // Three runs of each, with three stalls in each: nine seconds.
    let comparison = compare(&stalling(3, 0, 1), &stalling(3, 3, 11)).expect("enough");
    assert!(comparison.figures.iter().any(|figure| figure.name == "p99"), "{comparison}");
}

/// Latencies that don't differ are no news beside a lost write.
#[test]
fn a_broken_promise_is_no_success() {
    let mut broken = report(1.0, 0, 2);
    broken.verdict.exit = Exit::Missed;
    broken.verdict.cause = Some(Cause::BrokenPromise);
    broken.verdict.reasons = vec!["3 reads missed an acknowledged write".to_owned()];
    let comparison = compare(&named(report(1.0, 0, 1)), &named(broken)).expect("enough");
    let text = comparison.to_string();
    assert_eq!((comparison.differs, comparison.exit(), comparison.broken), (false, Exit::Missed, [0, 1]));
    assert!(text.contains("\nrun.json: broken promise: 3 reads missed an acknowledged write\n"), "{text}");
    let last = text.lines().last().unwrap_or_default();
    let expected =
        "BROKEN: a promise was broken or a node lost in 0 runs of A and 1 of B; NO DIFFERENCE in p50";
    assert!(last.starts_with(expected), "{text}");
    let mut gone = report(1.0, 0, 2);
    gone.gone = vec!["127.0.0.1:7401 answered before the run, and not after it".to_owned()];
    let comparison = compare(&named(gone), &named(report(1.0, 0, 1))).expect("enough");
    assert_eq!(comparison.exit(), Exit::Missed);
    assert!(comparison.to_string().contains("\nrun.json: 127.0.0.1:7401 answered before"), "{comparison}");
    let mut late = report(1.0, 0, 2);
    late.verdict.exit = Exit::NotOffered;
    late.verdict.cause = Some(Cause::GeneratorLimited);
    let comparison = compare(&named(late), &named(report(1.0, 0, 1))).expect("enough");
    assert_eq!(comparison.exit(), Exit::Met);
    assert!(comparison.to_string().contains("\nrun.json: generator limited: "), "{comparison}");
}

/// The same run five times over would have no spread, and find whatever differs by chance.
#[test]
fn a_run_counts_once() {
    let of_run = |name: &str, seed| Report { runs: vec![name.to_owned()], ..report(1.0, 0, seed) };
    let one = |name: &str, seed| (format!("{name}.json"), of_run(name, seed));
    let refused = |left: &[(String, Report)], right: &[(String, Report)]| match compare(left, right) {
        Err(CompareError::Twice(first, second)) => (first, second),
        other => panic!("{other:?}"),
    };
    let twice = ("a.json".to_owned(), "a.json".to_owned());
    assert_eq!(refused(&[one("a", 1), one("a", 1)], &[one("b", 2)]), twice, "on one side");
    assert_eq!(refused(&[one("b", 2)], &[one("a", 1), one("a", 1)]), twice, "on the other");
    assert_eq!(refused(&[one("a", 1)], &[one("a", 1)]), twice, "on both");
    let sum = Report { runs: vec!["a".to_owned(), "c".to_owned()], ..report(1.0, 0, 3) };
    let sum = ("sum.json".to_owned(), sum);
    assert_eq!(refused(&[one("a", 1)], &[sum]), ("a.json".to_owned(), "sum.json".to_owned()));
    let error = compare(&[one("a", 1)], &[one("a", 1)]).expect_err("the same").to_string();
    assert_eq!(error, "a.json and a.json are results of the same run: it is no second one");
}

/// Where errors are all that could be compared, that is said, with how many more would have been found.
#[test]
fn errors_alone_say_what_they_show() {
    let share = |left: f64, right: f64, differs| Figure {
        name: "errors".to_owned(),
        left,
        right,
        change: right - left,
        change_low: right - left - 1e-4,
        change_high: right - left + 1e-4,
        detectable: 2e-4,
        differs,
    };
    let comparison = |figure: Figure| Comparison {
        differs: figure.differs,
        is_of_one_run: false,
        broken: [0, 0],
        figures: vec![figure],
        unknown: percentiles().map(name_of).to_vec(),
        notes: Vec::new(),
    };
    let text = comparison(share(1e-5, 2e-5, false)).to_string();
    assert!(
        text.ends_with(
            "NO DIFFERENCE in errors; p50 and beyond: not known; 0.02% more or fewer errors would have been found in four \
             of five tries"
        ),
        "{text}"
    );
    let text = comparison(share(1e-5, 3e-4, true)).to_string();
    assert!(text.contains("DIFFERENT: B has more errors (0.03% against 0.001%)"), "{text}");
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
    let text = Comparison {
        differs: false,
        is_of_one_run: false,
        broken: [0, 0],
        figures: vec![figure],
        unknown: Vec::new(),
        notes: Vec::new(),
    };
    let text = text.to_string();
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
