//! The shard: everything that one core of a node does, without IO.
//!
//! A [`Shard`] composes the rooms: sessions and links (who is connected), the replica (what is stored), the
//! coordinator (who has answered), hints and anti-entropy (what others lack), membership (who is there), pace (how much of
//! that may be done beside clients). It is a machine: [`Machine::handle`] takes one input and appends to an [`Output`] what follows from it. The shell runs
//! it on a core, the simulator runs many on one thread; it can't tell the difference, since it has no clock, no
//! chance and no waiting of its own.
//!
//! How a request runs: a frame from a client is parsed once and routed by its key (`requests`). If this
//! shard is a primary's, it coordinates (`gets`, `puts`); else the request travels to one that is (`relay`).
//! Whatever happens, each request accepted ends in exactly one answer, by its deadline.
//!
//! Everything kept here has a limit, and a full table answers `Overloaded` at once.

mod answer;
mod appends;
mod applying;
mod batch;
mod candidates;
mod changes;
mod compaction;
mod counters;
mod deadlines;
mod departed;
mod epoch_log;
mod epochs;
mod eviction;
mod exchanges;
mod expiry;
mod fallbacks;
mod gets;
mod hints;
mod io;
mod links;
mod lives;
mod loads;
mod meeting;
mod memory;
mod nodes;
mod operations;
mod options;
mod pacing;
mod peers;
mod puts;
mod recovery;
mod regroup;
mod relay;
mod requests;
mod rounds;
mod sessions;
mod status;
mod streams;
mod table;
#[cfg(test)]
mod tests;
mod trees;
mod words;

use std::collections::BTreeMap;
use std::sync::Arc;

use ringmain_schema::Encoder;

use crate::anti_entropy::Trees;
use crate::causality::ContextKey;
use crate::failpoint::{Bug, Failpoints, NoFailpoints};
use crate::id::{ConnectionId, ShardId};
use crate::membership::{FailureDetector, Membership, View};
use crate::pace::Pace;
use crate::prng::Prng;
use crate::replica::Replica;
use crate::time::{Instant, Now};

use appends::Appends;
use batch::Batch;
use changes::Words;
use compaction::Compaction;
use counters::Counters;
use deadlines::{Deadlines, Due};
use departed::Departures;
use epochs::Epochs;
use eviction::Evictions;
use exchanges::Exchanges;
use expiry::Expiry;
use hints::Hints;
use links::Links;
use loads::Loads;
use memory::Memory;
use nodes::Notices;
use operations::Operation;
use relay::Relay;
use sessions::Session;
use streams::Streams;
use table::{Table, Tag};

pub use io::{
    Append, Compacted, ConnectionLimits, Delivery, Dial, DialId, Input, LogState, Machine, Output, Piece,
    SIBLING_NOTICES_MAX, SIBLING_REQUESTS_MAX, SIBLING_RING_SLOTS, SiblingMessage,
};
pub use options::ShardOptions;
pub use recovery::{BadRecord, Record};
pub use streams::Progress;
pub use words::{Raised, decide};

/// Batches that one shard may have under way.
const BATCHES_MAX: usize = 1024;

/// One core of a node.
#[derive(Debug)]
pub struct Shard<F = NoFailpoints> {
    options: ShardOptions,
    view: Arc<View>,
    /// Only shard 0 keeps the records; the others are shown views.
    membership: Option<Membership<F>>,
    notices: Notices,
    detector: FailureDetector,
    prng: Prng,
    context_key: ContextKey,
    replica: Replica<F>,
    trees: Trees,
    exchanges: Exchanges,
    appends: Appends,
    compaction: Compaction,
    sessions: BTreeMap<ConnectionId, Session>,
    links: Links,
    loads: Loads,
    operations: Table<Operation>,
    relays: Table<Relay>,
    /// Requests unanswered at each sibling, by its number.
    relays_to: Vec<usize>,
    batches: Table<Batch>,
    hints: Hints,
    streams: Streams,
    departures: Departures,
    words: Words,
    pace: Pace,
    epochs: Epochs,
    expiry: Expiry,
    evictions: Evictions,
    memory: Memory,
    deadlines: Deadlines,
    counters: Counters,
    encoder: Encoder,
    context_scratch: Vec<u8>,
    stopping: bool,
    failpoints: F,
}

impl Shard {
    /// A shard about to start. `membership` is the node's own, the same for each of its shards; `seeds` are
    /// the addresses by which a guest finds its cluster. `prng` must be seeded by chance in production: the
    /// actor's id is drawn from it.
    pub fn new(options: ShardOptions, membership: Membership, seeds: &[(Arc<str>, u16)], prng: Prng) -> Self {
        Self::with_failpoints(options, membership, seeds, prng, NoFailpoints)
    }
}

