//! Carries out the commands that make more of results than one verdict.
//!
//! `search` and `sweep` start this program again for each run, so that a run within a study is the same as one by hand:
//! the same generator in a fresh process, and, of an embedded cluster, fresh nodes.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Serialize;

use crate::cause::Cause;
use crate::cli::studies::{Compare, Merge, Search, Sweep};
use crate::duration::display_ns;
use crate::embedded::THIS_PROGRAM;
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::report::{FORMAT, Report};
use crate::search::{self, Answer, End, Outcome, Plan, Step};
use crate::tally::Tally;

use super::{Setback, create, failed, wrong};

pub(super) fn compare(arguments: &Compare) -> Result<Exit, Setback> {
    let [left, right] = [&arguments.left, &arguments.right].map(|files| read_all(&files.0));
    let comparison = crate::compare::compare(&left?, &right?).map_err(|error| wrong(error.to_string()))?;
    if let Some(path) = &arguments.json {
        write_json(path, &comparison)?;
    }
    print(&format!("{comparison}\n"));
    Ok(comparison.exit())
}

pub(super) fn merge(arguments: &Merge) -> Result<Exit, Setback> {
    let parts = read_all(&arguments.results)?;
    let merged =
        crate::merge::merge(&parts, arguments.slo.clone()).map_err(|error| wrong(error.to_string()))?;
    if let Some(path) = &arguments.json {
        write_json(path, &merged)?;
    }
    print(&merged.text());
    Ok(merged.verdict.exit)
}

/// A run of a search, or the sum of several, for its JSON.
#[derive(Debug, Serialize)]
struct Tried {
    rate: f64,
    what: What,
    seed: Option<u64>,
    /// `None` if it could not be carried out.
    outcome: Option<Outcome>,
    cause: Option<Cause>,
    reason: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum What {
    Run,
    Confirmation,
    Sum,
}

/// All of a search, for its JSON.
#[derive(Debug, Serialize)]
struct Searched {
    slo: String,
    line: Vec<String>,
    /// `None` if it was stopped, or no run could be carried out any more.
    answer: Option<Answer>,
    runs: Vec<Tried>,
}

/// So often in a row a run may not be carried out.
const NOT_RUN_MAX: usize = 3;

pub(super) fn search(arguments: &Search) -> Result<Exit, Setback> {
    let json = arguments.json.as_deref().map(create).transpose()?;
    let mut searching = Searching { arguments, runs: Runs::begin(None)?, tried: Vec::new(), silent: None };
    let (answer, setback) = searching.until_the_end()?;
    let Searching { tried, .. } = searching;
    let (mut line, mut exit) = match (&answer, &setback) {
        (Some(answer), _) => told(answer, arguments, &tried),
        (None, Some(setback)) => (format!("NOT RUN: {}", setback.sentence), setback.exit),
        (None, None) => {
            (format!("STOPPED: after {} runs, before the search was over", tried.len()), Exit::Missed)
        }
    };
    let not_run = tried.iter().filter(|tried| tried.outcome.is_none()).count();
    if let (Some(_), Some(setback)) = (&answer, setback) {
        line.push_str(&format!("; {not_run} runs could not be carried out, and were repeated"));
        if exit == Exit::Met {
            exit = setback.exit;
        }
    }
    if let Some(mut json) = json {
        let line = arguments.line();
        let line = line.words().iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let searched = Searched { slo: arguments.slo.to_string(), line, answer, runs: tried };
        write_to(&mut json, &searched)?;
    }
    print(&format!("{line}\n"));
    Ok(exit)
}

/// A search under way.
struct Searching<'a> {
    arguments: &'a Search,
    runs: Runs,
    tried: Vec<Tried>,
    /// The servers that didn't answer after the first run: one more, and it is another cluster.
    silent: Option<Vec<String>>,
}

