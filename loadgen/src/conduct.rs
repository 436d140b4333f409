//! Carries a command out: from what was typed to a report and an exit code.
//!
//! Everything runs on one thread, but for the pacer's: the client's connections share it with the loop that
//! keeps the books, so that no answer waits for a hand-over between cores that the nodes need.

use std::collections::BTreeSet;
use std::fs::File;
use std::future::Future;
use std::io::{BufReader, Write};
use std::ops::Range;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringmain::config::Secret;
use ringmain_client::{Builder, Client};
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::audit::{InDoubt, Rules};
use crate::cli::{Check, Command, Demo, Elsewhere, Embedded, Judging, Load, Replay, Server};
use crate::clock::Moment;
use crate::embedded::{self, Cluster, Plan};
use crate::exit::Exit;
use crate::hlog;
use crate::inject::{Act, Deed, Done, Incidents, Injections};
use crate::interrupt::Interrupt;
use crate::intervals::length_s;
use crate::key_names::KeyNames;
use crate::ledger::Consistency;
use crate::operation::Operation;
use crate::recipe::Recipe;
use crate::record::Record;
use crate::report::Report;
use crate::runner::{Finished, LEAD, Runner};
use crate::target::Target;
use crate::target::cluster::{ClusterTarget, Routed};
use crate::target::peer::Peer;
use crate::target::wire::WireTarget;
use crate::trace::{Speed, Trace};
use crate::verdict::Verdict;
use crate::workload::Preload;

/// Carries a command out, and tells what the process shall exit with.
pub fn conduct(command: Command) -> ExitCode {
    let exit = match command {
        Command::Node(arguments) => return embedded::serve(*arguments),
        Command::Compare(arguments) => studies::compare(&arguments),
        Command::Merge(arguments) => studies::merge(&arguments),
        Command::Search(arguments) => studies::search(&arguments),
        Command::Sweep(arguments) => studies::sweep(&arguments),
        command => run(&command),
    };
    let exit = exit.unwrap_or_else(|setback| {
        eprintln!("error: {}", setback.sentence);
        setback.exit
    });
    exit.into()
}

/// Why there was no run to report about.
struct Setback {
    exit: Exit,
    sentence: String,
}

/// What served a run.
#[derive(Default)]
struct Served {
    /// Of each key.
    copies: u8,
    /// Equal for runs against one cluster.
    name: String,
    /// Its version, if it is no Ringmain.
    version: Option<String>,
    /// What of it was not judged, in sentences.
    notes: Vec<String>,
    silent: Silent,
}

/// What is known of whoever serves, before it does.
struct Bearing {
    consistency: Consistency,
    in_doubt: InDoubt,
    may_evict: bool,
}

/// What to offer.
struct Offer {
    operations: Box<dyn Iterator<Item = Operation> + Send>,
    /// Writes that come before them, and are not measured.
    preload: Vec<Preload>,
    /// The numbers of all keys.
    keys: Range<u64>,
    /// What they are called.
    names: KeyNames,
    /// Bytes of the shortest value.
    length_min: u32,
    /// How long it takes, as far as anybody knows.
    seconds: Option<f64>,
}

/// A run, as far as the cluster it goes to doesn't matter.
struct Run<'a> {
    command: &'a Command,
    judging: &'a Judging,
    offer: Offer,
    /// Created before the run, so that a mistake in its path doesn't cost the run.
    json: Option<File>,
    hlog: Option<File>,
    interrupt: Interrupt,
    /// Unlike that of any other run, so that the values of others are told apart.
    tag: u64,
}

/// Two requests in flight for each operation at most: updates read first.
const REQUESTS_PER_OPERATION: usize = 2;
/// Beside the operations: questions about status and topology.
const REQUESTS_MORE: usize = 1024;

