//! How a shard is, for people.

use ringmain_schema::message::{Counter, MemberStatus, Status};

use crate::failpoint::Failpoints;
use crate::id::{Incarnation, NodeId};
use crate::membership::{Health, Intent, Member, Step};
use crate::time::Instant;

use super::Shard;

impl<F: Failpoints> Shard<F> {
    /// States from anti-entropy that were news here, since the start.
    pub const fn keys_repaired(&self) -> u64 {
        self.counters.anti_entropy_keys_repaired
    }

    pub(super) fn status(&self, now: Instant) -> Status {
        let backlog = self.hints.store.backlog();
        let (hints, hint_bytes) = backlog.fold((0, 0), |sum, (_, keys, bytes)| (sum.0 + keys, sum.1 + bytes));
        let (departed_partitions, departed_keys) = self.departed();
        let gauges = [
            ("keys", self.replica.keys() as u64),
            ("key_and_value_bytes", self.replica.bytes() as u64),
            ("values_cold", self.replica.index().cold() as u64),
            ("cold_reads_waiting", self.loads.len() as u64),
            ("connections", self.sessions.len() as u64),
            ("operations_under_way", self.operations.len() as u64),
            ("relays_under_way", self.relays.len() as u64),
            ("hints", hints as u64),
            ("hint_bytes", hint_bytes as u64),
            ("departed_partitions", departed_partitions as u64),
            ("departed_keys", departed_keys as u64),
            ("suspicions_answered", self.detector.suspicions_answered()),
            ("reap_partitions_waiting", self.epochs.rounds.waiting.len() as u64),
            ("partitions_unmet", self.partitions_unmet() as u64),
            ("partitions_evicted", self.evictions.partitions() as u64),
        ];
        let (rounds, meeting) = (self.epochs.rounds.waiting.values(), self.meeting_waits_for());
        let waits_for = |kind: &str, member: &Member, count: usize| {
            (count > 0).then(|| (format!("{kind}_waits_for_{}", member.name), count as u64))
        };
        let members = self.view.members.iter();
        let waits_for: Vec<_> = members
            .flat_map(|member| {
                let reap = rounds.clone().filter(|node| **node == member.node).count();
                let meet = meeting.get(&member.node).copied().unwrap_or(0);
                [waits_for("reap", member, reap), waits_for("meeting", member, meet)]
            })
            .flatten()
            .collect();
        let counters = gauges
            .into_iter()
            .chain(self.memory_gauges())
            .chain(self.counters.named())
            .chain(self.pace_gauges());
        let counters = counters.map(|(name, value)| (name.to_owned(), value)).chain(waits_for);
        Status {
            node: self.view.me.0,
            name: self.view.myself().name.to_string(),
            cluster: self.view.cluster.0,
            shard: self.options.shard.0,
            shards: self.options.shards,
            epoch: self.view.epoch,
            serving: self.view.is_serving(),
            software: self.options.software.to_string(),
            members: self.view.members.iter().map(|member| self.member_status(now, member)).collect(),
            counters: counters.map(|(name, value)| Counter { name, value }).collect(),
            change: self.change_step().to_owned(),
            trouble: self.view.trouble.as_ref().map(ToString::to_string).unwrap_or_default(),
        }
    }

    /// How far the ring's change has come here.
    fn change_step(&self) -> &'static str {
        self.view.change.as_ref().map_or("", |_| step_name(self.view.works.step))
    }

    /// How far a member has come with the change that this node is at, as last heard.
    fn step_of(&self, member: &Member) -> &'static str {
        let (theirs, ours) = (member.oneself.works, self.view.works);
        if self.view.change.is_none() || member.is_removed() {
            ""
        } else if theirs.is_of(ours) {
            step_name(theirs.step)
        } else {
            "not heard"
        }
    }

    fn member_status(&self, now: Instant, member: &Member) -> MemberStatus {
        MemberStatus {
            node: member.node.0,
            name: member.name.to_string(),
            address: format!("{}:{}", member.oneself.host, member.oneself.ordinary_port),
            incarnation: member.oneself.incarnation.0,
            state: self.member_state(now, member.node, member.oneself.incarnation).to_owned(),
            intent: match member.intent {
                Intent::Guest => "guest",
                Intent::Member => "member",
                Intent::Leaving => "leaving",
                Intent::Removed => "removed",
            }
            .to_owned(),
            weight: member.weight,
            data_center: member.data_center.to_string(),
            rack: member.rack.to_string(),
            step: self.step_of(member).to_owned(),
            lacking: member.oneself.lacking.iter().map(|word| word.count_ones()).sum(),
        }
    }

    fn member_state(&self, now: Instant, node: NodeId, incarnation: Incarnation) -> &'static str {
        if node == self.view.me {
            "self"
        } else if incarnation == Incarnation(0) {
            "not met"
        } else if self.detector.health(now, node) == Health::Up {
            "up"
        } else {
            "suspected"
        }
    }
}

const fn step_name(step: Step) -> &'static str {
    match step {
        Step::Writing => "writing",
        Step::Whole => "whole",
        Step::Reading => "reading",
    }
}
