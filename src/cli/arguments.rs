//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use ringmain::config::{ByteSize, HostPort, ServeArguments, Span};
use ringmain_schema::limits::WEIGHT_MAX;

/// An always-writable, replicated key-value store: Amazon Dynamo for one thread a core.
#[derive(Parser, Debug)]
#[command(name = "ringmain", version, arg_required_else_help = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// Run a node: without arguments, a cluster of one in memory on 127.0.0.1:7400
    Serve(Box<ServeArguments>),
    /// Print a key's value, or each of its siblings on a line
    Get(GetArguments),
    /// Set a key, replacing what is there now
    Put(PutArguments),
    /// Delete what is there now under a key
    Delete(DeleteArguments),
    /// Print how a node and its cluster are
    Status(StatusArguments),
    /// Make a guest a member that holds its share, or let one stay that is leaving
    Join(JoinArguments),
    /// Let a member hand its share over; it is removed when it has
    Leave(LeaveArguments),
    /// Drop a dead member for good: the others share what it held
    Remove(RemoveArguments),
    /// Let a guest take the place of a dead member, which is gone for good
    Replace(ReplaceArguments),
    /// Give a member more or less to hold
    Weight(WeightArguments),
    /// Check a data directory while no node uses it, or a backup, and say what is wrong where; nothing is changed
    Verify(VerifyArguments),
    /// Copy what a node holds, while it serves or stands still, into a new directory; run it on the node's machine
    Backup(BackupArguments),
    /// Make the data directory of a new cluster's first node from the backups of all nodes of another cluster
    Restore(RestoreArguments),
}

/// Whom to ask, and for how long.
#[derive(Args, Debug)]
pub(super) struct Target {
    /// Any nodes of the cluster
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', default_value = "127.0.0.1:7400")]
    pub(super) server: Vec<HostPort>,

    /// Give up after this long
    #[arg(long, value_name = "TIME", default_value = "1s")]
    pub(super) timeout: Span,

    /// A file that holds the cluster's secret
    #[arg(long, value_name = "FILE")]
    pub(super) secret_file: Option<String>,
}

/// How to print what was found.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Form {
    /// Print values in hexadecimal
    #[arg(long, conflicts_with = "json")]
    pub(super) hex: bool,

    /// Print everything there is to know as JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct GetArguments {
    /// What to look up
    pub(super) key: String,

    /// R: how many replicas to wait for [default: the server's]
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u8).range(1..))]
    pub(super) read: Option<u8>,

    /// Only the version with the latest timestamp
    #[arg(long)]
    pub(super) latest: bool,

    #[command(flatten)]
    pub(super) form: Form,

    #[command(flatten)]
    pub(super) target: Target,
}

/// What a write does to the versions that are there. By default it reads first and replaces what it read, so
/// that a write by somebody else in between stays beside it as a sibling.
#[derive(Args, Debug)]
#[group(multiple = false)]
pub(super) struct Replaces {
    /// Replace whatever the coordinator has, without reading first
    #[arg(long)]
    pub(super) overwrite: bool,

    /// Replace what an earlier get showed: its context, as --json prints it
    #[arg(long, value_name = "HEX", value_parser = super::render::from_hex)]
    pub(super) context: Option<Context>,
}

/// A context's bytes. A type of its own, or clap would take them for many arguments.
pub(super) type Context = std::sync::Arc<[u8]>;

#[derive(Args, Debug)]
pub(super) struct PutArguments {
    /// What to set
    pub(super) key: String,

    /// To what; '-' reads it from standard input
    pub(super) value: String,

    /// Let it expire after this long
    #[arg(long, value_name = "TIME")]
    pub(super) ttl: Option<Span>,

    /// Replace nothing: become a sibling of what is there
    #[arg(long, conflicts_with_all = ["overwrite", "context"])]
    pub(super) beside: bool,

    /// W: how many replicas to wait for [default: the server's]
    #[arg(long, value_name = "W", value_parser = clap::value_parser!(u8).range(1..))]
    pub(super) write: Option<u8>,

    /// Of so many zones (data centres if there are several, else racks) must some replica have it [default: of any]
    #[arg(long, value_name = "ZONES", value_parser = clap::value_parser!(u8).range(1..))]
    pub(super) zones: Option<u8>,

    #[command(flatten)]
    pub(super) replaces: Replaces,

    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Args, Debug)]
pub(super) struct DeleteArguments {
    /// What to delete
    pub(super) key: String,

    /// W: how many replicas to wait for [default: the server's]
    #[arg(long, value_name = "W", value_parser = clap::value_parser!(u8).range(1..))]
    pub(super) write: Option<u8>,

    /// Of so many zones (data centres if there are several, else racks) must some replica have it [default: of any]
    #[arg(long, value_name = "ZONES", value_parser = clap::value_parser!(u8).range(1..))]
    pub(super) zones: Option<u8>,

    #[command(flatten)]
    pub(super) replaces: Replaces,

    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Args, Debug)]
pub(super) struct StatusArguments {
    /// Print everything there is to know as JSON
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) target: Target,
}

/// How a change of members is made, and told of.
#[derive(Args, Debug)]
pub(super) struct Manner {
    /// Only print what would move
    #[arg(long)]
    pub(super) plan: bool,

    /// Wait for the end of the change, so long at most
    #[arg(long, value_name = "TIME", conflicts_with = "plan")]
    pub(super) wait: Option<Span>,

    /// Print what moves as JSON
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) target: Target,
}

/// 100 is ordinary; another's share is in proportion.
fn weight_parser() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(WEIGHT_MAX))
}

#[derive(Args, Debug)]
pub(super) struct JoinArguments {
    /// The guest: a node that was started with --seeds
    pub(super) name: String,

