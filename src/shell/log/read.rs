//! A log that is only read: all records that a start would take back, and nothing changed.

use std::io;

use super::disk::Buffer;
use super::recovery::Files;
use crate::failpoint::NoFailpoints;
use crate::storage::log::{Manifest, Recovery, Report, Segment};

/// A segment that isn't sealed, with what was read of it.
type Open = (Segment, Buffer, usize);

/// Give `each` every record that stands, with its sequence, in the order in which they were appended. What was found besides.
///
/// # Errors
///
/// If the files can't be read, or what `each` says.
pub(super) fn read<E: From<io::Error>>(
    files: &Files,
    manifest: Manifest,
    each: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<Report, E> {
    let read = |segment: Segment| {
        let mut bytes = Buffer::new(files.geometry.segment_bytes());
        let length = files.read_slot(segment.slot, &mut bytes)?;
        Ok((segment, bytes, length))
    };
    let open = open_segments(&manifest).into_iter().map(read).collect::<io::Result<Vec<Open>>>()?;
    give(files, manifest, &open, each)
}

/// The same for a log that its node may be writing meanwhile: all that was written before this was called, and perhaps more.
/// It counts only if another manifest, read afterwards, still lists the same segments: else a slot may have been used again.
///
/// # Errors
///
/// As above.
pub(super) fn read_while_written<E: From<io::Error>>(
    files: &Files,
    mut manifest: Manifest,
    each: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<Report, E> {
    let mut open = Vec::new();
    let mut is_later_begun = false;
    // The last one first: when anything of it can be read, those before it were whole, and stay so.
    for segment in open_segments(&manifest).into_iter().rev() {
        let mut bytes = Buffer::new(files.geometry.segment_bytes());
        let mut length = files.read_slot(segment.slot, &mut bytes)?;
        if !is_later_begun {
            let extent = manifest.extent_of(segment, &bytes[..length]);
            manifest.durable = manifest.durable.max(extent.durable);
            is_later_begun = extent.bytes > 0;
            length = files.read_slot(segment.slot, &mut bytes)?.min(extent.bytes);
        }
        open.push((segment, bytes, length));
    }
    open.reverse();
    give(files, manifest, &open, each)
}

/// In the order in which they are written.
fn open_segments(manifest: &Manifest) -> Vec<Segment> {
    Recovery::new(manifest.clone(), NoFailpoints).open_segments().collect()
}

fn give<E: From<io::Error>>(
    files: &Files,
    manifest: Manifest,
    open: &[Open],
    mut each: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<Report, E> {
    let mut recovery = Recovery::new(manifest, NoFailpoints);
    let segments: Vec<Segment> = recovery.segments().collect();
    let (mut found, mut records) = (Vec::new(), 0);
    for segment in segments {
        if let Some((_, bytes, length)) = open.iter().find(|(of, ..)| *of == segment) {
            recovery.feed(segment, &bytes[..*length], &mut found);
            continue;
        }
        let mut bytes = Buffer::new(files.geometry.segment_bytes());
        let length = files.read_slot(segment.slot, &mut bytes)?;
        let known = found.len();
        recovery.feed(segment, &bytes[..length], &mut found);
        // What a sealed segment holds is certain; nothing later changes it.
        for one in found.drain(known..) {
            records += 1;
            each(one.sequence, &bytes[one.payload()])?;
        }
    }
    let recovered = recovery.settle(&mut found);
    for one in found.iter().chain(&recovered.tail) {
        let (_, bytes, _) =
            open.iter().find(|(of, ..)| *of == one.segment).expect("what is left was read first");
        each(one.sequence, &bytes[one.payload()])?;
    }
    let mut report = recovered.report;
    report.records += records;
    Ok(report)
}
