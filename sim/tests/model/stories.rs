//! Mistakes that a search finds only after minutes: how each breaks its promise, told step by step.
//!
//! A story ends well without its mistake, and breaks the promise with it.

use stateright::Model;

use super::actions::Action::{self, Ask, Crash, Deliver, GiveUp, Propose, StandIn, Wipe};
use super::promises::{P1_COPIES, P5};
use super::reap::{MEETING, of_round};
use super::scope::Ask::{BlindPut, Delete, Read};
use super::scope::{Mistake, Scope};
use super::world::{Envelope, FALLBACK, Kind, Request, World};
use super::{Search, deleted_and_put_again, deleted_and_read};

/// The first round, of the first node.
const ROUND: Request = of_round((0, 0));

/// `from` the one `to` the other.
fn arrives(kind: Kind, request: Request, from: usize, to: usize) -> Action {
    // Only of a raise does anybody here hear from a node that has raised the epoch.
    Deliver(Envelope { to, from, request, kind, epoch: u8::from(kind == Kind::Raise) })
}

/// Without the mistake, messages that come of it alone are not there, and don't arrive.
fn tell(scope: Scope, mistake: Mistake, promise: &str, story: &[Action]) {
    for mistake in [None, Some(mistake)] {
        let search = Search { scope: Scope { mistake, ..scope } };
        let mut world = World::begun(&search.scope);
        for action in story {
            let can = match action {
                Deliver(envelope) => world.network.contains_key(envelope),
                _ => true,
            };
            assert!(can || mistake.is_none(), "this doesn't happen: {action:?}");
            if can {
                world.apply(&search.scope, *action);
            }
        }
        let properties = search.properties();
        let promise = properties.iter().find(|property| property.name == promise).expect("a promise");
        assert_eq!((promise.condition)(&search, &world), mistake.is_none(), "{mistake:?}");
    }
}

/// The fallback promises, and what `dies` says befalls it. It keeps a write that its target will refuse.
fn promised_and_forgotten(dies: Action) -> [Action; 13] {
    let put = Request::new(0, 2);
    [
        Propose { node: 0 },
        arrives(Kind::Propose, ROUND, 0, FALLBACK),
        arrives(Kind::Confirm, ROUND, FALLBACK, 0),
        dies,
        Ask { client: 0, ask: BlindPut, node: 0 },
        StandIn { node: 0, request: put, target: 1 },
        arrives(Kind::Keep, put, 0, FALLBACK),
        arrives(Kind::Replicated, put, FALLBACK, 0),
        arrives(Kind::Propose, ROUND, 0, 1),
        arrives(Kind::Confirm, ROUND, 1, 0),
        arrives(Kind::Propose, ROUND, 0, 2),
        arrives(Kind::Confirm, ROUND, 2, 0),
        arrives(Kind::Raise, ROUND, 0, 1),
    ]
}

#[test]
fn promising_before_that_is_durable_breaks_p1() {
    let scope = Scope { hints: 1, crashes: 1, ..deleted_and_put_again() };
    let story = promised_and_forgotten(Crash { node: FALLBACK });
    tell(scope, Mistake::PromisesBeforeDurable, P1_COPIES, &story);
}

#[test]
fn keeping_hints_before_one_was_met_breaks_p1() {
    let scope = Scope { hints: 1, wipes: 1, ..deleted_and_put_again() };
    let story = promised_and_forgotten(Wipe { node: FALLBACK });
    tell(scope, Mistake::AcknowledgesUnmet, P1_COPIES, &story);
}

/// The second node has read what is deleted, and waits for the first to repair it, while both reap.
#[test]
fn repairing_with_a_read_of_the_old_epoch_breaks_p5() {
    let (delete, read) = (Request::new(0, 1), Request::new(1, 0));
    let story = [
        Ask { client: 1, ask: Read, node: 1 },
        arrives(Kind::ReadState, read, 1, 2),
        arrives(Kind::State, read, 2, 1),
        Ask { client: 0, ask: Delete, node: 0 },
        arrives(Kind::Replicate, delete, 0, 1),
        arrives(Kind::Replicate, delete, 0, 2),
        Propose { node: 0 },
        arrives(Kind::Propose, ROUND, 0, 1),
        arrives(Kind::Confirm, ROUND, 1, 0),
        arrives(Kind::Propose, ROUND, 0, 2),
        arrives(Kind::Confirm, ROUND, 2, 0),
        arrives(Kind::Raise, ROUND, 0, 1),
        GiveUp { node: 1, request: read },
    ];
    tell(deleted_and_read(), Mistake::RepairsWithAnOldRead, P5, &story);
}

/// The third node confirms and loses its record. The second is bound by the same round.
#[test]
fn meeting_who_comes_back_while_bound_breaks_p1() {
    let put = Request::new(0, 2);
    let story = [
        Propose { node: 0 },
        arrives(Kind::Propose, ROUND, 0, 1),
        arrives(Kind::Propose, ROUND, 0, 2),
        Wipe { node: 2 },
        arrives(Kind::Lost, MEETING, 2, 1),
        arrives(Kind::Met, MEETING, 1, 2),
        Ask { client: 0, ask: BlindPut, node: 0 },
        arrives(Kind::Replicate, put, 0, 2),
        arrives(Kind::Replicated, put, 2, 0),
        arrives(Kind::Confirm, ROUND, 1, 0),
        arrives(Kind::Confirm, ROUND, 2, 0),
        arrives(Kind::Raise, ROUND, 0, 2),
    ];
    tell(Scope { wipes: 1, ..deleted_and_put_again() }, Mistake::MeetsWhileBound, P1_COPIES, &story);
}
