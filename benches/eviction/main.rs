//! How many requests find what they ask for, in a cache of a part of all bytes: S3-FIFO beside an LRU of the same bytes, on
//! Zipf's law and on a real trace.
//!
//! The trace is read from the folder that `RINGMAIN_DATA` names (default `../shared/data`); without it, it is left out.

mod replay;

use replay::{Request, footprint, hits_by_age, hits_by_seats, read_trace, zipf};

/// Of all bytes, the cache has so many in a thousand.
const PARTS: [u64; 5] = [1, 10, 50, 100, 300];

fn main() {
    println!("hit ratio, and misses beside those of an LRU\n");
    println!("{:<24} {:>7} {:>9} {:>9} {:>8}", "requests", "cache", "s3-fifo", "lru", "misses");
    for exponent in [0.8, 0.99, 1.2] {
        compare(&format!("zipf {exponent}"), &zipf(5_000_000, 1_000_000, exponent, 1));
    }
    let folder = std::env::var("RINGMAIN_DATA").unwrap_or_else(|_| "../shared/data".to_owned());
    match std::fs::read_to_string(format!("{folder}/cloudphysics-io.csv")) {
        Ok(text) => compare("cloudphysics", &read_trace(&text)),
        Err(error) => println!("{folder}/cloudphysics-io.csv: {error}; left out"),
    }
}

fn compare(name: &str, requests: &[Request]) {
    let all = footprint(requests);
    for part in PARTS {
        let limit = all * part / 1000;
        let [ours, theirs] = [hits_by_seats(requests, limit), hits_by_age(requests, limit)];
        let ratio = |hits: usize| hits as f64 / requests.len() as f64;
        let misses = (1.0 - ratio(ours)) / (1.0 - ratio(theirs));
        let percent = part as f64 / 10.0;
        println!("{name:<24} {percent:>6}% {:>9.4} {:>9.4} {misses:>8.3}", ratio(ours), ratio(theirs));
    }
}
