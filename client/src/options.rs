//! What a request asks for besides its key and value.

use std::time::Duration;

use crate::answer::Context;

/// Defaults come from the [`Builder`](crate::Builder); each call starts from a copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Options {
    /// R; 0 for the server's default.
    pub(crate) read: u8,
    /// W; 0 for the server's default.
    pub(crate) write: u8,
    /// Of R or W, so many must be primaries; 0 if none need be.
    pub(crate) primaries: u8,
    /// A write must be in so many zones; 0 for wherever it is.
    pub(crate) zones: u8,
    /// Deadline of the whole request, retries included.
    pub(crate) timeout: Duration,
    /// Of what is put, in milliseconds; 0 for ever.
    pub(crate) ttl_ms: u64,
    /// A read must not be older than this.
    pub(crate) at_least: Context,
    /// A write replaces what this covers.
    pub(crate) context: Context,
    /// A write replaces whatever its coordinator has.
    pub(crate) overwrite: bool,
    /// A read gives only the version with the highest timestamp.
    pub(crate) latest: bool,
    /// A shard that doesn't hold the key says so, rather than pass the request on.
    pub(crate) direct: bool,
    /// Another replica may be tried.
    pub(crate) retry: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            read: 0,
            write: 0,
            primaries: 0,
            zones: 0,
            timeout: Duration::from_secs(1),
            ttl_ms: 0,
            at_least: Context::default(),
            context: Context::default(),
            overwrite: false,
            latest: false,
            direct: false,
            retry: true,
        }
    }
}

/// A time to live in whole milliseconds, at least one: 0 would mean for ever.
pub(crate) fn ttl_ms(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1)
}
