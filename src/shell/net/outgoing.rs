//! What waits to be sent on one connection.
//!
//! Small pieces are copied into one buffer, large ones queued by reference. What was queued when a send starts
//! goes in that one send; what is queued meanwhile goes in the next. The kernel holds pointers to what is being
//! sent, so none of it moves or changes before the send has completed.

use std::ops::Range;
use std::os::fd::RawFd;

use bytes::Bytes;
use io_uring::types::Fd;
use io_uring::{opcode, squeue};

use crate::storage::cost;

/// Memory that an idle connection may keep for its next answers, in each of two buffers.
const KEPT_BYTES_MAX: usize = 32 * 1024;
/// Parts of one send, well under the kernel's `UIO_MAXIOV`.
const PARTS_MAX: usize = 64;
/// Bytes of one send; the kernel takes just under 2 GiB.
const SEND_BYTES_MAX: usize = 1 << 30;

/// The queue and the send that is under way.
#[derive(Default)]
pub(super) struct Outgoing {
    queued: Batch,
    sending: Batch,
    /// How much of `sending` has left. `sent <= sending.length`
    sent: usize,
    /// What the kernel reads while a send of several parts is under way; both stay where they are.
    parts: Vec<libc::iovec>,
    message: Option<Box<libc::msghdr>>,
}

#[derive(Default)]
struct Batch {
    copied: Vec<u8>,
    /// Empty while everything is in `copied`: then that is all there is, in order.
    order: Vec<Part>,
    length: usize,
}

enum Part {
    Copied(Range<usize>),
    Shared(Bytes),
}

impl Outgoing {
    /// Queue bytes by copying them.
    pub(super) fn copy(&mut self, bytes: &[u8]) {
        self.queued.copy(bytes);
    }

    /// Queue bytes by reference.
    pub(super) fn share(&mut self, bytes: Bytes) {
        self.queued.share(bytes);
    }

    /// Bytes that have not left.
    pub(super) fn unsent(&self) -> usize {
        self.queued.length + self.sending.length - self.sent
    }

    pub(super) fn is_empty(&self) -> bool {
        self.unsent() == 0
    }

    /// What it takes in memory. What is queued by reference counts in full: by now it may be here alone.
    pub(super) fn memory(&self) -> usize {
        let parts = cost::allocated(self.parts.capacity() * size_of::<libc::iovec>());
        let message = self.message.as_deref().map_or(0, |message| cost::allocated(size_of_val(message)));
        self.queued.memory() + self.sending.memory() + parts + message
    }

    /// The next send, if there is anything to send; none may be under way.
    ///
    /// The entry points into `self.sending`, `self.parts` and `self.message`, which none of the other functions
    /// touch before [`Outgoing::advance`].
    pub(super) fn next_send(&mut self, descriptor: RawFd) -> Option<squeue::Entry> {
        if self.sent == self.sending.length {
            self.sending.clear();
            self.sent = 0;
            std::mem::swap(&mut self.queued, &mut self.sending);
        }
        if self.sending.length == 0 {
            return None;
        }
        let (descriptor, flags) = (Fd(descriptor), libc::MSG_WAITALL | libc::MSG_NOSIGNAL);
        if self.sending.order.is_empty() {
            let rest = &self.sending.copied[self.sent..];
            let length = rest.len().min(SEND_BYTES_MAX) as u32;
            return Some(opcode::Send::new(descriptor, rest.as_ptr(), length).flags(flags).build());
        }
        let message = self.message();
        Some(opcode::SendMsg::new(descriptor, message).flags(flags as u32).build())
    }

    /// The send has completed, and this many bytes have left.
    pub(super) fn advance(&mut self, bytes: usize) {
        self.sent += bytes;
        assert!(self.sent <= self.sending.length, "the kernel sends what it was given");
        if self.sent == self.sending.length {
            self.sending.clear();
            self.sent = 0;
        }
    }

    /// Drop what is queued; what is being sent stays.
    pub(super) fn discard(&mut self) {
        self.queued = Batch::default();
    }

