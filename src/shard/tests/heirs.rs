//! Hints whose target has left: who owns the key now takes them.

use ringmain_schema::message::{ErrorCode, Put};

use super::cluster::{Answer, Cluster, get, put};
use crate::membership::{Intent, Step};
use crate::time::Duration;

/// A key, its preference list in a ring of all but the last node, and its owners when the node at this place of the list
/// has left and the last has joined. `is_heir`: the first fallback is among those.
fn moving(cluster: &Cluster, leaver: usize, is_heir: bool) -> (Vec<u8>, Vec<usize>, [usize; 3]) {
    let before = cluster.ring_of(&[0, 1, 2, 3, 4]);
    let keys = (0..=255u8).map(|number| vec![b'k', number]);
    let found = keys.into_iter().find_map(|key| {
        let partition = cluster.shards[&(0, 0)].place(&key).partition;
        let list = before.preference_list(partition);
        let nodes: Vec<usize> = list.iter().map(|node| cluster.node(node)).collect();
        let staying: Vec<usize> = (0..6).filter(|node| *node != nodes[leaver]).collect();
        let heirs = cluster.ring_of(&staying).preference_list(partition).primaries.to_vec();
        let heirs: [usize; 3] = std::array::from_fn(|at| cluster.node(heirs[at]));
        (heirs.contains(&nodes[3]) == is_heir).then_some((key, nodes, heirs))
    });
    found.unwrap()
}

/// A key whose hint for its third owner is kept by a fallback, in a ring of all but the last node; and what its owners
/// are when the third has left and the last has joined.
fn hinted(is_heir: bool) -> (Cluster, Vec<u8>, usize, [usize; 3]) {
    let mut cluster = Cluster::with_options(6, 1, |options| options.durable = true);
    let (key, nodes, heirs) = moving(&cluster, 2, is_heir);
    cluster.show(&[0, 1, 2, 3, 4], None);
    cut_off(&mut cluster, nodes[2]);
    let client = cluster.client((nodes[0], 0));
    assert!(matches!(cluster.put(client, Put { write: 3, ..put(&key, b"milk") }), Answer::Stored { .. }));
    assert_eq!(cluster.shards[&(nodes[3], 0)].hints().backlog().count(), 1);
    (cluster, key, nodes[2], heirs)
}

/// Nobody hears this node, nor it anybody, and all know.
fn cut_off(cluster: &mut Cluster, node: usize) {
    let others = (0..6).filter(|other| *other != node);
    others.for_each(|other| cluster.cut.extend([(node, other), (other, node)]));
    cluster.run(Duration::from_secs(3));
}

/// scylla #24980: a hint was sent to its target for ever, or dropped, when another had come to own the key. It is at
/// home when all who own the key now hold it.
#[test]
fn a_hint_whose_target_owns_nothing_any_more_goes_to_who_does() {
    for is_heir in [false, true] {
        let (mut cluster, key, left, heirs) = hinted(is_heir);
        let staying: Vec<usize> = (0..6).filter(|node| *node != left).collect();
        let away = heirs[1];
        cluster.show(&staying, None);
        cluster.paused.insert(away);
        cluster.run(Duration::from_secs(5));
        assert_eq!(cluster.hints(), 1, "one of the owners hasn't got it");
        cluster.paused.clear();
        cluster.run(Duration::from_secs(5));
        assert_eq!(cluster.hints(), 0, "its keeper owns the key now: {is_heir}");
        assert!(heirs.iter().all(|&heir| cluster.values_at(heir, &key) == 1), "{heirs:?}");
        assert_eq!(cluster.values_at(left, &key), 0);
    }
}

/// While the ring changes the owners to be are owners: a hint for one that leaves stays its own until it has left.
#[test]
fn a_hint_for_who_is_leaving_waits_for_it() {
    let (mut cluster, key, left, _) = hinted(false);
    let staying: Vec<usize> = (0..6).filter(|node| *node != left).collect();
    cluster.show(&[0, 1, 2, 3, 4], Some((&staying, true)));
    cluster.run(Duration::from_secs(5));
    assert_eq!(cluster.hints(), 1);
    cluster.cut.clear();
    cluster.run(Duration::from_secs(5));
    assert_eq!((cluster.hints(), cluster.values_at(left, &key)), (0, 1));
}

