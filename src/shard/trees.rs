//! Hash trees: kept up with every write, and shown to the other primaries, who keep nothing here between two questions.
//!
//! Whatever is sent here is bounded: nodes and lists by their frames, states by [`MOVE_BYTES`].

use ringmain_schema::departure::HeldRequest;
use ringmain_schema::exchange::{KeyHash, Keys, KeysRequest, Nodes, PullRequest, Pulled, Tree, TreeRequest};
use ringmain_schema::limits::EXCHANGE_KEYS_MAX;
use ringmain_schema::message::{ErrorAnswer, ErrorCode};
use ringmain_schema::peer::ReplicateWriter;
use ringmain_schema::{Flags, Frame, Kind, Malformed};
use smallvec::SmallVec;

use crate::anti_entropy::{Listing, Selection};
use crate::failpoint::{Bug, Failpoints};
use crate::id::{ConnectionId, NodeId, PartitionId};
use crate::pace::Claimant;
use crate::replica::state_writer;
use crate::storage::{Change, Entry, value_bytes};
use crate::time::Now;

use super::Shard;
use super::io::Output;
use super::links::LinkId;
use super::loads::Waiter;

/// States that are sent in one step have so many bytes of values, or are those of one token.
const MOVE_BYTES: usize = 256 << 10;
/// Instead of an epoch, of a partition that is not to be compared.
pub(super) const NOT_COMPARED: u64 = u64::MAX;

impl<F: Failpoints> Shard<F> {
    /// Bring the trees up to what the replica holds.
    pub(super) fn keep_trees(&mut self) {
        if self.failpoints.planted(Bug::LastSegmentNotRehashed) {
            let changes: Vec<Change> = self.replica.take_changes().collect();
            changes.iter().for_each(|change| self.rehash_but_the_last(change));
        }
        let Self { replica, trees, .. } = self;
        replica.take_changes().for_each(|change| trees.apply(&change));
    }

    /// What [`Bug::LastSegmentNotRehashed`] makes of a change: as shipped, a segment is hashed anew from what it holds, but
    /// for the last one when a key is deleted there.
    fn rehash_but_the_last(&mut self, change: &Change) {
        let Change { partition, token, before, .. } = *change;
        let at = self.trees.leaf_of(token);
        let mut under = self.replica.index().under(partition, token);
        let is_delete = before != 0 && under.all(|entry| entry.state.sibling_count() == 0);
        if is_delete && self.trees.get(partition).is_some_and(|tree| tree.is_last(at)) {
            return;
        }
        let segment = Selection { partition, branch: at.branch, leaves: 1 << at.leaf, from: 0 };
        let held = Listing::take(self.replica.index(), &self.trees, &segment, usize::MAX);
        let after = held.keys.iter().fold(0, |sum: u64, (_, hash)| sum.wrapping_add(*hash));
        let before = self.trees.leaves(partition, at.branch)[usize::from(at.leaf)];
        self.trees.apply(&Change { before, after, ..*change });
    }

    /// A frame of anti-entropy: a question, or the answer to one.
    pub(super) fn on_tree_frame(
        &mut self,
        now: Now,
        connection: ConnectionId,
        link: LinkId,
        frame: &Frame<'_>,
        out: &mut Output,
    ) -> Result<(), Malformed> {
        let before = out.bytes.len();
        match frame.header.kind {
            Kind::TREE_REQUEST => {
                self.on_tree_request(connection, frame, &TreeRequest::parse(frame)?, out);
            }
            Kind::KEYS_REQUEST => {
                self.on_keys_request(now, connection, frame, &KeysRequest::parse(frame)?, out);
            }
            Kind::PULL_REQUEST => {
                self.on_pull_request(now, connection, link.node, frame, &PullRequest::parse(frame)?, out);
            }
            Kind::HELD_REQUEST => self.on_held_request(connection, frame, &HeldRequest::parse(frame)?, out),
            _ => self.on_exchange_answer(now, link, frame, out)?,
        }
        let sent = out.bytes.len() - before;
        self.counters.anti_entropy_bytes += sent as u64;
        if !frame.header.kind.is_answer() {
            self.pace.spent(Claimant::Serving, frame.length() + sent, 0);
        }
        Ok(())
    }

