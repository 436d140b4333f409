//! What a node is told to be: arguments and a file, read once and checked, become one [`Config`].
//!
//! [`Settings`] is what users write, every field optional, the same list for the command line and for the
//! TOML file; arguments override the file. [`Config`] is what they mean: defaults filled in, each value in its
//! range, all of them fitting together. Whoever holds one need not check it again. Only `main` and `shell`
//! see it; every other room gets small options of its own.
//!
//! Nothing here touches the network or a clock: files are read, and that is all. What only the machine can
//! tell (is the port free, is io_uring there) is asked by the shell when it starts.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ringmain_schema::limits::{
    HANDSHAKE_BYTES_MAX, MEMBERS_MAX, META_BYTES_MAX, WEIGHT_MAX, state_bytes_max,
};

use crate::time::Duration;

mod cores;
mod error;
mod memory;
mod settings;
mod text;

pub use cores::allowed as cores_allowed;
pub use error::ConfigError;
pub use memory::{LOG_BYTES, memory_least};
pub use settings::{ServeArguments, Settings};
pub use text::{ByteSize, Founder, HostPort, Mode, Secret, Span, Sync};

/// Copies of a key.
const REPLICAS_MAX: u8 = 8;
const REPLICAS_DEFAULT: u8 = 3;
const PARTITIONS_DEFAULT: u32 = 1024;
/// Cores of the largest machine anybody would give to one node.
const SHARDS_MAX: u16 = 1024;
const PARTITIONS_MAX: u32 = 65_536;
/// Eight of them, and the metadata, must fit in a frame whose length has 32 bits.
const VALUE_BYTES_LIMIT: u64 = 256 << 20;
/// Of the least that background work may do in a second: more than a shard can.
const BACKGROUND_BYTES_LIMIT: u64 = 1 << 30;
const REQUESTS_IN_FLIGHT_LIMIT: u32 = 65_536;
const VALUE_BYTES_UNLESS_SET: u32 = 8 << 20;
/// Whatever the largest value is.
const SEGMENT_BYTES_LEAST: u64 = 32 << 20;
/// What a log takes.
pub const SEGMENT_BYTES_MAX: u32 = 1 << 30;
/// Segments are whole multiples of this.
pub const SEGMENT_BYTES_UNIT: u32 = 4096;
/// What a segment holds beside its largest record: its header, the group's and the record's.
const SEGMENT_BYTES_BESIDE: u64 = 64 << 10;
const SPIN_US_MAX: u32 = 1_000_000;
/// The secret shares the handshake's frame with a list of ports.
const SECRET_BYTES_MAX: usize = HANDSHAKE_BYTES_MAX / 4;
/// Entries of two bytes in the partition map, which leaves half of a topology's metadata to its members.
const MAP_ENTRIES_MAX: usize = META_BYTES_MAX / 4;
const TIMEOUT_MIN: Duration = Duration::from_millis(1);
/// A frame carries what is left of a deadline in 32 bits of microseconds: a little over 71 minutes.
const TIMEOUT_LIMIT: Duration = Duration::from_secs(3600);

