//! The program as users run it: real processes, real nodes on 127.0.0.1, exit codes and last lines.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

use loadgen::embedded::{Cluster, Plan};
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

#[test]
fn a_check_of_nobody_says_so_in_one_line() {
    // Nobody listens on port 1.
    let output = run("check --servers 127.0.0.1:1");
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("127.0.0.1:1") && stderr.lines().count() == 1, "{stderr}");
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
        assert_eq!(last_line(&output), "PASS: errors 0% (0 of 1500) < 0.001%", "{stdout}");
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
    assert_eq!(last_line(&output), "PASS: errors 0% (0 of 500) < 0.001%");
}

/// A result does not differ from itself, adds up with itself, and its log has a line a second.
#[test]
fn results_are_logged_compared_and_merged() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (json, hlog, merged) = (path("run.json"), path("run.hlog"), path("merged.json"));
    let slo = "--slo p50<900ms,errors<0.001%";
    let output = run(&format!("--no-kill --rate 300/s --duration 12s {slo} --json {json} --hlog {hlog}"));
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    let log = fs::read_to_string(&hlog).expect("a log");
    let lines = log.lines().filter(|line| !line.starts_with(['#', '"'])).count();
    assert!((12..=14).contains(&lines), "{log}");

    let compared = run(&format!("compare {json} {json}"));
    let stdout = text(&compared.stdout);
    assert_eq!(compared.status.code(), Some(0), "{stdout}");
    assert!(last_line(&compared).starts_with("NO DIFFERENCE"), "{stdout}");
    assert!(stdout.contains("\np50 ") && stdout.contains("p99.9, p99.99: not compared"), "{stdout}");

    let sum = run(&format!("merge {json} {json} --json {merged}"));
    assert_eq!(sum.status.code(), Some(0), "{}{}", text(&sum.stdout), text(&sum.stderr));
    assert!(last_line(&sum).contains("errors 0% (0 of 7200)"), "{}", text(&sum.stdout));
    let compared = run(&format!("compare {json} {merged}"));
    let stdout = text(&compared.stdout);
    assert!(last_line(&compared).starts_with("NO DIFFERENCE"), "{stdout}{}", text(&compared.stderr));

    fs::write(&merged, "{}").expect("a file");
    let refused = run(&format!("compare {json} {merged}"));
    let stderr = text(&refused.stderr);
    assert!(stderr.contains("is no result of loadgen") && stderr.lines().count() == 1, "{stderr}");
    assert_eq!(refused.status.code(), Some(2));
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
    let mistaken = run("search --slo p50<1us check --servers 127.0.0.1:1");
    assert_eq!(mistaken.status.code(), Some(1), "{}", text(&mistaken.stderr));
    assert!(text(&mistaken.stderr).contains("127.0.0.1:1"), "{}", text(&mistaken.stderr));
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

/// The first minutes of a real trace, where there is one: 1,200 s at a speed of 400 take 3 s.
#[test]
fn a_slice_of_a_real_trace_is_replayed_and_verified() {
    const SECONDS: u64 = 1200;
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let data = std::env::var_os("RINGMAIN_DATA").map_or(beside, PathBuf::from);
    let Ok(whole) = fs::read_to_string(data.join("cloudphysics-io.csv")) else {
        eprintln!("skipped: there is no cloudphysics-io.csv in {}", data.display());
        return;
    };
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
    assert_eq!(last_line(&output), expected, "{stdout}");
    assert!(!stderr.contains("is killed"), "{stderr}");
    assert_gone(&pids_in(&stderr));
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id() as i32).expect("not 0")
}
