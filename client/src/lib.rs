//! Client of Ringmain.
//!
//! ```no_run
//! use ringmain_client::Client;
//!
//! # async fn example() -> Result<(), ringmain_client::Error> {
//! let client = Client::connect("ringmain://127.0.0.1:7400/?read=2&write=2&timeout=50ms").await?;
//! client.overwrite("greeting", "hello").await?;
//! let got = client.get("greeting").await?;
//! assert_eq!(got.value().map(|value| &value[..]), Some(&b"hello"[..]));
//!
//! // Concurrent writers make siblings. Whoever reads them merges them, and writes with what it has seen.
//! client.update("cart:42", |siblings| siblings.iter().flat_map(|sibling| sibling.value.clone()).collect()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What it does
//!
//! A [`Client`] knows the cluster's topology and sends each request straight to a shard that holds the key
//! (Dynamo's client-driven coordination, §6.4 of the paper), over one connection per shard that all tasks
//! share. Requests are pipelined: whatever gathers while the connection's task is busy leaves in one write.
//! It follows the topology by a subscription, and looks again when an answer took a hop.
//!
//! # What it promises
//!
//! - **Honest outcomes.** A write ends in success, in an error whose
//!   [`is_definite_failure`](Error::is_definite_failure) is true, which means that it was applied nowhere and
//!   never will be, or in [`Error::MaybeApplied`].
//! - **Safe retries.** A request whose connection is lost, or whose server can't serve it, goes to another
//!   replica within the same deadline, under the same operation id: a write applies once.
//! - **Bounds.** Requests in flight are bounded, and one too many gets [`Error::Overloaded`] at once. Every
//!   request has a deadline (1 s unless given), whose rest travels with it.
//! - **Cancellation.** Any future of this crate may be dropped at any time. A write dropped half-way may or
//!   may not be applied.
//!
//! # What it doesn't
//!
//! It keeps no copies of values, and never merges siblings by itself: only their owner knows how.

mod address;
mod answer;
mod batch;
mod builder;
mod call;
mod client;
mod connection;
mod engine;
mod error;
mod follow;
mod options;
mod random;
mod request;
mod router;
mod tries;
mod url;

pub use answer::{Context, Got, Replicas, Sibling, Siblings, Stored};
pub use batch::Batch;
pub use builder::{Builder, Routing};
pub use bytes::Bytes;
pub use client::{Client, ShardStatus};
pub use error::Error;
pub use request::Request;
pub use ringmain_schema::message::{
    Change, Changed, Counter, Member, MemberStatus, Move, Status, Topology, What,
};
pub use url::UrlError;
