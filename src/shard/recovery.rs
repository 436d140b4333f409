//! A shard's way back: from the records that its log has kept to the state that they cover.
//!
//! A log holds the states of keys, that the copies of a partition were given up, what a shard knew of its partitions'
//! epochs and of other nodes' lives, and what shard 0 knew of the members. Whoever runs the shard reads them in the order
//! in which they were appended: first the last one about members, which says who the node was
//! ([`Membership::recover`](crate::membership::Membership::recover)), then, once the shard stands, all others
//! ([`Shard::recover_record`]). What the first tick of a new life appends must be on stable storage before the ports open:
//! the next life is numbered after it.

use ringmain_schema::departure::GivenUp;
use ringmain_schema::epoch::{Epoch, Lives};
use ringmain_schema::peer::{Gossip, Replicate};
use ringmain_schema::{Frame, Kind};
use thiserror::Error;

use crate::failpoint::Failpoints;
use crate::id::{NodeId, PartitionId};
use crate::replica::state_from_wire;

use super::Shard;
use super::peers::replaced_by;

/// What a record of the log says.
#[derive(Debug)]
pub enum Record<'a> {
    /// What the node knew of the members, itself among them.
    Members(Gossip),
    /// The whole state of one key, or what is kept of it for another node.
    Key(Replicate<'a>),
    /// The copies of a partition were given up: no record before this one says what is held of it.
    GivenUp(PartitionId),
    /// What a shard knew of a partition's epoch.
    Epoch(Box<Epoch>),
    /// Lives of other nodes that a shard had noted.
    Lives(Lives),
}

/// Bytes that no shard appended.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum BadRecord {
    /// They are not one whole frame of a kind that is logged.
    #[error("a record of the log is no frame: the disk has lost or changed it")]
    NoFrame,
    /// They break the schema.
    #[error("a record of the log can't be read: {0}")]
    Malformed(String),
}

impl<'a> Record<'a> {
    /// From the bytes of one [`Append`](super::Append).
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BadRecord> {
        let malformed = |error: ringmain_schema::Malformed| BadRecord::Malformed(error.to_string());
        let frame = Frame::split(bytes, bytes.len()).ok().flatten().ok_or(BadRecord::NoFrame)?;
        match frame.header.kind {
            Kind::GOSSIP => Gossip::parse(&frame).map(Self::Members).map_err(malformed),
            Kind::REPLICATE => Replicate::parse(&frame).map(Self::Key).map_err(malformed),
            Kind::GIVEN_UP => GivenUp::parse(&frame)
                .map(|given_up| Self::GivenUp(PartitionId(given_up.partition)))
                .map_err(malformed),
            Kind::EPOCH => Epoch::parse(&frame).map(Box::new).map(Self::Epoch).map_err(malformed),
            Kind::LIVES => Lives::parse(&frame).map(Self::Lives).map_err(malformed),
            _ => Err(BadRecord::NoFrame),
        }
    }
}

impl<F: Failpoints> Shard<F> {
    /// Before the first input: take back what a record says, in the order in which they were appended. Those about members
    /// are for [`Membership::recover`](crate::membership::Membership::recover).
    pub fn recover_record(&mut self, record: &Record<'_>) -> Result<(), BadRecord> {
        match record {
            Record::Members(_) => {}
            Record::Key(key) => self.recover(key)?,
            Record::GivenUp(partition) => self.recover_given_up(*partition),
            Record::Epoch(epoch) => self.recover_epoch(epoch),
            Record::Lives(lives) => self.recover_lives(lives),
        }
        Ok(())
    }

    /// Before the first input: take a key's state back. A key that another shard of this node owns, since their
    /// number has changed, is left to it.
    pub fn recover(&mut self, key: &Replicate<'_>) -> Result<(), BadRecord> {
        let place = self.place(key.key);
        if self.is_mine(place.partition) {
            let state =
                state_from_wire(&key.state).map_err(|error| BadRecord::Malformed(error.to_string()))?;
            self.replica.remember_replaced(replaced_by(key));
            if key.hint_for == 0 && state.is_empty() {
                self.replica.forget(place);
                self.keep_trees();
            } else if key.hint_for == 0 {
                self.replica.merge(place, &state, 0);
                self.keep_trees();
            } else {
                self.recover_hint(place, NodeId(key.hint_for), &state);
            }
        }
        Ok(())
    }

    /// Before the first input, in the order of the records: these copies were given up.
    pub fn recover_given_up(&mut self, partition: PartitionId) {
        if partition.0 < self.view.ring.partitions().count() && self.is_mine(partition) {
            self.forget_copies(partition);
        }
    }
}
