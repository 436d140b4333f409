//! How the budget moves: halved where it hurts, and grown along CUBIC's curve (RFC 9438) after that.
//!
//! ```text
//! rate |                              /
//!      |  top ........._______-------'      lingers at the rate that hurt, then probes, ever faster
//!      |          .--'
//!      |  top/2 -'
//!      +----------+----------+----------+--> time since it hurt
//!                 0       PLATEAU   2 PLATEAU
//! ```

use super::seconds;
use crate::time::{Duration, Instant};

/// Of what hurt, so much is kept.
const KEPT: f64 = 0.5;
/// From a halving to the rate before it.
const PLATEAU: Duration = Duration::from_secs(2);
/// Bytes a second; no shard can do more.
const MOST: f64 = (4u64 << 30) as f64;

/// `least <= rate <= MOST`.
#[derive(Debug)]
pub(super) struct Law {
    rate: f64,
    least: f64,
    /// The rate that hurt last, and since when it has not.
    top: Option<(f64, Instant)>,
}

impl Law {
    pub(super) fn new(least: f64) -> Self {
        let least = least.min(MOST);
        Self { rate: least, least, top: None }
    }

    pub(super) const fn rate(&self) -> f64 {
        self.rate
    }

    pub(super) const fn least(&self) -> f64 {
        self.least
    }

    /// It hurts, and so much was used. What was not used can't have hurt.
    pub(super) fn slow_down(&mut self, now: Instant, used: f64) {
        let top = self.rate.min(used).max(self.least);
        self.top = Some((top, now));
        self.rate = (top * KEPT).max(self.least);
    }

    /// It doesn't hurt, and somebody wants more.
    pub(super) fn speed_up(&mut self, now: Instant) {
        let rate = match self.top {
            // Doubled in each interval, until it hurts for the first time.
            None => self.rate * 2.0,
            Some((top, since)) => {
                let past = seconds(now.since(since)) / seconds(PLATEAU) - 1.0;
                top * (1.0 + (1.0 - KEPT) * past * past * past)
            }
        };
        self.rate = rate.clamp(self.rate, MOST);
    }

    /// Nobody wants more: this time doesn't count.
    pub(super) fn stand_still(&mut self, span: Duration) {
        if let Some((_, since)) = &mut self.top {
            *since = *since + span;
        }
    }
}
