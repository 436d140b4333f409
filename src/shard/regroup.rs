//! The ring changes under requests: each takes the owners of now.
//!
//! What a node says of the step that it works by must hold for all that it does from then on
//! (`docs/adr/0011`), so a request under way doesn't end by the owners with which it began. What it has been told counts
//! on; whoever owns the key and has told nothing is asked, under another key of the operation: an answer that
//! was on its way may be one of a node in another role.

use crate::failpoint::{Bug, Failpoints, Rare};
use crate::id::{NodeId, PartitionId};
use crate::replica::Place;
use crate::time::Now;

use super::Shard;
use super::fallbacks::Missing;
use super::io::Output;
use super::operations::{Nodes, Operation, Work, owners_of};

impl<F: Failpoints> Shard<F> {
    /// If the view shows other owners since this turn began, regroup whatever is not decided yet.
    pub(super) fn regroup(&mut self, now: Now, out: &mut Output) {
        if !std::mem::take(&mut self.notices.owners_changed) {
            return;
        }
        let under_way: Vec<u64> = self.operations.keys().collect();
        for key in under_way {
            if let Some(key) = self.take_owners(key) {
                self.ask_anew(now, key, out);
            }
        }
    }

    /// Let an operation count by the owners of now; if they are others, it has another key from here on.
    fn take_owners(&mut self, key: u64) -> Option<u64> {
        let both = self.reads_both();
        let operation = self.operations.get_mut(key)?;
        let (owners, view) = (owners_of(&self.view, operation.partition), &self.view);
        let changed = match &mut operation.work {
            Work::Put { quorum, .. } => quorum.regroup(owners, |node| view.zone(node)),
            Work::Get { quorum, answered: false, .. } => quorum.regroup(owners, both),
            Work::Get { answered: true, .. } => false,
        };
        if changed { self.rekey(key) } else { None }
    }

    /// Tell or ask every owner that has said nothing.
    fn ask_anew(&mut self, now: Now, key: u64, out: &mut Output) {
        let Some(operation) = self.operations.get_mut(key) else { return };
        let was_patient = operation.due == operation.deadline;
        let (partition, wire_key) = (operation.partition, operation.key.clone());
        let (is_put, awaited): (bool, Nodes) = match &operation.work {
            Work::Put { quorum, .. } => (true, quorum.awaited().collect()),
            Work::Get { quorum, .. } => (false, quorum.awaited().collect()),
        };
        let others: Nodes = awaited.iter().copied().filter(|&node| node != self.view.me).collect();
        let told = self.reachable(now.monotonic, partition, &others);
        let lost = others.iter().filter(|node| told.iter().all(|(told, _)| told != *node));
        lost.for_each(|&node| self.count_failure(key, node));
        let place = self.place(&wire_key);
        if is_put {
            self.put_here_anew(now, key, place, out);
            self.send_write(now, key, None, &told, out);
        } else {
            if others.len() < awaited.len() {
                self.count_own_state(now, key, place, out);
            }
            self.send_reads(now, key, &wire_key, &told, out);
        }
        if told.len() < others.len() || was_patient {
            let missing = if was_patient { Missing::Silent } else { Missing::Lost };
            self.stand_in(now, key, missing, out);
        }
        self.progress(now, key, false, out);
    }

