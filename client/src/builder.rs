//! How a client is set up.

use std::fmt;
use std::time::Duration;

use crate::address::Address;
use crate::client::Client;
use crate::error::Error;
use crate::options::Options;

/// Which server a request is sent to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Routing {
    /// To the shard that holds the key, on a primary replica: one hop less.
    #[default]
    Owner,
    /// To the given servers in turn, whatever the key; they pass it on. For clients that reach only some of
    /// the servers, and for tests of passing on.
    Given,
    /// To shards that don't hold the key, in turn, on purpose; they pass it on. To measure what that costs, and for
    /// tests. While none of them can be reached, and where every shard holds the key, it goes to its owners.
    Wrong,
}

/// Where a client stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Near {
    pub(crate) data_center: String,
    pub(crate) rack: String,
}

/// Sets up a [`Client`].
///
/// ```no_run
/// use std::time::Duration;
/// use ringmain_client::Client;
///
/// # async fn example() -> Result<(), ringmain_client::Error> {
/// let client = Client::builder()
///     .servers(["10.0.0.1:7400", "10.0.0.2:7400"])
///     .cluster_secret("hush")
///     .read(2)
///     .write(2)
///     .timeout(Duration::from_millis(50))
///     .in_flight_max(10_000)
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
#[must_use = "a builder does nothing until connect() is awaited"]
pub struct Builder {
    pub(crate) servers: Vec<String>,
    pub(crate) secret: Vec<u8>,
    pub(crate) cluster: u64,
    pub(crate) connect_timeout: Duration,
    pub(crate) hung_after: Duration,
    pub(crate) in_flight_max: usize,
    pub(crate) routing: Routing,
    pub(crate) near: Option<Near>,
    pub(crate) options: Options,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            secret: Vec::new(),
            cluster: 0,
            connect_timeout: Duration::from_secs(5),
            hung_after: Duration::from_millis(500),
            in_flight_max: 16 * 1024,
            routing: Routing::Owner,
            near: None,
            options: Options::default(),
        }
    }
}

impl fmt::Debug for Builder {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("servers", &self.servers)
            .field("cluster", &self.cluster)
            .field("connect_timeout", &self.connect_timeout)
            .field("in_flight_max", &self.in_flight_max)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Builder {
    /// Servers to begin with, as `host:port` (port 7400 if not given): any of the cluster's. The others are
    /// learnt from the first that answers.
    pub fn servers<S: Into<String>>(mut self, servers: impl IntoIterator<Item = S>) -> Self {
        self.servers = servers.into_iter().map(Into::into).collect();
        self
    }

    /// What the cluster's servers ask of their clients, if they do.
    pub fn cluster_secret(mut self, secret: impl Into<Vec<u8>>) -> Self {
        self.secret = secret.into();
        self
    }

    /// The id of the only cluster to talk to. Without it, that of the first server that answers is kept to.
    pub fn cluster(mut self, id: u64) -> Self {
        self.cluster = id;
        self
    }

    /// R: replicas that a read waits for, 1 to N. Without it, the servers' default, a majority.
    pub fn read(mut self, replicas: u8) -> Self {
        self.options.read = replicas;
        self
    }

    /// W: durable acknowledgements that a write waits for, 1 to N. Without it, the servers' default, a
    /// majority.
    pub fn write(mut self, replicas: u8) -> Self {
        self.options.write = replicas;
        self
    }

    /// Zones that a write must be in, beside its W: data centres, if the cluster has nodes in several, else racks. Without
    /// it, wherever its copies are.
    pub fn zones(mut self, zones: u8) -> Self {
        self.options.zones = zones;
        self
    }

    /// Where this client stands, as the servers' `--data-center` and `--rack` name it. Reads go to a primary in the same
    /// rack if it can be reached, else in the same data centre, else to any. Writes go where all clients send theirs, which
    /// keeps siblings rare.
    pub fn near(mut self, data_center: impl Into<String>, rack: impl Into<String>) -> Self {
        self.near = Some(Near { data_center: data_center.into(), rack: rack.into() });
        self
    }

    /// Deadline of each request, retries included; 1 s by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = timeout;
        self
    }

    /// Deadline of [`connect`](Self::connect), 5 s by default. No single call to a server takes more than a
    /// second of it.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// A connection over which somebody waits, but nothing comes, is pinged after half this time and given
    /// up after the whole; 500 ms by default.
    pub fn hung_after(mut self, silence: Duration) -> Self {
        self.hung_after = silence;
        self
    }

    /// Requests under way at once, items of batches counted singly; 16,384 by default. One more gets
    /// [`Error::Overloaded`] at once.
    pub fn in_flight_max(mut self, requests: usize) -> Self {
        self.in_flight_max = requests;
        self
    }

    /// Which server a request is sent to; [`Routing::Owner`] by default.
    pub fn routing(mut self, routing: Routing) -> Self {
        self.routing = routing;
        self
    }

    /// Reach one of the servers and learn the topology from it.
    ///
    /// Runs on the tokio runtime it is awaited on, which must have IO and time enabled; the connections'
    /// tasks stay there.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for settings that make no sense; [`Error::Unauthorized`],
    /// [`Error::WrongCluster`] or [`Error::VersionMismatch`] where all servers refuse;
    /// [`Error::NotServing`] or [`Error::Disconnected`] where none was ready in time.
    pub async fn connect(self) -> Result<Client, Error> {
        let servers = self.checked()?;
        Client::open(self, servers).await
    }

    fn checked(&self) -> Result<Vec<Address>, Error> {
        let wrong = |text: &str| Err(Error::BadRequest(text.to_owned()));
        if self.servers.is_empty() {
            return wrong("no server given: name at least one with servers([\"host:port\"])");
        }
        let times = [self.options.timeout, self.connect_timeout, self.hung_after];
        if times.contains(&Duration::ZERO) {
            return wrong("timeout, connect_timeout and hung_after must be above zero");
        }
        if self.in_flight_max == 0 {
            return wrong("in_flight_max must be above zero");
        }
        let parse = |server: &String| {
            Address::parse(server).ok_or_else(|| {
                Error::BadRequest(format!("`{server}` is not a server: write host:port or [ipv6]:port"))
            })
        };
        self.servers.iter().map(parse).collect()
    }
}
