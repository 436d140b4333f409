//! The world as one value: what each node, client and message holds, and what really happened.
//!
//! Everything in here is hashed to tell one state of the search from another, so it holds nothing that
//! doesn't matter later. What the system itself holds are the server's own types. [`History`] is what nobody in
//! the system knows: which write each dot stands for, and what its client had been shown.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ringmain::causality::{Content, Dot, Siblings, Version, VersionVector};
use ringmain::coordinator::{GetQuorum, PutQuorum};
use ringmain::id::{NodeId, OperationId};

use ringmain_schema::epoch::Word;

use super::fallback::Fallback;
use super::reap::{Beginnings, Named, Raise, Reaping};

/// Primaries.
pub(crate) const NODES: usize = 3;
/// The node that stands in for them, in scopes with hints.
pub(crate) const FALLBACK: usize = NODES;
pub(crate) const CLIENTS: usize = 2;
/// The most steps of one client.
pub(crate) const STEPS_MAX: usize = 4;

/// As the quorums name the nodes.
pub(crate) const NODE_IDS: [NodeId; NODES] = [NodeId(1), NodeId(2), NodeId(3)];

pub(crate) fn node_id(node: usize) -> NodeId {
    NODE_IDS.get(node).copied().unwrap_or(NodeId(4))
}

/// The ids that the nodes draw in their lives. Random in truth: here a later one sorts before or after others.
const ACTOR_IDS: [[u64; NODES]; 5] = [[40, 20, 60], [10, 50, 30], [70, 5, 25], [35, 65, 15], [55, 45, 75]];

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct World {
    pub(crate) nodes: [Node; NODES],
    pub(crate) fallback: Fallback,
    pub(crate) clients: [Client; CLIENTS],
    /// Messages that may arrive, in any order. One that has arrived stays, and may arrive again; one that is lost
    /// just never arrives.
    pub(crate) network: BTreeMap<Envelope, Message>,
    pub(crate) history: History,
    pub(crate) hints_left: u8,
    pub(crate) reaps_left: u8,
    pub(crate) overs_left: u8,
    pub(crate) crashes_left: u8,
    pub(crate) wipes_left: u8,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Node {
    /// How many times its process has started again, or has forgotten the key.
    pub(crate) life: usize,
    /// Its record of the key.
    pub(crate) copy: Siblings<Bytes>,
    /// Writes that it remembers as replaced, so that a retry of one is not applied again. Kept only in scopes
    /// with retries: nothing else depends on it.
    pub(crate) replaced: Events,
    /// It has restarted empty: its not-found says nothing.
    pub(crate) incomplete: bool,
    pub(crate) reaping: Reaping,
    /// The requests that it coordinates. Shared between worlds, like messages.
    pub(crate) operations: BTreeMap<Request, Arc<Operation>>,
}

impl Node {
    pub(crate) fn actor_id(&self, node: usize) -> u64 {
        ACTOR_IDS[self.life][node]
    }

    pub(crate) fn operation_mut(&mut self, request: Request) -> Option<&mut Operation> {
        self.operations.get_mut(&request).map(Arc::make_mut)
    }
}

/// One step of one client; also the name of its write, and its value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Request(pub(crate) u8);

impl Request {
    pub(crate) fn new(client: usize, step: usize) -> Self {
        Self((client * STEPS_MAX + step) as u8)
    }

    pub(crate) fn client(self) -> usize {
        usize::from(self.0) / STEPS_MAX
    }

    pub(crate) fn operation(self) -> OperationId {
        OperationId { client: 1 + self.client() as u64, sequence: u64::from(self.0) }
    }

    /// The other way round.
    pub(crate) fn named(operation: OperationId) -> Self {
        Self(operation.sequence as u8)
    }
}

/// A request under way at its coordinator.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[expect(clippy::large_enum_variant, reason = "shared, and few")]
pub(crate) enum Operation {
    Put {
        quorum: PutQuorum,
        /// What is written: the request's own, or the one that it retries.
        write: Request,
        /// What the client gets to know once W have acknowledged.
        reply: Option<Reply>,
    },
    Get {
        quorum: GetQuorum,
        /// The client has its answer; the last replicas are waited for to repair them.
        answered: bool,
        /// All that was acknowledged when the read began.
        acknowledged: Events,
    },
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Client {
    pub(crate) steps_begun: usize,
    pub(crate) waits: bool,
    /// Its last write, while nobody has acknowledged that. Kept only in scopes with retries.
    pub(crate) unsure_of: Option<Write>,
    /// The last reply with a context: what its next put will say it has seen.
    pub(crate) holds: Option<Reply>,
}

/// A put or delete as a client sends it, and sends it again.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Write {
    /// Its name and its value.
    pub(crate) name: Request,
    pub(crate) delete: bool,
    /// What the client had seen, and what this really was; `None` replaces everything.
    pub(crate) seen: Option<(VersionVector, Events)>,
}

/// A reply as the client has it, and what is to be said of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Reply {
    pub(crate) context: VersionVector,
    /// The writes whose versions, tombstones included, it rests on.
    pub(crate) returned: Events,
    /// Those, and all that they replaced.
    pub(crate) past: Events,
    /// Acknowledged before the read began, and neither returned nor replaced by what is.
    pub(crate) missed: Events,
    /// It has a version that nobody wrote.
    pub(crate) invented: bool,
    /// It shows a write twice.
    pub(crate) repeats: bool,
}

/// Between two nodes, one message of a kind about a request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Envelope {
    pub(crate) to: usize,
    pub(crate) from: usize,
    pub(crate) request: Request,
    pub(crate) kind: Kind,
    /// The sender's, or that of the hint that it sends.
    pub(crate) epoch: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Kind {
    Replicate,
    Replicated,
    ReadState,
    State,
    Repair,
    Keep,
    HandOver,
    HandedOver,
    Propose,
    Confirm,
    Over,
    Raise,
    Lost,
    Met,
}

