//! `loadgen`: offers Ringmain a load at a fixed rate, verifies every read, and gives a verdict.
//!
//! It answers one question: does this cluster serve this load within this objective? Three rules keep the
//! answer honest.
//!
//! - **Open loop.** When operations are due is fixed before the run. A slow answer delays no later
//!   operation, and latency counts from the due moment, so a stall is charged to everything it held up.
//! - **Verified.** Every value names its key and its writer, and every read is held against what was written.
//!   A lost or wrong value fails the run, whatever its latencies.
//! - **Self-critical.** The generator measures its own lateness, and says so when it was itself too slow.
//!
//! The way of an operation, and the modules on it:
//!
//! ```text
//! profile, schedule  when is it due?                 trace: when, what and how long, as recorded
//! mix, keys, sizes   what, to which key, how long?   (share, zipf, lifetimes; recipe: all of them by a name)
//! workload           all of that: operation
//! pacer              hands it out when it is due     (clock)
//! runner             sends it to the target, and gets its answer
//! audit              makes and judges values         (value, ledger)
//! record, intervals  count its outcome               (tally; progress tells it meanwhile)
//! objective, verdict judge the sum; report, exit tell it (cause: why, in a word)
//! ```
//!
//! What comes of several runs: [`compare`] (with [`statistics`]), [`merge`], [`search`]; the last two commands, `search` and
//! `sweep`, run this program again and again.
//!
//! [`target::Target`] is the seam: whatever gets, puts and deletes can be loaded. A real cluster is loaded through
//! [`target::cluster`], a Redis or memcached through [`target::wire`]; [`embedded`] starts a cluster on this machine, to whose
//! nodes [`inject`] does what is asked. [`conduct`] joins it all.

pub mod audit;
pub mod cause;
pub mod cli;
pub mod clock;
pub mod compare;
pub mod conduct;
pub mod duration;
pub mod embedded;
pub mod encoded;
pub mod environment;
pub mod exit;
pub mod hlog;
pub mod inject;
pub mod interrupt;
pub mod intervals;
pub mod key_names;
pub mod keys;
pub mod ledger;
pub mod lifetimes;
pub mod merge;
pub mod mix;
pub mod near;
pub mod objective;
pub mod operation;
pub mod outcome;
pub mod pacer;
pub mod profile;
pub mod progress;
pub mod rate;
pub mod recipe;
pub mod record;
pub mod report;
pub mod runner;
pub mod schedule;
pub mod search;
pub mod share;
pub mod sizes;
pub mod statistics;
pub mod tally;
pub mod target;
pub mod trace;
pub mod value;
pub mod verdict;
pub mod workload;
pub mod zipf;
