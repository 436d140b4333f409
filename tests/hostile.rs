//! Bad input over real sockets, beside a client that must not notice. Defends P12: any bytes yield the error that
//! `docs/protocol.md` says, close at most the connection that they came over, and take no more memory than a frame.

#![allow(clippy::unwrap_used, reason = "a test that can't go on must stop")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "real processes live in real time")]

mod cluster;

use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use cluster::{Answer, Cluster, Neighbour, Wire, delete, encoded, get, hello, multi, put};
use ringmain_schema::frame::HEADER_BYTES;
use ringmain_schema::limits::{
    HANDSHAKE_BYTES_MAX, KEY_BYTES_MAX, META_BYTES_MAX, MULTI_ITEMS_MAX, request_bytes_max,
};
use ringmain_schema::message::{Change, ErrorCode, Get, Hello, PeerHello, Put, Role, What};
use ringmain_schema::{Flags, Header, Kind};

const MIB: usize = 1 << 20;
/// Of a server that is told nothing.
const VALUE_BYTES_MAX: usize = 8 * MIB;

/// One node that is attacked, and somebody else whom it serves meanwhile.
struct Victim {
    cluster: Cluster,
    neighbour: Neighbour,
    resident_before: usize,
}

impl Victim {
    fn start(more: &[&str]) -> Self {
        let mut cluster = Cluster::start(1, 1, more);
        let neighbour = Neighbour::of(&cluster);
        neighbour.wait_for_rounds(100);
        let resident_before = cluster.process(0).resident_bytes();
        Self { cluster, neighbour, resident_before }
    }

    fn call(&self) -> Wire {
        Wire::call(self.cluster.address(0))
    }

    fn greeted(&self) -> Wire {
        self.cluster.greeted(0)
    }

    /// The server uses no more than this many bytes above what it used before.
    #[track_caller]
    fn expect_growth_below(&mut self, bytes: usize) {
        let growth = self.cluster.process(0).resident_bytes().saturating_sub(self.resident_before);
        assert!(growth < bytes, "the server has grown by {growth} bytes");
    }

    #[track_caller]
    fn survives(mut self) {
        self.neighbour.was_not_disturbed();
        assert!(self.cluster.process(0).is_running());
        assert!(!self.cluster.process(0).said().contains("panicked"), "{}", self.cluster.process(0).said());
    }
}

/// The connection gets this error, and is closed.
#[track_caller]
fn expect_hung_up(wire: &mut Wire, code: ErrorCode) -> Answer {
    let answer = wire.receive().expect("an error before the end");
    assert_eq!(answer.code(), Some(code), "{:?}", answer.error());
    assert!(!answer.error().unwrap().message.is_empty(), "it says what to do");
    wire.expect_closed();
    answer
}

/// The request gets this error, and its connection goes on.
#[track_caller]
fn expect_refused(wire: &mut Wire, bytes: &[u8], code: ErrorCode) -> Answer {
    let answer = wire.ask(bytes);
    assert_eq!(answer.code(), Some(code), "{:?}", answer.error());
    assert_eq!(answer.id(), u64::from_le_bytes(bytes[16..24].try_into().unwrap()), "it says which request");
    wire.ping();
    answer
}

fn header(length: u32, meta_length: u32, kind: Kind) -> [u8; HEADER_BYTES] {
    Header { length, meta_length, kind, flags: Flags::NONE, checksum: 0, request_id: 9 }.to_bytes()
}

/// The same bytes for each run, as random as it takes.
fn noise(seed: u64) -> impl Iterator<Item = u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::from_fn(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Some((state >> 32) as u8)
    })
}

