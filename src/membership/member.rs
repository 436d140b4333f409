//! The record of one member: a CRDT of two halves.

use std::sync::Arc;

use ringmain_schema::peer::MemberRecord;

use crate::failpoint::{Bug, Failpoints};
use crate::id::{Incarnation, NodeId};
use crate::ring::{RingMember, Zone};

/// Whatever counts up honestly stays below this: a record with more would leave no room above itself.
const COUNTER_MAX: u64 = 1 << 48;
/// Shards of one node.
const SHARDS_MAX: usize = 1024;
/// Bytes of a name, a host, a data centre or a rack.
const TEXT_BYTES_MAX: usize = 255;

/// What the operator wants of a member.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Intent {
    /// Passes requests on, and holds no partitions.
    Guest,
    /// Holds its share.
    Member,
    /// Hands its share over.
    Leaving,
    /// Gone for good.
    Removed,
}

/// What a member says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Oneself {
    /// 0 until it is known; then each beginning is greater than the one before.
    pub incarnation: Incarnation,
    /// Counted up once a second within an incarnation.
    pub heartbeat: u64,
    /// Where its ports are.
    pub host: Arc<str>,
    /// The port that its shards share.
    pub ordinary_port: u16,
    /// Each shard's own; empty while nobody has heard from it.
    pub shard_ports: Arc<[u16]>,
    /// Its silence about a key means that nothing was acknowledged to it.
    pub complete: bool,
    /// It answers requests about keys.
    pub serving: bool,
}

/// What a node knows of a member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its id.
    pub node: NodeId,
    /// Its name.
    pub name: Arc<str>,
    /// Its own half, versioned by (incarnation, heartbeat).
    pub oneself: Oneself,
    /// The operator's half, versioned by `intent_version`.
    pub intent: Intent,
    /// Counts the operator's words about this member; 0 for a founder of which nothing was heard yet.
    pub intent_version: u64,
    /// Capacity; 100 is ordinary. At least 1.
    pub weight: u32,
    /// Its data centre; may be empty.
    pub data_center: Arc<str>,
    /// Its rack; may be empty.
    pub rack: Arc<str>,
}

impl Member {
    /// Take the newer of both halves; true if anything changed.
    pub fn merge(&mut self, other: &Self, failpoints: &impl Failpoints) -> bool {
        assert_eq!(self.node, other.node, "records of two members don't merge");
        let mut changed = false;
        let version = |oneself: &Oneself| {
            let counts = !failpoints.planted(Bug::HeartbeatBeatsIncarnation);
            (if counts { oneself.incarnation } else { Incarnation(0) }, oneself.heartbeat)
        };
        if version(&other.oneself) > version(&self.oneself) {
            self.oneself = other.oneself.clone();
            changed = true;
        }
        if other.word() > self.word() {
            self.intent = other.intent;
            self.intent_version = other.intent_version;
            self.weight = other.weight;
            self.data_center = other.data_center.clone();
            self.rack = other.rack.clone();
            changed = true;
        }
        changed
    }

    /// The operator's half, in the order in which it wins: removal is final, then the later word, and of two
    /// words at once (two operators) the same one everywhere.
    fn word(&self) -> (bool, u64, Intent, u32, &str, &str) {
        let removed = self.intent == Intent::Removed;
        (removed, self.intent_version, self.intent, self.weight, &self.data_center, &self.rack)
    }

    /// Does it hold a share of the ring?
    pub const fn is_in_ring(&self) -> bool {
        matches!(self.intent, Intent::Member)
    }

    /// As the ring sees it.
    pub fn ring_member(&self) -> RingMember {
        let zone = Zone::new(&self.data_center, &self.rack);
        RingMember { node: self.node, weight: self.weight.max(1), zone }
    }

