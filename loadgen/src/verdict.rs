//! PASS or FAIL, and why.
//!
//! In this order:
//!
//! 1. A wrong or lost value fails every run, whatever its objective says; so does a node that ended by itself.
//! 2. A run that was stopped early, or in which nothing ended, shows nothing, and fails.
//! 3. A generator that could not offer the load voids the run ([`crate::pacer`] has the criterion). If it was
//!    merely late, only latencies that miss their limit are void: what passed did so on the harder test, and
//!    what missed by more than the lateness missed it surely.
//! 4. The objective decides.
//!
//! What is no PASS has a [`Cause`], which is all that a search needs to know.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::cause::Cause;
use crate::exit::Exit;
use crate::objective::{Finding, Objective};
use crate::outcome::Failure;
use crate::pacer::{Offered, Shortfall};
use crate::record::Record;
use crate::tally::Tally;

/// The judgement on a run. Shown as its last line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// What the process exits with.
    pub exit: Exit,
    /// Why it is no PASS, in a word; `None` if it is one.
    #[serde(default)]
    pub cause: Option<Cause>,
    /// Why, in clauses.
    pub reasons: Vec<String>,
    /// The objective, clause by clause.
    pub findings: Vec<Finding>,
}

impl Verdict {
    /// Judges a run by its record.
    ///
    /// `faults` are sentences about nodes that ended when nobody asked them to, or didn't when they were.
    pub fn reach(objective: &Objective, record: &Record, offered: &Offered, faults: &[String]) -> Self {
        Self::of_tallies(objective, &record.total(), &record.whole(), offered, faults)
    }

    /// Judges by what counts for the objective, and by all that happened: a promise that was broken in warm-up was broken.
    pub fn of_tallies(
        objective: &Objective,
        total: &Tally,
        whole: &Tally,
        offered: &Offered,
        faults: &[String],
    ) -> Self {
        let findings = objective.judge(total);
        let shortfall = offered.shortfall(objective.latency_limit_min());
        let (cause, reasons) = if let Some(reason) = broken_promise(whole) {
            (Some(Cause::BrokenPromise), [&[reason], faults].concat())
        } else if !faults.is_empty() {
            (Some(Cause::NodeEnded), faults.to_vec())
        } else if offered.interrupted {
            (Some(Cause::Stopped), vec!["the run was stopped before its end".to_owned()])
        } else if total.operations() == 0 {
            let reason = "no operation was performed: choose a higher rate or a longer time".to_owned();
            (Some(Cause::TooFew), vec![reason])
        } else if let Some(shortfall) = shortfall.filter(|shortfall| {
            let surely = objective.is_surely_missed(total, |percentile| offered.lateness(percentile));
            voids(shortfall, &findings, surely)
        }) {
            let reason = format!("the generator itself could not offer the load: {shortfall}");
            (Some(Cause::GeneratorLimited), vec![reason])
        } else {
            by_objective(&findings, total)
        };
        let exit = match cause {
            None => Exit::Met,
            Some(Cause::GeneratorLimited) => Exit::NotOffered,
            Some(_) => Exit::Missed,
        };
        Self { exit, cause, reasons, findings }
    }

    /// Whether it is a PASS that enough operations show.
    pub fn is_shown(&self) -> bool {
        self.passed() && self.findings.iter().all(|finding| finding.shown)
    }

    /// Whether it is a PASS.
    pub fn passed(&self) -> bool {
        self.exit == Exit::Met
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.passed() { "PASS" } else { "FAIL" };
        write!(formatter, "{word}: {}", self.reasons.join("; "))
    }
}

fn broken_promise(total: &Tally) -> Option<String> {
    let [lost, wrong] = [Failure::Lost, Failure::Wrong].map(|failure| total.failed(failure));
    (lost + wrong > 0).then(|| {
        format!(
            "{lost} reads missed an acknowledged write and {wrong} brought a value never put on their key"
        )
    })
}

fn voids(shortfall: &Shortfall, findings: &[Finding], surely_missed: bool) -> bool {
    let mut missed = findings.iter().filter_map(|finding| finding.cause).peekable();
    let is_excused = missed.peek().is_some() && missed.all(|cause| cause == Cause::Latency);
    shortfall.voids_success() || (is_excused && !surely_missed)
}

