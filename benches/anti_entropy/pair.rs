//! Two shards that hold all keys, on one thread, in virtual time, and a wire between them that is weighed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration as RealDuration, Instant as RealInstant};

use ringmain::id::{ConnectionId, PartitionId};
use ringmain::membership::{Founder, Founders, Membership, MembershipOptions, Place, cluster_id};
use ringmain::prng::Prng;
use ringmain::ring::Partitions;
use ringmain::shard::{Input, Machine, Output, Piece, Record, Shard, ShardOptions};
use ringmain::time::{Duration, Instant, Now, WallTime};
use ringmain_schema::exchange::Keys;
use ringmain_schema::message::{Hello, PeerHello, Put, Role};
use ringmain_schema::{Encoder, Flags, Frame, Kind};

const NAMES: [&str; 2] = ["n0", "n1"];
pub(crate) const PARTITIONS: u32 = 1024;

/// What passed between the two.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weighed {
    /// Of the frames that anti-entropy sends, in all: questions, answers, states and their acknowledgements.
    pub(crate) bytes: u64,
    pub(crate) frames: u64,
    /// Digests of a key's clock, in lists.
    pub(crate) clocks_listed: u64,
    /// Whole states.
    pub(crate) states: u64,
}

pub(crate) struct Pair {
    shards: [Shard; 2],
    /// By an end of a connection, the other.
    wires: BTreeMap<(usize, ConnectionId), (usize, ConnectionId)>,
    events: VecDeque<(usize, ConnectionId, Event)>,
    now: Now,
    connections: u64,
    pub(crate) weighed: Weighed,
    /// What the shards' inputs have taken of this thread, together.
    pub(crate) busy: RealDuration,
}

enum Event {
    Opened(Option<ringmain::shard::DialId>),
    Bytes(Vec<u8>),
    Closed,
}

impl Pair {
    /// Both hold so many keys of 100 bytes; so many of them are missing, or older, at one or the other.
    pub(crate) fn with(keys: u64, differing: u64) -> Self {
        let mut pair = Self {
            shards: [0, 1].map(|place| shard(place, &NAMES, false)),
            wires: BTreeMap::new(),
            events: VecDeque::new(),
            now: Now { monotonic: Instant(1), wall: WallTime(1_000_000) },
            connections: 0,
            weighed: Weighed::default(),
            busy: RealDuration::ZERO,
        };
        let mut scribe = Scribe::new();
        // Spread over all keys.
        let apart = keys.checked_div(differing).unwrap_or(u64::MAX);
        for number in 0..keys {
            let differs = number % apart == 0 && number / apart < differing;
            let record = scribe.write(number, 1);
            match (differs, number / apart % 4) {
                (true, 0) => pair.recover(0, &record),
                (true, 1) => pair.recover(1, &record),
                (true, newer) => {
                    pair.recover(0, &record);
                    pair.recover(1, &record);
                    let again = scribe.write(number, 2);
                    pair.recover(newer as usize - 2, &again);
                }
                (false, _) => {
                    pair.recover(0, &record);
                    pair.recover(1, &record);
                }
            }
        }
        pair
    }

    fn recover(&mut self, place: usize, record: &[u8]) {
        let record = Record::parse(record).expect("it was written by a shard");
        self.shards[place].recover_record(&record, 0).expect("it was written by a shard");
    }

    /// Do both hold the same?
    pub(crate) fn is_equal(&self) -> bool {
        let [one, other] = &self.shards;
        (0..PARTITIONS).map(PartitionId).all(|place| one.trees().root(place) == other.trees().root(place))
    }

    /// Virtual time since the start.
    pub(crate) fn age(&self) -> RealDuration {
        RealDuration::from_nanos(self.now.monotonic.0)
    }

    /// Let time pass up to this moment.
    pub(crate) fn run_until(&mut self, end: Instant) {
        loop {
            self.settle();
            let next = self.shards.iter().filter_map(Machine::next_timeout).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            // A tick that is due and changes nothing comes back a little later.
            let later = self.now.monotonic + Duration::from_micros(50);
            self.now.monotonic = next.max(later);
            for place in 0..2 {
                if self.shards[place].next_timeout() <= Some(self.now.monotonic) {
                    self.handle(place, Input::Tick);
                }
            }
        }
        self.now.monotonic = end.max(self.now.monotonic);
    }

    fn settle(&mut self) {
        while let Some((place, connection, event)) = self.events.pop_front() {
            match event {
                Event::Opened(dial) => self.handle(place, Input::Opened { connection, dial }),
                Event::Closed => self.handle(place, Input::Closed { connection }),
                Event::Bytes(bytes) => {
                    let mut rest = &*bytes;
                    while let Some(frame) = Frame::split(rest, rest.len()).expect("frames") {
                        self.weighed.add(&frame);
                        rest = &rest[frame.length()..];
                        self.handle(place, Input::Frame { connection, frame });
                    }
                }
            }
        }
    }

    fn handle(&mut self, place: usize, input: Input<'_>) {
        let mut out = Output::default();
        let begun = RealInstant::now();
        self.shards[place].handle(self.now, input, &mut out);
        self.busy += begun.elapsed();
        self.carry_out(place, &out);
    }

