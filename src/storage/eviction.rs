//! Which key goes when there is no more room: S3-FIFO (Yang, Zhang, Qiu, Yue and Rashmi, SOSP 2023).
//!
//! Most keys are asked for once and never again. So whoever is new sits in a small queue, a tenth of all bytes, and is put out
//! at its end unless it was used meanwhile; only who was goes on to the main queue. Who is put out is remembered for a while by
//! its hash: if it comes back soon, it goes to the main queue at once. In the main queue each use, up to three, is good for
//! another round. A use costs a counter's increment; nothing is moved until somebody must go. Whoever is of no use any more
//! ([`Seats::give_up`]) goes before all others.
//!
//! It holds seats, not keys: whoever owns a seat says when it was used, how much it is, and when it leaves. To find a victim
//! costs a bounded number of moves: after so many, whoever is next has to go, used or not.
//!
//! Memory: 32 bytes a seat, in blocks of 1,024 that are kept for later ones, and 17 to 42 for each that is remembered, of which
//! there are as many as seats. It grows by small steps, since it grows just when there is no room ([`ghosts`](super::ghosts)).

use super::cost;
use super::ghosts::Ghosts;
use crate::id::PartitionId;

/// Of all bytes, the small queue has one in so many.
const SMALL_SHARE: u64 = 10;
/// Uses that are counted.
const USES_MAX: u8 = 3;
/// So many uses in the small queue lead to the main one.
const USES_TO_STAY: u8 = 2;
/// Seats that are moved for one victim.
const MOVES_MAX: usize = 128;
/// Seats of a block.
const BLOCK: usize = 1024;
/// Heads of the queues are seats of their own, before all others.
const SMALL: u32 = 0;
const MAIN: u32 = 1;
/// Of those that are of no use any more.
const OVER: u32 = 2;
const HEADS: usize = 3;
/// No seat.
const NONE: u32 = u32::MAX;

/// A place in one of the queues: whoever owns it keeps it until it is given back, or is put out.
#[derive(PartialEq, Eq, Debug)]
pub struct Seat(u32);

impl Default for Seat {
    fn default() -> Self {
        Self(NONE)
    }
}

impl Seat {
    /// Nobody sits here.
    pub const fn is_none(&self) -> bool {
        self.0 == NONE
    }
}

/// Who has to go. Its seat is given back.
#[derive(PartialEq, Eq, Debug)]
pub struct Victim {
    /// The seat that it had.
    pub seat: Seat,
    /// Its partition.
    pub partition: PartitionId,
    /// Its token.
    pub token: u64,
}

/// All seats of one shard.
#[derive(Debug)]
pub struct Seats {
    heads: [Node; HEADS],
    blocks: Vec<Box<[Node]>>,
    /// The first of those that were given back; the others follow it.
    free: u32,
    /// Of each queue.
    count: [usize; HEADS],
    bytes: [u64; HEADS],
    ghosts: Ghosts,
}

#[derive(Clone, Debug)]
struct Node {
    token: u64,
    bytes: u64,
    partition: u32,
    before: u32,
    after: u32,
    /// The head of the queue that it is in.
    queue: u8,
    /// `uses <= USES_MAX`
    uses: u8,
    /// So many hold it: then it is in no queue, and `queue` is where it goes when all have let it go.
    held: u8,
}

impl Node {
    const fn alone(at: u32) -> Self {
        Self { token: 0, bytes: 0, partition: 0, before: at, after: at, queue: at as u8, uses: 0, held: 0 }
    }
}

impl Default for Seats {
    fn default() -> Self {
        Self {
            heads: [SMALL, MAIN, OVER].map(Node::alone),
            blocks: Vec::new(),
            free: NONE,
            count: [0; HEADS],
            bytes: [0; HEADS],
            ghosts: Ghosts::default(),
        }
    }
}

impl Seats {
    /// Take a seat for a key of so many bytes.
    pub fn take(&mut self, partition: PartitionId, token: u64, bytes: usize) -> Seat {
        let seat = self.take_free();
        let queue = if self.ghosts.forget(token) { MAIN } else { SMALL };
        let node = Node { token, partition: partition.0, bytes: bytes as u64, ..Node::alone(seat) };
        *self.node_mut(seat) = node;
        self.link_last(queue, seat);
        Seat(seat)
    }