impl Searching<'_> {
    /// The answer, and the last reason why a run could not be carried out. Without an answer it was stopped, or the reason is
    /// why there is none.
    fn until_the_end(&mut self) -> Result<(Option<Answer>, Option<Setback>), Setback> {
        let Search { from, precision, confirm, seed, .. } = *self.arguments;
        let plan = Plan { from: from.per_second(), precision, confirm };
        let mut search = search::Search::new(plan, seed);
        // Of the lower end's confirming runs, and its rate.
        let mut sum = (0.0, Tally::default());
        let (mut setback, mut not_run) = (None, 0);
        loop {
            let (rate, end) = match search.next() {
                Step::End(answer) => return Ok((Some(answer), setback)),
                Step::Sum(rate) => {
                    let is_met = self.judge_sum(rate, &sum.1);
                    search.observe_sum(is_met);
                    continue;
                }
                Step::Run(rate) => (rate, None),
                Step::Confirm(rate, end) => (rate, Some(end)),
            };
            let report = match self.run(rate, end) {
                Ran::Whole(report) => report,
                Ran::Stopped => return Ok((None, None)),
                Ran::Not(reason) => {
                    setback = Some(reason);
                    not_run += 1;
                    if not_run == NOT_RUN_MAX {
                        return Ok((None, setback));
                    }
                    continue;
                }
            };
            not_run = 0;
            if end == Some(End::Low) {
                if sum.0 != rate {
                    sum = (rate, Tally::default());
                }
                sum.1.merge(&report.total().map_err(|error| failed(error.to_string()))?);
            }
            search.observe(outcome_of(&report));
        }
    }

    /// What a run says of servers that are there no longer is told as it tells it; of those that went between two runs, only
    /// this search knows.
    fn note_silent(&mut self, report: &mut Report) {
        let known = self.silent.get_or_insert_with(|| report.silent.clone());
        let newly = report.silent.iter().filter(|address| !known.contains(address));
        if report.gone.is_empty() {
            report.gone =
                newly.map(|it| format!("{it} answered in earlier runs, and doesn't any longer")).collect();
        }
    }

    fn run(&mut self, rate: f64, end: Option<End>) -> Ran {
        let line = self.arguments.line();
        // The cluster may be the same one, so its seed must not be.
        let seed = line.seed_of(self.tried.len() as u32);
        let more = self.arguments.more(&format!("{}/s", shown(rate)), seed);
        let mut ran = self.runs.run(&[line.words(), &more[..]].concat(), self.tried.len());
        if let Ran::Whole(report) = &mut ran {
            self.note_silent(report);
        }
        let what = if end.is_some() { What::Confirmation } else { What::Run };
        let (outcome, cause, reason) = match &ran {
            Ran::Whole(report) => {
                let verdict = report.verdict.to_string();
                let reason = if report.gone.is_empty() { verdict } else { report.gone.join("; ") };
                (Some(outcome_of(report)), report.verdict.cause, reason)
            }
            Ran::Not(setback) => (None, None, format!("not run: {}", setback.sentence)),
            Ran::Stopped => return ran,
        };
        self.tell(Tried { rate, what, seed, outcome, cause, reason });
        ran
    }

    fn judge_sum(&mut self, rate: f64, sum: &Tally) -> bool {
        let findings = self.arguments.slo.judge(sum);
        let is_met = findings.iter().all(|finding| finding.met && finding.shown);
        let reasons: Vec<&str> = findings.iter().map(|finding| finding.reason.as_str()).collect();
        let reason = format!("the confirming runs together: {}", reasons.join("; "));
        let cause = findings.iter().filter_map(|finding| finding.cause).min();
        let outcome = Some(if is_met { Outcome::Met } else { Outcome::Missed });
        self.tell(Tried { rate, what: What::Sum, seed: None, outcome, cause, reason });
        is_met
    }

    fn tell(&mut self, tried: Tried) {
        let seed = tried.seed.map_or_else(String::new, |seed| format!("  seed {seed}"));
        eprintln!("{:>10}/s  {}{seed}", shown(tried.rate), tried.reason);
        self.tried.push(tried);
    }
}