    fn carry_out(&mut self, place: usize, out: &Output) {
        let mut to = BTreeMap::<ConnectionId, Vec<u8>>::new();
        for delivery in &out.deliveries {
            let bytes = match &delivery.piece {
                Piece::Copied(range) => &out.bytes[range.clone()],
                Piece::Shared(bytes) => bytes,
            };
            to.entry(delivery.to).or_default().extend_from_slice(bytes);
        }
        for (connection, bytes) in to {
            let (other, connection) = self.wires[&(place, connection)];
            self.events.push_back((other, connection, Event::Bytes(bytes)));
        }
        for dial in &out.dials {
            let other = NAMES.iter().position(|name| **name == *dial.host).expect("one of the two");
            let ends = [(place, self.connection()), (other, self.connection())];
            self.wires.extend([(ends[0], ends[1]), (ends[1], ends[0])]);
            self.events.push_back((ends[1].0, ends[1].1, Event::Opened(None)));
            self.events.push_back((ends[0].0, ends[0].1, Event::Opened(Some(dial.id))));
        }
        for connection in &out.closes {
            for (place, connection) in [(place, *connection), self.wires[&(place, *connection)]] {
                self.events.push_back((place, connection, Event::Closed));
            }
        }
    }

    fn connection(&mut self) -> ConnectionId {
        self.connections += 1;
        ConnectionId(self.connections)
    }
}

impl Weighed {
    fn add(&mut self, frame: &Frame<'_>) {
        match frame.header.kind {
            Kind::KEYS => self.clocks_listed += Keys::parse(frame).expect("a list").keys().count() as u64,
            Kind::REPLICATE => self.states += 1,
            Kind::TREE_REQUEST | Kind::TREE | Kind::KEYS_REQUEST | Kind::PULL_REQUEST | Kind::PULLED => {}
            Kind::REPLICATED => {}
            _ => return,
        }
        self.bytes += frame.length() as u64;
        self.frames += 1;
    }
}

fn shard(place: usize, names: &[&str], durable: bool) -> Shard {
    let name: Arc<str> = names[place].into();
    let founder = |name: &&str| Founder { name: (*name).into(), host: (*name).into(), port: 1 };
    let founders = Founders::new(names.iter().map(founder).collect(), &name).expect("it is one of them");
    let here = Place {
        host: name.clone(),
        ordinary_port: 1,
        shard_ports: [100].into(),
        weight: 100,
        data_center: "".into(),
        rack: "".into(),
    };
    let partitions = Partitions::new(PARTITIONS).expect("a power of two");
    let options = MembershipOptions { partitions, replicas: 3 };
    let cluster = cluster_id("bench", names.iter().copied());
    let membership = Membership::new(cluster, &name, here, &founders, false, options);
    let options = ShardOptions { durable, ..ShardOptions::single("bench") };
    Shard::new(options, membership, &[], Prng::from_seed(place as u64 + names.len() as u64))
}

/// A shard alone, for the records that it leaves of what it is told to write.
struct Scribe {
    shard: Shard,
    out: Output,
    encoder: Encoder,
    now: Now,
}

const SCRIBE: ConnectionId = ConnectionId(1);

impl Scribe {
    fn new() -> Self {
        let now = Now { monotonic: Instant(1), wall: WallTime(1) };
        let shard = shard(0, &["scribe"], true);
        let mut scribe = Self { shard, out: Output::default(), encoder: Encoder::default(), now };
        scribe.handle(Input::Tick);
        scribe.handle(Input::Opened { connection: SCRIBE, dial: None });
        let hello = Hello {
            protocol_min: 1,
            protocol_max: 1,
            role: Role::Client,
            cluster: 0,
            secret: b"",
            software: "bench",
            peer: PeerHello::default(),
        };
        let mut bytes = Vec::new();
        hello.encode(&mut scribe.encoder, 0, &mut bytes);
        scribe.feed(&bytes);
        scribe
    }

    /// The record of one key's state.
    fn write(&mut self, number: u64, value: u8) -> Vec<u8> {
        let (key, mut bytes) = (format!("key:{number:010}"), Vec::new());
        let put = Put { key: key.as_bytes(), value: Some(&[value; 100]), overwrite: true, ..Put::default() };
        put.encode(&mut self.encoder, number, Flags::NONE, &mut bytes);
        self.now.wall.0 += 1;
        self.feed(&bytes).expect("each write is logged")
    }

    fn feed(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let frame = Frame::split(bytes, bytes.len()).expect("a frame").expect("a whole one");
        self.handle(Input::Frame { connection: SCRIBE, frame })
    }

    fn handle(&mut self, input: Input<'_>) -> Option<Vec<u8>> {
        self.out.clear();
        self.shard.handle(self.now, input, &mut self.out);
        let record = self.out.appends.last().map(|append| (append.sequence, append.record.clone()));
        let (sequence, record) = record?;
        let record = self.out.bytes[record].to_vec();
        self.shard.handle(self.now, Input::Appended { sequence }, &mut self.out);
        Some(record)
    }
}
