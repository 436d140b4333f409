//! The servers under measurement: processes on core 0, and how much processor time they have used.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ringmain::shell::{ShellOptions, serve};

use super::floor::Floor;

/// Run as the echo floor, not as the bench.
pub(crate) const FLOOR_ARGUMENT: &str = "--serve-echo-floor";

/// How long a server may take to open its port.
const START_TIME: Duration = Duration::from_secs(5);

pub(crate) struct Server {
    child: Child,
    port: u16,
}

/// Of a process, since its start.
#[derive(Clone, Copy)]
pub(crate) struct ProcessorTime {
    user_us: f64,
    sys_us: f64,
}

/// Of one request.
pub(crate) struct Cost {
    pub(crate) user_us: f64,
    pub(crate) sys_us: f64,
    pub(crate) requests_per_s: f64,
}

impl Cost {
    pub(crate) fn both_us(&self) -> f64 {
        self.user_us + self.sys_us
    }
}

impl Server {
    /// This program again, as the floor.
    pub(crate) fn floor() -> Option<Self> {
        let this = std::env::current_exe().expect("a running program has a path");
        let child = on_core_0(Command::new(this).arg(FLOOR_ARGUMENT).stdout(Stdio::piped()));
        let mut server = Self { child, port: 0 };
        let mut line = String::new();
        BufReader::new(server.child.stdout.take()?).read_line(&mut line).ok()?;
        server.port = line.trim().parse().expect("the floor prints its port");
        Some(server)
    }

    /// The real server: one node, N = 1, one shard. `None` if it doesn't serve.
    pub(crate) fn ringmain() -> Option<Self> {
        let port =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr()).ok()?.port();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringmain"));
        command.args(["serve", "--shards", "1", "--listen", &format!("127.0.0.1:{port}")]);
        let mut server = Self { child: on_core_0(command.stdout(Stdio::null())), port };
        let give_up = Instant::now() + START_TIME;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if server.child.try_wait().ok()?.is_some() || Instant::now() > give_up {
                eprintln!("the real server doesn't serve here: only the floor is measured");
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(server)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// From `/proc`: exact in sum, to a hundredth of a second in its parts.
    pub(crate) fn processor_time(&self) -> ProcessorTime {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        // Fields are counted behind the name, which is in parentheses and may hold spaces.
        let fields: Vec<&str> = stat[stat.rfind(')').expect("a name") + 1..].split_whitespace().collect();
        // SAFETY: no pointers are passed.
        let ticks_per_s = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
        let us = |place: usize| fields[place].parse::<f64>().expect("a number") / ticks_per_s * 1e6;
        ProcessorTime { user_us: us(11), sys_us: us(12) }
    }
}

impl ProcessorTime {
    pub(crate) fn since(self, before: Self, requests: u64, elapsed: Duration) -> Cost {
        Cost {
            user_us: (self.user_us - before.user_us) / requests as f64,
            sys_us: (self.sys_us - before.sys_us) / requests as f64,
            requests_per_s: requests as f64 / elapsed.as_secs_f64(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process behind [`Server::floor`].
pub(crate) fn serve_floor(value_bytes: usize) {
    let options = ShellOptions::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 1);
    let served = serve(
        &options,
        move |_| Floor::new(value_bytes),
        |server| {
            println!("{}", server.ports().ordinary);
            std::io::stdout().flush().expect("the bench listens");
        },
    );
    if let Err(error) = served {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn on_core_0(command: &mut Command) -> Child {
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec only a system call is made, and nothing is allocated.
    unsafe {
        command.pre_exec(|| {
            pin_to_core(0);
            // Dies with the bench, however that ends.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        })
    };
    command.spawn().expect("the server's program starts")
}

pub(crate) fn pin_to_core(core: usize) {
    // SAFETY: all zero is a valid, empty set, and it is passed with its size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}
