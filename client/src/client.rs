//! The client: one handle, cloned freely, for everything a cluster can be asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

use bytes::Bytes;
use ringmain_schema::message::{Change, Changed, Ping, Status, StatusRequest, Topology};
use ringmain_schema::{Encoder, Kind, limits};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::address::Address;
use crate::answer::{Context, Got, Sibling, Stored, failure, malformed, unexpected};
use crate::batch::Batch;
use crate::builder::Builder;
use crate::call::{self, Verb, deadline};
use crate::connection::{Availability, Connection, NotSent, Outcome, Settings, frame};
use crate::engine::Engine;
use crate::error::Error;
use crate::follow::{ask, follow, lost};
use crate::random::back_off;
use crate::request::Request;
use crate::router::Router;

/// No single call to a server may take longer.
const DIAL_TIMEOUT_MAX: Duration = Duration::from_secs(1);
/// Clusters up to this many shards are called at once, so that the first requests don't pay for it.
const WARM_CONNECTIONS_MAX: usize = 64;
const WARM_TIMEOUT: Duration = Duration::from_millis(100);

/// A handle to a cluster. Clones share connections, limits and topology; the last one to go closes them.
///
/// All methods take `&self` and may run at the same time, from any number of tasks. Keys are 1 byte to
/// 64 KiB; values up to what the servers are configured for (8 MiB by default).
#[derive(Clone, Debug)]
pub struct Client {
    core: Arc<Core>,
}

/// Ends the background work with the last clone.
#[derive(Debug)]
struct Core {
    engine: Arc<Engine>,
    follower: Option<AbortHandle>,
}

impl Drop for Core {
    fn drop(&mut self) {
        if let Some(follower) = &self.follower {
            follower.abort();
        }
        self.engine.router.close();
    }
}

/// What one shard said about itself.
#[derive(Clone, Debug)]
pub struct ShardStatus {
    /// The host and port that were asked.
    pub address: String,
    /// What it said, or why it said nothing.
    pub status: Result<Status, Error>,
}

impl Client {
    /// Set up a client step by step.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Connect as a URL says: `ringmain://h1:7400,h2:7400/?read=2&write=2&timeout=50ms`. Options are `read`,
    /// `write`, `timeout`, `connect_timeout`, `in_flight`, `secret` and `cluster`, each as in [`Builder`].
    ///
    /// # Errors
    /// [`Error::Url`] says what is wrong with the URL; else as [`Builder::connect`].
    pub async fn connect(url: &str) -> Result<Self, Error> {
        crate::url::parse(url)?.connect().await
    }