fn by_objective(findings: &[Finding], total: &Tally) -> (Option<Cause>, Vec<String>) {
    let met = findings.iter().all(|finding| finding.met);
    let decisive = findings.iter().filter(|finding| finding.met == met);
    let mut reasons: Vec<String> = decisive.map(|finding| finding.reason.clone()).collect();
    if reasons.is_empty() {
        reasons.push(format!("no objective; all reads of {} operations verified", total.operations()));
    }
    let cause = findings.iter().filter_map(|finding| finding.cause).min();
    let is_unreachable = total.failed(Failure::Unreachable) * 2 > total.operations();
    (cause.map(|cause| if is_unreachable { Cause::Unreachable } else { cause }), reasons)
}

#[cfg(test)]
mod tests {
    use crate::clock::Moment;
    use crate::operation::Kind;
    use crate::outcome::{Completion, Outcome};

    use super::*;

    fn tally(failures: &[Failure]) -> Tally {
        let mut tally = Tally::default();
        let outcomes = failures.iter().map(|&failure| Outcome::Failed(failure));
        for outcome in outcomes.chain((0..2000).map(|_| Outcome::Done)) {
            let (due, sent, done) = (Moment(0), Moment(0), Moment(2_000_000));
            tally.record(&Completion { kind: Kind::Read, due, sent, done, outcome });
        }
        tally
    }

    fn offered(refused: u64, elapsed_ns: u64) -> Offered {
        Offered { handed: 2000, refused, due_last_ns: 1_000_000_000, elapsed_ns, ..Offered::default() }
    }

    fn line(objective: &str, tally: &Tally, offered: &Offered) -> (Exit, String) {
        let objective = objective.parse().expect("an objective");
        let verdict = Verdict::of_tallies(&objective, tally, tally, offered, &[]);
        (verdict.exit, verdict.to_string())
    }

    #[test]
    fn the_objective_decides_and_says_why() {
        let punctual = offered(0, 1_000_000_000);
        let (exit, text) = line("p99.9<300ms,errors<0.001%", &tally(&[]), &punctual);
        assert_eq!(exit, Exit::Met);
        assert_eq!(
            text,
            "PASS: p99.9 2.00 ms < 300 ms (to rely on it takes 10000 operations); \
             errors 0% (0 of 2000) < 0.001% (to rely on it takes 300000 operations)"
        );
        let (exit, text) = line("p99.9<300ms,p50<1ms", &tally(&[]), &punctual);
        assert_eq!((exit, text.as_str()), (Exit::Missed, "FAIL: p50 2.00 ms is not < 1.00 ms"));
    }

    #[test]
    fn a_broken_promise_fails_without_a_clause_for_it() {
        let (exit, text) = line("p50<1s", &tally(&[Failure::Lost]), &offered(500, 1));
        assert_eq!(exit, Exit::Missed);
        assert!(text.starts_with("FAIL: 1 reads missed an acknowledged write"), "{text}");
        let (sound, punctual) = (tally(&[]), offered(0, 1_000_000_000));
        let in_warm_up =
            Verdict::of_tallies(&Objective::default(), &sound, &tally(&[Failure::Wrong]), &punctual, &[]);
        assert_eq!(in_warm_up.exit, Exit::Missed);
        let none = Verdict::of_tallies(&Objective::default(), &sound, &sound, &punctual, &[]);
        assert_eq!(none.to_string(), "PASS: no objective; all reads of 2000 operations verified");
    }

    #[test]
    fn a_node_that_ended_by_itself_fails_the_run() {
        let fault = "node n2 ended by itself".to_owned();
        let punctual = offered(0, 1_000_000_000);
        let sound = tally(&[]);
        let verdict = Verdict::of_tallies(&Objective::default(), &sound, &sound, &punctual, &[fault]);
        assert_eq!(
            (verdict.exit, verdict.to_string()),
            (Exit::Missed, "FAIL: node n2 ended by itself".into())
        );
    }

    #[test]
    fn a_load_that_was_not_offered_shows_nothing() {
        for offered in [offered(100, 1_000_000_000), offered(0, 1_100_000_000)] {
            let (exit, text) = line("p50<1s", &tally(&[]), &offered);
            assert_eq!(exit, Exit::NotOffered);
            assert!(text.starts_with("FAIL: the generator itself could not offer the load"), "{text}");
        }
    }

