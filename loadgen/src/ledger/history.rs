//! What was written to one key, as far as a read may still ask.

use std::time::Duration;

use crate::clock::Moment;
use crate::value::Verified;

use super::{Effect, Seen, Verdict};

/// One key's history. Small while nothing is in flight.
#[derive(Debug, Default)]
pub(super) enum History {
    /// Nothing was written in this run.
    #[default]
    Untouched,
    /// One acknowledged write is all a read may answer, and nothing is in flight.
    Quiet(Write),
    /// Anything else.
    Busy(Box<Busy>),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Write {
    number: u64,
    issued: Moment,
    /// `issued <= end`; [`Moment::NEVER`] while in flight.
    end: Moment,
    /// `None` if the write was refused.
    effect: Option<Effect>,
}

#[derive(Debug, Default)]
pub(super) struct Busy {
    /// The latest issue moment among all acknowledged writes; [`Moment::FIRST`] if there are none.
    barrier: Moment,
    /// By rising number. Holds at least every write that ended at or after the lowest barrier of all.
    writes: Vec<Write>,
    /// The barriers of reads in flight.
    readers: Vec<Moment>,
}

/// Of refused writes a key remembers so many, the latest: a store that refuses for an hour must not fill memory.
const REFUSED_MAX: usize = 64;
/// A server whose clock is further ahead than this expires values too early.
const CLOCKS_AHEAD_MAX: Duration = Duration::from_secs(1);
const _: () = assert!(size_of::<History>() <= 32, "the ledger's page says how much memory a key takes");

impl History {
    pub(super) fn issue(&mut self, number: u64, effect: Effect, at: Moment) {
        assert!(at > Moment::FIRST, "the first moment is kept for what was there before the run");
        let busy = self.busy();
        assert!(busy.writes.last().is_none_or(|last| last.number < number), "numbers must rise");
        busy.writes.push(Write { number, issued: at, end: Moment::NEVER, effect: Some(effect) });
    }

    pub(super) fn acknowledge(&mut self, number: u64, at: Moment) {
        let busy = self.busy();
        let write = busy.in_flight(number);
        write.end = at;
        let issued = write.issued;
        busy.barrier = busy.barrier.max(issued);
        busy.forget();
        self.settle();
    }

    pub(super) fn refuse(&mut self, number: u64, at: Moment) {
        let busy = self.busy();
        let write = busy.in_flight(number);
        write.end = at;
        write.effect = None;
        busy.forget_refused();
        self.settle();
    }

    /// As a delete whose outcome is unknown, and which is over.
    pub(super) fn empty(&mut self, number: u64, at: Moment) {
        let busy = self.busy();
        let write = busy.in_flight(number);
        write.end = at;
        write.effect = Some(Effect::Absent);
        busy.forget();
        self.settle();
    }

    pub(super) fn give_up(&mut self, number: u64, until: Moment) {
        let busy = self.busy();
        busy.in_flight(number).end = until;
        busy.forget();
        self.settle();
    }

    /// Returns the read's barrier.
    pub(super) fn issue_read(&mut self) -> Moment {
        let busy = self.busy();
        busy.readers.push(busy.barrier);
        busy.barrier
    }

    pub(super) fn end_read(&mut self, barrier: Moment) {
        let busy = self.busy();
        let place = busy.readers.iter().position(|&reader| reader == barrier);
        busy.readers.swap_remove(place.expect("a read in flight is known"));
        // A read at the current barrier kept nothing alive.
        if barrier < busy.barrier {
            busy.forget();
        }
        self.settle();
    }

    pub(super) fn judge(&mut self, barrier: Moment, seen: Seen, at: Moment) -> Verdict {
        let busy = self.busy();
        let before_the_run = barrier == Moment::FIRST;
        let allowed = match seen {
            Seen::Value(Verified::Written(number)) => return busy.judge_written(barrier, number),
            Seen::Value(Verified::OtherRun) => before_the_run,
            Seen::Value(Verified::Anonymous) => {
                before_the_run || busy.allows(barrier, |write| write.effect != Some(Effect::Absent))
            }
            Seen::NotFound => before_the_run || busy.allows(barrier, |write| write.may_be_absent(at)),
        };
        if allowed { Verdict::Right } else { Verdict::Behind }
    }

    fn busy(&mut self) -> &mut Busy {
        match self {
            Self::Busy(_) => {}
            Self::Untouched => *self = Self::Busy(Box::default()),
            Self::Quiet(write) => {
                let busy = Busy { barrier: write.issued, writes: vec![*write], readers: Vec::new() };
                *self = Self::Busy(Box::new(busy));
            }
        }
        let Self::Busy(busy) = self else { unreachable!("just made busy") };
        busy
    }

    fn settle(&mut self) {
        let Self::Busy(busy) = self else { return };
        if !busy.readers.is_empty() {
            return;
        }
        match busy.writes[..] {
            [] if busy.barrier == Moment::FIRST => *self = Self::Untouched,
            [write] if write.issued == busy.barrier && write.effect.is_some() => *self = Self::Quiet(write),
            _ => {}
        }
    }
}

impl Write {
    fn may_be_absent(&self, at: Moment) -> bool {
        match self.effect {
            Some(Effect::Absent) => true,
            Some(Effect::Expiring(tenths)) => {
                let lifetime = Duration::from_millis(u64::from(tenths) * 100);
                at + CLOCKS_AHEAD_MAX >= self.issued + lifetime
            }
            Some(Effect::Value) | None => false,
        }
    }
}

impl Busy {
    fn in_flight(&mut self, number: u64) -> &mut Write {
        let place = self.writes.binary_search_by_key(&number, |write| write.number);
        let write = &mut self.writes[place.expect("an outcome belongs to a write that was issued")];
        assert!(write.end == Moment::NEVER, "write {number} has an outcome already");
        write
    }

    fn judge_written(&self, barrier: Moment, number: u64) -> Verdict {
        match self.writes.binary_search_by_key(&number, |write| write.number) {
            Ok(place) => match self.writes[place] {
                Write { effect: None | Some(Effect::Absent), .. } => Verdict::Phantom,
                Write { end, .. } if end >= barrier => Verdict::Right,
                _ => Verdict::Behind,
            },
            // Only a write to this key makes a value that verifies here: it was known, and was forgotten.
            Err(_) => Verdict::Behind,
        }
    }

    fn allows(&self, barrier: Moment, answers: impl Fn(&Write) -> bool) -> bool {
        let mut applied = self.writes.iter().filter(|write| write.effect.is_some() && write.end >= barrier);
        applied.any(answers)
    }

    /// Drops the writes that no read in flight, and none to come, may answer with.
    fn forget(&mut self) {
        let lowest = self.readers.iter().copied().fold(self.barrier, Moment::min);
        self.writes.retain(|write| write.end >= lowest);
    }

    fn forget_refused(&mut self) {
        let refused = self.writes.iter().filter(|write| write.effect.is_none()).count();
        if refused > REFUSED_MAX {
            let oldest = self.writes.iter().position(|write| write.effect.is_none());
            self.writes.remove(oldest.expect("there are refused writes"));
        }
    }
}