    /// For gossip.
    pub fn to_record(&self) -> MemberRecord {
        MemberRecord {
            node: self.node.0,
            name: self.name.to_string(),
            host: self.oneself.host.to_string(),
            ordinary_port: self.oneself.ordinary_port,
            shard_ports: self.oneself.shard_ports.to_vec(),
            incarnation: self.oneself.incarnation.0,
            heartbeat: self.oneself.heartbeat,
            weight: self.weight,
            data_center: self.data_center.to_string(),
            rack: self.rack.to_string(),
            intent: match self.intent {
                Intent::Guest => 4,
                Intent::Member => 1,
                Intent::Leaving => 2,
                Intent::Removed => 3,
            },
            intent_version: self.intent_version,
            complete: self.oneself.complete,
            serving: self.oneself.serving,
        }
    }

    /// From gossip; `None` if it makes no sense here, which a newer version's record might.
    pub fn from_record(record: &MemberRecord) -> Option<Self> {
        let counters = [record.incarnation, record.heartbeat, record.intent_version];
        let texts = [&record.name, &record.host, &record.data_center, &record.rack];
        if record.node == 0
            || record.weight == 0
            || counters.iter().any(|&counter| counter > COUNTER_MAX)
            || record.shard_ports.len() > SHARDS_MAX
            || texts.iter().any(|text| text.len() > TEXT_BYTES_MAX)
        {
            return None;
        }
        let intent = match record.intent {
            1 => Intent::Member,
            2 => Intent::Leaving,
            3 => Intent::Removed,
            4 => Intent::Guest,
            _ => return None,
        };
        Some(Self {
            node: NodeId(record.node),
            name: record.name.as_str().into(),
            oneself: Oneself {
                incarnation: Incarnation(record.incarnation),
                heartbeat: record.heartbeat,
                host: record.host.as_str().into(),
                ordinary_port: record.ordinary_port,
                shard_ports: record.shard_ports.as_slice().into(),
                complete: record.complete,
                serving: record.serving,
            },
            intent,
            intent_version: record.intent_version,
            weight: record.weight,
            data_center: record.data_center.as_str().into(),
            rack: record.rack.as_str().into(),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::failpoint::NoFailpoints;

    pub(crate) fn member(node: u64) -> Member {
        Member {
            node: NodeId(node),
            name: format!("n{node}").into(),
            oneself: Oneself {
                incarnation: Incarnation(1),
                heartbeat: 1,
                host: "127.0.0.1".into(),
                ordinary_port: 7400,
                shard_ports: [7401].into(),
                complete: true,
                serving: true,
            },
            intent: Intent::Member,
            intent_version: 1,
            weight: 100,
            data_center: "a".into(),
            rack: "b".into(),
        }
    }

    #[test]
    fn a_record_survives_the_wire() {
        let member = member(7);
        assert_eq!(Member::from_record(&member.to_record()), Some(member));
    }

    /// A new beginning outweighs any heartbeat of an older one (scylla PR 5801).
    #[test]
    fn halves_merge_apart_and_the_order_does_not_matter() {
        let old = member(7);
        let mut busy = old.clone();
        busy.oneself.heartbeat = u64::MAX;
        let mut reborn = old.clone();
        reborn.oneself.incarnation = Incarnation(2);
        let mut heavier = old.clone();
        (heavier.weight, heavier.intent_version) = (200, 2);
        let mut removed = old.clone();
        removed.intent = Intent::Removed;

        let records = [old, busy, reborn, heavier, removed];
        let merge_all = |order: &[usize]| {
            let mut merged = records[order[0]].clone();
            for &next in order {
                merged.merge(&records[next], &NoFailpoints);
            }
            merged
        };
        let forward = merge_all(&[0, 1, 2, 3, 4]);
        assert_eq!(forward, merge_all(&[4, 3, 2, 1, 0]));
        assert_eq!(forward, merge_all(&[2, 4, 0, 3, 1]));
        assert_eq!(forward.oneself.incarnation, Incarnation(2));
        assert_eq!(forward.intent, Intent::Removed);
    }
}
