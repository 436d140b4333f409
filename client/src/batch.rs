//! Many keys at once: split by shard, sent together, put back in order.
//!
//! Items that go to the same shard share a frame. A round sends every frame before it waits for the first;
//! items whose try failed safely go into the next round, where each is routed anew, like a request by itself.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use ringmain_schema::limits::MULTI_ITEMS_MAX;
use ringmain_schema::message::{Multi, MultiWriter};
use ringmain_schema::token::token;
use ringmain_schema::{Encoder, Flags, Frame, Kind};
use tokio::time::Instant;

use crate::answer::{Got, Stored, failure, malformed, unexpected};
use crate::call::{Call, Read, Verb, budget_us, check_delete, deadline, not_queued, refresh};
use crate::client::Client;
use crate::connection::{NotSent, Outcome, Pending, frame, was_forwarded};
use crate::engine::Engine;
use crate::error::Error;
use crate::options::{Options, ttl_ms};
use crate::router::{Route, Turn};
use crate::tries::{Next, Tries};

/// Requests about many keys; see [`Client::batch`]. The options hold for each item; nothing about a batch is
/// atomic. One of more items than the client's `in_flight_max` is [`Error::Overloaded`].
///
/// ```no_run
/// # async fn example(client: ringmain_client::Client) -> Result<(), ringmain_client::Error> {
/// use std::time::Duration;
///
/// let items = [("user:7", "alice"), ("user:8", "bob")];
/// for result in client.batch().overwrite().ttl(Duration::from_secs(60)).put(items).await {
///     result?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a batch does nothing until get(), put() or delete() is awaited"]
pub struct Batch<'a> {
    client: &'a Client,
    options: Options,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(client: &'a Client) -> Self {
        Self { client, options: client.engine().defaults.clone() }
    }

    /// R: replicas that each read waits for; 0 for the servers' default.
    pub fn read(mut self, replicas: u8) -> Self {
        self.options.read = replicas;
        self
    }

    /// W: durable acknowledgements that each write waits for; 0 for the servers' default.
    pub fn write(mut self, replicas: u8) -> Self {
        self.options.write = replicas;
        self
    }

    /// Deadline of the whole batch, retries included.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = timeout;
        self
    }

    /// What is put expires after this time, in whole milliseconds.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.options.ttl_ms = ttl_ms(ttl);
        self
    }

    /// Each write replaces whatever its coordinator has.
    pub fn overwrite(mut self) -> Self {
        self.options.overwrite = true;
        self
    }

    /// Each read gives only the version with the highest timestamp.
    pub fn latest(mut self) -> Self {
        self.options.latest = true;
        self
    }

    /// Shards that don't hold a key say so, rather than pass it on.
    pub fn direct(mut self) -> Self {
        self.options.direct = true;
        self
    }

    /// May another replica be tried after a failure? Yes, unless told otherwise.
    pub fn retry(mut self, may_retry: bool) -> Self {
        self.options.retry = may_retry;
        self
    }

    /// Read the keys. The results are in their order.
    pub async fn get<K: AsRef<[u8]>>(self, keys: impl IntoIterator<Item = K>) -> Vec<Result<Got, Error>> {
        let keys: Vec<K> = keys.into_iter().collect();
        let items = keys.iter().map(|key| (key.as_ref(), Verb::Get)).collect();
        run(self.client.engine(), items, &self.options, Got::read).await
    }

    /// Put the values. The results are in the order of the items.
    pub async fn put<K: AsRef<[u8]>, V: Into<Bytes>>(
        self,
        items: impl IntoIterator<Item = (K, V)>,
    ) -> Vec<Result<Stored, Error>> {
        let items: Vec<(K, Bytes)> = items.into_iter().map(|(key, value)| (key, value.into())).collect();
        let items = items.iter().map(|(key, value)| (key.as_ref(), Verb::Put(value))).collect();
        run(self.client.engine(), items, &self.options, Stored::read).await
    }

    /// Delete the keys; needs [`overwrite`](Self::overwrite). The results are in their order.
    pub async fn delete<K: AsRef<[u8]>>(
        self,
        keys: impl IntoIterator<Item = K>,
    ) -> Vec<Result<Stored, Error>> {
        let keys: Vec<K> = keys.into_iter().collect();
        if let Err(error) = check_delete(&self.options) {
            return keys.iter().map(|_| Err(error.clone())).collect();
        }
        let items = keys.iter().map(|key| (key.as_ref(), Verb::Delete)).collect();
        run(self.client.engine(), items, &self.options, Stored::read).await
    }
}

/// One item, and how far it has come.
struct Item<'a, T> {
    call: Call<'a>,
    token: u64,
    tries: Tries,
    result: Option<Result<T, Error>>,
}

/// Items that travel in one frame.
struct Group {
    route: Route,
    /// Places in the batch.
    items: Vec<usize>,
    writer: MultiWriter,
}