/// Bytes that are no frames: `BadRequest` or, if their length is absurd too, `TooLarge`, under request id 0.
#[test]
fn random_bytes() {
    let mut victim = Victim::start(&[]);
    for seed in 0..400 {
        let mut wire = if seed % 2 == 0 { victim.call() } else { victim.greeted() };
        let bytes: Vec<u8> = noise(seed).take(HEADER_BYTES + seed as usize * 17).collect();
        wire.send(&bytes);
        let answer = wire.receive().expect("an error before the end");
        assert!(matches!(answer.code(), Some(ErrorCode::BadRequest | ErrorCode::TooLarge)), "seed {seed}");
        assert_eq!(answer.id(), 0);
        wire.expect_closed();
    }
    victim.expect_growth_below(8 * MIB);
    victim.survives();
}

/// A frame cut off anywhere is never answered, and costs its connection only.
#[test]
fn truncated_frames() {
    let victim = Victim::start(&[]);
    for frame in [get(7, b"cart:42"), put(8, b"cart:42", b"milk"), multi(Kind::MULTI_GET, 9, &[get(0, b"a")])]
    {
        for length in 0..frame.len() {
            let mut wire = victim.greeted();
            wire.send(&frame[..length]);
            wire.stream().shutdown(Shutdown::Write).unwrap();
            wire.expect_closed();
        }
    }
    let hello = encoded(|encoder, out| hello().encode(encoder, 0, out));
    for length in 0..hello.len() {
        let mut wire = victim.call();
        wire.send(&hello[..length]);
        wire.stream().shutdown(Shutdown::Write).unwrap();
        wire.expect_closed();
    }
    assert_eq!(victim.greeted().ask(&get(1, b"cart:42")).code(), Some(ErrorCode::NotFound));
    victim.survives();
}

/// Before the handshake a frame has at most 4 KiB.
#[test]
fn lengths_before_the_handshake() {
    let victim = Victim::start(&[]);
    for (length, code) in [
        (0, ErrorCode::BadRequest),
        (HANDSHAKE_BYTES_MAX as u32, ErrorCode::BadRequest),
        (HANDSHAKE_BYTES_MAX as u32 + 1, ErrorCode::TooLarge),
        (u32::MAX, ErrorCode::TooLarge),
    ] {
        let mut wire = victim.call();
        wire.send(&header(length, length.min(16), Kind::HELLO));
        if code == ErrorCode::BadRequest {
            wire.send(&vec![0xff; length as usize]);
        }
        let answer = expect_hung_up(&mut wire, code);
        let limit = if code == ErrorCode::TooLarge { HANDSHAKE_BYTES_MAX as u64 } else { 0 };
        assert_eq!(answer.error().unwrap().limit, limit);
    }
    victim.survives();
}

/// After the handshake a frame has at most what the welcome says. A claim alone allocates nothing, and one that is
/// too large is refused before its bytes are waited for.
#[test]
fn lengths_after_the_handshake() {
    let mut victim = Victim::start(&[]);
    let max = request_bytes_max(VALUE_BYTES_MAX as u32) as u32;
    assert_eq!(victim.greeted().welcome().frame_bytes_max, max);
    for length in [max + 1, u32::MAX] {
        let mut wire = victim.greeted();
        wire.send(&header(length, 16, Kind::PUT));
        let answer = expect_hung_up(&mut wire, ErrorCode::TooLarge);
        assert_eq!((answer.id(), answer.error().unwrap().limit), (0, u64::from(max)));
    }
    expect_refused(&mut victim.greeted(), &header(0, 0, Kind::GET), ErrorCode::BadRequest);

    let mut claims: Vec<Wire> = (0..300).map(|_| victim.greeted()).collect();
    for wire in &mut claims {
        wire.send(&header(max, 16, Kind::PUT));
        wire.send(&[1; 1000]);
    }
    victim.neighbour.wait_for_rounds(50);
    victim.expect_growth_below(16 * MIB);

    // A whole frame of the greatest length works; one byte more does not.
    let value = vec![7; VALUE_BYTES_MAX];
    let batch = |third: usize| {
        let items = [put(0, b"a", &value), put(1, b"b", &value), put(2, b"c", &value[..third])];
        multi(Kind::MULTI_PUT, 3, &items)
    };
    let third = max as usize + HEADER_BYTES - batch(0).len();
    let answer = victim.greeted().ask(&batch(third));
    assert_eq!((answer.kind(), answer.id()), (Kind::MULTI_DONE, 3));
    assert!(answer.items().iter().all(|item| item.kind() == Kind::STORED));
    let mut wire = victim.greeted();
    wire.send(&batch(third + 1));
    expect_hung_up(&mut wire, ErrorCode::TooLarge);
    victim.survives();
}

