//! The commands that copy what a node holds, and make another cluster of it.

use std::path::Path;

use ringmain::config::ByteSize;
use ringmain::shell::{Backup, BackupError, Restoration};

use super::Failure;
use super::arguments::{BackupArguments, RestoreArguments};

pub(super) fn backup(arguments: &BackupArguments) -> Result<(), Failure> {
    let BackupArguments { backup, data, rate } = arguments;
    if *rate == Some(ByteSize(0)) {
        return Err(Failure::Usage("--rate 0B copies nothing: leave it out, or give more".to_owned()));
    }
    let taken = ringmain::shell::backup(data, backup, rate.map(|rate| rate.0)).map_err(failure)?;
    say(&taken);
    Ok(())
}

pub(super) fn restore(arguments: &RestoreArguments) -> Result<(), Failure> {
    let RestoreArguments { backups, data, cluster, name } = arguments;
    let restoration = Restoration { backups, data, cluster, name };
    let restored = ringmain::shell::restore(&restoration).map_err(failure)?;
    println!("{restored}");
    println!("start it: ringmain serve --data {} --cluster {cluster} --name {name}", data.display());
    Ok(())
}

/// Is a backup what it was when it was made?
pub(super) fn verify(path: &Path) -> Result<(), Failure> {
    say(&ringmain::shell::verify_backup(path).map_err(failure)?);
    Ok(())
}

fn say(backup: &Backup) {
    println!("backup of {backup}");
}

fn failure(error: BackupError) -> Failure {
    match error {
        BackupError::Names(error) => error.into(),
        error => Failure::failed(error),
    }
}
