//! Two processes under one name. P13: a cloned identity is fenced.

use ringmain_schema::frame::Header;
use ringmain_schema::message::{ErrorCode, Hello, PeerHello, Put, Role};
use ringmain_schema::peer::ReplicateWriter;
use ringmain_schema::{Encoder, Frame, Kind};

use super::cluster::{Cluster, get, put};
use super::stories::feed;
use crate::id::ConnectionId;
use crate::shard::{Input, Machine, Output, Piece, ShardOptions};
use crate::time::Duration;

fn durable(options: &mut ShardOptions) {
    options.durable = true;
}

fn serves(cluster: &Cluster, process: usize) -> bool {
    cluster.shards[&(process, 0)].view().is_serving()
}

fn told(cluster: &Cluster, process: usize) -> String {
    let notes = cluster.notes.iter().filter(|(node, _)| *node == process);
    notes.map(|(_, note)| note.as_str()).collect::<Vec<_>>().join("\n")
}

/// The node goes on as if nothing were; the second process says why it doesn't serve, and takes over once the first is
/// gone.
#[test]
fn a_second_process_of_a_name_is_turned_away_while_the_first_is_there() {
    for (of, copied) in [(0, false), (0, true), (1, true)] {
        let mut cluster = Cluster::with_options(3, 2, durable);
        let client = cluster.client((0, 0));
        cluster.put(client, put(b"k", b"v"));
        let clone = cluster.start_clone(of, copied);
        cluster.run(Duration::from_secs(20));
        assert!(serves(&cluster, of) && !serves(&cluster, clone), "n{of}");
        assert!(cluster.shards[&(of, 0)].view().myself().oneself.complete);
        let sentence = told(&cluster, clone);
        assert!(sentence.contains(&format!("n{of} runs at n{of}:1")), "{sentence}");
        assert!(sentence.lines().count() <= 2, "by each of the others once: {sentence}");
        let second = cluster.client((clone, 0));
        assert_eq!(cluster.put(second, put(b"k", b"w")).code(), Some(ErrorCode::NotServing));

        cluster.kill(of);
        cluster.run(Duration::from_secs(20));
        assert!(serves(&cluster, clone), "it was the only one left");
        let survivor = cluster.client((2, 0));
        assert_eq!(cluster.get(survivor, get(b"k")).values(), [b"v"]);
    }
}

/// A peer that restarts knows neither of two processes that have one name, and took the one that called first for the node:
/// the one that only waited. From it all others heard of a later incarnation, and the one that served was fenced.
#[test]
fn a_peer_that_restarts_does_not_take_a_second_process_for_the_first() {
    for (of, copied) in [(0, false), (0, true), (1, true), (2, false)] {
        let mut cluster = Cluster::with_options(3, 2, durable);
        let clone = cluster.start_clone(of, copied);
        cluster.run(Duration::from_secs(5));
        for peer in (0..3).filter(|peer| *peer != of).chain([(of + 1) % 3]) {
            cluster.kill(peer);
            // The first is slower to call it again than the second.
            cluster.cut.extend([(peer, of), (of, peer)]);
            cluster.start(peer);
            cluster.run(Duration::from_secs(3));
            cluster.cut.clear();
            cluster.run(Duration::from_secs(10));
            assert!(serves(&cluster, of) && !serves(&cluster, clone), "n{of}, n{peer} restarted");
        }
    }
}

/// The first was cut off, or stopped, when a second one started in its place: that is a restart to all the others. When
/// the first is back it must hear of it, and never acknowledge anything again.
#[test]
fn a_process_that_was_taken_over_from_while_it_was_away_is_fenced() {
    for durable_log in [false, true] {
        let options: fn(&mut ShardOptions) = if durable_log { durable } else { |_| () };
        let mut cluster = Cluster::with_options(3, 2, options);
        cluster.paused.insert(0);
        cluster.run(Duration::from_secs(12));
        let clone = cluster.start_clone(0, durable_log);
        cluster.run(Duration::from_secs(10));
        assert!(serves(&cluster, clone));
        cluster.paused.remove(&0);
        cluster.run(Duration::from_secs(10));
        assert!(!serves(&cluster, 0) && serves(&cluster, clone));
        assert!(cluster.shards[&(0, 1)].view().is_fenced(), "and all of its shards");
        assert!(told(&cluster, 0).contains(&format!("at clone{clone}:1")), "{}", told(&cluster, 0));
        let client = cluster.client((0, 0));
        let refused = cluster.put(client, put(b"k", b"v"));
        assert_eq!(refused.code(), Some(ErrorCode::NotServing));
        // It stays so, and disturbs nobody.
        let taken_over = cluster.shards[&(clone, 0)].view().incarnation();
        cluster.run(Duration::from_secs(20));
        assert!(!serves(&cluster, 0) && serves(&cluster, clone));
        assert_eq!(cluster.shards[&(clone, 0)].view().incarnation(), taken_over);

        // The operator wants the first one back: stop the second, start the first again.
        cluster.kill(clone);
        cluster.kill(0);
        cluster.start(0);
        cluster.run(Duration::from_secs(20));
        assert!(serves(&cluster, 0));
        let client = cluster.client((0, 0));
        assert_eq!(cluster.put(client, put(b"k", b"v")).code(), None);
    }
}

