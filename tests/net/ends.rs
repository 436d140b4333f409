//! How connections end, and what is left of them.

use std::io::Write;
use std::net::Shutdown;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::echo::{CLOSE, Config, ECHO, LARGE, LATER, ask, connect, frame, read_frame, serve, wait_until};

#[test]
fn connections_come_and_go_and_leave_nothing() {
    let config = Config::default();
    let server = serve(2, &config);
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    for round in 0..20u64 {
        let mut streams: Vec<_> = (0..50).map(|_| connect(&server)).collect();
        for (number, stream) in streams.iter_mut().enumerate() {
            match number % 4 {
                // Gone before its answer is there, perhaps with a reset.
                0 => stream.write_all(&frame(LATER, round, &[3; 3_000])).unwrap(),
                // Gone in the middle of a frame.
                1 => stream.write_all(&frame(ECHO, round, &[4; 100])[..50]).unwrap(),
                2 => assert_eq!(ask(stream, ECHO, &[number as u8; 40]), [number as u8; 40]),
                // Hung up on.
                _ => {
                    stream.write_all(&frame(CLOSE, round, b"")).unwrap();
                    assert!(read_frame(stream).is_none());
                }
            }
        }
    }
    let counts = &config.counts;
    wait_until("every connection is closed", || {
        counts.opened.load(Ordering::Relaxed) == 1_000 && counts.closed.load(Ordering::Relaxed) == 1_000
    });
    // Other tests of this process have descriptors too, but not a thousand.
    wait_until("descriptors are given back", || descriptors() < 1_200);
    server.stop();
    server.join();
}

#[test]
fn who_sends_no_more_still_gets_answers() {
    let config = Config::default();
    let server = serve(1, &config);
    for kind in [ECHO, LATER] {
        let mut stream = connect(&server);
        (0..20).for_each(|number| stream.write_all(&frame(kind, number, &[1; 10])).unwrap());
        stream.shutdown(Shutdown::Write).unwrap();
        (0..20).for_each(|number| assert_eq!(read_frame(&mut stream).unwrap().0.request_id, number));
        assert!(read_frame(&mut stream).is_none(), "then it is closed");
    }
    wait_until("both are closed", || config.counts.closed.load(Ordering::Relaxed) == 2);
    server.stop();
    server.join();
}

/// One slot, used over and over while the kernel still has operations of its earlier lives.
#[test]
fn a_slot_that_is_used_again_is_not_taken_for_its_predecessor() {
    let config = Config::default();
    let server = serve(1, &config);
    for number in 0..500u32 {
        let mut stream = connect(&server);
        stream.write_all(&frame(LATER, 1, &number.to_le_bytes())).unwrap();
        assert_eq!(ask(&mut stream, ECHO, &number.to_le_bytes()), number.to_le_bytes());
    }
    server.stop();
    server.join();
}

#[test]
fn a_stop_answers_what_was_accepted_and_takes_no_more() {
    for shards in [1, 2] {
        let config = Config::default();
        let server = serve(shards, &config);
        let port = server.ports().ordinary;
        let mut streams: Vec<_> = (0..10).map(|_| connect(&server)).collect();
        for stream in &mut streams {
            (0..20).for_each(|number| stream.write_all(&frame(LATER, number, &[1; 500])).unwrap());
        }
        wait_until("all is accepted", || config.counts.requests.load(Ordering::Relaxed) == 200);
        let start = Instant::now();
        server.stop();
        let answered = std::thread::spawn(move || {
            for stream in &mut streams {
                (0..20).for_each(|number| assert_eq!(read_frame(stream).unwrap().0.request_id, number));
                assert!(read_frame(stream).is_none(), "then the end");
            }
        });
        server.join();
        answered.join().unwrap();
        assert!(start.elapsed() < Duration::from_secs(3), "nobody waits for the grace to end");
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "nobody is there any more");
    }
}

#[test]
fn a_stop_does_not_wait_for_ever() {
    let config = Config { delay: ringmain::time::Duration::from_secs(60), ..Config::default() };
    let mut options = crate::echo::options(1);
    options.grace = ringmain::time::Duration::from_millis(200);
    let server = crate::echo::serve_with(&options, &config);
    let mut stream = connect(&server);
    stream.write_all(&frame(LATER, 1, b"")).unwrap();
    wait_until("it is accepted", || config.counts.requests.load(Ordering::Relaxed) == 1);
    let start = Instant::now();
    server.stop();
    server.join();
    assert!(start.elapsed() < Duration::from_secs(2));
}

/// Whoever takes no answers is cut off after a while, when the core is done with it.
#[test]
fn who_takes_nothing_is_closed_in_the_end() {
    let config = Config { large: vec![1; 8 << 20].into(), ..Config::default() };
    let server = serve(1, &config);
    let mut stream = connect(&server);
    stream.write_all(&[frame(LARGE, 1, &[3]), frame(CLOSE, 2, b"")].concat()).unwrap();
    let start = Instant::now();
    wait_until("it is closed", || config.counts.closed.load(Ordering::Relaxed) == 1);
    assert!(start.elapsed() > Duration::from_secs(4), "it gets some time");
    server.stop();
    server.join();
}