    /// Read a key: all its concurrent versions, and the context to write with. A key that is not there is no
    /// error; see [`Got::is_found`].
    ///
    /// ```no_run
    /// # async fn example(client: ringmain_client::Client) -> Result<(), ringmain_client::Error> {
    /// match client.get("user:7").await?.into_value() {
    ///     Some(value) => println!("{} bytes", value.len()),
    ///     None => println!("not there"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::Overloaded`], [`Error::Unavailable`] (fewer than R replicas) or
    /// [`Error::Disconnected`], after retries.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Got, Error> {
        call::get(self.engine(), key.as_ref(), &self.engine().defaults).await
    }

    /// Read only the version with the highest timestamp. If there were others, the answer's context is
    /// empty, because a write with it could destroy what it doesn't show.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn get_latest(&self, key: impl AsRef<[u8]>) -> Result<Got, Error> {
        self.request(key).latest().get().await
    }

    /// Put a value without having read: beside other versions of the key it becomes a sibling.
    ///
    /// ```no_run
    /// # async fn example(client: ringmain_client::Client) -> Result<(), ringmain_client::Error> {
    /// use ringmain_client::Error;
    ///
    /// match client.put("user:7", "alice").await {
    ///     Ok(stored) => println!("on {} nodes", stored.replicas.nodes),
    ///     Err(Error::MaybeApplied { acks }) => println!("on {acks} nodes for certain; maybe more"),
    ///     Err(error) if error.is_definite_failure() => println!("not applied: {error}"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::MaybeApplied`] where fewer than W replicas are known to have it;
    /// [`Error::TooManySiblings`], [`Error::TooLarge`], and those of [`get`](Self::get), which mean that it
    /// was not applied.
    pub async fn put(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<Stored, Error> {
        let value = value.into();
        call::write(self.engine(), key.as_ref(), Verb::Put(&value), &self.engine().defaults).await
    }

    /// Put a value in place of whatever the coordinator has: the last writer wins, as that node sees it.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn overwrite(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<Stored, Error> {
        self.request(key).overwrite().put(value).await
    }

    /// Put a value in place of exactly what `context`, from an earlier answer for this key, covers.
    ///
    /// # Errors
    /// As [`put`](Self::put), and [`Error::BadContext`].
    pub async fn put_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        context: &Context,
    ) -> Result<Stored, Error> {
        self.request(key).context(context).put(value).await
    }

    /// Delete exactly what `context`, from an earlier answer for this key, covers.
    ///
    /// # Errors
    /// As [`put_with`](Self::put_with); [`Error::BadRequest`] for an empty context.
    pub async fn delete(&self, key: impl AsRef<[u8]>, context: &Context) -> Result<Stored, Error> {
        self.request(key).context(context).delete().await
    }

    /// Delete whatever the coordinator has.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn delete_overwrite(&self, key: impl AsRef<[u8]>) -> Result<Stored, Error> {
        self.request(key).overwrite().delete().await
    }

    /// Read the versions of a key, make one value of them with `merge` (which gets none if the key is not
    /// there), and put it in their place. A concurrent writer's version becomes a sibling, which the next
    /// update merges.
    ///
    /// ```no_run
    /// # async fn example(client: ringmain_client::Client) -> Result<(), ringmain_client::Error> {
    /// use std::collections::BTreeSet;
    ///
    /// client
    ///     .update("cart:42", |siblings| {
    ///         let mut items: BTreeSet<&[u8]> =
    ///             siblings.iter().flat_map(|sibling| sibling.value.split(|&byte| byte == b',')).collect();
    ///         items.insert(b"milk");
    ///         items.into_iter().collect::<Vec<_>>().join(&b","[..]).into()
    ///     })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`get`](Self::get) and [`put`](Self::put).
    pub async fn update(
        &self,
        key: impl AsRef<[u8]>,
        merge: impl FnOnce(&[Sibling]) -> Bytes,
    ) -> Result<Stored, Error> {
        let key = key.as_ref();
        let got = self.get(key).await?;
        let merged = got.merge(merge);
        self.put_with(key, merged, &got.context).await
    }

    /// A request with options of its own.
    pub fn request<K: AsRef<[u8]>>(&self, key: K) -> Request<'_, K> {
        Request::new(self, key)
    }

    /// Requests about many keys, with options of their own.
    pub fn batch(&self) -> Batch<'_> {
        Batch::new(self)
    }

    /// Read many keys, in one frame per shard. The results are in the order of the keys.
    ///
    /// ```no_run
    /// # async fn example(client: ringmain_client::Client) {
    /// for result in client.get_many(["user:7", "user:8"]).await {
    ///     println!("{:?}", result.map(|got| got.into_value()));
    /// }
    /// # }
    /// ```
    pub async fn get_many<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Vec<Result<Got, Error>> {
        self.batch().get(keys).await
    }

    /// Put many values as [`put`](Self::put) does, in one frame per shard. Each item stands for itself: some
    /// may fail. The results are in the order of the items.
    pub async fn put_many<K: AsRef<[u8]>, V: Into<Bytes>>(
        &self,
        items: impl IntoIterator<Item = (K, V)>,
    ) -> Vec<Result<Stored, Error>> {
        self.batch().put(items).await
    }

    /// The topology, asked of a server now.
    ///
    /// # Errors
    /// As [`ping`](Self::ping).
    pub async fn topology(&self) -> Result<Topology, Error> {
        let start = Instant::now();
        ask(&self.any_connection()?, deadline(start, self.engine().defaults.timeout)).await
    }

    /// The topology that requests are routed by. It follows the cluster's.
    pub fn known_topology(&self) -> Option<Arc<Topology>> {
        self.engine().router.topology()
    }

    /// Ask every shard of every node how it is. Shards of nodes that can't be reached are there too, with
    /// the error.
    pub async fn status(&self) -> Vec<ShardStatus> {
        let (engine, now) = (self.engine(), Instant::now());
        let until = deadline(now, engine.defaults.timeout);
        let encode = |encoder: &mut Encoder, id, out: &mut Vec<u8>| StatusRequest.encode(encoder, id, out);
        let asked: Vec<_> = engine
            .router
            .shards()
            .into_iter()
            .map(|connection| {
                connection.availability(now);
                let pending = connection.send(Some(until), encode);
                (connection, pending)
            })
            .collect();
        let mut statuses = Vec::with_capacity(asked.len());
        for (connection, pending) in asked {
            let status = match pending {
                Ok(pending) => read_status(&connection, pending.await),
                Err(not_sent) => Err(not_asked(&connection, &not_sent)),
            };
            statuses.push(ShardStatus { address: connection.address.to_string(), status });
        }
        statuses
    }

    /// Change who holds what, or, with [`Change::plan_only`], ask what that would move. The first server that can be
    /// asked takes the word and tells the others.
    ///
    /// # Errors
    /// [`Error::BadRequest`] says why the word was refused; [`Error::MaybeApplied`] that no answer came. The same word
    /// said again does no harm.
    pub async fn change(&self, change: &Change<'_>) -> Result<Changed, Error> {
        let connection = self.any_connection()?;
        let encode = |encoder: &mut Encoder, id, out: &mut Vec<u8>| change.encode(encoder, id, out);
        let until = deadline(Instant::now(), self.engine().defaults.timeout);
        let pending = connection.send(Some(until), encode);
        match pending.map_err(|not_sent| not_asked(&connection, &not_sent))?.await {
            Outcome::Answer(bytes) => {
                let frame = frame(&bytes);
                if frame.header.kind != Kind::CHANGED {
                    return Err(failure(&frame).unwrap_or_else(|| unexpected(frame.header.kind)));
                }
                Changed::parse(&frame).map_err(malformed)
            }
            Outcome::Lost { sent: true } | Outcome::TimedOut { sent: true } if !change.plan_only => {
                Err(Error::MaybeApplied { acks: 0 })
            }
            Outcome::Lost { .. } => Err(lost(&connection)),
            Outcome::TimedOut { .. } => Err(Error::Timeout),
        }
    }

    /// One empty question to one server, and how long its answer took.
    ///
    /// # Errors
    /// [`Error::Disconnected`] or [`Error::Timeout`].
    pub async fn ping(&self) -> Result<Duration, Error> {
        let start = Instant::now();
        let connection = self.any_connection()?;
        let encode = |encoder: &mut Encoder, id, out: &mut Vec<u8>| Ping.encode(encoder, Kind::PING, id, out);
        let until = deadline(start, self.engine().defaults.timeout);
        let pending = connection.send(Some(until), encode);
        match pending.map_err(|not_sent| not_asked(&connection, &not_sent))?.await {
            Outcome::Answer(bytes) => match frame(&bytes).header.kind {
                Kind::PONG => Ok(start.elapsed()),
                kind => Err(failure(&frame(&bytes)).unwrap_or_else(|| unexpected(kind))),
            },
            Outcome::Lost { .. } => Err(lost(&connection)),
            Outcome::TimedOut { .. } => Err(Error::Timeout),
        }
    }

    /// Requests of this client that are under way now, items of batches counted singly.
    pub fn in_flight(&self) -> usize {
        self.engine().in_flight()
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.core.engine
    }

    fn any_connection(&self) -> Result<Arc<Connection>, Error> {
        let none = || Error::Disconnected("none of the servers can be reached at present".to_owned());
        self.engine().router.any(&[], Instant::now()).ok_or_else(none)
    }

    pub(crate) async fn open(builder: Builder, servers: Vec<Address>) -> Result<Self, Error> {
        let start = Instant::now();
        let runtime = Handle::try_current()
            .map_err(|_| Error::BadRequest("connect must be awaited on a tokio runtime".to_owned()))?;
        let settings = Arc::new(Settings {
            secret: builder.secret,
            cluster: AtomicU64::new(builder.cluster),
            dial_timeout: builder.connect_timeout.min(DIAL_TIMEOUT_MAX),
            hung_after: builder.hung_after,
            value_bytes_max: AtomicU32::new(limits::VALUE_BYTES_MAX_DEFAULT),
            frame_bytes_max: AtomicU32::new(limits::request_bytes_max(limits::VALUE_BYTES_MAX_DEFAULT) as u32),
            runtime: runtime.clone(),
            origin: start,
        });
        let router = Router::new(servers, builder.routing, builder.near.clone(), Arc::clone(&settings));
        let engine = Arc::new(Engine::new(builder.options, builder.in_flight_max, settings, router));
        let mut core = Core { engine: Arc::clone(&engine), follower: None };
        learn_topology(&engine, deadline(start, builder.connect_timeout)).await?;
        warm_up(&engine).await;
        core.follower = Some(runtime.spawn(follow(engine)).abort_handle());
        Ok(Self { core: Arc::new(core) })
    }
}

