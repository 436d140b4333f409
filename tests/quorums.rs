//! What each choice of R and W buys with three replicas, and what it costs when one of them is dead: the table of
//! `docs/consistency.md`, held against real clusters. Defends P8 (honest outcomes), P9 (overlap) and P10 (always
//! writable).

#![allow(clippy::unwrap_used, reason = "a test that can't go on must stop")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "real processes live in real time")]

mod cluster;

use std::time::{Duration, Instant};

use cluster::Cluster;
use ringmain_client::{Client, Error, Got, Stored};

/// Three nodes, and a client of each.
struct Trio {
    cluster: Cluster,
    clients: Vec<Client>,
}

impl Trio {
    async fn of(cluster: Cluster) -> Self {
        let mut clients = Vec::new();
        for node in 0..3 {
            clients.push(cluster.client_of(node).await);
        }
        Self { cluster, clients }
    }

    async fn start() -> Self {
        Self::of(Cluster::start(3, 1, &[])).await
    }

    async fn put(&self, node: usize, w: u8, key: &str, value: &str) -> Result<Stored, Error> {
        self.clients[node].request(key).write(w).overwrite().put(value.to_owned()).await
    }

    async fn get(&self, node: usize, r: u8, key: &str) -> Result<Got, Error> {
        self.clients[node].request(key).read(r).get().await
    }

    /// The only value there is; none if the key isn't there.
    #[track_caller]
    fn one(got: Result<Got, Error>) -> Option<String> {
        let got = got.unwrap();
        assert!(got.siblings.len() <= 1, "{got:?}");
        got.into_value().map(|value| String::from_utf8(value.to_vec()).unwrap())
    }

    /// Each acknowledged write is seen by a read at each of these nodes, begun right after it.
    async fn expect_overlap(&self, r: u8, w: u8, nodes: &[usize]) {
        for round in 0..60 {
            let (writer, value) = (nodes[round % nodes.len()], format!("round {round}"));
            let key = format!("key {}", round % 5);
            let stored = self.put(writer, w, &key, &value).await.unwrap();
            assert!(stored.replicas.nodes >= w, "{stored:?}");
            for &reader in nodes {
                let got = self.get(reader, r, &key).await;
                assert_eq!(Self::one(got), Some(value.clone()), "put at n{writer}, read at n{reader}");
            }
        }
    }

    /// End n2, and wait until the others have noticed.
    fn kill_the_third(&mut self) {
        self.cluster.kill(2);
        self.cluster.wait_for_state(0, 2, "suspected");
        self.cluster.wait_for_state(1, 2, "suspected");
    }

    /// A write at W replicas is refused at once, and was applied nowhere.
    async fn expect_write_refused(&self, w: u8) {
        assert!(self.put(0, 1, "refused", "before").await.is_ok());
        let refused = self.put(0, w, "refused", "after").await.unwrap_err();
        assert!(matches!(refused, Error::Unavailable(_)), "{refused}");
        for node in 0..2 {
            let got = self.get(node, 2, "refused").await;
            assert_eq!(Self::one(got).as_deref(), Some("before"), "at n{node}");
        }
    }

    async fn expect_read_refused(&self, r: u8) {
        let start = Instant::now();
        let refused = self.get(0, r, "key 0").await.unwrap_err();
        assert!(matches!(refused, Error::Unavailable(_)), "{refused}");
        assert!(start.elapsed() < Duration::from_secs(2), "it knows at once that there are too few");
    }
}

/// R = W = 2: reads see what was acknowledged, and one dead node stops neither.
#[tokio::test]
async fn n3_r2_w2_sees_every_write_and_survives_one_death() {
    let mut trio = Trio::start().await;
    trio.expect_overlap(2, 2, &[0, 1, 2]).await;
    let last = Trio::one(trio.get(0, 2, "key 0").await);
    trio.kill_the_third();
    assert_eq!(Trio::one(trio.get(1, 2, "key 0").await), last, "what was acknowledged is still there");
    trio.expect_overlap(2, 2, &[0, 1]).await;
}

/// R = 3, W = 1: a write needs nobody else, a read needs everybody.
#[tokio::test]
async fn n3_r3_w1_writes_on_after_a_death_and_reads_no_more() {
    let mut trio = Trio::start().await;
    trio.expect_overlap(3, 1, &[0, 1, 2]).await;
    trio.kill_the_third();
    for node in 0..2 {
        assert!(trio.put(node, 1, "key 0", "after").await.is_ok());
    }
    trio.expect_read_refused(3).await;
}

