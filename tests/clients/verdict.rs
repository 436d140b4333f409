//! What a history and the values at rest say about the cluster.
//!
//! - **Lost**: an acknowledged put that is not there at rest, and that nothing there, and no delete, descends from
//!   through puts whose clients had read it. Of a cart also: an acknowledged item in no sibling. Of a counter: a worker's
//!   count below what was acknowledged to it.
//! - **Resurrected**: a value that is there at rest although an acknowledged put or delete, of a client that had read
//!   it or a descendant of it, replaced it.
//! - **Shown again**: the same, of a put that the client crate may have sent twice. If a node that had stopped finds the
//!   first try after the second was acknowledged, read and replaced, the value stands once more, as a sibling, until
//!   somebody merges it (`docs/consistency.md`, "Retries"). That is no fault, but it is counted. Half of the keys are
//!   written without retries, and have no such excuse.
//! - **Phantom**: a value, read at any time, that no client wrote, or whose put had not begun or was reported as failed.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{Call, Content, Id, Operation, Outcome, Value};

/// What stands under each key at rest.
pub(crate) type AtRest = BTreeMap<String, Vec<Value>>;

/// Each fault is a sentence.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) lost: Vec<String>,
    pub(crate) resurrected: Vec<String>,
    /// No faults.
    pub(crate) shown_again: Vec<String>,
    pub(crate) phantoms: Vec<String>,
}

impl Verdict {
    /// `overwrites`: the puts replaced what their coordinator had, so what they replaced isn't known.
    pub(crate) fn of(history: &[Operation], at_rest: &AtRest, overwrites: bool) -> Self {
        let judge = Judge::of(history, at_rest);
        let mut verdict = Self { phantoms: judge.phantoms(), ..Self::default() };
        for (key, standing) in at_rest {
            verdict.lost.extend(judge.lost(key, standing));
            if !overwrites {
                let back = judge.back(key, standing);
                let (again, resurrected) = back.into_iter().partition(|(may_retry, _)| *may_retry);
                verdict.shown_again.extend(sentences(again));
                verdict.resurrected.extend(sentences(resurrected));
            }
        }
        verdict
    }

    #[track_caller]
    pub(crate) fn assert_clean(&self, name: &str) {
        let clean = self.lost.is_empty() && self.resurrected.is_empty() && self.phantoms.is_empty();
        assert!(clean, "{name}: {self:#?}");
    }
}

struct Judge<'a> {
    writes: BTreeMap<Id, &'a Operation>,
    by_key: BTreeMap<&'a str, Vec<&'a Operation>>,
    history: &'a [Operation],
    at_rest: &'a AtRest,
}

impl<'a> Judge<'a> {
    fn of(history: &'a [Operation], at_rest: &'a AtRest) -> Self {
        let is_write = |operation: &&Operation| !matches!(operation.call, Call::Read(_));
        let mut by_key: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
        for write in history.iter().filter(is_write) {
            by_key.entry(&write.key).or_default().push(write);
        }
        let keys: BTreeSet<&str> = at_rest.keys().map(String::as_str).collect();
        assert!(by_key.keys().all(|key| keys.contains(key)), "some keys were not read at rest");
        let writes = history.iter().filter(is_write).map(|write| (write.id, write)).collect();
        Self { writes, by_key, history, at_rest }
    }

