//! The program against a real Redis and a real memcached. Where they are not installed, these tests say so and pass.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use loadgen::report::Report;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_loadgen");
const UP_WITHIN: Duration = Duration::from_secs(10);

/// A server of another make, which ends with this.
struct Server {
    child: Child,
    port: u16,
    url: String,
    folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it was reaped already.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// `None`, and a line that says so, if there is no such program here.
fn start(program: &str, scheme: &str, arguments: impl Fn(u16, &Path) -> Vec<String>) -> Option<Server> {
    let path = format!("/usr/bin/{program}");
    if !Path::new(&path).exists() {
        // Past the harness, which keeps to itself what a test that passes prints.
        let _closed =
            writeln!(std::io::stderr(), "SKIPPED: {path} is not installed, so nothing is tested against it");
        return None;
    }
    let port =
        TcpListener::bind(("127.0.0.1", 0)).and_then(|it| it.local_addr()).expect("a free port").port();
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(path);
    command.args(arguments(port, folder.path())).current_dir(folder.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().expect("it can be run");
    let server = Server { child, port, url: format!("{scheme}://127.0.0.1:{port}"), folder };
    let until = Instant::now() + UP_WITHIN;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < until, "{program} doesn't listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    Some(server)
}

fn redis(more: &str) -> Option<Server> {
    start("redis-server", "redis", |port, _| {
        let line = format!("--port {port} --bind 127.0.0.1 --save '' --appendonly no {more}");
        line.split_whitespace().map(|word| word.replace("''", "")).collect()
    })
}

fn memcached(more: &str) -> Option<Server> {
    start("memcached", "memcached", |port, _| {
        // As root it wants a user, and takes root.
        let line = format!("-p {port} -U 0 -l 127.0.0.1 -u root {more}");
        line.split_whitespace().map(str::to_owned).collect()
    })
}

fn check(server: &Server, line: &str) -> (Output, Report) {
    let json = server.folder.path().join("report.json");
    let mut command = Command::new(PROGRAM);
    command
        .args(["check", "--quiet", "--target", &server.url, "--json"])
        .arg(&json)
        .args(line.split_whitespace());
    let output = command.output().expect("the program can be run");
    let written = std::fs::read(&json).expect("a report");
    (output, serde_json::from_slice(&written).expect("valid JSON"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// A trace of a Redis's life, replayed: lifetimes, deletes, and what is there before.
#[test]
fn traces_are_replayed_on_both() {
    for server in [redis(""), memcached("")].into_iter().flatten() {
        let trace = server.folder.path().join("trace.csv");
        let mut text = "time,op,key,size,ttl\n".to_owned();
        for (second, op) in ["get", "set", "get", "delete", "get"].into_iter().cycle().take(2000).enumerate()
        {
            text += &format!("{second},{op},key{},{},3600\n", second / 5 % 37, 50 + second % 100);
        }
        std::fs::write(&trace, text).expect("a file");
        let mut command = Command::new(PROGRAM);
        command.args(["replay", "--quiet", "--preload", "--trace-speed", "max", "--target", &server.url]);
        let output = command.arg(&trace).output().expect("the program can be run");
        assert_eq!(output.status.code(), Some(0), "{}: {}", server.url, said(&output));
        assert!(said(&output).contains("not judged, as"), "{}", said(&output));
    }
}

const SOUND: &str = "--rate 2k --duration 2s --keys 500 --mix read=50,write=45,delete=5 --slo errors<0.001%";

#[test]
fn redis_is_loaded_and_every_read_verified() {
    let Some(server) = redis("") else { return };
    let (output, report) = check(&server, SOUND);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let settings = &report.configuration;
    assert_eq!(settings["target"], server.url);
    assert_eq!((&*settings["connections"], &*settings["consistency"]), ("4", "strict"));
    assert!(settings["server"].starts_with(|it: char| it.is_ascii_digit()), "{settings:?}");
    assert!(!settings.contains_key("read_quorum"), "{settings:?}");
    assert!(said(&output).contains("not judged, as redis://"), "{}", said(&output));
    let all = report.rows.last().expect("the sum");
    assert_eq!((all.count, all.errors), (4000, 0));
}

#[test]
fn memcached_is_loaded_and_every_read_verified() {
    let Some(server) = memcached("") else { return };
    let (output, report) = check(&server, SOUND);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(report.configuration["server"].starts_with("1."), "{:?}", report.configuration);
    assert_eq!(report.rows.last().expect("the sum").count, 4000);
}

/// Values that live for a second are gone after three; those of an hour are not.
#[test]
fn lifetimes_reach_both() {
    for server in [redis(""), memcached("")].into_iter().flatten() {
        for (ttl, found) in [("1s", false), ("1h", true)] {
            let (output, _) = check(
                &server,
                &format!(
                    "--rate 500 --duration 1s --keys 20 --mix write=100 --slo errors<0.001% --ttl {ttl}"
                ),
            );
            assert!(said(&output).contains("PASS"), "{}", said(&output));
            std::thread::sleep(Duration::from_secs(3));
            let (output, report) =
                check(&server, "--rate 500 --duration 1s --keys 20 --mix read=100 --slo errors<0.001%");
            assert!(said(&output).contains("PASS"), "{}", said(&output));
            let all = report.rows.last().expect("the sum");
            assert_eq!(all.not_found < all.reads, found, "{}: {ttl}: {all:?}", server.url);
        }
    }
}

/// Nobody replicates, so no write is known to be on a second server.
#[test]
fn a_redis_without_replicas_stores_nothing_that_waits_for_one() {
    let Some(server) = redis("") else { return };
    let line = "--rate 50 --duration 1s --mix read=50,write=50 --wait 1 --timeout 400ms --connections 50";
    let (output, report) = check(&server, line);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(
        said(&output).contains("WAIT, the first time: 0 of 1 replicas had the write after 200ms"),
        "{}",
        said(&output)
    );
    let writes = report.rows.iter().find(|row| row.operation == "write").expect("a line");
    assert_eq!((writes.errors, writes.failures["maybe applied"]), (writes.count, writes.count));
}

#[test]
fn a_write_counts_as_stored_when_the_replica_has_it() {
    let Some(server) = redis("--repl-diskless-sync-delay 0") else { return };
    let Some(replica) = redis(&format!("--replicaof 127.0.0.1 {}", server.port)) else {
        return;
    };
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let (output, _) = check(&server, "--rate 200 --duration 1s --wait 1 --slo errors<1% --connections 8");
        if output.status.code() == Some(0) {
            break;
        }
        assert!(Instant::now() < until, "the replica doesn't keep up: {}", said(&output));
    }
    let (output, _) = check(&replica, "--rate 200 --duration 1s --mix write=100");
    assert!(said(&output).contains("READONLY, the first time: READONLY "), "{}", said(&output));
}

#[test]
fn a_full_redis_is_told_in_its_own_words_and_counted() {
    let Some(server) = redis("--maxmemory 2mb --maxmemory-policy noeviction") else { return };
    let (output, report) =
        check(&server, "--rate 1k --duration 2s --keys 5000 --popularity uniform --value-size 4000..8000");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let complaint = report.complaints.iter().find(|it| it.contains("OOM")).expect("the words");
    assert!(
        complaint.starts_with("overloaded, ")
            && complaint.contains("of them OOM, the first time: OOM command"),
        "{complaint}"
    );
    let all = report.rows.last().expect("the sum");
    assert!(all.failures["overloaded"] > 0 && !all.failures.contains_key("lost"), "{all:?}");
}

/// What a cache evicts is a lost write, unless it may.
#[test]
fn evictions_are_lost_writes_unless_they_may_be() {
    let evicting = [redis("--maxmemory 3mb --maxmemory-policy allkeys-random"), memcached("-m 1")];
    for server in evicting.into_iter().flatten() {
        let line =
            "--rate 2k --duration 2s --keys 2000 --popularity uniform --value-size 8000 --slo errors<0.001%";
        let (output, _) = check(&server, line);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains("missed an acknowledged write"), "{}", said(&output));
        let (output, report) = check(&server, &format!("{line} --may-evict"));
        assert_eq!(output.status.code(), Some(0), "{}: {}", server.url, said(&output));
        assert!(
            report.notes.iter().any(|note| note.contains("as the target may evict")),
            "{:?}",
            report.notes
        );
    }
}

/// A value that memcached doesn't take costs the one that was there, and is no lost write; the connection goes on.
#[test]
fn memcached_refuses_what_is_too_large_and_forgets_what_was_there() {
    let Some(server) = memcached("-I 8k -o slab_chunk_max=4096") else { return };
    let line = "--rate 500 --duration 2s --keys 20 --value-size 100:50%,50000:50% --slo errors<60%";
    let (output, report) = check(&server, line);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let all = report.rows.last().expect("the sum");
    assert!(all.failures["refused"] > 100 && all.failures.len() == 1, "{all:?}");
    assert!(report.complaints[0].contains("SERVER_ERROR object too large"), "{:?}", report.complaints);
}

/// Killed half-way: what was under way is in doubt, the rest unreachable, and it is told that the server is gone.
#[test]
fn a_server_that_dies_is_told_about() {
    let Some(mut server) = redis("") else { return };
    let pid = Pid::from_child(&server.child);
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(1500));
        kill_process(pid, Signal::KILL).expect("it runs");
    });
    let (output, report) = check(&server, "--rate 1k --duration 3s");
    killer.join().expect("it was killed");
    server.child.wait().expect("it is a child");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert_eq!(report.gone.len(), 1, "{}", said(&output));
    let all = report.rows.last().expect("the sum");
    assert!(all.failures["unreachable"] > 500 && !all.failures.contains_key("lost"), "{all:?}");
}
