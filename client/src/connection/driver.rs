//! The task behind a connection: one loop that reads, writes, and watches the time.
//!
//! It is a hand-written future, so that an idle connection costs nothing and a busy one costs one wake-up
//! for all that gathered: each poll reads all there is, settles the waiters of those answers under one lock,
//! and writes all that callers queued meanwhile in as few calls as the socket takes.
//!
//! There is one timer for all waiters, set to the earliest deadline; as nearly all requests are answered long
//! before theirs, it fires about once in the length of a timeout.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::BytesMut;
use ringmain_schema::message::{ErrorAnswer, Ping};
use ringmain_schema::{Frame, FrameError, Header, Kind};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::clock::Clock;
use super::handshake::{Link, dial, wake_all};
use super::silence::{Listening, Silence};
use super::{CLOSED, Connection, Outcome, UP};
use crate::error::Error;
use crate::random::{back_off, jitter};

/// Room that every read is offered at least.
const READ_BYTES_MIN: usize = 8 * 1024;
/// The receive buffer: values of answers are slices of it.
const READ_BYTES: usize = 64 * 1024;
/// Send buffers that grew past this are given back.
const SEND_BYTES_KEPT: usize = 1024 * 1024;
/// A connection that only holds a subscription is checked this often.
const SUBSCRIPTION_SILENCE_MAX: Duration = Duration::from_secs(10);
/// For a ping; its answer only counts as a sign of life.
const PING_ID: u64 = 0;
/// Back-off after lost connections and failed calls.
const BACK_OFF: Duration = Duration::from_millis(20);
const BACK_OFF_MAX: Duration = Duration::from_secs(2);
/// After a connection that had worked, so that clients of a restarted server don't call in one instant.
const RECALL_PAUSE: Duration = Duration::from_millis(2);
/// How long a server that said in its welcome that it isn't serving is left alone.
const NOT_SERVING_PAUSE: Duration = Duration::from_millis(200);

/// What a driver owes to those who wait: an outcome, however it ends, even if it is dropped with its runtime
/// before it ever ran.
pub(super) struct Duty {
    connection: Arc<Connection>,
    failure: Error,
    /// Bytes of requests that may have left.
    written: u64,
}

impl Duty {
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        let why = "the runtime on which the client connected is gone: connect again on this one";
        Self { connection, failure: Error::Disconnected(why.to_owned()), written: u64::MAX }
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        let failure = std::mem::replace(&mut self.failure, Error::Closed);
        fall(&self.connection, failure, self.written);
    }
}

/// Call, serve the connection while it lasts, and tell all who wait when it ends.
pub(super) async fn run(mut duty: Duty) {
    let link = match dial_watching(&duty.connection).await {
        Ok(link) => link,
        Err(failure) => {
            (duty.failure, duty.written) = (failure, 0);
            return;
        }
    };
    come_up(&duty.connection, &link);
    let mut driver = Driver::new(&duty.connection, link);
    let failure = std::future::poll_fn(|context| driver.poll(context)).await;
    let written = driver.written;
    (duty.failure, duty.written) = (failure, written);
}

/// Call, and meanwhile watch the deadlines of those who wait already.
async fn dial_watching(connection: &Connection) -> Result<Link, Error> {
    let mut call = pin!(dial(connection));
    let mut clock = Clock::new();
    let mut woken = Vec::new();
    std::future::poll_fn(move |context| {
        if let Poll::Ready(result) = call.as_mut().poll(context) {
            return Poll::Ready(result);
        }
        loop {
            let now = Instant::now();
            let mut lane = connection.lane();
            if lane.is_over() {
                return Poll::Ready(Err(Error::Closed));
            }
            lane.expire(now, &mut woken);
            let alarm = lane.slots.earliest();
            lane.driver_rests(context.waker(), clock.next(alarm, now));
            drop(lane);
            wake_all(&mut woken);
            ready!(clock.poll(context));
        }
    })
    .await
}

fn come_up(connection: &Connection, link: &Link) {
    if !link.is_serving {
        connection.rest(Instant::now(), NOT_SERVING_PAUSE);
    }
    connection.lane().came_up(link.in_flight_max);
    connection.phase.store(UP, Ordering::Release);
}

fn fall(connection: &Connection, failure: Error, written: u64) {
    let (mut woken, now) = (Vec::new(), Instant::now());
    let mut lane = connection.lane();
    let pause = match lane.failures {
        _ if failure.is_refusal() => jitter(BACK_OFF_MAX),
        0 => jitter(RECALL_PAUSE),
        failures => back_off(failures, BACK_OFF, BACK_OFF_MAX),
    };
    lane.failures += 1;
    lane.fell(failure, written, now + pause, &mut woken);
    connection.phase.store(CLOSED, Ordering::Release);
    drop(lane);
    wake_all(&mut woken);
}

/// An open connection.
struct Driver<'a> {
    connection: &'a Connection,
    stream: TcpStream,
    received: BytesMut,
    answer_bytes_max: usize,
    /// What is being written, and how much of it is.
    sending: Vec<u8>,
    sent: usize,
    /// Bytes of requests given to the kernel since the connection came up.
    written: u64,
    clock: Clock,
    silence: Silence,
    /// Kept for its capacity; empty between polls.
    woken: Vec<Waker>,
}

impl<'a> Driver<'a> {
    fn new(connection: &'a Connection, link: Link) -> Self {
        Self {
            connection,
            stream: link.stream,
            received: link.received,
            answer_bytes_max: link.answer_bytes_max,
            sending: Vec::new(),
            sent: 0,
            written: 0,
            clock: Clock::new(),
            silence: Silence::new(Instant::now()),
            woken: Vec::new(),
        }
    }

