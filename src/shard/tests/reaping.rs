//! What was deleted is forgotten when everybody has confirmed it, and not before. Defends P1 and P5.

use ringmain_schema::Encoder;
use ringmain_schema::epoch::{Binding, Epoch};
use ringmain_schema::message::{Change, ErrorCode, Get, Put, What};

use super::changes::{WEIGHT, say};
use super::cluster::{Answer, Cluster, get, put};
use super::fallbacks::{hints, holds, isolate, key_and_nodes};
use crate::membership::BORN;
use crate::shard::epochs::Held;
use crate::shard::{Input, LogState, Record, ShardOptions};
use crate::time::Duration;

/// Each partition is looked at so often.
const EVERY: Duration = Duration::from_millis(400);
/// Two looks at each partition, and a round.
const TWO_LOOKS: Duration = Duration::from_secs(3);
/// Before anything is looked at twice.
const SOON: Duration = Duration::from_millis(50);

fn cluster(nodes: usize, options: fn(&mut ShardOptions)) -> Cluster {
    let mut cluster = Cluster::with_options(nodes, 1, options);
    cluster.run(Duration::from_secs(1));
    cluster
}

fn keys(cluster: &Cluster) -> Vec<usize> {
    cluster.shards.values().map(|shard| shard.replica().keys()).collect()
}

/// Put and deleted; the context that the delete had.
fn write_and_delete(cluster: &mut Cluster, at: usize, key: &[u8]) -> Vec<u8> {
    let client = cluster.client((at, 0));
    cluster.put(client, put(key, b"milk"));
    let context = cluster.get(client, get(key)).context().to_vec();
    let delete = Put { key, value: None, context: &context, ..Put::default() };
    let deleted = cluster.put(client, delete);
    assert!(matches!(deleted, Answer::Stored { .. }), "{deleted:?}");
    context
}

#[test]
fn a_deleted_key_is_forgotten_by_all_and_can_be_put_again() {
    let mut cluster = cluster(3, |options| (options.durable, options.reap) = (true, Some(EVERY)));
    let context = write_and_delete(&mut cluster, 0, b"cart");
    assert_eq!(keys(&cluster), [1, 1, 1]);
    cluster.run(TWO_LOOKS);
    assert_eq!(keys(&cluster), [0, 0, 0]);
    let client = cluster.client((1, 0));
    assert_eq!(cluster.get(client, get(b"cart")).code(), Some(ErrorCode::NotFound));
    // A context from before covers what nobody knows any more.
    let stored = cluster.put(client, Put { context: &context, ..put(b"cart", b"eggs") });
    assert!(matches!(stored, Answer::Stored { .. }), "{stored:?}");
    assert_eq!(cluster.get(client, get(b"cart")).values(), [b"eggs"]);
    cluster.run(TWO_LOOKS);
    assert_eq!(cluster.get(client, get(b"cart")).values(), [b"eggs"], "a value is not forgotten");
    cluster.nobody_owes_an_answer();
}

#[test]
fn nothing_is_forgotten_while_a_member_is_away() {
    let mut cluster = cluster(5, |options| options.reap = Some(EVERY));
    let (key, nodes) = key_and_nodes(&cluster);
    isolate(&mut cluster, &nodes[4..]);
    write_and_delete(&mut cluster, nodes[0], &key);
    cluster.run(TWO_LOOKS);
    assert_eq!(keys(&cluster).iter().sum::<usize>(), 3, "the last fallback is away");
    cluster.cut.clear();
    cluster.run(Duration::from_secs(20));
    assert_eq!(keys(&cluster).iter().sum::<usize>(), 0);
}

#[test]
fn nothing_is_forgotten_while_a_hint_waits() {
    let mut cluster = cluster(5, |options| options.reap = Some(EVERY));
    let (key, nodes) = key_and_nodes(&cluster);
    isolate(&mut cluster, &nodes[1..2]);
    write_and_delete(&mut cluster, nodes[0], &key);
    assert!(hints(&cluster) > 0);
    cluster.run(TWO_LOOKS);
    assert!(keys(&cluster).iter().sum::<usize>() >= 2);
    cluster.cut.clear();
    cluster.run(Duration::from_secs(20));
    assert_eq!((keys(&cluster).iter().sum::<usize>(), hints(&cluster)), (0, 0));
}

/// In `memory` mode a restart loses the records: the node takes writes again when the others have noted that.
#[test]
fn a_node_that_lost_its_records_is_met_and_learns_the_epochs() {
    let mut cluster = cluster(3, |options| options.reap = Some(EVERY));
    write_and_delete(&mut cluster, 0, b"cart");
    cluster.run(TWO_LOOKS);
    let partition = cluster.shards[&(0, 0)].place(b"cart").partition;
    let epochs = |cluster: &Cluster| -> Vec<u64> {
        cluster.shards.values().map(|shard| shard.epoch(partition)).collect()
    };
    assert_eq!(epochs(&cluster), [1, 1, 1]);
    cluster.kill(2);
    cluster.start(2);
    cluster.run(Duration::from_secs(5));
    assert_eq!(epochs(&cluster), [1, 1, 1]);
    let client = cluster.client((2, 0));
    let stored = cluster.put(client, Put { write: 3, ..put(b"cart", b"eggs") });
    assert!(matches!(stored, Answer::Stored { nodes: 3, .. }), "{stored:?}");
}

