//! A cluster on one thread: real shards, virtual time, and a network that does as it is told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use ringmain_schema::message::{ErrorAnswer, ErrorCode, Get, Got, Hello, PeerHello, Put, Role, Stored};
use ringmain_schema::{Encoder, Flags, Frame, Kind};

use crate::id::{ConnectionId, ShardId};
use crate::membership::{Founder, Founders, Membership, MembershipOptions, Place as NodePlace, cluster_id};
use crate::prng::Prng;
use crate::ring::Partitions;
use crate::shard::io::{Dial, Input, Machine, Output, Piece, SiblingMessage};
use crate::shard::{Record, Shard, ShardOptions};
use crate::time::{Duration, Instant, Now, WallTime};

/// A request that no version knows.
const UNHEARD_OF: Kind = Kind(127);

/// A shard of the cluster: node, shard.
pub(super) type At = (usize, u16);

/// One end of a connection.
type End = (At, ConnectionId);

enum Event {
    Bytes(Vec<u8>),
    Opened { dial: Option<crate::shard::DialId> },
    DialFailed(crate::shard::DialId),
    Closed,
    Sibling(u16, SiblingMessage),
    Record(u64),
}

/// Nodes, their connections, and one client that can talk to any shard.
pub(super) struct Cluster {
    pub(super) shards: BTreeMap<At, Shard>,
    names: Vec<String>,
    /// Where each process is: of a clone, elsewhere than its name says.
    hosts: Vec<String>,
    founders: usize,
    shards_each: u16,
    /// What each shard appended, in all its lives.
    pub(super) logs: BTreeMap<At, Vec<Vec<u8>>>,
    /// Records of the logs of these are missing, as they hear at a start.
    pub(super) damaged: BTreeSet<usize>,
    options: fn(&mut ShardOptions),
    /// Data centre and rack of each node.
    places: Vec<(String, String)>,
    /// By one end, the other; a client's ends are not here.
    wires: BTreeMap<End, End>,
    clients: BTreeMap<End, usize>,
    events: VecDeque<(At, ConnectionId, Event)>,
    received: BTreeMap<usize, VecDeque<Vec<u8>>>,
    /// Requests less answers, by the end that took them: a shell closes only connections that owe nothing.
    pub(super) owed: BTreeMap<End, i64>,
    /// Bytes between these nodes are lost.
    pub(super) cut: BTreeSet<(usize, usize)>,
    /// These neither hear nor act.
    pub(super) paused: BTreeSet<usize>,
    /// Whoever is the first to be sent a frame of this kind is paused before it hears it.
    pub(super) pauses_at: Option<Kind>,
    /// The disks of these take records, and nothing is certain to be on them.
    pub(super) unsynced: BTreeSet<usize>,
    /// These nodes are of a version that doesn't know frames of this kind.
    pub(super) older: BTreeSet<(usize, Kind)>,
    /// The disks of these take their time to read: until [`Cluster::read`].
    pub(super) slow: BTreeSet<usize>,
    /// What was asked of them.
    pub(super) asked: Vec<(At, u64)>,
    /// These records can't be read.
    pub(super) unreadable: BTreeSet<(At, u64)>,
    /// The last record of each shard that isn't synced.
    pub(super) pending: BTreeMap<At, u64>,
    pub(super) now: Now,
    /// Secret, Q and N of each node, where they are to differ.
    founded: fn(usize) -> (&'static [u8], u32, u8),
    /// What each process has said to whoever runs it.
    pub(super) notes: Vec<(usize, String)>,
    next_connection: u64,
    next_client: usize,
    starts: u64,
}

/// What a client got back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    Got { values: Vec<Vec<u8>>, context: Vec<u8>, nodes: u8, forwarded: bool },
    Stored { context: Vec<u8>, nodes: u8 },
    Error { code: ErrorCode, acks: u8, context: Vec<u8> },
}

impl Answer {
    pub(super) fn context(&self) -> &[u8] {
        match self {
            Self::Got { context, .. } | Self::Stored { context, .. } | Self::Error { context, .. } => context,
        }
    }

    pub(super) fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Error { code, .. } => Some(*code),
            _ => None,
        }
    }

    pub(super) fn values(&self) -> Vec<&[u8]> {
        match self {
            Self::Got { values, .. } => values.iter().map(Vec::as_slice).collect(),
            _ => Vec::new(),
        }
    }
}

pub(super) fn get(key: &[u8]) -> Get<'_> {
    Get { key, ..Get::default() }
}

