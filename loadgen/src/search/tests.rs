//! Searches of servers whose limit is known.

use super::*;

const PLAN: Plan = Plan { from: 1000.0, precision: 0.05, confirm: 3 };

/// Runs a search to its end, and returns the answer with the rates tried. Sums are as their runs were.
fn search(plan: Plan, seed: u64, run: impl FnMut(f64) -> Outcome) -> (Answer, Vec<f64>) {
    search_with_sums(plan, seed, run, |_| true)
}

fn search_with_sums(
    plan: Plan,
    seed: u64,
    mut run: impl FnMut(f64) -> Outcome,
    mut sum: impl FnMut(f64) -> bool,
) -> (Answer, Vec<f64>) {
    let mut search = Search::new(plan, seed);
    let mut tried = Vec::new();
    loop {
        assert!(tried.len() < 1000, "it must end");
        match search.next() {
            Step::End(answer) => return (answer, tried),
            Step::Run(rate) | Step::Confirm(rate, _) => {
                tried.push(rate);
                search.observe(run(rate));
            }
            Step::Sum(rate) => search.observe_sum(sum(rate)),
        }
    }
}

fn up_to(limit: f64) -> impl FnMut(f64) -> Outcome {
    move |rate| if rate <= limit { Outcome::Met } else { Outcome::Missed }
}

#[test]
fn a_sharp_limit_is_found_from_wherever_one_begins() {
    for limit in [2.0, 7.3, 999.0, 12_345.0, 180_000.0, 9_000_000.0] {
        for from in [1.0, 1000.0, 5_000_000.0] {
            let (answer, tried) = search(Plan { from, ..PLAN }, 1, up_to(limit));
            let Answer::Highest { rate, beyond, beyond_met: 0, confirm: 3 } = answer else {
                panic!("{answer:?}")
            };
            assert!(rate <= limit && limit < beyond, "{limit} from {from}: {answer:?}");
            assert!(beyond <= (rate * 1.06).max(rate + 0.02), "{limit} from {from}: {answer:?}");
            assert!(tried.len() < 45, "{limit} from {from}: {} runs", tried.len());
        }
    }
}

#[test]
fn confirming_runs_are_shuffled_by_the_seed() {
    let last =
        |seed| search(PLAN, seed, up_to(12_345.0)).1.iter().rev().take(6).copied().collect::<Vec<f64>>();
    assert_eq!(last(1), last(1));
    let orders: Vec<Vec<f64>> = (0..20).map(last).collect();
    assert!(orders.iter().any(|order| *order != orders[0]));
    let mut sorted = orders[0].clone();
    sorted.sort_by(f64::total_cmp);
    assert!(
        sorted[0] == sorted[2] && sorted[3] == sorted[5] && sorted[0] < sorted[3],
        "three of each: {sorted:?}"
    );
}

/// One lucky run at a rate that is too high leads the halving astray; the confirmation brings it back.
#[test]
fn a_lucky_run_does_not_stand() {
    let mut runs = 0;
    let (answer, _) = search(PLAN, 1, |rate| {
        runs += 1;
        if rate <= 10_000.0 || (runs <= 8 && rate < 13_000.0) { Outcome::Met } else { Outcome::Missed }
    });
    let Answer::Highest { rate, .. } = answer else { panic!("{answer:?}") };
    assert!((9_000.0..=10_000.0).contains(&rate), "{answer:?}");
}

/// And an unlucky one doesn't hide what the servers can do.
#[test]
fn an_unlucky_run_does_not_stand() {
    let mut missed = false;
    let (answer, _) = search(PLAN, 1, |rate| {
        let unlucky = rate > 4000.0 && !missed;
        missed |= unlucky;
        if rate <= 4500.0 && !unlucky { Outcome::Met } else { Outcome::Missed }
    });
    let Answer::Highest { rate, .. } = answer else { panic!("{answer:?}") };
    assert!((4000.0..=4500.0).contains(&rate), "{answer:?}");
}

#[test]
fn a_generator_at_its_end_gives_a_lower_bound() {
    let limited = |rate: f64| if rate <= 50_000.0 { Outcome::Met } else { Outcome::NotOffered };
    let (answer, _) = search(PLAN, 1, limited);
    let Answer::AtLeast { rate, not_offered: Some(beyond) } = answer else { panic!("{answer:?}") };
    assert!(rate <= 50_000.0 && beyond > 50_000.0 && beyond < 53_000.0, "{answer:?}");
    let (answer, _) = search(PLAN, 1, |_| Outcome::Met);
    assert_eq!(answer, Answer::AtLeast { rate: RATE_MAX, not_offered: None });
}

#[test]
fn nothing_meets_an_impossible_objective() {
    let (answer, tried) = search(PLAN, 1, |_| Outcome::Missed);
    assert_eq!((answer, tried.len()), (Answer::None { lowest: 1.0 }, 11));
}

/// A generator that gets nowhere has seen nothing of the servers, so they are not to blame.
#[test]
fn a_generator_that_offers_nothing_blames_nobody() {
    let (answer, tried) = search(PLAN, 1, |_| Outcome::NotOffered);
    assert_eq!((answer, tried.len()), (Answer::NotOffered { lowest: 1.0 }, 11));
    // What was offered was missed, at 15.6/s and above; below, nothing is known.
    let (answer, _) = search(PLAN, 1, |rate| if rate > 10.0 { Outcome::Missed } else { Outcome::NotOffered });
    assert!(matches!(answer, Answer::None { lowest } if (10.0..20.0).contains(&lowest)), "{answer:?}");
}

