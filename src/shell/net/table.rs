//! Connections by slot. A slot is reused; its generation isn't, so a name from an earlier life finds nothing.

use super::connection::Connection;
use super::token::{SLOTS_MAX, connection_id, slot_of};
use crate::id::ConnectionId;
use crate::storage::cost;

#[derive(Default)]
pub(super) struct Table {
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// What all connections take in memory, as last counted.
    counted: usize,
    /// The slot whose connection is counted next.
    next: usize,
}

struct Slot {
    /// Of the connection that lives here now, or will next. The first is 1.
    generation: u64,
    connection: Option<Connection>,
    /// What it took in memory when it was last counted.
    counted: usize,
}

impl Table {
    /// Give a connection a slot and a name; `None` if there are too many.
    pub(super) fn insert(&mut self, connection: Connection) -> Option<ConnectionId> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() == SLOTS_MAX => return None,
            None => {
                self.slots.push(Slot { generation: 1, connection: None, counted: 0 });
                self.slots.len() - 1
            }
        };
        self.slots[slot].connection = Some(connection);
        Some(connection_id(slot, self.slots[slot].generation))
    }

    pub(super) fn find(&mut self, connection: ConnectionId) -> Option<&mut Connection> {
        let (slot, generation) = slot_of(connection);
        let slot = self.slots.get_mut(slot)?;
        if slot.generation == generation { slot.connection.as_mut() } else { None }
    }

    /// End this life of the slot.
    pub(super) fn remove(&mut self, connection: ConnectionId) -> Option<Connection> {
        let (place, generation) = slot_of(connection);
        let slot = self.slots.get_mut(place).filter(|slot| slot.generation == generation)?;
        let connection = slot.connection.take()?;
        slot.generation += 1;
        self.counted -= std::mem::take(&mut slot.counted);
        self.free.push(place);
        Some(connection)
    }

    /// What all connections take in memory, those in so many slots counted anew: all in turn.
    pub(super) fn recount(&mut self, slots: usize) -> usize {
        for _ in 0..slots.min(self.slots.len()) {
            self.next = (self.next + 1) % self.slots.len();
            let slot = &mut self.slots[self.next];
            let bytes = slot.connection.as_ref().map_or(0, Connection::memory);
            self.counted = self.counted + bytes - std::mem::replace(&mut slot.counted, bytes);
        }
        let slots = self.slots.capacity() * size_of::<Slot>();
        self.counted + cost::allocated(slots) + cost::allocated(self.free.capacity() * size_of::<usize>())
    }

    /// Who takes most memory of those that called and are open.
    pub(super) fn largest(&self) -> Option<ConnectionId> {
        let all = self.slots.iter().enumerate();
        let called = all.filter_map(|(place, slot)| {
            let connection = slot.connection.as_ref().filter(|connection| connection.is_open_caller())?;
            Some((connection.memory(), connection_id(place, slot.generation)))
        });
        called.max_by_key(|(bytes, _)| *bytes).map(|(_, id)| id)
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The names of all that live.
    pub(super) fn names(&self) -> Vec<ConnectionId> {
        let living = self.slots.iter().enumerate().filter(|(_, slot)| slot.connection.is_some());
        living.map(|(place, slot)| connection_id(place, slot.generation)).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.slots.iter().filter_map(|slot| slot.connection.as_ref())
    }
}
