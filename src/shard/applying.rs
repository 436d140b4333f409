//! A client's write is applied here, by a node that owns the key or by one that stands in for who does.
//!
//! What was applied as the one is recognised as the other: between a write and its retry the ring may have changed, and
//! with it what this node owns, and for whom it keeps what it doesn't.

use bytes::Bytes;
use ringmain_schema::peer::Operation as WireOperation;
use smallvec::SmallVec;

use crate::causality::Siblings;
use crate::failpoint::Failpoints;
use crate::hint::Keeping;
use crate::id::OperationId;
use crate::replica::{Applied, Place, Refused, Replaced, Write};
use crate::time::Now;

use super::Shard;
use super::io::Output;

impl<F: Failpoints> Shard<F> {
    /// Apply a write to this replica's own copy: what it replaced, or nothing if it was applied before.
    pub(super) fn apply_here(
        &mut self,
        now: Now,
        place: Place<'_>,
        write: Write<'_>,
        out: &mut Output,
    ) -> Result<Option<WireOperations>, Refused> {
        self.take_what_was_kept(place, write.operation, out);
        let appended = self.next_append();
        Ok(match self.replica.coordinate(now, place, write, appended)? {
            Applied::Now { replaced, .. } => {
                let replaced = on_the_wire(&replaced);
                self.append(place, &replaced, out);
                Some(replaced)
            }
            Applied::Before => None,
        })
    }

    /// This node applied the write, or what replaced it, when it owned nothing of the key, and owns it now.
    fn take_what_was_kept(&mut self, place: Place<'_>, operation: OperationId, out: &mut Output) {
        if self.hints.store.is_empty() {
            return;
        }
        let held = self.hints.store.record_of(place.key, operation);
        if held.is_none() && !self.replica.has_replaced(operation) {
            return;
        }
        let kept = self.hints.store.known(place.key);
        if !kept.is_empty() && self.can_merge(place, &kept, out) && self.make_room_to_merge(place, &kept) {
            self.merge_here(place, &kept, out);
        }
        let own =
            self.replica.index().find(place.partition, place.token, place.key).map(|entry| &entry.state);
        if let Some(held) = held
            && own.is_none_or(|own| own.contains_operation(operation).is_none())
        {
            self.replica.remember_replaced(std::iter::once(operation), held);
        }
    }

    /// Is this write, which was applied before, or what replaced it, in what [`Shard::known_of`] tells?
    pub(super) fn accounts_for(&self, place: Place<'_>, write: OperationId) -> bool {
        let own = self.replica.index().find(place.partition, place.token, place.key);
        own.is_some() || self.hints.store.accounts_for(place.key, write)
    }

    /// What a write is applied to that is kept for another: all that is kept of the key for whomever, and this node's own
    /// copy, if it owned the key when it applied this very write or one that replaced it.
    pub(super) fn known_of(&mut self, now: Now, place: Place<'_>, operation: OperationId) -> Siblings<Bytes> {
        let mut known = self.kept(now, place);
        let mut held = self.hints.store.record_of(place.key, operation);
        let has_replaced = self.replica.has_replaced(operation);
        if let Some(entry) = self.replica.look(now, place) {
            let is_own = entry.state.contains_operation(operation).is_some();
            if is_own || has_replaced {
                known.merge(&entry.state);
            }
            held = held.or(is_own.then_some(entry.appended));
        }
        // One of these states holds the write, and another may have replaced it.
        if let Some(record) = held.filter(|_| known.contains_operation(operation).is_none()) {
            self.replica.remember_replaced(std::iter::once(operation), record);
        }
        known
    }

    /// The same to what is kept for a primary that can't be reached; there must be room for it.
    pub(super) fn apply_for_another(
        &mut self,
        now: Now,
        keeping: Keeping<'_>,
        known: Siblings<Bytes>,
        write: Write<'_>,
        out: &mut Output,
    ) -> Result<Option<WireOperations>, Refused> {
        let mut state = known;
        let last = self.hints.store.minter(keeping.key);
        let record = self.next_append();
        let applied =
            self.replica.coordinate_for_another(now, keeping.key, &mut state, last, write, record)?;
        let (replaced, actor) = match applied {
            Applied::Now { replaced, actor } => (Some(replaced), Some(actor)),
            Applied::Before => (None, None),
        };
        let names = replaced.as_ref().map(on_the_wire);
        let kept = self.hints.store.find(keeping.target, keeping.key);
        let is_news = kept.map_or(!state.is_empty(), |hint| hint.state.would_change(&state));
        if is_news {
            let appended = self.next_append();
            self.hints.store.replace(keeping, state, appended).expect("there was room a moment ago");
            if let Some(actor) = actor {
                self.hints.store.note_minter(keeping.key, actor);
            }
            let replaced = replaced.into_iter().flatten();
            self.hints.store.note_replaced(keeping.target, keeping.key, replaced);
            self.counters.hints_kept += 1;
            let told = names.as_deref().unwrap_or_default();
            self.append_hint(keeping.target, self.place(keeping.key), told, out);
        }
        Ok(names)
    }
}

/// Operations as frames carry them.
pub(super) type WireOperations = SmallVec<[WireOperation; 1]>;

fn on_the_wire(replaced: &Replaced) -> WireOperations {
    replaced.iter().map(|write| WireOperation::new(write.client, write.sequence)).collect()
}
