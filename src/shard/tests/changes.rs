//! An operator's words, as any shard takes them.

use ringmain_schema::message::{Change, Changed, ErrorAnswer, ErrorCode, What};
use ringmain_schema::{Encoder, Frame, Kind};

use super::cluster::{Answer, At, Cluster, get, put};
use crate::shard::ShardOptions;
use crate::shard::io::Machine;
use crate::time::Duration;

pub(super) const WEIGHT: Change<'static> =
    Change { what: What::Weight, name: "n2", new_name: "", weight: 50, plan_only: false, force: false };

/// Say it to one shard: what it moves, or why not.
pub(super) fn say(cluster: &mut Cluster, at: At, change: Change<'_>) -> Result<Changed, (ErrorCode, String)> {
    let client = cluster.client(at);
    let mut bytes = Vec::new();
    change.encode(&mut Encoder::default(), 9, &mut bytes);
    cluster.send(client, &bytes);
    let answer = cluster.receive(client).expect("it is answered at once");
    let frame = Frame::split(&answer, answer.len()).unwrap().unwrap();
    assert_eq!(frame.header.request_id, 9);
    if frame.header.kind == Kind::ERROR {
        let error = ErrorAnswer::parse(&frame).unwrap();
        return Err((error.code, error.message.to_owned()));
    }
    Ok(Changed::parse(&frame).unwrap())
}

fn weights(cluster: &Cluster) -> Vec<u32> {
    let weight = |shard: &crate::shard::Shard| {
        let members = &shard.view().members;
        members.iter().find(|member| *member.name == *"n2").unwrap().weight
    };
    cluster.shards.values().map(weight).collect()
}

/// It reaches all shards of all nodes without a second's wait, whichever was told.
#[test]
fn every_shard_takes_a_word_and_all_work_by_it_at_once() {
    let mut cluster = Cluster::new(4, 2);
    for (weight, at) in [(50, (0, 0)), (60, (1, 1)), (70, (2, 1))] {
        let changed = say(&mut cluster, at, Change { weight, ..WEIGHT }).unwrap();
        assert!(changed.applied && changed.version > 0);
        assert_eq!((changed.partitions, changed.replicas_wanted, changed.replicas), (16, 3, 3));
        assert_eq!(changed.moves.iter().map(|moved| moved.after).sum::<u32>(), 3 * 16);
        assert_eq!(weights(&cluster), [weight; 8]);
        let again = say(&mut cluster, at, Change { weight, ..WEIGHT }).unwrap();
        assert!(!again.applied && again.version == 0, "it was so already");
    }
    cluster.run(Duration::from_secs(1));
    cluster.nobody_owes_an_answer();
}

#[test]
fn a_plan_changes_nothing() {
    let mut cluster = Cluster::new(4, 2);
    let leave = Change { what: What::Leave, name: "n3", weight: 0, plan_only: true, ..WEIGHT };
    let planned = say(&mut cluster, (0, 1), leave).unwrap();
    let gone = planned.moves.iter().find(|moved| moved.name == "n3").unwrap();
    assert_eq!((gone.after, gone.loses, gone.fair_milli), (0, gone.before, 0));
    assert!(!planned.applied && planned.version > 0 && planned.streamed >= planned.least);
    assert!(
        planned.moves.iter().all(|moved| moved.name == "n3" || moved.after == 16),
        "three hold everything"
    );
    cluster.run(Duration::from_secs(3));
    assert_eq!(say(&mut cluster, (1, 0), leave).unwrap(), planned, "and so it is still to be done");
}

#[test]
fn who_can_be_reached_is_removed_by_force_only() {
    let mut cluster = Cluster::new(4, 1);
    let remove = Change { what: What::Remove, name: "n3", weight: 0, ..WEIGHT };
    for at in [(0, 0), (3, 0)] {
        let (code, message) = say(&mut cluster, at, remove).unwrap_err();
        assert!(code == ErrorCode::BadRequest && message.contains("--force"), "{message}");
    }
    assert!(say(&mut cluster, (0, 0), Change { plan_only: true, ..remove }).is_ok(), "one may ask");
    cluster.kill(3);
    cluster.run(Duration::from_secs(2));
    assert!(say(&mut cluster, (0, 0), remove).unwrap().applied);
    assert!(say(&mut cluster, (1, 0), Change { name: "n2", force: true, ..remove }).unwrap().applied);
}

/// All restarted, and one didn't come back. The others waited for it, and refused to be told that it wouldn't come.
#[test]
fn a_founder_that_is_lost_can_be_removed_before_the_others_serve() {
    for shards in [1, 2] {
        let mut cluster = Cluster::new(3, shards);
        (0..3).for_each(|node| cluster.kill(node));
        (0..2).for_each(|node| cluster.start(node));
        cluster.run(Duration::from_secs(5));
        let remove = Change { what: What::Remove, name: "n2", weight: 0, ..WEIGHT };
        let leave = Change { what: What::Leave, ..remove };
        let (code, message) = say(&mut cluster, (0, 0), leave).unwrap_err();
        assert!(code == ErrorCode::NotServing && message.contains("removed"), "{message}");
        assert!(say(&mut cluster, (0, shards - 1), remove).unwrap().applied);
        cluster.run(Duration::from_secs(5));
        let client = cluster.client((1, 0));
        assert!(matches!(cluster.put(client, put(b"k", b"milk")), Answer::Stored { nodes: 2, .. }));
    }
}

