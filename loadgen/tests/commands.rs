//! The program as users run it: real processes, real nodes on 127.0.0.1, exit codes and last lines.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

use loadgen::embedded::{Cluster, Plan};
use loadgen::encoded::{decode, encode};
use loadgen::inject::Act;
use loadgen::report::Report;
use loadgen::tally::latency_histogram;
use ringmain_client::Client;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

const PROGRAM: &str = env!("CARGO_BIN_EXE_loadgen");
/// For a node to notice that it is alone, on a loaded machine.
const GONE_WITHIN: Duration = Duration::from_secs(10);

fn command(line: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(line.split_whitespace()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(line: &str) -> Output {
    command(line).output().expect("the program can be run")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn last_line(output: &Output) -> String {
    text(&output.stdout).lines().last().unwrap_or_default().to_owned()
}

/// The nodes of a run, from the line in which it names them.
fn pids_in(stderr: &str) -> Vec<Pid> {
    let line = stderr.lines().find(|line| line.starts_with("nodes: ")).expect("a line that names the nodes");
    let numbers = line.split("process ").skip(1).map(|rest| rest.split(')').next().expect("a parenthesis"));
    numbers.map(|number| Pid::from_raw(number.parse().expect("a process id")).expect("not 0")).collect()
}

fn assert_gone(pids: &[Pid]) {
    assert!(!pids.is_empty());
    let until = Instant::now() + GONE_WITHIN;
    while let Some(pid) = pids.iter().find(|&&pid| test_kill_process(pid).is_ok()) {
        assert!(Instant::now() < until, "node {pid:?} is still there");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A demo that is under way, with its nodes and the rest of its standard error.
fn start_demo() -> (Child, Vec<Pid>, BufReader<ChildStderr>) {
    let mut child = command("--duration 60s --rate 200/s").spawn().expect("the program can be run");
    let mut stderr = BufReader::new(child.stderr.take().expect("it was piped"));
    let mut said = String::new();
    while !said.contains(" ops ") {
        assert!(stderr.read_line(&mut said).expect("readable") > 0, "it ended: {said}");
    }
    (child, pids_in(&said), stderr)
}

/// A debug build on a loaded machine proves that nothing is lost or wrong, not that it is quick: that is the
/// release build's objective.
#[test]
fn a_demo_survives_a_killed_node_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let json = folder.path().join("report.json");
    let output = run(&format!("--duration 4s --slo p99.9<900ms,errors<0.001% --json {}", json.display()));
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
    assert!(last_line(&output).starts_with("PASS: p99.9 "), "{stdout}");
    assert!(stderr.contains("n1 is killed"), "{stderr}");
    for row in ["before read", "before write", "after  read", "after  write", "all    all"] {
        assert!(stdout.contains(row), "{stdout}");
    }
    assert_gone(&pids_in(&stderr));
    let report: serde_json::Value =
        serde_json::from_slice(&fs::read(json).expect("a report")).expect("valid JSON");
    assert_eq!((&report["result"], &report["exit_code"]), (&"PASS".into(), &0.into()));
    assert_eq!(report["configuration"]["read_quorum"], "2");
}

#[test]
fn other_ways_of_writing_are_verified_too() {
    for writes in ["update", "blind"] {
        let output = run(&format!(
            "--duration 1s --keys 1000 --mix read=50,write=45,delete=5 --writes {writes} --slo errors<0.001%"
        ));
        assert_eq!(
            output.status.code(),
            Some(0),
            "{writes}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
    }
}

/// Whom requests went to shows in what servers passed on to each other.
#[test]
fn requests_go_to_owners_to_anybody_or_to_the_wrong_ones_as_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let plan = Plan { program: PathBuf::from(PROGRAM), nodes: 3, shards: 1, replicas: 1 };
    let (cluster, client) = runtime.block_on(Cluster::start(&plan, &Client::builder())).expect("a cluster");
    let passed_on = || -> u64 {
        let shards = runtime.block_on(client.status()).into_iter();
        let counters = shards.flat_map(|shard| shard.status.expect("it serves").counters);
        counters.filter(|counter| counter.name == "forwarded_to_peers").map(|counter| counter.value).sum()
    };
    let servers = cluster.addresses().join(",");
    for (routing, shares) in [("client", 0..=2), ("server", 55..=78), ("wrong", 95..=100)] {
        let json = folder.path().join(format!("{routing}.json"));
        let before = passed_on();
        let output = run(&format!(
            "check --servers {servers} --rate 500 --duration 2s --slo errors<0.001% --routing {routing} --json {}",
            json.display()
        ));
        assert_eq!(
            output.status.code(),
            Some(0),
            "{routing}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        let share = (passed_on() - before) * 100 / 1000;
        assert!(shares.contains(&share), "{routing}: {share}% were passed on");
        let report: Report = serde_json::from_slice(&fs::read(json).expect("a report")).expect("valid JSON");
        assert_eq!(report.configuration["routing"], routing);
    }
    drop(cluster);
    let output = run("--nodes 3 --replicas 3 --no-kill --duration 1s --routing wrong");
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains("--routing wrong needs a shard that doesn't hold the key: there are 3"),
        "{stderr}"
    );
}

/// Each thing at its time, told in every output, and nothing is lost over a restart with empty memory and a pause.
#[test]
fn what_is_injected_is_done_on_time_and_told_everywhere() {
    let folder = tempfile::tempdir().expect("a folder");
    let [json, hlog] = ["report.json", "run.hlog"].map(|name| folder.path().join(name));
    let mut command = command("--duration 6s --rate 200 --slo errors<5%");
    command.args(["--inject", "at=1s kill n2; at=2s restart n2; at=4s pause n3 500ms"]);
    let output = command.arg("--json").arg(&json).arg("--hlog").arg(&hlog).output().expect("it can be run");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
    let report: Report = serde_json::from_slice(&fs::read(json).expect("a report")).expect("valid JSON");
    let expected = [
        (1.0, "n2", Act::Kill, "n2 is killed"),
        (2.0, "n2", Act::Restart, "n2 is started again"),
        (4.0, "n3", Act::Pause, "n3 is paused"),
        (4.5, "n3", Act::Resume, "n3 goes on"),
    ];
    let hlog = fs::read_to_string(hlog).expect("a log");
    assert_eq!(report.marks.len(), expected.len(), "{:?}", report.marks);
    for (mark, (planned_s, node, action, told)) in report.marks.iter().zip(expected) {
        assert_eq!((mark.planned_s, &*mark.node, mark.action), (planned_s, node, action));
        assert!((0.0..0.25).contains(&(mark.at_s - planned_s)), "{mark:?}");
        assert!(stderr.contains(told), "{stderr}");
        for (name, output) in [("text", &stdout), ("hlog", &hlog)] {
            assert!(output.contains(&mark.to_string()), "{name}: {output}");
        }
    }
    assert!(stdout.contains("before read") && stdout.contains("after  read"), "{stdout}");
    let settings = &report.configuration;
    assert_eq!(settings["inject"], "at=1s kill n2; at=2s restart n2; at=4s pause n3 500ms");
    assert_eq!(settings["kill"], "false");
    assert_gone(&pids_in(&stderr));
}

/// A paused node can't hear that it shall stop: it is let go on first, and the end is a good one.
#[test]
fn a_run_may_end_within_a_pause() {
    let mut command = command("--duration 2s --rate 200 --slo errors<50%");
    command.args(["--inject", "at=1500ms pause n3 1m"]);
    let output = command.output().expect("it can be run");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
    assert!(stdout.contains("not done, as the run was over before: n3 goes on at 61.5s"), "{stdout}");
    assert_gone(&pids_in(&stderr));
}

#[test]
fn an_objective_that_cannot_be_met_fails() {
    let output = run("--duration 3s --no-kill --slo p99.9<1us");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    assert!(last_line(&output).starts_with("FAIL: p99.9 "), "{}", text(&output.stdout));
}

#[test]
fn a_load_that_this_machine_cannot_offer_is_the_generators_fault() {
    let output = run("--rate 10M/s --duration 200ms --no-kill --in-flight 64 --timeout 100ms");
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stdout));
    assert!(last_line(&output).starts_with("FAIL: the generator itself"), "{}", text(&output.stdout));
}

#[test]
fn mistakes_are_told_in_one_line_before_anything_starts() {
    for (line, words) in [
        ("--slo p99.9", "bounds nothing"),
        ("replay no-such-file.csv", "no-such-file.csv"),
        ("--json no-such-folder/report.json", "no-such-folder/report.json"),
        ("--hlog no-such-folder/run.hlog", "no-such-folder/run.hlog"),
        ("--preset twitter-99", "did you mean twitter-9, "),
        ("--workload ycsb-e", "95% scans"),
        ("--slo p99<5ms,stael<1%", "did you mean stale?"),
        ("--phases ramp", "ramp FROM..TO TIME"),
        ("compare no-such.json other.json", "no-such.json"),
        ("merge no-such.json other.json", "no-such.json"),
        ("search --slo p50<1ms replay trace.csv", "replay"),
        ("search --slo p50<1ms check", "--servers"),
        ("sweep --vary rate demo", "varies nothing"),
        ("sweep --vary rat=1,2 demo", "--rat"),
        ("sweep --vary rate=1k,fast demo", "'fast'"),
    ] {
        let output = run(line);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}: {stderr}");
        assert!(stderr.contains(words) && stderr.lines().count() == 1, "{line}: {stderr}");
    }
}

/// Nothing was measured, so nothing was missed: the address is wrong, whichever command has it.
#[test]
fn a_load_on_nobody_says_so_in_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("trace.csv");
    fs::write(&trace, "time,op,key,size\n0,set,a,10\n").expect("a file");
    // Nobody listens on port 1.
    for line in ["check".to_owned(), format!("replay {}", trace.display())] {
        let output = run(&format!("{line} --servers 127.0.0.1:1"));
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}: {stderr}");
        let last = stderr.lines().last().unwrap_or_default();
        assert!(last.starts_with("error: ") && last.contains("127.0.0.1:1"), "{line}: {stderr}");
    }
    for study in ["search --slo p50<1s", "sweep --vary keys=10,20"] {
        let output = run(&format!("{study} check --servers 127.0.0.1:1"));
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{study}: {stderr}");
        assert!(stderr.contains("not run: ") && stderr.contains("127.0.0.1:1"), "{study}: {stderr}");
        let last = last_line(&output);
        let told = last.starts_with("NOT RUN: ") || last.ends_with("2 could not be carried out");
        assert!(told, "{study}: {last}");
    }
}

