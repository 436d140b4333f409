//! The law against a shard that is simulated itself: a queue that serves clients and background work alike.

use super::*;

const MS: Duration = Duration::from_millis(1);
const FLOOR: f64 = (1u64 << 20) as f64;
/// What the simulated shard can do in a second, in bytes' worth of background work.
const CAPACITY: f64 = 200.0 * FLOOR;
/// A step of background work, its one key included.
const STEP: f64 = (STEP_BYTES + 1024) as f64;
const STEP_BYTES: usize = 19 << 10;

/// A shard in virtual time, a millisecond at a time.
struct Model {
    pace: Pace,
    now: Instant,
    /// Work that waits: seconds.
    queue: f64,
    /// A request takes so long if nothing waits: seconds.
    base: f64,
    /// Of the shard's time, what clients take.
    load: f64,
    /// Who has work that never ends.
    wants: Vec<Claimant>,
    done: [f64; Claimant::ALL.len()],
    /// Of all requests, in milliseconds.
    latencies: Vec<f64>,
}

impl Model {
    fn new(load: f64, wants: &[Claimant]) -> Self {
        Self {
            pace: Pace::new(PaceOptions::default()),
            now: Instant(0) + Duration::from_secs(100),
            queue: 0.0,
            base: 300e-6,
            load,
            wants: wants.to_vec(),
            done: [0.0; Claimant::ALL.len()],
            latencies: Vec::new(),
        }
    }

    /// What all have done, and how long clients waited meanwhile.
    fn run(&mut self, span: Duration) -> (f64, Vec<f64>) {
        self.latencies.clear();
        let before: f64 = self.done.iter().sum();
        let end = self.now + span;
        while self.now < end {
            self.millisecond();
        }
        let done = (self.done.iter().sum::<f64>() - before) / seconds(span);
        self.latencies.sort_by(f64::total_cmp);
        (done, self.latencies.clone())
    }

    fn millisecond(&mut self) {
        self.now = self.now + MS;
        self.pace.on_turn(self.now);
        self.queue = (self.queue - 1e-3).max(0.0);
        if self.load > 0.0 {
            // No request waits longer than its deadline.
            let took = (self.base + self.queue).min(1.0);
            self.queue = (self.queue + self.load * 1e-3).min(1.0);
            self.latencies.push(took * 1e3);
            let begun = Instant(self.now.0 - (took * 1e9) as u64);
            (0..4).for_each(|_| self.pace.on_answered(begun));
        }
        for claimant in self.wants.clone() {
            // It takes no more than a few steps in a turn: it waits for answers.
            for _ in 0..20 {
                if self.queue > 0.5 || !self.pace.may_spend(claimant, self.now) {
                    break;
                }
                self.pace.spent(claimant, STEP_BYTES, 1);
                self.done[claimant as usize] += STEP;
                self.queue += STEP / CAPACITY;
            }
        }
    }
}

fn percentile(latencies: &[f64], share: f64) -> f64 {
    latencies[((latencies.len() - 1) as f64 * share) as usize]
}

#[test]
fn an_idle_shard_goes_as_fast_as_it_can() {
    let mut model = Model::new(0.0, &[Claimant::Streaming]);
    model.run(Duration::from_secs(1));
    let (done, _) = model.run(Duration::from_secs(1));
    assert!(done > 0.9 * CAPACITY, "{done} of {CAPACITY}");
    assert_eq!(model.pace.reading().halvings, [0, 0]);
}

#[test]
fn clients_who_come_are_felt_at_once_and_what_they_leave_is_used() {
    let mut model = Model::new(0.4, &[]);
    model.run(Duration::from_secs(5));
    model.load = 0.0;
    model.wants = vec![Claimant::Streaming];
    model.run(Duration::from_secs(3));
    model.load = 0.4;
    model.run(MS);
    model.run(Duration::from_millis(1500));
    let (done, latencies) = model.run(Duration::from_secs(20));
    let slow = latencies.iter().filter(|&&latency| latency > 3.0).count() as f64 / latencies.len() as f64;
    assert!(done > 0.3 * CAPACITY, "of six tenths at least three are used: {}", done / CAPACITY);
    assert!(percentile(&latencies, 0.5) < 0.9, "{}", percentile(&latencies, 0.5));
    assert!(slow < 0.05, "{slow} of all requests took ten times the usual");
}