pub(super) fn put<'a>(key: &'a [u8], value: &'a [u8]) -> Put<'a> {
    Put { key, value: Some(value), ..Put::default() }
}

impl Cluster {
    /// So many nodes of so many shards, met and serving.
    pub(super) fn new(nodes: usize, shards_each: u16) -> Self {
        Self::with_options(nodes, shards_each, |_| ())
    }

    pub(super) fn with_options(nodes: usize, shards_each: u16, options: fn(&mut ShardOptions)) -> Self {
        Self::with_places(nodes, shards_each, options, |_| ("", ""))
    }

    /// With the data centre and rack of each node.
    pub(super) fn with_places<'a>(
        nodes: usize,
        shards_each: u16,
        options: fn(&mut ShardOptions),
        place: impl Fn(usize) -> (&'a str, &'a str),
    ) -> Self {
        let owned = |(center, rack): (&str, &str)| (center.to_owned(), rack.to_owned());
        let mut cluster = Self {
            shards: BTreeMap::new(),
            names: (0..nodes).map(|node| format!("n{node}")).collect(),
            hosts: (0..nodes).map(|node| format!("n{node}")).collect(),
            founders: nodes,
            shards_each,
            logs: BTreeMap::new(),
            damaged: BTreeSet::new(),
            options,
            places: (0..nodes).map(|node| owned(place(node))).collect(),
            wires: BTreeMap::new(),
            clients: BTreeMap::new(),
            events: VecDeque::new(),
            received: BTreeMap::new(),
            owed: BTreeMap::new(),
            cut: BTreeSet::new(),
            paused: BTreeSet::new(),
            pauses_at: None,
            unsynced: BTreeSet::new(),
            older: BTreeSet::new(),
            slow: BTreeSet::new(),
            asked: Vec::new(),
            unreadable: BTreeSet::new(),
            pending: BTreeMap::new(),
            now: Now { monotonic: Instant(1), wall: WallTime(1_000_000) },
            founded: |_| (b"", 16, 3),
            notes: Vec::new(),
            next_connection: 0,
            next_client: 0,
            starts: 0,
        };
        (0..nodes).for_each(|node| cluster.start(node));
        cluster.run(Duration::from_secs(5));
        cluster
    }

    /// Founders that were given secrets, Q and N of their own.
    pub(super) fn founded_apart(nodes: usize, founded: fn(usize) -> (&'static [u8], u32, u8)) -> Self {
        let mut cluster = Self::new(nodes, 1);
        (0..nodes).for_each(|node| cluster.kill(node));
        cluster.run(Duration::from_secs(1));
        (cluster.logs, cluster.notes, cluster.founded) = (BTreeMap::new(), Vec::new(), founded);
        (0..nodes).for_each(|node| cluster.start(node));
        cluster.run(Duration::from_secs(10));
        cluster
    }

    pub(super) fn start(&mut self, node: usize) {
        let founders = &self.names[..self.founders];
        let cluster = cluster_id("test", founders.iter().map(String::as_str));
        let name: Arc<str> = self.names[node].as_str().into();
        let list = founders.iter().map(|name| Founder {
            name: name.as_str().into(),
            host: name.as_str().into(),
            port: 1,
        });
        let founders = Founders::new(list.collect(), &name).unwrap();
        self.starts += 1;
        let life = 1000 + self.starts;
        for shard in 0..self.shards_each {
            let ports: Vec<u16> = (0..self.shards_each).map(|shard| 100 + shard).collect();
            let place = NodePlace {
                host: self.hosts[node].as_str().into(),
                ordinary_port: 1,
                shard_ports: ports.into(),
                weight: 100,
                data_center: self.places[node].0.as_str().into(),
                rack: self.places[node].1.as_str().into(),
            };
            let (secret, partitions, replicas) = (self.founded)(node);
            let partitions = Partitions::new(partitions).unwrap();
            let membership = MembershipOptions { partitions, replicas };
            let mut membership =
                Membership::new(cluster, &name, place, &founders, false, membership).with_life(life);
            let records = |shard| self.logs.get(&(node, shard)).cloned().unwrap_or_default();
            let remembered = records(0).into_iter().rev().find_map(|record| match Record::parse(&record) {
                Ok(Record::Members(members)) => Some(members),
                _ => None,
            });
            if let Some(remembered) = remembered {
                membership.recover(&remembered);
            }
            if self.damaged.contains(&node) {
                membership.lose_records();
            }
            let mut options = ShardOptions::single("test");
            (options.shard, options.shards) = (ShardId(shard), self.shards_each);
            (options.secret, options.replicas) = (secret.into(), replicas);
            (self.options)(&mut options);
            self.starts += 1;
            let prng = Prng::from_seed(self.starts);
            let mut started = Shard::new(options, membership, &[], prng);
            let records = records(shard);
            for (sequence, record) in (1..).zip(&records) {
                started.recover_record(&Record::parse(record).unwrap(), sequence).unwrap();
            }
            started.recovered_through(records.len() as u64);
            if self.damaged.contains(&node) {
                started.doubt_copies();
            }
            self.shards.insert((node, shard), started);
        }
    }

    /// A second process under this node's name, elsewhere, with a copy of its disk or without one: which it is.
    pub(super) fn start_clone(&mut self, of: usize, copied: bool) -> usize {
        let clone = self.names.len();
        self.names.push(self.names[of].clone());
        self.hosts.push(format!("clone{clone}"));
        self.places.push(self.places[of].clone());
        if copied {
            let logs: Vec<_> =
                self.logs.iter().filter(|(at, _)| at.0 == of).map(|(at, log)| (at.1, log.clone())).collect();
            self.logs.extend(logs.into_iter().map(|(shard, log)| ((clone, shard), log)));
        }
        self.start(clone);
        clone
    }

    /// As SIGKILL does: the others' connections break, nothing of it is left.
    pub(super) fn kill(&mut self, node: usize) {
        self.shards.retain(|at, _| at.0 != node);
        let broken: Vec<_> =
            self.wires.iter().filter(|(end, _)| end.0.0 == node).map(|(a, b)| (*a, *b)).collect();
        for (mine, theirs) in broken {
            self.wires.remove(&mine);
            self.wires.remove(&theirs);
            self.events.push_back((theirs.0, theirs.1, Event::Closed));
        }
        self.events.retain(|(at, ..)| at.0 != node);
    }

    /// Let time pass, a millisecond at a time.
    pub(super) fn run(&mut self, span: Duration) {
        let end = self.now.monotonic + span;
        while self.now.monotonic < end {
            self.settle();
            self.now.monotonic = self.now.monotonic + Duration::from_millis(1);
            self.now.wall.0 += 1000;
            let due: Vec<At> = self
                .shards
                .iter()
                .filter(|(_, s)| s.next_timeout() <= Some(self.now.monotonic))
                .map(|(at, _)| *at)
                .collect();
            for at in due {
                self.handle(at, Input::Tick);
            }
        }
        self.settle();
    }

    /// Deliver all that is under way, in order.
    fn settle(&mut self) {
        let mut held = VecDeque::new();
        while let Some((at, connection, event)) = self.events.pop_front() {
            let is_awaited =
                |bytes: &[u8]| bytes.get(8).is_some_and(|kind| self.pauses_at == Some(Kind(*kind)));
            if matches!(&event, Event::Bytes(bytes) if is_awaited(bytes)) {
                self.pauses_at = None;
                self.paused.insert(at.0);
            }
            if self.paused.contains(&at.0) {
                held.push_back((at, connection, event));
                continue;
            }
            match event {
                Event::Bytes(mut bytes) => {
                    if bytes.get(8).is_some_and(|kind| self.older.contains(&(at.0, Kind(*kind)))) {
                        bytes[8] = UNHEARD_OF.0;
                    }
                    if let Ok(Some(frame)) = Frame::split(&bytes, bytes.len()) {
                        assert_eq!(frame.length(), bytes.len(), "frames travel one by one here");
                        *self.owed.entry((at, connection)).or_default() +=
                            i64::from(!frame.header.kind.is_answer());
                        self.handle(at, Input::Frame { connection, frame });
                    }
                }
                Event::Opened { dial } => self.handle(at, Input::Opened { connection, dial }),
                Event::DialFailed(dial) => self.handle(at, Input::DialFailed { dial }),
                Event::Closed => {
                    self.handle(at, Input::Closed { connection });
                    self.owed.remove(&(at, connection));
                }
                Event::Record(sequence) => self.tell_record(at, sequence),
                Event::Sibling(from, message) => {
                    self.handle(at, Input::Sibling { from: ShardId(from), message });
                }
            }
        }
        self.events = held;
    }

    pub(super) fn handle(&mut self, at: At, input: Input<'_>) {
        if !self.paused.contains(&at.0) {
            self.act(at, |shard, now, out| shard.handle(now, input, out));
        }
    }

    /// Let a shard do something, and carry out what comes of it.
    pub(super) fn act(&mut self, at: At, act: impl FnOnce(&mut Shard, Now, &mut Output)) {
        let Some(shard) = self.shards.get_mut(&at) else { return };
        let mut out = Output::default();
        act(shard, self.now, &mut out);
        let mut logged = 0;
        // What is durable may lead to another record.
        while logged < out.appends.len() {
            let appended = out.appends[logged..].iter();
            let appended = appended.map(|append| out.bytes[append.record.clone()].to_vec());
            self.logs.entry(at).or_default().extend(appended);
            logged = out.appends.len();
            let sequence = out.appends[logged - 1].sequence;
            if self.unsynced.contains(&at.0) {
                self.pending.insert(at, sequence);
                break;
            }
            shard.handle(self.now, Input::Appended { sequence }, &mut out);
        }
        self.notes.extend(out.notes.drain(..).map(|note| (at.0, note)));
        self.carry_out(at, out);
    }

    /// The disk of this node works again.
    pub(super) fn sync(&mut self, node: usize) {
        self.unsynced.remove(&node);
        for (at, sequence) in std::mem::take(&mut self.pending) {
            self.handle(at, Input::Appended { sequence });
        }
    }

    /// The slow disks have read all that was asked of them, the last first.
    pub(super) fn read(&mut self) {
        for (at, sequence) in std::mem::take(&mut self.asked).into_iter().rev() {
            self.tell_record(at, sequence);
        }
        self.settle();
    }

    fn tell_record(&mut self, at: At, sequence: u64) {
        let record = self.logs[&at][sequence as usize - 1].clone();
        let record = (!self.unreadable.contains(&(at, sequence))).then_some(&record[..]);
        self.handle(at, Input::Record { sequence, record });
    }

    fn carry_out(&mut self, at: At, mut out: Output) {
        for sequence in out.reads.drain(..) {
            if self.slow.contains(&at.0) {
                self.asked.push((at, sequence));
            } else {
                self.events.push_back((at, ConnectionId(0), Event::Record(sequence)));
            }
        }
        let mut frames: Vec<(ConnectionId, Vec<u8>)> = Vec::new();
        for delivery in &out.deliveries {
            *self.owed.entry((at, delivery.to)).or_default() -= i64::from(delivery.answers);
            let bytes = match &delivery.piece {
                Piece::Copied(range) => out.bytes[range.clone()].to_vec(),
                Piece::Shared(bytes) => bytes.to_vec(),
            };
            match frames.last_mut() {
                Some((to, frame)) if *to == delivery.to && !is_whole(frame) => frame.extend(bytes),
                _ => frames.push((delivery.to, bytes)),
            }
        }
        for (connection, frame) in frames {
            assert!(is_whole(&frame));
            self.transmit((at, connection), frame);
        }
        for (shard, message) in out.siblings.drain(..) {
            self.events.push_back(((at.0, shard.0), ConnectionId(0), Event::Sibling(at.1, message)));
        }
        for dial in out.dials.drain(..) {
            self.dial(at, &dial);
        }
        for connection in out.closes.drain(..) {
            self.events.push_back((at, connection, Event::Closed));
            if let Some(other) = self.wires.remove(&(at, connection)) {
                self.wires.remove(&other);
                self.events.push_back((other.0, other.1, Event::Closed));
            }
        }
    }

    fn transmit(&mut self, from: End, frame: Vec<u8>) {
        if let Some(client) = self.clients.get(&from) {
            self.received.entry(*client).or_default().push_back(frame);
        } else if let Some(&(at, connection)) = self.wires.get(&from)
            && !self.cut.contains(&(from.0.0, at.0))
        {
            self.events.push_back((at, connection, Event::Bytes(frame)));
        }
    }

    fn dial(&mut self, from: At, dial: &Dial) {
        let node = self.hosts.iter().position(|name| **name == *dial.host).unwrap();
        // The kernel picks a shard for a call to the ordinary port: the last one, to be awkward.
        let shard = if dial.port == 1 { self.shards_each - 1 } else { dial.port - 100 };
        let to = (node, shard);
        let reachable = self.shards.contains_key(&to) && !self.cut.contains(&(from.0, node));
        let mine = self.connection();
        if !reachable {
            return self.events.push_back((from, mine, Event::DialFailed(dial.id)));
        }
        let theirs = self.connection();
        self.wires.insert((from, mine), (to, theirs));
        self.wires.insert((to, theirs), (from, mine));
        self.events.push_back((to, theirs, Event::Opened { dial: None }));
        self.events.push_back((from, mine, Event::Opened { dial: Some(dial.id) }));
    }

    fn connection(&mut self) -> ConnectionId {
        self.next_connection += 1;
        ConnectionId(self.next_connection)
    }

    /// A client of one shard, past its handshake.
    pub(super) fn client(&mut self, at: At) -> Client {
        let connection = self.connection();
        self.next_client += 1;
        let client = Client { number: self.next_client, at, connection };
        self.clients.insert((at, connection), client.number);
        self.handle(at, Input::Opened { connection, dial: None });
        let hello = Hello {
            protocol_min: 1,
            protocol_max: 1,
            role: Role::Client,
            cluster: 0,
            secret: b"",
            software: "test",
            peer: PeerHello::default(),
        };
        let mut bytes = Vec::new();
        hello.encode(&mut Encoder::default(), 0, &mut bytes);
        self.send(client, &bytes);
        let welcome = self.received.get_mut(&client.number).and_then(VecDeque::pop_front).unwrap();
        assert_eq!(Frame::split(&welcome, welcome.len()).unwrap().unwrap().header.kind, Kind::WELCOME);
        client
    }

    /// Hand one whole frame in, and deliver what follows without letting time pass.
    pub(super) fn send(&mut self, client: Client, bytes: &[u8]) {
        self.events.push_back((client.at, client.connection, Event::Bytes(bytes.to_vec())));
        self.settle();
    }

    pub(super) fn nobody_owes_an_answer(&self) {
        assert!(self.owed.values().all(|&owed| owed == 0), "{:?}", self.owed);
    }

    /// The next frame that this client was sent.
    pub(super) fn receive(&mut self, client: Client) -> Option<Vec<u8>> {
        self.received.get_mut(&client.number).and_then(VecDeque::pop_front)
    }

    /// The answer to what this client sent, waiting for it as long as any deadline.
    pub(super) fn answer(&mut self, client: Client) -> Answer {
        for _ in 0..11_000 {
            if let Some(frame) = self.receive(client) {
                return read_answer(&Frame::split(&frame, frame.len()).unwrap().unwrap());
            }
            self.run(Duration::from_millis(1));
        }
        panic!("a request was never answered");
    }

    pub(super) fn get(&mut self, client: Client, get: Get<'_>) -> Answer {
        let mut bytes = Vec::new();
        get.encode(&mut Encoder::default(), 7, Flags::NONE, &mut bytes);
        self.send(client, &bytes);
        self.answer(client)
    }

    pub(super) fn put(&mut self, client: Client, put: Put<'_>) -> Answer {
        self.send_put(client, put);
        self.answer(client)
    }

    pub(super) fn send_put(&mut self, client: Client, put: Put<'_>) {
        let mut bytes = Vec::new();
        put.encode(&mut Encoder::default(), 7, Flags::NONE, &mut bytes);
        self.send(client, &bytes);
    }

    /// The shard of `node` that owns `key`, if the node does.
    pub(super) fn owner_at(&self, node: usize, key: &[u8]) -> At {
        let partition = self.shards.values().next().unwrap().place(key).partition;
        (node, ringmain_schema::token::shard_of(partition.0, self.shards_each))
    }
}

/// A client's connection.
#[derive(Clone, Copy)]
pub(super) struct Client {
    number: usize,
    at: At,
    connection: ConnectionId,
}

fn is_whole(bytes: &[u8]) -> bool {
    matches!(Frame::split(bytes, usize::MAX), Ok(Some(frame)) if frame.length() == bytes.len())
}

pub(super) fn read_answer(frame: &Frame<'_>) -> Answer {
    match frame.header.kind {
        Kind::GOT => {
            let got = Got::parse(frame).unwrap();
            Answer::Got {
                values: got.versions.iter().map(|(_, value)| value.to_vec()).collect(),
                context: got.context.to_vec(),
                nodes: got.nodes,
                forwarded: frame.header.flags.contains(Flags::FORWARDED),
            }
        }
        Kind::STORED => {
            let stored = Stored::parse(frame).unwrap();
            Answer::Stored { context: stored.context.to_vec(), nodes: stored.nodes }
        }
        Kind::ERROR => {
            let error = ErrorAnswer::parse(frame).unwrap();
            Answer::Error { code: error.code, acks: error.acks, context: error.context.to_vec() }
        }
        kind => panic!("{kind:?} answers nothing here"),
    }
}
