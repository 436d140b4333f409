//! P8, honest outcome: what is reported as a definite failure was applied nowhere. And a retry never makes a
//! second write of one.

use std::time::{Duration, Instant};

use ringmain_client::{Builder, Error};
use ringmain_schema::ErrorCode;
use ringmain_schema::message::ErrorAnswer;

use crate::fake::{Behaviour, Fake, Request};

/// The next request of either, and whose it is.
async fn next_of(fakes: &mut [Fake; 2]) -> (usize, Request) {
    let [first, second] = fakes;
    tokio::select! {
        request = first.next() => (0, request),
        request = second.next() => (1, request),
    }
}

#[tokio::test]
async fn a_write_on_a_lost_connection_goes_elsewhere_under_the_same_name() {
    let (mut fakes, client) = Fake::cluster::<2>(Builder::default()).await;
    let (stored, ()) = tokio::join!(client.put("key", "value"), async {
        let (first, request) = next_of(&mut fakes).await;
        let name = (request.put().operation_client, request.put().operation_sequence);
        request.hang_up();
        let (second, request) = next_of(&mut fakes).await;
        assert_ne!(first, second, "another replica is tried");
        assert_eq!((request.put().operation_client, request.put().operation_sequence), name);
        request.stored();
    });
    stored.unwrap();
    let (stored, ()) = tokio::join!(client.put("key", "value"), async {
        let (_, request) = next_of(&mut fakes).await;
        assert_eq!(request.put().operation_sequence, 2, "another write has another name");
        request.stored();
    });
    stored.unwrap();
}

#[tokio::test]
async fn a_lost_write_that_no_retry_settles_may_be_applied() {
    let (mut fakes, client) =
        Fake::cluster::<2>(Builder::default().timeout(Duration::from_millis(200))).await;
    let (stored, ()) = tokio::join!(client.put("key", "value"), async {
        next_of(&mut fakes).await.1.hang_up();
        next_of(&mut fakes).await.1.refuse(ErrorCode::TooManySiblings);
    });
    assert_eq!(stored.unwrap_err(), Error::MaybeApplied { acks: 0 }, "the first try is still in doubt");
    let (stored, ()) = tokio::join!(client.request("key").retry(false).put("value"), async {
        next_of(&mut fakes).await.1.hang_up();
        assert!(fakes[0].is_idle().await && fakes[1].is_idle().await, "no retry was allowed");
    });
    assert_eq!(stored.unwrap_err(), Error::MaybeApplied { acks: 0 });
}

#[tokio::test]
async fn a_server_that_does_not_serve_is_passed_over() {
    for code in
        [ErrorCode::NotServing, ErrorCode::ShuttingDown, ErrorCode::Overloaded, ErrorCode::Unavailable]
    {
        let (mut fakes, client) = Fake::cluster::<2>(Builder::default()).await;
        let (stored, ()) = tokio::join!(client.put("key", "value"), async {
            let (first, request) = next_of(&mut fakes).await;
            request.refuse(code);
            let (second, request) = next_of(&mut fakes).await;
            assert_ne!(first, second);
            request.stored();
        });
        stored.unwrap();
    }
}

#[tokio::test]
async fn an_overloaded_cluster_is_not_hammered() {
    let (mut fakes, client) = Fake::cluster::<2>(Builder::default()).await;
    let (got, ()) = tokio::join!(client.get("key"), async {
        next_of(&mut fakes).await.1.refuse(ErrorCode::Overloaded);
        next_of(&mut fakes).await.1.refuse(ErrorCode::Overloaded);
        assert!(fakes[0].is_idle().await && fakes[1].is_idle().await);
    });
    assert_eq!(got.unwrap_err(), Error::Overloaded);
}

