//! Why a node's settings can't be used: each one sentence that says what to do.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::text::HostPort;

/// Why no [`Config`](super::Config) could be made.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "each says it to the user")]
pub enum ConfigError {
    #[error("can't read the settings in {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} line {line}: {reason}", path.display())]
    Parse { path: PathBuf, line: usize, reason: String },
    #[error("can't tell which cores this process may use ({0}): set how many shards to run with --shards")]
    Cores(io::Error),
    #[error("can't read the secret in {}: {source}", path.display())]
    SecretFile { path: PathBuf, source: io::Error },
    #[error("the secret has {bytes} bytes: use 1 to {max}")]
    SecretLength { bytes: usize, max: usize },
    #[error("both secret and secret_file are set: keep one")]
    SecretTwice,
    #[error(
        "listening on {listen}, which stands for every address of this machine: say by which one others reach \
         it with --advertise HOST"
    )]
    AdvertiseMissing { listen: HostPort },
    #[error("'{0}' can't be advertised: give a host name or an address, without a port")]
    AdvertiseHost(String),
    #[error("'{0}' can't be the name of a {1}: use 1 to 64 letters, digits and dashes")]
    Name(String, &'static str),
    #[error(
        "both members and seeds are set: members found a new cluster, seeds join a running one; keep one"
    )]
    MembersAndSeeds,
    #[error(
        "{setting} is {own} here and {cluster} in the cluster that this node is to join, where it was fixed when the \
         cluster was founded: leave {setting} out, and the cluster's is taken over"
    )]
    OtherRing { setting: &'static str, own: u32, cluster: u32 },
    #[error("the list of members is empty: leave it out for a cluster of one")]
    MembersEmpty,
    #[error("{count} members are over the limit of {max}: found a smaller cluster")]
    MembersTooMany { count: usize, max: usize },
    #[error("two members have the name '{0}': give each its own")]
    MemberNameTwice(String),
    #[error("two members have the address {0}: give each its own")]
    MemberAddressTwice(HostPort),
    #[error("{0} has port 0, which nobody can call: give the port that the member listens on")]
    PortZero(HostPort),
    #[error("this node's name '{name}' is not among the members: set it with --name to one of {members}")]
    NotAMember { name: String, members: String },
    #[error("the members expect '{name}' on port {expected}, but it listens on {actual}: make them equal")]
    MemberPort { name: String, expected: u16, actual: u16 },
    #[error(
        "a node listening on a port of the kernel's choice can't be found by others: set --listen HOST:PORT"
    )]
    PortUnknown,
    #[error(
        "{shards} shards pinned to {cores} cores: use at most {cores} shards, or --pin false to share cores"
    )]
    CoresTooFew { shards: u16, cores: u16 },
    #[error("{ports} shard ports for {shards} shards: give one for each, or leave them out")]
    ShardPortsCount { ports: usize, shards: u16 },
    #[error("shard port {0} is taken by another shard or by --listen: give each its own, none of them 0")]
    ShardPort(u16),
    #[error("{setting} is {value}: set it to a number from {min} to {max}")]
    Range { setting: &'static str, value: u64, min: u64, max: u64 },
    #[error("{setting} is {value}: set it to something from {min} to {max}")]
    TextRange { setting: &'static str, value: String, min: String, max: String },
    #[error(
        "{setting} is {value}, but there are {replicas} replicas: use 1 to {replicas}, or 0 for a majority"
    )]
    Quorum { setting: &'static str, value: u8, replicas: u8 },
    #[error("mode is 'durable', and there is no data directory: give one with --data DIR")]
    DataMissing,
    #[error("mode is 'memory', and a data directory is given: leave one of them out")]
    DataInMemory,
    #[error(
        "memory_max is {value}, and with shards = {shards} and partitions = {partitions} a node needs {needed} at least: allow \
         more, or have fewer shards, a smaller value_bytes_max or, in a new cluster, fewer partitions"
    )]
    MemoryTooSmall { value: String, shards: u16, partitions: u32, needed: String },
    #[error(
        "segment_bytes is {value}: use a multiple of 4KiB from {min}, which eight of the largest values need (see \
         value_bytes_max), to {max}"
    )]
    Segment { value: String, min: String, max: String },
    #[error("partitions is {0}: use a power of two from 1 to 65536, such as 1024")]
    Partitions(u32),
    #[error(
        "{partitions} partitions of {replicas} replicas make a map too large to send to clients: use fewer of \
         either, so that their product is at most {max}"
    )]
    MapTooLarge { partitions: u32, replicas: u8, max: usize },
    #[error("timeout is {timeout}, over timeout_max, which is {timeout_max}: make it shorter")]
    TimeoutOverMax { timeout: String, timeout_max: String },
}