#[test]
fn an_interrupt_ends_early_with_a_report() {
    let (child, nodes, stderr) = start_demo();
    let (code, stdout) = interrupted(child, stderr);
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stdout.contains("\nFAIL: the run was stopped before its end\n"), "{stdout}");
    assert!(stdout.contains("all    read"), "{stdout}");
    assert_gone(&nodes);
}

/// A crash of a node that nobody meant to kill fails the run, however good its figures.
#[test]
fn a_node_that_ends_by_itself_is_told_about() {
    let (child, nodes, stderr) = start_demo();
    kill_process(nodes[1], Signal::KILL).expect("it runs");
    // A process that has ended is a zombie until its parent asks for it, which is at the end of the run.
    let stat = format!("/proc/{}/stat", nodes[1].as_raw_nonzero());
    while !fs::read_to_string(&stat).expect("not reaped yet").contains(") Z ") {
        std::thread::sleep(Duration::from_millis(10));
    }
    let (code, stdout) = interrupted(child, stderr);
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stdout.contains("FAIL: node n2 ended by itself (signal: 9"), "{stdout}");
    assert_gone(&nodes);
}

/// Its exit code and standard output.
fn interrupted(mut child: Child, mut stderr: BufReader<ChildStderr>) -> (Option<i32>, String) {
    kill_process(pid_of(&child), Signal::INT).expect("it runs");
    let (mut stdout, mut rest) = (String::new(), String::new());
    stderr.read_to_string(&mut rest).expect("readable");
    child.stdout.take().expect("it was piped").read_to_string(&mut stdout).expect("readable");
    (child.wait().expect("a child").code(), stdout + &rest)
}