/// A node's configuration, checked.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// The port that all shards share. Port 0: of the kernel's choice.
    pub listen: HostPort,
    /// The host that others are told. Never one that stands for every address.
    pub advertise: String,
    /// Unique in the cluster.
    pub name: String,
    /// The cluster's name, from which its id comes.
    pub cluster: String,
    /// Founders of the cluster, this node among them, or none. None, and no seeds: a cluster of one.
    pub members: Vec<Founder>,
    /// Whom to ask in order to join a running cluster; empty if there are `members`.
    pub seeds: Vec<HostPort>,
    /// What members and clients must know.
    pub secret: Option<Secret>,
    /// Where `secret` was read from.
    pub secret_file: Option<String>,
    /// `1 <= shards`; with `pin`, at most the cores that the process may use.
    pub shards: u16,
    /// Each shard stays on a core of its own.
    pub pin: bool,
    /// One for each shard, or none: then the kernel chooses.
    pub shard_ports: Vec<u16>,
    /// N, before it is cut to the number of members. At least 1. `None`: whatever N the cluster has that is joined.
    pub replicas: Option<u8>,
    /// R where a request names none; 0 is a majority of the N in force. At most `replicas`.
    pub read: u8,
    /// W where a request names none; 0 is a majority of the N in force. At most `replicas`.
    pub write: u8,
    /// Q: a power of two, at most 65,536. `None`: whatever Q the cluster has that is joined.
    pub partitions: Option<u32>,
    /// May be empty.
    pub data_center: String,
    /// May be empty.
    pub rack: String,
    /// Capacity; 100 is ordinary. At least 1.
    pub weight: u32,
    /// The deadline of a request that brings none. At most `timeout_max`.
    pub timeout: Duration,
    /// No request gets longer than this.
    pub timeout_max: Duration,
    /// Of one value. At most 256 MiB.
    pub value_bytes_max: u32,
    /// Unanswered requests after which a connection isn't read. At least 1.
    pub requests_in_flight_max: u32,
    /// Each shard compares what it holds with one other replica so often; zero is never.
    pub anti_entropy: Duration,
    /// Each partition is looked at so often for deleted keys that all can forget; zero is never.
    pub reap: Duration,
    /// Of hints, for each shard and each node that can't be reached; 0 for strict quorums.
    pub hint_bytes_max: u64,
    /// Background work slows down when one request of twenty takes longer; zero for twice as long as usual.
    pub background_latency: Duration,
    /// What each shard may do of it in a second, whatever clients feel. From 1 B to 1 GiB.
    pub background_bytes_min: u32,
    /// Where values are kept.
    pub mode: Mode,
    /// Bytes for all shards together; 0 for no limit. In memory mode alone.
    pub memory_max: u64,
    /// The directory of the log; there is one in durable mode alone.
    pub data: Option<String>,
    /// When a record of the log counts.
    pub sync: Sync,
    /// Of a new log's segments: whole sectors of 4 KiB, from what holds the largest record to 1 GiB.
    pub segment_bytes: u32,
    /// Take over a copied or moved data directory.
    pub adopt: bool,
    /// For how long an idle shard looks for work before it sleeps.
    pub spin_us: u32,
    /// Stop when standard input ends.
    pub stop_with_stdin: bool,
}

impl Config {
    /// Read the file that the arguments name, lay the arguments over it, and check what comes out.
    pub fn load(arguments: ServeArguments) -> Result<Self, ConfigError> {
        let cores = cores_allowed().map_err(ConfigError::Cores)?;
        let cores = u16::try_from(cores.len()).unwrap_or(u16::MAX);
        let file = match &arguments.config {
            Some(path) => read_file(path)?,
            None => Settings::default(),
        };
        let config = Self::from_settings(arguments.settings.or(file), cores)?;
        Ok(Self { stop_with_stdin: arguments.stop_with_stdin, adopt: arguments.adopt, ..config })
    }

