//! Spans of time as users write and read them: `20s`, `1500ms`, `2m`, `1.5h`, `250us`, `90ns`.

use std::str::FromStr;
use std::time::Duration;

/// Why a span of time was not understood.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DurationError {
    /// The unit is missing or unknown.
    #[error("'{0}' has no unit of time: write ns, us, ms, s, m or h after the number, such as 20s or 1500ms")]
    Unit(String),
    /// What stands before the unit is no number, or a negative one.
    #[error("'{0}' is not a positive number followed by a unit of time, such as 20s or 1500ms")]
    Number(String),
    /// Longer than [`LONGEST`].
    #[error("'{0}' is longer than 1000 hours: choose a shorter time")]
    TooLong(String),
}

/// No run and no limit may be longer: it keeps every sum of nanoseconds far from overflow.
pub const LONGEST: Duration = Duration::from_secs(1000 * 3600);

/// Reads a number and a unit. The number may have decimals; the result is exact to the nanosecond.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let text = text.trim();
    let unit_at = text
        .find(|character: char| character.is_ascii_alphabetic() || character == 'µ')
        .ok_or_else(|| DurationError::Unit(text.to_owned()))?;
    let (number, unit) = text.split_at(unit_at);
    let unit_ns = match unit {
        "ns" => 1.0,
        "us" | "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" | "min" => 60e9,
        "h" => 3600e9,
        _ => return Err(DurationError::Unit(text.to_owned())),
    };
    let number = f64::from_str(number.trim_end()).map_err(|_| DurationError::Number(text.to_owned()))?;
    if !number.is_finite() || number < 0.0 {
        return Err(DurationError::Number(text.to_owned()));
    }
    let span_ns = number * unit_ns;
    if span_ns > LONGEST.as_nanos() as f64 {
        return Err(DurationError::TooLong(text.to_owned()));
    }
    Ok(Duration::from_nanos(span_ns.round() as u64))
}

/// Like [`parse`], but a span of no length is refused: for durations and speeds that divide.
pub fn parse_positive(text: &str) -> Result<Duration, DurationError> {
    match parse(text)? {
        Duration::ZERO => Err(DurationError::Number(text.to_owned())),
        span => Ok(span),
    }
}

/// Nanoseconds as people read them: three significant digits and the unit that suits them.
pub fn display_ns(span_ns: u64) -> String {
    let (scaled, unit) = match span_ns {
        0..1_000 => return format!("{span_ns} ns"),
        1_000..1_000_000 => (span_ns as f64 / 1e3, "us"),
        1_000_000..1_000_000_000 => (span_ns as f64 / 1e6, "ms"),
        _ => (span_ns as f64 / 1e9, "s"),
    };
    let decimals = match scaled {
        ..10.0 => 2,
        10.0..100.0 => 1,
        _ => 0,
    };
    format!("{scaled:.decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_decimals() {
        for (text, nanos) in [
            ("20s", 20_000_000_000),
            ("1500ms", 1_500_000_000),
            ("2m", 120_000_000_000),
            ("0.5h", 1_800_000_000_000),
            ("1.5us", 1_500),
            ("7ns", 7),
            ("0s", 0),
            (" 3 ms ", 3_000_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for text in ["", "20", "20x", "20seconds"] {
            assert!(matches!(parse(text), Err(DurationError::Unit(_))), "{text}");
        }
        for text in ["s", "-1s", "1.2.3s", "--s"] {
            assert!(matches!(parse(text), Err(DurationError::Number(_))), "{text}");
        }
        assert!(matches!(parse("1001h"), Err(DurationError::TooLong(_))));
        assert!(matches!(parse_positive("0ms"), Err(DurationError::Number(_))));
    }

    #[test]
    fn shown_with_three_digits() {
        let shown: Vec<String> = [0, 999, 1_234, 12_345, 123_456, 300_000_000, 61_200_000_000]
            .into_iter()
            .map(display_ns)
            .collect();
        assert_eq!(shown, ["0 ns", "999 ns", "1.23 us", "12.3 us", "123 us", "300 ms", "61.2 s"]);
    }
}
