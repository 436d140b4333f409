//! Who waits for which answer on one connection: a slab with generations.
//!
//! A request id is `generation << 32 | place`. Taking a slot, finding it and giving it back are a few array
//! accesses, without hashing and, once the slab has grown, without allocating. The generation counts how
//! often a place was used, so that an answer that comes after its waiter has gone finds nobody. Generations
//! start at 1: no request id is below 2^32, which leaves small ids to the handshake and to pings.

use std::task::{Context, Poll, Waker};

use tokio::time::Instant;

use super::Outcome;

/// A request's name on its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RequestId(pub(super) u64);

impl RequestId {
    fn new(generation: u32, place: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(place))
    }

    fn place(self) -> usize {
        (self.0 & u64::from(u32::MAX)) as usize
    }

    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// One place of the slab.
#[derive(Debug)]
struct Slot {
    generation: u32,
    state: State,
    /// When to give up; `None` for a subscription.
    deadline: Option<Instant>,
    /// Where the request's frame ends in the stream of this connection's bytes.
    frame_end: u64,
}

#[derive(Debug)]
enum State {
    /// The next vacant place, or `NONE`.
    Vacant(u32),
    /// Nothing came yet. The waker is missing until the waiter is polled.
    Waiting(Option<Waker>),
    /// To be picked up by its waiter.
    Settled(Outcome),
}

const NONE: u32 = u32::MAX;

/// All waiters of a connection.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    vacant: u32,
    /// Slots that are `Waiting` and have a deadline.
    waiting: usize,
    /// Slots without a deadline, in any state but `Vacant`.
    subscriptions: usize,
    /// No waiting slot has a deadline before this.
    earliest: Option<Instant>,
}

impl Default for Slots {
    fn default() -> Self {
        Self { slots: Vec::new(), vacant: NONE, waiting: 0, subscriptions: 0, earliest: None }
    }
}

impl Slots {
    /// Requests that wait for their answer; subscriptions are not counted.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Subscriptions that are held.
    pub(super) fn subscriptions(&self) -> usize {
        self.subscriptions
    }

    /// No deadline comes before this one; `None` if nobody has one.
    pub(super) fn earliest(&self) -> Option<Instant> {
        self.earliest
    }

    /// Take a slot. The frame's end is told later, by [`Self::set_frame_end`].
    pub(super) fn insert(&mut self, deadline: Option<Instant>) -> RequestId {
        if deadline.is_some() {
            self.waiting += 1;
            self.earliest = self.earliest.min(deadline).or(deadline);
        } else {
            self.subscriptions += 1;
        }
        let state = State::Waiting(None);
        if self.vacant == NONE {
            let place =
                u32::try_from(self.slots.len()).expect("requests in flight are bounded far below 2^32");
            self.slots.push(Slot { generation: 1, state, deadline, frame_end: 0 });
            return RequestId::new(1, place);
        }
        let place = self.vacant;
        let slot = &mut self.slots[place as usize];
        let State::Vacant(next) = slot.state else {
            unreachable!("the list of vacant places holds vacant places")
        };
        self.vacant = next;
        *slot = Slot { generation: slot.generation, state, deadline, frame_end: 0 };
        RequestId::new(slot.generation, place)
    }

    /// Where the frame of a request that was just inserted ends.
    pub(super) fn set_frame_end(&mut self, id: RequestId, frame_end: u64) {
        if let Some(slot) = self.find(id) {
            slot.frame_end = frame_end;
        }
    }

    /// Is this a subscription that somebody holds?
    pub(super) fn is_subscription(&mut self, id: RequestId) -> bool {
        self.find(id).is_some_and(|slot| slot.deadline.is_none())
    }

    /// Does anybody still wait for this?
    pub(super) fn is_waiting(&mut self, id: RequestId) -> bool {
        self.find(id).is_some_and(|slot| matches!(slot.state, State::Waiting(_)))
    }

    /// An answer came. Returns whom to wake, once the lock is released. An answer that nobody waits for is
    /// dropped; a subscription keeps the latest only.
    pub(super) fn settle(&mut self, id: RequestId, outcome: Outcome) -> Option<Waker> {
        let slot = self.find(id)?;
        let has_deadline = slot.deadline.is_some();
        if has_deadline && matches!(slot.state, State::Settled(_)) {
            return None;
        }
        let before = std::mem::replace(&mut slot.state, State::Settled(outcome));
        self.waiting -= usize::from(has_deadline);
        match before {
            State::Waiting(waker) => waker,
            _ => None,
        }
    }

    /// Pick up what came. A subscription stays; any other slot is free afterwards.
    pub(super) fn poll(&mut self, id: RequestId, context: &Context<'_>) -> Poll<Outcome> {
        let slot = self.find(id).expect("a waiter holds its slot until it has its outcome");
        if let State::Waiting(waker) = &mut slot.state {
            match waker {
                Some(waker) => waker.clone_from(context.waker()),
                None => *waker = Some(context.waker().clone()),
            }
            return Poll::Pending;
        }
        let is_subscription = slot.deadline.is_none();
        let State::Settled(outcome) = std::mem::replace(&mut slot.state, State::Waiting(None)) else {
            unreachable!("a slot that is found is not vacant")
        };
        if !is_subscription {
            // The state is `Waiting` now, and a waiter that goes uncounts itself.
            self.waiting += 1;
            self.release(id);
        }
        Poll::Ready(outcome)
    }