/// Nobody is left to end the nodes: they must notice themselves.
#[test]
fn nodes_do_not_outlive_a_generator_that_died() {
    for signal in [Signal::KILL, Signal::ABORT] {
        let (mut child, nodes, _stderr) = start_demo();
        kill_process(pid_of(&child), signal).expect("it runs");
        child.wait().expect("a child");
        assert_gone(&nodes);
    }
}

#[test]
fn a_panic_leaves_no_node_behind() {
    let plan = Plan { program: PathBuf::from(PROGRAM), ..Plan::of_this_program(2, 1, 2) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let started = runtime.block_on(Cluster::start(&plan, &Client::builder()));
    let (cluster, client) = started.expect("a cluster");
    let nodes: Vec<Pid> =
        cluster.pids().iter().map(|&pid| Pid::from_raw(pid as i32).expect("not 0")).collect();
    assert!(nodes.iter().all(|&pid| test_kill_process(pid).is_ok()), "they run");
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _unwound = (cluster, client);
        std::panic::resume_unwind(Box::new("a panic that is meant"));
    }));
    assert!(panicked.is_err());
    // Dropping reaps, so there is nothing to wait for.
    assert!(nodes.iter().all(|&pid| test_kill_process(pid).is_err()), "{nodes:?}");
}

/// A node that can't start is named, with its own words.
#[test]
fn a_node_that_ends_at_its_start_is_told_about() {
    let plan = Plan { program: PathBuf::from("/bin/false"), ..Plan::of_this_program(1, 1, 1) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let error = runtime.block_on(Cluster::start(&plan, &Client::builder())).expect_err("no node");
    assert_eq!(error.to_string(), "node n1 ended at its start (exit status: 1): it said nothing");
}

#[test]
fn a_malformed_line_of_a_trace_is_told_with_its_number() {
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("trace.csv");
    fs::write(&trace, "time,op,key,size,ttl\n0.1,set,a,10,\n0.2,get,a,,\n0.3,sett,a,10,\n").expect("a file");
    let output = run(&format!("replay {}", trace.display()));
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("line 4: op 'sett' is no operation") && stderr.lines().count() == 1, "{stderr}");
}

