//! The node's own affairs: gossip on shard 0, and views for the other shards.

use std::sync::Arc;

use ringmain_schema::peer::Gossip;
use ringmain_schema::{Frame, Kind};

use crate::failpoint::Failpoints;
use crate::id::{ConnectionId, NodeId, ShardId};
use crate::membership::{GOSSIP_EVERY, Oneself, View, Works};
use crate::time::{Duration, Instant, Now};

use super::Shard;
use super::io::{Output, SiblingMessage};
use super::sessions::Session;
use super::streams::Progress;

/// News is pushed to this many members at once; the others hear of it by gossip.
const PUSHED_TO: usize = 8;

/// Which siblings have been shown a view that they have not taken yet, and when gossip is due.
#[derive(Debug)]
pub(super) struct Notices {
    /// By sibling: a view is on its way. The ring between two shards has room for no more.
    under_way: Vec<bool>,
    /// By sibling: there has been a newer one since.
    behind: Vec<bool>,
    /// By shard: the last step at which it said that nothing would be lost if this node left.
    pub(super) loses_nothing: Vec<Option<Works>>,
    /// Requests under way count by owners that are no more: they are regrouped before this turn ends.
    pub(super) owners_changed: bool,
    next_beat: Option<Instant>,
}

impl Notices {
    pub(super) fn new(shards: u16) -> Self {
        let none = vec![false; usize::from(shards)];
        Self {
            under_way: none.clone(),
            behind: none,
            loses_nothing: vec![None; usize::from(shards)],
            owners_changed: false,
            next_beat: None,
        }
    }
}

impl<F: Failpoints> Shard<F> {
    /// When gossip is due: at once after the start, then once a second.
    pub(super) fn next_beat(&self) -> Option<Instant> {
        self.membership.as_ref().map(|_| self.notices.next_beat.unwrap_or_default())
    }

    /// Gossip with one random member, if a second has passed.
    pub(super) fn beat(&mut self, now: Now, out: &mut Output) {
        if self.next_beat().is_none_or(|at| at > now.monotonic) {
            return;
        }
        if self.notices.next_beat.is_none() {
            self.append_members(out);
        }
        // A tenth more or less, so that nodes that start together don't speak in chorus.
        let jitter = Duration(self.prng.below(GOSSIP_EVERY.0 / 5));
        self.notices.next_beat = Some(now.monotonic + Duration(GOSSIP_EVERY.0 * 9 / 10) + jitter);
        if let Some(membership) = &mut self.membership {
            membership.beat();
        }
        if self.others().is_empty() {
            // A cluster of one hears from nobody, and yet has to settle on its first ring.
            self.confirm(out);
        }
        if self.is_awaited() {
            // They answer with how far they have come.
            self.show_view(&self.view.clone(), out);
        }
        let peers = self.links.up_on(ShardId(0));
        if !peers.is_empty() {
            let (node, connection) = peers[self.prng.below(peers.len() as u64) as usize];
            self.counters.gossip_rounds += 1;
            self.detector.on_asked(now.monotonic, node);
            self.send_gossip(connection, Kind::GOSSIP, 0, out);
        }
    }

    pub(super) fn send_gossip(&mut self, connection: ConnectionId, kind: Kind, id: u64, out: &mut Output) {
        let Some(membership) = &self.membership else { return };
        let gossip = membership.gossip();
        let encoder = &mut self.encoder;
        out.deliver(connection, kind.is_answer(), |bytes| gossip.encode(encoder, kind, id, bytes));
    }

    /// A peer told all it knows of the members; a `GOSSIP` wants the same back.
    pub(super) fn on_gossip(
        &mut self,
        connection: ConnectionId,
        from: NodeId,
        frame: &Frame<'_>,
        gossip: &Gossip,
        out: &mut Output,
    ) {
        let Some(membership) = &mut self.membership else { return };
        let before = membership.oneself().clone();
        self.counters.gossip_refused += u64::from(membership.is_of_another_ring(gossip));
        let changed = membership.on_gossip(from, gossip);
        if changed {
            self.on_membership_changed(&before, out);
        }
        if frame.header.kind == Kind::GOSSIP {
            self.send_gossip(connection, Kind::GOSSIPED, frame.header.request_id, out);
        }
    }

