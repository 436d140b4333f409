//! One node's records of all members: gossip, incarnation and birth. Lives on shard 0.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringmain_schema::limits::MEMBERS_MAX;
use ringmain_schema::peer::{Gossip, MemberRecord};

use crate::failpoint::{Bug, Failpoints, NoFailpoints, Rare};
use crate::id::{ClusterId, Incarnation, NodeId};
use crate::ring::Partitions;
use crate::time::Duration;

use super::layout::Layout;
use super::lives::Lives;
use super::member::{Settled, Works};
use super::partition_set::PartitionSet;
use super::trouble::{Trouble, Troubles};
use super::{Founders, Intent, Member, Oneself, Outcome, Refused, View, Word, node_id};

/// Each node gossips with one random member so often (paper §4.8.1).
pub const GOSSIP_EVERY: Duration = Duration::from_secs(1);

/// Operators' words are counted, and so are a node's lives. Each second that a node is up it believes so many more of
/// them: a thousand nodes restarting a hundred times a second all day stay far below, and whoever would have the counters
/// run out, at 2^48, has to go on for a hundred years.
const COUNTED_AT_ONCE: u64 = 1 << 16;

/// What a cluster's founders fix for its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MembershipOptions {
    /// Q.
    pub partitions: Partitions,
    /// N.
    pub replicas: u8,
}

/// Where a node is and what it can take.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The name or address that others reach it by.
    pub host: Arc<str>,
    /// The port that its shards share.
    pub ordinary_port: u16,
    /// Each shard's own.
    pub shard_ports: Arc<[u16]>,
    /// Capacity; 100 is ordinary. At least 1.
    pub weight: u32,
    /// Its data centre; may be empty.
    pub data_center: Arc<str>,
    /// Its rack; may be empty.
    pub rack: Arc<str>,
}

/// All that one node knows of the members.
#[derive(Debug)]
pub struct Membership<F = NoFailpoints> {
    cluster: ClusterId,
    pub(super) me: NodeId,
    pub(super) members: BTreeMap<NodeId, Member>,
    /// Those who must have met before this node serves, itself excepted.
    pub(super) founders: BTreeSet<NodeId>,
    /// Who has gossiped with this node since it started.
    pub(super) met: BTreeSet<NodeId>,
    /// Who has shown that it knows this node's present incarnation.
    pub(super) known_by: BTreeSet<NodeId>,
    pub(super) lives: Lives,
    pub(super) troubles: Troubles,
    /// What counts further than this is not believed yet: it grows with time alone.
    ceiling: u64,
    /// This node's own disk remembered an earlier life.
    pub(super) recovered: bool,
    pub(super) layout: Layout,
    pub(super) options: MembershipOptions,
    pub(super) failpoints: F,
}

impl Membership {
    /// A node about to start. Without founders it is a cluster of one, or, as a `guest`, joins one that
    /// its seeds know.
    pub fn new(
        cluster: ClusterId,
        name: &Arc<str>,
        place: Place,
        founders: &Founders,
        guest: bool,
        options: MembershipOptions,
    ) -> Self {
        Self::with_failpoints(cluster, name, place, founders, guest, options, NoFailpoints)
    }
}

