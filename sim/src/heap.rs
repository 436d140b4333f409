//! The event heap: what happens next. Events of one instant happen in the order in which they were planned, so that
//! a run has one order only.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use ringmain::time::Instant;

/// Events by time.
#[derive(Debug)]
pub struct Heap<E> {
    entries: BinaryHeap<Entry<E>>,
    planned: u64,
}

#[derive(Debug)]
struct Entry<E> {
    at: Instant,
    order: u64,
    event: E,
}

impl<E> Heap<E> {
    /// Nothing planned.
    pub fn new() -> Self {
        Self { entries: BinaryHeap::new(), planned: 0 }
    }

    /// Let `event` happen at `at`, after all that was planned for then before.
    pub fn plan(&mut self, at: Instant, event: E) {
        self.planned += 1;
        self.entries.push(Entry { at, order: self.planned, event });
    }

    /// The next event, unless it is later than `until`.
    pub fn pop(&mut self, until: Instant) -> Option<(Instant, E)> {
        if self.entries.peek()?.at > until {
            return None;
        }
        self.entries.pop().map(|entry| (entry.at, entry.event))
    }
}

impl<E> Default for Heap<E> {
    fn default() -> Self {
        Self::new()
    }
}

/// The greatest entry is the one that comes first: the heap has its greatest on top.
impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Entry<E> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_in_the_order_of_their_planning() {
        let mut heap = Heap::new();
        for (at, event) in [(5, 'c'), (3, 'a'), (5, 'd'), (3, 'b'), (9, 'e')] {
            heap.plan(Instant(at), event);
        }
        let mut came = Vec::new();
        while let Some((_, event)) = heap.pop(Instant(5)) {
            came.push(event);
        }
        assert_eq!(came, ['a', 'b', 'c', 'd']);
        assert_eq!(heap.pop(Instant(9)), Some((Instant(9), 'e')));
    }
}
