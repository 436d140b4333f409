//! Where a target is that is no Ringmain: `redis://127.0.0.1:6379` or `memcached://127.0.0.1:11211`.

use std::fmt;
use std::str::FromStr;

/// A server of another make, as the user gave it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// How it is spoken to.
    pub make: Make,
    /// A name or a number.
    pub host: String,
    /// `1 <= port`.
    pub port: u16,
}

/// What a server is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Make {
    /// Redis, or what speaks its protocol (RESP2).
    Redis,
    /// memcached from 1.6 on, whose meta commands are used.
    Memcached,
}

/// Why a URL was not understood.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PeerError {
    /// Without `://`.
    #[error("it doesn't say what the server is: write redis://HOST:PORT or memcached://HOST:PORT")]
    Scheme,
    /// Ringmain itself.
    #[error("a cluster of Ringmain is given with --servers HOST:PORT")]
    Ringmain,
    /// Over TLS.
    #[error("{0}:// is TLS, which loadgen doesn't speak: write redis://HOST:PORT or memcached://HOST:PORT")]
    Tls(String),
    /// Any other.
    #[error("loadgen doesn't speak {0}: write redis://HOST:PORT or memcached://HOST:PORT")]
    Unknown(String),
    /// Something before an `@`.
    #[error(
        "loadgen sends no user and no password: load a server that asks for none, as in redis://HOST:PORT"
    )]
    Password,
    /// A database, or options.
    #[error("'{0}' after the port means nothing here: loadgen uses database 0 and no options")]
    Path(String),
    /// No host, or no port.
    #[error("'{0}' is no address: write a host and a port, such as redis://127.0.0.1:6379")]
    Address(String),
}

impl Make {
    fn port(self) -> u16 {
        match self {
            Self::Redis => 6379,
            Self::Memcached => 11211,
        }
    }
}

impl FromStr for Peer {
    type Err = PeerError;

    fn from_str(text: &str) -> Result<Self, PeerError> {
        let (scheme, rest) = text.split_once("://").ok_or(PeerError::Scheme)?;
        let make = match scheme {
            "redis" => Make::Redis,
            "memcached" => Make::Memcached,
            "ringmain" => return Err(PeerError::Ringmain),
            "rediss" | "memcacheds" => return Err(PeerError::Tls(scheme.to_owned())),
            _ => return Err(PeerError::Unknown(scheme.to_owned())),
        };
        if rest.contains('@') {
            return Err(PeerError::Password);
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if let Some(place) = rest.find(['/', '?', '#']) {
            return Err(PeerError::Path(rest[place..].to_owned()));
        }
        let (host, port) = address(rest, make.port()).ok_or_else(|| PeerError::Address(rest.to_owned()))?;
        Ok(Self { make, host, port })
    }
}

/// `host`, `host:port`, `[ipv6]` or `[ipv6]:port`.
fn address(text: &str, port_default: u16) -> Option<(String, u16)> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(inner) => inner.split_once(']')?,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = match rest.strip_prefix(':') {
        Some(digits) => digits.parse().ok().filter(|&port| port > 0)?,
        None if rest.is_empty() => port_default,
        None => return None,
    };
    let is_host = !host.is_empty() && !host.contains(char::is_whitespace);
    is_host.then(|| (host.to_owned(), port))
}

impl fmt::Display for Make {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Redis => "redis",
            Self::Memcached => "memcached",
        })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { make, host, port } = self;
        match host.contains(':') {
            true => write!(formatter, "{make}://[{host}]:{port}"),
            false => write!(formatter, "{make}://{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_have_a_make_a_host_and_a_port() {
        for (text, shown) in [
            ("redis://127.0.0.1:6380", "redis://127.0.0.1:6380"),
            ("redis://localhost", "redis://localhost:6379"),
            ("memcached://cache/", "memcached://cache:11211"),
            ("memcached://[::1]:5", "memcached://[::1]:5"),
            ("redis://[::1]", "redis://[::1]:6379"),
        ] {
            let peer: Peer = text.parse().expect(text);
            assert_eq!(peer.to_string(), shown);
        }
    }

    #[test]
    fn whatever_is_not_spoken_is_refused_by_its_name() {
        for (text, told) in [
            ("127.0.0.1:6379", "doesn't say what"),
            ("ringmain://h:7400", "--servers"),
            ("rediss://h:6379", "rediss:// is TLS"),
            ("memcacheds://h", "memcacheds:// is TLS"),
            ("redis+unix:///tmp/redis.sock", "doesn't speak redis+unix"),
            ("http://h", "doesn't speak http"),
            ("redis://user:hush@h:6379", "no password"),
            ("redis://h:6379/2", "'/2' after the port"),
            ("redis://h?db=1", "'?db=1' after the port"),
            ("redis://", "'' is no address"),
            ("redis://:6379", "no address"),
            ("redis://h:0", "no address"),
            ("redis://h:99999", "no address"),
            ("redis://::1:6379", "no address"),
            ("redis://[::1]x", "no address"),
        ] {
            let error = text.parse::<Peer>().expect_err(text).to_string();
            assert!(error.contains(told) && !error.contains('\n'), "{text}: {error}");
        }
    }
}
