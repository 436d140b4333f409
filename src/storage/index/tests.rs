//! Whatever is counted as it changes is what one gets who counts it anew.

use super::*;
use crate::causality::Actor;
use crate::id::OperationId;

const P: PartitionId = PartitionId(3);

fn put(index: &mut Index, token: u64, key: &[u8], value: &'static [u8]) {
    put_until(index, token, key, value, None);
}

fn put_until(index: &mut Index, token: u64, key: &[u8], value: &'static [u8], expiry: Option<u64>) {
    index.update(P, token, key, |entry| {
        let covered = entry.state.context();
        let actor = Actor { id: 1, epoch: 1 };
        let content = Content::Value(Bytes::from_static(value));
        let expiry = expiry.map(WallTime);
        entry.state.put(actor, &covered, content, expiry, OperationId::NONE, WallTime(1));
    });
}

fn delete(index: &mut Index, token: u64, key: &[u8]) {
    index.update(P, token, key, |entry| {
        let seen = entry.state.context();
        let actor = Actor { id: 1, epoch: 1 };
        entry.state.put(actor, &seen, Content::Tombstone, None, OperationId::NONE, WallTime(1));
    });
}

/// Nobody reads them: how many versions expired.
fn expire_all(index: &mut Index, now: u64) -> usize {
    index.expire(WallTime(now), usize::MAX).versions
}

/// Whatever was counted as it changed, counted anew.
#[track_caller]
fn check_sums(index: &Index) {
    assert_eq!(index.counted(), index.recounted());
}

#[test]
fn keys_with_the_same_token_are_told_apart() {
    let mut index = Index::new(8);
    put(&mut index, 7, b"a", b"one");
    put(&mut index, 7, b"b", b"two");
    let value = |key| index.find(P, 7, key).map(|entry| entry.state.values().count());
    assert_eq!((value(b"a"), value(b"b"), value(b"c")), (Some(1), Some(1), None));
    assert_eq!((index.keys(), index.bytes()), (2, 8));
}

#[test]
fn bytes_follow_overwrites() {
    let mut index = Index::new(8);
    put(&mut index, 7, b"a", b"one");
    put(&mut index, 7, b"a", b"three");
    assert_eq!((index.keys(), index.bytes()), (1, 6));
}

#[test]
fn changes_follow_the_states() {
    let mut index = Index::new(8);
    put(&mut index, 7, b"a", b"one");
    put(&mut index, 7, b"a", b"two");
    index.update(P, 7, b"a", |_| ());
    let changes: Vec<_> = index.take_changes().collect();
    let [first, second] = changes[..] else { panic!("two writes and no more: {changes:?}") };
    let now = digest(7, &index.find(P, 7, b"a").unwrap().state);
    assert_eq!((first.before, first.after, second.after), (0, second.before, now));
    assert_eq!(index.take_changes().count(), 0);
    assert_eq!((index.under(P, 7).count(), index.under(P, 8).count()), (1, 0));
}

#[test]
fn a_partition_that_is_cleared_counts_no_more() {
    let mut index = Index::new(8);
    put(&mut index, 7, b"a", b"one");
    put(&mut index, 8, b"b", b"two");
    index.update(PartitionId(4), 9, b"c", |entry| {
        let seen = entry.state.context();
        let content = Content::Value(Bytes::from_static(b"three"));
        entry.state.put(Actor { id: 1, epoch: 1 }, &seen, content, None, OperationId::NONE, WallTime(1));
    });
    index.take_changes().for_each(drop);
    index.clear(P);
    assert_eq!((index.keys(), index.bytes(), index.keys_of(P)), (1, 6, 0));
    assert!(index.find(P, 7, b"a").is_none());
    put(&mut index, 7, b"a", b"one");
    assert_eq!((index.keys(), index.keys_of(P)), (2, 1), "and it may be held again");
}

#[test]
fn what_is_forgotten_leaves_nothing_but_the_change() {
    let mut index = Index::new(8);
    put(&mut index, 7, b"a", b"one");
    put(&mut index, 8, b"b", b"two");
    index.take_changes().for_each(drop);
    let hash = digest(7, &index.find(P, 7, b"a").unwrap().state);
    assert!(index.forget(P, 7, hash + 1).is_empty(), "it is another by now");
    assert_eq!(index.forget(P, 7, hash).len(), 1);
    assert_eq!((index.keys(), index.bytes()), (1, 4));
    assert_eq!(index.forget_all(P, |_| false).len(), 1);
    assert_eq!((index.keys(), index.bytes()), (0, 0));
    let changes: Vec<_> = index.take_changes().collect();
    assert!(changes.iter().all(|change| change.after == 0 && change.before != 0) && changes.len() == 2);
}

const SECOND: u64 = 1_000_000;

