//! Exit codes, with the numbers of `sysexits.h` where it has one.

use std::io;
use std::process::ExitCode;

use crate::fs::WriteError;
use crate::install::LocationError;
use crate::net::etcd_health;
use crate::os::process::ExecError;
use crate::os::stdout::is_of_stdout;
use crate::proxy::{self, ListenError, NativeError, PortError, PreflightError};
use crate::{dev, install, package, release, settings};

/// Why the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    Failed = 1,
    /// The command line alone shows a mistake (clap's own number).
    Usage = 2,
    /// The cluster does not answer in time, or a certificate cannot be used yet (`EX_UNAVAILABLE`).
    Unreachable = 69,
    /// A file cannot be written (`EX_CANTCREAT`).
    CannotWrite = 73,
    /// No permission, or a file system mounted noexec (`EX_NOPERM`).
    NotPermitted = 77,
    /// A setting that can never work (`EX_CONFIG`).
    BadSetting = 78,
    /// The command does not exist (the number that shells use).
    NoCommand = 127,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// The code of an error, by its kind, whichever command meets it:
///
/// - what the command line alone shows to be wrong: 2
/// - what a command names and the system does not have: 1
/// - a setting of `run`, or an environment variable, that cannot work: 78
/// - a place that cannot be written, or is in use: 73, and without permission, or mounted noexec: 77
///
/// It is that of the first cause in its chain that has one.
pub(crate) fn of(err: &anyhow::Error) -> ExitCode {
    err.chain().find_map(of_cause).unwrap_or(Code::Failed).into()
}

fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Code> {
    if let Some(err) = cause.downcast_ref::<release::Error>() {
        return Some(of_release(err));
    }
    if let Some(err) = cause.downcast_ref::<WriteError>() {
        return Some(of_write(err));
    }
    if let Some(err) = cause.downcast_ref::<install::Error>() {
        return Some(of_install(err));
    }
    if let Some(err) = cause.downcast_ref::<ExecError>() {
        return Some(of_exec(err));
    }
    if let Some(err) = cause.downcast_ref::<proxy::Error>() {
        return Some(match err {
            proxy::Error::Refused { .. } | proxy::Error::Listen(_) => Code::BadSetting,
            proxy::Error::Exec(err) => of_exec(err),
            proxy::Error::Wait(_) => Code::Failed,
        });
    }
    if let Some(err) = cause.downcast_ref::<PreflightError>() {
        return Some(match err {
            PreflightError::NoneUsable(_) => Code::Unreachable,
            PreflightError::OwnAddress { .. } => Code::BadSetting,
            PreflightError::Thread(_) => Code::Failed,
        });
    }
    if let Some(err) = cause.downcast_ref::<NativeError>() {
        return Some(match err {
            NativeError::Listen(_) | NativeError::Tls(_) => Code::BadSetting,
            NativeError::Io(_) => Code::Failed,
        });
    }
    if let Some(err) = cause.downcast_ref::<package::Error>() {
        return Some(of_package(err));
    }
    if cause.downcast_ref::<io::Error>().is_some_and(is_of_stdout) {
        return Some(Code::CannotWrite);
    }
    if cause.is::<dev::InUse>() {
        return Some(Code::CannotWrite);
    }
    if let Some(err) = cause.downcast_ref::<settings::Error>() {
        return Some(match err {
            err if err.is_usage() => Code::Usage,
            err if err.time_can_mend() => Code::Unreachable,
            _ => Code::BadSetting,
        });
    }
    if let Some(err) = cause.downcast_ref::<PortError>() {
        return Some(match err {
            PortError::Listen(_) => Code::BadSetting,
            PortError::Thread(_) => Code::Failed,
        });
    }
    if let Some(err) = cause.downcast_ref::<ListenError>() {
        return Some(match err {
            // Time may mend it.
            ListenError::Unresolved { .. } => Code::Failed,
            ListenError::InUse { .. } | ListenError::Served { .. } | ListenError::NotLocal(_) => Code::BadSetting,
        });
    }
    cause.is::<etcd_health::Unreachable>().then_some(Code::Unreachable)
}

fn of_exec(err: &ExecError) -> Code {
    match err.cause.kind() {
        io::ErrorKind::PermissionDenied => Code::NotPermitted,
        io::ErrorKind::NotFound => Code::NoCommand,
        _ => Code::Failed,
    }
}

fn of_release(err: &release::Error) -> Code {
    use release::Error;
    match err {
        Error::Write(err) => of_write(err),
        Error::Occupied { .. } | Error::NoMemory { .. } => Code::CannotWrite,
        Error::WrongOwner { .. }
        | Error::Shared { .. }
        | Error::Link { .. }
        | Error::Replaceable { .. }
        | Error::NoExec { .. } => Code::NotPermitted,
        Error::NotIncluded { .. }
        | Error::Launcher { .. }
        | Error::NoDocument { .. }
        | Error::NoLauncher { .. }
        | Error::Damaged { .. }
        | Error::DamagedIn { .. }
        | Error::Sink(_) => Code::Failed,
        Error::CannotRead { cause, .. } => of_read(cause),
    }
}

fn of_package(err: &package::Error) -> Code {
    use package::Error;
    match err {
        Error::OtherFormat { .. }
        | Error::OneArch
        | Error::InvalidStack(_)
        | Error::OtherNotNeeded { .. }
        | Error::OtherNeeded { .. } => Code::Usage,
        Error::Launcher
        | Error::CaBundle { .. }
        | Error::Unusable { .. }
        | Error::WrongArch { .. }
        | Error::OtherRelease { .. } => Code::Failed,
    }
}

fn of_location(err: &LocationError) -> Code {
    match err {
        LocationError::NoRoot { .. } => Code::Failed,
        LocationError::Unsuitable { flag, .. } if flag.starts_with("--") => Code::Usage,
        LocationError::Unsuitable { .. } | LocationError::NoHome => Code::BadSetting,
    }
}

fn of_install(err: &install::Error) -> Code {
    use install::Error;
    match err {
        Error::Write(err) => of_write(err),
        Error::Release(err) => of_release(err),
        Error::Location(err) => of_location(err),
        Error::Settings(_) | Error::NotConfigured { .. } | Error::Hidden { .. } => Code::BadSetting,
        Error::CannotRead { cause, .. } | Error::OwnExe { cause } => of_read(cause),
        Error::Foreign { .. }
        | Error::Changed { .. }
        | Error::BackupExists { .. }
        | Error::IsDirectory { .. }
        | Error::LeadsNowhere { .. }
        | Error::NotADirectory { .. }
        | Error::Special { .. }
        | Error::Busy { .. } => Code::CannotWrite,
        Error::WrongOwner { .. } | Error::Shared { .. } | Error::SharedWithGroup { .. } | Error::NoExec { .. } => {
            Code::NotPermitted
        }
        Error::Receipt { .. }
        | Error::NewerReceipt { .. }
        | Error::NotInstalled { .. }
        | Error::NoVersion { .. }
        | Error::Ambiguous { .. }
        | Error::NoPrevious { .. }
        | Error::Damaged { .. }
        | Error::NothingToVerify { .. }
        | Error::NoDirectory { .. }
        | Error::NoManager
        | Error::Service { .. } => Code::Failed,
    }
}

fn of_read(err: &io::Error) -> Code {
    if err.kind() == io::ErrorKind::PermissionDenied { Code::NotPermitted } else { Code::Failed }
}

fn of_write(err: &WriteError) -> Code {
    if err.is_permission_denied() { Code::NotPermitted } else { Code::CannotWrite }
}
