//! The record of one member: a CRDT of two halves.

use std::sync::Arc;

use ringmain_schema::peer::{Life, MemberRecord, SettledRecord};
use smallvec::SmallVec;

use crate::failpoint::{Bug, Failpoints};
use crate::id::{Incarnation, NodeId, PartitionId};
use crate::ring::{RingMember, Zone};

/// Whatever counts up honestly stays below this: a record with more would leave no room above itself.
const COUNTER_MAX: u64 = 1 << 48;
/// Shards of one node.
const SHARDS_MAX: usize = 1024;
/// Bytes of a name, a host, a data centre or a rack.
const TEXT_BYTES_MAX: usize = 255;
/// A bit for each of the most partitions that a ring can have.
const LACKING_WORDS_MAX: usize = crate::ring::PARTITIONS_MAX as usize / 64;

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

/// What a member says of itself: in the order in which it wins, the greater of two, whatever else they say.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Oneself {
    /// 0 until it is known; then each beginning is greater than the one before.
    pub incarnation: Incarnation,
    /// Counted up once a second within an incarnation.
    pub heartbeat: u64,
    /// Drawn anew by each process that starts under the member's name; 0 if it doesn't say (docs/adr/0015).
    pub life: u64,
    /// The life that this one has heard of and taken over from; 0 for none.
    pub succeeds: u64,
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
    /// Which rings all of its shards work by.
    pub works: Works,
    /// A bit for each partition that it owns and isn't complete for; empty if there is none.
    pub lacking: Arc<[u64]>,
    /// Another one, and greater, each time that it has lost its records (docs/adr/0013); 0 of a version that doesn't reap,
    /// and until it is known.
    pub beginning: u64,
}

impl Oneself {
    /// Has it all that was ever acknowledged to it of this partition, which it owns?
    pub fn is_complete_for(&self, partition: PartitionId) -> bool {
        let (word, bit) = (partition.0 as usize / 64, partition.0 % 64);
        self.complete || self.lacking.get(word).is_none_or(|word| word >> bit & 1 == 0)
    }
}

/// How far a member has come with a change of the ring (docs/adr/0011).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Step {
    /// It writes to the old owners and to the new ones.
    #[default]
    Writing,
    /// It has all that it will own.
    Whole,
    /// It reads from the new owners too.
    Reading,
}

/// Which rings a member works by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Works {
    /// The hash of the ring in force.
    pub ring: u64,
    /// The change under way, by the ring that it leads to and the words that made it; `ring` if there is none.
    pub change: u64,
    /// How far it has come.
    pub step: Step,
}

impl Works {
    /// The same change, however far it has come?
    pub fn is_of(self, other: Self) -> bool {
        (self.ring, self.change) == (other.ring, other.change)
    }
}

/// What is in force of a member, whatever the operator has wanted since.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Settled {
    /// The operator's word that it comes from.
    pub version: u64,
    /// Does it hold a share of the ring?
    pub in_ring: bool,
    /// Capacity.
    pub weight: u32,
    /// Its data centre.
    pub data_center: Arc<str>,
    /// Its rack.
    pub rack: Arc<str>,
    /// Whose place it takes.
    pub place: NodeId,
}

/// What a node knows of a member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its id.
    pub node: NodeId,
    /// Its name.
    pub name: Arc<str>,
    /// Its own half, versioned by (incarnation, heartbeat); of two lives at the same the same one wins everywhere.
    pub oneself: Oneself,
    /// The latest life that was heard of and is neither that one nor the one that it succeeds. If it is none of those that the
    /// member's records have gone through, they are old ones: it has to hear of it, whichever incarnation it has itself.
    pub earlier: Option<Life>,
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
    /// Whose place in the ring it takes; usually its own.
    pub place: NodeId,
    /// What of that is in force.
    pub settled: Settled,
}

impl Member {
    /// Take the newer of both halves; true if anything changed.
    pub fn merge(&mut self, other: &Self, failpoints: &impl Failpoints) -> bool {
        assert_eq!(self.node, other.node, "records of two members don't merge");
        let mut changed = false;
        let is_newer = if failpoints.planted(Bug::HeartbeatBeatsIncarnation) {
            other.oneself.heartbeat > self.oneself.heartbeat
        } else {
            other.oneself > self.oneself
        };
        let is_final = !failpoints.planted(Bug::RemovedReadmitted);
        let is_another = other.oneself.life != self.oneself.life;
        if !is_final && self.is_removed() && !other.is_removed() && is_another {
            (self.intent, self.intent_version) = (Intent::Member, self.intent_version + 1);
            changed = true;
        }
        let lives = [self.life(), other.life()].into_iter().chain(self.earlier).chain(other.earlier);
        let lives: SmallVec<[Life; 4]> = lives.collect();
        if is_newer {
            self.oneself = other.oneself.clone();
            changed = true;
        }
        let own = [0, self.oneself.life, self.oneself.succeeds];
        let earlier = lives.into_iter().filter(|life| !own.contains(&life.life)).max();
        changed |= self.earlier != earlier;
        self.earlier = earlier;
        if other.word(is_final) > self.word(is_final) {
            self.intent = other.intent;
            self.intent_version = other.intent_version;
            self.weight = other.weight;
            self.data_center = other.data_center.clone();
            self.rack = other.rack.clone();
            self.place = other.place;
            changed = true;
        }
        if other.settled > self.settled {
            self.settled = other.settled.clone();
            changed = true;
        }
        changed
    }

