//! P8: what was reported `Failed` was never applied. Any doubt is `Unknown` (`MaybeApplied`).
//!
//! A client that is told of a failure may do something else instead, so a write that failed has no dot: not
//! at the time of the answer, and not from a request that was still under way.

use super::{Evidence, Promise, Violation};
use crate::history::Outcome;

/// Did what failed leave no trace?
pub fn check(evidence: &Evidence<'_>) -> Result<(), Violation> {
    for (number, operation) in evidence.history.iter() {
        let Outcome::Failed(code) = &operation.outcome else { continue };
        let dots = evidence.dots.of_operation(number);
        let Some(minted) = dots.first().and_then(|dot| evidence.dots.get(operation.key, *dot)) else {
            if dots.is_empty() {
                continue;
            }
            let sentence = format!("#{} failed ({code:?}), and was applied to another key", number.0);
            return Err(Violation::at(Promise::HonestOutcome, operation.key, [number], sentence));
        };
        let sentence = format!("#{} failed ({code:?}), and node {} applied it", number.0, minted.node);
        return Err(Violation::at(Promise::HonestOutcome, operation.key, [number], sentence));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::sample::Sample;
    use crate::history::Key;
    use ringmain_schema::message::ErrorCode;

    #[test]
    fn what_failed_was_not_applied() {
        let mut sample = Sample::new();
        sample.stored(&[], (1, 1));
        sample.unknown(&[], (2, 1));
        sample.put(&[], Outcome::Unknown);
        let failed = sample.put(&[], Outcome::Failed(ErrorCode::Unavailable));
        assert_eq!(check(&sample.evidence()), Ok(()));
        sample.mint(failed, (3, 1), &[]);
        let violation = check(&sample.evidence()).unwrap_err();
        assert_eq!(violation.operations, [failed]);
        assert_eq!(violation.sentence, "#3 failed (Unavailable), and node 0 applied it");
    }

    #[test]
    fn what_failed_was_not_applied_elsewhere_either() {
        let mut sample = Sample::new();
        let failed = sample.put(&[], Outcome::Failed(ErrorCode::Unavailable));
        sample.mint(failed, (1, 1), &[]);
        sample.history.get_mut(failed).key = Key(1);
        let violation = check(&sample.evidence()).unwrap_err();
        assert_eq!((violation.key, violation.operations), (Some(Key(1)), vec![failed]));
        assert!(violation.sentence.contains("another key"), "{}", violation.sentence);
    }
}
