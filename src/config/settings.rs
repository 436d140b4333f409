//! What a user may set, each optional: one list for the command line and the file alike.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::text::{ByteSize, Founder, HostPort, Mode, Secret, Span, Sync};

/// Arguments of `ringmain serve`.
#[derive(Args, Clone, Default, Debug)]
pub struct ServeArguments {
    /// Read settings from this TOML file; arguments override it. `--print-config` shows every key
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Check the settings, say ok and exit
    #[arg(long)]
    pub check: bool,

    /// Print the settings in effect as TOML and exit
    #[arg(long, conflicts_with = "check")]
    pub print_config: bool,

    /// Exit when standard input ends: for nodes that must not outlive whoever started them
    #[arg(long, hide = true)]
    pub stop_with_stdin: bool,

    /// Take over a data directory that was copied or moved here: its original must be gone for good, or two nodes would be one
    #[arg(long)]
    pub adopt: bool,

    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would take a comment for the command's description")]
    pub settings: Settings,
}

/// Every setting, in the order in which users meet them. An absent one has the default that `Config` gives it.
#[derive(Args, Serialize, Deserialize, Clone, PartialEq, Default, Debug)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where clients and peers reach this node [default: 127.0.0.1:7400]; port 0 lets the kernel choose
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<HostPort>,

    /// The host to tell others, where it isn't the one listened on
    #[arg(long, value_name = "HOST")]
    pub advertise: Option<String>,

    /// This node's name, unique in its cluster [default: HOST:PORT]
    #[arg(long)]
    pub name: Option<String>,

    /// The cluster's name, the same on all its nodes [default: ringmain]
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,

    /// All members of a new cluster, this node included, the same list on each of them
    #[arg(long, value_name = "NAME=HOST:PORT", value_delimiter = ',')]
    pub members: Option<Vec<Founder>>,

    /// Some members of a running cluster, to join it
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    pub seeds: Option<Vec<HostPort>>,

    /// In the file only: arguments can be seen by every user of the machine.
    #[arg(skip)]
    #[serde(skip_serializing)]
    pub secret: Option<Secret>,

    /// A file that holds the secret which all nodes and clients of the cluster share
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<String>,

    /// How many shards, each on a thread of its own; a data directory is written anew for another number [default: one per
    /// core this process may use]
    #[arg(long, value_name = "NUMBER")]
    pub shards: Option<u16>,

    /// Pin each shard's thread to a core [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub pin: Option<bool>,

    /// Each shard's own port, in order [default: chosen by the kernel]
    #[arg(long, value_name = "PORT", value_delimiter = ',')]
    pub shard_ports: Option<Vec<u16>>,

    /// N: how many nodes keep a copy of each key, for good [default: 3; with seeds: as the cluster has it]
    #[arg(long, value_name = "N")]
    pub replicas: Option<u8>,

    /// R: how many of them a read waits for, unless it asks otherwise; 0 is a majority [default: 0]
    #[arg(long, value_name = "R")]
    pub read: Option<u8>,

    /// W: how many of them a write waits for, unless it asks otherwise; 0 is a majority [default: 0]
    #[arg(long, value_name = "W")]
    pub write: Option<u8>,

    /// Q: into how many parts the ring is cut, for good: a power of two up to 65536 [default: 1024; with seeds: as the
    /// cluster has it]
    #[arg(long, value_name = "Q")]
    pub partitions: Option<u32>,

    /// The data centre this node stands in: copies are spread over them
    #[arg(long, value_name = "NAME")]
    pub data_center: Option<String>,

    /// The rack this node stands in: copies are spread over them
    #[arg(long, value_name = "NAME")]
    pub rack: Option<String>,

    /// This node's capacity beside that of an ordinary one, which has 100 [default: 100]
    #[arg(long)]
    pub weight: Option<u32>,

    /// The deadline of a request that brings none [default: 1s]
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<Span>,

    /// The longest deadline that a request gets, whatever it asks for [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub timeout_max: Option<Span>,

    /// The largest value that is taken [default: 8MiB]
    #[arg(long, value_name = "BYTES")]
    pub value_bytes_max: Option<ByteSize>,

    /// Unanswered requests after which a connection isn't read [default: 4096]
    #[arg(long, value_name = "NUMBER")]
    pub requests_in_flight_max: Option<u32>,

    /// Each shard compares what it holds with one other replica so often; 0 is never [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub anti_entropy: Option<Span>,

    /// Each partition is looked at so often for deleted keys that all members can forget; 0 is never. A node with `--sync`
    /// other than `always` proposes none [default: 5m]
    #[arg(long, value_name = "TIME")]
    pub reap: Option<Span>,
    /// What a shard keeps for each node that can't be reached, to hand it over later; 0B keeps nothing, and quorums are
    /// strict [default: 64MiB]
    #[arg(long, value_name = "BYTES")]
    pub hint_bytes_max: Option<ByteSize>,

    /// Background work slows down when one request of twenty takes longer; 0 is twice as long as usual [default: 0]
    #[arg(long, value_name = "TIME")]
    pub background_latency: Option<Span>,

    /// What each shard may do in a second of background work, however long requests take [default: 1MiB]
    #[arg(long, value_name = "BYTES")]
    pub background_bytes_min: Option<ByteSize>,

    /// Where values are kept: 'memory', or 'durable', which is in memory and in a log on the disk [default: durable if there is
    /// a data directory, else memory]
    #[arg(long)]
    pub mode: Option<Mode>,

    /// The most memory that this node takes for what it holds and does, divided among its shards; 0B for no limit. Where there is
    /// no more room, mode 'memory' forgets keys, and mode 'durable' keeps values on the disk alone: keys must fit. Shards, partitions and large values need some of it, and what is less than they need is refused [default: 0B]
    #[arg(long, value_name = "BYTES")]
    pub memory_max: Option<ByteSize>,

    /// The directory of this node's log; made if it isn't there. On a disk with O_DIRECT, and of no other node
    #[arg(long, value_name = "DIR")]
    pub data: Option<String>,

    /// When a write counts as kept here: 'always' is when the disk has synced it, and it outlives a power cut; a time such as
    /// 100ms is when it is written, and a power cut loses what was written since the last sync, at most so long ago; 'never' is
    /// when it is written, and a power cut loses what the device has not kept [default: always]
    #[arg(long, value_name = "WHEN")]
    pub sync: Option<Sync>,

    /// The log is cut into segments of this size, which is fixed when it is created. The largest key must fit into one
    /// [default: for eight of the largest values, and at least 32MiB]
    #[arg(long, value_name = "BYTES")]
    pub segment_bytes: Option<ByteSize>,

    /// Microseconds for which an idle shard looks for work before it sleeps [default: 0]
    #[arg(long, value_name = "MICROSECONDS")]
    pub spin_us: Option<u32>,
}

