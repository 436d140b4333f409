//! Opening a shard's log: reading what is there, handing it to the shard, and making the verdict durable. All of it happens
//! before the ports open, so it may block.

use std::io;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::directory::{DataError, of, sync_directory};
use super::disk::{Buffer, DirectFile, file_system_id};
use crate::config::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_UNIT};
use crate::failpoint::NoFailpoints;
use crate::id::{ClusterId, NodeId, ShardId};
use crate::shard::BadRecord;
use crate::shell::clock;
use crate::storage::log::{
    Found, Geometry, Identity, Liveness, Manifest, Offsets, Opened, Opening, Recovery, Refusal, Report,
    SECTOR_BYTES, Segment, Slot, Step, Target, Write,
};

/// The file that says that a node lacks something of which its own records don't tell yet.
pub(super) const ADOPTED: &str = "adopted";
/// How many segments a log may have: of 32 MiB each, they are 128 GiB a shard.
const SLOTS_MAX: u32 = 4096;
/// Of a manifest's copy of such a log.
pub(super) const MANIFEST_BYTES: usize = (128 + 32 * SLOTS_MAX as usize).next_multiple_of(SECTOR_BYTES);
/// Of a manifest's copy, whoever wrote it: a longer file is none.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;

/// What the configuration takes, a log takes.
const _: () =
    assert!(SEGMENT_BYTES_MAX == Geometry::SEGMENT_BYTES_MAX && SEGMENT_BYTES_UNIT as usize == SECTOR_BYTES);

/// What a shard's log is to be.
#[derive(Clone, Debug)]
pub(in crate::shell) struct LogIdentity {
    /// The shard's.
    pub(in crate::shell) directory: PathBuf,
    /// Whose log.
    pub(in crate::shell) cluster: ClusterId,
    /// Whose log.
    pub(in crate::shell) node: NodeId,
    /// Whose log.
    pub(in crate::shell) shard: ShardId,
    /// Of a new log's segments.
    pub(in crate::shell) segment_bytes: u32,
    /// The largest record that the shard may append.
    pub(in crate::shell) record_bytes_max: usize,
    /// Take over one that was copied or moved here.
    pub(in crate::shell) adopt: bool,
    /// Records will be read again: know where each lies.
    pub(in crate::shell) reads: bool,
}

/// The files of a log.
pub(super) struct Files {
    manifests: [DirectFile; 2],
    pub(super) segments: DirectFile,
    pub(super) geometry: Geometry,
}

/// A log that was opened.
pub(in crate::shell) struct OpenLog {
    pub(super) files: Files,
    pub(super) opened: Opened,
    pub(super) liveness: Liveness,
    /// Where its records lie, if any is to be read again.
    pub(super) offsets: Option<Offsets>,
    /// Nothing was here before.
    pub(in crate::shell) is_new: bool,
    /// It was a copy, or elsewhere before, and is this node's from now on. Until the node's own records say that it lacks what
    /// the original wrote later, this file does.
    pub(in crate::shell) adopted: Option<PathBuf>,
    /// What was found.
    pub(in crate::shell) report: Report,
}

impl OpenLog {
    /// The sequence of its last record, which is durable.
    pub(in crate::shell) const fn last(&self) -> u64 {
        self.opened.writer.last()
    }
}

impl Files {
    fn open(identity: &LogIdentity) -> Result<Self, DataError> {
        let open = |name: &str| {
            let path = identity.directory.join(name);
            DirectFile::open(&path).map_err(|source| match source.raw_os_error() {
                Some(libc::EINVAL) => DataError::NoDirectAccess { path },
                _ => DataError::Io { path, source },
            })
        };
        let geometry =
            Geometry::new(identity.segment_bytes, SLOTS_MAX).expect("the configuration is checked");
        let files = Self {
            manifests: [open("manifest-0")?, open("manifest-1")?],
            segments: open("segments")?,
            geometry,
        };
        sync_directory(&identity.directory)?;
        Ok(files)
    }

    /// Those that are there, to be read.
    pub(super) fn look_at(directory: &Path) -> Result<Self, DataError> {
        let open = |name: &str| {
            let path = directory.join(name);
            DirectFile::look_at(&path).map_err(of(&path))
        };
        let geometry = Geometry::new(2 * SECTOR_BYTES as u32, 1).expect("the least that there is");
        Ok(Self {
            manifests: [open("manifest-0")?, open("manifest-1")?],
            segments: open("segments")?,
            geometry,
        })
    }

    /// Where bytes go.
    pub(super) fn place(&self, write: Write) -> (&DirectFile, u64) {
        match write.target {
            Target::Manifest(copy) => (&self.manifests[usize::from(copy)], write.offset),
            Target::Segment(slot) => (&self.segments, self.start_of(slot) + write.offset),
        }
    }

    /// The file that a target lies in.
    pub(super) fn file(&self, target: Target) -> &DirectFile {
        match target {
            Target::Manifest(copy) => &self.manifests[usize::from(copy)],
            Target::Segment(_) => &self.segments,
        }
    }

