//! Other programs: exec one, run one as a child, and describe how it ended.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::signals::{Event, Events};

/// When `tend` has nothing to do before the next signal (see [`run_to_end`]).
pub(crate) const FOREVER: Duration = Duration::from_hours(1);

/// The program that could not be executed, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot run {}: {cause}{}", path.display(), remedy(cause))]
pub(crate) struct ExecError {
    path: PathBuf,
    pub cause: io::Error,
}

impl ExecError {
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

/// Keeps keys out of core dumps, of this process and of the etcd that it starts or becomes: no file of any size
/// (setrlimit(2)), and no memory for a program that receives dumps through a pipe, where that limit does not count
/// (core(5)).
pub(crate) fn never_dump() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_CORE) {
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, hard);
    }
    let _ = fs::write("/proc/self/coredump_filter", "0");
}

/// Hides the memory of this process from everybody but root (`PR_SET_DUMPABLE`, prctl(2)). That also hides its files, by
/// which another proxy of the same user recognises who has claimed an address; so it is for a process that listens.
pub(crate) fn hide_memory() {
    let _ = prctl::set_dumpable(false);
}

/// Replaces this process with `command`, whose `argv[0]` is `name`. The pid stays the same. Returns only on failure;
/// the error names `shown`, because the path in `command` may lead through a descriptor.
pub(crate) fn exec(mut command: Command, name: &str, shown: &Path) -> ExecError {
    log::logger().flush();
    let cause = command.arg0(name).exec();
    ExecError::new(shown, cause)
}

/// Replaces this process with the user's command, looked up on `PATH`. Returns only on failure.
pub(crate) fn exec_command(command: &[OsString]) -> ExecError {
    let (program, args) = command.split_first().map_or((OsString::new(), &[][..]), |(p, args)| (p.clone(), args));
    log::logger().flush();
    let cause = Command::new(&program).args(args).exec();
    ExecError::new(program, cause)
}

/// Waits for the end of `command` and passes signals on to it. Meanwhile it calls `tend`, which returns the time until
/// its next call at the latest.
pub(crate) fn run_to_end(
    mut command: Child,
    events: &Events,
    mut tend: impl FnMut() -> Duration,
) -> io::Result<ExitStatus> {
    loop {
        if let Some(status) = command.try_wait()? {
            return Ok(status);
        }
        if let Event::Signal { signal, to_all: false } = events.next(tend()) {
            send(&command, signal);
        }
    }
}

/// Sends a signal to a child that has not been waited for, so that the pid is still its own.
pub(crate) fn send(child: &Child, signal: Signal) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// Ends a child: SIGTERM, and SIGKILL after `timeout`.
pub(crate) fn end(child: &mut Child, timeout: Duration) {
    if matches!(child.try_wait(), Ok(None)) {
        send(child, Signal::SIGTERM);
    }
    let deadline = Instant::now() + timeout;
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    if matches!(child.try_wait(), Ok(None)) {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The command's own code, or 128 plus the signal's number, as in a shell.
pub(crate) fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| Some(128 + status.signal()?)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// The exit code of a program that `signal` ended.
pub(crate) fn signal_code(signal: Signal) -> ExitCode {
    ExitCode::from(u8::try_from(128 + signal as i32).unwrap_or(1))
}

/// In words: `exit code 1`, `SIGKILL`.
pub(crate) fn describe(status: ExitStatus) -> String {
    if let Some(code) = status.code() {
        return format!("exit code {code}");
    }
    let signal = status.signal().and_then(|signal| Signal::try_from(signal).ok());
    signal.map_or_else(|| status.to_string(), |signal| signal.to_string())
}
