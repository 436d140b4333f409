//! The life of a node as its operator sees it: start and refusals, joining, stopping, coming back. Defends P8 (what
//! was reported failed was never applied) through a stop, and P9 through a restart that forgot everything.

#![allow(clippy::unwrap_used, reason = "a test that can't go on must stop")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "real processes live in real time")]

mod cluster;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cluster::{Cluster, Port, Wire, encoded, get, put, run};
use ringmain_schema::message::{ErrorCode, Put};
use ringmain_schema::{Flags, Kind};

/// What a client knows of its write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Known {
    Applied,
    NotApplied,
    InDoubt,
}

/// Put under ever new keys, many at once, until the node hangs up.
fn put_until_the_end(mut wire: Wire, mut on_answer: impl FnMut(usize)) -> BTreeMap<u64, Known> {
    const IN_FLIGHT: usize = 64;
    let (mut known, mut answered) = (BTreeMap::new(), 0);
    for id in 0.. {
        known.insert(id, Known::InDoubt);
        let sent = wire.try_send(&put(id, format!("key {id}").as_bytes(), b"v"));
        while sent.is_err() || known.len() - answered > IN_FLIGHT {
            let Ok(Some(answer)) = wire.try_receive() else { return known };
            answered += 1;
            on_answer(answered);
            let outcome = match answer.code() {
                None => Known::Applied,
                Some(ErrorCode::MaybeApplied) => Known::InDoubt,
                Some(_) => Known::NotApplied,
            };
            known.insert(answer.id(), outcome);
        }
    }
    unreachable!("there is an end")
}

/// A node that is asked to stop under load answers what it took and exits with 0. What it acknowledged is on the
/// other nodes; what it refused is nowhere.
#[test]
fn a_stop_under_load_is_honest() {
    for by_interrupt in [false, true] {
        let mut cluster = Cluster::start(3, 1, &[]);
        let wire = cluster.greeted(0);
        let process = cluster.process(0);
        let stop = |answered| match (answered, by_interrupt) {
            (2000, false) => process.terminate(),
            (2000, true) => process.interrupt(),
            _ => {}
        };
        let known = put_until_the_end(wire, stop);
        let status = cluster.process(0).wait();
        assert_eq!(status.code(), Some(0), "{}", cluster.process(0).said());

        cluster.wait_for_state(1, 0, "suspected");
        let mut reader = cluster.greeted(1);
        let mut count = BTreeMap::new();
        for (id, outcome) in known {
            let answer = reader.ask(&get(id, format!("key {id}").as_bytes()));
            match outcome {
                Known::Applied => assert_eq!(answer.values(), [b"v"], "write {id} was acknowledged"),
                Known::NotApplied => {
                    assert_eq!(answer.code(), Some(ErrorCode::NotFound), "write {id} was refused");
                }
                Known::InDoubt => {}
            }
            *count.entry(format!("{outcome:?}")).or_insert(0) += 1;
        }
        assert!(count["Applied"] >= 1900, "{count:?}");
        assert!(count.get("InDoubt").is_none_or(|&doubts| doubts <= 65), "{count:?}");
    }
}

/// Requests that were accepted before the stop, and wait for a node that doesn't answer, get their answers before
/// the connection ends.
#[test]
fn what_was_accepted_is_answered_before_the_end() {
    let mut cluster = Cluster::start(3, 1, &[]);
    let mut wire = cluster.greeted(0);
    cluster.process(2).pause();
    for id in 0..100u64 {
        let key = id.to_le_bytes();
        let put = Put {
            key: &key,
            value: Some(b"v"),
            write: 3,
            budget_us: 500_000,
            overwrite: true,
            ..Put::default()
        };
        wire.send(&encoded(|encoder, out| put.encode(encoder, id, Flags::NONE, out)));
    }
    // It has read all that came before this.
    wire.ping();
    cluster.process(0).terminate();
    let mut answered: Vec<u64> = Vec::new();
    while let Some(answer) = wire.receive() {
        assert_eq!(answer.code(), Some(ErrorCode::MaybeApplied));
        assert_eq!(answer.error().unwrap().acks, 2);
        answered.push(answer.id());
    }
    answered.sort_unstable();
    assert_eq!(answered, (0..100).collect::<Vec<_>>());
    // Nobody waits for the silent node to hang up.
    cluster.process(2).resume();
    assert_eq!(cluster.process(0).wait().code(), Some(0));
}

