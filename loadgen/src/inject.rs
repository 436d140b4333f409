//! What is done to nodes while a load runs: `at=10s kill n2; at=20s restart n2; at=30s pause n3 5s`.
//!
//! Times count from the start of the run, warm-up included. `kill` is SIGKILL, `restart` starts what was killed, under its
//! name and address and with empty memory, and `pause` stops a node with SIGSTOP and lets it go on when its time is over.
//! What can't be (a node that there is not, a restart of what runs) is refused before anything starts, with its place in
//! the text.

use std::fmt;
use std::future::{Future, Pending, pending};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::clock::Moment;
use crate::duration::{parse, parse_positive};
use crate::near::did_you_mean;

/// What shall be done, as the user wrote it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Injections(Vec<Injection>);

/// One clause.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Injection {
    at: Duration,
    what: What,
    /// The number in a node's name, from 1.
    node: u8,
    /// The clause's first character, from 1.
    place: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Kill,
    Restart,
    Pause(Duration),
}

/// One thing to do to one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deed {
    /// From the start of the run.
    pub at: Duration,
    /// What to do.
    pub act: Act,
    /// The number in the node's name, from 1.
    pub node: u8,
}

/// What can be done to a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// SIGKILL: it goes without a word.
    Kill,
    /// Starts it again.
    Restart,
    /// SIGSTOP: it stands still, and its connections stay.
    Pause,
    /// SIGCONT.
    Resume,
}

/// What was done, and when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Done {
    /// As planned.
    pub deed: Deed,
    /// When it was done.
    pub at: Moment,
}

/// What was done to a node, for the report.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Mark {
    /// In seconds from the start of the run.
    pub at_s: f64,
    /// When it should have been done.
    pub planned_s: f64,
    /// What was done.
    pub action: Act,
    /// The node's name.
    pub node: String,
}

/// What is done during a run, and the news of it.
#[derive(Debug)]
pub struct Incidents<F> {
    /// Does it; polled from the start of the run to its end.
    pub course: F,
    /// What was done so far.
    pub done: mpsc::UnboundedReceiver<Done>,
}

/// Why a text was not understood, or can't be done.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("character {place}: {reason}")]
pub struct InjectError {
    /// Of the character from which on it is wrong, from 1.
    place: usize,
    reason: String,
}

/// How a node stands while the plan is gone through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    Up,
    Down,
    /// By the clause of this number.
    PausedBy(usize),
}

const FORM: &str =
    "write at=TIME, then kill NODE, restart NODE or pause NODE TIME, as in 'at=10s pause n2 5s'";

impl Injections {
    /// What is to be done to a cluster of so many nodes, by rising time.
    pub fn deeds(&self, nodes: u8, run: Option<Duration>) -> Result<Vec<Deed>, InjectError> {
        let mut steps: Vec<(usize, Deed)> = Vec::new();
        for (number, injection) in self.0.iter().enumerate() {
            injection.refuse_impossible(nodes, run)?;
            steps.extend(injection.deeds().map(|deed| (number, deed)));
        }
        steps.sort_by_key(|(_, deed)| deed.at);
        let mut standings = vec![Standing::Up; usize::from(nodes) + 1];
        let mut deeds = Vec::new();
        for (number, deed) in steps {
            let standing = &mut standings[usize::from(deed.node)];
            if let Some(next) = self.0[number].follow(*standing, deed.act, number)? {
                *standing = next;
                deeds.push(deed);
            }
        }
        Ok(deeds)
    }
}

impl Injection {
    fn refuse_impossible(&self, nodes: u8, run: Option<Duration>) -> Result<(), InjectError> {
        if self.node > nodes {
            let names = if nodes == 1 { "only n1".to_owned() } else { format!("n1 to n{nodes}") };
            return self.wrong(format!("there is no n{}: there is {names}", self.node));
        }
        match run {
            Some(run) if self.at >= run => {
                self.wrong(format!("the run is over by {:?}: it takes {run:?}", self.at))
            }
            _ => Ok(()),
        }
    }

    fn deeds(self) -> impl Iterator<Item = Deed> {
        let Self { at, what, node, .. } = self;
        let (act, resume) = match what {
            What::Kill => (Act::Kill, None),
            What::Restart => (Act::Restart, None),
            What::Pause(span) => (Act::Pause, Some(Deed { at: at + span, act: Act::Resume, node })),
        };
        std::iter::once(Deed { at, act, node }).chain(resume)
    }

