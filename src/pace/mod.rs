//! How much background work a shard may do now (paper section 6.5, docs/adr/0014).
//!
//! Handoff, streaming, anti-entropy and what peers ask for the sake of theirs compete with clients for the shard. [`Pace`]
//! watches what clients feel: how long their requests take, and how long inputs wait for the shard's turn. Both are held
//! against what is usual, which it learns while background work hardly moves. While neither is high the budget grows,
//! first by doubling and later along a curve that lingers where it last hurt; when one is, the budget is halved.
//!
//! What it promises, each defended by a test here:
//! - it never falls below a floor, so that background work ends under any load (P7);
//! - it grows by what is used alone: what was idle for an hour begins no faster than it left off;
//! - what background work does to clients is never learned as usual;
//! - after any rest, pause or jump of the clock no claimant spends more than its purse, which holds
//!   [`bucket::PURSE`] of the budget, and one step;
//! - claimants share by weight, and who claims nothing leaves its share to the others;
//! - a load that became heavier for good is taken as usual in the end.
//!
//! What it never does: keep the time, decide what is done with the budget, or hold back anything of a client's.

mod bucket;
mod law;
mod signal;
#[cfg(test)]
mod tests;

use crate::time::{Duration, Instant};

use bucket::Bucket;
use law::Law;
use signal::{Signal, Verdict};

/// How often the budget is thought over.
const INTERVAL: Duration = Duration::from_millis(50);
/// Requests of a whole window.
const LATENCIES: u32 = 100;
/// Waits of a whole window; the shell tells one each 5 ms at most.
const WAITS: u32 = 40;
/// What was under way when the budget was halved says nothing of the half.
const BLIND: Duration = Duration::from_millis(100);
/// The budget is called held back for so long after it was last halved.
const HELD_BACK_FOR: Duration = Duration::from_secs(2);
/// With so many times the floor or less, background work is not what clients feel.
const UNDISTURBED: f64 = 2.0;
/// Of the use of past intervals, so much is forgotten in each.
const FORGOTTEN: f64 = 0.25;

/// Whatever competes for the budget. Another is a line in each list here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claimant {
    /// Hints that go home.
    Handoff,
    /// What this node owns and lacks.
    Streaming,
    /// What peers ask: lists, states, and what they push here.
    Serving,
    /// Rounds of anti-entropy.
    AntiEntropy,
    /// Records of the log that are appended anew, so that old ones can go.
    Compaction,
    /// Versions whose time has come.
    Expiry,
}

impl Claimant {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::Handoff, Self::Streaming, Self::Serving, Self::AntiEntropy, Self::Compaction, Self::Expiry];

    /// Its share beside those of others who claim at the same time. What W was counted on goes home first; anti-entropy
    /// mostly finds nothing.
    const fn weight(self) -> u32 {
        match self {
            Self::Handoff => 4,
            Self::Streaming | Self::Serving | Self::Compaction | Self::Expiry => 2,
            Self::AntiEntropy => 1,
        }
    }
}

/// What a user may say of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PaceOptions {
    /// Of twenty requests, at most one may take longer; twice what is usual, if there is none.
    pub latency: Option<Duration>,
    /// The floor, in bytes a second.
    pub bytes_min: u64,
}

impl Default for PaceOptions {
    fn default() -> Self {
        Self { latency: None, bytes_min: 1 << 20 }
    }
}

/// What clients feel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// Their requests take too long.
    Latency,
    /// Their frames wait too long for the shard's turn.
    Waits,
}

/// The budget of one shard.
#[derive(Debug)]
pub struct Pace {
    options: PaceOptions,
    now: Instant,
    latency: Signal,
    waits: Signal,
    law: Law,
    bucket: Bucket,
    /// When this interval began.
    since: Instant,
    spent: f64,
    /// Some claimant had to wait in this interval.
    held: bool,
    /// Something was done for a client in this interval.
    foreground: bool,
    /// Spent in a second, as a mean of the last intervals.
    used: f64,
    blind_until: Instant,
    /// When and why the budget was last halved.
    halved: Option<(Instant, Cause)>,
    halvings: [u64; 2],
}

/// The controller, for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reading {
    /// Bytes' worth a second that may be spent.
    pub rate: u64,
    /// Bytes' worth a second that are.
    pub used: u64,
    /// Clients' requests in the last window: the 95th percentile, and what is usual.
    pub latency: [Duration; 2],
    /// The same of waits for the shard's turn.
    pub waits: [Duration; 2],
    /// Why the budget is smaller than it was; nothing, if it has not been cut lately.
    pub held_back_by: Option<Cause>,
    /// How often it was halved since the start: for latency, for waits.
    pub halvings: [u64; 2],
}

