//! One request about one key: route it, send it, and try again where that is safe.

use std::time::Duration;

use bytes::Bytes;
use ringmain_schema::message::{Get, Put};
use ringmain_schema::token::token;
use ringmain_schema::{Encoder, Flags, Frame};
use tokio::time::Instant;

use crate::answer::{Got, Stored};
use crate::connection::{NotSent, Outcome, Pending, frame, was_forwarded};
use crate::engine::Engine;
use crate::error::Error;
use crate::options::Options;
use crate::router::Route;
use crate::tries::{Next, Tries};

/// What to do with a key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verb<'a> {
    Get,
    Put(&'a [u8]),
    Delete,
}

/// A request, but for where it goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) verb: Verb<'a>,
    pub(crate) options: &'a Options,
    /// The write's operation id: its client, and its number there.
    pub(crate) operation: (u64, u64),
    pub(crate) deadline: Instant,
}

/// How an answer is read.
pub(crate) type Read<T> = fn(&Bytes, &Frame<'_>) -> Result<T, Error>;

impl Call<'_> {
    pub(crate) fn is_write(&self) -> bool {
        !matches!(self.verb, Verb::Get)
    }

    /// Append its frame, for a server reached by `epoch`, with what is left of its deadline.
    pub(crate) fn encode(&self, encoder: &mut Encoder, id: u64, epoch: u64, now: Instant, out: &mut Vec<u8>) {
        let budget_us = budget_us(self.deadline, now);
        let flags = if self.options.direct { Flags::DIRECT } else { Flags::NONE };
        let value = match self.verb {
            Verb::Get => {
                let get = Get {
                    key: self.key,
                    read: self.options.read,
                    budget_us,
                    latest: self.options.latest,
                    at_least: self.options.at_least.as_bytes(),
                    epoch,
                    primaries: self.options.primaries,
                };
                return get.encode(encoder, id, flags, out);
            }
            Verb::Put(value) => Some(value),
            Verb::Delete => None,
        };
        let put = Put {
            key: self.key,
            value,
            write: self.options.write,
            budget_us,
            context: self.options.context.as_bytes(),
            overwrite: self.options.overwrite,
            ttl_ms: self.options.ttl_ms,
            operation_client: self.operation.0,
            operation_sequence: self.operation.1,
            epoch,
            primaries: self.options.primaries,
            zones: self.options.zones,
        };
        put.encode(encoder, id, flags, out);
    }
}

/// What is left of a deadline, as the wire has it, but for the time that the answer needs to travel: a
/// server that has used up its budget tells how far a write has come, and the caller should still hear it.
/// At least 1, because 0 means the server's default.
pub(crate) fn budget_us(deadline: Instant, now: Instant) -> u32 {
    let left = deadline.saturating_duration_since(now);
    let travel = (left / 16).min(TRAVEL_MAX);
    u32::try_from((left - travel).as_micros()).unwrap_or(u32::MAX).max(1)
}

const TRAVEL_MAX: Duration = Duration::from_millis(5);

/// Read a key.
pub(crate) async fn get(engine: &Engine, key: &[u8], options: &Options) -> Result<Got, Error> {
    run(engine, key, Verb::Get, options, Got::read).await
}

/// Put or delete a key.
pub(crate) async fn write(
    engine: &Engine,
    key: &[u8],
    verb: Verb<'_>,
    options: &Options,
) -> Result<Stored, Error> {
    if matches!(verb, Verb::Delete) {
        check_delete(options)?;
    }
    run(engine, key, verb, options, Stored::read).await
}

/// A delete without a context would cover nothing.
pub(crate) fn check_delete(options: &Options) -> Result<(), Error> {
    if options.overwrite || !options.context.is_empty() {
        return Ok(());
    }
    let why = "a delete needs the context of what it deletes: read the key first, or use delete_overwrite; \
               an empty context means that there was nothing to delete";
    Err(Error::BadRequest(why.to_owned()))
}

