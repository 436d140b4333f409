//! Arguments, and what each command does with them.
//!
//! Exit codes: 0 for done, 1 for failed (a key that isn't there included), 2 for arguments or settings that
//! make no sense.

mod arguments;
mod backups;
mod changes;
mod render;
mod requests;
mod status;

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use ringmain::config::{Config, ConfigError, ServeArguments};
use ringmain::shell::{Server, Verdict};

use arguments::{Arguments, Command};

/// What stopped a command, in one sentence, and whose fault that is.
#[derive(Debug)]
enum Failure {
    /// Arguments or settings.
    Usage(String),
    /// Anything else.
    Failed(String),
}

impl Failure {
    fn failed(error: impl fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}

/// Do what the command line says. Mistakes in it end the process with 2, as clap does it.
pub(crate) fn run() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Serve(serve_arguments) => serve(*serve_arguments),
        Command::Get(get) => requests::get(&get),
        Command::Put(put) => requests::put(&put),
        Command::Delete(delete) => requests::delete(&delete),
        Command::Status(status) => status::status(&status),
        Command::Join(join) => changes::join(&join),
        Command::Leave(leave) => changes::leave(&leave),
        Command::Remove(remove) => changes::remove(&remove),
        Command::Replace(replace) => changes::replace(&replace),
        Command::Weight(weight) => changes::weight(&weight),
        Command::Verify(arguments) => verify(&arguments.directory),
        Command::Backup(arguments) => backups::backup(&arguments),
        Command::Restore(arguments) => backups::restore(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Failed(sentence)) => {
            eprintln!("ringmain: {sentence}");
            ExitCode::from(1)
        }
        Err(Failure::Usage(sentence)) => {
            eprintln!("ringmain: {sentence}");
            ExitCode::from(2)
        }
    }
}

/// Look at a data directory that no node uses, or at a backup, and say what is wrong where.
fn verify(directory: &Path) -> Result<(), Failure> {
    if ringmain::shell::is_backup(directory) {
        return backups::verify(directory);
    }
    let verdicts = ringmain::shell::verify(directory).map_err(Failure::failed)?;
    verdicts.iter().for_each(|verdict| println!("{verdict}"));
    if verdicts.iter().all(Verdict::is_sound) {
        return Ok(());
    }
    Err(Failure::Failed(format!("{} is damaged: see above", directory.display())))
}

fn serve(arguments: ServeArguments) -> Result<(), Failure> {
    let (check, print_config) = (arguments.check, arguments.print_config);
    let config = Config::load(arguments)?;
    if check {
        println!("ok");
        return Ok(());
    }
    if print_config {
        print!("{}", config.to_toml());
        return Ok(());
    }
    start(&config)
}

/// Run the node until it is told to stop.
fn start(config: &Config) -> Result<(), Failure> {
    let ready = |server: &Server| {
        let shards = server.ports().shards.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        let ordinary = server.ports().ordinary;
        let host = &config.advertise;
        eprintln!("ringmain: {} listens on {host}:{ordinary}; shards on {shards}", config.name);
    };
    ringmain::shell::serve_node(config, ready).map_err(Failure::failed)
}