    #[test]
    fn a_stopped_or_empty_run_fails() {
        let stopped = Offered { interrupted: true, ..offered(0, 1_000_000_000) };
        assert_eq!(line("p50<1s", &tally(&[]), &stopped).0, Exit::Missed);
        assert_eq!(line("p50<1s", &Tally::default(), &Offered::default()).0, Exit::Missed);
    }

    #[test]
    fn lateness_voids_only_missed_latencies() {
        let late = Shortfall::Late { p99_ns: 1, bound_ns: 0 };
        let finding = |met: bool, about_latency| {
            let missed = if about_latency { Cause::Latency } else { Cause::Errors };
            let (clause, reason, cause) = (String::new(), String::new(), (!met).then_some(missed));
            Finding { clause, met, about_latency, cause, shown: true, reason }
        };
        assert!(!voids(&late, &[finding(true, true)], false));
        assert!(voids(&late, &[finding(false, true), finding(true, false)], false));
        assert!(!voids(&late, &[finding(false, true), finding(true, false)], true));
        assert!(!voids(&late, &[finding(false, true), finding(false, false)], false));
        assert!(voids(&Shortfall::Slow { percent: 50.0 }, &[finding(true, true)], true));
    }

    /// Each needs another reaction: whoever takes a broken cluster for a slow one goes on measuring it.
    #[test]
    fn causes_are_told_apart() {
        let punctual = offered(0, 1_000_000_000);
        let verdict = |objective: &str, tally: &Tally, offered: &Offered, faults: &[String]| {
            let objective = objective.parse().expect("an objective");
            let verdict = Verdict::of_tallies(&objective, tally, tally, offered, faults);
            assert_eq!(verdict.cause.is_none(), verdict.passed());
            verdict.cause
        };
        let cause =
            |objective: &str, failures: &[Failure]| verdict(objective, &tally(failures), &punctual, &[]);
        assert_eq!(cause("p50<1s", &[]), None);
        assert_eq!(cause("p50<1ms", &[]), Some(Cause::Latency));
        assert_eq!(cause("p50<1ms,errors<0.01%", &[Failure::Timeout]), Some(Cause::Errors));
        assert_eq!(cause("p50<1ms,p99.99<1s", &[]), Some(Cause::Latency), "one clause is missed surely");
        assert_eq!(cause("p50<1s,p99.99<1s", &[]), Some(Cause::TooFew));
        assert_eq!(cause("p50<1s", &[Failure::Lost]), Some(Cause::BrokenPromise));
        assert_eq!(cause("errors<1%", &[Failure::Unreachable; 2001]), Some(Cause::Unreachable));
        assert_eq!(cause("errors<1%", &[Failure::Unreachable; 1000]), Some(Cause::Errors));
        let ended = ["node n1 ended by itself".to_owned()];
        assert_eq!(verdict("p50<1s", &tally(&[]), &punctual, &ended), Some(Cause::NodeEnded));
        let refused = offered(500, 1_000_000_000);
        assert_eq!(verdict("p50<1s", &tally(&[]), &refused, &[]), Some(Cause::GeneratorLimited));
        let mut late = offered(0, 1_000_000_000);
        late.lateness.record_n(50_000_000, 2000).expect("in range");
        assert_eq!(verdict("p99.99<1ms", &tally(&[]), &late, &[]), Some(Cause::TooFew), "late or not");
    }

    /// Operations took 2 ms from sending; the generator was late by 20 ms at the 99th percentile only.
    #[test]
    fn lateness_excuses_only_what_it_explains() {
        let mut late = offered(0, 1_000_000_000);
        late.lateness.record_n(1000, 1900).expect("in range");
        late.lateness.record_n(20_000_000, 100).expect("in range");
        assert_eq!(line("p99<1us", &tally(&[]), &late).0, Exit::Missed, "the median says so");
        assert_eq!(line("p99<2ms", &tally(&[]), &late).0, Exit::NotOffered);
        assert_eq!(line("p99<3ms", &tally(&[]), &late).0, Exit::Met);
    }
}
