use std::collections::BTreeMap;

use super::*;
use crate::prng::Prng;

const NODE: NodeId = NodeId(1);

fn at(millis: u64) -> Instant {
    Instant(0) + Duration::from_millis(millis)
}

/// A peer over a link, looked after as a shard does: a look each 100 ms, a ping each 500 ms, probes in between.
struct Link {
    detector: FailureDetector,
    prng: Prng,
    now: Instant,
    pinged_at: Instant,
    /// Requests to the peer in a second, on average. Each is answered, by a frame of its own.
    requests_per_s: u64,
    /// The delay of a frame in one direction is exponential.
    delay_ms_mean: f64,
    loss: f64,
    /// The peer hears nothing from then on.
    dead_at: Instant,
    /// What is under way: a pong with its number, or another answer.
    answers: BTreeMap<(Instant, u64), Option<u64>>,
    sent: u64,
    /// For how long it was suspected though it was there.
    wronged: Duration,
}

impl Link {
    fn new(seed: u64, requests_per_s: u64, delay_ms_mean: f64, loss: f64) -> Self {
        let mut detector = FailureDetector::default();
        detector.on_connected(NODE);
        Self {
            detector,
            prng: Prng::from_seed(seed),
            now: Instant(0),
            pinged_at: Instant(0),
            requests_per_s,
            delay_ms_mean,
            loss,
            dead_at: NEVER,
            answers: BTreeMap::new(),
            sent: 0,
            wronged: Duration::ZERO,
        }
    }

    fn is_suspected(&self) -> bool {
        self.detector.health(self.now, NODE) == Health::Suspected
    }

    /// A question leaves; its answer may come.
    fn send(&mut self, pong: Option<u64>) {
        let mut delay = || Duration((-self.delay_ms_mean * 1e6 * (1.0 - self.prng.unit()).ln()) as u64);
        let heard_at = self.now + delay();
        let answered_at = heard_at + delay();
        let lost = self.prng.chance(self.loss) || self.prng.chance(self.loss);
        self.sent += 1;
        if !lost && heard_at < self.dead_at {
            self.answers.insert((answered_at, self.sent), pong);
        }
    }

    /// One millisecond.
    fn step(&mut self) {
        self.now = self.now + Duration::from_millis(1);
        self.detector.on_turn(self.now);
        while let Some(entry) = self.answers.first_entry()
            && entry.key().0 <= self.now
        {
            let pong = entry.remove();
            let suspect_at = self.detector.peers[&NODE].suspect_at;
            self.wronged = self.wronged + self.now.since(suspect_at);
            self.detector.on_answered(self.now, NODE);
            if let Some(number) = pong {
                self.detector.on_pong(self.now, NODE, number);
            }
        }
        // Requests avoid the suspected.
        if !self.is_suspected() && self.prng.below(1000) < self.requests_per_s {
            self.detector.on_asked(self.now, NODE);
            self.send(None);
        }
        let looks = self.now.0.is_multiple_of(PROBE_AFTER.0);
        let beats = self.now.since(self.pinged_at) >= Duration::from_millis(500);
        if looks && (beats || self.detector.wants_probe(self.now, NODE)) {
            self.pinged_at = self.now;
            let number = self.detector.on_ping(self.now, NODE);
            self.send(Some(number));
        }
    }

    fn run(&mut self, secs: u64) {
        (0..secs * 1000).for_each(|_| self.step());
    }

    /// The peer stops now. How long until it is suspected?
    fn time_to_suspicion(&mut self) -> Duration {
        self.dead_at = self.now;
        self.answers.clear();
        while !self.is_suspected() {
            self.step();
        }
        self.now.since(self.dead_at)
    }
}

/// The longest and the mean of a hundred deaths, each at another moment after a minute's life.
fn detection(requests_per_s: u64, delay_ms_mean: f64, loss: f64) -> (Duration, Duration) {
    let times = (0..100u64).map(|seed| {
        let mut link = Link::new(seed, requests_per_s, delay_ms_mean, loss);
        link.run(60);
        (0..seed * 7).for_each(|_| link.step());
        while link.is_suspected() {
            link.step();
        }
        link.time_to_suspicion().0
    });
    let times: Vec<u64> = times.collect();
    (Duration(*times.iter().max().unwrap()), Duration(times.iter().sum::<u64>() / 100))
}

/// Wrong suspicions in `hours` of a healthy link, and the part of the time for which they lasted.
fn wrong_suspicions(hours: u64, requests_per_s: u64, delay_ms_mean: f64, loss: f64) -> (u64, f64) {
    let mut link = Link::new(7, requests_per_s, delay_ms_mean, loss);
    link.run(60);
    let (before, wronged) = (link.detector.suspicions_answered(), link.wronged);
    link.run(hours * 3600);
    let lasted = (link.wronged.0 - wronged.0) as f64 / (hours * 3_600_000_000_000) as f64;
    (link.detector.suspicions_answered() - before, lasted)
}

#[test]
fn a_broken_connection_is_suspected_at_once() {
    let mut detector = FailureDetector::default();
    assert_eq!(detector.health(at(0), NODE), Health::Suspected, "never met");
    detector.on_connected(NODE);
    assert_eq!(detector.health(at(60_000), NODE), Health::Up, "nobody asked it anything");
    detector.on_disconnected(NODE);
    assert_eq!(detector.health(at(60_000), NODE), Health::Suspected);
    assert_eq!(detector.phi(at(60_000), NODE), f64::INFINITY);
}