    /// The key was asked for, or written.
    pub fn touch(&mut self, seat: &Seat) {
        if seat.0 != NONE {
            let node = self.node_mut(seat.0);
            node.uses = (node.uses + 1).min(USES_MAX);
        }
    }

    /// It is so many bytes now.
    pub fn resize(&mut self, seat: &Seat, bytes: usize) {
        let node = self.node_mut(seat.0);
        let before = std::mem::replace(&mut node.bytes, bytes as u64);
        if node.held > 0 {
            return;
        }
        let queue = usize::from(node.queue);
        self.bytes[queue] = self.bytes[queue] + bytes as u64 - before;
    }

    /// It is of no use any more and goes first; or else it is of use again.
    pub fn give_up(&mut self, seat: &Seat, is_over: bool) {
        let queue = if is_over { OVER } else { SMALL };
        if is_over == (u32::from(self.node(seat.0).queue) == OVER) {
            return;
        }
        if self.node(seat.0).held > 0 {
            self.node_mut(seat.0).queue = queue as u8;
        } else {
            self.unlink(seat.0);
            self.link_last(queue, seat.0);
        }
    }

    /// The key is gone, or it may not be put out any more.
    pub fn give_back(&mut self, seat: &mut Seat) {
        let seat = std::mem::take(seat).0;
        if seat != NONE {
            if self.node(seat).held == 0 {
                self.unlink(seat);
            }
            self.set_free(seat);
        }
    }

    /// Whoever sits here stays while others are put out, until it is let go again, as often as it was held.
    pub fn hold(&mut self, seat: &Seat) {
        if seat.0 != NONE {
            if self.node(seat.0).held == 0 {
                self.unlink(seat.0);
            }
            self.node_mut(seat.0).held += 1;
        }
    }

    /// It was held, and may go like all others; unless it has left its seat meanwhile, and has another.
    pub fn let_go(&mut self, seat: &Seat) {
        if seat.0 != NONE && self.node(seat.0).held > 0 {
            self.node_mut(seat.0).held -= 1;
            if self.node(seat.0).held == 0 {
                self.link_last(u32::from(self.node(seat.0).queue), seat.0);
            }
        }
    }

    /// Somebody has to go: who; nobody if there is none.
    pub fn put_out(&mut self) -> Option<Victim> {
        for moves in 0.. {
            let is_over = self.count[OVER as usize] > 0;
            let all = self.bytes[SMALL as usize] + self.bytes[MAIN as usize];
            let is_small_full = self.bytes[SMALL as usize] * SMALL_SHARE >= all;
            // Whoever is alone there is the last that came: those before it have had their time.
            let has_others = self.count[SMALL as usize] > 1;
            let is_smalls_turn = (has_others && is_small_full) || self.count[MAIN as usize] == 0;
            let queue = if is_over {
                OVER
            } else if is_smalls_turn {
                SMALL
            } else {
                MAIN
            };
            let seat = Some(self.node(queue).after).filter(|first| *first != queue)?;
            let uses = self.node(seat).uses;
            self.unlink(seat);
            let stays = match queue {
                OVER => false,
                SMALL => uses >= USES_TO_STAY,
                _ => uses > 0,
            };
            if stays && moves < MOVES_MAX {
                self.node_mut(seat).uses = if queue == SMALL { 0 } else { uses - 1 };
                self.link_last(MAIN, seat);
                continue;
            }
            let &Node { token, partition, .. } = self.node(seat);
            if queue == SMALL {
                self.ghosts.remember(token, self.len());
            }
            self.set_free(seat);
            return Some(Victim { seat: Seat(seat), partition: PartitionId(partition), token });
        }
        unreachable!("somebody goes after so many moves")
    }

    /// Keys that sit here.
    pub const fn len(&self) -> usize {
        self.count[0] + self.count[1] + self.count[2]
    }

    /// Does nobody sit here?
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all that sit here.
    pub const fn bytes(&self) -> u64 {
        self.bytes[0] + self.bytes[1] + self.bytes[2]
    }

    /// What it costs to keep all this, as the allocator gives it out.
    pub fn memory(&self) -> usize {
        let blocks = self.blocks.len() * cost::allocated(BLOCK * size_of::<Node>());
        blocks + cost::allocated(self.blocks.capacity() * size_of::<Box<[Node]>>()) + self.ghosts.memory()
    }

