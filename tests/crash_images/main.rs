//! Crash images: every state in which a failing disk or a failing power supply may leave two segments of a log, one of
//! them reused, and one judgement over all of them. PROMISES, "The log".
//!
//! The machines are those of production, over a disk of memory (`rig`). Each image is recovered and held against what is known to have been
//! synced (`oracle`). That it can fail is shown by the bugs that other stores have shipped (`mutant`).

#![allow(clippy::unwrap_used, reason = "a test that can't go on must stop")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "it says how fast it was")]

mod explore;
mod mutant;
mod oracle;
mod rig;

use std::time::{Duration, Instant};

use explore::all;
use mutant::Mutant;
use oracle::Oracle;
use ringmain::failpoint::Bug;

/// All of it, as production is: at least a million states.
#[test]
fn everything_synced_is_there_and_nothing_is_invented() {
    let (began, at_work) = (Instant::now(), on_the_processor().as_secs_f64());
    let mut oracle = Oracle::default();
    let mut states = 0;
    for (name, explore) in all() {
        explore(&mut oracle, &Mutant::default()).unwrap_or_else(|broken| panic!("{name}: {broken}"));
        println!("{name}: {} states", oracle.states - states);
        states = oracle.states;
    }
    let (worked, waited) = (on_the_processor().as_secs_f64() - at_work, began.elapsed().as_secs_f64());
    println!(
        "{states} states in {worked:.1} s of one core ({waited:.1} s by the clock), {:.0} a second; \
         {} where damage can't be told from a torn tail",
        states as f64 / worked,
        oracle.undetectable
    );
    assert!(states >= 1_000_000, "only {states} states");
}

/// How long this thread has had a core to itself: other tests may be at work too.
fn on_the_processor() -> Duration {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(times.split(' ').next().and_then(|time| time.parse().ok()).unwrap_or(0))
}

#[track_caller]
fn is_found(bug: Bug) {
    let found = all().into_iter().find_map(|(name, explore)| {
        let mut oracle = Oracle::default();
        let broken = explore(&mut oracle, &Mutant::of(bug)).err()?;
        Some(format!("{name}, image {}: {broken}", oracle.states))
    });
    println!("{bug:?}: {}", found.as_deref().unwrap_or("not found"));
    assert!(found.is_some(), "{bug:?} was not found");
}

/// scylla #4700.
#[test]
fn a_checksum_without_generation_is_found() {
    is_found(Bug::NoGenerationInChecksum);
}

/// scylla #3847.
#[test]
fn damage_that_is_skipped_silently_is_found() {
    is_found(Bug::BadChunksSkipped);
}

/// CASSANDRA-4782.
#[test]
fn segments_numbered_by_a_clock_are_found() {
    is_found(Bug::SegmentIdByClock);
}

/// tigerbeetle PR 2345.
#[test]
fn a_tail_of_at_most_one_torn_record_is_found() {
    is_found(Bug::OneTornRecordAssumed);
}

/// tigerbeetle PR 2711.
#[test]
fn trust_in_misdirected_writes_is_found() {
    is_found(Bug::MisdirectedTrusted);
}
