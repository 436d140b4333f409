//! Real processes on a network that breaks.
//!
//! Five `ringmain serve`, each in a network namespace of its own; links cut in both directions or in one, nodes killed,
//! stopped for a while, restarted one by one. Meanwhile clients work through the client crate, with its retries, and write
//! down what they did: registers, registers that are deleted at times, carts (sets that only grow, merged by their
//! readers) and counters. After the last fault everything is read until it stays as it is, and the history is held
//! against it. Defends P1 (no acknowledged write is lost), P2 (nothing is made up), P5 (what was deleted stays away),
//! P7 (copies converge) and P8 (what failed was never applied), where the simulator can't: in the kernel's TCP, and in the
//! client crate.
//!
//! - A node that restarts in `memory` mode has forgotten everything. So no scenario restarts more than one at a time,
//!   and each gets its copies back, by reads of all copies, before anything else happens.
//! - **Why there are siblings**: cut in halves, at R = W = 1, both sides acknowledge writes of the same keys. None is lost
//!   while siblings are kept. The same load as overwrites, where the last writer wins, loses some: the test prints how
//!   many, and fails if it should be none.
//! - **Proof that it can fail**: writes at W = 1 on a node that is cut off and killed must be found lost; and
//!   `verdict_tests` feeds the verdict with made-up histories.
//!
//! Each fault lasts 10 s, with a second of load before and after it. `RINGMAIN_PARTITION_SECONDS=300` makes it five
//! minutes each. Needs root and `ip`; without, it says so and passes.

#![allow(clippy::unwrap_used, reason = "a test that can't go on must stop")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "real processes live in real time")]

#[path = "../clients/mod.rs"]
mod clients;
#[path = "../cluster/mod.rs"]
mod cluster;
mod namespace;
mod network;
mod nodes;
mod scenarios;
mod verdict_tests;

use std::io::Write;
use std::time::{Duration, Instant};

use clients::history::Outcome;
use clients::load::Terms;
use nodes::Nodes;
use scenarios::{Scenario, bridge, halves, isolate_and_kill, isolate_one, kill_and_restart};
use scenarios::{moving, one_way, pause, rolling_restart};

/// A line that is shown though the test passes.
#[allow(clippy::explicit_write, reason = "what eprintln! prints is hidden while tests pass")]
fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").unwrap();
}

/// How long a fault lasts.
fn length() -> Duration {
    let seconds = std::env::var("RINGMAIN_PARTITION_SECONDS").map_or(10, |text| {
        text.parse().unwrap_or_else(|_| panic!("RINGMAIN_PARTITION_SECONDS is '{text}': write seconds"))
    });
    Duration::from_secs(seconds)
}

/// Play them one after the other: nothing is lost, nothing comes back, and that is still so after the last one.
fn play(nodes: &mut Nodes, scenarios: &[Scenario]) {
    let mut past = Vec::new();
    for scenario in scenarios {
        let (played, verdict) = scenario.play(nodes);
        verdict.assert_clean(scenario.name);
        past.push(played);
    }
    let (at_rest, _) = nodes.converge(Instant::now());
    for played in past {
        played.verdict(&at_rest).assert_clean(&format!("{}, after all that followed", played.name));
    }
}

#[test]
fn no_acknowledged_write_is_lost_when_links_are_cut() {
    Nodes::with("cutting links", |nodes| {
        let usual = |name, fault| Scenario { name, terms: Terms::USUAL, fault, length: length() };
        let halves_alone = |name, overwrite| {
            let terms = Terms { read: 1, write: 1, overwrite, ..Terms::USUAL };
            Scenario { name, terms, fault: halves, length: length() }
        };
        play(
            nodes,
            &[
                usual("halves", halves),
                usual("isolate one", isolate_one),
                usual("bridge", bridge),
                usual("one way", one_way),
                usual("moving", moving),
                halves_alone("halves at R = W = 1", false),
            ],
        );
        let (played, verdict) = halves_alone("halves at R = W = 1, overwriting", true).play(nodes);
        let (lost, acknowledged) = (verdict.lost.len(), played.writes(Outcome::Ok));
        let percent = 100.0 * lost as f64 / acknowledged as f64;
        say(&format!(
            "partitions: of {acknowledged} acknowledged writes, {lost} ({percent:.1}%) are lost where the last writer \
             wins, and none where siblings are kept"
        ));
        assert!(lost > 0, "then what are siblings for?");
        assert!(verdict.phantoms.is_empty(), "{verdict:#?}");

        let (name, fault) = ("told to one, which dies", isolate_and_kill as _);
        let terms = Terms { read: 1, write: 1, beside: Some(4), ..Terms::USUAL };
        let (_, verdict) = Scenario { name, terms, fault, length: Duration::from_secs(3) }.play(nodes);
        assert!(!verdict.lost.is_empty(), "a loss that was made wasn't found");
    });
}

#[test]
fn no_acknowledged_write_is_lost_when_nodes_stop_and_restart() {
    Nodes::with("stopping nodes", |nodes| {
        let usual = |name, fault, length| Scenario { name, terms: Terms::USUAL, fault, length };
        let seconds = Duration::from_secs;
        play(
            nodes,
            &[
                usual("stopped for 1 s", pause, seconds(1)),
                usual("stopped for 10 s", pause, seconds(10)),
                usual("stopped for 30 s", pause, seconds(30)),
                usual("kill and restart", kill_and_restart, length()),
                usual("rolling restart", rolling_restart, length()),
            ],
        );
    });
}
