//! A model check of the smallest scope: three nodes, one that stands in for them, one key, two clients, and every
//! order of events.
//!
//! [`stateright`] walks through every world that can come of a few requests: each message may arrive in any
//! order, late, twice or never; each deadline may come at any time; a process may be killed at any moment, and
//! come back with its record or with nothing. The machines are the server's own (`Siblings`, `Replica`,
//! `PutQuorum`, `GetQuorum`, `HintStore`); what the shard does between them is told again in `steps.rs`, in a page.
//! Each promise of a key is a property (`promises.rs`), held against a history that the system has no part in.
//!
//! That the check can fail is checked too: `mistakes.rs` plants one at least for each promise, and it must be found.
//! And each search names the rare states that it must come to, so that a scope doesn't shrink unseen.
//!
//! Where the simulator plays few of many long stories, this plays all of the short ones. Not here: expiry,
//! several keys, sibling limits, frames, links and failure detection, a log (what is appended is durable at
//! once), a fallback that coordinates, membership.
//!
//! # What keeps it small
//!
//! - Messages are a set: one that arrived stays and may arrive again, one that is lost never arrives. So loss and
//!   repetition cost no states of their own.
//! - Nodes are alike, so whom a client asks first may be given a number by that. Only the order of actor ids
//!   tells nodes apart, and `world.rs` shuffles these.
//! - Answers to a request that has ended are taken off: its coordinator doesn't know it any more.
//! - A hint is on its way as soon as it is kept: it may arrive at once, late, again, or never.
//! - In scopes with a reap only those die who have confirmed or promised: others die in other scopes.
//!
//! # How it grows
//!
//! Another kind of message is a variant of `Message`, another event one of `Action`. Hints (`fallback.rs`) are both, and
//! a fourth node; reaping (`reap.rs`) is the protocol written out in a page, until the server has a machine for it. P5 then
//! says what it must: nothing deleted is seen again. A scope may begin with steps that are `played`, to get
//! further; a mistake that a search sees only after minutes is told as a story (`stories.rs`).
//!
//! # How to run it
//!
//! `cargo test -p ringmain-sim --test model` takes seconds. The larger scopes take ten minutes and 4 GB:
//! `cargo test -p ringmain-sim --test model -- --ignored --nocapture --test-threads 1`

mod actions;
mod fallback;
mod mistakes;
mod promises;
mod rare;
mod reap;
mod replica;
mod scope;
mod steps;
mod stories;
mod world;

use stateright::{Checker, Expectation, HasDiscoveries, Model, Path, Property};

use actions::Action;
use scope::Ask::{BlindPut, Delete, Overwrite, Put, Read, Retry};
use scope::{Ask, Scope};
use world::{NODES, World};

/// The search copies worlds all the time, and takes half as long with this.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A search through all worlds of a scope.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    scope: Scope,
}

impl Model for Search {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::begun(&self.scope)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        actions::possible(&self.scope, world, actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        next.apply(&self.scope, action);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = promises::promises();
        properties.extend(rare::states());
        properties
    }
}

/// Goes through all worlds of a scope: every promise holds in all of them, and these rare states are among them.
fn check(scope: Scope, must_reach: &[&'static str]) {
    let search = Search { scope };
    let properties = search.properties();
    let checker = search.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let (worlds, steps) = (checker.unique_state_count(), checker.state_count());
    println!("{worlds} worlds, {steps} steps between them, {} deep", checker.max_depth());
    let found = checker.discoveries();
    for promise in properties.iter().filter(|property| property.expectation == Expectation::Always) {
        if let Some(path) = found.get(promise.name) {
            panic!("broken: {}\n{}", promise.name, story(path));
        }
    }
    for state in must_reach {
        assert!(found.contains_key(state), "never reached: {state}");
    }
}

/// How a world came about, an action a line.
fn story(path: &Path<World, Action>) -> String {
    let actions = path.clone().into_actions();
    actions.iter().enumerate().map(|(at, action)| format!("{:>3}. {action:?}\n", at + 1)).collect()
}

/// What these two clients ask for; R = W = 2, and no process dies.
fn asks(first: &'static [&'static [Ask]], second: &'static [&'static [Ask]]) -> Scope {
    Scope {
        steps: [first, second],
        played: 0,
        told: NODES,
        read: 2,
        write: 2,
        crashes: 0,
        wipes: 0,
        hints: 0,
        reaps: 0,
        overs: 0,
        mistake: None,
    }
}

const ANY: &[Ask] = &[Read, BlindPut, Put, Delete];

#[test]
fn puts_deletes_reads_and_repairs() {
    let scope = asks(&[&[BlindPut], ANY], &[&[BlindPut, Read]]);
    check(
        scope,
        &[
            rare::SIBLINGS_READ,
            rare::REPAIR,
            rare::UNACKNOWLEDGED_READ,
            rare::TOMBSTONE_BESIDE_PUT,
            rare::OLD_COPY_LATE,
        ],
    );
}

