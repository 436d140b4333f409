//! Anti-entropy from the side that begins: which peer is next, how fast, and what to do when it doesn't answer.
//!
//! One exchange at a time, with one shard of one other node, over all partitions of which both are primaries. A round
//! in which all roots are equal costs two frames. The next one begins after the configured interval, or after a
//! quarter of it if differences were found.
//!
//! Clients come first: each list and each batch of states is taken from the budget of background work, and waits while
//! there is none (docs/adr/0014). Whoever is asked has a budget too, and answers `Overloaded` while it is spent: it is
//! asked the same again a little later. What was asked is given up when the answer is late; a later round finds what
//! is still different.

use std::collections::BTreeSet;

use ringmain_schema::departure::Held;
use ringmain_schema::exchange::{Keys, KeysRequest, Nodes, PullRequest, Pulled, Tree, TreeRequest};
use ringmain_schema::message::{ErrorAnswer, ErrorCode};
use ringmain_schema::{Frame, Kind, Malformed};

use crate::anti_entropy::{Exchange, Listing, Selection, Step, Unexpected};
use crate::failpoint::{Failpoints, Rare};
use crate::id::{ConnectionId, Incarnation, PartitionId};
use crate::membership::Health;
use crate::pace::Claimant;
use crate::time::{Duration, Instant, Now};

use super::Shard;
use super::io::Output;
use super::links::LinkId;
use super::trees::NOT_COMPARED;

/// An answer that isn't there by then won't come.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Whoever has no budget for an answer is asked again after this and up to as much more; twice as long each time, but
/// for no longer than [`REFUSED_MAX`].
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(2);
const ASK_AGAIN_MAX: Duration = Duration::from_millis(100);
/// Who has refused for so long is left to a later round.
const REFUSED_MAX: Duration = Duration::from_secs(5);

/// The shard's own exchanges, one after another.
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    under_way: Option<UnderWay>,
    /// When the next begins; not yet settled at the start.
    next_round: Option<Instant>,
    /// With whom the last one was.
    last: Option<LinkId>,
    /// Counts questions.
    asked: u32,
}

#[derive(Debug)]
struct UnderWay {
    with: LinkId,
    exchange: Exchange,
    waits: Waits,
    /// The request ids that the other has not answered, while an answer is waited for.
    owed: BTreeSet<u64>,
    /// What was asked for and is not here yet.
    pulls: Pulls,
    purpose: Purpose,
    /// Since when the other has refused what it was asked, and how long it is let alone if it refuses once more.
    refused_since: Option<Instant>,
    back_off: Duration,
}

/// What an exchange is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// A round of anti-entropy.
    Round,
    /// To stream these from the other.
    Stream(Vec<PartitionId>),
    /// To give these up if the other, in this life of its and over one connection, holds all that is here.
    Departure { partitions: Vec<PartitionId>, heir: Incarnation, over: ConnectionId },
}

/// States that were asked for. That they have been sent says nothing: they may be lost, or come when this node can't take them,
/// since its log is full.
#[derive(Debug, Default)]
struct Pulls {
    /// Those that are not here, by their tokens.
    missing: BTreeSet<u64>,
    /// The other has sent the first so many that it was asked for.
    sent: Option<usize>,
}

