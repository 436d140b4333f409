//! Synthetic runs, with seeds: latencies that wander from second to second, bursts, and stalls. Runs of one kind must
//! rarely be told apart, and planted differences must be found.

use hdrhistogram::Histogram;
use ringmain::prng::Prng;

use crate::tally::{Percentile, latency_histogram};

use super::jackknife::{Blocks, Sample, Tail, estimate};
use super::*;

/// How a synthetic run wanders. Levels are logarithms.
#[derive(Clone, Copy)]
struct Kind {
    /// How much of a second's level is still there in the next, 0 to 1.
    memory: f64,
    /// The deviation of the level from second to second.
    wandering: f64,
    /// The chance that a second has a stall that makes a tenth of its operations ten times as slow.
    stalls: f64,
}

const PERCENTILES: [Percentile; 4] = [Percentile::P50, Percentile::P90, Percentile::P99, Percentile::P999];
const OPERATIONS_A_SECOND: u64 = 500;
const CALM: Kind = Kind { memory: 0.0, wandering: 0.02, stalls: 0.0 };
const WANDERING: Kind = Kind { memory: 0.7, wandering: 0.02, stalls: 0.0 };
const STALLING: Kind = Kind { memory: 0.5, wandering: 0.03, stalls: 0.05 };
const KINDS: [(&str, Kind); 3] = [("calm", CALM), ("wandering", WANDERING), ("stalling", STALLING)];

fn normal(prng: &mut Prng) -> f64 {
    let radius = (-2.0 * (1.0 - prng.unit()).ln()).sqrt();
    radius * (std::f64::consts::TAU * prng.unit()).cos()
}

/// A run of so many seconds whose median is about a millisecond, `slower` times as slow.
fn run(kind: Kind, seconds: usize, slower: f64, seed: u64) -> Vec<Sample> {
    let mut prng = Prng::from_seed(seed);
    let mut level = kind.wandering * normal(&mut prng);
    let fresh = kind.wandering * (1.0 - kind.memory * kind.memory).sqrt();
    (0..seconds)
        .map(|_| {
            level = kind.memory * level + fresh * normal(&mut prng);
            let stalls = prng.chance(kind.stalls);
            second(level + slower.ln(), stalls, &mut prng)
        })
        .collect()
}

fn second(level: f64, stalls: bool, prng: &mut Prng) -> Sample {
    let mut due: Histogram<u64> = latency_histogram();
    for _ in 0..OPERATIONS_A_SECOND {
        let stall = if stalls && prng.chance(0.1) { 10.0 } else { 1.0 };
        let latency_ns = 1e6 * (level + 0.3 * normal(prng)).exp() * stall;
        due.saturating_record(latency_ns as u64);
    }
    Sample { due, errors: 0 }
}

/// Whether a run alone says how a percentile of it varies.
fn has(blocks: &Blocks, percentile: Percentile) -> bool {
    blocks.tail(percentile).is_some_and(|tail| Tail::are_spread(&[tail]))
}

/// Which percentiles differ, all together with 99% confidence, of those that enough is known of.
fn differing(left: &[Sample], right: &[Sample]) -> Vec<Percentile> {
    let blocks = [left, right].map(|run| Blocks::cut(run.to_vec()).expect("enough intervals"));
    let known = |percentile: Percentile| blocks.iter().all(|blocks| has(blocks, percentile));
    let [left, right] = blocks.each_ref().map(|blocks| blocks.percentiles(&PERCENTILES));
    let confidence = 1.0 - 0.01 / PERCENTILES.len() as f64;
    let pairs = PERCENTILES.into_iter().zip(left.into_iter().zip(right));
    pairs
        .filter(|(percentile, (left, right))| {
            let (left, right) = (left.expect("no failures"), right.expect("no failures"));
            known(*percentile) && Estimate::difference(&[left], &[right], confidence).is_real()
        })
        .map(|(percentile, _)| percentile)
        .collect()
}

/// A few whole runs, by the same path as those of servers; [`the_promise_holds_in_many_tries`] has the share.
#[test]
fn a_build_and_itself_do_not_differ() {
    for (name, kind) in KINDS {
        let wrong = (0..40)
            .filter(|&attempt| {
                let [left, right] = [0, 1].map(|side| run(kind, 60, 1.0, 1000 + attempt * 2 + side));
                !differing(&left, &right).is_empty()
            })
            .count();
        assert!(wrong <= 1, "{name}: {wrong} of 40 tries found a difference that isn't there");
    }
}

