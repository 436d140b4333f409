//! P9, as an answer states it: it rests on as many nodes as were asked for, and a read that was to include what its
//! client had seen includes it, unless all N agree that it never was.

use super::{Evidence, Promise, Violation};
use crate::history::{Call, Number, Operation, Outcome};

/// Does every answer rest on enough?
pub fn check(evidence: &Evidence<'_>) -> Result<(), Violation> {
    let wrong = evidence.history.iter().find_map(|(number, operation)| {
        let what = problem(number, operation, evidence.replicas)?;
        Some(Violation::at(Promise::Overlap, operation.key, [number], what))
    });
    wrong.map_or(Ok(()), Err)
}

fn problem(number: Number, operation: &Operation, replicas: u8) -> Option<String> {
    match (&operation.call, &operation.outcome) {
        (Call::Get { read, .. }, Outcome::Got(reading)) => {
            let goes_back = match &reading.context {
                Some(context) => !context.includes(&operation.at_least),
                // The latest of several says nothing of the others; nothing at all includes nothing.
                None => reading.values.is_empty() && !operation.at_least.is_empty(),
            };
            if reading.nodes < *read {
                Some(format!("#{} asked {read} nodes, and rests on {}", number.0, reading.nodes))
            } else if goes_back && reading.nodes < replicas {
                Some(format!("#{} went back behind what its client had seen", number.0))
            } else {
                None
            }
        }
        (Call::Put { write, .. } | Call::Delete { write, .. }, Outcome::Stored) => {
            let nodes = operation.receipt.as_ref()?.nodes;
            (nodes < *write).then(|| format!("#{} was stored on {nodes} nodes, not {write}", number.0))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::sample::{Sample, vector};
    use crate::history::Receipt;

    fn wrong(sample: &Sample) -> Option<Vec<Number>> {
        check(&sample.evidence()).err().map(|violation| violation.operations)
    }

    #[test]
    fn an_answer_rests_on_as_many_nodes_as_were_asked_for() {
        let mut sample = Sample::new();
        let milk = sample.stored(&[], (1, 1));
        let read = sample.got(&[milk], &[(1, 1)]);
        assert_eq!(wrong(&sample), None);
        sample.reading(read).nodes = 1;
        assert_eq!(wrong(&sample), Some(vec![read]));
        sample.history.get_mut(milk).receipt = Some(Receipt { context: None, nodes: 1 });
        assert_eq!(wrong(&sample), Some(vec![milk]));
    }

    #[test]
    fn a_read_does_not_go_back_unless_all_agree() {
        let mut sample = Sample::new();
        let milk = sample.stored(&[], (1, 1));
        let read = sample.got(&[milk], &[(1, 1)]);
        sample.history.get_mut(read).at_least = vector(&[(1, 1)]);
        assert_eq!(wrong(&sample), None);
        sample.history.get_mut(read).at_least = vector(&[(1, 1), (2, 1)]);
        assert_eq!(wrong(&sample), Some(vec![read]));
        sample.reading(read).nodes = 3;
        assert_eq!(wrong(&sample), None, "a write that nobody ever acknowledged");
    }
}
