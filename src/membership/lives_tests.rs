//! Processes under one name, by gossip alone.

use super::Membership;
use super::records::tests::{exchange, node};
use crate::id::Incarnation;

const NAMES: [&str; 3] = ["a", "b", "c"];

/// The process of this number.
fn process(name: &str, life: u64) -> Membership {
    node(name, &NAMES, false).with_life(life)
}

fn born() -> [Membership; 3] {
    let [mut a, mut b, mut c] = [("a", 11), ("b", 12), ("c", 13)].map(|(name, life)| process(name, life));
    for _ in 0..3 {
        exchange(&mut a, &mut b);
        exchange(&mut a, &mut c);
        exchange(&mut b, &mut c);
    }
    [a, b, c]
}

/// A process that starts from this one's log, or from an older one.
fn restarted(log: &ringmain_schema::peer::Gossip, life: u64) -> Membership {
    let mut again = process("a", life);
    again.recover(log);
    again
}

fn meet(left: &mut Membership, right: &mut Membership) {
    (0..3).for_each(|_| exchange(left, right));
}

/// P9: a disk was put back as it was before the last life. The process that started from it crashed before it met anybody,
/// and the next one had a later incarnation than anybody remembered: it served as complete.
#[test]
fn an_old_disk_is_incomplete_however_often_it_starts_unmet() {
    let [a, mut b, _] = born();
    let old = a.to_log();
    let mut lost = restarted(&old, 21);
    meet(&mut lost, &mut b);
    assert!(lost.oneself().serving && lost.oneself().complete);

    let mut log = old;
    for life in 31..40 {
        log = restarted(&log, life).to_log();
    }
    let mut again = restarted(&log, 40);
    assert!(again.oneself().incarnation > lost.oneself().incarnation, "as if it were the later one");
    meet(&mut again, &mut b);
    assert!(again.oneself().serving && !again.oneself().complete);
}

/// It must stay complete, whoever has heard of which of its lives: all nodes may lose power again and again.
#[test]
fn a_disk_that_was_there_all_the_time_is_complete_however_often_it_starts() {
    let [a, mut b, mut c] = born();
    let mut log = a.to_log();
    for life in 31..40 {
        let mut again = restarted(&log, life);
        if life == 33 {
            meet(&mut again, &mut b);
        }
        log = again.to_log();
    }
    let mut again = restarted(&log, 40);
    meet(&mut again, &mut c);
    meet(&mut again, &mut b);
    assert!(again.oneself().serving && again.oneself().complete);
    assert_eq!(again.oneself().incarnation, Incarnation(11));
}

/// P9: whoever had been fenced, and was started again, met a member that had forgotten all: it served as complete, without
/// what its successor had acknowledged.
#[test]
fn who_was_fenced_is_incomplete_when_it_starts_again() {
    let [mut a, mut b, _] = born();
    let mut second = process("a", 21);
    meet(&mut second, &mut b);
    exchange(&mut a, &mut b);
    assert!(a.is_fenced() && second.oneself().serving);
    let mut forgetful = process("b", 22);
    let mut again = restarted(&a.to_log(), 31);
    meet(&mut again, &mut forgetful);
    assert!(!again.is_fenced() && !again.oneself().complete);
}

/// P13: a second process was turned away by all but a member that had just restarted, and told that one of itself: its word
/// was the later, and the first one was fenced.
#[test]
fn who_is_turned_away_says_nothing_of_itself() {
    for is_copy in [false, true] {
        let [mut a, mut b, c] = born();
        let mut second = if is_copy { restarted(&a.to_log(), 21) } else { process("a", 21) };
        second.on_turned_away(b.me());
        let mut forgetful = process("c", 23);
        meet(&mut second, &mut forgetful);
        meet(&mut forgetful, &mut b);
        meet(&mut second, &mut forgetful);
        meet(&mut a, &mut forgetful);
        assert!(a.oneself().serving && !a.is_fenced() && !second.oneself().serving);
        // The first is gone: nobody turns the second away any more.
        meet(&mut second, &mut b);
        assert!(second.oneself().serving);
        assert!(!second.oneself().complete, "the first one has gone on beside it");
        drop((a, c));
    }
}

/// Who has turned it away may die, and not be there to let it in.
#[test]
fn who_was_turned_away_goes_on_when_nobody_says_so_any_more() {
    let [_, mut b, c] = born();
    let mut second = process("a", 21);
    second.on_turned_away(c.me());
    (0..9).for_each(|_| exchange(&mut second, &mut b));
    assert!(!second.oneself().serving);
    (0..4).for_each(|_| exchange(&mut second, &mut b));
    assert!(second.oneself().serving);
}

/// P9: a second process with a copy of the disk waited while the first one went on writing. When the first died it took the
/// copy for the node's records (the simulator's seed 12101000000288).
#[test]
fn a_copy_that_was_turned_away_is_incomplete_and_so_is_what_comes_after_it() {
    let [a, mut b, _] = born();
    let mut second = restarted(&a.to_log(), 21);
    assert!(second.oneself().complete);
    second.on_turned_away(b.me());
    assert!(!second.oneself().complete);
    let mut again = restarted(&second.to_log(), 31);
    meet(&mut again, &mut b);
    assert!(again.oneself().serving && !again.oneself().complete);
}
