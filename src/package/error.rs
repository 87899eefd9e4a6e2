//! Why a package cannot be made from what the user gives.

use std::path::PathBuf;

use crate::release::Label;

/// Why a package cannot be made from what the user gives.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("this is the small launcher, which has no etcd inside: package with the full etcdproxy")]
    Launcher,

    #[error("{option} is for --format {only}: leave it out for --format {format}")]
    OtherFormat { option: &'static str, format: &'static str, only: &'static str },

    #[error("--arch both: a buildpackage is for one architecture: make one for each, or use --format tgz")]
    OneArch,

    #[error("--stack: invalid stack {0:?}: use a name such as cflinuxfs4")]
    InvalidStack(String),

    #[error("--ca-bundle: {path} cannot be used: {why}: name a file such as /etc/ssl/certs/ca-certificates.crt")]
    CaBundle { path: PathBuf, why: String },

    #[error("--other: a package for {this} alone contains this binary only: leave --other out")]
    OtherNotNeeded { this: &'static str },

    #[error("--arch {arch}: this is the etcdproxy for {this}: name the one for {missing} with --other")]
    OtherNeeded { arch: String, this: &'static str, missing: &'static str },

    #[error("--other: {path} cannot be used: {why}")]
    Unusable { path: PathBuf, why: String },

    #[error("--other: {path} is for {arch}: name the etcdproxy for {missing}")]
    WrongArch { path: PathBuf, arch: String, missing: &'static str },

    #[error(
        "--other: {path} is etcdproxy {} with etcd {}, this is {} with {}: use two of the same release",
        other.etcdproxy, other.etcd, this.etcdproxy, this.etcd
    )]
    OtherRelease { path: PathBuf, other: Box<Label>, this: Box<Label> },
}
