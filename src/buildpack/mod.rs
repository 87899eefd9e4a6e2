//! Buildpacks: what they do at staging.
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

pub(crate) use classic::{Supply, manifest, supply};
pub(crate) use cnb::{API, Build, Detected, EXEC_D, ID, NAME, Platform, build, buildpack_toml, detect, version};
pub(crate) use options::Options;
pub(crate) use process::DRAIN;
