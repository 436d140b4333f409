//! Versions that live side by side: what an older release said means the same for ever, and what a newer one says
//! besides is skipped. Defends the rules of `docs/protocol.md`, "Versions".

#![allow(clippy::unwrap_used, reason = "a test that can't go on must stop")]

use flatbuffers::{FlatBufferBuilder, VOffsetT, WIPOffset};
use ringmain_schema::Encoder;
use ringmain_schema::exchange::{KeysRequest, Nodes, PullRequest, TreeRequest};
use ringmain_schema::frame::{Flags, Frame, Header, Kind, checksum};
use ringmain_schema::message::{Get, Hello, PeerHello, Ping, Put, Role, TopologyRequest};
use ringmain_schema::peer::{
    Forward, Gossip, MemberRecord, Operation, ReadState, Replicate, ReplicateWriter, Seen, StateWriter,
    Version,
};

/// Frames of the first release: their names, and their bytes in hexadecimal. Never to be changed.
const FRAMES: &str = include_str!("fixtures/version1.txt");

/// The same frames as this release makes them. A field that came later is left at what older releases mean by its absence.
fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let encoder = &mut Encoder::default();
    let mut frames: Vec<(&'static str, Vec<u8>)> = Vec::new();
    let mut add = |name, encode: &mut dyn FnMut(&mut Encoder, &mut Vec<u8>)| {
        let mut bytes = Vec::new();
        encode(encoder, &mut bytes);
        frames.push((name, bytes));
    };
    let put = Put { key: b"cart:42", value: Some(b"milk"), write: 1, overwrite: true, ..Put::default() };
    let named = Put { operation_client: 5, operation_sequence: 6, ttl_ms: 60_000, ..put };
    add("hello", &mut |encoder, out| hello().encode(encoder, 1, out));
    add("put", &mut |encoder, out| named.encode(encoder, 2, Flags::NONE, out));
    add("get", &mut |encoder, out| get().encode(encoder, 3, Flags::NONE, out));
    let delete = Put { value: None, ..put };
    add("delete", &mut |encoder, out| delete.encode(encoder, 4, Flags::NONE, out));
    let topology = TopologyRequest { subscribe: true };
    add("topology", &mut |encoder, out| topology.encode(encoder, 5, out));
    add("ping", &mut |encoder, out| Ping.encode(encoder, Kind::PING, 6, out));
    add("replicate", &mut |encoder, out| replicate().encode(encoder, 7, out));
    let read_state = ReadState { key: b"cart:42", ring: 3, partition_epoch: 0 };
    add("read_state", &mut |encoder, out| read_state.encode(encoder, 8, out));
    add("gossip", &mut |encoder, out| gossip().encode(encoder, Kind::GOSSIP, 0, out));
    let mut inner = Vec::new();
    get().encode(&mut Encoder::default(), 3, Flags::NONE, &mut inner);
    add("forward", &mut |encoder, out| Forward::encode(encoder, 9, 1, 50_000, &inner, out));
    let tree = TreeRequest { ring: 3, nodes: Nodes::Roots(vec![1, 2, 3]), epochs: vec![], round: false };
    add("tree_request", &mut |encoder, out| tree.encode(encoder, 10, out));
    let keys = KeysRequest { ring: 3, partition: 2, branch: 1, leaves: 6, from: 0, partition_epoch: 0 };
    add("keys_request", &mut |encoder, out| keys.encode(encoder, 11, out));
    let pull = PullRequest { ring: 3, partition: 2, tokens: vec![7, 8], partition_epoch: 0 };
    add("pull_request", &mut |encoder, out| pull.encode(encoder, 12, out));
    frames
}

fn hello() -> Hello<'static> {
    Hello {
        protocol_min: 1,
        protocol_max: 1,
        role: Role::Client,
        cluster: 0,
        secret: b"",
        software: "ringmain 0.1.0",
        peer: PeerHello::default(),
    }
}

fn get() -> Get<'static> {
    Get { key: b"cart:42", read: 1, budget_us: 50_000, ..Get::default() }
}

fn replicate() -> ReplicateWriter<'static> {
    let version = Version::new(1, 2, 3, 4, 1_000_000, 0, 1, 4, false, false);
    let state =
        StateWriter { clock: vec![Seen::new(1, 2, 1)], versions: vec![version], values: vec![b"milk"] };
    ReplicateWriter {
        key: b"cart:42",
        state,
        ring: 3,
        partition_epoch: 0,
        repair: false,
        replaced: &[],
        hint_for: 0,
        exchange: false,
    }
}

/// Of a release that knew neither changes of the ring nor Q and N in gossip.
fn gossip() -> Gossip {
    let record = MemberRecord {
        node: 77,
        name: "n77".to_owned(),
        host: "10.0.0.7".to_owned(),
        ordinary_port: 7400,
        shard_ports: vec![7411, 7412],
        incarnation: 1,
        heartbeat: 2,
        weight: 100,
        data_center: "east".to_owned(),
        rack: "r7".to_owned(),
        intent: 1,
        intent_version: 3,
        complete: true,
        serving: true,
        place: 0,
        settled: None,
        ring: 0,
        change: 0,
        step: 0,
        lacking: vec![],
        life: 0,
        succeeds: 0,
        earlier: None,
        bound: None,
        line: vec![],
        beginning: 0,
    };
    Gossip { ring: 3, members: vec![record], partitions: 0, replicas: 0 }
}

