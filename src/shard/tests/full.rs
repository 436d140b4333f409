//! What a node still does whose memory is full of what can't be put out (docs/adr/0021).

use super::cluster::Cluster;
use super::fallbacks::isolate;
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
