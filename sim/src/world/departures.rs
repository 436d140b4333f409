//! Former owners: what they give up must be with all owners, and nobody else keeps anything when all is at rest.

use ringmain::causality::{Dot, VersionVector};
use ringmain::id::PartitionId;
use ringmain_schema::token;

use super::process::PARTITIONS;
use super::watch::key_of;
use super::{At, World};
use crate::checkers::{Promise, Violation};
use crate::deeds::DiskFate;
use crate::history::Key;

impl World {
    /// P1: a copy goes only when every owner has what it had, on stable storage.
    pub(super) fn check_given_up(&mut self, at: At) {
        for (key, had) in self.meddler.take_given_up() {
            let Some(key) = key_of(&key).filter(|key| !self.evicted.contains_key(key)) else { continue };
            let Some(owner) = self.heirs(at, key).into_iter().find(|owner| !self.has_all(*owner, key, &had))
            else {
                continue;
            };
            let sentence = format!(
                "node {} gave up its copy of key {}, and node {owner}, which owns it, has not all of it on stable \
                 storage",
                at.node, key.0
            );
            let operations = had
                .iter()
                .filter_map(|(actor, counter)| Some(self.dots.get(key, Dot { actor, counter })?.operation));
            let operations = operations.collect();
            let promise = Promise::Durability;
            self.violation.get_or_insert(Violation { promise, key: Some(key), sentence, operations });
        }
    }

    /// The owners of a key by the view of this shard, each in the life that it knows of: one that has lost its disk since
    /// is another, and its copies count as destroyed.
    fn heirs(&mut self, at: At, key: Key) -> Vec<usize> {
        let view = self.nodes[at.node].running(at.shard).shard.view().clone();
        let partition = partition_of(key);
        let owners = view.primaries(partition).iter().chain(view.successors(partition));
        let owners = owners.filter_map(|id| view.member(*id)).filter(|member| !member.is_removed());
        let owners: Vec<_> = owners.map(|member| (member.node, member.oneself.incarnation)).collect();
        let machines = 0..self.plan.machines();
        machines
            .filter(|&node| {
                let machine = &self.nodes[node];
                let running = machine.all_running().first().map(|running| running.shard.view());
                let lives_as =
                    running.filter(|view| view.is_serving()).map(|view| (view.me, view.incarnation()));
                machine.next_disk == DiskFate::Kept && lives_as.is_some_and(|life| owners.contains(&life))
            })
            .collect()
    }

    fn has_all(&self, node: usize, key: Key, had: &VersionVector) -> bool {
        if self.plan.durable {
            self.nodes[node].stable.seen_of(key).is_some_and(|seen| seen.includes(had))
        } else {
            self.state_at(node, key).is_some_and(|state| state.context().includes(had))
        }
    }

    /// Who holds a copy of a key that it doesn't own.
    pub(super) fn strays(&self) -> Vec<(usize, Key)> {
        let keys = (0..=self.plan.keys.len() as u8).map(Key);
        let all = keys.flat_map(|key| self.present().into_iter().map(move |node| (node, key)));
        all.filter(|&(node, key)| self.state_at(node, key).is_some() && !self.owns(node, key)).collect()
    }
}

pub(super) fn partition_of(key: Key) -> PartitionId {
    partition_of_name(&World::key_name(key))
}

/// The same of its name on the wire.
pub(super) fn partition_of_name(name: &[u8]) -> PartitionId {
    PartitionId(token::partition(token::token(name), PARTITIONS))
}