/// What a frame means, as text.
fn meaning(bytes: &[u8]) -> String {
    let frame = Frame::split(bytes, 1 << 20).unwrap().unwrap();
    let body = match frame.header.kind {
        Kind::HELLO => format!("{:?}", Hello::parse(&frame).unwrap()),
        Kind::GET => format!("{:?}", Get::parse(&frame).unwrap()),
        Kind::PUT | Kind::DELETE => format!("{:?}", Put::parse(&frame).unwrap()),
        Kind::TOPOLOGY => format!("{:?}", TopologyRequest::parse(&frame).unwrap()),
        Kind::PING => format!("{:?}", Ping::parse(&frame).unwrap()),
        Kind::REPLICATE => {
            let replicate = Replicate::parse(&frame).unwrap();
            let (clock, versions): (Vec<_>, Vec<_>) =
                (replicate.state.clock().collect(), replicate.state.versions().collect());
            let replaced: Vec<&Operation> = replicate.replaced().collect();
            let Replicate { key, ring, partition_epoch, repair, hint_for, exchange, .. } = replicate;
            format!(
                "{key:?} {clock:?} {versions:?} {ring} {partition_epoch} {repair} {hint_for} {exchange} {replaced:?}"
            )
        }
        Kind::READ_STATE => format!("{:?}", ReadState::parse(&frame).unwrap()),
        Kind::GOSSIP => format!("{:?}", Gossip::parse(&frame).unwrap()),
        Kind::FORWARD => {
            let forward = Forward::parse(&frame).unwrap();
            format!("{} {} {:?}", forward.hops, forward.budget_us, Get::parse(&forward.frame).unwrap())
        }
        Kind::TREE_REQUEST => format!("{:?}", TreeRequest::parse(&frame).unwrap()),
        Kind::KEYS_REQUEST => format!("{:?}", KeysRequest::parse(&frame).unwrap()),
        Kind::PULL_REQUEST => format!("{:?}", PullRequest::parse(&frame).unwrap()),
        kind => panic!("{kind:?}"),
    };
    format!("{:?} {:?} {} {body}", frame.header.kind, frame.header.flags, frame.header.request_id)
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn what_the_first_release_said_means_the_same() {
    let kept: Vec<(&str, Vec<u8>)> = FRAMES
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once(' ').unwrap())
        .map(|(name, hex)| (name, unhex(hex)))
        .collect();
    let frames = frames();
    let lines = frames.iter().map(|(name, bytes)| {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{name} {hex}\n")
    });
    assert_eq!(kept.len(), frames.len(), "this release makes them so:\n{}", lines.collect::<String>());
    for ((name, bytes), (now, made)) in kept.iter().zip(&frames) {
        assert_eq!(name, now);
        assert_eq!(meaning(bytes), meaning(made), "{name}");
    }
}

/// A field that no release has so far: far behind all that there are.
const UNKNOWN: [VOffsetT; 2] = [4 + 2 * 60, 4 + 2 * 61];

/// A frame whose one table `fill` writes, and to which a newer release adds a number and a string.
fn newer(kind: Kind, flags: Flags, values: &[u8], fill: impl FnOnce(&mut FlatBufferBuilder<'_>)) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::new();
    fill(&mut builder);
    frame_of(kind, flags, builder.finished_data(), values)
}

fn frame_of(kind: Kind, flags: Flags, meta: &[u8], values: &[u8]) -> Vec<u8> {
    let body = [meta, values].concat();
    let checksum = if flags.contains(Flags::CHECKSUM) { checksum(&body) } else { 0 };
    let (length, meta_length) = (body.len() as u32, meta.len() as u32);
    let header = Header { length, meta_length, kind, flags, checksum, request_id: 3 };
    [&header.to_bytes()[..], &body].concat()
}

/// The field at this place in its table.
const fn slot(place: VOffsetT) -> VOffsetT {
    4 + 2 * place
}

#[test]
fn fields_of_a_later_release_are_skipped() {
    let bytes = newer(Kind::PUT, Flags::NONE, b"milk", |builder| {
        let (key, more) = (builder.create_vector(b"cart:42"), builder.create_string("later"));
        let table = builder.start_table();
        builder.push_slot_always(slot(0), key);
        builder.push_slot_always(slot(1), 2u8);
        builder.push_slot_always(slot(4), true);
        builder.push_slot_always(UNKNOWN[0], 7u64);
        builder.push_slot_always(UNKNOWN[1], more);
        let table = builder.end_table(table);
        builder.finish(table, None);
    });
    let frame = Frame::split(&bytes, bytes.len()).unwrap().unwrap();
    let expected = Put { key: b"cart:42", value: Some(b"milk"), write: 2, overwrite: true, ..Put::default() };
    assert_eq!(Put::parse(&frame).unwrap(), expected);
}

#[test]
fn a_member_of_a_later_release_is_known_by_what_is_known() {
    let bytes = newer(Kind::GOSSIP, Flags::CHECKSUM, b"", |builder| {
        let (name, more) = (builder.create_string("n77"), builder.create_string("later"));
        let table = builder.start_table();
        builder.push_slot_always(slot(0), 77u64);
        builder.push_slot_always(slot(1), name);
        builder.push_slot_always(slot(7), 100u32);
        builder.push_slot_always(UNKNOWN[0], 9u64);
        builder.push_slot_always(UNKNOWN[1], more);
        let record = WIPOffset::<flatbuffers::Table<'_>>::new(builder.end_table(table).value());
        let members = builder.create_vector(&[record]);
        let table = builder.start_table();
        builder.push_slot_always(slot(0), 3u64);
        builder.push_slot_always(slot(1), members);
        builder.push_slot_always(UNKNOWN[0], 9u64);
        let table = builder.end_table(table);
        builder.finish(table, None);
    });
    let gossip = Gossip::parse(&Frame::split(&bytes, bytes.len()).unwrap().unwrap()).unwrap();
    let member = &gossip.members[0];
    assert_eq!((gossip.ring, member.node, &*member.name, member.weight), (3, 77, "n77", 100));
}
