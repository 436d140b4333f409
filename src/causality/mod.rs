//! What came before what: dotted version vector sets, one for each key.
//!
//! Dynamo accepts a write on any side of a partition (paper §4.4), so a key may hold several versions that
//! don't know of one another. This room tells "newer" from "concurrent", exactly and without a clock.
//!
//! Each version has a [`Dot`]: the n-th event that one [`Actor`] minted for this key. A key's whole state,
//! [`Siblings`], is a clock (for each actor, the counter up to which all its dots have been seen) and the
//! versions that nothing seen has superseded. It's the dotted version vector set of Almeida, Baquero,
//! Gonçalves, Preguiça and Fonte ("Scalable and accurate causality tracking for eventually consistent
//! stores", DAIS 2014). A dot that the clock covers and that isn't among the versions was superseded: this is
//! all that `merge` needs to know.
//!
//! What the room promises:
//! - `merge` is commutative, associative and idempotent, so replicas that have exchanged their states are
//!   equal, whatever the order and however often (P7);
//! - a version goes only when a put whose client had seen it takes its place (P1), and it never comes back (P5);
//! - versions shown together are concurrent (P4), and a context covers nothing but what it was read with,
//!   or what that had superseded (P3).
//!
//! What it asks of its caller, for these to hold: no actor ever mints the same counter of a key twice (P6).
//! So an actor's id is drawn anew at each start, only the owning shard mints, after it has read its own
//! record, and a key that it doesn't find is minted under a fresh epoch.
//!
//! It never reads a clock, and never lets a timestamp discard anything. Clients hold contexts as opaque,
//! authenticated bytes: see [`ContextKey`].

mod clock;
mod context;
mod dot;
#[cfg(test)]
mod history;
mod siblings;
mod vector;

pub use clock::{ACTORS_MAX, InvalidState};
pub use context::{CONTEXT_BYTES_MAX, ContextError, ContextKey};
pub use dot::{Actor, COUNTER_MAX, Dot};
pub use siblings::{
    ACTORS_PUT_MAX, Content, SIBLINGS_MAX, SIBLINGS_WARN, Siblings, VERSIONS_MAX, VERSIONS_PUT_MAX, Version,
};
pub use vector::VersionVector;
