//! What anti-entropy costs, in small: `cargo bench --bench anti_entropy` takes a million keys. Defends P7 (convergence).

#![allow(clippy::unwrap_used, reason = "a test that can't go on must stop")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "it times what the shards do")]

#[path = "../benches/anti_entropy/course.rs"]
mod course;
#[path = "../benches/anti_entropy/pair.rs"]
mod pair;

/// Two in 20,000 are the same share as 100 in a million.
#[test]
fn a_few_differences_among_many_keys_cost_little() {
    for differing in [2, 20] {
        let figures = course::measure(20_000, differing);
        println!("{figures}");
        assert_eq!(figures.faults(), Vec::<String>::new(), "{figures}");
        assert!(figures.repair.states >= differing, "{figures}");
        assert!(figures.repair.bytes < 20_000 * 100 / 20, "far less than all that there is: {figures}");
        assert!(figures.until_equal.as_secs() < 30 && figures.idle.bytes > 0, "{figures}");
        // Generous, as tests share their cores; the bench judges by 1%.
        assert!(figures.idle_share < 0.05, "{figures}");
    }
}
