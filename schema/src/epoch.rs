//! Views of the frames and records about partitions' epochs: how tombstones are reaped. All of them carry a checksum.

use std::collections::BTreeMap;

use flatbuffers::Vector;

use crate::encode::Encoder;
use crate::exchange::KeyHash;
use crate::frame::{Flags, Frame, Kind};
use crate::generated::peer as wire;
use crate::limits::{MEMBERS_MAX, REAPED_KEYS_MAX, ROUNDS_BOUND_MAX, WORDS_MAX};
use crate::message::{Malformed, verified};

pub use wire::{Beginning, Binding};

/// Keys by their tokens, each with the hash of a state.
pub type Keys = Vec<(u64, u64)>;

/// The epoch of a partition, and how it was raised. In the log: all that a shard knows of it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Epoch {
    /// The partition.
    pub partition: u32,
    /// Its epoch.
    pub epoch: u64,
    /// The node that raised it; 0 if nobody knows.
    pub proposer: u64,
    /// In which of its rounds.
    pub round: u64,
    /// What was forgotten with that, where it was still the same.
    pub reaped: Keys,
    /// Of what the counters of actors without a version were forgotten.
    pub pruned: Keys,
    /// In the log only: the rounds by which the shard is bound.
    pub bindings: Vec<Binding>,
    /// In the log only: the node's beginning that others have noted.
    pub met: u64,
    /// In the log only: the partition is to be streamed again.
    pub lost: bool,
    /// In the log only: what was held before was of an older epoch.
    pub wiped: bool,
}

impl Epoch {
    /// From a frame of kind `EPOCH`.
    pub fn parse(frame: &Frame<'_>) -> Result<Self, Malformed> {
        let wire = verified::<wire::Epoch<'_>>(frame, "Epoch", 1)?;
        let bindings = wire.bindings().into_iter().flat_map(|all| all.iter()).copied();
        Ok(Self {
            partition: wire.partition(),
            epoch: wire.epoch(),
            proposer: wire.proposer(),
            round: wire.round(),
            reaped: keys(wire.reaped())?,
            pruned: keys(wire.pruned())?,
            bindings: bindings.take(ROUNDS_BOUND_MAX).collect(),
            met: wire.met(),
            lost: wire.lost(),
            wiped: wire.wiped(),
        })
    }

    /// Append as a frame.
    pub fn encode(&self, encoder: &mut Encoder, request_id: u64, out: &mut Vec<u8>) {
        encoder.frame(out, Kind::EPOCH, Flags::CHECKSUM, request_id, [], |builder| {
            let (reaped, pruned) = (on_the_wire(&self.reaped), on_the_wire(&self.pruned));
            let arguments = wire::EpochArgs {
                partition: self.partition,
                epoch: self.epoch,
                proposer: self.proposer,
                round: self.round,
                reaped: (!reaped.is_empty()).then(|| builder.create_vector(&reaped)),
                pruned: (!pruned.is_empty()).then(|| builder.create_vector(&pruned)),
                bindings: (!self.bindings.is_empty()).then(|| builder.create_vector(&self.bindings)),
                met: self.met,
                lost: self.lost,
                wiped: self.wiped,
            };
            wire::Epoch::create(builder, &arguments)
        });
    }
}

/// Confirm these keys, or promise to keep nothing of this epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Propose {
    /// The partition.
    pub partition: u32,
    /// Its epoch at the proposer.
    pub epoch: u64,
    /// Names the proposer's round.
    pub round: u64,
    /// The hash of the proposer's ring.
    pub ring: u64,
    /// A hash of the members and their beginnings.
    pub beginnings: u64,
    /// The proposer's incarnation.
    pub incarnation: u64,
    /// Keys of which nothing but tombstones is left.
    pub reaped: Keys,
    /// Keys of which actors without a version would be forgotten.
    pub pruned: Keys,
}

impl Propose {
    /// From a frame of kind `PROPOSE`.
    pub fn parse(frame: &Frame<'_>) -> Result<Self, Malformed> {
        let wire = verified::<wire::Propose<'_>>(frame, "Propose", 1)?;
        let proposed = Self {
            partition: wire.partition(),
            epoch: wire.epoch(),
            round: wire.round(),
            ring: wire.ring(),
            beginnings: wire.beginnings(),
            incarnation: wire.incarnation(),
            reaped: keys(wire.reaped())?,
            pruned: keys(wire.pruned())?,
        };
        if proposed.reaped.len() + proposed.pruned.len() > REAPED_KEYS_MAX {
            return Err(Malformed::Field("a round about more keys than one may be"));
        }
        Ok(proposed)
    }

