//! The commands that ask a server, through the client crate.

use super::Failure;
use super::arguments::{DeleteArguments, GetArguments, PutArguments, StatusArguments};

pub(super) fn get(_arguments: &GetArguments) -> Result<(), Failure> {
    Err(Failure::failed("there is no client yet"))
}

pub(super) fn put(_arguments: &PutArguments) -> Result<(), Failure> {
    Err(Failure::failed("there is no client yet"))
}

pub(super) fn delete(_arguments: &DeleteArguments) -> Result<(), Failure> {
    Err(Failure::failed("there is no client yet"))
}

pub(super) fn status(_arguments: &StatusArguments) -> Result<(), Failure> {
    Err(Failure::failed("there is no client yet"))
}
