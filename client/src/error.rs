//! What can go wrong, and what to do about it.
//!
//! One question matters more than which variant it is: may the write have been applied? A failure that was
//! reported as definite was never applied, on any replica; every doubt is [`Error::MaybeApplied`].

use ringmain_schema::ErrorCode;
use ringmain_schema::message::ErrorAnswer;
use thiserror::Error;

use crate::url::UrlError;

/// Why a request didn't succeed.
///
/// ```
/// use ringmain_client::Error;
///
/// assert!(Error::Overloaded.is_definite_failure());
/// assert!(!Error::MaybeApplied { acks: 1 }.is_definite_failure());
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The URL given to [`Client::connect`](crate::Client::connect) can't be understood.
    #[error("{0}")]
    Url(#[from] UrlError),
    /// A table or queue is full: this client's `in_flight`, a connection's, or one of the server's.
    #[error("overloaded: wait a moment, then send less at once or raise the limit on requests in flight")]
    Overloaded,
    /// The deadline passed. A write that reports it was certainly not applied.
    #[error("timed out: give it more time, ask for fewer replicas, or look for a slow server")]
    Timeout,
    /// The write was sent, but fewer replicas than asked for are known to have it: maybe none, maybe all.
    /// Read the key, or write again: a second write of the same value does no harm.
    #[error("the write may have been applied: {acks} durable acknowledgements are known; read it back")]
    MaybeApplied {
        /// Durable acknowledgements that were counted; 0 also where nobody could tell.
        acks: u8,
    },
    /// The key, the value or the whole request is larger than the server takes.
    #[error("too large: the limit is {limit} bytes; store less under one key, or send smaller batches")]
    TooLarge {
        /// In bytes, of what was too large.
        limit: u64,
    },
    /// The shard doesn't hold the key, and the request forbade to pass it on.
    #[error("the shard that was asked doesn't hold this key, and a direct request is not passed on")]
    WrongShard,
    /// Too few replicas can be reached for what was asked.
    #[error("too few replicas can be reached: ask for fewer, or wait for nodes to come back ({0})")]
    Unavailable(String),
    /// No replica that answered in time has seen the context given to `at_least`.
    #[error("no replica that answered has caught up with the given context: try again, or read without it")]
    Stale,
    /// The context is not one that this cluster gave for this key.
    #[error("the context was not given by this cluster for this key: read the key again and use its context")]
    BadContext,
    /// The request makes no sense; the text says why.
    #[error("bad request: {0}")]
    BadRequest(String),
    /// The server doesn't know this kind of request.
    #[error("the server doesn't support this: {0}")]
    Unsupported(String),
    /// The server belongs to another cluster.
    #[error("the server belongs to another cluster: check the addresses and the cluster id ({0})")]
    WrongCluster(String),
    /// Client and server speak no common version of the protocol.
    #[error("client and server speak no common version of the protocol: upgrade the older one ({0})")]
    VersionMismatch(String),
    /// The cluster's secret is missing or wrong.
    #[error("the cluster's secret is missing or wrong: give it with cluster_secret or ?secret=")]
    Unauthorized,
    /// The server is up, but its cluster hasn't met yet, or the node isn't ready.
    #[error("the server isn't serving yet: its cluster hasn't met, or the node isn't ready; try again")]
    NotServing,
    /// The server is about to stop and takes nothing new.
    #[error("the server is shutting down and takes nothing new: try another")]
    ShuttingDown,
    /// The key has so many concurrent versions that a blind put is refused.
    #[error("the key has {limit} concurrent versions: read it, merge them, and put with the context")]
    TooManySiblings {
        /// Versions that a key may have.
        limit: u64,
    },
    /// No server could be reached, or the connection was lost before the request left.
    #[error("no connection: {0}")]
    Disconnected(String),
    /// The server sent something that this protocol doesn't allow.
    #[error("the server broke the protocol: {0}; do client and server match?")]
    Protocol(String),
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

impl Error {
    /// Was the request certainly not applied, on any replica? True of all but [`Error::MaybeApplied`], which
    /// is what a write ends in where there is any doubt.
    pub fn is_definite_failure(&self) -> bool {
        !matches!(self, Self::MaybeApplied { .. })
    }

    /// Would every other attempt with the same addresses and credentials fail too?
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::WrongCluster(_) | Self::VersionMismatch(_) | Self::Unauthorized)
    }

    /// From a server's answer. `NOT_FOUND` is no error to a caller; whoever expects it looks for it first.
    pub(crate) fn from_answer(answer: &ErrorAnswer<'_>) -> Self {
        let message = || answer.message.to_owned();
        match answer.code {
            ErrorCode::BadRequest => Self::BadRequest(message()),
            ErrorCode::Unsupported => Self::Unsupported(message()),
            ErrorCode::Overloaded => Self::Overloaded,
            ErrorCode::Timeout => Self::Timeout,
            ErrorCode::MaybeApplied => Self::MaybeApplied { acks: answer.acks },
            ErrorCode::TooLarge => Self::TooLarge { limit: answer.limit },
            ErrorCode::WrongShard => Self::WrongShard,
            ErrorCode::Unavailable => Self::Unavailable(message()),
            ErrorCode::Stale => Self::Stale,
            ErrorCode::BadContext => Self::BadContext,
            ErrorCode::WrongCluster | ErrorCode::WrongNode => Self::WrongCluster(message()),
            ErrorCode::VersionMismatch => Self::VersionMismatch(message()),
            ErrorCode::Unauthorized => Self::Unauthorized,
            ErrorCode::NotServing => Self::NotServing,
            ErrorCode::ShuttingDown => Self::ShuttingDown,
            ErrorCode::TooManySiblings => Self::TooManySiblings { limit: answer.limit },
            other => Self::Protocol(format!("unexpected error {}: {}", other.0, answer.message)),
        }
    }
}
