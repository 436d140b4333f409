//! The one timer of a connection.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// One timer, moved as seldom as possible.
pub(super) struct Clock {
    sleep: Pin<Box<Sleep>>,
}

impl Clock {
    /// Longer than any wait that matters; a fired timer only looks around.
    const FAR: Duration = Duration::from_secs(3600);

    pub(super) fn new() -> Self {
        Self { sleep: Box::pin(tokio::time::sleep(Self::FAR)) }
    }

    /// Make sure that it fires at `alarm` or before, but not more than once a millisecond. Returns when.
    pub(super) fn next(&mut self, alarm: Option<Instant>, now: Instant) -> Instant {
        let armed = self.sleep.deadline();
        let alarm = alarm.map_or(now + Self::FAR, |alarm| alarm.max(now + Duration::from_millis(1)));
        if armed <= now || alarm < armed {
            self.sleep.as_mut().reset(alarm);
        }
        self.sleep.deadline()
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.sleep.as_mut().poll(context)
    }
}
