//! A log that is only read: all records that a start would take back, and nothing changed.

use std::io;

use super::disk::Buffer;
use super::recovery::Files;
use crate::failpoint::NoFailpoints;
use crate::storage::log::{Manifest, Recovery, Report, Segment};

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
    let mut recovery = Recovery::new(manifest, NoFailpoints);
    let segments: Vec<Segment> = recovery.segments().collect();
    let is_open: Vec<Segment> = recovery.open_segments().collect();
    let (mut found, mut open, mut records) = (Vec::new(), Vec::new(), 0);
    for segment in segments {
        let mut bytes = Buffer::new(files.geometry.segment_bytes());
        let length = files.read_slot(segment.slot, &mut bytes)?;
        let known = found.len();
        recovery.feed(segment, &bytes[..length], &mut found);
        if is_open.contains(&segment) {
            open.push(bytes);
            continue;
        }
        // What a sealed segment holds is certain; nothing later changes it.
        for one in found.drain(known..) {
            records += 1;
            each(one.sequence, &bytes[one.payload()])?;
        }
    }
    let recovered = recovery.settle(&mut found);
    for one in found.iter().chain(&recovered.tail) {
        let at = is_open.iter().position(|segment| *segment == one.segment);
        let bytes = &open[at.expect("what is left was read last")];
        each(one.sequence, &bytes[one.payload()])?;
    }
    let mut report = recovered.report;
    report.records += records;
    Ok(report)
}
