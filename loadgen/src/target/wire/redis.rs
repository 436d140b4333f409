//! Redis's protocol, RESP2, as far as a load needs it: `GET`, `SET` with `PX`, `DEL`, `WAIT` and `INFO`.
//!
//! Source: <https://redis.io/docs/latest/develop/reference/protocol-spec/>.

use std::ops::Range;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use crate::outcome::Failure;
use crate::target::{Applied, Trouble};

use super::{Answer, Ask, Garbled, Verb, decimal, line_end, refused};

/// What a write waits for, beside its own answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wait {
    /// So many replicas must have it.
    pub replicas: u8,
    /// For so long they are waited for, in whole milliseconds, at least 1.
    pub at_most: Duration,
}

/// One reply, and where its words or its bytes are.
enum Raw {
    Simple(Range<usize>),
    Error(Range<usize>),
    Integer(i64),
    Bulk(Range<usize>),
    Nil,
}

/// No value of this load is longer than 8 MiB.
const BULK_BYTES_MAX: usize = 16 << 20;

/// What says that a command was not carried out, whoever says it: the server before it looks at the data. Anything else
/// may come from a proxy that doesn't know.
const NOT_CARRIED_OUT: [&str; 12] = [
    "OOM",
    "READONLY",
    "MISCONF",
    "NOREPLICAS",
    "LOADING",
    "BUSY",
    "MASTERDOWN",
    "NOAUTH",
    "NOPERM",
    "MOVED",
    "ASK",
    "CLUSTERDOWN",
];

pub(super) fn encode(ask: &Ask, wait: Option<Wait>, out: &mut BytesMut) {
    match ask {
        Ask::Hello => command(out, &[b"INFO", b"server"]),
        Ask::Get(key) => command(out, &[b"GET", key]),
        Ask::Put(key, value, None) => command(out, &[b"SET", key, value]),
        Ask::Put(key, value, Some(lifetime)) => {
            let millis = lifetime.as_millis().max(1).to_string();
            command(out, &[b"SET", key, value, b"PX", millis.as_bytes()]);
        }
        Ask::Delete(key) => command(out, &[b"DEL", key]),
    }
    if let Some(Wait { replicas, at_most }) = wait.filter(|_| ask.verb().is_write()) {
        let (replicas, millis) = (replicas.to_string(), at_most.as_millis().max(1).to_string());
        command(out, &[b"WAIT", replicas.as_bytes(), millis.as_bytes()]);
    }
}

/// An array of bulk strings.
fn command(out: &mut BytesMut, words: &[&[u8]]) {
    out.put_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.put_slice(format!("${}\r\n", word.len()).as_bytes());
        out.put_slice(word);
        out.put_slice(b"\r\n");
    }
}

/// Takes one request's answer off the front, if all of it is there.
pub(super) fn decode(
    verb: Verb,
    wait: Option<Wait>,
    bytes: &mut BytesMut,
) -> Result<Option<Answer>, Garbled> {
    let Some((raw, end)) = reply_at(bytes, 0)? else { return Ok(None) };
    let Some(wait) = wait.filter(|_| verb.is_write()) else {
        let bytes = bytes.split_to(end).freeze();
        return answer(verb, &raw, &bytes).map(Some);
    };
    let Some((waited, end)) = reply_at(bytes, end)? else { return Ok(None) };
    let bytes = bytes.split_to(end).freeze();
    let written = answer(verb, &raw, &bytes)?;
    let kept = kept(wait, &waited, &bytes)?;
    Ok(Some(written.and_then(|none| kept.map(|()| none))))
}

fn answer(verb: Verb, raw: &Raw, bytes: &Bytes) -> Result<Answer, Garbled> {
    Ok(match (verb, raw) {
        (Verb::Hello, Raw::Bulk(range)) => Ok(Some(version(&bytes[range.clone()]))),
        (Verb::Hello, Raw::Error(range)) => hello_refused(&bytes[range.clone()]),
        (_, Raw::Error(range)) => Err(trouble(&bytes[range.clone()])),
        (Verb::Get, Raw::Bulk(range)) => Ok(Some(bytes.slice(range.clone()))),
        (Verb::Get, Raw::Nil) | (Verb::Delete, Raw::Integer(_)) => Ok(None),
        (Verb::Put, Raw::Simple(range)) if bytes[range.clone()] == *b"OK" => Ok(None),
        _ => return Err(Garbled::of(bytes)),
    })
}