    /// The records have changed: note it, show it to all shards, and tell the other nodes what they wait for. This node
    /// had said so much of itself before.
    pub(super) fn on_membership_changed(&mut self, before: &Oneself, out: &mut Output) {
        let Some(membership) = &self.membership else { return };
        let (view, oneself) = (Arc::new(membership.view()), membership.oneself());
        if view.trouble != self.view.trouble {
            out.notes.extend(view.trouble.as_ref().map(ToString::to_string));
        }
        let news = |oneself: &Oneself| (oneself.incarnation, oneself.serving, oneself.works);
        let is_news = news(oneself) != news(before) || view.works != self.view.works;
        self.append_members(out);
        self.show_view(&view, out);
        self.take_view(view, out);
        if is_news {
            self.push_gossip(out);
        }
        self.confirm(out);
    }

    /// Tell some now rather than within a second: all, if they are few.
    pub(super) fn push_gossip(&mut self, out: &mut Output) {
        let mut peers = self.links.up_on(ShardId(0));
        while peers.len() > PUSHED_TO {
            peers.swap_remove(self.prng.below(peers.len() as u64) as usize);
        }
        for (_, connection) in peers {
            self.send_gossip(connection, Kind::GOSSIP, 0, out);
        }
    }

    /// State what all shards of this node work by, if they work by the same.
    fn confirm(&mut self, out: &mut Output) {
        let Some(membership) = &mut self.membership else { return };
        if self.notices.under_way.contains(&true) {
            return;
        }
        let before = membership.oneself().clone();
        if membership.confirm(self.view.works) {
            self.on_membership_changed(&before, out);
        }
    }

    pub(super) fn show_view(&mut self, view: &Arc<View>, out: &mut Output) {
        for sibling in 1..self.options.shards {
            if std::mem::replace(&mut self.notices.under_way[usize::from(sibling)], true) {
                self.notices.behind[usize::from(sibling)] = true;
            } else {
                out.siblings.push((ShardId(sibling), SiblingMessage::View(view.clone())));
            }
        }
    }

    /// A sibling has taken the last view: show it the newest if there was another meanwhile.
    pub(super) fn on_view_taken(&mut self, from: ShardId, progress: &Progress, out: &mut Output) {
        self.on_progress(from, progress, out);
        let sibling = usize::from(from.0);
        self.notices.under_way[sibling] = std::mem::take(&mut self.notices.behind[sibling]);
        if self.notices.under_way[sibling] {
            out.siblings.push((from, SiblingMessage::View(self.view.clone())));
        }
        self.confirm(out);
    }

    /// Work by this view from now on, and tell the clients that subscribed.
    pub(super) fn take_view(&mut self, view: Arc<View>, out: &mut Output) {
        self.notices.owners_changed |= owners_hash(&view) != owners_hash(&self.view);
        let topology_changed = view.epoch != self.view.epoch || view.is_serving() != self.view.is_serving();
        self.view = view;
        self.follow_with_streams();
        self.follow_with_departures();
        self.follow_with_epochs(out);
        self.want_links();
        if !topology_changed {
            return;
        }
        let topology = self.view.topology();
        for (connection, session) in &self.sessions {
            if let Session::Client { subscription: Some(request_id) } = session {
                let encoder = &mut self.encoder;
                out.deliver(*connection, false, |bytes| topology.encode(encoder, *request_id, bytes));
            }
        }
    }
}

/// Differs if the owners of any partition do, or whom a read must ask.
fn owners_hash(view: &View) -> (u64, Option<(u64, bool)>) {
    (view.ring.hash(), view.change.as_ref().map(|change| (change.next.hash(), change.is_read)))
}
