//! Backups: what a node's logs hold, copied while it serves; and a data directory for a new cluster made from them.
//!
//! ```text
//! DIR/shard-0.records  the records of shard 0's log, in their order
//! DIR/shard-1.records  ..
//! DIR/unfinished       while it is being made; becomes, by one rename,
//! DIR/description      whose it is, and the length and checksum of each of the others
//! ```
//!
//! A backup is taken by a process of its own, beside the node, from the node's data directory (docs/adr/0020). The node does
//! nothing for it but to let no segment go meanwhile ([`pin`](super::pin)). What it promises: all that was acknowledged
//! before it began is in it, as the log has it (`taking`), and what the node itself lacks is told; without a description that is
//! whole, and files that are as it says, it is refused. A restoration writes the log of the founder of a new cluster from one or more of them (`restoring`).
//!
//! What it never does: change the node's logs, leave out what it can't read, or restore into the cluster that it was taken of.

mod description;
mod noted;
mod place;
mod records;
mod restoring;
mod taking;

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::directory::DataError;
use crate::config::ConfigError;
use crate::id::{ClusterId, NodeId};
use crate::shard::BadRecord;
use crate::storage::log::Damage;

pub use description::{Backup, is_backup};
pub use restoring::{Pass, Restoration, Restored, restore};
pub use taking::{Taking, backup, verify_backup};

/// Why a backup can't be taken, or not be restored.
#[derive(Debug, Error)]
pub enum BackupError {
    /// The node's data directory, or the one that is being made.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Names that can't be.
    #[error(transparent)]
    Names(#[from] ConfigError),
    /// There is nothing to read.
    #[error(
        "{} is no data directory: give what the node was started with as --data (one in mode 'memory' has none, and can't be \
         backed up)", path.display()
    )]
    NoDataDirectory {
        /// What was given.
        path: PathBuf,
    },
    /// No node has served from it.
    #[error("{} holds nothing yet: start its node once", path.display())]
    Nothing {
        /// What was given.
        path: PathBuf,
    },
    /// The logs there are being written anew, or were meanwhile.
    #[error("the logs in {} are being written anew for another number of shards: try again when the node serves", path.display())]
    Changing {
        /// What was given.
        path: PathBuf,
    },
    /// A record that was durable can't be read.
    #[error(
        "the log in {} is damaged ({damage}), and a backup would lack something: let the node repair it from the replicas, or back \
         up another node", directory.display()
    )]
    Lacking {
        /// A shard's.
        directory: PathBuf,
        /// The first of all.
        damage: Damage,
    },
    /// The node has not all that was acknowledged to it, and knows it.
    #[error(
        "the node of {} lacks {lacking}, and so would its backup: wait until `ringmain status` shows that it lacks nothing, or \
         pass --incomplete to take it all the same", path.display()
    )]
    Incomplete {
        /// Its data directory.
        path: PathBuf,
        /// What it says.
        lacking: String,
    },
    /// Segments were let go while they were read, again and again.
    #[error(
        "the log in {} has no room, and goes on without waiting for a backup: free some, or add a disk, and try again",
        directory.display()
    )]
    Overtaken {
        /// A shard's.
        directory: PathBuf,
    },
    /// A backup, or a restoration, goes into an empty place.
    #[error("{} is not empty: give a directory that isn't there yet, or is empty", path.display())]
    NotEmpty {
        /// What was given.
        path: PathBuf,
    },
    /// A node's own directory is no place for it.
    #[error("{} lies in the node's data directory: give a place of its own, best on another disk", path.display())]
    Inside {
        /// What was given.
        path: PathBuf,
    },
    /// Something of a backup can't be read or written.
    #[error("can't use {}: {source}", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What was written of it is gone.
    #[error("can't write {}: {source}; nothing is left of this backup", path.display())]
    Unwritten {
        /// What.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its files belong to somebody else.
    #[error("{} can't be read by this user: run this as the one who runs the node, or as root", path.display())]
    Forbidden {
        /// What was given.
        path: PathBuf,
    },
    /// There is none.
    #[error("{} is no backup: give what `ringmain backup` has made", path.display())]
    NoBackup {
        /// What was given.
        path: PathBuf,
    },
    /// It has no description yet.
    #[error(
        "{} is being made, or was interrupted while it was made: wait for the `ringmain backup` that makes it, or take another",
        path.display()
    )]
    Unfinished {
        /// What was given.
        path: PathBuf,
    },
    /// A later build has made it.
    #[error("{} is a backup of format {format}, and this build reads {}: use the version that made it, or a later one", path.display(), description::FORMAT)]
    Newer {
        /// What was given.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
    /// It isn't what was written.
    #[error("{} is damaged: it is not what the backup was made of; use another backup", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
    },
    /// A record is whole, and says nothing that this version understands.
    #[error("{}: record {sequence}: {error}", path.display())]
    Record {
        /// A file, or a log.
        path: PathBuf,
        /// Of the record.
        sequence: u64,
        /// Why.
        error: BadRecord,
    },
    /// A restored node would be taken for the one of old.
    #[error(
        "the backup is of cluster {cluster}, and these names make the same: its nodes would take old copies for new ones, and \
         this one would be taken for what it was; give a --cluster or --name of its own"
    )]
    SameCluster {
        /// The cluster.
        cluster: ClusterId,
    },
    /// Several backups of several clusters.
    #[error("{} is of cluster {found}, and the first is of {first}: restore each cluster on its own", path.display())]
    OtherCluster {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        found: ClusterId,
        /// Whose the first is.
        first: ClusterId,
    },
    /// Their nodes didn't agree on who owns what.
    #[error(
        "{} was taken when another ring was in force than for the first: copies may have moved from one to the other, and be in \
         neither; take backups of all nodes again while nothing changes, or pass --incomplete to restore what there is",
        path.display()
    )]
    OtherRing {
        /// Which.
        path: PathBuf,
    },
    /// Copies were on their way from node to node.
    #[error(
        "{} was taken while the ring was changing: copies may have moved from one node to another, and be in no backup; take \
         backups of all nodes again while nothing changes, or pass --incomplete to restore what there is", path.display()
    )]
    RingChanging {
        /// Which.
        path: PathBuf,
    },
    /// The same node twice.
    #[error(
        "{} is of node {node}, of which another is given: what was deleted and forgotten in between would be back; give \
         the later one", path.display()
    )]
    Twice {
        /// Which.
        path: PathBuf,
        /// The node.
        node: NodeId,
    },
}

/// Something went wrong with a file of a backup.
fn of(path: &Path) -> impl Fn(io::Error) -> BackupError + use<> {
    let path = path.to_owned();
    move |source| BackupError::Io { path: path.clone(), source }
}
