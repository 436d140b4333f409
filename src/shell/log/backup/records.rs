//! The records of one shard in a file: `length u32 | sequence u64 | the record`, one after the other, little-endian.
//!
//! The file's length and checksum stand in the description, so it is believed as a whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use super::description::ShardFile;
use super::{BackupError, of};
use crate::storage::log::Geometry;

/// Before a record.
const HEADER_BYTES: usize = 12;
const BUFFER_BYTES: usize = 1 << 20;

/// Where they are.
pub(super) fn path_of(backup: &Path, shard: usize) -> PathBuf {
    backup.join(format!("shard-{shard}.records"))
}

/// A file that is being written.
pub(super) struct Writing {
    file: BufWriter<File>,
    hasher: Xxh3,
    written: ShardFile,
}

impl Writing {
    /// Begin it, anew if it is there.
    pub(super) fn begin(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        Ok(Self { file, hasher: Xxh3::new(), written: ShardFile::default() })
    }

    pub(super) fn add(&mut self, sequence: u64, record: &[u8]) -> io::Result<()> {
        let length = u32::try_from(record.len()).map_err(io::Error::other)?;
        let mut header = [0; HEADER_BYTES];
        header[..4].copy_from_slice(&length.to_le_bytes());
        header[4..].copy_from_slice(&sequence.to_le_bytes());
        for part in [&header, record] {
            self.hasher.update(part);
            self.file.write_all(part)?;
        }
        self.written.records += 1;
        self.written.through = sequence;
        self.written.bytes += (HEADER_BYTES + record.len()) as u64;
        Ok(())
    }

    /// All of it is on stable storage.
    pub(super) fn finish(self) -> io::Result<ShardFile> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(ShardFile { check: self.hasher.digest(), ..self.written })
    }
}

/// Give `each` every record with its sequence. Whether it was right to believe them is known at the end: a file that isn't what
/// the description says is damaged, whatever `each` has said of it.
pub(super) fn read(
    path: &Path,
    expected: &ShardFile,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), BackupError>,
) -> Result<(), BackupError> {
    let damaged = || BackupError::Damaged { path: path.to_owned() };
    let file = File::open(path).map_err(of(path))?;
    if file.metadata().map_err(of(path))?.len() != expected.bytes {
        return Err(damaged());
    }
    let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
    let (mut hasher, mut read, mut said) = (Xxh3::new(), ShardFile::default(), Ok(()));
    let mut record = Vec::new();
    while read.bytes < expected.bytes {
        if expected.bytes - read.bytes < HEADER_BYTES as u64 {
            return Err(damaged());
        }
        let mut header = [0; HEADER_BYTES];
        file.read_exact(&mut header).map_err(of(path))?;
        let [l0, l1, l2, l3, sequence @ ..] = header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        read.bytes += HEADER_BYTES as u64 + u64::from(length);
        if read.bytes > expected.bytes || length > Geometry::SEGMENT_BYTES_MAX {
            return Err(damaged());
        }
        record.resize(length as usize, 0);
        file.read_exact(&mut record).map_err(of(path))?;
        hasher.update(&header);
        hasher.update(&record);
        read.records += 1;
        read.through = u64::from_le_bytes(sequence);
        if said.is_ok() {
            said = each(read.through, &record);
        }
    }
    read.check = hasher.digest();
    if read == *expected { said } else { Err(damaged()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_were_written_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = path_of(directory.path(), 0);
        let mut writing = Writing::begin(&path).unwrap();
        writing.add(4, b"one").unwrap();
        writing.add(9, b"").unwrap();
        writing.add(10, b"three").unwrap();
        let file = writing.finish().unwrap();
        assert_eq!((file.records, file.through, file.bytes), (3, 10, 44));
        let mut records = Vec::new();
        let mut take = |sequence, record: &[u8]| {
            records.push((sequence, record.to_vec()));
            Ok(())
        };
        read(&path, &file, &mut take).unwrap();
        assert_eq!(records, [(4, b"one".to_vec()), (9, Vec::new()), (10, b"three".to_vec())]);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                std::fs::write(&path, &bytes).unwrap();
                let refused = read(&path, &file, |_, _| Ok(()));
                assert!(matches!(refused, Err(BackupError::Damaged { .. })), "bit {bit} of byte {at}");
            }
            std::fs::write(&path, &whole[..at]).unwrap();
            let refused = read(&path, &file, |_, _| Ok(()));
            assert!(matches!(refused, Err(BackupError::Damaged { .. })), "cut at {at}");
        }
    }
}
