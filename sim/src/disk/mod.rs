//! The disk under a node, and a shard's log on it.
//!
//! A [`Disk`] is an array of sectors in memory behind a volatile cache, as a device or a kernel is one: it takes
//! writes at once, promises them only when a sync succeeds, and loses, tears or reorders at a crash what it
//! didn't promise. It fails as disks do, each way at a rate of its own ([`DiskFaults`]), and says which fault it
//! injected where ([`Injected`]), so that whoever runs a cluster can see to it that enough copies stay whole. A
//! [`ShardLog`] is one shard's log on a disk of its own: the product's format and machines, byte for byte.
//!
//! Promises of the disk: what a successful sync covered outlives every crash, unless corruption was asked for.
//! A fault at rate 0 never happens, one at rate 1 happens every time. The same seed and the same calls give the
//! same bytes. Promises of the log: after a crash come all records that a sync covered, in order, byte for byte,
//! then possibly some that followed them; never a hole, never one that an earlier recovery has cut off.
//!
//! What it never does: touch a file, read a clock, or draw chance from anything but the generator handed in.

mod device;
#[cfg(test)]
mod device_tests;
mod faults;
mod shard_log;
#[cfg(test)]
mod shard_log_tests;
mod unsynced;

pub use device::{Disk, DiskImage};
pub use faults::{DiskError, DiskFaults, Injected};
pub use shard_log::{LogError, ShardLog};

/// What the cache keeps or loses as one, and how far a write goes astray: what the log writes as one.
pub const SECTOR_BYTES: usize = ringmain::storage::log::SECTOR_BYTES;

/// What a device writes whole or not at all. Many that take 4096 bytes at a time promise only this much, so a
/// sector tears at its multiples.
pub const ATOM_BYTES: usize = 512;
