//! Objectives as users write them, and judgements on tallies made by hand.

use crate::clock::Moment;
use crate::operation::Kind;
use crate::outcome::{Completion, Failure, Outcome};

use super::*;

fn parse(text: &str) -> Result<Objective, ObjectiveError> {
    text.parse()
}

/// `successes` operations of 1 to `successes` us, then `failures` failed ones.
fn tally(successes: u64, failures: u64) -> Tally {
    let mut tally = Tally::default();
    let mut record = |latency_us: u64, outcome| {
        let (due, sent, done) = (Moment(0), Moment(0), Moment(latency_us * 1000));
        tally.record(&Completion { kind: Kind::Read, due, sent, done, outcome });
    };
    (1..=successes).for_each(|latency_us| record(latency_us, Outcome::Done));
    (0..failures).for_each(|_| record(1, Outcome::Failed(Failure::Timeout)));
    tally
}

fn finding(objective: &str, tally: &Tally) -> (bool, String) {
    let mut findings = parse(objective).expect("an objective").judge(tally);
    assert_eq!(findings.len(), 1);
    let finding = findings.remove(0);
    (finding.met, finding.reason)
}

#[test]
fn clauses_are_read_and_written_back() {
    for text in [
        "p99.9<300ms,p50<1ms,errors<0.001%",
        "max<1s,mean<=20µs",
        "p99.9999<1.5ms",
        "errors<=0%",
        "stale<0.1%",
    ] {
        assert_eq!(parse(text).expect("an objective").to_string(), text);
    }
    assert_eq!(parse(" p50 < 1ms , errors<0.00001").expect("spaces").to_string(), "p50<1ms,errors<0.001%");
    let tightest = parse("p99.9<300ms,p50<1ms,errors<1%").expect("an objective").latency_limit_min();
    assert_eq!(tightest, Some(Duration::from_millis(1)));
}

/// A search hands its objective on as text: what is rounded there is another objective.
#[test]
fn small_shares_are_written_back_exactly() {
    for text in
        ["errors<0.0000001%", "stale<1e-9", "errors<33.3333333333%", "errors<0.123456789%", "errors<=7%"]
    {
        let objective = parse(text).expect("an objective");
        assert_eq!(parse(&objective.to_string()), Ok(objective.clone()), "{text}: {objective}");
    }
    assert_eq!(parse("errors<0.0000001%").expect("an objective").to_string(), "errors<0.0000001%");
}

#[test]
fn mistakes_are_named() {
    for text in ["", "p99", "p99>3ms", "p50<1ms,"] {
        assert!(matches!(parse(text), Err(ObjectiveError::Clause(_))), "{text}");
    }
    for text in ["p100<1s", "p0<1s", "p<1s", "p-5<1s", "q50<1s", "p99.12345678<1s", "p1e1<1s"] {
        assert!(matches!(parse(text), Err(ObjectiveError::Figure { .. })), "{text}");
    }
    let mistyped = parse("stael<1%").expect_err("no figure").to_string();
    assert!(mistyped.starts_with("'stael' is no figure (did you mean stale?)"), "{mistyped}");
    assert!(matches!(parse("p99<300"), Err(ObjectiveError::Limit { .. })));
    for text in ["errors<x", "errors<101%", "errors<2", "errors<-1%", "errors<"] {
        assert!(matches!(parse(text), Err(ObjectiveError::Share(_))), "{text}");
    }
}

#[test]
fn latencies_are_judged_with_figure_and_limit() {
    let tally = tally(1000, 0);
    assert_eq!(
        finding("p99.9<2ms", &tally),
        (true, "p99.9 999 us < 2.00 ms (to rely on it takes 10000 operations)".to_owned())
    );
    assert_eq!(finding("p50<100us", &tally), (false, "p50 500 us is not < 100 us".to_owned()));
    assert!(finding("max<2ms", &tally).0);
    assert!(finding("mean<501us", &tally).0);
    assert!(!finding("mean<400us", &tally).0);
}