    const fn life(&self) -> Life {
        Life { incarnation: self.oneself.incarnation.0, life: self.oneself.life }
    }

    /// The operator's half, in the order in which it wins: removal `is_final`, then the later word, and of two
    /// words at once (two operators) the same one everywhere.
    fn word(&self, is_final: bool) -> (bool, u64, Intent, u32, &str, &str, NodeId) {
        let removed = is_final && self.intent == Intent::Removed;
        let (center, rack) = (&self.data_center, &self.rack);
        (removed, self.intent_version, self.intent, self.weight, center, rack, self.place)
    }

    /// What would be in force of it if what the operator wants were.
    pub fn intended(&self) -> Settled {
        Settled {
            version: self.intent_version,
            in_ring: self.intent == Intent::Member,
            weight: self.weight,
            data_center: self.data_center.clone(),
            rack: self.rack.clone(),
            place: self.place,
        }
    }

    /// Two operators spoke at once, and what the one said was in force before the other was heard, whose word wins: it becomes a
    /// later word than that, the same one wherever both are known. Else it would never be in force: of two things that are,
    /// the later one stays.
    pub(super) fn outdo_settled(&mut self) {
        if self.settled > self.intended() {
            self.intent_version = self.settled.version + 1;
        }
    }

    /// Is it gone for good?
    pub const fn is_removed(&self) -> bool {
        matches!(self.intent, Intent::Removed)
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
            place: self.place.0,
            settled: Some(self.settled.to_record()),
            ring: self.oneself.works.ring,
            change: self.oneself.works.change,
            step: self.oneself.works.step as u8,
            lacking: self.oneself.lacking.to_vec(),
            life: self.oneself.life,
            succeeds: self.oneself.succeeds,
            earlier: self.earlier,
            bound: None,
            line: vec![],
            beginning: self.oneself.beginning,
        }
    }

    /// From gossip; `None` if it makes no sense here, which a newer version's record might.
    pub fn from_record(record: &MemberRecord) -> Option<Self> {
        let settled = record.settled.as_ref();
        let settled_version = settled.map_or(0, |settled| settled.version);
        let earlier = record.earlier.map_or(0, |life| life.incarnation);
        let counters = [
            record.incarnation,
            record.heartbeat,
            record.intent_version,
            settled_version,
            earlier,
            record.beginning,
        ];
        let none = String::new();
        let [center, rack] = settled.map_or([&none; 2], |settled| [&settled.data_center, &settled.rack]);
        let texts = [&record.name, &record.host, &record.data_center, &record.rack, center, rack];
        if record.node == 0
            || record.weight == 0
            || counters.iter().any(|&counter| counter > COUNTER_MAX)
            || record.shard_ports.len() > SHARDS_MAX
            || record.lacking.len() > LACKING_WORDS_MAX
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
        let step = match record.step {
            0 => Step::Writing,
            1 => Step::Whole,
            2 => Step::Reading,
            _ => return None,
        };
        let mut member = Self {
            node: NodeId(record.node),
            name: record.name.as_str().into(),
            oneself: Oneself {
                incarnation: Incarnation(record.incarnation),
                heartbeat: record.heartbeat,
                life: record.life,
                succeeds: record.succeeds,
                host: record.host.as_str().into(),
                ordinary_port: record.ordinary_port,
                shard_ports: record.shard_ports.as_slice().into(),
                complete: record.complete,
                serving: record.serving,
                works: Works { ring: record.ring, change: record.change, step },
                lacking: record.lacking.as_slice().into(),
                beginning: record.beginning,
            },
            intent,
            intent_version: record.intent_version,
            weight: record.weight,
            data_center: record.data_center.as_str().into(),
            rack: record.rack.as_str().into(),
            place: place_of(record.place, record.node),
            earlier: record.earlier,
            settled: Settled::unknown(),
        };
        // A version that doesn't know of changes has none under way.
        member.settled = match settled {
            Some(settled) => Settled::from_record(settled, record.node)?,
            None => member.intended(),
        };
        Some(member)
    }
}

impl Settled {
    /// Of a member of which nothing was ever in force.
    pub fn unknown() -> Self {
        let nowhere: Arc<str> = "".into();
        let (data_center, rack) = (nowhere.clone(), nowhere);
        Self { version: 0, in_ring: false, weight: 1, data_center, rack, place: NodeId(0) }
    }

