//! Former owners: when they give up what they hold, and when not (`docs/adr/0012`).

use ringmain_schema::message::{Change, Get, What};
use ringmain_schema::{Encoder, Kind};

use super::cluster::{Answer, Cluster, get, put};
use crate::causality::{Content, VersionVector};
use crate::hint::Keeping;
use crate::id::{OperationId, PartitionId};
use crate::membership::Intent;
use crate::replica::{Covered, Write};
use crate::shard::Shard;
use crate::time::Duration;

const KEYS: u8 = 60;
/// Longer than a change of the ring takes, and than copies are kept for the retries of their writes.
const LONG: Duration = Duration::from_secs(20);
const ONLY_HERE: &[u8] = b"only here";

impl Cluster {
    fn say(&mut self, what: What, name: &str, weight: u32) {
        let change = Change { what, name, new_name: "", weight, plan_only: false, force: false };
        let client = self.client((1, 0));
        let mut bytes = Vec::new();
        change.encode(&mut Encoder::default(), 9, &mut bytes);
        self.send(client, &bytes);
        let answer = self.receive(client).expect("it is answered at once");
        assert_eq!(answer[8], Kind::CHANGED.0);
    }

    fn shard(&self, node: usize) -> &Shard {
        &self.shards[&(node, 0)]
    }

    fn owners(&self, partition: PartitionId) -> Vec<usize> {
        let ids = self.shard(1).view().primaries(partition).to_vec();
        ids.into_iter().map(|id| self.node(id)).collect()
    }

    fn partition(&self, key: &[u8]) -> PartitionId {
        self.shard(1).place(key).partition
    }

    fn has_only_here(&self, node: usize, key: &[u8]) -> bool {
        let place = self.shard(node).place(key);
        let entry = self.shard(node).replica().index().find(place.partition, place.token, key);
        entry.is_some_and(|entry| {
            let mut values = entry.state.values();
            values.any(|version| matches!(&version.content, Content::Value(value) if **value == *ONLY_HERE))
        })
    }

    /// Copies of what isn't the node's own, by looking at all partitions.
    fn strays(&self, node: usize) -> usize {
        let shard = self.shard(node);
        let others = shard.view().ring.partitions().iter().filter(|&partition| !shard.view().owns(partition));
        others.map(|partition| shard.replica().index().keys_of(partition)).sum()
    }

    fn given_up(&self, node: usize) -> u64 {
        self.shard(node).counters.partitions_given_up
    }

    fn cut_off(&mut self, one: usize, other: usize) {
        self.cut.extend([(one, other), (other, one)]);
    }
}

fn key(number: u8) -> [u8; 2] {
    [b'k', number]
}

/// Five nodes, and the first is to hold much less: it is about to compare what it owns no more, and the value of one key
/// was changed there alone. That key, and its owners.
fn departing() -> (Cluster, Vec<u8>, Vec<usize>) {
    let mut cluster = Cluster::with_options(5, 1, |options| options.durable = true);
    let client = cluster.client((1, 0));
    for number in 0..KEYS {
        assert!(matches!(cluster.put(client, put(&key(number), b"v")), Answer::Stored { .. }));
    }
    cluster.run(Duration::from_secs(1));
    // Nobody says anything before all is prepared.
    cluster.older = (0..5).map(|node| (node, Kind::HELD_REQUEST)).collect();
    cluster.say(What::Weight, "n0", 1);
    for _ in 0..10_000 {
        if cluster.shard(0).departed().0 > 0 {
            break;
        }
        cluster.run(Duration::from_millis(1));
    }
    let (now, view) = (cluster.now, cluster.shard(0).view().clone());
    let mut keys = (0..KEYS).map(key);
    let found = keys.find(|key| {
        let partition = cluster.partition(key);
        !view.owns(partition) && cluster.shard(0).replica().index().keys_of(partition) > 0
    });
    let key = found.expect("something is kept");
    let shard = cluster.shards.get_mut(&(0, 0)).unwrap();
    let covered = Covered::Context(VersionVector::new());
    let write = Write { value: Some(ONLY_HERE), covered, expiry: None, operation: OperationId::NONE };
    let place = shard.place(&key);
    let Shard { replica, .. } = shard;
    replica.coordinate(now, place, write, 0).unwrap();
    shard.keep_trees();
    cluster.older.clear();
    let owners = cluster.owners(cluster.partition(&key));
    assert!(!owners.contains(&0) && owners.iter().all(|&owner| !cluster.has_only_here(owner, &key)));
    (cluster, key.to_vec(), owners)
}

