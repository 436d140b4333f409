//! The simulator: a whole cluster on one thread, under a seeded clock, network and disk.

pub mod checkers;
pub mod clients;
pub mod cut;
pub mod deeds;
pub mod disk;
pub mod dots;
pub mod heap;
pub mod history;
pub mod jobs;
pub mod meddler;
pub mod network;
pub mod plan;
pub mod planted;
pub mod run;
pub mod shrink;
pub mod world;
