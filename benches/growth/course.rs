//! Three nodes under load become more, and three again, by the operator's commands.

use std::fmt;
use std::time::{Duration, Instant};

use loadgen::outcome::Failure;
use loadgen::record::Phase;
use loadgen::tally::{Percentile, Tally};

use crate::cluster::{Cluster, run};
use crate::offered::{Load, Offer, failures, milliseconds};

/// Of all operations, so many may end in doubt or too late, and none in any other way.
const DOUBTS_SHARE_MAX: f64 = 0.000_005;
/// Nothing here takes longer.
const STEP_MAX: &str = "600s";

pub(crate) struct Plan {
    pub(crate) per_second: u64,
    pub(crate) keys: u64,
    /// How many nodes join, and leave again.
    pub(crate) newcomers: usize,
    /// More settings of each node.
    pub(crate) settings: &'static [&'static str],
    /// Before the change.
    pub(crate) calm: Duration,
    pub(crate) tells: bool,
}

pub(crate) struct Figures {
    pub(crate) before: Tally,
    /// From the start of the first newcomer to the end of the last change.
    pub(crate) during: Tally,
    pub(crate) complaints: Vec<String>,
    /// Each of the operator's commands, and how long until its change was over.
    pub(crate) steps: Vec<(String, Duration)>,
}

pub(crate) fn grow_and_shrink(plan: &Plan) -> Figures {
    let mut cluster = Cluster::start(3, 1, plan.settings);
    let mut load = load(&cluster, plan);
    std::thread::sleep(plan.calm);
    load.begin_after();
    let mut steps = Vec::new();
    let newcomers = 3..3 + plan.newcomers;
    for newcomer in newcomers.clone() {
        assert_eq!(cluster.join_with(1, plan.settings), newcomer);
        steps.push(change(&cluster, "join", newcomer));
    }
    for leaver in newcomers {
        steps.push(change(&cluster, "leave", leaver));
    }
    let finished = load.stop().finished;
    Figures {
        before: finished.record.phase(Phase::Before),
        during: finished.record.phase(Phase::After),
        complaints: finished.complaints,
        steps,
    }
}

/// Write all keys, and go on with a load that the caller ends.
pub(crate) fn load(cluster: &Cluster, plan: &Plan) -> Load {
    let servers = (0..3).map(|node| cluster.address(node).to_string()).collect();
    let Plan { per_second, keys, tells, .. } = *plan;
    Load::start(servers, Offer { per_second, keys, duration: Duration::from_secs(3600), tells })
}

/// Make a change, and wait for its end.
pub(crate) fn change(cluster: &Cluster, command: &str, node: usize) -> (String, Duration) {
    let (name, server, begun) = (format!("n{node}"), cluster.address(0).to_string(), Instant::now());
    let ended = run(&[command, &name, "--wait", STEP_MAX, "--server", &server, "--timeout", "10s"]);
    assert_eq!(ended.code, Some(0), "{command} {name}: {ended:?}");
    (format!("{command} {name}"), begun.elapsed())
}

impl Figures {
    /// Both parts.
    fn total(&self) -> Tally {
        let mut total = self.before.clone();
        total.merge(&self.during);
        total
    }

    /// The p99.9 while the ring changes, as a multiple of that before.
    pub(crate) fn slowdown(&self) -> f64 {
        let [before, during] = [&self.before, &self.during].map(|part| milliseconds(part, Percentile::P999));
        during / before
    }

    /// What is wrong with the answers: each kind of failure that may not be, and doubts if there are too many.
    pub(crate) fn faults(&self) -> Vec<String> {
        let total = self.total();
        let is_doubt = |failure| matches!(failure, Failure::Timeout | Failure::MaybeApplied);
        let (doubts, errors): (Vec<_>, Vec<_>) =
            failures(&total).into_iter().partition(|(failure, _)| is_doubt(*failure));
        let mut faults: Vec<String> =
            errors.into_iter().map(|(failure, count)| format!("{count} {failure}")).collect();
        let doubts: u64 = doubts.into_iter().map(|(_, count)| count).sum();
        if doubts as f64 >= DOUBTS_SHARE_MAX * total.operations() as f64 && doubts > 0 {
            faults.push(format!("{doubts} of {} in doubt or too late", total.operations()));
        }
        faults
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<16}{:>12}{:>12}{:>12}{:>10}", "", "operations", "p50", "p99.9", "failed")?;
        for (name, part) in [("before", &self.before), ("while it changes", &self.during)] {
            let [p50, p999] = [Percentile::P50, Percentile::P999].map(|which| milliseconds(part, which));
            let (operations, errors) = (part.operations(), part.errors());
            writeln!(f, "{name:<16}{operations:>12}{p50:>9.2} ms{p999:>9.2} ms{errors:>10}")?;
        }
        writeln!(f, "p99.9 while it changes is {:.2} times that before", self.slowdown())?;
        for (step, took) in &self.steps {
            writeln!(f, "{step:<16}{:>10.2} s", took.as_secs_f64())?;
        }
        self.complaints.iter().try_for_each(|complaint| writeln!(f, "{complaint}"))
    }
}
