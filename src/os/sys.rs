//! The only `unsafe` code.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{getpid, getppid, setsid};

/// Makes the kernel kill the child when the thread that starts it ends for any reason.
pub(crate) fn die_with_parent(command: &mut Command) {
    let parent = getpid();
    // SAFETY: between fork and exec only async-signal-safe system calls are made: prctl and getppid.
    unsafe {
        command.pre_exec(move || {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have ended before the line above.
            if getppid() == parent { Ok(()) } else { Err(io::ErrorKind::Interrupted.into()) }
        });
    }
}

/// Gives the child this limit of open files (soft and hard), since its parent may have raised its own.
pub(crate) fn with_file_limit(command: &mut Command, (soft, hard): (u64, u64)) {
    // SAFETY: between fork and exec only setrlimit is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(move || Ok(setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?));
    }
}

/// Keeps the memory of the child out of files (core(5)).
pub(crate) fn without_core_dump(command: &mut Command) {
    // SAFETY: between fork and exec only setrlimit and getrlimit are called, which are async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            let (_, hard) = getrlimit(Resource::RLIMIT_CORE)?;
            Ok(setrlimit(Resource::RLIMIT_CORE, 0, hard)?)
        });
    }
}

/// Lets the program that `command` executes inherit `file` under the same number. The file must stay open until then.
pub(crate) fn keep_open(command: &mut Command, file: &impl AsFd) {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: between fork and exec only fcntl is called, which is async-signal-safe. A number that is no longer
    // open gives an error; no file is closed.
    unsafe {
        command.pre_exec(move || {
            fcntl(BorrowedFd::borrow_raw(fd), FcntlArg::F_SETFD(FdFlag::empty()))?;
            Ok(())
        });
    }
}

/// Starts the child in a session of its own (setsid(2)): no signal for our process group, and no terminal, reaches it.
pub(crate) fn in_own_session(command: &mut Command) {
    // SAFETY: between fork and exec only setsid is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| Ok(setsid().map(drop)?));
    }
}

/// Takes over a descriptor that this process was started with. Our children do not inherit it.
///
/// To be called once for each number, before anything else is opened: only then can nobody else own it.
///
/// # Errors
/// If it is not open.
pub(crate) fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the number is only looked at; one that is not open gives an error.
    unsafe { fcntl(BorrowedFd::borrow_raw(number), FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) }?;
    // SAFETY: it is open, and no other part of this program knows it (see above).
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