    /// What one more seat costs.
    pub(super) fn growth(&self) -> usize {
        let block = cost::allocated(BLOCK * size_of::<Node>()) + cost::growth_of_list(&self.blocks);
        if self.free == NONE { block } else { 0 }
    }

    fn link_last(&mut self, queue: u32, seat: u32) {
        let last = self.node(queue).before;
        self.node_mut(last).after = seat;
        self.node_mut(queue).before = seat;
        let node = self.node_mut(seat);
        (node.before, node.after, node.queue) = (last, queue, queue as u8);
        self.bytes[queue as usize] += self.node(seat).bytes;
        self.count[queue as usize] += 1;
    }

    fn unlink(&mut self, seat: u32) {
        let &Node { before, after, bytes, queue, .. } = self.node(seat);
        self.node_mut(before).after = after;
        self.node_mut(after).before = before;
        self.bytes[usize::from(queue)] -= bytes;
        self.count[usize::from(queue)] -= 1;
    }

    fn take_free(&mut self) -> u32 {
        if self.free == NONE {
            let first = HEADS + self.blocks.len() * BLOCK;
            assert!(first + BLOCK < NONE as usize, "a shard has fewer keys than a word has numbers");
            let following = |at: usize| if at + 1 < BLOCK { (first + at + 1) as u32 } else { NONE };
            self.blocks.push((0..BLOCK).map(|at| Node { after: following(at), ..Node::alone(0) }).collect());
            self.free = first as u32;
        }
        let seat = self.free;
        self.free = self.node(seat).after;
        seat
    }

    fn set_free(&mut self, seat: u32) {
        let free = self.free;
        self.node_mut(seat).after = free;
        self.free = seat;
    }

    fn node(&self, at: u32) -> &Node {
        match (at as usize).checked_sub(HEADS) {
            None => &self.heads[at as usize],
            Some(at) => &self.blocks[at / BLOCK][at % BLOCK],
        }
    }

