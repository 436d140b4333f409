//! `ringmain://h1:7400,h2:7400/?read=2&write=2&timeout=50ms`: a [`Builder`] in one line.
//!
//! | option | means | example |
//! | --- | --- | --- |
//! | `read` | R, replicas that a read waits for | `2` |
//! | `write` | W, durable acknowledgements that a write waits for | `2` |
//! | `timeout` | deadline of each request | `50ms`, `2s`, `500us` |
//! | `connect_timeout` | deadline of `connect` | `5s` |
//! | `in_flight` | requests under way at once | `10000` |
//! | `secret` | the cluster's secret, percent-encoded | `s%3Dcret` |
//! | `cluster` | the cluster's id | `0x1f2e3d4c5b6a7988` |
//!
//! A server without a port listens on 7400. Each option may be given once.

use std::time::Duration;

use thiserror::Error;

use crate::address::Address;
use crate::builder::Builder;

/// What is wrong with a URL.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum UrlError {
    /// It begins otherwise.
    #[error("a URL begins with ringmain://, as in ringmain://127.0.0.1:7400/")]
    Scheme,
    /// There is nothing between `//` and `/`.
    #[error("the URL names no server: write ringmain://host:port/")]
    NoServers,
    /// A server that is not a host and port.
    #[error("`{0}` is not a server: write host, host:port or [ipv6]:port, and a comma between servers")]
    Server(String),
    /// Something behind the servers other than `/` and options.
    #[error("the URL has a path, `{0}`: there is nothing to name by one; options follow `/?`")]
    Path(String),
    /// An option that no version of this crate knows.
    #[error("unknown option `{0}`: there are {KNOWN}")]
    UnknownOption(String),
    /// An option that was given twice.
    #[error("option `{0}` is given twice")]
    Repeated(&'static str),
    /// An option whose value makes no sense.
    #[error("option `{option}` can't be `{value}`: {expected}")]
    Value {
        /// Its name.
        option: &'static str,
        /// As given; hidden for a secret.
        value: String,
        /// What would do.
        expected: &'static str,
    },
}

const KNOWN: &str = "read, write, timeout, connect_timeout, in_flight, secret and cluster";

const COUNT: &str = "write a number from 1 to 255";
const DURATION: &str = "write a whole number above 0 and its unit (us, ms, s), as in 50ms";
const IN_FLIGHT: &str = "write a number above 0";
const SECRET: &str = "write text, with % and two hexadecimal digits for special bytes";
const CLUSTER: &str = "write a number above 0, decimal or hexadecimal with 0x";

/// A builder that does what `url` says.
pub(crate) fn parse(url: &str) -> Result<Builder, UrlError> {
    let rest = url.strip_prefix("ringmain://").ok_or(UrlError::Scheme)?;
    let (place, options) = rest.split_once('?').unwrap_or((rest, ""));
    let (servers, path) = place.split_once('/').unwrap_or((place, ""));
    if !path.is_empty() {
        return Err(UrlError::Path(format!("/{path}")));
    }
    if servers.is_empty() {
        return Err(UrlError::NoServers);
    }
    if let Some(odd) = servers.split(',').find(|server| Address::parse(server).is_none()) {
        return Err(UrlError::Server(odd.to_owned()));
    }
    let mut builder = Builder::default().servers(servers.split(','));
    let mut seen = Vec::new();
    for option in options.split('&').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let name = known(name)?;
        if seen.contains(&name) {
            return Err(UrlError::Repeated(name));
        }
        seen.push(name);
        builder = apply(builder, name, value)?;
    }
    Ok(builder)
}

fn known(name: &str) -> Result<&'static str, UrlError> {
    let known = ["read", "write", "timeout", "connect_timeout", "in_flight", "secret", "cluster"];
    let found = known.into_iter().find(|&known| known == name);
    found.ok_or_else(|| UrlError::UnknownOption(name.to_owned()))
}

fn apply(builder: Builder, name: &'static str, value: &str) -> Result<Builder, UrlError> {
    let wrong = |expected| UrlError::Value { option: name, value: value.to_owned(), expected };
    let count = || value.parse().ok().filter(|&count: &u8| count > 0).ok_or(wrong(COUNT));
    let duration = || duration(value).ok_or(wrong(DURATION));
    Ok(match name {
        "read" => builder.read(count()?),
        "write" => builder.write(count()?),
        "timeout" => builder.timeout(duration()?),
        "connect_timeout" => builder.connect_timeout(duration()?),
        "in_flight" => {
            builder.in_flight_max(value.parse().ok().filter(|&max| max > 0).ok_or(wrong(IN_FLIGHT))?)
        }
        "secret" => {
            let hidden = UrlError::Value { option: name, value: "…".to_owned(), expected: SECRET };
            builder.cluster_secret(percent_decoded(value).filter(|secret| !secret.is_empty()).ok_or(hidden)?)
        }
        _ => builder.cluster(cluster(value).ok_or(wrong(CLUSTER))?),
    })
}

fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok().filter(|&number| number > 0)?;
    match unit {
        "us" => Some(Duration::from_micros(number)),
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        _ => None,
    }
}

fn cluster(text: &str) -> Option<u64> {
    let id = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    id.filter(|&id| id != 0)
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' { hex(bytes.next()?)? << 4 | hex(bytes.next()?)? } else { byte });
    }
    Some(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_options_are_understood() {
        let url = "ringmain://h1:1,[::1],h2/?read=2&write=3&timeout=50ms&connect_timeout=2s&in_flight=9\
                   &secret=a%3Db%26&cluster=0xff";
        let expected = Builder::default()
            .servers(["h1:1", "[::1]", "h2"])
            .read(2)
            .write(3)
            .timeout(Duration::from_millis(50))
            .connect_timeout(Duration::from_secs(2))
            .in_flight_max(9)
            .cluster_secret("a=b&")
            .cluster(255);
        assert_eq!(parse(url).unwrap(), expected);
        assert_eq!(parse("ringmain://h").unwrap(), Builder::default().servers(["h"]));
        assert_eq!(parse("ringmain://h?read=1").unwrap(), Builder::default().servers(["h"]).read(1));
    }

    #[test]
    fn every_mistake_is_named() {
        for (url, told) in [
            ("redis://h/", "begins with ringmain://"),
            ("ringmain:///", "names no server"),
            ("ringmain://h:0/", "`h:0` is not a server"),
            ("ringmain://h,,g/", "`` is not a server"),
            ("ringmain://h/db", "has a path, `/db`"),
            ("ringmain://h/?reads=1", "unknown option `reads`"),
            ("ringmain://h/?read", "option `read` can't be ``"),
            ("ringmain://h/?read=0", "option `read` can't be `0`"),
            ("ringmain://h/?write=256", "option `write` can't be `256`"),
            ("ringmain://h/?timeout=50", "option `timeout` can't be `50`"),
            ("ringmain://h/?timeout=0ms", "option `timeout` can't be `0ms`"),
            ("ringmain://h/?timeout=1h", "option `timeout` can't be `1h`"),
            ("ringmain://h/?in_flight=many", "option `in_flight` can't be `many`"),
            ("ringmain://h/?cluster=0xg", "option `cluster` can't be `0xg`"),
            ("ringmain://h/?secret=hush%2", "option `secret` can't be `…`"),
            ("ringmain://h/?read=1&read=2", "option `read` is given twice"),
        ] {
            let error = parse(url).expect_err(url).to_string();
            assert!(error.contains(told), "{url}: {error}");
        }
    }
}
