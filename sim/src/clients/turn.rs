//! A client's turn: it begins an operation, sends it, hears of it, tries again, or is done.

use bytes::Bytes;
use ringmain::causality::VersionVector;
use ringmain::time::{Duration, Instant};
use ringmain_schema::message::{ErrorAnswer, ErrorCode, Multi};
use ringmain_schema::{Frame, Kind};

use super::requests::{Answer, place_of, read_answer};
use super::routing::Manner;
use super::{Client, Connection, Context, Intent, Item, Job, Read, Replaced};
use crate::history::{Call, Number, Operation, Outcome, Sent, value};
use crate::network::Side;
use crate::world::{Event, World};

/// Requests that a client sends for one operation at most.
pub(super) const ATTEMPTS_MAX: u32 = 4;
/// A client that was refused tries elsewhere after so long.
pub(super) const BACK_OFF: Duration = Duration::from_millis(20);
/// It waits for an answer so much longer than it gave the server.
const PATIENCE: Duration = Duration::from_millis(500);
/// A handshake takes no longer.
const GREETING_MAX: Duration = Duration::from_secs(1);

impl World {
    /// A client joins, and begins at this time.
    pub(crate) fn add_client(&mut self, client: Client, at: Instant) {
        self.clients_mut().push(client);
        let number = self.clients_mut().len() - 1;
        self.plan_client(number, at);
    }

    pub(super) fn plan_client(&mut self, number: usize, at: Instant) {
        let client = &mut self.clients_mut()[number];
        client.planned += 1;
        let plan = client.planned;
        self.plan_event(at, Event::Client(number, plan));
    }

    /// It is time for what this client had planned: to begin something, to try again, or to wait no longer.
    pub(crate) fn wake_client(&mut self, number: usize, plan: u64) {
        let now = self.now;
        let client = &mut self.clients_mut()[number];
        if client.planned != plan {
            return;
        }
        match &client.job {
            None => self.begin(number),
            Some(job) if job.request.is_some() => self.attempt_failed(number, &Answer::Doubtful),
            Some(_) if client.connection.as_ref().is_some_and(|connection| !connection.is_greeted) => {
                // The handshake took too long.
                self.hang_up(number);
                self.plan_client(number, now + BACK_OFF);
            }
            Some(_) => self.attempt(number),
        }
    }

    /// Begin what the script says, or what the client chooses.
    fn begin(&mut self, number: usize) {
        let (now, next) = (self.now, self.history.next());
        let most = self.plan.operations_max;
        let client = &mut self.clients_mut()[number];
        let intents = match &mut client.script {
            Some(script) => match script.pop_front() {
                Some((_, intent)) => vec![intent],
                None => return,
            },
            None if now >= client.until || next.0 >= most => return,
            None => client.choose(),
        };
        let items = intents.into_iter().map(|intent| self.invoke(number, intent, None)).collect();
        self.take_up(number, items);
    }

    /// Write what follows from what was read.
    pub(super) fn follow(&mut self, number: usize, reads: &[Read]) {
        let mut items = Vec::new();
        for read in reads {
            let next = self.history.next();
            let intent = self.clients_mut()[number].follow(read, next);
            items.push(self.invoke(number, intent, Some(read)));
        }
        self.take_up(number, items);
    }

    /// An operation is called: from here on it is in the history.
    fn invoke(&mut self, number: usize, intent: Intent, read: Option<&Read>) -> Item {
        let (now, next) = (self.now, self.history.next());
        let client = &self.clients_mut()[number];
        let context = match &intent {
            Intent::Write { replaced: Replaced::Read, .. } => read.map(|read| read.context.clone()),
            Intent::Write { replaced: Replaced::ReadLongAgo, key, .. }
            | Intent::Get { at_least: true, key, .. } => client.contexts.get(key).cloned(),
            _ => None,
        };
        let context = context.unwrap_or_default();
        let operation = client.operation(now, &intent, &context, next);
        let value = match &operation.call {
            Call::Put { value, .. } => Some(value.clone()),
            _ => None,
        };
        let is_named = client.names_writes || matches!(operation.call, Call::Delete { .. });
        self.history.invoke(operation);
        Item { number: next, intent, value, context: context.sealed, in_doubt: false, is_named }
    }

    fn take_up(&mut self, number: usize, items: Vec<Item>) {
        let client = &mut self.clients_mut()[number];
        let in_script = client.script.is_some();
        let budget = if in_script { 1_000 } else { 200 + client.prng.below(1_800) };
        client.job = Some(Job {
            is_batch: items.len() > 1,
            items,
            budget: Duration::from_millis(budget),
            attempts: 0,
            manner: Manner::default(),
            request: None,
            read: Vec::new(),
        });
        self.attempt(number);
    }

    /// Send the job's request, over a connection made for it if there is none.
    fn attempt(&mut self, number: usize) {
        let now = self.now;
        match &self.clients_mut()[number].connection {
            None => self.call(number),
            Some(connection) if connection.is_greeted => {
                let side = connection.side;
                self.send(number, side);
            }
            Some(_) => self.plan_client(number, now + GREETING_MAX),
        }
    }

    fn send(&mut self, number: usize, side: Side) {
        let now = self.now;
        let client = &mut self.clients_mut()[number];
        client.next_request += 1;
        let id = client.next_request;
        let Some(mut job) = client.job.take() else { return };
        (job.request, job.attempts) = (Some(id), job.attempts + 1);
        job.manner = client.draw_manner(job.attempts);
        let bytes = client.request(&job, id);
        let patience = job.budget + PATIENCE;
        client.job = Some(job);
        let inquiry = client.inquire();
        self.transmit_from_client(side, bytes);
        if let Some(bytes) = inquiry {
            self.transmit_from_client(side, bytes);
        }
        self.plan_client(number, now + patience);
    }

