//! Ctrl-C: the first asks for an early end with a report, the second ends the process at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Whether the user wants the run to end. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    raised: Arc<AtomicBool>,
}

/// What a shell says of a process that an interrupt ended.
const EXIT_AT_ONCE: i32 = 130;
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl Interrupt {
    /// Listens for SIGINT and SIGTERM from now on.
    pub fn listen() -> io::Result<Self> {
        let interrupt = Self::default();
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag down, and raises it.
            flag::register_conditional_shutdown(signal, EXIT_AT_ONCE, Arc::clone(&interrupt.raised))?;
            flag::register(signal, Arc::clone(&interrupt.raised))?;
        }
        Ok(interrupt)
    }

    /// The flag itself, for threads that look at it by themselves.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.raised)
    }

    /// Whether the user has asked.
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Relaxed)
    }

    /// Ready soon after the user has asked.
    pub async fn raised(&self) {
        while !self.is_raised() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