/// P6: a context from before told of an actor that had been forgotten, and of fewer of its dots than there were: the
/// next one was minted a second time.
#[test]
fn an_old_context_does_not_bring_back_a_forgotten_actor() {
    let mut cluster = cluster(3, |options| options.reap = Some(EVERY));
    let (one, other) = (cluster.client((0, 0)), cluster.client((1, 0)));
    cluster.put(one, put(b"cart", b"milk"));
    let old = cluster.get(one, get(b"cart")).context().to_vec();
    let actors = |cluster: &Cluster| -> Vec<_> {
        let shard = &cluster.shards[&(0, 0)];
        let place = shard.place(b"cart");
        let found = shard.replica().index().find(place.partition, place.token, place.key);
        found.map(|entry| entry.state.clock().to_vec()).unwrap_or_default()
    };
    let first = actors(&cluster);
    write_and_delete(&mut cluster, 0, b"cart");
    cluster.run(TWO_LOOKS);
    assert_eq!(keys(&cluster), [0, 0, 0]);
    cluster.put(other, Put { context: &old, ..put(b"cart", b"eggs") });
    cluster.put(one, put(b"cart", b"bread"));
    let (mine, counter) = first[0];
    let seen = actors(&cluster).into_iter().find(|(actor, _)| *actor == mine);
    assert_eq!(seen, Some((mine, counter)), "that actor mints no more");
}

/// What a round binds was bound for good when its proposer was lost and removed: a new owner that had promised took no copies,
/// so that the ring never settled, and no round could begin that would have ended it.
#[test]
fn a_round_of_a_node_that_was_removed_ends_without_it() {
    let mut cluster = cluster(5, |options| options.reap = None);
    let (key, nodes) = key_and_nodes(&cluster);
    let shard = &cluster.shards[&(nodes[0], 0)];
    let (proposer, name) = (shard.view.me.0, shard.view.myself().name.to_string());
    let partition = shard.place(&key).partition;
    for &node in &nodes[1..] {
        let promised = node == nodes[3] || node == nodes[4];
        let bindings = vec![Binding::new(proposer, 7, BORN, promised)];
        let bound = Epoch { partition: partition.0, bindings, ..Epoch::default() };
        cluster.shards.get_mut(&(node, 0)).unwrap().recover_epoch(&bound, 0);
    }
    cluster.kill(nodes[0]);
    cluster.run(Duration::from_secs(5));
    let is_bound =
        |cluster: &Cluster| nodes[1..].iter().all(|node| !cluster.shards[&(*node, 0)].takes_hints(partition));
    assert!(is_bound(&cluster), "nobody can say that the round is over");
    let remove = Change { what: What::Remove, name: &name, weight: 0, force: true, ..WEIGHT };
    say(&mut cluster, (nodes[1], 0), remove).unwrap();
    cluster.run(Duration::from_secs(20));
    assert!(!is_bound(&cluster));
    let client = cluster.client((nodes[1], 0));
    let stored = cluster.put(client, Put { write: 3, ..put(&key, b"eggs") });
    assert!(matches!(stored, Answer::Stored { nodes: 3, .. }), "{stored:?}");
}

/// A proposer raised the epoch, told one, and lost its memory. It took the epoch's number from that one, told it to two primaries
/// that had confirmed the round, and both took their own copies for older ones: nobody held the key any more (P1).
#[test]
fn a_proposer_that_lost_its_memory_leads_nobody_astray() {
    let mut cluster = cluster(5, |options| options.reap = None);
    let (key, nodes) = key_and_nodes(&cluster);
    let client = cluster.client((nodes[1], 0));
    cluster.put(client, put(&key, b"milk"));
    let shard = &cluster.shards[&(nodes[0], 0)];
    let (proposer, partition) = (shard.view.me.0, shard.place(&key).partition);
    for &node in &nodes[1..] {
        let told = if node == nodes[3] {
            Epoch { partition: partition.0, epoch: 1, proposer, round: 7, ..Epoch::default() }
        } else {
            let bindings = vec![Binding::new(proposer, 7, BORN, node == nodes[4])];
            Epoch { partition: partition.0, bindings, ..Epoch::default() }
        };
        cluster.shards.get_mut(&(node, 0)).unwrap().recover_epoch(&told, 0);
    }
    cluster.kill(nodes[0]);
    cluster.start(nodes[0]);
    cluster.run(Duration::from_secs(20));
    let epochs: Vec<u64> = nodes.iter().map(|node| cluster.shards[&(*node, 0)].epoch(partition)).collect();
    assert_eq!(epochs, [1; 5]);
    assert!(nodes[..3].iter().all(|node| holds(&cluster, *node, &key)));
    assert_eq!(cluster.get(client, get(&key)).values(), [b"milk"]);
    cluster.nobody_owes_an_answer();
}

