//! A run's report: a table for people, JSON for programs.
//!
//! Latencies of the table count from the due moment, over all operations of their row, a failed one being
//! slower than every success; `failed` stands where a percentile falls among those, and `too few` where no operation
//! lies beyond it (a p99.9 takes 1000). `service` is the p99.9
//! from the moment of sending: far below the due-time figure, it says that operations waited for their turn.
//!
//! Reads that rightly found nothing have lines of their own, `miss`; they are none of the lines `read`, and part of the sums.
//! What the generator could not hand out is in no line and no percentile: if there is such, the report says so.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::duration::display_ns;
use crate::encoded::{EncodedError, decode, encode};
use crate::environment::Environment;
use crate::inject::Mark;
use crate::intervals::Interval;
use crate::outcome::Failure;
use crate::pacer::Offered;
use crate::record::{Class, Phase, Record};
use crate::runner::Finished;
use crate::tally::{Counts, Latency, Percentile, Tally};
use crate::verdict::Verdict;

/// Everything worth keeping of a run. Its JSON is what `compare` and `merge` read.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The version of this form. Fields may be added; what is there keeps its meaning.
    pub format: u32,
    /// PASS or FAIL.
    pub result: String,
    /// The process's exit code.
    pub exit_code: u8,
    /// Why, and the objective clause by clause.
    pub verdict: Verdict,
    /// One row for each phase and kind, with the sums; rows without operations are left out.
    pub rows: Vec<Row>,
    /// What the generator offered.
    pub generator: Generator,
    /// The first broken promises, and the first failure of each kind, in words.
    pub complaints: Vec<String>,
    /// What was done to nodes meanwhile, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<Mark>,
    /// Sentences about what was not judged, or in another way than usual.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Sentences about nodes that ended when nobody asked them to.
    #[serde(default)]
    pub faults: Vec<String>,
    /// Sentences about servers that answered before the run, and not after it.
    #[serde(default)]
    pub gone: Vec<String>,
    /// The addresses of all that didn't answer after it.
    #[serde(default)]
    pub silent: Vec<String>,
    /// Names of the runs that this is the result of, each unlike all others.
    #[serde(default)]
    pub runs: Vec<String>,
    /// How the run was configured, defaults included.
    pub configuration: BTreeMap<String, String>,
    /// Where it took place.
    pub environment: Environment,
    /// When it began, in seconds since 1970 (UTC).
    pub start_unix_s: f64,
    /// What ended second by second, warm-up left out.
    pub intervals: Vec<Interval>,
}

/// The figures of one kind of operation in one phase. Latencies are in nanoseconds; `null` where a figure
/// falls among the failed operations, or where there are too few operations for one to lie beyond it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Row {
    /// The name of a stage of the load, `before` or `after` the first that was done to a node, or `all`: all of it but warm-up.
    pub phase: String,
    /// `read` (that found something, or failed), `miss` (a read that rightly found nothing), `write`, `delete`, or `all`.
    pub operation: String,
    /// How many ended.
    pub count: u64,
    /// How many of those failed.
    pub errors: u64,
    /// The errors by their kind; kinds that didn't occur are left out.
    pub failures: BTreeMap<String, u64>,
    /// Reads that were answered.
    pub reads: u64,
    /// Reads that rightly found nothing.
    pub not_found: u64,
    /// Reads behind a write, where that is allowed.
    pub stale: u64,
    /// From the due moment.
    pub due_ns: Latencies,
    /// From the moment of sending.
    pub service_ns: Latencies,
    /// The latencies of the successes from the due moment, encoded as those of intervals are.
    pub due_histogram: String,
    /// And from the moment of sending.
    pub service_histogram: String,
}

/// A distribution's main figures, in nanoseconds.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Latencies {
    /// The median.
    pub p50: Option<u64>,
    /// 99%.
    pub p99: Option<u64>,
    /// 99.9%.
    pub p999: Option<u64>,
    /// The longest success; for the due moment only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
}