    /// Its capacity, in proportion to the others' [default: as it was configured; 100 is ordinary]
    #[arg(long, value_name = "W", value_parser = weight_parser())]
    pub(super) weight: Option<u32>,

    #[command(flatten)]
    pub(super) manner: Manner,
}

#[derive(Args, Debug)]
pub(super) struct LeaveArguments {
    /// The member
    pub(super) name: String,

    #[command(flatten)]
    pub(super) manner: Manner,
}

#[derive(Args, Debug)]
pub(super) struct RemoveArguments {
    /// The member
    pub(super) name: String,

    /// Even if it can be reached, and could leave
    #[arg(long)]
    pub(super) force: bool,

    #[command(flatten)]
    pub(super) manner: Manner,
}

#[derive(Args, Debug)]
pub(super) struct ReplaceArguments {
    /// The member that is gone
    pub(super) old: String,

    /// The guest that takes its place
    pub(super) new: String,

    /// Even if the old one can be reached, and could leave
    #[arg(long)]
    pub(super) force: bool,

    #[command(flatten)]
    pub(super) manner: Manner,
}

#[derive(Args, Debug)]
pub(super) struct WeightArguments {
    /// The member
    pub(super) name: String,

    /// Its capacity, in proportion to the others'; 100 is ordinary
    #[arg(value_parser = weight_parser())]
    pub(super) weight: u32,

    #[command(flatten)]
    pub(super) manner: Manner,
}

#[derive(Args, Debug)]
pub(super) struct VerifyArguments {
    /// What a node was started with as --data, or what `ringmain backup` has made
    pub(super) directory: PathBuf,
}

#[derive(Args, Debug)]
pub(super) struct BackupArguments {
    /// Where to: a directory that is empty, or isn't there yet
    pub(super) backup: PathBuf,

    /// What the node was started with as --data
    #[arg(long, value_name = "DIR")]
    pub(super) data: PathBuf,

    /// Read no more than this in a second, so that the node has the disk too [default: as fast as it goes]
    #[arg(long, value_name = "BYTES")]
    pub(super) rate: Option<ByteSize>,

    /// Even if the node lacks data, which the backup says then; else wait until `ringmain status` shows that it lacks nothing
    #[arg(long)]
    pub(super) incomplete: bool,
}

#[derive(Args, Debug)]
pub(super) struct RestoreArguments {
    /// What `ringmain backup` has made: one of each node of the cluster, all taken while `ringmain status` showed no change of the
    /// ring and no hints
    #[arg(required = true, value_name = "BACKUP")]
    pub(super) backups: Vec<PathBuf>,

    /// Where to: a directory that is empty, or isn't there yet; the node is started with it as --data
    #[arg(long, value_name = "DIR")]
    pub(super) data: PathBuf,

    /// The new cluster's name; the node is started with it as --cluster
    #[arg(long, value_name = "NAME")]
    pub(super) cluster: String,

    /// The name of the new cluster's first node; it is started with it as --name
    #[arg(long)]
    pub(super) name: String,

    /// Look at so much of the backups at once: less takes longer, since all are read again for each part [default: a quarter of
    /// the memory that is free, and 512MiB at least]
    #[arg(long, value_name = "BYTES")]
    pub(super) memory: Option<ByteSize>,

    /// Even if the ring changed while the backups were taken: some of what was acknowledged may be in none of them
    #[arg(long)]
    pub(super) incomplete: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn alone_it_prints_help() {
        let error = parse("ringmain").unwrap_err();
        assert_eq!(error.kind(), clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn every_setting_can_be_an_argument() {
        let line = "ringmain serve --listen h:1 --members a=h:1,b=h:2 --shard-ports 3,4 --shards 2 --pin false \
                    --timeout 50ms --value-bytes-max 64KiB --mode memory --stop-with-stdin --rack r1";
        let Command::Serve(serve) = parse(line).unwrap().command else { panic!("serve") };
        assert_eq!(serve.settings.members.unwrap().len(), 2);
        assert_eq!(serve.settings.shard_ports.unwrap(), [3, 4]);
        assert_eq!((serve.settings.pin, serve.stop_with_stdin), (Some(false), true));
    }

    #[test]
    fn mistakes_are_refused_with_a_sentence() {
        for (line, words) in [
            ("ringmain serve --mode disk", "use 'memory' or 'durable'"),
            ("ringmain serve --sync often", "says not when to sync"),
            ("ringmain serve --listen 7400", "is not HOST:PORT"),
            ("ringmain serve --secret x", "--secret"),
            ("ringmain serve --check --print-config", "cannot be used with"),
            ("ringmain get k --hex --json", "cannot be used with"),
            ("ringmain get k --read 0", "0 is not in 1..=255"),
            ("ringmain put k v --overwrite --context 00", "cannot be used with"),
            ("ringmain put k v --beside --overwrite", "cannot be used with"),
            ("ringmain delete k --context 0g", "hexadecimal"),
            ("ringmain join n4 --weight 0", "0 is not in 1..=10000"),
            ("ringmain weight n4 10001", "10001 is not in 1..=10000"),
            ("ringmain leave n4 --plan --wait 1s", "cannot be used with"),
            ("ringmain leave n4 --force", "--force"),
            ("ringmain replace n4", "<NEW>"),
            ("ringmain backup b", "--data <DIR>"),
            ("ringmain backup b --data d --rate fast", "is not a size"),
            ("ringmain restore --data d --cluster c --name n", "<BACKUP>..."),
            ("ringmain restore b --data d --name n", "--cluster <NAME>"),
            ("ringmain restore b --data d --cluster c --name n --memory much", "is not a size"),
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(words), "{line}: {error}");
        }
    }
}