fn is_epoch(record: &[u8]) -> bool {
    matches!(Record::parse(record), Ok(Record::Epoch(_)))
}

/// P5: a crash left the record of a raise, and not the one behind it that ends the key's own. The key was forgotten at the next
/// start, and back at the one after the raise's record had been compacted.
#[test]
fn what_a_crash_has_left_of_a_raise_stays_forgotten() {
    let mut cluster = cluster(1, |options| (options.durable, options.reap) = (true, Some(EVERY)));
    write_and_delete(&mut cluster, 0, b"cart");
    cluster.run(TWO_LOOKS);
    assert_eq!(keys(&cluster), [0]);
    cluster.kill(0);
    let log = cluster.logs.get_mut(&(0, 0)).unwrap();
    let raise = |record: &Vec<u8>| match Record::parse(record) {
        Ok(Record::Epoch(epoch)) => epoch.epoch == 1,
        _ => false,
    };
    let at = log.iter().position(raise).unwrap();
    log.truncate(at + 1);
    cluster.start(0);
    cluster.run(SOON);
    assert_eq!(keys(&cluster), [0]);
    cluster.kill(0);
    cluster.logs.get_mut(&(0, 0)).unwrap().retain(|record| !is_epoch(record));
    cluster.start(0);
    cluster.run(SOON);
    assert_eq!(keys(&cluster), [0]);
}

/// The same of an actor that was pruned.
#[test]
fn what_a_crash_has_left_of_pruning_stays_pruned() {
    let mut cluster = cluster(3, |options| (options.durable, options.reap) = (true, Some(EVERY)));
    // Each process mints in its own name.
    for _ in 0..10 {
        cluster.kill(0);
        cluster.start(0);
        cluster.run(Duration::from_secs(2));
        let client = cluster.client((0, 0));
        let context = cluster.get(client, get(b"cart")).context().to_vec();
        let stored = cluster.put(client, Put { context: &context, ..put(b"cart", b"milk") });
        assert!(matches!(stored, Answer::Stored { .. }), "{stored:?}");
    }
    cluster.run(TWO_LOOKS);
    cluster.kill(2);
    let log = cluster.logs.get_mut(&(2, 0)).unwrap();
    let raise = |record: &Vec<u8>| match Record::parse(record) {
        Ok(Record::Epoch(epoch)) => !epoch.pruned.is_empty(),
        _ => false,
    };
    let at = log.iter().position(raise).unwrap();
    log.truncate(at + 1);
    let clocks = |cluster: &Cluster| -> Vec<usize> {
        let parsed = cluster.logs[&(2, 0)].iter().filter_map(|record| match Record::parse(record) {
            Ok(Record::Key(key)) if key.key == b"cart" && key.hint_for == 0 => {
                Some(key.state.clock().count())
            }
            _ => None,
        });
        parsed.collect()
    };
    assert!(clocks(&cluster).last().unwrap() > &8);
    cluster.start(2);
    cluster.run(SOON);
    assert_eq!(clocks(&cluster).last(), Some(&1));
}

/// The records of deletes, and those that ended them, are damaged; those of the values before them aren't.
fn lose_tombstones(cluster: &mut Cluster, node: usize) {
    let has_value = |record: &Vec<u8>| match Record::parse(record) {
        Ok(Record::Key(key)) => key.state.versions().any(|(version, _)| !version.tombstone()),
        Ok(_) => true,
        Err(_) => false,
    };
    cluster.logs.get_mut(&(node, 0)).unwrap().retain(has_value);
    cluster.damaged.insert(node);
}

/// P5: the record of a delete and the one that ended it were damaged; the value before them was not, and all others had forgotten
/// that it was ever deleted.
#[test]
fn damage_does_not_bring_back_what_was_forgotten() {
    let mut cluster = cluster(3, |options| (options.durable, options.reap) = (true, Some(EVERY)));
    write_and_delete(&mut cluster, 0, b"cart");
    cluster.run(TWO_LOOKS);
    assert_eq!(keys(&cluster), [0, 0, 0]);
    cluster.kill(2);
    lose_tombstones(&mut cluster, 2);
    cluster.start(2);
    cluster.run(Duration::from_secs(10));
    assert_eq!(keys(&cluster), [0, 0, 0]);
    let client = cluster.client((2, 0));
    assert_eq!(cluster.get(client, get(b"cart")).code(), Some(ErrorCode::NotFound));
}

