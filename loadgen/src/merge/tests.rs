//! Merged results against the result of one process that did all of it.

use std::time::{Duration, UNIX_EPOCH};

use crate::clock::Moment;
use crate::exit::Exit;
use crate::intervals::Intervals;
use crate::operation::Kind;
use crate::outcome::{Completion, Failure, Outcome};
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
    let finished = Finished {
        record,
        offered,
        complaints: vec!["slow".to_owned()],
        evicted: 0,
        marks: Vec::new(),
        start,
        intervals,
    };
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

fn refused(left: Report, right: Report) -> String {
    merge(&named([left, right]), None).expect_err("they don't add up").to_string()
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let one = || report(1..1001, 1000, 1000);
    let two = |start_s: u64| report(1001..2001, start_s, 1000);
    assert_eq!(
        refused(one(), two(1011)),
        "1.json and 2.json ran at the same time for 0 ns of 10.0 s: only what ran together adds up"
    );
    let text = refused(one(), two(1006));
    assert!(text.contains("at the same time for 4.00 s of 10.0 s"), "{text}");
    let copied = one();
    assert_eq!(
        refused(copied.clone(), copied),
        "1.json and 2.json are results of the same run: it would be counted twice"
    );
    let mut other = two(1000);
    other.configuration.insert("cluster".to_owned(), "2".to_owned());
    let mut first = one();
    assert!(merge(&named([first.clone(), other.clone()]), None).is_ok(), "of an older result nobody knows");
    first.configuration.insert("cluster".to_owned(), "1".to_owned());
    assert!(refused(first, other).starts_with("1.json and 2.json are of different clusters"));
    let mut other = two(1000);
    other.environment.version = "0.0.1".to_owned();
    assert!(refused(one(), other).ends_with("of 0.0.1: run all with one version"));
    let mut other = two(1000);
    other.configuration.insert("slo".to_owned(), "p50<1s".to_owned());
    let parts = named([one(), other]);
    assert!(matches!(merge(&parts, None), Err(MergeError::Objectives(..))));
    assert!(merge(&parts, Some(SLO.parse().expect("an objective"))).is_ok());
}

/// By its name, too: a sum holds its parts.
#[test]
fn a_run_is_counted_once() {
    let of_run = |name: &str, numbers| Report { runs: vec![name.to_owned()], ..report(numbers, 1000, 1000) };
    let (one, two) = (of_run("a", 1..1001), of_run("b", 1001..2001));
    let sum = merge(&named([one.clone(), two]), None).expect("two runs");
    assert_eq!(sum.runs, ["a", "b"]);
    assert!(refused(sum, one).contains("results of the same run"));
}

#[test]
fn torn_results_are_refused() {
    let (one, two) = (report(1..1001, 1000, 1000), report(1001..2001, 1000, 1000));
    let refused = |damage: &dyn Fn(&mut Report)| {
        let mut torn = two.clone();
        damage(&mut torn);
        refused(one.clone(), torn)
    };
    assert!(refused(&|torn| torn.rows.clear()).starts_with("2.json: there is no line for all operations"));
    // A way of failing that a later version has: its operations must not vanish.
    let unknown = refused(&|torn| {
        let row = torn.rows.last_mut().expect("rows");
        let count = row.failures.remove("timeout").expect("it has some");
        row.failures.insert("forgotten".to_owned(), count);
    });
    assert_eq!(unknown, "2.json: 'forgotten' is no way of failing that this version knows");
    let fewer = refused(&|torn| torn.rows.last_mut().expect("rows").failures.clear());
    assert_eq!(fewer, "2.json: the line 'all all' counts 1000 operations, and has the figures of 990");
}