    /// Append as a frame.
    pub fn encode(&self, encoder: &mut Encoder, request_id: u64, out: &mut Vec<u8>) {
        encoder.frame(out, Kind::PROPOSE, Flags::CHECKSUM, request_id, [], |builder| {
            let arguments = wire::ProposeArgs {
                partition: self.partition,
                epoch: self.epoch,
                round: self.round,
                ring: self.ring,
                beginnings: self.beginnings,
                incarnation: self.incarnation,
                reaped: Some(builder.create_vector(&on_the_wire(&self.reaped))),
                pruned: Some(builder.create_vector(&on_the_wire(&self.pruned))),
            };
            wire::Propose::create(builder, &arguments)
        });
    }
}

/// The answer to a proposal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bound {
    /// The partition.
    pub partition: u32,
    /// Its epoch.
    pub epoch: u64,
    /// The proposer's round.
    pub round: u64,
    /// Or else refused.
    pub bound: bool,
    /// A bit for each of the keys, those to be reaped first. Whoever promises agrees with all.
    pub agreed: u128,
    /// Keys of the partition were put out there: no round of anti-entropy brings the sender what it lacks.
    pub evicted: bool,
}

impl Bound {
    /// From a frame of kind `BOUND`.
    pub fn parse(frame: &Frame<'_>) -> Result<Self, Malformed> {
        let wire = verified::<wire::Bound<'_>>(frame, "Bound", 1)?;
        let mut words = wire.agreed().into_iter().flat_map(|all| all.iter()).chain([0, 0]).take(2);
        let mut word = || u128::from(words.next().unwrap_or(0));
        let agreed = word() | word() << 64;
        Ok(Self {
            partition: wire.partition(),
            epoch: wire.epoch(),
            round: wire.round(),
            bound: wire.bound(),
            agreed,
            evicted: wire.evicted(),
        })
    }

    /// Append as a frame.
    pub fn encode(self, encoder: &mut Encoder, request_id: u64, out: &mut Vec<u8>) {
        let Self { partition, epoch, round, bound, agreed, evicted } = self;
        encoder.frame(out, Kind::BOUND, Flags::CHECKSUM, request_id, [], |builder| {
            let agreed = Some(builder.create_vector(&[agreed as u64, (agreed >> 64) as u64]));
            let arguments = wire::BoundArgs { partition, epoch, round, bound, agreed, evicted };
            wire::Bound::create(builder, &arguments)
        });
    }
}

/// A round: as a question whether it has ended, and as the answer that it has, without a raise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Round {
    /// The partition.
    pub partition: u32,
    /// Its epoch when the round began.
    pub epoch: u64,
    /// Names the proposer's round.
    pub round: u64,
}

impl Round {
    /// From a frame of kind `ROUND` or `ROUND_OVER`.
    pub fn parse(frame: &Frame<'_>) -> Result<Self, Malformed> {
        let wire = verified::<wire::Round<'_>>(frame, "Round", 1)?;
        Ok(Self { partition: wire.partition(), epoch: wire.epoch(), round: wire.round() })
    }

    /// Append as a frame of kind `ROUND` or `ROUND_OVER`.
    pub fn encode(self, encoder: &mut Encoder, kind: Kind, request_id: u64, out: &mut Vec<u8>) {
        debug_assert!(kind == Kind::ROUND || kind == Kind::ROUND_OVER);
        let Self { partition, epoch, round } = self;
        encoder.frame(out, kind, Flags::CHECKSUM, request_id, [], |builder| {
            wire::Round::create(builder, &wire::RoundArgs { partition, epoch, round })
        });
    }
}

/// What do you know of these partitions? The sender has lost its records, or is bound by a round whose proposer has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lost {
    /// The sender's beginning.
    pub beginning: u64,
    /// At most [`WORDS_MAX`].
    pub partitions: Vec<u32>,
}

impl Lost {
    /// From a frame of kind `LOST`.
    pub fn parse(frame: &Frame<'_>) -> Result<Self, Malformed> {
        let wire = verified::<wire::Lost<'_>>(frame, "Lost", 1)?;
        let partitions = wire.partitions().into_iter().flat_map(|all| all.iter());
        Ok(Self { beginning: wire.beginning(), partitions: partitions.take(WORDS_MAX).collect() })
    }