/// In what share of many tries any of four figures of runs of a minute differs, though nothing does. A figure is the mean of a
/// level that wanders from second to second, so that a block's is the mean over its seconds, and a try costs nothing.
fn told_apart(memory: f64) -> f64 {
    const TRIES: usize = 4000;
    const SECONDS: usize = 60;
    const BLOCK: usize = 5;
    const FIGURES: usize = 4;
    let mut prng = Prng::from_seed(41);
    let mut figure = || {
        let mut level = normal(&mut prng);
        let levels: Vec<f64> = (0..SECONDS)
            .map(|_| {
                level = memory * level + (1.0 - memory * memory).sqrt() * normal(&mut prng);
                level
            })
            .collect();
        let sum: f64 = levels.iter().sum();
        let without = |block: &[f64]| (sum - block.iter().sum::<f64>()) / (SECONDS - BLOCK) as f64;
        estimate(sum / SECONDS as f64, &levels.chunks(BLOCK).map(without).collect::<Vec<f64>>())
    };
    let confidence = 1.0 - 0.01 / FIGURES as f64;
    let mut differs = || Estimate::difference(&[figure()], &[figure()], confidence).is_real();
    let wrong = (0..TRIES).filter(|_| (0..FIGURES).any(|_| differs())).count();
    wrong as f64 / TRIES as f64
}

/// 0.4% where seconds know nothing of each other, 1.1% and 1.9% where half of a level or seven tenths of it are still there a second
/// later. What lasts for as long as the run is told apart in a fifth of all tries, and nothing that is seen in it could say so.
#[test]
fn the_promise_holds_in_many_tries() {
    let memories = [0.0, 0.5, 0.7, 0.98];
    let wrong = memories.map(told_apart);
    let [none, short, longer, endless] = wrong;
    assert!(none <= 0.01 && short <= 0.015 && longer <= 0.025 && endless > 0.02, "{memories:?}: {wrong:?}");
}

#[test]
fn a_slowdown_of_five_percent_is_found() {
    for (name, kind) in [("calm", CALM), ("wandering", WANDERING)] {
        let found = (0..20)
            .filter(|&attempt| {
                let left = run(kind, 120, 1.0, 5000 + attempt * 2);
                let right = run(kind, 120, 1.05, 5001 + attempt * 2);
                differing(&left, &right).contains(&Percentile::P50)
            })
            .count();
        assert!(found >= 19, "{name}: found in {found} of 20 tries");
    }
}

/// Only the slowest operations are slower: the median must not be blamed.
#[test]
fn a_slower_tail_is_found_in_the_tail() {
    let slower_tail = |seed| {
        let mut prng = Prng::from_seed(seed);
        let mut samples = run(CALM, 60, 1.0, seed);
        for sample in &mut samples {
            (0..OPERATIONS_A_SECOND / 50).for_each(|_| {
                sample.due.saturating_record((5e6 * (0.1 * normal(&mut prng)).exp()) as u64);
            });
        }
        samples
    };
    let differing = differing(&run(CALM, 60, 1.0, 1), &slower_tail(2));
    assert!(differing.contains(&Percentile::P99) && !differing.contains(&Percentile::P50), "{differing:?}");
}

/// What would happen without blocks and without the correction for what lasts: the same wandering runs, each second taken to
/// be independent of the others, differ again and again. So the test above can fail.
#[test]
fn taking_seconds_for_independent_would_be_wrong() {
    let strong = Kind { memory: 0.95, wandering: 0.05, stalls: 0.0 };
    let naive = |samples: &[Sample]| {
        let levels: Vec<f64> = samples.iter().map(|sample| sample.due.mean().ln()).collect();
        let count = levels.len() as f64;
        let mean = levels.iter().sum::<f64>() / count;
        let squares: f64 = levels.iter().map(|level| (level - mean).powi(2)).sum();
        Estimate { value: mean, variance: squares / (count - 1.0) / count, freedom: count - 1.0 }
    };
    let (mut naive_wrong, mut wrong) = (0, 0);
    for attempt in 0..20 {
        let [left, right] = [0, 1].map(|side| run(strong, 60, 1.0, 9000 + attempt * 2 + side));
        naive_wrong += usize::from(Estimate::difference(&[naive(&left)], &[naive(&right)], 0.9975).is_real());
        wrong += usize::from(!differing(&left, &right).is_empty());
    }
    assert!(naive_wrong >= 6 && wrong <= 3, "{naive_wrong} and {wrong} of 20");
}

