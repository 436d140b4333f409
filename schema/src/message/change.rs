//! The operator's word about a member, and what it moves.

use flatbuffers::{FlatBufferBuilder, Vector, WIPOffset};

use crate::encode::Encoder;
use crate::frame::{Flags, Frame, Kind};
use crate::generated::client as wire;
use crate::limits::MEMBERS_MAX;

use super::requests::no_values;
use super::{Malformed, Tables, verified};

/// What the operator wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum What {
    /// A guest becomes a member; one that is leaving stays.
    Join = 1,
    /// A member hands its share over, and is removed then.
    Leave = 2,
    /// A member is gone for good, from now on.
    Remove = 3,
    /// A guest takes a member's place, which is gone for good.
    Replace = 4,
    /// A member's capacity is another.
    Weight = 5,
}

impl What {
    const ALL: [Self; 5] = [Self::Join, Self::Leave, Self::Remove, Self::Replace, Self::Weight];
}

/// Change who holds what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change<'a> {
    /// What is wanted.
    pub what: What,
    /// Of which member.
    pub name: &'a str,
    /// To replace: who takes its place; else empty.
    pub new_name: &'a str,
    /// Its capacity; 0 for what it is.
    pub weight: u32,
    /// Only say what would move.
    pub plan_only: bool,
    /// Remove or replace it even if it can be reached.
    pub force: bool,
}

impl<'a> Change<'a> {
    /// From a frame of kind `CHANGE`.
    pub fn parse(frame: &Frame<'a>) -> Result<Self, Malformed> {
        let change = verified::<wire::Change<'a>>(frame, "Change", 1)?;
        no_values(frame)?;
        let what = What::ALL.into_iter().find(|&what| what as u8 == change.what());
        Ok(Self {
            what: what.ok_or(Malformed::Field("a change that this version doesn't know"))?,
            name: change.name().unwrap_or_default(),
            new_name: change.new_name().unwrap_or_default(),
            weight: change.weight(),
            plan_only: change.plan_only(),
            force: change.force(),
        })
    }

    /// Append as a frame.
    pub fn encode(&self, encoder: &mut Encoder, request_id: u64, out: &mut Vec<u8>) {
        encoder.frame(out, Kind::CHANGE, Flags::NONE, request_id, [], |builder| {
            let arguments = wire::ChangeArgs {
                what: self.what as u8,
                name: Some(builder.create_string(self.name)),
                new_name: (!self.new_name.is_empty()).then(|| builder.create_string(self.new_name)),
                weight: self.weight,
                plan_only: self.plan_only,
                force: self.force,
            };
            wire::Change::create(builder, &arguments)
        });
    }
}

/// What a change moves for one member. Partitions are counted where it is one of their primaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// Its id.
    pub node: u64,
    /// Its name.
    pub name: String,
    /// Its capacity after the change; 100 is ordinary.
    pub weight: u32,
    /// Partitions that it owns now.
    pub before: u32,
    /// Partitions that it will own: `before + gains - loses`.
    pub after: u32,
    /// Partitions that it comes to own.
    pub gains: u32,
    /// Partitions that it owns no more.
    pub loses: u32,
    /// Its fair share after the change, by weight and place, in thousandths of a partition.
    pub fair_milli: u32,
}

/// What a change moves, and whether it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The members are being told. False if it was only planned, or all was so already.
    pub applied: bool,
    /// Of the word: each is greater than those before. 0 if it changes nothing.
    pub version: u64,
    /// Q.
    pub partitions: u32,
    /// N as it is configured.
    pub replicas_wanted: u8,
    /// N in force after the change: at most the number of members.
    pub replicas: u8,
    /// Copies of partitions that somebody has to be sent.
    pub streamed: u64,
    /// Fewer than this is impossible for the shares that follow.
    pub least: u64,
    /// One for each node that is in the ring or will be, in the order of their ids.
    pub moves: Vec<Move>,
}

impl Changed {
    /// From a frame of kind `CHANGED`.
    pub fn parse(frame: &Frame<'_>) -> Result<Self, Malformed> {
        let changed = verified::<wire::Changed<'_>>(frame, "Changed", MEMBERS_MAX + 1)?;
        no_values(frame)?;
        let moves: Option<Tables<'_, wire::Move<'_>>> = changed.moves();
        Ok(Self {
            applied: changed.applied(),
            version: changed.version(),
            partitions: changed.partitions(),
            replicas_wanted: changed.replicas_wanted(),
            replicas: changed.replicas(),
            streamed: changed.streamed(),
            least: changed.least(),
            moves: moves.iter().flat_map(Vector::iter).map(read_move).collect(),
        })
    }