    fn on_tree_request(
        &mut self,
        connection: ConnectionId,
        frame: &Frame<'_>,
        request: &TreeRequest,
        out: &mut Output,
    ) {
        let id = frame.header.request_id;
        let all = match &request.nodes {
            Nodes::Roots(partitions) => partitions.as_slice(),
            Nodes::Branches(partition) | Nodes::Leaves { partition, .. } => std::slice::from_ref(partition),
        };
        if !all.iter().all(|partition| self.compares(request.ring, *partition)) {
            return self.refuse_peer(connection, id, out);
        }
        let epochs: Vec<u64> = match request.nodes {
            Nodes::Roots(_) => all
                .iter()
                .map(|partition| self.comparable_epoch(PartitionId(*partition), request.round))
                .collect(),
            Nodes::Branches(partition) | Nodes::Leaves { partition, .. } => {
                let theirs = request.epochs.first().copied().unwrap_or(0);
                if !self.is_current(connection, id, PartitionId(partition), theirs, out) {
                    return;
                }
                Vec::new()
            }
        };
        let epochs = if epochs.iter().all(|epoch| *epoch == 0) { Vec::new() } else { epochs };
        let trees = &self.trees;
        let nodes: Vec<u64> = match request.nodes {
            Nodes::Roots(_) => all.iter().map(|partition| trees.root(PartitionId(*partition))).collect(),
            Nodes::Branches(partition) => trees.branches(PartitionId(partition)).into(),
            Nodes::Leaves { partition, branch } => trees.leaves(PartitionId(partition), branch).into(),
        };
        let encoder = &mut self.encoder;
        out.deliver(connection, true, |bytes| Tree::encode(encoder, id, &nodes, &epochs, bytes));
    }

    fn on_keys_request(
        &mut self,
        now: Now,
        connection: ConnectionId,
        frame: &Frame<'_>,
        request: &KeysRequest,
        out: &mut Output,
    ) {
        let id = frame.header.request_id;
        if !self.compares(request.ring, request.partition) {
            return self.refuse_peer(connection, id, out);
        }
        if !self.is_current(connection, id, PartitionId(request.partition), request.partition_epoch, out) {
            return;
        }
        if !self.may_spend(Claimant::Serving, now) {
            return self.refuse_busily(connection, id, out);
        }
        let KeysRequest { partition, branch, leaves, from, .. } = *request;
        let listing = self.list(&Selection { partition: PartitionId(partition), branch, leaves, from });
        let keys: Vec<_> = listing.keys.iter().map(|(token, hash)| KeyHash::new(*token, *hash)).collect();
        let encoder = &mut self.encoder;
        out.deliver(connection, true, |bytes| Keys::encode(encoder, id, &keys, listing.more, bytes));
    }

    fn on_pull_request(
        &mut self,
        now: Now,
        connection: ConnectionId,
        from: NodeId,
        frame: &Frame<'_>,
        request: &PullRequest,
        out: &mut Output,
    ) {
        let id = frame.header.request_id;
        let partition = PartitionId(request.partition);
        if !self.compares(request.ring, request.partition) || !self.both_hold(from, partition) {
            return self.refuse_peer(connection, id, out);
        }
        if !self.is_current(connection, id, partition, request.partition_epoch, out) {
            return;
        }
        if !self.may_spend(Claimant::Serving, now) {
            return self.refuse_busily(connection, id, out);
        }
        let (tokens, _) = self.send_states(connection, partition, &request.tokens, |_| 0, out);
        if tokens == 0 && !request.tokens.is_empty() {
            // They are read from the disk meanwhile.
            return self.refuse_busily(connection, id, out);
        }
        self.pace.spent(Claimant::Serving, 0, tokens);
        let is_gone = |token: &u64| self.replica.index().under(partition, *token).next().is_none();
        let gone = request.tokens[..tokens].iter().copied().filter(is_gone).collect();
        let pulled = Pulled { tokens: tokens as u32, gone };
        let encoder = &mut self.encoder;
        out.deliver(connection, true, |bytes| pulled.encode(encoder, id, bytes));
    }

    /// What is held here of some leaves.
    pub(super) fn list(&self, selection: &Selection) -> Listing {
        Listing::take(self.replica.index(), &self.trees, selection, EXCHANGE_KEYS_MAX)
    }