    /// Describe what `sending` still holds, up to [`PARTS_MAX`] parts of it.
    fn message(&mut self) -> *const libc::msghdr {
        self.parts.clear();
        let mut skip = self.sent;
        for part in &self.sending.order {
            let bytes = match part {
                Part::Copied(range) => &self.sending.copied[range.clone()],
                Part::Shared(bytes) => bytes,
            };
            let skipped = skip.min(bytes.len());
            skip -= skipped;
            let rest = &bytes[skipped..];
            if !rest.is_empty() {
                self.parts.push(libc::iovec { iov_base: rest.as_ptr() as *mut _, iov_len: rest.len() });
            }
            if self.parts.len() == PARTS_MAX {
                break;
            }
        }
        // SAFETY: all zero is a valid message header: no name, no parts, no control bytes.
        let message = self.message.get_or_insert_with(|| Box::new(unsafe { std::mem::zeroed() }));
        message.msg_iov = self.parts.as_mut_ptr();
        message.msg_iovlen = self.parts.len() as _;
        &raw const **message
    }
}

impl Batch {
    fn copy(&mut self, bytes: &[u8]) {
        let start = self.copied.len();
        self.copied.extend_from_slice(bytes);
        self.length += bytes.len();
        let end = self.copied.len();
        match self.order.last_mut() {
            None => {}
            Some(Part::Copied(range)) => range.end = end,
            Some(Part::Shared(_)) => self.order.push(Part::Copied(start..end)),
        }
    }

    fn share(&mut self, bytes: Bytes) {
        if self.order.is_empty() && !self.copied.is_empty() {
            self.order.push(Part::Copied(0..self.copied.len()));
        }
        self.length += bytes.len();
        self.order.push(Part::Shared(bytes));
    }

    fn memory(&self) -> usize {
        let shared = self.order.iter().map(|part| match part {
            Part::Copied(_) => 0,
            Part::Shared(bytes) => cost::of_value(bytes.len()),
        });
        let order = cost::allocated(self.order.capacity() * size_of::<Part>());
        cost::allocated(self.copied.capacity()) + order + shared.sum::<usize>()
    }

    fn clear(&mut self) {
        self.order.clear();
        self.length = 0;
        if self.copied.capacity() > KEPT_BYTES_MAX { self.copied = Vec::new() } else { self.copied.clear() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent_by(outgoing: &mut Outgoing) -> Vec<u8> {
        let mut all = Vec::new();
        while outgoing.next_send(0).is_some() {
            let bytes: Vec<u8> = if outgoing.sending.order.is_empty() {
                outgoing.sending.copied[outgoing.sent..].to_vec()
            } else {
                let parts = outgoing.parts.iter();
                // SAFETY: the parts point into what `outgoing` holds, which doesn't change meanwhile.
                parts
                    .flat_map(|part| unsafe {
                        std::slice::from_raw_parts(part.iov_base.cast::<u8>(), part.iov_len).to_vec()
                    })
                    .collect()
            };
            // Short sends, always: seven bytes leave at a time.
            let left = bytes.len().min(7);
            all.extend_from_slice(&bytes[..left]);
            outgoing.advance(left);
        }
        all
    }

    #[test]
    fn what_waits_is_counted_until_it_has_left() {
        let mut outgoing = Outgoing::default();
        assert_eq!(outgoing.memory(), 0);
        outgoing.copy(&[1; 1000]);
        outgoing.share(vec![2; 100_000].into());
        assert!(outgoing.memory() >= 101_000);
        sent_by(&mut outgoing);
        assert!(outgoing.memory() < 2 * KEPT_BYTES_MAX, "{}", outgoing.memory());
    }

    #[test]
    fn pieces_leave_in_order_through_short_sends() {
        let mut outgoing = Outgoing::default();
        let mut expected = Vec::new();
        for step in 0..300u32 {
            let piece = vec![step as u8; (step % 23) as usize];
            expected.extend_from_slice(&piece);
            if step % 3 == 0 { outgoing.share(piece.into()) } else { outgoing.copy(&piece) }
        }
        assert_eq!(outgoing.unsent(), expected.len());
        assert_eq!(sent_by(&mut outgoing), expected);
        assert!(outgoing.is_empty());
        outgoing.copy(b"small again");
        assert_eq!(sent_by(&mut outgoing), b"small again");
    }
}
