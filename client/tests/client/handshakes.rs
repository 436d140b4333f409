//! Whom a client talks to, and whom it doesn't.

use std::time::{Duration, Instant};

use ringmain_client::{Builder, Client, Error};

use crate::fake::{Behaviour, CLUSTER, Fake, topology};

async fn refusal(behaviour: Behaviour, builder: Builder) -> Error {
    let fake = Fake::start(behaviour).await;
    fake.tell(topology(1, &[&[fake.port]], 1));
    let start = Instant::now();
    let error = builder.servers([fake.address()]).connect().await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(1), "a refusal is told at once");
    error
}

#[tokio::test]
async fn refusals_are_told_by_name() {
    let secret = || Behaviour { secret: b"hush".to_vec(), ..Behaviour::default() };
    assert_eq!(refusal(secret(), Builder::default()).await, Error::Unauthorized);
    assert_eq!(refusal(secret(), Builder::default().cluster_secret("psst")).await, Error::Unauthorized);
    let error = refusal(Behaviour::default(), Builder::default().cluster(CLUSTER + 1)).await;
    assert!(matches!(error, Error::WrongCluster(_)), "{error}");
    let error = refusal(Behaviour { protocol: 99, ..Behaviour::default() }, Builder::default()).await;
    assert!(matches!(error, Error::VersionMismatch(_)), "{error}");
}

#[tokio::test]
async fn the_right_secret_and_cluster_let_in() {
    let fake = Fake::start(Behaviour { secret: b"h&sh".to_vec(), ..Behaviour::default() }).await;
    fake.tell(topology(1, &[&[fake.port]], 1));
    let url = format!("ringmain://{}/?secret=h%26sh&cluster={CLUSTER}", fake.address());
    let client = Client::connect(&url).await.unwrap();
    assert!(client.ping().await.unwrap() < Duration::from_secs(1));
    assert_eq!(client.topology().await.unwrap().epoch, 1);
}

#[tokio::test]
async fn a_client_keeps_to_the_cluster_it_met_first() {
    let (mut fakes, client) = {
        let first = Fake::start(Behaviour::default()).await;
        let stranger = Fake::start(Behaviour { cluster: CLUSTER + 1, ..Behaviour::default() }).await;
        first.tell(topology(1, &[&[first.port], &[stranger.port]], 2));
        let client = Builder::default().servers([first.address()]).connect().await.unwrap();
        ([first, stranger], client)
    };
    for _ in 0..4 {
        let (got, ()) = tokio::join!(client.get("key"), async { fakes[0].next().await.got(b"", &[b"mine"]) });
        got.unwrap();
    }
    assert!(fakes[1].is_idle().await);
}

#[tokio::test]
async fn the_first_server_may_be_dead() {
    let dead = Fake::start(Behaviour::default()).await;
    let dead_address = dead.address();
    drop(dead);
    let fake = Fake::start(Behaviour::default()).await;
    fake.tell(topology(1, &[&[fake.port]], 1));
    Builder::default().servers([dead_address.clone(), fake.address()]).connect().await.unwrap();
    let start = Instant::now();
    let builder = Builder::default().servers([dead_address]).connect_timeout(Duration::from_millis(200));
    let error = builder.connect().await.unwrap_err();
    assert!(matches!(error, Error::Disconnected(_)), "{error}");
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn settings_that_make_no_sense_are_refused() {
    let builder = || Builder::default().servers(["127.0.0.1:1"]);
    for (builder, told) in [
        (Builder::default(), "no server given"),
        (builder().servers(["a b"]), "`a b` is not a server"),
        (builder().timeout(Duration::ZERO), "above zero"),
        (builder().in_flight_max(0), "above zero"),
    ] {
        let error = builder.connect().await.unwrap_err();
        assert!(matches!(&error, Error::BadRequest(why) if why.contains(told)), "{error}");
    }
    let error = Client::connect("ringmain://h/?colour=red").await.unwrap_err();
    assert!(error.to_string().contains("unknown option `colour`"), "{error}");
    let shown = format!("{:?}", builder().cluster_secret("hush"));
    assert!(!shown.contains("hush") && !shown.contains("104"), "{shown}");
}

#[tokio::test]
async fn the_last_clone_closes_the_connections() {
    let (mut fake, client) = Fake::alone(Behaviour::default(), Builder::default()).await;
    let clone = client.clone();
    drop(client);
    let (got, ()) = tokio::join!(clone.get("key"), async { fake.next().await.got(b"", &[b"value"]) });
    got.unwrap();
    let late = {
        let waiting = clone.get("key");
        tokio::select! { _ = waiting => unreachable!("nobody answers"), request = fake.next() => request }
    };
    drop(clone);
    tokio::time::sleep(Duration::from_millis(20)).await;
    late.got(b"", &[b"to nobody"]);
}

/// Every request ends, even where nobody is left to carry it out.
#[test]
fn a_client_outlives_its_runtime_without_hanging() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (other, (_fake, client)) =
        (runtime(), runtime().block_on(Fake::alone(Behaviour::default(), Builder::default())));
    let error = other.block_on(client.request("key").timeout(Duration::from_millis(50)).get()).unwrap_err();
    assert!(error.to_string().contains("runtime"), "{error}");
}