#[test]
fn overwrites() {
    check(
        asks(&[&[BlindPut], &[Put, Overwrite]], &[&[BlindPut, Read]]),
        &[rare::SIBLINGS_READ, rare::REPAIR],
    );
}

#[test]
fn other_quorums_that_overlap() {
    for (read, write) in [(1, 3), (3, 1)] {
        let steps = asks(&[&[BlindPut], &[Put, Delete]], &[&[BlindPut, Read]]);
        check(
            Scope { read, write, ..steps },
            &[rare::REPAIR, rare::TOMBSTONE_BESIDE_PUT, rare::OLD_COPY_LATE],
        );
    }
}

#[test]
fn a_process_is_killed_and_comes_back_with_its_record() {
    let steps = asks(&[&[BlindPut], &[Delete]], &[&[BlindPut, Read]]);
    check(Scope { crashes: 1, ..steps }, &[rare::REPAIR, rare::UNACKNOWLEDGED_READ, rare::OLD_COPY_LATE]);
}

#[test]
fn a_process_is_killed_and_comes_back_with_nothing() {
    let steps = asks(&[&[BlindPut], &[Delete]], &[&[BlindPut, Read]]);
    let must_reach = [rare::REPAIR, rare::OLD_COPY_LATE, rare::INCOMPLETE_WAITS, rare::WIPED_MINTS];
    check(Scope { wipes: 1, ..steps }, &must_reach);
}

#[test]
fn a_write_is_sent_again() {
    let scope = asks(&[&[BlindPut], &[Retry]], &[&[Overwrite, Read]]);
    check(scope, &[rare::SECOND_DOT, rare::TWINS_READ, rare::RETRY_KNOWN]);
}

#[test]
fn a_fallback_keeps_a_write_for_a_primary() {
    let steps = asks(&[&[BlindPut], &[Delete]], &[]);
    let must_reach = [rare::FALLBACK_COUNTED, rare::HINT_GREW, rare::HINT_FOR_NOTHING, rare::OLD_HINT_LATE];
    check(Scope { hints: 2, ..steps }, &must_reach);
}

#[test]
fn a_fallback_tells_a_reader() {
    let steps = asks(&[&[BlindPut]], &[&[Read]]);
    check(Scope { hints: 1, ..steps }, &[rare::FALLBACK_COUNTED, rare::FALLBACK_READ, rare::REPAIR]);
}

#[test]
fn a_fallback_is_killed_and_comes_back_with_what_it_kept() {
    let steps = asks(&[&[BlindPut], &[Delete]], &[]);
    check(Scope { hints: 1, crashes: 1, ..steps }, &[rare::FALLBACK_COUNTED, rare::OLD_HINT_LATE]);
}

#[test]
fn a_fallback_or_a_primary_is_killed_and_comes_back_with_nothing() {
    let scope = Scope { hints: 1, wipes: 1, ..asks(&[&[BlindPut], &[Delete]], &[]) };
    check(scope, &[rare::FALLBACK_COUNTED, rare::ONLY_HINT, rare::OLD_HINT_LATE]);
    check(Scope { read: 1, write: 3, ..scope }, &[rare::FALLBACK_COUNTED]);
}

#[test]
fn a_tombstone_is_reaped() {
    let steps = asks(&[&[BlindPut], &[Delete]], &[]);
    check(Scope { reaps: 1, ..steps }, &[rare::OLD_REFUSED, rare::DISAGREED]);
}

/// The delete is on all nodes, and what was sent may still arrive once more.
fn deleted_and_put_again() -> Scope {
    Scope { played: 2, reaps: 1, ..asks(&[&[BlindPut], &[Delete], &[BlindPut]], &[]) }
}

/// Two nodes of three have what is deleted, and somebody reads.
fn deleted_and_read() -> Scope {
    Scope { played: 1, told: 2, reaps: 1, ..asks(&[&[BlindPut], &[Delete]], &[&[Read]]) }
}

#[test]
fn a_key_is_put_again_while_its_tombstone_is_reaped() {
    let must_reach = [rare::LAGS, rare::CAUGHT_UP, rare::KEPT_BESIDE, rare::PUT_AGAIN, rare::OLD_REFUSED];
    check(deleted_and_put_again(), &must_reach);
}

#[test]
fn a_tombstone_is_reaped_while_hints_are_kept() {
    let scope = Scope { hints: 1, ..deleted_and_put_again() };
    check(scope, &[rare::HINT_REFUSED, rare::REAP_WAITS, rare::FALLBACK_COUNTED]);
}

#[test]
fn a_round_is_given_up() {
    let deleted = asks(&[&[BlindPut], &[Delete]], &[]);
    let scope = Scope { played: 2, reaps: 2, overs: 1, ..deleted };
    check(scope, &[rare::SECOND_ROUND, rare::STILL_BOUND]);
}

#[test]
fn a_process_is_killed_during_a_reap() {
    check(Scope { crashes: 1, ..deleted_and_put_again() }, &[rare::CAUGHT_UP, rare::KEPT_BESIDE]);
}

/// The same with more steps or more deaths. What each takes was measured on one core, beside other work.
mod larger {
    use super::*;