/// Metadata that would not fit in its frame, or is over its own limit; bits without a meaning; a checksum that
/// doesn't match. After these a stream can't be trusted to be in step.
#[test]
fn headers_that_lie() {
    let victim = Victim::start(&[]);
    let mut checked = get(7, b"k");
    checked[9] = Flags::CHECKSUM.0;
    let mut reserved = get(7, b"k");
    reserved[10] = 1;
    let mut unknown_flag = get(7, b"k");
    unknown_flag[9] = 16;
    for bytes in [
        header(100, 101, Kind::GET).to_vec(),
        header(100, u32::MAX, Kind::GET).to_vec(),
        header(2 * MIB as u32, META_BYTES_MAX as u32 + 1, Kind::GET).to_vec(),
        checked,
        reserved,
        unknown_flag,
    ] {
        let mut wire = victim.greeted();
        wire.send(&bytes);
        assert_eq!(expect_hung_up(&mut wire, ErrorCode::BadRequest).id(), 0);
    }
    victim.survives();
}

/// Wrong version, cluster, secret, role or node: each is told so, and hung up on.
#[test]
fn handshakes_that_are_refused() {
    let victim = Victim::start(&[]);
    let wire = victim.greeted();
    let (cluster, node) = (wire.welcome().cluster, wire.welcome().node);
    let peer = PeerHello { node: 77, shards: 1, target_node: node, ordinary_port: 1, ..PeerHello::default() };
    let from_peer = Hello { role: Role::Peer, cluster, peer, ..hello() };
    let me = PeerHello { node, ..peer };
    let other_target = PeerHello { target_node: node ^ 1, ..peer };
    let nobody = PeerHello { node: 0, ..peer };
    let no_such_shard = PeerHello { shard: 1, ..peer };
    for (hello, code) in [
        (Hello { protocol_min: 2, protocol_max: 9, ..hello() }, ErrorCode::VersionMismatch),
        (Hello { protocol_min: 0, protocol_max: 0, ..hello() }, ErrorCode::VersionMismatch),
        (Hello { protocol_min: 2, protocol_max: 1, ..hello() }, ErrorCode::VersionMismatch),
        (Hello { cluster: cluster ^ 1, ..hello() }, ErrorCode::WrongCluster),
        (Hello { secret: b"hush", ..hello() }, ErrorCode::Unauthorized),
        (Hello { role: Role(0), cluster, ..hello() }, ErrorCode::BadRequest),
        (Hello { role: Role(3), cluster, ..hello() }, ErrorCode::BadRequest),
        (Hello { cluster: 0, ..from_peer }, ErrorCode::WrongCluster),
        (Hello { cluster: cluster ^ 1, ..from_peer }, ErrorCode::WrongCluster),
        (Hello { peer: me, ..from_peer }, ErrorCode::WrongNode),
        (Hello { peer: other_target, ..from_peer }, ErrorCode::WrongNode),
        (Hello { peer: nobody, ..from_peer }, ErrorCode::BadRequest),
        (Hello { peer: no_such_shard, ..from_peer }, ErrorCode::BadRequest),
    ] {
        let mut wire = victim.call();
        wire.send(&encoded(|encoder, out| hello.encode(encoder, 5, out)));
        assert_eq!(expect_hung_up(&mut wire, code).id(), 5, "{hello:?}");
    }
    for first in [get(5, b"k"), header(0, 0, Kind(200)).to_vec(), multi(Kind::MULTI_GET, 5, &[])] {
        let mut wire = victim.call();
        wire.send(&first);
        expect_hung_up(&mut wire, ErrorCode::BadRequest);
    }
    let newer = Hello { protocol_max: 9, cluster, ..hello() };
    let welcome = victim.call().ask(&encoded(|encoder, out| newer.encode(encoder, 0, out)));
    assert_eq!(welcome.kind(), Kind::WELCOME, "a newer client that speaks this version too");
    victim.survives();
}

