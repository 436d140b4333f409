//! The device: sectors, a cache before them, and faults.

use std::sync::Arc;

use ringmain::prng::Prng;

use super::unsynced::Unsynced;
use super::{DiskError, DiskFaults, Injected, SECTOR_BYTES};

/// A simulated disk. Sectors never written read as zeros and take no memory.
#[derive(Clone, Debug)]
pub struct Disk {
    /// All that was written, unsynced writes included; whole sectors, at most `capacity`.
    sectors: Vec<u8>,
    unsynced: Unsynced,
    /// In bytes, whole sectors.
    capacity: usize,
    faults: DiskFaults,
    prng: Prng,
    injected: Vec<Injected>,
}

/// What a disk had synced at some time. A clone is as cheap as a pointer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskImage {
    sectors: Arc<[u8]>,
}

impl Disk {
    /// An empty disk of `capacity` bytes, rounded down to whole sectors. Its faults are drawn from `prng`; one
    /// whose rate is 0 draws nothing.
    pub fn new(capacity: usize, faults: DiskFaults, prng: Prng) -> Self {
        let capacity = capacity / SECTOR_BYTES * SECTOR_BYTES;
        let (sectors, injected) = (Vec::new(), Vec::new());
        Self { sectors, unsynced: Unsynced::default(), capacity, faults, prng, injected }
    }

