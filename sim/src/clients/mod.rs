//! Clients that behave like applications.
//!
//! A client runs one operation at a time over a connection to some node, or a few that travel as a batch, as the
//! protocol has it: it says hello, asks, waits, and tries again elsewhere when it is refused or hears nothing. What it may
//! conclude from a refusal is what the protocol says, and no more: a write that may have been applied is in doubt for good.
//! The operations of a batch are operations like any others: each has its own outcome in the history.
//!
//! What it does with a key is the key's application (`applications`); a script takes its place when the run
//! comes to its end.

mod applications;
mod requests;
mod routing;
mod turn;
mod verdicts;

use std::collections::{BTreeMap, VecDeque};

use ringmain::causality::VersionVector;
use ringmain::prng::Prng;
use ringmain::time::{Duration, Instant};

use crate::history::{Key, Number, Reading};
use crate::network::Side;
use crate::plan::{Application, Plan};

pub use applications::{Intent, Replaced, items_of, slots_of};

/// One client.
#[derive(Debug)]
pub struct Client {
    /// Its number, and the name of its operations.
    pub number: u32,
    pub(super) prng: Prng,
    /// What each key is used for; the last one, which clients at work leave alone, is a register.
    keys: Vec<Application>,
    /// Its writes have names, so that it may retry them.
    names_writes: bool,
    /// It takes no fallback for a primary.
    wants_primaries: bool,
    /// It says which cluster it means.
    names_cluster: bool,
    /// What it takes for the cluster's secret.
    secret: &'static [u8],
    /// It doesn't know the secret, and doesn't wait for a welcome.
    intrudes: bool,
    time_to_live: bool,
    /// Some values are large, so that a limit on memory is reached with few keys.
    large_values: bool,
    /// Racks that the nodes stand in; it asks for none if it is 0.
    racks: u8,
    /// It says by which topology it routes, and asks directly now and then.
    routes: bool,
    /// The topologies that it was told of: the first, and the last few.
    epochs: routing::Epochs,
    /// R, W and N where it doesn't say otherwise.
    quorums: [u8; 3],
    /// Mean pause between two rounds.
    pause: Duration,
    /// It begins nothing new after this.
    until: Instant,
    /// What it does instead of its applications: each step so long after the last.
    script: Option<VecDeque<(Duration, Intent)>>,
    /// The only node that it talks to.
    node: Option<usize>,
    connection: Option<Connection>,
    /// The last plan of this client; older ones are stale.
    planned: u64,
    job: Option<Job>,
    next_request: u64,
    /// The last context it was given for each key.
    contexts: BTreeMap<Key, Context>,
    /// Its own slot in each counter: never lower than before.
    slots: BTreeMap<Key, u32>,
}

/// A context as it was given, and opened.
#[derive(Clone, Debug, Default)]
pub struct Context {
    sealed: Vec<u8>,
    opened: VersionVector,
}

#[derive(Debug)]
struct Connection {
    side: Side,
    is_greeted: bool,
}

/// What is under way: an operation, or a batch of them.
#[derive(Debug)]
struct Job {
    /// Those whose outcome is not known yet.
    items: Vec<Item>,
    /// They travel as a batch.
    is_batch: bool,
    budget: Duration,
    attempts: u32,
    manner: routing::Manner,
    /// The request that is waited for, once it was sent.
    request: Option<u64>,
    /// What was read and is to be followed by writes, once all is known.
    read: Vec<Read>,
}

/// An operation under way.
#[derive(Debug)]
struct Item {
    number: Number,
    intent: Intent,
    /// Value and context as they are sent, at each attempt.
    value: Option<Vec<u8>>,
    context: Vec<u8>,
    /// An attempt may have been applied.
    in_doubt: bool,
    is_named: bool,
}

/// What a finished read leaves for the write that follows it.
#[derive(Clone, Debug)]
struct Read {
    key: Key,
    reading: Reading,
    context: Context,
}

impl Client {
    /// One of those that work while the faults last.
    pub fn at_work(number: u32, plan: &Plan, mut prng: Prng) -> Self {
        let rounds = u64::from(plan.operations / plan.clients).max(1);
        Self {
            names_writes: prng.chance(0.8),
            wants_primaries: prng.chance(0.3),
            routes: prng.chance(0.5),
            names_cluster: prng.chance(0.5),
            racks: plan.racks,
            large_values: plan.memory_max > 0,
            pause: Duration(plan.span.0 / rounds),
            until: Instant(0) + plan.span,
            script: None,
            ..Self::new(number, plan, prng)
        }
    }

    /// One that knows all but the cluster's secret.
    pub fn intruder(number: u32, plan: &Plan, prng: Prng) -> Self {
        let client = Self::at_work(number, plan, prng);
        // It has its answer at once, and is not to be heard more than the others.
        let pause = Duration(client.pause.0 * 4);
        Self { secret: plan.guess(), intrudes: true, names_cluster: true, pause, ..client }
    }

    /// One that does what it is told, at one node.
    pub fn with_script(
        number: u32,
        plan: &Plan,
        prng: Prng,
        node: usize,
        script: VecDeque<(Duration, Intent)>,
    ) -> Self {
        Self { script: Some(script), node: Some(node), ..Self::new(number, plan, prng) }
    }

    fn new(number: u32, plan: &Plan, prng: Prng) -> Self {
        Self {
            number,
            prng,
            keys: plan.keys.iter().copied().chain([Application::Register]).collect(),
            names_writes: true,
            wants_primaries: false,
            names_cluster: true,
            secret: plan.secret(),
            intrudes: false,
            time_to_live: plan.time_to_live,
            racks: 0,
            large_values: false,
            routes: false,
            epochs: routing::Epochs::default(),
            quorums: [plan.read.min(plan.replicas()), plan.write.min(plan.replicas()), plan.replicas()],
            pause: Duration::ZERO,
            until: Instant(u64::MAX),
            script: None,
            node: None,
            connection: None,
            planned: 0,
            job: None,
            next_request: 0,
            contexts: BTreeMap::new(),
            slots: BTreeMap::new(),
        }
    }

    /// The writes that this client waits for, which may yet be acknowledged.
    pub fn pending_writes(&self) -> impl Iterator<Item = Number> {
        let items = self.job.iter().flat_map(|job| &job.items);
        items.filter(|item| item.intent.is_write()).map(|item| item.number)
    }

    /// It has nothing under way.
    pub const fn is_idle(&self) -> bool {
        self.job.is_none()
    }
}