fn run(command: &Command) -> Result<Exit, Setback> {
    let (judging, offer) = match command {
        Command::Demo(Demo { load, judging, .. }) | Command::Check(Check { load, judging, .. }) => {
            (judging, Offer::made_up(load))
        }
        Command::Replay(Replay { trace, speed, preload, judging, .. }) => {
            (judging, Offer::replayed(trace, *speed, *preload)?)
        }
        _ => unreachable!("only loads are run"),
    };
    let json = judging.json.as_deref().map(create).transpose()?;
    let hlog = judging.hlog.as_deref().map(create).transpose()?;
    let interrupt =
        Interrupt::listen().map_err(|error| failed(format!("can't listen for signals: {error}")))?;
    let run = Run { command, judging, offer, json, hlog, interrupt, tag: run_tag() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed(format!("can't set up a runtime: {error}")))?;
    LocalSet::new().block_on(&runtime, run.where_it_goes())
}

impl Offer {
    fn made_up(load: &Load) -> Self {
        let preload = load.preload();
        let Recipe { key_size, value_size, .. } = load.recipe();
        let keys = load.key_numbers();
        Self {
            operations: Box::new(load.operations(preload.len() as u64)),
            preload,
            keys: keys.clone(),
            names: KeyNames::new(key_size, keys.end),
            length_min: value_size.shortest(),
            seconds: Some(load.profile().duration().as_secs_f64()),
        }
    }

    fn replayed(path: &Path, speed: Speed, preload: bool) -> Result<Self, Setback> {
        let wrong = |reason: String| wrong(format!("{}: {reason}", path.display()));
        let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
        let trace = Trace::read(BufReader::new(file)).map_err(|error| wrong(error.to_string()))?;
        let (requests, objects) = (trace.requests(), trace.objects());
        trace.refuse_too_long(speed).map_err(|error| wrong(error.to_string()))?;
        let seconds = speed.seconds(trace.span_ns());
        match seconds {
            Some(seconds) => eprintln!("{requests} requests for {objects} keys in {seconds:.0} s"),
            None => eprintln!("{requests} requests for {objects} keys, as fast as answers come"),
        }
        if let (forgiven @ 1.., writes) = trace.forgiven(speed) {
            eprintln!(
                "{forgiven} of {writes} values live for about a second or less at {speed}: that one of them is lost can't be told \
                 from its end, so it is not judged"
            );
        }
        let preload = if preload { trace.preload() } else { Vec::new() };
        Ok(Self {
            keys: 0..trace.objects(),
            names: KeyNames::default(),
            length_min: trace.length_min(),
            seconds,
            operations: Box::new(trace.into_operations(speed, preload.len() as u64)),
            preload,
        })
    }
}

