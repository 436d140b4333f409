//! What applications do with their keys.
//!
//! A value's payload says what it is to its application: the operations whose items a cart holds, the slots of a
//! counter, or nothing but itself. Readers merge siblings as their application would, and write the result with the
//! context that they read.

use std::collections::{BTreeMap, BTreeSet};

use ringmain::time::Duration;

use super::{Client, Read};
use crate::history::{Key, Number, Reading, read_value};
use crate::plan::Application;

/// Bytes of the largest value.
const LARGE: u64 = 32 << 10;

/// What a client means to do next.
#[derive(Clone, Debug)]
pub enum Intent {
    /// Read.
    Get {
        /// What.
        key: Key,
        /// R; 0 for the cluster's own.
        read: u8,
        /// Only the latest of several versions.
        latest: bool,
        /// Include what the last context for this key had seen.
        at_least: bool,
        /// Write what follows from it.
        then_write: bool,
    },
    /// Write a value, or delete.
    Write {
        /// What.
        key: Key,
        /// The value's payload; `None` deletes.
        payload: Option<Vec<u8>>,
        /// What it replaces.
        replaced: Replaced,
        /// W; 0 for the cluster's own.
        write: u8,
        /// When it expires.
        time_to_live: Option<Duration>,
        /// Its copies must be in so many zones; 0 if anywhere.
        zones: u8,
    },
}

/// What a write replaces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Replaced {
    /// What was read a moment ago.
    Read,
    /// What was read at some time before.
    ReadLongAgo,
    /// Nothing.
    Nothing,
    /// Whatever there is.
    Everything,
}

impl Intent {
    /// Its key.
    pub const fn key(&self) -> Key {
        match self {
            Self::Get { key, .. } | Self::Write { key, .. } => *key,
        }
    }

    /// Does it write?
    pub const fn is_write(&self) -> bool {
        matches!(self, Self::Write { .. })
    }

    /// A read of all replicas.
    pub const fn read_all(key: Key, replicas: u8, then_write: bool) -> Self {
        Self::Get { key, read: replicas, latest: false, at_least: false, then_write }
    }
}

/// One choice in so many is of several things at once.
const BATCHES: f64 = 0.05;
/// So many more than the first two are considered for it.
const BATCH_MAX: u64 = 7;

impl Client {
    /// What to do next: mostly one thing, and now and then a few of a kind at once.
    pub(super) fn choose(&mut self) -> Vec<Intent> {
        let first = self.choose_one();
        if !self.prng.chance(BATCHES) {
            return vec![first];
        }
        let mut batch = vec![first];
        for _ in 0..=self.prng.below(BATCH_MAX) {
            let next = self.choose_one();
            // An application that writes what follows from a read does so once a key.
            let follows = |one: &Intent| matches!(one, Intent::Get { then_write: true, .. });
            let is_second = follows(&next) && batch.iter().any(|one| follows(one) && one.key() == next.key());
            if next.is_write() == batch[0].is_write() && !is_second {
                batch.push(next);
            }
        }
        batch
    }

    /// What to do with some key.
    fn choose_one(&mut self) -> Intent {
        let key = Key(self.prng.below(self.keys.len() as u64 - 1) as u8);
        // Of ten rounds so many: read and then write, blind puts, overwrites; the rest only reads.
        let [then_write, blind, overwrite] = match self.keys[usize::from(key.0)] {
            Application::Register => [6, 0, 0],
            Application::Cart | Application::Counter => [8, 0, 0],
            Application::Blind => [2, 5, 0],
            Application::Neglected => [0, 7, 0],
            Application::Deletes => [6, 1, 1],
            Application::Overwrites => [1, 1, 6],
        };
        let drawn = self.prng.below(10);
        if drawn < then_write {
            return self.get(key, true);
        }
        if drawn < then_write + blind {
            let replaced = if self.prng.chance(0.2) { Replaced::ReadLongAgo } else { Replaced::Nothing };
            return self.write(key, Some(Vec::new()), replaced);
        }
        if drawn < then_write + blind + overwrite {
            let payload = (!self.prng.chance(0.1)).then(Vec::new);
            return self.write(key, payload, Replaced::Everything);
        }
        self.get(key, false)
    }

