//! The command line: `loadgen [demo]`, `loadgen check`, `loadgen replay`, and the studies, which make more of
//! their results ([`studies`]).
//!
//! Everything is parsed here, once, into the types of the modules that use it. A mistake gives one line and
//! exit code 2 ([`Refusal`]). Without a subcommand, `demo` runs: its options need not be preceded by its name.

use std::ffi::OsString;
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use ringmain::config::ServeArguments;
use ringmain::prng::Prng;

use crate::duration::{parse, parse_positive};
use crate::inject::Injections;
use crate::keys::{Keys, Popularity};
use crate::ledger::Consistency;
use crate::lifetimes::Lifetimes;
use crate::mix::Mix;
use crate::objective::Objective;
use crate::operation::{Key, Kind};
use crate::pacer::Pacer;
use crate::profile::{Phases, Profile};
use crate::rate::Rate;
use crate::recipe::{Choice, Recipe, parse_preset, parse_workload};
use crate::runner::{Beyond, Limits};
use crate::schedule::{Arrivals, Schedule};
use crate::sizes::Sizes;
use crate::target::cluster::{Routed, Writes};
use crate::trace::Speed;
use crate::workload::{Preload, Workload};

pub use elsewhere::Elsewhere;
use studies::{Compare, Merge, Search, Sweep};

/// What the user wants done.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Start three nodes on this machine, load them, kill one half-way, and judge (the default)
    Demo(Demo),
    /// Load a running cluster and judge
    Check(Check),
    /// Replay a trace of real requests and verify every read
    Replay(Replay),
    /// Find the highest rate that meets an objective
    Search(Box<Search>),
    /// Run a load with each combination of some settings
    Sweep(Box<Sweep>),
    /// Do two results differ, where, and by how much?
    Compare(Compare),
    /// Add up the results of processes that ran at the same time
    Merge(Merge),
    /// Be a node of the embedded cluster, with the server's own settings
    #[command(hide = true)]
    Node(Box<ServeArguments>),
}

/// `loadgen demo`
#[derive(Clone, Debug, Args)]
pub struct Demo {
    /// What is offered.
    #[command(flatten)]
    pub load: Load,
    /// How it is judged.
    #[command(flatten)]
    pub judging: Judging,
    /// Where it goes.
    #[command(flatten)]
    pub embedded: Embedded,
    /// Let all nodes live
    #[arg(long)]
    pub no_kill: bool,
    /// What to do to nodes meanwhile, instead of the kill: 'at=10s kill n2; at=20s restart n2; at=30s pause n3 5s'
    #[arg(long, value_name = "DEEDS")]
    pub inject: Option<Injections>,
}

/// `loadgen check`
#[derive(Clone, Debug, Args)]
pub struct Check {
    /// Nodes of the cluster, of which one must answer; separated by commas
    #[arg(long, required_unless_present = "target", value_delimiter = ',', value_name = "HOST:PORT")]
    pub servers: Vec<Server>,
    /// A file that holds the cluster's secret
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// Or where else it goes.
    #[command(flatten)]
    pub elsewhere: Elsewhere,
    /// What is offered.
    #[command(flatten)]
    pub load: Load,
    /// How it is judged.
    #[command(flatten)]
    pub judging: Judging,
    /// Known only to be refused with a reason.
    #[arg(long, hide = true, value_name = "DEEDS")]
    pub inject: Option<String>,
}

/// `loadgen replay`
#[derive(Clone, Debug, Args)]
pub struct Replay {
    /// The trace: CSV with the columns time,op,key,size,ttl (the last two may be left out) or version,time,op,size,lbn
    #[arg(value_name = "FILE")]
    pub trace: PathBuf,
    /// How fast: 1x as it was recorded, 10x ten times as fast, max as fast as answers come
    #[arg(long = "trace-speed", visible_alias = "speed", default_value = "100x", value_name = "SPEED")]
    pub speed: Speed,
    /// First write the objects whose first access is a read
    #[arg(long)]
    pub preload: bool,
    /// Nodes of a running cluster, separated by commas; without them, nodes are started on this machine
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT", conflicts_with_all = ["nodes", "shards", "replicas", "target"])]
    pub servers: Vec<Server>,
    /// A file that holds the secret of that cluster
    #[arg(long, value_name = "FILE", requires = "servers")]
    pub secret_file: Option<PathBuf>,
    /// Or where else it goes.
    #[command(flatten)]
    pub elsewhere: Elsewhere,
    /// How it is judged.
    #[command(flatten)]
    pub judging: Judging,
    /// Where it goes if no servers are given.
    #[command(flatten)]
    pub embedded: Embedded,
    /// What to do to nodes that were started here meanwhile: 'at=10s kill n2; at=20s restart n2; at=30s pause n3 5s'
    #[arg(long, value_name = "DEEDS")]
    pub inject: Option<Injections>,
}