    /// How the node stands after an act of this clause; `None` if there is nothing left to do.
    fn follow(&self, standing: Standing, act: Act, number: usize) -> Result<Option<Standing>, InjectError> {
        let node = self.node;
        match (act, standing) {
            (Act::Kill, Standing::Up | Standing::PausedBy(_)) => Ok(Some(Standing::Down)),
            (Act::Restart, Standing::Down) | (Act::Pause, Standing::Up) => {
                Ok(Some(if act == Act::Pause { Standing::PausedBy(number) } else { Standing::Up }))
            }
            (Act::Resume, Standing::PausedBy(by)) if by == number => Ok(Some(Standing::Up)),
            // It was killed meanwhile, and perhaps started again.
            (Act::Resume, _) => Ok(None),
            (Act::Kill | Act::Pause, Standing::Down) => self.wrong(format!("n{node} is down by then")),
            (Act::Restart, _) => {
                self.wrong(format!("n{node} isn't down by then: only what was killed is restarted"))
            }
            (Act::Pause, Standing::PausedBy(_)) => self.wrong(format!("n{node} is paused by then")),
        }
    }

    fn wrong<T>(&self, reason: String) -> Result<T, InjectError> {
        Err(InjectError { place: self.place, reason })
    }
}

impl Incidents<Pending<()>> {
    /// Nothing is done.
    pub fn none() -> Self {
        let (_, done) = mpsc::unbounded_channel();
        Self { course: pending(), done }
    }
}

impl<F: Future<Output = ()>> Incidents<F> {
    /// What `course` does, it tells through the sender that it is made with.
    pub fn new(course: impl FnOnce(mpsc::UnboundedSender<Done>) -> F) -> Self {
        let (sender, done) = mpsc::unbounded_channel();
        Self { course: course(sender), done }
    }
}

impl Done {
    /// As the report has it, of a run that began then.
    pub fn mark(&self, start: Moment) -> Mark {
        let Deed { at, act, node } = self.deed;
        let at_s = self.at.since_ns(start) as f64 / 1e9;
        Mark { at_s, planned_s: at.as_secs_f64(), action: act, node: format!("n{node}") }
    }
}

impl FromStr for Injections {
    type Err = InjectError;

    fn from_str(text: &str) -> Result<Self, InjectError> {
        let text = text.trim_end().trim_end_matches(';');
        let mut injections = Vec::new();
        let mut place = 1;
        for clause in text.split(';') {
            injections.push(parse_clause(clause, place)?);
            place += clause.chars().count() + 1;
        }
        Ok(Self(injections))
    }
}

/// A clause whose first character, space included, has this place in the text.
fn parse_clause(clause: &str, start: usize) -> Result<Injection, InjectError> {
    let mut words = words(clause, start);
    let end = start + clause.trim_end().chars().count();
    let wrong = |place, reason| InjectError { place, reason };
    let missing = || wrong(end, format!("something is missing: {FORM}"));
    let (place, first) = words.next().ok_or_else(missing)?;
    let time =
        first.strip_prefix("at=").ok_or_else(|| wrong(place, format!("'{first}' is no time: {FORM}")))?;
    let at = parse(time).map_err(|error| wrong(place + 3, error.to_string()))?;
    let (word_place, word) = words.next().ok_or_else(missing)?;
    let (node_place, name) = words.next().ok_or_else(missing)?;
    let node = node(name).ok_or_else(|| {
        wrong(node_place, format!("'{name}' is no node of this cluster: they are called n1, n2 and so on"))
    })?;
    let what = match word {
        "kill" => What::Kill,
        "restart" => What::Restart,
        "pause" => {
            let (place, span) = words.next().ok_or_else(missing)?;
            What::Pause(parse_positive(span).map_err(|error| wrong(place, error.to_string()))?)
        }
        other => {
            let hint = did_you_mean(other, ["kill", "restart", "pause"]);
            return Err(wrong(word_place, format!("'{other}' can't be done to a node{hint}: {FORM}")));
        }
    };
    match words.next() {
        None => Ok(Injection { at, what, node, place }),
        Some((place, more)) => Err(wrong(place, format!("'{more}' is too much: a semicolon ends each part"))),
    }
}

/// The words of a text whose first character has this place, each with its own.
fn words(text: &str, start: usize) -> impl Iterator<Item = (usize, &str)> {
    text.split_whitespace().map(move |word| {
        let before = word.as_ptr() as usize - text.as_ptr() as usize;
        (start + text[..before].chars().count(), word)
    })
}

/// The number in `n7`.
fn node(name: &str) -> Option<u8> {
    let digits = name.strip_prefix('n')?;
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    digits.parse().ok().filter(|_| is_plain)
}

impl fmt::Display for Injections {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, Injection { at, what, node, .. }) in self.0.iter().enumerate() {
            let separator = if number == 0 { "" } else { "; " };
            match what {
                What::Kill => write!(formatter, "{separator}at={at:?} kill n{node}")?,
                What::Restart => write!(formatter, "{separator}at={at:?} restart n{node}")?,
                What::Pause(span) => write!(formatter, "{separator}at={at:?} pause n{node} {span:?}")?,
            }
        }
        Ok(())
    }
}