/// What a search has to learn from a run.
fn outcome_of(report: &Report) -> Outcome {
    let verdict = &report.verdict;
    if !report.gone.is_empty() {
        return Outcome::Broken;
    }
    match verdict.cause {
        None if verdict.is_shown() => Outcome::Met,
        None | Some(Cause::TooFew) => Outcome::TooFew,
        Some(Cause::Errors | Cause::Stale | Cause::Latency) => Outcome::Missed,
        Some(Cause::GeneratorLimited) => Outcome::NotOffered,
        Some(Cause::BrokenPromise | Cause::NodeEnded | Cause::Stopped | Cause::Unreachable) => {
            Outcome::Broken
        }
    }
}

fn told(answer: &Answer, arguments: &Search, tried: &[Tried]) -> (String, Exit) {
    let slo = &arguments.slo;
    match *answer {
        Answer::Highest { rate, beyond, beyond_met, confirm } => {
            let together = if beyond_met == confirm { ", and not in sum" } else { "" };
            (
                format!(
                    "FOUND: {}/s meets {slo}, {confirm} times of {confirm} and in sum; {}/s does {beyond_met} times of \
                     {confirm}{together}",
                    shown(rate),
                    shown(beyond)
                ),
                Exit::Met,
            )
        }
        Answer::AtLeast { rate, not_offered } => {
            let reason = not_offered.map_or_else(
                || "there is no higher rate to try".to_owned(),
                |beyond| {
                    format!(
                        "the generator itself could not offer {}/s, so the servers' limit is unknown",
                        shown(beyond)
                    )
                },
            );
            (format!("AT LEAST: {}/s meets {slo}; {reason}", shown(rate)), Exit::NotOffered)
        }
        Answer::None { lowest } => {
            (format!("NONE: even {}/s doesn't meet {slo}", shown(lowest)), Exit::Missed)
        }
        Answer::NotOffered { lowest } => (
            format!(
                "NOT OFFERED: the generator itself could not offer even {}/s, so nothing is known of the servers",
                shown(lowest)
            ),
            Exit::NotOffered,
        ),
        Answer::TooFew { rate, missed } => {
            let known = missed.map_or_else(String::new, |missed| {
                format!("{}/s was not met or not offered, and ", shown(missed))
            });
            (
                format!(
                    "UNKNOWN: {known}{}/s has too few operations to tell whether it meets {slo}: make the runs longer",
                    shown(rate)
                ),
                Exit::Missed,
            )
        }
        Answer::Broken { rate } => {
            let reason = tried.last().map_or("", |tried| tried.reason.as_str());
            let reason = reason.strip_prefix("FAIL: ").unwrap_or(reason);
            (format!("BROKEN: at {}/s, {reason}", shown(rate)), Exit::Missed)
        }
        Answer::Unsettled { low } => (
            format!(
                "UNSETTLED: around {}/s, runs at one rate differ more than runs at different ones: make them longer",
                shown(low)
            ),
            Exit::Missed,
        ),
    }
}

/// A rate of three digits as it is typed.
fn shown(rate: f64) -> String {
    if rate < 100.0 {
        format!("{rate:.2}").trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        format!("{rate:.0}")
    }
}

/// One run of a sweep, as far as its table goes.
struct Swept {
    seed: Option<u64>,
    /// Or why there was none.
    report: Result<Box<Report>, Setback>,
}

impl Swept {
    fn exit(&self) -> Exit {
        self.report.as_ref().map_or_else(|setback| setback.exit, |report| report.verdict.exit)
    }

    fn told(&self) -> String {
        match &self.report {
            Ok(report) => report.verdict.to_string(),
            Err(setback) => format!("not run: {}", setback.sentence),
        }
    }
}