/// R = 1, W = 3: a read needs nobody else and still sees every write, a write needs everybody.
#[tokio::test]
async fn n3_r1_w3_reads_on_after_a_death_and_writes_no_more() {
    let mut trio = Trio::start().await;
    trio.expect_overlap(1, 3, &[0, 1, 2]).await;
    let last = Trio::one(trio.get(0, 1, "key 0").await);
    trio.kill_the_third();
    for node in 0..2 {
        assert_eq!(Trio::one(trio.get(node, 1, "key 0").await), last);
    }
    trio.expect_write_refused(3).await;
}

/// R = W = 3: each answer rests on all copies, so one death ends both.
#[tokio::test]
async fn n3_r3_w3_rests_on_all_copies_and_ends_with_one_death() {
    let mut trio = Trio::start().await;
    trio.expect_overlap(3, 3, &[0, 1, 2]).await;
    assert_eq!(trio.get(0, 3, "key 0").await.unwrap().replicas.nodes, 3);
    trio.kill_the_third();
    trio.expect_read_refused(3).await;
    trio.expect_write_refused(3).await;
}

/// R = W = 1: goes on with two of three dead; but a read may miss a write, and a write may die with its node.
#[tokio::test]
async fn n3_r1_w1_survives_two_deaths_and_promises_little() {
    let mut trio = Trio::of(Cluster::with_links(3, &[])).await;
    trio.cluster.cut(0, 1);
    trio.cluster.cut(0, 2);

    let stored = trio.put(0, 1, "key", "on n0 alone").await.unwrap();
    assert_eq!(stored.replicas.nodes, 1);
    assert_eq!(Trio::one(trio.get(0, 1, "key").await).as_deref(), Some("on n0 alone"));
    assert_eq!(Trio::one(trio.get(1, 1, "key").await), None, "R + W = 2: n1 answers before it has heard");
    let request = trio.clients[1].request("key").read(1).at_least(&stored.context);
    let stale = request.timeout(Duration::from_millis(200)).retry(false).get().await.unwrap_err();
    assert!(matches!(stale, Error::Stale | Error::Timeout), "who asks for its own write is told: {stale}");

    trio.cluster.kill(0);
    trio.cluster.wait_for_state(1, 0, "suspected");
    assert_eq!(Trio::one(trio.get(1, 2, "key").await), None, "an acknowledged write has died with n0");
    trio.cluster.kill(2);
    trio.cluster.wait_for_state(1, 2, "suspected");
    trio.put(1, 1, "key", "again").await.unwrap();
    assert_eq!(Trio::one(trio.get(1, 1, "key").await).as_deref(), Some("again"));
}

/// Between a death and its detection nobody knows: a read times out, a write may be applied, and was.
/// Afterwards both are refused at once, and when the node is back nothing is lost.
#[tokio::test]
async fn a_silent_node_is_in_doubt_until_it_is_suspected() {
    let mut trio = Trio::start().await;
    trio.put(0, 3, "key", "before").await.unwrap();
    trio.cluster.process(2).pause();

    let short = Duration::from_millis(200);
    // At once: after 0.3 s of silence it may be suspected.
    let write = trio.clients[0].request("key").write(3).timeout(short).overwrite().put("after");
    let read = trio.clients[0].request("key").read(3).timeout(short).get();
    let (in_doubt, read) = tokio::join!(write, read);
    assert!(matches!(in_doubt, Err(Error::MaybeApplied { .. })), "{in_doubt:?}");
    assert!(matches!(read, Err(Error::Timeout)), "{read:?}");
    assert_eq!(Trio::one(trio.get(1, 2, "key").await).as_deref(), Some("after"), "it was applied");

    trio.cluster.wait_for_state(0, 2, "suspected");
    trio.expect_read_refused(3).await;
    trio.cluster.wait_for_state(1, 2, "suspected");
    trio.expect_write_refused(3).await;

    trio.cluster.process(2).resume();
    trio.cluster.wait_for_state(0, 2, "up");
    assert_eq!(Trio::one(trio.get(0, 3, "key").await).as_deref(), Some("after"));
    trio.expect_overlap(2, 2, &[0, 1, 2]).await;
}
