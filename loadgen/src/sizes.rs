//! How long values are: `100`, `10..1000`, `lognormal:230,1.2`, or a list such as `64:50%,1024:30%,16384:20%`.

use std::fmt;
use std::str::FromStr;

use ringmain::prng::Prng;

use crate::share::{ShareError, Shares, parse_percent};

/// A distribution of value lengths in bytes, none above [`Sizes::MAX`].
#[derive(Clone, PartialEq, Debug)]
pub struct Sizes {
    text: String,
    shape: Shape,
}

#[derive(Clone, PartialEq, Debug)]
enum Shape {
    Fixed(u32),
    /// Both ends are included.
    Uniform {
        shortest: u32,
        longest: u32,
    },
    /// `ln(length)` is normal with mean `ln(median)` and deviation `sigma`; cut off at [`Sizes::MAX`].
    Lognormal {
        median: u32,
        sigma: f64,
    },
    Listed(Shares<u32>),
}

/// Why a distribution was not understood.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum SizesError {
    /// No known form.
    #[error("'{0}' is no value size: write 100, 10..1000, lognormal:MEDIAN,SIGMA or 64:50%,1024:50%")]
    Form(String),
    /// A length that can't be read or is above the limit.
    #[error("'{0}' is no length of a value: write a whole number of bytes from 0 to 8388608")]
    Length(String),
    /// The range ends before it begins.
    #[error("'{0}' ends before it begins: write the smaller length first")]
    Range(String),
    /// The deviation of a lognormal makes no sense.
    #[error("'{0}' is no sigma: write a number from 0 to 10, the deviation of the logarithm")]
    Sigma(String),
    /// The shares of a list are wrong.
    #[error(transparent)]
    Share(#[from] ShareError),
}

impl Sizes {
    /// The longest value in bytes: the server's default limit, 8 MiB.
    pub const MAX: u32 = 8 << 20;

    /// The length of the next value.
    pub fn draw(&self, prng: &mut Prng) -> u32 {
        match &self.shape {
            Shape::Fixed(length) => *length,
            Shape::Uniform { shortest, longest } => {
                shortest + prng.below(u64::from(longest - shortest) + 1) as u32
            }
            Shape::Lognormal { median, sigma } => {
                let length = f64::from(*median) * (sigma * standard_normal(prng)).exp();
                length.round().min(f64::from(Self::MAX)) as u32
            }
            Shape::Listed(shares) => shares.choose(prng),
        }
    }

    /// No value is shorter.
    pub fn shortest(&self) -> u32 {
        match &self.shape {
            Shape::Fixed(length) => *length,
            Shape::Uniform { shortest, .. } => *shortest,
            Shape::Lognormal { median, sigma } if *sigma == 0.0 => *median,
            Shape::Lognormal { .. } => 0,
            Shape::Listed(shares) => shares.things().min().unwrap_or(0),
        }
    }

    /// No value is longer.
    pub fn longest(&self) -> u32 {
        match &self.shape {
            Shape::Fixed(length) => *length,
            Shape::Uniform { longest, .. } => *longest,
            Shape::Lognormal { median, sigma } if *sigma == 0.0 => *median,
            Shape::Lognormal { .. } => Self::MAX,
            Shape::Listed(shares) => shares.things().max().unwrap_or(0),
        }
    }
}

impl FromStr for Sizes {
    type Err = SizesError;

