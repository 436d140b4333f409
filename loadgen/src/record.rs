//! The record of a run: a tally for each kind of operation, in each stage of the load, before and after a kill, or whatever was
//! first done to a node ([`crate::inject`]).
//!
//! An operation belongs to the stage in which it was **due**, whenever it ends, since it is that stage's rate that it
//! is an operation of. Of the two sides of a kill it belongs to the one on which it **ended**: what was in flight when a
//! node died shows the death, so it stands after the kill, and the figures before it are those of a healthy cluster.
//!
//! Reads that rightly find nothing are counted apart, as [`Class::Miss`]: servers answer them sooner, and where a load brings
//! many (inserts that are read before they have ended, values that expire), the latencies of what was found would look better
//! than they are.
//!
//! Warm-up is recorded, but no part of any sum, save that of broken promises.

use std::fmt;

use serde::Serialize;

use crate::operation::Kind;
use crate::outcome::{Completion, Outcome};
use crate::profile::Profile;
use crate::tally::Tally;

/// A part of the run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing was done to any node; the whole run if nothing ever is.
    #[default]
    Before,
    /// From the first that was done on.
    After,
}

/// A line of every table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Operations of a kind, but of the reads only those that found something, or failed.
    Kind(Kind),
    /// Reads that rightly found nothing.
    Miss,
}

/// All figures of a run.
#[derive(Debug)]
pub struct Record {
    /// In order; at least one.
    stages: Vec<Stage>,
    phase: Phase,
}

#[derive(Debug)]
struct Stage {
    name: String,
    is_judged: bool,
    /// From the start of the run.
    end_ns: u64,
    /// Half a megabyte each, so they are made when there is something to count.
    tallies: [[Option<Box<Tally>>; Class::ALL.len()]; Phase::ALL.len()],
}

impl Phase {
    /// All phases in order.
    pub const ALL: [Self; 2] = [Self::Before, Self::After];
}

impl fmt::Display for Phase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Before => "before",
            Self::After => "after",
        })
    }
}

impl Class {
    /// All classes, in the order of every table.
    pub const ALL: [Self; 4] =
        [Self::Kind(Kind::Read), Self::Miss, Self::Kind(Kind::Write), Self::Kind(Kind::Delete)];

    fn of(completion: &Completion) -> Self {
        if completion.outcome == Outcome::NotFound { Self::Miss } else { Self::Kind(completion.kind) }
    }

    fn index(self) -> usize {
        match self {
            Self::Kind(kind) => kind.index(),
            Self::Miss => Kind::ALL.len(),
        }
    }

    fn kind(self) -> Kind {
        match self {
            Self::Kind(kind) => kind,
            Self::Miss => Kind::Read,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(kind) => kind.fmt(formatter),
            Self::Miss => formatter.pad("miss"),
        }
    }
}

impl Record {
    /// With the stages of a load.
    pub fn new(profile: &Profile) -> Self {
        let mut end_ns = 0u64;
        let stages = profile.stages().iter().map(|stage| {
            end_ns += stage.duration.as_nanos() as u64;
            Stage::new(&stage.name, stage.is_judged, end_ns)
        });
        Self { stages: stages.collect(), phase: Phase::Before }
    }

    /// Something was done to a node: what ends from now on stands after it.
    pub fn begin_after(&mut self) {
        self.phase = Phase::After;
    }

    /// Counts an operation that has ended, and that was due so long after the start.
    pub fn record(&mut self, due_ns: u64, completion: &Completion) {
        let (phase, class) = (self.phase as usize, Class::of(completion).index());
        self.stage_of(due_ns).tallies[phase][class].get_or_insert_default().record(completion);
    }

    /// Whether what is due then counts for the objective.
    pub fn is_judged(&self, due_ns: u64) -> bool {
        self.stages[self.place_of(due_ns)].is_judged
    }

    /// Whether anything was.
    pub fn has_after(&self) -> bool {
        self.phase == Phase::After
    }

    /// The figures of one class, in one phase or in all.
    pub fn class(&self, phase: Option<Phase>, class: Class) -> Tally {
        let phases = Phase::ALL.into_iter().filter(|&known| phase.is_none_or(|phase| phase == known));
        sum(phases.flat_map(|phase| {
            self.judged().filter_map(move |stage| stage.tallies[phase as usize][class.index()].as_deref())
        }))
    }

    /// The figures of all kinds in one phase.
    pub fn phase(&self, phase: Phase) -> Tally {
        sum(self
            .judged()
            .flat_map(|stage| stage.tallies[phase as usize].iter().flatten())
            .map(|tally| &**tally))
    }

    /// The figures of one kind in all phases, whatever was found.
    pub fn kind(&self, kind: Kind) -> Tally {
        let mut sum = Tally::default();
        for class in Class::ALL.into_iter().filter(|class| class.kind() == kind) {
            sum.merge(&self.class(None, class));
        }
        sum
    }

