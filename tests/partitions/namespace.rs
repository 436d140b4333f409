//! A network namespace without a name: interfaces, routes and neighbours of its own.
//!
//! `ip netns add` gives it a name, and the name is taken away as soon as the namespace is held open here. From then
//! on it lives as long as this value, a thread or a process in it; when the last of them goes, however it went, the
//! kernel takes it down with all its interfaces. So nothing is left behind even by a test that was killed.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Instant, SystemTime};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where `ip netns` keeps its names.
const NAMES: &str = "/run/netns";

/// Why there can be none on this machine, in words.
#[derive(Debug)]
pub(crate) struct NotPermitted(pub(crate) String);

/// Ends with its last user.
#[derive(Debug)]
pub(crate) struct Namespace(File);

impl Namespace {
    /// An empty one, in which even the loopback is down.
    pub(crate) fn make() -> Result<Self, NotPermitted> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let chance = SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringmain-{}-{chance:x}-{number}", std::process::id());
        permitted(&["netns", "add", &name])?;
        let held = File::open(format!("{NAMES}/{name}"));
        permitted(&["netns", "delete", &name])?;
        let namespace = Self(held.map_err(|error| NotPermitted(format!("{NAMES}/{name}: {error}")))?);
        // To make one and to enter it are two permissions.
        std::thread::scope(|scope| scope.spawn(|| namespace.enter()).join().unwrap())
            .map_err(|error| NotPermitted(format!("can't enter a network namespace: {error}")))?;
        Ok(namespace)
    }

    /// Do something on a thread in it. What that starts, threads and processes, begins in it too.
    pub(crate) fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let thread = || {
            self.enter().unwrap();
            act()
        };
        let outcome = std::thread::scope(|scope| scope.spawn(thread).join());
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Lines for `ip`, in it.
    #[track_caller]
    pub(crate) fn ip(&self, lines: &[String]) {
        self.try_ip(lines).unwrap();
    }

    /// Lines for `ip` that not every machine permits.
    pub(crate) fn try_ip(&self, lines: &[String]) -> Result<(), NotPermitted> {
        let output = self.inside(|| batch(lines));
        let said = String::from_utf8_lossy(&output.stderr);
        let why = || NotPermitted(format!("`ip` {lines:?}: {}", said.trim()));
        output.status.success().then_some(()).ok_or_else(why)
    }

    /// The same one.
    pub(crate) fn again(&self) -> Self {
        Self(self.0.try_clone().unwrap())
    }

    /// What `ip` in another namespace calls this one by, while this value lives.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// The calling thread's network is this one from now on.
    fn enter(&self) -> rustix::io::Result<()> {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
    }
}

fn batch(lines: &[String]) -> Output {
    let mut ip = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = ip.stdin.take().unwrap();
    lines.iter().for_each(|line| writeln!(stdin, "{line}").unwrap());
    drop(stdin);
    ip.wait_with_output().unwrap()
}

fn permitted(arguments: &[&str]) -> Result<(), NotPermitted> {
    let command = format!("`ip {}`", arguments.join(" "));
    let output = Command::new("ip").args(arguments).output();
    let output = output.map_err(|error| NotPermitted(format!("{command}: {error} (package iproute2)")))?;
    let said = String::from_utf8_lossy(&output.stderr);
    output.status.success().then_some(()).ok_or_else(|| NotPermitted(format!("{command}: {}", said.trim())))
}

/// A namespace is gone with its last user, and so are the names.
#[test]
fn nothing_is_left_behind() {
    let Ok(namespace) = Namespace::make() else { return };
    let names = std::fs::read_dir(NAMES).unwrap().map(|name| name.unwrap().file_name());
    let own = format!("ringmain-{}-", std::process::id());
    let left = names.filter(|name| name.to_string_lossy().starts_with(&own));
    // Another test of this process may be about to take its name away.
    let begun = Instant::now();
    let left: Vec<_> = left.collect();
    while left.iter().any(|name| std::fs::exists(format!("{NAMES}/{}", name.display())).unwrap()) {
        assert!(begun.elapsed() < crate::cluster::PATIENCE, "{left:?}");
    }
    let interfaces = namespace.inside(|| std::fs::read_to_string("/proc/thread-self/net/dev").unwrap());
    assert_eq!(interfaces.lines().skip(2).filter(|line| line.contains("eth")).count(), 0, "{interfaces}");
}
