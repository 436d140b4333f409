//! Following the topology: one subscription, on one connection at a time, and a fresh look when an answer
//! shows that ours is old.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ringmain_schema::Kind;
use ringmain_schema::message::{Topology, TopologyRequest};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::answer::{failure, malformed, unexpected};
use crate::connection::{Connection, NotSent, Outcome, Pending, frame};
use crate::engine::Engine;
use crate::error::Error;
use crate::random::back_off;
use crate::router::Route;

/// For an answer about the topology, if the caller didn't say.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// At least this lies between two refreshes; it doubles while they bring nothing new.
const REFRESH_PAUSE: Duration = Duration::from_millis(100);
const REFRESH_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Back-off between subscriptions.
const BACK_OFF: Duration = Duration::from_millis(10);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// How the rest of the client asks the follower for a refresh, and learns that one was made.
#[derive(Debug)]
pub(crate) struct Follow {
    /// A refresh was asked for and not made yet. Spares all but the first the lock.
    is_wanted: AtomicBool,
    /// Who showed that our topology is old, and so may have a newer one.
    informant: Mutex<Option<Arc<Connection>>>,
    asked: Notify,
    /// Counts refreshes and new topologies.
    rounds: watch::Sender<u64>,
}

impl Default for Follow {
    fn default() -> Self {
        Self {
            is_wanted: AtomicBool::new(false),
            informant: Mutex::new(None),
            asked: Notify::new(),
            rounds: watch::Sender::new(0),
        }
    }
}

impl Follow {
    /// Cheap enough to be called for every forwarded answer.
    pub(crate) fn ask_for_refresh(&self, informant: &Arc<Connection>) {
        if !self.is_wanted.swap(true, Ordering::AcqRel) {
            *self.informant.lock().expect("nothing panics while it holds the informant") =
                Some(Arc::clone(informant));
            self.asked.notify_one();
        }
    }

    fn informant(&self) -> Option<Arc<Connection>> {
        self.informant.lock().expect("nothing panics while it holds the informant").take()
    }

    fn round_done(&self) {
        self.is_wanted.store(false, Ordering::Release);
        self.rounds.send_modify(|rounds| *rounds += 1);
    }
}

impl Engine {
    /// Get past the topology by which `route` was chosen. False if none newer came before the deadline or
    /// the next refresh.
    pub(crate) async fn refresh_past(&self, route: &Route, deadline: Instant) -> bool {
        let mut rounds = self.follow.rounds.subscribe();
        if self.router.epoch() != route.epoch {
            return true;
        }
        self.follow.ask_for_refresh(&route.connection);
        let _ = tokio::time::timeout_at(deadline, rounds.changed()).await;
        self.router.epoch() != route.epoch
    }
}

/// Ask one server for the topology.
pub(crate) async fn ask(connection: &Arc<Connection>, deadline: Instant) -> Result<Topology, Error> {
    let pending = request(connection, Some(deadline), false)?;
    topology(connection, pending.await)
}

fn request(
    connection: &Arc<Connection>,
    deadline: Option<Instant>,
    subscribe: bool,
) -> Result<Pending, Error> {
    let sent =
        connection.send(deadline, |encoder, id, out| TopologyRequest { subscribe }.encode(encoder, id, out));
    sent.map_err(|not_sent| match not_sent {
        NotSent::Away => lost(connection),
        NotSent::Full => Error::Overloaded,
        NotSent::TooLarge(limit) => Error::TooLarge { limit },
    })
}

fn topology(connection: &Connection, outcome: Outcome) -> Result<Topology, Error> {
    match outcome {
        Outcome::Answer(bytes) => read(&bytes),
        Outcome::Lost { .. } => Err(lost(connection)),
        Outcome::TimedOut { .. } => Err(Error::Timeout),
    }
}

fn read(bytes: &Bytes) -> Result<Topology, Error> {
    let frame = frame(bytes);
    if frame.header.kind != Kind::TOPOLOGY_IS {
        return Err(failure(&frame).unwrap_or_else(|| unexpected(frame.header.kind)));
    }
    Topology::parse(&frame).map_err(malformed)
}

/// Why a connection is not there.
pub(crate) fn lost(connection: &Connection) -> Error {
    let unknown = || Error::Disconnected(format!("{} can't be reached at present", connection.address));
    connection.last_failure().unwrap_or_else(unknown)
}

/// Follow the topology for as long as the client lives.
pub(crate) async fn follow(engine: Arc<Engine>) {
    let mut failures = 0;
    loop {
        if let Some(connection) = engine.router.any(&[], Instant::now()) {
            let was_answered = subscribe(&engine, &connection).await;
            failures = if was_answered { 0 } else { failures + 1 };
        } else {
            failures += 1;
        }
        tokio::time::sleep(back_off(failures, BACK_OFF, BACK_OFF_MAX)).await;
        if engine.follow.is_wanted.load(Ordering::Acquire) {
            // The next subscription's first answer is as good as a refresh, whoever gives it.
            engine.follow.informant();
        }
    }
}

/// Follow over this connection until it ends. False if it never answered.
async fn subscribe(engine: &Engine, connection: &Arc<Connection>) -> bool {
    let Ok(mut subscription) = request(connection, None, true) else { return false };
    let Ok(first) = tokio::time::timeout(ANSWER_WITHIN, subscription.next()).await else { return false };
    let Ok(first) = topology(connection, first) else { return false };
    engine.router.apply(first);
    engine.follow.round_done();
    let (mut pause, mut last, mut refresh_at) = (REFRESH_PAUSE, Instant::now(), None);
    loop {
        tokio::select! {
            outcome = subscription.next() => {
                let Ok(newer) = topology(connection, outcome) else { return true };
                engine.router.apply(newer);
                engine.follow.round_done();
            }
            () = engine.follow.asked.notified() => refresh_at = Some(last + pause),
            () = tokio::time::sleep_until(refresh_at.unwrap_or(last)), if refresh_at.is_some() => {
                let is_newer = refresh(engine, connection).await;
                pause = if is_newer { REFRESH_PAUSE } else { (2 * pause).min(REFRESH_PAUSE_MAX) };
                (last, refresh_at) = (Instant::now(), None);
                engine.follow.round_done();
            }
        }
    }
}

/// Ask whoever showed that our topology is old. True if it had another.
async fn refresh(engine: &Engine, subscribed: &Arc<Connection>) -> bool {
    let informant = engine.follow.informant().unwrap_or_else(|| Arc::clone(subscribed));
    match ask(&informant, Instant::now() + ANSWER_WITHIN).await {
        Ok(topology) => engine.router.apply(topology),
        Err(_) => false,
    }
}
