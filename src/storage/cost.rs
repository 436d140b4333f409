//! What it costs to keep something: bytes as the allocator hands them out, not as they were asked for.
//!
//! An allocator of size classes rounds up. Ours has classes of 8 and then every second word up to 64 bytes, and four to
//! each doubling from there on; from half a mebibyte on it is whole slices of 64 KiB, with room to spare. So a key of 20 bytes costs
//! 32, and a value of 100 costs 112. A value costs 32 bytes more, for the count of who reads it: that is allocated when it
//! is first read, and counted from the beginning.
//!
//! What is not in these sums: pages of the allocator that are partly empty, and the process itself.

use bytes::Bytes;

use super::Entry;
use crate::causality::{Content, Siblings};

const WORD: usize = 8;
/// Up to here every second number of words is a class.
const EVEN_WORDS_MAX: usize = 8;
/// What is larger has pages of its own.
const CLASS_BYTES_MAX: usize = (512 << 10) - WORD;
const SLICE_BYTES: usize = 64 << 10;
/// Whoever shares a value counts itself here.
const SHARED_BYTES: usize = 3 * WORD;

/// What the allocator takes to hand out so many bytes; nothing for nothing.
pub const fn allocated(bytes: usize) -> usize {
    let words = bytes.div_ceil(WORD);
    if words <= 1 {
        words * WORD
    } else if words <= EVEN_WORDS_MAX {
        words.next_multiple_of(2) * WORD
    } else if bytes <= CLASS_BYTES_MAX {
        let quarter = 1 << ((words - 1).ilog2() - 2);
        words.next_multiple_of(quarter) * WORD
    } else {
        (bytes + 1).next_multiple_of(SLICE_BYTES)
    }
}

/// What an entry takes by itself. Where its class has no free block at hand, the allocator takes one in which it could align it too, as if
/// it didn't know that all are; and where it has done so once it goes on.
pub(super) const ENTRY_BYTES: usize = allocated(size_of::<Entry>() + align_of::<Entry>() - 1);

/// A key with all that is known of it, but for its place in the table.
pub(super) fn of_entry(entry: &Entry) -> usize {
    ENTRY_BYTES + allocated(entry.key.len()) + of_state(&entry.state)
}

/// What a state keeps beside itself: a clock and versions that don't fit into it, and the values.
pub fn of_state(state: &Siblings<Bytes>) -> usize {
    let [clock, versions] = state.allocations();
    allocated(clock) + allocated(versions) + of_values(state)
}

/// The same of its values alone.
pub fn of_values(state: &Siblings<Bytes>) -> usize {
    let values = state.versions().iter().map(|version| match &version.content {
        Content::Value(value) => of_value(value.len()),
        Content::Cold { .. } | Content::Tombstone | Content::Expired => 0,
    });
    values.sum()
}

/// A value of so many bytes.
pub const fn of_value(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { allocated(bytes) + allocated(SHARED_BYTES) }
}

/// What one thing more costs in a list: it doubles when it is full.
pub fn growth_of_list<T>(list: &Vec<T>) -> usize {
    let (bytes, least) = (list.capacity() * size_of::<T>(), 4 * size_of::<T>());
    if list.len() < list.capacity() { 0 } else { allocated((2 * bytes).max(least)) - allocated(bytes) }
}

/// At most what a sorted map takes for an entry whose key and value have so many bytes. Its nodes have room for eleven, and
/// all but the uppermost hold five; one node of six or fewer has children, and twelve pointers more.
pub const fn map_slot(bytes: usize) -> usize {
    allocated(node_bytes(bytes)).div_ceil(5) + allocated(node_bytes(bytes) + 12 * WORD).div_ceil(25)
}

/// What the uppermost nodes of such a map may take beyond that.
pub const fn map_root(bytes: usize) -> usize {
    allocated(node_bytes(bytes)) + allocated(node_bytes(bytes) + 12 * WORD)
}

const fn node_bytes(bytes: usize) -> usize {
    2 * WORD + 11 * bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Eight bytes more are free; eight less would save each key 32.
    #[test]
    fn an_entry_is_as_large_as_is_known() {
        assert_eq!((size_of::<Entry>(), ENTRY_BYTES), (192, 224));
    }

    #[test]
    fn a_class_is_never_smaller_than_what_was_asked_for_nor_much_larger() {
        for bytes in (1..4096).chain((4096..2 << 20).step_by(777)) {
            let class = allocated(bytes);
            assert!(class >= bytes && class.is_multiple_of(WORD), "{bytes} in {class}");
            assert!(class <= (bytes + 16).max(bytes + bytes / 4), "{bytes} in {class}");
            // Nobody can ask for exactly half a mebibyte and have it.
            assert!(class > CLASS_BYTES_MAX || allocated(class) == class, "{class} is a class");
        }
        assert_eq!([0, 1, 8, 9, 20, 64, 65, 100].map(allocated), [0, 8, 8, 16, 32, 64, 80, 112]);
    }
}
