//! A client that costs as little as it can: frames encoded once, epoll, no parsing but of lengths.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use ringmain_schema::frame::HEADER_BYTES;
use ringmain_schema::message::{Get, Hello, PeerHello, Put};
use ringmain_schema::{Encoder, Flags, Header, Kind, Role, limits};

pub(crate) struct Load {
    epoll: OwnedFd,
    connections: Vec<Connection>,
    depth: usize,
    buffer: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    /// Two bursts of `depth` requests, used in turn: between them half are gets.
    bursts: [Vec<u8>; 2],
    turn: usize,
    /// Answers to come for the burst that was sent.
    awaited: usize,
    /// A partial answer.
    partial: Vec<u8>,
}

impl Load {
    pub(crate) fn connect(port: u16, connections: usize, depth: usize, value_bytes: usize) -> Self {
        // SAFETY: no pointers are passed, and the descriptor is checked and nobody else's.
        let epoll = unsafe { OwnedFd::from_raw_fd(checked(libc::epoll_create1(libc::EPOLL_CLOEXEC))) };
        let connections: Vec<Connection> =
            (0..connections).map(|number| Connection::open(port, number, depth, value_bytes)).collect();
        for (place, connection) in connections.iter().enumerate() {
            let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: place as u64 };
            let descriptor = connection.stream.as_raw_fd();
            // SAFETY: `event` is readable.
            checked(unsafe {
                libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, descriptor, &raw mut event)
            });
        }
        Self { epoll, connections, depth, buffer: vec![0; 64 * 1024] }
    }

    /// Keep every connection busy for `span`; then how many requests were answered, in how long.
    pub(crate) fn run(&mut self, span: Duration) -> (u64, Duration) {
        let start = Instant::now();
        self.connections.iter_mut().for_each(|connection| connection.send(self.depth));
        let (mut answered, mut busy) = (0, self.connections.len());
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; self.connections.len()];
        while busy > 0 {
            let going_on = start.elapsed() < span;
            let (descriptor, room) = (self.epoll.as_raw_fd(), events.len() as i32);
            // SAFETY: `events` has room for that many.
            let ready = checked(unsafe { libc::epoll_wait(descriptor, events.as_mut_ptr(), room, 5_000) });
            assert!(ready > 0, "the server has answered nothing for five seconds");
            for event in &events[..ready as usize] {
                let connection = &mut self.connections[event.u64 as usize];
                answered += connection.receive(&mut self.buffer);
                if connection.awaited == 0 {
                    if going_on { connection.send(self.depth) } else { busy -= 1 }
                }
            }
        }
        (answered, start.elapsed())
    }
}

impl Connection {
    fn open(port: u16, number: usize, depth: usize, value_bytes: usize) -> Self {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the server takes calls");
        stream.set_nodelay(true).expect("a TCP option");
        let mut encoder = Encoder::default();
        let mut hello = Vec::new();
        Hello {
            protocol_min: limits::PROTOCOL_MIN,
            protocol_max: limits::PROTOCOL_MAX,
            role: Role::Client,
            cluster: 0,
            secret: &[],
            software: "cpu_per_request",
            peer: PeerHello::default(),
        }
        .encode(&mut encoder, 1, &mut hello);
        stream.write_all(&hello).expect("the server takes a handshake");
        read_welcome(&mut stream);
        let bursts = [0, 1].map(|odd| burst(&mut encoder, number, depth, odd, value_bytes));
        stream.set_nonblocking(true).expect("a socket option");
        Self { stream, bursts, turn: number % 2, awaited: 0, partial: Vec::new() }
    }

    fn send(&mut self, depth: usize) {
        self.turn ^= 1;
        // A burst is far smaller than the socket's buffer, which is empty: all of it fits.
        self.stream.write_all(&self.bursts[self.turn]).expect("the server takes requests");
        self.awaited = depth;
    }

    /// Answers that arrived whole.
    fn receive(&mut self, buffer: &mut [u8]) -> u64 {
        let length = self.stream.read(buffer).expect("the server answers");
        assert!(length > 0, "the server hung up");
        let before = self.awaited;
        if self.partial.is_empty() {
            let used = self.count(&buffer[..length]);
            self.partial.extend_from_slice(&buffer[used..length]);
        } else {
            self.partial.extend_from_slice(&buffer[..length]);
            let partial = std::mem::take(&mut self.partial);
            let used = self.count(&partial);
            self.partial.extend_from_slice(&partial[used..]);
        }
        (before - self.awaited) as u64
    }

    /// Count whole answers; tells the bytes that they take.
    fn count(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while let Some(header) = Header::read(&bytes[at..]).expect("frames") {
            if bytes.len() - at < header.frame_length() {
                break;
            }
            assert!(header.kind.is_answer(), "answers, not {:?}", header.kind);
            at += header.frame_length();
            self.awaited -= 1;
        }
        at
    }
}

fn burst(encoder: &mut Encoder, number: usize, depth: usize, odd: usize, value_bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let value = vec![b'v'; value_bytes];
    for place in 0..depth {
        let key = format!("key:{number:04}:{place:04}");
        // Under depth 1 the two bursts differ, under more the places in them.
        let id = place as u64 + 2;
        if (place + odd).is_multiple_of(2) {
            let put = Put { key: key.as_bytes(), value: Some(&value), overwrite: true, ..Put::default() };
            put.encode(encoder, id, Flags::NONE, &mut out);
        } else {
            Get { key: key.as_bytes(), ..Get::default() }.encode(encoder, id, Flags::NONE, &mut out);
        }
    }
    out
}

fn read_welcome(stream: &mut TcpStream) {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).expect("the server answers a handshake");
    let header = Header::read(&header).expect("a frame").expect("a whole header");
    assert_eq!(header.kind, Kind::WELCOME, "the server takes us");
    let mut body = vec![0; header.length as usize];
    stream.read_exact(&mut body).expect("a whole frame");
}

fn checked(result: i32) -> i32 {
    assert!(result >= 0, "{}", std::io::Error::last_os_error());
    result
}