impl<F: Failpoints> Shard<F> {
    /// The same, for the simulator.
    pub fn with_failpoints(
        options: ShardOptions,
        membership: Membership<F>,
        seeds: &[(Arc<str>, u16)],
        mut prng: Prng,
        failpoints: F,
    ) -> Self {
        let view = Arc::new(membership.view());
        let partitions = view.ring.partitions().count();
        let context_key = if options.secret.is_empty() {
            ContextKey::from_cluster(view.cluster)
        } else {
            ContextKey::from_secret(&options.secret)
        };
        let state_bytes_max = options.sibling_bytes_max();
        let is_first = options.shard == ShardId(0);
        let actor = match prng.next_u64() {
            _ if failpoints.planted(Bug::OldActorFromOne)
                || failpoints.planted(Bug::OldActorAtShardCounter) =>
            {
                view.me.0 ^ u64::from(options.shard.0)
            }
            drawn => drawn,
        };
        let replica = Replica::with_failpoints(partitions, actor, state_bytes_max, failpoints.clone());
        let replica = match (options.memory_max, options.durable) {
            (0, _) => replica,
            (memory_max, false) => replica.within(memory_max),
            (memory_max, true) => replica.within_and_on_disk(memory_max),
        };
        let mut shard = Self {
            replica,
            trees: Trees::new(partitions),
            exchanges: Exchanges::default(),
            context_key,
            membership: is_first.then_some(membership),
            notices: Notices::new(options.shards),
            detector: FailureDetector::default(),
            prng,
            appends: Appends::default(),
            compaction: Compaction::default(),
            sessions: BTreeMap::new(),
            links: Links::new(if is_first { seeds } else { &[] }),
            loads: Loads::default(),
            operations: Table::new(options.operations_max, Tag::Operations),
            relays: Table::new(options.operations_max, Tag::Relays),
            relays_to: vec![0; usize::from(options.shards)],
            batches: Table::new(BATCHES_MAX, Tag::Batches),
            hints: Hints::new(options.hint_bytes_max),
            streams: Streams::default(),
            departures: Departures::default(),
            words: Words::default(),
            pace: Pace::new(options.pace),
            epochs: Epochs::default(),
            expiry: Expiry::default(),
            evictions: Evictions::default(),
            memory: Memory::default(),
            deadlines: Deadlines::default(),
            counters: Counters::default(),
            encoder: Encoder::default(),
            context_scratch: Vec::new(),
            stopping: false,
            failpoints,
            options,
            view,
        };
        shard.want_links();
        shard.look_whom_to_meet();
        shard
    }

    /// Who is in the cluster, as this shard sees it.
    pub const fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// The hash trees of these copies, to be looked at.
    pub const fn trees(&self) -> &Trees {
        &self.trees
    }

    /// The copies that this shard holds, to be looked at.
    pub const fn replica(&self) -> &Replica<F> {
        &self.replica
    }
}

impl<F: Failpoints> Machine for Shard<F> {
    fn handle(&mut self, now: Now, input: Input<'_>, out: &mut Output) {
        self.detector.on_turn(now.monotonic);
        self.pace.on_turn(now.monotonic);
        match input {
            Input::Opened { connection, dial: None } => self.on_accepted(now, connection, out),
            Input::Opened { connection, dial: Some(dial) } => self.on_reached(now, connection, dial, out),
            Input::DialFailed { dial } => self.on_dial_failed(now, dial),
            Input::Frame { connection, frame } => self.on_frame(now, connection, &frame, out),
            Input::Garbled { connection, error } => self.on_garbled(now, connection, error, out),
            Input::Closed { connection } => self.on_closed(now, connection, out),
            Input::Sibling { from, message } => self.on_sibling(now, from, message, out),
            Input::Appended { sequence } => self.on_appended(now, sequence, out),
            Input::Log(state) => self.on_log(now, state, out),
            Input::Record { sequence, record } => self.on_record(now, sequence, record, out),
            Input::Compact(range) => self.on_compact(now, range),
            Input::Waited { longest } => self.pace.on_waited(longest),
            Input::Buffered { bytes } => self.memory.on_buffered(bytes),
            Input::Tick => {}
            Input::Stop => self.stopping = true,
        }
        self.on_time(now, out);
        out.dead.extend(self.replica.take_dead());
        out.dead.extend(self.hints.store.take_dead());
    }

    fn next_timeout(&self) -> Option<Instant> {
        let node = self.next_beat();
        let (exchange, hints, epochs) = (self.next_exchange(), self.hints.next_timeout(), self.next_epochs());
        let (departure, compaction) = (self.next_look(), self.next_compaction());
        let (links, expiry, eviction) = (self.links.next_timeout(), self.next_expiry(), self.next_eviction());
        let due = self.deadlines.next();
        let all = [due, links, node, exchange, hints, departure, compaction, epochs, expiry, eviction];
        all.into_iter().flatten().min()
    }

    fn is_drained(&self) -> bool {
        self.has_answered_all()
    }

    fn is_crowded(&self, connections: usize) -> bool {
        self.is_bounded() && connections > self.most_for_buffers()
    }
}

impl<F: Failpoints> Shard<F> {
    /// Nobody waits for an answer of this shard.
    fn has_answered_all(&self) -> bool {
        let unanswered = self.operations.len() - self.counters.operations_lingering as usize;
        let all_told = self.loads.has_answered_all()
            && self.relays.is_empty()
            && self.batches.is_empty()
            && self.words.is_empty();
        unanswered == 0 && all_told
    }

    /// Do what is due.
    fn on_time(&mut self, now: Now, out: &mut Output) {
        self.end_what_was_gone(out);
        self.part_if_fenced(now, out);
        self.regroup(now, out);
        while let Some(due) = self.deadlines.pop(now.monotonic) {
            match due {
                Due::Operation(key) => self.on_operation_due(now, key, out),
                Due::Relay(key) => self.on_relay_due(key, out),
                Due::Word(number) => self.on_word_due(number, out),
                Due::Parked(ticket) => self.on_parked_due(ticket, out),
                Due::Hello(connection) => self.on_hello_due(now, connection, out),
            }
        }
        self.tend_links(now, out);
        self.beat(now, out);
        self.hand_over(now, out);
        self.keep_trees();
        self.tend_memory(now);
        self.keep_trees();
        self.tend_exchange(now, out);
        self.tend_departures(now, out);
        self.tend_compaction(now, out);
        self.tend_epochs(now, out);
        self.tend_expiry(now);
        self.tell_loss(out);
        self.tell_own_progress(out);
    }
}