    fn get(&mut self, key: Key, then_write: bool) -> Intent {
        let read =
            if self.prng.chance(0.1) { 1 + self.prng.below(u64::from(self.quorums[2])) as u8 } else { 0 };
        let (latest, at_least) = (!then_write && self.prng.chance(0.2), self.prng.chance(0.1));
        Intent::Get { key, read, latest, at_least, then_write }
    }

    fn write(&mut self, key: Key, payload: Option<Vec<u8>>, replaced: Replaced) -> Intent {
        // A stricter W than the cluster's own, now and then.
        let [_, own, replicas] = self.quorums;
        let stricter = own < replicas && self.prng.chance(0.05);
        let write = if stricter { own + 1 } else { 0 };
        let keeps = matches!(self.keys[usize::from(key.0)], Application::Cart | Application::Counter);
        let expires = self.time_to_live && !keeps && payload.is_some() && self.prng.chance(0.2);
        let time_to_live = expires.then(|| Duration::from_millis(1_000 + self.prng.below(30_000)));
        // Now and then in one more than there are.
        let asks = self.racks > 0 && self.prng.chance(0.2);
        let zones = if asks { 1 + self.prng.below(u64::from(self.racks) + 1) as u8 } else { 0 };
        Intent::Write { key, payload, replaced, write, time_to_live, zones }
    }

    /// What follows from a read: the application's merge of all that was read, and one thing more.
    pub(super) fn follow(&mut self, read: &Read, number: Number) -> Intent {
        let key = read.key;
        let payload = match self.keys[usize::from(key.0)] {
            Application::Cart => {
                let mut items = items_of(&read.reading);
                items.insert(number);
                Some(items.into_iter().flat_map(|item| item.0.to_le_bytes()).collect())
            }
            Application::Counter => Some(self.count(key, &read.reading)),
            Application::Deletes if self.prng.chance(0.4) && read.reading.context.is_some() => None,
            _ => Some(self.padding()),
        };
        self.write(key, payload, Replaced::Read)
    }

    /// Some bytes, so that values differ in length.
    fn padding(&mut self) -> Vec<u8> {
        let is_large = self.large_values && self.prng.chance(0.2);
        let most = if is_large { LARGE } else { 100 };
        vec![b'x'; self.prng.below(most) as usize]
    }

    /// All slots as they were read, and one more in its own.
    fn count(&mut self, key: Key, reading: &Reading) -> Vec<u8> {
        let mut slots = slots_of(reading);
        let mine = slots.entry(self.number).or_default();
        let last = self.slots.entry(key).or_default();
        *mine = (*mine).max(*last) + 1;
        *last = *mine;
        slots
            .into_iter()
            .flat_map(|(client, count)| [client.to_le_bytes(), count.to_le_bytes()].concat())
            .collect()
    }
}

/// The items of a cart, over all siblings: the operations that put them there.
pub fn items_of(reading: &Reading) -> BTreeSet<Number> {
    let payloads = reading.values.iter().filter_map(|value| read_value(value)).map(|(_, _, payload)| payload);
    payloads.flat_map(numbers).map(Number).collect()
}

/// The slots of a counter, over all siblings: the greatest count of each client.
pub fn slots_of(reading: &Reading) -> BTreeMap<u32, u32> {
    let mut slots = BTreeMap::new();
    for (_, _, payload) in reading.values.iter().filter_map(|value| read_value(value)) {
        for [client, count] in numbers(payload).as_chunks::<2>().0 {
            let slot: &mut u32 = slots.entry(*client).or_default();
            *slot = (*slot).max(*count);
        }
    }
    slots
}

fn numbers(payload: &[u8]) -> Vec<u32> {
    payload.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect()
}