impl<F: Failpoints> Membership<F> {
    /// The same, for the simulator.
    pub fn with_failpoints(
        cluster: ClusterId,
        name: &Arc<str>,
        place: Place,
        founders: &Founders,
        guest: bool,
        options: MembershipOptions,
        failpoints: F,
    ) -> Self {
        let me = node_id(cluster, name);
        let others = founders.iter().filter(|founder| founder.name != *name);
        let mut members: BTreeMap<_, _> = others
            .map(|founder| {
                let node = node_id(cluster, &founder.name);
                (node, unmet(node, &founder.name, &founder.host, founder.port))
            })
            .collect();
        let founders = members.keys().copied().collect();
        let mut myself = unmet(me, name, &place.host, place.ordinary_port);
        myself.oneself.shard_ports = place.shard_ports;
        myself.intent = if guest { Intent::Guest } else { Intent::Member };
        myself.intent_version = 1;
        (myself.weight, myself.data_center, myself.rack) = (place.weight, place.data_center, place.rack);
        // Founders are members from the beginning: nothing has to change for that.
        myself.settled = myself.intended();
        members.insert(me, myself);
        let mut membership = Self {
            cluster,
            me,
            members,
            founders,
            met: BTreeSet::new(),
            known_by: BTreeSet::new(),
            lives: Lives::default(),
            troubles: Troubles::default(),
            ceiling: COUNTED_AT_ONCE,
            recovered: false,
            layout: Layout::new(options, me, !guest),
            options,
            failpoints,
        };
        membership.advance();
        membership
    }

    /// Before anything else: the number that this process has drawn, the same for all of its shards.
    #[must_use]
    pub fn with_life(mut self, life: u64) -> Self {
        self.lives.own = life;
        self.myself_mut().oneself.life = life;
        self
    }

    /// Before the node meets anybody: go on from what its own disk remembers, which [`Membership::to_log`] had
    /// told. Its copies are as complete as they were, until somebody remembers a later life of it than the
    /// disk does: then the disk is an old one.
    pub fn recover(&mut self, told: &Gossip) {
        let counted = told.members.iter().map(greatest_counter).max().unwrap_or(0);
        self.ceiling = self.ceiling.max(counted.saturating_add(COUNTED_AT_ONCE));
        let mut own = None;
        for told in told.members.iter().filter_map(Member::from_record) {
            if told.node != self.me {
                self.learn(told);
            } else if told.oneself.incarnation > Incarnation(0) {
                self.take_intent(&told);
                let generation = self.failpoints.generation(told.oneself.incarnation.0 + 1);
                let oneself = &mut self.myself_mut().oneself;
                oneself.incarnation = Incarnation(generation);
                (oneself.heartbeat, oneself.serving) = (0, false);
                oneself.succeeds = told.oneself.life;
                // A release that numbered no beginnings is as good as a node that has lost its records.
                oneself.beginning = match told.oneself.beginning {
                    0 => later_beginning(oneself.incarnation),
                    known => known,
                };
                self.recovered = true;
                own = Some(told.oneself);
            }
        }
        if let Some(own) = &own {
            self.recover_line(told, own);
            let bound = told.members.iter().filter_map(|member| {
                let settled = Settled::from_record(member.bound.as_ref()?, member.node)?;
                Some((NodeId(member.node), settled))
            });
            self.layout.rebind(&self.members, own.works, bound.collect());
        }
        self.advance();
        if let Some(own) = own {
            self.layout.recover(own.works, &own.lacking);
            self.myself_mut().oneself.works = own.works;
            self.advance();
        }
    }

    /// Some of this node's records were damaged: it holds what could be read, and counts for nothing until it has
    /// streamed the rest from its peers.
    pub fn lose_records(&mut self) {
        self.layout.lose_all();
        let oneself = &mut self.myself_mut().oneself;
        oneself.beginning = later_beginning(oneself.incarnation);
        self.advance();
    }

    /// Who this node is.
    pub const fn me(&self) -> NodeId {
        self.me
    }

    /// What this node says of itself.
    pub fn oneself(&self) -> &Oneself {
        &self.members[&self.me].oneself
    }

    /// Another second has passed. A life that nobody knows of yet stands still: if others remember more of this
    /// incarnation than its beginning, it was another life, which the disk does not know.
    pub fn beat(&mut self) {
        if self.is_fenced() {
            return;
        }
        self.ceiling = self.ceiling.saturating_add(COUNTED_AT_ONCE);
        self.lives.beat();
        if self.oneself().incarnation == Incarnation(0) || !self.known_by.is_empty() {
            self.myself_mut().oneself.heartbeat += 1;
        }
    }

