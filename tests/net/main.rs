//! The shell over real sockets, with a machine that echoes.

#![allow(unsafe_code, reason = "signals and limits, to see what follows")]
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod bounds;
mod echo;
mod ends;
mod node;
mod process;
mod streams;