/// How well the generator kept to its plan. Lateness is in nanoseconds.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Generator {
    /// Operations handed out in time or late.
    pub handed: u64,
    /// Operations it could not hand out.
    pub refused: u64,
    /// Operations a second, as achieved.
    pub per_second: f64,
    /// There was no schedule: operations went as fast as answers came, and lateness means nothing.
    pub unpaced: bool,
    /// For how long the target held it up, where that is allowed.
    pub held_up_ns: u64,
    /// The median of how late operations were handed out.
    pub lateness_p50_ns: u64,
    /// 99% of them.
    pub lateness_p99_ns: u64,
    /// 99.9% of them.
    #[serde(default)]
    pub lateness_p999_ns: u64,
    /// The latest.
    pub lateness_max_ns: u64,
    /// All of them, encoded as other histograms are.
    pub lateness_histogram: String,
    /// When the last operation was due, in nanoseconds from the start.
    pub due_last_ns: u64,
    /// When it was handed out.
    pub elapsed_ns: u64,
    /// The run was stopped before its end.
    pub interrupted: bool,
}

/// Why a report's figures can't be had back.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RestoreError {
    /// The line of the sum is missing.
    #[error("there is no line for all operations: it was not written by loadgen")]
    Whole,
    /// A way of failing that this version doesn't know, and would forget.
    #[error("'{0}' is no way of failing that this version knows")]
    Failure(String),
    /// A line whose parts don't add up.
    #[error("the line '{phase} {operation}' counts {count} operations, and has the figures of {found}")]
    Count {
        /// Of the line.
        phase: String,
        /// Of the line.
        operation: String,
        /// What it says.
        count: u64,
        /// What its histogram and its failures add up to.
        found: u64,
    },
    /// A histogram that can't be read.
    #[error(transparent)]
    Encoded(#[from] EncodedError),
}

/// Of [`Report::format`].
pub const FORMAT: u32 = 1;

const PHASE_WIDTH_MIN: usize = 6;
const PERCENTILES: [Percentile; 3] = [Percentile::P50, Percentile::P99, Percentile::P999];

impl Report {
    /// Puts a finished run into words and figures.
    pub fn new(
        finished: &Finished,
        verdict: Verdict,
        faults: &[String],
        configuration: BTreeMap<&'static str, String>,
    ) -> Self {
        let named = configuration.into_iter().map(|(name, value)| (name.to_owned(), value));
        Self {
            format: FORMAT,
            result: if verdict.passed() { "PASS" } else { "FAIL" }.to_owned(),
            exit_code: verdict.exit.code(),
            verdict,
            rows: rows(&finished.record),
            generator: Generator::of(&finished.offered),
            complaints: finished.complaints.clone(),
            marks: finished.marks.clone(),
            notes: Vec::new(),
            faults: faults.to_vec(),
            gone: Vec::new(),
            silent: Vec::new(),
            runs: Vec::new(),
            configuration: named.collect(),
            environment: Environment::observe(),
            start_unix_s: finished.start.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
            intervals: finished.intervals.clone(),
        }
    }

    /// The table, the generator's own figures, broken promises, and the verdict as the last line.
    pub fn text(&self) -> String {
        let width =
            self.rows.iter().map(|row| row.phase.chars().count()).max().unwrap_or(0).max(PHASE_WIDTH_MIN);
        let mut text = format!(
            "{:<width$} {:<10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>8}\n",
            "phase", "operation", "count", "p50", "p99", "p99.9", "max", "service", "errors"
        );
        for row in &self.rows {
            row.write(&mut text, width);
        }
        self.generator.write(&mut text);
        for mark in &self.marks {
            let _ = writeln!(text, "{mark}");
        }
        for complaint in self.notes.iter().chain(&self.complaints).chain(&self.gone) {
            text.push_str(complaint);
            text.push('\n');
        }
        text.push_str(&self.verdict.to_string());
        text.push('\n');
        text
    }