    /// Fill in defaults, read the secret, and check, for a process that may use so many `cores`.
    pub fn from_settings(settings: Settings, cores: u16) -> Result<Self, ConfigError> {
        let listen = settings.listen.unwrap_or_else(|| HostPort { host: "127.0.0.1".to_owned(), port: 7400 });
        let advertise = match settings.advertise {
            Some(host) => host,
            None if listen.is_unspecified() => return Err(ConfigError::AdvertiseMissing { listen }),
            None => listen.host.clone(),
        };
        if settings.members.as_ref().is_some_and(Vec::is_empty) {
            return Err(ConfigError::MembersEmpty);
        }
        let members = settings.members.unwrap_or_default();
        let address = HostPort { host: advertise.clone(), port: listen.port };
        let name = settings.name.unwrap_or_else(|| name_by_address(&members, &address));
        // Who joins a running cluster takes over what its founders fixed.
        let founds = settings.seeds.as_ref().is_none_or(Vec::is_empty);
        let value_bytes_max = settings.value_bytes_max.unwrap_or(ByteSize(VALUE_BYTES_UNLESS_SET.into()));
        let background_bytes_min = settings.background_bytes_min.unwrap_or(ByteSize(1 << 20));
        let config = Self {
            secret: read_secret(settings.secret, settings.secret_file.as_deref().map(Path::new))?,
            secret_file: settings.secret_file,
            cluster: settings.cluster.unwrap_or_else(|| "ringmain".to_owned()),
            seeds: settings.seeds.unwrap_or_default(),
            shards: settings.shards.unwrap_or(cores),
            pin: settings.pin.unwrap_or(true),
            shard_ports: settings.shard_ports.unwrap_or_default(),
            replicas: settings.replicas.or_else(|| founds.then_some(REPLICAS_DEFAULT)),
            read: settings.read.unwrap_or(0),
            write: settings.write.unwrap_or(0),
            partitions: settings.partitions.or_else(|| founds.then_some(PARTITIONS_DEFAULT)),
            data_center: settings.data_center.unwrap_or_default(),
            rack: settings.rack.unwrap_or_default(),
            weight: settings.weight.unwrap_or(100),
            timeout: settings.timeout.map_or(Duration::from_secs(1), |span| span.0),
            timeout_max: settings.timeout_max.map_or(Duration::from_secs(10), |span| span.0),
            value_bytes_max: checked_size("value_bytes_max", value_bytes_max, VALUE_BYTES_LIMIT)?,
            requests_in_flight_max: settings.requests_in_flight_max.unwrap_or(4096),
            anti_entropy: settings.anti_entropy.map_or(Duration::from_secs(10), |span| span.0),
            reap: settings.reap.map_or(Duration::from_secs(300), |span| span.0),
            hint_bytes_max: settings.hint_bytes_max.map_or(64 << 20, |size| size.0),
            background_latency: settings.background_latency.map_or(Duration::ZERO, |span| span.0),
            background_bytes_min: checked_size(
                "background_bytes_min",
                background_bytes_min,
                BACKGROUND_BYTES_LIMIT,
            )?,
            mode: settings.mode.unwrap_or(if settings.data.is_some() { Mode::Durable } else { Mode::Memory }),
            memory_max: settings.memory_max.map_or(0, |size| size.0),
            data: settings.data,
            sync: settings.sync.unwrap_or(Sync::Always),
            segment_bytes: 0,
            adopt: false,
            spin_us: settings.spin_us.unwrap_or(0),
            stop_with_stdin: false,
            listen,
            advertise,
            name,
            members,
        };
        let config = Self { segment_bytes: config.checked_segment(settings.segment_bytes)?, ..config };
        config.check_names()?;
        config.check_members()?;
        config.check_shards(cores)?;
        config.check_ranges()?;
        config.check_memory()?;
        Ok(config)
    }

    /// The same, as a guest of a cluster with so many partitions and replicas (0: it doesn't say).
    pub fn joining(self, partitions: u32, replicas: u8) -> Result<Self, ConfigError> {
        let given = (self.partitions.unwrap_or(partitions), self.replicas.unwrap_or(replicas));
        if partitions != 0 && given.0 != partitions {
            let (own, cluster) = (given.0, partitions);
            return Err(ConfigError::OtherRing { setting: "partitions", own, cluster });
        }
        if replicas != 0 && given.1 != replicas {
            let (own, cluster) = (given.1.into(), replicas.into());
            return Err(ConfigError::OtherRing { setting: "replicas", own, cluster });
        }
        let or = |value, default| if value == 0 { default } else { value };
        let joined = Self {
            partitions: Some(or(given.0, PARTITIONS_DEFAULT)),
            replicas: Some(or(given.1.into(), REPLICAS_DEFAULT.into()) as u8),
            ..self
        };
        joined.check_ring()?;
        joined.check_memory()?;
        Ok(joined)
    }

