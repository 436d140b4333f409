//! Which connection a request goes over.
//!
//! A topology is turned into a flat table once: partition and rank to connection. Requests then only index it.
//! The order of choice is the order of least harm: a primary that is ready, one that is just being opened,
//! any other server (it forwards), a primary that said it isn't serving, and any that may open soon.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use ringmain_schema::message::{Member, Topology};
use ringmain_schema::token::{partition, shard_of};
use tokio::time::Instant;

use crate::address::Address;
use crate::builder::{Near, Routing};
use crate::connection::{Availability, Connection, Settings};
use crate::error::Error;

/// Where to send a request.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) connection: Arc<Connection>,
    /// Of the topology by which the connection is an owner's; 0 if it is not.
    pub(crate) epoch: u64,
}

impl Route {
    /// Was it chosen because it holds the key?
    pub(crate) fn is_owner(&self) -> bool {
        self.epoch != 0
    }
}

/// In which order the owners of a key are asked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Turn {
    /// The number of the owner with which it begins, modulo N.
    first: u32,
    /// Those near this client come before the others.
    near_first: bool,
}

/// A topology, ready for use.
#[derive(Debug)]
struct Routes {
    topology: Option<Arc<Topology>>,
    /// Partition `p`'s connections, as places in `connections`, at `p * replicas ..`.
    owners: Vec<u32>,
    /// Every shard's, then those of the given servers that are not among them.
    connections: Vec<Arc<Connection>>,
    /// How many of them are shards'; all, if the topology is not used.
    shards: usize,
    /// Of each of these, how far it is: 0 is near. Empty if all are alike.
    distances: Vec<u8>,
}

/// All connections, and the topology that tells which holds what.
#[derive(Debug)]
pub(crate) struct Router {
    settings: Arc<Settings>,
    routing: Routing,
    near: Option<Near>,
    seeds: Vec<Arc<Connection>>,
    routes: RwLock<Arc<Routes>>,
    /// Held while the topology is exchanged, which is seldom.
    pool: Mutex<HashMap<Address, Arc<Connection>>>,
    numbers: AtomicU32,
    /// Where the next read begins in its preference list.
    turn: AtomicU32,
    /// Where the next question that any server can answer begins.
    any_turn: AtomicU32,
}

impl Router {
    /// Knows the given servers only.
    pub(crate) fn new(
        servers: Vec<Address>,
        routing: Routing,
        near: Option<Near>,
        settings: Arc<Settings>,
    ) -> Self {
        let mut router = Self {
            settings,
            routing,
            near,
            seeds: Vec::new(),
            routes: RwLock::new(Arc::new(Routes::to_any(&[], None))),
            pool: Mutex::new(HashMap::new()),
            numbers: AtomicU32::new(0),
            turn: AtomicU32::new(0),
            any_turn: AtomicU32::new(0),
        };
        let mut pool = HashMap::new();
        for server in servers {
            if !pool.contains_key(&server) {
                let seed = router.connection(&mut pool, server);
                router.seeds.push(seed);
            }
        }
        router.routes = RwLock::new(Arc::new(Routes::to_any(&router.seeds, None)));
        router.pool = Mutex::new(pool);
        router
    }

    /// The servers that the user named.
    pub(crate) fn seeds(&self) -> &[Arc<Connection>] {
        &self.seeds
    }

    /// The connections of all shards; of the given servers, if nothing else is known or wanted.
    pub(crate) fn shards(&self) -> Vec<Arc<Connection>> {
        let routes = self.routes();
        routes.connections[..routes.shards].to_vec()
    }

    /// What is known; `None` before the first answer.
    pub(crate) fn topology(&self) -> Option<Arc<Topology>> {
        self.routes().topology.clone()
    }

    /// Of the topology in use; 0 before the first.
    pub(crate) fn epoch(&self) -> u64 {
        self.routes().topology.as_ref().map_or(0, |topology| topology.epoch)
    }

    /// Where a request begins in its preference list.
    ///
    /// Reads begin at each primary in turn, so that a hot key's load spreads. Writes keep to the first that
    /// is healthy: a key that is written through one coordinator grows fewer siblings and a shorter clock,
    /// and the first places of all partitions are spread over the nodes anyway.
    pub(crate) fn first_turn(&self, is_write: bool) -> Turn {
        let keeps_to_first = is_write && self.routing == Routing::Owner;
        let first = if keeps_to_first { 0 } else { self.turn.fetch_add(1, Ordering::Relaxed) };
        Turn { first, near_first: !is_write }
    }

