//! What a node still does whose memory is full of what can't be put out (docs/adr/0021).

use ringmain_schema::message::Put;

use super::cluster::{Answer, Cluster, put};
use super::fallbacks::{hints, holds, isolate, key_and_nodes};
use crate::shard::{Input, Machine, ShardOptions};
use crate::time::Duration;

const LIMIT: usize = 1 << 20;

fn bounded(options: &mut ShardOptions) {
    (options.memory_max, options.value_bytes_max) = (LIMIT, 16 << 10);
    options.anti_entropy = None;
}

/// Leave so many bytes, and nothing that could be put out for more.
fn fill(cluster: &mut Cluster, node: usize, free: usize) {
    let shard = &cluster.shards[&(node, 0)];
    let others = shard.memory().total() - shard.memory.buffers();
    cluster.handle((node, 0), Input::Buffered { bytes: LIMIT - free - others });
}

fn links_up(cluster: &Cluster, node: usize) -> usize {
    cluster.shards[&(node, 0)].links.all_up().count()
}

/// Tombstones are forgotten when all have confirmed them: were a broken link not let in for lack of room, there would be none for good.
#[test]
fn a_broken_link_comes_back_where_both_ends_are_full() {
    let mut cluster = Cluster::with_options(3, 1, bounded);
    // Less than what is kept for deletes, and for what is under way.
    (0..3).for_each(|node| fill(&mut cluster, node, LIMIT / 256));
    isolate(&mut cluster, &[2]);
    cluster.run(Duration::from_secs(15));
    assert_eq!([0, 1, 2].map(|node| links_up(&cluster, node)), [1, 1, 0]);
    cluster.cut.clear();
    cluster.run(Duration::from_secs(15));
    assert_eq!([0, 1, 2].map(|node| links_up(&cluster, node)), [2, 2, 2]);
}

/// Whoever runs a shard has pools and rings that no end of a connection gives back: were they counted here, all connections would go,
/// one after another.
#[test]
fn only_what_connections_take_has_one_of_them_closed() {
    let mut cluster = Cluster::with_options(1, 1, bounded);
    cluster.handle((0, 0), Input::Buffered { bytes: LIMIT / 4 * 3 });
    let shard = &cluster.shards[&(0, 0)];
    assert!(!shard.is_crowded(0) && !shard.is_crowded(LIMIT / 2));
    assert!(shard.is_crowded(LIMIT / 2 + 1));
}

/// A hint that no longer fits beside what is here was refused, and kept, for ever; and so were the tombstones of its partition. The key goes,
/// unless it is deleted: then what comes goes.
#[test]
fn a_hint_without_room_beside_what_is_here_is_let_go() {
    for is_deleted in [false, true] {
        let mut cluster = Cluster::with_options(5, 1, bounded);
        let (key, nodes) = key_and_nodes(&cluster);
        let client = cluster.client((nodes[0], 0));
        let all = Put { write: 3, ..put(&key, b"v") };
        assert!(matches!(cluster.put(client, all), Answer::Stored { .. }));
        if is_deleted {
            let delete = Put { value: None, overwrite: true, ..all };
            assert!(matches!(cluster.put(client, delete), Answer::Stored { .. }));
        }
        isolate(&mut cluster, &nodes[2..3]);
        let large = [7; 16 << 10];
        assert!(matches!(cluster.put(client, Put { write: 3, ..put(&key, &large) }), Answer::Stored { .. }));
        assert_eq!(hints(&cluster), 1);
        let shard = &cluster.shards[&(nodes[2], 0)];
        let bytes = shard.at_rest() - shard.memory().total() - 8192;
        cluster.handle((nodes[2], 0), Input::Buffered { bytes });
        cluster.cut.clear();
        cluster.run(Duration::from_secs(15));
        assert_eq!(hints(&cluster), 0, "deleted: {is_deleted}");
        assert_eq!(holds(&cluster, nodes[2], &key), is_deleted);
        let shard = &cluster.shards[&(nodes[2], 0)];
        assert!(shard.may_lack(shard.place(&key)), "whoever replaces all there is asks the others");
        cluster.nobody_owes_an_answer();
    }
}

/// And whoever missed a write that no longer fits isn't sent it by one round of anti-entropy after another.
#[test]
fn what_does_not_fit_is_not_compared_for_ever() {
    let mut cluster = Cluster::with_options(3, 1, |options| {
        bounded(options);
        options.anti_entropy = Some(Duration::from_millis(200));
    });
    let (key, nodes) = key_and_nodes(&cluster);
    let client = cluster.client((nodes[0], 0));
    assert!(matches!(cluster.put(client, Put { write: 3, ..put(&key, b"v") }), Answer::Stored { .. }));
    let shard = &cluster.shards[&(nodes[2], 0)];
    let bytes = shard.at_rest() - shard.memory().total() - 8192;
    cluster.handle((nodes[2], 0), Input::Buffered { bytes });
    let large = [7; 16 << 10];
    assert!(matches!(cluster.put(client, Put { write: 2, ..put(&key, &large) }), Answer::Stored { .. }));
    cluster.run(Duration::from_secs(15));
    assert!(!holds(&cluster, nodes[2], &key));
    let declined = |cluster: &Cluster| cluster.shards[&(nodes[2], 0)].counters.memory_declined;
    let before = declined(&cluster);
    cluster.run(Duration::from_secs(15));
    assert_eq!(declined(&cluster), before);
}
