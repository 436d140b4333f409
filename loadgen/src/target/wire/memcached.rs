//! memcached's meta commands, as far as a load needs them: `mg`, `ms`, `md` and `mn`.
//!
//! Source: <https://github.com/memcached/memcached/blob/master/doc/protocol.txt>.
//!
//! A `ms` that finds no room takes away what the key had, lest that be served as the latest value; so a write that is
//! refused with `SERVER_ERROR` counts as one that may have emptied its key ([`Applied::Dropped`]).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};

use crate::outcome::Failure;
use crate::target::{Applied, Trouble};

use super::{Answer, Ask, Garbled, Verb, decimal, line_end, refused};

/// Bytes of a key, at most.
pub const KEY_BYTES_MAX: u32 = 250;
/// No value of this load is longer than 8 MiB.
const VALUE_BYTES_MAX: usize = 16 << 20;
/// Seconds beyond this are taken for a moment since 1970.
const RELATIVE_S_MAX: u64 = 30 * 24 * 3600;

pub(super) fn encode(ask: &Ask, out: &mut BytesMut) {
    match ask {
        Ask::Hello => out.put_slice(b"version\r\nmn\r\n"),
        Ask::Get(key) => line(out, &[b"mg", key, b"v"]),
        Ask::Put(key, value, lifetime) => {
            let length = value.len().to_string();
            match lifetime.map(expiry) {
                None => line(out, &[b"ms", key, length.as_bytes()]),
                Some(seconds) => {
                    line(out, &[b"ms", key, length.as_bytes(), format!("T{seconds}").as_bytes()]);
                }
            }
            out.put_slice(value);
            out.put_slice(b"\r\n");
        }
        Ask::Delete(key) => line(out, &[b"md", key]),
    }
}

fn line(out: &mut BytesMut, words: &[&[u8]]) {
    for (place, word) in words.iter().enumerate() {
        if place > 0 {
            out.put_u8(b' ');
        }
        out.put_slice(word);
    }
    out.put_slice(b"\r\n");
}

/// Whole seconds, rounded up: a value may live too long, and never too short.
fn expiry(lifetime: Duration) -> u64 {
    let seconds = lifetime.as_nanos().div_ceil(1_000_000_000).max(1);
    let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
    if seconds <= RELATIVE_S_MAX {
        return seconds;
    }
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    since_1970.saturating_add(seconds)
}

/// Takes one request's answer off the front, if all of it is there.
pub(super) fn decode(verb: Verb, bytes: &mut BytesMut) -> Result<Option<Answer>, Garbled> {
    let Some(end) = line_end(bytes, 0)? else { return Ok(None) };
    let said = &bytes[..end];
    let word = said.split(|&byte| byte == b' ').next().unwrap_or_default();
    let answer = match (verb, word) {
        (Verb::Get, b"VA") => return value(end, bytes),
        (Verb::Hello, b"VERSION") => return version(end, bytes),
        (Verb::Get, b"EN") | (Verb::Put, b"HD") | (Verb::Delete, b"HD" | b"NF") => Ok(None),
        (_, b"SERVER_ERROR") => Err(trouble(verb, said)),
        // After ERROR and CLIENT_ERROR nobody knows where the next request begins.
        _ => return Err(Garbled::of(said)),
    };
    let _taken = bytes.split_to(end + 2);
    Ok(Some(answer))
}

/// `VA <length> <flags>*`, and as many bytes.
fn value(end: usize, bytes: &mut BytesMut) -> Result<Option<Answer>, Garbled> {
    let said = &bytes[..end];
    let length: Option<usize> = said.split(|&byte| byte == b' ').nth(1).and_then(decimal);
    let length = length.ok_or_else(|| Garbled::of(said))?;
    if length > VALUE_BYTES_MAX {
        return Err(Garbled::because(format!("a value of {length} bytes, longer than any written")));
    }
    let (start, upto) = (end + 2, end + 2 + length);
    match bytes.get(upto..upto + 2) {
        None => Ok(None),
        Some(b"\r\n") => {
            let whole = bytes.split_to(upto + 2).freeze();
            Ok(Some(Ok(Some(whole.slice(start..upto)))))
        }
        Some(_) => Err(Garbled::because(format!("a value of {length} bytes that doesn't end there"))),
    }
}

/// `VERSION 1.6.18`, and `MN` if it knows meta commands.
fn version(end: usize, bytes: &mut BytesMut) -> Result<Option<Answer>, Garbled> {
    let Some(second) = line_end(bytes, end + 2)? else { return Ok(None) };
    let whole = bytes.split_to(second + 2).freeze();
    let version = String::from_utf8_lossy(&whole[..end]).replace("VERSION ", "");
    if whole[end + 2..second] == *b"MN" {
        return Ok(Some(Ok(Some(Bytes::from(version)))));
    }
    let reason = format!("memcached {version} doesn't know the meta commands: 1.6 or later does");
    Ok(Some(Err(Trouble { failure: Failure::Refused, applied: Applied::No, code: String::new(), reason })))
}