    #[test]
    #[ignore = "takes half a minute: cargo test -p ringmain-sim --test model -- --ignored"]
    fn two_steps_each() {
        let scope = asks(&[&[BlindPut], &[Put, Delete]], &[&[BlindPut], &[Read, Delete]]);
        check(scope, &[rare::SIBLINGS_READ, rare::TOMBSTONE_BESIDE_PUT, rare::OLD_COPY_LATE]);
    }

    #[test]
    #[ignore = "takes a minute: cargo test -p ringmain-sim --test model -- --ignored"]
    fn a_write_is_sent_again_after_it_was_read_and_replaced() {
        let scope = asks(&[&[BlindPut], &[Retry]], &[&[BlindPut, Read], &[Put, Delete]]);
        check(scope, &[rare::SECOND_DOT, rare::TWINS_READ, rare::RETRY_KNOWN, rare::APPLIED_AGAIN]);
    }

    #[test]
    #[ignore = "takes half a minute: cargo test -p ringmain-sim --test model -- --ignored"]
    fn anything_with_a_crash() {
        let steps = asks(&[&[BlindPut], ANY], &[&[BlindPut, Read]]);
        check(Scope { crashes: 1, ..steps }, &[rare::SIBLINGS_READ, rare::REPAIR]);
    }

    #[test]
    #[ignore = "takes half a minute: cargo test -p ringmain-sim --test model -- --ignored"]
    fn anything_with_a_wipe() {
        let steps = asks(&[&[BlindPut], ANY], &[&[BlindPut, Read]]);
        check(Scope { wipes: 1, ..steps }, &[rare::SIBLINGS_READ, rare::INCOMPLETE_WAITS, rare::WIPED_MINTS]);
    }

    #[test]
    #[ignore = "takes half a minute: cargo test -p ringmain-sim --test model -- --ignored"]
    fn a_crash_and_a_wipe() {
        let steps = asks(&[&[BlindPut], &[Put, Delete]], &[&[BlindPut, Read]]);
        let must_reach = [rare::OLD_COPY_LATE, rare::INCOMPLETE_WAITS, rare::WIPED_MINTS];
        check(Scope { crashes: 1, wipes: 1, ..steps }, &must_reach);
    }

    #[test]
    #[ignore = "takes half a minute: cargo test -p ringmain-sim --test model -- --ignored"]
    fn a_record_is_lost_during_a_reap() {
        check(Scope { wipes: 1, ..deleted_and_put_again() }, &[rare::OLD_LIFE, rare::UNMET]);
    }

    #[test]
    #[ignore = "takes half a minute: cargo test -p ringmain-sim --test model -- --ignored"]
    fn a_tombstone_is_reaped_during_a_read() {
        check(deleted_and_read(), &[rare::OLD_REFUSED, rare::LAGS, rare::DISAGREED]);
    }

    #[test]
    #[ignore = "takes half a minute: cargo test -p ringmain-sim --test model -- --ignored"]
    fn a_tombstone_is_reaped_beside_a_put() {
        let steps = asks(&[&[BlindPut], &[Delete]], &[&[BlindPut]]);
        check(Scope { reaps: 1, ..steps }, &[rare::KEPT_BESIDE, rare::DISAGREED]);
    }

    #[test]
    #[ignore = "takes half a minute: cargo test -p ringmain-sim --test model -- --ignored"]
    fn a_process_is_killed_during_a_reap_with_hints() {
        let scope = Scope { hints: 1, crashes: 1, ..deleted_and_put_again() };
        check(scope, &[rare::HINT_REFUSED, rare::REAP_WAITS]);
    }

    #[test]
    #[ignore = "takes five minutes and 4 GB: cargo test -p ringmain-sim --test model -- --ignored"]
    fn a_record_is_lost_during_a_reap_with_hints() {
        let scope = Scope { hints: 1, wipes: 1, ..deleted_and_put_again() };
        check(scope, &[rare::OLD_LIFE, rare::UNMET]);
    }

    #[test]
    #[ignore = "takes more than six minutes: cargo test -p ringmain-sim --test model -- --ignored"]
    fn a_round_is_given_up_while_the_key_is_put_again() {
        let scope = Scope { reaps: 2, overs: 1, ..deleted_and_put_again() };
        check(scope, &[rare::SECOND_ROUND, rare::STILL_BOUND]);
    }

    #[test]
    #[ignore = "takes a minute: cargo test -p ringmain-sim --test model -- --ignored"]
    fn a_second_round() {
        check(Scope { reaps: 2, crashes: 1, ..deleted_and_put_again() }, &[rare::CAUGHT_UP]);
    }

    #[test]
    #[ignore = "takes half a minute: cargo test -p ringmain-sim --test model -- --ignored"]
    fn a_fallback_keeps_a_write_for_a_primary_and_somebody_reads() {
        let steps = asks(&[&[BlindPut], &[Delete]], &[&[Read]]);
        check(Scope { hints: 1, ..steps }, &[rare::FALLBACK_READ, rare::OLD_HINT_LATE]);
    }
}