/// A guest of a name that is in use finds the cluster by its seeds like any other, and is turned away there too; and a
/// write that was under way at a process when it was fenced is not acknowledged by it any more.
#[test]
fn a_write_under_way_at_a_fenced_process_is_never_acknowledged_by_it() {
    let mut cluster = Cluster::with_options(3, 1, durable);
    cluster.cut.extend([(0, 1), (1, 0), (0, 2), (2, 0)]);
    cluster.run(Duration::from_secs(15));
    let clone = cluster.start_clone(0, true);
    cluster.run(Duration::from_secs(10));
    assert!(serves(&cluster, clone) && serves(&cluster, 0), "nobody could tell it");
    let client = cluster.client((0, 0));
    cluster.cut.clear();
    for _ in 0..200 {
        let answer = cluster.put(client, put(b"k", b"v"));
        if cluster.shards[&(0, 0)].view().is_fenced() {
            assert!(answer.code().is_some(), "{answer:?}");
            return;
        }
        cluster.run(Duration::from_millis(20));
    }
    panic!("it was never fenced");
}

/// The simulator's seed 96 of base 0: a second process took the name over from the first one's copied disk, and lost its
/// links, and whoever had heard of it. The first started again, succeeded the same life as the second did, and was let in by
/// others that knew nothing of the second. From then on they turned the second away: it never heard that it was not the
/// only one, and served on alone.
#[test]
fn a_second_process_that_serves_is_let_in_to_hear_that_it_is_not_the_only_one() {
    for witness_is_back in [false, true] {
        let mut cluster = Cluster::with_options(3, 1, durable);
        cluster.cut.extend([(1, 2), (2, 1)]);
        cluster.kill(0);
        cluster.run(Duration::from_secs(12));
        let clone = 3;
        cluster.cut.extend([(clone, 2), (2, clone)]);
        assert_eq!(cluster.start_clone(0, true), clone);
        cluster.run(Duration::from_secs(10));
        assert!(serves(&cluster, clone), "n1 has taken it in");
        cluster.kill(1);
        cluster.cut.extend([(0, clone), (clone, 0)]);
        cluster.start(0);
        cluster.run(Duration::from_secs(10));
        assert!(
            serves(&cluster, 0) && serves(&cluster, clone),
            "n2 has taken the first in, and nobody could tell it"
        );

        cluster.cut.clear();
        if witness_is_back {
            cluster.start(1);
        }
        cluster.run(Duration::from_secs(20));
        let [first, second] = [0, clone].map(|process| serves(&cluster, process));
        assert!(first != second, "one of them serves: {first}, {second}");
        let fenced = if first { clone } else { 0 };
        assert!(cluster.shards[&(fenced, 0)].view().is_fenced(), "{}", told(&cluster, fenced));
        let settled = [0, clone].map(|process| cluster.shards[&(process, 0)].view().incarnation());
        cluster.run(Duration::from_secs(20));
        assert_eq!([0, clone].map(|process| cluster.shards[&(process, 0)].view().incarnation()), settled);
        let client = cluster.client((2, 0));
        assert_eq!(cluster.put(client, put(b"k", b"v")).code(), None);
    }
}

/// The simulator's seed 91 of base 0: a process stood still while a peer's write waited for it and a second one took its
/// name over. It went on, wrote the state to its log, heard that it was fenced, and acknowledged when the log was synced.
#[test]
fn a_fenced_process_acknowledges_no_state_that_a_peer_had_sent() {
    let mut cluster = Cluster::with_options(3, 1, durable);
    let client = cluster.client((1, 0));
    cluster.paused.insert(0);
    cluster.put(client, put(b"k", b"v"));
    cluster.run(Duration::from_secs(12));
    let clone = cluster.start_clone(0, true);
    cluster.run(Duration::from_secs(10));
    assert!(serves(&cluster, clone));
    cluster.unsynced.insert(0);
    cluster.paused.remove(&0);
    cluster.run(Duration::from_secs(10));
    assert!(cluster.shards[&(0, 0)].view().is_fenced());
    let mut out = Output::default();
    let input = Input::Appended { sequence: cluster.pending[&(0, 0)] };
    cluster.shards.get_mut(&(0, 0)).unwrap().handle(cluster.now, input, &mut out);
    let kinds =
        out.deliveries.iter().filter(|delivery| delivery.answers).map(|delivery| match &delivery.piece {
            Piece::Copied(range) => Header::read(&out.bytes[range.clone()]).unwrap().unwrap().kind,
            Piece::Shared(bytes) => Header::read(bytes).unwrap().unwrap().kind,
        });
    let kinds: Vec<Kind> = kinds.collect();
    assert!(kinds.contains(&Kind::ERROR), "whoever waits is answered: {kinds:?}");
    assert!(!kinds.contains(&Kind::REPLICATED), "{kinds:?}");
}

