//! Would it be seen? Each mistake is planted in turn, and the promise that it breaks must be found broken.

use stateright::{Checker, HasDiscoveries, Model};

use super::promises::{ONCE, P1, P1_COPIES, P2, P3, P4, P5, P6, P7, P9};
use super::scope::Ask::{BlindPut, Delete, Read, Retry};
use super::scope::{Mistake, Scope};
use super::{ANY, Search, asks, deleted_and_put_again, story};

/// The story of the broken promise.
fn find(mistake: Mistake, scope: Scope, promise: &'static str) {
    let scope = Scope { mistake: Some(mistake), ..scope };
    let search = Search { scope }.checker().finish_when(HasDiscoveries::AnyOf([promise].into()));
    let checker = search.spawn_bfs().join();
    let Some(path) = checker.discovery(promise) else { panic!("{mistake:?} was not seen: {promise}") };
    println!("{mistake:?}, after {} worlds: {promise}\n{}", checker.unique_state_count(), story(&path));
}

fn anything() -> Scope {
    asks(&[&[BlindPut], ANY], &[&[BlindPut, Read]])
}

#[test]
fn replacing_what_the_client_has_not_seen_breaks_p1() {
    find(Mistake::ReplacesTheUnseen, anything(), P1);
}

#[test]
fn taking_the_last_message_for_the_newest_breaks_p1() {
    find(Mistake::LastMessageWins, anything(), P1);
}

#[test]
fn swapping_the_values_of_siblings_breaks_p2() {
    find(Mistake::SwapsValues, anything(), P2);
}

#[test]
fn answering_a_put_with_the_context_of_siblings_breaks_p3() {
    find(Mistake::TellsTheUnshown, anything(), P3);
}

#[test]
fn merging_by_union_breaks_p4() {
    find(Mistake::MergesByUnion, anything(), P4);
}

#[test]
fn dropping_the_clock_of_a_delete_breaks_p5() {
    find(Mistake::DropsTheClock, anything(), P5);
}

/// riak_kv #679.
#[test]
fn keeping_the_old_name_after_a_wipe_breaks_p6() {
    find(Mistake::KeepsItsName, Scope { wipes: 1, ..anything() }, P6);
}

#[test]
fn repairing_nobody_breaks_p7() {
    find(Mistake::RepairsNobody, anything(), P7);
}

#[test]
fn counting_an_incomplete_replica_breaks_p9() {
    find(Mistake::CountsTheEmpty, Scope { wipes: 1, ..asks(&[&[BlindPut]], &[&[Read]]) }, P9);
}

#[test]
fn acknowledging_what_nobody_has_heard_of_breaks_p9() {
    find(Mistake::AcknowledgesUnheard, anything(), P9);
}

#[test]
fn showing_both_twins_shows_a_write_twice() {
    find(Mistake::ShowsTwins, asks(&[&[BlindPut], &[Retry]], &[&[Read]]), ONCE);
}

fn hinted() -> Scope {
    Scope { hints: 1, ..asks(&[&[BlindPut]], &[]) }
}

#[test]
fn dropping_a_hint_before_the_answer_breaks_p1() {
    find(Mistake::DropsBeforeTheAnswer, hinted(), P1_COPIES);
}

/// scylla #24415.
#[test]
fn counting_a_failed_replay_as_done_breaks_p1() {
    find(Mistake::FailedReplayIsDone, Scope { crashes: 1, ..hinted() }, P1_COPIES);
}

/// It takes W = 3: with less, the coordinator and either of the two are enough.
#[test]
fn counting_a_primary_and_its_fallback_twice_breaks_p1() {
    find(Mistake::CountsTwice, Scope { read: 1, write: 3, ..hinted() }, P1_COPIES);
}

fn reaped() -> Scope {
    Scope { reaps: 1, ..asks(&[&[BlindPut], &[Delete]], &[]) }
}

/// scylla #23712.
#[test]
fn reaping_while_a_hint_waits_breaks_p1() {
    find(Mistake::IgnoresPendingHints, Scope { hints: 1, ..deleted_and_put_again() }, P1_COPIES);
}

#[test]
fn taking_messages_of_any_epoch_breaks_p5() {
    find(Mistake::TakesAnyEpoch, reaped(), P5);
}

/// riak_kv PR 1094, the doomstone.
#[test]
fn reaping_the_epoch_too_breaks_p1() {
    find(Mistake::ReapsTheEpochToo, deleted_and_put_again(), P1);
}

#[test]
fn acknowledging_before_one_was_met_breaks_p1() {
    find(Mistake::AcknowledgesUnmet, Scope { wipes: 1, ..deleted_and_put_again() }, P1_COPIES);
}
