//! Whoever was just answered writes again at once, if it writes all the time, and comes a moment too late for the group that
//! begins in the turn of its answer. So two halves of the clients would take turns, each waiting for the sync of the other
//! and then for its own. The next group begins a little later instead: when as many have come as were answered, when no more come,
//! or after a part of the time that a sync takes, whichever is first. A client that writes alone never waits for others; but records are
//! counted and not clients, so it waits once after a group in which a compaction, or a batch, had many.

use crate::time::{Duration, Instant};

/// Of the time that the last group took, nobody is waited for longer than such a part; and never longer than this.
const PAUSE_PART: u64 = 8;
const PAUSE_MAX: Duration = Duration::from_micros(200);
/// The same for all of them together.
const WHOLE_PART: u64 = 2;
const WHOLE_MAX: Duration = Duration::from_millis(2);

/// The next group while it is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Gathering {
    /// Records that may come, those that are there among them.
    expected: usize,
    /// There at the last look.
    there: usize,
    pause: Duration,
    /// Over then, if nothing more comes: `until <= at_most`
    until: Instant,
    at_most: Instant,
}

impl Gathering {
    /// A group of so many records is durable after so long, and so many wait for the next.
    pub(super) fn after(now: Instant, took: Duration, answered: usize, waiting: usize) -> Self {
        let pause = Duration(took.0 / PAUSE_PART).min(PAUSE_MAX);
        let at_most = now + Duration(took.0 / WHOLE_PART).min(WHOLE_MAX);
        Self { expected: answered + waiting, there: waiting, pause, until: now + pause, at_most }
    }

    /// So many wait now: is it time?
    pub(super) fn is_over(&mut self, now: Instant, waiting: usize) -> bool {
        if waiting > self.there && now < self.until {
            self.there = waiting;
            self.until = (now + self.pause).min(self.at_most);
        }
        waiting >= self.expected || now >= self.until
    }

    pub(super) const fn until(&self) -> Instant {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYNC: Duration = Duration::from_micros(800);

    const fn at(us: u64) -> Instant {
        Instant(us * 1000)
    }

    #[test]
    fn a_client_that_writes_alone_never_waits() {
        let mut gathering = Gathering::after(at(0), SYNC, 1, 0);
        assert!(gathering.is_over(at(1), 1));
    }

    #[test]
    fn who_was_answered_comes_into_the_next_group() {
        let mut gathering = Gathering::after(at(0), SYNC, 25, 25);
        assert!(!gathering.is_over(at(0), 25));
        assert!((1..25).all(|more| !gathering.is_over(at(more as u64 * 10), 25 + more)));
        assert!(gathering.is_over(at(250), 50));
    }

    #[test]
    fn nobody_waits_for_those_who_do_not_come() {
        let mut gathering = Gathering::after(at(0), SYNC, 25, 25);
        assert!(!gathering.is_over(at(99), 26));
        assert_eq!(gathering.until(), at(199));
        assert!(!gathering.is_over(at(198), 26));
        assert!(gathering.is_over(at(199), 26));
    }

    #[test]
    fn a_trickle_holds_nothing_up_for_long() {
        let mut gathering = Gathering::after(at(0), SYNC, 1000, 1);
        let over = (1..).find(|more| gathering.is_over(at(*more as u64 * 50), 1 + more));
        assert_eq!(over, Some(8), "half the time of a sync");
    }

    #[test]
    fn a_slow_disk_does_not_make_it_longer() {
        let gathering = Gathering::after(at(0), Duration::from_secs(1), 25, 25);
        assert_eq!((gathering.until(), gathering.at_most), (at(200), at(2000)));
    }
}
