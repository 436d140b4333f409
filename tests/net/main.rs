//! The shell over real sockets, with a machine that echoes.

#![allow(unsafe_code, reason = "signals and limits, to see what follows")]
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test or bench has threads and clocks of its own"
)]

mod bounds;
mod echo;
mod ends;
mod node;
mod process;
mod streams;
