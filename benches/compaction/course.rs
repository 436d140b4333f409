//! The same steady load on a log that is compacted meanwhile, and on one that has nothing to compact.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use loadgen::record::Phase;
use loadgen::tally::{Percentile, Tally};

use crate::cluster::{Cluster, wait_until};
use crate::figures::median;
use crate::offered::{Load, Offer, failures, milliseconds};

/// The target: p99.9 while the log is compacted, as a multiple of that while it isn't.
const SLOWDOWN_MAX: f64 = 1.5;
/// A compaction is proven to run by so many that end while it is measured.
const COMPACTIONS_MIN: u64 = 3;

/// How a log is cut decides whether there is something to compact: a segment that is still written to is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Log {
    /// Segments that are full soon, and soon hold little that is needed.
    Compacted,
    /// One that doesn't get full.
    Calm,
}

impl Log {
    /// Small values make small segments possible.
    fn settings(self, directory: &Path) -> Vec<String> {
        let segment_bytes = match self {
            Self::Compacted => "2MiB",
            Self::Calm => "512MiB",
        };
        vec![
            format!("--data={}", directory.display()),
            "--sync=always".to_owned(),
            "--value-bytes-max=4KiB".to_owned(),
            format!("--segment-bytes={segment_bytes}"),
        ]
    }
}

pub(crate) struct Plan<'a> {
    pub(crate) keys: u64,
    pub(crate) per_second: u64,
    /// Before anything is measured, beside the time until the first compaction.
    pub(crate) warm_up: Duration,
    /// Measured at least so long.
    pub(crate) span: Duration,
    pub(crate) rounds: usize,
    /// On a disk, and empty.
    pub(crate) directory: &'a Path,
    pub(crate) tells: bool,
}

/// Of one measurement.
struct Course {
    tally: Tally,
    compactions: u64,
    complaints: Vec<String>,
}

impl Course {
    fn p999_ms(&self) -> f64 {
        milliseconds(&self.tally, Percentile::P999)
    }
}

pub(crate) struct Figures {
    /// By round.
    compacted: Vec<Course>,
    calm: Vec<Course>,
}

pub(crate) fn compare(plan: &Plan<'_>) -> Figures {
    let mut figures = Figures { compacted: Vec::new(), calm: Vec::new() };
    for round in 0..plan.rounds {
        let mut order = [Log::Compacted, Log::Calm];
        if round % 2 == 1 {
            order.reverse();
        }
        for log in order {
            let course = measure(plan, log);
            match log {
                Log::Compacted => figures.compacted.push(course),
                Log::Calm => figures.calm.push(course),
            }
        }
    }
    figures
}

fn measure(plan: &Plan<'_>, log: Log) -> Course {
    let directory = tempfile::tempdir_in(plan.directory).unwrap();
    let settings = log.settings(directory.path());
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let cluster = Cluster::start(1, 1, &settings);
    let servers = vec![cluster.address(0).to_string()];
    let Plan { per_second, keys, tells, .. } = *plan;
    let mut load =
        Load::start(servers, Offer { per_second, keys, duration: Duration::from_secs(3600), tells });
    let compactions = || cluster.counter(0, "compactions");
    if log == Log::Compacted {
        wait_until("the log is compacted", || compactions() > 0);
    }
    std::thread::sleep(plan.warm_up);
    let before = compactions();
    load.begin_after();
    std::thread::sleep(plan.span);
    if log == Log::Compacted {
        wait_until("enough was compacted", || compactions() >= before + COMPACTIONS_MIN);
    }
    let compactions = compactions() - before;
    let finished = load.stop().finished;
    Course { tally: finished.record.phase(Phase::After), compactions, complaints: finished.complaints }
}

impl Figures {
    fn courses(&self) -> [(&'static str, &[Course]); 2] {
        [("compacted", &self.compacted), ("calm", &self.calm)]
    }

    /// The p99.9 beside a compaction as a multiple of that without one: the median over the rounds.
    fn slowdown(&self) -> f64 {
        let rounds = self.compacted.iter().zip(&self.calm);
        median(&rounds.map(|(compacted, calm)| compacted.p999_ms() / calm.p999_ms()).collect::<Vec<_>>())
    }

    pub(crate) fn shortcomings(&self) -> Vec<String> {
        let (slowdown, mut missed) = (self.slowdown(), self.faults());
        if slowdown.is_nan() || slowdown > SLOWDOWN_MAX {
            missed.push(format!("p99.9 beside a compaction is {slowdown:.2} times that without"));
        }
        missed
    }

    /// What makes the comparison worthless, or should not happen at all.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (name, courses) in self.courses() {
            for (failure, count) in courses.iter().flat_map(|course| failures(&course.tally)) {
                faults.push(format!("{name}: {count} {failure}"));
            }
        }
        let ran = |courses: &[Course]| courses.iter().map(|course| course.compactions).collect::<Vec<_>>();
        if self.compacted.iter().any(|course| course.compactions < COMPACTIONS_MIN) {
            faults.push(format!("too few compactions to say anything: {:?}", ran(&self.compacted)));
        }
        if self.calm.iter().any(|course| course.compactions > 0) {
            faults.push(format!("compactions where there should be none: {:?}", ran(&self.calm)));
        }
        faults
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = ["operations", "compactions", "p50", "p99", "p99.9"];
        let [operations, compactions, p50, p99, p999] = columns;
        writeln!(f, "{:<10}{operations:>12}{compactions:>13}{p50:>12}{p99:>12}{p999:>12}", "")?;
        for (name, courses) in self.courses() {
            for course in courses {
                let Course { tally, compactions, complaints } = course;
                let [p50, p99, p999] = [Percentile::P50, Percentile::P99, Percentile::P999]
                    .map(|which| milliseconds(tally, which));
                let operations = tally.operations();
                writeln!(
                    f,
                    "{name:<10}{operations:>12}{compactions:>13}{p50:>9.2} ms{p99:>9.2} ms{p999:>9.2} ms"
                )?;
                complaints.iter().try_for_each(|complaint| writeln!(f, "{complaint}"))?;
            }
        }
        writeln!(f, "p99.9 beside a compaction is {:.2} times that without", self.slowdown())
    }
}
