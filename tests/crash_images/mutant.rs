//! What the log's own failpoints do here: a bug, planted or not, in the same machines that production runs.

use std::cell::Cell;
use std::rc::Rc;

use ringmain::failpoint::{Bug, Failpoints};

/// One planted bug, or none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mutant {
    pub(crate) bug: Option<Bug>,
    /// A clock that counts since the last reboot, and says another time whenever it is read.
    clock: Rc<Cell<u64>>,
}

impl Mutant {
    pub(crate) fn of(bug: Bug) -> Self {
        Self { bug: Some(bug), clock: Rc::default() }
    }

    /// The machine restarts, and its monotonic clock with it.
    pub(crate) fn reboot(&self) {
        self.clock.set(0);
    }
}

impl Failpoints for Mutant {
    fn planted(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn segment_id(&self, counted: u64) -> u64 {
        if !self.planted(Bug::SegmentIdByClock) {
            return counted;
        }
        self.clock.set(self.clock.get() + 1);
        self.clock.get()
    }
}
