//! When versions expire: a hierarchical timer wheel over the wall clock.
//!
//! Time is cut into ticks of 65.5 ms, and a tick's number into eight digits of six bits. A timer lies in the slot of the
//! first digit in which its tick differs from the wheel's, so that setting, moving and taking back a timer cost the same
//! however many there are. When the wheel comes to a slot above the lowest level, the timers in it go down a level or more,
//! each at most seven times. Which slots may hold something is told by a bit for each, so that a clock that jumps by a year
//! costs no more than one that goes on.
//!
//! The wall clock may go back. Then the timers that lie by the later time are put in place again, one a step, like all that
//! this wheel does: [`Wheel::step`] is a bounded piece of work, and whoever calls it says how many there are in a turn.
//! Whatever the clock did, no timer is lost, and none is due before its time.
//!
//! Memory: 32 bytes a timer, in blocks of 1,024 that are kept for later ones; 16 KiB for the slots.

use super::cost;
use crate::id::PartitionId;
use crate::time::WallTime;

/// Bits of a wall time, in microseconds, that a tick doesn't tell.
const TICK_BITS: u32 = 16;
/// Bits of a digit.
const DIGIT_BITS: u32 = 6;
/// Slots of a level.
const SLOTS: usize = 1 << DIGIT_BITS;
/// Enough for all that a wall time can tell.
const LEVELS: usize = 8;
/// Timers that lie by a time that is over; after the slots of all levels.
const UNPLACED: u32 = (LEVELS * SLOTS) as u32;
/// The head of each list is a node of its own, before all timers.
const HEADS: usize = LEVELS * SLOTS + 1;
/// A clock that goes back by fewer ticks (four seconds) is waited for.
const BACK_MAX: u64 = 64;
/// Timers of a block.
const BLOCK: usize = 1024;
/// No timer.
const NONE: u32 = u32::MAX;

/// A timer that may be set: whoever owns one keeps it until the wheel has taken it back.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Alarm(u32);

impl Default for Alarm {
    fn default() -> Self {
        Self(NONE)
    }
}

/// What a step of the wheel has led to.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Nothing is due.
    Idle,
    /// A timer, or none, was put where it belongs now.
    Moved,
    /// The time of this one has come, and it is not set any more.
    Due { alarm: Alarm, partition: PartitionId, token: u64 },
}

/// All timers of one shard: at most one for each of its keys.
#[derive(Debug)]
pub(super) struct Wheel {
    heads: Box<[Node]>,
    blocks: Vec<Box<[Node]>>,
    /// The first of those that were taken back; the others follow it.
    free: u32,
    /// Timers that are set.
    timers: usize,
    /// A bit for each slot of each level: only where it is set can a timer be.
    occupied: [u64; LEVELS],
    /// The tick up to which all was done.
    now: u64,
}

#[derive(Clone, Debug)]
struct Node {
    /// Due then. `tick < 1 << 48`
    tick: u64,
    token: u64,
    partition: u32,
    /// Neighbours in its list, which is a ring.
    before: u32,
    after: u32,
}

impl Wheel {
    pub(super) fn new() -> Self {
        let head = |at| Node { tick: 0, token: 0, partition: 0, before: at, after: at };
        Self {
            heads: (0..HEADS as u32).map(head).collect(),
            blocks: Vec::new(),
            free: NONE,
            timers: 0,
            occupied: [0; LEVELS],
            now: 0,
        }
    }

    /// Have the alarm go off at this time, instead of when it was set to before; never, if there is none.
    pub(super) fn set(
        &mut self,
        alarm: &mut Alarm,
        at: Option<WallTime>,
        partition: PartitionId,
        token: u64,
    ) {
        match (alarm.0, at.and_then(tick_at_last)) {
            (NONE, None) => {}
            (NONE, Some(tick)) => {
                let node = self.take_free();
                *self.node_mut(node) =
                    Node { tick, token, partition: partition.0, before: node, after: node };
                self.timers += 1;
                self.place(node);
                alarm.0 = node;
            }
            (node, None) => {
                self.unlink(node);
                self.give_back(node);
                alarm.0 = NONE;
            }
            (node, Some(tick)) if self.node(node).tick == tick => {}
            (node, Some(tick)) => {
                self.unlink(node);
                self.node_mut(node).tick = tick;
                self.place(node);
            }
        }
    }

