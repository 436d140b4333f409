//! What of each segment is still needed: by that segments are chosen to be compacted.
//!
//! A segment holds an unbroken range of sequences, so a sequence says in which segment its record lies. A record is *dead* when
//! a later one covers what it said. Some records say that something is gone, which earlier ones told; such a *marker* is
//! needed as long as any earlier record is there. So a segment with markers is released only when it is the oldest.
//!
//! The counts say what is worth a compaction, and nothing more: what is copied is decided by whoever holds the state. If they
//! are wrong, room is wasted; nothing is lost.

use std::collections::BTreeMap;

use super::format::record_bytes;
use super::recovery::Found;
use super::table::SegmentTable;
use super::{Geometry, Range, Segment};
use crate::failpoint::Failpoints;

/// A segment is worth it with less than this part of it needed,
const LIVE_MAX: f64 = 0.5;
/// or, when there is no room for another, with less than this.
const LIVE_MAX_FULL: f64 = 0.9;

/// All segments that hold records.
#[derive(Clone, Debug, Default)]
pub struct Liveness {
    /// By the sequence of the first record.
    held: BTreeMap<u64, Held>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    segment: Segment,
    last: u64,
    /// With their headers.
    bytes: u64,
    /// `0 <= live <= last - first + 1`
    live: u64,
    /// Of the live ones.
    markers: u64,
}

impl Held {
    /// As a part of a whole segment, if all records were of one size.
    fn live_part(&self, first: u64, is_oldest: bool, geometry: Geometry) -> f64 {
        let records = self.last - first + 1;
        let live = self.live - if is_oldest { self.markers } else { 0 };
        self.bytes as f64 * live as f64 / records as f64 / geometry.segment_bytes() as f64
    }
}

impl Liveness {
    /// A record was appended there, or found there: the next in order.
    pub fn on_record(&mut self, found: &Found, is_marker: bool) {
        let bytes = record_bytes(found.length as usize) as u64;
        let last = self.held.last_entry().filter(|last| last.get().segment == found.segment);
        let held = match last {
            Some(last) => last.into_mut(),
            None => {
                let held =
                    Held { segment: found.segment, last: found.sequence, bytes: 0, live: 0, markers: 0 };
                self.held.entry(found.sequence).or_insert(held)
            }
        };
        held.last = held.last.max(found.sequence);
        held.bytes += bytes;
        held.live += 1;
        held.markers += u64::from(is_marker);
    }

    /// A later record covers what this one says.
    pub fn on_dead(&mut self, sequence: u64) {
        let held = self.held.range_mut(..=sequence).next_back().map(|(_, held)| held);
        if let Some(held) = held.filter(|held| sequence <= held.last) {
            held.live = held.live.saturating_sub(1).max(held.markers);
        }
    }

    /// Its records are gone.
    pub fn on_released(&mut self, segment: Segment) {
        self.held.retain(|_, held| held.segment != segment);
    }

    /// The segment to compact next, if one is worth it, and the records that it holds. `is_full` says whether there is room for
    /// another. A damaged one is always worth it: its report ends with it.
    pub fn choose<F: Failpoints>(&self, table: &SegmentTable<F>, is_full: bool) -> Option<(Segment, Range)> {
        let live_max = if is_full { LIVE_MAX_FULL } else { LIVE_MAX };
        let oldest = self.held.first_key_value().map(|(first, _)| *first);
        let sealed = || self.held.iter().filter(|(_, held)| table.is_sealed(held.segment));
        let part = |first: u64, held: &Held| {
            if table.is_damaged(held.segment) {
                return 0.0;
            }
            held.live_part(first, Some(first) == oldest, table.geometry())
        };
        let may_go = sealed().filter(|(first, held)| held.markers == 0 || Some(**first) == oldest);
        let best = may_go.min_by(|(first, held), (other_first, other)| {
            part(**first, held).total_cmp(&part(**other_first, other))
        });
        let of = |(first, held): (&u64, &Held)| (held.segment, Range { first: *first, last: held.last });
        if let Some(best) = best.filter(|(first, held)| part(**first, held) < live_max) {
            return Some(of(best));
        }
        // What could go must not wait for ever behind an older one that is needed.
        let (sum, count) =
            sealed().fold((0.0, 0), |(sum, count), (first, held)| (sum + part(*first, held), count + 1));
        let first = sealed().next().filter(|(first, _)| Some(**first) == oldest);
        first.filter(|_| count > 0 && sum < live_max * f64::from(count)).map(of)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Manifest, SegmentId, Slot};
    use super::*;
    use crate::failpoint::NoFailpoints;
    use crate::id::{ClusterId, NodeId, ShardId};
    use crate::storage::log::{Entry, Identity};