#[test]
fn what_nobody_reads_expires_all_the_same() {
    let mut index = Index::new(8);
    put_until(&mut index, 7, b"a", b"one", Some(5 * SECOND));
    put_until(&mut index, 7, b"b", b"two", Some(9 * SECOND));
    put(&mut index, 8, b"c", b"three");
    let digests: Vec<u64> = index.partition(P).map(|entry| digest(entry.token, &entry.state)).collect();
    index.take_changes().for_each(drop);
    assert_eq!(expire_all(&mut index, 4 * SECOND), 0);
    assert!(index.next_expiry(WallTime(4 * SECOND)).is_some_and(|at| at > WallTime(4 * SECOND)));
    assert_eq!(expire_all(&mut index, 6 * SECOND), 1);
    let values = |key| index.find(P, 7, key).map(|entry| entry.state.sibling_count());
    assert_eq!((values(b"a"), values(b"b")), (Some(0), Some(1)));
    assert_eq!((index.keys(), index.bytes()), (3, 11), "a tombstone stays");
    check_sums(&index);
    assert_eq!(expire_all(&mut index, 400 * 86_400 * SECOND), 1);
    assert_eq!(index.next_expiry(WallTime(0)), None);
    let after: Vec<u64> = index.partition(P).map(|entry| digest(entry.token, &entry.state)).collect();
    assert_eq!((after, index.take_changes().count()), (digests, 0), "the trees need not hear of it");
}

/// An alarm belongs to a key: whatever becomes of the key, there is one if a version expires, and else none.
#[test]
fn an_alarm_follows_its_key() {
    let mut index = Index::new(8);
    put_until(&mut index, 7, b"a", b"one", Some(5 * SECOND));
    put_until(&mut index, 7, b"a", b"two", Some(9 * SECOND));
    assert_eq!(expire_all(&mut index, 6 * SECOND), 0, "what was replaced has no time");
    put(&mut index, 7, b"a", b"three");
    assert_eq!(index.next_expiry(WallTime(0)), None);
    put_until(&mut index, 7, b"a", b"four", Some(20 * SECOND));
    let entry = index.find_current(WallTime(30 * SECOND), P, 7, b"a").unwrap();
    assert_eq!(entry.state.sibling_count(), 0);
    assert_eq!(index.next_expiry(WallTime(0)), None, "a reader came first");
    for forgets in [
        |index: &mut Index| index.clear(P),
        |index: &mut Index| drop(index.forget_all(P, |_| false)),
        |index: &mut Index| {
            let hash = digest(7, &index.find(P, 7, b"a").unwrap().state);
            drop(index.forget(P, 7, hash));
        },
    ] {
        put_until(&mut index, 7, b"a", b"five", Some(40 * SECOND));
        index.take_changes().for_each(drop);
        forgets(&mut index);
        assert_eq!((index.next_expiry(WallTime(0)), expire_all(&mut index, 50 * SECOND)), (None, 0));
        check_sums(&index);
    }
}

/// Two versions of one key, each with its own time.
#[test]
fn siblings_expire_each_in_their_time() {
    let mut index = Index::new(8);
    index.update(P, 7, b"a", |entry| {
        for (id, expiry) in [(1, Some(5 * SECOND)), (2, Some(9 * SECOND)), (3, None)] {
            let (actor, expiry) = (Actor { id, epoch: 1 }, expiry.map(WallTime));
            let blind = crate::causality::VersionVector::new();
            let content = Content::Value(Bytes::from_static(b"v"));
            entry.state.put(actor, &blind, content, expiry, OperationId::NONE, WallTime(1));
        }
    });
    check_sums(&index);
    let mut at = |now| {
        let versions = expire_all(&mut index, now);
        (versions, index.find(P, 7, b"a").unwrap().state.sibling_count())
    };
    assert_eq!([at(6 * SECOND), at(8 * SECOND), at(10 * SECOND)], [(1, 2), (0, 2), (1, 1)]);
    assert_eq!(index.next_expiry(WallTime(0)), None);
}

#[test]
fn a_turn_takes_no_more_steps_than_it_may() {
    let mut index = Index::new(8);
    let keys: Vec<[u8; 8]> = (0..1000u64).map(u64::to_be_bytes).collect();
    keys.iter()
        .zip(1..)
        .for_each(|(key, token)| put_until(&mut index, token, key, b"v", Some(token * SECOND)));
    let (mut turns, mut versions) = (0, 0);
    while index.next_expiry(WallTime(2000 * SECOND)).is_some() {
        let Expired { steps, versions: more } = index.expire(WallTime(2000 * SECOND), 16);
        assert!((1..=16).contains(&steps) && more <= steps);
        (turns, versions) = (turns + 1, versions + more);
    }
    assert_eq!((versions, index.bytes()), (1000, 8 * 1000));
    assert!(turns >= 1000 / 16);
    check_sums(&index);
}

