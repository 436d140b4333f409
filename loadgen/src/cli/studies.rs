//! The commands that make more of results than one verdict: `compare`, `merge`, `search` and `sweep`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use crate::objective::Objective;
use crate::rate::Rate;

use super::{Refusal, understand};

/// `loadgen compare`
#[derive(Clone, Debug, Args)]
pub struct Compare {
    /// JSON results of the first side; several runs of it separated by commas
    #[arg(value_name = "A")]
    pub left: Files,
    /// JSON results of the second side
    #[arg(value_name = "B")]
    pub right: Files,
    /// Also write what was found as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Paths, separated by commas; at least one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Files(pub Vec<PathBuf>);

/// `loadgen merge`
#[derive(Clone, Debug, Args)]
pub struct Merge {
    /// JSON results of processes that ran at the same time
    #[arg(required = true, num_args = 2.., value_name = "FILE")]
    pub results: Vec<PathBuf>,
    /// The objective for all of them together [default: theirs, if it is one]
    #[arg(long, value_name = "CLAUSES")]
    pub slo: Option<Objective>,
    /// Also write the sum as JSON, to be compared or merged in turn
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// `loadgen search`
#[derive(Clone, Debug, Args)]
pub struct Search {
    /// The objective that a rate must meet
    #[arg(long, value_name = "CLAUSES")]
    pub slo: Objective,
    /// The rate to begin with
    #[arg(long, default_value = "1k/s", value_name = "RATE")]
    pub from: Rate,
    /// How near the highest rate that meets it and the lowest that doesn't must come, from 1% to 50%
    #[arg(long, default_value = "5%", value_parser = parse_precision, value_name = "PERCENT")]
    pub precision: f64,
    /// How often each of the two is confirmed, in shuffled order
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u32).range(1..=20), value_name = "COUNT")]
    pub confirm: u32,
    /// The same number gives the same order
    #[arg(long, default_value = "1", value_name = "NUMBER")]
    pub seed: u64,
    /// Also write all runs and the answer as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// demo or check with its options, but for --rate, --slo and --json [default: demo --no-kill --duration 10s --quiet]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub line: Vec<OsString>,
}

/// `loadgen sweep`
#[derive(Clone, Debug, Args)]
pub struct Sweep {
    /// An option and its values, such as rate=1k,2k,5k; with ; between values that have commas: 'mix=read=100;read=50,write=50'. Give several to combine each with each
    #[arg(long, required = true, value_name = "OPTION=VALUES")]
    pub vary: Vec<Vary>,
    /// How often each combination is run, all in shuffled order
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u32).range(1..=100), value_name = "COUNT")]
    pub repeat: u32,
    /// The same number gives the same order
    #[arg(long, default_value = "1", value_name = "NUMBER")]
    pub seed: u64,
    /// Keep the JSON result of each run in this folder, which must exist
    #[arg(long, value_name = "FOLDER")]
    pub into: Option<PathBuf>,
    /// demo, check or replay with its options, but for those that vary and --json [default: demo --no-kill --duration 10s --quiet]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub line: Vec<OsString>,
}

/// An option and the values that it takes by turns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Vary {
    /// Without the dashes.
    pub option: String,
    /// At least one.
    pub values: Vec<String>,
}

/// Why an option doesn't vary.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("'{0}' varies nothing: write an option, = and its values, such as rate=1k,2k,5k")]
pub struct VaryError(String);

const LINE_DEFAULT: &str = "demo --no-kill --duration 10s --quiet";
/// No sweep has more runs.
const RUNS_MAX: usize = 1000;

impl Search {
    /// The command line of a run at this rate, without the program's name, `--json` and what search itself decides.
    pub fn line(&self) -> Vec<OsString> {
        or_default(&self.line)
    }

    /// What belongs to a run at this rate.
    pub fn more(&self, rate: &str) -> Vec<OsString> {
        ["--rate", rate, "--slo", &self.slo.to_string()].map(OsString::from).to_vec()
    }

