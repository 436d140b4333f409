//! An operator's word about a member: taken or refused by shard 0, which keeps the records.

use std::collections::BTreeMap;

use ringmain_schema::Frame;
use ringmain_schema::message::{Change, Changed, ErrorCode, Move as WireMove, What};

use crate::failpoint::Failpoints;
use crate::id::ShardId;
use crate::membership::{Health, Intent, Outcome, Refused, Word};
use crate::ring::Move;
use crate::time::{Duration, Instant, Now};

use super::Shard;
use super::answer::Origin;
use super::deadlines::Due;
use super::io::Output;

/// Words whose records may be on their way to stable storage.
const WORDS_MAX: usize = 64;

/// Words that were taken and not answered yet.
#[derive(Debug, Default)]
pub(super) struct Words {
    last: u64,
    /// In the order in which they were taken, which is that of their records.
    waiting: BTreeMap<u64, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    record: u64,
    due: Instant,
    origin: Origin,
    changed: Changed,
}

impl Words {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl<F: Failpoints> Shard<F> {
    /// A change of members, or a question what it would move. `cap` bounds its budget, where it was passed on.
    pub(super) fn on_change(
        &mut self,
        now: Now,
        origin: Origin,
        frame: &Frame<'_>,
        cap: Option<Duration>,
        out: &mut Output,
    ) {
        if self.view.is_fenced() {
            let message = self.view.why_not_serving();
            return self.answer_code(out, origin, ErrorCode::NotServing, &message);
        }
        let change = match Change::parse(frame) {
            Ok(change) => change,
            Err(error) => return self.answer_code(out, origin, ErrorCode::BadRequest, &error.to_string()),
        };
        // A founder that is lost for good would be waited for in vain: before all have met, that much can be said.
        if !self.view.is_serving() && !matches!(change.what, What::Remove | What::Replace) {
            let message = format!("{}; a member that won't come can be removed", self.view.why_not_serving());
            return self.answer_code(out, origin, ErrorCode::NotServing, &message);
        }
        if self.membership.is_none() {
            let budget = self.budget(0, cap);
            return self.relay_to_sibling(now, origin, frame, ShardId(0), budget, out);
        }
        if self.words.waiting.len() >= WORDS_MAX {
            return self.answer_code(
                out,
                origin,
                ErrorCode::Overloaded,
                "too many changes at once: try again",
            );
        }
        match self.take_word(now, &change, out) {
            Ok(changed) if change.plan_only => self.answer_word(origin, &changed, out),
            Ok(changed) => self.answer_when_durable(now, origin, changed, cap, out),
            Err(refused) => self.answer_code(out, origin, ErrorCode::BadRequest, &refused.to_string()),
        }
    }

    fn answer_word(&mut self, origin: Origin, changed: &Changed, out: &mut Output) {
        self.answer(out, origin, |encoder, id, flags, bytes| changed.encode(encoder, id, flags, bytes));
    }

    /// Whoever hears that a word was taken may count on it: it must outlive a crash right after. One that changes nothing
    /// waits too, for the record of the one that it repeats.
    fn answer_when_durable(
        &mut self,
        now: Now,
        origin: Origin,
        changed: Changed,
        cap: Option<Duration>,
        out: &mut Output,
    ) {
        let record = self.appends.members;
        if self.is_durable(record) {
            return self.answer_word(origin, &changed, out);
        }
        let due = now.monotonic + self.budget(0, cap);
        self.words.last += 1;
        self.deadlines.add(due, Due::Word(self.words.last));
        self.words.waiting.insert(self.words.last, Waiting { record, due, origin, changed });
    }

    /// More of the log is on stable storage.
    pub(super) fn answer_words(&mut self, out: &mut Output) {
        let durable = self.appends.durable;
        let is_durable = |waiting: &Waiting| waiting.record <= durable;
        while let Some(first) = self.words.waiting.first_entry().filter(|first| is_durable(first.get())) {
            let (number, Waiting { due, origin, changed, .. }) = first.remove_entry();
            self.deadlines.remove(due, Due::Word(number));
            self.answer_word(origin, &changed, out);
        }
    }

