//! Histograms as text: HDR's V2 encoding, deflated, in base 64, as every HDR tool reads it.
//!
//! A result may come from anywhere, and its decoder takes lengths at their word: sixty bytes can ask for 4 GiB. So a text is
//! inflated here, up to a limit, and what its head claims is held against what there is before anything is made of it.
//!
//! ```text
//! deflated   cookie 4 | length of the rest 4 | V2, deflated by zlib, and never deflated twice
//! V2         cookie 4 | length of counts 4 | offset 4 | digits 4 | lowest 8 | highest 8 | ratio 8 | counts
//! ```
//!
//! Numbers are big-endian.

use std::io::{Cursor, Read};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::read::ZlibDecoder;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};

use crate::tally::latency_histogram;

/// Why a text is no histogram of latencies.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a histogram can't be read: {0}")]
pub struct EncodedError(String);

/// No longer text is decoded: a histogram of latencies takes less than a megabyte.
const TEXT_LEN_MAX: usize = 4 << 20;
/// And none that is longer when it is inflated: some 35,000 counts of up to nine bytes are much less.
const PLAIN_LEN_MAX: usize = 4 << 20;
const DEFLATED_COOKIE: u32 = 0x1c84_9314;
/// Of V2 with counts of variable length. The decoder knows others, one of which is deflated once more, without a limit.
const PLAIN_COOKIE: u32 = 0x1c84_9313;
const DEFLATED_HEAD_LEN: usize = 8;
const PLAIN_HEAD_LEN: usize = 40;
/// Each more takes ten times the memory, however little there is to count.
const DIGITS_MAX: u32 = 3;

/// A histogram as text: some kilobytes.
pub fn encode(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    let written = V2DeflateSerializer::new().serialize(histogram, &mut bytes);
    written.expect("a histogram fits into memory as text too");
    STANDARD.encode(bytes)
}

/// The histogram, with the bounds of all others of this program, so that they add up.
pub fn decode(text: &str) -> Result<Histogram<u64>, EncodedError> {
    if text.len() > TEXT_LEN_MAX {
        return Err(EncodedError("it is longer than 4 MiB".to_owned()));
    }
    let bytes = STANDARD.decode(text).map_err(|error| EncodedError(error.to_string()))?;
    let plain = inflate(bytes)?;
    refuse_claims(&plain)?;
    let read = Deserializer::new().deserialize::<u64, _>(&mut Cursor::new(plain));
    let read = read.map_err(|error| EncodedError(error.to_string()))?;
    let mut histogram = latency_histogram();
    histogram.add(&read).map_err(|error| EncodedError(error.to_string()))?;
    Ok(histogram)
}

fn inflate(bytes: Vec<u8>) -> Result<Vec<u8>, EncodedError> {
    if number_at(&bytes, 0) != Some(DEFLATED_COOKIE) {
        return Ok(bytes);
    }
    let deflated = bytes.get(DEFLATED_HEAD_LEN..).unwrap_or_default();
    let mut plain = Vec::new();
    let read = ZlibDecoder::new(deflated).take(PLAIN_LEN_MAX as u64 + 1).read_to_end(&mut plain);
    read.map_err(|error| EncodedError(error.to_string()))?;
    if plain.len() > PLAIN_LEN_MAX {
        return Err(EncodedError("it is longer than 4 MiB when it is inflated".to_owned()));
    }
    Ok(plain)
}

/// What the head says decides how much memory is taken.
fn refuse_claims(plain: &[u8]) -> Result<(), EncodedError> {
    if number_at(plain, 0) != Some(PLAIN_COOKIE) {
        return Err(EncodedError("it is no histogram in the V2 encoding".to_owned()));
    }
    let (Some(claimed), Some(digits)) = (number_at(plain, 4), number_at(plain, 12)) else {
        return Err(EncodedError("it has no head".to_owned()));
    };
    let found = plain.len().saturating_sub(PLAIN_HEAD_LEN);
    if claimed as usize > found {
        return Err(EncodedError(format!("it claims {claimed} bytes of counts and has {found}")));
    }
    if digits > DIGITS_MAX {
        return Err(EncodedError(format!("it has {digits} significant digits, more than {DIGITS_MAX}")));
    }
    Ok(())
}