/// Shared, because the search copies a world for each thing that can happen in it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Message {
    Replicate {
        state: Arc<Siblings<Bytes>>,
        replaced: Events,
    },
    Replicated,
    ReadState,
    State {
        state: Arc<Siblings<Bytes>>,
        complete: bool,
    },
    Repair(Arc<Siblings<Bytes>>),
    /// A coordinator asks the fallback to keep this for a primary.
    Keep {
        target: usize,
        state: Arc<Siblings<Bytes>>,
    },
    /// The fallback hands over what it keeps, and hears what of it has arrived.
    HandOver(Arc<Siblings<Bytes>>),
    HandedOver(Arc<Siblings<Bytes>>),
    /// Of reaping: see `reap.rs`.
    Propose {
        round: Named,
        beginnings: Beginnings,
    },
    /// Of who promises there is no state.
    Confirm {
        round: Named,
        state: Option<Arc<Siblings<Bytes>>>,
    },
    Over {
        round: Named,
    },
    Raise(Raise),
    Lost {
        beginning: u8,
    },
    Met {
        beginning: u8,
        word: Word,
        raised: Option<Raise>,
    },
}

impl Message {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Replicate { .. } => Kind::Replicate,
            Self::Replicated => Kind::Replicated,
            Self::ReadState => Kind::ReadState,
            Self::State { .. } => Kind::State,
            Self::Repair(_) => Kind::Repair,
            Self::Keep { .. } => Kind::Keep,
            Self::HandOver(_) => Kind::HandOver,
            Self::HandedOver(_) => Kind::HandedOver,
            Self::Propose { .. } => Kind::Propose,
            Self::Confirm { .. } => Kind::Confirm,
            Self::Over { .. } => Kind::Over,
            Self::Raise(_) => Kind::Raise,
            Self::Lost { .. } => Kind::Lost,
            Self::Met { .. } => Kind::Met,
        }
    }

    pub(crate) fn state(&self) -> Option<&Siblings<Bytes>> {
        match self {
            Self::Replicate { state, .. } | Self::State { state, .. } | Self::Keep { state, .. } => {
                Some(state)
            }
            Self::Repair(state) | Self::HandOver(state) => Some(state),
            _ => None,
        }
    }
}

/// What really happened.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct History {
    /// Every dot ever minted, by the request that did it: a write, or a retry of one.
    pub(crate) events: BTreeMap<Request, Event>,
    /// Writes, as they were first sent.
    pub(crate) acknowledged: Events,
    /// Deletes that all nodes have known of at one time.
    pub(crate) converged_deletes: Events,
    /// For each step, how many copies of what it wrote were destroyed by wipes.
    pub(crate) destroyed: BTreeMap<Request, u8>,
    /// Forgotten on purpose.
    pub(crate) reaped: Events,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Event {
    pub(crate) dot: Dot,
    /// What was written: the request's own, or the one that it retried.
    pub(crate) write: Request,
    pub(crate) delete: bool,
    /// This write, all that its client had been shown, and all that those had replaced.
    pub(crate) past: Events,
}

impl History {
    /// The write that minted this version, if it says what that wrote.
    pub(crate) fn author(&self, version: &Version<Bytes>) -> Option<Request> {
        let (&request, _) = self.events.iter().find(|(_, event)| {
            event.dot == version.dot
                && event.write.operation() == version.operation
                && match &version.content {
                    Content::Value(value) => !event.delete && value[..] == [event.write.0],
                    Content::Tombstone => event.delete,
                    Content::Expired | Content::Cold { .. } => false,
                }
        })?;
        Some(request)
    }

    /// The writes whose versions stand in a state.
    pub(crate) fn standing(&self, state: &Siblings<Bytes>) -> Events {
        state.versions().iter().filter_map(|version| self.author(version)).collect()
    }

    /// These writes and all that they replaced, as their clients had seen it.
    pub(crate) fn past(&self, writes: Events) -> Events {
        writes.iter().fold(Events::default(), |past, write| past.union(self.events[&write].past))
    }

    /// What was acknowledged and is not among these, under any of its dots.
    pub(crate) fn acknowledged_beyond(&self, past: Events) -> Events {
        self.acknowledged.without(past.iter().map(|request| self.events[&request].write).collect())
    }

    /// The writes whose dots a context covers.
    pub(crate) fn covered(&self, context: &VersionVector) -> Events {
        let covered = self.events.iter().filter(|(_, event)| context.covers(event.dot));
        covered.map(|(request, _)| *request).collect()
    }

    pub(crate) fn reaped_deletes(&self) -> Events {
        self.reaped.iter().filter(|write| self.events[write].delete).collect()
    }

    /// Is there one among these that another of them had replaced?
    pub(crate) fn has_replaced(&self, standing: Events) -> bool {
        standing.iter().any(|write| {
            let others = standing.without(Events::only(write));
            self.past(others).contains(write)
        })
    }
}

/// A set of writes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Events(u16);

impl Events {
    pub(crate) fn only(request: Request) -> Self {
        Self(1 << request.0)
    }

    pub(crate) fn contains(self, request: Request) -> bool {
        self.0 & (1 << request.0) != 0
    }

    pub(crate) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Request> {
        (0..16).map(Request).filter(move |request| self.contains(*request))
    }
}

impl FromIterator<Request> for Events {
    fn from_iter<I: IntoIterator<Item = Request>>(requests: I) -> Self {
        requests.into_iter().fold(Self::default(), |all, request| all.union(Self::only(request)))
    }
}