    /// The figures that were judged.
    pub fn total(&self) -> Result<Tally, RestoreError> {
        let all = self.rows.iter().rfind(|row| row.phase == "all" && row.operation == "all");
        all.ok_or(RestoreError::Whole)?.restore()
    }

    /// One JSON object, indented.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report has only strings, numbers and lists")
    }
}

fn rows(record: &Record) -> Vec<Row> {
    let mut rows = Vec::new();
    if record.stages().len() > 1 {
        rows.extend(record.stages().map(|(name, tally)| Row::of(name, "all", &tally)));
    }
    let classes = |name: &str, phase: Option<Phase>| {
        Class::ALL.map(|class| Row::of(name, &class.to_string(), &record.class(phase, class)))
    };
    if record.has_after() {
        for phase in Phase::ALL {
            let name = phase.to_string();
            rows.extend(classes(&name, Some(phase)));
            rows.push(Row::of(&name, "all", &record.phase(phase)));
        }
    }
    rows.extend(classes("all", None));
    rows.retain(|row| row.count > 0);
    rows.push(Row::of("all", "all", &record.total()));
    rows
}

impl Row {
    /// A row with a tally's figures.
    pub fn of(phase: &str, operation: &str, tally: &Tally) -> Self {
        let failures = Failure::ALL.iter().map(|&failure| (failure.to_string(), tally.failed(failure)));
        Self {
            phase: phase.to_owned(),
            operation: operation.to_owned(),
            count: tally.operations(),
            errors: tally.errors(),
            failures: failures.filter(|&(_, count)| count > 0).collect(),
            reads: tally.reads(),
            not_found: tally.not_found(),
            stale: tally.stale(),
            due_ns: Latencies::new(
                PERCENTILES.map(|percentile| if_enough(percentile, tally, tally.due(percentile))),
                Some(tally.due_max()),
            ),
            service_ns: Latencies::new(
                PERCENTILES.map(|percentile| if_enough(percentile, tally, tally.service(percentile))),
                None,
            ),
            due_histogram: encode(tally.due_histogram()),
            service_histogram: encode(tally.service_histogram()),
        }
    }

    /// The tally that the row was made of.
    pub fn restore(&self) -> Result<Tally, RestoreError> {
        let mut counts =
            Counts { reads: self.reads, not_found: self.not_found, stale: self.stale, ..Counts::default() };
        for (name, &count) in &self.failures {
            let failure = Failure::ALL.into_iter().find(|failure| failure.to_string() == *name);
            let failure = failure.ok_or_else(|| RestoreError::Failure(name.clone()))?;
            counts.failures[failure.index()] = count;
        }
        let tally = Tally::restore(decode(&self.due_histogram)?, decode(&self.service_histogram)?, counts);
        if (tally.operations(), tally.errors()) != (self.count, self.errors) {
            let (phase, operation) = (self.phase.clone(), self.operation.clone());
            return Err(RestoreError::Count {
                phase,
                operation,
                count: self.count,
                found: tally.operations(),
            });
        }
        Ok(tally)
    }

    fn write(&self, text: &mut String, width: usize) {
        let Latencies { p50, p99, p999, max } = &self.due_ns;
        let _ = write!(text, "{:<width$} {:<10}{:>10}", self.phase, self.operation, self.count);
        let [median, near, far] = PERCENTILES.map(Percentile::operations_min);
        let cells = [(p50, median), (p99, near), (p999, far), (max, 0), (&self.service_ns.p999, far)];
        for (latency, operations_min) in cells {
            let cell = match latency {
                Some(latency_ns) => display_ns(*latency_ns),
                None if self.count < operations_min => "too few".to_owned(),
                None if self.errors > 0 => "failed".to_owned(),
                None => "-".to_owned(),
            };
            let _ = write!(text, "{cell:>10}");
        }
        let _ = write!(text, "{:>8}", self.errors);
        let mut notes: Vec<String> =
            self.failures.iter().map(|(failure, count)| format!("{count} {failure}")).collect();
        if self.stale > 0 {
            notes.push(format!("{} stale", self.stale));
        }
        if !notes.is_empty() {
            let _ = write!(text, "  {}", notes.join(", "));
        }
        text.push('\n');
    }
}

