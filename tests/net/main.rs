//! The shell over real sockets, with a machine that echoes.

mod bounds;
mod echo;
mod ends;
mod node;
mod streams;
