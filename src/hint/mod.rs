//! Hints: what a node keeps for primaries that could not be reached (paper §4.6).
//!
//! When a primary doesn't answer, the next healthy node of the preference list takes the write in its place, with a
//! hint that says for whom. The hint is handed over as soon as that primary is back, and dropped only when the
//! primary has said that it holds it on stable storage: a hint may have been counted towards W. If the primary has left,
//! or owns the key no more, all who own it now must hold what was kept for it (scylla #24980 dropped it).
//!
//! A [`HintStore`] keeps one state for each target and key, apart from the node's own copies: it is never shown as the
//! node's own, and its silence about a key says nothing. It is bounded in bytes for each target; a full one declines,
//! and another node is asked.
//!
//! It never sends anything and knows no network: the shard asks what to hand over next, and says what arrived.

mod store;

pub use store::{Full, Hint, HintStore, Keeping};
