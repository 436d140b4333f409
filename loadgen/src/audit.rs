//! Turns operations into requests and answers into judgements: values are made and verified here, and the
//! ledger is kept. Pure: no socket, no clock.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Moment;
use crate::key_names::KeyNames;
use crate::ledger::{Consistency, Effect, Ledger, ReadTicket, Seen, Verdict};
use crate::operation::{Kind, Operation};
use crate::outcome::{Failure, Outcome};
use crate::target::{Applied, Trouble};
use crate::value::Values;

/// What a run needs to know to judge answers.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The numbers of all keys.
    pub keys: Range<u64>,
    /// What they are called in the store.
    pub names: KeyNames,
    /// No value is shorter, in bytes.
    pub length_min: u32,
    /// Differs from run to run against the same servers.
    pub run_tag: u64,
    /// What a read behind an acknowledged write means.
    pub consistency: Consistency,
    /// Until when a write of unknown outcome may take effect.
    pub in_doubt: InDoubt,
    /// The store may forget any value, so a read that finds nothing is never behind.
    pub may_evict: bool,
}

/// Until when a write of unknown outcome may take effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InDoubt {
    /// Up to so long after it was sent, or after it failed for as long as half of that, if this is later: servers honour
    /// their budget, but their clocks are their own. Twice a request's deadline.
    UpTo(Duration),
    /// At any time: the servers know no deadlines.
    ForEver,
}

/// The books of a run.
#[derive(Debug)]
pub struct Audit {
    rules: Rules,
    values: Values,
    ledger: Ledger,
    complaints: Vec<String>,
    /// What the target said to failures, by their kind and by its own word for it.
    reasons: BTreeMap<(usize, String), Reason>,
    /// Reads that found nothing where something was acknowledged, where that is allowed.
    evicted: u64,
}

/// What the target said to failures of one kind.
#[derive(Debug)]
struct Reason {
    count: u64,
    /// The first time.
    words: String,
}

/// What to ask a target for.
#[derive(Clone, Debug)]
pub enum Request {
    /// Get this key.
    Get(Bytes),
    /// Put this value on this key, for ever or for so long.
    Put(Bytes, Bytes, Option<Duration>),
    /// Delete this key.
    Delete(Bytes),
}

/// An operation on its way. It must be given back to [`Audit::settle`].
#[must_use = "an operation that is never settled stays in flight for ever"]
#[derive(Debug)]
pub struct Pending {
    operation: Operation,
    sent: Moment,
    ticket: Option<ReadTicket>,
}

/// What a target answered: for a read what it found, for writes and deletes `None`.
pub type Answer = Result<Option<Bytes>, Trouble>;

/// So many broken promises are described; all are counted.
const COMPLAINTS_MAX: usize = 10;
/// So many kinds of failure are told apart: the words are the target's.
const REASONS_MAX: usize = 32;

impl Audit {
    /// Empty books.
    pub fn new(rules: Rules) -> Self {
        let values = Values::new(rules.run_tag, rules.length_min);
        let ledger = Ledger::new(rules.keys.clone());
        Self { rules, values, ledger, complaints: Vec::new(), reasons: BTreeMap::new(), evicted: 0 }
    }

    /// Enters an operation that is sent now.
    pub fn issue(&mut self, operation: Operation, now: Moment) -> (Request, Pending) {
        let Operation { number, key, .. } = operation;
        let mut ticket = None;
        let text = self.rules.names.text(key);
        let request = match operation.kind {
            Kind::Read => {
                ticket = Some(self.ledger.read_issued(key));
                Request::Get(text)
            }
            Kind::Write => {
                let effect = Effect::of_value(operation.lifetime);
                self.ledger.write_issued(key, number, effect, now);
                let value = self.values.fill(key, number, operation.value_len);
                Request::Put(text, value, operation.lifetime)
            }
            Kind::Delete => {
                self.ledger.write_issued(key, number, Effect::Absent, now);
                Request::Delete(text)
            }
        };
        (request, Pending { operation, sent: now, ticket })
    }

    /// Judges an operation's answer, which arrived at `done`.
    pub fn settle(&mut self, pending: Pending, answer: Answer, done: Moment) -> Outcome {
        if let Err(trouble) = &answer {
            self.note(trouble);
        }
        match pending.ticket {
            Some(ticket) => self.settle_read(&pending.operation, ticket, answer, done),
            None => self.settle_write(&pending, answer.as_ref().err(), done),
        }
    }