/// A part of two seconds of warm-up, in which this many reads were lost, and eight seconds that count.
fn report_with_phases(numbers: std::ops::Range<u64>, lost_in_warm_up: u64) -> Report {
    let phases: crate::profile::Phases = "warmup 2s, steady 8s".parse().expect("phases");
    let mut record = Record::new(&phases.profile("100/s".parse().expect("a rate")));
    let count = numbers.end - numbers.start;
    for number in numbers.clone() {
        let due_ns = (number - numbers.start) * 10_000_000_000 / count;
        let outcome = if number < numbers.start + lost_in_warm_up {
            Outcome::Failed(Failure::Lost)
        } else {
            Outcome::Done
        };
        let (due, sent, done) = (Moment(0), Moment(0), Moment(1_000_000));
        record.record(due_ns, &Completion { kind: Kind::Read, due, sent, done, outcome });
    }
    let offered = Offered {
        handed: count,
        due_last_ns: 10_000_000_000,
        elapsed_ns: 10_000_000_000,
        ..Offered::default()
    };
    let objective: Objective = SLO.parse().expect("an objective");
    let verdict = Verdict::reach(&objective, &record, &offered, &[]);
    let (start, intervals) = (UNIX_EPOCH + Duration::from_secs(1000), Vec::new());
    let finished =
        Finished { record, offered, complaints: Vec::new(), evicted: 0, marks: Vec::new(), start, intervals };
    let runs = vec![numbers.start.to_string()];
    Report { runs, ..Report::new(&finished, verdict, &[], [("slo", SLO.to_owned())].into()) }
}

/// Warm-up isn't judged, but a promise that was broken in it is: wherever a part keeps it.
#[test]
fn lost_reads_are_found_in_every_part() {
    let sound = || report_with_phases(1..1001, 0);
    let broken = |left: Report, right: Report| {
        let merged = merge(&named([left, right]), None).expect("they add up");
        let is_broken = merged.verdict.cause == Some(crate::cause::Cause::BrokenPromise);
        assert_eq!(is_broken, merged.exit_code == 1, "{}", merged.verdict);
        is_broken
    };
    assert!(!broken(sound(), report_with_phases(1001..2001, 0)));
    assert!(broken(sound(), report_with_phases(1001..2001, 3)), "in a warm-up");
    // A background load without phases, beside one that has them.
    let mut plain = report(1..1001, 1000, 1000);
    assert!(!broken(sound(), plain.clone()));
    for row in plain.rows.iter_mut().filter(|row| row.failures.contains_key("timeout")) {
        let count = row.failures.remove("timeout").expect("it has some");
        row.failures.insert("lost".to_owned(), count);
    }
    assert!(broken(sound(), plain.clone()), "in a part without phases");
    assert!(broken(plain, report_with_phases(1001..2001, 2)), "in both");
}

#[test]
fn phases_add_up_if_they_are_the_same() {
    let merged = merge(&named([report_with_phases(1..1001, 0), report_with_phases(1001..3001, 0)]), None);
    let merged = merged.expect("the same phases");
    let counts: Vec<(&str, u64)> = merged.rows.iter().map(|row| (row.phase.as_str(), row.count)).collect();
    assert_eq!(counts, [("1 warmup", 600), ("2 steady", 2400), ("all", 2400), ("all", 2400)]);
    let mut other = report_with_phases(1001..2001, 0);
    other
        .rows
        .iter_mut()
        .filter(|row| row.phase == "2 steady")
        .for_each(|row| row.phase = "2 ramp".to_owned());
    assert_eq!(
        refused(report_with_phases(1..1001, 0), other),
        "1.json has the phases '1 warmup, 2 steady' and 2.json has '1 warmup, 2 ramp': run all through the same"
    );
    let merged = merge(&named([report_with_phases(1..1001, 0), report(1..1001, 1000, 1000)]), None);
    let complaints = merged.expect("a background load").complaints;
    assert!(
        complaints.iter().any(|it| it.starts_with("only one of 2.json and 1.json has phases")),
        "{complaints:?}"
    );
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
    assert!(merged.complaints.contains(&"all ran together for only 80% of the longest run".to_owned()));
}

/// A generator that was held up cuts a second late, and the next in time: both are still seconds of their own.
#[test]
fn a_second_that_was_cut_late_is_not_added_to_the_next() {
    let with_starts = |mut report: Report, starts: [f64; 4]| {
        let first = report.intervals[0].clone();
        report.intervals =
            starts.map(|start_s| Interval { start_s, length_s: 1.0, ..first.clone() }).to_vec();
        report
    };
    let one = with_starts(report(1..11, 1000, 1000), [0.0, 1.0, 2.0, 3.0]);
    let mut two = with_starts(report(11..31, 1000, 1000), [0.0, 1.0001, 2.6, 3.0]);
    two.start_unix_s += 0.4;
    let merged = merge(&named([one, two]), None).expect("results");
    let operations: Vec<u64> = merged.intervals.iter().map(|interval| interval.operations).collect();
    assert_eq!(operations, [30; 4]);
    assert!(merged.intervals.iter().all(|interval| interval.length_s == 1.0), "{:?}", merged.intervals);
}