    fn from_str(text: &str) -> Result<Self, SizesError> {
        let trimmed = text.trim();
        let shape = if let Some(parameters) = trimmed.strip_prefix("lognormal:") {
            parse_lognormal(parameters).ok_or_else(|| SizesError::Form(text.to_owned()))??
        } else if let Some((shortest, longest)) = trimmed.split_once("..") {
            let (shortest, longest) = (parse_length(shortest)?, parse_length(longest)?);
            if shortest > longest {
                return Err(SizesError::Range(text.to_owned()));
            }
            Shape::Uniform { shortest, longest }
        } else if trimmed.contains(':') {
            parse_list(trimmed)?
        } else if trimmed.bytes().all(|byte| byte.is_ascii_digit()) && !trimmed.is_empty() {
            Shape::Fixed(parse_length(trimmed)?)
        } else {
            return Err(SizesError::Form(text.to_owned()));
        };
        Ok(Self { text: trimmed.to_owned(), shape })
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

fn parse_length(text: &str) -> Result<u32, SizesError> {
    match text.trim().parse::<u32>() {
        Ok(length) if length <= Sizes::MAX => Ok(length),
        _ => Err(SizesError::Length(text.to_owned())),
    }
}

/// `None` if there are not two parameters.
fn parse_lognormal(parameters: &str) -> Option<Result<Shape, SizesError>> {
    let (median, sigma) = parameters.split_once(',')?;
    let shape = parse_length(median).and_then(|median| match sigma.trim().parse::<f64>() {
        Ok(sigma) if (0.0..=10.0).contains(&sigma) => Ok(Shape::Lognormal { median, sigma }),
        _ => Err(SizesError::Sigma(sigma.to_owned())),
    });
    Some(shape)
}

fn parse_list(text: &str) -> Result<Shape, SizesError> {
    let parts: Result<Vec<(u32, f64)>, SizesError> = text
        .split(',')
        .map(|part| {
            let (length, share) = part.split_once(':').ok_or_else(|| SizesError::Form(part.to_owned()))?;
            Ok((parse_length(length)?, parse_percent(share)?))
        })
        .collect();
    Ok(Shape::Listed(Shares::new(&parts?)?))
}

/// One normal number after Box and Muller; its twin is dropped to keep this without state.
fn standard_normal(prng: &mut Prng) -> f64 {
    let radius = (-2.0 * (1.0 - prng.unit()).ln()).sqrt();
    radius * (2.0 * std::f64::consts::PI * prng.unit()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(text: &str, draws: usize) -> Vec<u32> {
        let sizes: Sizes = text.parse().unwrap_or_else(|error| panic!("{error}"));
        let mut prng = Prng::from_seed(77);
        let drawn: Vec<u32> = (0..draws).map(|_| sizes.draw(&mut prng)).collect();
        assert!(drawn.iter().all(|length| (sizes.shortest()..=sizes.longest()).contains(length)));
        drawn
    }

    #[test]
    fn every_shape_draws_what_it_says() {
        assert!(drawn("100", 100).iter().all(|&length| length == 100));

        let uniform = drawn("10..13", 40_000);
        for length in 10..=13 {
            let count = uniform.iter().filter(|&&drawn| drawn == length).count();
            assert!((9_560..10_440).contains(&count), "{length}: {count}");
        }

        let mut lognormal = drawn("lognormal:230,1.2", 100_000);
        lognormal.sort_unstable();
        assert!((224..237).contains(&lognormal[50_000]), "median {}", lognormal[50_000]);
        // One deviation above the median: 230 * e^1.2 = 764.
        assert!((735..795).contains(&lognormal[84_134]), "84.1% lie below {}", lognormal[84_134]);

        let listed = drawn("64:50%,1024:30%,16384:20%", 100_000);
        let long = listed.iter().filter(|&&length| length == 16_384).count();
        assert!((19_360..20_640).contains(&long), "{long}");
    }

    #[test]
    fn mistakes_are_named() {
        let parse = |text: &str| text.parse::<Sizes>();
        for text in ["", "big", "-5", "lognormal:5", "64:50%,1024", "1e3"] {
            assert!(matches!(parse(text), Err(SizesError::Form(_))), "{text}: {:?}", parse(text));
        }
        for text in ["8388609", "99999999999", "..10", "x..10", "lognormal:x,1", "x:100%"] {
            assert!(matches!(parse(text), Err(SizesError::Length(_))), "{text}: {:?}", parse(text));
        }
        assert!(matches!(parse("10..9"), Err(SizesError::Range(_))));
        assert!(matches!(parse("lognormal:10,-1"), Err(SizesError::Sigma(_))));
        assert!(matches!(parse("1:50%,2:40%"), Err(SizesError::Share(ShareError::Sum(_)))));
    }
}