    /// The first broken promises, each in a sentence.
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    /// For each way of failing that occurred, what the target said the first time.
    pub fn reasons(&self) -> impl Iterator<Item = String> {
        self.reasons.iter().map(|((failure, code), Reason { count, words })| {
            let failure = Failure::ALL[*failure];
            match code.as_str() {
                "" => format!("{failure}, the first time: {words}"),
                code => format!("{failure}, {count} of them {code}, the first time: {words}"),
            }
        })
    }

    /// Reads that found nothing where something was acknowledged, if the store may evict.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    fn note(&mut self, trouble: &Trouble) {
        let kind = (trouble.failure.index(), trouble.code.clone());
        if self.reasons.len() < REASONS_MAX || self.reasons.contains_key(&kind) {
            let words = || Reason { count: 0, words: trouble.reason.clone() };
            self.reasons.entry(kind).or_insert_with(words).count += 1;
        }
    }

    fn settle_read(
        &mut self,
        operation: &Operation,
        ticket: ReadTicket,
        answer: Answer,
        done: Moment,
    ) -> Outcome {
        let key = operation.key;
        let seen = match answer {
            Err(trouble) => {
                self.ledger.read_failed(ticket);
                return Outcome::Failed(trouble.failure);
            }
            Ok(None) => Seen::NotFound,
            Ok(Some(value)) => match self.values.verify(key, &value) {
                Ok(verified) => Seen::Value(verified),
                Err(wrong) => {
                    self.ledger.read_failed(ticket);
                    return self.broken(operation, Failure::Wrong, &wrong.to_string());
                }
            },
        };
        let verdict = self.ledger.read_answered(ticket, seen, done);
        match (verdict, self.rules.consistency) {
            (Verdict::Right, _) if seen == Seen::NotFound => Outcome::NotFound,
            (Verdict::Right, _) => Outcome::Done,
            (Verdict::Behind, _) if seen == Seen::NotFound && self.rules.may_evict => {
                self.evicted += 1;
                Outcome::NotFound
            }
            (Verdict::Behind, Consistency::Eventual) => Outcome::Stale,
            (Verdict::Behind, Consistency::Strict) => {
                let reason = format!("it brought {seen:?}, which misses a write acknowledged before");
                self.broken(operation, Failure::Lost, &reason)
            }
            (Verdict::Phantom, _) => {
                let reason = format!("it brought {seen:?}, which was reported as not applied");
                self.broken(operation, Failure::Wrong, &reason)
            }
        }
    }

    fn settle_write(&mut self, pending: &Pending, trouble: Option<&Trouble>, done: Moment) -> Outcome {
        let Operation { key, number, .. } = pending.operation;
        match trouble {
            None => {
                self.ledger.write_acknowledged(key, number, done);
                Outcome::Done
            }
            Some(&Trouble { failure, applied: Applied::No, .. }) => {
                self.ledger.write_refused(key, number, done);
                Outcome::Failed(failure)
            }
            Some(&Trouble { failure, applied: Applied::Maybe, .. }) => {
                self.ledger.write_unknown(key, number, self.rules.in_doubt.end(pending.sent, done));
                Outcome::Failed(failure)
            }
            Some(&Trouble { failure, applied: Applied::Dropped, .. }) => {
                self.ledger.write_dropped(key, number, done);
                Outcome::Failed(failure)
            }
        }
    }

    fn broken(&mut self, operation: &Operation, failure: Failure, reason: &str) -> Outcome {
        if self.complaints.len() < COMPLAINTS_MAX {
            let Operation { number, key, .. } = operation;
            self.complaints.push(format!("{failure}: operation {number} read key {}: {reason}", key.0));
        }
        Outcome::Failed(failure)
    }
}

impl InDoubt {
    fn end(self, sent: Moment, done: Moment) -> Moment {
        match self {
            Self::UpTo(span) => (sent + span).max(done + span / 2),
            Self::ForEver => Moment::NEVER,
        }
    }
}

impl Pending {
    /// The operation as it was scheduled.
    pub fn operation(&self) -> &Operation {
        &self.operation
    }

    /// When it was sent.
    pub fn sent(&self) -> Moment {
        self.sent
    }
}

#[cfg(test)]
mod tests {
    use crate::operation::Key;

    use super::*;

    fn audit(consistency: Consistency) -> Audit {
        Audit::new(rules(consistency))
    }