/// As fast as answers come, with values that expire while they are read.
#[test]
fn a_trace_of_requests_is_replayed_and_verified() {
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("trace.csv");
    let mut lines = vec!["time,op,key,size,ttl".to_owned()];
    for request in 0..1500u32 {
        let operation = ["get", "set", "get", "delete"][request as usize % 4];
        let ttl = if request % 8 == 1 { "1" } else { "" };
        lines.push(format!(
            "{}.5,{operation},user:{},{},{ttl}",
            request / 100,
            request * 7 % 40,
            50 + request % 900
        ));
    }
    fs::write(&trace, lines.join("\n")).expect("a file");
    for speed in ["max", "8x"] {
        let output = run(&format!("replay {} --trace-speed {speed}", trace.display()));
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
        assert!(last_line(&output).starts_with("PASS: errors 0% (0 of 1500) < 0.001% "), "{stdout}");
        assert_eq!(stdout.contains("as fast as answers came"), speed == "max", "{stdout}");
    }
}

/// Sizes, mixes, inserts, read-modify-writes and lifetimes, all verified.
#[test]
fn named_loads_are_offered_and_verified() {
    for load in [
        "--workload ycsb-d",
        "--workload ycsb-f",
        "--preset twitter-12 --keys 500",
        "--preset etc --keys 500",
    ] {
        let output = run(&format!("{load} --no-kill --rate 500/s --duration 1s --slo errors<0.001%"));
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{load}: {stdout}{stderr}");
        assert!(stderr.contains("keys first"), "{load}: {stderr}");
    }
    let list = run("--preset list");
    assert_eq!(list.status.code(), Some(0));
    assert!(text(&list.stdout).contains("twitter-54"));
}

