//! Looking at a data directory that no node uses: what a start would find, and nothing changed.

use std::fmt;
use std::path::{Path, PathBuf};

use super::directory::{DataDirectory, DataError, of};
use super::read::read;
use super::recovery::Files;
use crate::id::{ClusterId, NodeId, ShardId};
use crate::shard::Record;
use crate::storage::log::{Identity, Manifest, Refusal, Report};

/// What was found of one shard's log.
#[derive(Debug)]
pub struct Verdict {
    directory: PathBuf,
    found: Result<Verified, Refusal>,
}

#[derive(Debug)]
struct Verified {
    /// `None` if the log was never created.
    owner: Option<Identity>,
    report: Report,
    /// Records that are whole and say nothing that this version understands, with why.
    strange: Vec<(u64, String)>,
}

impl Verdict {
    /// Would a node start from it, and lack nothing?
    pub fn is_sound(&self) -> bool {
        self.found.as_ref().is_ok_and(|found| found.report.is_clean() && found.strange.is_empty())
    }
}

/// Check the logs of all shards in a data directory.
///
/// # Errors
///
/// If it can't be read, or a node uses it.
pub fn verify(path: &Path) -> Result<Vec<Verdict>, DataError> {
    let directory = DataDirectory::look_at(path)?;
    let shards = directory.shards_found()?;
    (0..shards).map(|shard| verify_one(directory.of_shard(ShardId(shard as u16)))).collect()
}

fn verify_one(directory: PathBuf) -> Result<Verdict, DataError> {
    let mut files = Files::look_at(&directory)?;
    let (copies, has_segments) = files.read_manifests().map_err(of(&directory))?;
    let copies = [&copies[0][..], &copies[1][..]];
    let nobody = Identity { cluster: ClusterId(0), node: NodeId(0), shard: ShardId(0), home: 0 };
    let owner = Manifest::owner(copies);
    let manifest = match Manifest::choose(copies, &owner.unwrap_or(nobody), has_segments) {
        Ok(Some(manifest)) => manifest,
        Ok(None) => {
            let found = Ok(Verified { owner: None, report: Report::default(), strange: Vec::new() });
            return Ok(Verdict { directory, found });
        }
        Err(refusal) => return Ok(Verdict { directory, found: Err(refusal) }),
    };
    files.geometry = manifest.geometry;
    let mut strange = Vec::new();
    let report = read(&files, manifest, |sequence, record| {
        if let Err(error) = Record::parse(record) {
            strange.push((sequence, error.to_string()));
        }
        Ok::<_, std::io::Error>(())
    });
    let report = report.map_err(of(&directory))?;
    Ok(Verdict { directory, found: Ok(Verified { owner, report, strange }) })
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.directory.display())?;
        let Verified { owner, report, strange } = match &self.found {
            Ok(verified) => verified,
            Err(refusal) => return write!(f, "{refusal}"),
        };
        let Some(Identity { cluster, node, shard, .. }) = owner else { return f.write_str("no log yet") };
        write!(f, "shard {} of node {node} in cluster {cluster}: {report}", shard.0)?;
        strange.iter().try_for_each(|(sequence, error)| write!(f, "\nrecord {sequence}: {error}"))
    }
}