/// Paper §4.8.3: passed over, probed, and trusted again when it answers.
#[test]
fn the_suspected_is_probed_and_its_first_answer_clears_it() {
    let mut link = Link::new(1, 0, 0.5, 0.0);
    link.run(60);
    assert!(link.detector.phi(link.now, NODE) < 1.0);
    link.time_to_suspicion();
    assert!(link.detector.phi(link.now, NODE) >= PHI_SUSPECTED);
    let probes = link.sent;
    link.run(30);
    assert_eq!(link.sent - probes, 300, "it is asked ten times a second, however long it is silent");
    assert!(link.is_suspected());
    assert!(link.detector.silence(link.now, NODE) > Duration::from_secs(30));
    let before = link.detector.suspicions_answered();
    link.detector.on_answered(link.now, NODE);
    assert!(!link.is_suspected());
    assert_eq!(link.detector.suspicions_answered(), before + 1);
    assert_eq!(link.detector.silence(link.now, NODE), Duration::ZERO);
}

#[test]
fn a_stopped_peer_that_was_quick_is_suspected_within_400_ms_under_traffic() {
    let (longest, mean) = detection(100, 1.0, 0.0);
    assert!(longest <= Duration::from_millis(400), "{longest:?}");
    assert!(mean <= Duration::from_millis(330), "{mean:?}");
}

#[test]
fn any_stopped_peer_is_suspected_within_two_seconds_though_nobody_asks_it_anything() {
    let (longest, _) = detection(0, 1.0, 0.0);
    assert!(longest <= Duration::from_millis(800), "{longest:?}");
    let (longest, _) = detection(0, 100.0, 0.3);
    assert!(longest <= Duration::from_secs(2), "{longest:?}");
}

/// Half of all pongs are lost, the others take a fifth of a second: the link is trusted all the same.
#[test]
fn a_slow_and_lossy_link_is_wrongly_suspected_less_than_six_times_an_hour() {
    let (times, part) = wrong_suspicions(10, 0, 100.0, 0.3);
    assert!((1..=6 * 10).contains(&times), "{times} in 10 h");
    assert!(part < 0.0005, "{part} of the time");
    let (times, _) = wrong_suspicions(10, 5, 100.0, 0.3);
    assert!(times <= 2 * 10, "{times} in 10 h under traffic");
}

#[test]
fn a_slow_link_that_loses_nothing_is_hardly_ever_wrongly_suspected() {
    for requests_per_s in [0, 5, 100] {
        for delay_ms_mean in [1.0, 20.0, 100.0] {
            let (times, _) = wrong_suspicions(3, requests_per_s, delay_ms_mean, 0.0);
            assert!(times <= 1, "{times} in 3 h at {delay_ms_mean} ms and {requests_per_s}/s");
        }
    }
}

/// Pongs come while one request takes its time.
#[test]
fn a_peer_that_is_slow_with_one_request_answers_probes_meanwhile() {
    let mut link = Link::new(3, 0, 1.0, 0.0);
    link.run(60);
    link.detector.on_asked(link.now, NODE);
    for _ in 0..5000 {
        link.step();
        assert!(!link.is_suspected());
    }
}

/// A process that was stopped itself finds all its questions old, and the answers not yet read.
#[test]
fn a_shard_that_was_stopped_itself_suspects_nobody_for_it() {
    let mut link = Link::new(4, 0, 1.0, 0.0);
    link.run(60);
    link.detector.on_asked(link.now, NODE);
    link.now = link.now + Duration::from_secs(7);
    link.detector.on_turn(link.now);
    assert!(!link.is_suspected());
    link.now = link.now + PATIENCE_MIN;
    assert!(link.is_suspected(), "from then on it counts");
}

#[test]
fn a_late_pong_is_not_taken_for_a_quick_one() {
    let mut detector = FailureDetector::default();
    detector.on_connected(NODE);
    let early = detector.on_ping(at(0), NODE);
    let repeated = detector.on_ping(at(100), NODE);
    detector.on_pong(at(150), NODE, repeated);
    let patience = detector.peers[&NODE].patience.span();
    let next = detector.on_ping(at(151), NODE);
    detector.on_pong(at(152), NODE, early);
    assert_eq!(detector.peers[&NODE].patience.span(), patience);
    assert!(detector.wants_probe(at(251), NODE), "the last ping is still unanswered");
    detector.on_pong(at(251), NODE, next);
    assert_ne!(detector.peers[&NODE].patience.span(), patience);
}

/// The table of `docs/adr/0009-suspicion-accrues.md`.
#[test]
#[ignore = "measures for three minutes: cargo test --release --lib detector -- --ignored --nocapture"]
#[expect(clippy::print_stdout, reason = "a table for people")]
fn wrong_suspicions_and_detection_times_by_link() {
    let links = [(0.5, 0.0), (20.0, 0.0), (100.0, 0.0), (0.5, 0.01), (5.0, 0.05), (100.0, 0.1), (100.0, 0.3)];
    for (delay_ms, loss) in links {
        for requests_per_s in [0, 5, 100] {
            let (times, part) = wrong_suspicions(100, requests_per_s, delay_ms, loss);
            let (longest, mean) = detection(requests_per_s, delay_ms, loss);
            println!(
                "{delay_ms} ms, {loss} lost, {requests_per_s}/s: {times} wrong in 100 h, {part:.7} of the time; \
                 found after {} ms, at most {} ms",
                mean.as_millis(),
                longest.as_millis()
            );
        }
    }
}
