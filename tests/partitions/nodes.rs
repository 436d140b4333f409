//! Five `ringmain serve`, each in its namespace, and all keys that clients have used on them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::clients::verdict::AtRest;
use super::clients::{Keys, Servers, at_rest};
use super::cluster::{Process, Wire, wait_until};
use super::namespace::NotPermitted;
use super::network::{NODES, Network, listens};

/// A cluster, to be used from within [`Network::clients`].
pub(crate) struct Nodes {
    /// Before the network, so that they end first.
    processes: Vec<Process>,
    network: Network,
    servers: Servers,
    keys: Keys,
}

impl Nodes {
    /// Do something with a new cluster, where its clients live; not at all where namespaces aren't permitted.
    pub(crate) fn with(test: &str, act: impl FnOnce(&mut Self) + Send) {
        let mut nodes = match Self::start() {
            Ok(nodes) => nodes,
            Err(NotPermitted(why)) => {
                let needs =
                    "it needs root (CAP_SYS_ADMIN, CAP_NET_ADMIN), `ip` and a kernel with veth and bridges";
                super::say(&format!("partitions: {test} is SKIPPED: {why}; {needs}"));
                return;
            }
        };
        // The namespace outlives the borrow of the nodes.
        let clients = nodes.network.clients().again();
        clients.inside(move || {
            nodes.wait_until_whole();
            act(&mut nodes);
        });
    }

    fn start() -> Result<Self, NotPermitted> {
        let network = Network::make()?;
        let processes = (0..NODES).map(|node| start(&network, node)).collect();
        let servers = Servers((0..NODES).map(listens).collect());
        Ok(Self { processes, network, servers, keys: Arc::new(Mutex::new(BTreeSet::new())) })
    }

    pub(crate) fn network(&self) -> &Network {
        &self.network
    }

    pub(crate) fn process(&mut self, node: usize) -> &mut Process {
        &mut self.processes[node]
    }

    /// Those used so far. Whoever uses a new one adds it.
    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Start a node that has ended: it has forgotten everything. Wait until all serve, and until it has been told again
    /// what it had: a read of all copies repairs those that lack something.
    pub(crate) fn restart(&mut self, node: usize) {
        assert!(!self.processes[node].is_running());
        self.processes[node] = start(&self.network, node);
        self.wait_until_whole();
        at_rest::repair(&self.servers, &self.keys);
    }

    pub(crate) fn servers(&self) -> &Servers {
        &self.servers
    }

    /// What is there when nothing changes any more, and how long that took.
    pub(crate) fn converge(&self, healed: Instant) -> (AtRest, Duration) {
        at_rest::converge(&self.servers, &self.keys, healed, || self.repairs())
    }

    /// Wait until every node serves and sees all others up.
    pub(crate) fn wait_until_whole(&self) {
        for node in 0..NODES {
            wait_until(&format!("n{node} serves and sees the others"), || {
                assert!(self.processes[node].is_running(), "n{node}: {}", self.processes[node].said());
                let Ok(mut wire) = Wire::greeted(listens(node), &[]) else { return false };
                let status = wire.status();
                status.serving
                    && status.members.iter().filter(|member| member.state == "up").count() == NODES - 1
            });
        }
    }

    /// Copies that readers found outdated, so far.
    pub(crate) fn repairs(&self) -> u64 {
        let count = |node| {
            let status = Wire::greeted(listens(node), &[]).unwrap().status();
            status.counters.iter().find(|counter| counter.name == "repairs_sent").unwrap().value
        };
        (0..NODES).map(count).sum()
    }
}

fn start(network: &Network, node: usize) -> Process {
    let member = |node| format!("n{node}={}", listens(node));
    let arguments = [
        "serve".to_owned(),
        format!("--name=n{node}"),
        format!("--listen={}", listens(node)),
        format!("--members={}", (0..NODES).map(member).collect::<Vec<_>>().join(",")),
        "--shards=1".to_owned(),
        "--pin=false".to_owned(),
        "--stop-with-stdin".to_owned(),
    ];
    network.node(node).inside(|| Process::start(&arguments))
}
