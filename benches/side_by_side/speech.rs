//! What each server is asked in, and how its answers are counted.

use std::io::{Read, Write};
use std::net::TcpStream;

use ringmain_schema::frame::HEADER_BYTES;
use ringmain_schema::message::{Get, Hello, PeerHello, Put};
use ringmain_schema::{Encoder, Flags, Header, Kind, Role, limits};

/// Of each key: `key:` and its number.
pub const KEY_BYTES: usize = 20;
/// Of a line, where a speech has lines.
const END: &[u8] = b"\r\n";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Speech {
    Ringmain,
    /// Redis, and what descends from it.
    Redis,
    Memcached,
}

/// A put that is encoded but for its key.
pub struct PutRequest {
    bytes: Vec<u8>,
    key_at: usize,
}

impl PutRequest {
    /// The put of this key.
    pub fn of(&mut self, key: u64) -> &[u8] {
        write_key(key, &mut self.bytes[self.key_at..][..KEY_BYTES]);
        &self.bytes
    }
}

impl Speech {
    /// Connect, and say hello if that is usual.
    pub fn greet(self, stream: &mut TcpStream) -> std::io::Result<()> {
        if self != Self::Ringmain {
            return Ok(());
        }
        let mut hello = Vec::new();
        Hello {
            protocol_min: limits::PROTOCOL_MIN,
            protocol_max: limits::PROTOCOL_MAX,
            role: Role::Client,
            cluster: 0,
            secret: &[],
            software: "side_by_side",
            peer: PeerHello::default(),
        }
        .encode(&mut Encoder::default(), 1, &mut hello);
        stream.write_all(&hello)?;
        let (header, _) = read_frame(stream)?;
        assert_eq!(header.kind, Kind::WELCOME, "the server takes us");
        Ok(())
    }

    /// The put that is number `place` of those on their way on one connection.
    pub fn put(self, place: usize, value_bytes: usize) -> PutRequest {
        let (key, value) = (key_of(0), vec![b'v'; value_bytes]);
        let bytes = match self {
            Self::Ringmain => {
                let mut frame = Vec::new();
                let put = Put { key: &key, value: Some(&value), overwrite: true, ..Put::default() };
                put.encode(&mut Encoder::default(), place as u64 + 2, Flags::NONE, &mut frame);
                frame
            }
            Self::Redis => {
                let head = format!("*3\r\n$3\r\nSET\r\n${KEY_BYTES}\r\n");
                let between = format!("\r\n${value_bytes}\r\n");
                [head.as_bytes(), &key[..], between.as_bytes(), &value[..], END].concat()
            }
            Self::Memcached => {
                let between = format!(" 0 0 {value_bytes}\r\n");
                [&b"set "[..], &key[..], between.as_bytes(), &value[..], END].concat()
            }
        };
        let key_at = bytes.windows(KEY_BYTES).position(|window| window == key).expect("a put holds its key");
        PutRequest { bytes, key_at }
    }

    /// Whole answers to puts at the front of these bytes, and how many bytes they take.
    pub fn stored(self, bytes: &[u8]) -> (usize, usize) {
        match self {
            Self::Ringmain => stored_frames(bytes),
            Self::Redis => stored_lines(bytes, b"+OK\r\n"),
            Self::Memcached => stored_lines(bytes, b"STORED\r\n"),
        }
    }

    /// Does the server hold this key? Asked on a connection that was greeted and waits for nothing.
    pub fn is_held(self, key: u64, stream: &mut TcpStream) -> std::io::Result<bool> {
        let key = key_of(key);
        match self {
            Self::Ringmain => {
                let mut get = Vec::new();
                Get { key: &key, ..Get::default() }.encode(&mut Encoder::default(), 2, Flags::NONE, &mut get);
                stream.write_all(&get)?;
                Ok(read_frame(stream)?.0.kind == Kind::GOT)
            }
            Self::Redis => {
                let head = format!("*2\r\n$3\r\nGET\r\n${KEY_BYTES}\r\n");
                stream.write_all(&[head.as_bytes(), &key[..], END].concat())?;
                let line = read_line(stream)?;
                let length: i64 = line.trim_start_matches('$').parse().expect("the length of a string");
                stream.read_exact(&mut vec![0; usize::try_from(length + END.len() as i64).unwrap_or(0)])?;
                Ok(length >= 0)
            }
            Self::Memcached => {
                stream.write_all(&[&b"get "[..], &key[..], END].concat())?;
                let is_held = read_line(stream)?.starts_with("VALUE ");
                while is_held && read_line(stream)? != "END" {}
                Ok(is_held)
            }
        }
    }
}

fn key_of(number: u64) -> [u8; KEY_BYTES] {
    let mut key = *b"key:0000000000000000";
    write_key(number, &mut key);
    key
}

fn write_key(mut number: u64, key: &mut [u8]) {
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

fn stored_frames(bytes: &[u8]) -> (usize, usize) {
    let (mut answers, mut at) = (0, 0);
    while let Some(header) = Header::read(&bytes[at..]).expect("frames") {
        if bytes.len() - at < header.frame_length() {
            break;
        }
        assert_eq!(header.kind, Kind::STORED, "each put is taken");
        at += header.frame_length();
        answers += 1;
    }
    (answers, at)
}

fn stored_lines(bytes: &[u8], expected: &[u8]) -> (usize, usize) {
    let lines = bytes.chunks_exact(expected.len());
    let answers = lines.len();
    for line in lines {
        assert!(line == expected, "each put is taken, but: {}", String::from_utf8_lossy(bytes));
    }
    (answers, answers * expected.len())
}

/// A frame, and what follows its header.
fn read_frame(stream: &mut TcpStream) -> std::io::Result<(Header, Vec<u8>)> {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header)?;
    let header = Header::read(&header).expect("a frame").expect("a whole header");
    let mut body = vec![0; header.frame_length() - HEADER_BYTES];
    stream.read_exact(&mut body)?;
    Ok((header, body))
}

/// Without its end.
fn read_line(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut line = Vec::new();
    while !line.ends_with(END) {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&line[..line.len() - END.len()]).into_owned())
}