#[tokio::test]
async fn definite_failures_of_servers_are_told_as_such() {
    let (mut fake, client) = Fake::alone(Behaviour::default(), Builder::default()).await;
    let limit = |code| ErrorAnswer { limit: 100, acks: 1, ..ErrorAnswer::new(code, "why") };
    for (code, expected) in [
        (ErrorCode::TooManySiblings, Error::TooManySiblings { limit: 100 }),
        (ErrorCode::TooLarge, Error::TooLarge { limit: 100 }),
        (ErrorCode::BadContext, Error::BadContext),
        (ErrorCode::BadRequest, Error::BadRequest("why".to_owned())),
        (ErrorCode::Unsupported, Error::Unsupported("why".to_owned())),
        (ErrorCode::Stale, Error::Stale),
        (ErrorCode::MaybeApplied, Error::MaybeApplied { acks: 1 }),
        (ErrorCode::Timeout, Error::MaybeApplied { acks: 0 }),
    ] {
        let (stored, ()) = tokio::join!(client.put("key", "value"), async {
            fake.next().await.refuse_with(&limit(code));
        });
        let error = stored.unwrap_err();
        assert_eq!(error.is_definite_failure(), !matches!(expected, Error::MaybeApplied { .. }));
        assert_eq!(error, expected);
    }
}

#[tokio::test]
async fn deadlines_hold_and_late_answers_are_dropped() {
    let (mut fake, client) = Fake::alone(Behaviour::default(), Builder::default()).await;
    let wait = Duration::from_millis(50);
    let start = Instant::now();
    let (got, late) = tokio::join!(client.request("key").timeout(wait).get(), fake.next());
    assert_eq!(got.unwrap_err(), Error::Timeout);
    assert!((wait..wait + Duration::from_millis(100)).contains(&start.elapsed()), "{:?}", start.elapsed());
    let stored = tokio::join!(client.request("key").timeout(wait).put("value"), fake.next()).0;
    assert_eq!(stored.unwrap_err(), Error::MaybeApplied { acks: 0 });
    late.got(b"", &[b"late"]);
    let (got, ()) = tokio::join!(client.get("key"), async { fake.next().await.got(b"", &[b"timely"]) });
    assert_eq!(got.unwrap().value().unwrap(), "timely");
    assert_eq!(client.in_flight(), 0);
}

#[tokio::test]
async fn a_server_that_hangs_is_pinged_then_given_up() {
    let builder = Builder::default().hung_after(Duration::from_millis(100));
    let (mut fakes, client) = Fake::cluster::<2>(builder).await;
    let (stored, ()) = tokio::join!(client.put("key", "value"), async {
        // Slow, but alive: it answers pings, and so keeps its connection.
        let (slow, request) = next_of(&mut fakes).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(fakes[slow].pings() > 0);
        request.stored();
    });
    stored.unwrap();
    let (stored, ()) = tokio::join!(client.put("key", "value"), async {
        let (hung, _request) = next_of(&mut fakes).await;
        fakes[hung].be_mute(true);
        fakes[1 - hung].next().await.stored();
    });
    stored.unwrap();
}

#[tokio::test]
async fn a_server_that_comes_back_is_called_again() {
    let (fake, client) = Fake::alone(Behaviour::default(), Builder::default()).await;
    let address = fake.stop().await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let gone = client.request("key").timeout(Duration::from_millis(50)).put("value").await.unwrap_err();
    assert!(matches!(gone, Error::Disconnected(_)) && gone.is_definite_failure(), "{gone}");
    let listener = tokio::net::TcpListener::bind(&address).await.unwrap();
    let mut fake = Fake::on(listener, Behaviour::default());
    fake.tell(crate::fake::topology(1, &[&[fake.port]], 1));
    let (stored, ()) = tokio::join!(client.put("key", "value"), async { fake.next().await.stored() });
    stored.unwrap();
}

/// What was reported as never sent must not be sent when the call goes through in the end.
#[tokio::test]
async fn a_request_given_up_during_the_call_is_never_sent() {
    let (fake, client) = Fake::alone(Behaviour::default(), Builder::default()).await;
    let address = fake.stop().await;
    let listener = tokio::net::TcpListener::bind(&address).await.unwrap();
    let behaviour = Behaviour::default();
    let mut fake = Fake::on(listener, behaviour);
    fake.tell(crate::fake::topology(1, &[&[fake.port]], 1));
    fake.be_mute(true);
    let error = client.request("key").timeout(Duration::from_millis(60)).put("lost").await.unwrap_err();
    assert!(error.is_definite_failure(), "{error}");
    fake.be_mute(false);
    let (stored, ()) =
        tokio::join!(client.request("key").timeout(crate::fake::PATIENCE).put("kept"), async {
            let request = fake.next().await;
            assert_eq!(request.put().value, Some(&b"kept"[..]));
            request.stored();
        });
    stored.unwrap();
}