    /// The epoch of a partition was raised: what is under way began in an older one. Writes are sent again, and reads begin
    /// again; those that linger to repair end without. Whose key was forgotten has been confirmed by all.
    pub(super) fn begin_again(
        &mut self,
        now: Now,
        partition: PartitionId,
        was_wiped: bool,
        out: &mut Output,
    ) {
        let under_way: Vec<u64> = self.operations.keys().collect();
        for key in under_way {
            let Some(operation) =
                self.operations.get(key).filter(|operation| operation.partition == partition)
            else {
                continue;
            };
            match &operation.work {
                Work::Get { answered: true, .. } if self.failpoints.planted(Bug::OldReadRepairs) => {}
                Work::Get { answered: true, .. } => {
                    self.counters.operations_lingering -= 1;
                    self.take_operation(key);
                }
                Work::Get { answered: false, .. } => self.read_again(now, key, out),
                Work::Put { .. } if was_wiped => self.progress(now, key, true, out),
                Work::Put { kept_for: Some(_), .. } => {}
                Work::Put { quorum, kept_for: None, .. } => {
                    let awaited: Nodes = quorum.awaited().collect();
                    let place = operation.place();
                    let index = self.replica.index();
                    let is_forgotten = index.find(place.partition, place.token, place.key).is_none();
                    if is_forgotten && self.may_lack_keys(partition) {
                        // Or it was put out: nobody knows who has it.
                        self.progress(now, key, true, out);
                    } else if is_forgotten {
                        awaited.iter().for_each(|&node| self.count_durable(key, node));
                        self.progress(now, key, false, out);
                    } else {
                        let told = self.reachable(now.monotonic, partition, &awaited);
                        self.send_write(now, key, None, &told, out);
                    }
                }
            }
        }
    }

    fn read_again(&mut self, now: Now, key: u64, out: &mut Output) {
        self.failpoints.reached(Rare::ReadBeganAgain);
        let epoch = self.operations.get(key).map_or(0, |operation| self.epoch(operation.partition));
        let Some(operation) = self.operations.get_mut(key) else { return };
        operation.epoch = epoch;
        if let Work::Get { quorum, .. } = &mut operation.work {
            quorum.begin_again();
        }
        if let Some(key) = self.rekey(key) {
            self.ask_anew(now, key, out);
        }
    }

    /// Somebody was behind, and has been told: tell or ask it again.
    pub(super) fn send_again(&mut self, now: Now, key: u64, node: NodeId, out: &mut Output) {
        let Some(operation) = self.operations.get(key) else { return };
        let (partition, wire_key) = (operation.partition, operation.key.clone());
        let (is_put, is_awaited) = match &operation.work {
            Work::Put { quorum, .. } => (true, quorum.awaited().any(|awaited| awaited == node)),
            Work::Get { quorum, .. } => (false, quorum.awaited().any(|awaited| awaited == node)),
        };
        if !is_awaited {
            // A fallback, of which none is asked twice.
            self.count_failure(key, node);
            return self.progress(now, key, false, out);
        }
        let told = self.reachable(now.monotonic, partition, &[node]);
        if is_put {
            self.send_write(now, key, None, &told, out);
        } else {
            self.send_reads(now, key, &wire_key, &told, out);
        }
    }

    /// This node counts for a write under way if it owns the key now, or keeps it for an owner still.
    fn put_here_anew(&mut self, now: Now, key: u64, place: Place<'_>, out: &mut Output) {
        let me = self.view.me;
        let (owns, zone) = (self.view.owns(place.partition), self.view.zone(me));
        let Some(Operation { work: Work::Put { quorum, kept_for, .. }, .. }) = self.operations.get_mut(key)
        else {
            return;
        };
        let was_kept_for = if owns { kept_for.take() } else { *kept_for };
        let record = match was_kept_for {
            Some(target) if owns => {
                let kept = self.hints.store.find(target, place.key).map(|hint| hint.state.clone());
                let Some(kept) = kept else { return quorum.on_failure(me) };
                if !self.can_merge(place, &kept, out) || !self.make_room_to_merge(place, &kept) {
                    return self.count_failure(key, me);
                }
                self.merge_here(place, &kept, out);
                self.replica.appended(place)
            }
            Some(target) => {
                quorum.add_fallback(me, target, zone);
                self.hint_record(target, place)
            }
            None if self.replica.look(now, place).is_none() => return quorum.on_failure(me),
            None => self.replica.appended(place),
        };
        self.await_own_record(record, key);
    }
}
