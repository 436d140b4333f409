//! What a shard is told at its start.

use std::sync::Arc;

use ringmain_schema::limits::{VALUE_BYTES_MAX_DEFAULT, request_bytes_max, state_bytes_max};

use crate::id::ShardId;
use crate::pace::PaceOptions;
use crate::time::Duration;

use super::ConnectionLimits;

/// What a shard needs to know of the configuration.
#[derive(Clone, Debug)]
pub struct ShardOptions {
    /// Which shard of its node.
    pub shard: ShardId,
    /// How many its node has.
    pub shards: u16,
    /// What a connection must know; empty for nothing.
    pub secret: Arc<[u8]>,
    /// N, before it is cut to the number of members; at most 8.
    pub replicas: u8,
    /// R where a request doesn't say; 0 for a majority of N.
    pub read: u8,
    /// W where a request doesn't say; 0 for a majority of N.
    pub write: u8,
    /// A request's deadline where it doesn't say.
    pub budget_default: Duration,
    /// No request may take longer.
    pub budget_max: Duration,
    /// Bytes of one value.
    pub value_bytes_max: u32,
    /// Requests that one client connection may have unanswered.
    pub requests_in_flight_max: u32,
    /// Requests that this shard may have unanswered, as coordinator and, apart, as relay.
    pub operations_max: usize,
    /// Compare hash trees with one other primary so often; never, if there is none.
    pub anti_entropy: Option<Duration>,
    /// Look at each partition so often for what may be forgotten, and propose what was the same at two looks; never, if
    /// there is none.
    pub reap: Option<Duration>,
    /// Bytes of hints that this shard keeps for each node that can't be reached; 0 for none: quorums are strict.
    pub hint_bytes_max: usize,
    /// Bytes that this shard may take for what it holds and does; 0 for no limit.
    pub memory_max: usize,
    /// How background work is paced.
    pub pace: PaceOptions,
    /// Acknowledge a write only when its record is on stable storage.
    pub durable: bool,
    /// Name and version, for status and handshakes.
    pub software: Arc<str>,
}

impl ShardOptions {
    /// The defaults, for a node of one shard.
    pub fn single(software: &str) -> Self {
        Self {
            shard: ShardId(0),
            shards: 1,
            secret: [].into(),
            replicas: 3,
            read: 0,
            write: 0,
            budget_default: Duration::from_secs(1),
            budget_max: Duration::from_secs(10),
            value_bytes_max: VALUE_BYTES_MAX_DEFAULT,
            requests_in_flight_max: 4096,
            operations_max: 16 * 1024,
            anti_entropy: Some(Duration::from_secs(10)),
            reap: Some(Duration::from_secs(300)),
            hint_bytes_max: 64 << 20,
            memory_max: 0,
            pace: PaceOptions::default(),
            durable: false,
            software: software.into(),
        }
    }

    /// Bytes that a key's versions may have together after a put. Each of N coordinators may fill a key up to
    /// here before they hear of each other, and what they merge must fit in a frame.
    pub(super) fn sibling_bytes_max(&self) -> usize {
        let value = self.value_bytes_max as usize;
        (8 * value / usize::from(self.replicas.max(1))).min(2 * value)
    }

    pub(super) const fn client_limits(&self) -> ConnectionLimits {
        ConnectionLimits {
            frame_bytes_max: request_bytes_max(self.value_bytes_max),
            requests_in_flight_max: self.requests_in_flight_max as usize,
        }
    }

    pub(super) const fn peer_limits(&self) -> ConnectionLimits {
        ConnectionLimits {
            frame_bytes_max: state_bytes_max(self.value_bytes_max),
            requests_in_flight_max: usize::MAX,
        }
    }
}