    pub(super) fn refuse_impossible(&self) -> Result<(), Refusal> {
        let line = self.line();
        refuse_other_commands(&line, &["demo", "check"], "search needs a load whose rate it can choose")?;
        try_line(line, self.more("1k/s"))
    }
}

impl Sweep {
    /// The command line of a run, without the program's name, `--json` and what varies.
    pub fn line(&self) -> Vec<OsString> {
        or_default(&self.line)
    }

    /// The values of each combination, in the order of the options; the last varies fastest.
    pub fn combinations(&self) -> Vec<Vec<String>> {
        let mut combinations = vec![Vec::new()];
        for vary in &self.vary {
            combinations = combinations
                .into_iter()
                .flat_map(|combination: Vec<String>| {
                    vary.values
                        .iter()
                        .map(move |value| [&combination[..], std::slice::from_ref(value)].concat())
                })
                .collect();
        }
        combinations
    }

    /// What belongs to a combination.
    pub fn more(&self, combination: &[String]) -> Vec<OsString> {
        let options = self.vary.iter().zip(combination);
        options.map(|(vary, value)| OsString::from(format!("--{}={value}", vary.option))).collect()
    }

    pub(super) fn refuse_impossible(&self) -> Result<(), Refusal> {
        let counts = self.vary.iter().map(|vary| vary.values.len());
        let runs = counts.fold(self.repeat as usize, usize::saturating_mul);
        if runs > RUNS_MAX {
            return Err(Refusal::Wrong(format!(
                "error: that makes {runs} runs, and {RUNS_MAX} at most: vary less"
            )));
        }
        refuse_other_commands(&self.line(), &["demo", "check", "replay"], "sweep runs loads")?;
        self.combinations().iter().try_for_each(|combination| try_line(self.line(), self.more(combination)))
    }
}

fn or_default(line: &[OsString]) -> Vec<OsString> {
    if line.is_empty() { LINE_DEFAULT.split(' ').map(OsString::from).collect() } else { line.to_vec() }
}

/// Only loads can be run within a study. A line without a command's name is demo's.
fn refuse_other_commands(line: &[OsString], allowed: &[&str], reason: &str) -> Result<(), Refusal> {
    let first = line.first().and_then(|word| word.to_str()).unwrap_or_default();
    if first.starts_with('-') || allowed.contains(&first) {
        return Ok(());
    }
    let allowed = allowed.join(" or ");
    Err(Refusal::Wrong(format!("error: {reason}: write {allowed} with its options, and not '{first}'")))
}

/// Whether a run would be understood, before the first is started.
fn try_line(line: Vec<OsString>, more: Vec<OsString>) -> Result<(), Refusal> {
    let json = ["--json", "result.json"].map(OsString::from);
    understand([OsString::from("loadgen")].into_iter().chain(line).chain(more).chain(json)).map(drop)
}

fn parse_precision(text: &str) -> Result<f64, String> {
    match text.strip_suffix('%').unwrap_or(text).parse::<f64>() {
        Ok(percent) if (1.0..=50.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err("write a percentage from 1 to 50, such as 5%".to_owned()),
    }
}

impl FromStr for Files {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.split(',').map(PathBuf::from).collect()))
    }
}

impl FromStr for Vary {
    type Err = VaryError;

    fn from_str(text: &str) -> Result<Self, VaryError> {
        let wrong = || VaryError(text.to_owned());
        let (option, values) = text.split_once('=').ok_or_else(wrong)?;
        let option = option.trim_start_matches('-');
        let separator = if values.contains(';') { ';' } else { ',' };
        let values: Vec<String> = values.split(separator).map(|value| value.trim().to_owned()).collect();
        if option.is_empty() || values.iter().any(String::is_empty) {
            return Err(wrong());
        }
        Ok(Self { option: option.to_owned(), values })
    }
}
