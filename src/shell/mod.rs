//! The shell: the only room that knows glommio, io_uring, sockets, threads and clocks.
//!
//! It runs one [`Machine`](crate::shard::Machine) on each core and decides nothing itself: completions become
//! inputs, outputs become operations. [`start()`] brings a node up; from then on nothing is shared between cores
//! but rings and doorbells, and no lock is taken on any path.
//!
//! - [`doorbell`], [`mesh`]: how shards wake and talk to each other;
//! - `net`: connections, on an io_uring of the shard's own;
//! - `executor`, `host`: the loop of a shard, and what it does with inputs and outputs;
//! - `log`: a shard's records on the disk, in durable mode;
//! - `names`: host names, looked up off the shard's thread;
//! - `start`, `stop`, `probe`, `trial`, `signals`: a node's life.
//!
//! This is also the only room with `unsafe` in it: for system calls, and for the memory that the kernel reads
//! and writes. Each block states why it holds.

#![allow(unsafe_code, reason = "system calls and memory shared with the kernel; each block has its proof")]
#![allow(
    clippy::disallowed_methods,
    reason = "the shell reads the clocks, starts threads and waits for seeds"
)]

mod clock;
pub mod doorbell;
mod executor;
mod host;
mod log;
pub mod mesh;
mod names;
mod net;
mod node;
mod probe;
mod recovered;
mod signals;
mod sockets;
mod start;
mod stop;
mod trial;

pub use log::{
    Backup, BackupError, DataError, Pass, Restoration, Restored, Taking, Verdict, backup, is_backup, restore,
    verify, verify_backup,
};
pub use node::{NodeError, SOFTWARE, serve_node};
pub use probe::StartError;
pub use signals::serve;
pub use start::{Placement, Ports, Server, ShardStart, ShellOptions, start};