    fn node_mut(&mut self, at: u32) -> &mut Node {
        match (at as usize).checked_sub(HEADS) {
            None => &mut self.heads[at as usize],
            Some(at) => &mut self.blocks[at / BLOCK][at % BLOCK],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::prng::Prng;

    const P: PartitionId = PartitionId(0);

    #[test]
    fn who_is_used_stays_and_who_is_new_goes() {
        let mut seats = Seats::default();
        let all: Vec<Seat> = (0..20).map(|token| seats.take(P, token, 10)).collect();
        [3, 3, 7, 7, 7].iter().for_each(|at| seats.touch(&all[*at]));
        let gone: Vec<u64> = (0..17).map(|_| seats.put_out().unwrap().token).collect();
        assert!(!gone.contains(&3) && !gone.contains(&7), "{gone:?}");
        assert_eq!((seats.len(), seats.bytes()), (3, 30));
        (0..3).for_each(|_| assert!(seats.put_out().is_some()));
        assert_eq!((seats.put_out(), seats.bytes(), seats.is_empty()), (None, 0, true));
    }

    /// It is too much for the small queue's part, and alone there: it has only just come.
    #[test]
    fn who_is_large_is_not_put_out_as_soon_as_it_comes() {
        let mut seats = Seats::default();
        let all: Vec<Seat> = (0..20).map(|token| seats.take(P, token, 10)).collect();
        (0..2).for_each(|_| all.iter().for_each(|seat| seats.touch(seat)));
        assert_eq!(seats.put_out().unwrap().token, 0, "all others have moved to the main queue");
        let large = seats.take(P, 99, 1000);
        assert_eq!(seats.node(large.0).queue, SMALL as u8);
        let gone: Vec<u64> = (0..19).map(|_| seats.put_out().unwrap().token).collect();
        assert!(!gone.contains(&99), "{gone:?}");
        assert_eq!(seats.put_out().unwrap().token, 99);
    }

    #[test]
    fn who_comes_back_soon_has_a_better_seat() {
        let mut seats = Seats::default();
        (0..20).for_each(|token| _ = seats.take(P, token, 10));
        assert_eq!(seats.put_out().unwrap().token, 0);
        let back = seats.take(P, 0, 10);
        assert_eq!(seats.node(back.0).queue, MAIN as u8);
        let stranger = seats.take(P, 99, 10);
        assert_eq!(seats.node(stranger.0).queue, SMALL as u8);
    }

    #[test]
    fn who_is_of_no_use_any_more_goes_first_unless_it_is_again() {
        let mut seats = Seats::default();
        let all: Vec<Seat> = (0..6).map(|token| seats.take(P, token, 10)).collect();
        (0..3).for_each(|_| all.iter().for_each(|seat| seats.touch(seat)));
        [3, 5, 4].iter().for_each(|at| seats.give_up(&all[*at], true));
        seats.give_up(&all[3], false);
        let gone: Vec<u64> = (0..6).map(|_| seats.put_out().unwrap().token).collect();
        assert_eq!((&gone[..2], gone.len()), (&[5, 4][..], 6));
        assert_eq!((seats.put_out(), seats.bytes()), (None, 0));
    }

    /// All are in use, over and over: somebody goes all the same, and soon.
    #[test]
    fn a_victim_costs_a_bounded_number_of_moves() {
        let mut seats = Seats::default();
        let all: Vec<Seat> = (0..10_000).map(|token| seats.take(P, token, 10)).collect();
        (0..3).for_each(|_| all.iter().for_each(|seat| seats.touch(seat)));
        let mut first = seats.node(SMALL).after;
        let victim = seats.put_out().unwrap();
        for _ in 0..MOVES_MAX {
            assert_ne!(Seat(first), victim.seat);
            first = if seats.node(first).queue == MAIN as u8 { first + 1 } else { seats.node(first).after };
        }
        assert_eq!(victim.token, MOVES_MAX as u64, "the first that was not moved");
    }

    /// It is held twice, grows, is of no use for a while, leaves, and another has its seat.
    #[test]
    fn who_is_held_stays_until_all_have_let_it_go() {
        let mut seats = Seats::default();
        let mut held = seats.take(P, 1, 10);
        seats.take(P, 2, 10);
        (0..2).for_each(|_| seats.hold(&held));
        seats.resize(&held, 50);
        seats.give_up(&held, true);
        seats.give_up(&held, false);
        assert_eq!((seats.bytes(), seats.len()), (10, 1));
        seats.let_go(&held);
        assert_eq!(seats.put_out().map(|victim| victim.token), Some(2));
        assert_eq!(seats.put_out(), None);
        seats.let_go(&held);
        assert_eq!((seats.bytes(), seats.len()), (50, 1));
        seats.hold(&held);
        seats.give_back(&mut held);
        let other = seats.take(P, 3, 7);
        seats.let_go(&other);
        assert_eq!((seats.bytes(), seats.put_out().map(|victim| victim.token)), (7, Some(3)));
    }

    /// Random keys that come, change, are used, leave, and are put out, against a plain map.
    #[test]
    fn sums_and_seats_are_right_whatever_happens() {
        for seed in 0..50 {
            let mut prng = Prng::from_seed(seed);
            let (mut seats, mut held) = (Seats::default(), BTreeMap::<u64, (Seat, usize)>::new());
            for _ in 0..2000 {
                let (token, bytes) = (prng.below(100), prng.below(1000) as usize);
                match prng.below(6) {
                    0 | 1 => match held.get_mut(&token) {
                        Some((seat, held)) => {
                            seats.touch(seat);
                            seats.resize(seat, bytes);
                            *held = bytes;
                        }
                        None => drop(held.insert(token, (seats.take(P, token, bytes), bytes))),
                    },
                    2 => held.get(&token).iter().for_each(|(seat, _)| {
                        seats.touch(seat);
                        seats.give_up(seat, bytes < 100);
                    }),
                    3 => {
                        if let Some((mut seat, _)) = held.remove(&token) {
                            seats.give_back(&mut seat);
                            assert!(seat.is_none());
                        }
                    }
                    _ => match seats.put_out() {
                        Some(victim) => {
                            let (seat, _) = held.remove(&victim.token).expect("only who sits can go");
                            assert_eq!(seat, victim.seat);
                        }
                        None => assert!(held.is_empty()),
                    },
                }
                assert_eq!(seats.len(), held.len());
                assert_eq!(seats.bytes(), held.values().map(|(_, bytes)| *bytes as u64).sum::<u64>());
            }
        }
    }
}