    /// Append as a frame.
    pub fn encode(&self, encoder: &mut Encoder, request_id: u64, flags: Flags, out: &mut Vec<u8>) {
        encoder.frame(out, Kind::CHANGED, flags, request_id, [], |builder| {
            let moves: Vec<_> = self.moves.iter().map(|moved| write_move(builder, moved)).collect();
            let arguments = wire::ChangedArgs {
                applied: self.applied,
                version: self.version,
                partitions: self.partitions,
                replicas_wanted: self.replicas_wanted,
                replicas: self.replicas,
                streamed: self.streamed,
                least: self.least,
                moves: Some(builder.create_vector(&moves)),
            };
            wire::Changed::create(builder, &arguments)
        });
    }
}

fn read_move(moved: wire::Move<'_>) -> Move {
    Move {
        node: moved.node(),
        name: moved.name().unwrap_or_default().to_owned(),
        weight: moved.weight(),
        before: moved.before(),
        after: moved.after(),
        gains: moved.gains(),
        loses: moved.loses(),
        fair_milli: moved.fair_milli(),
    }
}

fn write_move<'b>(builder: &mut FlatBufferBuilder<'b>, moved: &Move) -> WIPOffset<wire::Move<'b>> {
    let arguments = wire::MoveArgs {
        node: moved.node,
        name: Some(builder.create_string(&moved.name)),
        weight: moved.weight,
        before: moved.before,
        after: moved.after,
        gains: moved.gains,
        loses: moved.loses,
        fair_milli: moved.fair_milli,
    };
    wire::Move::create(builder, &arguments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn only(bytes: &[u8]) -> Frame<'_> {
        Frame::split(bytes, bytes.len()).unwrap().unwrap()
    }

    fn any_what() -> impl Strategy<Value = What> {
        (0..What::ALL.len()).prop_map(|place| What::ALL[place])
    }

    fn any_move() -> impl Strategy<Value = Move> {
        let counts = any::<[u32; 6]>();
        (any::<u64>(), ".{0,20}", counts).prop_map(|(node, name, counts)| {
            let [weight, before, after, gains, loses, fair_milli] = counts;
            Move { node, name, weight, before, after, gains, loses, fair_milli }
        })
    }

    proptest! {
        #[test]
        fn a_word_survives_the_wire(
            what in any_what(), name in ".{0,50}", new_name in ".{0,50}", weight in any::<u32>(),
            plan_only in any::<bool>(), force in any::<bool>(),
        ) {
            let change = Change { what, name: &name, new_name: &new_name, weight, plan_only, force };
            let mut out = Vec::new();
            change.encode(&mut Encoder::default(), 3, &mut out);
            prop_assert_eq!(Change::parse(&only(&out)).unwrap(), change);
        }

        #[test]
        fn what_moves_survives_the_wire(
            counts in any::<[u64; 3]>(), partitions in any::<u32>(), replicas in any::<[u8; 2]>(),
            moves in proptest::collection::vec(any_move(), 0..20),
        ) {
            let changed = Changed {
                applied: counts[0] % 2 == 0,
                version: counts[0],
                partitions,
                replicas_wanted: replicas[0],
                replicas: replicas[1],
                streamed: counts[1],
                least: counts[2],
                moves,
            };
            let mut out = Vec::new();
            changed.encode(&mut Encoder::default(), 3, Flags::CHECKSUM, &mut out);
            prop_assert_eq!(Changed::parse(&only(&out)).unwrap(), changed);
        }

        /// P12: flipping bytes of a valid frame never makes a view panic.
        #[test]
        fn damaged_words_are_read_or_refused(
            damage in proptest::collection::vec((crate::frame::HEADER_BYTES..200usize, any::<u8>()), 1..8)
        ) {
            let change = Change {
                what: What::Replace, name: "old", new_name: "new", weight: 7, plan_only: true, force: true,
            };
            let mut out = Vec::new();
            change.encode(&mut Encoder::default(), 3, &mut out);
            for (at, byte) in damage {
                let at = at.min(out.len() - 1);
                out[at] = byte;
            }
            let _ = Change::parse(&only(&out));
            let _ = Changed::parse(&only(&out));
            let _ = crate::message::Status::parse(&only(&out));
        }
    }

    #[test]
    fn a_word_that_says_nothing_is_refused() {
        let mut out = Vec::new();
        Encoder::default().frame(&mut out, Kind::CHANGE, Flags::NONE, 1, [], |builder| {
            wire::Change::create(builder, &wire::ChangeArgs::default())
        });
        assert!(matches!(Change::parse(&only(&out)), Err(Malformed::Field(_))));
    }
}
