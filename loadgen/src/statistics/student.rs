//! Student's t, for whole degrees of freedom, by its closed form (Abramowitz and Stegun, 26.7.3 and 26.7.4).

use std::f64::consts::{FRAC_2_PI, PI};

/// How many standard errors on either side hold the truth with this confidence. `0 < confidence < 1`; degrees of
/// freedom are rounded down, which errs to the wide side.
pub fn quantile(confidence: f64, freedom: f64) -> f64 {
    assert!(0.0 < confidence && confidence < 1.0, "a confidence of {confidence} has no quantile");
    /// More than any that a confidence of 99.999% has, with one degree of freedom.
    const FAR: f64 = 1e7;
    let freedom = freedom.floor().clamp(1.0, FREEDOM_MAX) as u32;
    let (mut low, mut high) = (0.0, FAR);
    // Halving until neighbouring floats: a hundred steps from any start.
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if within(middle, freedom) < confidence { low = middle } else { high = middle }
    }
    high
}

/// Beyond this, it is the normal distribution to four digits.
const FREEDOM_MAX: f64 = 1000.0;

/// The probability that |t| is no larger than this.
fn within(t: f64, freedom: u32) -> f64 {
    let root = f64::from(freedom).sqrt();
    let angle = (t / root).atan();
    let (sine, cosine) = angle.sin_cos();
    let square = cosine * cosine;
    if freedom.is_multiple_of(2) {
        let (mut term, mut sum) = (1.0, 1.0);
        for step in 1..freedom / 2 {
            let step = f64::from(step);
            term *= (2.0 * step - 1.0) / (2.0 * step) * square;
            sum += term;
        }
        return sine * sum;
    }
    if freedom == 1 {
        return 2.0 * angle / PI;
    }
    let (mut term, mut sum) = (cosine, cosine);
    for step in 1..(freedom - 1) / 2 {
        let step = f64::from(step);
        term *= 2.0 * step / (2.0 * step + 1.0) * square;
        sum += term;
    }
    FRAC_2_PI * (angle + sine * sum)
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
        assert_eq!(quantile(0.95, 9.99), quantile(0.95, 9.0));
        assert_eq!(quantile(0.95, 0.3), quantile(0.95, 1.0));
    }
}
