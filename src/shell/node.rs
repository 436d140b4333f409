//! A whole node: from its configuration to shards that serve.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration as StdDuration;

use ringmain_schema::limits::{PROTOCOL_MAX, PROTOCOL_MIN};
use ringmain_schema::message::{ErrorAnswer, Hello, PeerHello, Role, Welcome};
use ringmain_schema::{Encoder, Frame, Kind};
use thiserror::Error;

use super::clock;
use super::log::Log;
use super::probe::StartError;
use super::recovered::{Data, shard_memory_max};
use super::signals::serve_logged;
use super::start::{Placement, Server, ShardStart, ShellOptions};
use crate::config::{Config, ConfigError, HostPort, Sync};
use crate::id::ClusterId;
use crate::membership::{
    Founder, Founders, InvalidFounders, Membership, MembershipOptions, Place, cluster_id,
};
use crate::pace::PaceOptions;
use crate::prng::Prng;
use crate::ring::Partitions;
use crate::shard::{Shard, ShardOptions};
use crate::time::Duration;

/// For so long a node asks its seeds which cluster they are before it gives up.
const SEEDS_WITHIN: Duration = Duration::from_secs(30);
const SEED_TIMEOUT: StdDuration = StdDuration::from_secs(1);
const SEED_PAUSE: StdDuration = StdDuration::from_millis(200);

/// What hello, status and the command line say of this program.
pub const SOFTWARE: &str = concat!("ringmain ", env!("CARGO_PKG_VERSION"));