    /// These settings as a file that gives them back. A secret that came from no file of its own is left out.
    pub fn to_toml(&self) -> String {
        let given = |text: &String| (!text.is_empty()).then(|| text.clone());
        let settings = Settings {
            listen: Some(self.listen.clone()),
            advertise: Some(self.advertise.clone()),
            name: Some(self.name.clone()),
            cluster: Some(self.cluster.clone()),
            members: (!self.members.is_empty()).then(|| self.members.clone()),
            seeds: (!self.seeds.is_empty()).then(|| self.seeds.clone()),
            secret: None,
            secret_file: self.secret_file.clone(),
            shards: Some(self.shards),
            pin: Some(self.pin),
            shard_ports: (!self.shard_ports.is_empty()).then(|| self.shard_ports.clone()),
            replicas: self.replicas,
            read: Some(self.read),
            write: Some(self.write),
            partitions: self.partitions,
            data_center: given(&self.data_center),
            rack: given(&self.rack),
            weight: Some(self.weight),
            timeout: Some(Span(self.timeout)),
            timeout_max: Some(Span(self.timeout_max)),
            value_bytes_max: Some(ByteSize(u64::from(self.value_bytes_max))),
            requests_in_flight_max: Some(self.requests_in_flight_max),
            anti_entropy: Some(Span(self.anti_entropy)),
            reap: Some(Span(self.reap)),
            hint_bytes_max: Some(ByteSize(self.hint_bytes_max)),
            background_latency: Some(Span(self.background_latency)),
            background_bytes_min: Some(ByteSize(u64::from(self.background_bytes_min))),
            mode: Some(self.mode),
            memory_max: Some(ByteSize(self.memory_max)),
            data: self.data.clone(),
            sync: Some(self.sync),
            segment_bytes: Some(ByteSize(self.segment_bytes.into())),
            spin_us: Some(self.spin_us),
        };
        let mut text =
            toml::to_string(&settings).expect("flat settings of plain text and numbers are always TOML");
        if self.secret.is_some() && self.secret_file.is_none() {
            text.push_str("# secret: set, not shown\n");
        }
        text
    }

    /// The size of a segment that holds the largest record, and whether there is a place for it.
    fn checked_segment(&self, given: Option<ByteSize>) -> Result<u32, ConfigError> {
        match (self.mode, &self.data) {
            (Mode::Durable, None) => return Err(ConfigError::DataMissing),
            (Mode::Memory, Some(_)) => return Err(ConfigError::DataInMemory),
            _ => {}
        }
        let largest = largest_in_segment(self.value_bytes_max);
        let limit = u64::from(SEGMENT_BYTES_MAX);
        let bytes = given.map_or_else(|| segment_bytes_for(largest), |size| size.0);
        if self.mode == Mode::Memory {
            return Ok(u32::try_from(bytes).unwrap_or(SEGMENT_BYTES_MAX));
        }
        let is_whole = bytes.is_multiple_of(SEGMENT_BYTES_UNIT.into());
        if is_whole && (largest..=limit).contains(&bytes) {
            return Ok(bytes as u32);
        }
        let [value, min, max] =
            [bytes, largest.next_multiple_of(1 << 10), limit].map(|bytes| ByteSize(bytes).to_string());
        Err(ConfigError::Segment { value, min, max })
    }

    fn check_names(&self) -> Result<(), ConfigError> {
        if !text::is_host(&self.advertise) {
            return Err(ConfigError::AdvertiseHost(self.advertise.clone()));
        }
        let mut names = vec![(&self.name, "node"), (&self.cluster, "cluster")];
        for (zone, what) in [(&self.data_center, "data centre"), (&self.rack, "rack")] {
            if !zone.is_empty() {
                names.push((zone, what));
            }
        }
        names.into_iter().try_for_each(|(name, what)| check_name(name, what))
    }

    fn check_members(&self) -> Result<(), ConfigError> {
        if !self.members.is_empty() && !self.seeds.is_empty() {
            return Err(ConfigError::MembersAndSeeds);
        }
        if self.members.len() > MEMBERS_MAX {
            return Err(ConfigError::MembersTooMany { count: self.members.len(), max: MEMBERS_MAX });
        }
        let addresses = self.members.iter().map(|member| &member.address).chain(&self.seeds);
        if let Some(address) = addresses.into_iter().find(|address| address.port == 0) {
            return Err(ConfigError::PortZero(address.clone()));
        }
        if let Some(name) = repeated(self.members.iter().map(|member| &member.name)) {
            return Err(ConfigError::MemberNameTwice(name.clone()));
        }
        if let Some(address) = repeated(self.members.iter().map(|member| &member.address)) {
            return Err(ConfigError::MemberAddressTwice(address.clone()));
        }
        if self.listen.port == 0 && (self.members.len() > 1 || !self.seeds.is_empty()) {
            return Err(ConfigError::PortUnknown);
        }
        if self.members.is_empty() { Ok(()) } else { self.check_own_place() }
    }

