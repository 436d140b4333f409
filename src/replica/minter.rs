//! Minting: from a client's write to a new version under a dot that nobody else has or had.

use bytes::Bytes;

use crate::causality::{Actor, Content, SIBLINGS_MAX, Siblings, VersionVector};
use crate::failpoint::{Bug, Choice, Failpoints, Minted, Rare};
use crate::id::OperationId;
use crate::prng::Prng;
use crate::time::Now;

use super::superseded::{SUPERSEDED_MAX, Superseded};
use super::{Applied, Covered, Refused, Replaced, Write};

/// Whose the state is that a write is applied to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Record {
    /// This replica's own, the only one that it has of the key.
    /// What was minted up to this epoch may have been forgotten: a context from before may still tell of it, and too little.
    Own { since: u32 },
    /// Kept for another node; there may be more such states of the key. All that was minted under this actor, if it is known,
    /// is in the state.
    Anothers(Option<Actor>),
}

/// Epochs from here on are for what is kept for others: a replica's own record never goes on with one, since it doesn't
/// know what else has been minted under it.
const EPOCHS_FOR_OTHERS: u32 = 1 << 31;

/// Who mints here, and what was minted and replaced.
#[derive(Debug)]
pub(super) struct Minter<F> {
    /// Random, drawn at this start.
    actor_id: u64,
    /// The last epoch used for a key without a record, below [`EPOCHS_FOR_OTHERS`].
    epoch: u32,
    /// The last one used for what is kept for others.
    epoch_for_others: u32,
    pub(super) superseded: Superseded,
    /// Of what was wiped.
    pub(super) lost: Superseded,
    /// So many of each are remembered, and have their room; as many as usual, if it is not said.
    names: Option<usize>,
    /// A key's versions together may not grow past this by a put.
    state_bytes_max: usize,
    pub(super) failpoints: F,
}

impl<F: Failpoints> Minter<F> {
    pub(super) const fn new(actor_id: u64, state_bytes_max: usize, failpoints: F) -> Self {
        let superseded = Superseded::new(SUPERSEDED_MAX);
        Self {
            actor_id,
            epoch: 0,
            epoch_for_others: EPOCHS_FOR_OTHERS,
            superseded,
            lost: Superseded::new(SUPERSEDED_MAX),
            names: None,
            state_bytes_max,
            failpoints,
        }
    }

    /// Remember the names of so many writes that were replaced, and of as many that were lost. Before any is.
    pub(super) fn remember_at_most(&mut self, names: usize) {
        (self.superseded, self.lost) = (Superseded::with_room(names), Superseded::with_room(names));
        self.names = Some(names);
    }

    /// All writes that are known as replaced are known as lost from now on.
    pub(super) fn doubt_replaced(&mut self) {
        let none = self.names.map_or_else(|| Superseded::new(SUPERSEDED_MAX), Superseded::with_room);
        let replaced = std::mem::replace(&mut self.superseded, none);
        replaced.into_names().for_each(|(operation, record)| {
            self.lost.remember(std::iter::once(operation), record);
        });
    }

    /// Is all that this state covers minted here?
    pub(super) fn is_own(&self, state: &Siblings<Bytes>) -> bool {
        state.clock().iter().all(|(actor, _)| actor.id == self.actor_id)
    }

    /// The last epoch used.
    pub(super) const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// As if so many epochs had been used.
    #[cfg(test)]
    pub(super) const fn begin_after(&mut self, epoch: u32) {
        self.epoch = epoch;
    }

    /// Apply a write to a key's state, unless it was applied before. `appended` is the log record that will say so.
    pub(super) fn apply(
        &mut self,
        now: Now,
        key: &[u8],
        state: &mut Siblings<Bytes>,
        write: Write<'_>,
        record: Record,
        appended: u64,
    ) -> Result<Applied, Refused> {
        if self.superseded.contains(write.operation) {
            self.failpoints.reached(Rare::RetryFoundItselfReplaced);
            return Ok(Applied::Before);
        }
        state.expire(now.wall);
        if state.contains_operation(write.operation).is_some() {
            self.failpoints.reached(Rare::RetryFoundItsVersion);
            return Ok(Applied::Before);
        }
        if self.lost.contains(write.operation) {
            return Err(Refused::Lost);
        }
        let covered = match write.covered {
            Covered::Context(context) => context,
            Covered::Everything => state.context(),
        };
        let actor = self.actor(state, record);
        check_room(state, actor, &covered, write.value.map_or(0, <[u8]>::len), self.state_bytes_max)?;
        if self.failpoints.planted(Bug::ClockMustAdvance)
            && state.versions().iter().any(|version| version.timestamp > now.wall)
        {
            return Err(Refused::TooManySiblings);
        }
        match record {
            Record::Own { .. } => self.epoch = self.epoch.max(actor.epoch),
            Record::Anothers(_) => self.epoch_for_others = self.epoch_for_others.max(actor.epoch),
        }
        let gone = state.versions().iter().filter(|version| covered.covers(version.dot));
        let replaced: Replaced =
            gone.map(|version| version.operation).filter(|name| *name != OperationId::NONE).collect();
        self.superseded.remember(replaced.iter().copied(), appended);
        let value = write.value.map(|value| cut(value, &self.failpoints));
        let content = value.map_or(Content::Tombstone, |value| Content::Value(Bytes::copy_from_slice(value)));
        let expiry = write.expiry.filter(|_| write.value.is_some());
        let dot = if self.failpoints.planted(Bug::ReplacedIsKept) {
            state.put(actor, &VersionVector::new(), content, expiry, write.operation, now.wall)
        } else if self.failpoints.planted(Bug::OldActorAtShardCounter) {
            let seen = at_shard_counter(&covered, actor, now);
            state.put(actor, &seen, content, expiry, write.operation, now.wall)
        } else {
            state.put(actor, &covered, content, expiry, write.operation, now.wall)
        };
        let (covered, value, operation) = (&covered, write.value, write.operation);
        self.failpoints.minted(&Minted { key, dot, covered, value, operation });
        Ok(Applied::Now { replaced, actor })
    }

