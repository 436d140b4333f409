//! Anti-entropy: how replicas find out what they don't have in common (paper section 4.7).
//!
//! For each partition that it holds, a shard keeps a [`HashTree`] over its keys: a key's place is given by its token,
//! what is added there by the digest of its state ([`crate::storage::digest`]). Two replicas whose roots are equal hold
//! the same; where they differ, they walk down the tree along the nodes that differ and list keys only at its leaves.
//! An [`Exchange`] is that walk, as a machine without IO: it says which [`Step`] comes next and is told the answers.
//! Only the one who began it remembers anything; each request says all that its answer needs.
//!
//! What it promises: an exchange that ends with no message lost and no write in between has found exactly the tokens
//! under which the two differ, and had their states sent both ways, to be merged. A merge is idempotent, so a
//! difference that isn't one, since a write was just on its way, costs a frame and changes nothing.
//!
//! Every list has a stated length. What doesn't fit is asked for again from where the last list ended. The unit is
//! the token, not the key: keys with the same token are compared and sent together.
//!
//! It never decides which state is right, never deletes, and never says anything about completeness.

mod exchange;
mod listing;
mod tree;

pub use exchange::{Exchange, Step, Unexpected};
pub use listing::{Differences, Listing, Selection, differences};
pub use tree::{FAN_OUT, HashTree, Leaf, Trees};