/// A stop waits for nobody who isn't owed an answer, and the other nodes hear of it.
#[test]
fn a_stop_is_quick_after_repairs() {
    let mut cluster = Cluster::with_links(3, &[]);
    cluster.cut(0, 2);
    cluster.cut(1, 2);
    // Each has keys of its own that the others lack, so that each sends repairs to some other.
    for (node, key) in [(0, b"0"), (1, b"1"), (2, b"2")] {
        let put = Put { key, value: Some(b"v"), write: 1, ..Put::default() };
        let put = encoded(|encoder, out| put.encode(encoder, 1, Flags::NONE, out));
        assert_eq!(cluster.greeted(node).ask(&put).kind(), Kind::STORED);
    }
    cluster.reconnect(0, 2);
    cluster.reconnect(1, 2);
    for (node, key) in [(0, b"0"), (1, b"1"), (2, b"2")] {
        assert_eq!(cluster.greeted(node).ask(&get(1, key)).values(), [b"v"]);
        cluster::wait_until("others were repaired", || cluster.counter(node, "repairs_sent") > 0);
    }
    for node in [0, 1, 2] {
        let start = Instant::now();
        cluster.process(node).terminate();
        assert_eq!(cluster.process(node).wait().code(), Some(0));
        assert!(start.elapsed() < Duration::from_secs(3), "n{node} took {:?}", start.elapsed());
        (node + 1..3).for_each(|other| cluster.wait_for_state(other, node, "suspected"));
    }
}

/// A second signal doesn't wait for anybody.
#[test]
fn a_second_signal_ends_it_at_once() {
    let mut cluster = Cluster::start(3, 1, &[]);
    let mut wire = cluster.greeted(0);
    cluster.process(2).pause();
    let put = Put {
        key: b"k",
        value: Some(b"v"),
        write: 3,
        budget_us: 4_000_000,
        overwrite: true,
        ..Put::default()
    };
    wire.send(&encoded(|encoder, out| put.encode(encoder, 1, Flags::NONE, out)));
    wire.ping();
    cluster.process(0).interrupt();
    // The first signal has been seen when no new request is taken any more.
    let refused = cluster::get(2, b"k");
    cluster::wait_until("it is stopping", || wire.ask(&refused).code() == Some(ErrorCode::ShuttingDown));
    let start = Instant::now();
    cluster.process(0).interrupt();
    assert_eq!(cluster.process(0).wait().code(), Some(130));
    assert!(start.elapsed() < Duration::from_secs(2));
}

/// An embedded node goes when whoever started it is gone.
#[test]
fn the_end_of_its_input_stops_a_node() {
    let mut cluster = Cluster::start(1, 1, &[]);
    cluster.process(0).end_input();
    assert_eq!(cluster.process(0).wait().code(), Some(0));
}

/// One sentence, and the exit code that says whose mistake it was: 1 for the machine, 2 for the settings.
#[test]
fn what_cannot_start_says_why_in_one_sentence() {
    let cluster = Cluster::start(1, 1, &[]);
    let taken = cluster.address(0).to_string();
    let free = Port::reserve();
    let free = format!("127.0.0.1:{}", free.number());
    let cores = std::thread::available_parallelism().unwrap().get();
    let too_many = (cores + 1).to_string();
    let settings = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(settings.path(), "name = \"n\"\nreplicsa = 3\n").unwrap();
    let settings = settings.path().to_str().unwrap();
    for (arguments, code, words) in [
        (&["serve", "--shards=1", "--pin=false", "--listen", &taken][..], 1, "port taken"),
        (&["serve", "--shards", &too_many, "--listen", &free][..], 2, "use at most"),
        (&["serve", "--config", settings, "--listen", &free][..], 2, "line 2: there is no key `replicsa`"),
        (&["serve", "--config=/no/such/file", "--listen", &free][..], 2, "can't read the settings"),
        (&["serve", "--read=4", "--listen", &free][..], 2, "read is 4"),
        (
            &["serve", "--members=a=127.0.0.1:1,b=127.0.0.1:2", "--listen", &free][..],
            2,
            "not among the members",
        ),
        (&["get", "k", "--server", &free, "--timeout=200ms"][..], 1, "ringmain: "),
    ] {
        let ended = run(arguments);
        assert_eq!(ended.code, Some(code), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(words), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.starts_with("ringmain: ") && ended.stderr.lines().count() == 1, "{ended:?}");
        assert_eq!(ended.stdout, "");
    }
    assert!(cluster.statuses(0).unwrap()[0].serving, "the one that was there first is unharmed");
}

/// `--check` looks and doesn't start; what `--print-config` prints is a configuration that means the same.
#[test]
fn a_configuration_can_be_checked_and_printed() {
    let arguments =
        ["serve", "--name=n7", "--replicas=2", "--value-bytes-max=64KiB", "--shards=1", "--pin=false"];
    let checked = run(&[&arguments[..], &["--check"]].concat());
    assert_eq!((checked.code, &*checked.stdout), (Some(0), "ok\n"));
    let printed = run(&[&arguments[..], &["--print-config"]].concat());
    assert_eq!(printed.code, Some(0));
    assert!(printed.stdout.contains("name = \"n7\""), "{}", printed.stdout);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &printed.stdout).unwrap();
    let again = run(&["serve", "--print-config", "--config", file.path().to_str().unwrap()]);
    assert_eq!(again.stdout, printed.stdout);
}

