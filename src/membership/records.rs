//! One node's records of all members: gossip, incarnation and birth. Lives on shard 0.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringmain_schema::limits::MEMBERS_MAX;
use ringmain_schema::peer::Gossip;

use crate::failpoint::{Bug, Failpoints, NoFailpoints, Rare};
use crate::id::{ClusterId, Incarnation, NodeId};
use crate::ring::Partitions;
use crate::time::Duration;

use super::layout::Layout;
use super::member::{Settled, Works};
use super::partition_set::PartitionSet;
use super::{Founders, Intent, Member, Oneself, Outcome, Refused, View, Word, node_id};

/// Each node gossips with one random member so often (paper §4.8.1).
pub const GOSSIP_EVERY: Duration = Duration::from_secs(1);

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
    me: NodeId,
    members: BTreeMap<NodeId, Member>,
    /// Those who must have met before this node serves, itself excepted.
    founders: BTreeSet<NodeId>,
    /// Who has gossiped with this node since it started.
    met: BTreeSet<NodeId>,
    /// Who has shown that it knows this node's present incarnation.
    known_by: BTreeSet<NodeId>,
    /// The greatest version of this node's own record that others remember: (incarnation, heartbeat).
    remembered: (Incarnation, u64),
    /// This node's own disk remembered an earlier life.
    recovered: bool,
    layout: Layout,
    options: MembershipOptions,
    failpoints: F,
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
            remembered: (Incarnation(0), 0),
            recovered: false,
            layout: Layout::new(options, me, !guest),
            options,
            failpoints,
        };
        membership.advance();
        membership
    }

    /// Before the node meets anybody: go on from what its own disk remembers, which [`Membership::gossip`] had
    /// told. Its copies are as complete as they were, until somebody remembers a later life of it than the
    /// disk does: then the disk is an old one.
    pub fn recover(&mut self, told: &Gossip) {
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
                self.recovered = true;
                own = Some(told.oneself);
            }
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
        self.members.extend(outcome.changed.iter().map(|member| (member.node, member.clone())));
        self.advance();
        Ok(outcome)
    }

    /// What to tell another member: all records.
    pub fn gossip(&self) -> Gossip {
        Gossip {
            ring: self.layout.ring().hash(),
            members: self.members.values().map(Member::to_record).collect(),
            partitions: self.options.partitions.count(),
            replicas: self.options.replicas,
        }
    }

    /// Was this told by a node that makes another ring of the same members? It isn't to be believed, nor to be met.
    pub fn is_of_another_ring(&self, gossip: &Gossip) -> bool {
        let MembershipOptions { partitions, replicas } = self.options;
        // 0 is not given.
        ![0, partitions.count()].contains(&gossip.partitions) || ![0, replicas].contains(&gossip.replicas)
    }

    /// `from` told all it knows. True if a view made now would differ from the last one.
    pub fn on_gossip(&mut self, from: NodeId, gossip: &Gossip) -> bool {
        if self.is_of_another_ring(gossip) {
            return false;
        }
        let before = self.visible();
        for told in gossip.members.iter().filter_map(Member::from_record) {
            if told.node == self.me {
                self.on_told_of_myself(from, &told);
            } else {
                self.learn(told);
            }
        }
        self.met.insert(from);
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

    fn on_told_of_myself(&mut self, from: NodeId, told: &Member) {
        self.remembered = self.remembered.max((told.oneself.incarnation, told.oneself.heartbeat));
        let mine = &self.members[&self.me].oneself;
        if mine.incarnation == told.oneself.incarnation && mine.incarnation > Incarnation(0) {
            self.known_by.insert(from);
        }
        self.take_intent(told);
        self.layout.remember(told.oneself.works);
    }

    /// The operator's word about this node is the operator's, wherever it comes from.
    fn take_intent(&mut self, told: &Member) {
        let own = self.members[&self.me].oneself.clone();
        let failpoints = self.failpoints.clone();
        let myself = self.myself_mut();
        myself.merge(told, &failpoints);
        myself.oneself = own;
    }

    /// Choose an incarnation, begin to serve, go on with a change of the ring: whatever can be done by now.
    fn advance(&mut self) {
        self.choose_incarnation();
        self.begin_to_serve();
        let is_serving = self.oneself().serving;
        self.layout.follow(&mut self.members, is_serving, &self.failpoints);
        if self.failpoints.planted(Bug::RemovedReadmitted) {
            let me = self.me;
            self.members.retain(|node, member| *node == me || !member.is_removed() || member.settled.in_ring);
        }
        self.note_lacking();
        if self.members[&self.me].is_removed() && self.oneself().serving {
            self.failpoints.reached(Rare::Fenced);
            let oneself = &mut self.myself_mut().oneself;
            (oneself.serving, oneself.heartbeat) = (false, oneself.heartbeat + 1);
        }
    }

    fn note_lacking(&mut self) {
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

    /// This node has streamed these partitions from all their other owners, working by these rings, and keeps hints for
    /// others or none. True if a view made now would differ from the last one.
    pub fn on_progress(&mut self, works: Works, whole: &PartitionSet, keeps_hints: bool) -> bool {
        let before = self.visible();
        self.layout.on_progress(works, whole, keeps_hints);
        self.advance();
        self.visible() != before
    }

    fn choose_incarnation(&mut self) {
        let oneself = &self.members[&self.me].oneself;
        let mine = (oneself.incarnation, oneself.heartbeat);
        let have_met = self.awaited_founders().all(|node| self.met.contains(&node))
            && (!self.is_guest() || !self.met.is_empty());
        let chosen = if self.remembered > mine && self.remembered.0 > Incarnation(0) {
            // Others remember a life of which nothing was left behind here, as in `memory` mode or on a lost disk.
            Incarnation(self.remembered.0.0 + 1)
        } else if mine.0 == Incarnation(0) && have_met {
            Incarnation(1)
        } else {
            return;
        };
        if mine.0 > Incarnation(0) || chosen > Incarnation(1) {
            self.failpoints.reached(if self.recovered { Rare::CameBackOlder } else { Rare::CameBackEmpty });
        }
        self.known_by.clear();
        let generation = self.failpoints.generation(chosen.0);
        let oneself = &mut self.myself_mut().oneself;
        oneself.incarnation = Incarnation(generation);
        oneself.heartbeat = 0;
        oneself.serving = false;
        if chosen > Incarnation(1) {
            self.layout.lose_all();
        }
    }

    fn begin_to_serve(&mut self) {
        let oneself = &self.members[&self.me].oneself;
        let is_removed = self.members[&self.me].is_removed();
        if oneself.serving || oneself.incarnation == Incarnation(0) || is_removed {
            return;
        }
        let begun = |node: &NodeId| self.members[node].oneself.incarnation > Incarnation(0);
        let born_together = self.awaited_founders().all(|node| begun(&node) && self.known_by.contains(&node));
        let serves = |node: &NodeId| self.members.get(node).is_some_and(|member| member.oneself.serving);
        let taken_in = self.known_by.iter().any(serves);
        if taken_in || (born_together && !self.is_guest()) {
            let oneself = &mut self.myself_mut().oneself;
            oneself.serving = true;
            oneself.heartbeat += 1;
            if self.recovered && self.oneself().complete {
                self.failpoints.reached(Rare::CameBackWhole);
            }
        }
    }

    /// A founder that was removed before all had met won't come.
    fn awaited_founders(&self) -> impl Iterator<Item = NodeId> + '_ {
        let is_removed = |node: &NodeId| self.members.get(node).is_some_and(Member::is_removed);
        self.founders.iter().copied().filter(move |node| !is_removed(node))
    }

    fn is_guest(&self) -> bool {
        self.members[&self.me].intent == Intent::Guest
    }

    fn myself_mut(&mut self) -> &mut Member {
        self.members.get_mut(&self.me).expect("a node is among its own records")
    }

    /// What a view is made of, but for heartbeats.
    fn visible(&self) -> (Vec<Member>, Works, [bool; 2]) {
        let mut members: Vec<_> = self.members.values().cloned().collect();
        members.iter_mut().for_each(|member| member.oneself.heartbeat = 0);
        let is_known = self.layout.change().is_some_and(|change| change.is_known);
        (members, self.layout.works(), [is_known, self.layout.former().is_some()])
    }

    /// The view as of now.
    pub fn view(&self) -> View {
        let members: Vec<_> = self.members.values().cloned().collect();
        let (ring, change) = (self.layout.ring().clone(), self.layout.change());
        let former = self.layout.former().cloned();
        View::new(self.cluster, self.me, members, ring).with_change(self.layout.works(), change, former)
    }
}