impl Run<'_> {
    async fn where_it_goes(self) -> Result<Exit, Setback> {
        match self.command {
            Command::Demo(Demo { load, embedded, no_kill, inject, .. }) => {
                let length = load.profile().duration();
                let deeds = match inject {
                    Some(inject) => deeds(inject, *embedded, Some(length))?,
                    None if *no_kill => Vec::new(),
                    None => vec![Deed { at: length / 2, act: Act::Kill, node: 1 }],
                };
                self.on_nodes_of_its_own(*embedded, deeds).await
            }
            Command::Replay(replay) if replay.has_nodes_of_its_own() => {
                let length = self.offer.seconds.map(Duration::from_secs_f64);
                let deeds = match &replay.inject {
                    Some(inject) => deeds(inject, replay.embedded, length)?,
                    None => Vec::new(),
                };
                self.on_nodes_of_its_own(replay.embedded, deeds).await
            }
            Command::Check(Check { servers, secret_file, elsewhere, .. })
            | Command::Replay(Replay { servers, secret_file, elsewhere, .. }) => match &elsewhere.target {
                Some(peer) => self.on_peer(peer, elsewhere).await,
                None => self.on_servers(servers, secret_file.as_deref()).await,
            },
            _ => unreachable!("only loads are run"),
        }
    }

    /// Starts nodes, and does to them what shall be done.
    async fn on_nodes_of_its_own(self, embedded: Embedded, deeds: Vec<Deed>) -> Result<Exit, Setback> {
        let Embedded { nodes, shards, .. } = embedded;
        let plan = Plan::of_this_program(nodes, shards, embedded.copies());
        let builder = self.builder();
        let started = self.unless_interrupted(Cluster::start(&plan, &builder)).await?;
        let (mut cluster, client) = started.map_err(|error| failed(error.to_string()))?;
        self.refuse_routing(&client)?;
        eprintln!("nodes: {cluster}");
        let copies = embedded.copies();
        let incidents = Incidents::new(|done| carry_out(&deeds, &mut cluster, done));
        let (told, finished) = self.offer_ringmain(client, copies, incidents).await?;
        let faults = cluster.stop().await;
        let missed = deeds[finished.marks.len()..].iter();
        let notes =
            missed.map(|deed| format!("not done, as the run was over before: {deed} at {:?}", deed.at));
        let notes = notes.collect();
        // These nodes are no other run's.
        let name = format!("{:016x}, of this run alone", told.tag);
        told.report(&finished, &faults, Served { copies, name, notes, ..Served::default() })
    }

    async fn on_servers(self, servers: &[Server], secret_file: Option<&Path>) -> Result<Exit, Setback> {
        let mut builder = self.builder().servers(servers.iter().map(|Server(address)| address.clone()));
        if let Some(path) = secret_file {
            builder = builder.cluster_secret(read_secret(path)?.as_bytes());
        }
        let connected = self.unless_interrupted(builder.connect()).await?;
        let client = connected.map_err(|error| wrong(error.to_string()))?;
        let topology = client.known_topology();
        let copies = topology.as_ref().map_or(1, |topology| topology.replicas);
        let name = topology.map_or_else(|| "unknown".to_owned(), |it| format!("{:016x}", it.cluster));
        self.judging.refuse_quorums(copies).map_err(wrong)?;
        self.refuse_routing(&client)?;
        let before = self.unless_interrupted(silent(&client)).await?;
        let (told, finished) = self.offer_ringmain(client.clone(), copies, Incidents::none()).await?;
        let silent = still_silent(&client, &before).await;
        told.report(&finished, &[], Served { copies, name, silent, ..Served::default() })
    }

    async fn on_peer(self, peer: &Peer, elsewhere: &Elsewhere) -> Result<Exit, Setback> {
        let settings = elsewhere.settings(peer, self.command.timeout());
        let connected = self.unless_interrupted(WireTarget::connect(&settings)).await?;
        let (target, version) = connected.map_err(|error| wrong(error.to_string()))?;
        let bearing = Bearing {
            consistency: self.judging.consistency(1),
            in_doubt: InDoubt::ForEver,
            may_evict: elsewhere.may_evict,
        };
        let (told, finished) = self.offer(target.clone(), bearing, Incidents::none()).await?;
        let silent = if is_still_there(&target).await { Silent::default() } else { Silent::of(peer) };
        let notes = notes(peer, elsewhere, finished.evicted);
        let name = peer.to_string();
        told.report(&finished, &[], Served { copies: 1, name, version: Some(version), notes, silent })
    }

    fn routed(&self) -> Routed {
        self.judging.routing.unwrap_or_default()
    }

    fn refuse_routing(&self, client: &Client) -> Result<(), Setback> {
        let known = client.known_topology();
        known.map_or(Ok(()), |topology| self.routed().refuse_impossible(&topology)).map_err(wrong)
    }

    /// A client with what its requests shall ask for. Quorums that nobody chose are left to the cluster.
    fn builder(&self) -> Builder {
        let in_flight = self.command.limits().in_flight_max * REQUESTS_PER_OPERATION + REQUESTS_MORE;
        Client::builder()
            .read(self.judging.read_quorum.unwrap_or(0))
            .write(self.judging.write_quorum.unwrap_or(0))
            .zones(self.judging.zones.unwrap_or(0))
            .routing(self.routed().routing())
            .timeout(self.command.timeout())
            .in_flight_max(in_flight)
    }

    async fn offer_ringmain(
        self,
        client: Client,
        copies: u8,
        incidents: Incidents<impl Future<Output = ()>>,
    ) -> Result<(Self, Finished), Setback> {
        let consistency = self.judging.consistency(copies);
        let in_doubt = InDoubt::UpTo(self.command.timeout() * 2);
        let target = ClusterTarget::new(client, self.command.writes());
        self.offer(target, Bearing { consistency, in_doubt, may_evict: false }, incidents).await
    }

    /// Performs the operations, and what shall happen meanwhile.
    async fn offer(
        mut self,
        target: impl Target,
        bearing: Bearing,
        incidents: Incidents<impl Future<Output = ()>>,
    ) -> Result<(Self, Finished), Setback> {
        let Bearing { consistency, in_doubt, may_evict } = bearing;
        let rules = Rules {
            keys: self.offer.keys.clone(),
            names: self.offer.names.clone(),
            length_min: self.offer.length_min,
            run_tag: self.tag,
            consistency,
            in_doubt,
            may_evict,
        };
        let record = self.command.load().map_or_else(Record::default, |load| Record::new(&load.profile()));
        let mut limits = self.command.limits();
        limits.interval_s = self.offer.seconds.map_or(1, length_s);
        let mut runner = Runner::new(target, rules, limits, record);
        let preload = std::mem::take(&mut self.offer.preload);
        if !preload.is_empty() {
            eprintln!("writing {} keys first", preload.len());
            let preloaded = self.unless_interrupted(runner.preload(preload)).await?;
            preloaded.map_err(|error| failed(error.to_string()))?;
        }
        let operations = std::mem::replace(&mut self.offer.operations, Box::new(std::iter::empty()));
        let quiet = self.judging.quiet;
        let line = |line: String| {
            if !quiet {
                eprintln!("{line}");
            }
        };
        let finished = runner.run(operations, incidents, self.interrupt.flag(), line).await;
        Ok((self, finished))
    }

    /// Judges, and tells.
    fn report(self, finished: &Finished, faults: &[String], served: Served) -> Result<Exit, Setback> {
        let Served { copies, name, version, notes, silent } = served;
        let objective = self.command.objective();
        let verdict = Verdict::reach(&objective, &finished.record, &finished.offered, faults);
        let exit = verdict.exit;
        let mut settings = self.command.describe(copies);
        settings.insert("cluster", name);
        settings.extend(version.map(|version| ("server", version)));
        let runs = vec![format!("{:016x}", self.tag)];
        let gone = silent.gone.iter().map(|it| format!("{it} answered before the run, and not after it"));
        let (gone, silent) = (gone.collect(), silent.now.into_iter().collect());
        let report = Report { notes, gone, silent, runs, ..Report::new(finished, verdict, faults, settings) };
        if let Some(mut json) = self.json {
            let written = json.write_all(report.json().as_bytes());
            written.map_err(|error| failed(format!("the report can't be written as JSON: {error}")))?;
        }
        if let Some(mut hlog) = self.hlog {
            let written =
                hlog.write_all(hlog::write(&finished.intervals, &finished.marks, finished.start).as_bytes());
            written.map_err(|error| failed(format!("the interval log can't be written: {error}")))?;
        }
        // Whoever closed our output doesn't want it; the exit code still tells.
        let _closed = std::io::stdout().write_all(report.text().as_bytes());
        Ok(exit)
    }

    async fn unless_interrupted<F: Future>(&self, future: F) -> Result<F::Output, Setback> {
        tokio::select! {
            biased;
            () = self.interrupt.raised() => Err(failed("stopped before the run began".to_owned())),
            output = future => Ok(output),
        }
    }
}

