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

    /// What connections alone took when they were last counted, without their slots.
    pub(super) const fn counted(&self) -> usize {
        self.counted
    }

    /// Those that are not about to end, with what each takes in memory now. A connection that this shard has called is no better than
    /// another: what waits for a peer that takes nothing is without limit.
    pub(super) fn closable(&self) -> impl Iterator<Item = (usize, ConnectionId)> {
        let all = self.slots.iter().enumerate();
        all.filter_map(|(place, slot)| {
            let connection = slot.connection.as_ref().filter(|connection| connection.can_be_closed())?;
            Some((connection.memory(), connection_id(place, slot.generation)))
        })
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::shard::DialId;
    use crate::shell::net::connection::{Dialling, Phase};

    fn insert(table: &mut Table, dialled: bool, queued: usize) -> ConnectionId {
        let socket = UnixStream::pair().unwrap().0.into();
        let phase = if dialled {
            Phase::Dialling(Dialling { dial: DialId(1), others: Vec::new() })
        } else {
            Phase::Open
        };
        let mut connection = Connection::new(socket, phase);
        connection.phase = Phase::Open;
        connection.outgoing.copy(&vec![7; queued]);
        table.insert(connection).unwrap()
    }

    fn largest(table: &Table) -> Option<ConnectionId> {
        table.closable().max_by_key(|(bytes, _)| *bytes).map(|(_, id)| id)
    }

    #[test]
    fn what_waits_for_a_peer_that_was_called_counts_as_anybodys() {
        let mut table = Table::default();
        let idle = insert(&mut table, false, 0);
        let caller = insert(&mut table, false, 100 << 10);
        let called = insert(&mut table, true, 1 << 20);
        assert_eq!(largest(&table), Some(called));
        let all = |table: &Table| table.closable().map(|(bytes, _)| bytes).sum::<usize>();
        assert!(all(&table) >= (1 << 20) + (100 << 10));
        // Until the kernel lets go of what it sends it is there still, and there is nothing more to do about it.
        table.find(called).unwrap().phase = Phase::Closing;
        assert_eq!(largest(&table), Some(caller));
        assert!(all(&table) < 1 << 20);
        table.find(caller).unwrap().phase = Phase::Closing;
        assert_eq!((largest(&table), all(&table)), (Some(idle), 0));
    }

    #[test]
    fn slots_are_no_bytes_of_connections() {
        let mut table = Table::default();
        (0..100).for_each(|_| _ = insert(&mut table, false, 0));
        assert!(table.recount(usize::MAX) > 0);
        assert_eq!(table.counted(), 0);
    }
}