#[test]
fn phases_have_their_lines_and_warm_up_is_not_judged() {
    let phases = "warmup 200 500ms, ramp 200..400 1s, spike 100..600 200ms 1s";
    let mut command = command("--no-kill --slo errors<0.001%");
    let output = command.args(["--phases", phases]).output().expect("the program can be run");
    let stdout = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{stdout}{}", text(&output.stderr));
    for line in
        ["1 warmup all              100 ", "2 ramp   all              300 ", "3 spike  all              120 "]
    {
        assert!(stdout.contains(line), "{stdout}");
    }
    assert_eq!(
        last_line(&output),
        "PASS: errors 0% (0 of 500) < 0.001% (to rely on it takes 300000 operations)"
    );
}

/// A cluster of this test's own, for as long as it is held.
struct Served {
    cluster: Cluster,
    _client: Client,
    _runtime: tokio::runtime::Runtime,
}

impl Served {
    fn start(nodes: u8) -> Self {
        let plan = Plan { program: PathBuf::from(PROGRAM), ..Plan::of_this_program(nodes, 1, nodes) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let started = runtime.block_on(Cluster::start(&plan, &Client::builder()));
        let (cluster, client) = started.expect("a cluster");
        Self { cluster, _client: client, _runtime: runtime }
    }

    fn addresses(&self) -> String {
        self.cluster.addresses().join(",")
    }

    fn signal(&self, node: usize, signal: Signal) {
        let pid = Pid::from_raw(self.cluster.pids()[node] as i32).expect("not 0");
        kill_process(pid, signal).expect("it runs");
    }
}

/// A result with all latencies of its intervals this many times as long.
fn slowed(json: &Path, times: u64) -> String {
    let mut report: Report = serde_json::from_slice(&fs::read(json).expect("a result")).expect("a report");
    for interval in &mut report.intervals {
        let mut slower = latency_histogram();
        for step in decode(&interval.due_histogram).expect("a histogram").iter_recorded() {
            let count = step.count_since_last_iteration();
            slower.record_n(step.value_iterated_to() * times, count).expect("in range");
        }
        interval.due_histogram = encode(&slower);
    }
    report.runs = vec!["slowed".to_owned()];
    report.json()
}

/// Two processes load one cluster at the same time: each has a log, they add up, and they are held against each other.
#[test]
fn results_are_logged_compared_and_merged() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (one, two, merged, hlog) = (path("1.json"), path("2.json"), path("merged.json"), path("run.hlog"));
    let served = Served::start(1);
    let line = |more: String| {
        let slo = "--slo p50<900ms,errors<0.001%";
        format!("check --servers {} --rate 300/s --duration 12s {slo} {more}", served.addresses())
    };
    let mut other =
        command(&line(format!("--seed 2 --key-first 50000 --json {two}"))).spawn().expect("a run");
    let output = run(&line(format!("--seed 1 --json {one} --hlog {hlog}")));
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(other.wait().expect("a child").code(), Some(0));
    let log = fs::read_to_string(&hlog).expect("a log");
    let lines = log.lines().filter(|line| !line.starts_with(['#', '"'])).count();
    assert!((12..=14).contains(&lines), "{log}");

    let compared = run(&format!("compare {one} {two}"));
    let (stdout, last) = (text(&compared.stdout), last_line(&compared));
    let differs = last.starts_with("DIFFERENT: B has ");
    assert!(differs || last.starts_with("NO DIFFERENCE"), "{stdout}");
    assert_eq!(compared.status.code(), Some(i32::from(differs)), "{stdout}");
    assert!(stdout.contains("\np50 ") && stdout.contains("\none run of each side: "), "{stdout}");
    let slower = path("slower.json");
    // So much that it shows however unsteady this machine was meanwhile.
    fs::write(&slower, slowed(Path::new(&one), 200)).expect("a file");
    let compared = run(&format!("compare {one} {slower}"));
    let stdout = text(&compared.stdout);
    assert_eq!(compared.status.code(), Some(1), "{stdout}");
    assert!(last_line(&compared).starts_with("DIFFERENT: B has p50 slower by "), "{stdout}");