impl Act {
    /// The rest of a sentence about a node.
    fn told(self) -> &'static str {
        match self {
            Self::Kill => "is killed",
            Self::Restart => "is started again",
            Self::Pause => "is paused",
            Self::Resume => "goes on",
        }
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "n{} {}", self.node, self.act.told())
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "at {:.3} s: {} {}", self.at_s, self.node, self.action.told())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn deeds(text: &str) -> Result<Vec<String>, String> {
        let injections: Injections = text.parse().map_err(|error: InjectError| error.to_string())?;
        let deeds = injections.deeds(3, Some(seconds(60))).map_err(|error| error.to_string())?;
        Ok(deeds.iter().map(|deed| format!("{:?} {deed}", deed.at)).collect())
    }

    #[test]
    fn what_is_written_is_done_in_the_order_of_its_times() {
        let text = "at=30s pause n3 5s; at=10s kill n2;at=20.5s  restart n2;";
        assert_eq!(
            deeds(text).expect("sound"),
            ["10s n2 is killed", "20.5s n2 is started again", "30s n3 is paused", "35s n3 goes on"]
        );
        let injections: Injections = text.parse().expect("sound");
        let shown = injections.to_string();
        assert_eq!(shown, "at=30s pause n3 5s; at=10s kill n2; at=20.5s restart n2");
        assert_eq!(shown.parse::<Injections>().expect("its own text").to_string(), shown);
    }

    /// Whoever is killed while it stands still does not go on; nor does its successor, which never stood still.
    #[test]
    fn a_kill_ends_a_pause() {
        assert_eq!(
            deeds("at=1s pause n1 5s; at=2s kill n1; at=3s restart n1").expect("sound"),
            ["1s n1 is paused", "2s n1 is killed", "3s n1 is started again"]
        );
        let twice = "at=1s pause n1 5s; at=2s kill n1; at=3s restart n1; at=4s pause n1 4s";
        assert_eq!(deeds(twice).expect("sound")[3..], ["4s n1 is paused", "8s n1 goes on"]);
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        for (text, told) in [
            ("", "character 1: something is missing"),
            ("kill n2", "character 1: 'kill' is no time"),
            ("at=10 kill n2", "character 4: '10' has no unit"),
            ("at=10s", "character 7: something is missing"),
            ("at=10s kil n2", "character 8: 'kil' can't be done to a node (did you mean kill?)"),
            ("at=10s kill", "character 12: something is missing"),
            ("at=10s kill node2", "character 13: 'node2' is no node"),
            ("at=10s kill n02", "character 13: 'n02' is no node"),
            ("at=10s kill n", "character 13: 'n' is no node"),
            ("at=10s kill n999", "character 13: 'n999' is no node"),
            ("at=10s kill n2 5s", "character 16: '5s' is too much"),
            ("at=10s pause n2", "character 16: something is missing"),
            ("at=10s pause n2 0s", "character 17: '0s' is not a positive number"),
            ("at=1µs kill n1; at=2s halt n1", "character 23: 'halt' can't be done"),
            ("at=1s kill n1;; at=2s restart n1", "character 15: something is missing"),
            ("at=10s kill n4", "character 1: there is no n4: there is n1 to n3"),
            ("at=10s kill n1; at=60s restart n1", "character 17: the run is over by 60s"),
            ("at=10s kill n1; at=20s kill n1", "character 17: n1 is down by then"),
            ("at=10s restart n1", "character 1: n1 isn't down by then"),
            ("at=20s kill n1; at=30s pause n1 1s", "character 17: n1 is down by then"),
            ("at=20s pause n1 5s; at=22s pause n1 1s", "character 21: n1 is paused by then"),
            ("at=20s pause n1 5s; at=22s restart n1", "character 21: n1 isn't down by then"),
        ] {
            let error = deeds(text).expect_err(text);
            assert!(error.starts_with(told) && !error.contains('\n'), "{text}: {error}");
        }
    }

    #[test]
    fn marks_tell_what_was_done_and_when() {
        let deed = Deed { at: seconds(10), act: Act::Pause, node: 3 };
        let mark = Done { deed, at: Moment(12_000_700_000) }.mark(Moment(2_000_000_000));
        assert_eq!(mark.to_string(), "at 10.001 s: n3 is paused");
        let json = serde_json::to_string(&mark).expect("a mark is JSON");
        assert_eq!(json, r#"{"at_s":10.0007,"planned_s":10.0,"action":"pause","node":"n3"}"#);
    }
}
