//! The operator: who is to be a member, said to any node that will hear it.
//!
//! What is said never makes the ring smaller than N: a machine that is removed has died before, with its disk, as if
//! it had been wiped, and what it held counts as destroyed.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringmain::id::NodeId;
use ringmain::membership::{Intent, Member, View, Word as MembershipWord, node_id};
use ringmain::shard::Output;
use ringmain::time::{Duration, Instant};

use super::departures::partition_of;
use super::{At, Event, World};
use crate::deeds::Word;
use crate::history::Key;
use crate::plan::REPLICAS;

/// The operator tries again after so long if nobody could be asked.
const AGAIN: Duration = Duration::from_millis(300);

/// A machine that is lost for good is missed by the operator after so long at most.
const NOTICED_WITHIN: Duration = Duration::from_secs(20);
/// But half of these in this: whoever is cut off keeps what nobody else has, and all others know better when it is back.
const NOTICED_SOON: Duration = Duration::from_secs(4);

/// What must not be lost is said again after so long, to whoever has not heard it.
const REPEAT: Duration = Duration::from_secs(3);

/// What was said is known by everybody after so long, or by nobody.
const HEARD_WITHIN: Duration = Duration::from_secs(30);

impl World {
    /// Say this to some node that serves, or try later.
    pub(super) fn say(&mut self, word: Word) {
        let Some((listener, view)) = self.listener(word) else {
            return self.heap.plan(self.now + AGAIN, Event::Word(word));
        };
        let word = self.instead(word, &view);
        // All have heard it. Said again to whoever let the machine in since, it would hide that.
        if let Word::Remove(node) | Word::Replace(node, _) = word
            && self.nodes[node].is_back
        {
            return;
        }
        if !self.is_allowed(word, &view) {
            if let Word::Remove(node) | Word::Replace(node, _) = word
                && self.nodes[node].is_gone
            {
                self.heap.plan(self.now + REPEAT, Event::Word(word));
                // Whoever has forgotten the removal may have forgotten who joined before it, too.
                if let Some(spare) = self.spare(&view) {
                    self.heap.plan(self.now, Event::Word(Word::Join(spare)));
                }
            }
            return;
        }
        if let Word::Remove(node) | Word::Replace(node, _) = word
            && !self.nodes[node].is_gone
        {
            // What is on the disk of a machine that is down can't be told.
            if !self.nodes[node].is_up() {
                return self.heap.plan(self.now + AGAIN, Event::Word(word));
            }
            if node == listener || !self.may_lose(node) {
                return;
            }
            self.lose_for_good(node);
            self.plan_return(node);
            // The others keep for it what it can't take, until the operator has noticed; now and then until the clients stop,
            // since most of it is overwritten while they go on.
            let rest = (Instant(0) + self.plan.span).since(self.now);
            let is_late = self.prng.chance(0.25);
            let most = if self.prng.chance(0.5) { NOTICED_SOON } else { NOTICED_WITHIN };
            let within = if is_late { rest.0 } else { self.prng.below(rest.0.min(most.0) + 1) };
            let unnoticed = Duration(within);
            return self.heap.plan(self.now + unnoticed, Event::Word(word));
        }
        let name = |node: usize| self.nodes[node].name.to_string();
        let said = match word {
            Word::Join(node) => MembershipWord::Join { name: name(node), weight: None },
            Word::Leave(node) => MembershipWord::Leave { name: name(node) },
            Word::Remove(node) => MembershipWord::Remove { name: name(node) },
            Word::Replace(old, new) => MembershipWord::Replace { old: name(old), new: name(new) },
            Word::Weight(node, weight) => MembershipWord::Weight { name: name(node), weight },
        };
        let at = At { node: listener, shard: 0, life: self.nodes[listener].life };
        let mut out = Output::default();
        let taken = self.nodes[listener].running(0).shard.change_members(&said, &mut out);
        self.carry_out(at, &mut out);
        self.plan_tick(at);
        if taken.is_err() {
            // It doesn't know yet that the spare is there.
            return self.heap.plan(self.now + AGAIN, Event::Word(word));
        }
        self.note_leaving(word);
        if matches!(word, Word::Remove(_) | Word::Replace(..)) {
            // The listener may be lost with what it heard, and the lost machine won't come back to be removed again.
            self.heap.plan(self.now + REPEAT, Event::Word(word));
        }
    }

    /// Some node that serves and is not about to go; if all wait for one that is lost, one of those.
    fn listener(&mut self, word: Word) -> Option<(usize, Arc<View>)> {
        let nodes = self.plan.machines() as u64;
        let node = self.prng.below(nodes) as usize;
        let machine = &self.nodes[node];
        let view = machine.all_running().first()?.shard.view().clone();
        let is_member = view.myself().intent == Intent::Member;
        let is_lost = match word {
            Word::Remove(lost) | Word::Replace(lost, _) => self.nodes[lost].is_gone,
            Word::Join(_) => self.nodes.iter().any(|node| node.is_gone),
            Word::Leave(_) | Word::Weight(..) => false,
        };
        let hears = !machine.is_paused() && machine.ending.is_none() && !view.is_fenced();
        (is_member && hears && (view.is_serving() || is_lost)).then_some((node, view))
    }

    /// If the spare that was to take a lost machine's place has become a member meanwhile, that place is dropped.
    fn instead(&self, word: Word, view: &View) -> Word {
        match word {
            Word::Replace(old, new) if self.nodes[old].is_gone && !self.is_spare(new, view) => {
                Word::Remove(old)
            }
            word => word,
        }
    }

