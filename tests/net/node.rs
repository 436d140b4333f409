//! A node as a whole: ports, shards, calls to others.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ringmain::shell::{Placement, StartError, start};

use crate::echo::{
    Config, DIAL, ECHO, Echo, SIBLING, ask, connect, connect_to, frame, options, read_frame, serve,
    serve_with,
};

#[test]
fn every_shard_has_a_port_of_its_own_and_all_share_one() {
    let server = serve(3, &Config::default());
    let ports = server.ports().clone();
    assert_eq!(ports.shards.len(), 3);
    for port in ports.shards.into_iter().chain([ports.ordinary]) {
        assert_eq!(ask(&mut connect_to(port), ECHO, b"here"), b"here");
    }
    server.stop();
    server.join();
}

#[test]
fn a_port_that_is_taken_is_not_shared_with_a_stranger() {
    let server = serve(2, &Config::default());
    let mut second = options(2);
    second.listen.set_port(server.ports().ordinary);
    let config = Config::default();
    let error = start(&second, move |seat| Echo::new(&config, &seat)).unwrap_err();
    assert!(matches!(error, StartError::PortTaken { .. }), "{error}");
    server.stop();
    server.join();
    let again = serve_with(&second, &Config::default());
    assert_eq!(ask(&mut connect(&again), ECHO, b"free again"), b"free again");
    again.stop();
    again.join();
}

#[test]
fn what_cannot_be_is_said_before_anything_starts() {
    let refused = |options| {
        let config = Config::default();
        start(&options, move |seat| Echo::new(&config, &seat)).unwrap_err()
    };
    let mut pinned = options(4_000);
    pinned.placement = Placement::Pinned;
    assert!(matches!(refused(pinned), StartError::Cores { shards: 4_000, .. }));
    assert!(matches!(refused(options(0)), StartError::Shards { shards: 0 }));
    let mut ports = options(2);
    ports.shard_ports = vec![1];
    assert!(matches!(refused(ports), StartError::ShardPorts { ports: 1, shards: 2 }));
    let mut elsewhere = options(1);
    elsewhere.listen = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 7400));
    assert!(matches!(refused(elsewhere), StartError::Listen { .. }));
}

/// 200,000 requests, each of them answered by the other shard, which sleeps whenever it can.
#[test]
fn nothing_is_lost_between_shards() {
    let server = serve(2, &Config::default());
    let clients: Vec<_> = server.ports().shards.iter().flat_map(|&port| [port; 4]).collect();
    let clients: Vec<_> =
        clients.into_iter().map(|port| std::thread::spawn(move || ask_sibling(port))).collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    server.stop();
    server.join();
}

fn ask_sibling(port: u16) {
    let mut stream = connect_to(port);
    let (mut sent, mut sum, mut expected) = (0u64, 0u64, 0u64);
    while sent < 25_000 {
        let burst = 1 + sent % 40;
        let bytes: Vec<u8> =
            (sent..sent + burst).flat_map(|id| frame(SIBLING, id, &id.to_le_bytes())).collect();
        stream.write_all(&bytes).unwrap();
        for _ in 0..burst {
            let (header, body) = read_frame(&mut stream).unwrap();
            assert_eq!(body, header.request_id.to_le_bytes());
            sum += header.request_id;
        }
        expected += (sent..sent + burst).sum::<u64>();
        sent += burst;
    }
    assert_eq!(sum, expected, "each once");
}

#[test]
fn calls_by_number_and_by_name_are_decided() {
    let (caller, called) = (serve(1, &Config::default()), serve(1, &Config::default()));
    let mut stream = connect(&caller);
    let port = called.ports().ordinary;
    assert_eq!(ask(&mut stream, DIAL, format!("127.0.0.1 {port}").as_bytes()), [1]);
    assert_eq!(ask(&mut stream, DIAL, format!("localhost {port}").as_bytes()), [1]);
    assert_eq!(ask(&mut stream, DIAL, b"no.such.host.invalid 7400"), [0]);
    called.stop();
    called.join();
    assert_eq!(ask(&mut stream, DIAL, format!("127.0.0.1 {port}").as_bytes()), [0], "refused");
    caller.stop();
    caller.join();
}

#[test]
fn a_shard_without_work_sleeps() {
    let server = serve(2, &Config::default());
    let mut stream = connect(&server);
    ask(&mut stream, ECHO, b"awake");
    std::thread::sleep(Duration::from_millis(50));
    let busy = || -> u64 {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let shards = tasks.filter(|task| {
            std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("shard-"))
        });
        shards
            .filter_map(|task| {
                std::fs::read_to_string(task.path().join("schedstat"))
                    .ok()?
                    .split(' ')
                    .next()?
                    .parse::<u64>()
                    .ok()
            })
            .sum()
    };
    // Other tests' shards count too, so the least of many short looks is what an idle moment costs.
    let idle = (0..50).map(|_| {
        let before = busy();
        std::thread::sleep(Duration::from_millis(20));
        busy().saturating_sub(before)
    });
    assert!(idle.min().unwrap() < 5_000_000, "an idle shard burns its core");
    server.stop();
    server.join();
}
