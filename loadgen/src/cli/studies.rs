//! The commands that make more of results than one verdict: `compare`, `merge`, `search` and `sweep`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use ringmain::prng::Prng;

use crate::objective::Objective;
use crate::rate::Rate;

use super::{Command, Refusal, understand};

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
    /// demo, check or replay with its options, but for those that vary and --json [default: demo --no-kill --duration 30s --quiet]
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

/// A run's command line, without the program's name, `--json`, and what the study chooses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    words: Vec<OsString>,
    /// The seed that stood in it; `None` if a run of it takes none.
    seed: Option<u64>,
}

const SEARCH_LINE_DEFAULT: &str = "demo --no-kill --duration 10s --quiet";
/// Long enough for `compare`.
const SWEEP_LINE_DEFAULT: &str = "demo --no-kill --duration 30s --quiet";
/// No sweep has more runs.
const RUNS_MAX: usize = 1000;

impl Search {
    /// The command line of a run at any rate.
    pub fn line(&self) -> Line {
        Line::of(&self.line, SEARCH_LINE_DEFAULT)
    }

    /// What belongs to a run at this rate.
    pub fn more(&self, rate: &str, seed: Option<u64>) -> Vec<OsString> {
        let mut more = ["--rate", rate, "--slo", &self.slo.to_string()].map(OsString::from).to_vec();
        more.extend(seed_words(seed));
        more
    }

    pub(super) fn refuse_impossible(&self) -> Result<(), Refusal> {
        let line = self.line();
        line.refuse_other_commands(&["demo", "check"], "search needs a load whose rate it can choose")?;
        let command = line.attempt(self.more("1k/s", line.seed_of(0)))?;
        refuse_fixed_rates(&command)
    }
}

impl Sweep {
    /// The command line of a run, but for what varies.
    pub fn line(&self) -> Line {
        Line::of(&self.line, SWEEP_LINE_DEFAULT)
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

    /// The seed of a repetition (from 0) of a combination: the same for all combinations, so that they are offered the
    /// same operations where they can be.
    pub fn seed(&self, combination: &[String], repetition: u32) -> Option<u64> {
        let varied = self.vary.iter().zip(combination).find(|(vary, _)| vary.option == "seed");
        match varied {
            Some((_, value)) => value.parse().ok().map(|seed| derived(seed, repetition)),
            None => self.line().seed_of(repetition),
        }
    }

    /// What belongs to a repetition of a combination.
    pub fn more(&self, combination: &[String], repetition: u32) -> Vec<OsString> {
        let seed = self.seed(combination, repetition);
        let options = self.vary.iter().zip(combination);
        let options = options.filter(|(vary, _)| vary.option != "seed" || seed.is_none());
        let mut more: Vec<OsString> =
            options.map(|(vary, value)| OsString::from(format!("--{}={value}", vary.option))).collect();
        more.extend(seed_words(seed));
        more
    }

    pub(super) fn refuse_impossible(&self) -> Result<(), Refusal> {
        let counts = self.vary.iter().map(|vary| vary.values.len());
        let runs = counts.fold(self.repeat as usize, usize::saturating_mul);
        if runs > RUNS_MAX {
            return Err(Refusal::Wrong(format!(
                "error: that makes {runs} runs, and {RUNS_MAX} at most: vary less"
            )));
        }
        let line = self.line();
        line.refuse_other_commands(&["demo", "check", "replay"], "sweep runs loads")?;
        let varies_rate = self.vary.iter().any(|vary| vary.option == "rate");
        self.combinations().iter().try_for_each(|combination| {
            let command = line.attempt(self.more(combination, 0))?;
            if varies_rate { refuse_fixed_rates(&command) } else { Ok(()) }
        })
    }
}

impl Line {
    fn of(typed: &[OsString], by_default: &str) -> Self {
        let words: Vec<OsString> = if typed.is_empty() {
            by_default.split(' ').map(OsString::from).collect()
        } else {
            typed.to_vec()
        };
        if words[0] == "replay" {
            return Self { words, seed: None };
        }
        let (rest, seeds) = without_seeds(&words);
        match seeds[..] {
            [] => Self { words, seed: Some(SEED_DEFAULT) },
            [Some(seed)] => Self { words: rest, seed: Some(seed) },
            // What is wrong with it, the run's own command line says.
            _ => Self { words, seed: None },
        }
    }

    /// The words.
    pub fn words(&self) -> &[OsString] {
        &self.words
    }

    /// The seed of a run's repetition, from 0: the first has the seed that stands in the line.
    pub fn seed_of(&self, repetition: u32) -> Option<u64> {
        self.seed.map(|seed| derived(seed, repetition))
    }

    /// Only loads can be run within a study. A line without a command's name is demo's.
    fn refuse_other_commands(&self, allowed: &[&str], reason: &str) -> Result<(), Refusal> {
        let first = self.words.first().and_then(|word| word.to_str()).unwrap_or_default();
        if first.starts_with('-') || allowed.contains(&first) {
            return Ok(());
        }
        let allowed = allowed.join(" or ");
        Err(Refusal::Wrong(format!("error: {reason}: write {allowed} with its options, and not '{first}'")))
    }

    /// Whether a run would be understood, before the first is started; and how.
    fn attempt(&self, more: Vec<OsString>) -> Result<Command, Refusal> {
        let json = ["--json", "result.json"].map(OsString::from);
        let words = self.words.iter().cloned();
        let command =
            understand([OsString::from("loadgen")].into_iter().chain(words).chain(more).chain(json))?;
        // One path for all runs: each would overwrite the log of the one before.
        if command.judging().is_some_and(|judging| judging.hlog.is_some()) {
            return Err(Refusal::Wrong(
                "error: --hlog names one file, and a study has many runs: leave it out; sweep --into keeps the JSON of \
                 each, with its intervals"
                    .to_owned(),
            ));
        }
        Ok(command)
    }
}

/// The default of `--seed`.
const SEED_DEFAULT: u64 = 1;

/// The line without its seeds, and those; `None` for one that is no number.
fn without_seeds(words: &[OsString]) -> (Vec<OsString>, Vec<Option<u64>>) {
    let (mut rest, mut seeds) = (Vec::new(), Vec::new());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let text = word.to_str().unwrap_or_default();
        if text == "--seed" {
            seeds.push(words.next().and_then(|value| value.to_str()?.parse().ok()));
        } else if let Some(value) = text.strip_prefix("--seed=") {
            seeds.push(value.parse().ok());
        } else {
            rest.push(word.clone());
        }
    }
    (rest, seeds)
}

/// One seed for all repetitions would repeat one run's luck: each has its own, and short ones, as people type them again.
fn derived(seed: u64, repetition: u32) -> u64 {
    const SHORT: u64 = 1_000_000_000;
    if repetition == 0 {
        return seed;
    }
    Prng::from_seed(seed.rotate_left(32) ^ u64::from(repetition)).below(SHORT)
}

fn seed_words(seed: Option<u64>) -> Vec<OsString> {
    let seed = seed.map(|seed| [OsString::from("--seed"), OsString::from(seed.to_string())]);
    seed.into_iter().flatten().collect()
}

/// Where phases name all their rates, `--rate` changes nothing, and a search would find that nothing changes.
fn refuse_fixed_rates(command: &Command) -> Result<(), Refusal> {
    match command.load().and_then(|load| load.phases.as_ref()) {
        Some(phases) if !phases.is_open() => Err(Refusal::Wrong(format!(
            "error: nothing that is judged in --phases '{phases}' goes at --rate: leave a rate open, as in 'steady 20s'"
        ))),
        _ => Ok(()),
    }
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
