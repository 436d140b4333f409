//! A log that is only read: all records that a start would take back, and nothing changed.

use std::io;

use super::disk::Buffer;
use super::recovery::Files;
use crate::failpoint::NoFailpoints;
use crate::storage::log::{Entry, Manifest, Recovery, Report, SECTOR_BYTES, Segment};

/// A segment that isn't sealed, with what was read of it.
type Open = (Segment, Buffer, usize);

/// A slot is read in pieces of so many bytes.
const PIECE_BYTES: usize = 1 << 20;

/// What is told of a log while it is read.
pub(super) enum Told<'a> {
    /// So many bytes of a segment were read,
    Piece(usize),
    /// and all of it.
    Segment,
    /// A record that stands, with its sequence: in the order in which they were appended.
    Record(u64, &'a [u8]),
}

/// Give `each` every record that stands, with its sequence, in the order in which they were appended. What was found besides.
///
/// # Errors
///
/// If the files can't be read, or what `each` says.
pub(super) fn read<E: From<io::Error>>(
    files: &Files,
    manifest: Manifest,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<Report, E> {
    let mut tell = |told: Told<'_>| match told {
        Told::Record(sequence, record) => each(sequence, record),
        Told::Piece(_) | Told::Segment => Ok(()),
    };
    let mut open = Vec::new();
    for segment in open_segments(&manifest) {
        open.push(read_segment(files, segment, &mut tell)?);
    }
    give(files, manifest, &open, 0, tell)
}

/// The same for a log that its node may be writing meanwhile: all that was written before this was called, and perhaps more.
/// It counts only if another manifest, read afterwards, still lists the same segments: else a slot may have been used again.
/// Segments that hold nothing after the sequence `since` are not read, and count as damaged.
///
/// # Errors
///
/// If the files can't be read, or what `tell` says.
pub(super) fn read_while_written<E: From<io::Error>>(
    files: &Files,
    mut manifest: Manifest,
    since: u64,
    mut tell: impl FnMut(Told<'_>) -> Result<(), E>,
) -> Result<Report, E> {
    let mut open = Vec::new();
    let mut is_later_begun = false;
    // The last one first: when anything of it can be read, those before it were whole, and stay so.
    for segment in open_segments(&manifest).into_iter().rev() {
        let (_, mut bytes, mut length) = read_segment(files, segment, &mut tell)?;
        if !is_later_begun {
            let extent = manifest.extent_of(segment, &bytes[..length]);
            manifest.durable = manifest.durable.max(extent.durable);
            is_later_begun = extent.bytes > 0;
            length = read_start(files, segment, &mut bytes, extent.bytes, &mut tell)?;
        }
        open.push((segment, bytes, length));
    }
    open.reverse();
    give(files, manifest, &open, since, tell)
}

/// In the order in which they are written.
fn open_segments(manifest: &Manifest) -> Vec<Segment> {
    Recovery::new(manifest.clone(), NoFailpoints).open_segments().collect()
}

fn read_segment<E: From<io::Error>>(
    files: &Files,
    segment: Segment,
    tell: &mut impl FnMut(Told<'_>) -> Result<(), E>,
) -> Result<Open, E> {
    let mut bytes = Buffer::new(files.geometry.segment_bytes());
    let length = read_start(files, segment, &mut bytes, files.geometry.segment_bytes(), tell)?;
    tell(Told::Segment)?;
    Ok((segment, bytes, length))
}

/// The first so many bytes, as far as the file goes.
fn read_start<E: From<io::Error>>(
    files: &Files,
    segment: Segment,
    into: &mut Buffer,
    bytes: usize,
    tell: &mut impl FnMut(Told<'_>) -> Result<(), E>,
) -> Result<usize, E> {
    let mut filled = 0;
    while filled < bytes {
        let end = bytes.min(filled + PIECE_BYTES).next_multiple_of(SECTOR_BYTES);
        let start = files.start_of(segment.slot) + filled as u64;
        let read = files.segments.read(&mut into[filled..end], start)?;
        tell(Told::Piece(read))?;
        filled += read;
        if filled < end {
            break;
        }
    }
    Ok(filled.min(bytes))
}

fn give<E: From<io::Error>>(
    files: &Files,
    manifest: Manifest,
    open: &[Open],
    since: u64,
    mut tell: impl FnMut(Told<'_>) -> Result<(), E>,
) -> Result<Report, E> {
    let is_over = |entry: &&Entry| entry.sealed.is_some_and(|range| range.last <= since);
    let over: Vec<Segment> = manifest.entries.iter().filter(is_over).map(|entry| entry.segment).collect();
    let mut recovery = Recovery::new(manifest, NoFailpoints);
    let segments: Vec<Segment> = recovery.segments().collect();
    let (mut found, mut records) = (Vec::new(), 0);
    for segment in segments.into_iter().filter(|segment| !over.contains(segment)) {
        if let Some((_, bytes, length)) = open.iter().find(|(of, ..)| *of == segment) {
            recovery.feed(segment, &bytes[..*length], &mut found);
            continue;
        }
        let (_, bytes, length) = read_segment(files, segment, &mut tell)?;
        let known = found.len();
        recovery.feed(segment, &bytes[..length], &mut found);
        // What a sealed segment holds is certain; nothing later changes it.
        for one in found.drain(known..) {
            records += 1;
            tell(Told::Record(one.sequence, &bytes[one.payload()]))?;
        }
    }
    let recovered = recovery.settle(&mut found);
    for one in found.iter().chain(&recovered.tail) {
        let (_, bytes, _) =
            open.iter().find(|(of, ..)| *of == one.segment).expect("what is left was read first");
        tell(Told::Record(one.sequence, &bytes[one.payload()]))?;
    }
    let mut report = recovered.report;
    report.records += records;
    Ok(report)
}
