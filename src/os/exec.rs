//! Becoming another program.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

/// The program that could not be executed, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot run {}: {cause}{}", path.display(), remedy(cause))]
pub(crate) struct Error {
    path: PathBuf,
    pub cause: io::Error,
}

impl Error {
    pub(crate) fn new(path: impl Into<PathBuf>, cause: io::Error) -> Self {
        Self { path: path.into(), cause }
    }
}

fn remedy(err: &io::Error) -> &'static str {
    match err.kind() {
        io::ErrorKind::PermissionDenied => ": is it executable, and its file system not mounted noexec?",
        io::ErrorKind::NotFound => ": is it installed, and its directory on PATH?",
        _ => "",
    }
}

/// Replaces this process, which keeps its pid, by a program that is called `name`. Returns only when that failed.
pub(crate) fn exec(mut command: Command, name: &str) -> Error {
    let cause = command.arg0(name).exec();
    Error::new(command.get_program(), cause)
}

/// Replaces this process by a command line of the user's, looked up on `PATH`. Returns only when that failed.
pub(crate) fn exec_command(command: &[OsString]) -> Error {
    let (program, args) = command.split_first().map_or((OsString::new(), &[][..]), |(p, args)| (p.clone(), args));
    let cause = Command::new(&program).args(args).exec();
    Error::new(program, cause)
}
