//! A cluster on this machine: this program, run again once for each node.
//!
//! Nodes are processes of their own, so that one can be killed as a machine dies, without a word to anybody.
//! **None outlives this process**, however it goes:
//!
//! - a panic or an error drops the [`Cluster`], which kills and reaps each node by its process id;
//! - a SIGKILL or a crash closes the pipes that are the nodes' standard input, and a node that reads its end
//!   stops; and the kernel kills them, as they ask it to when they start ([`serve`]);
//! - Ctrl-C on a terminal goes to a whole process group, so each node has its own: the run ends first.
//!
//! The addresses of all nodes must be known before the first one starts, so ports are found by binding them
//! all and closing them again. Somebody else may take one in between; then all is tried anew.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use ringmain_client::{Builder, Client, ShardStatus};
use tokio::time::{Instant, sleep, timeout};

use crate::inject::{Act, Deed};

mod node;

pub use node::serve;

use node::Node;

/// What to start.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The program that is a node when its first argument is `node`.
    pub program: PathBuf,
    /// How many nodes, at least 1.
    pub nodes: u8,
    /// Shards of each.
    pub shards: u8,
    /// Copies of each key, at most as many as there are nodes.
    pub replicas: u8,
}

/// Nodes that run, and some that were killed perhaps. Dropping it ends them all at once.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    /// Sentences about what could not be done to them.
    faults: Vec<String>,
}

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No ports, or no process.
    #[error("can't start a node: {0}")]
    Spawn(#[from] std::io::Error),
    /// A node ended before it served.
    #[error("node {name} ended at its start ({status}): {said}")]
    Ended {
        /// Which.
        name: String,
        /// Its exit status.
        status: String,
        /// The end of what it wrote to its standard error.
        said: String,
    },
    /// Somebody took a port in between, several times in a row.
    #[error("ports that were just free were taken {ATTEMPTS_MAX} times in a row: try again")]
    Ports,
    /// Not all of them serve.
    #[error("the nodes don't serve after {} s: {waiting}", START_WITHIN.as_secs())]
    Late {
        /// What is still amiss.
        waiting: String,
    },
}

const ATTEMPTS_MAX: u32 = 5;
const START_WITHIN: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// For nodes to answer what they accepted and leave.
const STOP_WITHIN: Duration = Duration::from_secs(3);
/// This program, even if another has taken its place on the disk meanwhile.
pub const THIS_PROGRAM: &str = "/proc/self/exe";

impl Plan {
    /// Nodes that are this program.
    pub fn of_this_program(nodes: u8, shards: u8, replicas: u8) -> Self {
        Self { program: PathBuf::from(THIS_PROGRAM), nodes, shards, replicas }
    }
}

impl Cluster {
    /// Starts the nodes and waits until every shard of each serves. The client is built from `builder`, which
    /// need not name servers. Call it from a thread that lives as long as the process: when the thread ends,
    /// so do the nodes.
    pub async fn start(plan: &Plan, builder: &Builder) -> Result<(Self, Client), StartError> {
        for _ in 0..ATTEMPTS_MAX {
            let mut cluster = Self::spawn(plan)?;
            let builder = builder.clone().servers(cluster.addresses()).connect_timeout(START_WITHIN);
            tokio::select! {
                biased;
                ended = cluster.first_ended() => match ended {
                    Some(error) => return Err(error),
                    None => continue,
                },
                served = all_serve(builder, usize::from(plan.nodes)) => return Ok((cluster, served?)),
            }
        }
        Err(StartError::Ports)
    }

    fn spawn(plan: &Plan) -> Result<Self, StartError> {
        let addresses: Vec<String> =
            free_ports(plan.nodes)?.into_iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let names: Vec<String> = (1..=plan.nodes).map(|number| format!("n{number}")).collect();
        let members: Vec<String> =
            names.iter().zip(&addresses).map(|(name, address)| format!("{name}={address}")).collect();
        let mut cluster = Self { nodes: Vec::new(), faults: Vec::new() };
        for (name, address) in names.into_iter().zip(addresses) {
            let arguments = arguments(plan, &name, &address, &members.join(","));
            cluster.nodes.push(Node::spawn(plan.program.clone(), name, address, arguments)?);
        }
        Ok(cluster)
    }

