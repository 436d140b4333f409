//! The commands that copy what a node holds, and make another cluster of it.

use std::path::Path;

use ringmain::config::ByteSize;
use ringmain::shell::{Backup, BackupError, Pass, Restoration, Taking};

use super::Failure;
use super::arguments::{BackupArguments, RestoreArguments};

pub(super) fn backup(arguments: &BackupArguments) -> Result<(), Failure> {
    let BackupArguments { backup, data, rate, incomplete } = arguments;
    not_zero("--rate", *rate)?;
    let taking = Taking { data, into: backup, rate: rate.map(|rate| rate.0), incomplete: *incomplete };
    say(&ringmain::shell::backup(&taking).map_err(failure)?);
    Ok(())
}

pub(super) fn restore(arguments: &RestoreArguments) -> Result<(), Failure> {
    let RestoreArguments { backups, data, cluster, name, memory, incomplete } = arguments;
    not_zero("--memory", *memory)?;
    let (memory, incomplete) = (memory.map(|memory| memory.0), *incomplete);
    let restoration = Restoration { backups, data, cluster, name, memory, incomplete };
    let restored = ringmain::shell::restore(&restoration, |Pass { number, of }| {
        if of > 1 {
            eprintln!("ringmain: pass {number} of {of} over all backups");
        }
    });
    println!("{}", restored.map_err(failure)?);
    println!("start it: ringmain serve --data {} --cluster {cluster} --name {name}", data.display());
    Ok(())
}

fn not_zero(option: &str, size: Option<ByteSize>) -> Result<(), Failure> {
    match size {
        Some(ByteSize(0)) => {
            Err(Failure::Usage(format!("{option} 0B does nothing: leave it out, or give more")))
        }
        _ => Ok(()),
    }
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
