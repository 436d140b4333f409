//! Two executors that bounce messages over a mesh, as shards do, and check what arrives.

use std::collections::VecDeque;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use glommio::io::BufferedFile;
use glommio::{LocalExecutorBuilder, Placement};
use ringmain::id::ShardId;
use ringmain::shell::doorbell::Doorbell;
use ringmain::shell::mesh::Mesh;

/// Small, so that it wraps often; twice what is under way at once.
const SLOTS: usize = 256;
/// Without any message for this long, one was lost.
const STUCK: Duration = Duration::from_secs(10);

pub(crate) struct Plan {
    /// To be sent by the first, and sent back by the second.
    pub(crate) messages: u64,
    /// Messages that the first keeps under way, at most; the number varies from turn to turn.
    pub(crate) burst_max: u64,
    /// How long to look for messages before sleeping.
    pub(crate) spin: Duration,
}

/// What one executor has seen, for the watchdog.
#[derive(Default)]
struct Progress {
    received: AtomicU64,
    sleeps: AtomicU64,
}

/// Panics if a message is lost, out of order, or stuck. Returns how often the two slept.
pub(crate) fn bounce(plan: &Plan) -> u64 {
    let doorbells = [Doorbell::new().expect("an eventfd"), Doorbell::new().expect("an eventfd")];
    let progress: [Arc<Progress>; 2] = Default::default();
    let mut threads: VecDeque<JoinHandle<()>> = VecDeque::new();
    for (place, mesh) in Mesh::connect(&doorbells, SLOTS).into_iter().enumerate() {
        let end = End {
            first: place == 0,
            mesh,
            doorbell: doorbells[place].clone(),
            messages: plan.messages,
            burst_max: plan.burst_max,
            spin: plan.spin,
            progress: progress[place].clone(),
        };
        threads.push_back(std::thread::spawn(move || {
            let executor = LocalExecutorBuilder::new(Placement::Unbound).io_memory(64 << 10).make();
            executor.expect("an executor").run(end.run());
        }));
    }
    watch(&progress, &threads);
    threads.into_iter().for_each(|thread| thread.join().expect("no end panicked"));
    let received = progress.each_ref().map(|end| end.received.load(Ordering::Relaxed));
    assert_eq!(received, [plan.messages; 2], "every message arrives once");
    progress.iter().map(|end| end.sleeps.load(Ordering::Relaxed)).sum()
}

/// Wait until both are done; panic when neither gets any further.
fn watch(progress: &[Arc<Progress>; 2], threads: &VecDeque<JoinHandle<()>>) {
    let seen = || progress.each_ref().map(|end| end.received.load(Ordering::Relaxed));
    let (mut last, mut since) = (seen(), Instant::now());
    while !threads.iter().all(JoinHandle::is_finished) {
        std::thread::sleep(Duration::from_millis(5));
        let now = seen();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        assert!(since.elapsed() < STUCK, "stuck after {now:?} messages: a wake-up was lost");
    }
}

struct End {
    /// It sends and counts what comes back; the other sends back.
    first: bool,
    mesh: Mesh<u64>,
    doorbell: Doorbell,
    messages: u64,
    burst_max: u64,
    spin: Duration,
    progress: Arc<Progress>,
}

impl End {
    async fn run(mut self) {
        let bell = self.doorbell.duplicate().expect("a descriptor").into_raw_fd();
        // SAFETY: the duplicate is nobody else's.
        let bell = unsafe { BufferedFile::from_raw_fd(bell) };
        let (mut sent, mut received) = (0, 0);
        let mut busy_at = Instant::now();
        while received < self.messages {
            if self.turn(&mut sent, &mut received) {
                self.progress.received.store(received, Ordering::Relaxed);
                busy_at = Instant::now();
                glommio::yield_if_needed().await;
                continue;
            }
            if busy_at.elapsed() < self.spin {
                std::hint::spin_loop();
                continue;
            }
            self.doorbell.fall_asleep();
            if self.mesh.is_idle() {
                self.progress.sleeps.fetch_add(1, Ordering::Relaxed);
                bell.read_at(0, 8).await.expect("an eventfd can be read");
            }
            self.doorbell.wake_up();
        }
    }

    /// Take what came, send what is due, ring once.
    fn turn(&mut self, sent: &mut u64, received: &mut u64) -> bool {
        let mut taken = 0;
        self.mesh.receive(usize::MAX, |_, message| {
            assert_eq!(message, *received + taken, "messages keep their order");
            taken += 1;
        });
        // An uneven number under way meets the other end in every state of falling asleep.
        let due = if self.first {
            let under_way = *sent - *received - taken;
            let burst = 1 + (*received + taken).wrapping_mul(0x9e37_79b9_7f4a_7c15) % self.burst_max;
            burst.saturating_sub(under_way).min(self.messages - *sent)
        } else {
            taken
        };
        let to = ShardId(u16::from(self.first));
        (0..due).for_each(|step| self.mesh.send(to, *sent + step, 0));
        *sent += due;
        *received += taken;
        self.mesh.ring();
        taken + due > 0
    }
}