/// Without the cluster's secret nobody is let in, as a client or under the name of a node (P13).
#[test]
fn strangers_without_the_secret() {
    let mut secret_file = tempfile::NamedTempFile::new().unwrap();
    secret_file.write_all(b"hush").unwrap();
    let cluster = Cluster::start(3, 1, &[&format!("--secret-file={}", secret_file.path().display())]);
    let neighbour = Neighbour::of(&cluster);
    let topology = cluster.greeted(0).topology();
    let node = |name: &str| topology.members.iter().find(|member| member.name == name).unwrap().node;
    let peer = PeerHello { node: node("n1"), shards: 1, target_node: node("n0"), ..PeerHello::default() };
    for role in [Role::Client, Role::Peer] {
        for secret in [&b""[..], b"hus", b"hush!", b"hash", &[0; 3000]] {
            let mut wire = Wire::call(cluster.address(0));
            let hello = Hello { role, secret, cluster: topology.cluster, peer, ..hello() };
            wire.send(&encoded(|encoder, out| hello.encode(encoder, 5, out)));
            expect_hung_up(&mut wire, ErrorCode::Unauthorized);
        }
    }
    cluster.wait_for_state(0, 1, "up");
    neighbour.was_not_disturbed();
}

/// In a cluster without a secret somebody may pretend to be a node, and displaces the real one's connection. As
/// soon as he talks nonsense he is hung up on, and the real one is back; no client notices.
#[test]
fn an_impostor_in_an_open_cluster() {
    let cluster = Cluster::start(3, 1, &[]);
    let neighbour = Neighbour::of(&cluster);
    let topology = cluster.greeted(0).topology();
    let node = |name: &str| topology.members.iter().find(|member| member.name == name).unwrap().node;
    let peer = PeerHello { node: node("n1"), shards: 1, target_node: node("n0"), ..PeerHello::default() };
    for kind in [Kind::REPLICATE, Kind::READ_STATE, Kind::GOSSIP, Kind::FORWARD, Kind::STATE] {
        let mut wire = Wire::call(cluster.address(0));
        let hello = Hello { role: Role::Peer, cluster: topology.cluster, peer, ..hello() };
        let welcome = wire.ask(&encoded(|encoder, out| hello.encode(encoder, 5, out)));
        assert_eq!(welcome.kind(), Kind::WELCOME);
        wire.send(&header(8, 8, kind));
        wire.send(&[0xff; 8]);
        let start = Instant::now();
        // What the node meant for its peer arrives first, and the end last.
        while wire.receive().is_some() {}
        cluster.wait_for_state(0, 1, "up");
        cluster.wait_for_state(1, 0, "up");
        assert!(
            start.elapsed() < Duration::from_secs(4),
            "a connection that was displaced is let go at once"
        );
    }
    neighbour.was_not_disturbed();
}

#[test]
fn a_second_hello() {
    let victim = Victim::start(&[]);
    let mut wire = victim.greeted();
    wire.send(&encoded(|encoder, out| hello().encode(encoder, 6, out)));
    assert_eq!(expect_hung_up(&mut wire, ErrorCode::BadRequest).id(), 6);
    victim.survives();
}

