//! What a backup says of itself: lines of text, of which the last holds the checksum of the others.
//!
//! ```text
//! ringmain-backup 1
//! cluster 55b2a0ff1ec9ac93
//! node 1f8c63ae0d2b7745 n1
//! partitions 1024
//! segment-bytes 33554432
//! taken 1795787221
//! ring 5d0c1f6a9b3e2874 change 5d0c1f6a9b3e2874 members 3
//! lacking 0
//! hints 0
//! shard 0 records 1000 through 1204 bytes 181936 check 3b0c16a1d2c9ff60
//! check 9a0c8b5de1f2a763
//! ```

use std::fmt;
use std::fs;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use super::noted::{Lacking, RingInForce};
use super::{BackupError, of};
use crate::config::check_name;
use crate::id::{ClusterId, NodeId};
use crate::ring::Partitions;
use crate::storage::log::Geometry;

/// The one format that this build reads and writes.
pub(super) const FORMAT: u32 = 1;
const TITLE: &str = "ringmain-backup ";
/// The file.
pub(super) const NAME: &str = "description";
/// The file while a backup is being made.
pub(super) const UNFINISHED: &str = "unfinished";
/// Of what is lacking.
const UNKNOWN: &str = "unknown";
/// Lines of 65,535 shards are shorter.
const BYTES_MAX: u64 = 16 << 20;

/// A whole backup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Backup {
    pub(super) cluster: ClusterId,
    pub(super) node: NodeId,
    /// The node's; it has no space in it.
    pub(super) name: String,
    /// Q, by which the records speak of partitions.
    pub(super) partitions: u32,
    /// The largest record fits into a segment of so many bytes.
    pub(super) segment_bytes: u32,
    /// When it was begun, in seconds since 1970.
    pub(super) taken: u64,
    /// By which it worked.
    pub(super) ring: RingInForce,
    /// What it says that it lacks.
    pub(super) lacking: Lacking,
    /// States of keys that it kept for others.
    pub(super) hints: u64,
    /// In the order of the shards.
    pub(super) shards: Vec<ShardFile>,
}

/// The records of one shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct ShardFile {
    pub(super) records: u64,
    /// The last of them.
    pub(super) through: u64,
    pub(super) bytes: u64,
    /// XXH3 of all bytes.
    pub(super) check: u64,
}

/// Is there a backup, whole or not?
pub fn is_backup(path: &Path) -> bool {
    // What can't be looked at is said when it is read.
    [NAME, UNFINISHED].into_iter().any(|name| path.join(name).try_exists().unwrap_or(true))
}

impl Backup {
    /// Of the backup in this directory.
    pub(super) fn read(path: &Path) -> Result<Self, BackupError> {
        let file = path.join(NAME);
        let length = match fs::metadata(&file) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let path = path.to_owned();
                return Err(match path.join(UNFINISHED).try_exists() {
                    Ok(true) => BackupError::Unfinished { path },
                    _ => BackupError::NoBackup { path },
                });
            }
            Err(error) => return Err(of(&file)(error)),
        };
        let damaged = || BackupError::Damaged { path: file.clone() };
        if length > BYTES_MAX {
            return Err(damaged());
        }
        let bytes = fs::read(&file).map_err(of(&file))?;
        let text = std::str::from_utf8(&bytes).map_err(|_| damaged())?;
        match format_of(text) {
            Some(FORMAT) => Self::parse(text).ok_or_else(damaged),
            Some(format) => Err(BackupError::Newer { path: path.to_owned(), format }),
            None => Err(damaged()),
        }
    }

    pub(super) fn encode(&self) -> String {
        use fmt::Write as _;
        let Self { cluster, node, name, partitions, segment_bytes, taken, ring, lacking, hints, shards } =
            self;
        let RingInForce { hash, change, members } = ring;
        let lacking = match lacking {
            Lacking::Partitions(count) => count.to_string(),
            Lacking::Unknown => UNKNOWN.to_owned(),
        };
        let mut text = format!(
            "{TITLE}{FORMAT}\ncluster {cluster}\nnode {node} {name}\npartitions {partitions}\nsegment-bytes {segment_bytes}\n\
             taken {taken}\nring {hash:016x} change {change:016x} members {members}\nlacking {lacking}\nhints {hints}\n"
        );
        for (shard, file) in shards.iter().enumerate() {
            let ShardFile { records, through, bytes, check } = file;
            let written = writeln!(
                text,
                "shard {shard} records {records} through {through} bytes {bytes} check {check:016x}"
            );
            written.expect("a string takes whatever is written to it");
        }
        let check = check_line(&text);
        text + &check
    }

    fn parse(text: &str) -> Option<Self> {
        let before = text.trim_end_matches('\n').rfind('\n')? + 1;
        let (said, check) = text.split_at(before);
        if check != check_line(said) {
            return None;
        }
        let mut lines = said.lines().skip(1);
        let mut value = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let cluster = ClusterId(hexadecimal(value("cluster")?)?);
        let (node, name) = value("node")?.split_once(' ')?;
        let partitions = value("partitions")?.parse().ok()?;
        let segment_bytes = value("segment-bytes")?.parse().ok()?;
        let taken = value("taken")?.parse().ok()?;
        let ring = parse_ring(value("ring")?)?;
        let lacking = match value("lacking")? {
            UNKNOWN => Lacking::Unknown,
            count => Lacking::Partitions(count.parse().ok()?),
        };
        let hints = value("hints")?.parse().ok()?;
        let shards = lines.enumerate().map(|(shard, line)| ShardFile::parse(shard, line));
        let shards: Vec<ShardFile> = shards.collect::<Option<_>>()?;
        // Its checksum is right, but anybody can make one.
        let is_possible = Partitions::new(partitions).is_ok()
            && Geometry::new(segment_bytes, 1).is_some()
            && check_name(name, "node").is_ok()
            && !shards.is_empty();
        is_possible.then_some(())?;
        Some(Self {
            cluster,
            node: NodeId(hexadecimal(node)?),
            name: name.to_owned(),
            partitions,
            segment_bytes,
            taken,
            ring,
            lacking,
            hints,
            shards,
        })
    }
}

