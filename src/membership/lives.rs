//! Which process is the node, as one of them sees it: the incarnation that it takes, when it begins to serve, whom it gives
//! way to (docs/adr/0015).

use std::collections::BTreeMap;

use ringmain_schema::peer::{Gossip, Life};

use crate::failpoint::{Bug, Failpoints, Rare};
use crate::id::{Incarnation, NodeId};

use super::line::Line;
use super::partition_set::PartitionSet;
use super::records::{BORN, later_beginning};
use super::{Member, Membership, Oneself};

/// Whoever turns a process away does so again within this many beats, or is away, or lets it in: a call that failed is
/// repeated after 7 seconds at most.
const TURNED_AWAY_FOR: u8 = 10;

/// What a process knows of others under its name, and of those that were there before it.
#[derive(Debug, Default)]
pub(super) struct Lives {
    /// This process, as told from others under the same name; 0 if it doesn't say.
    pub(super) own: u64,
    /// Those that this one's records come from, itself the last.
    pub(super) line: Line,
    /// The latest that others remember of the node by releases which say nothing of lives: incarnation and heartbeat.
    unsaid: (Incarnation, u64),
    /// The latest that others remember and that is none of the line.
    other: (Incarnation, u64),
    /// Who has refused this process lately because another of its name is there, and for how many beats that still counts.
    turned_away: BTreeMap<NodeId, u8>,
}

impl Lives {
    /// Another second has passed.
    pub(super) fn beat(&mut self) {
        self.turned_away.values_mut().for_each(|left| *left -= 1);
        self.turned_away.retain(|_, left| *left > 0);
    }

    /// Somebody has gossiped with this process.
    pub(super) fn on_taken_in(&mut self, by: NodeId) {
        self.turned_away.remove(&by);
    }

    /// Does somebody say that another process of this name is there?
    pub(super) fn is_turned_away(&self) -> bool {
        !self.turned_away.is_empty()
    }

    /// Others remember this life of the node.
    fn hear_of(&mut self, incarnation: Incarnation, life: u64) {
        if life != self.own && !self.line.has(incarnation, life) {
            self.other = self.other.max((incarnation, life));
        }
    }

    /// Is there a life that has acknowledged what is not among this one's records? Then its incarnation.
    fn outdone_by(&self, mine: &Oneself) -> Option<(Incarnation, u64)> {
        let is_outdone = self.other.0 > Incarnation(0) && self.line.is_outdone_by(self.other.0, self.other.1);
        let is_outdone_unsaid =
            self.unsaid.0 > Incarnation(0) && self.unsaid > (mine.incarnation, mine.heartbeat);
        let unsaid = is_outdone_unsaid.then_some((self.unsaid.0, 0));
        is_outdone.then_some(self.other).max(unsaid)
    }
}

impl<F: Failpoints> Membership<F> {
    /// The lives that this node's own log names, and the one that wrote it last.
    pub(super) fn recover_line(&mut self, told: &Gossip, last: &Oneself) {
        let own = told.members.iter().find(|member| member.node == self.me.0);
        let mut line = own.map(|own| Line::from_log(&own.line)).unwrap_or_default();
        if !line.has(last.incarnation, last.life) {
            // By a release that wrote no such line.
            line.begin(last.incarnation, last.life);
        }
        line.go_on(self.oneself().incarnation, self.lives.own);
        self.lives.line = line;
    }

    pub(super) fn on_told_of_myself(&mut self, from: NodeId, told: &Member) {
        let mine = &self.members[&self.me].oneself;
        let (incarnation, life) = (told.oneself.incarnation, told.oneself.life);
        // A relay of an older release says nothing of lives.
        let is_said = life != 0 && self.lives.own != 0;
        let is_other = is_said && life != self.lives.own;
        if !is_other && mine.incarnation == incarnation && mine.incarnation > Incarnation(0) {
            self.known_by.insert(from);
        }
        if !is_said {
            self.lives.unsaid = self.lives.unsaid.max((incarnation, told.oneself.heartbeat));
        } else if is_other {
            self.lives.hear_of(incarnation, life);
        }
        // They know this one's record by now, and took it for the later one.
        if let Some(Life { incarnation, life }) = told.earlier.filter(|_| self.lives.own != 0) {
            self.lives.hear_of(Incarnation(incarnation), life);
        }
        if is_other && told.oneself.succeeds == self.lives.own {
            self.on_succeeded(told);
        }
        self.take_intent(told);
        self.layout.remember(told.oneself.works);
    }