/// Kinds that nobody knows, that only nodes send, or that are answers: `Unsupported`, and the connection goes on.
#[test]
fn kinds_that_clients_do_not_send() {
    let victim = Victim::start(&[]);
    let mut wire = victim.greeted();
    let known = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
    for kind in (0..=255).filter(|kind| !known.contains(kind)) {
        expect_refused(&mut wire, &header(0, 0, Kind(kind)), ErrorCode::Unsupported);
        let mut with_body = header(12, 4, Kind(kind)).to_vec();
        with_body.extend([0xff; 12]);
        expect_refused(&mut wire, &with_body, ErrorCode::Unsupported);
    }
    victim.survives();
}

/// Every single-bit flip of every request's metadata, and every kind with every other's: an answer of some sort,
/// whole, under the right id; then the connection goes on.
#[test]
fn metadata_that_fails_verification() {
    let victim = Victim::start(&[]);
    let mut wire = victim.greeted();
    let context = wire.ask(&put(1, b"cart:42", b"milk")).context();
    let full =
        Put { key: b"cart:42", value: Some(b"milk"), context: &context, ttl_ms: 60_000, ..Put::default() };
    let at_least = Get { key: b"cart:42", at_least: &context, latest: true, ..Get::default() };
    let change =
        Change { what: What::Weight, name: "n0", new_name: "n1", weight: 200, plan_only: false, force: true };
    let requests = [
        encoded(|encoder, out| change.encode(encoder, 7, out)),
        encoded(|encoder, out| full.encode(encoder, 7, Flags::NONE, out)),
        encoded(|encoder, out| at_least.encode(encoder, 7, Flags::NONE, out)),
        delete(7, b"cart:42"),
        multi(Kind::MULTI_GET, 7, &[get(0, b"a"), get(1, b"b")]),
        multi(Kind::MULTI_PUT, 7, &[put(0, b"a", b"x"), delete(1, b"b")]),
    ];
    let mut sent = 0;
    for request in &requests {
        let meta_length = u32::from_le_bytes(request[4..8].try_into().unwrap()) as usize;
        for bit in HEADER_BYTES * 8..(HEADER_BYTES + meta_length) * 8 {
            let mut flipped = request.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let answer = wire.ask(&flipped);
            assert!(answer.kind().is_answer() && answer.id() == 7, "bit {bit}");
            sent += 1;
        }
        for kind in 2..=10 {
            let mut disguised = request.clone();
            disguised[8] = kind;
            assert_eq!(wire.ask(&disguised).id(), 7, "as kind {kind}");
        }
        let mut noisy = request.clone();
        for seed in 0..300 {
            noisy[HEADER_BYTES..].iter_mut().zip(noise(seed)).for_each(|(byte, noise)| *byte = noise);
            assert_eq!(wire.ask(&noisy).code(), Some(ErrorCode::BadRequest), "seed {seed}");
        }
    }
    assert!(sent > 1000);
    wire.ping();
    let mut no_values = get(7, b"k");
    no_values.extend(b"but some");
    let length = (no_values.len() - HEADER_BYTES) as u32;
    no_values[0..4].copy_from_slice(&length.to_le_bytes());
    expect_refused(&mut wire, &no_values, ErrorCode::BadRequest);
    victim.survives();
}

/// A context is good for one key of one cluster, as it was given.
#[test]
fn contexts_that_were_not_given() {
    let victim = Victim::start(&[]);
    let foreign = Cluster::start(1, 1, &["--cluster=another"]);
    let mut wire = victim.greeted();
    let own = wire.ask(&put(1, b"k", b"v")).context();
    let mut forged: Vec<Vec<u8>> = (0..own.len() * 8)
        .map(|bit| {
            let mut flipped = own.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            flipped
        })
        .collect();
    forged.extend(
        (1..=own.len()).map(|length| own[..own.len() - length].to_vec()).filter(|cut| !cut.is_empty()),
    );
    forged.extend([1, 16, 100, 22_545, 60_000].map(|length| noise(3).take(length).collect()));
    forged.push(wire.ask(&put(2, b"another key", b"v")).context());
    forged.push(foreign.greeted(0).ask(&put(3, b"k", b"v")).context());
    for context in &forged {
        let with = Put { key: b"k", value: Some(b"w"), context, ..Put::default() };
        let put = encoded(|encoder, out| with.encode(encoder, 4, Flags::NONE, out));
        expect_refused(&mut wire, &put, ErrorCode::BadContext);
        let without_value = Put { value: None, ..with };
        let delete = encoded(|encoder, out| without_value.encode(encoder, 5, Flags::NONE, out));
        expect_refused(&mut wire, &delete, ErrorCode::BadContext);
        let at_least = Get { key: b"k", at_least: context, ..Get::default() };
        let get = encoded(|encoder, out| at_least.encode(encoder, 6, Flags::NONE, out));
        expect_refused(&mut wire, &get, ErrorCode::BadContext);
    }
    assert_eq!(wire.ask(&get(7, b"k")).values(), [b"v"], "nothing was applied");
    victim.survives();
}