/// A percentile beyond which no operation lies says nothing.
fn if_enough(percentile: Percentile, tally: &Tally, latency: Latency) -> Latency {
    if tally.operations() < percentile.operations_min() { Latency::None } else { latency }
}

impl Latencies {
    fn new([p50, p99, p999]: [Latency; 3], max: Option<Latency>) -> Self {
        let known = |latency| if let Latency::Ns(latency_ns) = latency { Some(latency_ns) } else { None };
        Self { p50: known(p50), p99: known(p99), p999: known(p999), max: max.and_then(known) }
    }
}

impl Generator {
    /// What the pacer tells.
    pub fn of(offered: &Offered) -> Self {
        Self {
            handed: offered.handed,
            refused: offered.refused,
            per_second: offered.per_second(),
            unpaced: offered.unpaced,
            held_up_ns: offered.held_up_ns,
            lateness_p50_ns: offered.lateness(Percentile::P50),
            lateness_p99_ns: offered.lateness(Percentile::P99),
            lateness_p999_ns: offered.lateness(Percentile::P999),
            lateness_max_ns: offered.lateness_max(),
            lateness_histogram: encode(&offered.lateness),
            due_last_ns: offered.due_last_ns,
            elapsed_ns: offered.elapsed_ns,
            interrupted: offered.interrupted,
        }
    }