#[test]
fn failures_are_slower_than_all_and_few_operations_show_nothing() {
    let mut samples = run(CALM, 20, 1.0, 3);
    assert!(Blocks::cut(samples[..7].to_vec()).is_none());
    let blocks = Blocks::cut(samples.clone()).expect("enough intervals");
    // Of 10,000 operations, a hundred lie beyond the p99, and one beyond the p99.99.
    let p9999 = Percentile::from_billionths(999_900_000).expect("a percentile");
    assert!(has(&blocks, Percentile::P99) && !has(&blocks, p9999));
    assert_eq!(blocks.error_share(), Estimate { value: 0.0, variance: 0.0, freedom: 7.0 });
    samples.iter_mut().for_each(|sample| sample.errors = 10);
    let blocks = Blocks::cut(samples.clone()).expect("enough intervals");
    assert!(has(&blocks, Percentile::P50) && !has(&blocks, Percentile::P99));
    assert_eq!(blocks.percentiles(&[Percentile::P99]), [None]);
    let share = blocks.error_share();
    assert!((share.value - 10.0 / 510.0).abs() < 1e-12 && share.variance < 1e-20, "{share:?}");
}

/// Of a hundred operations beyond the p99.9, all in three stalls, nothing is known but that there were three.
#[test]
fn a_percentile_within_a_few_stalls_is_not_compared() {
    let mut stalled = run(CALM, 60, 1.0, 21);
    for second in [7, 30, 44] {
        (50..100).for_each(|latency_ms| stalled[second].due.saturating_record(latency_ms * 1_000_000));
    }
    let cut = |samples| Blocks::cut(samples).expect("enough intervals");
    let (calm, stalled) = (cut(run(CALM, 60, 1.0, 22)), cut(stalled));
    assert!(has(&calm, Percentile::P999));
    assert!(has(&stalled, Percentile::P90) && !has(&stalled, Percentile::P999));
    // Three such runs have nine.
    let tail = stalled.tail(Percentile::P999).expect("no failures");
    assert!(Tail::are_spread(&[tail; 3]) && !Tail::are_spread(&[tail; 2]));
}

/// One stall in one of the runs is no difference between them, however long.
#[test]
fn a_single_stall_is_no_difference() {
    let mut stalled = run(CALM, 60, 1.0, 11);
    (0..200).for_each(|_| stalled[30].due.saturating_record(900_000_000));
    assert_eq!(differing(&run(CALM, 60, 1.0, 12), &stalled), []);
}

/// Runs differ from start to start by more than they vary in themselves: three of each show it.
#[test]
fn the_spread_between_runs_counts_where_there_are_some() {
    let of_runs = |slower: [f64; 3], seed: u64| {
        [0, 1, 2].map(|place| {
            let samples = run(CALM, 60, slower[place], seed + place as u64);
            let blocks = Blocks::cut(samples).expect("enough intervals");
            blocks.percentiles(&[Percentile::P50])[0].expect("no failures")
        })
    };
    let left = of_runs([1.0, 1.08, 0.95], 100);
    let right = of_runs([1.06, 0.97, 1.05], 200);
    assert!(Estimate::difference(&left[..1], &right[..1], 0.99).is_real(), "one run of each doesn't know");
    assert!(!Estimate::difference(&left, &right, 0.99).is_real());
    let slower = of_runs([1.2, 1.21, 1.19], 300);
    let difference = Estimate::difference(&left, &slower, 0.95);
    assert!(difference.is_real() && (0.12..0.25).contains(&difference.value), "{difference:?}");
    assert!(!Estimate::difference(&left, &slower, 0.999).is_real(), "it has four degrees of freedom");
}

