//! `cargo run --release -p ringmain-sim -- --seeds 1000`
fn main() {
    let start = std::time::Instant::now();
    let n: u64 = std::env::args().nth(1).unwrap().parse().unwrap();
    let mut lasted = 0; let mut events = 0; let mut ops = 0;
    for seed in 0..n {
        let report = ringmain_sim::run::run(seed, &Default::default());
        lasted += report.lasted.0; events += report.events; ops += report.operations;
        if let Some(violation) = report.violation { println!("seed {seed}: {violation:?}\n{}", report.story); }
    }
    let real = start.elapsed().as_secs_f64();
    println!("{n} seeds in {real:.2} s: {:.0}/h, virtual/real {:.0}, events/seed {}, ops/seed {}", n as f64 / real * 3600.0, lasted as f64 / 1e9 / real, events / n, ops as u64 / n);
}
