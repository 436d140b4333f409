//! Student's t, for any degrees of freedom, by the incomplete beta function (Abramowitz and Stegun, 26.5.8, 26.7.1).
//!
//! Degrees of freedom after Welch are no whole numbers, and rounding 3.9 down to 3 would widen an interval by a quarter.

use std::f64::consts::PI;

/// How many standard errors on either side hold the truth with this confidence. `0 < confidence < 1`, `freedom >= 1`.
pub fn quantile(confidence: f64, freedom: f64) -> f64 {
    assert!(0.0 < confidence && confidence < 1.0, "a confidence of {confidence} has no quantile");
    /// More than any that a confidence of 99.999% has, with one degree of freedom.
    const FAR: f64 = 1e7;
    let freedom = freedom.clamp(1.0, FREEDOM_MAX);
    let (mut low, mut high) = (0.0, FAR);
    // Halving until neighbouring floats: a hundred steps from any start.
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if beyond(middle, freedom) > 1.0 - confidence { low = middle } else { high = middle }
    }
    high
}

/// How large a difference is, in standard errors, that is found with this confidence in four of five tries: more than the
/// quantile, as large as which is found in half of them. After Johnson and Welch (1940): the estimated error varies too, and is
/// too small on average by a factor `c`.
pub fn detectable(confidence: f64, freedom: f64) -> f64 {
    /// The normal distribution's quantile at 80%.
    const POWER: f64 = 0.8416;
    let t = quantile(confidence, freedom);
    let c = 1.0 - 1.0 / (4.0 * freedom.clamp(1.0, FREEDOM_MAX));
    let spread = (1.0 + t * t * (1.0 - c * c)).sqrt();
    (t * c + POWER * spread) / c
}

/// Beyond this, it is the normal distribution to four digits.
const FREEDOM_MAX: f64 = 1000.0;

/// The probability that |t| is larger than this.
fn beyond(t: f64, freedom: f64) -> f64 {
    incomplete_beta(freedom / (freedom + t * t), freedom / 2.0, 0.5)
}

/// The regularized incomplete beta function, `0 <= x <= 1`.
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    let logarithm = ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (1.0 - x).ln();
    let front = logarithm.exp();
    // The fraction converges fast on one side of the mean, so the other is had by symmetry.
    if x < (a + 1.0) / (a + b + 2.0) {
        front * fraction(x, a, b) / a
    } else {
        1.0 - front * fraction(1.0 - x, b, a) / b
    }
}

/// The continued fraction of the incomplete beta function, by Lentz's method.
fn fraction(x: f64, a: f64, b: f64) -> f64 {
    const STEPS_MAX: u32 = 1000;
    const NEAR_ENOUGH: f64 = 1e-15;
    let not_zero = |value: f64| if value.abs() < f64::MIN_POSITIVE { f64::MIN_POSITIVE } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / not_zero(1.0 - (a + b) * x / (a + 1.0));
    let mut product = d;
    for step in 1..=STEPS_MAX {
        let m = f64::from(step);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / not_zero(1.0 + even * d);
        c = not_zero(1.0 + even / c);
        product *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / not_zero(1.0 + odd * d);
        c = not_zero(1.0 + odd / c);
        product *= d * c;
        if (d * c - 1.0).abs() < NEAR_ENOUGH {
            break;
        }
    }
    product
}

/// The logarithm of the gamma function for `x > 0`: Stirling's series (6.1.41) from 10 on, the recurrence below.
fn ln_gamma(x: f64) -> f64 {
    const SERIES_FROM: f64 = 10.0;
    let (mut x, mut below) = (x, 0.0);
    while x < SERIES_FROM {
        below += x.ln();
        x += 1.0;
    }
    let square = x * x;
    let series =
        (1.0 / 12.0 - (1.0 / 360.0 - (1.0 / 1260.0 - 1.0 / (1680.0 * square)) / square) / square) / x;
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * PI).ln() + series - below
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From any printed table.
    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (confidence, freedom, expected) in [
            (0.95, 1.0, 12.706),
            (0.95, 2.0, 4.303),
            (0.95, 3.0, 3.182),
            (0.95, 10.0, 2.228),
            (0.99, 9.0, 3.250),
            (0.99, 30.0, 2.750),
            (0.998, 15.0, 3.733),
            (0.999, 5.0, 6.869),
            (0.99, 1e9, 2.5808),
        ] {
            let quantile = quantile(confidence, freedom);
            assert!(
                (quantile - expected).abs() < 0.002,
                "{confidence} {freedom}: {quantile}, expected {expected}"
            );
        }
        assert_eq!(quantile(0.95, 0.3), quantile(0.95, 1.0));
    }

    /// Between whole numbers too: 3.9 degrees of freedom are nearly four, and not three.
    #[test]
    fn degrees_of_freedom_need_not_be_whole() {
        let [three, nearly, four] = [3.0, 3.9, 4.0].map(|freedom| quantile(0.99, freedom));
        assert!((three - 5.841).abs() < 0.002 && (four - 4.604).abs() < 0.002);
        assert!(four < nearly && nearly < 4.71, "{nearly}");
    }

    /// With many degrees of freedom the error is known, and the two quantiles add up.
    #[test]
    fn what_is_detectable_lies_beyond_the_quantile() {
        assert!((detectable(0.99, 1e9) - (2.5808 + 0.8416)).abs() < 0.01);
        assert!(detectable(0.99, 4.0) > quantile(0.99, 4.0) + 0.94);
    }
}