pub(super) fn sweep(arguments: &Sweep) -> Result<Exit, Setback> {
    let runs = Runs::begin(arguments.into.as_deref())?;
    let combinations = arguments.combinations();
    let repeat = arguments.repeat as usize;
    let count = combinations.len() * repeat;
    let mut swept: Vec<Option<Swept>> = (0..count).map(|_| None).collect();
    for (done, place) in shuffled(count, arguments.seed).into_iter().enumerate() {
        let (combination, repetition) = (&combinations[place / repeat], (place % repeat) as u32);
        let more = arguments.more(combination, repetition);
        let words = [arguments.line().words(), &more[..]].concat();
        let report = match runs.run(&words, place) {
            Ran::Whole(mut report) => {
                // The table needs no histograms, and of a thousand runs they fill memory.
                report.intervals = Vec::new();
                Ok(report)
            }
            Ran::Not(setback) => Err(setback),
            Ran::Stopped => break,
        };
        let run = Swept { seed: arguments.seed(combination, repetition), report };
        let seed = run.seed.map_or_else(String::new, |seed| format!(" seed={seed}"));
        let named = named(arguments, combination);
        eprintln!("{:>4} of {count}  {named}{seed}  {}", done + 1, run.told());
        swept[place] = Some(run);
    }
    print(&table(arguments, &combinations, &swept));
    let swept: Vec<Swept> = swept.into_iter().flatten().collect();
    let met = swept.iter().filter(|run| run.exit() == Exit::Met).count();
    let not_run = swept.iter().filter(|run| run.report.is_err()).count();
    let besides = if not_run > 0 { format!("; {not_run} could not be carried out") } else { String::new() };
    if swept.len() < count {
        let done = swept.len();
        print(&format!(
            "STOPPED: {met} of {done} runs met their objective{besides}, of {count} that were to be\n"
        ));
        return Ok(Exit::Missed);
    }
    print(&format!("{met} of {count} runs met their objective{besides}\n"));
    Ok(exit_of(&swept.iter().map(Swept::exit).collect::<Vec<_>>()))
}

/// What was missed says more than what was not tried, and that more than what could not be offered.
fn exit_of(exits: &[Exit]) -> Exit {
    let worst = [Exit::Missed, Exit::Usage, Exit::NotOffered];
    worst.into_iter().find(|worst| exits.contains(worst)).unwrap_or(Exit::Met)
}

fn named(arguments: &Sweep, combination: &[String]) -> String {
    let options = arguments.vary.iter().zip(combination);
    options.map(|(vary, value)| format!("{}={value}", vary.option)).collect::<Vec<_>>().join(" ")
}

/// A line for each run, in the order of the options. Those that were not begun have none.
fn table(arguments: &Sweep, combinations: &[Vec<String>], swept: &[Option<Swept>]) -> String {
    let repeat = arguments.repeat as usize;
    let names: Vec<String> = combinations.iter().map(|combination| named(arguments, combination)).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(8);
    let mut table = format!(
        "{:<4} {:<width$}{:>11}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}  {}\n",
        "run", "settings", "seed", "per s", "count", "p50", "p99", "p99.9", "errors", "verdict"
    );
    let begun = swept.iter().enumerate().filter_map(|(place, run)| Some((place, run.as_ref()?)));
    for (place, run) in begun {
        let name = &names[place / repeat];
        let seed = run.seed.map_or_else(|| "-".to_owned(), |seed| seed.to_string());
        let _ = write!(table, "{place:<4} {name:<width$}{seed:>11}");
        let all = |report: &Report| {
            report.rows.iter().rfind(|row| row.phase == "all" && row.operation == "all").cloned()
        };
        let latency = |latency_ns: Option<u64>| latency_ns.map_or_else(|| "-".to_owned(), display_ns);
        match run.report.as_ref().map(|report| (report, all(report))) {
            Ok((report, Some(all))) => {
                let _ = writeln!(
                    table,
                    "{:>10.0}{:>10}{:>10}{:>10}{:>10}{:>10}  {}",
                    report.generator.per_second,
                    all.count,
                    latency(all.due_ns.p50),
                    latency(all.due_ns.p99),
                    latency(all.due_ns.p999),
                    all.errors,
                    verdict_word(report.verdict.exit),
                );
            }
            Ok((_, None)) | Err(_) => {
                let _ = writeln!(table, "{:>60}  {}", "", run.told());
            }
        }
    }
    table
}

