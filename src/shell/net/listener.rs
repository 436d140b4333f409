//! Taking calls: one multishot accept on each listening socket.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use io_uring::opcode;
use io_uring::types::Fd;

use super::connection::{Connection, Phase};
use super::ring::Completion;
use super::token::{Operation, loose_token};
use super::{Event, Net};
use crate::shell::sockets;
use crate::time::{Duration, Instant};

/// Out of descriptors, or of memory: try again after this. Whoever calls waits in the kernel's queue.
const RETRY: Duration = Duration::from_millis(100);

pub(super) struct Listener {
    /// `None` once we stopped, so that callers are refused.
    socket: Option<OwnedFd>,
    armed: bool,
    /// When to try again after a failure.
    pub(super) retry_at: Option<Instant>,
}

impl Listener {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket: Some(socket), armed: false, retry_at: None }
    }
}

impl Net {
    /// Take calls on all listening sockets.
    pub(in crate::shell) fn accept(&mut self) {
        for number in 0..self.listeners.len() {
            self.arm_accept(number);
        }
    }

    /// Take no more calls. Those that the kernel has answered and we haven't are reset.
    pub(in crate::shell) fn stop_accepting(&mut self) {
        for (number, listener) in self.listeners.iter_mut().enumerate() {
            listener.retry_at = None;
            let Some(socket) = listener.socket.take() else { continue };
            sockets::cut_off(&socket);
            if listener.armed {
                self.ring.cancel(loose_token(Operation::Accept, number));
            }
        }
    }

    pub(super) fn is_accepting(&self) -> bool {
        self.listeners.iter().any(|listener| listener.armed)
    }

    pub(super) fn retry_accepts(&mut self) {
        for number in 0..self.listeners.len() {
            if self.listeners[number].retry_at.is_some_and(|at| at <= self.now) {
                self.arm_accept(number);
            }
        }
    }

    fn arm_accept(&mut self, number: usize) {
        let listener = &mut self.listeners[number];
        listener.retry_at = None;
        let Some(socket) = &listener.socket else { return };
        if listener.armed {
            return;
        }
        listener.armed = true;
        let accept = opcode::AcceptMulti::new(Fd(socket.as_raw_fd())).flags(libc::SOCK_CLOEXEC);
        let entry = accept.build().user_data(loose_token(Operation::Accept, number));
        // SAFETY: no address is asked for, so the entry points to no memory.
        unsafe { self.ring.push(&entry) };
    }

    pub(super) fn on_accept(&mut self, number: usize, completion: Completion) {
        self.listeners[number].armed = completion.more;
        if completion.result >= 0 {
            // SAFETY: the kernel opened this descriptor for us just now.
            self.take_call(unsafe { OwnedFd::from_raw_fd(completion.result) });
        }
        if completion.more {
            return;
        }
        match -completion.result {
            libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM => {
                self.listeners[number].retry_at = Some(self.now + RETRY);
            }
            // Anything else concerns a caller that has gone already.
            _ => self.arm_accept(number),
        }
    }

    fn take_call(&mut self, socket: OwnedFd) {
        sockets::tune(socket.as_raw_fd());
        // With every slot taken the caller is hung up on.
        let Some(connection) = self.table.insert(Connection::new(socket, Phase::Open)) else { return };
        self.receive(connection);
        self.events.push_back(Event::Opened { connection, dial: None });
    }
}