async fn run<T>(
    engine: &Engine,
    key: &[u8],
    verb: Verb<'_>,
    options: &Options,
    read: Read<T>,
) -> Result<T, Error> {
    let value = if let Verb::Put(value) = verb { Some(value) } else { None };
    engine.check(key, value)?;
    let _permit = engine.admit(1)?;
    let start = Instant::now();
    let is_write = value.is_some() || matches!(verb, Verb::Delete);
    let sequence = if is_write { engine.next_sequences(1) } else { 0 };
    let operation = (engine.operation_client, sequence);
    let call = Call { key, verb, options, operation, deadline: deadline(start, options.timeout) };
    let mut tries = Tries::new(is_write, options.retry);
    let turn = engine.router.first_turn(is_write);
    let token = token(key);
    let mut now = start;
    loop {
        if let Some(route) = engine.router.choose(token, turn, tries.tried(), now) {
            let Some(pending) = send(&call, &route, &mut tries, now)? else { continue };
            let next = match judge(engine, &mut tries, &route, pending.await, read) {
                Ok(answer) => return Ok(answer),
                Err(next) => next,
            };
            match next {
                Next::Another => {}
                Next::Refresh => refresh(engine, &mut tries, &route, call.deadline).await?,
                Next::GiveUp(error) => return Err(error),
            }
        } else {
            let pause = tries.pause(call.deadline, now, || engine.router.failure())?;
            tokio::time::sleep(pause).await;
        }
        now = Instant::now();
    }
}

/// A deadline that can be reckoned with, however long the timeout.
pub(crate) fn deadline(start: Instant, timeout: Duration) -> Instant {
    const LONGEST: Duration = Duration::from_secs(24 * 3600);
    start + timeout.min(LONGEST)
}

/// `None` if this connection can't take it; then another is to be chosen.
fn send(call: &Call<'_>, route: &Route, tries: &mut Tries, now: Instant) -> Result<Option<Pending>, Error> {
    tries.begin(route);
    let encode =
        |encoder: &mut Encoder, id, out: &mut Vec<u8>| call.encode(encoder, id, route.epoch, now, out);
    match route.connection.send(Some(call.deadline), encode) {
        Ok(pending) => Ok(Some(pending)),
        Err(not_sent) => not_queued(&not_sent, route, tries).map(|()| None),
    }
}

/// Nothing was queued on the chosen connection.
pub(crate) fn not_queued(not_sent: &NotSent, route: &Route, tries: &mut Tries) -> Result<(), Error> {
    match *not_sent {
        NotSent::TooLarge(limit) => return Err(tries.give_up(Error::TooLarge { limit })),
        NotSent::Full => tries.take_back(true),
        NotSent::Away => {
            tries.take_back(false);
            tries.note(route.connection.last_failure());
        }
    }
    Ok(())
}

/// What follows from the outcome of a try.
fn judge<T>(
    engine: &Engine,
    tries: &mut Tries,
    route: &Route,
    outcome: Outcome,
    read: Read<T>,
) -> Result<T, Next> {
    match outcome {
        Outcome::Answer(bytes) => {
            let frame = frame(&bytes);
            if route.is_owner() && was_forwarded(&frame) {
                engine.follow.ask_for_refresh(&route.connection);
            }
            read(&bytes, &frame).map_err(|error| tries.refused(error, route))
        }
        Outcome::Lost { sent } => Err(tries.lost(sent, route.connection.last_failure())),
        Outcome::TimedOut { sent } => Err(Next::GiveUp(tries.timed_out(sent))),
    }
}

/// The server doesn't hold the key: learn from it who does.
pub(crate) async fn refresh(
    engine: &Engine,
    tries: &mut Tries,
    route: &Route,
    deadline: Instant,
) -> Result<(), Error> {
    let is_newer = engine.refresh_past(route, deadline).await;
    tries.refreshed(is_newer)
}