/// A made-up load.
#[derive(Clone, Debug, Args)]
pub struct Load {
    /// Operations offered: a number and /s, /min, /hour or /day, with k, M or B for thousands and more
    #[arg(long, default_value = "50M/day", value_name = "RATE")]
    pub rate: Rate,
    /// For how long
    #[arg(long, default_value = "20s", value_parser = parse_positive, value_name = "TIME")]
    pub duration: Duration,
    /// How the rate goes, instead of staying: 'warmup 10s, ramp 1k..20k 30s, step 1k..5k 5 50s, sine 1k..2k 20s 1m, spike 1k..9k 1s 10s'; nothing of a warmup is judged, and without a rate of its own it has that of --rate, as steady has
    #[arg(long, conflicts_with = "duration", value_name = "PHASES")]
    pub phases: Option<Phases>,
    /// How operations follow each other: fixed (evenly) or poisson (as from many independent users)
    #[arg(long, default_value = "fixed", value_name = "KIND")]
    pub arrivals: Arrivals,
    /// A well-known load: ycsb-a, ycsb-b, ycsb-c, ycsb-d or ycsb-f; or list. The options below override its parts
    #[arg(long, value_parser = parse_workload, value_name = "NAME", conflicts_with = "preset")]
    pub workload: Option<Choice>,
    /// The load of a real cache: twitter-1 to twitter-54, or etc (Facebook's); or list. The options below override its parts
    #[arg(long, value_parser = parse_preset, value_name = "NAME")]
    pub preset: Option<Choice>,
    /// How many keys there are [default: 10000; workloads: 1000]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=KEYS_MAX), value_name = "COUNT")]
    pub keys: Option<u64>,
    /// The number of the first key: generators that load one cluster at the same time need keys of their own
    #[arg(long, default_value = "0", value_parser = clap::value_parser!(u64).range(0..=KEYS_MAX), value_name = "NUMBER")]
    pub key_first: u64,
    /// Which keys are touched: zipf, ycsb-zipf (as YCSB scatters it), uniform, latest or growing (writes insert) [default: zipf]
    #[arg(long, value_name = "KIND")]
    pub popularity: Option<Popularity>,
    /// Zipf's exponent, from 0 (all alike) up; not used by uniform [default: 0.99]
    #[arg(long, value_parser = parse_exponent, value_name = "EXPONENT")]
    pub zipf: Option<f64>,
    /// Bytes in a key, as in a value [default: 14]
    #[arg(long, value_name = "SIZES")]
    pub key_size: Option<Sizes>,
    /// Bytes in a value: 100, 10..1000, lognormal:MEDIAN,SIGMA, gev: or pareto:LOCATION,SCALE,SHAPE, etc-value, or 64:50%,1024:50% [default: 100]
    #[arg(long, value_name = "SIZES")]
    pub value_size: Option<Sizes>,
    /// Shares of the operations in percent, of read, write and delete [default: read=50,write=50]
    #[arg(long, value_name = "MIX")]
    pub mix: Option<Mix>,
    /// How long values live: none (for ever), 60s or 4d:59%,2d:41% [default: none]
    #[arg(long, value_name = "TIMES")]
    pub ttl: Option<Lifetimes>,
    /// First write every key once [default for a workload or preset]
    #[arg(long)]
    pub preload: bool,
    /// Don't, whatever the workload or preset says
    #[arg(long, conflicts_with = "preload")]
    pub no_preload: bool,
    /// The same number gives the same operations
    #[arg(long, default_value = "1", value_name = "NUMBER")]
    pub seed: u64,
}