    /// As the ring sees it.
    pub fn ring_member(&self, node: NodeId) -> RingMember {
        let zone = Zone::new(&self.data_center, &self.rack);
        RingMember { node, weight: self.weight.max(1), zone, place: self.place }
    }

    pub(super) fn to_record(&self) -> SettledRecord {
        SettledRecord {
            version: self.version,
            in_ring: self.in_ring,
            weight: self.weight,
            data_center: self.data_center.to_string(),
            rack: self.rack.to_string(),
            place: self.place.0,
        }
    }

    pub(super) fn from_record(record: &SettledRecord, node: u64) -> Option<Self> {
        (record.weight > 0).then(|| Self {
            version: record.version,
            in_ring: record.in_ring,
            weight: record.weight,
            data_center: record.data_center.as_str().into(),
            rack: record.rack.as_str().into(),
            place: place_of(record.place, node),
        })
    }
}

const fn place_of(place: u64, node: u64) -> NodeId {
    NodeId(if place == 0 { node } else { place })
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::failpoint::NoFailpoints;

    pub(crate) fn member(node: u64) -> Member {
        let mut member = Member {
            node: NodeId(node),
            name: format!("n{node}").into(),
            oneself: Oneself {
                incarnation: Incarnation(1),
                heartbeat: 1,
                life: 11,
                succeeds: 9,
                host: "127.0.0.1".into(),
                ordinary_port: 7400,
                shard_ports: [7401].into(),
                complete: true,
                serving: true,
                works: Works { ring: 1, change: 2, step: Step::Whole },
                lacking: [5].into(),
                beginning: 3,
            },
            intent: Intent::Member,
            intent_version: 1,
            weight: 100,
            data_center: "a".into(),
            rack: "b".into(),
            place: NodeId(3),
            earlier: Some(Life { incarnation: 1, life: 10 }),
            settled: Settled::unknown(),
        };
        member.settled = Settled { weight: 50, ..member.intended() };
        member
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

        let mut settled = old.clone();
        settled.settled = heavier.intended();

        let records = [old, busy, reborn, heavier, removed, settled];
        let merge_all = |order: &[usize]| {
            let mut merged = records[order[0]].clone();
            for &next in order {
                merged.merge(&records[next], &NoFailpoints);
            }
            merged
        };
        let forward = merge_all(&[0, 1, 2, 3, 4, 5]);
        assert_eq!(forward, merge_all(&[5, 4, 3, 2, 1, 0]));
        assert_eq!(forward, merge_all(&[2, 4, 5, 0, 3, 1]));
        assert_eq!(forward.oneself.incarnation, Incarnation(2));
        assert_eq!(forward.intent, Intent::Removed);
        assert_eq!((forward.settled.version, forward.settled.weight), (2, 200));
    }

    /// A record with each half at one of a few versions, and one of two lives.
    fn any_record() -> impl Strategy<Value = Member> {
        let earlier = prop::option::of((0..3u64, 1..4u64));
        let own = (0..3u64, 0..3u64, 0..3u64, any::<bool>(), 0..3u64, earlier);
        let said = (0..3u64, 1..3u32, 0..4usize, 0..3u64, any::<bool>());
        (own, said).prop_map(|(own, (word, weight, intent, settled, in_ring))| {
            let (incarnation, heartbeat, life, serving, succeeds, earlier) = own;
            let mut record = member(7);
            let oneself = &mut record.oneself;
            (oneself.incarnation, oneself.heartbeat) = (Incarnation(incarnation), heartbeat);
            (oneself.life, oneself.serving, oneself.succeeds) = (life, serving, succeeds);
            record.earlier = earlier.map(|(incarnation, life)| Life { incarnation, life });
            (record.intent_version, record.weight) = (word, weight);
            record.intent = [Intent::Guest, Intent::Member, Intent::Leaving, Intent::Removed][intent];
            (record.settled.version, record.settled.in_ring) = (settled, in_ring);
            record
        })
    }

    fn merged(left: &Member, right: &Member) -> Member {
        let mut merged = left.clone();
        merged.merge(right, &NoFailpoints);
        merged
    }

    /// All but the earlier life.
    fn lasting(record: &Member) -> Member {
        Member { earlier: None, ..record.clone() }
    }

    proptest! {
        /// Whatever the order and however often: also of what two processes under one name say.
        #[test]
        fn merging_is_commutative_associative_and_idempotent(
            a in any_record(), b in any_record(), c in any_record(),
        ) {
            prop_assert_eq!(merged(&a, &b), merged(&b, &a));
            let (left, right) = (merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
            prop_assert_eq!(lasting(&left), lasting(&right));
            prop_assert_eq!(lasting(&merged(&a, &a)), lasting(&a));
            // Which life is an earlier one depends on who is there: they agree on it once they agree on that.
            prop_assert_eq!(merged(&left, &right), merged(&right, &left));
            let both = merged(&left, &right);
            prop_assert_eq!(merged(&both, &left), both.clone());
            prop_assert_eq!(merged(&both, &right), both);
        }
    }
}
