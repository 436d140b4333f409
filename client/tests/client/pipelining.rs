//! Many requests share a connection, and answers find whoever asked.

use std::time::Duration;

use ringmain_client::{Builder, Client, Error};
use ringmain_schema::ErrorCode;
use ringmain_schema::message::ErrorAnswer;

use crate::fake::{Behaviour, Fake};

async fn get_in_background(client: &Client, key: &'static str) -> tokio::task::JoinHandle<String> {
    let client = client.clone();
    let task = tokio::spawn(async move {
        let got = client.get(key).await.unwrap();
        String::from_utf8(got.value().unwrap().to_vec()).unwrap()
    });
    tokio::task::yield_now().await;
    task
}

#[tokio::test]
async fn answers_may_come_in_another_order() {
    let (mut fake, client) = Fake::alone(Behaviour::default(), Builder::default()).await;
    let accepted = fake.accepted();
    let mut tasks = Vec::new();
    for key in ["a", "b", "c"] {
        tasks.push((key, get_in_background(&client, key).await));
    }
    let mut requests = Vec::new();
    for _ in 0..3 {
        requests.push(fake.next().await);
    }
    for request in requests.iter().rev() {
        request.got(b"context", &[request.get().key]);
    }
    for (key, task) in tasks {
        assert_eq!(task.await.unwrap(), key);
    }
    assert_eq!(fake.accepted(), accepted, "all of them shared one connection");
}

#[tokio::test]
async fn a_read_carries_siblings_context_and_replicas() {
    let (mut fake, client) = Fake::alone(Behaviour::default(), Builder::default().read(2)).await;
    let (got, ()) = tokio::join!(client.get("cart"), async {
        let request = fake.next().await;
        assert_eq!((request.get().key, request.get().read, request.get().latest), (&b"cart"[..], 2, false));
        assert!((900_000..1_000_000).contains(&request.get().budget_us));
        request.got(b"seen", &[b"milk", b"", b"bread"]);
    });
    let got = got.unwrap();
    let values: Vec<_> = got.siblings.iter().map(|sibling| &sibling.value[..]).collect();
    assert_eq!(values, [&b"milk"[..], b"", b"bread"]);
    assert_eq!(got.value().unwrap(), "milk", "the latest by timestamp");
    assert_eq!((got.context.as_bytes(), got.replicas.primaries, got.replicas.nodes), (&b"seen"[..], 2, 2));
}

#[tokio::test]
async fn not_found_is_an_answer_with_a_context() {
    let (mut fake, client) = Fake::alone(Behaviour::default(), Builder::default()).await;
    let (got, ()) = tokio::join!(client.get("gone"), async {
        let not_found = ErrorAnswer::new(ErrorCode::NotFound, "");
        fake.next().await.refuse_with(&ErrorAnswer { context: b"tomb", primaries: 2, nodes: 2, ..not_found });
    });
    let got = got.unwrap();
    assert!(!got.is_found() && got.value().is_none());
    assert_eq!((got.context.as_bytes(), got.replicas.primaries), (&b"tomb"[..], 2));
}

#[tokio::test]
async fn writes_say_what_they_replace() {
    let (mut fake, client) = Fake::alone(Behaviour::default(), Builder::default().write(2)).await;
    let (stored, ()) = tokio::join!(client.put("key", "value"), async {
        let request = fake.next().await;
        let put = request.put();
        assert_eq!(
            (put.value, put.write, put.overwrite, put.context),
            (Some(&b"value"[..]), 2, false, &b""[..])
        );
        assert_ne!(put.operation_client, 0);
        request.stored();
    });
    let context = stored.unwrap().context;
    let (stored, ()) = tokio::join!(client.put_with("key", "other", &context), async {
        let request = fake.next().await;
        assert_eq!(request.put().context, b"new");
        request.stored();
    });
    stored.unwrap();
    let request = client.request("key").overwrite().ttl(Duration::from_micros(1)).write(1);
    let (stored, ()) = tokio::join!(request.put(""), async {
        let request = fake.next().await;
        let put = request.put();
        assert_eq!((put.value, put.overwrite, put.ttl_ms, put.write), (Some(&b""[..]), true, 1, 1));
        request.stored();
    });
    stored.unwrap();
    let (stored, ()) = tokio::join!(client.delete("key", &context), async {
        let request = fake.next().await;
        assert_eq!((request.put().value, request.put().context), (None, &b"new"[..]));
        request.stored();
    });
    stored.unwrap();
    let blind = client.request("key").delete().await.unwrap_err();
    assert!(matches!(blind, Error::BadRequest(_)), "{blind}");
}

#[tokio::test]
async fn an_update_writes_with_what_it_read() {
    let (mut fake, client) = Fake::alone(Behaviour::default(), Builder::default()).await;
    let merge =
        |siblings: &[ringmain_client::Sibling]| siblings.iter().flat_map(|one| one.value.clone()).collect();
    let (stored, ()) = tokio::join!(client.update("cart", merge), async {
        fake.next().await.got(b"both", &[b"milk", b"bread"]);
        let request = fake.next().await;
        assert_eq!((request.put().value, request.put().context), (Some(&b"milkbread"[..]), &b"both"[..]));
        request.stored();
    });
    stored.unwrap();
}

#[tokio::test]
async fn a_large_answer_arrives_in_pieces() {
    let (mut fake, client) =
        Fake::alone(Behaviour { value_bytes_max: 8 << 20, ..Behaviour::default() }, Builder::default()).await;
    let value = vec![7u8; 5 << 20];
    let (got, ()) = tokio::join!(client.get("large"), async { fake.next().await.got(b"", &[&value]) });
    assert_eq!(got.unwrap().value().unwrap(), &value);
}
