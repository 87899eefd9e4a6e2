//! Why something cannot be installed or removed.

use std::io;
use std::path::PathBuf;

use crate::fs::WriteError;
use crate::release::{self, Difference};
use crate::settings;

/// What to do when a file cannot be written.
pub(super) const REMEDY: &str = "make room or give permission (--user needs none), or choose another --prefix";

/// Why something cannot be installed or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "{path} is {what} that etcdproxy did not install: move it away, or \"install --force\" keeps it as {backup}"
    )]
    Foreign { path: PathBuf, what: String, backup: PathBuf },

    #[error("{path} was changed after it was installed: move it away, or \"install --force\" keeps it as {backup}")]
    Changed { path: PathBuf, backup: PathBuf },

    #[error("{path} cannot be kept as {backup}, which already exists: move one of them away")]
    BackupExists { path: PathBuf, backup: PathBuf },

    #[error("{path} is a directory where a file must go: move it away")]
    IsDirectory { path: PathBuf },

    #[error("{path} belongs to uid {owner}, who could change what is installed: choose another directory, or chown it")]
    WrongOwner { path: PathBuf, owner: u32 },

    #[error("{path} is writable by everybody: choose another directory, or take that permission away (chmod o-w)")]
    Shared { path: PathBuf },

    #[error(
        "{path} is writable by the group {gid}, whose members could change what is installed: choose another directory, \
         or take that permission away (chmod g-w)"
    )]
    SharedWithGroup { path: PathBuf, gid: u32 },

    #[error("{path} is a link that leads to no directory: create that directory, or remove the link")]
    LeadsNowhere { path: PathBuf },

    #[error("{path} is not a directory: choose another directory, or move it away")]
    NotADirectory { path: PathBuf },

    #[error("{path} is not a regular file: move it away")]
    Special { path: PathBuf },

    #[error("{path} is on a file system mounted noexec, so nothing can be run from it: choose another --prefix")]
    NoExec { path: PathBuf },

    #[error("{path} is in use by another etcdproxy: let it finish, then try again")]
    Busy { path: PathBuf },

    #[error("{path} is not a valid receipt ({why}): \"install --force\" writes a new one")]
    Receipt { path: PathBuf, why: String },

    #[error("{path} was written by a newer etcdproxy: use that one")]
    NewerReceipt { path: PathBuf },

    #[error("cannot read {path}: {}: give permission, or move it away", crate::os::log::without_errno(cause))]
    CannotRead { path: PathBuf, cause: io::Error },

    #[error(
        "cannot read this etcdproxy itself: {}: make its file readable, or copy it again",
        crate::os::log::without_errno(cause)
    )]
    OwnExe { cause: io::Error },

    #[error("nothing is installed in {path}: say where with --prefix, --user or --root")]
    NotInstalled { path: PathBuf },

    #[error("version {wanted} is not installed: choose one of {installed}")]
    NoVersion { wanted: String, installed: String },

    #[error("{wanted} matches several versions ({matching}): give more of the name")]
    Ambiguous { wanted: String, matching: String },

    #[error("there is no version to roll back to: {installed} is the only one")]
    NoPrevious { installed: String },

    #[error("{path} is not as it was installed ({difference}): install that version again")]
    Damaged { path: PathBuf, difference: Difference },

    #[error(
        "nothing to verify: this is the small launcher, which has no etcd inside, and there is no {candidates}: \
         name the directory"
    )]
    NothingToVerify { candidates: String },

    #[error(
        "{path} {}: name the directory that \"etcdproxy unpack\" wrote to",
        if *exists { "is not a directory" } else { "does not exist" }
    )]
    NoDirectory { path: PathBuf, exists: bool },

    #[error("the service is not started: set ETCDPROXY_ENDPOINTS in {path}, then try again")]
    NotConfigured { path: PathBuf },

    #[error("{path}: the service's sandbox hides everything in {hidden}: choose another --prefix, or --no-systemd")]
    Hidden { path: PathBuf, hidden: &'static str },

    #[error("the service is not started, because no service manager is running here: leave --start out")]
    NoManager,

    #[error("{command}: {why}")]
    Service { command: String, why: String },

    #[error(transparent)]
    Location(#[from] LocationError),

    #[error(transparent)]
    Write(#[from] WriteError),

    #[error(transparent)]
    Release(#[from] release::Error),

    #[error(transparent)]
    Settings(#[from] settings::Error),
}

impl Error {
    /// This binary cannot be read.
    pub(super) fn own_exe(cause: io::Error) -> Self {
        Self::OwnExe { cause }
    }
}

/// Why an installation cannot be where the user wants it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LocationError {
    #[error("--user: HOME is not set: set it to the user's home directory")]
    NoHome,

    #[error("--root: the directory {path} does not exist: name the root directory of an image or chroot")]
    NoRoot { path: PathBuf },

    #[error(
        "{flag}: {path:?} contains something that a systemd unit cannot use (white space, a control character, a quotation mark, one of \\ $ * ? [, or \"..\"): \
         choose another path"
    )]
    Unsuitable { flag: &'static str, path: PathBuf },
}