    /// Another process has heard of this one, and has taken a later incarnation under its name. Which of the two is the
    /// right one nobody here can tell: the others follow the later, so this one stops. What it has counts for nothing from
    /// now on, and its log says so: started again it may meet nobody who remembers the other.
    fn on_succeeded(&mut self, told: &Member) {
        let mine = (self.oneself().incarnation, self.lives.own);
        // Two that have each taken over from the other: the lesser gives way, and the greater takes another incarnation.
        if (told.oneself.incarnation, told.oneself.life) > mine
            && !self.failpoints.planted(Bug::CloneAccepted)
        {
            self.failpoints.reached(Rare::CloneFenced);
            let host = &told.oneself.host;
            let at = format!("{host}:{}", told.oneself.ordinary_port);
            self.troubles.fence(told.name.to_string(), at);
            self.layout.lose_all();
            // All partitions: whoever starts from its log may work by a ring that this one never came to.
            let all = PartitionSet::first(self.options.partitions.count()).to_words();
            let oneself = &mut self.myself_mut().oneself;
            (oneself.serving, oneself.complete, oneself.lacking) = (false, false, all);
            let later = later_beginning(told.oneself.incarnation) + 1;
            oneself.beginning = later.max(oneself.beginning + 1);
        }
    }

    /// Has another process taken this node's name over?
    pub const fn is_fenced(&self) -> bool {
        self.troubles.is_fenced()
    }

    /// `by`, or somebody at a seed's address if it is not known, has refused this process, since another one of its name is
    /// there. Until it is taken in, or not refused for some seconds, it neither takes an incarnation nor says anything of
    /// itself: another member may have restarted, and not know the first one yet. What this one's disk holds counts for
    /// nothing: it may be a copy of that one's, which has gone on writing since.
    pub fn on_turned_away(&mut self, by: NodeId) {
        if self.oneself().serving || self.is_fenced() {
            return;
        }
        self.lives.turned_away.insert(self.known_or_nobody(by), TURNED_AWAY_FOR);
        if self.recovered {
            self.failpoints.reached(Rare::CopyTurnedAway);
            self.lose_records();
        }
    }

    pub(super) fn choose_incarnation(&mut self) {
        if self.lives.is_turned_away() {
            return;
        }
        let oneself = &self.members[&self.me].oneself;
        let mine = oneself.incarnation;
        // Another life's word counts from the line's beginning on, however little it says.
        let outdone_by = self.lives.outdone_by(oneself);
        let have_met = self.awaited_founders().all(|node| self.met.contains(&node))
            && (!self.is_guest() || !self.met.is_empty());
        let chosen = if let Some((theirs, _)) = outdone_by {
            // Others remember a life of which nothing was left behind here, as in `memory` mode or on a lost disk.
            Incarnation(theirs.max(mine).0 + 1)
        } else if mine == Incarnation(0) && have_met {
            Incarnation(1)
        } else {
            return;
        };
        if mine > Incarnation(0) || chosen > Incarnation(1) {
            self.failpoints.reached(if self.recovered { Rare::CameBackOlder } else { Rare::CameBackEmpty });
        }
        self.known_by.clear();
        let is_born = chosen == Incarnation(1) && !self.is_guest();
        let generation = self.failpoints.generation(chosen.0);
        let oneself = &mut self.myself_mut().oneself;
        oneself.incarnation = Incarnation(generation);
        oneself.heartbeat = 0;
        oneself.serving = false;
        if let Some((_, life)) = outdone_by {
            oneself.succeeds = life;
        }
        oneself.beginning = if is_born { BORN } else { later_beginning(oneself.incarnation) };
        self.lives.line.begin(Incarnation(generation), self.lives.own);
        if chosen > Incarnation(1) {
            self.layout.lose_all();
        }
    }

    pub(super) fn begin_to_serve(&mut self) {
        let oneself = &self.members[&self.me].oneself;
        let is_removed = self.members[&self.me].is_removed();
        if oneself.serving
            || oneself.incarnation == Incarnation(0)
            || is_removed
            || self.lives.is_turned_away()
        {
            return;
        }
        let begun = |node: &NodeId| self.members[node].oneself.incarnation > Incarnation(0);
        let born_together = self.awaited_founders().all(|node| begun(&node) && self.known_by.contains(&node));
        let serves = |node: &NodeId| self.members.get(node).is_some_and(|member| member.oneself.serving);
        let taken_in = self.known_by.iter().any(serves);
        if taken_in || (born_together && !self.is_guest() && !self.may_be_doubled()) {
            let oneself = &mut self.myself_mut().oneself;
            oneself.serving = true;
            oneself.heartbeat += 1;
            self.troubles.clear_all();
            if self.recovered && self.oneself().complete {
                self.failpoints.reached(Rare::CameBackWhole);
            }
        }
    }

    /// Its disk remembers others that hold copies, and none of them has shown yet that it takes this process for the node:
    /// the disk may be a copy, and the node run elsewhere. The only founder of a cluster would serve at once.
    fn may_be_doubled(&self) -> bool {
        let holds =
            |member: &Member| member.settled.in_ring && !member.is_removed() && member.node != self.me;
        self.recovered && self.known_by.is_empty() && self.members.values().any(holds)
    }

    /// A founder that was removed before all had met won't come.
    fn awaited_founders(&self) -> impl Iterator<Item = NodeId> + '_ {
        let is_removed = |node: &NodeId| self.members.get(node).is_some_and(Member::is_removed);
        self.founders.iter().copied().filter(move |node| !is_removed(node))
    }
}
