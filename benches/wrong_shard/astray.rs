//! Requests sent to the wrong shard on purpose, pipelined, each answer checked.
//!
//! Every lane is one connection to one shard, for keys that this shard doesn't own. It keeps a number of requests in
//! flight: a put of a new value, and when it is stored a get that must bring it back. Each answer must belong to a
//! request under way, arrive once, and say that it took a hop. One that doesn't come ends the run.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ringmain_schema::message::{Get, Put, Topology};
use ringmain_schema::token::{partition, shard_of, token};
use ringmain_schema::{Encoder, Flags, Kind};

use crate::cluster::{Answer, Cluster, Wire, loopback};

/// Requests that a lane keeps in flight: two lanes of one shard stay below what it takes for a sibling.
const IN_FLIGHT: usize = 256;
/// Keys of a lane, which it goes round: more than may be in flight, so that one key has one request at a time.
const KEYS: usize = 10_000;
const SHARDS: u16 = 2;

/// Which way is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wrong {
    /// The right node's other shard.
    Shard,
    /// Another node, which holds nothing of the key, and its wrong shard at that: two hops.
    Node,
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) requests: u64,
    pub(crate) took: Duration,
    /// Passed on between shards of a node, as the servers counted.
    pub(crate) to_siblings: u64,
    /// Passed on between nodes, as the servers counted.
    pub(crate) to_peers: u64,
}

/// Send at least so many requests. `answered` grows as they are answered.
pub(crate) fn send_astray(wrong: Wrong, requests: u64, answered: &AtomicU64) -> Figures {
    let nodes = if wrong == Wrong::Shard { 1 } else { 2 };
    // One copy of each key, so that the other node has nothing to say about it.
    let cluster = Cluster::start(nodes, SHARDS.into(), &["--replicas=1"]);
    let topology = cluster.greeted(0).topology();
    let start = Instant::now();
    let lanes: Vec<Lane> = (0..nodes)
        .flat_map(|place| (0..SHARDS).map(move |shard| (place as u16, shard)))
        .map(|(place, shard)| {
            let port = topology.members[usize::from(place)].shard_ports[usize::from(shard)];
            Lane::new(loopback(port), keys_astray(&topology, wrong, place, shard))
        })
        .collect();
    let each = requests.div_ceil(lanes.len() as u64);
    let requests = std::thread::scope(|scope| {
        let running: Vec<_> =
            lanes.into_iter().map(|lane| scope.spawn(|| lane.run(each, answered))).collect();
        running.into_iter().map(|lane| lane.join().expect("the lane says what went wrong")).sum()
    });
    let took = start.elapsed();
    let counted = |name: &str| (0..nodes).map(|node| cluster.counter(node, name)).sum();
    Figures {
        requests,
        took,
        to_siblings: counted("forwarded_to_siblings"),
        to_peers: counted("forwarded_to_peers"),
    }
}

/// Keys for which this shard of this member (by its place in the topology) is wrong in the given way.
fn keys_astray(topology: &Topology, wrong: Wrong, place: u16, shard: u16) -> Vec<Vec<u8>> {
    let is_astray = |key: &Vec<u8>| {
        let partition = partition(token(key), topology.partitions);
        let owner = topology.primaries[partition as usize * usize::from(topology.replicas)];
        let is_right_node = owner == place;
        shard_of(partition, SHARDS) != shard && is_right_node == (wrong == Wrong::Shard)
    };
    (0u64..).map(|number| number.to_le_bytes().to_vec()).filter(is_astray).take(KEYS).collect()
}

/// One connection.
struct Lane {
    wire: Wire,
    encoder: Encoder,
    keys: Vec<Vec<u8>>,
    /// What is under way, by the request id modulo their number.
    slots: Vec<Slot>,
    /// Values are numbered, over all keys.
    next_value: u64,
    requests: u64,
    /// About to be sent.
    outgoing: Vec<u8>,
}

struct Slot {
    id: u64,
    value: u64,
    /// The put is stored; the get is under way.
    is_stored: bool,
}

impl Lane {
    fn new(address: SocketAddr, keys: Vec<Vec<u8>>) -> Self {
        let wire = Wire::greeted(address, b"").unwrap();
        let (slots, outgoing) = (Vec::new(), Vec::new());
        Self { wire, encoder: Encoder::default(), keys, slots, next_value: 0, requests: 0, outgoing }
    }

    /// Returns how many requests were sent and answered.
    fn run(mut self, at_least: u64, answered: &AtomicU64) -> u64 {
        for place in 0..IN_FLIGHT {
            self.slots.push(Slot { id: place as u64, value: 0, is_stored: false });
            self.put(place);
        }
        let mut under_way = IN_FLIGHT;
        while under_way > 0 {
            if !self.wire.has_whole_frame() && !self.outgoing.is_empty() {
                self.wire.send(&self.outgoing);
                self.outgoing.clear();
            }
            let answer = self.wire.receive().expect("the connection stays open");
            answered.fetch_add(1, Ordering::Relaxed);
            let place = answer.id() as usize % IN_FLIGHT;
            self.check(place, &answer);
            self.slots[place].id += IN_FLIGHT as u64;
            if !self.slots[place].is_stored {
                self.slots[place].is_stored = true;
                self.get(place);
            } else if self.requests < at_least {
                self.slots[place].is_stored = false;
                self.put(place);
            } else {
                under_way -= 1;
            }
        }
        self.requests
    }

    fn check(&self, place: usize, answer: &Answer) {
        let slot = &self.slots[place];
        assert_eq!(answer.id(), slot.id, "an answer to nothing that is under way");
        assert!(answer.is_forwarded(), "request {} was not passed on", slot.id);
        if slot.is_stored {
            assert_eq!(answer.values(), [slot.value.to_le_bytes()], "{:?}", answer.error());
        } else {
            assert_eq!(answer.kind(), Kind::STORED, "{:?}", answer.error());
        }
    }

    fn put(&mut self, place: usize) {
        let slot = &mut self.slots[place];
        slot.value = self.next_value;
        self.next_value += 1;
        self.requests += 1;
        let (key, value) = (&self.keys[slot.value as usize % KEYS], slot.value.to_le_bytes());
        let put = Put { key, value: Some(&value), overwrite: true, ..Put::default() };
        put.encode(&mut self.encoder, slot.id, Flags::NONE, &mut self.outgoing);
    }

    fn get(&mut self, place: usize) {
        let slot = &self.slots[place];
        self.requests += 1;
        let get = Get { key: &self.keys[slot.value as usize % KEYS], ..Get::default() };
        get.encode(&mut self.encoder, slot.id, Flags::NONE, &mut self.outgoing);
    }
}
