//! Concurrent versions over real sockets: kept, shown, merged, deleted. Defends P3 to P6: honest contexts, true
//! concurrency, no resurrection, one dot for one write.

#![allow(clippy::unwrap_used, reason = "a test that can't go on must stop")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "real processes live in real time")]

mod cluster;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cluster::{Cluster, Wire, encoded};
use ringmain_client::{Bytes, Client, Error, Got, Sibling};
use ringmain_schema::message::{ErrorCode, Put};
use ringmain_schema::{Flags, Kind};

fn texts(got: &Got) -> BTreeSet<String> {
    got.siblings.iter().map(|sibling| String::from_utf8(sibling.value.to_vec()).unwrap()).collect()
}

fn set(items: &[&str]) -> BTreeSet<String> {
    items.iter().map(|&item| item.to_owned()).collect()
}

async fn read(client: &Client, replicas: u8, key: &str) -> Got {
    client.request(key).read(replicas).get().await.unwrap()
}

/// A shopping cart: the union of the items of all versions.
fn union(siblings: &[Sibling]) -> Bytes {
    let items: BTreeSet<&[u8]> =
        siblings.iter().flat_map(|sibling| sibling.value.split(|b| *b == b',')).collect();
    items.into_iter().collect::<Vec<_>>().join(&b","[..]).into()
}

/// Dynamo's own case (§4.4, §6.3): two coordinators that can't hear each other both take a write. Whoever reads
/// sees both; the merged cart, put with the context of that read, is the only version on all nodes.
#[tokio::test]
async fn two_coordinators_make_siblings_and_a_merged_cart_leaves_one() {
    let mut cluster = Cluster::with_links(3, &[]);
    let (a, b, c) = (cluster.client_of(0).await, cluster.client_of(1).await, cluster.client_of(2).await);
    cluster.cut(0, 2);

    let on_a_and_b = a.request("cart").write(2).put("milk,bread").await.unwrap();
    let on_c_and_b = c.request("cart").write(2).put("milk,eggs").await.unwrap();
    assert_eq!((on_a_and_b.replicas.nodes, on_c_and_b.replicas.nodes), (2, 2));
    assert_eq!(texts(&read(&a, 1, "cart").await), set(&["milk,bread"]), "A has heard of one only");
    assert_eq!(texts(&read(&c, 1, "cart").await), set(&["milk,eggs"]), "C has heard of the other only");
    let both = set(&["milk,bread", "milk,eggs"]);
    assert_eq!(texts(&read(&b, 1, "cart").await), both, "B has heard of both");

    // Without B, so that what A and C have must do. What was under way between them is lost.
    cluster.kill(1);
    cluster.reconnect(0, 2);
    let seen = read(&a, 2, "cart").await;
    assert_eq!(texts(&seen), both, "read from A and C");

    let merged = seen.merge(union);
    let stored = c.request("cart").context(&seen.context).write(2).put(merged).await.unwrap();
    assert!(!stored.context.is_empty(), "its only version can be replaced without another read");
    cluster.restart(1);
    for (client, name) in [(&a, "A"), (&b, "B"), (&c, "C")] {
        let got = read(client, 3, "cart").await;
        assert_eq!(texts(&got), set(&["bread,eggs,milk"]), "one version at {name}");
    }
}

/// What a delete saw doesn't come back with a node that missed the delete.
#[tokio::test]
async fn a_deleted_item_does_not_come_back() {
    let cluster = Cluster::with_links(3, &[]);
    let (a, c) = (cluster.client_of(0).await, cluster.client_of(2).await);
    let put = a.request("item").write(3).put("old").await.unwrap();
    cluster.cut(0, 2);
    cluster.cut(1, 2);

    a.request("item").context(&put.context).write(2).delete().await.unwrap();
    assert!(!read(&a, 2, "item").await.is_found());
    assert_eq!(texts(&read(&c, 1, "item").await), set(&["old"]), "C has missed the delete");

    cluster.reconnect(0, 2);
    cluster.reconnect(1, 2);
    let got = read(&c, 2, "item").await;
    assert!(!got.is_found(), "another replica knows better: {got:?}");
    assert!(!got.context.is_empty(), "the next put follows the delete");
    // That read has repaired C, so that it doesn't need the others any more.
    cluster::wait_until("C was repaired", || is_gone(&cluster, 2));
    assert!(!read(&c, 1, "item").await.is_found());

    c.request("item").context(&got.context).write(3).put("new").await.unwrap();
    assert_eq!(texts(&read(&a, 3, "item").await), set(&["new"]));
}

