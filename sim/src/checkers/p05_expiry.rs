//! P5, of what expired by itself: a value is not shown after its time. That it is shown until then is part of P3.
//!
//! Asked only of runs in which no wall clock jumps: an expiry is all that may depend on one (P14).

use ringmain::time::{Duration, Instant};

use super::graph::Graph;
use super::readings::{Read, readings};
use super::{Evidence, Promise, Violation};
use crate::history::{Call, History, Number};

/// The wall clocks of two nodes differ by no more, nor does what is under way between them.
pub(super) const SKEW: Duration = Duration::from_millis(150);

/// Is everything gone when its time has come?
pub fn check(evidence: &Evidence<'_>) -> Result<(), Violation> {
    if !evidence.steady_clocks {
        return Ok(());
    }
    let graphs = Graph::all(evidence);
    for read in readings(evidence.history) {
        let graph = &graphs[&read.operation.key];
        if let Some(old) = read.returned().find(|put| is_expired(evidence.history, graph, &read, *put)) {
            let sentence = format!("#{} returned #{}, which had expired", read.number.0, old.0);
            return Err(Violation::at(
                Promise::NoResurrection,
                read.operation.key,
                [old, read.number],
                sentence,
            ));
        }
    }
    Ok(())
}

/// Had every version of a put expired when a read was called?
fn is_expired(history: &History, graph: &Graph<'_>, read: &Read<'_>, put: Number) -> bool {
    let mut expiries = graph.of_operation(put).map(|at| expiry(history, graph, at)).peekable();
    let is_over =
        |expiry: Option<Instant>| expiry.is_some_and(|expiry| expiry + SKEW < read.operation.invoked);
    expiries.peek().is_some() && expiries.all(is_over)
}

/// When a version expires, if it does.
pub(super) fn expiry(history: &History, graph: &Graph<'_>, at: usize) -> Option<Instant> {
    let operation = graph.operation(at);
    if operation >= history.next() {
        return None;
    }
    match history.get(operation).call {
        Call::Put { time_to_live: Some(lives), .. } => Some(graph.minted(at).at + lives),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::sample::Sample;

    fn shown_too_late(sample: &Sample) -> Option<Vec<Number>> {
        check(&sample.evidence()).err().map(|violation| violation.operations)
    }

    #[test]
    fn a_value_is_shown_until_its_time_and_not_after() {
        let mut sample = Sample::new();
        let milk = sample.expiring(&[], (1, 1));
        sample.got(&[milk], &[(1, 1)]);
        assert_eq!(shown_too_late(&sample), None);
        let late = sample.got(&[milk], &[(1, 1)]);
        sample.history.get_mut(late).invoked = Instant(2_000_000_000);
        assert_eq!(shown_too_late(&sample), Some(vec![milk, late]));
        sample.steady_clocks = false;
        assert_eq!(shown_too_late(&sample), None, "whose clock says so?");
    }

    #[test]
    fn a_value_that_does_not_expire_is_shown_for_ever() {
        let mut sample = Sample::new();
        let milk = sample.stored(&[], (1, 1));
        let late = sample.got(&[milk], &[(1, 1)]);
        sample.history.get_mut(late).invoked = Instant(2_000_000_000);
        assert_eq!(shown_too_late(&sample), None);
    }
}