impl Pulls {
    fn of(step: &Step) -> Self {
        let missing = match step {
            Step::Pull(_, tokens) => tokens.iter().copied().collect(),
            _ => BTreeSet::new(),
        };
        Self { missing, sent: None }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Waits {
    /// For answers. `tokens` were sent with the question.
    Answer { until: Instant, tokens: usize },
    /// Until it goes on by itself.
    Pause(Instant),
}

impl UnderWay {
    /// On whose account it goes.
    const fn claimant(&self) -> Claimant {
        match self.purpose {
            Purpose::Stream(_) => Claimant::Streaming,
            Purpose::Round | Purpose::Departure { .. } => Claimant::AntiEntropy,
        }
    }

    /// The one connection that it may use.
    const fn over(&self) -> Option<ConnectionId> {
        match self.purpose {
            Purpose::Departure { over, .. } => Some(over),
            Purpose::Round | Purpose::Stream(_) => None,
        }
    }

    /// All that the other has sent of what it was asked for is here: how much that is.
    fn arrived(&self) -> Option<usize> {
        let sent = self.pulls.sent?;
        let Step::Pull(_, tokens) = self.exchange.step() else { return Some(sent) };
        let mut sent_tokens = tokens.iter().take(sent);
        sent_tokens.all(|token| !self.pulls.missing.contains(token)).then_some(sent)
    }

    /// All is compared, and it is asked whether that is on stable storage.
    fn is_at_its_end(&self) -> bool {
        self.over().is_some() && self.exchange.step() == Step::Done
    }
}

impl Exchanges {
    /// This partition is not streamed or given up any more, or not by this exchange.
    pub(super) fn forget(&mut self, partition: PartitionId) {
        if let Some(under_way) = &mut self.under_way {
            match &mut under_way.purpose {
                Purpose::Stream(partitions) | Purpose::Departure { partitions, .. } => {
                    partitions.retain(|other| *other != partition);
                }
                Purpose::Round => {}
            }
        }
    }

    /// When the exchange under way goes on, or is given up.
    fn next_step(&self) -> Option<Instant> {
        self.under_way.as_ref().map(|under_way| match under_way.waits {
            Waits::Answer { until, .. } | Waits::Pause(until) => until,
        })
    }

    /// A request id that no table gives out: each has a tag above the slot's number, and none so many slots. The ids just
    /// below are free too.
    fn next_id(&mut self) -> u64 {
        self.asked = self.asked.wrapping_add(1);
        u64::from(self.asked) << 32 | u64::from(u32::MAX)
    }

    /// The exchange that waits for this answer, and how many tokens were sent with the question.
    fn awaited(&mut self, from: LinkId, request_id: u64) -> Option<(&mut UnderWay, usize)> {
        let under_way = self.under_way.as_mut()?;
        match under_way.waits {
            Waits::Answer { tokens, .. }
                if under_way.with == from && under_way.owed.contains(&request_id) =>
            {
                Some((under_way, tokens))
            }
            _ => None,
        }
    }
}

impl<F: Failpoints> Shard<F> {
    /// When there is something to exchange; never, if anti-entropy is off, nothing is lacking and nothing to be given up.
    pub(super) fn next_exchange(&self) -> Option<Instant> {
        self.exchanges.next_step().or_else(|| {
            let round = self.options.anti_entropy.map(|_| self.exchanges.next_round.unwrap_or_default());
            [round, self.next_stream(), self.next_departure()].into_iter().flatten().min()
        })
    }

    /// Begin an exchange, take its next step, or give it up. What is lacking comes first, and what isn't this node's
    /// own any more last.
    pub(super) fn tend_exchange(&mut self, now: Now, out: &mut Output) {
        if self.next_exchange().is_none_or(|at| at > now.monotonic) {
            return;
        }
        let before = out.bytes.len();
        match &self.exchanges.under_way {
            None => {
                if let Some((with, partitions)) = self.next_source(now) {
                    let exchange = Exchange::new(partitions.iter().copied());
                    self.begin_exchange(now, with, exchange, Purpose::Stream(partitions), out);
                } else if !self.is_round_due(now)
                    && let Some((with, partitions, purpose)) = self.next_heir(now)
                {
                    let exchange = Exchange::giving(partitions.into_iter());
                    self.begin_exchange(now, with, exchange, purpose, out);
                } else if let Some(every) = self.options.anti_entropy {
                    self.begin_round(now, every, out);
                }
            }
            Some(UnderWay { waits: Waits::Answer { .. }, .. }) => self.abandon(now),
            Some(UnderWay { waits: Waits::Pause(_), .. }) => self.take_step(now, out),
        }
        self.counters.anti_entropy_bytes += (out.bytes.len() - before) as u64;
    }

    /// A tenth more or less, so that nodes that start together don't all compare at once.
    fn rest_until_round(&mut self, now: Now, pause: Duration) {
        let jitter = Duration(self.prng.below(pause.0 / 5 + 1));
        self.exchanges.next_round = Some(now.monotonic + Duration(pause.0 / 10 * 9) + jitter);
    }

    fn is_round_due(&self, now: Now) -> bool {
        self.options.anti_entropy.is_some() && self.exchanges.next_round.is_none_or(|at| at <= now.monotonic)
    }

    fn begin_round(&mut self, now: Now, every: Duration, out: &mut Output) {
        let is_due = self.exchanges.next_round.is_some_and(|at| at <= now.monotonic);
        if is_due || self.exchanges.next_round.is_none() {
            self.rest_until_round(now, every);
        }
        if !is_due || self.stopping || !self.view.is_serving() {
            return;
        }
        let Some((with, partitions)) = self.next_partner(now) else { return };
        self.counters.anti_entropy_rounds += 1;
        self.exchanges.last = Some(with);
        self.begin_exchange(now, with, Exchange::new(partitions.into_iter()), Purpose::Round, out);
    }

    fn begin_exchange(
        &mut self,
        now: Now,
        with: LinkId,
        exchange: Exchange,
        purpose: Purpose,
        out: &mut Output,
    ) {
        let waits = Waits::Pause(now.monotonic);
        let (refused_since, back_off, owed) = (None, ASK_AGAIN_AFTER, BTreeSet::new());
        let pulls = Pulls::default();
        let under_way = UnderWay { with, exchange, waits, owed, pulls, purpose, refused_since, back_off };
        self.exchanges.under_way = Some(under_way);
        self.take_step(now, out);
    }

    /// The peer after the last one, with all partitions that both hold.
    fn next_partner(&self, now: Now) -> Option<(LinkId, Vec<PartitionId>)> {
        let up = |link: &LinkId| self.detector.health(now.monotonic, link.node) == Health::Up;
        let mut peers: Vec<LinkId> = self.links.all_up().filter(up).collect();
        let after = peers.partition_point(|link| Some(*link) <= self.exchanges.last);
        peers.rotate_left(after);
        let partitions = |with: LinkId| -> Vec<PartitionId> {
            let mine = self.view.ring.partitions().iter().filter(|partition| self.is_mine(*partition));
            mine.filter(|&partition| {
                self.takes_copies(partition)
                    && !self.has_evicted(partition)
                    && self.both_hold(with.node, partition)
                    && self.link_to(with.node, partition) == Some(with)
            })
            .collect()
        };
        let shared = peers.into_iter().map(|with| (with, partitions(with)));
        shared.into_iter().find(|(_, partitions)| !partitions.is_empty())
    }

    /// Ask what comes next, or end the round.
    fn take_step(&mut self, now: Now, out: &mut Output) {
        let Some(under_way) = &mut self.exchanges.under_way else { return };
        let (with, step) = (under_way.with, under_way.exchange.step());
        let is_departure = matches!(under_way.purpose, Purpose::Departure { .. });
        if step == Step::Done && !is_departure {
            return self.end_exchange(now);
        }
        let (claimant, over) = (under_way.claimant(), under_way.over());
        let moves = matches!(step, Step::List(_) | Step::Pull(..) | Step::Push(..));
        if moves && !self.may_spend(claimant, now) {
            return self.pause_until(self.ready_at(claimant, now));
        }
        let connection = self.links.connection(with);
        let Some(connection) = connection.filter(|connection| over.is_none_or(|over| over == *connection))
        else {
            return self.abandon(now);
        };
        let pulls = Pulls::of(&step);
        let id = self.exchanges.next_id();
        let before = out.bytes.len();
        let asked = self.ask(connection, step, id, is_departure, out);
        let (Asked::Question { tokens, .. } | Asked::Nothing { tokens }) = asked else {
            return self.pause_until(now.monotonic + ASK_AGAIN_AFTER);
        };
        self.pace.spent(claimant, out.bytes.len() - before, tokens);
        let Some(under_way) = &mut self.exchanges.under_way else { return };
        under_way.pulls = pulls;
        under_way.waits = match asked {
            Asked::Question { tokens, ids } => {
                under_way.owed = (0..ids).map(|before| id - before).collect();
                self.detector.on_asked(now.monotonic, with.node);
                Waits::Answer { until: now.monotonic + ANSWER_MAX, tokens }
            }
            Asked::NotYet => unreachable!("it was seen to above"),
            Asked::Nothing { tokens } => {
                let fits = under_way.exchange.on_pushed(tokens);
                debug_assert!(fits.is_ok(), "as many as the step named");
                Waits::Pause(now.monotonic)
            }
        };
    }

    /// All is compared, and what differed was moved.
    fn end_exchange(&mut self, now: Now) {
        let Some(UnderWay { with, exchange, purpose, .. }) = self.exchanges.under_way.take() else { return };
        match (purpose, self.options.anti_entropy) {
            (Purpose::Stream(streamed), _) => self.on_streamed(now, with.node, streamed),
            (Purpose::Departure { partitions, heir, .. }, _) => {
                self.on_held(now, with.node, heir, &partitions);
            }
            (Purpose::Round, Some(every)) => {
                self.rest_until_round(now, if exchange.found() > 0 { Duration(every.0 / 4) } else { every });
            }
            (Purpose::Round, None) => {}
        }
    }

    /// `each`: whatever is sent must be acknowledged by itself.
    fn ask(&mut self, to: ConnectionId, step: Step, id: u64, each: bool, out: &mut Output) -> Asked {
        let ring = self.view.ring.hash();
        let round =
            self.exchanges.under_way.as_ref().is_some_and(|under_way| under_way.purpose == Purpose::Round);
        let encoder = &mut self.encoder;
        let nodes = match step {
            Step::Roots(partitions) => Nodes::Roots(partitions.iter().map(|partition| partition.0).collect()),
            Step::Branches(partition) => Nodes::Branches(partition.0),
            Step::Leaves(partition, branch) => Nodes::Leaves { partition: partition.0, branch },
            Step::List(Selection { partition, branch, leaves, from }) => {
                let partition_epoch = self.epochs.number(partition);
                let request =
                    KeysRequest { ring, partition: partition.0, branch, leaves, from, partition_epoch };
                out.deliver(to, false, |bytes| request.encode(encoder, id, bytes));
                return Asked::ONE;
            }
            Step::Pull(partition, tokens) => {
                let partition_epoch = self.epochs.number(partition);
                let request = PullRequest { ring, partition: partition.0, tokens, partition_epoch };
                out.deliver(to, false, |bytes| request.encode(encoder, id, bytes));
                return Asked::ONE;
            }
            Step::Push(partition, tokens) => {
                let id_of = |after: usize| match after {
                    0 => id,
                    _ if each => id - after as u64,
                    _ => 0,
                };
                let asked = tokens.len();
                let (tokens, states) = self.send_states(to, partition, &tokens, id_of, out);
                if tokens == 0 && asked > 0 {
                    return Asked::NotYet;
                }
                let ids = if each { states as u64 } else { 1 };
                return if states > 0 { Asked::Question { tokens, ids } } else { Asked::Nothing { tokens } };
            }
            Step::Done => {
                self.ask_if_held(to, id, out);
                return Asked::ONE;
            }
        };
        let epochs = match &nodes {
            Nodes::Roots(_) => Vec::new(),
            Nodes::Branches(partition) | Nodes::Leaves { partition, .. } => {
                vec![self.epochs.number(PartitionId(*partition))]
            }
        };
        let request = TreeRequest { ring, nodes, epochs, round };
        out.deliver(to, false, |bytes| request.encode(encoder, id, bytes));
        Asked::ONE
    }

    /// An answer to a question of the exchange; one that comes too late is not looked at.
    pub(super) fn on_exchange_answer(
        &mut self,
        now: Now,
        from: LinkId,
        frame: &Frame<'_>,
        out: &mut Output,
    ) -> Result<(), Malformed> {
        let Some((under_way, _)) = self.exchanges.awaited(from, frame.header.request_id) else {
            return Ok(());
        };
        let (claimant, is_at_its_end) = (under_way.claimant(), under_way.is_at_its_end());
        self.pace.spent(claimant, frame.length(), 0);
        if frame.header.kind == Kind::HELD && is_at_its_end {
            Held::parse(frame)?;
            self.end_exchange(now);
            return Ok(());
        }
        let Some(under_way) = &mut self.exchanges.under_way else { return Ok(()) };
        let fits = match frame.header.kind {
            Kind::TREE => {
                let Tree { mut nodes, epochs } = Tree::parse(frame)?;
                self.pass_over_other_epochs(now, from, &mut nodes, &epochs, out);
                let Some(under_way) = &mut self.exchanges.under_way else { return Ok(()) };
                let fits = under_way.exchange.on_nodes(&self.trees, &nodes);
                if F::WATCHED && under_way.exchange.leaves().count_ones() == 1 {
                    self.failpoints.reached(Rare::DifferenceInOneLeaf);
                }
                fits
            }
            Kind::KEYS => self.on_keys(&Keys::parse(frame)?),
            Kind::PULLED => {
                let Pulled { tokens, gone } = Pulled::parse(frame)?;
                under_way.pulls.sent = Some(tokens as usize);
                gone.iter().for_each(|token| _ = under_way.pulls.missing.remove(token));
                let Some(arrived) = under_way.arrived() else { return Ok(()) };
                under_way.exchange.on_pulled(arrived)
            }
            _ => Err(Unexpected),
        };
        fits.map_err(|Unexpected| {
            Malformed::Field("an answer that doesn't fit the question of anti-entropy")
        })?;
        self.go_on(now);
        Ok(())
    }

    /// A state came from there for anti-entropy's sake, and is held here.
    pub(super) fn on_state_held(&mut self, now: Now, from: LinkId, token: u64) {
        let Some(under_way) = self.exchanges.under_way.as_mut().filter(|under_way| under_way.with == from)
        else {
            return;
        };
        if under_way.pulls.missing.remove(&token)
            && let Some(arrived) = under_way.arrived()
            && under_way.exchange.on_pulled(arrived).is_ok()
        {
            self.go_on(now);
        }
    }

    /// Partitions of another epoch there than here are not compared, and nothing of them is streamed or given up: whoever is
    /// behind is told.
    fn pass_over_other_epochs(
        &mut self,
        now: Now,
        from: LinkId,
        nodes: &mut [u64],
        epochs: &[u64],
        out: &mut Output,
    ) {
        let Some(under_way) = &self.exchanges.under_way else { return };
        let Step::Roots(partitions) = under_way.exchange.step() else { return };
        let is_round = under_way.purpose == Purpose::Round;
        let epochs = epochs.iter().copied().chain(std::iter::repeat(0));
        for ((partition, node), theirs) in partitions.into_iter().zip(nodes).zip(epochs) {
            if theirs == self.comparable_epoch(partition, is_round) && theirs != NOT_COMPARED {
                continue;
            }
            *node = self.trees.root(partition);
            self.exchanges.forget(partition);
            // What is left out of a stream is looked for again, a little later. A round leaves out whatever was put out there.
            if !is_round {
                self.streams.rest(now.monotonic);
                self.departures.rest(now.monotonic);
            }
            if theirs != NOT_COMPARED
                && let Some(connection) = self.links.connection(from)
            {
                self.tell_epoch(connection, partition, out);
            }
        }
    }

    fn on_keys(&mut self, keys: &Keys<'_>) -> Result<(), Unexpected> {
        let Some(under_way) = &self.exchanges.under_way else { return Ok(()) };
        let Step::List(selection) = under_way.exchange.step() else { return Err(Unexpected) };
        let mine = self.list(&selection);
        let theirs = Listing { keys: keys.keys().collect(), more: keys.more };
        self.counters.anti_entropy_keys_compared += mine.keys.len().max(theirs.keys.len()) as u64;
        let Some(under_way) = &mut self.exchanges.under_way else { return Ok(()) };
        under_way.exchange.on_keys(&self.trees, &mine, &theirs)
    }

    /// What was pushed has been merged there, durably, if all of it that carried an id is acknowledged.
    pub(super) fn on_pushed(&mut self, now: Now, from: LinkId, request_id: u64) {
        let Some((under_way, tokens)) = self.exchanges.awaited(from, request_id) else { return };
        under_way.owed.remove(&request_id);
        if under_way.owed.is_empty() && under_way.exchange.on_pushed(tokens).is_ok() {
            self.go_on(now);
        }
    }

    /// The other has done as it was asked: the next step.
    fn go_on(&mut self, now: Now) {
        if let Some(under_way) = &mut self.exchanges.under_way {
            (under_way.refused_since, under_way.back_off) = (None, ASK_AGAIN_AFTER);
        }
        self.pause_until(now.monotonic);
    }

    fn pause_until(&mut self, at: Instant) {
        if let Some(under_way) = &mut self.exchanges.under_way {
            under_way.waits = Waits::Pause(at);
        }
    }

    /// The other refused: it has no budget for it now, has another ring, or doesn't know anti-entropy.
    pub(super) fn on_exchange_refused(&mut self, now: Now, from: LinkId, frame: &Frame<'_>) {
        let Some((under_way, _)) = self.exchanges.awaited(from, frame.header.request_id) else { return };
        let is_busy = ErrorAnswer::parse(frame).is_ok_and(|error| error.code == ErrorCode::Overloaded);
        let since = *under_way.refused_since.get_or_insert(now.monotonic);
        if !is_busy || now.monotonic.since(since) > REFUSED_MAX {
            return self.abandon(now);
        }
        let pause = under_way.back_off;
        under_way.back_off = pause.doubled_up_to(ASK_AGAIN_MAX);
        // Several who wait for the same one must not come back together.
        let jitter = Duration(self.prng.below(pause.0));
        self.failpoints.reached(Rare::ExchangeRefused);
        self.pause_until(now.monotonic + pause + jitter);
    }

    /// The other has answered otherwise, and what was asked can't be had.
    pub(super) fn on_exchange_over(&mut self, now: Now, from: LinkId, request_id: u64) {
        if self.exchanges.awaited(from, request_id).is_some() {
            self.abandon(now);
        }
    }

    /// A state came from there for anti-entropy's sake: on whose account?
    pub(super) fn claimant_of_states(&self, from: LinkId) -> Claimant {
        let under_way = self.exchanges.under_way.as_ref().filter(|under_way| under_way.with == from);
        under_way.map_or(Claimant::Serving, UnderWay::claimant)
    }

    /// Leave it to a later round.
    fn abandon(&mut self, now: Now) {
        self.failpoints.reached(Rare::ExchangeAbandoned);
        let abandoned = self.exchanges.under_way.take();
        match abandoned.map(|under_way| under_way.purpose) {
            Some(Purpose::Stream(_)) => self.streams.rest(now.monotonic),
            Some(Purpose::Departure { .. }) => self.departures.rest(now.monotonic),
            Some(Purpose::Round) | None => {
                if let Some(every) = self.options.anti_entropy {
                    self.rest_until_round(now, every);
                }
            }
        }
    }

    /// What is being streamed for a ring that was given up, or a life that has ended, is of no use.
    pub(super) fn abandon_stream(&mut self) {
        self.exchanges.under_way.take_if(|under_way| matches!(under_way.purpose, Purpose::Stream(_)));
    }

    /// What was found of the owners of another ring says nothing.
    pub(super) fn abandon_departure(&mut self) {
        self.exchanges.under_way.take_if(|under_way| matches!(under_way.purpose, Purpose::Departure { .. }));
    }

    /// The partitions of an exchange for a departure.
    pub(super) fn departing(&self) -> Vec<PartitionId> {
        match self.exchanges.under_way.as_ref().map(|under_way| &under_way.purpose) {
            Some(Purpose::Departure { partitions, .. }) => partitions.clone(),
            _ => Vec::new(),
        }
    }
}

/// Whether an answer will come.
enum Asked {
    /// Answers will, to so many ids, this question's and those below; so many tokens were sent.
    Question { tokens: usize, ids: u64 },
    /// It won't, since there was nothing to send.
    Nothing { tokens: usize },
    /// What is to be sent is read from the disk first.
    NotYet,
}

impl Asked {
    /// One answer will, and nothing was sent.
    const ONE: Self = Self::Question { tokens: 0, ids: 1 };
}
