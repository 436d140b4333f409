//! The mix of operations: `read=50,write=45,delete=5`.

use std::fmt;
use std::str::FromStr;

use ringmain::prng::Prng;

use crate::operation::Kind;
use crate::share::{ShareError, Shares, parse_percent};

/// What share of the operations is of each kind.
#[derive(Clone, PartialEq, Debug)]
pub struct Mix {
    percent: [f64; Kind::ALL.len()],
    shares: Shares<Kind>,
}

/// Why a mix was not understood.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum MixError {
    /// Not `kind=share`, or no known kind.
    #[error(
        "'{0}' is no part of a mix: write read=, write= or delete= and a share, such as read=50,write=50"
    )]
    Part(String),
    /// The same kind twice.
    #[error("'{0}' is given twice: give each kind of operation once")]
    Twice(Kind),
    /// The shares are wrong.
    #[error(transparent)]
    Share(#[from] ShareError),
}

impl Mix {
    /// The kind of the next operation.
    pub fn choose(&self, prng: &mut Prng) -> Kind {
        self.shares.choose(prng)
    }

    /// What share of the operations is of this kind, from 0 to 1.
    pub fn share(&self, kind: Kind) -> f64 {
        self.percent[kind.index()] / 100.0
    }
}

impl FromStr for Mix {
    type Err = MixError;

    fn from_str(text: &str) -> Result<Self, MixError> {
        let mut given: [Option<f64>; Kind::ALL.len()] = [None; Kind::ALL.len()];
        for part in text.split(',') {
            let (kind, share) = parse_part(part)?;
            if given[kind.index()].replace(share).is_some() {
                return Err(MixError::Twice(kind));
            }
        }
        let percent = given.map(|share| share.unwrap_or(0.0));
        let shares = Shares::new(&Kind::ALL.map(|kind| (kind, percent[kind.index()])))?;
        Ok(Self { percent, shares })
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for kind in Kind::ALL.into_iter().filter(|kind| self.percent[kind.index()] > 0.0) {
            write!(formatter, "{separator}{kind}={}", self.percent[kind.index()])?;
            separator = ",";
        }
        Ok(())
    }
}

fn parse_part(part: &str) -> Result<(Kind, f64), MixError> {
    let no_part = || MixError::Part(part.to_owned());
    let (name, share) = part.split_once('=').ok_or_else(no_part)?;
    let kind = match name.trim() {
        "read" | "get" => Kind::Read,
        "write" | "put" => Kind::Write,
        "delete" => Kind::Delete,
        _ => return Err(no_part()),
    };
    Ok((kind, parse_percent(share)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_come_as_often_as_their_share() {
        let mix: Mix = "read=50, write=45%, delete=5".parse().expect("a mix");
        assert_eq!(mix.to_string(), "read=50,write=45,delete=5");
        let mut prng = Prng::from_seed(9);
        let mut seen = [0u32; 3];
        for _ in 0..100_000 {
            seen[mix.choose(&mut prng).index()] += 1;
        }
        // Deviations: 158, 157 and 69; five of them on either side.
        assert!((49_210..50_790).contains(&seen[0]), "{seen:?}");
        assert!((44_210..45_790).contains(&seen[1]), "{seen:?}");
        assert!((4_650..5_350).contains(&seen[2]), "{seen:?}");
    }

    #[test]
    fn one_kind_alone_is_a_mix() {
        let mix: Mix = "write=100".parse().expect("a mix");
        let mut prng = Prng::from_seed(1);
        assert!((0..1000).all(|_| mix.choose(&mut prng) == Kind::Write));
    }

    #[test]
    fn mistakes_are_named() {
        let parse = |text: &str| text.parse::<Mix>();
        for text in ["", "read", "scan=100", "read=50,,write=50"] {
            assert!(matches!(parse(text), Err(MixError::Part(_))), "{text}");
        }
        assert!(matches!(parse("read=50,read=50"), Err(MixError::Twice(Kind::Read))));
        assert!(matches!(parse("read=50,write=40"), Err(MixError::Share(ShareError::Sum(_)))));
        for text in ["read=-1,write=101", "read=x", "read=NaN", "read="] {
            assert!(matches!(parse(text), Err(MixError::Share(ShareError::Number(_)))), "{text}");
        }
    }
}