/// Ask the given servers for the topology, in turn, until one knows it.
async fn learn_topology(engine: &Engine, deadline: Instant) -> Result<(), Error> {
    let seeds = engine.router.seeds();
    let mut rounds = 0;
    loop {
        let (mut refusals, mut last) = (0, Error::Timeout);
        for seed in seeds {
            match ask_seed(engine, seed, deadline).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    refusals += usize::from(error.is_refusal());
                    last = error;
                }
            }
        }
        rounds += 1;
        let pause = back_off(rounds, Duration::from_millis(5), Duration::from_millis(200));
        if refusals == seeds.len() || Instant::now() + pause >= deadline {
            return Err(last);
        }
        tokio::time::sleep(pause).await;
    }
}

async fn ask_seed(engine: &Engine, seed: &Arc<Connection>, deadline: Instant) -> Result<(), Error> {
    let now = Instant::now();
    if seed.availability(now) == Availability::Away {
        return Err(lost(seed));
    }
    // Longer than a call may take, so that a failed call tells its reason.
    let topology = ask(seed, deadline.min(now + 3 * DIAL_TIMEOUT_MAX / 2)).await?;
    let cluster = topology.cluster;
    if engine.router.apply(topology) || engine.router.epoch() != 0 {
        return Ok(());
    }
    Err(Error::WrongCluster(format!("{} answers for cluster {cluster:#018x}", seed.address)))
}

