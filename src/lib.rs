//! Ringmain's server as a library: a sans-IO core and the shell that runs it.
//!
//! Start reading at [`shard`], the composition; `ARCHITECTURE.md` is the map.

pub mod anti_entropy;
pub mod causality;
pub mod config;
pub mod coordinator;
pub mod failpoint;
pub mod hint;
pub mod id;
pub mod membership;
pub mod pace;
pub mod prng;
pub mod replica;
pub mod ring;
pub mod shard;
pub mod shell;
pub mod storage;
pub mod time;
