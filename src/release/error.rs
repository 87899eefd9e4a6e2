//! Why a program or document cannot be taken out of this binary.

use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::{Serialize, Serializer};

use super::contents::Program;
use super::payload::DecodeError;
use crate::fs::WriteError;
use crate::os::log::without_errno;

/// Why a program or document cannot be taken out of this binary.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("this build carries {has}, not {name}: build with ETCD_RELEASE_TARBALL set to the official etcd tarball")]
    NotIncluded { name: String, has: String },

    #[error(
        "this is the small launcher, which has no {name} inside: put it back beside {name}, or use the full etcdproxy"
    )]
    Launcher { name: &'static str },

    #[error("this is the small launcher, which has no {what} inside: use the full etcdproxy")]
    NoDocument { what: &'static str },

    #[error("cannot make the small launcher from {binary}: {detail}")]
    NoLauncher { binary: String, detail: String },

    #[error("the {name} inside this binary is damaged ({detail}): copy or download etcdproxy again")]
    Damaged { name: &'static str, detail: String },

    #[error("the {name} inside {path} is damaged ({detail}): copy or download that etcdproxy again")]
    DamagedIn { path: PathBuf, name: String, detail: &'static str },

    /// The error of whoever took the bytes.
    #[error(transparent)]
    Sink(io::Error),

    #[error("{path} exists and is not {name} {version} ({difference}): move it away, or choose another directory")]
    Occupied { path: PathBuf, name: &'static str, version: &'static str, difference: Difference },

    #[error(transparent)]
    Write(#[from] WriteError),

    #[error("{path} belongs to uid {owner}, who could replace the programs in it: {remedy}")]
    WrongOwner { path: PathBuf, owner: u32, remedy: &'static str },

    #[error("{path} is writable by other users, who could replace the programs in it: {remedy}, or run chmod go-w")]
    Shared { path: PathBuf, remedy: &'static str },

    #[error("{path} is a link, and only a directory is safe there: remove it, or {remedy}")]
    Link { path: PathBuf, remedy: &'static str },

    #[error(
        "other users can replace {path}, and without /proc etcdproxy cannot tell whether they do: mount /proc, or {remedy}"
    )]
    Replaceable { path: PathBuf, remedy: &'static str },

    #[error("{path} is on a file system mounted noexec, so nothing can be run from it: {remedy}")]
    NoExec { path: PathBuf, remedy: &'static str },

    #[error("cannot read {path}: {}: give permission, or move it away", without_errno(cause))]
    CannotRead { path: PathBuf, cause: io::Error },

    #[error(
        "cannot keep {name} in memory: {}: \
         set ETCDPROXY_UNPACK_DIR to a directory that etcdproxy can write to and run programs from",
        without_errno(cause)
    )]
    NoMemory { name: &'static str, cause: io::Error },
}

impl Error {
    /// The error for `program`; `sink` converts an error of whoever took the bytes.
    pub(super) fn of_decode(program: &Program, err: DecodeError, sink: impl FnOnce(io::Error) -> Self) -> Self {
        match err {
            DecodeError::Absent => Self::Launcher { name: program.name },
            DecodeError::Damaged(detail) => Self::Damaged { name: program.name, detail },
            DecodeError::Sink(err) => sink(err),
        }
    }
}

/// How a file differs from what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Difference {
    Missing,
    /// What is wrong, such as `it has 4 bytes, not 5`.
    Mismatch(String),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "it is missing",
            Self::Mismatch(what) => what,
        })
    }
}

impl Serialize for Difference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
