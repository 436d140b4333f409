//! Everything has a limit, and going over it is an error at once.

use std::time::Duration;

use ringmain_client::{Builder, Error};

use crate::fake::{Behaviour, Fake};

#[tokio::test]
async fn one_request_too_many_is_refused_at_once() {
    let (mut fake, client) = Fake::alone(Behaviour::default(), Builder::default().in_flight_max(2)).await;
    let busy: Vec<_> = (0..2)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.get("key").await })
        })
        .collect();
    let requests = [fake.next().await, fake.next().await];
    assert_eq!(client.in_flight(), 2);
    assert_eq!(client.get("key").await.unwrap_err(), Error::Overloaded);
    assert_eq!(client.get_many(["key"]).await, [Err(Error::Overloaded)]);
    requests.iter().for_each(|request| request.got(b"", &[b"value"]));
    for task in busy {
        task.await.unwrap().unwrap();
    }
    let (got, ()) = tokio::join!(client.get("key"), async { fake.next().await.got(b"", &[b"value"]) });
    got.unwrap();
    assert_eq!(client.in_flight(), 0);
}

#[tokio::test]
async fn the_servers_own_limit_on_a_connection_is_kept() {
    let behaviour = Behaviour { in_flight_max: 1, ..Behaviour::default() };
    let (mut fake, client) = Fake::alone(behaviour, Builder::default()).await;
    let (first, second) = tokio::join!(client.get("key"), async {
        let request = fake.next().await;
        let second = client.get("key").await;
        request.got(b"", &[b"value"]);
        second
    });
    first.unwrap();
    assert_eq!(second.unwrap_err(), Error::Overloaded);
}

#[tokio::test]
async fn what_is_too_large_never_leaves() {
    let (mut fake, client) = Fake::alone(Behaviour::default(), Builder::default()).await;
    let error = client.put("key", vec![0; 1025]).await.unwrap_err();
    assert_eq!(error, Error::TooLarge { limit: 1024 });
    let error = client.get(vec![0; 64 * 1024 + 1]).await.unwrap_err();
    assert_eq!(error, Error::TooLarge { limit: 64 * 1024 });
    let long = ringmain_client::Context::from_bytes(vec![0; 70_000]);
    let error = client.put_with("key", "value", &long).await.unwrap_err();
    assert_eq!(error, Error::TooLarge { limit: 64 * 1024 });
    assert!(matches!(client.get("").await.unwrap_err(), Error::BadRequest(_)));
    assert!(fake.is_idle().await);
    let (stored, ()) = tokio::join!(client.put("key", vec![0; 1024]), async { fake.next().await.stored() });
    stored.unwrap();
    assert_eq!(fake.accepted(), 1, "the connection outlived all of it");
}

#[tokio::test]
async fn a_dropped_future_frees_its_place() {
    let (mut fake, client) = Fake::alone(Behaviour::default(), Builder::default().in_flight_max(1)).await;
    for _ in 0..10 {
        let dropped = tokio::time::timeout(Duration::from_millis(5), client.get("key")).await;
        assert!(dropped.is_err());
        assert_eq!(client.in_flight(), 0);
        // Its answer comes too late and must not reach whoever has its place now.
        fake.next().await.got(b"", &[b"to another"]);
        let (got, ()) = tokio::join!(client.get("key"), async { fake.next().await.got(b"", &[b"mine"]) });
        assert_eq!(got.unwrap().value().unwrap(), "mine");
    }
}

/// P12 the other way round: a server that talks nonsense gets its connection closed, and nobody panics.
#[tokio::test]
async fn nonsense_from_a_server_closes_the_connection() {
    let (mut fake, client) = Fake::alone(Behaviour::default(), Builder::default()).await;
    let mut too_long = vec![0; 24];
    too_long[0..4].copy_from_slice(&u32::MAX.to_le_bytes());
    too_long[8] = 130;
    let mut a_request = vec![0; 24];
    a_request[8] = 2;
    for nonsense in [vec![0xff; 100], too_long, a_request] {
        let accepted = fake.accepted();
        let (got, ()) = tokio::join!(client.request("key").retry(false).get(), async {
            fake.next().await.raw(nonsense);
        });
        assert!(matches!(got.unwrap_err(), Error::Disconnected(_)));
        let (got, ()) = tokio::join!(client.get("key"), async { fake.next().await.got(b"", &[b"value"]) });
        got.unwrap();
        assert_eq!(fake.accepted(), accepted + 1);
    }
}

#[tokio::test]
async fn an_answer_that_is_not_one_is_an_error() {
    let (mut fake, client) = Fake::alone(Behaviour::default(), Builder::default()).await;
    let (got, ()) = tokio::join!(client.get("key"), async { fake.next().await.stored() });
    assert!(matches!(got.unwrap_err(), Error::Protocol(_)));
    let (stored, ()) = tokio::join!(client.put("key", "value"), async { fake.next().await.got(b"", &[b""]) });
    assert_eq!(stored.unwrap_err(), Error::MaybeApplied { acks: 0 }, "who knows what that server did");
}
