//! A well-behaved client that shares a server with somebody who is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use super::{Cluster, wait_until};

/// Puts and gets without a pause, each of which must succeed at the first try.
pub struct Neighbour {
    stop: Arc<AtomicBool>,
    /// Puts that were read back.
    rounds: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Neighbour {
    /// Begin, and wait until it is at work.
    pub fn of(cluster: &Cluster) -> Self {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = std::thread::spawn({
            let (builder, stop, rounds) = (cluster.builder(), stop.clone(), rounds.clone());
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(work(builder, &stop, &rounds));
            }
        });
        let neighbour = Self { stop, rounds, thread };
        neighbour.wait_for_rounds(1);
        neighbour
    }

    /// Wait until it has done some more.
    pub fn wait_for_rounds(&self, more: u64) {
        let before = self.rounds.load(Ordering::Relaxed);
        wait_until("the neighbour was served", || {
            self.thread.is_finished() || self.rounds.load(Ordering::Relaxed) >= before + more
        });
    }

    /// It was served all the time, and is still.
    #[track_caller]
    pub fn was_not_disturbed(self) {
        self.wait_for_rounds(10);
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("all of the neighbour's requests succeed");
    }
}

async fn work(builder: ringmain_client::Builder, stop: &AtomicBool, rounds: &AtomicU64) {
    let client = builder.connect().await.unwrap();
    for round in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let (key, value) = (format!("neighbour {}", round % 64), format!("round {round}"));
        client.request(&key).retry(false).overwrite().put(value.clone()).await.unwrap();
        let got = client.request(&key).retry(false).get().await.unwrap();
        assert_eq!(got.value().unwrap(), value.as_bytes());
        rounds.fetch_add(1, Ordering::Relaxed);
    }
}
