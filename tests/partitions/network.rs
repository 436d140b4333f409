//! Five nodes and their clients on one bridge, each in a namespace of its own, and cuts between them.
//!
//! Nobody asks who has which address (no ARP): each end knows the hardware addresses of all others from a table that is
//! written here. To cut the way from A to B, the line for B in A's table is given an address that nobody has, and the
//! bridge drops the frames. So a cut works in one direction, is silent (no refusal, no "unreachable": segments vanish,
//! and are sent again), holds for connections that stand as for new ones, and needs no packet filter in the kernel.
//! The clients reach every node at all times.

use std::net::{Ipv4Addr, SocketAddr};

use super::namespace::{Namespace, NotPermitted};

/// How many nodes there are.
pub(crate) const NODES: usize = 5;
/// The clients' place, behind the nodes'.
const CLIENTS: usize = NODES;
const PORT: u16 = 7400;

/// All namespaces of one cluster.
pub(crate) struct Network {
    /// Held, as it holds the bridge.
    _bridge: Namespace,
    /// The nodes', then the clients'.
    ends: Vec<Namespace>,
}

impl Network {
    /// Without any cut.
    pub(crate) fn make() -> Result<Self, NotPermitted> {
        let bridge = Namespace::make()?;
        bridge.try_ip(&["link add hub type bridge".to_owned(), "link set hub up".to_owned()])?;
        let ends = (0..=CLIENTS).map(|_| Namespace::make()).collect::<Result<Vec<_>, _>>()?;
        for (place, end) in ends.iter().enumerate() {
            bridge
                .try_ip(&[format!("link add port{place} type veth peer name eth0 netns {}", end.path())])?;
            // A frame to nobody isn't sent to everybody.
            bridge.ip(&[
                format!("link set port{place} master hub"),
                format!("link set port{place} type bridge_slave flood off"),
                format!("link set port{place} up"),
            ]);
            end.ip(&[
                "link set lo up".to_owned(),
                format!("link set eth0 address {}", hardware_address(place)),
                "link set eth0 up".to_owned(),
                format!("address add {}/24 dev eth0", address(place)),
            ]);
            // The bridge needn't have heard an end to know where it is.
            let hardware = hardware_address(place);
            bridge.inside(|| bridge_knows(&hardware, place));
        }
        let network = Self { _bridge: bridge, ends };
        network.reach(CLIENTS, |_| true);
        network.heal();
        Ok(network)
    }

    /// Where a node lives.
    pub(crate) fn node(&self, node: usize) -> &Namespace {
        &self.ends[node]
    }

    /// Where the clients live.
    pub(crate) fn clients(&self) -> &Namespace {
        &self.ends[CLIENTS]
    }

    /// From now on exactly these ways are cut: nothing that the first sends reaches the second.
    pub(crate) fn cut(&self, ways: &[(usize, usize)]) {
        for from in 0..NODES {
            self.reach(from, |to| !ways.contains(&(from, to)));
        }
    }

    /// From now on every end reaches every other.
    pub(crate) fn heal(&self) {
        self.cut(&[]);
    }

    /// Whom one end reaches.
    fn reach(&self, from: usize, reaches: impl Fn(usize) -> bool) {
        let others = (0..self.ends.len()).filter(|&to| to != from);
        let line = |to| {
            let hardware = if reaches(to) { hardware_address(to) } else { "02:00:00:00:00:ff".to_owned() };
            format!("neighbor replace {} lladdr {hardware} dev eth0 nud permanent", address(to))
        };
        self.ends[from].ip(&others.map(line).collect::<Vec<_>>());
    }
}

/// Both ways between every node of one side and every node of the other.
pub(crate) fn between(one: &[usize], other: &[usize]) -> Vec<(usize, usize)> {
    [ways(one, other), ways(other, one)].concat()
}

/// The ways from every node of one side to every node of the other.
pub(crate) fn ways(from: &[usize], to: &[usize]) -> Vec<(usize, usize)> {
    from.iter().flat_map(|&from| to.iter().map(move |&to| (from, to))).collect()
}

/// Where a node listens.
pub(crate) fn listens(node: usize) -> SocketAddr {
    SocketAddr::from((address(node), PORT))
}

fn address(place: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, place as u8 + 1)
}

fn hardware_address(place: usize) -> String {
    format!("02:00:00:00:00:{:02x}", place + 1)
}

fn bridge_knows(hardware: &str, place: usize) {
    let port = format!("port{place}");
    let arguments = ["fdb", "replace", hardware, "dev", &port, "master", "static"];
    let output = std::process::Command::new("bridge").args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::time::Duration;

    use super::*;

    const SHORT: Duration = Duration::from_millis(300);

    fn datagrams(network: &Network, node: usize) -> UdpSocket {
        let socket = network.node(node).inside(|| UdpSocket::bind(listens(node)).unwrap());
        socket.set_read_timeout(Some(SHORT)).unwrap();
        socket
    }

    /// Does a datagram arrive?
    fn arrives(sockets: &[UdpSocket], from: usize, to: usize) -> bool {
        sockets[from].send_to(b"hello", listens(to)).unwrap();
        sockets[to].recv(&mut [0; 8]).is_ok()
    }

    #[test]
    fn a_cut_takes_one_way_and_leaves_the_other() {
        let Ok(network) = Network::make() else { return };
        let sockets: Vec<_> = (0..NODES).map(|node| datagrams(&network, node)).collect();
        assert!(arrives(&sockets, 0, 1) && arrives(&sockets, 1, 0));
        network.cut(&[(0, 1), (2, 3), (3, 2)]);
        assert!(!arrives(&sockets, 0, 1) && arrives(&sockets, 1, 0));
        assert!(!arrives(&sockets, 2, 3) && !arrives(&sockets, 3, 2));
        assert!(arrives(&sockets, 0, 2) && arrives(&sockets, 4, 3));
        network.heal();
        assert!(arrives(&sockets, 0, 1) && arrives(&sockets, 2, 3) && arrives(&sockets, 3, 2));
    }

    /// Neither an open connection nor a new one is told of the cut; what was on its way comes after the heal.
    #[test]
    fn a_cut_is_silent() {
        let Ok(network) = Network::make() else { return };
        let listener = network.node(1).inside(|| TcpListener::bind(listens(1)).unwrap());
        let connect = || network.node(0).inside(|| TcpStream::connect_timeout(&listens(1), SHORT));
        let mut near = connect().unwrap();
        let (mut far, _) = listener.accept().unwrap();
        network.cut(&[(0, 1)]);
        assert_eq!(connect().unwrap_err().kind(), ErrorKind::TimedOut);
        near.write_all(b"late").unwrap();
        let mut bytes = [0; 4];
        far.set_read_timeout(Some(SHORT)).unwrap();
        assert_eq!(far.read(&mut bytes).unwrap_err().kind(), ErrorKind::WouldBlock);
        network.heal();
        far.set_read_timeout(Some(crate::cluster::PATIENCE)).unwrap();
        far.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"late");
    }
}