    /// A machine that runs and could join.
    fn spare(&self, view: &View) -> Option<usize> {
        let is_guest =
            |node: usize| view.member(self.id_of(node)).is_some_and(|member| member.intent == Intent::Guest);
        (0..self.plan.machines()).find(|&node| self.nodes[node].is_up() && is_guest(node))
    }

    fn is_spare(&self, node: usize, view: &View) -> bool {
        view.member(self.id_of(node)).is_none_or(|member| member.intent == Intent::Guest)
    }

    /// A ring of fewer than N would be another test.
    fn is_allowed(&self, word: Word, view: &View) -> bool {
        let intent = |node: usize| view.member(self.id_of(node)).map(|member| member.intent);
        let is_member = |node: usize| {
            let is_lost = self.nodes[node].is_gone && intent(node) == Some(Intent::Leaving);
            is_lost || intent(node) == Some(Intent::Member)
        };
        let stays = |node: &usize| {
            let said = self.leaving.get(node).is_some_and(|said| self.now.since(*said) < HEARD_WITHIN);
            intent(*node) == Some(Intent::Member) && !self.nodes[*node].is_gone && !said
        };
        match word {
            Word::Join(_) | Word::Weight(..) => true,
            Word::Leave(node) | Word::Remove(node) => {
                let others = (0..self.plan.machines()).filter(|other| *other != node).filter(stays).count();
                is_member(node) && others >= usize::from(REPLICAS)
            }
            Word::Replace(old, new) => is_member(old) && self.is_spare(new, view),
        }
    }

    /// An operator knows what he has said, to whomever he said it: until all have heard it, or whoever had is lost.
    fn note_leaving(&mut self, word: Word) {
        match word {
            Word::Join(node) => {
                self.leaving.remove(&node);
            }
            Word::Leave(node) | Word::Remove(node) | Word::Replace(node, _) => {
                self.leaving.insert(node, self.now);
            }
            Word::Weight(..) => {}
        }
    }

    /// May this machine be lost for good? Half of them are lost whatever they hold: where W is 1 there is hardly one that
    /// does not hold the only copy that a write's promise speaks of, and what only hints hold would never be missed.
    fn may_lose(&mut self, node: usize) -> bool {
        self.prng.chance(0.5) || self.may_destroy(node)
    }

    fn lose_for_good(&mut self, node: usize) {
        self.count_destroyed(node);
        self.resume_now(node);
        self.kill(node);
        self.removed.insert(self.id_of(node));
        let machine = &mut self.nodes[node];
        (machine.is_gone, machine.ending) = (true, None);
        machine.stable = super::stable::Stable::default();
    }

    pub(super) fn id_of(&self, node: usize) -> NodeId {
        node_id(self.cluster, &self.nodes[node].name)
    }

    /// Machines that have not been removed.
    pub(super) fn present(&self) -> Vec<usize> {
        let is_present = |node: &usize| !self.removed.contains(&self.id_of(*node));
        (0..self.plan.machines()).filter(is_present).collect()
    }

    /// Was this machine lost for good before anybody heard that it is to be removed, and have all who had let it in restarted since
    /// and kept nothing? Then there is nobody to say it to.
    pub(super) fn is_forgotten(&self, member: NodeId) -> bool {
        let is_lost = |node: usize| self.nodes[node].is_gone && self.id_of(node) == member;
        let mut views = self.views();
        !self.plan.durable
            && (0..self.plan.machines()).any(is_lost)
            && views.all(|view| view.member(member).is_none())
    }

    /// Removal is final: who is removed in the eyes of all who are up is so for good. Before that the word may be lost with
    /// those who have heard it, and then nobody knows of it who acted on it.
    pub(super) fn note_removed(&mut self) {
        let is_removed = |view: &View, node| view.member(node).is_some_and(Member::is_removed);
        let by_all = |node: &NodeId| {
            let others = self.views().filter(|view| view.me != *node && !is_removed(view, view.me));
            let mut others = others.peekable();
            others.peek().is_some() && others.all(|view| is_removed(view, *node))
        };
        let removed: Vec<NodeId> = self.members().into_iter().filter(by_all).collect();
        self.removed.extend(removed);
    }

    pub(super) fn views(&self) -> impl Iterator<Item = &Arc<View>> {
        let running = self.nodes[..self.plan.machines()].iter().filter_map(|node| node.all_running().first());
        running.map(|running| running.shard.view())
    }

    /// Who owns each key, now or when the ring has changed, as any of those who are up has it.
    pub(super) fn owners(&self) -> BTreeMap<Key, Vec<usize>> {
        let keys = (0..=self.plan.keys.len() as u8).map(Key);
        keys.map(|key| (key, self.owners_of(key))).collect()
    }

    /// Does this node, as it sees it, own the key?
    pub(super) fn owns(&self, node: usize, key: Key) -> bool {
        let running = self.nodes[node].all_running().first();
        running.is_some_and(|running| running.shard.view().owns(partition_of(key)))
    }

    pub(super) fn owners_of(&self, key: Key) -> Vec<usize> {
        let partition = partition_of(key);
        let present = self.present();
        let mut owners: Vec<usize> = Vec::new();
        for &node in &present {
            let Some(running) = self.nodes[node].all_running().first() else { continue };
            let view = running.shard.view();
            let all = view.primaries(partition).iter().chain(view.successors(partition));
            owners.extend(all.filter_map(|id| present.iter().copied().find(|node| self.id_of(*node) == *id)));
        }
        owners.sort_unstable();
        owners.dedup();
        owners
    }

    /// The ids of all that were ever members or guests, in their order.
    pub(super) fn members(&self) -> Vec<NodeId> {
        let mut members: Vec<NodeId> = (0..self.plan.machines()).map(|node| self.id_of(node)).collect();
        members.sort_unstable();
        members
    }
}
