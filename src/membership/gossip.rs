//! What nodes tell each other of the members: as little as shows both what they lack (docs/adr/0016).
//!
//! 1. Who begins tells its own record and a hash of all that it knows.
//! 2. Whoever knows the same answers with the same hash, and nothing is left to say. Else it answers with the version of
//!    each record.
//! 3. Who began tells the records that differ, asks for the other's, and is answered with those.
//!
//! Nobody keeps anything between the steps: each message says all that its answer needs. A node that knows no hashes is
//! told all, and tells all.

use std::collections::BTreeMap;

use ringmain_schema::peer::{Gossip, MemberVersion};
use xxhash_rust::xxh3::xxh3_64;

use crate::failpoint::Failpoints;
use crate::id::NodeId;

use super::{Member, Membership};

impl<F: Failpoints> Membership<F> {
    /// The first thing to tell another member.
    pub fn greeting(&self) -> Gossip {
        let own = self.record(self.me()).map(Member::to_record);
        Gossip { members: own.into_iter().collect(), whole: self.whole(), ..self.nothing_told() }
    }

    /// What to answer to this, after it has been taken.
    pub fn answer(&self, told: &Gossip) -> Gossip {
        if told.whole == 0 {
            return self.gossip();
        }
        let whole = self.whole();
        // Whoever asks for records knows which it lacks.
        let is_asked = !told.wanted.is_empty();
        let versions = if whole == told.whole || is_asked { Vec::new() } else { self.versions() };
        let wanted = told.wanted.iter().filter_map(|node| self.record(NodeId(*node)));
        Gossip { members: wanted.map(Member::to_record).collect(), whole, versions, ..self.nothing_told() }
    }

    /// What to tell whoever has answered so, if anything is left.
    pub fn follow_up(&self, answer: &Gossip) -> Option<Gossip> {
        if answer.versions.is_empty() || self.is_of_another_ring(answer) {
            return None;
        }
        let theirs: BTreeMap<u64, u64> =
            answer.versions.iter().map(|version| (version.node(), version.version())).collect();
        let ours: BTreeMap<u64, u64> =
            self.versions().iter().map(|version| (version.node(), version.version())).collect();
        let differs = |node: &u64| theirs.get(node) != ours.get(node);
        let told = ours.keys().filter(|node| differs(node)).filter_map(|node| self.record(NodeId(*node)));
        let members = told.map(Member::to_record).collect();
        let wanted: Vec<u64> = theirs.keys().copied().filter(differs).collect();
        Some(Gossip { members, whole: self.whole(), wanted, ..self.nothing_told() })
    }

    /// Does this show that its sender knows this node's record as it is?
    pub(super) fn shows_me(&self, told: &Gossip) -> bool {
        let me = self.me();
        let version = || self.record(me).map(Member::version);
        let listed = told.versions.iter().find(|version| version.node() == me.0).map(MemberVersion::version);
        (told.whole != 0 && told.whole == self.whole()) || (listed.is_some() && listed == version())
    }

    /// Of all records, in the order of their ids.
    fn versions(&self) -> Vec<MemberVersion> {
        self.records().map(|member| MemberVersion::new(member.node.0, member.version())).collect()
    }

    /// Never 0.
    fn whole(&self) -> u64 {
        let versions = self.records().flat_map(|member| [member.node.0, member.version()]);
        let bytes: Vec<u8> = versions.flat_map(u64::to_le_bytes).collect();
        xxh3_64(&bytes).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::records::tests::node;
    use super::*;

    const NAMES: [&str; 3] = ["a", "b", "c"];

    /// One exchange as it goes over the wire: how many records travelled.
    fn talk(one: &mut Membership, other: &mut Membership) -> usize {
        one.beat();
        let mut records = 0;
        let mut next = Some(one.greeting());
        while let Some(told) = next {
            records += told.members.len();
            other.on_gossip(one.me(), &told);
            let answer = other.answer(&told);
            records += answer.members.len();
            one.on_gossip(other.me(), &answer);
            next = one.follow_up(&answer);
        }
        records
    }

    fn born() -> [Membership; 3] {
        let mut nodes = NAMES.map(|name| node(name, &NAMES, false));
        for _ in 0..4 {
            for (one, other) in [(0, 1), (0, 2), (1, 2)] {
                let [one, other] = nodes.get_disjoint_mut([one, other]).unwrap();
                talk(one, other);
            }
        }
        nodes
    }

    #[test]
    fn founders_meet_and_serve_and_at_rest_say_only_that_they_are_there() {
        let [mut a, mut b, mut c] = born();
        assert!([&a, &b, &c].iter().all(|node| node.oneself().serving && node.oneself().complete));
        (0..3).for_each(|_| assert_eq!((talk(&mut a, &mut b), talk(&mut c, &mut a)), (1, 1)));
        assert!(b.answer(&a.greeting()).versions.is_empty());
    }

    #[test]
    fn only_what_differs_is_told_and_it_is_told_both_ways() {
        let [mut a, mut b, mut c] = born();
        a.change(&crate::membership::Word::Weight { name: "c".to_owned(), weight: 7 }).unwrap();
        let mut guest = node("d", &[], true);
        talk(&mut guest, &mut b);
        assert!(talk(&mut a, &mut b) <= 8, "of five that there are");
        (0..3).for_each(|_| _ = (talk(&mut b, &mut c), talk(&mut c, &mut a), talk(&mut guest, &mut a)));
        let versions = a.versions();
        assert!([&b, &c, &guest].iter().all(|node| node.versions() == versions));
        assert_eq!(versions.len(), 4);
    }

    /// A node of the first release tells all, and is told all.
    #[test]
    fn whoever_knows_no_hashes_is_told_all() {
        let [a, mut b, _] = born();
        let old = b.gossip();
        assert_eq!((old.whole, a.answer(&old).members.len()), (0, 3));
        assert!(a.follow_up(&old).is_none());
        // It takes the greeting for gossip like any other, and skips what it doesn't know.
        let greeting = Gossip { whole: 0, ..a.greeting() };
        b.on_gossip(a.me(), &greeting);
        assert_eq!(b.view().members.len(), 3);
    }

    /// P12: versions and wishes from anybody.
    #[test]
    fn whatever_is_asked_for_is_answered_with_what_there_is() {
        let [a, ..] = born();
        let wanted = (0..5000).collect();
        let asked = Gossip { whole: 7, wanted, ..Gossip::default() };
        assert!(a.answer(&asked).members.is_empty());
        let versions = (0..5000).map(|node| MemberVersion::new(node % 3, node)).collect();
        let told = a.follow_up(&Gossip { whole: 7, versions, ..Gossip::default() }).unwrap();
        assert_eq!((told.members.len(), told.wanted.len()), (3, 3));
    }
}
