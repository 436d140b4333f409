//! The record of a run: a tally for each kind of operation in each phase.
//!
//! An operation belongs to the phase in which it **ended**: what was in flight when a node died shows the
//! death, so it stands after the kill, and the figures before it are those of a healthy cluster.

use std::fmt;

use serde::Serialize;

use crate::operation::Kind;
use crate::outcome::Completion;
use crate::tally::Tally;

/// A part of the run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// All nodes alive; the whole run if none is killed.
    #[default]
    Before,
    /// From the kill on.
    After,
}

/// All figures of a run, or of one thread's part in it.
#[derive(Debug, Default)]
pub struct Record {
    tallies: [[Tally; Kind::ALL.len()]; Phase::ALL.len()],
    phase: Phase,
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

impl Record {
    /// A node has been killed: what ends from now on stands after the kill.
    pub fn begin_after(&mut self) {
        self.phase = Phase::After;
    }

    /// Counts an operation that has ended.
    pub fn record(&mut self, completion: &Completion) {
        self.tallies[self.phase as usize][completion.kind.index()].record(completion);
    }

    /// Adds another thread's record.
    pub fn merge(&mut self, other: &Self) {
        let pairs = self.tallies.iter_mut().flatten().zip(other.tallies.iter().flatten());
        for (mine, theirs) in pairs {
            mine.merge(theirs);
        }
        if other.phase == Phase::After {
            self.phase = Phase::After;
        }
    }

    /// Whether there was a kill.
    pub fn has_after(&self) -> bool {
        self.phase == Phase::After
    }

    /// The figures of one kind in one phase.
    pub fn tally(&self, phase: Phase, kind: Kind) -> &Tally {
        &self.tallies[phase as usize][kind.index()]
    }

    /// The figures of all kinds in one phase.
    pub fn phase(&self, phase: Phase) -> Tally {
        sum(&self.tallies[phase as usize])
    }

    /// The figures of one kind in all phases.
    pub fn kind(&self, kind: Kind) -> Tally {
        sum(self.tallies.iter().map(|phase| &phase[kind.index()]))
    }

    /// All figures together: what the objective is about.
    pub fn total(&self) -> Tally {
        sum(self.tallies.iter().flatten())
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

    use super::*;

    fn ended(kind: Kind) -> Completion {
        Completion { kind, due: Moment(1), sent: Moment(2), done: Moment(1000), outcome: Outcome::Done }
    }

    #[test]
    fn operations_stand_in_their_kind_and_phase() {
        let mut record = Record::default();
        record.record(&ended(Kind::Read));
        record.begin_after();
        record.record(&ended(Kind::Read));
        record.record(&ended(Kind::Write));
        let mut other = Record::default();
        other.record(&ended(Kind::Delete));
        other.merge(&record);
        assert!(other.has_after());
        assert_eq!(other.tally(Phase::Before, Kind::Read).operations(), 1);
        assert_eq!(other.phase(Phase::Before).operations(), 2);
        assert_eq!(other.phase(Phase::After).operations(), 2);
        assert_eq!(other.kind(Kind::Read).operations(), 2);
        assert_eq!(other.total().operations(), 4);
    }
}
