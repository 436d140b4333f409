//! What a node's logs say of the node, beside its copies: by which ring it works, what it lacks, and how much it keeps for others.

use std::collections::BTreeMap;
use std::fmt;

use ringmain_schema::peer::{Gossip, MemberRecord};
use ringmain_schema::token::{partition, token};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::id::NodeId;
use crate::shard::Record;

/// What a node's copies lack of what was acknowledged to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lacking {
    /// All of so many partitions may be missing; 0: nothing is.
    Partitions(u32),
    /// Nobody knows what: it has lost records, or is a copy, and its own records don't say so yet.
    Unknown,
}

impl Lacking {
    pub(super) const NOTHING: Self = Self::Partitions(0);

    /// The worse of both.
    pub(super) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Partitions(one), Self::Partitions(other)) => Self::Partitions(one.max(other)),
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partitions(0) => f.write_str("nothing"),
            Self::Partitions(1) => f.write_str("1 partition"),
            Self::Partitions(count) => write!(f, "{count} partitions"),
            Self::Unknown => f.write_str("some of what it held"),
        }
    }
}

/// By what its node decided who owns what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RingInForce {
    /// The hash of the ring.
    pub(super) hash: u64,
    /// Of the change that was under way; the same as `hash` if none was.
    pub(super) change: u64,
    /// So many nodes own something.
    pub(super) members: usize,
}

impl RingInForce {
    pub(super) const fn is_changing(&self) -> bool {
        self.hash != self.change
    }
}

/// What is noted of one log while it is read.
#[derive(Debug, Default)]
pub(super) struct Noted {
    records: u64,
    members: Option<Gossip>,
    /// Those that are kept, by a hash of the key and of the node that they are for: the token, and the record.
    hints: BTreeMap<u64, (u64, u64)>,
    /// The record by which a partition was wiped last.
    wiped: BTreeMap<u32, u64>,
}

impl Noted {
    pub(super) fn on_record(&mut self, record: Record<'_>) {
        self.records += 1;
        match record {
            Record::Members(members) => self.members = Some(members),
            Record::Key(key) if key.hint_for != 0 && !key.key.is_empty() => {
                let name = xxh3_64_with_seed(key.key, key.hint_for);
                let is_gone = key.state.versions().next().is_none() && key.state.clock().next().is_none();
                if is_gone {
                    self.hints.remove(&name);
                } else {
                    self.hints.insert(name, (token(key.key), self.records));
                }
            }
            Record::Epoch(epoch) if epoch.wiped => _ = self.wiped.insert(epoch.partition, self.records),
            Record::Key(_) | Record::GivenUp(_) | Record::Epoch(_) | Record::Beginnings(_) => {}
        }
    }

    /// The last word about members.
    pub(super) fn take_members(&mut self) -> Option<Gossip> {
        self.members.take()
    }

    /// States of keys that are kept for other nodes.
    pub(super) fn hints(&self, partitions: u32) -> u64 {
        let is_kept = |(token, record): &&(u64, u64)| {
            self.wiped.get(&partition(*token, partitions)).is_none_or(|wiped| wiped < record)
        };
        self.hints.values().filter(is_kept).count() as u64
    }
}

/// What a node said of itself.
pub(super) fn said_of(members: &Gossip, node: NodeId) -> Option<&MemberRecord> {
    members.members.iter().find(|member| member.node == node.0)
}

/// What a node said of its copies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Said {
    pub(super) lacking: Lacking,
    pub(super) ring: RingInForce,
}

impl Said {
    /// One that has not begun to serve, or doesn't say who it is, may lack anything.
    pub(super) fn of(members: &Gossip, node: NodeId) -> Self {
        let own = said_of(members, node);
        let lacking = match own {
            Some(own) if own.complete => Lacking::NOTHING,
            Some(own) if !own.lacking.is_empty() => {
                Lacking::Partitions(own.lacking.iter().map(|word| word.count_ones()).sum())
            }
            _ => Lacking::Unknown,
        };
        let in_ring = |member: &&MemberRecord| member.settled.as_ref().is_some_and(|settled| settled.in_ring);
        let (hash, change) = own.map_or((0, 0), |own| (own.ring, own.change));
        let ring = RingInForce { hash, change, members: members.members.iter().filter(in_ring).count() };
        Self { lacking, ring }
    }

