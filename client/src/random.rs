//! A little randomness, for names that must not collide and for jitter. Never for secrets.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// 64 bits that no other process or call is likely to draw: the standard library seeds its hash tables from
/// the operating system, and that is all that is needed here.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(0u8)
}

/// Half to one and a half times `duration`, so that clients which failed together don't return together.
pub(crate) fn jitter(duration: Duration) -> Duration {
    let fraction = (random() >> 32) as f64 / f64::from(u32::MAX);
    duration.mul_f64(0.5 + fraction)
}

/// Exponential back-off with jitter: about `base`, twice that, and so on up to about `max`.
pub(crate) fn back_off(failures: u32, base: Duration, max: Duration) -> Duration {
    let factor = 1u32 << failures.saturating_sub(1).min(16);
    jitter(base.saturating_mul(factor).min(max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_grows_within_its_bounds() {
        let (base, max) = (Duration::from_millis(20), Duration::from_secs(2));
        for failures in 0..40 {
            let wait = back_off(failures, base, max);
            assert!(wait >= base / 2 && wait <= max * 3 / 2, "{wait:?} after {failures} failures");
        }
        assert!(back_off(40, base, max) >= max / 2);
        assert_ne!(random(), random());
    }
}
