//! Background work asks here before each step, and pays afterwards (docs/adr/0014).

use crate::failpoint::{Bug, Failpoints, Rare};
use crate::pace::{Cause, Claimant, Reading};
use crate::time::{Duration, Instant, Now};

use super::Shard;

impl<F: Failpoints> Shard<F> {
    /// May it take a step now?
    pub(super) fn may_spend(&mut self, claimant: Claimant, now: Now) -> bool {
        let may = self.pace.may_spend(claimant, now.monotonic);
        if !may && self.pace.is_held_back() {
            self.failpoints.reached(Rare::BackgroundHeldBack);
        }
        may && !self.starves()
    }

    /// What [`Bug::BackgroundStarves`] makes of a budget that was cut once.
    fn starves(&self) -> bool {
        self.failpoints.planted(Bug::BackgroundStarves) && self.pace.reading().halvings != [0, 0]
    }

    /// When to ask again after a no.
    pub(super) fn ready_at(&self, claimant: Claimant, now: Now) -> Instant {
        if self.starves() {
            return now.monotonic + Duration::from_secs(1);
        }
        self.pace.ready_at(claimant, now.monotonic)
    }

    /// The controller's figures, as status shows them: rates are bytes' worth a second.
    pub(super) fn pace_gauges(&self) -> [(&'static str, u64); 21] {
        let Reading { rate, used, latency, waits, held_back_by, halvings } = self.pace.reading();
        let by = |cause| u64::from(held_back_by == Some(cause));
        let [handoff, streaming, serving, comparing, compaction, expiry] =
            Claimant::ALL.map(|one| self.pace.spent_by(one));
        [
            ("background_budget_bytes_per_second", rate),
            ("background_used_bytes_per_second", used),
            ("background_held_back_by_latency", by(Cause::Latency)),
            ("background_held_back_by_waits", by(Cause::Waits)),
            ("background_halved_for_latency", halvings[0]),
            ("background_halved_for_waits", halvings[1]),
            ("foreground_latency_us", latency[0].as_micros()),
            ("foreground_latency_usual_us", latency[1].as_micros()),
            ("foreground_wait_us", waits[0].as_micros()),
            ("foreground_wait_usual_us", waits[1].as_micros()),
            ("background_handoff_bytes", handoff[0]),
            ("background_handoff_keys", handoff[1]),
            ("background_streaming_bytes", streaming[0]),
            ("background_streaming_keys", streaming[1]),
            ("background_serving_bytes", serving[0]),
            ("background_serving_keys", serving[1]),
            ("background_anti_entropy_bytes", comparing[0]),
            ("background_anti_entropy_keys", comparing[1]),
            ("background_compaction_bytes", compaction[0]),
            ("background_compaction_keys", compaction[1]),
            ("background_expiry_bytes", expiry[0]),
        ]
    }
}