/// The simulator's seed 10017000000214: a request was passed on to a sibling shard, which had not heard yet that the process
/// was fenced when it answered. The shard that the client had asked had, and passed the acknowledgement on.
#[test]
fn a_fenced_shard_passes_no_acknowledgement_of_a_sibling_on() {
    let mut cluster = Cluster::with_options(3, 2, durable);
    cluster.cut.extend([(0, 1), (1, 0), (0, 2), (2, 0)]);
    cluster.run(Duration::from_secs(15));
    let clone = cluster.start_clone(0, true);
    cluster.run(Duration::from_secs(10));
    let key = (0..100u8).map(|key| [key]).find(|key| cluster.owner_at(0, key) == (0, 1)).unwrap();
    let (client, connection) = (cluster.client((0, 0)), ConnectionId(7_000_000));
    cluster.unsynced.insert(0);
    cluster.send_put(client, Put { write: 1, ..put(&key, b"v") });

    let heard = cluster.shards[&(clone, 0)].membership.as_ref().unwrap().gossip();
    let mut bytes = Vec::new();
    heard.encode(&mut Encoder::default(), Kind::GOSSIPED, 1, &mut bytes);
    let frame = Frame::split(&bytes, bytes.len()).unwrap().unwrap();
    let shard = cluster.shards.get_mut(&(0, 0)).unwrap();
    let from = shard.view().members.iter().find(|member| member.node != shard.view().me).unwrap().node;
    shard.on_gossip(connection, from, &frame, &heard, &mut Output::default());
    assert!(shard.view().is_fenced() && !cluster.shards[&(0, 1)].view().is_fenced());

    let sequence = cluster.pending[&(0, 1)];
    cluster.handle((0, 1), Input::Appended { sequence });
    assert_eq!(cluster.answer(client).code(), Some(ErrorCode::MaybeApplied));
}

/// The simulator's seed 34 of base 0: a process lost the last record that its disk was given, so it began anew at the
/// incarnation that it had had before, and served by the word of a node that was behind. Others knew another life at that
/// incarnation and refused what it sent: what it had acknowledged was on it alone.
#[test]
fn a_process_at_the_incarnation_of_another_counts_until_gossip_tells_the_two_apart() {
    let mut cluster = Cluster::with_options(3, 1, durable);
    let view = cluster.shards[&(1, 0)].view().clone();
    let node = cluster.shards[&(0, 0)].view().me;
    let known = view.member(node).unwrap().oneself.clone();
    cluster.kill(0);
    cluster.run(Duration::from_secs(1));
    let incarnation = known.incarnation.0;
    for (connection, incarnation, counts) in [
        (8_000_001, incarnation, true),
        (8_000_002, incarnation + 1, true),
        (8_000_003, incarnation - 1, false),
    ] {
        let peer = PeerHello {
            node: node.0,
            incarnation,
            life: known.life + 1000,
            shards: 1,
            target_node: view.me.0,
            ..PeerHello::default()
        };
        let hello = Hello {
            protocol_min: 1,
            protocol_max: 1,
            role: Role::Peer,
            cluster: view.cluster.0,
            secret: b"",
            software: "",
            peer,
        };
        let mut out = Output::default();
        let opened = Input::Opened { connection: ConnectionId(connection), dial: None };
        cluster.shards.get_mut(&(1, 0)).unwrap().handle(cluster.now, opened, &mut out);
        let mut bytes = Vec::new();
        hello.encode(&mut Encoder::default(), 0, &mut bytes);
        feed(&mut cluster, (1, 0), connection, &bytes);

        let state = ReplicateWriter {
            key: b"k",
            state: Default::default(),
            ring: view.ring.hash(),
            partition_epoch: 0,
            repair: false,
            replaced: &[],
            hint_for: 0,
            exchange: false,
        };
        bytes.clear();
        state.encode(&mut Encoder::default(), 5, &mut bytes);
        let out = feed(&mut cluster, (1, 0), connection, &bytes);
        let answers =
            out.deliveries.iter().filter(|delivery| delivery.answers && delivery.to.0 == connection);
        let kinds: Vec<Kind> = answers
            .map(|delivery| match &delivery.piece {
                Piece::Copied(range) => Header::read(&out.bytes[range.clone()]).unwrap().unwrap().kind,
                Piece::Shared(bytes) => Header::read(bytes).unwrap().unwrap().kind,
            })
            .collect();
        let expected = if counts { Kind::REPLICATED } else { Kind::ERROR };
        assert_eq!(kinds, [expected], "at incarnation {incarnation}");
    }
}