#[test]
fn nonsense_is_a_bad_request() {
    let mut cluster = Cluster::new(3, 2);
    for (change, words) in [
        (Change { name: "n7", ..WEIGHT }, "there are n0, n1, n2"),
        (Change { weight: 0, ..WEIGHT }, "1 to 10000"),
        (Change { what: What::Replace, new_name: "n1", force: true, ..WEIGHT }, "holds a share"),
    ] {
        let (code, message) = say(&mut cluster, (1, 1), change).unwrap_err();
        assert!(code == ErrorCode::BadRequest && message.contains(words), "{message}");
    }
    let client = cluster.client((0, 0));
    cluster.put(client, put(b"k", b"v"));
    assert_eq!(cluster.get(client, get(b"k")).values(), [b"v"]);
}

/// Whoever hears that a word was taken counts on it; if the node died then, nobody would have said so.
#[test]
fn a_word_is_answered_when_its_record_is_on_stable_storage() {
    fn durable(options: &mut ShardOptions) {
        options.durable = true;
    }
    let mut cluster = Cluster::with_options(3, 2, durable);
    cluster.unsynced.insert(0);
    let mut bytes = Vec::new();
    WEIGHT.encode(&mut Encoder::default(), 9, &mut bytes);
    // The second says the same again, by another shard: it has to wait for the record of the first.
    let clients = [cluster.client((0, 0)), cluster.client((0, 1))];
    for client in clients {
        cluster.send(client, &bytes);
    }
    cluster.run(Duration::from_millis(300));
    assert_eq!(weights(&cluster), [50; 6], "all know it, and work by it");
    assert!(clients.iter().all(|client| cluster.receive(*client).is_none()));
    assert!(!cluster.shards[&(0, 0)].is_drained(), "it owes two answers");
    cluster.sync(0);
    cluster.run(Duration::from_millis(10));
    for (client, applied) in clients.into_iter().zip([true, false]) {
        let answer = cluster.receive(client).expect("it is durable");
        let changed = Changed::parse(&Frame::split(&answer, answer.len()).unwrap().unwrap()).unwrap();
        assert_eq!(changed.applied, applied);
    }

    // A disk that takes nothing more: the client is told that it can't be sure.
    cluster.unsynced.insert(0);
    let mut bytes = Vec::new();
    Change { weight: 70, ..WEIGHT }.encode(&mut Encoder::default(), 9, &mut bytes);
    cluster.send(clients[0], &bytes);
    assert_eq!(cluster.answer(clients[0]).code(), Some(ErrorCode::MaybeApplied));
    cluster.sync(0);
    let again = say(&mut cluster, (1, 0), Change { weight: 70, ..WEIGHT }).unwrap();
    assert!(!again.applied && again.version == 0, "said again, it does no harm");
    cluster.nobody_owes_an_answer();
}

/// Founders that were configured apart: each names the other, and both values.
#[test]
fn founders_that_differ_say_in_what() {
    let serving = |cluster: &Cluster| cluster.shards.values().any(|shard| shard.view().is_serving());
    let told = |cluster: &Cluster, node: usize| {
        let notes = cluster.notes.iter().filter(|(by, _)| *by == node);
        notes.map(|(_, note)| note.clone()).collect::<Vec<_>>().join("\n")
    };
    let cluster = Cluster::founded_apart(2, |node| (b"", if node == 0 { 16 } else { 32 }, 3));
    assert!(!serving(&cluster));
    for (node, sentence) in [
        (0, "n1 was started with --partitions 32 --replicas 3, this node with --partitions 16 --replicas 3"),
        (1, "n0 was started with --partitions 16 --replicas 3, this node with --partitions 32 --replicas 3"),
    ] {
        let told = told(&cluster, node);
        assert!(told.contains(sentence) && told.lines().count() == 1, "{told}");
    }

    let cluster = Cluster::founded_apart(2, |node| (b"", 16, if node == 0 { 2 } else { 3 }));
    assert!(!serving(&cluster) && told(&cluster, 1).contains("--replicas 2, this node with"));

    let cluster = Cluster::founded_apart(2, |node| (if node == 0 { b"one" } else { b"two" }, 16, 3));
    assert!(!serving(&cluster));
    let both = [told(&cluster, 0), told(&cluster, 1)];
    assert!(both.iter().all(|told| told.contains("the secret is not this cluster's")), "{both:?}");
    assert!(both.iter().any(|told| told.contains(" refuses this node")), "{both:?}");
    assert!(both.iter().any(|told| told.contains("this node refuses n")), "{both:?}");
}