    /// The members know this node, where it listens.
    fn check_own_place(&self) -> Result<(), ConfigError> {
        let Some(own) = self.members.iter().find(|member| member.name == self.name) else {
            let names: Vec<_> = self.members.iter().map(|member| member.name.as_str()).collect();
            return Err(ConfigError::NotAMember { name: self.name.clone(), members: names.join(", ") });
        };
        if self.listen.port != 0 && own.address.port != self.listen.port {
            return Err(ConfigError::MemberPort {
                name: self.name.clone(),
                expected: own.address.port,
                actual: self.listen.port,
            });
        }
        Ok(())
    }

    fn check_shards(&self, cores: u16) -> Result<(), ConfigError> {
        in_range("shards", self.shards.into(), 1, SHARDS_MAX.into())?;
        if self.pin && self.shards > cores {
            return Err(ConfigError::CoresTooFew { shards: self.shards, cores });
        }
        if self.shard_ports.is_empty() {
            return Ok(());
        }
        if self.shard_ports.len() != usize::from(self.shards) {
            return Err(ConfigError::ShardPortsCount { ports: self.shard_ports.len(), shards: self.shards });
        }
        let taken = self.shard_ports.iter().find(|&&port| port == 0 || port == self.listen.port);
        match taken.or_else(|| repeated(self.shard_ports.iter())) {
            Some(&port) => Err(ConfigError::ShardPort(port)),
            None => Ok(()),
        }
    }

    /// A limit must leave each shard what it can't do without.
    fn check_memory(&self) -> Result<(), ConfigError> {
        if self.memory_max == 0 {
            return Ok(());
        }
        // A guest learns how many partitions there are when it joins, and is checked again.
        let (shards, partitions) = (self.shards, self.partitions.unwrap_or(1));
        let is_durable = self.mode == Mode::Durable;
        let needed = memory_least(shards, partitions, self.value_bytes_max, is_durable);
        if self.memory_max < needed {
            let [value, needed] = [self.memory_max, needed].map(|bytes| ByteSize(bytes).to_string());
            return Err(ConfigError::MemoryTooSmall { value, shards, partitions, needed });
        }
        Ok(())
    }

    /// What of the ring is given.
    fn check_ring(&self) -> Result<(), ConfigError> {
        if let Some(replicas) = self.replicas {
            in_range("replicas", replicas.into(), 1, REPLICAS_MAX.into())?;
            for (setting, value) in [("read", self.read), ("write", self.write)] {
                if value > replicas {
                    return Err(ConfigError::Quorum { setting, value, replicas });
                }
            }
        }
        if let Some(partitions) = self.partitions
            && (!partitions.is_power_of_two() || partitions > PARTITIONS_MAX)
        {
            return Err(ConfigError::Partitions(partitions));
        }
        if let (Some(partitions), Some(replicas)) = (self.partitions, self.replicas)
            && partitions as usize * usize::from(replicas) > MAP_ENTRIES_MAX
        {
            return Err(ConfigError::MapTooLarge { partitions, replicas, max: MAP_ENTRIES_MAX });
        }
        Ok(())
    }

    fn check_ranges(&self) -> Result<(), ConfigError> {
        self.check_ring()?;
        in_range("weight", self.weight.into(), 1, WEIGHT_MAX.into())?;
        let in_flight = u64::from(self.requests_in_flight_max);
        in_range("requests_in_flight_max", in_flight, 1, REQUESTS_IN_FLIGHT_LIMIT.into())?;
        in_range("spin_us", self.spin_us.into(), 0, SPIN_US_MAX.into())?;
        checked_span("timeout", self.timeout)?;
        checked_span("timeout_max", self.timeout_max)?;
        if self.anti_entropy != Duration::ZERO {
            checked_span("anti_entropy", self.anti_entropy)?;
        }
        if self.background_latency != Duration::ZERO {
            checked_span("background_latency", self.background_latency)?;
        }
        if self.reap != Duration::ZERO {
            checked_span("reap", self.reap)?;
        }
        if self.timeout > self.timeout_max {
            let (timeout, timeout_max) = (Span(self.timeout).to_string(), Span(self.timeout_max).to_string());
            return Err(ConfigError::TimeoutOverMax { timeout, timeout_max });
        }
        Ok(())
    }
}

