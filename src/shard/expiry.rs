//! Versions whose time has come become tombstones, whether anybody reads them or not.
//!
//! When that is, the index knows (`storage`); how much of it is done, the budget of background work says (`pace`): a few steps
//! a turn, so that neither a million keys of one time nor a wall clock that jumps by a year holds anybody up. Whoever reads a
//! key meanwhile sees no value whose time has come.

use crate::failpoint::Failpoints;
use crate::pace::Claimant;
use crate::time::{Duration, Instant, Now, WallTime};

use super::Shard;

/// Steps of one turn. Each finds a key, or a timer's new place.
const STEPS: usize = 32;
/// What a step is worth in the budget: a look at a key, beside the kilobyte of sending or merging one.
const STEP_BYTES: usize = 64;
/// The wall clock may jump: it is looked at so often while something is to expire.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// When there is something to do.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    /// Never, while nothing expires.
    next: Option<Instant>,
}

impl<F: Failpoints> Shard<F> {
    /// When to look again.
    pub(super) const fn next_expiry(&self) -> Option<Instant> {
        self.expiry.next
    }

    /// Go on, as far as the budget goes: some steps a turn.
    pub(super) fn tend_expiry(&mut self, now: Now) {
        let is_due = |at: WallTime| at <= now.wall;
        let mut due = self.replica.next_expiry(now);
        let mut may = true;
        if due.is_some_and(is_due) {
            may = self.may_spend(Claimant::Expiry, now);
            if may {
                let expired = self.replica.expire(now, STEPS);
                self.counters.versions_expired += expired.versions as u64;
                self.pace.spent(Claimant::Expiry, expired.steps * STEP_BYTES, 0);
                due = self.replica.next_expiry(now);
            }
        }
        self.expiry.next = due.map(|due| match due.0.checked_sub(now.wall.0) {
            Some(wait @ 1..) => now.monotonic + Duration::from_micros(wait.min(LOOK_EVERY.as_micros())),
            _ if may => now.monotonic,
            _ => self.ready_at(Claimant::Expiry, now),
        });
    }
}
