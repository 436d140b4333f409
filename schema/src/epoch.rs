//! Views of the frames and records about partitions' epochs: how tombstones are reaped. All of them carry a checksum.

use flatbuffers::Vector;

use crate::encode::Encoder;
use crate::exchange::KeyHash;
use crate::frame::{Flags, Frame, Kind};
use crate::generated::peer as wire;
use crate::limits::{MEMBERS_MAX, REAPED_KEYS_MAX, ROUNDS_BOUND_MAX, TREE_PARTITIONS_MAX};
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
        })
    }

    /// Append as a frame.
    pub fn encode(self, encoder: &mut Encoder, request_id: u64, out: &mut Vec<u8>) {
        let Self { partition, epoch, round, bound, agreed } = self;
        encoder.frame(out, Kind::BOUND, Flags::CHECKSUM, request_id, [], |builder| {
            let agreed = Some(builder.create_vector(&[agreed as u64, (agreed >> 64) as u64]));
            wire::Bound::create(builder, &wire::BoundArgs { partition, epoch, round, bound, agreed })
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

/// The sender has lost its records: what do you know of these partitions?
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lost {
    /// Its new beginning.
    pub beginning: u64,
    /// At most [`TREE_PARTITIONS_MAX`].
    pub partitions: Vec<u32>,
}

impl Lost {
    /// From a frame of kind `LOST`.
    pub fn parse(frame: &Frame<'_>) -> Result<Self, Malformed> {
        let wire = verified::<wire::Lost<'_>>(frame, "Lost", 1)?;
        let partitions = wire.partitions().into_iter().flat_map(|all| all.iter());
        Ok(Self { beginning: wire.beginning(), partitions: partitions.take(TREE_PARTITIONS_MAX).collect() })
    }

    /// Append as a frame.
    pub fn encode(&self, encoder: &mut Encoder, request_id: u64, out: &mut Vec<u8>) {
        encoder.frame(out, Kind::LOST, Flags::CHECKSUM, request_id, [], |builder| {
            let partitions = Some(builder.create_vector(&self.partitions));
            wire::Lost::create(builder, &wire::LostArgs { beginning: self.beginning, partitions })
        });
    }
}

/// What the records that were lost may have left at the sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// The sender is bound by a round, and can't say whether a raise rests on them. This is the epoch as far as it knows.
    Bound,
    /// No raise rests on them, nor will one: this is the epoch.
    Known,
    /// The sender may be behind itself.
    InDoubt,
    /// The sender has lost its own records too: it knows an epoch from what is left of them.
    Lost,
}

/// The answer to `LOST`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Met {
    /// The beginning, as it was told; it is on stable storage here.
    pub beginning: u64,
    /// Each partition with its epoch here.
    pub partitions: Vec<(u32, u64, Standing)>,
}

impl Met {
    /// From a frame of kind `MET`.
    pub fn parse(frame: &Frame<'_>) -> Result<Self, Malformed> {
        let wire = verified::<wire::Met<'_>>(frame, "Met", 1)?;
        let partitions = wire.partitions().into_iter().flat_map(|all| all.iter()).take(TREE_PARTITIONS_MAX);
        let epochs = wire.epochs().into_iter().flat_map(|all| all.iter());
        let standings =
            wire.standings().into_iter().flat_map(|all| all.iter()).map(|standing| match standing {
                0 => Standing::Bound,
                1 => Standing::Known,
                3 => Standing::Lost,
                _ => Standing::InDoubt,
            });
        let all = partitions.zip(epochs).zip(standings);
        let partitions = all.map(|((partition, epoch), standing)| (partition, epoch, standing)).collect();
        Ok(Self { beginning: wire.beginning(), partitions })
    }

    /// Append as a frame.
    pub fn encode(&self, encoder: &mut Encoder, request_id: u64, out: &mut Vec<u8>) {
        encoder.frame(out, Kind::MET, Flags::CHECKSUM, request_id, [], |builder| {
            let partitions: Vec<u32> = self.partitions.iter().map(|(partition, ..)| *partition).collect();
            let epochs: Vec<u64> = self.partitions.iter().map(|(_, epoch, _)| *epoch).collect();
            let standings: Vec<u8> = self.partitions.iter().map(|(.., standing)| *standing as u8).collect();
            let arguments = wire::MetArgs {
                beginning: self.beginning,
                partitions: Some(builder.create_vector(&partitions)),
                epochs: Some(builder.create_vector(&epochs)),
                standings: Some(builder.create_vector(&standings)),
            };
            wire::Met::create(builder, &arguments)
        });
    }
}

/// Beginnings of other nodes that a shard has noted: a record of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Beginnings(pub Vec<(u64, u64)>);

impl Beginnings {
    /// From a frame of kind `BEGINNINGS`.
    pub fn parse(frame: &Frame<'_>) -> Result<Self, Malformed> {
        let wire = verified::<wire::Beginnings<'_>>(frame, "Beginnings", 1)?;
        let beginnings = wire.beginnings().into_iter().flat_map(|all| all.iter()).take(MEMBERS_MAX);
        Ok(Self(beginnings.map(|beginning| (beginning.node(), beginning.beginning())).collect()))
    }

    /// Append as a frame.
    pub fn encode(&self, encoder: &mut Encoder, out: &mut Vec<u8>) {
        encoder.frame(out, Kind::BEGINNINGS, Flags::CHECKSUM, 0, [], |builder| {
            let beginnings: Vec<Beginning> =
                self.0.iter().map(|(node, beginning)| Beginning::new(*node, *beginning)).collect();
            let beginnings = Some(builder.create_vector(&beginnings));
            wire::Beginnings::create(builder, &wire::BeginningsArgs { beginnings })
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
            bindings: vec![Binding::new(4, 78, true)],
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
        let bound = Bound { partition: 3, epoch: 9, round: 77, bound: true, agreed: 5 | 1 << 127 };
        let bytes = written(|encoder, out| bound.encode(encoder, 1, out));
        assert_eq!(Bound::parse(&frame(&bytes)), Ok(bound));
        let round = Round { partition: 3, epoch: 9, round: 77 };
        let bytes = written(|encoder, out| round.encode(encoder, Kind::ROUND_OVER, 1, out));
        assert_eq!(Round::parse(&frame(&bytes)), Ok(round));
        let lost = Lost { beginning: 4, partitions: vec![1, 2] };
        let bytes = written(|encoder, out| lost.encode(encoder, 1, out));
        assert_eq!(Lost::parse(&frame(&bytes)), Ok(lost));
        let all = [
            (1, 5, Standing::Bound),
            (2, 6, Standing::Known),
            (3, 0, Standing::InDoubt),
            (4, 7, Standing::Lost),
        ];
        let met = Met { beginning: 4, partitions: all.to_vec() };
        let bytes = written(|encoder, out| met.encode(encoder, 1, out));
        assert_eq!(Met::parse(&frame(&bytes)), Ok(met));
        let beginnings = Beginnings(vec![(1, 2), (3, 4)]);
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