    /// Append as a frame.
    pub fn encode(&self, encoder: &mut Encoder, request_id: u64, out: &mut Vec<u8>) {
        encoder.frame(out, Kind::LOST, Flags::CHECKSUM, request_id, [], |builder| {
            let partitions = Some(builder.create_vector(&self.partitions));
            wire::Lost::create(builder, &wire::LostArgs { beginning: self.beginning, partitions })
        });
    }
}

/// What a member knows of the epoch of one partition.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Word {
    /// By records that it has kept. If not, by what is left of those that it has lost.
    pub trusted: bool,
    /// The epoch.
    pub epoch: u64,
    /// The node that raised it; 0 if it never was raised.
    pub proposer: u64,
    /// In which of its rounds.
    pub round: u64,
    /// The rounds that bind the member: proposer, number, and whether the proposer has lost its records since or is gone for
    /// good.
    pub bound: Vec<(u64, u64, bool)>,
}

/// The answer to `LOST`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Met {
    /// The beginning, as it was told; it is on stable storage here.
    pub beginning: u64,
    /// A hash of the members, their beginnings and their incarnations, as the sender knows them.
    pub beginnings: u64,
    /// Of each partition, in ascending order.
    pub words: BTreeMap<u32, Word>,
}

impl Met {
    /// From a frame of kind `MET`.
    pub fn parse(frame: &Frame<'_>) -> Result<Self, Malformed> {
        let wire = verified::<wire::Met<'_>>(frame, "Met", 1)?;
        let told = wire.words().into_iter().flat_map(|all| all.iter()).take(WORDS_MAX);
        let word = |told: &wire::Word| Word {
            trusted: told.trusted(),
            epoch: told.epoch(),
            proposer: told.proposer(),
            round: told.round(),
            bound: Vec::new(),
        };
        let mut words: BTreeMap<u32, Word> = told.map(|told| (told.partition(), word(told))).collect();
        for bound in wire.bound().into_iter().flat_map(|all| all.iter()).take(WORDS_MAX * ROUNDS_BOUND_MAX) {
            let word = words.get_mut(&bound.partition()).filter(|word| word.bound.len() < ROUNDS_BOUND_MAX);
            word.into_iter().for_each(|word| {
                word.bound.push((bound.proposer(), bound.round(), bound.dead()));
            });
        }
        Ok(Self { beginning: wire.beginning(), beginnings: wire.beginnings(), words })
    }

    /// Append as a frame.
    pub fn encode(&self, encoder: &mut Encoder, request_id: u64, out: &mut Vec<u8>) {
        encoder.frame(out, Kind::MET, Flags::CHECKSUM, request_id, [], |builder| {
            let word = |(partition, word): (&u32, &Word)| {
                wire::Word::new(*partition, word.trusted, word.epoch, word.proposer, word.round)
            };
            let words: Vec<wire::Word> = self.words.iter().map(word).collect();
            let all = self
                .words
                .iter()
                .flat_map(|(partition, word)| word.bound.iter().map(move |bound| (*partition, *bound)));
            let bound: Vec<wire::WordBound> = all
                .map(|(partition, (proposer, round, dead))| {
                    wire::WordBound::new(partition, dead, proposer, round)
                })
                .collect();
            let arguments = wire::MetArgs {
                beginning: self.beginning,
                words: Some(builder.create_vector(&words)),
                bound: (!bound.is_empty()).then(|| builder.create_vector(&bound)),
                beginnings: self.beginnings,
            };
            wire::Met::create(builder, &arguments)
        });
    }
}

/// Beginnings of other nodes that a shard has noted: a record of the log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Beginnings {
    /// By node.
    pub noted: Vec<(u64, u64)>,
    /// Records of the log are missing, and the shard has not met all others since.
    pub doubtful: bool,
}

impl Beginnings {
    /// From a frame of kind `BEGINNINGS`.
    pub fn parse(frame: &Frame<'_>) -> Result<Self, Malformed> {
        let wire = verified::<wire::Beginnings<'_>>(frame, "Beginnings", 1)?;
        let beginnings = wire.beginnings().into_iter().flat_map(|all| all.iter()).take(MEMBERS_MAX);
        let noted = beginnings.map(|beginning| (beginning.node(), beginning.beginning())).collect();
        Ok(Self { noted, doubtful: wire.doubtful() })
    }

