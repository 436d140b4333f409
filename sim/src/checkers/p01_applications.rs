//! P1, as an application sees it: what was added to a cart stays in it, and what was counted stays counted.
//!
//! The graph of dots says that an acknowledged version is visible or was replaced by somebody who had seen it. Whether
//! an application that merges what it reads keeps everything is the same promise once more, without a look
//! inside.

use std::collections::BTreeMap;

use super::{Evidence, Promise, Violation};
use crate::clients::{items_of, slots_of};
use crate::history::{Call, Key, Number, Operation, Outcome, Reading, read_value};
use crate::plan::Application;

/// Every acknowledged addition is in what was read last.
pub fn check(evidence: &Evidence<'_>) -> Result<(), Violation> {
    for (key, (reader, reading)) in last_readings(evidence) {
        let lost = match evidence.applications.get(usize::from(key.0)) {
            Some(Application::Cart) => lost_items(evidence, key, reader, reading),
            Some(Application::Counter) => lost_counts(evidence, key, reader, reading),
            _ => continue,
        };
        if let Some((number, sentence)) = lost {
            return Err(Violation::at(Promise::Durability, key, [number, reader], sentence));
        }
    }
    Ok(())
}

/// What was read last of each key, of all replicas, when all was quiet.
fn last_readings<'a>(evidence: &Evidence<'a>) -> BTreeMap<Key, (Number, &'a Reading)> {
    let quiet = evidence.history.iter().filter(|(_, operation)| operation.after_faults);
    let readings = quiet.filter_map(|(number, operation)| match (&operation.call, &operation.outcome) {
        (Call::Get { read, .. }, Outcome::Got(reading)) if *read == evidence.replicas => {
            Some((operation.key, (number, reading)))
        }
        _ => None,
    });
    readings.collect()
}

/// Acknowledged writes of a key before this read, of which not W copies were destroyed.
fn promised<'a>(
    evidence: &Evidence<'a>,
    key: Key,
    reader: Number,
) -> impl Iterator<Item = (Number, &'a Operation)> {
    let destroyed = evidence.lost;
    let invoked = evidence.history.get(reader).invoked;
    evidence.history.iter().filter(move |(number, operation)| {
        operation.key == key
            && !evidence.may_be_put_out(operation)
            && operation.returned.is_some_and(|returned| returned < invoked)
            && operation.acknowledged().is_some_and(|w| destroyed.get(number).is_none_or(|lost| *lost < w))
    })
}

fn lost_items(
    evidence: &Evidence<'_>,
    key: Key,
    reader: Number,
    reading: &Reading,
) -> Option<(Number, String)> {
    let items = items_of(reading);
    let (lost, _) = promised(evidence, key, reader).find(|(number, _)| !items.contains(number))?;
    Some((lost, format!("the item of #{} was put into a cart and is no longer in it", lost.0)))
}

fn lost_counts(
    evidence: &Evidence<'_>,
    key: Key,
    reader: Number,
    reading: &Reading,
) -> Option<(Number, String)> {
    let slots = slots_of(reading);
    promised(evidence, key, reader).find_map(|(number, operation)| {
        let counted = own_count(operation)?;
        let stands = slots.get(&operation.client).copied().unwrap_or(0);
        (stands < counted).then(|| {
            let client = operation.client;
            (
                number,
                format!("client {client} had counted to {counted} in #{}, and {stands} is left", number.0),
            )
        })
    })
}

/// What the client's own slot says in the value that it wrote.
fn own_count(operation: &Operation) -> Option<u32> {
    let Call::Put { value, .. } = &operation.call else { return None };
    read_value(value)?;
    let written = Reading { values: vec![value.clone()], context: None, nodes: 0 };
    slots_of(&written).get(&operation.client).copied()
}

#[cfg(test)]
mod tests {
    use super::super::sample::Sample;
    use super::*;

    /// Two clients add to a key and one reads what is left of it.
    fn verdict(application: Application, written: &[u32], read: &[u32]) -> Result<(), Violation> {
        let mut sample = Sample::new();
        sample.applications = vec![application];
        let payload = |numbers: &[u32]| -> Vec<u8> { numbers.iter().flat_map(|n| n.to_le_bytes()).collect() };
        sample.put_payload(&payload(written));
        sample.read_at_rest(&payload(read));
        check(&sample.evidence())
    }

    #[test]
    fn an_item_that_is_gone_is_missed() {
        assert!(verdict(Application::Cart, &[0], &[0]).is_ok());
        assert!(verdict(Application::Cart, &[0], &[]).is_err());
        assert!(verdict(Application::Register, &[0], &[]).is_ok());
    }

    #[test]
    fn a_count_that_went_back_is_missed() {
        assert!(verdict(Application::Counter, &[1, 2], &[1, 2]).is_ok());
        assert!(verdict(Application::Counter, &[1, 2], &[1, 3]).is_ok());
        assert!(verdict(Application::Counter, &[1, 2], &[1, 1]).is_err());
        assert!(verdict(Application::Counter, &[1, 2], &[0, 2]).is_err());
    }
}