    fn writes(&self, key: &str) -> impl Iterator<Item = &'a Operation> {
        self.by_key.get(key).into_iter().flatten().copied()
    }

    /// The puts that these replaced, and those that they replaced in turn.
    fn ancestors(&self, of: impl IntoIterator<Item = Id>) -> BTreeSet<Id> {
        let (mut found, mut left) = (BTreeSet::new(), of.into_iter().collect::<Vec<_>>());
        while let Some(id) = left.pop() {
            let Some(write) = self.writes.get(&id) else { continue };
            let (Call::Put(Value { replaced, .. }) | Call::Delete(replaced)) = &write.call else { continue };
            left.extend(replaced.iter().filter(|&&id| found.insert(id)));
        }
        found
    }

    fn lost(&self, key: &str, standing: &[Value]) -> Vec<String> {
        let there = standing.iter().map(|value| value.id);
        // One in doubt excuses too: nobody can tell whether it was applied.
        let deletes = self.writes(key).filter(|write| matches!(write.call, Call::Delete(_)));
        let deletes = deletes.filter(|delete| delete.outcome != Outcome::Failed).map(|delete| delete.id);
        let mut kept = self.ancestors(there.clone().chain(deletes));
        kept.extend(there);
        let (mut items, mut counts) = (BTreeSet::new(), BTreeMap::new());
        for value in standing {
            match &value.content {
                Content::Register => {}
                Content::Cart(more) => items.extend(more.iter().copied()),
                Content::Counter(more) => merge_counts(&mut counts, more),
            }
        }
        let mut lost = Vec::new();
        for write in self.writes(key).filter(|write| write.outcome == Outcome::Ok) {
            let Call::Put(value) = &write.call else { continue };
            let id = write.id;
            let is_missing = match &value.content {
                Content::Register => false,
                Content::Cart(_) => !items.contains(&id),
                Content::Counter(own) => counts.get(&id.0) < own.get(&id.0),
            };
            if !kept.contains(&id) || is_missing {
                lost.push(format!("{key}: {id} was acknowledged, and is gone"));
            }
        }
        lost
    }

    /// What stands though it was replaced for good, and whether its put may have been sent twice.
    fn back(&self, key: &str, standing: &[Value]) -> Vec<(bool, String)> {
        let acknowledged = self.writes(key).filter(|write| write.outcome == Outcome::Ok);
        let gone = self.ancestors(acknowledged.map(|write| write.id));
        let back = standing.iter().filter(|value| gone.contains(&value.id));
        let may_retry = |id| self.writes.get(&id).is_some_and(|write| write.may_retry);
        let tell = |value: &Value| format!("{key}: {} had been replaced for good, and is back", value.id);
        back.map(|value| (may_retry(value.id), tell(value))).collect()
    }

    fn phantoms(&self) -> Vec<String> {
        let mut phantoms = Vec::new();
        for read in self.history {
            let Call::Read(seen) = &read.call else { continue };
            for id in seen {
                let sentence =
                    id.map_or_else(|| Some("nobody writes so".to_owned()), |id| self.phantom(read, id));
                phantoms
                    .extend(sentence.map(|sentence| format!("{}: read {}: {sentence}", read.key, read.id)));
            }
        }
        for value in self.at_rest.values().flatten() {
            let write = self.writes.get(&value.id).filter(|write| write.outcome != Outcome::Failed);
            let is_as_written =
                write.is_some_and(|write| matches!(&write.call, Call::Put(put) if put == value));
            if !is_as_written {
                phantoms.push(format!("{}: {} stands, and was not written so", value.key, value.id));
            }
        }
        phantoms
    }

    /// Why a read can't have seen a put.
    fn phantom(&self, read: &Operation, id: Id) -> Option<String> {
        let Some(write) = self.writes.get(&id) else { return Some(format!("nobody wrote {id}")) };
        if write.key != read.key {
            return Some(format!("{id} was put under {}", write.key));
        }
        if write.outcome == Outcome::Failed {
            return Some(format!("{id} was reported as failed"));
        }
        (write.invoked > read.returned).then(|| format!("{id} had not begun"))
    }
}

fn sentences(told: Vec<(bool, String)>) -> impl Iterator<Item = String> {
    told.into_iter().map(|(_, sentence)| sentence)
}

/// What both have counted.
pub(crate) fn merge_counts(counts: &mut BTreeMap<u16, u32>, more: &BTreeMap<u16, u32>) {
    for (&worker, &count) in more {
        let known = counts.entry(worker).or_default();
        *known = count.max(*known);
    }
}