fn unmet(node: NodeId, name: &Arc<str>, host: &Arc<str>, port: u16) -> Member {
    let mut member = Member {
        node,
        name: name.clone(),
        oneself: Oneself {
            incarnation: Incarnation(0),
            heartbeat: 0,
            host: host.clone(),
            ordinary_port: port,
            shard_ports: [].into(),
            complete: false,
            serving: false,
            works: Works::default(),
            lacking: [].into(),
        },
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
pub(super) mod tests {
    use super::*;
    use crate::membership::{Founder, cluster_id};

    const NAMES: [&str; 3] = ["a", "b", "c"];

    pub(in crate::membership) fn node(name: &str, founders: &[&str], guest: bool) -> Membership {
        let name: Arc<str> = name.into();
        let list = founders.iter().zip(1..).map(|(founder, port)| Founder {
            name: (*founder).into(),
            host: "h".into(),
            port,
        });
        let founders = Founders::new(list.collect(), &name).unwrap_or_default();
        let place = Place {
            host: "h".into(),
            ordinary_port: 1,
            shard_ports: [2].into(),
            weight: 100,
            data_center: "".into(),
            rack: "".into(),
        };
        let options = MembershipOptions { partitions: Partitions::new(8).unwrap(), replicas: 3 };
        Membership::new(cluster_id("x", NAMES.into_iter()), &name, place, &founders, guest, options)
    }

    pub(in crate::membership) fn exchange(left: &mut Membership, right: &mut Membership) {
        left.beat();
        right.on_gossip(left.me(), &left.gossip());
        left.on_gossip(right.me(), &right.gossip());
    }

    fn born() -> [Membership; 3] {
        let mut nodes = NAMES.map(|name| node(name, &NAMES, false));
        for _ in 0..3 {
            for (one, other) in [(0, 1), (0, 2), (1, 2)] {
                let [one, other] = nodes.get_disjoint_mut([one, other]).unwrap();
                exchange(one, other);
            }
        }
        nodes
    }

    #[test]
    fn a_cluster_of_one_serves_at_once() {
        let view = node("a", &[], false).view();
        assert!(view.is_serving() && view.myself().oneself.complete);
        assert_eq!((view.incarnation(), view.ring.replicas()), (Incarnation(1), 1));
    }

    #[test]
    fn nobody_serves_before_all_founders_have_met() {
        let mut nodes = NAMES.map(|name| node(name, &NAMES, false));
        for _ in 0..5 {
            let [a, b] = nodes.get_disjoint_mut([0, 1]).unwrap();
            exchange(a, b);
        }
        assert!(nodes.iter_mut().all(|node| !node.view().is_serving()));
        assert_eq!(nodes[0].view().incarnation(), Incarnation(0));
    }

    #[test]
    fn founders_that_have_met_serve_complete_and_agree_on_the_ring() {
        let nodes = born();
        let views = nodes.each_ref().map(Membership::view);
        for view in &views {
            assert!(view.is_serving() && view.myself().oneself.complete);
            assert_eq!((view.ring.hash(), view.epoch), (views[0].ring.hash(), views[0].epoch));
            assert_eq!(view.incarnation(), Incarnation(1));
        }
    }

    /// P9: a disk that came back as it was when the last life began names the next one like that. Alone for longer than
    /// that life had lasted, the node took what the others remembered for its own doing, and served as complete.
    #[test]
    fn a_node_whose_disk_is_one_life_behind_is_incomplete_however_long_it_was_alone() {
        let [a, mut b, mut c] = born();
        let image = a.gossip();
        let restart = || {
            let mut again = node("a", &NAMES, false);
            again.recover(&image);
            again
        };
        let mut lost = restart();
        (0..3).for_each(|_| [&mut b, &mut c].into_iter().for_each(|other| exchange(&mut lost, other)));
        assert!(lost.view().is_serving() && lost.oneself().complete);

        let mut again = restart();
        (0..60).for_each(|_| again.beat());
        (0..3).for_each(|_| [&mut b, &mut c].into_iter().for_each(|other| exchange(&mut again, other)));
        assert!(again.view().is_serving() && !again.oneself().complete);
        assert!(again.oneself().incarnation > lost.oneself().incarnation);
        assert!(a.view().is_serving(), "as it was before");
    }

    /// P9: what a node forgot when it stopped must not be reported as absent.
    #[test]
    fn a_node_that_comes_back_empty_is_a_new_incarnation_and_incomplete() {
        let [mut a, mut b, _] = born();
        let mut again = node("a", &NAMES, false);
        assert!(!again.view().is_serving());
        exchange(&mut again, &mut b);
        exchange(&mut again, &mut b);
        let view = again.view();
        assert_eq!(view.incarnation(), Incarnation(2));
        assert!(view.is_serving() && !view.myself().oneself.complete);
        // The old life, should it still speak, is outweighed.
        a.beat();
        b.on_gossip(a.me(), &a.gossip());
        assert_eq!(b.view().member(a.me()).unwrap().oneself.incarnation, Incarnation(2));
    }

    /// A founder that was met, but not by all, and restarted, was remembered by its heartbeat alone; it took that for
    /// an earlier life of the first incarnation, and so for a birth, and served as complete.
    #[test]
    fn a_node_that_restarts_twice_while_another_is_away_is_not_born_again() {
        let [a, b, mut c] = born();
        // C is cut off. A and B restart, and meet; then A restarts again.
        let [mut again_a, mut again_b] = ["a", "b"].map(|name| node(name, &NAMES, false));
        (0..3).for_each(|_| exchange(&mut again_a, &mut again_b));
        let mut third_a = node("a", &NAMES, false);
        (0..60).for_each(|_| exchange(&mut third_a, &mut again_b));
        for _ in 0..5 {
            exchange(&mut third_a, &mut c);
            exchange(&mut again_b, &mut c);
            exchange(&mut third_a, &mut again_b);
        }
        assert!(!third_a.oneself().complete, "A lost all it held, and says its silence means something");
        assert!(a.view().is_serving() && b.view().is_serving(), "as they were before");
    }

    #[test]
    fn a_guest_is_taken_in_by_those_who_serve_and_holds_nothing() {
        let [mut a, ..] = born();
        let mut guest = node("d", &[], true);
        assert!(!guest.view().is_serving());
        exchange(&mut guest, &mut a);
        exchange(&mut guest, &mut a);
        let view = guest.view();
        assert!(view.is_serving());
        assert_eq!(view.ring.hash(), a.view().ring.hash());
        assert_eq!(view.members.len(), 4);
    }

    /// Two had not been born when the third, which had, was removed: they waited for it for ever.
    #[test]
    fn a_founder_that_is_removed_is_not_waited_for() {
        let [mut a, mut b, _] = NAMES.map(|name| node(name, &NAMES, false));
        let mut gossip = b.gossip();
        for record in &mut gossip.members {
            if record.name == "c" {
                (record.intent, record.intent_version) = (3, 2);
            }
        }
        a.on_gossip(b.me(), &gossip);
        (0..4).for_each(|_| exchange(&mut a, &mut b));
        assert!(a.view().is_serving() && b.view().is_serving());
    }

    /// P13: a name decides the id, so a record can't claim another node's place.
    #[test]
    fn a_record_whose_id_is_not_its_names_is_ignored() {
        let [mut a, b, _] = born();
        let mut gossip = b.gossip();
        gossip.members[0].node = 12345;
        a.on_gossip(b.me(), &gossip);
        assert_eq!(a.view().members.len(), 3);
    }

    /// What a node's own log remembers of it: as complete as it was, and numbered after its last life.
    #[test]
    fn a_node_with_a_disk_comes_back_complete() {
        let [a, mut b, c] = born();
        let remembered = c.gossip();
        let mut c = node("c", &NAMES, false);
        c.recover(&remembered);
        assert_eq!(c.oneself().incarnation, Incarnation(2));
        exchange(&mut b, &mut c);
        exchange(&mut b, &mut c);
        assert!(c.oneself().complete && c.oneself().serving, "{:?}", c.oneself());
        assert_eq!(c.oneself().incarnation, Incarnation(2));
        drop(a);
    }

    /// A disk that was restored from an old image: the others remember a later life than it does.
    #[test]
    fn a_node_with_an_old_disk_says_that_it_lacks_something() {
        let [_, mut b, mut c] = born();
        let old = c.gossip();
        let mut second = node("c", &NAMES, false);
        second.recover(&old);
        exchange(&mut b, &mut second);
        exchange(&mut b, &mut second);
        c = node("c", &NAMES, false);
        c.recover(&old);
        exchange(&mut b, &mut c);
        exchange(&mut b, &mut c);
        assert_eq!((c.oneself().incarnation, c.oneself().complete), (Incarnation(3), false));
    }
}