fn parse_ring(text: &str) -> Option<RingInForce> {
    let words: Vec<&str> = text.split(' ').collect();
    let [hash, "change", change, "members", members] = words[..] else { return None };
    let (hash, change) = (hexadecimal(hash)?, hexadecimal(change)?);
    Some(RingInForce { hash, change, members: members.parse().ok()? })
}

impl ShardFile {
    fn parse(shard: usize, line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let ["shard", number, "records", records, "through", through, "bytes", bytes, "check", check] =
            words[..]
        else {
            return None;
        };
        (number == shard.to_string()).then_some(())?;
        Some(Self {
            records: records.parse().ok()?,
            through: through.parse().ok()?,
            bytes: bytes.parse().ok()?,
            check: hexadecimal(check)?,
        })
    }
}

/// Every format begins with it.
fn format_of(text: &str) -> Option<u32> {
    text.lines().next()?.strip_prefix(TITLE)?.parse().ok()
}

fn check_line(text: &str) -> String {
    format!("check {:016x}\n", xxh3_64(text.as_bytes()))
}

/// Seconds since 1970 as a date and a time of day, UTC.
fn in_words(seconds: u64) -> String {
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March here, so that a leap day is the last of its year, and 400 of them have 146,097 days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (time / 3_600, time / 60 % 60, time % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

impl fmt::Display for Backup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, node, name, taken, ring, lacking, hints, shards, .. } = self;
        write!(f, "{name} (node {node} of cluster {cluster}), taken {}", in_words(*taken))?;
        shards.iter().enumerate().try_for_each(|(shard, file)| {
            let ShardFile { records, through, bytes, .. } = file;
            write!(f, "\nshard {shard}: {records} records up to {through}, {bytes} bytes")
        })?;
        if *lacking != Lacking::NOTHING {
            write!(f, "\nincomplete: the node lacked {lacking}, and so does this")?;
        }
        if ring.is_changing() {
            f.write_str("\nthe ring was changing: it is of no use beside backups of other nodes")?;
        }
        match hints {
            0 => Ok(()),
            1 => f.write_str("\n1 state of a key was kept for another node, which may have had it later"),
            hints => {
                write!(f, "\n{hints} states of keys were kept for other nodes, which may have had them later")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Backup {
        let file = ShardFile { records: 3, through: 9, bytes: 120, check: 0xab };
        Backup {
            cluster: ClusterId(5),
            node: NodeId(u64::MAX),
            name: "127.0.0.1:7400".to_owned(),
            partitions: 64,
            segment_bytes: 1 << 21,
            taken: 7,
            ring: RingInForce { hash: 0xa1, change: 0xa2, members: 3 },
            lacking: Lacking::Partitions(12),
            hints: 4,
            shards: vec![file, ShardFile::default()],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let text = sample().encode();
        assert_eq!(Backup::parse(&text), Some(sample()));
        let unknown = Backup { lacking: Lacking::Unknown, ..sample() };
        assert_eq!(Backup::parse(&unknown.encode()), Some(unknown));
        assert_eq!(format_of(&text), Some(FORMAT));
        assert_eq!(format_of("ringmain-backup 9\nwhatever"), Some(9));
        assert_eq!(format_of("something else"), None);
    }

    #[test]
    fn a_moment_is_said_in_words() {
        for (seconds, words) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59:59 UTC"),
            (1_735_689_599, "2024-12-31 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(in_words(seconds), words);
        }
    }

    #[test]
    fn what_can_not_be_is_refused() {
        let refused = |change: &dyn Fn(&mut Backup)| {
            let mut backup = sample();
            change(&mut backup);
            assert_eq!(Backup::parse(&backup.encode()), None, "{backup:?}");
        };
        refused(&|backup| backup.partitions = 3);
        refused(&|backup| backup.segment_bytes = 5);
        refused(&|backup| backup.name = "a name".to_owned());
        refused(&|backup| backup.shards.clear());
    }

    #[test]
    fn any_change_is_noticed() {
        let text = sample().encode();
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let Ok(changed) = String::from_utf8(bytes) else { continue };
                assert_eq!(Backup::parse(&changed), None, "bit {bit} of byte {at}");
            }
            assert_eq!(Backup::parse(&text[..at]), None, "cut at {at}");
        }
        assert_eq!(Backup::parse(&format!("{text}\n")), None);
    }
}
