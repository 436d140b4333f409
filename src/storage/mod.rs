//! Storage: what a shard holds, and how it is found.
//!
//! An [`Index`] keeps the whole causal state of each key, sorted by partition, because a partition is what
//! moves, is compared and is reaped as one. A lookup never hashes a key twice: the token that routed a
//! request here is also its hash.
//!
//! Whatever changes a key's state leaves a [`Change`] behind: the key's token and the state's [`digest`] before and
//! after, for the hash trees of anti-entropy.
//!
//! A version whose time has come becomes a tombstone with its dot, when it is read, or when a [`wheel`] says so. What all of
//! this costs in memory is counted as it changes ([`cost`]).
//!
//! The room holds no file handle and never waits: the log's records leave through the shard's output.

pub mod cost;
mod digest;
mod eviction;
mod ghosts;
mod index;
pub mod log;
mod wheel;

use crate::id::PartitionId;

pub use digest::digest;
pub use eviction::{Seat, Seats, Victim};
pub(crate) use index::value_bytes;
pub use index::{Change, Entry, Expired, Index};

/// A key with what routing already knows of it.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Its token.
    pub token: u64,
    /// Its partition.
    pub partition: PartitionId,
}