    let itself = run(&format!("compare {one} {one}"));
    let stderr = text(&itself.stderr);
    assert_eq!(itself.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("are results of the same run") && stderr.lines().count() == 1, "{stderr}");

    let sum = run(&format!("merge {one} {two} --json {merged}"));
    assert_eq!(sum.status.code(), Some(0), "{}{}", text(&sum.stdout), text(&sum.stderr));
    assert!(last_line(&sum).contains("errors 0% (0 of 7200)"), "{}", text(&sum.stdout));
    for (files, words) in [
        (format!("{one} {one}"), "results of the same run"),
        (format!("{merged} {two}"), "results of the same run"),
        (
            format!("{one} {}", {
                fs::write(path("x.json"), "{}").expect("a file");
                path("x.json")
            }),
            "is no result",
        ),
    ] {
        let refused = run(&format!("merge {files}"));
        let stderr = text(&refused.stderr);
        assert!(stderr.contains(words) && stderr.lines().count() == 1, "{files}: {stderr}");
        assert_eq!(refused.status.code(), Some(2), "{files}");
    }
}

/// A node that is stopped for 600 ms answers nothing: 300/s go on being due, and each is charged from then on.
#[test]
fn a_server_that_stalls_is_charged_from_the_due_moment() {
    let folder = tempfile::tempdir().expect("a folder");
    let json = folder.path().join("run.json");
    let served = Served::start(1);
    let line = format!(
        "check --servers {} --rate 300/s --duration 3s --timeout 5s --slo errors<0.001% --json {}",
        served.addresses(),
        json.display()
    );
    let mut child = command(&line).spawn().expect("the program can be run");
    let mut stderr = BufReader::new(child.stderr.take().expect("it was piped"));
    let mut said = String::new();
    while !said.contains(" ops ") {
        assert!(stderr.read_line(&mut said).expect("readable") > 0, "it ended: {said}");
    }
    served.signal(0, Signal::STOP);
    std::thread::sleep(Duration::from_millis(600));
    served.signal(0, Signal::CONT);
    let output = child.wait_with_output().expect("a child");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    let report: Report = serde_json::from_slice(&fs::read(json).expect("a result")).expect("a report");
    let total = report.total().expect("its figures");
    let due = total.due_histogram();
    let slow = due.count_between(300_000_000, due.high());
    assert!(due.max() >= 550_000_000, "{}", due.max());
    // Evenly from 0 to 600 ms: half of 180.
    assert!((70..=150).contains(&slow), "{slow} of {} took 300 ms or more", total.operations());
}

/// The searcher kills nothing, and would find the limit of two nodes, if it took a death for slowness.
#[test]
fn a_search_stops_where_a_node_dies() {
    let served = Served::start(3);
    let line = format!(
        "search --slo p50<900ms,errors<50% --from 50/s check --servers {} --duration 700ms --quiet",
        served.addresses()
    );
    let mut child = command(&line).spawn().expect("the program can be run");
    let mut stderr = BufReader::new(child.stderr.take().expect("it was piped"));
    let mut said = String::new();
    while !said.contains("PASS: ") {
        assert!(stderr.read_line(&mut said).expect("readable") > 0, "it ended: {said}");
    }
    served.signal(2, Signal::KILL);
    let mut stdout = String::new();
    stderr.read_to_string(&mut said).expect("readable");
    child.stdout.take().expect("it was piped").read_to_string(&mut stdout).expect("readable");
    assert_eq!(child.wait().expect("a child").code(), Some(1), "{stdout}{said}");
    let silent =
        ["answered before the run, and not after it", "answered in earlier runs, and doesn't any longer"];
    let told = silent.iter().any(|sentence| stdout.contains(sentence));
    assert!(stdout.starts_with("BROKEN: at ") && told, "{stdout}{said}");
}

#[test]
fn a_search_for_the_impossible_ends_with_none() {
    let output = run("search --slo p50<1us --from 2 demo --no-kill --nodes 1 --duration 2500ms --quiet");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(
        (output.status.code(), stdout.as_str()),
        (Some(1), "NONE: even 1/s doesn't meet p50<1µs\n"),
        "{stderr}"
    );
}

