//! A scripted peer on a real socket: what a server never should do, and what is made of it.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet, LocalSet, spawn_local};
use tokio::time::sleep;

use super::*;

/// What a peer does next on a connection. After the last step it closes it.
#[derive(Clone, Copy)]
enum Step {
    /// Waits until this has come.
    Hear(&'static [u8]),
    Say(&'static [u8]),
    Pause(u64),
}

use Step::{Hear, Pause, Say};

const GET_A: &[u8] = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n";
const GET_B: &[u8] = b"*2\r\n$3\r\nGET\r\n$1\r\nb\r\n";
const SET_A: &[u8] = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n";
const TIMEOUT: Duration = Duration::from_millis(200);
/// A silent connection is given up after twice the deadline.
const ENDLESS: Step = Pause(60_000);

/// A peer that plays one script for each connection, in order, and then listens no longer.
async fn peer(scripts: &'static [&'static [Step]]) -> (Peer, JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let play_all = async move {
        for script in scripts {
            let (stream, _) = listener.accept().await.expect("a connection");
            play(stream, script).await;
        }
    };
    (Peer { make: Make::Redis, host: "127.0.0.1".to_owned(), port }, spawn_local(play_all))
}

async fn play(mut stream: TcpStream, script: &[Step]) {
    for step in script {
        match step {
            Hear(expected) => {
                let mut heard = vec![0; expected.len()];
                stream.read_exact(&mut heard).await.expect("what the script expects");
                assert_eq!(String::from_utf8_lossy(&heard), String::from_utf8_lossy(expected));
            }
            Say(words) => stream.write_all(words).await.expect("somebody listens"),
            Pause(millis) => sleep(Duration::from_millis(*millis)).await,
        }
    }
}

async fn target(peer: Peer) -> WireTarget {
    let settings = Settings { peer, connections: 1, timeout: TIMEOUT, replicas: None };
    WireTarget::open(&settings).await.expect("the peer listens")
}

fn on_one_thread<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, future)
}

fn text(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn value(text: &'static str) -> Answer {
    Ok(Some(Bytes::from_static(text.as_bytes())))
}

/// How a request failed.
fn failed<T: std::fmt::Debug>(answer: Result<T, Trouble>) -> (Failure, Applied, String) {
    let trouble = answer.expect_err("it has no answer");
    (trouble.failure, trouble.applied, trouble.reason)
}

/// Once the lane has redialled.
async fn get_when_open(target: &WireTarget, key: &'static str) -> Answer {
    for _ in 0..100 {
        if target.lane().is_some() {
            return target.get(text(key)).await;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("it was not redialled")
}

#[test]
fn answers_in_pieces_go_to_whom_they_belong_in_order() {
    on_one_thread(async {
        let (peer, played) = peer(&[&[
            Hear(GET_A),
            Hear(GET_B),
            Hear(SET_A),
            Say(b"$"),
            Pause(5),
            Say(b"3\r\na"),
            Pause(5),
            Say(b"\r\n\r"),
            Pause(5),
            Say(b"\n$-1\r\n+O"),
            Pause(5),
            Say(b"K\r\n"),
        ]])
        .await;
        let target = target(peer).await;
        let (first, second, third) = tokio::join!(
            target.get(text("a")),
            target.get(text("b")),
            target.put(text("a"), text("1"), None)
        );
        assert_eq!((first, second, third), (value("a\r\n"), Ok(None), Ok(())));
        played.await.expect("the script was followed");
    });
}

#[test]
fn half_an_answer_and_a_close_leave_writes_in_doubt_and_are_followed_by_another_connection() {
    on_one_thread(async {
        let (peer, played) =
            peer(&[&[Hear(GET_A), Hear(SET_A), Say(b"$3\r\nab")], &[Hear(GET_B), Say(b"$1\r\nb\r\n")]]).await;
        let target = target(peer).await;
        let (read, write) = tokio::join!(target.get(text("a")), target.put(text("a"), text("1"), None));
        let reason = "the connection broke: it was closed within an answer: '$3'".to_owned();
        assert_eq!(failed(read), (Failure::Unreachable, Applied::No, reason.clone()));
        assert_eq!(failed(write), (Failure::MaybeApplied, Applied::Maybe, reason));
        assert_eq!(get_when_open(&target, "b").await, value("b"));
        played.await.expect("both scripts were followed");
    });
}

#[test]
fn what_is_no_answer_ends_the_connection_lest_later_ones_be_taken_for_others() {
    on_one_thread(async {
        let (peer, played) = peer(&[
            &[Hear(GET_A), Hear(GET_B), Say(b"+OK\r\n$1\r\nb\r\n"), ENDLESS],
            &[Hear(GET_B), Say(b"$1\r\nb\r\n")],
        ])
        .await;
        let target = target(peer).await;
        let (first, second) = tokio::join!(target.get(text("a")), target.get(text("b")));
        let wrong = "no answer to what was asked: '+OK'";
        assert_eq!(failed(first), (Failure::Refused, Applied::Maybe, wrong.to_owned()));
        let broken = format!("the connection broke: {wrong}");
        assert_eq!(
            failed(second),
            (Failure::Unreachable, Applied::No, broken),
            "its answer can't be trusted"
        );
        played.abort();
    });
}

#[test]
fn what_nobody_asked_for_is_told() {
    on_one_thread(async {
        let (peer, _played) = peer(&[&[Say(b"-ERR max number of clients reached\r\n")]]).await;
        let target = target(peer).await;
        while target.lane().is_some() {
            sleep(Duration::from_millis(1)).await;
        }
        let (failure, applied, reason) = failed(target.put(text("a"), text("1"), None).await);
        assert_eq!((failure, applied), (Failure::Unreachable, Applied::No));
        assert!(reason.contains("unasked: '-ERR max number of clients reached'"), "{reason}");
    });
}

#[test]
fn a_silent_peer_costs_a_deadline_and_then_its_connection() {
    on_one_thread(async {
        let (peer, played) = peer(&[&[Hear(GET_A), Hear(SET_A), ENDLESS]]).await;
        let target = target(peer).await;
        let start = Instant::now();
        let (read, write) = tokio::join!(target.get(text("a")), target.put(text("a"), text("1"), None));
        let reason = "no answer within the deadline".to_owned();
        assert_eq!(failed(read), (Failure::Timeout, Applied::No, reason.clone()));
        assert_eq!(failed(write), (Failure::MaybeApplied, Applied::Maybe, reason));
        assert!((TIMEOUT..3 * TIMEOUT).contains(&start.elapsed()), "{:?}", start.elapsed());
        while target.lane().is_some() {
            assert!(start.elapsed() < 10 * TIMEOUT, "the connection is still thought to be of use");
            sleep(Duration::from_millis(10)).await;
        }
        let (.., reason) = failed(target.get(text("a")).await);
        assert_eq!(reason, "nothing came for 400ms");
        played.abort();
    });
}

/// A late answer is nobody's: the next request must not be given it.
#[test]
fn an_answer_after_the_deadline_is_dropped() {
    on_one_thread(async {
        let (peer, played) =
            peer(&[&[Hear(GET_A), Hear(GET_B), Pause(10), Say(b"$1\r\na\r\n$1\r\nb\r\n")]]).await;
        let target = target(peer).await;
        let late = failed(target.get(text("a")).await);
        assert_eq!(late.0, Failure::Timeout);
        assert_eq!(target.get(text("b")).await, value("b"));
        played.await.expect("the script was followed");
    });
}

/// The peer reads nothing until all deadlines have passed. What stood behind the first write then never leaves, and is not in
/// doubt.
#[test]
fn a_write_that_is_late_in_the_queue_is_never_sent_and_surely_not_applied() {
    on_one_thread(async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let heard = spawn_local(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            sleep(TIMEOUT + TIMEOUT / 4).await;
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).await.expect("it is given up, as nothing is answered");
            String::from_utf8_lossy(&heard).matches("SET").count()
        });
        let target = target(Peer { make: Make::Redis, host: "127.0.0.1".to_owned(), port }).await;
        let value = Bytes::from(vec![b'v'; 8 << 20]);
        let mut puts = JoinSet::new();
        for _ in 0..8 {
            let (target, value) = (target.clone(), value.clone());
            puts.spawn_local(async move { failed(target.put(text("a"), value, None).await) });
        }
        let failures = puts.join_all().await;
        let count =
            |wanted| failures.iter().filter(|&&(failure, applied, _)| (failure, applied) == wanted).count();
        assert_eq!(count((Failure::MaybeApplied, Applied::Maybe)), 1, "{failures:?}");
        assert_eq!(count((Failure::Timeout, Applied::No)), 7, "{failures:?}");
        assert_eq!(heard.await.expect("it heard"), 1);
    });
}

