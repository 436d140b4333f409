//! What was found, as text: raw, hexadecimal or JSON.

use std::fmt::Write as _;
use std::sync::Arc;

use serde::Serialize;

/// What a get found.
#[derive(Serialize, Debug)]
pub(super) struct Found {
    pub(super) key: String,
    /// Of all versions together, for the put that replaces them.
    pub(super) context: Hex,
    pub(super) versions: Vec<Version>,
}

/// One of the versions that are there.
#[derive(Serialize, Debug)]
pub(super) struct Version {
    /// As text, where it is text.
    pub(super) text: Option<String>,
    pub(super) value: Hex,
    /// The coordinator's wall clock when it was put, since 1970.
    pub(super) timestamp_us: u64,
    /// Since 1970; absent if it never expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expiry_us: Option<u64>,
}

/// Bytes that print in hexadecimal.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Hex(pub(super) Vec<u8>);

impl Serialize for Hex {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&to_hex(&self.0))
    }
}

impl Version {
    /// `expiry_us` is 0 for never, as on the wire.
    pub(super) fn new(value: &[u8], timestamp_us: u64, expiry_us: u64) -> Self {
        Self {
            text: std::str::from_utf8(value).ok().map(str::to_owned),
            value: Hex(value.to_vec()),
            timestamp_us,
            expiry_us: (expiry_us != 0).then_some(expiry_us),
        }
    }
}

impl Found {
    /// The values alone, each on a line if there are several: a single one is printed byte for byte.
    pub(super) fn raw(&self) -> Vec<u8> {
        match self.versions.as_slice() {
            [only] => only.value.0.clone(),
            siblings => siblings.iter().flat_map(|version| [&version.value.0[..], b"\n"].concat()).collect(),
        }
    }

    /// The values alone in hexadecimal, each on a line.
    pub(super) fn hex(&self) -> String {
        self.versions.iter().map(|version| to_hex(&version.value.0) + "\n").collect()
    }
}

/// Anything as JSON for people and programs.
pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("plain structs with string keys are always JSON") + "\n"
}

pub(super) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

pub(super) fn from_hex(text: &str) -> Result<Arc<[u8]>, String> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect();
    match digits {
        Some(digits) if digits.len().is_multiple_of(2) => {
            Ok(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
        }
        _ => Err("not an even number of hexadecimal digits".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(values: &[&[u8]]) -> Found {
        let versions = values.iter().map(|value| Version::new(value, 7, 0)).collect();
        Found { key: "k".into(), context: Hex(vec![0xc0, 0x01]), versions }
    }

    #[test]
    fn one_value_is_printed_byte_for_byte_and_siblings_by_line() {
        assert_eq!(found(&[b"\xff\n\x00"]).raw(), b"\xff\n\x00");
        assert_eq!(found(&[b"milk", b"eggs"]).raw(), b"milk\neggs\n");
        assert_eq!(found(&[b"milk", b"\xff"]).hex(), "6d696c6b\nff\n");
    }

    #[test]
    fn json_tells_everything() {
        let text = json(&found(&[b"milk", b"\xff"]));
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed["context"], "c001");
        assert_eq!(parsed["versions"][0]["text"], "milk");
        assert_eq!(parsed["versions"][1]["text"], serde_json::Value::Null);
        assert_eq!(parsed["versions"][1]["value"], "ff");
    }

    #[test]
    fn hexadecimal_goes_there_and_back() {
        assert_eq!(from_hex(&to_hex(b"\x00\x7f\xff")).unwrap()[..], b"\x00\x7f\xff"[..]);
        assert!(from_hex("0").is_err() && from_hex("zz").is_err());
    }
}
