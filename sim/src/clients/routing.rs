//! What clients say of how they route, and what they expect for it.
//!
//! The cluster doesn't mind an old topology: a request with whatever epoch is answered like any other. One that is sent
//! directly is answered by the shard that was asked, or with `WrongShard` and the epoch of that shard's topology; nobody
//! else is told `WrongShard`.

use ringmain_schema::message::{ErrorAnswer, ErrorCode, Multi, Topology, TopologyRequest, Welcome};
use ringmain_schema::{Encoder, Flags, Frame, Kind};

use super::Client;
use crate::checkers::{Promise, Violation};
use crate::world::World;

/// Epochs that are remembered.
const EPOCHS_MAX: usize = 8;
/// A client that routes asks for the topology once in so many requests.
const INQUIRIES: f64 = 0.05;
/// It routes by a topology that it was told of earlier so often.
const BY_AN_OLD_ONE: f64 = 0.3;
/// And doesn't want its first attempt to be passed on so often.
const DIRECTLY: f64 = 0.3;

/// How a request is to be routed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// The topology that it goes by; 0 for none.
    pub(super) epoch: u64,
    /// `DIRECT`, or nothing.
    pub(super) flags: Flags,
}

impl Default for Manner {
    fn default() -> Self {
        Self { epoch: 0, flags: Flags::NONE }
    }
}

/// The topologies that a client was told of: the first one, and the last few, each once in a row.
#[derive(Debug, Default)]
pub(super) struct Epochs(Vec<u64>);

impl Epochs {
    /// A frame may tell of one.
    pub(super) fn learn(&mut self, frame: &Frame<'_>) {
        let told = match frame.header.kind {
            Kind::WELCOME => Welcome::parse(frame).map(|welcome| welcome.epoch).ok(),
            Kind::TOPOLOGY_IS => Topology::parse(frame).map(|topology| topology.epoch).ok(),
            Kind::ERROR => ErrorAnswer::parse(frame).map(|error| error.epoch).ok(),
            _ => None,
        };
        if let Some(epoch) = told.filter(|epoch| *epoch != 0 && self.0.last() != Some(epoch)) {
            if self.0.len() == EPOCHS_MAX {
                self.0.remove(1);
            }
            self.0.push(epoch);
        }
    }
}

impl Client {
    /// How the next request of this attempt is to be routed.
    pub(super) fn draw_manner(&mut self, attempt: u32) -> Manner {
        let known = &self.epochs.0;
        if !self.routes || known.is_empty() {
            return Manner::default();
        }
        let place = if self.prng.chance(BY_AN_OLD_ONE) {
            self.prng.below(known.len() as u64) as usize
        } else {
            known.len() - 1
        };
        let epoch = known[place];
        // Who was told that it is wrong lets the next one find the way.
        let is_direct = attempt == 1 && self.prng.chance(DIRECTLY);
        Manner { epoch, flags: if is_direct { Flags::DIRECT } else { Flags::NONE } }
    }

    /// Now and then it asks for the topology, and goes on.
    pub(super) fn inquire(&mut self) -> Option<Vec<u8>> {
        (self.routes && self.prng.chance(INQUIRIES)).then(|| {
            self.next_request += 1;
            let mut bytes = Vec::new();
            let request = TopologyRequest { subscribe: false };
            request.encode(&mut Encoder::default(), self.next_request, &mut bytes);
            bytes
        })
    }
}

impl Manner {
    /// Is this no answer to a request of this manner?
    pub(super) fn problem_with(self, answer: &Frame<'_>) -> Option<&'static str> {
        let is_direct = self.flags == Flags::DIRECT;
        if is_direct && answer.header.flags.contains(Flags::FORWARDED) {
            return Some("was passed on, though it was asked directly");
        }
        let multi = (answer.header.kind == Kind::MULTI_DONE).then(|| Multi::parse(answer).ok()).flatten();
        let items = multi.iter().flat_map(Multi::items);
        let mut refusals = items.chain([*answer]).filter_map(|answer| wrong_shard(&answer));
        refusals.find_map(|epoch| match (is_direct, epoch) {
            (false, _) => Some("was answered WrongShard, though anybody might have answered"),
            (true, 0) => Some("was answered WrongShard without the topology's epoch"),
            (true, _) => None,
        })
    }
}

/// The epoch that a `WrongShard` tells, if this is one.
fn wrong_shard(answer: &Frame<'_>) -> Option<u64> {
    let error = (answer.header.kind == Kind::ERROR).then(|| ErrorAnswer::parse(answer).ok()).flatten()?;
    (error.code == ErrorCode::WrongShard).then_some(error.epoch)
}

impl World {
    pub(super) fn answered_against_routing(&mut self, number: usize, problem: &str) {
        let client = &self.clients_mut()[number];
        let operations: Vec<_> =
            client.job.iter().flat_map(|job| &job.items).map(|item| item.number).collect();
        let sentence = format!("a request of client {number} {problem}");
        self.violation.get_or_insert(Violation {
            promise: Promise::Routing,
            key: None,
            sentence,
            operations,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(flags: Flags, error: &ErrorAnswer<'_>, told: Flags) -> Option<&'static str> {
        let mut bytes = Vec::new();
        error.encode(&mut Encoder::default(), 7, told, &mut bytes);
        let answer = Frame::split(&bytes, bytes.len()).unwrap().unwrap();
        Manner { epoch: 1, flags }.problem_with(&answer)
    }

    #[test]
    fn only_who_asks_directly_is_told_of_the_wrong_shard_and_is_passed_on_to_nobody() {
        let wrong = ErrorAnswer { epoch: 9, ..ErrorAnswer::new(ErrorCode::WrongShard, "") };
        assert_eq!(problem(Flags::DIRECT, &wrong, Flags::NONE), None);
        assert!(problem(Flags::NONE, &wrong, Flags::NONE).is_some());
        let without_epoch = ErrorAnswer { epoch: 0, ..wrong };
        assert!(problem(Flags::DIRECT, &without_epoch, Flags::NONE).is_some());
        let busy = ErrorAnswer::new(ErrorCode::Overloaded, "");
        assert_eq!(problem(Flags::NONE, &busy, Flags::FORWARDED), None);
        assert!(problem(Flags::DIRECT, &busy, Flags::FORWARDED).is_some());
    }
}
