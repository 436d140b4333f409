//! `docs/protocol.md` says what the code does: its numbers, its names and its example bytes.

#![allow(clippy::unwrap_used, reason = "a test that can't go on must stop")]

use std::collections::BTreeSet;

use ringmain_schema::message::{ErrorCode, Get, Put};
use ringmain_schema::{Encoder, Flags, Kind, limits, token};

const PAGE: &str = include_str!("../docs/protocol.md");
const FILES: [&str; 2] = [include_str!("../schema/client.fbs"), include_str!("../schema/peer.fbs")];

/// A row of a table on the page that begins so.
fn has_row(start: &str) -> bool {
    PAGE.lines().any(|line| line.starts_with(start))
}

#[test]
fn every_kind_has_its_row() {
    let kinds = [
        (Kind::HELLO, "HELLO"),
        (Kind::GET, "GET"),
        (Kind::PUT, "PUT"),
        (Kind::DELETE, "DELETE"),
        (Kind::MULTI_GET, "MULTI_GET"),
        (Kind::MULTI_PUT, "MULTI_PUT"),
        (Kind::TOPOLOGY, "TOPOLOGY"),
        (Kind::STATUS, "STATUS"),
        (Kind::PING, "PING"),
        (Kind::CHANGE, "CHANGE"),
        (Kind::REPLICATE, "REPLICATE"),
        (Kind::READ_STATE, "READ_STATE"),
        (Kind::GOSSIP, "GOSSIP"),
        (Kind::FORWARD, "FORWARD"),
        (Kind::TREE_REQUEST, "TREE_REQUEST"),
        (Kind::KEYS_REQUEST, "KEYS_REQUEST"),
        (Kind::PULL_REQUEST, "PULL_REQUEST"),
        (Kind::HELD_REQUEST, "HELD_REQUEST"),
        (Kind::PROPOSE, "PROPOSE"),
        (Kind::ROUND, "ROUND"),
        (Kind::LOST, "LOST"),
        (Kind::BEGINNINGS, "BEGINNINGS"),
        (Kind::GIVEN_UP, "GIVEN_UP"),
        (Kind::WELCOME, "WELCOME"),
        (Kind::GOT, "GOT"),
        (Kind::STORED, "STORED"),
        (Kind::MULTI_DONE, "MULTI_DONE"),
        (Kind::TOPOLOGY_IS, "TOPOLOGY_IS"),
        (Kind::STATUS_IS, "STATUS_IS"),
        (Kind::PONG, "PONG"),
        (Kind::CHANGED, "CHANGED"),
        (Kind::REPLICATED, "REPLICATED"),
        (Kind::STATE, "STATE"),
        (Kind::GOSSIPED, "GOSSIPED"),
        (Kind::TREE, "TREE"),
        (Kind::KEYS, "KEYS"),
        (Kind::PULLED, "PULLED"),
        (Kind::HELD, "HELD"),
        (Kind::EPOCH, "EPOCH"),
        (Kind::BOUND, "BOUND"),
        (Kind::ROUND_OVER, "ROUND_OVER"),
        (Kind::MET, "MET"),
        (Kind::ERROR, "ERROR"),
    ];
    for (Kind(number), name) in kinds {
        assert!(has_row(&format!("| {number} | {name} | `")), "kind {number}, {name}, has no row");
    }
}

#[test]
fn every_flag_has_its_row() {
    let flags = [(Flags::CHECKSUM, "CHECKSUM"), (Flags::DIRECT, "DIRECT"), (Flags::FORWARDED, "FORWARDED")];
    for (Flags(bit), name) in flags {
        assert!(has_row(&format!("| {bit} | {name} | ")), "flag {bit}, {name}, has no row");
    }
}

#[test]
fn every_error_code_has_its_row_and_no_other() {
    for number in 0..=u8::MAX {
        match ErrorCode(number).variant_name() {
            Some(name) => assert!(has_row(&format!("| {number} | `{name}` | ")), "{number}, {name}"),
            None => assert!(!has_row(&format!("| {number} | `")), "{number} is no error code"),
        }
    }
}

/// The names of tables, structs and fields in a schema.
fn names(schema: &str) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    let mut in_table = false;
    for line in schema.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        match words.as_slice() {
            ["table" | "struct", name, ..] => {
                in_table = true;
                names.insert(*name);
            }
            ["}", ..] => in_table = false,
            [field, ..] if in_table => names.extend(field.strip_suffix(':')),
            _ => {}
        }
    }
    names
}

