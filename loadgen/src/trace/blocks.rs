//! Block traces: `version,time,op,size,lbn`. `time` is in whole seconds, `op` a SCSI operation code in hexadecimal,
//! `size` in bytes, and `lbn` the object.

use crate::operation::Kind;

use super::{Row, SECOND_NS, TraceError, number, size};

/// The first line.
pub(super) const HEADER: &str = "version,time,op,size,lbn";

const COLUMNS: usize = 5;

pub(super) fn parse(line: u64, text: &str) -> Result<Row, TraceError> {
    let mut columns = [""; COLUMNS];
    let found = text.split(',').count();
    if found != COLUMNS {
        return Err(TraceError::Columns { line, found, expected: COLUMNS });
    }
    columns.iter_mut().zip(text.split(',')).for_each(|(column, text)| *column = text.trim());
    let [version, time, operation, length, object] = columns;
    let found = number(line, "version", version, 10)?;
    if found != 1 {
        return Err(TraceError::Version { line, found });
    }
    let code = number(line, "op", operation, 16)?;
    let time_ns = number(line, "time", time, 10)?.checked_mul(SECOND_NS);
    Ok(Row {
        time_ns: time_ns.ok_or_else(|| TraceError::Time { line, text: time.to_owned() })?,
        is_precise: false,
        kind: kind_of(code).ok_or(TraceError::Operation { line, code })?,
        size: size(line, length)?,
        lifetime_s: None,
        object: number(line, "lbn", object, 10)?.into(),
    })
}

/// SCSI block commands: READ and WRITE of 6, 10, 12 and 16 bytes, and UNMAP.
fn kind_of(code: u64) -> Option<Kind> {
    match code {
        0x08 | 0x28 | 0xa8 | 0x88 => Some(Kind::Read),
        0x0a | 0x2a | 0xaa | 0x8a => Some(Kind::Write),
        0x42 => Some(Kind::Delete),
        _ => None,
    }
}
