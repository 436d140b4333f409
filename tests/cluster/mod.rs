//! Real clusters for tests: processes of the built server, on loopback ports of their own.
//!
//! A [`Cluster`] serves from the moment it is there, and leaves no process behind: dropping it ends and reaps its
//! nodes, and should the test itself be killed, they stop because their standard input ends. Its links can be
//! cut ([`Cluster::cut`]) if it was started with [`Cluster::with_links`]. [`Wire`] speaks the protocol by hand, and so
//! can break it.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "a support of many tests, of which each uses a part"
)]
#![allow(clippy::unwrap_used, reason = "a test that can't go on must stop")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "real processes live in real time")]

mod link;
mod neighbour;
mod ports;
mod process;
mod wire;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use ringmain_client::{Builder, Client, Routing, Status};

use link::Link;

pub use neighbour::Neighbour;
pub use ports::Port;
pub use process::{Ended, Process, run};
pub use wire::{Answer, Wire, delete, encoded, get, hello, multi, put};

/// Nothing here takes so long, unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Nodes `n0`, `n1`, ... on 127.0.0.1.
pub struct Cluster {
    nodes: Vec<Node>,
    /// By caller and called, if the cluster was started with links.
    links: Vec<((usize, usize), Link)>,
    /// Empty if it has none.
    secret: Vec<u8>,
}

struct Node {
    port: Port,
    arguments: Vec<String>,
    process: Process,
    /// Nobody expects anything of it.
    is_killed: bool,
}

impl Cluster {
    /// So many nodes of so many shards each, unpinned; `more` goes to each of them.
    pub fn start(nodes: usize, shards: usize, more: &[&str]) -> Self {
        Self::start_each(nodes, shards, more, |_| None)
    }

    /// The same, and one more argument for some of them.
    pub fn start_each(
        nodes: usize,
        shards: usize,
        more: &[&str],
        own: impl Fn(usize) -> Option<String>,
    ) -> Self {
        let ports: Vec<Port> = (0..nodes).map(|_| Port::reserve()).collect();
        let members = |_caller| {
            let member = |(place, port): (usize, &Port)| format!("n{place}=127.0.0.1:{}", port.number());
            ports.iter().enumerate().map(member).collect::<Vec<_>>().join(",")
        };
        let arguments = |node| {
            let mut arguments = arguments(node, &ports[node], shards, &members(node), more);
            arguments.extend(own(node));
            arguments
        };
        let arguments = (0..nodes).map(arguments).collect();
        let secret = more.iter().find_map(|argument| argument.strip_prefix("--secret-file="));
        let secret = secret.map_or_else(Vec::new, |path| std::fs::read(path).unwrap());
        Self::of(ports, arguments, Vec::new(), secret)
    }

    /// Nodes of one shard each whose connections can be cut, because each member finds the others behind a
    /// [`Link`].
    pub fn with_links(nodes: usize, more: &[&str]) -> Self {
        let ports: Vec<Port> = (0..nodes).map(|_| Port::reserve()).collect();
        let mut links = Vec::new();
        for caller in 0..nodes {
            for called in (0..nodes).filter(|&called| called != caller) {
                links.push(((caller, called), Link::to(loopback(ports[called].number()))));
            }
        }
        let port_of = |caller: usize, called: usize| {
            let link = links.iter().find(|(ends, _)| *ends == (caller, called));
            link.map_or_else(|| ports[called].number(), |(_, link)| link.port())
        };
        let members = |caller: usize| {
            let member = |called| format!("n{called}=127.0.0.1:{}", port_of(caller, called));
            (0..nodes).map(member).collect::<Vec<_>>().join(",")
        };
        let arguments = (0..nodes).map(|node| arguments(node, &ports[node], 1, &members(node), more));
        let arguments = arguments.collect();
        let cluster = Self::of(ports, arguments, links, Vec::new());
        for one in 0..nodes {
            for other in 0..one {
                wait_until(&format!("n{one} and n{other} are connected once, through a link"), || {
                    cluster.links_between(one, other).map(Link::connections).sum::<usize>() == 1
                });
            }
        }
        cluster
    }