/// Open the connections of a cluster of ordinary size, and wait a moment for them.
async fn warm_up(engine: &Engine) {
    let connections = engine.router.shards();
    if connections.len() > WARM_CONNECTIONS_MAX {
        return;
    }
    let until = Instant::now() + WARM_TIMEOUT;
    loop {
        let now = Instant::now();
        let opening = |connection: &&Arc<Connection>| connection.availability(now) == Availability::Opening;
        // Every one is asked, because asking is what opens it.
        if connections.iter().filter(opening).count() == 0 || now >= until {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn not_asked(connection: &Connection, not_sent: &NotSent) -> Error {
    match *not_sent {
        NotSent::Away => lost(connection),
        NotSent::Full => Error::Overloaded,
        NotSent::TooLarge(limit) => Error::TooLarge { limit },
    }
}

fn read_status(connection: &Connection, outcome: Outcome) -> Result<Status, Error> {
    match outcome {
        Outcome::Answer(bytes) => {
            let frame = frame(&bytes);
            if frame.header.kind != Kind::STATUS_IS {
                return Err(failure(&frame).unwrap_or_else(|| unexpected(frame.header.kind)));
            }
            Status::parse(&frame).map_err(malformed)
        }
        Outcome::Lost { .. } => Err(lost(connection)),
        Outcome::TimedOut { .. } => Err(Error::Timeout),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compiles only while a client can be shared and its futures moved between threads.
    #[allow(dead_code, reason = "it is the compiler that checks")]
    fn a_client_goes_anywhere(client: &Client) {
        fn sendable(_: impl Send) {}
        fn shareable(_: &(impl Send + Sync + Clone)) {}
        shareable(client);
        sendable(client.get("key"));
        sendable(client.request("key").put("value"));
        sendable(client.get_many(["key"]));
        sendable(client.put_many([("key", "value")]));
        sendable(client.update("key", |_| Bytes::new()));
        sendable(client.status());
        sendable(Client::connect("ringmain://h"));
    }
}
