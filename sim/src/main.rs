//! `cargo run --release -p ringmain-sim -- --seeds 1000`

fn main() {}
