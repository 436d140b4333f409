//! Who goes when there is no room is chosen no worse than by an LRU of the same bytes: the short version of `benches/eviction`.

#[path = "../benches/eviction/replay.rs"]
mod replay;

use replay::{footprint, hits_by_age, hits_by_seats, read_trace, zipf};

#[test]
fn on_zipfs_law_it_is_never_worse_than_an_lru() {
    for exponent in [0.8, 0.99, 1.2] {
        let requests = zipf(300_000, 50_000, exponent, 2);
        let all = footprint(&requests);
        for part in [10, 50, 100, 300] {
            let limit = all * part / 1000;
            let [ours, theirs] = [hits_by_seats(&requests, limit), hits_by_age(&requests, limit)];
            assert!(
                ours >= theirs,
                "zipf {exponent}, {part} thousandths: {ours} hits, and an LRU has {theirs}"
            );
        }
    }
}

#[test]
fn on_a_real_trace_it_is_better_on_most_sizes() {
    let folder = std::env::var("RINGMAIN_DATA").unwrap_or_else(|_| "../shared/data".to_owned());
    let Ok(text) = std::fs::read_to_string(format!("{folder}/cloudphysics-io.csv")) else {
        return println!("{folder}/cloudphysics-io.csv is not here: skipped");
    };
    let requests = read_trace(&text);
    assert_eq!(requests.len(), 113_872);
    let all = footprint(&requests);
    let parts = [10, 50, 100, 300];
    let better = parts.iter().filter(|part| {
        let limit = all * **part / 1000;
        let [ours, theirs] = [hits_by_seats(&requests, limit), hits_by_age(&requests, limit)];
        println!("{part} thousandths: {ours} hits, and an LRU has {theirs}");
        ours > theirs
    });
    assert!(better.count() * 2 > parts.len());
}
