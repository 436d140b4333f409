//! How news spreads: so many real membership machines, each of which exchanges all it knows with one random other
//! a round, and what that puts on the wire.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ringmain::id::NodeId;
use ringmain::membership::{Founder, Founders, Membership, MembershipOptions, Place, cluster_id};
use ringmain::prng::Prng;
use ringmain::ring::Partitions;
use ringmain_schema::peer::Gossip;
use ringmain_schema::{Encoder, Kind};

pub(crate) struct Figures {
    pub(crate) nodes: usize,
    /// Exchanges that each node began before everybody had the news: one for each run.
    pub(crate) rounds: Vec<u32>,
    /// Of one frame with all records.
    pub(crate) frame_bytes: usize,
    /// What one exchange takes of a core, of both sides together, without the wire.
    pub(crate) exchange: Duration,
}

/// Spread news `runs` times, each time from another node.
pub(crate) fn spread(nodes: usize, runs: usize) -> Figures {
    let mut prng = Prng::from_seed(1);
    let mut members = acquainted(nodes);
    let (mut rounds, mut exchanges, begun) = (Vec::new(), 0, Instant::now());
    for _ in 0..runs {
        let source = prng.below(nodes as u64) as usize;
        let news = (members[source].me(), members[source].oneself().heartbeat + 1);
        let mut taken = 0;
        // All of them say something new in each round; it is this one's that is followed.
        while !members.iter().all(|member| heartbeat(&member.gossip(), news.0) >= news.1) {
            members.iter_mut().for_each(Membership::beat);
            for one in 0..nodes {
                let other = (one + 1 + prng.below(nodes as u64 - 1) as usize) % nodes;
                let [one, other] = members.get_disjoint_mut([one, other]).expect("two of them");
                exchange(one, other);
                exchanges += 1;
            }
            taken += 1;
        }
        rounds.push(taken);
    }
    let mut frame = Vec::new();
    members[0].gossip().encode(&mut Encoder::default(), Kind::GOSSIP, 1, &mut frame);
    Figures { nodes, rounds, frame_bytes: frame.len(), exchange: begun.elapsed() / exchanges }
}

impl Figures {
    pub(crate) fn rounds_max(&self) -> u32 {
        self.rounds.iter().copied().max().expect("there was a run")
    }

    /// Each second a node tells one and is answered, and is told by one, on average, and answers.
    pub(crate) fn bytes_per_second(&self) -> usize {
        2 * self.frame_bytes
    }

    pub(crate) fn bytes_per_record(&self) -> usize {
        self.frame_bytes / self.nodes
    }
}

fn exchange(one: &mut Membership, other: &mut Membership) {
    other.on_gossip(one.me(), &one.gossip());
    one.on_gossip(other.me(), &other.gossip());
}

fn heartbeat(gossip: &Gossip, node: NodeId) -> u64 {
    let place = gossip.members.binary_search_by_key(&node.0, |member| member.node);
    place.map_or(0, |place| gossip.members[place].heartbeat)
}

/// A member and its guests, all of whom know each other.
fn acquainted(nodes: usize) -> Vec<Membership> {
    let mut members: Vec<Membership> = (0..nodes).map(machine).collect();
    let (first, others) = members.split_first_mut().expect("at least one");
    for _ in 0..2 {
        others.iter_mut().for_each(|other| exchange(other, first));
    }
    let all = first.gossip();
    for other in others.iter_mut() {
        other.on_gossip(first.me(), &all);
    }
    assert!(members.iter().all(|member| member.gossip().members.len() == nodes && member.oneself().serving));
    members
}

fn machine(place: usize) -> Membership {
    let name: Arc<str> = format!("node-{place:04}").into();
    let host: Arc<str> = format!("10.0.{}.{}", place / 256, place % 256).into();
    let first = Founder { name: "node-0000".into(), host: "10.0.0.0".into(), port: 7400 };
    let founders = if place == 0 { vec![first] } else { Vec::new() };
    let here = Place {
        host,
        ordinary_port: 7400,
        shard_ports: [7401, 7402, 7403, 7404].into(),
        weight: 100,
        data_center: "eu-1".into(),
        rack: "r1".into(),
    };
    let options = MembershipOptions { partitions: Partitions::default(), replicas: 3 };
    let cluster = cluster_id("bench", ["node-0000"].into_iter());
    let founders = Founders::new(founders, &name).unwrap_or_default();
    Membership::new(cluster, &name, here, &founders, place > 0, options)
}