    fn write(&self, text: &mut String) {
        if self.unpaced {
            let _ = writeln!(
                text,
                "generator: as fast as answers came, {:.0}/s; latencies count from sending, so what waited isn't in them",
                self.per_second,
            );
            return;
        }
        let _ = writeln!(
            text,
            "generator: {:.0}/s offered, {} not handed out, lateness p50 {}, p99 {}, p99.9 {}, max {}",
            self.per_second,
            self.refused,
            display_ns(self.lateness_p50_ns),
            display_ns(self.lateness_p99_ns),
            display_ns(self.lateness_p999_ns),
            display_ns(self.lateness_max_ns),
        );
        if self.refused > 0 {
            let share = self.refused as f64 * 100.0 / (self.refused + self.handed) as f64;
            let _ = writeln!(
                text,
                "{} operations ({share:.2}%) that were due could not be handed out: they are in no line and no percentile",
                self.refused,
            );
        }
        if self.held_up_ns > 0 {
            let held_up = display_ns(self.held_up_ns);
            let _ = writeln!(text, "the cluster held it up for {held_up}: as much as may be was in flight");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::clock::Moment;
    use crate::objective::Objective;
    use crate::operation::Kind;
    use crate::outcome::{Completion, Outcome};

    use super::*;

    fn finished() -> Finished {
        let mut record = Record::default();
        let mut end = |kind, latency_us: u64, outcome| {
            let (due, sent, done) = (Moment(0), Moment(1000), Moment(latency_us * 1000));
            record.record(0, &Completion { kind, due, sent, done, outcome });
        };
        (1..=1000).for_each(|latency_us| end(Kind::Read, latency_us, Outcome::Done));
        end(Kind::Write, 1, Outcome::Failed(Failure::Timeout));
        record.begin_after();
        let (due, sent, done) = (Moment(0), Moment(0), Moment(5_000_000));
        record.record(0, &Completion { kind: Kind::Read, due, sent, done, outcome: Outcome::NotFound });
        let offered =
            Offered { handed: 1002, due_last_ns: 1, elapsed_ns: 1_000_000_000, ..Offered::default() };
        let (start, intervals) = (UNIX_EPOCH + Duration::from_secs(1_500_000_000), Vec::new());
        let complaints = vec!["lost: operation 7".to_owned()];
        Finished { record, offered, complaints, evicted: 0, marks: Vec::new(), start, intervals }
    }

    fn report() -> Report {
        let finished = finished();
        let objective: Objective = "p50<1ms".parse().expect("an objective");
        let offered = Offered { elapsed_ns: 1, ..finished.offered.clone() };
        let verdict = Verdict::reach(&objective, &finished.record, &offered, &[]);
        Report::new(&finished, verdict, &[], BTreeMap::from([("rate", "579/s".to_owned())]))
    }

    #[test]
    fn the_table_has_a_row_for_what_happened_and_ends_with_the_verdict() {
        let text = report().text();
        let lines: Vec<&str> = text.lines().collect();
        let begins: Vec<&str> = lines.iter().map(|line| line.get(..17).unwrap_or("").trim_end()).collect();
        assert_eq!(
            begins[..10],
            [
                "phase  operation",
                "before read",
                "before write",
                "before all",
                "after  miss",
                "after  all",
                "all    read",
                "all    miss",
                "all    write",
                "all    all",
            ],
            "{text}"
        );
        assert!(lines[1].contains("500 us") && lines[1].contains("1.00 ms"), "{text}");
        assert!(lines[2].contains("too few") && lines[2].ends_with("1  1 timeout"), "{text}");
        assert!(lines[4].contains("5.00 ms"), "{text}");
        assert!(
            lines[10].starts_with("generator: 1002/s offered, 0 not handed out, lateness p50 "),
            "{text}"
        );
        assert_eq!(lines[11], "lost: operation 7");
        assert!(lines[12].starts_with("PASS: p50"), "{text}");
    }

    /// What was refused has no latency, so nothing in the table shows it.
    #[test]
    fn what_was_not_handed_out_is_told() {
        let mut report = report();
        assert!(!report.text().contains("no percentile"));
        report.generator.refused = 8;
        let expected = "\n8 operations (0.79%) that were due could not be handed out: they are in no line and no percentile\n";
        assert!(report.text().contains(expected), "{}", report.text());
    }

    #[test]
    fn lateness_is_told_up_to_its_tail() {
        let mut offered = Offered { handed: 2000, elapsed_ns: 1_000_000_000, ..Offered::default() };
        offered.lateness.record_n(1000, 1990).expect("in range");
        offered.lateness.record_n(7_000_000, 10).expect("in range");
        let generator = Generator::of(&offered);
        assert!(
            (7_000_000..7_010_000).contains(&generator.lateness_p999_ns),
            "{}",
            generator.lateness_p999_ns
        );
        let mut text = String::new();
        generator.write(&mut text);
        assert!(text.contains("p99 1.00 us, p99.9 7.00 ms, max 7.00 ms"), "{text}");
    }

    #[test]
    fn the_json_can_be_read_back() {
        let json: serde_json::Value = serde_json::from_str(&report().json()).expect("valid JSON");
        assert_eq!(json["result"], "PASS");
        assert_eq!(json["exit_code"], 0);
        assert_eq!(json["configuration"]["rate"], "579/s");
        assert_eq!(json["rows"][0]["operation"], "read");
        assert_eq!(json["rows"][1]["failures"]["timeout"], 1);
        assert!(json["rows"][1]["due_ns"]["p50"].is_null());
        assert!(
            json["rows"][0]["due_ns"]["p50"].as_u64().is_some_and(|p50| (499_000..501_000).contains(&p50))
        );
        let written = report();
        let read: Report = serde_json::from_str(&written.json()).expect("the same report");
        assert_eq!((read.format, read.start_unix_s), (FORMAT, 1_500_000_000.0));
        assert_eq!(read.json(), written.json());
        assert!(json["environment"]["kernel"].as_str().is_some_and(|kernel| kernel.starts_with("Linux")));
    }
}
