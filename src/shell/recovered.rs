//! A node's shards as their logs have left them.
//!
//! Each shard reads its own log, all at once. Who the node was is in shard 0's, so the others wait for its word; and no
//! shard appends anything before all logs are open, so that a log which is missing is told from one that was never made.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use ringmain_schema::limits::state_bytes_max;
use ringmain_schema::peer::Gossip;

use super::log::{DataDirectory, DataError, Log, LogIdentity, OpenLog, Rehoming, open, rehome};
use super::probe::StartError;
use super::stop::Stop;
use crate::config::{Config, Sync};
use crate::id::{ClusterId, NodeId, ShardId};
use crate::membership::{Membership, node_id};
use crate::ring::Partitions;
use crate::shard::{BadRecord, Record, Shard};
use crate::storage::log::RECORD_BYTES_OVERHEAD;

/// What a segment holds beside its largest record: its own header, and a group's.
const BESIDE_BYTES: usize = 3 * crate::storage::log::SECTOR_BYTES;

/// While others open their logs.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(1);

/// A shard's part of the limit on memory.
pub(super) fn shard_memory_max(config: &Config) -> usize {
    usize::try_from(config.memory_max).unwrap_or(usize::MAX) / usize::from(config.shards)
}

/// What the shards of a node in durable mode share while they start.
pub(super) struct Data {
    directory: DataDirectory,
    cluster: ClusterId,
    node: NodeId,
    segment_bytes: u32,
    record_bytes_max: usize,
    adopt: bool,
    /// Of a shard, if there is a limit.
    memory_max: Option<usize>,
    sync: Sync,
    /// Shard 0's word about the members, if its log holds one.
    remembered: OnceLock<Option<Gossip>>,
    /// Records of some log are damaged, or it is a copy that was adopted: what the original wrote later is not there.
    has_lost: AtomicBool,
    /// So many have opened their logs.
    opened: AtomicUsize,
    shards: usize,
}

impl Data {
    /// Take the node's data directory, if it has one.
    pub(super) fn open(
        config: &Config,
        cluster: ClusterId,
        name: &str,
        partitions: Partitions,
    ) -> Result<Option<Arc<Self>>, DataError> {
        let Some(path) = &config.data else { return Ok(None) };
        let shards = usize::from(config.shards);
        let data = Self {
            directory: DataDirectory::open(Path::new(path))?,
            cluster,
            node: node_id(cluster, name),
            segment_bytes: config.segment_bytes,
            record_bytes_max: state_bytes_max(config.value_bytes_max) + RECORD_BYTES_OVERHEAD + BESIDE_BYTES,
            adopt: config.adopt,
            memory_max: (config.memory_max > 0).then_some(shard_memory_max(config)),
            sync: config.sync,
            remembered: OnceLock::new(),
            has_lost: AtomicBool::new(false),
            opened: AtomicUsize::new(0),
            shards,
        };
        let from = data.directory.shards_found()?;
        if from != 0 && from != shards {
            let rehoming = Rehoming { from, to: shards, partitions };
            rehome(&data.directory, &rehoming, |shard| data.identity(shard))?;
        }
        data.directory.make(shards)?;
        Ok(Some(Arc::new(data)))
    }

    fn identity(&self, shard: ShardId) -> LogIdentity {
        LogIdentity {
            directory: self.directory.of_shard(shard),
            cluster: self.cluster,
            node: self.node,
            shard,
            segment_bytes: self.segment_bytes,
            record_bytes_max: self.record_bytes_max,
            adopt: self.adopt,
            reads: self.memory_max.is_some(),
        }
    }

    /// Give a shard back what its log holds, and who its node was.
    pub(super) fn recover(
        &self,
        number: ShardId,
        shard: &mut Shard,
        membership: impl Fn() -> Membership,
        stop: &Stop,
    ) -> Result<Log, StartError> {
        let mut members = None;
        let log = self.read(number, shard, &mut members)?;
        if log.report.missing() > 0 || log.adopted.is_some() {
            self.has_lost.store(true, Ordering::Release);
            shard.doubt_copies();
        }
        if number == ShardId(0) {
            let is_first = self.remembered.set(members).is_ok();
            assert!(is_first, "a shard starts once");
        }
        self.wait_for_others(stop)?;
        if log.is_new && matches!(self.remembered.get(), Some(Some(_))) {
            return Err(DataError::Missing { directory: self.directory.of_shard(number) }.into());
        }
        let remembered = self.remembered.get().and_then(Option::as_ref);
        let has_lost = self.has_lost.load(Ordering::Acquire);
        if remembered.is_some() || has_lost {
            let mut membership = membership();
            if let Some(remembered) = remembered {
                membership.recover(remembered);
            }
            if has_lost {
                membership.lose_records();
            }
            shard.remember(membership);
        }
        shard.recovered_through(log.last());
        Ok(Log::new(number, self.sync, log, self.directory.pin()?, self.memory_max).map_err(|source| {
            let path = self.directory.of_shard(number);
            DataError::Io { path, source }
        })?)
    }

    /// Wait until all shards have opened their logs. One that can't stops the node.
    fn wait_for_others(&self, stop: &Stop) -> Result<(), DataError> {
        self.opened.fetch_add(1, Ordering::AcqRel);
        while self.opened.load(Ordering::Acquire) < self.shards {
            if stop.is_requested() {
                return Err(DataError::Another);
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    fn read(
        &self,
        number: ShardId,
        shard: &mut Shard,
        members: &mut Option<Gossip>,
    ) -> Result<OpenLog, DataError> {
        let identity = self.identity(number);
        let log = open(&identity, |sequence, record, dead| {
            let is_marker = take(shard, members, sequence, record)?;
            dead.extend(shard.take_dead());
            Ok(is_marker)
        })?;
        for damage in &log.report.damages {
            eprintln!("ringmain: {}: {damage}: the replicas repair it", identity.directory.display());
        }
        Ok(log)
    }
}

fn take(
    shard: &mut Shard,
    members: &mut Option<Gossip>,
    sequence: u64,
    record: &[u8],
) -> Result<bool, BadRecord> {
    let record = Record::parse(record)?;
    let is_marker = record.is_marker();
    shard.recover_record(&record, sequence)?;
    if let Record::Members(told) = record {
        *members = Some(told);
    }
    Ok(is_marker)
}
