//! How long values live: for ever, `60s`, or a list such as `4d:59%,2d:41%`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use ringmain::prng::Prng;

use crate::duration::{self, DurationError};
use crate::share::{ShareError, Shares, parse_percent};

/// A distribution of the time to live that a write asks for. By default, values live for ever.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Lifetimes {
    shares: Option<Shares<Duration>>,
    text: String,
}

/// Why lifetimes were not understood.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum LifetimesError {
    /// A part of a list without its share.
    #[error("'{0}' is no share of lifetimes: write a time and a percentage, such as 4d:59%,2d:41%")]
    Part(String),
    /// No time, or none that a server can keep.
    #[error("{0}")]
    Time(#[from] DurationError),
    /// Too short to be kept to.
    #[error("'{0}' is no lifetime: write 1ms or more, such as 60s, or none")]
    Short(String),
    /// The shares are wrong.
    #[error(transparent)]
    Share(#[from] ShareError),
}

/// Servers count in whole milliseconds.
const SHORTEST: Duration = Duration::from_millis(1);
const DAY_H: f64 = 24.0;
const DAYS_MAX: f64 = 36_500.0;

impl Lifetimes {
    /// How long the next value shall live; `None` for ever.
    pub fn draw(&self, prng: &mut Prng) -> Option<Duration> {
        self.shares.as_ref().map(|shares| shares.choose(prng))
    }
}

impl FromStr for Lifetimes {
    type Err = LifetimesError;

    fn from_str(text: &str) -> Result<Self, LifetimesError> {
        let text = text.trim();
        if text == "none" {
            return Ok(Self::default());
        }
        let parts: Vec<(Duration, f64)> = if text.contains(':') {
            text.split(',').map(parse_part).collect::<Result<_, _>>()?
        } else {
            vec![(parse_lifetime(text)?, 100.0)]
        };
        Ok(Self { shares: Some(Shares::new(&parts)?), text: text.to_owned() })
    }
}

impl fmt::Display for Lifetimes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.shares.is_some() { &self.text } else { "none" })
    }
}

fn parse_part(part: &str) -> Result<(Duration, f64), LifetimesError> {
    let (time, share) = part.split_once(':').ok_or_else(|| LifetimesError::Part(part.to_owned()))?;
    Ok((parse_lifetime(time)?, parse_percent(share)?))
}

/// Like a span of time elsewhere, and days too, which only lifetimes are long enough for.
fn parse_lifetime(text: &str) -> Result<Duration, LifetimesError> {
    let text = text.trim();
    let lifetime = match text.strip_suffix('d').and_then(|days| days.parse::<f64>().ok()) {
        Some(days) if (0.0..=DAYS_MAX).contains(&days) => Duration::from_secs_f64(days * DAY_H * 3600.0),
        Some(_) => return Err(DurationError::TooLong(text.to_owned()).into()),
        None => duration::parse(text)?,
    };
    if lifetime < SHORTEST { Err(LifetimesError::Short(text.to_owned())) } else { Ok(lifetime) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_come_as_often_as_their_share() {
        let lifetimes: Lifetimes = "4d:60%,300s:40%".parse().expect("lifetimes");
        let mut prng = Prng::from_seed(3);
        let drawn: Vec<Duration> = (0..10_000).filter_map(|_| lifetimes.draw(&mut prng)).collect();
        let long = drawn.iter().filter(|&&lifetime| lifetime == Duration::from_secs(4 * 86_400)).count();
        assert_eq!(drawn.len(), 10_000);
        // Deviation 49: five of them on either side.
        assert!((5755..6245).contains(&long), "{long}");
        assert_eq!(lifetimes.to_string(), "4d:60%,300s:40%");
    }

    #[test]
    fn one_lifetime_or_none() {
        let mut prng = Prng::from_seed(3);
        let draw = |text: &str, prng: &mut Prng| text.parse::<Lifetimes>().expect(text).draw(prng);
        assert_eq!(draw("92.6d", &mut prng), Some(Duration::from_secs_f64(92.6 * 86_400.0)));
        assert_eq!(draw("1500ms", &mut prng), Some(Duration::from_millis(1500)));
        assert_eq!(draw("none", &mut prng), None);
        assert_eq!(Lifetimes::default().to_string(), "none");
    }

    #[test]
    fn mistakes_are_named() {
        for (text, words) in [
            ("60", "has no unit"),
            ("0s", "1ms or more"),
            ("-5s", "positive"),
            ("1d:50%,2d", "no share of lifetimes"),
            ("1d:50%,2d:40%", "add up to 90"),
            ("99999d", "longer"),
        ] {
            let error = text.parse::<Lifetimes>().expect_err(text).to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
