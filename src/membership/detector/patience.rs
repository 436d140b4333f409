//! How long to wait for one peer, learned from how long it took.

use crate::time::Duration;

/// A peer is suspected when one healthy peer in 10^8 would be silent for so long. Cassandra's
/// `phi_convict_threshold` and Akka's cluster `failure-detector.threshold` are both 8.
pub const PHI_SUSPECTED: f64 = 8.0;

/// The normal distribution leaves 10^-8 above so many deviations from the mean: `PHI_SUSPECTED` on that scale.
const DEVIATIONS: f64 = 5.612;

/// A deviation is never taken for less, or the first hiccup of a steady link would be a death. Half of Akka's
/// `min-std-deviation` (100 ms), as the heartbeat's interval is half of Akka's.
const DEVIATION_MIN: Duration = Duration::from_millis(50);

/// Nobody is suspected sooner: a lost segment is sent again after 200 ms at least (`TCP_RTO_MIN` of Linux), and
/// two probes should have had their chance.
pub const PATIENCE_MIN: Duration = Duration::from_millis(300);

/// Nobody is trusted for longer: with half a second between two heartbeats and a tenth between two looks at the
/// links, an idle peer's death is noticed within 2 s over any link.
pub const PATIENCE_MAX: Duration = Duration::from_millis(1400);

/// Mean and deviation before anything was heard. They make a patience of 1 s, and weigh as much as one answer.
const MEAN_FIRST: Duration = Duration::from_millis(100);
const DEVIATION_FIRST: Duration = Duration::from_millis(160);

/// The mean follows the last so many answers: about half a minute of heartbeats. Akka's window of 200 and
/// Cassandra's of 1000 are arrays; a weighted mean of this reach is two numbers.
const WINDOW: f64 = 64.0;

/// Exponentially weighted mean and variance of a peer's answer times, in nanoseconds (Finch, "Incremental
/// calculation of weighted mean and variance", 2009, §9). The mean of the first `WINDOW` weighs all alike.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    mean: f64,
    variance: f64,
    /// `1 <= heard <= WINDOW`.
    heard: f64,
    /// `PATIENCE_MIN <= span <= PATIENCE_MAX`.
    span: Duration,
}

impl Patience {
    /// Suspect after so much silence.
    pub(super) const fn span(&self) -> Duration {
        self.span
    }

    /// An answer took so long. It counts as no more than the present patience: a peer that was stopped for an
    /// hour says nothing about the link, while one that became slow is believed after a few suspicions.
    pub(super) fn learn(&mut self, took: Duration) {
        let took = took.min(self.span).0 as f64;
        self.heard = (self.heard + 1.0).min(WINDOW);
        let weight = 1.0 / self.heard;
        let off = took - self.mean;
        self.mean += weight * off;
        self.variance = (1.0 - weight) * (self.variance + weight * off * off);
        self.span = self.reckon();
    }

    /// -log10 of the chance that a healthy peer is silent for longer.
    pub(super) fn phi(&self, silence: Duration) -> f64 {
        let deviations = (silence.0 as f64 - self.mean) / self.deviation();
        let more = log10_of_tail(deviations.abs());
        if deviations >= 0.0 { -more } else { -(1.0 - 10f64.powf(more)).log10() }
    }

    fn deviation(&self) -> f64 {
        self.variance.sqrt().max(DEVIATION_MIN.0 as f64)
    }

    fn reckon(&self) -> Duration {
        let span = self.mean + DEVIATIONS * self.deviation();
        Duration(span as u64).clamp(PATIENCE_MIN, PATIENCE_MAX)
    }
}

impl Default for Patience {
    fn default() -> Self {
        let (mean, deviation) = (MEAN_FIRST.0 as f64, DEVIATION_FIRST.0 as f64);
        let first = Self { mean, variance: deviation * deviation, heard: 1.0, span: PATIENCE_MAX };
        Self { span: first.reckon(), ..first }
    }
}

/// Log10 of the normal distribution's tail above `deviations >= 0`, right to 0.3% of the tail (Börjesson and
/// Sundberg, 1979).
fn log10_of_tail(deviations: f64) -> f64 {
    let square = deviations * deviations;
    let mills = 0.661 * deviations + 0.339 * (square + 5.51).sqrt();
    -(square / 2.0) * std::f64::consts::LOG10_E - (mills * std::f64::consts::TAU.sqrt()).log10()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tails of the normal distribution as tables have them.
    #[test]
    fn phi_is_the_normal_distributions() {
        let patience = Patience::default();
        for (deviations, phi) in [(0.5, 0.5107), (1.0, 0.7995), (2.0, 1.6430), (4.0, 4.4993)] {
            let silence = MEAN_FIRST.0 as f64 + deviations * DEVIATION_FIRST.0 as f64;
            let seen = patience.phi(Duration(silence as u64));
            assert!((seen - phi).abs() < 0.002, "{deviations} deviations: {seen}, not {phi}");
        }
        let at_the_threshold = MEAN_FIRST.0 as f64 + DEVIATIONS * DEVIATION_FIRST.0 as f64;
        assert!((patience.phi(Duration(at_the_threshold as u64)) - PHI_SUSPECTED).abs() < 0.002);
        assert!(patience.phi(Duration::ZERO) < 0.15, "hardly suspicious before the mean");
    }

    #[test]
    fn a_steady_peer_is_soon_given_the_least_patience_and_a_stop_does_not_spoil_it() {
        let mut patience = Patience::default();
        assert_eq!(patience.span().as_millis(), 997);
        (0..10).for_each(|_| patience.learn(Duration::from_millis(2)));
        assert!(patience.span() < Duration::from_millis(350), "after 5 s: {:?}", patience.span());
        (0..10).for_each(|_| patience.learn(Duration::from_millis(2)));
        assert_eq!(patience.span(), PATIENCE_MIN, "after 10 s of heartbeats");
        (0..60).for_each(|_| patience.learn(Duration::from_millis(2)));
        patience.learn(Duration::from_secs(3600));
        assert!(patience.span() < Duration::from_millis(320), "{:?}", patience.span());
    }

    #[test]
    fn a_link_that_became_slow_is_believed_after_a_few_suspicions() {
        let mut patience = Patience::default();
        (0..100).for_each(|_| patience.learn(Duration::from_millis(2)));
        let slow = Duration::from_millis(400);
        let wrong = (0..100).map(|_| (patience.span(), patience.learn(slow)).0).filter(|span| *span <= slow);
        assert!((1..=4).contains(&wrong.count()));
    }

    #[test]
    fn patience_has_its_bounds() {
        let mut patience = Patience::default();
        for step in 0..1000 {
            patience.learn(Duration::from_millis(if step % 2 == 0 { 0 } else { 5000 }));
            assert!((PATIENCE_MIN..=PATIENCE_MAX).contains(&patience.span()));
        }
        assert_eq!(patience.span(), PATIENCE_MAX);
    }
}
