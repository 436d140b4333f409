//! Bytes in, frames out, whatever the way they arrive.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use ringmain_schema::Kind;

use crate::echo::{Config, ECHO, LARGE, ask, connect, frame, read_frame, serve};

/// Sizes from none to three receive buffers, in no particular order.
fn body(number: u64) -> Vec<u8> {
    let length = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let length = if number.is_multiple_of(7) { length % 50_000 } else { length % 300 };
    (0..length).map(|at| (at ^ number) as u8).collect()
}

#[test]
fn pipelined_requests_are_answered_whole_and_in_order() {
    let server = serve(1, &Config::default());
    let mut stream = connect(&server);
    let mut sender = stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        for number in 0..5_000 {
            sender.write_all(&frame(ECHO, number, &body(number))).unwrap();
        }
    });
    for number in 0..5_000 {
        let (header, answer) = read_frame(&mut stream).unwrap();
        assert_eq!((header.request_id, header.kind), (number, Kind::PONG));
        assert!(answer == body(number), "answer {number} differs");
    }
    sending.join().unwrap();
    server.stop();
    server.join();
}

#[test]
fn frames_may_be_split_at_every_byte() {
    let server = serve(1, &Config::default());
    let mut stream = connect(&server);
    let bytes = [frame(ECHO, 0, b"first"), frame(ECHO, 1, b""), frame(ECHO, 2, &[7; 60])].concat();
    for split in 1..bytes.len() {
        stream.write_all(&bytes[..split]).unwrap();
        // Long enough for the node to see the first part alone.
        std::thread::sleep(Duration::from_micros(500));
        stream.write_all(&bytes[split..]).unwrap();
        for number in 0..3 {
            assert_eq!(read_frame(&mut stream).unwrap().0.request_id, number, "split at {split}");
        }
    }
    for byte in &bytes {
        stream.write_all(std::slice::from_ref(byte)).unwrap();
    }
    (0..3).for_each(|number| assert_eq!(read_frame(&mut stream).unwrap().0.request_id, number));
    server.stop();
    server.join();
}

#[test]
fn large_pieces_go_by_reference_and_in_order() {
    let large: Bytes = (0..1 << 20).map(|at: u32| (at % 251) as u8).collect();
    let server = serve(1, &Config { large: large.clone(), ..Config::default() });
    let mut stream = connect(&server);
    let answer = ask(&mut stream, LARGE, &[100]);
    assert_eq!(answer.len(), 100 * (large.len() + 1));
    for (number, piece) in answer.chunks(large.len() + 1).enumerate() {
        assert_eq!(usize::from(piece[0]), number);
        assert!(piece[1..] == large, "piece {number} differs");
    }
    server.stop();
    server.join();
}

#[test]
fn many_connections_at_once() {
    let server = serve(2, &Config::default());
    let mut streams: Vec<_> = (0..400).map(|_| connect(&server)).collect();
    for round in 0..10u64 {
        for (number, stream) in streams.iter_mut().enumerate() {
            stream.write_all(&frame(ECHO, round, &body(number as u64 + round))).unwrap();
        }
        for (number, stream) in streams.iter_mut().enumerate() {
            let (header, answer) = read_frame(stream).unwrap();
            assert_eq!(header.request_id, round);
            assert!(answer == body(number as u64 + round));
        }
    }
    server.stop();
    server.join();
}