/// Why a node can't serve.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The name in `listen` means nothing here.
    #[error("{address} is no address to listen on ({reason}): give an address of this machine")]
    Listen {
        /// As configured.
        address: HostPort,
        /// What the resolver said.
        reason: String,
    },
    /// The list of initial members can't be.
    #[error(transparent)]
    Founders(#[from] InvalidFounders),
    /// The cluster that is to be joined is another than the configuration takes it for.
    #[error(transparent)]
    Joining(#[from] ConfigError),
    /// No seed said which cluster it belongs to.
    #[error("no seed answered within {} s (the last said: {reason}): check the addresses and that they are up", SEEDS_WITHIN.as_millis() / 1000)]
    Seeds {
        /// The last refusal or failure.
        reason: String,
    },
    /// The machine, or its ports.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Serve as configured until told to stop. `ready` is called when the ports are open, which is before the
/// cluster's members have met.
pub fn serve_node(config: &Config, ready: impl FnOnce(&Server)) -> Result<(), NodeError> {
    let plan = Plan::new(config)?;
    let stop_with_stdin = config.stop_with_stdin;
    let options = shell_options(config)?;
    let ready = move |server: &Server| {
        if stop_with_stdin {
            stop_at_end_of_input(server);
        }
        ready(server);
    };
    let data = Data::open(config, plan.cluster, &plan.name, plan.membership.partitions);
    let data = data.map_err(StartError::from)?;
    // The directory is locked until the last shard has left.
    let kept = data.clone();
    let served = serve_logged(&options, move |start| plan.shard(&start, data.as_deref()), ready);
    drop(kept);
    Ok(served?)
}

/// What all shards of a node are made from.
#[derive(Clone)]
struct Plan {
    cluster: ClusterId,
    name: Arc<str>,
    host: Arc<str>,
    weight: u32,
    data_center: Arc<str>,
    rack: Arc<str>,
    founders: Founders,
    seeds: Vec<(Arc<str>, u16)>,
    membership: MembershipOptions,
    shard: ShardOptions,
    /// Of this process: all of its shards say the same.
    life: u64,
}

impl Plan {
    fn new(config: &Config) -> Result<Self, NodeError> {
        let name: Arc<str> = config.name.as_str().into();
        let secret: Arc<[u8]> = config.secret.as_ref().map_or(&[][..], |secret| secret.as_bytes()).into();
        let listed = config.members.iter().map(|member| Founder {
            name: member.name.as_str().into(),
            host: member.address.host.as_str().into(),
            port: member.address.port,
        });
        let founders = Founders::new(listed.collect(), &name)?;
        let joined = if config.seeds.is_empty() {
            let cluster = if founders.is_empty() {
                cluster_id(&config.cluster, [&*name].into_iter())
            } else {
                cluster_id(&config.cluster, founders.iter().map(|founder| &*founder.name))
            };
            Joined { cluster, partitions: 0, replicas: 0 }
        } else {
            ask_seeds(&config.seeds, &secret)?
        };
        let config = &config.clone().joining(joined.partitions, joined.replicas)?;
        let partitions = config.partitions.and_then(|count| Partitions::new(count).ok());
        let (partitions, replicas) = partitions
            .zip(config.replicas)
            .expect("the configuration is checked, and who joins has taken over");
        Ok(Self {
            cluster: joined.cluster,
            name,
            host: config.advertise.as_str().into(),
            weight: config.weight,
            data_center: config.data_center.as_str().into(),
            rack: config.rack.as_str().into(),
            founders,
            seeds: config.seeds.iter().map(|seed| (seed.host.as_str().into(), seed.port)).collect(),
            membership: MembershipOptions { partitions, replicas },
            shard: ShardOptions { replicas, ..shard_options(config, secret) },
            life: clock::seed().max(1),
        })
    }

    /// A shard, as its log has left it, if it has one.
    fn shard(&self, start: &ShardStart, data: Option<&Data>) -> Result<(Shard, Option<Log>), StartError> {
        let place = Place {
            host: self.host.clone(),
            ordinary_port: start.ports.ordinary,
            shard_ports: start.ports.shards.as_slice().into(),
            weight: self.weight,
            data_center: self.data_center.clone(),
            rack: self.rack.clone(),
        };
        let guest = !self.seeds.is_empty();
        let membership = || {
            let place = place.clone();
            Membership::new(self.cluster, &self.name, place, &self.founders, guest, self.membership)
                .with_life(self.life)
        };
        let options = ShardOptions { shard: start.shard, durable: data.is_some(), ..self.shard.clone() };
        let mut shard = Shard::new(options, membership(), &self.seeds, Prng::from_seed(start.seed));
        let log =
            data.map(|data| data.recover(start.shard, &mut shard, membership, &start.stop)).transpose()?;
        Ok((shard, log))
    }
}

fn shard_options(config: &Config, secret: Arc<[u8]>) -> ShardOptions {
    ShardOptions {
        shards: config.shards,
        secret,
        read: config.read,
        write: config.write,
        budget_default: config.timeout,
        budget_max: config.timeout_max,
        value_bytes_max: config.value_bytes_max,
        requests_in_flight_max: config.requests_in_flight_max,
        anti_entropy: Some(config.anti_entropy).filter(|every| *every != Duration::ZERO),
        // A raise that was told must not be undone by a loss of power: such a node proposes none.
        reap: Some(config.reap).filter(|every| {
            *every != Duration::ZERO && (config.data.is_none() || config.sync == Sync::Always)
        }),
        hint_bytes_max: usize::try_from(config.hint_bytes_max).unwrap_or(usize::MAX),
        memory_max: shard_memory_max(config),
        pace: PaceOptions {
            latency: Some(config.background_latency).filter(|latency| *latency != Duration::ZERO),
            bytes_min: config.background_bytes_min.into(),
        },
        ..ShardOptions::single(SOFTWARE)
    }
}

fn shell_options(config: &Config) -> Result<ShellOptions, NodeError> {
    let refused = |reason: String| NodeError::Listen { address: config.listen.clone(), reason };
    let mut found = resolve(&config.listen).map_err(|error| refused(error.to_string()))?;
    let listen = found.next().ok_or_else(|| refused("it has no address".to_owned()))?;
    Ok(ShellOptions {
        shard_ports: config.shard_ports.clone(),
        placement: if config.pin { Placement::Pinned } else { Placement::Unbound },
        spin: Duration::from_micros(config.spin_us.into()),
        ..ShellOptions::new(listen, usize::from(config.shards))
    })
}

fn resolve(address: &HostPort) -> std::io::Result<impl Iterator<Item = SocketAddr> + use<>> {
    (address.host.trim_matches(['[', ']']), address.port).to_socket_addrs()
}

/// For embedded nodes: whoever started this one holds the other end of its standard input, and is gone when
/// that ends, however it went.
fn stop_at_end_of_input(server: &Server) {
    let stopper = server.stopper();
    let watch = move || {
        let mut ignored = [0; 64];
        while std::io::stdin().read(&mut ignored).is_ok_and(|length| length > 0) {}
        stopper.stop();
    };
    let watching = std::thread::Builder::new().name("stdin".into()).spawn(watch);
    if let Err(error) = watching {
        eprintln!("ringmain: can't watch standard input: {error}");
        server.stop();
    }
}

/// What a node must know of its cluster before anything else: its own id follows from the cluster's, and the ring from
/// what the founders fixed.
struct Joined {
    cluster: ClusterId,
    /// Q; 0 if nobody says.
    partitions: u32,
    /// N; 0 if nobody says.
    replicas: u8,
}

/// Which cluster the seeds belong to.
fn ask_seeds(seeds: &[HostPort], secret: &[u8]) -> Result<Joined, NodeError> {
    let until = clock::now().monotonic + SEEDS_WITHIN;
    loop {
        let mut reason = String::new();
        for seed in seeds {
            match ask_seed(seed, secret) {
                Ok(joined) => return Ok(joined),
                Err(error) => reason = format!("{seed}: {error}"),
            }
        }
        if clock::now().monotonic >= until {
            return Err(NodeError::Seeds { reason });
        }
        std::thread::sleep(SEED_PAUSE);
    }
}

fn ask_seed(seed: &HostPort, secret: &[u8]) -> std::io::Result<Joined> {
    let address = resolve(seed)?.next().ok_or_else(|| std::io::Error::other("it has no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, SEED_TIMEOUT)?;
    stream.set_read_timeout(Some(SEED_TIMEOUT))?;
    let hello = Hello {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        role: Role::Client,
        cluster: 0,
        secret,
        software: SOFTWARE,
        peer: PeerHello::default(),
    };
    let mut bytes = Vec::new();
    hello.encode(&mut Encoder::default(), 0, &mut bytes);
    stream.write_all(&bytes)?;
    bytes.clear();
    let mut chunk = [0; 4096];
    loop {
        let length = stream.read(&mut chunk)?;
        if length == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&chunk[..length]);
        let frame = Frame::split(&bytes, ringmain_schema::limits::META_BYTES_MAX);
        if let Some(frame) = frame.map_err(std::io::Error::other)? {
            return read_welcome(&frame);
        }
    }
}

fn read_welcome(frame: &Frame<'_>) -> std::io::Result<Joined> {
    if frame.header.kind == Kind::WELCOME {
        let welcome = Welcome::parse(frame).map_err(std::io::Error::other)?;
        let Welcome { partitions, replicas, .. } = welcome;
        return Ok(Joined { cluster: ClusterId(welcome.cluster), partitions, replicas });
    }
    let error = ErrorAnswer::parse(frame).map_err(std::io::Error::other)?;
    Err(std::io::Error::other(error.message))
}

#[cfg(test)]
mod tests {
    use ringmain_schema::token;

    use super::*;
    use crate::anti_entropy::Trees;
    use crate::config::{ByteSize, Settings, memory_least};
    use crate::id::{PartitionId, ShardId};
    use crate::shard::{Input, Machine, Output, SIBLING_RING_SLOTS, SiblingMessage};
    use crate::shell::doorbell::Doorbell;
    use crate::shell::mesh::Mesh;
    use crate::shell::net::Net;
    use crate::shell::start::Ports;
    use crate::shell::stop::Stop;
    use crate::storage::Change;

    const VALUE_BYTES: u32 = 64 << 10;

    /// The trees of a shard that has keys everywhere in its partitions.
    fn full_trees(partitions: u32, shards: u16) -> usize {
        let mut trees = Trees::new(partitions);
        for partition in (0..partitions).filter(|&partition| token::shard_of(partition, shards) == 0) {
            for branch in 0..32u64 {
                let below = branch << (64 - 5 - partitions.trailing_zeros());
                trees.apply(&Change { partition: PartitionId(partition), token: below, before: 0, after: 1 });
            }
        }
        trees.memory()
    }

    /// What a shard takes that nobody can put out, as it counts it itself: of a node with the least limit that is let through.
    fn fixed(shards: u16, partitions: u32) -> (usize, usize) {
        let memory_max = memory_least(shards, partitions, VALUE_BYTES, false);
        let settings = Settings {
            memory_max: Some(ByteSize(memory_max)),
            shards: Some(shards),
            partitions: Some(partitions),
            value_bytes_max: Some(ByteSize(VALUE_BYTES.into())),
            pin: Some(false),
            ..Settings::default()
        };
        let plan = Plan::new(&Config::from_settings(settings, 1).unwrap()).unwrap();
        let doorbells: Vec<_> = (0..shards).map(|_| Doorbell::new().unwrap()).collect();
        let mut meshes = Mesh::<SiblingMessage>::connect(&doorbells, SIBLING_RING_SLOTS);
        let mut net = Net::new(&doorbells[0], Vec::new(), 1 << 20).unwrap();
        let ports = Arc::new(Ports { ordinary: 1, shards: (2..shards + 2).collect() });
        let (now, stop) = (clock::now(), Stop::new(doorbells));
        let (mut shard, _) =
            plan.shard(&ShardStart { shard: ShardId(0), ports, now, seed: 1, stop }, None).unwrap();
        let mut output = Output::default();
        output.bytes.reserve(1 << 20);
        output.clear();
        let bytes = output.memory() + meshes[0].memory() + net.memory(1);
        shard.handle(now, Input::Buffered { bytes }, &mut output);
        let memory = shard.memory();
        let part = memory_max as usize / usize::from(shards);
        (memory.total() - memory.trees + full_trees(partitions, shards), part)
    }

    /// The configuration can't see what takes memory here, so its numbers are held against that.
    #[test]
    fn the_least_limit_on_memory_leaves_half_of_it_to_keys() {
        for (shards, partitions) in [(1, 1), (1, 64), (2, 1024), (8, 16), (3, 512), (1, 65_536)] {
            let (fixed, part) = fixed(shards, partitions);
            let most = part / 2 - 4 * VALUE_BYTES as usize;
            assert!(fixed <= most, "{shards} shards, {partitions} partitions: {fixed} of {part}");
            assert!(fixed > most / 5 * 4, "{shards} shards, {partitions} partitions: only {fixed} of {part}");
        }
    }
}
