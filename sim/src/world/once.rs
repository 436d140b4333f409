//! A retry is never applied twice: not by a node that applied the write itself, nor by one that was told of its end.
//!
//! A write without a name can't be told from another. Of those with one, a node knows its own, and those that a
//! coordinator told it were replaced. What it knew when its records went to stable storage, it knows after a restart
//! from the same disk.

use std::collections::BTreeSet;

use ringmain::id::OperationId;
use ringmain::shard::Record;
use ringmain_schema::peer::Replicate;
use ringmain_schema::{Frame, Kind};

use super::{At, World};
use crate::checkers::{Promise, Violation};
use crate::dots::operation_of;
use crate::history::Number;

/// The writes that a node must recognise.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// In this life.
    now: BTreeSet<Number>,
    /// In the next one too, if the disk stays.
    stable: BTreeSet<Number>,
    /// On their way there: a shard, and a position in its log.
    waiting: Vec<(u16, u64, Vec<Number>)>,
}

/// What a shard has heard, in numbers that only grow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    states_taken: u64,
    last: u64,
}

impl Known {
    /// A process starts from these records, which are all that is left of an earlier life unless its disk was `kept`.
    pub(super) fn restart<'a>(&mut self, kept: bool, records: impl Iterator<Item = &'a Vec<u8>>) {
        if !kept {
            self.stable.clear();
        }
        for record in records {
            if let Ok(Record::Key(key)) = Record::parse(record) {
                self.stable.extend(replaced_by(&key));
            }
        }
        (self.now, self.waiting) = (self.stable.clone(), Vec::new());
    }

    /// From here on these are known; for good, once the record at this position is on stable storage.
    fn learn(&mut self, shard: u16, position: Option<u64>, writes: Vec<Number>) {
        self.now.extend(&writes);
        self.waiting.extend(position.map(|position| (shard, position, writes)));
    }

    /// A shard's log is on stable storage up to here.
    pub(super) fn on_sync(&mut self, shard: u16, durable: u64) {
        let is_covered = |waiting: &mut (u16, u64, Vec<Number>)| waiting.0 == shard && waiting.1 <= durable;
        for (.., writes) in self.waiting.extract_if(.., is_covered) {
            self.stable.extend(writes);
        }
    }
}

impl World {
    /// A node is about to log that it applied a write.
    pub(super) fn check_once(&mut self, at: At, number: Number) {
        if self.nodes[at.node].known.now.contains(&number) {
            let sentence = format!(
                "node {} applied #{} again, though it knew that it had been applied",
                at.node, number.0
            );
            let key = (number < self.history.next()).then(|| self.history.get(number).key);
            let (promise, operations) = (Promise::AppliedOnce, vec![number]);
            self.violation.get_or_insert(Violation { promise, key, sentence, operations });
        }
        // Its record is the next one.
        let position = self.nodes[at.node].logs[usize::from(at.shard)].last() + 1;
        self.nodes[at.node].known.learn(at.shard, Some(position), vec![number]);
    }

    /// How much a shard has heard so far: the states that it took, and its log's last record.
    pub(super) fn heard(&mut self, at: At) -> Heard {
        let states_taken = self.nodes[at.node].running(at.shard).shard.states_taken();
        Heard { states_taken, last: self.nodes[at.node].logs[usize::from(at.shard)].last() }
    }

    /// A shard was given this frame, which may say what a write replaced, when it had heard so much `before`. True if it
    /// took a state.
    pub(super) fn learn_replaced(&mut self, at: At, frame: &Frame<'_>, before: Heard) -> bool {
        let after = self.heard(at);
        // It may have refused, or not known the connection any more.
        if frame.header.kind != Kind::REPLICATE || after.states_taken == before.states_taken {
            return false;
        }
        let Ok(replicate) = Replicate::parse(frame) else { return false };
        // What was no news to it is in a record already.
        let position = (after.last > before.last).then_some(after.last);
        self.nodes[at.node].known.learn(at.shard, position, replaced_by(&replicate).collect());
        true
    }
}

/// The writes that a message or a record says were replaced.
fn replaced_by(state: &Replicate<'_>) -> impl Iterator<Item = Number> {
    let names =
        state.replaced().map(|write| OperationId { client: write.client(), sequence: write.sequence() });
    names.filter_map(|name| operation_of(name, None))
}