    /// What an operator's word would change and move. Nothing changes.
    pub fn consider(&self, word: &Word) -> Result<Outcome, Refused> {
        let changed = word.apply(&self.members)?;
        let mut wanted = self.members.clone();
        wanted.extend(changed.iter().map(|member| (member.node, member.clone())));
        Ok(Outcome { plan: self.layout.plan(&wanted), changed })
    }

    /// Take an operator's word. Whoever calls this makes a new view, and tells the others at once.
    pub fn change(&mut self, word: &Word) -> Result<Outcome, Refused> {
        let outcome = self.consider(word)?;
        assert!(!self.is_fenced(), "whoever is fenced serves nobody");
        self.members.extend(outcome.changed.iter().map(|member| (member.node, member.clone())));
        self.advance();
        Ok(outcome)
    }

    /// What to tell another member: all records, but nothing while this process is turned away. Its own would take the place
    /// of that of the process that is there.
    pub fn gossip(&self) -> Gossip {
        if self.lives.is_turned_away() {
            Gossip { members: Vec::new(), ..self.records() }
        } else {
            self.records()
        }
    }

    fn records(&self) -> Gossip {
        Gossip {
            ring: self.layout.ring().hash(),
            members: self.members.values().map(Member::to_record).collect(),
            partitions: self.options.partitions.count(),
            replicas: self.options.replicas,
        }
    }

    /// All records for this node's own log, what it is bound to and what it comes from ([`Membership::recover`]).
    pub fn to_log(&self) -> Gossip {
        let mut records = self.records();
        if let Some(own) = records.members.iter_mut().find(|member| member.node == self.me.0) {
            own.line = self.lives.line.to_log();
        }
        for (node, settled) in self.layout.bound() {
            if let Some(member) = records.members.iter_mut().find(|member| member.node == node.0) {
                member.bound = Some(settled.to_record());
            }
        }
        records
    }

    /// Was this told by a node that makes another ring of the same members? It isn't to be believed, nor to be met.
    pub fn is_of_another_ring(&self, gossip: &Gossip) -> bool {
        let MembershipOptions { partitions, replicas } = self.options;
        // 0 is not given.
        ![0, partitions.count()].contains(&gossip.partitions) || ![0, replicas].contains(&gossip.replicas)
    }

    /// `from` told all it knows. True if a view made now would differ from the last one.
    pub fn on_gossip(&mut self, from: NodeId, gossip: &Gossip) -> bool {
        if self.is_fenced() {
            return false;
        }
        let before = self.visible();
        if self.is_of_another_ring(gossip) {
            self.note_other_ring(from, gossip);
            return self.visible() != before;
        }
        // What is not believed yet is told again.
        let is_believed = |record: &&MemberRecord| {
            greatest_counter(record) <= self.ceiling || self.failpoints.planted(Bug::GenerationByClock)
        };
        let believed: Vec<Member> =
            gossip.members.iter().filter(is_believed).filter_map(Member::from_record).collect();
        for told in believed {
            if told.node == self.me {
                self.on_told_of_myself(from, &told);
            } else {
                self.learn(told);
            }
        }
        self.met.insert(from);
        self.lives.on_taken_in(from);
        self.troubles.clear(from);
        self.advance();
        self.visible() != before
    }

    fn learn(&mut self, told: Member) {
        let has_room = self.members.len() < MEMBERS_MAX || self.members.contains_key(&told.node);
        if has_room && self.is_of_this_cluster(&told) {
            let failpoints = &self.failpoints;
            let known = self.members.entry(told.node);
            known.and_modify(|known| _ = known.merge(&told, failpoints)).or_insert(told);
        }
    }

    /// Its id follows from its name and the cluster's id, so a member of another cluster shows itself.
    fn is_of_this_cluster(&self, told: &Member) -> bool {
        let belongs =
            told.node == node_id(self.cluster, &told.name) || self.failpoints.planted(Bug::AnyClusterIsMine);
        belongs && self.failpoints.accepts_generation(told.oneself.incarnation.0)
    }