    /// All figures together: what the objective is about.
    pub fn total(&self) -> Tally {
        sum(self.judged().flat_map(Stage::all))
    }

    /// All figures, those of warm-up too: a broken promise is broken whenever it was.
    pub fn whole(&self) -> Tally {
        sum(self.stages.iter().flat_map(Stage::all))
    }

    /// The figures of each stage by its name, in order.
    pub fn stages(&self) -> impl ExactSizeIterator<Item = (&str, Tally)> {
        self.stages.iter().map(|stage| (stage.name.as_str(), sum(stage.all())))
    }

    fn judged(&self) -> impl Iterator<Item = &Stage> {
        self.stages.iter().filter(|stage| stage.is_judged)
    }

    fn place_of(&self, due_ns: u64) -> usize {
        // What is due at the very end, by rounding, belongs to the last.
        self.stages.partition_point(|stage| stage.end_ns <= due_ns).min(self.stages.len() - 1)
    }

    fn stage_of(&mut self, due_ns: u64) -> &mut Stage {
        let place = self.place_of(due_ns);
        &mut self.stages[place]
    }
}

impl Default for Record {
    /// One stage, for a load that has no profile.
    fn default() -> Self {
        Self { stages: vec![Stage::new("all", true, u64::MAX)], phase: Phase::Before }
    }
}

impl Stage {
    fn new(name: &str, is_judged: bool, end_ns: u64) -> Self {
        Self { name: name.to_owned(), is_judged, end_ns, tallies: Default::default() }
    }

    fn all(&self) -> impl Iterator<Item = &Tally> {
        self.tallies.iter().flatten().flatten().map(|tally| &**tally)
    }
}

fn sum<'a>(tallies: impl IntoIterator<Item = &'a Tally>) -> Tally {
    let mut sum = Tally::default();
    for tally in tallies {
        sum.merge(tally);
    }
    sum
}

#[cfg(test)]
mod tests {
    use crate::clock::Moment;
    use crate::outcome::Outcome;
    use crate::profile::Phases;

    use super::*;

    fn ended(kind: Kind) -> Completion {
        Completion { kind, due: Moment(1), sent: Moment(2), done: Moment(1000), outcome: Outcome::Done }
    }

    #[test]
    fn operations_stand_in_their_kind_and_phase() {
        let mut record = Record::default();
        record.record(0, &ended(Kind::Delete));
        record.record(7, &ended(Kind::Read));
        assert!(!record.has_after());
        record.begin_after();
        record.record(8, &ended(Kind::Read));
        record.record(u64::MAX, &ended(Kind::Write));
        assert!(record.has_after());
        assert_eq!(record.class(Some(Phase::Before), Class::Kind(Kind::Read)).operations(), 1);
        assert_eq!(record.phase(Phase::Before).operations(), 2);
        assert_eq!(record.phase(Phase::After).operations(), 2);
        assert_eq!(record.kind(Kind::Read).operations(), 2);
        assert_eq!(record.total().operations(), 4);
    }

    /// Misses are quick here: with them, half of all reads would take no longer.
    #[test]
    fn what_was_found_has_its_own_latencies() {
        let mut record = Record::default();
        for _ in 0..60 {
            record.record(0, &ended(Kind::Read));
            record
                .record(0, &Completion { done: Moment(10), outcome: Outcome::NotFound, ..ended(Kind::Read) });
        }
        let median = |tally: &Tally| tally.due(crate::tally::Percentile::P50);
        let [found, missed] = [Class::Kind(Kind::Read), Class::Miss].map(|class| record.class(None, class));
        assert_eq!((found.operations(), found.not_found()), (60, 0));
        assert_eq!((missed.operations(), missed.not_found(), missed.reads()), (60, 60, 60));
        assert_eq!(median(&found), crate::tally::Latency::Ns(999));
        assert_eq!(median(&missed), crate::tally::Latency::Ns(9));
        assert_eq!(record.kind(Kind::Read).operations(), 120);
        assert_eq!((record.total().operations(), record.total().not_found()), (120, 60));
    }

    #[test]
    fn stages_are_told_apart_by_when_operations_were_due_and_warm_up_is_not_judged() {
        let phases: Phases = "warmup 1s, steady 2s, ramp 1..9 1s".parse().expect("phases");
        let mut record = Record::new(&phases.profile("1/s".parse().expect("a rate")));
        for due_ns in [0, 999_999_999, 1_000_000_000, 2_999_999_999, 3_000_000_000, 4_000_000_000] {
            record.record(due_ns, &ended(Kind::Read));
        }
        let stages: Vec<(String, u64)> =
            record.stages().map(|(name, tally)| (name.to_owned(), tally.operations())).collect();
        assert_eq!(
            stages,
            [("1 warmup".to_owned(), 2), ("2 steady".to_owned(), 2), ("3 ramp".to_owned(), 2)]
        );
        assert_eq!((record.total().operations(), record.whole().operations()), (4, 6));
        assert!(!record.is_judged(0) && record.is_judged(1_000_000_000));
    }
}