    /// The best connection for a key that is not among `tried`. Its primaries are asked in their order,
    /// beginning with number `turn` (modulo N).
    pub(crate) fn choose(&self, token: u64, turn: Turn, tried: &[u32], now: Instant) -> Option<Route> {
        let routes = self.routes.read().expect("nothing panics while it holds the routes");
        let mut second = None;
        let mut last = None;
        if let Some(topology) = routes.topology.as_ref().filter(|_| !routes.owners.is_empty()) {
            if self.routing == Routing::Wrong
                && let Some(connection) = routes.stranger(topology, token, turn, tried, now)
            {
                return Some(Route { connection, epoch: 0 });
            }
            for place in routes.owners_in_turn(topology, token, turn) {
                let connection = &routes.connections[place as usize];
                if tried.contains(&connection.number) {
                    continue;
                }
                let route = || Route { connection: Arc::clone(connection), epoch: topology.epoch };
                match connection.availability(now) {
                    Availability::Ready => return Some(route()),
                    Availability::Opening if second.is_none() => second = Some(route()),
                    Availability::Resting if last.is_none() => last = Some(route()),
                    _ => {}
                }
            }
        }
        second.or_else(|| routes.any(turn.first, tried, now, last))
    }

    /// A connection for a question that any server can answer.
    pub(crate) fn any(&self, tried: &[u32], now: Instant) -> Option<Arc<Connection>> {
        let turn = self.any_turn.fetch_add(1, Ordering::Relaxed);
        self.routes().any(turn, tried, now, None).map(|route| route.connection)
    }

    /// Why a server can't be reached, when none can.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.routes().connections.iter().find_map(|connection| connection.last_failure())
    }

    /// Take a new topology. False if it is another cluster's, or the one in use.
    pub(crate) fn apply(&self, topology: Topology) -> bool {
        let cluster = self.settings.cluster.load(Ordering::Relaxed);
        if (cluster != 0 && topology.cluster != cluster) || topology.epoch == 0 {
            return false;
        }
        let mut pool = self.pool.lock().expect("nothing panics while it holds the pool");
        if self.topology().is_some_and(|known| *known == topology) {
            return false;
        }
        let routes = Arc::new(self.build(&mut pool, topology));
        self.retire_others(&mut pool, &routes);
        *self.routes.write().expect("nothing panics while it holds the routes") = routes;
        true
    }

    /// Close everything: the client is gone.
    pub(crate) fn close(&self) {
        for connection in self.pool.lock().expect("nothing panics while it holds the pool").values() {
            connection.retire(true);
        }
    }

    fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.routes.read().expect("nothing panics while it holds the routes"))
    }

    fn build(&self, pool: &mut HashMap<Address, Arc<Connection>>, topology: Topology) -> Routes {
        if self.routing == Routing::Given {
            return Routes::to_any(&self.seeds, Some(topology));
        }
        let mut connections = Vec::new();
        // Where each member's shards begin in `connections`, and how many it has.
        let mut places = Vec::with_capacity(topology.members.len());
        for member in &topology.members {
            let ports = ports(member);
            places.push((connections.len() as u32, ports.len() as u16));
            connections.extend(
                ports.iter().map(|&port| self.connection(pool, Address { host: member.host.clone(), port })),
            );
        }
        let replicas = u32::from(topology.replicas);
        let owner = |(slot, &place): (usize, &u16)| {
            let (first, count) = places[usize::from(place)];
            first + u32::from(shard_of(slot as u32 / replicas, count))
        };
        let owners = topology.primaries.iter().enumerate().map(owner).collect();
        let is_new = |seed: &&Arc<Connection>| !connections.iter().any(|other| other.number == seed.number);
        let more: Vec<_> = self.seeds.iter().filter(is_new).cloned().collect();
        let shards = connections.len();
        connections.extend(more);
        let distances = self.near.as_ref().map_or_else(Vec::new, |near| distances(near, &topology));
        Routes { topology: Some(Arc::new(topology)), owners, connections, shards, distances }
    }

    fn connection(&self, pool: &mut HashMap<Address, Arc<Connection>>, address: Address) -> Arc<Connection> {
        let entry = pool.entry(address);
        let address = entry.key().clone();
        let new = || {
            let number = self.numbers.fetch_add(1, Ordering::Relaxed);
            Arc::new(Connection::new(number, address, Arc::clone(&self.settings)))
        };
        Arc::clone(entry.or_insert_with(new))
    }

    /// Connections to shards that are no more close when they have answered.
    fn retire_others(&self, pool: &mut HashMap<Address, Arc<Connection>>, routes: &Routes) {
        let used: HashSet<u32> = routes.connections.iter().map(|connection| connection.number).collect();
        pool.retain(|_, connection| {
            let is_used = used.contains(&connection.number);
            if !is_used {
                connection.retire(false);
            }
            is_used
        });
    }
}