    /// Bytes of the file before this slot.
    pub(super) fn start_of(&self, slot: Slot) -> u64 {
        u64::from(slot.0) * self.geometry.segment_bytes() as u64
    }

    /// Both copies of the manifest, as much of them as there is, and whether anything was ever written to a slot.
    pub(super) fn read_manifests(&self) -> io::Result<([Vec<u8>; 2], bool)> {
        let read = |file: &DirectFile| {
            let length = file.len()?.min(MANIFEST_BYTES_MAX) as usize;
            let mut copy = Buffer::new(length);
            let length = file.read(&mut copy, 0)?;
            Ok::<_, io::Error>(copy[..length].to_vec())
        };
        let [first, second] = &self.manifests;
        // The first segment of a new log is in the first slot, and begins with its header.
        let mut sector = Buffer::new(1);
        let has_segments = self.segments.read(&mut sector, 0)? > 0 && sector.iter().any(|byte| *byte != 0);
        Ok(([read(first)?, read(second)?], has_segments))
    }

    /// Read a slot, as much of it as there is.
    pub(super) fn read_slot(&self, slot: Slot, into: &mut Buffer) -> io::Result<usize> {
        let bytes = self.geometry.segment_bytes();
        self.segments.read(&mut into[..bytes], self.start_of(slot))
    }

    /// Write this; the file has room for all of its slot then.
    pub(super) fn write(&self, write: Write, buffer: &[u8]) -> io::Result<()> {
        if let Target::Segment(slot) = write.target {
            self.segments.allocate(self.start_of(Slot(slot.0 + 1)))?;
        }
        let (file, offset) = self.place(write);
        file.write(&buffer[..write.bytes], offset)
    }

    /// Carry out a step of an opening.
    pub(super) fn carry_out(&self, step: Step, buffer: &[u8]) -> io::Result<()> {
        match step {
            Step::Write(write) => self.write(write, buffer),
            Step::Sync(target) => self.file(target).sync(),
        }
    }
}

/// Open a shard's log, or create it. `take` gets each record that stands, in order; it tells whether that is a marker, and
/// adds the records that it covers.
pub(in crate::shell) fn open(
    identity: &LogIdentity,
    mut take: impl FnMut(u64, &[u8], &mut Vec<u64>) -> Result<bool, BadRecord>,
) -> Result<OpenLog, DataError> {
    let at = || of(&identity.directory);
    let mut files = Files::open(identity)?;
    let manifest = read_manifest(identity, &files)?;
    let is_new = manifest.is_none();
    let (manifest, owner) = match manifest {
        Some(manifest) => manifest,
        None => {
            let owner = owner(identity, &files).map_err(at())?;
            (Manifest::new(owner, files.geometry, clock::seed()), owner)
        }
    };
    let marker = adopted_marker(identity);
    if manifest.identity.home != owner.home {
        mark_adopted(&marker)?;
    }
    let adopted = marker.exists().then_some(marker);
    let manifest = Manifest { identity: owner, ..manifest };
    files.geometry = manifest.geometry;
    let found = files.geometry.segment_bytes();
    if found < identity.record_bytes_max {
        let (directory, needed) = (identity.directory.clone(), identity.record_bytes_max);
        return Err(DataError::SegmentTooSmall { directory, found, needed });
    }
    let mut reading = Reading::new(identity, &files, &mut take);
    let recovered = reading.recover(manifest)?;
    let Reading { open, mut liveness, mut offsets, markers_of_tail, dead, .. } = reading;
    let report = recovered.report.clone();
    let mut opening = Opening::new(recovered, NoFailpoints);
    let mut buffer = Buffer::new(files.geometry.segment_bytes().max(files.geometry.manifest_bytes()));
    let slot = |slot: Slot| {
        let (_, bytes, length) = open.iter().find(|(of, ..)| of.slot == slot).expect("the tail was read");
        &bytes[..*length]
    };
    loop {
        let step = opening.next(slot, &mut buffer);
        let step =
            step.map_err(|error| DataError::Opening { directory: identity.directory.clone(), error })?;
        let Some(step) = step else { break };
        files.carry_out(step, &buffer).map_err(at())?;
    }
    let opened = opening.finish();
    // The first segment of this start has the first slot that was free.
    files.segments.allocate(files.start_of(Slot(opened.table.taken()))).map_err(at())?;
    for (found, is_marker) in opened.moved.iter().zip(markers_of_tail) {
        liveness.on_record(found, is_marker);
        offsets.iter_mut().for_each(|offsets| offsets.on_record(found));
    }
    dead.into_iter().for_each(|sequence| liveness.on_dead(sequence));
    Ok(OpenLog { opened, liveness, offsets, files, is_new, adopted, report })
}

/// Whose log it must be.
fn owner(identity: &LogIdentity, files: &Files) -> io::Result<Identity> {
    let mut place = [0; 16];
    place[..8].copy_from_slice(&file_system_id(&identity.directory)?.to_le_bytes());
    place[8..].copy_from_slice(&files.segments.inode()?.to_le_bytes());
    let LogIdentity { cluster, node, shard, .. } = *identity;
    Ok(Identity { cluster, node, shard, home: xxh3_64(&place) })
}