    /// Do one thing that is to be done by this time.
    pub(super) fn step(&mut self, wall: WallTime) -> Step {
        let target = wall.0 >> TICK_BITS;
        if self.is_ahead_of(target) {
            self.turn_back(target);
        }
        if self.timers == 0 {
            self.now = self.now.max(target);
            return Step::Idle;
        }
        if self.first(UNPLACED).is_some() {
            return self.move_first(UNPLACED);
        }
        let Some((level, slot, start)) = self.next_slot() else { unreachable!("a timer is in some slot") };
        if start > target {
            // No timer lies between, so all of them stay in their slots.
            self.now = self.now.max(target);
            return Step::Idle;
        }
        self.now = self.now.max(start);
        let list = (level * SLOTS + slot) as u32;
        match self.first(list) {
            None => {
                self.occupied[level] &= !(1 << slot);
                Step::Moved
            }
            Some(node) if level == 0 => {
                self.unlink(node);
                let &Node { token, partition, .. } = self.node(node);
                self.give_back(node);
                Step::Due { alarm: Alarm(node), partition: PartitionId(partition), token }
            }
            Some(_) => self.move_first(list),
        }
    }

    /// From when on a step has something to do; `wall`, or before, if it has now.
    pub(super) fn next(&self, wall: WallTime) -> Option<WallTime> {
        if self.timers == 0 {
            return None;
        }
        if self.is_ahead_of(wall.0 >> TICK_BITS) || self.first(UNPLACED).is_some() {
            return Some(wall);
        }
        self.next_slot().map(|(_, _, start)| WallTime(start << TICK_BITS))
    }

    /// How many are set.
    pub(super) const fn timers(&self) -> usize {
        self.timers
    }

    /// What it costs in memory, as the allocator gives it out.
    pub(super) fn memory(&self) -> usize {
        let list = cost::allocated(self.blocks.capacity() * size_of::<Box<[Node]>>());
        let blocks = self.blocks.len() * cost::allocated(BLOCK * size_of::<Node>());
        cost::allocated(HEADS * size_of::<Node>()) + list + blocks
    }

    /// What one more timer costs.
    pub(super) fn growth(&self) -> usize {
        let block = cost::allocated(BLOCK * size_of::<Node>()) + cost::growth_of_list(&self.blocks);
        if self.free == NONE { block } else { 0 }
    }

    /// Has the clock gone back, so that new timers would wait for it?
    const fn is_ahead_of(&self, target: u64) -> bool {
        target + BACK_MAX < self.now
    }

