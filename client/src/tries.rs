//! What a request has been through: which servers were tried, and what is still in doubt.
//!
//! A try that failed before anything was applied is followed by another on another replica, a few times and
//! within the deadline. A write carries the same operation id each time, so it applies once however many
//! tries arrive. Once a write may have been applied, no later failure, however definite, takes that back.

use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use crate::error::Error;
use crate::random::back_off;
use crate::router::Route;

/// Tries of one request, the first included.
const TRIES_MAX: u32 = 4;
/// Tries of a request that servers couldn't serve for lack of room or of replicas: more would make it worse.
const TRIES_UNDER_LOAD_MAX: u32 = 2;
/// Between rounds over all servers.
const PAUSE: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// How long a server that doesn't serve is left alone.
const REST: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub(crate) struct Tries {
    is_write: bool,
    may_retry: bool,
    /// Numbers of the connections tried in this round.
    tried: SmallVec<[u32; 8]>,
    sent: u32,
    pauses: u32,
    /// A connection was left out in this round because it was full.
    met_full: bool,
    /// Durable acknowledgements known of, once a try may have been applied.
    doubt: Option<u8>,
    /// Why the last try failed.
    last: Option<Error>,
}

/// What to do after a try that failed.
#[derive(Debug)]
pub(crate) enum Next {
    /// Try another server.
    Another,
    /// Learn a newer topology, then try again.
    Refresh,
    /// Tell the caller.
    GiveUp(Error),
}

impl Tries {
    pub(crate) fn new(is_write: bool, may_retry: bool) -> Self {
        Self {
            is_write,
            may_retry,
            tried: SmallVec::new(),
            sent: 0,
            pauses: 0,
            met_full: false,
            doubt: None,
            last: None,
        }
    }

    /// Connections not to be tried again in this round.
    pub(crate) fn tried(&self) -> &[u32] {
        &self.tried
    }

    /// A request is about to go over this connection.
    pub(crate) fn begin(&mut self, route: &Route) {
        self.tried.push(route.connection.number);
        self.sent += 1;
    }

    /// Nothing was sent after all.
    pub(crate) fn take_back(&mut self, is_full: bool) {
        self.sent -= 1;
        self.met_full |= is_full;
    }

    /// The answer didn't fit in one frame with others, which came: ask again for what is left.
    pub(crate) fn put_off(&mut self) {
        self.sent -= 1;
        self.tried.pop();
    }

    /// The connection was lost.
    pub(crate) fn lost(&mut self, sent: bool, reason: Option<Error>) -> Next {
        self.may_have_been_applied(sent, 0);
        let reason = reason.unwrap_or_else(|| Error::Disconnected("the connection was lost".to_owned()));
        let reason = match reason {
            // Told by a server to a connection, or of a connection; the request itself was never refused.
            reason if reason.is_refusal() => reason,
            Error::Disconnected(_) => reason,
            other => Error::Disconnected(other.to_string()),
        };
        self.another(reason, TRIES_MAX)
    }

    /// The deadline passed.
    pub(crate) fn timed_out(&mut self, sent: bool) -> Error {
        self.may_have_been_applied(sent, 0);
        self.give_up(Error::Timeout)
    }

    /// The server answered with an error.
    pub(crate) fn refused(&mut self, error: Error, route: &Route) -> Next {
        match error {
            Error::NotServing | Error::ShuttingDown => {
                route.connection.rest(Instant::now(), REST);
                self.another(error, TRIES_MAX)
            }
            Error::Overloaded | Error::Unavailable(_) => self.another(error, TRIES_UNDER_LOAD_MAX),
            Error::WrongShard if route.is_owner() && self.may_retry && self.sent < TRIES_MAX => {
                self.last = Some(error);
                Next::Refresh
            }
            // Neither says that the write was not applied, so neither is taken for a definite failure.
            Error::Timeout | Error::Protocol(_) => {
                self.may_have_been_applied(true, 0);
                Next::GiveUp(self.give_up(error))
            }
            Error::MaybeApplied { acks } => {
                self.may_have_been_applied(true, acks);
                Next::GiveUp(self.give_up(error))
            }
            other => Next::GiveUp(self.give_up(other)),
        }
    }

    /// The topology was refreshed: every server may be asked again, if anything is new.
    pub(crate) fn refreshed(&mut self, is_newer: bool) -> Result<(), Error> {
        if !is_newer {
            return Err(self.give_up(Error::WrongShard));
        }
        self.tried.clear();
        Ok(())
    }

    /// No server is left in this round: how long to wait for the next, if the deadline lets us. `failure`
    /// tells why none can be reached, and is what the caller hears if no server ever told more.
    pub(crate) fn pause(
        &mut self,
        deadline: Instant,
        now: Instant,
        failure: impl FnOnce() -> Option<Error>,
    ) -> Result<Duration, Error> {
        if self.met_full {
            return Err(self.give_up(Error::Overloaded));
        }
        self.pauses += 1;
        let pause = back_off(self.pauses, PAUSE, PAUSE_MAX);
        if now + pause >= deadline {
            let last = self.last.take().or_else(failure).unwrap_or(Error::Timeout);
            return Err(self.give_up(last));
        }
        self.tried.clear();
        Ok(pause)
    }

    /// The error to report in the end: any doubt outweighs it.
    pub(crate) fn give_up(&self, error: Error) -> Error {
        self.doubt.map_or(error, |acks| Error::MaybeApplied { acks })
    }

    /// Remember why a server couldn't be asked, for want of a better reason.
    pub(crate) fn note(&mut self, reason: Option<Error>) {
        if reason.is_some() {
            self.last = reason;
        }
    }

    fn another(&mut self, reason: Error, tries_max: u32) -> Next {
        if !self.may_retry || self.sent >= tries_max {
            return Next::GiveUp(self.give_up(reason));
        }
        self.last = Some(reason);
        Next::Another
    }

    fn may_have_been_applied(&mut self, sent: bool, acks: u8) {
        if self.is_write && sent {
            self.doubt = Some(self.doubt.map_or(acks, |known| known.max(acks)));
        }
    }
}