mod studies;

/// A server that is busy with what it was offered may answer late: so long it is asked.
const SILENT_AFTER: Duration = Duration::from_secs(5);
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Servers that don't answer.
#[derive(Default)]
struct Silent {
    /// All of them.
    now: BTreeSet<String>,
    /// Those that did before the run.
    gone: Vec<String>,
}

impl Silent {
    /// The only server there is.
    fn of(peer: &Peer) -> Self {
        Self { now: BTreeSet::from([peer.to_string()]), gone: vec![peer.to_string()] }
    }
}

/// Whether it answers after a run.
async fn is_still_there(target: &WireTarget) -> bool {
    let until = Instant::now() + SILENT_AFTER;
    while target.greet(SILENT_AFTER).await.is_err() {
        if Instant::now() >= until {
            return false;
        }
        sleep(ASK_EVERY).await;
    }
    true
}

/// The shards that don't answer.
async fn silent(client: &Client) -> BTreeSet<String> {
    let answers = client.status().await.into_iter();
    answers.filter(|shard| shard.status.is_err()).map(|shard| shard.address).collect()
}

/// Those that don't after a run. With R + W > N the cluster goes on without one of its nodes, and its figures needn't
/// show it.
async fn still_silent(client: &Client, before: &BTreeSet<String>) -> Silent {
    let until = Instant::now() + SILENT_AFTER;
    loop {
        let now = silent(client).await;
        let gone: Vec<String> = now.difference(before).cloned().collect();
        if gone.is_empty() || Instant::now() >= until {
            return Silent { now, gone };
        }
        sleep(ASK_EVERY).await;
    }
}