    /// Append as a frame.
    pub fn encode(&self, encoder: &mut Encoder, out: &mut Vec<u8>) {
        encoder.frame(out, Kind::BEGINNINGS, Flags::CHECKSUM, 0, [], |builder| {
            let beginnings: Vec<Beginning> =
                self.noted.iter().map(|(node, beginning)| Beginning::new(*node, *beginning)).collect();
            let beginnings = Some(builder.create_vector(&beginnings));
            let doubtful = self.doubtful;
            wire::Beginnings::create(builder, &wire::BeginningsArgs { beginnings, doubtful })
        });
    }
}

fn keys(keys: Option<Vector<'_, KeyHash>>) -> Result<Keys, Malformed> {
    let keys = keys.into_iter().flat_map(|all| all.iter());
    if keys.clone().count() > REAPED_KEYS_MAX {
        return Err(Malformed::Field("a raise of an epoch that names more keys than one may"));
    }
    Ok(keys.map(|key| (key.token(), key.hash())).collect())
}

fn on_the_wire(keys: &Keys) -> Vec<KeyHash> {
    keys.iter().map(|(token, hash)| KeyHash::new(*token, *hash)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Encoder, &mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut Encoder::default(), &mut out);
        out
    }

    fn frame(bytes: &[u8]) -> Frame<'_> {
        Frame::split(bytes, bytes.len()).unwrap().unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let epoch = Epoch {
            partition: 3,
            epoch: 9,
            proposer: 4,
            round: 77,
            reaped: vec![(1, 2), (3, 4)],
            pruned: vec![(5, 6)],
            bindings: vec![Binding::new(4, 78, 5, true)],
            met: 2,
            lost: true,
            wiped: true,
        };
        let bytes = written(|encoder, out| epoch.encode(encoder, 1, out));
        assert_eq!(Epoch::parse(&frame(&bytes)), Ok(epoch));
        let propose = Propose {
            partition: 3,
            epoch: 9,
            round: 77,
            ring: 5,
            beginnings: 6,
            incarnation: 2,
            reaped: vec![(1, 2)],
            pruned: vec![],
        };
        let bytes = written(|encoder, out| propose.encode(encoder, 1, out));
        assert_eq!(Propose::parse(&frame(&bytes)), Ok(propose));
        let bound =
            Bound { partition: 3, epoch: 9, round: 77, bound: true, agreed: 5 | 1 << 127, evicted: true };
        let bytes = written(|encoder, out| bound.encode(encoder, 1, out));
        assert_eq!(Bound::parse(&frame(&bytes)), Ok(bound));
        let round = Round { partition: 3, epoch: 9, round: 77 };
        let bytes = written(|encoder, out| round.encode(encoder, Kind::ROUND_OVER, 1, out));
        assert_eq!(Round::parse(&frame(&bytes)), Ok(round));
        let lost = Lost { beginning: 4, partitions: vec![1, 2] };
        let bytes = written(|encoder, out| lost.encode(encoder, 1, out));
        assert_eq!(Lost::parse(&frame(&bytes)), Ok(lost));
        let kept = Word { trusted: true, epoch: 5, proposer: 8, round: 9, bound: vec![] };
        let lost = Word { bound: vec![(6, 7, true), (8, 9, false)], ..Word::default() };
        let met = Met { beginning: 4, beginnings: 7, words: [(1, kept), (2, lost)].into() };
        let bytes = written(|encoder, out| met.encode(encoder, 1, out));
        assert_eq!(Met::parse(&frame(&bytes)), Ok(met));
        let beginnings = Beginnings { noted: vec![(1, 2), (3, 4)], doubtful: true };
        let bytes = written(|encoder, out| beginnings.encode(encoder, out));
        assert_eq!(Beginnings::parse(&frame(&bytes)), Ok(beginnings));
    }

    #[test]
    fn a_round_about_too_many_keys_is_refused() {
        let keys = |count: usize| vec![(1, 1); count];
        let propose = |reaped, pruned| {
            let (epoch, round, ring, beginnings, incarnation) = (0, 1, 0, 0, 1);
            let propose =
                Propose { partition: 0, epoch, round, ring, beginnings, incarnation, reaped, pruned };
            let bytes = written(|encoder, out| propose.encode(encoder, 1, out));
            Propose::parse(&frame(&bytes)).map(|_| ())
        };
        assert_eq!(propose(keys(REAPED_KEYS_MAX), keys(0)), Ok(()));
        assert!(propose(keys(REAPED_KEYS_MAX), keys(1)).is_err());
        assert!(propose(keys(0), keys(REAPED_KEYS_MAX + 1)).is_err());
    }
}