/// So many runs, whose figures differ by a deviation from start to start, and vary little in themselves.
fn starts(count: usize, deviation: f64, slower: f64, prng: &mut Prng) -> Vec<Estimate> {
    let variance = (0.1 * deviation).powi(2);
    let mut start = || Estimate { value: slower.ln() + deviation * normal(prng), variance, freedom: 10.0 };
    (0..count).map(|_| start()).collect()
}

/// In what share of many comparisons of such runs a difference is found, with the confidence of one of six figures.
fn found(count: usize, deviation: f64, slower: f64) -> f64 {
    const TRIES: usize = 2000;
    let mut prng = Prng::from_seed(77);
    let found = (0..TRIES).filter(|_| {
        let left = starts(count, deviation, 1.0, &mut prng);
        let right = starts(count, deviation, slower, &mut prng);
        Estimate::difference(&left, &right, 1.0 - 0.01 / 6.0).is_real()
    });
    found.count() as f64 / TRIES as f64
}

/// With the spread of each side for itself, three of each found 5% in half of all tries.
#[test]
fn few_runs_find_what_they_can() {
    for (count, deviation, least) in [(3, 0.005, 0.85), (5, 0.01, 0.9), (5, 0.005, 0.99)] {
        let found = found(count, deviation, 1.05);
        assert!(found >= least, "{count} of each, {deviation}: found in {found} of all tries");
    }
    for count in [2, 3, 5] {
        let wrong = found(count, 0.01, 1.0);
        assert!(wrong <= 0.005, "{count} of each: {wrong} of all tries found a difference that isn't there");
    }
}

/// In what share of many comparisons a difference is found that isn't there, of so many runs that differ by a deviation of
/// their own on each side.
fn wrong(counts: [usize; 2], deviations: [f64; 2]) -> f64 {
    const TRIES: usize = 4000;
    let mut prng = Prng::from_seed(78);
    let wrong = (0..TRIES).filter(|_| {
        let [left, right] = [0, 1].map(|side| starts(counts[side], deviations[side], 1.0, &mut prng));
        Estimate::difference(&left, &right, 1.0 - 0.01 / 6.0).is_real()
    });
    wrong.count() as f64 / TRIES as f64
}

/// As many runs on both sides bear it that one side's vary more; with other counts, a spread of both together would be that of
/// the steadier runs, of which there are more, and find what isn't there in a tenth of all tries.
#[test]
fn unequal_spreads_are_borne() {
    for (counts, most) in [([5, 5], 0.02), ([3, 3], 0.03), ([5, 15], 0.005), ([3, 9], 0.005)] {
        let wrong = wrong(counts, [0.03, 0.001]);
        assert!(wrong <= most, "{counts:?}: {wrong} of all tries found a difference that isn't there");
    }
    let alike = wrong([5, 9], [0.01, 0.01]);
    assert!(alike <= 0.005, "{alike}");
}

/// What is said to be detectable is found in four of five tries; what is as large as the margin only in half.
#[test]
fn what_is_detectable_is_mostly_found() {
    let mut prng = Prng::from_seed(5);
    let detectable = (0..400).map(|_| {
        let [left, right] = [(); 2].map(|()| starts(5, 0.01, 1.0, &mut prng));
        Estimate::difference(&left, &right, 1.0 - 0.01 / 6.0).detectable
    });
    let detectable = detectable.sum::<f64>() / 400.0;
    let found = found(5, 0.01, detectable.exp());
    assert!((0.72..0.9).contains(&found), "{detectable} is found in {found} of all tries");
}

/// One run of each side takes what differs from start to start for a difference: that is why several are advised.
#[test]
fn one_run_of_each_side_does_not_know_the_spread() {
    let wrong = |deviation: f64| {
        let mut prng = Prng::from_seed(9);
        let wrong = (0..1000).filter(|_| {
            let [left, right] = [(); 2].map(|()| Estimate {
                value: deviation * normal(&mut prng),
                variance: 0.003f64.powi(2),
                freedom: 10.0,
            });
            Estimate::difference(&[left], &[right], 0.99).is_real()
        });
        wrong.count()
    };
    assert!(wrong(0.0) == 0 && wrong(0.02) > 300, "{} and {}", wrong(0.0), wrong(0.02));
}
