//! A table of things under way, each with a number that is never used again.

/// At most `limit` things. A key holds a slot and its generation, so that a late answer to something long
/// gone finds nothing, instead of something else.
#[derive(Debug)]
pub(super) struct Table<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    limit: usize,
}

#[derive(Debug)]
struct Slot<T> {
    /// Odd while occupied. It wraps after two billion uses of one slot, long after any message has died.
    generation: u32,
    thing: Option<T>,
}

impl<T> Table<T> {
    /// Room for `limit` things; memory grows with use.
    pub(super) const fn new(limit: usize) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), limit }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
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
        Ok(u64::from(slot.generation) << 32 | u64::from(at))
    }

    /// The thing of this key, if it is still there.
    pub(super) fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        let slot = self.slots.get_mut(key as u32 as usize)?;
        slot.thing.as_mut().filter(|_| slot.generation == (key >> 32) as u32)
    }

    /// Take the thing of this key out, if it is still there.
    pub(super) fn remove(&mut self, key: u64) -> Option<T> {
        self.get_mut(key)?;
        let at = key as u32;
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
            .map(|(at, slot)| u64::from(slot.generation) << 32 | at as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_used_again() {
        let mut table = Table::new(2);
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
    fn a_full_table_says_so() {
        let mut table = Table::new(1);
        table.insert(1).unwrap();
        assert_eq!(table.insert(2), Err(2));
        assert!(table.is_full() && table.len() == 1);
    }
}