/// P1: the hint was all there was of a write. Who had streamed from the leaver before it came did not get it, and it went with
/// the leaver (the simulator's seed 24107000000153).
#[test]
fn a_hint_for_who_is_leaving_comes_to_the_owners_to_be() {
    let mut cluster =
        Cluster::with_options(6, 1, |options| (options.durable, options.anti_entropy) = (true, None));
    let (key, nodes, heirs) = moving(&cluster, 0, false);
    cluster.show(&[0, 1, 2, 3, 4], None);
    cluster.paused.insert(nodes[4]);
    nodes[..3].iter().for_each(|&owner| cut_off(&mut cluster, owner));
    let client = cluster.client((nodes[3], 0));
    let stored = cluster.put(client, Put { write: 1, ..put(&key, b"milk") });
    assert!(matches!(stored, Answer::Stored { nodes: 1, .. }), "{stored:?}");
    assert_eq!(cluster.hints(), 1);
    let staying: Vec<usize> = (0..6).filter(|node| *node != nodes[0]).collect();
    cluster.show(&[0, 1, 2, 3, 4], Some((&staying, true)));
    cluster.cut.clear();
    cluster.run(Duration::from_secs(10));
    assert_eq!(cluster.values_at(nodes[0], &key), 1, "it was kept for the leaver");
    assert!(heirs.iter().all(|&heir| cluster.values_at(heir, &key) == 1), "{heirs:?}");
}

/// A node that stood in for an owner applied a write again that it had applied, when it stood in for another owner at the
/// retry, or owned the key itself. If the write had been replaced meanwhile, what had replaced it was told to nobody, and
/// the retry was acknowledged for nothing.
#[test]
fn a_retry_after_the_ring_has_changed_applies_once() {
    for (is_heir, is_replaced) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut cluster = Cluster::with_options(6, 1, |options| options.durable = true);
        let (key, nodes, heirs) = moving(&cluster, 0, is_heir);
        cluster.show(&[0, 1, 2, 3, 4], None);
        let keeper = nodes[3];
        cut_off(&mut cluster, keeper);
        let client = cluster.client((keeper, 0));
        let named = Put { operation_client: 5, operation_sequence: 1, write: 1, ..put(&key, b"milk") };
        assert!(matches!(cluster.put(client, named), Answer::Stored { .. }));
        if is_replaced {
            let newer = Put { overwrite: true, write: 1, ..put(&key, b"bread") };
            assert!(matches!(cluster.put(client, newer), Answer::Stored { .. }));
        }
        let staying: Vec<usize> = (0..6).filter(|node| *node != nodes[0]).collect();
        cluster.show(&staying, None);
        let again = cluster.put(client, named);
        assert!(matches!(again, Answer::Stored { .. }), "it is as good as stored: {is_heir}, {is_replaced}");
        let here = cluster.shards[&(keeper, 0)].hints().known(&key).versions().len();
        assert!(cluster.versions_at(keeper, &key).max(here) == 1, "what it acknowledges it holds");
        cluster.cut.clear();
        cluster.run(Duration::from_secs(15));
        assert_eq!(cluster.hints(), 0);
        assert_eq!(heirs.map(|heir| cluster.versions_at(heir, &key)), [1; 3], "{is_heir}, {is_replaced}");
        let reader = cluster.client((heirs[0], 0));
        let expected: &[u8] = if is_replaced { b"bread" } else { b"milk" };
        assert_eq!(cluster.get(reader, get(&key)).values(), [expected]);
    }
}

/// What a node applied as an owner it applies no more when it stands in for one.
#[test]
fn a_retry_at_a_former_owner_applies_once() {
    let mut cluster = Cluster::with_options(6, 1, |options| options.durable = true);
    let (key, nodes, _) = moving(&cluster, 0, true);
    let staying: Vec<usize> = (0..6).filter(|node| *node != nodes[0]).collect();
    cluster.show(&staying, None);
    let keeper = nodes[3];
    cut_off(&mut cluster, keeper);
    let client = cluster.client((keeper, 0));
    let named = Put { operation_client: 5, operation_sequence: 1, write: 1, ..put(&key, b"milk") };
    assert!(matches!(cluster.put(client, named), Answer::Stored { .. }));
    cluster.show(&[0, 1, 2, 3, 4], None);
    assert!(matches!(cluster.put(client, named), Answer::Stored { .. }));
    let shard = &cluster.shards[&(keeper, 0)];
    let place = shard.place(&key);
    let copy = shard.replica().index().find(place.partition, place.token, &key).unwrap();
    assert_eq!(shard.hints().known(&key).versions(), copy.state.versions());
}

