//! A Ringmain cluster as a target, through the client crate as its users have it: routed, pipelined, retried.
//!
//! What a failed write left behind is taken from the client at its word: a definite failure was applied
//! nowhere and never will be, so its value must never be seen; of every other one nobody knows.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use ringmain_client::{Client, Error, Routing, Stored, Topology};

use crate::outcome::Failure;

use super::{Applied, Target, Trouble};

/// A cluster, and how it is written to.
#[derive(Clone, Debug)]
pub struct ClusterTarget {
    client: Client,
    writes: Writes,
}

/// What a write does to the versions that are there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Writes {
    /// It replaces what its coordinator has, and reads ask for the latest version only.
    #[default]
    Overwrite,
    /// It reads first, and replaces what it read: two requests, and siblings where writers are concurrent.
    Update,
    /// It replaces nothing, so siblings pile up. Deletes overwrite.
    Blind,
}

/// Whom a request is sent to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Routed {
    /// An owner of its key, as the client knows them: one hop less.
    #[default]
    Client,
    /// The given servers in turn, whatever the key; they pass it on.
    Server,
    /// On purpose, a shard that doesn't hold the key.
    Wrong,
}

/// A way of routing that is not known.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "'{0}' is no known routing: write client (to an owner of the key), server (to the given ones in turn) or wrong (to another)"
)]
pub struct RoutedError(String);

/// A way of writing that is not known.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("'{0}' is no known way of writing: write overwrite, update (read first) or blind (make siblings)")]
pub struct WritesError(String);

impl ClusterTarget {
    /// With the quorums and deadline that the client was built with.
    pub fn new(client: Client, writes: Writes) -> Self {
        Self { client, writes }
    }
}

impl ClusterTarget {
    async fn store(&self, key: &Bytes, value: Bytes, lifetime: Option<Duration>) -> Result<Stored, Error> {
        let mut request = self.client.request(key);
        if let Some(lifetime) = lifetime {
            request = request.ttl(lifetime);
        }
        match self.writes {
            Writes::Overwrite => request.overwrite().put(value).await,
            Writes::Update => {
                let got = self.client.get(key).await?;
                request.context(&got.context).put(value).await
            }
            Writes::Blind => request.put(value).await,
        }
    }
}

impl Target for ClusterTarget {
    async fn get(&self, key: Bytes) -> Result<Option<Bytes>, Trouble> {
        let got = match self.writes {
            Writes::Overwrite => self.client.get_latest(key).await,
            Writes::Update | Writes::Blind => self.client.get(key).await,
        };
        Ok(got.map_err(|error| trouble(&error))?.into_value())
    }

    async fn put(&self, key: Bytes, value: Bytes, lifetime: Option<Duration>) -> Result<(), Trouble> {
        let stored = self.store(&key, value, lifetime).await;
        stored.map(drop).map_err(|error| trouble(&error))
    }

    async fn delete(&self, key: Bytes) -> Result<(), Trouble> {
        let deleted = match self.writes {
            Writes::Overwrite | Writes::Blind => self.client.delete_overwrite(key).await.map(drop),
            Writes::Update => delete_what_is_read(&self.client, &key).await,
        };
        deleted.map_err(|error| trouble(&error))
    }
}

async fn delete_what_is_read(client: &Client, key: &Bytes) -> Result<(), Error> {
    let got = client.get(key).await?;
    if got.context.is_empty() {
        return Ok(());
    }
    client.delete(key, &got.context).await.map(drop)
}

fn trouble(error: &Error) -> Trouble {
    let failure = match error {
        Error::Timeout => Failure::Timeout,
        Error::MaybeApplied { .. } => Failure::MaybeApplied,
        Error::Overloaded => Failure::Overloaded,
        Error::Disconnected(_)
        | Error::Unavailable(_)
        | Error::NotServing
        | Error::ShuttingDown
        | Error::Closed => Failure::Unreachable,
        _ => Failure::Refused,
    };
    let applied = if error.is_definite_failure() { Applied::No } else { Applied::Maybe };
    Trouble { failure, applied, code: String::new(), reason: error.to_string() }
}

impl Routed {
    /// As the client crate has it.
    pub fn routing(self) -> Routing {
        match self {
            Self::Client => Routing::Owner,
            Self::Server => Routing::Given,
            Self::Wrong => Routing::Wrong,
        }
    }

    /// One sentence, if a cluster has nobody to whom requests could be sent so.
    pub fn refuse_impossible(self, topology: &Topology) -> Result<(), String> {
        let shards: usize = topology.members.iter().map(|member| member.shard_ports.len().max(1)).sum();
        let copies = usize::from(topology.replicas);
        if self == Self::Wrong && shards <= copies {
            return Err(format!(
                "--routing wrong needs a shard that doesn't hold the key: there are {shards}, and {copies} copies of each key"
            ));
        }
        Ok(())
    }
}

impl FromStr for Routed {
    type Err = RoutedError;

    fn from_str(text: &str) -> Result<Self, RoutedError> {
        match text {
            "client" => Ok(Self::Client),
            "server" => Ok(Self::Server),
            "wrong" => Ok(Self::Wrong),
            _ => Err(RoutedError(text.to_owned())),
        }
    }
}

impl fmt::Display for Routed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Wrong => "wrong",
        })
    }
}

impl FromStr for Writes {
    type Err = WritesError;

    fn from_str(text: &str) -> Result<Self, WritesError> {
        match text {
            "overwrite" => Ok(Self::Overwrite),
            "update" => Ok(Self::Update),
            "blind" => Ok(Self::Blind),
            _ => Err(WritesError(text.to_owned())),
        }
    }
}

impl fmt::Display for Writes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Overwrite => "overwrite",
            Self::Update => "update",
            Self::Blind => "blind",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A doubt must never be entered as a refusal: its value may be read later, rightly.
    #[test]
    fn only_definite_failures_count_as_not_applied() {
        for (error, failure, applied) in [
            (Error::Timeout, Failure::Timeout, Applied::No),
            (Error::Overloaded, Failure::Overloaded, Applied::No),
            (Error::Unavailable(String::new()), Failure::Unreachable, Applied::No),
            (Error::BadContext, Failure::Refused, Applied::No),
            (Error::MaybeApplied { acks: 1 }, Failure::MaybeApplied, Applied::Maybe),
        ] {
            let reason = error.to_string();
            assert_eq!(trouble(&error), Trouble { failure, applied, code: String::new(), reason });
        }
    }
}
