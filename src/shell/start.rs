//! Bringing a node up: ports first, then threads, then machines; and taking it down.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::doorbell::Doorbell;
use super::executor::{ShardLoop, WholeOrNothing};
use super::host::Host;
use super::log::{DataError, Log};
use super::mesh::Mesh;
use super::names::Names;
use super::net::Net;
use super::probe::{self, StartError};
use super::stop::Stop;
use super::trial::SmallPages;
use super::{clock, sockets, trial};
use crate::id::ShardId;
use crate::shard::{Machine, SIBLING_RING_SLOTS, SiblingMessage};
use crate::time::{Duration, Instant, Now};

/// For so long a taken port is asked for again.
const PORT_FREE_WITHIN: Duration = Duration::from_millis(500);
const PORT_RETRY_EVERY: std::time::Duration = std::time::Duration::from_millis(5);

/// Where the shards of a node run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Placement {
    /// Shard by shard on the cores that the process may use, in order.
    #[default]
    Pinned,
    /// Wherever the kernel puts them: for several nodes on the same cores.
    Unbound,
}

/// What the shell needs to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShellOptions {
    /// The ordinary port, which all shards share; port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// The ports of each shard alone, in order; empty lets the kernel choose.
    pub shard_ports: Vec<u16>,
    /// 1 to 65,535.
    pub shards: usize,
    /// On which cores.
    pub placement: Placement,
    /// How long a shard without work looks for some before it sleeps; zero for not at all. Spinning costs a
    /// whole core, and saves a wake-up.
    pub spin: Duration,
    /// How long accepted requests may take to be answered after a stop.
    pub grace: Duration,
    /// Bytes that may wait to be sent on a connection somebody opened to us; past it, it isn't read.
    pub unsent_bytes_max: usize,
}

impl ShellOptions {
    /// Pinned, without spinning, with kernel-assigned ports for the shards.
    pub fn new(listen: SocketAddr, shards: usize) -> Self {
        Self {
            listen,
            shard_ports: Vec::new(),
            shards,
            placement: Placement::Pinned,
            spin: Duration::ZERO,
            grace: Duration::from_secs(5),
            unsent_bytes_max: 4 << 20,
        }
    }
}

/// Where a node listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ports {
    /// Of all shards.
    pub ordinary: u16,
    /// Of each shard, in order.
    pub shards: Vec<u16>,
}

/// What a machine is made from.
#[derive(Clone, Debug)]
pub struct ShardStart {
    /// Which shard.
    pub shard: ShardId,
    /// Of the whole node.
    pub ports: Arc<Ports>,
    /// The clocks as it starts.
    pub now: Now,
    /// From the kernel's randomness; another one for each shard.
    pub seed: u64,
    /// Another shard may fail meanwhile.
    pub(super) stop: Stop,
}

/// A node that serves.
#[derive(Debug)]
pub struct Server {
    ports: Arc<Ports>,
    stop: Stop,
    threads: Vec<JoinHandle<()>>,
}

/// Stops a server, from any thread.
#[derive(Clone, Debug)]
pub struct Stopper {
    stop: Stop,
}

impl Stopper {
    /// Take no more calls, answer what was accepted, then leave.
    pub fn stop(&self) {
        self.stop.request();
    }
}

impl Server {
    /// Where it listens.
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// For stopping it later.
    pub fn stopper(&self) -> Stopper {
        Stopper { stop: self.stop.clone() }
    }

    /// Take no more calls, answer what was accepted, then leave.
    pub fn stop(&self) {
        self.stop.request();
    }

    /// Wait until all shards have left.
    pub fn join(self) {
        for thread in self.threads {
            // A shard that panics takes the process with it, so there is nobody to hear of it here.
            let _ = thread.join();
        }
    }
}

/// Bring a node up: probe the machine, bind the ports, start a thread for each shard, and in it make its
/// machine. Returns when all ports are open, or with the first thing that went wrong.
pub fn start<M, F>(options: &ShellOptions, make: F) -> Result<Server, StartError>
where
    M: Machine + 'static,
    F: Fn(ShardStart) -> M + Send + Clone + 'static,
{
    start_logged(options, move |start| Ok((make(start), None)))
}