/// Owners at their limit put out what they are sent, and the former owner puts out some of it itself: it gives the rest up all the
/// same.
#[test]
fn owners_that_put_out_what_they_are_sent_are_not_waited_for() {
    let mut cluster = Cluster::with_options(5, 1, |options| {
        (options.memory_max, options.value_bytes_max) = (1 << 20, 16 << 10);
    });
    let client = cluster.client((1, 0));
    for number in 0..KEYS {
        assert!(matches!(cluster.put(client, put(&key(number), b"v")), Answer::Stored { .. }));
    }
    cluster.run(Duration::from_secs(1));
    cluster.say(What::Weight, "n0", 1);
    for turn in 0..250 {
        cluster.run(Duration::from_millis(100));
        let last = if turn % 20 == 0 { 5 } else { 4 };
        for node in 5 - last..5 {
            cluster.act((node, 0), |shard, _, _| _ = shard.evict_one());
        }
    }
    assert!(cluster.given_up(0) > 0);
    assert_eq!((cluster.strays(0), cluster.shard(0).departed()), (0, (0, 0)));
}

#[test]
fn a_former_owner_gives_its_copies_up_when_all_owners_hold_them() {
    let (mut cluster, key, owners) = departing();
    let partition = cluster.partition(&key);
    assert!(
        cluster.shard(0).keeps_departed(partition) && !cluster.shard(owners[0]).keeps_departed(partition)
    );
    cluster.run(LONG);
    assert!(owners.iter().all(|&owner| cluster.has_only_here(owner, &key)), "it was sent to all");
    assert!((0..5).all(|node| cluster.strays(node) == 0 && cluster.shard(node).departed() == (0, 0)));
    assert!(!cluster.shard(0).keeps_departed(partition) && cluster.given_up(0) > 0);
    assert_eq!(cluster.shard(0).trees().root(partition), 0);
    let copies: usize = (0..5).map(|node| cluster.shard(node).replica().keys()).sum();
    assert_eq!(copies, 3 * usize::from(KEYS));
    let client = cluster.client((0, 0));
    assert_eq!(cluster.get(client, Get { read: 3, ..get(&key) }).values().len(), 2);
    cluster.nobody_owes_an_answer();
}

/// Nothing goes by age.
#[test]
fn an_owner_that_is_away_is_waited_for() {
    let (mut cluster, key, owners) = departing();
    cluster.cut_off(0, owners[1]);
    cluster.run(LONG + LONG);
    assert!(cluster.has_only_here(0, &key), "the third has not said that it has it, though it may by others");
    assert!(cluster.has_only_here(owners[0], &key));
    cluster.cut.clear();
    cluster.run(LONG);
    assert!(cluster.has_only_here(owners[1], &key));
    assert_eq!(cluster.strays(0), 0);
}

/// A tree covers what isn't on stable storage yet: trees that are equal are not enough.
#[test]
fn an_owner_that_can_not_sync_is_waited_for() {
    let (mut cluster, key, owners) = departing();
    cluster.unsynced.insert(owners[2]);
    let client = cluster.client((owners[0], 0));
    assert!(matches!(cluster.put(client, put(&key, b"more")), Answer::Stored { .. }));
    cluster.run(LONG);
    assert!(cluster.has_only_here(owners[2], &key) && cluster.has_only_here(0, &key));
    cluster.sync(owners[2]);
    cluster.run(LONG);
    assert_eq!(cluster.strays(0), 0);
}

/// Nothing else can tell it whether an owner has all on stable storage.
#[test]
fn an_owner_of_an_older_version_is_waited_for() {
    let (mut cluster, key, owners) = departing();
    cluster.older.insert((owners[0], Kind::HELD_REQUEST));
    cluster.run(LONG + LONG);
    assert!(
        owners.iter().all(|&owner| cluster.has_only_here(owner, &key)),
        "which doesn't keep others from it"
    );
    assert!(cluster.has_only_here(0, &key));
    cluster.older.clear();
    cluster.run(LONG);
    assert_eq!(cluster.strays(0), 0);
}

/// What an owner said in an earlier life says nothing of this one: its disk may be another.
#[test]
fn an_owner_that_restarted_is_asked_again() {
    let (mut cluster, key, owners) = departing();
    cluster.run(Duration::from_secs(3));
    assert!(owners.iter().all(|&owner| cluster.has_only_here(owner, &key)));
    cluster.kill(owners[0]);
    cluster.cut_off(0, owners[0]);
    cluster.start(owners[0]);
    cluster.run(LONG);
    assert!(cluster.has_only_here(0, &key));
    cluster.cut.clear();
    cluster.run(LONG);
    assert_eq!(cluster.strays(0), 0);
}

/// Its copies are compared and kept for ten seconds: in the middle of that it is an owner again.
#[test]
fn who_owns_again_keeps_what_it_has() {
    let (mut cluster, key, _) = departing();
    cluster.run(Duration::from_secs(1));
    cluster.say(What::Weight, "n0", 100);
    cluster.run(LONG + LONG);
    let partition = cluster.partition(&key);
    assert!(cluster.shard(0).view().owns(partition) && cluster.shard(0).view().is_complete_for(partition));
    assert!(!cluster.shard(0).keeps_departed(partition) && cluster.has_only_here(0, &key));
    assert_eq!((cluster.given_up(0), cluster.strays(0)), (0, 0));
    assert!((0..5).all(|node| cluster.strays(node) == 0), "and who owned meanwhile doesn't any more");
}

