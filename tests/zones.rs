//! Racks and data centres of real nodes: what `--zones` waits for, and what outlives a zone.

#![allow(clippy::unwrap_used, reason = "a test that can't go on must stop")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "real processes live in real time")]

mod cluster;

use cluster::{Cluster, Ended, run};
use ringmain_client::Error;

fn ask(cluster: &Cluster, arguments: &[&str]) -> Ended {
    let server = cluster.address(0).to_string();
    run(&[arguments, &["--server", &server, "--timeout", "2s"]].concat())
}

#[tokio::test]
async fn a_second_rack_makes_a_second_zone_and_outlives_the_first() {
    let mut cluster = Cluster::start(2, 1, &["--rack=a"]);
    let refused = ask(&cluster, &["put", "k", "v", "--zones", "2"]);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("2 zones were asked for") && refused.stderr.contains("--rack"),
        "{refused:?}"
    );

    let other = cluster.join_with(1, &["--rack=b"]);
    assert_eq!(ask(&cluster, &["join", "n2", "--wait", "20s"]).code, Some(0));
    assert_eq!(ask(&cluster, &["put", "k", "v", "--zones", "2"]).code, Some(0));

    // A client in rack b is served there.
    let client = cluster.builder().near("", "b").connect().await.unwrap();
    let before = cluster.counter(other, "gets");
    for _ in 0..100 {
        assert_eq!(client.get("k").await.unwrap().into_value().unwrap(), "v");
    }
    let served = cluster.counter(other, "gets") - before;
    assert!(served > 90, "{served} of 100 reads were served in rack b");

    for gone in [0, 1] {
        cluster.kill(gone);
    }
    let client = cluster.client_of(other).await;
    for gone in [0, 1] {
        cluster.wait_for_state(other, gone, "suspected");
    }
    assert_eq!(client.request("k").read(1).get().await.unwrap().into_value().unwrap(), "v");
    let refused = client.request("k").write(1).zones(2).overwrite().put("w").await.unwrap_err();
    assert!(matches!(refused, Error::Unavailable(_)), "{refused}");
    client.request("k").write(1).zones(1).overwrite().put("w").await.unwrap();
}
