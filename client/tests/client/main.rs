//! The client against servers made of sockets, which do exactly what a test says.

mod batches;
mod bounds;
mod fake;
mod following;
mod handshakes;
mod pipelining;
mod retries;
mod throughput;
