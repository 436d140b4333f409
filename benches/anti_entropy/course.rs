//! What anti-entropy costs: to repair a little among much, and to find that there is nothing to repair.

use std::fmt;
use std::time::Duration as RealDuration;

use ringmain::time::{Duration, Instant};

use crate::pair::{Pair, Weighed};

/// Of all keys, as many clocks may be sent, in lists and states together.
const CLOCKS_SHARE_MAX: f64 = 0.03;
/// In which everything must have been found: the two meet, and each asks the other every ten seconds.
const PATIENCE: RealDuration = RealDuration::from_secs(60);
/// How long to look on when there is nothing to repair.
const IDLE_SECONDS: u64 = 100;

pub(crate) struct Figures {
    keys: u64,
    differing: u64,
    pub(crate) repair: Weighed,
    /// From the start of the nodes until all was equal, in virtual time: rests between rounds included.
    pub(crate) until_equal: RealDuration,
    /// Of this thread, for all that both shards did meanwhile.
    repair_busy: RealDuration,
    /// In [`IDLE_SECONDS`] with nothing to repair.
    pub(crate) idle: Weighed,
    /// What one of the two takes of its core then, gossip and heartbeats included.
    pub(crate) idle_share: f64,
}

pub(crate) fn measure(keys: u64, differing: u64) -> Figures {
    let mut pair = Pair::with(keys, differing);
    assert!(!pair.is_equal(), "there is something to repair");
    let mut at = Instant(1);
    while !pair.is_equal() {
        assert!(pair.age() < PATIENCE, "not equal after {PATIENCE:?}: {:?}", pair.weighed);
        at = at + Duration::from_millis(5);
        pair.run_until(at);
    }
    let (until_equal, repair_busy) = (pair.age(), pair.busy);
    // The end of the exchange: what is still on its way belongs to it.
    at = at + Duration::from_millis(500);
    pair.run_until(at);
    let repair = std::mem::take(&mut pair.weighed);
    let busy = pair.busy;
    pair.run_until(at + Duration::from_millis(IDLE_SECONDS * 1000));
    let idle_busy = (pair.busy - busy) / 2;
    Figures {
        keys,
        differing,
        repair,
        until_equal,
        repair_busy,
        idle: pair.weighed,
        idle_share: idle_busy.as_secs_f64() / IDLE_SECONDS as f64,
    }
}

impl Figures {
    /// Clocks and states that were sent, by key.
    pub(crate) fn clocks_share(&self) -> f64 {
        (self.repair.clocks_listed + self.repair.states) as f64 / self.keys as f64
    }

    /// What is wrong, as far as chance and other load have no part in it.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.clocks_share() > CLOCKS_SHARE_MAX {
            faults.push(format!("the clocks of {:.2}% of the keys were sent", 100.0 * self.clocks_share()));
        }
        if self.idle.clocks_listed + self.idle.states > 0 {
            faults.push(format!("something was sent though nothing differed: {:?}", self.idle));
        }
        faults
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Weighed { bytes, frames, clocks_listed, states } = self.repair;
        writeln!(f, "{} keys, {} of which differ", self.keys, self.differing)?;
        writeln!(
            f,
            "repair: {bytes} bytes in {frames} frames, {} bytes a difference",
            bytes / self.differing.max(1)
        )?;
        writeln!(
            f,
            "        {clocks_listed} clocks listed and {states} states sent: {:.4}% of the keys",
            100.0 * self.clocks_share()
        )?;
        writeln!(
            f,
            "        equal {:.2} s after the start of both, for {:.1?} of a core",
            self.until_equal.as_secs_f64(),
            self.repair_busy
        )?;
        let per_second = self.idle.bytes as f64 / IDLE_SECONDS as f64 / 2.0;
        writeln!(
            f,
            "nothing to repair: {per_second:.0} bytes a second and node, {:.4}% of a core with gossip and heartbeats",
            100.0 * self.idle_share
        )
    }
}
