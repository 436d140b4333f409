//! A data centre is destroyed under load, and rebuilt from newcomers: puts and gets go on, and no acknowledged write is
//! lost. Defends P1 (durability: fewer than W copies of anything were destroyed, as each data centre holds one), P5, P7, P8,
//! P9 and P10.
//!
//! W = 2 does not ask for two data centres yet. It implies them while no fallback has to stand in.

#![allow(clippy::unwrap_used, reason = "a test that can't go on must stop")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "real processes live in real time")]

mod clients;
mod cluster;
#[path = "../benches/tornado/course.rs"]
mod course;
mod offered;

use std::time::Duration;

use course::{Plan, tornado};

#[test]
fn a_data_center_dies_and_is_rebuilt_while_everybody_works() {
    // What is streamed goes with pauses: few keys in few partitions keep this short.
    let settings = &["--partitions=64"];
    let calm = Duration::from_secs(2);
    let figures = tornado(&Plan { per_second: 300, keys: 200, settings, calm, tells: false });
    println!("{figures}");
    assert_eq!(figures.faults(), Vec::<String>::new(), "{figures}");
}