impl Pace {
    /// Before the first request.
    pub fn new(options: PaceOptions) -> Self {
        let law = Law::new(options.bytes_min.max(1) as f64);
        Self {
            options,
            now: Instant(0),
            latency: Signal::new(LATENCIES),
            waits: Signal::new(WAITS),
            bucket: Bucket::default(),
            law,
            since: Instant(0),
            spent: 0.0,
            held: false,
            foreground: false,
            used: 0.0,
            blind_until: Instant(0),
            halved: None,
            halvings: [0; 2],
        }
    }

    /// The shard takes a turn.
    pub fn on_turn(&mut self, now: Instant) {
        self.now = self.now.max(now);
        if self.now.since(self.since) >= INTERVAL {
            self.think();
        }
    }

    /// Something is done for a client, here or at another coordinator.
    pub const fn on_foreground(&mut self) {
        self.foreground = true;
    }

    /// A client's request that began then is answered now.
    pub fn on_answered(&mut self, begun: Instant) {
        self.foreground = true;
        if begun >= self.blind_until {
            self.latency.add(self.now.since(begun));
        }
    }

    /// So long, at most, did inputs wait for the shard's turn.
    pub fn on_waited(&mut self, longest: Duration) {
        if self.now >= self.blind_until {
            self.waits.add(longest);
        }
    }

    /// May this claimant take a step? A step has a bounded cost, and is paid afterwards.
    pub fn may_spend(&mut self, claimant: Claimant, now: Instant) -> bool {
        self.on_turn(now);
        let may = self.bucket.may_spend(claimant, self.now, self.law.rate());
        self.held |= !may;
        may
    }

    /// When to ask again: when it may, as things are, not before `now`; or sooner, since who waits must be seen to wait in each
    /// interval, and things may get better.
    pub fn ready_at(&self, claimant: Claimant, now: Instant) -> Instant {
        self.bucket.ready_at(claimant, now, self.law.rate()).min(now + INTERVAL)
    }

    /// A step has cost so many bytes and so many keys' states.
    pub fn spent(&mut self, claimant: Claimant, bytes: usize, keys: usize) {
        self.spent += self.bucket.spent(claimant, bytes, keys, self.law.rate());
    }

    /// Is the budget smaller than it was, for the clients' sake?
    pub fn is_held_back(&self) -> bool {
        self.halved.is_some_and(|(at, _)| self.now.since(at) < HELD_BACK_FOR)
    }

    /// What a claimant has spent since the start: bytes, and keys' states.
    pub const fn spent_by(&self, claimant: Claimant) -> [u64; 2] {
        self.bucket.spent_by(claimant)
    }

    /// How things are.
    pub fn reading(&self) -> Reading {
        Reading {
            rate: self.law.rate() as u64,
            used: self.used as u64,
            latency: self.latency.reading(),
            waits: self.waits.reading(),
            held_back_by: self.halved.filter(|_| self.is_held_back()).map(|(_, cause)| cause),
            halvings: self.halvings,
        }
    }

    /// An interval is over.
    fn think(&mut self) {
        let took = self.now.since(self.since);
        // Who stood still meanwhile has learned nothing from it.
        self.law.stand_still(Duration(took.0.saturating_sub(INTERVAL.0)));
        let used = self.spent / seconds(took);
        self.used += (used - self.used) * FORGOTTEN;
        let is_undisturbed = self.used <= UNDISTURBED * self.law.least();
        let latency = self.latency.judge(self.now, self.options.latency, is_undisturbed);
        let waits = self.waits.judge(self.now, None, is_undisturbed);
        let cause = match (latency, waits) {
            (Verdict::High, _) => Some(Cause::Latency),
            (_, Verdict::High) if self.foreground => Some(Cause::Waits),
            _ => None,
        };
        // Nothing is tried on clients before it is known what is usual for them.
        let is_unknown = self.latency.is_unknown() || self.foreground && self.waits.is_unknown();
        let is_beyond = self.latency.is_beyond() || self.foreground && self.waits.is_beyond();
        match cause {
            // Who has spent nothing is not what clients feel.
            Some(cause) if self.used >= 1.0 => self.halve(cause, used),
            None if self.held && !is_unknown && !is_beyond => self.law.speed_up(self.now),
            _ => self.law.stand_still(took.min(INTERVAL)),
        }
        (self.since, self.spent, self.held, self.foreground) = (self.now, 0.0, false, false);
    }

    fn halve(&mut self, cause: Cause, used: f64) {
        self.law.slow_down(self.now, self.used.max(used));
        self.halved = Some((self.now, cause));
        self.halvings[usize::from(cause == Cause::Waits)] += 1;
        self.blind_until = self.now + BLIND;
        self.latency.forget_window(self.now);
        self.waits.forget_window(self.now);
    }
}

const fn seconds(span: Duration) -> f64 {
    span.0 as f64 / 1e9
}
