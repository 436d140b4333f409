//! What answers carry: siblings, the context to write with, and how many replicas they rest on.

use std::ops::Deref;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use ringmain_schema::message::{self, ErrorAnswer, VersionHead};
use ringmain_schema::{ErrorCode, Frame, Kind};
use smallvec::SmallVec;

use crate::error::Error;

/// What a writer has seen of a key: opaque, bound to the key, and checked by the server.
///
/// It comes with every read, found or not, and goes with the put or delete that replaces exactly what was
/// read. It may be stored and used later, or by another process:
///
/// ```
/// use ringmain_client::Context;
///
/// let context = Context::from_bytes(b"as stored in a session".to_vec());
/// assert!(!context.is_empty());
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Context(Bytes);

impl Context {
    /// From the bytes of an earlier one.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// To be stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Covers nothing: a put with it makes a sibling. So is that of a key never written, and of a `latest`
    /// read that left versions out.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// How many replicas stand behind an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Replicas {
    /// Primary replicas: the first N nodes of the key's preference list.
    pub primaries: u8,
    /// Fallback replicas, which stand in for primaries that didn't answer.
    pub fallbacks: u8,
    /// Distinct nodes among them.
    pub nodes: u8,
}

/// One of the concurrent versions of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sibling {
    /// Its bytes: a slice of the receive buffer, which it keeps alive (64 KiB, or the answer if that is
    /// larger). Copy it (`Bytes::copy_from_slice`) to hold a small value for long.
    pub value: Bytes,
    /// The coordinator's wall clock when it was put.
    pub timestamp: SystemTime,
    /// When it expires, by the replicas' wall clocks; `None` for never.
    pub expiry: Option<SystemTime>,
}

/// The versions of a key: none, one, or several concurrent ones. A slice of [`Sibling`]s.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Siblings(SmallVec<[Sibling; 1]>);

impl Deref for Siblings {
    type Target = [Sibling];

    fn deref(&self) -> &[Sibling] {
        &self.0
    }
}

impl IntoIterator for Siblings {
    type Item = Sibling;
    type IntoIter = smallvec::IntoIter<[Sibling; 1]>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Siblings {
    type Item = &'a Sibling;
    type IntoIter = std::slice::Iter<'a, Sibling>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl FromIterator<Sibling> for Siblings {
    fn from_iter<I: IntoIterator<Item = Sibling>>(siblings: I) -> Self {
        Self(siblings.into_iter().collect())
    }
}

/// What a read found.
///
/// ```no_run
/// # async fn example(client: ringmain_client::Client) -> Result<(), ringmain_client::Error> {
/// let got = client.get("cart:42").await?;
/// for sibling in &got.siblings {
///     println!("{} bytes, put at {:?}", sibling.value.len(), sibling.timestamp);
/// }
/// let merged = got.merge(|siblings| siblings.iter().flat_map(|sibling| sibling.value.clone()).collect());
/// client.put_with("cart:42", merged, &got.context).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Got {
    /// The versions; none if the key is not there.
    pub siblings: Siblings,
    /// What a write must carry to replace exactly these versions, or what was deleted before.
    pub context: Context,
    /// What this answer rests on.
    pub replicas: Replicas,
}

impl Got {
    /// Is there a version?
    pub fn is_found(&self) -> bool {
        !self.siblings.is_empty()
    }

    /// The only version's value, or that of the latest by timestamp; `None` if the key is not there.
    pub fn value(&self) -> Option<&Bytes> {
        self.siblings.iter().max_by_key(|sibling| sibling.timestamp).map(|sibling| &sibling.value)
    }

    /// [`value`](Self::value), by value.
    pub fn into_value(self) -> Option<Bytes> {
        self.siblings.into_iter().max_by_key(|sibling| sibling.timestamp).map(|sibling| sibling.value)
    }

    /// One value out of all versions, by `merge`, which gets none if the key is not there. Write it with
    /// [`context`](Self::context); [`Client::update`](crate::Client::update) does both.
    pub fn merge(&self, merge: impl FnOnce(&[Sibling]) -> Bytes) -> Bytes {
        merge(&self.siblings)
    }

    /// From an answer to a get.
    pub(crate) fn read(bytes: &Bytes, frame: &Frame<'_>) -> Result<Self, Error> {
        match frame.header.kind {
            Kind::GOT => Self::found(bytes, &message::Got::parse(frame).map_err(malformed)?),
            Kind::ERROR => {
                let answer = ErrorAnswer::parse(frame).map_err(malformed)?;
                if answer.code != ErrorCode::NotFound {
                    return Err(Error::from_answer(&answer));
                }
                let replicas = replicas(answer.primaries, answer.fallbacks, answer.nodes);
                Ok(Self { siblings: Siblings::default(), context: context(bytes, answer.context), replicas })
            }
            kind => Err(unexpected(kind)),
        }
    }

    fn found(bytes: &Bytes, got: &message::Got<'_>) -> Result<Self, Error> {
        let siblings = got.versions.iter().map(|(head, value)| sibling(head, bytes.slice_ref(value)));
        Ok(Self {
            siblings: siblings.collect(),
            context: context(bytes, got.context),
            replicas: replicas(got.primaries, got.fallbacks, got.nodes),
        })
    }
}

/// A put or delete was applied.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stored {
    /// Of the new version, where it is the only one; else empty: read the key to learn its siblings.
    pub context: Context,
    /// Replicas that hold it durably.
    pub replicas: Replicas,
}

impl Stored {
    /// From an answer to a put or delete.
    pub(crate) fn read(bytes: &Bytes, frame: &Frame<'_>) -> Result<Self, Error> {
        match frame.header.kind {
            Kind::STORED => {
                let stored = message::Stored::parse(frame).map_err(malformed)?;
                let replicas = replicas(stored.primaries, stored.fallbacks, stored.nodes);
                Ok(Self { context: context(bytes, stored.context), replicas })
            }
            kind => Err(failure(frame).unwrap_or_else(|| unexpected(kind))),
        }
    }
}

/// The error that an answer carries, if it does.
pub(crate) fn failure(frame: &Frame<'_>) -> Option<Error> {
    (frame.header.kind == Kind::ERROR).then(|| match ErrorAnswer::parse(frame) {
        Ok(answer) => Error::from_answer(&answer),
        Err(reason) => malformed(reason),
    })
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
pub(crate) fn malformed(reason: ringmain_schema::Malformed) -> Error {
    Error::Protocol(reason.to_string())
}

pub(crate) fn unexpected(kind: Kind) -> Error {
    Error::Protocol(format!("an answer of kind {} to a request of another", kind.0))
}

fn context(bytes: &Bytes, context: &[u8]) -> Context {
    Context(bytes.slice_ref(context))
}

fn replicas(primaries: u8, fallbacks: u8, nodes: u8) -> Replicas {
    Replicas { primaries, fallbacks, nodes }
}

fn sibling(head: VersionHead, value: Bytes) -> Sibling {
    Sibling {
        value,
        timestamp: UNIX_EPOCH + Duration::from_micros(head.timestamp_us),
        expiry: (head.expiry_us != 0).then(|| UNIX_EPOCH + Duration::from_micros(head.expiry_us)),
    }
}