/// The log says what was given up, and what came after it.
#[test]
fn who_owns_again_after_it_gave_up_streams_and_a_restart_shows_that() {
    let (mut cluster, key, _) = departing();
    cluster.run(LONG);
    assert!(!cluster.has_only_here(0, &key));
    cluster.say(What::Weight, "n0", 100);
    cluster.run(LONG + LONG);
    assert!(cluster.has_only_here(0, &key));
    let held = cluster.shard(0).replica().keys();
    cluster.kill(0);
    cluster.start(0);
    assert_eq!(cluster.shard(0).replica().keys(), held);
    assert!(cluster.has_only_here(0, &key));
    cluster.run(LONG);
    assert!(cluster.shard(0).view().myself().oneself.complete);
}

#[test]
fn a_former_owner_that_crashes_goes_on_where_it_was() {
    let (mut cluster, key, owners) = departing();
    cluster.cut_off(0, owners[1]);
    cluster.run(LONG);
    cluster.kill(0);
    cluster.cut.clear();
    cluster.start(0);
    let partition = cluster.partition(&key);
    assert!(cluster.shard(0).keeps_departed(partition), "before it has met anybody");
    cluster.run(LONG);
    assert_eq!(cluster.strays(0), 0);
    let owned = cluster.shard(0).replica().keys();
    cluster.kill(0);
    cluster.start(0);
    assert_eq!((cluster.shard(0).replica().keys(), cluster.strays(0)), (owned, 0));
    cluster.run(Duration::from_secs(5));
    assert!(!cluster.shard(0).keeps_departed(partition));
}

/// Until the record that ends them is durable, a crash brings the copies back: whoever asks is told so.
#[test]
fn what_a_crash_would_bring_back_is_kept() {
    let (mut cluster, key, _) = departing();
    let partition = cluster.partition(&key);
    cluster.run(Duration::from_secs(5));
    cluster.unsynced.insert(0);
    cluster.run(LONG);
    assert_eq!(cluster.strays(0), 0);
    assert!(cluster.shard(0).keeps_departed(partition));
    cluster.sync(0);
    assert!(!cluster.shard(0).keeps_departed(partition));
}

/// What it keeps for an owner is handed over first.
#[test]
fn a_hint_is_handed_over_before_the_copies_go() {
    let (mut cluster, key, owners) = departing();
    cluster.run(Duration::from_secs(3));
    cluster.cut_off(0, owners[0]);
    let target = cluster.shard(owners[0]).view().me;
    let shard = cluster.shards.get_mut(&(0, 0)).unwrap();
    let place = shard.place(&key);
    let state = shard.replica.index().find(place.partition, place.token, &key).unwrap().state.clone();
    let keeping = Keeping { target, key: &key, partition: place.partition };
    assert_eq!(shard.hints.store.keep(keeping, &state, 0), Ok(true));
    cluster.run(LONG);
    assert!(cluster.has_only_here(0, &key));
    assert_eq!(cluster.shard(0).departed().0, 1, "the others have gone");
    cluster.cut.clear();
    cluster.run(LONG);
    assert_eq!((cluster.hints(), cluster.strays(0)), (0, 0));
}

/// A leaver's copies would go with it.
#[test]
fn who_leaves_gives_up_first_what_it_keeps() {
    let (mut cluster, key, owners) = departing();
    cluster.cut_off(0, owners[1]);
    cluster.say(What::Leave, "n0", 0);
    cluster.run(LONG + LONG);
    let me = cluster.shard(0).view().me;
    let intent = |cluster: &Cluster| cluster.shard(1).view().member(me).unwrap().intent;
    assert_eq!((intent(&cluster), cluster.has_only_here(0, &key)), (Intent::Leaving, true));
    cluster.cut.clear();
    cluster.run(LONG + LONG);
    assert_eq!((intent(&cluster), cluster.has_only_here(owners[1], &key)), (Intent::Removed, true));
}

/// It isn't an owner's: neither its own reads show it, nor those in which it stands in for an owner.
#[test]
fn nobody_is_shown_a_former_owners_copy() {
    let (mut cluster, key, owners) = departing();
    owners.iter().for_each(|&owner| cluster.cut_off(0, owner));
    cluster.run(Duration::from_secs(1));
    cluster.cut.clear();
    cluster.paused.insert(owners[2]);
    for node in [0, owners[0], owners[1]] {
        let client = cluster.client((node, 0));
        let answer = cluster.get(client, Get { read: 2, budget_us: 900_000, ..get(&key) });
        assert_eq!(answer.values(), [b"v"], "node {node}: {answer:?}");
    }
    cluster.paused.clear();
}