    /// Every node's address, in order.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.address.clone()).collect()
    }

    /// Every node's process id, in order.
    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().map(Node::pid).collect()
    }

    /// Does something to a node, which must be there. A kill isn't waited for: that would hold up whoever measures. A
    /// restart takes about a millisecond, and until the node serves much longer. One that fails is told by [`stop`].
    ///
    /// [`stop`]: Self::stop
    pub fn perform(&mut self, deed: &Deed) {
        let node = &mut self.nodes[usize::from(deed.node) - 1];
        match deed.act {
            Act::Kill => node.kill(),
            Act::Pause => node.pause(),
            Act::Resume => node.resume(),
            Act::Restart => {
                if let Err(error) = node.restart() {
                    self.faults.push(format!("node {} can't be started again: {error}", node.name));
                }
            }
        }
    }

    /// Tells the nodes to stop, waits for them, and returns what went wrong: a sentence for each node that
    /// ended by itself, or didn't end well.
    pub async fn stop(mut self) -> Vec<String> {
        let mut faults = std::mem::take(&mut self.faults);
        faults.extend(self.nodes.iter_mut().filter_map(Node::ended_by_itself));
        self.nodes.iter_mut().for_each(Node::ask_to_stop);
        let until = Instant::now() + STOP_WITHIN;
        while Instant::now() < until && self.nodes.iter_mut().any(Node::is_running) {
            sleep(LOOK_EVERY).await;
        }
        faults.extend(self.nodes.iter_mut().filter_map(Node::stopped_badly));
        faults
    }

    /// Ready when a node has ended; with nothing if it was for a port, so that starting anew may help.
    async fn first_ended(&mut self) -> Option<StartError> {
        loop {
            for node in &mut self.nodes {
                if !node.is_running() {
                    return node.start_failed();
                }
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

/// One line: who listens where.
impl std::fmt::Display for Cluster {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (place, node) in self.nodes.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(formatter, "{comma}{} on {} (process {})", node.name, node.address, node.pid())?;
        }
        Ok(())
    }
}

/// The server's settings, as its command line has them.
fn arguments(plan: &Plan, name: &str, address: &str, members: &str) -> Vec<String> {
    let numbers = [("--shards", plan.shards), ("--replicas", plan.replicas)];
    let texts = [("--listen", address), ("--name", name), ("--members", members), ("--pin", "false")];
    let mut arguments: Vec<String> = vec!["node".to_owned(), "--stop-with-stdin".to_owned()];
    arguments.extend(texts.into_iter().flat_map(|(setting, text)| [setting.to_owned(), text.to_owned()]));
    arguments
        .extend(numbers.into_iter().flat_map(|(setting, number)| [setting.to_owned(), number.to_string()]));
    arguments
}

/// Ports that were free a moment ago, all different because all were held at once.
fn free_ports(count: u8) -> std::io::Result<Vec<u16>> {
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind(("127.0.0.1", 0))).collect::<Result<_, _>>()?;
    held.iter().map(|listener| listener.local_addr().map(|address| address.port())).collect()
}

/// A client, once every shard of so many nodes says that it serves.
async fn all_serve(builder: Builder, nodes: usize) -> Result<Client, StartError> {
    let mut waiting = "no answer yet".to_owned();
    let serving = async {
        let client = builder.connect().await.map_err(|error| error.to_string())?;
        loop {
            match still_waiting(&client, nodes).await {
                None => return Ok(client),
                Some(reason) => waiting = reason,
            }
            sleep(LOOK_EVERY).await;
        }
    };
    match timeout(START_WITHIN, serving).await {
        Ok(Ok(client)) => Ok(client),
        Ok(Err(reason)) => Err(StartError::Late { waiting: reason }),
        Err(_elapsed) => Err(StartError::Late { waiting }),
    }
}

/// The first thing that is not as it shall be.
async fn still_waiting(client: &Client, nodes: usize) -> Option<String> {
    let known = client.known_topology().map_or(0, |topology| topology.members.len());
    if known != nodes {
        return Some(format!("{known} of {nodes} nodes are known"));
    }
    client.status().await.into_iter().find_map(|ShardStatus { address, status }| match status {
        Ok(status) if status.serving => None,
        Ok(_) => Some(format!("{address} isn't serving")),
        Err(error) => Some(format!("{address}: {error}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ() {
        let mut ports = free_ports(50).expect("there are free ports");
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 50);
    }

    #[test]
    fn this_program_is_found() {
        let program = Plan::of_this_program(3, 1, 3).program;
        assert_eq!(program.canonicalize().ok(), std::env::current_exe().ok());
    }

    #[test]
    fn a_nodes_arguments_are_the_servers() {
        let plan = Plan::of_this_program(2, 4, 1);
        let line = arguments(&plan, "n1", "127.0.0.1:1", "n1=127.0.0.1:1,n2=127.0.0.1:2");
        let line = std::iter::once("loadgen".to_owned()).chain(line).map(Into::into);
        let Ok(crate::cli::Command::Node(serve)) = crate::cli::understand(line) else { panic!("a node") };
        assert!(serve.stop_with_stdin);
        assert_eq!((serve.settings.shards, serve.settings.pin), (Some(4), Some(false)));
        assert_eq!(serve.settings.replicas, Some(1));
        assert_eq!(serve.settings.members.map(|members| members.len()), Some(2));
    }
}
