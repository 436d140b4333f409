//! Receive buffers that the kernel picks from as bytes arrive (`IORING_REGISTER_PBUF_RING`).
//!
//! All connections of a shard share them, so an idle connection holds none. A buffer that the kernel filled is
//! ours until it is given back. The memory is ordinary: it doesn't count against `RLIMIT_MEMLOCK`.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::ring::Ring;

/// How many. A power of two.
const BUFFERS: u16 = 256;
/// Bytes of each.
pub(super) const BUFFER_BYTES: usize = 16 * 1024;
/// The name of the group of buffers, of which a ring has one.
pub(super) const GROUP: u16 = 0;

pub(super) struct BufferPool {
    /// The ring of entries shared with the kernel: [`BUFFERS`] of them, page-aligned.
    entries: Mapping,
    memory: Mapping,
    /// Counts the buffers given back; published when a turn is over.
    tail: u16,
}

/// A buffer that holds received bytes. Must be given back.
#[derive(Debug)]
#[must_use]
pub(in crate::shell) struct Filled {
    buffer: u16,
    /// `length <= BUFFER_BYTES`
    length: usize,
}

impl BufferPool {
    /// The pool must be dropped after the ring.
    pub(super) fn register(ring: &Ring) -> io::Result<Self> {
        let entries = Mapping::new(usize::from(BUFFERS) * size_of::<BufRingEntry>())?;
        let memory = Mapping::new(usize::from(BUFFERS) * BUFFER_BYTES)?;
        let mut pool = Self { entries, memory, tail: 0 };
        (0..BUFFERS).for_each(|buffer| pool.put(buffer));
        pool.publish();
        let address = pool.entries.start.as_ptr() as u64;
        // SAFETY: `entries` is a page-aligned ring of BUFFERS entries, and outlives the ring by contract.
        unsafe { ring.submitter().register_buf_ring_with_flags(address, BUFFERS, GROUP, 0)? };
        Ok(pool)
    }

    /// All of them, whether they were ever filled or not.
    pub(super) const fn memory(&self) -> usize {
        self.entries.length + self.memory.length
    }

    /// The buffer named by a completion that says it received `length` bytes into it.
    pub(super) fn filled(&self, buffer: u16, length: usize) -> Filled {
        assert!(buffer < BUFFERS && length <= BUFFER_BYTES, "the kernel fills the buffers it was given");
        Filled { buffer, length }
    }

    /// What was received.
    pub(super) fn bytes(&self, filled: &Filled) -> &[u8] {
        let start = usize::from(filled.buffer) * BUFFER_BYTES;
        // SAFETY: in bounds, as `filled` checked. The kernel wrote these bytes and doesn't touch them again
        // before the buffer is given back, which consumes `filled`.
        unsafe { std::slice::from_raw_parts(self.memory.start.as_ptr().add(start), filled.length) }
    }

    /// The bytes were used. The kernel sees the buffer after [`BufferPool::publish`].
    #[expect(clippy::needless_pass_by_value, reason = "a buffer is given back once")]
    pub(super) fn give_back(&mut self, filled: Filled) {
        self.put(filled.buffer);
    }

    fn put(&mut self, buffer: u16) {
        let place = usize::from(self.tail & (BUFFERS - 1));
        let start = usize::from(buffer) * BUFFER_BYTES;
        // SAFETY: `place` and `start` are in bounds of their mappings. The kernel reads an entry only after
        // the tail has passed it, and BUFFERS entries can't be outstanding twice. The first entry's last field
        // is the tail itself, which none of these setters touch.
        unsafe {
            let entry = &mut *self.entries.start.cast::<BufRingEntry>().as_ptr().add(place);
            entry.set_addr(self.memory.start.as_ptr().add(start) as u64);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Let the kernel have what was given back.
    pub(super) fn publish(&self) {
        let first = self.entries.start.cast::<BufRingEntry>().as_ptr();
        // SAFETY: `first` is the first entry of the ring; its tail field is an aligned u16 that only this
        // thread writes and the kernel reads.
        let tail = unsafe { &*BufRingEntry::tail(first).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }
}

/// Zeroed pages of our own.
struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

impl Mapping {
    fn new(length: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_ANONYMOUS | libc::MAP_PRIVATE;
        // SAFETY: a fresh anonymous mapping, at an address of the kernel's choice.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: NonNull::new(start.cast()).expect("mmap doesn't give out address 0"), length })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this mapping is ours, and nobody borrows from it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}
