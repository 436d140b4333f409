//! Nodes and clients of several releases, side by side (`docs/protocol.md`, "Versions").

use ringmain_schema::limits::{PROTOCOL_MAX, PROTOCOL_MIN};
use ringmain_schema::message::{ErrorAnswer, ErrorCode, Hello, PeerHello, Ping, Role, Welcome};
use ringmain_schema::{Encoder, Flags, Frame, Kind};

use super::cluster::Cluster;
use super::stories::{feed, peer};
use crate::id::ConnectionId;
use crate::shard::io::{Input, Machine, Output};

const AT: (usize, u16) = (0, 0);

/// Frames of the first release.
const FRAMES: &str = include_str!("../../../schema/tests/fixtures/version1.txt");

fn kept(name: &str) -> Vec<u8> {
    let line = FRAMES.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
    let pairs = line.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// What a call with this hello is answered, and whether it is then hung up on.
fn greet(cluster: &mut Cluster, connection: u64, role: Role, versions: [u16; 2]) -> (Vec<u8>, bool) {
    let connection = ConnectionId(connection);
    let now = cluster.now;
    let id = cluster.shards[&AT].view.cluster.0;
    let opened = Input::Opened { connection, dial: None };
    cluster.shards.get_mut(&AT).unwrap().handle(now, opened, &mut Output::default());
    let hello = Hello {
        protocol_min: versions[0],
        protocol_max: versions[1],
        role,
        cluster: id,
        secret: b"",
        software: "another release",
        peer: PeerHello { node: 77, shards: 1, ..PeerHello::default() },
    };
    let mut bytes = Vec::new();
    hello.encode(&mut Encoder::default(), 1, &mut bytes);
    let out = feed(cluster, AT, connection.0, &bytes);
    let first = Frame::split(&out.bytes, out.bytes.len()).unwrap().unwrap().length();
    (out.bytes[..first].to_vec(), out.closes.contains(&connection))
}

#[test]
fn one_common_version_is_enough_and_none_is_said() {
    let mut cluster = Cluster::new(1, 1);
    let mut connection = 9000;
    for role in [Role::Client, Role::Peer] {
        for (versions, common) in [
            ([PROTOCOL_MIN, PROTOCOL_MAX], Some(PROTOCOL_MAX)),
            ([0, PROTOCOL_MIN], Some(PROTOCOL_MIN)),
            ([PROTOCOL_MAX, u16::MAX], Some(PROTOCOL_MAX)),
            ([0, u16::MAX], Some(PROTOCOL_MAX)),
            ([PROTOCOL_MAX + 1, u16::MAX], None),
            ([0, PROTOCOL_MIN - 1], None),
        ] {
            connection += 1;
            let (answer, closed) = greet(&mut cluster, connection, role, versions);
            let frame = Frame::split(&answer, answer.len()).unwrap().unwrap();
            if let Some(version) = common {
                assert_eq!(Welcome::parse(&frame).unwrap().protocol, version, "{role:?} {versions:?}");
            } else {
                let error = ErrorAnswer::parse(&frame).unwrap();
                assert_eq!(error.code, ErrorCode::VersionMismatch, "{role:?} {versions:?}");
            }
            assert_eq!(closed, common.is_none(), "{role:?} {versions:?}");
        }
    }
}

/// A newer node or client may ask for what this release doesn't know: it is told so, and goes on.
#[test]
fn unknown_kinds_are_unsupported_and_the_connection_stays() {
    let mut cluster = Cluster::new(1, 1);
    peer(&mut cluster, AT, 9999, 77);
    greet(&mut cluster, 9998, Role::Client, [1, 1]);
    for connection in [9999, 9998] {
        for kind in [11, 43, 100, 127] {
            let mut ping = Vec::new();
            Ping.encode(&mut Encoder::default(), Kind::PING, 5, &mut ping);
            let mut unknown = ping.clone();
            unknown[8] = kind;
            let out = feed(&mut cluster, AT, connection, &unknown);
            let frame = Frame::split(&out.bytes, out.bytes.len()).unwrap().unwrap();
            let error = ErrorAnswer::parse(&frame).unwrap();
            assert_eq!((error.code, frame.header.request_id), (ErrorCode::Unsupported, 5), "kind {kind}");
            assert!(out.closes.is_empty(), "kind {kind}");
            let out = feed(&mut cluster, AT, connection, &ping);
            let pong = Frame::split(&out.bytes, out.bytes.len()).unwrap().unwrap();
            assert_eq!(pong.header.kind, Kind::PONG, "after kind {kind}");
        }
    }
    // What isn't a question needs no answer.
    let mut answer = Vec::new();
    Ping.encode(&mut Encoder::default(), Kind::PONG, 5, &mut answer);
    answer[8] = 200;
    let out = feed(&mut cluster, AT, 9999, &answer);
    assert!(out.closes.is_empty() && out.deliveries.is_empty());
}

/// A node of this release among those of the first, and in front of their clients.
#[test]
fn what_the_first_release_says_is_answered() {
    let mut cluster = Cluster::new(1, 1);
    let client = cluster.client(AT);
    for (name, kind) in [
        ("get", Kind::ERROR),
        ("put", Kind::STORED),
        ("get", Kind::GOT),
        ("delete", Kind::STORED),
        ("topology", Kind::TOPOLOGY_IS),
        ("ping", Kind::PONG),
    ] {
        cluster.send(client, &kept(name));
        let answer = cluster.receive(client).unwrap();
        assert_eq!(Frame::split(&answer, answer.len()).unwrap().unwrap().header.kind, kind, "{name}");
    }
    peer(&mut cluster, AT, 9999, 77);
    for (name, kind) in [
        ("replicate", Kind::REPLICATED),
        ("read_state", Kind::STATE),
        ("forward", Kind::GOT),
        ("gossip", Kind::GOSSIPED),
        // Of another ring.
        ("tree_request", Kind::ERROR),
        ("keys_request", Kind::ERROR),
        ("pull_request", Kind::ERROR),
    ] {
        let out = feed(&mut cluster, AT, 9999, &kept(name));
        let mut answer = Vec::new();
        for delivery in out.deliveries.iter().filter(|delivery| delivery.to == ConnectionId(9999)) {
            match &delivery.piece {
                crate::shard::io::Piece::Copied(range) => answer.extend_from_slice(&out.bytes[range.clone()]),
                crate::shard::io::Piece::Shared(bytes) => answer.extend_from_slice(bytes),
            }
        }
        let frame = Frame::split(&answer, answer.len()).unwrap().expect(name);
        assert_eq!(frame.header.kind, kind, "{name}");
        assert!(out.closes.is_empty() && !frame.header.flags.contains(Flags::FORWARDED), "{name}");
    }
}