/// Does this node alone say that there is no "item"?
fn is_gone(cluster: &Cluster, node: usize) -> bool {
    let get = ringmain_schema::message::Get { key: b"item", read: 1, ..Default::default() };
    let answer = cluster.greeted(node).ask(&encoded(|encoder, out| get.encode(encoder, 1, Flags::NONE, out)));
    answer.code() == Some(ErrorCode::NotFound)
}

/// What a delete did not see survives it.
#[tokio::test]
async fn a_delete_keeps_a_put_that_it_did_not_see() {
    let cluster = Cluster::with_links(3, &[]);
    let (a, c) = (cluster.client_of(0).await, cluster.client_of(2).await);
    let seen = a.request("item").write(3).put("old").await.unwrap().context;
    cluster.cut(0, 2);
    cluster.cut(1, 2);

    c.request("item").context(&seen).write(1).put("concurrent").await.unwrap();
    a.request("item").context(&seen).write(2).delete().await.unwrap();
    assert!(!read(&a, 2, "item").await.is_found());

    cluster.reconnect(0, 2);
    cluster.reconnect(1, 2);
    for client in [&a, &c] {
        assert_eq!(texts(&read(client, 3, "item").await), set(&["concurrent"]));
    }
}

/// A write retried elsewhere under its name is recognised by a coordinator that has it already, even after it
/// was replaced.
#[test]
fn a_retry_on_another_node_applies_once() {
    let cluster = Cluster::start(3, 1, &[]);
    let mut wires: Vec<Wire> = (0..3).map(|node| cluster.greeted(node)).collect();
    let first = named_put(b"once", b"value", 3, 1);
    for wire in &mut wires {
        assert_eq!(wire.ask(&first).kind(), Kind::STORED);
    }
    let got = wires[2].ask(&cluster::get(2, b"once"));
    assert_eq!(got.values(), [b"value"], "a blind put that was applied twice would leave siblings");
    let recognised: u64 = (0..3).map(|node| cluster.counter(node, "retries_recognised")).sum();
    assert_eq!(recognised, 2);

    let next = Put { context: &got.context(), ..put(b"once", b"next", 3, 2) };
    assert_eq!(wires[1].ask(&encode(&next)).kind(), Kind::STORED);
    assert_eq!(wires[0].ask(&first).kind(), Kind::STORED, "a late retry is answered");
    assert_eq!(wires[2].ask(&cluster::get(3, b"once")).values(), [b"next"], "and doesn't bring it back");
}

/// A retry that overtakes its own replication lands under two dots; readers see one value, and replace both.
#[test]
fn a_retry_that_overtakes_its_replication_shows_once() {
    let cluster = Cluster::with_links(3, &[]);
    cluster.cut(0, 1);
    cluster.cut(0, 2);
    let mut wires: Vec<Wire> = (0..3).map(|node| cluster.greeted(node)).collect();
    let write = named_put(b"twin", b"value", 1, 1);
    assert_eq!(wires[0].ask(&write).kind(), Kind::STORED);
    assert_eq!(wires[1].ask(&write).kind(), Kind::STORED);
    let recognised: u64 = (0..3).map(|node| cluster.counter(node, "retries_recognised")).sum();
    assert_eq!(recognised, 0, "neither could know of the other");

    cluster.reconnect(0, 1);
    cluster.reconnect(0, 2);
    let all = ringmain_schema::message::Get { key: b"twin", read: 3, ..Default::default() };
    let all = encoded(|encoder, out| all.encode(encoder, 3, Flags::NONE, out));
    let got = wires[2].ask(&all);
    assert_eq!(got.values(), [b"value"]);
    let next = Put { context: &got.context(), ..put(b"twin", b"next", 3, 2) };
    assert_eq!(wires[2].ask(&encode(&next)).kind(), Kind::STORED);
    for wire in &mut wires {
        assert_eq!(wire.ask(&all).values(), [b"next"]);
    }
}

fn put<'a>(key: &'a [u8], value: &'a [u8], write: u8, operation_sequence: u64) -> Put<'a> {
    Put { key, value: Some(value), write, operation_client: 77, operation_sequence, ..Put::default() }
}

fn encode(put: &Put<'_>) -> Vec<u8> {
    encoded(|encoder, out| put.encode(encoder, 1, Flags::NONE, out))
}

