//! What the simulator does inside the core, and what it hears from there.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;
use ringmain::causality::{Dot, Siblings, VersionVector};
use ringmain::failpoint::{Bug, Choice, Failpoints, Minted, Rare};
use ringmain::id::OperationId;
use ringmain::prng::Prng;
use ringmain::time::WallTime;

/// The failpoints of all shards of one run.
#[derive(Clone, Debug)]
pub struct Meddler(Rc<Inside>);

#[derive(Debug)]
struct Inside {
    planted: Option<Bug>,
    read_repair: bool,
    rare_choices: Cell<bool>,
    /// How often a key is put out early.
    evicts: Cell<f64>,
    prng: RefCell<Prng>,
    reached: RefCell<[u32; Rare::ALL.len()]>,
    minted: RefCell<Vec<Mint>>,
    given_up: RefCell<Vec<(Vec<u8>, VersionVector)>>,
    reaped: RefCell<Vec<(Vec<u8>, Siblings<Bytes>)>>,
    pruned: RefCell<Vec<(Vec<u8>, Siblings<Bytes>)>>,
    wiped: RefCell<Vec<(Vec<u8>, VersionVector)>>,
    evicted: RefCell<Vec<(Vec<u8>, bool)>>,
    declined: Cell<bool>,
    /// Of the node that is at work.
    wall: Cell<WallTime>,
}

/// A dot that was minted, as the core told it.
#[derive(Debug)]
pub struct Mint {
    /// Of this key.
    pub key: Vec<u8>,
    /// Its name.
    pub dot: Dot,
    /// What it replaced.
    pub covered: VersionVector,
    /// Its value; none if it is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its operation, if that has a name.
    pub operation: OperationId,
}

/// A rare choice is made so often, where it is on.
const RARELY: f64 = 0.25;
const YEAR_SECONDS: u64 = 365 * 24 * 3600;

impl Meddler {
    /// For one run.
    pub fn new(planted: Option<Bug>, read_repair: bool, rare_choices: bool, prng: Prng) -> Self {
        Self(Rc::new(Inside {
            planted,
            read_repair,
            rare_choices: Cell::new(rare_choices),
            evicts: Cell::new(0.0),
            prng: RefCell::new(prng),
            reached: RefCell::new([0; Rare::ALL.len()]),
            minted: RefCell::default(),
            given_up: RefCell::default(),
            reaped: RefCell::default(),
            pruned: RefCell::default(),
            wiped: RefCell::default(),
            evicted: RefCell::default(),
            declined: Cell::default(),
            wall: Cell::default(),
        }))
    }

    /// A key is put out so often although there is room.
    #[must_use]
    pub fn that_evicts(self, often: f64) -> Self {
        self.0.evicts.set(often);
        self
    }

    /// A node is at work, and its clock says this.
    pub fn set_wall(&self, wall: WallTime) {
        self.0.wall.set(wall);
    }

    /// The faults are over: nothing rare is forced any more.
    pub fn calm(&self) {
        self.0.rare_choices.set(false);
        self.0.evicts.set(0.0);
    }

    /// Dots minted since the last call.
    pub fn take_minted(&self) -> Vec<Mint> {
        std::mem::take(&mut *self.0.minted.borrow_mut())
    }

    /// Copies that former owners gave up since the last call: the keys, and what had been seen of them.
    pub fn take_given_up(&self) -> Vec<(Vec<u8>, VersionVector)> {
        std::mem::take(&mut *self.0.given_up.borrow_mut())
    }

    /// Keys forgotten since the last call, with all that was known of each.
    pub fn take_reaped(&self) -> Vec<(Vec<u8>, Siblings<Bytes>)> {
        std::mem::take(&mut *self.0.reaped.borrow_mut())
    }

    /// The same of keys of which only actors without a version were forgotten.
    pub fn take_pruned(&self) -> Vec<(Vec<u8>, Siblings<Bytes>)> {
        std::mem::take(&mut *self.0.pruned.borrow_mut())
    }

    /// Copies of an older epoch that were wiped since the last call, with what had been seen of each key.
    pub fn take_wiped(&self) -> Vec<(Vec<u8>, VersionVector)> {
        std::mem::take(&mut *self.0.wiped.borrow_mut())
    }

    /// Keys that were put out since the last call, and whether a delete's tombstone stood.
    pub fn take_evicted(&self) -> Vec<(Vec<u8>, bool)> {
        std::mem::take(&mut *self.0.evicted.borrow_mut())
    }

    /// Was there no room for something, since the last call?
    pub fn take_declined(&self) -> bool {
        self.0.declined.take()
    }

    /// How often each rare state was reached, in the order of [`Rare::ALL`].
    pub fn reached(&self) -> [u32; Rare::ALL.len()] {
        *self.0.reached.borrow()
    }

    fn wall_seconds(&self) -> u64 {
        self.0.wall.get().0 / 1_000_000
    }
}

impl Failpoints for Meddler {
    fn planted(&self, bug: Bug) -> bool {
        // A run without read repair is one where stale replicas are found and left alone.
        self.0.planted == Some(bug) || (bug == Bug::NobodyRepaired && !self.0.read_repair)
    }

    fn rare(&self, choice: Choice) -> bool {
        if choice == Choice::EvictEarly {
            return self.0.prng.borrow_mut().chance(self.0.evicts.get());
        }
        self.0.rare_choices.get() && self.0.prng.borrow_mut().chance(RARELY)
    }

    fn reached(&self, state: Rare) {
        self.0.reached.borrow_mut()[state as usize] += 1;
    }

    fn minted(&self, minted: &Minted<'_>) {
        self.0.minted.borrow_mut().push(Mint {
            key: minted.key.to_vec(),
            dot: minted.dot,
            covered: minted.covered.clone(),
            value: minted.value.map(<[u8]>::to_vec),
            operation: minted.operation,
        });
    }

    fn evicted(&self, key: &[u8], state: &Siblings<Bytes>) {
        self.0.evicted.borrow_mut().push((key.to_vec(), state.is_deleted()));
    }

    fn declined(&self) {
        self.0.declined.set(true);
    }

    fn gave_up(&self, key: &[u8], state: &Siblings<Bytes>) {
        self.0.given_up.borrow_mut().push((key.to_vec(), state.context()));
    }

    fn reaped(&self, key: &[u8], state: &Siblings<Bytes>) {
        self.0.reaped.borrow_mut().push((key.to_vec(), state.clone()));
    }

    fn pruned(&self, key: &[u8], state: &Siblings<Bytes>) {
        self.0.pruned.borrow_mut().push((key.to_vec(), state.clone()));
    }

    fn wiped(&self, key: &[u8], state: &Siblings<Bytes>) {
        self.0.wiped.borrow_mut().push((key.to_vec(), state.context()));
    }

    fn generation(&self, counted: u64) -> u64 {
        if self.planted(Bug::GenerationByClock) { self.wall_seconds() } else { counted }
    }

    fn accepts_generation(&self, incarnation: u64) -> bool {
        !self.planted(Bug::GenerationByClock) || incarnation <= self.wall_seconds() + YEAR_SECONDS
    }
}
