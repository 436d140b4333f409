//! One run of the server's program.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::wait_until;

/// A running server. Ends with this value, or with the test's process.
pub struct Process {
    child: Child,
    /// What it writes to standard error.
    stderr: File,
}

/// A run that is over.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Run the program to its end.
pub fn run(arguments: &[&str]) -> Ended {
    let program = env!("CARGO_BIN_EXE_ringmain");
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

impl Process {
    /// Start it with `serve` and more arguments, `--stop-with-stdin` among them.
    pub fn start(arguments: &[String]) -> Self {
        let stderr = tempfile::tempfile().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_ringmain"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(stderr.try_clone().unwrap())
            .spawn()
            .unwrap();
        Self { child, stderr }
    }

    /// What it has said on standard error.
    pub fn said(&self) -> String {
        let mut file = self.stderr.try_clone().unwrap();
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        text
    }

    pub fn is_running(&self) -> bool {
        // A process that ended and wasn't reaped is still listed.
        state(&format!("/proc/{}/stat", self.child.id())).is_some_and(|state| state != 'Z')
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Memory that it really uses, in bytes.
    pub fn resident_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }

    /// End it with `SIGKILL`, and reap it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Send it `SIGKILL`, and don't wait for its end.
    pub fn kill_soon(&self) {
        self.signal(Signal::KILL);
    }

    /// Stop it where it is. Its threads stop one by one, a little after the signal.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        let tasks = format!("/proc/{}/task", self.child.id());
        wait_until("all its threads have stopped", || {
            let mut threads = std::fs::read_dir(&tasks).unwrap();
            threads.all(|thread| state(&format!("{}/stat", thread.unwrap().path().display())) == Some('T'))
        });
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Ask it to stop, as a service manager does.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Ask it to stop, as Ctrl-C does.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// End its standard input.
    pub fn end_input(&mut self) {
        let mut stdin = self.child.stdin.take().unwrap();
        stdin.flush().unwrap();
    }

    /// How it ended, once it has.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let mut ended = None;
        wait_until("the server has ended", || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap()
    }

    /// What it is doing, for whoever wonders why it doesn't answer: where its threads are and the time that they have used,
    /// who waits to be accepted, and what its rings wait for.
    fn doings(&self) -> String {
        let process = format!("/proc/{}", self.child.id());
        let read = |path: String| std::fs::read_to_string(path).unwrap_or_else(|error| error.to_string());
        let mut doings = format!("server {} has not ended:\n", self.child.id());
        for thread in entries(&format!("{process}/task")) {
            let [name, waits_in, call, times] =
                ["comm", "wchan", "syscall", "schedstat"].map(|file| read(format!("{thread}/{file}")));
            let lines = [name, waits_in, call, times].map(|text| text.trim().to_owned());
            doings += &format!(
                "thread {}, {:?}: {}\n",
                lines[0],
                state(&format!("{thread}/stat")),
                lines[1..].join(", ")
            );
        }
        // State 0A listens: its `rx_queue` are those who wait to be accepted.
        let sockets = read(format!("{process}/net/tcp"));
        sockets.lines().filter(|line| line.contains(" 0A ")).for_each(|line| doings += &format!("{line}\n"));
        for descriptor in entries(&format!("{process}/fd")) {
            let is_of = |kind: &str| {
                std::fs::read_link(&descriptor).is_ok_and(|link| link.to_string_lossy().contains(kind))
            };
            if is_of("io_uring") || is_of("eventfd") {
                let number = descriptor.rsplit('/').next().unwrap();
                let info = read(format!("{process}/fdinfo/{number}"));
                // Rings list their operations, and then what they wait for: `op=22` reads, `op=13` accepts.
                let info =
                    info.lines().filter(|line| !line.starts_with("  ") || line.contains("op=")).take(60);
                doings += &format!("descriptor {number}: {}\n", info.collect::<Vec<_>>().join("; "));
            }
        }
        doings
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

/// The paths in a directory.
fn entries(path: &str) -> Vec<String> {
    let entries = std::fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| entry.path().display().to_string()).collect()
}

/// The state of a process or thread, by its `stat` file: the letter behind the name, which may hold anything.
fn state(path: &str) -> Option<char> {
    std::fs::read_to_string(path).ok()?.rsplit(") ").next()?.chars().next()
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() && self.is_running() {
            eprintln!("{}", self.doings());
        }
        let _ = self.child.kill();
        let status = self.child.wait();
        if std::thread::panicking() {
            eprintln!("a server ended with {status:?} and had said:\n{}", self.said());
        }
    }
}