/// Can this be the name of a node, or of whatever `what` is?
pub fn check_name(name: &str, what: &'static str) -> Result<(), ConfigError> {
    if text::is_name(name) { Ok(()) } else { Err(ConfigError::Name(name.to_owned(), what)) }
}

/// The name of the member at `address`, or else the address itself.
/// What the segments of a log have if nothing else is set, nor another size for values.
pub fn segment_bytes_unless_set() -> u32 {
    segment_bytes_for(largest_in_segment(VALUE_BYTES_UNLESS_SET)) as u32
}

/// The most that a segment must hold, with values of so many bytes.
fn largest_in_segment(value_bytes_max: u32) -> u64 {
    state_bytes_max(value_bytes_max) as u64 + SEGMENT_BYTES_BESIDE
}

fn segment_bytes_for(largest: u64) -> u64 {
    largest.next_multiple_of(1 << 20).clamp(SEGMENT_BYTES_LEAST, SEGMENT_BYTES_MAX.into())
}

fn name_by_address(members: &[Founder], address: &HostPort) -> String {
    match members.iter().find(|member| member.address == *address) {
        Some(member) => member.name.clone(),
        None => address.to_string(),
    }
}

/// The first that an earlier one equals.
fn repeated<'a, T: Ord>(mut items: impl Iterator<Item = &'a T>) -> Option<&'a T> {
    let mut seen = BTreeSet::new();
    items.find(|item| !seen.insert(*item))
}

fn in_range(setting: &'static str, value: u64, min: u64, max: u64) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::Range { setting, value, min, max })
}

fn checked_span(setting: &'static str, value: Duration) -> Result<(), ConfigError> {
    if (TIMEOUT_MIN..=TIMEOUT_LIMIT).contains(&value) {
        return Ok(());
    }
    let [value, min, max] = [value, TIMEOUT_MIN, TIMEOUT_LIMIT].map(|span| Span(span).to_string());
    Err(ConfigError::TextRange { setting, value, min, max })
}

/// `max` is below 4 GiB.
fn checked_size(setting: &'static str, ByteSize(value): ByteSize, max: u64) -> Result<u32, ConfigError> {
    match u32::try_from(value) {
        Ok(bytes) if (1..=max).contains(&value) => Ok(bytes),
        _ => {
            let [value, min, max] = [value, 1, max].map(|bytes| ByteSize(bytes).to_string());
            Err(ConfigError::TextRange { setting, value, min, max })
        }
    }
}

fn read_file(path: &Path) -> Result<Settings, ConfigError> {
    let text =
        fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(&text).map_err(|(line, reason)| ConfigError::Parse { path: path.to_owned(), line, reason })
}

/// Settings from TOML, or the line of the first mistake and what it is.
fn parse(text: &str) -> Result<Settings, (usize, String)> {
    toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let line = 1 + text.bytes().take(start).filter(|&byte| byte == b'\n').count();
        (line, in_our_words(error.message()))
    })
}

/// Turn serde's words for an unknown key into ours; leave the rest as it is.
fn in_our_words(message: &str) -> String {
    let unknown =
        message.strip_prefix("unknown field ").and_then(|rest| rest.split_once(", expected one of "));
    match unknown {
        Some((key, keys)) => format!("there is no key {key}; the keys are {}", keys.replace('`', "")),
        None => message.lines().collect::<Vec<_>>().join(" "),
    }
}

fn read_secret(secret: Option<Secret>, file: Option<&Path>) -> Result<Option<Secret>, ConfigError> {
    let secret = match (secret, file) {
        (Some(_), Some(_)) => return Err(ConfigError::SecretTwice),
        (None, None) => return Ok(None),
        (Some(secret), None) => secret,
        (None, Some(path)) => {
            let read = fs::read_to_string(path);
            Secret::new(&read.map_err(|source| ConfigError::SecretFile { path: path.to_owned(), source })?)
        }
    };
    let bytes = secret.as_bytes().len();
    if !(1..=SECRET_BYTES_MAX).contains(&bytes) {
        return Err(ConfigError::SecretLength { bytes, max: SECRET_BYTES_MAX });
    }
    Ok(Some(secret))
}

#[cfg(test)]
mod tests;
