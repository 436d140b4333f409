//! What a run is pointed at: the seam between the load and whatever serves it.
//!
//! The client crate is one implementation, [`wire`] (Redis and memcached) another; a map in memory is a third, for tests. Futures
//! stay on their thread, so that a target may be as cheap as an `Rc`.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;

use crate::outcome::Failure;

pub mod cluster;
pub mod peer;
pub mod wire;

/// Something that gets, puts and deletes. A clone is another handle to the same thing.
pub trait Target: Clone + 'static {
    /// The value of a key, or `None` if it is not found.
    fn get(&self, key: Bytes) -> impl Future<Output = Result<Option<Bytes>, Trouble>>;

    /// Overwrites the value of a key, for ever or for so long.
    fn put(
        &self,
        key: Bytes,
        value: Bytes,
        lifetime: Option<Duration>,
    ) -> impl Future<Output = Result<(), Trouble>>;

    /// Deletes a key, whatever its value. A key that isn't there is no error.
    fn delete(&self, key: Bytes) -> impl Future<Output = Result<(), Trouble>>;
}

/// A request that brought no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trouble {
    /// How it counts.
    pub failure: Failure,
    /// Whether a write took effect. Of no meaning for reads.
    pub applied: Applied,
    /// The server's own word for it, such as `OOM`: failures are told apart by it. Empty where it has none.
    pub code: String,
    /// In the target's own words.
    pub reason: String,
}

/// What is known about the effect of a failed write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Applied {
    /// It has none, and never will have.
    No,
    /// It may have one now, or later.
    Maybe,
    /// It has none and never will have, but what the key had before may be gone.
    Dropped,
}
