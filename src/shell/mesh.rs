//! Messages between the shards of one node: one single-producer ring for each ordered pair, one doorbell a
//! shard.
//!
//! A shard pushes as it goes and rings each neighbour at most once a turn. A ring is never waited on: whoever
//! uses it must hold a reservation for every message (as the core does, see
//! [`SIBLING_REQUESTS_MAX`](crate::shard::SIBLING_REQUESTS_MAX)), so finding one full is a programmer's mistake.

use std::collections::VecDeque;

use rtrb::{Consumer, Producer, RingBuffer};

use super::doorbell::Doorbell;
use crate::id::ShardId;
use crate::storage::cost;

/// One shard's ends of all its rings.
#[derive(Debug)]
pub struct Mesh<T> {
    outgoing: Vec<Option<Line<T>>>,
    /// By sender; `None` in the shard's own place.
    incoming: Vec<Option<Consumer<T>>>,
    /// Senders pushed to since the last [`Mesh::ring`].
    unrung: Vec<usize>,
    /// Which inbox is looked at first next time, so that none has to wait for all others.
    first: usize,
}

#[derive(Debug)]
struct Line<T> {
    producer: Producer<T>,
    doorbell: Doorbell,
    unrung: bool,
    /// What each message keeps beside its slot, of those that the receiver had not taken when they were last looked through.
    untaken: VecDeque<usize>,
    untaken_bytes: usize,
}

impl<T> Line<T> {
    /// What the messages keep that the receiver has not taken.
    fn kept(&mut self) -> usize {
        let under_way = self.producer.buffer().capacity() - self.producer.slots();
        while self.untaken.len() > under_way {
            self.untaken_bytes -= self.untaken.pop_front().unwrap_or(0);
        }
        self.untaken_bytes
    }
}

impl<T> Mesh<T> {
    /// The ends of every shard, in order; `doorbells` holds one a shard.
    pub fn connect(doorbells: &[Doorbell], slots: usize) -> Vec<Self> {
        let shards = doorbells.len();
        let mut meshes: Vec<Self> = (0..shards).map(|_| Self::alone(shards)).collect();
        for from in 0..shards {
            for to in (0..shards).filter(|&to| to != from) {
                let (producer, consumer) = RingBuffer::new(slots);
                let doorbell = doorbells[to].clone();
                meshes[from].outgoing[to] = Some(Line {
                    producer,
                    doorbell,
                    unrung: false,
                    untaken: VecDeque::with_capacity(slots),
                    untaken_bytes: 0,
                });
                meshes[to].incoming[from] = Some(consumer);
            }
        }
        meshes
    }

    fn alone(shards: usize) -> Self {
        Self {
            outgoing: (0..shards).map(|_| None).collect(),
            incoming: (0..shards).map(|_| None).collect(),
            unrung: Vec::with_capacity(shards),
            first: 0,
        }
    }

    /// Put a message into the ring to `to`, which must be another shard of this node. It keeps so many bytes beside its slot that are
    /// counted nowhere else.
    ///
    /// # Panics
    ///
    /// If the ring is full: the sender had no reservation. A shard that has left takes nothing any more, and
    /// what is sent to it is dropped.
    pub fn send(&mut self, to: ShardId, message: T, bytes: usize) {
        let place = usize::from(to.0);
        let line = self.outgoing[place].as_mut().expect("a shard sends to its siblings, not to itself");
        if line.producer.push(message).is_err() {
            assert!(line.producer.is_abandoned(), "the ring to shard {place} is full: no slot was reserved");
            return;
        }
        // Seldom: to look what the receiver has taken costs a word of its cache.
        if line.untaken.len() == line.untaken.capacity() {
            line.kept();
        }
        line.untaken.push_back(bytes);
        line.untaken_bytes += bytes;
        if !line.unrung {
            line.unrung = true;
            self.unrung.push(place);
        }
    }

    /// Wake every shard that was sent something since the last call.
    pub fn ring(&mut self) {
        for place in self.unrung.drain(..) {
            let line = self.outgoing[place].as_mut().expect("only lines are marked");
            line.unrung = false;
            line.doorbell.ring();
        }
    }

    /// Take up to `each` messages from every inbox; tells whether there was any.
    pub fn receive(&mut self, each: usize, mut take: impl FnMut(ShardId, T)) -> bool {
        let shards = self.incoming.len();
        let mut any = false;
        for step in 0..shards {
            let place = (self.first + step) % shards;
            let Some(inbox) = &mut self.incoming[place] else { continue };
            for _ in 0..each {
                let Ok(message) = inbox.pop() else { break };
                any = true;
                take(ShardId(place as u16), message);
            }
        }
        self.first = (self.first + 1) % shards;
        any
    }

    /// What messages take in memory: slots of inboxes, which are their receiver's, and what was sent and is not taken.
    pub fn memory(&mut self) -> usize {
        let inboxes = self.incoming.iter().flatten();
        let slots: usize =
            inboxes.map(|inbox| cost::allocated(inbox.buffer().capacity() * size_of::<T>())).sum();
        let lines = self.outgoing.iter_mut().flatten();
        let sent =
            lines.map(|line| line.kept() + cost::allocated(line.untaken.capacity() * size_of::<usize>()));
        slots + sent.sum::<usize>()
    }

    /// Is every inbox empty?
    pub fn is_idle(&self) -> bool {
        self.incoming.iter().flatten().all(Consumer::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_shard_sends_the_other_takes_in_order() {
        let doorbells = [Doorbell::new().unwrap(), Doorbell::new().unwrap()];
        let [mut a, mut b]: [Mesh<u32>; 2] = Mesh::connect(&doorbells, 4).try_into().unwrap();
        (0..4).for_each(|message| a.send(ShardId(1), message, 10));
        let slots = b.memory();
        assert_eq!(a.memory(), slots + 40, "nobody has taken them");
        a.ring();
        assert!(!b.is_idle());
        let mut taken = Vec::new();
        assert!(b.receive(3, |from, message| taken.push((from, message))));
        assert!(b.receive(3, |from, message| taken.push((from, message))));
        assert_eq!(taken, (0..4).map(|message| (ShardId(0), message)).collect::<Vec<_>>());
        assert!(b.is_idle() && !b.receive(3, |_, _| ()));
        assert_eq!(a.memory(), slots);
    }

    #[test]
    #[should_panic(expected = "no slot was reserved")]
    fn a_full_ring_is_a_mistake_of_the_sender() {
        let doorbells = [Doorbell::new().unwrap(), Doorbell::new().unwrap()];
        let mut meshes: Vec<Mesh<u32>> = Mesh::connect(&doorbells, 4);
        (0..5).for_each(|message| meshes[0].send(ShardId(1), message, 0));
    }

    #[test]
    fn a_shard_that_left_takes_nothing() {
        let doorbells = [Doorbell::new().unwrap(), Doorbell::new().unwrap()];
        let mut meshes: Vec<Mesh<u32>> = Mesh::connect(&doorbells, 4);
        meshes.truncate(1);
        (0..9).for_each(|message| meshes[0].send(ShardId(1), message, 0));
    }
}
