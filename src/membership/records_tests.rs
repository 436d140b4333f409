//! Birth, restarts and operators' words, by gossip alone.

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

/// P13: a cluster's only founder waits for nobody, so a copy of its disk served as soon as it was started, and was
/// turned away by all whom it called.
#[test]
fn the_only_founder_restarts_when_another_member_has_known_it() {
    let mut a = node("a", &[], false);
    let mut b = node("b", &[], true);
    (0..3).for_each(|_| exchange(&mut b, &mut a));
    let alone = a.gossip();
    a.change(&Word::Join { name: "b".to_owned(), weight: None }).unwrap();
    for _ in 0..20 {
        exchange(&mut b, &mut a);
        for of in [&mut a, &mut b] {
            let works = of.view().works;
            of.confirm(works);
            of.on_progress(works, &PartitionSet::first(8), &PartitionSet::default(), false);
        }
    }
    assert!(a.view().member(b.me()).unwrap().settled.in_ring);

    let mut again = node("a", &[], false);
    again.recover(&alone);
    assert!(again.view().is_serving(), "a guest holds nothing: there is nobody to wait for");
    let mut again = node("a", &[], false);
    again.recover(&a.gossip());
    assert!(!again.view().is_serving());
    (0..2).for_each(|_| exchange(&mut again, &mut b));
    assert!(again.view().is_serving() && again.oneself().complete);

    let mut again = node("a", &[], false);
    again.recover(&a.gossip());
    again.change(&Word::Remove { name: "b".to_owned() }).unwrap();
    assert!(again.view().is_serving(), "the operator says that nobody is left");
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

/// Each word is said to two nodes that have not heard of one another's yet, and again when they have.
#[test]
fn a_word_that_two_operators_say_is_said_once() {
    let replace = Word::Replace { old: "b".to_owned(), new: "d".to_owned() };
    let words = [
        Word::Join { name: "d".to_owned(), weight: Some(70) },
        Word::Leave { name: "b".to_owned() },
        Word::Remove { name: "b".to_owned() },
        Word::Weight { name: "b".to_owned(), weight: 70 },
        replace,
    ];
    for word in words {
        let [mut a, mut b, mut c] = born();
        let mut guest = node("d", &[], true);
        for _ in 0..3 {
            [&mut a, &mut b, &mut c].into_iter().for_each(|other| exchange(&mut guest, other));
        }
        assert!(!a.change(&word).unwrap().changed.is_empty());
        assert!(!c.change(&word).unwrap().changed.is_empty());
        let version = a.change(&word).map(|again| again.changed);
        assert_eq!(version, Ok(vec![]), "{word:?}: the answer was lost, and it is said again");
        (0..2).for_each(|_| exchange(&mut a, &mut c));
        let words = |of: &Membership| -> Vec<_> {
            let members = of.view().members;
            members
                .into_iter()
                .map(|m| (m.name.clone(), m.intent, m.intent_version, m.weight, m.place))
                .collect()
        };
        assert_eq!(words(&a), words(&c), "{word:?}");
        for operator in [&mut a, &mut c] {
            assert_eq!(operator.change(&word).unwrap().changed, [], "{word:?}");
        }
    }
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
