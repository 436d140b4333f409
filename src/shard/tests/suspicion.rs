//! Local failure detection between whole shards.

use ringmain_schema::message::ErrorCode;

use super::cluster::{Answer, Cluster, put};
use crate::membership::{Health, PATIENCE_MAX, PATIENCE_MIN};
use crate::shard::links::LinkId;
use crate::time::Duration;

impl Cluster {
    /// What shard 0 of node `of` thinks of node `about`.
    fn health(&self, of: usize, about: usize) -> Health {
        let node = self.shards[&(about, 0)].view.me;
        self.shards[&(of, 0)].detector.health(self.now.monotonic, node)
    }

    /// Milliseconds until node 0 suspects node `about`.
    fn suspicion_of(&mut self, about: usize) -> u64 {
        (0..=10_000)
            .find(|_| {
                let suspected = self.health(0, about) == Health::Suspected;
                if !suspected {
                    self.run(Duration::from_millis(1));
                }
                suspected
            })
            .expect("a node that neither hears nor speaks is suspected")
    }
}

#[test]
fn a_killed_node_is_passed_over_at_once() {
    let mut cluster = Cluster::new(3, 1);
    let client = cluster.client((0, 0));
    let node = cluster.shards[&(2, 0)].view.me;
    cluster.kill(2);
    cluster.run(Duration::from_millis(1));
    let detector = &cluster.shards[&(0, 0)].detector;
    assert_eq!(detector.health(cluster.now.monotonic, node), Health::Suspected);
    assert!(matches!(cluster.put(client, put(b"k", b"v")), Answer::Stored { nodes: 2, .. }));
}

/// As SIGSTOP does: the connection stands, and nothing comes.
#[test]
fn a_stopped_node_is_passed_over_soon_and_trusted_when_it_answers() {
    let mut cluster = Cluster::new(3, 1);
    cluster.run(Duration::from_secs(10));
    cluster.paused.extend([1, 2]);
    assert!(cluster.suspicion_of(1) <= 500 + PATIENCE_MIN.as_millis());
    cluster.run(Duration::from_millis(500));
    let client = cluster.client((0, 0));
    assert_eq!(cluster.put(client, put(b"k", b"v")).code(), Some(ErrorCode::Unavailable), "told at once");
    cluster.paused.clear();
    cluster.run(Duration::from_millis(1));
    assert_eq!(cluster.health(0, 1), Health::Up, "its answers were under way");
    assert!(matches!(cluster.put(client, put(b"k", b"w")), Answer::Stored { nodes: 2.., .. }));
}

/// What was sent meanwhile is lost; the next probe finds the peer, over the connection that never broke.
#[test]
fn a_link_that_was_cut_for_nine_seconds_is_the_same_link() {
    let mut cluster = Cluster::new(3, 1);
    cluster.run(Duration::from_secs(10));
    let link = LinkId { node: cluster.shards[&(1, 0)].view.me, shard: crate::id::ShardId(0) };
    let connection = cluster.shards[&(0, 0)].links.connection(link);
    assert!(connection.is_some());
    cluster.cut.extend([(0, 1), (1, 0)]);
    assert!(cluster.suspicion_of(1) <= 500 + PATIENCE_MAX.as_millis());
    cluster.run(Duration::from_secs(9));
    assert_eq!(cluster.shards[&(0, 0)].links.connection(link), connection, "suspicion closes nothing");
    cluster.cut.clear();
    cluster.run(Duration::from_millis(101));
    assert_eq!(cluster.health(0, 1), Health::Up);
    assert_eq!(cluster.shards[&(0, 0)].links.connection(link), connection);
}