/// P5: the record that ended a hint was damaged. The hint came back with the epoch of now, and was handed over before its keeper had
/// met anybody.
#[test]
fn damage_does_not_bring_back_a_hint_that_was_handed_over() {
    let mut cluster = cluster(5, |options| (options.durable, options.reap) = (true, Some(EVERY)));
    let (key, nodes) = key_and_nodes(&cluster);
    isolate(&mut cluster, &nodes[1..2]);
    let client = cluster.client((nodes[0], 0));
    cluster.put(client, put(&key, b"milk"));
    let keeper = (0..5).find(|node| cluster.shards[&(*node, 0)].hints().backlog().count() > 0).unwrap();
    cluster.cut.clear();
    cluster.run(Duration::from_secs(10));
    assert_eq!(hints(&cluster), 0);
    write_and_delete(&mut cluster, nodes[0], &key);
    cluster.run(Duration::from_secs(10));
    assert_eq!(keys(&cluster).iter().sum::<usize>(), 0);
    cluster.kill(keeper);
    let ends_hint = |record: &Vec<u8>| match Record::parse(record) {
        Ok(record @ Record::Key(key)) => key.hint_for != 0 && record.is_marker(),
        _ => false,
    };
    cluster.logs.get_mut(&(keeper, 0)).unwrap().retain(|record| !ends_hint(record));
    cluster.damaged.insert(keeper);
    cluster.start(keeper);
    cluster.run(SOON);
    assert_eq!(hints(&cluster), 0);
    cluster.run(Duration::from_secs(15));
    assert_eq!((keys(&cluster).iter().sum::<usize>(), hints(&cluster)), (0, 0));
}

/// All of them had damage: what each of them read is all there is.
#[test]
fn damage_everywhere_leaves_what_was_read() {
    let mut cluster = cluster(3, |options| (options.durable, options.reap) = (true, Some(EVERY)));
    write_and_delete(&mut cluster, 0, b"cart");
    cluster.run(TWO_LOOKS);
    let client = cluster.client((0, 0));
    cluster.put(client, put(b"cart", b"eggs"));
    for node in 0..3 {
        cluster.kill(node);
        cluster.damaged.insert(node);
    }
    (0..3).for_each(|node| cluster.start(node));
    cluster.run(Duration::from_secs(20));
    let client = cluster.client((1, 0));
    assert_eq!(cluster.get(client, get(b"cart")).values(), [b"eggs"]);
    let stored = cluster.put(client, Put { write: 3, ..put(b"cart", b"milk") });
    assert!(matches!(stored, Answer::Stored { nodes: 3, .. }), "{stored:?}");
}

/// A restart in memory loses all records. Whoever had been met by another that restarted then waited for the one that was away.
#[test]
fn nodes_in_memory_restart_one_after_the_other_while_one_is_away() {
    let mut cluster = cluster(3, |options| options.reap = Some(EVERY));
    cluster.kill(2);
    for node in [0, 1, 0] {
        cluster.kill(node);
        cluster.start(node);
        cluster.run(Duration::from_secs(10));
        let client = cluster.client((node, 0));
        let stored = cluster.put(client, Put { write: 2, ..put(b"cart", b"milk") });
        assert!(matches!(stored, Answer::Stored { .. }), "{stored:?}");
    }
}

/// All primaries had it, and have forgotten it: whoever says it once more was told nothing until its deadline.
#[test]
fn a_retry_of_a_delete_that_was_forgotten_is_answered() {
    let mut cluster = cluster(3, |options| (options.durable, options.reap) = (true, Some(EVERY)));
    let client = cluster.client((0, 0));
    cluster.put(client, put(b"cart", b"milk"));
    let context = cluster.get(client, get(b"cart")).context().to_vec();
    let delete = Put { value: None, context: &context, write: 3, ..put(b"cart", b"") };
    let delete = Put { operation_client: 5, operation_sequence: 1, ..delete };
    let first = cluster.put(client, delete);
    assert!(matches!(first, Answer::Stored { nodes: 3, .. }), "{first:?}");
    cluster.run(TWO_LOOKS);
    assert_eq!(keys(&cluster), [0, 0, 0]);
    let again = cluster.put(client, delete);
    assert!(matches!(again, Answer::Stored { nodes: 3, .. }), "{again:?}");
    assert_eq!(keys(&cluster), [0, 0, 0]);
}

/// A copy that was wiped before its record was on stable storage was told as durable, and counted towards W.
#[test]
fn a_copy_that_is_wiped_before_it_is_durable_does_not_count() {
    let mut cluster = cluster(3, |options| (options.durable, options.reap) = (true, None));
    let partition = cluster.shards[&(0, 0)].place(b"cart").partition;
    let proposer = cluster.shards[&(1, 0)].view.me.0;
    let client = cluster.client((0, 0));
    cluster.unsynced.insert(2);
    cluster.send_put(client, Put { write: 3, ..put(b"cart", b"milk") });
    cluster.run(Duration::from_millis(20));
    assert!(holds(&cluster, 2, b"cart"));
    let raised = Epoch { partition: partition.0, epoch: 1, proposer, round: 7, ..Epoch::default() };
    cluster.act((2, 0), |shard, now, out| shard.raise(now, &raised, Held::Older, out));
    assert!(!holds(&cluster, 2, b"cart"));
    cluster.sync(2);
    let answer = cluster.answer(client);
    let is_stored = matches!(answer, Answer::Stored { nodes: 3, .. });
    assert!(!is_stored || (0..3).all(|node| holds(&cluster, node, b"cart")), "{answer:?}");
}