/// The program's own client commands, against a node.
#[test]
fn the_commands_of_the_tour_work() {
    let cluster = Cluster::start(1, 2, &[]);
    let server = cluster.address(0).to_string();
    let ask = |arguments: &[&str]| run(&[arguments, &["--server", &server]].concat());
    assert_eq!(ask(&["put", "greeting", "hello"]).code, Some(0));
    let got = ask(&["get", "greeting"]);
    assert_eq!((got.code, got.stdout.trim_end()), (Some(0), "hello"));
    assert_eq!(ask(&["delete", "greeting"]).code, Some(0));
    assert_eq!(ask(&["get", "greeting"]).code, Some(1));
    let status = ask(&["status"]);
    assert!(
        status.stdout.contains("n0 shard 1 of 2") && !status.stdout.contains("not serving"),
        "{status:?}"
    );
}

/// A node that knows only a seed becomes a guest: it holds nothing, and passes everything on.
#[tokio::test]
async fn a_guest_forwards() {
    let mut cluster = Cluster::start(3, 1, &[]);
    let guest = cluster.join(2);
    let (through_guest, member) = (cluster.client_of(guest).await, cluster.client_of(1).await);
    for number in 0..100 {
        let (key, value) = (format!("key {number}"), format!("value {number}"));
        through_guest.overwrite(&key, value.clone()).await.unwrap();
        assert_eq!(member.get(&key).await.unwrap().value().unwrap(), value.as_bytes());
        assert_eq!(through_guest.get(&key).await.unwrap().value().unwrap(), value.as_bytes());
    }
    assert_eq!(cluster.counter(guest, "keys"), 0);
    assert!(cluster.counter(guest, "forwarded_to_peers") >= 200);
    let topology = cluster.greeted(guest).topology();
    assert_eq!((topology.members.len(), topology.replicas), (4, 3));

    cluster.kill(guest);
    cluster.wait_for_state(0, guest, "suspected");
    assert!(member.get("key 1").await.unwrap().is_found(), "nobody misses a guest");
}

/// A node that comes back has forgotten everything and knows it: it is a new incarnation, and its ignorance doesn't
/// count as "not found".
#[tokio::test]
async fn a_node_that_comes_back_empty_does_not_deny_what_it_forgot() {
    let mut cluster = Cluster::start(3, 1, &[]);
    let writer = cluster.client().await;
    for number in 0..200 {
        writer.request(format!("key {number}")).write(3).overwrite().put("v").await.unwrap();
    }
    let incarnation_of = |cluster: &Cluster, observer: usize| {
        let statuses = cluster.statuses(observer).unwrap();
        statuses[0].members.iter().find(|member| member.name == "n2").unwrap().incarnation
    };
    let before = incarnation_of(&cluster, 0);
    for life in 1..=3 {
        cluster.restart(2);
        assert_eq!(cluster.counter(2, "puts"), 0);
        for observer in 0..3 {
            cluster::wait_until("its new incarnation is known", || {
                incarnation_of(&cluster, observer) == before + life
            });
        }
        let returned = cluster.client_of(2).await;
        for number in 0..200 {
            let replicas = (number % 2 + 1) as u8;
            let got = returned.request(format!("key {number}")).read(replicas).get().await.unwrap();
            assert!(got.is_found(), "key {number} at R = {replicas}, in life {life}");
        }
        assert!(!returned.get("never put").await.unwrap().is_found());
    }
}

/// Stopped and continued under load, as by a debugger, or by a machine that pauses, a node goes on each time. One that was
/// stopped while its executor was about to look for tasks slept for ever: one stop of 76 did that.
#[test]
fn a_node_that_was_stopped_under_load_goes_on() {
    const ROUNDS: u64 = 40;
    let mut cluster = Cluster::start(1, 1, &[]);
    let (address, is_over) = (cluster.address(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    Wire::greeted(address, &[]).unwrap();
                }
            });
        }
        for round in 0..ROUNDS {
            std::thread::sleep(Duration::from_millis(10));
            cluster.process(0).pause();
            // Longer than the time that glommio gives a task.
            std::thread::sleep(Duration::from_millis(110));
            cluster.process(0).resume();
            let stored = cluster.greeted(0).ask(&put(round, b"key", b"value"));
            assert_eq!(stored.code(), None, "round {round}");
        }
        is_over.store(true, Ordering::Relaxed);
    });
}
