//! A token bucket with a purse for each claimant: the budget flows into the purses of those who claim.
//!
//! A step is taken while the purse isn't empty, and paid afterwards: so a purse may be in debt, by one step at most if
//! nothing is done unasked, and whoever is waits until it is paid. A full purse passes its share on.

use super::{Claimant, seconds};
use crate::time::{Duration, Instant};

/// A purse holds what the budget brings in this time.
pub(super) const PURSE: Duration = Duration::from_millis(10);
/// A debt is worth no more than this time: what was pushed here unasked must not stop the rest for long.
const DEBT: Duration = Duration::from_secs(2);
/// Who has asked or paid in this time claims its share.
const CLAIMS_FOR: Duration = Duration::from_millis(100);
/// Taken for the work on one key's state: to find, encode, check and merge it.
const KEY_BYTES: usize = 1024;
/// Nobody looks again sooner.
const WAIT_MIN: Duration = Duration::from_micros(200);

const CLAIMANTS: usize = Claimant::ALL.len();

#[derive(Debug, Default)]
pub(super) struct Bucket {
    purses: [Purse; CLAIMANTS],
    filled: Instant,
}

#[derive(Debug, Default)]
struct Purse {
    /// Bytes' worth; below zero it is a debt.
    balance: f64,
    asked: Option<Instant>,
    /// Bytes, and keys' states, since the start.
    spent: [u64; 2],
}

impl Purse {
    fn claims(&self, now: Instant) -> bool {
        self.balance < 0.0 || self.asked.is_some_and(|at| now.since(at) < CLAIMS_FOR)
    }
}

impl Bucket {
    pub(super) fn may_spend(&mut self, claimant: Claimant, now: Instant, rate: f64) -> bool {
        self.purses[claimant as usize].asked = Some(now);
        self.fill(now, rate);
        self.purses[claimant as usize].balance > 0.0
    }

    pub(super) fn ready_at(&self, claimant: Claimant, now: Instant, rate: f64) -> Instant {
        let purse = &self.purses[claimant as usize];
        if purse.balance > 0.0 {
            return now;
        }
        // Whose purse is full passes its share on.
        let room = room(rate);
        let competes = |purse: &Purse| purse.claims(now) && purse.balance < room;
        let others = Claimant::ALL
            .into_iter()
            .filter(|other| *other != claimant && competes(&self.purses[*other as usize]));
        let weights: u32 = others.map(Claimant::weight).sum();
        let share = f64::from(claimant.weight()) / f64::from(weights + claimant.weight());
        let wait = (1.0 - purse.balance) / (rate * share);
        now + Duration((wait * 1e9) as u64).max(WAIT_MIN)
    }

    /// What that is worth.
    pub(super) fn spent(&mut self, claimant: Claimant, bytes: usize, keys: usize, rate: f64) -> f64 {
        let worth = (bytes + keys * KEY_BYTES) as f64;
        let purse = &mut self.purses[claimant as usize];
        purse.balance = (purse.balance - worth).max(-rate * seconds(DEBT));
        purse.spent[0] += bytes as u64;
        purse.spent[1] += keys as u64;
        worth
    }

    pub(super) const fn spent_by(&self, claimant: Claimant) -> [u64; 2] {
        self.purses[claimant as usize].spent
    }

    /// Share out what has come in since the last time.
    fn fill(&mut self, now: Instant, rate: f64) {
        let mut flow = rate * seconds(now.since(self.filled));
        self.filled = self.filled.max(now);
        let room = room(rate);
        // Each time round a purse is filled, or all has been given.
        for _ in 0..CLAIMANTS {
            let open = |purse: &Purse| purse.claims(now) && purse.balance < room;
            let all = Claimant::ALL.into_iter().filter(|claimant| open(&self.purses[*claimant as usize]));
            let weights: u32 = all.map(Claimant::weight).sum();
            if weights == 0 || flow <= 0.0 {
                return;
            }
            let part = flow / f64::from(weights);
            for claimant in Claimant::ALL {
                let purse = &mut self.purses[claimant as usize];
                if open(purse) {
                    let given = (part * f64::from(claimant.weight())).min(room - purse.balance);
                    purse.balance += given;
                    flow -= given;
                }
            }
        }
    }
}

/// What a purse holds.
fn room(rate: f64) -> f64 {
    (rate * seconds(PURSE)).max(1.0)
}
