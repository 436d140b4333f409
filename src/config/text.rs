//! Settings as people write them: addresses, founders, spans of time, sizes. Each prints as it is read.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::time::Duration;

/// A host and a port: `127.0.0.1:7400`, `node-1.example:7400`, `[::1]:7400`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HostPort {
    /// A name or an address, an IPv6 address without its brackets.
    pub host: String,
    /// 0 only where the kernel is to choose.
    pub port: u16,
}

/// A member of a cluster at its birth: `n1=10.0.0.1:7400`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Founder {
    /// Its name, unique in the cluster.
    pub name: String,
    /// Where the others reach it.
    pub address: HostPort,
}

/// A span of time: `250us`, `50ms`, `1s`, `2m`, `1h`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Span(pub Duration);

/// A number of bytes: `512`, `64KiB`, `8MiB`, `1GiB`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ByteSize(pub u64);

/// Where a node keeps what it stores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// In memory only: a restart destroys the node's copies.
    Memory,
    /// In a log on the disk from which a restart recovers, and in memory as far as that goes.
    Durable,
}

/// When a write that this node logs counts as kept: `always`, `never`, or a span of time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sync {
    /// When the disk has said that it is on stable storage: it outlives a power cut.
    Always,
    /// When it is written, and it is synced within this time: the end of the process loses nothing, a power cut at most
    /// that.
    Interval(Duration),
    /// When it is written: the end of the process loses nothing, a power cut whatever the device holds in its cache.
    Never,
}

/// What the members of a cluster must know to be let in. It is never shown, not even to a debugger's print.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// Units of time with their nanoseconds, the longest first.
const UNITS_OF_TIME: [(&str, u64); 5] =
    [("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)];

/// Units of size with their bytes, the largest first.
const UNITS_OF_SIZE: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl HostPort {
    /// Does the host stand for every address of the machine, so that nobody else can call it by that?
    pub fn is_unspecified(&self) -> bool {
        matches!(self.host.as_str(), "0.0.0.0" | "::")
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not HOST:PORT, such as 127.0.0.1:7400 or [::1]:7400");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        let host = parse_host(host).ok_or_else(wrong)?;
        Ok(Self { host: host.to_owned(), port })
    }
}

/// A host as it stands before `:PORT`; gives it without brackets.
fn parse_host(text: &str) -> Option<&str> {
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let plausible = match bracketed {
        Some(address) => is_ipv6(address),
        None => is_host_name(text),
    };
    plausible.then_some(bracketed.unwrap_or(text))
}

/// Could this be an IPv6 address, perhaps with a zone? It has two colons at least, so that it's no HOST:PORT.
fn is_ipv6(text: &str) -> bool {
    let plausible = |character: char| character.is_ascii_hexdigit() || matches!(character, ':' | '.' | '%');
    text.matches(':').count() >= 2 && text.chars().all(plausible)
}

/// Could this be the name of a host, or an IPv4 address?
fn is_host_name(text: &str) -> bool {
    let plausible =
        |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | '_');
    !text.is_empty() && text.len() <= 253 && text.chars().all(plausible)
}

/// Could this be advertised as a host: a name or an address, without a port and without brackets?
pub(super) fn is_host(text: &str) -> bool {
    is_host_name(text) || is_ipv6(text)
}

/// Names are up to 64 printable ASCII characters that no list of names could mistake for its own.
pub(super) fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.chars().all(|character| character.is_ascii_graphic() && !matches!(character, '=' | ',' | '"'))
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Founder {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, address) = text
            .split_once('=')
            .ok_or_else(|| format!("'{text}' is not NAME=HOST:PORT, such as n1=10.0.0.1:7400"))?;
        if !is_name(name) {
            return Err(format!("'{name}' can't be a node's name: use 1 to 64 letters, digits and dashes"));
        }
        Ok(Self { name: name.to_owned(), address: address.parse()? })
    }
}

impl fmt::Display for Founder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.address)
    }
}

/// Split a whole number from the unit behind it.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = number_and_unit(text.trim()).and_then(|(number, unit)| {
            if (number, unit) == (0, "") {
                return Some(0);
            }
            let (_, nanoseconds) = UNITS_OF_TIME.into_iter().find(|(name, _)| *name == unit)?;
            number.checked_mul(nanoseconds)
        });
        let nanoseconds = parsed
            .ok_or_else(|| format!("'{text}' is not a span of time: write 250us, 50ms, 1s, 2m or 1h"))?;
        Ok(Self(Duration(nanoseconds)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Duration(span) = self.0;
        let exact = UNITS_OF_TIME.into_iter().find(|(_, unit)| span >= *unit && span.is_multiple_of(*unit));
        let (name, unit) = exact.unwrap_or(("us", 1_000));
        write!(f, "{}{name}", span / unit)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = number_and_unit(text.trim()).and_then(|(number, unit)| {
            let unit = if unit.is_empty() { "B" } else { unit };
            let (_, bytes) = UNITS_OF_SIZE.into_iter().find(|(name, _)| *name == unit)?;
            number.checked_mul(bytes)
        });
        parsed.map(Self).ok_or_else(|| format!("'{text}' is not a size: write 512, 64KiB, 8MiB or 1GiB"))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact =
            UNITS_OF_SIZE.into_iter().find(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit));
        match exact {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => f.write_str("0B"),
        }
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "memory" => Ok(Self::Memory),
            "durable" => Ok(Self::Durable),
            other => Err(format!("'{other}' is not a mode: use 'memory' or 'durable'")),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Durable => "durable",
        })
    }
}

