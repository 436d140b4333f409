//! What the process tells its caller.

use std::process::ExitCode;

use serde::{Deserialize, Serialize};

/// The meaning of each exit code. They are part of the interface: scripts depend on them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// The objective was met and every promise kept.
    Met = 0,
    /// It was not, or the run could not be carried out.
    Missed = 1,
    /// The command line, or a file or a server it names, is wrong: nobody could be reached.
    Usage = 2,
    /// The generator itself could not offer the load, so nothing was shown.
    NotOffered = 3,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