    fn segment(number: u64) -> Segment {
        Segment { id: SegmentId(number), slot: Slot(number as u32) }
    }

    /// Three segments of ten records of 6,000 bytes each; those of `markers` are some.
    fn three(markers: &[u64]) -> Liveness {
        let mut liveness = Liveness::default();
        for sequence in 1..=30 {
            let found = Found { sequence, segment: segment((sequence - 1) / 10), offset: 0, length: 6_000 };
            liveness.on_record(&found, markers.contains(&sequence));
        }
        liveness
    }

    fn choose(liveness: &Liveness, is_full: bool) -> Option<u64> {
        let geometry = Geometry::new(16 * 4096, 8).unwrap();
        let owner = Identity { cluster: ClusterId(1), node: NodeId(2), shard: ShardId(0), home: 3 };
        let mut manifest = Manifest::new(owner, geometry, 4);
        manifest.entries = (0..3)
            .map(|number| Entry {
                segment: segment(number),
                sealed: (number < 2).then_some(Range { first: number * 10 + 1, last: number * 10 + 10 }),
                is_damaged: false,
            })
            .collect();
        let table = SegmentTable::of(&manifest, NoFailpoints);
        liveness.choose(&table, is_full).map(|(segment, range)| {
            assert_eq!((range.first, range.count()), (segment.id.0 * 10 + 1, 10));
            segment.id.0
        })
    }

    #[test]
    fn the_emptiest_goes_first_if_it_is_worth_it() {
        let mut liveness = three(&[]);
        assert_eq!((choose(&liveness, false), choose(&liveness, true)), (None, None));
        (11..=13).for_each(|sequence| liveness.on_dead(sequence));
        assert_eq!(
            (choose(&liveness, false), choose(&liveness, true)),
            (None, Some(1)),
            "when there is no room"
        );
        (14..=16).for_each(|sequence| liveness.on_dead(sequence));
        assert_eq!(choose(&liveness, false), Some(1));
        (1..=7).for_each(|sequence| liveness.on_dead(sequence));
        assert_eq!(choose(&liveness, false), Some(0));
        liveness.on_released(segment(0));
        assert_eq!(choose(&liveness, false), Some(1));
        (21..=30).for_each(|sequence| liveness.on_dead(sequence));
        liveness.on_released(segment(1));
        assert_eq!(choose(&liveness, false), None, "it is still written to");
    }

    /// bitcask #82: what says that something is gone goes last.
    #[test]
    fn a_marker_stays_while_anything_older_does() {
        let mut liveness = three(&[15]);
        (11..=20).filter(|sequence| *sequence != 15).for_each(|sequence| liveness.on_dead(sequence));
        (1..=3).for_each(|sequence| liveness.on_dead(sequence));
        assert_eq!(
            choose(&liveness, false),
            Some(0),
            "the oldest goes, for the sake of what waits behind it"
        );
        liveness.on_released(segment(0));
        assert_eq!(choose(&liveness, false), Some(1), "nothing is older now");
    }

    #[test]
    fn what_is_told_twice_or_of_nothing_changes_little() {
        let mut liveness = three(&[]);
        (0..100).for_each(|_| liveness.on_dead(12));
        liveness.on_dead(0);
        liveness.on_dead(31);
        assert_eq!(choose(&liveness, false), Some(1));
    }
}
