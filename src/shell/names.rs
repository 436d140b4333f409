//! Host names to addresses, off the shard's thread: the system's resolver blocks, for seconds if it must.
//!
//! One helper thread a shard, started when the first name has to be looked up. Questions and answers travel in
//! SPSC rings; the answer rings the shard's doorbell. Numeric addresses never come here.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread::Thread;

use rtrb::{Consumer, Producer, RingBuffer};

use super::doorbell::Doorbell;
use crate::shard::{Dial, DialId};

/// Names that may be under way; a call beyond that fails at once.
const QUESTIONS_MAX: usize = 64;

/// What a lookup found; nothing, if the name is unknown.
pub(super) struct Resolved {
    pub(super) dial: DialId,
    pub(super) addresses: Vec<SocketAddr>,
}

pub(super) struct Names {
    doorbell: Doorbell,
    helper: Option<Helper>,
}

struct Helper {
    questions: Producer<Dial>,
    answers: Consumer<Resolved>,
    thread: Thread,
    /// Asked and not answered. `0 <= pending <= QUESTIONS_MAX`, so that an answer always fits.
    pending: usize,
}

impl Names {
    pub(super) fn new(doorbell: Doorbell) -> Self {
        Self { doorbell, helper: None }
    }

    /// Look a name up; the answer comes through [`Names::take`]. False if too many are under way.
    pub(super) fn ask(&mut self, dial: Dial) -> bool {
        if self.helper.is_none() {
            self.helper = Helper::start(self.doorbell.clone());
        }
        let Some(helper) = &mut self.helper else { return false };
        if helper.pending == QUESTIONS_MAX || helper.questions.push(dial).is_err() {
            return false;
        }
        helper.pending += 1;
        helper.thread.unpark();
        true
    }

    /// The next answer, if there is one.
    pub(super) fn take(&mut self) -> Option<Resolved> {
        let helper = self.helper.as_mut()?;
        let resolved = helper.answers.pop().ok()?;
        helper.pending -= 1;
        Some(resolved)
    }

    /// No answer is waiting.
    pub(super) fn is_idle(&self) -> bool {
        self.helper.as_ref().is_none_or(|helper| helper.answers.is_empty())
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        // It sees that its rings are abandoned, and leaves. It may be blocked in a lookup: nobody waits for it.
        if let Some(helper) = self.helper.take() {
            let thread = helper.thread.clone();
            drop(helper);
            thread.unpark();
        }
    }
}

impl Helper {
    /// `None` if the system has no thread to give.
    fn start(doorbell: Doorbell) -> Option<Self> {
        let (questions, asked) = RingBuffer::new(QUESTIONS_MAX);
        let (found, answers) = RingBuffer::new(QUESTIONS_MAX);
        let helper = std::thread::Builder::new().name("names".into());
        let thread = helper.spawn(move || resolve(asked, found, &doorbell)).ok()?;
        Some(Self { questions, answers, thread: thread.thread().clone(), pending: 0 })
    }
}

/// The helper's loop.
fn resolve(mut asked: Consumer<Dial>, mut found: Producer<Resolved>, doorbell: &Doorbell) {
    loop {
        let Ok(Dial { id, host, port }) = asked.pop() else {
            if asked.is_abandoned() {
                return;
            }
            // An `unpark` between the look and this call makes it return at once.
            std::thread::park();
            continue;
        };
        let addresses = look_up(&host, port);
        if found.push(Resolved { dial: id, addresses }).is_err() {
            return;
        }
        doorbell.ring();
    }
}

fn look_up(host: &Arc<str>, port: u16) -> Vec<SocketAddr> {
    let mut addresses: Vec<SocketAddr> =
        (&**host, port).to_socket_addrs().map(Iterator::collect).unwrap_or_default();
    addresses.dedup();
    addresses
}
