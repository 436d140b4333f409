//! The lives that one node's records have gone through.

use std::collections::VecDeque;

use ringmain_schema::peer::Life;

use crate::id::Incarnation;

/// A log names so many. A node that restarts more often without losing anything knows no more of those before.
const LIVES_MAX: usize = 64;

/// The lives of one node, on one disk or in one memory, since it last had nothing: the oldest first.
///
/// Whoever remembers another life of the node tells it that its records are old: the other one has acknowledged what is
/// not among them. That they have a later incarnation by now says nothing, since each start takes one, whether anybody
/// heard of it or not.
#[derive(Clone, Default, Debug)]
pub(super) struct Line {
    lives: VecDeque<Life>,
}

impl Line {
    /// As a log names them. More than there may be are none of this release's.
    pub(super) fn from_log(lives: &[Life]) -> Self {
        let last = lives.len().saturating_sub(LIVES_MAX);
        Self { lives: lives[last..].iter().copied().collect() }
    }

    /// For the log.
    pub(super) fn to_log(&self) -> Vec<Life> {
        self.lives.iter().copied().collect()
    }

    /// This one begins with nothing, or counts what it has for nothing.
    pub(super) fn begin(&mut self, incarnation: Incarnation, life: u64) {
        self.lives.clear();
        self.go_on(incarnation, life);
    }

    /// This one begins with what the last one has left.
    pub(super) fn go_on(&mut self, incarnation: Incarnation, life: u64) {
        if self.lives.len() == LIVES_MAX {
            self.lives.pop_front();
        }
        self.lives.push_back(Life { incarnation: incarnation.0, life });
    }

    /// Is it one of these?
    pub(super) fn has(&self, incarnation: Incarnation, life: u64) -> bool {
        self.lives.contains(&Life { incarnation: incarnation.0, life })
    }

    /// Has a life that is none of these been there since they began? Any has, where there are none.
    pub(super) fn is_outdone_by(&self, incarnation: Incarnation, life: u64) -> bool {
        let since = self.lives.front().map_or(1, |first| first.incarnation);
        incarnation.0 >= since && !self.has(incarnation, life)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_outdone_by_any_other_life_since_it_began() {
        let mut line = Line::default();
        assert!(line.is_outdone_by(Incarnation(1), 7) && !line.is_outdone_by(Incarnation(0), 7));
        line.begin(Incarnation(5), 50);
        line.go_on(Incarnation(6), 60);
        line.go_on(Incarnation(7), 70);
        assert!(!line.is_outdone_by(Incarnation(4), 40), "it was counted for nothing when the line began");
        assert!(!line.is_outdone_by(Incarnation(6), 60), "its own");
        assert!(line.is_outdone_by(Incarnation(5), 51) && line.is_outdone_by(Incarnation(6), 61));
        assert!(line.is_outdone_by(Incarnation(9), 90));
    }

    #[test]
    fn a_line_has_an_end() {
        let mut line = Line::default();
        (1..=100).for_each(|number| line.go_on(Incarnation(number), number));
        assert_eq!(line.to_log().len(), LIVES_MAX);
        assert!(!line.is_outdone_by(Incarnation(36), 1) && line.is_outdone_by(Incarnation(37), 1));
        let many: Vec<Life> = (1..=100).map(|number| Life { incarnation: number, life: number }).collect();
        assert_eq!(Line::from_log(&many).to_log(), line.to_log());
    }
}
