//! One node: a child process, and what that child does.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitCode, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use ringmain::config::{Config, ServeArguments};
use ringmain::shell::{self, NodeError, serve_node};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use super::StartError;

/// A node's exit code if somebody else has its port: then another port may do.
const EXIT_PORT_TAKEN: u8 = 98;
/// Lines of its standard error that are kept, to explain its end.
const LINES_KEPT: usize = 20;

/// Is a node until it is told to stop, or the process that started it is gone.
pub fn serve(arguments: ServeArguments) -> ExitCode {
    // It fails only for signals that don't exist; and the end of standard input says the same, more slowly.
    let _refused = set_parent_process_death_signal(Some(Signal::KILL));
    let served = match Config::load(arguments) {
        Ok(config) => serve_node(&config, |_server| ()),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            let taken = matches!(error, NodeError::Start(shell::StartError::PortTaken { .. }));
            ExitCode::from(if taken { EXIT_PORT_TAKEN } else { 1 })
        }
    }
}

/// A child process, which is killed and reaped when this is dropped.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) address: String,
    program: PathBuf,
    arguments: Vec<String>,
    child: Child,
    course: Course,
    said: Said,
}

/// What was done about a child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Course {
    /// It shall run.
    Running,
    /// SIGKILL was sent.
    Killed,
    /// Its standard input was closed.
    Stopping,
}

impl Node {
    pub(super) fn spawn(
        program: PathBuf,
        name: String,
        address: String,
        arguments: Vec<String>,
    ) -> io::Result<Self> {
        let mut command = Command::new(&program);
        command.arg0("loadgen").args(&arguments).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let stderr = child.stderr.take().expect("it was piped");
        // From here on, dropping the node ends the child.
        let (said, course) = (Said::default(), Course::Running);
        let mut node = Self { name, address, program, arguments, child, course, said };
        node.said.listen(stderr)?;
        Ok(node)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it without a word. It is reaped later.
    pub(super) fn kill(&mut self) {
        self.course = Course::Killed;
        // It fails only if the child was reaped already, and so is gone.
        let _gone = self.child.kill();
    }

    /// Lets it stand still, with all its connections open.
    pub(super) fn pause(&mut self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(super) fn resume(&mut self) {
        self.signal(Signal::CONT);
    }

    /// Starts it again after a kill, as it was started first. Call it from the thread that started it first.
    pub(super) fn restart(&mut self) -> io::Result<()> {
        // Its port is free when it is gone, which after a SIGKILL takes a moment.
        self.child.wait()?;
        let (program, arguments) = (self.program.clone(), self.arguments.clone());
        *self = Self::spawn(program, self.name.clone(), self.address.clone(), arguments)?;
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        // It fails only if the child is gone, and then there is nobody to stop.
        let _gone = kill_process(Pid::from_child(&self.child), signal);
    }

    /// By closing its standard input. It must not stand still for that.
    pub(super) fn ask_to_stop(&mut self) {
        self.resume();
        if self.course == Course::Running {
            self.course = Course::Stopping;
            drop(self.child.stdin.take());
        }
    }

    pub(super) fn is_running(&mut self) -> bool {
        self.status().is_none()
    }

    /// A sentence, if it ended though nobody asked it to.
    pub(super) fn ended_by_itself(&mut self) -> Option<String> {
        if self.course != Course::Running {
            return None;
        }
        let status = self.status()?;
        Some(self.by_itself(status))
    }

    fn by_itself(&mut self, status: ExitStatus) -> String {
        format!("node {} ended by itself ({status}): {}", self.name, self.said.last())
    }

    /// A sentence, if it was asked to stop and didn't, or not well.
    pub(super) fn stopped_badly(&mut self) -> Option<String> {
        if self.course != Course::Stopping {
            return None;
        }
        match self.status() {
            Some(status) if status.success() => None,
            // It was asked without a signal, and may have been dying by then.
            Some(status) if status.signal().is_some() => Some(self.by_itself(status)),
            Some(status) => Some(format!("node {} stopped with {status}: {}", self.name, self.said.last())),
            None => Some(format!("node {} was told to stop, and didn't", self.name)),
        }
    }

    /// Why it ended before it served; `None` if another port may help.
    pub(super) fn start_failed(&mut self) -> Option<StartError> {
        let status = self.status().expect("it has ended");
        if status.code() == Some(i32::from(EXIT_PORT_TAKEN)) {
            return None;
        }
        let (name, said) = (self.name.clone(), self.said.last());
        Some(StartError::Ended { name, status: status.to_string(), said })
    }

    fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of ours can be asked for")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Both fail only if it was reaped already.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// What a node wrote to its standard error: the end of it is kept.
#[derive(Debug, Default)]
struct Said {
    lines: Arc<Mutex<VecDeque<String>>>,
    listener: Option<JoinHandle<()>>,
}

impl Said {
    fn listen(&mut self, stderr: ChildStderr) -> io::Result<()> {
        let lines = Arc::clone(&self.lines);
        let keep = move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut lines = lines.lock().expect("nothing panics while it holds the lines");
                if lines.len() == LINES_KEPT {
                    lines.pop_front();
                }
                lines.push_back(line);
            }
        };
        self.listener = Some(thread::Builder::new().name("stderr".to_owned()).spawn(keep)?);
        Ok(())
    }

    /// The last lines in one, of a node that has ended.
    fn last(&mut self) -> String {
        if let Some(listener) = self.listener.take() {
            // It ends with the pipe, and so soon after the node.
            let _panicked = listener.join();
        }
        let lines = self.lines.lock().expect("nothing panics while it holds the lines");
        if lines.is_empty() {
            return "it said nothing".to_owned();
        }
        lines.iter().map(String::as_str).collect::<Vec<_>>().join("; ")
    }
}