/// It has told all that it keeps nothing for others; they go by that, and remove it.
#[test]
fn who_is_about_to_leave_keeps_nothing_for_others() {
    for step in [Step::Writing, Step::Whole, Step::Reading] {
        let mut cluster = Cluster::with_options(6, 1, |options| options.durable = true);
        let (key, nodes, _) = moving(&cluster, 3, false);
        let leaver = nodes[3];
        let staying: Vec<usize> = (0..6).filter(|node| *node != leaver).collect();
        cluster.show(&[0, 1, 2, 3, 4], Some((&staying, step == Step::Reading)));
        let id = cluster.shards[&(leaver, 0)].view().me;
        cluster.show_members(|members| {
            members.iter_mut().for_each(|member| member.oneself.works.step = Step::Writing);
            members.iter_mut().find(|member| member.node == id).unwrap().intent = Intent::Leaving;
        });
        cluster.show_step(step);
        cut_off(&mut cluster, leaver);
        let client = cluster.client((leaver, 0));
        let answer = cluster.put(client, Put { write: 1, ..put(&key, b"milk") });
        match step {
            Step::Writing => assert!(matches!(answer, Answer::Stored { .. }), "{answer:?}"),
            Step::Whole => assert_eq!(answer.code(), Some(ErrorCode::Overloaded), "{answer:?}"),
            Step::Reading => {
                assert_eq!(answer.code(), Some(ErrorCode::ShuttingDown), "it has gone: {answer:?}");
            }
        }
        assert_eq!(cluster.hints(), usize::from(step == Step::Writing));
    }
}

/// Nobody acknowledges anything to a node that is removed: of each leave some writes were left in doubt, since the leaver
/// coordinated up to its last moment.
#[test]
fn who_is_going_takes_no_requests_and_answers_those_it_has() {
    let mut cluster = Cluster::new(6, 1);
    let (key, nodes, _) = moving(&cluster, 0, false);
    let (leaver, other) = (nodes[0], nodes[3]);
    let staying: Vec<usize> = (0..6).filter(|node| *node != leaver).collect();
    cluster.show(&[0, 1, 2, 3, 4], Some((&staying, false)));
    let id = cluster.shards[&(leaver, 0)].view().me;
    cluster.show_members(|members| {
        members.iter_mut().for_each(|member| member.oneself.works.step = Step::Writing);
        members.iter_mut().find(|member| member.node == id).unwrap().intent = Intent::Leaving;
    });
    cluster.show_step(Step::Whole);
    let client = cluster.client((leaver, 0));
    assert!(
        matches!(cluster.put(client, put(&key, b"milk")), Answer::Stored { .. }),
        "not all are whole yet"
    );
    let others = (0..6).filter(|other| *other != leaver);
    others.for_each(|other| cluster.cut.extend([(leaver, other), (other, leaver)]));
    cluster.begin_put(client, put(&key, b"bread"));
    let works = cluster.shards[&(leaver, 0)].view().works;
    cluster.show_members(|members| members.iter_mut().for_each(|member| member.oneself.works = works));
    let would_lose = |cluster: &mut Cluster| {
        let shard = cluster.shards.get_mut(&(leaver, 0)).unwrap();
        shard.progress_of_streams().would_lose
    };
    assert!(would_lose(&mut cluster), "somebody waits for its answer");
    cluster.cut.clear();
    cluster.run(Duration::from_secs(2));
    assert!(!would_lose(&mut cluster));
    let late = cluster.client((leaver, 0));
    assert_eq!(cluster.put(late, put(&key, b"eggs")).code(), Some(ErrorCode::ShuttingDown));
    let elsewhere = cluster.client((other, 0));
    assert!(
        matches!(cluster.put(elsewhere, put(&key, b"eggs")), Answer::Stored { .. }),
        "others don't ask it"
    );
}

/// A removed member stays in the ring until the change is settled, and takes nothing any more.
#[test]
fn a_hint_for_a_removed_member_goes_to_the_other_owners() {
    let (mut cluster, key, left, heirs) = hinted(false);
    let staying: Vec<usize> = (0..6).filter(|node| *node != left).collect();
    cluster.show(&[0, 1, 2, 3, 4], Some((&staying, false)));
    cluster.run(Duration::from_secs(1));
    assert_eq!(cluster.hints(), 1);
    let removed = cluster.shards[&(left, 0)].view().me;
    cluster.show_members(|members| {
        let removed = members.iter_mut().find(|member| member.node == removed).unwrap();
        removed.intent = Intent::Removed;
    });
    cluster.run(Duration::from_secs(5));
    assert_eq!((cluster.hints(), cluster.values_at(left, &key)), (0, 0));
    assert!(heirs.iter().all(|&heir| cluster.values_at(heir, &key) == 1), "{heirs:?}");
}