/// Did as many replicas get the write as shall have it?
fn kept(wait: Wait, raw: &Raw, bytes: &Bytes) -> Result<Result<(), Trouble>, Garbled> {
    let in_doubt = |code: &str, reason| Trouble {
        failure: Failure::MaybeApplied,
        applied: Applied::Maybe,
        code: code.to_owned(),
        reason,
    };
    let Wait { replicas, at_most } = wait;
    Ok(match raw {
        Raw::Integer(count) if *count >= i64::from(replicas) => Ok(()),
        Raw::Integer(count) => {
            Err(in_doubt("WAIT", format!("{count} of {replicas} replicas had the write after {at_most:?}")))
        }
        Raw::Error(range) => {
            let Trouble { code, reason, .. } = trouble(&bytes[range.clone()]);
            Err(in_doubt(&code, reason))
        }
        _ => return Err(Garbled::of(bytes)),
    })
}

/// What stands after the sign of an error.
fn trouble(words: &[u8]) -> Trouble {
    let mut trouble = refused(words, Applied::Maybe);
    if NOT_CARRIED_OUT.contains(&trouble.code.as_str()) {
        trouble.applied = Applied::No;
    }
    trouble.failure = match trouble.code.as_str() {
        "OOM" | "BUSY" => Failure::Overloaded,
        "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" => Failure::Unreachable,
        _ => Failure::Refused,
    };
    trouble
}

/// Whoever wants a password serves nothing. Others may just not know the command, or not tell.
fn hello_refused(words: &[u8]) -> Answer {
    let trouble = trouble(words);
    if trouble.code == "NOAUTH" { Err(trouble) } else { Ok(Some(Bytes::from_static(b"unknown"))) }
}

fn version(info: &[u8]) -> Bytes {
    let text = String::from_utf8_lossy(info);
    let version = text.lines().find_map(|line| line.strip_prefix("redis_version:"));
    Bytes::copy_from_slice(version.unwrap_or("unknown").as_bytes())
}

/// The reply that begins at `at`, and where the next one does; `None` if it isn't all there.
fn reply_at(bytes: &[u8], at: usize) -> Result<Option<(Raw, usize)>, Garbled> {
    let Some(end) = line_end(bytes, at)? else { return Ok(None) };
    let (next, words) = (end + 2, at + 1..end);
    let garbled = || Garbled::of(&bytes[at..end]);
    if at == end {
        return Err(garbled());
    }
    let raw = match bytes[at] {
        b'+' => Raw::Simple(words),
        b'-' => Raw::Error(words),
        b':' => Raw::Integer(decimal(&bytes[words]).ok_or_else(garbled)?),
        b'$' if bytes[words.clone()] == *b"-1" => Raw::Nil,
        b'$' => return bulk_at(bytes, next, decimal(&bytes[words]).ok_or_else(garbled)?),
        _ => return Err(garbled()),
    };
    Ok(Some((raw, next)))
}

