//! Ranks with Zipf's popularity: rank `k` of `n` (from 1) has weight `1 / k^exponent`.
//!
//! Sampled by rejection-inversion (W. Hörmann and G. Derflinger, "Rejection-inversion to generate variates
//! from monotone discrete distributions", ACM TOMACS 6(3), 1996): exact for every exponent from 0 up,
//! including 1 and above, and with nothing to prepare. YCSB's method (Gray et al., SIGMOD 1994) needs the
//! sum of all weights first, and holds below 1 only.
//!
//! In short: the weight function `h(x) = x^-exponent` has an integral `H` with a closed inverse. A point
//! drawn evenly under `H` and mapped back is a continuous rank; it is rounded, and the few points that fall
//! outside the bar of that rank are drawn again. Fewer than 1.4 draws are needed on average (tested).

use ringmain::prng::Prng;

/// Draws ranks from 1 to `count`.
#[derive(Clone, Debug)]
pub struct Zipf {
    count: f64,
    exponent: f64,
    /// `H(1.5) - h(1)`: where the area of rank 1 begins.
    area_start: f64,
    /// `H(count + 0.5)`: where the area of the last rank ends.
    area_end: f64,
    /// A rounded rank no further than this above its point is accepted without another look.
    sure: f64,
}

impl Zipf {
    /// `count` must be at least 1, `exponent` finite and not negative; 0 is the uniform distribution.
    pub fn new(count: u64, exponent: f64) -> Self {
        assert!(count >= 1, "there must be a rank to draw");
        assert!(exponent.is_finite() && exponent >= 0.0, "the exponent {exponent} gives no distribution");
        let mut zipf = Self { count: count as f64, exponent, area_start: 0.0, area_end: 0.0, sure: 0.0 };
        zipf.area_start = zipf.integral(1.5) - 1.0;
        zipf.area_end = zipf.integral(zipf.count + 0.5);
        zipf.sure = 2.0 - zipf.integral_inverse(zipf.integral(2.5) - zipf.weight(2.0));
        zipf
    }

    /// A rank in `1..=count`, 1 the most popular.
    pub fn draw(&self, prng: &mut Prng) -> u64 {
        loop {
            if let Some(rank) = self.attempt(prng) {
                return rank;
            }
        }
    }

    fn attempt(&self, prng: &mut Prng) -> Option<u64> {
        let area = self.area_end + prng.unit() * (self.area_start - self.area_end);
        let point = self.integral_inverse(area);
        let rank = point.round().clamp(1.0, self.count);
        let accepted = rank - point <= self.sure || area >= self.integral(rank + 0.5) - self.weight(rank);
        accepted.then_some(rank as u64)
    }

    fn weight(&self, x: f64) -> f64 {
        (-self.exponent * x.ln()).exp()
    }

    /// `H(x) = (x^(1 - exponent) - 1) / (1 - exponent)`, and `ln x` at exponent 1, without a jump between.
    fn integral(&self, x: f64) -> f64 {
        let log = x.ln();
        exp_m1_over((1.0 - self.exponent) * log) * log
    }

    fn integral_inverse(&self, area: f64) -> f64 {
        // Rounding may push the argument just below -1, the edge of the logarithm.
        let scaled = (area * (1.0 - self.exponent)).max(-1.0);
        (ln_1p_over(scaled) * area).exp()
    }
}

/// `(e^x - 1) / x`, continuous at 0.
fn exp_m1_over(x: f64) -> f64 {
    if x.abs() > 1e-8 { x.exp_m1() / x } else { 1.0 + x / 2.0 }
}

/// `ln(1 + x) / x`, continuous at 0.
fn ln_1p_over(x: f64) -> f64 {
    if x.abs() > 1e-8 { x.ln_1p() / x } else { 1.0 - x / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pearson's chi-square against the exact weights: expected `cells - 1`, deviation `sqrt(2 * cells)`.
    fn chi_square(count: u64, exponent: f64, draws: u32) -> f64 {
        let zipf = Zipf::new(count, exponent);
        let mut prng = Prng::from_seed(11);
        let mut seen = vec![0u32; count as usize];
        for _ in 0..draws {
            seen[zipf.draw(&mut prng) as usize - 1] += 1;
        }
        let weights: Vec<f64> = (1..=count).map(|rank| (rank as f64).powf(-exponent)).collect();
        let total: f64 = weights.iter().sum();
        seen.iter()
            .zip(&weights)
            .map(|(&observed, weight)| {
                let expected = f64::from(draws) * weight / total;
                (f64::from(observed) - expected).powi(2) / expected
            })
            .sum()
    }

    #[test]
    fn ranks_follow_the_exact_weights() {
        for exponent in [0.0, 0.2, 0.5, 0.8, 0.99, 1.0, 1.000_000_001, 1.2, 2.0] {
            let chi = chi_square(100, exponent, 400_000);
            // 99 degrees of freedom: mean 99, deviation 14; five deviations up or down is no accident.
            assert!((29.0..169.0).contains(&chi), "exponent {exponent}: chi-square {chi}");
        }
    }

    #[test]
    fn one_rank_and_huge_counts_work() {
        let mut prng = Prng::from_seed(1);
        assert_eq!(Zipf::new(1, 0.99).draw(&mut prng), 1);
        let huge = Zipf::new(10_000_000_000, 0.99);
        assert!((0..10_000).all(|_| (1..=10_000_000_000).contains(&huge.draw(&mut prng))));
        let steep = Zipf::new(1_000_000, 8.0);
        let first = (0..10_000).filter(|_| steep.draw(&mut prng) == 1).count();
        assert!(first > 9_900, "{first} of 10000 draws gave rank 1");
    }

    #[test]
    fn few_draws_are_rejected() {
        for exponent in [0.1, 0.5, 0.99, 1.0, 1.5, 3.0] {
            let zipf = Zipf::new(1_000_000, exponent);
            let mut prng = Prng::from_seed(5);
            let accepted = (0..100_000).filter(|_| zipf.attempt(&mut prng).is_some()).count();
            assert!(accepted > 71_000, "exponent {exponent}: {accepted} of 100000 accepted");
        }
    }
}