#[test]
fn who_is_put_out_leaves_nothing_and_tombstones_stay() {
    let mut index = Index::new(8).with_seats();
    put(&mut index, 7, b"used", b"one");
    put_until(&mut index, 8, b"fleeting", b"two", Some(5 * SECOND));
    delete(&mut index, 9, b"deleted");
    (10..30).for_each(|token| put(&mut index, token, b"cold", b"three"));
    (0..2).for_each(|_| assert!(index.find_current(WallTime(1), P, 7, b"used").is_some()));
    assert_eq!(expire_all(&mut index, 6 * SECOND), 1);
    index.take_changes().for_each(drop);
    assert_eq!(
        index.put_out().map(|entry| entry.key),
        Some(b"fleeting"[..].into()),
        "what expired goes first"
    );
    let gone: Vec<_> = (0..19).map(|_| index.put_out().unwrap()).collect();
    assert!(gone.iter().all(|entry| *entry.key == *b"cold"));
    assert!(index.take_changes().all(|change| change.before != 0 && change.after == 0));
    check_sums(&index);
    // The last one that came is not put out at once.
    let last = [(); 2].map(|()| index.put_out().unwrap().key);
    assert_eq!(last, [b"used"[..].into(), b"cold"[..].into()]);
    assert!(index.put_out().is_none(), "a delete's tombstone stays");
    assert_eq!((index.keys(), index.bytes()), (1, 7));
    // What replaces the tombstone has a seat again, and what is forgotten has none.
    put(&mut index, 9, b"deleted", b"anew");
    assert!(index.seats.as_ref().is_some_and(|seats| seats.len() == 1));
    drop(index.forget_all(P, |_| false));
    assert!(index.put_out().is_none() && index.seats.as_ref().is_some_and(Seats::is_empty));
    check_sums(&index);
}

/// A table makes room for one more key before it looks whether the key is there. It grew, and what it cost then was counted
/// for good as what it had cost before.
#[test]
fn a_table_that_grows_for_a_key_that_it_has_is_counted() {
    let mut index = Index::new(8);
    for token in 0..200 {
        put(&mut index, token, &token.to_be_bytes(), b"v");
        put(&mut index, token, &token.to_be_bytes(), b"w");
        check_sums(&index);
    }
}

/// What a write may cost is known before.
#[test]
fn a_new_key_costs_no_more_than_was_foretold() {
    let mut index = Index::new(8).with_seats();
    for token in 0..5000u64 {
        let (key, value) = (token.to_be_bytes(), b"some value");
        let foretold = index.growth(P, &key) + cost::of_value(value.len());
        let before = index.memory();
        put_until(&mut index, token, &key, value, Some(SECOND));
        index.take_changes().for_each(drop);
        assert!(index.memory() - before <= foretold, "{token}: {} of {foretold}", index.memory() - before);
        if token % 3 == 0 {
            index.put_out();
            index.take_changes().for_each(drop);
        }
    }
}

#[test]
fn what_stays_empty_is_not_kept() {
    let mut index = Index::new(8);
    index.update(P, 7, b"a", |_| ());
    assert!(index.find(P, 7, b"a").is_none());
    assert_eq!((index.keys(), index.partition(P).count()), (0, 0));
}

/// Values go, and nothing else; they come back, and every sum follows.
#[test]
fn values_are_let_go_and_warmed_again() {
    let mut index = Index::new(8).with_values_on_disk();
    for token in 0..100 {
        put(&mut index, token, b"k", b"some value that takes its room");
        index.update(P, token, b"k", |entry| entry.appended = token + 1);
    }
    delete(&mut index, 200, b"gone");
    index.take_changes().for_each(drop);
    let (hot, all) = (index.find(P, 7, b"k").unwrap().state.clone(), (index.keys(), index.bytes()));
    let (before, pinned) = (index.memory(), index.pinned());
    // The records of half of them are on the disk.
    while index.cool(50) {}
    assert_eq!((index.cold(), index.keys(), index.bytes()), (50, all.0, all.1));
    check_sums(&index);
    assert!(
        index.find(P, 7, b"k").unwrap().state.is_cold() && !index.find(P, 70, b"k").unwrap().state.is_cold()
    );
    assert_eq!(
        (index.take_changes().count(), index.pinned()),
        (0, pinned),
        "nothing has changed for anybody else"
    );
    while index.cool(u64::MAX) {}
    assert_eq!((index.cold(), index.seated()), (100, 0));
    assert!(index.memory() < before);
    let place = Place { partition: P, token: 7, key: b"k" };
    assert!(index.warm(place, &hot) && index.find(P, 7, b"k").unwrap().state == hot);
    assert_eq!(index.cold(), 99);
    check_sums(&index);
    put(&mut index, 8, b"k", b"new");
    delete(&mut index, 9, b"k");
    index.forget(P, 10, digest(10, &index.find(P, 10, b"k").unwrap().state));
    index.take_changes().for_each(drop);
    check_sums(&index);
    assert_eq!(index.cold(), 96);
    index.clear(P);
    check_sums(&index);
    assert_eq!((index.cold(), index.keys()), (0, 0));
}