/// A thousand operations say nothing about a p99.9999: neither that the rate is too high, nor that it isn't.
#[test]
fn a_search_with_runs_that_are_too_short_says_so() {
    let line =
        "search --slo p99.9999<900ms --from 20k --precision 50% demo --no-kill --nodes 1 --duration 200ms";
    let output = run(line);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{stdout}{stderr}");
    assert!(
        stdout.starts_with("UNKNOWN: ") && stdout.ends_with("make the runs longer\n"),
        "{stdout}{stderr}"
    );
}

#[test]
fn a_sweep_runs_every_combination_and_keeps_its_results() {
    let folder = tempfile::tempdir().expect("a folder");
    let into = folder.path().display().to_string();
    let mut command = command(&format!("sweep --vary rate=50,100 --repeat 2 --into {into}"));
    command.args(["--vary", "mix=read=100;read=50,write=50"]);
    let output = command
        .args("demo --no-kill --nodes 1 --duration 300ms --slo errors<1%".split(' '))
        .output()
        .expect("the program can be run");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
    assert_eq!(last_line(&output), "8 of 8 runs met their objective");
    assert!(
        stdout.contains("0    rate=50 mix=read=100 ")
            && stdout.contains("7    rate=100 mix=read=50,write=50"),
        "{stdout}"
    );
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 8);
    let seeds: BTreeSet<u64> = (0..8)
        .map(|place| {
            let path = folder.path().join(format!("run-{place}.json"));
            let report: Report = serde_json::from_slice(&fs::read(path).expect("a file")).expect("a report");
            report.configuration["seed"].parse().expect("a number")
        })
        .collect();
    assert!(seeds.len() == 2 && seeds.contains(&1), "one for each repetition: {seeds:?}");
    assert!(seeds.iter().all(|seed| stderr.contains(&format!(" seed={seed} "))), "{stderr}");
    let again = run(&format!("sweep --vary rate=50 --into {into} demo --no-kill --nodes 1 --duration 300ms"));
    let stderr = text(&again.stderr);
    assert_eq!(again.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("has the results of another sweep, such as run-0.json"), "{stderr}");
}

/// Somebody has seen enough: what there is by then is told, and written down.
#[test]
fn a_study_that_is_stopped_tells_what_it_has() {
    let folder = tempfile::tempdir().expect("a folder");
    let json = folder.path().join("search.json");
    let load = "demo --no-kill --nodes 1 --duration 1s --quiet";
    let stopped = |line: String| {
        let mut child = command(&line).spawn().expect("the program can be run");
        let mut stderr = BufReader::new(child.stderr.take().expect("it was piped"));
        let mut said = String::new();
        assert!(stderr.read_line(&mut said).expect("readable") > 0, "it ended");
        let (code, stdout) = interrupted(child, stderr);
        assert_eq!(code, Some(1), "{said}{stdout}");
        stdout
    };
    let swept = stopped(format!("sweep --vary keys=10,20 --repeat 9 {load} --slo errors<1%"));
    assert!(swept.contains(" runs met their objective, of 18 that were to be"), "{swept}");
    assert!(swept.contains("\nSTOPPED: ") && swept.matches("  PASS").count() >= 1, "{swept}");
    let slo = "--slo p50<900ms,errors<50%";
    let searched = stopped(format!("search {slo} --from 50 --json {} {load}", json.display()));
    assert!(searched.starts_with("STOPPED: after "), "{searched}");
    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(json).expect("a file")).expect("valid JSON");
    assert!(json["answer"].is_null(), "{json}");
    assert!(json["runs"].as_array().is_some_and(|runs| !runs.is_empty()), "{json}");
}