    /// Ready with the reason when the connection is over.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Error> {
        let turn = self.turn(context);
        wake_all(&mut self.woken);
        turn
    }

    fn turn(&mut self, context: &mut Context<'_>) -> Poll<Error> {
        // First read, so that a client that was itself held up doesn't blame the server.
        if let Err(failure) = self.read(context) {
            return Poll::Ready(failure);
        }
        loop {
            if let Err(failure) = self.watch(context) {
                return Poll::Ready(failure);
            }
            if let Err(failure) = self.write(context) {
                return Poll::Ready(failure);
            }
            // Pending registers the alarm; an alarm that has just fired is looked at and set anew.
            ready!(self.clock.poll(context));
        }
    }

    /// Read all there is, and settle the waiters of whole answers.
    fn read(&mut self, context: &mut Context<'_>) -> Result<(), Error> {
        loop {
            self.make_room();
            match pin!(self.stream.read_buf(&mut self.received)).poll(context) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) => return Err(self.lost("it hung up")),
                Poll::Ready(Ok(_)) => {
                    self.silence.heard();
                    self.take_answers()?;
                }
                Poll::Ready(Err(error)) => return Err(self.lost(&error.to_string())),
            }
        }
    }

    /// A large answer's buffer grows as its bytes arrive, never by what its header claims.
    fn make_room(&mut self) {
        if self.received.capacity() - self.received.len() < READ_BYTES_MIN {
            self.received.reserve(READ_BYTES.max(self.received.len()));
        }
    }

    fn take_answers(&mut self) -> Result<(), Error> {
        let mut lane = self.connection.lane();
        loop {
            let Some(frame) = split(&self.received, self.answer_bytes_max)? else { return Ok(()) };
            let (header, length) = (frame.header, frame.length());
            if !header.kind.is_answer() {
                return Err(Error::Protocol(format!("a frame of kind {} from a server", header.kind.0)));
            }
            if header.request_id == PING_ID && header.kind == Kind::ERROR {
                // About the connection as a whole: the server closes it next.
                return Err(complaint(&frame));
            }
            let bytes = self.received.split_to(length).freeze();
            if header.request_id != PING_ID {
                self.woken.extend(lane.answered(header.request_id, Outcome::Answer(bytes)));
            }
        }
    }

    /// Look at deadlines and at the other end's silence, and set the alarm for what comes next.
    fn watch(&mut self, context: &Context<'_>) -> Result<(), Error> {
        let now = Instant::now();
        let connection = self.connection;
        let mut lane = connection.lane();
        if lane.is_over() {
            return Err(Error::Closed);
        }
        lane.expire(now, &mut self.woken);
        let is_awaited = lane.slots.waiting() > 0;
        let within = connection.settings.hung_after / 2;
        let patience = match is_awaited {
            true => Some(within),
            false => (lane.slots.subscriptions() > 0).then_some(SUBSCRIPTION_SILENCE_MAX),
        };
        let listening = self.silence.look(now, is_awaited, patience, within);
        let listen_until = match listening {
            Listening::Quiet => None,
            Listening::Until(at) => Some(at),
            Listening::Ping(until) => {
                lane.send_unheard(|encoder, out| Ping.encode(encoder, Kind::PING, PING_ID, out));
                Some(until)
            }
            Listening::Dead => {
                drop(lane);
                return Err(self.lost("it has stopped answering"));
            }
        };
        let alarm = lane.slots.earliest().into_iter().chain(listen_until).min();
        lane.driver_rests(context.waker(), self.clock.next(alarm, now));
        Ok(())
    }

    /// Write until the outbox is empty or the socket full.
    fn write(&mut self, context: &mut Context<'_>) -> Result<(), Error> {
        loop {
            if self.sent == self.sending.len() && !self.take_outbox() {
                return Ok(());
            }
            let rest = &self.sending[self.sent..];
            match Pin::new(&mut self.stream).poll_write(context, rest) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(count)) => {
                    self.sent += count;
                    self.written += count as u64;
                }
                Poll::Ready(Err(error)) => return Err(self.lost(&error.to_string())),
            }
        }
    }

    /// False if nothing has gathered: then the next caller wakes this driver.
    fn take_outbox(&mut self) -> bool {
        self.sending.clear();
        self.sending.shrink_to(SEND_BYTES_KEPT);
        self.sent = 0;
        let mut lane = self.connection.lane();
        lane.take_outbox(&mut self.sending);
        lane.driver_waits = self.sending.is_empty();
        !self.sending.is_empty()
    }

    fn lost(&self, why: &str) -> Error {
        Error::Disconnected(format!("{}: {why}", self.connection.address))
    }
}

/// Cut the first answer, once it is there whole. A batch's may be as long as all its items' together, and
/// the client asked for those; any other has the given limit.
fn split(received: &[u8], answer_bytes_max: usize) -> Result<Option<Frame<'_>>, Error> {
    let broken = |reason: FrameError| Error::Protocol(reason.to_string());
    let Some(header) = Header::read(received).map_err(broken)? else { return Ok(None) };
    let limit = if header.kind == Kind::MULTI_DONE { u32::MAX as usize } else { answer_bytes_max };
    Frame::split(received, limit).map_err(broken)
}

fn complaint(frame: &Frame<'_>) -> Error {
    match ErrorAnswer::parse(frame) {
        Ok(answer) => Error::from_answer(&answer),
        Err(reason) => crate::answer::malformed(reason),
    }
}
