//! Serving until told to stop.

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::log::Log;
use super::probe::StartError;
use super::start::{Server, ShardStart, ShellOptions, start_logged};
use crate::shard::Machine;

/// What the shell says of a process that a second signal ended.
const EXIT_INTERRUPTED: i32 = 130;

/// Start, serve until `SIGINT` or `SIGTERM`, answer what was accepted, and return. A second signal ends the
/// process at once. `ready` is called when the ports are open.
pub fn serve<M, F>(options: &ShellOptions, make: F, ready: impl FnOnce(&Server)) -> Result<(), StartError>
where
    M: Machine + 'static,
    F: Fn(ShardStart) -> M + Send + Clone + 'static,
{
    serve_logged(options, move |start| Ok((make(start), None)), ready)
}

/// The same, for machines that come with a log, or fail to.
pub(super) fn serve_logged<M, F>(
    options: &ShellOptions,
    make: F,
    ready: impl FnOnce(&Server),
) -> Result<(), StartError>
where
    M: Machine + 'static,
    F: Fn(ShardStart) -> Result<(M, Option<Log>), StartError> + Send + Clone + 'static,
{
    // Before the start, so that a signal during it isn't lost.
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(StartError::Signals)?;
    let server = start_logged(options, make)?;
    ready(&server);
    let stopper = server.stopper();
    let listening = std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut arrived = signals.forever();
        if arrived.next().is_some() {
            stopper.stop();
        }
        if arrived.next().is_some() {
            std::process::exit(EXIT_INTERRUPTED);
        }
    });
    listening.map_err(StartError::Thread)?;
    server.join();
    Ok(())
}
