//! What a shard counts about itself.

/// Counts since the start, but for gauges.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) gets: u64,
    pub(super) puts: u64,
    pub(super) deletes: u64,
    pub(super) batches: u64,
    pub(super) not_found: u64,
    pub(super) errors: u64,
    pub(super) overloaded: u64,
    pub(super) timeouts: u64,
    pub(super) maybe_applied: u64,
    pub(super) retries_recognised: u64,
    pub(super) forwarded_to_siblings: u64,
    pub(super) forwarded_to_peers: u64,
    /// States that other nodes sent and this one took, hints too.
    pub(super) replicated_in: u64,
    pub(super) states_read_by_peers: u64,
    pub(super) repairs_sent: u64,
    pub(super) anti_entropy_rounds: u64,
    pub(super) anti_entropy_keys_compared: u64,
    /// States from anti-entropy that were news here.
    pub(super) anti_entropy_keys_repaired: u64,
    /// Sent, in questions, answers and states.
    pub(super) anti_entropy_bytes: u64,
    pub(super) hints_kept: u64,
    pub(super) hints_declined: u64,
    pub(super) hints_handed_over: u64,
    /// Of which this node was an owner once.
    pub(super) partitions_given_up: u64,
    /// Segments of the log whose live records were appended anew.
    pub(super) compactions: u64,
    pub(super) reap_rounds: u64,
    pub(super) reap_rounds_given_up: u64,
    /// Deleted keys that were forgotten.
    pub(super) keys_reaped: u64,
    /// Keys of which actors without a version were forgotten.
    pub(super) keys_pruned: u64,
    /// Keys of copies of an older epoch.
    pub(super) keys_wiped: u64,
    /// Versions that became tombstones before anybody asked for them.
    pub(super) versions_expired: u64,
    /// Keys that were put out, since there was no more room.
    pub(super) evictions: u64,
    /// Keys whose values were let go, since there was no more room: the disk has them.
    pub(super) values_cooled: u64,
    /// Records that were read again for their values,
    pub(super) cold_reads: u64,
    /// and those that could not be read.
    pub(super) cold_read_errors: u64,
    /// What was not taken, since there was no more room and nothing to put out for it.
    pub(super) memory_declined: u64,
    /// Repairs of keys that were put out, and were not stored.
    pub(super) refills_declined: u64,
    /// Overwrites of keys that may have been put out, before which the owners were asked what they have.
    pub(super) writes_that_asked: u64,
    /// Tombstones that were sent to an owner that did not confirm them.
    pub(super) tombstones_pushed: u64,
    pub(super) gossip_rounds: u64,
    /// From nodes that are configured with another Q or N.
    pub(super) gossip_refused: u64,
    pub(super) frames_refused: u64,
    /// A gauge: reads answered that still wait for the last replicas, to repair them.
    pub(super) operations_lingering: u64,
}

impl Counters {
    /// Each with its name, in a fixed order.
    pub(super) const fn named(&self) -> [(&'static str, u64); 42] {
        [
            ("gets", self.gets),
            ("puts", self.puts),
            ("deletes", self.deletes),
            ("batches", self.batches),
            ("not_found", self.not_found),
            ("errors", self.errors),
            ("overloaded", self.overloaded),
            ("timeouts", self.timeouts),
            ("maybe_applied", self.maybe_applied),
            ("retries_recognised", self.retries_recognised),
            ("forwarded_to_siblings", self.forwarded_to_siblings),
            ("forwarded_to_peers", self.forwarded_to_peers),
            ("replicated_in", self.replicated_in),
            ("states_read_by_peers", self.states_read_by_peers),
            ("repairs_sent", self.repairs_sent),
            ("anti_entropy_rounds", self.anti_entropy_rounds),
            ("anti_entropy_keys_compared", self.anti_entropy_keys_compared),
            ("anti_entropy_keys_repaired", self.anti_entropy_keys_repaired),
            ("anti_entropy_bytes", self.anti_entropy_bytes),
            ("hints_kept", self.hints_kept),
            ("hints_declined", self.hints_declined),
            ("hints_handed_over", self.hints_handed_over),
            ("partitions_given_up", self.partitions_given_up),
            ("compactions", self.compactions),
            ("reap_rounds", self.reap_rounds),
            ("reap_rounds_given_up", self.reap_rounds_given_up),
            ("keys_reaped", self.keys_reaped),
            ("keys_pruned", self.keys_pruned),
            ("keys_wiped", self.keys_wiped),
            ("versions_expired", self.versions_expired),
            ("evictions", self.evictions),
            ("values_cooled", self.values_cooled),
            ("cold_reads", self.cold_reads),
            ("cold_read_errors", self.cold_read_errors),
            ("memory_declined", self.memory_declined),
            ("refills_declined", self.refills_declined),
            ("writes_that_asked", self.writes_that_asked),
            ("tombstones_pushed", self.tombstones_pushed),
            ("gossip_rounds", self.gossip_rounds),
            ("gossip_refused", self.gossip_refused),
            ("frames_refused", self.frames_refused),
            ("operations_lingering", self.operations_lingering),
        ]
    }
}
