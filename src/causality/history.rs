//! Random histories on three replicas, held against a naive model and against the laws of merging.
//!
//! In the model each version carries its full causal history, a set of dots, and a replica is the set of all
//! versions it has heard of. Nothing is ever compressed or discarded, so it's plainly right, and slow. After each
//! step every replica must show exactly the values that the model shows, in the same order, pick the same
//! `latest`, and cover exactly the dots that the model knows: no more (P3) and no fewer (P1).
//!
//! A history has puts, deletes and overwrites, blind or with a context that may be old and may come from several
//! replicas; retries; expiry under clocks that jump; states that arrive at once, late, twice or never; replicas
//! that lose a record (a fresh epoch) and processes that start again (a new id, the record kept or not).
//!
//! Not here: who coordinates, quorums and repair (`sim/tests/model`), and limits (`siblings/tests.rs`).
//!
//! By default thirty thousand histories, and as many for the laws. A million of each take two and a half minutes on
//! one core: `PROPTEST_CASES=1000000 cargo test --release --lib causality::history`

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{Actor, Content, Dot, Siblings, VersionVector};
use crate::id::OperationId;
use crate::time::WallTime;

const REPLICAS: usize = 3;
const CLIENTS: usize = 2;
/// Random, as ids are. One of them sorts between the others.
const START_IDS: [u64; REPLICAS] = [0x5a, 0x0f, 0xc3];
/// Histories unless `PROPTEST_CASES` says otherwise.
const CASES: u32 = 30_000;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The client remembers what these replicas (bits) have seen together.
    Read { client: usize, replicas: u8 },
    /// A put or a delete.
    Write { client: usize, replica: usize, covered: Covered, delete: bool, lives: Option<u64> },
    /// The last write again, as it was, on another replica, unless that one knows it.
    Retry { replica: usize },
    /// One replica's whole state arrives at another.
    Merge { from: usize, to: usize },
    /// One replica's state as it is now goes out to whoever will hear it.
    Send { from: usize },
    /// A state that went out some time ago arrives. It stays in flight, and may arrive again.
    Deliver { sent: prop::sample::Index, to: usize },
    /// The replica loses its record; its next mint opens a new epoch.
    Wipe { replica: usize },
    /// The replica's process starts again under a new id; what it had is kept.
    Restart { replica: usize },
    /// The replica's wall clock comes to this time.
    Expire { replica: usize, now: u64 },
}

#[derive(Clone, Copy, Debug)]
enum Covered {
    Nothing,
    /// What the client read last, however long ago.
    Read,
    /// All that the replica has.
    Everything,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Event {
    /// All dots this version knew of, its own included.
    history: BTreeSet<Dot>,
    number: Option<u32>,
    expiry: Option<u64>,
    operation: OperationId,
    timestamp: WallTime,
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
    timestamp: WallTime,
}

impl Context {
    fn of(replica: &Replica) -> Self {
        Self { vector: replica.state.context(), dots: replica.known() }
    }
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
        let dot = self.state.put(self.actor, covered, content, expiry, write.operation, write.timestamp);
        let mut history = write.context.dots.clone();
        history.insert(dot);
        let Write { number, expiry, operation, timestamp, .. } = *write;
        let event = Event { history, number, expiry, operation, timestamp };
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
                Content::Cold { .. } | Content::Tombstone | Content::Expired => {
                    panic!("a tombstone is no value")
                }
            })
            .collect();
        assert_eq!(values, self.expected_values());
        assert_eq!(self.state.sibling_count(), values.len());
        let latest = values.iter().map(|(dot, _)| *dot).max_by_key(|dot| (self.events[dot].timestamp, *dot));
        assert_eq!(self.state.latest().map(|version| version.dot), latest);
        let context = self.state.context();
        let covered: BTreeSet<Dot> = minted.iter().copied().filter(|dot| context.covers(*dot)).collect();
        assert_eq!(covered, self.known(), "the context covers exactly what was seen");
        let copy = Siblings::from_parts(self.state.clock().to_vec(), self.state.versions().to_vec());
        assert_eq!(copy.as_ref(), Ok(&self.state), "every state is fit to be sent");
    }
}

/// Everybody, and what is under way between them.
struct World {
    replicas: [Replica; REPLICAS],
    contexts: [Context; CLIENTS],
    last: Option<Write>,
    in_flight: Vec<Replica>,
    starts: u64,
}

impl World {
    fn new() -> Self {
        let replica = |id| Replica {
            actor: Actor { id, epoch: 0 },
            state: Siblings::new(),
            events: BTreeMap::new(),
            buried: BTreeSet::new(),
        };
        Self {
            replicas: [replica(START_IDS[0]), replica(START_IDS[1]), replica(START_IDS[2])],
            contexts: Default::default(),
            last: None,
            in_flight: vec![],
            starts: REPLICAS as u64,
        }
    }