#[test]
fn under_overload_the_floor_is_left_and_not_much_more() {
    let mut model = Model::new(0.5, &[]);
    model.run(Duration::from_secs(5));
    model.load = 1.5;
    model.wants = vec![Claimant::AntiEntropy];
    model.run(Duration::from_secs(1));
    // The queue of this shard has no room for more than what it was told to take at least.
    model.queue = 0.0;
    let mut done = 0.0;
    for _ in 0..10_000 {
        model.queue = 0.45;
        done -= model.done[3];
        model.millisecond();
        done += model.done[3];
    }
    let rate = done / 10.0;
    assert!(rate > 0.9 * FLOOR, "{rate}");
    assert!(rate < 3.0 * FLOOR, "{rate}");
    assert!(model.pace.is_held_back() && model.pace.reading().held_back_by == Some(Cause::Latency));
}

#[test]
fn after_a_pause_nobody_spends_more_than_a_purse_and_one_step() {
    let mut model = Model::new(0.3, &[Claimant::Streaming]);
    model.run(Duration::from_secs(10));
    let before = model.pace.reading().rate as f64;
    let begun = model.now;
    model.now = model.now + Duration::from_secs(60);
    model.pace.on_turn(model.now);
    let after = model.pace.reading().rate as f64;
    assert!(after <= 1.1 * before, "a minute's pause is one interval: {after} after {before}");
    model.pace.on_waited(Duration::from_secs(60));
    (0..200).for_each(|_| model.pace.on_answered(begun));
    let mut spent = 0.0;
    while model.pace.may_spend(Claimant::Streaming, model.now) {
        model.pace.spent(Claimant::Streaming, STEP_BYTES, 1);
        spent += STEP;
    }
    let purse = 1.1 * before * seconds(bucket::PURSE);
    assert!(spent <= purse + STEP, "{spent} beyond {purse}");
    let (done, latencies) = model.run(Duration::from_secs(10));
    assert!(done > 0.2 * CAPACITY, "it is back: {}", done / CAPACITY);
    assert!(percentile(&latencies, 0.95) < 3.0, "{}", percentile(&latencies, 0.95));
    assert!(
        model.pace.reading().latency[1] < Duration::from_millis(2),
        "what is usual was not taken from the pause"
    );
}

/// A step of 64 MiB at a great rate was a minute's debt when the rate was cut, and its claimant slept through all of it.
#[test]
fn a_debt_is_worth_no_more_time_when_the_rate_is_cut() {
    let mut bucket = bucket::Bucket::default();
    let mut now = Instant(0) + Duration::from_secs(100);
    assert!(bucket.may_spend(Claimant::Streaming, now, 64.0 * FLOOR));
    bucket.spent(Claimant::Streaming, 64 << 20, 0, 64.0 * FLOOR);
    let paid = now + Duration::from_secs(3);
    while !bucket.may_spend(Claimant::Streaming, now, FLOOR) {
        assert!(now < paid, "it owes for longer than its debt may last");
        now = now + MS;
    }
}

#[test]
fn who_waits_asks_in_each_interval() {
    let mut model = Model::new(0.0, &[Claimant::AntiEntropy]);
    model.run(Duration::from_secs(1));
    model.pace.spent(Claimant::AntiEntropy, 1 << 30, 0);
    let ready = model.pace.ready_at(Claimant::AntiEntropy, model.now);
    assert!(ready > model.now && ready.since(model.now) <= INTERVAL);
}

#[test]
fn a_clock_that_goes_back_is_not_believed() {
    let mut model = Model::new(0.3, &[Claimant::Streaming]);
    model.run(Duration::from_secs(2));
    assert!(model.pace.ready_at(Claimant::Streaming, model.now) >= model.now);
    let early = Instant(5);
    model.pace.on_turn(early);
    model.pace.may_spend(Claimant::Streaming, early);
    model.run(Duration::from_secs(1));
}

#[test]
fn rest_saves_nothing_up() {
    let mut model = Model::new(0.0, &[Claimant::Handoff]);
    model.run(Duration::from_secs(2));
    let purse = model.pace.reading().rate as f64 * seconds(bucket::PURSE);
    model.now = model.now + Duration::from_secs(3600);
    let mut spent = 0.0;
    for claimant in Claimant::ALL {
        while model.pace.may_spend(claimant, model.now) {
            model.pace.spent(claimant, STEP_BYTES, 1);
            spent += STEP;
        }
    }
    assert!(spent <= 4.0 * (purse + STEP), "{spent} beyond four purses of {purse}");
}

