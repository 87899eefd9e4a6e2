//! Buildpacks: what they do at staging, and the file that is uploaded.
//!
//! - [`options`]: the variables that a user sets, the same for each kind of buildpack
//! - [`process`]: the process that runs the proxy, as a value
//! - [`programs`]: etcd and the launcher, which each kind of buildpack puts into the image
//! - [`classic`]: the classic buildpack of Cloud Foundry
//! - [`cnb`]: the Cloud Native Buildpack

mod classic;
mod cnb;
mod options;
mod process;
mod programs;

pub(crate) use classic::{Package, PackageError, Supply, package, supply};
pub(crate) use cnb::{Build, Detected, EXEC_D, Platform, build, detect};
pub(crate) use options::Options;
pub(crate) use process::DRAIN;