impl Settings {
    /// These, and where they are silent, those.
    #[must_use]
    pub fn or(self, file: Self) -> Self {
        // Taken apart in full, so that a new setting can't be forgotten here.
        let Self {
            listen,
            advertise,
            name,
            cluster,
            members,
            seeds,
            secret,
            secret_file,
            shards,
            pin,
            shard_ports,
            replicas,
            read,
            write,
            partitions,
            data_center,
            rack,
            weight,
            timeout,
            timeout_max,
            value_bytes_max,
            requests_in_flight_max,
            anti_entropy,
            reap,
            hint_bytes_max,
            background_latency,
            background_bytes_min,
            mode,
            memory_max,
            data,
            sync,
            segment_bytes,
            spin_us,
        } = self;
        // One secret, wherever it comes from: a file named by an argument replaces the one in the settings.
        let file_secret = if secret_file.is_some() { None } else { file.secret };
        Self {
            listen: listen.or(file.listen),
            advertise: advertise.or(file.advertise),
            name: name.or(file.name),
            cluster: cluster.or(file.cluster),
            members: members.or(file.members),
            seeds: seeds.or(file.seeds),
            secret: secret.or(file_secret),
            secret_file: secret_file.or(file.secret_file),
            shards: shards.or(file.shards),
            pin: pin.or(file.pin),
            shard_ports: shard_ports.or(file.shard_ports),
            replicas: replicas.or(file.replicas),
            read: read.or(file.read),
            write: write.or(file.write),
            partitions: partitions.or(file.partitions),
            data_center: data_center.or(file.data_center),
            rack: rack.or(file.rack),
            weight: weight.or(file.weight),
            timeout: timeout.or(file.timeout),
            timeout_max: timeout_max.or(file.timeout_max),
            value_bytes_max: value_bytes_max.or(file.value_bytes_max),
            requests_in_flight_max: requests_in_flight_max.or(file.requests_in_flight_max),
            anti_entropy: anti_entropy.or(file.anti_entropy),
            reap: reap.or(file.reap),
            hint_bytes_max: hint_bytes_max.or(file.hint_bytes_max),
            background_latency: background_latency.or(file.background_latency),
            background_bytes_min: background_bytes_min.or(file.background_bytes_min),
            mode: mode.or(file.mode),
            memory_max: memory_max.or(file.memory_max),
            data: data.or(file.data),
            sync: sync.or(file.sync),
            segment_bytes: segment_bytes.or(file.segment_bytes),
            spin_us: spin_us.or(file.spin_us),
        }
    }
}