fn verdict_word(exit: Exit) -> &'static str {
    match exit {
        Exit::Met => "PASS",
        Exit::NotOffered => "not offered",
        Exit::Missed | Exit::Usage => "FAIL",
    }
}

/// The places `0..count` in an order of chance (Fisher and Yates).
fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut prng = ringmain::prng::Prng::from_seed(seed);
    let mut places: Vec<usize> = (0..count).collect();
    for place in (1..count).rev() {
        places.swap(place, prng.below(place as u64 + 1) as usize);
    }
    places
}

/// Starts this program again and again, and reads what it found.
struct Runs {
    folder: PathBuf,
    /// It is ours, and goes with us.
    is_ours: bool,
    interrupt: Interrupt,
}

/// What came of a run.
enum Ran {
    /// Its report, whatever that says.
    Whole(Box<Report>),
    /// It could not be carried out, and there is no report, or none that can be read.
    Not(Setback),
    /// The user wants no more of them.
    Stopped,
}

impl Runs {
    /// Results are kept in a folder, or nowhere.
    fn begin(into: Option<&Path>) -> Result<Self, Setback> {
        let interrupt =
            Interrupt::listen().map_err(|error| failed(format!("can't listen for signals: {error}")))?;
        if let Some(folder) = into {
            refuse_results(folder)?;
            return Ok(Self { folder: folder.to_owned(), is_ours: false, interrupt });
        }
        let folder = std::env::temp_dir().join(format!("loadgen-{:x}", super::run_tag()));
        let made = fs::create_dir(&folder);
        made.map_err(|error| failed(format!("{}: {error}", folder.display())))?;
        Ok(Self { folder, is_ours: true, interrupt })
    }

    /// A run with this command line, without the program's name and `--json`.
    fn run(&self, words: &[OsString], number: usize) -> Ran {
        if self.interrupt.is_raised() {
            return Ran::Stopped;
        }
        let path = self.folder.join(format!("run-{number}.json"));
        let mut command = std::process::Command::new(THIS_PROGRAM);
        command.arg0("loadgen").args(words).arg("--json").arg(&path).stdin(Stdio::null());
        let output = match command.output() {
            Ok(output) => output,
            Err(error) => return Ran::Not(failed(format!("a run can't be started: {error}"))),
        };
        match fs::read_to_string(&path) {
            Ok(text) if !text.is_empty() => match parse(&path, &text) {
                Ok(report) if report.generator.interrupted => Ran::Stopped,
                Ok(report) => Ran::Whole(Box::new(report)),
                Err(_) if self.interrupt.is_raised() => Ran::Stopped,
                // The command line is right: the run ended while it wrote, or there was no room.
                Err(setback) => Ran::Not(failed(setback.sentence)),
            },
            _ if self.interrupt.is_raised() => Ran::Stopped,
            _ => {
                let said = String::from_utf8_lossy(&output.stderr);
                let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
                let last = last.strip_prefix("error: ").unwrap_or(last).to_owned();
                Ran::Not(if output.status.code() == Some(2) { wrong(last) } else { failed(last) })
            }
        }
    }
}

/// A folder that has results already would mix them with those to come.
fn refuse_results(folder: &Path) -> Result<(), Setback> {
    let shown = folder.display();
    let Ok(entries) = fs::read_dir(folder) else {
        return Err(wrong(format!("{shown} is no folder: make it first")));
    };
    let is_result = |name: &str| {
        let number = name.strip_prefix("run-").and_then(|name| name.strip_suffix(".json"));
        number.is_some_and(|number| number.parse::<usize>().is_ok())
    };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    match names.filter(|name| is_result(name)).min() {
        Some(name) => Err(wrong(format!(
            "{shown} has the results of another sweep, such as {name}: give an empty folder"
        ))),
        None => Ok(()),
    }
}