fn deeds(inject: &Injections, embedded: Embedded, run: Option<Duration>) -> Result<Vec<Deed>, Setback> {
    inject.deeds(embedded.nodes, run).map_err(|error| wrong(format!("--inject: {error}")))
}

/// Does to the nodes what shall be done, each thing at its time after the run's start.
async fn carry_out(deeds: &[Deed], cluster: &mut Cluster, done: mpsc::UnboundedSender<Done>) {
    let start = Instant::now() + LEAD;
    for &deed in deeds {
        sleep_until(start + deed.at).await;
        cluster.perform(&deed);
        eprintln!("        {deed}");
        // Nobody listens once the run is over, and then this isn't polled.
        let _over = done.send(Done { deed, at: Moment::now() });
    }
}

/// What isn't judged of a server that is no Ringmain.
fn notes(peer: &Peer, elsewhere: &Elsewhere, evicted: u64) -> Vec<String> {
    let mut notes = vec![format!(
        "not judged, as {peer} has none: siblings, contexts, quorums, zones; values are verified as ever"
    )];
    if elsewhere.may_evict {
        notes.push(format!(
            "{evicted} reads found nothing where a write was acknowledged: not judged, as the target may evict"
        ));
    }
    if let Some(replicas) = elsewhere.wait {
        notes.push(format!(
            "a write counts as stored when WAIT told of {replicas} replicas; reads go to this server"
        ));
    }
    notes
}

fn create(path: &Path) -> Result<File, Setback> {
    File::create(path).map_err(|error| wrong(format!("{}: {error}", path.display())))
}

fn read_secret(path: &Path) -> Result<Secret, Setback> {
    let text = std::fs::read_to_string(path);
    text.map(|text| Secret::new(&text)).map_err(|error| wrong(format!("{}: {error}", path.display())))
}

/// Another one for each run, so that the values of an earlier one are told apart.
fn run_tag() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_nanos() as u64 ^ u64::from(std::process::id())
}

fn failed(sentence: String) -> Setback {
    Setback { exit: Exit::Missed, sentence }
}

fn wrong(sentence: String) -> Setback {
    Setback { exit: Exit::Usage, sentence }
}
