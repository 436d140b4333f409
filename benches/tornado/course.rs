//! Six nodes in three data centres, two in each; one data centre is destroyed, and rebuilt from newcomers, under load.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use loadgen::clock::Moment;
use loadgen::outcome::Failure;
use loadgen::record::Phase;
use loadgen::tally::{Percentile, Tally};

use crate::clients::Servers;
use crate::clients::at_rest::converge;
use crate::clients::history::{Operation, Outcome};
use crate::clients::load::{Load as Clients, Terms};
use crate::clients::verdict::Verdict;
use crate::cluster::{Cluster, run};
use crate::offered::{Failed, Load, Offer, milliseconds};

/// Who dies, and at once.
const VICTIMS: [usize; 2] = [4, 5];
/// Who is there afterwards.
const SURVIVORS: [usize; 6] = [0, 1, 2, 3, 6, 7];
/// Nothing here takes longer.
const STEP_MAX: &str = "120s";

pub(crate) struct Plan {
    pub(crate) per_second: u64,
    pub(crate) keys: u64,
    /// More settings of each node.
    pub(crate) settings: &'static [&'static str],
    /// Before the tornado, between it and the first newcomer, and in the end.
    pub(crate) calm: Duration,
    pub(crate) tells: bool,
}

pub(crate) struct Figures {
    parts: [Tally; 2],
    /// From the kill until all others avoided both.
    detection: Duration,
    /// Of those sent before the detection, and after.
    failed: [Vec<Failed>; 2],
    /// From the operator's first word until both newcomers held all that they own.
    rebuilt: Duration,
    /// By each data centre, at the end: all of them, once.
    keys_held: [u64; 3],
    complaints: Vec<String>,
    /// Of clients that keep registers, carts and counters.
    history: Vec<Operation>,
    verdict: Verdict,
    /// Until all copies were alike, since the load ended.
    converged: Duration,
}

pub(crate) fn tornado(plan: &Plan) -> Figures {
    let data_center = |node: usize| format!("--data-center=zone{}", node % 6 / 2);
    let mut cluster = Cluster::start_each(6, 1, plan.settings, |node| Some(data_center(node)));
    let living = (0..4).map(|node| cluster.address(node));
    let (servers, keys) = (Servers(living.collect()), Arc::new(Mutex::new(BTreeSet::new())));
    let clients = Clients::start("tornado", Terms::USUAL, &keys, &servers);
    let Plan { per_second, keys: count, tells, .. } = *plan;
    let addresses = (0..6).map(|node| cluster.address(node).to_string()).collect();
    let offer = Offer { per_second, keys: count, duration: Duration::from_secs(3600), tells };
    let mut load = Load::start(addresses, offer);
    std::thread::sleep(plan.calm);
    load.begin_after();

    let killed = Moment::now();
    VICTIMS.iter().for_each(|&victim| cluster.kill(victim));
    for observer in 0..4 {
        VICTIMS.iter().for_each(|&victim| cluster.wait_for_state(observer, victim, "suspected"));
    }
    let detected = Moment::now();
    std::thread::sleep(plan.calm);
    let newcomers =
        VICTIMS.map(|victim| cluster.join_with(1, &[plan.settings, &[&data_center(victim)]].concat()));
    let rebuilt = replace_all(&cluster, newcomers);
    std::thread::sleep(plan.calm);
    let outcome = load.stop();
    let (history, healed) = (clients.stop(), Instant::now());

    let survivors = Servers(SURVIVORS.iter().map(|&node| cluster.address(node)).collect());
    let repairs = || SURVIVORS.iter().map(|&node| cluster.counter(node, "repairs_sent")).sum();
    let (at_rest, converged) = converge(&survivors, &keys, healed, repairs);
    let keys_held =
        [[0, 1], [2, 3], newcomers].map(|zone| zone.map(|node| cluster.counter(node, "keys")).iter().sum());
    let (after, before) = outcome.failed.into_iter().partition(|failed| failed.sent >= detected);
    let record = outcome.finished.record;
    Figures {
        parts: Phase::ALL.map(|phase| record.phase(phase)),
        detection: Duration::from_nanos(detected.since_ns(killed)),
        failed: [before, after],
        rebuilt,
        keys_held,
        complaints: outcome.finished.complaints,
        verdict: Verdict::of(&history, &at_rest, false),
        history,
        converged,
    }
}

