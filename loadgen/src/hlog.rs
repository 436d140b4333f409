//! HDR interval logs (`.hlog`), for the tools that read them: HistogramLogProcessor, HdrHistogramVisualizer and others.
//!
//! A line an interval: when it began and how long it was in seconds, its longest latency in milliseconds, and the histogram of
//! latencies from the due moment in nanoseconds, which is what those tools expect. Histograms hold successes; failures, and what
//! was done to nodes, are in comments above the line of their interval.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::inject::Mark;
use crate::intervals::Interval;

/// Longest latencies stand there in milliseconds.
const MAX_DIVISOR: f64 = 1e6;

/// The log of a run that began at `start`.
pub fn write(intervals: &[Interval], marks: &[Mark], start: SystemTime) -> String {
    let since_1970_s = start.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let mut log = format!(
        "#[loadgen {}: latencies from the due moment in nanoseconds, of successes, without warm-up]\n\
         #[Histogram log format version 1.3]\n\
         #[StartTime: {since_1970_s:.3} (seconds since epoch)]\n\
         \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n",
        env!("CARGO_PKG_VERSION")
    );
    let mut marks = marks.iter().peekable();
    for interval in intervals {
        let Interval { start_s, length_s, errors, due_histogram, .. } = interval;
        while let Some(mark) = marks.next_if(|mark| mark.at_s < start_s + length_s) {
            let _ = writeln!(log, "# {mark}");
        }
        if *errors > 0 {
            let _ = writeln!(log, "# {errors} operations failed in the next interval");
        }
        let max = interval.max_ns as f64 / MAX_DIVISOR;
        let _ = writeln!(log, "{start_s:.3},{length_s:.3},{max:.3},{due_histogram}");
    }
    for mark in marks {
        let _ = writeln!(log, "# {mark}");
    }
    log
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::Engine;
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use crate::clock::Moment;
    use crate::inject::Act;
    use crate::intervals::Intervals;
    use crate::operation::Kind;
    use crate::outcome::{Completion, Failure, Outcome};

    use super::*;

    /// By the reader of the `hdrhistogram` crate, which knows nothing of this program.
    #[test]
    fn the_log_is_read_by_others() {
        let mut intervals = Intervals::begin();
        for second in 1..=3u64 {
            for latency_ns in [second * 1000, second * 2000] {
                let (due, sent, done) = (Moment(0), Moment(0), Moment(latency_ns));
                intervals.record(&Completion { kind: Kind::Write, due, sent, done, outcome: Outcome::Done });
            }
            let outcome = Outcome::Failed(Failure::Timeout);
            intervals.record(&Completion {
                kind: Kind::Read,
                due: Moment(0),
                sent: Moment(0),
                done: Moment(1),
                outcome,
            });
            intervals.cut(second * 1_000_000_000);
        }
        let mark = |at_s| Mark { at_s, planned_s: 0.0, action: Act::Kill, node: "n2".to_owned() };
        let marks = [0.5, 1.5, 3.2].map(mark);
        let log = write(
            &intervals.finish(3_000_000_001),
            &marks,
            UNIX_EPOCH + Duration::from_millis(1_500_000_000_250),
        );
        // Its reader doesn't know the line of headings that Java's tools write and read.
        let without_headings: Vec<&str> = log.lines().filter(|line| !line.starts_with('"')).collect();
        let without_headings = without_headings.join("\n") + "\n";
        let mut read = Vec::new();
        for entry in IntervalLogIterator::new(without_headings.as_bytes()) {
            match entry.expect("a log") {
                LogEntry::StartTime(start) => assert_eq!(start, Duration::from_millis(1_500_000_000_250)),
                LogEntry::BaseTime(_) => panic!("there is none"),
                LogEntry::Interval(interval) => {
                    let bytes =
                        base64::engine::general_purpose::STANDARD.decode(interval.encoded_histogram());
                    let mut bytes = std::io::Cursor::new(bytes.expect("base 64"));
                    let histogram: Histogram<u64> =
                        Deserializer::new().deserialize(&mut bytes).expect("a histogram");
                    read.push((
                        interval.start_timestamp(),
                        interval.duration(),
                        histogram.len(),
                        histogram.max(),
                    ));
                }
            }
        }
        let second = Duration::from_secs(1);
        let starts = [Duration::ZERO, second, 2 * second];
        let expected: Vec<_> =
            (1..).zip(starts).map(|(place, start)| (start, second, 2, place * 2000)).collect();
        assert_eq!(read.len(), 3);
        for (read, expected) in read.iter().zip(&expected) {
            assert_eq!((read.0, read.1, read.2), (expected.0, expected.1, expected.2));
            assert!(read.3.abs_diff(expected.3) <= expected.3 / 500, "{read:?}");
        }
        assert_eq!(log.matches("# 1 operations failed").count(), 3, "{log}");
        let starts: Vec<&str> = log.lines().filter_map(|line| line.split(['[', ',', '.']).next()).collect();
        let expected = ["# at 0", "# 1 operations failed in the next interval", "0", "# at 1"];
        assert_eq!(starts[4..8], expected, "{log}");
        assert_eq!(log.lines().last(), Some("# at 3.200 s: n2 is killed"));
    }
}