fn number_at(bytes: &[u8], place: usize) -> Option<u32> {
    let four = bytes.get(place..place + 4)?;
    Some(u32::from_be_bytes(four.try_into().expect("four bytes")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_encoded_is_read_back(values in prop::collection::vec(1..3_600_000_000_000u64, 0..200)) {
            let mut histogram = latency_histogram();
            values.iter().for_each(|&value| histogram.saturating_record(value));
            prop_assert_eq!(decode(&encode(&histogram)).expect("its own text"), histogram);
        }

        /// A byte of what is deflated, or of the text itself: an error or another histogram, but no panic, and no memory.
        #[test]
        fn a_mutated_text_is_an_error_or_a_histogram(
            values in prop::collection::vec(1..3_600_000_000_000u64, 1..50),
            place in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut histogram = latency_histogram();
            values.iter().for_each(|&value| histogram.saturating_record(value));
            let bytes = STANDARD.decode(encode(&histogram)).expect("its own text");
            let mut deflated = bytes.clone();
            deflated[place.index(bytes.len())] = byte;
            let _unless_it_panics = decode(&STANDARD.encode(&deflated));
            let mut plain = inflate(bytes).expect("its own text");
            let at = place.index(plain.len());
            let is_cookie = at < 4 && plain[at] != byte;
            plain[at] = byte;
            let read = decode(&deflated_text(&plain));
            prop_assert!(read.is_err() || !is_cookie, "{at} {byte}");
        }

        #[test]
        fn rubbish_is_an_error(text in "[A-Za-z0-9+/]{0,200}") {
            prop_assert!(decode(&text).is_err());
        }
    }

    #[test]
    fn a_histogram_with_other_bounds_is_read_if_its_values_fit() {
        let mut other = Histogram::<u64>::new(2).expect("two digits");
        other.record(5_000_000).expect("in range");
        assert_eq!(decode(&encode(&other)).expect("in range").len(), 1);
        other.record(u64::MAX / 4).expect("it grows");
        assert!(decode(&encode(&other)).is_err(), "longer than an hour");
    }

    /// A head with these claims and then so many zeros, deflated.
    fn text_of(counts_len: u32, digits: u32, zeros: usize) -> String {
        let mut plain = Vec::new();
        for number in [0x1c84_9313, counts_len, 0, digits] {
            plain.extend_from_slice(&u32::to_be_bytes(number));
        }
        plain.extend_from_slice(&1u64.to_be_bytes());
        plain.extend_from_slice(&u64::MAX.to_be_bytes());
        plain.extend_from_slice(&1f64.to_be_bytes());
        plain.resize(plain.len() + zeros, 0);
        deflated_text(&plain)
    }

    fn deflated_text(plain: &[u8]) -> String {
        let mut deflated = Vec::new();
        let mut encoder = flate2::write::ZlibEncoder::new(&mut deflated, flate2::Compression::best());
        std::io::Write::write_all(&mut encoder, plain).expect("memory is writable");
        encoder.finish().expect("memory is writable");
        let mut bytes = DEFLATED_COOKIE.to_be_bytes().to_vec();
        bytes.extend_from_slice(&(deflated.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&deflated);
        STANDARD.encode(bytes)
    }

    /// The decoder would inflate what is inside by itself, up to whatever it claims.
    #[test]
    fn what_is_deflated_twice_is_refused() {
        let mut histogram = latency_histogram();
        histogram.record(5_000_000).expect("in range");
        let once = STANDARD.decode(encode(&histogram)).expect("its own text");
        assert!(decode(&STANDARD.encode(&once)).is_ok());
        let error = decode(&deflated_text(&once)).expect_err("twice").to_string();
        assert!(error.ends_with("it is no histogram in the V2 encoding"), "{error}");
        // Nor what isn't deflated at all, if it has another cookie.
        let mut plain = inflate(once).expect("its own text");
        assert!(decode(&STANDARD.encode(&plain)).is_ok());
        plain[3] = 0x01;
        assert!(decode(&STANDARD.encode(&plain)).is_err());
    }

    /// Without the check, the decoder makes room for what is claimed, and finds out afterwards.
    #[test]
    fn a_short_text_takes_no_more_memory_than_it_needs() {
        let greedy = text_of(512 << 20, 3, 0);
        assert!(greedy.len() < 80, "{}", greedy.len());
        let error = decode(&greedy).expect_err("there are no counts").to_string();
        assert_eq!(error, "a histogram can't be read: it claims 536870912 bytes of counts and has 0");
        let error = decode(&text_of(1, 5, 1)).expect_err("too exact").to_string();
        assert!(error.ends_with("it has 5 significant digits, more than 3"), "{error}");
        let bomb = text_of(1, 3, 100 << 20);
        assert!(bomb.len() < 200_000, "{}", bomb.len());
        let error = decode(&bomb).expect_err("a hundred megabytes").to_string();
        assert!(error.ends_with("longer than 4 MiB when it is inflated"), "{error}");
        assert_eq!(decode(&text_of(1, 3, 1)).map(|histogram| histogram.len()), Ok(0), "the head is sound");
    }
}