    /// And later, while its logs were still being read. A ring that was another then was changing.
    pub(super) fn and(self, later: Self) -> Self {
        let change = match later.ring {
            ring if ring.hash != self.ring.hash => ring.hash,
            ring if ring.is_changing() => ring.change,
            _ => self.ring.change,
        };
        Self { lacking: self.lacking.or(later.lacking), ring: RingInForce { change, ..self.ring } }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use ringmain_schema::Encoder;
    use ringmain_schema::epoch::Epoch;
    use ringmain_schema::peer::ReplicateWriter;

    use crate::causality::{Actor, Content, Siblings, VersionVector};
    use crate::id::OperationId;
    use crate::replica::state_writer;
    use crate::time::WallTime;

    #[test]
    fn hints_count_until_they_are_handed_over_or_their_partition_is_wiped() {
        let (mut kept, nothing) = (Siblings::new(), Siblings::new());
        let value = Content::Value(bytes::Bytes::from_static(b"v"));
        let actor = Actor { id: 1, epoch: 1 };
        kept.put(actor, &VersionVector::default(), value, None, OperationId::NONE, WallTime(1));
        let mut noted = Noted::default();
        let mut note = |key: &[u8], hint_for, state: &Siblings<bytes::Bytes>| {
            let record = ReplicateWriter {
                key,
                state: state_writer(state),
                ring: 5,
                partition_epoch: 0,
                repair: false,
                replaced: &[],
                hint_for,
                exchange: false,
            };
            let mut out = Vec::new();
            record.encode(&mut Encoder::default(), 0, &mut out);
            noted.on_record(Record::parse(&out).unwrap());
        };
        note(b"own", 0, &kept);
        note(b"kept", 8, &kept);
        note(b"kept", 9, &kept);
        note(b"kept", 9, &kept);
        note(b"handed over", 9, &kept);
        note(b"handed over", 9, &nothing);
        note(b"wiped", 9, &kept);
        assert_eq!(noted.hints(1 << 16), 3);
        let wiped = partition(token(b"wiped"), 1 << 16);
        assert_ne!(wiped, partition(token(b"kept"), 1 << 16));
        noted.on_record(Record::Epoch(Box::new(Epoch { partition: wiped, wiped: true, ..Epoch::default() })));
        assert_eq!(noted.hints(1 << 16), 2);
    }

    #[test]
    fn whoever_says_nothing_of_itself_may_lack_anything() {
        let gossip = |members| Gossip { ring: 0, members, partitions: 0, replicas: 0 };
        let told = |complete, lacking: &[u64]| {
            let own = MemberRecord { complete, lacking: lacking.to_vec(), ..record() };
            Said::of(&gossip(vec![own]), NodeId(7)).lacking
        };
        assert_eq!(told(true, &[]), Lacking::NOTHING);
        assert_eq!(told(false, &[0b101, 1]), Lacking::Partitions(3));
        assert_eq!(told(false, &[]), Lacking::Unknown);
        assert_eq!(Said::of(&gossip(vec![]), NodeId(7)).lacking, Lacking::Unknown);
        assert_eq!(Lacking::NOTHING.or(Lacking::Partitions(3)), Lacking::Partitions(3));
        assert_eq!(Lacking::Unknown.or(Lacking::Partitions(3)), Lacking::Unknown);
    }

    #[test]
    fn a_ring_that_is_another_in_the_end_was_changing() {
        let said = |hash, change| {
            let ring = RingInForce { hash, change, members: 3 };
            Said { lacking: Lacking::NOTHING, ring }
        };
        assert!(!said(1, 1).and(said(1, 1)).ring.is_changing());
        assert!(said(1, 1).and(said(1, 2)).ring.is_changing());
        assert!(said(1, 1).and(said(2, 2)).ring.is_changing());
        assert!(said(1, 2).and(said(2, 2)).ring.is_changing());
        assert!(said(1, 2).and(said(1, 1)).ring.is_changing());
        assert!(said(1, 1).and(said(2, 2)).and(said(1, 1)).ring.is_changing());
    }

    pub(in super::super) fn record() -> MemberRecord {
        MemberRecord {
            node: 7,
            name: "n".to_owned(),
            host: "h".to_owned(),
            ordinary_port: 1,
            shard_ports: vec![],
            incarnation: 1,
            heartbeat: 1,
            weight: 1,
            data_center: String::new(),
            rack: String::new(),
            intent: 1,
            intent_version: 0,
            complete: true,
            serving: true,
            place: 0,
            settled: None,
            ring: 1,
            change: 1,
            step: 0,
            lacking: vec![],
            life: 0,
            succeeds: 0,
            earlier: None,
            bound: None,
            line: vec![],
            beginning: 0,
        }
    }
}