    /// Send the states under these tokens, each under an id by how many come after it: how many tokens that were, and how
    /// many states. A token that the partition doesn't have has none. The first whose values are on the disk alone ends it: those of the
    /// next ones are read, for who asks again.
    pub(super) fn send_states(
        &mut self,
        to: ConnectionId,
        partition: PartitionId,
        tokens: &[u64],
        id: impl Fn(usize) -> u64,
        out: &mut Output,
    ) -> (usize, usize) {
        let tokens = self.until_cold(partition, tokens, out);
        let index = self.replica.index();
        let mut states = SmallVec::<[&Entry; 64]>::new();
        let (mut served, mut bytes) = (0, 0);
        for token in tokens {
            if bytes >= MOVE_BYTES {
                break;
            }
            let from = states.len();
            states.extend(index.under(partition, *token));
            bytes += states[from..].iter().map(|entry| bytes_of(entry)).sum::<usize>();
            served += 1;
        }
        for (at, entry) in states.iter().enumerate() {
            let replicate = ReplicateWriter {
                key: &entry.key,
                state: state_writer(&entry.state),
                ring: self.view.ring.hash(),
                partition_epoch: self.epoch(partition),
                repair: true,
                replaced: &[],
                hint_for: 0,
                exchange: true,
            };
            let id = id(states.len() - 1 - at);
            let encoder = &mut self.encoder;
            out.deliver(to, false, |bytes| replicate.encode(encoder, id, bytes));
        }
        (served, states.len())
    }

    /// The first of these tokens, up to one whose values are on the disk alone. Those that would follow are read.
    fn until_cold<'a>(&mut self, partition: PartitionId, tokens: &'a [u64], out: &mut Output) -> &'a [u64] {
        let index = self.replica.index();
        let is_cold = |token: &u64| index.under(partition, *token).any(|entry| entry.state.is_cold());
        let first = if index.cold() == 0 { None } else { tokens.iter().position(is_cold) };
        let Some(first) = first else { return tokens };
        let mut bytes = 0;
        let mut keys = SmallVec::<[Box<[u8]>; 16]>::new();
        for entry in tokens[first..].iter().flat_map(|token| index.under(partition, *token)) {
            if bytes >= MOVE_BYTES {
                break;
            }
            bytes += bytes_of(entry);
            if entry.state.is_cold() {
                keys.push(entry.key.clone());
            }
        }
        for key in keys {
            if !self.load(self.place(&key), Waiter::Again, out) {
                break;
            }
        }
        &tokens[..first]
    }

    /// The epoch in which a partition can be compared: one that no partition has, if this shard takes no copies of it, or if
    /// both sides were to be made alike and something was put out here.
    pub(super) fn comparable_epoch(&self, partition: PartitionId, is_round: bool) -> u64 {
        if self.takes_copies(partition) && !(is_round && self.has_evicted(partition)) {
            self.epoch(partition)
        } else {
            NOT_COMPARED
        }
    }

    /// Does this node own the partition, by the same ring? Whoever asks is another owner, or was one.
    pub(super) fn compares(&self, ring: u64, partition: u32) -> bool {
        partition < self.trees.partitions()
            && ring == self.view.ring.hash()
            && self.view.is_serving()
            && self.is_mine(PartitionId(partition))
            && self.view.owns(PartitionId(partition))
    }

    /// Do both this node and that one own this partition, now or when the ring has changed?
    pub(super) fn both_hold(&self, other: NodeId, partition: PartitionId) -> bool {
        let (primaries, successors) = (self.view.primaries(partition), self.view.successors(partition));
        self.view.owns(partition) && (primaries.contains(&other) || successors.contains(&other))
    }

    pub(super) fn refuse_busily(&mut self, connection: ConnectionId, id: u64, out: &mut Output) {
        let error = ErrorAnswer::new(ErrorCode::Overloaded, "clients come first: compare later");
        let encoder = &mut self.encoder;
        out.deliver(connection, true, |bytes| error.encode(encoder, id, Flags::NONE, bytes));
    }
}

fn bytes_of(entry: &Entry) -> usize {
    entry.key.len() + value_bytes(&entry.state)
}
