//! Random histories on three replicas, held against a naive model and against the laws of merging.
//!
//! In the model each version carries its full causal history, a set of dots, and a replica is the set of all
//! versions it has heard of. Nothing is ever compressed or discarded, so it's plainly right, and slow.
//! `PROPTEST_CASES=100000` in the environment looks longer.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{Actor, Content, Dot, Siblings, VersionVector};
use crate::id::OperationId;
use crate::time::WallTime;

const REPLICAS: usize = 3;
const CLIENTS: usize = 2;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The client remembers this replica's context.
    Read { client: usize, replica: usize },
    /// A put or a delete, with the client's context or blind.
    Write { client: usize, replica: usize, blind: bool, delete: bool, lives: Option<u64> },
    /// The last write again, as it was, on another replica, unless that one knows it.
    Retry { replica: usize },
    /// One replica's whole state arrives at another.
    Merge { from: usize, to: usize },
    /// The replica loses its record; its next mint opens a new epoch.
    Wipe { replica: usize },
    /// The replica's wall clock comes to this time.
    Expire { replica: usize, now: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Event {
    /// All dots this version knew of, its own included.
    history: BTreeSet<Dot>,
    number: Option<u32>,
    expiry: Option<u64>,
    operation: OperationId,
}

#[derive(Clone, Debug)]
struct Replica {
    actor: Actor,
    state: Siblings<u32>,
    events: BTreeMap<Dot, Event>,
    buried: BTreeSet<Dot>,
}

#[derive(Clone, Debug, Default)]
struct Context {
    vector: VersionVector,
    dots: BTreeSet<Dot>,
}

#[derive(Clone, Debug)]
struct Write {
    context: Context,
    number: Option<u32>,
    expiry: Option<u64>,
    operation: OperationId,
}

impl Replica {
    fn known(&self) -> BTreeSet<Dot> {
        self.events.values().flat_map(|event| event.history.iter().copied()).collect()
    }

    /// By the definition: what no other version has in its history, each operation once, no tombstones.
    fn expected_values(&self) -> Vec<(Dot, u32)> {
        let superseded =
            |dot: &Dot| self.events.iter().any(|(other, event)| other != dot && event.history.contains(dot));
        let mut operations = BTreeSet::new();
        let standing = self.events.iter().filter(|(dot, _)| !superseded(dot));
        let first = standing.filter(|(_, event)| {
            let name = (event.operation.client, event.operation.sequence);
            event.operation == OperationId::NONE || operations.insert(name)
        });
        let values = first.filter(|(dot, _)| !self.buried.contains(dot));
        values.filter_map(|(dot, event)| Some((*dot, event.number?))).collect()
    }

    fn write(&mut self, write: &Write) {
        let content = write.number.map_or(Content::Tombstone, Content::Value);
        let (covered, expiry) = (&write.context.vector, write.expiry.map(WallTime));
        assert!(self.state.has_room_for(self.actor, covered));
        let dot = self.state.put(self.actor, covered, content, expiry, write.operation, WallTime(0));
        let mut history = write.context.dots.clone();
        history.insert(dot);
        let event = Event { history, number: write.number, expiry: write.expiry, operation: write.operation };
        assert_eq!(self.events.insert(dot, event), None, "one dot, one version");
    }

    fn merge(&mut self, other: &Self) {
        let foretold = self.state.would_change(&other.state);
        let before = self.state.clone();
        let changed = self.state.merge(&other.state);
        assert_eq!((foretold, changed), (changed, before != self.state));
        self.events.extend(other.events.iter().map(|(dot, event)| (*dot, event.clone())));
        self.buried.extend(&other.buried);
    }

    fn expire(&mut self, now: u64) {
        self.state.expire(WallTime(now));
        let due = self.events.iter().filter(|(_, event)| event.expiry.is_some_and(|at| at <= now));
        self.buried.extend(due.map(|(dot, _)| *dot));
    }

    fn check(&self, minted: &BTreeSet<Dot>) {
        let values: Vec<(Dot, u32)> = self
            .state
            .values()
            .map(|version| match version.content {
                Content::Value(number) => (version.dot, number),
                Content::Tombstone => panic!("a tombstone is no value"),
            })
            .collect();
        assert_eq!(values, self.expected_values());
        let context = self.state.context();
        let covered: BTreeSet<Dot> = minted.iter().copied().filter(|dot| context.covers(*dot)).collect();
        assert_eq!(covered, self.known(), "the context covers exactly what was seen");
        let copy = Siblings::from_parts(self.state.clock().to_vec(), self.state.versions().to_vec());
        assert_eq!(copy.as_ref(), Ok(&self.state), "every state is fit to be sent");
    }
}

/// Runs a history, comparing after each step; all states it went through.
fn run(steps: &[Step]) -> Vec<Siblings<u32>> {
    let replica = |id| Replica {
        actor: Actor { id, epoch: 0 },
        state: Siblings::new(),
        events: BTreeMap::new(),
        buried: BTreeSet::new(),
    };
    let mut replicas: [Replica; REPLICAS] = [replica(1), replica(2), replica(3)];
    let mut contexts: [Context; CLIENTS] = Default::default();
    let mut last: Option<Write> = None;
    let mut minted = BTreeSet::new();
    let mut states = vec![];
    for (number, &step) in steps.iter().enumerate() {
        match step {
            Step::Read { client, replica } => {
                let source = &replicas[replica];
                contexts[client] = Context { vector: source.state.context(), dots: source.known() };
            }
            Step::Write { client, replica, blind, delete, lives } => {
                let write = Write {
                    context: if blind { Context::default() } else { contexts[client].clone() },
                    number: (!delete).then_some(number as u32),
                    expiry: if delete { None } else { lives },
                    operation: OperationId { client: client as u64, sequence: number as u64 },
                };
                replicas[replica].write(&write);
                last = Some(write);
            }
            Step::Retry { replica } => {
                if let Some(write) = &last
                    && replicas[replica].state.contains_operation(write.operation).is_none()
                {
                    replicas[replica].write(write);
                }
            }
            Step::Merge { from, to } => {
                let source = replicas[from].clone();
                replicas[to].merge(&source);
            }
            Step::Wipe { replica } => {
                let lost = &mut replicas[replica];
                lost.actor.epoch += 1;
                (lost.state, lost.events) = (Siblings::new(), BTreeMap::new());
                lost.buried = BTreeSet::new();
            }
            Step::Expire { replica, now } => replicas[replica].expire(now),
        }
        for replica in &replicas {
            minted.extend(replica.events.keys().copied());
            replica.check(&minted);
        }
        states.extend(replicas.iter().map(|replica| replica.state.clone()));
    }
    states
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (client, replica) = (0..CLIENTS, 0..REPLICAS);
    let lives = prop::option::weighted(0.3, 0..10u64);
    let step = prop_oneof![
        3 => (client.clone(), replica.clone()).prop_map(|(client, replica)| Step::Read { client, replica }),
        5 => (client, replica.clone(), prop::bool::weighted(0.3), prop::bool::weighted(0.2), lives).prop_map(
            |(client, replica, blind, delete, lives)| Step::Write { client, replica, blind, delete, lives }
        ),
        1 => replica.clone().prop_map(|replica| Step::Retry { replica }),
        4 => (replica.clone(), replica.clone()).prop_map(|(from, to)| Step::Merge { from, to }),
        1 => replica.clone().prop_map(|replica| Step::Wipe { replica }),
        1 => (replica, 0..10u64).prop_map(|(replica, now)| Step::Expire { replica, now }),
    ];
    prop::collection::vec(step, 1..40)
}

fn merged(left: &Siblings<u32>, right: &Siblings<u32>) -> Siblings<u32> {
    let mut both = left.clone();
    both.merge(right);
    both
}

proptest! {
    #[test]
    fn histories_agree_with_the_naive_model(steps in steps()) {
        run(&steps);
    }

    #[test]
    fn merge_is_idempotent_commutative_and_associative(
        steps in steps(),
        picks in prop::collection::vec(any::<[prop::sample::Index; 3]>(), 20),
    ) {
        let states = run(&steps);
        for [x, y, z] in picks {
            let (x, y, z) = (x.get(&states), y.get(&states), z.get(&states));
            prop_assert_eq!(&merged(x, x), x);
            prop_assert_eq!(merged(x, y), merged(y, x));
            prop_assert_eq!(merged(&merged(x, y), z), merged(x, &merged(y, z)));
            prop_assert!(!merged(x, y).would_change(y), "what was merged has nothing new to tell");
        }
    }
}