#[test]
fn keys_at_and_over_their_limits() {
    let victim = Victim::start(&[]);
    let mut wire = victim.greeted();
    let largest = vec![b'k'; KEY_BYTES_MAX];
    assert_eq!(wire.ask(&put(1, &largest, b"v")).kind(), Kind::STORED);
    assert_eq!(wire.ask(&get(2, &largest)).values(), [b"v"]);
    let too_large = vec![b'k'; KEY_BYTES_MAX + 1];
    for request in [put(3, &too_large, b"v"), get(4, &too_large), delete(5, &too_large)] {
        let answer = expect_refused(&mut wire, &request, ErrorCode::TooLarge);
        assert_eq!(answer.error().unwrap().limit, KEY_BYTES_MAX as u64);
    }
    for request in [put(6, b"", b"v"), get(7, b""), delete(8, b"")] {
        expect_refused(&mut wire, &request, ErrorCode::BadRequest);
    }
    victim.survives();
}

/// Of the default, and of a configured one: the limit itself works, a byte more is `TooLarge`.
#[test]
fn values_at_and_over_their_limits() {
    for (more, limit) in [(&[][..], VALUE_BYTES_MAX), (&["--value-bytes-max=10KiB"][..], 10 * 1024)] {
        let victim = Victim::start(more);
        let mut wire = victim.greeted();
        assert_eq!(wire.welcome().value_bytes_max as usize, limit);
        let value: Vec<u8> = noise(1).take(limit + 1).collect();
        assert_eq!(wire.ask(&put(1, b"k", &value[..limit])).kind(), Kind::STORED);
        let answer = expect_refused(&mut wire, &put(2, b"k", &value), ErrorCode::TooLarge);
        assert_eq!(answer.error().unwrap().limit, limit as u64);
        assert!(
            wire.ask(&get(3, b"k")).values() == [&value[..limit]],
            "the first one is there, byte for byte"
        );

        // Siblings together: two of the largest, and no more.
        let blind = Put { key: b"k", value: Some(&value[..limit]), ..Put::default() };
        let blind = encoded(|encoder, out| blind.encode(encoder, 4, Flags::NONE, out));
        assert_eq!(wire.ask(&blind).kind(), Kind::STORED);
        expect_refused(&mut wire, &blind, ErrorCode::TooLarge);
        assert_eq!(wire.ask(&get(5, b"k")).values().len(), 2);
        victim.survives();
    }
}

/// A key takes a hundred siblings; then blind puts are refused, and a merge is welcome.
#[test]
fn siblings_without_end() {
    let victim = Victim::start(&[]);
    let mut wire = victim.greeted();
    let blind = Put { key: b"k", value: Some(b"v"), ..Put::default() };
    let blind = encoded(|encoder, out| blind.encode(encoder, 1, Flags::NONE, out));
    for _ in 0..100 {
        assert_eq!(wire.ask(&blind).kind(), Kind::STORED);
    }
    let answer = expect_refused(&mut wire, &blind, ErrorCode::TooManySiblings);
    assert_eq!(answer.error().unwrap().limit, 100);
    let all = wire.ask(&get(2, b"k"));
    assert_eq!(all.values().len(), 100);
    let merge = Put { key: b"k", value: Some(b"merged"), context: &all.context(), ..Put::default() };
    let merge = encoded(|encoder, out| merge.encode(encoder, 3, Flags::NONE, out));
    assert_eq!(wire.ask(&merge).kind(), Kind::STORED);
    assert_eq!(wire.ask(&get(4, b"k")).values(), [b"merged"]);
    victim.survives();
}

