//! Small runs made by hand, to see that each checker passes what is right and fails what is wrong.
//!
//! One key, three nodes that are all its primaries, N = 3, and reads and writes of two unless said otherwise.
//! Each operation takes a millisecond, one after another.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ringmain::causality::{Actor, Content, Dot, Siblings, Version, VersionVector};
use ringmain::id::NodeId;
use ringmain::time::{Duration, Instant, WallTime};

use super::{Accounts, Copy, Evidence, Opinion, Reaped, Settled};
use crate::dots::{DotLog, Minted, name_of};
use crate::history::{Call, History, Key, Number, Operation, Outcome, Reading, Sent, value};
use crate::plan::Application;

pub(super) const KEY: Key = Key(0);

/// An actor's number, and a counter: a dot, or an entry of a vector.
pub(super) type Entry = (u64, u64);

pub(super) fn dot(actor: u64, counter: u64) -> Dot {
    Dot { actor: Actor { id: actor, epoch: 0 }, counter }
}

pub(super) fn vector(entries: &[Entry]) -> VersionVector {
    let entries = entries.iter().map(|&(id, counter)| (Actor { id, epoch: 0 }, counter));
    VersionVector::try_from_sorted(entries).unwrap()
}

/// All that an [`Evidence`] borrows.
pub(super) struct Sample {
    pub(super) history: History,
    pub(super) dots: DotLog,
    pub(super) primaries: BTreeMap<Key, Vec<usize>>,
    pub(super) copies: Vec<Copy>,
    pub(super) opinions: Vec<Opinion>,
    pub(super) members: Vec<NodeId>,
    pub(super) removed: Vec<NodeId>,
    pub(super) intruder: Option<u32>,
    pub(super) destroyed: BTreeMap<Number, u8>,
    pub(super) doubled: Vec<(Instant, Instant)>,
    pub(super) copied: Vec<(Instant, Instant)>,
    pub(super) roots: BTreeMap<(Key, usize), [u64; 2]>,
    pub(super) accounts: Accounts,
    pub(super) settled: Vec<Settled>,
    pub(super) reaped: Vec<Reaped>,
    pub(super) evicted: BTreeMap<Key, Instant>,
    pub(super) beside_evicted: BTreeSet<Key>,
    pub(super) declined: BTreeSet<Instant>,
    pub(super) epochs: BTreeMap<Key, Vec<(usize, u64)>>,
    pub(super) applications: Vec<Application>,
    pub(super) converges: bool,
    pub(super) moved: u64,
    pub(super) strays: Vec<(usize, Key)>,
    pub(super) steady_clocks: bool,
}

impl Sample {
    pub(super) fn new() -> Self {
        let members: Vec<NodeId> = (1..=3).map(NodeId).collect();
        let opinion = |node| Opinion {
            node,
            members: members.clone(),
            in_ring: members.clone(),
            ring: 7,
            change: None,
        };
        let opinions = (0..3).map(opinion).collect();
        Self {
            history: History::default(),
            dots: DotLog::default(),
            primaries: BTreeMap::from([(KEY, vec![0, 1, 2])]),
            copies: Vec::new(),
            opinions,
            members,
            removed: Vec::new(),
            intruder: None,
            destroyed: BTreeMap::new(),
            doubled: Vec::new(),
            copied: Vec::new(),
            roots: BTreeMap::new(),
            accounts: Accounts::new(),
            settled: Vec::new(),
            reaped: Vec::new(),
            evicted: BTreeMap::new(),
            beside_evicted: BTreeSet::new(),
            declined: BTreeSet::new(),
            epochs: BTreeMap::new(),
            applications: Vec::new(),
            converges: true,
            moved: 0,
            strays: Vec::new(),
            steady_clocks: true,
        }
    }