/// Give each newcomer the share of one of the dead, and wait until they hold it. Both words come before the wait: no
/// change ends while a member is dead that nobody has given up, and then both are one change.
fn replace_all(cluster: &Cluster, newcomers: [usize; 2]) -> Duration {
    let (server, begun) = (cluster.address(0).to_string(), Instant::now());
    let replace = |old: usize, new: usize, wait: &[&str]| {
        let (old, new) = (format!("n{old}"), format!("n{new}"));
        let words = ["replace", &old, &new, "--server", &server, "--timeout", "10s"];
        let ended = run(&[&words, wait].concat());
        assert_eq!(ended.code, Some(0), "replace {old} {new}: {ended:?}");
    };
    replace(VICTIMS[0], newcomers[0], &[]);
    replace(VICTIMS[1], newcomers[1], &["--wait", STEP_MAX]);
    begun.elapsed()
}

impl Figures {
    /// What is wrong, as far as time has no part in it.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = self.complaints.clone();
        if let Some(first) = self.failed[1].first() {
            faults.push(format!("{} failed after the detection: {first:?}", self.failed[1].len()));
        }
        let doubt = |failed: &&Failed| !matches!(failed.failure, Failure::Timeout | Failure::MaybeApplied);
        if let Some(first) = self.failed[0].iter().find(doubt) {
            faults.push(format!("not in doubt but failed before the detection: {first:?}"));
        }
        let Verdict { lost, resurrected, phantoms, .. } = &self.verdict;
        faults.extend([lost, resurrected, phantoms].into_iter().flatten().cloned());
        if self.keys_held.iter().any(|&held| held != self.keys_held[0]) {
            faults.push(format!("the data centres hold {:?} keys, and should hold the same", self.keys_held));
        }
        if self.acknowledged() == 0 {
            faults.push("no write was acknowledged".to_owned());
        }
        faults
    }

    fn acknowledged(&self) -> usize {
        let is_write = |operation: &&Operation| operation.is_write() && operation.outcome == Outcome::Ok;
        self.history.iter().filter(is_write).count()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<10}{:>12}{:>12}{:>12}{:>10}", "", "operations", "p50", "p99.9", "failed")?;
        for (name, part) in ["before", "after"].into_iter().zip(&self.parts) {
            let [p50, p999] = [Percentile::P50, Percentile::P999].map(|which| milliseconds(part, which));
            let (operations, errors) = (part.operations(), part.errors());
            writeln!(f, "{name:<10}{operations:>12}{p50:>9.2} ms{p999:>9.2} ms{errors:>10}")?;
        }
        let [before, after] = &self.failed;
        writeln!(
            f,
            "the dead were avoided after {:.3} s; {} requests failed until then, {} after",
            self.detection.as_secs_f64(),
            before.len(),
            after.len()
        )?;
        let (rebuilt, [.., keys]) = (self.rebuilt.as_secs_f64(), self.keys_held);
        writeln!(
            f,
            "both were replaced and rebuilt in {rebuilt:.2} s; in the end they hold all {keys} keys"
        )?;
        let Verdict { lost, resurrected, shown_again, phantoms } = &self.verdict;
        writeln!(
            f,
            "registers, carts, counters: {} operations, {} writes acknowledged; {} lost, {} resurrected, {} shown again, {} \
             made up; all copies alike {:.2} s after the load",
            self.history.len(),
            self.acknowledged(),
            lost.len(),
            resurrected.len(),
            shown_again.len(),
            phantoms.len(),
            self.converged.as_secs_f64()
        )?;
        self.complaints.iter().try_for_each(|complaint| writeln!(f, "{complaint}"))
    }
}
