//! Servers as processes on ports of their own, which end with the bench, however that ends.

#[path = "../../tests/cluster/ports.rs"]
mod ports;

use std::fs::File;
use std::io::{ErrorKind, Read, Seek};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::speech::Speech;
use ports::Port;

/// Where servers run that are told to keep to one core; the generator has another.
pub const CORE_OF_SERVERS: usize = 0;
/// A server that reads gigabytes at its start takes so long at most.
const PATIENCE: Duration = Duration::from_secs(600);
const LOOK_AGAIN: Duration = Duration::from_millis(1);

pub struct Server {
    name: &'static str,
    speech: Speech,
    port: Port,
    child: Child,
    /// From its start until it answered.
    started_in: Duration,
}

impl Server {
    /// This one: a cluster of one node, N = 1.
    pub fn ringmain(name: &'static str, core: Option<usize>, more: &[String]) -> Result<Self, String> {
        Self::ringmain_of(Path::new(env!("CARGO_BIN_EXE_ringmain")), name, core, more)
    }

    /// The same of another build.
    pub fn ringmain_of(
        program: &Path,
        name: &'static str,
        core: Option<usize>,
        more: &[String],
    ) -> Result<Self, String> {
        let port = Port::reserve();
        let mut command = Command::new(program);
        command.args(["serve", "--name=n0", &format!("--listen=127.0.0.1:{}", port.number())]).args(more);
        Self::start(name, Speech::Ringmain, port, core, &mut command, "build it first")
    }

    /// Redis, or what descends from it. `more`: settings and their values.
    pub fn redis(
        name: &'static str,
        program: &Path,
        core: Option<usize>,
        directory: &Path,
        more: &[&str],
    ) -> Result<Self, String> {
        let port = Port::reserve();
        let mut command = Command::new(program);
        command.args(["--port", &port.number().to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.arg("--dir").arg(directory).args(more);
        let missing = "install the Debian package redis-server, or say where it is with --redis PATH";
        Self::start(name, Speech::Redis, port, core, &mut command, missing)
    }

    pub fn memcached(
        name: &'static str,
        program: &Path,
        core: Option<usize>,
        megabytes: u64,
    ) -> Result<Self, String> {
        let port = Port::reserve();
        let mut command = Command::new(program);
        command.args(["-p", &port.number().to_string(), "-l", "127.0.0.1", "-U", "0", "-u", "nobody"]);
        command.args(["-m", &megabytes.to_string()]);
        let missing = "install the Debian package memcached, or say where it is with --memcached PATH";
        Self::start(name, Speech::Memcached, port, core, &mut command, missing)
    }

    fn start(
        name: &'static str,
        speech: Speech,
        port: Port,
        core: Option<usize>,
        command: &mut Command,
        missing: &str,
    ) -> Result<Self, String> {
        let stderr = tempfile::tempfile().map_err(|error| error.to_string())?;
        let said = stderr.try_clone().map_err(|error| error.to_string())?;
        command
            .stdin(Stdio::null())
            .stdout(said.try_clone().map_err(|error| error.to_string())?)
            .stderr(said);
        // SAFETY: between fork and exec only system calls are made, and nothing is allocated.
        unsafe {
            command.pre_exec(move || {
                if let Some(core) = core {
                    pin_to_core(core);
                }
                Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
            })
        };
        let program = command.get_program().display().to_string();
        let begun = Instant::now();
        let child = command.spawn().map_err(|error| match error.kind() {
            ErrorKind::NotFound => format!("{program} isn't here: {missing}"),
            _ => format!("{program} doesn't start: {error}"),
        })?;
        let mut server = Self { name, speech, port, child, started_in: Duration::ZERO };
        while server.connect().is_err() {
            if server.child.try_wait().map_err(|error| error.to_string())?.is_some() {
                return Err(format!("{program} ended at once: {}", read_all(stderr)));
            }
            assert!(begun.elapsed() < PATIENCE, "{program} answers within {PATIENCE:?}");
            std::thread::sleep(LOOK_AGAIN);
        }
        server.started_in = begun.elapsed();
        Ok(server)
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn speech(&self) -> Speech {
        self.speech
    }

    pub fn started_in(&self) -> Duration {
        self.started_in
    }

    /// A connection that may ask.
    pub fn connect(&self) -> std::io::Result<TcpStream> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port.number()))?;
        stream.set_nodelay(true)?;
        self.speech.greet(&mut stream)?;
        Ok(stream)
    }

    /// How many of these keys it holds.
    pub fn count_held(&self, keys: impl Iterator<Item = u64>) -> usize {
        let mut stream = self.connect().expect("the server takes calls");
        keys.filter(|key| self.speech.is_held(*key, &mut stream).expect("the server answers")).count()
    }

    /// Memory that it really uses, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it has memory");
        let kib: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
        kib * 1024
    }

    /// Have it stop as it should, and wait for that.
    pub fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it runs");
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{} stops when it is told to: {status}", self.name);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The calling thread, and what it starts. A machine that hasn't so many cores is left as it is.
pub fn pin_to_core(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    let _ = sched_setaffinity(None, &set);
}

fn read_all(mut file: File) -> String {
    let mut text = String::new();
    // What can't be read isn't there to be told.
    let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
    text.trim().to_owned()
}
