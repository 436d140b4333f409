//! A node as a process: signals, panics, and running out of descriptors. Each test runs this program again, as
//! a child that does nothing but serve.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use ringmain::shell::serve;
use ringmain_schema::Kind;

use crate::echo::{Config, ECHO, Echo, LATER, ask, connect_to, frame, options, read_frame};

const DESCRIPTORS: &str = "RINGMAIN_TEST_DESCRIPTORS";
const PORT_IS: &str = "serving on ";

/// Not a test: the child.
#[test]
#[ignore = "run by the tests of this file, in a process of its own: cargo test --test net process"]
fn child() {
    let limit = std::env::var(DESCRIPTORS).ok().and_then(|text| text.parse().ok());
    // One shard lets callers in by the order of their calls, as the test reads.
    let shards = if limit.is_some() { 1 } else { 2 };
    if let Some(limit) = limit {
        let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
        // SAFETY: `limit` is readable.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
    }
    let config = Config { delay: ringmain::time::Duration::from_millis(300), ..Config::default() };
    let served = serve(
        &options(shards),
        move |seat| Echo::new(&config, &seat),
        |server| println!("\n{PORT_IS}{}", server.ports().ordinary),
    );
    served.unwrap();
}

struct Node {
    child: Child,
    port: u16,
}

impl Node {
    fn start(descriptors: Option<u64>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "process::child", "--ignored", "--nocapture", "--test-threads=1"]);
        if let Some(descriptors) = descriptors {
            command.env(DESCRIPTORS, descriptors.to_string());
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port = lines.find_map(|line| line.strip_prefix(PORT_IS)?.parse().ok()).expect("it serves");
        // The test harness goes on to write to it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, port }
    }

    fn signal(&self, signal: i32) {
        // SAFETY: no pointers are passed, and the child has not been waited for.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    fn ended(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    fn processor_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 1..].split_whitespace().collect();
        fields[11..=12].iter().map(|field| field.parse::<u64>().unwrap()).sum()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended as it should.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_signal_stops_it_when_all_is_answered() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let mut node = Node::start(None);
        let mut stream = connect_to(node.port);
        stream.write_all(&frame(LATER, 5, b"accepted")).unwrap();
        assert_eq!(ask(&mut connect_to(node.port), ECHO, b""), b"");
        std::thread::sleep(Duration::from_millis(50));
        node.signal(signal);
        assert_eq!(read_frame(&mut stream).unwrap().0.request_id, 5);
        assert!(read_frame(&mut stream).is_none());
        assert_eq!(node.ended().code(), Some(0));
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut node = Node::start(None);
    let mut stream = connect_to(node.port);
    stream.write_all(&frame(LATER, 5, b"accepted")).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    node.signal(libc::SIGTERM);
    std::thread::sleep(Duration::from_millis(50));
    node.signal(libc::SIGINT);
    assert_eq!(node.ended().code(), Some(130));
}

#[test]
fn a_shard_that_panics_takes_the_node_with_it() {
    let mut node = Node::start(None);
    let mut stream = connect_to(node.port);
    // A kind that the machine doesn't know makes it panic.
    stream.write_all(&frame(Kind::STATUS, 5, b"")).unwrap();
    assert_eq!(node.ended().signal(), Some(libc::SIGABRT));
}

#[test]
fn out_of_descriptors_callers_wait_and_nothing_spins() {
    let mut node = Node::start(Some(64));
    let mut first = connect_to(node.port);
    assert_eq!(ask(&mut first, ECHO, b"in"), b"in");
    let mut crowd: Vec<TcpStream> = (0..100).map(|_| connect_to(node.port)).collect();
    for stream in &mut crowd {
        stream.write_all(&frame(ECHO, 1, b"let me in")).unwrap();
    }
    std::thread::sleep(Duration::from_millis(300));
    let before = node.processor_ticks();
    std::thread::sleep(Duration::from_millis(500));
    let ticks = node.processor_ticks() - before;
    assert!(ticks < 20, "{ticks} hundredths of a second of two seconds' processor time, doing nothing");
    assert_eq!(ask(&mut first, ECHO, b"still in"), b"still in");
    // As some leave, others are let in.
    for mut stream in crowd {
        assert_eq!(read_frame(&mut stream).unwrap().0.request_id, 1);
    }
    node.signal(libc::SIGTERM);
    assert_eq!(node.ended().code(), Some(0));
}
