//! Where a run took place: figures of two machines don't compare.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The machine and the program.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Environment {
    /// The kernel's name and release.
    pub kernel: String,
    /// The processor's architecture and, where the kernel tells, its model.
    pub processor: String,
    /// Cores this process may use.
    pub cores: usize,
    /// How the kernel sets the processor's frequency; `unknown` where it isn't told, as on virtual machines.
    pub governor: String,
    /// The kernel's clock source: all but `tsc` make reading the clock slow.
    pub clock_source: String,
    /// This crate's version.
    pub version: String,
    /// Whether the compiler optimized: figures of a debug build mean little.
    pub build: String,
    /// When, in seconds since 1970 (UTC).
    pub unix_time_s: u64,
}

impl Environment {
    /// Looks around.
    pub fn observe() -> Self {
        let system = rustix::system::uname();
        let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
        let model = processor_model().map_or(String::new(), |model| format!(" {model}"));
        Self {
            kernel: format!("{} {}", text(system.sysname()), text(system.release())),
            processor: format!("{}{model}", text(system.machine())),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            governor: told_by("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            clock_source: told_by("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            build: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
            unix_time_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        }
    }
}

fn told_by(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

fn processor_model() -> Option<String> {
    let listing = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = listing.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