/// Runs leave values behind, longer ones and shorter ones: they are none of the next run's concern.
#[test]
fn a_sweep_over_sizes_of_values_meets_its_own_remains() {
    let served = Served::start(1);
    let addresses = served.addresses();
    let line = format!("--rate 400/s --duration 500ms --keys 30 --slo errors<1% --servers {addresses}");
    let output = run(&format!("sweep --vary value-size=200,13,90,5 --repeat 2 check {line}"));
    assert_eq!(last_line(&output), "8 of 8 runs met their objective", "{}", text(&output.stdout));
    // One that can't be carried out is told, and the rest goes on.
    let line = line.replace(&format!(" --servers {addresses}"), "");
    let output = run(&format!("sweep --vary servers=127.0.0.1:1,{addresses} check {line}"));
    let stdout = text(&output.stdout);
    assert_eq!(last_line(&output), "1 of 2 runs met their objective; 1 could not be carried out", "{stdout}");
    assert_eq!(output.status.code(), Some(2), "{stdout}");
    assert!(stdout.contains("not run: ") && stdout.contains("PASS"), "{stdout}");
}

/// Somebody builds while a study goes on: all its runs are still by the program that began it.
#[test]
fn a_study_is_of_one_build() {
    let folder = tempfile::tempdir().expect("a folder");
    let (program, other) = (folder.path().join("loadgen"), folder.path().join("other"));
    fs::copy(PROGRAM, &program).expect("a copy");
    fs::copy("/bin/false", &other).expect("another program");
    let line = "sweep --vary keys=10 --repeat 3 demo --no-kill --nodes 1 --duration 300ms --slo errors<1%";
    let mut command = Command::new(&program);
    command.args(line.split_whitespace()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the copy can be run");
    let mut stderr = BufReader::new(child.stderr.take().expect("it was piped"));
    let mut said = String::new();
    stderr.read_line(&mut said).expect("readable");
    assert!(said.contains("1 of 3"), "{said}");
    fs::rename(&other, &program).expect("it takes its place");
    let (mut rest, mut stdout) = (String::new(), String::new());
    stderr.read_to_string(&mut rest).expect("readable");
    child.stdout.take().expect("it was piped").read_to_string(&mut stdout).expect("readable");
    assert_eq!(child.wait().expect("a child").code(), Some(0), "{stdout}{rest}");
    assert!(stdout.ends_with("3 of 3 runs met their objective\n"), "{stdout}{rest}");
}

#[test]
fn a_small_trace_is_replayed_and_verified() {
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("trace.csv");
    let mut lines = vec!["version,time,op,size,lbn".to_owned()];
    for request in 0..400u32 {
        let operation = if request % 3 == 0 { "28" } else { "2a" };
        let (second, size, object) = (request / 100, 100 + request * 97 % 40_000, request * 7 % 50);
        lines.push(format!("1,{second},{operation},{size},{object}"));
    }
    fs::write(&trace, lines.join("\n")).expect("a file");
    assert_replayed(&trace, 10, 400);
}

/// The first minutes of a real trace: 1,200 s at a speed of 400 take 3 s.
#[test]
#[ignore = "needs cloudphysics-io.csv: RINGMAIN_DATA=FOLDER cargo test -p loadgen a_slice -- --ignored"]
fn a_slice_of_a_real_trace_is_replayed_and_verified() {
    const SECONDS: u64 = 1200;
    let data = std::env::var_os("RINGMAIN_DATA").expect("RINGMAIN_DATA names the folder of the trace");
    let whole = fs::read_to_string(PathBuf::from(data).join("cloudphysics-io.csv")).expect("the trace");
    let second = |line: &str| line.split(',').nth(1).and_then(|time| time.parse::<u64>().ok());
    let first = whole.lines().find_map(second).expect("a request");
    let slice: Vec<&str> =
        whole.lines().take_while(|line| second(line).is_none_or(|time| time < first + SECONDS)).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("slice.csv");
    fs::write(&trace, slice.join("\n")).expect("a file");
    assert_replayed(&trace, 400, slice.len() as u64 - 1);
}

fn assert_replayed(trace: &Path, speed: u32, requests: u64) {
    let output = run(&format!("replay {} --preload --speed {speed}", trace.display()));
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
    let expected = format!("PASS: errors 0% (0 of {requests}) < 0.001%");
    assert!(last_line(&output).starts_with(&expected), "{stdout}");
    assert!(!stderr.contains("is killed"), "{stderr}");
    assert_gone(&pids_in(&stderr));
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id() as i32).expect("not 0")
}