    /// Why this node doesn't serve, if it isn't just waiting for others.
    pub fn trouble(&self) -> Option<Trouble> {
        let is_told = self.is_fenced() || !self.oneself().serving;
        self.troubles.first().filter(|_| is_told).cloned()
    }

    /// `by`, or whoever is at a seed's address if it is not known, has refused to be this node's peer, and said `why`.
    /// True if a view made now would differ from the last one.
    pub fn on_refused(&mut self, by: NodeId, address: &str, why: &str) -> bool {
        if self.oneself().serving {
            return false;
        }
        let before = self.trouble();
        let by_whom =
            self.members.get(&by).map_or_else(|| address.to_owned(), |member| member.name.to_string());
        self.troubles.note(self.known_or_nobody(by), Trouble::Refused { by: by_whom, why: why.to_owned() });
        self.trouble() != before
    }

    /// Somebody who calls itself `node` was refused as a peer of this node, which told it `why`. True if a view made now
    /// would differ from the last one.
    pub fn on_refusing(&mut self, node: NodeId, why: &str) -> bool {
        if self.oneself().serving {
            return false;
        }
        let before = self.trouble();
        let name =
            self.members.get(&node).map_or_else(|| "somebody".to_owned(), |member| member.name.to_string());
        self.troubles.note(self.known_or_nobody(node), Trouble::Refusing { name, why: why.to_owned() });
        self.trouble() != before
    }

    fn note_other_ring(&mut self, from: NodeId, gossip: &Gossip) {
        let known = self.members.get(&from);
        let trouble = Trouble::OtherRing {
            name: known.map_or_else(|| from.to_string(), |member| member.name.to_string()),
            theirs: (gossip.partitions, gossip.replicas),
            ours: (self.options.partitions.count(), self.options.replicas),
        };
        self.troubles.note(self.known_or_nobody(from), trouble);
    }

    /// Troubles are kept by member: strangers share one place.
    pub(super) fn known_or_nobody(&self, node: NodeId) -> NodeId {
        if self.members.contains_key(&node) { node } else { NodeId(0) }
    }

    /// The operator's word about this node is the operator's, wherever it comes from.
    pub(super) fn take_intent(&mut self, told: &Member) {
        let own = self.members[&self.me].oneself.clone();
        let failpoints = self.failpoints.clone();
        let myself = self.myself_mut();
        myself.merge(told, &failpoints);
        myself.oneself = own;
    }

    /// Choose an incarnation, begin to serve, go on with a change of the ring: whatever can be done by now.
    pub(super) fn advance(&mut self) {
        if self.is_fenced() {
            return;
        }
        self.choose_incarnation();
        self.begin_to_serve();
        if !self.lives.is_turned_away() {
            // Another process states what the node works by.
            let is_serving = self.oneself().serving;
            self.layout.follow(&mut self.members, is_serving, &self.failpoints);
        }
        self.note_lacking();
        if self.members[&self.me].is_removed() && self.oneself().serving {
            self.failpoints.reached(Rare::Fenced);
            let oneself = &mut self.myself_mut().oneself;
            (oneself.serving, oneself.heartbeat) = (false, oneself.heartbeat + 1);
        }
    }

    pub(super) fn note_lacking(&mut self) {
        let mut lacking = self.layout.lacking();
        if self.failpoints.planted(Bug::NewcomerCountsAtOnce) {
            lacking = PartitionSet::default();
        }
        let lacking = lacking.to_words();
        let oneself = &mut self.myself_mut().oneself;
        oneself.complete = oneself.incarnation > Incarnation(0) && lacking.is_empty();
        if oneself.lacking != lacking {
            (oneself.lacking, oneself.heartbeat) = (lacking, oneself.heartbeat + 1);
        }
    }