/// How a run is judged, and what its requests ask for.
#[derive(Clone, Debug, Args)]
pub struct Judging {
    /// The objective: percentiles, max and mean of the latency, and errors [default: p99.9<300ms,errors<0.001%; replay: errors<0.001%]
    #[arg(long, value_name = "CLAUSES")]
    pub slo: Option<Objective>,
    /// Also write the report as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Also write an HDR interval log, a histogram a second, for the tools that read it
    #[arg(long, value_name = "FILE")]
    pub hlog: Option<PathBuf>,
    /// Each request's deadline [default: 1s; replay: 10s]
    #[arg(long, value_parser = parse_positive, value_name = "TIME")]
    pub timeout: Option<Duration>,
    /// Replicas a read waits for [default: a majority]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..), value_name = "R")]
    pub read_quorum: Option<u8>,
    /// Replicas a write waits for [default: a majority]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..), value_name = "W")]
    pub write_quorum: Option<u8>,
    /// Zones (data centres or racks) of the servers that a write must be in [default: any]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..), value_name = "ZONES")]
    pub zones: Option<u8>,
    /// What a write replaces: what is there (overwrite), what it has read (update) or nothing (blind) [default: overwrite; ycsb-f: update]
    #[arg(long, value_name = "KIND")]
    pub writes: Option<Writes>,
    /// Whom a request is sent to: an owner of its key (client), the given servers in turn (server), or, on purpose, a shard that doesn't hold it (wrong) [default: client]
    #[arg(long, value_name = "KIND")]
    pub routing: Option<Routed>,
    /// A read behind an acknowledged write is an error (strict) or counted (eventual) [default: strict if R + W > N]
    #[arg(long, value_name = "KIND")]
    pub consistency: Option<Consistency>,
    /// Operations in flight beyond which no more are sent, but counted as errors; replay waits [default: 65536; replay: 256]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), value_name = "COUNT")]
    pub in_flight: Option<u32>,
    /// How long to spin before each due moment: more punctual, but takes processor time
    #[arg(long, default_value = "5us", value_parser = parse, value_name = "TIME")]
    pub spin: Duration,
    /// No line of progress each second
    #[arg(long)]
    pub quiet: bool,
}

/// The cluster on this machine.
#[derive(Clone, Copy, Debug, Args)]
pub struct Embedded {
    /// How many nodes to start on this machine
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u8).range(1..), value_name = "COUNT")]
    pub nodes: u8,
    /// Shards of each node
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u8).range(1..), value_name = "COUNT")]
    pub shards: u8,
    /// Copies the nodes keep of each key, or as many as there are nodes
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u8).range(1..=16), value_name = "N")]
    pub replicas: u8,
}

/// A node's address as the user gave it: a name or number, and a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Server(pub String);

/// An address that can't be one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("'{0}' is no address: write a host and a port, such as 127.0.0.1:7400")]
pub struct ServerError(String);

/// The command line asks for no run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// It asks for help or the version: print this and succeed.
    Shown(String),
    /// It is wrong: print this one line.
    Wrong(String),
}

/// Understands a command line, the program's name first.
pub fn understand(line: impl IntoIterator<Item = OsString>) -> Result<Command, Refusal> {
    let matches = Arguments::command().try_get_matches_from(line).map_err(|error| refusal(&error))?;
    refuse_nodes_beside_target(&matches)?;
    let arguments = Arguments::from_arg_matches(&matches).map_err(|error| refusal(&error))?;
    let command = arguments.command.unwrap_or(Command::Demo(arguments.demo));
    if let Some(load) = command.load() {
        load.refuse_impossible()?;
    }
    match &command {
        Command::Demo(demo) => {
            demo.judging.refuse_impossible(Some(demo.embedded.copies()))?;
            let run = demo.load.profile().duration();
            refuse_deeds(demo.inject.as_ref(), demo.embedded, Some(run))?;
        }
        Command::Check(check) => {
            refuse_without_nodes(check.inject.is_some())?;
            check.judging.refuse_impossible(None)?;
            check.elsewhere.refuse_impossible(&check.judging, Some(&check.load), command.writes())?;
        }
        Command::Replay(replay) => {
            refuse_without_nodes(replay.inject.is_some() && !replay.has_nodes_of_its_own())?;
            refuse_deeds(replay.inject.as_ref(), replay.embedded, None)?;
            replay.judging.refuse_impossible(replay.copies())?;
            replay.elsewhere.refuse_impossible(&replay.judging, None, command.writes())?;
        }
        Command::Search(search) => search.refuse_impossible()?,
        Command::Sweep(sweep) => sweep.refuse_impossible()?,
        Command::Compare(_) | Command::Merge(_) | Command::Node(_) => {}
    }
    Ok(command)
}

