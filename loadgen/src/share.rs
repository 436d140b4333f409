//! Shares of a whole: `read=50,write=45,delete=5` and `64:50%,1024:50%` are the same idea.
//!
//! Shares must add up to 100, so that a forgotten or doubled entry is noticed rather than rescaled away.

use ringmain::prng::Prng;

/// Things that are each chosen a share of the time.
#[derive(Clone, PartialEq, Debug)]
pub struct Shares<T> {
    /// Each thing with the sum of the shares up to and including its own, in `(0, 1]`; the last is 1.
    entries: Vec<(T, f64)>,
}

/// Why shares were not accepted.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum ShareError {
    /// Not a number, or negative.
    #[error("'{0}' is no share: write a number of percent from 0 to 100")]
    Number(String),
    /// They miss 100.
    #[error("the shares add up to {0}, not to 100: change one of them")]
    Sum(f64),
}

impl<T: Copy> Shares<T> {
    /// From things and percentages. Things without a share are dropped.
    pub fn new(parts: &[(T, f64)]) -> Result<Self, ShareError> {
        let sum: f64 = parts.iter().map(|&(_, percent)| percent).sum();
        if (sum - 100.0).abs() > 1e-6 {
            return Err(ShareError::Sum(sum));
        }
        let mut upto = 0.0;
        let mut entries: Vec<(T, f64)> = Vec::with_capacity(parts.len());
        for &(thing, percent) in parts.iter().filter(|&&(_, percent)| percent > 0.0) {
            upto += percent / sum;
            entries.push((thing, upto));
        }
        // Rounding must not leave a sliver at the end that belongs to nobody.
        entries.last_mut().expect("shares that add up to 100 are not all 0").1 = 1.0;
        Ok(Self { entries })
    }

    /// One of the things, each as often as its share says.
    pub fn choose(&self, prng: &mut Prng) -> T {
        let point = prng.unit();
        let chosen = self.entries.iter().find(|&&(_, upto)| point < upto);
        chosen.expect("a point below 1 lies in the last share").0
    }

    /// The things that have a share at all.
    pub fn things(&self) -> impl Iterator<Item = T> + '_ {
        self.entries.iter().map(|&(thing, _)| thing)
    }
}

/// Reads `50` or `50%`.
pub fn parse_percent(text: &str) -> Result<f64, ShareError> {
    let text = text.trim();
    let number = text.strip_suffix('%').unwrap_or(text).trim_end();
    match number.parse::<f64>() {
        Ok(percent) if percent.is_finite() && percent >= 0.0 => Ok(percent),
        _ => Err(ShareError::Number(text.to_owned())),
    }
}
