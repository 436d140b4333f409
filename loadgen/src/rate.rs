//! How many operations are offered in how much time: `579/s`, `10k/s`, `50M/day`, `1B/day`, `90/min`.
//!
//! A rate is kept as a fraction of whole numbers, so that operation number `i` is due at exactly
//! `i * period / operations`: nothing adds up over a long run.

use std::fmt;
use std::str::FromStr;

/// Operations in a period of nanoseconds. Both are positive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    operations: u64,
    period_ns: u64,
}

/// Why a rate was not understood.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RateError {
    /// Neither a bare number nor one with a known period.
    #[error("'{0}' has no known period: write /s, /min, /hour or /day, such as 579/s or 50M/day")]
    Period(String),
    /// The number can't be read.
    #[error("'{0}' doesn't start with a number such as 579, 1.5, 10k, 50M or 1B")]
    Number(String),
    /// Nothing would ever be offered.
    #[error("'{0}' offers nothing: the rate must be above 0")]
    Zero(String),
    /// More than any one generator could offer.
    #[error(
        "'{0}' is above 10 million operations a second, more than one generator can offer: lower the rate"
    )]
    TooHigh(String),
    /// More digits than an exact fraction holds.
    #[error("'{0}' has too many digits: nine significant ones are enough")]
    TooLong(String),
}

impl Rate {
    /// Above this no single generator is honest.
    pub const PER_SECOND_MAX: u64 = 10_000_000;

    /// So many operations a second.
    pub fn per_second(self) -> f64 {
        self.operations as f64 * 1e9 / self.period_ns as f64
    }

    /// When operation number `index` (from 0) is due, in nanoseconds from the start, if they come evenly.
    pub fn due_ns(self, index: u64) -> u64 {
        let due = u128::from(index) * u128::from(self.period_ns) / u128::from(self.operations);
        u64::try_from(due).unwrap_or(u64::MAX)
    }

    /// The mean time from one operation to the next, in nanoseconds.
    pub fn gap_ns(self) -> f64 {
        self.period_ns as f64 / self.operations as f64
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let trimmed = text.trim();
        let (number, period) = trimmed.split_once('/').unwrap_or((trimmed, "s"));
        let period_ns: u64 = match period.trim() {
            "s" | "sec" | "second" => 1_000_000_000,
            "m" | "min" | "minute" => 60_000_000_000,
            "h" | "hour" => 3_600_000_000_000,
            "d" | "day" => 86_400_000_000_000,
            _ => return Err(RateError::Period(text.to_owned())),
        };
        let (operations, decimals) = parse_number(number.trim(), text)?;
        let too_long = || RateError::TooLong(text.to_owned());
        let period_ns = 10u64.checked_pow(decimals).and_then(|scale| period_ns.checked_mul(scale));
        let rate = Self { operations, period_ns: period_ns.ok_or_else(too_long)? };
        if operations == 0 {
            return Err(RateError::Zero(text.to_owned()));
        }
        if rate.per_second() > Self::PER_SECOND_MAX as f64 {
            return Err(RateError::TooHigh(text.to_owned()));
        }
        Ok(rate)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_second = self.per_second();
        match per_second {
            ..10.0 => write!(formatter, "{per_second:.2}/s"),
            10.0..100.0 => write!(formatter, "{per_second:.1}/s"),
            _ => write!(formatter, "{per_second:.0}/s"),
        }
    }
}

/// `1.5M` as (1 500 000 * 10, 1): a whole number and how many of its digits are decimals.
fn parse_number(number: &str, text: &str) -> Result<(u64, u32), RateError> {
    let not_a_number = || RateError::Number(text.to_owned());
    let (digits, multiplier) = match number.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&number[..at], 1_000),
        Some((at, 'M')) => (&number[..at], 1_000_000),
        Some((at, 'B' | 'G')) => (&number[..at], 1_000_000_000),
        _ => (number, 1u64),
    };
    let (whole, decimals) = digits.split_once('.').unwrap_or((digits, ""));
    let joined = format!("{whole}{decimals}");
    if joined.is_empty() || !joined.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(not_a_number());
    }
    let too_long = || RateError::TooLong(text.to_owned());
    let value: u64 = joined.parse().map_err(|_| too_long())?;
    let value = value.checked_mul(multiplier).ok_or_else(too_long)?;
    Ok((value, decimals.len() as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Rate, RateError> {
        text.parse()
    }

    #[test]
    fn periods_and_multipliers() {
        for (text, per_second) in [
            ("579/s", 579.0),
            ("11574", 11_574.0),
            ("10k/s", 10_000.0),
            ("50M/day", 50e6 / 86_400.0),
            ("1B/day", 1e9 / 86_400.0),
            ("1.5M/hour", 1.5e6 / 3600.0),
            ("90/min", 1.5),
            ("0.25/s", 0.25),
        ] {
            let rate = parse(text).unwrap_or_else(|error| panic!("{error}"));
            assert!((rate.per_second() / per_second - 1.0).abs() < 1e-12, "{text}: {rate:?}");
        }
    }

    /// A day at 50 million a day ends exactly with operation 50 000 000, whatever happens in between.
    #[test]
    fn due_moments_do_not_drift() {
        let rate = parse("50M/day").expect("a rate");
        assert_eq!(rate.due_ns(0), 0);
        assert_eq!(rate.due_ns(1), 1_728_000);
        assert_eq!(rate.due_ns(50_000_000), 86_400_000_000_000);
        let third = parse("3/s").expect("a rate");
        assert_eq!(third.due_ns(3_000_000), 1_000_000_000_000_000);
    }

    #[test]
    fn mistakes_are_named() {
        assert!(matches!(parse("5/fortnight"), Err(RateError::Period(_))));
        assert!(matches!(parse("5/"), Err(RateError::Period(_))));
        for text in ["", "/s", "k/s", "-5/s", "1e3", "fast", ".", "5 0/s"] {
            assert!(matches!(parse(text), Err(RateError::Number(_))), "{text}");
        }
        for text in ["0/s", "0.0M/day"] {
            assert!(matches!(parse(text), Err(RateError::Zero(_))), "{text}");
        }
        assert!(matches!(parse("11M/s"), Err(RateError::TooHigh(_))));
        for text in ["99999999999999999999/s", "1.00000000000000000001/s"] {
            assert!(matches!(parse(text), Err(RateError::TooLong(_))), "{text}");
        }
    }

    #[test]
    fn shown_a_second() {
        assert_eq!(parse("50M/day").expect("a rate").to_string(), "579/s");
        assert_eq!(parse("1B/day").expect("a rate").to_string(), "11574/s");
        assert_eq!(parse("90/min").expect("a rate").to_string(), "1.50/s");
    }
}