/// The same, for machines that come with a log, or fail to.
pub(super) fn start_logged<M, F>(options: &ShellOptions, make: F) -> Result<Server, StartError>
where
    M: Machine + 'static,
    F: Fn(ShardStart) -> Result<(M, Option<Log>), StartError> + Send + Clone + 'static,
{
    probe::machine(options.shards)?;
    let cores = cores_for(options)?;
    let (ports, listeners) = bind(options)?;
    let ports = Arc::new(ports);
    let doorbells = (0..options.shards).map(|_| Doorbell::new()).collect::<Result<Vec<_>, _>>();
    let doorbells = doorbells.map_err(StartError::Rings)?;
    let stop = Stop::new(doorbells.clone());
    let meshes = Mesh::connect(&doorbells, SIBLING_RING_SLOTS);
    let (report, reports) = sync_channel(options.shards);
    let _small_pages = SmallPages::begin();
    let mut server = Server { ports: ports.clone(), stop: stop.clone(), threads: Vec::new() };
    for (place, ((doorbell, mesh), listeners)) in doorbells.into_iter().zip(meshes).zip(listeners).enumerate()
    {
        let shard = ShardId(place as u16);
        let seat = Seat {
            shard,
            shards: options.shards,
            host: options.listen.ip(),
            core: cores.as_ref().map(|cores| cores[place]),
            doorbell,
            mesh,
            listeners,
            stop: stop.clone(),
            spin: options.spin,
            grace: options.grace,
            unsent_bytes_max: options.unsent_bytes_max,
        };
        let (make, ports, report) = (make.clone(), ports.clone(), report.clone());
        let for_shard = stop.clone();
        let make = move || {
            let (now, seed, stop) = (clock::now(), clock::seed(), for_shard);
            make(ShardStart { shard, ports, now, seed, stop })
        };
        let thread = std::thread::Builder::new().name(format!("shard-{place}"));
        match thread.spawn(move || seat.run(make, &report)) {
            Ok(thread) => server.threads.push(thread),
            Err(error) => {
                // Those that never ran have nothing to wait for.
                (place..options.shards).for_each(|place| stop.set_drained(place, true));
                return Err(server.abandon(StartError::Thread(error)));
            }
        }
    }
    server.when_open(&reports)
}

impl Server {
    /// Undo a start that failed half-way.
    fn abandon(self, error: StartError) -> StartError {
        self.stop();
        self.join();
        error
    }

    /// Wait for every shard's report; if one failed, stop the others.
    fn when_open(self, reports: &Receiver<Result<(), StartError>>) -> Result<Self, StartError> {
        // A shard reports once, or takes the process with it.
        match reports.iter().take(self.threads.len()).find_map(Result::err) {
            None => Ok(self),
            Some(error) => {
                let error = self.abandon(error);
                // One that gave up because another failed leaves it to that one to say why.
                let is_cause = |error: &StartError| !matches!(error, StartError::Data(DataError::Another));
                Err(reports
                    .try_iter()
                    .filter_map(Result::err)
                    .chain([error])
                    .find(is_cause)
                    .expect("there is a cause"))
            }
        }
    }
}

/// The cores to pin to, if shards are pinned.
fn cores_for(options: &ShellOptions) -> Result<Option<Vec<usize>>, StartError> {
    let shards = options.shards;
    if shards == 0 || shards > usize::from(u16::MAX) {
        return Err(StartError::Shards { shards });
    }
    if options.placement == Placement::Unbound {
        return Ok(None);
    }
    let cores = probe::cores();
    if cores.len() < shards {
        return Err(StartError::Cores { shards, cores: cores.len() });
    }
    Ok(Some(cores))
}

/// For each shard two bound sockets: its own, and its share of the ordinary port.
fn bind(options: &ShellOptions) -> Result<(Ports, Vec<Vec<OwnedFd>>), StartError> {
    let (host, shards) = (options.listen.ip(), options.shards);
    if !options.shard_ports.is_empty() && options.shard_ports.len() != shards {
        return Err(StartError::ShardPorts { ports: options.shard_ports.len(), shards });
    }
    // Another server that shares its port would be joined silently: ask for the port alone first.
    if options.listen.port() != 0 {
        bind_when_free(host, options.listen.port())?;
    }
    let mut ordinary = options.listen.port();
    let mut ports = Ports { ordinary, shards: Vec::with_capacity(shards) };
    let mut listeners = Vec::with_capacity(shards);
    for shard in 0..shards {
        let (shared, port) = bind_one(host, ordinary, true)?;
        ordinary = port;
        let (own, port) = bind_one(host, options.shard_ports.get(shard).copied().unwrap_or(0), false)?;
        ports.shards.push(port);
        listeners.push(vec![own, shared]);
    }
    ports.ordinary = ordinary;
    Ok((ports, listeners))
}