/// P5: a damaged segment was compacted before the node was met, and the next start knew nothing of the damage.
#[test]
fn damage_is_not_forgotten_before_the_node_is_met() {
    let mut cluster = cluster(3, |options| (options.durable, options.reap) = (true, Some(EVERY)));
    write_and_delete(&mut cluster, 0, b"cart");
    cluster.run(TWO_LOOKS);
    assert_eq!(keys(&cluster), [0, 0, 0]);
    cluster.kill(2);
    lose_tombstones(&mut cluster, 2);
    cluster.cut.extend([(0, 2), (2, 0), (1, 2), (2, 1)]);
    cluster.start(2);
    cluster.run(Duration::from_secs(2));
    cluster.kill(2);
    cluster.damaged.clear();
    cluster.start(2);
    cluster.cut.clear();
    cluster.run(Duration::from_secs(15));
    assert_eq!(keys(&cluster), [0, 0, 0]);
}

/// P1: what had been wiped was known as replaced. A retry at the node that had lost it was told that it was stored, and nobody
/// had it.
#[test]
fn a_retry_of_what_was_wiped_is_in_doubt() {
    let mut cluster = cluster(3, |options| (options.durable, options.reap) = (true, Some(EVERY)));
    write_and_delete(&mut cluster, 0, b"cart");
    cluster.run(TWO_LOOKS);
    cluster.cut.extend([(0, 2), (2, 0), (1, 2), (2, 1)]);
    let lost = [1, 2].map(|operation_sequence| {
        let overwrite = Put { overwrite: true, write: 1, ..put(b"cart", b"milk") };
        Put { operation_client: 5, operation_sequence, ..overwrite }
    });
    let client = cluster.client((2, 0));
    for put in lost {
        let first = cluster.put(client, put);
        assert!(matches!(first, Answer::Stored { .. }), "{first:?}");
    }
    cluster.kill(2);
    cluster.damaged.insert(2);
    cluster.start(2);
    cluster.cut.clear();
    cluster.run(Duration::from_secs(15));
    assert!(!(0..3).any(|node| holds(&cluster, node, b"cart")), "all others are complete without it");
    let client = cluster.client((2, 0));
    for put in lost {
        let again = cluster.put(client, put);
        assert_eq!(again.code(), Some(ErrorCode::MaybeApplied), "{again:?}");
    }
}

/// P1: one disk was lost, and another was damaged elsewhere. The damaged one's copies went in favour of the third node's, which had
/// missed the write.
#[test]
fn a_damaged_copy_is_kept_while_another_is_lost() {
    let mut cluster = cluster(3, |options| {
        (options.durable, options.reap, options.anti_entropy) = (true, Some(EVERY), None);
    });
    write_and_delete(&mut cluster, 0, b"cart");
    cluster.run(TWO_LOOKS);
    cluster.cut.extend([(0, 2), (2, 0), (1, 2), (2, 1)]);
    let client = cluster.client((0, 0));
    let stored = cluster.put(client, Put { write: 2, ..put(b"cart", b"milk") });
    assert!(matches!(stored, Answer::Stored { .. }), "{stored:?}");
    (0..2).for_each(|node| cluster.kill(node));
    cluster.logs.remove(&(0, 0));
    cluster.damaged.insert(1);
    cluster.cut.clear();
    (0..2).for_each(|node| cluster.start(node));
    cluster.run(Duration::from_secs(20));
    let client = cluster.client((2, 0));
    assert_eq!(cluster.get(client, Get { read: 3, ..get(b"cart") }).values(), [b"milk"]);
}

/// The same, when the lost one comes back long after: what gossip had told of it was of before its loss.
#[test]
fn a_damaged_copy_is_kept_while_another_is_away() {
    let mut cluster = cluster(3, |options| {
        (options.durable, options.reap, options.anti_entropy) = (true, Some(EVERY), None);
    });
    write_and_delete(&mut cluster, 0, b"cart");
    cluster.run(TWO_LOOKS);
    cluster.cut.extend([(0, 2), (2, 0), (1, 2), (2, 1)]);
    let client = cluster.client((0, 0));
    let stored = cluster.put(client, Put { write: 2, ..put(b"cart", b"milk") });
    assert!(matches!(stored, Answer::Stored { .. }), "{stored:?}");
    (0..2).for_each(|node| cluster.kill(node));
    cluster.logs.remove(&(0, 0));
    cluster.damaged.insert(1);
    cluster.cut.clear();
    cluster.start(1);
    cluster.run(Duration::from_secs(5));
    cluster.start(0);
    cluster.run(Duration::from_secs(20));
    let client = cluster.client((2, 0));
    assert_eq!(cluster.get(client, Get { read: 3, ..get(b"cart") }).values(), [b"milk"]);
}

