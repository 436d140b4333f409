//! Trying io_uring before relying on it: what the kernel refuses becomes an error with a way out.

use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;
use std::time::Duration;

use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};
use io_uring::{IoUring, cqueue, squeue};

use super::probe::StartError;

/// glommio's registered buffers: the least that it takes. They count against `RLIMIT_MEMLOCK`.
const EXECUTOR_IO_BYTES: usize = 64 * 1024;
/// When glommio asks a task to make room for others: never, for a shard is the only task of its executor.
///
/// An executor that finds this time over, because its thread was held up in the wrong moment (stopped, or its machine was),
/// takes it that there is nothing to run, and sleeps although the shard's task has been woken. No bell wakes it then, for the
/// task has not begun to wait for one: the shard is dead until somebody stops and continues the process.
const PREEMPTED_AFTER: Duration = Duration::from_secs(365 * 86_400);

/// Whether a ring of the kind that the network needs can be had at all.
///
/// To be asked by a shard's thread: when a ring goes, the kernel interrupts the thread that made it once more,
/// whatever that may be waiting for.
fn ring() -> io::Result<()> {
    IoUring::<squeue::Entry, cqueue::Entry>::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(8)
        .map(drop)
}

/// An executor for one of `shards` shards, bound to `core` if there is one.
pub(super) fn executor(core: Option<usize>, shards: usize) -> Result<LocalExecutor, StartError> {
    ring().map_err(|error| StartError::of_rings(error, shards))?;
    let placement = core.map_or(Placement::Unbound, Placement::Fixed);
    let builder = LocalExecutorBuilder::new(placement);
    let builder = builder.io_memory(EXECUTOR_IO_BYTES).preempt_timer(PREEMPTED_AFTER);
    match quietly(|| builder.make()) {
        Some(made) => made.map_err(|error| StartError::of_rings(error.into(), shards)),
        // glommio panics when it can't have the ring by which it asks what the kernel can do. After `ring` has
        // worked, that is for want of locked memory.
        None => Err(StartError::locked_memory(shards)),
    }
}

/// While it lives, this process is given small pages only.
///
/// The kernel counts whole pages as locked, and glommio registers its buffers three times: on huge pages, which
/// our allocator asks for, its 64 KiB count as 6 MiB, most of what an ordinary user may lock. So executors are
/// made on small pages, and 22 nodes fit where 10 did. What is allocated meanwhile may become huge later.
pub(super) struct SmallPages {
    /// It was so before, and stays so.
    before: bool,
}

impl SmallPages {
    pub(super) fn begin() -> Self {
        // SAFETY: no pointers are passed. Where a kernel refuses, its pages stay as they are.
        let before = unsafe { libc::prctl(libc::PR_GET_THP_DISABLE, 0, 0, 0, 0) } == 1;
        Self::set(true);
        Self { before }
    }

    fn set(small: bool) {
        // SAFETY: as above.
        unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, libc::c_ulong::from(small), 0, 0, 0) };
    }
}

impl Drop for SmallPages {
    fn drop(&mut self) {
        Self::set(self.before);
    }
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// The result of `make`, or `None` if it panicked, of which nothing is printed.
fn quietly<T>(make: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                before(panic);
            }
        }));
    });
    QUIET.set(true);
    // What `make` was about to make is gone with it.
    let made = catch_unwind(AssertUnwindSafe(make)).ok();
    QUIET.set(false);
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node whose process was stopped for 120 ms at a time under load was dead after 76 times.
    #[test]
    fn a_thread_that_was_held_up_runs_its_task_next() {
        let executor = executor(None, 1).unwrap();
        executor.run(async {
            glommio::timer::sleep(Duration::from_millis(1)).await;
            // Three times as long as glommio gives a task by itself.
            std::thread::sleep(Duration::from_millis(300));
            assert!(
                !glommio::executor().need_preempt(),
                "the executor would go to sleep on a task that can run"
            );
        });
    }

    #[test]
    fn a_panic_on_the_way_is_an_answer() {
        assert_eq!(quietly(|| 5), Some(5));
        assert_eq!(quietly(|| -> u32 { panic!("not printed") }), None);
    }
}