/// In the node's data directory: one for the logs of all its shards.
pub(super) fn adopted_marker(identity: &LogIdentity) -> PathBuf {
    identity.directory.with_file_name(ADOPTED)
}

pub(super) fn mark_adopted(marker: &Path) -> Result<(), DataError> {
    std::fs::write(marker, b"").map_err(of(marker))?;
    marker.parent().map_or(Ok(()), sync_directory)
}

/// The node's own records say it now.
pub(super) fn forget_adopted(marker: &Path) -> Result<(), DataError> {
    std::fs::remove_file(marker).map_err(of(marker))?;
    marker.parent().map_or(Ok(()), sync_directory)
}

/// The manifest that is there, and whose it is from now on.
pub(super) fn read_manifest(
    identity: &LogIdentity,
    files: &Files,
) -> Result<Option<(Manifest, Identity)>, DataError> {
    let at = || of(&identity.directory);
    let (copies, has_segments) = files.read_manifests().map_err(at())?;
    let copies = [&copies[0][..], &copies[1][..]];
    let owner = owner(identity, files).map_err(at())?;
    let chosen = match Manifest::choose(copies, &owner, has_segments) {
        Err(Refusal::Cloned { home }) if identity.adopt => {
            Manifest::choose(copies, &Identity { home, ..owner }, has_segments)
        }
        chosen => chosen,
    };
    let chosen =
        chosen.map_err(|refusal| DataError::Refused { directory: identity.directory.clone(), refusal })?;
    Ok(chosen.map(|manifest| (manifest, owner)))
}

/// A log that is being read.
struct Reading<'a, T> {
    identity: &'a LogIdentity,
    files: &'a Files,
    take: &'a mut T,
    /// Segments that may hold the tail, with what was read of them.
    open: Vec<(Segment, Buffer, usize)>,
    liveness: Liveness,
    offsets: Option<Offsets>,
    /// The tail is written anew, and counted where it is then.
    markers_of_tail: Vec<bool>,
    /// Covered by later ones.
    dead: Vec<u64>,
}

impl<'a, T: FnMut(u64, &[u8], &mut Vec<u64>) -> Result<bool, BadRecord>> Reading<'a, T> {
    fn new(identity: &'a LogIdentity, files: &'a Files, take: &'a mut T) -> Self {
        let (open, liveness) = (Vec::new(), Liveness::default());
        let offsets = identity.reads.then(Offsets::default);
        let (markers_of_tail, dead) = (Vec::new(), Vec::new());
        Self { identity, files, take, open, liveness, offsets, markers_of_tail, dead }
    }

    fn recover(&mut self, manifest: Manifest) -> Result<crate::storage::log::Recovered, DataError> {
        let mut recovery = Recovery::new(manifest, NoFailpoints);
        let segments: Vec<Segment> = recovery.segments().collect();
        let open: Vec<Segment> = recovery.open_segments().collect();
        let (mut found, mut handed) = (Vec::new(), 0);
        let mut buffer = None;
        for segment in segments {
            let mut bytes = buffer.take().unwrap_or_else(|| Buffer::new(self.files.geometry.segment_bytes()));
            let length =
                self.files.read_slot(segment.slot, &mut bytes).map_err(of(&self.identity.directory))?;
            let known = found.len();
            recovery.feed(segment, &bytes[..length], &mut found);
            if open.contains(&segment) {
                self.open.push((segment, bytes, length));
                continue;
            }
            // What a sealed segment holds is certain; nothing later changes it.
            for one in &found[known..] {
                let is_marker = self.hand_over(one, &bytes)?;
                self.note(one, is_marker);
            }
            handed += found.len() - known;
            found.truncate(known);
            buffer = Some(bytes);
        }
        let mut recovered = recovery.settle(&mut found);
        recovered.report.records += handed as u64;
        let open = std::mem::take(&mut self.open);
        let read = |one: &Found| {
            let (_, bytes, _) =
                open.iter().find(|(of, ..)| *of == one.segment).expect("what is left was read last");
            bytes
        };
        for one in &found {
            let is_marker = self.hand_over(one, read(one))?;
            self.note(one, is_marker);
        }
        for one in &recovered.tail {
            let is_marker = self.hand_over(one, read(one))?;
            self.markers_of_tail.push(is_marker);
        }
        self.open = open;
        Ok(recovered)
    }

    fn note(&mut self, found: &Found, is_marker: bool) {
        self.liveness.on_record(found, is_marker);
        self.offsets.iter_mut().for_each(|offsets| offsets.on_record(found));
    }

    /// Is it a marker?
    fn hand_over(&mut self, found: &Found, bytes: &[u8]) -> Result<bool, DataError> {
        let (directory, sequence) = (&self.identity.directory, found.sequence);
        (self.take)(sequence, &bytes[found.payload()], &mut self.dead).map_err(|error| DataError::Record {
            directory: directory.clone(),
            sequence,
            error,
        })
    }
}
