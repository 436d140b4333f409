//! Where a server listens.

use std::fmt;

/// The port of a server that was given none.
pub(crate) const PORT_DEFAULT: u16 = 7400;

/// A host name or IP address, and a port.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Address {
    /// Without the brackets of an IPv6 address.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Address {
    /// From `host`, `host:port`, `[ipv6]` or `[ipv6]:port`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']')?;
                (host, if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let port = match port {
            Some(digits) => digits.parse().ok().filter(|&port| port != 0)?,
            None => PORT_DEFAULT,
        };
        let host_is_sane =
            !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || "/@?#".contains(c));
        host_is_sane.then(|| Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_all_their_forms() {
        for (text, shown) in [
            ("h", "h:7400"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("[::1]", "[::1]:7400"),
            ("[::1]:65535", "[::1]:65535"),
        ] {
            assert_eq!(Address::parse(text).map(|address| address.to_string()).as_deref(), Some(shown));
        }
        for text in ["", ":1", "h:", "h:0", "h:65536", "h:x", "[::1", "[::1]x", "::1", "a b:1", "u@h:1"] {
            assert_eq!(Address::parse(text), None, "{text:?}");
        }
    }
}