/// `replay` has nodes of its own by default, so that they are there says nothing; that they were asked for does.
fn refuse_nodes_beside_target(matches: &ArgMatches) -> Result<(), Refusal> {
    let Some(replay) = matches.subcommand_matches("replay") else { return Ok(()) };
    let is_given = |name: &&str| replay.value_source(name) == Some(ValueSource::CommandLine);
    match ["nodes", "shards", "replicas"].iter().find(|name| is_given(name)) {
        Some(name) if is_given(&"target") => Err(Refusal::Wrong(format!(
            "error: --{name} cannot be used with --target: no nodes are started for it"
        ))),
        _ => Ok(()),
    }
}

/// Servers that were not started here are not ours to kill.
fn refuse_without_nodes(injects: bool) -> Result<(), Refusal> {
    if injects {
        let reason = "error: --inject needs nodes that loadgen starts itself: use demo, or replay without --servers and --target";
        return Err(Refusal::Wrong(reason.to_owned()));
    }
    Ok(())
}

fn refuse_deeds(
    inject: Option<&Injections>,
    embedded: Embedded,
    run: Option<Duration>,
) -> Result<(), Refusal> {
    match inject.map(|inject| inject.deeds(embedded.nodes, run)) {
        Some(Err(error)) => Err(Refusal::Wrong(format!("error: --inject: {error}"))),
        _ => Ok(()),
    }
}

impl Load {
    /// The operations, numbered from `number_first`.
    pub fn operations(&self, number_first: u64) -> Workload {
        let mut prng = Prng::from_seed(self.seed);
        let schedule = Schedule::new(self.profile(), self.arrivals, prng.split());
        let recipe = self.recipe();
        let keys = self.choosers(&recipe);
        let Recipe { mix, value_size, ttl, .. } = recipe;
        Workload::new(schedule, mix, keys, value_size, ttl, prng.split(), number_first)
    }

    /// The writes that come before them: one for each key, or none.
    pub fn preload(&self) -> Vec<Preload> {
        let recipe = self.recipe();
        if !recipe.preload {
            return Vec::new();
        }
        // Another stream than the operations' own, or preloading would change them.
        let mut prng = Prng::from_seed(!self.seed);
        crate::workload::preload(
            self.key_first..self.key_first + recipe.keys,
            &recipe.value_size,
            &recipe.ttl,
            &mut prng,
        )
        .collect()
    }

    /// The workload, the preset or the ordinary load, with what was asked for otherwise.
    pub fn recipe(&self) -> Recipe {
        let named = match self.workload.as_ref().or(self.preset.as_ref()) {
            Some(Choice::Recipe(recipe)) => (**recipe).clone(),
            Some(Choice::List(_)) | None => Recipe::default(),
        };
        Recipe {
            keys: self.keys.unwrap_or(named.keys),
            popularity: self.popularity.unwrap_or(named.popularity),
            zipf: self.zipf.or(named.zipf),
            key_size: self.key_size.clone().or(named.key_size),
            value_size: self.value_size.clone().unwrap_or(named.value_size),
            mix: self.mix.clone().unwrap_or(named.mix),
            ttl: self.ttl.clone().unwrap_or(named.ttl),
            preload: (named.preload || self.preload) && !self.no_preload,
            ..named
        }
    }

    /// How the rate goes over the run.
    pub fn profile(&self) -> Profile {
        match &self.phases {
            Some(phases) => phases.profile(self.rate),
            None => Profile::steady(self.rate, self.duration),
        }
    }

    /// The numbers of all keys, inserts included.
    pub fn key_numbers(&self) -> Range<u64> {
        self.key_first..self.key_first + self.choosers(&self.recipe()).limit()
    }