/// A batch that isn't well-formed gets one error, and does nothing; an item that is wrong fails alone.
#[test]
fn batches_that_are_broken() {
    let victim = Victim::start(&[]);
    let mut wire = victim.greeted();
    let (sound, key) = (put(0, b"item", b"v"), b"item");
    let most = vec![sound.clone(); MULTI_ITEMS_MAX];
    let too_many = vec![sound.clone(); MULTI_ITEMS_MAX + 1];
    let cut_off = sound[..sound.len() - 1].to_vec();
    let mut reserved = sound.clone();
    reserved[10] = 1;
    let mut endless = sound.clone();
    endless[0..4].copy_from_slice(&u32::MAX.to_le_bytes());
    let nested = multi(Kind::MULTI_PUT, 0, std::slice::from_ref(&sound));
    let ping = header(0, 0, Kind::PING).to_vec();
    let forward = header(0, 0, Kind::FORWARD).to_vec();
    for items in [
        &too_many[..],
        &[sound.clone(), cut_off],
        &[sound.clone(), vec![1, 2, 3]],
        &[sound.clone(), reserved],
        &[sound.clone(), endless],
        &[sound.clone(), nested],
        &[sound.clone(), get(1, b"item")],
        &[sound.clone(), ping],
        &[sound.clone(), forward],
    ] {
        expect_refused(&mut wire, &multi(Kind::MULTI_PUT, 7, items), ErrorCode::BadRequest);
    }
    expect_refused(
        &mut wire,
        &multi(Kind::MULTI_GET, 7, std::slice::from_ref(&sound)),
        ErrorCode::BadRequest,
    );
    expect_refused(&mut wire, &miscounted(&sound), ErrorCode::BadRequest);
    assert_eq!(wire.ask(&get(8, key)).code(), Some(ErrorCode::NotFound), "none of them did anything");

    let done = wire.ask(&multi(Kind::MULTI_PUT, 9, &most));
    assert_eq!(done.items().len(), MULTI_ITEMS_MAX);
    assert!(done.items().iter().all(|item| item.kind() == Kind::STORED));
    assert!(wire.ask(&multi(Kind::MULTI_GET, 10, &[])).items().is_empty());
    let mixed =
        wire.ask(&multi(Kind::MULTI_GET, 11, &[get(0, b""), get(1, key), header(0, 0, Kind::GET).to_vec()]));
    let codes: Vec<_> = mixed.items().iter().map(|item| (item.id(), item.code())).collect();
    let wrong = Some(ErrorCode::BadRequest);
    assert_eq!(codes, [(0, wrong), (1, None), (9, wrong)], "an item fails by itself");
    victim.survives();
}

/// A batch that claims two items and has one.
fn miscounted(item: &[u8]) -> Vec<u8> {
    let writer = ringmain_schema::message::MultiWriter { items: item.to_vec(), count: 2 };
    encoded(|encoder, out| writer.encode(encoder, Kind::MULTI_PUT, Flags::NONE, 7, 0, out))
}