/// A frame under way.
struct Flight {
    route: Route,
    items: Vec<usize>,
    pending: Pending,
}

async fn run<T>(
    engine: &Engine,
    items: Vec<(&[u8], Verb<'_>)>,
    options: &Options,
    read: Read<T>,
) -> Vec<Result<T, Error>> {
    let _permit = match engine.admit(items.len()) {
        Ok(permit) => permit,
        Err(error) => return items.iter().map(|_| Err(error.clone())).collect(),
    };
    let deadline = deadline(Instant::now(), options.timeout);
    let mut batch = Round { engine, read, deadline, turn: Turn::default(), encoder: Encoder::default() };
    let mut items = batch.prepare(items, options);
    while items.iter().any(|item| item.result.is_none()) {
        batch.run(&mut items).await;
    }
    items.into_iter().map(|item| item.result.expect("the loop ends when all have one")).collect()
}

/// What all rounds of a batch share.
struct Round<'a, T> {
    engine: &'a Engine,
    read: Read<T>,
    deadline: Instant,
    /// Where in the preference lists this batch begins: the same for all its items, so that few frames do.
    turn: Turn,
    encoder: Encoder,
}

impl<T> Round<'_, T> {
    fn prepare<'b>(&mut self, items: Vec<(&'b [u8], Verb<'b>)>, options: &'b Options) -> Vec<Item<'b, T>> {
        let is_write = items.first().is_some_and(|(_, verb)| !matches!(verb, Verb::Get));
        self.turn = self.engine.router.first_turn(is_write);
        let first = if is_write { self.engine.next_sequences(items.len() as u64) } else { 0 };
        let prepare = |(place, (key, verb)): (usize, (&'b [u8], Verb<'b>))| {
            let value = if let Verb::Put(value) = verb { Some(value) } else { None };
            let operation = (self.engine.operation_client, first + place as u64);
            Item {
                call: Call { key, verb, options, operation, deadline: self.deadline },
                token: token(key),
                tries: Tries::new(is_write, options.retry),
                result: self.engine.check(key, value).err().map(Err),
            }
        };
        items.into_iter().enumerate().map(prepare).collect()
    }

    /// Route, send, wait for all; then a pause or a refresh, if any item needs one before its next try.
    async fn run(&mut self, items: &mut [Item<'_, T>]) {
        let now = Instant::now();
        let groups = self.group(items, now);
        let is_stuck = groups.is_empty();
        let flights = groups.into_iter().filter_map(|group| self.send(items, group, now)).collect::<Vec<_>>();
        let mut stale = None;
        for flight in flights {
            let outcome = flight.pending.await;
            if self.settle(items, &flight.route, &flight.items, outcome) {
                stale = Some(flight.route);
            }
        }
        if let Some(route) = stale {
            self.refresh(items, &route).await;
        } else if is_stuck {
            self.pause(items, now).await;
        }
    }

    /// Items without a result, by the connection they go over. A frame that is full is followed by another.
    fn group(&mut self, items: &mut [Item<'_, T>], now: Instant) -> Vec<Group> {
        let frame_bytes_max = self.engine.settings.frame_bytes_max.load(Ordering::Relaxed) as usize;
        let mut groups: Vec<Group> = Vec::new();
        for (place, item) in items.iter_mut().enumerate().filter(|(_, item)| item.result.is_none()) {
            let Some(route) = self.engine.router.choose(item.token, self.turn, item.tries.tried(), now)
            else {
                continue;
            };
            let number = route.connection.number;
            item.tries.begin(&route);
            let needed = item.bytes_max();
            let fits = |group: &&mut Group| {
                group.route.connection.number == number
                    && group.items.len() < MULTI_ITEMS_MAX
                    && group.writer.items.len() + needed <= frame_bytes_max
            };
            let epoch = route.epoch;
            let group = match groups.iter_mut().rev().find(fits) {
                Some(group) => group,
                None => {
                    groups.push(Group { route, items: Vec::new(), writer: MultiWriter::default() });
                    groups.last_mut().expect("one was pushed")
                }
            };
            let id = group.items.len() as u64;
            item.call.encode(&mut self.encoder, id, epoch, now, &mut group.writer.items);
            group.items.push(place);
            group.writer.count += 1;
        }
        groups
    }

    fn send(&self, items: &mut [Item<'_, T>], group: Group, now: Instant) -> Option<Flight> {
        let is_write = items[group.items[0]].call.is_write();
        let kind = if is_write { Kind::MULTI_PUT } else { Kind::MULTI_GET };
        let budget_us = budget_us(self.deadline, now);
        let encode = |encoder: &mut Encoder, id, out: &mut Vec<u8>| {
            group.writer.encode(encoder, kind, Flags::NONE, id, budget_us, out);
        };
        match group.route.connection.send(Some(self.deadline), encode) {
            Ok(pending) => Some(Flight { route: group.route, items: group.items, pending }),
            Err(not_sent) => {
                for &place in &group.items {
                    items[place].not_queued(&not_sent, &group.route);
                }
                None
            }
        }
    }

    /// Hand out a frame's outcome to its items. True if one of them found our topology old.
    fn settle(&self, items: &mut [Item<'_, T>], route: &Route, places: &[usize], outcome: Outcome) -> bool {
        let mut is_stale = false;
        match outcome {
            Outcome::Answer(bytes) => {
                let answers = answers(&bytes, places.len());
                let is_partial = answers.iter().flatten().flatten().any(|item| item.header.kind == Kind::GOT);
                for (order, &place) in places.iter().enumerate() {
                    let answer = match &answers {
                        Ok(answers) => self.read(&bytes, answers[order].as_ref(), route),
                        Err(error) => Err(error.clone()),
                    };
                    if is_partial && matches!(answer, Err(Error::TooLarge { .. })) {
                        // Each round brings some of the values, so there is an end to it.
                        items[place].tries.put_off();
                    } else {
                        is_stale |= items[place].answered(answer, route);
                    }
                }
            }
            Outcome::Lost { sent } => {
                for &place in places {
                    let next = items[place].tries.lost(sent, route.connection.last_failure());
                    items[place].follow(next);
                }
            }
            Outcome::TimedOut { sent } => {
                for &place in places {
                    items[place].result = Some(Err(items[place].tries.timed_out(sent)));
                }
            }
        }
        is_stale
    }

    fn read(&self, bytes: &Bytes, answer: Option<&Frame<'_>>, route: &Route) -> Result<T, Error> {
        let answer =
            answer.ok_or_else(|| Error::Protocol("an item of a batch was not answered".to_owned()))?;
        if route.is_owner() && was_forwarded(answer) {
            self.engine.follow.ask_for_refresh(&route.connection);
        }
        (self.read)(bytes, answer)
    }

    async fn refresh(&self, items: &mut [Item<'_, T>], route: &Route) {
        let Some(first) = items.iter_mut().find(|item| item.result.is_none()) else { return };
        let is_newer = refresh(self.engine, &mut first.tries, route, self.deadline).await.is_ok();
        for item in items.iter_mut().filter(|item| item.result.is_none()) {
            if let Err(error) = item.tries.refreshed(is_newer) {
                item.result = Some(Err(error));
            }
        }
    }

    /// No open item has a server left to try.
    async fn pause(&self, items: &mut [Item<'_, T>], now: Instant) {
        let mut longest = Duration::ZERO;
        for item in items.iter_mut().filter(|item| item.result.is_none()) {
            match item.tries.pause(self.deadline, now, || self.engine.router.failure()) {
                Ok(pause) => longest = longest.max(pause),
                Err(error) => item.result = Some(Err(error)),
            }
        }
        tokio::time::sleep(longest).await;
    }
}

impl<T> Item<'_, T> {
    /// More than its frame can take.
    fn bytes_max(&self) -> usize {
        const FIXED: usize = 256;
        let value = if let Verb::Put(value) = self.call.verb { value.len() } else { 0 };
        let options = self.call.options;
        FIXED
            + self.call.key.len()
            + value
            + options.context.as_bytes().len()
            + options.at_least.as_bytes().len()
    }

    /// True if the server found our topology old.
    fn answered(&mut self, answer: Result<T, Error>, route: &Route) -> bool {
        match answer {
            Ok(answer) => self.result = Some(Ok(answer)),
            Err(error) => {
                let next = self.tries.refused(error, route);
                return self.follow(next);
            }
        }
        false
    }

    fn follow(&mut self, next: Next) -> bool {
        match next {
            Next::Another => false,
            Next::Refresh => true,
            Next::GiveUp(error) => {
                self.result = Some(Err(error));
                false
            }
        }
    }

    fn not_queued(&mut self, not_sent: &NotSent, route: &Route) {
        if let Err(error) = not_queued(not_sent, route, &mut self.tries) {
            self.result = Some(Err(error));
        }
    }
}

/// The answers to the items of one frame, each at its item's place; or the error that stands for all.
fn answers(bytes: &Bytes, count: usize) -> Result<Vec<Option<Frame<'_>>>, Error> {
    let whole = frame(bytes);
    if whole.header.kind != Kind::MULTI_DONE {
        return Err(failure(&whole).unwrap_or_else(|| unexpected(whole.header.kind)));
    }
    let multi = Multi::parse(&whole).map_err(malformed)?;
    let mut answers = vec![None; count];
    for item in multi.items() {
        if let Some(place) = answers.get_mut(item.header.request_id as usize) {
            *place = Some(item);
        }
    }
    Ok(answers)
}
