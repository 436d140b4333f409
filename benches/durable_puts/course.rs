//! This server with a log, Redis with one, and this server without, under the same puts in turn.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use ringmain::prng::Prng;

use crate::side_by_side::{CORE_OF_SERVERS, Latencies, Load, Run, Server, median, pin_to_core};

const VALUE_BYTES: usize = 100;
const KEYS: u64 = 100_000;
const WARM_UP: Duration = Duration::from_millis(300);
const SHAPES: [Shape; 3] = [
    Shape { connections: 500, depth: 1, to_redis_min: 1.1 },
    Shape { connections: 50, depth: 1, to_redis_min: 1.5 },
    Shape { connections: 50, depth: 16, to_redis_min: 2.0 },
];
const TO_MEMORY_MIN: f64 = 0.8;

/// In the order in which they are measured, and then the other way round. The last one only if there is one.
const LOG: usize = 0;
const REDIS: usize = 1;
const MEMORY: usize = 2;
const BEFORE: usize = 3;

pub(crate) struct Plan<'a> {
    pub(crate) redis: &'a Path,
    /// Another build of this server.
    pub(crate) before: Option<&'a Path>,
    /// Where the logs are written.
    pub(crate) directory: &'a Path,
    pub(crate) span: Duration,
    pub(crate) rounds: usize,
}

#[derive(Clone, Copy)]
struct Shape {
    connections: usize,
    depth: usize,
    /// The target: throughput of this server as a multiple of Redis'.
    to_redis_min: f64,
}

/// Of one measurement.
struct Figure {
    per_second: f64,
    /// p50, p99 and p99.9 in milliseconds.
    latencies: [f64; 3],
}

/// Of one shape.
pub(crate) struct Figures {
    shape: Shape,
    /// By contestant.
    names: Vec<&'static str>,
    /// By contestant, then by round.
    measured: Vec<Vec<Figure>>,
}

/// One after the other; `each` hears of a shape when it is done.
pub(crate) fn compare(plan: &Plan<'_>, mut each: impl FnMut(&Figures)) -> Result<Vec<Figures>, String> {
    let servers = start(plan)?;
    pin_to_core(CORE_OF_SERVERS + 1);
    let mut prng = Prng::from_seed(1);
    let mut all = Vec::new();
    for shape in SHAPES {
        let mut measured: Vec<Vec<Figure>> = servers.iter().map(|_| Vec::new()).collect();
        for round in 0..plan.rounds {
            let mut order: Vec<usize> = (0..servers.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for contestant in order {
                measured[contestant].push(measure(&servers[contestant], shape, plan.span, &mut prng));
            }
        }
        let names = servers.iter().map(Server::name).collect();
        let figures = Figures { shape, names, measured };
        each(&figures);
        all.push(figures);
    }
    Ok(all)
}

/// Each on the same core. Those that wait for their turn have nothing to do.
fn start(plan: &Plan<'_>) -> Result<Vec<Server>, String> {
    let core = Some(CORE_OF_SERVERS);
    let of_redis = plan.directory.join("redis");
    std::fs::create_dir_all(&of_redis).map_err(|error| error.to_string())?;
    let with_log = |directory: &str| {
        let data = format!("--data={}", plan.directory.join(directory).display());
        ["--shards=1".to_owned(), data, "--sync=always".to_owned()]
    };
    let durable = ["--appendonly", "yes", "--appendfsync", "always"];
    let mut servers = vec![
        Server::ringmain("ringmain, log", core, &with_log("ringmain"))?,
        Server::redis("redis, log", plan.redis, core, &of_redis, &durable)?,
        Server::ringmain("ringmain, memory", core, &["--shards=1".to_owned()])?,
    ];
    if let Some(program) = plan.before {
        servers.push(Server::ringmain_of(program, "before, log", core, &with_log("before"))?);
    }
    Ok(servers)
}

fn measure(server: &Server, shape: Shape, span: Duration, prng: &mut Prng) -> Figure {
    let mut load = Load::connect(server, shape.connections, shape.depth, VALUE_BYTES);
    let mut keys = std::iter::repeat_with(|| prng.below(KEYS));
    load.run(&mut keys, WARM_UP);
    let mut run = load.run(&mut keys, span);
    Figure { per_second: run.per_second(), latencies: percentiles(&mut run) }
}

fn percentiles(Run { latencies, .. }: &mut Run) -> [f64; 3] {
    [500, 990, 999].map(|share| Latencies::per_mille(latencies, share))
}

impl Figures {
    /// The median over the rounds of what is asked of each figure.
    fn median(&self, contestant: usize, ask: impl Fn(&Figure) -> f64) -> f64 {
        median(&self.measured[contestant].iter().map(ask).collect::<Vec<_>>())
    }

    /// The median over the rounds of a ratio of two contestants, each time in one round.
    fn ratio(&self, contestant: usize, to: usize, ask: impl Fn(&Figure) -> f64) -> f64 {
        let rounds = self.measured[contestant].iter().zip(&self.measured[to]);
        median(&rounds.map(|(one, other)| ask(one) / ask(other)).collect::<Vec<_>>())
    }

    /// Targets that were missed.
    pub(crate) fn shortcomings(&self) -> Vec<String> {
        let Shape { connections, depth, to_redis_min } = self.shape;
        let to_redis = self.ratio(LOG, REDIS, |figure| figure.per_second);
        let to_memory = self.ratio(LOG, MEMORY, |figure| figure.per_second);
        let slower = self.ratio(LOG, REDIS, |figure| figure.latencies[2]);
        let mut missed = Vec::new();
        if to_redis < to_redis_min {
            missed.push(format!("{to_redis:.2} times the puts of Redis, not {to_redis_min}"));
        }
        if slower > 1.0 {
            missed.push(format!("p99.9 {slower:.2} times that of Redis"));
        }
        if to_memory < TO_MEMORY_MIN {
            missed.push(format!("{to_memory:.2} of the puts without a log, not {TO_MEMORY_MIN}"));
        }
        let shape = format!("{connections} connections at depth {depth}");
        missed.into_iter().map(|what| format!("{shape}: {what}")).collect()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape { connections, depth, .. } = self.shape;
        writeln!(f, "{connections} connections at depth {depth}")?;
        writeln!(
            f,
            "  {:<18}{:>10}{:>12}{:>12}{:>12}{:>10}{:>11}",
            "", "puts/s", "p50", "p99", "p99.9", "to redis", "to memory"
        )?;
        for (contestant, name) in self.names.iter().enumerate() {
            let per_second = self.median(contestant, |figure| figure.per_second);
            let [p50, p99, p999] =
                [0, 1, 2].map(|which| self.median(contestant, |figure| figure.latencies[which]));
            let [to_redis, to_memory] =
                [REDIS, MEMORY].map(|to| self.ratio(contestant, to, |figure| figure.per_second));
            writeln!(
                f,
                "  {name:<18}{per_second:>10.0}{p50:>9.3} ms{p99:>9.3} ms{p999:>9.3} ms{to_redis:>10.2}{to_memory:>11.2}"
            )?;
        }
        if self.names.len() > BEFORE {
            let [faster, slower] = [
                self.ratio(LOG, BEFORE, |figure| figure.per_second),
                self.ratio(LOG, BEFORE, |figure| figure.latencies[2]),
            ];
            writeln!(
                f,
                "  with a log {faster:.3} times the puts of the build before, p99.9 {slower:.3} times its"
            )?;
        }
        Ok(())
    }
}
