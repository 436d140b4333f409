//! A shard's way back: from the records that its log has kept to the state that they cover.
//!
//! A log holds the states of keys, that a key was forgotten or the copies of a partition were given up, what a shard knew of
//! its partitions' epochs and of other nodes' beginnings, and what shard 0 knew of the members. Whoever runs the shard reads
//! them in the order in which they were appended, with their sequences ([`Shard::recover_record`]). Then it says how far the
//! log goes ([`Shard::recovered_through`]) and who the node was: the last record about members, which is shard 0's, is for all
//! shards ([`Membership::recover`], [`Shard::remember`]). What the first tick of a new life appends must be on stable
//! storage before the ports open: the next life is numbered after it.

use std::sync::Arc;

use bytes::Bytes;
use ringmain_schema::departure::GivenUp;
use ringmain_schema::epoch::{Beginnings, Epoch};
use ringmain_schema::peer::{Gossip, Replicate};
use ringmain_schema::{Frame, Kind};
use thiserror::Error;

use crate::causality::Siblings;
use crate::failpoint::Failpoints;
use crate::id::{NodeId, PartitionId};
use crate::membership::Membership;
use crate::replica::{Place, state_from_wire};

use super::Shard;
use super::peers::replaced_by;

/// What a record of the log says.
#[derive(Debug)]
pub enum Record<'a> {
    /// What the node knew of the members, itself among them.
    Members(Gossip),
    /// The whole state of one key, or what is kept of it for another node.
    Key(Replicate<'a>),
    /// The copies of a partition were given up or wiped: no record before this one says what is held of it.
    GivenUp(GivenUp),
    /// What a shard knew of a partition's epoch.
    Epoch(Box<Epoch>),
    /// Beginnings of other nodes that a shard had noted.
    Beginnings(Beginnings),
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
            Kind::GIVEN_UP => GivenUp::parse(&frame).map(Self::GivenUp).map_err(malformed),
            Kind::EPOCH => Epoch::parse(&frame).map(Box::new).map(Self::Epoch).map_err(malformed),
            Kind::BEGINNINGS => Beginnings::parse(&frame).map(Self::Beginnings).map_err(malformed),
            _ => Err(BadRecord::NoFrame),
        }
    }
}

impl Record<'_> {
    /// Does it say that something is gone, which earlier records told? It is needed while any of these is there.
    pub fn is_marker(&self) -> bool {
        match self {
            Self::Members(_) | Self::Epoch(_) | Self::Beginnings(_) => false,
            Self::Key(key) => {
                !key.key.is_empty()
                    && key.state.versions().next().is_none()
                    && key.state.clock().next().is_none()
            }
            Self::GivenUp(_) => true,
        }
    }
}

impl<F: Failpoints> Shard<F> {
    /// Before the first input: take back what the record of this sequence says, in the order in which they were appended.
    /// What it says of members is for [`Membership::recover`].
    pub fn recover_record(&mut self, record: &Record<'_>, sequence: u64) -> Result<(), BadRecord> {
        match record {
            Record::Members(_) => {
                let before = std::mem::replace(&mut self.appends.members, sequence);
                self.replica.note_dead(before);
            }
            Record::Key(key) => self.recover(key, sequence)?,
            Record::GivenUp(given_up) => self.recover_given_up(*given_up),
            Record::Epoch(epoch) => self.recover_epoch(epoch, sequence),
            Record::Beginnings(beginnings) => self.recover_beginnings(beginnings, sequence),
        }
        Ok(())
    }

    /// A key that another shard of this node owns, since their number has changed, is left to it.
    fn recover(&mut self, key: &Replicate<'_>, sequence: u64) -> Result<(), BadRecord> {
        if key.key.is_empty() {
            // Only the names of writes that were replaced, which any record may hold, or of those that were lost.
            if key.repair {
                self.replica.remember_lost(replaced_by(key), sequence);
            } else {
                self.replica.remember_replaced(replaced_by(key), sequence);
            }
            self.replica.note_dead(sequence);
            return Ok(());
        }
        let place = self.place(key.key);
        if self.is_mine(place.partition) {
            let state =
                state_from_wire(&key.state).map_err(|error| BadRecord::Malformed(error.to_string()))?;
            self.replica.remember_replaced(replaced_by(key), sequence);
            if key.hint_for == 0 {
                self.recover_copy(place, &state, sequence);
                self.keep_trees();
            } else {
                self.recover_hint(place, NodeId(key.hint_for), &state, key, sequence);
            }
        }
        Ok(())
    }

    /// No record but what was forgotten since says that there is less: the last one counts.
    fn recover_copy(&mut self, place: Place<'_>, state: &Siblings<Bytes>, sequence: u64) {
        self.epochs.recovered.on_key(place.key);
        if state.is_empty() {
            self.replica.forget(place);
        } else {
            self.replica.recover(place, state, sequence);
            self.tend_memory_while_recovering();
        }
    }

    /// These copies were given up, or wiped: a retry of what they held is still known.
    fn recover_given_up(&mut self, given_up: GivenUp) {
        let partition = PartitionId(given_up.partition);
        if partition.0 < self.view.ring.partitions().count() && self.is_mine(partition) {
            self.epochs.recovered.on_given_up(partition);
            if given_up.wiped {
                self.replica.wipe(partition, false);
            } else {
                self.replica.forget_all(partition);
            }
            self.keep_trees();
        }
    }

    /// Before the first input: some records of this shard are missing. What they had ended may be back.
    pub const fn doubt_copies(&mut self) {
        (self.epochs.recovered.is_doubtful, self.epochs.recovered.is_doubt_news) = (true, true);
    }

    /// Before the first input: the records that what was recovered since the last call covers.
    pub fn take_dead(&mut self) -> impl Iterator<Item = u64> + '_ {
        self.replica.take_dead().chain(self.hints.store.take_dead())
    }

    /// Before the first input: the log holds records up to this sequence, and all of them are durable. The first append is
    /// the next.
    pub fn recovered_through(&mut self, sequence: u64) {
        self.appends.begin_after(sequence);
    }

    /// Before the first input: this is what the node knew of the members.
    pub fn remember(&mut self, membership: Membership<F>) {
        self.view = Arc::new(membership.view());
        if self.membership.is_some() {
            self.membership = Some(membership);
        }
        self.want_links();
        self.look_whom_to_meet();
    }
}
