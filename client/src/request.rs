//! A request with options of its own.

use std::time::Duration;

use bytes::Bytes;

use crate::answer::{Context, Got, Stored};
use crate::call::{self, Verb};
use crate::client::Client;
use crate::error::Error;
use crate::options::{Options, ttl_ms};

/// A request about one key; see [`Client::request`]. Options that don't matter to the verb are ignored.
///
/// ```no_run
/// # async fn example(client: ringmain_client::Client) -> Result<(), ringmain_client::Error> {
/// use std::time::Duration;
///
/// let stored = client.request("session:7").write(3).ttl(Duration::from_secs(60)).overwrite().put("alice").await?;
/// // Read your own write, wherever the read lands.
/// let got = client.request("session:7").read(1).at_least(&stored.context).get().await?;
/// client.request("session:7").context(&got.context).delete().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until get(), put() or delete() is awaited"]
pub struct Request<'a, K> {
    client: &'a Client,
    key: K,
    options: Options,
}

impl<'a, K: AsRef<[u8]>> Request<'a, K> {
    pub(crate) fn new(client: &'a Client, key: K) -> Self {
        Self { client, key, options: client.engine().defaults.clone() }
    }

    /// R: replicas that a read waits for; 0 for the servers' default.
    pub fn read(mut self, replicas: u8) -> Self {
        self.options.read = replicas;
        self
    }

    /// W: durable acknowledgements that a write waits for; 0 for the servers' default.
    pub fn write(mut self, replicas: u8) -> Self {
        self.options.write = replicas;
        self
    }

    /// Of the replicas that are waited for, so many must be primaries: nodes that own the key. Fallbacks, which stand in
    /// for primaries that can't be reached, don't count towards it.
    pub fn primaries(mut self, primaries: u8) -> Self {
        self.options.primaries = primaries;
        self
    }

    /// A write must be in so many zones, beside its W, before it is acknowledged: data centres, if the cluster has nodes in
    /// several, else racks. So it outlives any one of them.
    pub fn zones(mut self, zones: u8) -> Self {
        self.options.zones = zones;
        self
    }

    /// Deadline, retries included.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = timeout;
        self
    }

    /// What is put expires after this time, in whole milliseconds, by the replicas' wall clocks.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.options.ttl_ms = ttl_ms(ttl);
        self
    }

    /// The read must include what this context covers, or be [`Error::Stale`].
    pub fn at_least(mut self, context: &Context) -> Self {
        self.options.at_least = context.clone();
        self
    }

    /// The write replaces exactly what this context covers.
    pub fn context(mut self, context: &Context) -> Self {
        self.options.context = context.clone();
        self
    }

    /// The write replaces whatever its coordinator has: the last writer wins, as that node sees it.
    pub fn overwrite(mut self) -> Self {
        self.options.overwrite = true;
        self
    }

    /// The read gives only the version with the highest timestamp. Its context is empty if there were others.
    pub fn latest(mut self) -> Self {
        self.options.latest = true;
        self
    }

    /// The shard that is asked must hold the key, or answer [`Error::WrongShard`]: it is not passed on.
    pub fn direct(mut self) -> Self {
        self.options.direct = true;
        self
    }

    /// May another replica be tried after a failure? Yes, unless told otherwise. It is safe: a write that is
    /// tried again applies once.
    pub fn retry(mut self, may_retry: bool) -> Self {
        self.options.retry = may_retry;
        self
    }

    /// Read the key.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn get(self) -> Result<Got, Error> {
        call::get(self.client.engine(), self.key.as_ref(), &self.options).await
    }

    /// Put a value.
    ///
    /// # Errors
    /// See [`Client::put`].
    pub async fn put(self, value: impl Into<Bytes>) -> Result<Stored, Error> {
        let value = value.into();
        call::write(self.client.engine(), self.key.as_ref(), Verb::Put(&value), &self.options).await
    }

    /// Delete the key. Needs [`context`](Self::context) or [`overwrite`](Self::overwrite).
    ///
    /// # Errors
    /// See [`Client::delete`].
    pub async fn delete(self) -> Result<Stored, Error> {
        call::write(self.client.engine(), self.key.as_ref(), Verb::Delete, &self.options).await
    }
}
