//! The simulator: a whole cluster on one thread, under a seeded clock, network and disk.
//!
//! The shards are the server's own, byte for byte; only what a shell does for them is done here, by a heap of events
//! and a virtual clock. A [`plan::Plan`] is drawn from a seed: the cluster's shape, what its clients do, and which faults
//! come how often. The [`world::World`] lives through it: messages are lost, doubled, late and overtaken, links cut in one
//! direction or both, processes killed and stopped, disks torn, full, damaged, wiped or restored from an old image, wall
//! clocks moved by an hour or a year. Meanwhile [`clients`] behave as applications do, and write down what they saw.
//! Then the faults stop, the cluster must serve again, and the [`checkers`] hold the history against what was promised.
//!
//! What it promises: a seed has one course only (one in a hundred is run twice, and a hash over all events compared); no
//! real clock, socket, file, thread or chance takes part in a run. What it proves is shown by [`planted`] bugs:
//! mistakes that other stores have shipped, put into the core on purpose, each of which must be found within a stated
//! number of seeds.
//!
//! What it never does: look at a replica to decide what happens next, or know better than the clients what they were
//! told. What it can't show: anything of the shell (threads, rings, sockets), or how long things take on a real machine.
//! Damage to the last group of a log, before anything says that it was durable, looks like what a crash leaves: such damage is
//! not done, since no log can tell it (docs/storage.md).

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
