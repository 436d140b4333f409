//! How long values and keys are: `100`, `10..1000`, `lognormal:230,1.2`, `gev:30.8,8.2,0.08`, `pareto:15,214,0.35`,
//! or a list such as `64:50%,1024:30%,16384:20%`.
//!
//! `etc-key` and `etc-value` are those of ETC, the general-purpose pool of Facebook's memcached, as B. Atikoglu et al.
//! fitted them ("Workload analysis of a large-scale key-value store", SIGMETRICS 2012, section 5): keys follow a
//! generalized extreme value distribution; values of up to 14 bytes have a share for each length (their table 5), and
//! longer ones follow a generalized Pareto distribution. Keys are cut off at memcached's limit of 250 bytes, values at
//! its slabs' limit of 1 MiB.

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
    /// Generalized extreme value.
    Extreme(Tail),
    /// Generalized Pareto.
    Pareto(Tail),
    /// Shares of short lengths, and for [`BEYOND`] a generalized Pareto distribution.
    Headed {
        head: Shares<u32>,
        tail: Tail,
    },
}

/// A distribution with three parameters, cut off at both ends.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Tail {
    location: f64,
    /// `0 < scale`
    scale: f64,
    /// `0 <= shape < 1`: with 1 and more there is no mean.
    shape: f64,
    longest: u32,
}

/// Stands for all that is longer in a [`Shape::Headed`].
const BEYOND: u32 = u32::MAX;

/// Why a distribution was not understood.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum SizesError {
    /// No known form.
    #[error(
        "'{0}' is no size: write 100, 10..1000, lognormal:MEDIAN,SIGMA, gev:LOCATION,SCALE,SHAPE, \
        pareto:LOCATION,SCALE,SHAPE, etc-key, etc-value or 64:50%,1024:50%"
    )]
    Form(String),
    /// A length that can't be read or is above the limit.
    #[error("'{0}' is no length: write a whole number of bytes from 0 to 8388608")]
    Length(String),
    /// The range ends before it begins.
    #[error("'{0}' ends before it begins: write the smaller length first")]
    Range(String),
    /// The deviation of a lognormal makes no sense.
    #[error("'{0}' is no sigma: write a number from 0 to 10, the deviation of the logarithm")]
    Sigma(String),
    /// Parameters that make no distribution of lengths.
    #[error(
        "'{0}' makes no distribution: write a location from 0, a scale above 0 and a shape from 0 to below 1"
    )]
    Parameters(String),
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
            Shape::Extreme(tail) => tail.extreme(prng),
            Shape::Pareto(tail) => tail.pareto(prng),
            Shape::Headed { head, tail } => match head.choose(prng) {
                BEYOND => tail.pareto(prng),
                length => length,
            },
        }
    }

    /// No value is shorter.
    pub fn shortest(&self) -> u32 {
        match &self.shape {
            Shape::Fixed(length) => *length,
            Shape::Uniform { shortest, .. } => *shortest,
            Shape::Lognormal { median, sigma } if *sigma == 0.0 => *median,
            Shape::Lognormal { .. } | Shape::Extreme(_) => 0,
            Shape::Pareto(tail) => (tail.location.round() as u32).min(tail.longest),
            Shape::Headed { head, .. } => head.things().min().unwrap_or(0),
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
            Shape::Extreme(tail) | Shape::Pareto(tail) | Shape::Headed { tail, .. } => tail.longest,
            Shape::Listed(shares) => shares.things().max().unwrap_or(0),
        }
    }
}

impl Tail {
    /// Both are drawn by the inverse of their distribution function.
    fn extreme(&self, prng: &mut Prng) -> u32 {
        // 1 - unit() lies in (0, 1], and 1 has the logarithm 0: the upper end, which is cut off.
        let exponential = -(1.0 - prng.unit()).ln();
        self.stretch(1.0 / exponential)
    }

    fn pareto(&self, prng: &mut Prng) -> u32 {
        self.stretch(1.0 / (1.0 - prng.unit()))
    }

    /// `(ratio^shape - 1) / shape`, which is `ln ratio` at shape 0, scaled, moved and cut off.
    fn stretch(&self, ratio: f64) -> u32 {
        let stretched =
            if self.shape == 0.0 { ratio.ln() } else { (ratio.powf(self.shape) - 1.0) / self.shape };
        // A float beyond the range of lengths becomes the nearest of them, and below 0 it becomes 0.
        ((self.location + self.scale * stretched).round() as u32).min(self.longest)
    }
}

impl FromStr for Sizes {
    type Err = SizesError;

