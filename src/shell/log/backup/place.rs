//! The place of a backup: a directory that is empty, or isn't there yet, and holds one that is whole in the end, or nothing.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::description::{Backup, NAME, UNFINISHED};
use super::records::path_of;
use super::{BackupError, of};
use crate::shell::log::directory::sync_directory;

/// Where the backup goes.
pub(super) struct Place {
    pub(super) path: PathBuf,
    /// Directories that weren't there before, itself among them: the deepest first.
    made: Vec<PathBuf>,
    /// Those that they lie in: their names outlive a power cut once these are synced.
    parents: Vec<(PathBuf, fs::File)>,
}

impl Place {
    /// It is empty, and nobody else begins a backup there.
    pub(super) fn claim(path: &Path) -> Result<Self, BackupError> {
        let not_empty = || BackupError::NotEmpty { path: path.to_owned() };
        let mut made = Vec::new();
        for directory in path.ancestors().filter(|path| !path.as_os_str().is_empty()) {
            if directory.try_exists().map_err(of(directory))? {
                break;
            }
            made.push(directory.to_owned());
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(of(path))?;
        let mut place = Self { path: path.to_owned(), made, parents: Vec::new() };
        if fs::read_dir(path).map_err(of(path))?.next().is_some() {
            return Err(not_empty());
        }
        if let Err(error) = place.open_parents() {
            place.clear(0);
            return Err(error);
        }
        let unfinished = path.join(UNFINISHED);
        match fs::OpenOptions::new().write(true).create_new(true).open(&unfinished) {
            Ok(_) => Ok(place),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(not_empty()),
            Err(error) => Err(of(&unfinished)(error)),
        }
    }

    /// Before anything is copied: who may write to a directory may not always read it, which it takes to sync it.
    fn open_parents(&mut self) -> Result<(), BackupError> {
        for made in &self.made {
            let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new("."));
            self.parents.push((parent.to_owned(), fs::File::open(parent).map_err(of(parent))?));
        }
        Ok(())
    }

    /// All files are there: say so. This makes it a backup.
    pub(super) fn describe(&self, backup: &Backup) -> Result<(), BackupError> {
        let (unfinished, whole) = (self.path.join(UNFINISHED), self.path.join(NAME));
        let unwritten = |source| BackupError::Unwritten { path: whole.clone(), source };
        fs::write(&unfinished, backup.encode()).map_err(unwritten)?;
        fs::File::open(&unfinished).and_then(|file| file.sync_all()).map_err(unwritten)?;
        // The names of the files come before that of the description.
        sync_directory(&self.path)?;
        fs::rename(&unfinished, &whole).map_err(unwritten)?;
        sync_directory(&self.path)?;
        self.parents.iter().try_for_each(|(path, parent)| parent.sync_all().map_err(of(path)))
    }

    /// What was begun is worth nothing. Whatever can't be removed isn't taken for a backup either.
    pub(super) fn clear(&self, shards: usize) {
        _ = fs::remove_file(self.path.join(NAME));
        (0..shards).for_each(|shard| _ = fs::remove_file(path_of(&self.path, shard)));
        _ = fs::remove_file(self.path.join(UNFINISHED));
        self.made.iter().for_each(|made| _ = fs::remove_dir(made));
    }
}
