//! What a connection can't do to the others: hold memory, hold up, bring down.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringmain::shard::ConnectionLimits;
use ringmain_schema::Kind;

use crate::echo::{Config, ECHO, LARGE, LATER, ask, connect, frame, options, read_frame, serve, serve_with};

/// Write until the other end has taken nothing for a while; tells how many frames were written whole.
fn write_until_stuck(stream: &mut TcpStream, frame: &[u8], most: u64) -> u64 {
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    for number in 0..most {
        let mut rest = frame;
        while !rest.is_empty() {
            match stream.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => return number,
                Err(error) => panic!("{error}"),
            }
        }
    }
    most
}

#[test]
fn who_never_reads_is_not_read_and_hurts_nobody() {
    let config = Config { large: Bytes::from(vec![5; 1 << 20]), ..Config::default() };
    let mut options = options(1);
    options.unsent_bytes_max = 4 << 20;
    let server = serve_with(&options, &config);
    let mut slow = connect(&server);
    // Each asks for 4 MiB; padding fills the socket's buffers after few requests.
    let mut request = vec![4];
    request.resize(20_000, 0);
    let written = write_until_stuck(&mut slow, &frame(LARGE, 1, &request), 10_000);
    let taken = config.counts.requests.load(Ordering::Relaxed);
    assert!(taken <= 8, "{taken} requests of 4 MiB each were taken from somebody who reads nothing");
    assert!(written < 10_000, "it was not read on");
    let mut other = connect(&server);
    let mut slowest = Duration::ZERO;
    for _ in 0..200 {
        let start = Instant::now();
        ask(&mut other, ECHO, b"still there?");
        slowest = slowest.max(start.elapsed());
    }
    assert!(slowest < Duration::from_millis(200), "another connection waited {slowest:?}");
    // It isn't cut off either: when it reads, it gets everything, and is read again.
    for _ in 0..written {
        assert_eq!(read_frame(&mut slow).unwrap().1.len(), 4 * ((1 << 20) + 1));
    }
    server.stop();
    server.join();
}

#[test]
fn requests_past_the_limit_wait_unread() {
    let limits = ConnectionLimits { frame_bytes_max: 1 << 20, requests_in_flight_max: 5 };
    let delay = ringmain::time::Duration::from_millis(2);
    let config = Config { limits, delay, ..Config::default() };
    let server = serve(1, &config);
    let mut stream = connect(&server);
    let mut sender = stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        for number in 0..1_000 {
            sender.write_all(&frame(LATER, number, &[1; 900])).unwrap();
        }
    });
    for number in 0..1_000 {
        assert_eq!(read_frame(&mut stream).unwrap().0.request_id, number);
    }
    sending.join().unwrap();
    assert_eq!(config.counts.unanswered_max.load(Ordering::Relaxed), 5);
    server.stop();
    server.join();
}

#[test]
fn a_stranger_may_ask_one_thing_at_a_time() {
    let config = Config { limits: ConnectionLimits::STRANGER, ..Config::default() };
    let server = serve(1, &config);
    let mut stream = connect(&server);
    stream.write_all(&[frame(LATER, 0, b"a"), frame(ECHO, 1, b"b"), frame(LATER, 2, b"c")].concat()).unwrap();
    (0..3).for_each(|number| assert_eq!(read_frame(&mut stream).unwrap().0.request_id, number));
    assert_eq!(config.counts.unanswered_max.load(Ordering::Relaxed), 1);
    server.stop();
    server.join();
}

/// P12: bytes that can't be cut get their error, and at most that connection closes.
#[test]
fn garbage_gets_an_error_and_closes_only_its_connection() {
    let config = Config::default();
    let server = serve(1, &config);
    let mut bystander = connect(&server);
    let with_length = |length: u32| {
        let mut bytes = frame(ECHO, 1, b"");
        bytes[0..4].copy_from_slice(&length.to_le_bytes());
        bytes
    };
    let limit = config.limits.frame_bytes_max as u32;
    let garbage = [
        vec![0xff; 500],
        vec![0xee; 24],
        with_length(limit + 1),
        with_length(u32::MAX),
        with_length(1 << 31),
    ];
    for bytes in &garbage {
        let mut stream = connect(&server);
        stream.write_all(&frame(ECHO, 9, b"well-formed, first")).unwrap();
        stream.write_all(bytes).unwrap();
        assert_eq!(read_frame(&mut stream).unwrap().0.request_id, 9);
        let (header, text) = read_frame(&mut stream).expect("an error");
        assert_eq!(header.kind, Kind::ERROR, "{text:?}");
        assert!(read_frame(&mut stream).is_none(), "then the end");
        assert_eq!(ask(&mut bystander, ECHO, b"unharmed"), b"unharmed");
    }
    assert_eq!(config.counts.garbled.load(Ordering::Relaxed), garbage.len() as u64);
    // A claim alone holds nothing, and does no harm.
    let mut stream = connect(&server);
    stream.write_all(&with_length(limit)).unwrap();
    assert_eq!(ask(&mut bystander, ECHO, b"unharmed"), b"unharmed");
    server.stop();
    server.join();
}

/// A reset would throw away the error that explains it.
#[test]
fn who_is_still_sending_gets_the_error_all_the_same() {
    let server = serve(1, &Config::default());
    for _ in 0..20 {
        let mut stream = connect(&server);
        let mut bytes = frame(ECHO, 1, b"");
        bytes[0..4].copy_from_slice(&(8u32 << 20).to_le_bytes());
        stream.write_all(&bytes).unwrap();
        stream.write_all(&vec![1; 8 << 20]).expect("what is sent is read, and thrown away");
        assert_eq!(read_frame(&mut stream).expect("an error").0.kind, Kind::ERROR);
        assert!(read_frame(&mut stream).is_none());
    }
    server.stop();
    server.join();
}
