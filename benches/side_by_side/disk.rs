//! Where logs are written while they are measured: a directory on a disk.

use std::path::{Path, PathBuf};

use rustix::fs::statfs;
use tempfile::TempDir;

/// What `statfs` says of file systems that are memory.
const MEMORY: [(i64, &str); 2] = [(0x8584_58f6, "ramfs"), (0x0102_1994, "tmpfs")];

/// A directory that is gone afterwards, in the one given or else where cargo builds.
///
/// # Errors
///
/// A sentence: it can't be made, or lies in memory, where syncs cost nothing.
pub fn scratch(directory: Option<&Path>) -> Result<TempDir, String> {
    let directory: PathBuf = directory.map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), Path::to_path_buf);
    let refused = |error: std::io::Error| format!("can't use {}: {error}", directory.display());
    std::fs::create_dir_all(&directory).map_err(refused)?;
    let kind = statfs(&directory).map_err(|error| refused(error.into()))?.f_type;
    if let Some((_, name)) = MEMORY.into_iter().find(|(memory, _)| i128::from(*memory) == i128::from(kind)) {
        let directory = directory.display();
        return Err(format!(
            "{directory} is on {name}, which is memory: give a directory on a disk with --directory"
        ));
    }
    tempfile::tempdir_in(&directory).map_err(refused)
}