/// How far the shards of all members are, in their order.
fn distances(near: &Near, topology: &Topology) -> Vec<u8> {
    let distance = |member: &Member| match member.data_center == near.data_center {
        true if member.rack == near.rack => 0,
        true => 1,
        false => DISTANCE_MAX,
    };
    let of_shards = |member| ports(member).iter().map(move |_| distance(member));
    topology.members.iter().flat_map(of_shards).collect()
}

/// Of a member in another data centre.
const DISTANCE_MAX: u8 = 2;

/// A member that nobody has heard from yet has only its ordinary port.
fn ports(member: &Member) -> &[u16] {
    if member.shard_ports.is_empty() {
        std::slice::from_ref(&member.ordinary_port)
    } else {
        &member.shard_ports
    }
}

impl Routes {
    /// All servers are equal, whatever the key.
    fn to_any(servers: &[Arc<Connection>], topology: Option<Topology>) -> Self {
        let topology = topology.map(Arc::new);
        let (connections, shards) = (servers.to_vec(), servers.len());
        Self { topology, owners: Vec::new(), connections, shards, distances: Vec::new() }
    }

    /// The connections to a key's owners, as places in `connections`, in the order in which they are to be asked.
    fn owners_in_turn(&self, topology: &Topology, token: u64, turn: Turn) -> impl Iterator<Item = u32> {
        let replicas = u32::from(topology.replicas);
        let first = (partition(token, topology.partitions) * replicas) as usize;
        let owners = &self.owners[first..first + replicas as usize];
        let sorts = turn.near_first && !self.distances.is_empty();
        let passes = 0..=if sorts { DISTANCE_MAX } else { 0 };
        passes.flat_map(move |distance| {
            let in_turn =
                (0..replicas).map(move |rank| owners[(turn.first.wrapping_add(rank) % replicas) as usize]);
            in_turn.filter(move |&place| !sorts || self.distances[place as usize] == distance)
        })
    }

    /// A connection that is ready, to a shard that doesn't hold the key.
    fn stranger(
        &self,
        topology: &Topology,
        token: u64,
        turn: Turn,
        tried: &[u32],
        now: Instant,
    ) -> Option<Arc<Connection>> {
        let count = self.shards as u32;
        let is_owner = |place| self.owners_in_turn(topology, token, turn).any(|owner| owner == place);
        let in_turn = (0..count).map(|step| turn.first.wrapping_add(step) % count);
        let strangers =
            in_turn.filter(|&place| !is_owner(place)).map(|place| &self.connections[place as usize]);
        let mut left = strangers.filter(|connection| !tried.contains(&connection.number));
        left.find(|connection| connection.availability(now) == Availability::Ready).cloned()
    }

    /// Any connection that is ready; else `fallback`; else one that may be soon.
    fn any(&self, turn: u32, tried: &[u32], now: Instant, fallback: Option<Route>) -> Option<Route> {
        let count = self.connections.len();
        let mut soon = None;
        for step in 0..count {
            let connection = &self.connections[(turn as usize).wrapping_add(step) % count];
            if tried.contains(&connection.number) {
                continue;
            }
            let route = || Route { connection: Arc::clone(connection), epoch: 0 };
            match connection.availability(now) {
                Availability::Ready => return Some(route()),
                Availability::Opening | Availability::Resting if soon.is_none() => soon = Some(route()),
                _ => {}
            }
        }
        fallback.or(soon)
    }
}
