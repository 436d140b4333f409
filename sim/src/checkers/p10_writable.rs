//! P10: a put succeeds within its deadline if W healthy nodes can be reached, but for documented refusals.
//!
//! Asked of what was called after the faults had stopped and the cluster had had time to recover: there is no
//! excuse then. A write may still be refused because of what it is, or because there are too many of them. And its first
//! attempt must do, or have met such a refusal: that a client tries again is no merit of the cluster.
//!
//! Where a replica's memory is full of what can't be put out, its coordinator counts one copy fewer: too few may be left.

use ringmain_schema::message::ErrorCode;

use super::{Evidence, Promise, Violation};
use crate::history::{Operation, Outcome};

/// Refusals that a healthy cluster may answer a write with.
const DOCUMENTED: [ErrorCode; 3] = [ErrorCode::TooManySiblings, ErrorCode::Overloaded, ErrorCode::TooLarge];

/// And what it may come to if some replica's memory is full meanwhile.
const WITHOUT_ROOM: [ErrorCode; 3] = [ErrorCode::MaybeApplied, ErrorCode::Unavailable, ErrorCode::Overloaded];

/// Does a healthy cluster answer?
pub fn check(evidence: &Evidence<'_>) -> Result<(), Violation> {
    let failed = evidence.history.iter().filter(|(_, operation)| operation.after_faults).find_map(
        |(number, operation)| {
            Some((number, operation, problem(operation, evidence.met_full_memory(operation))?))
        },
    );
    failed.map_or(Ok(()), |(number, operation, problem)| {
        let sentence = format!("#{} was called when all faults had long been over, and {problem}", number.0);
        Err(Violation::at(Promise::AlwaysWritable, operation.key, [number], sentence))
    })
}

fn problem(operation: &Operation, met_full_memory: bool) -> Option<String> {
    let is_documented = |code: &ErrorCode| {
        operation.is_write() && DOCUMENTED.contains(code) || met_full_memory && WITHOUT_ROOM.contains(code)
    };
    if let Some(code) = operation.setback.filter(|code| operation.is_write() && !is_documented(code)) {
        let attempts = operation.attempts;
        return Some(format!("its first attempt of {attempts} came to nothing: {code:?}"));
    }
    match &operation.outcome {
        Outcome::Got(_) | Outcome::Stored => None,
        Outcome::Failed(code) if is_documented(code) => None,
        Outcome::Failed(code) => Some(format!("failed: {code:?}")),
        Outcome::Unknown if operation.returned.is_some() && met_full_memory => None,
        Outcome::Unknown if operation.returned.is_some() => Some("nobody could tell its outcome".to_owned()),
        Outcome::Unknown => Some("was never answered".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmain::time::Duration;

    use crate::checkers::sample::Sample;
    use crate::history::{Call, Number};

    fn failed(sample: &Sample) -> Option<Vec<Number>> {
        check(&sample.evidence()).err().map(|violation| violation.operations)
    }

    fn after_faults(sample: &mut Sample, call: Option<Call>, outcome: Outcome) -> Number {
        let number = match call {
            Some(call) => sample.operation(call, outcome),
            None => sample.put(&[], outcome),
        };
        sample.history.get_mut(number).after_faults = true;
        number
    }

    #[test]
    fn what_succeeds_or_is_refused_as_documented_is_well() {
        let mut sample = Sample::new();
        sample.put(&[], Outcome::Unknown);
        sample.put(&[], Outcome::Failed(ErrorCode::Unavailable));
        after_faults(&mut sample, None, Outcome::Stored);
        let read = sample.got(&[], &[]);
        sample.history.get_mut(read).after_faults = true;
        for code in DOCUMENTED {
            after_faults(&mut sample, None, Outcome::Failed(code));
        }
        assert_eq!(failed(&sample), None);
    }

    #[test]
    fn a_put_that_fails_after_all_faults_is_a_violation() {
        for outcome in [Outcome::Failed(ErrorCode::Unavailable), Outcome::Unknown] {
            let mut sample = Sample::new();
            let put = after_faults(&mut sample, None, outcome);
            assert_eq!(failed(&sample), Some(vec![put]));
            sample.history.get_mut(put).returned = None;
            assert_eq!(failed(&sample), Some(vec![put]));
        }
    }

    #[test]
    fn a_put_succeeds_at_its_first_attempt_unless_that_was_refused_as_documented() {
        for (setback, is_well) in [
            (ErrorCode::Overloaded, true),
            (ErrorCode::Unavailable, false),
            (ErrorCode::NotServing, false),
            (ErrorCode::MaybeApplied, false),
        ] {
            let mut sample = Sample::new();
            let put = after_faults(&mut sample, None, Outcome::Stored);
            let operation = sample.history.get_mut(put);
            (operation.attempts, operation.setback) = (2, Some(setback));
            assert_eq!(failed(&sample).is_none(), is_well, "{setback:?}");
            sample.history.get_mut(put).after_faults = false;
            assert_eq!(failed(&sample), None);
        }
    }

    #[test]
    fn a_copy_fewer_is_excused_while_memory_is_full_and_not_before_or_after() {
        for (at, code, is_well) in [
            (0, ErrorCode::MaybeApplied, true),
            (0, ErrorCode::Unavailable, true),
            (0, ErrorCode::Timeout, false),
            (1, ErrorCode::MaybeApplied, false),
        ] {
            let mut sample = Sample::new();
            let put = after_faults(&mut sample, None, Outcome::Stored);
            let operation = sample.history.get_mut(put);
            (operation.attempts, operation.setback) = (2, Some(code));
            let returned = operation.returned.unwrap();
            sample.declined.insert(returned + Duration(at));
            assert_eq!(failed(&sample).is_none(), is_well, "{at} {code:?}");
        }
    }

    #[test]
    fn a_read_has_no_excuse() {
        let mut sample = Sample::new();
        let call = Call::Get { read: 2, latest: false };
        let read = after_faults(&mut sample, Some(call), Outcome::Failed(ErrorCode::Overloaded));
        assert_eq!(failed(&sample), Some(vec![read]));
    }
}
