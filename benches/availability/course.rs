//! One node of three is killed and brought back, under load: what fails, until when, and how slow the rest becomes.

use std::fmt;
use std::time::Duration;

use loadgen::clock::Moment;
use loadgen::outcome::Failure;
use loadgen::record::Phase;
use loadgen::tally::{Percentile, Tally};

use crate::cluster::Cluster;
use crate::offered::{Failed, Load, Offer, failures, milliseconds};

/// Dynamo's, over two years of production (section 6).
const SUCCESS_SHARE_MIN: f64 = 0.999_995;
const DETECTION_MAX: Duration = Duration::from_secs(5);
/// Who dies.
const VICTIM: usize = 2;

/// How a node dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Death {
    /// Its process: the kernel ends its connections.
    OfTheProcess,
    /// Its machine: nobody hears of it again.
    OfTheMachine,
}

pub(crate) struct Plan {
    pub(crate) death: Death,
    pub(crate) requests: u64,
    pub(crate) per_second: u64,
    pub(crate) keys: u64,
    pub(crate) tells: bool,
}

pub(crate) struct Figures {
    /// The whole run.
    pub(crate) total: Tally,
    /// Before the kill, and from then on.
    parts: [Tally; 2],
    /// From the kill until both others avoided the dead node.
    pub(crate) detection: Duration,
    /// From its start until all three saw each other.
    back: Duration,
    /// Sent before the kill, between that and its detection, and after.
    failed: [Vec<Failed>; 3],
    sent_after_detection: u64,
    complaints: Vec<String>,
}

pub(crate) fn kill_and_bring_back(plan: &Plan) -> Figures {
    let mut cluster = Cluster::start(3, 1, &[]);
    let servers = (0..3).map(|node| cluster.address(node).to_string()).collect();
    let duration = Duration::from_secs_f64(plan.requests as f64 / plan.per_second as f64);
    let Plan { per_second, keys, tells, .. } = *plan;
    let mut load = Load::start(servers, Offer { per_second, keys, duration, tells });
    let started = load.started;
    std::thread::sleep(duration / 4);
    load.begin_after();
    let killed = Moment::now();
    match plan.death {
        Death::OfTheProcess => cluster.kill(VICTIM),
        Death::OfTheMachine => cluster.process(VICTIM).pause(),
    }
    for observer in (0..3).filter(|&node| node != VICTIM) {
        cluster.wait_for_state(observer, VICTIM, "suspected");
    }
    let detected = Moment::now();
    std::thread::sleep(duration / 4);
    let restarted = Moment::now();
    cluster.restart(VICTIM);
    let back = Duration::from_nanos(Moment::now().since_ns(restarted));
    let outcome = load.finish();

    let mut failed = [Vec::new(), Vec::new(), Vec::new()];
    for failure in outcome.failed {
        let part = usize::from(failure.sent >= killed) + usize::from(failure.sent >= detected);
        failed[part].push(failure);
    }
    let record = outcome.finished.record;
    let until_detection = Duration::from_nanos(detected.since_ns(started)).as_secs_f64();
    Figures {
        total: record.total(),
        parts: Phase::ALL.map(|phase| record.phase(phase)),
        detection: Duration::from_nanos(detected.since_ns(killed)),
        back,
        failed,
        sent_after_detection: plan.requests - (until_detection * plan.per_second as f64) as u64,
        complaints: outcome.finished.complaints,
    }
}

impl Figures {
    /// Of those sent after the detection.
    fn success_share(&self) -> f64 {
        1.0 - self.failed[2].len() as f64 / self.sent_after_detection as f64
    }

    /// What is wrong with the answers.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let [calm, ..] = &self.failed;
        if !calm.is_empty() {
            faults.push(format!("{} failed before anything happened: {:?}", calm.len(), calm[0]));
        }
        if self.success_share() < SUCCESS_SHARE_MIN {
            let (failed, sent) = (self.failed[2].len(), self.sent_after_detection);
            faults.push(format!("{failed} of {sent} failed after the detection: {:?}", self.failed[2][0]));
        }
        if self.detection > DETECTION_MAX {
            faults.push(format!("the detection took {:.1?}, beyond {DETECTION_MAX:?}", self.detection));
        }
        for failure in [Failure::Lost, Failure::Wrong, Failure::Unsent] {
            let count = self.total.failed(failure);
            if count > 0 {
                faults.push(format!("{count} {failure}"));
            }
        }
        faults
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<10}{:>12}{:>12}{:>12}{:>10}", "", "operations", "p50", "p99.9", "failed")?;
        let [before, after] = &self.parts;
        for (name, part) in [("before", before), ("after", after), ("all", &self.total)] {
            let [p50, p999] = [Percentile::P50, Percentile::P999].map(|which| milliseconds(part, which));
            let (operations, errors) = (part.operations(), part.errors());
            writeln!(f, "{name:<10}{operations:>12}{p50:>9.2} ms{p999:>9.2} ms{errors:>10}")?;
        }
        let [_, undetected, detected] = &self.failed;
        writeln!(
            f,
            "the dead node was avoided after {:.3} s, in which {} requests failed; it was back {:.3} s after its start",
            self.detection.as_secs_f64(),
            undetected.len(),
            self.back.as_secs_f64(),
        )?;
        let (sent, percent) = (self.sent_after_detection, 100.0 * self.success_share());
        writeln!(f, "of {sent} requests after that, {} failed: {percent:.5}% succeeded", detected.len())?;
        for (failure, count) in failures(&self.total) {
            writeln!(f, "{count} {failure}")?;
        }
        self.complaints.iter().try_for_each(|complaint| writeln!(f, "{complaint}"))
    }
}