    /// The slot to look into next: its level, its number, and the tick at which it begins.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        let slot_at = |level: usize, slot: usize| {
            let shift = DIGIT_BITS * level as u32;
            let above = self.now >> (shift + DIGIT_BITS) << (shift + DIGIT_BITS);
            (level, slot, above | (slot as u64) << shift)
        };
        // What the wheel has come to goes down first, from above: it may be due before all that lies below.
        for level in (1..LEVELS).rev() {
            let slot = self.digit(level);
            if self.occupied[level] >> slot & 1 == 1 {
                return Some(slot_at(level, slot));
            }
        }
        (0..LEVELS).find_map(|level| {
            let digit = self.digit(level);
            let ahead = self.occupied[level] >> digit;
            (ahead != 0).then(|| slot_at(level, digit + ahead.trailing_zeros() as usize))
        })
    }

    /// The wheel's own digit of a level.
    const fn digit(&self, level: usize) -> usize {
        (self.now >> (DIGIT_BITS * level as u32)) as usize % SLOTS
    }

    /// Put a timer into the slot where it belongs.
    fn place(&mut self, node: u32) {
        let tick = self.node(node).tick.max(self.now);
        let differing = tick ^ self.now;
        let level = if differing == 0 { 0 } else { differing.ilog2() / DIGIT_BITS } as usize;
        let slot = (tick >> (DIGIT_BITS * level as u32)) as usize % SLOTS;
        self.occupied[level] |= 1 << slot;
        self.link_last((level * SLOTS + slot) as u32, node);
    }

    fn move_first(&mut self, list: u32) -> Step {
        if let Some(node) = self.first(list) {
            self.unlink(node);
            self.place(node);
        }
        Step::Moved
    }

    /// The clock has gone back: what lies by a later time is to be put in place again.
    fn turn_back(&mut self, target: u64) {
        for list in 0..UNPLACED {
            if let Some(first) = self.first(list) {
                let last = self.node(list).before;
                let end = self.node(UNPLACED).before;
                (self.node_mut(end).after, self.node_mut(first).before) = (first, end);
                (self.node_mut(last).after, self.node_mut(UNPLACED).before) = (UNPLACED, last);
                let head = self.node_mut(list);
                (head.before, head.after) = (list, list);
            }
        }
        self.occupied = [0; LEVELS];
        self.now = target;
    }

    fn first(&self, list: u32) -> Option<u32> {
        Some(self.node(list).after).filter(|first| *first != list)
    }

    fn link_last(&mut self, list: u32, node: u32) {
        let last = self.node(list).before;
        self.node_mut(last).after = node;
        self.node_mut(list).before = node;
        let linked = self.node_mut(node);
        (linked.before, linked.after) = (last, list);
    }

    fn unlink(&mut self, node: u32) {
        let &Node { before, after, .. } = self.node(node);
        self.node_mut(before).after = after;
        self.node_mut(after).before = before;
    }

    fn take_free(&mut self) -> u32 {
        if self.free == NONE {
            let first = HEADS + self.blocks.len() * BLOCK;
            assert!(first + BLOCK < NONE as usize, "a shard has fewer keys than a word has numbers");
            let following = |at: usize| if at + 1 < BLOCK { (first + at + 1) as u32 } else { NONE };
            let free = |at| Node { tick: 0, token: 0, partition: 0, before: NONE, after: following(at) };
            self.blocks.push((0..BLOCK).map(free).collect());
            self.free = first as u32;
        }
        let node = self.free;
        self.free = self.node(node).after;
        node
    }

    /// A timer that is in no list any more.
    fn give_back(&mut self, node: u32) {
        let free = self.free;
        self.node_mut(node).after = free;
        self.free = node;
        self.timers -= 1;
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

/// The first tick that begins at this time or later; `None` for the last of all times, which don't come.
const fn tick_at_last(at: WallTime) -> Option<u64> {
    let tick = at.0.div_ceil(1 << TICK_BITS);
    if tick >> (u64::BITS - TICK_BITS) == 0 { Some(tick) } else { None }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::prng::Prng;

    const P: PartitionId = PartitionId(3);
    const TICK: u64 = 1 << TICK_BITS;
    const SECOND: u64 = 1_000_000;
    const DAY: u64 = 86_400 * SECOND;
    const NOW: u64 = 1_700_000_000 * SECOND;

    /// A wheel beside a plain list of what it should hold, by token.
    struct Model {
        wheel: Wheel,
        set: BTreeMap<u64, (Alarm, u64)>,
    }

    impl Model {
        fn new() -> Self {
            Self { wheel: Wheel::new(), set: BTreeMap::new() }
        }

        fn set(&mut self, token: u64, at: u64) {
            let (alarm, time) = self.set.entry(token).or_default();
            *time = at;
            self.wheel.set(alarm, Some(WallTime(at)), P, token);
        }

        fn unset(&mut self, token: u64) {
            if let Some((mut alarm, _)) = self.set.remove(&token) {
                self.wheel.set(&mut alarm, None, P, token);
                assert_eq!(alarm, Alarm::default());
            }
        }

        /// All that is due, until the wheel has nothing to do: how many steps that took.
        fn run(&mut self, wall: u64) -> usize {
            for steps in 0.. {
                match self.wheel.step(WallTime(wall)) {
                    Step::Idle => return steps,
                    Step::Moved => {}
                    Step::Due { alarm, partition, token } => {
                        let (own, at) = self.set.remove(&token).expect("due once, and only if it is set");
                        assert_eq!((own, partition), (alarm, P));
                        assert!(at <= wall, "{token} was due at {at}, and now is {wall}");
                    }
                }
            }
            unreachable!("it ends")
        }

        /// Is nothing left that was due for longer than a tick and what the clock may go back?
        fn is_done(&self, wall: u64) -> bool {
            self.set.values().all(|(_, at)| at + (BACK_MAX + 2) * TICK > wall)
        }
    }

    #[test]
    fn each_is_due_once_its_time_has_come_and_not_before() {
        let mut model = Model::new();
        model.run(NOW);
        for (token, wait) in
            [(1, 1), (2, TICK), (3, SECOND), (4, 70 * SECOND), (5, 400 * DAY), (6, u64::MAX - NOW)]
        {
            model.set(token, NOW + wait);
        }
        let mut left = |wall: u64| {
            model.run(wall);
            model.set.keys().copied().collect::<Vec<_>>()
        };
        assert_eq!(left(NOW), [1, 2, 3, 4, 5, 6]);
        assert_eq!(left(NOW + 2 * TICK), [3, 4, 5, 6]);
        assert_eq!(left(NOW + SECOND + TICK), [4, 5, 6]);
        assert_eq!(left(NOW + 70 * SECOND - 1), [4, 5, 6]);
        assert_eq!(left(NOW + 71 * SECOND), [5, 6]);
        assert_eq!(left(NOW + 401 * DAY), [6]);
        assert_eq!(left(u64::MAX), [6], "the end of time does not come");
    }

    #[test]
    fn a_timer_that_was_moved_or_taken_back_is_not_due() {
        let mut model = Model::new();
        model.run(NOW);
        model.set(1, NOW + SECOND);
        model.set(1, NOW + 9 * SECOND);
        model.set(2, NOW + SECOND);
        model.unset(2);
        model.set(3, NOW + 9 * SECOND);
        model.set(3, NOW + SECOND);
        model.run(NOW + 2 * SECOND);
        assert_eq!(model.set.keys().copied().collect::<Vec<_>>(), [1]);
        model.run(NOW + 10 * SECOND);
        assert!(model.set.is_empty());
        assert_eq!(model.wheel.next(WallTime(NOW + 10 * SECOND)), None);
    }

    /// A step is all that a turn must take, whatever the clock did and however many timers there are.
    #[test]
    fn a_clock_that_jumps_stalls_nothing_and_loses_nothing() {
        let mut model = Model::new();
        model.run(NOW);
        (0..10_000).for_each(|token| model.set(token, NOW + (token + 1) * SECOND));
        let steps = model.run(NOW + 400 * DAY);
        assert!(model.set.is_empty());
        assert!(steps <= 10_000 * LEVELS + HEADS, "{steps} steps: it doesn't walk through the days");

        // And back: what is set now is due by the clock of now, not in 400 days.
        (0..10_000).for_each(|token| model.set(token, NOW + 500 * DAY + token));
        model.set(20_000, NOW + SECOND);
        assert_eq!(
            model.wheel.next(WallTime(NOW)),
            Some(WallTime(NOW)),
            "there is something to put in place"
        );
        let steps = model.run(NOW);
        assert!(steps <= 10_001 + HEADS, "{steps} steps: each is put in place once");
        model.run(NOW + 2 * SECOND);
        assert_eq!(model.set.len(), 10_000);
        model.run(NOW + 501 * DAY);
        assert!(model.set.is_empty());
    }

    #[test]
    fn it_says_when_it_has_something_to_do() {
        let mut model = Model::new();
        model.run(NOW);
        model.set(1, NOW + 3 * DAY);
        let (mut wall, mut wakes) = (NOW, 0);
        while !model.set.is_empty() {
            let next = model.wheel.next(WallTime(wall)).expect("a timer is set");
            assert!(
                next.0 <= NOW + 3 * DAY + TICK && wakes < 2 * LEVELS,
                "woken {wakes} times, at last for {next:?}"
            );
            wall = wall.max(next.0);
            model.run(wall);
            wakes += 1;
        }
        assert!((NOW + 3 * DAY..NOW + 3 * DAY + TICK).contains(&wall));
    }

    #[test]
    fn what_is_taken_back_makes_room_for_others() {
        let mut model = Model::new();
        model.run(NOW);
        for round in 0..10 {
            (0..3000).for_each(|token| model.set(token, NOW + (token + round) * SECOND));
            (0..3000).for_each(|token| model.unset(token));
        }
        assert_eq!(model.wheel.blocks.len(), 3);
        assert_eq!(size_of::<Node>(), 32);
    }

    /// Random timers, moves and jumps of the clock, against the plain list.
    #[test]
    fn nothing_is_lost_or_early_whatever_the_clock_does() {
        for seed in 0..200 {
            let mut prng = Prng::from_seed(seed);
            let mut model = Model::new();
            let mut wall = NOW;
            for _ in 0..400 {
                match prng.next_u64() % 10 {
                    0..=4 => {
                        let wait = prng.next_u64() >> (20 + prng.next_u64() % 40);
                        model.set(prng.next_u64() % 50, wall.saturating_add(wait));
                    }
                    5 => model.unset(prng.next_u64() % 50),
                    6 => wall = wall.saturating_sub(prng.next_u64() % (2 * DAY)),
                    7 => wall = wall.saturating_sub(prng.next_u64() % (5 * SECOND)),
                    8 => wall += prng.next_u64() % (400 * DAY),
                    _ => wall += prng.next_u64() % (5 * SECOND),
                }
                if prng.next_u64().is_multiple_of(2) {
                    // Not all the way: a turn has so many steps.
                    for _ in 0..3 {
                        if let Step::Due { token, .. } = model.wheel.step(WallTime(wall)) {
                            let (_, at) = model.set.remove(&token).unwrap();
                            assert!(at <= wall, "seed {seed}");
                        }
                    }
                } else {
                    model.run(wall);
                    assert!(model.is_done(wall), "seed {seed}");
                }
            }
        }
    }
}
