//! Process 1 of a container: runs this program again as its child, passes signals on to it, and collects orphans.
//!
//! Process 1 is special (`pid_namespaces(7)`): the kernel drops every signal for which it has no handler, SIGTERM included,
//! and makes it the parent of all orphans, which stay as zombies until it waits for them. The program itself, and the etcd
//! that it may become, then are ordinary processes.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitCode, ExitStatus};

use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};

use super::env::Env;
use super::process::{FOREVER, exit_code, never_dump, send};
use super::signals::{Event, Events, FOR_COMMANDS};

/// Whether this process is process 1 of its PID namespace.
pub(crate) fn is_init() -> bool {
    std::process::id() == 1
}

/// Runs this program with the same arguments to its end, and returns its exit code.
///
/// # Errors
/// If it cannot be started.
pub(crate) fn run(called_as: &OsStr, args: &[OsString], env: &Env) -> io::Result<ExitCode> {
    // First, because a signal that comes before is lost.
    let events = Events::new(&FOR_COMMANDS)?;
    // By its own path, so that the child has its name in `ps`.
    let child = Command::new(&env.exe).arg0(called_as).args(args).spawn()?;
    // After the start, because the child may run a command that wants its core dumps. The environment may have a key.
    never_dump();
    loop {
        // One loop waits for all of them, so nobody takes the status that somebody else waits for.
        while let Some((pid, status)) = next_ended()? {
            if u32::try_from(pid).ok() == Some(child.id()) {
                return Ok(exit_code(status));
            }
        }
        if let Event::Signal { signal, to_all: false } = events.next(FOREVER) {
            send(&child, signal);
        }
    }
}

/// A child or orphan that has ended, which is then gone.
fn next_ended() -> io::Result<Option<(i32, ExitStatus)>> {
    loop {
        return match wait(WaitOptions::NOHANG) {
            Ok(ended) => Ok(ended.map(|(pid, status)| (pid.as_raw_pid(), ExitStatus::from_raw(status.as_raw())))),
            Err(Errno::INTR) => continue,
            Err(err) => Err(err.into()),
        };
    }
}