    /// The log has not taken it in time: the others have heard of it, and this node may forget that it was the one to
    /// say so.
    pub(super) fn on_word_due(&mut self, number: u64, out: &mut Output) {
        if let Some(Waiting { origin, .. }) = self.words.waiting.remove(&number) {
            let message = "the change was told to the others, and is not on stable storage here: say it again, which \
                           does no harm";
            self.answer_code(out, origin, ErrorCode::MaybeApplied, message);
        }
    }

    fn take_word(&mut self, now: Now, change: &Change<'_>, out: &mut Output) -> Result<Changed, Refused> {
        let word = word(change);
        if change.plan_only {
            let membership = self.membership.as_ref().expect("shard 0 keeps the records");
            let outcome = membership.consider(&word)?;
            return Ok(self.changed(&outcome, false));
        }
        if !change.force {
            self.check_out_of_reach(now, &word)?;
        }
        let outcome = self.change_members(&word, out)?;
        Ok(self.changed(&outcome, !outcome.changed.is_empty()))
    }

    /// Take an operator's word, and tell the others. Only shard 0, which keeps the records, can.
    ///
    /// # Panics
    ///
    /// On another shard.
    pub fn change_members(&mut self, word: &Word, out: &mut Output) -> Result<Outcome, Refused> {
        let membership = self.membership.as_mut().expect("shard 0 keeps the records");
        let before = membership.oneself().clone();
        let outcome = membership.change(word)?;
        if !outcome.changed.is_empty() {
            self.on_membership_changed(&before, out);
            self.push_gossip(out);
        }
        Ok(outcome)
    }

    /// Whoever can be reached has something to hand over.
    fn check_out_of_reach(&self, now: Now, word: &Word) -> Result<(), Refused> {
        let removed = word.removes().and_then(|name| {
            let mut members = self.view.members.iter();
            members.find(|member| *member.name == *name && member.intent != Intent::Removed)
        });
        let Some(removed) = removed else { return Ok(()) };
        if removed.node == self.view.me || self.detector.health(now.monotonic, removed.node) == Health::Up {
            return Err(Refused::CanBeReached { name: removed.name.to_string() });
        }
        Ok(())
    }

    fn changed(&self, outcome: &Outcome, applied: bool) -> Changed {
        let plan = &outcome.plan;
        Changed {
            applied,
            version: outcome.changed.iter().map(|member| member.intent_version).max().unwrap_or(0),
            partitions: plan.partitions.count(),
            replicas_wanted: self.options.replicas,
            replicas: plan.replicas as u8,
            streamed: plan.streamed(),
            least: plan.least(),
            moves: plan.moves.iter().map(|moved| self.wire_move(outcome, moved)).collect(),
        }
    }

    fn wire_move(&self, outcome: &Outcome, moved: &Move) -> WireMove {
        let changed = outcome.changed.iter().find(|member| member.node == moved.node);
        let member = changed.or_else(|| self.view.member(moved.node)).expect("rings are of members");
        WireMove {
            node: moved.node.0,
            name: member.name.to_string(),
            weight: member.weight,
            before: moved.before,
            after: moved.after,
            gains: moved.gains,
            loses: moved.loses,
            fair_milli: (moved.fair * 1000.0).round() as u32,
        }
    }
}

fn word(change: &Change<'_>) -> Word {
    let name = change.name.to_owned();
    match change.what {
        What::Join => Word::Join { name, weight: (change.weight > 0).then_some(change.weight) },
        What::Leave => Word::Leave { name },
        What::Remove => Word::Remove { name },
        What::Replace => Word::Replace { old: name, new: change.new_name.to_owned() },
        What::Weight => Word::Weight { name, weight: change.weight },
    }
}