    /// All shards of this node work by these rings, as a view had told them: now it can be said. True if a view made
    /// now would differ from the last one.
    pub fn confirm(&mut self, works: Works) -> bool {
        if works != self.layout.works() || self.oneself().works == works {
            return false;
        }
        let before = self.visible();
        let oneself = &mut self.myself_mut().oneself;
        (oneself.works, oneself.heartbeat) = (works, oneself.heartbeat + 1);
        self.advance();
        self.visible() != before
    }

    /// This node has streamed these partitions from all their other owners, working by these rings, has `lost` those, and
    /// would lose something if it left now, or not. True if a view made now would differ from the last one.
    pub fn on_progress(
        &mut self,
        works: Works,
        whole: &PartitionSet,
        lost: &PartitionSet,
        would_lose: bool,
    ) -> bool {
        let before = self.visible();
        self.layout.on_progress(works, whole, would_lose);
        self.layout.lose(lost);
        self.advance();
        self.visible() != before
    }

    /// These partitions were wiped, and are to be streamed again. True if a view made now would differ from the last one.
    pub fn on_lost(&mut self, lost: &PartitionSet) -> bool {
        let before = self.visible();
        self.layout.lose(lost);
        self.advance();
        self.visible() != before
    }

    pub(super) fn is_guest(&self) -> bool {
        self.members[&self.me].intent == Intent::Guest
    }

    pub(super) fn myself_mut(&mut self) -> &mut Member {
        self.members.get_mut(&self.me).expect("a node is among its own records")
    }

    /// What a view is made of, but for heartbeats.
    fn visible(&self) -> (Vec<Member>, Works, [bool; 2], Option<Trouble>) {
        let mut members: Vec<_> = self.members.values().cloned().collect();
        members.iter_mut().for_each(|member| member.oneself.heartbeat = 0);
        let is_known = self.layout.change().is_some_and(|change| change.is_known);
        let flags = [is_known, self.layout.former().is_some()];
        (members, self.layout.works(), flags, self.trouble())
    }

    /// The view as of now.
    pub fn view(&self) -> View {
        let members: Vec<_> = self.members.values().cloned().collect();
        let (ring, change) = (self.layout.ring().clone(), self.layout.change());
        let former = self.layout.former().cloned();
        let view = View::new(self.cluster, self.me, members, ring);
        view.with_change(self.layout.works(), change, former).with_trouble(self.trouble())
    }
}

/// The beginning of who was born with the cluster, and has lost nothing since.
pub const BORN: u64 = 1;

/// What begins with this incarnation, by the loss of records or by joining.
pub(super) const fn later_beginning(incarnation: Incarnation) -> u64 {
    incarnation.0 + 1
}

/// Of those that only grow by one: in all of a cluster's life they stay small.
fn greatest_counter(record: &MemberRecord) -> u64 {
    let settled = record.settled.as_ref().map_or(0, |settled| settled.version);
    let earlier = record.earlier.map_or(0, |life| life.incarnation);
    let counters = [record.intent_version, settled, record.incarnation, earlier, record.beginning];
    counters.into_iter().max().unwrap_or(0)
}

fn unmet(node: NodeId, name: &Arc<str>, host: &Arc<str>, port: u16) -> Member {
    let mut member = Member {
        node,
        name: name.clone(),
        oneself: Oneself {
            incarnation: Incarnation(0),
            heartbeat: 0,
            life: 0,
            succeeds: 0,
            host: host.clone(),
            ordinary_port: port,
            shard_ports: [].into(),
            complete: false,
            serving: false,
            works: Works::default(),
            lacking: [].into(),
            beginning: 0,
        },
        earlier: None,
        intent: Intent::Member,
        intent_version: 0,
        weight: crate::ring::WEIGHT_ORDINARY,
        data_center: "".into(),
        rack: "".into(),
        place: node,
        settled: Settled::unknown(),
    };
    member.settled = member.intended();
    member
}

#[cfg(test)]
#[path = "records_tests.rs"]
pub(super) mod tests;