/// A server that was killed a moment ago may hold its port a while longer: the kernel takes its rings apart,
/// and with them its sockets, after the process is gone (about 10 ms when measured). Whoever starts it again at once
/// shouldn't be told that the port is taken.
fn bind_when_free(host: IpAddr, port: u16) -> Result<(), StartError> {
    let give_up = clock::monotonic() + PORT_FREE_WITHIN;
    loop {
        match bind_one(host, port, false) {
            Ok(_) => return Ok(()),
            Err(StartError::PortTaken { .. }) if clock::monotonic() < give_up => {
                std::thread::sleep(PORT_RETRY_EVERY);
            }
            Err(error) => return Err(error),
        }
    }
}

fn bind_one(host: IpAddr, port: u16, shared: bool) -> Result<(OwnedFd, u16), StartError> {
    let address = SocketAddr::new(host, port);
    let bound = sockets::bind(address, shared).and_then(|socket| {
        let port = sockets::port_of(&socket)?;
        Ok((socket, port))
    });
    bound.map_err(|reason| StartError::of_listening(address, reason))
}

/// A machine, and its log if it has one.
type Made<M> = Result<(M, Option<Log>), StartError>;

/// What a shard's thread takes with it.
struct Seat {
    shard: ShardId,
    shards: usize,
    host: IpAddr,
    core: Option<usize>,
    doorbell: Doorbell,
    mesh: Mesh<SiblingMessage>,
    listeners: Vec<OwnedFd>,
    stop: Stop,
    spin: Duration,
    grace: Duration,
    unsent_bytes_max: usize,
}

impl Seat {
    /// The thread of a shard.
    fn run<M: Machine + 'static>(
        self,
        make: impl FnOnce() -> Made<M> + 'static,
        report: &SyncSender<Result<(), StartError>>,
    ) {
        let (stop, place) = (self.stop.clone(), usize::from(self.shard.0));
        let _whole = WholeOrNothing(self.shard);
        let executor = trial::executor(self.core, self.shards);
        let served = executor.and_then(|executor| executor.run(self.serve(make, report.clone())));
        if let Err(error) = served {
            // The others are about to be stopped, and needn't wait for this one.
            stop.set_drained(place, true);
            // Room for one report of each shard: this never waits.
            let _ = report.send(Err(error));
        }
    }

    async fn serve<M: Machine>(
        self,
        make: impl FnOnce() -> Made<M>,
        report: SyncSender<Result<(), StartError>>,
    ) -> Result<(), StartError> {
        // The first park of an executor is slow; no client is to wait for it.
        glommio::timer::sleep(std::time::Duration::from_millis(1)).await;
        let shard = self.open(make)?;
        let _ = report.send(Ok(()));
        shard.run().await;
        Ok(())
    }

    /// Make the machine, open the ports, and set up the network.
    fn open<M: Machine>(self, make: impl FnOnce() -> Made<M>) -> Result<ShardLoop<M>, StartError> {
        let (machine, log) = make()?;
        for listener in &self.listeners {
            let address = || SocketAddr::new(self.host, sockets::port_of(listener).unwrap_or(0));
            sockets::listen(listener).map_err(|reason| StartError::of_listening(address(), reason))?;
        }
        let net = Net::new(&self.doorbell, self.listeners, self.unsent_bytes_max)
            .map_err(|error| StartError::of_rings(error, self.shards))?;
        let bell = self.doorbell.duplicate().map_err(StartError::Rings)?;
        Ok(ShardLoop {
            shard: self.shard,
            host: Host::new(machine, log, self.mesh, Names::new(self.doorbell.clone())),
            doorbell: self.doorbell,
            bell: Some(bell),
            net,
            stop: self.stop,
            spin: self.spin,
            grace: self.grace,
            leave_by: None,
            busy_at: Instant::default(),
            turned_at: None,
        })
    }
}
