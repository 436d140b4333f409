//! Whether this machine can run a node, asked before the ports open. What is missing is said in one sentence,
//! with what to do about it.

use std::ffi::CStr;
use std::io;
use std::net::SocketAddr;

use thiserror::Error;

use super::log::DataError;

/// The oldest kernel with all that the network ring needs.
const KERNEL_MIN: (u32, u32) = (6, 1);

/// Locked memory of one shard: its network ring, and its executor's three rings and buffers. Measured.
const LOCKED_KIB_PER_SHARD: u64 = 136 + 230;
/// glommio starts under no lower limit, however little it needs.
const LOCKED_KIB_MIN: u64 = 512;

const DISABLED_FILE: &str = "/proc/sys/kernel/io_uring_disabled";

/// Why a node didn't start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The kernel lacks what the network ring needs.
    #[error("Linux {found} is too old: Ringmain needs 6.1 or newer")]
    KernelTooOld {
        /// As it names itself.
        found: String,
    },
    /// The system's policy forbids io_uring.
    #[error(
        "io_uring is disabled on this machine ({by}): allow it, for example with `sysctl kernel.io_uring_disabled=0`, or a seccomp profile with the io_uring system calls"
    )]
    IoUringDisabled {
        /// What says so.
        by: String,
    },
    /// The rings didn't fit under `RLIMIT_MEMLOCK`.
    #[error(
        "{shards} shard(s) need {needed_kib} KiB of locked memory, but the limit is {limit_kib} KiB for all processes of this user together: raise it (`ulimit -l`, or LimitMEMLOCK= in systemd), or run fewer shards"
    )]
    LockedMemory {
        /// Of this node.
        shards: usize,
        /// By this node alone.
        needed_kib: u64,
        /// As it stands.
        limit_kib: u64,
    },
    /// Somebody else listens there.
    #[error("port taken: {address} is in use by another process")]
    PortTaken {
        /// Where we wanted to listen.
        address: SocketAddr,
    },
    /// The address can't be listened on.
    #[error("can't listen on {address}: {reason}")]
    Listen {
        /// Where we wanted to listen.
        address: SocketAddr,
        /// Why not.
        reason: io::Error,
    },
    /// Pinned shards need a core each.
    #[error(
        "{shards} shards need as many cores, but this process may use {cores}: run fewer shards, or don't pin them"
    )]
    Cores {
        /// Asked for.
        shards: usize,
        /// In the affinity mask.
        cores: usize,
    },
    /// Ports were named, but not one for each shard.
    #[error("{ports} shard ports are given for {shards} shards: give one for each, or none")]
    ShardPorts {
        /// Given.
        ports: usize,
        /// Asked for.
        shards: usize,
    },
    /// A node has from 1 to 65,535 shards.
    #[error("a node has at least one shard and at most 65535, not {shards}")]
    Shards {
        /// Asked for.
        shards: usize,
    },
    /// No thread could be started.
    #[error("can't start a thread: {0}")]
    Thread(io::Error),
    /// Signals can't be listened to.
    #[error("can't listen for signals: {0}")]
    Signals(io::Error),
    /// The data directory, or a log in it.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Something else about the rings.
    #[error("can't set up a shard's rings: {0}")]
    Rings(io::Error),
}

impl StartError {
    /// From what io_uring said when rings for `shards` shards were set up.
    pub(super) fn of_rings(error: io::Error, shards: usize) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOMEM) => Self::locked_memory(shards),
            Some(libc::EPERM | libc::ENOSYS | libc::EACCES) => {
                Self::IoUringDisabled { by: format!("setting up a ring gave: {error}") }
            }
            _ => Self::Rings(error),
        }
    }

    /// From an attempt to listen.
    pub(super) fn of_listening(address: SocketAddr, reason: io::Error) -> Self {
        if reason.kind() == io::ErrorKind::AddrInUse {
            return Self::PortTaken { address };
        }
        Self::Listen { address, reason }
    }

    /// The limit is too low, or other processes of this user have used it up.
    pub(super) fn locked_memory(shards: usize) -> Self {
        let needed_kib = (shards as u64 * LOCKED_KIB_PER_SHARD).max(LOCKED_KIB_MIN);
        Self::LockedMemory { shards, needed_kib, limit_kib: locked_kib_max() }
    }
}

/// Look at the kernel, and raise the limits that may be raised.
pub(super) fn machine(shards: usize) -> Result<(), StartError> {
    let found = kernel_release();
    if kernel_version(&found).is_some_and(|version| version < KERNEL_MIN) {
        return Err(StartError::KernelTooOld { found });
    }
    // 1 forbids it to users without privileges, 2 to everybody; of the first case the shards will tell.
    if std::fs::read_to_string(DISABLED_FILE).is_ok_and(|value| value.trim() == "2") {
        return Err(StartError::IoUringDisabled { by: format!("{DISABLED_FILE} is 2") });
    }
    raise(libc::RLIMIT_NOFILE);
    raise(libc::RLIMIT_MEMLOCK);
    if locked_kib_max() < LOCKED_KIB_MIN {
        return Err(StartError::locked_memory(shards));
    }
    Ok(())
}

/// The processors that this process may run on, in order.
pub(super) fn cores() -> Vec<usize> {
    // SAFETY: all zero is a valid, empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is writable and of that size.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) } < 0 {
        return Vec::new();
    }
    // SAFETY: every number asked for is below the size of the set.
    (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect()
}

/// As `uname -r` says.
fn kernel_release() -> String {
    // SAFETY: all zero is valid for arrays of characters.
    let mut name: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: `name` is writable. With a valid pointer the call can't fail.
    unsafe { libc::uname(&raw mut name) };
    // SAFETY: the kernel ends the string with a zero.
    unsafe { CStr::from_ptr(name.release.as_ptr()) }.to_string_lossy().into_owned()
}

/// Major and minor; `None` for a kernel that numbers itself in another way, which is then given a try.
fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The limit on locked memory, in KiB.
fn locked_kib_max() -> u64 {
    limit(libc::RLIMIT_MEMLOCK).map_or(0, |limit| limit.rlim_cur / 1024)
}

fn limit(resource: libc::__rlimit_resource_t) -> Option<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable.
    (unsafe { libc::getrlimit(resource, &raw mut limit) } == 0).then_some(limit)
}

/// Raise a soft limit to the hard one. What can't be raised stays, and may be enough.
fn raise(resource: libc::__rlimit_resource_t) {
    let Some(mut limit) = limit(resource) else { return };
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is readable.
    unsafe { libc::setrlimit(resource, &raw const limit) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_compared_by_number() {
        assert_eq!(kernel_version("6.1.0-13-amd64"), Some((6, 1)));
        assert_eq!(kernel_version("5.15.167.4-microsoft-standard-WSL2"), Some((5, 15)));
        assert!(kernel_version("6.18.44-vm").is_some_and(|version| version >= KERNEL_MIN));
        assert!(kernel_version("5.19").is_some_and(|version| version < KERNEL_MIN));
        assert_eq!(kernel_version("rolling"), None);
    }

    #[test]
    fn this_process_may_run_somewhere() {
        assert!(!cores().is_empty());
    }

    #[test]
    fn errors_of_the_rings_are_told_apart() {
        let error = |code| StartError::of_rings(io::Error::from_raw_os_error(code), 2);
        assert!(matches!(error(libc::ENOMEM), StartError::LockedMemory { needed_kib: 732, .. }));
        assert!(matches!(error(libc::ENOSYS), StartError::IoUringDisabled { .. }));
        assert!(matches!(error(libc::EINVAL), StartError::Rings(_)));
    }
}