    fn of(
        ports: Vec<Port>,
        arguments: Vec<Vec<String>>,
        links: Vec<((usize, usize), Link)>,
        secret: Vec<u8>,
    ) -> Self {
        let begin = |(port, arguments): (Port, Vec<String>)| {
            let process = Process::start(&arguments);
            Node { port, arguments, process, is_killed: false }
        };
        let cluster = Self { nodes: ports.into_iter().zip(arguments).map(begin).collect(), links, secret };
        cluster.wait_until_whole();
        cluster
    }

    /// Start a node that joins through the first one, and wait until it serves. Returns its place.
    pub fn join(&mut self, shards: usize) -> usize {
        self.join_with(shards, &[])
    }

    /// The same; `more` goes to it.
    pub fn join_with(&mut self, shards: usize, more: &[&str]) -> usize {
        let port = Port::reserve();
        let arguments = self.guest_arguments(&port, shards, more);
        let process = Process::start(&arguments);
        self.nodes.push(Node { port, arguments, process, is_killed: false });
        self.wait_until_whole();
        self.nodes.len() - 1
    }

    /// What a guest is started with, and `more`.
    pub fn guest_arguments(&self, port: &Port, shards: usize, more: &[&str]) -> Vec<String> {
        let seeds = self.address(0).to_string();
        let more = [&["--seeds", &seeds], more].concat();
        let mut arguments = arguments(self.nodes.len(), port, shards, "", &more);
        arguments.retain(|argument| !argument.starts_with("--members="));
        arguments
    }

    /// Where a node's shards listen together.
    pub fn address(&self, node: usize) -> SocketAddr {
        loopback(self.nodes[node].port.number())
    }

    /// Where each of a node's shards listens alone.
    pub fn shard_addresses(&self, node: usize) -> Vec<SocketAddr> {
        self.greeted(node).shard_ports().into_iter().map(loopback).collect()
    }

    /// A connection to a node that has welcomed it.
    pub fn greeted(&self, node: usize) -> Wire {
        Wire::greeted(self.address(node), &self.secret).unwrap()
    }

    pub fn process(&mut self, node: usize) -> &mut Process {
        &mut self.nodes[node].process
    }