fn bulk_at(bytes: &[u8], start: usize, length: usize) -> Result<Option<(Raw, usize)>, Garbled> {
    if length > BULK_BYTES_MAX {
        return Err(Garbled::because(format!("a value of {length} bytes, longer than any written")));
    }
    let end = start + length;
    match bytes.get(end..end + 2) {
        None => Ok(None),
        Some(b"\r\n") => Ok(Some((Raw::Bulk(start..end), end + 2))),
        Some(_) => Err(Garbled::because(format!("a value of {length} bytes that doesn't end there"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Wait = Wait { replicas: 2, at_most: Duration::from_millis(500) };

    fn encoded(ask: &Ask, wait: Option<Wait>) -> String {
        let mut out = BytesMut::new();
        encode(ask, wait, &mut out);
        String::from_utf8(out.to_vec()).expect("all of it is text here")
    }

    fn key() -> Bytes {
        Bytes::from_static(b"key")
    }

    #[test]
    fn requests_are_arrays_of_bulk_strings() {
        assert_eq!(encoded(&Ask::Get(key()), Some(WAIT)), "*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n");
        let value = Bytes::from_static(b"a\r\nb");
        assert_eq!(
            encoded(&Ask::Put(key(), value.clone(), None), None),
            "*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$4\r\na\r\nb\r\n"
        );
        assert_eq!(
            encoded(&Ask::Put(key(), value, Some(Duration::from_secs(60))), None),
            "*5\r\n$3\r\nSET\r\n$3\r\nkey\r\n$4\r\na\r\nb\r\n$2\r\nPX\r\n$5\r\n60000\r\n"
        );
        assert_eq!(
            encoded(&Ask::Delete(key()), Some(WAIT)),
            "*2\r\n$3\r\nDEL\r\n$3\r\nkey\r\n*3\r\n$4\r\nWAIT\r\n$1\r\n2\r\n$3\r\n500\r\n"
        );
    }

    /// However the bytes come, cut anywhere, the answers are the same, and nothing of the next one is taken.
    #[test]
    fn answers_may_come_byte_by_byte() {
        let stream = b"$4\r\na\r\nb\r\n$-1\r\n$0\r\n\r\n+OK\r\n:1\r\n-OOM full\r\n";
        let verbs = [Verb::Get, Verb::Get, Verb::Get, Verb::Put, Verb::Delete, Verb::Put];
        let mut bytes = BytesMut::new();
        let mut answers = Vec::new();
        for &byte in stream {
            bytes.put_u8(byte);
            if let Some(answer) = decode(verbs[answers.len()], None, &mut bytes).expect("sound") {
                answers.push(answer);
                assert!(bytes.is_empty());
            }
        }
        let oom = answers.pop().expect("six answers").expect_err("an error");
        assert_eq!((oom.failure, oom.applied), (Failure::Overloaded, Applied::No));
        assert_eq!((oom.code.as_str(), oom.reason.as_str()), ("OOM", "OOM full"));
        let value = |text: &'static [u8]| Ok(Some(Bytes::from_static(text)));
        assert_eq!(answers, [value(b"a\r\nb"), Ok(None), value(b""), Ok(None), Ok(None)]);
    }

    #[test]
    fn a_write_that_waits_has_two_replies_and_is_stored_by_both() {
        let end = |stream: &[u8]| {
            let mut bytes = BytesMut::new();
            let mut answer = None;
            for &byte in stream {
                assert_eq!(answer, None, "no answer before all of it is there");
                bytes.put_u8(byte);
                answer = decode(Verb::Put, Some(WAIT), &mut bytes).expect("sound");
            }
            answer.expect("all of it is there").map_err(|it| (it.failure, it.applied, it.reason))
        };
        assert_eq!(end(b"+OK\r\n:2\r\n"), Ok(None));
        assert_eq!(end(b"+OK\r\n:3\r\n"), Ok(None));
        let few = "1 of 2 replicas had the write after 500ms".to_owned();
        assert_eq!(end(b"+OK\r\n:1\r\n"), Err((Failure::MaybeApplied, Applied::Maybe, few)));
        let cannot = "ERR WAIT cannot be used".to_owned();
        let waited = end(b"+OK\r\n-ERR WAIT cannot be used\r\n");
        assert_eq!(waited, Err((Failure::MaybeApplied, Applied::Maybe, cannot)));
        let refused = end(b"-READONLY no\r\n:0\r\n");
        assert_eq!(refused, Err((Failure::Refused, Applied::No, "READONLY no".to_owned())));
        let mut read = BytesMut::from(&b"$-1\r\n"[..]);
        assert_eq!(
            decode(Verb::Get, Some(WAIT), &mut read).expect("sound"),
            Some(Ok(None)),
            "reads don't wait"
        );
    }

    #[test]
    fn only_what_the_server_surely_did_not_do_is_taken_for_undone() {
        assert_eq!(trouble(b"ERR backend timed out").applied, Applied::Maybe);
        assert_eq!(trouble(b"MISCONF no disk").applied, Applied::No);
        assert_eq!(trouble(b"LOADING wait").failure, Failure::Unreachable);
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for (verb, stream) in [
            (Verb::Get, &b"+OK\r\n"[..]),
            (Verb::Get, b":1\r\n"),
            (Verb::Put, b"$-1\r\n"),
            (Verb::Put, b"+QUEUED\r\n"),
            (Verb::Delete, b"+OK\r\n"),
            (Verb::Get, b"*1\r\n$1\r\na\r\n"),
            (Verb::Get, b"$x\r\n"),
            (Verb::Get, b"$-2\r\n"),
            (Verb::Get, b"$99999999999\r\n"),
            (Verb::Get, b"$99999999999999999999999\r\n"),
            (Verb::Get, b"$1\r\nab\r\n"),
            (Verb::Get, b"\r\n"),
            (Verb::Get, b"VA 1\r\na\r\n"),
        ] {
            let mut bytes = BytesMut::from(stream);
            assert!(decode(verb, None, &mut bytes).is_err(), "{verb:?}: {stream:?}");
        }
        let mut endless = BytesMut::from(&[b'+'; 100_000][..]);
        assert!(decode(Verb::Put, None, &mut endless).is_err());
    }

    #[test]
    fn the_version_is_told_where_it_can_be() {
        let hello = |stream: &str| {
            let mut bytes = BytesMut::from(stream.as_bytes());
            decode(Verb::Hello, None, &mut bytes).expect("sound").expect("whole")
        };
        let info = "# Server\r\nredis_version:7.0.15\r\nos:x\r\n";
        assert_eq!(hello(&format!("${}\r\n{info}\r\n", info.len())), Ok(Some(Bytes::from_static(b"7.0.15"))));
        assert_eq!(hello("-ERR unknown command\r\n"), Ok(Some(Bytes::from_static(b"unknown"))));
        assert!(hello("-NOAUTH Authentication required.\r\n").is_err());
    }
}
