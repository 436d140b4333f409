//! The verdict can be "guilty": made-up histories with every kind of fault, and some without.

use std::collections::BTreeMap;
use std::time::Instant;

use super::clients::history::{Call, Content, Id, Operation, Outcome, Value};
use super::clients::verdict::{AtRest, Verdict};

const KEY: &str = "key";

struct Story {
    history: Vec<Operation>,
    at_rest: AtRest,
}

impl Story {
    fn new() -> Self {
        Self { history: Vec::new(), at_rest: BTreeMap::from([(KEY.to_owned(), Vec::new())]) }
    }

    fn note(&mut self, id: Id, call: Call, outcome: Outcome) {
        let (key, now) = (KEY.to_owned(), Instant::now());
        self.history.push(Operation {
            id,
            key,
            call,
            may_retry: false,
            invoked: now,
            returned: now,
            outcome,
        });
    }

    fn put(&mut self, replaced: &[Id], content: Content, outcome: Outcome) -> Value {
        let id = Id(1, self.history.len() as u32);
        let replaced = replaced.iter().copied().collect();
        let value = Value { id, key: KEY.to_owned(), replaced, content };
        self.note(id, Call::Put(value.clone()), outcome);
        value
    }

    fn register(&mut self, replaced: &[Id], outcome: Outcome) -> Value {
        self.put(replaced, Content::Register, outcome)
    }

    fn delete(&mut self, replaced: &[Id], outcome: Outcome) {
        let id = Id(1, self.history.len() as u32);
        self.note(id, Call::Delete(replaced.iter().copied().collect()), outcome);
    }

    fn read(&mut self, seen: Option<Id>) {
        self.note(Id(2, self.history.len() as u32), Call::Read(vec![seen]), Outcome::Ok);
    }

    fn stands(&mut self, values: &[&Value]) {
        self.at_rest.insert(KEY.to_owned(), values.iter().map(|&value| value.clone()).collect());
    }

    fn verdict(&self) -> Verdict {
        Verdict::of(&self.history, &self.at_rest, false)
    }

    /// How many were lost, resurrected and made up.
    fn faults(&self) -> (usize, usize, usize) {
        let verdict = self.verdict();
        (verdict.lost.len(), verdict.resurrected.len(), verdict.phantoms.len())
    }
}

#[test]
fn what_stands_or_was_read_and_replaced_is_not_lost() {
    let mut story = Story::new();
    let first = story.register(&[], Outcome::Ok);
    let doubtful = story.register(&[first.id], Outcome::Unknown);
    let last = story.register(&[doubtful.id], Outcome::Ok);
    let sibling = story.register(&[first.id], Outcome::Ok);
    story.register(&[last.id], Outcome::Unknown);
    story.register(&[last.id], Outcome::Failed);
    story.read(Some(doubtful.id));
    story.stands(&[&last, &sibling]);
    story.verdict().assert_clean("a good story");
}

#[test]
fn an_acknowledged_put_that_nothing_descends_from_is_lost() {
    let mut story = Story::new();
    let milk = story.register(&[], Outcome::Ok);
    let eggs = story.register(&[], Outcome::Ok);
    story.stands(&[&eggs]);
    assert_eq!(story.faults(), (1, 0, 0));
    story.stands(&[]);
    assert_eq!(story.faults(), (2, 0, 0));
    story.delete(&[milk.id], Outcome::Failed);
    assert_eq!(story.faults(), (2, 0, 0), "a delete that failed took nothing with it");
    story.delete(&[milk.id], Outcome::Unknown);
    assert_eq!(story.faults(), (1, 0, 0));
}

#[test]
#[should_panic(expected = "#1.0 was acknowledged, and is gone")]
fn a_lost_put_ends_the_test() {
    let mut story = Story::new();
    story.register(&[], Outcome::Ok);
    story.verdict().assert_clean("a bad story");
}

/// The put descends from its forebear, but its writer forgot an item of it.
#[test]
fn an_item_may_be_lost_though_its_version_was_replaced_in_order() {
    let mut story = Story::new();
    let milk = story.put(&[], Content::Cart([Id(1, 0)].into()), Outcome::Ok);
    let eggs = story.put(&[milk.id], Content::Cart([Id(1, 1)].into()), Outcome::Ok);
    story.stands(&[&eggs]);
    assert_eq!(story.faults(), (1, 0, 0));
}

#[test]
fn a_count_may_not_fall() {
    let mut story = Story::new();
    let count = |count| Content::Counter([(1, count)].into());
    let one = story.put(&[], count(1), Outcome::Ok);
    let two = story.put(&[one.id], count(2), Outcome::Ok);
    story.stands(&[&two]);
    story.verdict().assert_clean("two were counted");
    let again = story.put(&[two.id], count(1), Outcome::Unknown);
    story.stands(&[&again]);
    assert_eq!(story.faults(), (1, 0, 0));
}

#[test]
fn what_was_replaced_for_good_stays_away() {
    let mut story = Story::new();
    let milk = story.register(&[], Outcome::Ok);
    let eggs = story.register(&[milk.id], Outcome::Unknown);
    story.delete(&[eggs.id], Outcome::Unknown);
    story.stands(&[&eggs]);
    story.verdict().assert_clean("the delete may not have been applied");
    story.delete(&[eggs.id], Outcome::Ok);
    assert_eq!(story.faults(), (0, 1, 0));
    story.stands(&[&milk]);
    assert_eq!(story.faults(), (0, 1, 0));
    story.stands(&[]);
    story.verdict().assert_clean("both are gone");
}

/// The first try of a put may be found after the second was replaced.
#[test]
fn what_was_sent_twice_may_be_shown_again() {
    let mut story = Story::new();
    let milk = story.register(&[], Outcome::Ok);
    let eggs = story.register(&[milk.id], Outcome::Ok);
    story.stands(&[&milk, &eggs]);
    assert_eq!((story.faults(), story.verdict().shown_again.len()), ((0, 1, 0), 0));
    story.history[0].may_retry = true;
    assert_eq!((story.faults(), story.verdict().shown_again.len()), ((0, 0, 0), 1));
}

#[test]
fn what_nobody_wrote_is_a_phantom() {
    let mut story = Story::new();
    story.read(None);
    story.read(Some(Id(7, 7)));
    let refused = story.register(&[], Outcome::Failed);
    story.read(Some(refused.id));
    assert_eq!(story.faults(), (0, 0, 3));
    let mut changed = story.register(&[], Outcome::Unknown);
    changed.replaced = [refused.id].into();
    story.stands(&[&refused, &changed]);
    assert_eq!(story.faults(), (0, 0, 5));
}

#[test]
fn a_put_is_not_read_before_it_begins() {
    let mut story = Story::new();
    story.read(Some(Id(1, 1)));
    let past = story.history[0].returned;
    while Instant::now() == past {}
    story.register(&[], Outcome::Ok);
    story.delete(&[Id(1, 1)], Outcome::Ok);
    assert_eq!(story.faults(), (0, 0, 1));
}

#[test]
#[should_panic(expected = "some keys were not read at rest")]
fn every_key_is_read_at_rest() {
    let mut story = Story::new();
    story.register(&[], Outcome::Ok);
    story.at_rest.clear();
    story.verdict();
}
