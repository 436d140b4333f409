//! The client against servers made of sockets, which do exactly what a test says.

#![allow(clippy::unwrap_used, reason = "what is unwrapped here is what the test claims")]

mod batches;
mod bounds;
mod fake;
mod following;
mod handshakes;
mod pipelining;
mod retries;
mod throughput;