#[test]
fn while_nobody_listens_requests_fail_at_once_and_no_write_is_in_doubt() {
    on_one_thread(async {
        let (peer, played) = peer(&[&[]]).await;
        let target = target(peer).await;
        played.await.expect("the script was followed");
        while target.lane().is_some() {
            sleep(Duration::from_millis(1)).await;
        }
        let start = Instant::now();
        let (failure, applied, _) = failed(target.put(text("a"), text("1"), None).await);
        assert_eq!((failure, applied), (Failure::Unreachable, Applied::No));
        assert!(start.elapsed() < TIMEOUT / 2);
    });
}

#[test]
fn the_lane_with_the_least_under_way_is_taken_and_equals_in_turn() {
    on_one_thread(async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let peer = Peer { make: Make::Redis, host: "127.0.0.1".to_owned(), port };
        let settings = Settings { peer, connections: 2, timeout: TIMEOUT, replicas: None };
        let target = WireTarget::open(&settings).await.expect("somebody listens");
        let lanes = &target.shared.lanes;
        let place = || lanes.iter().position(|lane| std::ptr::eq(lane, target.lane().expect("open")));
        assert_eq!((place(), place(), place()), (Some(0), Some(1), Some(0)));
        let asked = spawn_local({
            let target = target.clone();
            async move { target.get(text("a")).await }
        });
        tokio::task::yield_now().await;
        let busy = lanes.iter().position(|lane| lane.under_way() == 1).expect("one has it");
        assert_eq!([place(), place()], [Some(1 - busy); 2]);
        asked.abort();
    });
}

#[test]
fn a_peer_that_is_not_there_or_something_else_is_told_in_a_sentence() {
    on_one_thread(async {
        let nobody = Peer { make: Make::Redis, host: "127.0.0.1".to_owned(), port: 1 };
        let settings = |peer| Settings { peer, connections: 1, timeout: TIMEOUT, replicas: None };
        let error = WireTarget::connect(&settings(nobody)).await.expect_err("nobody listens");
        assert!(error.to_string().starts_with("redis://127.0.0.1:1: Connection refused"), "{error}");
        let (other, _played) = peer(&[&[Say(b"220 mail.example.org ESMTP\r\n"), Pause(1000)]]).await;
        let error = WireTarget::connect(&settings(other)).await.expect_err("it is no Redis");
        assert!(error.to_string().contains("220 mail.example.org"), "{error}");
    });
}