    /// The actor under which a key is minted here: one that stands in the record already, or a fresh epoch.
    fn actor(&mut self, state: &Siblings<Bytes>, record: Record) -> Actor {
        if self.epoch == EPOCHS_FOR_OTHERS - 1 || self.epoch_for_others == u32::MAX {
            // Two billion new keys in one run: go on as somebody new.
            self.actor_id = Prng::from_seed(self.actor_id).next_u64();
            (self.epoch, self.epoch_for_others) = (0, EPOCHS_FOR_OTHERS);
        }
        let id = self.actor_id;
        if self.failpoints.planted(Bug::OldActorFromOne)
            || self.failpoints.planted(Bug::OldActorAtShardCounter)
        {
            return Actor { id, epoch: 1 };
        }
        let is_rare = self.failpoints.rare(Choice::FreshEpoch);
        let since = match record {
            Record::Own { since } => since,
            Record::Anothers(known) => {
                let fresh = Actor { id, epoch: self.epoch_for_others + 1 };
                return known.filter(|known| known.id == id && !is_rare).unwrap_or(fresh);
            }
        };
        let fresh = match self.failpoints.planted(Bug::ReapedWithItsActor) {
            true => Actor { id, epoch: 1 },
            false => Actor { id, epoch: self.epoch + 1 },
        };
        if is_rare {
            return fresh;
        }
        // An epoch beyond the last was never minted here: somebody made it up.
        let is_mine = |actor: Actor| actor.id == id && actor.epoch > since && actor.epoch <= self.epoch;
        let mine = state.clock().iter().rev().find(|(actor, _)| is_mine(*actor));
        if mine.is_none() && self.epoch > 0 && !state.is_empty() {
            // Its own record of the key is lost, or was never here; others' is.
            self.failpoints.reached(Rare::ActorRenewed);
        }
        mine.map_or(fresh, |&(actor, _)| actor)
    }
}

/// What [`Bug::OldActorAtShardCounter`] takes for seen: all that the shard has ever counted.
fn at_shard_counter(covered: &VersionVector, actor: Actor, now: Now) -> VersionVector {
    let counted = VersionVector::try_from_sorted([(actor, now.monotonic.0.max(1))]);
    let mut seen = counted.expect("one entry is sorted");
    seen.merge(covered);
    seen
}

/// What [`Bug::ValueTruncated`] leaves of a value.
fn cut<'a>(value: &'a [u8], failpoints: &impl Failpoints) -> &'a [u8] {
    match value.split_last() {
        Some((_, rest)) if failpoints.planted(Bug::ValueTruncated) => rest,
        _ => value,
    }
}

fn check_room(
    state: &Siblings<Bytes>,
    actor: Actor,
    covered: &VersionVector,
    added: usize,
    limit: usize,
) -> Result<(), Refused> {
    let kept = || state.versions().iter().filter(|version| !covered.covers(version.dot));
    if kept().next().is_some() {
        let siblings = kept().filter(|version| version.content.is_value()).count();
        if siblings >= SIBLINGS_MAX {
            return Err(Refused::TooManySiblings);
        }
        let length = |content: &Content<Bytes>| match content {
            Content::Value(value) => value.len(),
            Content::Cold { bytes } => *bytes as usize,
            Content::Tombstone | Content::Expired => 0,
        };
        if added + kept().map(|version| length(&version.content)).sum::<usize>() > limit {
            return Err(Refused::TooLarge { limit });
        }
    }
    if state.has_room_for(actor, covered) { Ok(()) } else { Err(Refused::TooManySiblings) }
}
