//! The same keys in each server, and the memory that they take.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use crate::side_by_side::{KEY_BYTES, Load, Server};

const VALUE_BYTES: usize = 100;
/// Beyond key and value, in bytes: the target.
const BEYOND_MAX: f64 = 80.0;
const CONNECTIONS: usize = 16;
const DEPTH: usize = 16;
/// The first keys are written so often before anything is weighed: what a server needs for its connections is there then.
const WARM_UP_KEYS: u64 = 1000;
const WARM_UP_TIMES: u64 = 100;
/// Of the keys, so many are asked for when all are written.
const SAMPLES: u64 = 1000;

pub(crate) struct Plan<'a> {
    pub(crate) keys: u64,
    /// `None` leaves it out.
    pub(crate) memcached: Option<&'a Path>,
    pub(crate) valkey: Option<&'a Path>,
    /// For what wants one.
    pub(crate) directory: &'a Path,
}

/// Of one server.
pub(crate) struct Weight {
    name: &'static str,
    keys: u64,
    /// Resident, before and after.
    before: u64,
    after: u64,
}

/// One server after the other; this one first.
pub(crate) fn weigh_all(plan: &Plan<'_>) -> Result<Vec<Weight>, String> {
    let settings = ["--shards=1".to_owned(), "--pin=false".to_owned()];
    let mut weights = vec![weigh(Server::ringmain("ringmain", None, &settings)?, plan.keys)];
    if let Some(program) = plan.memcached {
        // Room enough, so that it keeps all.
        let megabytes = 64 + plan.keys * 4 * (KEY_BYTES + VALUE_BYTES) as u64 / 1_000_000;
        weights.push(weigh(Server::memcached("memcached", program, None, megabytes)?, plan.keys));
    }
    if let Some(program) = plan.valkey {
        let valkey = Server::redis("valkey", program, None, plan.directory, &["--appendonly", "no"])?;
        weights.push(weigh(valkey, plan.keys));
    }
    Ok(weights)
}

/// It is gone afterwards: the next one has the machine to itself.
fn weigh(server: Server, keys: u64) -> Weight {
    let mut load = Load::connect(&server, CONNECTIONS, DEPTH, VALUE_BYTES);
    load.run(&mut (0..WARM_UP_TIMES).flat_map(|_| 0..WARM_UP_KEYS), Duration::MAX);
    let before = server.resident_bytes();
    let new = WARM_UP_KEYS..WARM_UP_KEYS + keys;
    let run = load.run(&mut new.clone(), Duration::MAX);
    assert_eq!(run.answered, keys, "all keys are written");
    let after = server.resident_bytes();
    let sampled = (0..SAMPLES).map(|sample| new.start + sample * keys / SAMPLES);
    assert_eq!(server.count_held(sampled) as u64, SAMPLES, "{} keeps all keys", server.name());
    let name = server.name();
    drop(server);
    Weight { name, keys, before, after }
}

impl Weight {
    /// Bytes per key beyond key and value.
    pub(crate) fn beyond(&self) -> f64 {
        (self.after - self.before) as f64 / self.keys as f64 - (KEY_BYTES + VALUE_BYTES) as f64
    }

    pub(crate) fn shortcomings(&self) -> Vec<String> {
        let beyond = self.beyond();
        let is_met = beyond < BEYOND_MAX;
        (!is_met).then(|| format!("{beyond:.1} bytes per key, not < {BEYOND_MAX}")).into_iter().collect()
    }

    pub(crate) fn head(keys: u64) -> String {
        format!(
            "{keys} keys of {KEY_BYTES} bytes, values of {VALUE_BYTES}\n{:<12}{:>12}{:>12}{:>12}{:>12}",
            "", "MB before", "MB after", "bytes/key", "beyond"
        )
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [before, after] = [self.before, self.after].map(|bytes| bytes as f64 / 1e6);
        let per_key = (self.after - self.before) as f64 / self.keys as f64;
        write!(f, "{:<12}{before:>12.1}{after:>12.1}{per_key:>12.1}{:>12.1}", self.name, self.beyond())
    }
}
