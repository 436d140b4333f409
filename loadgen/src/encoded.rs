//! Histograms as text: HDR's V2 encoding, deflated, in base 64, as every HDR tool reads it.

use std::io::Cursor;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};

use crate::tally::latency_histogram;

/// Why a text is no histogram of latencies.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a histogram can't be read: {0}")]
pub struct EncodedError(String);

/// No longer text is decoded: a histogram of latencies takes less than a megabyte.
const TEXT_LEN_MAX: usize = 4 << 20;

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
    let read = Deserializer::new().deserialize::<u64, _>(&mut Cursor::new(bytes));
    let read = read.map_err(|error| EncodedError(error.to_string()))?;
    let mut histogram = latency_histogram();
    histogram.add(&read).map_err(|error| EncodedError(error.to_string()))?;
    Ok(histogram)
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
}