#[test]
fn every_table_and_field_is_named() {
    for name in FILES.into_iter().flat_map(names) {
        assert!(PAGE.contains(&format!("`{name}`")), "{name} is in the schema, but not on the page");
    }
    let expected = ["Ping", "Pong", "id", "on"].into();
    assert_eq!(
        names("table Ping {\n}\ntable Pong {\n id: ulong;\n on: bool;\n}\nenum E { A = 1 }"),
        expected
    );
}

#[test]
fn limits_are_those_of_the_code() {
    let grouped = |number: usize| {
        let digits = number.to_string();
        let groups: Vec<_> =
            digits.as_bytes().rchunks(3).rev().map(|group| str::from_utf8(group).unwrap()).collect();
        groups.join(",")
    };
    let mebibytes = |bytes: usize| format!("{} MiB", bytes >> 20);
    for (row, limit) in [
        ("key", grouped(limits::KEY_BYTES_MAX)),
        ("value", mebibytes(limits::VALUE_BYTES_MAX_DEFAULT as usize)),
        ("siblings of a key", grouped(ringmain::causality::SIBLINGS_MAX)),
        ("flatbuffer of a frame", mebibytes(limits::META_BYTES_MAX)),
        ("frame before the handshake is over, after its header", grouped(limits::HANDSHAKE_BYTES_MAX)),
        ("items of a batch", grouped(limits::MULTI_ITEMS_MAX)),
        ("context", grouped(ringmain::causality::CONTEXT_BYTES_MAX)),
        ("members of a cluster", grouped(limits::MEMBERS_MAX)),
        ("partitions of one tree request", grouped(limits::TREE_PARTITIONS_MAX)),
        ("keys of one list of anti-entropy", grouped(limits::EXCHANGE_KEYS_MAX)),
        ("tokens of one pull request", grouped(limits::PULL_TOKENS_MAX)),
    ] {
        let start = format!("| {row} | ");
        let line = PAGE.lines().find(|line| line.starts_with(&start)).expect(row);
        assert!(line.contains(&limit), "{line} should say {limit}");
    }
    assert_eq!(limits::request_bytes_max(100), 2 * 100 + limits::META_BYTES_MAX);
    assert_eq!(limits::state_bytes_max(100), 8 * 100 + limits::META_BYTES_MAX);
}

#[test]
fn the_worked_example_works() {
    let token = token::token(b"cart:42");
    let partition = token::partition(token, 1024);
    let shard = token::shard_of(partition, 4);
    assert!(PAGE.contains(&format!("token      {token:#018x}")));
    assert!(PAGE.contains(&format!("partition  {partition} ")));
    assert!(PAGE.contains(&format!(
        "places {}, {}, {} of",
        3 * partition,
        3 * partition + 1,
        3 * partition + 2
    )));
    assert!(PAGE.contains(&format!("shard      {shard} ")));
    assert!(PAGE.contains(&format!("port       {}", [7411, 7412, 7413, 7414][usize::from(shard)])));
}

/// Sixteen bytes a line, each with its place.
fn dump(bytes: &[u8]) -> String {
    let line = |(number, chunk): (usize, &[u8])| {
        let hex: Vec<_> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        let text: String =
            chunk.iter().map(|&byte| if byte.is_ascii_graphic() { char::from(byte) } else { '.' }).collect();
        format!("{:04x}  {:<47}  {text}\n", 16 * number, hex.join(" "))
    };
    bytes.chunks(16).enumerate().map(line).collect()
}

#[test]
fn the_example_frames_are_what_is_sent() {
    let (mut encoder, mut get, mut put) = (Encoder::default(), Vec::new(), Vec::new());
    let request = Get { key: b"cart:42", read: 2, budget_us: 50_000, ..Get::default() };
    request.encode(&mut encoder, 7, Flags::NONE, &mut get);
    let request = Put { key: b"cart:42", value: Some(b"milk"), overwrite: true, ..Put::default() };
    request.encode(&mut encoder, 8, Flags::NONE, &mut put);
    for frame in [get, put] {
        let dump = dump(&frame);
        assert!(PAGE.contains(&dump), "the page should show these {} bytes:\n{dump}", frame.len());
    }
}