    fn apply(&mut self, number: usize, step: Step) {
        let replicas = &mut self.replicas;
        match step {
            Step::Read { client, replicas: asked } => self.contexts[client] = read(replicas, asked),
            Step::Write { client, replica, covered, delete, lives } => {
                let context = match covered {
                    Covered::Nothing => Context::default(),
                    Covered::Read => self.contexts[client].clone(),
                    Covered::Everything => Context::of(&replicas[replica]),
                };
                let write = Write {
                    context,
                    number: (!delete).then_some(number as u32),
                    expiry: if delete { None } else { lives },
                    operation: OperationId { client: client as u64, sequence: number as u64 },
                    // Clocks jump: the order of timestamps says nothing, and some are equal.
                    timestamp: WallTime(number as u64 * 7 % 5),
                };
                replicas[replica].write(&write);
                self.last = Some(write);
            }
            Step::Retry { replica } => {
                if let Some(write) = &self.last
                    && replicas[replica].state.contains_operation(write.operation).is_none()
                {
                    replicas[replica].write(write);
                }
            }
            Step::Merge { from, to } => {
                let source = replicas[from].clone();
                replicas[to].merge(&source);
            }
            Step::Send { from } => self.in_flight.push(replicas[from].clone()),
            Step::Deliver { sent, to } => {
                if !self.in_flight.is_empty() {
                    replicas[to].merge(sent.get(&self.in_flight));
                }
            }
            Step::Wipe { replica } => {
                let lost = &mut replicas[replica];
                lost.actor.epoch += 1;
                (lost.state, lost.events) = (Siblings::new(), BTreeMap::new());
                lost.buried = BTreeSet::new();
            }
            Step::Restart { replica } => {
                // Some before and some after the ids drawn so far.
                let drawn = START_IDS[0] ^ (self.starts * 37);
                replicas[replica].actor = Actor { id: drawn, epoch: 0 };
                self.starts += 1;
            }
            Step::Expire { replica, now } => replicas[replica].expire(now),
        }
    }
}

/// What the asked replicas have seen, merged as a coordinator merges answers.
fn read(replicas: &[Replica], asked: u8) -> Context {
    let mut asked = replicas.iter().enumerate().filter(|(index, _)| asked & (1 << index) != 0);
    let mut union = asked.next().expect("somebody is asked").1.clone();
    asked.for_each(|(_, other)| union.merge(other));
    Context::of(&union)
}

/// Runs a history, comparing after each step; all states it went through.
fn run(steps: &[Step]) -> Vec<Siblings<u32>> {
    let mut world = World::new();
    let mut minted = BTreeSet::new();
    let mut states = vec![];
    for (number, &step) in steps.iter().enumerate() {
        world.apply(number, step);
        for replica in &world.replicas {
            minted.extend(replica.events.keys().copied());
            replica.check(&minted);
            for context in &world.contexts {
                let known = replica.known();
                assert_eq!(replica.state.includes(&context.vector), context.dots.is_subset(&known));
            }
        }
        states.extend(world.replicas.iter().map(|replica| replica.state.clone()));
    }
    states
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (client, replica) = (0..CLIENTS, 0..REPLICAS);
    let covered =
        prop_oneof![3 => Just(Covered::Nothing), 6 => Just(Covered::Read), 1 => Just(Covered::Everything)];
    let lives = prop::option::weighted(0.3, 0..10u64);
    let step = prop_oneof![
        3 => (client.clone(), 1..1u8 << REPLICAS).prop_map(|(client, replicas)| Step::Read { client, replicas }),
        5 => (client, replica.clone(), covered, prop::bool::weighted(0.2), lives).prop_map(
            |(client, replica, covered, delete, lives)| Step::Write { client, replica, covered, delete, lives }
        ),
        1 => replica.clone().prop_map(|replica| Step::Retry { replica }),
        3 => (replica.clone(), replica.clone()).prop_map(|(from, to)| Step::Merge { from, to }),
        2 => replica.clone().prop_map(|from| Step::Send { from }),
        2 => (any::<prop::sample::Index>(), replica.clone()).prop_map(|(sent, to)| Step::Deliver { sent, to }),
        1 => replica.clone().prop_map(|replica| Step::Wipe { replica }),
        1 => replica.clone().prop_map(|replica| Step::Restart { replica }),
        1 => (replica, 0..10u64).prop_map(|(replica, now)| Step::Expire { replica, now }),
    ];
    prop::collection::vec(step, 1..40)
}

fn merged(left: &Siblings<u32>, right: &Siblings<u32>) -> Siblings<u32> {
    let mut both = left.clone();
    both.merge(right);
    both
}

/// Deep by default: no other test of this room sees so much.
fn configuration() -> ProptestConfig {
    let default = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { default.cases } else { CASES };
    ProptestConfig { cases, ..default }
}

proptest! {
    #![proptest_config(configuration())]

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