/// One run at the limit that could not be offered, where all others were and missed: the limit is the servers'.
#[test]
fn a_generator_that_slipped_once_hides_no_limit() {
    for slips_while_confirming in [false, true] {
        let (mut slipped, mut tried) = (false, 0);
        let (answer, _) = search(PLAN, 1, |rate| {
            tried += 1;
            let is_missed = rate > 12_345.0;
            // Narrowing from 1000 takes five steps up and four between.
            if is_missed && !slipped && (tried > 9) == slips_while_confirming {
                slipped = slips_while_confirming || rate < 13_000.0;
                return if slipped { Outcome::NotOffered } else { Outcome::Missed };
            }
            if is_missed { Outcome::Missed } else { Outcome::Met }
        });
        assert!(slipped, "{answer:?}");
        let Answer::Highest { rate, beyond, beyond_met: 0, .. } = answer else { panic!("{answer:?}") };
        assert!(rate <= 12_345.0 && beyond > 12_345.0, "{answer:?}");
    }
}

/// Between one and two a second there are rates too: the least is tried before nothing is said to be met.
#[test]
fn the_least_rate_is_tried_before_nothing_is_met() {
    let mut runs = 0;
    let (answer, tried) = search(Plan { from: 1.5, ..PLAN }, 1, |rate| {
        runs += 1;
        if rate < 1.5 || runs == 1 { Outcome::Met } else { Outcome::Missed }
    });
    assert!(tried.contains(&1.0), "{tried:?}");
    assert!(matches!(answer, Answer::Highest { rate, .. } if rate < 1.5), "{answer:?}");
}

#[test]
fn what_changes_all_the_time_is_told() {
    let mut prng = Prng::from_seed(3);
    let ends = (0..50).map(|seed| {
        let chance = |_| if prng.chance(0.5) { Outcome::Met } else { Outcome::Missed };
        search(PLAN, seed, chance).0
    });
    assert!(ends.filter(|answer| matches!(answer, Answer::Unsettled { .. })).count() > 5);
}

/// Every run passed, some by luck: all of them together say whether the rate does.
#[test]
fn runs_that_pass_one_by_one_must_pass_together() {
    let (answer, _) = search_with_sums(PLAN, 1, up_to(10_000.0), |rate| rate <= 8000.0);
    let Answer::Highest { rate, beyond, beyond_met: 3, .. } = answer else { panic!("{answer:?}") };
    assert!((7000.0..=8000.0).contains(&rate) && beyond > 8000.0, "{answer:?}");
}

/// A broken cluster is no slow one: at half the rate it would pass, and its broken promise be forgotten.
#[test]
fn a_broken_cluster_ends_the_search() {
    for broken_at in [1000.0, 4000.0] {
        let (answer, tried) =
            search(PLAN, 1, |rate| if rate < broken_at { Outcome::Met } else { Outcome::Broken });
        assert_eq!((answer, tried.last()), (Answer::Broken { rate: broken_at }, Some(&broken_at)));
    }
    let mut runs = 0;
    let (answer, tried) = search(PLAN, 1, |rate| {
        runs += 1;
        match rate {
            _ if runs > 9 => Outcome::Broken,
            ..=1500.0 => Outcome::Met,
            _ => Outcome::Missed,
        }
    });
    assert!(matches!(answer, Answer::Broken { .. }) && tried.len() == 10, "while confirming: {answer:?}");
}

/// Runs of ten seconds that need 50,000 operations: nothing below 5,000/s can be judged.
#[test]
fn too_few_operations_lead_up_and_not_down() {
    let judged_from = |least: f64, limit: f64| {
        move |rate: f64| match rate {
            rate if rate > limit => Outcome::Missed,
            rate if rate < least => Outcome::TooFew,
            _ => Outcome::Met,
        }
    };
    let (answer, _) = search(PLAN, 1, judged_from(5000.0, 20_000.0));
    let Answer::Highest { rate, .. } = answer else { panic!("{answer:?}") };
    assert!((19_000.0..=20_000.0).contains(&rate), "{answer:?}");
    for from in [1000.0, 100_000.0] {
        let (answer, tried) = search(Plan { from, ..PLAN }, 1, judged_from(5000.0, 3000.0));
        let Answer::TooFew { rate, missed: Some(missed) } = answer else { panic!("{answer:?}") };
        assert!(rate <= 3000.0 && missed > 3000.0 && missed < rate * 1.06, "{answer:?}");
        assert!(tried.iter().all(|&rate| rate >= 1000.0), "{tried:?}");
    }
    let (answer, _) = search(PLAN, 1, |_| Outcome::TooFew);
    assert_eq!(answer, Answer::TooFew { rate: RATE_MAX, missed: None });
}

/// If the lower end could not be offered after all, the answer is no limit of the servers.
#[test]
fn a_generator_that_tires_while_confirming_gives_a_lower_bound() {
    let mut runs = 0;
    let (answer, _) = search(PLAN, 1, |rate| {
        runs += 1;
        match rate {
            ..=4000.0 => Outcome::Met,
            ..=5000.0 if runs < 9 => Outcome::Met,
            ..=5000.0 => Outcome::NotOffered,
            _ => Outcome::Missed,
        }
    });
    assert!(matches!(answer, Answer::AtLeast { not_offered: Some(_), .. }), "{answer:?}");
}
