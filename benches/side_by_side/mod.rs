//! Servers beside one another, under the same load, in one run: this one, and what people would use instead.
//!
//! [`Server`] is a process of one of them on a port of its own, [`Load`] a generator that costs as little as it can and does the
//! same for all, in the [`Speech`] of each. What is told are ratios within one run: figures of two runs, or of two machines,
//! say nothing about each other.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "a support of many benches, of which each uses a part"
)]

mod disk;
mod figures;
mod load;
mod server;
mod speech;

pub use disk::scratch;
pub use figures::{Latencies, conclude, median};
pub use load::{Load, Run};
pub use server::{CORE_OF_SERVERS, Server, pin_to_core};
pub use speech::{KEY_BYTES, Speech};