    /// Nobody waits any longer.
    pub(super) fn release(&mut self, id: RequestId) {
        let Some(slot) = self.find(id) else { return };
        let has_deadline = slot.deadline.is_some();
        let was_waiting = matches!(slot.state, State::Waiting(_));
        slot.generation = slot.generation.wrapping_add(1).max(1);
        let vacant = std::mem::replace(&mut self.vacant, id.place() as u32);
        self.slots[id.place()].state = State::Vacant(vacant);
        self.waiting -= usize::from(has_deadline && was_waiting);
        self.subscriptions -= usize::from(!has_deadline);
    }

    /// Settle all whose deadline has passed, and learn the earliest of the others.
    ///
    /// A scan of all places: it runs when `earliest` has passed, and as nearly all requests are answered long
    /// before their deadline, that is about once in the length of a timeout.
    pub(super) fn expire(&mut self, now: Instant, sent: bool, woken: &mut Vec<Waker>) {
        let mut earliest = None;
        self.settle_each(woken, |slot| match slot.deadline {
            Some(deadline) if deadline <= now => Some(Outcome::TimedOut { sent }),
            Some(deadline) => {
                earliest = Some(earliest.map_or(deadline, |other: Instant| other.min(deadline)));
                None
            }
            None => None,
        });
        self.earliest = earliest;
    }

    /// The connection is gone: settle everybody, subscriptions too.
    pub(super) fn fail_all(&mut self, outcome: impl Fn(u64) -> Outcome, woken: &mut Vec<Waker>) {
        self.settle_each(woken, |slot| Some(outcome(slot.frame_end)));
        self.earliest = None;
    }

    fn settle_each(&mut self, woken: &mut Vec<Waker>, mut outcome: impl FnMut(&Slot) -> Option<Outcome>) {
        for slot in &mut self.slots {
            if !matches!(slot.state, State::Waiting(_)) {
                continue;
            }
            let Some(outcome) = outcome(slot) else { continue };
            self.waiting -= usize::from(slot.deadline.is_some());
            if let State::Waiting(Some(waker)) = std::mem::replace(&mut slot.state, State::Settled(outcome)) {
                woken.push(waker);
            }
        }
    }

    fn find(&mut self, id: RequestId) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(id.place())?;
        (slot.generation == id.generation() && !matches!(slot.state, State::Vacant(_))).then_some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn poll(slots: &mut Slots, id: RequestId) -> Poll<Outcome> {
        slots.poll(id, &Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_late_answer_finds_nobody() {
        let (mut slots, deadline) = (Slots::default(), Some(Instant::now()));
        let gone = slots.insert(deadline);
        slots.release(gone);
        let next = slots.insert(deadline);
        assert_eq!(gone.place(), next.place());
        assert!(slots.settle(gone, Outcome::Lost { sent: true }).is_none());
        assert!(poll(&mut slots, next).is_pending(), "the answer to another is not ours");
        slots.settle(next, Outcome::Lost { sent: false });
        assert!(matches!(poll(&mut slots, next), Poll::Ready(Outcome::Lost { sent: false })));
        assert_eq!((slots.waiting(), slots.slots.len()), (0, 1));
    }

    #[test]
    fn deadlines_pass_one_by_one() {
        let (mut slots, start) = (Slots::default(), Instant::now());
        let second = slots.insert(Some(start + Duration::from_secs(2)));
        let first = slots.insert(Some(start + Duration::from_secs(1)));
        let forever = slots.insert(None);
        assert_eq!(slots.earliest(), Some(start + Duration::from_secs(1)));
        slots.expire(start + Duration::from_secs(1), true, &mut Vec::new());
        assert!(poll(&mut slots, first).is_ready() && poll(&mut slots, second).is_pending());
        assert_eq!(slots.earliest(), Some(start + Duration::from_secs(2)));
        assert_eq!((slots.waiting(), slots.subscriptions()), (1, 1));
        slots.fail_all(|_| Outcome::Lost { sent: true }, &mut Vec::new());
        assert!(poll(&mut slots, second).is_ready() && poll(&mut slots, forever).is_ready());
        slots.release(forever);
        assert_eq!((slots.waiting(), slots.subscriptions(), slots.earliest()), (0, 0, None));
    }

    #[test]
    fn a_subscription_keeps_the_latest() {
        let mut slots = Slots::default();
        let id = slots.insert(None);
        slots.settle(id, Outcome::TimedOut { sent: true });
        slots.settle(id, Outcome::Lost { sent: true });
        assert!(matches!(poll(&mut slots, id), Poll::Ready(Outcome::Lost { .. })));
        assert!(poll(&mut slots, id).is_pending());
    }
}