    fn choosers(&self, recipe: &Recipe) -> Keys {
        let exponent = recipe.zipf.expect("a recipe without an exponent was refused");
        Keys::new(recipe.keys, recipe.popularity, exponent, self.inserts_max(recipe))
            .numbered_from(self.key_first)
    }

    /// More than a Poisson process will bring in any run: its deviation is the square root of what is expected.
    fn inserts_max(&self, recipe: &Recipe) -> u64 {
        let inserts = self.profile().operations() * recipe.mix.share(Kind::Write);
        ((inserts * 1.1) as u64 + 1000).min(Key::COUNT_MAX - 2 * KEYS_MAX)
    }

    /// A list is shown, and no run begins; a load that lacks something is refused.
    fn refuse_impossible(&self) -> Result<(), Refusal> {
        if let Some(Choice::List(list)) = self.workload.as_ref().or(self.preset.as_ref()) {
            return Err(Refusal::Shown(list.clone()));
        }
        match self.recipe() {
            Recipe { zipf: None, name, .. } => Err(Refusal::Wrong(format!(
                "error: the table has no Zipf exponent for {}: choose one with --zipf, such as --zipf 0.99",
                name.unwrap_or_default()
            ))),
            _ => Ok(()),
        }
    }
}

impl Replay {
    /// N, where it is known before the cluster is.
    fn copies(&self) -> Option<u8> {
        self.has_nodes_of_its_own().then(|| self.embedded.copies())
    }

    /// Whether nodes are started for it.
    pub fn has_nodes_of_its_own(&self) -> bool {
        self.servers.is_empty() && self.elsewhere.target.is_none()
    }
}

impl Embedded {
    /// N in force.
    pub fn copies(self) -> u8 {
        self.replicas.min(self.nodes)
    }
}

impl Judging {
    /// R and W of a cluster that keeps so many copies.
    pub fn quorums(&self, copies: u8) -> (u8, u8) {
        let majority = copies / 2 + 1;
        (self.read_quorum.unwrap_or(majority), self.write_quorum.unwrap_or(majority))
    }

    /// What a read behind an acknowledged write means.
    pub fn consistency(&self, copies: u8) -> Consistency {
        let (read, write) = self.quorums(copies);
        let overlap = u16::from(read) + u16::from(write) > u16::from(copies);
        self.consistency.unwrap_or(if overlap { Consistency::Strict } else { Consistency::Eventual })
    }

    /// One sentence, if a quorum is beyond so many copies.
    pub fn refuse_quorums(&self, copies: u8) -> Result<(), String> {
        let (read, write) = self.quorums(copies);
        match [("--read-quorum", read), ("--write-quorum", write)]
            .into_iter()
            .find(|&(_, quorum)| quorum > copies)
        {
            None => Ok(()),
            Some((name, quorum)) => {
                Err(format!("{name} {quorum} can never be reached: there are {copies} copies of a key"))
            }
        }
    }

    fn refuse_impossible(&self, copies: Option<u8>) -> Result<(), Refusal> {
        if let Some(copies) = copies {
            self.refuse_quorums(copies).map_err(|reason| Refusal::Wrong(format!("error: {reason}")))?;
            if self.zones.is_some_and(|zones| zones > 1) {
                let reason = "error: --zones needs --servers: the nodes on this machine are all in one zone";
                return Err(Refusal::Wrong(reason.to_owned()));
            }
        }
        if self.spin > SPIN_MAX {
            let spin = self.spin;
            return Err(Refusal::Wrong(format!(
                "error: --spin {spin:?} takes a whole core: choose 1ms or less"
            )));
        }
        Ok(())
    }
}

