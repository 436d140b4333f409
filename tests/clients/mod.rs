//! Clients at work on a real cluster, through the client crate: registers, registers that are deleted at times, carts and
//! counters. They write down what they do ([`history`]); when all is at rest ([`at_rest`]), that is held against what is
//! there ([`verdict`]).

#![allow(dead_code, reason = "a support of several tests, of which each uses a part")]
#![allow(clippy::unwrap_used, reason = "a test that can't go on must stop")]

pub(crate) mod at_rest;
pub(crate) mod history;
pub(crate) mod load;
pub(crate) mod verdict;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringmain_client::{Builder, Client, Routing};

/// All keys that clients have used, or are about to.
pub(crate) type Keys = Arc<Mutex<BTreeSet<String>>>;

/// Where the nodes listen.
#[derive(Clone, Debug)]
pub(crate) struct Servers(pub(crate) Vec<SocketAddr>);

impl Servers {
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// A client that sends each request to a node that holds the key, whichever that is.
    pub(crate) async fn client_of_all(&self) -> Client {
        Self::builder(&self.0).connect().await.unwrap()
    }

    /// A client that lives beside one node, and sends it everything.
    pub(crate) async fn client_of(&self, node: usize) -> Client {
        Self::builder(&self.0[node..=node]).routing(Routing::Given).connect().await.unwrap()
    }

    fn builder(servers: &[SocketAddr]) -> Builder {
        let servers = servers.iter().map(SocketAddr::to_string);
        Client::builder().servers(servers).timeout(Duration::from_secs(1))
    }
}