/// A thousand connections that never say who they are cost a few sockets.
#[test]
fn half_handshakes() {
    allow_open_files(4000);
    let mut victim = Victim::start(&[]);
    let hello = encoded(|encoder, out| hello().encode(encoder, 0, out));
    let mut idle = Vec::new();
    for number in 0..1000 {
        let mut wire = victim.call();
        wire.send(&hello[..number % hello.len()]);
        idle.push(wire);
    }
    victim.neighbour.wait_for_rounds(100);
    let connections = victim.cluster.counter(0, "connections");
    assert!(connections >= 1000, "they are all held: {connections}");
    victim.expect_growth_below(16 * MIB);
    // Each of them can still go on.
    for (number, wire) in idle.iter_mut().enumerate() {
        wire.send(&hello[number % hello.len()..]);
        assert_eq!(wire.receive().unwrap().kind(), Kind::WELCOME);
    }
    drop(idle);
    cluster::wait_until("they are gone", || victim.cluster.counter(0, "connections") < 100);
    victim.survives();
}

/// Let this process open so many files; the server sees to itself.
fn allow_open_files(count: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < count) {
        let current = Some(limit.maximum.map_or(count, |maximum| maximum.min(count)));
        setrlimit(Resource::Nofile, Rlimit { current, maximum: limit.maximum }).unwrap();
    }
}

/// Somebody who asks for a gigabyte and reads none of it is no longer read from: small values, which are copied,
/// and large ones, which are shared, pile up alike.
#[test]
fn readers_that_do_not_read() {
    for (value_bytes, requests) in [(10_000, 100_000), (1 << 20, 1000)] {
        let mut victim = Victim::start(&[]);
        assert_eq!(victim.greeted().ask(&put(1, b"k", &vec![7; value_bytes])).kind(), Kind::STORED);
        let mut wire = victim.greeted();
        wire.stream().set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let requests: Vec<u8> = (0..requests).flat_map(|id| get(id, b"k")).collect();
        // It may be that not even the requests fit: the server has stopped to read.
        let _ = wire.try_send(&requests);
        victim.neighbour.wait_for_rounds(200);
        victim.expect_growth_below(48 * MIB);
        // What it has answered is whole, when somebody reads at last.
        for _ in 0..100 {
            assert_eq!(wire.receive().unwrap().values()[0].len(), value_bytes);
        }
        victim.survives();
    }
}

/// One byte at a time is a connection like another.
#[test]
fn a_slow_writer() {
    let victim = Victim::start(&[]);
    let mut wire = victim.call();
    let hello = encoded(|encoder, out| hello().encode(encoder, 0, out));
    for byte in hello {
        wire.send(&[byte]);
    }
    assert_eq!(wire.receive().unwrap().kind(), Kind::WELCOME);
    for request in [put(1, b"slow", b"value"), get(2, b"slow"), multi(Kind::MULTI_GET, 3, &[get(0, b"slow")])]
    {
        for byte in &request {
            wire.send(std::slice::from_ref(byte));
        }
        assert_eq!(wire.receive().unwrap().error(), None);
    }
    victim.survives();
}

/// A batch that names one large value a thousand times asks for 8 GiB. It gets what fits in a frame, and `TooLarge` for
/// the rest.
#[test]
fn a_batch_whose_answer_would_be_endless() {
    let mut victim = Victim::start(&[]);
    let mut wire = victim.greeted();
    assert_eq!(wire.ask(&put(1, b"k", &vec![7; VALUE_BYTES_MAX])).kind(), Kind::STORED);
    let items: Vec<Vec<u8>> = (0..MULTI_ITEMS_MAX as u64).map(|id| get(id, b"k")).collect();
    for id in 0..3 {
        let done = wire.ask(&multi(Kind::MULTI_GET, id, &items));
        let items = done.items();
        assert_eq!(items.len(), MULTI_ITEMS_MAX);
        let (whole, refused): (Vec<_>, Vec<_>) = items.iter().partition(|item| item.kind() == Kind::GOT);
        assert!((1..=8).contains(&whole.len()), "{} values", whole.len());
        assert!(refused.iter().all(|item| item.code() == Some(ErrorCode::TooLarge)));
    }
    // An answer of 65 MiB, and its copies while it grew.
    victim.expect_growth_below(512 * MIB);
    victim.survives();
}
