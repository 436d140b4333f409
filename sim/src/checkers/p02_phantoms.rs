//! P2: a returned value was put on that key, byte for byte.
//!
//! Every value names its operation, so it is looked up there: what a read returned, and what a copy holds.

use ringmain::causality::Content;

use super::readings::readings;
use super::{Evidence, Promise, Violation};
use crate::history::{Call, History, Key, Number, read_value};

/// Was every value put as it was found?
pub fn check(evidence: &Evidence<'_>) -> Result<(), Violation> {
    for read in readings(evidence.history) {
        let key = read.operation.key;
        let mut phantoms =
            read.reading.values.iter().filter_map(|value| phantom(evidence.history, key, value));
        if let Some((put, what)) = phantoms.next() {
            let sentence = format!("#{} returned {what}", read.number.0);
            let operations = put.into_iter().chain([read.number]);
            return Err(Violation::at(Promise::NoPhantoms, key, operations, sentence));
        }
    }
    for copy in evidence.copies {
        let values = copy.state.versions().iter().filter_map(|version| match &version.content {
            Content::Value(value) => Some(value),
            Content::Cold { .. } | Content::Tombstone | Content::Expired => None,
        });
        let mut phantoms = values.filter_map(|value| phantom(evidence.history, copy.key, value));
        if let Some((put, what)) = phantoms.next() {
            let sentence = format!("node {} holds {what}", copy.node);
            return Err(Violation::at(Promise::NoPhantoms, copy.key, put, sentence));
        }
    }
    Ok(())
}

/// What is wrong with a value that was found at a key, and the operation that it names.
fn phantom(history: &History, key: Key, value: &[u8]) -> Option<(Option<Number>, String)> {
    let Some((number, home, _)) = read_value(value) else {
        return Some((None, format!("{} bytes at key {} that nobody ever put", value.len(), key.0)));
    };
    if number >= history.next() {
        return Some((None, format!("a value of #{}, which was never called", number.0)));
    }
    let operation = history.get(number);
    let problem = match &operation.call {
        Call::Put { .. } if operation.key != key || home != key => {
            format!("the value of #{} at key {}, and it was put at key {}", number.0, key.0, operation.key.0)
        }
        Call::Put { value: put, .. } if put == value => return None,
        Call::Put { .. } => format!("a value of #{} that differs from what was put", number.0),
        Call::Get { .. } | Call::Delete { .. } => format!("a value of #{}, which put none", number.0),
    };
    Some((Some(number), problem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::sample::{KEY, Sample};
    use crate::history::{Outcome, value};

    /// A put and a read, and what is found if the read returned this instead.
    fn found_in_reading(change: impl FnOnce(&mut Sample) -> Vec<u8>) -> Option<(Vec<Number>, String)> {
        let mut sample = Sample::new();
        let milk = sample.stored(&[], (1, 1));
        let read = sample.got(&[milk], &[(1, 1)]);
        let returned = change(&mut sample);
        sample.reading(read).values = vec![returned];
        check(&sample.evidence()).err().map(|violation| (violation.operations, violation.sentence))
    }

    #[test]
    fn what_was_put_is_no_phantom() {
        assert_eq!(found_in_reading(|sample| sample.value_of(Number(0))), None);
        let mut sample = Sample::new();
        sample.stored(&[], (1, 1));
        sample.deleted(&[(1, 1)], (1, 2));
        sample.unknown(&[], (2, 1));
        sample.at_rest(&[(1, 2), (2, 1)], &[(1, 2), (2, 1)]);
        assert_eq!(check(&sample.evidence()), Ok(()));
    }

    #[test]
    fn a_value_that_lost_a_byte_is_a_phantom() {
        let (operations, sentence) = found_in_reading(|sample| {
            let mut value = sample.value_of(Number(0));
            value.pop();
            value
        })
        .unwrap();
        assert_eq!(operations, [Number(1)]);
        assert!(sentence.contains("nobody ever put"), "{sentence}");
    }

    #[test]
    fn a_value_that_another_operation_would_have_put_is_a_phantom() {
        let (operations, sentence) = found_in_reading(|_| value(Number(0), KEY, b"oat milk")).unwrap();
        assert_eq!(operations, [Number(0), Number(1)]);
        assert!(sentence.contains("differs"), "{sentence}");
    }

    #[test]
    fn a_value_of_a_read_a_delete_or_nobody_is_a_phantom() {
        let (operations, sentence) = found_in_reading(|_| value(Number(1), KEY, b"milk")).unwrap();
        assert_eq!(operations, [Number(1)]);
        assert!(sentence.contains("put none"), "{sentence}");
        let deleted = found_in_reading(|sample| {
            let delete = sample.deleted(&[(1, 1)], (1, 2));
            value(delete, KEY, b"milk")
        });
        assert_eq!(deleted.unwrap().0, [Number(1), Number(2)]);
        let (operations, sentence) = found_in_reading(|_| value(Number(2), KEY, b"milk")).unwrap();
        assert_eq!(operations, [Number(1)]);
        assert!(sentence.contains("never called"), "{sentence}");
    }

    #[test]
    fn a_value_of_another_key_is_a_phantom() {
        let (operations, sentence) = found_in_reading(|sample| {
            let eggs = sample.put(&[], Outcome::Stored);
            sample.history.get_mut(eggs).key = Key(1);
            sample.value_of(eggs)
        })
        .unwrap();
        assert_eq!(operations, [Number(1), Number(2)]);
        assert!(sentence.contains("put at key 1"), "{sentence}");
    }

    #[test]
    fn a_copy_holds_no_phantoms_either() {
        let mut sample = Sample::new();
        let milk = sample.stored(&[], (1, 1));
        sample.at_rest(&[(1, 1)], &[(1, 1)]);
        assert_eq!(check(&sample.evidence()), Ok(()));
        if let Call::Put { value, .. } = &mut sample.history.get_mut(milk).call {
            *value = crate::history::value(milk, KEY, b"eggs");
        }
        let violation = check(&sample.evidence()).unwrap_err();
        assert_eq!(violation.operations, [milk]);
        assert!(violation.sentence.starts_with("node 0 holds"), "{}", violation.sentence);
    }
}