impl Drop for Runs {
    fn drop(&mut self) {
        if self.is_ours {
            // What can't be removed is in a folder for such things.
            let _left = fs::remove_dir_all(&self.folder);
        }
    }
}

fn read_all(paths: &[PathBuf]) -> Result<Vec<(String, Report)>, Setback> {
    paths
        .iter()
        .map(|path| {
            let text =
                fs::read_to_string(path).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
            Ok((path.display().to_string(), parse(path, &text)?))
        })
        .collect()
}

fn parse(path: &Path, text: &str) -> Result<Report, Setback> {
    let path = path.display();
    let read = serde_json::from_str::<Report>(text);
    let report = read.map_err(|error| wrong(format!("{path} is no result of loadgen --json: {error}")))?;
    if report.format != FORMAT {
        let found = report.format;
        return Err(wrong(format!(
            "{path} has the format {found}, and this version knows {FORMAT}: run it again"
        )));
    }
    Ok(report)
}

fn write_json(path: &Path, what: &impl Serialize) -> Result<(), Setback> {
    write_to(&mut create(path)?, what)
}

fn write_to(file: &mut fs::File, what: &impl Serialize) -> Result<(), Setback> {
    let json = serde_json::to_string_pretty(what).expect("results have only strings, numbers and lists");
    file.write_all(json.as_bytes()).map_err(|error| failed(format!("the JSON can't be written: {error}")))
}

fn print(text: &str) {
    // Whoever closed our output doesn't want it; the exit code still tells.
    let _closed = std::io::stdout().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_shown_as_they_are_typed() {
        for (rate, text) in [(1.0, "1"), (1.25, "1.25"), (99.5, "99.5"), (100.0, "100"), (12_300.0, "12300")]
        {
            assert_eq!(shown(rate), text);
            assert!(text.parse::<crate::rate::Rate>().is_ok());
        }
    }

    #[test]
    fn shuffling_loses_nothing_and_follows_its_seed() {
        let mut places = shuffled(50, 7);
        assert_eq!(places, shuffled(50, 7));
        assert_ne!(places, shuffled(50, 8));
        places.sort_unstable();
        assert_eq!(places, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn what_was_missed_is_told_before_what_was_not_run() {
        for (exits, expected) in [
            (&[Exit::Met, Exit::Met][..], Exit::Met),
            (&[Exit::Met, Exit::NotOffered], Exit::NotOffered),
            (&[Exit::NotOffered, Exit::Usage, Exit::Met], Exit::Usage),
            (&[Exit::Usage, Exit::Missed, Exit::NotOffered], Exit::Missed),
        ] {
            assert_eq!(exit_of(exits), expected, "{exits:?}");
        }
    }

    /// A run that ended while it wrote leaves half a result: that one is told, and the study goes on.
    #[test]
    fn half_a_result_is_a_run_that_was_not_carried_out() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("run-3.json"), "{\"format\": 1, \"result\": \"PA").expect("a file");
        let runs = Runs { folder: folder.path().to_owned(), is_ours: false, interrupt: Interrupt::default() };
        // This program is the tests' own here: it knows no such option, and leaves the file as it is.
        let Ran::Not(setback) = runs.run(&[OsString::from("--no-such-option")], 3) else {
            panic!("half a result")
        };
        assert!(setback.sentence.contains("run-3.json is no result of loadgen"), "{}", setback.sentence);
        assert_eq!(setback.exit, Exit::Missed);
        let Ran::Not(setback) = runs.run(&[OsString::from("--no-such-option")], 4) else {
            panic!("no result")
        };
        assert!(!setback.sentence.contains("no result of loadgen"), "{}", setback.sentence);
    }

    #[test]
    fn what_is_no_result_is_told_in_one_line() {
        for text in ["", "{}", "[1,2]", "rubbish"] {
            let setback = parse(Path::new("a.json"), text).expect_err("no report");
            assert!(setback.sentence.starts_with("a.json is no result of loadgen"), "{}", setback.sentence);
            assert!(!setback.sentence.contains('\n') && setback.exit == Exit::Usage);
        }
    }
}
