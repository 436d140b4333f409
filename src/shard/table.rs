//! A table of things under way, each with a number that is never used again.

use crate::storage::cost;

/// At most `limit` things. A key holds a slot and its generation, so that a late answer to something long
/// gone finds nothing, instead of something else; and the table's tag, so that no key fits two tables.
#[derive(Debug)]
pub(super) struct Table<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    limit: usize,
    tag: Tag,
}

/// Which table a key is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tag {
    Operations = 0,
    Relays = 1,
    Batches = 2,
    Hints = 3,
}

/// The tag's place in a key, above the slot's number.
const TAG_SHIFT: u32 = 30;

#[derive(Debug)]
struct Slot<T> {
    /// Odd while occupied. It wraps after two billion uses of one slot, long after any message has died.
    generation: u32,
    thing: Option<T>,
}

impl<T> Table<T> {
    /// Room for `limit` things, fewer than 2^30; memory grows with use.
    pub(super) const fn new(limit: usize, tag: Tag) -> Self {
        assert!(limit < 1 << TAG_SHIFT, "a slot's number must leave room for the tag");
        Self { slots: Vec::new(), free: Vec::new(), limit, tag }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Bytes of its slots, however many are taken, as the allocator gives them out.
    pub(super) fn memory(&self) -> usize {
        let slots = self.slots.capacity() * size_of::<Slot<T>>();
        cost::allocated(slots) + cost::allocated(self.free.capacity() * size_of::<u32>())
    }

    /// What another thing may cost: the table doubles when it has no slot for it.
    pub(super) fn growth(&self) -> usize {
        let is_full = self.free.is_empty() && self.slots.len() == self.slots.capacity();
        if is_full { self.memory() + 8 * size_of::<Slot<T>>() } else { 0 }
    }

    /// None at all?
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// No room for another?
    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.limit
    }

    /// Put a thing in, or get it back if there is no room.
    pub(super) fn insert(&mut self, thing: T) -> Result<u64, T> {
        if self.is_full() {
            return Err(thing);
        }
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, thing: None });
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[at as usize];
        debug_assert!(slot.thing.is_none());
        slot.generation = slot.generation.wrapping_add(1);
        slot.thing = Some(thing);
        let generation = slot.generation;
        Ok(self.key(generation, at))
    }

    /// The thing of this key, if it is still there.
    pub(super) fn get(&self, key: u64) -> Option<&T> {
        let slot =
            self.slots.get(slot_of(key) as usize).filter(|_| key as u32 >> TAG_SHIFT == self.tag as u32)?;
        slot.thing.as_ref().filter(|_| slot.generation == (key >> 32) as u32)
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        if key as u32 >> TAG_SHIFT != self.tag as u32 {
            return None;
        }
        let slot = self.slots.get_mut(slot_of(key) as usize)?;
        slot.thing.as_mut().filter(|_| slot.generation == (key >> 32) as u32)
    }

    /// Take the thing of this key out, if it is still there.
    pub(super) fn remove(&mut self, key: u64) -> Option<T> {
        self.get_mut(key)?;
        let at = slot_of(key);
        self.free.push(at);
        let slot = &mut self.slots[at as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.thing.take()
    }

    /// The keys of all things, in the order of their slots.
    pub(super) fn keys(&self) -> impl Iterator<Item = u64> {
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.thing.is_some())
            .map(|(at, slot)| self.key(slot.generation, at as u32))
    }

    fn key(&self, generation: u32, at: u32) -> u64 {
        u64::from(generation) << 32 | u64::from((self.tag as u32) << TAG_SHIFT | at)
    }
}

const fn slot_of(key: u64) -> u32 {
    key as u32 & ((1 << TAG_SHIFT) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_used_again() {
        let mut table = Table::new(2, Tag::Relays);
        let first = table.insert("first").unwrap();
        assert_eq!(table.remove(first), Some("first"));
        let second = table.insert("second").unwrap();
        assert_ne!(first, second);
        assert_eq!(table.get_mut(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.get_mut(second), Some(&mut "second"));
        assert_eq!(table.keys().collect::<Vec<_>>(), [second]);
    }

    #[test]
    fn a_key_fits_one_table_only() {
        let (mut operations, mut relays) = (Table::new(1, Tag::Operations), Table::new(1, Tag::Relays));
        let key = operations.insert(1).unwrap();
        assert_ne!(key, relays.insert(2).unwrap());
        assert_eq!(relays.get_mut(key), None);
    }

    #[test]
    fn a_full_table_says_so() {
        let mut table = Table::new(1, Tag::Batches);
        table.insert(1).unwrap();
        assert_eq!(table.insert(2), Err(2));
        assert!(table.is_full() && table.len() == 1);
    }
}
