//! Connections by slot. A slot is reused; its generation isn't, so a name from an earlier life finds nothing.

use super::connection::Connection;
use super::token::{SLOTS_MAX, connection_id, slot_of};
use crate::id::ConnectionId;

#[derive(Default)]
pub(super) struct Table {
    slots: Vec<Slot>,
    free: Vec<usize>,
}

struct Slot {
    /// Of the connection that lives here now, or will next. The first is 1.
    generation: u64,
    connection: Option<Connection>,
}

impl Table {
    /// Give a connection a slot and a name; `None` if there are too many.
    pub(super) fn insert(&mut self, connection: Connection) -> Option<ConnectionId> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() == SLOTS_MAX => return None,
            None => {
                self.slots.push(Slot { generation: 1, connection: None });
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
        self.free.push(place);
        Some(connection)
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
