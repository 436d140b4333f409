//! Batches are split by shard, sent together, and come back in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ringmain_client::{Builder, Error};
use ringmain_schema::frame::{Flags, Kind};
use ringmain_schema::message::{ErrorAnswer, Get, Multi, MultiWriter, Put, Stored};
use ringmain_schema::{Encoder, ErrorCode, Frame};

use crate::fake::{Behaviour, Fake, Request, got, topology};

/// Answers each read of a batch with its key, last item first, and each write with success.
fn answer_batch(frame: &Frame<'_>, encoder: &mut Encoder, out: &mut Vec<u8>) {
    let mut writer = MultiWriter::default();
    let items: Vec<Frame<'_>> = Multi::parse(frame).unwrap().items().collect();
    for item in items.iter().rev() {
        let id = item.header.request_id;
        if item.header.kind == Kind::GET {
            let key = Get::parse(item).unwrap().key;
            got(encoder, id, Flags::NONE, b"", &[key], &mut writer.items);
        } else {
            Put::parse(item).unwrap();
            Stored::default().encode(encoder, id, Flags::NONE, &mut writer.items);
        }
        writer.count += 1;
    }
    writer.encode(encoder, Kind::MULTI_DONE, Flags::NONE, frame.header.request_id, 0, out);
}

fn batching(frames: &Arc<AtomicUsize>) -> Behaviour {
    let frames = Arc::clone(frames);
    let handler = move |frame: &Frame<'_>, encoder: &mut Encoder, out: &mut Vec<u8>| {
        frames.fetch_add(1, Ordering::Relaxed);
        answer_batch(frame, encoder, out);
        true
    };
    Behaviour { handler: Some(Arc::new(handler)), ..Behaviour::default() }
}

async fn answer(request: &Request) {
    request.answer(|encoder, _, out| answer_batch(&request.frame(), encoder, out));
}

#[tokio::test]
async fn one_frame_a_shard_and_results_in_order() {
    let counts = [Arc::default(), Arc::default()];
    let fakes = [Fake::start(batching(&counts[0])).await, Fake::start(batching(&counts[1])).await];
    fakes[0].tell(topology(1, &[&[fakes[0].port, fakes[1].port]], 1));
    let client = Builder::default().servers([fakes[0].address()]).connect().await.unwrap();
    let keys: Vec<String> = (0..100).map(|number| format!("key {number}")).collect();
    let results = client.get_many(&keys).await;
    for (key, result) in keys.iter().zip(results) {
        assert_eq!(result.unwrap().value().unwrap(), key.as_bytes());
    }
    assert_eq!(counts.each_ref().map(|count| count.load(Ordering::Relaxed)), [1, 1]);
    let results = client.put_many(keys.iter().map(|key| (key, "value"))).await;
    assert!(results.len() == 100 && results.iter().all(Result::is_ok));
    let results = client.batch().overwrite().delete(&keys).await;
    assert!(results.len() == 100 && results.iter().all(Result::is_ok));
    assert!(client.get_many::<&str>([]).await.is_empty());
}

#[tokio::test]
async fn a_batch_over_the_limits_takes_several_frames() {
    let count = Arc::default();
    let (_fake, client) = Fake::alone(batching(&count), Builder::default()).await;
    let many = client.get_many((0..2500).map(|number: u32| number.to_le_bytes())).await;
    assert!(many.iter().all(Result::is_ok));
    let by_items = count.swap(0, Ordering::Relaxed);
    assert!(by_items >= 3, "at most 1,024 items a frame: {by_items}");
    // 64 KiB a frame: 100 values of 1,000 bytes need two or more.
    let large = client.put_many((0..100u32).map(|number| (number.to_le_bytes(), vec![1; 1000]))).await;
    assert!(large.iter().all(Result::is_ok));
    assert!(count.load(Ordering::Relaxed) >= 2);
}

#[tokio::test]
async fn items_fail_one_by_one() {
    let (mut fake, client) = Fake::alone(Behaviour::default(), Builder::default()).await;
    let items = [("a", vec![1]), ("b", vec![0; 2000]), ("", vec![1]), ("c", vec![1]), ("d", vec![1])];
    let (results, ()) = tokio::join!(client.put_many(items), async {
        let request = fake.next().await;
        request.answer(|encoder, id, out| {
            let mut writer = MultiWriter { items: Vec::new(), count: 2 };
            Stored::default().encode(encoder, 0, Flags::NONE, &mut writer.items);
            let refusal = ErrorAnswer::new(ErrorCode::TooManySiblings, "");
            refusal.encode(encoder, 1, Flags::NONE, &mut writer.items);
            writer.encode(encoder, Kind::MULTI_DONE, Flags::NONE, id, 0, out);
        });
    });
    assert!(results[0].is_ok());
    assert_eq!(results[1], Err(Error::TooLarge { limit: 1024 }));
    assert!(matches!(results[2], Err(Error::BadRequest(_))));
    assert_eq!(results[3], Err(Error::TooManySiblings { limit: 0 }));
    assert_eq!(results[4], Err(Error::MaybeApplied { acks: 0 }), "an item without an answer is in doubt");
}

#[tokio::test]
async fn what_was_lost_goes_elsewhere_under_the_same_names() {
    let (mut fakes, client) = Fake::cluster::<2>(Builder::default()).await;
    // 8 partitions have their first primaries on either node in turn.
    let keys: Vec<String> = (0..20).map(|number| format!("key {number}")).collect();
    let (results, ()) = tokio::join!(client.put_many(keys.iter().map(|key| (key, "value"))), async {
        let (lost, kept) = (fakes[0].next().await, fakes[1].next().await);
        let names = |request: &Request| -> Vec<u64> {
            let multi = request.frame();
            let items = Multi::parse(&multi).unwrap().items();
            items.map(|item| Put::parse(&item).unwrap().operation_sequence).collect()
        };
        let first_names = names(&lost);
        lost.hang_up();
        answer(&kept).await;
        let again = fakes[1].next().await;
        assert_eq!(names(&again), first_names);
        answer(&again).await;
    });
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

#[tokio::test]
async fn a_batch_keeps_its_deadline() {
    let (mut fake, client) = Fake::alone(Behaviour::default(), Builder::default()).await;
    let batch = client.batch().timeout(Duration::from_millis(50));
    let (results, _) = tokio::join!(batch.clone().get(["a", "b"]), fake.next());
    assert_eq!(results, [Err(Error::Timeout), Err(Error::Timeout)]);
    let (results, _) = tokio::join!(batch.put([("a", "")]), fake.next());
    assert_eq!(results, [Err(Error::MaybeApplied { acks: 0 })]);
    assert_eq!(client.in_flight(), 0);
}

/// The answer to a batch may be larger than that to any single request.
#[tokio::test]
async fn a_batch_may_bring_much() {
    let value = vec![7u8; 1 << 20];
    let (mut fake, client) = Fake::alone(Behaviour::default(), Builder::default()).await;
    let (results, ()) = tokio::join!(client.get_many(["a", "b", "c"]), async {
        let request = fake.next().await;
        request.answer(|encoder, id, out| {
            let mut writer = MultiWriter { items: Vec::new(), count: 3 };
            for place in 0..3 {
                got(encoder, place, Flags::NONE, b"", &[&value], &mut writer.items);
            }
            writer.encode(encoder, Kind::MULTI_DONE, Flags::NONE, id, 0, out);
        });
    });
    assert!(results.into_iter().all(|result| result.unwrap().value().unwrap() == &value));
}