    /// Take a write of any alignment into the cache, to be seen by reads at once, and by those after a crash
    /// for certain once a sync has succeeded.
    ///
    /// # Errors
    ///
    /// [`DiskError::Full`] if it would end beyond the capacity, or by a fault. Nothing was stored.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let Some(mut at) = self.room(offset, bytes.len()) else {
            return Err(DiskError::Full);
        };
        if bytes.is_empty() {
            return Ok(());
        }
        if self.roll(self.faults.full) {
            self.injected.push(Injected::Full);
            return Err(DiskError::Full);
        }
        if self.roll(self.faults.misdirected_write) {
            at = self.misdirect(at, bytes.len());
        }
        self.store(at, bytes);
        if self.roll(self.faults.write_corrupt) {
            let offset = flip(&mut self.prng, &mut self.sectors[at..at + bytes.len()], at);
            self.injected.push(Injected::WriteCorrupt { offset });
        }
        Ok(())
    }

    /// Fill `into` with what was last written from `offset` on, synced or not.
    ///
    /// # Panics
    ///
    /// If that reaches beyond the capacity: whoever follows a length from the disk must check it first.
    pub fn read(&mut self, offset: u64, into: &mut [u8]) {
        let at = self.room(offset, into.len()).expect("a read ends within the capacity");
        let stored = self.sectors.get(at..).unwrap_or_default();
        let stored = &stored[..stored.len().min(into.len())];
        into[..stored.len()].copy_from_slice(stored);
        into[stored.len()..].fill(0);
        if !into.is_empty() && self.roll(self.faults.read_corrupt) {
            let offset = flip(&mut self.prng, into, at);
            self.injected.push(Injected::ReadCorrupt { offset });
        }
    }

    /// Make all writes durable.
    ///
    /// # Errors
    ///
    /// [`DiskError::Sync`] by a fault. Reads still see what was unsynced, but no later sync covers it, though it
    /// may succeed (as in Linux, where the failed pages count as clean); a crash leaves any of it.
    pub fn sync(&mut self) -> Result<(), DiskError> {
        if self.roll(self.faults.sync_error) {
            self.unsynced.give_up();
            self.injected.push(Injected::SyncError);
            return Err(DiskError::Sync);
        }
        self.unsynced.synced();
        Ok(())
    }

    /// The power fails. Each sector with unsynced writes is whole, lost or torn, as `torn` of [`DiskFaults`]
    /// and then chance have it; all that is left is durable.
    pub fn crash(&mut self, prng: &mut Prng) {
        self.unsynced.crash(&mut self.sectors, self.faults.torn, prng, &mut self.injected);
    }

    /// Damage what is stored, once: flip a bit, or write over a sector what another one holds, or nothing.
    pub fn damage(&mut self, prng: &mut Prng) {
        let sectors = self.sectors.len() / SECTOR_BYTES;
        if sectors == 0 {
            return;
        }
        let start = |prng: &mut Prng| prng.below(sectors as u64) as usize * SECTOR_BYTES;
        let (from, to) = (start(prng), start(prng));
        match prng.below(3) {
            0 => _ = flip(prng, &mut self.sectors[to..to + SECTOR_BYTES], to),
            1 => self.sectors[to..to + SECTOR_BYTES].fill(0),
            _ => self.sectors.copy_within(from..from + SECTOR_BYTES, to),
        }
    }

    /// A new disk in its place: as large, as faulty, empty.
    pub fn wipe(&mut self) {
        self.sectors.clear();
        self.unsynced.clear();
    }

    /// A copy of what is synced.
    pub fn image(&self) -> DiskImage {
        let mut sectors: Arc<[u8]> = Arc::from(self.sectors.as_slice());
        if !self.unsynced.is_empty() {
            self.unsynced.undo_all(Arc::make_mut(&mut sectors));
        }
        DiskImage { sectors }
    }

    /// Put back what an image holds, synced; what is here now is gone.
    ///
    /// # Panics
    ///
    /// If the image is of a larger disk and doesn't fit.
    pub fn restore(&mut self, image: &DiskImage) {
        assert!(image.sectors.len() <= self.capacity, "an image fits the disk it is restored to");
        self.wipe();
        self.sectors.extend_from_slice(&image.sectors);
    }

    /// All that was written, synced or not, from offset 0 to the last sector in use: a look from outside, which
    /// no fault touches.
    pub fn contents(&self) -> &[u8] {
        &self.sectors
    }

    /// Has every write been covered by a sync that succeeded, or been settled by a crash?
    pub fn is_synced(&self) -> bool {
        self.unsynced.is_empty()
    }

    /// In bytes, whole sectors.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The rates in force.
    pub fn faults(&self) -> DiskFaults {
        self.faults
    }

    /// Other rates from now on.
    pub fn set_faults(&mut self, faults: DiskFaults) {
        self.faults = faults;
    }

    /// The faults that happened since this was last asked, in order.
    pub fn take_injected(&mut self) -> Vec<Injected> {
        std::mem::take(&mut self.injected)
    }

    /// `offset` as an index, if so many bytes from there on lie within the capacity.
    fn room(&self, offset: u64, len: usize) -> Option<usize> {
        let at = usize::try_from(offset).ok()?;
        (at.checked_add(len)? <= self.capacity).then_some(at)
    }

    /// Does a fault of this rate happen now?
    fn roll(&mut self, rate: f64) -> bool {
        rate > 0.0 && self.prng.chance(rate)
    }

    fn store(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        if end > self.sectors.len() {
            self.sectors.resize(end.next_multiple_of(SECTOR_BYTES), 0);
        }
        self.unsynced.note(&self.sectors, at, bytes.len());
        self.sectors[at..end].copy_from_slice(bytes);
    }

    /// Where a write meant for `at` lands: whole sectors away, among those in use or the one after them. A disk
    /// of as many sectors as the write has leaves it no other place.
    fn misdirect(&mut self, at: usize, len: usize) -> usize {
        let (first, within) = (at / SECTOR_BYTES, at % SECTOR_BYTES);
        let span = (within + len).div_ceil(SECTOR_BYTES);
        let in_use = (self.sectors.len() / SECTOR_BYTES).max(first + span);
        let others = (in_use + 1).min(self.capacity / SECTOR_BYTES) - span;
        if others == 0 {
            return at;
        }
        let drawn = self.prng.below(others as u64) as usize;
        let landed = (drawn + usize::from(drawn >= first)) * SECTOR_BYTES + within;
        let (intended, bytes) = (at as u64, len as u64);
        self.injected.push(Injected::MisdirectedWrite { intended, landed: landed as u64, bytes });
        landed
    }
}

impl DiskImage {
    /// From offset 0 to the last sector that was in use.
    pub fn bytes(&self) -> &[u8] {
        &self.sectors
    }
}

/// Flip one bit of `bytes`, which begin at offset `at`; the offset of its byte.
fn flip(prng: &mut Prng, bytes: &mut [u8], at: usize) -> u64 {
    let bit = prng.below(8 * bytes.len() as u64) as usize;
    bytes[bit / 8] ^= 1 << (bit % 8);
    (at + bit / 8) as u64
}