fn named_put(key: &[u8], value: &[u8], write: u8, sequence: u64) -> Vec<u8> {
    encode(&put(key, value, write, sequence))
}

/// A batch whose keys lie on all nodes and shards is answered item by item, in the items' order, wherever it is
/// sent.
#[tokio::test]
async fn a_batch_spans_nodes_and_shards() {
    let cluster = Cluster::start(4, 2, &[]);
    let (routing, one_node) = (cluster.client().await, cluster.client_of(3).await);
    for (client, name) in [(&routing, "routing"), (&one_node, "one")] {
        let key = |number: usize| format!("{name} {number}");
        let items = (0..600).map(|number| (key(number), format!("value {number}")));
        for stored in client.batch().overwrite().put(items).await {
            assert!(stored.unwrap().replicas.nodes >= 2);
        }
        // Every third was never put.
        let keys = (0..900).map(|number| {
            if number % 3 == 2 { format!("absent {number}") } else { key(number / 3 * 2 + number % 3) }
        });
        for (number, got) in client.get_many(keys).await.into_iter().enumerate() {
            let expected = (number % 3 != 2).then(|| format!("value {}", number / 3 * 2 + number % 3));
            let value = got.unwrap().into_value().map(|value| String::from_utf8(value.to_vec()).unwrap());
            assert_eq!(value, expected, "item {number}");
        }
    }
    let crossed = one_node.get_many((0..600).map(|number| format!("routing {number}"))).await;
    assert!(crossed.into_iter().all(|got| got.unwrap().is_found()));
}

/// The values of one batch may be more than fits in an answer; the client asks again for what is left.
#[tokio::test]
async fn a_batch_of_large_values_comes_in_several_answers() {
    let cluster = Cluster::start(1, 1, &["--value-bytes-max=256KiB"]);
    let client = cluster.client().await;
    let key = |number: usize| format!("large {number}");
    for number in 0..60 {
        client.overwrite(key(number), vec![number as u8; 256 << 10]).await.unwrap();
    }
    for (number, got) in client.get_many((0..60).map(key)).await.into_iter().enumerate() {
        let value = got.unwrap().into_value().unwrap();
        assert!(value.len() == 256 << 10 && value.iter().all(|&byte| byte == number as u8), "item {number}");
    }
}

/// A value with a time to live is there, then is not, on every node; and the next put follows it.
#[tokio::test]
async fn a_value_expires() {
    const TTL: Duration = Duration::from_millis(700);
    let cluster = Cluster::start(3, 1, &[]);
    let (a, b) = (cluster.client_of(0).await, cluster.client_of(1).await);
    let start = Instant::now();
    a.request("session").write(3).ttl(TTL).put("alice").await.unwrap();
    let got = read(&b, 3, "session").await;
    if start.elapsed() < TTL {
        let sibling = &got.siblings[0];
        assert_eq!(sibling.expiry.unwrap().duration_since(sibling.timestamp).unwrap(), TTL);
    }
    loop {
        let got = read(&b, 3, "session").await;
        if !got.is_found() {
            assert!(start.elapsed() >= TTL, "it went after {:?}", start.elapsed());
            break;
        }
        assert!(start.elapsed() < TTL + cluster::PATIENCE, "it stays: {got:?}");
    }
    let gone = read(&a, 3, "session").await;
    assert!(!gone.is_found() && !gone.context.is_empty());
    a.put_with("session", "bob", &gone.context).await.unwrap();
    assert_eq!(texts(&read(&b, 2, "session").await), set(&["bob"]));
}

/// `at_least` turns a read at R = 1 into one that includes what its client has written, or says that it can't.
#[tokio::test]
async fn a_client_reads_its_own_write_at_r1() {
    let cluster = Cluster::with_links(3, &[]);
    let (a, b) = (cluster.client_of(0).await, cluster.client_of(1).await);
    for round in 0..50 {
        let stored = a.request("own").write(1).overwrite().put(format!("round {round}")).await.unwrap();
        let got = b.request("own").read(1).at_least(&stored.context).get().await.unwrap();
        assert_eq!(texts(&got), set(&[&format!("round {round}")]));
    }
    cluster.cut(0, 1);
    cluster.cut(0, 2);
    let stored = a.request("own").write(1).overwrite().put("unheard").await.unwrap();
    cluster.wait_for_state(1, 0, "suspected");
    let unheard = b.request("own").read(1).at_least(&stored.context).get().await;
    assert!(matches!(unheard, Err(Error::Stale)), "{unheard:?}");
}
