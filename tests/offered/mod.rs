//! An open-loop load on a real cluster, by `loadgen` as its users have it: latencies count from the moment a request
//! was due, and every read is held against what was written. Each failure is kept with its moment.

#![allow(dead_code, unreachable_pub, reason = "a support of many tests, of which each uses a part")]
#![allow(clippy::unwrap_used, reason = "a test that can't go on must stop")]

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use loadgen::audit::Rules;
use loadgen::clock::Moment;
use loadgen::key_names::KeyNames;
use loadgen::keys::{Keys, Popularity};
use loadgen::ledger::Consistency;
use loadgen::lifetimes::Lifetimes;
use loadgen::outcome::Failure;
use loadgen::pacer::Pacer;
use loadgen::profile::Profile;
use loadgen::rate::Rate;
use loadgen::record::Record;
use loadgen::runner::{Beyond, Finished, Limits, Runner};
use loadgen::schedule::{Arrivals, Schedule};
use loadgen::tally::{Latency, Percentile, Tally};
use loadgen::target::cluster::{ClusterTarget, Writes};
use loadgen::target::{Target, Trouble};
use loadgen::workload::{Workload, preload};
use ringmain::prng::Prng;
use ringmain_client::Client;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

/// Half of the operations read, half overwrite, 100 bytes, popularity after Zipf: loadgen's own defaults.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Operations a second.
    pub per_second: u64,
    /// How many keys, all written before.
    pub keys: u64,
    /// It ends then at the latest.
    pub duration: Duration,
    /// One line a second on standard error.
    pub tells: bool,
}

/// A request that brought no answer, or was refused.
#[derive(Clone, Debug)]
pub struct Failed {
    pub sent: Moment,
    pub failure: Failure,
    pub reason: String,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    pub finished: Finished,
    /// In the order in which they ended.
    pub failed: Vec<Failed>,
}

/// A load that goes on until it is over, stopped or dropped.
pub struct Load {
    thread: Option<JoinHandle<Finished>>,
    stop: Arc<AtomicBool>,
    incident: Option<oneshot::Sender<()>>,
    failed: Receiver<Failed>,
    /// When the first operation was due, within some milliseconds.
    pub started: Moment,
}

/// Each request's deadline.
const TIMEOUT: Duration = Duration::from_secs(1);
const VALUE_BYTES: u32 = 100;

impl Load {
    /// Write all keys once, then begin.
    pub fn start(servers: Vec<String>, offer: Offer) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (note, failed) = channel();
        let (incident, happens) = oneshot::channel();
        let (tell, told) = channel();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            LocalSet::new().block_on(&runtime, async {
                let runner = preloaded(servers, &offer, note).await;
                tell.send(Moment::now()).unwrap();
                let happened = async {
                    if happens.await.is_err() {
                        std::future::pending::<()>().await;
                    }
                };
                let line = |line: String| {
                    if offer.tells {
                        eprintln!("{line}");
                    }
                };
                runner.run(workload(&offer), happened, stopped, line).await
            })
        });
        let started = told.recv().expect("all keys can be written");
        Self { thread: Some(thread), stop, incident: Some(incident), failed, started }
    }

    /// What ends from now on is counted apart: [`loadgen::record::Phase::After`].
    pub fn begin_after(&mut self) {
        let incident = self.incident.take().expect("it begins once");
        incident.send(()).expect("the load goes on");
    }

    /// Offer nothing more, and wait for what is under way.
    pub fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        self.finish()
    }

    /// Wait until all was offered and answered.
    pub fn finish(mut self) -> Outcome {
        let finished = self.thread.take().unwrap().join().expect("the load says what went wrong");
        let failed = self.failed.try_iter().collect();
        Outcome { finished, failed }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// So many failed in each way, of those that did.
pub fn failures(tally: &Tally) -> Vec<(Failure, u64)> {
    let counts = Failure::ALL.map(|failure| (failure, tally.failed(failure)));
    counts.into_iter().filter(|(_, count)| *count > 0).collect()
}

/// In milliseconds; infinite where it falls among the failed.
pub fn milliseconds(tally: &Tally, percentile: Percentile) -> f64 {
    match tally.due(percentile) {
        Latency::Ns(latency_ns) => latency_ns as f64 / 1e6,
        Latency::None | Latency::Failed => f64::INFINITY,
    }
}

/// Say it as the last line, and as the program's exit code.
pub fn verdict(shortcomings: &[String]) -> ExitCode {
    if shortcomings.is_empty() {
        println!("PASS");
        return ExitCode::SUCCESS;
    }
    println!("FAIL: {}", shortcomings.join("; "));
    ExitCode::FAILURE
}

async fn preloaded(servers: Vec<String>, offer: &Offer, note: Sender<Failed>) -> Runner<Watched> {
    let client = Client::builder().servers(servers).timeout(TIMEOUT).in_flight_max(200_000);
    let client = client.connect().await.unwrap();
    let rules = Rules {
        keys: 0..offer.keys,
        names: KeyNames::default(),
        length_min: VALUE_BYTES,
        run_tag: Moment::now().0,
        consistency: Consistency::Strict,
        timeout: TIMEOUT,
    };
    let target = Watched { inner: ClusterTarget::new(client, Writes::Overwrite), note };
    let limits = Limits {
        in_flight_max: Limits::IN_FLIGHT_DEFAULT,
        beyond: Beyond::Fail,
        spin: Pacer::SPIN_DEFAULT,
        interval_s: 1,
        unpaced: false,
    };
    let mut runner = Runner::new(target, rules, limits, Record::default());
    let sizes = VALUE_BYTES.to_string().parse().unwrap();
    let (lifetimes, mut prng) = (Lifetimes::default(), Prng::from_seed(2));
    runner.preload(preload(0..offer.keys, &sizes, &lifetimes, &mut prng)).await.unwrap();
    runner
}

fn workload(offer: &Offer) -> Workload {
    let mut prng = Prng::from_seed(1);
    let rate: Rate = format!("{}/s", offer.per_second).parse().unwrap();
    let profile = Profile::steady(rate, offer.duration);
    let schedule = Schedule::new(profile, Arrivals::Fixed, prng.split());
    let keys = Keys::new(offer.keys, Popularity::Zipf, 0.99, 0);
    let sizes = VALUE_BYTES.to_string().parse().unwrap();
    let mix = "read=50,write=50".parse().unwrap();
    Workload::new(schedule, mix, keys, sizes, Lifetimes::default(), prng.split(), offer.keys)
}

/// A cluster, and whoever wants to know of each failure.
#[derive(Clone)]
struct Watched {
    inner: ClusterTarget,
    note: Sender<Failed>,
}

impl Watched {
    fn note<T>(&self, sent: Moment, result: Result<T, Trouble>) -> Result<T, Trouble> {
        if let Err(Trouble { failure, reason, .. }) = &result {
            // Whoever listened may be gone.
            let _ = self.note.send(Failed { sent, failure: *failure, reason: reason.clone() });
        }
        result
    }
}

impl Target for Watched {
    async fn get(&self, key: Bytes) -> Result<Option<Bytes>, Trouble> {
        let sent = Moment::now();
        self.note(sent, self.inner.get(key).await)
    }

    async fn put(&self, key: Bytes, value: Bytes, lifetime: Option<Duration>) -> Result<(), Trouble> {
        let sent = Moment::now();
        self.note(sent, self.inner.put(key, value, lifetime).await)
    }

    async fn delete(&self, key: Bytes) -> Result<(), Trouble> {
        let sent = Moment::now();
        self.note(sent, self.inner.delete(key).await)
    }
}