impl FromStr for Sync {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let interval = |text: &str| text.parse().ok().filter(|span: &Span| span.0 != Duration::ZERO);
        match text {
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            other => interval(other).map(|span| Self::Interval(span.0)).ok_or_else(|| {
                format!("'{other}' says not when to sync: use 'always', 'never', or a time such as 100ms")
            }),
        }
    }
}

impl fmt::Display for Sync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always => f.write_str("always"),
            Self::Never => f.write_str("never"),
            Self::Interval(interval) => Span(*interval).fmt(f),
        }
    }
}

impl Secret {
    /// From its text, without the line's end that editors leave behind it.
    pub fn new(text: &str) -> Self {
        Self(text.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// What the handshake carries.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(not shown)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self::new(&text))
    }
}

/// Reads a `T` from a string, or from a bare integer as if it were quoted.
struct TextVisitor<T>(std::marker::PhantomData<T>);

impl<T: FromStr<Err = String>> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

/// Files and arguments read and write these types as the same text.
macro_rules! serde_as_text {
    ($($type:ty),+) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(TextVisitor(std::marker::PhantomData))
            }
        }
    )+};
}

serde_as_text!(HostPort, Founder, Span, ByteSize, Mode, Sync);

#[cfg(test)]
mod tests {
    use super::*;

    fn reads_as_it_prints<T: FromStr<Err = String> + fmt::Display>(texts: &[&str]) {
        for text in texts {
            assert_eq!(text.parse::<T>().map(|value| value.to_string()), Ok((*text).to_owned()));
        }
    }

    fn is_refused<T: FromStr<Err = String> + fmt::Debug>(texts: &[&str], advice: &str) {
        for text in texts {
            let error = text.parse::<T>().expect_err(text);
            assert!(error.contains(advice), "'{text}' gives '{error}', which doesn't say '{advice}'");
        }
    }

    #[test]
    fn addresses() {
        reads_as_it_prints::<HostPort>(&[
            "127.0.0.1:7400",
            "node-1.example:1",
            "[::1]:0",
            "[fe80::1%2]:65535",
        ]);
        let wrong =
            ["", "7400", "host", "host:", ":7400", "host:65536", "::1:7400", "[::1]", "a b:1", "[host]:1"];
        is_refused::<HostPort>(&wrong, "HOST:PORT");
        assert!("0.0.0.0:1".parse::<HostPort>().unwrap().is_unspecified());
        assert!("[::]:1".parse::<HostPort>().unwrap().is_unspecified());
    }

    #[test]
    fn founders() {
        reads_as_it_prints::<Founder>(&["n1=10.0.0.1:7400", "127.0.0.1:7400=[::1]:7400"]);
        is_refused::<Founder>(&["10.0.0.1:7400"], "NAME=HOST:PORT");
        is_refused::<Founder>(&["n1=10.0.0.1"], "HOST:PORT");
        is_refused::<Founder>(&["=10.0.0.1:7400", "a b=h:1"], "a node's name");
    }

    #[test]
    fn spans_of_time() {
        reads_as_it_prints::<Span>(&["250us", "50ms", "1s", "90s", "2m", "1h", "0us"]);
        assert_eq!("1500 ms".parse::<Span>().unwrap().0, Duration::from_millis(1500));
        is_refused::<Span>(
            &["", "50", "ms", "1.5s", "-1s", "50 parsecs", "99999999999999h"],
            "a span of time",
        );
    }

    #[test]
    fn sizes() {
        reads_as_it_prints::<ByteSize>(&["0B", "512B", "64KiB", "8MiB", "1GiB", "1025B"]);
        assert_eq!("512".parse::<ByteSize>().unwrap(), ByteSize(512));
        is_refused::<ByteSize>(&["", "8MB", "MiB", "-1", "1.5MiB", "99999999999GiB"], "is not a size");
    }

    #[test]
    fn modes_and_syncs() {
        reads_as_it_prints::<Mode>(&["memory", "durable"]);
        is_refused::<Mode>(&["disk"], "use 'memory' or 'durable'");
        reads_as_it_prints::<Sync>(&["always", "never", "100ms", "2s"]);
        is_refused::<Sync>(&["", "sometimes", "0ms", "0", "10"], "use 'always', 'never', or a time");
    }

    #[test]
    fn a_secret_is_never_shown() {
        let secret = Secret::new("correct horse\r\n");
        assert_eq!(secret.as_bytes(), b"correct horse");
        assert!(!format!("{secret:?}").contains("horse"));
    }
}
