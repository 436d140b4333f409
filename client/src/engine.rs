//! What is behind every clone of a client: its bounds, its name, and the way to the servers.
//!
//! It counts requests in flight and refuses one too many, names writes, and refuses what every server would.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ringmain_schema::limits::KEY_BYTES_MAX;

use crate::connection::Settings;
use crate::error::Error;
use crate::follow::Follow;
use crate::options::Options;
use crate::random::random;
use crate::router::Router;

/// See the module.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) defaults: Options,
    pub(crate) settings: Arc<Settings>,
    pub(crate) router: Router,
    pub(crate) follow: Follow,
    in_flight: AtomicUsize,
    in_flight_max: usize,
    /// With a sequence number it names a write, so that a retry applies once.
    pub(crate) operation_client: u64,
    operation_sequence: AtomicU64,
}

impl Engine {
    pub(crate) fn new(
        defaults: Options,
        in_flight_max: usize,
        settings: Arc<Settings>,
        router: Router,
    ) -> Self {
        Self {
            defaults,
            settings,
            router,
            follow: Follow::default(),
            in_flight: AtomicUsize::new(0),
            in_flight_max,
            // 0 would mean that writes have no name.
            operation_client: random().max(1),
            operation_sequence: AtomicU64::new(1),
        }
    }

    /// Room for `requests` more, or `Overloaded` at once.
    pub(crate) fn admit(&self, requests: usize) -> Result<Permit<'_>, Error> {
        let before = self.in_flight.fetch_add(requests, Ordering::Relaxed);
        let permit = Permit { engine: self, requests };
        if before + requests > self.in_flight_max {
            return Err(Error::Overloaded);
        }
        Ok(permit)
    }

    /// Requests under way.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Names for `count` writes: this one and those that follow it.
    pub(crate) fn next_sequences(&self, count: u64) -> u64 {
        self.operation_sequence.fetch_add(count, Ordering::Relaxed)
    }

    /// Refuse here what every server would refuse.
    pub(crate) fn check(&self, key: &[u8], value: Option<&[u8]>) -> Result<(), Error> {
        if key.is_empty() {
            return Err(Error::BadRequest("the key is empty: a key has 1 byte to 64 KiB".to_owned()));
        }
        if key.len() > KEY_BYTES_MAX {
            return Err(Error::TooLarge { limit: KEY_BYTES_MAX as u64 });
        }
        let limit = self.settings.value_bytes_max.load(Ordering::Relaxed);
        if value.is_some_and(|value| value.len() > limit as usize) {
            return Err(Error::TooLarge { limit: u64::from(limit) });
        }
        Ok(())
    }
}

/// Room for some requests, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    engine: &'a Engine,
    requests: usize,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.engine.in_flight.fetch_sub(self.requests, Ordering::Relaxed);
    }
}