    /// End it as a power cut would.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].is_killed = true;
        self.process(node).kill();
    }

    /// Start it again with the same arguments: without a data directory it has forgotten everything. Waits until all serve.
    pub fn restart(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        node.process.kill();
        node.process = Process::start(&node.arguments);
        node.is_killed = false;
        self.wait_until_whole();
    }

    /// End all nodes at once, as a power cut would.
    pub fn kill_all(&mut self) {
        self.nodes.iter().for_each(|node| node.process.kill_soon());
        (0..self.nodes.len()).for_each(|node| self.kill(node));
    }

    /// Start all nodes that were killed, with the same arguments, and wait until all serve.
    pub fn restart_all(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| node.is_killed) {
            node.process = Process::start(&node.arguments);
            node.is_killed = false;
        }
        self.wait_until_whole();
    }

    /// Start a killed node with one more argument, and wait until all serve.
    pub fn restart_with(&mut self, node: usize, more: &str) {
        self.nodes[node].arguments.push(more.to_owned());
        self.restart(node);
        self.nodes[node].arguments.pop();
    }

    /// A node has so many shards from its next start on.
    pub fn set_shards(&mut self, node: usize, shards: usize) {
        let arguments = self.nodes[node].arguments.iter_mut();
        let mut is_shards = arguments.filter(|argument| argument.starts_with("--shards="));
        *is_shards.next().expect("each node is told how many") = format!("--shards={shards}");
    }

    /// What a node is started with.
    pub fn arguments(&self, node: usize) -> Vec<&str> {
        self.nodes[node].arguments.iter().map(String::as_str).collect()
    }

    /// Let nothing pass between two nodes. What they send stays on its way; their connections stay up until
    /// they give them up, after ten seconds of silence.
    pub fn cut(&self, one: usize, other: usize) {
        self.links_between(one, other).for_each(Link::cut);
    }

    /// End the connection of two nodes, and with it whatever was held up on its way. They connect anew, around
    /// the link. Waits until they have.
    pub fn reconnect(&self, one: usize, other: usize) {
        self.links_between(one, other).for_each(Link::sever);
        self.wait_for_state(one, other, "up");
        self.wait_for_state(other, one, "up");
    }

    fn links_between(&self, one: usize, other: usize) -> impl Iterator<Item = &Link> {
        assert!(!self.links.is_empty(), "this cluster was started without links");
        let between = move |ends: (usize, usize)| ends == (one, other) || ends == (other, one);
        self.links.iter().filter(move |(ends, _)| between(*ends)).map(|(_, link)| link)
    }

    /// Wait until every shard of `observer` says that `node` is in this state.
    pub fn wait_for_state(&self, observer: usize, node: usize, state: &str) {
        let name = format!("n{node}");
        let has = |status: Status| status.members.iter().any(|m| m.name == name && m.state == state);
        wait_until(&format!("n{observer} sees that {name} is {state}"), || {
            let Some(statuses) = self.statuses(observer) else { return false };
            statuses.into_iter().all(has)
        });
    }

    /// What each shard of a node says of itself, or `None` if the node isn't there.
    pub fn statuses(&self, node: usize) -> Option<Vec<Status>> {
        let ports = Wire::greeted(self.address(node), &self.secret).ok()?.shard_ports();
        let ask = |port| Wire::greeted(loopback(port), &self.secret).ok().map(|mut wire| wire.status());
        ports.into_iter().map(ask).collect()
    }

    /// The sum of a counter over a node's shards.
    pub fn counter(&self, node: usize, name: &str) -> u64 {
        let statuses = self.statuses(node).expect("the node is up");
        let counters = statuses.into_iter().flat_map(|status| status.counters);
        counters.filter(|counter| counter.name == name).map(|counter| counter.value).sum()
    }

    /// Wait until every shard of every node that was not killed serves and sees the others up.
    fn wait_until_whole(&self) {
        let living = || (0..self.nodes.len()).filter(|&node| !self.nodes[node].is_killed);
        let is_whole = |node| {
            let Some(statuses) = self.statuses(node) else { return false };
            statuses.iter().all(|status| {
                let up = status.members.iter().filter(|member| member.state == "up").count();
                status.serving && up + 1 == living().count()
            })
        };
        for node in living() {
            wait_until(&format!("n{node} serves and sees the others"), || {
                assert!(
                    self.nodes[node].process.is_running(),
                    "n{node}: {}",
                    self.nodes[node].process.said()
                );
                is_whole(node)
            });
        }
    }

    /// A client that knows all nodes and sends each request to an owner.
    pub async fn client(&self) -> Client {
        self.builder().connect().await.unwrap()
    }

    /// A client that sends everything to one node.
    pub async fn client_of(&self, node: usize) -> Client {
        let servers = [self.address(node).to_string()];
        self.builder().servers(servers).routing(Routing::Given).connect().await.unwrap()
    }

    /// For a client of all nodes, with patience enough for a loaded machine.
    pub fn builder(&self) -> Builder {
        let servers = (0..self.nodes.len()).map(|node| self.address(node).to_string());
        let patience = Duration::from_secs(5);
        let builder = Client::builder().servers(servers).cluster_secret(&*self.secret);
        builder.timeout(patience).hung_after(patience)
    }
}

fn arguments(node: usize, port: &Port, shards: usize, members: &str, more: &[&str]) -> Vec<String> {
    let mut arguments = vec![
        "serve".to_owned(),
        format!("--name=n{node}"),
        format!("--listen=127.0.0.1:{}", port.number()),
        format!("--members={members}"),
        format!("--shards={shards}"),
        "--pin=false".to_owned(),
        "--stop-with-stdin".to_owned(),
    ];
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    arguments
}

pub const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// Look again and again until it is so.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "waited {PATIENCE:?} until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
