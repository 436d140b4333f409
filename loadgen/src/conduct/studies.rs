//! Carries out the commands that make more of results than one verdict.
//!
//! `search` and `sweep` start this program again for each run, so that a run within a study is the same as one by hand:
//! the same generator in a fresh process, and, of an embedded cluster, fresh nodes.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Serialize;

use crate::cli::studies::{Compare, Merge, Search, Sweep};
use crate::duration::display_ns;
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::report::{FORMAT, Report};
use crate::search::{self, Answer, Outcome, Plan};

use super::{Setback, create, failed, wrong};

pub(super) fn compare(arguments: &Compare) -> Result<Exit, Setback> {
    let [left, right] = [&arguments.left, &arguments.right].map(|files| read_all(&files.0));
    let comparison = crate::compare::compare(&left?, &right?).map_err(|error| wrong(error.to_string()))?;
    if let Some(path) = &arguments.json {
        write_json(path, &comparison)?;
    }
    print(&format!("{comparison}\n"));
    Ok(if comparison.differs { Exit::Missed } else { Exit::Met })
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

/// A run of a search, for its JSON.
#[derive(Debug, Serialize)]
struct Tried {
    rate: f64,
    outcome: Outcome,
    reason: String,
}

/// All of a search, for its JSON.
#[derive(Debug, Serialize)]
struct Searched {
    slo: String,
    line: Vec<String>,
    answer: Answer,
    runs: Vec<Tried>,
}

pub(super) fn search(arguments: &Search) -> Result<Exit, Setback> {
    let json = arguments.json.as_deref().map(create).transpose()?;
    let runs = Runs::begin(None)?;
    let Search { from, precision, confirm, seed, .. } = *arguments;
    let plan = Plan { from: from.per_second(), precision, confirm };
    let mut search = search::Search::new(plan, seed);
    let mut tried = Vec::new();
    let answer = loop {
        let rate = match search.next() {
            Ok(rate) => rate,
            Err(answer) => break answer,
        };
        let report =
            runs.run(arguments.line(), arguments.more(&format!("{}/s", shown(rate))), tried.len())?;
        let outcome = match report.verdict.exit {
            Exit::Met => Outcome::Met,
            Exit::NotOffered => Outcome::NotOffered,
            Exit::Missed | Exit::Usage => Outcome::Missed,
        };
        let reason = report.verdict.to_string();
        eprintln!("{:>10}/s  {reason}", shown(rate));
        tried.push(Tried { rate, outcome, reason });
        search.observe(outcome);
    };
    let (line, exit) = told(&answer, &arguments.slo.to_string());
    if let Some(mut json) = json {
        let line = arguments.line().iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let searched = Searched { slo: arguments.slo.to_string(), line, answer, runs: tried };
        write_to(&mut json, &searched)?;
    }
    print(&format!("{line}\n"));
    Ok(exit)
}

fn told(answer: &Answer, slo: &str) -> (String, Exit) {
    match *answer {
        Answer::Highest { rate, beyond, beyond_met, confirm } => (
            format!(
                "FOUND: {}/s meets {slo}, {confirm} times of {confirm}; {}/s does {beyond_met} times of {confirm}",
                shown(rate),
                shown(beyond)
            ),
            Exit::Met,
        ),
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

pub(super) fn sweep(arguments: &Sweep) -> Result<Exit, Setback> {
    let runs = Runs::begin(arguments.into.as_deref())?;
    let combinations = arguments.combinations();
    let repeat = arguments.repeat as usize;
    let count = combinations.len() * repeat;
    let mut reports: Vec<Option<Report>> = (0..count).map(|_| None).collect();
    for (done, place) in shuffled(count, arguments.seed).into_iter().enumerate() {
        let combination = &combinations[place / repeat];
        let mut report = runs.run(arguments.line(), arguments.more(combination), place)?;
        // The table needs no histograms, and of a thousand runs they fill memory.
        report.intervals = Vec::new();
        eprintln!("{:>4} of {count}  {}  {}", done + 1, named(arguments, combination), report.verdict);
        reports[place] = Some(report);
    }
    let reports: Vec<Report> = reports.into_iter().flatten().collect();
    print(&table(arguments, &combinations, &reports));
    let exits = reports.iter().map(|report| report.verdict.exit);
    let is = |exit: Exit| reports.iter().any(|report| report.verdict.exit == exit);
    let exit = if is(Exit::Missed) { Exit::Missed } else { exits.max().unwrap_or(Exit::Met) };
    let met = reports.iter().filter(|report| report.verdict.passed()).count();
    print(&format!("{met} of {count} runs met their objective\n"));
    Ok(exit)
}

fn named(arguments: &Sweep, combination: &[String]) -> String {
    let options = arguments.vary.iter().zip(combination);
    options.map(|(vary, value)| format!("{}={value}", vary.option)).collect::<Vec<_>>().join(" ")
}

/// A line for each run, in the order of the options.
fn table(arguments: &Sweep, combinations: &[Vec<String>], reports: &[Report]) -> String {
    let repeat = arguments.repeat as usize;
    let names: Vec<String> = combinations.iter().map(|combination| named(arguments, combination)).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(8);
    let mut table = format!(
        "{:<4} {:<width$}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}  {}\n",
        "run", "settings", "per s", "count", "p50", "p99", "p99.9", "errors", "verdict"
    );
    for (place, report) in reports.iter().enumerate() {
        let Some(all) = report.rows.iter().rfind(|row| row.phase == "all" && row.operation == "all") else {
            continue;
        };
        let latency = |latency_ns: Option<u64>| latency_ns.map_or_else(|| "-".to_owned(), display_ns);
        let (name, word) = (&names[place / repeat], verdict_word(report.verdict.exit));
        let _ = writeln!(
            table,
            "{place:<4} {name:<width$}{:>10.0}{:>10}{:>10}{:>10}{:>10}{:>10}  {word}",
            report.generator.per_second,
            all.count,
            latency(all.due_ns.p50),
            latency(all.due_ns.p99),
            latency(all.due_ns.p999),
            all.errors,
        );
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

impl Runs {
    /// Results are kept in a folder, or nowhere.
    fn begin(into: Option<&Path>) -> Result<Self, Setback> {
        let interrupt =
            Interrupt::listen().map_err(|error| failed(format!("can't listen for signals: {error}")))?;
        if let Some(folder) = into {
            if !folder.is_dir() {
                return Err(wrong(format!("{} is no folder: make it first", folder.display())));
            }
            return Ok(Self { folder: folder.to_owned(), is_ours: false, interrupt });
        }
        let folder = std::env::temp_dir().join(format!("loadgen-{:x}", super::run_tag()));
        let made = fs::create_dir(&folder);
        made.map_err(|error| failed(format!("{}: {error}", folder.display())))?;
        Ok(Self { folder, is_ours: true, interrupt })
    }

    /// A run with this command line, and its report.
    fn run(&self, line: Vec<OsString>, more: Vec<OsString>, number: usize) -> Result<Report, Setback> {
        if self.interrupt.is_raised() {
            return Err(failed("stopped before the study was over".to_owned()));
        }
        let path = self.folder.join(format!("run-{number}.json"));
        let program =
            std::env::current_exe().map_err(|error| failed(format!("this program is gone: {error}")))?;
        let mut command = std::process::Command::new(program);
        command.args(line).args(more).arg("--json").arg(&path).stdin(Stdio::null());
        let output = command.output().map_err(|error| failed(format!("a run can't be started: {error}")))?;
        match fs::read_to_string(&path) {
            Ok(text) if !text.is_empty() => {
                let report = parse(&path, &text)?;
                if report.generator.interrupted {
                    return Err(failed("stopped before the study was over".to_owned()));
                }
                Ok(report)
            }
            _ => {
                let said = String::from_utf8_lossy(&output.stderr);
                let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
                let last = last.strip_prefix("error: ").unwrap_or(last).to_owned();
                Err(if output.status.code() == Some(2) { wrong(last) } else { failed(last) })
            }
        }
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
    fn what_is_no_result_is_told_in_one_line() {
        for text in ["", "{}", "[1,2]", "rubbish"] {
            let setback = parse(Path::new("a.json"), text).expect_err("no report");
            assert!(setback.sentence.starts_with("a.json is no result of loadgen"), "{}", setback.sentence);
            assert!(!setback.sentence.contains('\n') && setback.exit == Exit::Usage);
        }
    }
}