/// P10: who had lost its records, and with them how far the epochs were, believed nobody who told of one so far ahead.
#[test]
fn who_has_lost_its_records_believes_an_epoch_that_is_far_ahead() {
    let mut cluster = cluster(3, |options| options.reap = None);
    let shard = &cluster.shards[&(1, 0)];
    let (proposer, partition) = (shard.view.me.0, shard.place(b"cart").partition);
    let far = Epoch { partition: partition.0, epoch: 1 << 21, proposer, round: 7, ..Epoch::default() };
    for node in 0..2 {
        cluster.shards.get_mut(&(node, 0)).unwrap().recover_epoch(&far, 0);
    }
    cluster.kill(2);
    cluster.start(2);
    cluster.run(Duration::from_secs(5));
    assert_eq!(cluster.shards[&(2, 0)].epoch(partition), 1 << 21);
    let client = cluster.client((2, 0));
    let stored = cluster.put(client, Put { write: 3, ..put(b"cart", b"eggs") });
    assert!(matches!(stored, Answer::Stored { nodes: 3, .. }), "{stored:?}");
}

/// P10: each new round put off the question how those before had ended.
#[test]
fn who_is_bound_again_and_again_still_asks_how_rounds_ended() {
    let mut cluster = cluster(3, |options| options.reap = Some(EVERY));
    let shard = &cluster.shards[&(0, 0)];
    let (proposer, partition) = (shard.view.me.0, shard.place(b"cart").partition);
    let bindings = vec![Binding::new(proposer, 7, BORN, false)];
    let bound = Epoch { partition: partition.0, bindings, ..Epoch::default() };
    let is_bound = |cluster: &Cluster| {
        let bindings = cluster.shards[&(1, 0)].epochs.bindings(partition);
        bindings.iter().any(|bound| bound.round() == 7)
    };
    for number in 0..40 {
        if number == 20 {
            // By then there is a round more than once a second.
            cluster.shards.get_mut(&(1, 0)).unwrap().recover_epoch(&bound, 0);
        }
        let key = format!("key {number}");
        if cluster.shards[&(0, 0)].place(key.as_bytes()).partition != partition {
            write_and_delete(&mut cluster, 0, key.as_bytes());
        }
        cluster.run(Duration::from_millis(200));
    }
    assert!(!is_bound(&cluster), "it is a round that nobody knows");
}

/// P10 (seed 34010000000175 at the time): a node with a damaged log waited for the word of a primary that was gone for good, and the
/// change that took that one out of the ring waited for the node.
#[test]
fn a_node_with_damage_waits_for_no_primary_that_was_removed() {
    let mut cluster = cluster(5, |options| (options.durable, options.reap) = (true, Some(EVERY)));
    let (key, nodes) = key_and_nodes(&cluster);
    write_and_delete(&mut cluster, nodes[0], &key);
    cluster.run(Duration::from_secs(10));
    assert_eq!(keys(&cluster).iter().sum::<usize>(), 0);
    let name = cluster.shards[&(nodes[0], 0)].view.myself().name.to_string();
    cluster.kill(nodes[0]);
    cluster.kill(nodes[1]);
    cluster.damaged.insert(nodes[1]);
    cluster.start(nodes[1]);
    cluster.run(Duration::from_secs(10));
    let unmet = |cluster: &Cluster| cluster.shards[&(nodes[1], 0)].partitions_unmet();
    assert!(unmet(&cluster) > 0, "it may hold what the primary that is away has lost");
    let remove = Change { what: What::Remove, name: &name, weight: 0, force: true, ..WEIGHT };
    say(&mut cluster, (nodes[2], 0), remove).unwrap();
    cluster.run(Duration::from_secs(30));
    assert_eq!(unmet(&cluster), 0);
    let client = cluster.client((nodes[1], 0));
    let stored = cluster.put(client, Put { write: 3, ..put(&key, b"eggs") });
    assert!(matches!(stored, Answer::Stored { nodes: 3, .. }), "{stored:?}");
}