    fn rules(consistency: Consistency) -> Rules {
        let in_doubt = InDoubt::UpTo(Duration::from_nanos(200));
        let names = KeyNames::default();
        Rules { keys: 0..4, names, length_min: 64, run_tag: 1, consistency, in_doubt, may_evict: false }
    }

    fn operation(number: u64, kind: Kind) -> Operation {
        Operation { number, kind, key: Key(2), value_len: 64, lifetime: None, due_ns: 0 }
    }

    /// Performs an operation at once; a put's value is what later reads are given.
    fn perform(audit: &mut Audit, number: u64, kind: Kind, answer: Answer) -> (Outcome, Option<Bytes>) {
        let now = Moment(number * 1000);
        let (request, pending) = audit.issue(operation(number, kind), now);
        let value = if let Request::Put(_, value, _) = request { Some(value) } else { None };
        (audit.settle(pending, answer, now + Duration::from_nanos(10)), value)
    }

    #[test]
    fn reads_are_judged_by_what_was_written() {
        let mut audit = audit(Consistency::Strict);
        assert_eq!(perform(&mut audit, 1, Kind::Read, Ok(None)).0, Outcome::NotFound);
        let (_, first) = perform(&mut audit, 2, Kind::Write, Ok(None));
        let (_, second) = perform(&mut audit, 3, Kind::Write, Ok(None));
        assert_eq!(perform(&mut audit, 4, Kind::Read, Ok(second)).0, Outcome::Done);
        assert_eq!(perform(&mut audit, 5, Kind::Read, Ok(first)).0, Outcome::Failed(Failure::Lost));
        assert_eq!(perform(&mut audit, 6, Kind::Read, Ok(None)).0, Outcome::Failed(Failure::Lost));
        let rubbish = Some(Bytes::from_static(&[7; 64]));
        assert_eq!(perform(&mut audit, 7, Kind::Read, Ok(rubbish)).0, Outcome::Failed(Failure::Wrong));
        perform(&mut audit, 8, Kind::Delete, Ok(None));
        assert_eq!(perform(&mut audit, 9, Kind::Read, Ok(None)).0, Outcome::NotFound);
        assert_eq!(audit.complaints().len(), 3, "{:?}", audit.complaints());
    }

    /// Shorter ones too: a sweep over value sizes leaves them behind.
    #[test]
    fn values_of_other_runs_are_sound_until_this_run_overwrites_them() {
        let mut audit = audit(Consistency::Strict);
        for (number, length) in (1..).zip([20, 64, 8]) {
            let other = Values::new(2, 0).fill(Key(2), 5, length);
            let outcome = perform(&mut audit, number, Kind::Read, Ok(Some(other))).0;
            assert_eq!(outcome, Outcome::Done, "length {length}: {:?}", audit.complaints());
        }
        perform(&mut audit, 4, Kind::Write, Ok(None));
        let other = Values::new(2, 0).fill(Key(2), 5, 20);
        assert_eq!(perform(&mut audit, 5, Kind::Read, Ok(Some(other))).0, Outcome::Failed(Failure::Lost));
    }

    #[test]
    fn stale_reads_are_no_error_where_they_are_allowed() {
        let mut audit = audit(Consistency::Eventual);
        perform(&mut audit, 1, Kind::Write, Ok(None));
        assert_eq!(perform(&mut audit, 2, Kind::Read, Ok(None)).0, Outcome::Stale);
        assert!(audit.complaints().is_empty());
    }

    #[test]
    fn failed_writes_are_refused_or_unknown() {
        let trouble = |failure, applied| {
            Err(Trouble { failure, applied, code: String::new(), reason: format!("{failure}!") })
        };
        let mut audit = audit(Consistency::Strict);
        let overloaded = trouble(Failure::Overloaded, Applied::No);
        let (outcome, refused) = perform(&mut audit, 1, Kind::Write, overloaded);
        assert_eq!(outcome, Outcome::Failed(Failure::Overloaded));
        assert_eq!(perform(&mut audit, 2, Kind::Read, Ok(refused)).0, Outcome::Failed(Failure::Wrong));
        let timeout = trouble(Failure::Timeout, Applied::Maybe);
        let (outcome, unknown) = perform(&mut audit, 3, Kind::Write, timeout);
        assert_eq!(outcome, Outcome::Failed(Failure::Timeout));
        assert_eq!(perform(&mut audit, 4, Kind::Read, Ok(None)).0, Outcome::NotFound);
        assert_eq!(perform(&mut audit, 5, Kind::Read, Ok(unknown)).0, Outcome::Done);
        let reasons: Vec<String> = audit.reasons().collect();
        assert_eq!(reasons, ["timeout, the first time: timeout!", "overloaded, the first time: overloaded!"]);
    }

