//! Exit codes, with the numbers of `sysexits.h` where it has one.

use std::io;
use std::process::ExitCode;

use crate::fs::WriteError;
use crate::net::etcd_health;
use crate::os::process::ExecError;
use crate::proxy::{self, ListenError, PreflightError, TunnelError};
use crate::{install, release, settings};

/// Why the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    Failed = 1,
    /// The command line is wrong (clap's own number).
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

/// The code of an error: that of the first cause in its chain that has one.
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
            PreflightError::OwnAddress(_) => Code::BadSetting,
            PreflightError::Thread(_) => Code::Failed,
        });
    }
    if let Some(err) = cause.downcast_ref::<TunnelError>() {
        return Some(match err {
            TunnelError::Listen { .. } | TunnelError::Tls(_) => Code::BadSetting,
            TunnelError::Io(_) => Code::Failed,
        });
    }
    if let Some(err) = cause.downcast_ref::<settings::Error>() {
        return Some(if err.time_can_mend() { Code::Unreachable } else { Code::BadSetting });
    }
    if cause.is::<ListenError>() {
        return Some(Code::BadSetting);
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
        Error::Occupied { .. } => Code::CannotWrite,
        Error::WrongOwner { .. } | Error::NoExec { .. } => Code::NotPermitted,
        Error::NotIncluded { .. }
        | Error::Launcher { .. }
        | Error::NoDocument { .. }
        | Error::NoLauncher { .. }
        | Error::Damaged { .. }
        | Error::CannotRead { .. }
        | Error::NoMemory { .. } => Code::Failed,
    }
}

fn of_install(err: &install::Error) -> Code {
    use install::Error;
    match err {
        Error::Write(err) => of_write(err),
        Error::Release(err) => of_release(err),
        Error::Location(_) | Error::Settings(_) | Error::NotConfigured { .. } | Error::Hidden { .. } => {
            Code::BadSetting
        }
        Error::CannotRead { cause, .. } if cause.kind() == io::ErrorKind::PermissionDenied => Code::NotPermitted,
        Error::Foreign { .. }
        | Error::Changed { .. }
        | Error::BackupExists { .. }
        | Error::IsDirectory { .. }
        | Error::NotADirectory { .. }
        | Error::Special { .. }
        | Error::Busy { .. } => Code::CannotWrite,
        Error::WrongOwner { .. } | Error::Shared { .. } | Error::LeavesRoot { .. } | Error::NoExec { .. } => {
            Code::NotPermitted
        }
        Error::Receipt { .. }
        | Error::NewerReceipt { .. }
        | Error::CannotRead { .. }
        | Error::NotInstalled { .. }
        | Error::NoVersion { .. }
        | Error::Ambiguous { .. }
        | Error::NoPrevious { .. }
        | Error::Damaged { .. }
        | Error::NothingToVerify { .. }
        | Error::NoManager
        | Error::Service { .. } => Code::Failed,
    }
}

fn of_write(err: &WriteError) -> Code {
    if err.is_permission_denied() { Code::NotPermitted } else { Code::CannotWrite }
}
