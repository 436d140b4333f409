//! A log is filled, and then its node is started again and again, beside a plain read of the same bytes.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::side_by_side::{KEY_BYTES, Load, Server, median};

pub(crate) const VALUE_BYTES: usize = 100;
/// The target: of the rate at which the disk reads the same.
const SHARE_MIN: f64 = 1.0 / 3.0;
const CONNECTIONS: usize = 50;
const DEPTH: usize = 16;
/// Of the keys, so many are asked for after each start.
const SAMPLES: u64 = 1000;
/// The plain read takes so much at a time, and what is all zeros in that measure isn't counted.
const BLOCK_BYTES: usize = 1 << 20;
/// What direct reads want of memory.
const ALIGNMENT: usize = 4096;

pub(crate) struct Plan<'a> {
    pub(crate) keys: u64,
    pub(crate) shards: usize,
    pub(crate) rounds: usize,
    /// On a disk, and empty.
    pub(crate) directory: &'a Path,
}

pub(crate) struct Figures {
    keys: u64,
    /// What the logs hold.
    pub(crate) bytes: usize,
    /// Each round's, in seconds.
    read: Vec<f64>,
    recovered: Vec<f64>,
}

pub(crate) fn measure(plan: &Plan<'_>) -> Result<Figures, String> {
    fill(plan)?;
    let mut figures = Figures { keys: plan.keys, bytes: 0, read: Vec::new(), recovered: Vec::new() };
    for _ in 0..plan.rounds {
        let log = Written::find(plan).map_err(|error| format!("can't read the log: {error}"))?;
        figures.bytes = log.bytes();
        let read = log.read().map_err(|error| format!("can't read the log: {error}"))?;
        figures.read.push(read.as_secs_f64());
        let server = start(plan)?;
        figures.recovered.push(server.started_in().as_secs_f64());
        let sampled = (0..SAMPLES).map(|sample| sample * plan.keys / SAMPLES);
        assert_eq!(server.count_held(sampled) as u64, SAMPLES, "it has recovered all that it held");
        server.stop();
    }
    Ok(figures)
}

fn fill(plan: &Plan<'_>) -> Result<(), String> {
    let server = start(plan)?;
    let mut load = Load::connect(&server, CONNECTIONS, DEPTH, VALUE_BYTES);
    let run = load.run(&mut (0..plan.keys), Duration::MAX);
    assert_eq!(run.answered, plan.keys, "all keys are written");
    drop(load);
    server.stop();
    Ok(())
}

/// As durable as can be, when the log is written too: groups are as large as they are in earnest.
fn start(plan: &Plan<'_>) -> Result<Server, String> {
    let data = format!("--data={}", plan.directory.join("node").display());
    let settings = [data, format!("--shards={}", plan.shards), "--sync=always".to_owned()];
    Server::ringmain("ringmain", None, &settings)
}

/// The parts of all logs that something was written to.
struct Written {
    files: Vec<(File, Vec<u64>)>,
}

impl Written {
    fn find(plan: &Plan<'_>) -> io::Result<Self> {
        let mut buffer = Aligned::new();
        let find = |shard| {
            let path: PathBuf = plan.directory.join(format!("node/shard-{shard}/segments"));
            let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path)?;
            let length = file.metadata()?.len();
            let mut written = Vec::new();
            for start in (0..length).step_by(BLOCK_BYTES) {
                let block = buffer.block();
                let bytes = file.read_at(block, start)?;
                if block[..bytes].iter().any(|byte| *byte != 0) {
                    written.push(start);
                }
            }
            Ok::<_, io::Error>((file, written))
        };
        Ok(Self { files: (0..plan.shards).map(find).collect::<Result<_, _>>()? })
    }

    fn bytes(&self) -> usize {
        self.files.iter().map(|(_, blocks)| blocks.len() * BLOCK_BYTES).sum()
    }

    /// One after the other, and how long that takes.
    fn read(&self) -> io::Result<Duration> {
        let mut buffer = Aligned::new();
        let begun = Instant::now();
        for (file, blocks) in &self.files {
            for start in blocks {
                file.read_at(buffer.block(), *start)?;
            }
        }
        Ok(begun.elapsed())
    }
}

/// A block of memory for direct reads.
struct Aligned {
    bytes: Vec<u8>,
    offset: usize,
}

impl Aligned {
    fn new() -> Self {
        let bytes = vec![0; BLOCK_BYTES + ALIGNMENT];
        let offset = bytes.as_ptr().align_offset(ALIGNMENT);
        Self { bytes, offset }
    }

    fn block(&mut self) -> &mut [u8] {
        &mut self.bytes[self.offset..][..BLOCK_BYTES]
    }
}

impl Figures {
    /// The rate of a recovery as a share of that of the read in the same round.
    fn share(&self) -> f64 {
        median(
            &self
                .read
                .iter()
                .zip(&self.recovered)
                .map(|(read, recovered)| read / recovered)
                .collect::<Vec<_>>(),
        )
    }

    pub(crate) fn shortcomings(&self) -> Vec<String> {
        let share = self.share();
        let is_met = share >= SHARE_MIN;
        (!is_met)
            .then(|| format!("recovered at {share:.2} of the disk's rate, not {SHARE_MIN:.2}"))
            .into_iter()
            .collect()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = self.bytes as f64 / 1e6;
        writeln!(
            f,
            "{} keys of {KEY_BYTES} bytes, values of {VALUE_BYTES}: {megabytes:.0} MB of log",
            self.keys
        )?;
        writeln!(f, "{:<18}{:>10}{:>12}{:>8}", "", "seconds", "MB/s", "share")?;
        let [read, recovered] = [&self.read, &self.recovered].map(|seconds| median(seconds));
        for (name, seconds, share) in [("plain read", read, 1.0), ("recovery", recovered, self.share())] {
            writeln!(f, "{name:<18}{seconds:>10.3}{:>12.0}{share:>8.2}", megabytes / seconds)?;
        }
        Ok(())
    }
}
