//! All checkers together: a run of honest replicas breaks no promise, and of several the one that says most
//! is told.

use ringmain::causality::{Actor, Content, Siblings, VersionVector};
use ringmain::prng::Prng;
use ringmain::time::{Duration, WallTime};

use bytes::Bytes;

use super::sample::{KEY, Sample};
use super::*;
use crate::dots::{Minted, name_of};
use crate::history::{Call, Operation, Outcome, Reading, Sent, value};

/// Three replicas of a key that never fail, but that hear of writes late: R = W = 2.
struct Honest {
    sample: Sample,
    prng: Prng,
    replicas: [Siblings<Bytes>; 3],
    contexts: Vec<VersionVector>,
}

impl Honest {
    fn new(seed: u64) -> Self {
        let replicas = std::array::from_fn(|_| Siblings::new());
        let contexts = vec![VersionVector::new()];
        // What expires here does so by nobody's clock.
        let sample = Sample { steady_clocks: false, ..Sample::new() };
        Self { sample, prng: Prng::from_seed(seed), replicas, contexts }
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.prng.next_u64() % bound as u64) as usize
    }

    fn call(&mut self, call: Call, outcome: Outcome) -> Number {
        self.sample.operation(call, outcome)
    }

    fn get(&mut self) {
        let (left, right) = (self.below(3), self.below(2) + 1);
        let mut merged = self.replicas[left].clone();
        merged.merge(&self.replicas[(left + right) % 3]);
        let values = merged.values().filter_map(|version| match &version.content {
            Content::Value(value) => Some(value.to_vec()),
            Content::Cold { .. } | Content::Tombstone | Content::Expired => None,
        });
        let reading = Reading { values: values.collect(), context: Some(merged.context()), nodes: 2 };
        self.contexts.push(merged.context());
        self.call(Call::Get { read: 2, latest: false }, Outcome::Got(reading));
    }

    /// Applied at one or two coordinators, told to another, and acknowledged; or applied, and nothing more.
    fn write(&mut self) {
        let old = self.contexts.len().saturating_sub(5);
        let at = old + self.below(self.contexts.len() - old);
        let sent = self.contexts[at].clone();
        let payload = value(self.sample.history.next(), KEY, b"milk");
        let expires = self.below(10) == 0;
        let call = match self.below(6) {
            0 => Call::Delete { sent: Sent::Context(sent.clone()), write: 2 },
            _ => Call::Put {
                value: payload.clone(),
                sent: Sent::Context(sent.clone()),
                write: 2,
                time_to_live: expires.then_some(Duration::from_secs(1)),
            },
        };
        let content = match &call {
            Call::Delete { .. } => Content::Tombstone,
            _ => Content::Value(Bytes::from(payload)),
        };
        let expiry = (expires && content != Content::Tombstone).then_some(WallTime(9));
        let is_acknowledged = self.below(4) > 0;
        let outcome = if is_acknowledged { Outcome::Stored } else { Outcome::Unknown };
        let number = self.call(call, outcome);
        let coordinator = self.below(3);
        self.mint(coordinator, number, &sent, content.clone(), expiry);
        if self.below(8) == 0 {
            self.mint((coordinator + 2) % 3, number, &sent, content, expiry);
        }
        if is_acknowledged {
            self.tell(coordinator, (coordinator + 1) % 3);
        }
    }

    fn mint(
        &mut self,
        node: usize,
        operation: Number,
        covered: &VersionVector,
        content: Content<Bytes>,
        expiry: Option<WallTime>,
    ) {
        let tombstone = content == Content::Tombstone;
        let actor = Actor { id: node as u64, epoch: 1 };
        let name = name_of(1, operation);
        let dot =
            self.replicas[node].put(actor, covered, content, expiry, name, WallTime(u64::from(operation.0)));
        let at = self.sample.history.get(operation).invoked;
        let minted = Minted { covered: covered.clone(), operation, tombstone, node, at };
        self.sample.dots.mint(KEY, dot, minted).unwrap();
    }

    fn tell(&mut self, from: usize, to: usize) {
        let state = self.replicas[from].clone();
        self.replicas[to].merge(&state);
    }

    fn run(mut self, operations: usize) -> Sample {
        for _ in 0..operations {
            match self.below(10) {
                0..4 => self.write(),
                4..8 => self.get(),
                8 => {
                    let (from, to) = (self.below(3), self.below(3));
                    self.tell(from, to);
                }
                _ => {
                    let node = self.below(3);
                    self.replicas[node].expire(WallTime(9));
                }
            }
        }
        [(0, 1), (1, 2), (2, 0), (0, 1)].into_iter().for_each(|(from, to)| self.tell(from, to));
        for (node, state) in self.replicas.into_iter().enumerate() {
            self.sample.copies.push(Copy { node, key: KEY, state });
        }
        self.sample
    }
}

#[test]
fn honest_replicas_break_no_promise() {
    for seed in 0..50 {
        let sample = Honest::new(seed).run(400);
        assert_eq!(check_all(&sample.evidence()), None, "seed {seed}");
    }
}

/// Every copy of an honest run loses one version, and then one primary loses its copy.
#[test]
fn a_dropped_version_and_a_missing_copy_are_noticed() {
    let mut lost = 0;
    for seed in 0..50 {
        let mut sample = Honest::new(seed).run(100);
        for copy in &mut sample.copies {
            let versions = copy.state.versions().iter().skip(1).cloned();
            copy.state = Siblings::from_parts(copy.state.clock().iter().copied(), versions).unwrap();
        }
        lost += u32::from(p01_durability::check(&sample.evidence()).is_err());
        sample.copies.pop();
        assert_eq!(p07_convergence::check(&sample.evidence()).unwrap_err().promise, Promise::Convergence);
    }
    assert!(lost > 20, "{lost}");
}

#[test]
fn the_promise_that_says_most_is_told() {
    let mut sample = Sample::new();
    let milk = sample.stored(&[], (1, 1));
    sample.copy(0, &[(1, 1)], &[]);
    assert_eq!(check_all(&sample.evidence()).unwrap().promise, Promise::Durability);
    let eggs = sample.stored(&[], (2, 1));
    sample.got(&[eggs], &[(1, 1), (2, 1)]);
    assert_eq!(check_all(&sample.evidence()).unwrap().promise, Promise::HonestContext);
    let operation: &mut Operation = sample.history.get_mut(milk);
    operation.outcome = Outcome::Failed(ringmain_schema::message::ErrorCode::Timeout);
    assert_eq!(check_all(&sample.evidence()).unwrap().promise, Promise::HonestOutcome);
}
