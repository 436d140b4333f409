//! The disk under a node, and the log that the simulator keeps on it until the product has one of its own.
//!
//! A [`Disk`] is an array of sectors in memory behind a volatile cache, as a device or a kernel is one: it takes
//! writes at once, promises them only when a sync succeeds, and loses, tears or reorders at a crash what it
//! didn't promise. It fails as disks do, each way at a rate of its own ([`DiskFaults`]), and says which fault it
//! injected where ([`Injected`]), so that whoever runs a cluster can see to it that enough copies stay whole. An
//! [`IdealLog`] is one shard's append-only log on a disk of its own that loses and refuses but never corrupts.
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
mod frame;
mod log;
#[cfg(test)]
mod log_tests;
mod unsynced;

pub use device::{Disk, DiskImage};
pub use faults::{DiskError, DiskFaults, Injected};
pub use log::{IdealLog, LogError};

/// What the cache keeps or loses as one, and how far a write goes astray: a page of the kernel, and an alignment
/// of offset, length and memory that O_DIRECT accepts on every device, so the unit the product's log will write.
pub const SECTOR_BYTES: usize = 4096;

/// What a device writes whole or not at all. Many that take 4096 bytes at a time promise only this much, so a
/// sector tears at its multiples.
pub const ATOM_BYTES: usize = 512;