/// P10: a node that had lost its records refused what another could have done, for as long as it hadn't met the others.
#[test]
fn who_is_not_met_yet_leaves_requests_to_the_next() {
    let mut cluster = cluster(3, |options| (options.durable, options.reap) = (true, Some(EVERY)));
    write_and_delete(&mut cluster, 0, b"cart");
    cluster.run(TWO_LOOKS);
    let client = cluster.client((0, 0));
    cluster.put(client, Put { write: 3, ..put(b"cart", b"milk") });
    (0..2).for_each(|node| cluster.kill(node));
    cluster.damaged.insert(1);
    cluster.start(1);
    cluster.run(Duration::from_secs(10));
    assert!(cluster.shards[&(1, 0)].partitions_unmet() > 0);
    let client = cluster.client((1, 0));
    assert_eq!(cluster.get(client, Get { read: 1, ..get(b"cart") }).values(), [b"milk"]);
    let context = cluster.get(client, Get { read: 1, ..get(b"cart") }).context().to_vec();
    let stored = cluster.put(client, Put { write: 1, context: &context, ..put(b"cart", b"eggs") });
    assert!(matches!(stored, Answer::Stored { .. }), "{stored:?}");
}

/// P10: all lost power, and one never came back. The others wait for it until it is removed.
#[test]
fn a_founder_that_is_lost_while_all_are_stopped_can_be_removed() {
    let mut cluster = cluster(3, |options| (options.durable, options.reap) = (true, Some(EVERY)));
    let client = cluster.client((0, 0));
    cluster.put(client, Put { write: 3, ..put(b"cart", b"milk") });
    (0..3).for_each(|node| cluster.kill(node));
    (0..2).for_each(|node| cluster.start(node));
    cluster.run(Duration::from_secs(20));
    let remove = Change { what: What::Remove, name: "n2", weight: 0, force: true, ..WEIGHT };
    say(&mut cluster, (0, 0), remove).unwrap();
    cluster.run(Duration::from_secs(20));
    let client = cluster.client((1, 0));
    assert_eq!(cluster.get(client, Get { read: 2, ..get(b"cart") }).values(), [b"milk"]);
    let context = cluster.get(client, get(b"cart")).context().to_vec();
    let stored = cluster.put(client, Put { write: 2, context: &context, ..put(b"cart", b"eggs") });
    assert!(matches!(stored, Answer::Stored { .. }), "{stored:?}");
}

/// P1: a proposer had raised the epoch and told nobody. All lost power, and each had a damaged record: by what was left the raise
/// stood, and the copies of those that had confirmed it were wiped, though nobody could stream them.
#[test]
fn who_is_bound_by_a_raise_that_is_left_follows_it() {
    let mut cluster = cluster(3, |options| (options.durable, options.reap) = (true, None));
    cluster.cut.extend([(0, 1), (1, 0), (0, 2), (2, 0)]);
    let client = cluster.client((1, 0));
    let stored = cluster.put(client, Put { write: 2, ..put(b"cart", b"milk") });
    assert!(matches!(stored, Answer::Stored { .. }), "{stored:?}");
    let shard = &cluster.shards[&(0, 0)];
    let (proposer, partition) = (shard.view.me.0, shard.place(b"cart").partition.0);
    for node in 0..3 {
        cluster.kill(node);
        let bindings = vec![Binding::new(proposer, 7, BORN, false)];
        let left = match node {
            0 => Epoch { partition, epoch: 1, proposer, round: 7, ..Epoch::default() },
            _ => Epoch { partition, bindings, ..Epoch::default() },
        };
        let mut record = Vec::new();
        left.encode(&mut Encoder::default(), 0, &mut record);
        cluster.logs.entry((node, 0)).or_default().push(record);
        cluster.damaged.insert(node);
    }
    cluster.cut.clear();
    (0..3).for_each(|node| cluster.start(node));
    cluster.run(Duration::from_secs(20));
    let client = cluster.client((2, 0));
    assert_eq!(cluster.get(client, Get { read: 3, ..get(b"cart") }).values(), [b"milk"]);
}

/// P1: founders that lost their memory served at once, as if the cluster had just been born. When they heard of the epoch, what they
/// had acknowledged since was wiped with the rest.
#[test]
fn what_was_minted_before_a_node_heard_who_it_was_is_kept() {
    let mut cluster = cluster(3, |options| options.reap = None);
    let client = cluster.client((0, 0));
    cluster.put(client, put(b"cart", b"milk"));
    let partition = cluster.shards[&(0, 0)].place(b"cart").partition.0;
    let proposer = cluster.shards[&(1, 0)].view.me.0;
    let raised = Epoch { partition, epoch: 1, proposer, round: 7, ..Epoch::default() };
    assert!(holds(&cluster, 2, b"cart"));
    for (node, is_kept) in [(0, true), (2, false)] {
        cluster.act((node, 0), |shard, now, out| shard.raise(now, &raised, Held::Reborn, out));
        assert_eq!(holds(&cluster, node, b"cart"), is_kept);
    }
}