    fn from_str(text: &str) -> Result<Self, SizesError> {
        let trimmed = text.trim();
        let shape = if let Some(shape) = known_shape(trimmed) {
            shape
        } else if let Some(parameters) = trimmed.strip_prefix("gev:") {
            Shape::Extreme(parse_tail(parameters)?)
        } else if let Some(parameters) = trimmed.strip_prefix("pareto:") {
            Shape::Pareto(parse_tail(parameters)?)
        } else if let Some(parameters) = trimmed.strip_prefix("lognormal:") {
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

/// Facebook's ETC; see the top of this file.
fn known_shape(text: &str) -> Option<Shape> {
    const KEY: Tail = Tail { location: 30.7984, scale: 8.20449, shape: 0.078_688, longest: 250 };
    const VALUE: Tail = Tail { location: 15.0, scale: 214.476, shape: 0.348_238, longest: 1 << 20 };
    /// Per cent of the values that are 0, 1 and up to 14 bytes long.
    const SHORT: [f64; 15] = [
        0.536, 0.047, 17.820, 9.239, 0.018, 2.740, 0.065, 0.606, 0.023, 0.837, 0.837, 8.989, 0.092, 0.326,
        1.980,
    ];
    match text {
        "etc-key" => Some(Shape::Extreme(KEY)),
        "etc-value" => {
            let beyond = 100.0 - SHORT.iter().sum::<f64>();
            let parts: Vec<(u32, f64)> = (0..).zip(SHORT).chain([(BEYOND, beyond)]).collect();
            let head = Shares::new(&parts).expect("what is beyond is the rest of 100");
            Some(Shape::Headed { head, tail: VALUE })
        }
        _ => None,
    }
}

fn parse_tail(parameters: &str) -> Result<Tail, SizesError> {
    let wrong = || SizesError::Parameters(parameters.to_owned());
    let numbers: Result<Vec<f64>, _> =
        parameters.split(',').map(|number| number.trim().parse::<f64>()).collect();
    let Ok(&[location, scale, shape]) = numbers.as_deref() else { return Err(wrong()) };
    let longest = f64::from(Sizes::MAX);
    let sound = (0.0..=longest).contains(&location)
        && (f64::MIN_POSITIVE..=longest).contains(&scale)
        && (0.0..1.0).contains(&shape);
    if sound { Ok(Tail { location, scale, shape, longest: Sizes::MAX }) } else { Err(wrong()) }
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

    /// The share of lengths at or below some length, against the distribution function.
    #[test]
    fn heavy_tails_follow_their_distribution_function() {
        let below = |drawn: &[u32], length: u32| {
            drawn.iter().filter(|&&drawn| drawn <= length).count() as f64 / drawn.len() as f64
        };
        let keys = drawn("etc-key", 200_000);
        let values = drawn("etc-value", 200_000);
        for length in [20, 30, 40, 60, 90] {
            let x = (f64::from(length) + 0.5 - 30.7984) / 8.20449;
            let expected = (-(1.0 + 0.078_688 * x).powf(-1.0 / 0.078_688)).exp();
            assert!((below(&keys, length) - expected).abs() < 0.005, "keys to {length}: {expected}");
        }
        for length in [50, 200, 500, 2000, 10_000] {
            let x = (f64::from(length) + 0.5 - 15.0) / 214.476;
            let beyond = (1.0 + 0.348_238 * x).powf(-1.0 / 0.348_238) * (1.0 - 0.441_55);
            assert!((below(&values, length) - (1.0 - beyond)).abs() < 0.005, "values to {length}: {beyond}");
        }
        let of_two = values.iter().filter(|&&length| length == 2).count() as f64 / 200_000.0;
        assert!((of_two - 0.178_2).abs() < 0.005, "{of_two}");
        assert!(
            (below(&drawn("pareto:10,100,0", 100_000), 79) - 0.5).abs() < 0.005,
            "shape 0 is exponential"
        );
        assert!((below(&drawn("gev:100,10,0", 100_000), 100) - 0.386).abs() < 0.006, "exp(-exp(-0.05))");
    }

    #[test]
    fn mistakes_are_named() {
        let parse = |text: &str| text.parse::<Sizes>();
        for text in
            ["gev:1,2", "gev:1,2,1", "pareto:1,0,0.5", "pareto:-1,1,0.5", "pareto:x,1,0", "gev:1,NaN,0"]
        {
            assert!(matches!(parse(text), Err(SizesError::Parameters(_))), "{text}: {:?}", parse(text));
        }
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
