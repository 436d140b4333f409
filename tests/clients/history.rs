//! What clients wrote down: one record for each operation, from its call to its outcome, and values that say where
//! they come from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Instant;

use ringmain_client::Error;
use serde::{Deserialize, Serialize};

/// An operation, unique in the run: whose, and which of theirs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) struct Id(pub(crate) u16, pub(crate) u32);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}.{}", self.0, self.1)
    }
}

/// A value as it is stored.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Value {
    /// The put that wrote it.
    pub(crate) id: Id,
    pub(crate) key: String,
    /// The puts whose values the writer had read, and replaced.
    pub(crate) replaced: BTreeSet<Id>,
    pub(crate) content: Content,
}

/// What an application keeps under a key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Content {
    /// Nothing but who wrote it.
    Register,
    /// Each put adds one item, its own id.
    Cart(BTreeSet<Id>),
    /// By worker: how often it has counted.
    Counter(BTreeMap<u16, u32>),
}

impl Value {
    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap()
    }

    /// `None` for what no client has written.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

/// One operation of one worker, whatever the client crate did for it.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) id: Id,
    pub(crate) key: String,
    pub(crate) call: Call,
    /// The client crate may have sent it more than once.
    pub(crate) may_retry: bool,
    pub(crate) invoked: Instant,
    pub(crate) returned: Instant,
    pub(crate) outcome: Outcome,
}

#[derive(Clone, Debug)]
pub(crate) enum Call {
    /// The puts whose values were seen; `None` for a value that nobody can have written.
    Read(Vec<Option<Id>>),
    Put(Value),
    /// Of the values of these puts.
    Delete(BTreeSet<Id>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Ok,
    /// Certainly not applied, now or later.
    Failed,
    /// Perhaps applied.
    Unknown,
}

impl Operation {
    pub(crate) const fn is_write(&self) -> bool {
        !matches!(self.call, Call::Read(_))
    }
}

impl Outcome {
    pub(crate) fn of<T>(result: &Result<T, Error>) -> Self {
        match result {
            Ok(_) => Self::Ok,
            Err(error) if error.is_definite_failure() => Self::Failed,
            Err(_) => Self::Unknown,
        }
    }
}
