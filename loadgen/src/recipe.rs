//! Loads with a name: what is asked for, of which keys, how often, how long values are and live.
//!
//! A recipe fills in what the command line leaves open, so everything in it can be overridden one by one. There are
//! the core workloads of YCSB ([`ycsb`]), Twitter's cache clusters ([`twitter`]) and Facebook's ETC pool ([`etc`]).
//! A recipe never says how fast: rates belong to the machines that were measured.

use crate::keys::Popularity;
use crate::lifetimes::Lifetimes;
use crate::mix::Mix;
use crate::near::did_you_mean;
use crate::sizes::Sizes;
use crate::target::cluster::Writes;

mod etc;
mod twitter;
mod ycsb;

/// A load, but for its rate and its length.
#[derive(Clone, PartialEq, Debug)]
pub struct Recipe {
    /// What it is called; `None` for the ordinary one.
    pub name: Option<String>,
    /// How many keys there are before the first operation.
    pub keys: u64,
    /// Which of them are touched.
    pub popularity: Popularity,
    /// Zipf's exponent; `None` where the recipe's source has none, and the user must choose.
    pub zipf: Option<f64>,
    /// Bytes in a key; `None` for 14 always.
    pub key_size: Option<Sizes>,
    /// Bytes in a value.
    pub value_size: Sizes,
    /// What is done to them.
    pub mix: Mix,
    /// How long values live.
    pub ttl: Lifetimes,
    /// What a write replaces.
    pub writes: Writes,
    /// Every key is written before the run.
    pub preload: bool,
}

/// What stands behind `--workload` or `--preset`.
#[derive(Clone, PartialEq, Debug)]
pub enum Choice {
    /// `list`: the names, and what each stands for.
    List(String),
    /// A name.
    Recipe(Box<Recipe>),
}

/// Why a name stands for no load that can be offered.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChoiceError {
    /// No such name.
    #[error("'{name}' is no known {what}{hint}: --{what} list shows all")]
    Unknown {
        /// What was typed.
        name: String,
        /// `workload` or `preset`.
        what: &'static str,
        /// Near names.
        hint: String,
    },
    /// A workload whose operations Ringmain doesn't have.
    #[error("ycsb-e is 95% scans of key ranges, and Ringmain's protocol has none: choose another workload")]
    Scans,
    /// A row of the table without figures.
    #[error("the table has no figures for {0}: choose another preset")]
    NoFigures(String),
}

impl Default for Recipe {
    /// Half reads, half writes of 100 bytes, to 10,000 keys by Zipf's law.
    fn default() -> Self {
        Self {
            name: None,
            keys: 10_000,
            popularity: Popularity::Zipf,
            zipf: Some(0.99),
            key_size: None,
            value_size: built_in("100"),
            mix: built_in("read=50,write=50"),
            ttl: Lifetimes::default(),
            writes: Writes::Overwrite,
            preload: false,
        }
    }
}

/// Understands what was typed after `--workload`.
pub fn parse_workload(text: &str) -> Result<Choice, ChoiceError> {
    if text == "list" {
        return Ok(Choice::List(ycsb::list()));
    }
    if text == "ycsb-e" {
        return Err(ChoiceError::Scans);
    }
    let recipe =
        ycsb::recipe(text).ok_or_else(|| unknown(text, "workload", ycsb::NAMES.map(str::to_owned)))?;
    Ok(Choice::Recipe(Box::new(recipe)))
}

/// Understands what was typed after `--preset`.
pub fn parse_preset(text: &str) -> Result<Choice, ChoiceError> {
    if text == "list" {
        return Ok(Choice::List(format!("{}{}", etc::list(), twitter::list())));
    }
    if text == etc::NAME {
        return Ok(Choice::Recipe(Box::new(etc::recipe())));
    }
    match twitter::row(text) {
        Some(row) => {
            let recipe = row.recipe().ok_or_else(|| ChoiceError::NoFigures(text.to_owned()))?;
            Ok(Choice::Recipe(Box::new(recipe)))
        }
        None => Err(unknown(text, "preset", twitter::names().chain([etc::NAME.to_owned()]))),
    }
}

fn unknown(text: &str, what: &'static str, known: impl IntoIterator<Item = String>) -> ChoiceError {
    let known: Vec<String> = known.into_iter().collect();
    let hint = did_you_mean(text, known.iter().map(String::as_str));
    ChoiceError::Unknown { name: text.to_owned(), what, hint }
}

/// What this crate itself writes where users would.
fn built_in<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("what is built in was tested")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistyped_names_get_near_ones() {
        for (error, words) in [
            (
                parse_workload("ycsb-g"),
                "'ycsb-g' is no known workload (did you mean ycsb-a, ycsb-b, ycsb-c?)",
            ),
            (parse_workload("tpcc"), "'tpcc' is no known workload: --workload list shows all"),
            (parse_workload("ycsb-e"), "95% scans"),
            (parse_preset("twiter-12"), "did you mean twitter-12"),
            (parse_preset("twitter-55"), "did you mean twitter-5, "),
            (parse_preset("twitter-5"), "no figures for twitter-5"),
            (parse_preset("etd"), "did you mean etc?"),
        ] {
            let text = error.expect_err(words).to_string();
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn lists_name_everything_that_can_be_chosen() {
        for (list, parse) in [
            (parse_workload("list"), parse_workload as fn(&str) -> Result<Choice, ChoiceError>),
            (parse_preset("list"), parse_preset),
        ] {
            let Ok(Choice::List(list)) = list else { panic!("{list:?}") };
            let names: Vec<&str> = list
                .lines()
                .filter(|line| {
                    line.starts_with("ycsb-") || line.starts_with("twitter-") || line.starts_with("etc")
                })
                .filter_map(|line| line.split_whitespace().next())
                .collect();
            assert!(names.len() >= 5, "{list}");
            for name in names {
                assert!(matches!(parse(name), Ok(Choice::Recipe(_))), "{name}");
            }
        }
    }
}
