//! Room: the next segment before the last is full, and slots that are filled before a segment needs them.

use super::super::net::Net;
use super::disk::FILL_BYTES;
use super::{Compaction, Log, ROOM_AGAIN_AFTER, Way};
use crate::config::Sync;
use crate::storage::log::{Purpose, SECTOR_BYTES, Slot};

/// Slots that are there from the beginning, beside the first.
const FOR_NEXT_START: u32 = 1;

impl Log {
    /// Take the next segment when it is time, and have slots ready for it and for what must never lack one.
    pub(super) fn make_room(&mut self, net: &mut Net) {
        if self.under_way[Way::Manifest as usize].is_none() {
            if self.change.is_some() {
                self.next_step(net);
            } else {
                self.take_segment_in_time(net);
            }
        }
        if self.under_way[Way::Allocation as usize].is_some() {
            return;
        }
        if self.is_short_of_slots() {
            self.allocate(net);
        } else {
            self.room_again = None;
        }
    }

    fn take_segment_in_time(&mut self, net: &mut Net) {
        let wants = self.writer.wants_segment();
        if self.has_slot_for(Purpose::Append) {
            self.on_room();
        } else if wants && self.has_room && !self.is_slot_coming() {
            if self.allocated >= self.table.geometry().slots_max() {
                self.on_full("all its segments are in use");
            } else if self.room_again.is_some() {
                self.on_full(&std::io::Error::from_raw_os_error(self.room_error).to_string());
            }
        }
        if wants {
            self.take_segment(net);
        }
    }

    /// Is there a slot that the file has room for, beside those that are kept for other things?
    fn has_slot_for(&self, purpose: Purpose) -> bool {
        self.allocated.min(self.table.geometry().slots_max()) > self.table.taken() + purpose.kept()
    }

    /// A segment that was compacted, and perhaps kept for a backup, is let go as soon as the manifest can be changed. Until its copies
    /// are durable that may take long, unless each group is synced.
    fn is_slot_coming(&self) -> bool {
        let Some(Compaction::Copied(_, through)) = self.compaction else { return false };
        self.writer.durable() >= through || self.sync == Sync::Always
    }

    /// There is none, or there would be none soon: the disk is full, or all slots are in use.
    pub(super) fn is_short_of_room(&self) -> bool {
        let is_used_up = self.allocated >= self.table.geometry().slots_max();
        !self.has_room || self.room_again.is_some() || is_used_up && !self.has_slot_for(Purpose::Append)
    }

    /// A log that has filled a segment has a slot ready before it asks for one: to fill it takes time. Any log has one for its next
    /// start, since others may have filled up the disk by then.
    fn is_short_of_slots(&self) -> bool {
        let ahead =
            u32::from(self.table.len() > 1) + u32::from(self.writer.wants_segment() || !self.has_room);
        let kept = if ahead == 0 { FOR_NEXT_START } else { Purpose::Append.kept() };
        let needed = self.table.taken() + kept + ahead;
        self.allocated < needed.min(self.table.geometry().slots_max())
    }

    /// Set room aside for the next slot, or fill some more of it.
    fn allocate(&mut self, net: &mut Net) {
        if self.room_again.is_some_and(|at| at > self.now) {
            return;
        }
        let start = self.files.start_of(Slot(self.allocated));
        let bytes = self.files.geometry.segment_bytes();
        if !self.is_set_aside {
            let entry = self.files.segments.allocate_entry(start + bytes as u64);
            return self.begin(net, entry, Way::Allocation, 0);
        }
        let length = FILL_BYTES.min(bytes - self.filled);
        let entry = self.files.segments.write_entry(&self.zeros[..length], start + self.filled as u64);
        self.begin(net, entry, Way::Allocation, length);
    }

    fn take_segment(&mut self, net: &mut Net) {
        let all = [Purpose::Append, Purpose::Compact];
        let may = |purpose: &Purpose| *purpose == Purpose::Append || self.compaction.is_some();
        let Some(purpose) = all.into_iter().find(|one| may(one) && self.has_slot_for(*one)) else { return };
        let Ok(segment) = self.table.reserve(purpose) else { return };
        self.table.list(segment);
        self.persist(Some(segment));
        self.next_step(net);
    }

    /// Room is set aside, or so many bytes of it are filled.
    pub(super) fn on_allocated(&mut self, expected: usize, result: i32) {
        // Of what was only written in part the rest comes next, from a sector's start.
        let bytes = usize::try_from(result).unwrap_or(0).min(expected) / SECTOR_BYTES * SECTOR_BYTES;
        if result < 0 || bytes == 0 && expected > 0 {
            self.room_again = Some(self.now + ROOM_AGAIN_AFTER);
            // Whether that matters is seen when the next segment is wanted.
            self.room_error = if result < 0 { -result } else { libc::ENOSPC };
            return;
        }
        (self.room_again, self.is_set_aside) = (None, true);
        self.filled += bytes;
        if self.filled >= self.files.geometry.segment_bytes() {
            self.allocated += 1;
            (self.filled, self.is_set_aside) = (0, false);
        }
    }

    fn on_full(&mut self, why: &str) {
        if std::mem::replace(&mut self.has_room, false) {
            self.say(&format!("there is no room ({why}): it takes no writes until there is"));
        }
    }

    fn on_room(&mut self) {
        if !std::mem::replace(&mut self.has_room, true) {
            self.say("there is room again: it takes writes");
        }
    }
}