impl Command {
    /// The subcommand's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Demo(_) => "demo",
            Self::Check(_) => "check",
            Self::Replay(_) => "replay",
            Self::Search(_) => "search",
            Self::Sweep(_) => "sweep",
            Self::Compare(_) => "compare",
            Self::Merge(_) => "merge",
            Self::Node(_) => "node",
        }
    }

    /// The objective, given or by default. What is no load has none.
    pub fn objective(&self) -> Objective {
        let Some(judging) = self.judging() else { return Objective::default() };
        let by_default = if self.is_replay() { SLO_REPLAY_DEFAULT } else { SLO_DEFAULT };
        judging.slo.clone().unwrap_or_else(|| by_default.parse().expect("the default is an objective"))
    }

    /// Each request's deadline, given or by default.
    pub fn timeout(&self) -> Duration {
        let by_default = if self.is_replay() { TIMEOUT_REPLAY_DEFAULT } else { TIMEOUT_DEFAULT };
        self.judging().and_then(|judging| judging.timeout).unwrap_or(by_default)
    }

    /// The sending side's own bounds, given or by default.
    pub fn limits(&self) -> Limits {
        let (beyond, by_default) = if self.is_replay() {
            (Beyond::Wait, Limits::IN_FLIGHT_REPLAY)
        } else {
            (Beyond::Fail, Limits::IN_FLIGHT_DEFAULT)
        };
        let given = self.judging().and_then(|judging| judging.in_flight);
        let spin = self.judging().map_or(Pacer::SPIN_DEFAULT, |judging| judging.spin);
        let unpaced = matches!(self, Self::Replay(Replay { speed: Speed::Max, .. }));
        Limits {
            in_flight_max: given.map_or(by_default, |count| count as usize),
            beyond,
            spin,
            interval_s: 1,
            unpaced,
        }
    }

    /// What a write replaces, given or by the load's own nature.
    pub fn writes(&self) -> Writes {
        let given = self.judging().and_then(|judging| judging.writes);
        given.or_else(|| self.load().map(|load| load.recipe().writes)).unwrap_or_default()
    }

    /// The made-up load, if it is one.
    pub fn load(&self) -> Option<&Load> {
        match self {
            Self::Demo(demo) => Some(&demo.load),
            Self::Check(check) => Some(&check.load),
            _ => None,
        }
    }

    fn is_replay(&self) -> bool {
        matches!(self, Self::Replay(_))
    }

    fn judging(&self) -> Option<&Judging> {
        match self {
            Self::Demo(demo) => Some(&demo.judging),
            Self::Check(check) => Some(&check.judging),
            Self::Replay(replay) => Some(&replay.judging),
            _ => None,
        }
    }
}

impl FromStr for Server {
    type Err = ServerError;

    fn from_str(text: &str) -> Result<Self, ServerError> {
        let port =
            text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
        match port {
            Some(Ok(port)) if port > 0 => Ok(Self(text.to_owned())),
            _ => Err(ServerError(text.to_owned())),
        }
    }
}

/// Loads Ringmain on a schedule, verifies every read, and judges latencies by an objective
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
#[command(after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    demo: Demo,
}

const AFTER_HELP: &str = "Exit codes: 0 the objective is met, 1 it is missed, 2 wrong usage, or no server \
    could be reached, 3 the generator itself could not offer the load.";
const SLO_DEFAULT: &str = "p99.9<300ms,errors<0.001%";
const SLO_REPLAY_DEFAULT: &str = "errors<0.001%";
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);
/// The longest that servers give by default: a replay has no objective for latency.
const TIMEOUT_REPLAY_DEFAULT: Duration = Duration::from_secs(10);
const SPIN_MAX: Duration = Duration::from_millis(1);
/// Below the highest number that a key's name has room for: inserts need some too.
const KEYS_MAX: u64 = Key::COUNT_MAX / 4;
const EXPONENT_MAX: f64 = 20.0;
const _: () = assert!(Pacer::SPIN_DEFAULT.as_micros() == 5, "the default of --spin is written 5us");

/// clap's own errors fill a screen; their first paragraph says it all.
fn refusal(error: &clap::Error) -> Refusal {
    let text = error.render().to_string();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return Refusal::Shown(text);
    }
    let paragraph: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    Refusal::Wrong(format!("{} (see loadgen --help)", paragraph.join(" ")))
}

fn parse_exponent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(exponent) if (0.0..=EXPONENT_MAX).contains(&exponent) => Ok(exponent),
        _ => Err("write a number from 0 to 20, such as 0.99".to_owned()),
    }
}

mod elsewhere;
mod settings;
pub mod studies;
#[cfg(test)]
mod tests;