fn trouble(verb: Verb, said: &[u8]) -> Trouble {
    let applied = if verb == Verb::Put { Applied::Dropped } else { Applied::Maybe };
    let mut trouble = refused(said, applied);
    if trouble.reason.contains("out of memory") {
        trouble.failure = Failure::Overloaded;
    }
    trouble
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(ask: &Ask) -> String {
        let mut out = BytesMut::new();
        encode(ask, &mut out);
        String::from_utf8(out.to_vec()).expect("all of it is text here")
    }

    fn put(lifetime: Option<Duration>) -> Ask {
        Ask::Put(Bytes::from_static(b"key"), Bytes::from_static(b"a\r\nb"), lifetime)
    }

    #[test]
    fn requests_are_meta_commands() {
        assert_eq!(encoded(&Ask::Get(Bytes::from_static(b"key"))), "mg key v\r\n");
        assert_eq!(encoded(&Ask::Delete(Bytes::from_static(b"key"))), "md key\r\n");
        assert_eq!(encoded(&put(None)), "ms key 4\r\na\r\nb\r\n");
        assert_eq!(encoded(&put(Some(Duration::from_millis(1500)))), "ms key 4 T2\r\na\r\nb\r\n");
        assert_eq!(encoded(&put(Some(Duration::from_nanos(1)))), "ms key 4 T1\r\na\r\nb\r\n");
    }

    /// 40 days from now, said as 40 days, would be in 1970, and the value gone at once.
    #[test]
    fn long_lifetimes_are_told_as_moments() {
        let day = Duration::from_secs(24 * 3600);
        assert_eq!(expiry(30 * day), RELATIVE_S_MAX);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let moment = expiry(40 * day);
        assert!((now + 40 * 86_400..now + 40 * 86_400 + 60).contains(&moment), "{moment}");
    }

    #[test]
    fn answers_may_come_byte_by_byte() {
        let stream = b"VA 4\r\na\r\nb\r\nEN\r\nVA 0 f1\r\n\r\nHD\r\nHD\r\nNF\r\nSERVER_ERROR out of memory storing object\r\n";
        let verbs = [Verb::Get, Verb::Get, Verb::Get, Verb::Put, Verb::Delete, Verb::Delete, Verb::Put];
        let mut bytes = BytesMut::new();
        let mut answers = Vec::new();
        for &byte in stream {
            bytes.put_u8(byte);
            if let Some(answer) = decode(verbs[answers.len()], &mut bytes).expect("sound") {
                answers.push(answer);
                assert!(bytes.is_empty());
            }
        }
        let full = answers.pop().expect("seven answers").expect_err("an error");
        assert_eq!((full.failure, full.applied), (Failure::Overloaded, Applied::Dropped));
        assert_eq!((full.code.as_str(), &full.reason[..26]), ("SERVER_ERROR", "SERVER_ERROR out of memory"));
        let value = |text: &'static [u8]| Ok(Some(Bytes::from_static(text)));
        assert_eq!(answers, [value(b"a\r\nb"), Ok(None), value(b""), Ok(None), Ok(None), Ok(None)]);
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for (verb, stream) in [
            (Verb::Get, &b"HD\r\n"[..]),
            (Verb::Get, b"VA\r\n"),
            (Verb::Get, b"VA x\r\n"),
            (Verb::Get, b"VA -1\r\n"),
            (Verb::Get, b"VA 99999999999\r\n"),
            (Verb::Get, b"VA 1\r\nab\r\n"),
            (Verb::Put, b"EN\r\n"),
            (Verb::Put, b"NS\r\n"),
            (Verb::Put, b"ERROR\r\n"),
            (Verb::Put, b"CLIENT_ERROR bad data chunk\r\n"),
            (Verb::Delete, b"+OK\r\n"),
            (Verb::Get, b"\r\n"),
        ] {
            let mut bytes = BytesMut::from(stream);
            assert!(decode(verb, &mut bytes).is_err(), "{verb:?}: {stream:?}");
        }
    }

    #[test]
    fn the_version_is_told_and_an_old_one_refused() {
        let hello = |stream: &str| {
            let mut bytes = BytesMut::from(stream.as_bytes());
            decode(Verb::Hello, &mut bytes).expect("sound")
        };
        assert_eq!(hello("VERSION 1.6.18\r\nM"), None);
        assert_eq!(hello("VERSION 1.6.18\r\nMN\r\n"), Some(Ok(Some(Bytes::from_static(b"1.6.18")))));
        let old = hello("VERSION 1.4.15\r\nERROR\r\n").expect("whole").expect_err("too old");
        assert!(old.reason.contains("1.4.15 doesn't know"), "{}", old.reason);
    }
}
