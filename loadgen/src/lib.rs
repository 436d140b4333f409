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
//! record, progress   counts its outcome              (tally)
//! objective, verdict judge the sum; report, exit tell it
//! ```
//!
//! [`target::Target`] is the seam: whatever gets, puts and deletes can be loaded. A real cluster is loaded
//! through [`target::cluster`]; [`embedded`] starts one on this machine. [`conduct`] joins it all.

pub mod audit;
pub mod cli;
pub mod clock;
pub mod conduct;
pub mod duration;
pub mod embedded;
pub mod environment;
pub mod exit;
pub mod interrupt;
pub mod key_names;
pub mod keys;
pub mod ledger;
pub mod lifetimes;
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
pub mod share;
pub mod sizes;
pub mod tally;
pub mod target;
pub mod trace;
pub mod value;
pub mod verdict;
pub mod workload;
pub mod zipf;