/// P10: while its raise was not on stable storage yet the proposer refused what the others sent, and they counted it out.
#[test]
fn a_proposer_waits_with_its_answer_until_it_can_tell_the_epoch() {
    let mut cluster = cluster(3, |options| (options.durable, options.reap) = (true, None));
    let shard = &cluster.shards[&(1, 0)];
    let (proposer, partition) = (shard.view.me.0, shard.place(b"cart").partition);
    for node in [0, 2] {
        let bindings = vec![Binding::new(proposer, 7, BORN, false)];
        let bound = Epoch { partition: partition.0, bindings, ..Epoch::default() };
        cluster.shards.get_mut(&(node, 0)).unwrap().recover_epoch(&bound, 0);
    }
    cluster.unsynced.insert(1);
    let raised = Epoch { partition: partition.0, epoch: 1, proposer, round: 7, ..Epoch::default() };
    cluster.act((1, 0), |shard, now, out| {
        shard.raise(now, &raised, Held::Confirmed, out);
        let known = shard.epochs.known_mut(partition);
        known.certain_with = known.recorded;
    });
    let client = cluster.client((0, 0));
    cluster.send_put(client, Put { write: 3, ..put(b"cart", b"milk") });
    cluster.run(Duration::from_millis(20));
    assert!(cluster.receive(client).is_none());
    cluster.sync(1);
    let answer = cluster.answer(client);
    assert!(matches!(answer, Answer::Stored { nodes: 3, .. }), "{answer:?}");
}

/// A proposer died within its round. By the word of who is bound by that, nobody who restarted could be sure of the epoch: it says
/// for whom it waits.
#[test]
fn who_waits_for_a_dead_proposer_says_so() {
    let mut cluster = cluster(3, |options| options.reap = None);
    let shard = &cluster.shards[&(2, 0)];
    let (proposer, partition) = (shard.view.me.0, shard.place(b"cart").partition);
    let bindings = vec![Binding::new(proposer, 7, BORN, false)];
    let bound = Epoch { partition: partition.0, bindings, ..Epoch::default() };
    cluster.shards.get_mut(&(1, 0)).unwrap().recover_epoch(&bound, 0);
    cluster.kill(2);
    cluster.kill(0);
    cluster.start(0);
    cluster.run(Duration::from_secs(10));
    let status = cluster.shards[&(0, 0)].status(cluster.now.monotonic);
    let counted = |name: &str| status.counters.iter().find(|one| one.name == name).map(|one| one.value);
    assert_eq!((counted("partitions_unmet"), counted("meeting_waits_for_n2")), (Some(1), Some(1)));
    cluster.start(2);
    cluster.run(Duration::from_secs(10));
    let client = cluster.client((0, 0));
    let stored = cluster.put(client, Put { write: 3, ..put(b"cart", b"milk") });
    assert!(matches!(stored, Answer::Stored { nodes: 3, .. }), "{stored:?}");
}

/// P5: a member that owns nothing of the partition was the first to give its word. By that alone the doubt was over, and when the
/// others came back they took what had been forgotten.
#[test]
fn damage_is_in_doubt_until_an_owner_has_spoken() {
    let mut cluster = cluster(5, |options| (options.durable, options.reap) = (true, Some(EVERY)));
    let (key, nodes) = key_and_nodes(&cluster);
    write_and_delete(&mut cluster, nodes[0], &key);
    cluster.run(Duration::from_secs(5));
    assert_eq!(keys(&cluster).iter().sum::<usize>(), 0);
    let damaged = nodes[2];
    cluster.kill(damaged);
    lose_tombstones(&mut cluster, damaged);
    for other in &nodes[..2] {
        cluster.cut.extend([(*other, damaged), (damaged, *other)]);
    }
    cluster.start(damaged);
    cluster.run(Duration::from_secs(5));
    cluster.cut.clear();
    cluster.run(Duration::from_secs(20));
    assert_eq!(keys(&cluster).iter().sum::<usize>(), 0);
}

/// P10: questions waited for a record that a log which had failed would never have.
#[test]
fn a_proposer_whose_log_has_failed_lets_nobody_wait() {
    let mut cluster = cluster(3, |options| (options.durable, options.reap) = (true, None));
    let shard = &cluster.shards[&(1, 0)];
    let (proposer, partition) = (shard.view.me.0, shard.place(b"cart").partition);
    cluster.unsynced.insert(1);
    let raised = Epoch { partition: partition.0, epoch: 1, proposer, round: 7, ..Epoch::default() };
    cluster.act((1, 0), |shard, now, out| {
        shard.raise(now, &raised, Held::Confirmed, out);
        let known = shard.epochs.known_mut(partition);
        known.certain_with = known.recorded;
    });
    let client = cluster.client((0, 0));
    cluster.send_put(client, Put { write: 3, ..put(b"cart", b"milk") });
    cluster.run(Duration::from_millis(20));
    assert_eq!(cluster.shards[&(1, 0)].asked_waiting(), 1);
    cluster.handle((1, 0), Input::Log(LogState::Failed));
    assert_eq!(cluster.shards[&(1, 0)].asked_waiting(), 0);
    assert_eq!(cluster.answer(client).code(), Some(ErrorCode::MaybeApplied));
    cluster.nobody_owes_an_answer();
}
