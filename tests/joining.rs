//! Nodes that would make another ring of the same members: Q and N are fixed when a cluster is founded.

#![allow(clippy::unwrap_used, reason = "a test that can't go on must stop")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "real processes live in real time")]

mod cluster;

use cluster::{Cluster, Ended, Port, Process, Wire, loopback, run, wait_until};

/// A counter of a node of one shard.
fn counter(port: &Port, name: &str) -> Option<u64> {
    let status = Wire::greeted(loopback(port.number()), b"").ok()?.status();
    status.counters.into_iter().find(|counter| counter.name == name).map(|counter| counter.value)
}

#[tokio::test]
async fn a_guest_takes_over_what_the_cluster_was_founded_with() {
    let mut cluster = Cluster::start(2, 1, &["--partitions=64", "--replicas=2"]);
    let newcomer = cluster.join(2);
    let welcome = cluster.greeted(newcomer);
    assert_eq!((welcome.welcome().partitions, welcome.welcome().replicas), (64, 2));

    let server = cluster.address(newcomer).to_string();
    let joined = run(&["join", "n2", "--wait", "20s", "--server", &server, "--timeout", "5s"]);
    assert_eq!(joined.code, Some(0), "{joined:?}");
    let client = cluster.client().await;
    for number in 0..64 {
        client.put(format!("key {number}"), "v").await.unwrap();
    }
    for node in 0..=newcomer {
        assert_eq!(cluster.counter(node, "gossip_refused"), 0);
    }
}

#[test]
fn a_guest_with_another_ring_of_its_own_is_told_what_to_do() {
    let cluster = Cluster::start(2, 1, &["--partitions=64"]);
    for (flag, words) in [
        ("--partitions=32", "partitions is 32 here and 64 in the cluster"),
        ("--replicas=2", "replicas is 2 here and 3 in the cluster"),
        ("--read=4", "read is 4, but there are 3 replicas"),
    ] {
        let arguments = cluster.guest_arguments(&Port::reserve(), 1, &[flag]);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let Ended { code, stderr, .. } = run(&arguments);
        assert_eq!(code, Some(1), "{flag}: {stderr}");
        assert!(stderr.contains(words) && stderr.lines().count() == 1, "{flag}: {stderr}");
    }
}

/// Founders that were configured apart never meet, rather than answer each by a ring of its own.
#[test]
fn founders_of_two_rings_do_not_serve() {
    let ports = [Port::reserve(), Port::reserve()];
    let members = format!("--members=a=127.0.0.1:{},b=127.0.0.1:{}", ports[0].number(), ports[1].number());
    let start = |(name, port, partitions): (&str, &Port, u32)| {
        let listen = format!("--listen=127.0.0.1:{}", port.number());
        let (name, partitions) = (format!("--name={name}"), format!("--partitions={partitions}"));
        let all = ["serve", &name, &listen, &members, &partitions, "--shards=1", "--pin=false"];
        let all = all.into_iter().chain(["--stop-with-stdin"]).map(str::to_owned);
        Process::start(&all.collect::<Vec<_>>())
    };
    let _processes = [("a", &ports[0], 64), ("b", &ports[1], 32)].map(start);
    for port in &ports {
        wait_until("it refuses what the other tells", || counter(port, "gossip_refused") > Some(2));
        let wire = Wire::greeted(loopback(port.number()), b"").unwrap();
        assert!(!wire.welcome().serving);
    }
    for (port, sentence) in ports.iter().zip([
        "b was started with --partitions 32 --replicas 3, this node with --partitions 64 --replicas 3",
        "a was started with --partitions 64 --replicas 3, this node with --partitions 32 --replicas 3",
    ]) {
        let status = Wire::greeted(loopback(port.number()), b"").unwrap().status();
        assert!(status.trouble.contains(sentence), "{}", status.trouble);
    }
}
