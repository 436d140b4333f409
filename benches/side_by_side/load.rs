//! A closed loop over many connections: one thread, epoll, requests that are encoded but for their keys, answers that are
//! only counted. The same code for every server, so that what it costs is in all figures alike.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use super::figures::Latencies;
use super::server::Server;
use super::speech::{PutRequest, Speech};

pub struct Load {
    epoll: OwnedFd,
    speech: Speech,
    connections: Vec<Connection>,
    /// As many as are on their way on a connection.
    requests: Vec<PutRequest>,
    buffer: Vec<u8>,
}

/// What came of it.
pub struct Run {
    pub answered: u64,
    pub elapsed: Duration,
    /// From the moment a burst was sent to that in which an answer was read.
    pub latencies: Latencies,
}

impl Run {
    pub fn per_second(&self) -> f64 {
        self.answered as f64 / self.elapsed.as_secs_f64()
    }
}

struct Connection {
    stream: TcpStream,
    burst: Vec<u8>,
    sent: Instant,
    /// Answers to come for the burst that was sent.
    awaited: usize,
    /// An answer that hasn't come whole.
    partial: Vec<u8>,
}

impl Load {
    /// `depth`: puts that leave together on a connection, the next ones when all are answered.
    pub fn connect(server: &Server, connections: usize, depth: usize, value_bytes: usize) -> Self {
        // SAFETY: no pointers are passed, and the descriptor is checked and nobody else's.
        let epoll = unsafe { OwnedFd::from_raw_fd(checked(libc::epoll_create1(libc::EPOLL_CLOEXEC))) };
        let connections: Vec<Connection> = (0..connections).map(|_| Connection::open(server)).collect();
        for (place, connection) in connections.iter().enumerate() {
            let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: place as u64 };
            let descriptor = connection.stream.as_raw_fd();
            // SAFETY: `event` is readable.
            checked(unsafe {
                libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, descriptor, &raw mut event)
            });
        }
        let speech = server.speech();
        let requests = (0..depth).map(|place| speech.put(place, value_bytes)).collect();
        Self { epoll, speech, connections, requests, buffer: vec![0; 64 * 1024] }
    }

    /// Put these keys one after the other, for so long or until there are no more.
    pub fn run(&mut self, keys: &mut impl Iterator<Item = u64>, span: Duration) -> Run {
        let start = Instant::now();
        let mut run = Run { answered: 0, elapsed: Duration::ZERO, latencies: Latencies::default() };
        let Self { epoll, speech, connections, requests, buffer } = self;
        let sends = connections.iter_mut().map(|connection| connection.send(requests, keys));
        let mut busy = sends.filter(|is_busy| *is_busy).count();
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; connections.len()];
        while busy > 0 {
            let room = events.len() as i32;
            // SAFETY: `events` has room for that many.
            let ready = unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), room, 60_000) };
            assert!(checked(ready) > 0, "the server has answered nothing for a minute");
            let is_over = start.elapsed() >= span;
            for event in &events[..ready as usize] {
                let connection = &mut connections[event.u64 as usize];
                let answers = connection.receive(*speech, buffer);
                run.answered += answers as u64;
                run.latencies.add(connection.sent.elapsed(), answers);
                if connection.awaited == 0 && (is_over || !connection.send(requests, keys)) {
                    busy -= 1;
                }
            }
        }
        run.elapsed = start.elapsed();
        run
    }
}

impl Connection {
    fn open(server: &Server) -> Self {
        let stream = server.connect().expect("the server takes calls");
        stream.set_nonblocking(true).expect("a socket option");
        Self { stream, burst: Vec::new(), sent: Instant::now(), awaited: 0, partial: Vec::new() }
    }

    /// Tells whether there was anything left to send.
    fn send(&mut self, requests: &mut [PutRequest], keys: &mut impl Iterator<Item = u64>) -> bool {
        self.burst.clear();
        for (request, key) in requests.iter_mut().zip(keys) {
            self.burst.extend_from_slice(request.of(key));
            self.awaited += 1;
        }
        self.sent = Instant::now();
        // A burst is far smaller than the socket's buffer, which is empty: all of it fits.
        self.stream.write_all(&self.burst).expect("the server takes requests");
        self.awaited > 0
    }

    /// Answers that arrived whole.
    fn receive(&mut self, speech: Speech, buffer: &mut [u8]) -> usize {
        let length = self.stream.read(buffer).expect("the server answers");
        assert!(length > 0, "the server hung up");
        let answers = if self.partial.is_empty() {
            let (answers, used) = speech.stored(&buffer[..length]);
            self.partial.extend_from_slice(&buffer[used..length]);
            answers
        } else {
            self.partial.extend_from_slice(&buffer[..length]);
            let (answers, used) = speech.stored(&self.partial);
            self.partial.drain(..used);
            answers
        };
        self.awaited -= answers;
        answers
    }
}

fn checked(result: i32) -> i32 {
    assert!(result >= 0, "{}", std::io::Error::last_os_error());
    result
}