#[test]
fn a_load_that_is_heavier_for_good_becomes_usual() {
    let mut model = Model::new(0.3, &[]);
    model.run(Duration::from_secs(10));
    model.wants = vec![Claimant::Streaming];
    model.base = 5e-3;
    let (held_back, _) = model.run(Duration::from_secs(5));
    assert!(held_back < 8.0 * FLOOR, "five milliseconds are not usual yet: {}", held_back / FLOOR);
    model.run(Duration::from_secs(40));
    let (done, _) = model.run(Duration::from_secs(10));
    assert!(done > 20.0 * FLOOR, "{}", done / FLOOR);
}

/// A burst of slow requests while nothing is streamed costs the budget nothing.
#[test]
fn who_spends_nothing_is_not_to_blame() {
    let mut model = Model::new(0.3, &[]);
    model.run(Duration::from_secs(5));
    let before = model.pace.reading().rate;
    model.base = 50e-3;
    model.run(Duration::from_secs(1));
    assert_eq!(model.pace.reading().rate, before);
    assert!(!model.pace.is_held_back());
}

#[test]
fn claimants_share_by_weight_and_alone_have_all() {
    let mut model = Model::new(0.0, &Claimant::ALL);
    model.pace = Pace::new(PaceOptions { latency: None, bytes_min: 1 << 20 });
    // The budget stands still, as long as it is cut in each interval.
    for _ in 0..20_000 {
        model.pace.law.slow_down(model.now, 0.0);
        model.millisecond();
    }
    let all: f64 = model.done.iter().sum();
    let weights: u32 = Claimant::ALL.iter().map(|claimant| claimant.weight()).sum();
    for claimant in Claimant::ALL {
        let share = model.done[claimant as usize] / all;
        let due = f64::from(claimant.weight()) / f64::from(weights);
        assert!((share - due).abs() < 0.03, "{claimant:?} has {share}, and {due} is due");
    }
    assert!((all / 20.0 / FLOOR - 1.0).abs() < 0.1, "{}", all / 20.0 / FLOOR);

    model.wants = vec![Claimant::AntiEntropy];
    let before = model.done[3];
    for _ in 0..10_000 {
        model.pace.law.slow_down(model.now, 0.0);
        model.millisecond();
    }
    assert!(model.done[3] - before > 9.0 * FLOOR, "the last in rank, and alone");
}

#[test]
fn an_objective_stands_for_what_is_usual() {
    let objective = Some(Duration::from_millis(20));
    let mut model = Model::new(0.3, &[Claimant::Streaming]);
    model.pace = Pace::new(PaceOptions { latency: objective, ..PaceOptions::default() });
    model.run(Duration::from_secs(5));
    let (_, latencies) = model.run(Duration::from_secs(20));
    let p90 = percentile(&latencies, 0.9);
    assert!(p90 > 1.0, "what the objective allows is used: {p90}");
    assert!(percentile(&latencies, 0.5) < 20.0, "and no more: {}", percentile(&latencies, 0.5));
}

/// A newcomer takes writes and coordinates nothing: it never learns a latency, and must not wait for one.
#[test]
fn who_coordinates_nothing_goes_by_its_waits() {
    let mut model = Model::new(0.0, &[Claimant::Streaming]);
    for _ in 0..3000 {
        model.pace.on_foreground();
        model.pace.on_waited(Duration::from_micros(100));
        model.millisecond();
    }
    let (done, _) = model.run(MS);
    assert!(done > 0.5 * CAPACITY, "{}", done / CAPACITY);
}

/// A target that is away for hours claims its share, has a full purse, and takes nothing from others.
#[test]
fn a_full_purse_holds_nobody_up() {
    let mut bucket = Bucket::default();
    let mut now = Instant(0);
    for _ in 0..1000 {
        now = now + MS;
        bucket.may_spend(Claimant::Handoff, now, FLOOR);
    }
    bucket.may_spend(Claimant::Streaming, now, FLOOR);
    bucket.spent(Claimant::Streaming, 1 << 20, 0, FLOOR);
    let wait = bucket.ready_at(Claimant::Streaming, now, FLOOR).since(now);
    assert!((Duration::from_millis(900)..Duration::from_millis(1010)).contains(&wait), "{wait:?}");
}

/// Long turns hold it back, but only if clients wait for them.
#[test]
fn waits_count_while_there_are_clients() {
    for clients in [false, true] {
        let mut model = Model::new(0.0, &[Claimant::Streaming]);
        for round in 0..3000u64 {
            let longest = if round < 1000 { MS } else { Duration::from_millis(30) };
            model.pace.on_waited(longest);
            if clients {
                model.pace.on_foreground();
            }
            model.millisecond();
        }
        let halvings = model.pace.reading().halvings[1];
        assert_eq!(halvings > 0, clients, "{halvings}");
    }
}
