//! The volatile cache, seen from its end: the writes that no sync has covered yet, each with what it replaced,
//! so that any of them can be taken back.

use std::collections::{BTreeMap, BTreeSet};

use ringmain::prng::Prng;

use super::{ATOM_BYTES, Injected, SECTOR_BYTES};

/// Of a sector that a failed sync gave up, at a crash, whatever the rate of torn ones: it is nobody's duty any
/// more to write it, so it is as likely to be missing as to be there.
const GIVEN_UP_MISSING: f64 = 0.5;

/// Writes in the order they came, cut at the borders of sectors.
#[derive(Clone, Debug, Default)]
pub(super) struct Unsynced {
    pieces: Vec<Piece>,
    /// What the pieces replaced.
    replaced: Vec<u8>,
    /// So many pieces at the front were given up by a failed sync: `0..=pieces.len()`.
    given_up: usize,
}

/// A write, or the part of it that lies in one sector.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Offset on the disk, in bytes.
    at: usize,
    /// `1..=SECTOR_BYTES`.
    len: usize,
    /// What it replaced begins here in `replaced`.
    old: usize,
}

impl Unsynced {
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.pieces.clear();
        self.replaced.clear();
        self.given_up = 0;
    }

    /// `len` bytes from `at` are about to be replaced.
    pub(super) fn note(&mut self, disk: &[u8], mut at: usize, len: usize) {
        let end = at + len;
        while at < end {
            let len = (SECTOR_BYTES - at % SECTOR_BYTES).min(end - at);
            self.pieces.push(Piece { at, len, old: self.replaced.len() });
            self.replaced.extend_from_slice(&disk[at..at + len]);
            at += len;
        }
    }

    /// A sync succeeded. It covers what came since the last failed one, and of what that one gave up only the
    /// sectors written again since: a cache writes whole sectors.
    pub(super) fn synced(&mut self) {
        if self.given_up == 0 {
            return self.clear();
        }
        let written_again: BTreeSet<usize> = self.pieces[self.given_up..].iter().map(Piece::sector).collect();
        self.pieces.truncate(self.given_up);
        self.pieces.retain(|piece| !written_again.contains(&piece.sector()));
        self.given_up = self.pieces.len();
        if self.pieces.is_empty() {
            self.clear();
        }
    }

    /// A sync failed: all of this counts as clean from now on, as in Linux, so no sync will write it.
    pub(super) fn give_up(&mut self) {
        self.given_up = self.pieces.len();
    }

    /// Take all of it back, which leaves what syncs have covered.
    pub(super) fn undo_all(&self, disk: &mut [u8]) {
        for piece in self.pieces.iter().rev() {
            self.undo(piece, piece.at, disk);
        }
    }

    /// The power fails: each sector on its own, and so in any order, is as it was last written or (with
    /// probability `torn`) isn't. What is left is on the medium, and nothing is unsynced.
    pub(super) fn crash(
        &mut self,
        disk: &mut [u8],
        torn: f64,
        prng: &mut Prng,
        injected: &mut Vec<Injected>,
    ) {
        let mut sectors: BTreeMap<usize, Vec<Piece>> = BTreeMap::new();
        let given_up: BTreeSet<usize> = self.pieces[..self.given_up].iter().map(Piece::sector).collect();
        for piece in &self.pieces {
            sectors.entry(piece.sector()).or_default().push(*piece);
        }
        for (sector, pieces) in sectors {
            let rate = if given_up.contains(&sector) { torn.max(GIVEN_UP_MISSING) } else { torn };
            if prng.chance(rate) {
                injected.push(self.tear(sector, &pieces, disk, prng));
            }
        }
        self.clear();
    }

    /// Leave some of the pieces of one sector: those before one of them, and maybe the first atoms of that one.
    /// A cache may write a sector out at any time, so what is left can be as old as any of them.
    fn tear(&self, sector: usize, pieces: &[Piece], disk: &mut [u8], prng: &mut Prng) -> Injected {
        let whole = prng.below(pieces.len() as u64) as usize;
        for piece in pieces[whole + 1..].iter().rev() {
            self.undo(piece, piece.at, disk);
        }
        let torn = pieces[whole];
        let from = torn.torn_from(prng);
        self.undo(&torn, from, disk);
        let sector = sector as u64;
        if whole == 0 && from == torn.at { Injected::Lost { sector } } else { Injected::Torn { sector } }
    }

    /// Take back a piece's bytes from the offset `from` on.
    fn undo(&self, piece: &Piece, from: usize, disk: &mut [u8]) {
        let old = &self.replaced[piece.old + (from - piece.at)..piece.old + piece.len];
        disk[from..piece.at + piece.len].copy_from_slice(old);
    }
}

impl Piece {
    fn sector(&self) -> usize {
        self.at / SECTOR_BYTES
    }

    /// The offset from which on it is missing: its own, half of the time, or that of one of its later atoms. So
    /// at least its last atom is.
    fn torn_from(&self, prng: &mut Prng) -> usize {
        let first = self.at / ATOM_BYTES;
        let atoms = (self.at + self.len).div_ceil(ATOM_BYTES) - first;
        if atoms == 1 || prng.chance(0.5) {
            return self.at;
        }
        let kept = 1 + prng.below(atoms as u64 - 1) as usize;
        (first + kept) * ATOM_BYTES
    }
}