    fn refused(code: &str, words: &str, applied: Applied) -> Answer {
        let (code, reason) = (code.to_owned(), words.to_owned());
        Err(Trouble { failure: Failure::Refused, applied, code, reason })
    }

    /// A cache may forget what it likes, but what it brings must still be right.
    #[test]
    fn where_values_may_be_evicted_a_miss_is_no_lost_write() {
        let mut audit = Audit::new(Rules { may_evict: true, ..rules(Consistency::Strict) });
        let (_, first) = perform(&mut audit, 1, Kind::Write, Ok(None));
        perform(&mut audit, 2, Kind::Write, Ok(None));
        assert_eq!(perform(&mut audit, 3, Kind::Read, Ok(None)).0, Outcome::NotFound);
        assert_eq!(perform(&mut audit, 4, Kind::Read, Ok(first)).0, Outcome::Failed(Failure::Lost));
        perform(&mut audit, 5, Kind::Delete, Ok(None));
        assert_eq!(perform(&mut audit, 6, Kind::Read, Ok(None)).0, Outcome::NotFound);
        assert_eq!(audit.evicted(), 1, "a key that was deleted is not missed");
    }

    /// memcached takes away what was there when it has no room for what shall replace it.
    #[test]
    fn a_write_that_emptied_its_key_is_never_seen_and_excuses_a_miss_until_the_next() {
        let mut audit = audit(Consistency::Strict);
        let (_, first) = perform(&mut audit, 1, Kind::Write, Ok(None));
        let full = refused("SERVER_ERROR", "SERVER_ERROR out of memory", Applied::Dropped);
        let (outcome, dropped) = perform(&mut audit, 2, Kind::Write, full);
        assert_eq!(outcome, Outcome::Failed(Failure::Refused));
        assert_eq!(perform(&mut audit, 3, Kind::Read, Ok(None)).0, Outcome::NotFound);
        assert_eq!(perform(&mut audit, 4, Kind::Read, Ok(first)).0, Outcome::Done, "or it was kept");
        assert_eq!(perform(&mut audit, 5, Kind::Read, Ok(dropped)).0, Outcome::Failed(Failure::Wrong));
        perform(&mut audit, 6, Kind::Write, Ok(None));
        assert_eq!(perform(&mut audit, 7, Kind::Read, Ok(None)).0, Outcome::Failed(Failure::Lost));
    }

    /// What stands in a socket's buffer is carried out whenever the server comes to it.
    #[test]
    fn servers_without_deadlines_may_apply_a_write_in_doubt_at_any_time() {
        for (in_doubt, outcome) in [
            (InDoubt::ForEver, Outcome::Done),
            (InDoubt::UpTo(Duration::from_nanos(200)), Outcome::Failed(Failure::Lost)),
        ] {
            let mut audit = Audit::new(Rules { in_doubt, ..rules(Consistency::Strict) });
            let (_, late) = perform(&mut audit, 1, Kind::Write, refused("", "no answer", Applied::Maybe));
            perform(&mut audit, 2, Kind::Write, Ok(None));
            assert_eq!(perform(&mut audit, 3, Kind::Read, Ok(late)).0, outcome, "{in_doubt:?}");
        }
    }

    #[test]
    fn refusals_are_counted_by_the_servers_own_word_and_told_once() {
        let mut audit = audit(Consistency::Strict);
        for (number, (code, words)) in
            (1..).zip([("OOM", "OOM full"), ("ERR", "ERR what?"), ("OOM", "OOM still full")])
        {
            perform(&mut audit, number, Kind::Write, refused(code, words, Applied::No));
        }
        let reasons: Vec<String> = audit.reasons().collect();
        assert_eq!(
            reasons,
            [
                "refused, 1 of them ERR, the first time: ERR what?",
                "refused, 2 of them OOM, the first time: OOM full"
            ]
        );
        for number in 4..100 {
            perform(&mut audit, number, Kind::Write, refused(&format!("E{number}"), "odd", Applied::No));
        }
        assert_eq!(audit.reasons().count(), REASONS_MAX);
    }
}
