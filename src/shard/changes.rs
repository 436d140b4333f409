//! An operator's word about a member: taken or refused by shard 0, which keeps the records.

use ringmain_schema::Frame;
use ringmain_schema::message::{Change, Changed, ErrorCode, Move as WireMove, What};

use crate::failpoint::Failpoints;
use crate::id::ShardId;
use crate::membership::{Health, Intent, Outcome, Refused, Word};
use crate::ring::Move;
use crate::time::{Duration, Now};

use super::Shard;
use super::answer::Origin;
use super::io::Output;

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
        let change = match Change::parse(frame) {
            Ok(change) => change,
            Err(error) => return self.answer_code(out, origin, ErrorCode::BadRequest, &error.to_string()),
        };
        // A founder that is lost for good would be waited for in vain: before all have met, that much can be said.
        if !self.view.is_serving() && !matches!(change.what, What::Remove | What::Replace) {
            let message = "this node has not met the others yet: retry, or ask another; one that won't come can be removed";
            return self.answer_code(out, origin, ErrorCode::NotServing, message);
        }
        if self.membership.is_none() {
            let budget = self.budget(0, cap);
            return self.relay_to_sibling(now, origin, frame, ShardId(0), budget, out);
        }
        match self.take_word(now, &change, out) {
            Ok(changed) => self.answer(out, origin, |encoder, id, flags, bytes| {
                changed.encode(encoder, id, flags, bytes);
            }),
            Err(refused) => self.answer_code(out, origin, ErrorCode::BadRequest, &refused.to_string()),
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
