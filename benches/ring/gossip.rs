//! How news spreads: so many real membership machines, each of which exchanges all it knows with one random other
//! a round, and what that puts on the wire.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ringmain::membership::{Founder, Founders, Membership, MembershipOptions, Place, Word, cluster_id};
use ringmain::prng::Prng;
use ringmain::ring::Partitions;
use ringmain_schema::{Encoder, Kind};

pub(crate) struct Figures {
    pub(crate) nodes: usize,
    /// Exchanges that each node began before everybody had the news: one for each run.
    pub(crate) rounds: Vec<u32>,
    /// Of one frame with all records, which a node of the first release is told each time.
    pub(crate) frame_bytes: usize,
    /// What a node sends in a round, on average, when nobody has news; as much arrives.
    pub(crate) resting_bytes: usize,
    /// The same in the busiest round of the news' way.
    pub(crate) spreading_bytes: usize,
    /// What one exchange takes of a core, of both sides together, without the wire.
    pub(crate) exchange: Duration,
}

/// Spread an operator's word `runs` times, each time from another node.
pub(crate) fn spread(nodes: usize, runs: usize) -> Figures {
    let mut prng = Prng::from_seed(1);
    let mut members = acquainted(nodes);
    let (mut rounds, mut exchanges, begun) = (Vec::new(), 0, Instant::now());
    let resting_bytes = round(&mut members, &mut prng) / nodes;
    let mut spreading_bytes = 0;
    for run in 0..runs {
        let source = prng.below(nodes as u64) as usize;
        let word = Word::Weight { name: "node-0000".to_owned(), weight: 101 + run as u32 };
        let said = members[source].change(&word).expect("there is such a member");
        let (node, version) = (said.changed[0].node, said.changed[0].intent_version);
        let has_heard = |member: &Membership| {
            member.view().member(node).is_some_and(|known| known.intent_version >= version)
        };
        let mut taken = 0;
        while !members.iter().all(has_heard) {
            spreading_bytes = spreading_bytes.max(round(&mut members, &mut prng) / nodes);
            exchanges += nodes as u32;
            taken += 1;
        }
        rounds.push(taken);
    }
    let mut frame = Vec::new();
    members[0].gossip().encode(&mut Encoder::default(), Kind::GOSSIP, 1, &mut frame);
    let exchange = begun.elapsed() / exchanges;
    Figures { nodes, rounds, frame_bytes: frame.len(), resting_bytes, spreading_bytes, exchange }
}

/// Each node gossips with one random other: how many bytes all of them send.
fn round(members: &mut [Membership], prng: &mut Prng) -> usize {
    let nodes = members.len();
    members.iter_mut().for_each(Membership::beat);
    let mut bytes = 0;
    for one in 0..nodes {
        let other = (one + 1 + prng.below(nodes as u64 - 1) as usize) % nodes;
        let [one, other] = members.get_disjoint_mut([one, other]).expect("two of them");
        bytes += exchange(one, other);
    }
    bytes
}

impl Figures {
    pub(crate) fn rounds_max(&self) -> u32 {
        self.rounds.iter().copied().max().expect("there was a run")
    }

    pub(crate) fn bytes_per_record(&self) -> usize {
        self.frame_bytes / self.nodes
    }
}

/// As shards do it, frame by frame: how many bytes it takes.
fn exchange(one: &mut Membership, other: &mut Membership) -> usize {
    let mut bytes = Vec::new();
    let mut told = Some(one.greeting());
    while let Some(gossip) = told {
        gossip.encode(&mut Encoder::default(), Kind::GOSSIP, 1, &mut bytes);
        other.on_gossip(one.me(), &gossip);
        let answer = other.answer(&gossip);
        answer.encode(&mut Encoder::default(), Kind::GOSSIPED, 1, &mut bytes);
        one.on_gossip(other.me(), &answer);
        told = one.follow_up(&answer);
    }
    bytes.len()
}

/// A member and its guests, all of whom know each other.
fn acquainted(nodes: usize) -> Vec<Membership> {
    let mut members: Vec<Membership> = (0..nodes).map(machine).collect();
    let (first, others) = members.split_first_mut().expect("at least one");
    for _ in 0..2 {
        others.iter_mut().for_each(|other| _ = exchange(other, first));
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
