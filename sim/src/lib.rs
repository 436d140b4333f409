//! The simulator: a whole cluster on one thread, under a seeded clock, network and disk.

pub mod disk;