    /// Connect to some node, and say hello.
    fn call(&mut self, number: usize) {
        let nodes = self.plan.machines() as u64;
        let client = &mut self.clients_mut()[number];
        let node = client.node.unwrap_or_else(|| client.prng.below(nodes) as usize);
        let now = self.now;
        let cluster = self.cluster();
        let Some(side) = self.connect_client(number, node) else {
            // Nobody listens there.
            let client = &mut self.clients_mut()[number];
            let Some(job) = &mut client.job else { return };
            job.attempts += 1;
            if job.attempts >= ATTEMPTS_MAX {
                return self.attempt_failed(number, &Answer::Refused(ErrorCode::Unavailable));
            }
            return self.plan_client(number, now + BACK_OFF);
        };
        self.clients_mut()[number].connection = Some(Connection { side, is_greeted: false });
        let client = &self.clients_mut()[number];
        let (intrudes, hello) = (client.intrudes, client.hello(cluster));
        self.transmit_from_client(side, hello);
        if intrudes {
            return self.send(number, side);
        }
        self.plan_client(number, now + GREETING_MAX);
    }

    pub(super) fn hang_up(&mut self, number: usize) {
        if let Some(connection) = self.clients_mut()[number].connection.take() {
            self.close_client(connection.side);
        }
    }

    /// A frame for a client.
    pub(crate) fn client_hears(&mut self, number: usize, side: Side, bytes: &Bytes) {
        let Ok(Some(frame)) = Frame::split(bytes, bytes.len()) else { return };
        let context_key = *self.context_key();
        let client = &mut self.clients_mut()[number];
        let Some(connection) = client.connection.as_mut().filter(|connection| connection.side == side) else {
            return;
        };
        client.epochs.learn(&frame);
        if !connection.is_greeted {
            if let (true, Ok(error)) = (client.intrudes, ErrorAnswer::parse(&frame)) {
                return self.attempt_failed(number, &Answer::Denied(error.code));
            }
            connection.is_greeted = frame.header.kind == Kind::WELCOME;
            return if connection.is_greeted { self.attempt(number) } else { self.hang_up(number) };
        }
        let Some(job) = client.job.as_ref().filter(|job| job.request == Some(frame.header.request_id)) else {
            return;
        };
        let misrouted = job.manner.problem_with(&frame);
        if let Some(problem) = misrouted {
            return self.answered_against_routing(number, problem);
        }
        if frame.header.kind == Kind::MULTI_DONE {
            // Each item is answered once: where the answer left, that was looked at.
            let Ok(multi) = Multi::parse(&frame) else { return };
            let answer_to = |item: &Item| {
                let key = World::key_name(item.intent.key());
                let mut answers = multi.items();
                let answer = answers.find(|answer| answer.header.request_id == place_of(item));
                let answer = answer.and_then(|answer| read_answer(&answer, &key, &context_key));
                (item.number, answer.unwrap_or(Answer::Doubtful))
            };
            let answers = job.items.iter().map(answer_to).collect();
            return self.on_answers(number, answers);
        }
        let Some(first) = job.items.first() else { return };
        let key = World::key_name(first.intent.key());
        // What a batch as a whole is answered with, but when it is done, is meant for all of it.
        let Some(answer) = read_answer(&frame, &key, &context_key) else { return };
        let answers = job.items.iter().map(|item| (item.number, answer.clone())).collect();
        self.on_answers(number, answers);
    }

    /// A client's connection is gone.
    pub(crate) fn client_lost(&mut self, number: usize, side: Side) {
        let client = &mut self.clients_mut()[number];
        if client.connection.as_ref().is_none_or(|connection| connection.side != side) {
            return;
        }
        client.connection = None;
        if client.job.as_ref().is_some_and(|job| job.request.is_some()) {
            self.attempt_failed(number, &Answer::Doubtful);
        }
    }
}

impl Client {
    /// Between half and one and a half of the mean; in a script, what it says.
    pub(super) fn next_pause(&mut self) -> Duration {
        match &self.script {
            Some(script) => script.front().map_or(Duration::ZERO, |(pause, _)| *pause),
            None => Duration(self.pause.0 / 2 + self.prng.below(self.pause.0.max(1))),
        }
    }

    fn operation(&self, now: Instant, intent: &Intent, context: &Context, number: Number) -> Operation {
        let [own_read, own_write, _] = self.quorums;
        let or = |asked: u8, own: u8| if asked > 0 { asked } else { own };
        let call = match intent {
            Intent::Get { read, latest, .. } => Call::Get { read: or(*read, own_read), latest: *latest },
            Intent::Write { key, payload, replaced, write, time_to_live, .. } => {
                let sent = match replaced {
                    Replaced::Everything => Sent::Overwrite,
                    _ => Sent::Context(context.opened.clone()),
                };
                let write = or(*write, own_write);
                match payload {
                    Some(payload) => Call::Put {
                        value: value(number, *key, payload),
                        sent,
                        write,
                        time_to_live: *time_to_live,
                    },
                    None => Call::Delete { sent, write },
                }
            }
        };
        Operation {
            client: self.number,
            key: intent.key(),
            invoked: now,
            returned: None,
            call,
            outcome: Outcome::Unknown,
            fallbacks: 0,
            zones: if let Intent::Write { zones, .. } = intent { *zones } else { 0 },
            at_least: if intent.is_write() { VersionVector::new() } else { context.opened.clone() },
            receipt: None,
            attempts: 0,
            setback: None,
            after_faults: self.script.is_some(),
        }
    }
}
