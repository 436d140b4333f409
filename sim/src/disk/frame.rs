//! How a record lies on the disk: one after the other, from offset 0, unaligned.
//!
//! ```text
//! len u32 | checksum u64 | bytes
//! ```
//!
//! Little-endian. The checksum is xxh3 over the bytes, seeded with the position, so that no record is taken for
//! another of the same bytes, and zeros are never a record.

use xxhash_rust::xxh3::xxh3_64_with_seed;

const LEN_BYTES: usize = 4;
/// What precedes a record's bytes.
pub(super) const HEADER_BYTES: usize = LEN_BYTES + 8;

/// Write the frame of the record at `position` into `frame`, in place of what was there.
pub(super) fn encode(frame: &mut Vec<u8>, position: u64, record: &[u8]) {
    let len = u32::try_from(record.len()).expect("a record is shorter than 4 GiB");
    frame.clear();
    frame.extend_from_slice(&len.to_le_bytes());
    frame.extend_from_slice(&xxh3_64_with_seed(record, position).to_le_bytes());
    frame.extend_from_slice(record);
}

/// The record that `disk` begins with, if it is whole and is the one at `position`.
pub(super) fn decode(disk: &[u8], position: u64) -> Option<&[u8]> {
    let (len, rest) = disk.split_first_chunk::<LEN_BYTES>()?;
    let (checksum, rest) = rest.split_first_chunk::<8>()?;
    let record = rest.get(..u32::from_le_bytes(*len) as usize)?;
    (xxh3_64_with_seed(record, position) == u64::from_le_bytes(*checksum)).then_some(record)
}

/// Where each record of a log ends, up to the first that isn't whole. Positions count from 1.
pub(super) fn scan(disk: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut end = 0;
    while let Some(record) = decode(&disk[end..], ends.len() as u64 + 1) {
        end += HEADER_BYTES + record.len();
        ends.push(end);
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(records: &[&[u8]]) -> Vec<u8> {
        let (mut disk, mut frame) = (Vec::new(), Vec::new());
        for (position, record) in (1..).zip(records) {
            encode(&mut frame, position, record);
            disk.extend_from_slice(&frame);
        }
        disk
    }

    #[test]
    fn zeros_hold_no_record() {
        assert_eq!(scan(&[0; 8192]), []);
        assert_eq!(scan(&[]), []);
    }

    #[test]
    fn an_empty_record_is_one() {
        let disk = log(&[b"", b"a", b""]);
        assert_eq!(scan(&disk), [12, 25, 37]);
        assert_eq!(decode(&disk[12..], 2), Some(b"a".as_slice()));
    }

    #[test]
    fn a_record_cut_short_is_none() {
        let disk = log(&[b"first", b"second"]);
        for len in 0..disk.len() {
            let whole = usize::from(len >= HEADER_BYTES + 5);
            assert_eq!(scan(&disk[..len]).len(), whole, "the first {len} bytes");
        }
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let disk = log(&[b"a record", b"another"]);
        for bit in 0..8 * disk.len() {
            let mut flipped = disk.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let whole = usize::from(bit / 8 >= HEADER_BYTES + 8);
            assert_eq!(scan(&flipped).len(), whole, "bit {bit}");
        }
    }

    #[test]
    fn a_record_at_another_position_is_none() {
        let disk = log(&[b"same", b"same"]);
        let (first, second) = disk.split_at(HEADER_BYTES + 4);
        assert_eq!(scan(&[second, first].concat()), []);
        assert_eq!(scan(&[first, first].concat()).len(), 1);
    }
}