#[test]
fn errors_are_judged_as_a_share() {
    let tally = tally(999, 1);
    let (met, reason) = finding("errors<0.001%", &tally);
    assert_eq!((met, reason.as_str()), (false, "errors 0.1% (1 of 1000) is not < 0.001%"));
    assert!(!finding("errors<0.1%", &tally).0);
    assert!(finding("errors<=0.1%", &tally).0);
    assert!(finding("errors<0.002", &tally).0);
}

/// Of the reads that were answered: writes, and reads that failed, are none of the whole.
#[test]
fn stale_answers_are_judged_as_a_share_of_reads() {
    let mut tally = tally(8, 5);
    for (kind, outcome) in
        [(Kind::Read, Outcome::Stale), (Kind::Read, Outcome::NotFound), (Kind::Write, Outcome::Done)]
    {
        let (due, sent, done) = (Moment(0), Moment(0), Moment(1000));
        tally.record(&Completion { kind, due, sent, done, outcome });
    }
    assert_eq!(finding("stale<10%", &tally), (false, "stale 10% (1 of 10) is not < 10%".to_owned()));
    assert!(finding("stale<=10%", &tally).0);
    let unread = finding("stale<10%", &Tally::default());
    assert_eq!(unread, (false, "stale is unknown: there were no answered reads".to_owned()));
}

#[test]
fn too_few_operations_show_nothing() {
    let (met, reason) = finding("p99.9<300ms", &tally(999, 0));
    assert_eq!(
        (met, reason.as_str()),
        (false, "p99.9 is unknown: 999 operations are too few, it takes 1000")
    );
    assert!(finding("p99.9<300ms", &tally(1000, 0)).0);
    assert!(!finding("max<1s", &tally(0, 0)).0);
    assert!(!finding("errors<1%", &tally(0, 0)).0);
}

/// A thousand operations pass by luck where one in 667 takes too long; three hundred thousand without a failure seldom do.
#[test]
fn what_holds_is_shown_by_enough_operations() {
    let shown = |objective: &str, tally: &Tally| {
        let finding = parse(objective).expect("an objective").judge(tally).remove(0);
        assert!(finding.met, "{finding:?}");
        finding.shown
    };
    assert!(!shown("p99.9<1s", &tally(9999, 0)) && shown("p99.9<1s", &tally(10_000, 0)));
    assert!(!shown("p50<1s", &tally(19, 0)) && shown("p50<1s", &tally(20, 0)));
    // exp(-3), one of twenty: as many as one divided by the limit would pass by luck in 37 of a hundred runs.
    assert!(!shown("errors<0.01%", &tally(29_999, 0)) && shown("errors<0.01%", &tally(30_000, 0)));
    assert!(shown("errors<=0%", &tally(3, 0)) && shown("max<1s", &tally(3, 0)));
    let (_, reason) = finding("errors<0.01%", &tally(9999, 0));
    assert_eq!(reason, "errors 0% (0 of 9999) < 0.01% (to rely on it takes 30000 operations)");
    let objective = parse("p99<1s,errors<0.01%").expect("an objective");
    assert!(!objective.is_shown(&tally(29_999, 0)) && objective.is_shown(&tally(30_000, 0)));
}

#[test]
fn causes_tell_what_was_missed_from_what_is_unknown() {
    for (objective, tally, cause) in [
        ("p99<1us", tally(1000, 0), Cause::Latency),
        ("p99.9<1s", tally(999, 0), Cause::TooFew),
        ("p99.9<1s", tally(998, 2), Cause::Errors),
        ("errors<0.1%", tally(998, 2), Cause::Errors),
        ("stale<1%", Tally::default(), Cause::TooFew),
    ] {
        let finding = parse(objective).expect("an objective").judge(&tally).remove(0);
        assert_eq!((finding.met, finding.cause), (false, Some(cause)), "{objective}");
    }
}

#[test]
fn a_percentile_among_the_failures_is_missed() {
    let (met, reason) = finding("p99.9<300ms", &tally(998, 2));
    assert_eq!((met, reason.as_str()), (false, "p99.9 falls among the 2 failed operations, not < 300 ms"));
    assert!(finding("p99<300ms", &tally(998, 2)).0);
}