    pub(super) fn evidence(&self) -> Evidence<'_> {
        Evidence {
            history: &self.history,
            dots: &self.dots,
            primaries: &self.primaries,
            copies: &self.copies,
            opinions: &self.opinions,
            members: &self.members,
            removed: &self.removed,
            intruder: self.intruder,
            destroyed: &self.destroyed,
            lost: &self.destroyed,
            doubled: &self.doubled,
            copied: &self.copied,
            roots: &self.roots,
            accounts: &self.accounts,
            settled: &self.settled,
            reaped: &self.reaped,
            evicted: &self.evicted,
            beside_evicted: &self.beside_evicted,
            declined: &self.declined,
            epochs: &self.epochs,
            applications: &self.applications,
            replicas: 3,
            converges: self.converges,
            moved: self.moved,
            strays: &self.strays,
            steady_clocks: self.steady_clocks,
        }
    }

    /// The next operation begins here.
    pub(super) fn now(&self) -> Instant {
        Instant(2_000_000 * u64::from(self.history.next().0))
    }

    pub(super) fn operation(&mut self, call: Call, outcome: Outcome) -> Number {
        let invoked = self.now();
        self.history.invoke(Operation {
            client: 1,
            key: KEY,
            invoked,
            returned: Some(invoked + Duration::from_millis(1)),
            call,
            outcome,
            fallbacks: 0,
            zones: 0,
            at_least: VersionVector::new(),
            receipt: None,
            attempts: 1,
            setback: None,
            after_faults: false,
        })
    }

    /// A put that was called, and never minted.
    pub(super) fn put(&mut self, sent: &[Entry], outcome: Outcome) -> Number {
        let value = value(self.history.next(), KEY, b"milk");
        let sent = Sent::Context(vector(sent));
        self.operation(Call::Put { value, sent, write: 2, time_to_live: None }, outcome)
    }

    /// A put that was acknowledged.
    pub(super) fn stored(&mut self, sent: &[Entry], minted: Entry) -> Number {
        let number = self.put(sent, Outcome::Stored);
        self.mint(number, minted, sent);
        number
    }

    /// A put of which nobody knows whether it was applied. It was.
    pub(super) fn unknown(&mut self, sent: &[Entry], minted: Entry) -> Number {
        let number = self.put(sent, Outcome::Unknown);
        self.mint(number, minted, sent);
        number
    }

    /// A put that was acknowledged, of a value that expires.
    pub(super) fn expiring(&mut self, sent: &[Entry], minted: Entry) -> Number {
        let number = self.stored(sent, minted);
        if let Call::Put { time_to_live, .. } = &mut self.history.get_mut(number).call {
            *time_to_live = Some(Duration::from_secs(1));
        }
        number
    }

    /// A delete that was acknowledged.
    pub(super) fn deleted(&mut self, sent: &[Entry], minted: Entry) -> Number {
        let call = Call::Delete { sent: Sent::Context(vector(sent)), write: 2 };
        let number = self.operation(call, Outcome::Stored);
        self.mint(number, minted, sent);
        number
    }

    /// It was applied, under one dot more.
    pub(super) fn mint(&mut self, operation: Number, (actor, counter): Entry, covered: &[Entry]) {
        let tombstone = matches!(self.history.get(operation).call, Call::Delete { .. });
        let at = self.history.get(operation).invoked;
        let minted = Minted { covered: vector(covered), operation, tombstone, node: actor as usize % 3, at };
        self.dots.mint(KEY, dot(actor, counter), minted).unwrap();
    }

    /// The value of a put.
    pub(super) fn value_of(&self, number: Number) -> Vec<u8> {
        match &self.history.get(number).call {
            Call::Put { value, .. } => value.clone(),
            call => panic!("{call:?} has no value"),
        }
    }

    /// A read that was answered with these values and this context.
    pub(super) fn got(&mut self, values: &[Number], context: &[Entry]) -> Number {
        let values = values.iter().map(|&number| self.value_of(number)).collect();
        let reading = Reading { values, context: Some(vector(context)), nodes: 2 };
        self.operation(Call::Get { read: 2, latest: false }, Outcome::Got(reading))
    }

    /// The answer of a read, to be changed.
    pub(super) fn reading(&mut self, number: Number) -> &mut Reading {
        match &mut self.history.get_mut(number).outcome {
            Outcome::Got(reading) => reading,
            outcome => panic!("{outcome:?} is no reading"),
        }
    }

    /// A put that was acknowledged, with a payload that means something to its application.
    pub(super) fn put_payload(&mut self, payload: &[u8]) {
        let value = value(self.history.next(), KEY, payload);
        let sent = Sent::Context(VersionVector::new());
        self.operation(Call::Put { value, sent, write: 2, time_to_live: None }, Outcome::Stored);
    }

    /// A read of all replicas when all was quiet, answered with one value of this payload.
    pub(super) fn read_at_rest(&mut self, payload: &[u8]) {
        let values = vec![value(Number(0), KEY, payload)];
        let reading = Reading { values, context: Some(VersionVector::new()), nodes: 3 };
        let number = self.operation(Call::Get { read: 3, latest: false }, Outcome::Got(reading));
        self.history.get_mut(number).after_faults = true;
    }

    /// At rest, a node has seen all this, and these versions stand; each as its operation wrote it.
    pub(super) fn copy(&mut self, node: usize, clock: &[Entry], stands: &[Entry]) {
        let versions: Vec<Version<Bytes>> = stands.iter().map(|&entry| self.version(entry)).collect();
        let clock = vector(clock);
        let state = Siblings::from_parts(clock.iter(), versions).unwrap();
        self.copies.push(Copy { node, key: KEY, state });
    }

    /// At rest, all primaries are like this.
    pub(super) fn at_rest(&mut self, clock: &[Entry], stands: &[Entry]) {
        (0..3).for_each(|node| self.copy(node, clock, stands));
    }

    /// What was seen of the key is forgotten from here on, these tombstones with it.
    pub(super) fn reap(&mut self, seen: &[Entry], stood: &[Entry]) {
        let stood = stood.iter().map(|&(actor, counter)| dot(actor, counter)).collect();
        self.reaped.push(Reaped { key: KEY, at: self.now(), gone: vector(seen), kept: vector(&[]), stood });
    }

    /// Actors without a version are forgotten from here on.
    pub(super) fn prune(&mut self, gone: &[Entry], kept: &[Entry]) {
        let (gone, kept) = (vector(gone), vector(kept));
        self.reaped.push(Reaped { key: KEY, at: self.now(), gone, kept, stood: Vec::new() });
    }

    /// At rest, what stood has expired everywhere.
    pub(super) fn expire(&mut self) {
        self.copies.iter_mut().for_each(|copy| {
            copy.state.expire(WallTime(u64::MAX));
        });
    }

    fn version(&self, (actor, counter): Entry) -> Version<Bytes> {
        let dot = dot(actor, counter);
        let number = self.dots.get(KEY, dot).unwrap().operation;
        let (content, expires) = match &self.history.get(number).call {
            Call::Put { value, time_to_live, .. } => {
                (Content::Value(Bytes::copy_from_slice(value)), time_to_live.is_some())
            }
            _ => (Content::Tombstone, false),
        };
        let expiry = expires.then_some(WallTime(9));
        Version { dot, content, expiry, operation: name_of(1, number), timestamp: WallTime(1) }
    }
}
